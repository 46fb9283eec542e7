-- Which changes are undone: those of a selection, from the newest on.

CREATE FUNCTION bemi.check_reading() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF current_setting('transaction_isolation') NOT LIKE 'read %' THEN
    RAISE EXCEPTION 'bemi cannot see what is recorded now in a transaction that is %',
      upper(current_setting('transaction_isolation'))
    USING
      ERRCODE = 'active_sql_transaction', HINT = 'BEGIN ISOLATION LEVEL READ COMMITTED;';
  ELSIF to_regclass('bemi.changes') IS NOT NULL AND NOT has_table_privilege('bemi.changes', 'SELECT') THEN
    RAISE EXCEPTION 'permission denied for table bemi.changes' USING
      ERRCODE = 'insufficient_privilege', HINT = format('GRANT SELECT ON bemi.changes TO %I;', current_user);
  END IF;
  PERFORM bemi.sync();
END
$$;

COMMENT ON FUNCTION bemi.check_reading() IS
'returns when everything that was committed before can be read in bemi.changes';

-- Returns the rows that a TRUNCATE took. If not all of them are recorded, that is an error, or a problem if such
-- changes are skipped.
CREATE FUNCTION bemi.rows_to_undo(u bemi.undo, source int, is_skipping boolean)
RETURNS TABLE (primary_key text, image jsonb, place bigint, problem text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
    SELECT r.primary_key, r.image, r.place, NULL::text
    FROM bemi.truncated_rows(u.relation, rows_to_undo.source, u.commit_position, u.sequence) r;
EXCEPTION WHEN object_not_in_prerequisite_state THEN
  IF NOT is_skipping THEN
    RAISE;
  END IF;
  RETURN QUERY SELECT NULL::text, NULL::jsonb, NULL::bigint, SQLERRM;
END
$$;

COMMENT ON FUNCTION bemi.rows_to_undo(bemi.undo, int, boolean) IS
'the rows that a TRUNCATE took, or why they are not known';

-- Returns the keys of a selection, as they are recorded: [{schema, table, key}], without names for those of a given
-- table.
CREATE FUNCTION bemi.selected_keys(
  conditions text, transaction_id bigint, context jsonb, relation regclass, primary_key text, since timestamptz,
  until timestamptz
) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
  result jsonb := '[]';
  named record;
BEGIN
  IF relation IS NOT NULL THEN
    RETURN (SELECT jsonb_agg(jsonb_build_object('key', k)) FROM unnest(bemi.recorded_keys(relation, primary_key)) k);
  END IF;
  -- Each table has its own way to write a key; in some it cannot be one.
  FOR named IN EXECUTE
    'SELECT DISTINCT c.schema, c."table"
    FROM bemi.changes c
    WHERE c.operation IN (''CREATE'', ''UPDATE'', ''DELETE'')' || conditions
    USING transaction_id, context, relation, NULL::jsonb, since, until
  LOOP
    BEGIN
      result := result || (
        SELECT jsonb_agg(jsonb_build_object('schema', named.schema, 'table', named."table", 'key', k))
        FROM unnest(bemi.recorded_keys(to_regclass(format('%I.%I', named.schema, named."table")), primary_key)) k);
    EXCEPTION WHEN data_exception THEN
      CONTINUE;
    END;
  END LOOP;
  RETURN result;
END
$$;

COMMENT ON FUNCTION bemi.selected_keys(text, bigint, jsonb, regclass, text, timestamptz, timestamptz) IS
'the spellings of a key in the changes of a selection';

-- Returns the table that a recorded change is about, or why its changes cannot be undone.
CREATE FUNCTION bemi.undone_table(
  c record, OUT relation regclass, OUT since bigint, OUT until bigint, OUT problem text
)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  is_another boolean;
BEGIN
  SELECT t.relation, t.since, t.until, t.is_another INTO relation, since, until, is_another
  FROM bemi.table_at(c.schema, c."table", c.place, c.relation) t;
  problem := CASE
    WHEN is_another THEN 'they are of an earlier table of that name'
    WHEN relation IS NULL THEN 'it is no longer there' END;
END
$$;

COMMENT ON FUNCTION bemi.undone_table(record) IS
'the table that a recorded change is about, and between which places it has had that name';

-- Returns the conditions of a selection, with the parameters $1 to $6 of a query of bemi.changes c.
CREATE FUNCTION bemi.selection_conditions(
  transaction_id bigint, context jsonb, relation regclass, since timestamptz, until timestamptz
) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT concat(
    CASE WHEN transaction_id IS NOT NULL THEN ' AND c.transaction_id = $1' END,
    CASE WHEN context IS NOT NULL THEN ' AND c.context @> $2' END,
    CASE WHEN relation IS NOT NULL THEN
      ' AND (c.schema, c."table") IN (SELECT n.schema, n."table" FROM bemi.table_names($3) n)
        AND (SELECT t.relation
          FROM bemi.table_at(c.schema, c."table", bemi.place(c.source, c."position"), c.relation) t)
          IN (SELECT member FROM bemi.tree($3) member)' END,
    CASE WHEN since IS NOT NULL THEN ' AND c.committed_at >= $5' END,
    CASE WHEN until IS NOT NULL THEN ' AND c.committed_at < $6' END)
$$;

COMMENT ON FUNCTION bemi.selection_conditions(bigint, jsonb, regclass, timestamptz, timestamptz) IS
'the conditions of a selection as SQL';

-- Returns the condition that changes have one of the keys of $4.
CREATE FUNCTION bemi.selected_key_condition(relation regclass) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE WHEN relation IS NOT NULL THEN
    ' AND (c.primary_key = ANY (ARRAY(SELECT k ->> ''key'' FROM jsonb_array_elements($4) k))
      OR c.old_primary_key = ANY (ARRAY(SELECT k ->> ''key'' FROM jsonb_array_elements($4) k)))'
  ELSE
    ' AND EXISTS (
      SELECT
      FROM jsonb_to_recordset($4) AS k (schema text, "table" text, key text)
      WHERE k.schema = c.schema AND k."table" = c."table" AND k.key IN (c.primary_key, c.old_primary_key))'
  END
