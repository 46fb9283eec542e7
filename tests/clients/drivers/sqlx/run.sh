#!/bin/bash
# run.sh WORK: the recipe for sqlx.
set -euo pipefail
cd "$(dirname "$0")"
work=$1
CARGO_TARGET_DIR=$work/target cargo run --quiet --locked
