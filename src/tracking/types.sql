-- The types of columns, as versions of tables contain them: the image of a row is read by the types of when it was
-- recorded.

-- By their OIDs, except for types of the server, which do not change. A column or an attribute has a type and a
-- modifier; attributes are kept by their numbers and labels by their OIDs, which identify them when they are renamed.
CREATE FUNCTION bemi.defined_types(types oid[]) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  known oid[] := ARRAY(SELECT DISTINCT t FROM unnest(types) t WHERE t >= 16384::oid);
  place int := 1;
  found record;
  parts oid[];
  definition jsonb;
  result jsonb := '{}'::jsonb;
BEGIN
  WHILE place <= cardinality(known) LOOP
    SELECT t.*, t.typelem <> 0::oid AND t.typlen = -1 AND t.typcategory = 'A'::"char" AS is_array
    INTO found
    FROM pg_type t
    WHERE t.oid = known[place];
    parts := '{}'::oid[];
    IF found.typtype = 'e'::"char" THEN
      definition := jsonb_build_object('labels', COALESCE((
        SELECT jsonb_object_agg(e.oid, e.enumlabel) FROM pg_enum e WHERE e.enumtypid = found.oid), '{}'::jsonb));
    ELSIF found.typtype = 'c'::"char" THEN
      SELECT
        jsonb_build_object('attributes', COALESCE(
          jsonb_object_agg(a.attnum, jsonb_build_array(a.attname, a.atttypid::bigint, a.atttypmod)), '{}'::jsonb)),
        array_agg(a.atttypid)
      INTO definition, parts
      FROM pg_attribute a
      WHERE a.attrelid = found.typrelid
        AND a.attnum > 0
        AND NOT a.attisdropped;
    ELSIF found.typtype = 'd'::"char" THEN
      definition := jsonb_build_object('base', jsonb_build_array(found.typbasetype::bigint, found.typtypmod));
      parts := ARRAY[found.typbasetype];
    ELSIF found.typtype = 'r'::"char" THEN
      parts := ARRAY(SELECT r.rngsubtype FROM pg_range r WHERE r.rngtypid = found.oid);
      definition := jsonb_build_object('subtype', parts[1]::bigint);
    ELSIF found.typtype = 'm'::"char" THEN
      parts := ARRAY(SELECT r.rngtypid FROM pg_range r WHERE r.rngmultitypid = found.oid);
      definition := jsonb_build_object('range', parts[1]::bigint);
    ELSIF found.is_array THEN
      parts := ARRAY[found.typelem];
      definition := jsonb_build_object('element', found.typelem::bigint);
    ELSE
      definition := '{}'::jsonb;
    END IF;
    IF found.oid IS NOT NULL THEN
      result := result || jsonb_build_object(found.oid::text, definition);
      known := known || ARRAY(SELECT DISTINCT p FROM unnest(parts) p WHERE p >= 16384::oid AND p <> ALL (known));
    END IF;
    place := place + 1;
  END LOOP;
  RETURN result;
END
$$;

COMMENT ON FUNCTION bemi.defined_types(oid[]) IS
'returns the definitions of types and of the types that they consist of, except for types of the server';

CREATE FUNCTION bemi.types_of(relation oid) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  columns jsonb;
  types oid[];
  defined jsonb := '{}'::jsonb;
BEGIN
  SELECT
    jsonb_object_agg(a.attnum, jsonb_build_array(a.atttypid::bigint, a.atttypmod)),
    array_agg(a.atttypid) FILTER (WHERE a.atttypid >= 16384::oid)
  INTO columns, types
  FROM pg_attribute a
  WHERE a.attrelid = types_of.relation
    AND a.attnum > 0
    AND NOT a.attisdropped;
  IF types IS NOT NULL THEN
    defined := bemi.defined_types(types);
  END IF;
  RETURN jsonb_build_object('columns', COALESCE(columns, '{}'::jsonb), 'defined', defined);
END
$$;

COMMENT ON FUNCTION bemi.types_of(oid) IS
'returns the types and modifiers of the columns of a table, and the definitions of the types';

