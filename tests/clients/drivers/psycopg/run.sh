#!/bin/bash
# run.sh WORK: the recipe for psycopg 3 and its pool.
set -euo pipefail
cd "$(dirname "$0")"
work=$1
"$work/venv/bin/python" -B recipe.py
