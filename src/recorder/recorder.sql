-- Stage 4: the recorder, a background worker that keeps the table bemi.changes up to date. That table and the recorder's
-- state, bemi.recorder, are made by bemi.start() and belong to no extension, so that what is recorded outlives this one.

CREATE FUNCTION bemi.launch() RETURNS integer
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'bemi_launch';

COMMENT ON FUNCTION bemi.launch() IS
'starts the worker of this database; bemi.start() calls it';

CREATE FUNCTION bemi.wake(pid integer) RETURNS void
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'bemi_wake';

COMMENT ON FUNCTION bemi.wake(integer) IS
'has the worker look at once whether there is something to record';

CREATE FUNCTION bemi.create_slot(slot name) RETURNS void
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'bemi_create_slot';

COMMENT ON FUNCTION bemi.create_slot(name) IS
'makes a replication slot for bemi_decoder, as pg_create_logical_replication_slot does';

CREATE FUNCTION bemi.lock_recorder() RETURNS void
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'bemi_lock_recorder';

COMMENT ON FUNCTION bemi.lock_recorder() IS
'has only one transaction at a time start or stop the recorder';

CREATE FUNCTION bemi.flush_log(until pg_lsn) RETURNS void
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'bemi_flush_log';

COMMENT ON FUNCTION bemi.flush_log(pg_lsn) IS
'has the write-ahead log on disk up to a position';

REVOKE EXECUTE ON FUNCTION bemi.launch(), bemi.wake(integer), bemi.create_slot(name), bemi.lock_recorder(),
  bemi.flush_log(pg_lsn) FROM PUBLIC;

-- Each slot that is made has a name of its own, which never comes again, so that none is taken for one that is lost. The
-- library knows the form of the names too.
CREATE FUNCTION bemi.recorder_slots() RETURNS SETOF pg_catalog.pg_replication_slots
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN QUERY
    SELECT s.*
    FROM pg_replication_slots s
    JOIN pg_database d ON d.datname = s.database
    WHERE d.datname = current_database()
      AND s.plugin = 'bemi_decoder'
      AND starts_with(s.slot_name::text, 'bemi_recorder_' || d.oid || '_');
END
$$;

COMMENT ON FUNCTION bemi.recorder_slots() IS
'the replication slots that recorders made in this database';

CREATE FUNCTION bemi.new_recorder_slot() RETURNS name
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  SELECT format('bemi_recorder_%s_%s', oid, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)::name
  FROM pg_database WHERE datname = current_database()
$$;

COMMENT ON FUNCTION bemi.new_recorder_slot() IS
'a name for a new slot of the recorder';

-- Everyone may know the name: the doctor shows the other slots by themselves.
CREATE FUNCTION bemi.recorder_slot() RETURNS name
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF to_regclass('bemi.recorder') IS NULL THEN
    RETURN NULL;
  END IF;
  PERFORM bemi.require_readable();
  RETURN (SELECT slot FROM bemi.recorder);
EXCEPTION WHEN insufficient_privilege THEN
  -- The doctor says why.
  RETURN NULL;
END
$$;

COMMENT ON FUNCTION bemi.recorder_slot() IS
'the name of the slot of the recorder of this database, if it has one';

CREATE FUNCTION bemi.recorder_pid() RETURNS integer
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  SELECT pid FROM pg_stat_activity WHERE backend_type = 'bemi recorder' AND datname = current_database() ORDER BY backend_start LIMIT 1
$$;

COMMENT ON FUNCTION bemi.recorder_pid() IS
'the process id of the recorder of this database, or NULL if it does not run';

CREATE FUNCTION bemi.end_recorder() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  until timestamptz := clock_timestamp() + interval '30 s';
  pid int;
BEGIN
  LOOP
    PERFORM pg_stat_clear_snapshot();
    pid := bemi.recorder_pid();
    EXIT WHEN pid IS NULL;
    PERFORM pg_terminate_backend(pid);
    PERFORM pg_sleep(0.02);
    IF clock_timestamp() > until THEN
      RAISE EXCEPTION 'the recorder, process %, does not end', pid USING ERRCODE = 'object_in_use', HINT = 'Try again.';
    END IF;
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.end_recorder() IS
'ends the worker of this database, and waits until it has ended';

