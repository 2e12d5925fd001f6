#!/usr/bin/env bash
# How long opening a window takes, as a whole process and as the daemon's answer alone, beside `nft add
# element`, on a host with 0, 100,000 and 1,000,000 prefixes in a foreign set. In throw-away namespaces, as root. Prints medians and ratios.
#
#   bench/open.sh [ROUNDS]        200 by default; target/release/acmegate must be built
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:/usr/sbin:/sbin"
for tool in nft ip unshare python3; do command -v "$tool" >/dev/null || { echo "needs $tool" >&2; exit 69; }; done
binary=$PWD/target/release/acmegate
[ -x "$binary" ] || { echo "build it first: cargo build --release" >&2; exit 69; }
# nft loads 100,000 prefixes in one batch only with a send buffer that root of the host may force.
[ "$(id -u)" = 0 ] || { echo "run it as root: the large set needs SO_SNDBUFFORCE" >&2; exit 77; }
exec unshare -nm --kill-child python3 bench/open.py "$binary" "${1:-200}"
