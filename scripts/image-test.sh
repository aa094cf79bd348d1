#!/usr/bin/env bash
# Builds the image by buildah and runs what it names, as its user, in its own file system: that it starts, answers, knows
# the authorities, takes a document of one's own, reloads, ends well. For root; by chroot, so that it can be done where
# containers cannot be started.
set -euo pipefail
cd "$(dirname "$0")/.."

[ "$(id -u)" = 0 ] || { echo "skipped: only root can mount an image"; exit 0; }
command -v buildah >/dev/null || apt-get -qq install -y --no-install-recommends buildah >/dev/null
command -v curl >/dev/null || apt-get -qq install -y --no-install-recommends curl >/dev/null
say() { echo "== $*"; }
fail() { echo "!! $*" >&2; exit 1; }
store=$(mktemp -d /tmp/weir-image.XXXXXX)
export STORAGE_DRIVER=vfs CONTAINERS_STORAGE_CONF=$store/storage.conf
printf '[storage]\ndriver = "vfs"\nrunroot = "%s/run"\ngraphroot = "%s/root"\n' "$store" "$store" >"$CONTAINERS_STORAGE_CONF"
end() {
    [ -z "${pid:-}" ] || kill "$pid" 2>/dev/null || true
    buildah rm --all >/dev/null 2>&1 || true
    rm -rf --one-file-system "$store"
}
trap end EXIT

say "build"
BUILDER=buildah BUILDER_OPTIONS="--isolation chroot" scripts/image.sh
container=$(buildah from --pull-never weir)
root=$(buildah mount "$container")
of() { buildah inspect --type image --format "{{$1}}" weir; }
user=$(of .OCIv1.Config.User)
[ "$user" = 65532:65532 ] || fail "its user is $user"
files=$(cd "$root" && find . -type f | sort | tr '\n' ' ')
[ "$files" = "./etc/ssl/certs/ca-certificates.crt ./etc/weir/weir.yaml ./usr/bin/weir " ] || fail "it holds: $files"
du -sh "$root" | cut -f 1
# What whoever runs containers gives them; nothing is mounted, so that all of it can be removed.
mkdir "$root/dev"
mknod -m 666 "$root/dev/null" c 1 3
mknod -m 666 "$root/dev/random" c 1 8
mknod -m 666 "$root/dev/urandom" c 1 9
cp /etc/resolv.conf "$root/etc/resolv.conf"
# `exec`: the process is the binary itself, for the signals.
inside() { exec env -i "$(command -v chroot)" --userspec="$user" "$root" /usr/bin/weir "$@"; }

say "its own document"
(inside check /etc/weir/weir.yaml) || fail "does not hold"
(inside schema) | grep -q '"\$schema"' || fail "no schema"
port=$(python3 -c 'import socket; it = socket.socket(); it.bind(("127.0.0.1", 0)); print(it.getsockname()[1])')
sed -i "s/:8080/:$port/; s/:9464/:0/" "$root/etc/weir/weir.yaml"
command=$(of .OCIv1.Config.Cmd | tr -d '[]')
# shellcheck disable=SC2086
(inside $command 2>"$store/log") &
pid=$!
until curl -sS -o "$store/answer" "http://127.0.0.1:$port/" 2>/dev/null; do
    kill -0 "$pid" 2>/dev/null || { cat "$store/log" >&2; fail "it does not start"; }
    sleep 0.1
done
grep -q "Weir runs" "$store/answer" || fail "it says: $(cat "$store/answer")"
grep -q "^Uid:.65532" "/proc/$pid/status" || fail "it does not run as $user"

say "a document of one's own, with what is kept in its folder, and an upstream over TLS"
cat >"$root/etc/weir/weir.yaml" <<YAML
version: 1
node: { data: /var/lib/weir, cache: { disk: {} } }
listeners:
  web: { address: "0.0.0.0:$port" }
apis:
  new:
    routes:
      - { match: { path: /new }, respond: { body: "new\n" } }
      - { upstream: "https://127.0.0.1:9", policies: { cache: {} } }
YAML
(inside check /etc/weir/weir.yaml) || fail "does not hold"
kill -HUP "$pid"
for _ in $(seq 100); do
    [ "$(curl -sS "http://127.0.0.1:$port/new")" = new ] && break
    sleep 0.1
done
[ "$(curl -sS "http://127.0.0.1:$port/new")" = new ] || { cat "$store/log" >&2; fail "it does not reload"; }

[ -n "$(find "$root/var/lib/weir" -user 65532 -mindepth 1)" ] || fail "it keeps nothing in /var/lib/weir"

say "end"
kill -TERM "$pid"
wait "$pid" || fail "it ends with $?"
say "all is well"
