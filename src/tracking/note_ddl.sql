-- The event triggers that note versions of tables after DDL.

CREATE FUNCTION bemi.lock_writers(relation oid) RETURNS void
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'bemi_lock_writers';

COMMENT ON FUNCTION bemi.lock_writers(oid) IS
'waits for sessions that write a table, if it still exists, and blocks writes until the transaction ends';

-- With partitions and heirs, and former partitions; except for tables that are not tracked and never were.
CREATE FUNCTION bemi.noted_tables(relations oid[]) RETURNS oid[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  waiting oid[] := relations;
  noted oid[] := '{}';
  candidate oid;
  heir oid;
  is_partition boolean;
  place int := 1;
BEGIN
  -- One by one: a join might read all tables.
  WHILE place <= cardinality(waiting) LOOP
    candidate := waiting[place];
    -- Not those of the recorder either, which have partitions too.
    SELECT relispartition
    INTO is_partition
    FROM pg_class
    WHERE oid = candidate
      AND relkind IN ('r', 'p')
      AND relpersistence <> 't'
      AND relnamespace <> 'bemi'::regnamespace;
    IF FOUND THEN
      IF is_partition OR EXISTS (SELECT FROM bemi.context_triggers t WHERE t.relation = candidate)
        OR EXISTS (SELECT FROM bemi.table_versions v WHERE v.relation = candidate)
      THEN
        noted := noted || candidate;
      END IF;
      FOR heir IN
        SELECT inhrelid FROM pg_inherits WHERE inhparent = candidate
        UNION ALL
        SELECT v.relation FROM bemi.table_versions v WHERE v.root = candidate
      LOOP
        IF heir <> ALL (waiting) THEN
          waiting := waiting || heir;
        END IF;
      END LOOP;
    END IF;
    place := place + 1;
  END LOOP;
  RETURN noted;
END
$$;

COMMENT ON FUNCTION bemi.noted_tables(oid[]) IS
'returns tables with their partitions and heirs, as far as they are or were tracked';

CREATE FUNCTION bemi.altered_types(relations oid[], types oid[]) RETURNS oid[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
BEGIN
  RETURN ARRAY(
    SELECT c.reltype
    FROM unnest(relations) r
      JOIN pg_class c ON c.oid = r
    WHERE c.reltype <> 0::oid
  ) || ARRAY(
    SELECT y
    FROM unnest(types) y
      JOIN pg_type t ON t.oid = y
    WHERE t.typtype = 'e'::"char");
END
$$;

COMMENT ON FUNCTION bemi.altered_types(oid[], oid[]) IS
'returns the types whose values may look different after a statement that altered relations and types';

-- A new label changes nothing.
CREATE FUNCTION bemi.is_shown_otherwise(relation oid) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  noted jsonb := (
    SELECT v.types
    FROM bemi.table_versions v
    WHERE v.relation = is_shown_otherwise.relation
    ORDER BY v.source DESC, v.position DESC
    LIMIT 1);
  present jsonb := bemi.types_of(is_shown_otherwise.relation);
BEGIN
  RETURN noted IS DISTINCT FROM present AND EXISTS (
    SELECT
    FROM jsonb_each(noted -> 'defined') n
    WHERE NOT COALESCE(present -> 'defined' -> n.key @> n.value, false)
      OR n.value ? 'attributes' AND n.value <> present -> 'defined' -> n.key);
END
$$;

COMMENT ON FUNCTION bemi.is_shown_otherwise(oid) IS
'returns whether values of a table look different from when it was last noted, because a type was altered';

-- For sql_drop. Without dropped tables, columns or triggers of tables outside of bemi, `is_relevant` is false.
CREATE FUNCTION bemi.dropped_tables(OUT relations oid[], OUT is_relevant boolean)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
BEGIN
  relations := ARRAY(
    SELECT DISTINCT CASE WHEN classid = 'pg_class'::regclass THEN objid
      ELSE to_regclass(format('%I.%I', address_names[1], address_names[2]))::oid END
    FROM pg_event_trigger_dropped_objects()
    WHERE object_type IN ('table', 'table column', 'trigger')
      AND NOT is_temporary
      AND address_names[1] <> 'bemi');
  -- If the table of a trigger was dropped with it, the table is there separately.
  relations := array_remove(relations, NULL::oid);
  -- Dropping something of the tables of bemi reads no other tables of it: jobs of a parallel restore would block each
  -- other.
  is_relevant := relations <> '{}' OR EXISTS (
    SELECT
    FROM pg_event_trigger_dropped_objects()
    WHERE classid = 'pg_class'::regclass
      AND objsubid > 0
      AND NOT is_temporary
      AND address_names[1] <> 'bemi');
END
$$;

COMMENT ON FUNCTION bemi.dropped_tables() IS
'returns the tables that a statement dropped, or of which it dropped columns or triggers, and whether it matters';

-- For ddl_command_end: the tables that the statement created or altered.
CREATE FUNCTION bemi.altered_tables(tag text, OUT relations oid[], OUT is_relevant boolean)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
BEGIN
  relations := ARRAY(
    SELECT DISTINCT CASE classid
      WHEN 'pg_class'::regclass THEN objid
      WHEN 'pg_trigger'::regclass THEN (SELECT tgrelid FROM pg_trigger WHERE oid = objid)
      END
    FROM pg_event_trigger_ddl_commands()
    WHERE classid IN ('pg_class'::regclass, 'pg_trigger'::regclass)
      AND schema_name IS DISTINCT FROM 'bemi');
  relations := array_remove(relations, NULL::oid);
  is_relevant := relations <> '{}' OR tag IN ('ALTER SCHEMA', 'ALTER TYPE');
END
$$;

COMMENT ON FUNCTION bemi.altered_tables(text) IS
'returns the tables that a statement created or altered, and whether the statement matters';

-- The tables with columns of a type that a statement altered. Dropped attributes are those of composite types too.
CREATE FUNCTION bemi.users_of_types(tag text, is_drop boolean, relations oid[]) RETURNS oid[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
BEGIN
  IF is_drop THEN
    RETURN bemi.noted_tables(bemi.tables_of_types(bemi.altered_types(ARRAY(
      SELECT objid
      FROM pg_event_trigger_dropped_objects()
      WHERE classid = 'pg_class'::regclass
        AND objsubid > 0
        AND NOT is_temporary), '{}'::oid[])));
  ELSIF tag IN ('ALTER TYPE', 'ALTER TABLE') THEN
    RETURN bemi.noted_tables(bemi.tables_of_types(bemi.altered_types(relations, ARRAY(
      SELECT d.objid
      FROM pg_event_trigger_ddl_commands() d
      WHERE d.classid = 'pg_type'::regclass))));
  END IF;
  RETURN '{}'::oid[];
END
$$;

COMMENT ON FUNCTION bemi.users_of_types(text, boolean, oid[]) IS
'returns the tracked tables with columns of the types that a statement altered';

-- All tables of a renamed schema, and those that follow a composite type.
CREATE FUNCTION bemi.affected_tables(tag text, relations oid[]) RETURNS oid[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
BEGIN
  IF tag = 'ALTER SCHEMA' THEN
    relations := ARRAY(
      SELECT c.oid
      FROM pg_event_trigger_ddl_commands() d
        JOIN pg_class c ON c.relnamespace = d.objid
      WHERE d.classid = 'pg_namespace'::regclass);
  ELSIF tag = 'ALTER TYPE' THEN
    relations := relations || ARRAY(
      SELECT c.oid
      FROM pg_event_trigger_ddl_commands() d
        JOIN pg_type t ON t.typrelid = d.objid
        JOIN pg_class c ON c.reloftype = t.oid);
  END IF;
  RETURN bemi.noted_tables(relations);
END
$$;

COMMENT ON FUNCTION bemi.affected_tables(text, oid[]) IS
'returns the tracked tables that a statement affects, given those that it names';

-- Locks the writers of tables that the statement did not lock, and returns all tables to note.
CREATE FUNCTION bemi.lock_affected(tag text, relations oid[], users oid[]) RETURNS oid[]
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  relation oid;
BEGIN
  IF tag = 'ALTER SCHEMA' THEN
    -- ALTER SCHEMA locks no tables: sessions that write under the old name have to end first.
    -- By their OIDs: other sessions may rename, move or drop them.
    FOREACH relation IN ARRAY relations LOOP
      PERFORM bemi.lock_writers(relation);
    END LOOP;
  END IF;
  -- Tables that use a type are not locked either.
  FOREACH relation IN ARRAY users LOOP
    IF relation <> ALL (relations) THEN
      IF bemi.is_shown_otherwise(relation) THEN
        PERFORM bemi.lock_writers(relation);
      END IF;
      relations := relations || relation;
    END IF;
  END LOOP;
  RETURN relations;
END
$$;

COMMENT ON FUNCTION bemi.lock_affected(text, oid[], oid[]) IS
'blocks writes to tables that a statement affects without locking them, and returns all affected tables';

CREATE FUNCTION bemi.note_tables(tag text, relations oid[], rewritten jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  relation oid;
BEGIN
  BEGIN
    PERFORM bemi.note_versions(relations, is_late => false, rewrites => rewritten);
  EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
    RAISE;
  WHEN OTHERS THEN
    -- A failure for one table does not prevent the others from being noted.
    FOREACH relation IN ARRAY relations LOOP
      PERFORM bemi.note_table(relation, rewritten);
    END LOOP;
  END;
  IF tag IN ('CREATE TABLE AS', 'SELECT INTO') THEN
    -- A refusal above has been reported already.
    PERFORM bemi.require_safe_tables(ARRAY['bemi.table_versions'::regclass::oid]);
    UPDATE bemi.table_versions v SET is_made_with_rows = true
    WHERE v.relation = ANY (relations)
      AND NOT v.is_empty
      AND v.noted_at >= transaction_timestamp();
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.note_tables(text, oid[], jsonb) IS
'notes what tables are like after a statement, one by one if that fails for all of them';

CREATE FUNCTION bemi.note_ddl() RETURNS event_trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan AS $$
<<note_ddl>>
DECLARE
  is_drop boolean := TG_EVENT = 'sql_drop';
  named record;
  relations oid[];
  users oid[];
  rewritten jsonb := '{}';
BEGIN
  IF is_drop THEN
    named := bemi.dropped_tables();
  ELSE
    named := bemi.altered_tables(TG_TAG);
  END IF;
  IF NOT named.is_relevant THEN
    RETURN;
  END IF;
  PERFORM bemi.require_readable();
  users := bemi.users_of_types(TG_TAG, is_drop, named.relations);
  relations := named.relations;
  IF NOT is_drop THEN
    IF TG_TAG IN ('ALTER TYPE', 'ALTER TABLE') THEN
      rewritten := bemi.rewrites();
    END IF;
    relations := bemi.affected_tables(TG_TAG, relations);
  END IF;
  relations := bemi.lock_affected(TG_TAG, relations, users);
  IF relations <> '{}' THEN
    PERFORM bemi.note_tables(TG_TAG, relations, rewritten);
  END IF;
-- A statement that does not get its locks fails, as it would without bemi.
EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
  RAISE;
WHEN OTHERS THEN
  RAISE WARNING 'bemi could not note what this statement changed: %', SQLERRM
    USING HINT = 'The past of the tables that it changed cannot be read.';
END
$$;

COMMENT ON FUNCTION bemi.note_ddl() IS
'notes the versions of tables that a statement created, changed or dropped, as an event trigger';

-- After bemi_on_ddl, which comes first by its name.
CREATE EVENT TRIGGER bemi_versions ON ddl_command_end
WHEN TAG IN (
  'CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'CREATE SCHEMA', 'CREATE TRIGGER', 'ALTER TRIGGER', 'ALTER TABLE',
  'ALTER TYPE', 'ALTER SCHEMA', 'ALTER VIEW', 'ALTER MATERIALIZED VIEW', 'ALTER FOREIGN TABLE', 'ALTER INDEX')
EXECUTE FUNCTION bemi.note_ddl();
ALTER EVENT TRIGGER bemi_versions ENABLE ALWAYS;

COMMENT ON EVENT TRIGGER bemi_versions IS
'notes what tracked tables are like, for those who read the past';

CREATE EVENT TRIGGER bemi_versions_dropped ON sql_drop
EXECUTE FUNCTION bemi.note_ddl();
ALTER EVENT TRIGGER bemi_versions_dropped ENABLE ALWAYS;

COMMENT ON EVENT TRIGGER bemi_versions_dropped IS
'notes which tracked tables, columns and triggers were dropped';
