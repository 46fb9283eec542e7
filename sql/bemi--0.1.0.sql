-- Stage 1: the context. It is the setting bemi.context; these functions set it in the way of set_config().
-- Each comes twice: for jsonb, and for text, so that a plain string parameter of any driver does.

GRANT USAGE ON SCHEMA @extschema@ TO PUBLIC;

CREATE FUNCTION @extschema@.set_context(context jsonb, is_local boolean DEFAULT false) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'bemi_set_context_jsonb';

CREATE FUNCTION @extschema@.set_context(context text, is_local boolean DEFAULT false) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'bemi_set_context_text';

COMMENT ON FUNCTION @extschema@.set_context(jsonb, boolean) IS
'sets the context of the changes that follow, in this session or with is_local in this transaction; NULL clears it';
COMMENT ON FUNCTION @extschema@.set_context(text, boolean) IS
'sets the context of the changes that follow, in this session or with is_local in this transaction; NULL clears it';

CREATE FUNCTION @extschema@.merge_context(context jsonb, is_local boolean DEFAULT false) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'bemi_merge_context_jsonb';

CREATE FUNCTION @extschema@.merge_context(context text, is_local boolean DEFAULT false) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'bemi_merge_context_text';

COMMENT ON FUNCTION @extschema@.merge_context(jsonb, boolean) IS
'adds keys to the context of the changes that follow';
COMMENT ON FUNCTION @extschema@.merge_context(text, boolean) IS
'adds keys to the context of the changes that follow';

CREATE FUNCTION @extschema@.clear_context() RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'bemi_clear_context';

COMMENT ON FUNCTION @extschema@.clear_context() IS
'the changes that follow have no context';

CREATE FUNCTION @extschema@.context() RETURNS jsonb
LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'bemi_context';

COMMENT ON FUNCTION @extschema@.context() IS
'the context that the changes of the next statement will carry, if it brings none of its own in a comment';
-- Stage 2: the context goes into the write-ahead log.

CREATE FUNCTION @extschema@.emit_context() RETURNS trigger
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'bemi_emit_context';

COMMENT ON FUNCTION @extschema@.emit_context() IS
'for triggers BEFORE each STATEMENT: writes the context of the statement into the write-ahead log';
-- Which tables carry the trigger, and by which rules. On a partitioned table it is attached to every table of the tree,
-- since a statement may name any of them; foreign tables aside, whose changes are not in the log.
--
-- The functions look at nothing but pg_catalog and this schema, whatever the caller's search_path is. They run with the
-- rights of the caller, who has to own the tables.

CREATE FUNCTION @extschema@.rules(arguments bytea, kind text) RETURNS text[]
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'bemi_rules';

COMMENT ON FUNCTION @extschema@.rules(bytea, text) IS
'the arguments of a trigger (pg_trigger.tgargs) of a kind: ignore, mask, identity, unknown, or every with their kind';

-- Every table that carries the trigger. One that is whole fires before every statement (pg_trigger.h: 2 BEFORE, 4 INSERT,
-- 8 DELETE, 16 UPDATE, 32 TRUNCATE).
CREATE VIEW @extschema@.context_triggers AS
SELECT t.oid, t.tgrelid AS relation, t.tgname AS name, t.tgenabled AS enabled, t.tgargs AS arguments,
  t.tgtype = 62 AND t.tgqual IS NULL AND t.tgattr = '' AS is_whole
FROM pg_catalog.pg_trigger t
WHERE t.tgfoid = '@extschema@.emit_context()'::regprocedure AND NOT t.tgisinternal AND t.tgparentid = 0;

GRANT SELECT ON @extschema@.context_triggers TO PUBLIC;

COMMENT ON VIEW @extschema@.context_triggers IS
'the triggers that write the context into the log';

-- What a table's triggers say of a kind: of columns to ignore, only the one that tracking makes.
CREATE FUNCTION @extschema@.table_rules(relation regclass, kind text) RETURNS text[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT ARRAY(SELECT value FROM @extschema@.context_triggers t, unnest(@extschema@.rules(t.arguments, kind)) WITH ORDINALITY AS r (value, place)
    WHERE t.relation = table_rules.relation AND (kind <> 'ignore' OR t.name = 'bemi_context') GROUP BY value ORDER BY min(t.oid), min(place))
$$;

COMMENT ON FUNCTION @extschema@.table_rules(regclass, text) IS
'the rules of a table of a kind: ignore, mask, identity or unknown';

-- Gives why a relation cannot be tracked and what to do instead; no row if it can be.
CREATE FUNCTION @extschema@.obstacle(relation regclass, OUT message text, OUT hint text) RETURNS SETOF record
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT format('bemi cannot track %s%s', relation, reason), remedy
  FROM pg_class c, LATERAL (VALUES
    (c.relnamespace IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace) OR c.oid < 16384 OR c.relkind = 't',
     ', which is a part of the system catalogs', 'Their changes cannot be tracked.'),
    (c.relnamespace = '@extschema@'::regnamespace,
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

COMMENT ON FUNCTION @extschema@.obstacle(regclass) IS
'why a relation cannot be tracked, and what to do instead; no row if it can be';

-- The tables that are tracked with a table: itself and its partitions, those above first. Changes of the others, foreign
-- and unlogged tables, are not in the log.
CREATE FUNCTION @extschema@.tree(relation regclass) RETURNS SETOF regclass
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

COMMENT ON FUNCTION @extschema@.tree(regclass) IS
'a table and its partitions';

-- The index by which a relation names its rows in the log, if any.
CREATE FUNCTION @extschema@.identity_index(relation regclass) RETURNS oid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT i.indexrelid FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
  WHERE c.oid = relation AND CASE c.relreplident WHEN 'd' THEN i.indisprimary AND i.indisvalid WHEN 'i' THEN i.indisreplident ELSE false END
  LIMIT 1
$$;

COMMENT ON FUNCTION @extschema@.identity_index(regclass) IS
'the index whose columns the log has of a row before its change';

-- The columns that name a row in documents and in the log.
CREATE FUNCTION @extschema@.key_columns(relation regclass) RETURNS SETOF name
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT DISTINCT a.attname FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid
  WHERE i.indrelid = relation AND (i.indisprimary OR i.indisreplident) AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])
$$;

COMMENT ON FUNCTION @extschema@.key_columns(regclass) IS
'the columns of the primary key and of the index that is the replica identity';

-- The replica identity as a rule writes it.
CREATE FUNCTION @extschema@.identity(relation regclass) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE c.relreplident WHEN 'd' THEN 'default' WHEN 'n' THEN 'nothing' WHEN 'f' THEN 'full'
    ELSE COALESCE('index:' || (SELECT i.relname FROM pg_class i WHERE i.oid = @extschema@.identity_index(relation)), 'nothing') END
  FROM pg_class c WHERE c.oid = relation
$$;

COMMENT ON FUNCTION @extschema@.identity(regclass) IS
'the replica identity of a table: default, nothing, full or index:name';

-- The one that tracking changed, which untrack() puts back.
CREATE FUNCTION @extschema@.identity_before(relation regclass) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT (@extschema@.rules(t.arguments, 'identity'))[1] FROM @extschema@.context_triggers t
  WHERE t.relation = identity_before.relation AND t.name = 'bemi_context'
$$;

COMMENT ON FUNCTION @extschema@.identity_before(regclass) IS
'the replica identity that a tracked table had before, if tracking changed it';

-- As ALTER TABLE does it: for the owner, also one who has no rights to the rows, which LOCK TABLE would ask for.
CREATE FUNCTION @extschema@.lock(relation regclass, exclusive boolean) RETURNS void
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'bemi_lock';

COMMENT ON FUNCTION @extschema@.lock(regclass, boolean) IS
'locks a table of the caller: ACCESS EXCLUSIVE, or SHARE ROW EXCLUSIVE';

