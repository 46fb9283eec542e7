-- What keeps the rows of a table at a time from being known.

-- `until` is when the version ended. Leaves out versions that ended before the time, and those of a partition before it
-- was attached empty.
CREATE FUNCTION bemi.versions_since(base regclass, moment timestamptz, leaves oid[], top oid) RETURNS TABLE (
  relation oid,
  place bigint,
  noted_at timestamptz,
  until timestamptz,
  root oid,
  came bigint,
  has_no_past boolean,
  is_tracked boolean,
  has_images boolean,
  is_late boolean,
  key_columns smallint[]
)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
    WITH versions AS MATERIALIZED (
      SELECT
        v.*,
        bemi.place(v.source, v.position) AS place,
        lead(v.noted_at, 1, 'infinity') OVER w AS until,
        -- A partition that was empty when it was attached has no rows of an earlier time.
        lag(v.root) OVER w IS DISTINCT FROM v.root
          AND v.root = top
          AND v.is_empty
          AND v.relation <> base AS has_no_past
      FROM bemi.table_versions v
      WHERE v.relation = ANY (leaves || base::oid)
      WINDOW w AS (PARTITION BY v.relation ORDER BY v.source, v.position)
    ), known AS MATERIALIZED (
      SELECT v.*, max(v.place) FILTER (WHERE v.has_no_past) OVER (PARTITION BY v.relation) AS came
      FROM versions v
    )
    SELECT k.relation, k.place, k.noted_at, k.until, k.root, k.came, k.has_no_past, k.is_tracked, k.has_images,
      k.is_late, k.key_columns
    FROM known k
    WHERE k.until > moment
      AND (k.came IS NULL OR k.place >= k.came OR k.root = top AND k.noted_at <= moment);
END
$$;

COMMENT ON FUNCTION bemi.versions_since(regclass, timestamptz, oid[], oid) IS
'returns the versions of a table and its partitions that count for its rows at a time';

CREATE FUNCTION bemi.unknown_past(base regclass, moment timestamptz) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  leaves oid[] := bemi.leaves(base);
  top oid := COALESCE(pg_partition_root(base)::oid, base);
  result text;
BEGIN
  WITH members AS MATERIALIZED (
    SELECT c.oid, c.relkind FROM pg_class c WHERE c.oid = ANY (leaves || base::oid)
  ), since AS MATERIALIZED (
    SELECT v.*, v.relation::regclass AS name FROM bemi.versions_since(base, moment, leaves, top) v
  )
  SELECT p.problem INTO result FROM (
    SELECT 1, format('%s is a foreign table', m.oid::regclass)
    FROM members m WHERE m.relkind = 'f'
    UNION ALL
    SELECT 2, format('%s is not tracked', m.oid::regclass)
    FROM members m WHERE NOT EXISTS (SELECT FROM bemi.table_versions v WHERE v.relation = m.oid)
    UNION ALL
    SELECT 3, format('%s is tracked since %s', v.name, min(v.noted_at))
    FROM since v GROUP BY v.name HAVING min(v.noted_at) > moment AND NOT bool_or(v.has_no_past)
    UNION ALL
    SELECT 4, format('%s was not tracked from %s on', v.name, v.noted_at)
    FROM since v WHERE NOT v.is_tracked
    UNION ALL
    SELECT 5, format('%s had no REPLICA IDENTITY FULL from %s on, so WAL does not contain whole rows',
      v.name, v.noted_at)
    FROM since v WHERE NOT v.has_images
    UNION ALL
    SELECT 6, format('%s was attached or detached at %s', v.name, v.until)
    -- A table keeps its own rows when it is attached or detached.
    FROM since v WHERE (v.root <> top OR v.place < v.came) AND v.relation <> base
    UNION ALL
    SELECT 7, format('%s had another key until %s', v.name, v.until)
    FROM since v JOIN since l ON l.relation = v.relation AND l.until = 'infinity'
    WHERE v.key_columns IS DISTINCT FROM l.key_columns AND v.relation = ANY (leaves)
    UNION ALL
    SELECT 7, format('the key of %s is deferrable, so two rows may have had the same key', i.indrelid::regclass)
    FROM pg_index i WHERE i.indrelid = ANY (leaves) AND i.indisprimary AND NOT i.indimmediate
    UNION ALL
    SELECT 8, u FROM bemi.unknown_former(base, moment) u
    UNION ALL
    SELECT 9, format('%s was changed before %s while an event trigger of bemi was disabled', v.name, v.noted_at)
    FROM since v WHERE v.is_late AND v.noted_at > moment
  ) AS p (place, problem) ORDER BY p.place LIMIT 1;
  IF result IS NULL THEN
    SELECT format('%s was changed while an event trigger of bemi is disabled', v.relation::regclass)
    INTO result FROM bemi.new_versions(leaves || base::oid) v LIMIT 1;
  END IF;
  RETURN result;
