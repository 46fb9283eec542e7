#!/bin/bash
# run.sh WORK: the recipe for node-postgres.
set -euo pipefail
cd "$(dirname "$0")"
work=$1
cp main.js "$work"
node "$work/main.js"
