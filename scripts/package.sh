#!/usr/bin/env bash
# target/package/weir_VERSION_ARCH.deb, by dpkg's own tools: of the binary that WEIR_BINARY names, or else of
# scripts/static.sh, which asks no library of the system.
set -euo pipefail
cd "$(dirname "$0")/.."

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
arch=$(dpkg --print-architecture)
binary=${WEIR_BINARY:-target/static/weir}
[ -n "${WEIR_BINARY:-}" ] || scripts/static.sh

out=target/package
root=$out/root
rm -rf "$root"
install -Dm755 "$binary" "$root/usr/bin/weir"
strip "$root/usr/bin/weir"
install -Dm644 packaging/weir.yaml "$root/etc/weir/weir.yaml"
install -Dm644 packaging/weir.service "$root/usr/lib/systemd/system/weir.service"
for shell in bash zsh fish; do
    case $shell in
        bash) file=bash-completion/completions/weir ;;
        zsh) file=zsh/vendor-completions/_weir ;;
        fish) file=fish/vendor_completions.d/weir.fish ;;
    esac
    mkdir -p "$root/usr/share/$(dirname "$file")"
    "$binary" completions "$shell" >"$root/usr/share/$file"
done
doc=$root/usr/share/doc/weir
install -Dm644 LICENSE "$doc/copyright"
install -m644 docs/*.md docs/schema.json "$doc/"
gzip -9n <CHANGELOG.md >"$doc/changelog.gz"

mkdir -p "$root/DEBIAN"
install -m755 packaging/debian/postinst packaging/debian/prerm packaging/debian/postrm "$root/DEBIAN/"
echo /etc/weir/weir.yaml >"$root/DEBIAN/conffiles"
(cd "$root" && find usr -type f -print0 | sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
# It wants to stand in a source package.
mkdir -p "$out/debian"
printf 'Source: weir\n\nPackage: weir\nArchitecture: any\n' >"$out/debian/control"
# None of a static binary.
libraries=$(cd "$out" && dpkg-shlibdeps -O --ignore-missing-info root/usr/bin/weir 2>/dev/null | sed -n 's/^shlibs:Depends=//p')
cat >"$root/DEBIAN/control" <<EOF
Package: weir
Version: $version
Architecture: $arch
Maintainer: The developers of Weir <weir@localhost>
Depends: adduser${libraries:+, $libraries}
Recommends: ca-certificates
Section: net
Priority: optional
Installed-Size: $(du -sk --exclude=DEBIAN "$root" | cut -f 1)
Description: API gateway
 Weir stands between callers and services: it routes, limits, retries and
 tells what it saw, from one document.
EOF
deb=$out/weir_${version}_$arch.deb
dpkg-deb --root-owner-group --build "$root" "$deb"
