-- What event triggers do so that tracking stays complete: for tables that are created, attached or moved, and for
-- columns, indexes and schemas that are renamed.

-- The nearest tracked table above a partition, which gives it its rules.
CREATE FUNCTION bemi.tracked_above(
  relation regclass, OUT trigger_oid oid, OUT ignored text[], OUT masked text[], OUT replica_identity "char"
)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
BEGIN
  SELECT t.oid, bemi.rules(t.arguments, 'ignore'), bemi.masks(a.relid), c.relreplident
  INTO trigger_oid, ignored, masked, replica_identity
  FROM pg_partition_ancestors(relation) WITH ORDINALITY AS a (relid, distance)
    JOIN bemi.context_triggers t ON t.relation = a.relid AND t.relation <> tracked_above.relation
      AND t.name = 'bemi_context'
    JOIN pg_class c ON c.oid = a.relid
  ORDER BY a.distance
  LIMIT 1;
END
$$;

COMMENT ON FUNCTION bemi.tracked_above(regclass) IS
'returns the trigger, the rules and the replica identity of the nearest tracked table above a partition';

-- Tracks a table and its partitions where they should be and are not: by the rules of the nearest tracked table
-- above, or without rules if their schema is tracked. An attached table gets the masks of the table above, and all of
-- its rules if it has none of its own.
CREATE FUNCTION bemi.follow_table(
  relation regclass, in_tracked_schema boolean DEFAULT false, is_attached boolean DEFAULT false, author oid DEFAULT NULL
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
  -- The role that ran the statement.
  role oid := COALESCE(author, (SELECT oid FROM pg_roles WHERE rolname = current_user));
  member regclass;
  form record;
  own record;
  above record;
BEGIN
  FOREACH member IN ARRAY ARRAY(SELECT bemi.tree(relation)) LOOP
    SELECT c.*, pg_has_role(role, c.relowner, 'USAGE') AS is_owned
    INTO form
    FROM pg_class c
    WHERE c.oid = member
      AND c.relpersistence = 'p'
      AND NOT EXISTS (
        SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e');
    CONTINUE WHEN NOT FOUND;
    SELECT t.oid, bemi.rules(t.arguments, 'ignore') AS ignored, bemi.masks(member) AS masked
    INTO own
    FROM bemi.context_triggers t
    WHERE t.relation = member
      AND t.name = 'bemi_context';
    CONTINUE WHEN own.oid IS NOT NULL AND NOT is_attached;
    above := bemi.tracked_above(CASE WHEN form.relispartition THEN member END);
    CONTINUE WHEN above.trigger_oid IS NULL AND (own.oid IS NOT NULL OR NOT (in_tracked_schema OR EXISTS (
      SELECT FROM bemi.tracked_schemas
      WHERE schema = (SELECT nspname FROM pg_namespace WHERE oid = form.relnamespace))));
    IF NOT form.is_owned THEN
      RAISE WARNING 'bemi does not track %, because you do not own it', member
        USING HINT = format('As its owner or a superuser: SELECT bemi.follow_table(%L, true);', member);
    ELSIF above.trigger_oid IS NULL THEN
      PERFORM bemi.track_one(member, 'full', '{}'::text[], '{}'::text[]);
    ELSIF own.oid IS NULL OR own.ignored = '{}' AND own.masked = '{}' THEN
      PERFORM bemi.track_one(member,
        CASE above.replica_identity WHEN 'f' THEN 'full' ELSE 'keep' END, above.ignored, above.masked);
    ELSE
      PERFORM bemi.track_one(member, 'keep', own.ignored, own.masked || above.masked);
    END IF;
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.follow_table(regclass, boolean, boolean, oid) IS
'tracks a table where it should be and is not';

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
      SELECT COALESCE((
        SELECT kind || '=' || new_value
        FROM unnest(kinds) kind
        WHERE argument = kind || '=' || old_value), argument)
      FROM unnest(bemi.rules(t.arguments, 'every')) WITH ORDINALITY AS a (argument, place)
      ORDER BY place
    ) AS renamed
    FROM bemi.context_triggers t
    WHERE t.relation = follow_rename.relation
  LOOP
    IF trigger.name <> 'bemi_context' OR NOT trigger.is_whole THEN
      RAISE EXCEPTION 'the trigger % was not created by bemi.track()', quote_ident(trigger.name);
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
    RAISE WARNING 'tables that are created in the schema % later will not be tracked: %', quote_ident(new_name), SQLERRM
      USING HINT = format('As a superuser: SELECT bemi.track_all(%L);', ARRAY[new_name]);
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.follow_schema(text, text) IS
'writes the new name of a schema into bemi.tracked_schemas';

-- What the statement changed, and the tables of constraints, indexes and columns; of a column, also the tables that
-- inherit it, and those of its type.
CREATE FUNCTION bemi.followed(done text, old_name text) RETURNS SETOF regclass
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  relations oid[] := '{}';
  relation oid;
  place int := 1;
BEGIN
  -- Planned again after each statement, so it is as small as it can be; and a join might read all tables.
  FOR relation IN
    SELECT DISTINCT CASE
      WHEN done = 'partition' THEN old_name::oid
      WHEN done = 'constraint' THEN (
        SELECT conrelid FROM pg_constraint WHERE oid = objid AND contype IN ('p', 'u', 'x'))
      WHEN done = 'relation' THEN (SELECT indrelid FROM pg_index WHERE indexrelid = objid)
      WHEN classid = 'pg_class'::regclass THEN objid
      END
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
      FOR relation IN
        SELECT inhrelid FROM pg_inherits WHERE inhparent = relation
        UNION ALL
        SELECT c.oid FROM pg_type t JOIN pg_class c ON c.reloftype = t.oid WHERE t.typrelid = relation
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
'returns the tables that the statement affects for which an event trigger is called';

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
    -- A mask that waited for the column holds by its number too.
    IF EXISTS (SELECT FROM bemi.masked_attributes(relation) m WHERE NOT m.by_number) THEN
      PERFORM bemi.renew_masks(relation);
    END IF;
    PERFORM bemi.warn_of_conflicts(ARRAY[relation::oid]);
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.follow(regclass, text, text, text, oid) IS
'keeps the tracking of a table complete after a statement that created, moved or renamed something';

CREATE FUNCTION bemi.follow_remedy(relation regclass, done text, new_name text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN CASE
    WHEN done IN ('table', 'partition') THEN
      format('SELECT bemi.follow_table(%L, true%s);', relation, CASE done WHEN 'partition' THEN ', true' ELSE '' END)
    WHEN done IN ('parent', 'column added') THEN
      format('SELECT bemi.track_again(%L);', relation)
    ELSE
      format('Its rules name what is called %I now: see bemi.tracked, and call bemi.track(%L) with its rules.',
        new_name, relation)
    END;
END
$$;

COMMENT ON FUNCTION bemi.follow_remedy(regclass, text, text) IS
'returns what to do about a table for which bemi.follow() failed';

-- bemi.on_ddl() calls it for each thing that was done and that matters. `done` is table, partition (with its OID),
-- parent, column added or publication, or column, relation, index, constraint or schema with the names before and
-- after. It never makes the statement fail. It runs with the rights of its owner, because the role that runs the
-- statement may lack rights (TRIGGER, or USAGE on this schema); it creates only triggers and sets replica identities,
-- which runs no code of a table's owner.
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
      RAISE WARNING 'bemi could not follow the change of %: %', relation, SQLERRM
        USING HINT = bemi.follow_remedy(relation, done, new_name);
    END;
  END LOOP;
EXCEPTION WHEN OTHERS THEN
  RAISE WARNING 'bemi could not follow this statement: %', SQLERRM
    USING HINT = 'SELECT * FROM bemi.doctor(); shows what is not tracked.';
END
$$;

REVOKE EXECUTE ON FUNCTION bemi.follow_ddl(text, text, text, oid) FROM PUBLIC;

COMMENT ON FUNCTION bemi.follow_ddl(text, text, text, oid) IS
'keeps tracking complete after a statement that created, moved, renamed or published something';

CREATE FUNCTION bemi.on_ddl() RETURNS event_trigger
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'bemi_on_ddl';

COMMENT ON FUNCTION bemi.on_ddl() IS
'calls bemi.follow_ddl() after statements that matter, as an event trigger';

CREATE EVENT TRIGGER bemi_on_ddl ON ddl_command_end
WHEN TAG IN (
  'CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'CREATE SCHEMA', 'ALTER TABLE', 'ALTER TYPE', 'ALTER INDEX',
  'ALTER SCHEMA', 'CREATE PUBLICATION', 'ALTER PUBLICATION',
  -- These rename the columns of tables too.
  'ALTER VIEW', 'ALTER MATERIALIZED VIEW', 'ALTER FOREIGN TABLE')
EXECUTE FUNCTION bemi.on_ddl();

-- In every session: a masked column that is renamed would be revealed.
ALTER EVENT TRIGGER bemi_on_ddl ENABLE ALWAYS;

COMMENT ON EVENT TRIGGER bemi_on_ddl IS
'keeps the tracking of schemas, partitions and renamed columns complete';

-- Up to PostgreSQL 15 a rule turns an empty table into a view, as old dumps do where views reference each other; but
-- not a table that has, or may have, triggers.
CREATE FUNCTION bemi.make_way_for_view(relation oid) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET bemi.allow_drop = on AS $$
DECLARE
  trigger name;
BEGIN
  PERFORM bemi.require_readable();
  IF current_setting('server_version_num')::int >= 160000
    OR NOT EXISTS (SELECT FROM bemi.context_triggers t WHERE t.relation = make_way_for_view.relation)
    OR NOT EXISTS (
      SELECT FROM pg_class c WHERE c.oid = relation AND c.relkind = 'r'::"char" AND pg_relation_size(c.oid) = 0)
  THEN
    RETURN;
  END IF;
  FOR trigger IN SELECT t.name FROM bemi.context_triggers t WHERE t.relation = make_way_for_view.relation LOOP
    EXECUTE format('DROP TRIGGER %I ON %s', trigger, relation::regclass);
  END LOOP;
  -- As VACUUM does it, some time after the last trigger was dropped.
  UPDATE pg_class c SET relhastriggers = false
  WHERE c.oid = relation
    AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid);
END
$$;

REVOKE EXECUTE ON FUNCTION bemi.make_way_for_view(oid) FROM PUBLIC;

COMMENT ON FUNCTION bemi.make_way_for_view(oid) IS
'stops tracking an empty table that a rule is about to turn into a view';

CREATE FUNCTION bemi.before_ddl() RETURNS event_trigger
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'bemi_before_ddl';

-- CREATE TRIGGER bemi_context, as a dump contains it, replaces the existing trigger; CREATE RULE may turn a table
-- into a view; DROP TRIGGER is preceded by a note of the rules.
COMMENT ON FUNCTION bemi.before_ddl() IS
'lets dumps create the trigger again and turn tables into views, and remembers dropped rules, as an event trigger';

CREATE EVENT TRIGGER bemi_before_ddl ON ddl_command_start
WHEN TAG IN ('CREATE TRIGGER', 'CREATE RULE', 'DROP TRIGGER')
EXECUTE FUNCTION bemi.before_ddl();
ALTER EVENT TRIGGER bemi_before_ddl ENABLE ALWAYS;

COMMENT ON EVENT TRIGGER bemi_before_ddl IS
'lets a dump be restored into tracked schemas, and lets dropped triggers be created again';
