-- The past, read from what recorder.sql recorded.
\set SHOW_CONTEXT never
SELECT bemi.clear_context();
SELECT committed_at AS deleted FROM bemi.changes WHERE operation = 'DELETE' \gset
SELECT min(committed_at) AS inserted FROM bemi.changes \gset
SELECT * FROM bemi.as_of(NULL::todo, :'inserted') ORDER BY id;
SELECT * FROM todo ORDER BY id;
SELECT operation, "row", context FROM bemi.history(NULL::todo, '26');

-- What would undo a change, and undoing it.
SELECT bemi.revert_sql(relation => 'todo', primary_key => '25', since => :'deleted') AS statement;
SELECT status, operation, primary_key FROM bemi.revert(relation => 'todo', primary_key => '25', since => :'deleted');
SELECT * FROM todo ORDER BY id;
SELECT bemi.revert_sql();
SELECT bemi.as_of(NULL::int, now());

SELECT bemi.stop(drop_slot => true);
SELECT bemi.untrack_all();
DROP TABLE todo;
DROP EXTENSION bemi CASCADE;
