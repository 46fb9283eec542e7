-- What happened to one row, and what a change changed.

CREATE FUNCTION @extschema@.diff(before jsonb, after jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT COALESCE(jsonb_object_agg(key, jsonb_build_array(b.value, a.value)), '{}')
  FROM jsonb_each(diff.before) b FULL JOIN jsonb_each(diff.after) a USING (key)
  WHERE COALESCE(b.value, 'null') <> COALESCE(a.value, 'null')
$$;

COMMENT ON FUNCTION @extschema@.diff(jsonb, jsonb) IS
'what differs between two images of a row: {"column": [before, after]}';

CREATE TYPE @extschema@.key_change AS (
  relation oid, operation text, primary_key text, old_primary_key text, before jsonb, after jsonb, context jsonb, committed_at timestamptz,
  -- As bemi.place() counts.
  place bigint, source int, commit_position pg_lsn, sequence int
);

COMMENT ON TYPE @extschema@.key_change IS
'a change of a row, as bemi.changes has it';

-- The changes that left a row with a key, or took it away.
CREATE FUNCTION @extschema@.changes_of_key(relation regclass, key text) RETURNS SETOF @extschema@.key_change
LANGUAGE plpgsql STABLE ROWS 10 SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN QUERY
    WITH names AS MATERIALIZED (SELECT * FROM @extschema@.recorded_names(@extschema@.leaves(relation)))
    SELECT n.relation, c.operation, c.primary_key, c.old_primary_key, c.before, c.after, c.context, c.committed_at, @extschema@.place(c.source, c.position), c.source, c.commit_position, c.sequence
    FROM names n JOIN @extschema@.changes c ON c.schema = n.schema AND c."table" = n."table" AND c.primary_key = key
      AND @extschema@.place(c.source, c.position) >= n.since AND @extschema@.place(c.source, c.position) < n.until
    UNION ALL
    SELECT n.relation, c.operation, c.primary_key, c.old_primary_key, c.before, c.after, c.context, c.committed_at, @extschema@.place(c.source, c.position), c.source, c.commit_position, c.sequence
    FROM names n JOIN @extschema@.changes c ON c.schema = n.schema AND c."table" = n."table" AND c.old_primary_key = key
      AND @extschema@.place(c.source, c.position) >= n.since AND @extschema@.place(c.source, c.position) < n.until
    ORDER BY source, commit_position, sequence;
END
$$;

COMMENT ON FUNCTION @extschema@.changes_of_key(regclass, text) IS
'the recorded changes of a key of a table, from the oldest on';

CREATE FUNCTION @extschema@.truncates(relation oid) RETURNS SETOF @extschema@.key_change
LANGUAGE plpgsql STABLE ROWS 10 SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN QUERY
    SELECT n.relation, c.operation, c.primary_key, c.old_primary_key, c.before, c.after, c.context, c.committed_at, @extschema@.place(c.source, c.position), c.source, c.commit_position, c.sequence
    FROM @extschema@.recorded_names(ARRAY[truncates.relation]) n, LATERAL (
      SELECT * FROM @extschema@.changes c WHERE c.schema = n.schema AND c."table" = n."table" AND c.primary_key IS NULL AND c.operation = 'TRUNCATE'
        AND @extschema@.place(c.source, c.position) >= n.since AND @extschema@.place(c.source, c.position) < n.until OFFSET 0
    ) c;
END
$$;

COMMENT ON FUNCTION @extschema@.truncates(oid) IS
'the recorded TRUNCATEs of a table';

-- What a row was before a change gave it another key, under the keys that it had; as far as it had another one than `asked`.
CREATE FUNCTION @extschema@.life_before(relation regclass, next @extschema@.key_change, asked text) RETURNS SETOF @extschema@.key_change
LANGUAGE plpgsql STABLE ROWS 10 SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  change @extschema@.key_change;
  moved @extschema@.key_change := next;
BEGIN
  WHILE moved.old_primary_key <> asked LOOP
    next := moved;
    moved := NULL;
    FOR change IN SELECT * FROM @extschema@.changes_of_key(relation, next.old_primary_key) c
      WHERE (c.source, c.commit_position, c.sequence) < (next.source, next.commit_position, next.sequence) ORDER BY c.source DESC, c.commit_position DESC, c.sequence DESC
    LOOP
      -- An earlier row of the key ended there.
      EXIT WHEN change.operation = 'DELETE' OR change.old_primary_key = next.old_primary_key;
      RETURN NEXT change;
      IF change.old_primary_key IS NOT NULL THEN
        moved := change;
      END IF;
      EXIT WHEN change.operation = 'CREATE' OR change.old_primary_key IS NOT NULL;
    END LOOP;
  END LOOP;
END
$$;

COMMENT ON FUNCTION @extschema@.life_before(regclass, @extschema@.key_change, text) IS
'the changes of a row before the one that changed its key';

CREATE FUNCTION @extschema@.life_after(relation regclass, last @extschema@.key_change) RETURNS SETOF @extschema@.key_change
LANGUAGE plpgsql STABLE ROWS 10 SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  change @extschema@.key_change;
  moved @extschema@.key_change := last;
BEGIN
  WHILE moved.primary_key IS NOT NULL LOOP
    last := moved;
    moved := NULL;
    FOR change IN SELECT * FROM @extschema@.changes_of_key(relation, last.primary_key) c
      WHERE (c.source, c.commit_position, c.sequence) > (last.source, last.commit_position, last.sequence) ORDER BY c.source, c.commit_position, c.sequence
    LOOP
      EXIT WHEN change.operation = 'CREATE' OR change.primary_key = last.primary_key AND change.old_primary_key IS NOT NULL;
      RETURN NEXT change;
      IF change.old_primary_key = last.primary_key THEN
        moved := change;
      END IF;
      EXIT WHEN change.operation = 'DELETE' OR change.old_primary_key = last.primary_key;
    END LOOP;
  END LOOP;
END
$$;

COMMENT ON FUNCTION @extschema@.life_after(regclass, @extschema@.key_change) IS
'the changes of a row after the one that changed its key';

CREATE FUNCTION @extschema@.last_without_key(relation regclass) RETURNS timestamptz
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN (SELECT max(c.committed_at) FROM @extschema@.recorded_names(@extschema@.leaves(relation)) n, LATERAL (
    SELECT c.committed_at FROM @extschema@.changes c WHERE c.schema = n.schema AND c."table" = n."table" AND c.primary_key IS NULL
      AND c.operation IN ('CREATE', 'UPDATE', 'DELETE')
      AND @extschema@.place(c.source, c.position) >= n.since AND @extschema@.place(c.source, c.position) < n.until ORDER BY c.committed_at DESC LIMIT 1) c);
END
$$;

COMMENT ON FUNCTION @extschema@.last_without_key(regclass) IS
'when a row of a table was last changed without a key by which it can be found';

CREATE FUNCTION @extschema@.history(base anyelement, primary_key text) RETURNS TABLE (
  version int, operation text, committed_at timestamptz, valid_from timestamptz, valid_to timestamptz, context jsonb, changed jsonb, "row" anyelement
)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  relation regclass := @extschema@.table_of_type(pg_typeof(base));
  asked text := $2;
  gap record;
  keyless timestamptz;
  image jsonb;
  "position" bigint;
  leaf oid;
  virtual_query text;
BEGIN
  PERFORM @extschema@.require_select(relation), @extschema@.sync();
  PERFORM FROM @extschema@.key_of(relation);
  IF NOT EXISTS (SELECT FROM @extschema@.table_versions v WHERE v.relation = ANY (@extschema@.leaves(@extschema@.table_of_type(pg_typeof(base))))) THEN
    RAISE EXCEPTION 'the history of % is not known: it is not tracked', relation USING
      ERRCODE = 'object_not_in_prerequisite_state', HINT = format('SELECT bemi.track(%L); -- what happens from then on is recorded', relation);
  END IF;
  SELECT min(c.committed_at) AS first, max(c.committed_at) AS last INTO gap FROM @extschema@.changes c WHERE c.schema = '' AND c."table" = '' AND c.operation = 'GAP';
  IF gap.first IS NOT NULL THEN
    RAISE NOTICE 'changes are missing: see the rows of bemi.changes with the operation GAP, from % to %', gap.first, gap.last;
  END IF;
  keyless := @extschema@.last_without_key(relation);
  IF keyless IS NOT NULL THEN
    RAISE NOTICE 'changes of % until % were recorded without a key, since it had none then, as while a dump is restored: they are not shown', relation, keyless USING
      HINT = 'See the rows of bemi.changes whose primary_key is null.';
  END IF;
  virtual_query := @extschema@.virtual_query(relation::oid);
  FOR version, operation, committed_at, valid_from, valid_to, context, changed, image, "position", leaf IN EXECUTE format(
    'WITH own AS MATERIALIZED (SELECT c AS change FROM @extschema@.changes_of_key($1, $2) c), '
    'lives AS MATERIALIZED (SELECT DISTINCT ON ((c.change).source, (c.change).commit_position, (c.change).sequence) (c.change).* FROM ('
      'SELECT o.change FROM own o '
      'UNION ALL SELECT l FROM own o, LATERAL @extschema@.life_before($1, o.change, $2) l WHERE (o.change).primary_key = $2 AND (o.change).old_primary_key IS NOT NULL '
      -- Nobody has the key now: the row that had it last goes on under another.
      'UNION ALL SELECT l FROM (SELECT * FROM own o ORDER BY (o.change).source DESC, (o.change).commit_position DESC, (o.change).sequence DESC LIMIT 1) o, '
        'LATERAL @extschema@.life_after($1, o.change) l WHERE (o.change).old_primary_key = $2 '
    ') c ORDER BY (c.change).source, (c.change).commit_position, (c.change).sequence), '
    -- A TRUNCATE ends the life of a row that was there.
    'marked AS (SELECT l.*, lead(l.source) OVER w AS next_source, lead(l.commit_position) OVER w AS next, lead(l.sequence) OVER w AS next_sequence FROM lives l WINDOW w AS (ORDER BY l.source, l.commit_position, l.sequence)), '
    'truncates AS MATERIALIZED (SELECT t.* FROM (SELECT DISTINCT l.relation FROM lives l) r, LATERAL @extschema@.truncates(r.relation) t), '
    'all_of_it AS (SELECT * FROM lives UNION ALL SELECT t.* FROM marked m, LATERAL (SELECT t.* FROM truncates t '
      'WHERE t.relation = m.relation AND (t.source, t.commit_position, t.sequence) > (m.source, m.commit_position, m.sequence) AND (m.next IS NULL OR (t.source, t.commit_position, t.sequence) < (m.next_source, m.next, m.next_sequence)) '
      'ORDER BY t.source, t.commit_position, t.sequence LIMIT 1) t WHERE m.operation <> ''DELETE'') '
    'SELECT row_number() OVER w::int, a.operation, a.committed_at, a.committed_at, lead(a.committed_at) OVER w, a.context, @extschema@.diff(a.before, a.after), '
      'CASE WHEN a.operation IN (''CREATE'', ''UPDATE'') THEN %s END, a.place, a.relation '
    'FROM all_of_it a WINDOW w AS (ORDER BY a.source, a.commit_position, a.sequence) ORDER BY 1 DESC',
    @extschema@.image_expression(relation::oid, 'a.after', 'a.place')) USING relation, asked
  LOOP
    -- Here, so that errors show no query.
    "row" := @extschema@.image_row(base, image);
    IF virtual_query IS NOT NULL AND image IS NOT NULL THEN
      BEGIN
        EXECUTE virtual_query INTO "row" USING "row", "position", leaf;
      EXCEPTION WHEN OTHERS THEN
        RAISE NOTICE 'virtual columns of % are null in its version of %: %', relation, committed_at, SQLERRM;
      END;
    END IF;
    RETURN NEXT;
  END LOOP;
END
$$;

COMMENT ON FUNCTION @extschema@.history(anyelement, text) IS
'the versions of a row that are recorded, newest first, under all the keys that it had';
