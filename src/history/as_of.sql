-- A table as it was: its rows of today, but for those that changed since, of which the first later change has the row before.
--
-- The rows of today and the changes are read under one snapshot. What it sees of the table already but not yet of
-- bemi.changes, as that was recorded a moment later, comes from late_changes().

CREATE FUNCTION bemi.current_command() RETURNS integer
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'bemi_current_command';

COMMENT ON FUNCTION bemi.current_command() IS
'how many commands of its own transaction that changed something the running statement sees';

CREATE FUNCTION bemi.latest_changes(base oid, moment timestamptz, snapshot pg_snapshot, command int, recorded pg_lsn) RETURNS jsonb
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'bemi_latest_changes';

COMMENT ON FUNCTION bemi.latest_changes(oid, timestamptz, pg_snapshot, int, pg_lsn) IS
'calls bemi.read_latest_changes() under a snapshot that sees all that was committed';

CREATE FUNCTION bemi.read_latest_changes(base oid, moment timestamptz, snapshot pg_snapshot, command int, recorded pg_lsn) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  -- Transactions have 64 bits here, and 32 in the log.
  next numeric := pg_snapshot_xmax(snapshot)::text::numeric;
  epoch numeric := next - next % 4294967296;
  place bigint := (recorded - '0/0'::pg_lsn)::bigint;
  recorded_source int := bemi.place_source(place);
  recorded_here pg_lsn := '0/0'::pg_lsn + bemi.place_position(place)::numeric;
BEGIN
  PERFORM bemi.require_past(base::regclass, moment, command);
  RETURN (
    SELECT COALESCE(jsonb_agg(to_jsonb(c) || jsonb_build_object('leaf', n.relation)), '[]') FROM bemi.recorded_past(base::regclass) n
    -- They are few, whatever the planner thinks.
    JOIN (SELECT * FROM bemi.changes c WHERE (c.source, c.commit_position) > (recorded_source, recorded_here) OFFSET 0) c
      ON c.schema = n.schema AND c."table" = n."table" AND bemi.place(c.source, c.position) >= n.since AND bemi.place(c.source, c.position) < n.until
    WHERE pg_visible_in_snapshot(
      (CASE WHEN epoch + c.transaction_id >= next AND epoch > 0 THEN epoch - 4294967296 ELSE epoch END + c.transaction_id)::text::xid8, snapshot));
END
$$;

COMMENT ON FUNCTION bemi.read_latest_changes(oid, timestamptz, pg_snapshot, int, pg_lsn) IS
'the changes of a table that a snapshot sees in the table, but that were recorded after it was taken; or an error if its past is not known';

CREATE FUNCTION bemi.late_changes(base oid, moment timestamptz, snapshot pg_snapshot, command int, recorded pg_lsn) RETURNS TABLE (
  leaf oid, operation text, primary_key text, old_primary_key text, before jsonb, after jsonb, omitted jsonb, committed_at timestamptz,
  "position" bigint, commit_position pg_lsn, sequence int, source int
)
LANGUAGE plpgsql VOLATILE ROWS 10 SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  found jsonb;
BEGIN
  IF moment IS NULL THEN
    RAISE EXCEPTION 'bemi.as_of() needs a time' USING ERRCODE = 'null_value_not_allowed';
  END IF;
  PERFORM bemi.sync();
  found := bemi.latest_changes(base, moment, snapshot, command, recorded);
  RETURN QUERY SELECT c.* FROM jsonb_to_recordset(found) AS c (
    leaf oid, operation text, primary_key text, old_primary_key text, before jsonb, after jsonb, omitted jsonb, committed_at timestamptz,
    "position" bigint, commit_position pg_lsn, sequence int, source int);
END
$$;

COMMENT ON FUNCTION bemi.late_changes(oid, timestamptz, pg_snapshot, int, pg_lsn) IS
'the changes of a table that a snapshot sees in the table, but not yet in bemi.changes';

