-- What tracked tables were like, and from when on: so that recorded changes can be read under today's names, and no time is
-- taken for recorded that is not.

CREATE TABLE bemi.table_versions (
  -- Of this database: versions that come from a dump are given those of the tables that have their names.
  relation oid NOT NULL,
  -- Whose log it is; 0 before anything was recorded. And the OID that the table had there.
  source int NOT NULL,
  recorded oid NOT NULL,
  -- The changes of the table from this position of the log on are those of this version.
  position pg_lsn NOT NULL,
  noted_at timestamptz NOT NULL,
  is_tracked boolean NOT NULL,
  -- Whether it had no rows then.
  is_empty boolean NOT NULL,
  -- Whether the log has the whole row before each change.
  has_images boolean,
  schema name,
  "table" name,
  -- The topmost table above a partition; else the table itself.
  root oid,
  -- The columns that name a row, and the names of all by their numbers.
  key_columns smallint[],
  columns jsonb,
  -- The types and modifiers of the columns, and what types are made of: see types_of().
  types jsonb,
  ignored text[],
  masked text[],
  -- The columns whose values the statement changed, or may have changed, in rows of before, how, and under which settings: see
  -- rewritten_columns(). By their numbers.
  rewrites jsonb,
  -- Nobody noted it when it came: what was before, and until when, is not known.
  is_late boolean NOT NULL DEFAULT false,
  -- The role that ran the statement.
  noted_by name,
  -- Whether CREATE TABLE AS or SELECT INTO made it, whose rows are no changes.
  is_made_with_rows boolean NOT NULL DEFAULT false,
  PRIMARY KEY (relation, source, position)
);

CREATE INDEX table_versions_by_root ON bemi.table_versions (root);
GRANT SELECT ON bemi.table_versions TO PUBLIC;

-- The names of tables and columns, those that are gone too, are for those who may read them. Who reads all changes sees them
-- there, and needs all versions: without them, changes of a table that is gone might count for a later one of its name.
-- pg_dump by others cannot read a table with policies: what it takes along is in bemi.recorded_versions.
ALTER TABLE bemi.table_versions ENABLE ROW LEVEL SECURITY;
CREATE POLICY readers ON bemi.table_versions FOR SELECT USING (
  (SELECT COALESCE(pg_catalog.has_table_privilege(pg_catalog.to_regclass('bemi.changes'::pg_catalog.text)::pg_catalog.oid, 'SELECT'::pg_catalog.text), false))
  OR pg_catalog.has_table_privilege(relation, 'SELECT'::pg_catalog.text) OR pg_catalog.has_table_privilege(root, 'SELECT'::pg_catalog.text));

COMMENT ON TABLE bemi.table_versions IS
'the names, columns, keys and rules of tracked tables, from which position of the log and which time on';

