-- Stage 4: the recorder, a background worker that keeps the table bemi.changes up to date. The table and its state are made
-- by bemi.start() and belong to no extension, so that what is recorded outlives this one.

CREATE FUNCTION @extschema@.launch() RETURNS integer
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'bemi_launch';

COMMENT ON FUNCTION @extschema@.launch() IS
'starts the worker of this database; bemi.start() calls it';

CREATE FUNCTION @extschema@.wake(pid integer) RETURNS void
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'bemi_wake';

COMMENT ON FUNCTION @extschema@.wake(integer) IS
'has the worker look at once whether there is something to record';

REVOKE EXECUTE ON FUNCTION @extschema@.launch(), @extschema@.wake(integer) FROM PUBLIC;

CREATE FUNCTION @extschema@.recorder_slot() RETURNS name
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT ('bemi_recorder_' || oid)::name FROM pg_database WHERE datname = current_database()
$$;

COMMENT ON FUNCTION @extschema@.recorder_slot() IS
'the name of the replication slot of the recorder in this database';

CREATE FUNCTION @extschema@.recorder_pid() RETURNS integer
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT pid FROM pg_stat_activity WHERE backend_type = 'bemi recorder' AND datname = current_database() ORDER BY backend_start DESC LIMIT 1
$$;

COMMENT ON FUNCTION @extschema@.recorder_pid() IS
'the process id of the recorder of this database, or NULL if it does not run';

-- The partition of bemi.changes for a month.
CREATE FUNCTION @extschema@.add_partition(month date) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
DECLARE
  first date := date_trunc('month', month);
  name text := format('changes_%s', to_char(first, 'YYYY_MM'));
BEGIN
  IF to_regclass(format('@extschema@.%I', name)) IS NULL THEN
    EXECUTE format('CREATE TABLE @extschema@.%I PARTITION OF @extschema@.changes FOR VALUES FROM (%L) TO (%L)',
      name, first::timestamptz, (first + interval '1 month')::timestamptz);
  END IF;
END
$$;

COMMENT ON FUNCTION @extschema@.add_partition(date) IS
'makes the partition of bemi.changes for the month of a day, if it is not there';

CREATE FUNCTION @extschema@.start() RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  slot name := @extschema@.recorder_slot();
  problem record;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('bemi.start', 0));
  IF @extschema@.recorder_pid() IS NOT NULL THEN
    RAISE NOTICE 'the recorder of this database runs already';
    RETURN;
  END IF;
  FOR problem IN SELECT d.detail, d.fix FROM @extschema@.doctor() d WHERE d."check" IN ('wal_level', 'output_plugin_libraries', 'max_replication_slots') AND NOT d.ok LOOP
    RAISE EXCEPTION 'the recorder cannot be started: %', problem.detail USING ERRCODE = 'object_not_in_prerequisite_state', HINT = problem.fix;
  END LOOP;
  IF NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = slot) THEN
    PERFORM pg_create_logical_replication_slot(slot, 'bemi_decoder');
  END IF;
  IF to_regclass('@extschema@.changes') IS NULL THEN
    CREATE TABLE @extschema@.changes (
      id uuid NOT NULL, database text NOT NULL, schema text NOT NULL, "table" text NOT NULL, operation text NOT NULL, primary_key text,
      before jsonb NOT NULL, after jsonb NOT NULL, context jsonb NOT NULL, committed_at timestamptz NOT NULL,
      queued_at timestamptz NOT NULL, created_at timestamptz NOT NULL, transaction_id bigint NOT NULL, position bigint NOT NULL,
      commit_position pg_lsn NOT NULL, sequence int NOT NULL, omitted jsonb, PRIMARY KEY (id, committed_at)
    ) PARTITION BY RANGE (committed_at);
    CREATE INDEX ON @extschema@.changes (schema, "table", primary_key, committed_at);
    CREATE INDEX ON @extschema@.changes (committed_at);
    CREATE INDEX ON @extschema@.changes USING gin (context jsonb_path_ops);
    CREATE TABLE @extschema@.changes_default PARTITION OF @extschema@.changes DEFAULT;
    CREATE TABLE @extschema@.recorder (
      slot name NOT NULL, is_wanted boolean NOT NULL, state text NOT NULL, state_since timestamptz NOT NULL DEFAULT now(), last_error text, last_error_at timestamptz,
      commit_position pg_lsn NOT NULL DEFAULT '0/0', sequence int NOT NULL DEFAULT 0, transactions bigint NOT NULL DEFAULT 0,
      changes bigint NOT NULL DEFAULT 0, spilled_bytes bigint NOT NULL DEFAULT 0, recorded_at timestamptz
    );
    INSERT INTO @extschema@.recorder (slot, is_wanted, state) VALUES (slot, true, 'starting');
  ELSE
    UPDATE @extschema@.recorder SET is_wanted = true;
  END IF;
  PERFORM @extschema@.add_partition(current_date), @extschema@.add_partition((current_date + interval '1 month')::date);
  PERFORM @extschema@.launch();
