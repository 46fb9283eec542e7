-- Waiting for the recorder, and what it does.

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
    RAISE EXCEPTION 'the recorder does not run on a standby'
      USING ERRCODE = 'object_not_in_prerequisite_state',
        HINT = 'Call bemi.sync() on the primary. bemi.changes can be read on the standby too.';
  END IF;
  target := pg_current_wal_insert_lsn();
  -- A page of WAL begins with a header, which belongs to no record yet.
  IF (target - '0/0') % current_setting('wal_block_size')::int <= 40 THEN
    target := target - (target - '0/0') % current_setting('wal_block_size')::int;
  END IF;
  IF to_regclass('bemi.recorder') IS NOT NULL THEN
    PERFORM bemi.require_readable();
    SELECT r.slot INTO slot FROM bemi.recorder r WHERE r.is_wanted;
  END IF;
  LOOP
    -- An idle worker shows how far it has recorded everything, which it confirms later.
    SELECT greatest(s.confirmed_flush_lsn,
      substring(a.query FROM '^bemi recorder: recording up to ([0-9A-F]+/[0-9A-F]+)$')::pg_lsn)
    INTO reached
    FROM pg_replication_slots s
      LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid AND a.backend_type = 'bemi recorder' AND a.state = 'idle'
    WHERE s.slot_name = slot
      AND s.database = current_database()
      AND s.wal_status <> 'lost';
    -- Another reader of the slot records nothing.
    IF NOT FOUND OR (reached >= target OR NOT is_flushed) AND bemi.slot_problem() IS NOT NULL THEN
      RAISE EXCEPTION 'the changes of this database are not recorded: %', (SELECT state FROM bemi.recorder_status())
        USING ERRCODE = 'object_not_in_prerequisite_state',
          HINT = COALESCE((SELECT fix FROM bemi.recorder_status()), 'SELECT bemi.start();');
    ELSIF reached >= target THEN
      RETURN;
    ELSIF NOT is_flushed THEN
      -- Otherwise uncommitted changes of others might keep the end of WAL in memory.
      PERFORM bemi.flush_log(target);
      is_flushed := true;
    ELSIF clock_timestamp() > until THEN
      RAISE EXCEPTION 'not everything was recorded within %', timeout
        USING ERRCODE = 'query_canceled',
          DETAIL = format('%s of WAL are left.', pg_size_pretty(target - reached)),
          HINT = 'SELECT * FROM bemi.status; shows why.';
    END IF;
    PERFORM pg_stat_clear_snapshot();
    -- It confirms when it is woken. Once is enough, except for a worker that was started in between.
    IF clock_timestamp() > woken + interval '100 ms' THEN
      PERFORM bemi.wake(bemi.recorder_pid());
      woken := clock_timestamp();
    END IF;
    PERFORM pg_sleep(0.002);
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.sync(interval) IS
'waits until everything that was committed before the call is recorded';

-- A worker that was ended, or has lost its slot, could not always write that to its state.
CREATE FUNCTION bemi.explained_state(
  pid int, problem text, recorded_position pg_lsn, INOUT state text, OUT detail text, OUT fix text
)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  known record;
BEGIN
  SELECT * INTO known FROM bemi.recorder;
  IF pg_is_in_recovery() THEN
    state := 'standby';
    detail := 'the primary records, and bemi.changes is replicated';
  ELSIF problem IS NOT NULL THEN
    state := bemi.problem_kind(problem);
    detail := format('%s: changes after %s are missing', problem, recorded_position);
    fix := bemi.accept_gap_fix();
  ELSIF pid IS NULL AND state <> 'stopped' THEN
    state := 'not running';
    detail := 'the server restarts a worker that ended within seconds';
    -- What made it end still has to be fixed.
    fix := CASE WHEN known.state = 'waiting' THEN COALESCE(known.last_fix || E'\n', '') ELSE '' END
      || 'SELECT bemi.start();';
  ELSIF state = 'stopped' THEN
    detail := CASE WHEN known.slot IS NULL THEN 'changes made now are not recorded later'
      ELSE 'the server keeps WAL for it' END;
    fix := 'SELECT bemi.start();' || CASE WHEN known.slot IS NULL THEN ''
      ELSE ' -- or, to give up what is not recorded: SELECT bemi.stop(drop_slot => true);' END;
  ELSIF state = 'waiting' THEN
    detail := known.last_error;
    fix := known.last_fix;
  ELSIF bemi.has_strays('1000-01-01 00:00:00+00'::timestamptz, '9999-12-01 00:00:00+00'::timestamptz) THEN
    -- Changes of other times stay in the default partition.
    detail := 'bemi.changes_default contains changes of months that have no partition';
    fix := format('SELECT bemi.add_partition(%L);', (
      SELECT min(committed_at)
      FROM bemi.changes_default
      WHERE committed_at >= '1000-01-01 00:00:00+00'::timestamptz));
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.explained_state(int, text, pg_lsn, text) IS
'returns the state of the recorder, given its own account of it, what that means, and what to do';

