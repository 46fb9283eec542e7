#!/bin/bash
# run.sh WORK: the recipe for Prisma.
set -euo pipefail
cd "$(dirname "$0")"
work=$1
cp -r main.ts prisma prisma.config.ts "$work"
cd "$work"
# `prisma generate` downloads the engine of `prisma migrate` unless it is named, and does not run it.
PRISMA_SCHEMA_ENGINE_BINARY=/bin/true CHECKPOINT_DISABLE=1 npx --no-install prisma generate >/dev/null
npx --no-install tsx main.ts
