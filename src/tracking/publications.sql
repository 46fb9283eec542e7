-- Publications and the replica identity. PostgreSQL refuses UPDATE and DELETE of a published table whose replica
-- identity does not fit a publication's column list, row filter or generated columns (CheckCmdReplicaIdentity in
-- execReplication.c, and publicationcmds.c). So tracking checks this first.

-- A table is published as itself, or as the topmost published table above it, whose column list and filter apply then.
-- PostgreSQL 14 has no column lists, row filters and publications of schemas.
CREATE FUNCTION bemi.publications_of(relation regclass)
RETURNS TABLE (
  publication name, via_root boolean, published_as oid, column_list smallint[], filter_columns smallint[],
  has_generated boolean
)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  lineage oid[];
BEGIN
  IF NOT EXISTS (SELECT FROM pg_publication) THEN
    RETURN;
  END IF;
  -- The table first, the root last.
  lineage := CASE WHEN (SELECT relispartition FROM pg_class WHERE oid = relation)
    THEN ARRAY(
      SELECT a.relid::oid
      FROM pg_partition_ancestors(relation) WITH ORDINALITY AS a (relid, place)
      ORDER BY a.place)
    ELSE ARRAY[relation::oid] END;
  RETURN QUERY
    WITH members AS (
      SELECT r.prpubid AS id, l.place, l.relid
      FROM pg_publication_rel r
        JOIN unnest(lineage) WITH ORDINALITY AS l (relid, place) ON l.relid = r.prrelid
      UNION ALL
      SELECT m.id, m.place, m.relid
      FROM bemi.published_schemas_of(lineage) m
    ), published AS (
      SELECT p.*,
        CASE WHEN p.pubviaroot THEN (
          SELECT m.relid FROM members m WHERE m.id = p.oid ORDER BY m.place DESC LIMIT 1) END AS topmost
      FROM pg_publication p
      WHERE (p.pubupdate OR p.pubdelete)
        AND (p.puballtables OR p.oid IN (SELECT m.id FROM members m))
    )
    SELECT p.pubname, p.pubviaroot, COALESCE(p.topmost, relation::oid),
      CASE WHEN NOT p.puballtables AND jsonb_typeof(r.row -> 'prattrs') = 'array' THEN ARRAY(
        SELECT number::smallint FROM jsonb_array_elements_text(r.row -> 'prattrs') number) END,
      CASE WHEN NOT p.puballtables AND jsonb_typeof(r.row -> 'prqual') = 'string' THEN ARRAY(
        SELECT DISTINCT var[1]::smallint
        FROM regexp_matches(r.row ->> 'prqual', ':varattno (-?[0-9]+) ', 'g') var) END,
      COALESCE(to_jsonb(p) ->> 'pubgencols' = 's', false)
    FROM published p
      LEFT JOIN LATERAL (
        SELECT to_jsonb(e) AS "row"
        FROM pg_publication_rel e
        WHERE e.prpubid = p.oid
          AND e.prrelid = COALESCE(p.topmost, relation::oid)
      ) r ON true
    ORDER BY p.pubname;
END
$$;

COMMENT ON FUNCTION bemi.publications_of(regclass) IS
'returns the publications of updates or deletes of a table, the table that they publish it as, column list and filter';

CREATE FUNCTION bemi.published_schemas_of(relations oid[]) RETURNS TABLE (id oid, place bigint, relid oid)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF to_regclass('pg_catalog.pg_publication_namespace') IS NOT NULL THEN
    RETURN QUERY
      SELECT n.pnpubid, l.place, l.relid
      FROM unnest(relations) WITH ORDINALITY AS l (relid, place)
        JOIN pg_class c ON c.oid = l.relid
        JOIN pg_publication_namespace n ON n.pnnspid = c.relnamespace;
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.published_schemas_of(oid[]) IS
'returns the publications of the schemas of tables';

