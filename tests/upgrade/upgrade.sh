#!/bin/bash
# What is recorded survives pg_upgrade, and recording goes on: tests/upgrade/upgrade.sh /old/bin/pg_config /new/bin/pg_config
# bemi is installed in both servers. As root, the servers run as the user postgres.
set -euo pipefail
old=$("$1" --bindir) new=$("$2" --bindir)
folder=$(mktemp -d /tmp/bemi-upgrade.XXXXXX)
chmod 755 "$folder"
as=()
if [ "$(id -u)" = 0 ]; then
  chown postgres "$folder"
  as=(runuser -u postgres --)
fi
cd "$folder"
running=
finish() {
  [ -z "$running" ] || "${as[@]}" "$running/pg_ctl" stop -s -w -m immediate -D "$folder/$(data_of "$running")" || true
  rm -rf "$folder"
}
trap finish EXIT
data_of() { if [ "$1" = "$old" ]; then echo old; else echo new; fi; }

# Both clusters alike: versions differ in whether they have checksums.
init() {
  local checksums=() known
  known=$("$1/initdb" --help)
  [[ $known != *no-data-checksums* ]] || checksums=(--no-data-checksums)
  known=$("${as[@]}" "$1/postgres" --describe-config)
  "${as[@]}" "$1/initdb" -U postgres -A trust -E UTF8 --no-locale --no-sync "${checksums[@]}" -D "$folder/$2" > /dev/null
  {
    echo "listen_addresses = ''"
    echo "unix_socket_directories = '$folder'"
    echo "wal_level = logical"
    echo "fsync = off"
    [[ $known != *output_plugin_libraries* ]] ||
      echo "output_plugin_libraries = 'pgoutput, bemi_decoder'"
  } >> "$folder/$2/postgresql.conf"
}
start() { "${as[@]}" "$1/pg_ctl" start -s -w -D "$folder/$2" -l "$folder/$2.log" > /dev/null; running=$1; }
stop() { "${as[@]}" "$1/pg_ctl" stop -s -w -m fast -D "$folder/$2"; running=; }
sql() { "$new/psql" -h "$folder" -U postgres -X -q -A -t -v ON_ERROR_STOP=1 -d app "$@"; }

init "$old" old
init "$new" new
start "$old" old
"$new/psql" -h "$folder" -U postgres -X -q -d postgres -c "CREATE DATABASE app"
sql <<'SQL'
CREATE EXTENSION bemi;
CREATE TABLE t (id int PRIMARY KEY, v text);
SELECT bemi.track('t');
SELECT bemi.start();
SELECT bemi.set_context('{"user_id":1}');
INSERT INTO t VALUES (1, 'before'), (2, 'before');
ALTER TABLE t RENAME TO renamed;
ALTER TABLE renamed RENAME v TO w;
SELECT bemi.sync();
SELECT bemi.stop(drop_slot => true);
SQL
stop "$old" old
"${as[@]}" "$new/pg_upgrade" -b "$old" -B "$new" -d "$folder/old" -D "$folder/new" -s "$folder" -U postgres > "$folder/upgrade.log" ||
  { cat "$folder/upgrade.log"; find "$folder/new/pg_upgrade_output.d" -name '*.log' -exec grep -H -i -E "error|fatal" {} +; exit 1; }
start "$new" new
sql <<'SQL'
SELECT bemi.start();
UPDATE renamed SET w = 'after' WHERE id = 1;
SELECT bemi.sync();
SQL
found=$(sql -c "SELECT string_agg(concat(source, operation, primary_key), ' ' ORDER BY source, commit_position, sequence) FROM bemi.changes")
# What was noted of the table is noted under the OID that it has here.
life=$(sql -c "SELECT string_agg((\"row\").w, ' ' ORDER BY version) FROM bemi.history(NULL::renamed, '1')" 2> /dev/null)
sources=$(sql -c "SELECT string_agg(concat(s.source, s.system_identifier = c.system_identifier), ' ' ORDER BY source) FROM bemi.sources s, pg_control_system() c")
state=$(sql -c "SELECT state FROM bemi.status")
sql -c "SELECT bemi.stop(drop_slot => true)"
stop "$new" new
[ "$found, $state" = "1CREATE1 1CREATE2 2GAP 2UPDATE1, recording" ] || { echo "recorded is $found, $state"; exit 1; }
[ "$life, $sources" = "before after, 1f 2t" ] || { echo "read is $life, of $sources"; exit 1; }
echo "pg_upgrade from $("$1" --version | cut -d' ' -f2) to $("$2" --version | cut -d' ' -f2): $found"
