#!/bin/bash
# run.sh: Knex's migrations, which say themselves what they do.
. "$BEMI_TOOL"

test_migrate_latest_and_rollback_spare_bemi() {
  runs node_modules/.bin/knex migrate:latest
  bemi_is_spared todo "task, note" "'Next', 'Noted'"
  is_recorded tag name "'New'"
  runs node_modules/.bin/knex migrate:rollback --all
  bemi_is_spared
}

run_tests
