#!/bin/sh
# What the runs beside other gateways for models need besides Weir: nginx, and LiteLLM and Portkey below target/. Debian or
# Ubuntu; asks for sudo unless root.
set -eu
cd "$(dirname "$0")/.."

sudo=
[ "$(id -u)" = 0 ] || sudo=sudo

missing=
for pair in nginx:nginx-light taskset:util-linux node:nodejs npm:npm; do
    PATH="$PATH:/usr/sbin" command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair##*:}"
done
/usr/bin/python3 -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"
if [ -n "$missing" ]; then
    $sudo apt-get update
    # shellcheck disable=SC2086
    $sudo apt-get install -y --no-install-recommends $missing
fi

# The system's Python, since others are often built without its optimisations, which would cost LiteLLM half its speed.
place=target/bench-llm
pin=litellm[proxy]==1.106.2
if [ "$(cat "$place/venv/pin" 2>/dev/null)" != "$pin" ]; then
    rm -rf "$place/venv"
    /usr/bin/python3 -m venv "$place/venv"
    if "$place/venv/bin/pip" install --quiet --disable-pip-version-check "$pin"; then
        echo "$pin" >"$place/venv/pin"
    else
        echo "LiteLLM could not be installed: the runs go on without it." >&2
    fi
fi

# With what its package asks for today, Portkey answers streams with 500 (`TypeError: immutable`): this is the version of its
# HTTP server that does not.
pin='{ "private": true, "dependencies": { "@portkey-ai/gateway": "1.15.2" }, "overrides": { "@hono/node-server": "1.13.7" } }'
if [ "$(cat "$place/node/package.json" 2>/dev/null)" != "$pin" ] || [ ! -d "$place/node/node_modules" ]; then
    rm -rf "$place/node"
    mkdir -p "$place/node"
    echo "$pin" >"$place/node/package.json"
    npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$place/node" >/dev/null ||
        echo "Portkey could not be installed: the runs go on without it." >&2
fi
