#!/bin/bash
# run.sh: TypeORM's synchronize, dropSchema, schema:sync, schema:log, schema:drop and migration:generate.
. "$BEMI_TOOL"

typeorm() { node_modules/.bin/typeorm "$@" -d data-source.js; }

test_synchronize_spares_bemi() {
  NEXT=1 SYNCHRONIZE=1 runs node start.js
  bemi_is_spared todo "task, note" "'Next', 'Noted'"
}

test_drop_schema_makes_a_new_table_which_is_tracked() {
  DROP_SCHEMA=1 SYNCHRONIZE=1 runs node start.js
  [ "$(sql "SELECT count(*) FROM todo")" = 0 ]
  bemi_is_spared
}

test_schema_log_and_sync_spare_bemi() {
  NEXT=1 runs typeorm schema:log
  names_nothing_of_bemis output
  NEXT=1 runs typeorm schema:sync
  bemi_is_spared todo "task, note" "'Next', 'Noted'"
}

test_schema_drop_and_sync_spare_bemi() {
  runs typeorm schema:drop
  history_stays
  runs typeorm schema:sync
  bemi_is_spared
}

test_migration_generate_names_nothing_of_bemis() {
  mkdir generated
  NEXT=1 runs node_modules/.bin/typeorm migration:generate generated/next --outputJs -d data-source.js
  names_nothing_of_bemis generated/*.js
  runs typeorm migration:run
  bemi_is_spared todo "task, note" "'Next', 'Noted'"
  runs typeorm migration:revert
  bemi_is_spared
}

test_features_are_the_same_with_the_package_and_each_change_has_its_context() {
  features_are_the_same node features.js
}

run_tests
