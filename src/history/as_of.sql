-- A table as it was: its rows of today, except those that have changed since. Of these, the first later change has the
-- row before it.
--
-- Reads the rows of today and the changes under one snapshot. What this sees in the table but not yet in bemi.changes,
-- because it was recorded a moment later, comes from late_changes().

-- By the only name of the table, or by all that it and its partitions had. Only the columns that the query needs.
CREATE FUNCTION bemi.as_of_source(base regclass) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  columns text := 'c.operation, c.primary_key, c.old_primary_key, c.before, c.after, c.omitted, c.committed_at, '
    'c.source, c.position, c.commit_position, c.sequence';
BEGIN
  RETURN (
    SELECT CASE WHEN count(*) = 1 THEN
      format($query$(
        SELECT %s::oid AS leaf, %s
        FROM bemi.changes c
        WHERE c.schema = %L
          AND c."table" = %L
          AND (c.source, c.position) >= (%s, %s)
      )$query$,
        min(n.relation), columns, min(n.schema), min(n."table"),
        bemi.place_source(min(n.since)), bemi.place_position(min(n.since)))
    ELSE
      format($query$(
        SELECT n.leaf, %s
        FROM (VALUES %s) AS n (leaf, schema, "table", since, until)
        JOIN bemi.changes c ON c.schema = n.schema
          AND c."table" = n."table"
          AND bemi.place(c.source, c.position) >= n.since
          AND bemi.place(c.source, c.position) < n.until
      )$query$,
        columns, string_agg(format('(%s::oid, %L, %L, %s::bigint, %s::bigint)',
          n.relation, n.schema, n."table", n.since, n.until), ', '))
    END
    FROM bemi.recorded_past(base) n
    HAVING count(*) > 0
  );
END
$$;

COMMENT ON FUNCTION bemi.as_of_source(regclass) IS
'returns in SQL: the recorded changes of a table; NULL if nothing of it is recorded';

