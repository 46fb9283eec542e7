-- The columns that a table had: their names over time, and which of them are or were masked.

-- `since` is a place (see bemi.place). The name is null where the column did not exist.
CREATE FUNCTION bemi.column_names(relation oid, number smallint) RETURNS TABLE (since bigint, name text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
    SELECT v.place, v.name
    FROM (
      SELECT
        bemi.place(o.source, o.position) AS place,
        o.columns ->> column_names.number::text AS name,
        lag(o.columns ->> column_names.number::text) OVER w AS name_before,
        row_number() OVER w = 1 AS is_first
      FROM bemi.table_versions o
      WHERE o.relation = column_names.relation AND o.columns IS NOT NULL
      WINDOW w AS (ORDER BY o.source, o.position)
    ) v
    WHERE v.is_first OR v.name IS DISTINCT FROM v.name_before
    ORDER BY v.place;
END
$$;

COMMENT ON FUNCTION bemi.column_names(oid, smallint) IS
'returns the names that a column of a table had, and from which place on';

CREATE FUNCTION bemi.masked_columns(relation oid) RETURNS SETOF text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN QUERY
    SELECT DISTINCT m
    FROM bemi.table_versions v, unnest(v.masked) m
    WHERE v.relation = masked_columns.relation OR v.root = masked_columns.relation;
END
$$;

COMMENT ON FUNCTION bemi.masked_columns(oid) IS
'returns the columns of a table and of its partitions that are masked, or once were';

-- Columns that had other names, or did not exist, at a place.
CREATE FUNCTION bemi.renamed_columns(relation oid, "position" bigint) RETURNS TABLE (name text, name_then text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
    SELECT a.attname::text, n.names[n.place]
    FROM pg_attribute a, LATERAL (
      SELECT
        array_agg(c.name ORDER BY c.since) AS names,
        count(*) FILTER (WHERE c.since <= renamed_columns."position") AS place
      FROM bemi.column_names(renamed_columns.relation, a.attnum) c
    ) n
    WHERE a.attrelid = renamed_columns.relation
      AND a.attnum > 0
      AND NOT a.attisdropped
      AND cardinality(n.names) > 1;
END
$$;

COMMENT ON FUNCTION bemi.renamed_columns(oid, bigint) IS
'returns the columns of a table that had more than one name, and the name of each at a place';

-- Like image_today(), for an object whose values are not those of the columns.
CREATE FUNCTION bemi.keys_today(relation regclass, image jsonb, "position" bigint) RETURNS jsonb
LANGUAGE plpgsql STABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  names text[];
  names_then text[];
BEGIN
  SELECT COALESCE(array_agg(r.name), '{}'), COALESCE(array_agg(r.name_then), '{}')
  INTO names, names_then
  FROM bemi.renamed_columns(relation::oid, keys_today."position") r;
  RETURN (image - names - array_remove(names_then, NULL)) || COALESCE((
    SELECT jsonb_object_agg(n.name, image -> n.name_then)
    FROM unnest(names, names_then) AS n (name, name_then)
    WHERE image ? n.name_then
  ), '{}');
END
$$;

COMMENT ON FUNCTION bemi.keys_today(regclass, jsonb, bigint) IS
'returns an object with the names that columns had at a place, with the names that they have today';

CREATE FUNCTION bemi.is_as_ever(relation oid) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  present jsonb := bemi.types_of(is_as_ever.relation);
BEGIN
  RETURN NOT EXISTS (
    SELECT FROM bemi.table_versions v
    WHERE v.relation = is_as_ever.relation
      AND v.columns IS NOT NULL
      AND (
        v.types IS DISTINCT FROM present
        OR v.rewrites IS NOT NULL
        OR v.columns <> (
          SELECT jsonb_object_agg(a.attnum, a.attname)
          FROM pg_attribute a
          WHERE a.attrelid = is_as_ever.relation AND a.attnum > 0 AND NOT a.attisdropped
        )
      )
  );
END
$$;

COMMENT ON FUNCTION bemi.is_as_ever(oid) IS
'returns whether the columns of a table always had the names and types of today';

-- Rows that did not change after a statement rewrote a column are read as they are today.
CREATE FUNCTION bemi.report_rewrites(base regclass, since timestamptz) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  rewrite record;
BEGIN
  FOR rewrite IN
    SELECT a.attname, v.noted_at
    FROM (
        SELECT *, lag(o.types) OVER (ORDER BY o.source, o.position) AS before
        FROM bemi.table_versions o
        WHERE o.relation = base
      ) v,
      LATERAL jsonb_each(v.rewrites -> 'columns') r,
      pg_attribute a
    WHERE v.noted_at > since
      AND a.attrelid = base
      AND a.attnum = r.key::int2
      AND NOT a.attisdropped
      AND (
        r.value = 'null'::jsonb
        OR EXISTS (
          SELECT FROM pg_cast k
          WHERE k.castfunc >= 16384::oid
            AND k.castsource = (v.before -> 'columns' -> r.key ->> 0)::oid
            AND k.casttarget = (v.types -> 'columns' -> r.key ->> 0)::oid
        )
      )
    ORDER BY v.source, v.position, a.attnum
  LOOP
    RAISE NOTICE 'the column % of % was rewritten at %: rows that did not change since then show its new values',
      quote_ident(rewrite.attname), base, rewrite.noted_at;
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.report_rewrites(regclass, timestamptz) IS
'reports the columns of a table that were rewritten since a time in an unknown way';
