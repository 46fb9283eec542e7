-- What schema tools drop because they do not know it: the tables with recorded changes, and the triggers of tracked
-- tables.

-- Functions of the extension set bemi.allow_drop for what they drop; people do when they mean it. Restoring a dump
-- with --clean drops all that it contains, and the recorder notices that (see bemi.is_replaced): only dumps turn off
-- both of these settings.
CREATE FUNCTION bemi.may_drop() RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT COALESCE(NULLIF(current_setting('bemi.allow_drop', true), '')::boolean, false)
    OR current_setting('check_function_bodies') = 'off' AND current_setting('row_security') = 'off'
$$;

COMMENT ON FUNCTION bemi.may_drop() IS
'returns whether this session may drop recorded changes, and triggers of tracked tables';

CREATE FUNCTION bemi.refuse_truncate() RETURNS trigger
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT bemi.may_drop() THEN
    RAISE EXCEPTION 'cannot truncate table %.% because it contains what bemi recorded',
        quote_ident(TG_TABLE_SCHEMA), quote_ident(TG_TABLE_NAME)
      USING ERRCODE = 'object_in_use', HINT = 'To truncate it anyway: SET bemi.allow_drop = on;';
  END IF;
  RETURN NULL;
END
$$;

COMMENT ON FUNCTION bemi.refuse_truncate() IS
'refuses TRUNCATE, as a trigger of the tables that contain recorded changes';

-- Those tables are not members of the extension, so that they outlive it.
CREATE FUNCTION bemi.keep_table(relation regclass) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT EXISTS (
    SELECT FROM pg_trigger t WHERE t.tgrelid = relation AND t.tgname = 'bemi_keep' AND t.tgenabled = 'A')
  THEN
    EXECUTE format('CREATE OR REPLACE TRIGGER bemi_keep BEFORE TRUNCATE ON %s '
      'FOR EACH STATEMENT EXECUTE FUNCTION bemi.refuse_truncate()', relation);
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER bemi_keep', relation);
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.keep_table(regclass) IS
'protects a table from TRUNCATE';

CREATE FUNCTION bemi.kept_tables() RETURNS SETOF regclass
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT t.relid
  FROM pg_partition_tree(to_regclass('bemi.changes')) t
  UNION ALL
  SELECT t.oid::regclass
  FROM unnest(ARRAY[to_regclass('bemi.recorder')::oid, to_regclass('bemi.sources')::oid]) AS t (oid)
  WHERE t.oid IS NOT NULL
$$;

COMMENT ON FUNCTION bemi.kept_tables() IS
'returns the tables that are protected from TRUNCATE';

-- With these triggers the extension could not be dropped without CASCADE, which would drop the recorded changes too.
CREATE FUNCTION bemi.release_tables() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  relation regclass;
BEGIN
  FOR relation IN
    SELECT t.tgrelid FROM pg_trigger t WHERE t.tgfoid = 'bemi.refuse_truncate()'::regprocedure
  LOOP
    EXECUTE format('DROP TRIGGER bemi_keep ON %s', relation);
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.release_tables() IS
'removes the triggers that protect tables from TRUNCATE, before the extension is dropped';

-- Holds the last such trigger of each table.
CREATE TABLE bemi.dropped_triggers (
  relation oid PRIMARY KEY,
  dropped_at timestamptz NOT NULL,
  dropped_by name NOT NULL,
  is_back boolean NOT NULL
);

COMMENT ON TABLE bemi.dropped_triggers IS
'the tables whose triggers were not dropped by bemi.untrack(), with the time and the role';

-- The rules are the arguments of the trigger, and disappear with it.
CREATE FUNCTION bemi.before_drop_trigger(relation oid) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM set_config('bemi_drop.trigger', jsonb_build_object(
    'relation', t.relation,
    'enabled', t.enabled,
    'arguments', bemi.rules(t.arguments, 'every'))::text, true)
  FROM bemi.context_triggers t
  WHERE t.relation = before_drop_trigger.relation
    AND t.name = 'bemi_context';
END
$$;

COMMENT ON FUNCTION bemi.before_drop_trigger(oid) IS
'remembers the rules of a table whose trigger is about to be dropped';

-- In a schema that is tracked as a whole, or below a tracked table, the trigger is created again at once, with its
-- rules.
CREATE FUNCTION bemi.put_back(relation regclass) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  dropping jsonb;
BEGIN
  dropping := NULLIF(current_setting('bemi_drop.trigger', true), '');
  -- Without its rules it would reveal what they mask.
  IF (dropping ->> 'relation')::oid IS DISTINCT FROM relation THEN
    RETURN false;
  ELSIF NOT EXISTS (
    SELECT FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN bemi.tracked_schemas s ON s.schema = n.nspname
    WHERE c.oid = relation
  ) AND NOT EXISTS (
    SELECT FROM pg_class c,
      pg_partition_ancestors(c.oid) a
      JOIN bemi.context_triggers t ON t.relation = a.relid
    WHERE c.oid = put_back.relation
      AND c.relispartition)
  THEN
    RETURN false;
  END IF;
  PERFORM bemi.put_trigger(relation, ARRAY(SELECT jsonb_array_elements_text(dropping -> 'arguments')));
  IF dropping ->> 'enabled' = 'A' THEN
    EXECUTE format('ALTER TABLE ONLY %s ENABLE ALWAYS TRIGGER bemi_context', relation);
  END IF;
  RETURN true;
