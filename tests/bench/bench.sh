#!/bin/bash
# make bench: bemi against its peers on PostgreSQL 15 of Debian, as root. BENCH_RUNS (default: 5) runs of each.
set -euo pipefail
cd "$(dirname "$0")/../.."
[ "$(id -u)" = 0 ] || { echo "Run it as root: it installs packages, and puts bemi into the server that they bring." >&2; exit 1; }
pg_config=/usr/lib/postgresql/15/bin/pg_config
tests/setup/install-tools.sh postgresql-15-wal2json
make --no-print-directory install PG_CONFIG=$pg_config
trap 'rm -f "$($pg_config --pkglibdir)/bemi_null.so"' EXIT
cc -O2 -shared -fPIC -I"$($pg_config --includedir-server)" -o "$($pg_config --pkglibdir)/bemi_null.so" tests/bench/null_plugin.c
PG_CONFIG=$pg_config cargo run -q --release --no-default-features --features cluster --example bench -- "$@"