-- The columns of the query that bemi.as_of() stands for: of a row of today, `t`, and of one that was made of an image, `r`. Each
-- has the type, the modifier and the collation of the column exactly, or it would not be a row of the table.
CREATE FUNCTION bemi.columns_of_past(base oid, moment text) RETURNS TABLE (number smallint, now text, "then" text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO, YMD' AS $$
DECLARE
  row_type text := (SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = base);
BEGIN
  RETURN QUERY
    WITH versions AS MATERIALIZED (SELECT bemi.place(v.source, v.position) AS place, v.noted_at, v.columns FROM bemi.table_versions v WHERE v.relation = base AND v.columns IS NOT NULL)
    SELECT a.attnum, CASE WHEN a.attisdropped THEN 'NULL::int4' ELSE format(c.form, format('t.%I', a.attname)) END,
      CASE WHEN a.attisdropped THEN 'NULL::int4' WHEN a.attgenerated = 'v' THEN format(c.form, bemi.virtual_column(base, a.attnum)) ELSE format(c.form, format('r.%I', a.attname)) END
    FROM pg_attribute a
      -- Null if it was there from the beginning.
      LEFT JOIN LATERAL (SELECT v.noted_at FROM versions v WHERE v.columns ? a.attnum::text AND v.place > (SELECT min(f.place) FROM versions f)
          AND NOT (SELECT f.columns ? a.attnum::text FROM versions f ORDER BY f.place LIMIT 1)
        ORDER BY v.place LIMIT 1) AS added ON true
      -- What was added later was not there. A field of a null row is null, unchecked by the constraints of a domain.
      CROSS JOIN LATERAL (SELECT CASE WHEN added.noted_at IS NOT NULL
        THEN replace(format('CASE WHEN %s >= %L::timestamptz THEN ', moment, added.noted_at), '%', '%%') || '%s'
          || replace(format(' ELSE (NULL::%s).%I END', row_type, a.attname), '%', '%%') ELSE '%s' END AS form) c
    WHERE a.attrelid = base AND a.attnum > 0;
END
$$;

COMMENT ON FUNCTION bemi.columns_of_past(oid, text) IS
'in SQL: the columns of a table, of a row of today and of one that was made of an image';

-- In SQL, of columns of the row and `tableoid`. A partition may have an expression of its own, but not when it is read by its root.
CREATE FUNCTION bemi.virtual_column(base oid, number smallint) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  -- The expression as text has neither the cast to the column's type nor its collation.
  SELECT format('(CAST(%s AS %s)', pg_get_expr(d.adbin, d.adrelid), format_type(a.atttypid, a.atttypmod))
    || CASE WHEN c.oid IS NULL THEN ')' ELSE format(' COLLATE %I.%I)', n.nspname, c.collname) END
  FROM pg_attribute a JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    LEFT JOIN pg_collation c ON c.oid = a.attcollation LEFT JOIN pg_namespace n ON n.oid = c.collnamespace
  WHERE a.attrelid = base AND a.attnum = number
$$;

COMMENT ON FUNCTION bemi.virtual_column(oid, smallint) IS
'in SQL: the value of a virtual generated column';

-- In SQL, of a row of the table ($1), the place of its image ($2) and the table that held it ($3): its columns with the virtual
-- ones computed. NULL if it has none.
CREATE FUNCTION bemi.virtual_query(base oid) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  row_type text := (SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = base);
BEGIN
  IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = base AND attgenerated = 'v') THEN
    RETURN NULL;
  END IF;
  RETURN (
    SELECT format('SELECT %s FROM (SELECT ($1).*, $3 AS tableoid OFFSET 0) r', string_agg(CASE WHEN a.attgenerated <> 'v' THEN format('r.%I', a.attname)
      WHEN cardinality(n.names) > 1 AND n.names[1] IS NULL THEN format('CASE WHEN $2 >= %s THEN %s ELSE (NULL::%s).%I END', n.added, bemi.virtual_column(base, a.attnum), row_type, a.attname)
      ELSE bemi.virtual_column(base, a.attnum) END, ', ' ORDER BY a.attnum))
    FROM pg_attribute a CROSS JOIN LATERAL (SELECT array_agg(c.name ORDER BY c.since) AS names, min(c.since) FILTER (WHERE c.name IS NOT NULL) AS added
      FROM bemi.column_names(base, a.attnum) c) AS n
    WHERE a.attrelid = base AND a.attnum > 0 AND NOT a.attisdropped);
END
$$;

