-- The life of one row: its recorded changes, under all the keys that it had.

CREATE FUNCTION bemi.diff(before jsonb, after jsonb) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN (
    SELECT COALESCE(jsonb_object_agg(key, jsonb_build_array(b.value, a.value)), '{}')
    FROM jsonb_each(diff.before) b
    FULL JOIN jsonb_each(diff.after) a USING (key)
    WHERE COALESCE(b.value, 'null') <> COALESCE(a.value, 'null')
  );
END
$$;

COMMENT ON FUNCTION bemi.diff(jsonb, jsonb) IS
'returns what differs between two images of a row: {"column": [before, after]}';

CREATE TYPE bemi.key_change AS (
  relation oid,
  operation text,
  primary_key text,
  old_primary_key text,
  before jsonb,
  after jsonb,
  context jsonb,
  committed_at timestamptz,
  place bigint,
  source int,
  commit_position pg_lsn,
  sequence int
);

COMMENT ON TYPE bemi.key_change IS
'a change of a row, as bemi.changes has it';

-- The changes that gave a row a key, by any of its texts, or took the key from it. OFFSET 0 has the changes looked up
-- name by name, each by an index, however many names and keys the planner expects.
CREATE FUNCTION bemi.changes_of_key(relations oid[], keys text[]) RETURNS SETOF bemi.key_change
LANGUAGE plpgsql STABLE ROWS 10 SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
BEGIN
  RETURN QUERY
    SELECT n.relation, c.operation, c.primary_key, c.old_primary_key, c.before, c.after, c.context, c.committed_at,
      c.place, c.source, c.commit_position, c.sequence
    FROM bemi.recorded_names(relations) n,
    LATERAL (
      SELECT *, bemi.place(o.source, o.position) AS place
      FROM bemi.changes o
      WHERE o.schema = n.schema AND o."table" = n."table" AND o.primary_key = ANY (keys)
      UNION ALL
      SELECT *, bemi.place(o.source, o.position) AS place
      FROM bemi.changes o
      WHERE o.schema = n.schema AND o."table" = n."table" AND o.old_primary_key = ANY (keys)
      OFFSET 0
    ) c
    WHERE c.place >= n.since AND c.place < n.until
    ORDER BY c.source, c.commit_position, c.sequence;
END
$$;

COMMENT ON FUNCTION bemi.changes_of_key(oid[], text[]) IS
'returns the recorded changes of a key of a table and its partitions, oldest first';

CREATE FUNCTION bemi.truncates(relation oid) RETURNS SETOF bemi.key_change
LANGUAGE plpgsql STABLE ROWS 10 SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
BEGIN
  RETURN QUERY
    SELECT n.relation, c.operation, c.primary_key, c.old_primary_key, c.before, c.after, c.context, c.committed_at,
      c.place, c.source, c.commit_position, c.sequence
    FROM bemi.recorded_names(ARRAY[truncates.relation]) n,
    LATERAL (
      SELECT *, bemi.place(o.source, o.position) AS place
      FROM bemi.changes o
      WHERE o.schema = n.schema AND o."table" = n."table" AND o.primary_key IS NULL AND o.operation = 'TRUNCATE'
      OFFSET 0
    ) c
    WHERE c.place >= n.since AND c.place < n.until;
END
$$;

COMMENT ON FUNCTION bemi.truncates(oid) IS
'returns the recorded TRUNCATEs of a table';

CREATE FUNCTION bemi.life_before(relations oid[], next bemi.key_change, asked text[]) RETURNS SETOF bemi.key_change
LANGUAGE plpgsql STABLE ROWS 10 SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  change bemi.key_change;
  moved bemi.key_change := next;
BEGIN
  -- Follows the row under the keys that it had, as far as they are not among those that are asked for.
  WHILE moved.old_primary_key <> ALL (asked) LOOP
    next := moved;
    moved := NULL;
    FOR change IN
      SELECT * FROM bemi.changes_of_key(relations, ARRAY[next.old_primary_key]) c
      WHERE (c.source, c.commit_position, c.sequence) < (next.source, next.commit_position, next.sequence)
      ORDER BY c.source DESC, c.commit_position DESC, c.sequence DESC
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

COMMENT ON FUNCTION bemi.life_before(oid[], bemi.key_change, text[]) IS
'returns the changes of a row before the one that changed its key';

CREATE FUNCTION bemi.life_after(relations oid[], last bemi.key_change) RETURNS SETOF bemi.key_change
LANGUAGE plpgsql STABLE ROWS 10 SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  change bemi.key_change;
  moved bemi.key_change := last;
