#!/usr/bin/env bash
# Counts the instructions of the request path, in user space, and compares them with bench/instructions.txt.
#
# A Weir under callgrind stands before another that answers, or before an origin that sends events; `h2` is `bare` with
# a hundred calls at a time on one connection of HTTP/2. The difference between many calls and few, or between a long
# stream and a short one, is the cost of the calls, or events, alone. The count is repeatable to a fraction of a per
# cent for one compiler and lock file, whatever else the machine does. More than 5 % above the file fails;
# `scripts/instructions.sh --write` accepts a new count.
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

backend=18271 bare=18272 policies=18273 streams=18274 origin=18275 h2=18276
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
sed "s/:$bare\"/:$h2\"/" "$out/bare.yaml" >"$out/h2.yaml"
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
cat >"$out/streams.yaml" <<YAML
version: 1
node: { workers: 1 }
listeners: { web: { address: "127.0.0.1:$streams" } }
apis: { hello: { upstream: "http://127.0.0.1:$origin" } }
YAML
# Answers `/N` with N events, the next of which goes out when the last has arrived: each comes alone.
cat >"$out/origin.py" <<'PYTHON'
import socket, sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
event = b"78\r\ndata: " + b"x" * 112 + b"\n\n\r\n"
while True:
    connection, _ = listener.accept()
    while request := connection.recv(65536):
        count = int(b"0" + request.split()[1][1:])
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        connection.sendall(head)
        arrived = listener.accept()[0] if count else None
        for _ in range(count):
            connection.sendall(event)
            arrived.recv(1)
        connection.sendall(b"0\r\n\r\n")
PYTHON
cat >"$out/client.py" <<'PYTHON'
import socket, sys

origin, gateway, count = map(int, sys.argv[1:])
arrived = socket.create_connection(("127.0.0.1", origin))
connection = socket.create_connection(("127.0.0.1", gateway))
connection.sendall(b"GET /%d HTTP/1.1\r\nhost: bench\r\n\r\n" % count)
read, events = b"", 0
while events < count:
    piece = connection.recv(65536)
    assert piece, "the stream broke off"
    read += piece
    while b"\n\n" in read:
        read = read.partition(b"\n\n")[2]
        events += 1
        arrived.send(b".")
PYTHON

"$weir" run "$out/backend.yaml" 2>"$out/backend.log" &
pids+=($!)
python3 "$out/origin.py" "$origin" 2>"$out/origin.log" &
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

# Instructions of a whole run in which one connection asks for that.
run() {
    local name=$1 port=$2 what=$3
    valgrind --tool=callgrind --callgrind-out-file="$out/callgrind" "$weir" run "$out/$name.yaml" 2>"$out/$name.log" &
    local pid=$!
    pids+=("$pid")
    wait_for "$port"
    case $what in
        h2:*) h2load -n "${what#h2:}" -c 1 -m 100 "http://127.0.0.1:$port/" | grep " ${what#h2:} succeeded" >/dev/null ;;
        \[*) curl -sfo /dev/null -H 'x-api-key: bench-key' "http://127.0.0.1:$port/$what" ;;
        *) python3 "$out/client.py" "$origin" "$port" "$what" ;;
    esac
    kill -TERM "$pid"
    wait "$pid" || true
    sed -n 's/^summary: //p; s/^totals: //p' "$out/callgrind" | head -n 1
}

failed=0
: >"$out/counts"
for name in bare policies h2 streams; do
    port=${!name} unit=call from="[1-$few]" to="[1-$many]"
    case $name in
        h2) from=h2:$few to=h2:$many ;;
        streams) unit=event from=$few to=$many ;;
    esac
    base=$(run "$name" "$port" "$from")
    top=$(run "$name" "$port" "$to")
    count=$(((top - base) / (many - few)))
    echo "$name $count" >>"$out/counts"
    accepted=$(sed -n "s/^$name //p" bench/instructions.txt 2>/dev/null || true)
    echo "$name: $count instructions for each $unit (accepted: ${accepted:-none})"
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
