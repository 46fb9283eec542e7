-- Recorded images of rows, read as rows of today's table.

-- The names that a column had, from which position of the log on; null where it was not there.
CREATE FUNCTION @extschema@.column_names(relation oid, number smallint) RETURNS TABLE (since bigint, name text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT @extschema@.position_number(v.position), v.name FROM (
    SELECT v.position, v.columns ->> number::text AS name,
      v.columns ->> number::text IS DISTINCT FROM lag(v.columns ->> number::text) OVER (ORDER BY v.position) OR row_number() OVER (ORDER BY v.position) = 1 AS is_renamed
    FROM @extschema@.table_versions v WHERE v.relation = column_names.relation AND v.columns IS NOT NULL
  ) v WHERE v.is_renamed ORDER BY v.position
$$;

COMMENT ON FUNCTION @extschema@.column_names(oid, smallint) IS
'the names that a column of a table had, and from which position of the log on';

CREATE FUNCTION @extschema@.masked_columns(relation oid) RETURNS SETOF text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT DISTINCT m FROM @extschema@.table_versions v, unnest(v.masked) m WHERE v.relation = masked_columns.relation OR v.root = masked_columns.relation
$$;

COMMENT ON FUNCTION @extschema@.masked_columns(oid) IS
'the columns of a table, and of its partitions, that are masked or once were';

-- In SQL: an image of a row of a table with the keys that its columns have today, as jsonb_populate_record reads it, without
-- what is masked.
CREATE FUNCTION @extschema@.image_expression(relation oid, image text, "position" text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  masked text[] := ARRAY(SELECT @extschema@.masked_columns(relation));
  -- The type of hstore, whose images are objects.
  hstore oid := (SELECT t.oid FROM pg_extension e JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.classid = 'pg_type'::regclass
    JOIN pg_type t ON t.oid = d.objid WHERE e.extname = 'hstore' AND t.typname = 'hstore');
  number smallint;
  name text;
  type oid;
  names record;
  value text;
  members text[] := '{}';
BEGIN
  FOR number, name, type IN SELECT attnum, attname, atttypid FROM pg_attribute WHERE attrelid = relation AND attnum > 0 AND NOT attisdropped ORDER BY attnum LOOP
    SELECT array_agg(n.name ORDER BY n.since) AS names, array_agg(n.since ORDER BY n.since) AS since INTO names FROM @extschema@.column_names(relation, number) n;
    value := format('%s->%L', image, name);
    IF cardinality(names.names) > 1 THEN
      SELECT format('CASE %s ELSE %s END', string_agg(format('WHEN %s < %s THEN %s', "position", names.since[i + 1],
        CASE WHEN names.names[i] IS NULL THEN 'NULL' ELSE format('%s->%L', image, names.names[i]) END), ' ' ORDER BY i), value)
      INTO value FROM generate_series(1, cardinality(names.names) - 1) i;
    END IF;
    IF name = ANY (masked) OR names.names && masked THEN
      value := format('NULLIF(%s, %L::jsonb)', value, '"[masked]"');
    END IF;
    IF type = hstore THEN
      value := format('CASE jsonb_typeof(%1$s) WHEN ''object'' THEN to_jsonb(COALESCE((SELECT %2$s.hstore(array_agg(e.key), array_agg(e.value)) FROM jsonb_each_text(%1$s) e)::text, '''')) END',
        value, (SELECT typnamespace::regnamespace FROM pg_type WHERE oid = hstore));
    END IF;
    IF value <> format('%s->%L', image, name) THEN
      members := members || format('%L, %s', name, value);
    END IF;
  END LOOP;
  -- A function takes a hundred arguments at most.
  RETURN image || COALESCE((SELECT string_agg(' || jsonb_build_object(' || part || ')', '') FROM (
    SELECT string_agg(member, ', ') AS part FROM unnest(members) WITH ORDINALITY AS m (member, place) GROUP BY (place - 1) / 40
  ) p), '');
END
$$;

COMMENT ON FUNCTION @extschema@.image_expression(oid, text, text) IS
'in SQL: an image of a row with the keys that its columns have today';

-- Columns that had other names, or were not there, at a position of the log.
CREATE FUNCTION @extschema@.renamed_columns(relation oid, "position" bigint) RETURNS TABLE (name text, name_then text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT a.attname, (n.names[n.place]) FROM pg_attribute a, LATERAL (
    SELECT array_agg(c.name ORDER BY c.since) AS names, count(*) FILTER (WHERE c.since <= renamed_columns."position") AS place FROM @extschema@.column_names(relation, a.attnum) c
  ) n WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped AND cardinality(n.names) > 1
$$;

COMMENT ON FUNCTION @extschema@.renamed_columns(oid, bigint) IS
'the columns of a table that had more than one name, and which one at a position of the log';

-- What an image does not have stays away.
CREATE FUNCTION @extschema@.image_today(relation regclass, image jsonb, "position" bigint) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  names text[];
  names_then text[];
BEGIN
  SELECT COALESCE(array_agg(r.name), '{}'), COALESCE(array_agg(r.name_then), '{}') INTO names, names_then FROM @extschema@.renamed_columns(relation::oid, image_today."position") r;
  RETURN (image - names - array_remove(names_then, NULL)) || COALESCE((
    SELECT jsonb_object_agg(n.name, image -> n.name_then) FROM unnest(names, names_then) AS n (name, name_then) WHERE image ? n.name_then), '{}');
END
$$;

COMMENT ON FUNCTION @extschema@.image_today(regclass, jsonb, bigint) IS
'an image of a row, recorded at a position of the log, with the keys that its columns have today';

-- What was left out of a change may be what somebody asks for.
CREATE FUNCTION @extschema@.whole(image jsonb, omitted jsonb, "table" text, primary_key text) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  missing text := (SELECT string_agg(quote_ident(o), ', ') FROM jsonb_object_keys(omitted) o
    WHERE o NOT IN ('context', 'after', 'primary_key', 'old_primary_key') AND image ->> o IS NULL);
BEGIN
  IF missing IS NOT NULL THEN
    RAISE EXCEPTION 'the row % of % cannot be known: % was left out when its change was recorded', primary_key, "table", missing USING
      ERRCODE = 'object_not_in_prerequisite_state', DETAIL = omitted::text, HINT = 'Leave the row out by a condition on its key; bemi.changes has the rest of it.';
  END IF;
  RETURN image;
END
$$;

COMMENT ON FUNCTION @extschema@.whole(jsonb, jsonb, text, text) IS
'an image of a row, or an error if something of it was left out';
