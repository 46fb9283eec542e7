-- A table as it was: its rows of today, but for those that changed since, of which the first later change has the row before.
--
-- The rows of today and the changes are read under one snapshot. What it sees of the table already but not yet of
-- bemi.changes, as that was recorded a moment later, comes from late_changes().

CREATE FUNCTION @extschema@.current_command() RETURNS integer
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'bemi_current_command';

COMMENT ON FUNCTION @extschema@.current_command() IS
'how many commands of its own transaction that changed something the running statement sees';

CREATE FUNCTION @extschema@.latest_changes(base oid, moment timestamptz, snapshot pg_snapshot, command int, recorded pg_lsn) RETURNS jsonb
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'bemi_latest_changes';

COMMENT ON FUNCTION @extschema@.latest_changes(oid, timestamptz, pg_snapshot, int, pg_lsn) IS
'calls bemi.read_latest_changes() under a snapshot that sees all that was committed';

CREATE FUNCTION @extschema@.read_latest_changes(base oid, moment timestamptz, snapshot pg_snapshot, command int, recorded pg_lsn) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  -- Transactions have 64 bits here, and 32 in the log.
  next numeric := pg_snapshot_xmax(snapshot)::text::numeric;
  epoch numeric := next - next % 4294967296;
BEGIN
  PERFORM @extschema@.require_past(base::regclass, moment, command);
  RETURN (
    SELECT COALESCE(jsonb_agg(to_jsonb(c) || jsonb_build_object('leaf', n.relation)), '[]') FROM @extschema@.recorded_tree(base::regclass) n
    -- They are few, whatever the planner thinks.
    JOIN (SELECT * FROM @extschema@.changes c WHERE c.commit_position > recorded OFFSET 0) c
      ON c.schema = n.schema AND c."table" = n."table" AND c.position >= n.since AND c.position < n.until
    WHERE pg_visible_in_snapshot(
      (CASE WHEN epoch + c.transaction_id >= next AND epoch > 0 THEN epoch - 4294967296 ELSE epoch END + c.transaction_id)::text::xid8, snapshot));
END
$$;

COMMENT ON FUNCTION @extschema@.read_latest_changes(oid, timestamptz, pg_snapshot, int, pg_lsn) IS
'the changes of a table that a snapshot sees in the table, but that were recorded after it was taken; or an error if its past is not known';

CREATE FUNCTION @extschema@.late_changes(base oid, moment timestamptz, snapshot pg_snapshot, command int, recorded pg_lsn) RETURNS TABLE (
  leaf oid, operation text, primary_key text, old_primary_key text, before jsonb, after jsonb, omitted jsonb, committed_at timestamptz,
  "position" bigint, commit_position pg_lsn, sequence int
)
LANGUAGE plpgsql VOLATILE ROWS 10 SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF moment IS NULL THEN
    RAISE EXCEPTION 'bemi.as_of() needs a time' USING ERRCODE = 'null_value_not_allowed';
  END IF;
  PERFORM @extschema@.sync();
  RETURN QUERY SELECT c.* FROM jsonb_to_recordset(@extschema@.latest_changes(base, moment, snapshot, command, recorded)) AS c (
    leaf oid, operation text, primary_key text, old_primary_key text, before jsonb, after jsonb, omitted jsonb, committed_at timestamptz,
    "position" bigint, commit_position pg_lsn, sequence int);
END
$$;

COMMENT ON FUNCTION @extschema@.late_changes(oid, timestamptz, pg_snapshot, int, pg_lsn) IS
'the changes of a table that a snapshot sees in the table, but not yet in bemi.changes';