END
$$;

COMMENT ON FUNCTION @extschema@.start() IS
'records all changes of tracked tables from here on in bemi.changes';

CREATE FUNCTION @extschema@.stop(drop_slot boolean DEFAULT false) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  slot name := @extschema@.recorder_slot();
  until timestamptz := clock_timestamp() + interval '30 s';
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('bemi.start', 0));
  IF to_regclass('@extschema@.recorder') IS NOT NULL THEN
    UPDATE @extschema@.recorder SET is_wanted = false, state = 'stopped', state_since = now();
  END IF;
  -- What it has not recorded is recorded when it is started again.
  WHILE @extschema@.recorder_pid() IS NOT NULL LOOP
    PERFORM pg_terminate_backend(@extschema@.recorder_pid());
    PERFORM pg_sleep(0.05);
    IF clock_timestamp() > until THEN
      RAISE EXCEPTION 'the recorder does not end' USING ERRCODE = 'object_in_use', HINT = 'Try again.';
    END IF;
    PERFORM pg_stat_clear_snapshot();
  END LOOP;
  IF drop_slot AND EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = slot) THEN
    PERFORM pg_drop_replication_slot(slot);
    UPDATE @extschema@.recorder SET commit_position = '0/0', sequence = 0;
  END IF;
END
$$;

COMMENT ON FUNCTION @extschema@.stop(boolean) IS
'ends recording; with drop_slot the server no longer keeps the log for it, and what is not recorded yet never will be';

REVOKE EXECUTE ON FUNCTION @extschema@.start(), @extschema@.stop(boolean) FROM PUBLIC;

CREATE FUNCTION @extschema@.sync(timeout interval DEFAULT '30 s') RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  target pg_lsn := pg_current_wal_insert_lsn();
  until timestamptz := clock_timestamp() + timeout;
  reached pg_lsn;
  pid int;
BEGIN
  -- Behind the end of a page stands the header of the next one, which belongs to no record yet.
  IF (target - '0/0') % current_setting('wal_block_size')::int <= 40 THEN
    target := target - (target - '0/0') % current_setting('wal_block_size')::int;
  END IF;
  LOOP
    SELECT confirmed_flush_lsn INTO reached FROM pg_replication_slots WHERE slot_name = @extschema@.recorder_slot();
    IF NOT FOUND THEN
      RAISE EXCEPTION 'the changes of this database are not recorded' USING
        ERRCODE = 'object_not_in_prerequisite_state', HINT = 'SELECT bemi.start();';
    ELSIF reached >= target THEN
      RETURN;
    ELSIF clock_timestamp() > until THEN
      RAISE EXCEPTION 'not everything was recorded within %', timeout USING
        ERRCODE = 'query_canceled', DETAIL = format('%s of log are left.', pg_size_pretty(target - reached)), HINT = 'SELECT * FROM bemi.status; says why.';
    END IF;
    PERFORM pg_stat_clear_snapshot();
    pid := @extschema@.recorder_pid();
    PERFORM @extschema@.wake(pid);
    PERFORM pg_sleep(0.002);
  END LOOP;
END
$$;

COMMENT ON FUNCTION @extschema@.sync(interval) IS
'returns when everything that was committed before is recorded';

CREATE FUNCTION @extschema@.recorder_status(
  OUT state text, OUT since timestamptz, OUT last_error text, OUT last_error_at timestamptz, OUT pid int, OUT slot name,
  OUT recorded_position pg_lsn, OUT lag_bytes numeric, OUT transactions bigint, OUT changes bigint, OUT spilled_bytes bigint
) RETURNS record
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  pid := @extschema@.recorder_pid();
  slot := @extschema@.recorder_slot();
  SELECT confirmed_flush_lsn, pg_wal_lsn_diff(pg_current_wal_flush_lsn(), confirmed_flush_lsn) INTO recorded_position, lag_bytes
  FROM pg_replication_slots WHERE slot_name = slot;
  IF to_regclass('@extschema@.recorder') IS NULL THEN
    state := 'never started';
    RETURN;
  END IF;
  SELECT r.state, r.state_since, r.last_error, r.last_error_at, r.transactions, r.changes, r.spilled_bytes
  INTO state, since, last_error, last_error_at, transactions, changes, spilled_bytes FROM @extschema@.recorder r;
  -- Whoever was killed could not say so.
  IF pid IS NULL AND state <> 'stopped' THEN
    state := CASE WHEN recorded_position IS NULL THEN 'slot lost' ELSE 'not running' END;
  END IF;
END
$$;

COMMENT ON FUNCTION @extschema@.recorder_status() IS
'what the recorder of this database does';

CREATE VIEW @extschema@.status AS SELECT * FROM @extschema@.recorder_status();

COMMENT ON VIEW @extschema@.status IS
'what the recorder of this database does, how far it is, and what went wrong last';

REVOKE EXECUTE ON FUNCTION @extschema@.recorder_status() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.recorder_status() TO pg_monitor;
GRANT SELECT ON @extschema@.status TO pg_monitor;
