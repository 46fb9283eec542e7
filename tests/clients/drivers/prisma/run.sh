#!/bin/bash
# run.sh WORK: the recipes for Prisma.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$1"
if ! cmp -s "$here/package-lock.json" node_modules/.lock; then
  cp "$here"/package*.json .
  npm ci --ignore-scripts --loglevel=error
  cp package-lock.json node_modules/.lock
fi
cp -r "$here"/{main.ts,prisma,prisma.config.ts} .
# `prisma generate` downloads the engine of `prisma migrate` unless it is named, and does not run it.
PRISMA_SCHEMA_ENGINE_BINARY=/bin/true CHECKPOINT_DISABLE=1 npx --no-install prisma generate >/dev/null
npx --no-install tsx main.ts