REVOKE EXECUTE ON FUNCTION bemi.end_recorder() FROM PUBLIC;

-- The worker asks it while it holds the slot, others at any time: the slot is looked at first, since the worker writes into
-- bemi.recorder before it confirms. What is confirmed only goes beyond that when somebody else reads the slot.
CREATE FUNCTION bemi.slot_problem() RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms' AS $$
DECLARE
  slots pg_replication_slots[];
  slot pg_replication_slots;
  known record;
  is_forged boolean;
BEGIN
  SELECT array_agg(s) INTO slots FROM bemi.recorder_slots() s;
  SELECT * INTO known FROM bemi.recorder;
  IF known.slot IS NULL THEN
    RETURN NULL;
  END IF;
  SELECT s.* INTO slot FROM unnest(slots) s WHERE s.slot_name = known.slot;
  IF slot.slot_name IS NULL AND bemi.is_of_another(known.source) THEN
    RETURN 'what is recorded is of another server or database';
  ELSIF slot.slot_name IS NULL THEN
    RETURN 'the slot of the recorder was dropped';
  ELSIF slot.wal_status = 'lost' OR slot.restart_lsn IS NULL OR slot.restart_lsn = '0/0' THEN
    RETURN 'the server no longer keeps the log for the slot of the recorder';
  ELSIF bemi.is_replaced() THEN
    RETURN 'bemi.changes was replaced, as by a dump that was restored over it';
  ELSIF greatest(known.commit_position, known.read_position, known.gap_to) > pg_current_wal_flush_lsn()
    OR known.gap_reason IS NOT NULL AND NOT COALESCE(known.gap_reason IN ('slot lost', 'stopped', 'replaced') AND known.gap_to IS NOT NULL
      AND known.gap_at BETWEEN '2000-01-01' AND clock_timestamp() + interval '1 day' AND known.gap_transaction >= 0, false)
  THEN
    is_forged := true;
  ELSIF known.commit_position > slot.confirmed_flush_lsn AND to_regclass('bemi.changes') IS NOT NULL THEN
    -- Recorded, but not confirmed yet: then its rows are there.
    BEGIN
      EXECUTE 'SELECT NOT EXISTS (SELECT FROM bemi.sources s JOIN bemi.changes c ON c.source = s.source AND c.commit_position = $1 AND c.sequence <= $2)'
        INTO is_forged USING known.commit_position, known.sequence;
    EXCEPTION WHEN lock_not_available THEN
      -- Who asks how the recorder is does not wait for others.
      IF slot.active_pid = pg_backend_pid() THEN
        RAISE;
      END IF;
    END;
  END IF;
  IF is_forged THEN
    RETURN 'the progress in bemi.recorder is not what was recorded';
  ELSIF slot.confirmed_flush_lsn > known.read_position AND NOT COALESCE(slot.active_pid <> pg_backend_pid()
    AND slot.active_pid IN (SELECT a.pid FROM pg_stat_activity a WHERE a.backend_type = 'bemi recorder'), false)
  THEN
    RETURN format('another reader has read the slot of the recorder up to %s', slot.confirmed_flush_lsn);
  END IF;
  RETURN NULL;
END
$$;

COMMENT ON FUNCTION bemi.slot_problem() IS
'why the recorder cannot go on from where it was, or NULL if it can';

REVOKE EXECUTE ON FUNCTION bemi.slot_problem() FROM PUBLIC;

-- The position up to which everything is recorded, as far as the recorder, its slot and its rows agree.
CREATE FUNCTION bemi.recorded_until(problem text) RETURNS pg_lsn
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  known record;
  result pg_lsn;
BEGIN
  SELECT * INTO known FROM bemi.recorder;
  IF problem LIKE 'the progress %' THEN
    SELECT least(s.confirmed_flush_lsn, known.read_position, pg_current_wal_flush_lsn()) INTO result
    FROM bemi.recorder_slots() s WHERE s.slot_name = known.slot;
    RETURN result;
  END IF;
  RETURN greatest(known.read_position, known.commit_position);
END
$$;

COMMENT ON FUNCTION bemi.recorded_until(text) IS
'the position up to which changes are recorded, given what bemi.slot_problem() says';

