-- Recorded images of rows, read as rows of today's table.

-- The names that a column had, from which place (see bemi.place) on; null where it was not there.
CREATE FUNCTION bemi.column_names(relation oid, number smallint) RETURNS TABLE (since bigint, name text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT v.place, v.name FROM (
    SELECT bemi.place(v.source, v.position) AS place, v.columns ->> number::text AS name,
      v.columns ->> number::text IS DISTINCT FROM lag(v.columns ->> number::text) OVER (ORDER BY v.source, v.position) OR row_number() OVER (ORDER BY v.source, v.position) = 1 AS is_renamed
    FROM bemi.table_versions v WHERE v.relation = column_names.relation AND v.columns IS NOT NULL
  ) v WHERE v.is_renamed ORDER BY v.place
$$;

COMMENT ON FUNCTION bemi.column_names(oid, smallint) IS
'the names that a column of a table had, and from which place on';

CREATE FUNCTION bemi.masked_columns(relation oid) RETURNS SETOF text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT DISTINCT m FROM bemi.table_versions v, unnest(v.masked) m WHERE v.relation = masked_columns.relation OR v.root = masked_columns.relation
$$;

COMMENT ON FUNCTION bemi.masked_columns(oid) IS
'the columns of a table, and of its partitions, that are masked or once were';

-- All that bemi.image_row() has to know of a table. What is the same as in the version before is left out.
CREATE FUNCTION bemi.versions_of(relation oid) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN jsonb_build_object('name', versions_of.relation::regclass::text,
    'today', (SELECT COALESCE(jsonb_object_agg(a.attnum, a.attname), '{}'::jsonb) FROM pg_attribute a
      WHERE a.attrelid = versions_of.relation AND a.attnum > 0 AND NOT a.attisdropped),
    'masked', to_jsonb(ARRAY(SELECT bemi.masked_columns(versions_of.relation))),
    'versions', (SELECT COALESCE(jsonb_agg(jsonb_build_object(
        'position', bemi.place(v.source, v.position)::text, 'at', v.noted_at::text, 'is_late', v.is_late, 'rewrites', v.rewrites,
        'columns', CASE WHEN v.columns IS DISTINCT FROM v.columns_before THEN v.columns END,
        'types', CASE WHEN v.types IS DISTINCT FROM v.types_before THEN v.types END) ORDER BY v.source, v.position), '[]'::jsonb)
      FROM (SELECT *, lag(o.columns) OVER w AS columns_before, lag(o.types) OVER w AS types_before FROM bemi.table_versions o
        WHERE o.relation = versions_of.relation AND o.columns IS NOT NULL WINDOW w AS (ORDER BY o.source, o.position)) v));
END
$$;

COMMENT ON FUNCTION bemi.versions_of(oid) IS
'what a table was like at all times, for bemi.image_row()';

-- In SQL: what bemi.image_row() takes behind the row type.
CREATE FUNCTION bemi.image_expression(relation oid, image text, "position" text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT "position" || ', '::text || image
$$;

COMMENT ON FUNCTION bemi.image_expression(oid, text, text) IS
'in SQL: the position and the image for bemi.image_row()';

CREATE FUNCTION bemi.time_at(place bigint) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  -- It committed behind that, as did those that are left aside.
  RETURN COALESCE((SELECT c.committed_at::text FROM bemi.changes c
    WHERE c.source = bemi.place_source(time_at.place) AND c.position = bemi.place_position(time_at.place)
      AND c.commit_position >= '0/0'::pg_lsn + bemi.place_position(time_at.place)::numeric ORDER BY c.commit_position LIMIT 1), 'an unknown time'::text);
EXCEPTION WHEN insufficient_privilege THEN
  RETURN 'an unknown time'::text;
END
$$;

COMMENT ON FUNCTION bemi.time_at(bigint) IS
'when a change was committed that is at a place';

-- Whose input function would run code that its owner may have written: in a domain's constraints, or as the canonical function
-- of a range. bemi.image_row() asks it once for each type. What the caller owns he has to answer for himself.
CREATE FUNCTION bemi.require_input(type oid) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  culprit record;
BEGIN
  WITH RECURSIVE parts AS (
    SELECT require_input.type AS part
    UNION
    SELECT n.part FROM parts p JOIN pg_type t ON t.oid = p.part, LATERAL (
      SELECT t.typbasetype AS part WHERE t.typtype = 'd'::"char"
      UNION ALL SELECT t.typelem WHERE t.typtype = 'b'::"char"
      UNION ALL SELECT a.atttypid FROM pg_attribute a WHERE t.typtype = 'c'::"char" AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
      UNION ALL SELECT r.rngsubtype FROM pg_range r WHERE r.rngtypid = t.oid
      UNION ALL SELECT r.rngtypid FROM pg_range r WHERE r.rngmultitypid = t.oid
    ) n WHERE n.part >= 16384::oid
  )
  SELECT t.oid, pg_get_userbyid(t.typowner) AS owner, CASE WHEN c.is_constrained THEN 'the domain has constraints'::text
    ELSE 'a function of the type is written in another language than C'::text END AS why
  INTO culprit
  FROM parts p JOIN pg_type t ON t.oid = p.part, LATERAL (
    SELECT t.typtype = 'd'::"char" AND (t.typnotnull OR EXISTS (SELECT FROM pg_constraint k WHERE k.contypid = t.oid)) AS is_constrained,
      EXISTS (SELECT FROM pg_proc f WHERE f.prolang NOT IN (SELECT l.oid FROM pg_language l WHERE l.lanname IN ('internal'::name, 'c'::name))
        AND (f.oid = t.typinput::oid OR f.oid IN (SELECT r.rngcanonical::oid FROM pg_range r WHERE r.rngtypid = t.oid))) AS is_written
  ) c WHERE (c.is_constrained OR c.is_written) AND t.typowner <> (SELECT r.oid FROM pg_roles r WHERE r.rolname = current_user)
  ORDER BY t.oid LIMIT 1;
  IF culprit.oid IS NOT NULL THEN
    RAISE EXCEPTION 'a recorded value of the type % is not read: that would run code of another role', format_type(require_input.type, NULL::int4) USING
      ERRCODE = 'insufficient_privilege', DETAIL = format('%s: %s.', format_type(culprit.oid, NULL::int4), culprit.why),
      HINT = format('SET ROLE %I; -- then it is read with the rights of this role', culprit.owner);
  END IF;
  RETURN true;
END
$$;

COMMENT ON FUNCTION bemi.require_input(oid) IS
'raises an error if the input function of a type would run code of another role';

-- Values of what is recorded. Domains are read as the types that they are made of, without their constraints, and casts are not
-- used: so none of the code of a table's owner runs with the rights of those who read its past.
-- What a value was when it was recorded becomes what ALTER TABLE made of such values since. A value that cannot be read so is null,
-- and a NOTICE says it.
CREATE FUNCTION bemi.image_row(base anyelement, "position" bigint, image jsonb) RETURNS anyelement
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'bemi_image_row';

COMMENT ON FUNCTION bemi.image_row(anyelement, bigint, jsonb) IS
'the row of a table whose image was recorded at a position of the log';

-- What an image does not have stays away. Values that cannot be read stay as they are: see image_problems().
CREATE FUNCTION bemi.image_today(relation regclass, image jsonb, "position" bigint) RETURNS jsonb
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'bemi_image_today';

COMMENT ON FUNCTION bemi.image_today(regclass, jsonb, bigint) IS
'an image of a row, recorded at a position of the log, as it would be recorded today';

CREATE FUNCTION bemi.image_problems(relation regclass, image jsonb, "position" bigint) RETURNS jsonb
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'bemi_image_problems';

COMMENT ON FUNCTION bemi.image_problems(regclass, jsonb, bigint) IS
'the columns whose values in an image, recorded at a position of the log, cannot be read exactly, and why; NULL if all can';

CREATE FUNCTION bemi.key_value(key text, base anyelement) RETURNS anyelement
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'bemi_key_value';

COMMENT ON FUNCTION bemi.key_value(text, anyelement) IS
'the value of a type whose text is recorded so';

CREATE FUNCTION bemi.value_text(type oid, value jsonb) RETURNS text
LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'bemi_value_text';

COMMENT ON FUNCTION bemi.value_text(oid, jsonb) IS
'the text of the value of a type that is recorded so';

CREATE FUNCTION bemi.enum_number(label anyenum) RETURNS oid
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'bemi_enum_number';

COMMENT ON FUNCTION bemi.enum_number(anyenum) IS
'the number that stands for a label of an enum';

-- Columns that had other names, or were not there, at a place.
CREATE FUNCTION bemi.renamed_columns(relation oid, "position" bigint) RETURNS TABLE (name text, name_then text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT a.attname, (n.names[n.place]) FROM pg_attribute a, LATERAL (
    SELECT array_agg(c.name ORDER BY c.since) AS names, count(*) FILTER (WHERE c.since <= renamed_columns."position") AS place FROM bemi.column_names(relation, a.attnum) c
  ) n WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped AND cardinality(n.names) > 1
$$;

COMMENT ON FUNCTION bemi.renamed_columns(oid, bigint) IS
'the columns of a table that had more than one name, and which one at a position of the log';

-- As image_today(), of an object whose values are none of the columns.
CREATE FUNCTION bemi.keys_today(relation regclass, image jsonb, "position" bigint) RETURNS jsonb
LANGUAGE plpgsql STABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  names text[];
  names_then text[];
BEGIN
  SELECT COALESCE(array_agg(r.name), '{}'), COALESCE(array_agg(r.name_then), '{}') INTO names, names_then FROM bemi.renamed_columns(relation::oid, keys_today."position") r;
  RETURN (image - names - array_remove(names_then, NULL)) || COALESCE((
    SELECT jsonb_object_agg(n.name, image -> n.name_then) FROM unnest(names, names_then) AS n (name, name_then) WHERE image ? n.name_then), '{}');
END
$$;

COMMENT ON FUNCTION bemi.keys_today(regclass, jsonb, bigint) IS
'an object with names of columns at a position of the log, with those that they have today';

-- Whether images read the same at all times.
CREATE FUNCTION bemi.is_as_ever(relation oid) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  present jsonb := bemi.types_of(is_as_ever.relation);
BEGIN
  RETURN NOT EXISTS (SELECT FROM bemi.table_versions v WHERE v.relation = is_as_ever.relation AND v.columns IS NOT NULL
    AND (v.types IS DISTINCT FROM present OR v.rewrites IS NOT NULL
      OR v.columns <> (SELECT jsonb_object_agg(a.attnum, a.attname) FROM pg_attribute a WHERE a.attrelid = is_as_ever.relation AND a.attnum > 0 AND NOT a.attisdropped)));
END
$$;

COMMENT ON FUNCTION bemi.is_as_ever(oid) IS
'whether the columns of a table had the names and types of today all the time';

-- Rows that did not change since a statement rewrote a column are read as they are today.
CREATE FUNCTION bemi.tell_rewrites(base regclass, since timestamptz) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  rewrite record;
BEGIN
  FOR rewrite IN
    SELECT a.attname, v.noted_at FROM (SELECT *, lag(o.types) OVER (ORDER BY o.source, o.position) AS before FROM bemi.table_versions o WHERE o.relation = base) v,
      LATERAL jsonb_each(v.rewrites -> 'columns') r, pg_attribute a
    WHERE v.noted_at > since AND a.attrelid = base AND a.attnum = r.key::int2 AND NOT a.attisdropped
      AND (r.value = 'null'::jsonb OR EXISTS (SELECT FROM pg_cast k WHERE k.castfunc >= 16384::oid
        AND k.castsource = (v.before -> 'columns' -> r.key ->> 0)::oid AND k.casttarget = (v.types -> 'columns' -> r.key ->> 0)::oid))
    ORDER BY v.source, v.position, a.attnum
  LOOP
    RAISE NOTICE 'the column % of % was rewritten at %: rows that did not change since then show what it was given there', quote_ident(rewrite.attname), base, rewrite.noted_at;
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.tell_rewrites(regclass, timestamptz) IS
'tells which columns of a table were rewritten since a time, in a way that is not known';

-- What was left out of a change may be what somebody asks for.
CREATE FUNCTION bemi.whole(image jsonb, omitted jsonb, "table" text, primary_key text) RETURNS jsonb
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

COMMENT ON FUNCTION bemi.whole(jsonb, jsonb, text, text) IS
'an image of a row, or an error if something of it was left out';
