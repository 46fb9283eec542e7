#!/bin/bash
# run.sh WORK: the recipes for asyncpg, and for SQLAlchemy's AsyncSession on asyncpg and on psycopg 3.
set -euo pipefail
cd "$(dirname "$0")"
work=$1
"$work/venv/bin/python" -B -W error with_asyncpg.py
for driver in asyncpg psycopg; do
  # Each finds the table empty.
  psql -Xq -v ON_ERROR_STOP=1 -c "TRUNCATE todo"
  "$work/venv/bin/python" -B -W error with_sqlalchemy.py "$driver"
done
../../crowd.sh 3
