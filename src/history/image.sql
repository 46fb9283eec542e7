-- Recorded images of rows, read as rows of today's table.

-- All that bemi.image_row() needs to know about a table. Leaves out what did not change since the version before.
CREATE FUNCTION bemi.versions_of(relation oid) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN jsonb_build_object(
    'name', versions_of.relation::regclass::text,
    'today', (
      SELECT COALESCE(jsonb_object_agg(a.attnum, a.attname), '{}'::jsonb)
      FROM pg_attribute a
      WHERE a.attrelid = versions_of.relation AND a.attnum > 0 AND NOT a.attisdropped
    ),
    'masked', to_jsonb(ARRAY(SELECT bemi.masked_columns(versions_of.relation))),
    'versions', (
      SELECT COALESCE(jsonb_agg(jsonb_build_object(
        'position', bemi.place(v.source, v.position)::text,
        'at', v.noted_at::text,
        'is_late', v.is_late,
        'rewrites', v.rewrites,
        'columns', CASE WHEN v.columns IS DISTINCT FROM v.columns_before THEN v.columns END,
        'types', CASE WHEN v.types IS DISTINCT FROM v.types_before THEN v.types END
      ) ORDER BY v.source, v.position), '[]'::jsonb)
      FROM (
        SELECT *, lag(o.columns) OVER w AS columns_before, lag(o.types) OVER w AS types_before
        FROM bemi.table_versions o
        WHERE o.relation = versions_of.relation AND o.columns IS NOT NULL
        WINDOW w AS (ORDER BY o.source, o.position)
      ) v
    )
  );
END
$$;

COMMENT ON FUNCTION bemi.versions_of(oid) IS
'returns what a table was like at all times, for bemi.image_row()';

CREATE FUNCTION bemi.time_at(place bigint) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN COALESCE((
    SELECT c.committed_at::text
    FROM bemi.changes c
    WHERE c.source = bemi.place_source(time_at.place)
      AND c.position = bemi.place_position(time_at.place)
      -- A transaction commits after its changes. This lets the index be used.
      AND c.commit_position >= '0/0'::pg_lsn + bemi.place_position(time_at.place)::numeric
    ORDER BY c.commit_position
    LIMIT 1
  ), 'an unknown time'::text);
EXCEPTION WHEN insufficient_privilege THEN
  RETURN 'an unknown time'::text;
END
$$;

COMMENT ON FUNCTION bemi.time_at(bigint) IS
'returns when the change at a place was committed';

-- The types of which a type is made, itself included, as far as they are not PostgreSQL's own.
CREATE FUNCTION bemi.type_parts(type oid) RETURNS SETOF oid
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN QUERY
    WITH RECURSIVE parts AS (
      SELECT type_parts.type AS part
      UNION
      SELECT n.part
      FROM parts p
      JOIN pg_type t ON t.oid = p.part,
      LATERAL (
        SELECT t.typbasetype AS part
        WHERE t.typtype = 'd'::"char"
        UNION ALL
        SELECT t.typelem
        WHERE t.typtype = 'b'::"char"
        UNION ALL
        SELECT a.atttypid
        FROM pg_attribute a
        WHERE t.typtype = 'c'::"char" AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
        UNION ALL
        SELECT r.rngsubtype
        FROM pg_range r
        WHERE r.rngtypid = t.oid
        UNION ALL
        SELECT r.rngtypid
        FROM pg_range r
        WHERE r.rngmultitypid = t.oid
      ) n
      WHERE n.part >= 16384::oid
    )
    SELECT p.part FROM parts p;
END
$$;

COMMENT ON FUNCTION bemi.type_parts(oid) IS
'returns a type, and the types defined by users of which it is made';

