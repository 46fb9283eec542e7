-- The history of one row: of a table by its row type, or by its name, which may be that of a table that is gone.

CREATE FUNCTION bemi.before_history(relations oid[], called text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  gap record;
BEGIN
  PERFORM bemi.sync();
  IF NOT EXISTS (SELECT FROM bemi.table_versions v WHERE v.relation = ANY (relations)) THEN
    RAISE EXCEPTION 'the history of % is not known: it is not tracked', called USING
      ERRCODE = 'object_not_in_prerequisite_state',
      HINT = format('SELECT bemi.track(%L); -- records its changes from then on', called);
  END IF;
  SELECT min(c.committed_at) AS first, max(c.committed_at) AS last
  INTO gap
  FROM bemi.changes c
  WHERE c.schema = '' AND c."table" = '' AND c.operation = 'GAP';
  IF gap.first IS NOT NULL THEN
    RAISE NOTICE 'changes are missing: see the rows of bemi.changes with the operation GAP, from % to %',
      gap.first, gap.last;
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.before_history(oid[], text) IS
'waits for the recorder, and reports gaps; an error if nothing is known of the tables';

CREATE FUNCTION bemi.last_without_key(relations oid[]) RETURNS timestamptz
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
BEGIN
  RETURN (
    SELECT max(c.committed_at)
    FROM bemi.recorded_names(relations) n,
    LATERAL (
      SELECT c.committed_at
      FROM bemi.changes c
      WHERE c.schema = n.schema
        AND c."table" = n."table"
        AND c.primary_key IS NULL
        AND c.operation IN ('CREATE', 'UPDATE', 'DELETE')
        AND bemi.place(c.source, c.position) >= n.since
        AND bemi.place(c.source, c.position) < n.until
      ORDER BY c.committed_at DESC
      LIMIT 1
    ) c
  );
END
$$;

COMMENT ON FUNCTION bemi.last_without_key(oid[]) IS
'returns when a row of a table was last changed without a recorded key';

CREATE FUNCTION bemi.history(base anyelement, primary_key text) RETURNS TABLE (
  version int,
  operation text,
  committed_at timestamptz,
  valid_from timestamptz,
  valid_to timestamptz,
  context jsonb,
  changed jsonb,
  "row" anyelement
)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  relation regclass := bemi.table_of_type(pg_typeof(base));
  leaves oid[] := bemi.leaves(relation);
  asked text := $2;
  columns bemi.key_column[];
  keyless timestamptz;
  found record;
  image jsonb;
  virtual_query text;
BEGIN
  PERFORM bemi.require_select(relation), bemi.before_history(leaves, relation::text);
  columns := ARRAY(SELECT k FROM bemi.key_of(relation) k);
  keyless := bemi.last_without_key(leaves);
  IF keyless IS NOT NULL THEN
    RAISE NOTICE 'changes of % until % were recorded without a key, as it had none then: they are not shown',
      relation, keyless USING
      HINT = 'See the rows of bemi.changes whose primary_key is null.';
  END IF;
  virtual_query := bemi.virtual_query(relation::oid);
  FOR found IN SELECT * FROM bemi.life_of(leaves, bemi.recorded_keys(relation, asked, columns)) LOOP
    version := found.version;
    operation := found.operation;
    committed_at := found.valid_from;
    valid_from := found.valid_from;
    valid_to := found.valid_to;
    context := found.context;
    changed := found.changed;
    -- Not in the query, so that errors do not show it.
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
'returns the recorded versions of a row under all the keys that it had, newest first';

-- The table that has a name, or the tracked one that had it last.
CREATE FUNCTION bemi.named_table(name text, path name[]) RETURNS oid
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  parts text[] := parse_ident(name);
  last text := parts[cardinality(parts)];
  schemas text[] := CASE cardinality(parts) WHEN 1 THEN path::text[] ELSE parts[1:1] END;
  result oid;
BEGIN
  IF cardinality(parts) > 2 THEN
    RAISE EXCEPTION 'improper relation name: %', name USING
      ERRCODE = 'syntax_error',
      HINT = 'Write it as schema.table.';
  END IF;
  result := (
    SELECT f.oid
    FROM (
      SELECT c.oid, 1 AS kind, array_position(schemas, n.nspname::text) AS place, NULL::int AS source,
        NULL::pg_lsn AS "position"
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE c.relname = last
        AND n.nspname = ANY (schemas)
        AND c.relkind IN ('r', 'p')
        AND EXISTS (SELECT FROM bemi.table_versions v WHERE v.relation = c.oid OR v.root = c.oid)
      UNION ALL
      SELECT v.relation, 2, array_position(schemas, v.schema::text), v.source, v."position"
      FROM bemi.table_versions v
      WHERE v."table" = last AND v.schema = ANY (schemas)
    ) f
    ORDER BY f.kind, f.place, f.source DESC, f."position" DESC
    LIMIT 1
  );
  IF result IS NULL THEN
    RAISE EXCEPTION 'no history of a table % is known', name USING
      ERRCODE = 'undefined_table',
      HINT = 'Write its schema too. SELECT relation FROM bemi.tracked; shows the tables that are tracked.';
  END IF;
  RETURN result;
END
$$;

COMMENT ON FUNCTION bemi.named_table(text, name[]) IS
'returns the OID of the table that has a name, or had it last';

-- For everybody who may read bemi.changes; also of tables that are gone.
CREATE FUNCTION bemi.recorded_history(relation oid, called text, primary_key text) RETURNS TABLE (
  version int,
  operation text,
  committed_at timestamptz,
  valid_from timestamptz,
  valid_to timestamptz,
  context jsonb,
  changed jsonb,
  "row" jsonb
)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  asked oid := relation;
  is_there boolean := EXISTS (SELECT FROM pg_class c WHERE c.oid = asked AND c.relkind IN ('r', 'p'));
  relations oid[] := CASE WHEN is_there THEN bemi.leaves(asked::regclass) ELSE ARRAY(
    SELECT DISTINCT v.relation FROM bemi.table_versions v WHERE v.relation = asked OR v.root = asked
  ) END;
  keys text[];
BEGIN
  PERFORM bemi.require_changes(), bemi.before_history(relations, called);
  keys := CASE WHEN is_there THEN bemi.recorded_keys(asked::regclass, $3) ELSE bemi.texts_of_key($3) END;
  RETURN QUERY
    SELECT h.version, h.operation, h.valid_from, h.valid_from, h.valid_to, h.context, h.changed,
      CASE WHEN h.operation IN ('CREATE', 'UPDATE') THEN (
        SELECT jsonb_object_agg(e.key, NULLIF(e.value, '"[masked]"'))
        FROM jsonb_each(
          CASE WHEN is_there THEN bemi.image_today(asked::regclass, h.after, h.place) ELSE h.after END
        ) e
      ) END
    FROM bemi.life_of(relations, keys) h
    ORDER BY h.version DESC;
END
$$;

COMMENT ON FUNCTION bemi.recorded_history(oid, text, text) IS
'returns the recorded versions of a row of a table that may be gone, newest first';

CREATE FUNCTION bemi.named_history(name text, path name[], primary_key text) RETURNS TABLE (
  version int,
  operation text,
  committed_at timestamptz,
  valid_from timestamptz,
  valid_to timestamptz,
  context jsonb,
  changed jsonb,
  "row" jsonb
)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM bemi.require_changes();
  RETURN QUERY SELECT * FROM bemi.recorded_history(bemi.named_table(name, path), name, $3);
END
$$;

COMMENT ON FUNCTION bemi.named_history(text, name[], text) IS
'for bemi.history(): returns the versions of a row of a table whose name is looked up in the schemas of a path';

-- Looks a name up in the schemas of the caller. Of several forms of a function, PostgreSQL takes the one with text for
-- a literal without a type.
CREATE FUNCTION bemi.history(relation text, primary_key text) RETURNS TABLE (
  version int,
  operation text,
  committed_at timestamptz,
  valid_from timestamptz,
  valid_to timestamptz,
  context jsonb,
  changed jsonb,
  "row" jsonb
)
LANGUAGE sql VOLATILE AS $$
  SELECT * FROM bemi.named_history($1, pg_catalog.current_schemas(false), $2)
$$;

COMMENT ON FUNCTION bemi.history(text, text) IS
'returns the versions of a row of a table, even one that is gone: SELECT * FROM bemi.history(''todo'', ''26'')';

CREATE FUNCTION bemi.history(relation text, primary_key numeric) RETURNS TABLE (
  version int,
  operation text,
  committed_at timestamptz,
  valid_from timestamptz,
  valid_to timestamptz,
  context jsonb,
  changed jsonb,
  "row" jsonb
)
LANGUAGE sql VOLATILE AS $$
  SELECT *
  FROM bemi.named_history($1, pg_catalog.current_schemas(false), pg_catalog.trim_scale($2)::pg_catalog.text)
$$;

COMMENT ON FUNCTION bemi.history(text, numeric) IS
'returns the versions of a row of a table whose key is a number: SELECT * FROM bemi.history(''todo'', 26)';

CREATE FUNCTION bemi.history(relation regclass, primary_key text) RETURNS TABLE (
  version int,
  operation text,
  committed_at timestamptz,
  valid_from timestamptz,
  valid_to timestamptz,
  context jsonb,
  changed jsonb,
  "row" jsonb
)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN QUERY SELECT * FROM bemi.recorded_history($1::oid, $1::text, $2);
END
$$;

COMMENT ON FUNCTION bemi.history(regclass, text) IS
'returns the versions of a row of a table, which may be gone';

CREATE FUNCTION bemi.history(relation regclass, primary_key numeric) RETURNS TABLE (
  version int,
  operation text,
  committed_at timestamptz,
  valid_from timestamptz,
  valid_to timestamptz,
  context jsonb,
  changed jsonb,
  "row" jsonb
)
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  SELECT * FROM bemi.history($1, trim_scale($2)::text)
$$;

COMMENT ON FUNCTION bemi.history(regclass, numeric) IS
'returns the versions of a row of a table whose key is a number';

CREATE FUNCTION bemi.history(base anyelement, primary_key numeric) RETURNS TABLE (
  version int,
  operation text,
  committed_at timestamptz,
  valid_from timestamptz,
  valid_to timestamptz,
  context jsonb,
  changed jsonb,
  "row" anyelement
)
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  SELECT * FROM bemi.history($1, trim_scale($2)::text)
$$;

COMMENT ON FUNCTION bemi.history(anyelement, numeric) IS
'returns the versions of a row whose key is a number, newest first';
