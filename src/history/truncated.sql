-- The rows that a TRUNCATE took, where all of them were recorded.

CREATE FUNCTION bemi.truncated_rows(relation regclass, source int, commit_position pg_lsn, sequence int) RETURNS TABLE (primary_key text, image jsonb, place bigint)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  own_name text := (SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = relation);
  emptied bemi.key_change;
  -- When it was empty last, before that.
  was_empty record;
  problem text;
BEGIN
  SELECT t.* INTO emptied FROM bemi.truncates(relation::oid) t WHERE (t.source, t.commit_position, t.sequence) = (truncated_rows.source, truncated_rows.commit_position, truncated_rows.sequence);
  IF emptied.operation IS NULL THEN
    RAISE EXCEPTION 'no TRUNCATE of % is recorded as % of the transaction that committed at %', relation, sequence, commit_position USING ERRCODE = 'undefined_object';
  END IF;
  SELECT * INTO was_empty FROM (
    SELECT t.committed_at, t.place FROM bemi.truncates(relation::oid) t WHERE t.place < emptied.place
    UNION ALL SELECT v.noted_at, bemi.place(v.source, v.position) FROM (
      SELECT *, lag(v.is_tracked) OVER (ORDER BY v.source, v.position) AS was_tracked FROM bemi.table_versions v WHERE v.relation = truncated_rows.relation
    ) v WHERE v.is_tracked AND v.was_tracked IS NOT TRUE AND v.is_empty AND v.noted_at >= bemi.recorded_since() AND bemi.place(v.source, v.position) < emptied.place
  ) e ORDER BY e.place DESC LIMIT 1;
  problem := CASE
    WHEN was_empty.place IS NULL THEN 'it had rows when its changes began to be recorded'
    WHEN EXISTS (SELECT FROM bemi.table_versions v WHERE v.relation = truncated_rows.relation AND NOT v.is_tracked
      AND bemi.place(v.source, v.position) BETWEEN was_empty.place AND emptied.place) THEN 'it was not tracked all the time before'
    WHEN EXISTS (SELECT FROM bemi.changes c WHERE c.schema = '' AND c."table" = '' AND c.operation = 'GAP'
      AND c.committed_at BETWEEN was_empty.committed_at AND emptied.committed_at) THEN 'changes before it are missing'
    WHEN EXISTS (SELECT FROM bemi.recorded_names(ARRAY[relation::oid]) n, LATERAL (
        SELECT FROM bemi.changes c WHERE c.schema = n.schema AND c."table" = n."table" AND c.primary_key IS NULL AND c.operation <> 'TRUNCATE'
          AND bemi.place(c.source, c.position) >= greatest(n.since, was_empty.place) AND bemi.place(c.source, c.position) < least(n.until, emptied.place) OFFSET 0) c) THEN 'the keys of some of its rows are not recorded' END;
  IF problem IS NOT NULL THEN
    RAISE EXCEPTION 'the rows that % had before its TRUNCATE at % are not all recorded: %', relation, emptied.committed_at, problem USING
      ERRCODE = 'object_not_in_prerequisite_state', HINT = 'SELECT * FROM bemi.as_of(...) shows those that are recorded.';
  END IF;
  RETURN QUERY
    SELECT e.key, CASE WHEN e.omitted IS NULL THEN e.image ELSE bemi.whole(e.image, e.omitted, own_name, e.key) END, bemi.place(e.source, e.position) FROM (
      SELECT DISTINCT ON (e.key COLLATE "C") e.* FROM (
        SELECT c.*, k.key, CASE WHEN k.is_there AND c.operation <> 'DELETE' THEN c.after END AS image FROM bemi.recorded_names(ARRAY[relation::oid]) n
        JOIN bemi.changes c ON c.schema = n.schema AND c."table" = n."table" AND bemi.place(c.source, c.position) >= greatest(n.since, was_empty.place) AND bemi.place(c.source, c.position) < least(n.until, emptied.place),
          LATERAL (VALUES (c.primary_key, true), (c.old_primary_key, false)) AS k (key, is_there)
        WHERE k.key IS NOT NULL
      ) e ORDER BY e.key COLLATE "C", e.source DESC, e.commit_position DESC, e.sequence DESC
    ) e WHERE e.image IS NOT NULL;
END
$$;

COMMENT ON FUNCTION bemi.truncated_rows(regclass, int, pg_lsn, int) IS
'the rows that a table had before a TRUNCATE, or an error if they are not all recorded';
