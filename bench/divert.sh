#!/usr/bin/env bash
# What allowed visitors of port 443 notice of acmegate in mode divert: new connections and bulk data from an
# allowed address to a server that keeps its port, without acmegate, and with it and a window open, in turns. Both beside
# a firewall with connection tracking, in throw-away namespaces, as root. Prints medians.
#
#   bench/divert.sh [ROUNDS]      5 by default; target/release/acmegate must be built, or ACMEGATE name one
. "$(dirname "$0")/begin"
needs cc ip nft unshare nsenter python3
exec unshare -nm --kill-child python3 bench/divert.py "$binary" "${1:-5}"