-- By pg_depend: what consists of a type depends on it.
CREATE FUNCTION bemi.tables_of_types(types oid[]) RETURNS oid[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  known oid[] := types;
  place int := 1;
  tables oid[] := '{}'::oid[];
  dependent record;
BEGIN
  WHILE place <= cardinality(known) LOOP
    FOR dependent IN
      SELECT d.objid AS type, NULL::oid AS relation
      FROM pg_depend d
      WHERE d.refclassid = 'pg_type'::regclass
        AND d.refobjid = known[place]
        AND d.classid = 'pg_type'::regclass
      UNION ALL
      SELECT c.reltype, CASE WHEN c.relkind = ANY ('{r,p}'::"char"[]) THEN c.oid END
      FROM pg_depend d
        JOIN pg_class c ON c.oid = d.objid
      WHERE d.refclassid = 'pg_type'::regclass
        AND d.refobjid = known[place]
        AND d.classid = 'pg_class'::regclass
        AND c.relkind = ANY ('{r,p,c,v,m,f}'::"char"[])
    LOOP
      IF dependent.relation IS NOT NULL AND dependent.relation <> ALL (tables) THEN
        tables := tables || dependent.relation;
      END IF;
      IF dependent.type <> 0::oid AND dependent.type <> ALL (known) THEN
        known := known || dependent.type;
      END IF;
    END LOOP;
    place := place + 1;
  END LOOP;
  RETURN tables;
END
$$;

COMMENT ON FUNCTION bemi.tables_of_types(oid[]) IS
'returns the tables with columns of some types, or of types that consist of them';

-- For each column to which ALTER TABLE gave a type: the casts of its old value that USING consisted of, one after
-- another, as types and modifiers; none without USING; null where USING, or SET EXPRESSION, was anything else.
CREATE FUNCTION bemi.rewritten_columns(command pg_ddl_command) RETURNS jsonb
LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'bemi_rewritten_columns';

COMMENT ON FUNCTION bemi.rewritten_columns(pg_ddl_command) IS
'returns how a statement computed the new values of columns whose type it changed';

CREATE FUNCTION bemi.cast_settings() RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT jsonb_object_agg(s.name, current_setting(s.name))
  FROM unnest(
    '{TimeZone,DateStyle,IntervalStyle,extra_float_digits,bytea_output,lc_monetary,xmloption}'::text[]) s (name)
$$;

COMMENT ON FUNCTION bemi.cast_settings() IS
'returns the settings on which casts of the server depend';

-- Of each table that the statement altered, and of its heirs.
CREATE FUNCTION bemi.rewrites() RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  altered record;
  tables oid[];
  place int;
  columns jsonb;
  result jsonb := '{}'::jsonb;
BEGIN
  FOR altered IN
    SELECT d.objid AS relation, r.columns, c.reltype
    FROM pg_event_trigger_ddl_commands() d
      JOIN pg_class c ON c.oid = d.objid,
      LATERAL (SELECT bemi.rewritten_columns(d.command) AS columns) r
    WHERE d.classid = 'pg_class'::regclass
      AND r.columns <> '{}'::jsonb
  LOOP
    -- Altering a composite type alters its tables.
    tables := altered.relation || ARRAY(SELECT c.oid FROM pg_class c WHERE c.reloftype = altered.reltype);
    place := 1;
    WHILE place <= cardinality(tables) LOOP
      columns := (
        SELECT jsonb_object_agg(a.attnum, e.value)
        FROM jsonb_each(altered.columns) e
          JOIN pg_attribute a ON a.attname = e.key::name
        WHERE a.attrelid = tables[place]
          AND a.attnum > 0);
      IF columns IS NOT NULL THEN
        result := result || jsonb_build_object(
          tables[place], jsonb_build_object('columns', columns, 'settings', bemi.cast_settings()));
      END IF;
      tables := tables || ARRAY(
        SELECT i.inhrelid
        FROM pg_inherits i
        WHERE i.inhparent = tables[place]
          AND i.inhrelid <> ALL (tables));
      place := place + 1;
    END LOOP;
  END LOOP;
  RETURN result;
END
$$;

COMMENT ON FUNCTION bemi.rewrites() IS
'returns the columns of tables that the statement rewrote for which an event trigger is called';
