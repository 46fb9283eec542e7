-- Sources: which server's log changes were read of. A dump that is restored brings those of others along.

-- What tells one source from another. Tables that were restored from a dump are others than those that the recorder made,
-- also where they are restored into the same database; pg_upgrade and base backups keep them.
CREATE FUNCTION bemi.present_source(OUT system_identifier bigint, OUT database_oid oid, OUT tables oid[]) RETURNS record
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  system_identifier := (SELECT c.system_identifier FROM pg_control_system() c);
  database_oid := (SELECT d.oid FROM pg_database d WHERE d.datname = current_database());
  tables := ARRAY[to_regclass('bemi.changes'), to_regclass('bemi.recorder'), to_regclass('bemi.sources'),
    to_regclass('bemi.recorded_versions')]::oid[];
END
$$;

COMMENT ON FUNCTION bemi.present_source() IS
'what tells the source that is recorded here from others';

-- The number of the source whose log this server writes. Begins a new one if the last one is another; the first one only if
-- may_be_first. 0 while there is none: what comes before all that is recorded.
CREATE FUNCTION bemi.current_source(may_be_first boolean DEFAULT false, first_position pg_lsn DEFAULT NULL) RETURNS int
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  here record;
  last record;
  result int;
BEGIN
  IF to_regclass('bemi.sources') IS NULL THEN
    RETURN 0;
  END IF;
  here := bemi.present_source();
  FOR attempt IN 1..2 LOOP
    SELECT s.* INTO last FROM bemi.sources s ORDER BY s.source DESC LIMIT 1;
    -- While a dump is restored, a table may not be there yet, or may not be filled yet.
    IF (last.system_identifier, last.database_oid, last.tables) = (here.system_identifier, here.database_oid, here.tables)
      OR last.source IS NULL AND NOT may_be_first OR array_position(here.tables, NULL) IS NOT NULL
    THEN
      IF may_be_first THEN
        PERFORM bemi.adopt_versions();
      END IF;
      RETURN COALESCE(last.source, 0);
    END IF;
    -- Only one begins it.
    LOCK TABLE bemi.sources IN SHARE ROW EXCLUSIVE MODE;
  END LOOP;
  PERFORM bemi.require_safe_tables(ARRAY['bemi.sources', 'bemi.table_versions', 'bemi.recorded_versions']::regclass[]::oid[]);
  result := 1 + greatest(last.source, (SELECT max(c.source) FROM bemi.changes c), (SELECT max(v.source) FROM bemi.table_versions v), 0);
  first_position := COALESCE(first_position, pg_current_wal_insert_lsn());
  UPDATE bemi.sources s SET until = clock_timestamp() WHERE s.until IS NULL;
  INSERT INTO bemi.sources (source, name, system_identifier, database, first_position, since, database_oid, tables)
  VALUES (result, COALESCE(NULLIF(current_setting('cluster_name'), ''), current_database()), here.system_identifier, current_database(),
    first_position, clock_timestamp(), here.database_oid, here.tables);
  -- Those who note a version ask for the source first.
  LOCK TABLE bemi.table_versions IN SHARE ROW EXCLUSIVE MODE;
  PERFORM bemi.adopt_versions();
  -- No dump has brought these: they are of this log.
  UPDATE bemi.table_versions v SET source = result WHERE v.source = 0;
  PERFORM bemi.keep_versions();
  RETURN result;
END
$$;

COMMENT ON FUNCTION bemi.current_source(boolean, pg_lsn) IS
'the number of the source that is recorded here, which begins if the last one was another server, database or trail';

-- For the recorder, which holds its slot: pg_upgrade takes that along, and makes another server.
CREATE FUNCTION bemi.continue_source() RETURNS int
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  result int := bemi.current_source(true, (SELECT r.read_position FROM bemi.recorder r));
BEGIN
  UPDATE bemi.recorder r SET source = result WHERE r.source IS DISTINCT FROM result;
  RETURN result;
END
$$;

