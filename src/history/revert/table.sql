-- What undoing changes of a table needs to know of it: how its values are written and compared, and what refers to its
-- rows.

-- Returns the operator by which values of a type are equal, if the type has one; IS NOT DISTINCT FROM would look for it
-- in the search_path. It has a schema, unless nobody can put a better one before it.
CREATE FUNCTION bemi.equality(type oid) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  t pg_type;
  operator text;
BEGIN
  SELECT * INTO t FROM pg_type WHERE oid = type;
  IF t.typtype = 'd' THEN
    operator := bemi.equality(t.typbasetype);
    RETURN CASE operator WHEN '=' THEN 'OPERATOR(pg_catalog.=)' ELSE operator END;
  ELSIF t.typtype IN ('e', 'r', 'm') THEN
    RETURN 'OPERATOR(pg_catalog.=)';
  ELSIF t.typtype = 'c' THEN
    RETURN CASE WHEN NOT EXISTS (
      SELECT
      FROM pg_attribute
      WHERE attrelid = t.typrelid AND attnum > 0 AND NOT attisdropped AND bemi.equality(atttypid) IS NULL
    ) THEN 'OPERATOR(pg_catalog.=)' END;
  ELSIF t.typcategory = 'A' AND t.typelem <> 0 AND t.typlen = -1 THEN
    RETURN CASE WHEN bemi.equality(t.typelem) IS NOT NULL THEN 'OPERATOR(pg_catalog.=)' END;
  END IF;
  SELECT CASE
      WHEN n.nspname = 'pg_catalog' AND c.opcintype = type THEN o.oprname
      ELSE format('OPERATOR(%I.%s)', n.nspname, o.oprname)
    END INTO operator
  FROM pg_opclass c
    JOIN pg_am m ON m.oid = c.opcmethod
    JOIN pg_amop a ON a.amopfamily = c.opcfamily
      AND a.amoplefttype = c.opcintype
      AND a.amoprighttype = c.opcintype
      AND a.amopstrategy = CASE m.amname WHEN 'btree' THEN 3 ELSE 1 END
    JOIN pg_operator o ON o.oid = a.amopopr
    JOIN pg_namespace n ON n.oid = o.oprnamespace
  WHERE m.amname IN ('btree', 'hash')
    AND c.opcdefault
    AND (c.opcintype = type
      OR EXISTS (
        SELECT
        FROM pg_cast k
        WHERE k.castsource = type AND k.casttarget = c.opcintype AND k.castmethod = 'b' AND k.castcontext = 'i'))
  ORDER BY c.opcintype = type DESC, m.amname
  LIMIT 1;
  RETURN operator;
END
$$;

COMMENT ON FUNCTION bemi.equality(oid) IS
'the operator by which values of a type are equal, or NULL if it has none';

-- Returns whether a value can be written as its JSON has it (plain), or else how its literal is made of that.
CREATE FUNCTION bemi.literal_kind(type oid) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE
    WHEN t.oid IN ('json'::regtype, 'jsonb'::regtype) THEN 'json'
    WHEN t.oid = 'money'::regtype THEN 'money'
    WHEN EXISTS (
      SELECT
      FROM pg_depend d
        JOIN pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass
      WHERE d.classid = 'pg_type'::regclass
        AND d.objid = t.oid
        AND d.deptype = 'e'
        AND e.extname = 'hstore'
        AND t.typname = 'hstore') THEN 'hstore'
    WHEN t.typtype = 'c' OR t.typcategory = 'A' THEN 'made'
    ELSE 'plain' END
  FROM pg_type t
  WHERE t.oid = type
$$;

COMMENT ON FUNCTION bemi.literal_kind(oid) IS
'how a literal of a type is made of the JSON of a value';

CREATE FUNCTION bemi.base_type(type oid) RETURNS oid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  WITH RECURSIVE bases AS (
    SELECT t.oid, t.typtype, t.typbasetype
    FROM pg_type t
    WHERE t.oid = type
    UNION ALL
    SELECT t.oid, t.typtype, t.typbasetype
    FROM bases b
      JOIN pg_type t ON t.oid = b.typbasetype
    WHERE b.typtype = 'd'
  )
  SELECT oid FROM bases WHERE typtype <> 'd'
$$;

COMMENT ON FUNCTION bemi.base_type(oid) IS
'the type under a domain; of another type, itself';

-- Returns the columns of a table with the types under their domains, and how literals of them are made.
CREATE FUNCTION bemi.undo_columns(relation regclass) RETURNS TABLE (
  attname name, attnum int2, atttypid oid, atttypmod int, attgenerated "char", attidentity "char", attnotnull boolean,
  type oid, kind text, is_looked_up boolean
)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT a.attname, a.attnum, a.atttypid, a.atttypmod, a.attgenerated, a.attidentity, a.attnotnull,
    b.type, bemi.literal_kind(b.type), y.typname ~ '^_?(reg|xml$|money$)'
  FROM pg_attribute a,
    LATERAL (SELECT bemi.base_type(a.atttypid) AS type) b
    LEFT JOIN pg_type y ON y.oid = b.type
  WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped
$$;

