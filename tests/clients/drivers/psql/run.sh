#!/bin/bash
# run.sh WORK: the recipe for psql: its scripts, PGOPTIONS, and a file in one transaction.
set -euo pipefail
cd "$(dirname "$0")"
work=$1

psql -X -f recipe.sql
psql -X -f rollback.sql

printf "INSERT INTO todo (task) VALUES ('Import');\n" > "$work/import.sql"
file=$work/import.sql
PGOPTIONS='-c bemi.context={"job":"nightly\ import"}' psql -X -f "$file"
psql -X -1 -v ON_ERROR_STOP=1 -c "SET LOCAL bemi.context = '{\"user_id\":5}'" -f "$file"
