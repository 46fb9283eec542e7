-- Tracking a table, and ending that. The caller has to own the table.

-- As ALTER TABLE does it: for the owner, even one without the privileges on rows that LOCK TABLE would require.
CREATE FUNCTION bemi.lock(relation regclass, exclusive boolean) RETURNS void
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'bemi_lock';

COMMENT ON FUNCTION bemi.lock(regclass, boolean) IS
'locks a table of the caller: ACCESS EXCLUSIVE, or SHARE ROW EXCLUSIVE';

CREATE FUNCTION bemi.has_trigger(relation regclass, arguments text[]) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
  SELECT EXISTS (
    SELECT FROM bemi.context_triggers t
    WHERE t.relation = has_trigger.relation
      AND t.name = 'bemi_context'
      AND t.is_whole
      AND t.enabled IN ('O', 'A')
      AND bemi.rules(t.arguments, 'every') = has_trigger.arguments
  ) AND (SELECT count(*) FROM bemi.context_triggers t WHERE t.relation = has_trigger.relation) = 1
$$;

COMMENT ON FUNCTION bemi.has_trigger(regclass, text[]) IS
'returns whether a table has the trigger, with these arguments and not disabled';

CREATE FUNCTION bemi.put_trigger(relation regclass, arguments text[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET bemi.allow_drop = on AS $$
DECLARE
  there record;
  other name;
BEGIN
  SELECT tgfoid::regprocedure AS function, tgenabled
  INTO there
  FROM pg_trigger
  WHERE tgrelid = relation
    AND tgname = 'bemi_context';
  IF there.function <> 'bemi.emit_context()'::regprocedure THEN
    RAISE EXCEPTION 'the table % has a trigger bemi_context that calls %', relation, there.function
      USING ERRCODE = 'duplicate_object', HINT = format('DROP TRIGGER bemi_context ON %s;', relation);
  END IF;
  FOR other IN
    SELECT t.name
    FROM bemi.context_triggers t
    WHERE t.relation = put_trigger.relation
      AND t.name <> 'bemi_context'
  LOOP
    EXECUTE format('DROP TRIGGER %I ON %s', other, relation);
  END LOOP;
  EXECUTE format(
    'CREATE OR REPLACE TRIGGER bemi_context BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON %s '
    'FOR EACH STATEMENT EXECUTE FUNCTION bemi.emit_context(%s)', relation, (
      SELECT string_agg(quote_literal(argument), ', ' ORDER BY place)
      FROM unnest(arguments) WITH ORDINALITY AS a (argument, place)));
  -- The statement names the table, whose schema may have been renamed in between.
  IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = relation AND tgname = 'bemi_context') THEN
    RAISE EXCEPTION 'the schema of % was renamed concurrently', relation;
  END IF;
  -- Replacing a trigger enables it as a new one.
  IF there.tgenabled = 'A' THEN
    EXECUTE format('ALTER TABLE ONLY %s ENABLE ALWAYS TRIGGER bemi_context', relation);
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.put_trigger(regclass, text[]) IS
'creates the trigger of one table with these arguments, or replaces it and others of its kind';

CREATE FUNCTION bemi.rule_arguments(relation regclass, ignored text[], masked text[]) RETURNS text[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN ARRAY(SELECT DISTINCT 'ignore=' || c FROM unnest(ignored) c ORDER BY 1)
    || ARRAY(SELECT DISTINCT 'mask=' || c FROM unnest(masked) c ORDER BY 1)
    || array_remove(ARRAY[bemi.numbers_rule(relation, masked)], NULL);
END
$$;

COMMENT ON FUNCTION bemi.rule_arguments(regclass, text[], text[]) IS
'returns the arguments of the trigger of a table that ignores and masks columns';

-- Does not lock a table on which nothing has to change.
CREATE FUNCTION bemi.track_one(
  relation regclass, replica_identity text, ignore_columns text[], mask_columns text[]
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
  masks text[] := mask_columns || bemi.inherited_masks(relation);
  arguments text[];
  identity_now text;
  fitting text;
  was text;
  is_done boolean := false;
BEGIN
  -- The second time with the lock held, because other sessions may do the same.
  FOR attempt IN 1..2 LOOP
    arguments := bemi.rule_arguments(relation, ignore_columns, masks);
    identity_now := bemi.identity(relation);
    was := bemi.identity_before(relation);
    fitting := bemi.fitting_identity(relation, replica_identity, identity_now, was);
    IF fitting <> identity_now THEN
      was := COALESCE(was, identity_now);
    END IF;
    is_done := fitting = identity_now
      AND bemi.has_trigger(relation, arguments || array_remove(ARRAY['identity=' || was], NULL));
    EXIT WHEN is_done;
    IF attempt = 1 THEN
      -- The stronger lock at once: a session that has read the table and waits to write it would wait for a weaker
      -- one, and this session would wait for it.
      PERFORM bemi.lock(relation, replica_identity <> 'keep' OR fitting <> identity_now);
    END IF;
  END LOOP;
  IF replica_identity NOT IN ('keep', fitting) THEN
    RAISE WARNING 'the replica identity of % is %, not %, with which UPDATE and DELETE would fail: %',
        relation, fitting, replica_identity, bemi.identity_problem(relation, replica_identity)
      USING HINT = format('Change the publication, and call SELECT bemi.track_again(%L, %L); '
        'or keep this replica identity: SELECT bemi.track_again(%L);', relation, replica_identity, relation);
  ELSIF fitting <> identity_now AND replica_identity = 'keep' THEN
    RAISE NOTICE 'the replica identity of % is % again, as before tracking: with %, UPDATE and DELETE fail (%)',
      relation, fitting, identity_now, bemi.identity_problem(relation, identity_now);
  END IF;
  IF NOT is_done THEN
    PERFORM bemi.set_identity(relation, fitting);
    PERFORM bemi.put_trigger(relation, arguments || array_remove(ARRAY['identity=' || was], NULL));
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.track_one(regclass, text, text[], text[]) IS
'tracks one table, without its partitions';

CREATE FUNCTION bemi.require_columns(relation regclass, columns name[]) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  unknown text;
BEGIN
  SELECT quote_ident(c)
  INTO unknown
  FROM unnest(columns) c
  WHERE NOT EXISTS (
    SELECT FROM pg_attribute
    WHERE attrelid = relation
      AND attname = c
      AND attnum > 0
      AND NOT attisdropped)
  LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'the table % has no column %', relation, unknown
      USING ERRCODE = 'undefined_column', HINT = (
        SELECT 'Its columns are ' || string_agg(quote_ident(attname), ', ' ORDER BY attnum) || '.'
        FROM pg_attribute
        WHERE attrelid = relation
          AND attnum > 0
          AND NOT attisdropped);
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.require_columns(regclass, name[]) IS
'raises an error if a table lacks one of these columns';

CREATE FUNCTION bemi.require_trackable(
  relation regclass, replica_identity text, ignore_columns name[], mask_columns name[]
) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  problem record;
BEGIN
  IF relation IS NULL THEN
    RAISE EXCEPTION 'bemi cannot track NULL'
      USING ERRCODE = 'null_value_not_allowed', HINT = 'Name a table, as in SELECT bemi.track(''public.todo'').';
  ELSIF NOT EXISTS (SELECT FROM pg_class WHERE oid = relation) THEN
    RAISE EXCEPTION 'table with OID % does not exist', relation::oid USING ERRCODE = 'undefined_table';
  ELSIF replica_identity IS NULL OR replica_identity NOT IN ('full', 'default', 'keep') THEN
    RAISE EXCEPTION 'replica_identity cannot be %', COALESCE(quote_literal(replica_identity), 'NULL')
      USING ERRCODE = 'invalid_parameter_value',
        HINT = 'It is one of ''full'' (WAL contains the whole row before each change), ''default'' (only the key) '
          'and ''keep'' (what the table has).';
  ELSIF ignore_columns IS NULL OR mask_columns IS NULL
    OR array_position(ignore_columns || mask_columns, NULL) > 0
  THEN
    RAISE EXCEPTION 'ignore_columns and mask_columns cannot be or contain NULL'
      USING ERRCODE = 'null_value_not_allowed', HINT = 'To name no columns, use ''{}''.';
  END IF;
  SELECT * INTO problem FROM bemi.obstacle(relation);
  IF FOUND THEN
    RAISE EXCEPTION '%', problem.message USING ERRCODE = 'wrong_object_type', HINT = COALESCE(problem.hint, '');
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.require_trackable(regclass, text, name[], name[]) IS
'raises an error if bemi.track() was called with arguments by which nothing can be tracked';

CREATE FUNCTION bemi.require_member(member regclass, columns name[]) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  unknown text;
BEGIN
  IF NOT (SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = member) THEN
    RAISE EXCEPTION 'must be owner of table %', member
      USING ERRCODE = 'insufficient_privilege', HINT = 'The owner of the table, or a superuser, can track it.';
  END IF;
  PERFORM bemi.require_columns(member, columns);
  SELECT quote_ident(c)
  INTO unknown
  FROM unnest(columns) c
  WHERE c IN (SELECT bemi.key_columns(member))
  LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'cannot ignore or mask the column % of %, because it belongs to the key', unknown, member
      USING ERRCODE = 'feature_not_supported',
        HINT = 'Without the key, rows cannot be identified. Choose other columns, or give the table another key.';
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.require_member(regclass, name[]) IS
'raises an error if the caller does not own a table, or if it lacks columns or has them in its key';

CREATE FUNCTION bemi.notice_tracked(relation regclass, mask_columns name[]) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  children text;
  inherited text[];
BEGIN
  inherited := ARRAY(
    SELECT quote_ident(mask)
    FROM unnest(bemi.inherited_masks(relation)) mask
    WHERE mask <> ALL (mask_columns::text[]));
  IF inherited <> '{}' THEN
    RAISE NOTICE 'columns of % are masked as in the tables that it inherits from: %',
      relation, array_to_string(inherited, ', ');
  END IF;
  IF EXISTS (SELECT FROM pg_class WHERE oid = relation AND relreplident <> 'f')
    AND bemi.identity_index(relation) IS NULL
  THEN
    RAISE NOTICE 'WAL will not identify updated or deleted rows of %: it has neither a key nor REPLICA IDENTITY FULL',
        relation
      USING HINT = format('SELECT bemi.track(%L);', relation);
  END IF;
  SELECT string_agg(inhrelid::regclass::text, ', ' ORDER BY inhrelid)
  INTO children
  FROM pg_inherits
    JOIN pg_class c ON c.oid = inhrelid
  WHERE inhparent = relation
    AND NOT c.relispartition
    AND NOT EXISTS (SELECT FROM bemi.context_triggers t WHERE t.relation = inhrelid);
  IF children IS NOT NULL THEN
    RAISE NOTICE 'tables that inherit from % have to be tracked separately: %', relation, children;
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.notice_tracked(regclass, name[]) IS
'reports inherited masks, a missing key, and untracked children of a table that was tracked';

CREATE FUNCTION bemi.track(
  relation regclass,
  replica_identity text DEFAULT 'full',
  ignore_columns name[] DEFAULT '{}',
  mask_columns name[] DEFAULT '{}'
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  members regclass[];
  member regclass;
BEGIN
  PERFORM bemi.require_trackable(relation, replica_identity, ignore_columns, mask_columns);
  members := ARRAY(SELECT * FROM bemi.tree(relation));
  FOREACH member IN ARRAY members LOOP
    PERFORM bemi.require_member(member, ignore_columns || mask_columns);
  END LOOP;
  FOREACH member IN ARRAY members LOOP
    PERFORM bemi.track_one(member, replica_identity, ignore_columns::text[], mask_columns::text[]);
    -- A column that was renamed before the table was locked would not be masked.
    PERFORM bemi.require_columns(member, ignore_columns || mask_columns);
  END LOOP;
  PERFORM bemi.mask_heirs(relation);
  PERFORM bemi.notice_tracked(relation, mask_columns);
END
$$;

COMMENT ON FUNCTION bemi.track(regclass, text, name[], name[]) IS
'starts tracking a table and its partitions: changes carry the context; called again, it replaces the rules';

CREATE FUNCTION bemi.untrack_one(relation regclass) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET bemi.allow_drop = on AS $$
DECLARE
  trigger record;
BEGIN
  IF NOT EXISTS (SELECT FROM bemi.context_triggers t WHERE t.relation = untrack_one.relation) THEN
    RETURN;
  END IF;
  PERFORM bemi.lock(relation, true);
  FOR trigger IN
    SELECT t.name, (bemi.rules(t.arguments, 'identity'))[1] AS identity
    FROM bemi.context_triggers t
    WHERE t.relation = untrack_one.relation
  LOOP
    EXECUTE format('DROP TRIGGER %I ON %s', trigger.name, relation);
    IF trigger.identity IS NOT NULL
      AND bemi.identity_problem(relation, trigger.identity) IS NOT NULL
      AND bemi.identity_problem(relation, bemi.identity(relation)) IS NULL
    THEN
      RAISE WARNING 'the replica identity of % stays %: with the former one (%), UPDATE and DELETE would fail: %',
          relation, bemi.identity(relation), trigger.identity, bemi.identity_problem(relation, trigger.identity)
        USING HINT = format('SELECT * FROM bemi.identity_conflict(%L, %L);', relation, trigger.identity);
    ELSIF trigger.identity IS NOT NULL THEN
      PERFORM bemi.set_identity(relation, trigger.identity);
    END IF;
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.untrack_one(regclass) IS
'stops tracking one table, without its partitions';

CREATE FUNCTION bemi.untrack(relation regclass) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM bemi.untrack_one(member) FROM bemi.tree(relation) member;
END
$$;

COMMENT ON FUNCTION bemi.untrack(regclass) IS
'stops tracking a table and its partitions, and restores their former replica identities';
