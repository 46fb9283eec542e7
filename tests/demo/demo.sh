#!/bin/bash
# make demo: from a fresh Debian 12 with Rust to the changes of a real server, as JSON with their context.
set -euo pipefail
cd "$(dirname "$0")/../.."
[ "$(id -u)" = 0 ] || { echo "Run it as root: it installs packages, and puts bemi into the server that they bring." >&2; exit 1; }
pg_config=${PG_CONFIG:-/usr/lib/postgresql/15/bin/pg_config}
tests/setup/install-tools.sh
echo "-- Building bemi and installing it into $("$pg_config" --version)"
make --no-print-directory install PG_CONFIG="$pg_config"
echo "-- Building the demonstration"
PG_CONFIG=$pg_config cargo run -q --no-default-features --features cluster --example demo
