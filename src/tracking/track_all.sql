-- Tracking whole schemas. Event triggers track the tables that are created, attached or moved there later (follow.sql).

CREATE TABLE bemi.tracked_schemas (schema name PRIMARY KEY);

-- A dump may contain what is there already.
CREATE FUNCTION bemi.pass_over_known_schema() RETURNS trigger
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN CASE WHEN NOT EXISTS (SELECT FROM bemi.tracked_schemas s WHERE s.schema = NEW.schema) THEN NEW END;
END
$$;

COMMENT ON FUNCTION bemi.pass_over_known_schema() IS
'skips rows of the table tracked_schemas that are there already';

CREATE TRIGGER pass_over_known_schema BEFORE INSERT ON bemi.tracked_schemas
FOR EACH ROW EXECUTE FUNCTION bemi.pass_over_known_schema();

-- pg_dump saves its rows.
SELECT pg_catalog.pg_extension_config_dump('bemi.tracked_schemas', '');
GRANT SELECT ON bemi.tracked_schemas TO PUBLIC;

COMMENT ON TABLE bemi.tracked_schemas IS
'the schemas whose future tables are tracked, by bemi.track_all()';

CREATE FUNCTION bemi.trackable(schemas name[]) RETURNS SETOF regclass
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT c.oid::regclass
  FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname = ANY (schemas)
    AND c.relkind IN ('r', 'p')
    AND c.relpersistence = 'p'
    AND NOT EXISTS (
      SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
  -- Partitions after what is above them; otherwise a table before those that it references, in the order in which
  -- writers lock them: it is usually younger.
  ORDER BY c.relispartition, c.oid DESC
$$;

COMMENT ON FUNCTION bemi.trackable(name[]) IS
'returns the permanent tables of schemas that do not belong to an extension';

CREATE FUNCTION bemi.try_lock_tracking() RETURNS boolean
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'bemi_try_lock_tracking';

REVOKE EXECUTE ON FUNCTION bemi.try_lock_tracking() FROM PUBLIC;

COMMENT ON FUNCTION bemi.try_lock_tracking() IS
'makes sessions that create tables wait for this transaction, if no transaction in progress has created one';

-- It never waits in the lock queue: sessions that create tables would wait behind it.
CREATE FUNCTION bemi.await_makers(patience interval DEFAULT '3 s') RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  end_of_patience timestamptz := clock_timestamp() + patience;
BEGIN
  WHILE NOT bemi.try_lock_tracking() LOOP
    IF clock_timestamp() > end_of_patience THEN
      RETURN false;
    END IF;
    PERFORM pg_sleep(0.02);
  END LOOP;
  RETURN true;
END
$$;

REVOKE EXECUTE ON FUNCTION bemi.await_makers(interval) FROM PUBLIC;

COMMENT ON FUNCTION bemi.await_makers(interval) IS
'waits for transactions that have created tables, and makes others wait; returns false if that takes too long';

CREATE FUNCTION bemi.require_schemas(schemas name[]) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  unknown text;
BEGIN
  IF schemas IS NULL THEN
    RAISE EXCEPTION 'bemi cannot track the tables of NULL'
      USING ERRCODE = 'null_value_not_allowed', HINT = 'Name schemas, as in SELECT bemi.track_all(''{public}'').';
  END IF;
  SELECT COALESCE(quote_ident(s), 'NULL')
  INTO unknown
  FROM unnest(schemas) s
  WHERE NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = s)
  LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'schema % does not exist', unknown USING ERRCODE = 'invalid_schema_name';
  END IF;
  SELECT quote_ident(s)
  INTO unknown
  FROM unnest(schemas) s
  WHERE s IN ('bemi', 'information_schema') OR starts_with(s::text, 'pg_')
  LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'the tables of the schema % cannot be tracked', unknown
      USING ERRCODE = 'invalid_parameter_value', HINT = 'Name schemas of your own.';
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.require_schemas(name[]) IS
'raises an error if schemas do not exist or cannot be tracked';

