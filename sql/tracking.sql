-- Which tables have the trigger. On a partitioned table it is attached to every table of the tree, since a statement
-- may name any of them; foreign tables aside, whose changes are not in the log.

CREATE FUNCTION @extschema@.track(relation regclass) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  kind "char" := (SELECT relkind FROM pg_class WHERE oid = relation);
  member regclass;
BEGIN
  IF relation IS NULL THEN
    RAISE EXCEPTION 'bemi cannot track NULL' USING
      ERRCODE = 'null_value_not_allowed', HINT = 'Name a table, like SELECT bemi.track(''public.todo'').';
  ELSIF kind IS NULL THEN
    RAISE EXCEPTION 'there is no table with the OID %', relation::oid USING ERRCODE = 'undefined_table';
  ELSIF kind NOT IN ('r', 'p') THEN
    RAISE EXCEPTION 'bemi cannot track %, which is no table', relation USING
      ERRCODE = 'wrong_object_type', HINT = 'Track the tables whose rows it shows.';
  END IF;
  FOR member IN SELECT relation UNION
    SELECT relid FROM pg_partition_tree(relation) JOIN pg_class ON pg_class.oid = relid AND relkind IN ('r', 'p')
  LOOP
    IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = member AND tgname = 'bemi_context') THEN
      EXECUTE format(
        'CREATE TRIGGER bemi_context BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON %s '
        'FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.emit_context()', member);
    END IF;
  END LOOP;
END
$$;

COMMENT ON FUNCTION @extschema@.track(regclass) IS
'has the changes of a table carry the context';

CREATE FUNCTION @extschema@.untrack(relation regclass) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  member regclass;
BEGIN
  FOR member IN SELECT relation UNION SELECT relid FROM pg_partition_tree(relation) LOOP
    EXECUTE format('DROP TRIGGER IF EXISTS bemi_context ON %s', member);
  END LOOP;
END
$$;

COMMENT ON FUNCTION @extschema@.untrack(regclass) IS
'has the changes of a table no longer carry the context';
