-- What schema tools drop that they do not know: the tables with what is recorded, and the triggers of tracked tables.

-- Our own functions set it for what they drop; people, when they mean it. A dump that is restored with --clean drops all that it
-- brings, and the recorder notices that (see bemi.is_replaced): only dumps turn off both of these settings.
CREATE FUNCTION bemi.may_drop() RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT COALESCE(NULLIF(current_setting('bemi.allow_drop', true), '')::boolean, false)
    OR current_setting('check_function_bodies') = 'off' AND current_setting('row_security') = 'off'
$$;

COMMENT ON FUNCTION bemi.may_drop() IS
'whether this session may drop what is recorded, and triggers of tracked tables';

CREATE FUNCTION bemi.refuse_truncate() RETURNS trigger
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT bemi.may_drop() THEN
    RAISE EXCEPTION 'the table %.% is not truncated: it has what bemi has recorded', quote_ident(TG_TABLE_SCHEMA), quote_ident(TG_TABLE_NAME) USING
      ERRCODE = 'object_in_use', HINT = 'To lose it nonetheless: SET bemi.allow_drop = on;';
  END IF;
  RETURN NULL;
END
$$;

COMMENT ON FUNCTION bemi.refuse_truncate() IS
'for the triggers of the tables that have what is recorded: refuses TRUNCATE';

-- Those tables are no members of the extension, so that they outlive it.
CREATE FUNCTION bemi.keep_table(relation regclass) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = relation AND t.tgname = 'bemi_keep' AND t.tgenabled = 'A') THEN
    EXECUTE format('CREATE OR REPLACE TRIGGER bemi_keep BEFORE TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION bemi.refuse_truncate()', relation);
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER bemi_keep', relation);
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.keep_table(regclass) IS
'has TRUNCATE of a table be refused';

CREATE FUNCTION bemi.kept_tables() RETURNS SETOF regclass
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT t.relid FROM pg_partition_tree(to_regclass('bemi.changes')) t
  UNION ALL SELECT t.oid::regclass FROM unnest(ARRAY[to_regclass('bemi.recorder')::oid, to_regclass('bemi.sources')::oid]) AS t (oid) WHERE t.oid IS NOT NULL
$$;

COMMENT ON FUNCTION bemi.kept_tables() IS
'the tables that have what is recorded, but for the versions of tables';

-- The extension could not be dropped without CASCADE, which would take what is recorded with it.
CREATE FUNCTION bemi.release_tables() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  relation regclass;
BEGIN
  FOR relation IN SELECT t.tgrelid FROM pg_trigger t WHERE t.tgfoid = 'bemi.refuse_truncate()'::regprocedure LOOP
    EXECUTE format('DROP TRIGGER bemi_keep ON %s', relation);
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.release_tables() IS
'before the extension is dropped: removes the triggers that keep what is recorded';

-- Triggers of tracked tables that somebody dropped otherwise than by bemi.untrack(): the last one of each table.
CREATE TABLE bemi.dropped_triggers (
  relation oid PRIMARY KEY,
  dropped_at timestamptz NOT NULL,
  dropped_by name NOT NULL,
  is_back boolean NOT NULL
);

COMMENT ON TABLE bemi.dropped_triggers IS
'whose triggers were dropped otherwise than by bemi.untrack(), when and by whom';

-- The rules are the arguments of the trigger, which are gone when it is dropped.
CREATE FUNCTION bemi.before_drop_trigger(relation oid) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM set_config('bemi.dropping', jsonb_build_object('relation', t.relation, 'enabled', t.enabled, 'arguments', bemi.rules(t.arguments, 'every'))::text, true)
  FROM bemi.context_triggers t WHERE t.relation = before_drop_trigger.relation AND t.name = 'bemi_context';
END
$$;

COMMENT ON FUNCTION bemi.before_drop_trigger(oid) IS
'remembers the rules of a table whose trigger is about to be dropped';

-- In a schema that is tracked as a whole, or below a tracked table, the trigger comes back at once, with its rules.
CREATE FUNCTION bemi.put_back(relation regclass) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  dropping jsonb;
BEGIN
  dropping := NULLIF(current_setting('bemi.dropping', true), '');
  -- Without its rules it would show what they mask.
  IF (dropping ->> 'relation')::oid IS DISTINCT FROM relation THEN
    RETURN false;
  ELSIF NOT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN bemi.tracked_schemas s ON s.schema = n.nspname WHERE c.oid = relation)
    AND NOT EXISTS (SELECT FROM pg_class c, pg_partition_ancestors(c.oid) a JOIN bemi.context_triggers t ON t.relation = a.relid
      WHERE c.oid = put_back.relation AND c.relispartition)
  THEN
    RETURN false;
  END IF;
  PERFORM bemi.put_trigger(relation, ARRAY(SELECT jsonb_array_elements_text(dropping -> 'arguments')));
  IF dropping ->> 'enabled' = 'A' THEN
    EXECUTE format('ALTER TABLE ONLY %s ENABLE ALWAYS TRIGGER bemi_context', relation);
  END IF;
  RETURN true;
