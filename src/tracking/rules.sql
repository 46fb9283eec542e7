-- Which tables carry the trigger, by which rules, and which replica identity they have. On a partitioned table the
-- trigger is on every table of the tree, because a statement may name any of them, except for foreign tables, whose
-- changes are not in WAL.
--
-- The functions look up names only in pg_catalog and this schema, whatever search_path the caller has set. They run
-- with the rights of the caller.

CREATE FUNCTION bemi.rules(arguments bytea, kind text) RETURNS text[]
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'bemi_rules';

COMMENT ON FUNCTION bemi.rules(bytea, text) IS
'returns the arguments of a trigger (pg_trigger.tgargs) of a kind: ignore, mask, numbers, identity, unknown, or every';

-- A whole trigger fires before every statement (pg_trigger.h: 2 BEFORE, 4 INSERT, 8 DELETE, 16 UPDATE, 32 TRUNCATE).
-- Functions that look up one table have enable_seqscan off: a plan that was made while pg_trigger was small stays in
-- the session, and would read all of it for each of thousands of tables that are tracked in one call.
CREATE VIEW bemi.context_triggers AS
SELECT
  t.oid,
  t.tgrelid AS relation,
  t.tgname AS name,
  t.tgenabled AS enabled,
  t.tgargs AS arguments,
  t.tgtype = 62 AND t.tgqual IS NULL AND t.tgattr = '' AS is_whole
FROM pg_catalog.pg_trigger t
WHERE t.tgfoid = 'bemi.emit_context()'::regprocedure
  AND NOT t.tgisinternal
  AND t.tgparentid = 0;

GRANT SELECT ON bemi.context_triggers TO PUBLIC;

COMMENT ON VIEW bemi.context_triggers IS
'the triggers that write the context to WAL';

-- Of columns to ignore, only those of the trigger that tracking creates.
CREATE FUNCTION bemi.table_rules(relation regclass, kind text) RETURNS text[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
  SELECT ARRAY(
    SELECT value
    FROM bemi.context_triggers t,
      unnest(bemi.rules(t.arguments, kind)) WITH ORDINALITY AS r (value, place)
    WHERE t.relation = table_rules.relation
      AND (kind <> 'ignore' OR t.name = 'bemi_context')
    GROUP BY value
    ORDER BY min(t.oid), min(place))
$$;

COMMENT ON FUNCTION bemi.table_rules(regclass, text) IS
'returns the rules of a table of a kind: ignore, mask, numbers, identity or unknown';

CREATE FUNCTION bemi.obstacle(relation regclass, OUT message text, OUT hint text) RETURNS SETOF record
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT format('bemi cannot track %s%s', relation, reason), remedy
  FROM pg_class c,
    LATERAL (VALUES
      (c.relnamespace IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
          OR c.oid < 16384 OR c.relkind = 't',
        ', which is part of the system catalogs', 'Changes of system catalogs cannot be tracked.'),
      (c.relnamespace = 'bemi'::regnamespace,
        ', which is part of bemi', NULL),
      (c.relkind = 'v',
        ', which is a view and has no rows of its own', 'Track the tables whose rows it shows.'),
      (c.relkind = 'm',
        ', which is a materialized view: REFRESH creates its rows', 'Track the tables whose rows it shows.'),
      (c.relkind = 'f',
        ', which is a foreign table: its changes are in WAL of another server',
        'Install bemi there and track the table there.'),
      (c.relkind NOT IN ('r', 'p'),
        ', which is not a table', 'Name a table.'),
      (c.relpersistence = 't',
        ', which is a temporary table: its changes are not in WAL', 'Only permanent tables can be tracked.'),
      -- The children of an unlogged table may be logged.
      (c.relpersistence = 'u' AND c.relkind = 'r' AND NOT EXISTS (SELECT FROM pg_inherits WHERE inhparent = c.oid),
        ', which is an unlogged table: its changes are not in WAL',
        format('To log its changes: ALTER TABLE %s SET LOGGED;', relation))
    ) AS obstacles (is_one, reason, remedy)
  WHERE c.oid = relation
    AND is_one
  LIMIT 1
$$;

COMMENT ON FUNCTION bemi.obstacle(regclass) IS
'returns why a relation cannot be tracked, and what to do instead; no row if it can be';

-- Those above first. Changes of the others, foreign and unlogged tables, are not in WAL.
CREATE FUNCTION bemi.tree(relation regclass) RETURNS SETOF regclass
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF (SELECT relkind FROM pg_class WHERE oid = relation) IS DISTINCT FROM 'p' THEN
    RETURN NEXT relation;
  ELSE
    -- Looked up one by one, because the planner does not know how few they are.
    RETURN QUERY
      SELECT relid
      FROM pg_partition_tree(relation)
      WHERE (SELECT relkind = 'p' OR relkind = 'r' AND relpersistence = 'p' FROM pg_class WHERE oid = relid)
      ORDER BY level, relid::oid;
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.tree(regclass) IS
'returns the tables that are tracked with a table: itself and its partitions';

CREATE FUNCTION bemi.identity_index(relation regclass) RETURNS oid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT i.indexrelid
  FROM pg_index i
    JOIN pg_class c ON c.oid = i.indrelid
  WHERE c.oid = relation
    AND CASE c.relreplident
      WHEN 'd' THEN i.indisprimary AND i.indisvalid AND i.indimmediate
      WHEN 'i' THEN i.indisreplident
      ELSE false
    END
  LIMIT 1
$$;

COMMENT ON FUNCTION bemi.identity_index(regclass) IS
'returns the index whose columns identify a row in WAL before its change, if any';

CREATE FUNCTION bemi.key_columns(relation regclass) RETURNS SETOF name
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT DISTINCT a.attname
  FROM pg_index i
    JOIN pg_attribute a ON a.attrelid = i.indrelid
  WHERE i.indrelid = relation
    AND (i.indisprimary OR i.indisreplident)
    AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])
