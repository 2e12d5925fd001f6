#!/usr/bin/env bash
# How long a large allow-list takes into the kernel, at a start and as a swap, what memory it takes, and how long
# an opening waits meanwhile. In throw-away namespaces, as root.
#
#   bench/lists.sh [RANGES]       1,000,000 by default; target/release/acmegate must be built, or ACMEGATE name one
. "$(dirname "$0")/begin"
needs nft ip unshare python3
needs_root_of_the_host
exec unshare -nm --kill-child python3 bench/lists.py "$binary" "${1:-1000000}"
