-- What refuses to read or write tables of bemi while a role that is not a superuser could run code that way.

CREATE FUNCTION bemi.unsafe() RETURNS TABLE (detail text, fix text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  tables oid[] := bemi.own_tables();
BEGIN
  -- An object that is found in two ways is returned once.
  RETURN QUERY SELECT o.detail, o.fix FROM bemi.unsafe_objects() o;
  RETURN QUERY
    SELECT t.detail, t.fix
    FROM bemi.unsafe_tables(tables) t
    WHERE NOT EXISTS (SELECT FROM bemi.unsafe_objects() o WHERE o.fix = t.fix);
  RETURN QUERY SELECT c.detail, c.fix FROM bemi.unsafe_code(tables) c;
END
$$;

COMMENT ON FUNCTION bemi.unsafe() IS
'returns where a role that is not a superuser could run code as one, or write what the recorder writes, and the fixes';

CREATE FUNCTION bemi.require_safe() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  wrong record;
BEGIN
  FOR wrong IN SELECT u.detail, u.fix FROM bemi.unsafe() u LOOP
    RAISE EXCEPTION '%', wrong.detail USING ERRCODE = 'insufficient_privilege', HINT = wrong.fix;
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.require_safe() IS
'raises an error if a role that is not a superuser could run code as one, or write what the recorder writes';

CREATE FUNCTION bemi.is_plain(relation oid, is_written boolean) RETURNS boolean
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'bemi_is_plain';

COMMENT ON FUNCTION bemi.is_plain(oid, boolean) IS
'locks a table or view; returns whether only superusers may write it, and reading or writing it runs no code of others';

-- Looks more closely at tables that are not plain. Queries do not see what was committed after the snapshot of their
-- transaction, and whoever runs the statement has chosen that snapshot.
CREATE FUNCTION bemi.refuse_unsafe(relations oid[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  wrong record;
BEGIN
  -- An UPDATE of a table updates its children too.
  WITH RECURSIVE heirs AS (
    SELECT i.inhrelid
    FROM pg_inherits i
    WHERE i.inhparent = ANY (relations)
    UNION
    SELECT i.inhrelid
    FROM heirs h
      JOIN pg_inherits i ON i.inhparent = h.inhrelid
  )
  SELECT relations || COALESCE(array_agg(h.inhrelid), '{}') INTO relations FROM heirs h;
  FOR wrong IN
    SELECT t.detail, t.fix FROM bemi.unsafe_tables(relations) t
    UNION ALL
    SELECT c.detail, c.fix FROM bemi.unsafe_code(relations) c
  LOOP
    RAISE EXCEPTION '%', wrong.detail USING ERRCODE = 'insufficient_privilege', HINT = wrong.fix;
  END LOOP;
  IF current_setting('transaction_isolation') IN ('repeatable read', 'serializable') THEN
    RAISE EXCEPTION 'a transaction with isolation level % does not see everything that is attached to the table %',
        current_setting('transaction_isolation'), relations[1]::regclass
      USING ERRCODE = 'object_not_in_prerequisite_state',
        HINT = 'SET TRANSACTION ISOLATION LEVEL READ COMMITTED; -- at the beginning of the transaction';
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.refuse_unsafe(oid[]) IS
'raises an error if reading or writing some tables or views runs code of others';

-- Called before something reads or writes them as a superuser. A session that waits to put a trigger on one that is
-- written keeps waiting.
CREATE FUNCTION bemi.require_safe_tables(relations oid[], is_written boolean DEFAULT true) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  relation oid;
  others oid[] := '{}';
BEGIN
  FOREACH relation IN ARRAY relations LOOP
    IF NOT bemi.is_plain(relation, is_written) THEN
      others := others || relation;
    END IF;
  END LOOP;
  IF others <> '{}' THEN
    PERFORM bemi.refuse_unsafe(others);
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.require_safe_tables(oid[], boolean) IS
'locks some tables; raises an error if a role that is not a superuser can write them, or run code when they are used';

-- The planner evaluates checks and statistics of a table, and a view runs its query, when it is read. An object with
-- the name of a table of bemi.start() may be something else.
CREATE FUNCTION bemi.require_readable() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM bemi.require_safe_tables(array_remove(ARRAY[
    to_regclass('bemi.recorder'), to_regclass('bemi.sources'), to_regclass('bemi.recorded_versions'),
    to_regclass('bemi.table_versions'), to_regclass('bemi.tracked_schemas'), to_regclass('bemi.dropped_triggers'),
    to_regclass('bemi.context_triggers')]::oid[], NULL::oid), false);
END
$$;

COMMENT ON FUNCTION bemi.require_readable() IS
'raises an error if reading a table or view that functions of the extension read as a superuser runs code of others';

-- Default privileges may grant rights on a new table to others.
CREATE FUNCTION bemi.own_alone(relation regclass) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  other record;
BEGIN
  FOR other IN
    SELECT DISTINCT COALESCE(quote_ident(r.rolname), 'PUBLIC') AS grantee
    FROM pg_class c,
      LATERAL (
        SELECT e.grantee FROM aclexplode(c.relacl) e
        UNION ALL
        SELECT e.grantee FROM pg_attribute t, aclexplode(t.attacl) e WHERE t.attrelid = c.oid AND t.attacl IS NOT NULL
      ) a
      LEFT JOIN pg_roles r ON r.oid = a.grantee
    WHERE c.oid = relation
      AND a.grantee <> c.relowner
  LOOP
    EXECUTE format('REVOKE ALL ON %s FROM %s CASCADE', relation, other.grantee);
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.own_alone(regclass) IS
'revokes all rights on a table from everyone but its owner';

-- As far as the tables of an earlier installation, and what is in the schema, can be checked already.
SELECT bemi.require_safe();
