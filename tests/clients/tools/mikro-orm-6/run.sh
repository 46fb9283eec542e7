#!/bin/bash
# run.sh: MikroORM 6 with bemiMikroOrmOptions() and without.
. "$BEMI_TOOL"

mikro() { node_modules/.bin/mikro-orm "$@"; }

test_schema_update_without_our_options_fails_and_spares_bemi() {
  OPTIONS='' is_refused 'because it contains what bemi recorded' mikro schema:update --run
  bemi_is_spared
}

test_schema_update_with_our_options_spares_bemi() {
  export OPTIONS=all NEXT=1
  runs mikro schema:update --dump
  names_nothing_of_bemis output
  runs mikro schema:update --run
  bemi_is_spared todo "task, note" "'Next', 'Noted'"
}

test_migration_create_without_our_options_fails_at_bemis_tables() {
  export OPTIONS='' NEXT=1
  is_refused "TypeError" mikro migration:create
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

test_migration_with_our_options_goes_down_and_spares_bemi() {
  export OPTIONS=all NEXT=1
  runs mikro migration:create
  cat generated/*.js
  runs mikro migration:up
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
