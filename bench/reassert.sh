#!/usr/bin/env bash
# How long our part of the ruleset is gone after somebody took it away, in every mode that needs to put
# it back: from the kernel's word of the foreign change to its word of our last one. In throw-away
# namespaces. Prints medians.
#
#   bench/reassert.sh [ROUNDS]    100 by default; target/release/acmegate must be built, or ACMEGATE name one
. "$(dirname "$0")/begin"
needs nft ip unshare python3
exec unshare -Urnm --kill-child python3 bench/reassert.py "$binary" "${1:-100}"
