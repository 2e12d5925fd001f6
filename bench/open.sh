#!/usr/bin/env bash
# How long opening a window takes, as a whole process and as the daemon's answer alone, beside `nft add
# element`, on a host with 0, 100,000 and 1,000,000 prefixes in a foreign set. In throw-away namespaces, as root. Prints medians and ratios.
#
#   bench/open.sh [ROUNDS]        200 by default; target/release/acmegate must be built, or ACMEGATE name one
. "$(dirname "$0")/begin"
needs nft ip unshare python3
needs_root_of_the_host
exec unshare -nm --kill-child python3 bench/open.py "$binary" "${1:-200}"
