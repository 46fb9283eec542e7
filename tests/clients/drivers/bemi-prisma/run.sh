#!/bin/bash
# run.sh WORK: BemiHQ's package for Prisma, as published; with bemi's triggers alone, then with its own beside them.
set -euo pipefail
cd "$(dirname "$0")"
work=$1
cp -r main.js limits.js prisma "$work"
cd "$work"
# With the preview feature queryCompiler the client runs without the Rust engines. `prisma generate` downloads them
# even so, unless they are named.
PRISMA_QUERY_ENGINE_LIBRARY=/bin/true PRISMA_SCHEMA_ENGINE_BINARY=/bin/true CHECKPOINT_DISABLE=1 \
  npx --no-install prisma generate >/dev/null

sql() { psql -XqAt -v ON_ERROR_STOP=1 -c "$1"; }
expect() { [ "$2" = "$3" ] || { echo "$1: $2 instead of $3" >&2; exit 1; }; }
slot=messages_$PGDATABASE
sql "SELECT FROM pg_create_logical_replication_slot('$slot', 'test_decoding')"
trap 'sql "SELECT FROM pg_drop_replication_slot('"'$slot'"')" >/dev/null' EXIT

# run MESSAGES: runs the application, and counts the messages that the triggers wrote to the log.
run() {
  node main.js
  sql "SELECT bemi.sync()" >/dev/null
  # The requests that ran at once, in whatever order, have each the context of their own user.
  expect "requests" 40 "$(sql "SELECT count(*) FROM bemi.changes
    WHERE operation = 'CREATE' AND after->>'task' = 'request-' || (context->>'userId')")"
  sql "DELETE FROM bemi.changes WHERE coalesce(after->>'task', before->>'task') LIKE 'request-%'"
  expect "messages" "$1" "$(sql "SELECT count(*) FROM pg_logical_slot_get_changes('$slot', NULL, NULL)
    WHERE data LIKE 'message: transactional: 1 prefix: _bemi,%'")"
}

# bemi's triggers: one message for each of 48 statements.
run 48

# Its own beside them: one more for each of 51 rows.
rm -rf prisma/migrations
mkdir prisma/migrations
npx --no-install bemi migration:create >/dev/null
migrate() { psql -Xq -v ON_ERROR_STOP=1 -f prisma/migrations/*/migration.sql; }
migrate
expect "triggers of bemi.changes" 1 "$(sql "SELECT count(*) FROM pg_trigger
  WHERE tgrelid = 'bemi.changes'::regclass AND tgname LIKE '\_bemi\_row\_trigger%'")"
run $((48 + 51))

# Its event trigger fails each CREATE TABLE under another search_path than its own, but for those of bemi.
sql "CREATE SCHEMA elsewhere"
! sql "SET search_path = elsewhere; CREATE TABLE t (id int)" 2>error.txt || { echo "the event trigger let it pass" >&2; exit 1; }
grep -F "procedure _bemi_create_triggers() does not exist" error.txt >/dev/null
sql "SELECT bemi.add_partition(now() + interval '1 year')" >/dev/null
application=$PGDATABASE
export PGDATABASE=${application}_late
psql -Xq -v ON_ERROR_STOP=1 -d "$application" -c "DROP DATABASE IF EXISTS $PGDATABASE" -c "CREATE DATABASE $PGDATABASE"
sql "CREATE TABLE todo (id int)"
migrate
sql "CREATE EXTENSION bemi"
sql "SELECT bemi.start()" >/dev/null
expect "the doctor" "f SELECT bemi.replace_bemihq();" "$(sql "SELECT ok || ' ' || fix FROM bemi.doctor() WHERE \"check\" = 'BemiHQ'" | sed 's/^false/f/')"
sql "SELECT bemi.replace_bemihq()" >/dev/null 2>&1
expect "tracked" todo "$(sql "SELECT relation FROM bemi.tracked")"
sql "SELECT bemi.stop(drop_slot => true)" >/dev/null
PGDATABASE=$application
sql "DROP DATABASE ${application}_late (FORCE)"
sql "SELECT bemi.replace_bemihq()" >/dev/null 2>&1
for name in pg_trigger.tgname pg_event_trigger.evtname pg_proc.proname; do
  expect "$name" 0 "$(sql "SELECT count(*) FROM ${name%.*} WHERE $name LIKE '\_bemi\_%'")"
done
sql "SET search_path = elsewhere; CREATE TABLE t (id int)"
run 48

node limits.js
