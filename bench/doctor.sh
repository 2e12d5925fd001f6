#!/usr/bin/env bash
# How long the doctor takes beside a foreign set of 0 and 100,000 prefixes: the reading alone, the reading and the twin,
# `explain`, a whole `open --prove` for the first time and again; beside `nft -t list ruleset`, `nft list ruleset`, and
# `nft -f` of that listing. In throw-away namespaces, as root. Prints medians and ratios.
#
#   bench/doctor.sh [ROUNDS]      10 by default; target/release/acmegate must be built
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:/usr/sbin:/sbin"
for tool in nft ip unshare python3; do command -v "$tool" >/dev/null || { echo "needs $tool" >&2; exit 69; }; done
binary=$PWD/target/release/acmegate
[ -x "$binary" ] || { echo "build it first: cargo build --release" >&2; exit 69; }
# nft loads 100,000 prefixes in one batch only with a send buffer that root of the host may force.
[ "$(id -u)" = 0 ] || { echo "run it as root: the large set needs SO_SNDBUFFORCE" >&2; exit 77; }
exec unshare -nm --kill-child python3 bench/doctor.py "$binary" "${1:-10}"
