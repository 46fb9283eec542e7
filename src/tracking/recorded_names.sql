-- Which table a recorded change is of: the names and OIDs that tables had, by places (see bemi.place).

CREATE FUNCTION bemi.recorded_names(relations oid[])
RETURNS TABLE (relation oid, schema text, "table" text, since bigint, until bigint)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
    WITH versions AS (
      SELECT v.relation, v.schema::text, v."table"::text, bemi.place(v.source, v.position) AS place,
        (v.schema, v."table") IS DISTINCT FROM (lag(v.schema) OVER w, lag(v."table") OVER w) AS is_renamed
      FROM bemi.table_versions v
      WHERE v.relation = ANY (relations)
        AND v."table" IS NOT NULL
      WINDOW w AS (PARTITION BY v.relation ORDER BY v.source, v.position)
    )
    SELECT v.relation, v.schema, v."table", v.place,
      COALESCE(lead(v.place) OVER (PARTITION BY v.relation ORDER BY v.place), 9223372036854775807)
    FROM versions v
    WHERE v.is_renamed;
END
$$;

COMMENT ON FUNCTION bemi.recorded_names(oid[]) IS
'returns the names under which bemi.changes contains the changes of tables, and between which places';

CREATE FUNCTION bemi.recorded_oid(relation oid, place bigint) RETURNS oid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT COALESCE((
    SELECT v.recorded
    FROM bemi.table_versions v
    WHERE v.relation = recorded_oid.relation
      AND bemi.place(v.source, v.position) <= recorded_oid.place
    ORDER BY v.source DESC, v.position DESC
    LIMIT 1), relation)
$$;

COMMENT ON FUNCTION bemi.recorded_oid(oid, bigint) IS
'returns the OID that a table had at a place';

-- The relation is NULL if the table does not exist any more, or if another table has its name now.
CREATE FUNCTION bemi.table_at(
  schema text, "table" text, place bigint, recorded oid,
  OUT relation regclass, OUT since bigint, OUT until bigint, OUT is_another boolean
)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  SELECT n.relation, n.since, n.until
  INTO relation, since, until
  FROM (
      SELECT DISTINCT v.relation
      FROM bemi.table_versions v
      WHERE v.schema = table_at.schema
        AND v."table" = table_at."table"
    ) r,
    LATERAL bemi.recorded_names(ARRAY[r.relation]) n
  WHERE n.schema = table_at.schema
    AND n."table" = table_at."table"
    AND table_at.place >= n.since
    AND table_at.place < n.until
  ORDER BY n.since DESC
  LIMIT 1;
  IF relation IS NULL THEN
    -- It was recorded without being tracked.
    relation := to_regclass(format('%I.%I', table_at.schema, table_at."table"));
    since := table_at.place;
    until := table_at.place + 1;
  ELSIF NOT EXISTS (SELECT FROM pg_class WHERE oid = relation) THEN
    relation := NULL;
  END IF;
  -- A table that got the name later is not meant.
  is_another := COALESCE(bemi.recorded_oid(relation::oid, table_at.place) <> recorded, false);
  IF is_another THEN
    relation := NULL;
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.table_at(text, text, bigint, oid) IS
'returns the table that had a name at a place, between which places it did, and whether another table has the name now';

CREATE FUNCTION bemi.table_names(relation regclass) RETURNS TABLE (schema text, "table" text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT n.schema, n."table"
  FROM bemi.recorded_names(ARRAY(SELECT t::oid FROM bemi.tree(relation) t)) n
  UNION
  SELECT n.nspname, c.relname
  FROM bemi.tree(relation) t
    JOIN pg_class c ON c.oid = t
    JOIN pg_namespace n ON n.oid = c.relnamespace
$$;

COMMENT ON FUNCTION bemi.table_names(regclass) IS
'returns all names under which bemi.changes may contain changes of a table and its partitions';
