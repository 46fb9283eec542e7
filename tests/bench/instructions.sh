#!/bin/bash
# Counts the processor's instructions of a single-row UPDATE by callgrind: tracked against untracked, with a context from the
# setting and from a comment. Unlike times, they are the same on a busy machine. As root, on Debian, after `make install`.
set -euo pipefail
bin=${PG_BIN:-/usr/lib/postgresql/15/bin}
command -v valgrind > /dev/null || apt-get install -y -qq valgrind > /dev/null
data=$(mktemp -d /tmp/bemi-instructions.XXXXXX)
trap 'rm -rf "$data"' EXIT
chown postgres "$data"
cd "$data"
as_postgres() { runuser -u postgres -- "$@"; }
as_postgres "$bin/initdb" -D "$data/data" -A trust --no-sync > /dev/null
printf "wal_level = logical\nfsync = off\nautovacuum = off\n" >> "$data/data/postgresql.conf"
as_postgres "$bin/pg_ctl" -D "$data/data" -o "-k $data -c listen_addresses=" -l "$data/log" -w -s start > /dev/null
as_postgres "$bin/psql" -h "$data" -q -v ON_ERROR_STOP=1 -o /dev/null postgres << 'SQL'
CREATE EXTENSION bemi;
CREATE TABLE untracked (id int PRIMARY KEY, v int, note text);
INSERT INTO untracked SELECT i, i, 'a note' FROM generate_series(1, 100000) i;
CREATE TABLE tracked (LIKE untracked INCLUDING ALL);
INSERT INTO tracked SELECT * FROM untracked;
SELECT bemi.track('tracked', 'keep');
VACUUM FREEZE;
SQL
as_postgres "$bin/pg_ctl" -D "$data/data" -m fast -w -s stop > /dev/null

# Statements on a table, with a context from nothing, the setting or a comment.
statements() {
  echo "SET synchronous_commit = off"
  [ "$2" != setting ] || echo "SET bemi.context = '{\"user_id\":187234,\"endpoint\":\"/todo/complete\"}'"
  for ((i = 1; i <= $3; i++)); do
    comment=
    [ "$2" != comment ] || comment=' /*Bemi {"user_id":187234,"endpoint":"/todo/complete"} Bemi*/'
    echo "UPDATE $1 SET v = v + 1 WHERE id = $((i * 37 % 100000))$comment;"
  done
}
count() {
  statements "$@" > "$data/statements.sql"
  as_postgres valgrind --tool=callgrind --callgrind-out-file=/dev/null "$bin/postgres" --single -D "$data/data" postgres \
    < "$data/statements.sql" 2>&1 | sed -nE 's/.*Collected : ([0-9]+).*/\1/p'
}
# What the start of the server takes falls out of the difference.
each() { echo $((($(count "$1" "$2" 1200) - $(count "$1" "$2" 200)) / 1000)); }
for context in none setting comment; do
  untracked=$(each untracked $context)
  tracked=$(each tracked $context)
  echo "context from $context: $untracked untracked, $tracked tracked: $(awk "BEGIN { printf \"%.3f\", $tracked / $untracked }")"
done