CREATE FUNCTION bemi.track_future(schemas name[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
    -- A session that creates a table now waits for this one, or has created it before the tables are looked up.
    IF NOT bemi.await_makers() THEN
      RAISE WARNING 'transactions in progress have created tables, which may not be tracked'
        USING HINT = format('When they have ended: SELECT bemi.track_all(%L);', schemas);
    END IF;
    PERFORM bemi.require_safe_tables(ARRAY['bemi.tracked_schemas'::regclass::oid]);
    INSERT INTO bemi.tracked_schemas
    SELECT DISTINCT s FROM unnest(schemas) s
    ON CONFLICT DO NOTHING;
  ELSIF EXISTS (SELECT unnest(schemas) EXCEPT SELECT schema FROM bemi.tracked_schemas) THEN
    RAISE WARNING 'tables that are created later will not be tracked: this requires a superuser'
      USING HINT = format('As a superuser: SELECT bemi.track_all(%L);', schemas);
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.track_future(name[]) IS
'tracks tables that will be created in schemas, if the caller is a superuser';

CREATE FUNCTION bemi.track_all(schemas name[] DEFAULT '{public}') RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  relations regclass[];
  relation regclass;
  done int := 0;
  others text;
BEGIN
  PERFORM bemi.require_schemas(schemas);
  PERFORM bemi.track_future(schemas);
  relations := ARRAY(
    SELECT t
    FROM bemi.trackable(schemas) t
      JOIN pg_class c ON c.oid = t
    WHERE pg_has_role(c.relowner, 'USAGE')
      AND NOT EXISTS (SELECT FROM bemi.context_triggers o WHERE o.relation = t));
  FOREACH relation IN ARRAY relations LOOP
    BEGIN
      PERFORM bemi.follow_table(relation, true);
    EXCEPTION WHEN insufficient_resources THEN
      RAISE;
    WHEN OTHERS THEN
      RAISE WARNING 'bemi could not track %: %', relation, SQLERRM
        USING HINT = format('SELECT bemi.track(%L);', relation);
    END;
    done := done + 1;
    IF done % 500 = 0 THEN
      RAISE NOTICE 'tracked % of % tables', done, cardinality(relations);
    END IF;
  END LOOP;
  RAISE NOTICE 'tracked % tables that were not tracked before', (
    SELECT count(*)
    FROM unnest(relations) r
    WHERE EXISTS (SELECT FROM bemi.context_triggers t WHERE t.relation = r));
  SELECT string_agg(t::text, ', ')
  INTO others
  FROM (
    SELECT t
    FROM bemi.trackable(schemas) t
      JOIN pg_class c ON c.oid = t
    WHERE NOT pg_has_role(c.relowner, 'USAGE')
      AND NOT EXISTS (SELECT FROM bemi.context_triggers o WHERE o.relation = t)
    LIMIT 10
  ) AS some_others (t);
  IF others IS NOT NULL THEN
    RAISE WARNING 'some tables are not tracked because you do not own them (at most ten are listed): %', others
      USING HINT = 'Their owners or a superuser can call bemi.track_all().';
  END IF;
  PERFORM bemi.warn_of_publications();
END
$$;

COMMENT ON FUNCTION bemi.track_all(name[]) IS
'tracks all tables of schemas, and those that will be created there';

CREATE FUNCTION bemi.untrack_all() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  relations regclass[];
  relation regclass;
  done int := 0;
  others text;
BEGIN
  IF EXISTS (SELECT FROM bemi.tracked_schemas) THEN
    IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
      PERFORM bemi.require_safe_tables(ARRAY['bemi.tracked_schemas'::regclass::oid]);
      DELETE FROM bemi.tracked_schemas;
    ELSE
      RAISE WARNING 'tables that are created later in the tracked schemas will still be tracked: '
          'ending that requires a superuser'
        USING HINT = 'As a superuser: SELECT bemi.untrack_all();';
    END IF;
  END IF;
  relations := ARRAY(
    SELECT oid
    FROM pg_class c
    WHERE pg_has_role(c.relowner, 'USAGE')
      AND EXISTS (SELECT FROM bemi.context_triggers t WHERE t.relation = c.oid)
    ORDER BY c.relispartition, c.relkind = 'p' DESC, c.oid DESC);
  FOREACH relation IN ARRAY relations LOOP
    BEGIN
      PERFORM bemi.untrack_one(relation);
    EXCEPTION WHEN insufficient_resources THEN
      RAISE;
    WHEN OTHERS THEN
      RAISE WARNING 'bemi could not stop tracking %: %', relation, SQLERRM
        USING HINT = format('SELECT bemi.untrack(%L);', relation);
    END;
    done := done + 1;
    IF done % 500 = 0 THEN
      RAISE NOTICE 'stopped tracking % of % tables', done, cardinality(relations);
    END IF;
  END LOOP;
  SELECT string_agg(t::regclass::text, ', ')
  INTO others
  FROM (SELECT DISTINCT t.relation FROM bemi.context_triggers t LIMIT 10) AS some_others (t);
  IF others IS NOT NULL THEN
    RAISE WARNING 'some tables are still tracked (at most ten are listed): %', others
      USING HINT = 'For tables that you do not own, their owners or a superuser can call bemi.untrack_all().';
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.untrack_all() IS
'stops all tracking, and restores the former replica identities';