COMMENT ON FUNCTION bemi.virtual_query(oid) IS
'in SQL: the columns of a row with the virtual generated ones computed';

-- The query that bemi.as_of() stands for: SQL whose result has the columns of the row type, dropped ones as nulls. `moment`
-- is an expression in SQL, and so is `wanted`: an array of the keys that matter, or empty if they are not known.
CREATE FUNCTION bemi.as_of_query(base oid, moment text, wanted text) RETURNS text
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
  farewells text;
  former int;
  wanted_new text := '';
  wanted_old text := '';
  events text;
  earlier text;
BEGIN
  PERFORM bemi.require_select(base::regclass);
  leaves := bemi.leaves(base::regclass);
  SELECT string_agg(p.now, ', ' ORDER BY p.number), string_agg(p.then, ', ' ORDER BY p.number) INTO columns_now, columns_then
  FROM bemi.columns_of_past(base, moment) p;
  SELECT string_agg(format(', %s AS key_%s', k.opening || CASE WHEN count = 1 THEN 'f.key' ELSE format('(f.key::jsonb->>%s)', k.place - 1) END || k.closing, k.place), '' ORDER BY k.place),
    string_agg(format(k.comparison, format('l.key_%s', k.place), format('t.%I', k.name)), ' AND ' ORDER BY k.place)
  INTO key_casts, key_equals FROM (SELECT *, count(*) OVER () FROM bemi.key_of(base::regclass)) k;
  -- The changes of the table, by its only name or by all that it and its partitions had.
  SELECT CASE WHEN count(*) = 1 THEN
      format('(SELECT %s::oid AS leaf, c.* FROM bemi.changes c WHERE c.schema = %L AND c."table" = %L AND (c.source, c.position) >= (%s, %s))',
        min(n.relation), min(n.schema), min(n."table"), bemi.place_source(min(n.since)), bemi.place_position(min(n.since)))
    ELSE format('(SELECT n.leaf, c.* FROM (VALUES %s) AS n (leaf, schema, "table", since, until) JOIN bemi.changes c '
        'ON c.schema = n.schema AND c."table" = n."table" AND bemi.place(c.source, c.position) >= n.since AND bemi.place(c.source, c.position) < n.until)',
      string_agg(format('(%s::oid, %L, %L, %s::bigint, %s::bigint)', n.relation, n.schema, n."table", n.since, n.until), ', ')) END
  INTO source FROM bemi.recorded_past(base::regclass) n HAVING count(*) > 0;
  SELECT string_agg(format(' UNION ALL SELECT %s::oid, %L::timestamptz, 2147483647, ''FFFFFFFF/FFFFFFFF''::pg_lsn, 0', f.leaf, f.committed_at), ''), count(*)
  INTO farewells, former FROM bemi.farewells(base::regclass) f;
  IF source IS NULL AND leaves = '{}' THEN
    RAISE EXCEPTION 'the past of % is not known: it has no partitions', base::regclass USING ERRCODE = 'object_not_in_prerequisite_state';
  ELSIF source IS NULL THEN
    RAISE EXCEPTION 'the past of % is not known: it is not tracked', base::regclass USING
      ERRCODE = 'object_not_in_prerequisite_state', HINT = format('SELECT bemi.track(%L); -- its past can be read from then on', base::regclass);
  END IF;
  IF wanted <> '' THEN
    wanted_new := format(' AND c.primary_key = ANY (%s)', wanted);
    wanted_old := format(' AND c.old_primary_key = ANY (%s)', wanted);
  END IF;
  -- What each change says of a key: the row before, or that there was none.
  SELECT string_agg(format(
    'SELECT c.leaf, c.primary_key AS key, CASE WHEN c.operation = ''CREATE'' OR c.old_primary_key IS NOT NULL THEN NULL ELSE c.before END AS image, c.omitted, c.source, c.position, c.commit_position, c.sequence '
    'FROM %1$s c WHERE c.committed_at > %2$s AND c.primary_key IS NOT NULL%3$s '
    'UNION ALL SELECT c.leaf, c.old_primary_key, c.before, c.omitted, c.source, c.position, c.commit_position, c.sequence '
    'FROM %1$s c WHERE c.committed_at > %2$s AND c.old_primary_key IS NOT NULL%4$s', s, moment, wanted_new, wanted_old), ' UNION ALL ')
  INTO events FROM unnest(ARRAY[source, 'late']) s;
  -- The same of earlier changes: the row after, or that there is none.
  SELECT string_agg(format(
    'SELECT c.leaf, c.primary_key AS key, CASE WHEN c.operation <> ''DELETE'' THEN c.after END AS image, c.omitted, c.source, c.position, c.commit_position, c.sequence '
    'FROM %1$s c WHERE c.committed_at <= %2$s AND c.primary_key IS NOT NULL%3$s AND EXISTS (SELECT FROM emptied) '
    'UNION ALL SELECT c.leaf, c.old_primary_key, NULL, c.omitted, c.source, c.position, c.commit_position, c.sequence '
    'FROM %1$s c WHERE c.committed_at <= %2$s AND c.old_primary_key IS NOT NULL%4$s AND EXISTS (SELECT FROM emptied)', s, moment, wanted_new, wanted_old), ' UNION ALL ')
  INTO earlier FROM unnest(ARRAY[source, 'late']) s;
  RETURN format(
    'WITH late AS MATERIALIZED (SELECT * FROM bemi.late_changes(%1$s::oid, %2$s, pg_current_snapshot(), bemi.current_command(), bemi.recorded_position())), '
    -- The first later change of each key.
    'later AS MATERIALIZED (SELECT f.*%3$s FROM (SELECT DISTINCT ON (%13$s) e.* FROM (%4$s) e ORDER BY %13$s, e.source, e.commit_position, e.sequence) f), '
    -- Where a TRUNCATE, or the end of a partition, has taken the rows that did not change before it.
    'truncates AS NOT MATERIALIZED (SELECT c.leaf, c.committed_at, c.source, c.commit_position, c.sequence FROM %5$s c WHERE c.primary_key IS NULL AND c.operation = ''TRUNCATE'' '
      'UNION ALL SELECT c.leaf, c.committed_at, c.source, c.commit_position, c.sequence FROM late c WHERE c.operation = ''TRUNCATE''%14$s), '
    'emptied AS MATERIALIZED (SELECT DISTINCT ON (c.leaf) c.* FROM truncates c WHERE c.committed_at > %2$s ORDER BY c.leaf, c.source, c.commit_position, c.sequence) '
    -- A subquery of its own, without WITH, so that the planner reads the columns that are asked for only.
    'SELECT * FROM (SELECT %6$s FROM %7$s t WHERE NOT EXISTS (SELECT FROM later l WHERE %8$s) '
    -- OFFSET 0 has the row made once, not once for each column.
    'UNION ALL SELECT %9$s FROM (SELECT (i.r).*, i.leaf AS tableoid FROM (SELECT l.leaf, bemi.image_row(NULL::%10$s, %11$s) AS r FROM later l WHERE l.image IS NOT NULL OFFSET 0) i) r '
    'UNION ALL SELECT %9$s FROM (SELECT r.*, l.leaf AS tableoid FROM ('
      'SELECT DISTINCT ON (%13$s) e.* FROM (%12$s) e ORDER BY %13$s, e.source DESC, e.commit_position DESC, e.sequence DESC) l '
      'JOIN emptied ON emptied.leaf = l.leaf CROSS JOIN LATERAL bemi.image_row(NULL::%10$s, %11$s) r '
      'WHERE l.image IS NOT NULL AND NOT EXISTS (SELECT FROM truncates c WHERE c.leaf = l.leaf AND c.committed_at <= %2$s '
        'AND (c.source, c.commit_position, c.sequence) > (l.source, l.commit_position, l.sequence)) '
      'AND NOT EXISTS (SELECT FROM later c WHERE c.leaf = l.leaf AND c.key = l.key AND (c.source, c.commit_position, c.sequence) < (emptied.source, emptied.commit_position, emptied.sequence))) r) r',
    base, moment, key_casts, events, source, columns_now, CASE WHEN is_plain THEN 'ONLY ' ELSE '' END || name,
    CASE WHEN cardinality(leaves) + former > 1 THEN 'l.leaf = t.tableoid AND ' ELSE '' END || key_equals,
    columns_then, name,
    bemi.image_expression(base, format('CASE WHEN l.omitted IS NULL THEN l.image ELSE bemi.whole(l.image, l.omitted, %L, l.key) END', name), 'bemi.place(l.source, l.position)'),
    earlier, 'e.key COLLATE "C", e.leaf', farewells);