-- The input function of a type may run code that the type's owner has written: the constraints of a domain, or the
-- canonical function of a range. bemi.image_row() checks each type once. The caller's own types are not refused.
CREATE FUNCTION bemi.require_input(type oid) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  culprit record;
BEGIN
  SELECT t.oid, pg_get_userbyid(t.typowner) AS owner,
    CASE WHEN c.is_constrained THEN 'the domain has constraints'::text
      ELSE 'a function of the type is written in another language than C'::text END AS why
  INTO culprit
  FROM bemi.type_parts(require_input.type) AS p (part)
  JOIN pg_type t ON t.oid = p.part,
  LATERAL (
    SELECT
      t.typtype = 'd'::"char"
        AND (t.typnotnull OR EXISTS (SELECT FROM pg_constraint k WHERE k.contypid = t.oid)) AS is_constrained,
      EXISTS (
        SELECT FROM pg_proc f
        WHERE f.prolang NOT IN (SELECT l.oid FROM pg_language l WHERE l.lanname IN ('internal'::name, 'c'::name))
          AND (f.oid = t.typinput::oid
            OR f.oid IN (SELECT r.rngcanonical::oid FROM pg_range r WHERE r.rngtypid = t.oid))
      ) AS is_written
  ) c
  WHERE (c.is_constrained OR c.is_written)
    AND t.typowner <> (SELECT r.oid FROM pg_roles r WHERE r.rolname = current_user)
  ORDER BY t.oid
  LIMIT 1;
  IF culprit.oid IS NOT NULL THEN
    RAISE EXCEPTION 'a recorded value of the type % is not read: that would run code of another role',
      format_type(require_input.type, NULL::int4) USING
      ERRCODE = 'insufficient_privilege',
      DETAIL = format('%s: %s.', format_type(culprit.oid, NULL::int4), culprit.why),
      HINT = format('SET ROLE %I; -- then it is read with the privileges of this role', culprit.owner);
  END IF;
  RETURN true;
END
$$;

COMMENT ON FUNCTION bemi.require_input(oid) IS
'raises an error if the input function of a type would run code of another role';

-- Reads domains as their base types, without their constraints, and uses no casts: so code of a table's owner never
-- runs with the privileges of those who read its past. Applies to a value what ALTER TABLE has done to such values
-- since its recording. A value that cannot be read this way becomes null, with a NOTICE.
CREATE FUNCTION bemi.image_row(base anyelement, "position" bigint, image jsonb) RETURNS anyelement
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'bemi_image_row';

COMMENT ON FUNCTION bemi.image_row(anyelement, bigint, jsonb) IS
'returns the row of a table whose image was recorded at a place';

-- Adds no column that the image does not have. Values that cannot be read stay as they are: see image_problems().
CREATE FUNCTION bemi.image_today(relation regclass, image jsonb, "position" bigint) RETURNS jsonb
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'bemi_image_today';

COMMENT ON FUNCTION bemi.image_today(regclass, jsonb, bigint) IS
'returns an image of a row, recorded at a place, as it would be recorded today';

CREATE FUNCTION bemi.image_problems(relation regclass, image jsonb, "position" bigint) RETURNS jsonb
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'bemi_image_problems';

COMMENT ON FUNCTION bemi.image_problems(regclass, jsonb, bigint) IS
'returns the columns of an image, recorded at a place, that cannot be read exactly, and why; NULL if there are none';

CREATE FUNCTION bemi.key_value(key text, base anyelement) RETURNS anyelement
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'bemi_key_value';

COMMENT ON FUNCTION bemi.key_value(text, anyelement) IS
'returns the value of a type that is recorded as a text';

CREATE FUNCTION bemi.value_text(type oid, value jsonb) RETURNS text
LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'bemi_value_text';

COMMENT ON FUNCTION bemi.value_text(oid, jsonb) IS
'returns the text of a recorded value of a type';

CREATE FUNCTION bemi.enum_number(label anyenum) RETURNS oid
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'bemi_enum_number';

COMMENT ON FUNCTION bemi.enum_number(anyenum) IS
'returns the OID of a label of an enum';

-- Called where a query reads the image.
CREATE FUNCTION bemi.whole(image jsonb, omitted jsonb, "table" text, primary_key text) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  missing text := (
    SELECT string_agg(quote_ident(o), ', ')
    FROM jsonb_object_keys(omitted) o
    WHERE o NOT IN ('context', 'after', 'primary_key', 'old_primary_key') AND image ->> o IS NULL
  );
BEGIN
  IF missing IS NOT NULL THEN
    RAISE EXCEPTION 'the row % of % is not known: % was omitted when its change was recorded',
      primary_key, "table", missing USING
      ERRCODE = 'object_not_in_prerequisite_state',
      DETAIL = omitted::text,
      HINT = 'Exclude the row by a condition on its key. bemi.changes has its other columns.';
  END IF;
  RETURN image;
END
$$;

COMMENT ON FUNCTION bemi.whole(jsonb, jsonb, text, text) IS
'returns an image of a row; an error if something of it was omitted';
