-- Partitions that are gone: detached or dropped. Their rows are known if all of their changes are recorded since they
-- were empty.

-- `stay` numbers the times under one root. `is_flawed`: WAL does not have the changes of the version as a whole, under
-- the key that the table had last.
CREATE FUNCTION bemi.former_versions(tables oid[]) RETURNS TABLE (
  relation oid,
  stay bigint,
  place bigint,
  noted_at timestamptz,
  next bigint,
  next_at timestamptz,
  next_is_late boolean,
  name text,
  root oid,
  is_empty boolean,
  is_flawed boolean,
  columns jsonb,
  key_columns smallint[]
)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
    WITH versions AS (
      SELECT
        v.*,
        bemi.place(v.source, v.position) AS place,
        lead(bemi.place(v.source, v.position)) OVER w AS next,
        lead(v.noted_at) OVER w AS next_at,
        lead(v.is_late) OVER w AS next_is_late,
        v.root IS DISTINCT FROM lag(v.root) OVER w AS is_another,
        first_value(v.key_columns) OVER back AS last_key
      FROM bemi.table_versions v
      WHERE v.relation = ANY (tables)
      WINDOW
        w AS (PARTITION BY v.relation ORDER BY v.source, v.position),
        back AS (PARTITION BY v.relation, v.root ORDER BY v.source DESC, v.position DESC)
    )
    SELECT
      v.relation,
      count(*) FILTER (WHERE v.is_another) OVER (PARTITION BY v.relation ORDER BY v.place),
      v.place,
      v.noted_at,
      v.next,
      v.next_at,
      v.next_is_late,
      CASE WHEN v."table" IS NOT NULL THEN format('%I.%I', v.schema, v."table") END,
      v.root,
      v.is_empty,
      NOT v.is_tracked OR NOT v.has_images OR v.is_late OR v.key_columns IS DISTINCT FROM v.last_key,
      v.columns,
      v.key_columns
    FROM versions v;
END
$$;

COMMENT ON FUNCTION bemi.former_versions(oid[]) IS
'returns the versions of tables that were partitions, by the times that they were';

