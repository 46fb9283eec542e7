#!/bin/bash
# run.sh: Sequelize's sync, drop and truncate, and what drops every schema.
. "$BEMI_TOOL"

test_sync_alter_spares_bemi() {
  NEXT=1 runs node sync.js alter
  names_nothing_of_bemis output
  bemi_is_spared todo "task, note" "'Next', 'Noted'"
}

test_sync_force_makes_a_new_table_which_is_tracked() {
  runs node sync.js force
  names_nothing_of_bemis output
  bemi_is_spared todo "task, is_completed" "'Next', false"
}

test_drop_and_sync_spare_bemi() {
  runs node sync.js drop
  history_stays
  runs node sync.js alter
  bemi_is_spared todo "task, is_completed" "'Next', false"
}

test_truncate_spares_bemi_and_is_recorded() {
  runs node sync.js truncate
  bemi_is_spared
  [ "$(sql "SELECT count(*) FROM bemi.changes WHERE operation = 'TRUNCATE' AND \"table\" = 'todo'")" = 1 ]
}

run_tests