CREATE FUNCTION bemi.identity_columns(relation regclass, identity text) RETURNS smallint[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  index name := substring(identity FROM '^index:(.*)$');
  numbers smallint[];
BEGIN
  IF identity = 'full' THEN
    RETURN ARRAY(
      SELECT a.attnum FROM pg_attribute a WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped);
  ELSIF identity = 'nothing' THEN
    RETURN NULL;
  END IF;
  SELECT (i.indkey::int2[])[0:i.indnkeyatts - 1]
  INTO numbers
  FROM pg_index i
    JOIN pg_class c ON c.oid = i.indexrelid
  WHERE i.indrelid = relation
    AND i.indisvalid
    AND i.indimmediate
    AND c.relname = index;
  -- If the index was dropped, the default applies.
  IF NOT FOUND THEN
    SELECT (i.indkey::int2[])[0:i.indnkeyatts - 1]
    INTO numbers
    FROM pg_index i
    WHERE i.indrelid = relation
      AND i.indisprimary
      AND i.indisvalid
      AND i.indimmediate;
  END IF;
  RETURN numbers;
END
$$;

COMMENT ON FUNCTION bemi.identity_columns(regclass, text) IS
'returns the columns of a replica identity of a table (default, nothing, full or index:name), or NULL if it has none';

CREATE FUNCTION bemi.names_of_columns(relation regclass, numbers smallint[]) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum)
  FROM pg_attribute a
  WHERE a.attrelid = relation
    AND a.attnum = ANY (numbers)
$$;

COMMENT ON FUNCTION bemi.names_of_columns(regclass, smallint[]) IS
'returns the names of columns of a table, given their numbers';

-- What a publication needs of a replica identity, and does not find. Columns of the table as which another one is
-- published go by their names, because they may have other numbers there.
CREATE FUNCTION bemi.unfiltered_columns(
  relation regclass, columns smallint[], published_as oid, filter_columns smallint[]
) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN (
    SELECT string_agg(quote_ident(f.attname), ', ' ORDER BY f.attnum)
    FROM pg_attribute f
    WHERE f.attrelid = published_as
      AND f.attnum = ANY (filter_columns)
      AND NOT EXISTS (
        SELECT FROM pg_attribute a
        WHERE a.attrelid = relation
          AND a.attnum = ANY (columns)
          AND a.attname = f.attname
          AND NOT a.attisdropped));
END
$$;

COMMENT ON FUNCTION bemi.unfiltered_columns(regclass, smallint[], oid, smallint[]) IS
'returns the columns of a row filter that a replica identity of a table lacks';

CREATE FUNCTION bemi.unlisted_columns(
  relation regclass, columns smallint[], published_as oid, column_list smallint[]
) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN (
    SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum)
    FROM pg_attribute a
    WHERE a.attrelid = relation
      AND a.attnum = ANY (columns)
      AND NOT EXISTS (
        SELECT FROM pg_attribute l
        WHERE l.attrelid = published_as
          AND l.attnum = ANY (column_list)
          AND l.attname = a.attname));
END
$$;

COMMENT ON FUNCTION bemi.unlisted_columns(regclass, smallint[], oid, smallint[]) IS
'returns the columns of a replica identity of a table that a column list lacks';

CREATE FUNCTION bemi.ungenerated_columns(relation regclass, columns smallint[], has_generated boolean) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN (
    SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum)
    FROM pg_attribute a
    WHERE a.attrelid = relation
      AND a.attnum = ANY (columns)
      AND (a.attgenerated = 'v' OR a.attgenerated = 's' AND NOT has_generated));
END
$$;

COMMENT ON FUNCTION bemi.ungenerated_columns(regclass, smallint[], boolean) IS
'returns the generated columns of a replica identity of a table that a publication does not publish';

