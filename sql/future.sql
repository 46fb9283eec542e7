-- Whole schemas, and the tables that are made, attached or moved there later: event triggers see to these.

CREATE TABLE @extschema@.tracked_schemas (schema name PRIMARY KEY);

-- pg_dump saves what is in it.
SELECT pg_catalog.pg_extension_config_dump('@extschema@.tracked_schemas', '');
GRANT SELECT ON @extschema@.tracked_schemas TO PUBLIC;

COMMENT ON TABLE @extschema@.tracked_schemas IS
'the schemas whose future tables are tracked, by bemi.track_all()';

-- The tables that track_all() means.
CREATE FUNCTION @extschema@.trackable(schemas name[]) RETURNS SETOF regclass
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT c.oid::regclass FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname = ANY (schemas) AND c.relkind IN ('r', 'p') AND c.relpersistence = 'p'
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
  ORDER BY c.relkind = 'p' DESC, c.oid
$$;

COMMENT ON FUNCTION @extschema@.trackable(name[]) IS
'the permanent tables of schemas that are no part of an extension';

CREATE FUNCTION @extschema@.track_all(schemas name[] DEFAULT '{public}') RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  unknown text;
  relations regclass[];
  relation regclass;
  done int := 0;
  others text;
BEGIN
  SELECT COALESCE(quote_ident(s), 'NULL') INTO unknown FROM unnest(schemas) s
  WHERE NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = s) LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'there is no schema %', unknown USING ERRCODE = 'invalid_schema_name';
  END IF;
  SELECT quote_ident(s) INTO unknown FROM unnest(schemas) s
  WHERE s IN ('@extschema@', 'information_schema') OR s LIKE 'pg\_%' LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'the tables of the schema % cannot be tracked', unknown USING
      ERRCODE = 'invalid_parameter_value', HINT = 'Name schemas of your own.';
  END IF;
  relations := ARRAY(SELECT t FROM @extschema@.trackable(schemas) t JOIN pg_class c ON c.oid = t
    WHERE pg_has_role(c.relowner, 'USAGE') AND NOT EXISTS (SELECT FROM @extschema@.context_triggers o WHERE o.relation = t));
  FOREACH relation IN ARRAY relations LOOP
    PERFORM @extschema@.follow_table(relation, true);
    done := done + 1;
    IF done % 500 = 0 THEN
      RAISE NOTICE 'tracked % of % tables', done, cardinality(relations);
    END IF;
  END LOOP;
  RAISE NOTICE 'tracked % tables that were not tracked before', done;
  SELECT string_agg(t::text, ', ') INTO others FROM (
    SELECT t FROM @extschema@.trackable(schemas) t JOIN pg_class c ON c.oid = t
    WHERE NOT pg_has_role(c.relowner, 'USAGE') AND NOT EXISTS (SELECT FROM @extschema@.context_triggers o WHERE o.relation = t) LIMIT 10
  ) AS some_others (t);
  IF others IS NOT NULL THEN
    RAISE WARNING 'you do not own these tables, which are not tracked (the first ten of them): %', others USING
      HINT = 'Have their owners or a superuser call bemi.track_all().';
  END IF;
  IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
    INSERT INTO @extschema@.tracked_schemas SELECT DISTINCT s FROM unnest(schemas) s ON CONFLICT DO NOTHING;
  ELSIF EXISTS (SELECT unnest(schemas) EXCEPT SELECT schema FROM @extschema@.tracked_schemas) THEN
    RAISE WARNING 'tables that are made later will not be tracked: only a superuser can have that' USING
      HINT = format('As a superuser: SELECT bemi.track_all(%L);', schemas);
  END IF;
END
$$;

COMMENT ON FUNCTION @extschema@.track_all(name[]) IS
'tracks all tables of schemas, those that will be made later too';

CREATE FUNCTION @extschema@.untrack_all() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  relations regclass[];
  relation regclass;
  done int := 0;
  others text;
