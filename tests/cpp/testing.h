// A test program in one header: FD_TEST(name) { EXPECT(condition); } ... FD_TEST_MAIN()
//
// Without arguments the program runs every test; with arguments those named. Names starting with "planted_"
// hold bugs that a sanitizer must report, and run only when named.
#pragma once

#include <cstdio>
#include <cstring>
#include <exception>
#include <string>
#include <vector>

namespace fd::testing {

struct Test {
    const char* name;
    void (*body)();
};
inline std::vector<Test>& all() {
    static std::vector<Test> tests;
    return tests;
}
inline int failures = 0;

struct Registration {
    Registration(const char* name, void (*body)()) { all().push_back({name, body}); }
};

inline void expect(bool ok, const char* what, const char* file, int line, const std::string& note = "") {
    if (ok) return;
    if (++failures <= 20)
        std::printf("%s:%d: expected %s%s%s\n", file, line, what, note.empty() ? "" : "; ", note.c_str());
}

// Whether `body` throws an exception whose text contains `text`.
template <class F>
bool throws(F&& body, const char* text) {
    try {
        body();
    } catch (const std::exception& e) {
        if (std::strstr(e.what(), text) != nullptr) return true;
        std::printf("threw: %s\n", e.what());
    }
    return false;
}

inline int main(int argc, char** argv) {
    int run = 0;
    for (const Test& test : all()) {
        bool wanted = argc == 1 && std::strncmp(test.name, "planted_", 8) != 0;
        for (int i = 1; i < argc; ++i) wanted |= std::strcmp(argv[i], test.name) == 0;
        if (!wanted) continue;
        const int before = failures;
        ++run;
        try {
            test.body();
        } catch (const std::exception& e) {
            ++failures;
            std::printf("threw: %s\n", e.what());
        }
        std::printf("%s %s\n", failures == before ? "ok    " : "FAILED", test.name);
        std::fflush(stdout);
    }
    std::printf("%d tests, %d failures\n", run, failures);
    return failures > 0 || run == 0 ? 1 : 0;
}

}  // namespace fd::testing

#define FD_TEST(name)                                                         \
    static void name();                                                       \
    static const ::fd::testing::Registration name##_registered(#name, &name); \
    static void name()
#define EXPECT(condition) ::fd::testing::expect((condition), #condition, __FILE__, __LINE__)
#define EXPECT_NOTE(condition, note) ::fd::testing::expect((condition), #condition, __FILE__, __LINE__, note)
#define FD_TEST_MAIN() \
    int main(int argc, char** argv) { return ::fd::testing::main(argc, argv); }
