-- bemi.doctor(): what has to hold for the recorded changes to be complete, and the statement that fixes what does not
-- hold.

CREATE FUNCTION bemi.setting(name text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT s.setting FROM pg_settings s WHERE s.name = setting.name
$$;

COMMENT ON FUNCTION bemi.setting(text) IS
'returns a setting of the server, or NULL if the server does not have it or the caller may not see it';

CREATE FUNCTION bemi.doctor_of_libraries() RETURNS TABLE ("check" text, ok boolean, detail text, fix text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  value text;
BEGIN
  "check" := 'output_plugin_libraries';
  value := bemi.setting('output_plugin_libraries');
  -- A list of names: '"a, b"' is one name.
  ok := value IS NULL
    OR regexp_split_to_array(value, '[[:space:]]*,[[:space:]]*') && ARRAY['bemi_decoder', '"bemi_decoder"'];
  detail := CASE
      WHEN value IS NULL THEN 'this server does not have the setting'
      WHEN value IN ('', '""') THEN 'it is empty'
      ELSE format('it is %s', value)
    END || CASE WHEN ok THEN '' ELSE ': the server does not load bemi_decoder' END;
  -- Each name is quoted separately, which also fixes a list that was stored as one name.
  fix := CASE WHEN NOT ok THEN
    format('ALTER SYSTEM SET output_plugin_libraries = %s; SELECT pg_reload_conf();', (
      SELECT string_agg(DISTINCT quote_ident(n), ', ')
      FROM regexp_split_to_table(replace(value, '"', '') || ',bemi_decoder', '[[:space:]]*,[[:space:]]*') n
      WHERE n <> '')) END;
  RETURN NEXT;

  RETURN QUERY SELECT * FROM bemi.doctor_of_library();

  "check" := 'preload';
  fix := NULL;
  IF pg_has_role('pg_read_all_settings', 'USAGE') THEN
    value := concat_ws(', ', nullif(bemi.setting('shared_preload_libraries'), ''),
      nullif(bemi.setting('session_preload_libraries'), ''));
    -- Not needed: the trigger loads the library when it fires for the first time.
    ok := true;
    detail := CASE WHEN regexp_split_to_array(value, '[[:space:]]*,[[:space:]]*') && '{bemi,"$libdir/bemi"}'
      THEN 'bemi is preloaded: contexts of roles and PGOPTIONS are checked at login'
      ELSE 'bemi is loaded at its first use; preloaded, it checks contexts of roles and PGOPTIONS at login' END;
  ELSE
    ok := NULL;
    detail := format('the role %s may not see it; a member of pg_read_all_settings may', quote_ident(current_user));
  END IF;
  RETURN NEXT;
END
$$;

COMMENT ON FUNCTION bemi.doctor_of_libraries() IS
'returns the rows of bemi.doctor() about the library and its loading';

CREATE FUNCTION bemi.doctor_of_capacity() RETURNS TABLE ("check" text, ok boolean, detail text, fix text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  value text;
  used int;
BEGIN
  "check" := 'max_replication_slots';
  SELECT count(*) INTO used FROM pg_replication_slots;
  ok := used < bemi.setting('max_replication_slots')::int
    OR EXISTS (SELECT FROM pg_replication_slots WHERE plugin = 'bemi_decoder' AND database = current_database());
  detail := format('%s of %s slots are in use', used, bemi.setting('max_replication_slots'));
  fix := CASE WHEN NOT ok THEN
    format('ALTER SYSTEM SET max_replication_slots = %s; -- and restart the server', used + 10) END;
  RETURN NEXT;

  "check" := 'max_wal_senders';
  SELECT count(*) INTO used FROM pg_stat_replication;
  ok := used < bemi.setting('max_wal_senders')::int;
  detail := format('%s of %s WAL senders are in use', used, bemi.setting('max_wal_senders'));
  fix := CASE WHEN NOT ok THEN
    format('ALTER SYSTEM SET max_wal_senders = %s; -- and restart the server', used + 10) END;
  RETURN NEXT;

  "check" := 'max_slot_wal_keep_size';
  value := bemi.setting('max_slot_wal_keep_size');
  ok := value::int >= 0;
  detail := CASE WHEN ok
    THEN format('a slot that is not read keeps at most %s of WAL, and is lost after that',
      pg_size_pretty(value::bigint * 1024 * 1024))
    ELSE 'there is no limit: a slot that is not read keeps WAL until the disk is full' END;
  fix := CASE WHEN NOT ok THEN
    'ALTER SYSTEM SET max_slot_wal_keep_size = ''50GB''; SELECT pg_reload_conf(); -- what your disk can spare' END;
  RETURN NEXT;
END
$$;

COMMENT ON FUNCTION bemi.doctor_of_capacity() IS
'returns the rows of bemi.doctor() about the limits on slots, WAL senders and WAL';

-- The slots of other readers of bemi_decoder in this database.
CREATE FUNCTION bemi.doctor_of_slots() RETURNS TABLE ("check" text, ok boolean, detail text, fix text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  value text := bemi.setting('max_slot_wal_keep_size');
  -- A gigabyte, or most of what the limit allows.
  enough numeric := least(1024 ^ 3, CASE WHEN value::int >= 0 THEN value::numeric * 1024 * 1024 * 0.8 END);
  slot record;
BEGIN
  FOR slot IN
    SELECT s.*,
      CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn) END AS kept
    FROM pg_replication_slots s
    WHERE s.plugin = 'bemi_decoder'
      AND s.database = current_database()
      AND s.slot_name IS DISTINCT FROM bemi.recorder_slot()
    ORDER BY s.slot_name
  LOOP
    "check" := format('slot %s', slot.slot_name);
    ok := slot.wal_status IS DISTINCT FROM 'lost'
      AND slot.wal_status IS DISTINCT FROM 'unreserved'
      AND COALESCE(slot.kept, 0) < enough;
    detail := CASE slot.wal_status
      WHEN 'lost' THEN 'the WAL that it needs was removed: changes are missing'
      ELSE format('it is %s and keeps %s of WAL',
          CASE WHEN slot.active THEN 'active' ELSE 'not active' END, COALESCE(pg_size_pretty(slot.kept), 'some'))
        || CASE slot.wal_status WHEN 'unreserved' THEN ', which is about to be removed' ELSE '' END
      END;
    fix := CASE WHEN NOT ok THEN format('SELECT pg_drop_replication_slot(%L); -- or read it', slot.slot_name) END;
    RETURN NEXT;
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.doctor_of_slots() IS
'returns the rows of bemi.doctor() about replication slots for bemi_decoder, except for that of the recorder';

CREATE FUNCTION bemi.doctor_of_recorder() RETURNS TABLE ("check" text, ok boolean, detail text, fix text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  recorder record;
BEGIN
  "check" := 'recorder';
  IF has_function_privilege(current_user, 'bemi.recorder_status()', 'EXECUTE') THEN
    SELECT * INTO recorder FROM bemi.recorder_status();
    ok := recorder.state IN ('never started', 'standby')
      OR recorder.state IN ('starting', 'catching up', 'recording') AND recorder.lag_seconds < 60
        AND recorder.fix IS NULL;
    detail := CASE recorder.state
      WHEN 'standby' THEN recorder.detail
      WHEN 'never started' THEN 'it was never started: changes are left to other readers of WAL'
      ELSE format('it is %s, %s and %s seconds behind', recorder.state, pg_size_pretty(recorder.lag_bytes),
          COALESCE(recorder.lag_seconds::text, 'unknown'))
        || COALESCE(': ' || CASE recorder.state
          WHEN 'waiting' THEN recorder.last_error
          ELSE recorder.detail END, '')
      END;
    ok := COALESCE(ok, false);
    fix := CASE WHEN NOT ok THEN
      COALESCE(recorder.fix, 'SELECT * FROM bemi.status; -- and fix what last_error says, or wait') END;
  ELSE
    ok := NULL;
    detail := format('the role %s may not see it; a member of pg_monitor may', quote_ident(current_user));
    fix := NULL;
  END IF;
  RETURN NEXT;
END
$$;

COMMENT ON FUNCTION bemi.doctor_of_recorder() IS
'returns the row of bemi.doctor() about the recorder';

-- The event triggers of the extension, and what is lost without each.
CREATE FUNCTION bemi.own_event_triggers()
RETURNS TABLE (place int, name text, event text, function text, consequence text)
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  VALUES
    (1, 'bemi_on_ddl', 'ddl_command_end', 'on_ddl',
      'new tables, partitions and renamed columns are not followed'),
    (2, 'bemi_versions', 'ddl_command_end', 'note_ddl',
      'the past of altered tables cannot be read'),
    (3, 'bemi_versions_dropped', 'sql_drop', 'note_ddl',
      'the past of altered tables cannot be read'),
    (4, 'bemi_guard_drops', 'sql_drop', 'guard_drops',
      'recorded changes, and the triggers of tracked tables, can be dropped unnoticed'),
    (5, 'bemi_before_ddl',
      $t$ddl_command_start WHEN TAG IN ('CREATE TRIGGER', 'CREATE RULE', 'DROP TRIGGER')$t$, 'before_ddl',
      'rules can turn tables of bemi into views, and dropped triggers cannot be created again'),
    (6, 'bemi_before_drop',
      $t$ddl_command_start WHEN TAG IN ('DROP EXTENSION', 'DROP SCHEMA', 'DROP OWNED')$t$, 'before_drop',
      'the extension can be dropped while the server keeps WAL for its recorder')
$$;

COMMENT ON FUNCTION bemi.own_event_triggers() IS
'returns the event triggers of the extension, their functions, and what happens without them';

CREATE FUNCTION bemi.doctor_of_triggers() RETURNS TABLE ("check" text, ok boolean, detail text, fix text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  value text := bemi.setting('session_replication_role');
  lacking record;
BEGIN
  "check" := 'session_replication_role';
  ok := value <> 'replica';
  detail := format('it is %s', value)
    || CASE WHEN ok THEN '' ELSE ': triggers do not fire in this session, so its changes carry no context' END;
  fix := CASE WHEN NOT ok THEN 'SET session_replication_role = origin;' END;
  RETURN NEXT;

  "check" := 'event trigger';
  SELECT t.name, t.consequence, e.evtenabled::text AS enabled,
    format('CREATE EVENT TRIGGER %1$s ON %2$s EXECUTE FUNCTION bemi.%3$s(); '
      'ALTER EVENT TRIGGER %1$s ENABLE ALWAYS; ALTER EXTENSION bemi ADD EVENT TRIGGER %1$s;',
      t.name, t.event, t.function) AS again
  INTO lacking
  FROM bemi.own_event_triggers() t
    LEFT JOIN pg_event_trigger e ON e.evtname = t.name
  WHERE e.evtenabled IS DISTINCT FROM 'A'
  ORDER BY t.place
  LIMIT 1;
  -- PostgreSQL 17 and later can disable all of them.
  ok := lacking.name IS NULL AND COALESCE(bemi.setting('event_triggers'), 'on') = 'on';
  detail := CASE
    WHEN ok THEN 'new tables, partitions and renamed columns are followed'
    WHEN lacking.name IS NULL THEN
      'event_triggers is off: new tables, partitions and renamed columns are not followed'
    ELSE format('%s %s: %s', lacking.name,
      CASE WHEN lacking.enabled IS NULL THEN 'does not exist' ELSE 'does not fire in every session' END,
      lacking.consequence)
    END;
  fix := CASE
    WHEN ok THEN NULL
    WHEN lacking.name IS NULL THEN 'SET event_triggers = on;'
    WHEN lacking.enabled IS NULL THEN lacking.again
    ELSE format('ALTER EVENT TRIGGER %s ENABLE ALWAYS;', lacking.name)
    END;
  RETURN NEXT;
END
$$;

COMMENT ON FUNCTION bemi.doctor_of_triggers() IS
'returns the rows of bemi.doctor() about whether triggers fire in this session, and about event triggers';

CREATE FUNCTION bemi.doctor() RETURNS TABLE ("check" text, ok boolean, detail text, fix text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  value text := bemi.setting('wal_level');
BEGIN
  "check" := 'wal_level';
  ok := value = 'logical';
  detail := format('it is %s', value) || CASE WHEN ok THEN '' ELSE ': WAL does not contain changes to decode' END;
  fix := CASE WHEN NOT ok THEN 'ALTER SYSTEM SET wal_level = logical; -- and restart the server' END;
  RETURN NEXT;

  RETURN QUERY SELECT * FROM bemi.doctor_of_libraries();
  RETURN QUERY SELECT * FROM bemi.doctor_of_capacity();
  RETURN QUERY SELECT * FROM bemi.doctor_of_slots();
  RETURN QUERY SELECT * FROM bemi.doctor_of_recorder();
  RETURN QUERY SELECT * FROM bemi.doctor_of_triggers();
  RETURN QUERY SELECT * FROM bemi.doctor_of_tables();
  RETURN QUERY SELECT * FROM bemi.doctor_of_identities();
  RETURN QUERY SELECT * FROM bemi.doctor_of_drops();
  RETURN QUERY SELECT * FROM bemi.doctor_of_rules();
  RETURN QUERY SELECT * FROM bemi.doctor_of_publications();
  RETURN QUERY SELECT * FROM bemi.doctor_of_ownership();
END
$$;

COMMENT ON FUNCTION bemi.doctor() IS
'returns what has to hold for the recorded changes to be complete, whether it does, and the statement that fixes it';

-- For publications that exist already; the event trigger sees those that are created later.
SELECT bemi.warn_of_publications();
