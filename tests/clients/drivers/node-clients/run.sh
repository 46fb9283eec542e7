#!/bin/bash
# run.sh WORK: the recipes for clients of Node that have one program each: those that sit on node-postgres, with the package
# bemi, and postgres.js.
set -euo pipefail
cd "$(dirname "$0")"
work=$1
../../unpack-package.sh "$work"
cp ./*.mjs "$work"
clients=(knex objection kysely drizzle sequelize slonik pg-promise postgres)
for client in "${clients[@]}"; do
  echo "-- $client"
  # Each finds the table empty.
  psql -Xq -v ON_ERROR_STOP=1 -c "TRUNCATE todo"
  node "$work/$client.mjs" 2>&1 | tee "$work/$client.txt"
  # Neither bemi nor Node has warned.
  [ ! -s "$work/$client.txt" ]
done
../../crowd.sh "${#clients[@]}"