END
$$;

COMMENT ON FUNCTION bemi.as_of_query(oid, text, text) IS
'in SQL: the rows of a table as they were at a time, of all keys or those that are wanted';

-- Before the planner asks for the query. False if the function has to be called itself.
CREATE FUNCTION bemi.as_of_ready(base oid) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_class WHERE oid = base AND relkind IN ('r', 'p')) OR NOT has_function_privilege('bemi.as_of(anyelement, timestamptz)', 'EXECUTE') THEN
    RETURN false;
  END IF;
  PERFORM bemi.require_select(base::regclass), bemi.sync();
  RETURN true;
END
$$;

COMMENT ON FUNCTION bemi.as_of_ready(oid) IS
'waits for the recorder; whether bemi.as_of() can be planned as a query';

-- For the planner, which knows what columns have to be: their numbers, `one` expression in SQL or `any` of an array.
CREATE FUNCTION bemi.as_of_plan(base oid, moment text, numbers text[], kinds text[], expressions text[]) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  wanted text;
BEGIN
  -- The keys as bemi.changes has them.
  SELECT CASE
    WHEN count(*) = 1 THEN COALESCE(min('ARRAY[(' || n.one || ')::text]'), min('(' || n.any || ')::text[]'))
    WHEN count(*) = count(n.one) THEN
      format('ARRAY[%L || %s || %L]', '[', string_agg(format('to_json((%s)::text)::text', n.one), ' || '','' || ' ORDER BY k.place), ']') END
  INTO wanted FROM bemi.key_of(base::regclass) k, LATERAL (
    SELECT min(e.expression) FILTER (WHERE e.kind = 'one') AS one, min(e.expression) FILTER (WHERE e.kind = 'any') AS any
    FROM unnest(numbers, kinds, expressions) AS e (number, kind, expression) WHERE e.number = k.number::text) n;
  RETURN bemi.as_of_query(base, moment, COALESCE(wanted, ''));
