-- Publications and the replica identity. PostgreSQL refuses UPDATE and DELETE of a published table whose replica identity
-- does not fit a publication's column list, row filter or generated columns (CheckCmdReplicaIdentity in execReplication.c,
-- and publicationcmds.c). So tracking looks first.

-- As what publications that publish updates or deletes publish a table: as itself, or as the topmost published table above
-- it, whose column list and filter then hold. PostgreSQL 14 has no lists, filters and schemas.
CREATE FUNCTION bemi.publications_of(relation regclass)
RETURNS TABLE (publication name, via_root boolean, published_as oid, column_list smallint[], filter_columns smallint[], has_generated boolean)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  lineage oid[];
BEGIN
  IF NOT EXISTS (SELECT FROM pg_publication) THEN
    RETURN;
  END IF;
  -- The table first, the root last.
  lineage := CASE WHEN (SELECT relispartition FROM pg_class WHERE oid = relation)
    THEN ARRAY(SELECT a.relid::oid FROM pg_partition_ancestors(relation) WITH ORDINALITY AS a (relid, place) ORDER BY a.place) ELSE ARRAY[relation::oid] END;
  RETURN QUERY
    WITH members AS (
      SELECT r.prpubid AS id, l.place, l.relid FROM pg_publication_rel r JOIN unnest(lineage) WITH ORDINALITY AS l (relid, place) ON l.relid = r.prrelid
      UNION ALL SELECT m.id, m.place, m.relid FROM bemi.published_schemas_of(lineage) m
    ), published AS (
      SELECT p.*, CASE WHEN p.pubviaroot THEN (SELECT m.relid FROM members m WHERE m.id = p.oid ORDER BY m.place DESC LIMIT 1) END AS topmost
      FROM pg_publication p WHERE (p.pubupdate OR p.pubdelete) AND (p.puballtables OR p.oid IN (SELECT m.id FROM members m))
    )
    SELECT p.pubname, p.pubviaroot, COALESCE(p.topmost, relation::oid),
      CASE WHEN NOT p.puballtables AND jsonb_typeof(r.row -> 'prattrs') = 'array'
        THEN ARRAY(SELECT number::smallint FROM jsonb_array_elements_text(r.row -> 'prattrs') number) END,
      CASE WHEN NOT p.puballtables AND jsonb_typeof(r.row -> 'prqual') = 'string'
        THEN ARRAY(SELECT DISTINCT var[1]::smallint FROM regexp_matches(r.row ->> 'prqual', ':varattno (-?[0-9]+) ', 'g') var) END,
      COALESCE(to_jsonb(p) ->> 'pubgencols' = 's', false)
    FROM published p LEFT JOIN LATERAL (
      SELECT to_jsonb(e) AS "row" FROM pg_publication_rel e WHERE e.prpubid = p.oid AND e.prrelid = COALESCE(p.topmost, relation::oid)
    ) r ON true
    ORDER BY p.pubname;
END
$$;

COMMENT ON FUNCTION bemi.publications_of(regclass) IS
'the publications that publish updates or deletes of a table, and as which table, by which column list and filter';

CREATE FUNCTION bemi.published_schemas_of(relations oid[]) RETURNS TABLE (id oid, place bigint, relid oid)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF to_regclass('pg_catalog.pg_publication_namespace') IS NOT NULL THEN
    RETURN QUERY SELECT n.pnpubid, l.place, l.relid FROM unnest(relations) WITH ORDINALITY AS l (relid, place)
      JOIN pg_class c ON c.oid = l.relid JOIN pg_publication_namespace n ON n.pnnspid = c.relnamespace;
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.published_schemas_of(oid[]) IS
'the publications of the schemas of tables';

