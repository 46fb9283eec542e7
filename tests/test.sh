#!/bin/bash
# make test: everything, on a fresh Debian 12 with Rust, Node 20 and Python 3.11, as root. PostgreSQL 15 comes from apt, the others from PyPI into
# $BEMI_PG (default: /opt/pg), where the user postgres, as whom servers run, can reach them.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "Run it as root: it installs packages, and puts bemi into the servers that they bring." >&2; exit 1; }
for tool in node npm python3 cargo; do
  command -v $tool >/dev/null || { echo "$tool is missing: the tests need Rust 1.95, Node 20 and Python 3.11." >&2; exit 1; }
done
export CARGO_TERM_COLOR=never RUST_BACKTRACE=0
step() { echo; echo "== $(date +%T) $*"; }

step "Tools"
tests/setup/install-tools.sh sudo
pg=${BEMI_PG:-/opt/pg}
for major in 14 16 17 18; do
  [ -x "$pg/$major/bin/pg_config" ] || { tests/setup/install-postgres.sh "$pg"; break; }
done
pg15=/usr/lib/postgresql/15/bin/pg_config

step "Format and lints"
make --no-print-directory check PG_CONFIG=$pg15

step "Pure tests"
make --no-print-directory test-pure
make --no-print-directory fuzz-pure SECONDS=30

for major in 15 14 16 17 18; do
  pg_config=$pg/$major/bin/pg_config
  [ $major != 15 ] || pg_config=$pg15
  if [ $major = 15 ]; then
    # They leave a build of their own in the server, so they come before ours.
    step "PostgreSQL 15: tests inside the server"
    make --no-print-directory test-server PG_CONFIG=$pg15
  fi
  step "PostgreSQL $major: build and install"
  make --no-print-directory install PG_CONFIG="$pg_config"
  step "PostgreSQL $major: integration tests"
  make --no-print-directory test-cluster PG_CONFIG="$pg_config"
  # The recorder comes back with the server by itself where it is preloaded, else when it is started again.
  preload=0 seconds=20
  case $major in 15) preload=1 seconds=60 ;; 17) preload=1 ;; esac
  step "PostgreSQL $major: torture of the recorder, $seconds s"
  BEMI_TORTURE_PRELOAD=$preload make --no-print-directory torture SECONDS=$seconds PG_CONFIG="$pg_config"
  if [ $major = 15 ]; then
    step "PostgreSQL 15: clients"
    make --no-print-directory test-clients PG_CONFIG=$pg15
  fi
done
for majors in "14 16" "17 18"; do
  step "pg_upgrade from ${majors/ / to }"
  tests/upgrade/upgrade.sh "$pg/${majors% *}/bin/pg_config" "$pg/${majors#* }/bin/pg_config"
done
step "All tests passed"
