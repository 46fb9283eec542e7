-- The event triggers are dropped above, since they would run half of the old functions and half of the new ones.
SET LOCAL search_path = pg_catalog, pg_temp;
SET LOCAL session_replication_role = replica;

-- The recorder ends, and waits for the end of this transaction when the server starts it again.
SELECT bemi.lock_recorder();
SELECT bemi.end_recorder();

-- Rights that somebody granted since the extension was made stay: those that are not in pg_init_privs. An object
-- without a line there had its default rights, with which everybody could use it.
SELECT set_config('bemi_update.granted', COALESCE((
  SELECT jsonb_agg(DISTINCT jsonb_build_array(i.classoid, i.objoid, a.grantee))
  FROM pg_extension e
  JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e'::"char"
  JOIN pg_init_privs i ON i.classoid = d.classid AND i.objoid = d.objid AND i.objsubid = 0
  LEFT JOIN pg_proc p ON d.classid = 'pg_proc'::regclass AND p.oid = d.objid
  LEFT JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid,
    LATERAL aclexplode(COALESCE(p.proacl, c.relacl)) a
  WHERE e.extname = 'bemi'::name AND NOT EXISTS (
    SELECT FROM aclexplode(i.initprivs) o WHERE o.grantee = a.grantee AND o.privilege_type = a.privilege_type)
), '[]'::jsonb)::text, true);

-- Tables whose columns have another order now; their rows are copied below. The new ones take the names of
-- constraints and indexes.
DO $do$
DECLARE
  named record;
BEGIN
  ALTER TABLE bemi.table_versions RENAME TO former_table_versions;
  ALTER INDEX bemi.table_versions_by_root RENAME TO former_table_versions_by_root;
  IF to_regclass('bemi.recorder') IS NOT NULL THEN
    ALTER TABLE bemi.recorder RENAME TO former_recorder;
  END IF;
  FOR named IN
    SELECT c.conrelid::regclass AS relation, c.conname FROM pg_constraint c
    WHERE c.conrelid IN (to_regclass('bemi.former_table_versions'), to_regclass('bemi.former_recorder'))
  LOOP
    EXECUTE format('ALTER TABLE %s RENAME CONSTRAINT %I TO %I',
      named.relation, named.conname, 'former_' || named.conname);
  END LOOP;
END
$do$;