CREATE FUNCTION bemi.recorder_lag(
  state text, is_idle boolean, busy_since timestamptz, recorded_position pg_lsn, committed_at timestamptz,
  OUT lag_bytes numeric, OUT lag_seconds numeric
)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT pg_is_in_recovery() THEN
    lag_bytes := greatest(pg_wal_lsn_diff(pg_current_wal_flush_lsn(), recorded_position), 0);
    -- An idle worker has recorded everything, but confirms WAL without changes only by CONFIRM
    -- (src/recorder/state.rs). A worker that is further behind is not idle, whatever it shows.
    IF state = 'recording' AND is_idle AND lag_bytes < 2 * 1048576 THEN
      lag_bytes := 0;
    END IF;
  END IF;
  lag_seconds := CASE
    WHEN lag_bytes = 0 OR state = 'recording' AND is_idle THEN 0
    -- A worker that is not idle is behind by no more than this.
    WHEN state = 'recording' THEN round(extract(epoch FROM clock_timestamp() - busy_since), 3)
    -- Replication tools set the time of commits, which may be any.
    WHEN isfinite(committed_at) THEN
      greatest(round(extract(epoch FROM clock_timestamp()) - extract(epoch FROM committed_at), 3), 0)
    END;
END
$$;

COMMENT ON FUNCTION bemi.recorder_lag(text, boolean, timestamptz, pg_lsn, timestamptz) IS
'returns how far the recorder is behind, in bytes of WAL and in seconds';

CREATE FUNCTION bemi.first_unsafe() RETURNS TABLE (detail text, fix text)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
    SELECT f.detail, f.fix
    FROM (
      SELECT t.* FROM bemi.unsafe_tables(bemi.own_tables()) t
      UNION ALL
      SELECT c.* FROM bemi.unsafe_code(bemi.own_tables()) c
    ) f
    LIMIT 1;
END
$$;

COMMENT ON FUNCTION bemi.first_unsafe() IS
'returns a reason for which the recorder writes nothing, and the statement that ends it, if there is one';

CREATE FUNCTION bemi.recorder_status(
  OUT state text, OUT since timestamptz, OUT detail text, OUT fix text, OUT last_error text,
  OUT last_error_at timestamptz, OUT pid int, OUT slot name, OUT recorded_position pg_lsn, OUT lag_bytes numeric,
  OUT lag_seconds numeric, OUT transactions bigint, OUT changes bigint, OUT spilled_bytes bigint
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
    -- Then the worker does not read it either.
    GET STACKED DIAGNOSTICS detail = MESSAGE_TEXT, fix = PG_EXCEPTION_HINT;
    state := 'waiting';
    last_error := detail;
    pid := bemi.recorder_pid();
    RETURN;
  END;
  lost := CASE WHEN NOT pg_is_in_recovery() THEN bemi.slot_problem() END;
  SELECT * INTO known FROM bemi.recorder;
  SELECT a.pid, a.state = 'idle' AS is_idle, a.state_change
  INTO worker
  FROM pg_stat_activity a
  WHERE a.pid = bemi.recorder_pid();
  SELECT s.confirmed_flush_lsn INTO recorded_position FROM bemi.recorder_slots() s WHERE s.slot_name = known.slot;
  IF lost IS NOT NULL THEN
    recorded_position := bemi.recorded_until(lost);
  END IF;
  pid := worker.pid;
  slot := known.slot;
  since := known.state_since;
  last_error := known.last_error;
  last_error_at := known.last_error_at;
  transactions := known.transactions;
  changes := known.changes;
  spilled_bytes := known.spilled_bytes;
  SELECT e.state, e.detail, e.fix
  INTO state, detail, fix
  FROM bemi.explained_state(pid, lost, recorded_position, known.state) e;
  -- Then the worker writes nothing, not even that.
  IF state IN ('starting', 'catching up', 'recording', 'waiting') THEN
    SELECT u.detail, u.fix INTO unsafe FROM bemi.first_unsafe() u;
    IF FOUND THEN
      state := 'waiting';
      detail := unsafe.detail;
      fix := unsafe.fix;
      last_error := unsafe.detail;
    END IF;
  END IF;
  recorded_position := COALESCE(recorded_position, known.read_position);
  SELECT l.lag_bytes, l.lag_seconds
  INTO lag_bytes, lag_seconds
  FROM bemi.recorder_lag(state, worker.is_idle, worker.state_change, recorded_position, known.committed_at) l;
END
$$;

COMMENT ON FUNCTION bemi.recorder_status() IS
'returns what the recorder of this database does';

CREATE VIEW bemi.status AS
SELECT * FROM bemi.recorder_status();

COMMENT ON VIEW bemi.status IS
'what the recorder of this database does, how far it is, and its last error';

REVOKE EXECUTE ON FUNCTION bemi.recorder_status() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION bemi.recorder_status() TO pg_monitor;
GRANT SELECT ON bemi.status TO pg_monitor;