COMMENT ON FUNCTION bemi.continue_source() IS
'the number of the source that the recorder goes on with';

CREATE FUNCTION bemi.is_of_another(source int) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  here record := bemi.present_source();
BEGIN
  RETURN to_regclass('bemi.sources') IS NOT NULL AND COALESCE((
    SELECT (s.system_identifier, s.database_oid) <> (here.system_identifier, here.database_oid) FROM bemi.sources s WHERE s.source = is_of_another.source), false);
END
$$;

COMMENT ON FUNCTION bemi.is_of_another(int) IS
'whether a source is another server or another database than this one';

-- Whether bemi.changes and the state are those that the recorder has written. A dump that is restored over them brings others,
-- with the progress of then.
CREATE FUNCTION bemi.is_replaced() RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  known oid[];
BEGIN
  IF to_regclass('bemi.sources') IS NULL OR to_regclass('bemi.recorder') IS NULL THEN
    RETURN true;
  END IF;
  SELECT s.tables INTO known FROM bemi.recorder r JOIN bemi.sources s ON s.source = r.source;
  RETURN known IS DISTINCT FROM (bemi.present_source()).tables;
END
$$;

COMMENT ON FUNCTION bemi.is_replaced() IS
'whether the tables of the recorder are others than those that it has written';

CREATE FUNCTION bemi.require_own_trail() RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF bemi.is_replaced() THEN
    RAISE EXCEPTION 'bemi.changes was replaced, as by a dump that was restored over it' USING
      ERRCODE = 'object_not_in_prerequisite_state', HINT = 'SELECT bemi.start(accept_gap => true);';
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.require_own_trail() IS
'raises an error if the tables of the recorder are others than those that it has written';

-- After these tables were noted, or others than that.
CREATE FUNCTION bemi.keep_versions(relations oid[] DEFAULT NULL) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
BEGIN
  PERFORM bemi.require_safe_tables(ARRAY['bemi.recorded_versions'::regclass::oid]);
  IF relations IS NULL THEN
    DELETE FROM bemi.recorded_versions;
    INSERT INTO bemi.recorded_versions SELECT v.* FROM bemi.table_versions v WHERE v.source > 0;
  ELSE
    INSERT INTO bemi.recorded_versions SELECT v.* FROM bemi.table_versions v WHERE v.relation = ANY (relations) AND v.source > 0
      AND NOT EXISTS (SELECT FROM bemi.recorded_versions r WHERE r.relation = v.relation AND r.source = v.source AND r.position = v.position);
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.keep_versions(oid[]) IS
'copies versions of tables to where dumps take them along';

-- The numbers that the columns of versions have today, by those that they had. Columns that are gone get numbers that no
-- column of a table has.
CREATE FUNCTION bemi.numbers_today(noted oid, latest jsonb, relation oid) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT jsonb_object_agg(n.number, COALESCE(a.attnum, 2000 + n.place)) FROM (
    SELECT k.key AS number, row_number() OVER (ORDER BY k.key::int) AS place FROM (
      SELECT DISTINCT jsonb_object_keys(v.columns) AS key FROM bemi.table_versions v WHERE v.relation = noted
    ) k
  ) n LEFT JOIN pg_attribute a ON a.attrelid = numbers_today.relation AND a.attname = latest ->> n.number AND a.attnum > 0 AND NOT a.attisdropped
$$;

COMMENT ON FUNCTION bemi.numbers_today(oid, jsonb, oid) IS
'the numbers that the columns of a table have, by those that its noted versions have';