-- In PL/pgSQL, which keeps plans: it runs after each statement that changes a table. Triggers are looked up table by table,
-- whatever the planner thinks of how many there are.
CREATE FUNCTION bemi.present_versions(relations oid[]) RETURNS SETOF bemi.table_versions
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
  RETURN QUERY
    SELECT r.oid, 0, r.oid, pg_current_wal_insert_lsn(), clock_timestamp(),
      -- While a table is unlogged, nothing of it is in the log.
      (c.relpersistence = 'p' OR c.relkind = 'p') AND EXISTS (SELECT FROM unnest(a.above) o, LATERAL (SELECT FROM bemi.context_triggers t WHERE t.relation = o OFFSET 0) t),
      COALESCE(pg_relation_size(c.oid) = 0, true), c.relreplident = 'f' OR c.relkind = 'p', n.nspname, c.relname, COALESCE(pg_partition_root(c.oid)::oid, c.oid),
      (SELECT (i.indkey::int2[])[0:i.indnkeyatts - 1] FROM pg_index i WHERE i.indrelid = c.oid
        AND (i.indisprimary AND i.indisvalid OR i.indisreplident AND c.relreplident = 'i') ORDER BY i.indisprimary DESC LIMIT 1),
      (SELECT jsonb_object_agg(attnum, attname) FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped),
      CASE WHEN c.oid IS NOT NULL THEN bemi.types_of(c.oid) END,
      ARRAY(SELECT DISTINCT i FROM bemi.context_triggers t, unnest(bemi.rules(t.arguments, 'ignore')) i
        WHERE t.relation = c.oid AND t.name = 'bemi_context' ORDER BY i),
      ARRAY(SELECT DISTINCT m FROM unnest(a.above) o, LATERAL (SELECT t.arguments FROM bemi.context_triggers t WHERE t.relation = o OFFSET 0) t,
        unnest(bemi.rules(t.arguments, 'mask')) m ORDER BY m), NULL::jsonb, false, NULL::name, false
    FROM unnest(relations) AS r (oid) LEFT JOIN pg_class c ON c.oid = r.oid AND c.relkind IN ('r', 'p') LEFT JOIN pg_namespace n ON n.oid = c.relnamespace,
      LATERAL (SELECT CASE WHEN c.relispartition THEN ARRAY(SELECT relid::oid FROM pg_partition_ancestors(c.oid)) ELSE ARRAY[c.oid] END) AS a (above);
END
$$;

COMMENT ON FUNCTION bemi.present_versions(oid[]) IS
'what tables are like now, as versions of them';

-- Which tables are not as their last version says, or were rewritten.
CREATE FUNCTION bemi.new_versions(relations oid[], rewritten oid[] DEFAULT '{}') RETURNS SETOF bemi.table_versions
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
BEGIN
  RETURN QUERY
    SELECT p.* FROM bemi.present_versions(relations) p LEFT JOIN LATERAL (
      SELECT * FROM bemi.table_versions v WHERE v.relation = p.relation ORDER BY v.source DESC, v.position DESC LIMIT 1
    ) l ON true
    -- Of a partition that is no longer tracked, that it goes.
    WHERE (p.is_tracked OR l.is_tracked OR l.root <> l.relation AND p.root IS DISTINCT FROM l.root)
      AND (p.relation = ANY (rewritten)
        OR (p.is_tracked, p.has_images, p.schema, p."table", p.root, p.key_columns, p.columns, p.types, p.ignored, p.masked)
          IS DISTINCT FROM (l.is_tracked, l.has_images, l.schema, l."table", l.root, l.key_columns, l.columns, l.types, l.ignored, l.masked));
END
$$;

COMMENT ON FUNCTION bemi.new_versions(oid[], oid[]) IS
'what tables are like now, of those that are not as their last version says, or were rewritten';

CREATE FUNCTION bemi.latest_versions(relations oid[], rewritten oid[]) RETURNS jsonb
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'bemi_latest_versions';

COMMENT ON FUNCTION bemi.latest_versions(oid[], oid[]) IS
'calls bemi.read_new_versions() under a snapshot that sees all that was committed';

CREATE FUNCTION bemi.read_new_versions(relations oid[], rewritten oid[]) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO, YMD' SET plan_cache_mode = force_generic_plan AS $$
BEGIN
  -- Not by to_jsonb(), which keeps pointers to the names of a row type that another session's DDL, or its VACUUM, may have freed.
  RETURN (SELECT COALESCE(json_agg(to_json(v))::jsonb, '[]'::jsonb) FROM bemi.new_versions(relations, rewritten) v);
END
$$;

COMMENT ON FUNCTION bemi.read_new_versions(oid[], oid[]) IS
'what tables are like now, of those that are not as their last version says, or were rewritten';

-- With is_late, for what was changed while the event triggers were disabled. `rewrites` has those of tables by their OIDs.
CREATE FUNCTION bemi.note_versions(relations oid[], is_late boolean DEFAULT true, rewrites jsonb DEFAULT '{}') RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  noted jsonb;
  source int;