EXCEPTION WHEN OTHERS THEN
  RAISE WARNING 'could not create the trigger bemi_context of % again: %', relation, SQLERRM;
  RETURN false;
END
$$;

COMMENT ON FUNCTION bemi.put_back(regclass) IS
'creates the dropped trigger of a table again where all tables are tracked; returns false elsewhere';

-- Called before DROP OWNED, which may drop the event triggers as well, so that they cannot react to it afterwards.
CREATE FUNCTION bemi.guard_owned(role oid) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT bemi.may_drop()
    AND EXISTS (SELECT FROM bemi.kept_tables() k JOIN pg_class c ON c.oid = k WHERE c.relowner = role)
  THEN
    RAISE EXCEPTION 'cannot drop objects owned by role % because they contain what bemi recorded',
        quote_ident(pg_get_userbyid(role))
      USING ERRCODE = 'object_in_use',
        HINT = format(
          'To keep it: REASSIGN OWNED BY %s TO another superuser. To drop it anyway: SET bemi.allow_drop = on;',
          quote_ident(pg_get_userbyid(role)));
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.guard_owned(oid) IS
'refuses DROP OWNED BY a role that owns recorded changes';

CREATE FUNCTION bemi.note_dropped_trigger(relation regclass) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  is_back boolean := bemi.put_back(relation);
BEGIN
  DELETE FROM bemi.dropped_triggers d
  WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = d.relation);
  INSERT INTO bemi.dropped_triggers
  VALUES (relation, clock_timestamp(), session_user, is_back)
  ON CONFLICT ON CONSTRAINT dropped_triggers_pkey
  DO UPDATE SET dropped_at = EXCLUDED.dropped_at, dropped_by = EXCLUDED.dropped_by, is_back = EXCLUDED.is_back;
  IF is_back THEN
    RAISE WARNING 'the trigger bemi_context of % was created again, because tables of its schema are tracked', relation
      USING HINT = format('To stop tracking the table: SELECT bemi.untrack(%L);', relation);
  ELSE
    RAISE WARNING 'the table % is no longer tracked, because its trigger bemi_context was dropped', relation
      USING HINT = format('To track it again: SELECT bemi.track(%L);', relation);
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.note_dropped_trigger(regclass) IS
'creates the dropped trigger of a table again where all tables are tracked, and notes who dropped it';

CREATE FUNCTION bemi.guard_drops() RETURNS event_trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  gone record;
  its_table regclass;
BEGIN
  FOR gone IN
    SELECT d.object_type, d.object_identity, d.address_names
    FROM pg_event_trigger_dropped_objects() d
    WHERE NOT d.is_temporary
      AND (d.object_type = 'table' AND d.schema_name = 'bemi' AND d.object_name ~ bemi.kept_names()
        OR d.object_type = 'trigger' AND d.address_names[3] = 'bemi_context' AND d.original)
  LOOP
    IF bemi.may_drop() THEN
      RETURN;
    ELSIF gone.object_type = 'table' THEN
      RAISE EXCEPTION 'cannot drop table % because it contains what bemi recorded', gone.object_identity
        USING ERRCODE = 'object_in_use', HINT = 'To drop it anyway: SET bemi.allow_drop = on;';
    END IF;
    PERFORM bemi.require_readable(), bemi.require_safe_tables(ARRAY['bemi.dropped_triggers'::regclass::oid]);
    its_table := to_regclass(format('%I.%I', gone.address_names[1], gone.address_names[2]));
    CONTINUE WHEN its_table IS NULL
      OR EXISTS (SELECT FROM bemi.context_triggers t WHERE t.relation = its_table);
    PERFORM bemi.note_dropped_trigger(its_table);
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.guard_drops() IS
'refuses to drop recorded changes, and creates dropped triggers of tracked tables again, as an event trigger';

CREATE EVENT TRIGGER bemi_guard_drops ON sql_drop
EXECUTE FUNCTION bemi.guard_drops();
ALTER EVENT TRIGGER bemi_guard_drops ENABLE ALWAYS;

COMMENT ON EVENT TRIGGER bemi_guard_drops IS
'keeps recorded changes, and the triggers of tracked tables, from being dropped unnoticed';