-- Types, their labels and their attributes have other numbers here: which, follows from the columns of the last version, and from
-- the names of labels and attributes. What is gone gets numbers that nothing has.
CREATE FUNCTION bemi.types_today(noted oid, numbers jsonb, relation oid) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  last jsonb := (SELECT v.types FROM bemi.table_versions v WHERE v.relation = noted AND v.types IS NOT NULL ORDER BY v.source DESC, v.position DESC LIMIT 1);
  today jsonb := bemi.types_of(relation);
  types jsonb := '{}'::jsonb;
  labels jsonb := '{}'::jsonb;
  attributes jsonb := '{}'::jsonb;
  -- Types of then with those of now that they are.
  pairs text[] := ARRAY(SELECT ARRAY[o.value ->> 0, n.value ->> 0] FROM jsonb_each(last -> 'columns') o JOIN jsonb_each(today -> 'columns') n ON n.key = numbers ->> o.key);
  place int := 1;
  was text;
  old jsonb;
  new jsonb;
BEGIN
  WHILE place <= cardinality(pairs) / 2 LOOP
    was := pairs[place][1];
    old := last -> 'defined' -> was;
    new := today -> 'defined' -> pairs[place][2];
    IF old IS NOT NULL AND new IS NOT NULL AND NOT types ? was THEN
      types := types || jsonb_build_object(was, pairs[place][2]::bigint);
      labels := labels || COALESCE((SELECT jsonb_object_agg(o.key, n.key) FROM jsonb_each_text(old -> 'labels') o JOIN jsonb_each_text(new -> 'labels') n USING (value)), '{}'::jsonb);
      attributes := attributes || jsonb_build_object(was, COALESCE((
        SELECT jsonb_object_agg(o.key, n.key) FROM jsonb_each(old -> 'attributes') o JOIN jsonb_each(new -> 'attributes') n ON n.value ->> 0 = o.value ->> 0), '{}'::jsonb));
      pairs := pairs || ARRAY(
        SELECT ARRAY[o.value ->> 1, n.value ->> 1] FROM jsonb_each(old -> 'attributes') o JOIN jsonb_each(new -> 'attributes') n ON n.value ->> 0 = o.value ->> 0
        UNION ALL SELECT ARRAY[old -> 'base' ->> 0, new -> 'base' ->> 0] WHERE old ? 'base' AND new ? 'base'
        UNION ALL SELECT ARRAY[old ->> part, new ->> part] FROM unnest('{element,subtype,range}'::text[]) part WHERE old ? part AND new ? part);
    END IF;
    place := place + 1;
  END LOOP;
  -- 4290000000 and more are the OIDs of tables that are gone.
  labels := COALESCE((
    SELECT jsonb_object_agg(g.label, (4280000000 + g.place)::text) FROM (
      SELECT k.label, row_number() OVER (ORDER BY k.label) AS place FROM (
        SELECT DISTINCT jsonb_object_keys(d.value -> 'labels') AS label FROM bemi.table_versions v, jsonb_each(v.types -> 'defined') d WHERE v.relation = noted) k) g), '{}'::jsonb) || labels;
  types := COALESCE((
    SELECT jsonb_object_agg(g.type, 4280000000 + g.place) FROM (
      SELECT k.type, row_number() OVER (ORDER BY k.type) AS place FROM (
        SELECT DISTINCT jsonb_object_keys(v.types -> 'defined') AS type FROM bemi.table_versions v WHERE v.relation = noted) k) g), '{}'::jsonb) || types;
  RETURN jsonb_build_object('types', types, 'labels', labels, 'attributes', attributes);
END
$$;

COMMENT ON FUNCTION bemi.types_today(oid, jsonb, oid) IS
'the numbers that types, labels and attributes of a table have, by those that its noted versions have';

