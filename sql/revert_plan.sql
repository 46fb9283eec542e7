-- How changes are undone: what is known of a table, literals and statements, and the plan for a selection of changes. Nothing
-- here looks at the rows that are there now.

-- How a change is undone.
CREATE TYPE @extschema@.undo AS (
  -- Their order: 1 is the newest.
  number bigint,
  relation regclass,
  operation text,
  primary_key text,
  before jsonb,
  after jsonb,
  -- The columns that an UPDATE is to set.
  changed text[],
  -- What names the row, among all rows of all tables and in a WHERE clause, after the change and before it.
  row_after text,
  row_before text,
  where_after text,
  where_before text,
  detail text,
  transaction_id bigint,
  commit_position pg_lsn,
  sequence int,
  -- It waits for a newer change of the same row.
  is_behind boolean,
  -- Why it waits.
  reason text
);

-- The operator by which values of a type are equal, if the type has one; IS NOT DISTINCT FROM would look for it in the
-- search_path. With a schema, unless nobody can put a better one before it.
CREATE FUNCTION @extschema@.equality(type oid) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  t pg_type;
  operator text;
BEGIN
  SELECT * INTO t FROM pg_type WHERE oid = type;
  IF t.typtype = 'd' THEN
    operator := @extschema@.equality(t.typbasetype);
    RETURN CASE operator WHEN '=' THEN 'OPERATOR(pg_catalog.=)' ELSE operator END;
  ELSIF t.typtype IN ('e', 'r', 'm') THEN
    RETURN 'OPERATOR(pg_catalog.=)';
  ELSIF t.typtype = 'c' THEN
    RETURN CASE WHEN NOT EXISTS (
      SELECT FROM pg_attribute WHERE attrelid = t.typrelid AND attnum > 0 AND NOT attisdropped AND @extschema@.equality(atttypid) IS NULL
    ) THEN 'OPERATOR(pg_catalog.=)' END;
  ELSIF t.typcategory = 'A' AND t.typelem <> 0 AND t.typlen = -1 THEN
    RETURN CASE WHEN @extschema@.equality(t.typelem) IS NOT NULL THEN 'OPERATOR(pg_catalog.=)' END;
  END IF;
  SELECT CASE WHEN n.nspname = 'pg_catalog' AND c.opcintype = type THEN o.oprname ELSE format('OPERATOR(%I.%s)', n.nspname, o.oprname) END INTO operator
  FROM pg_opclass c JOIN pg_am m ON m.oid = c.opcmethod
  JOIN pg_amop a ON a.amopfamily = c.opcfamily AND a.amoplefttype = c.opcintype AND a.amoprighttype = c.opcintype
    AND a.amopstrategy = CASE m.amname WHEN 'btree' THEN 3 ELSE 1 END
  JOIN pg_operator o ON o.oid = a.amopopr JOIN pg_namespace n ON n.oid = o.oprnamespace
  WHERE m.amname IN ('btree', 'hash') AND c.opcdefault AND (c.opcintype = type
    OR EXISTS (SELECT FROM pg_cast k WHERE k.castsource = type AND k.casttarget = c.opcintype AND k.castmethod = 'b' AND k.castcontext = 'i'))
  ORDER BY c.opcintype = type DESC, m.amname LIMIT 1;
  RETURN operator;
END
$$;

COMMENT ON FUNCTION @extschema@.equality(oid) IS
'the operator by which values of a type are equal, or NULL if it has none';

