#!/bin/bash
# run.sh WORK: the recipes for tokio-postgres and deadpool-postgres.
set -euo pipefail
cd "$(dirname "$0")"
CARGO_TARGET_DIR=$1/target cargo run --quiet --locked
