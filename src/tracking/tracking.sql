-- Which tables carry the trigger, and by which rules. On a partitioned table it is attached to every table of the tree,
-- since a statement may name any of them; foreign tables aside, whose changes are not in the log.
--
-- The functions look at nothing but pg_catalog and this schema, whatever the caller's search_path is. They run with the
-- rights of the caller, who has to own the tables.

CREATE FUNCTION bemi.rules(arguments bytea, kind text) RETURNS text[]
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'bemi_rules';

COMMENT ON FUNCTION bemi.rules(bytea, text) IS
'the arguments of a trigger (pg_trigger.tgargs) of a kind: ignore, mask, numbers, identity, unknown, or every with their kind';

-- Every table that carries the trigger. One that is whole fires before every statement (pg_trigger.h: 2 BEFORE, 4 INSERT,
-- 8 DELETE, 16 UPDATE, 32 TRUNCATE).
-- Functions that ask it for one table have enable_seqscan off: a plan that was made while pg_trigger was small stays in the
-- session, and would read all of it for each of thousands of tables that are tracked in one call.
CREATE VIEW bemi.context_triggers AS
SELECT t.oid, t.tgrelid AS relation, t.tgname AS name, t.tgenabled AS enabled, t.tgargs AS arguments,
  t.tgtype = 62 AND t.tgqual IS NULL AND t.tgattr = '' AS is_whole
FROM pg_catalog.pg_trigger t
WHERE t.tgfoid = 'bemi.emit_context()'::regprocedure AND NOT t.tgisinternal AND t.tgparentid = 0;

GRANT SELECT ON bemi.context_triggers TO PUBLIC;

COMMENT ON VIEW bemi.context_triggers IS
'the triggers that write the context into the log';

-- What a table's triggers say of a kind: of columns to ignore, only the one that tracking makes.
CREATE FUNCTION bemi.table_rules(relation regclass, kind text) RETURNS text[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
  SELECT ARRAY(SELECT value FROM bemi.context_triggers t, unnest(bemi.rules(t.arguments, kind)) WITH ORDINALITY AS r (value, place)
    WHERE t.relation = table_rules.relation AND (kind <> 'ignore' OR t.name = 'bemi_context') GROUP BY value ORDER BY min(t.oid), min(place))
$$;

COMMENT ON FUNCTION bemi.table_rules(regclass, text) IS
'the rules of a table of a kind: ignore, mask, numbers, identity or unknown';

-- Gives why a relation cannot be tracked and what to do instead; no row if it can be.
CREATE FUNCTION bemi.obstacle(relation regclass, OUT message text, OUT hint text) RETURNS SETOF record
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT format('bemi cannot track %s%s', relation, reason), remedy
  FROM pg_class c, LATERAL (VALUES
    (c.relnamespace IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace) OR c.oid < 16384 OR c.relkind = 't',
     ', which is a part of the system catalogs', 'Their changes cannot be tracked.'),
    (c.relnamespace = 'bemi'::regnamespace,
     ', which is a part of bemi', NULL),
    (c.relkind = 'v',
     ', which is a view and has no rows of its own', 'Track the tables whose rows it shows.'),
    (c.relkind = 'm',
     ', which is a materialized view: REFRESH makes its rows', 'Track the tables whose rows it shows.'),
    (c.relkind = 'f',
     ', which is a foreign table: its changes are in the log of another server', 'Install bemi there and track the table there.'),
    (c.relkind NOT IN ('r', 'p'),
     ', which is no table', 'Name a table.'),
    (c.relpersistence = 't',
     ', which is a temporary table: its changes are not in the log', 'Only permanent tables can be tracked.'),
    -- The children of an unlogged table may be logged.
    (c.relpersistence = 'u' AND c.relkind = 'r' AND NOT EXISTS (SELECT FROM pg_inherits WHERE inhparent = c.oid),
     ', which is an unlogged table: its changes are not in the log',
     format('ALTER TABLE %s SET LOGGED; brings them there.', relation))
  ) AS obstacles (is_one, reason, remedy)
  WHERE c.oid = relation AND is_one LIMIT 1
$$;

