-- What happened to one row, and what a change changed.

CREATE FUNCTION bemi.diff(before jsonb, after jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT COALESCE(jsonb_object_agg(key, jsonb_build_array(b.value, a.value)), '{}')
  FROM jsonb_each(diff.before) b FULL JOIN jsonb_each(diff.after) a USING (key)
  WHERE COALESCE(b.value, 'null') <> COALESCE(a.value, 'null')
$$;

COMMENT ON FUNCTION bemi.diff(jsonb, jsonb) IS
'what differs between two images of a row: {"column": [before, after]}';

CREATE TYPE bemi.key_change AS (
  relation oid, operation text, primary_key text, old_primary_key text, before jsonb, after jsonb, context jsonb, committed_at timestamptz,
  place bigint, source int, commit_position pg_lsn, sequence int
);

COMMENT ON TYPE bemi.key_change IS
'a change of a row, as bemi.changes has it';

-- The changes that left a row with a key, by any of its texts, or took it away.
CREATE FUNCTION bemi.changes_of_key(relations oid[], keys text[]) RETURNS SETOF bemi.key_change
LANGUAGE plpgsql STABLE ROWS 10 SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN QUERY
    WITH names AS MATERIALIZED (SELECT * FROM bemi.recorded_names(relations))
    SELECT n.relation, c.operation, c.primary_key, c.old_primary_key, c.before, c.after, c.context, c.committed_at, bemi.place(c.source, c.position), c.source, c.commit_position, c.sequence
    FROM names n JOIN bemi.changes c ON c.schema = n.schema AND c."table" = n."table" AND c.primary_key = ANY (keys) AND bemi.place(c.source, c.position) >= n.since AND bemi.place(c.source, c.position) < n.until
    UNION ALL
    SELECT n.relation, c.operation, c.primary_key, c.old_primary_key, c.before, c.after, c.context, c.committed_at, bemi.place(c.source, c.position), c.source, c.commit_position, c.sequence
    FROM names n JOIN bemi.changes c ON c.schema = n.schema AND c."table" = n."table" AND c.old_primary_key = ANY (keys) AND bemi.place(c.source, c.position) >= n.since AND bemi.place(c.source, c.position) < n.until
    ORDER BY source, commit_position, sequence;
END
$$;

COMMENT ON FUNCTION bemi.changes_of_key(oid[], text[]) IS
'the recorded changes of a key of a table and its partitions, from the oldest on';

CREATE FUNCTION bemi.truncates(relation oid) RETURNS SETOF bemi.key_change
LANGUAGE plpgsql STABLE ROWS 10 SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN QUERY
    SELECT n.relation, c.operation, c.primary_key, c.old_primary_key, c.before, c.after, c.context, c.committed_at, bemi.place(c.source, c.position), c.source, c.commit_position, c.sequence
    FROM bemi.recorded_names(ARRAY[truncates.relation]) n, LATERAL (
      SELECT * FROM bemi.changes c WHERE c.schema = n.schema AND c."table" = n."table" AND c.primary_key IS NULL AND c.operation = 'TRUNCATE'
        AND bemi.place(c.source, c.position) >= n.since AND bemi.place(c.source, c.position) < n.until OFFSET 0
    ) c;
END
$$;

COMMENT ON FUNCTION bemi.truncates(oid) IS
'the recorded TRUNCATEs of a table';

-- What a row was before a change gave it another key, under the keys that it had; as far as it had another one than `asked`.
CREATE FUNCTION bemi.life_before(relations oid[], next bemi.key_change, asked text[]) RETURNS SETOF bemi.key_change
LANGUAGE plpgsql STABLE ROWS 10 SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  change bemi.key_change;
  moved bemi.key_change := next;
BEGIN
  WHILE moved.old_primary_key <> ALL (asked) LOOP
    next := moved;
    moved := NULL;
    FOR change IN SELECT * FROM bemi.changes_of_key(relations, ARRAY[next.old_primary_key]) c
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

COMMENT ON FUNCTION bemi.life_before(oid[], bemi.key_change, text[]) IS
'the changes of a row before the one that changed its key';

CREATE FUNCTION bemi.life_after(relations oid[], last bemi.key_change) RETURNS SETOF bemi.key_change
LANGUAGE plpgsql STABLE ROWS 10 SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  change bemi.key_change;
  moved bemi.key_change := last;
BEGIN
  WHILE moved.primary_key IS NOT NULL LOOP
    last := moved;
    moved := NULL;
    FOR change IN SELECT * FROM bemi.changes_of_key(relations, ARRAY[last.primary_key]) c
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

COMMENT ON FUNCTION bemi.life_after(oid[], bemi.key_change) IS
'the changes of a row after the one that changed its key';

-- The versions of a row, as they are recorded.
CREATE FUNCTION bemi.life_of(relations oid[], asked text[]) RETURNS TABLE (
  version int, operation text, valid_from timestamptz, valid_to timestamptz, context jsonb, changed jsonb, after jsonb, place bigint, relation oid
)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
    WITH own AS MATERIALIZED (SELECT c AS change FROM bemi.changes_of_key(relations, asked) c),
    lives AS MATERIALIZED (SELECT DISTINCT ON ((c.change).source, (c.change).commit_position, (c.change).sequence) (c.change).* FROM (
      SELECT o.change FROM own o
      UNION ALL SELECT l FROM own o, LATERAL bemi.life_before(relations, o.change, asked) l
        WHERE (o.change).primary_key = ANY (asked) AND (o.change).old_primary_key IS NOT NULL
      -- Nobody has the key now: the row that had it last goes on under another.
      UNION ALL SELECT l FROM (SELECT * FROM own o ORDER BY (o.change).source DESC, (o.change).commit_position DESC, (o.change).sequence DESC LIMIT 1) o,
        LATERAL bemi.life_after(relations, o.change) l WHERE (o.change).old_primary_key = ANY (asked) AND (o.change).primary_key <> ALL (asked)
    ) c ORDER BY (c.change).source, (c.change).commit_position, (c.change).sequence),
    -- A TRUNCATE ends the life of a row that was there.
    marked AS (SELECT l.*, lead(l.source) OVER w AS next_source, lead(l.commit_position) OVER w AS next, lead(l.sequence) OVER w AS next_sequence FROM lives l WINDOW w AS (ORDER BY l.source, l.commit_position, l.sequence)),
    truncates AS MATERIALIZED (SELECT t.* FROM (SELECT DISTINCT l.relation FROM lives l) r, LATERAL bemi.truncates(r.relation) t),
    all_of_it AS (SELECT * FROM lives UNION ALL SELECT t.* FROM marked m, LATERAL (SELECT t.* FROM truncates t
      WHERE t.relation = m.relation AND (t.source, t.commit_position, t.sequence) > (m.source, m.commit_position, m.sequence) AND (m.next IS NULL OR (t.source, t.commit_position, t.sequence) < (m.next_source, m.next, m.next_sequence))
      ORDER BY t.source, t.commit_position, t.sequence LIMIT 1) t WHERE m.operation <> 'DELETE')
    SELECT row_number() OVER w::int, a.operation, a.committed_at, lead(a.committed_at) OVER w, a.context, bemi.diff(a.before, a.after), a.after, a.place, a.relation
    FROM all_of_it a WINDOW w AS (ORDER BY a.source, a.commit_position, a.sequence) ORDER BY 1 DESC;
END
$$;

COMMENT ON FUNCTION bemi.life_of(oid[], text[]) IS
'the versions of a row that are recorded, newest first, under all the keys that it had';

-- Waits for the recorder, and tells of gaps.
CREATE FUNCTION bemi.before_history(relations oid[], called text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  gap record;
BEGIN
  PERFORM bemi.sync();
  IF NOT EXISTS (SELECT FROM bemi.table_versions v WHERE v.relation = ANY (relations)) THEN
    RAISE EXCEPTION 'the history of % is not known: it is not tracked', called USING
      ERRCODE = 'object_not_in_prerequisite_state', HINT = format('SELECT bemi.track(%L); -- what happens from then on is recorded', called);
  END IF;
  SELECT min(c.committed_at) AS first, max(c.committed_at) AS last INTO gap FROM bemi.changes c WHERE c.schema = '' AND c."table" = '' AND c.operation = 'GAP';
  IF gap.first IS NOT NULL THEN
    RAISE NOTICE 'changes are missing: see the rows of bemi.changes with the operation GAP, from % to %', gap.first, gap.last;
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.before_history(oid[], text) IS
'waits for the recorder; an error if nothing is known of tables';

CREATE FUNCTION bemi.last_without_key(relation regclass) RETURNS timestamptz
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN (SELECT max(c.committed_at) FROM bemi.recorded_names(bemi.leaves(relation)) n, LATERAL (
    SELECT c.committed_at FROM bemi.changes c WHERE c.schema = n.schema AND c."table" = n."table" AND c.primary_key IS NULL
      AND c.operation IN ('CREATE', 'UPDATE', 'DELETE')
      AND bemi.place(c.source, c.position) >= n.since AND bemi.place(c.source, c.position) < n.until ORDER BY c.committed_at DESC LIMIT 1) c);
END
$$;

COMMENT ON FUNCTION bemi.last_without_key(regclass) IS
'when a row of a table was last changed without a key by which it can be found';

CREATE FUNCTION bemi.history(base anyelement, primary_key text) RETURNS TABLE (
  version int, operation text, committed_at timestamptz, valid_from timestamptz, valid_to timestamptz, context jsonb, changed jsonb, "row" anyelement
)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  relation regclass := bemi.table_of_type(pg_typeof(base));
  asked text := $2;
  keyless timestamptz;
  found record;
  image jsonb;
  virtual_query text;
BEGIN
  PERFORM bemi.require_select(relation), bemi.before_history(bemi.leaves(relation), relation::text);
  PERFORM FROM bemi.key_of(relation);
  keyless := bemi.last_without_key(relation);
  IF keyless IS NOT NULL THEN
    RAISE NOTICE 'changes of % until % were recorded without a key, since it had none then, as while a dump is restored: they are not shown', relation, keyless USING
      HINT = 'See the rows of bemi.changes whose primary_key is null.';
  END IF;
  virtual_query := bemi.virtual_query(relation::oid);
  FOR found IN SELECT * FROM bemi.life_of(bemi.leaves(relation), bemi.recorded_keys(relation, asked)) LOOP
    version := found.version;
    operation := found.operation;
    committed_at := found.valid_from;
    valid_from := found.valid_from;
    valid_to := found.valid_to;
    context := found.context;
    changed := found.changed;
    -- Here, so that errors show no query.
    image := CASE WHEN found.operation IN ('CREATE', 'UPDATE') THEN found.after END;
    "row" := bemi.image_row(base, found.place, image);
    IF virtual_query IS NOT NULL AND image IS NOT NULL THEN
      BEGIN
        EXECUTE virtual_query INTO "row" USING "row", found.place, found.relation;
      EXCEPTION WHEN OTHERS THEN
        RAISE NOTICE 'virtual columns of % are null in its version of %: %', relation, committed_at, SQLERRM;
      END;
    END IF;
    RETURN NEXT;
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.history(anyelement, text) IS
'the versions of a row that are recorded, newest first, under all the keys that it had';

-- A table that has a name, or that had it last, and is known by it.
CREATE FUNCTION bemi.named_table(name text, path name[]) RETURNS oid
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  parts text[] := parse_ident(name);
  schemas text[] := CASE cardinality(parts) WHEN 1 THEN path::text[] ELSE parts[1:1] END;
  result oid;
BEGIN
  IF cardinality(parts) > 2 THEN
    RAISE EXCEPTION 'improper relation name: %', name USING ERRCODE = 'syntax_error', HINT = 'Write it as schema.table.';
  END IF;
  result := (SELECT f.oid FROM (
    SELECT c.oid, 1 AS kind, array_position(schemas, n.nspname::text) AS place, NULL::int AS source, NULL::pg_lsn AS "position"
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relname = parts[cardinality(parts)] AND n.nspname = ANY (schemas) AND c.relkind IN ('r', 'p') AND EXISTS (SELECT FROM bemi.table_versions v WHERE v.relation = c.oid OR v.root = c.oid)
    UNION ALL SELECT v.relation, 2, array_position(schemas, v.schema::text), v.source, v."position"
    FROM bemi.table_versions v WHERE v."table" = parts[cardinality(parts)] AND v.schema = ANY (schemas)
  ) f ORDER BY f.kind, f.place, f.source DESC, f."position" DESC LIMIT 1);
  IF result IS NULL THEN
    RAISE EXCEPTION 'no history is known of a table %', name USING
      ERRCODE = 'undefined_table', HINT = 'Write its schema too. SELECT relation FROM bemi.tracked; shows the tables that are tracked.';
  END IF;
  RETURN result;
END
$$;

COMMENT ON FUNCTION bemi.named_table(text, name[]) IS
'the number of the table that has a name, or had it last';

-- What anybody may read who may read bemi.changes, and no more: also of tables that are gone.
CREATE FUNCTION bemi.recorded_history(relation oid, called text, primary_key text) RETURNS TABLE (
  version int, operation text, committed_at timestamptz, valid_from timestamptz, valid_to timestamptz, context jsonb, changed jsonb, "row" jsonb
)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  asked oid := relation;
  is_there boolean := EXISTS (SELECT FROM pg_class c WHERE c.oid = asked AND c.relkind IN ('r', 'p'));
  relations oid[] := CASE WHEN is_there THEN bemi.leaves(asked::regclass)
    ELSE ARRAY(SELECT DISTINCT v.relation FROM bemi.table_versions v WHERE v.relation = asked OR v.root = asked) END;
BEGIN
  PERFORM bemi.require_changes(), bemi.before_history(relations, called);
  RETURN QUERY
    SELECT h.version, h.operation, h.valid_from, h.valid_from, h.valid_to, h.context, h.changed, CASE WHEN h.operation IN ('CREATE', 'UPDATE') THEN (
        SELECT jsonb_object_agg(e.key, NULLIF(e.value, '"[masked]"')) FROM jsonb_each(CASE WHEN is_there THEN bemi.image_today(asked::regclass, h.after, h.place) ELSE h.after END) e
      ) END
    FROM bemi.life_of(relations, CASE WHEN is_there THEN bemi.recorded_keys(asked::regclass, $3) ELSE bemi.texts_of_key($3) END) h ORDER BY h.version DESC;
END
$$;

COMMENT ON FUNCTION bemi.recorded_history(oid, text, text) IS
'the recorded versions of a row of a table that may be gone, newest first';

CREATE FUNCTION bemi.require_changes() RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF to_regclass('bemi.changes') IS NULL THEN
    RAISE EXCEPTION 'the changes of this database are not recorded' USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'SELECT bemi.start();';
  ELSIF NOT has_table_privilege('bemi.changes', 'SELECT') THEN
    RAISE EXCEPTION 'permission denied for table bemi.changes' USING
      ERRCODE = 'insufficient_privilege', HINT = format('As its owner: GRANT SELECT ON bemi.changes TO %I;', current_user);
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.require_changes() IS
'raises an error if the caller may not read bemi.changes';

CREATE FUNCTION bemi.named_history(name text, path name[], primary_key text) RETURNS TABLE (
  version int, operation text, committed_at timestamptz, valid_from timestamptz, valid_to timestamptz, context jsonb, changed jsonb, "row" jsonb
)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM bemi.require_changes();
  RETURN QUERY SELECT * FROM bemi.recorded_history(bemi.named_table(name, path), name, $3);
END
$$;

COMMENT ON FUNCTION bemi.named_history(text, name[], text) IS
'for bemi.history(): the recorded versions of a row of a table that is found by its name in the schemas of a path';

-- A name is looked for in the schemas of the caller. Of several forms of a function PostgreSQL takes the one with text for what is
-- written as a literal.
CREATE FUNCTION bemi.history(relation text, primary_key text) RETURNS TABLE (
  version int, operation text, committed_at timestamptz, valid_from timestamptz, valid_to timestamptz, context jsonb, changed jsonb, "row" jsonb
)
LANGUAGE sql VOLATILE AS $$
  SELECT * FROM bemi.named_history($1, pg_catalog.current_schemas(false), $2)
$$;

COMMENT ON FUNCTION bemi.history(text, text) IS
'the versions of a row of a table, which may be gone, by its name: SELECT * FROM bemi.history(''todo'', ''26'')';

CREATE FUNCTION bemi.history(relation text, primary_key numeric) RETURNS TABLE (
  version int, operation text, committed_at timestamptz, valid_from timestamptz, valid_to timestamptz, context jsonb, changed jsonb, "row" jsonb
)
LANGUAGE sql VOLATILE AS $$
  SELECT * FROM bemi.named_history($1, pg_catalog.current_schemas(false), pg_catalog.trim_scale($2)::pg_catalog.text)
$$;

COMMENT ON FUNCTION bemi.history(text, numeric) IS
'the versions of a row of a table whose key is a number: SELECT * FROM bemi.history(''todo'', 26)';

CREATE FUNCTION bemi.history(relation regclass, primary_key text) RETURNS TABLE (
  version int, operation text, committed_at timestamptz, valid_from timestamptz, valid_to timestamptz, context jsonb, changed jsonb, "row" jsonb
)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN QUERY SELECT * FROM bemi.recorded_history($1::oid, $1::text, $2);
END
$$;

COMMENT ON FUNCTION bemi.history(regclass, text) IS
'the versions of a row of a table, which may be gone';

CREATE FUNCTION bemi.history(relation regclass, primary_key numeric) RETURNS TABLE (
  version int, operation text, committed_at timestamptz, valid_from timestamptz, valid_to timestamptz, context jsonb, changed jsonb, "row" jsonb
)
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  SELECT * FROM bemi.history($1, trim_scale($2)::text)
$$;

COMMENT ON FUNCTION bemi.history(regclass, numeric) IS
'the versions of a row of a table whose key is a number';

CREATE FUNCTION bemi.history(base anyelement, primary_key numeric) RETURNS TABLE (
  version int, operation text, committed_at timestamptz, valid_from timestamptz, valid_to timestamptz, context jsonb, changed jsonb, "row" anyelement
)
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  SELECT * FROM bemi.history($1, trim_scale($2)::text)
$$;

COMMENT ON FUNCTION bemi.history(anyelement, numeric) IS
'the versions of a row whose key is a number, newest first';
