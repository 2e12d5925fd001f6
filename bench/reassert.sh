#!/usr/bin/env bash
# How long our part of the ruleset is gone after somebody took it away, in every mode that needs to put
# it back: from the kernel's word of the foreign change to its word of our last one. In throw-away
# namespaces. Prints medians.
#
#   bench/reassert.sh [ROUNDS]    100 by default; target/release/acmegate must be built
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:/usr/sbin:/sbin"
for tool in nft ip unshare python3; do command -v "$tool" >/dev/null || { echo "needs $tool" >&2; exit 69; }; done
binary=$PWD/target/release/acmegate
[ -x "$binary" ] || { echo "build it first: cargo build --release" >&2; exit 69; }
exec unshare -Urnm --kill-child python3 bench/reassert.py "$binary" "${1:-100}"
