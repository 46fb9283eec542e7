#!/bin/bash
# run.sh WORK: the recipe for PgBouncer in transaction mode, with psycopg 3 before it.
set -euo pipefail
cd "$(dirname "$0")"
work=$1
BOUNCER_POOL_SIZE=1 ../../with-pgbouncer.sh "$work/venv/bin/python" -B recipe.py
BOUNCER_POOL_SIZE=4 ../../with-pgbouncer.sh "$work/venv/bin/python" -B crowd.py
