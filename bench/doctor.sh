#!/usr/bin/env bash
# How long the doctor takes beside a foreign set of 0 and 100,000 prefixes: the reading alone, the reading and the twin,
# `explain`, a whole `open --prove` for the first time and again; beside `nft -t list ruleset`, `nft list ruleset`, and
# `nft -f` of that listing. In throw-away namespaces, as root. Prints medians and ratios.
#
#   bench/doctor.sh [ROUNDS]      10 by default; target/release/acmegate must be built, or ACMEGATE name one
. "$(dirname "$0")/begin"
needs nft ip unshare python3
needs_root_of_the_host
exec unshare -nm --kill-child python3 bench/doctor.py "$binary" "${1:-10}"
