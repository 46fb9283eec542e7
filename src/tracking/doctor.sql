-- What has to hold for the trail to be whole, and the statement that mends what does not.

-- A setting; NULL if the server has not got it, or the caller may not see it.
CREATE FUNCTION bemi.setting(name text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT s.setting FROM pg_settings s WHERE s.name = setting.name
$$;

COMMENT ON FUNCTION bemi.setting(text) IS
'a setting of the server, or NULL if the caller may not see it';

CREATE FUNCTION bemi.doctor() RETURNS TABLE ("check" text, ok boolean, detail text, fix text)
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
  value := bemi.setting('wal_level');
  ok := value = 'logical';
  detail := format('it is %s', value) || CASE WHEN ok THEN '' ELSE ': the log has no changes to decode' END;
  fix := CASE WHEN NOT ok THEN 'ALTER SYSTEM SET wal_level = logical; -- and restart the server' END;
  RETURN NEXT;

  "check" := 'output_plugin_libraries';
  value := bemi.setting('output_plugin_libraries');
  -- A list of names: '"a, b"' is one name.
  ok := value IS NULL OR regexp_split_to_array(value, '[[:space:]]*,[[:space:]]*') && ARRAY['bemi_decoder', '"bemi_decoder"'];
  detail := CASE WHEN value IS NULL THEN 'this server does not ask for it' WHEN value IN ('', '""') THEN 'it is empty' ELSE format('it is %s', value) END
    || CASE WHEN ok THEN '' ELSE ': the server refuses to start bemi_decoder' END;
  -- Each name quoted by itself, so that a list that was taken for one name is mended too.
  fix := CASE WHEN NOT ok THEN format('ALTER SYSTEM SET output_plugin_libraries = %s; SELECT pg_reload_conf();',
    (SELECT string_agg(DISTINCT quote_ident(n), ', ')
     FROM regexp_split_to_table(replace(value, '"', '') || ',bemi_decoder', '[[:space:]]*,[[:space:]]*') n WHERE n <> '')) END;
  RETURN NEXT;

  RETURN QUERY SELECT * FROM bemi.doctor_of_library();

  "check" := 'preload';
  IF sees_settings THEN
    value := concat_ws(', ', nullif(bemi.setting('shared_preload_libraries'), ''), nullif(bemi.setting('session_preload_libraries'), ''));
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
  ok := used < bemi.setting('max_replication_slots')::int OR EXISTS (SELECT FROM pg_replication_slots WHERE plugin = 'bemi_decoder' AND database = current_database());
  detail := format('%s of %s slots are in use', used, bemi.setting('max_replication_slots'));
  fix := CASE WHEN NOT ok THEN format('ALTER SYSTEM SET max_replication_slots = %s; -- and restart the server', used + 10) END;
  RETURN NEXT;

  "check" := 'max_wal_senders';
  SELECT count(*) INTO used FROM pg_stat_replication;
  ok := used < bemi.setting('max_wal_senders')::int;
  detail := format('%s of %s senders are in use', used, bemi.setting('max_wal_senders'));
  fix := CASE WHEN NOT ok THEN format('ALTER SYSTEM SET max_wal_senders = %s; -- and restart the server', used + 10) END;
  RETURN NEXT;

  "check" := 'max_slot_wal_keep_size';
  value := bemi.setting('max_slot_wal_keep_size');
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
      AND s.slot_name IS DISTINCT FROM bemi.recorder_slot() ORDER BY s.slot_name
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
  IF has_function_privilege(current_user, 'bemi.recorder_status()', 'EXECUTE') THEN
    SELECT * INTO recorder FROM bemi.recorder_status();
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
  value := bemi.setting('session_replication_role');
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
    (3, 'bemi_versions_dropped', 'sql_drop', 'note_ddl', 'the past of tables that are changed cannot be read'),
    (4, 'bemi_guard_drops', 'sql_drop', 'guard_drops', 'what is recorded, and the triggers of tracked tables, can be dropped unseen'),
    (5, 'bemi_before_ddl', $t$ddl_command_start WHEN TAG IN ('CREATE TRIGGER', 'CREATE RULE', 'DROP TRIGGER')$t$, 'before_ddl',
      'rules can make views of the tables of bemi, and triggers that are dropped cannot be put back'),
    (6, 'bemi_before_drop', $t$ddl_command_start WHEN TAG IN ('DROP EXTENSION', 'DROP SCHEMA', 'DROP OWNED')$t$, 'before_drop',
      'the extension can be dropped while the server keeps the log for its recorder')
  ) AS t (place, name, event, function, task) LEFT JOIN pg_event_trigger e ON e.evtname = t.name
  WHERE e.evtenabled IS DISTINCT FROM 'A' ORDER BY t.place LIMIT 1;
  -- PostgreSQL 17 and later can turn all of them off.
  ok := lacking.name IS NULL AND COALESCE(bemi.setting('event_triggers'), 'on') = 'on';
  detail := CASE WHEN ok THEN 'new tables, partitions and renamed columns are followed'
    WHEN lacking.name IS NULL THEN 'event_triggers is off: new tables, partitions and renamed columns are not followed'
    ELSE format('%s %s: %s', lacking.name, CASE WHEN lacking.enabled IS NULL THEN 'is gone' ELSE 'does not fire in every session' END, lacking.task) END;
  fix := CASE WHEN ok THEN NULL
    WHEN lacking.name IS NULL THEN 'SET event_triggers = on;'
    WHEN lacking.enabled IS NULL THEN lacking.again
    ELSE format('ALTER EVENT TRIGGER %s ENABLE ALWAYS;', lacking.name) END;
  RETURN NEXT;

  RETURN QUERY SELECT * FROM bemi.doctor_of_tables();
  RETURN QUERY SELECT * FROM bemi.doctor_of_rules();
  RETURN QUERY SELECT * FROM bemi.doctor_of_publications();
  RETURN QUERY SELECT * FROM bemi.doctor_of_ownership();
END
$$;

COMMENT ON FUNCTION bemi.doctor() IS
'what has to hold for the trail to be whole, whether it does, and the statement that mends it';

-- Those that are there already; those that come are seen by the event trigger.
SELECT bemi.warn_of_publications();
