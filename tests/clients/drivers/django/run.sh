#!/bin/bash
# run.sh WORK: the recipe for Django.
set -euo pipefail
cd "$(dirname "$0")"
work=$1
"$work/venv/bin/python" -B recipe.py
