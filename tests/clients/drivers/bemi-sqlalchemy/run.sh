#!/bin/bash
# BemiHQ's bemi-sqlalchemy as it is published, first with bemi's triggers alone, then with its own beside them.
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
"$python" recipe.py
