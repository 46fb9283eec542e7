-- What is to be known of a table to undo its changes: how its values are written and compared, and what refers to its rows.

-- The operator by which values of a type are equal, if the type has one; IS NOT DISTINCT FROM would look for it in the
-- search_path. With a schema, unless nobody can put a better one before it.
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
      SELECT FROM pg_attribute WHERE attrelid = t.typrelid AND attnum > 0 AND NOT attisdropped AND bemi.equality(atttypid) IS NULL
    ) THEN 'OPERATOR(pg_catalog.=)' END;
  ELSIF t.typcategory = 'A' AND t.typelem <> 0 AND t.typlen = -1 THEN
    RETURN CASE WHEN bemi.equality(t.typelem) IS NOT NULL THEN 'OPERATOR(pg_catalog.=)' END;
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

COMMENT ON FUNCTION bemi.equality(oid) IS
'the operator by which values of a type are equal, or NULL if it has none';

-- Whether a value can be written as its JSON has it (plain), or how it is to be made of that.
CREATE FUNCTION bemi.literal_kind(type oid) RETURNS text
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

COMMENT ON FUNCTION bemi.literal_kind(oid) IS
'how a literal of a type is made of the JSON of a value';

CREATE FUNCTION bemi.base_type(type oid) RETURNS oid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  WITH RECURSIVE bases AS (
    SELECT t.oid, t.typtype, t.typbasetype FROM pg_type t WHERE t.oid = type
    UNION ALL SELECT t.oid, t.typtype, t.typbasetype FROM bases b JOIN pg_type t ON t.oid = b.typbasetype WHERE b.typtype = 'd'
  )
  SELECT oid FROM bases WHERE typtype <> 'd'
$$;

COMMENT ON FUNCTION bemi.base_type(oid) IS
'the type that a domain is made of; of another type, itself';

-- The foreign keys that refer to a table and would change other rows without a word, or are checked later: the ones that
-- fail at once do so by themselves. What a key does its triggers do: one that is NOT ENFORCED has none, and disabled ones do
-- nothing. One that is NOT VALID acts on the rows that do refer.
CREATE FUNCTION bemi.silent_references(relation regclass) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT COALESCE(jsonb_agg(jsonb_build_object(
    'name', quote_ident(k.conname), 'child', k.conrelid::regclass,
    'on_delete', CASE WHEN acts.on_delete THEN k.confdeltype ELSE '-' END, 'on_update', CASE WHEN acts.on_update THEN k.confupdtype ELSE '-' END,
    'is_deferred', k.condeferred, 'source', format('%I.%I', n.nspname, c.relname),
    'columns', (SELECT jsonb_agg(a.attname) FROM pg_attribute a WHERE a.attrelid = k.confrelid AND a.attnum = ANY (k.confkey)),
    'child_columns', (SELECT jsonb_agg(a.attname) FROM pg_attribute a WHERE a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey)),
    'join', (SELECT string_agg(format('parent.%I OPERATOR(%I.%s) child.%I', p.attname, s.nspname, o.oprname, f.attname), ' AND ')
      FROM unnest(k.confkey, k.conkey, k.conpfeqop) u (parent, child, operator)
      JOIN pg_attribute p ON p.attrelid = k.confrelid AND p.attnum = u.parent JOIN pg_attribute f ON f.attrelid = k.conrelid AND f.attnum = u.child
      JOIN pg_operator o ON o.oid = u.operator JOIN pg_namespace s ON s.oid = o.oprnamespace)
  ) ORDER BY k.conname, k.oid), '[]')
  FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace, LATERAL (
    SELECT bool_or(g.tgtype & 8 <> 0) AS on_delete, bool_or(g.tgtype & 16 <> 0) AS on_update
    FROM pg_trigger g WHERE g.tgconstraint = k.oid AND g.tgrelid = relation AND g.tgenabled IN ('O', 'A')
  ) acts
  WHERE k.contype = 'f' AND k.confrelid = relation AND (acts.on_delete OR acts.on_update) AND (k.confdeltype IN ('c', 'n', 'd') OR k.confupdtype IN ('c', 'n', 'd') OR k.condeferred)
    -- Not again for each partition that refers.
    AND NOT EXISTS (SELECT FROM pg_constraint p WHERE p.oid = k.conparentid AND p.confrelid = k.confrelid)
$$;

COMMENT ON FUNCTION bemi.silent_references(regclass) IS
'the foreign keys that refer to a table and would have other rows changed, or are checked later';

-- The columns that refer to rows (of a partitioned table as a whole) and the columns that they refer to, or the other way round.
CREATE FUNCTION bemi.links(relation regclass, is_child boolean) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT COALESCE(jsonb_agg(DISTINCT jsonb_build_object('name', concat(COALESCE(pg_partition_root(k.confrelid), k.confrelid)::oid, names), 'columns', columns)), '[]')
  FROM pg_constraint k, LATERAL (
    SELECT jsonb_agg(p.attname ORDER BY p.attname) AS names, jsonb_agg(CASE WHEN is_child THEN c.attname ELSE p.attname END ORDER BY p.attname) AS columns
    FROM unnest(k.conkey, k.confkey) u (child, parent) JOIN pg_attribute c ON c.attrelid = k.conrelid AND c.attnum = u.child
    JOIN pg_attribute p ON p.attrelid = k.confrelid AND p.attnum = u.parent
  -- Before 18 all are enforced.
  ) pairs WHERE k.contype = 'f' AND COALESCE((to_jsonb(k) ->> 'conenforced')::boolean, true) AND CASE WHEN is_child THEN k.conrelid ELSE k.confrelid END = relation
