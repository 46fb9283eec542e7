-- The event triggers are dropped above, since they would run half of the old functions and half of the new ones.
SET LOCAL search_path = pg_catalog, pg_temp;
SET LOCAL session_replication_role = replica;

-- The recorder ends, and waits for the end of this transaction when the server starts it again.
SELECT bemi.lock_recorder();
SELECT bemi.end_recorder();

-- Tables whose columns have another order now; their rows are copied below.
ALTER TABLE bemi.table_versions RENAME TO former_table_versions;
ALTER TABLE bemi.former_table_versions DROP CONSTRAINT table_versions_pkey;
DROP INDEX bemi.table_versions_by_root;
DO $do$
BEGIN
  IF to_regclass('bemi.recorder') IS NOT NULL THEN
    ALTER TABLE bemi.recorder RENAME TO former_recorder;
    ALTER TABLE bemi.former_recorder DROP CONSTRAINT recorder_pkey;
  END IF;
END
$do$;