-- The query that bemi.as_of() stands for: SQL whose result has the columns of the row type, dropped ones as nulls. `moment`
-- is an expression in SQL, and so is `wanted`: an array of the keys that matter, or empty if they are not known. The planner counts dropped
-- columns, PL/pgSQL does not.
CREATE FUNCTION @extschema@.as_of_query(base oid, moment text, with_dropped boolean, wanted text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO, YMD' AS $$
DECLARE
  name text := (SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = base);
  is_plain boolean := (SELECT relkind = 'r' FROM pg_class WHERE oid = base);
  columns_now text;
  columns_then text;
  key_casts text;
  key_equals text;
  leaves oid[];
  source text;
  any_time text;
  wanted_new text := '';
  wanted_old text := '';
  events text;
  earlier text;
BEGIN
  PERFORM @extschema@.require_select(base::regclass);
  leaves := @extschema@.leaves(base::regclass);
  SELECT
    string_agg(CASE WHEN a.attisdropped THEN 'NULL::int4'
      -- What was added later was not there.
      WHEN added.noted_at IS NOT NULL THEN format('CASE WHEN %s >= %L::timestamptz THEN t.%I %sEND', moment, added.noted_at, a.attname, y.otherwise_now)
      ELSE format('t.%I', a.attname) END, ', ' ORDER BY a.attnum),
    string_agg(CASE WHEN a.attisdropped THEN 'NULL::int4' WHEN a.attgenerated = 'v' THEN format('(%s)', pg_get_expr(d.adbin, d.adrelid))
      WHEN added.noted_at IS NOT NULL THEN format('CASE WHEN %s >= %L::timestamptz THEN r.%I %sEND', moment, added.noted_at, a.attname, y.otherwise_then)
      ELSE format('r.%I', a.attname) END, ', ' ORDER BY a.attnum)
  INTO columns_now, columns_then
  FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    LEFT JOIN @extschema@.added_columns(base) added ON added.number = a.attnum
    -- The NULL of a CASE without ELSE is checked by the constraints of a domain.
    LEFT JOIN LATERAL (SELECT format('ELSE @extschema@.null_of(t.%I) ', a.attname) AS otherwise_now, format('ELSE @extschema@.null_of(r.%I) ', a.attname) AS otherwise_then
      FROM pg_type y WHERE y.oid = a.atttypid AND y.typtype = 'd'::"char") AS y ON true
  WHERE a.attrelid = base AND a.attnum > 0 AND (with_dropped OR NOT a.attisdropped);
  IF leaves = '{}' THEN
    RAISE EXCEPTION 'the past of % is not known: it has no partitions', base::regclass USING ERRCODE = 'object_not_in_prerequisite_state';
  END IF;
  SELECT string_agg(format(', %s AS key_%s', k.opening || CASE WHEN count = 1 THEN 'f.key' ELSE format('(f.key::jsonb->>%s)', k.place - 1) END || k.closing, k.place), '' ORDER BY k.place),
    string_agg(format(k.comparison, format('l.key_%s', k.place), format('t.%I', k.name)), ' AND ' ORDER BY k.place)
  INTO key_casts, key_equals FROM (SELECT *, count(*) OVER () FROM @extschema@.key_of(base::regclass)) k;
  -- The changes of the table, by its only name or by all that it and its partitions had.
  SELECT CASE WHEN count(*) = 1 THEN
      format('(SELECT %s::oid AS leaf, c.* FROM @extschema@.changes c WHERE c.schema = %L AND c."table" = %L AND c.position >= %s)', min(n.relation), min(n.schema), min(n."table"), min(n.since))
    ELSE format('(SELECT n.leaf, c.* FROM (VALUES %s) AS n (leaf, schema, "table", since, until) JOIN @extschema@.changes c '
        'ON c.schema = n.schema AND c."table" = n."table" AND c.position >= n.since AND c.position < n.until)',
      string_agg(format('(%s::oid, %L, %L, %s::bigint, %s::bigint)', n.relation, n.schema, n."table", n.since, n.until), ', ')) END
  INTO source FROM @extschema@.recorded_tree(base::regclass) n HAVING count(*) > 0;
  IF source IS NULL THEN
    RAISE EXCEPTION 'the past of % is not known: it is not tracked', base::regclass USING
      ERRCODE = 'object_not_in_prerequisite_state', HINT = format('SELECT bemi.track(%L); -- its past can be read from then on', base::regclass);
  END IF;
  IF wanted <> '' THEN
    wanted_new := format(' AND c.primary_key = ANY (%s)', wanted);
    wanted_old := format(' AND c.old_primary_key = ANY (%s)', wanted);
  END IF;
  -- What each change says of a key: the row before, or that there was none.
  SELECT string_agg(format(
    'SELECT c.leaf, c.primary_key AS key, CASE WHEN c.operation = ''CREATE'' OR c.old_primary_key IS NOT NULL THEN NULL ELSE c.before END AS image, c.omitted, c.position, c.commit_position, c.sequence '
    'FROM %1$s c WHERE c.committed_at > %2$s AND c.primary_key IS NOT NULL%3$s '
    'UNION ALL SELECT c.leaf, c.old_primary_key, c.before, c.omitted, c.position, c.commit_position, c.sequence '
    'FROM %1$s c WHERE c.committed_at > %2$s AND c.old_primary_key IS NOT NULL%4$s', s, moment, wanted_new, wanted_old), ' UNION ALL ')
  INTO events FROM unnest(ARRAY[source, 'late']) s;
  -- The same of earlier changes: the row after, or that there is none.
  SELECT string_agg(format(
    'SELECT c.leaf, c.primary_key AS key, CASE WHEN c.operation <> ''DELETE'' THEN c.after END AS image, c.omitted, c.position, c.commit_position, c.sequence '
    'FROM %1$s c WHERE c.committed_at <= %2$s AND c.primary_key IS NOT NULL%3$s AND EXISTS (SELECT FROM emptied) '
    'UNION ALL SELECT c.leaf, c.old_primary_key, NULL, c.omitted, c.position, c.commit_position, c.sequence '
    'FROM %1$s c WHERE c.committed_at <= %2$s AND c.old_primary_key IS NOT NULL%4$s AND EXISTS (SELECT FROM emptied)', s, moment, wanted_new, wanted_old), ' UNION ALL ')
  INTO earlier FROM unnest(ARRAY[source, 'late']) s;
  RETURN format(
    'WITH late AS MATERIALIZED (SELECT * FROM @extschema@.late_changes(%1$s::oid, %2$s, pg_current_snapshot(), @extschema@.current_command(), @extschema@.recorded_position())), '
    -- The first later change of each key.
    'later AS MATERIALIZED (SELECT f.*%3$s FROM (SELECT DISTINCT ON (%13$s) e.* FROM (%4$s) e ORDER BY %13$s, e.commit_position, e.sequence) f), '
    -- Where a TRUNCATE has taken the rows that did not change before it.
    'truncates AS NOT MATERIALIZED (SELECT c.leaf, c.committed_at, c.commit_position, c.sequence FROM %5$s c WHERE c.primary_key IS NULL AND c.operation = ''TRUNCATE'' '
      'UNION ALL SELECT c.leaf, c.committed_at, c.commit_position, c.sequence FROM late c WHERE c.operation = ''TRUNCATE''), '
    'emptied AS MATERIALIZED (SELECT DISTINCT ON (c.leaf) c.* FROM truncates c WHERE c.committed_at > %2$s ORDER BY c.leaf, c.commit_position, c.sequence) '
    -- A subquery of its own, without WITH, so that the planner reads the columns that are asked for only.
    'SELECT * FROM (SELECT %6$s FROM %7$s t WHERE NOT EXISTS (SELECT FROM later l WHERE %8$s) '
    -- OFFSET 0 has the row made once, not once for each column.
    'UNION ALL SELECT %9$s FROM (SELECT (i.r).* FROM (SELECT @extschema@.image_row(NULL::%10$s, %11$s) AS r FROM later l WHERE l.image IS NOT NULL OFFSET 0) i) r '
    'UNION ALL SELECT %9$s FROM (SELECT r.* FROM ('
      'SELECT DISTINCT ON (%13$s) e.* FROM (%12$s) e ORDER BY %13$s, e.commit_position DESC, e.sequence DESC) l '
      'JOIN emptied ON emptied.leaf = l.leaf CROSS JOIN LATERAL @extschema@.image_row(NULL::%10$s, %11$s) r '
      'WHERE l.image IS NOT NULL AND NOT EXISTS (SELECT FROM truncates c WHERE c.leaf = l.leaf AND c.committed_at <= %2$s '
        'AND (c.commit_position, c.sequence) > (l.commit_position, l.sequence)) '
      'AND NOT EXISTS (SELECT FROM later c WHERE c.leaf = l.leaf AND c.key = l.key AND (c.commit_position, c.sequence) < (emptied.commit_position, emptied.sequence))) r) r',
    base, moment, key_casts, events, source, columns_now, CASE WHEN is_plain THEN 'ONLY ' ELSE '' END || name,
    CASE WHEN cardinality(leaves) > 1 THEN 'l.leaf = t.tableoid AND ' ELSE '' END || key_equals,
    columns_then, name,
    @extschema@.image_expression(base, format('CASE WHEN l.omitted IS NULL THEN l.image ELSE @extschema@.whole(l.image, l.omitted, %L, l.key) END', name), 'l.position'),
    earlier, 'e.key COLLATE "C", e.leaf');
END
$$;

COMMENT ON FUNCTION @extschema@.as_of_query(oid, text, boolean, text) IS
'in SQL: the rows of a table as they were at a time, of all keys or those that are wanted';

CREATE FUNCTION @extschema@.latest_query(base oid) RETURNS text
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'bemi_latest_query';

COMMENT ON FUNCTION @extschema@.latest_query(oid) IS
'calls bemi.as_of_query() under a snapshot that sees all that was committed';

-- Before the planner asks for the query. False if the function has to be called itself.
CREATE FUNCTION @extschema@.as_of_ready(base oid) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_class WHERE oid = base AND relkind IN ('r', 'p')) OR NOT has_function_privilege('@extschema@.as_of(anyelement, timestamptz)', 'EXECUTE') THEN
    RETURN false;
  END IF;
  PERFORM @extschema@.require_select(base::regclass), @extschema@.sync();
  RETURN true;
