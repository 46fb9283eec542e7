-- The table bemi.changes and the state of the recorder: their form, and who owns them. bemi.start() creates them;
-- they belong to no extension, so that recorded changes outlive this one.

-- As the library derives it from a document; see src/recorder/row.rs.
CREATE FUNCTION bemi.change_id(committed_at timestamptz, commit_position pg_lsn, sequence int, source int DEFAULT 1)
RETURNS uuid
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'bemi_change_id';

COMMENT ON FUNCTION bemi.change_id(timestamptz, pg_lsn, int, int) IS
'returns the id of a change, which is derived from what identifies it';

-- For comparing changes with versions of tables: by their sources first. Positions of the first source are themselves.
CREATE FUNCTION bemi.place(source int, "position" bigint) RETURNS bigint
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'bemi_place';

COMMENT ON FUNCTION bemi.place(int, bigint) IS
'returns a position in WAL of a source as a number with the order of changes';

CREATE FUNCTION bemi.place(source int, "position" pg_lsn) RETURNS bigint
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'bemi_place';

COMMENT ON FUNCTION bemi.place(int, pg_lsn) IS
'returns a position in WAL of a source as a number with the order of changes';

CREATE FUNCTION bemi.place_source(place bigint) RETURNS int
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'bemi_place_source';

COMMENT ON FUNCTION bemi.place_source(bigint) IS
'returns the source of a place';

CREATE FUNCTION bemi.place_position(place bigint) RETURNS bigint
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'bemi_place_position';

COMMENT ON FUNCTION bemi.place_position(bigint) IS
'returns the position of a place in WAL of its source';

-- What is attached to these tables (triggers, checks, expressions of indexes) runs with the rights of the writer. The
-- recorder calls this before each write, and bemi.require_safe() before the first one, each second, after each
-- refused write, and when the result has changed: then somebody may have owned a table in between.
CREATE FUNCTION bemi.require_owner() RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  tables oid[];
  wrong record;
BEGIN
  PERFORM bemi.require_readable();
  -- With all partitions: nobody adds anything from here on.
  LOCK TABLE bemi.changes IN ROW EXCLUSIVE MODE;
  IF to_regclass('bemi.recorder') IS NOT NULL THEN
    LOCK TABLE bemi.recorder IN ROW EXCLUSIVE MODE;
  END IF;
  tables := bemi.own_tables();
  FOR wrong IN SELECT t.detail, t.fix FROM bemi.unsafe_tables(tables) t LOOP
    RAISE EXCEPTION '%', wrong.detail USING ERRCODE = 'insufficient_privilege', HINT = wrong.fix;
  END LOOP;
  -- A new owner, or new rights of others, are new rows of the catalogs.
  RETURN (
    SELECT string_agg(concat_ws(' ', c.oid, c.xmin, c.ctid, a.xmin, a.ctid), ', ' ORDER BY c.oid)
    FROM unnest(tables) t (oid)
      JOIN pg_class c ON c.oid = t.oid
      JOIN pg_authid a ON a.oid = c.relowner);
END
$$;

COMMENT ON FUNCTION bemi.require_owner() IS
'raises an error if a role that is not a superuser can write tables of bemi; its result changes with the owners';

CREATE FUNCTION bemi.make_changes() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
SET session_replication_role = replica SET default_tablespace = '' AS $$
BEGIN
  IF to_regclass('bemi.changes') IS NULL THEN
    CREATE TABLE bemi.changes (
      id uuid NOT NULL,
      database text NOT NULL,
      schema text NOT NULL,
      "table" text NOT NULL,
      operation text NOT NULL,
      primary_key text,
      before jsonb NOT NULL,
      after jsonb NOT NULL,
      context jsonb NOT NULL,
      committed_at timestamptz NOT NULL,
      queued_at timestamptz NOT NULL,
      created_at timestamptz NOT NULL,
      transaction_id bigint NOT NULL,
      position bigint NOT NULL,
      commit_position pg_lsn NOT NULL,
      sequence int NOT NULL,
      omitted jsonb,
      old_primary_key text,
      -- The OID of the table at the time of the change.
      relation oid,
      -- Whose WAL it is from: see bemi.sources. What people insert themselves belongs to the first one.
      source int NOT NULL DEFAULT 1,
      PRIMARY KEY (id, committed_at)
    ) PARTITION BY RANGE (committed_at);
    -- What happened to a row, what happened at a time, what somebody did.
    CREATE INDEX changes_of_row ON bemi.changes (schema, "table", primary_key, committed_at);
    CREATE INDEX changes_by_time ON bemi.changes (committed_at);
    CREATE INDEX changes_by_context ON bemi.changes USING gin (context jsonb_path_ops);
    -- The key of a row before it was changed.
    CREATE INDEX changes_of_old_key ON bemi.changes (schema, "table", old_primary_key, committed_at)
      WHERE old_primary_key IS NOT NULL;
    -- The order of changes, for reading on from a position. The id, which is derived from it, makes each change unique.
    CREATE INDEX changes_by_position ON bemi.changes (source, commit_position, sequence);
    CREATE TABLE bemi.changes_default PARTITION OF bemi.changes DEFAULT;
    PERFORM bemi.own_alone('bemi.changes'::regclass), bemi.own_alone('bemi.changes_default'::regclass);
    COMMENT ON TABLE bemi.changes IS 'the changes that the recorder of bemi has recorded, each once';
  END IF;
  PERFORM bemi.make_recorder();
  PERFORM bemi.make_sources();
  PERFORM bemi.keep_table(t) FROM bemi.kept_tables() t;
  -- It stays locked: before that, somebody might have added something.
  PERFORM bemi.require_safe_tables(ARRAY['bemi.recorder'::regclass::oid]);
  INSERT INTO bemi.recorder (is_wanted, state, state_since)
  VALUES (false, 'stopped', now())
  ON CONFLICT DO NOTHING;
