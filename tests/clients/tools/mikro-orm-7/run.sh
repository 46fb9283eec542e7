#!/bin/bash
# run.sh: MikroORM 7 with bemiMikroOrmOptions(), with `ignoreSchema` alone, and with neither.
. "$BEMI_TOOL"

mikro() { node_modules/.bin/mikro-orm "$@"; }

test_schema_update_without_our_options_fails_and_spares_bemi() {
  OPTIONS='' is_refused 'extension bemi requires it|it contains what bemi recorded' mikro schema:update --run
  bemi_is_spared
}

test_schema_update_with_ignoreschema_alone_drops_the_trigger_which_is_put_back() {
  export OPTIONS=schema
  runs mikro schema:update --run
  warns 'the trigger bemi_context of .*todo was created again'
  bemi_is_spared
}

test_schema_update_with_our_options_spares_bemi() {
  export OPTIONS=all NEXT=1
  runs mikro schema:update --dump
  names_nothing_of_bemis output
  runs mikro schema:update --run
  bemi_is_spared todo "task, note" "'Next', 'Noted'"
}

test_migration_without_our_options_names_bemi_and_fails() {
  export OPTIONS='' NEXT=1
  runs mikro migration:create
  grep -i 'drop table if exists "bemi"."changes" cascade' generated/*.js
  is_refused 'extension bemi requires it|it contains what bemi recorded' mikro migration:up
  bemi_is_spared
}

test_migration_with_our_options_goes_up_and_spares_bemi() {
  export OPTIONS=all NEXT=1
  runs mikro migration:create
  sed -n '/async up/,/^  }/p' generated/*.js > up
  names_nothing_of_bemis up
  runs mikro migration:up
  bemi_is_spared todo "task, note" "'Next', 'Noted'"
}

# MikroORM writes into `down` what it would drop if it did not ignore triggers. It fails there, and nothing has happened.
test_down_of_a_migration_without_a_snapshot_names_the_trigger_and_fails() {
  export OPTIONS=all NEXT=1
  runs mikro migration:create
  grep bemi_context generated/*.js
  runs mikro migration:up
  is_refused 'syntax error' mikro migration:down
  bemi_is_spared todo "task, note" "'Next', 'Noted'"
  # As the page says.
  sed -i '/bemi_context/d' generated/*.js
  runs mikro migration:down
  bemi_is_spared
}

test_migrations_from_the_snapshot_name_nothing_of_bemis() {
  export OPTIONS=all
  runs mikro migration:create --initial
  runs mikro migration:up
  export NEXT=1
  runs mikro migration:create --name next
  names_nothing_of_bemis generated/*.js
  runs mikro migration:up
  bemi_is_spared todo "task, note" "'Next', 'Noted'"
  runs mikro migration:down
  bemi_is_spared
}

test_schema_drop_and_create_spare_bemi() {
  runs mikro schema:drop --run
  history_stays
  runs mikro schema:create --run
  bemi_is_spared
}

test_schema_fresh_without_our_options_spares_bemi() {
  runs mikro schema:fresh --run
  bemi_is_spared
}

test_features_are_the_same_with_the_package_and_each_change_has_its_context() {
  features_are_the_same node features.mjs
}

run_tests
