-- The table bemi.changes: its form, its partitions, and whose it is.

-- As the library makes it of a document; see src/recorder/row.rs.
CREATE FUNCTION bemi.change_id(committed_at timestamptz, commit_position pg_lsn, sequence int, source int DEFAULT 1) RETURNS uuid
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'bemi_change_id';

COMMENT ON FUNCTION bemi.change_id(timestamptz, pg_lsn, int, int) IS
'the id of a change, which follows from what identifies it';

-- For comparisons of changes with versions of tables: by their sources first. Positions of the first source are themselves.
CREATE FUNCTION bemi.place(source int, "position" bigint) RETURNS bigint
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'bemi_place';

COMMENT ON FUNCTION bemi.place(int, bigint) IS
'a position of the log of a source, as a number that is ordered as changes are';

CREATE FUNCTION bemi.place(source int, "position" pg_lsn) RETURNS bigint
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'bemi_place';

COMMENT ON FUNCTION bemi.place(int, pg_lsn) IS
'a position of the log of a source, as a number that is ordered as changes are';

CREATE FUNCTION bemi.place_source(place bigint) RETURNS int
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'bemi_place_source';

COMMENT ON FUNCTION bemi.place_source(bigint) IS
'the source of a place';

CREATE FUNCTION bemi.place_position(place bigint) RETURNS bigint
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'bemi_place_position';

COMMENT ON FUNCTION bemi.place_position(bigint) IS
'the position of a place in the log of its source';

-- What hangs on these tables (triggers, checks, expressions of indexes) runs with the rights of those who write. The recorder
-- asks this before each write, and bemi.require_safe() at the first one, each second, after each that was refused, and when the
-- answer is another one than before: then somebody may have owned a table in between.
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
  RETURN (SELECT string_agg(concat_ws(' ', c.oid, c.xmin, c.ctid, a.xmin, a.ctid), ', ' ORDER BY c.oid) FROM unnest(tables) t (oid)
    JOIN pg_class c ON c.oid = t.oid JOIN pg_authid a ON a.oid = c.relowner);
END
$$;

COMMENT ON FUNCTION bemi.require_owner() IS
'raises an error if a table of bemi belongs to a role that is no superuser, or such a role can write it or has a trigger on it; gives text that is another one when owners or rights have changed in between';

-- What may be read of the whole may be read of a part, as pg_dump does. A part whose whole has policies has none, and shows
-- nothing by itself.
CREATE FUNCTION bemi.grant_as_changes(relation regclass) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  granted record;
BEGIN
  PERFORM bemi.own_alone(relation);
  IF (SELECT c.relrowsecurity FROM pg_class c WHERE c.oid = 'bemi.changes'::regclass) THEN
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', relation);
  END IF;
  FOR granted IN
    SELECT a."column", CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS grantee, bool_or(a.is_grantable) AS is_grantable
    FROM pg_class c, LATERAL (
      SELECT NULL::name AS "column", e.* FROM aclexplode(c.relacl) e
      UNION ALL SELECT t.attname, e.* FROM pg_attribute t, aclexplode(t.attacl) e WHERE t.attrelid = c.oid AND t.attacl IS NOT NULL
    ) a WHERE c.oid = 'bemi.changes'::regclass AND a.privilege_type = 'SELECT' AND a.grantee <> c.relowner GROUP BY 1, 2
  LOOP
    EXECUTE format('GRANT SELECT%s ON %s TO %s%s', COALESCE(' (' || quote_ident(granted."column") || ')', ''), relation, granted.grantee,
      CASE WHEN granted.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END);
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.grant_as_changes(regclass) IS
'lets those read a partition of bemi.changes who may read that, and nobody write it';

-- Makes a table of its own for a month, and moves to it what the default partition holds of that month. Here, and where the other
-- tables are made, session_replication_role keeps event triggers of others, which may fail, from firing.
CREATE FUNCTION bemi.add_partition(month timestamptz) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET session_replication_role = replica SET timezone = 'UTC' AS $$
DECLARE
  first timestamptz := date_trunc('month', month);
  next timestamptz := first + interval '1 month';
  name text := format('changes_%s', to_char(first, 'YYYY_MM'));
  owner name;
  is_moved boolean := false;
