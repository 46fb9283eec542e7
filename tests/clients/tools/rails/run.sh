#!/bin/bash
# run.sh: the schema dumps of Rails (ActiveRecord 6.1, as Debian has it), by its dumper and by pg_dump, and their load.
. "$BEMI_TOOL"

rails() { ruby -W0 tasks.rb "$@"; }
other_database() {
  PGDATABASE=postgres sql "DROP DATABASE IF EXISTS ${PGDATABASE}_other WITH (FORCE)"
  PGDATABASE=postgres sql "CREATE DATABASE ${PGDATABASE}_other"
  export DATABASE_URL=${DATABASE_URL}_other
}

test_migrate_and_rollback_spare_bemi() {
  runs rails db:migrate
  bemi_is_spared todo "task, note" "'Next', 'Noted'"
  is_recorded tags name "'New'"
  runs rails db:rollback
  bemi_is_spared
}

test_schema_dump_names_the_extension_alone_and_loads_over_the_application() {
  mkdir generated
  runs rails db:schema:dump generated/schema.rb
  cat generated/schema.rb
  [ "$(grep -i bemi generated/schema.rb)" = '  enable_extension "bemi"' ]
  runs rails db:schema:load generated/schema.rb
  bemi_is_spared
}

test_schema_load_into_an_empty_database_leaves_tracking_to_a_migration() {
  mkdir generated
  runs rails db:schema:dump generated/schema.rb
  other_database
  runs rails db:schema:load generated/schema.rb
  PGDATABASE+=_other
  [ "$(sql "SELECT count(*) FROM bemi.tracked")" = 0 ]
  sql "SELECT bemi.track_all()"
  [ "$(sql "SELECT relation FROM bemi.tracked WHERE relation = 'todo'::regclass")" = todo ]
}

test_structure_dump_loads_into_an_empty_database_with_the_extension_and_the_trigger() {
  mkdir generated
  runs env SCHEMAS=all ruby -W0 tasks.rb db:structure:dump generated/structure.sql
  other_database
  runs rails db:structure:load generated/structure.sql
  PGDATABASE+=_other
  [ "$(sql "SELECT relation FROM bemi.tracked WHERE relation = 'todo'::regclass")" = todo ]
  sql "SELECT bemi.start()"
  is_recorded
  sql "SELECT bemi.stop(drop_slot => true)"
}

test_truncate_all_spares_bemi() {
  runs rails db:truncate_all
  [ "$(sql "SELECT count(*) FROM todo")" = 0 ]
  bemi_is_spared
}

run_tests
