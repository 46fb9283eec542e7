#!/bin/bash
# run.sh: Knex's migrations, which say themselves what they do.
. "$BEMI_TOOL"

test_migrate_latest_and_rollback_spare_bemi() {
  runs npx --no-install knex migrate:latest
  bemi_is_spared todo "task, note" "'Next', 'Noted'"
  is_recorded tag name "'New'"
  runs npx --no-install knex migrate:rollback --all
  bemi_is_spared
}

run_tests
