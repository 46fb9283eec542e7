-- Undoing changes, by changes of their own: bemi.revert() does it, bemi.revert_sql() shows the statements. All of it
-- runs with the rights of the caller.

CREATE TYPE bemi.reverted AS (
  relation regclass,
  primary_key text,
  operation text,
  status text,
  detail text,
  statement text,
  transaction_id bigint,
  commit_position pg_lsn,
  sequence int
);

-- Returns the statement that undoes a change. One that cannot be written is a comment: the others can be run all the
-- same.
CREATE FUNCTION bemi.shown_statement(t jsonb, u bemi.undo) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  statement text;
BEGIN
  IF u.problem IS NULL THEN
    BEGIN
      statement := bemi.undo_statement(t, u, u.after);
      RETURN statement;
    EXCEPTION WHEN OTHERS THEN
      IF NOT bemi.is_conflict(SQLSTATE, false) THEN
        RAISE;
      END IF;
      u.problem := SQLERRM;
    END;
  END IF;
  RETURN translate(format('-- the %s of the row %s of %s, recorded at %s (sequence %s), cannot be undone: %s',
    u.operation, u.primary_key, t ->> 'name', u.commit_position, u.sequence, u.problem), chr(10) || chr(13), '  ');
END
$$;

COMMENT ON FUNCTION bemi.shown_statement(jsonb, bemi.undo) IS
'the statement that undoes a change, or a comment in SQL why there is none';

CREATE FUNCTION bemi.revert_sql(
  transaction_id bigint DEFAULT NULL, context jsonb DEFAULT NULL, relation regclass DEFAULT NULL,
  primary_key text DEFAULT NULL, since timestamptz DEFAULT NULL, until timestamptz DEFAULT NULL
) RETURNS SETOF text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  u bemi.undo;
  tables jsonb := '{}';
  t jsonb;
BEGIN
  PERFORM bemi.check_reading();
  FOR u IN SELECT * FROM bemi.undos(transaction_id, context, relation, primary_key, since, until, false) LOOP
    IF t ->> 'oid' IS DISTINCT FROM u.relation::oid::text THEN
      t := COALESCE(tables -> u.relation::oid::text, bemi.undo_table(u.relation));
      tables := tables || jsonb_build_object(u.relation::oid::text, t);
    END IF;
    -- Some updates leave nothing that could be set.
    IF u.problem IS NULL AND u.operation = 'UPDATE' AND u.changed = '{}' THEN
      CONTINUE;
    END IF;
    RETURN NEXT bemi.shown_statement(t, u);
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.revert_sql(bigint, jsonb, regclass, text, timestamptz, timestamptz) IS
'the statements that undo the changes that meet all conditions given, the newest first; none of them is run';

-- Returns the columns by which a row differs from an image. Masked columns are not compared.
CREATE FUNCTION bemi.differences(compared jsonb, image jsonb, now jsonb) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT ARRAY(
    SELECT c
    FROM jsonb_array_elements_text(compared) c
    WHERE image ? c AND image -> c IS DISTINCT FROM now -> c)
$$;

COMMENT ON FUNCTION bemi.differences(jsonb, jsonb, jsonb) IS
'the columns by which a row differs from an image';

CREATE FUNCTION bemi.jsonb_or_text(value json) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN value::jsonb;
EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
  RETURN to_jsonb(value::text);
END
$$;

COMMENT ON FUNCTION bemi.jsonb_or_text(json) IS
'a value as jsonb, or its text if jsonb cannot hold it';

-- Reads a row as WAL would show it, and locks it. While a constraint is deferred several rows may have one key: then
-- the one that is as in the image is returned.
CREATE FUNCTION bemi.row_now(
  t jsonb, condition text, image jsonb, is_locked boolean, OUT rows int, OUT now jsonb, OUT place tid
)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  r record;
  -- A column may have the name of the table here.
  row_as_json text := 'to_jsonb(t.*)';
BEGIN
  rows := 0;
  IF t ->> 'by_column' IS NOT NULL THEN
    BEGIN
      EXECUTE format('SELECT count(to_jsonb(t.*)) FROM %s t WHERE %s', t ->> 'source', condition);
    EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
      row_as_json := t ->> 'by_column';
    END;
  END IF;
  FOR r IN EXECUTE format('SELECT %s%s AS now, t.ctid AS place FROM %s t WHERE %s%s',
    row_as_json, t ->> 'as_text', t ->> 'source', condition, CASE WHEN is_locked THEN ' FOR UPDATE' ELSE '' END)
  LOOP
    rows := rows + 1;
    IF rows = 1 OR bemi.differences(t -> 'compared', image, r.now) = '{}' THEN
      now := r.now;
      place := r.place;
    END IF;
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.row_now(jsonb, text, jsonb, boolean) IS
'a row of a table as WAL would show it';

