#!/bin/bash
# run.sh: Prisma's db pull, db push, migrate diff, migrate dev, migrate deploy and migrate reset.
. "$BEMI_TOOL"

export CHECKPOINT_DISABLE=1 PRISMA_SCHEMA_ENGINE_BINARY=$PWD/schema-engine.mjs PRISMA_HIDE_UPDATE_MESSAGE=1
# Prisma asks people, not programs, whether data may be lost.
export PRISMA_USER_CONSENT_FOR_DANGEROUS_AI_ACTION=yes
prisma() { node_modules/.bin/prisma "$@"; }

# The database of an application that is in use becomes the first migration.
baseline() {
  mkdir -p generated/0_init
  runs prisma migrate diff --from-empty --to-schema schema.prisma --script -o generated/0_init/migration.sql
  echo 'provider = "postgresql"' > generated/migration_lock.toml
  runs prisma migrate resolve --applied 0_init
}

test_db_pull_shows_the_application_alone() {
  runs prisma db pull --print
  names_nothing_of_bemis output
  grep "^model todo" output
  bemi_is_spared
}

test_migrate_diff_and_db_push_spare_bemi() {
  runs prisma migrate diff --from-config-datasource --to-schema next.prisma --script
  names_nothing_of_bemis output
  runs prisma db push --schema next.prisma
  bemi_is_spared todo "task, note" "'Next', 'Noted'"
  runs prisma db push --accept-data-loss
  bemi_is_spared
}

test_migrate_dev_and_deploy_name_nothing_of_bemis() {
  baseline
  runs prisma migrate dev --schema next.prisma --name next
  names_nothing_of_bemis generated/*/migration.sql
  grep "ADD COLUMN" generated/*_next/migration.sql
  bemi_is_spared todo "task, note" "'Next', 'Noted'"
  runs prisma migrate deploy --schema next.prisma
  bemi_is_spared
}

test_migrate_reset_makes_a_new_schema_which_is_tracked() {
  baseline
  runs prisma migrate reset --force
  [ "$(sql "SELECT count(*) FROM todo")" = 0 ]
  bemi_is_spared
}

test_db_push_with_bemi_among_the_schemas_is_refused() {
  is_refused "data loss" prisma db push --schema schemas.prisma
  is_refused "cannot drop table bemi|it contains what bemi recorded" prisma db push --schema schemas.prisma --accept-data-loss
  bemi_is_spared
}

run_tests
