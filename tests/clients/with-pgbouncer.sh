#!/bin/bash
# with-pgbouncer.sh COMMAND...: runs a command behind PgBouncer in transaction mode, in front of the server that PGHOST,
# PGPORT and PGUSER lead to, as within with-server.sh. It listens on BOUNCER_HOST and BOUNCER_PORT, and lets PGUSER into
# each database of the server by its name, over BOUNCER_POOL_SIZE connections (default: 4). Its folder is gone
# afterwards; on failure its log is shown.
set -euo pipefail
folder=$(mktemp -d /tmp/bemi-pgbouncer.XXXXXX)
# It refuses to run as root.
as_bouncer=()
[ "$(id -u)" != 0 ] || as_bouncer=(runuser -u postgres --)
stop() {
  status=$?
  [ ! -s "$folder/pid" ] || kill "$(cat "$folder/pid")" || true
  wait || true
  [ $status = 0 ] || { echo "-- The end of PgBouncer's log:" >&2; tail -n 40 "$folder/log" >&2 || true; }
  rm -rf "$folder"
}
trap stop EXIT

export BOUNCER_HOST=127.0.0.1
BOUNCER_PORT=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
export BOUNCER_PORT
printf '"%s" ""\n' "$PGUSER" > "$folder/users.txt"
cat > "$folder/pgbouncer.ini" <<CONF
[databases]
* = host=$PGHOST port=$PGPORT pool_size=${BOUNCER_POOL_SIZE:-4}

[pgbouncer]
listen_addr = $BOUNCER_HOST
listen_port = $BOUNCER_PORT
unix_socket_dir =
auth_type = trust
auth_file = $folder/users.txt
admin_users = $PGUSER
pool_mode = transaction
logfile = $folder/log
pidfile = $folder/pid
CONF
[ "$(id -u)" != 0 ] || chown -R postgres "$folder"
"${as_bouncer[@]}" /usr/sbin/pgbouncer -q "$folder/pgbouncer.ini" &
for try in $(seq 100); do
  ! psql -X -h "$BOUNCER_HOST" -p "$BOUNCER_PORT" -d pgbouncer -c "SHOW VERSION" >/dev/null 2>&1 || break
  [ "$try" != 100 ] || { echo "PgBouncer does not answer" >&2; exit 1; }
  sleep 0.1
done
"$@"
