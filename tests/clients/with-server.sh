#!/bin/bash
# with-server.sh COMMAND...: runs a command beside a throwaway server of PG_CONFIG's version (default: pg_config on the
# PATH), into which `make install` has put bemi. It listens on loopback; PGHOST, PGPORT, PGUSER and PGDATABASE lead a
# superuser to it, without a password. Its folder is gone afterwards; on failure its log is shown.
set -euo pipefail
bin=$("${PG_CONFIG:-pg_config}" --bindir)
folder=$(mktemp -d /tmp/bemi-clients.XXXXXX)
# A server refuses to run as root.
as_server=()
if [ "$(id -u)" = 0 ]; then
  chown postgres "$folder"
  as_server=(runuser -u postgres --)
fi
in_folder() { (cd "$folder" && "${as_server[@]}" "$@"); }
command=
stop() {
  status=$?
  [ -z "$command" ] || kill "$command" 2>/dev/null || true
  in_folder "$bin/pg_ctl" -D "$folder/data" -m immediate -w stop >/dev/null 2>&1 || true
  [ $status = 0 ] || { echo "-- The end of the server's log:" >&2; tail -n 40 "$folder/log" >&2 || true; }
  rm -rf "$folder"
}
trap stop EXIT
trap 'exit 143' TERM

export PGHOST=127.0.0.1 PGUSER=postgres PGDATABASE=postgres
PGPORT=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
export PGPORT
in_folder "$bin/initdb" -D "$folder/data" -U postgres -A trust -E UTF8 --locale=C.UTF-8 --no-sync >/dev/null
cat >> "$folder/data/postgresql.conf" <<CONF
listen_addresses = '127.0.0.1'
port = $PGPORT
unix_socket_directories = '$folder'
fsync = off
max_connections = 200
max_worker_processes = 64
max_replication_slots = 64
max_wal_senders = 10
wal_level = logical
log_min_messages = warning
CONF
# Newer releases load no output plugin that is not named; older ones do not know the setting.
if in_folder "$bin/postgres" --describe-config | grep ^output_plugin_libraries >/dev/null; then
  echo "output_plugin_libraries = 'pgoutput, test_decoding, bemi_decoder'" >> "$folder/data/postgresql.conf"
fi
in_folder "$bin/pg_ctl" -D "$folder/data" -l "$folder/log" -w -t 60 start >/dev/null
"$@" <&0 &
command=$!
wait "$command" && status=0 || status=$?
command=
exit "$status"
