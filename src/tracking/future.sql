-- Whole schemas, and the tables that are made, attached or moved there later: event triggers see to these.

CREATE TABLE bemi.tracked_schemas (schema name PRIMARY KEY);

-- A dump may bring what is there already.
CREATE FUNCTION bemi.pass_over_known_schema() RETURNS trigger
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN CASE WHEN NOT EXISTS (SELECT FROM bemi.tracked_schemas s WHERE s.schema = NEW.schema) THEN NEW END;
END
$$;

COMMENT ON FUNCTION bemi.pass_over_known_schema() IS
'for the table tracked_schemas: leaves out what is there already';

CREATE TRIGGER pass_over_known_schema BEFORE INSERT ON bemi.tracked_schemas
FOR EACH ROW EXECUTE FUNCTION bemi.pass_over_known_schema();

-- pg_dump saves what is in it.
SELECT pg_catalog.pg_extension_config_dump('bemi.tracked_schemas', '');
GRANT SELECT ON bemi.tracked_schemas TO PUBLIC;

COMMENT ON TABLE bemi.tracked_schemas IS
'the schemas whose future tables are tracked, by bemi.track_all()';

-- The tables that track_all() means.
CREATE FUNCTION bemi.trackable(schemas name[]) RETURNS SETOF regclass
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT c.oid::regclass FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname = ANY (schemas) AND c.relkind IN ('r', 'p') AND c.relpersistence = 'p'
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
  -- Partitions after what is above them; else what refers to others before these, as those who write lock them: it is
  -- younger mostly.
  ORDER BY c.relispartition, c.oid DESC
$$;

COMMENT ON FUNCTION bemi.trackable(name[]) IS
'the permanent tables of schemas that are no part of an extension';

CREATE FUNCTION bemi.try_lock_tracking() RETURNS boolean
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'bemi_try_lock_tracking';

REVOKE EXECUTE ON FUNCTION bemi.try_lock_tracking() FROM PUBLIC;

COMMENT ON FUNCTION bemi.try_lock_tracking() IS
'has those who make tables wait until the transaction ends, if no transaction in progress has made one';

-- It never stands in a queue: those who make tables would wait behind it.
CREATE FUNCTION bemi.await_makers(patience interval DEFAULT '3 s') RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  end_of_patience timestamptz := clock_timestamp() + patience;
BEGIN
  WHILE NOT bemi.try_lock_tracking() LOOP
    IF clock_timestamp() > end_of_patience THEN
      RETURN false;
    END IF;
    PERFORM pg_sleep(0.02);
  END LOOP;
  RETURN true;
END
$$;

REVOKE EXECUTE ON FUNCTION bemi.await_makers(interval) FROM PUBLIC;

COMMENT ON FUNCTION bemi.await_makers(interval) IS
'waits until no transaction in progress has made a table, and has others wait then; false if that takes too long';

CREATE FUNCTION bemi.track_all(schemas name[] DEFAULT '{public}') RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  unknown text;
  relations regclass[];
  relation regclass;
  done int := 0;
  others text;
