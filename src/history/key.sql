-- The columns that name a row of a table, and in SQL how to read and compare them.

-- `opening` and `closing` around a text make a value of it. With `free` in place of `closing`, the value is not rounded
-- or cut as the column would do. `comparison` is the condition that a column equals such a value, as a format. `type`
-- is the base type. `has_one_text` says whether equal values of it have the same text.
CREATE TYPE bemi.key_column AS (
  place int,
  name name,
  number smallint,
  opening text,
  closing text,
  comparison text,
  type oid,
  free text,
  has_one_text boolean
);

COMMENT ON TYPE bemi.key_column IS
'a column that names a row of a table, and in SQL how to read and compare it';

-- Of a partitioned table, the index of its last leaf. `is_one`: whether the keys of all leaves have the same columns.
CREATE FUNCTION bemi.key_index(relation regclass, OUT leaf oid, OUT index oid, OUT is_one boolean)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  columns text;
  columns_before text;
BEGIN
  is_one := true;
  -- A partitioned table without partitions has an index of its own.
  FOREACH leaf IN ARRAY COALESCE(NULLIF(bemi.leaves(relation), '{}'), ARRAY[relation::oid]) LOOP
    index := COALESCE((
      SELECT i.indexrelid
      FROM pg_index i
      WHERE i.indrelid = leaf AND i.indisprimary AND i.indisvalid
    ), bemi.identity_index(leaf::regclass));
    IF index IS NULL THEN
      RAISE EXCEPTION 'the table % has no primary key, so its changes do not name their rows', leaf::regclass USING
        ERRCODE = 'object_not_in_prerequisite_state',
        HINT = 'Add a primary key. The past can be read from then on.';
    END IF;
    columns := (
      SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY k.place)
      FROM pg_index i,
      unnest((i.indkey::int2[])[0:i.indnkeyatts - 1]) WITH ORDINALITY AS k (number, place)
      JOIN pg_attribute a ON a.attnum = k.number
      WHERE i.indexrelid = index AND a.attrelid = leaf
    );
    is_one := is_one AND columns = COALESCE(columns_before, columns);
    columns_before := columns;
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.key_index(regclass) IS
'returns the index whose columns name the rows of a table';

CREATE FUNCTION bemi.require_comparable(relation regclass, leaf oid, index oid) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  implicit record;
BEGIN
  IF EXISTS (
    SELECT FROM pg_index i, unnest(i.indkey::int2[]) k (number)
    JOIN pg_attribute a ON a.attnum = k.number
    JOIN pg_type t ON t.oid = a.atttypid
    WHERE i.indexrelid = index
      AND a.attrelid = leaf
      AND (t.typcategory IN ('A', 'C') OR t.typname IN ('json', 'jsonb'))
  ) THEN
    RAISE EXCEPTION 'the key of % has a column of an array, a composite type or jsonb', relation USING
      ERRCODE = 'object_not_in_prerequisite_state',
      HINT = 'The past of the table cannot be read by such a key. bemi.changes has what is recorded.';
  END IF;
  -- An implicit cast can lead the comparison of two ranges to another operator, by way of the cast's function.
  SELECT format_type(k.castsource, NULL::int4) AS source, format_type(k.casttarget, NULL::int4) AS target
  INTO implicit
  FROM pg_index i, unnest(i.indkey::int2[]) u (number)
  JOIN pg_attribute a ON a.attnum = u.number
  JOIN pg_type own ON own.oid = a.atttypid AND own.typtype = ANY ('{d,r,m}'::"char"[])
  CROSS JOIN LATERAL (
    SELECT CASE own.typtype WHEN 'd'::"char" THEN bemi.base_type(own.oid) ELSE own.oid END AS type
  ) b
  JOIN pg_type t ON t.oid = b.type
  JOIN pg_cast k ON k.castsource = t.oid
  WHERE i.indexrelid = index
    AND a.attrelid = leaf
    AND t.typtype = ANY ('{r,m}'::"char"[])
    AND t.oid >= 16384::oid
    AND k.castcontext = 'i'::"char"
  LIMIT 1;
  IF implicit.source IS NOT NULL THEN
    RAISE EXCEPTION 'the key of % has a column of the type %, which has an implicit cast',
      relation, implicit.source USING
      ERRCODE = 'object_not_in_prerequisite_state',
      HINT = format('DROP CAST (%s AS %s);', implicit.source, implicit.target);
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.require_comparable(regclass, oid, oid) IS
'raises an error if the keys of a table cannot be compared safely';