BEGIN
  WHILE moved.primary_key IS NOT NULL LOOP
    last := moved;
    moved := NULL;
    FOR change IN
      SELECT * FROM bemi.changes_of_key(relations, ARRAY[last.primary_key]) c
      WHERE (c.source, c.commit_position, c.sequence) > (last.source, last.commit_position, last.sequence)
      ORDER BY c.source, c.commit_position, c.sequence
    LOOP
      EXIT WHEN change.operation = 'CREATE'
        OR change.primary_key = last.primary_key AND change.old_primary_key IS NOT NULL;
      RETURN NEXT change;
      IF change.old_primary_key = last.primary_key THEN
        moved := change;
      END IF;
      EXIT WHEN change.operation = 'DELETE' OR change.old_primary_key = last.primary_key;
    END LOOP;
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.life_after(oid[], bemi.key_change) IS
'returns the changes of a row after the one that changed its key';

-- In order, without the TRUNCATEs.
CREATE FUNCTION bemi.changes_of_life(relations oid[], asked text[]) RETURNS SETOF bemi.key_change
LANGUAGE plpgsql STABLE ROWS 10 SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
BEGIN
  RETURN QUERY
    WITH own AS MATERIALIZED (
      SELECT c AS change FROM bemi.changes_of_key(relations, asked) c
    ), last AS (
      SELECT * FROM own o
      ORDER BY (o.change).source DESC, (o.change).commit_position DESC, (o.change).sequence DESC
      LIMIT 1
    )
    SELECT DISTINCT ON ((c.change).source, (c.change).commit_position, (c.change).sequence) (c.change).*
    FROM (
      SELECT o.change FROM own o
      UNION ALL
      SELECT l
      FROM own o, LATERAL bemi.life_before(relations, o.change, asked) l
      WHERE (o.change).primary_key = ANY (asked) AND (o.change).old_primary_key IS NOT NULL
      UNION ALL
      -- No row has the key now: the row that had it last continues under another.
      SELECT l
      FROM last o, LATERAL bemi.life_after(relations, o.change) l
      WHERE (o.change).old_primary_key = ANY (asked) AND (o.change).primary_key <> ALL (asked)
    ) c
    ORDER BY (c.change).source, (c.change).commit_position, (c.change).sequence;
END
$$;

COMMENT ON FUNCTION bemi.changes_of_life(oid[], text[]) IS
'returns the recorded changes of a row under all the keys that it had, oldest first';

CREATE FUNCTION bemi.life_of(relations oid[], asked text[]) RETURNS TABLE (
  version int,
  operation text,
  valid_from timestamptz,
  valid_to timestamptz,
  context jsonb,
  changed jsonb,
  after jsonb,
  place bigint,
  relation oid
)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
    WITH lives AS MATERIALIZED (
      SELECT * FROM bemi.changes_of_life(relations, asked)
    ), marked AS (
      SELECT
        l.*,
        lead(l.source) OVER w AS next_source,
        lead(l.commit_position) OVER w AS next,
        lead(l.sequence) OVER w AS next_sequence
      FROM lives l
      WINDOW w AS (ORDER BY l.source, l.commit_position, l.sequence)
    ), truncates AS MATERIALIZED (
      SELECT t.* FROM (SELECT DISTINCT l.relation FROM lives l) r, LATERAL bemi.truncates(r.relation) t
    ), all_of_it AS (
      SELECT * FROM lives
      UNION ALL
      -- A TRUNCATE ends the life of a row that was there.
      SELECT t.*
      FROM marked m,
      LATERAL (
        SELECT t.*
        FROM truncates t
        WHERE t.relation = m.relation
          AND (t.source, t.commit_position, t.sequence) > (m.source, m.commit_position, m.sequence)
          AND (m.next IS NULL
            OR (t.source, t.commit_position, t.sequence) < (m.next_source, m.next, m.next_sequence))
        ORDER BY t.source, t.commit_position, t.sequence
        LIMIT 1
      ) t
      WHERE m.operation <> 'DELETE'
    )
    SELECT row_number() OVER w::int, a.operation, a.committed_at, lead(a.committed_at) OVER w, a.context,
      bemi.diff(a.before, a.after), a.after, a.place, a.relation
    FROM all_of_it a
    WINDOW w AS (ORDER BY a.source, a.commit_position, a.sequence)
    ORDER BY 1 DESC;
END
$$;

COMMENT ON FUNCTION bemi.life_of(oid[], text[]) IS
'returns the recorded versions of a row under all the keys that it had, newest first';