-- The columns of a replica identity, as the server takes them; NULL where there is none.
CREATE FUNCTION bemi.identity_columns(relation regclass, identity text) RETURNS smallint[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  index name := substring(identity FROM '^index:(.*)$');
  numbers smallint[];
BEGIN
  IF identity = 'full' THEN
    RETURN ARRAY(SELECT a.attnum FROM pg_attribute a WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped);
  ELSIF identity = 'nothing' THEN
    RETURN NULL;
  END IF;
  SELECT (i.indkey::int2[])[0:i.indnkeyatts - 1] INTO numbers FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
  WHERE i.indrelid = relation AND i.indisvalid AND i.indimmediate AND c.relname = index;
  -- One that is gone gives the default.
  IF NOT FOUND THEN
    SELECT (i.indkey::int2[])[0:i.indnkeyatts - 1] INTO numbers FROM pg_index i WHERE i.indrelid = relation AND i.indisprimary AND i.indisvalid AND i.indimmediate;
  END IF;
  RETURN numbers;
END
$$;

COMMENT ON FUNCTION bemi.identity_columns(regclass, text) IS
'the columns that a replica identity of a table has: default, nothing, full or index:name; NULL if none';

CREATE FUNCTION bemi.names_of_columns(relation regclass, numbers smallint[]) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) FROM pg_attribute a WHERE a.attrelid = relation AND a.attnum = ANY (numbers)
$$;

COMMENT ON FUNCTION bemi.names_of_columns(regclass, smallint[]) IS
'the names of columns of a table, by their numbers';

-- Which publications would have PostgreSQL refuse UPDATE or DELETE of a table if it had this replica identity.
CREATE FUNCTION bemi.identity_conflict(relation regclass, identity text) RETURNS TABLE (publication name, reason text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  published record;
  columns smallint[];
  lacking text;
BEGIN
  -- Of partitioned tables, only the partitions count; what is not in the log is not published.
  IF NOT EXISTS (SELECT FROM pg_publication) OR NOT EXISTS (SELECT FROM pg_class WHERE oid = relation AND relkind = 'r' AND relpersistence = 'p') THEN
    RETURN;
  END IF;
  columns := bemi.identity_columns(relation, identity);
  FOR published IN SELECT * FROM bemi.publications_of(relation) LOOP
    publication := published.publication;
    IF columns IS NULL THEN
      reason := 'the table has no replica identity';
      RETURN NEXT;
    END IF;
    -- A filter is asked of the row before a change.
    SELECT string_agg(quote_ident(f.attname), ', ' ORDER BY f.attnum) INTO lacking FROM pg_attribute f
    WHERE identity <> 'full' AND f.attrelid = published.published_as AND f.attnum = ANY (published.filter_columns)
      AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = relation AND a.attnum = ANY (columns) AND a.attname = f.attname AND NOT a.attisdropped);
    IF lacking IS NOT NULL THEN
      reason := format('its row filter uses columns that the replica identity does not have (%s)', lacking);
      RETURN NEXT;
    END IF;
    IF published.column_list IS NOT NULL AND identity = 'full' THEN
      reason := format('it has a column list (%s), which does not go with REPLICA IDENTITY FULL',
        bemi.names_of_columns(published.published_as, published.column_list));
      RETURN NEXT;
    ELSIF published.column_list IS NOT NULL THEN
      SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) INTO lacking FROM pg_attribute a
      WHERE a.attrelid = relation AND a.attnum = ANY (columns) AND NOT EXISTS (
        SELECT FROM pg_attribute l WHERE l.attrelid = published.published_as AND l.attnum = ANY (published.column_list) AND l.attname = a.attname);
      IF lacking IS NOT NULL THEN
        reason := format('its column list lacks columns of the replica identity (%s)', lacking);
        RETURN NEXT;
      END IF;
    END IF;
    IF current_setting('server_version_num')::int >= 180000 AND (published.column_list IS NULL OR identity = 'full') THEN
      SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) INTO lacking FROM pg_attribute a
      WHERE a.attrelid = relation AND a.attnum = ANY (columns) AND (a.attgenerated = 'v' OR a.attgenerated = 's' AND NOT published.has_generated);
      IF lacking IS NOT NULL THEN
        reason := format('it does not publish generated columns that the replica identity has (%s)', lacking);
        RETURN NEXT;
      END IF;
    END IF;
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.identity_conflict(regclass, text) IS
'the publications that would have UPDATE or DELETE of a table fail if it had a replica identity (default, nothing, full or index:name), and why';

