-- Versions of tracked tables: what a table was like, and since when. With them, recorded changes are read under
-- today's names, and a time that was not recorded is not mistaken for one that was.

CREATE TABLE bemi.table_versions (
  -- An OID of this database: versions from a dump get those of the tables that have their names.
  relation oid NOT NULL,
  -- Whose WAL it is; 0 before anything was recorded. And the OID that the table had there.
  source int NOT NULL,
  recorded oid NOT NULL,
  -- Changes of the table from this position on belong to this version.
  position pg_lsn NOT NULL,
  noted_at timestamptz NOT NULL,
  is_tracked boolean NOT NULL,
  -- Whether it had no rows then.
  is_empty boolean NOT NULL,
  -- Whether WAL contains the whole row before each change.
  has_images boolean,
  schema name,
  "table" name,
  -- The topmost table above a partition; otherwise the table itself.
  root oid,
  -- The columns that identify a row, and the names of all columns by their numbers.
  key_columns smallint[],
  columns jsonb,
  -- The types and modifiers of the columns, and the definitions of the types: see types_of().
  types jsonb,
  ignored text[],
  masked text[],
  -- The columns, by their numbers, whose values the statement changed, or may have changed, in existing rows, how,
  -- and under which settings: see rewritten_columns().
  rewrites jsonb,
  -- Nobody noted it when it began: what was before, and until when, is not known.
  is_late boolean NOT NULL DEFAULT false,
  -- The role that ran the statement.
  noted_by name,
  -- Whether CREATE TABLE AS or SELECT INTO created it, whose rows are not changes.
  is_made_with_rows boolean NOT NULL DEFAULT false,
  PRIMARY KEY (relation, source, position)
);

CREATE INDEX table_versions_by_root ON bemi.table_versions (root);
GRANT SELECT ON bemi.table_versions TO PUBLIC;

-- The names of tables and columns, including dropped ones, are for roles that may read the tables. A role that may
-- read all changes sees the names there, and needs all versions: without them, changes of a dropped table might count
-- for a later table of its name. pg_dump by other roles cannot read a table with policies: what it saves is in
-- bemi.recorded_versions.
ALTER TABLE bemi.table_versions ENABLE ROW LEVEL SECURITY;
CREATE POLICY readers ON bemi.table_versions FOR SELECT USING (
  (SELECT COALESCE(pg_catalog.has_table_privilege(
    pg_catalog.to_regclass('bemi.changes'::pg_catalog.text)::pg_catalog.oid, 'SELECT'::pg_catalog.text), false))
  OR pg_catalog.has_table_privilege(relation, 'SELECT'::pg_catalog.text)
  OR pg_catalog.has_table_privilege(root, 'SELECT'::pg_catalog.text));

COMMENT ON TABLE bemi.table_versions IS
'the names, columns, keys and rules of tracked tables, with the position in WAL and the time from which they hold';

-- In PL/pgSQL, which keeps plans: it runs after each statement that changes a table. Triggers are looked up table by
-- table, however many the planner expects.
CREATE FUNCTION bemi.present_versions(relations oid[]) RETURNS SETOF bemi.table_versions
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
  RETURN QUERY
    SELECT
      r.oid, 0, r.oid, pg_current_wal_insert_lsn(), clock_timestamp(),
      -- While a table is unlogged, WAL does not contain its changes.
      (c.relpersistence = 'p' OR c.relkind = 'p') AND EXISTS (
        SELECT
        FROM unnest(a.above) o,
          LATERAL (SELECT FROM bemi.context_triggers t WHERE t.relation = o OFFSET 0) t),
      COALESCE(pg_relation_size(c.oid) = 0, true),
      c.relreplident = 'f' OR c.relkind = 'p',
      n.nspname,
      c.relname,
      COALESCE(pg_partition_root(c.oid)::oid, c.oid),
      (
        SELECT (i.indkey::int2[])[0:i.indnkeyatts - 1]
        FROM pg_index i
        WHERE i.indrelid = c.oid
          AND (i.indisprimary AND i.indisvalid OR i.indisreplident AND c.relreplident = 'i')
        ORDER BY i.indisprimary DESC
        LIMIT 1
      ),
      (
        SELECT jsonb_object_agg(attnum, attname)
        FROM pg_attribute
        WHERE attrelid = c.oid
          AND attnum > 0
          AND NOT attisdropped
      ),
      CASE WHEN c.oid IS NOT NULL THEN bemi.types_of(c.oid) END,
      ARRAY(
        SELECT DISTINCT i
        FROM bemi.context_triggers t,
          unnest(bemi.rules(t.arguments, 'ignore')) i
        WHERE t.relation = c.oid
          AND t.name = 'bemi_context'
        ORDER BY i),
      ARRAY(
        SELECT DISTINCT m
        FROM unnest(a.above) o,
          LATERAL (SELECT t.arguments FROM bemi.context_triggers t WHERE t.relation = o OFFSET 0) t,
          unnest(bemi.rules(t.arguments, 'mask')) m
        ORDER BY m),
      NULL::jsonb, false, NULL::name, false
    FROM unnest(relations) AS r (oid)
      LEFT JOIN pg_class c ON c.oid = r.oid AND c.relkind IN ('r', 'p')
      LEFT JOIN pg_namespace n ON n.oid = c.relnamespace,
      LATERAL (
        SELECT CASE WHEN c.relispartition THEN ARRAY(SELECT relid::oid FROM pg_partition_ancestors(c.oid))
          ELSE ARRAY[c.oid] END
      ) AS a (above);
