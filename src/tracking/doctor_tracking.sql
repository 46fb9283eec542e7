-- What the doctor says of tracked tables, their rules, and publications.

-- A few names, and how many more there are.
CREATE FUNCTION bemi.some_of(names text[]) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT array_to_string(names[1:5], ', ') || CASE WHEN cardinality(names) > 5 THEN format(' and %s more', cardinality(names) - 5) ELSE '' END
$$;

COMMENT ON FUNCTION bemi.some_of(text[]) IS
'the first five names of a list, and how many more there are';

CREATE FUNCTION bemi.doctor_of_tables() RETURNS TABLE ("check" text, ok boolean, detail text, fix text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  names text[];
  refused text[];
  was_tracked boolean;
  used int;
BEGIN
  "check" := 'tracked tables';
  SELECT count(*) INTO used FROM bemi.tracked;
  ok := used > 0;
  detail := format('%s tables are tracked', used) || (SELECT COALESCE('; so are the future tables of ' || string_agg(quote_ident(schema), ', ' ORDER BY schema), '') FROM bemi.tracked_schemas);
  fix := CASE WHEN NOT ok THEN 'SELECT bemi.track_all();' END;
  RETURN NEXT;

  "check" := 'untracked tables';
  names := ARRAY(SELECT t::text FROM bemi.trackable(ARRAY(SELECT schema FROM bemi.tracked_schemas)) t
    WHERE NOT EXISTS (SELECT FROM bemi.context_triggers o WHERE o.relation = t) ORDER BY 1);
  ok := cardinality(names) = 0;
  detail := CASE WHEN ok THEN 'none in the tracked schemas' ELSE 'in the tracked schemas: ' || bemi.some_of(names) END;
  fix := CASE WHEN NOT ok THEN format('SELECT bemi.track_all(%L);', ARRAY(SELECT schema FROM bemi.tracked_schemas JOIN pg_namespace ON nspname = schema ORDER BY schema)) END;
  RETURN NEXT;

  -- Those of extensions are left out on purpose; but anyone who owns an extension can add a table to it.
  "check" := 'tables of extensions';
  SELECT COALESCE(array_agg(format('%s (%s)', c.oid::regclass, e.extname) ORDER BY c.oid), '{}'), bool_or(bemi.was_tracked(c.oid::regclass)) INTO names, was_tracked
  FROM pg_class c JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e' JOIN pg_extension e ON e.oid = d.refobjid
  WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND c.relnamespace IN (SELECT n.oid FROM pg_namespace n JOIN bemi.tracked_schemas s ON s.schema = n.nspname)
    AND NOT EXISTS (SELECT FROM bemi.context_triggers t WHERE t.relation = c.oid);
  ok := was_tracked IS NOT TRUE;
  detail := CASE WHEN names = '{}' THEN 'the tracked schemas have none that is not tracked' ELSE 'not tracked, since they belong to extensions: ' || bemi.some_of(names)
    || CASE WHEN ok THEN '' ELSE '; some were tracked before' END END;
  fix := CASE WHEN NOT ok THEN (SELECT string_agg(format('SELECT bemi.track(%L);', d.objid::regclass), ' ') FROM pg_depend d JOIN pg_class c ON c.oid = d.objid
    WHERE d.classid = 'pg_class'::regclass AND d.deptype = 'e' AND c.relkind IN ('r', 'p') AND bemi.was_tracked(d.objid::regclass)
      AND NOT EXISTS (SELECT FROM bemi.context_triggers t WHERE t.relation = d.objid)) END;
  RETURN NEXT;

  "check" := 'images before';
  SELECT COALESCE(array_agg(t.relation::text ORDER BY t.relation::text) FILTER (WHERE p.problem IS NULL), '{}'),
    COALESCE(array_agg(t.relation::text ORDER BY t.relation::text) FILTER (WHERE p.problem IS NOT NULL), '{}') INTO names, refused
  FROM bemi.tracked t JOIN pg_class c ON c.oid = t.relation, LATERAL (SELECT bemi.identity_problem(t.relation, 'full')) AS p (problem)
  WHERE t.replica_identity <> 'full' AND c.relkind = 'r';
  ok := names = '{}' AND refused = '{}';
  detail := CASE WHEN ok THEN 'the log has the whole row before each change' ELSE 'the log has not the whole row before a change of ' || bemi.some_of(names || refused) END
    || CASE WHEN refused = '{}' THEN '' ELSE '; publications do not go with REPLICA IDENTITY FULL of ' || bemi.some_of(refused) END;
  -- What a publication shows its subscribers, people choose.
  fix := CASE WHEN NOT ok THEN concat_ws(' ', (SELECT string_agg(format('SELECT bemi.track_again(%L, ''full'');', name), ' ') FROM unnest(names) name),
    (SELECT string_agg(format('SELECT * FROM bemi.identity_conflict(%L, ''full'');', name), ' ') FROM unnest(refused) name)) END;
  RETURN NEXT;

  "check" := 'triggers';
  names := ARRAY(SELECT t.relation::regclass::text FROM bemi.context_triggers t WHERE t.enabled NOT IN ('O', 'A') ORDER BY 1);
  ok := cardinality(names) = 0;
  detail := CASE WHEN ok THEN 'none is disabled' ELSE 'disabled on ' || bemi.some_of(names) END;
  fix := CASE WHEN NOT ok THEN (SELECT string_agg(format('ALTER TABLE %s ENABLE TRIGGER %I;', t.relation::regclass, t.name), ' ')
    FROM bemi.context_triggers t WHERE t.enabled NOT IN ('O', 'A')) END;
  RETURN NEXT;

  "check" := 'BemiHQ';
  names := ARRAY(SELECT format('the %s %s', b.kind, b.identity) FROM bemi.bemihq_objects() b);
  ok := names = '{}';
  detail := CASE WHEN ok THEN 'nothing of its migrations is there' ELSE 'its migration has left ' || bemi.some_of(names) END;
  fix := CASE WHEN NOT ok THEN 'SELECT bemi.replace_bemihq();' END;
  RETURN NEXT;

  "check" := 'dropped triggers';
  SELECT COALESCE(array_agg(format('%s (by %I, %s)', c.oid::regclass, d.dropped_by, d.dropped_at) ORDER BY d.dropped_at DESC), '{}'),
    string_agg(format('SELECT bemi.track(%L);', c.oid::regclass), ' ' ORDER BY d.dropped_at DESC) INTO names, fix
  FROM bemi.dropped_triggers d JOIN pg_class c ON c.oid = d.relation
  WHERE NOT EXISTS (SELECT FROM bemi.context_triggers t WHERE t.relation = c.oid);
  ok := names = '{}';
  detail := CASE WHEN ok THEN 'no table is untracked because its trigger was dropped by hand' ELSE 'no longer tracked since then: ' || bemi.some_of(names) END;
  RETURN NEXT;

  "check" := 'recorded changes';
  SELECT COALESCE(array_agg(k::text ORDER BY k::text), '{}'), string_agg(format('SELECT bemi.keep_table(%L);', k), ' ' ORDER BY k::text) INTO names, fix
  FROM bemi.kept_tables() k WHERE NOT EXISTS (
    SELECT FROM pg_trigger t WHERE t.tgrelid = k AND t.tgname = 'bemi_keep' AND t.tgenabled = 'A' AND t.tgfoid = 'bemi.refuse_truncate()'::regprocedure);
  ok := names = '{}';
  detail := CASE WHEN ok THEN 'TRUNCATE is refused' ELSE 'TRUNCATE is not refused: ' || bemi.some_of(names) END;
  RETURN NEXT;
END
$$;

COMMENT ON FUNCTION bemi.doctor_of_tables() IS
'the rows of bemi.doctor() on which tables are tracked';

-- Whether a table was tracked at any time, as far as that is known.
CREATE FUNCTION bemi.was_tracked(relation regclass) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN has_table_privilege('bemi.table_versions', 'SELECT')
    AND EXISTS (SELECT FROM bemi.table_versions v WHERE v.relation = was_tracked.relation AND v.is_tracked);
END
$$;

COMMENT ON FUNCTION bemi.was_tracked(regclass) IS
'whether a table was tracked at any time';

-- The tables whose rules were last changed by a role that has neither their owner's rights nor all: TRIGGER is enough for it.
-- A change of rules is one of the names and of the numbers of columns: a renamed one changes the names alone, a dropped one
-- the numbers.
CREATE FUNCTION bemi.rules_by_others() RETURNS TABLE (relation regclass, noted_by text, ignored name[], masked name[])
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT has_table_privilege('bemi.table_versions', 'SELECT') THEN
    RETURN;
  END IF;
  RETURN QUERY
    WITH versions AS (
      SELECT v.relation AS id, v.source, v.position, v.is_tracked, to_jsonb(v) ->> 'noted_by' AS noted_by, COALESCE(v.ignored, '{}') AS ignored, COALESCE(v.masked, '{}') AS masked,
        ARRAY(SELECT key::smallint FROM jsonb_each_text(v.columns) WHERE value = ANY (v.ignored) ORDER BY 1) AS ignored_numbers,
        ARRAY(SELECT key::smallint FROM jsonb_each_text(v.columns) WHERE value = ANY (v.masked) ORDER BY 1) AS masked_numbers
      FROM bemi.table_versions v WHERE EXISTS (SELECT FROM bemi.context_triggers t WHERE t.relation = v.relation)
    ), steps AS (
      SELECT v.*, COALESCE(lag(v.ignored) OVER w, '{}') AS old_ignored, COALESCE(lag(v.masked) OVER w, '{}') AS old_masked,
        COALESCE(lag(v.ignored_numbers) OVER w, '{}') AS old_ignored_numbers, COALESCE(lag(v.masked_numbers) OVER w, '{}') AS old_masked_numbers
      FROM versions v WINDOW w AS (PARTITION BY v.id ORDER BY v.source, v.position)
    ), latest AS (
      SELECT DISTINCT ON (s.id) s.* FROM steps s
      WHERE s.ignored <> s.old_ignored AND s.ignored_numbers <> s.old_ignored_numbers OR s.masked <> s.old_masked AND s.masked_numbers <> s.old_masked_numbers
      ORDER BY s.id, s.source DESC, s.position DESC
    )
    SELECT c.oid::regclass, l.noted_by,
      ARRAY(SELECT a.attname FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum = ANY (l.old_ignored_numbers) AND NOT a.attisdropped ORDER BY a.attnum),
      ARRAY(SELECT a.attname FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum = ANY (l.old_masked_numbers) AND NOT a.attisdropped ORDER BY a.attnum)
    FROM latest l JOIN pg_class c ON c.oid = l.id LEFT JOIN pg_roles r ON r.rolname = l.noted_by
    WHERE l.noted_by IS NOT NULL AND COALESCE(NOT r.rolsuper AND NOT pg_has_role(r.oid, c.relowner, 'USAGE'), true) ORDER BY c.oid;
END
$$;

COMMENT ON FUNCTION bemi.rules_by_others() IS
'the tables whose rules were last changed by a role that does not have the rights of their owner, and the rules of before';

CREATE FUNCTION bemi.doctor_of_rules() RETURNS TABLE ("check" text, ok boolean, detail text, fix text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  names text[];
BEGIN
  "check" := 'rules';
  -- What is missing but for the above.
  names := ARRAY(SELECT format('%s (%s)', t.relation, problem) FROM bemi.tracked t, unnest(t.missing) problem
    WHERE problem !~ '^the (trigger|log|publication) ' ORDER BY 1);
  ok := cardinality(names) = 0;
  detail := CASE WHEN ok THEN 'each is in force' ELSE bemi.some_of(names) END;
  -- A mask is never taken away without being asked for: a column that is not there may have another name now. So that
  -- statement shows the rules; only people know which to choose.
  fix := CASE WHEN NOT ok THEN (
    SELECT string_agg(DISTINCT CASE
      WHEN problem ~ '^the partition ' THEN format('SELECT bemi.follow_table(%L);', t.relation)
      WHEN problem ~ '^the table .* inherits from it' THEN (SELECT string_agg(format('SELECT bemi.follow_table(%L, true);', h), ' ') FROM bemi.untracked_heirs(t.relation) h)
      WHEN problem ~ '^statements that name ' THEN (SELECT string_agg(format('SELECT bemi.follow_table(%L, true);', a), ' ') FROM bemi.untracked_above(t.relation) a)
      WHEN problem ~ '^ignored columns ' THEN format('SELECT bemi.track_again(%L, ''full'');', t.relation)
      WHEN problem ~ ' to mask' THEN format('SELECT * FROM bemi.tracked WHERE relation = %L::regclass;', t.relation)
      ELSE format('SELECT bemi.track_again(%L);', t.relation) END, ' ')
    FROM bemi.tracked t, unnest(t.missing) problem WHERE problem !~ '^the (trigger|log|publication) ') END;
  RETURN NEXT;

  "check" := 'rules by others';
  names := ARRAY(SELECT format('%s (%s)', o.relation, quote_ident(o.noted_by)) FROM bemi.rules_by_others() o ORDER BY 1);
  ok := names = '{}';
  detail := CASE WHEN ok THEN 'no rules were changed by a role without the rights of the owner' ELSE 'last changed by a role without the rights of the owner: ' || bemi.some_of(names) END;
  -- The rules of before.
  fix := CASE WHEN NOT ok THEN (SELECT string_agg(format('SELECT bemi.track(%L, ''keep'', %L, %L);', o.relation, o.ignored, o.masked), ' ') FROM bemi.rules_by_others() o) END;
  RETURN NEXT;
END
$$;

COMMENT ON FUNCTION bemi.doctor_of_rules() IS
'the rows of bemi.doctor() on the rules of tracked tables';

CREATE FUNCTION bemi.doctor_of_publications() RETURNS TABLE ("check" text, ok boolean, detail text, fix text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  names text[] := '{}';
  relations regclass[] := '{}';
BEGIN
  "check" := 'publications';
  IF EXISTS (SELECT FROM pg_publication) THEN
    SELECT COALESCE(array_agg(format('%s (%s)', p.relation, p.problem) ORDER BY p.relation), '{}'), COALESCE(array_agg(p.relation ORDER BY p.relation), '{}') INTO names, relations
    FROM (SELECT DISTINCT t.relation::regclass AS relation, bemi.identity_problem(t.relation::regclass, bemi.identity(t.relation::regclass)) AS problem
      FROM bemi.context_triggers t) p WHERE p.problem IS NOT NULL;
  END IF;
  ok := names = '{}';
  detail := CASE WHEN ok THEN 'the replica identities of tracked tables go with them' ELSE 'UPDATE and DELETE fail: ' || bemi.some_of(names) END;
  fix := CASE WHEN NOT ok THEN (SELECT string_agg(bemi.identity_remedy(r), ' ') FROM unnest(relations) r) END;
  RETURN NEXT;

  "check" := 'subscribers';
  names := ARRAY(SELECT p.detail FROM bemi.publications_of_bemi() p);
  ok := names = '{}';
  detail := CASE WHEN ok THEN 'no publication has the tables of bemi unasked' ELSE 'a subscriber without the tables of bemi stops: ' || bemi.some_of(names)
    || '; see "Publications and subscribers" in docs/tracking.md' END;
  fix := CASE WHEN NOT ok THEN (SELECT string_agg(p.fix, ' ') FROM bemi.publications_of_bemi() p) END;
  RETURN NEXT;
END
$$;

COMMENT ON FUNCTION bemi.doctor_of_publications() IS
'the rows of bemi.doctor() on publications';

CREATE FUNCTION bemi.doctor_of_ownership() RETURNS TABLE ("check" text, ok boolean, detail text, fix text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  "check" := 'ownership';
  SELECT count(*) = 0, COALESCE(string_agg(u.detail, '; '), 'what the recorder writes belongs to a superuser alone'), string_agg(u.fix, ' ')
  INTO ok, detail, fix FROM bemi.unsafe() u;
  -- A right that no table has, and that is no reason not to record.
  IF ok AND EXISTS (SELECT FROM pg_auth_members m WHERE m.roleid = 'pg_write_all_data'::regrole) THEN
    SELECT false, 'may write what is recorded, by pg_write_all_data: ' || string_agg(DISTINCT quote_ident(r.rolname), ', '),
      string_agg(DISTINCT format('REVOKE pg_write_all_data FROM %I;', r.rolname), ' ')
    INTO ok, detail, fix FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.member WHERE m.roleid = 'pg_write_all_data'::regrole;
  END IF;
  RETURN NEXT;
END
$$;

COMMENT ON FUNCTION bemi.doctor_of_ownership() IS
'the row of bemi.doctor() on who owns what the recorder writes';
