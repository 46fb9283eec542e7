-- The run of a revert. In which order changes are undone, and what waits for what, schedule.rs decides; here is what it
-- asks of the database.

-- Returns names of the rows that others may refer to and that an undo would give up.
CREATE FUNCTION bemi.given_up(t jsonb, u bemi.undo) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE u.operation
    WHEN 'CREATE' THEN bemi.linked(t -> 'offers', u.after)
    WHEN 'UPDATE' THEN ARRAY(
      SELECT unnest(bemi.linked(t -> 'offers', u.after))
      EXCEPT
      SELECT unnest(bemi.linked(t -> 'offers', u.before)))
  END
$$;

COMMENT ON FUNCTION bemi.given_up(jsonb, bemi.undo) IS
'names of the rows that others may refer to and that an undo would give up';

-- Returns what a row is to be like when all is undone.
CREATE FUNCTION bemi.wanted_row(u bemi.undo, left_columns jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT jsonb_build_object(
    'oid', u.relation::oid,
    'key', u.primary_key,
    'where', COALESCE(u.where_before, u.where_after),
    'image', CASE WHEN u.row_before IS NOT NULL THEN u.before END,
    'left', left_columns)
$$;

COMMENT ON FUNCTION bemi.wanted_row(bemi.undo, jsonb) IS
'what a row is to be like when all is undone';

-- A trigger may change a row that was undone already: one that counts, when it sees what is counted go. Sets such
-- columns once more, unless this is the last look, and returns a line for each row that is not as it should be.
CREATE FUNCTION bemi.settle(wanted jsonb[], tables jsonb, caller jsonb, is_last boolean) RETURNS text[]
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  w record;
  t jsonb;
  here record;
  names text[];
  sets text;
  problems text[] := '{}';
BEGIN
  FOR w IN
    SELECT x.*
    FROM unnest(wanted) e,
      jsonb_to_record(e) AS x (oid text, key text, "where" text, image jsonb, "left" jsonb)
  LOOP
    t := tables -> w.oid;
    SELECT * INTO here FROM bemi.row_now(t, w.where, w.image, false);
    names := ARRAY(
      SELECT n
      FROM unnest(bemi.differences(t -> 'compared', w.image, here.now)) n
      WHERE w.left IS NULL OR NOT w.left ? n);
    IF (here.rows > 0) <> (w.image IS NOT NULL) THEN
      problems := problems || format('%s %s: it is %s', t ->> 'name', w.key,
        CASE WHEN here.rows > 0 THEN 'there again' ELSE 'gone again' END);
    ELSIF names <> '{}' THEN
      problems := problems || format('%s %s: %s', t ->> 'name', w.key, bemi.quoted(names));
      SELECT string_agg(format('%I = %s', n, bemi.literal(t -> 'columns' -> n, w.image -> n)), ', ') INTO sets
      FROM unnest(names) n
      WHERE NOT (t -> 'generated') ? n;
      IF NOT is_last AND sets IS NOT NULL THEN
        PERFORM bemi.run_undo(format('UPDATE %s SET %s WHERE %s;', t ->> 'source', sets, w.where), caller);
      END IF;
    END IF;
  END LOOP;
  RETURN problems;
END
$$;

COMMENT ON FUNCTION bemi.settle(jsonb[], jsonb, jsonb, boolean) IS
'sets columns again that triggers changed after rows were undone, and returns which rows are not as they should be';

CREATE FUNCTION bemi.refuse_unsettled(problems text[]) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RAISE EXCEPTION 'bemi undid nothing: triggers changed rows again that were undone' USING
    ERRCODE = 'triggered_data_change_violation',
    DETAIL = array_to_string(problems, chr(10)),
    HINT = 'ALTER TABLE ... DISABLE TRIGGER ...; keeps them from that, and ENABLE TRIGGER puts them back.';
END
$$;

COMMENT ON FUNCTION bemi.refuse_unsettled(text[]) IS
'raises the error that triggers have the last word on rows';

CREATE FUNCTION bemi.refuse_conflicts(count bigint, described text[]) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  others bigint := count - cardinality(described);
BEGIN
  RAISE EXCEPTION 'bemi undid nothing: % of the changes cannot be undone', count USING
    ERRCODE = 'triggered_data_change_violation',
    DETAIL = array_to_string(described || CASE WHEN others > 0 THEN format('and %s more', others) END, chr(10)),
    HINT = 'With on_conflict => ''skip'' the others are undone, and these are left as they are.';
END
$$;

COMMENT ON FUNCTION bemi.refuse_conflicts(bigint, text[]) IS
'raises the error that changes cannot be undone';

CREATE FUNCTION bemi.check_undoing(t jsonb, operation text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  wanted text;
  relation oid := t ->> 'oid';
BEGIN
  FOREACH wanted IN ARRAY CASE operation
    WHEN 'CREATE' THEN '{SELECT,UPDATE,DELETE}'::text[]
    WHEN 'UPDATE' THEN '{SELECT,UPDATE}'
    ELSE '{SELECT,INSERT}'
  END
  LOOP
    IF NOT has_table_privilege(relation, wanted)
      AND (wanted = 'DELETE' OR NOT has_any_column_privilege(relation, wanted))
    THEN
      RAISE EXCEPTION 'permission denied for table %', t ->> 'name' USING
        ERRCODE = 'insufficient_privilege',
        DETAIL = format('To undo a %s takes %s on it.', operation, wanted),
        HINT = format('GRANT %s ON %s TO %I;', wanted, t ->> 'name', current_user);
    END IF;
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.check_undoing(jsonb, text) IS
'raises an error if the caller may not undo such changes of a table';

-- Puts constraints into the modes that they are declared with, once all were checked. PostgreSQL does not show which
-- modes the caller had set.
CREATE FUNCTION bemi.declare_constraints() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  names text;
BEGIN
  SELECT string_agg(format('%I.%I', n.nspname, k.conname), ', ') INTO names
  FROM (
      SELECT connamespace, conname
      FROM pg_constraint
      GROUP BY 1, 2
      HAVING bool_or(condeferred) AND bool_and(condeferrable)
    ) k
    JOIN pg_namespace n ON n.oid = k.connamespace
  WHERE has_schema_privilege(n.oid, 'USAGE');
  IF names IS NOT NULL THEN
    EXECUTE format('SET CONSTRAINTS %s DEFERRED', names);
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.declare_constraints() IS
'defers the constraints that are INITIALLY DEFERRED again';

-- Whether triggers of any tracked table could change rows again that were undone.
CREATE FUNCTION bemi.is_watched() RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT EXISTS (
    SELECT
    FROM pg_trigger g
    WHERE NOT g.tgisinternal
      AND g.tgenabled <> 'D'
      AND g.tgfoid <> 'bemi.emit_context()'::regprocedure
      AND EXISTS (SELECT FROM bemi.context_triggers c WHERE c.relation = g.tgrelid))
$$;

COMMENT ON FUNCTION bemi.is_watched() IS
'whether triggers of any tracked table could change rows that were undone';

CREATE FUNCTION bemi.run_undos(
  transaction_id bigint, context jsonb, relation regclass, primary_key text, since timestamptz, until timestamptz,
  is_skipping boolean, caller jsonb
) RETURNS SETOF bemi.reverted
LANGUAGE c VOLATILE SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'bemi_run_undos';

COMMENT ON FUNCTION bemi.run_undos(bigint, jsonb, regclass, text, timestamptz, timestamptz, boolean, jsonb) IS
'undoes the changes of a selection in an order that constraints allow, and returns what it did';

-- Undoes a selection under settings of its own (settings.sql), and puts back what it sets for the session.
CREATE FUNCTION bemi.revert_selection(
  transaction_id bigint, context jsonb, relation regclass, primary_key text, since timestamptz, until timestamptz,
  on_conflict text, caller jsonb
) RETURNS SETOF bemi.reverted
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
  context_before text;
  role_before text := current_setting('session_replication_role');
  arguments jsonb := jsonb_build_object('transaction_id', transaction_id, 'context', context, 'relation', relation,
    'primary_key', primary_key, 'since', since, 'until', until);
BEGIN
  IF on_conflict IS NULL OR on_conflict NOT IN ('error', 'skip') THEN
    RAISE EXCEPTION 'on_conflict cannot be %', COALESCE(quote_literal(on_conflict), 'NULL') USING
      ERRCODE = 'invalid_parameter_value',
      HINT = 'It is ''error'' (nothing is undone if anything cannot be) '
        'or ''skip'' (what cannot be undone is left out).';
  END IF;
  PERFORM bemi.check_reading();
  -- Without foreign keys and triggers a revert would leave what nothing else leaves.
  IF role_before = 'replica' THEN
    PERFORM set_config('session_replication_role', 'origin', true);
  END IF;
  context_before := COALESCE(current_setting('bemi.context', true), '');
  PERFORM bemi.merge_context(jsonb_build_object('reverts', (
    SELECT COALESCE(jsonb_object_agg(key, value), '{}')
    FROM jsonb_each(arguments)
    WHERE value <> 'null')), true);
  RETURN QUERY
    SELECT *
    FROM bemi.run_undos(transaction_id, context, relation, primary_key, since, until, on_conflict = 'skip', caller);
  PERFORM set_config('bemi.context', context_before, true);
  IF role_before = 'replica' THEN
    PERFORM set_config('session_replication_role', role_before, true);
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.revert_selection(bigint, jsonb, regclass, text, timestamptz, timestamptz, text, jsonb) IS
'for bemi.revert(): undoes a selection under settings of its own';

-- It keeps the search_path and the time zone of the caller for the triggers of the tables.
CREATE FUNCTION bemi.revert(
  transaction_id bigint DEFAULT NULL, context jsonb DEFAULT NULL, relation regclass DEFAULT NULL,
  primary_key text DEFAULT NULL, since timestamptz DEFAULT NULL, until timestamptz DEFAULT NULL,
  on_conflict text DEFAULT 'error'
) RETURNS TABLE (
  relation regclass, primary_key text, operation text, status text, detail text, statement text, transaction_id bigint,
  commit_position pg_lsn, sequence int
)
LANGUAGE sql VOLATILE AS $$
  SELECT *
  FROM bemi.revert_selection($1, $2, $3, $4, $5, $6, $7, pg_catalog.jsonb_build_object(
    'search_path', pg_catalog.current_setting('search_path'),
    'timezone', pg_catalog.current_setting('timezone'),
    'datestyle', pg_catalog.current_setting('datestyle')))
$$;

COMMENT ON FUNCTION bemi.revert(bigint, jsonb, regclass, text, timestamptz, timestamptz, text) IS
'undoes the changes that meet all conditions given, the newest first, and returns what it did';
