-- Sources: the servers and databases whose WAL changes were read from. A dump that is restored brings those of others
-- along.

-- Tables that were restored from a dump have other OIDs than those that the recorder created, even in the same
-- database; pg_upgrade and base backups keep them.
CREATE FUNCTION bemi.present_source(OUT system_identifier bigint, OUT database_oid oid, OUT tables oid[]) RETURNS record
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  system_identifier := (SELECT c.system_identifier FROM pg_control_system() c);
  database_oid := (SELECT d.oid FROM pg_database d WHERE d.datname = current_database());
  tables := ARRAY[to_regclass('bemi.changes'), to_regclass('bemi.recorder'), to_regclass('bemi.sources'),
    to_regclass('bemi.recorded_versions')]::oid[];
END
$$;

COMMENT ON FUNCTION bemi.present_source() IS
'returns what distinguishes the source that is recorded here from others';

-- Begins a new source if the last one is another; the first one only if may_be_first. Returns 0 while there is none:
-- what comes before everything that is recorded.
CREATE FUNCTION bemi.current_source(may_be_first boolean DEFAULT false, first_position pg_lsn DEFAULT NULL) RETURNS int
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  here record;
  last record;
  result int;
BEGIN
  IF to_regclass('bemi.sources') IS NULL THEN
    RETURN 0;
  END IF;
  here := bemi.present_source();
  FOR attempt IN 1..2 LOOP
    SELECT s.* INTO last FROM bemi.sources s ORDER BY s.source DESC LIMIT 1;
    -- While a dump is restored, a table may not exist or contain its rows yet.
    IF (last.system_identifier, last.database_oid, last.tables)
        = (here.system_identifier, here.database_oid, here.tables)
      OR last.source IS NULL AND NOT may_be_first
      OR array_position(here.tables, NULL) IS NOT NULL
    THEN
      IF may_be_first THEN
        PERFORM bemi.adopt_versions();
      END IF;
      RETURN COALESCE(last.source, 0);
    END IF;
    -- Only one session begins it.
    LOCK TABLE bemi.sources IN SHARE ROW EXCLUSIVE MODE;
  END LOOP;
  PERFORM bemi.require_safe_tables(
    ARRAY['bemi.sources', 'bemi.table_versions', 'bemi.recorded_versions']::regclass[]::oid[]);
  result := 1 + greatest(last.source, (SELECT max(c.source) FROM bemi.changes c),
    (SELECT max(v.source) FROM bemi.table_versions v), 0);
  first_position := COALESCE(first_position, pg_current_wal_insert_lsn());
  UPDATE bemi.sources s SET until = clock_timestamp() WHERE s.until IS NULL;
  INSERT INTO bemi.sources (
    source, name, system_identifier, database, first_position, since, database_oid, tables)
  VALUES (
    result, COALESCE(NULLIF(current_setting('cluster_name'), ''), current_database()), here.system_identifier,
    current_database(), first_position, clock_timestamp(), here.database_oid, here.tables);
  -- Sessions that note a version ask for the source first.
  LOCK TABLE bemi.table_versions IN SHARE ROW EXCLUSIVE MODE;
  PERFORM bemi.adopt_versions();
  -- These come from no dump: they are of this source.
  UPDATE bemi.table_versions v SET source = result WHERE v.source = 0;
  PERFORM bemi.keep_versions();
  RETURN result;
END
$$;

COMMENT ON FUNCTION bemi.current_source(boolean, pg_lsn) IS
'returns the number of the source that is recorded here; begins it if the last one is different';

-- For the recorder, which holds its slot: pg_upgrade keeps the slot, and makes another server.
CREATE FUNCTION bemi.continue_source() RETURNS int
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  result int := bemi.current_source(true, (SELECT r.read_position FROM bemi.recorder r));
BEGIN
  UPDATE bemi.recorder r SET source = result WHERE r.source IS DISTINCT FROM result;
  RETURN result;
END
$$;

COMMENT ON FUNCTION bemi.continue_source() IS
'returns the number of the source with which the recorder continues';

CREATE FUNCTION bemi.is_of_another(source int) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  here record := bemi.present_source();
BEGIN
  RETURN to_regclass('bemi.sources') IS NOT NULL AND COALESCE((
    SELECT (s.system_identifier, s.database_oid) <> (here.system_identifier, here.database_oid)
    FROM bemi.sources s
    WHERE s.source = is_of_another.source), false);
END
$$;

COMMENT ON FUNCTION bemi.is_of_another(int) IS
'returns whether a source is another server or another database than this one';

-- A dump that is restored over these tables brings others, with their former progress.
CREATE FUNCTION bemi.is_replaced() RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  known oid[];
BEGIN
  IF to_regclass('bemi.sources') IS NULL OR to_regclass('bemi.recorder') IS NULL THEN
    RETURN true;
  END IF;
  SELECT s.tables
  INTO known
  FROM bemi.recorder r
    JOIN bemi.sources s ON s.source = r.source;
  RETURN known IS DISTINCT FROM (bemi.present_source()).tables;
END
$$;

COMMENT ON FUNCTION bemi.is_replaced() IS
'returns whether the tables of the recorder are others than those that it has written';

CREATE FUNCTION bemi.require_own_trail() RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF bemi.is_replaced() THEN
    RAISE EXCEPTION 'bemi.changes was replaced, as by restoring a dump over it'
      USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'SELECT bemi.start(accept_gap => true);';
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.require_own_trail() IS
'raises an error if the tables of the recorder are others than those that it has written';

-- After versions of these tables were noted, or with NULL after other changes.
CREATE FUNCTION bemi.keep_versions(relations oid[] DEFAULT NULL) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
BEGIN
  PERFORM bemi.require_safe_tables(ARRAY['bemi.recorded_versions'::regclass::oid]);
  IF relations IS NULL THEN
    DELETE FROM bemi.recorded_versions;
    INSERT INTO bemi.recorded_versions
    SELECT v.*
    FROM bemi.table_versions v
    WHERE v.source > 0;
  ELSE
    INSERT INTO bemi.recorded_versions
    SELECT v.*
    FROM bemi.table_versions v
    WHERE v.relation = ANY (relations)
      AND v.source > 0
      AND NOT EXISTS (
        SELECT FROM bemi.recorded_versions r
        WHERE r.relation = v.relation
          AND r.source = v.source
          AND r.position = v.position);
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.keep_versions(oid[]) IS
'copies versions of tables to bemi.recorded_versions, which dumps contain';
