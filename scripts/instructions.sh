#!/usr/bin/env bash
# Counts the instructions of the request path, in user space, and compares them with bench/instructions.txt.
#
# A Weir under callgrind stands before another that answers, or before an origin that sends events, those of a model
# too; `answers` are a model's whole ones, of 1 KB to a question of 4 KB; `h2` is `bare` with a hundred calls at a time on one connection of HTTP/2. The difference between many calls and
# few, or between a long stream and a short one, is the cost of the calls, or events, alone. The count is repeatable to a
# fraction of a per cent for one compiler and lock file, whatever else the machine does. More than 5 % above the file
# fails; `scripts/instructions.sh --write` accepts a new count.
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

backend=18271 bare=18272 policies=18273 streams=18274 origin=18275 h2=18276 arrivals=18277 models=18278
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
cat >"$out/models.yaml" <<YAML
version: 1
node: { workers: 1 }
listeners: { web: { address: "127.0.0.1:$models" } }
ledger: { data: "$out/ledger" }
providers:
  openai: { upstream: "http://127.0.0.1:$origin/v1", keys: "file:$out/key" }
  anthropic: { upstream: "http://127.0.0.1:$origin", keys: "file:$out/key" }
models:
  same: { candidates: [{ model: openai/gpt-4o, price: { input: 2.5 USD, output: 10 USD } }] }
  other: { candidates: [{ model: anthropic/claude-sonnet-4-5, price: { input: 3 USD, output: 15 USD } }] }
budgets: { bench: { per: consumer, amount: 1000000 USD, every: month } }
policies: { authenticate: { api-key: {} } }
apis: { models: { llm: {} } }
consumers:
  bench: { keys: [{ id: k1, hash: "sha256:$(printf bench-key | sha256sum | cut -d' ' -f1)" }] }
YAML
echo provider-key >"$out/key"
# Answers `/N`, or a prompt `[N]`, with N events, the next of which goes out when the last has arrived: each comes alone.
cat >"$out/origin.py" <<'PYTHON'
import json, re, socket, sys

CHAT = {"id": "chatcmpl-1234567890", "object": "chat.completion.chunk", "created": 1764000000, "model": "gpt-4o-2024-08-06"}


def chat(delta, finish=None):
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return "data: " + json.dumps({**CHAT, "choices": [choice], "usage": None}, separators=(",", ":")) + "\n\n"


def message(name, **fields):
    return "event: %s\ndata: %s\n\n" % (name, json.dumps({"type": name, **fields}, separators=(",", ":")))


