-- Which tables carry the trigger, and by which rules. On a partitioned table it is attached to every table of the tree,
-- since a statement may name any of them; foreign tables aside, whose changes are not in the log.
--
-- The functions look at nothing but pg_catalog and this schema, whatever the caller's search_path is. They run with the
-- rights of the caller, who has to own the tables.

CREATE FUNCTION @extschema@.rules(arguments bytea, kind text) RETURNS text[]
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'bemi_rules';

COMMENT ON FUNCTION @extschema@.rules(bytea, text) IS
'the arguments of a trigger (pg_trigger.tgargs) of a kind: ignore, mask, identity, unknown, or every with their kind';

-- Every table that carries the trigger.
CREATE VIEW @extschema@.context_triggers AS
SELECT t.oid, t.tgrelid AS relation, t.tgname AS name, t.tgenabled AS enabled, t.tgargs AS arguments
FROM pg_catalog.pg_trigger t
WHERE t.tgfoid = '@extschema@.emit_context()'::regprocedure AND NOT t.tgisinternal;

GRANT SELECT ON @extschema@.context_triggers TO PUBLIC;

COMMENT ON VIEW @extschema@.context_triggers IS
'the triggers that write the context into the log';

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

-- The tables that are tracked with a table: itself and its partitions, those above first.
CREATE FUNCTION @extschema@.tree(relation regclass) RETURNS SETOF regclass
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF (SELECT relkind FROM pg_class WHERE oid = relation) IS DISTINCT FROM 'p' THEN
    RETURN NEXT relation;
  ELSE
    -- Looked up one by one: nobody knows beforehand how few they are.
    RETURN QUERY SELECT relid FROM pg_partition_tree(relation)
      WHERE (SELECT relkind FROM pg_class WHERE oid = relid) IN ('r', 'p') ORDER BY level, relid::oid;
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

