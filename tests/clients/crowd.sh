#!/bin/bash
# crowd.sh CLIENTS: fails unless each of so many clients has had the tasks "Crowd 0" to "Crowd 19" recorded twice, each with the
# user_id of its number. They come in another order each time, so they are then deleted from what expected.txt is compared with.
set -euo pipefail
psql -Xq -v ON_ERROR_STOP=1 -v clients="$1" <<'SQL'
SELECT bemi.sync();
SELECT 1 / (count(*) = 40 * :clients AND
            count(DISTINCT (context->'client', context->'user_id')) = 20 * :clients AND
            bool_and(after->>'task' = 'Crowd ' || (context->>'user_id')))::int AS "each has its own context"
FROM bemi.changes WHERE after->>'task' LIKE 'Crowd %';
DELETE FROM bemi.changes WHERE after->>'task' LIKE 'Crowd %';
SQL