$$;

COMMENT ON FUNCTION bemi.selected_key_condition(regclass) IS
'the condition that changes have one of the keys of a selection, as SQL';

-- Raises the error that several transactions had an id. The conditions have the parameters $1 to $6.
CREATE FUNCTION bemi.refuse_ambiguous(
  conditions text, transaction_id bigint, context jsonb, relation regclass, keys jsonb, since timestamptz,
  until timestamptz
) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  times text;
BEGIN
  EXECUTE 'SELECT string_agg(DISTINCT c.committed_at::text, '', '') FROM bemi.changes c WHERE true' || conditions
    INTO times USING transaction_id, context, relation, keys, since, until;
  RAISE EXCEPTION 'several transactions had the id %', transaction_id USING
    ERRCODE = 'ambiguous_parameter',
    DETAIL = format('They committed at %s.', times),
    HINT = 'Give since and until too.';
END
$$;

COMMENT ON FUNCTION bemi.refuse_ambiguous(text, bigint, jsonb, regclass, jsonb, timestamptz, timestamptz) IS
'raises the error that several transactions had an id';

-- Returns the conditions of a selection, and its keys.
CREATE FUNCTION bemi.selection(
  transaction_id bigint, context jsonb, relation regclass, primary_key text, since timestamptz, until timestamptz,
  OUT conditions text, OUT keys jsonb
)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
BEGIN
  conditions := bemi.selection_conditions(transaction_id, context, relation, since, until);
  IF conditions = '' AND primary_key IS NULL THEN
    RAISE EXCEPTION 'nothing says which changes are to be undone' USING
      ERRCODE = 'invalid_parameter_value',
      HINT = 'Give one or more of transaction_id, context, relation, primary_key, since and until.';
  ELSIF primary_key IS NOT NULL THEN
    keys := bemi.selected_keys(conditions, transaction_id, context, relation, primary_key, since, until);
    conditions := conditions || bemi.selected_key_condition(relation);
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.selection(bigint, jsonb, regclass, text, timestamptz, timestamptz) IS
'the conditions of a selection as SQL, and its keys; an error if there are no conditions';

-- Begins the undo of a recorded change of a table.
CREATE FUNCTION bemi.undo_of(c record, relation regclass) RETURNS bemi.undo
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  u bemi.undo;
BEGIN
  u.relation := relation;
  u.operation := c.operation;
  u.primary_key := c.primary_key;
  u.transaction_id := c.transaction_id;
  u.commit_position := c.commit_position;
  u.sequence := c.sequence;
  RETURN u;
END
$$;

COMMENT ON FUNCTION bemi.undo_of(record, regclass) IS
'the undo of a recorded change, without its plan';

