-- Databases in which a migration of BemiHQ's packages was run: row triggers that write a context before each row, and
-- an event trigger that creates them for each new table.

CREATE FUNCTION bemi.bemihq_objects() RETURNS TABLE (kind text, identity text, removal text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT o.kind, o.identity, o.removal
  FROM (
    SELECT 1, 'event trigger', format('%I', e.evtname), format('DROP EVENT TRIGGER %I', e.evtname)
    FROM pg_event_trigger e
      JOIN pg_proc p ON p.oid = e.evtfoid
    WHERE p.proname = '_bemi_create_table_trigger_func'
    UNION ALL
    SELECT 2, 'trigger', format('%I on %s', t.tgname, t.tgrelid::regclass),
      format('DROP TRIGGER %I ON %s', t.tgname, t.tgrelid::regclass)
    FROM pg_trigger t
      JOIN pg_proc p ON p.oid = t.tgfoid
    WHERE p.proname = '_bemi_row_trigger_func'
      AND NOT t.tgisinternal
      AND t.tgparentid = 0
    UNION ALL
    SELECT 3, CASE p.prokind WHEN 'p' THEN 'procedure' ELSE 'function' END, p.oid::regprocedure::text,
      format('DROP ROUTINE %s', p.oid::regprocedure)
    FROM pg_proc p
    WHERE p.proname IN ('_bemi_create_table_trigger_func', '_bemi_create_triggers', '_bemi_row_trigger_func')
  ) AS o (place, kind, identity, removal)
  ORDER BY o.place, o.identity
$$;

COMMENT ON FUNCTION bemi.bemihq_objects() IS
'returns the objects that a migration of BemiHQ''s packages created here, and the statements that drop them';

CREATE FUNCTION bemi.replace_bemihq() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  schemas name[] := ARRAY(
    SELECT DISTINCT n.nspname
    FROM pg_trigger t
      JOIN pg_proc p ON p.oid = t.tgfoid
      JOIN pg_class c ON c.oid = t.tgrelid
      JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE p.proname = '_bemi_row_trigger_func'
      AND NOT t.tgisinternal
      AND n.nspname NOT IN ('bemi', 'information_schema')
      AND NOT starts_with(n.nspname::text, 'pg_'));
  theirs record;
  done int := 0;
BEGIN
  -- The triggers of this extension come first, so that no change goes without one.
  IF schemas <> '{}' THEN
    PERFORM bemi.track_all(schemas);
  END IF;
  FOR theirs IN SELECT * FROM bemi.bemihq_objects() LOOP
    EXECUTE theirs.removal;
    done := done + 1;
  END LOOP;
  RAISE NOTICE 'dropped % objects of BemiHQ', done;
END
$$;

COMMENT ON FUNCTION bemi.replace_bemihq() IS
'tracks the schemas whose tables have BemiHQ''s triggers, and drops these and all other objects of BemiHQ''s migration';