-- Whether a value can be written as its JSON has it (plain), or how it is to be made of that.
CREATE FUNCTION @extschema@.literal_kind(type oid) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE
    WHEN t.oid IN ('json'::regtype, 'jsonb'::regtype) THEN 'json'
    WHEN t.oid = 'money'::regtype THEN 'money'
    WHEN EXISTS (SELECT FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass
      WHERE d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e' AND e.extname = 'hstore' AND t.typname = 'hstore') THEN 'hstore'
    WHEN t.typtype = 'c' OR t.typcategory = 'A' THEN 'made'
    ELSE 'plain' END
  FROM pg_type t WHERE t.oid = type
$$;

COMMENT ON FUNCTION @extschema@.literal_kind(oid) IS
'how a literal of a type is made of the JSON of a value';

CREATE FUNCTION @extschema@.base_type(type oid) RETURNS oid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  WITH RECURSIVE bases AS (
    SELECT t.oid, t.typtype, t.typbasetype FROM pg_type t WHERE t.oid = type
    UNION ALL SELECT t.oid, t.typtype, t.typbasetype FROM bases b JOIN pg_type t ON t.oid = b.typbasetype WHERE b.typtype = 'd'
  )
  SELECT oid FROM bases WHERE typtype <> 'd'
$$;

COMMENT ON FUNCTION @extschema@.base_type(oid) IS
'the type that a domain is made of; of another type, itself';

-- The foreign keys that refer to a table and would change other rows without a word, or are checked later: the ones that
-- fail at once do so by themselves.
CREATE FUNCTION @extschema@.silent_references(relation regclass) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT COALESCE(jsonb_agg(jsonb_build_object(
    'name', quote_ident(k.conname), 'child', k.conrelid::regclass, 'on_delete', k.confdeltype, 'on_update', k.confupdtype,
    'is_deferred', k.condeferred, 'source', format('%I.%I', n.nspname, c.relname),
    'columns', (SELECT jsonb_agg(a.attname) FROM pg_attribute a WHERE a.attrelid = k.confrelid AND a.attnum = ANY (k.confkey)),
    'child_columns', (SELECT jsonb_agg(a.attname) FROM pg_attribute a WHERE a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey)),
    'join', (SELECT string_agg(format('parent.%I OPERATOR(%I.%s) child.%I', p.attname, s.nspname, o.oprname, f.attname), ' AND ')
      FROM unnest(k.confkey, k.conkey, k.conpfeqop) u (parent, child, operator)
      JOIN pg_attribute p ON p.attrelid = k.confrelid AND p.attnum = u.parent JOIN pg_attribute f ON f.attrelid = k.conrelid AND f.attnum = u.child
      JOIN pg_operator o ON o.oid = u.operator JOIN pg_namespace s ON s.oid = o.oprnamespace)
  ) ORDER BY k.conname, k.oid), '[]')
  FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE k.contype = 'f' AND k.confrelid = relation AND (k.confdeltype IN ('c', 'n', 'd') OR k.confupdtype IN ('c', 'n', 'd') OR k.condeferred)
    -- Not again for each partition that refers.
    AND NOT EXISTS (SELECT FROM pg_constraint p WHERE p.oid = k.conparentid AND p.confrelid = k.confrelid)
$$;

COMMENT ON FUNCTION @extschema@.silent_references(regclass) IS
'the foreign keys that refer to a table and would have other rows changed, or are checked later';

-- The columns that refer to rows (of a partitioned table as a whole) and the columns that they refer to, or the other way round.
CREATE FUNCTION @extschema@.links(relation regclass, is_child boolean) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT COALESCE(jsonb_agg(DISTINCT jsonb_build_object('name', concat(COALESCE(pg_partition_root(k.confrelid), k.confrelid)::oid, names), 'columns', columns)), '[]')
  FROM pg_constraint k, LATERAL (
    SELECT jsonb_agg(p.attname ORDER BY p.attname) AS names, jsonb_agg(CASE WHEN is_child THEN c.attname ELSE p.attname END ORDER BY p.attname) AS columns
    FROM unnest(k.conkey, k.confkey) u (child, parent) JOIN pg_attribute c ON c.attrelid = k.conrelid AND c.attnum = u.child
    JOIN pg_attribute p ON p.attrelid = k.confrelid AND p.attnum = u.parent
  ) pairs WHERE k.contype = 'f' AND CASE WHEN is_child THEN k.conrelid ELSE k.confrelid END = relation
$$;

COMMENT ON FUNCTION @extschema@.links(regclass, boolean) IS
'the columns by which the rows of a table refer to others, or by which others refer to them';

-- What the foreign keys of a row refer to, or what others refer to it by.
CREATE FUNCTION @extschema@.linked(links jsonb, image jsonb) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT ARRAY(SELECT concat(l ->> 'name', (SELECT jsonb_agg(image ->> c ORDER BY place) FROM jsonb_array_elements_text(l -> 'columns') WITH ORDINALITY e (c, place)))
    FROM jsonb_array_elements(links) l)
