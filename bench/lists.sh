#!/usr/bin/env bash
# How long a large allow-list takes into the kernel, at a start and as a swap, what memory it takes, and how long
# an opening waits meanwhile. In throw-away namespaces, as root.
#
#   bench/lists.sh [RANGES]       1,000,000 by default; BINARY=… for another build than target/release/acmegate
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:/usr/sbin:/sbin"
for tool in nft ip unshare python3; do command -v "$tool" >/dev/null || { echo "needs $tool" >&2; exit 69; }; done
binary=$(realpath "${BINARY:-target/release/acmegate}")
[ -x "$binary" ] || { echo "build it first: cargo build --release" >&2; exit 69; }
# Large batches need a send buffer that only root of the host may force.
[ "$(id -u)" = 0 ] || { echo "run it as root: the first start needs SO_SNDBUFFORCE" >&2; exit 77; }
exec unshare -nm --kill-child python3 bench/lists.py "$binary" "${1:-1000000}"
