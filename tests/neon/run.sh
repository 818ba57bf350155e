#!/bin/sh
# Compile the kernels for 64-bit ARM, run their tests under an emulator.
#
#   tests/neon/run.sh           cross-compiled by g++-aarch64-linux-gnu, run by qemu-user
#   tests/neon/run.sh native    compiled for this machine, at each of its own levels
#
# The emulator and the cross compiler are found or installed by .ci/need; on an ARM machine neither
# is needed. The build goes to build/kernel-tests; CMAKE names another cmake.
set -eu
cd "$(dirname "$0")/../.."

die() { printf 'soardb: %s\n' "$*" >&2; exit 1; }

target=${1:-neon}
case $target in
    neon | native) ;;
    *) die "expected neon or native, got '$target'" ;;
esac
machine=$(uname -m)
case $target-$machine in
    neon-aarch64 | neon-arm64) emulated= ;;
    neon-*) emulated=yes ;;
    *) emulated= ;;
esac

cmake=${CMAKE:-}
for candidate in cmake .venv/bin/cmake; do
    [ -n "$cmake" ] || ! command -v "$candidate" >/dev/null || cmake=$candidate
done
[ -n "$cmake" ] || die "cmake 3.18 or newer is needed: run make setup, or apt-get install cmake"

build=build/kernel-tests/$target
set -- -S native -B "$build" -DSOARDB_PYTHON=OFF -DSOARDB_KERNEL_TESTS=ON
if [ -n "$emulated" ]; then
    .ci/need neon
    set -- "$@" -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
        -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++
fi
"$cmake" "$@" >/dev/null
"$cmake" --build "$build" >/dev/null

if [ -n "$emulated" ]; then
    exec qemu-aarch64 -L /usr/aarch64-linux-gnu "$build/kernel_tests" neon
elif [ "$target" = neon ]; then
    exec "$build/kernel_tests" neon
else
    exec "$build/kernel_tests"
fi
