-- Partitions that are gone: detached or dropped. Their rows of before are known where all of their changes are recorded since they
-- were empty.

-- Each time that a table which is no partition of a partitioned one today was one, from when on and until when. `empty` is where
-- it was empty, and from where on each of its changes is in the log as a whole; null if there is no such position. Those that
-- were gone before anything was recorded are left out.
CREATE FUNCTION bemi.former_partitions(base regclass) RETURNS TABLE (
  relation oid, name text, came_at timestamptz, gone bigint, gone_at timestamptz, empty bigint, empty_at timestamptz
)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  top oid := (SELECT pg_partition_root(c.oid) FROM pg_class c WHERE c.oid = base AND c.relkind = 'p'::"char");
  members oid[] := ARRAY(SELECT relid::oid FROM pg_partition_tree(top));
  gone oid[] := ARRAY(SELECT DISTINCT v.relation FROM bemi.table_versions v WHERE v.root = top AND v.relation <> ALL (members));
  key smallint[];
BEGIN
  -- Nearly always.
  IF gone = '{}' THEN
    RETURN;
  END IF;
  key := ARRAY(SELECT k.number FROM bemi.key_of(base) k ORDER BY k.place);
  RETURN QUERY
    WITH versions AS (
      SELECT v.*, bemi.place(v.source, v.position) AS place, lead(bemi.place(v.source, v.position)) OVER w AS next, lead(v.noted_at) OVER w AS next_at, lead(v.is_late) OVER w AS next_is_late,
        v.root IS DISTINCT FROM lag(v.root) OVER w AS is_another, first_value(v.key_columns) OVER back AS last_key
      FROM bemi.table_versions v WHERE v.relation = ANY (gone) WINDOW w AS (PARTITION BY v.relation ORDER BY v.source, v.position),
        back AS (PARTITION BY v.relation, v.root ORDER BY v.source DESC, v.position DESC)
    ), stays AS (
      SELECT v.*, count(*) FILTER (WHERE v.is_another) OVER (PARTITION BY v.relation ORDER BY v.place) AS stay FROM versions v
    ), ends AS (
      SELECT s.relation, s.stay, min(s.place) AS came, min(s.noted_at) AS came_at, max(s.place) AS latest,
        max(s.place) FILTER (WHERE NOT s.is_tracked OR NOT s.has_images OR s.is_late OR s.key_columns IS DISTINCT FROM s.last_key) AS flaw
      FROM stays s WHERE s.root = top GROUP BY s.relation, s.stay
    ), latest AS (
      SELECT e.*, l.next, l.next_at, l.schema, l."table", max(e.stay) OVER (PARTITION BY e.relation) = e.stay AS is_latest,
        NOT COALESCE(l.next_is_late, true) AND top = base
          -- By the names that the columns of the key had then.
          AND (l.key_columns IS NULL OR ARRAY(SELECT l.columns ->> k::text FROM unnest(l.key_columns) WITH ORDINALITY AS u (k, place) ORDER BY place)
            = ARRAY(SELECT r.columns ->> k::text FROM unnest(key) WITH ORDINALITY AS u (k, place), LATERAL (
              SELECT v.columns FROM bemi.table_versions v WHERE v.relation = top AND bemi.place(v.source, v.position) < l.next ORDER BY v.source DESC, v.position DESC LIMIT 1) r ORDER BY place)) AS is_sound
      FROM ends e JOIN versions l ON l.relation = e.relation AND l.place = e.latest
    )
    SELECT l.relation, format('%I.%I', l.schema, l."table"), l.came_at, l.next, COALESCE(l.next_at, 'infinity'::timestamptz), f.place, f.noted_at
    FROM latest l LEFT JOIN LATERAL (
      SELECT s.place, s.noted_at FROM stays s
      WHERE l.is_latest AND l.is_sound AND s.relation = l.relation AND s.stay = l.stay AND s.is_empty AND (l.flaw IS NULL OR s.place > l.flaw)
      ORDER BY s.place LIMIT 1
    ) f ON true
    WHERE COALESCE(l.next_at > bemi.recorded_since(), true);
END
$$;

COMMENT ON FUNCTION bemi.former_partitions(regclass) IS
'the tables that were partitions of a table, from when until when, and since when their rows are known';

-- As recorded_tree(), with the partitions that are gone whose rows are known.
CREATE FUNCTION bemi.recorded_past(base regclass) RETURNS TABLE (relation oid, schema text, "table" text, since bigint, until bigint)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
    SELECT * FROM bemi.recorded_tree(base)
    UNION ALL SELECT n.relation, n.schema, n."table", greatest(n.since, f.empty), least(n.until, f.gone)
    FROM bemi.former_partitions(base) f, bemi.recorded_names(ARRAY[f.relation]) n
    WHERE f.empty IS NOT NULL AND n.until > f.empty AND n.since < f.gone;
END
$$;

COMMENT ON FUNCTION bemi.recorded_past(regclass) IS
'the names under which bemi.changes has the changes of a table and of all partitions that it had, and from which place on until when';

-- When the rows of partitions that are gone went, as a transaction commits after what it has done.
CREATE FUNCTION bemi.farewells(base regclass) RETURNS TABLE (leaf oid, committed_at timestamptz)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
    SELECT f.relation, greatest(f.gone_at, (SELECT max(c.committed_at) FROM bemi.recorded_names(ARRAY[f.relation]) n JOIN bemi.changes c
      ON c.schema = n.schema AND c."table" = n."table" AND bemi.place(c.source, c.position) >= n.since AND bemi.place(c.source, c.position) < least(n.until, f.gone)
      WHERE c.committed_at > f.gone_at))
    FROM bemi.former_partitions(base) f WHERE f.empty IS NOT NULL;
END
$$;

COMMENT ON FUNCTION bemi.farewells(regclass) IS
'when the rows of partitions that are gone went, of those whose rows are known';

-- What is not known of a partition that is gone and was there at a time, as a message; none if all is.
CREATE FUNCTION bemi.unknown_former(base regclass, moment timestamptz) RETURNS SETOF text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  former record;
  since timestamptz := bemi.recorded_since();
BEGIN
  FOR former IN SELECT f.* FROM bemi.former_partitions(base) f WHERE f.came_at <= moment AND f.gone_at > moment ORDER BY f.came_at LOOP
    IF former.gone IS NULL THEN
      RETURN NEXT format('%s, which was a partition, is gone, and nobody noted when: an event trigger of bemi was disabled', former.name);
    ELSIF former.empty IS NULL OR former.empty_at > moment OR former.empty_at < since
      OR EXISTS (SELECT FROM bemi.changes c WHERE c.schema = '' AND c."table" = '' AND c.operation = 'GAP' AND c.committed_at > former.empty_at)
      OR EXISTS (SELECT FROM bemi.recorded_names(ARRAY[former.relation]) n JOIN bemi.changes c ON c.schema = n.schema AND c."table" = n."table"
        AND bemi.place(c.source, c.position) >= greatest(n.since, former.empty) AND bemi.place(c.source, c.position) < least(n.until, former.gone)
        AND c.primary_key IS NULL AND c.operation <> 'TRUNCATE')
    THEN
      RETURN NEXT format('%s, which was a partition until %s, is gone, and not all of its changes are recorded since it was empty', former.name, former.gone_at);
    END IF;
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.unknown_former(regclass, timestamptz) IS
'what is not known of partitions that are gone and were there at a time';