-- The conflicts as one text; NULL if there is none.
CREATE FUNCTION bemi.identity_problem(relation regclass, identity text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT string_agg(format('the publication %I: %s', c.publication, c.reason), '; ') FROM bemi.identity_conflict(relation, identity) c
$$;

COMMENT ON FUNCTION bemi.identity_problem(regclass, text) IS
'which publications would have UPDATE or DELETE of a table fail if it had a replica identity, and why; NULL if none';

-- The statement that lets a tracked table be updated again; one that shows why, where a person has to choose.
CREATE FUNCTION bemi.identity_remedy(relation regclass) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  was text := bemi.identity_before(relation);
BEGIN
  RETURN CASE
    WHEN was IS NOT NULL AND bemi.identity_problem(relation, was) IS NULL THEN format('SELECT bemi.track_again(%L);', relation)
    WHEN bemi.identity_problem(relation, 'default') IS NULL THEN format('ALTER TABLE ONLY %s REPLICA IDENTITY DEFAULT;', relation)
    WHEN bemi.identity_problem(relation, 'full') IS NULL THEN format('ALTER TABLE ONLY %s REPLICA IDENTITY FULL;', relation)
    ELSE format('SELECT * FROM bemi.identity_conflict(%L, bemi.identity(%L));', relation, relation) END;
END
$$;

COMMENT ON FUNCTION bemi.identity_remedy(regclass) IS
'the statement that lets a tracked table be updated again whose replica identity does not go with a publication';

-- Says which tracked tables cannot be updated because of publications, among these; of all if none are named.
CREATE FUNCTION bemi.warn_of_conflicts(relations oid[] DEFAULT NULL) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  conflict record;
BEGIN
  IF NOT EXISTS (SELECT FROM pg_publication) THEN
    RETURN;
  END IF;
  FOR conflict IN
    SELECT t.relation::regclass AS relation, bemi.identity_problem(t.relation::regclass, bemi.identity(t.relation::regclass)) AS problem
    FROM (SELECT DISTINCT c.relation FROM bemi.context_triggers c WHERE relations IS NULL OR c.relation = ANY (relations)) t ORDER BY 1
  LOOP
    IF conflict.problem IS NOT NULL THEN
      RAISE WARNING 'UPDATE and DELETE of % will fail now: %', conflict.relation, conflict.problem USING HINT = bemi.identity_remedy(conflict.relation);
    END IF;
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.warn_of_conflicts(oid[]) IS
'warns of tracked tables whose replica identity does not go with a publication';

-- The publications that publish tables of bemi without somebody having named them one by one. The server offers nothing
-- that would keep a permanent table out of FOR ALL TABLES (is_publishable_class in pg_publication.c). A subscriber that
-- has not got such a table stops at its first change.
CREATE FUNCTION bemi.publications_of_bemi() RETURNS TABLE (publication name, detail text, fix text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  form record;
  other name;
  ours oid[] := ARRAY(SELECT c.oid FROM pg_class c WHERE c.relnamespace = 'bemi'::regnamespace AND c.relkind = 'r' LIMIT 1);
BEGIN
  FOR form IN SELECT p.*, to_jsonb(p) AS "row" FROM pg_publication p ORDER BY p.pubname LOOP
    publication := form.pubname;
    IF form.puballtables THEN
      other := left(form.pubname, 50) || '_without_bemi';
      detail := format('the publication %I is FOR ALL TABLES', form.pubname);
      fix := CASE WHEN EXISTS (SELECT FROM pg_publication o WHERE o.pubname = other) THEN format('DROP PUBLICATION %I;', form.pubname)
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
      detail := format('the publication %I publishes each partition of bemi.changes by itself, those of the months to come too', form.pubname);
      fix := format('ALTER PUBLICATION %I SET (publish_via_partition_root = true);', form.pubname);
      RETURN NEXT;
    END IF;
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.publications_of_bemi() IS
'the publications that have tables of bemi reach subscribers that may not have them, and the statement against it';

-- The statement that makes another publication which publishes the same, but for the tables of bemi.
CREATE FUNCTION bemi.publication_without_bemi(publication oid, name name) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  tables text;
  options text;
BEGIN
  IF to_regclass('pg_catalog.pg_publication_namespace') IS NOT NULL THEN
    SELECT ' FOR TABLES IN SCHEMA ' || COALESCE(string_agg(DISTINCT quote_ident(n.nspname), ', '), 'public') INTO tables
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND c.oid >= 16384 AND n.nspname NOT IN ('bemi', 'pg_catalog', 'information_schema', 'pg_toast');
  ELSE
    SELECT ' FOR TABLE ' || string_agg(format('%I.%I', n.nspname, c.relname), ', ' ORDER BY n.nspname, c.relname) INTO tables
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence = 'p' AND c.oid >= 16384
      AND n.nspname NOT IN ('bemi', 'pg_catalog', 'information_schema', 'pg_toast');
  END IF;
  SELECT format('publish = %L, publish_via_partition_root = %s', concat_ws(', ', CASE WHEN p.pubinsert THEN 'insert' END, CASE WHEN p.pubupdate THEN 'update' END,
      CASE WHEN p.pubdelete THEN 'delete' END, CASE WHEN p.pubtruncate THEN 'truncate' END),
      CASE WHEN p.pubviaroot THEN 'true' ELSE 'false' END)
    || CASE to_jsonb(p) ->> 'pubgencols' WHEN 's' THEN ', publish_generated_columns = stored' ELSE '' END
  INTO options FROM pg_publication p WHERE p.oid = publication;
  RETURN format('CREATE PUBLICATION %I%s WITH (%s);', name, COALESCE(tables, ''), options);
END
$$;

COMMENT ON FUNCTION bemi.publication_without_bemi(oid, name) IS
'the statement that makes a publication like one FOR ALL TABLES, without the tables of bemi';

CREATE FUNCTION bemi.warn_of_publications() RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  case_of record;
BEGIN
  FOR case_of IN SELECT * FROM bemi.publications_of_bemi() LOOP
    RAISE WARNING 'a subscriber without the tables of bemi will stop: %', case_of.detail USING
      HINT = case_of.fix || CASE WHEN case_of.fix LIKE 'CREATE %' THEN format(' Then, at each subscriber that has read the log so far: '
        'ALTER SUBSCRIPTION ... SET PUBLICATION %I; One that has stopped already needs the tables: SELECT bemi.tables_for_subscribers();',
        left(case_of.publication, 50) || '_without_bemi')
        WHEN case_of.fix LIKE 'DROP %' THEN ' -- when no subscription names it any more' ELSE '' END;
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.warn_of_publications() IS
'warns of publications that have tables of bemi reach subscribers';

-- What a subscriber runs that has stopped because it lacks tables of bemi. It never fills them: its subscription does not
-- list them.
CREATE FUNCTION bemi.tables_for_subscribers() RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT 'CREATE SCHEMA IF NOT EXISTS bemi;' || COALESCE(string_agg(format(E'\nCREATE TABLE IF NOT EXISTS bemi.%I (%s);', c.relname, (
      SELECT string_agg(format('%I %s', a.attname, format_type(a.atttypid, a.atttypmod)), ', ' ORDER BY a.attnum)
      FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)), '' ORDER BY c.relname), '')
  FROM pg_class c WHERE c.relnamespace = 'bemi'::regnamespace AND c.relkind IN ('r', 'p') AND c.relpersistence = 'p'
$$;

COMMENT ON FUNCTION bemi.tables_for_subscribers() IS
'the statements that make the tables of bemi at a subscriber that stopped because it lacks them';