END
$$;

COMMENT ON FUNCTION bemi.unknown_past(regclass, timestamptz) IS
'returns what keeps the rows that a table had at a time from being known, or NULL';

CREATE FUNCTION bemi.require_unchanged(base regclass, command int) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
BEGIN
  IF command > 0 AND pg_current_xact_id_if_assigned() IS NOT NULL AND EXISTS (
    SELECT FROM pg_locks l
    WHERE l.pid = pg_backend_pid()
      AND l.locktype = 'relation'
      AND l.relation = ANY (bemi.leaves(base))
      AND (
        l.mode IN ('ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
        -- The running statement may be the first that writes the table.
        OR l.mode = 'RowExclusiveLock' AND (
          current_setting('track_counts') = 'off'
          OR pg_stat_get_xact_tuples_inserted(l.relation)
            + pg_stat_get_xact_tuples_updated(l.relation)
            + pg_stat_get_xact_tuples_deleted(l.relation) > 0
        )
      )
  ) THEN
    RAISE EXCEPTION 'this transaction has changed % itself', base USING
      ERRCODE = 'object_not_in_prerequisite_state',
      HINT = 'Its changes are recorded after COMMIT. Read the past then.';
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.require_unchanged(regclass, int) IS
'raises an error if the running transaction has changed a table';

-- Warns of each TRUNCATE since the time.
CREATE FUNCTION bemi.require_keys(base regclass, moment timestamptz) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  change record;
  was_truncated boolean := false;
BEGIN
  FOR change IN
    SELECT n.schema, n."table", c.operation, c.first
    FROM bemi.recorded_tree(base) n,
    LATERAL (
      SELECT c.operation, min(c.committed_at) AS first
      FROM bemi.changes c
      WHERE c.schema = n.schema
        AND c."table" = n."table"
        AND c.primary_key IS NULL
        AND c.committed_at > moment
        AND bemi.place(c.source, c.position) >= n.since
        AND bemi.place(c.source, c.position) < n.until
      GROUP BY 1
    ) c
    ORDER BY c.operation = 'TRUNCATE', c.first
  LOOP
    IF change.operation <> 'TRUNCATE' THEN
      RAISE EXCEPTION 'what % was like at % is not known: the key of a row that was changed at % is not recorded',
        base, moment, change.first USING
        ERRCODE = 'object_not_in_prerequisite_state',
        HINT = 'See the rows of bemi.changes whose primary_key is null.';
    END IF;
    RAISE WARNING '% was truncated at %: of its rows, only those that had been changed before are recorded',
      format('%I.%I', change.schema, change."table"), change.first;
    was_truncated := true;
  END LOOP;
  RETURN was_truncated;
END
$$;

COMMENT ON FUNCTION bemi.require_keys(regclass, timestamptz) IS
'raises an error if changes of a table since a time have no key; returns whether it was truncated since';

-- Of rows that went with a TRUNCATE or their partition, `gone_from` is since when they may have been changed.
CREATE FUNCTION bemi.report_uncertain(base regclass, moment timestamptz, gone_from timestamptz) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  columns text;
BEGIN
  -- No change has what ADD COLUMN gave to a row that did not change after it.
  columns := (
    SELECT string_agg(format('%s (since %s)', quote_ident(a.attname), n.added_at), ', ' ORDER BY a.attnum)
    FROM pg_attribute a,
    LATERAL (
      SELECT min(v.noted_at) FILTER (WHERE v.columns ? a.attnum::text) AS added_at, min(v.noted_at) AS first
      FROM bemi.table_versions v
      WHERE v.relation = base
    ) n
    WHERE a.attrelid = base
      AND a.attnum > 0
      AND NOT a.attisdropped
      AND n.added_at > n.first
      AND n.added_at > gone_from
      AND n.added_at <= moment
  );
  IF columns IS NOT NULL THEN
    RAISE NOTICE 'columns of % that were added are null in rows removed by a TRUNCATE or with their partition: %',
      base, columns;
  END IF;
  columns := (
    SELECT string_agg(quote_ident(a.attname), ', ')
    FROM pg_attribute a
    WHERE a.attrelid = base
      AND a.attnum > 0
      AND NOT a.attisdropped
      AND a.attname IN (SELECT m FROM bemi.masked_columns(base::oid) m)
  );
  IF columns IS NOT NULL THEN
    RAISE NOTICE 'masked columns of % are null in rows that have changed since: %', base, columns;
  END IF;
  columns := (
    SELECT string_agg(DISTINCT quote_ident(i), ', ')
    FROM bemi.table_versions v, unnest(v.ignored) i WHERE v.relation = ANY (bemi.leaves(base))
  );
  IF columns IS NOT NULL THEN
    RAISE NOTICE 'ignored columns of % may be newer than %, since their changes alone are not recorded: %',
      base, moment, columns;
  END IF;
  columns := (
    SELECT string_agg(DISTINCT quote_ident(i), ', ')
    FROM bemi.former_partitions(base) f
    JOIN bemi.table_versions v ON v.relation = f.relation,
    unnest(v.ignored) i
    WHERE f.came_at <= moment AND f.gone_at > moment
  );
  IF columns IS NOT NULL THEN
    RAISE NOTICE
      'ignored columns of former partitions of % may be older than %, since their changes alone are not recorded: %',
      base, moment, columns;
  END IF;
  PERFORM bemi.report_rewrites(base, moment);
END
$$;

COMMENT ON FUNCTION bemi.report_uncertain(regclass, timestamptz, timestamptz) IS
'reports the columns of a table whose values at a time are not known for all rows';

CREATE FUNCTION bemi.require_past(base regclass, moment timestamptz, command int) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  since timestamptz := bemi.recorded_since();
  problem text;
  gone_from timestamptz := (
    SELECT min(f.empty_at) FROM bemi.former_partitions(base) f WHERE f.came_at <= moment AND f.gone_at > moment
  );
BEGIN
  PERFORM bemi.require_unchanged(base, command);
  IF moment < since THEN
    problem := format('changes are recorded since %s', since);
  ELSE
    SELECT format('changes before %s are missing: %s', c.committed_at, c.context)
    INTO problem
    FROM bemi.changes c
    WHERE c.schema = '' AND c."table" = '' AND c.operation = 'GAP' AND c.committed_at > moment
    ORDER BY c.committed_at DESC
    LIMIT 1;
    problem := COALESCE(problem, bemi.unknown_past(base, moment));
  END IF;
  IF problem IS NOT NULL THEN
    RAISE EXCEPTION 'what % was like at % is not known: %', base, moment, problem USING
      ERRCODE = 'object_not_in_prerequisite_state',
      HINT = 'bemi.changes has what is recorded. SELECT * FROM bemi.tracked; shows what is recorded from now on.';
  END IF;
  IF bemi.require_keys(base, moment) THEN
    gone_from := '-infinity';
  END IF;
  PERFORM bemi.report_uncertain(base, moment, gone_from);
END
$$;

COMMENT ON FUNCTION bemi.require_past(regclass, timestamptz, int) IS
'raises an error if the rows of a table at a time cannot be known, and reports what of them is uncertain';
