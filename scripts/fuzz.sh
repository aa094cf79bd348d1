#!/usr/bin/env bash
# Each fuzz target of fuzz/ for a while, on what is known to be interesting and on what that leads to. Any that fails
# leaves its input in fuzz/artifacts. Arguments: seconds for each (default 10), and targets (default all).
#
# Stable Rust does with counters for coverage and without a sanitizer: the gateway has no unsafe code of its own. The
# layout is that of cargo-fuzz, which works here too, with `--sanitizer none`.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-10}
shift || true
host=$(rustc -vV | sed -n 's/^host: //p')

# The versions are those of the gateway; what only the fuzzer needs is added.
cp Cargo.lock fuzz/Cargo.lock

# By target, so that what runs while compiling (macros, build scripts) has no counters and is shared with all else.
flags="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
flags+=" -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing"
RUSTFLAGS=$flags cargo build --quiet --manifest-path fuzz/Cargo.toml --target "$host" \
    --target-dir "${CARGO_TARGET_DIR:-target}" --profile fuzz
bin=${CARGO_TARGET_DIR:-target}/$host/fuzz

if [ $# -gt 0 ]; then targets=("$@"); else mapfile -t targets < <(sed -n 's/^name = "\(.*\)"$/\1/p' fuzz/Cargo.toml | tail -n +2); fi
mkdir -p fuzz/artifacts

run() {
    local target=$1 corpus=fuzz/corpus/$1 extra=()
    mkdir -p "$corpus" "fuzz/seeds/$target"
    [ -e "fuzz/dictionaries/$target" ] && extra+=(-dict="fuzz/dictionaries/$target")
    if "$bin/$target" "$corpus" "fuzz/seeds/$target" -max_total_time="$seconds" -max_len=8192 -timeout=10 -rss_limit_mb=1024 \
        -artifact_prefix="fuzz/artifacts/$target-" "${extra[@]}" >"fuzz/artifacts/$target.log" 2>&1; then
        grep '^Done' "fuzz/artifacts/$target.log" | sed "s/^/$target: /"
    else
        echo "$target: failed" >&2
        grep -v '^#' "fuzz/artifacts/$target.log" | tail -n 40 >&2
        return 1
    fi
}

# Two at a time: each is one thread.
failed=0 pids=()
for target in "${targets[@]}"; do
    while [ "$(jobs -rp | wc -l)" -ge 2 ]; do sleep 0.2; done
    run "$target" &
    pids+=($!)
done
for pid in "${pids[@]}"; do wait "$pid" || failed=1; done
exit "$failed"