-- A type, or what has a type and a modifier behind it, with the number of today.
CREATE FUNCTION bemi.type_today(types jsonb, type jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE WHEN jsonb_typeof(type) = 'array' THEN jsonb_set(type, '{0}', bemi.type_today(types, type -> 0)) ELSE COALESCE(types -> (type #>> '{}'), type) END
$$;

COMMENT ON FUNCTION bemi.type_today(jsonb, jsonb) IS
'a type of a noted version, with the number that it has here';

CREATE FUNCTION bemi.renumbered_types(noted jsonb, numbers jsonb, today jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT jsonb_build_object(
    'columns', COALESCE((SELECT jsonb_object_agg(numbers ->> c.key, bemi.type_today(today -> 'types', c.value)) FROM jsonb_each(noted -> 'columns') c), '{}'::jsonb),
    'defined', COALESCE((
      SELECT jsonb_object_agg(today -> 'types' ->> d.key, COALESCE((
        SELECT jsonb_object_agg(p.key, CASE p.key
          WHEN 'labels' THEN COALESCE((SELECT jsonb_object_agg(today -> 'labels' ->> l.key, l.value) FROM jsonb_each(p.value) l), '{}'::jsonb)
          WHEN 'attributes' THEN COALESCE((SELECT jsonb_object_agg(COALESCE(today -> 'attributes' -> d.key ->> a.key, (2000 + a.key::int)::text),
              jsonb_set(a.value, '{1}', bemi.type_today(today -> 'types', a.value -> 1))) FROM jsonb_each(p.value) a), '{}'::jsonb)
          ELSE bemi.type_today(today -> 'types', p.value) END)
        FROM jsonb_each(d.value) p), '{}'::jsonb))
      FROM jsonb_each(noted -> 'defined') d), '{}'::jsonb))
  WHERE noted IS NOT NULL
$$;

COMMENT ON FUNCTION bemi.renumbered_types(jsonb, jsonb, jsonb) IS
'the types of a noted version, with the numbers that they have here';

-- Gives a table's versions, noted under another OID, the OID and the numbers of columns and types that it has here.
CREATE FUNCTION bemi.adopt_table(noted oid, latest jsonb, relation oid) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  numbers jsonb := bemi.numbers_today(noted, latest, relation);
  today jsonb := bemi.types_today(noted, numbers, relation);
BEGIN
  UPDATE bemi.table_versions v SET relation = adopt_table.relation,
    columns = (SELECT jsonb_object_agg(numbers ->> c.key, c.value) FROM jsonb_each(v.columns) c),
    types = bemi.renumbered_types(v.types, numbers, today),
    rewrites = v.rewrites || jsonb_build_object('columns', (SELECT jsonb_object_agg(numbers ->> c.key, CASE jsonb_typeof(c.value) WHEN 'array'
      THEN (SELECT COALESCE(jsonb_agg(bemi.type_today(today -> 'types', k.step) ORDER BY k.place), '[]'::jsonb) FROM jsonb_array_elements(c.value) WITH ORDINALITY AS k (step, place))
      ELSE c.value END) FROM jsonb_each(v.rewrites -> 'columns') c)),
    key_columns = CASE WHEN v.key_columns IS NOT NULL
      THEN ARRAY(SELECT (numbers ->> k.number::text)::smallint FROM unnest(v.key_columns) WITH ORDINALITY AS k (number, place) ORDER BY k.place) END
  WHERE v.relation = noted;
  UPDATE bemi.table_versions v SET root = adopt_table.relation WHERE v.root = noted;
END
$$;

COMMENT ON FUNCTION bemi.adopt_table(oid, jsonb, oid) IS
'gives the versions of a table that were restored the OID, and the numbers of columns and types, that it has here';

-- The table that has a name here, or had it when its first version was noted here.
CREATE FUNCTION bemi.restored_table(schema name, "table" name, first_source int) RETURNS oid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT COALESCE((
    SELECT v.relation FROM bemi.table_versions v WHERE v.source >= first_source AND v.schema = restored_table.schema AND v."table" = restored_table."table"
      AND EXISTS (SELECT FROM pg_class c WHERE c.oid = v.relation) ORDER BY v.source, v.position LIMIT 1
  ), (
    SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = restored_table.schema AND c.relname = restored_table."table" AND c.relkind IN ('r', 'p')
  ))
$$;

COMMENT ON FUNCTION bemi.restored_table(name, name, int) IS
'the table that a dump brought under a name';

-- Versions that come from a dump have OIDs of another database. They become versions of the table that has their last name
-- here; those of tables that are gone get OIDs that no table has. The first source of this database begins with copies of the
-- last ones, which have the OIDs that bemi.changes has from then on. A parallel restore may bring versions when that has begun.
CREATE FUNCTION bemi.adopt_versions() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  first_source int := (SELECT min(s.source) FROM bemi.sources s WHERE s.tables = (bemi.present_source()).tables);
  version bemi.table_versions;
  today oid;
  restored oid[];
  adopted oid[] := '{}';
  -- From here on downwards.
  free bigint := (SELECT COALESCE(min(v.relation::bigint), 4294967295) FROM bemi.table_versions v WHERE v.relation > 4290000000);
BEGIN
  PERFORM bemi.require_safe_tables(ARRAY['bemi.table_versions'::regclass::oid]);
  -- From a dump, or of the extension that was there before.
  INSERT INTO bemi.table_versions SELECT r.* FROM bemi.recorded_versions r ON CONFLICT DO NOTHING;
  IF NOT EXISTS (SELECT FROM bemi.table_versions v WHERE v.source > 0 AND v.source < first_source AND v.recorded = v.relation) THEN
    RETURN;
  END IF;
  LOCK TABLE bemi.table_versions IN SHARE ROW EXCLUSIVE MODE;
  -- Away from the OIDs that tables have here.
  WITH away AS (
    SELECT v.relation, (free - row_number() OVER (ORDER BY v.relation))::oid AS oid FROM bemi.table_versions v
    WHERE v.source > 0 AND v.source < first_source GROUP BY v.relation HAVING bool_or(v.recorded = v.relation)
  ), moved AS (
    UPDATE bemi.table_versions v SET relation = COALESCE(a.oid, v.relation), root = COALESCE(r.oid, v.root)
    FROM bemi.table_versions o LEFT JOIN away a ON a.relation = o.relation LEFT JOIN away r ON r.relation = o.root
    WHERE o.ctid = v.ctid AND v.source > 0 AND v.source < first_source
  )
  SELECT array_agg(a.oid) INTO restored FROM away a;
  FOR version IN
    SELECT DISTINCT ON (l.schema, l."table") l.* FROM (
      SELECT DISTINCT ON (v.relation) v.* FROM bemi.table_versions v WHERE v.relation = ANY (restored)
      ORDER BY v.relation, v.source DESC, v.position DESC
    ) l WHERE l."table" IS NOT NULL ORDER BY l.schema, l."table", l.source DESC, l.position DESC
  LOOP
    today := bemi.restored_table(version.schema, version."table", first_source);
    IF today IS NOT NULL THEN
      PERFORM bemi.adopt_table(version.relation, version.columns, today);
      adopted := adopted || today;
    END IF;
  END LOOP;
  DELETE FROM bemi.table_versions v WHERE v.relation = ANY (adopted) AND v.source = 0;
  FOR version IN
    SELECT DISTINCT ON (v.relation) v.* FROM bemi.table_versions v WHERE v.relation = ANY (adopted) AND v.source < first_source
    ORDER BY v.relation, v.source DESC, v.position DESC
  LOOP
    -- Before all changes of it.
    version.source := first_source;
    version.position := '0/0';
    version.noted_at := clock_timestamp();
    version.recorded := version.relation;
    version.is_empty := false;
    version.types := bemi.types_of(version.relation);
    version.rewrites := NULL;
    INSERT INTO bemi.table_versions SELECT (version).* ON CONFLICT DO NOTHING;
  END LOOP;
  PERFORM bemi.keep_versions();
END
$$;

COMMENT ON FUNCTION bemi.adopt_versions() IS
'makes versions that were restored from a dump those of the tables that have their names here';

REVOKE EXECUTE ON FUNCTION bemi.current_source(boolean, pg_lsn), bemi.continue_source(), bemi.adopt_table(oid, jsonb, oid),
  bemi.adopt_versions(), bemi.keep_versions(oid[]) FROM PUBLIC;