EXCEPTION WHEN OTHERS THEN
  RAISE WARNING 'the trigger bemi_context of % could not be put back: %', relation, SQLERRM;
  RETURN false;
END
$$;

COMMENT ON FUNCTION bemi.put_back(regclass) IS
'makes the trigger of a tracked table again that was dropped, where all tables are tracked; false elsewhere';

-- The event triggers may be among what it drops, so that they cannot see to it afterwards.
CREATE FUNCTION bemi.guard_owned(role oid) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT bemi.may_drop() AND EXISTS (SELECT FROM bemi.kept_tables() k JOIN pg_class c ON c.oid = k WHERE c.relowner = role) THEN
    RAISE EXCEPTION 'what the role % owns is not dropped: it has what bemi has recorded', quote_ident(pg_get_userbyid(role)) USING
      ERRCODE = 'object_in_use', HINT = format('To keep it: REASSIGN OWNED BY %s TO another superuser. To lose it: SET bemi.allow_drop = on;', quote_ident(pg_get_userbyid(role)));
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.guard_owned(oid) IS
'before DROP OWNED: refuses to drop what is recorded';

CREATE FUNCTION bemi.guard_drops() RETURNS event_trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  gone record;
  its_table regclass;
  is_back boolean;
BEGIN
  FOR gone IN
    SELECT d.object_type, d.object_identity, d.address_names FROM pg_event_trigger_dropped_objects() d
    WHERE NOT d.is_temporary AND (
      d.object_type = 'table' AND d.schema_name = 'bemi' AND d.object_name ~ '^(changes|changes_default|changes_[0-9]+_[0-9]+|recorder|recorded_versions|sources)$'
      OR d.object_type = 'trigger' AND d.address_names[3] = 'bemi_context' AND d.original)
  LOOP
    IF bemi.may_drop() THEN
      RETURN;
    ELSIF gone.object_type = 'table' THEN
      RAISE EXCEPTION 'the table % is not dropped: it has what bemi has recorded', gone.object_identity USING
        ERRCODE = 'object_in_use', HINT = 'To lose it nonetheless: SET bemi.allow_drop = on;';
    END IF;
    PERFORM bemi.require_readable(), bemi.require_safe_tables(ARRAY['bemi.dropped_triggers'::regclass::oid]);
    its_table := to_regclass(format('%I.%I', gone.address_names[1], gone.address_names[2]));
    CONTINUE WHEN its_table IS NULL OR EXISTS (SELECT FROM bemi.context_triggers t WHERE t.relation = its_table);
    is_back := bemi.put_back(its_table);
    DELETE FROM bemi.dropped_triggers d WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = d.relation);
    INSERT INTO bemi.dropped_triggers VALUES (its_table, clock_timestamp(), session_user, is_back)
    ON CONFLICT ON CONSTRAINT dropped_triggers_pkey DO UPDATE SET dropped_at = EXCLUDED.dropped_at, dropped_by = EXCLUDED.dropped_by, is_back = EXCLUDED.is_back;
    IF is_back THEN
      RAISE WARNING 'the trigger bemi_context of % was put back: tables of its schema are tracked', its_table USING
        HINT = format('To have the table no longer tracked: SELECT bemi.untrack(%L);', its_table);
    ELSE
      RAISE WARNING 'the table % is no longer tracked: its trigger bemi_context was dropped', its_table USING
        HINT = format('To have it tracked again: SELECT bemi.track(%L);', its_table);
    END IF;
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.guard_drops() IS
'for the event trigger: refuses to drop what is recorded, and sees to the triggers of tracked tables';

CREATE EVENT TRIGGER bemi_guard_drops ON sql_drop EXECUTE FUNCTION bemi.guard_drops();
ALTER EVENT TRIGGER bemi_guard_drops ENABLE ALWAYS;

COMMENT ON EVENT TRIGGER bemi_guard_drops IS
'keeps what is recorded, and the triggers of tracked tables, from being dropped unseen';
