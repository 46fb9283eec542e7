#!/bin/bash
# run.sh WORK: the recipe for Hasura: its statements, sent by psql.
set -euo pipefail
cd "$(dirname "$0")"
psql -X -f recipe.sql
