-- How changes are undone: literals and statements, and the plan for a selection of changes. Nothing here looks at the
-- rows that are there now.

-- How a change is undone.
CREATE TYPE bemi.undo AS (
  -- Their order: 1 is the newest.
  number bigint,
  relation regclass,
  operation text,
  primary_key text,
  before jsonb,
  after jsonb,
  -- The columns that an UPDATE is to set.
  changed text[],
  -- What names the row, among all rows of all tables and in a WHERE clause, after the change and before it.
  row_after text,
  row_before text,
  where_after text,
  where_before text,
  -- Columns that were masked, and stay as they are.
  kept text[],
  detail text,
  -- Why it cannot be undone, if it cannot.
  problem text,
  transaction_id bigint,
  commit_position pg_lsn,
  sequence int
);

-- Returns a key as the column primary_key has it.
CREATE FUNCTION bemi.key_text(key jsonb, image jsonb) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF jsonb_array_length(key) = 1 THEN
    RETURN image ->> (key ->> 0);
  END IF;
  RETURN (
    SELECT CASE WHEN bool_and(image ? k) THEN jsonb_agg(image ->> k ORDER BY place) END
    FROM jsonb_array_elements_text(key) WITH ORDINALITY e (k, place));
END
$$;

COMMENT ON FUNCTION bemi.key_text(jsonb, jsonb) IS
'the key of a row as text';