CREATE FUNCTION bemi.identity_conflict(relation regclass, identity text)
RETURNS TABLE (publication name, reason text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  published record;
  columns smallint[];
  lacking text;
BEGIN
  -- Of partitioned tables, only the partitions count; what is not in WAL is not published.
  IF NOT EXISTS (SELECT FROM pg_publication)
    OR NOT EXISTS (SELECT FROM pg_class WHERE oid = relation AND relkind = 'r' AND relpersistence = 'p')
  THEN
    RETURN;
  END IF;
  columns := bemi.identity_columns(relation, identity);
  FOR published IN SELECT * FROM bemi.publications_of(relation) LOOP
    publication := published.publication;
    IF columns IS NULL THEN
      reason := 'the table has no replica identity';
      RETURN NEXT;
    END IF;
    -- A filter is evaluated on the row before a change.
    IF identity <> 'full' THEN
      lacking := bemi.unfiltered_columns(relation, columns, published.published_as, published.filter_columns);
      IF lacking IS NOT NULL THEN
        reason := format('its row filter uses columns that the replica identity lacks (%s)', lacking);
        RETURN NEXT;
      END IF;
    END IF;
    IF published.column_list IS NOT NULL AND identity = 'full' THEN
      reason := format('its column list (%s) does not allow REPLICA IDENTITY FULL',
        bemi.names_of_columns(published.published_as, published.column_list));
      RETURN NEXT;
    ELSIF published.column_list IS NOT NULL THEN
      lacking := bemi.unlisted_columns(relation, columns, published.published_as, published.column_list);
      IF lacking IS NOT NULL THEN
        reason := format('its column list lacks columns of the replica identity (%s)', lacking);
        RETURN NEXT;
      END IF;
    END IF;
    IF current_setting('server_version_num')::int >= 180000
      AND (published.column_list IS NULL OR identity = 'full')
    THEN
      lacking := bemi.ungenerated_columns(relation, columns, published.has_generated);
      IF lacking IS NOT NULL THEN
        reason := format('it does not publish generated columns of the replica identity (%s)', lacking);
        RETURN NEXT;
      END IF;
    END IF;
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.identity_conflict(regclass, text) IS
'returns the publications with which UPDATE or DELETE of a table would fail if it had a replica identity, and why';

CREATE FUNCTION bemi.identity_problem(relation regclass, identity text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT string_agg(format('the publication %I: %s', c.publication, c.reason), '; ')
  FROM bemi.identity_conflict(relation, identity) c
$$;

COMMENT ON FUNCTION bemi.identity_problem(regclass, text) IS
'returns the conflicts of a replica identity of a table with publications as one text, or NULL if none';

CREATE FUNCTION bemi.identity_remedy(relation regclass) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  was text := bemi.identity_before(relation);
BEGIN
  RETURN CASE
    WHEN was IS NOT NULL AND bemi.identity_problem(relation, was) IS NULL THEN
      format('SELECT bemi.track_again(%L);', relation)
    WHEN bemi.identity_problem(relation, 'default') IS NULL THEN
      format('ALTER TABLE ONLY %s REPLICA IDENTITY DEFAULT;', relation)
    WHEN bemi.identity_problem(relation, 'full') IS NULL THEN
      format('ALTER TABLE ONLY %s REPLICA IDENTITY FULL;', relation)
    -- Where a person has to choose.
    ELSE
      format('SELECT * FROM bemi.identity_conflict(%L, bemi.identity(%L));', relation, relation)
    END;
END
$$;

COMMENT ON FUNCTION bemi.identity_remedy(regclass) IS
'returns the statement that allows UPDATE and DELETE of a table again, or one that shows why publications refuse them';

CREATE FUNCTION bemi.warn_of_conflicts(relations oid[] DEFAULT NULL) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  conflict record;
BEGIN
  IF NOT EXISTS (SELECT FROM pg_publication) THEN
    RETURN;
  END IF;
  FOR conflict IN
    SELECT t.relation::regclass AS relation,
      bemi.identity_problem(t.relation::regclass, bemi.identity(t.relation::regclass)) AS problem
    FROM (
      SELECT DISTINCT c.relation
      FROM bemi.context_triggers c
      WHERE relations IS NULL OR c.relation = ANY (relations)
    ) t
    ORDER BY 1
  LOOP
    IF conflict.problem IS NOT NULL THEN
      RAISE WARNING 'UPDATE and DELETE of % will fail now: %', conflict.relation, conflict.problem
        USING HINT = bemi.identity_remedy(conflict.relation);
    END IF;
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.warn_of_conflicts(oid[]) IS
'warns of tracked tables, among some or all, whose replica identity a publication does not allow';