END
$$;

COMMENT ON FUNCTION @extschema@.as_of_ready(oid) IS
'waits for the recorder; whether bemi.as_of() can be planned as a query';

-- For the planner, which knows what columns have to be: their numbers, `one` expression in SQL or `any` of an array.
CREATE FUNCTION @extschema@.as_of_plan(base oid, moment text, numbers text[], kinds text[], expressions text[]) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  wanted text;
BEGIN
  -- The keys as bemi.changes has them.
  SELECT CASE
    WHEN count(*) = 1 THEN COALESCE(min('ARRAY[(' || n.one || ')::text]'), min('(' || n.any || ')::text[]'))
    WHEN count(*) = count(n.one) THEN
      format('ARRAY[%L || %s || %L]', '[', string_agg(format('to_json((%s)::text)::text', n.one), ' || '','' || ' ORDER BY k.place), ']') END
  INTO wanted FROM @extschema@.key_of(base::regclass) k, LATERAL (
    SELECT min(e.expression) FILTER (WHERE e.kind = 'one') AS one, min(e.expression) FILTER (WHERE e.kind = 'any') AS any
    FROM unnest(numbers, kinds, expressions) AS e (number, kind, expression) WHERE e.number = k.number::text) n;
  RETURN @extschema@.as_of_query(base, moment, true, COALESCE(wanted, ''));
