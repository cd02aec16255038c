/* Preloaded into a process, makes its clocks tell its processor time: a budget of seconds is then one of
 * work, whatever else the machine does meanwhile. Every program reads clocks through the C library, so the
 * peers that are compared need not know. `times` is left alone and tells real time. Waits until a point in
 * time wait in real time for as long as it lies ahead: Python's threads would spin on deadlines that lie in
 * the past.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static int read_clock(clockid_t clock, struct timespec* now) {
    return (int)syscall(SYS_clock_gettime, clock, now);
}

int clock_gettime(clockid_t clock, struct timespec* now) {
    return read_clock(clock == CLOCK_THREAD_CPUTIME_ID ? clock : CLOCK_PROCESS_CPUTIME_ID, now);
}

int gettimeofday(struct timeval* restrict now, void* restrict zone) {
    struct timespec t;
    (void)zone;
    const int failed = clock_gettime(CLOCK_REALTIME, &t);
    now->tv_sec = t.tv_sec;
    now->tv_usec = t.tv_nsec / 1000;
    return failed;
}

time_t time(time_t* now) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    if (now) *now = t.tv_sec;
    return t.tv_sec;
}

/* The real monotonic time that lies as far ahead as `until` on the clock above. */
static struct timespec real(const struct timespec* until) {
    struct timespec told, now;
    clock_gettime(CLOCK_MONOTONIC, &told);
    read_clock(CLOCK_MONOTONIC, &now);
    long long ahead = (until->tv_sec - told.tv_sec) * 1000000000LL + (until->tv_nsec - told.tv_nsec);
    if (ahead < 0) ahead = 0;
    ahead += now.tv_nsec;
    now.tv_sec += ahead / 1000000000;
    now.tv_nsec = ahead % 1000000000;
    return now;
}

int clock_nanosleep(clockid_t clock, int flags, const struct timespec* until, struct timespec* left) {
    const struct timespec t = flags & TIMER_ABSTIME ? real(until) : *until;
    (void)clock;
    return syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, flags, &t, left) ? errno : 0;
}

typedef int (*wait_condition)(pthread_cond_t*, pthread_mutex_t*, clockid_t, const struct timespec*);
typedef int (*wait_semaphore)(sem_t*, clockid_t, const struct timespec*);

int pthread_cond_clockwait(pthread_cond_t* c, pthread_mutex_t* m, clockid_t clock,
                           const struct timespec* until) {
    static wait_condition next;
    if (!next) next = (wait_condition)dlsym(RTLD_NEXT, "pthread_cond_clockwait");
    const struct timespec t = real(until);
    (void)clock;
    return next(c, m, CLOCK_MONOTONIC, &t);
}

int pthread_cond_timedwait(pthread_cond_t* restrict c, pthread_mutex_t* restrict m,
                           const struct timespec* restrict until) {
    return pthread_cond_clockwait(c, m, CLOCK_MONOTONIC, until);
}

int sem_clockwait(sem_t* restrict s, clockid_t clock, const struct timespec* restrict until) {
    static wait_semaphore next;
    if (!next) next = (wait_semaphore)dlsym(RTLD_NEXT, "sem_clockwait");
    const struct timespec t = real(until);
    (void)clock;
    return next(s, CLOCK_MONOTONIC, &t);
}

int sem_timedwait(sem_t* restrict s, const struct timespec* restrict until) {
    return sem_clockwait(s, CLOCK_MONOTONIC, until);
}
