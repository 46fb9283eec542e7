-- What bemi.doctor() returns about the rules of tracked tables, publications, and who owns what the recorder writes.

CREATE FUNCTION bemi.was_tracked(relation regclass) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN has_table_privilege('bemi.table_versions', 'SELECT')
    AND EXISTS (SELECT FROM bemi.table_versions v WHERE v.relation = was_tracked.relation AND v.is_tracked);
END
$$;

COMMENT ON FUNCTION bemi.was_tracked(regclass) IS
'returns whether a table was tracked at any time, as far as that is known';

-- The privilege TRIGGER is enough to change the rules of a table. A change of rules changes both the names and the
-- numbers of columns: renaming a column changes only the names, and dropping one only the numbers.
CREATE FUNCTION bemi.rules_by_others()
RETURNS TABLE (relation regclass, noted_by text, ignored name[], masked name[])
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT has_table_privilege('bemi.table_versions', 'SELECT') THEN
    RETURN;
  END IF;
  RETURN QUERY
    WITH versions AS (
      SELECT v.relation AS id, v.source, v.position, v.is_tracked, to_jsonb(v) ->> 'noted_by' AS noted_by,
        COALESCE(v.ignored, '{}') AS ignored, COALESCE(v.masked, '{}') AS masked,
        ARRAY(
          SELECT key::smallint FROM jsonb_each_text(v.columns) WHERE value = ANY (v.ignored) ORDER BY 1
        ) AS ignored_numbers,
        ARRAY(
          SELECT key::smallint FROM jsonb_each_text(v.columns) WHERE value = ANY (v.masked) ORDER BY 1
        ) AS masked_numbers
      FROM bemi.table_versions v
      WHERE EXISTS (SELECT FROM bemi.context_triggers t WHERE t.relation = v.relation)
    ), steps AS (
      SELECT v.*,
        COALESCE(lag(v.ignored) OVER w, '{}') AS old_ignored,
        COALESCE(lag(v.masked) OVER w, '{}') AS old_masked,
        COALESCE(lag(v.ignored_numbers) OVER w, '{}') AS old_ignored_numbers,
        COALESCE(lag(v.masked_numbers) OVER w, '{}') AS old_masked_numbers
      FROM versions v
      WINDOW w AS (PARTITION BY v.id ORDER BY v.source, v.position)
    ), latest AS (
      SELECT DISTINCT ON (s.id) s.*
      FROM steps s
      WHERE s.ignored <> s.old_ignored AND s.ignored_numbers <> s.old_ignored_numbers
        OR s.masked <> s.old_masked AND s.masked_numbers <> s.old_masked_numbers
      ORDER BY s.id, s.source DESC, s.position DESC
    )
    SELECT c.oid::regclass, l.noted_by, bemi.live_columns(c.oid, l.old_ignored_numbers),
      bemi.live_columns(c.oid, l.old_masked_numbers)
    FROM latest l
      JOIN pg_class c ON c.oid = l.id
      LEFT JOIN pg_roles r ON r.rolname = l.noted_by
    WHERE l.noted_by IS NOT NULL
      AND COALESCE(NOT r.rolsuper AND NOT pg_has_role(r.oid, c.relowner, 'USAGE'), true)
    ORDER BY c.oid;
END
$$;

COMMENT ON FUNCTION bemi.rules_by_others() IS
'returns tables whose rules were last changed by a role without the rights of the owner, and their rules before that';

