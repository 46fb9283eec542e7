#!/bin/bash
# run.sh: Django's migrations, inspectdb, sqlflush and flush.
. "$BEMI_TOOL"

manage() { venv/bin/python -B manage.py "$@"; }
migrated() {
  mkdir generated
  touch generated/__init__.py
  runs manage makemigrations todos
  runs manage migrate --fake-initial
}

test_makemigrations_and_migrate_name_nothing_of_bemis() {
  migrated
  NEXT=1 runs manage makemigrations todos
  names_nothing_of_bemis generated/0*.py
  NEXT=1 runs manage sqlmigrate todos 0002
  names_nothing_of_bemis output
  NEXT=1 runs manage migrate
  bemi_is_spared todo "task, note" "'Next', 'Noted'"
  NEXT=1 runs manage migrate todos 0001
  bemi_is_spared
}

test_inspectdb_shows_the_application_alone() {
  runs manage inspectdb --include-views --include-partitions
  names_nothing_of_bemis output
  grep "class Todo" output
}

test_flush_empties_the_application_alone_and_is_recorded() {
  migrated
  runs manage sqlflush
  names_nothing_of_bemis output
  runs manage flush --no-input
  [ "$(sql "SELECT count(*) FROM todo")" = 0 ]
  sql "SELECT bemi.sync()"
  [ "$(sql "SELECT count(*) FROM bemi.changes WHERE operation = 'TRUNCATE' AND \"table\" = 'todo'")" = 1 ]
  bemi_is_spared
}

test_migrate_to_zero_drops_the_table_and_the_next_one_is_tracked() {
  migrated
  runs manage migrate todos zero
  history_stays
  runs manage migrate
  bemi_is_spared
}

run_tests
