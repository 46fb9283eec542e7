-- Foreign keys, as far as undoing changes has to do with them.

-- Returns the foreign keys that refer to a table and would change other rows as well, or are checked later: the ones
-- that fail at once do so by themselves. The triggers of a key do its work: one that is NOT ENFORCED has none, and
-- disabled ones do nothing. One that is NOT VALID acts on the rows that do refer.
CREATE FUNCTION bemi.silent_references(relation regclass) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT COALESCE(jsonb_agg(jsonb_build_object(
    'name', quote_ident(k.conname),
    'child', k.conrelid::regclass,
    'on_delete', CASE WHEN acts.on_delete THEN k.confdeltype ELSE '-' END,
    'on_update', CASE WHEN acts.on_update THEN k.confupdtype ELSE '-' END,
    'is_deferred', k.condeferred,
    'source', format('%I.%I', n.nspname, c.relname),
    'columns', (
      SELECT jsonb_agg(a.attname)
      FROM pg_attribute a
      WHERE a.attrelid = k.confrelid AND a.attnum = ANY (k.confkey)),
    'child_columns', (
      SELECT jsonb_agg(a.attname)
      FROM pg_attribute a
      WHERE a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey)),
    'join', (
      SELECT string_agg(
        format('parent.%I OPERATOR(%I.%s) child.%I', p.attname, s.nspname, o.oprname, f.attname), ' AND ')
      FROM unnest(k.confkey, k.conkey, k.conpfeqop) u (parent, child, operator)
        JOIN pg_attribute p ON p.attrelid = k.confrelid AND p.attnum = u.parent
        JOIN pg_attribute f ON f.attrelid = k.conrelid AND f.attnum = u.child
        JOIN pg_operator o ON o.oid = u.operator
        JOIN pg_namespace s ON s.oid = o.oprnamespace)
  ) ORDER BY k.conname, k.oid), '[]')
  FROM pg_constraint k
    JOIN pg_class c ON c.oid = k.conrelid
    JOIN pg_namespace n ON n.oid = c.relnamespace,
    LATERAL (
      SELECT bool_or(g.tgtype & 8 <> 0) AS on_delete, bool_or(g.tgtype & 16 <> 0) AS on_update
      FROM pg_trigger g
      WHERE g.tgconstraint = k.oid AND g.tgrelid = relation AND g.tgenabled IN ('O', 'A')
    ) acts
  WHERE k.contype = 'f'
    AND k.confrelid = relation
    AND (acts.on_delete OR acts.on_update)
    AND (k.confdeltype IN ('c', 'n', 'd') OR k.confupdtype IN ('c', 'n', 'd') OR k.condeferred)
    -- Not again for each partition that refers.
    AND NOT EXISTS (SELECT FROM pg_constraint p WHERE p.oid = k.conparentid AND p.confrelid = k.confrelid)
$$;

COMMENT ON FUNCTION bemi.silent_references(regclass) IS
'the foreign keys that refer to a table and would change other rows, or are checked later';

-- Returns the columns that refer to rows (of a partitioned table as a whole) and the columns that they refer to, or the
-- other way round.
CREATE FUNCTION bemi.links(relation regclass, is_child boolean) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT COALESCE(jsonb_agg(DISTINCT jsonb_build_object(
    'name', concat(COALESCE(pg_partition_root(k.confrelid), k.confrelid)::oid, names),
    'columns', columns)), '[]')
  FROM pg_constraint k,
    LATERAL (
      SELECT jsonb_agg(p.attname ORDER BY p.attname) AS names,
        jsonb_agg(CASE WHEN is_child THEN c.attname ELSE p.attname END ORDER BY p.attname) AS columns
      FROM unnest(k.conkey, k.confkey) u (child, parent)
        JOIN pg_attribute c ON c.attrelid = k.conrelid AND c.attnum = u.child
        JOIN pg_attribute p ON p.attrelid = k.confrelid AND p.attnum = u.parent
    ) pairs
  WHERE k.contype = 'f'
    -- Before 18 all are enforced.
    AND COALESCE((to_jsonb(k) ->> 'conenforced')::boolean, true)
    AND CASE WHEN is_child THEN k.conrelid ELSE k.confrelid END = relation
$$;

COMMENT ON FUNCTION bemi.links(regclass, boolean) IS
'the columns by which the rows of a table refer to others, or by which others refer to them';

-- Returns names of what the foreign keys of a row refer to, or of what others refer to it by.
CREATE FUNCTION bemi.linked(links jsonb, image jsonb) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT ARRAY(
    SELECT concat(l ->> 'name', (
      SELECT jsonb_agg(image ->> c ORDER BY place)
      FROM jsonb_array_elements_text(l -> 'columns') WITH ORDINALITY e (c, place)))
    FROM jsonb_array_elements(links) l)
$$;

COMMENT ON FUNCTION bemi.linked(jsonb, jsonb) IS
'names of the rows that a row refers to by these links';
