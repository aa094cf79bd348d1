#!/usr/bin/env bash
# Counts the instructions of the request path, in user space, and compares them with bench/instructions.txt.
#
# A Weir under callgrind stands before another that answers; the difference between many calls and few is the cost
# of the calls alone. The count is repeatable to a fraction of a per cent for one compiler and lock file, whatever
# else the machine does. More than 5 % above the file fails; `scripts/instructions.sh --write` accepts a new count.
set -euo pipefail
cd "$(dirname "$0")/.."

few=500 many=2500
profile=bench-fast
out=$(mktemp -d)
pids=()
finish() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    rm -rf "$out"
}
trap finish EXIT

cargo build --locked --quiet --profile "$profile" -p weir
weir=target/$profile/weir

backend=18271 bare=18272 policies=18273
cat >"$out/backend.yaml" <<YAML
version: 1
node: { workers: 1 }
listeners: { web: { address: "127.0.0.1:$backend" } }
apis: { hello: { routes: [{ respond: { status: 200, body: "hello\n" } }] } }
YAML
cat >"$out/bare.yaml" <<YAML
version: 1
node: { workers: 1 }
listeners: { web: { address: "127.0.0.1:$bare" } }
apis: { hello: { upstream: "http://127.0.0.1:$backend" } }
YAML
cat >"$out/policies.yaml" <<YAML
version: 1
node: { workers: 1 }
listeners: { web: { address: "127.0.0.1:$policies" } }
telemetry: { access-log: file:/dev/null }
policies:
  authenticate: { api-key: {} }
  limit: [{ per: consumer, rate: 1000000/s }]
apis: { hello: { upstream: "http://127.0.0.1:$backend" } }
consumers:
  bench: { keys: [{ id: k1, hash: "sha256:$(printf bench-key | sha256sum | cut -d' ' -f1)" }] }
YAML

"$weir" run "$out/backend.yaml" 2>"$out/backend.log" &
pids+=($!)

wait_for() {
    for _ in $(seq 300); do
        if curl -so /dev/null -H 'x-api-key: bench-key' "http://127.0.0.1:$1/"; then return; fi
        sleep 0.1
    done
    echo "nothing answers on port $1" >&2
    cat "$out"/*.log >&2
    exit 1
}
wait_for "$backend"

# Instructions of a whole run with that many calls on one connection.
run() {
    local name=$1 port=$2 calls=$3
    valgrind --tool=callgrind --callgrind-out-file="$out/callgrind" "$weir" run "$out/$name.yaml" 2>"$out/$name.log" &
    local pid=$!
    pids+=("$pid")
    wait_for "$port"
    curl -sfo /dev/null -H 'x-api-key: bench-key' "http://127.0.0.1:$port/[1-$calls]"
    kill -TERM "$pid"
    wait "$pid" || true
    sed -n 's/^summary: //p; s/^totals: //p' "$out/callgrind" | head -n 1
}

failed=0
: >"$out/counts"
for name in bare policies; do
    port=${!name}
    base=$(run "$name" "$port" "$few")
    top=$(run "$name" "$port" "$many")
    count=$(((top - base) / (many - few)))
    echo "$name $count" >>"$out/counts"
    accepted=$(sed -n "s/^$name //p" bench/instructions.txt 2>/dev/null || true)
    echo "$name: $count instructions a call (accepted: ${accepted:-none})"
    if [ -n "$accepted" ] && [ $((count * 100)) -gt $((accepted * 105)) ]; then
        echo "$name: more than 5 % above what was accepted" >&2
        failed=1
    fi
done
if [ "${1:-}" = --write ]; then
    cp "$out/counts" bench/instructions.txt
    exit 0
fi
[ -e bench/instructions.txt ] || { echo "bench/instructions.txt is missing; make it with --write" >&2; exit 1; }
exit "$failed"
