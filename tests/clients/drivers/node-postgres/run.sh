#!/bin/bash
# run.sh WORK: the recipes for node-postgres.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$1"
if ! cmp -s "$here/package-lock.json" node_modules/.lock; then
  cp "$here"/package*.json .
  npm ci --ignore-scripts --loglevel=error
  cp package-lock.json node_modules/.lock
fi
cp "$here/main.js" .
node main.js
