#!/usr/bin/env bash
# What Cargo unifies behind our backs: any crate in the tree can switch on a feature of another, or bring a second
# copy of the cryptography. None of that shows in our manifests, so it is looked for in the tree.
set -euo pipefail
cd "$(dirname "$0")/.."

failed=0
fail() {
    echo "features: $*" >&2
    failed=1
}

features=$(cargo tree --locked -p weir -e features --prefix none | sort -u)
crates=$(cargo tree --locked -p weir -e normal,build,dev --prefix none -f '{p}' | awk '{ print $1, $2 }' | sort -u)

# One provider of cryptography, in Rust or carried along: aws-lc-rs.
for banned in ring openssl-sys native-tls; do
    grep -q "^$banned " <<<"$crates" && fail "$banned is in the tree: cargo tree -p weir -i $banned"
done

# Both change what JSON means for everybody: the order of keys, and what a number is.
for feature in preserve_order arbitrary_precision; do
    grep -q "^serde_json feature \"$feature\"" <<<"$features" &&
        fail "serde_json/$feature is on: cargo tree -p weir -e features -i serde_json"
done
grep -q '^rustls feature "ring"' <<<"$features" && fail "rustls/ring is on: cargo tree -p weir -e features -i rustls"

# Two versions would be two providers, of which only one is installed.
for single in rustls aws-lc-rs aws-lc-sys; do
    count=$(grep -c "^$single " <<<"$crates" || true)
    [ "$count" -le 1 ] || fail "$count versions of $single: cargo tree -p weir -d"
done

exit "$failed"
