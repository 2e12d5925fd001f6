#!/usr/bin/env bash
# What observing costs: new connections a second, and the server's CPU for each, from a stranger in an open
# window and from a visitor on the allow-list, with [report] evidence and without, in turns; on a host that tracks
# connections anyway and on one that otherwise does not. In throw-away namespaces, as root. Prints medians.
#
#   bench/observe.sh [ROUNDS]     5 by default; target/release/acmegate must be built, or ACMEGATE name one
. "$(dirname "$0")/begin"
needs cc ip nft unshare nsenter python3 taskset
exec unshare -nm --kill-child python3 bench/observe.py "$binary" "${1:-5}"
