# tool.sh: what the tests of the schema tools share; sourced by their run.sh. A test is a function whose name begins with
# test_. Each gets a database of its own, with a tracked table `todo` and recorded changes, which PGDATABASE and DATABASE_URL
# lead to, and the folder BEFORE. It fails with the first command that fails.
set -euo pipefail

sql() { psql -XAtq -v ON_ERROR_STOP=1 -c "$1"; }

# An application that has been in use. Its table is what each tool's model describes.
prepare() {
  sql "SELECT bemi.stop(drop_slot => true)" > /dev/null 2>&1 || true
  PGDATABASE=postgres sql "DROP DATABASE IF EXISTS $PGDATABASE WITH (FORCE)"
  PGDATABASE=postgres sql "CREATE DATABASE $PGDATABASE"
  psql -XAtq -v ON_ERROR_STOP=1 <<'SQL'
SET client_min_messages = warning;
CREATE EXTENSION bemi;
CREATE TABLE todo (id serial PRIMARY KEY, task text NOT NULL, is_completed boolean NOT NULL DEFAULT false);
SELECT bemi.track_all();
SELECT bemi.start();
INSERT INTO todo (task) VALUES ('Sleep'), ('Eat') /*Bemi {"user_id": 1} Bemi*/;
UPDATE todo SET is_completed = true WHERE id = 1 /*Bemi {"user_id": 2} Bemi*/;
DELETE FROM todo WHERE id = 2 /*Bemi {"user_id": 3} Bemi*/;
SELECT bemi.sync();
SQL
  [ "$(sql "SELECT count(*) FROM bemi.changes")" = 4 ]
  rm -rf generated
  history > "$BEFORE/history"
  objects > "$BEFORE/objects"
}

history() {
  sql "SELECT id, \"table\", operation, primary_key, before, after, context FROM bemi.changes ORDER BY source, commit_position, sequence"
}

# Everything in the schema bemi, its event triggers, and the columns, triggers and rights on its tables.
objects() {
  sql "SELECT format('relation %s %s %s', c.relkind, c.oid::regclass, c.relacl) FROM pg_class c WHERE relnamespace = 'bemi'::regnamespace
       UNION ALL SELECT format('column %s.%s %s %s', a.attrelid::regclass, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull)
         FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid WHERE relnamespace = 'bemi'::regnamespace AND attnum > 0 AND relkind IN ('r', 'p', 'v')
       UNION ALL SELECT format('function %s', oid::regprocedure) FROM pg_proc WHERE pronamespace = 'bemi'::regnamespace
       UNION ALL SELECT format('constraint %s %s', conrelid::regclass, conname) FROM pg_constraint
         WHERE connamespace = 'bemi'::regnamespace AND conrelid <> 0
       UNION ALL SELECT format('trigger %s %s %s', tgrelid::regclass, tgname, tgenabled) FROM pg_trigger t JOIN pg_class c ON c.oid = tgrelid
         WHERE relnamespace = 'bemi'::regnamespace AND NOT tgisinternal
       UNION ALL SELECT format('event trigger %s %s', evtname, evtenabled) FROM pg_event_trigger
       UNION ALL SELECT format('extension %s', extname) FROM pg_extension" | LC_ALL=C sort
}

fail() {
  echo "$*" >&2
  return 1
}

# A command that succeeds; what it prints is kept in the file `output` too.
runs() {
  echo "\$ $*"
  "$@" > output 2>&1 || { cat output; fail "it fails"; }
  cat output
}

# A command that fails and prints what the first argument says, a regular expression.
is_refused() {
  local reason=$1
  shift
  echo "\$ $*"
  ! "$@" > output 2>&1 || { cat output; fail "it does not fail"; }
  cat output
  grep -qE "$reason" output || fail "it does not say: $reason"
}

# What the server has logged for this database with the level WARNING.
warns() {
  sql "SELECT pg_read_file(current_setting('data_directory') || '/../log')" | tail -c +"$((LOGGED + 1))" | grep -F WARNING | grep -qE "$1" ||
    fail "the server does not warn: $1"
}

