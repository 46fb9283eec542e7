-- Versions of tables that a dump brought have OIDs, and numbers of columns and types, of another database. They are
-- given those that the tables have here.

-- Dropped columns get numbers that no column of a table has.
CREATE FUNCTION bemi.numbers_today(noted oid, latest jsonb, relation oid) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT jsonb_object_agg(n.number, COALESCE(a.attnum, 2000 + n.place))
  FROM (
      SELECT k.key AS number, row_number() OVER (ORDER BY k.key::int) AS place
      FROM (
        SELECT DISTINCT jsonb_object_keys(v.columns) AS key
        FROM bemi.table_versions v
        WHERE v.relation = noted
      ) k
    ) n
    LEFT JOIN pg_attribute a ON a.attrelid = numbers_today.relation AND a.attname = latest ->> n.number
      AND a.attnum > 0 AND NOT a.attisdropped
$$;

COMMENT ON FUNCTION bemi.numbers_today(oid, jsonb, oid) IS
'returns the numbers that the columns of a table have here, by those in its noted versions';

CREATE FUNCTION bemi.equal_parts(old jsonb, new jsonb) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT ARRAY(
    SELECT ARRAY[o.value ->> 1, n.value ->> 1]
    FROM jsonb_each(old -> 'attributes') o
      JOIN jsonb_each(new -> 'attributes') n ON n.value ->> 0 = o.value ->> 0
    UNION ALL
    SELECT ARRAY[old -> 'base' ->> 0, new -> 'base' ->> 0]
    WHERE old ? 'base'
      AND new ? 'base'
    UNION ALL
    SELECT ARRAY[old ->> part, new ->> part]
    FROM unnest('{element,subtype,range}'::text[]) part
    WHERE old ? part
      AND new ? part)
$$;

COMMENT ON FUNCTION bemi.equal_parts(jsonb, jsonb) IS
'returns the types that a noted type consists of, each with the one that corresponds to it here';

CREATE FUNCTION bemi.lost_types(noted oid) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT COALESCE(jsonb_object_agg(g.type, 4280000000 + g.place), '{}'::jsonb)
  FROM (
    SELECT k.type, row_number() OVER (ORDER BY k.type) AS place
    FROM (
      SELECT DISTINCT jsonb_object_keys(v.types -> 'defined') AS type
      FROM bemi.table_versions v
      WHERE v.relation = noted
    ) k
  ) g
$$;

COMMENT ON FUNCTION bemi.lost_types(oid) IS
'returns numbers for the types in noted versions of a table that no type has';

CREATE FUNCTION bemi.lost_labels(noted oid) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT COALESCE(jsonb_object_agg(g.label, (4280000000 + g.place)::text), '{}'::jsonb)
  FROM (
    SELECT k.label, row_number() OVER (ORDER BY k.label) AS place
    FROM (
      SELECT DISTINCT jsonb_object_keys(d.value -> 'labels') AS label
      FROM bemi.table_versions v,
        jsonb_each(v.types -> 'defined') d
      WHERE v.relation = noted
    ) k
  ) g
$$;

COMMENT ON FUNCTION bemi.lost_labels(oid) IS
'returns numbers for the labels in noted versions of a table that no label has';

-- Types, labels and attributes have other numbers here, which follow from the columns of the last version, and from
-- the names of labels and attributes. Those that do not exist here get numbers from 4280000000 on (4290000000 and
-- more are the OIDs of tables that do not exist).
CREATE FUNCTION bemi.types_today(noted oid, numbers jsonb, relation oid) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  last jsonb := (
    SELECT v.types
    FROM bemi.table_versions v
    WHERE v.relation = noted
      AND v.types IS NOT NULL
    ORDER BY v.source DESC, v.position DESC
    LIMIT 1);
  today jsonb := bemi.types_of(relation);
  types jsonb := '{}'::jsonb;
  labels jsonb := '{}'::jsonb;
  attributes jsonb := '{}'::jsonb;
  -- Noted types with the types of here that they correspond to.
  pairs text[] := ARRAY(
    SELECT ARRAY[o.value ->> 0, n.value ->> 0]
    FROM jsonb_each(last -> 'columns') o
      JOIN jsonb_each(today -> 'columns') n ON n.key = numbers ->> o.key);
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
      labels := labels || COALESCE((
        SELECT jsonb_object_agg(o.key, n.key)
        FROM jsonb_each_text(old -> 'labels') o
          JOIN jsonb_each_text(new -> 'labels') n USING (value)), '{}'::jsonb);
      attributes := attributes || jsonb_build_object(was, COALESCE((
        SELECT jsonb_object_agg(o.key, n.key)
        FROM jsonb_each(old -> 'attributes') o
          JOIN jsonb_each(new -> 'attributes') n ON n.value ->> 0 = o.value ->> 0), '{}'::jsonb));
      pairs := pairs || bemi.equal_parts(old, new);
    END IF;
    place := place + 1;
  END LOOP;
  labels := bemi.lost_labels(noted) || labels;
  types := bemi.lost_types(noted) || types;
  RETURN jsonb_build_object('types', types, 'labels', labels, 'attributes', attributes);