BEGIN
  -- Before the lock, since one that begins adopts what is noted. The first one may begin while this waits.
  source := bemi.current_source();
  LOCK TABLE bemi.table_versions IN ROW EXCLUSIVE MODE;
  IF source = 0 THEN
    source := bemi.current_source();
  END IF;
  noted := bemi.latest_versions(relations, ARRAY(SELECT r::oid FROM jsonb_object_keys(rewrites) r));
  IF noted = '[]'::jsonb THEN
    RETURN;
  END IF;
  PERFORM bemi.require_safe_tables(ARRAY['bemi.table_versions'::regclass::oid]);
  INSERT INTO bemi.table_versions (relation, source, recorded, position, noted_at, is_tracked, is_empty, has_images, schema, "table", root, key_columns, columns,
    types, ignored, masked, rewrites, is_late, noted_by)
  SELECT v.relation, source, v.relation, v.position, v.noted_at, v.is_tracked, v.is_empty, v.has_images, v.schema, v."table", v.root, v.key_columns, v.columns,
    v.types, v.ignored, v.masked, note_versions.rewrites -> v.relation::text, note_versions.is_late,
    -- Those who call it run with the rights of the extension's owner.
    CASE WHEN current_setting('role'::text) = 'none'::text THEN session_user ELSE current_setting('role'::text)::name END
  FROM jsonb_to_recordset(noted) AS v (relation oid, position pg_lsn, noted_at timestamptz, is_tracked boolean,
    is_empty boolean, has_images boolean, schema name, "table" name, root oid, key_columns smallint[], columns jsonb, types jsonb, ignored text[], masked text[]);
  IF source > 0 THEN
    PERFORM bemi.keep_versions(relations);
  END IF;
END
$$;

REVOKE EXECUTE ON FUNCTION bemi.note_versions(oid[], boolean, jsonb) FROM PUBLIC;

COMMENT ON FUNCTION bemi.note_versions(oid[], boolean, jsonb) IS
'notes what tables are like now, if they are tracked and nobody has noted it; their past is known from then on';