CREATE FUNCTION @extschema@.set_identity(relation regclass, identity text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  index name := substring(identity FROM '^index:(.*)$');
BEGIN
  IF index IS NOT NULL AND NOT EXISTS (
    SELECT FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid WHERE indrelid = relation AND relname = index
  ) THEN
    RAISE WARNING 'the index % that was the replica identity of % is gone; the replica identity is the default now', quote_ident(index), relation;
    index := NULL;
    identity := 'default';
  END IF;
  IF identity IS DISTINCT FROM @extschema@.identity(relation) THEN
    EXECUTE format('ALTER TABLE ONLY %s REPLICA IDENTITY %s', relation,
      CASE WHEN index IS NULL THEN identity ELSE format('USING INDEX %I', index) END);
  END IF;
END
$$;

COMMENT ON FUNCTION @extschema@.set_identity(regclass, text) IS
'sets the replica identity of a table to default, nothing, full or index:name';

-- Whether a table has the trigger, with these arguments, and nobody disabled it.
CREATE FUNCTION @extschema@.has_trigger(relation regclass, arguments text[]) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT EXISTS (
    SELECT FROM @extschema@.context_triggers t WHERE t.relation = has_trigger.relation AND t.name = 'bemi_context'
    AND t.enabled IN ('O', 'A') AND @extschema@.rules(t.arguments, 'every') = has_trigger.arguments
  )
$$;

COMMENT ON FUNCTION @extschema@.has_trigger(regclass, text[]) IS
'whether a table has the trigger, with these arguments';

-- Makes the trigger, or replaces its arguments.
CREATE FUNCTION @extschema@.put_trigger(relation regclass, arguments text[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  stranger text;
BEGIN
  SELECT tgfoid::regprocedure INTO stranger FROM pg_trigger
  WHERE tgrelid = relation AND tgname = 'bemi_context' AND tgfoid <> '@extschema@.emit_context()'::regprocedure;
  IF stranger IS NOT NULL THEN
    RAISE EXCEPTION 'the table % has a trigger bemi_context that calls %', relation, stranger USING
      ERRCODE = 'duplicate_object', HINT = format('DROP TRIGGER bemi_context ON %s;', relation);
  END IF;
  EXECUTE format(
    'CREATE OR REPLACE TRIGGER bemi_context BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON %s '
    'FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.emit_context(%s)',
    relation, (SELECT string_agg(quote_literal(argument), ', ' ORDER BY place) FROM unnest(arguments) WITH ORDINALITY AS a (argument, place)));
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
  identity_now text := @extschema@.identity(relation);
  was text := @extschema@.identity_before(relation);
BEGIN
  IF replica_identity NOT IN ('keep', identity_now) THEN
    was := COALESCE(was, identity_now);
  END IF;
  IF replica_identity IN ('keep', identity_now) AND @extschema@.has_trigger(relation, arguments || array_remove(ARRAY['identity=' || was], NULL)) THEN
    RETURN;
  END IF;
  IF replica_identity <> 'keep' THEN
    -- First, and in any case, since this takes the stronger lock: a session that has read the table and waits to write
    -- it would wait for us, and we for it.
    EXECUTE format('ALTER TABLE ONLY %s REPLICA IDENTITY %s', relation, replica_identity);
    was := COALESCE(@extschema@.identity_before(relation), was);
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
  key_column text;
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
  ELSIF array_position(ignore_columns, NULL) > 0 OR array_position(mask_columns, NULL) > 0 THEN
    RAISE EXCEPTION 'a column of ignore_columns or mask_columns is NULL' USING ERRCODE = 'null_value_not_allowed';
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
    SELECT quote_ident(c) INTO key_column FROM unnest(mask_columns) c
    JOIN pg_attribute a ON a.attrelid = member AND a.attname = c
    JOIN pg_index i ON i.indrelid = member AND (i.indisprimary OR i.indisreplident) AND a.attnum = ANY (i.indkey) LIMIT 1;
    IF FOUND THEN
      RAISE EXCEPTION 'the column % of % cannot be masked, since it belongs to the key', key_column, member USING
        ERRCODE = 'feature_not_supported', HINT = 'Its rows could not be told apart any more. Mask other columns, or give the table another key.';
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
    RAISE NOTICE 'statements that name a table that inherits from % carry the context only if that is tracked too: %', relation, children;
  END IF;
END
$$;

COMMENT ON FUNCTION @extschema@.track(regclass, text, name[], name[]) IS
'has the changes of a table, and of its partitions, carry the context; called again, it replaces the rules';

CREATE FUNCTION @extschema@.untrack(relation regclass) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  trigger record;
BEGIN
  FOR trigger IN
    SELECT member, t.name, (@extschema@.rules(t.arguments, 'identity'))[1] AS identity
    FROM @extschema@.tree(untrack.relation) member JOIN @extschema@.context_triggers t ON t.relation = member
  LOOP
    -- Somebody else may have done it meanwhile.
    EXECUTE format('DROP TRIGGER IF EXISTS %I ON %s', trigger.name, trigger.member);
    IF trigger.identity IS NOT NULL THEN
      PERFORM @extschema@.set_identity(trigger.member, trigger.identity);
    END IF;
  END LOOP;
END
$$;

COMMENT ON FUNCTION @extschema@.untrack(regclass) IS
'has the changes of a table, and of its partitions, no longer carry the context, and puts back the replica identity that was there before';

CREATE VIEW @extschema@.tracked AS
SELECT
  t.relation::regclass AS relation,
  CASE c.relreplident WHEN 'f' THEN 'full' WHEN 'n' THEN 'nothing' WHEN 'i' THEN 'index' ELSE 'default' END AS replica_identity,
  @extschema@.rules(t.arguments, 'ignore')::name[] AS ignore_columns,
  @extschema@.rules(t.arguments, 'mask')::name[] AS mask_columns,
  ARRAY(
    SELECT 'the trigger is disabled' WHERE t.enabled = 'D'
    UNION ALL SELECT 'the trigger fires only for replicated changes' WHERE t.enabled = 'R'
    UNION ALL SELECT pg_catalog.format('there is no column %I to %s', value, kind)
      FROM pg_catalog.unnest('{ignore,mask}'::text[]) kind, pg_catalog.unnest(@extschema@.rules(t.arguments, kind)) value
      WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attname = value AND a.attnum > 0 AND NOT a.attisdropped)
    UNION ALL SELECT pg_catalog.format('the rule %L has no meaning', value)
      FROM pg_catalog.unnest(@extschema@.rules(t.arguments, 'unknown')) value
    UNION ALL SELECT pg_catalog.format('the masked column %I belongs to the key, which is shown as masked', a.attname)
      FROM pg_catalog.unnest(@extschema@.rules(t.arguments, 'mask')) value
      JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = value
      WHERE EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND (i.indisprimary OR i.indisreplident) AND a.attnum = ANY (i.indkey))
    UNION ALL SELECT CASE WHEN @extschema@.identity_index(c.oid) IS NULL THEN 'the log does not say which rows are updated or deleted'
        ELSE 'the log has only the key of a row before its change' END
      WHERE c.relreplident <> 'f' AND c.relkind = 'r'
    UNION ALL SELECT 'ignored columns are not ignored, since the log has not the whole row before a change'
      WHERE c.relreplident <> 'f' AND c.relkind = 'r' AND pg_catalog.cardinality(@extschema@.rules(t.arguments, 'ignore')) > 0
    UNION ALL SELECT pg_catalog.format('the partition %s is not tracked', p.relid)
      FROM pg_catalog.pg_partition_tree(c.oid) p JOIN pg_catalog.pg_class pc ON pc.oid = p.relid AND pc.relkind IN ('r', 'p')
      WHERE p.level > 0 AND NOT EXISTS (SELECT FROM @extschema@.context_triggers o WHERE o.relation = p.relid)
  ) AS missing
FROM @extschema@.context_triggers t JOIN pg_catalog.pg_class c ON c.oid = t.relation;

GRANT SELECT ON @extschema@.tracked TO PUBLIC;

COMMENT ON VIEW @extschema@.tracked IS
'the tables whose changes carry the context, their rules, and what is missing';