END
$$;

COMMENT ON FUNCTION @extschema@.as_of_plan(oid, text, text[], text[], text[]) IS
'in SQL: the query that bemi.as_of() stands for';

CREATE FUNCTION @extschema@.as_of_support(internal) RETURNS internal
LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'bemi_as_of_support';

COMMENT ON FUNCTION @extschema@.as_of_support(internal) IS
'for the planner: has bemi.as_of() in FROM be planned as the query that it stands for';

CREATE FUNCTION @extschema@.as_of(base anyelement, at timestamptz) RETURNS SETOF anyelement
LANGUAGE plpgsql VOLATILE SUPPORT @extschema@.as_of_support SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF at IS NULL THEN
    RAISE EXCEPTION 'bemi.as_of() needs a time' USING ERRCODE = 'null_value_not_allowed';
  END IF;
  PERFORM @extschema@.require_select(@extschema@.table_of_type(pg_typeof(base))), @extschema@.sync();
  RETURN QUERY EXECUTE @extschema@.latest_query(@extschema@.table_of_type(pg_typeof(base))::oid) USING at;
END
$$;

COMMENT ON FUNCTION @extschema@.as_of(anyelement, timestamptz) IS
'the rows that a table had at a time, as in: SELECT * FROM bemi.as_of(NULL::public.todo, ''2026-11-20 11:00+00'')';