names_nothing_of_bemis() {
  local file
  for file; do
    [ -s "$file" ] || fail "$file is empty or missing"
    ! grep -in bemi "$file" || fail "$file names something of bemi's"
  done
}

# Each change that was recorded before is there as it was, and nothing in the schema bemi is gone.
history_stays() {
  sql "SELECT bemi.sync()"
  history > "$BEFORE/history.now"
  diff -u "$BEFORE/history" <(head -n "$(wc -l < "$BEFORE/history")" "$BEFORE/history.now") || fail "the history is not what it was"
  objects > "$BEFORE/objects.now"
  ! LC_ALL=C comm -23 "$BEFORE/objects" "$BEFORE/objects.now" | grep . || fail "these are gone"
}

# A table, by default todo, is tracked, and the next change is recorded with its context.
is_recorded() {
  local table=${1:-todo} columns=${2:-task} values=${3:-"'Next'"}
  [ "$(sql "SELECT count(*) FROM bemi.tracked WHERE relation = '$table'::regclass AND missing = '{}'")" = 1 ] || fail "$table is not tracked"
  sql "INSERT INTO $table ($columns) VALUES ($values) /*Bemi {\"user_id\": 4} Bemi*/"
  sql "SELECT bemi.sync()"
  [ "$(sql "SELECT operation || ' ' || \"table\" || ' ' || context FROM bemi.changes ORDER BY source, commit_position DESC, sequence DESC LIMIT 1")" = \
    "CREATE ${table//[\"]/} {\"user_id\": 4}" ] || fail "the INSERT into $table is not recorded with its context"
}

bemi_is_spared() {
  history_stays
  is_recorded "$@"
}

# A program prints what comes of each feature of an ORM and what is in its tables then: the same without the package as
# with it, where each change carries the feature that it belongs to.
features_are_the_same() {
  runs "$@"
  sort output > without
  prepare
  BEMI=1 runs "$@"
  sort output > with
  diff -u without with || fail "the package changes what comes of them"
  sql "SELECT bemi.sync()"
  sql "SELECT context, count(*) FROM bemi.changes WHERE \"table\" <> 'todo' GROUP BY context ORDER BY min(sequence)"
  [ "$(sql "SELECT count(*) FROM bemi.changes WHERE \"table\" <> 'todo' AND NOT context ? 'feature'")" = 0 ] || fail "changes have no context"
  [ "$(sql "SELECT count(DISTINCT context ->> 'feature') FROM bemi.changes")" -ge 12 ] || fail "too few features have changes"
}

run_tests() {
  local name test failed=0 status tests started
  name=$(basename "$PWD")
  mapfile -t tests < <(grep -oE '^test_[a-z0-9_]+' run.sh)
  export PGDATABASE=tool_${name//-/_} BEFORE=$PWD/before
  export DATABASE_URL=postgresql://$PGUSER@$PGHOST:$PGPORT/$PGDATABASE
  mkdir -p "$BEFORE"
  for test in "${tests[@]}"; do
    [[ $test =~ ${BEMI_TEST:-.} ]] || continue
    started=$(date +%s)
    LOGGED=$(PGDATABASE=postgres sql "SELECT size FROM pg_stat_file(current_setting('data_directory') || '/../log')")
    # Not in a condition, where bash would go on after a command that fails.
    set +e
    (set -e; prepare; "$test") > "$BEFORE/log" 2>&1
    status=$?
    set -e
    sql "SELECT bemi.stop(drop_slot => true)" > /dev/null 2>&1 || true
    local sentence=${test#test_}
    if [ $status = 0 ]; then
      echo "ok $name: ${sentence//_/ } ($(($(date +%s) - started)) s)"
    else
      failed=1
      echo "FAILED $name: ${sentence//_/ }"
      sed 's/^/  /' "$BEFORE/log"
    fi
  done
  return $failed
}
