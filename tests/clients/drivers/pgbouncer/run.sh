#!/bin/bash
# PgBouncer in transaction mode, with psycopg 3 behind it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
work=$1
python=$work/venv/bin/python
if ! cmp -s requirements.txt "$work/installed.txt"; then
  python3 -m venv --clear "$work/venv"
  "$python" -m pip install -q --disable-pip-version-check -r requirements.txt
  cp requirements.txt "$work/installed.txt"
fi
export PYTHONDONTWRITEBYTECODE=1

# It refuses to run as root, and the user postgres may not be allowed to look into the folder of the work.
folder=$(mktemp -d /tmp/bemi-pgbouncer.XXXXXX)
as_bouncer=()
[ "$(id -u)" != 0 ] || as_bouncer=(runuser -u postgres --)
stop() {
  [ ! -s "$folder/pid" ] || kill "$(cat "$folder/pid")" || true
  wait || true
  rm -rf "$folder"
}
trap stop EXIT
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
printf '"%s" ""\n' "$PGUSER" > "$folder/users.txt"
cat > "$folder/pgbouncer.ini" <<CONF
[databases]
one = host=$PGHOST port=$PGPORT dbname=$PGDATABASE pool_size=1
some = host=$PGHOST port=$PGPORT dbname=$PGDATABASE pool_size=4

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $port
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
for _ in $(seq 100); do
  ! psql -X -h 127.0.0.1 -p "$port" -d one -c "SELECT" >/dev/null 2>&1 || break
  sleep 0.1
done
BOUNCER_URL="postgresql://$PGUSER@127.0.0.1:$port" "$python" recipe.py || { cat "$folder/log"; exit 1; }
