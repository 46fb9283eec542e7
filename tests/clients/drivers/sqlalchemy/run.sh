#!/bin/bash
# run.sh WORK: the recipe for SQLAlchemy 2.
set -euo pipefail
cd "$(dirname "$0")"
work=$1
"$work/venv/bin/python" -B recipe.py