END
$$;

COMMENT ON FUNCTION bemi.present_versions(oid[]) IS
'returns what tables are like now, as versions of them';

CREATE FUNCTION bemi.new_versions(relations oid[], rewritten oid[] DEFAULT '{}') RETURNS SETOF bemi.table_versions
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
BEGIN
  RETURN QUERY
    SELECT p.*
    FROM bemi.present_versions(relations) p
      LEFT JOIN LATERAL (
        SELECT *
        FROM bemi.table_versions v
        WHERE v.relation = p.relation
        ORDER BY v.source DESC, v.position DESC
        LIMIT 1
      ) l ON true
    -- Of a partition that is no longer tracked, that it was detached.
    WHERE (p.is_tracked OR l.is_tracked OR l.root <> l.relation AND p.root IS DISTINCT FROM l.root)
      AND (p.relation = ANY (rewritten)
        OR (p.is_tracked, p.has_images, p.schema, p."table", p.root, p.key_columns, p.columns, p.types,
            p.ignored, p.masked)
          IS DISTINCT FROM (l.is_tracked, l.has_images, l.schema, l."table", l.root, l.key_columns, l.columns, l.types,
            l.ignored, l.masked));
END
$$;

COMMENT ON FUNCTION bemi.new_versions(oid[], oid[]) IS
'returns what tables are like now that differ from their last version, or were rewritten';

CREATE FUNCTION bemi.latest_versions(relations oid[], rewritten oid[]) RETURNS jsonb
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'bemi_latest_versions';

COMMENT ON FUNCTION bemi.latest_versions(oid[], oid[]) IS
'calls bemi.read_new_versions() with a snapshot that sees everything committed';

CREATE FUNCTION bemi.read_new_versions(relations oid[], rewritten oid[]) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
SET datestyle = 'ISO, YMD' SET plan_cache_mode = force_generic_plan AS $$
BEGIN
  -- Not by to_jsonb(), which keeps pointers to the names of a row type that another session's DDL, or its VACUUM, may
  -- have freed.
  RETURN (
    SELECT COALESCE(json_agg(to_json(v))::jsonb, '[]'::jsonb)
    FROM bemi.new_versions(relations, rewritten) v);
END
$$;

COMMENT ON FUNCTION bemi.read_new_versions(oid[], oid[]) IS
'returns bemi.new_versions() as JSON';

-- With is_late, for what was changed while the event triggers were disabled. `rewrites` has those of tables by their
-- OIDs.
CREATE FUNCTION bemi.note_versions(relations oid[], is_late boolean DEFAULT true, rewrites jsonb DEFAULT '{}')
RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  noted jsonb;
  source int;
BEGIN
  -- Before the lock, because a source that begins adopts what is noted. The first one may begin while this waits.
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
  INSERT INTO bemi.table_versions (
    relation, source, recorded, position, noted_at, is_tracked, is_empty, has_images, schema, "table", root,
    key_columns, columns, types, ignored, masked, rewrites, is_late, noted_by)
  SELECT
    v.relation, source, v.relation, v.position, v.noted_at, v.is_tracked, v.is_empty, v.has_images, v.schema, v."table",
    v.root, v.key_columns, v.columns, v.types, v.ignored, v.masked, note_versions.rewrites -> v.relation::text,
    note_versions.is_late,
    -- Callers run with the rights of the extension's owner.
    CASE WHEN current_setting('role'::text) = 'none'::text THEN session_user
      ELSE current_setting('role'::text)::name END
  FROM jsonb_to_recordset(noted) AS v (
    relation oid, position pg_lsn, noted_at timestamptz, is_tracked boolean, is_empty boolean, has_images boolean,
    schema name, "table" name, root oid, key_columns smallint[], columns jsonb, types jsonb, ignored text[],
    masked text[]);
  IF source > 0 THEN
    PERFORM bemi.keep_versions(relations);
  END IF;
END
$$;

REVOKE EXECUTE ON FUNCTION bemi.note_versions(oid[], boolean, jsonb) FROM PUBLIC;

COMMENT ON FUNCTION bemi.note_versions(oid[], boolean, jsonb) IS
'notes what tracked tables are like now, if that is not noted; their past is known from then on';

CREATE FUNCTION bemi.note_table(relation oid, rewrites jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM bemi.note_versions(ARRAY[note_table.relation], is_late => false, rewrites => COALESCE((
    SELECT jsonb_build_object(r.key, r.value)
    FROM jsonb_each(note_table.rewrites) r
    WHERE r.key::oid = note_table.relation), '{}'::jsonb));
EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
  RAISE;
WHEN OTHERS THEN
  RAISE WARNING 'bemi could not note what this statement changed of the table with OID %: %',
      note_table.relation, SQLERRM
    USING HINT = 'The past of this table cannot be read.';
END
$$;

COMMENT ON FUNCTION bemi.note_table(oid, jsonb) IS
'notes what a table is like now, or warns that it cannot';
