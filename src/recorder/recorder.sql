-- Stage 4: the recorder, a background worker that keeps the table bemi.changes up to date.

CREATE FUNCTION bemi.launch() RETURNS integer
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'bemi_launch';

COMMENT ON FUNCTION bemi.launch() IS
'starts the worker of this database; bemi.start() calls it';

CREATE FUNCTION bemi.wake(pid integer) RETURNS void
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'bemi_wake';

COMMENT ON FUNCTION bemi.wake(integer) IS
'makes the worker check at once whether there is something to record';

CREATE FUNCTION bemi.create_slot(slot name) RETURNS void
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'bemi_create_slot';

COMMENT ON FUNCTION bemi.create_slot(name) IS
'creates a replication slot for bemi_decoder, as pg_create_logical_replication_slot does';

CREATE FUNCTION bemi.lock_recorder() RETURNS void
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'bemi_lock_recorder';

COMMENT ON FUNCTION bemi.lock_recorder() IS
'allows only one transaction at a time to start or stop the recorder';

CREATE FUNCTION bemi.flush_log(until pg_lsn) RETURNS void
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'bemi_flush_log';

COMMENT ON FUNCTION bemi.flush_log(pg_lsn) IS
'flushes WAL to disk up to a position';

REVOKE EXECUTE ON FUNCTION bemi.launch(), bemi.wake(integer), bemi.create_slot(name), bemi.lock_recorder(),
  bemi.flush_log(pg_lsn) FROM PUBLIC;

-- Each slot has a name of its own that is never used again, so that none is mistaken for one that is lost. The
-- library reads these names too (src/recorder/pg/slots.rs).
CREATE FUNCTION bemi.recorder_slot_prefix() RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN (SELECT format('bemi_recorder_%s_', d.oid) FROM pg_database d WHERE d.datname = current_database());
END
$$;

COMMENT ON FUNCTION bemi.recorder_slot_prefix() IS
'returns what the names of the slots of recorders begin with in this database';

CREATE FUNCTION bemi.recorder_slots() RETURNS SETOF pg_catalog.pg_replication_slots
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN QUERY
    SELECT s.*
    FROM pg_replication_slots s
    WHERE s.database = current_database()
      AND s.plugin = 'bemi_decoder'
      AND starts_with(s.slot_name::text, (SELECT bemi.recorder_slot_prefix()));
END
$$;

COMMENT ON FUNCTION bemi.recorder_slots() IS
'returns the replication slots that recorders created in this database';

