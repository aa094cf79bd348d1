#!/usr/bin/env bash
# What the tests need besides Rust: a C compiler, clients and servers that are not ours, a Python venv with gRPC,
# WebSocket, signed tokens and the SDKs of model providers; those of Node, and an OpenID provider. Debian or Ubuntu; installs only what is missing. Arguments are further packages, such as
# `valgrind`, or a command and its package, such as `node:nodejs`.
set -euo pipefail
cd "$(dirname "$0")/.."

sudo=
[ "$(id -u)" = 0 ] || sudo=sudo

# command:package
wanted=(cc:build-essential make:make curl:curl h2load:nghttp2-client nginx:nginx-light redis-server:redis-server knotd:knot pebble:pebble python3:python3 node:nodejs npm:npm)
for package in "$@"; do
    case $package in
        *:*) wanted+=("$package") ;;
        *) wanted+=("$package:$package") ;;
    esac
done

missing=()
for pair in "${wanted[@]}"; do
    # Servers are kept where only root looks.
    PATH="$PATH:/usr/sbin" command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
done
# A library, which no command tells of.
ls /usr/lib/*/faketime/libfaketime.so.1 >/dev/null 2>&1 || missing+=(faketime)
# Debian's python3 can say `import venv` and still lack what fills one.
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
if [ "${#missing[@]}" -gt 0 ]; then
    $sudo apt-get -qq update
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null
fi

venv=target/test-venv
pins="grpcio==1.85.1 grpcio-health-checking==1.85.1 websockets==17.4 pyjwt[crypto]==2.15.1 schemathesis==4.32.5 openai==3.54.0 anthropic==2.12.0 google-genai==2.34.0"
if [ "$(cat "$venv/pins" 2>/dev/null)" != "$pins" ]; then
    rm -rf "$venv"
    python3 -m venv "$venv"
    # shellcheck disable=SC2086
    "$venv/bin/pip" install --quiet --disable-pip-version-check $pins
    # Last, so that a half-made venv is made anew.
    echo "$pins" >"$venv/pins"
fi

modules=target/test-node
pins="openai@7.57.0 @anthropic-ai/sdk@1.12.0 @copilotkit/aimock@1.43.0 oidc-provider@9.13.3"
if [ "$(cat "$modules/pins" 2>/dev/null)" != "$pins" ]; then
    rm -rf "$modules"
    mkdir -p "$modules"
    # shellcheck disable=SC2086
    npm install --silent --no-save --no-audit --no-fund --ignore-scripts --prefix "$modules" $pins >/dev/null
    echo "$pins" >"$modules/pins"
fi
