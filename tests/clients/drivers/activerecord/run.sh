#!/bin/bash
# run.sh WORK: the recipes for ActiveRecord, with and without marginalia, as Debian has them.
set -euo pipefail
cd "$(dirname "$0")"
work=$1
for program in recipe.rb with_marginalia.rb; do
  ruby "$program" 2>&1 | tee "$work/said.txt"
  # Neither ActiveRecord nor the driver has warned.
  [ ! -s "$work/said.txt" ]
done
../../crowd.sh 1