BEGIN
  IF schemas IS NULL THEN
    RAISE EXCEPTION 'bemi cannot track the tables of NULL' USING
      ERRCODE = 'null_value_not_allowed', HINT = 'Name schemas, like SELECT bemi.track_all(''{public}'').';
  END IF;
  SELECT COALESCE(quote_ident(s), 'NULL') INTO unknown FROM unnest(schemas) s
  WHERE NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = s) LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'there is no schema %', unknown USING ERRCODE = 'invalid_schema_name';
  END IF;
  SELECT quote_ident(s) INTO unknown FROM unnest(schemas) s
  WHERE s IN ('bemi', 'information_schema') OR starts_with(s::text, 'pg_') LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'the tables of the schema % cannot be tracked', unknown USING
      ERRCODE = 'invalid_parameter_value', HINT = 'Name schemas of your own.';
  END IF;
  IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
    -- Whoever makes a table now waits for this to end, or has made it before we look.
    IF NOT bemi.await_makers() THEN
      RAISE WARNING 'transactions in progress have made tables, which may not be tracked' USING
        HINT = format('When they have ended: SELECT bemi.track_all(%L);', schemas);
    END IF;
    PERFORM bemi.require_safe_tables(ARRAY['bemi.tracked_schemas'::regclass::oid]);
    INSERT INTO bemi.tracked_schemas SELECT DISTINCT s FROM unnest(schemas) s ON CONFLICT DO NOTHING;
  ELSIF EXISTS (SELECT unnest(schemas) EXCEPT SELECT schema FROM bemi.tracked_schemas) THEN
    RAISE WARNING 'tables that are made later will not be tracked: only a superuser can have that' USING
      HINT = format('As a superuser: SELECT bemi.track_all(%L);', schemas);
  END IF;
  relations := ARRAY(SELECT t FROM bemi.trackable(schemas) t JOIN pg_class c ON c.oid = t
    WHERE pg_has_role(c.relowner, 'USAGE') AND NOT EXISTS (SELECT FROM bemi.context_triggers o WHERE o.relation = t));
  FOREACH relation IN ARRAY relations LOOP
    BEGIN
      PERFORM bemi.follow_table(relation, true);
    EXCEPTION WHEN insufficient_resources THEN
      RAISE;
    WHEN OTHERS THEN
      RAISE WARNING 'bemi could not track %: %', relation, SQLERRM USING HINT = format('SELECT bemi.track(%L);', relation);
    END;
    done := done + 1;
    IF done % 500 = 0 THEN
      RAISE NOTICE 'tracked % of % tables', done, cardinality(relations);
    END IF;
  END LOOP;
  RAISE NOTICE 'tracked % tables that were not tracked before',
    (SELECT count(*) FROM unnest(relations) r WHERE EXISTS (SELECT FROM bemi.context_triggers t WHERE t.relation = r));
  SELECT string_agg(t::text, ', ') INTO others FROM (
    SELECT t FROM bemi.trackable(schemas) t JOIN pg_class c ON c.oid = t
    WHERE NOT pg_has_role(c.relowner, 'USAGE') AND NOT EXISTS (SELECT FROM bemi.context_triggers o WHERE o.relation = t) LIMIT 10
  ) AS some_others (t);
  IF others IS NOT NULL THEN
    RAISE WARNING 'you do not own these tables, which are not tracked (the first ten of them): %', others USING
      HINT = 'Have their owners or a superuser call bemi.track_all().';
  END IF;
  PERFORM bemi.warn_of_publications();
END
$$;

COMMENT ON FUNCTION bemi.track_all(name[]) IS
'tracks all tables of schemas, those that will be made later too';

CREATE FUNCTION bemi.untrack_all() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  relations regclass[];
  relation regclass;
  done int := 0;
  others text;
BEGIN
  IF EXISTS (SELECT FROM bemi.tracked_schemas) THEN
    IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
      PERFORM bemi.require_safe_tables(ARRAY['bemi.tracked_schemas'::regclass::oid]);
      DELETE FROM bemi.tracked_schemas;
    ELSE
      RAISE WARNING 'tables that are made later in the tracked schemas will still be tracked: only a superuser can end that' USING
        HINT = 'As a superuser: SELECT bemi.untrack_all();';
    END IF;
  END IF;
  relations := ARRAY(SELECT oid FROM pg_class c WHERE pg_has_role(c.relowner, 'USAGE')
    AND EXISTS (SELECT FROM bemi.context_triggers t WHERE t.relation = c.oid) ORDER BY c.relispartition, c.relkind = 'p' DESC, c.oid DESC);
  FOREACH relation IN ARRAY relations LOOP
    BEGIN
      PERFORM bemi.untrack_one(relation);
    EXCEPTION WHEN insufficient_resources THEN
      RAISE;
    WHEN OTHERS THEN
      RAISE WARNING 'bemi could not end the tracking of %: %', relation, SQLERRM USING HINT = format('SELECT bemi.untrack(%L);', relation);
    END;
    done := done + 1;
    IF done % 500 = 0 THEN
      RAISE NOTICE 'ended tracking of % of % tables', done, cardinality(relations);
    END IF;
  END LOOP;
  SELECT string_agg(t::regclass::text, ', ') INTO others FROM (SELECT DISTINCT t.relation FROM bemi.context_triggers t LIMIT 10) AS some_others (t);
  IF others IS NOT NULL THEN
    RAISE WARNING 'these tables are still tracked (the first ten of them): %', others USING
      HINT = 'Those that you do not own need their owners or a superuser to call bemi.untrack_all().';
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.untrack_all() IS
'ends all tracking, and puts back the replica identities that were there before';