-- PostgreSQL's own types have no casts of users.
CREATE FUNCTION bemi.key_type(
  type oid, "collation" oid, OUT base oid, OUT is_own boolean, OUT collated text, OUT has_one_text boolean
)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
BEGIN
  SELECT y.oid, y.oid < 16384::oid,
    CASE WHEN c.oid IS NULL THEN ''::text ELSE format(' COLLATE %I.%I', n.nspname, c.collname) END,
    y.typtype = 'e'::"char"
      OR y.oid < 16384::oid
        AND COALESCE(c.collisdeterministic, true)
        AND y.typname = ANY (ARRAY['int2', 'int4', 'int8', 'oid', 'bool', 'uuid', 'bytea', 'date', 'time', 'timestamp',
          'timestamptz', 'inet', 'cidr', 'macaddr', 'macaddr8', 'bit', 'varbit', 'pg_lsn', 'xid8', 'money', 'char',
          'name', 'text', 'varchar']::name[])
  INTO base, is_own, collated, has_one_text
  FROM pg_type o
  JOIN pg_type y ON y.oid = CASE o.typtype WHEN 'd'::"char" THEN bemi.base_type(o.oid) ELSE o.oid END
  LEFT JOIN pg_collation c ON c.oid = key_type."collation"
  LEFT JOIN pg_namespace n ON n.oid = c.collnamespace
  WHERE o.oid = key_type.type;
END
$$;

COMMENT ON FUNCTION bemi.key_type(oid, oid) IS
'returns the base type of a column of a key, and its collation in SQL';

-- `exactly` is a cast behind both sides: beside the operator of an extension, users may have made others that fit the
-- types of the columns better.
CREATE FUNCTION bemi.key_comparison(class oid, column_type oid, base oid) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  operator record;
  exactly text;
BEGIN
  SELECT o.oprname AS name, n.nspname AS schema, c.opcintype AS type
  INTO operator
  FROM pg_opclass c
  JOIN pg_amop m ON m.amopfamily = c.opcfamily
    AND m.amopstrategy = 3
    AND m.amoplefttype = c.opcintype
    AND m.amoprighttype = c.opcintype
  JOIN pg_operator o ON o.oid = m.amopopr
  JOIN pg_namespace n ON n.oid = o.oprnamespace
  WHERE c.oid = class;
  exactly := CASE
    WHEN operator.schema <> 'pg_catalog'::name THEN '::'::text || format_type(operator.type, -1)
    WHEN base < 16384::oid OR base = column_type THEN ''::text
    ELSE '::'::text || format_type(base, -1) END;
  exactly := replace(exactly, '%'::text, '%%'::text);
  IF operator.type = 'anyenum'::regtype::oid THEN
    RETURN format('bemi.enum_number(%%1$s) OPERATOR(pg_catalog.=) bemi.enum_number(%%2$s%s)', exactly);
  END IF;
  RETURN '%1$s'::text || exactly
    || format(' OPERATOR(%I.%s) ', operator.schema, operator.name)
    || '%2$s'::text || exactly;
END
$$;

COMMENT ON FUNCTION bemi.key_comparison(oid, oid, oid) IS
'returns in SQL, as a format: the condition that two values of a column of a key are equal';

-- In the order of `primary_key`; an error if there are none.
CREATE FUNCTION bemi.key_of(relation regclass) RETURNS SETOF bemi.key_column
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  key record := bemi.key_index(relation);
BEGIN
  PERFORM bemi.require_comparable(relation, key.leaf, key.index);
  IF NOT key.is_one THEN
    RAISE EXCEPTION 'the partitions of % have different keys', relation USING
      ERRCODE = 'object_not_in_prerequisite_state',
      HINT = 'Read the past of each partition by itself.';
  END IF;
  RETURN QUERY
    SELECT
      k.place::int,
      own.attname,
      own.attnum,
      CASE WHEN t.is_own THEN 'CAST('::text ELSE 'bemi.key_value('::text END,
      x.before_type
        || format_type(t.base, CASE WHEN t.base = own.atttypid THEN own.atttypmod ELSE -1 END)
        || x.after_type,
      bemi.key_comparison(k.class, own.atttypid, t.base),
      t.base,
      x.before_type || format_type(t.base, -1) || x.after_type,
      t.has_one_text
    FROM pg_index i,
    unnest((i.indkey::int2[])[0:i.indnkeyatts - 1], i.indclass::oid[]) WITH ORDINALITY AS k (number, class, place)
    JOIN pg_attribute a ON a.attnum = k.number
    JOIN pg_attribute own ON own.attname = a.attname AND own.attrelid = relation
    CROSS JOIN LATERAL bemi.key_type(own.atttypid, own.attcollation) t
    CROSS JOIN LATERAL (
      SELECT
        CASE WHEN t.is_own THEN ' AS '::text ELSE ', NULL::'::text END AS before_type,
        ')'::text || t.collated AS after_type
    ) x
    WHERE i.indexrelid = key.index AND a.attrelid = key.leaf AND k.number IS NOT NULL
    ORDER BY k.place;
END
$$;

COMMENT ON FUNCTION bemi.key_of(regclass) IS
'returns the columns that name a row of a table, and in SQL how to read and compare them';
