#!/bin/bash
# run.sh WORK: the recipe for tokio-postgres and deadpool-postgres.
set -euo pipefail
cd "$(dirname "$0")"
work=$1
CARGO_TARGET_DIR=$work/target cargo run --quiet --locked
