#!/bin/bash
# run.sh: Alembic, with and without `include_schemas`, and with `include_name`.
. "$BEMI_TOOL"

alembic() { PYTHONPATH=. PYTHONDONTWRITEBYTECODE=1 venv/bin/alembic "$@"; }
revision() {
  mkdir -p generated
  alembic revision --autogenerate -m next
}

test_autogenerate_sees_the_application_alone() {
  NEXT=1 runs revision
  names_nothing_of_bemis generated/*.py
  grep add_column generated/*.py
  ! grep drop_table generated/*.py
  NEXT=1 runs alembic upgrade head
  bemi_is_spared todo "task, note" "'Next', 'Noted'"
  NEXT=1 runs alembic downgrade base
  bemi_is_spared
}

test_autogenerate_with_include_schemas_drops_bemis_tables_in_a_revision_that_is_refused() {
  SCHEMAS=1 runs revision
  grep "drop_table('changes', schema='bemi')" generated/*.py
  is_refused 'it contains what bemi recorded|extension bemi requires it' alembic upgrade head
  bemi_is_spared
}

test_autogenerate_with_include_schemas_and_include_name_names_nothing_of_bemis() {
  SCHEMAS=1 NAMES=1 NEXT=1 runs revision
  names_nothing_of_bemis generated/*.py
  SCHEMAS=1 NAMES=1 NEXT=1 runs alembic upgrade head
  bemi_is_spared todo "task, note" "'Next', 'Noted'"
}

run_tests