END
$$;

COMMENT ON FUNCTION bemi.as_of_plan(oid, text, text[], text[], text[]) IS
'in SQL: the query that bemi.as_of() stands for';

CREATE FUNCTION bemi.as_of_support(internal) RETURNS internal
LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'bemi_as_of_support';

COMMENT ON FUNCTION bemi.as_of_support(internal) IS
'for the planner: has bemi.as_of() in FROM be planned as the query that it stands for';

-- The planner takes it for its query always, since the time comes from outside.
CREATE FUNCTION bemi.as_of_rows(base anyelement, at timestamptz) RETURNS SETOF anyelement
LANGUAGE plpgsql VOLATILE SUPPORT bemi.as_of_support SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RAISE EXCEPTION 'bemi.as_of_rows() is called by bemi.as_of() alone' USING ERRCODE = 'feature_not_supported', HINT = 'SELECT * FROM bemi.as_of(NULL::public.todo, now());';
END
$$;

COMMENT ON FUNCTION bemi.as_of_rows(anyelement, timestamptz) IS
'what bemi.as_of() runs where the planner does not take it for its query';

-- Through the planner too: so both give the same, and errors show a short statement and not the query.
CREATE FUNCTION bemi.as_of(base anyelement, at timestamptz) RETURNS SETOF anyelement
LANGUAGE plpgsql VOLATILE SUPPORT bemi.as_of_support SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF at IS NULL THEN
    RAISE EXCEPTION 'bemi.as_of() needs a time' USING ERRCODE = 'null_value_not_allowed';
  END IF;
  RETURN QUERY EXECUTE format('SELECT * FROM bemi.as_of_rows(NULL::%s, $1)', bemi.table_of_type(pg_typeof(base))) USING at;
END
$$;

COMMENT ON FUNCTION bemi.as_of(anyelement, timestamptz) IS
'the rows that a table had at a time, as in: SELECT * FROM bemi.as_of(NULL::public.todo, ''2026-11-20 11:00+00'')';