BEGIN
  IF EXISTS (SELECT FROM @extschema@.tracked_schemas) THEN
    IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
      DELETE FROM @extschema@.tracked_schemas;
    ELSE
      RAISE WARNING 'tables that are made later in the tracked schemas will still be tracked: only a superuser can end that' USING
        HINT = 'As a superuser: SELECT bemi.untrack_all();';
    END IF;
  END IF;
  relations := ARRAY(SELECT DISTINCT t.relation FROM @extschema@.context_triggers t JOIN pg_class c ON c.oid = t.relation
    WHERE pg_has_role(c.relowner, 'USAGE') ORDER BY 1);
  FOREACH relation IN ARRAY relations LOOP
    PERFORM @extschema@.untrack(relation);
    done := done + 1;
    IF done % 500 = 0 THEN
      RAISE NOTICE 'ended tracking of % of % tables', done, cardinality(relations);
    END IF;
  END LOOP;
  SELECT string_agg(t::regclass::text, ', ') INTO others FROM (SELECT DISTINCT t.relation FROM @extschema@.context_triggers t LIMIT 10) AS some_others (t);
  IF others IS NOT NULL THEN
    RAISE WARNING 'you do not own these tables, which are still tracked (the first ten of them): %', others USING
      HINT = 'Have their owners or a superuser call bemi.untrack_all().';
  END IF;
END
$$;

COMMENT ON FUNCTION @extschema@.untrack_all() IS
'ends all tracking, and puts back the replica identities that were there before';

-- Tracks a table and its partitions where they should be and are not: with the rules of the tracked table above it that
-- is nearest, or without rules if its schema is tracked.
CREATE FUNCTION @extschema@.follow_table(relation regclass, in_tracked_schema boolean DEFAULT false) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  member regclass;
  form record;
  above record;
BEGIN
  FOREACH member IN ARRAY ARRAY(SELECT @extschema@.tree(relation)) LOOP
    SELECT relispartition, relnamespace INTO form FROM pg_class
    WHERE oid = member AND relpersistence = 'p' AND pg_has_role(relowner, 'USAGE')
      AND NOT EXISTS (SELECT FROM @extschema@.context_triggers t WHERE t.relation = member);
    IF NOT FOUND THEN
      CONTINUE;
    END IF;
    IF form.relispartition THEN
      SELECT t.arguments, c.relreplident INTO above
      FROM pg_partition_ancestors(member) WITH ORDINALITY AS a (relid, distance)
      JOIN @extschema@.context_triggers t ON t.relation = a.relid JOIN pg_class c ON c.oid = a.relid
      ORDER BY a.distance LIMIT 1;
    ELSE
      above := NULL;
    END IF;
    IF above IS NOT NULL THEN
      PERFORM @extschema@.track_one(member, CASE above.relreplident WHEN 'f' THEN 'full' ELSE 'keep' END,
        @extschema@.rules(above.arguments, 'ignore'), @extschema@.rules(above.arguments, 'mask'));
    ELSIF in_tracked_schema OR EXISTS (
      SELECT FROM @extschema@.tracked_schemas WHERE schema = (SELECT nspname FROM pg_namespace WHERE oid = form.relnamespace)
    ) THEN
      PERFORM @extschema@.track_one(member, 'full', '{}', '{}');
    END IF;
  END LOOP;
END
$$;

COMMENT ON FUNCTION @extschema@.follow_table(regclass, boolean) IS
'tracks a table where it should be and is not';

