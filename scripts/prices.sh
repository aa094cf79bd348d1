#!/usr/bin/env bash
# Makes the price book that comes with the binary, crates/ledger/data/prices.txt, from the public price facts that the
# LiteLLM project publishes (MIT). Look at the difference before you commit it: a price that moved is somebody's money.
#
#   scripts/prices.sh            # the version below
#   scripts/prices.sh 1.111.0    # another
set -euo pipefail
cd "$(dirname "$0")/.."

version=${1:-1.110.2}
file=model_prices_and_context_window_backup.json
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --dest "$work" "litellm==$version"
python3 -m zipfile -e "$work"/litellm-*.whl "$work/litellm"
# No day is written in there; the one it was read is the one that can be vouched for.
cargo run --quiet --locked -p weir -- prices update "$work/litellm/litellm/$file" --all \
    --source "litellm-$version/$file" --output crates/ledger/data/prices.txt
git diff --stat -- crates/ledger/data/prices.txt
