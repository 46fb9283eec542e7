-- Starting and stopping the recorder.

CREATE FUNCTION bemi.require_startable() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  problem record;
BEGIN
  FOR problem IN
    SELECT d."check", d.detail, d.fix
    FROM bemi.doctor() d
    WHERE d."check" IN ('wal_level', 'output_plugin_libraries', 'library', 'max_replication_slots')
      AND NOT d.ok
  LOOP
    RAISE EXCEPTION 'the recorder cannot be started: %: %', problem."check", problem.detail
      USING ERRCODE = 'object_not_in_prerequisite_state', HINT = problem.fix;
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.require_startable() IS
'raises an error if a setting or the version of the library keeps the recorder from starting';

-- The reason is NULL if the recorder can continue from its slot; otherwise 'new', or that of a gap.
CREATE FUNCTION bemi.state_before_start(
  OUT is_wanted boolean, OUT slot name, OUT wanted_slot name, OUT problem text, OUT reason text, OUT ended pg_lsn
)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  known record;
BEGIN
  is_wanted := false;
  IF to_regclass('bemi.recorder') IS NOT NULL THEN
    problem := bemi.slot_problem();
    SELECT * INTO known FROM bemi.recorder;
    wanted_slot := known.slot;
    SELECT s.slot_name INTO slot FROM bemi.recorder_slots() s WHERE s.slot_name = known.slot;
    reason := CASE WHEN known.slot IS NULL THEN 'stopped' ELSE bemi.problem_kind(problem) END;
    is_wanted := known.is_wanted AND reason IS NULL;
    ended := bemi.recorded_until(problem);
  ELSIF to_regclass('bemi.changes') IS NOT NULL THEN
    reason := 'slot lost';
    EXECUTE 'SELECT c.commit_position FROM bemi.changes c ORDER BY c.source DESC, c.commit_position DESC LIMIT 1'
      INTO ended;
  ELSE
    reason := 'new';
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.state_before_start() IS
'returns whether the recorder should run, its slot, and where and why recording ended, if it cannot continue';

CREATE FUNCTION bemi.require_no_gap(reason text, problem text, ended pg_lsn) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF reason IN ('slot lost', 'replaced') THEN
    RAISE EXCEPTION '%: changes after % are missing',
        CASE reason WHEN 'replaced' THEN 'bemi.changes was replaced' ELSE 'the slot of the recorder is lost' END, ended
      USING ERRCODE = 'object_not_in_prerequisite_state',
        DETAIL = COALESCE(problem, 'nothing is known of the slot of the recorder') || '.',
        HINT = bemi.accept_gap_fix();
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.require_no_gap(text, text, pg_lsn) IS
'raises an error if the recorder cannot continue from where it was, and changes are missing';

-- The worker records the gap first of all. An earlier gap that was not recorded yet becomes part of it.
CREATE FUNCTION bemi.note_gap(reason text, problem text, ended pg_lsn, confirmed pg_lsn) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  UPDATE bemi.recorder r SET
    gap_reason = CASE WHEN r.gap_reason = 'slot lost' THEN r.gap_reason ELSE reason END,
    gap_from = CASE
      WHEN bemi.is_progress_problem(problem) THEN ended
      WHEN r.gap_source < r.source THEN r.gap_from
      ELSE least(r.gap_from, ended)
    END,
    gap_source = COALESCE(r.gap_source, r.source),
    -- After what is recorded, if that is not confirmed yet.
    gap_to = CASE
      WHEN reason = 'replaced' AND r.commit_position >= confirmed THEN r.commit_position + 1::numeric
      ELSE confirmed
    END,
    gap_at = clock_timestamp(),
    gap_transaction = pg_current_xact_id()::text::bigint & 4294967295,
    gap_accepted_by = session_user;
END
$$;

COMMENT ON FUNCTION bemi.note_gap(text, text, pg_lsn, pg_lsn) IS
'notes in bemi.recorder that changes up to the confirmed position of the slot are missing';

CREATE FUNCTION bemi.begin_recording(reason text, new_slot name, confirmed pg_lsn) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF reason IS NOT NULL THEN
    UPDATE bemi.recorder r SET source = bemi.current_source(true, confirmed);
  END IF;
  IF reason = 'replaced' THEN
    UPDATE bemi.recorder r SET read_position = confirmed;
  ELSIF reason IS NOT NULL THEN
    -- Former positions are those of another slot or, in a dump that was restored, of another cluster.
    UPDATE bemi.recorder r SET
      slot = new_slot,
      commit_position = '0/0',
      sequence = 0,
      read_position = confirmed,
      since = CASE WHEN reason = 'new' THEN clock_timestamp() ELSE r.since END;
  END IF;
  UPDATE bemi.recorder r SET
    is_wanted = true,
    state = 'starting',
    state_since = now(),
    failures = 0;
