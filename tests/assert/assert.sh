#!/bin/bash
# make test-assert [SECONDS=60]: the tests on servers with assertions, PostgreSQL 18 and 15, which
# tests/setup/install-assert.sh builds into $BEMI_ASSERT (default: /opt/pg-assert). As root, on Debian.
# BEMI_ASSERT_MAJORS="18" and BEMI_ASSERT_STEPS="install suite torture caches parallel" choose. No server's log may have
# a failed assertion, a crash or a leak: the tests themselves look (tests/cluster/log.rs).
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds=${1:-60}
export BEMI_ASSERT_MAJORS=${BEMI_ASSERT_MAJORS:-18 15} CARGO_TERM_COLOR=never RUST_BACKTRACE=0
steps=" ${BEMI_ASSERT_STEPS:-install suite torture caches parallel} "
pg=${BEMI_ASSERT:-/opt/pg-assert}
tests/setup/install-assert.sh "$pg"
step() { echo; echo "== $(date +%T) $*"; }
# Assertions, and a check of all memory contexts at the end of each transaction, make what is slow slower.
slow="statement_timeout = 20min"

# Runs a part of the suite, but for the tests whose results a setting rightly changes.
suite() { # MAJOR SETTING [ARGUMENT...]
  local skip=() setting name reason
  while IFS=$'\t' read -r setting name reason; do
    [ "$setting" = "$2" ] || continue
    echo "-- Left out: $name: $reason"
    skip+=(--skip "$name")
  done < <(grep -v '^#' tests/assert/changed.tsv)
  PG_CONFIG=$pg/$1/bin/pg_config \
    cargo test -q --no-default-features --features cluster --test cluster -- "${skip[@]}" "${@:3}"
}

for major in $BEMI_ASSERT_MAJORS; do
  if [[ $steps = *" install "* ]]; then
    step "PostgreSQL $major with assertions: build and install"
    make --no-print-directory install PG_CONFIG="$pg/$major/bin/pg_config"
  fi
  if [[ $steps = *" suite "* ]]; then
    step "PostgreSQL $major with assertions: integration tests"
    BEMI_TEST_SETTINGS=$slow BEMI_TEST_PATIENCE=300 suite "$major" none
  fi
  if [[ $steps = *" torture "* ]]; then
    step "PostgreSQL $major with assertions: torture of the recorder, $seconds s"
    BEMI_TORTURE_PRELOAD=1 make --no-print-directory torture SECONDS="$seconds" PG_CONFIG="$pg/$major/bin/pg_config"
  fi
  if [[ $steps = *" caches "* ]]; then
    # In walsenders, and for a few tests in the recorder, each look-up in a catalog finds the caches empty. In the
    # sessions of the tests, one statement of DDL would take half a minute.
    step "PostgreSQL $major with assertions: the decoder with debug_discard_caches = 1"
    BEMI_TEST_SETTINGS=$slow BEMI_TEST_READER_OPTIONS="-c debug_discard_caches=1" BEMI_TEST_PATIENCE=900 \
      BEMI_TEST_ONLY=decoder suite "$major" debug_discard_caches
    step "PostgreSQL $major with assertions: the recorder with debug_discard_caches = 1"
    BEMI_TEST_SETTINGS="debug_discard_caches = 1; autovacuum = off; $slow" BEMI_TEST_PATIENCE=900 \
      BEMI_TEST_SESSION_OPTIONS="-c debug_discard_caches=0" suite "$major" none changes_are_recorded_as_the_documents_say
  fi
  if [[ $steps = *" parallel "* ]]; then
    step "PostgreSQL $major with assertions: the decoder with parallel queries and transactions streamed at once"
    case $major in
      15) parallel="force_parallel_mode = regress; logical_decoding_work_mem = 64kB" ;;
      *) parallel="debug_parallel_query = regress; debug_logical_replication_streaming = immediate" ;;
    esac
    BEMI_TEST_SETTINGS="$parallel; $slow" BEMI_TEST_PATIENCE=300 BEMI_TEST_ONLY=decoder suite "$major" immediate
  fi
done
step "All tests passed on servers with assertions"
