#!/bin/bash
# run.sh WORK: BemiHQ's bemi-sqlalchemy, as published; with bemi's triggers alone, then with its own beside them.
set -euo pipefail
cd "$(dirname "$0")"
work=$1
"$work/venv/bin/python" -B recipe.py