-- Runs under the settings of the recorded text, which settings.sql pins for its callers.
CREATE FUNCTION bemi.made_text(type oid, value jsonb) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF type = 'money'::regtype::oid THEN
    RETURN (value #>> '{}'::text[])::money::numeric;
  END IF;
  RETURN bemi.value_text(type, value);
END
$$;

COMMENT ON FUNCTION bemi.made_text(oid, jsonb) IS
'the text of a value, made of its JSON';

CREATE FUNCTION bemi.literal(col jsonb, value jsonb) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF value IS NULL OR value = 'null' THEN
    -- JSON has a null of its own, which looks the same.
    RETURN CASE
      WHEN col ->> 'kind' = 'json' AND (col -> 'is_not_null')::boolean THEN format('''null''::%s', col ->> 'type')
      ELSE 'NULL' END;
  END IF;
  RETURN format('%L::%s',
    CASE col ->> 'kind'
      WHEN 'plain' THEN value #>> '{}'
      WHEN 'json' THEN value::text
      ELSE bemi.made_text((col ->> 'type_oid')::oid, value) END,
    col ->> 'type');
END
$$;

COMMENT ON FUNCTION bemi.literal(jsonb, jsonb) IS
'a value as SQL, made of its JSON';

-- Returns the condition that a column has a value.
CREATE FUNCTION bemi.is_still(name text, col jsonb, value jsonb) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF value IS NULL OR value = 'null' THEN
    RETURN CASE col ->> 'kind'
      WHEN 'json' THEN
        format('COALESCE(pg_catalog.to_jsonb(%I), ''null'') OPERATOR(pg_catalog.=) ''null''::jsonb', name)
      -- Of a composite value, IS NULL would ask for its members.
      WHEN 'made' THEN format('%I IS NOT DISTINCT FROM NULL', name)
      ELSE format('%I IS NULL', name) END;
  ELSIF col ->> 'equality' IS NULL THEN
    RETURN format('pg_catalog.to_jsonb(%I) OPERATOR(pg_catalog.=) %L::jsonb', name, value);
  END IF;
  RETURN format('%I %s %s', name, col ->> 'equality', bemi.literal(col, value));
END
$$;

COMMENT ON FUNCTION bemi.is_still(text, jsonb, jsonb) IS
'the condition that a column has a value, as SQL';

CREATE FUNCTION bemi.where_key(t jsonb, image jsonb) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  name text := t -> 'key' ->> 0;
BEGIN
  IF jsonb_array_length(t -> 'key') = 1 THEN
    RETURN bemi.is_still(name, t -> 'columns' -> name, image -> name);
  END IF;
  RETURN (
    SELECT string_agg(bemi.is_still(k, t -> 'columns' -> k, image -> k), ' AND ' ORDER BY place)
    FROM jsonb_array_elements_text(t -> 'key') WITH ORDINALITY e (k, place));
END
$$;

COMMENT ON FUNCTION bemi.where_key(jsonb, jsonb) IS
'the condition that a row has the key of an image, as SQL';

-- Returns the statement that undoes a change. The columns have to be as `now` has them; most often that is the image
-- after the change.
CREATE FUNCTION bemi.undo_statement(t jsonb, u bemi.undo, now jsonb) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  cols jsonb := t -> 'columns';
  sets text;
  guards text;
BEGIN
  IF u.operation = 'CREATE' THEN
    RETURN format('DELETE FROM %s WHERE %s;', t ->> 'source', u.where_after);
  ELSIF u.operation = 'UPDATE' THEN
    SELECT
      string_agg(format('%I = %s', c, CASE
        -- An ignored column may have changed since: then it stays as it is.
        WHEN (cols -> c -> 'is_ignored')::boolean THEN format('CASE WHEN %s THEN %s ELSE %I END',
          bemi.is_still(c, cols -> c, now -> c), bemi.literal(cols -> c, u.before -> c), c)
        ELSE bemi.literal(cols -> c, u.before -> c) END), ', ' ORDER BY place),
      string_agg(' AND ' || bemi.is_still(c, cols -> c, now -> c), '' ORDER BY place)
        FILTER (WHERE NOT (t -> 'key') ? c AND NOT (cols -> c -> 'is_ignored')::boolean)
    INTO sets, guards
    FROM (SELECT n AS c, (cols -> n -> 'place')::int AS place FROM unnest(u.changed) n) e;
    RETURN format('UPDATE %s SET %s WHERE %s%s;', t ->> 'source', sets, u.where_after, guards);
  END IF;
  SELECT
    string_agg(quote_ident(c), ', ' ORDER BY place),
    string_agg(bemi.literal(cols -> c, u.before -> c), ', ' ORDER BY place)
  INTO sets, guards
  FROM (SELECT key AS c, (value -> 'place')::int AS place FROM jsonb_each(cols)) e
  WHERE u.before ? c AND NOT (t -> 'generated') ? c;
  RETURN format('INSERT INTO %s (%s)%s VALUES (%s);', t ->> 'name', sets,
    CASE WHEN t -> 'always' <> '[]' THEN ' OVERRIDING SYSTEM VALUE' ELSE '' END, guards);
END
$$;

COMMENT ON FUNCTION bemi.undo_statement(jsonb, bemi.undo, jsonb) IS
'the statement that undoes a change';

-- Returns an image as the table of today would have it. Nothing else here asks what columns were like when it was
-- recorded.
CREATE FUNCTION bemi.undo_image(t jsonb, image jsonb, "position" bigint) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN CASE
    WHEN (t -> 'is_as_ever')::boolean THEN image
    ELSE bemi.image_today((t ->> 'oid')::oid::regclass, image, "position") END;
END
$$;

COMMENT ON FUNCTION bemi.undo_image(jsonb, jsonb, bigint) IS
'an image of a row, recorded at a position of the log, as the table of today would have it';

-- Returns the columns of an image whose values can no longer be read as they were, and why: {"column": reason}. Values
-- that only the code of others could read are left to the statement.
CREATE FUNCTION bemi.undo_problems(t jsonb, image jsonb, place bigint) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  col record;
  result jsonb := '{}';
BEGIN
  IF NOT (t -> 'is_as_ever')::boolean THEN
    BEGIN
      -- In a statement of its own, so that what is looked up for it is kept.
      result := COALESCE(bemi.image_problems((t ->> 'oid')::oid::regclass, image, place), '{}');
      IF result <> '{}' THEN
        -- Generated columns need not be read.
        result := result - ARRAY(SELECT jsonb_array_elements_text(t -> 'generated'));
      END IF;
      RETURN result;
    EXCEPTION WHEN insufficient_privilege THEN
      image := bemi.undo_image(t, image, place);
    END;
  END IF;
  FOR col IN
    SELECT r AS name, image -> r AS value, (t #>> ARRAY['columns', r, 'type_oid'])::oid AS type
    FROM jsonb_array_elements_text(t -> 'looked_up') r
    WHERE image -> r NOT IN ('null', '"[masked]"')
  LOOP
    BEGIN
      PERFORM bemi.value_text(col.type, col.value);
    EXCEPTION
      WHEN data_exception OR undefined_object OR undefined_table OR undefined_function OR ambiguous_function
        OR invalid_schema_name OR datatype_mismatch OR syntax_error
      THEN
        result := result || jsonb_build_object(col.name, SQLERRM);
      WHEN insufficient_privilege THEN
        NULL;
    END;
  END LOOP;
  RETURN result;
END
$$;

COMMENT ON FUNCTION bemi.undo_problems(jsonb, jsonb, bigint) IS
'the columns of an image whose values can no longer be read as they were, and why';

CREATE FUNCTION bemi.quoted(names text[]) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT string_agg(quote_ident(n), ', ') FROM unnest(names) n
$$;

COMMENT ON FUNCTION bemi.quoted(text[]) IS
'names as a list in SQL';

-- Returns why the columns of a table keep a change from being undone.
CREATE FUNCTION bemi.column_problem(
  t jsonb, u bemi.undo, omitted jsonb, OUT problem text, OUT code text, OUT more text, OUT hint text
)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  cols jsonb := t -> 'columns';
  names text[];
BEGIN
  code := 'object_not_in_prerequisite_state';
  hint := 'Narrow the selection, and fix this row by hand.';
  IF u.operation = 'UPDATE' THEN
    names := ARRAY(SELECT c FROM unnest(u.changed) c WHERE NOT cols ? c);
    IF names <> '{}' THEN
      problem := format('the table no longer has the column %s', bemi.quoted(names));
      code := 'undefined_column';
      hint := 'Add the column again, or narrow the selection, and fix this row by hand.';
      RETURN;
    END IF;
    names := ARRAY(SELECT c FROM unnest(u.changed) c WHERE (t -> 'always') ? c);
    IF names <> '{}' THEN
      problem := format('the column %s is GENERATED ALWAYS AS IDENTITY and cannot be set', quote_ident(names[1]));
      code := 'feature_not_supported';
      hint := format('ALTER TABLE %s ALTER %I SET GENERATED BY DEFAULT; makes it possible.', t ->> 'name', names[1]);
      RETURN;
    END IF;
  END IF;
  names := ARRAY(SELECT k FROM jsonb_object_keys(omitted) k WHERE cols ? k AND NOT (t -> 'generated') ? k);
  IF names <> '{}' THEN
    problem := format('the value of %s was omitted', bemi.quoted(names));
    more := omitted;
  ELSIF u.operation <> 'UPDATE' THEN
    names := bemi.masked_in(t, u);
    IF names <> '{}' THEN
      problem := format('the value of %s was masked', bemi.quoted(names));
      hint := 'No record has it. Narrow the selection, and insert this row by hand.';
    END IF;
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.column_problem(jsonb, bemi.undo, jsonb) IS
'why the columns of a table keep a change from being undone';

-- Returns why a change cannot be undone whatever its row is like now: a message, and what belongs to it as an error.
CREATE FUNCTION bemi.undo_problem(
  t jsonb, u bemi.undo, omitted jsonb, OUT problem text, OUT code text, OUT more text, OUT hint text
)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  key jsonb := t -> 'key';
  image jsonb := CASE WHEN u.operation IN ('CREATE', 'UPDATE') THEN u.after ELSE u.before END;
BEGIN
  code := 'object_not_in_prerequisite_state';
  hint := 'Narrow the selection, and fix this row by hand.';
  IF u.primary_key IS NULL OR omitted ? 'primary_key' THEN
    problem := 'nothing names the row';
    hint := 'The table had no key, or one that is too long to be recorded. ' || hint;
  ELSIF omitted ?| '{before,after}' THEN
    problem := 'bemi.changes could not hold its images';
  ELSIF u.operation = 'UPDATE' AND NOT u.before ?& ARRAY(SELECT jsonb_object_keys(u.after))
    OR u.operation <> 'CREATE'
      AND NOT EXISTS (SELECT FROM jsonb_object_keys(u.before) k WHERE NOT key ? k)
      AND (u.before = '{}' OR EXISTS (
        SELECT
        FROM jsonb_object_keys(t -> 'columns') k
        WHERE NOT key ? k AND NOT (t -> 'generated') ? k))
  THEN
    problem := 'the row before it was not recorded';
    hint := format('From now on it is with SELECT bemi.track(%L); which sets REPLICA IDENTITY FULL. %s',
      t ->> 'name', hint);
  ELSIF key = '[]'
    OR bemi.key_text(key, image) IS DISTINCT FROM u.primary_key
      AND (jsonb_array_length(key) = 1
        OR u.primary_key NOT LIKE '[%]'
        OR bemi.key_text(key, image)::jsonb IS DISTINCT FROM u.primary_key::jsonb)
  THEN
    problem := 'the table no longer has the key by which the row was recorded';
    hint := 'Give the table that primary key again, or narrow the selection, and fix this row by hand.';
  ELSIF u.operation <> 'CREATE' THEN
    SELECT c.* INTO problem, code, more, hint FROM bemi.column_problem(t, u, omitted) c;
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.undo_problem(jsonb, bemi.undo, jsonb) IS
'why a change cannot be undone, whatever the row is like now';

CREATE FUNCTION bemi.masked_in(t jsonb, u bemi.undo) RETURNS text[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT ARRAY(
    SELECT c
    FROM jsonb_array_elements_text(t -> 'masked') c
    WHERE '"[masked]"' IN (u.before -> c, u.after -> c) AND NOT (t -> 'generated') ? c)
$$;

COMMENT ON FUNCTION bemi.masked_in(jsonb, bemi.undo) IS
'the columns that are masked in an image of a change';

-- Completes the undo of a change, whose images are those of today. If it cannot be undone, that is an error, or its
-- problem if such changes are skipped.
CREATE FUNCTION bemi.plan_undo(t jsonb, u bemi.undo, omitted jsonb, problems jsonb, is_skipping boolean)
RETURNS bemi.undo
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  key jsonb := t -> 'key';
  names text[];
  refused record;
BEGIN
  u.after := u.after - ARRAY(SELECT jsonb_object_keys(omitted));
  IF u.operation = 'UPDATE' THEN
    u.changed := ARRAY(
      SELECT b.key
      FROM jsonb_each(u.before) b
      WHERE b.value::text IS DISTINCT FROM (u.after -> b.key)::text AND NOT omitted ? b.key);
  END IF;
  SELECT * INTO refused FROM bemi.undo_problem(t, u, omitted);
  IF refused.problem IS NOT NULL AND NOT is_skipping THEN
    PERFORM bemi.refuse_undo(t ->> 'name', u, refused.problem, refused.code, refused.more, refused.hint);
  END IF;
  u.problem := COALESCE(refused.problem, (
    SELECT string_agg(format('what was recorded of %I cannot be read: %s', p.key, p.value), '. ')
    FROM jsonb_each_text(problems) p));
  IF u.operation = 'UPDATE' THEN
    IF t -> 'masked' <> '[]' THEN
      u.changed := ARRAY(
        SELECT c
        FROM unnest(u.changed) c
        WHERE NOT (t -> 'masked') ? c OR '"[masked]"' NOT IN (u.before -> c, u.after -> c));
      u.kept := nullif(bemi.masked_in(t, u), '{}');
    END IF;
    u.changed := ARRAY(SELECT c FROM unnest(u.changed) c WHERE NOT (t -> 'generated') ? c);
    u.detail := 'masked, and left as they are: ' || bemi.quoted(u.kept);
  ELSIF u.operation <> 'CREATE' THEN
    names := ARRAY(SELECT k FROM jsonb_object_keys(u.before) k WHERE NOT (t -> 'columns') ? k);
    u.detail := 'no longer columns, and left out: ' || bemi.quoted(names);
  END IF;
  IF u.operation IN ('CREATE', 'UPDATE') THEN
    u.row_after := concat(t ->> 'oid', ':', bemi.key_text(key, u.after));
  END IF;
  IF u.operation <> 'CREATE' THEN
    u.row_before := concat(t ->> 'oid', ':', bemi.key_text(key, u.before));
  END IF;
  IF u.problem IS NULL THEN
    BEGIN
      u.where_after := CASE WHEN u.row_after IS NOT NULL THEN bemi.where_key(t, u.after) END;
      u.where_before := CASE
        WHEN u.row_before = u.row_after THEN u.where_after
        WHEN u.row_before IS NOT NULL THEN bemi.where_key(t, u.before) END;
    EXCEPTION WHEN data_exception OR undefined_object OR undefined_table OR datatype_mismatch THEN
      u.problem := 'its key cannot be read: ' || SQLERRM;
    END;
  END IF;
  RETURN u;
END
$$;

COMMENT ON FUNCTION bemi.plan_undo(jsonb, bemi.undo, jsonb, jsonb, boolean) IS
'how a change is to be undone; an error if it cannot be';

CREATE FUNCTION bemi.refuse_undo("table" text, u bemi.undo, problem text, code text, more text, hint text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  problem := format('bemi cannot undo the %s of the row %s of %s, recorded at %s (sequence %s): %s',
    u.operation, COALESCE(u.primary_key, 'without a key'), "table", u.commit_position, u.sequence, problem);
  IF more IS NOT NULL THEN
    RAISE EXCEPTION USING MESSAGE = problem, ERRCODE = code, DETAIL = more, HINT = hint;
  END IF;
  RAISE EXCEPTION USING MESSAGE = problem, ERRCODE = code, HINT = hint;
END
$$;

COMMENT ON FUNCTION bemi.refuse_undo(text, bemi.undo, text, text, text, text) IS
'raises the error that a change cannot be undone';