CREATE FUNCTION bemi.note_table(relation oid, rewrites jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM bemi.note_versions(ARRAY[note_table.relation], is_late => false,
    rewrites => COALESCE((SELECT jsonb_build_object(r.key, r.value) FROM jsonb_each(note_table.rewrites) r WHERE r.key::oid = note_table.relation), '{}'::jsonb));
EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
  RAISE;
WHEN OTHERS THEN
  RAISE WARNING 'bemi could not note what this statement changed of the table with the OID %: %', note_table.relation, SQLERRM USING
    HINT = 'The past of this table cannot be read.';
END
$$;

COMMENT ON FUNCTION bemi.note_table(oid, jsonb) IS
'notes what a table is like now, or warns that it cannot';

CREATE FUNCTION bemi.lock_writers(relation oid) RETURNS void
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'bemi_lock_writers';

COMMENT ON FUNCTION bemi.lock_writers(oid) IS
'waits for those who write a table, if it is there still, and lets nobody write it until the transaction ends';

-- With partitions and heirs, and former partitions.
CREATE FUNCTION bemi.noted_tables(relations oid[]) RETURNS oid[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  waiting oid[] := relations;
  noted oid[] := '{}';
  candidate oid;
  heir oid;
  is_partition boolean;
  place int := 1;
BEGIN
  -- Those aside that are not tracked, and never were. One by one: a join might look at all tables.
  WHILE place <= cardinality(waiting) LOOP
    candidate := waiting[place];
    -- Nor those of the recorder, which have partitions too.
    SELECT relispartition INTO is_partition FROM pg_class WHERE oid = candidate AND relkind IN ('r', 'p') AND relpersistence <> 't'
      AND relnamespace <> 'bemi'::regnamespace;
    IF FOUND THEN
      IF is_partition OR EXISTS (SELECT FROM bemi.context_triggers t WHERE t.relation = candidate)
        OR EXISTS (SELECT FROM bemi.table_versions v WHERE v.relation = candidate)
      THEN
        noted := noted || candidate;
      END IF;
      FOR heir IN SELECT inhrelid FROM pg_inherits WHERE inhparent = candidate UNION ALL SELECT v.relation FROM bemi.table_versions v WHERE v.root = candidate LOOP
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
'tables with their partitions and heirs, of those that are tracked or were';

CREATE FUNCTION bemi.altered_types(relations oid[], types oid[]) RETURNS oid[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
BEGIN
  RETURN ARRAY(SELECT c.reltype FROM unnest(relations) r JOIN pg_class c ON c.oid = r WHERE c.reltype <> 0::oid)
    || ARRAY(SELECT y FROM unnest(types) y JOIN pg_type t ON t.oid = y WHERE t.typtype = 'e'::"char");
END
$$;

COMMENT ON FUNCTION bemi.altered_types(oid[], oid[]) IS
'the types whose values may look different after a statement that altered relations and types';

-- Whether values of a type, or of what it was when the table was noted last, are shown otherwise now. A label more changes nothing.
CREATE FUNCTION bemi.is_shown_otherwise(relation oid) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  noted jsonb := (SELECT v.types FROM bemi.table_versions v WHERE v.relation = is_shown_otherwise.relation ORDER BY v.source DESC, v.position DESC LIMIT 1);
  present jsonb := bemi.types_of(is_shown_otherwise.relation);
BEGIN
  RETURN noted IS DISTINCT FROM present AND EXISTS (
    SELECT FROM jsonb_each(noted -> 'defined') n WHERE NOT COALESCE(present -> 'defined' -> n.key @> n.value, false)
      OR n.value ? 'attributes' AND n.value <> present -> 'defined' -> n.key);
END
$$;

COMMENT ON FUNCTION bemi.is_shown_otherwise(oid) IS
'whether values of a table are shown otherwise than when it was noted last, since a type was altered';

CREATE FUNCTION bemi.note_ddl() RETURNS event_trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
<<note_ddl>>
DECLARE
  relations oid[];
  -- Those whose columns are of a type that was altered.
  users oid[] := '{}';
  rewritten jsonb := '{}';
  relation oid;
BEGIN
  IF TG_EVENT = 'sql_drop' THEN
    relations := ARRAY(
      SELECT DISTINCT CASE WHEN classid = 'pg_class'::regclass THEN objid ELSE to_regclass(format('%I.%I', address_names[1], address_names[2]))::oid END
      FROM pg_event_trigger_dropped_objects() WHERE object_type IN ('table', 'table column', 'trigger') AND NOT is_temporary AND address_names[1] <> 'bemi');
    -- The table of a trigger that was dropped with it is there by itself.
    relations := array_remove(relations, NULL::oid);
    -- What is dropped of the tables of bemi takes no look at others of them: a parallel restore would be in its own way.
    IF relations = '{}' AND NOT EXISTS (SELECT FROM pg_event_trigger_dropped_objects()
      WHERE classid = 'pg_class'::regclass AND objsubid > 0 AND NOT is_temporary AND address_names[1] <> 'bemi')
    THEN
      RETURN;
    END IF;
    PERFORM bemi.require_readable();
    -- Attributes may go with their types.
    users := bemi.noted_tables(bemi.tables_of_types(bemi.altered_types(ARRAY(
      SELECT objid FROM pg_event_trigger_dropped_objects() WHERE classid = 'pg_class'::regclass AND objsubid > 0 AND NOT is_temporary), '{}'::oid[])));
  ELSE
    relations := ARRAY(
      SELECT DISTINCT CASE classid WHEN 'pg_class'::regclass THEN objid WHEN 'pg_trigger'::regclass THEN (SELECT tgrelid FROM pg_trigger WHERE oid = objid) END
      FROM pg_event_trigger_ddl_commands() WHERE classid IN ('pg_class'::regclass, 'pg_trigger'::regclass) AND schema_name IS DISTINCT FROM 'bemi');
    relations := array_remove(relations, NULL::oid);
    IF relations = '{}' AND TG_TAG NOT IN ('ALTER SCHEMA', 'ALTER TYPE') THEN
      RETURN;
    END IF;
    PERFORM bemi.require_readable();
    -- Whatever is in a schema, or of a type, takes a look at all tables.
    IF TG_TAG = 'ALTER SCHEMA' THEN
      relations := ARRAY(SELECT c.oid FROM pg_event_trigger_ddl_commands() d JOIN pg_class c ON c.relnamespace = d.objid WHERE d.classid = 'pg_namespace'::regclass);
    ELSIF TG_TAG IN ('ALTER TYPE', 'ALTER TABLE') THEN
      users := bemi.noted_tables(bemi.tables_of_types(bemi.altered_types(relations,
        ARRAY(SELECT d.objid FROM pg_event_trigger_ddl_commands() d WHERE d.classid = 'pg_type'::regclass))));
      rewritten := bemi.rewrites();
      IF TG_TAG = 'ALTER TYPE' THEN
        relations := relations || ARRAY(SELECT c.oid FROM pg_event_trigger_ddl_commands() d JOIN pg_type t ON t.typrelid = d.objid JOIN pg_class c ON c.reloftype = t.oid);
      END IF;
    END IF;
    relations := bemi.noted_tables(relations);
  END IF;
  IF TG_TAG = 'ALTER SCHEMA' THEN
    -- Which locks no table: those who write under the old name have to end first.
    -- By their OIDs: others may rename, move or drop them meanwhile.
    FOREACH relation IN ARRAY relations LOOP
      PERFORM bemi.lock_writers(relation);
    END LOOP;
  END IF;
  -- Nor are the tables locked that use a type.
  FOREACH relation IN ARRAY users LOOP
    IF relation <> ALL (relations) THEN
      IF bemi.is_shown_otherwise(relation) THEN
        PERFORM bemi.lock_writers(relation);
      END IF;
      relations := relations || relation;
    END IF;
  END LOOP;
  IF relations <> '{}' THEN
    BEGIN
      PERFORM bemi.note_versions(relations, is_late => false, rewrites => rewritten);
    EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
      RAISE;
    WHEN OTHERS THEN
      -- One table does not stand in the way of the others.
      FOREACH relation IN ARRAY relations LOOP
        PERFORM bemi.note_table(relation, rewritten);
      END LOOP;
    END;
    IF TG_TAG IN ('CREATE TABLE AS', 'SELECT INTO') THEN
      -- What was refused above is said, and not more.
      PERFORM bemi.require_safe_tables(ARRAY['bemi.table_versions'::regclass::oid]);
      UPDATE bemi.table_versions v SET is_made_with_rows = true WHERE v.relation = ANY (relations) AND NOT v.is_empty AND v.noted_at >= transaction_timestamp();
    END IF;
  END IF;
-- A statement that does not get its locks fails, as it would without us.
EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
  RAISE;
WHEN OTHERS THEN
  RAISE WARNING 'bemi could not note what this statement changed: %', SQLERRM USING HINT = 'The past of the tables that it changed cannot be read.';
END
$$;

COMMENT ON FUNCTION bemi.note_ddl() IS
'for the event triggers: notes the versions of tables that a statement made, changed or dropped';

-- After bemi_on_ddl, which comes first by its name.
CREATE EVENT TRIGGER bemi_versions ON ddl_command_end
WHEN TAG IN ('CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'CREATE SCHEMA', 'CREATE TRIGGER', 'ALTER TRIGGER', 'ALTER TABLE', 'ALTER TYPE', 'ALTER SCHEMA',
  'ALTER VIEW', 'ALTER MATERIALIZED VIEW', 'ALTER FOREIGN TABLE', 'ALTER INDEX')
EXECUTE FUNCTION bemi.note_ddl();
ALTER EVENT TRIGGER bemi_versions ENABLE ALWAYS;

COMMENT ON EVENT TRIGGER bemi_versions IS
'notes what tracked tables are like, for those who read the past';

CREATE EVENT TRIGGER bemi_versions_dropped ON sql_drop EXECUTE FUNCTION bemi.note_ddl();
ALTER EVENT TRIGGER bemi_versions_dropped ENABLE ALWAYS;

COMMENT ON EVENT TRIGGER bemi_versions_dropped IS
'notes which tracked tables, columns and triggers were dropped';

-- The names under which tables are in bemi.changes, each with the places (see bemi.place) from which on and until when.
CREATE FUNCTION bemi.recorded_names(relations oid[])
RETURNS TABLE (relation oid, schema text, "table" text, since bigint, until bigint)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
    WITH versions AS (
      SELECT
        v.relation,
        v.schema::text,
        v."table"::text,
        bemi.place(v.source, v.position) AS place,
        (v.schema, v."table") IS DISTINCT FROM (lag(v.schema) OVER w, lag(v."table") OVER w) AS is_renamed
      FROM bemi.table_versions v
      WHERE v.relation = ANY (relations) AND v."table" IS NOT NULL
      WINDOW w AS (PARTITION BY v.relation ORDER BY v.source, v.position)
    )
    SELECT v.relation, v.schema, v."table", v.place,
      COALESCE(lead(v.place) OVER (PARTITION BY v.relation ORDER BY v.place), 9223372036854775807)
    FROM versions v
    WHERE v.is_renamed;
END
$$;

COMMENT ON FUNCTION bemi.recorded_names(oid[]) IS
'the names under which bemi.changes has the changes of tables, and from which position of the log on until when';

CREATE FUNCTION bemi.recorded_oid(relation oid, place bigint) RETURNS oid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT COALESCE((
    SELECT v.recorded FROM bemi.table_versions v WHERE v.relation = recorded_oid.relation AND bemi.place(v.source, v.position) <= recorded_oid.place
    ORDER BY v.source DESC, v.position DESC LIMIT 1), relation)
$$;

COMMENT ON FUNCTION bemi.recorded_oid(oid, bigint) IS
'the OID that a table had at a place';

-- Which table of today had a name at a place, and between which places that holds; none if it is gone.
CREATE FUNCTION bemi.table_at(
  schema text, "table" text, place bigint, recorded oid, OUT relation regclass, OUT since bigint, OUT until bigint, OUT is_another boolean
)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  SELECT n.relation, n.since, n.until INTO relation, since, until FROM (
    SELECT DISTINCT v.relation FROM bemi.table_versions v WHERE v.schema = table_at.schema AND v."table" = table_at."table"
  ) r, LATERAL bemi.recorded_names(ARRAY[r.relation]) n
  WHERE n.schema = table_at.schema AND n."table" = table_at."table" AND table_at.place >= n.since AND table_at.place < n.until
  ORDER BY n.since DESC LIMIT 1;
  IF relation IS NULL THEN
    -- It was recorded without being tracked.
    relation := to_regclass(format('%I.%I', table_at.schema, table_at."table"));
    since := table_at.place;
    until := table_at.place + 1;
  ELSIF NOT EXISTS (SELECT FROM pg_class WHERE oid = relation) THEN
    relation := NULL;
  END IF;
  -- A table that came by the name later is not meant.
  is_another := COALESCE(bemi.recorded_oid(relation::oid, table_at.place) <> recorded, false);
  IF is_another THEN
    relation := NULL;
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.table_at(text, text, bigint, oid) IS
'the table that had a name at a place of the log, and the OID that was recorded if any, if it is there still; between which places it had the name; whether another has it now';

CREATE FUNCTION bemi.table_names(relation regclass) RETURNS TABLE (schema text, "table" text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT n.schema, n."table" FROM bemi.recorded_names(ARRAY(SELECT t::oid FROM bemi.tree(relation) t)) n
  UNION SELECT n.nspname, c.relname FROM bemi.tree(relation) t JOIN pg_class c ON c.oid = t JOIN pg_namespace n ON n.oid = c.relnamespace
$$;

COMMENT ON FUNCTION bemi.table_names(regclass) IS
'all names under which bemi.changes may have changes of a table and its partitions';