REVOKE EXECUTE ON FUNCTION bemi.recorded_until(text) FROM PUBLIC;

CREATE FUNCTION bemi.start(accept_gap boolean DEFAULT false) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  problem record;
  known record;
  is_wanted boolean := false;
  slot pg_replication_slots;
  -- Where recording ended, if the slot that knew is lost or was dropped.
  ended pg_lsn;
  reason text;
  lost text;
  old name;
  made name;
BEGIN
  IF pg_is_in_recovery() THEN
    RAISE EXCEPTION 'the recorder cannot be started on a standby' USING
      ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Start it on the primary; bemi.changes is replicated like any table.';
  END IF;
  -- The worker waits for the end of this transaction too.
  PERFORM bemi.lock_recorder();
  PERFORM bemi.require_readable(), bemi.require_safe();
  IF to_regclass('bemi.recorder') IS NOT NULL THEN
    lost := bemi.slot_problem();
    SELECT * INTO known FROM bemi.recorder;
    SELECT * INTO slot FROM bemi.recorder_slots() s WHERE s.slot_name = known.slot;
    reason := CASE WHEN known.slot IS NULL THEN 'stopped' WHEN lost LIKE '%was replaced%' THEN 'replaced' WHEN lost IS NOT NULL THEN 'slot lost' END;
    is_wanted := known.is_wanted AND reason IS NULL;
    ended := bemi.recorded_until(lost);
  ELSIF to_regclass('bemi.changes') IS NOT NULL THEN
    reason := 'slot lost';
    EXECUTE 'SELECT c.commit_position FROM bemi.changes c ORDER BY c.source DESC, c.commit_position DESC LIMIT 1' INTO ended;
  ELSE
    reason := 'new';
  END IF;
  IF is_wanted AND bemi.recorder_pid() IS NOT NULL THEN
    RAISE NOTICE 'the recorder of this database runs already';
    RETURN;
  END IF;
  FOR problem IN
    SELECT d."check", d.detail, d.fix FROM bemi.doctor() d
    WHERE d."check" IN ('wal_level', 'output_plugin_libraries', 'library', 'max_replication_slots') AND NOT d.ok
  LOOP
    RAISE EXCEPTION 'the recorder cannot be started: %: %', problem."check", problem.detail USING
      ERRCODE = 'object_not_in_prerequisite_state', HINT = problem.fix;
  END LOOP;
  PERFORM bemi.warn_of_publications();
  IF reason IN ('slot lost', 'replaced') AND NOT accept_gap THEN
    RAISE EXCEPTION '%: what was changed after % is missing',
      CASE reason WHEN 'replaced' THEN 'bemi.changes was replaced' ELSE 'the slot of the recorder is lost' END, ended USING
      ERRCODE = 'object_not_in_prerequisite_state', DETAIL = COALESCE(lost, 'nothing is known of the slot of the recorder') || '.',
      HINT = 'SELECT bemi.start(accept_gap => true); -- records that there is a gap, and goes on from here';
  END IF;
  -- One that is about to end, or to find that its slot is lost.
  PERFORM bemi.end_recorder();
  -- What a transaction that was rolled back, or the above, left behind.
  FOR old IN SELECT s.slot_name FROM bemi.recorder_slots() s WHERE NOT s.active AND (reason <> 'replaced' OR s.slot_name <> slot.slot_name) LOOP
    PERFORM pg_drop_replication_slot(old);
  END LOOP;
  IF reason = 'replaced' THEN
    -- The log is there from where the other tables ended.
    SELECT * INTO slot FROM bemi.recorder_slots() s WHERE s.slot_name = known.slot;
  ELSIF reason IS NOT NULL THEN
    made := bemi.new_recorder_slot();
    PERFORM bemi.create_slot(made);
    SELECT * INTO slot FROM bemi.recorder_slots() s WHERE s.slot_name = made;
  END IF;

  BEGIN
    PERFORM bemi.make_changes(), bemi.make_changes_diff();
    BEGIN
      PERFORM bemi.keep_partitions(NULL::interval);
    EXCEPTION WHEN lock_not_available THEN
      -- Somebody reads the table: the worker makes them.
    END;
    IF reason IN ('slot lost', 'stopped', 'replaced') THEN
      -- The worker records it first of all. One that was not recorded yet is a part of it.
      UPDATE bemi.recorder r SET gap_reason = CASE WHEN r.gap_reason = 'slot lost' THEN r.gap_reason ELSE reason END,
        gap_from = CASE WHEN lost LIKE 'the progress %' THEN ended WHEN r.gap_source < r.source THEN r.gap_from ELSE least(r.gap_from, ended) END,
        gap_source = COALESCE(r.gap_source, r.source),
        -- Behind what is recorded, if that is not confirmed yet.
        gap_to = CASE WHEN reason = 'replaced' AND r.commit_position >= slot.confirmed_flush_lsn THEN r.commit_position + 1::numeric
          ELSE slot.confirmed_flush_lsn END,
        gap_at = clock_timestamp(), gap_transaction = pg_current_xact_id()::text::bigint & 4294967295, gap_accepted_by = session_user;
    END IF;
    IF reason IS NOT NULL THEN
      UPDATE bemi.recorder r SET source = bemi.current_source(true, slot.confirmed_flush_lsn);
    END IF;
    IF reason = 'replaced' THEN
      UPDATE bemi.recorder r SET read_position = slot.confirmed_flush_lsn;
    ELSIF reason IS NOT NULL THEN
      -- The positions before are those of another slot, or in a dump that was restored, of another cluster.
      UPDATE bemi.recorder r SET slot = slot.slot_name, commit_position = '0/0', sequence = 0, read_position = slot.confirmed_flush_lsn,
        since = CASE WHEN reason = 'new' THEN clock_timestamp() ELSE r.since END;
    END IF;
    UPDATE bemi.recorder r SET is_wanted = true, state = 'starting', state_since = now(), failures = 0;
    PERFORM bemi.launch();
  EXCEPTION WHEN OTHERS OR query_canceled THEN
    IF made IS NOT NULL THEN
      PERFORM pg_drop_replication_slot(made);
    END IF;
    RAISE;
  END;
