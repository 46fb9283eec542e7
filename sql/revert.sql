-- Undoing changes, by changes of their own: bemi.revert() does it, bemi.revert_sql() shows the statements. All of it runs
-- with the rights of the caller.

CREATE TYPE @extschema@.reverted AS (
  relation regclass, primary_key text, operation text, status text, detail text, statement text, transaction_id bigint, commit_position pg_lsn, sequence int
);

CREATE FUNCTION @extschema@.revert_sql(
  transaction_id bigint DEFAULT NULL, context jsonb DEFAULT NULL, relation regclass DEFAULT NULL, primary_key text DEFAULT NULL,
  since timestamptz DEFAULT NULL, until timestamptz DEFAULT NULL
) RETURNS SETOF text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  u @extschema@.undo;
  tables jsonb := '{}';
  t jsonb;
BEGIN
  PERFORM @extschema@.check_reading();
  FOR u IN SELECT * FROM @extschema@.undos(transaction_id, context, relation, primary_key, since, until) LOOP
    IF t ->> 'oid' IS DISTINCT FROM u.relation::oid::text THEN
      t := COALESCE(tables -> u.relation::oid::text, @extschema@.undo_table(u.relation));
      tables := tables || jsonb_build_object(u.relation::oid::text, t);
    END IF;
    -- Of some updates nothing is left that could be set.
    IF u.operation <> 'UPDATE' OR u.changed <> '{}' THEN
      RETURN NEXT @extschema@.undo_statement(t, u, u.after);
    END IF;
  END LOOP;
END
$$;

COMMENT ON FUNCTION @extschema@.revert_sql(bigint, jsonb, regclass, text, timestamptz, timestamptz) IS
'the statements that undo the changes that meet all conditions given, the newest first; none of them is run';

-- The columns by which a row differs from an image. What was masked is not compared.
CREATE FUNCTION @extschema@.differences(compared jsonb, image jsonb, now jsonb) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT ARRAY(SELECT c FROM jsonb_array_elements_text(compared) c WHERE image ? c AND image -> c IS DISTINCT FROM now -> c)
$$;

COMMENT ON FUNCTION @extschema@.differences(jsonb, jsonb, jsonb) IS
'the columns by which a row differs from an image';

CREATE FUNCTION @extschema@.jsonb_or_text(value json) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN value::jsonb;
EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
  RETURN to_jsonb(value::text);
END
$$;

COMMENT ON FUNCTION @extschema@.jsonb_or_text(json) IS
'a value as jsonb, or if that cannot hold it, its text';

-- Looks at a row as the log would show it, and locks it. While a constraint is deferred several rows may have one key: the
-- one that is as the image says is meant.
CREATE FUNCTION @extschema@.row_now(t jsonb, condition text, image jsonb, is_locked boolean, OUT rows int, OUT now jsonb, OUT place tid)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO, YMD' SET intervalstyle = 'postgres'
  SET extra_float_digits = 1 SET bytea_output = 'hex' SET lc_monetary = 'C' AS $$
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
    IF rows = 1 OR @extschema@.differences(t -> 'compared', image, r.now) = '{}' THEN
      now := r.now;
      place := r.place;
    END IF;
  END LOOP;
END
$$;

COMMENT ON FUNCTION @extschema@.row_now(jsonb, text, jsonb, boolean) IS
'a row of a table as the log would show it';

-- Those rows of other tables that a change of this one would change without a word. Rows that a policy hides count too:
-- with them it is an error.
CREATE FUNCTION @extschema@.referring_rows(reference jsonb, t jsonb, condition text, is_any_enough boolean) RETURNS TABLE (child regclass, now jsonb)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO, YMD' SET intervalstyle = 'postgres'
  SET extra_float_digits = 1 SET bytea_output = 'hex' SET lc_monetary = 'C' SET row_security = off AS $$