def events(path):
    """What comes first, each time, and last."""
    if path.endswith(b"/chat/completions"):
        usage = {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18}
        usage = "data: " + json.dumps({**CHAT, "choices": [], "usage": usage}, separators=(",", ":")) + "\n\n"
        first = chat({"role": "assistant", "content": ""})
        return first, chat({"content": " token~"}), chat({}, "stop") + usage + "data: [DONE]\n\n"
    if path.endswith(b"/messages"):
        usage = {"input_tokens": 9, "output_tokens": 9}
        about = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5", "content": []}
        first = message("message_start", message={**about, "usage": usage})
        first += message("content_block_start", index=0, content_block={"type": "text", "text": ""})
        each = message("content_block_delta", index=0, delta={"type": "text_delta", "text": " token~"})
        last = message("content_block_stop", index=0)
        last += message("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage=usage)
        return first, each, last + message("message_stop")
    return "", "data: " + "x" * 111 + "~\n\n", ""


def whole():
    """An answer of 1 KB."""
    message = {"role": "assistant", "content": "token " * 120, "refusal": None, "annotations": []}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    usage = {"prompt_tokens": 900, "completion_tokens": 120, "total_tokens": 1020}
    body = json.dumps({**CHAT, "object": "chat.completion", "choices": [choice], "usage": usage}).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


def chunk(text):
    return b"%x\r\n%b\r\n" % (len(text), text.encode()) if text else b""


def read(connection):
    request = b""
    while more := connection.recv(65536):
        request += more
        head, end, body = request.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        if end and len(body) >= int(length[1] if length else 0):
            return request
    return None


listener, arrivals = (socket.create_server(("127.0.0.1", int(port))) for port in sys.argv[1:])
while True:
    connection, _ = listener.accept()
    while request := read(connection):
        path = request.split()[1]
        if request.startswith(b"POST") and not re.search(rb'"stream": ?true', request):
            connection.sendall(whole())
            continue
        count = re.search(rb"^/(\d+)$", path) or re.search(rb"\[(\d+)\]", request)
        count = int(count[1] if count else 0)
        first, each, last = map(chunk, events(path))
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        connection.sendall(head + first)
        arrived = arrivals.accept()[0] if count else None
        for _ in range(count):
            connection.sendall(each)
            arrived.recv(1)
        connection.sendall(last + b"0\r\n\r\n")
PYTHON
cat >"$out/client.py" <<'PYTHON'
import json, socket, sys

case, arrivals, gateway, count = sys.argv[1], *map(int, sys.argv[2:])
path, model = {
    "streams": ("/%d" % count, None),
    "tokens": ("/v1/chat/completions", "same"),
    "translated": ("/v1/chat/completions", "other"),
    "back": ("/v1/messages", "same"),
    "answers": ("/v1/chat/completions", "same"),
}[case]
body, asked = b"", "GET"
if model:
    asked = "POST"
    prompt = [{"role": "user", "content": "word " * 780 if case == "answers" else "[%d]" % count}]
    body = {"model": model, "stream": case != "answers", "max_tokens": 100000, "messages": prompt}
    if body["stream"] and path.endswith("completions"):
        body["stream_options"] = {"include_usage": True}
    body = json.dumps(body).encode()
head = "%s %s HTTP/1.1\r\nhost: bench\r\nx-api-key: bench-key\r\ncontent-length: %d\r\n\r\n" % (asked, path, len(body))
arrived = socket.create_connection(("127.0.0.1", arrivals))
connection = socket.create_connection(("127.0.0.1", gateway))
if case == "answers":
    for _ in range(count):
        connection.sendall(head.encode() + body)
        answer = b""
        while b"\r\n\r\n" not in answer or not answer.endswith(b"}"):
            piece = connection.recv(65536)
            assert piece, "the connection broke off"
            answer += piece
        assert answer.startswith(b"HTTP/1.1 200 "), answer
    sys.exit()
connection.sendall(head.encode() + body)
events, end = 0, b""
while not end.endswith(b"\r\n0\r\n\r\n"):
    piece = connection.recv(65536)
    assert piece, "the stream broke off"
    # Each event has one of them.
    arrived.sendall(b"." * piece.count(b"~"))
    events += piece.count(b"~")
    end = (end + piece)[-7:]
assert events == count, f"{events} events of {count}"
PYTHON

"$weir" run "$out/backend.yaml" 2>"$out/backend.log" &
pids+=($!)
python3 "$out/origin.py" "$origin" "$arrivals" 2>"$out/origin.log" &
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
    local name=$1 document=$2 port=$3 what=$4
    valgrind --tool=callgrind --callgrind-out-file="$out/callgrind" "$weir" run "$out/$document.yaml" 2>"$out/$name.log" &
    local pid=$!
    pids+=("$pid")
    wait_for "$port"
    case $what in
        h2:*)
            h2load -n "${what#h2:}" -c 1 -m 100 "http://127.0.0.1:$port/" |
                grep " ${what#h2:} succeeded" >/dev/null || return
            ;;
        \[*) curl -sfo /dev/null -H 'x-api-key: bench-key' "http://127.0.0.1:$port/$what" || return ;;
        *) python3 "$out/client.py" "$name" "$arrivals" "$port" "$what" || return ;;
    esac
    kill -TERM "$pid"
    wait "$pid" || true
    sed -n 's/^summary: //p; s/^totals: //p' "$out/callgrind" | head -n 1
}

failed=0
: >"$out/counts"
for name in bare policies h2 streams tokens translated back answers; do
    document=$name unit=event from=$few to=$many
    case $name in
        bare | policies) unit=call from="[1-$few]" to="[1-$many]" ;;
        h2) unit=call from=h2:$few to=h2:$many ;;
        tokens | translated | back) document=models ;;
        answers) document=models unit=call ;;
    esac
    base=$(run "$name" "$document" "${!document}" "$from")
    top=$(run "$name" "$document" "${!document}" "$to")
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