END
$$;

COMMENT ON FUNCTION bemi.start(boolean) IS
'records all changes of tracked tables from here on in bemi.changes; with accept_gap also where changes before are missing';

CREATE FUNCTION bemi.stop(drop_slot boolean DEFAULT false) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  slot pg_replication_slots;
BEGIN
  PERFORM bemi.lock_recorder();
  -- What it has not recorded is recorded when it is started again. One that the server starts again waits for this
  -- transaction.
  PERFORM bemi.end_recorder();
  IF to_regclass('bemi.recorder') IS NOT NULL THEN
    PERFORM bemi.require_readable(), bemi.require_safe_tables(ARRAY['bemi.recorder'::regclass::oid]);
    UPDATE bemi.recorder r SET is_wanted = false, state = 'stopped', state_since = now();
  END IF;
  IF drop_slot THEN
    FOR slot IN SELECT * FROM bemi.recorder_slots() LOOP
      IF to_regclass('bemi.recorder') IS NOT NULL THEN
        UPDATE bemi.recorder r SET slot = NULL WHERE r.slot = slot.slot_name;
      END IF;
      PERFORM pg_drop_replication_slot(slot.slot_name);
    END LOOP;
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.stop(boolean) IS
'ends recording; with drop_slot the server no longer keeps the log for it, and what is not recorded yet never will be';

REVOKE EXECUTE ON FUNCTION bemi.start(boolean), bemi.stop(boolean) FROM PUBLIC;

CREATE FUNCTION bemi.sync(timeout interval DEFAULT '30 s') RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  target pg_lsn;
  until timestamptz := clock_timestamp() + COALESCE(timeout, '30 s');
  slot name;
  reached pg_lsn;
  is_flushed boolean := false;
  woken timestamptz := '-infinity';
