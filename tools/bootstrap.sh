#!/usr/bin/env bash
# Makes the environment that the Makefile works in. Idempotent; every failure says what to do.
#
#   tools/bootstrap.sh VENV PYTHON TORCH GROUP...
#
# VENV    folder of the virtual environment; created by PYTHON if it is not there
# PYTHON  interpreter >= 3.10; if it has torch >= 2.10 and TORCH is empty, that torch is used and none is installed
# TORCH   requirement to install, "torch==2.12.0"; empty: an importable torch >= 2.10, else the default below
# GROUP   build (what compiling needs), run (what the package needs), or an extra of pyproject.toml
set -euo pipefail
venv=$1 python=$2 torch=$3
shift 3
default_torch=torch==2.13.0
root=$(cd "$(dirname "$0")/.." && pwd)

die() {
    printf '\nerror: %s\n' "$1" >&2
    shift
    printf '       %s\n' "$@" >&2
    exit 1
}

free_mib() { df -Pm "$root" | awk 'NR == 2 { print $4 }'; }

check_python() {
    command -v "$1" >/dev/null || die "no Python: '$1' was not found" \
        "install Python 3.10 or newer (Debian, Ubuntu: apt-get install python3 python3-venv python3-dev)," \
        "or name one: make PYTHON=/path/to/python3"
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || die "$("$1" --version 2>&1) is too old" \
        "Python 3.10 or newer is needed; name one: make PYTHON=/path/to/python3.11"
}

check_venv() {
    "$1" -c 'import venv, ensurepip' 2>/dev/null || die "$1 cannot make virtual environments" \
        "its modules venv and ensurepip are missing (Debian, Ubuntu: apt-get install python3-venv)," \
        "or name an existing environment: make VENV=/path/to/environment"
}

check_compiler() {
    local cxx=${CXX:-c++} scratch header
    header=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("include") + "/Python.h")')
    [ -e "$header" ] || die "Python's headers are missing ($header)" "Debian, Ubuntu: apt-get install python3-dev"
    command -v "$cxx" >/dev/null || die "no C++ compiler: '$cxx' was not found" \
        "install g++ 11 or newer (Debian, Ubuntu: apt-get install g++), or name one: CXX=g++-12 make"
    scratch=$(mktemp -d)
    cat >"$scratch/probe.cpp" <<'CPP'
#include <bit>
#include <concepts>
#include <cstdint>
template <std::floating_point T> constexpr auto bits(T x) { return std::bit_cast<std::uint32_t>(x); }
static_assert(bits(1.0f) == 0x3f800000u);
CPP
    if ! "$cxx" -std=c++20 -c "$scratch/probe.cpp" -o "$scratch/probe.o" 2>"$scratch/log"; then
        head -5 "$scratch/log" >&2
        rm -r "$scratch"
        die "$cxx ($("$cxx" -dumpfullversion 2>/dev/null || echo 'version unknown')) does not compile C++20" \
            "g++ 11 or newer is needed; name one: CXX=g++-12 make"
    fi
    rm -r "$scratch"
}

pip_install() {
    # Its output is shown only on failure: pip also complains about dependencies that are left out below.
    local log="$venv/pip.log"
    "$venv/bin/python" -m pip install --disable-pip-version-check "$@" >"$log" 2>&1 && return
    tail -30 "$log" >&2
    [ "$(free_mib)" -gt 1024 ] || die "pip failed, and only $(free_mib) MiB are free in $root" \
        "free some, or put the environment elsewhere: make VENV=/path/on/another/disk"
    die "pip could not install: $*" "its message is above, all of it in $log; run make again once the cause is gone"
}

# Prints the version of an importable torch >= 2.10, and with an argument also the folder that holds it.
torch_of() {
    "$1" - <<'PY' 2>/dev/null
import importlib.metadata, os, importlib.util
version = importlib.metadata.version("torch")
if tuple(int(n) for n in version.split("+")[0].split(".")[:2]) >= (2, 10):
    print(version, os.path.dirname(os.path.dirname(importlib.util.find_spec("torch").origin)))
PY
}

# Prints the requirements of a group, one a line.
requirements() {
    "$venv/bin/python" - "$root/pyproject.toml" "$1" <<'PY'
import sys
try:
    import tomllib
except ImportError:  # Python 3.10
    from pip._vendor import tomli as tomllib
with open(sys.argv[1], "rb") as file:
    project = tomllib.load(file)
groups = {**project["project"]["optional-dependencies"]}
groups["build"] = [*project["build-system"]["requires"], "wheel"]
groups["run"] = project["project"]["dependencies"]
print(*groups[sys.argv[2]], sep="\n")
PY
}

if [ ! -x "$venv/bin/python" ]; then
    check_python "$python"
    check_venv "$python"
    echo "Creating $venv with $("$python" --version)"
    "$python" -m venv "$venv" || die "could not create $venv" "is the disk full, or the folder not writable?"
    if [ -z "$torch" ] && found=$(torch_of "$python") && [ -n "$found" ]; then
        echo "Using torch ${found%% *} of ${found#* }"
        echo "${found#* }" >"$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/base_torch.pth"
    fi
fi
check_python "$venv/bin/python"
check_compiler
"$venv/bin/python" -m pip --version >/dev/null 2>&1 || "$venv/bin/python" -m ensurepip >/dev/null ||
    die "$venv has no pip" "remove that folder and run make again"

if [ -n "$torch" ] || [ -z "$(torch_of "$venv/bin/python")" ]; then
    [ "$(free_mib)" -gt 3072 ] || die "only $(free_mib) MiB are free in $root" \
        "torch and a build need 3 GiB, a torch with CUDA 10 GiB; or name another disk: make VENV=/path/on/it"
    echo "Installing ${torch:-$default_torch} (the first time this takes minutes)"
    pip_install "${torch:-$default_torch}"
fi
found=$(torch_of "$venv/bin/python") || true
[ -n "$found" ] || die "${torch:-torch} is installed, but torch >= 2.10 is needed" "make TORCH=$default_torch"

# Nothing may replace the torch that the package is compiled for.
echo "torch==${found%% *}" >"$venv/constraints.txt"
for group in "$@"; do
    echo "Installing what '$group' needs"
    mapfile -t wanted < <(requirements "$group")
    pip_install --constraint "$venv/constraints.txt" "${wanted[@]}"
    case $group in test | bench)
        # Their dependencies include torchvision, which brings another torch, and an old networkx.
        pip_install --no-deps k-diffusion tsplib95 ;;
    esac
done