END
$$;

COMMENT ON FUNCTION bemi.types_today(oid, jsonb, oid) IS
'returns the numbers that types, labels and attributes of a table have here, by those in its noted versions';

-- A type, or an array of a type and a modifier.
CREATE FUNCTION bemi.type_today(types jsonb, type jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE WHEN jsonb_typeof(type) = 'array' THEN jsonb_set(type, '{0}', bemi.type_today(types, type -> 0))
    ELSE COALESCE(types -> (type #>> '{}'), type) END
$$;

COMMENT ON FUNCTION bemi.type_today(jsonb, jsonb) IS
'returns a type of a noted version, with the number that it has here';

CREATE FUNCTION bemi.renumbered_types(noted jsonb, numbers jsonb, today jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT jsonb_build_object(
    'columns', COALESCE((
      SELECT jsonb_object_agg(numbers ->> c.key, bemi.type_today(today -> 'types', c.value))
      FROM jsonb_each(noted -> 'columns') c), '{}'::jsonb),
    'defined', COALESCE((
      SELECT jsonb_object_agg(today -> 'types' ->> d.key, COALESCE((
        SELECT jsonb_object_agg(p.key, CASE p.key
          WHEN 'labels' THEN COALESCE((
            SELECT jsonb_object_agg(today -> 'labels' ->> l.key, l.value)
            FROM jsonb_each(p.value) l), '{}'::jsonb)
          WHEN 'attributes' THEN COALESCE((
            SELECT jsonb_object_agg(
              COALESCE(today -> 'attributes' -> d.key ->> a.key, (2000 + a.key::int)::text),
              jsonb_set(a.value, '{1}', bemi.type_today(today -> 'types', a.value -> 1)))
            FROM jsonb_each(p.value) a), '{}'::jsonb)
          ELSE bemi.type_today(today -> 'types', p.value)
          END)
        FROM jsonb_each(d.value) p), '{}'::jsonb))
      FROM jsonb_each(noted -> 'defined') d), '{}'::jsonb))
  WHERE noted IS NOT NULL
$$;

COMMENT ON FUNCTION bemi.renumbered_types(jsonb, jsonb, jsonb) IS
'returns the types of a noted version, with the numbers that they have here';

CREATE FUNCTION bemi.renumbered_rewrites(noted jsonb, numbers jsonb, today jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT noted || jsonb_build_object('columns', (
    SELECT jsonb_object_agg(numbers ->> c.key, CASE jsonb_typeof(c.value)
      WHEN 'array' THEN (
        SELECT COALESCE(jsonb_agg(bemi.type_today(today -> 'types', k.step) ORDER BY k.place), '[]'::jsonb)
        FROM jsonb_array_elements(c.value) WITH ORDINALITY AS k (step, place))
      ELSE c.value
      END)
    FROM jsonb_each(noted -> 'columns') c))
$$;

COMMENT ON FUNCTION bemi.renumbered_rewrites(jsonb, jsonb, jsonb) IS
'returns the rewrites of a noted version, with the numbers that columns and types have here';

CREATE FUNCTION bemi.adopt_table(noted oid, latest jsonb, relation oid) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  numbers jsonb := bemi.numbers_today(noted, latest, relation);
  today jsonb := bemi.types_today(noted, numbers, relation);
BEGIN
  UPDATE bemi.table_versions v SET
    relation = adopt_table.relation,
    columns = (SELECT jsonb_object_agg(numbers ->> c.key, c.value) FROM jsonb_each(v.columns) c),
    types = bemi.renumbered_types(v.types, numbers, today),
    rewrites = bemi.renumbered_rewrites(v.rewrites, numbers, today),
    key_columns = CASE WHEN v.key_columns IS NOT NULL THEN ARRAY(
      SELECT (numbers ->> k.number::text)::smallint
      FROM unnest(v.key_columns) WITH ORDINALITY AS k (number, place)
      ORDER BY k.place) END
  WHERE v.relation = noted;
  UPDATE bemi.table_versions v SET root = adopt_table.relation WHERE v.root = noted;
END
$$;

COMMENT ON FUNCTION bemi.adopt_table(oid, jsonb, oid) IS
'gives the restored versions of a table the OID, and the numbers of columns and types, that it has here';

-- The table that has the name here, or had it when its first version was noted here.
CREATE FUNCTION bemi.restored_table(schema name, "table" name, first_source int) RETURNS oid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT COALESCE((
    SELECT v.relation
    FROM bemi.table_versions v
    WHERE v.source >= first_source
      AND v.schema = restored_table.schema
      AND v."table" = restored_table."table"
      AND EXISTS (SELECT FROM pg_class c WHERE c.oid = v.relation)
    ORDER BY v.source, v.position
    LIMIT 1
  ), (
    SELECT c.oid
    FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = restored_table.schema
      AND c.relname = restored_table."table"
      AND c.relkind IN ('r', 'p')
  ))
$$;

COMMENT ON FUNCTION bemi.restored_table(name, name, int) IS
'returns the table that a dump restored under a name';

-- Moves restored versions away from the OIDs that tables have here.
CREATE FUNCTION bemi.move_versions(first_source int) RETURNS oid[]
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  restored oid[];
  -- From here on downwards.
  free bigint := (
    SELECT COALESCE(min(v.relation::bigint), 4294967295)
    FROM bemi.table_versions v
    WHERE v.relation > 4290000000);
BEGIN
  WITH away AS (
    SELECT v.relation, (free - row_number() OVER (ORDER BY v.relation))::oid AS oid
    FROM bemi.table_versions v
    WHERE v.source > 0
      AND v.source < first_source
    GROUP BY v.relation
    HAVING bool_or(v.recorded = v.relation)
  ), moved AS (
    UPDATE bemi.table_versions v SET
      relation = COALESCE(a.oid, v.relation),
      root = COALESCE(r.oid, v.root)
    FROM bemi.table_versions o
      LEFT JOIN away a ON a.relation = o.relation
      LEFT JOIN away r ON r.relation = o.root
    WHERE o.ctid = v.ctid
      AND v.source > 0
      AND v.source < first_source
  )
  SELECT array_agg(a.oid) INTO restored FROM away a;
  RETURN restored;
END
$$;

COMMENT ON FUNCTION bemi.move_versions(int) IS
'gives versions of sources before the first one of this database OIDs that no table has, and returns these';

-- Restored versions become versions of the table that has their last name here; those of tables that do not exist
-- keep OIDs that no table has. The first source of this database begins with copies of the last ones, which have the
-- OIDs that bemi.changes contains from then on. A parallel restore may restore versions after that source has begun.
CREATE FUNCTION bemi.adopt_versions() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  first_source int := (SELECT min(s.source) FROM bemi.sources s WHERE s.tables = (bemi.present_source()).tables);
  version bemi.table_versions;
  today oid;
  restored oid[];
  adopted oid[] := '{}';
BEGIN
  PERFORM bemi.require_safe_tables(ARRAY['bemi.table_versions'::regclass::oid]);
  -- From a dump, or of an earlier installation of the extension.
  INSERT INTO bemi.table_versions SELECT r.* FROM bemi.recorded_versions r ON CONFLICT DO NOTHING;
  IF NOT EXISTS (
    SELECT FROM bemi.table_versions v
    WHERE v.source > 0 AND v.source < first_source AND v.recorded = v.relation)
  THEN
    RETURN;
  END IF;
  LOCK TABLE bemi.table_versions IN SHARE ROW EXCLUSIVE MODE;
  restored := bemi.move_versions(first_source);
  FOR version IN
    SELECT DISTINCT ON (l.schema, l."table") l.*
    FROM (
      SELECT DISTINCT ON (v.relation) v.*
      FROM bemi.table_versions v
      WHERE v.relation = ANY (restored)
      ORDER BY v.relation, v.source DESC, v.position DESC
    ) l
    WHERE l."table" IS NOT NULL
    ORDER BY l.schema, l."table", l.source DESC, l.position DESC
  LOOP
    today := bemi.restored_table(version.schema, version."table", first_source);
    IF today IS NOT NULL THEN
      PERFORM bemi.adopt_table(version.relation, version.columns, today);
      adopted := adopted || today;
    END IF;
  END LOOP;
  DELETE FROM bemi.table_versions v WHERE v.relation = ANY (adopted) AND v.source = 0;
  PERFORM bemi.copy_versions(adopted, first_source);
  PERFORM bemi.keep_versions();
END
$$;

COMMENT ON FUNCTION bemi.adopt_versions() IS
'turns versions that were restored from a dump into versions of the tables that have their names here';

CREATE FUNCTION bemi.copy_versions(adopted oid[], first_source int) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  version bemi.table_versions;
BEGIN
  FOR version IN
    SELECT DISTINCT ON (v.relation) v.*
    FROM bemi.table_versions v
    WHERE v.relation = ANY (adopted)
      AND v.source < first_source
    ORDER BY v.relation, v.source DESC, v.position DESC
  LOOP
    -- Before all changes of the table.
    version.source := first_source;
    version.position := '0/0';
    version.noted_at := clock_timestamp();
    version.recorded := version.relation;
    version.is_empty := false;
    version.types := bemi.types_of(version.relation);
    version.rewrites := NULL;
    INSERT INTO bemi.table_versions SELECT (version).* ON CONFLICT DO NOTHING;
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.copy_versions(oid[], int) IS
'begins the first source of this database with copies of the last versions of tables';

REVOKE EXECUTE ON FUNCTION bemi.current_source(boolean, pg_lsn), bemi.continue_source(),
  bemi.adopt_table(oid, jsonb, oid), bemi.adopt_versions(), bemi.keep_versions(oid[]) FROM PUBLIC;