-- Returns the undos of a TRUNCATE, one for each row.
CREATE FUNCTION bemi.undos_of_truncate(t jsonb, u bemi.undo, source int, is_skipping boolean) RETURNS SETOF bemi.undo
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  r record;
BEGIN
  u.after := '{}';
  FOR r IN SELECT * FROM bemi.rows_to_undo(u, source, is_skipping) LOOP
    u.primary_key := r.primary_key;
    u.problem := r.problem;
    u.before := bemi.undo_image(t, r.image, r.place);
    IF u.problem IS NULL THEN
      RETURN NEXT bemi.plan_undo(t, u, '{}'::jsonb, bemi.undo_problems(t, r.image, r.place), is_skipping);
    ELSE
      RETURN NEXT u;
    END IF;
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.undos_of_truncate(jsonb, bemi.undo, int, boolean) IS
'how the rows that a TRUNCATE took are put back';

CREATE FUNCTION bemi.refuse_table(problem text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RAISE EXCEPTION 'bemi cannot undo changes of the table %', problem USING
    ERRCODE = 'undefined_table',
    HINT = 'Name another table as relation, or narrow the selection.';
END
$$;

COMMENT ON FUNCTION bemi.refuse_table(text) IS
'raises the error that changes of a table cannot be undone';

-- Returns the plan for a selection, the newest change first. The server keeps a long one in a file. If changes that
-- cannot be undone are skipped, they have a problem; else one is an error.
CREATE FUNCTION bemi.undos(
  transaction_id bigint, context jsonb, relation regclass, primary_key text, since timestamptz, until timestamptz,
  is_skipping boolean
) RETURNS SETOF bemi.undo
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
  selection record := bemi.selection(transaction_id, context, relation, primary_key, since, until);
  c record;
  -- The table that the last change was about, between which places it has had that name, and the transaction.
  named record;
  u bemi.undo;
  tables jsonb := '{}';
  t jsonb;
  number bigint := 0;
BEGIN
  FOR c IN EXECUTE
    'SELECT c.*, bemi.place(c.source, c."position") AS place
    FROM bemi.changes c
    WHERE c.operation IN (''CREATE'', ''UPDATE'', ''DELETE'', ''TRUNCATE'')' || selection.conditions
    || ' ORDER BY c.source DESC, c.commit_position DESC, c.sequence DESC'
    USING transaction_id, context, relation, selection.keys, since, until
  LOOP
    IF number = 0 THEN
      SELECT c.source, c.commit_position, c.schema, c."table", c.relation AS recorded, n.* INTO named
      FROM bemi.undone_table(c) n;
    ELSIF transaction_id IS NOT NULL AND (c.source, c.commit_position) <> (named.source, named.commit_position) THEN
      PERFORM bemi.refuse_ambiguous(
        selection.conditions, transaction_id, context, relation, selection.keys, since, until);
    ELSIF (c.schema, c."table", c.relation) IS DISTINCT FROM (named.schema, named."table", named.recorded)
      OR c.place < named.since
      OR c.place >= named.until
    THEN
      SELECT c.source, c.commit_position, c.schema, c."table", c.relation AS recorded, n.* INTO named
      FROM bemi.undone_table(c) n;
    END IF;
    number := number + 1;
    u := bemi.undo_of(c, named.relation);
    u.number := number;
    IF named.problem IS NOT NULL THEN
      u.problem := format('%I.%I: %s', c.schema, c."table", named.problem);
      IF NOT is_skipping THEN
        PERFORM bemi.refuse_table(u.problem);
      END IF;
      RETURN NEXT u;
      CONTINUE;
    ELSIF t ->> 'oid' IS DISTINCT FROM u.relation::oid::text THEN
      t := COALESCE(tables -> u.relation::oid::text, bemi.undo_table(u.relation));
      tables := tables || jsonb_build_object(u.relation::oid::text, t);
    END IF;
    IF c.operation = 'TRUNCATE' THEN
      FOR u IN SELECT * FROM bemi.undos_of_truncate(t, u, c.source, is_skipping) LOOP
        u.number := number;
        number := number + 1;
        RETURN NEXT u;
      END LOOP;
      CONTINUE;
    END IF;
    u.before := bemi.undo_image(t, c.before, c.place);
    u.after := bemi.undo_image(t, c.after, c.place);
    RETURN NEXT bemi.plan_undo(t, u, COALESCE(bemi.keys_today(u.relation, c.omitted, c.place), '{}'),
      bemi.undo_problems(t, c.before, c.place) || bemi.undo_problems(t, c.after, c.place), is_skipping);
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.undos(bigint, jsonb, regclass, text, timestamptz, timestamptz, boolean) IS
'how the changes of a selection are to be undone, the newest first; an error if one cannot be';