-- What each change after the time says of a key: the row before, or that there was none.
CREATE FUNCTION bemi.later_events(source text, moment text, wanted text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN format($query$
      SELECT c.leaf, c.primary_key AS key,
        CASE WHEN c.operation = 'CREATE' OR c.old_primary_key IS NOT NULL THEN NULL ELSE c.before END AS image,
        c.omitted, c.source, c.position, c.commit_position, c.sequence
      FROM %1$s c
      WHERE c.committed_at > %2$s
        AND c.primary_key IS NOT NULL%3$s
      UNION ALL
      SELECT c.leaf, c.old_primary_key, c.before, c.omitted, c.source, c.position, c.commit_position, c.sequence
      FROM %1$s c
      WHERE c.committed_at > %2$s
        AND c.old_primary_key IS NOT NULL%4$s
    $query$, source, moment,
    CASE WHEN wanted <> '' THEN format(' AND c.primary_key = ANY (%s)', wanted) END,
    CASE WHEN wanted <> '' THEN format(' AND c.old_primary_key = ANY (%s)', wanted) END);
END
$$;

COMMENT ON FUNCTION bemi.later_events(text, text, text) IS
'returns in SQL: what changes after a time say of keys';

-- What each earlier change says of a key: the row after, or that there is none.
CREATE FUNCTION bemi.earlier_events(source text, moment text, wanted text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN format($query$
      SELECT c.leaf, c.primary_key AS key, CASE WHEN c.operation <> 'DELETE' THEN c.after END AS image,
        c.omitted, c.source, c.position, c.commit_position, c.sequence
      FROM %1$s c
      WHERE c.committed_at <= %2$s
        AND c.primary_key IS NOT NULL%3$s
      UNION ALL
      SELECT c.leaf, c.old_primary_key, NULL, c.omitted, c.source, c.position, c.commit_position, c.sequence
      FROM %1$s c
      WHERE c.committed_at <= %2$s
        AND c.old_primary_key IS NOT NULL%4$s
    $query$, source, moment,
    CASE WHEN wanted <> '' THEN format(' AND c.primary_key = ANY (%s)', wanted) END,
    CASE WHEN wanted <> '' THEN format(' AND c.old_primary_key = ANY (%s)', wanted) END);
END
$$;

COMMENT ON FUNCTION bemi.earlier_events(text, text, text) IS
'returns in SQL: what changes before a time say of keys';

-- `later` has the first later change of each key; `emptied`, where a TRUNCATE or the end of a partition removed the
-- rows that had not changed until then.
CREATE FUNCTION bemi.as_of_with(
  base oid, moment text, wanted text, source text, farewells text, key bemi.key_column[]
) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO, YMD' AS $$
DECLARE
  casts text := (
    SELECT string_agg(format(', %s AS key_%s',
      k.opening
        || CASE WHEN cardinality(key) = 1 THEN 'f.key' ELSE format('(f.key::jsonb->>%s)', k.place - 1) END
        || k.closing,
      k.place), '' ORDER BY k.place)
    FROM unnest(key) k
  );
BEGIN
  RETURN format($query$
    WITH late AS MATERIALIZED (
      SELECT *
      FROM bemi.late_changes(%1$s::oid, %2$s, pg_current_snapshot(), bemi.current_command(), bemi.recorded_position())
    ), later AS MATERIALIZED (
      SELECT f.*%3$s
      FROM (
        SELECT DISTINCT ON (e.key COLLATE "C", e.leaf) e.*
        FROM (%4$s UNION ALL %5$s) e
        ORDER BY e.key COLLATE "C", e.leaf, e.source, e.commit_position, e.sequence
      ) f
    ), truncates AS NOT MATERIALIZED (
      SELECT c.leaf, c.committed_at, c.source, c.commit_position, c.sequence
      FROM %6$s c
      WHERE c.primary_key IS NULL AND c.operation = 'TRUNCATE'
      UNION ALL
      SELECT c.leaf, c.committed_at, c.source, c.commit_position, c.sequence
      FROM late c
      WHERE c.operation = 'TRUNCATE'%7$s
    ), emptied AS MATERIALIZED (
      SELECT DISTINCT ON (c.leaf) c.*
      FROM truncates c
      WHERE c.committed_at > %2$s
      ORDER BY c.leaf, c.source, c.commit_position, c.sequence
    )
    $query$,
    base, moment, casts, bemi.later_events(source, moment, wanted), bemi.later_events('late', moment, wanted), source,
    farewells);
END
$$;

COMMENT ON FUNCTION bemi.as_of_with(oid, text, text, text, text, bemi.key_column[]) IS
'returns in SQL: the WITH clause of bemi.as_of_query()';

-- Three kinds of rows: those of today, those that a later change has, and those that were recorded before the time and
-- removed after it, unchanged. They are a subquery without WITH, so that the planner reads only the columns that are
-- asked for. OFFSET 0 has a row made once, not once for each column.
CREATE FUNCTION bemi.as_of_select(
  base oid, moment text, wanted text, source text, has_leaves boolean, key bemi.key_column[]
) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO, YMD' AS $$
DECLARE
  name text := bemi.qualified_name(base::oid);
  today text := (SELECT CASE c.relkind WHEN 'r' THEN 'ONLY ' || name ELSE name END FROM pg_class c WHERE c.oid = base);
  key_equals text := (
    SELECT string_agg(format(k.comparison, 'l.key_' || k.place, format('t.%I', k.name)), ' AND ' ORDER BY k.place)
    FROM unnest(key) k
  );
  image text := format('bemi.place(l.source, l.position), '
    'CASE WHEN l.omitted IS NULL THEN l.image ELSE bemi.whole(l.image, l.omitted, %L, l.key) END', name);
  columns_now text;
  columns_then text;
BEGIN
  SELECT string_agg(p.now, ', ' ORDER BY p.number), string_agg(p."then", ', ' ORDER BY p.number)
  INTO columns_now, columns_then
  FROM bemi.columns_of_past(base, moment) p;
  RETURN format($query$
    SELECT * FROM (
      SELECT %1$s
      FROM %2$s t
      WHERE NOT EXISTS (SELECT FROM later l WHERE %3$s)
      UNION ALL
      SELECT %4$s
      FROM (
        SELECT (i.r).*, i.leaf AS tableoid
        FROM (
          SELECT l.leaf, bemi.image_row(NULL::%5$s, %6$s) AS r FROM later l WHERE l.image IS NOT NULL OFFSET 0
        ) i
      ) r
      UNION ALL
      SELECT %4$s
      FROM (
        SELECT r.*, l.leaf AS tableoid
        FROM (
          SELECT DISTINCT ON (e.key COLLATE "C", e.leaf) e.*
          FROM (%7$s UNION ALL %8$s) e
          WHERE EXISTS (SELECT FROM emptied)
          ORDER BY e.key COLLATE "C", e.leaf, e.source DESC, e.commit_position DESC, e.sequence DESC
        ) l
        JOIN emptied ON emptied.leaf = l.leaf
        CROSS JOIN LATERAL bemi.image_row(NULL::%5$s, %6$s) r
        WHERE l.image IS NOT NULL
          AND NOT EXISTS (
            SELECT FROM truncates c
            WHERE c.leaf = l.leaf AND c.committed_at <= %9$s
              AND (c.source, c.commit_position, c.sequence) > (l.source, l.commit_position, l.sequence)
          )
          AND NOT EXISTS (
            SELECT FROM later c
            WHERE c.leaf = l.leaf AND c.key = l.key
              AND (c.source, c.commit_position, c.sequence)
                < (emptied.source, emptied.commit_position, emptied.sequence)
          )
      ) r
    ) r$query$,
    columns_now, today, concat(CASE WHEN has_leaves THEN 'l.leaf = t.tableoid AND ' END, key_equals),
    columns_then, name, image,
    bemi.earlier_events(source, moment, wanted), bemi.earlier_events('late', moment, wanted), moment);
END
$$;

COMMENT ON FUNCTION bemi.as_of_select(oid, text, text, text, boolean, bemi.key_column[]) IS
'returns in SQL: the SELECT of bemi.as_of_query()';

-- Its result has the columns of the row type, dropped ones as nulls. `moment` is an expression in SQL, and so is
-- `wanted`: an array of the keys that matter, or empty if they are not known.
CREATE FUNCTION bemi.as_of_query(base oid, moment text, wanted text, key bemi.key_column[]) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO, YMD' SET jit = off AS $$
DECLARE
  leaves oid[];
  source text;
  farewells text;
  former int;
BEGIN
  PERFORM bemi.require_select(base::regclass);
  leaves := bemi.leaves(base::regclass);
  source := bemi.as_of_source(base::regclass);
  IF source IS NULL AND leaves = '{}' THEN
    RAISE EXCEPTION 'the past of % is not known: it has no partitions', base::regclass USING
      ERRCODE = 'object_not_in_prerequisite_state';
  ELSIF source IS NULL THEN
    RAISE EXCEPTION 'the past of % is not known: it is not tracked', base::regclass USING
      ERRCODE = 'object_not_in_prerequisite_state',
      HINT = format('SELECT bemi.track(%L); -- its past can be read from then on', base::regclass);
  END IF;
  SELECT count(*), string_agg(format($query$
      UNION ALL
      SELECT %s::oid, %L::timestamptz, 2147483647, 'FFFFFFFF/FFFFFFFF'::pg_lsn, 0$query$, f.leaf, f.committed_at), '')
  INTO former, farewells
  FROM bemi.farewells(base::regclass) f;
  RETURN bemi.as_of_with(base, moment, wanted, source, farewells, key)
    || bemi.as_of_select(base, moment, wanted, source, cardinality(leaves) + former > 1, key);
END
$$;

COMMENT ON FUNCTION bemi.as_of_query(oid, text, text, bemi.key_column[]) IS
'returns in SQL: the rows of a table as they were at a time, of all keys or of those that are wanted';

CREATE FUNCTION bemi.as_of_ready(base oid) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = base AND c.relkind IN ('r', 'p'))
    OR NOT has_function_privilege('bemi.as_of(anyelement, timestamptz)', 'EXECUTE')
  THEN
    RETURN false;
  END IF;
  PERFORM bemi.require_select(base::regclass), bemi.sync();
  RETURN true;
END
$$;

COMMENT ON FUNCTION bemi.as_of_ready(oid) IS
'waits for the recorder; returns whether bemi.as_of() can be planned as a query, or has to be called';

-- The planner knows what some columns have to be: their numbers, and `one` expression in SQL, or `any` of an array.
CREATE FUNCTION bemi.as_of_plan(base oid, moment text, numbers text[], kinds text[], expressions text[]) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  key bemi.key_column[] := ARRAY(SELECT k FROM bemi.key_of(base::regclass) k);
  wanted text;
BEGIN
  -- The keys as bemi.changes has them.
  SELECT CASE
    WHEN count(*) = 1 THEN COALESCE(min('ARRAY[(' || n.one || ')::text]'), min('(' || n.any || ')::text[]'))
    WHEN count(*) = count(n.one) THEN
      format('ARRAY[%L || %s || %L]',
        '[', string_agg(format('to_json((%s)::text)::text', n.one), ' || '','' || ' ORDER BY k.place), ']') END
  INTO wanted
  FROM unnest(key) k,
  LATERAL (
    SELECT
      min(e.expression) FILTER (WHERE e.kind = 'one') AS one,
      min(e.expression) FILTER (WHERE e.kind = 'any') AS any
    FROM unnest(numbers, kinds, expressions) AS e (number, kind, expression)
    WHERE e.number = k.number::text
  ) n;
  RETURN bemi.as_of_query(base, moment, COALESCE(wanted, ''), key);
END
$$;

COMMENT ON FUNCTION bemi.as_of_plan(oid, text, text[], text[], text[]) IS
'returns in SQL: the query that bemi.as_of() stands for';

CREATE FUNCTION bemi.as_of_support(internal) RETURNS internal
LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'bemi_as_of_support';

COMMENT ON FUNCTION bemi.as_of_support(internal) IS
'for the planner: plans a call of bemi.as_of() in FROM as the query that it stands for';

-- The planner always replaces it by its query, since the time comes from outside.
CREATE FUNCTION bemi.as_of_rows(base anyelement, at timestamptz) RETURNS SETOF anyelement
LANGUAGE plpgsql VOLATILE SUPPORT bemi.as_of_support SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RAISE EXCEPTION 'bemi.as_of_rows() is called by bemi.as_of() alone' USING
    ERRCODE = 'feature_not_supported',
    HINT = 'SELECT * FROM bemi.as_of(NULL::public.todo, now());';
END
$$;

COMMENT ON FUNCTION bemi.as_of_rows(anyelement, timestamptz) IS
'runs for bemi.as_of() where the planner does not replace it by its query';

-- Through the planner too: so both give the same result, and errors show a short statement in place of the query.
CREATE FUNCTION bemi.as_of(base anyelement, at timestamptz) RETURNS SETOF anyelement
LANGUAGE plpgsql VOLATILE SUPPORT bemi.as_of_support SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF at IS NULL THEN
    RAISE EXCEPTION 'bemi.as_of() needs a time' USING ERRCODE = 'null_value_not_allowed';
  END IF;
  RETURN QUERY EXECUTE format('SELECT * FROM bemi.as_of_rows(NULL::%s, $1)', bemi.table_of_type(pg_typeof(base)))
  USING at;
END
$$;

COMMENT ON FUNCTION bemi.as_of(anyelement, timestamptz) IS
'returns the rows that a table had at a time: SELECT * FROM bemi.as_of(NULL::public.todo, ''2026-11-20 11:00+00'')';
