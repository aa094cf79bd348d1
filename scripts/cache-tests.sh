#!/usr/bin/env bash
# The tests of HTTP caches (cache-tests.fyi) against Weir with memory, Weir with a disk, Squid and Varnish, the latter two
# as they come. Fails if one of the former passes fewer of the required ones than the better of the latter. Takes half a
# minute besides building and installing.
set -euo pipefail
cd "$(dirname "$0")/.."

version=0.4.5
suite=$PWD/target/cache-tests/node_modules/http-cache-tests
origin=18100
declare -A ports=([weir]=18101 [weir-disk]=18104 [squid]=18102 [varnish]=18103)
metrics=18105

scripts/test-setup.sh node:nodejs npm:npm squid:squid varnishd:varnish
export PATH="$PATH:/usr/sbin"
if [ "$(sed -n 's/.*"version": "\(.*\)".*/\1/p' "$suite/package.json" 2>/dev/null)" != "$version" ]; then
    npm install --silent --no-save --no-audit --no-fund --ignore-scripts --prefix target/cache-tests \
        "http-cache-tests@$version" >/dev/null
fi
cargo build --locked --quiet -p weir

out=$(mktemp -d)
# Varnish gives up its rights and still reads its folder.
chmod 755 "$out"
pids=()
finish() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$out"
}
trap finish EXIT

start() {
    local name=$1
    shift
    "$@" >"$out/$name.log" 2>&1 &
    pids+=($!)
}
wait_for() {
    for _ in $(seq 300); do
        if curl -so /dev/null "http://127.0.0.1:$2/"; then return; fi
        sleep 0.1
    done
    echo "$1 does not answer on port $2" >&2
    cat "$out/$1.log" >&2
    exit 1
}

(
    cd "$suite"
    npm_config_protocol=http npm_config_port=$origin npm_config_pidfile="$out/origin.pid" \
        exec node server/server.mjs
) >"$out/origin.log" 2>&1 &
pids+=($!)
wait_for origin "$origin"
start weir "${CARGO_TARGET_DIR:-target}/debug/weir" run scripts/cache-tests/weir.yaml
# The folder of the disk is beside the document.
cp scripts/cache-tests/weir-disk.yaml "$out"
start weir-disk "${CARGO_TARGET_DIR:-target}/debug/weir" run "$out/weir-disk.yaml"
start squid squid -N -f "$PWD/scripts/cache-tests/squid.conf"
start varnish varnishd -F -a "127.0.0.1:${ports[varnish]}" -b "127.0.0.1:$origin" -n "$out/varnish"

results=() clients=()
for name in weir weir-disk squid varnish; do
    wait_for "$name" "${ports[$name]}"
    (
        cd "$suite"
        npm_config_base="http://127.0.0.1:${ports[$name]}" npm_package_config_id='' \
            timeout 300 node --no-warnings cli.mjs >"$out/$name.json"
    ) &
    clients+=($!)
    results+=("$name=$out/$name.json")
done
for client in "${clients[@]}"; do wait "$client"; done

figure() {
    curl -s "http://127.0.0.1:$metrics/metrics" | sed -n "s/^$1 //p"
}
read_from_disk=$(figure weir_cache_disk_hits_total)
if [ "${read_from_disk:-0}" = 0 ] || [ "$(figure weir_cache_entries)" != 0 ]; then
    echo "the disk was not what was tested: $read_from_disk answers were read from it" >&2
    exit 1
fi
echo "weir-disk read $read_from_disk answers from its disk"
node scripts/cache-tests/report.mjs "$suite" "${results[@]}"
