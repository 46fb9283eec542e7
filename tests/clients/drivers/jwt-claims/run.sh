#!/bin/bash
# run.sh WORK: the recipe for PostgREST and what is made with it: its statements, sent by psql.
set -euo pipefail
cd "$(dirname "$0")"
psql -X -f recipe.sql