BEGIN
  PERFORM bemi.require_owner(), bemi.require_safe();
  IF EXISTS (SELECT FROM pg_inherits WHERE inhparent = 'bemi.changes'::regclass AND inhrelid = to_regclass(format('bemi.%I', name))) THEN
    RETURN;
  ELSIF to_regclass(format('bemi.%I', name)) IS NOT NULL THEN
    RAISE EXCEPTION 'the table bemi.% is no partition of bemi.changes', name USING
      ERRCODE = 'duplicate_table', HINT = 'Attach it again, or give it another name.';
  END IF;
  IF first IS NULL OR NOT isfinite(first) OR first NOT BETWEEN '1000-01-01' AND '9999-12-31' THEN
    RAISE EXCEPTION 'the month of % has no partition of its own', month USING
      ERRCODE = 'invalid_parameter_value', DETAIL = 'Changes before the year 1000 and after 9999 stay in bemi.changes_default.';
  END IF;
  SELECT rolname INTO owner FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner WHERE c.oid = 'bemi.changes'::regclass;
  IF to_regclass('bemi.changes_default') IS NOT NULL THEN
    EXECUTE 'SELECT EXISTS (SELECT FROM bemi.changes_default c WHERE c.committed_at >= $1 AND c.committed_at < $2)' INTO is_moved USING first, next;
  END IF;
  IF is_moved THEN
    LOCK TABLE bemi.changes IN SHARE ROW EXCLUSIVE MODE;
    EXECUTE format('CREATE TABLE bemi.%I (LIKE bemi.changes INCLUDING ALL)', name);
    EXECUTE format('WITH moved AS (DELETE FROM bemi.changes_default WHERE committed_at >= $1 AND committed_at < $2 RETURNING *)
      INSERT INTO bemi.%I SELECT * FROM moved', name) USING first, next;
    EXECUTE format('ALTER TABLE bemi.changes ATTACH PARTITION bemi.%I FOR VALUES FROM (%L) TO (%L)', name, first, next);
  ELSE
    EXECUTE format('CREATE TABLE bemi.%I PARTITION OF bemi.changes FOR VALUES FROM (%L) TO (%L)', name, first, next);
  END IF;
  EXECUTE format('ALTER TABLE bemi.%I OWNER TO %I', name, owner);
  PERFORM bemi.grant_as_changes(to_regclass(format('bemi.%I', name))), bemi.keep_table(to_regclass(format('bemi.%I', name)));
END
$$;

COMMENT ON FUNCTION bemi.add_partition(timestamptz) IS
'makes the partition of bemi.changes for the month of a time, if it is not there, with what the default partition holds of it';

-- The recorder calls it once a minute.
CREATE FUNCTION bemi.keep_partitions(retention interval) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET lock_timeout = '1s' SET bemi.allow_drop = on AS $$
DECLARE
  month timestamptz;
  partition regclass;
BEGIN
  FOREACH month IN ARRAY ARRAY[now(), now() + interval '1 month'] LOOP
    -- What the default partition holds already would have to be moved: people choose when.
    IF to_regclass(format('bemi.%I', to_char(month, '"changes_"YYYY_MM'))) IS NULL
      AND NOT bemi.has_strays(date_trunc('month', month), date_trunc('month', month) + interval '1 month')
    THEN
      PERFORM bemi.add_partition(month);
    END IF;
  END LOOP;
  -- Policies on the whole are for its parts too, which may have been granted with it.
  FOR partition IN
    SELECT t.relid FROM pg_partition_tree('bemi.changes'::regclass) t JOIN pg_class c ON c.oid = t.relid
    WHERE NOT c.relrowsecurity AND c.relkind IN ('r', 'p') AND (SELECT p.relrowsecurity FROM pg_class p WHERE p.oid = 'bemi.changes'::regclass)
  LOOP
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', partition);
  END LOOP;
  FOR partition IN
    SELECT i.inhrelid FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'bemi.changes'::regclass
      -- Its upper bound; the default partition has none.
      AND substring(pg_get_expr(c.relpartbound, c.oid) FROM ' TO [(]''([^'']+)''[)]')::timestamptz <= now() - retention
  LOOP
    BEGIN
      EXECUTE format('DROP TABLE %s', partition);
      RAISE LOG 'the recorder of bemi dropped a partition that is older than bemi.retention allows';
    EXCEPTION WHEN OTHERS THEN
      -- Somebody reads it, or something depends on it: it is tried again in a minute.
      RAISE LOG 'the recorder of bemi could not drop a partition that is older than bemi.retention allows: %', SQLERRM;
    END;
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.keep_partitions(interval) IS
'makes the partitions of this month and the next one, and drops those that are older than the retention; NULL keeps all';

CREATE FUNCTION bemi.has_strays(since timestamptz DEFAULT '-infinity', until timestamptz DEFAULT 'infinity') RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms' AS $$
DECLARE
  result boolean := false;
BEGIN
  IF to_regclass('bemi.changes_default') IS NOT NULL THEN
    EXECUTE 'SELECT EXISTS (SELECT FROM bemi.changes_default WHERE committed_at >= $1 AND committed_at < $2)' INTO result USING since, until;
  END IF;
  RETURN result;
EXCEPTION WHEN lock_not_available THEN
  -- Who asks how the recorder is does not wait for others.
  RETURN false;
END
$$;

COMMENT ON FUNCTION bemi.has_strays(timestamptz, timestamptz) IS
'whether the default partition of bemi.changes holds changes';

CREATE FUNCTION bemi.make_changes() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET session_replication_role = replica SET default_tablespace = '' AS $$
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
      -- The OID of the table when it was changed.
      relation oid,
      -- Whose log it is of: see bemi.sources. What people insert themselves is of the first one.
      source int NOT NULL DEFAULT 1,
      PRIMARY KEY (id, committed_at)
    ) PARTITION BY RANGE (committed_at);
    -- What happened to a row, what happened at a time, what somebody did.
    CREATE INDEX changes_of_row ON bemi.changes (schema, "table", primary_key, committed_at);
    CREATE INDEX changes_by_time ON bemi.changes (committed_at);
    CREATE INDEX changes_by_context ON bemi.changes USING gin (context jsonb_path_ops);
    -- What a row was called before.
    CREATE INDEX changes_of_old_key ON bemi.changes (schema, "table", old_primary_key, committed_at) WHERE old_primary_key IS NOT NULL;
    -- The order of the changes, for those who read on from a position. That each is there once is for the id, which follows from it.
    CREATE INDEX changes_by_position ON bemi.changes (source, commit_position, sequence);
    CREATE TABLE bemi.changes_default PARTITION OF bemi.changes DEFAULT;
    PERFORM bemi.own_alone('bemi.changes'::regclass), bemi.own_alone('bemi.changes_default'::regclass);
    COMMENT ON TABLE bemi.changes IS 'the changes that the recorder of bemi has recorded, each once';
  END IF;
  IF to_regclass('bemi.recorder') IS NULL THEN
    CREATE TABLE bemi.recorder (
      is_one boolean PRIMARY KEY DEFAULT true CHECK (is_one),
      slot name,
      is_wanted boolean NOT NULL,
      state text NOT NULL,
      state_since timestamptz NOT NULL,
      last_error text,
      last_error_at timestamptz,
      -- The statements that help, if they are known.
      last_fix text,
      -- How often it failed since it last succeeded.
      failures int NOT NULL DEFAULT 0,
      -- The last change that is recorded by this slot.
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
      -- What was committed after it is recorded, but for gaps.
      since timestamptz,
      -- The source whose positions these are. It is the last one, but where a dump was restored.
      source int
    );
    PERFORM bemi.own_alone('bemi.recorder'::regclass);
    COMMENT ON TABLE bemi.recorder IS 'how far the recorder of bemi is; see bemi.status';
  END IF;
  PERFORM bemi.make_sources();
  PERFORM bemi.keep_table(t) FROM bemi.kept_tables() t;
  -- It stays locked: before, somebody might have added something.
  PERFORM bemi.require_safe_tables(ARRAY['bemi.recorder'::regclass::oid]);
  INSERT INTO bemi.recorder (is_wanted, state, state_since) VALUES (false, 'stopped', now()) ON CONFLICT DO NOTHING;