-- Runs a statement as the caller would: triggers and defaults have the caller's search_path and time zone.
CREATE FUNCTION bemi.run_undo(statement text, caller jsonb) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO, YMD' AS $$
DECLARE
  rows bigint;
BEGIN
  PERFORM pg_catalog.set_config('timezone', caller ->> 'timezone', true),
    pg_catalog.set_config('datestyle', caller ->> 'datestyle', true),
    pg_catalog.set_config('search_path', caller ->> 'search_path', true);
  EXECUTE statement;
  GET DIAGNOSTICS rows = ROW_COUNT;
  RETURN rows;
END
$$;

COMMENT ON FUNCTION bemi.run_undo(text, jsonb) IS
'runs a statement under settings of the caller, and returns the number of rows that it changed';

-- Returns whether an error means that a change cannot be undone: what was recorded cannot be read, or, while the
-- statement runs, a constraint, a policy or a trigger refuses it. Other errors are of the session, the transaction or
-- the server.
CREATE FUNCTION bemi.is_conflict(state text, is_running boolean) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE
    WHEN is_running THEN left(state, 2) NOT IN ('08', '25', '26', '40', '53', '55', '57', '58', 'F0', 'XX')
    ELSE left(state, 2) IN ('22', '3F')
      OR state IN ('42P01', '42601', '42704', '42804', '42846', '42883', '54000') END
$$;

COMMENT ON FUNCTION bemi.is_conflict(text, boolean) IS
'whether an error is about the change that is to be undone';

-- What became of an attempt.
CREATE TYPE bemi.attempt AS (
  -- `reverted`, `partly reverted`, `unchanged` or `conflict`; `later` if it meets a constraint, and others may make
  -- room.
  outcome text,
  detail text,
  statement text,
  -- The columns that triggers left otherwise than they were.
  left_columns jsonb,
  -- The numbers of undos that ON UPDATE CASCADE has done with it.
  also bigint[]
);

-- Returns why a row is not as a change left it; NULL if it is.
CREATE FUNCTION bemi.row_conflict(t jsonb, u bemi.undo, rows int, now jsonb, expected jsonb) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF u.where_after IS NULL THEN
    RETURN CASE WHEN rows > 0 THEN 'a row with this key is there' END;
  ELSIF rows = 0 THEN
    RETURN 'the row is not there';
  ELSIF now IS DISTINCT FROM expected THEN
    -- Generated columns follow from the others, by their expressions of today.
    RETURN 'changed since: ' || bemi.quoted(bemi.differences(
      (t -> 'compared') - ARRAY(SELECT jsonb_array_elements_text(t -> 'computed')), expected, now));
  END IF;
  RETURN NULL;
END
$$;

COMMENT ON FUNCTION bemi.row_conflict(jsonb, bemi.undo, int, jsonb, jsonb) IS
'why a row is not as a change left it';

-- Returns the rows of other tables that a change of a row would change as well. Rows that a policy hides count too:
-- with them it is an error.
CREATE FUNCTION bemi.referring_rows(reference jsonb, t jsonb, condition text, is_any_enough boolean)
RETURNS TABLE (child regclass, now jsonb)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET row_security = off AS $$
BEGIN
  RETURN QUERY EXECUTE format(
    'SELECT child.tableoid::regclass, %s
     FROM %s child,
       (SELECT t.*, t.tableoid AS "bemi tableoid", t.ctid AS "bemi ctid" FROM %s t WHERE %s) parent
     WHERE %s
       AND (child.tableoid, child.ctid) IS DISTINCT FROM (parent."bemi tableoid", parent."bemi ctid")%s',
    CASE WHEN is_any_enough THEN 'NULL::jsonb' ELSE 'to_jsonb(child.*)' END,
    reference ->> 'source', t ->> 'source', condition, reference ->> 'join',
    CASE WHEN is_any_enough THEN ' LIMIT 1' END);
END
$$;

COMMENT ON FUNCTION bemi.referring_rows(jsonb, jsonb, text, boolean) IS
'the rows that refer to a row by a foreign key, without itself';

-- Whether a foreign key acts on rows that refer to the row of an undo, before constraints are checked.
CREATE FUNCTION bemi.acts_on_others(reference jsonb, u bemi.undo, is_deferred boolean) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE u.operation
    WHEN 'CREATE' THEN a.on_delete IN ('c', 'n', 'd') OR a.on_delete = 'a' AND a.is_late
    WHEN 'UPDATE' THEN (reference -> 'columns') ?| u.changed
      AND (a.on_update IN ('c', 'n', 'd') OR a.on_update = 'a' AND a.is_late)
    ELSE false
  END
  FROM (VALUES (
    reference ->> 'on_delete',
    reference ->> 'on_update',
    (reference -> 'is_deferred')::boolean AND NOT is_deferred
  )) a (on_delete, on_update, is_late)