CREATE FUNCTION bemi.new_recorder_slot() RETURNS name
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  SELECT format('%s%s', bemi.recorder_slot_prefix(), (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)::name
$$;

COMMENT ON FUNCTION bemi.new_recorder_slot() IS
'returns a name for a new slot of the recorder';

-- Everyone may know the name: the doctor shows the other slots separately.
CREATE FUNCTION bemi.recorder_slot() RETURNS name
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF to_regclass('bemi.recorder') IS NULL THEN
    RETURN NULL;
  END IF;
  PERFORM bemi.require_readable();
  RETURN (SELECT slot FROM bemi.recorder);
EXCEPTION WHEN insufficient_privilege THEN
  -- The doctor reports why.
  RETURN NULL;
END
$$;

COMMENT ON FUNCTION bemi.recorder_slot() IS
'returns the name of the slot of the recorder of this database, if it has one';

CREATE FUNCTION bemi.recorder_pid() RETURNS integer
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  SELECT pid
  FROM pg_stat_activity
  WHERE backend_type = 'bemi recorder'
    AND datname = current_database()
  ORDER BY backend_start
  LIMIT 1
$$;

COMMENT ON FUNCTION bemi.recorder_pid() IS
'returns the process ID of the recorder of this database, or NULL if it does not run';

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
      RAISE EXCEPTION 'the recorder, process %, does not end', pid
        USING ERRCODE = 'object_in_use', HINT = 'Try again.';
    END IF;
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.end_recorder() IS
'ends the worker of this database, and waits until it has ended';

REVOKE EXECUTE ON FUNCTION bemi.end_recorder() FROM PUBLIC;

-- Values that the recorder, or bemi.start(), would not have written. Recorded positions are flushed, and a gap is
-- complete.
CREATE FUNCTION bemi.is_forged(known record) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN greatest(known.commit_position, known.read_position, known.gap_to) > pg_current_wal_flush_lsn()
    OR known.gap_reason IS NOT NULL AND NOT COALESCE(
      known.gap_reason IN ('slot lost', 'stopped', 'replaced')
      AND known.gap_to IS NOT NULL
      AND known.gap_at BETWEEN '2000-01-01' AND clock_timestamp() + interval '1 day'
      AND known.gap_transaction >= 0, false);
END
$$;

COMMENT ON FUNCTION bemi.is_forged(record) IS
'returns whether the row of bemi.recorder contains values that neither the recorder nor bemi.start() wrote';

-- The worker calls it while it holds the slot, others at any time: the slot is read first, because the worker writes to
-- bemi.recorder before it confirms. Only another reader of the slot confirms more than is recorded there.
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
    RETURN 'the recorded changes are of another server or database';
  ELSIF slot.slot_name IS NULL THEN
    RETURN 'the slot of the recorder was dropped';
  ELSIF slot.wal_status = 'lost' OR slot.restart_lsn IS NULL OR slot.restart_lsn = '0/0' THEN
    RETURN 'the server has removed WAL that the slot of the recorder needs';
  ELSIF bemi.is_replaced() THEN
    RETURN 'bemi.changes was replaced, as by restoring a dump over it';
  ELSIF bemi.is_forged(known) THEN
    is_forged := true;
  ELSIF known.commit_position > slot.confirmed_flush_lsn AND to_regclass('bemi.changes') IS NOT NULL THEN
    -- Recorded, but not confirmed yet: then its rows are there.
    BEGIN
      EXECUTE 'SELECT NOT EXISTS (
          SELECT FROM bemi.sources s
            JOIN bemi.changes c ON c.source = s.source AND c.commit_position = $1 AND c.sequence <= $2)'
        INTO is_forged USING known.commit_position, known.sequence;
    EXCEPTION WHEN lock_not_available THEN
      -- Asking for the status of the recorder does not wait for others.
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
'returns why the recorder cannot continue from where it was, or NULL if it can';

REVOKE EXECUTE ON FUNCTION bemi.slot_problem() FROM PUBLIC;

CREATE FUNCTION bemi.is_progress_problem(problem text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT COALESCE(problem LIKE 'the progress %', false)
$$;

COMMENT ON FUNCTION bemi.is_progress_problem(text) IS
'returns whether a result of bemi.slot_problem() means that the progress in bemi.recorder cannot be trusted';

CREATE FUNCTION bemi.problem_kind(problem text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE WHEN problem LIKE '%was replaced%' THEN 'replaced' WHEN problem IS NOT NULL THEN 'slot lost' END
$$;

COMMENT ON FUNCTION bemi.problem_kind(text) IS
'returns the state of the recorder, and the reason of the gap, for a result of bemi.slot_problem(); NULL if NULL';

-- As far as the recorder, its slot and its rows agree.
CREATE FUNCTION bemi.recorded_until(problem text) RETURNS pg_lsn
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  known record;
  result pg_lsn;
BEGIN
  SELECT * INTO known FROM bemi.recorder;
  IF bemi.is_progress_problem(problem) THEN
    SELECT least(s.confirmed_flush_lsn, known.read_position, pg_current_wal_flush_lsn())
    INTO result
    FROM bemi.recorder_slots() s
    WHERE s.slot_name = known.slot;
    RETURN result;
  END IF;
  RETURN greatest(known.read_position, known.commit_position);
END
$$;

COMMENT ON FUNCTION bemi.recorded_until(text) IS
'returns the position up to which everything is recorded, given the result of bemi.slot_problem()';

REVOKE EXECUTE ON FUNCTION bemi.recorded_until(text) FROM PUBLIC;

CREATE FUNCTION bemi.before_drop() RETURNS event_trigger
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'bemi_before_drop';

COMMENT ON FUNCTION bemi.before_drop() IS
'refuses to drop the extension while its recorder has a slot, and releases the recorded changes, as an event trigger';

CREATE EVENT TRIGGER bemi_before_drop ON ddl_command_start
WHEN TAG IN ('DROP EXTENSION', 'DROP SCHEMA', 'DROP OWNED')
EXECUTE FUNCTION bemi.before_drop();
ALTER EVENT TRIGGER bemi_before_drop ENABLE ALWAYS;

COMMENT ON EVENT TRIGGER bemi_before_drop IS
'keeps the extension from being dropped while its recorder has a slot';
