-- The run of a revert: in which order, what waits for what, and what is told of it.

-- Sets of rows, of which there may be many: adding one costs the same however many there are.
CREATE FUNCTION bemi.bucket("row" text) RETURNS int
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT 1 + (pg_catalog.hashtext("row") OPERATOR(pg_catalog.&) 4095)
$$;

COMMENT ON FUNCTION bemi.bucket(text) IS
'in which part of a set a row is looked for';

-- What a row is to be like in the end, as a member of such a set.
CREATE FUNCTION bemi.wanted_row(u bemi.undo, left_columns jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT jsonb_build_object(COALESCE(u.row_before, u.row_after), jsonb_build_object('oid', u.relation::oid, 'key', u.primary_key,
    'where', COALESCE(u.where_before, u.where_after), 'image', CASE WHEN u.row_before IS NOT NULL THEN u.before END, 'left', left_columns))
$$;

COMMENT ON FUNCTION bemi.wanted_row(bemi.undo, jsonb) IS
'what a row is to be like when all is undone';

-- A trigger may change a row that was undone already: one that counts, when it sees what is counted go. Such columns are set once
-- more, and if that does not help, it is an error.
CREATE FUNCTION bemi.settle(wanted jsonb[], tables jsonb, caller jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  w record;
  t jsonb;
  here record;
  names text[];
  sets text;
  problems text[];
BEGIN
  FOR attempt IN 1..3 LOOP
    problems := '{}';
    FOR w IN SELECT x.* FROM unnest(wanted) b, jsonb_each(b) e, jsonb_to_record(e.value) AS x (oid text, key text, "where" text, image jsonb, "left" jsonb) LOOP
      t := tables -> w.oid;
      SELECT * INTO here FROM bemi.row_now(t, w.where, w.image, false);
      names := ARRAY(SELECT n FROM unnest(bemi.differences(t -> 'compared', w.image, here.now)) n WHERE w.left IS NULL OR NOT w.left ? n);
      IF (here.rows > 0) <> (w.image IS NOT NULL) THEN
        problems := problems || format('%s %s: it is %s', t ->> 'name', w.key, CASE WHEN here.rows > 0 THEN 'there again' ELSE 'gone again' END);
      ELSIF names <> '{}' THEN
        problems := problems || format('%s %s: %s', t ->> 'name', w.key, bemi.quoted(names));
        sets := (SELECT string_agg(format('%I = %s', n, bemi.literal(t -> 'columns' -> n, w.image -> n)), ', ') FROM unnest(names) n WHERE NOT (t -> 'generated') ? n);
        IF attempt < 3 AND sets IS NOT NULL THEN
          PERFORM bemi.run_undo(format('UPDATE %s SET %s WHERE %s;', t ->> 'source', sets, w.where), caller);
        END IF;
      END IF;
    END LOOP;
    EXIT WHEN problems = '{}';
  END LOOP;
  IF problems <> '{}' THEN
    RAISE EXCEPTION 'bemi undid nothing: triggers changed rows again that were undone' USING ERRCODE = 'triggered_data_change_violation',
      DETAIL = array_to_string(problems[1:20], chr(10)), HINT = 'ALTER TABLE ... DISABLE TRIGGER ...; keeps them from that, and ENABLE TRIGGER puts them back.';
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.settle(jsonb[], jsonb, jsonb) IS
'sees to it that triggers leave rows as they were undone';

CREATE FUNCTION bemi.is_settled(wanted jsonb[], tables jsonb, caller jsonb) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM bemi.settle(wanted, tables, caller);
  RETURN true;
EXCEPTION WHEN triggered_data_change_violation THEN
  RETURN false;
END
$$;

COMMENT ON FUNCTION bemi.is_settled(jsonb[], jsonb, jsonb) IS
'whether rows are, or can be set, as they were undone';

CREATE FUNCTION bemi.check_undoing(t jsonb, operation text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  wanted text;
  relation oid := t ->> 'oid';
BEGIN
  FOREACH wanted IN ARRAY CASE operation WHEN 'CREATE' THEN '{SELECT,UPDATE,DELETE}'::text[] WHEN 'UPDATE' THEN '{SELECT,UPDATE}' ELSE '{SELECT,INSERT}' END LOOP
    IF NOT has_table_privilege(relation, wanted) AND (wanted = 'DELETE' OR NOT has_any_column_privilege(relation, wanted)) THEN
      RAISE EXCEPTION 'permission denied for table %', t ->> 'name' USING
        ERRCODE = 'insufficient_privilege', DETAIL = format('To undo a %s takes %s on it.', operation, wanted),
        HINT = format('GRANT %s ON %s TO %I;', wanted, t ->> 'name', current_user);
    END IF;
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.check_undoing(jsonb, text) IS
'raises an error if the caller may not undo such changes of a table';

-- The modes that constraints are declared with, once all were checked. PostgreSQL does not tell which ones the caller had set.
CREATE FUNCTION bemi.declare_constraints() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  names text;
BEGIN
  SELECT string_agg(format('%I.%I', n.nspname, k.conname), ', ') INTO names
  FROM (SELECT connamespace, conname FROM pg_constraint GROUP BY 1, 2 HAVING bool_or(condeferred) AND bool_and(condeferrable)) k
  JOIN pg_namespace n ON n.oid = k.connamespace WHERE has_schema_privilege(n.oid, 'USAGE');
  IF names IS NOT NULL THEN
    EXECUTE format('SET CONSTRAINTS %s DEFERRED', names);
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.declare_constraints() IS
'has the constraints that are INITIALLY DEFERRED be deferred again';

-- Newest first. What meets a constraint waits, and with it all older changes of the same row, until others have made room:
-- it is tried again from its oldest, since a row that others refer to comes before them, and from its newest. What then
-- waits still may be done by ON UPDATE CASCADE, or else with deferred constraints.
CREATE FUNCTION bemi.revert_selection(
  transaction_id bigint, context jsonb, relation regclass, primary_key text, since timestamptz, until timestamptz, on_conflict text, caller jsonb
) RETURNS SETOF bemi.reverted
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
  is_skipping boolean := COALESCE(on_conflict = 'skip', false);
  context_before text;
  role_before text := current_setting('session_replication_role');
  source refcursor;
  mode text;
  u bemi.undo;
  a bemi.attempt;
  told bemi.reverted;
  done bemi.reverted[];
  t jsonb;
  tables jsonb := '{}';
  checked text;
  empty jsonb[] := array_fill('{}'::jsonb, ARRAY[4096]);
  -- Sets of rows: those that an undo waits for, those of conflicts, and columns that triggers left otherwise.
  held jsonb[];
  -- What the undos that wait will refer to: it is not given up before.
  needed jsonb[];
  lost jsonb[] := empty;
  ours jsonb[] := empty;
  -- What rows are to be like in the end, if triggers of any table could change them again.
  wanted jsonb[] := empty;
  is_watched boolean := EXISTS (SELECT FROM pg_trigger g WHERE NOT g.tgisinternal AND g.tgenabled <> 'D' AND g.tgfoid <> 'bemi.emit_context()'::regprocedure
    AND EXISTS (SELECT FROM bemi.context_triggers c WHERE c.relation = g.tgrelid));
  here text;
  b int;
  waiting bemi.undo[] := '{}';
  remaining bemi.undo[];
  -- Those that ON UPDATE CASCADE has done.
  also bigint[] := '{}';
  conflicts text[] := '{}';
  conflict_count bigint := 0;
  is_any boolean := false;
  is_progress boolean;
  is_done boolean;
  before_deferred record;
BEGIN
  IF on_conflict IS NULL OR on_conflict NOT IN ('error', 'skip') THEN
    RAISE EXCEPTION 'on_conflict cannot be %', COALESCE(quote_literal(on_conflict), 'NULL') USING ERRCODE = 'invalid_parameter_value',
      HINT = 'It is ''error'' (nothing is undone if anything cannot be) or ''skip'' (what cannot be undone is left out).';
  END IF;
  PERFORM bemi.check_reading();
  -- Without foreign keys and triggers a revert would leave what nothing else leaves.
  IF role_before = 'replica' THEN
    PERFORM set_config('session_replication_role', 'origin', true);
  END IF;
  context_before := COALESCE(current_setting('bemi.context', true), '');
  PERFORM bemi.merge_context(jsonb_build_object('reverts', (
    SELECT COALESCE(jsonb_object_agg(key, value), '{}') FROM jsonb_each(jsonb_build_object('transaction_id', transaction_id, 'context', context,
      'relation', relation, 'primary_key', primary_key, 'since', since, 'until', until)) WHERE value <> 'null')), true);
  FOR phase IN 1..2 LOOP
    IF phase = 2 THEN
      EXIT WHEN waiting = '{}' OR NOT EXISTS (SELECT FROM pg_constraint WHERE condeferrable);
      SELECT waiting AS waiting, lost AS lost, ours AS ours, wanted AS wanted, also AS also, conflicts AS conflicts, conflict_count AS conflict_count INTO before_deferred;
    END IF;
    done := '{}';
    BEGIN
      IF phase = 2 THEN
        SET CONSTRAINTS ALL DEFERRED;
      END IF;
      mode := CASE phase WHEN 1 THEN 'first' ELSE 'forward' END;
      is_progress := false;
      LOOP
        IF mode = 'first' THEN
          OPEN source FOR SELECT * FROM bemi.undos(transaction_id, context, relation, primary_key, since, until, is_skipping);
        ELSIF mode = 'backward' THEN
          OPEN source FOR SELECT w.* FROM unnest(waiting) w ORDER BY w.number DESC;
        ELSE
          OPEN source FOR SELECT w.* FROM unnest(waiting) w ORDER BY w.number;
        END IF;
        IF mode <> 'backward' THEN
          held := empty;
          needed := empty;
        END IF;
        remaining := '{}';
        LOOP
          FETCH source INTO u;
          EXIT WHEN NOT FOUND;
          is_any := true;
          IF mode = 'backward' AND u.is_behind THEN
            remaining := array_append(remaining, u);
            CONTINUE;
          END IF;
          IF u.relation IS NULL THEN
            -- It is gone, and so are its rows.
            t := '{"offers": [], "needs": []}';
          ELSIF t ->> 'oid' IS DISTINCT FROM u.relation::oid::text THEN
            t := tables -> u.relation::oid::text;
            IF t IS NULL THEN
              t := bemi.undo_table(u.relation);
              tables := tables || jsonb_build_object(u.relation::oid::text, t);
            END IF;
          END IF;
          IF mode = 'first' AND u.relation IS NOT NULL AND checked IS DISTINCT FROM concat(u.relation::oid, u.operation) THEN
            PERFORM bemi.check_undoing(t, u.operation);
            checked := concat(u.relation::oid, u.operation);
          END IF;
          IF COALESCE(lost[bemi.bucket(u.row_after)] ? u.row_after, false) OR COALESCE(lost[bemi.bucket(u.row_before)] ? u.row_before, false) THEN
            a := ROW('older', 'a newer change of the row was not undone', NULL, NULL, NULL);
          ELSIF u.problem IS NOT NULL THEN
            a := ROW('conflict', u.problem, NULL, NULL, NULL);
          ELSIF mode <> 'backward' AND (COALESCE(held[bemi.bucket(u.row_after)] ? u.row_after, false)
            OR COALESCE(held[bemi.bucket(u.row_before)] ? u.row_before, false))
          THEN
            a := ROW('behind', NULL, NULL, NULL, NULL);
          ELSIF COALESCE((SELECT bool_or(needed[bemi.bucket(o)] ? o) FROM unnest(CASE
            WHEN remaining = '{}' AND mode <> 'backward' OR t -> 'offers' = '[]' THEN '{}'
            WHEN u.operation = 'CREATE' THEN bemi.linked(t -> 'offers', u.after)
            WHEN u.operation = 'UPDATE' THEN ARRAY(SELECT unnest(bemi.linked(t -> 'offers', u.after)) EXCEPT SELECT unnest(bemi.linked(t -> 'offers', u.before)))
            END) o), false)
          THEN
            a := ROW('later', 'what refers to it could not be undone', NULL, NULL, NULL);
          ELSIF u.number = ANY (also) THEN
            a := ROW('reverted', concat_ws('. ', u.detail, 'done by ON UPDATE CASCADE'), NULL, NULL, NULL);
          ELSE
            a := bemi.attempt(u, t, ours[bemi.bucket(COALESCE(u.row_after, u.row_before))] -> COALESCE(u.row_after, u.row_before),
              caller, CASE mode WHEN 'cascade' THEN waiting END, phase = 2);
            b := bemi.bucket(u.row_after);
            IF a.outcome = 'conflict' AND COALESCE(wanted[b] ? u.row_after, false)
              AND bemi.is_settled(ARRAY[jsonb_build_object(u.row_after, wanted[b] -> u.row_after)], tables, caller)
            THEN
              a := bemi.attempt(u, t, ours[b] -> u.row_after, caller, CASE mode WHEN 'cascade' THEN waiting END, phase = 2);
            END IF;
          END IF;
          IF a.outcome IN ('later', 'behind') THEN
            u.is_behind := a.outcome = 'behind';
            u.reason := a.detail;
            remaining := array_append(remaining, u);
          ELSE
            is_progress := true;
          END IF;
          IF a.outcome IN ('later', 'behind') AND u.row_before IS NOT NULL AND mode <> 'backward' THEN
            FOREACH here IN ARRAY bemi.linked(t -> 'needs', u.before) LOOP
              b := bemi.bucket(here);
              needed[b] := needed[b] || jsonb_build_object(here, NULL);
            END LOOP;
          END IF;
          IF a.outcome = 'conflict' THEN
            conflict_count := conflict_count + 1;
            IF conflict_count <= 20 THEN
              conflicts := conflicts || format('%s %s (%s): %s', u.relation, u.primary_key, u.operation, a.detail);
            END IF;
          END IF;
          is_done := a.outcome IN ('reverted', 'partly reverted', 'unchanged');
          IF NOT is_done THEN
            FOREACH here IN ARRAY array_remove(ARRAY[u.row_after, nullif(u.row_before, u.row_after)], NULL) LOOP
              b := bemi.bucket(here);
              IF a.outcome IN ('later', 'behind') THEN
                held[b] := held[b] || jsonb_build_object(here, NULL);
              ELSE
                lost[b] := lost[b] || jsonb_build_object(here, NULL);
              END IF;
            END LOOP;
          ELSIF (t -> 'has_triggers')::boolean THEN
            b := bemi.bucket(u.row_after);
            IF ours[b] ? u.row_after THEN
              ours[b] := ours[b] - u.row_after;
            END IF;
            IF a.left_columns IS NOT NULL THEN
              b := bemi.bucket(u.row_before);
              ours[b] := ours[b] || jsonb_build_object(u.row_before, a.left_columns);
            END IF;
          END IF;
          IF is_done AND is_watched THEN
            b := bemi.bucket(u.row_after);
            IF wanted[b] ? u.row_after THEN
              wanted[b] := wanted[b] - u.row_after;
            END IF;
            b := bemi.bucket(COALESCE(u.row_before, u.row_after));
            wanted[b] := wanted[b] || bemi.wanted_row(u, a.left_columns);
          END IF;
          IF a.also IS NOT NULL THEN
            also := also || a.also;
          END IF;
          IF is_done OR is_skipping AND a.outcome IN ('conflict', 'older') THEN
            told := ROW(u.relation, u.primary_key, u.operation, CASE WHEN is_done THEN a.outcome ELSE 'skipped' END, a.detail,
              CASE WHEN is_done THEN a.statement END, u.transaction_id, u.commit_position, u.sequence);
            IF phase = 1 THEN
              RETURN NEXT told;
            ELSE
              done := array_append(done, told);
            END IF;
          END IF;
        END LOOP;
        CLOSE source;
        waiting := remaining;
        EXIT WHEN waiting = '{}' OR mode = 'cascade' AND NOT is_progress;
        mode := CASE WHEN mode = 'backward' THEN 'forward' WHEN is_progress OR mode = 'first' THEN 'backward' ELSE 'cascade' END;
        -- What the way back has done counts until the way there has ended too.
        is_progress := is_progress AND mode = 'forward';
      END LOOP;
      IF phase = 2 THEN
        SET CONSTRAINTS ALL IMMEDIATE;
        PERFORM bemi.declare_constraints();
      END IF;
    EXCEPTION WHEN integrity_constraint_violation THEN
      IF phase = 1 THEN
        RAISE;
      END IF;
      -- Nothing of what waited can be done.
      waiting := before_deferred.waiting;
      lost := before_deferred.lost;
      wanted := before_deferred.wanted;
      conflicts := before_deferred.conflicts;
      conflict_count := before_deferred.conflict_count;
      done := '{}';
    END;
    FOREACH told IN ARRAY done LOOP
      RETURN NEXT told;
    END LOOP;
  END LOOP;
  FOR u IN SELECT w.* FROM unnest(waiting) w ORDER BY w.number LOOP
    IF NOT u.is_behind THEN
      conflict_count := conflict_count + 1;
      IF conflict_count <= 20 THEN
        conflicts := conflicts || format('%s %s (%s): %s', u.relation, u.primary_key, u.operation, u.reason);
      END IF;
    END IF;
    IF is_skipping THEN
      told := ROW(u.relation, u.primary_key, u.operation, 'skipped', COALESCE(u.reason, 'a newer change of the row was not undone'), NULL,
        u.transaction_id, u.commit_position, u.sequence);
      RETURN NEXT told;
    END IF;
  END LOOP;
  IF conflict_count > 0 AND NOT is_skipping THEN
    RAISE EXCEPTION 'bemi undid nothing: % of the changes cannot be undone', conflict_count USING ERRCODE = 'triggered_data_change_violation',
      DETAIL = array_to_string(conflicts, chr(10)) || CASE WHEN conflict_count > 20 THEN format('%sand %s more', chr(10), conflict_count - 20) ELSE '' END,
      HINT = 'With on_conflict => ''skip'' the others are undone, and these are left as they are.';
  ELSIF NOT is_any THEN
    RAISE NOTICE 'no change was selected';
  ELSIF is_watched THEN
    PERFORM bemi.settle(wanted, tables, caller);
  END IF;
  PERFORM set_config('bemi.context', context_before, true);
  IF role_before = 'replica' THEN
    PERFORM set_config('session_replication_role', role_before, true);
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.revert_selection(bigint, jsonb, regclass, text, timestamptz, timestamptz, text, jsonb) IS
'for bemi.revert(): runs what it undoes under settings of the caller';

-- It keeps the search_path and the time zone of the caller for the triggers of his tables.
CREATE FUNCTION bemi.revert(
  transaction_id bigint DEFAULT NULL, context jsonb DEFAULT NULL, relation regclass DEFAULT NULL, primary_key text DEFAULT NULL,
  since timestamptz DEFAULT NULL, until timestamptz DEFAULT NULL, on_conflict text DEFAULT 'error'
) RETURNS TABLE (
  relation regclass, primary_key text, operation text, status text, detail text, statement text, transaction_id bigint, commit_position pg_lsn, sequence int
)
LANGUAGE sql VOLATILE AS $$
  SELECT * FROM bemi.revert_selection($1, $2, $3, $4, $5, $6, $7, pg_catalog.jsonb_build_object(
    'search_path', pg_catalog.current_setting('search_path'), 'timezone', pg_catalog.current_setting('timezone'), 'datestyle', pg_catalog.current_setting('datestyle')))
$$;

COMMENT ON FUNCTION bemi.revert(bigint, jsonb, regclass, text, timestamptz, timestamptz, text) IS
'undoes the changes that meet all conditions given, the newest first, and says what it did';