$$;

COMMENT ON FUNCTION bemi.acts_on_others(jsonb, bemi.undo, boolean) IS
'whether a foreign key would change, or check later, rows that refer to the row of an undo';

-- Returns the undos that wait and that ON UPDATE CASCADE will do with this one; an error if it, or ON DELETE, would
-- change other rows. `waiting` has undos of updates, and is NULL where none of them may be done with this one.
CREATE FUNCTION bemi.cascading(t jsonb, u bemi.undo, waiting bemi.undo[], is_deferred boolean) RETURNS bemi.undo[]
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  reference jsonb;
  child record;
  row_now text;
  p bemi.undo;
  result bemi.undo[] := '{}';
BEGIN
  IF u.operation NOT IN ('CREATE', 'UPDATE') THEN
    RETURN result;
  END IF;
  FOR reference IN SELECT r FROM jsonb_array_elements(t -> 'references') r LOOP
    CONTINUE WHEN NOT bemi.acts_on_others(reference, u, is_deferred);
    FOR child IN SELECT * FROM bemi.referring_rows(reference, t, u.where_after, waiting IS NULL) LOOP
      p := NULL;
      IF u.operation = 'UPDATE' AND reference ->> 'on_update' = 'c' AND waiting IS NOT NULL THEN
        row_now := concat(child.child::oid, ':', bemi.key_text(bemi.undo_table(child.child) -> 'key', child.now));
        SELECT w.* INTO p FROM unnest(waiting) w WHERE w.row_after = row_now LIMIT 1;
      END IF;
      IF p.number IS NULL THEN
        RAISE foreign_key_violation USING
          MESSAGE = format('rows of %s refer to it by the foreign key %s, which would change them too',
            reference ->> 'child', reference ->> 'name');
      END IF;
      result := result || p;
    END LOOP;
  END LOOP;
  RETURN result;
END
$$;

COMMENT ON FUNCTION bemi.cascading(jsonb, bemi.undo, bemi.undo[], boolean) IS
'the undos that wait and that ON UPDATE CASCADE will do with this one';

CREATE FUNCTION bemi.cascaded(undos bemi.undo[]) RETURNS bigint[]
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  p bemi.undo;
  here record;
  result bigint[];
BEGIN
  FOREACH p IN ARRAY undos LOOP
    SELECT r.* INTO here
    FROM (SELECT bemi.undo_table(p.relation) AS t) x,
      LATERAL bemi.row_now(x.t, p.where_before, p.before, false) r;
    IF here.rows = 0
      OR bemi.differences(bemi.undo_table(p.relation) -> 'compared', p.before, here.now) <> '{}'
    THEN
      RAISE foreign_key_violation USING
        MESSAGE = format('a row of %s that refers to it would be changed too', p.relation);
    END IF;
    result := result || p.number;
  END LOOP;
  RETURN result;
END
$$;

COMMENT ON FUNCTION bemi.cascaded(bemi.undo[]) IS
'the numbers of undos that ON UPDATE CASCADE has done; an error if it did something else';

-- Checks that a statement put back what it should; if it did not, that is an error. Reports columns on which a trigger
-- has the last word, and generated columns that are computed otherwise today.
CREATE FUNCTION bemi.checked(result bemi.attempt, t jsonb, u bemi.undo, ours jsonb, rows_before int, row_before jsonb)
RETURNS bemi.attempt
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  here record;
  has_triggers boolean := t -> 'has_triggers';
  -- The columns that it should put back, and those that are otherwise now.
  wanted text[] := ARRAY(
    SELECT k
    FROM unnest(CASE u.operation WHEN 'UPDATE' THEN u.changed ELSE ARRAY(SELECT jsonb_object_keys(u.before)) END) k
    WHERE (t -> 'compared') ? k);
  names text[];