END
$$;

COMMENT ON FUNCTION bemi.make_changes() IS
'makes the tables bemi.changes and bemi.sources and the state of the recorder, if they are not there';

CREATE FUNCTION bemi.make_sources() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET session_replication_role = replica AS $$
BEGIN
  IF to_regclass('bemi.sources') IS NULL THEN
    CREATE TABLE bemi.sources (
      source int PRIMARY KEY,
      -- For people, who may give it another one.
      name text NOT NULL,
      system_identifier bigint NOT NULL,
      database text NOT NULL,
      first_position pg_lsn NOT NULL,
      since timestamptz NOT NULL,
      until timestamptz,
      -- The database, and bemi.changes, bemi.recorder, this table and bemi.recorded_versions: those that were restored from a dump are others.
      database_oid oid NOT NULL,
      tables oid[] NOT NULL
    );
    PERFORM bemi.own_alone('bemi.sources'::regclass);
    GRANT SELECT ON bemi.sources TO PUBLIC;
    COMMENT ON TABLE bemi.sources IS 'which server and database the changes in bemi.changes are of, by their column source';
  END IF;
  IF to_regclass('bemi.recorded_versions') IS NULL THEN
    CREATE TABLE bemi.recorded_versions (LIKE bemi.table_versions, PRIMARY KEY (relation, source, position));
    PERFORM bemi.own_alone('bemi.recorded_versions'::regclass);
    COMMENT ON TABLE bemi.recorded_versions IS 'what bemi.table_versions has of times that are recorded, for dumps; it outlives the extension';
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.make_sources() IS
'makes the tables bemi.sources and bemi.recorded_versions, if they are not there';

REVOKE EXECUTE ON FUNCTION bemi.make_changes(), bemi.make_sources() FROM PUBLIC;

-- Made with bemi.changes. It calls no function of the extension, without which it is of use too. Everyone may read it, and
-- sees there what he may read of bemi.changes.
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
        ELSE $query$WHERE has_table_privilege('bemi.changes'::regclass, 'SELECT') AND NOT row_security_active('bemi.changes'::regclass)$query$ END);
    PERFORM bemi.own_alone('bemi.changes_diff'::regclass);
    GRANT SELECT ON bemi.changes_diff TO PUBLIC;
    COMMENT ON VIEW bemi.changes_diff IS 'the changes that the recorder of bemi has recorded, with what each changed: {"column": [before, after]}';
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.make_changes_diff() IS
'makes the view bemi.changes_diff, if it is not there';