END
$$;

COMMENT ON FUNCTION bemi.begin_recording(text, name, pg_lsn) IS
'writes to bemi.recorder that recording begins, and from which slot if it does not continue';

CREATE FUNCTION bemi.start(accept_gap boolean DEFAULT false) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  before record;
  slot pg_replication_slots;
  old name;
  made name;
BEGIN
  IF pg_is_in_recovery() THEN
    RAISE EXCEPTION 'the recorder cannot be started on a standby'
      USING ERRCODE = 'object_not_in_prerequisite_state',
        HINT = 'Start it on the primary; bemi.changes is replicated like any table.';
  END IF;
  -- The worker also waits for the end of this transaction.
  PERFORM bemi.lock_recorder();
  PERFORM bemi.require_readable(), bemi.require_safe();
  before := bemi.state_before_start();
  IF before.is_wanted AND bemi.recorder_pid() IS NOT NULL THEN
    RAISE NOTICE 'the recorder of this database is already running';
    RETURN;
  END IF;
  PERFORM bemi.require_startable(), bemi.warn_of_publications();
  IF NOT accept_gap THEN
    PERFORM bemi.require_no_gap(before.reason, before.problem, before.ended);
  END IF;
  -- A worker that is about to end, or to find that its slot is lost.
  PERFORM bemi.end_recorder();
  -- What a transaction that was rolled back, or such a worker, left.
  FOR old IN
    SELECT s.slot_name
    FROM bemi.recorder_slots() s
    WHERE NOT s.active
      AND (before.reason <> 'replaced' OR s.slot_name <> before.slot)
  LOOP
    PERFORM pg_drop_replication_slot(old);
  END LOOP;
  IF before.reason = 'replaced' THEN
    -- WAL is there from where the other tables ended.
    SELECT * INTO slot FROM bemi.recorder_slots() s WHERE s.slot_name = before.wanted_slot;
  ELSIF before.reason IS NOT NULL THEN
    made := bemi.new_recorder_slot();
    PERFORM bemi.create_slot(made);
    SELECT * INTO slot FROM bemi.recorder_slots() s WHERE s.slot_name = made;
  END IF;

  BEGIN
    PERFORM bemi.make_changes(), bemi.make_changes_diff();
    BEGIN
      PERFORM bemi.keep_partitions(NULL::interval);
    EXCEPTION WHEN lock_not_available THEN
      -- Somebody reads the table: the worker creates them.
    END;
    IF before.reason IN ('slot lost', 'stopped', 'replaced') THEN
      PERFORM bemi.note_gap(before.reason, before.problem, before.ended, slot.confirmed_flush_lsn);
    END IF;
    PERFORM bemi.begin_recording(before.reason, slot.slot_name, slot.confirmed_flush_lsn);
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
'records changes of tracked tables in bemi.changes from now on; with accept_gap, although earlier changes are missing';

CREATE FUNCTION bemi.accept_gap_fix() RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT 'SELECT bemi.start(accept_gap => true); -- records that there is a gap, and continues from here'::text
$$;

COMMENT ON FUNCTION bemi.accept_gap_fix() IS
'returns the statement that starts the recorder although changes are missing';

CREATE FUNCTION bemi.stop(drop_slot boolean DEFAULT false) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  slot pg_replication_slots;
BEGIN
  PERFORM bemi.lock_recorder();
  -- The next start records what is not recorded yet. A worker that the server starts again waits for this transaction.
  PERFORM bemi.end_recorder();
  IF to_regclass('bemi.recorder') IS NOT NULL THEN
    PERFORM bemi.require_readable(), bemi.require_safe_tables(ARRAY['bemi.recorder'::regclass::oid]);
    UPDATE bemi.recorder r SET
      is_wanted = false,
      state = 'stopped',
      state_since = now();
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
'stops recording; with drop_slot, the server removes WAL that is not recorded yet, and those changes are lost';

REVOKE EXECUTE ON FUNCTION bemi.start(boolean), bemi.stop(boolean) FROM PUBLIC;