$$;

COMMENT ON FUNCTION bemi.links(regclass, boolean) IS
'the columns by which the rows of a table refer to others, or by which others refer to them';

-- What the foreign keys of a row refer to, or what others refer to it by.
CREATE FUNCTION bemi.linked(links jsonb, image jsonb) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT ARRAY(SELECT concat(l ->> 'name', (SELECT jsonb_agg(image ->> c ORDER BY place) FROM jsonb_array_elements_text(l -> 'columns') WITH ORDINALITY e (c, place)))
    FROM jsonb_array_elements(links) l)
$$;

COMMENT ON FUNCTION bemi.linked(jsonb, jsonb) IS
'names of the rows that a row refers to by these links';

-- All that is asked of a table again and again.
CREATE FUNCTION bemi.undo_table(relation regclass) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  WITH rules AS (
    SELECT bemi.table_rules(relation, 'ignore') AS ignored,
      -- What a table above masks is masked in its partitions too.
      ARRAY(SELECT m FROM (SELECT relation AS member UNION SELECT relid FROM pg_partition_ancestors(relation)) a, unnest(bemi.table_rules(a.member, 'mask')) m) AS masked
  ), key AS (
    SELECT i.indexrelid, a.attname, k.place
    FROM pg_index i, unnest((i.indkey::int2[])[0:i.indnkeyatts - 1]) WITH ORDINALITY k (number, place) JOIN pg_attribute a ON a.attnum = k.number
    WHERE i.indrelid = relation AND a.attrelid = relation AND i.indexrelid = (
      SELECT x.indexrelid FROM pg_index x WHERE x.indrelid = relation AND (x.indisprimary AND x.indisvalid OR x.indisreplident) ORDER BY x.indisprimary DESC LIMIT 1)
  ), col AS (
    SELECT a.*, b.type, bemi.literal_kind(b.type) AS kind,
      (SELECT y.typname ~ '^_?(reg|xml$|money$)' FROM pg_type y WHERE y.oid = b.type) AS is_looked_up FROM pg_attribute a, LATERAL (SELECT bemi.base_type(a.atttypid) AS type) b
    WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped
  )
  SELECT jsonb_build_object(
    'relation', relation, 'oid', c.oid, 'name', format('%I.%I', n.nspname, c.relname),
    'source', CASE WHEN c.relhassubclass THEN 'ONLY ' ELSE '' END || format('%I.%I', n.nspname, c.relname),
    'key', COALESCE((SELECT jsonb_agg(attname ORDER BY place) FROM key), '[]'),
    'columns', (SELECT jsonb_object_agg(attname, jsonb_build_object(
      'place', attnum, 'type', CASE kind WHEN 'money' THEN 'numeric::money' ELSE format_type(type, -1) END, 'kind', kind, 'equality', bemi.equality(atttypid),
      'type_oid', type,
      'is_ignored', attname = ANY (ignored), 'is_not_null', attnotnull)) FROM col),
    'generated', ARRAY(SELECT attname FROM col WHERE attgenerated <> ''),
    'always', ARRAY(SELECT attname FROM col WHERE attidentity = 'a'),
    'masked', rules.masked,
    'compared', ARRAY(SELECT attname FROM col WHERE attname <> ALL (ignored) AND attname <> ALL (rules.masked) AND attgenerated <> 'v'),
    -- What is put into these may come out otherwise: rounded, or read by an input function that knows other values today. Those
    -- that are computed may be computed otherwise.
    'checked', ARRAY(SELECT attname FROM col WHERE attgenerated = '' AND (type <> atttypid OR atttypmod <> -1 OR type >= 16384 OR is_looked_up)),
    'looked_up', ARRAY(SELECT attname FROM col WHERE type >= 16384 OR is_looked_up),
    'computed', ARRAY(SELECT attname FROM col WHERE attgenerated = 's'),
    -- The log has these as text, whatever cast to json they have.
    'as_text', (SELECT string_agg(format(' || pg_catalog.jsonb_build_object(%L, t.%I::pg_catalog.text)', attname, attname), '') FROM col
      WHERE kind = 'plain' AND type >= 16384 AND EXISTS (SELECT FROM pg_cast WHERE castsource = type AND casttarget = 'json'::regtype AND castmethod = 'f')),
    'needs', bemi.links(relation, true), 'offers', bemi.links(relation, false),
    -- The row where jsonb cannot hold some of its values.
    'by_column', (SELECT format('(SELECT jsonb_object_agg(k, v) FROM (VALUES %s) e (k, v))', string_agg(format(
        CASE WHEN is_json THEN '(%L, bemi.jsonb_or_text(to_json(t.%I)))' ELSE '(%L, to_jsonb(t.%I))' END, attname, attname), ', '))
      FROM (SELECT attname, kind = 'made' OR type = 'json'::regtype AS is_json FROM col) c HAVING bool_or(is_json)),
    'references', bemi.silent_references(relation),
    -- Its columns had the names of today all the time.
    'is_as_ever', bemi.is_as_ever(relation::oid),
    'has_triggers', EXISTS (SELECT FROM pg_trigger WHERE tgrelid = relation AND NOT tgisinternal AND tgenabled <> 'D' AND tgfoid <> 'bemi.emit_context()'::regprocedure)
      OR c.relhasrules
  ) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, rules WHERE c.oid = relation
$$;

COMMENT ON FUNCTION bemi.undo_table(regclass) IS
'what is to be known of a table to undo its changes';
