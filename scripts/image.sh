#!/usr/bin/env bash
# An image of the static binary and nothing else but a document, the authorities' certificates and a folder to write to:
# `weir:VERSION` and `weir:latest`, by podman, docker or buildah, whichever is there, or `BUILDER`. Asks no registry.
# Of the binary that WEIR_BINARY names, or else of scripts/static.sh.
set -euo pipefail
cd "$(dirname "$0")/.."

builder=${BUILDER:-}
for one in podman docker buildah; do
    [ -n "$builder" ] || ! command -v "$one" >/dev/null || builder=$one
done
[ -n "$builder" ] || { echo "nothing to build an image with: install podman, docker or buildah" >&2; exit 1; }
authorities=${AUTHORITIES:-/etc/ssl/certs/ca-certificates.crt}
[ -r "$authorities" ] || { echo "no $authorities: install ca-certificates, or name another file in AUTHORITIES" >&2; exit 1; }
[ -n "${WEIR_BINARY:-}" ] || scripts/static.sh

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
place=target/image
rm -rf "$place"
install -Dm755 "${WEIR_BINARY:-target/static/weir}" "$place/weir"
install -Dm644 "$authorities" "$place/ca-certificates.crt"
# Within a container nobody outside reaches its loopback.
sed 's/127\.0\.0\.1:/0.0.0.0:/' packaging/weir.yaml >"$place/weir.yaml"
mkdir -p "$place/data"
# shellcheck disable=SC2086
"$builder" build ${BUILDER_OPTIONS:-} -f packaging/Containerfile -t "weir:$version" -t weir:latest "$place"