COMMENT ON FUNCTION bemi.undo_columns(regclass) IS
'the columns of a table, and how literals of their types are made';

-- Returns what undoing changes needs to know of the columns of a table.
CREATE FUNCTION bemi.undo_table_columns(relation regclass, ignored name[], masked name[]) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  WITH col AS (SELECT * FROM bemi.undo_columns(relation))
  SELECT jsonb_build_object(
    'columns', (
      SELECT jsonb_object_agg(attname, jsonb_build_object(
        'place', attnum,
        'type', CASE kind WHEN 'money' THEN 'numeric::money' ELSE format_type(type, -1) END,
        'kind', kind,
        'equality', bemi.equality(atttypid),
        'type_oid', type,
        'is_ignored', attname = ANY (ignored),
        'is_not_null', attnotnull))
      FROM col),
    'generated', ARRAY(SELECT attname FROM col WHERE attgenerated <> ''),
    'always', ARRAY(SELECT attname FROM col WHERE attidentity = 'a'),
    'compared', ARRAY(
      SELECT attname
      FROM col
      WHERE attname <> ALL (ignored) AND attname <> ALL (masked) AND attgenerated <> 'v'),
    -- A value that is put into these may come out otherwise: rounded, or read by an input function that knows other
    -- values today.
    'checked', ARRAY(
      SELECT attname
      FROM col
      WHERE attgenerated = '' AND (type <> atttypid OR atttypmod <> -1 OR type >= 16384 OR is_looked_up)),
    'looked_up', ARRAY(SELECT attname FROM col WHERE type >= 16384 OR is_looked_up),
    -- These may be computed otherwise today.
    'computed', ARRAY(SELECT attname FROM col WHERE attgenerated = 's'),
    -- WAL has these as text, whatever cast to json they have.
    'as_text', (
      SELECT string_agg(
        format(' || pg_catalog.jsonb_build_object(%L, t.%I::pg_catalog.text)', attname, attname), '')
      FROM col
      WHERE kind = 'plain'
        AND type >= 16384
        AND EXISTS (
          SELECT
          FROM pg_cast
          WHERE castsource = type AND casttarget = 'json'::regtype AND castmethod = 'f')),
    -- The row where jsonb cannot hold some of its values.
    'by_column', (
      SELECT format('(SELECT jsonb_object_agg(k, v) FROM (VALUES %s) e (k, v))', string_agg(format(
        CASE WHEN is_json THEN '(%L, bemi.jsonb_or_text(to_json(t.%I)))' ELSE '(%L, to_jsonb(t.%I))' END,
        attname, attname), ', '))
      FROM (SELECT attname, kind = 'made' OR type = 'json'::regtype AS is_json FROM col) c
      HAVING bool_or(is_json)))
$$;

COMMENT ON FUNCTION bemi.undo_table_columns(regclass, name[], name[]) IS
'what undoing changes needs to know of the columns of a table';

-- Returns what is asked of a table again and again while its changes are undone.
CREATE FUNCTION bemi.undo_table(relation regclass) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  WITH rules AS (
    SELECT bemi.table_rules(relation, 'ignore') AS ignored,
      -- What a table above masks is masked in its partitions too.
      ARRAY(
        SELECT m
        FROM (SELECT relation AS member UNION SELECT relid FROM pg_partition_ancestors(relation)) a,
          unnest(bemi.table_rules(a.member, 'mask')) m) AS masked
  ), key AS (
    SELECT i.indexrelid, a.attname, k.place
    FROM pg_index i,
      unnest((i.indkey::int2[])[0:i.indnkeyatts - 1]) WITH ORDINALITY k (number, place)
      JOIN pg_attribute a ON a.attnum = k.number
    WHERE i.indrelid = relation
      AND a.attrelid = relation
      AND i.indexrelid = (
        SELECT x.indexrelid
        FROM pg_index x
        WHERE x.indrelid = relation AND (x.indisprimary AND x.indisvalid OR x.indisreplident)
        ORDER BY x.indisprimary DESC
        LIMIT 1)
  )
  SELECT bemi.undo_table_columns(relation, rules.ignored, rules.masked) || jsonb_build_object(
    'relation', relation,
    'oid', c.oid,
    'name', format('%I.%I', n.nspname, c.relname),
    'source', CASE WHEN c.relhassubclass THEN 'ONLY ' ELSE '' END || format('%I.%I', n.nspname, c.relname),
    'key', COALESCE((SELECT jsonb_agg(attname ORDER BY place) FROM key), '[]'),
    'masked', rules.masked,
    'needs', bemi.links(relation, true),
    'offers', bemi.links(relation, false),
    'references', bemi.silent_references(relation),
    -- Its columns had the names of today all the time.
    'is_as_ever', bemi.is_as_ever(relation::oid),
    'has_triggers', c.relhasrules OR EXISTS (
      SELECT
      FROM pg_trigger
      WHERE tgrelid = relation
        AND NOT tgisinternal
        AND tgenabled <> 'D'
        AND tgfoid <> 'bemi.emit_context()'::regprocedure)
  )
  FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace,
    rules
  WHERE c.oid = relation
$$;

COMMENT ON FUNCTION bemi.undo_table(regclass) IS
'what undoing changes needs to know of a table';