COMMENT ON FUNCTION bemi.obstacle(regclass) IS
'why a relation cannot be tracked, and what to do instead; no row if it can be';

-- The tables that are tracked with a table: itself and its partitions, those above first. Changes of the others, foreign
-- and unlogged tables, are not in the log.
CREATE FUNCTION bemi.tree(relation regclass) RETURNS SETOF regclass
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF (SELECT relkind FROM pg_class WHERE oid = relation) IS DISTINCT FROM 'p' THEN
    RETURN NEXT relation;
  ELSE
    -- Looked up one by one: nobody knows beforehand how few they are.
    RETURN QUERY SELECT relid FROM pg_partition_tree(relation)
      WHERE (SELECT relkind = 'p' OR relkind = 'r' AND relpersistence = 'p' FROM pg_class WHERE oid = relid) ORDER BY level, relid::oid;
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.tree(regclass) IS
'a table and its partitions';

-- The index by which a relation names its rows in the log, if any.
CREATE FUNCTION bemi.identity_index(relation regclass) RETURNS oid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT i.indexrelid FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
  WHERE c.oid = relation AND CASE c.relreplident WHEN 'd' THEN i.indisprimary AND i.indisvalid AND i.indimmediate WHEN 'i' THEN i.indisreplident ELSE false END
  LIMIT 1
$$;

COMMENT ON FUNCTION bemi.identity_index(regclass) IS
'the index whose columns the log has of a row before its change';

-- The columns that name a row in documents and in the log.
CREATE FUNCTION bemi.key_columns(relation regclass) RETURNS SETOF name
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT DISTINCT a.attname FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid
  WHERE i.indrelid = relation AND (i.indisprimary OR i.indisreplident) AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])
$$;

COMMENT ON FUNCTION bemi.key_columns(regclass) IS
'the columns of the primary key and of the index that is the replica identity';

-- The replica identity as a rule writes it.
CREATE FUNCTION bemi.identity(relation regclass) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE c.relreplident WHEN 'd' THEN 'default' WHEN 'n' THEN 'nothing' WHEN 'f' THEN 'full'
    ELSE COALESCE('index:' || (SELECT i.relname FROM pg_class i WHERE i.oid = bemi.identity_index(relation)), 'nothing') END
  FROM pg_class c WHERE c.oid = relation
$$;

COMMENT ON FUNCTION bemi.identity(regclass) IS
'the replica identity of a table: default, nothing, full or index:name';

-- The one that tracking changed, which untrack() puts back.
CREATE FUNCTION bemi.identity_before(relation regclass) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
  SELECT (bemi.rules(t.arguments, 'identity'))[1] FROM bemi.context_triggers t
  WHERE t.relation = identity_before.relation AND t.name = 'bemi_context'
$$;

COMMENT ON FUNCTION bemi.identity_before(regclass) IS
'the replica identity that a tracked table had before, if tracking changed it';

-- As ALTER TABLE does it: for the owner, also one who has no rights to the rows, which LOCK TABLE would ask for.
CREATE FUNCTION bemi.lock(relation regclass, exclusive boolean) RETURNS void
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'bemi_lock';

COMMENT ON FUNCTION bemi.lock(regclass, boolean) IS
'locks a table of the caller: ACCESS EXCLUSIVE, or SHARE ROW EXCLUSIVE';