$$;

COMMENT ON FUNCTION bemi.key_columns(regclass) IS
'returns the columns of the primary key and of the index that is the replica identity';

CREATE FUNCTION bemi.identity(relation regclass) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE c.relreplident
    WHEN 'd' THEN 'default'
    WHEN 'n' THEN 'nothing'
    WHEN 'f' THEN 'full'
    ELSE COALESCE(
      'index:' || (SELECT i.relname FROM pg_class i WHERE i.oid = bemi.identity_index(relation)), 'nothing')
    END
  FROM pg_class c
  WHERE c.oid = relation
$$;

COMMENT ON FUNCTION bemi.identity(regclass) IS
'returns the replica identity of a table as a rule writes it: default, nothing, full or index:name';

CREATE FUNCTION bemi.identity_before(relation regclass) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
  SELECT (bemi.rules(t.arguments, 'identity'))[1]
  FROM bemi.context_triggers t
  WHERE t.relation = identity_before.relation
    AND t.name = 'bemi_context'
$$;

COMMENT ON FUNCTION bemi.identity_before(regclass) IS
'returns the replica identity that untrack() restores, if tracking changed it';

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
    -- Anyone may have written anything into the argument of a trigger.
    EXECUTE format('ALTER TABLE ONLY %s REPLICA IDENTITY %s', relation,
      CASE identity WHEN 'full' THEN 'FULL' WHEN 'nothing' THEN 'NOTHING' ELSE 'DEFAULT' END);
  END IF;
  -- Another table may have the name by now.
  IF identity IN ('full', 'nothing', 'default') AND identity <> bemi.identity(relation) THEN
    RAISE EXCEPTION 'the schema of % was renamed concurrently', relation;
  END IF;
EXCEPTION WHEN undefined_object OR object_not_in_prerequisite_state OR wrong_object_type THEN
  RAISE WARNING 'the replica identity of % is now DEFAULT, because it can no longer be the index %: %',
    relation, quote_ident(index), SQLERRM;
  EXECUTE format('ALTER TABLE ONLY %s REPLICA IDENTITY DEFAULT', relation);
END
$$;

COMMENT ON FUNCTION bemi.set_identity(regclass, text) IS
'sets the replica identity of a table to default, nothing, full or index:name';

CREATE FUNCTION bemi.fitting_identity(relation regclass, wanted text, present text, former text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  -- The one that is asked for, unless UPDATE and DELETE would fail with it because of a publication.
  IF wanted NOT IN ('keep', present) AND bemi.identity_problem(relation, wanted) IS NULL THEN
    RETURN wanted;
  -- The former one, if they fail now because of tracking.
  ELSIF former <> present AND bemi.identity_problem(relation, present) IS NOT NULL
    AND bemi.identity_problem(relation, former) IS NULL
  THEN
    RETURN former;
  END IF;
  RETURN present;
END
$$;

COMMENT ON FUNCTION bemi.fitting_identity(regclass, text, text, text) IS
'returns the replica identity that tracking gives a table: the requested one, unless a publication does not allow it';
