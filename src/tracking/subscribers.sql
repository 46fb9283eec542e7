-- Publications that publish tables of bemi although nobody added them by name. The server has no way to keep a
-- permanent table out of FOR ALL TABLES (is_publishable_class in pg_publication.c). A subscriber that does not have
-- such a table stops at its first change.

CREATE FUNCTION bemi.publications_of_bemi() RETURNS TABLE (publication name, detail text, fix text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  form record;
  other name;
  ours oid[] := ARRAY(
    SELECT c.oid FROM pg_class c WHERE c.relnamespace = 'bemi'::regnamespace AND c.relkind = 'r' LIMIT 1);
BEGIN
  FOR form IN SELECT p.*, to_jsonb(p) AS "row" FROM pg_publication p ORDER BY p.pubname LOOP
    publication := form.pubname;
    IF form.puballtables THEN
      other := bemi.name_without_bemi(form.pubname);
      detail := format('the publication %I is FOR ALL TABLES', form.pubname);
      fix := CASE WHEN EXISTS (SELECT FROM pg_publication o WHERE o.pubname = other)
        THEN format('DROP PUBLICATION %I;', form.pubname)
        ELSE bemi.publication_without_bemi(form.oid, other) END;
      RETURN NEXT;
      CONTINUE;
    END IF;
    IF form.oid IN (SELECT s.id FROM bemi.published_schemas_of(ours) s) THEN
      detail := format('the publication %I is FOR TABLES IN SCHEMA bemi', form.pubname);
      fix := format('ALTER PUBLICATION %I DROP TABLES IN SCHEMA bemi;', form.pubname);
      RETURN NEXT;
    ELSIF NOT form.pubviaroot AND EXISTS (
      SELECT FROM pg_publication_rel r WHERE r.prpubid = form.oid AND r.prrelid = to_regclass('bemi.changes'))
    THEN
      detail := format('the publication %I publishes each partition of bemi.changes separately, future ones too',
        form.pubname);
      fix := format('ALTER PUBLICATION %I SET (publish_via_partition_root = true);', form.pubname);
      RETURN NEXT;
    END IF;
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.publications_of_bemi() IS
'returns the publications that send tables of bemi to subscribers that may not have them, and the fixes';

CREATE FUNCTION bemi.name_without_bemi(publication name) RETURNS name
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT (left(publication, 50) || '_without_bemi')::name
$$;

COMMENT ON FUNCTION bemi.name_without_bemi(name) IS
'returns the name of the publication that replaces one FOR ALL TABLES';

CREATE FUNCTION bemi.publication_without_bemi(publication oid, name name) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  tables text;
  options text;
BEGIN
  IF to_regclass('pg_catalog.pg_publication_namespace') IS NOT NULL THEN
    SELECT ' FOR TABLES IN SCHEMA ' || COALESCE(string_agg(DISTINCT quote_ident(n.nspname), ', '), 'public')
    INTO tables
    FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p')
      AND c.relpersistence = 'p'
      AND c.oid >= 16384
      AND n.nspname NOT IN ('bemi', 'pg_catalog', 'information_schema', 'pg_toast');
  ELSE
    SELECT ' FOR TABLE ' || string_agg(format('%I.%I', n.nspname, c.relname), ', ' ORDER BY n.nspname, c.relname)
    INTO tables
    FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p')
      AND NOT c.relispartition
      AND c.relpersistence = 'p'
      AND c.oid >= 16384
      AND n.nspname NOT IN ('bemi', 'pg_catalog', 'information_schema', 'pg_toast');
  END IF;
  SELECT format('publish = %L, publish_via_partition_root = %s', concat_ws(', ',
      CASE WHEN p.pubinsert THEN 'insert' END,
      CASE WHEN p.pubupdate THEN 'update' END,
      CASE WHEN p.pubdelete THEN 'delete' END,
      CASE WHEN p.pubtruncate THEN 'truncate' END), CASE WHEN p.pubviaroot THEN 'true' ELSE 'false' END)
    || CASE to_jsonb(p) ->> 'pubgencols' WHEN 's' THEN ', publish_generated_columns = stored' ELSE '' END
  INTO options
  FROM pg_publication p
  WHERE p.oid = publication;
  RETURN format('CREATE PUBLICATION %I%s WITH (%s);', name, COALESCE(tables, ''), options);
END
$$;

COMMENT ON FUNCTION bemi.publication_without_bemi(oid, name) IS
'returns the statement that creates a publication like one FOR ALL TABLES, but without the tables of bemi';

CREATE FUNCTION bemi.warn_of_publications() RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  case_of record;
BEGIN
  FOR case_of IN SELECT * FROM bemi.publications_of_bemi() LOOP
    RAISE WARNING 'a subscriber without the tables of bemi will stop: %', case_of.detail
      USING HINT = case_of.fix || CASE
        WHEN case_of.fix LIKE 'CREATE %' THEN
          format(' Then, at each subscriber that has received all changes so far: '
            'ALTER SUBSCRIPTION ... SET PUBLICATION %I; '
            'One that has already stopped needs the tables: SELECT bemi.tables_for_subscribers();',
            bemi.name_without_bemi(case_of.publication))
        WHEN case_of.fix LIKE 'DROP %' THEN ' -- when no subscription uses it any more'
        ELSE ''
        END;
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.warn_of_publications() IS
'warns of publications that send tables of bemi to subscribers';

-- For a subscriber that has stopped because it lacks tables of bemi. They stay empty: the subscription does not list
-- them.
CREATE FUNCTION bemi.tables_for_subscribers() RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT 'CREATE SCHEMA IF NOT EXISTS bemi;'
    || COALESCE(string_agg(format(E'\nCREATE TABLE IF NOT EXISTS bemi.%I (%s);', c.relname, (
      SELECT string_agg(format('%I %s', a.attname, format_type(a.atttypid, a.atttypmod)), ', ' ORDER BY a.attnum)
      FROM pg_attribute a
      WHERE a.attrelid = c.oid
        AND a.attnum > 0
        AND NOT a.attisdropped)), '' ORDER BY c.relname), '')
  FROM pg_class c
  WHERE c.relnamespace = 'bemi'::regnamespace
    AND c.relkind IN ('r', 'p')
    AND c.relpersistence = 'p'
$$;

COMMENT ON FUNCTION bemi.tables_for_subscribers() IS
'returns the statements that create the tables of bemi at a subscriber that lacks them';