$$;

COMMENT ON FUNCTION @extschema@.linked(jsonb, jsonb) IS
'names of the rows that a row refers to by these links';

-- All that is asked of a table again and again.
CREATE FUNCTION @extschema@.undo_table(relation regclass) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  WITH rules AS (
    SELECT @extschema@.table_rules(relation, 'ignore') AS ignored,
      -- What a table above masks is masked in its partitions too.
      ARRAY(SELECT m FROM (SELECT relation AS member UNION SELECT relid FROM pg_partition_ancestors(relation)) a, unnest(@extschema@.table_rules(a.member, 'mask')) m) AS masked
  ), key AS (
    SELECT i.indexrelid, a.attname, k.place
    FROM pg_index i, unnest((i.indkey::int2[])[0:i.indnkeyatts - 1]) WITH ORDINALITY k (number, place) JOIN pg_attribute a ON a.attnum = k.number
    WHERE i.indrelid = relation AND a.attrelid = relation AND i.indexrelid = (
      SELECT x.indexrelid FROM pg_index x WHERE x.indrelid = relation AND (x.indisprimary AND x.indisvalid OR x.indisreplident) ORDER BY x.indisprimary DESC LIMIT 1)
  ), bound AS (
    SELECT unnest(conkey) AS number FROM pg_constraint WHERE conrelid = relation
    UNION SELECT unnest(confkey) FROM pg_constraint WHERE confrelid = relation
    UNION SELECT unnest(indkey) FROM pg_index WHERE indrelid = relation AND (indisunique OR indisexclusion)
  ), col AS (
    SELECT a.*, b.type, @extschema@.literal_kind(b.type) AS kind FROM pg_attribute a, LATERAL (SELECT @extschema@.base_type(a.atttypid) AS type) b
    WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped
  )
  SELECT jsonb_build_object(
    'relation', relation, 'oid', c.oid, 'name', format('%I.%I', n.nspname, c.relname),
    'source', CASE WHEN c.relhassubclass THEN 'ONLY ' ELSE '' END || format('%I.%I', n.nspname, c.relname),
    'key', COALESCE((SELECT jsonb_agg(attname ORDER BY place) FROM key), '[]'),
    'columns', (SELECT jsonb_object_agg(attname, jsonb_build_object(
      'place', attnum, 'type', CASE kind WHEN 'money' THEN 'numeric::money' ELSE format_type(type, -1) END, 'kind', kind, 'equality', @extschema@.equality(atttypid),
      'type_oid', type,
      'is_ignored', attname = ANY (ignored), 'is_not_null', attnotnull)) FROM col),
    'generated', ARRAY(SELECT attname FROM col WHERE attgenerated <> ''),
    'always', ARRAY(SELECT attname FROM col WHERE attidentity = 'a'),
    'masked', rules.masked,
    'compared', ARRAY(SELECT attname FROM col WHERE attname <> ALL (ignored) AND attname <> ALL (rules.masked) AND attgenerated <> 'v'),
    -- Setting these may break a constraint.
    'bound', ARRAY(SELECT attname FROM col WHERE type <> atttypid OR attnum IN (SELECT number FROM bound)),
    -- The log has these as text, whatever cast to json they have.
    'as_text', (SELECT string_agg(format(' || pg_catalog.jsonb_build_object(%L, t.%I::pg_catalog.text)', attname, attname), '') FROM col
      WHERE kind = 'plain' AND type >= 16384 AND EXISTS (SELECT FROM pg_cast WHERE castsource = type AND casttarget = 'json'::regtype AND castmethod = 'f')),
    'needs', @extschema@.links(relation, true), 'offers', @extschema@.links(relation, false),
    -- The row where jsonb cannot hold some of its values.
    'by_column', (SELECT format('(SELECT jsonb_object_agg(k, v) FROM (VALUES %s) e (k, v))', string_agg(format(
        CASE WHEN is_json THEN '(%L, @extschema@.jsonb_or_text(to_json(t.%I)))' ELSE '(%L, to_jsonb(t.%I))' END, attname, attname), ', '))
      FROM (SELECT attname, kind = 'made' OR type = 'json'::regtype AS is_json FROM col) c HAVING bool_or(is_json)),
    'references', @extschema@.silent_references(relation),
    -- Its columns had the names and types of today all the time.
    'is_as_ever', @extschema@.is_as_ever(relation::oid),
    'has_triggers', EXISTS (SELECT FROM pg_trigger WHERE tgrelid = relation AND NOT tgisinternal AND tgenabled <> 'D' AND tgfoid <> '@extschema@.emit_context()'::regprocedure)
      OR c.relhasrules
  ) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, rules WHERE c.oid = relation