CREATE FUNCTION bemi.key_names(columns jsonb, key smallint[]) RETURNS text[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN ARRAY(
    SELECT columns ->> k.number::text
    FROM unnest(key) WITH ORDINALITY AS k (number, place)
    ORDER BY k.place
  );
END
$$;

COMMENT ON FUNCTION bemi.key_names(jsonb, smallint[]) IS
'returns the names of the columns of a key';

CREATE FUNCTION bemi.columns_before(relation oid, place bigint) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN (
    SELECT v.columns
    FROM bemi.table_versions v
    WHERE v.relation = columns_before.relation AND bemi.place(v.source, v.position) < columns_before.place
    ORDER BY v.source DESC, v.position DESC
    LIMIT 1
  );
END
$$;

COMMENT ON FUNCTION bemi.columns_before(oid, bigint) IS
'returns the columns that a table had before a place';

-- For each time that a table which is no longer a partition was one: from when and until when. `empty` is where it was
-- empty, and since where WAL has each of its changes as a whole; null if there is no such place. Leaves out those that
-- were gone before anything was recorded.
CREATE FUNCTION bemi.former_partitions(base regclass) RETURNS TABLE (
  relation oid, name text, came_at timestamptz, gone bigint, gone_at timestamptz, empty bigint, empty_at timestamptz
)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
  top oid := (SELECT pg_partition_root(c.oid) FROM pg_class c WHERE c.oid = base AND c.relkind = 'p'::"char");
  members oid[];
  gone oid[];
  key smallint[];
BEGIN
  IF top IS NULL THEN
    RETURN;
  END IF;
  members := ARRAY(SELECT p.relid::oid FROM pg_partition_tree(top) p);
  gone := ARRAY(
    SELECT DISTINCT v.relation FROM bemi.table_versions v WHERE v.root = top AND v.relation <> ALL (members)
  );
  IF gone = '{}' THEN
    RETURN;
  END IF;
  key := ARRAY(SELECT k.number FROM bemi.key_of(base) k ORDER BY k.place);
  RETURN QUERY
    WITH stays AS MATERIALIZED (
      SELECT * FROM bemi.former_versions(gone) v WHERE v.root = top
    ), ends AS (
      SELECT s.relation, s.stay, min(s.noted_at) AS came_at, max(s.place) AS latest,
        max(s.place) FILTER (WHERE s.is_flawed) AS flaw
      FROM stays s
      GROUP BY s.relation, s.stay
    ), latest AS (
      SELECT e.*, l.next, l.next_at, l.name, max(e.stay) OVER (PARTITION BY e.relation) = e.stay AS is_latest,
        NOT COALESCE(l.next_is_late, true)
          AND top = base
          -- By the names that the columns of the key had then.
          AND (l.key_columns IS NULL OR bemi.key_names(l.columns, l.key_columns)
            = bemi.key_names(bemi.columns_before(top, l.next), key)) AS is_sound
      FROM ends e
      JOIN stays l ON l.relation = e.relation AND l.place = e.latest
    )
    SELECT l.relation, l.name, l.came_at, l.next, COALESCE(l.next_at, 'infinity'::timestamptz), f.place, f.noted_at
    FROM latest l
    LEFT JOIN LATERAL (
      SELECT s.place, s.noted_at
      FROM stays s
      WHERE l.is_latest
        AND l.is_sound
        AND s.relation = l.relation
        AND s.stay = l.stay
        AND s.is_empty
        AND (l.flaw IS NULL OR s.place > l.flaw)
      ORDER BY s.place
      LIMIT 1
    ) f ON true
    WHERE COALESCE(l.next_at > bemi.recorded_since(), true);
END
$$;

COMMENT ON FUNCTION bemi.former_partitions(regclass) IS
'returns the tables that were partitions of a table, from when, until when, and since when their rows are known';

CREATE FUNCTION bemi.recorded_past(base regclass)
RETURNS TABLE (relation oid, schema text, "table" text, since bigint, until bigint)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
    SELECT * FROM bemi.recorded_tree(base)
    UNION ALL
    SELECT n.relation, n.schema, n."table", greatest(n.since, f.empty), least(n.until, f.gone)
    FROM bemi.former_partitions(base) f, bemi.recorded_names(ARRAY[f.relation]) n
    WHERE f.empty IS NOT NULL AND n.until > f.empty AND n.since < f.gone;
END
$$;

COMMENT ON FUNCTION bemi.recorded_past(regclass) IS
'returns as bemi.recorded_tree(), with the partitions that are gone whose rows are known';

-- A transaction commits after it has removed the rows.
CREATE FUNCTION bemi.farewells(base regclass) RETURNS TABLE (leaf oid, committed_at timestamptz)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
    SELECT f.relation, greatest(f.gone_at, (
      SELECT max(c.committed_at)
      FROM bemi.recorded_names(ARRAY[f.relation]) n
      JOIN bemi.changes c ON c.schema = n.schema
        AND c."table" = n."table"
        AND bemi.place(c.source, c.position) >= n.since
        AND bemi.place(c.source, c.position) < least(n.until, f.gone)
      WHERE c.committed_at > f.gone_at
    ))
    FROM bemi.former_partitions(base) f
    WHERE f.empty IS NOT NULL;
END
$$;

COMMENT ON FUNCTION bemi.farewells(regclass) IS
'returns when the rows of partitions that are gone were removed, as far as they are known';

CREATE FUNCTION bemi.unknown_former(base regclass, moment timestamptz) RETURNS SETOF text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  former record;
BEGIN
  FOR former IN
    SELECT f.* FROM bemi.former_partitions(base) f
    WHERE f.came_at <= moment AND f.gone_at > moment
    ORDER BY f.came_at
  LOOP
    IF former.gone IS NULL THEN
      RETURN NEXT format('%s was a partition and is gone since an unknown time: an event trigger of bemi was disabled',
        former.name);
    ELSIF former.empty IS NULL OR former.empty_at > moment OR former.empty_at < bemi.recorded_since()
      OR EXISTS (
        SELECT FROM bemi.changes c
        WHERE c.schema = '' AND c."table" = '' AND c.operation = 'GAP' AND c.committed_at > former.empty_at
      )
      OR EXISTS (
        SELECT FROM bemi.recorded_names(ARRAY[former.relation]) n
        JOIN bemi.changes c ON c.schema = n.schema
          AND c."table" = n."table"
          AND bemi.place(c.source, c.position) >= greatest(n.since, former.empty)
          AND bemi.place(c.source, c.position) < least(n.until, former.gone)
        WHERE c.primary_key IS NULL AND c.operation <> 'TRUNCATE'
      )
    THEN
      RETURN NEXT format(
        '%s, a partition until %s, is gone, and not all of its changes are recorded since it was empty',
        former.name, former.gone_at);
    END IF;
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.unknown_former(regclass, timestamptz) IS
'returns what is not known of partitions that are gone and were there at a time';