CREATE FUNCTION bemi.set_identity(relation regclass, identity text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  index name := substring(identity FROM '^index:(.*)$');
BEGIN
  IF identity IS NOT DISTINCT FROM bemi.identity(relation) THEN
    RETURN;
  ELSIF index IS NOT NULL THEN
    EXECUTE format('ALTER TABLE ONLY %s REPLICA IDENTITY USING INDEX %I', relation, index);
  ELSE
    -- The argument of a trigger may be anything that anyone wrote.
    EXECUTE format('ALTER TABLE ONLY %s REPLICA IDENTITY %s', relation,
      CASE identity WHEN 'full' THEN 'FULL' WHEN 'nothing' THEN 'NOTHING' ELSE 'DEFAULT' END);
  END IF;
  -- A name that another table has by now.
  IF identity IN ('full', 'nothing', 'default') AND identity <> bemi.identity(relation) THEN
    RAISE EXCEPTION 'the schema of % was renamed meanwhile', relation;
  END IF;
EXCEPTION WHEN undefined_object OR object_not_in_prerequisite_state OR wrong_object_type THEN
  RAISE WARNING 'the index % can no longer be the replica identity of %, which has the default now: %', quote_ident(index), relation, SQLERRM;
  EXECUTE format('ALTER TABLE ONLY %s REPLICA IDENTITY DEFAULT', relation);
END
$$;

COMMENT ON FUNCTION bemi.set_identity(regclass, text) IS
'sets the replica identity of a table to default, nothing, full or index:name';

-- Whether a table has the trigger, with these arguments, and nobody disabled it.
CREATE FUNCTION bemi.has_trigger(relation regclass, arguments text[]) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
  SELECT EXISTS (
    SELECT FROM bemi.context_triggers t WHERE t.relation = has_trigger.relation AND t.name = 'bemi_context'
    AND t.is_whole AND t.enabled IN ('O', 'A') AND bemi.rules(t.arguments, 'every') = has_trigger.arguments
  ) AND (SELECT count(*) FROM bemi.context_triggers t WHERE t.relation = has_trigger.relation) = 1
$$;

COMMENT ON FUNCTION bemi.has_trigger(regclass, text[]) IS
'whether a table has the trigger, with these arguments';

-- Makes the trigger, or replaces it and others of its kind.
CREATE FUNCTION bemi.put_trigger(relation regclass, arguments text[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET bemi.allow_drop = on AS $$
DECLARE
  there record;
  other name;
BEGIN
  SELECT tgfoid::regprocedure AS function, tgenabled INTO there FROM pg_trigger WHERE tgrelid = relation AND tgname = 'bemi_context';
  IF there.function <> 'bemi.emit_context()'::regprocedure THEN
    RAISE EXCEPTION 'the table % has a trigger bemi_context that calls %', relation, there.function USING
      ERRCODE = 'duplicate_object', HINT = format('DROP TRIGGER bemi_context ON %s;', relation);
  END IF;
  FOR other IN SELECT t.name FROM bemi.context_triggers t WHERE t.relation = put_trigger.relation AND t.name <> 'bemi_context' LOOP
    EXECUTE format('DROP TRIGGER %I ON %s', other, relation);
  END LOOP;
  EXECUTE format(
    'CREATE OR REPLACE TRIGGER bemi_context BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON %s '
    'FOR EACH STATEMENT EXECUTE FUNCTION bemi.emit_context(%s)',
    relation, (SELECT string_agg(quote_literal(argument), ', ' ORDER BY place) FROM unnest(arguments) WITH ORDINALITY AS a (argument, place)));
  -- The statement names the table; its schema may have got another name meanwhile.
  IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = relation AND tgname = 'bemi_context') THEN
    RAISE EXCEPTION 'the schema of % was renamed meanwhile', relation;
  END IF;
  -- That enables it as a new one is.
  IF there.tgenabled = 'A' THEN
    EXECUTE format('ALTER TABLE ONLY %s ENABLE ALWAYS TRIGGER bemi_context', relation);
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.put_trigger(regclass, text[]) IS
'attaches the trigger to one table, with these arguments';

-- The replica identity that a table gets: the one that is asked for, unless UPDATE and DELETE would fail then because of a
-- publication; if they fail now because of tracking, the one from before.
CREATE FUNCTION bemi.fitting_identity(relation regclass, wanted text, present text, former text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF wanted NOT IN ('keep', present) AND bemi.identity_problem(relation, wanted) IS NULL THEN
    RETURN wanted;
  ELSIF former <> present AND bemi.identity_problem(relation, present) IS NOT NULL AND bemi.identity_problem(relation, former) IS NULL THEN
    RETURN former;
  END IF;
  RETURN present;
END
$$;

COMMENT ON FUNCTION bemi.fitting_identity(regclass, text, text, text) IS
'the replica identity that a table gets when it is tracked: the one that is asked for, unless a publication does not go with it';

-- Tracks one table, which can be. What is as it should be already is not locked.
CREATE FUNCTION bemi.track_one(relation regclass, replica_identity text, ignore_columns text[], mask_columns text[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
  masks text[] := mask_columns || bemi.inherited_masks(relation);
  arguments text[];
  identity_now text;
  fitting text;
  was text;
  is_done boolean := false;
BEGIN
  -- The second time under the lock, since others may do the same.
  FOR attempt IN 1..2 LOOP
    arguments := ARRAY(SELECT DISTINCT 'ignore=' || c FROM unnest(ignore_columns) c ORDER BY 1) || ARRAY(SELECT DISTINCT 'mask=' || c FROM unnest(masks) c ORDER BY 1)
      || array_remove(ARRAY[bemi.numbers_rule(relation, masks)], NULL);
    identity_now := bemi.identity(relation);
    was := bemi.identity_before(relation);
    fitting := bemi.fitting_identity(relation, replica_identity, identity_now, was);
    IF fitting <> identity_now THEN
      was := COALESCE(was, identity_now);
    END IF;
    is_done := fitting = identity_now AND bemi.has_trigger(relation, arguments || array_remove(ARRAY['identity=' || was], NULL));
    EXIT WHEN is_done;
    IF attempt = 1 THEN
      -- The stronger lock at once: a session that has read the table and waits to write it would wait for a weaker one,
      -- and this would wait for it.
      PERFORM bemi.lock(relation, replica_identity <> 'keep' OR fitting <> identity_now);
    END IF;
  END LOOP;
  IF replica_identity NOT IN ('keep', fitting) THEN
    RAISE WARNING 'the replica identity of % is %, not %, with which UPDATE and DELETE would fail: %', relation, fitting, replica_identity,
      bemi.identity_problem(relation, replica_identity) USING
      HINT = format('Have the publication go with it, and call SELECT bemi.track_again(%L, %L); or have it so: SELECT bemi.track_again(%L);', relation, replica_identity, relation);
  ELSIF fitting <> identity_now AND replica_identity = 'keep' THEN
    RAISE NOTICE 'the replica identity of % is % again, as it was before it was tracked: with %, UPDATE and DELETE fail (%)', relation, fitting, identity_now,
      bemi.identity_problem(relation, identity_now);
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
  SELECT quote_ident(c) INTO unknown FROM unnest(columns) c
  WHERE NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = relation AND attname = c AND attnum > 0 AND NOT attisdropped) LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'the table % has no column %', relation, unknown USING
      ERRCODE = 'undefined_column',
      HINT = (SELECT 'Its columns are ' || string_agg(quote_ident(attname), ', ' ORDER BY attnum) || '.'
              FROM pg_attribute WHERE attrelid = relation AND attnum > 0 AND NOT attisdropped);
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.require_columns(regclass, name[]) IS
'raises an error if a table lacks one of these columns';

CREATE FUNCTION bemi.track(
  relation regclass, replica_identity text DEFAULT 'full', ignore_columns name[] DEFAULT '{}', mask_columns name[] DEFAULT '{}'
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  members regclass[];
  member regclass;
  problem record;
  unknown text;
  children text;
  inherited text[];
BEGIN
  IF relation IS NULL THEN
    RAISE EXCEPTION 'bemi cannot track NULL' USING
      ERRCODE = 'null_value_not_allowed', HINT = 'Name a table, like SELECT bemi.track(''public.todo'').';
  ELSIF NOT EXISTS (SELECT FROM pg_class WHERE oid = relation) THEN
    RAISE EXCEPTION 'there is no table with the OID %', relation::oid USING ERRCODE = 'undefined_table';
  ELSIF replica_identity IS NULL OR replica_identity NOT IN ('full', 'default', 'keep') THEN
    RAISE EXCEPTION 'replica_identity cannot be %', COALESCE(quote_literal(replica_identity), 'NULL') USING
      ERRCODE = 'invalid_parameter_value', HINT = 'It is one of ''full'' (the log has the whole row before each change), ''default'' (the key alone) and ''keep'' (what the table has).';
  ELSIF ignore_columns IS NULL OR mask_columns IS NULL OR array_position(ignore_columns || mask_columns, NULL) > 0 THEN
    RAISE EXCEPTION 'ignore_columns or mask_columns, or one of them, is NULL' USING
      ERRCODE = 'null_value_not_allowed', HINT = 'No columns are ''{}''.';
  END IF;
  SELECT * INTO problem FROM bemi.obstacle(relation);
  IF FOUND THEN
    RAISE EXCEPTION '%', problem.message USING ERRCODE = 'wrong_object_type', HINT = COALESCE(problem.hint, '');
  END IF;
  members := ARRAY(SELECT * FROM bemi.tree(relation));
  FOREACH member IN ARRAY members LOOP
    IF NOT (SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = member) THEN
      RAISE EXCEPTION 'must be owner of table %', member USING
        ERRCODE = 'insufficient_privilege', HINT = 'A table is tracked by its owner or a superuser.';
    END IF;
    PERFORM bemi.require_columns(member, ignore_columns || mask_columns);
    SELECT quote_ident(c) INTO unknown FROM unnest(ignore_columns || mask_columns) c WHERE c IN (SELECT bemi.key_columns(member)) LIMIT 1;
    IF FOUND THEN
      RAISE EXCEPTION 'the column % of % can be neither ignored nor masked, since it belongs to the key', unknown, member USING
        ERRCODE = 'feature_not_supported', HINT = 'Rows could not be told apart any more. Choose other columns, or give the table another key.';
    END IF;
  END LOOP;
  FOREACH member IN ARRAY members LOOP
    PERFORM bemi.track_one(member, replica_identity, ignore_columns::text[], mask_columns::text[]);
    -- Renamed before the lock was there, it would be shown.
    PERFORM bemi.require_columns(member, ignore_columns || mask_columns);
  END LOOP;
  PERFORM bemi.mask_heirs(relation);
  inherited := ARRAY(SELECT quote_ident(mask) FROM unnest(bemi.inherited_masks(relation)) mask WHERE mask <> ALL (mask_columns::text[]));
  IF inherited <> '{}' THEN
    RAISE NOTICE 'columns of % are masked as in the tables that it inherits from: %', relation, array_to_string(inherited, ', ');
  END IF;
  IF EXISTS (SELECT FROM pg_class WHERE oid = relation AND relreplident <> 'f') AND bemi.identity_index(relation) IS NULL THEN
    RAISE NOTICE 'the log will not say which rows of % are updated or deleted: it has neither a key nor REPLICA IDENTITY FULL', relation USING
      HINT = format('SELECT bemi.track(%L);', relation);
  END IF;
  SELECT string_agg(inhrelid::regclass::text, ', ' ORDER BY inhrelid) INTO children FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid
  WHERE inhparent = relation AND NOT c.relispartition AND NOT EXISTS (SELECT FROM bemi.context_triggers t WHERE t.relation = inhrelid);
  IF children IS NOT NULL THEN
    RAISE NOTICE 'tables that inherit from % are tracked by themselves: %', relation, children;
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.track(regclass, text, name[], name[]) IS
'has the changes of a table, and of its partitions, carry the context; called again, it replaces the rules';

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
    FROM bemi.context_triggers t WHERE t.relation = untrack_one.relation
  LOOP
    EXECUTE format('DROP TRIGGER %I ON %s', trigger.name, relation);
    IF trigger.identity IS NOT NULL AND bemi.identity_problem(relation, trigger.identity) IS NOT NULL
      AND bemi.identity_problem(relation, bemi.identity(relation)) IS NULL
    THEN
      RAISE WARNING 'the replica identity of % stays %: with that from before (%), UPDATE and DELETE would fail: %', relation, bemi.identity(relation),
        trigger.identity, bemi.identity_problem(relation, trigger.identity) USING
        HINT = format('SELECT * FROM bemi.identity_conflict(%L, %L);', relation, trigger.identity);
    ELSIF trigger.identity IS NOT NULL THEN
      PERFORM bemi.set_identity(relation, trigger.identity);
    END IF;
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.untrack_one(regclass) IS
'ends the tracking of one table, without its partitions';

CREATE FUNCTION bemi.untrack(relation regclass) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM bemi.untrack_one(member) FROM bemi.tree(relation) member;
END
$$;

COMMENT ON FUNCTION bemi.untrack(regclass) IS
'has the changes of a table, and of its partitions, no longer carry the context, and puts back the replica identity that was there before';
