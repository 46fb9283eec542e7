-- Keys as people write them, and the texts under which the changes of such a key are recorded.

-- The members of a key: the key itself, or those of a JSON array.
CREATE FUNCTION bemi.key_members(relation regclass, key text, columns bemi.key_column[]) RETURNS text[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  members text[];
BEGIN
  IF cardinality(columns) = 1 THEN
    RETURN ARRAY[key];
  END IF;
  BEGIN
    members := ARRAY(SELECT jsonb_array_elements_text(key::jsonb));
  EXCEPTION WHEN data_exception THEN
    members := NULL;
  END;
  IF cardinality(members) IS DISTINCT FROM cardinality(columns) OR array_position(members, NULL) IS NOT NULL THEN
    RAISE EXCEPTION '% cannot be a key of %', quote_literal(key), relation USING
      ERRCODE = 'invalid_text_representation',
      DETAIL = format('Its key has the columns %s.', (
        SELECT string_agg(quote_ident(c.name), ', ' ORDER BY c.place) FROM unnest(columns) c
      )),
      HINT = 'Write it as a JSON array of their values, as in ''["7", "a"]''.';
  END IF;
  RETURN members;
END
$$;

COMMENT ON FUNCTION bemi.key_members(regclass, text, bemi.key_column[]) IS
'returns the values of the columns of a key, as texts';

-- The type's input function reads the text. The result has the value as WAL would have it and, if the column would
-- round or cut it to an equal value, as the column would have it. Raises an error if the type does not accept the text.
CREATE FUNCTION bemi.texts_of_member(relation regclass, k bemi.key_column, asked text) RETURNS text[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  free text := k.opening || quote_literal(asked) || k.free;
  fitted text := k.opening || quote_literal(asked) || k.closing;
  -- Neither form calls a cast: the output functions of users' types write their values.
  written text := CASE WHEN k.type < 16384::oid THEN 'to_jsonb(%s) #>> ''{}''' ELSE 'format(''%%s'', %s)' END;
  result text[];
BEGIN
  EXECUTE format('SELECT ARRAY[%s, CASE WHEN %s THEN %s END]',
    format(written, free), format(k.comparison, fitted, free), format(written, fitted)) INTO result;
  RETURN array_remove(result, NULL);
EXCEPTION WHEN data_exception THEN
  RAISE EXCEPTION '% cannot be a key of %', quote_literal(asked), relation USING
    ERRCODE = 'invalid_text_representation',
    DETAIL = format('The column %I is of the type %s: %s.', k.name, format_type(k.type, NULL), SQLERRM);
END
$$;

COMMENT ON FUNCTION bemi.texts_of_member(regclass, bemi.key_column, text) IS
'returns how WAL may have a value of a column of a key';

CREATE FUNCTION bemi.key_condition(columns bemi.key_column[], members text[], recorded text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN (
    SELECT string_agg(format(c.comparison,
      c.opening
        || CASE WHEN cardinality(members) = 1 THEN recorded ELSE format('(%s::jsonb->>%s)', recorded, c.place - 1) END
        || c.free,
      c.opening || quote_literal(members[c.place]) || c.free), ' AND ' ORDER BY c.place)
    FROM unnest(columns) c
  );
END
$$;

COMMENT ON FUNCTION bemi.key_condition(bemi.key_column[], text[], text) IS
'returns in SQL: the condition that a recorded key is a given one';

-- Where equal keys may have several texts (numeric, char(n), citext and the like), compares all that are recorded.
CREATE FUNCTION bemi.equal_keys(relation regclass, columns bemi.key_column[], members text[]) RETURNS text[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  recorded text := $query$
    SELECT r.key
    FROM (
      SELECT c.primary_key AS key
      FROM bemi.recorded_names($1) n
      JOIN bemi.changes c ON c.schema = n.schema AND c."table" = n."table"
      WHERE c.primary_key IS NOT NULL
      UNION
      SELECT c.old_primary_key
      FROM bemi.recorded_names($1) n
      JOIN bemi.changes c ON c.schema = n.schema AND c."table" = n."table"
      WHERE c.old_primary_key IS NOT NULL
    ) r
  $query$;
  condition text := bemi.key_condition(columns, members, 'r.key');
  one text := 'SELECT ' || bemi.key_condition(columns, members, '$1');
  key text;
  is_equal boolean;
  result text[];
BEGIN
  EXECUTE format('SELECT ARRAY(%s WHERE %s)', recorded, condition) INTO result USING bemi.leaves(relation);
  RETURN result;
EXCEPTION WHEN data_exception OR undefined_object THEN
  -- Some were recorded when the table had another key, and are not values of today's key.
  FOR key IN EXECUTE recorded USING bemi.leaves(relation) LOOP
    BEGIN
      EXECUTE one INTO is_equal USING key;
      result := result || CASE WHEN is_equal THEN ARRAY[key] END;
    EXCEPTION WHEN data_exception OR undefined_object THEN
      CONTINUE;
    END;
  END LOOP;
  RETURN result;
END
$$;

COMMENT ON FUNCTION bemi.equal_keys(regclass, bemi.key_column[], text[]) IS
'returns the recorded keys of a table that equal a given one';

CREATE FUNCTION bemi.recorded_keys(relation regclass, key text, columns bemi.key_column[]) RETURNS text[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  members text[];
  k bemi.key_column;
  texts text[];
  results text[] := ARRAY['['];
BEGIN
  IF key IS NULL OR cardinality(columns) = 0 THEN
    RETURN bemi.texts_of_key(key);
  END IF;
  members := bemi.key_members(relation, key, columns);
  FOREACH k IN ARRAY columns LOOP
    texts := bemi.texts_of_member(relation, k, members[k.place]);
    IF cardinality(columns) = 1 THEN
      results := texts;
    ELSE
      results := ARRAY(
        SELECT r || to_json(t)::text || CASE k.place WHEN cardinality(columns) THEN ']' ELSE ',' END
        FROM unnest(results) r, unnest(texts) t
      );
    END IF;
  END LOOP;
  IF false = ANY (ARRAY(SELECT c.has_one_text FROM unnest(columns) c)) THEN
    results := results || bemi.equal_keys(relation, columns, members);
  END IF;
  RETURN ARRAY(SELECT DISTINCT r COLLATE "C" FROM unnest(results) r);
END
$$;

COMMENT ON FUNCTION bemi.recorded_keys(regclass, text, bemi.key_column[]) IS
'returns the texts under which the changes of a key with given columns may be recorded';

CREATE FUNCTION bemi.recorded_keys(relation regclass, key text) RETURNS text[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  columns bemi.key_column[];
BEGIN
  IF key IS NULL OR relation IS NULL THEN
    RETURN bemi.texts_of_key(key);
  END IF;
  BEGIN
    columns := ARRAY(SELECT k FROM bemi.key_of(relation) k);
  EXCEPTION WHEN object_not_in_prerequisite_state THEN
    -- Such a key can only be compared as a text.
    RETURN bemi.texts_of_key(key);
  END;
  RETURN bemi.recorded_keys(relation, key, columns);
END
$$;

COMMENT ON FUNCTION bemi.recorded_keys(regclass, text) IS
'returns the texts under which the changes of a key of a table may be recorded';

CREATE FUNCTION bemi.texts_of_key(key text) RETURNS text[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF key LIKE '[%]' THEN
    RETURN ARRAY[key, '[' || (
      SELECT string_agg(to_json(m.value)::text, ',' ORDER BY m.place)
      FROM jsonb_array_elements_text(key::jsonb) WITH ORDINALITY AS m (value, place)
    ) || ']'];
  END IF;
  RETURN ARRAY[key];
EXCEPTION WHEN data_exception THEN
  RETURN ARRAY[key];
END
$$;

COMMENT ON FUNCTION bemi.texts_of_key(text) IS
'returns a key as it is written and, if it is a JSON array, as the recorder writes it';