BEGIN
  result.outcome := CASE WHEN u.kept IS NULL THEN 'reverted' ELSE 'partly reverted' END;
  IF u.where_before IS NULL THEN
    IF has_triggers AND (SELECT r.rows FROM bemi.row_now(t, u.where_after, u.after, false) r) >= rows_before THEN
      RAISE triggered_data_change_violation USING MESSAGE = 'a trigger or a rule kept the row';
    END IF;
    RETURN result;
  ELSIF NOT has_triggers AND t -> 'computed' = '[]' AND NOT (t -> 'checked') ?| wanted THEN
    RETURN result;
  END IF;
  SELECT * INTO here FROM bemi.row_now(t, u.where_before, u.before, false);
  names := bemi.differences(t -> 'compared', u.before, here.now);
  IF here.rows = 0 THEN
    RAISE triggered_data_change_violation USING MESSAGE = 'a trigger, a rule or a policy left no row with this key';
  ELSIF NOT has_triggers AND EXISTS (SELECT FROM unnest(names) n WHERE NOT (t -> 'computed') ? n) THEN
    RAISE triggered_data_change_violation USING MESSAGE = 'the table cannot hold what was recorded: '
      || bemi.quoted(ARRAY(SELECT n FROM unnest(names) n WHERE NOT (t -> 'computed') ? n));
  ELSIF u.operation = 'UPDATE' THEN
    -- What our own undo of a newer change left otherwise may stay so.
    wanted := ARRAY(SELECT w FROM unnest(wanted) w WHERE ours IS NULL OR NOT ours ? w);
    IF wanted <> '{}' AND wanted <@ names AND bemi.differences(to_jsonb(wanted), row_before, here.now) = '{}' THEN
      RAISE triggered_data_change_violation USING
        MESSAGE = 'a trigger kept it from being undone: ' || bemi.quoted(wanted);
    END IF;
  END IF;
  IF names <> '{}' THEN
    result.outcome := 'partly reverted';
    result.left_columns := (SELECT jsonb_object_agg(n, here.now -> n) FROM unnest(names) n);
    result.detail := concat_ws('. ', result.detail,
      CASE WHEN has_triggers THEN 'a trigger changed: ' ELSE 'computed otherwise now: ' END || bemi.quoted(names));
  END IF;
  RETURN result;
END
$$;

COMMENT ON FUNCTION bemi.checked(bemi.attempt, jsonb, bemi.undo, jsonb, int, jsonb) IS
'returns the outcome of an undo that has run; raises an error if the row is not as it should be';

-- Undoes one change if its row is still as the change left it. `ours` are columns that the undo of a newer change left
-- otherwise than they were recorded, since triggers changed them. With `waiting`, the undos of updates that wait, rows
-- may be changed by ON UPDATE CASCADE as these would change them. With is_deferred, constraints are checked at the end.
CREATE FUNCTION bemi.attempt(u bemi.undo, t jsonb, ours jsonb, caller jsonb, waiting bemi.undo[], is_deferred boolean)
RETURNS bemi.attempt
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  result bemi.attempt;
  here record;
  expected jsonb := CASE WHEN ours IS NULL THEN u.after ELSE u.after || ours END;
  cascading bemi.undo[];
  statement text;
  changes bigint;
  is_running boolean := false;
  message text;
  more text;
BEGIN
  SELECT * INTO here FROM bemi.row_now(t, COALESCE(u.where_after, u.where_before), expected, u.where_after IS NOT NULL);
  result.detail := bemi.row_conflict(t, u, here.rows, here.now, expected);
  IF result.detail IS NOT NULL THEN
    result.outcome := 'conflict';
    RETURN result;
  END IF;
  result.detail := u.detail;
  IF u.operation = 'UPDATE' AND u.changed = '{}' THEN
    result.outcome := CASE WHEN u.kept IS NULL THEN 'reverted' ELSE 'unchanged' END;
    result.detail := concat_ws('. ', u.detail, 'nothing to set');
    RETURN result;
  END IF;
  result.statement := bemi.undo_statement(t, u, expected);
  statement := result.statement;
  IF here.rows > 1 THEN
    statement := format('%s AND ctid OPERATOR(pg_catalog.=) %L::tid;', left(statement, -1), here.place);
  END IF;
  cascading := bemi.cascading(t, u, waiting, is_deferred);
  is_running := true;
  changes := bemi.run_undo(statement, caller);
  IF changes <> 1 THEN
    RAISE triggered_data_change_violation USING MESSAGE = CASE changes
      WHEN 0 THEN 'a trigger, a rule or a policy kept it from being undone'
      ELSE format('%s rows have this key', changes) END;
  END IF;
  result.also := bemi.cascaded(cascading);
  RETURN bemi.checked(result, t, u, ours, here.rows, here.now);
EXCEPTION
  WHEN integrity_constraint_violation THEN
    GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, more = PG_EXCEPTION_DETAIL;
    RETURN ROW('later', concat_ws('. ', message, nullif(more, '')), result.statement, NULL, NULL)::bemi.attempt;
  WHEN OTHERS THEN
    IF NOT bemi.is_conflict(SQLSTATE, is_running) THEN
      RAISE;
    END IF;
    message := CASE WHEN is_running THEN '' ELSE 'what was recorded cannot be read: ' END || SQLERRM;
    RETURN ROW('conflict', message, NULL, NULL, NULL)::bemi.attempt;
END
$$;

COMMENT ON FUNCTION bemi.attempt(bemi.undo, jsonb, jsonb, jsonb, bemi.undo[], boolean) IS
'undoes one change if the row is still as the change left it';
