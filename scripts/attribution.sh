#!/usr/bin/env bash
# What it costs to tell which api and which consumer used what: a part of what a call costs, which must stay below 2 %.
#
# It is two things. Counting, on every call: its instructions are counted by callgrind, in the calls of one run more than of
# another. And measuring time on a core, on some calls: how often the thread's clock is read is told by strace, and what a
# read costs is measured here, since it is a system call; against the time on a core that a call takes without either tool.
# The last is a time, so let the machine be quiet; on a busy one it is too long, and the part too small.
set -euo pipefail
cd "$(dirname "$0")/.."

few=500 many=2500 calls=40000
profile=${1:-bench-fast}
out=$(mktemp -d)
pids=()
finish() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    rm -rf "$out"
}
trap finish EXIT

cargo build --locked --quiet --profile "$profile" -p weir
weir=target/$profile/weir

backend=18274 gateway=18275
cat >"$out/backend.yaml" <<YAML
version: 1
node: { workers: 1 }
admin: { address: none }
listeners: { web: { address: "127.0.0.1:$backend" } }
apis: { hello: { routes: [{ respond: { status: 200, body: "hello\n" } }] } }
YAML
cat >"$out/gateway.yaml" <<YAML
version: 1
node: { workers: 1 }
admin: { address: none }
listeners: { web: { address: "127.0.0.1:$gateway" } }
policies: { authenticate: { api-key: {} } }
apis: { hello: { upstream: "http://127.0.0.1:$backend" } }
consumers:
  bench: { keys: [{ id: k1, hash: "sha256:$(printf bench-key | sha256sum | cut -d' ' -f1)" }] }
YAML

"$weir" run "$out/backend.yaml" 2>"$out/backend.log" &
pids+=($!)

call() { curl -sfo /dev/null -H 'x-api-key: bench-key' "http://127.0.0.1:$gateway/$1"; }
start() {
    "$@" "$weir" run "$out/gateway.yaml" 2>"$out/gateway.log" &
    pid=$!
    pids+=("$pid")
    for _ in $(seq 300); do
        if call ''; then return; fi
        sleep 0.1
    done
    echo "nothing answers" >&2
    cat "$out"/*.log >&2
    exit 1
}
stop() {
    kill -TERM "$1"
    wait "$1" || true
}

# Instructions of a whole run with that many calls: all, and those of counting.
counted() {
    start valgrind --tool=callgrind --callgrind-out-file="$out/callgrind"
    call "[1-$1]"
    stop "$pid"
    callgrind_annotate --inclusive=yes --threshold=100 "$out/callgrind" | tr -d , | awk '
        /PROGRAM TOTALS/ { all = $1 }
        /tally::Tally::count/ { counting += $1 }
        END { print all, counting + 0 }'
}
read -r all_few counting_few < <(counted "$few")
read -r all_many counting_many < <(counted "$many")
instructions=$(((all_many - all_few) / (many - few)))
counting=$(((counting_many - counting_few) / (many - few)))
[ "$counting" -gt 0 ] || { echo "counting is not to be seen: was it inlined?" >&2; exit 1; }

start
ticks() { awk '{ print $14 + $15 }' "/proc/$pid/stat"; }
call "[1-$few]"
before=$(ticks)
call "[1-$calls]"
nanos=$((($(ticks) - before) * 1000000000 / $(getconf CLK_TCK) / calls))
strace -f -qq -c -e trace=clock_gettime -o "$out/reads" -p "$pid" &
tracer=$!
sleep 1
call "[1-$calls]"
kill -INT "$tracer"
wait "$tracer" || true
stop "$pid"
reads=$(awk '$NF == "clock_gettime" { print $4 }' "$out/reads")

# Of the thread's clock, more than of one that needs no system call.
read_nanos=$(python3 - <<'PYTHON'
import time

def best(clock):
    rounds = []
    for _ in range(9):
        before = time.process_time_ns()
        for _ in range(100_000):
            time.clock_gettime_ns(clock)
        rounds.append((time.process_time_ns() - before) / 100_000)
    return min(rounds)

print(round(best(time.CLOCK_THREAD_CPUTIME_ID) - best(time.CLOCK_MONOTONIC)))
PYTHON
)

awk -v counting="$counting" -v instructions="$instructions" -v reads="${reads:-0}" -v calls="$calls" \
    -v nanos="$nanos" -v read_nanos="$read_nanos" 'BEGIN {
    counted = 100 * counting / instructions
    measured = 100 * reads / calls * read_nanos / nanos
    printf "counting: %d of %d instructions a call, %.2f %%\n", counting, instructions, counted
    printf "measuring: %.3f reads of the clock a call, of %d ns each; a call takes %d ns on a core: %.2f %%\n", reads / calls, read_nanos, nanos, measured
    printf "together: %.2f %%\n", counted + measured
    exit counted + measured >= 2
}'
