#!/bin/sh
# Moves the line tables of a program into PROGRAM.debug beside it, where debuggers and the program's own
# backtraces find them. It is a third of its size then.
set -eu
command -v objcopy readelf >/dev/null || exit 0
cd "$(dirname "$1")"
program=$(basename "$1")
readelf -SW "$program" | grep -q '\.debug_info' || exit 0
objcopy --only-keep-debug "$program" "$program.debug"
objcopy --strip-debug --add-gnu-debuglink="$program.debug" "$program" "$program.small"
# A file of its own: what the compiler wrote may be running, and has another name too.
mv -f "$program.small" "$program"
