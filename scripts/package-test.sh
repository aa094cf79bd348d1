#!/usr/bin/env bash
# What becomes of the package of scripts/package.sh in a bare system of its own: installed, run as the unit would, upgraded,
# removed, purged; and what systemd says of the unit. For root; the system comes from Debian's mirror by debootstrap.
set -euo pipefail
cd "$(dirname "$0")/.."

[ "$(id -u)" = 0 ] || { echo "skipped: only root can make a system to install into"; exit 0; }
command -v debootstrap >/dev/null || apt-get -qq install -y --no-install-recommends debootstrap >/dev/null
out=target/package
deb=$(ls "$out"/weir_*_"$(dpkg --print-architecture)".deb)
release=$(. /etc/os-release && echo "$VERSION_CODENAME")
bare=$(mktemp -d /tmp/weir-bare.XXXXXX)
chmod 755 "$bare"
trap 'umount "$bare/proc" 2>/dev/null; rm -rf "$bare"' EXIT
say() { echo "== $*"; }
fail() { echo "!! $*" >&2; exit 1; }
inside() { chroot "$bare" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive "$@"; }

say "a bare $release"
debootstrap --variant=minbase --include=adduser,ca-certificates,curl,procps,systemd "$release" "$bare" >"$out/debootstrap.log"
mount -t proc proc "$bare/proc"
cp "$deb" "$bare/tmp/weir.deb"

say "install"
inside dpkg -i /tmp/weir.deb
inside getent passwd weir >/dev/null || fail "no user weir"
inside weir check /etc/weir/weir.yaml

say "run what the unit starts, as its user, and say when it is ready"
# Ports of the machine's own are not to be in the way.
port=$(python3 -c 'import socket; it = socket.socket(); it.bind(("127.0.0.1", 0)); print(it.getsockname()[1])')
sed -i "s/:8080/:$port/; s/:9464/:0/" "$bare/etc/weir/weir.yaml"
start=$(sed -n 's/^ExecStart=//p' "$bare/usr/lib/systemd/system/weir.service")
user=$(sed -n 's/^User=//p' "$bare/usr/lib/systemd/system/weir.service")
# What systemd would make: the folders of the unit, and a socket to be told.
inside install -d -o "$user" -g "$user" /run/weir /var/lib/weir /var/log/weir
python3 - "$bare/run/notify" >"$out/notified" <<'EOF' &
import os, socket, sys
it = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
it.bind(sys.argv[1])
os.chmod(sys.argv[1], 0o666)
it.settimeout(30)
while True:
    said = it.recv(4096).decode()
    print(said, flush=True)
    if "STOPPING=1" in said:
        break
EOF
listener=$!
until [ -S "$bare/run/notify" ]; do sleep 0.1; done
# shellcheck disable=SC2086
(exec chroot --userspec="$user:$user" "$bare" env -i PATH=/usr/bin:/bin NOTIFY_SOCKET=/run/notify RUNTIME_DIRECTORY=/run/weir $start 2>"$out/run.log") &
pid=$!
for _ in $(seq 100); do
    grep -q READY=1 "$out/notified" && break
    sleep 0.1
done
grep -q READY=1 "$out/notified" || { cat "$out/run.log" >&2; fail "it does not say that it is ready"; }
said=$(inside curl -sS "http://127.0.0.1:$port/")
[[ $said == *"Weir runs"* ]] || fail "it says: $said"
[ "$(stat -c %u "/proc/$pid")" = "$(inside id -u "$user")" ] || fail "it does not run as $user"

say "reload and stop, as the unit does"
kill -HUP "$pid"
kill -TERM "$pid"
wait "$pid" || fail "it ends with $?"
wait "$listener"
cat "$out/notified"

say "an upgrade keeps the document"
inside dpkg -i /tmp/weir.deb
grep -q ":$port" "$bare/etc/weir/weir.yaml" || fail "the document is gone"

say "remove, purge"
inside dpkg -r weir
[ ! -e "$bare/usr/bin/weir" ] && [ -e "$bare/etc/weir/weir.yaml" ] || fail "removed too much or too little"
inside dpkg -P weir
left=$(cd "$bare" && find etc usr var/lib/weir var/log/weir -name '*weir*' -not -path 'var/lib/dpkg/*' 2>/dev/null || true)
[ -z "$left" ] || fail "left behind: $left"

if command -v systemd-analyze >/dev/null; then
    say "the unit"
    # Of a root that has what the unit names.
    dpkg -x "$deb" "$bare"
    systemd-analyze verify --root="$bare" --man=no "$bare/usr/lib/systemd/system/weir.service"
    systemd-analyze security --offline=true --threshold=40 "$bare/usr/lib/systemd/system/weir.service" | tail -n 1
fi
say "all is well"
