#!/bin/bash
# run.sh: Prisma's db pull, db push, migrate diff, migrate dev, migrate deploy and migrate reset.
. "$BEMI_TOOL"

export CHECKPOINT_DISABLE=1 PRISMA_SCHEMA_ENGINE_BINARY=$PWD/schema-engine.mjs PRISMA_HIDE_UPDATE_MESSAGE=1
# Prisma asks people, not programs, whether data may be lost.
export PRISMA_USER_CONSENT_FOR_DANGEROUS_AI_ACTION=yes
prisma() { npx --no-install prisma "$@"; }

test_explore() {
  cp schemas.prisma pulled.prisma
  for c in "db pull --print" "migrate diff --from-config-datasource --to-schema next.prisma --script" "db push --schema next.prisma" "db pull --print --schema schemas.prisma" "db push --schema schemas.prisma" "db push --schema schemas.prisma --accept-data-loss" "migrate diff --from-config-datasource --to-schema schemas.prisma --script" "migrate dev --name first" "migrate reset --force"; do
  echo "== $c"; prisma $c 2>&1 | head -150 || true; done
  false
}
run_tests
