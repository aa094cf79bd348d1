#!/usr/bin/env bash
# target/static/weir: the binary with everything in it that it needs, the C library too, so that it runs on any Linux of
# this architecture. It asks no name service of the system's (names are resolved by the binary itself), which is what
# such binaries are wont to miss.
set -euo pipefail
cd "$(dirname "$0")/.."

host=$(rustc -vV | sed -n 's/^host: //p')
# With `--target` the flags are not those of build scripts and macros, which have to be loaded.
RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+crt-static" cargo build --locked --release -p weir --target "$host"
install -Dm755 "target/$host/release/weir" target/static/weir
strip target/static/weir
if readelf -l target/static/weir | grep -q INTERP; then
    echo "target/static/weir asks for a loader: it is not static" >&2
    exit 1
fi