$$;

COMMENT ON FUNCTION @extschema@.undo_table(regclass) IS
'what is to be known of a table to undo its changes';

-- A key as the column primary_key has it.
CREATE FUNCTION @extschema@.key_text(key jsonb, image jsonb) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF jsonb_array_length(key) = 1 THEN
    RETURN image ->> (key ->> 0);
  END IF;
  RETURN (SELECT CASE WHEN bool_and(image ? k) THEN jsonb_agg(image ->> k ORDER BY place) END FROM jsonb_array_elements_text(key) WITH ORDINALITY e (k, place));
END
$$;

COMMENT ON FUNCTION @extschema@.key_text(jsonb, jsonb) IS
'the key of a row as text';

-- Under the settings of the log.
CREATE FUNCTION @extschema@.made_text(type oid, value jsonb) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO, YMD' SET intervalstyle = 'postgres'
  SET extra_float_digits = 1 SET bytea_output = 'hex' SET lc_monetary = 'C' AS $$
BEGIN
  IF type = 'money'::regtype::oid THEN
    RETURN (value #>> '{}'::text[])::money::numeric;
  END IF;
  RETURN @extschema@.value_text(type, value);
END
$$;

COMMENT ON FUNCTION @extschema@.made_text(oid, jsonb) IS
'the text of a value, of its JSON';

CREATE FUNCTION @extschema@.literal(col jsonb, value jsonb) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF value IS NULL OR value = 'null' THEN
    -- What is JSON has a null of its own, which looks the same.
    RETURN CASE WHEN col ->> 'kind' = 'json' AND (col -> 'is_not_null')::boolean THEN format('''null''::%s', col ->> 'type') ELSE 'NULL' END;
  END IF;
  RETURN format('%L::%s', CASE col ->> 'kind' WHEN 'plain' THEN value #>> '{}' WHEN 'json' THEN value::text
    ELSE @extschema@.made_text((col ->> 'type_oid')::oid, value) END, col ->> 'type');
END
$$;

COMMENT ON FUNCTION @extschema@.literal(jsonb, jsonb) IS
'a value as SQL, of its JSON';

-- The condition that a column has a value.
CREATE FUNCTION @extschema@.is_still(name text, col jsonb, value jsonb) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF value IS NULL OR value = 'null' THEN
    RETURN CASE WHEN col ->> 'kind' = 'json' THEN format('COALESCE(pg_catalog.to_jsonb(%I), ''null'') OPERATOR(pg_catalog.=) ''null''::jsonb', name)
      -- Of a composite value, IS NULL would ask for its members.
      WHEN col ->> 'kind' = 'made' THEN format('%I IS NOT DISTINCT FROM NULL', name) ELSE format('%I IS NULL', name) END;
  ELSIF col ->> 'equality' IS NULL THEN
    RETURN format('pg_catalog.to_jsonb(%I) OPERATOR(pg_catalog.=) %L::jsonb', name, value);
  END IF;
  RETURN format('%I %s %s', name, col ->> 'equality', @extschema@.literal(col, value));
END
$$;

COMMENT ON FUNCTION @extschema@.is_still(text, jsonb, jsonb) IS
'the condition that a column has a value, as SQL';

CREATE FUNCTION @extschema@.where_key(t jsonb, image jsonb) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  name text := t -> 'key' ->> 0;
BEGIN
  IF jsonb_array_length(t -> 'key') = 1 THEN
    RETURN @extschema@.is_still(name, t -> 'columns' -> name, image -> name);
  END IF;
  RETURN (SELECT string_agg(@extschema@.is_still(k, t -> 'columns' -> k, image -> k), ' AND ' ORDER BY place) FROM jsonb_array_elements_text(t -> 'key') WITH ORDINALITY e (k, place));
END
$$;

COMMENT ON FUNCTION @extschema@.where_key(jsonb, jsonb) IS
'the condition that a row has the key of an image, as SQL';

-- What `now` says of the columns is what has to be there still; most often it is the image after the change.
CREATE FUNCTION @extschema@.undo_statement(t jsonb, u @extschema@.undo, now jsonb) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  cols jsonb := t -> 'columns';
  sets text;
  guards text;
BEGIN
  IF u.operation = 'CREATE' THEN
    RETURN format('DELETE FROM %s WHERE %s;', t ->> 'source', u.where_after);
  ELSIF u.operation = 'UPDATE' THEN
    SELECT string_agg(format('%I = %s', c, CASE WHEN (cols -> c -> 'is_ignored')::boolean
          -- Nobody looks whether it changed since.
          THEN format('CASE WHEN %s THEN %s ELSE %I END', @extschema@.is_still(c, cols -> c, now -> c), @extschema@.literal(cols -> c, u.before -> c), c)
          ELSE @extschema@.literal(cols -> c, u.before -> c) END), ', ' ORDER BY place),
      string_agg(' AND ' || @extschema@.is_still(c, cols -> c, now -> c), '' ORDER BY place) FILTER (WHERE NOT (t -> 'key') ? c AND NOT (cols -> c -> 'is_ignored')::boolean)
    INTO sets, guards FROM (SELECT n AS c, (cols -> n -> 'place')::int AS place FROM unnest(u.changed) n) e;
    RETURN format('UPDATE %s SET %s WHERE %s%s;', t ->> 'source', sets, u.where_after, guards);
  END IF;
  SELECT string_agg(quote_ident(c), ', ' ORDER BY place), string_agg(@extschema@.literal(cols -> c, u.before -> c), ', ' ORDER BY place) INTO sets, guards
  FROM (SELECT key AS c, (value -> 'place')::int AS place FROM jsonb_each(cols)) e WHERE u.before ? c AND NOT (t -> 'generated') ? c;
  RETURN format('INSERT INTO %s (%s)%s VALUES (%s);', t ->> 'name', sets,
    CASE WHEN t -> 'always' <> '[]' THEN ' OVERRIDING SYSTEM VALUE' ELSE '' END, guards);
END
$$;

COMMENT ON FUNCTION @extschema@.undo_statement(jsonb, @extschema@.undo, jsonb) IS
'the statement that undoes a change';

-- Says why one change cannot be undone, or completes what is known of it: before and after are images of today.
CREATE FUNCTION @extschema@.plan_undo(t jsonb, u @extschema@.undo, omitted jsonb) RETURNS @extschema@.undo
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  key jsonb := t -> 'key';
  place text := format('%s of the row %s of %s, recorded at %s (sequence %s)', u.operation, COALESCE(u.primary_key, 'without a key'), t ->> 'name', u.commit_position, u.sequence);
  image jsonb := CASE WHEN u.operation IN ('CREATE', 'UPDATE') THEN u.after ELSE u.before END;
  names text[];
  details text[] := '{}';
BEGIN
  IF u.primary_key IS NULL OR omitted ? 'primary_key' THEN
    RAISE EXCEPTION 'bemi cannot undo the %: nothing names the row', place USING ERRCODE = 'object_not_in_prerequisite_state',
      HINT = 'The table had no key, or one that is too long to be recorded. Narrow the selection, and mend this row by hand.';
  ELSIF omitted ?| '{before,after}' THEN
    RAISE EXCEPTION 'bemi cannot undo the %: bemi.changes could not hold its images', place USING ERRCODE = 'object_not_in_prerequisite_state',
      HINT = 'Narrow the selection, and mend this row by hand.';
  ELSIF u.operation = 'UPDATE' AND NOT u.before ?& ARRAY(SELECT jsonb_object_keys(u.after))
    OR u.operation <> 'CREATE' AND NOT EXISTS (SELECT FROM jsonb_object_keys(u.before) k WHERE NOT key ? k)
      AND (u.before = '{}' OR EXISTS (SELECT FROM jsonb_object_keys(t -> 'columns') k WHERE NOT key ? k AND NOT (t -> 'generated') ? k))
  THEN
    RAISE EXCEPTION 'bemi cannot undo the %: the row before it was not recorded', place USING ERRCODE = 'object_not_in_prerequisite_state',
      HINT = format('From now on it is with SELECT bemi.track(%L); which sets REPLICA IDENTITY FULL. Narrow the selection, and mend this row by hand.', t ->> 'name');
  ELSIF key = '[]' OR @extschema@.key_text(key, image) IS DISTINCT FROM u.primary_key AND (jsonb_array_length(key) = 1
    OR u.primary_key NOT LIKE '[%]' OR @extschema@.key_text(key, image)::jsonb IS DISTINCT FROM u.primary_key::jsonb)
  THEN
    RAISE EXCEPTION 'bemi cannot undo the %: the table no longer has the key by which the row was recorded', place USING ERRCODE = 'object_not_in_prerequisite_state',
      HINT = 'Give the table that primary key again, or narrow the selection, and mend this row by hand.';
  END IF;
  u.after := u.after - ARRAY(SELECT jsonb_object_keys(omitted));
  IF u.operation = 'UPDATE' THEN
    u.changed := ARRAY(SELECT b.key FROM jsonb_each(u.before) b WHERE b.value::text IS DISTINCT FROM (u.after -> b.key)::text AND NOT omitted ? b.key);
    names := ARRAY(SELECT c FROM unnest(u.changed) c WHERE NOT (t -> 'columns') ? c);
    IF names <> '{}' THEN
      RAISE EXCEPTION 'bemi cannot undo the %: the table no longer has the column %', place, (SELECT string_agg(quote_ident(c), ', ') FROM unnest(names) c) USING
        ERRCODE = 'undefined_column', HINT = 'Add the column again, or narrow the selection, and mend this row by hand.';
    END IF;
    names := ARRAY(SELECT c FROM unnest(u.changed) c WHERE (t -> 'always') ? c);
    IF names <> '{}' THEN
      RAISE EXCEPTION 'bemi cannot undo the %: the column % is GENERATED ALWAYS AS IDENTITY and cannot be set', place, quote_ident(names[1]) USING
        ERRCODE = 'feature_not_supported', HINT = format('ALTER TABLE %s ALTER %I SET GENERATED BY DEFAULT; makes it possible.', t ->> 'name', names[1]);
    END IF;
    names := ARRAY(SELECT k FROM jsonb_object_keys(omitted) k WHERE (t -> 'columns') ? k AND NOT (t -> 'generated') ? k);
    IF t -> 'masked' <> '[]' THEN
      u.changed := ARRAY(SELECT c FROM unnest(u.changed) c WHERE NOT (t -> 'masked') ? c OR '"[masked]"' NOT IN (u.before -> c, u.after -> c));
    END IF;
    u.changed := ARRAY(SELECT c FROM unnest(u.changed) c WHERE NOT (t -> 'generated') ? c);
  ELSIF u.operation <> 'CREATE' THEN
    names := ARRAY(SELECT k FROM jsonb_object_keys(omitted) k WHERE (t -> 'columns') ? k AND NOT (t -> 'generated') ? k);
  END IF;
  IF u.operation <> 'CREATE' AND names <> '{}' THEN
    RAISE EXCEPTION 'bemi cannot undo the %: the value of % was omitted', place, (SELECT string_agg(quote_ident(c), ', ') FROM unnest(names) c) USING
      ERRCODE = 'object_not_in_prerequisite_state', DETAIL = omitted::text, HINT = 'Narrow the selection, and mend this row by hand.';
  END IF;
  IF u.operation <> 'CREATE' AND t -> 'masked' <> '[]' THEN
    names := ARRAY(SELECT c FROM jsonb_array_elements_text(t -> 'masked') c WHERE '"[masked]"' IN (u.before -> c, u.after -> c) AND NOT (t -> 'generated') ? c);
    IF names <> '{}' AND u.operation = 'UPDATE' THEN
      details := details || format('masked, and left as they are: %s', (SELECT string_agg(quote_ident(c), ', ') FROM unnest(names) c));
    ELSIF names <> '{}' THEN
      RAISE EXCEPTION 'bemi cannot undo the %: the value of % was masked', place, (SELECT string_agg(quote_ident(c), ', ') FROM unnest(names) c) USING
        ERRCODE = 'object_not_in_prerequisite_state', HINT = 'No record has it. Narrow the selection, and insert this row by hand.';
    END IF;
  END IF;
  IF u.operation IN ('DELETE', 'TRUNCATE') THEN
    names := ARRAY(SELECT k FROM jsonb_object_keys(u.before) k WHERE NOT (t -> 'columns') ? k);
    IF names <> '{}' THEN
      details := details || format('no longer columns, and left out: %s', (SELECT string_agg(quote_ident(c), ', ') FROM unnest(names) c));
    END IF;
  END IF;
  u.detail := nullif(array_to_string(details, '. '), '');
  IF u.operation IN ('CREATE', 'UPDATE') THEN
    u.row_after := concat(t ->> 'oid', ':', @extschema@.key_text(key, u.after));
    u.where_after := @extschema@.where_key(t, u.after);
  END IF;
  IF u.operation <> 'CREATE' THEN
    u.row_before := concat(t ->> 'oid', ':', @extschema@.key_text(key, u.before));
    u.where_before := CASE WHEN u.row_before = u.row_after THEN u.where_after ELSE @extschema@.where_key(t, u.before) END;
  END IF;
  RETURN u;
END
$$;

COMMENT ON FUNCTION @extschema@.plan_undo(jsonb, @extschema@.undo, jsonb) IS
'how a change is to be undone; an error if it cannot be';

CREATE FUNCTION @extschema@.check_reading() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF current_setting('transaction_isolation') NOT LIKE 'read %' THEN
    RAISE EXCEPTION 'bemi cannot see what is recorded now in a transaction that is %', upper(current_setting('transaction_isolation')) USING
      ERRCODE = 'active_sql_transaction', HINT = 'BEGIN ISOLATION LEVEL READ COMMITTED;';
  ELSIF to_regclass('@extschema@.changes') IS NOT NULL AND NOT has_table_privilege('@extschema@.changes', 'SELECT') THEN
    RAISE EXCEPTION 'permission denied for table @extschema@.changes' USING
      ERRCODE = 'insufficient_privilege', HINT = format('GRANT SELECT ON @extschema@.changes TO %I;', current_user);
  END IF;
  PERFORM @extschema@.sync();
END
$$;

COMMENT ON FUNCTION @extschema@.check_reading() IS
'returns when everything that was committed before can be read in bemi.changes';

-- The plan for a selection, the newest change first. It is kept in a file if it is long.
CREATE FUNCTION @extschema@.undos(
  transaction_id bigint, context jsonb, relation regclass, primary_key text, since timestamptz, until timestamptz
) RETURNS SETOF @extschema@.undo
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
  conditions text := concat(
    CASE WHEN transaction_id IS NOT NULL THEN ' AND c.transaction_id = $1' END,
    CASE WHEN context IS NOT NULL THEN ' AND c.context @> $2' END,
    CASE WHEN relation IS NOT NULL THEN ' AND (c.schema, c."table") IN (SELECT n.schema, n."table" FROM @extschema@.table_names($3) n)
      AND (SELECT t.relation FROM @extschema@.table_at(c.schema, c."table", @extschema@.place(c.source, c."position"), c.relation) t) IN (SELECT member FROM @extschema@.tree($3) member)' END,
    CASE WHEN primary_key IS NOT NULL THEN ' AND (c.primary_key = $4 OR c.old_primary_key = $4)' END,
    CASE WHEN since IS NOT NULL THEN ' AND c.committed_at >= $5' END, CASE WHEN until IS NOT NULL THEN ' AND c.committed_at < $6' END);
  c record;
  r record;
  -- Which table the last change was about, and between which places it has had that name.
  named_relation regclass;
  since_then bigint;
  until_then bigint;
  last_schema text;
  last_table text;
  last_recorded oid;
  is_another boolean;
  u @extschema@.undo;
  tables jsonb := '{}';
  t jsonb;
  source_of_all int;
  position_of_all pg_lsn;
  times text;
  number bigint := 0;
BEGIN
  IF conditions = '' THEN
    RAISE EXCEPTION 'nothing says which changes are to be undone' USING ERRCODE = 'invalid_parameter_value',
      HINT = 'Give one or more of transaction_id, context, relation, primary_key, since and until.';
  END IF;
  FOR c IN EXECUTE 'SELECT c.*, @extschema@.place(c.source, c."position") AS place FROM @extschema@.changes c WHERE c.operation IN (''CREATE'', ''UPDATE'', ''DELETE'', ''TRUNCATE'')' || conditions
    || ' ORDER BY c.source DESC, c.commit_position DESC, c.sequence DESC' USING transaction_id, context, relation, primary_key, since, until
  LOOP
    IF transaction_id IS NOT NULL AND (c.source, c.commit_position) <> (source_of_all, position_of_all) THEN
      EXECUTE 'SELECT string_agg(DISTINCT c.committed_at::text, '', '') FROM @extschema@.changes c WHERE true' || conditions
        INTO times USING transaction_id, context, relation, primary_key, since, until;
      RAISE EXCEPTION 'several transactions had the id %', transaction_id USING ERRCODE = 'ambiguous_parameter',
        DETAIL = format('They committed at %s.', times), HINT = 'Give since and until too.';
    END IF;
    source_of_all := c.source;
    position_of_all := c.commit_position;
    u := NULL;
    IF (c.schema, c."table", c.relation) IS DISTINCT FROM (last_schema, last_table, last_recorded) OR c.place < since_then OR c.place >= until_then THEN
      SELECT * INTO named_relation, since_then, until_then, is_another FROM @extschema@.table_at(c.schema, c."table", c.place, c.relation);
      last_schema := c.schema;
      last_table := c."table";
      last_recorded := c.relation;
    END IF;
    u.relation := named_relation;
    IF is_another THEN
      RAISE EXCEPTION 'bemi cannot undo changes of the table %: they are of an earlier table of that name', format('%I.%I', c.schema, c."table") USING
        ERRCODE = 'undefined_table', HINT = 'Name another table as relation, or narrow the selection.';
    ELSIF u.relation IS NULL THEN
      RAISE EXCEPTION 'bemi cannot undo changes of the table %: it is no longer there', format('%I.%I', c.schema, c."table") USING
        ERRCODE = 'undefined_table', HINT = 'Name another table as relation, or narrow the selection.';
    END IF;
    IF t ->> 'oid' IS DISTINCT FROM u.relation::oid::text THEN
      t := tables -> u.relation::oid::text;
      IF t IS NULL THEN
        t := @extschema@.undo_table(u.relation);
        tables := tables || jsonb_build_object(u.relation::oid::text, t);
      END IF;
    END IF;
    u.operation := c.operation;
    u.transaction_id := c.transaction_id;
    u.commit_position := c.commit_position;
    u.sequence := c.sequence;
    u.is_behind := false;
    IF c.operation = 'TRUNCATE' THEN
      u.after := '{}';
      FOR r IN SELECT * FROM @extschema@.truncated_rows(u.relation, c.source, c.commit_position, c.sequence) LOOP
        number := number + 1;
        u.number := number;
        u.primary_key := r.primary_key;
        u.before := CASE WHEN (t -> 'is_as_ever')::boolean THEN r.image ELSE @extschema@.image_today(u.relation, r.image, r.place) END;
        RETURN NEXT @extschema@.plan_undo(t, u, '{}'::jsonb);
      END LOOP;
    ELSE
      number := number + 1;
      u.number := number;
      u.primary_key := c.primary_key;
      IF (t -> 'is_as_ever')::boolean THEN
        u.before := c.before;
        u.after := c.after;
        RETURN NEXT @extschema@.plan_undo(t, u, COALESCE(c.omitted, '{}'));
      ELSE
        u.before := @extschema@.image_today(u.relation, c.before, c.place);
        u.after := @extschema@.image_today(u.relation, c.after, c.place);
        RETURN NEXT @extschema@.plan_undo(t, u, COALESCE(@extschema@.keys_today(u.relation, c.omitted, c.place), '{}'));
      END IF;
    END IF;
  END LOOP;
END
$$;

COMMENT ON FUNCTION @extschema@.undos(bigint, jsonb, regclass, text, timestamptz, timestamptz) IS
'how the changes of a selection are to be undone, the newest first; an error if one cannot be';
