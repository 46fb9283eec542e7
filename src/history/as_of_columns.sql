-- In SQL: the columns of a table at a time, for bemi.as_of().

-- A partition may have an expression of its own, which is not used when it is read by its root.
CREATE FUNCTION bemi.virtual_column(base oid, number smallint) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN (
    -- The expression as text has neither the cast to the column's type nor its collation.
    SELECT format('(CAST(%s AS %s)', pg_get_expr(d.adbin, d.adrelid), format_type(a.atttypid, a.atttypmod))
      || CASE WHEN c.oid IS NULL THEN ')' ELSE format(' COLLATE %I.%I)', n.nspname, c.collname) END
    FROM pg_attribute a
    JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    LEFT JOIN pg_collation c ON c.oid = a.attcollation
    LEFT JOIN pg_namespace n ON n.oid = c.collnamespace
    WHERE a.attrelid = base AND a.attnum = number
  );
END
$$;

COMMENT ON FUNCTION bemi.virtual_column(oid, smallint) IS
'returns in SQL: the value of a virtual generated column, of the other columns of its row and tableoid';

-- Each column has exactly the type, the modifier and the collation of the table's column: otherwise the row would not
-- be a row of the table. A column that was added later is that of a null row: null, unchecked by a domain's
-- constraints.
CREATE FUNCTION bemi.columns_of_past(base oid, moment text) RETURNS TABLE (number smallint, now text, "then" text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO, YMD' SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  row_type text := bemi.qualified_name(base::oid);
BEGIN
  RETURN QUERY
    WITH versions AS MATERIALIZED (
      SELECT bemi.place(v.source, v.position) AS place, v.noted_at, v.columns
      FROM bemi.table_versions v
      WHERE v.relation = base AND v.columns IS NOT NULL
    ), columns AS (
      SELECT a.attnum, a.attname, a.attisdropped, a.attgenerated,
        CASE WHEN added.noted_at IS NULL THEN '%s'
          ELSE replace(format('CASE WHEN %s >= %L::timestamptz THEN ', moment, added.noted_at), '%', '%%')
            || '%s'
            || replace(format(' ELSE (NULL::%s).%I END', row_type, a.attname), '%', '%%') END AS form
      FROM pg_attribute a
      -- Null if the column was there from the beginning.
      LEFT JOIN LATERAL (
        SELECT v.noted_at
        FROM versions v
        WHERE v.columns ? a.attnum::text
          AND v.place > (SELECT min(f.place) FROM versions f)
          AND NOT (SELECT f.columns ? a.attnum::text FROM versions f ORDER BY f.place LIMIT 1)
        ORDER BY v.place
        LIMIT 1
      ) AS added ON true
      WHERE a.attrelid = base AND a.attnum > 0
    )
    SELECT
      c.attnum,
      CASE WHEN c.attisdropped THEN 'NULL::int4' ELSE format(c.form, format('t.%I', c.attname)) END,
      CASE
        WHEN c.attisdropped THEN 'NULL::int4'
        WHEN c.attgenerated = 'v' THEN format(c.form, bemi.virtual_column(base, c.attnum))
        ELSE format(c.form, format('r.%I', c.attname)) END
    FROM columns c;
END
$$;

COMMENT ON FUNCTION bemi.columns_of_past(oid, text) IS
'returns in SQL: the columns of a table at a time, of its row of today (t) and of one made of an image (r)';

-- Of a row of the table ($1), the place of its image ($2) and the table that held it ($3).
CREATE FUNCTION bemi.virtual_query(base oid) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  row_type text;
BEGIN
  IF NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = base AND a.attgenerated = 'v') THEN
    RETURN NULL;
  END IF;
  row_type := bemi.qualified_name(base::oid);
  RETURN (
    SELECT format('SELECT %s FROM (SELECT ($1).*, $3 AS tableoid OFFSET 0) r', string_agg(
      CASE
        WHEN a.attgenerated <> 'v' THEN format('r.%I', a.attname)
        WHEN cardinality(n.names) > 1 AND n.names[1] IS NULL THEN
          format('CASE WHEN $2 >= %s THEN %s ELSE (NULL::%s).%I END',
            n.added, bemi.virtual_column(base, a.attnum), row_type, a.attname)
        ELSE bemi.virtual_column(base, a.attnum) END, ', ' ORDER BY a.attnum))
    FROM pg_attribute a
    CROSS JOIN LATERAL (
      SELECT
        array_agg(c.name ORDER BY c.since) AS names,
        min(c.since) FILTER (WHERE c.name IS NOT NULL) AS added
      FROM bemi.column_names(base, a.attnum) c
    ) AS n
    WHERE a.attrelid = base AND a.attnum > 0 AND NOT a.attisdropped
  );
END
$$;

COMMENT ON FUNCTION bemi.virtual_query(oid) IS
'returns in SQL: the columns of a row with its virtual generated columns computed; NULL if it has none';