BEGIN
  IF pg_is_in_recovery() THEN
    RAISE EXCEPTION 'a standby records nothing' USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Call it on the primary. bemi.changes, with what is recorded, can be read here too.';
  END IF;
  target := pg_current_wal_insert_lsn();
  -- Behind the end of a page stands the header of the next one, which belongs to no record yet.
  IF (target - '0/0') % current_setting('wal_block_size')::int <= 40 THEN
    target := target - (target - '0/0') % current_setting('wal_block_size')::int;
  END IF;
  IF to_regclass('bemi.recorder') IS NOT NULL THEN
    PERFORM bemi.require_readable();
    SELECT r.slot INTO slot FROM bemi.recorder r WHERE r.is_wanted;
  END IF;
  LOOP
    -- An idle worker shows how far it has recorded everything, which it confirms later.
    SELECT greatest(s.confirmed_flush_lsn, substring(a.query FROM '^bemi recorder: recording up to ([0-9A-F]+/[0-9A-F]+)$')::pg_lsn) INTO reached
    FROM pg_replication_slots s LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid AND a.backend_type = 'bemi recorder' AND a.state = 'idle'
    WHERE s.slot_name = slot AND s.database = current_database() AND s.wal_status <> 'lost';
    -- Who reads the slot in place of the recorder records nothing.
    IF NOT FOUND OR (reached >= target OR NOT is_flushed) AND bemi.slot_problem() IS NOT NULL THEN
      RAISE EXCEPTION 'the changes of this database are not recorded: %', (SELECT state FROM bemi.recorder_status()) USING
        ERRCODE = 'object_not_in_prerequisite_state', HINT = COALESCE((SELECT fix FROM bemi.recorder_status()), 'SELECT bemi.start();');
    ELSIF reached >= target THEN
      RETURN;
    ELSIF NOT is_flushed THEN
      -- Else what others have not committed yet might keep the end of the log in memory.
      PERFORM bemi.flush_log(target);
      is_flushed := true;
    ELSIF clock_timestamp() > until THEN
      RAISE EXCEPTION 'not everything was recorded within %', timeout USING
        ERRCODE = 'query_canceled', DETAIL = format('%s of log are left.', pg_size_pretty(target - reached)), HINT = 'SELECT * FROM bemi.status; says why.';
    END IF;
    PERFORM pg_stat_clear_snapshot();
    -- It writes when it is woken. Once is enough, but for a worker that is started meanwhile.
    IF clock_timestamp() > woken + interval '100 ms' THEN
      PERFORM bemi.wake(bemi.recorder_pid());
      woken := clock_timestamp();
    END IF;
    PERFORM pg_sleep(0.002);
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.sync(interval) IS
'returns when everything that was committed before is recorded';

CREATE FUNCTION bemi.recorder_status(
  OUT state text, OUT since timestamptz, OUT detail text, OUT fix text, OUT last_error text, OUT last_error_at timestamptz, OUT pid int, OUT slot name,
  OUT recorded_position pg_lsn, OUT lag_bytes numeric, OUT lag_seconds numeric, OUT transactions bigint, OUT changes bigint, OUT spilled_bytes bigint
) RETURNS record
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  known record;
  worker record;
  unsafe record;
  lost text;
