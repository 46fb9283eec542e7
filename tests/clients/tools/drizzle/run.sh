#!/bin/bash
# run.sh: drizzle-kit's push, pull, generate and migrate, and push with a schemaFilter that names bemi.
. "$BEMI_TOOL"

kit() { node_modules/.bin/drizzle-kit "$@"; }

test_push_spares_bemi() {
  NEXT=1 runs kit push --force --verbose
  names_nothing_of_bemis output
  bemi_is_spared todo "task, note" "'Next', 'Noted'"
  runs kit push --force
  bemi_is_spared
}

test_push_with_a_schema_filter_that_names_bemi_spares_the_history() {
  # It reports the error, and exits with 0.
  SCHEMAS=public,bemi runs kit push --force
  grep -E 'it contains what bemi recorded|extension bemi requires it' output
  bemi_is_spared
}

test_pull_shows_the_application_alone() {
  runs kit pull
  names_nothing_of_bemis generated/schema.ts generated/*.sql
  grep 'pgTable("todo"' generated/schema.ts
  bemi_is_spared
}

test_generate_and_migrate_spare_bemi() {
  runs kit generate
  # The table is there already.
  sed -i 's/CREATE TABLE "todo"/CREATE TABLE IF NOT EXISTS "todo"/' generated/*.sql
  NEXT=1 runs kit generate
  names_nothing_of_bemis generated/*.sql generated/meta/*.json
  runs kit migrate
  bemi_is_spared todo "task, note" "'Next', 'Noted'"
}

run_tests