CREATE FUNCTION bemi.live_columns(relation oid, numbers smallint[]) RETURNS name[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT ARRAY(
    SELECT a.attname
    FROM pg_attribute a
    WHERE a.attrelid = relation
      AND a.attnum = ANY (numbers)
      AND NOT a.attisdropped
    ORDER BY a.attnum)
$$;

COMMENT ON FUNCTION bemi.live_columns(oid, smallint[]) IS
'returns the names of those of some columns, given by their numbers, that were not dropped';

-- A mask is never removed unasked: a column that does not exist may have been renamed. So the fix for that shows the
-- rules; only people know which to choose.
CREATE FUNCTION bemi.rules_remedy() RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT string_agg(DISTINCT CASE
    WHEN problem ~ '^the partition ' THEN
      format('SELECT bemi.follow_table(%L);', t.relation)
    WHEN problem ~ '^the table .* inherits from it' THEN (
      SELECT string_agg(format('SELECT bemi.follow_table(%L, true);', h), ' ')
      FROM bemi.untracked_heirs(t.relation) h)
    WHEN problem ~ '^statements that name ' THEN (
      SELECT string_agg(format('SELECT bemi.follow_table(%L, true);', a), ' ')
      FROM bemi.untracked_above(t.relation) a)
    WHEN problem ~ '^ignored columns ' THEN
      format('SELECT bemi.track_again(%L, ''full'');', t.relation)
    WHEN problem ~ ' to mask' THEN
      format('SELECT * FROM bemi.tracked WHERE relation = %L::regclass;', t.relation)
    ELSE
      format('SELECT bemi.track_again(%L);', t.relation)
    END, ' ')
  FROM bemi.tracked t,
    unnest(t.missing) problem
  WHERE problem !~ '^(the trigger|WAL|the publication) '
$$;

COMMENT ON FUNCTION bemi.rules_remedy() IS
'returns the statements that fix, or show, the rules of tracked tables that are not in force';

CREATE FUNCTION bemi.doctor_of_rules() RETURNS TABLE ("check" text, ok boolean, detail text, fix text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  names text[];
BEGIN
  "check" := 'rules';
  -- Other checks report the problems that are left out here.
  names := ARRAY(
    SELECT format('%s (%s)', t.relation, problem)
    FROM bemi.tracked t,
      unnest(t.missing) problem
    WHERE problem !~ '^(the trigger|WAL|the publication) '
    ORDER BY 1);
  ok := cardinality(names) = 0;
  detail := CASE WHEN ok THEN 'all are in force' ELSE bemi.some_of(names) END;
  fix := CASE WHEN NOT ok THEN bemi.rules_remedy() END;
  RETURN NEXT;

  "check" := 'rules by others';
  names := ARRAY(
    SELECT format('%s (%s)', o.relation, quote_ident(o.noted_by))
    FROM bemi.rules_by_others() o
    ORDER BY 1);
  ok := names = '{}';
  detail := CASE WHEN ok THEN 'no role without the rights of the owner changed rules'
    ELSE 'last changed by a role without the rights of the owner: ' || bemi.some_of(names) END;
  -- The rules from before that change.
  fix := CASE WHEN NOT ok THEN (
    SELECT string_agg(format('SELECT bemi.track(%L, ''keep'', %L, %L);', o.relation, o.ignored, o.masked), ' ')
    FROM bemi.rules_by_others() o) END;
  RETURN NEXT;
END
$$;

COMMENT ON FUNCTION bemi.doctor_of_rules() IS
'returns the rows of bemi.doctor() about the rules of tracked tables';

CREATE FUNCTION bemi.doctor_of_publications() RETURNS TABLE ("check" text, ok boolean, detail text, fix text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  names text[] := '{}';
  relations regclass[] := '{}';
BEGIN
  "check" := 'publications';
  IF EXISTS (SELECT FROM pg_publication) THEN
    SELECT COALESCE(array_agg(format('%s (%s)', p.relation, p.problem) ORDER BY p.relation), '{}'),
      COALESCE(array_agg(p.relation ORDER BY p.relation), '{}')
    INTO names, relations
    FROM (
      SELECT DISTINCT t.relation::regclass AS relation,
        bemi.identity_problem(t.relation::regclass, bemi.identity(t.relation::regclass)) AS problem
      FROM bemi.context_triggers t
    ) p
    WHERE p.problem IS NOT NULL;
  END IF;
  ok := names = '{}';
  detail := CASE WHEN ok THEN 'they allow the replica identities of tracked tables'
    ELSE 'UPDATE and DELETE fail: ' || bemi.some_of(names) END;
  fix := CASE WHEN NOT ok THEN (SELECT string_agg(bemi.identity_remedy(r), ' ') FROM unnest(relations) r) END;
  RETURN NEXT;

  "check" := 'subscribers';
  names := ARRAY(SELECT p.detail FROM bemi.publications_of_bemi() p);
  ok := names = '{}';
  detail := CASE WHEN ok THEN 'no publication includes tables of bemi that nobody added by name'
    ELSE 'a subscriber without the tables of bemi stops: ' || bemi.some_of(names)
      || '; see "Publications and subscribers" in docs/tracking.md' END;
  fix := CASE WHEN NOT ok THEN (SELECT string_agg(p.fix, ' ') FROM bemi.publications_of_bemi() p) END;
  RETURN NEXT;
END
$$;

COMMENT ON FUNCTION bemi.doctor_of_publications() IS
'returns the rows of bemi.doctor() about publications';

CREATE FUNCTION bemi.doctor_of_ownership() RETURNS TABLE ("check" text, ok boolean, detail text, fix text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  "check" := 'ownership';
  SELECT count(*) = 0, COALESCE(string_agg(u.detail, '; '), 'only a superuser owns what the recorder writes'),
    string_agg(u.fix, ' ')
  INTO ok, detail, fix
  FROM bemi.unsafe() u;
  -- A right that is not granted on any table, and that does not keep the recorder from recording.
  IF ok AND EXISTS (SELECT FROM pg_auth_members m WHERE m.roleid = 'pg_write_all_data'::regrole) THEN
    SELECT false,
      'members of pg_write_all_data may write recorded changes: ' || string_agg(DISTINCT quote_ident(r.rolname), ', '),
      string_agg(DISTINCT format('REVOKE pg_write_all_data FROM %I;', r.rolname), ' ')
    INTO ok, detail, fix
    FROM pg_auth_members m
      JOIN pg_roles r ON r.oid = m.member
    WHERE m.roleid = 'pg_write_all_data'::regrole;
  END IF;
  RETURN NEXT;
END
$$;

COMMENT ON FUNCTION bemi.doctor_of_ownership() IS
'returns the row of bemi.doctor() about who owns what the recorder writes';