BEGIN
  RETURN QUERY EXECUTE format(
    'SELECT child.tableoid::regclass, %s FROM %s child, (SELECT t.*, t.tableoid AS "bemi tableoid", t.ctid AS "bemi ctid" FROM %s t WHERE %s) parent
     WHERE %s AND (child.tableoid, child.ctid) IS DISTINCT FROM (parent."bemi tableoid", parent."bemi ctid")%s',
    CASE WHEN is_any_enough THEN 'NULL::jsonb' ELSE 'to_jsonb(child.*)' END, reference ->> 'source', t ->> 'source', condition, reference ->> 'join', CASE WHEN is_any_enough THEN ' LIMIT 1' END);
END
$$;

COMMENT ON FUNCTION @extschema@.referring_rows(jsonb, jsonb, text, boolean) IS
'the rows that refer to a row by a foreign key, but for itself';

-- Runs a statement as the caller would: triggers find what his search_path says.
CREATE FUNCTION @extschema@.run_undo(statement text, path text) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  rows bigint;
BEGIN
  PERFORM pg_catalog.set_config('search_path', path, true);
  EXECUTE statement;
  GET DIAGNOSTICS rows = ROW_COUNT;
  RETURN rows;
END
$$;

COMMENT ON FUNCTION @extschema@.run_undo(text, text) IS
'runs a statement under a search_path, and gives how many rows it changed';

-- What became of one attempt. An undo that meets a constraint is tried again `later`, when others have made room.
CREATE TYPE @extschema@.attempt AS (outcome text, detail text, statement text, left_columns jsonb, also bigint[]);

-- `ours` are columns that our own undo of a newer change left otherwise than the log has them: triggers did. With
-- `waiting`, the undos that wait, rows may be changed by ON UPDATE CASCADE as these would change them. With is_deferred,
-- constraints are checked at the end.
CREATE FUNCTION @extschema@.attempt(u @extschema@.undo, t jsonb, ours jsonb, path text, waiting @extschema@.undo[], is_deferred boolean)
RETURNS @extschema@.attempt
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  result @extschema@.attempt;
  here record;
  expected jsonb := CASE WHEN ours IS NULL THEN u.after ELSE u.after || ours END;
  names text[];
  -- Of what remains to be set, once it is known what is there.
  statement text;
  changes bigint;
  reference jsonb;
  child record;
  p @extschema@.undo;
  cascaded @extschema@.undo[] := '{}';
  message text;
  more text;
