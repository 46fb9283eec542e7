-- What bemi.doctor() returns about tracked tables.

CREATE FUNCTION bemi.some_of(names text[]) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT array_to_string(names[1:5], ', ')
    || CASE WHEN cardinality(names) > 5 THEN format(' and %s more', cardinality(names) - 5) ELSE '' END
$$;

COMMENT ON FUNCTION bemi.some_of(text[]) IS
'returns the first five names of a list, and how many more there are';

CREATE FUNCTION bemi.doctor_of_tables() RETURNS TABLE ("check" text, ok boolean, detail text, fix text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  names text[];
  was_tracked boolean;
  used int;
BEGIN
  "check" := 'tracked tables';
  SELECT count(*) INTO used FROM bemi.tracked;
  ok := used > 0;
  detail := format('%s tables are tracked', used) || (
    SELECT COALESCE('; so are future tables in ' || string_agg(quote_ident(schema), ', ' ORDER BY schema), '')
    FROM bemi.tracked_schemas);
  fix := CASE WHEN NOT ok THEN 'SELECT bemi.track_all();' END;
  RETURN NEXT;

  "check" := 'untracked tables';
  names := ARRAY(
    SELECT t::text
    FROM bemi.trackable(ARRAY(SELECT schema FROM bemi.tracked_schemas)) t
    WHERE NOT EXISTS (SELECT FROM bemi.context_triggers o WHERE o.relation = t)
    ORDER BY 1);
  ok := cardinality(names) = 0;
  detail := CASE WHEN ok THEN 'none in the tracked schemas' ELSE 'in the tracked schemas: ' || bemi.some_of(names) END;
  fix := CASE WHEN NOT ok THEN format('SELECT bemi.track_all(%L);', ARRAY(
    SELECT schema FROM bemi.tracked_schemas JOIN pg_namespace ON nspname = schema ORDER BY schema)) END;
  RETURN NEXT;

  -- Tables of extensions are left out on purpose; but the owner of an extension can add any table to it.
  "check" := 'tables of extensions';
  SELECT COALESCE(array_agg(format('%s (%s)', c.oid::regclass, e.extname) ORDER BY c.oid), '{}'),
    bool_or(bemi.was_tracked(c.oid::regclass))
  INTO names, was_tracked
  FROM pg_class c
    JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
    JOIN pg_extension e ON e.oid = d.refobjid
  WHERE c.relkind IN ('r', 'p')
    AND c.relpersistence = 'p'
    AND c.relnamespace IN (SELECT n.oid FROM pg_namespace n JOIN bemi.tracked_schemas s ON s.schema = n.nspname)
    AND NOT EXISTS (SELECT FROM bemi.context_triggers t WHERE t.relation = c.oid);
  ok := was_tracked IS NOT TRUE;
  detail := CASE WHEN names = '{}' THEN 'none in the tracked schemas is untracked'
    ELSE 'not tracked, because they belong to extensions: ' || bemi.some_of(names)
      || CASE WHEN ok THEN '' ELSE '; some were tracked before' END
    END;
  fix := CASE WHEN NOT ok THEN (
    SELECT string_agg(format('SELECT bemi.track(%L);', d.objid::regclass), ' ')
    FROM pg_depend d
      JOIN pg_class c ON c.oid = d.objid
    WHERE d.classid = 'pg_class'::regclass
      AND d.deptype = 'e'
      AND c.relkind IN ('r', 'p')
      AND bemi.was_tracked(d.objid::regclass)
      AND NOT EXISTS (SELECT FROM bemi.context_triggers t WHERE t.relation = d.objid)) END;
  RETURN NEXT;
END
$$;

COMMENT ON FUNCTION bemi.doctor_of_tables() IS
'returns the rows of bemi.doctor() about which tables are tracked';

CREATE FUNCTION bemi.doctor_of_identities() RETURNS TABLE ("check" text, ok boolean, detail text, fix text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  names text[];
  refused text[];
BEGIN
  "check" := 'images before';
  SELECT
    COALESCE(array_agg(t.relation::text ORDER BY t.relation::text) FILTER (WHERE p.problem IS NULL), '{}'),
    COALESCE(array_agg(t.relation::text ORDER BY t.relation::text) FILTER (WHERE p.problem IS NOT NULL), '{}')
  INTO names, refused
  FROM bemi.tracked t
    JOIN pg_class c ON c.oid = t.relation,
    LATERAL (SELECT bemi.identity_problem(t.relation, 'full')) AS p (problem)
  WHERE t.replica_identity <> 'full'
    AND c.relkind = 'r';
  ok := names = '{}' AND refused = '{}';
  detail := CASE WHEN ok THEN 'WAL contains the whole row before each change'
    ELSE 'WAL does not contain the whole row before a change of ' || bemi.some_of(names || refused)
    END || CASE WHEN refused = '{}' THEN ''
      ELSE '; publications do not allow REPLICA IDENTITY FULL for ' || bemi.some_of(refused) END;
  -- What a publication publishes to its subscribers is for people to decide.
  fix := CASE WHEN NOT ok THEN concat_ws(' ', (
    SELECT string_agg(format('SELECT bemi.track_again(%L, ''full'');', name), ' ')
    FROM unnest(names) name
  ), (
    SELECT string_agg(format('SELECT * FROM bemi.identity_conflict(%L, ''full'');', name), ' ')
    FROM unnest(refused) name
  )) END;
  RETURN NEXT;

  "check" := 'triggers';
  names := ARRAY(
    SELECT t.relation::regclass::text
    FROM bemi.context_triggers t
    WHERE t.enabled NOT IN ('O', 'A')
    ORDER BY 1);
  ok := cardinality(names) = 0;
  detail := CASE WHEN ok THEN 'none is disabled' ELSE 'disabled on ' || bemi.some_of(names) END;
  fix := CASE WHEN NOT ok THEN (
    SELECT string_agg(format('ALTER TABLE %s ENABLE TRIGGER %I;', t.relation::regclass, t.name), ' ')
    FROM bemi.context_triggers t
    WHERE t.enabled NOT IN ('O', 'A')) END;
  RETURN NEXT;
END
$$;

COMMENT ON FUNCTION bemi.doctor_of_identities() IS
'returns the rows of bemi.doctor() about the replica identities and triggers of tracked tables';

CREATE FUNCTION bemi.doctor_of_drops() RETURNS TABLE ("check" text, ok boolean, detail text, fix text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  names text[];
BEGIN
  "check" := 'BemiHQ';
  names := ARRAY(SELECT format('the %s %s', b.kind, b.identity) FROM bemi.bemihq_objects() b);
  ok := names = '{}';
  detail := CASE WHEN ok THEN 'no objects of its migrations exist'
    ELSE 'its migration created ' || bemi.some_of(names) END;
  fix := CASE WHEN NOT ok THEN 'SELECT bemi.replace_bemihq();' END;
  RETURN NEXT;

  "check" := 'dropped triggers';
  SELECT
    COALESCE(array_agg(format('%s (by %I, %s)', c.oid::regclass, d.dropped_by, d.dropped_at)
      ORDER BY d.dropped_at DESC), '{}'),
    string_agg(format('SELECT bemi.track(%L);', c.oid::regclass), ' ' ORDER BY d.dropped_at DESC)
  INTO names, fix
  FROM bemi.dropped_triggers d
    JOIN pg_class c ON c.oid = d.relation
  WHERE NOT EXISTS (SELECT FROM bemi.context_triggers t WHERE t.relation = c.oid);
  ok := names = '{}';
  detail := CASE WHEN ok THEN 'no trigger of a tracked table was dropped manually'
    ELSE 'not tracked since their triggers were dropped: ' || bemi.some_of(names) END;
  RETURN NEXT;

  "check" := 'recorded changes';
  SELECT
    COALESCE(array_agg(k::text ORDER BY k::text), '{}'),
    string_agg(format('SELECT bemi.keep_table(%L);', k), ' ' ORDER BY k::text)
  INTO names, fix
  FROM bemi.kept_tables() k
  WHERE NOT EXISTS (
    SELECT FROM pg_trigger t
    WHERE t.tgrelid = k
      AND t.tgname = 'bemi_keep'
      AND t.tgenabled = 'A'
      AND t.tgfoid = 'bemi.refuse_truncate()'::regprocedure);
  ok := names = '{}';
  detail := CASE WHEN ok THEN 'TRUNCATE is refused' ELSE 'TRUNCATE is not refused: ' || bemi.some_of(names) END;
  RETURN NEXT;
END
$$;

COMMENT ON FUNCTION bemi.doctor_of_drops() IS
'returns the rows of bemi.doctor() about objects of BemiHQ, dropped triggers, and recorded changes';
