-- The rows that a TRUNCATE removed, if all of them were recorded.

-- A table is empty after a TRUNCATE, and may be when its tracking begins. NULL if it never was, as far as is known.
CREATE FUNCTION bemi.was_empty(relation oid, place bigint, OUT place_then bigint, OUT committed_at timestamptz)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  SELECT e.place, e.at
  INTO place_then, committed_at
  FROM (
    SELECT t.place, t.committed_at AS at
    FROM bemi.truncates(was_empty.relation) t
    WHERE t.place < was_empty.place
    UNION ALL
    SELECT bemi.place(v.source, v.position), v.noted_at
    FROM (
      SELECT *, lag(o.is_tracked) OVER (ORDER BY o.source, o.position) AS was_tracked
      FROM bemi.table_versions o
      WHERE o.relation = was_empty.relation
    ) v
    WHERE v.is_tracked
      AND v.was_tracked IS NOT TRUE
      AND v.is_empty
      AND v.noted_at >= bemi.recorded_since()
      AND bemi.place(v.source, v.position) < was_empty.place
  ) e
  ORDER BY e.place DESC
  LIMIT 1;
END
$$;

COMMENT ON FUNCTION bemi.was_empty(oid, bigint) IS
'returns where and when a table was last empty before a place';

CREATE FUNCTION bemi.truncated_problem(relation oid, emptied bemi.key_change) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  was_empty record := bemi.was_empty(relation, emptied.place);
BEGIN
  RETURN CASE
    WHEN was_empty.place_then IS NULL THEN 'it had rows when its changes began to be recorded'
    WHEN EXISTS (
      SELECT FROM bemi.table_versions v
      WHERE v.relation = truncated_problem.relation
        AND NOT v.is_tracked
        AND bemi.place(v.source, v.position) BETWEEN was_empty.place_then AND emptied.place
    ) THEN 'it was not tracked all the time before'
    WHEN EXISTS (
      SELECT FROM bemi.changes c
      WHERE c.schema = ''
        AND c."table" = ''
        AND c.operation = 'GAP'
        AND c.committed_at BETWEEN was_empty.committed_at AND emptied.committed_at
    ) THEN 'changes before it are missing'
    WHEN EXISTS (
      SELECT FROM bemi.recorded_names(ARRAY[truncated_problem.relation]) n,
      LATERAL (
        SELECT FROM bemi.changes c
        WHERE c.schema = n.schema
          AND c."table" = n."table"
          AND c.primary_key IS NULL
          AND c.operation <> 'TRUNCATE'
          AND bemi.place(c.source, c.position) >= greatest(n.since, was_empty.place_then)
          AND bemi.place(c.source, c.position) < least(n.until, emptied.place)
        OFFSET 0
      ) c
    ) THEN 'the keys of some of its rows are not recorded' END;
END
$$;

COMMENT ON FUNCTION bemi.truncated_problem(oid, bemi.key_change) IS
'returns why the rows that a table had before a TRUNCATE are not all known, or NULL';

CREATE FUNCTION bemi.truncated_rows(relation regclass, source int, commit_position pg_lsn, sequence int)
RETURNS TABLE (primary_key text, image jsonb, place bigint)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  own_name text := bemi.qualified_name(relation::oid);
  emptied bemi.key_change;
  empty_from bigint;
  problem text;
BEGIN
  SELECT t.* INTO emptied
  FROM bemi.truncates(relation::oid) t
  WHERE (t.source, t.commit_position, t.sequence)
    = (truncated_rows.source, truncated_rows.commit_position, truncated_rows.sequence);
  IF emptied.operation IS NULL THEN
    RAISE EXCEPTION 'no TRUNCATE of % is recorded as % of the transaction that committed at %',
      relation, sequence, commit_position USING ERRCODE = 'undefined_object';
  END IF;
  problem := bemi.truncated_problem(relation::oid, emptied);
  IF problem IS NOT NULL THEN
    RAISE EXCEPTION 'the rows that % had before its TRUNCATE at % are not all recorded: %',
      relation, emptied.committed_at, problem USING
      ERRCODE = 'object_not_in_prerequisite_state',
      HINT = 'SELECT * FROM bemi.as_of(...) shows those that are recorded.';
  END IF;
  empty_from := (bemi.was_empty(relation::oid, emptied.place)).place_then;
  RETURN QUERY
    SELECT e.key,
      CASE WHEN e.omitted IS NULL THEN e.image ELSE bemi.whole(e.image, e.omitted, own_name, e.key) END,
      bemi.place(e.source, e.position)
    FROM (
      SELECT DISTINCT ON (e.key COLLATE "C") e.*
      FROM (
        SELECT c.*, k.key, CASE WHEN k.is_there AND c.operation <> 'DELETE' THEN c.after END AS image
        FROM bemi.recorded_names(ARRAY[relation::oid]) n
        JOIN bemi.changes c ON c.schema = n.schema
          AND c."table" = n."table"
          AND bemi.place(c.source, c.position) >= greatest(n.since, empty_from)
          AND bemi.place(c.source, c.position) < least(n.until, emptied.place),
        LATERAL (VALUES (c.primary_key, true), (c.old_primary_key, false)) AS k (key, is_there)
        WHERE k.key IS NOT NULL
      ) e
      ORDER BY e.key COLLATE "C", e.source DESC, e.commit_position DESC, e.sequence DESC
    ) e
    WHERE e.image IS NOT NULL;
END
$$;

COMMENT ON FUNCTION bemi.truncated_rows(regclass, int, pg_lsn, int) IS
'returns the rows that a table had before a TRUNCATE; an error if they are not all recorded';
