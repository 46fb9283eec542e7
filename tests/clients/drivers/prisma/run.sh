#!/bin/bash
# run.sh WORK: the recipes for Prisma: main.ts without the package bemi, instrumented.ts with it.
set -euo pipefail
cd "$(dirname "$0")"
work=$1
../../unpack-package.sh "$work"
cp -r main.ts instrumented.ts prisma prisma.config.ts "$work"
cd "$work"
# `prisma generate` downloads the engine of `prisma migrate` unless it is named, and does not run it.
PRISMA_SCHEMA_ENGINE_BINARY=/bin/true CHECKPOINT_DISABLE=1 npx --no-install prisma generate >/dev/null
npx --no-install tsx main.ts
npx --no-install tsx instrumented.ts
"$OLDPWD/../../crowd.sh" 1