BEGIN
  result.outcome := 'conflict';
  SELECT * INTO here FROM @extschema@.row_now(t, COALESCE(u.where_after, u.where_before), expected, u.where_after IS NOT NULL);
  IF u.where_after IS NULL AND here.rows > 0 THEN
    result.detail := 'a row with this key is there';
    RETURN result;
  ELSIF u.where_after IS NOT NULL AND here.rows = 0 THEN
    result.detail := 'the row is not there';
    RETURN result;
  ELSIF u.where_after IS NOT NULL AND here.now IS DISTINCT FROM expected THEN
    names := @extschema@.differences(t -> 'compared', expected, here.now);
    IF names <> '{}' THEN
      result.detail := 'changed since: ' || (SELECT string_agg(quote_ident(n), ', ') FROM unnest(names) n);
      RETURN result;
    END IF;
  END IF;
  result.detail := u.detail;
  IF u.operation = 'UPDATE' AND u.changed = '{}' THEN
    result.outcome := 'reverted';
    result.detail := concat_ws('. ', u.detail, 'nothing to set');
    RETURN result;
  END IF;
  result.statement := @extschema@.undo_statement(t, u, expected);
  statement := result.statement;
  IF here.rows > 1 THEN
    statement := format('%s AND ctid OPERATOR(pg_catalog.=) %L::tid;', left(statement, -1), here.place);
  END IF;
  IF u.operation = 'UPDATE' AND NOT (t -> 'has_triggers')::boolean AND NOT (t -> 'bound') ?| u.changed
    AND NOT EXISTS (SELECT FROM unnest(u.changed) c WHERE u.before -> c = 'null')
  THEN
    -- No constraint can stand against it: a savepoint is not needed.
    changes := @extschema@.run_undo(statement, path);
  ELSE
    BEGIN
      FOR reference IN SELECT r FROM jsonb_array_elements(CASE WHEN u.operation IN ('CREATE', 'UPDATE') THEN t -> 'references' ELSE '[]' END) r LOOP
        CONTINUE WHEN u.operation = 'CREATE' AND NOT (reference ->> 'on_delete' IN ('c', 'n', 'd') OR reference ->> 'on_delete' = 'a' AND (reference -> 'is_deferred')::boolean AND NOT is_deferred);
        CONTINUE WHEN u.operation = 'UPDATE' AND NOT ((reference -> 'columns') ?| u.changed
          AND (reference ->> 'on_update' IN ('c', 'n', 'd') OR reference ->> 'on_update' = 'a' AND (reference -> 'is_deferred')::boolean AND NOT is_deferred));
        FOR child IN SELECT * FROM @extschema@.referring_rows(reference, t, u.where_after, waiting IS NULL) LOOP
          p := NULL;
          IF u.operation = 'UPDATE' AND reference ->> 'on_update' = 'c' AND waiting IS NOT NULL THEN
            message := concat(child.child::oid, ':', @extschema@.key_text(@extschema@.undo_table(child.child) -> 'key', child.now));
            SELECT w.* INTO p FROM unnest(waiting) w WHERE w.row_after = message AND w.operation = 'UPDATE' AND NOT w.is_behind;
          END IF;
          IF p.number IS NULL THEN
            RAISE foreign_key_violation USING MESSAGE = format('rows of %s refer to it by the foreign key %s, which would change them too',
              reference ->> 'child', reference ->> 'name');
          END IF;
          cascaded := cascaded || p;
        END LOOP;
      END LOOP;
      changes := @extschema@.run_undo(statement, path);
      FOREACH p IN ARRAY cascaded LOOP
        SELECT r.* INTO here FROM (SELECT @extschema@.undo_table(p.relation) AS t) x, LATERAL @extschema@.row_now(x.t, p.where_before, p.before, false) r;
        IF here.rows = 0 OR @extschema@.differences(@extschema@.undo_table(p.relation) -> 'compared', p.before, here.now) <> '{}' THEN
          RAISE foreign_key_violation USING MESSAGE = format('a row of %s that refers to it would be changed too', p.relation);
        END IF;
        result.also := result.also || p.number;
      END LOOP;
    EXCEPTION WHEN integrity_constraint_violation THEN
      GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, more = PG_EXCEPTION_DETAIL;
      result.outcome := 'later';
      result.also := NULL;
      result.detail := concat_ws('. ', message, nullif(more, ''));
      RETURN result;
    END;
  END IF;
  IF changes = 0 THEN
    result.detail := 'a trigger, a rule or a policy kept it from being undone';
    RETURN result;
  END IF;
  result.outcome := 'reverted';
  IF (t -> 'has_triggers')::boolean AND u.where_before IS NOT NULL THEN
    SELECT * INTO here FROM @extschema@.row_now(t, u.where_before, u.before, false);
    names := @extschema@.differences(t -> 'compared', u.before, here.now);
    IF names <> '{}' THEN
      result.left_columns := (SELECT jsonb_object_agg(n, here.now -> n) FROM unnest(names) n);
      result.detail := concat_ws('. ', u.detail, 'a trigger changed: ' || (SELECT string_agg(quote_ident(n), ', ') FROM unnest(names) n));
    END IF;
  END IF;
  RETURN result;
END
$$;

COMMENT ON FUNCTION @extschema@.attempt(@extschema@.undo, jsonb, jsonb, text, @extschema@.undo[], boolean) IS
'undoes one change if the row is still as the change left it';