-- Tracks a table and its partitions where they should be and are not: by the rules of the tracked table above that is
-- nearest, or without rules if its schema is tracked. A table that has been attached gets the masks of what is above, and
-- all its rules if it has none of its own.
CREATE FUNCTION bemi.follow_table(
  relation regclass, in_tracked_schema boolean DEFAULT false, is_attached boolean DEFAULT false, author oid DEFAULT NULL
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
  -- With whose rights the statement was run that is followed.
  role oid := COALESCE(author, (SELECT oid FROM pg_roles WHERE rolname = current_user));
  member regclass;
  form record;
  own record;
  above record;
BEGIN
  FOREACH member IN ARRAY ARRAY(SELECT bemi.tree(relation)) LOOP
    SELECT c.*, pg_has_role(role, c.relowner, 'USAGE') AS is_owned INTO form FROM pg_class c WHERE c.oid = member AND c.relpersistence = 'p'
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e');
    CONTINUE WHEN NOT FOUND;
    SELECT t.oid, bemi.rules(t.arguments, 'ignore') AS ignored, bemi.masks(member) AS masked
    INTO own FROM bemi.context_triggers t WHERE t.relation = member AND t.name = 'bemi_context';
    CONTINUE WHEN own.oid IS NOT NULL AND NOT is_attached;
    SELECT t.oid, bemi.rules(t.arguments, 'ignore') AS ignored, bemi.masks(a.relid) AS masked, c.relreplident
    INTO above FROM pg_partition_ancestors(CASE WHEN form.relispartition THEN member END) WITH ORDINALITY AS a (relid, distance)
    JOIN bemi.context_triggers t ON t.relation = a.relid AND t.relation <> member AND t.name = 'bemi_context' JOIN pg_class c ON c.oid = a.relid
    ORDER BY a.distance LIMIT 1;
    CONTINUE WHEN above.oid IS NULL AND (own.oid IS NOT NULL OR NOT (in_tracked_schema OR EXISTS (
      SELECT FROM bemi.tracked_schemas WHERE schema = (SELECT nspname FROM pg_namespace WHERE oid = form.relnamespace))));
    IF NOT form.is_owned THEN
      RAISE WARNING 'bemi does not track %, which you do not own', member USING
        HINT = format('As its owner or a superuser: SELECT bemi.follow_table(%L, true);', member);
    ELSIF above.oid IS NULL THEN
      PERFORM bemi.track_one(member, 'full', '{}'::text[], '{}'::text[]);
    ELSIF own.oid IS NULL OR own.ignored = '{}' AND own.masked = '{}' THEN
      PERFORM bemi.track_one(member, CASE above.relreplident WHEN 'f' THEN 'full' ELSE 'keep' END, above.ignored, above.masked);
    ELSE
      PERFORM bemi.track_one(member, 'keep', own.ignored, own.masked || above.masked);
    END IF;
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.follow_table(regclass, boolean, boolean, oid) IS
'tracks a table where it should be and is not';

-- Writes the new name of a column or of an index into the rules of a table.
CREATE FUNCTION bemi.follow_rename(relation regclass, kinds text[], old_value text, new_value text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  trigger record;
BEGIN
  IF NOT EXISTS (SELECT FROM unnest(kinds) kind WHERE old_value = ANY (bemi.table_rules(relation, kind))) THEN
    RETURN;
  END IF;
  FOR trigger IN
    SELECT t.*, ARRAY(
      SELECT COALESCE((SELECT kind || '=' || new_value FROM unnest(kinds) kind WHERE argument = kind || '=' || old_value), argument)
      FROM unnest(bemi.rules(t.arguments, 'every')) WITH ORDINALITY AS a (argument, place) ORDER BY place
    ) AS renamed
    FROM bemi.context_triggers t WHERE t.relation = follow_rename.relation
  LOOP
    IF trigger.name <> 'bemi_context' OR NOT trigger.is_whole THEN
      RAISE EXCEPTION 'the trigger % was not made by bemi.track()', quote_ident(trigger.name);
    END IF;
    PERFORM bemi.put_trigger(relation, trigger.renamed);
    -- The new trigger is enabled as any new one is.
    IF trigger.enabled <> 'O' THEN
      EXECUTE format('ALTER TABLE ONLY %s %s TRIGGER bemi_context', relation,
        CASE trigger.enabled WHEN 'D' THEN 'DISABLE' WHEN 'A' THEN 'ENABLE ALWAYS' ELSE 'ENABLE REPLICA' END);
    END IF;
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.follow_rename(regclass, text[], text, text) IS
'writes the new name of a column or an index into the rules of a table';

-- A tracked schema has another name.
CREATE FUNCTION bemi.follow_schema(old_name text, new_name text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM bemi.tracked_schemas WHERE schema = old_name) THEN
    RETURN;
  END IF;
  PERFORM bemi.require_safe_tables(ARRAY['bemi.tracked_schemas'::regclass::oid]);
  WITH renamed AS (DELETE FROM bemi.tracked_schemas WHERE schema = old_name RETURNING 1)
  INSERT INTO bemi.tracked_schemas SELECT new_name FROM renamed;
EXCEPTION WHEN OTHERS THEN
  IF EXISTS (SELECT FROM bemi.tracked_schemas WHERE schema = old_name) THEN
    RAISE WARNING 'tables that are made in the schema % later will not be tracked: %', quote_ident(new_name), SQLERRM USING
      HINT = format('As a superuser: SELECT bemi.track_all(%L);', ARRAY[new_name]);
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.follow_schema(text, text) IS
'writes the new name of a schema into bemi.tracked_schemas';

-- The tables that a statement concerns: what it changed, and what a constraint, an index or a column belongs to; of a
-- column, also the tables that inherit it, and those of its type.
CREATE FUNCTION bemi.followed(done text, old_name text) RETURNS SETOF regclass
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  relations oid[] := '{}';
  relation oid;
  place int := 1;
BEGIN
  -- Planned anew after each statement, so it is as small as it can be; and a join might look at all tables.
  FOR relation IN SELECT DISTINCT CASE
      WHEN done = 'partition' THEN old_name::oid
      WHEN done = 'constraint' THEN (SELECT conrelid FROM pg_constraint WHERE oid = objid AND contype IN ('p', 'u', 'x'))
      WHEN done = 'relation' THEN (SELECT indrelid FROM pg_index WHERE indexrelid = objid)
      WHEN classid = 'pg_class'::regclass THEN objid END
    FROM pg_event_trigger_ddl_commands()
  LOOP
    relations := relations || relation;
  END LOOP;
  WHILE place <= cardinality(relations) LOOP
    relation := relations[place];
    IF (SELECT relkind IN ('r', 'p') FROM pg_class WHERE oid = relation) THEN
      RETURN NEXT relation;
    END IF;
    IF done IN ('column', 'column added') THEN
      FOR relation IN SELECT inhrelid FROM pg_inherits WHERE inhparent = relation
        UNION ALL SELECT c.oid FROM pg_type t JOIN pg_class c ON c.reloftype = t.oid WHERE t.typrelid = relation
      LOOP
        IF relation <> ALL (relations) THEN
          relations := relations || relation;
        END IF;
      END LOOP;
    END IF;
    place := place + 1;
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.followed(text, text) IS
'the tables that the statement concerns for which an event trigger is called';

-- Does for one table what bemi.on_ddl() saw.
CREATE FUNCTION bemi.follow(relation regclass, done text, old_name text, new_name text, author oid) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
  is_tracked boolean := EXISTS (SELECT FROM bemi.context_triggers t WHERE t.relation = follow.relation);
BEGIN
  IF done IN ('table', 'partition') THEN
    PERFORM bemi.follow_table(relation, is_attached => done = 'partition', author => author);
    PERFORM bemi.warn_of_conflicts(ARRAY(SELECT t::oid FROM bemi.tree(relation) t));
  ELSIF done = 'parent' THEN
    PERFORM bemi.mask_heirs(relation, author);
  ELSIF done = 'column' THEN
    PERFORM bemi.follow_rename(relation, '{ignore,mask}'::text[], old_name, new_name);
  ELSIF done <> 'column added' THEN
    PERFORM bemi.follow_rename(relation, '{identity}'::text[], 'index:' || old_name, 'index:' || new_name);
  ELSIF is_tracked THEN
    -- A mask that waited for it holds by its number too.
    IF EXISTS (SELECT FROM bemi.masked_attributes(relation) m WHERE NOT m.by_number) THEN
      PERFORM bemi.renew_masks(relation);
    END IF;
    PERFORM bemi.warn_of_conflicts(ARRAY[relation::oid]);
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.follow(regclass, text, text, text, oid) IS
'keeps the tracking of a table complete after a statement that made, moved or renamed something';

-- Called by bemi.on_ddl() for each thing that was done and that matters; `done` is table, partition (with its OID), parent,
-- column added or publication, or column, relation, index, constraint or schema with their names before and after. It never
-- fails the statement. It has the rights of its owner, since whoever may run the statement may lack those to follow it (TRIGGER,
-- or USAGE on this schema); it makes nothing but triggers and replica identities, in which no code of a table's owner runs.
CREATE FUNCTION bemi.follow_ddl(done text, old_name text, new_name text, author oid) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  relation regclass;
BEGIN
  PERFORM bemi.require_readable();
  IF done = 'schema' THEN
    PERFORM bemi.follow_schema(old_name, new_name);
    RETURN;
  ELSIF done = 'publication' THEN
    PERFORM bemi.warn_of_publications(), bemi.warn_of_conflicts();
    RETURN;
  END IF;
  FOR relation IN SELECT f FROM bemi.followed(done, old_name) f LOOP
    BEGIN
      PERFORM bemi.follow(relation, done, old_name, new_name, author);
    EXCEPTION WHEN OTHERS THEN
      RAISE WARNING 'bemi could not follow the change of %: %', relation, SQLERRM USING
        HINT = CASE WHEN done IN ('table', 'partition') THEN format('SELECT bemi.follow_table(%L, true%s);', relation, CASE done WHEN 'partition' THEN ', true' ELSE '' END)
          WHEN done IN ('parent', 'column added') THEN format('SELECT bemi.track_again(%L);', relation)
          ELSE format('Its rules name what is called %I now: see bemi.tracked, and call bemi.track(%L) with its rules.', new_name, relation) END;
    END;
  END LOOP;
EXCEPTION WHEN OTHERS THEN
  RAISE WARNING 'bemi could not follow this statement: %', SQLERRM USING
    HINT = 'SELECT * FROM bemi.doctor(); shows what is not tracked.';
END
$$;

REVOKE EXECUTE ON FUNCTION bemi.follow_ddl(text, text, text, oid) FROM PUBLIC;

COMMENT ON FUNCTION bemi.follow_ddl(text, text, text, oid) IS
'keeps tracking complete after a statement that made, moved, renamed or published something';

CREATE FUNCTION bemi.on_ddl() RETURNS event_trigger
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'bemi_on_ddl';

COMMENT ON FUNCTION bemi.on_ddl() IS
'for the event trigger: calls bemi.follow_ddl() after statements that matter';

CREATE EVENT TRIGGER bemi_on_ddl ON ddl_command_end
WHEN TAG IN ('CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'CREATE SCHEMA', 'ALTER TABLE', 'ALTER TYPE', 'ALTER INDEX', 'ALTER SCHEMA',
  'CREATE PUBLICATION', 'ALTER PUBLICATION',
  -- They rename the columns of tables too.
  'ALTER VIEW', 'ALTER MATERIALIZED VIEW', 'ALTER FOREIGN TABLE')
EXECUTE FUNCTION bemi.on_ddl();

-- In every session: a column that is renamed would be shown.
ALTER EVENT TRIGGER bemi_on_ddl ENABLE ALWAYS;

-- Up to PostgreSQL 15 a rule makes a view of an empty table, as old dumps do where views refer to each other; but not of one that has,
-- or may have, triggers.
CREATE FUNCTION bemi.make_way_for_view(relation oid) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET bemi.allow_drop = on AS $$
DECLARE
  trigger name;
BEGIN
  PERFORM bemi.require_readable();
  IF current_setting('server_version_num')::int >= 160000 OR NOT EXISTS (SELECT FROM bemi.context_triggers t WHERE t.relation = make_way_for_view.relation)
    OR NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = relation AND c.relkind = 'r'::"char" AND pg_relation_size(c.oid) = 0)
  THEN
    RETURN;
  END IF;
  FOR trigger IN SELECT t.name FROM bemi.context_triggers t WHERE t.relation = make_way_for_view.relation LOOP
    EXECUTE format('DROP TRIGGER %I ON %s', trigger, relation::regclass);
  END LOOP;
  -- As VACUUM does it, some time after the last trigger was dropped.
  UPDATE pg_class c SET relhastriggers = false WHERE c.oid = relation AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid);
END
$$;

REVOKE EXECUTE ON FUNCTION bemi.make_way_for_view(oid) FROM PUBLIC;

COMMENT ON FUNCTION bemi.make_way_for_view(oid) IS
'ends the tracking of an empty table that a rule is about to make a view of';

CREATE FUNCTION bemi.before_ddl() RETURNS event_trigger
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'bemi_before_ddl';

COMMENT ON FUNCTION bemi.before_ddl() IS
'for the event trigger: has CREATE TRIGGER bemi_context, as a dump has it, replace the one that is there, and CREATE RULE make a view of a table; remembers the rules before DROP TRIGGER';

CREATE EVENT TRIGGER bemi_before_ddl ON ddl_command_start WHEN TAG IN ('CREATE TRIGGER', 'CREATE RULE', 'DROP TRIGGER') EXECUTE FUNCTION bemi.before_ddl();
ALTER EVENT TRIGGER bemi_before_ddl ENABLE ALWAYS;

COMMENT ON EVENT TRIGGER bemi_before_ddl IS
'lets a dump be restored into schemas that are tracked, and triggers that are dropped be put back';

COMMENT ON EVENT TRIGGER bemi_on_ddl IS
'keeps the tracking of schemas, partitions and renamed columns complete';
