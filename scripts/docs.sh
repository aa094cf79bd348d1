#!/usr/bin/env bash
# docs/reference.md, docs/schema.json and docs/admin.md, as the document's types say them. `--check` only compares.
set -euo pipefail
cd "$(dirname "$0")/.."

fresh=target/docs
mkdir -p "$fresh"
cargo build --quiet -p weir
weir=${CARGO_TARGET_DIR:-target}/debug/weir
"$weir" schema --reference >"$fresh/reference.md"
"$weir" schema >"$fresh/schema.json"
"$weir" schema --admin --reference >"$fresh/admin.md"

if [ "${1:-}" != --check ]; then
    cp "$fresh/reference.md" "$fresh/schema.json" "$fresh/admin.md" docs/
    exit
fi
for file in reference.md schema.json admin.md; do
    if ! diff -u "docs/$file" "$fresh/$file"; then
        echo "docs/$file is not what the code says; run \`make docs\` and commit the result" >&2
        exit 1
    fi
done