BEGIN
  IF to_regclass('bemi.recorder') IS NULL THEN
    state := 'never started';
    fix := 'SELECT bemi.start();';
    RETURN;
  END IF;
  BEGIN
    PERFORM bemi.require_readable();
  EXCEPTION WHEN insufficient_privilege THEN
    -- The worker does not read it either then.
    GET STACKED DIAGNOSTICS detail = MESSAGE_TEXT, fix = PG_EXCEPTION_HINT;
    state := 'waiting';
    last_error := detail;
    pid := bemi.recorder_pid();
    RETURN;
  END;
  lost := CASE WHEN NOT pg_is_in_recovery() THEN bemi.slot_problem() END;
  SELECT * INTO known FROM bemi.recorder;
  SELECT a.pid, a.state, a.state_change INTO worker FROM pg_stat_activity a WHERE a.pid = bemi.recorder_pid();
  SELECT s.confirmed_flush_lsn INTO recorded_position FROM bemi.recorder_slots() s WHERE s.slot_name = known.slot;
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
  ELSIF lost IS NOT NULL THEN
    recorded_position := bemi.recorded_until(lost);
    state := CASE WHEN lost LIKE '%was replaced%' THEN 'replaced' ELSE 'slot lost' END;
    detail := format('%s: what was changed after %s is missing', lost, recorded_position);
    fix := 'SELECT bemi.start(accept_gap => true); -- records that there is a gap, and goes on from here';
  ELSIF pid IS NULL AND state <> 'stopped' THEN
    state := 'not running';
    detail := 'a worker that ended is started again within seconds';
    -- Why it ended stays what has to be done.
    fix := CASE WHEN known.state = 'waiting' THEN COALESCE(known.last_fix || E'\n', '') ELSE '' END || 'SELECT bemi.start();';
  ELSIF state = 'stopped' THEN
    detail := CASE WHEN slot IS NULL THEN 'what is changed now is not recorded later' ELSE 'the server keeps the log for it' END;
    fix := 'SELECT bemi.start();' || CASE WHEN slot IS NULL THEN '' ELSE ' -- or, to give up what is not recorded: SELECT bemi.stop(drop_slot => true);' END;
  ELSIF state = 'waiting' THEN
    detail := known.last_error;
    fix := known.last_fix;
  ELSIF bemi.has_strays('1000-01-01 00:00:00+00'::timestamptz, '9999-12-01 00:00:00+00'::timestamptz) THEN
    -- Times beyond stay in the default partition.
    detail := 'bemi.changes_default holds changes of months that have no partition';
    fix := format('SELECT bemi.add_partition(%L);', (SELECT min(committed_at) FROM bemi.changes_default
      WHERE committed_at >= '1000-01-01 00:00:00+00'::timestamptz));
  END IF;
  -- The worker writes nothing then, not even that.
  FOR unsafe IN
    SELECT f.detail, f.fix FROM (
      SELECT t.* FROM bemi.unsafe_tables(bemi.own_tables()) t UNION ALL SELECT c.* FROM bemi.unsafe_code(bemi.own_tables()) c
    ) f WHERE state IN ('starting', 'catching up', 'recording', 'waiting') LIMIT 1
  LOOP
    state := 'waiting';
    detail := unsafe.detail;
    fix := unsafe.fix;
    last_error := unsafe.detail;
  END LOOP;
  recorded_position := COALESCE(recorded_position, known.read_position);
  IF NOT pg_is_in_recovery() THEN
    lag_bytes := greatest(pg_wal_lsn_diff(pg_current_wal_flush_lsn(), recorded_position), 0);
    -- The worker is idle when it has recorded all that there is, but confirms log without changes to record by the megabyte. One
    -- that is further behind is not idle, whatever it says.
    IF state = 'recording' AND worker.state = 'idle' AND lag_bytes < 2 * 1048576 THEN
      lag_bytes := 0;
    END IF;
  END IF;
  -- While it is not idle, it is behind by no more than that.
  lag_seconds := CASE WHEN lag_bytes = 0 OR state = 'recording' AND worker.state = 'idle' THEN 0
    WHEN state = 'recording' THEN round(extract(epoch FROM clock_timestamp() - worker.state_change), 3)
    -- Replication tools pass times on, so that it may be any.
    WHEN isfinite(known.committed_at)
    THEN greatest(round(extract(epoch FROM clock_timestamp()) - extract(epoch FROM known.committed_at), 3), 0) END;
END
$$;

COMMENT ON FUNCTION bemi.recorder_status() IS
'what the recorder of this database does';

CREATE VIEW bemi.status AS SELECT * FROM bemi.recorder_status();

COMMENT ON VIEW bemi.status IS
'what the recorder of this database does, how far it is, and what went wrong last';

REVOKE EXECUTE ON FUNCTION bemi.recorder_status() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION bemi.recorder_status() TO pg_monitor;
GRANT SELECT ON bemi.status TO pg_monitor;

CREATE FUNCTION bemi.before_drop() RETURNS event_trigger
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'bemi_before_drop';

COMMENT ON FUNCTION bemi.before_drop() IS
'for the event trigger: refuses to drop the extension while the server keeps the log for its recorder, and lets go of what is recorded';

CREATE EVENT TRIGGER bemi_before_drop ON ddl_command_start WHEN TAG IN ('DROP EXTENSION', 'DROP SCHEMA', 'DROP OWNED') EXECUTE FUNCTION bemi.before_drop();
ALTER EVENT TRIGGER bemi_before_drop ENABLE ALWAYS;

COMMENT ON EVENT TRIGGER bemi_before_drop IS
'keeps the extension while its recorder has a slot';