CREATE FUNCTION @extschema@.set_identity(relation regclass, identity text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  index name := substring(identity FROM '^index:(.*)$');
BEGIN
  IF identity IS NOT DISTINCT FROM @extschema@.identity(relation) THEN
    RETURN;
  ELSIF index IS NOT NULL THEN
    EXECUTE format('ALTER TABLE ONLY %s REPLICA IDENTITY USING INDEX %I', relation, index);
  ELSE
    -- The argument of a trigger may be anything that anyone wrote.
    EXECUTE format('ALTER TABLE ONLY %s REPLICA IDENTITY %s', relation,
      CASE identity WHEN 'full' THEN 'FULL' WHEN 'nothing' THEN 'NOTHING' ELSE 'DEFAULT' END);
  END IF;
EXCEPTION WHEN undefined_object OR object_not_in_prerequisite_state OR wrong_object_type THEN
  RAISE WARNING 'the index % can no longer be the replica identity of %, which has the default now: %', quote_ident(index), relation, SQLERRM;
  EXECUTE format('ALTER TABLE ONLY %s REPLICA IDENTITY DEFAULT', relation);
END
$$;

COMMENT ON FUNCTION @extschema@.set_identity(regclass, text) IS
'sets the replica identity of a table to default, nothing, full or index:name';

-- Whether a table has the trigger, with these arguments, and nobody disabled it.
CREATE FUNCTION @extschema@.has_trigger(relation regclass, arguments text[]) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT EXISTS (
    SELECT FROM @extschema@.context_triggers t WHERE t.relation = has_trigger.relation AND t.name = 'bemi_context'
    AND t.is_whole AND t.enabled IN ('O', 'A') AND @extschema@.rules(t.arguments, 'every') = has_trigger.arguments
  ) AND (SELECT count(*) FROM @extschema@.context_triggers t WHERE t.relation = has_trigger.relation) = 1
$$;

COMMENT ON FUNCTION @extschema@.has_trigger(regclass, text[]) IS
'whether a table has the trigger, with these arguments';

-- Makes the trigger, or replaces it and others of its kind.
CREATE FUNCTION @extschema@.put_trigger(relation regclass, arguments text[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  there record;
  other name;
BEGIN
  SELECT tgfoid::regprocedure AS function, tgenabled INTO there FROM pg_trigger WHERE tgrelid = relation AND tgname = 'bemi_context';
  IF there.function <> '@extschema@.emit_context()'::regprocedure THEN
    RAISE EXCEPTION 'the table % has a trigger bemi_context that calls %', relation, there.function USING
      ERRCODE = 'duplicate_object', HINT = format('DROP TRIGGER bemi_context ON %s;', relation);
  END IF;
  FOR other IN SELECT t.name FROM @extschema@.context_triggers t WHERE t.relation = put_trigger.relation AND t.name <> 'bemi_context' LOOP
    EXECUTE format('DROP TRIGGER %I ON %s', other, relation);
  END LOOP;
  EXECUTE format(
    'CREATE OR REPLACE TRIGGER bemi_context BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON %s '
    'FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.emit_context(%s)',
    relation, (SELECT string_agg(quote_literal(argument), ', ' ORDER BY place) FROM unnest(arguments) WITH ORDINALITY AS a (argument, place)));
  -- That enables it as a new one is.
  IF there.tgenabled = 'A' THEN
    EXECUTE format('ALTER TABLE ONLY %s ENABLE ALWAYS TRIGGER bemi_context', relation);
  END IF;
END
$$;

COMMENT ON FUNCTION @extschema@.put_trigger(regclass, text[]) IS
'attaches the trigger to one table, with these arguments';

-- Tracks one table, which can be. What is as it should be already is not locked.
CREATE FUNCTION @extschema@.track_one(relation regclass, replica_identity text, ignore_columns text[], mask_columns text[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  arguments text[] := ARRAY(SELECT DISTINCT 'ignore=' || c FROM unnest(ignore_columns) c ORDER BY 1)
    || ARRAY(SELECT DISTINCT 'mask=' || c FROM unnest(mask_columns) c ORDER BY 1);
  identity_now text;
  was text;
BEGIN
  -- The second time under the lock, since others may do the same.
  FOR attempt IN 1..2 LOOP
    identity_now := @extschema@.identity(relation);
    was := @extschema@.identity_before(relation);
    IF replica_identity NOT IN ('keep', identity_now) THEN
      was := COALESCE(was, identity_now);
    ELSIF @extschema@.has_trigger(relation, arguments || array_remove(ARRAY['identity=' || was], NULL)) THEN
      RETURN;
    END IF;
    IF attempt = 1 THEN
      -- The stronger lock at once: a session that has read the table and waits to write it would wait for a weaker one,
      -- and this would wait for it.
      PERFORM @extschema@.lock(relation, replica_identity <> 'keep');
    END IF;
  END LOOP;
  IF replica_identity <> 'keep' THEN
    PERFORM @extschema@.set_identity(relation, replica_identity);
  END IF;
  PERFORM @extschema@.put_trigger(relation, arguments || array_remove(ARRAY['identity=' || was], NULL));
END
$$;

COMMENT ON FUNCTION @extschema@.track_one(regclass, text, text[], text[]) IS
'tracks one table, without its partitions';

CREATE FUNCTION @extschema@.track(
  relation regclass, replica_identity text DEFAULT 'full', ignore_columns name[] DEFAULT '{}', mask_columns name[] DEFAULT '{}'
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  members regclass[];
  member regclass;
  problem record;
  unknown text;
  children text;
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
  SELECT * INTO problem FROM @extschema@.obstacle(relation);
  IF FOUND THEN
    RAISE EXCEPTION '%', problem.message USING ERRCODE = 'wrong_object_type', HINT = COALESCE(problem.hint, '');
  END IF;
  members := ARRAY(SELECT * FROM @extschema@.tree(relation));
  FOREACH member IN ARRAY members LOOP
    IF NOT (SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = member) THEN
      RAISE EXCEPTION 'must be owner of table %', member USING
        ERRCODE = 'insufficient_privilege', HINT = 'A table is tracked by its owner or a superuser.';
    END IF;
    SELECT quote_ident(c) INTO unknown FROM unnest(ignore_columns || mask_columns) c
    WHERE NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = member AND attname = c AND attnum > 0 AND NOT attisdropped) LIMIT 1;
    IF FOUND THEN
      RAISE EXCEPTION 'the table % has no column %', member, unknown USING
        ERRCODE = 'undefined_column',
        HINT = (SELECT 'Its columns are ' || string_agg(quote_ident(attname), ', ' ORDER BY attnum) || '.'
                FROM pg_attribute WHERE attrelid = member AND attnum > 0 AND NOT attisdropped);
    END IF;
    SELECT quote_ident(c) INTO unknown FROM unnest(ignore_columns || mask_columns) c WHERE c IN (SELECT @extschema@.key_columns(member)) LIMIT 1;
    IF FOUND THEN
      RAISE EXCEPTION 'the column % of % can be neither ignored nor masked, since it belongs to the key', unknown, member USING
        ERRCODE = 'feature_not_supported', HINT = 'Rows could not be told apart any more. Choose other columns, or give the table another key.';
    END IF;
  END LOOP;
  FOREACH member IN ARRAY members LOOP
    PERFORM @extschema@.track_one(member, replica_identity, ignore_columns::text[], mask_columns::text[]);
  END LOOP;
  IF EXISTS (SELECT FROM pg_class WHERE oid = relation AND relreplident <> 'f') AND @extschema@.identity_index(relation) IS NULL THEN
    RAISE NOTICE 'the log will not say which rows of % are updated or deleted: it has neither a key nor REPLICA IDENTITY FULL', relation USING
      HINT = format('SELECT bemi.track(%L);', relation);
  END IF;
  SELECT string_agg(inhrelid::regclass::text, ', ' ORDER BY inhrelid) INTO children FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid
  WHERE inhparent = relation AND NOT c.relispartition AND NOT EXISTS (SELECT FROM @extschema@.context_triggers t WHERE t.relation = inhrelid);
  IF children IS NOT NULL THEN
    RAISE NOTICE 'tables that inherit from % are tracked, and have their columns masked, by themselves: %', relation, children;
  END IF;
END
$$;

COMMENT ON FUNCTION @extschema@.track(regclass, text, name[], name[]) IS
'has the changes of a table, and of its partitions, carry the context; called again, it replaces the rules';

CREATE FUNCTION @extschema@.untrack_one(relation regclass) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  trigger record;
BEGIN
  IF NOT EXISTS (SELECT FROM @extschema@.context_triggers t WHERE t.relation = untrack_one.relation) THEN
    RETURN;
  END IF;
  PERFORM @extschema@.lock(relation, true);
  FOR trigger IN
    SELECT t.name, (@extschema@.rules(t.arguments, 'identity'))[1] AS identity
    FROM @extschema@.context_triggers t WHERE t.relation = untrack_one.relation
  LOOP
    EXECUTE format('DROP TRIGGER %I ON %s', trigger.name, relation);
    IF trigger.identity IS NOT NULL THEN
      PERFORM @extschema@.set_identity(relation, trigger.identity);
    END IF;
  END LOOP;
END
$$;

COMMENT ON FUNCTION @extschema@.untrack_one(regclass) IS
'ends the tracking of one table, without its partitions';

CREATE FUNCTION @extschema@.untrack(relation regclass) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM @extschema@.untrack_one(member) FROM @extschema@.tree(relation) member;
END
$$;

COMMENT ON FUNCTION @extschema@.untrack(regclass) IS
'has the changes of a table, and of its partitions, no longer carry the context, and puts back the replica identity that was there before';

-- Tracks a table again by the rules that it has, but for those that ignore columns that are not there.
CREATE FUNCTION @extschema@.track_again(relation regclass, replica_identity text DEFAULT 'keep') RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  SELECT @extschema@.track_one(relation, replica_identity,
    ARRAY(SELECT attname::text FROM pg_attribute WHERE attrelid = relation AND attnum > 0 AND NOT attisdropped
      AND attname::text = ANY (@extschema@.table_rules(relation, 'ignore')) AND attname NOT IN (SELECT @extschema@.key_columns(relation))),
    @extschema@.table_rules(relation, 'mask'))
  WHERE EXISTS (SELECT FROM @extschema@.context_triggers t WHERE t.relation = track_again.relation)
$$;

COMMENT ON FUNCTION @extschema@.track_again(regclass, text) IS
'tracks a table by the rules that it has, with another replica identity or without rules that ignore nothing';

CREATE VIEW @extschema@.tracked AS
SELECT
  c.oid::regclass AS relation,
  CASE c.relreplident WHEN 'f' THEN 'full' WHEN 'n' THEN 'nothing' WHEN 'i' THEN 'index' ELSE 'default' END AS replica_identity,
  @extschema@.table_rules(c.oid, 'ignore')::name[] AS ignore_columns,
  @extschema@.table_rules(c.oid, 'mask')::name[] AS mask_columns,
  ARRAY(
    SELECT CASE WHEN t.enabled = 'D' THEN 'the trigger is disabled'
        WHEN t.enabled = 'R' THEN 'the trigger fires only for replicated changes'
        WHEN t.name <> 'bemi_context' THEN pg_catalog.format('another trigger, %I, writes the context', t.name)
        WHEN NOT t.is_whole THEN 'a trigger that does not fire before every statement writes the context' END AS problem
      FROM @extschema@.context_triggers t WHERE t.relation = c.oid AND NOT (t.is_whole AND t.name = 'bemi_context' AND t.enabled IN ('O', 'A'))
    UNION ALL SELECT pg_catalog.format('there is no column %I to %s', value, kind)
      FROM pg_catalog.unnest('{ignore,mask}'::text[]) kind, pg_catalog.unnest(@extschema@.table_rules(c.oid, kind)) value
      WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attname = value AND a.attnum > 0 AND NOT a.attisdropped)
    UNION ALL SELECT pg_catalog.format('the rule %L has no meaning', value)
      FROM pg_catalog.unnest(@extschema@.table_rules(c.oid, 'unknown')) value
    UNION ALL SELECT pg_catalog.format('the column %I to %s belongs to the key', value, kind)
      FROM pg_catalog.unnest('{ignore,mask}'::text[]) kind, pg_catalog.unnest(@extschema@.table_rules(c.oid, kind)) value
      WHERE value IN (SELECT @extschema@.key_columns(c.oid))
    UNION ALL SELECT CASE WHEN @extschema@.identity_index(c.oid) IS NULL THEN 'the log does not say which rows are updated or deleted'
        ELSE 'the log has only the key of a row before its change' END
      WHERE c.relreplident <> 'f' AND c.relkind = 'r'
    UNION ALL SELECT 'ignored columns are not ignored, since the log has not the whole row before a change'
      WHERE c.relreplident <> 'f' AND c.relkind = 'r' AND pg_catalog.cardinality(@extschema@.table_rules(c.oid, 'ignore')) > 0
    UNION ALL SELECT pg_catalog.format('the partition %s is not tracked', p)
      FROM @extschema@.tree(c.oid) p
      WHERE c.relkind = 'p' AND NOT EXISTS (SELECT FROM @extschema@.context_triggers o WHERE o.relation = p)
    ORDER BY problem
  ) AS missing
FROM pg_catalog.pg_class c WHERE c.oid IN (SELECT t.relation FROM @extschema@.context_triggers t);

GRANT SELECT ON @extschema@.tracked TO PUBLIC;

COMMENT ON VIEW @extschema@.tracked IS
'the tables whose changes carry the context, their rules, and what is missing';
-- Whole schemas, and the tables that are made, attached or moved there later: event triggers see to these.

CREATE TABLE @extschema@.tracked_schemas (schema name PRIMARY KEY);

-- A dump may bring what is there already.
CREATE FUNCTION @extschema@.pass_over_known_schema() RETURNS trigger
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN CASE WHEN NOT EXISTS (SELECT FROM @extschema@.tracked_schemas s WHERE s.schema = NEW.schema) THEN NEW END;
END
$$;

COMMENT ON FUNCTION @extschema@.pass_over_known_schema() IS
'for the table tracked_schemas: leaves out what is there already';

CREATE TRIGGER pass_over_known_schema BEFORE INSERT ON @extschema@.tracked_schemas
FOR EACH ROW EXECUTE FUNCTION @extschema@.pass_over_known_schema();

-- pg_dump saves what is in it.
SELECT pg_catalog.pg_extension_config_dump('@extschema@.tracked_schemas', '');
GRANT SELECT ON @extschema@.tracked_schemas TO PUBLIC;

COMMENT ON TABLE @extschema@.tracked_schemas IS
'the schemas whose future tables are tracked, by bemi.track_all()';

-- The tables that track_all() means.
CREATE FUNCTION @extschema@.trackable(schemas name[]) RETURNS SETOF regclass
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT c.oid::regclass FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname = ANY (schemas) AND c.relkind IN ('r', 'p') AND c.relpersistence = 'p'
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
  -- Partitions after what is above them; else what refers to others before these, as those who write lock them: it is
  -- younger mostly.
  ORDER BY c.relispartition, c.oid DESC
$$;

COMMENT ON FUNCTION @extschema@.trackable(name[]) IS
'the permanent tables of schemas that are no part of an extension';

CREATE FUNCTION @extschema@.track_all(schemas name[] DEFAULT '{public}') RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  unknown text;
  relations regclass[];
  relation regclass;
  done int := 0;
  others text;
BEGIN
  IF schemas IS NULL THEN
    RAISE EXCEPTION 'bemi cannot track the tables of NULL' USING
      ERRCODE = 'null_value_not_allowed', HINT = 'Name schemas, like SELECT bemi.track_all(''{public}'').';
  END IF;
  SELECT COALESCE(quote_ident(s), 'NULL') INTO unknown FROM unnest(schemas) s
  WHERE NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = s) LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'there is no schema %', unknown USING ERRCODE = 'invalid_schema_name';
  END IF;
  SELECT quote_ident(s) INTO unknown FROM unnest(schemas) s
  WHERE s IN ('@extschema@', 'information_schema') OR starts_with(s::text, 'pg_') LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'the tables of the schema % cannot be tracked', unknown USING
      ERRCODE = 'invalid_parameter_value', HINT = 'Name schemas of your own.';
  END IF;
  IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
    -- Whoever makes a table now waits for this to end, or has made it before we look.
    LOCK TABLE @extschema@.tracked_schemas IN ACCESS EXCLUSIVE MODE;
    INSERT INTO @extschema@.tracked_schemas SELECT DISTINCT s FROM unnest(schemas) s;
  ELSIF EXISTS (SELECT unnest(schemas) EXCEPT SELECT schema FROM @extschema@.tracked_schemas) THEN
    RAISE WARNING 'tables that are made later will not be tracked: only a superuser can have that' USING
      HINT = format('As a superuser: SELECT bemi.track_all(%L);', schemas);
  END IF;
  relations := ARRAY(SELECT t FROM @extschema@.trackable(schemas) t JOIN pg_class c ON c.oid = t
    WHERE pg_has_role(c.relowner, 'USAGE') AND NOT EXISTS (SELECT FROM @extschema@.context_triggers o WHERE o.relation = t));
  FOREACH relation IN ARRAY relations LOOP
    BEGIN
      PERFORM @extschema@.follow_table(relation, true);
    EXCEPTION WHEN insufficient_resources THEN
      RAISE;
    WHEN OTHERS THEN
      RAISE WARNING 'bemi could not track %: %', relation, SQLERRM USING HINT = format('SELECT bemi.track(%L);', relation);
    END;
    done := done + 1;
    IF done % 500 = 0 THEN
      RAISE NOTICE 'tracked % of % tables', done, cardinality(relations);
    END IF;
  END LOOP;
  RAISE NOTICE 'tracked % tables that were not tracked before',
    (SELECT count(*) FROM unnest(relations) r WHERE EXISTS (SELECT FROM @extschema@.context_triggers t WHERE t.relation = r));
  SELECT string_agg(t::text, ', ') INTO others FROM (
    SELECT t FROM @extschema@.trackable(schemas) t JOIN pg_class c ON c.oid = t
    WHERE NOT pg_has_role(c.relowner, 'USAGE') AND NOT EXISTS (SELECT FROM @extschema@.context_triggers o WHERE o.relation = t) LIMIT 10
  ) AS some_others (t);
  IF others IS NOT NULL THEN
    RAISE WARNING 'you do not own these tables, which are not tracked (the first ten of them): %', others USING
      HINT = 'Have their owners or a superuser call bemi.track_all().';
  END IF;
END
$$;

COMMENT ON FUNCTION @extschema@.track_all(name[]) IS
'tracks all tables of schemas, those that will be made later too';

CREATE FUNCTION @extschema@.untrack_all() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  relations regclass[];
  relation regclass;
  done int := 0;
  others text;
BEGIN
  IF EXISTS (SELECT FROM @extschema@.tracked_schemas) THEN
    IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
      DELETE FROM @extschema@.tracked_schemas;
    ELSE
      RAISE WARNING 'tables that are made later in the tracked schemas will still be tracked: only a superuser can end that' USING
        HINT = 'As a superuser: SELECT bemi.untrack_all();';
    END IF;
  END IF;
  relations := ARRAY(SELECT oid FROM pg_class c WHERE pg_has_role(c.relowner, 'USAGE')
    AND EXISTS (SELECT FROM @extschema@.context_triggers t WHERE t.relation = c.oid) ORDER BY c.relispartition, c.relkind = 'p' DESC, c.oid DESC);
  FOREACH relation IN ARRAY relations LOOP
    BEGIN
      PERFORM @extschema@.untrack_one(relation);
    EXCEPTION WHEN insufficient_resources THEN
      RAISE;
    WHEN OTHERS THEN
      RAISE WARNING 'bemi could not end the tracking of %: %', relation, SQLERRM USING HINT = format('SELECT bemi.untrack(%L);', relation);
    END;
    done := done + 1;
    IF done % 500 = 0 THEN
      RAISE NOTICE 'ended tracking of % of % tables', done, cardinality(relations);
    END IF;
  END LOOP;
  SELECT string_agg(t::regclass::text, ', ') INTO others FROM (SELECT DISTINCT t.relation FROM @extschema@.context_triggers t LIMIT 10) AS some_others (t);
  IF others IS NOT NULL THEN
    RAISE WARNING 'these tables are still tracked (the first ten of them): %', others USING
      HINT = 'Those that you do not own need their owners or a superuser to call bemi.untrack_all().';
  END IF;
END
$$;

COMMENT ON FUNCTION @extschema@.untrack_all() IS
'ends all tracking, and puts back the replica identities that were there before';

-- Tracks a table and its partitions where they should be and are not: by the rules of the tracked table above that is
-- nearest, or without rules if its schema is tracked. A table that has been attached gets the masks of what is above, and
-- all its rules if it has none of its own.
CREATE FUNCTION @extschema@.follow_table(relation regclass, in_tracked_schema boolean DEFAULT false, is_attached boolean DEFAULT false) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  member regclass;
  form record;
  own record;
  above record;
BEGIN
  FOREACH member IN ARRAY ARRAY(SELECT @extschema@.tree(relation)) LOOP
    SELECT c.*, pg_has_role(c.relowner, 'USAGE') AS is_owned INTO form FROM pg_class c WHERE c.oid = member AND c.relpersistence = 'p'
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e');
    CONTINUE WHEN NOT FOUND;
    SELECT t.oid, @extschema@.rules(t.arguments, 'ignore') AS ignored, @extschema@.rules(t.arguments, 'mask') AS masked
    INTO own FROM @extschema@.context_triggers t WHERE t.relation = member AND t.name = 'bemi_context';
    CONTINUE WHEN own.oid IS NOT NULL AND NOT is_attached;
    SELECT t.oid, @extschema@.rules(t.arguments, 'ignore') AS ignored, @extschema@.rules(t.arguments, 'mask') AS masked, c.relreplident
    INTO above FROM pg_partition_ancestors(CASE WHEN form.relispartition THEN member END) WITH ORDINALITY AS a (relid, distance)
    JOIN @extschema@.context_triggers t ON t.relation = a.relid AND t.relation <> member AND t.name = 'bemi_context' JOIN pg_class c ON c.oid = a.relid
    ORDER BY a.distance LIMIT 1;
    CONTINUE WHEN above.oid IS NULL AND (own.oid IS NOT NULL OR NOT (in_tracked_schema OR EXISTS (
      SELECT FROM @extschema@.tracked_schemas WHERE schema = (SELECT nspname FROM pg_namespace WHERE oid = form.relnamespace))));
    IF NOT form.is_owned THEN
      RAISE WARNING 'bemi does not track %, which you do not own', member USING
        HINT = format('As its owner or a superuser: SELECT bemi.follow_table(%L, true);', member);
    ELSIF above.oid IS NULL THEN
      PERFORM @extschema@.track_one(member, 'full', '{}', '{}');
    ELSIF own.oid IS NULL OR own.ignored = '{}' AND own.masked = '{}' THEN
      PERFORM @extschema@.track_one(member, CASE above.relreplident WHEN 'f' THEN 'full' ELSE 'keep' END, above.ignored, above.masked);
    ELSE
      PERFORM @extschema@.track_one(member, 'keep', own.ignored, own.masked || above.masked);
    END IF;
  END LOOP;
END
$$;

COMMENT ON FUNCTION @extschema@.follow_table(regclass, boolean, boolean) IS
'tracks a table where it should be and is not';

-- Writes the new name of a column or of an index into the rules of a table.
CREATE FUNCTION @extschema@.follow_rename(relation regclass, kinds text[], old_value text, new_value text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  trigger record;
BEGIN
  IF NOT EXISTS (SELECT FROM unnest(kinds) kind WHERE old_value = ANY (@extschema@.table_rules(relation, kind))) THEN
    RETURN;
  END IF;
  FOR trigger IN
    SELECT t.*, ARRAY(
      SELECT COALESCE((SELECT kind || '=' || new_value FROM unnest(kinds) kind WHERE argument = kind || '=' || old_value), argument)
      FROM unnest(@extschema@.rules(t.arguments, 'every')) WITH ORDINALITY AS a (argument, place) ORDER BY place
    ) AS renamed
    FROM @extschema@.context_triggers t WHERE t.relation = follow_rename.relation
  LOOP
    IF trigger.name <> 'bemi_context' OR NOT trigger.is_whole THEN
      RAISE EXCEPTION 'the trigger % was not made by bemi.track()', quote_ident(trigger.name);
    END IF;
    PERFORM @extschema@.put_trigger(relation, trigger.renamed);
    -- The new trigger is enabled as any new one is.
    IF trigger.enabled <> 'O' THEN
      EXECUTE format('ALTER TABLE ONLY %s %s TRIGGER bemi_context', relation,
        CASE trigger.enabled WHEN 'D' THEN 'DISABLE' WHEN 'A' THEN 'ENABLE ALWAYS' ELSE 'ENABLE REPLICA' END);
    END IF;
  END LOOP;
END
$$;

COMMENT ON FUNCTION @extschema@.follow_rename(regclass, text[], text, text) IS
'writes the new name of a column or an index into the rules of a table';

-- Called by bemi.on_ddl() when something was done that matters; `done` is table, partition (with its
-- OID), or column, relation, index,
-- constraint or schema with their names before and after. It never fails the statement.
CREATE FUNCTION @extschema@.follow_ddl(done text, old_name text, new_name text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  command record;
BEGIN
  IF done = 'schema' THEN
    BEGIN
      WITH renamed AS (DELETE FROM @extschema@.tracked_schemas WHERE schema = old_name RETURNING 1)
      INSERT INTO @extschema@.tracked_schemas SELECT new_name FROM renamed;
    EXCEPTION WHEN OTHERS THEN
      IF EXISTS (SELECT FROM @extschema@.tracked_schemas WHERE schema = old_name) THEN
        RAISE WARNING 'tables that are made in the schema % later will not be tracked: %', quote_ident(new_name), SQLERRM USING
          HINT = format('As a superuser: SELECT bemi.track_all(%L);', ARRAY[new_name]);
      END IF;
    END;
    RETURN;
  END IF;
  FOR command IN
    -- What a constraint, an index or a column belongs to; of a column, also the tables that inherit it, and those of its type.
    WITH RECURSIVE commands AS (
      SELECT DISTINCT CASE
        WHEN done = 'partition' THEN old_name::oid
        WHEN done = 'constraint' THEN (SELECT conrelid FROM pg_constraint WHERE oid = objid AND contype IN ('p', 'u', 'x'))
        WHEN done = 'relation' THEN (SELECT indrelid FROM pg_index WHERE indexrelid = objid)
        WHEN classid = 'pg_class'::regclass THEN objid END AS relation
      FROM pg_event_trigger_ddl_commands()
    ), followed AS (
      SELECT relation FROM commands UNION SELECT heir FROM followed, LATERAL (
        SELECT inhrelid FROM pg_inherits WHERE inhparent = relation AND done = 'column'
        UNION ALL SELECT c.oid FROM pg_type t JOIN pg_class c ON c.reloftype = t.oid WHERE t.typrelid = relation AND done = 'column'
      ) AS of_it (heir)
    ) SELECT f.relation::regclass FROM followed f JOIN pg_class c ON c.oid = f.relation AND c.relkind IN ('r', 'p')
  LOOP
    BEGIN
      IF done = 'table' THEN
        PERFORM @extschema@.follow_table(command.relation);
      ELSIF done = 'partition' THEN
        PERFORM @extschema@.follow_table(command.relation, is_attached => true);
      ELSIF done = 'column' THEN
        PERFORM @extschema@.follow_rename(command.relation, '{ignore,mask}', old_name, new_name);
      ELSE
        PERFORM @extschema@.follow_rename(command.relation, '{identity}', 'index:' || old_name, 'index:' || new_name);
      END IF;
    EXCEPTION WHEN OTHERS THEN
      RAISE WARNING 'bemi could not follow the change of %: %', command.relation, SQLERRM USING
        HINT = CASE WHEN done IN ('table', 'partition') THEN format('SELECT bemi.follow_table(%L, true%s);', command.relation, CASE done WHEN 'partition' THEN ', true' ELSE '' END)
          ELSE format('Its rules name what is called %I now: see bemi.tracked, and call bemi.track(%L) with its rules.', new_name, command.relation) END;
    END;
  END LOOP;
EXCEPTION WHEN OTHERS THEN
  RAISE WARNING 'bemi could not follow this statement: %', SQLERRM USING
    HINT = 'SELECT * FROM bemi.doctor(); shows what is not tracked.';
END
$$;

COMMENT ON FUNCTION @extschema@.follow_ddl(text, text, text) IS
'keeps tracking complete after a statement that made, moved or renamed something';

CREATE FUNCTION @extschema@.on_ddl() RETURNS event_trigger
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'bemi_on_ddl';

COMMENT ON FUNCTION @extschema@.on_ddl() IS
'for the event trigger: calls bemi.follow_ddl() after statements that matter';

CREATE EVENT TRIGGER bemi_on_ddl ON ddl_command_end
WHEN TAG IN ('CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'CREATE SCHEMA', 'ALTER TABLE', 'ALTER TYPE', 'ALTER INDEX', 'ALTER SCHEMA',
  -- They rename the columns of tables too.
  'ALTER VIEW', 'ALTER MATERIALIZED VIEW', 'ALTER FOREIGN TABLE')
EXECUTE FUNCTION @extschema@.on_ddl();

-- In every session: a column that is renamed would be shown.
ALTER EVENT TRIGGER bemi_on_ddl ENABLE ALWAYS;

CREATE FUNCTION @extschema@.before_ddl() RETURNS event_trigger
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'bemi_before_ddl';

COMMENT ON FUNCTION @extschema@.before_ddl() IS
'for the event trigger: has CREATE TRIGGER bemi_context, as a dump has it, replace the one that is there';

CREATE EVENT TRIGGER bemi_before_ddl ON ddl_command_start WHEN TAG IN ('CREATE TRIGGER') EXECUTE FUNCTION @extschema@.before_ddl();
ALTER EVENT TRIGGER bemi_before_ddl ENABLE ALWAYS;

COMMENT ON EVENT TRIGGER bemi_before_ddl IS
'lets a dump be restored into schemas that are tracked';

COMMENT ON EVENT TRIGGER bemi_on_ddl IS
'keeps the tracking of schemas, partitions and renamed columns complete';
-- What has to hold for the trail to be whole, and the statement that mends what does not.

CREATE FUNCTION @extschema@.library_version() RETURNS text
LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'bemi_library_version';

COMMENT ON FUNCTION @extschema@.library_version() IS
'the version of the library that this session has loaded';

-- A setting; NULL if the server has not got it, or the caller may not see it.
CREATE FUNCTION @extschema@.setting(name text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT s.setting FROM pg_settings s WHERE s.name = setting.name
$$;

COMMENT ON FUNCTION @extschema@.setting(text) IS
'a setting of the server, or NULL if the caller may not see it';

-- A few names, and how many more there are.
CREATE FUNCTION @extschema@.some_of(names text[]) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT array_to_string(names[1:5], ', ') || CASE WHEN cardinality(names) > 5 THEN format(' and %s more', cardinality(names) - 5) ELSE '' END
$$;

COMMENT ON FUNCTION @extschema@.some_of(text[]) IS
'the first five names of a list, and how many more there are';

CREATE FUNCTION @extschema@.doctor() RETURNS TABLE ("check" text, ok boolean, detail text, fix text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  sees_settings boolean := pg_has_role('pg_read_all_settings', 'USAGE');
  hidden text := format('the role %s may not see it: a member of pg_read_all_settings may', quote_ident(current_user));
  value text;
  names text[];
  used int;
  enough numeric;
  slot record;
  recorder record;
  lacking record;
BEGIN
  "check" := 'wal_level';
  value := @extschema@.setting('wal_level');
  ok := value = 'logical';
  detail := format('it is %s', value) || CASE WHEN ok THEN '' ELSE ': the log has no changes to decode' END;
  fix := CASE WHEN NOT ok THEN 'ALTER SYSTEM SET wal_level = logical; -- and restart the server' END;
  RETURN NEXT;

  "check" := 'output_plugin_libraries';
  value := @extschema@.setting('output_plugin_libraries');
  -- A list of names: '"a, b"' is one name.
  ok := value IS NULL OR regexp_split_to_array(value, '[[:space:]]*,[[:space:]]*') && ARRAY['bemi_decoder', '"bemi_decoder"'];
  detail := CASE WHEN value IS NULL THEN 'this server does not ask for it' WHEN value IN ('', '""') THEN 'it is empty' ELSE format('it is %s', value) END
    || CASE WHEN ok THEN '' ELSE ': the server refuses to start bemi_decoder' END;
  -- Each name quoted by itself, so that a list that was taken for one name is mended too.
  fix := CASE WHEN NOT ok THEN format('ALTER SYSTEM SET output_plugin_libraries = %s; SELECT pg_reload_conf();',
    (SELECT string_agg(DISTINCT quote_ident(n), ', ')
     FROM regexp_split_to_table(replace(value, '"', '') || ',bemi_decoder', '[[:space:]]*,[[:space:]]*') n WHERE n <> '')) END;
  RETURN NEXT;

  "check" := 'library';
  ok := @extschema@.library_version() = (SELECT extversion FROM pg_extension WHERE extname = 'bemi');
  detail := format('the library has version %s, the extension %s', @extschema@.library_version(), (SELECT extversion FROM pg_extension WHERE extname = 'bemi'));
  fix := CASE WHEN NOT ok THEN 'ALTER EXTENSION bemi UPDATE; -- in a new session, with the new library installed' END;
  RETURN NEXT;

  "check" := 'preload';
  IF sees_settings THEN
    value := concat_ws(', ', nullif(@extschema@.setting('shared_preload_libraries'), ''), nullif(@extschema@.setting('session_preload_libraries'), ''));
    -- Not needed: the trigger loads the library when it fires first.
    ok := true;
    detail := CASE WHEN regexp_split_to_array(value, '[[:space:]]*,[[:space:]]*') && '{bemi,"$libdir/bemi"}'
      THEN 'bemi is preloaded: contexts of roles and PGOPTIONS are checked at login'
      ELSE 'bemi is loaded when it is first used; preloaded, it checks contexts of roles and PGOPTIONS at login' END;
    fix := NULL;
  ELSE
    ok := NULL;
    detail := hidden;
    fix := NULL;
  END IF;
  RETURN NEXT;

  "check" := 'max_replication_slots';
  SELECT count(*) INTO used FROM pg_replication_slots;
  ok := used < @extschema@.setting('max_replication_slots')::int OR EXISTS (SELECT FROM pg_replication_slots WHERE plugin = 'bemi_decoder' AND database = current_database());
  detail := format('%s of %s slots are in use', used, @extschema@.setting('max_replication_slots'));
  fix := CASE WHEN NOT ok THEN format('ALTER SYSTEM SET max_replication_slots = %s; -- and restart the server', used + 10) END;
  RETURN NEXT;

  "check" := 'max_wal_senders';
  SELECT count(*) INTO used FROM pg_stat_replication;
  ok := used < @extschema@.setting('max_wal_senders')::int;
  detail := format('%s of %s senders are in use', used, @extschema@.setting('max_wal_senders'));
  fix := CASE WHEN NOT ok THEN format('ALTER SYSTEM SET max_wal_senders = %s; -- and restart the server', used + 10) END;
  RETURN NEXT;

  "check" := 'max_slot_wal_keep_size';
  value := @extschema@.setting('max_slot_wal_keep_size');
  ok := value::int >= 0;
  detail := CASE WHEN ok THEN format('a slot that nobody reads keeps at most %s of log, and is lost then', pg_size_pretty(value::bigint * 1024 * 1024))
    ELSE 'there is no limit: a slot that nobody reads keeps the log until the disk is full' END;
  fix := CASE WHEN NOT ok THEN 'ALTER SYSTEM SET max_slot_wal_keep_size = ''50GB''; SELECT pg_reload_conf(); -- what your disk can spare' END;
  RETURN NEXT;

  -- A gigabyte, or most of what the limit allows.
  enough := least(1024 ^ 3, CASE WHEN value::int >= 0 THEN value::numeric * 1024 * 1024 * 0.8 END);
  FOR slot IN
    SELECT s.*, CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn) END AS kept
    FROM pg_replication_slots s WHERE s.plugin = 'bemi_decoder' AND s.database = current_database()
      AND s.slot_name IS DISTINCT FROM @extschema@.recorder_slot() ORDER BY s.slot_name
  LOOP
    "check" := format('slot %s', slot.slot_name);
    ok := slot.wal_status IS DISTINCT FROM 'lost' AND slot.wal_status IS DISTINCT FROM 'unreserved' AND COALESCE(slot.kept, 0) < enough;
    detail := CASE slot.wal_status WHEN 'lost' THEN 'the log that it needs is gone: changes are missing'
      ELSE format('it is %s and keeps %s of log', CASE WHEN slot.active THEN 'being read' ELSE 'not being read' END, COALESCE(pg_size_pretty(slot.kept), 'some'))
        || CASE slot.wal_status WHEN 'unreserved' THEN ', which is about to be removed' ELSE '' END END;
    fix := CASE WHEN NOT ok THEN format('SELECT pg_drop_replication_slot(%L); -- or read it', slot.slot_name) END;
    RETURN NEXT;
  END LOOP;

  "check" := 'recorder';
  IF has_function_privilege(current_user, '@extschema@.recorder_status()', 'EXECUTE') THEN
    SELECT * INTO recorder FROM @extschema@.recorder_status();
    ok := recorder.state IN ('never started', 'standby') OR recorder.state IN ('starting', 'catching up', 'recording') AND recorder.lag_seconds < 60
      AND recorder.fix IS NULL;
    detail := CASE recorder.state WHEN 'standby' THEN recorder.detail WHEN 'never started' THEN 'it was never started: what changes is for other readers of the log'
      ELSE format('it is %s, %s and %s seconds behind', recorder.state, pg_size_pretty(recorder.lag_bytes), COALESCE(recorder.lag_seconds::text, 'unknown'))
        || COALESCE(': ' || CASE recorder.state WHEN 'waiting' THEN recorder.last_error ELSE recorder.detail END, '') END;
    ok := COALESCE(ok, false);
    fix := CASE WHEN NOT ok THEN COALESCE(recorder.fix, 'SELECT * FROM bemi.status; -- and mend what last_error says, or wait') END;
  ELSE
    ok := NULL;
    detail := format('the role %s may not see it: a member of pg_monitor may', quote_ident(current_user));
    fix := NULL;
  END IF;
  RETURN NEXT;

  "check" := 'session_replication_role';
  value := @extschema@.setting('session_replication_role');
  ok := value <> 'replica';
  detail := format('it is %s', value) || CASE WHEN ok THEN '' ELSE ': triggers do not fire in this session, so its changes carry no context' END;
  fix := CASE WHEN NOT ok THEN 'SET session_replication_role = origin;' END;
  RETURN NEXT;

  "check" := 'event trigger';
  SELECT t.name, t.task, e.evtenabled::text AS enabled, format('CREATE EVENT TRIGGER %1$s ON %2$s EXECUTE FUNCTION bemi.%3$s(); '
    'ALTER EVENT TRIGGER %1$s ENABLE ALWAYS; ALTER EXTENSION bemi ADD EVENT TRIGGER %1$s;', t.name, t.event, t.function) AS again
  INTO lacking FROM (VALUES
    (1, 'bemi_on_ddl', 'ddl_command_end', 'on_ddl', 'new tables, partitions and renamed columns are not followed'),
    (2, 'bemi_versions', 'ddl_command_end', 'note_ddl', 'the past of tables that are changed cannot be read'),
    (3, 'bemi_versions_dropped', 'sql_drop', 'note_ddl', 'the past of tables that are changed cannot be read')
  ) AS t (place, name, event, function, task) LEFT JOIN pg_event_trigger e ON e.evtname = t.name
  WHERE e.evtenabled IS DISTINCT FROM 'A' ORDER BY t.place LIMIT 1;
  -- PostgreSQL 17 and later can turn all of them off.
  ok := lacking.name IS NULL AND COALESCE(@extschema@.setting('event_triggers'), 'on') = 'on';
  detail := CASE WHEN ok THEN 'new tables, partitions and renamed columns are followed'
    WHEN lacking.name IS NULL THEN 'event_triggers is off: new tables, partitions and renamed columns are not followed'
    ELSE format('%s %s: %s', lacking.name, CASE WHEN lacking.enabled IS NULL THEN 'is gone' ELSE 'does not fire in every session' END, lacking.task) END;
  fix := CASE WHEN ok THEN NULL
    WHEN lacking.name IS NULL THEN 'SET event_triggers = on;'
    WHEN lacking.enabled IS NULL THEN lacking.again
    ELSE format('ALTER EVENT TRIGGER %s ENABLE ALWAYS;', lacking.name) END;
  RETURN NEXT;

  "check" := 'tracked tables';
  SELECT count(*) INTO used FROM @extschema@.tracked;
  ok := used > 0;
  detail := format('%s tables are tracked', used) || (SELECT COALESCE('; so are the future tables of ' || string_agg(quote_ident(schema), ', ' ORDER BY schema), '') FROM @extschema@.tracked_schemas);
  fix := CASE WHEN NOT ok THEN 'SELECT bemi.track_all();' END;
  RETURN NEXT;

  "check" := 'untracked tables';
  names := ARRAY(SELECT t::text FROM @extschema@.trackable(ARRAY(SELECT schema FROM @extschema@.tracked_schemas)) t
    WHERE NOT EXISTS (SELECT FROM @extschema@.context_triggers o WHERE o.relation = t) ORDER BY 1);
  ok := cardinality(names) = 0;
  detail := CASE WHEN ok THEN 'none in the tracked schemas' ELSE 'in the tracked schemas: ' || @extschema@.some_of(names) END;
  fix := CASE WHEN NOT ok THEN format('SELECT bemi.track_all(%L);', ARRAY(SELECT schema FROM @extschema@.tracked_schemas JOIN pg_namespace ON nspname = schema ORDER BY schema)) END;
  RETURN NEXT;

  "check" := 'images before';
  names := ARRAY(SELECT t.relation::text FROM @extschema@.tracked t JOIN pg_class c ON c.oid = t.relation WHERE t.replica_identity <> 'full' AND c.relkind = 'r' ORDER BY 1);
  ok := cardinality(names) = 0;
  detail := CASE WHEN ok THEN 'the log has the whole row before each change' ELSE 'the log has not the whole row before a change of ' || @extschema@.some_of(names) END;
  fix := CASE WHEN NOT ok THEN (SELECT string_agg(format('SELECT bemi.track_again(%L, ''full'');', name), ' ') FROM unnest(names) name) END;
  RETURN NEXT;

  "check" := 'triggers';
  names := ARRAY(SELECT t.relation::regclass::text FROM @extschema@.context_triggers t WHERE t.enabled NOT IN ('O', 'A') ORDER BY 1);
  ok := cardinality(names) = 0;
  detail := CASE WHEN ok THEN 'none is disabled' ELSE 'disabled on ' || @extschema@.some_of(names) END;
  fix := CASE WHEN NOT ok THEN (SELECT string_agg(format('ALTER TABLE %s ENABLE TRIGGER %I;', t.relation::regclass, t.name), ' ')
    FROM @extschema@.context_triggers t WHERE t.enabled NOT IN ('O', 'A')) END;
  RETURN NEXT;

  "check" := 'rules';
  -- What is missing but for the above.
  names := ARRAY(SELECT format('%s (%s)', t.relation, problem) FROM @extschema@.tracked t, unnest(t.missing) problem
    WHERE problem !~ '^the (trigger|log) ' ORDER BY 1);
  ok := cardinality(names) = 0;
  detail := CASE WHEN ok THEN 'each is in force' ELSE @extschema@.some_of(names) END;
  -- A mask is never taken away without being asked for: a column that is not there may have another name now. So that
  -- statement shows the rules; only people know which to choose.
  fix := CASE WHEN NOT ok THEN (
    SELECT string_agg(DISTINCT CASE
      WHEN problem ~ '^the partition ' THEN format('SELECT bemi.follow_table(%L);', t.relation)
      WHEN problem ~ '^ignored columns ' THEN format('SELECT bemi.track_again(%L, ''full'');', t.relation)
      WHEN problem ~ ' to mask' THEN format('SELECT * FROM bemi.tracked WHERE relation = %L::regclass;', t.relation)
      ELSE format('SELECT bemi.track_again(%L);', t.relation) END, ' ')
    FROM @extschema@.tracked t, unnest(t.missing) problem WHERE problem !~ '^the (trigger|log) ') END;
  RETURN NEXT;
END
$$;

COMMENT ON FUNCTION @extschema@.doctor() IS
'what has to hold for the trail to be whole, whether it does, and the statement that mends it';
-- The table bemi.changes: its form, its partitions, and whose it is.

-- As the library makes it of a document; see src/recorder/row.rs.
CREATE FUNCTION @extschema@.change_id(committed_at timestamptz, commit_position pg_lsn, sequence int) RETURNS uuid
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT (lpad(to_hex(micros / 1000), 12, '0') || '8' || lpad(to_hex(micros % 1000), 3, '0')
    || to_hex((2::bigint << 30) | (((commit_position - '0/0'::pg_lsn)::bigint >> 3) & 1073741823))
    || lpad(to_hex(sequence), 8, '0'))::uuid
  FROM (SELECT (extract(epoch FROM committed_at) * 1000000)::bigint AS micros) t
$$;

COMMENT ON FUNCTION @extschema@.change_id(timestamptz, pg_lsn, int) IS
'the id of a change, which follows from what identifies it';

-- What the owner of a table attaches to it (triggers, checks, expressions of indexes) runs with the rights of those who write.
CREATE FUNCTION @extschema@.require_owner() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  wrong record;
BEGIN
  LOCK TABLE @extschema@.changes IN ROW EXCLUSIVE MODE;
  FOR wrong IN
    SELECT t.relid, r.rolname FROM pg_partition_tree('@extschema@.changes') t JOIN pg_class c ON c.oid = t.relid
    LEFT JOIN pg_roles r ON r.oid = c.relowner WHERE NOT COALESCE(r.rolsuper, false) LIMIT 1
  LOOP
    RAISE EXCEPTION 'the table % belongs to the role %, who is no superuser', wrong.relid::regclass, quote_ident(wrong.rolname) USING
      ERRCODE = 'insufficient_privilege', HINT = format('ALTER TABLE %s OWNER TO %I;', wrong.relid::regclass, current_user);
  END LOOP;
END
$$;

COMMENT ON FUNCTION @extschema@.require_owner() IS
'raises an error if bemi.changes or a partition of it does not belong to a superuser';

REVOKE EXECUTE ON FUNCTION @extschema@.require_owner() FROM PUBLIC;

-- Makes a table of its own for a month, and moves to it what the default partition holds of that month.
CREATE FUNCTION @extschema@.add_partition(month timestamptz) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
DECLARE
  first timestamptz := date_trunc('month', month);
  next timestamptz := first + interval '1 month';
  name text := format('changes_%s', to_char(first, 'YYYY_MM'));
  owner name;
  is_moved boolean := false;
BEGIN
  PERFORM @extschema@.require_owner();
  IF EXISTS (SELECT FROM pg_inherits WHERE inhparent = '@extschema@.changes'::regclass AND inhrelid = to_regclass(format('@extschema@.%I', name))) THEN
    RETURN;
  ELSIF to_regclass(format('@extschema@.%I', name)) IS NOT NULL THEN
    RAISE EXCEPTION 'the table @extschema@.% is no partition of @extschema@.changes', name USING
      ERRCODE = 'duplicate_table', HINT = 'Attach it again, or give it another name.';
  END IF;
  SELECT rolname INTO owner FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner WHERE c.oid = '@extschema@.changes'::regclass;
  IF to_regclass('@extschema@.changes_default') IS NOT NULL THEN
    EXECUTE 'SELECT EXISTS (SELECT FROM @extschema@.changes_default WHERE committed_at >= $1 AND committed_at < $2)' INTO is_moved USING first, next;
  END IF;
  IF is_moved THEN
    LOCK TABLE @extschema@.changes IN SHARE ROW EXCLUSIVE MODE;
    EXECUTE format('CREATE TABLE @extschema@.%I (LIKE @extschema@.changes INCLUDING ALL)', name);
    EXECUTE format('WITH moved AS (DELETE FROM @extschema@.changes_default WHERE committed_at >= $1 AND committed_at < $2 RETURNING *)
      INSERT INTO @extschema@.%I SELECT * FROM moved', name) USING first, next;
    EXECUTE format('ALTER TABLE @extschema@.changes ATTACH PARTITION @extschema@.%I FOR VALUES FROM (%L) TO (%L)', name, first, next);
  ELSE
    EXECUTE format('CREATE TABLE @extschema@.%I PARTITION OF @extschema@.changes FOR VALUES FROM (%L) TO (%L)', name, first, next);
  END IF;
  EXECUTE format('ALTER TABLE @extschema@.%I OWNER TO %I', name, owner);
END
$$;

COMMENT ON FUNCTION @extschema@.add_partition(timestamptz) IS
'makes the partition of bemi.changes for the month of a time, if it is not there, with what the default partition holds of it';

REVOKE EXECUTE ON FUNCTION @extschema@.add_partition(timestamptz) FROM PUBLIC;

-- The recorder calls it once a minute.
CREATE FUNCTION @extschema@.keep_partitions(retention interval) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET lock_timeout = '1s' AS $$
DECLARE
  month timestamptz;
  partition regclass;
BEGIN
  FOREACH month IN ARRAY ARRAY[now(), now() + interval '1 month'] LOOP
    -- What the default partition holds already would have to be moved: people choose when.
    IF to_regclass(format('@extschema@.%I', to_char(month, '"changes_"YYYY_MM'))) IS NULL
      AND NOT @extschema@.has_strays(date_trunc('month', month), date_trunc('month', month) + interval '1 month')
    THEN
      PERFORM @extschema@.add_partition(month);
    END IF;
  END LOOP;
  FOR partition IN
    SELECT i.inhrelid FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = '@extschema@.changes'::regclass
      -- Its upper bound; the default partition has none.
      AND substring(pg_get_expr(c.relpartbound, c.oid) FROM ' TO [(]''([^'']+)''[)]')::timestamptz <= now() - retention
  LOOP
    BEGIN
      EXECUTE format('DROP TABLE %s', partition);
      RAISE LOG 'the recorder of bemi dropped a partition that is older than bemi.retention allows';
    EXCEPTION WHEN OTHERS THEN
      -- Somebody reads it, or something depends on it: it is tried again in a minute.
      RAISE LOG 'the recorder of bemi could not drop a partition that is older than bemi.retention allows: %', SQLERRM;
    END;
  END LOOP;
END
$$;

COMMENT ON FUNCTION @extschema@.keep_partitions(interval) IS
'makes the partitions of this month and the next one, and drops those that are older than the retention; NULL keeps all';

REVOKE EXECUTE ON FUNCTION @extschema@.keep_partitions(interval) FROM PUBLIC;

CREATE FUNCTION @extschema@.has_strays(since timestamptz DEFAULT '-infinity', until timestamptz DEFAULT 'infinity') RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms' AS $$
DECLARE
  result boolean := false;
BEGIN
  IF to_regclass('@extschema@.changes_default') IS NOT NULL THEN
    EXECUTE 'SELECT EXISTS (SELECT FROM @extschema@.changes_default WHERE committed_at >= $1 AND committed_at < $2)' INTO result USING since, until;
  END IF;
  RETURN result;
EXCEPTION WHEN lock_not_available THEN
  -- Who asks how the recorder is does not wait for others.
  RETURN false;
END
$$;

COMMENT ON FUNCTION @extschema@.has_strays(timestamptz, timestamptz) IS
'whether the default partition of bemi.changes holds changes';

REVOKE EXECUTE ON FUNCTION @extschema@.has_strays(timestamptz, timestamptz) FROM PUBLIC;

CREATE FUNCTION @extschema@.make_changes() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF to_regclass('@extschema@.changes') IS NULL THEN
    CREATE TABLE @extschema@.changes (
      id uuid NOT NULL,
      database text NOT NULL,
      schema text NOT NULL,
      "table" text NOT NULL,
      operation text NOT NULL,
      primary_key text,
      before jsonb NOT NULL,
      after jsonb NOT NULL,
      context jsonb NOT NULL,
      committed_at timestamptz NOT NULL,
      queued_at timestamptz NOT NULL,
      created_at timestamptz NOT NULL,
      transaction_id bigint NOT NULL,
      position bigint NOT NULL,
      commit_position pg_lsn NOT NULL,
      sequence int NOT NULL,
      omitted jsonb,
      old_primary_key text,
      PRIMARY KEY (id, committed_at)
    ) PARTITION BY RANGE (committed_at);
    -- What happened to a row, what happened at a time, what somebody did.
    CREATE INDEX changes_of_row ON @extschema@.changes (schema, "table", primary_key, committed_at);
    CREATE INDEX changes_by_time ON @extschema@.changes (committed_at);
    CREATE INDEX changes_by_context ON @extschema@.changes USING gin (context jsonb_path_ops);
    -- What a row was called before.
    CREATE INDEX changes_of_old_key ON @extschema@.changes (schema, "table", old_primary_key, committed_at) WHERE old_primary_key IS NOT NULL;
    -- The order of the changes, for those who read on from a position.
    CREATE INDEX changes_by_position ON @extschema@.changes (commit_position, sequence);
    CREATE TABLE @extschema@.changes_default PARTITION OF @extschema@.changes DEFAULT;
    COMMENT ON TABLE @extschema@.changes IS 'the changes that the recorder of bemi has recorded, each once';
  END IF;
  IF to_regclass('@extschema@.recorder') IS NULL THEN
    CREATE TABLE @extschema@.recorder (
      is_one boolean PRIMARY KEY DEFAULT true CHECK (is_one),
      slot name,
      is_wanted boolean NOT NULL,
      state text NOT NULL,
      state_since timestamptz NOT NULL,
      last_error text,
      last_error_at timestamptz,
      -- How often it failed since it last succeeded.
      failures int NOT NULL DEFAULT 0,
      -- The last change that is recorded by this slot.
      commit_position pg_lsn NOT NULL DEFAULT '0/0',
      sequence int NOT NULL DEFAULT 0,
      committed_at timestamptz,
      -- Everything before it is recorded.
      read_position pg_lsn,
      transactions bigint NOT NULL DEFAULT 0,
      changes bigint NOT NULL DEFAULT 0,
      spilled_bytes bigint NOT NULL DEFAULT 0,
      -- The documents of gaps that are to be recorded.
      gap text,
      -- What was committed after it is recorded, but for gaps.
      since timestamptz
    );
    COMMENT ON TABLE @extschema@.recorder IS 'how far the recorder of bemi is; see bemi.status';
  END IF;
  INSERT INTO @extschema@.recorder (is_wanted, state, state_since) VALUES (false, 'stopped', now()) ON CONFLICT DO NOTHING;
END
$$;

COMMENT ON FUNCTION @extschema@.make_changes() IS
'makes the table bemi.changes and the state of the recorder, if they are not there';

REVOKE EXECUTE ON FUNCTION @extschema@.make_changes() FROM PUBLIC;

-- Made with bemi.changes. It calls no function of the extension, without which it is of use too.
CREATE FUNCTION @extschema@.make_changes_diff() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF to_regclass('@extschema@.changes_diff') IS NULL THEN
    CREATE VIEW @extschema@.changes_diff AS
    SELECT c.id, c.schema, c."table", c.operation, c.primary_key, (
        SELECT COALESCE(jsonb_object_agg(key, jsonb_build_array(b.value, a.value)), '{}')
        FROM jsonb_each(c.before) b FULL JOIN jsonb_each(c.after) a USING (key)
        WHERE COALESCE(b.value, 'null') <> COALESCE(a.value, 'null')
      ) AS diff, c.context, c.committed_at, c.transaction_id, c.commit_position, c.sequence
    FROM @extschema@.changes c;
    COMMENT ON VIEW @extschema@.changes_diff IS 'the changes that the recorder of bemi has recorded, with what each changed: {"column": [before, after]}';
  END IF;
END
$$;

COMMENT ON FUNCTION @extschema@.make_changes_diff() IS
'makes the view bemi.changes_diff, if it is not there';

REVOKE EXECUTE ON FUNCTION @extschema@.make_changes_diff() FROM PUBLIC;
-- Stage 4: the recorder, a background worker that keeps the table bemi.changes up to date. That table and the recorder's
-- state, bemi.recorder, are made by bemi.start() and belong to no extension, so that what is recorded outlives this one.

CREATE FUNCTION @extschema@.launch() RETURNS integer
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'bemi_launch';

COMMENT ON FUNCTION @extschema@.launch() IS
'starts the worker of this database; bemi.start() calls it';

CREATE FUNCTION @extschema@.wake(pid integer) RETURNS void
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'bemi_wake';

COMMENT ON FUNCTION @extschema@.wake(integer) IS
'has the worker look at once whether there is something to record';

CREATE FUNCTION @extschema@.create_slot(slot name) RETURNS void
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'bemi_create_slot';

COMMENT ON FUNCTION @extschema@.create_slot(name) IS
'makes a replication slot for bemi_decoder, as pg_create_logical_replication_slot does';

CREATE FUNCTION @extschema@.lock_recorder() RETURNS void
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'bemi_lock_recorder';

COMMENT ON FUNCTION @extschema@.lock_recorder() IS
'has only one transaction at a time start or stop the recorder';

CREATE FUNCTION @extschema@.flush_log(until pg_lsn) RETURNS void
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'bemi_flush_log';

COMMENT ON FUNCTION @extschema@.flush_log(pg_lsn) IS
'has the write-ahead log on disk up to a position';

REVOKE EXECUTE ON FUNCTION @extschema@.launch(), @extschema@.wake(integer), @extschema@.create_slot(name), @extschema@.lock_recorder(),
  @extschema@.flush_log(pg_lsn) FROM PUBLIC;

-- Each slot that is made has a name of its own, which never comes again, so that none is taken for one that is lost. The
-- library knows the form of the names too.
CREATE FUNCTION @extschema@.recorder_slots() RETURNS SETOF pg_catalog.pg_replication_slots
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT s.* FROM pg_replication_slots s JOIN pg_database d ON d.datname = s.database
  WHERE d.datname = current_database() AND s.plugin = 'bemi_decoder' AND starts_with(s.slot_name::text, 'bemi_recorder_' || d.oid || '_')
$$;

COMMENT ON FUNCTION @extschema@.recorder_slots() IS
'the replication slots that recorders made in this database';

CREATE FUNCTION @extschema@.new_recorder_slot() RETURNS name
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  SELECT format('bemi_recorder_%s_%s', oid, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)::name
  FROM pg_database WHERE datname = current_database()
$$;

COMMENT ON FUNCTION @extschema@.new_recorder_slot() IS
'a name for a new slot of the recorder';

-- Everyone may know the name: the doctor shows the other slots by themselves.
CREATE FUNCTION @extschema@.recorder_slot() RETURNS name
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF to_regclass('@extschema@.recorder') IS NULL THEN
    RETURN NULL;
  END IF;
  RETURN (SELECT slot FROM @extschema@.recorder);
END
$$;

COMMENT ON FUNCTION @extschema@.recorder_slot() IS
'the name of the slot of the recorder of this database, if it has one';

CREATE FUNCTION @extschema@.recorder_pid() RETURNS integer
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  SELECT pid FROM pg_stat_activity WHERE backend_type = 'bemi recorder' AND datname = current_database() ORDER BY backend_start LIMIT 1
$$;

COMMENT ON FUNCTION @extschema@.recorder_pid() IS
'the process id of the recorder of this database, or NULL if it does not run';

CREATE FUNCTION @extschema@.end_recorder() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  until timestamptz := clock_timestamp() + interval '30 s';
  pid int;
BEGIN
  LOOP
    PERFORM pg_stat_clear_snapshot();
    pid := @extschema@.recorder_pid();
    EXIT WHEN pid IS NULL;
    PERFORM pg_terminate_backend(pid);
    PERFORM pg_sleep(0.02);
    IF clock_timestamp() > until THEN
      RAISE EXCEPTION 'the recorder, process %, does not end', pid USING ERRCODE = 'object_in_use', HINT = 'Try again.';
    END IF;
  END LOOP;
END
$$;

COMMENT ON FUNCTION @extschema@.end_recorder() IS
'ends the worker of this database, and waits until it has ended';

REVOKE EXECUTE ON FUNCTION @extschema@.end_recorder() FROM PUBLIC;

CREATE FUNCTION @extschema@.start(accept_gap boolean DEFAULT false) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  problem record;
  known record;
  is_wanted boolean := false;
  slot pg_replication_slots;
  -- Where recording ended, if the slot that knew is lost or was dropped.
  ended pg_lsn;
  reason text;
  old name;
  made name;
BEGIN
  IF pg_is_in_recovery() THEN
    RAISE EXCEPTION 'the recorder cannot be started on a standby' USING
      ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Start it on the primary; bemi.changes is replicated like any table.';
  END IF;
  -- The worker waits for the end of this transaction too.
  PERFORM @extschema@.lock_recorder();
  IF to_regclass('@extschema@.recorder') IS NOT NULL THEN
    SELECT * INTO known FROM @extschema@.recorder;
    SELECT * INTO slot FROM @extschema@.recorder_slots() s WHERE s.slot_name = known.slot;
    IF known.slot IS NULL THEN
      reason := 'stopped';
    ELSIF slot.slot_name IS NULL OR slot.wal_status = 'lost'
      -- Somebody else has read it meanwhile.
      OR known.state = 'stopped' AND slot.confirmed_flush_lsn > known.read_position
    THEN
      reason := 'slot lost';
    END IF;
    is_wanted := known.is_wanted AND reason IS NULL;
    ended := greatest(known.read_position, known.commit_position, CASE WHEN known.state <> 'stopped' THEN slot.confirmed_flush_lsn END);
  ELSIF to_regclass('@extschema@.changes') IS NOT NULL THEN
    reason := 'slot lost';
    EXECUTE 'SELECT max(commit_position) FROM @extschema@.changes' INTO ended;
  ELSE
    reason := 'new';
  END IF;
  IF is_wanted AND @extschema@.recorder_pid() IS NOT NULL THEN
    RAISE NOTICE 'the recorder of this database runs already';
    RETURN;
  END IF;
  FOR problem IN
    SELECT d."check", d.detail, d.fix FROM @extschema@.doctor() d
    WHERE d."check" IN ('wal_level', 'output_plugin_libraries', 'library', 'max_replication_slots') AND NOT d.ok
  LOOP
    RAISE EXCEPTION 'the recorder cannot be started: %: %', problem."check", problem.detail USING
      ERRCODE = 'object_not_in_prerequisite_state', HINT = problem.fix;
  END LOOP;
  IF reason = 'slot lost' AND NOT accept_gap THEN
    RAISE EXCEPTION 'the slot of the recorder is lost: what was changed after % is missing', ended USING
      ERRCODE = 'object_not_in_prerequisite_state',
      HINT = 'SELECT bemi.start(accept_gap => true); -- records that there is a gap, and goes on from here';
  END IF;
  -- One that is about to end, or to find that its slot is lost.
  PERFORM @extschema@.end_recorder();
  -- What a transaction that was rolled back, or the above, left behind.
  FOR old IN SELECT s.slot_name FROM @extschema@.recorder_slots() s WHERE NOT s.active AND (reason IS NOT NULL OR s.slot_name <> slot.slot_name) LOOP
    PERFORM pg_drop_replication_slot(old);
  END LOOP;
  IF reason IS NOT NULL THEN
    made := @extschema@.new_recorder_slot();
    PERFORM @extschema@.create_slot(made);
    SELECT * INTO slot FROM @extschema@.recorder_slots() s WHERE s.slot_name = made;
  END IF;

  BEGIN
    PERFORM @extschema@.make_changes(), @extschema@.make_changes_diff();
    BEGIN
      PERFORM @extschema@.keep_partitions(NULL);
    EXCEPTION WHEN lock_not_available THEN
      -- Somebody reads the table: the worker makes them.
    END;
    IF reason IS NOT NULL THEN
      -- The positions before are those of another slot, or in a dump that was restored, of another cluster.
      UPDATE @extschema@.recorder r SET slot = slot.slot_name, commit_position = '0/0', sequence = 0, read_position = slot.confirmed_flush_lsn,
        since = CASE WHEN reason = 'new' THEN clock_timestamp() ELSE r.since END;
    END IF;
    UPDATE @extschema@.recorder r SET is_wanted = true, state = 'starting', state_since = now(), failures = 0;
    IF reason IN ('slot lost', 'stopped') THEN
      -- The worker records it first of all.
      UPDATE @extschema@.recorder r SET gap = concat_ws(chr(10), r.gap, format(
        '{"position":%1$s,"commit_position":%1$s,"sequence":0,"transaction_id":%2$s,"committed_at":%3$s,"database":%4$s,"schema":"","table":"",'
        '"operation":"GAP","primary_key":null,"before":{},"after":{},"context":%5$s}',
        to_json(slot.confirmed_flush_lsn), pg_current_xact_id()::text::bigint & 4294967295,
        to_json(to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"')), to_json(current_database()),
        json_build_object('reason', reason, 'from', ended, 'to', slot.confirmed_flush_lsn, 'accepted_by', session_user)));
    END IF;
    PERFORM @extschema@.launch();
  EXCEPTION WHEN OTHERS OR query_canceled THEN
    IF made IS NOT NULL THEN
      PERFORM pg_drop_replication_slot(made);
    END IF;
    RAISE;
  END;
END
$$;

COMMENT ON FUNCTION @extschema@.start(boolean) IS
'records all changes of tracked tables from here on in bemi.changes; with accept_gap also where changes before are missing';

CREATE FUNCTION @extschema@.stop(drop_slot boolean DEFAULT false) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  slot pg_replication_slots;
BEGIN
  PERFORM @extschema@.lock_recorder();
  -- What it has not recorded is recorded when it is started again. One that the server starts again waits for this
  -- transaction.
  PERFORM @extschema@.end_recorder();
  IF to_regclass('@extschema@.recorder') IS NOT NULL THEN
    UPDATE @extschema@.recorder r SET is_wanted = false, state = 'stopped', state_since = now(),
      read_position = COALESCE((SELECT CASE WHEN r.is_wanted THEN s.confirmed_flush_lsn END FROM @extschema@.recorder_slots() s WHERE s.slot_name = r.slot), r.read_position);
  END IF;
  IF drop_slot THEN
    FOR slot IN SELECT * FROM @extschema@.recorder_slots() LOOP
      IF to_regclass('@extschema@.recorder') IS NOT NULL THEN
        UPDATE @extschema@.recorder r SET slot = NULL WHERE r.slot = slot.slot_name;
      END IF;
      PERFORM pg_drop_replication_slot(slot.slot_name);
    END LOOP;
  END IF;
END
$$;

COMMENT ON FUNCTION @extschema@.stop(boolean) IS
'ends recording; with drop_slot the server no longer keeps the log for it, and what is not recorded yet never will be';

REVOKE EXECUTE ON FUNCTION @extschema@.start(boolean), @extschema@.stop(boolean) FROM PUBLIC;

CREATE FUNCTION @extschema@.sync(timeout interval DEFAULT '30 s') RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  target pg_lsn;
  until timestamptz := clock_timestamp() + COALESCE(timeout, '30 s');
  slot name;
  reached pg_lsn;
  is_flushed boolean := false;
BEGIN
  IF pg_is_in_recovery() THEN
    RAISE EXCEPTION 'a standby records nothing' USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Call bemi.sync() on the primary.';
  END IF;
  target := pg_current_wal_insert_lsn();
  -- Behind the end of a page stands the header of the next one, which belongs to no record yet.
  IF (target - '0/0') % current_setting('wal_block_size')::int <= 40 THEN
    target := target - (target - '0/0') % current_setting('wal_block_size')::int;
  END IF;
  IF to_regclass('@extschema@.recorder') IS NOT NULL THEN
    SELECT r.slot INTO slot FROM @extschema@.recorder r WHERE r.is_wanted;
  END IF;
  LOOP
    SELECT s.confirmed_flush_lsn INTO reached FROM pg_replication_slots s
    WHERE s.slot_name = slot AND s.database = current_database() AND s.wal_status <> 'lost';
    IF NOT FOUND THEN
      RAISE EXCEPTION 'the changes of this database are not recorded: %', (SELECT state FROM @extschema@.recorder_status()) USING
        ERRCODE = 'object_not_in_prerequisite_state', HINT = 'SELECT bemi.start();';
    ELSIF reached >= target THEN
      RETURN;
    ELSIF NOT is_flushed THEN
      -- Else what others have not committed yet might keep the end of the log in memory.
      PERFORM @extschema@.flush_log(target);
      is_flushed := true;
    ELSIF clock_timestamp() > until THEN
      RAISE EXCEPTION 'not everything was recorded within %', timeout USING
        ERRCODE = 'query_canceled', DETAIL = format('%s of log are left.', pg_size_pretty(target - reached)), HINT = 'SELECT * FROM bemi.status; says why.';
    END IF;
    PERFORM pg_stat_clear_snapshot();
    PERFORM @extschema@.wake(@extschema@.recorder_pid());
    PERFORM pg_sleep(0.002);
  END LOOP;
END
$$;

COMMENT ON FUNCTION @extschema@.sync(interval) IS
'returns when everything that was committed before is recorded';

CREATE FUNCTION @extschema@.recorder_status(
  OUT state text, OUT since timestamptz, OUT detail text, OUT fix text, OUT last_error text, OUT last_error_at timestamptz, OUT pid int, OUT slot name,
  OUT recorded_position pg_lsn, OUT lag_bytes numeric, OUT lag_seconds numeric, OUT transactions bigint, OUT changes bigint, OUT spilled_bytes bigint
) RETURNS record
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  known record;
  worker record;
  wal_status text;
BEGIN
  IF to_regclass('@extschema@.recorder') IS NULL THEN
    state := 'never started';
    fix := 'SELECT bemi.start();';
    RETURN;
  END IF;
  SELECT * INTO known FROM @extschema@.recorder;
  SELECT a.pid, a.state, a.state_change INTO worker FROM pg_stat_activity a WHERE a.pid = @extschema@.recorder_pid();
  SELECT s.confirmed_flush_lsn, s.wal_status INTO recorded_position, wal_status FROM @extschema@.recorder_slots() s WHERE s.slot_name = known.slot;
  pid := worker.pid;
  slot := known.slot;
  state := known.state;
  since := known.state_since;
  last_error := known.last_error;
  last_error_at := known.last_error_at;
  transactions := known.transactions;
  changes := known.changes;
  spilled_bytes := known.spilled_bytes;
  -- Whoever was ended, or has lost the slot, could not always say so.
  IF pg_is_in_recovery() THEN
    state := 'standby';
    detail := 'the primary records, and bemi.changes is replicated';
  ELSIF slot IS NOT NULL AND (recorded_position IS NULL OR wal_status = 'lost' OR state = 'stopped' AND recorded_position > known.read_position) THEN
    recorded_position := greatest(CASE WHEN state <> 'stopped' THEN recorded_position END, known.read_position, known.commit_position);
    state := 'slot lost';
    detail := format('what was changed after %s is missing', recorded_position);
    fix := 'SELECT bemi.start(accept_gap => true); -- records that there is a gap, and goes on from here';
  ELSIF pid IS NULL AND state <> 'stopped' THEN
    state := 'not running';
    detail := 'a worker that ended is started again within seconds';
    fix := 'SELECT bemi.start();';
  ELSIF state = 'stopped' THEN
    detail := CASE WHEN slot IS NULL THEN 'what is changed now is not recorded later' ELSE 'the server keeps the log for it' END;
    fix := 'SELECT bemi.start();' || CASE WHEN slot IS NULL THEN '' ELSE ' -- or, to give up what is not recorded: SELECT bemi.stop(drop_slot => true);' END;
  ELSIF @extschema@.has_strays() THEN
    detail := 'bemi.changes_default holds changes of months that have no partition';
    fix := format('SELECT bemi.add_partition(%L);', (SELECT min(committed_at) FROM @extschema@.changes_default));
  END IF;
  recorded_position := COALESCE(recorded_position, known.read_position);
  IF NOT pg_is_in_recovery() THEN
    lag_bytes := greatest(pg_wal_lsn_diff(pg_current_wal_flush_lsn(), recorded_position), 0);
  END IF;
  -- The worker is idle when it has recorded all that there is. Else it is behind by no more than that.
  lag_seconds := CASE WHEN lag_bytes = 0 OR state = 'recording' AND worker.state = 'idle' THEN 0
    ELSE round(extract(epoch FROM clock_timestamp() - CASE WHEN state = 'recording' THEN worker.state_change ELSE known.committed_at END), 3) END;
END
$$;

COMMENT ON FUNCTION @extschema@.recorder_status() IS
'what the recorder of this database does';

CREATE VIEW @extschema@.status AS SELECT * FROM @extschema@.recorder_status();

COMMENT ON VIEW @extschema@.status IS
'what the recorder of this database does, how far it is, and what went wrong last';

REVOKE EXECUTE ON FUNCTION @extschema@.recorder_status() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.recorder_status() TO pg_monitor;
GRANT SELECT ON @extschema@.status TO pg_monitor;

CREATE FUNCTION @extschema@.before_drop() RETURNS event_trigger
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'bemi_before_drop';

COMMENT ON FUNCTION @extschema@.before_drop() IS
'for the event trigger: refuses to drop the extension while the server keeps the log for its recorder';

CREATE EVENT TRIGGER bemi_before_drop ON ddl_command_start WHEN TAG IN ('DROP EXTENSION', 'DROP SCHEMA') EXECUTE FUNCTION @extschema@.before_drop();
ALTER EVENT TRIGGER bemi_before_drop ENABLE ALWAYS;

COMMENT ON EVENT TRIGGER bemi_before_drop IS
'keeps the extension while its recorder has a slot';
-- What tracked tables were like, and from when on: so that recorded changes can be read under today's names, and no time is
-- taken for recorded that is not.

CREATE TABLE @extschema@.table_versions (
  relation oid NOT NULL,
  -- The changes of the table from this position of the log on are those of this version.
  position pg_lsn NOT NULL,
  noted_at timestamptz NOT NULL,
  is_tracked boolean NOT NULL,
  -- Whether it had no rows then.
  is_empty boolean NOT NULL,
  -- Whether the log has the whole row before each change.
  has_images boolean,
  schema name,
  "table" name,
  -- The topmost table above a partition; else the table itself.
  root oid,
  -- The columns that name a row, and the names of all by their numbers.
  key_columns smallint[],
  columns jsonb,
  ignored text[],
  masked text[],
  -- Nobody noted it when it came: what was before, and until when, is not known.
  is_late boolean NOT NULL DEFAULT false,
  PRIMARY KEY (relation, position)
);

CREATE INDEX table_versions_by_root ON @extschema@.table_versions (root);
GRANT SELECT ON @extschema@.table_versions TO PUBLIC;

COMMENT ON TABLE @extschema@.table_versions IS
'the names, columns, keys and rules of tracked tables, from which position of the log and which time on';

-- In PL/pgSQL, which keeps plans: it runs after each statement that changes a table. Triggers are looked up table by table,
-- whatever the planner thinks of how many there are.
CREATE FUNCTION @extschema@.present_versions(relations oid[]) RETURNS SETOF @extschema@.table_versions
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
BEGIN
  RETURN QUERY
    SELECT r.oid, pg_current_wal_insert_lsn(), clock_timestamp(), 
      -- While a table is unlogged, nothing of it is in the log.
      (c.relpersistence = 'p' OR c.relkind = 'p') AND EXISTS (SELECT FROM unnest(a.above) o, LATERAL (SELECT FROM @extschema@.context_triggers t WHERE t.relation = o OFFSET 0) t),
      COALESCE(pg_relation_size(c.oid) = 0, true), c.relreplident = 'f' OR c.relkind = 'p', n.nspname, c.relname, COALESCE(pg_partition_root(c.oid)::oid, c.oid),
      (SELECT (i.indkey::int2[])[0:i.indnkeyatts - 1] FROM pg_index i WHERE i.indrelid = c.oid
        AND (i.indisprimary AND i.indisvalid OR i.indisreplident AND c.relreplident = 'i') ORDER BY i.indisprimary DESC LIMIT 1),
      (SELECT jsonb_object_agg(attnum, attname) FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped),
      ARRAY(SELECT DISTINCT i FROM @extschema@.context_triggers t, unnest(@extschema@.rules(t.arguments, 'ignore')) i
        WHERE t.relation = c.oid AND t.name = 'bemi_context' ORDER BY i),
      ARRAY(SELECT DISTINCT m FROM unnest(a.above) o, LATERAL (SELECT t.arguments FROM @extschema@.context_triggers t WHERE t.relation = o OFFSET 0) t,
        unnest(@extschema@.rules(t.arguments, 'mask')) m ORDER BY m), false
    FROM unnest(relations) AS r (oid) LEFT JOIN pg_class c ON c.oid = r.oid AND c.relkind IN ('r', 'p') LEFT JOIN pg_namespace n ON n.oid = c.relnamespace,
      LATERAL (SELECT CASE WHEN c.relispartition THEN ARRAY(SELECT relid::oid FROM pg_partition_ancestors(c.oid)) ELSE ARRAY[c.oid] END) AS a (above);
END
$$;

COMMENT ON FUNCTION @extschema@.present_versions(oid[]) IS
'what tables are like now, as versions of them';

-- Which tables are not as their last version says.
CREATE FUNCTION @extschema@.new_versions(relations oid[]) RETURNS SETOF @extschema@.table_versions
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
BEGIN
  RETURN QUERY
    SELECT p.* FROM @extschema@.present_versions(relations) p LEFT JOIN LATERAL (
      SELECT * FROM @extschema@.table_versions v WHERE v.relation = p.relation ORDER BY v.position DESC LIMIT 1
    ) l ON true
    WHERE (p.is_tracked OR l.is_tracked)
      AND (p.is_tracked, p.has_images, p.schema, p."table", p.root, p.key_columns, p.columns, p.ignored, p.masked)
        IS DISTINCT FROM (l.is_tracked, l.has_images, l.schema, l."table", l.root, l.key_columns, l.columns, l.ignored, l.masked);
END
$$;

COMMENT ON FUNCTION @extschema@.new_versions(oid[]) IS
'what tables are like now, of those that are not as their last version says';

CREATE FUNCTION @extschema@.latest_versions(relations oid[]) RETURNS jsonb
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'bemi_latest_versions';

COMMENT ON FUNCTION @extschema@.latest_versions(oid[]) IS
'calls bemi.read_new_versions() under a snapshot that sees all that was committed';

CREATE FUNCTION @extschema@.read_new_versions(relations oid[]) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO, YMD' SET plan_cache_mode = force_generic_plan AS $$
BEGIN
  RETURN (SELECT COALESCE(jsonb_agg(to_jsonb(v)), '[]') FROM @extschema@.new_versions(relations) v);
END
$$;

COMMENT ON FUNCTION @extschema@.read_new_versions(oid[]) IS
'what tables are like now, of those that are not as their last version says';

-- With is_late, for what was changed while the event triggers were disabled.
CREATE FUNCTION @extschema@.note_versions(relations oid[], is_late boolean DEFAULT true) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  version @extschema@.table_versions;
BEGIN
  FOR version IN SELECT * FROM jsonb_populate_recordset(NULL::@extschema@.table_versions, @extschema@.latest_versions(relations)) LOOP
    version.is_late := note_versions.is_late;
    INSERT INTO @extschema@.table_versions SELECT version.*;
  END LOOP;
END
$$;

REVOKE EXECUTE ON FUNCTION @extschema@.note_versions(oid[], boolean) FROM PUBLIC;

COMMENT ON FUNCTION @extschema@.note_versions(oid[], boolean) IS
'notes what tables are like now, if they are tracked and nobody has noted it; their past is known from then on';

CREATE FUNCTION @extschema@.note_ddl() RETURNS event_trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
<<note_ddl>>
DECLARE
  relations oid[];
  noted oid[] := '{}';
  relation oid;
  heir oid;
  is_partition boolean;
  place int := 1;
BEGIN
  IF TG_EVENT = 'sql_drop' THEN
    relations := ARRAY(
      SELECT DISTINCT CASE WHEN classid = 'pg_class'::regclass THEN objid ELSE to_regclass(format('%I.%I', address_names[1], address_names[2]))::oid END
      FROM pg_event_trigger_dropped_objects() WHERE object_type IN ('table', 'table column', 'trigger') AND NOT is_temporary);
  ELSE
    relations := ARRAY(
      SELECT DISTINCT CASE classid WHEN 'pg_class'::regclass THEN objid WHEN 'pg_trigger'::regclass THEN (SELECT tgrelid FROM pg_trigger WHERE oid = objid) END
      FROM pg_event_trigger_ddl_commands() WHERE classid IN ('pg_class'::regclass, 'pg_trigger'::regclass));
    -- Whatever is in a schema, or of a type, takes a look at all tables.
    IF TG_TAG = 'ALTER SCHEMA' THEN
      relations := ARRAY(SELECT c.oid FROM pg_event_trigger_ddl_commands() d JOIN pg_class c ON c.relnamespace = d.objid WHERE d.classid = 'pg_namespace'::regclass);
    ELSIF TG_TAG = 'ALTER TYPE' THEN
      relations := relations || ARRAY(SELECT c.oid FROM pg_event_trigger_ddl_commands() d JOIN pg_type t ON t.typrelid = d.objid JOIN pg_class c ON c.reloftype = t.oid);
    END IF;
    -- With partitions and heirs, and former partitions; those aside that are not tracked, and never were. One by one: a join
    -- might look at all tables.
    WHILE place <= cardinality(relations) LOOP
      relation := relations[place];
      SELECT relispartition INTO is_partition FROM pg_class WHERE oid = relation AND relkind IN ('r', 'p') AND relpersistence <> 't';
      IF FOUND THEN
        IF is_partition OR EXISTS (SELECT FROM @extschema@.context_triggers t WHERE t.relation = note_ddl.relation)
          OR EXISTS (SELECT FROM @extschema@.table_versions v WHERE v.relation = note_ddl.relation)
        THEN
          noted := noted || relation;
        END IF;
        FOR heir IN SELECT inhrelid FROM pg_inherits WHERE inhparent = relation UNION ALL SELECT v.relation FROM @extschema@.table_versions v WHERE v.root = note_ddl.relation LOOP
          IF heir <> ALL (relations) THEN
            relations := relations || heir;
          END IF;
        END LOOP;
      END IF;
      place := place + 1;
    END LOOP;
    relations := noted;
  END IF;
  IF TG_TAG = 'ALTER SCHEMA' THEN
    -- Which locks no table: those who write under the old name have to end first.
    FOREACH relation IN ARRAY relations LOOP
      EXECUTE format('LOCK TABLE ONLY %s IN SHARE ROW EXCLUSIVE MODE', relation::regclass);
    END LOOP;
  END IF;
  IF relations <> '{}' THEN
    PERFORM @extschema@.note_versions(relations, is_late => false);
  END IF;
EXCEPTION WHEN OTHERS THEN
  RAISE WARNING 'bemi could not note what this statement changed: %', SQLERRM USING HINT = 'The past of the tables that it changed cannot be read.';
END
$$;

COMMENT ON FUNCTION @extschema@.note_ddl() IS
'for the event triggers: notes the versions of tables that a statement made, changed or dropped';

-- After bemi_on_ddl, which comes first by its name.
CREATE EVENT TRIGGER bemi_versions ON ddl_command_end
WHEN TAG IN ('CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'CREATE SCHEMA', 'CREATE TRIGGER', 'ALTER TRIGGER', 'ALTER TABLE', 'ALTER TYPE', 'ALTER SCHEMA',
  'ALTER VIEW', 'ALTER MATERIALIZED VIEW', 'ALTER FOREIGN TABLE', 'ALTER INDEX')
EXECUTE FUNCTION @extschema@.note_ddl();
ALTER EVENT TRIGGER bemi_versions ENABLE ALWAYS;

COMMENT ON EVENT TRIGGER bemi_versions IS
'notes what tracked tables are like, for those who read the past';

CREATE EVENT TRIGGER bemi_versions_dropped ON sql_drop EXECUTE FUNCTION @extschema@.note_ddl();
ALTER EVENT TRIGGER bemi_versions_dropped ENABLE ALWAYS;

COMMENT ON EVENT TRIGGER bemi_versions_dropped IS
'notes which tracked tables, columns and triggers were dropped';

-- A position as bemi.changes has it.
CREATE FUNCTION @extschema@.position_number("position" pg_lsn) RETURNS bigint
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT (position_number."position" - '0/0'::pg_lsn)::bigint
$$;

COMMENT ON FUNCTION @extschema@.position_number(pg_lsn) IS
'a position of the log as a number, as bemi.changes has it';

-- The names under which tables are in bemi.changes, each with the positions from which on and until when.
CREATE FUNCTION @extschema@.recorded_names(relations oid[]) RETURNS TABLE (relation oid, schema text, "table" text, since bigint, until bigint)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  WITH versions AS (
    SELECT v.relation, v.schema, v."table", v.position,
      (v.schema, v."table") IS DISTINCT FROM (lag(v.schema) OVER w, lag(v."table") OVER w) AS is_renamed
    FROM @extschema@.table_versions v WHERE v.relation = ANY (relations) AND v."table" IS NOT NULL WINDOW w AS (PARTITION BY v.relation ORDER BY v.position)
  )
  SELECT v.relation, v.schema, v."table", @extschema@.position_number(v.position),
    COALESCE(@extschema@.position_number(lead(v.position) OVER (PARTITION BY v.relation ORDER BY v.position)), 9223372036854775807)
  FROM versions v WHERE v.is_renamed
$$;

COMMENT ON FUNCTION @extschema@.recorded_names(oid[]) IS
'the names under which bemi.changes has the changes of tables, and from which position of the log on until when';

-- Which table of today had a name at a position of the log, and between which positions that holds; none if it is gone.
CREATE FUNCTION @extschema@.table_at(schema text, "table" text, "position" bigint, OUT relation regclass, OUT since bigint, OUT until bigint)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  SELECT n.relation, n.since, n.until INTO relation, since, until FROM (
    SELECT DISTINCT v.relation FROM @extschema@.table_versions v WHERE v.schema = table_at.schema AND v."table" = table_at."table"
  ) r, LATERAL @extschema@.recorded_names(ARRAY[r.relation]) n
  WHERE n.schema = table_at.schema AND n."table" = table_at."table" AND table_at."position" >= n.since AND table_at."position" < n.until
  ORDER BY n.since DESC LIMIT 1;
  IF relation IS NULL THEN
    -- It was recorded without being tracked.
    relation := to_regclass(format('%I.%I', table_at.schema, table_at."table"));
    since := table_at."position";
    until := table_at."position" + 1;
  ELSIF NOT EXISTS (SELECT FROM pg_class WHERE oid = relation) THEN
    relation := NULL;
  END IF;
END
$$;

COMMENT ON FUNCTION @extschema@.table_at(text, text, bigint) IS
'the table that had a name at a position of the log, if it is there still, and between which positions it had it';

CREATE FUNCTION @extschema@.table_names(relation regclass) RETURNS TABLE (schema text, "table" text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT n.schema, n."table" FROM @extschema@.recorded_names(ARRAY(SELECT t::oid FROM @extschema@.tree(relation) t)) n
  UNION SELECT n.nspname, c.relname FROM @extschema@.tree(relation) t JOIN pg_class c ON c.oid = t JOIN pg_namespace n ON n.oid = c.relnamespace
$$;

COMMENT ON FUNCTION @extschema@.table_names(regclass) IS
'all names under which bemi.changes may have changes of a table and its partitions';
-- Recorded images of rows, read as rows of today's table.

-- The names that a column had, from which position of the log on; null where it was not there.
CREATE FUNCTION @extschema@.column_names(relation oid, number smallint) RETURNS TABLE (since bigint, name text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT @extschema@.position_number(v.position), v.name FROM (
    SELECT v.position, v.columns ->> number::text AS name,
      v.columns ->> number::text IS DISTINCT FROM lag(v.columns ->> number::text) OVER (ORDER BY v.position) OR row_number() OVER (ORDER BY v.position) = 1 AS is_renamed
    FROM @extschema@.table_versions v WHERE v.relation = column_names.relation AND v.columns IS NOT NULL
  ) v WHERE v.is_renamed ORDER BY v.position
$$;

COMMENT ON FUNCTION @extschema@.column_names(oid, smallint) IS
'the names that a column of a table had, and from which position of the log on';

CREATE FUNCTION @extschema@.masked_columns(relation oid) RETURNS SETOF text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT DISTINCT m FROM @extschema@.table_versions v, unnest(v.masked) m WHERE v.relation = masked_columns.relation OR v.root = masked_columns.relation
$$;

COMMENT ON FUNCTION @extschema@.masked_columns(oid) IS
'the columns of a table, and of its partitions, that are masked or once were';

-- In SQL: an image of a row of a table with the keys that its columns have today, as jsonb_populate_record reads it, without
-- what is masked.
CREATE FUNCTION @extschema@.image_expression(relation oid, image text, "position" text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  masked text[] := ARRAY(SELECT @extschema@.masked_columns(relation));
  -- The type of hstore, whose images are objects.
  hstore oid := (SELECT t.oid FROM pg_extension e JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.classid = 'pg_type'::regclass
    JOIN pg_type t ON t.oid = d.objid WHERE e.extname = 'hstore' AND t.typname = 'hstore');
  number smallint;
  name text;
  type oid;
  names record;
  value text;
  members text[] := '{}';
BEGIN
  FOR number, name, type IN SELECT attnum, attname, atttypid FROM pg_attribute WHERE attrelid = relation AND attnum > 0 AND NOT attisdropped ORDER BY attnum LOOP
    SELECT array_agg(n.name ORDER BY n.since) AS names, array_agg(n.since ORDER BY n.since) AS since INTO names FROM @extschema@.column_names(relation, number) n;
    value := format('%s->%L', image, name);
    IF cardinality(names.names) > 1 THEN
      SELECT format('CASE %s ELSE %s END', string_agg(format('WHEN %s < %s THEN %s', "position", names.since[i + 1],
        CASE WHEN names.names[i] IS NULL THEN 'NULL' ELSE format('%s->%L', image, names.names[i]) END), ' ' ORDER BY i), value)
      INTO value FROM generate_series(1, cardinality(names.names) - 1) i;
    END IF;
    IF name = ANY (masked) OR names.names && masked THEN
      value := format('NULLIF(%s, %L::jsonb)', value, '"[masked]"');
    END IF;
    IF type = hstore THEN
      value := format('CASE jsonb_typeof(%1$s) WHEN ''object'' THEN to_jsonb(COALESCE((SELECT %2$s.hstore(array_agg(e.key), array_agg(e.value)) FROM jsonb_each_text(%1$s) e)::text, '''')) END',
        value, (SELECT typnamespace::regnamespace FROM pg_type WHERE oid = hstore));
    END IF;
    IF value <> format('%s->%L', image, name) THEN
      members := members || format('%L, %s', name, value);
    END IF;
  END LOOP;
  -- A function takes a hundred arguments at most.
  RETURN image || COALESCE((SELECT string_agg(' || jsonb_build_object(' || part || ')', '') FROM (
    SELECT string_agg(member, ', ') AS part FROM unnest(members) WITH ORDINALITY AS m (member, place) GROUP BY (place - 1) / 40
  ) p), '');
END
$$;

COMMENT ON FUNCTION @extschema@.image_expression(oid, text, text) IS
'in SQL: an image of a row with the keys that its columns have today';

-- Columns that had other names, or were not there, at a position of the log.
CREATE FUNCTION @extschema@.renamed_columns(relation oid, "position" bigint) RETURNS TABLE (name text, name_then text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT a.attname, (n.names[n.place]) FROM pg_attribute a, LATERAL (
    SELECT array_agg(c.name ORDER BY c.since) AS names, count(*) FILTER (WHERE c.since <= renamed_columns."position") AS place FROM @extschema@.column_names(relation, a.attnum) c
  ) n WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped AND cardinality(n.names) > 1
$$;

COMMENT ON FUNCTION @extschema@.renamed_columns(oid, bigint) IS
'the columns of a table that had more than one name, and which one at a position of the log';

-- What an image does not have stays away.
CREATE FUNCTION @extschema@.image_today(relation regclass, image jsonb, "position" bigint) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  names text[];
  names_then text[];
BEGIN
  SELECT COALESCE(array_agg(r.name), '{}'), COALESCE(array_agg(r.name_then), '{}') INTO names, names_then FROM @extschema@.renamed_columns(relation, image_today."position") r;
  RETURN (image - names - array_remove(names_then, NULL)) || COALESCE((
    SELECT jsonb_object_agg(n.name, image -> n.name_then) FROM unnest(names, names_then) AS n (name, name_then) WHERE image ? n.name_then), '{}');
END
$$;

COMMENT ON FUNCTION @extschema@.image_today(regclass, jsonb, bigint) IS
'an image of a row, recorded at a position of the log, with the keys that its columns have today';

-- What was left out of a change may be what somebody asks for.
CREATE FUNCTION @extschema@.whole(image jsonb, omitted jsonb, "table" text, primary_key text) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  missing text := (SELECT string_agg(quote_ident(o), ', ') FROM jsonb_object_keys(omitted) o
    WHERE o NOT IN ('context', 'after', 'primary_key', 'old_primary_key') AND image ->> o IS NULL);
BEGIN
  IF missing IS NOT NULL THEN
    RAISE EXCEPTION 'the row % of % cannot be known: % was left out when its change was recorded', primary_key, "table", missing USING
      ERRCODE = 'object_not_in_prerequisite_state', DETAIL = omitted::text, HINT = 'Leave the row out by a condition on its key; bemi.changes has the rest of it.';
  END IF;
  RETURN image;
END
$$;

COMMENT ON FUNCTION @extschema@.whole(jsonb, jsonb, text, text) IS
'an image of a row, or an error if something of it was left out';
-- What is known of the past of a table, and what is not.

-- Everything is recorded from then on.
CREATE FUNCTION @extschema@.recorded_since() RETURNS timestamptz
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF to_regclass('@extschema@.recorder') IS NULL OR to_regclass('@extschema@.changes') IS NULL THEN
    RETURN NULL;
  END IF;
  -- The retention drops the oldest partitions.
  RETURN greatest(
    (SELECT r.since FROM @extschema@.recorder r),
    (SELECT min(substring(pg_get_expr(c.relpartbound, c.oid) FROM 'FROM [(]''([^'']+)''[)]')::timestamptz)
     FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = '@extschema@.changes'::regclass));
END
$$;

COMMENT ON FUNCTION @extschema@.recorded_since() IS
'since when changes are in bemi.changes, or NULL if they never were';

CREATE FUNCTION @extschema@.recorded_position() RETURNS pg_lsn
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN CASE WHEN to_regclass('@extschema@.recorder') IS NOT NULL THEN (SELECT r.commit_position FROM @extschema@.recorder r) END;
END
$$;

COMMENT ON FUNCTION @extschema@.recorded_position() IS
'where the last change committed that this snapshot sees in bemi.changes';

CREATE FUNCTION @extschema@.require_select(relation regclass) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT has_table_privilege(relation, 'SELECT') THEN
    RAISE EXCEPTION 'permission denied for table %', relation USING ERRCODE = 'insufficient_privilege';
  ELSIF to_regclass('@extschema@.changes') IS NULL THEN
    RAISE EXCEPTION 'the changes of this database are not recorded' USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'SELECT bemi.start();';
  ELSIF NOT has_table_privilege('@extschema@.changes', 'SELECT') THEN
    RAISE EXCEPTION 'permission denied for table bemi.changes' USING
      ERRCODE = 'insufficient_privilege', HINT = format('As its owner: GRANT SELECT ON bemi.changes TO %I;', current_user);
  END IF;
END
$$;

COMMENT ON FUNCTION @extschema@.require_select(regclass) IS
'raises an error if the caller may not read a table and bemi.changes';

-- The table of a row type.
CREATE FUNCTION @extschema@.table_of_type(type regtype) RETURNS regclass
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  relation regclass := (SELECT c.oid FROM pg_type t JOIN pg_class c ON c.oid = t.typrelid AND c.relkind IN ('r', 'p') WHERE t.oid = type);
BEGIN
  IF relation IS NULL THEN
    RAISE EXCEPTION 'the type % is no row type of a table', type USING
      ERRCODE = 'wrong_object_type', HINT = 'Name the table by a row of it, as in bemi.as_of(NULL::public.todo, now()).';
  END IF;
  RETURN relation;
END
$$;

COMMENT ON FUNCTION @extschema@.table_of_type(regtype) IS
'the table whose rows have a type';

-- The tables that hold the rows of a table.
CREATE FUNCTION @extschema@.leaves(relation regclass) RETURNS oid[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE relkind WHEN 'p' THEN ARRAY(SELECT relid::oid FROM pg_partition_tree(relation) WHERE isleaf ORDER BY relid::oid) ELSE ARRAY[oid] END
  FROM pg_class WHERE oid = relation
$$;

COMMENT ON FUNCTION @extschema@.leaves(regclass) IS
'a table itself, or the partitions of a partitioned one that have no partitions';

-- The columns that name a row, in the order of `primary_key`, with how to read and compare them; an error if there are none.
CREATE FUNCTION @extschema@.key_of(relation regclass) RETURNS TABLE (place int, name name, number smallint, type text, operator text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  leaf oid;
  keys text[];
  index oid;
  count int;
BEGIN
  FOREACH leaf IN ARRAY @extschema@.leaves(relation) LOOP
    index := (SELECT i.indexrelid FROM pg_index i WHERE i.indrelid = leaf AND (i.indisprimary AND i.indisvalid OR i.indexrelid = @extschema@.identity_index(leaf)) ORDER BY i.indisprimary DESC LIMIT 1);
    IF index IS NULL THEN
      RAISE EXCEPTION 'the table % has no primary key: nothing tells which of its rows a change is about', leaf::regclass USING
        ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Give it a primary key; its past can be read from then on.';
    END IF;
    keys := keys || (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY k.place) FROM pg_index i, unnest((i.indkey::int2[])[0:i.indnkeyatts - 1]) WITH ORDINALITY AS k (number, place)
      JOIN pg_attribute a ON a.attnum = k.number WHERE i.indexrelid = index AND a.attrelid = leaf);
  END LOOP;
  IF EXISTS (SELECT FROM pg_index i, unnest(i.indkey::int2[]) k (number) JOIN pg_attribute a ON a.attnum = k.number JOIN pg_type t ON t.oid = a.atttypid
    WHERE i.indexrelid = index AND a.attrelid = leaf AND (t.typcategory IN ('A', 'C') OR t.typname IN ('json', 'jsonb')))
  THEN
    RAISE EXCEPTION 'the key of % has a column of an array, a composite type or jsonb', relation USING
      ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Its past cannot be read by such a key; bemi.changes has what is recorded.';
  END IF;
  IF (SELECT count(DISTINCT k) FROM unnest(keys) k) > 1 THEN
    RAISE EXCEPTION 'the partitions of % have different keys', relation USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Read the past of each partition by itself.';
  END IF;
  RETURN QUERY
    SELECT k.place::int, own.attname, own.attnum,
      format_type(own.atttypid, own.atttypmod) || CASE WHEN own.attcollation <> 0 THEN
        (SELECT format(') COLLATE %I.%I', n.nspname, co.collname) FROM pg_collation co JOIN pg_namespace n ON n.oid = co.collnamespace WHERE co.oid = own.attcollation) ELSE ')' END,
      (SELECT format('OPERATOR(%I.%s)', n.nspname, o.oprname) FROM pg_opclass c JOIN pg_amop m ON m.amopfamily = c.opcfamily AND m.amopstrategy = 3
        AND m.amoplefttype = c.opcintype AND m.amoprighttype = c.opcintype JOIN pg_operator o ON o.oid = m.amopopr JOIN pg_namespace n ON n.oid = o.oprnamespace
        WHERE c.oid = k.class)
    FROM pg_index i, unnest((i.indkey::int2[])[0:i.indnkeyatts - 1], i.indclass::oid[]) WITH ORDINALITY AS k (number, class, place)
    JOIN pg_attribute a ON a.attnum = k.number JOIN pg_attribute own ON own.attname = a.attname AND own.attrelid = relation
    WHERE i.indexrelid = index AND a.attrelid = leaf AND k.number IS NOT NULL ORDER BY k.place;
END
$$;

COMMENT ON FUNCTION @extschema@.key_of(regclass) IS
'the columns that name a row of a table, and in SQL how to read and compare them';

-- The names under which bemi.changes has the changes of a table and its partitions. What a partition was before it came into
-- the tree, empty, is not counted.
CREATE FUNCTION @extschema@.recorded_tree(base regclass) RETURNS TABLE (relation oid, schema text, "table" text, since bigint, until bigint)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  leaves oid[] := @extschema@.leaves(base);
  top oid := pg_partition_root(base);
BEGIN
  RETURN QUERY
    WITH came AS MATERIALIZED (
      SELECT v.relation, max(v.position) AS position FROM (
        SELECT *, lag(v.root) OVER (PARTITION BY v.relation ORDER BY v.position) AS root_before FROM @extschema@.table_versions v
        WHERE v.relation = ANY (leaves) AND v.relation <> base
      ) v WHERE v.is_empty AND v.root_before <> v.root AND v.root = top GROUP BY 1
    )
    SELECT n.relation, n.schema, n."table", greatest(n.since, @extschema@.position_number(c.position)), n.until
    FROM @extschema@.recorded_names(leaves) n LEFT JOIN came c ON c.relation = n.relation
    WHERE n.until > COALESCE(@extschema@.position_number(c.position), 0);
END
$$;

COMMENT ON FUNCTION @extschema@.recorded_tree(regclass) IS
'the names under which bemi.changes has the changes of a table and its partitions, and from which position of the log on until when';

-- What keeps the rows of a table at a time from being known, as a message; NULL if nothing does.
CREATE FUNCTION @extschema@.unknown_past(base regclass, moment timestamptz) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  leaves oid[] := @extschema@.leaves(base);
  top oid := COALESCE(pg_partition_root(base)::oid, base);
  tree oid[] := ARRAY(SELECT relid::oid FROM pg_partition_tree(top));
  result text;
BEGIN
  WITH members AS MATERIALIZED (
    SELECT m.oid, m.oid = base AS is_base, c.relkind FROM (SELECT unnest(leaves) UNION SELECT base) AS m (oid) JOIN pg_class c ON c.oid = m.oid
  ), versions AS MATERIALIZED (
    SELECT v.*, lead(v.noted_at, 1, 'infinity') OVER w AS until,
      -- A partition that was empty when it came into the tree has no rows of before.
      lag(v.root) OVER w IS DISTINCT FROM v.root AND v.root = top AND v.is_empty AND NOT m.is_base AS has_no_past
    FROM @extschema@.table_versions v JOIN members m ON m.oid = v.relation WINDOW w AS (PARTITION BY v.relation ORDER BY v.position)
  ), known AS MATERIALIZED (
    SELECT v.*, max(v.position) FILTER (WHERE v.has_no_past) OVER (PARTITION BY v.relation) AS came FROM versions v
  ), since AS MATERIALIZED (
    SELECT v.* FROM known v WHERE v.until > moment AND (v.came IS NULL OR v.position >= v.came OR v.root = top AND v.noted_at <= moment)
  )
  SELECT problem INTO result FROM (
    SELECT 1, format('%s is a foreign table', m.oid::regclass) FROM members m WHERE m.relkind = 'f'
    UNION ALL SELECT 2, format('%s is not tracked', m.oid::regclass) FROM members m WHERE NOT EXISTS (SELECT FROM known v WHERE v.relation = m.oid)
    UNION ALL SELECT 3, format('%s is tracked since %s', v.relation::regclass, min(v.noted_at)) FROM since v
      GROUP BY v.relation HAVING min(v.noted_at) > moment AND NOT bool_or(v.has_no_past)
    UNION ALL SELECT 4, format('%s was not tracked from %s on', v.relation::regclass, v.noted_at) FROM since v WHERE NOT v.is_tracked
    UNION ALL SELECT 5, format('%s had no REPLICA IDENTITY FULL from %s on, so the log has not the whole row before each change', v.relation::regclass, v.noted_at)
      FROM since v WHERE NOT v.has_images
    UNION ALL SELECT 6, format('%s was attached or detached at %s', v.relation::regclass, v.until) FROM since v WHERE v.root <> top OR v.position < v.came
    UNION ALL SELECT 7, format('the key of %s was another one until %s', v.relation::regclass, v.until) FROM since v JOIN since l ON l.relation = v.relation AND l.until = 'infinity'
      WHERE v.key_columns IS DISTINCT FROM l.key_columns AND v.relation = ANY (leaves)
    UNION ALL SELECT 7, format('the key of %s is deferrable, so that for a moment two rows may have had the same', i.indrelid::regclass)
      FROM pg_index i WHERE i.indrelid = ANY (leaves) AND i.indisprimary AND NOT i.indimmediate
    UNION ALL SELECT 8, format('%s, which was a partition until %s, is gone', COALESCE(v."table", v.relation::text), min(g.noted_at)) FROM @extschema@.table_versions v
      JOIN @extschema@.table_versions g ON g.relation = v.relation AND g.noted_at > moment AND g.root IS DISTINCT FROM v.root
      WHERE v.root = top AND v.noted_at <= moment AND v.relation <> ALL (tree)
      GROUP BY v.relation, v."table"
    UNION ALL SELECT 9, format('%s was changed before %s while an event trigger of bemi was disabled', v.relation::regclass, v.noted_at)
      FROM since v WHERE v.is_late AND v.noted_at > moment
  ) AS problems (place, problem) ORDER BY place LIMIT 1;
  IF result IS NULL THEN
    SELECT format('%s is not as it was noted when it was changed last: an event trigger of bemi is disabled', v.relation::regclass) INTO result
    FROM @extschema@.new_versions(leaves || base::oid) v LIMIT 1;
  END IF;
  RETURN result;
END
$$;

COMMENT ON FUNCTION @extschema@.unknown_past(regclass, timestamptz) IS
'what keeps the rows that a table had at a time from being known, or NULL';

-- Raises an error if what a table was like at a time cannot be known, and tells what else there is to tell.
CREATE FUNCTION @extschema@.require_past(base regclass, moment timestamptz, command int) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  since timestamptz := @extschema@.recorded_since();
  problem text;
  change record;
  columns text;
BEGIN
  IF command > 0 AND pg_current_xact_id_if_assigned() IS NOT NULL AND EXISTS (
    SELECT FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'relation' AND relation = ANY (@extschema@.leaves(base)) AND (
      mode IN ('ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
      -- The running statement may be the first that writes the table.
      OR mode = 'RowExclusiveLock' AND (current_setting('track_counts') = 'off'
        OR pg_stat_get_xact_tuples_inserted(relation) + pg_stat_get_xact_tuples_updated(relation) + pg_stat_get_xact_tuples_deleted(relation) > 0)))
  THEN
    RAISE EXCEPTION 'this transaction has changed % itself', base USING
      ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Its changes are recorded when it has committed: ask then.';
  END IF;
  SELECT format('changes before %s are missing: %s', c.committed_at, c.context) INTO problem FROM @extschema@.changes c
  WHERE c.schema = '' AND c."table" = '' AND c.operation = 'GAP' AND c.committed_at > moment ORDER BY c.committed_at DESC LIMIT 1;
  problem := COALESCE(CASE WHEN moment < since THEN format('changes are recorded since %s', since) END, problem, @extschema@.unknown_past(base, moment));
  IF problem IS NOT NULL THEN
    RAISE EXCEPTION 'what % was like at % is not known: %', base, moment, problem USING
      ERRCODE = 'object_not_in_prerequisite_state', HINT = 'bemi.changes has what is recorded; SELECT * FROM bemi.tracked; shows what is recorded from now on.';
  END IF;
  FOR change IN
    SELECT n.schema, n."table", c.operation, c.first FROM @extschema@.recorded_tree(base) n, LATERAL (
      SELECT c.operation, min(c.committed_at) AS first FROM @extschema@.changes c
      WHERE c.schema = n.schema AND c."table" = n."table" AND c.primary_key IS NULL AND c.committed_at > moment AND c.position >= n.since AND c.position < n.until GROUP BY 1
    ) c ORDER BY c.operation = 'TRUNCATE', c.first
  LOOP
    IF change.operation <> 'TRUNCATE' THEN
      RAISE EXCEPTION 'what % was like at % is not known: the key of a row that was changed at % is not recorded', base, moment, change.first USING
        ERRCODE = 'object_not_in_prerequisite_state', HINT = 'See the rows of bemi.changes whose primary_key is null.';
    END IF;
    RAISE WARNING '% was truncated at %: of the rows that it had before, only those that were changed before are recorded', format('%I.%I', change.schema, change."table"), change.first;
  END LOOP;
  columns := (SELECT string_agg(quote_ident(attname), ', ') FROM pg_attribute
    WHERE attrelid = base AND attnum > 0 AND NOT attisdropped AND attname IN (SELECT @extschema@.masked_columns(base)));
  IF columns IS NOT NULL THEN
    RAISE NOTICE 'masked columns of % are null in rows that were changed since: %', base, columns;
  END IF;
  columns := (SELECT string_agg(DISTINCT quote_ident(i), ', ') FROM @extschema@.table_versions v, unnest(v.ignored) i
    WHERE v.relation = ANY (@extschema@.leaves(base)));
  IF columns IS NOT NULL THEN
    RAISE NOTICE 'ignored columns of % may be newer than %, since their changes alone are not recorded: %', base, moment, columns;
  END IF;
END
$$;

COMMENT ON FUNCTION @extschema@.require_past(regclass, timestamptz, int) IS
'raises an error if what a table was like at a time cannot be known';
-- A table as it was: its rows of today, but for those that changed since, of which the first later change has the row before.
--
-- The rows of today and the changes are read under one snapshot. What it sees of the table already but not yet of
-- bemi.changes, as that was recorded a moment later, comes from late_changes().

CREATE FUNCTION @extschema@.current_command() RETURNS integer
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'bemi_current_command';

COMMENT ON FUNCTION @extschema@.current_command() IS
'how many commands of its own transaction that changed something the running statement sees';

CREATE FUNCTION @extschema@.latest_changes(base oid, moment timestamptz, snapshot pg_snapshot, command int, recorded pg_lsn) RETURNS jsonb
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'bemi_latest_changes';

COMMENT ON FUNCTION @extschema@.latest_changes(oid, timestamptz, pg_snapshot, int, pg_lsn) IS
'calls bemi.read_latest_changes() under a snapshot that sees all that was committed';

CREATE FUNCTION @extschema@.read_latest_changes(base oid, moment timestamptz, snapshot pg_snapshot, command int, recorded pg_lsn) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  -- Transactions have 64 bits here, and 32 in the log.
  next numeric := pg_snapshot_xmax(snapshot)::text::numeric;
  epoch numeric := next - next % 4294967296;
BEGIN
  PERFORM @extschema@.require_past(base, moment, command);
  RETURN (
    SELECT COALESCE(jsonb_agg(to_jsonb(c) || jsonb_build_object('leaf', n.relation)), '[]') FROM @extschema@.recorded_tree(base) n
    -- They are few, whatever the planner thinks.
    JOIN (SELECT * FROM @extschema@.changes c WHERE c.commit_position > recorded OFFSET 0) c
      ON c.schema = n.schema AND c."table" = n."table" AND c.position >= n.since AND c.position < n.until
    WHERE pg_visible_in_snapshot(
      (CASE WHEN epoch + c.transaction_id >= next AND epoch > 0 THEN epoch - 4294967296 ELSE epoch END + c.transaction_id)::text::xid8, snapshot));
END
$$;

COMMENT ON FUNCTION @extschema@.read_latest_changes(oid, timestamptz, pg_snapshot, int, pg_lsn) IS
'the changes of a table that a snapshot sees in the table, but that were recorded after it was taken; or an error if its past is not known';

CREATE FUNCTION @extschema@.late_changes(base oid, moment timestamptz, snapshot pg_snapshot, command int, recorded pg_lsn) RETURNS TABLE (
  leaf oid, operation text, primary_key text, old_primary_key text, before jsonb, after jsonb, omitted jsonb, committed_at timestamptz,
  "position" bigint, commit_position pg_lsn, sequence int
)
LANGUAGE plpgsql VOLATILE ROWS 10 SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF moment IS NULL THEN
    RAISE EXCEPTION 'bemi.as_of() needs a time' USING ERRCODE = 'null_value_not_allowed';
  END IF;
  PERFORM @extschema@.sync();
  RETURN QUERY SELECT c.* FROM jsonb_to_recordset(@extschema@.latest_changes(base, moment, snapshot, command, recorded)) AS c (
    leaf oid, operation text, primary_key text, old_primary_key text, before jsonb, after jsonb, omitted jsonb, committed_at timestamptz,
    "position" bigint, commit_position pg_lsn, sequence int);
END
$$;

COMMENT ON FUNCTION @extschema@.late_changes(oid, timestamptz, pg_snapshot, int, pg_lsn) IS
'the changes of a table that a snapshot sees in the table, but not yet in bemi.changes';

-- The query that bemi.as_of() stands for: SQL whose result has the columns of the row type, dropped ones as nulls. `moment`
-- is an expression in SQL, and so is `wanted`: an array of the keys that matter, or empty if they are not known. The planner counts dropped
-- columns, PL/pgSQL does not.
CREATE FUNCTION @extschema@.as_of_query(base oid, moment text, with_dropped boolean, wanted text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO, YMD' AS $$
DECLARE
  name text := (SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = base);
  is_plain boolean := (SELECT relkind = 'r' FROM pg_class WHERE oid = base);
  columns_now text;
  columns_then text;
  key_casts text;
  key_equals text;
  leaves oid[];
  source text;
  any_time text;
  wanted_new text := '';
  wanted_old text := '';
  events text;
  earlier text;
BEGIN
  PERFORM @extschema@.require_select(base);
  leaves := @extschema@.leaves(base);
  SELECT
    string_agg(CASE WHEN a.attisdropped THEN 'NULL::int4'
      -- What was added later was not there.
      WHEN cardinality(n.names) > 1 AND n.names[1] IS NULL THEN format('CASE WHEN %s >= %L::timestamptz THEN t.%I END', moment, added.noted_at, a.attname)
      ELSE format('t.%I', a.attname) END, ', ' ORDER BY a.attnum),
    string_agg(CASE WHEN a.attisdropped THEN 'NULL::int4' WHEN a.attgenerated = 'v' THEN format('(%s)', pg_get_expr(d.adbin, d.adrelid))
      WHEN cardinality(n.names) > 1 AND n.names[1] IS NULL THEN format('CASE WHEN %s >= %L::timestamptz THEN r.%I END', moment, added.noted_at, a.attname)
      ELSE format('r.%I', a.attname) END, ', ' ORDER BY a.attnum)
  INTO columns_now, columns_then
  FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum,
    LATERAL (SELECT array_agg(c.name ORDER BY c.since) AS names, min(c.since) FILTER (WHERE c.name IS NOT NULL) AS added FROM @extschema@.column_names(base, a.attnum) c) AS n
    LEFT JOIN LATERAL (SELECT v.noted_at FROM @extschema@.table_versions v WHERE v.relation = base AND @extschema@.position_number(v.position) = n.added) AS added ON true
  WHERE a.attrelid = base AND a.attnum > 0 AND (with_dropped OR NOT a.attisdropped);
  IF leaves = '{}' THEN
    RAISE EXCEPTION 'the past of % is not known: it has no partitions', base::regclass USING ERRCODE = 'object_not_in_prerequisite_state';
  END IF;
  SELECT string_agg(format(', CAST(%s AS %s AS key_%s', CASE WHEN count = 1 THEN 'f.key' ELSE format('(f.key::jsonb->>%s)', k.place - 1) END, k.type, k.place), '' ORDER BY k.place),
    string_agg(format('l.key_%s %s t.%I', k.place, k.operator, k.name), ' AND ' ORDER BY k.place)
  INTO key_casts, key_equals FROM (SELECT *, count(*) OVER () FROM @extschema@.key_of(base)) k;
  -- The changes of the table, by its only name or by all that it and its partitions had.
  SELECT CASE WHEN count(*) = 1 THEN
      format('(SELECT %s::oid AS leaf, c.* FROM @extschema@.changes c WHERE c.schema = %L AND c."table" = %L AND c.position >= %s)', min(n.relation), min(n.schema), min(n."table"), min(n.since))
    ELSE format('(SELECT n.leaf, c.* FROM (VALUES %s) AS n (leaf, schema, "table", since, until) JOIN @extschema@.changes c '
        'ON c.schema = n.schema AND c."table" = n."table" AND c.position >= n.since AND c.position < n.until)',
      string_agg(format('(%s::oid, %L, %L, %s::bigint, %s::bigint)', n.relation, n.schema, n."table", n.since, n.until), ', ')) END
  INTO source FROM @extschema@.recorded_tree(base) n HAVING count(*) > 0;
  IF source IS NULL THEN
    RAISE EXCEPTION 'the past of % is not known: it is not tracked', base::regclass USING
      ERRCODE = 'object_not_in_prerequisite_state', HINT = format('SELECT bemi.track(%L); -- its past can be read from then on', base::regclass);
  END IF;
  IF wanted <> '' THEN
    wanted_new := format(' AND c.primary_key = ANY (%s)', wanted);
    wanted_old := format(' AND c.old_primary_key = ANY (%s)', wanted);
  END IF;
  -- What each change says of a key: the row before, or that there was none.
  SELECT string_agg(format(
    'SELECT c.leaf, c.primary_key AS key, CASE WHEN c.operation = ''CREATE'' OR c.old_primary_key IS NOT NULL THEN NULL ELSE c.before END AS image, c.omitted, c.position, c.commit_position, c.sequence '
    'FROM %1$s c WHERE c.committed_at > %2$s AND c.primary_key IS NOT NULL%3$s '
    'UNION ALL SELECT c.leaf, c.old_primary_key, c.before, c.omitted, c.position, c.commit_position, c.sequence '
    'FROM %1$s c WHERE c.committed_at > %2$s AND c.old_primary_key IS NOT NULL%4$s', s, moment, wanted_new, wanted_old), ' UNION ALL ')
  INTO events FROM unnest(ARRAY[source, 'late']) s;
  -- The same of earlier changes: the row after, or that there is none.
  SELECT string_agg(format(
    'SELECT c.leaf, c.primary_key AS key, CASE WHEN c.operation <> ''DELETE'' THEN c.after END AS image, c.omitted, c.position, c.commit_position, c.sequence '
    'FROM %1$s c WHERE c.committed_at <= %2$s AND c.primary_key IS NOT NULL%3$s AND EXISTS (SELECT FROM emptied) '
    'UNION ALL SELECT c.leaf, c.old_primary_key, NULL, c.omitted, c.position, c.commit_position, c.sequence '
    'FROM %1$s c WHERE c.committed_at <= %2$s AND c.old_primary_key IS NOT NULL%4$s AND EXISTS (SELECT FROM emptied)', s, moment, wanted_new, wanted_old), ' UNION ALL ')
  INTO earlier FROM unnest(ARRAY[source, 'late']) s;
  RETURN format(
    'WITH late AS MATERIALIZED (SELECT * FROM @extschema@.late_changes(%1$s, %2$s, pg_current_snapshot(), @extschema@.current_command(), @extschema@.recorded_position())), '
    -- The first later change of each key.
    'later AS MATERIALIZED (SELECT f.*%3$s FROM (SELECT DISTINCT ON (%13$s) e.* FROM (%4$s) e ORDER BY %13$s, e.commit_position, e.sequence) f), '
    -- Where a TRUNCATE has taken the rows that did not change before it.
    'truncates AS NOT MATERIALIZED (SELECT c.leaf, c.committed_at, c.commit_position, c.sequence FROM %5$s c WHERE c.primary_key IS NULL AND c.operation = ''TRUNCATE'' '
      'UNION ALL SELECT c.leaf, c.committed_at, c.commit_position, c.sequence FROM late c WHERE c.operation = ''TRUNCATE''), '
    'emptied AS MATERIALIZED (SELECT DISTINCT ON (c.leaf) c.* FROM truncates c WHERE c.committed_at > %2$s ORDER BY c.leaf, c.commit_position, c.sequence) '
    -- A subquery of its own, without WITH, so that the planner reads the columns that are asked for only.
    'SELECT * FROM (SELECT %6$s FROM %7$s t WHERE NOT EXISTS (SELECT FROM later l WHERE %8$s) '
    -- OFFSET 0 has the row made once, not once for each column.
    'UNION ALL SELECT %9$s FROM (SELECT (i.r).* FROM (SELECT jsonb_populate_record(NULL::%10$s, %11$s) AS r FROM later l WHERE l.image IS NOT NULL OFFSET 0) i) r '
    'UNION ALL SELECT %9$s FROM (SELECT r.* FROM ('
      'SELECT DISTINCT ON (%13$s) e.* FROM (%12$s) e ORDER BY %13$s, e.commit_position DESC, e.sequence DESC) l '
      'JOIN emptied ON emptied.leaf = l.leaf CROSS JOIN LATERAL jsonb_populate_record(NULL::%10$s, %11$s) r '
      'WHERE l.image IS NOT NULL AND NOT EXISTS (SELECT FROM truncates c WHERE c.leaf = l.leaf AND c.committed_at <= %2$s '
        'AND (c.commit_position, c.sequence) > (l.commit_position, l.sequence)) '
      'AND NOT EXISTS (SELECT FROM later c WHERE c.leaf = l.leaf AND c.key = l.key AND (c.commit_position, c.sequence) < (emptied.commit_position, emptied.sequence))) r) r',
    base, moment, key_casts, events, source, columns_now, CASE WHEN is_plain THEN 'ONLY ' ELSE '' END || name,
    CASE WHEN cardinality(leaves) > 1 THEN 'l.leaf = t.tableoid AND ' ELSE '' END || key_equals,
    columns_then, name,
    @extschema@.image_expression(base, format('CASE WHEN l.omitted IS NULL THEN l.image ELSE @extschema@.whole(l.image, l.omitted, %L, l.key) END', name), 'l.position'),
    earlier, 'e.key COLLATE "C", e.leaf');
END
$$;

COMMENT ON FUNCTION @extschema@.as_of_query(oid, text, boolean, text) IS
'in SQL: the rows of a table as they were at a time, of all keys or those that are wanted';

CREATE FUNCTION @extschema@.latest_query(base oid) RETURNS text
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'bemi_latest_query';

COMMENT ON FUNCTION @extschema@.latest_query(oid) IS
'calls bemi.as_of_query() under a snapshot that sees all that was committed';

-- Before the planner asks for the query. False if the function has to be called itself.
CREATE FUNCTION @extschema@.as_of_ready(base oid) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_class WHERE oid = base AND relkind IN ('r', 'p')) OR NOT has_function_privilege('@extschema@.as_of(anyelement, timestamptz)', 'EXECUTE') THEN
    RETURN false;
  END IF;
  PERFORM @extschema@.require_select(base), @extschema@.sync();
  RETURN true;
END
$$;

COMMENT ON FUNCTION @extschema@.as_of_ready(oid) IS
'waits for the recorder; whether bemi.as_of() can be planned as a query';

-- For the planner, which knows what columns have to be: their numbers, `one` expression in SQL or `any` of an array.
CREATE FUNCTION @extschema@.as_of_plan(base oid, moment text, numbers text[], kinds text[], expressions text[]) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  wanted text;
BEGIN
  -- The keys as bemi.changes has them.
  SELECT CASE
    WHEN count(*) = 1 THEN COALESCE(min('ARRAY[(' || n.one || ')::text]'), min('(' || n.any || ')::text[]'))
    WHEN count(*) = count(n.one) THEN
      format('ARRAY[%L || %s || %L]', '[', string_agg(format('to_json((%s)::text)::text', n.one), ' || '','' || ' ORDER BY k.place), ']') END
  INTO wanted FROM @extschema@.key_of(base) k, LATERAL (
    SELECT min(e.expression) FILTER (WHERE e.kind = 'one') AS one, min(e.expression) FILTER (WHERE e.kind = 'any') AS any
    FROM unnest(numbers, kinds, expressions) AS e (number, kind, expression) WHERE e.number = k.number::text) n;
  RETURN @extschema@.as_of_query(base, moment, true, COALESCE(wanted, ''));
END
$$;

COMMENT ON FUNCTION @extschema@.as_of_plan(oid, text, text[], text[], text[]) IS
'in SQL: the query that bemi.as_of() stands for';

CREATE FUNCTION @extschema@.as_of_support(internal) RETURNS internal
LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'bemi_as_of_support';

COMMENT ON FUNCTION @extschema@.as_of_support(internal) IS
'for the planner: has bemi.as_of() in FROM be planned as the query that it stands for';

CREATE FUNCTION @extschema@.as_of(base anyelement, at timestamptz) RETURNS SETOF anyelement
LANGUAGE plpgsql VOLATILE SUPPORT @extschema@.as_of_support SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF at IS NULL THEN
    RAISE EXCEPTION 'bemi.as_of() needs a time' USING ERRCODE = 'null_value_not_allowed';
  END IF;
  PERFORM @extschema@.require_select(@extschema@.table_of_type(pg_typeof(base))), @extschema@.sync();
  RETURN QUERY EXECUTE @extschema@.latest_query(@extschema@.table_of_type(pg_typeof(base))) USING at;
END
$$;

COMMENT ON FUNCTION @extschema@.as_of(anyelement, timestamptz) IS
'the rows that a table had at a time, as in: SELECT * FROM bemi.as_of(NULL::public.todo, ''2026-11-20 11:00+00'')';
-- What happened to one row, and what a change changed.

CREATE FUNCTION @extschema@.diff(before jsonb, after jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT COALESCE(jsonb_object_agg(key, jsonb_build_array(b.value, a.value)), '{}')
  FROM jsonb_each(diff.before) b FULL JOIN jsonb_each(diff.after) a USING (key)
  WHERE COALESCE(b.value, 'null') <> COALESCE(a.value, 'null')
$$;

COMMENT ON FUNCTION @extschema@.diff(jsonb, jsonb) IS
'what differs between two images of a row: {"column": [before, after]}';

CREATE TYPE @extschema@.key_change AS (
  relation oid, operation text, primary_key text, old_primary_key text, before jsonb, after jsonb, context jsonb, committed_at timestamptz,
  "position" bigint, commit_position pg_lsn, sequence int
);

COMMENT ON TYPE @extschema@.key_change IS
'a change of a row, as bemi.changes has it';

-- The changes that left a row with a key, or took it away.
CREATE FUNCTION @extschema@.changes_of_key(relation regclass, key text) RETURNS SETOF @extschema@.key_change
LANGUAGE plpgsql STABLE ROWS 10 SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN QUERY
    WITH names AS MATERIALIZED (SELECT * FROM @extschema@.recorded_names(@extschema@.leaves(relation)))
    SELECT n.relation, c.operation, c.primary_key, c.old_primary_key, c.before, c.after, c.context, c.committed_at, c.position, c.commit_position, c.sequence
    FROM names n JOIN @extschema@.changes c ON c.schema = n.schema AND c."table" = n."table" AND c.primary_key = key AND c.position >= n.since AND c.position < n.until
    UNION ALL
    SELECT n.relation, c.operation, c.primary_key, c.old_primary_key, c.before, c.after, c.context, c.committed_at, c.position, c.commit_position, c.sequence
    FROM names n JOIN @extschema@.changes c ON c.schema = n.schema AND c."table" = n."table" AND c.old_primary_key = key AND c.position >= n.since AND c.position < n.until
    ORDER BY commit_position, sequence;
END
$$;

COMMENT ON FUNCTION @extschema@.changes_of_key(regclass, text) IS
'the recorded changes of a key of a table, from the oldest on';

CREATE FUNCTION @extschema@.truncates(relation oid) RETURNS SETOF @extschema@.key_change
LANGUAGE plpgsql STABLE ROWS 10 SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN QUERY
    SELECT n.relation, c.operation, c.primary_key, c.old_primary_key, c.before, c.after, c.context, c.committed_at, c.position, c.commit_position, c.sequence
    FROM @extschema@.recorded_names(ARRAY[truncates.relation]) n, LATERAL (
      SELECT * FROM @extschema@.changes c WHERE c.schema = n.schema AND c."table" = n."table" AND c.primary_key IS NULL AND c.operation = 'TRUNCATE'
        AND c.position >= n.since AND c.position < n.until OFFSET 0
    ) c;
END
$$;

COMMENT ON FUNCTION @extschema@.truncates(oid) IS
'the recorded TRUNCATEs of a table';

-- What a row was before a change gave it another key, under the keys that it had; as far as it had another one than `asked`.
CREATE FUNCTION @extschema@.life_before(relation regclass, next @extschema@.key_change, asked text) RETURNS SETOF @extschema@.key_change
LANGUAGE plpgsql STABLE ROWS 10 SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  change @extschema@.key_change;
  moved @extschema@.key_change := next;
BEGIN
  WHILE moved.old_primary_key <> asked LOOP
    next := moved;
    moved := NULL;
    FOR change IN SELECT * FROM @extschema@.changes_of_key(relation, next.old_primary_key) c
      WHERE (c.commit_position, c.sequence) < (next.commit_position, next.sequence) ORDER BY c.commit_position DESC, c.sequence DESC
    LOOP
      -- An earlier row of the key ended there.
      EXIT WHEN change.operation = 'DELETE' OR change.old_primary_key = next.old_primary_key;
      RETURN NEXT change;
      IF change.old_primary_key IS NOT NULL THEN
        moved := change;
      END IF;
      EXIT WHEN change.operation = 'CREATE' OR change.old_primary_key IS NOT NULL;
    END LOOP;
  END LOOP;
END
$$;

COMMENT ON FUNCTION @extschema@.life_before(regclass, @extschema@.key_change, text) IS
'the changes of a row before the one that changed its key';

CREATE FUNCTION @extschema@.life_after(relation regclass, last @extschema@.key_change) RETURNS SETOF @extschema@.key_change
LANGUAGE plpgsql STABLE ROWS 10 SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  change @extschema@.key_change;
  moved @extschema@.key_change := last;
BEGIN
  WHILE moved.primary_key IS NOT NULL LOOP
    last := moved;
    moved := NULL;
    FOR change IN SELECT * FROM @extschema@.changes_of_key(relation, last.primary_key) c
      WHERE (c.commit_position, c.sequence) > (last.commit_position, last.sequence) ORDER BY c.commit_position, c.sequence
    LOOP
      EXIT WHEN change.operation = 'CREATE' OR change.primary_key = last.primary_key AND change.old_primary_key IS NOT NULL;
      RETURN NEXT change;
      IF change.old_primary_key = last.primary_key THEN
        moved := change;
      END IF;
      EXIT WHEN change.operation = 'DELETE' OR change.old_primary_key = last.primary_key;
    END LOOP;
  END LOOP;
END
$$;

COMMENT ON FUNCTION @extschema@.life_after(regclass, @extschema@.key_change) IS
'the changes of a row after the one that changed its key';

CREATE FUNCTION @extschema@.history(base anyelement, primary_key text) RETURNS TABLE (
  version int, operation text, committed_at timestamptz, valid_from timestamptz, valid_to timestamptz, context jsonb, changed jsonb, "row" anyelement
)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  relation regclass := @extschema@.table_of_type(pg_typeof(base));
  asked text := $2;
  gap record;
BEGIN
  PERFORM @extschema@.require_select(relation), @extschema@.sync();
  PERFORM FROM @extschema@.key_of(relation);
  IF NOT EXISTS (SELECT FROM @extschema@.table_versions v WHERE v.relation = ANY (@extschema@.leaves(relation))) THEN
    RAISE EXCEPTION 'the history of % is not known: it is not tracked', relation USING
      ERRCODE = 'object_not_in_prerequisite_state', HINT = format('SELECT bemi.track(%L); -- what happens from then on is recorded', relation);
  END IF;
  SELECT min(c.committed_at) AS first, max(c.committed_at) AS last INTO gap FROM @extschema@.changes c WHERE c.schema = '' AND c."table" = '' AND c.operation = 'GAP';
  IF gap.first IS NOT NULL THEN
    RAISE NOTICE 'changes are missing: see the rows of bemi.changes with the operation GAP, from % to %', gap.first, gap.last;
  END IF;
  RETURN QUERY EXECUTE format(
    'WITH own AS MATERIALIZED (SELECT c AS change FROM @extschema@.changes_of_key($1, $2) c), '
    'lives AS MATERIALIZED (SELECT DISTINCT ON ((c.change).commit_position, (c.change).sequence) (c.change).* FROM ('
      'SELECT o.change FROM own o '
      'UNION ALL SELECT l FROM own o, LATERAL @extschema@.life_before($1, o.change, $2) l WHERE (o.change).primary_key = $2 AND (o.change).old_primary_key IS NOT NULL '
      -- Nobody has the key now: the row that had it last goes on under another.
      'UNION ALL SELECT l FROM (SELECT * FROM own o ORDER BY (o.change).commit_position DESC, (o.change).sequence DESC LIMIT 1) o, '
        'LATERAL @extschema@.life_after($1, o.change) l WHERE (o.change).old_primary_key = $2 '
    ') c ORDER BY (c.change).commit_position, (c.change).sequence), '
    -- A TRUNCATE ends the life of a row that was there.
    'marked AS (SELECT l.*, lead(l.commit_position) OVER w AS next, lead(l.sequence) OVER w AS next_sequence FROM lives l WINDOW w AS (ORDER BY l.commit_position, l.sequence)), '
    'truncates AS MATERIALIZED (SELECT t.* FROM (SELECT DISTINCT l.relation FROM lives l) r, LATERAL @extschema@.truncates(r.relation) t), '
    'all_of_it AS (SELECT * FROM lives UNION ALL SELECT t.* FROM marked m, LATERAL (SELECT t.* FROM truncates t '
      'WHERE t.relation = m.relation AND (t.commit_position, t.sequence) > (m.commit_position, m.sequence) AND (m.next IS NULL OR (t.commit_position, t.sequence) < (m.next, m.next_sequence)) '
      'ORDER BY t.commit_position, t.sequence LIMIT 1) t WHERE m.operation <> ''DELETE'') '
    'SELECT row_number() OVER w::int, a.operation, a.committed_at, a.committed_at, lead(a.committed_at) OVER w, a.context, @extschema@.diff(a.before, a.after), '
      'CASE WHEN a.operation IN (''CREATE'', ''UPDATE'') THEN jsonb_populate_record(NULL::%s, %s) END '
    'FROM all_of_it a WINDOW w AS (ORDER BY a.commit_position, a.sequence) ORDER BY 1 DESC',
    relation, @extschema@.image_expression(relation, 'a.after', 'a.position')) USING relation, asked;
END
$$;

COMMENT ON FUNCTION @extschema@.history(anyelement, text) IS
'the versions of a row that are recorded, newest first, under all the keys that it had';
-- The rows that a TRUNCATE took, where all of them were recorded.

CREATE FUNCTION @extschema@.truncated_rows(relation regclass, commit_position pg_lsn, sequence int) RETURNS TABLE (primary_key text, image jsonb, "position" bigint)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  own_name text := (SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = relation);
  emptied @extschema@.key_change;
  -- When it was empty last, before that.
  was_empty record;
  problem text;
BEGIN
  SELECT t.* INTO emptied FROM @extschema@.truncates(relation) t WHERE (t.commit_position, t.sequence) = (truncated_rows.commit_position, truncated_rows.sequence);
  IF emptied.operation IS NULL THEN
    RAISE EXCEPTION 'no TRUNCATE of % is recorded as % of the transaction that committed at %', relation, sequence, commit_position USING ERRCODE = 'undefined_object';
  END IF;
  SELECT * INTO was_empty FROM (
    SELECT t.committed_at, t.position FROM @extschema@.truncates(relation) t WHERE t.position < emptied.position
    UNION ALL SELECT v.noted_at, @extschema@.position_number(v.position) FROM (
      SELECT *, lag(v.is_tracked) OVER (ORDER BY v.position) AS was_tracked FROM @extschema@.table_versions v WHERE v.relation = truncated_rows.relation
    ) v WHERE v.is_tracked AND v.was_tracked IS NOT TRUE AND v.is_empty AND v.noted_at >= @extschema@.recorded_since() AND @extschema@.position_number(v.position) < emptied.position
  ) e ORDER BY e.position DESC LIMIT 1;
  problem := CASE
    WHEN was_empty.position IS NULL THEN 'it had rows when its changes began to be recorded'
    WHEN EXISTS (SELECT FROM @extschema@.table_versions v WHERE v.relation = truncated_rows.relation AND NOT v.is_tracked
      AND @extschema@.position_number(v.position) BETWEEN was_empty.position AND emptied.position) THEN 'it was not tracked all the time before'
    WHEN EXISTS (SELECT FROM @extschema@.changes c WHERE c.schema = '' AND c."table" = '' AND c.operation = 'GAP'
      AND c.committed_at BETWEEN was_empty.committed_at AND emptied.committed_at) THEN 'changes before it are missing'
    WHEN EXISTS (SELECT FROM @extschema@.recorded_names(ARRAY[relation::oid]) n, LATERAL (
        SELECT FROM @extschema@.changes c WHERE c.schema = n.schema AND c."table" = n."table" AND c.primary_key IS NULL AND c.operation <> 'TRUNCATE'
          AND c.position >= greatest(n.since, was_empty.position) AND c.position < least(n.until, emptied.position) OFFSET 0) c) THEN 'the keys of some of its rows are not recorded' END;
  IF problem IS NOT NULL THEN
    RAISE EXCEPTION 'the rows that % had before its TRUNCATE at % are not all recorded: %', relation, emptied.committed_at, problem USING
      ERRCODE = 'object_not_in_prerequisite_state', HINT = 'SELECT * FROM bemi.as_of(...) shows those that are recorded.';
  END IF;
  RETURN QUERY
    SELECT e.key, CASE WHEN e.omitted IS NULL THEN e.image ELSE @extschema@.whole(e.image, e.omitted, own_name, e.key) END, e.position FROM (
      SELECT DISTINCT ON (e.key COLLATE "C") e.* FROM (
        SELECT c.*, k.key, CASE WHEN k.is_there AND c.operation <> 'DELETE' THEN c.after END AS image FROM @extschema@.recorded_names(ARRAY[relation::oid]) n
        JOIN @extschema@.changes c ON c.schema = n.schema AND c."table" = n."table" AND c.position >= greatest(n.since, was_empty.position) AND c.position < least(n.until, emptied.position),
          LATERAL (VALUES (c.primary_key, true), (c.old_primary_key, false)) AS k (key, is_there)
        WHERE k.key IS NOT NULL
      ) e ORDER BY e.key COLLATE "C", e.commit_position DESC, e.sequence DESC
    ) e WHERE e.image IS NOT NULL;
END
$$;

COMMENT ON FUNCTION @extschema@.truncated_rows(regclass, pg_lsn, int) IS
'the rows that a table had before a TRUNCATE, or an error if they are not all recorded';
-- How changes are undone: what is known of a table, literals and statements, and the plan for a selection of changes. Nothing
-- here looks at the rows that are there now.

-- How a change is undone.
CREATE TYPE @extschema@.undo AS (
  -- Their order: 1 is the newest.
  number bigint,
  relation regclass,
  operation text,
  primary_key text,
  before jsonb,
  after jsonb,
  -- The columns that an UPDATE is to set.
  changed text[],
  -- What names the row, among all rows of all tables and in a WHERE clause, after the change and before it.
  row_after text,
  row_before text,
  where_after text,
  where_before text,
  detail text,
  transaction_id bigint,
  commit_position pg_lsn,
  sequence int,
  -- It waits for a newer change of the same row.
  is_behind boolean,
  -- Why it waits.
  reason text
);

-- The operator by which values of a type are equal, if the type has one; IS NOT DISTINCT FROM would look for it in the
-- search_path. With a schema, unless nobody can put a better one before it.
CREATE FUNCTION @extschema@.equality(type oid) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  t pg_type;
  operator text;
BEGIN
  SELECT * INTO t FROM pg_type WHERE oid = type;
  IF t.typtype = 'd' THEN
    operator := @extschema@.equality(t.typbasetype);
    RETURN CASE operator WHEN '=' THEN 'OPERATOR(pg_catalog.=)' ELSE operator END;
  ELSIF t.typtype IN ('e', 'r', 'm') THEN
    RETURN 'OPERATOR(pg_catalog.=)';
  ELSIF t.typtype = 'c' THEN
    RETURN CASE WHEN NOT EXISTS (
      SELECT FROM pg_attribute WHERE attrelid = t.typrelid AND attnum > 0 AND NOT attisdropped AND @extschema@.equality(atttypid) IS NULL
    ) THEN 'OPERATOR(pg_catalog.=)' END;
  ELSIF t.typcategory = 'A' AND t.typelem <> 0 AND t.typlen = -1 THEN
    RETURN CASE WHEN @extschema@.equality(t.typelem) IS NOT NULL THEN 'OPERATOR(pg_catalog.=)' END;
  END IF;
  SELECT CASE WHEN n.nspname = 'pg_catalog' AND c.opcintype = type THEN o.oprname ELSE format('OPERATOR(%I.%s)', n.nspname, o.oprname) END INTO operator
  FROM pg_opclass c JOIN pg_am m ON m.oid = c.opcmethod
  JOIN pg_amop a ON a.amopfamily = c.opcfamily AND a.amoplefttype = c.opcintype AND a.amoprighttype = c.opcintype
    AND a.amopstrategy = CASE m.amname WHEN 'btree' THEN 3 ELSE 1 END
  JOIN pg_operator o ON o.oid = a.amopopr JOIN pg_namespace n ON n.oid = o.oprnamespace
  WHERE m.amname IN ('btree', 'hash') AND c.opcdefault AND (c.opcintype = type
    OR EXISTS (SELECT FROM pg_cast k WHERE k.castsource = type AND k.casttarget = c.opcintype AND k.castmethod = 'b' AND k.castcontext = 'i'))
  ORDER BY c.opcintype = type DESC, m.amname LIMIT 1;
  RETURN operator;
END
$$;

COMMENT ON FUNCTION @extschema@.equality(oid) IS
'the operator by which values of a type are equal, or NULL if it has none';

-- Whether a value can be written as its JSON has it (plain), or how it is to be made of that.
CREATE FUNCTION @extschema@.literal_kind(type oid) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE
    WHEN t.oid IN ('json'::regtype, 'jsonb'::regtype) THEN 'json'
    WHEN t.oid = 'money'::regtype THEN 'money'
    WHEN EXISTS (SELECT FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass
      WHERE d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e' AND e.extname = 'hstore' AND t.typname = 'hstore') THEN 'hstore'
    WHEN t.typtype = 'c' OR t.typcategory = 'A' THEN 'made'
    ELSE 'plain' END
  FROM pg_type t WHERE t.oid = type
$$;

COMMENT ON FUNCTION @extschema@.literal_kind(oid) IS
'how a literal of a type is made of the JSON of a value';

CREATE FUNCTION @extschema@.base_type(type oid) RETURNS oid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  WITH RECURSIVE bases AS (
    SELECT t.oid, t.typtype, t.typbasetype FROM pg_type t WHERE t.oid = type
    UNION ALL SELECT t.oid, t.typtype, t.typbasetype FROM bases b JOIN pg_type t ON t.oid = b.typbasetype WHERE b.typtype = 'd'
  )
  SELECT oid FROM bases WHERE typtype <> 'd'
$$;

COMMENT ON FUNCTION @extschema@.base_type(oid) IS
'the type that a domain is made of; of another type, itself';

-- The foreign keys that refer to a table and would change other rows without a word, or are checked later: the ones that
-- fail at once do so by themselves.
CREATE FUNCTION @extschema@.silent_references(relation regclass) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT COALESCE(jsonb_agg(jsonb_build_object(
    'name', quote_ident(k.conname), 'child', k.conrelid::regclass, 'on_delete', k.confdeltype, 'on_update', k.confupdtype,
    'is_deferred', k.condeferred, 'source', format('%I.%I', n.nspname, c.relname),
    'columns', (SELECT jsonb_agg(a.attname) FROM pg_attribute a WHERE a.attrelid = k.confrelid AND a.attnum = ANY (k.confkey)),
    'child_columns', (SELECT jsonb_agg(a.attname) FROM pg_attribute a WHERE a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey)),
    'join', (SELECT string_agg(format('parent.%I OPERATOR(%I.%s) child.%I', p.attname, s.nspname, o.oprname, f.attname), ' AND ')
      FROM unnest(k.confkey, k.conkey, k.conpfeqop) u (parent, child, operator)
      JOIN pg_attribute p ON p.attrelid = k.confrelid AND p.attnum = u.parent JOIN pg_attribute f ON f.attrelid = k.conrelid AND f.attnum = u.child
      JOIN pg_operator o ON o.oid = u.operator JOIN pg_namespace s ON s.oid = o.oprnamespace)
  ) ORDER BY k.conname, k.oid), '[]')
  FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE k.contype = 'f' AND k.confrelid = relation AND (k.confdeltype IN ('c', 'n', 'd') OR k.confupdtype IN ('c', 'n', 'd') OR k.condeferred)
    -- Not again for each partition that refers.
    AND NOT EXISTS (SELECT FROM pg_constraint p WHERE p.oid = k.conparentid AND p.confrelid = k.confrelid)
$$;

COMMENT ON FUNCTION @extschema@.silent_references(regclass) IS
'the foreign keys that refer to a table and would have other rows changed, or are checked later';

-- The columns that refer to rows (of a partitioned table as a whole) and the columns that they refer to, or the other way round.
CREATE FUNCTION @extschema@.links(relation regclass, is_child boolean) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT COALESCE(jsonb_agg(DISTINCT jsonb_build_object('name', concat(COALESCE(pg_partition_root(k.confrelid), k.confrelid)::oid, names), 'columns', columns)), '[]')
  FROM pg_constraint k, LATERAL (
    SELECT jsonb_agg(p.attname ORDER BY p.attname) AS names, jsonb_agg(CASE WHEN is_child THEN c.attname ELSE p.attname END ORDER BY p.attname) AS columns
    FROM unnest(k.conkey, k.confkey) u (child, parent) JOIN pg_attribute c ON c.attrelid = k.conrelid AND c.attnum = u.child
    JOIN pg_attribute p ON p.attrelid = k.confrelid AND p.attnum = u.parent
  ) pairs WHERE k.contype = 'f' AND CASE WHEN is_child THEN k.conrelid ELSE k.confrelid END = relation
$$;

COMMENT ON FUNCTION @extschema@.links(regclass, boolean) IS
'the columns by which the rows of a table refer to others, or by which others refer to them';

-- What the foreign keys of a row refer to, or what others refer to it by.
CREATE FUNCTION @extschema@.linked(links jsonb, image jsonb) RETURNS text[]
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT ARRAY(SELECT concat(l ->> 'name', (SELECT jsonb_agg(image ->> c ORDER BY place) FROM jsonb_array_elements_text(l -> 'columns') WITH ORDINALITY e (c, place)))
    FROM jsonb_array_elements(links) l)
$$;

COMMENT ON FUNCTION @extschema@.linked(jsonb, jsonb) IS
'names of the rows that a row refers to by these links';

-- All that is asked of a table again and again.
CREATE FUNCTION @extschema@.undo_table(relation regclass) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  WITH rules AS (
    SELECT @extschema@.table_rules(relation, 'ignore') AS ignored,
      -- What a table above masks is masked in its partitions too.
      ARRAY(SELECT m FROM (SELECT relation AS member UNION SELECT relid FROM pg_partition_ancestors(relation)) a, unnest(@extschema@.table_rules(a.member, 'mask')) m) AS masked
  ), key AS (
    SELECT i.indexrelid, a.attname, k.place
    FROM pg_index i, unnest((i.indkey::int2[])[0:i.indnkeyatts - 1]) WITH ORDINALITY k (number, place) JOIN pg_attribute a ON a.attnum = k.number
    WHERE i.indrelid = relation AND a.attrelid = relation AND i.indexrelid = (
      SELECT x.indexrelid FROM pg_index x WHERE x.indrelid = relation AND (x.indisprimary AND x.indisvalid OR x.indisreplident) ORDER BY x.indisprimary DESC LIMIT 1)
  ), bound AS (
    SELECT unnest(conkey) AS number FROM pg_constraint WHERE conrelid = relation
    UNION SELECT unnest(confkey) FROM pg_constraint WHERE confrelid = relation
    UNION SELECT unnest(indkey) FROM pg_index WHERE indrelid = relation AND (indisunique OR indisexclusion)
  ), col AS (
    SELECT a.*, b.type, @extschema@.literal_kind(b.type) AS kind FROM pg_attribute a, LATERAL (SELECT @extschema@.base_type(a.atttypid) AS type) b
    WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped
  )
  SELECT jsonb_build_object(
    'relation', relation, 'oid', c.oid, 'name', format('%I.%I', n.nspname, c.relname),
    'source', CASE WHEN c.relhassubclass THEN 'ONLY ' ELSE '' END || format('%I.%I', n.nspname, c.relname),
    'key', COALESCE((SELECT jsonb_agg(attname ORDER BY place) FROM key), '[]'),
    'columns', (SELECT jsonb_object_agg(attname, jsonb_build_object(
      'place', attnum, 'type', CASE kind WHEN 'money' THEN 'numeric::money' ELSE format_type(type, -1) END, 'kind', kind, 'equality', @extschema@.equality(atttypid),
      'schema', (SELECT quote_ident(s.nspname) FROM pg_type t JOIN pg_namespace s ON s.oid = t.typnamespace WHERE t.oid = type),
      'is_ignored', attname = ANY (ignored), 'is_not_null', attnotnull)) FROM col),
    'generated', ARRAY(SELECT attname FROM col WHERE attgenerated <> ''),
    'always', ARRAY(SELECT attname FROM col WHERE attidentity = 'a'),
    'masked', rules.masked,
    'compared', ARRAY(SELECT attname FROM col WHERE attname <> ALL (ignored) AND attname <> ALL (rules.masked) AND attgenerated <> 'v'),
    -- Setting these may break a constraint.
    'bound', ARRAY(SELECT attname FROM col WHERE type <> atttypid OR attnum IN (SELECT number FROM bound)),
    -- The log has these as text, whatever cast to json they have.
    'as_text', (SELECT string_agg(format(' || pg_catalog.jsonb_build_object(%L, t.%I::pg_catalog.text)', attname, attname), '') FROM col
      WHERE kind = 'plain' AND type >= 16384 AND EXISTS (SELECT FROM pg_cast WHERE castsource = type AND casttarget = 'json'::regtype AND castmethod = 'f')),
    'needs', @extschema@.links(relation, true), 'offers', @extschema@.links(relation, false),
    -- The row where jsonb cannot hold some of its values.
    'by_column', (SELECT format('(SELECT jsonb_object_agg(k, v) FROM (VALUES %s) e (k, v))', string_agg(format(
        CASE WHEN is_json THEN '(%L, @extschema@.jsonb_or_text(to_json(t.%I)))' ELSE '(%L, to_jsonb(t.%I))' END, attname, attname), ', '))
      FROM (SELECT attname, kind = 'made' OR type = 'json'::regtype AS is_json FROM col) c HAVING bool_or(is_json)),
    'references', @extschema@.silent_references(relation),
    -- Its columns had the names of today all the time.
    'is_as_ever', NOT EXISTS (SELECT FROM @extschema@.renamed_columns(relation, 0)),
    'has_triggers', EXISTS (SELECT FROM pg_trigger WHERE tgrelid = relation AND NOT tgisinternal AND tgenabled <> 'D' AND tgfoid <> '@extschema@.emit_context()'::regprocedure)
      OR c.relhasrules
  ) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, rules WHERE c.oid = relation
$$;

COMMENT ON FUNCTION @extschema@.undo_table(regclass) IS
'what is to be known of a table to undo its changes';

-- A key as the column primary_key has it.
CREATE FUNCTION @extschema@.key_text(key jsonb, image jsonb) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF jsonb_array_length(key) = 1 THEN
    RETURN image ->> (key ->> 0);
  END IF;
  RETURN (SELECT CASE WHEN bool_and(image ? k) THEN jsonb_agg(image ->> k ORDER BY place) END FROM jsonb_array_elements_text(key) WITH ORDINALITY e (k, place));
END
$$;

COMMENT ON FUNCTION @extschema@.key_text(jsonb, jsonb) IS
'the key of a row as text';

-- Under the settings of the log.
CREATE FUNCTION @extschema@.made_text(type text, kind text, schema text, value jsonb) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO, YMD' SET intervalstyle = 'postgres'
  SET extra_float_digits = 1 SET bytea_output = 'hex' SET lc_monetary = 'C' AS $$
DECLARE
  result text;
BEGIN
  IF kind = 'money' THEN
    RETURN (value #>> '{}')::money::numeric;
  ELSIF kind = 'hstore' THEN
    EXECUTE format('SELECT %s.hstore(COALESCE(array_agg(e.key), ''{}''), COALESCE(array_agg(e.value), ''{}''))::text FROM jsonb_each_text($1) e', schema)
      INTO result USING value;
  ELSE
    EXECUTE format('SELECT r.v::text FROM jsonb_to_record(jsonb_build_object(''v'', $1)) r (v %s)', type) INTO result USING value;
  END IF;
  RETURN result;
END
$$;

COMMENT ON FUNCTION @extschema@.made_text(text, text, text, jsonb) IS
'the text of a value, of its JSON';

CREATE FUNCTION @extschema@.literal(col jsonb, value jsonb) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF value IS NULL OR value = 'null' THEN
    -- What is JSON has a null of its own, which looks the same.
    RETURN CASE WHEN col ->> 'kind' = 'json' AND (col -> 'is_not_null')::boolean THEN format('''null''::%s', col ->> 'type') ELSE 'NULL' END;
  END IF;
  RETURN format('%L::%s', CASE col ->> 'kind' WHEN 'plain' THEN value #>> '{}' WHEN 'json' THEN value::text
    ELSE @extschema@.made_text(col ->> 'type', col ->> 'kind', col ->> 'schema', value) END, col ->> 'type');
END
$$;

COMMENT ON FUNCTION @extschema@.literal(jsonb, jsonb) IS
'a value as SQL, of its JSON';

-- The condition that a column has a value.
CREATE FUNCTION @extschema@.is_still(name text, col jsonb, value jsonb) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF value IS NULL OR value = 'null' THEN
    RETURN CASE WHEN col ->> 'kind' = 'json' THEN format('COALESCE(pg_catalog.to_jsonb(%I), ''null'') OPERATOR(pg_catalog.=) ''null''::jsonb', name)
      -- Of a composite value, IS NULL would ask for its members.
      WHEN col ->> 'kind' = 'made' THEN format('%I IS NOT DISTINCT FROM NULL', name) ELSE format('%I IS NULL', name) END;
  ELSIF col ->> 'equality' IS NULL THEN
    RETURN format('pg_catalog.to_jsonb(%I) OPERATOR(pg_catalog.=) %L::jsonb', name, value);
  END IF;
  RETURN format('%I %s %s', name, col ->> 'equality', @extschema@.literal(col, value));
END
$$;

COMMENT ON FUNCTION @extschema@.is_still(text, jsonb, jsonb) IS
'the condition that a column has a value, as SQL';

CREATE FUNCTION @extschema@.where_key(t jsonb, image jsonb) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  name text := t -> 'key' ->> 0;
BEGIN
  IF jsonb_array_length(t -> 'key') = 1 THEN
    RETURN @extschema@.is_still(name, t -> 'columns' -> name, image -> name);
  END IF;
  RETURN (SELECT string_agg(@extschema@.is_still(k, t -> 'columns' -> k, image -> k), ' AND ' ORDER BY place) FROM jsonb_array_elements_text(t -> 'key') WITH ORDINALITY e (k, place));
END
$$;

COMMENT ON FUNCTION @extschema@.where_key(jsonb, jsonb) IS
'the condition that a row has the key of an image, as SQL';

-- What `now` says of the columns is what has to be there still; most often it is the image after the change.
CREATE FUNCTION @extschema@.undo_statement(t jsonb, u @extschema@.undo, now jsonb) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  cols jsonb := t -> 'columns';
  sets text;
  guards text;
BEGIN
  IF u.operation = 'CREATE' THEN
    RETURN format('DELETE FROM %s WHERE %s;', t ->> 'source', u.where_after);
  ELSIF u.operation = 'UPDATE' THEN
    SELECT string_agg(format('%I = %s', c, CASE WHEN (cols -> c -> 'is_ignored')::boolean
          -- Nobody looks whether it changed since.
          THEN format('CASE WHEN %s THEN %s ELSE %I END', @extschema@.is_still(c, cols -> c, now -> c), @extschema@.literal(cols -> c, u.before -> c), c)
          ELSE @extschema@.literal(cols -> c, u.before -> c) END), ', ' ORDER BY place),
      string_agg(' AND ' || @extschema@.is_still(c, cols -> c, now -> c), '' ORDER BY place) FILTER (WHERE NOT (t -> 'key') ? c AND NOT (cols -> c -> 'is_ignored')::boolean)
    INTO sets, guards FROM (SELECT n AS c, (cols -> n -> 'place')::int AS place FROM unnest(u.changed) n) e;
    RETURN format('UPDATE %s SET %s WHERE %s%s;', t ->> 'source', sets, u.where_after, guards);
  END IF;
  SELECT string_agg(quote_ident(c), ', ' ORDER BY place), string_agg(@extschema@.literal(cols -> c, u.before -> c), ', ' ORDER BY place) INTO sets, guards
  FROM (SELECT key AS c, (value -> 'place')::int AS place FROM jsonb_each(cols)) e WHERE u.before ? c AND NOT (t -> 'generated') ? c;
  RETURN format('INSERT INTO %s (%s)%s VALUES (%s);', t ->> 'name', sets,
    CASE WHEN t -> 'always' <> '[]' THEN ' OVERRIDING SYSTEM VALUE' ELSE '' END, guards);
END
$$;

COMMENT ON FUNCTION @extschema@.undo_statement(jsonb, @extschema@.undo, jsonb) IS
'the statement that undoes a change';

-- Says why one change cannot be undone, or completes what is known of it: before and after are images of today.
CREATE FUNCTION @extschema@.plan_undo(t jsonb, u @extschema@.undo, omitted jsonb) RETURNS @extschema@.undo
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  key jsonb := t -> 'key';
  place text := format('%s of the row %s of %s, recorded at %s (sequence %s)', u.operation, COALESCE(u.primary_key, 'without a key'), t ->> 'name', u.commit_position, u.sequence);
  image jsonb := CASE WHEN u.operation IN ('CREATE', 'UPDATE') THEN u.after ELSE u.before END;
  names text[];
  details text[] := '{}';
BEGIN
  IF u.primary_key IS NULL OR omitted ? 'primary_key' THEN
    RAISE EXCEPTION 'bemi cannot undo the %: nothing names the row', place USING ERRCODE = 'object_not_in_prerequisite_state',
      HINT = 'The table had no key, or one that is too long to be recorded. Narrow the selection, and mend this row by hand.';
  ELSIF omitted ?| '{before,after}' THEN
    RAISE EXCEPTION 'bemi cannot undo the %: bemi.changes could not hold its images', place USING ERRCODE = 'object_not_in_prerequisite_state',
      HINT = 'Narrow the selection, and mend this row by hand.';
  ELSIF u.operation = 'UPDATE' AND NOT u.before ?& ARRAY(SELECT jsonb_object_keys(u.after))
    OR u.operation <> 'CREATE' AND NOT EXISTS (SELECT FROM jsonb_object_keys(u.before) k WHERE NOT key ? k)
      AND (u.before = '{}' OR EXISTS (SELECT FROM jsonb_object_keys(t -> 'columns') k WHERE NOT key ? k AND NOT (t -> 'generated') ? k))
  THEN
    RAISE EXCEPTION 'bemi cannot undo the %: the row before it was not recorded', place USING ERRCODE = 'object_not_in_prerequisite_state',
      HINT = format('From now on it is with SELECT bemi.track(%L); which sets REPLICA IDENTITY FULL. Narrow the selection, and mend this row by hand.', t ->> 'name');
  ELSIF key = '[]' OR @extschema@.key_text(key, image) IS DISTINCT FROM u.primary_key AND (jsonb_array_length(key) = 1
    OR u.primary_key NOT LIKE '[%]' OR @extschema@.key_text(key, image)::jsonb IS DISTINCT FROM u.primary_key::jsonb)
  THEN
    RAISE EXCEPTION 'bemi cannot undo the %: the table no longer has the key by which the row was recorded', place USING ERRCODE = 'object_not_in_prerequisite_state',
      HINT = 'Give the table that primary key again, or narrow the selection, and mend this row by hand.';
  END IF;
  u.after := u.after - ARRAY(SELECT jsonb_object_keys(omitted));
  IF u.operation = 'UPDATE' THEN
    u.changed := ARRAY(SELECT b.key FROM jsonb_each(u.before) b WHERE b.value::text IS DISTINCT FROM (u.after -> b.key)::text AND NOT omitted ? b.key);
    names := ARRAY(SELECT c FROM unnest(u.changed) c WHERE NOT (t -> 'columns') ? c);
    IF names <> '{}' THEN
      RAISE EXCEPTION 'bemi cannot undo the %: the table no longer has the column %', place, (SELECT string_agg(quote_ident(c), ', ') FROM unnest(names) c) USING
        ERRCODE = 'undefined_column', HINT = 'Add the column again, or narrow the selection, and mend this row by hand.';
    END IF;
    names := ARRAY(SELECT c FROM unnest(u.changed) c WHERE (t -> 'always') ? c);
    IF names <> '{}' THEN
      RAISE EXCEPTION 'bemi cannot undo the %: the column % is GENERATED ALWAYS AS IDENTITY and cannot be set', place, quote_ident(names[1]) USING
        ERRCODE = 'feature_not_supported', HINT = format('ALTER TABLE %s ALTER %I SET GENERATED BY DEFAULT; makes it possible.', t ->> 'name', names[1]);
    END IF;
    names := ARRAY(SELECT k FROM jsonb_object_keys(omitted) k WHERE (t -> 'columns') ? k AND NOT (t -> 'generated') ? k);
    IF t -> 'masked' <> '[]' THEN
      u.changed := ARRAY(SELECT c FROM unnest(u.changed) c WHERE NOT (t -> 'masked') ? c OR '"[masked]"' NOT IN (u.before -> c, u.after -> c));
    END IF;
    u.changed := ARRAY(SELECT c FROM unnest(u.changed) c WHERE NOT (t -> 'generated') ? c);
  ELSIF u.operation <> 'CREATE' THEN
    names := ARRAY(SELECT k FROM jsonb_object_keys(omitted) k WHERE (t -> 'columns') ? k AND NOT (t -> 'generated') ? k);
  END IF;
  IF u.operation <> 'CREATE' AND names <> '{}' THEN
    RAISE EXCEPTION 'bemi cannot undo the %: the value of % was omitted', place, (SELECT string_agg(quote_ident(c), ', ') FROM unnest(names) c) USING
      ERRCODE = 'object_not_in_prerequisite_state', DETAIL = omitted::text, HINT = 'Narrow the selection, and mend this row by hand.';
  END IF;
  IF u.operation <> 'CREATE' AND t -> 'masked' <> '[]' THEN
    names := ARRAY(SELECT c FROM jsonb_array_elements_text(t -> 'masked') c WHERE '"[masked]"' IN (u.before -> c, u.after -> c) AND NOT (t -> 'generated') ? c);
    IF names <> '{}' AND u.operation = 'UPDATE' THEN
      details := details || format('masked, and left as they are: %s', (SELECT string_agg(quote_ident(c), ', ') FROM unnest(names) c));
    ELSIF names <> '{}' THEN
      RAISE EXCEPTION 'bemi cannot undo the %: the value of % was masked', place, (SELECT string_agg(quote_ident(c), ', ') FROM unnest(names) c) USING
        ERRCODE = 'object_not_in_prerequisite_state', HINT = 'No record has it. Narrow the selection, and insert this row by hand.';
    END IF;
  END IF;
  IF u.operation IN ('DELETE', 'TRUNCATE') THEN
    names := ARRAY(SELECT k FROM jsonb_object_keys(u.before) k WHERE NOT (t -> 'columns') ? k);
    IF names <> '{}' THEN
      details := details || format('no longer columns, and left out: %s', (SELECT string_agg(quote_ident(c), ', ') FROM unnest(names) c));
    END IF;
  END IF;
  u.detail := nullif(array_to_string(details, '. '), '');
  IF u.operation IN ('CREATE', 'UPDATE') THEN
    u.row_after := concat(t ->> 'oid', ':', @extschema@.key_text(key, u.after));
    u.where_after := @extschema@.where_key(t, u.after);
  END IF;
  IF u.operation <> 'CREATE' THEN
    u.row_before := concat(t ->> 'oid', ':', @extschema@.key_text(key, u.before));
    u.where_before := CASE WHEN u.row_before = u.row_after THEN u.where_after ELSE @extschema@.where_key(t, u.before) END;
  END IF;
  RETURN u;
END
$$;

COMMENT ON FUNCTION @extschema@.plan_undo(jsonb, @extschema@.undo, jsonb) IS
'how a change is to be undone; an error if it cannot be';

CREATE FUNCTION @extschema@.check_reading() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF current_setting('transaction_isolation') NOT LIKE 'read %' THEN
    RAISE EXCEPTION 'bemi cannot see what is recorded now in a transaction that is %', upper(current_setting('transaction_isolation')) USING
      ERRCODE = 'active_sql_transaction', HINT = 'BEGIN ISOLATION LEVEL READ COMMITTED;';
  ELSIF to_regclass('@extschema@.changes') IS NOT NULL AND NOT has_table_privilege('@extschema@.changes', 'SELECT') THEN
    RAISE EXCEPTION 'permission denied for table @extschema@.changes' USING
      ERRCODE = 'insufficient_privilege', HINT = format('GRANT SELECT ON @extschema@.changes TO %I;', current_user);
  END IF;
  PERFORM @extschema@.sync();
END
$$;

COMMENT ON FUNCTION @extschema@.check_reading() IS
'returns when everything that was committed before can be read in bemi.changes';

-- The plan for a selection, the newest change first. It is kept in a file if it is long.
CREATE FUNCTION @extschema@.undos(
  transaction_id bigint, context jsonb, relation regclass, primary_key text, since timestamptz, until timestamptz
) RETURNS SETOF @extschema@.undo
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
  conditions text := concat(
    CASE WHEN transaction_id IS NOT NULL THEN ' AND c.transaction_id = $1' END,
    CASE WHEN context IS NOT NULL THEN ' AND c.context @> $2' END,
    CASE WHEN relation IS NOT NULL THEN ' AND (c.schema, c."table") IN (SELECT n.schema, n."table" FROM @extschema@.table_names($3) n)
      AND (SELECT t.relation FROM @extschema@.table_at(c.schema, c."table", c."position") t) IN (SELECT member FROM @extschema@.tree($3) member)' END,
    CASE WHEN primary_key IS NOT NULL THEN ' AND (c.primary_key = $4 OR c.old_primary_key = $4)' END,
    CASE WHEN since IS NOT NULL THEN ' AND c.committed_at >= $5' END, CASE WHEN until IS NOT NULL THEN ' AND c.committed_at < $6' END);
  c record;
  r record;
  -- Which table the last change was about, and between which positions it has had that name.
  named_relation regclass;
  since_then bigint;
  until_then bigint;
  last_schema text;
  last_table text;
  u @extschema@.undo;
  tables jsonb := '{}';
  t jsonb;
  position_of_all pg_lsn;
  times text;
  number bigint := 0;
BEGIN
  IF conditions = '' THEN
    RAISE EXCEPTION 'nothing says which changes are to be undone' USING ERRCODE = 'invalid_parameter_value',
      HINT = 'Give one or more of transaction_id, context, relation, primary_key, since and until.';
  END IF;
  FOR c IN EXECUTE 'SELECT c.* FROM @extschema@.changes c WHERE c.operation IN (''CREATE'', ''UPDATE'', ''DELETE'', ''TRUNCATE'')' || conditions
    || ' ORDER BY c.commit_position DESC, c.sequence DESC' USING transaction_id, context, relation, primary_key, since, until
  LOOP
    IF transaction_id IS NOT NULL AND c.commit_position <> position_of_all THEN
      EXECUTE 'SELECT string_agg(DISTINCT c.committed_at::text, '', '') FROM @extschema@.changes c WHERE true' || conditions
        INTO times USING transaction_id, context, relation, primary_key, since, until;
      RAISE EXCEPTION 'several transactions had the id %', transaction_id USING ERRCODE = 'ambiguous_parameter',
        DETAIL = format('They committed at %s.', times), HINT = 'Give since and until too.';
    END IF;
    position_of_all := c.commit_position;
    u := NULL;
    IF (c.schema, c."table") IS DISTINCT FROM (last_schema, last_table) OR c."position" < since_then OR c."position" >= until_then THEN
      SELECT * INTO named_relation, since_then, until_then FROM @extschema@.table_at(c.schema, c."table", c."position");
      last_schema := c.schema;
      last_table := c."table";
    END IF;
    u.relation := named_relation;
    IF u.relation IS NULL THEN
      RAISE EXCEPTION 'bemi cannot undo changes of the table %: it is no longer there', format('%I.%I', c.schema, c."table") USING
        ERRCODE = 'undefined_table', HINT = 'Name another table as relation, or narrow the selection.';
    END IF;
    IF t ->> 'oid' IS DISTINCT FROM u.relation::oid::text THEN
      t := tables -> u.relation::oid::text;
      IF t IS NULL THEN
        t := @extschema@.undo_table(u.relation);
        tables := tables || jsonb_build_object(u.relation::oid::text, t);
      END IF;
    END IF;
    u.operation := c.operation;
    u.transaction_id := c.transaction_id;
    u.commit_position := c.commit_position;
    u.sequence := c.sequence;
    u.is_behind := false;
    IF c.operation = 'TRUNCATE' THEN
      u.after := '{}';
      FOR r IN SELECT * FROM @extschema@.truncated_rows(u.relation, c.commit_position, c.sequence) LOOP
        number := number + 1;
        u.number := number;
        u.primary_key := r.primary_key;
        u.before := CASE WHEN (t -> 'is_as_ever')::boolean THEN r.image ELSE @extschema@.image_today(u.relation, r.image, r."position") END;
        RETURN NEXT @extschema@.plan_undo(t, u, '{}');
      END LOOP;
    ELSE
      number := number + 1;
      u.number := number;
      u.primary_key := c.primary_key;
      IF (t -> 'is_as_ever')::boolean THEN
        u.before := c.before;
        u.after := c.after;
        RETURN NEXT @extschema@.plan_undo(t, u, COALESCE(c.omitted, '{}'));
      ELSE
        u.before := @extschema@.image_today(u.relation, c.before, c."position");
        u.after := @extschema@.image_today(u.relation, c.after, c."position");
        RETURN NEXT @extschema@.plan_undo(t, u, COALESCE(@extschema@.image_today(u.relation, c.omitted, c."position"), '{}'));
      END IF;
    END IF;
  END LOOP;
END
$$;

COMMENT ON FUNCTION @extschema@.undos(bigint, jsonb, regclass, text, timestamptz, timestamptz) IS
'how the changes of a selection are to be undone, the newest first; an error if one cannot be';
-- Undoing changes, by changes of their own: bemi.revert() does it, bemi.revert_sql() shows the statements. All of it runs
-- with the rights of the caller.

CREATE TYPE @extschema@.reverted AS (
  relation regclass, primary_key text, operation text, status text, detail text, statement text, transaction_id bigint, commit_position pg_lsn, sequence int
);

CREATE FUNCTION @extschema@.revert_sql(
  transaction_id bigint DEFAULT NULL, context jsonb DEFAULT NULL, relation regclass DEFAULT NULL, primary_key text DEFAULT NULL,
  since timestamptz DEFAULT NULL, until timestamptz DEFAULT NULL
) RETURNS SETOF text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  u @extschema@.undo;
  tables jsonb := '{}';
  t jsonb;
BEGIN
  PERFORM @extschema@.check_reading();
  FOR u IN SELECT * FROM @extschema@.undos(transaction_id, context, relation, primary_key, since, until) LOOP
    IF t ->> 'oid' IS DISTINCT FROM u.relation::oid::text THEN
      t := COALESCE(tables -> u.relation::oid::text, @extschema@.undo_table(u.relation));
      tables := tables || jsonb_build_object(u.relation::oid::text, t);
    END IF;
    -- Of some updates nothing is left that could be set.
    IF u.operation <> 'UPDATE' OR u.changed <> '{}' THEN
      RETURN NEXT @extschema@.undo_statement(t, u, u.after);
    END IF;
  END LOOP;
END
$$;

COMMENT ON FUNCTION @extschema@.revert_sql(bigint, jsonb, regclass, text, timestamptz, timestamptz) IS
'the statements that undo the changes that meet all conditions given, the newest first; none of them is run';

-- The columns by which a row differs from an image. What was masked is not compared.
CREATE FUNCTION @extschema@.differences(compared jsonb, image jsonb, now jsonb) RETURNS text[]
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT ARRAY(SELECT c FROM jsonb_array_elements_text(compared) c WHERE image ? c AND image -> c IS DISTINCT FROM now -> c)
$$;

COMMENT ON FUNCTION @extschema@.differences(jsonb, jsonb, jsonb) IS
'the columns by which a row differs from an image';

CREATE FUNCTION @extschema@.jsonb_or_text(value json) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN value::jsonb;
EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
  RETURN to_jsonb(value::text);
END
$$;

COMMENT ON FUNCTION @extschema@.jsonb_or_text(json) IS
'a value as jsonb, or if that cannot hold it, its text';

-- Looks at a row as the log would show it, and locks it. While a constraint is deferred several rows may have one key: the
-- one that is as the image says is meant.
CREATE FUNCTION @extschema@.row_now(t jsonb, condition text, image jsonb, is_locked boolean, OUT rows int, OUT now jsonb, OUT place tid)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO, YMD' SET intervalstyle = 'postgres'
  SET extra_float_digits = 1 SET bytea_output = 'hex' SET lc_monetary = 'C' AS $$
DECLARE
  r record;
  -- A column may have the name of the table here.
  row_as_json text := 'to_jsonb(t.*)';
BEGIN
  rows := 0;
  IF t ->> 'by_column' IS NOT NULL THEN
    BEGIN
      EXECUTE format('SELECT count(to_jsonb(t.*)) FROM %s t WHERE %s', t ->> 'source', condition);
    EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
      row_as_json := t ->> 'by_column';
    END;
  END IF;
  FOR r IN EXECUTE format('SELECT %s%s AS now, t.ctid AS place FROM %s t WHERE %s%s',
    row_as_json, t ->> 'as_text', t ->> 'source', condition, CASE WHEN is_locked THEN ' FOR UPDATE' ELSE '' END)
  LOOP
    rows := rows + 1;
    IF rows = 1 OR @extschema@.differences(t -> 'compared', image, r.now) = '{}' THEN
      now := r.now;
      place := r.place;
    END IF;
  END LOOP;
END
$$;

COMMENT ON FUNCTION @extschema@.row_now(jsonb, text, jsonb, boolean) IS
'a row of a table as the log would show it';

-- Those rows of other tables that a change of this one would change without a word. Rows that a policy hides count too:
-- with them it is an error.
CREATE FUNCTION @extschema@.referring_rows(reference jsonb, t jsonb, condition text, is_any_enough boolean) RETURNS TABLE (child regclass, now jsonb)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO, YMD' SET intervalstyle = 'postgres'
  SET extra_float_digits = 1 SET bytea_output = 'hex' SET lc_monetary = 'C' SET row_security = off AS $$
BEGIN
  RETURN QUERY EXECUTE format(
    'SELECT child.tableoid::regclass, %s FROM %s child, (SELECT t.*, t.tableoid AS "bemi tableoid", t.ctid AS "bemi ctid" FROM %s t WHERE %s) parent
     WHERE %s AND (child.tableoid, child.ctid) IS DISTINCT FROM (parent."bemi tableoid", parent."bemi ctid")%s',
    CASE WHEN is_any_enough THEN 'NULL::jsonb' ELSE 'to_jsonb(child.*)' END, reference ->> 'source', t ->> 'source', condition, reference ->> 'join', CASE WHEN is_any_enough THEN ' LIMIT 1' END);
END
$$;

COMMENT ON FUNCTION @extschema@.referring_rows(jsonb, jsonb, text, boolean) IS
'the rows that refer to a row by a foreign key, but for itself';

-- Runs a statement as the caller would: triggers find what his search_path says.
CREATE FUNCTION @extschema@.run_undo(statement text, path text) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  rows bigint;
BEGIN
  PERFORM pg_catalog.set_config('search_path', path, true);
  EXECUTE statement;
  GET DIAGNOSTICS rows = ROW_COUNT;
  RETURN rows;
END
$$;

COMMENT ON FUNCTION @extschema@.run_undo(text, text) IS
'runs a statement under a search_path, and gives how many rows it changed';

-- What became of one attempt. An undo that meets a constraint is tried again `later`, when others have made room.
CREATE TYPE @extschema@.attempt AS (outcome text, detail text, statement text, left_columns jsonb, also bigint[]);

-- `ours` are columns that our own undo of a newer change left otherwise than the log has them: triggers did. With
-- `waiting`, the undos that wait, rows may be changed by ON UPDATE CASCADE as these would change them. With is_deferred,
-- constraints are checked at the end.
CREATE FUNCTION @extschema@.attempt(u @extschema@.undo, t jsonb, ours jsonb, path text, waiting @extschema@.undo[], is_deferred boolean)
RETURNS @extschema@.attempt
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  result @extschema@.attempt;
  here record;
  expected jsonb := CASE WHEN ours IS NULL THEN u.after ELSE u.after || ours END;
  names text[];
  -- Of what remains to be set, once it is known what is there.
  statement text;
  changes bigint;
  reference jsonb;
  child record;
  p @extschema@.undo;
  cascaded @extschema@.undo[] := '{}';
  message text;
  more text;
BEGIN
  result.outcome := 'conflict';
  SELECT * INTO here FROM @extschema@.row_now(t, COALESCE(u.where_after, u.where_before), expected, u.where_after IS NOT NULL);
  IF u.where_after IS NULL AND here.rows > 0 THEN
    result.detail := 'a row with this key is there';
    RETURN result;
  ELSIF u.where_after IS NOT NULL AND here.rows = 0 THEN
    result.detail := 'the row is not there';
    RETURN result;
  ELSIF u.where_after IS NOT NULL AND here.now IS DISTINCT FROM expected THEN
    names := @extschema@.differences(t -> 'compared', expected, here.now);
    IF names <> '{}' THEN
      result.detail := 'changed since: ' || (SELECT string_agg(quote_ident(n), ', ') FROM unnest(names) n);
      RETURN result;
    END IF;
  END IF;
  result.detail := u.detail;
  IF u.operation = 'UPDATE' AND u.changed = '{}' THEN
    result.outcome := 'reverted';
    result.detail := concat_ws('. ', u.detail, 'nothing to set');
    RETURN result;
  END IF;
  result.statement := @extschema@.undo_statement(t, u, expected);
  statement := result.statement;
  IF here.rows > 1 THEN
    statement := format('%s AND ctid OPERATOR(pg_catalog.=) %L::tid;', left(statement, -1), here.place);
  END IF;
  IF u.operation = 'UPDATE' AND NOT (t -> 'has_triggers')::boolean AND NOT (t -> 'bound') ?| u.changed
    AND NOT EXISTS (SELECT FROM unnest(u.changed) c WHERE u.before -> c = 'null')
  THEN
    -- No constraint can stand against it: a savepoint is not needed.
    changes := @extschema@.run_undo(statement, path);
  ELSE
    BEGIN
      FOR reference IN SELECT r FROM jsonb_array_elements(CASE WHEN u.operation IN ('CREATE', 'UPDATE') THEN t -> 'references' ELSE '[]' END) r LOOP
        CONTINUE WHEN u.operation = 'CREATE' AND NOT (reference ->> 'on_delete' IN ('c', 'n', 'd') OR reference ->> 'on_delete' = 'a' AND (reference -> 'is_deferred')::boolean AND NOT is_deferred);
        CONTINUE WHEN u.operation = 'UPDATE' AND NOT ((reference -> 'columns') ?| u.changed
          AND (reference ->> 'on_update' IN ('c', 'n', 'd') OR reference ->> 'on_update' = 'a' AND (reference -> 'is_deferred')::boolean AND NOT is_deferred));
        FOR child IN SELECT * FROM @extschema@.referring_rows(reference, t, u.where_after, waiting IS NULL) LOOP
          p := NULL;
          IF u.operation = 'UPDATE' AND reference ->> 'on_update' = 'c' AND waiting IS NOT NULL THEN
            message := concat(child.child::oid, ':', @extschema@.key_text(@extschema@.undo_table(child.child) -> 'key', child.now));
            SELECT w.* INTO p FROM unnest(waiting) w WHERE w.row_after = message AND w.operation = 'UPDATE' AND NOT w.is_behind;
          END IF;
          IF p.number IS NULL THEN
            RAISE foreign_key_violation USING MESSAGE = format('rows of %s refer to it by the foreign key %s, which would change them too',
              reference ->> 'child', reference ->> 'name');
          END IF;
          cascaded := cascaded || p;
        END LOOP;
      END LOOP;
      changes := @extschema@.run_undo(statement, path);
      FOREACH p IN ARRAY cascaded LOOP
        SELECT r.* INTO here FROM (SELECT @extschema@.undo_table(p.relation) AS t) x, LATERAL @extschema@.row_now(x.t, p.where_before, p.before, false) r;
        IF here.rows = 0 OR @extschema@.differences(@extschema@.undo_table(p.relation) -> 'compared', p.before, here.now) <> '{}' THEN
          RAISE foreign_key_violation USING MESSAGE = format('a row of %s that refers to it would be changed too', p.relation);
        END IF;
        result.also := result.also || p.number;
      END LOOP;
    EXCEPTION WHEN integrity_constraint_violation THEN
      GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, more = PG_EXCEPTION_DETAIL;
      result.outcome := 'later';
      result.also := NULL;
      result.detail := concat_ws('. ', message, nullif(more, ''));
      RETURN result;
    END;
  END IF;
  IF changes = 0 THEN
    result.detail := 'a trigger, a rule or a policy kept it from being undone';
    RETURN result;
  END IF;
  result.outcome := 'reverted';
  IF (t -> 'has_triggers')::boolean AND u.where_before IS NOT NULL THEN
    SELECT * INTO here FROM @extschema@.row_now(t, u.where_before, u.before, false);
    names := @extschema@.differences(t -> 'compared', u.before, here.now);
    IF names <> '{}' THEN
      result.left_columns := (SELECT jsonb_object_agg(n, here.now -> n) FROM unnest(names) n);
      result.detail := concat_ws('. ', u.detail, 'a trigger changed: ' || (SELECT string_agg(quote_ident(n), ', ') FROM unnest(names) n));
    END IF;
  END IF;
  RETURN result;
END
$$;

COMMENT ON FUNCTION @extschema@.attempt(@extschema@.undo, jsonb, jsonb, text, @extschema@.undo[], boolean) IS
'undoes one change if the row is still as the change left it';
-- The run of a revert: in which order, what waits for what, and what is told of it.

-- Sets of rows, of which there may be many: adding one costs the same however many there are.
CREATE FUNCTION @extschema@.bucket("row" text) RETURNS int
LANGUAGE sql IMMUTABLE AS $$
  SELECT 1 + (pg_catalog.hashtext("row") OPERATOR(pg_catalog.&) 4095)
$$;

COMMENT ON FUNCTION @extschema@.bucket(text) IS
'in which part of a set a row is looked for';

CREATE FUNCTION @extschema@.check_undoing(t jsonb, operation text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  wanted text;
  relation oid := t ->> 'oid';
BEGIN
  FOREACH wanted IN ARRAY CASE operation WHEN 'CREATE' THEN '{SELECT,UPDATE,DELETE}'::text[] WHEN 'UPDATE' THEN '{SELECT,UPDATE}' ELSE '{SELECT,INSERT}' END LOOP
    IF NOT has_table_privilege(relation, wanted) AND (wanted = 'DELETE' OR NOT has_any_column_privilege(relation, wanted)) THEN
      RAISE EXCEPTION 'permission denied for table %', t ->> 'name' USING
        ERRCODE = 'insufficient_privilege', DETAIL = format('To undo a %s takes %s on it.', operation, wanted),
        HINT = format('GRANT %s ON %s TO %I;', wanted, t ->> 'name', current_user);
    END IF;
  END LOOP;
END
$$;

COMMENT ON FUNCTION @extschema@.check_undoing(jsonb, text) IS
'raises an error if the caller may not undo such changes of a table';

-- The modes that constraints are declared with, once all were checked. PostgreSQL does not tell which ones the caller had set.
CREATE FUNCTION @extschema@.declare_constraints() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  names text;
BEGIN
  SELECT string_agg(format('%I.%I', n.nspname, k.conname), ', ') INTO names
  FROM (SELECT connamespace, conname FROM pg_constraint GROUP BY 1, 2 HAVING bool_or(condeferred) AND bool_and(condeferrable)) k
  JOIN pg_namespace n ON n.oid = k.connamespace WHERE has_schema_privilege(n.oid, 'USAGE');
  IF names IS NOT NULL THEN
    EXECUTE format('SET CONSTRAINTS %s DEFERRED', names);
  END IF;
END
$$;

COMMENT ON FUNCTION @extschema@.declare_constraints() IS
'has the constraints that are INITIALLY DEFERRED be deferred again';

-- Newest first. What meets a constraint waits, and with it all older changes of the same row, until others have made room:
-- it is tried again from its oldest, since a row that others refer to comes before them, and from its newest. What then
-- waits still may be done by ON UPDATE CASCADE, or else with deferred constraints.
CREATE FUNCTION @extschema@.revert_selection(
  transaction_id bigint, context jsonb, relation regclass, primary_key text, since timestamptz, until timestamptz, on_conflict text, path text
) RETURNS SETOF @extschema@.reverted
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
  is_skipping boolean := COALESCE(on_conflict = 'skip', false);
  context_before text;
  source refcursor;
  mode text;
  u @extschema@.undo;
  a @extschema@.attempt;
  told @extschema@.reverted;
  done @extschema@.reverted[];
  t jsonb;
  tables jsonb := '{}';
  checked text;
  empty jsonb[] := array_fill('{}'::jsonb, ARRAY[4096]);
  -- Sets of rows: those that an undo waits for, those of conflicts, and columns that triggers left otherwise.
  held jsonb[];
  -- What the undos that wait will refer to: it is not given up before.
  needed jsonb[];
  lost jsonb[] := empty;
  ours jsonb[] := empty;
  here text;
  b int;
  waiting @extschema@.undo[] := '{}';
  remaining @extschema@.undo[];
  -- Those that ON UPDATE CASCADE has done.
  also bigint[] := '{}';
  conflicts text[] := '{}';
  conflict_count bigint := 0;
  is_any boolean := false;
  is_progress boolean;
  before_deferred record;
BEGIN
  IF on_conflict IS NULL OR on_conflict NOT IN ('error', 'skip') THEN
    RAISE EXCEPTION 'on_conflict cannot be %', COALESCE(quote_literal(on_conflict), 'NULL') USING ERRCODE = 'invalid_parameter_value',
      HINT = 'It is ''error'' (nothing is undone if anything cannot be) or ''skip'' (what cannot be undone is left out).';
  END IF;
  PERFORM @extschema@.check_reading();
  context_before := COALESCE(current_setting('bemi.context', true), '');
  PERFORM @extschema@.merge_context(jsonb_build_object('reverts', (
    SELECT COALESCE(jsonb_object_agg(key, value), '{}') FROM jsonb_each(jsonb_build_object('transaction_id', transaction_id, 'context', context,
      'relation', relation, 'primary_key', primary_key, 'since', since, 'until', until)) WHERE value <> 'null')), true);
  FOR phase IN 1..2 LOOP
    IF phase = 2 THEN
      EXIT WHEN waiting = '{}' OR NOT EXISTS (SELECT FROM pg_constraint WHERE condeferrable);
      SELECT waiting AS waiting, lost AS lost, ours AS ours, also AS also, conflicts AS conflicts, conflict_count AS conflict_count INTO before_deferred;
    END IF;
    done := '{}';
    BEGIN
      IF phase = 2 THEN
        SET CONSTRAINTS ALL DEFERRED;
      END IF;
      mode := CASE phase WHEN 1 THEN 'first' ELSE 'forward' END;
      is_progress := false;
      LOOP
        IF mode = 'first' THEN
          OPEN source FOR SELECT * FROM @extschema@.undos(transaction_id, context, relation, primary_key, since, until);
        ELSIF mode = 'backward' THEN
          OPEN source FOR SELECT w.* FROM unnest(waiting) w ORDER BY w.number DESC;
        ELSE
          OPEN source FOR SELECT w.* FROM unnest(waiting) w ORDER BY w.number;
        END IF;
        IF mode <> 'backward' THEN
          held := empty;
          needed := empty;
        END IF;
        remaining := '{}';
        LOOP
          FETCH source INTO u;
          EXIT WHEN NOT FOUND;
          is_any := true;
          IF mode = 'backward' AND u.is_behind THEN
            remaining := array_append(remaining, u);
            CONTINUE;
          END IF;
          IF t ->> 'oid' IS DISTINCT FROM u.relation::oid::text THEN
            t := tables -> u.relation::oid::text;
            IF t IS NULL THEN
              t := @extschema@.undo_table(u.relation);
              tables := tables || jsonb_build_object(u.relation::oid::text, t);
            END IF;
          END IF;
          IF mode = 'first' AND checked IS DISTINCT FROM concat(u.relation::oid, u.operation) THEN
            PERFORM @extschema@.check_undoing(t, u.operation);
            checked := concat(u.relation::oid, u.operation);
          END IF;
          IF COALESCE(lost[@extschema@.bucket(u.row_after)] ? u.row_after, false) OR COALESCE(lost[@extschema@.bucket(u.row_before)] ? u.row_before, false) THEN
            a := ROW('older', 'a newer change of the row was not undone', NULL, NULL, NULL);
          ELSIF mode <> 'backward' AND (COALESCE(held[@extschema@.bucket(u.row_after)] ? u.row_after, false)
            OR COALESCE(held[@extschema@.bucket(u.row_before)] ? u.row_before, false))
          THEN
            a := ROW('behind', NULL, NULL, NULL, NULL);
          ELSIF COALESCE((SELECT bool_or(needed[@extschema@.bucket(o)] ? o) FROM unnest(CASE
            WHEN remaining = '{}' AND mode <> 'backward' OR t -> 'offers' = '[]' THEN '{}'
            WHEN u.operation = 'CREATE' THEN @extschema@.linked(t -> 'offers', u.after)
            WHEN u.operation = 'UPDATE' THEN ARRAY(SELECT unnest(@extschema@.linked(t -> 'offers', u.after)) EXCEPT SELECT unnest(@extschema@.linked(t -> 'offers', u.before)))
            END) o), false)
          THEN
            a := ROW('later', 'what refers to it could not be undone', NULL, NULL, NULL);
          ELSIF u.number = ANY (also) THEN
            a := ROW('reverted', concat_ws('. ', u.detail, 'done by ON UPDATE CASCADE'), NULL, NULL, NULL);
          ELSE
            a := @extschema@.attempt(u, t, ours[@extschema@.bucket(COALESCE(u.row_after, u.row_before))] -> COALESCE(u.row_after, u.row_before),
              path, CASE mode WHEN 'cascade' THEN waiting END, phase = 2);
          END IF;
          IF a.outcome IN ('later', 'behind') THEN
            u.is_behind := a.outcome = 'behind';
            u.reason := a.detail;
            remaining := array_append(remaining, u);
          ELSE
            is_progress := true;
          END IF;
          IF a.outcome IN ('later', 'behind') AND u.row_before IS NOT NULL AND mode <> 'backward' THEN
            FOREACH here IN ARRAY @extschema@.linked(t -> 'needs', u.before) LOOP
              b := @extschema@.bucket(here);
              needed[b] := needed[b] || jsonb_build_object(here, NULL);
            END LOOP;
          END IF;
          IF a.outcome = 'conflict' THEN
            conflict_count := conflict_count + 1;
            IF conflict_count <= 20 THEN
              conflicts := conflicts || format('%s %s (%s): %s', u.relation, u.primary_key, u.operation, a.detail);
            END IF;
          END IF;
          IF a.outcome <> 'reverted' THEN
            FOREACH here IN ARRAY array_remove(ARRAY[u.row_after, nullif(u.row_before, u.row_after)], NULL) LOOP
              b := @extschema@.bucket(here);
              IF a.outcome IN ('later', 'behind') THEN
                held[b] := held[b] || jsonb_build_object(here, NULL);
              ELSE
                lost[b] := lost[b] || jsonb_build_object(here, NULL);
              END IF;
            END LOOP;
          ELSIF (t -> 'has_triggers')::boolean THEN
            b := @extschema@.bucket(u.row_after);
            IF ours[b] ? u.row_after THEN
              ours[b] := ours[b] - u.row_after;
            END IF;
            IF a.left_columns IS NOT NULL THEN
              b := @extschema@.bucket(u.row_before);
              ours[b] := ours[b] || jsonb_build_object(u.row_before, a.left_columns);
            END IF;
          END IF;
          IF a.also IS NOT NULL THEN
            also := also || a.also;
          END IF;
          IF a.outcome = 'reverted' OR is_skipping AND a.outcome IN ('conflict', 'older') THEN
            told := ROW(u.relation, u.primary_key, u.operation, CASE a.outcome WHEN 'reverted' THEN 'reverted' ELSE 'skipped' END, a.detail,
              CASE a.outcome WHEN 'reverted' THEN a.statement END, u.transaction_id, u.commit_position, u.sequence);
            IF phase = 1 THEN
              RETURN NEXT told;
            ELSE
              done := array_append(done, told);
            END IF;
          END IF;
        END LOOP;
        CLOSE source;
        waiting := remaining;
        EXIT WHEN waiting = '{}' OR mode = 'cascade' AND NOT is_progress;
        mode := CASE WHEN mode = 'backward' THEN 'forward' WHEN is_progress OR mode = 'first' THEN 'backward' ELSE 'cascade' END;
        -- What the way back has done counts until the way there has ended too.
        is_progress := is_progress AND mode = 'forward';
      END LOOP;
      IF phase = 2 THEN
        SET CONSTRAINTS ALL IMMEDIATE;
        PERFORM @extschema@.declare_constraints();
      END IF;
    EXCEPTION WHEN integrity_constraint_violation THEN
      IF phase = 1 THEN
        RAISE;
      END IF;
      -- Nothing of what waited can be done.
      waiting := before_deferred.waiting;
      lost := before_deferred.lost;
      conflicts := before_deferred.conflicts;
      conflict_count := before_deferred.conflict_count;
      done := '{}';
    END;
    FOREACH told IN ARRAY done LOOP
      RETURN NEXT told;
    END LOOP;
  END LOOP;
  FOR u IN SELECT w.* FROM unnest(waiting) w ORDER BY w.number LOOP
    IF NOT u.is_behind THEN
      conflict_count := conflict_count + 1;
      IF conflict_count <= 20 THEN
        conflicts := conflicts || format('%s %s (%s): %s', u.relation, u.primary_key, u.operation, u.reason);
      END IF;
    END IF;
    IF is_skipping THEN
      told := ROW(u.relation, u.primary_key, u.operation, 'skipped', COALESCE(u.reason, 'a newer change of the row was not undone'), NULL,
        u.transaction_id, u.commit_position, u.sequence);
      RETURN NEXT told;
    END IF;
  END LOOP;
  IF conflict_count > 0 AND NOT is_skipping THEN
    RAISE EXCEPTION 'bemi undid nothing: % of the changes cannot be undone', conflict_count USING ERRCODE = 'triggered_data_change_violation',
      DETAIL = array_to_string(conflicts, chr(10)) || CASE WHEN conflict_count > 20 THEN format('%sand %s more', chr(10), conflict_count - 20) ELSE '' END,
      HINT = 'With on_conflict => ''skip'' the others are undone, and these are left as they are.';
  ELSIF NOT is_any THEN
    RAISE NOTICE 'no change was selected';
  END IF;
  PERFORM set_config('bemi.context', context_before, true);
END
$$;

COMMENT ON FUNCTION @extschema@.revert_selection(bigint, jsonb, regclass, text, timestamptz, timestamptz, text, text) IS
'for bemi.revert(): runs what it undoes under a search_path';

-- It keeps the search_path of the caller for the triggers of his tables.
CREATE FUNCTION @extschema@.revert(
  transaction_id bigint DEFAULT NULL, context jsonb DEFAULT NULL, relation regclass DEFAULT NULL, primary_key text DEFAULT NULL,
  since timestamptz DEFAULT NULL, until timestamptz DEFAULT NULL, on_conflict text DEFAULT 'error'
) RETURNS TABLE (
  relation regclass, primary_key text, operation text, status text, detail text, statement text, transaction_id bigint, commit_position pg_lsn, sequence int
)
LANGUAGE sql VOLATILE AS $$
  SELECT * FROM @extschema@.revert_selection($1, $2, $3, $4, $5, $6, $7, pg_catalog.current_setting('search_path'))
$$;

COMMENT ON FUNCTION @extschema@.revert(bigint, jsonb, regclass, text, timestamptz, timestamptz, text) IS
'undoes the changes that meet all conditions given, the newest first, and says what it did';