-- Writes the new name of a column or of an index into the rules of a table.
CREATE FUNCTION @extschema@.follow_rename(relation regclass, kinds text[], old_value text, new_value text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  trigger record;
BEGIN
  FOR trigger IN
    SELECT t.*, ARRAY(
      SELECT COALESCE((SELECT kind || '=' || new_value FROM unnest(kinds) kind WHERE argument = kind || '=' || old_value), argument)
      FROM unnest(@extschema@.rules(t.arguments, 'every')) WITH ORDINALITY AS a (argument, place) ORDER BY place
    ) AS renamed
    FROM @extschema@.context_triggers t
    WHERE t.relation = follow_rename.relation AND t.name = 'bemi_context'
      AND EXISTS (SELECT FROM unnest(kinds) kind WHERE old_value = ANY (@extschema@.rules(t.arguments, kind)))
  LOOP
    PERFORM @extschema@.put_trigger(trigger.relation, trigger.renamed);
    -- The new trigger is enabled as any new one is.
    IF trigger.enabled <> 'O' THEN
      EXECUTE format('ALTER TABLE %s %s TRIGGER bemi_context', relation,
        CASE trigger.enabled WHEN 'D' THEN 'DISABLE' WHEN 'A' THEN 'ENABLE ALWAYS' ELSE 'ENABLE REPLICA' END);
    END IF;
  END LOOP;
END
$$;

COMMENT ON FUNCTION @extschema@.follow_rename(regclass, text[], text, text) IS
'writes the new name of a column or an index into the rules of a table';

-- Called by bemi.on_ddl() when something was done that matters; `done` is table, column, relation, constraint or schema,
-- the latter four with their names before and after. It never fails the statement.
CREATE FUNCTION @extschema@.follow_ddl(done text, old_name text, new_name text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  command record;
  followed regclass;
BEGIN
  IF done = 'schema' THEN
    BEGIN
      UPDATE @extschema@.tracked_schemas SET schema = new_name WHERE schema = old_name;
    EXCEPTION WHEN OTHERS THEN
      IF EXISTS (SELECT FROM @extschema@.tracked_schemas WHERE schema = old_name) THEN
        RAISE WARNING 'tables that are made in the schema % later will not be tracked: %', quote_ident(new_name), SQLERRM USING
          HINT = format('As a superuser: SELECT bemi.track_all(%L);', ARRAY[new_name]);
      END IF;
    END;
    RETURN;
  END IF;
  FOR command IN SELECT DISTINCT classid, objid FROM pg_event_trigger_ddl_commands() WHERE NOT in_extension LOOP
    BEGIN
      followed := NULL;
      IF done = 'constraint' THEN
        SELECT conrelid INTO followed FROM pg_constraint WHERE oid = command.objid AND conrelid <> 0;
      ELSIF done = 'relation' THEN
        SELECT indrelid INTO followed FROM pg_index WHERE indexrelid = command.objid;
      ELSIF command.classid = 'pg_class'::regclass THEN
        SELECT oid INTO followed FROM pg_class WHERE oid = command.objid AND relkind IN ('r', 'p', 'c');
      END IF;
      IF followed IS NULL THEN
        CONTINUE;
      ELSIF done = 'table' THEN
        PERFORM @extschema@.follow_table(followed);
      ELSIF done = 'column' THEN
        -- Tables that inherit the column, and tables of the type, have it under the new name too.
        PERFORM @extschema@.follow_rename(r, '{ignore,mask}', old_name, new_name) FROM (
          WITH RECURSIVE heirs (r) AS (
            SELECT followed::oid
            UNION SELECT heir FROM heirs, LATERAL (
              SELECT inhrelid FROM pg_inherits WHERE inhparent = r
              UNION ALL SELECT c.oid FROM pg_type t JOIN pg_class c ON c.reloftype = t.oid WHERE t.typrelid = r
            ) AS of_it (heir)
          ) SELECT r::regclass FROM heirs
        ) AS all_heirs (r);
      ELSE
        PERFORM @extschema@.follow_rename(followed, '{identity}', 'index:' || old_name, 'index:' || new_name);
      END IF;
    EXCEPTION WHEN OTHERS THEN
      RAISE WARNING 'bemi could not follow the change of %: %', COALESCE(followed, command.objid::regclass), SQLERRM USING
        HINT = CASE done WHEN 'table' THEN format('SELECT bemi.track(%L);', followed)
          ELSE format('Its rules name what is called %I now: see bemi.tracked, and call bemi.track(%L) with its rules.', new_name, followed) END;
    END;
  END LOOP;
EXCEPTION WHEN OTHERS THEN
  RAISE WARNING 'bemi could not follow this statement: %', SQLERRM USING
    HINT = 'SELECT * FROM bemi.doctor(); shows what is not tracked.';
END
$$;

COMMENT ON FUNCTION @extschema@.follow_ddl(text, text, text) IS
'keeps tracking complete after a statement that made, moved or renamed something';

CREATE FUNCTION @extschema@.on_ddl() RETURNS event_trigger
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'bemi_on_ddl';

COMMENT ON FUNCTION @extschema@.on_ddl() IS
'for the event trigger: calls bemi.follow_ddl() after statements that matter';

CREATE EVENT TRIGGER bemi_on_ddl ON ddl_command_end
WHEN TAG IN ('CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'CREATE SCHEMA', 'ALTER TABLE', 'ALTER TYPE', 'ALTER INDEX', 'ALTER SCHEMA')
EXECUTE FUNCTION @extschema@.on_ddl();

COMMENT ON EVENT TRIGGER bemi_on_ddl IS
'keeps the tracking of schemas, partitions and renamed columns complete';