END
$$;

COMMENT ON FUNCTION bemi.make_changes() IS
'creates the tables bemi.changes, bemi.recorder, bemi.sources and bemi.recorded_versions, if they do not exist';

CREATE FUNCTION bemi.make_recorder() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
SET session_replication_role = replica SET default_tablespace = '' AS $$
BEGIN
  IF to_regclass('bemi.recorder') IS NULL THEN
    CREATE TABLE bemi.recorder (
      is_one boolean PRIMARY KEY DEFAULT true CHECK (is_one),
      slot name,
      is_wanted boolean NOT NULL,
      state text NOT NULL,
      state_since timestamptz NOT NULL,
      last_error text,
      last_error_at timestamptz,
      -- The statements that fix it, if they are known.
      last_fix text,
      -- How often it failed since it last succeeded.
      failures int NOT NULL DEFAULT 0,
      -- The last change that was recorded from this slot.
      commit_position pg_lsn NOT NULL DEFAULT '0/0',
      sequence int NOT NULL DEFAULT 0,
      committed_at timestamptz,
      -- Everything before it is recorded, and the slot is confirmed up to it at most.
      read_position pg_lsn,
      transactions bigint NOT NULL DEFAULT 0,
      changes bigint NOT NULL DEFAULT 0,
      spilled_bytes bigint NOT NULL DEFAULT 0,
      -- A gap that is to be recorded.
      gap_reason text CHECK (gap_reason IN ('slot lost', 'stopped', 'replaced')),
      gap_source int,
      gap_from pg_lsn,
      gap_to pg_lsn,
      gap_at timestamptz,
      gap_transaction bigint,
      gap_accepted_by name,
      -- What was committed after it is recorded, except for gaps.
      since timestamptz,
      -- The source of these positions. It is the last one, unless a dump was restored.
      source int
    );
    PERFORM bemi.own_alone('bemi.recorder'::regclass);
    COMMENT ON TABLE bemi.recorder IS 'the progress of the recorder of bemi; see bemi.status';
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.make_recorder() IS
'creates the table bemi.recorder, if it does not exist';

CREATE FUNCTION bemi.make_sources() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET session_replication_role = replica AS $$
BEGIN
  IF to_regclass('bemi.sources') IS NULL THEN
    CREATE TABLE bemi.sources (
      source int PRIMARY KEY,
      -- For people, who may change it.
      name text NOT NULL,
      system_identifier bigint NOT NULL,
      database text NOT NULL,
      first_position pg_lsn NOT NULL,
      since timestamptz NOT NULL,
      until timestamptz,
      -- The database, and bemi.changes, bemi.recorder, this table and bemi.recorded_versions: tables that were
      -- restored from a dump have other OIDs.
      database_oid oid NOT NULL,
      tables oid[] NOT NULL
    );
    PERFORM bemi.own_alone('bemi.sources'::regclass);
    GRANT SELECT ON bemi.sources TO PUBLIC;
    COMMENT ON TABLE bemi.sources IS
      'the servers and databases of the changes in bemi.changes, by their column source';
  END IF;
  IF to_regclass('bemi.recorded_versions') IS NULL THEN
    CREATE TABLE bemi.recorded_versions (LIKE bemi.table_versions, PRIMARY KEY (relation, source, position));
    PERFORM bemi.own_alone('bemi.recorded_versions'::regclass);
    COMMENT ON TABLE bemi.recorded_versions IS
      'a copy of bemi.table_versions of recorded times, for dumps; it outlives the extension';
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.make_sources() IS
'creates the tables bemi.sources and bemi.recorded_versions, if they do not exist';

REVOKE EXECUTE ON FUNCTION bemi.make_changes(), bemi.make_sources() FROM PUBLIC;

-- The view calls no function of the extension, so that it works without it. Everyone may read it, and sees in it what
-- they may read of bemi.changes.
CREATE FUNCTION bemi.make_changes_diff() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET session_replication_role = replica AS $$
DECLARE
  -- PostgreSQL 14 reads the tables of a view with the rights of its owner.
  is_invoker boolean := current_setting('server_version_num')::int >= 150000;
BEGIN
  IF to_regclass('bemi.changes_diff') IS NULL THEN
    EXECUTE format($query$
      CREATE VIEW bemi.changes_diff %s AS
      SELECT c.id, c.schema, c."table", c.operation, c.primary_key, (
          SELECT COALESCE(jsonb_object_agg(key, jsonb_build_array(b.value, a.value)), '{}')
          FROM jsonb_each(c.before) b FULL JOIN jsonb_each(c.after) a USING (key)
          WHERE COALESCE(b.value, 'null') <> COALESCE(a.value, 'null')
        ) AS diff, c.context, c.committed_at, c.transaction_id, c.commit_position, c.sequence, c.source
      FROM bemi.changes c %s$query$,
      CASE WHEN is_invoker THEN 'WITH (security_invoker = true)' ELSE '' END,
      CASE WHEN is_invoker THEN ''
        ELSE 'WHERE has_table_privilege(''bemi.changes''::regclass, ''SELECT'') '
          'AND NOT row_security_active(''bemi.changes''::regclass)' END);
    PERFORM bemi.own_alone('bemi.changes_diff'::regclass);
    GRANT SELECT ON bemi.changes_diff TO PUBLIC;
    COMMENT ON VIEW bemi.changes_diff IS
      'the changes that the recorder of bemi has recorded, with what each changed: {"column": [before, after]}';
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.make_changes_diff() IS
'creates the view bemi.changes_diff, if it does not exist';
