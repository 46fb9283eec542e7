-- Masks hold by the name of a column and by its number, so that a column whose new name could not be written into the
-- rules stays masked. Tables that inherit from a table mask what it masks.

-- The rule contains the table's OID, because a table that is restored from a dump numbers its columns differently.
CREATE FUNCTION bemi.numbers_rule(relation regclass, masks text[]) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF masks = '{}' THEN
    RETURN NULL;
  END IF;
  RETURN (
    SELECT 'numbers=' || relation::oid || ':' || string_agg(a.attnum::text, ',' ORDER BY a.attnum)
    FROM pg_attribute a
    WHERE a.attrelid = relation
      AND a.attnum > 0
      AND NOT a.attisdropped
      AND a.attname::text = ANY (masks));
END
$$;

COMMENT ON FUNCTION bemi.numbers_rule(regclass, text[]) IS
'returns the rule that masks columns of a table by their numbers, or NULL if none';

-- Anyone may write anything into a rule: it may not be a number.
CREATE FUNCTION bemi.masked_attributes(relation regclass)
RETURNS TABLE (name name, number smallint, by_name boolean, by_number boolean)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT *
  FROM (
    SELECT a.attname, a.attnum, a.attname::text = ANY (r.names), a.attnum::text = ANY (r.numbers)
    FROM pg_attribute a, (
      SELECT bemi.table_rules(relation, 'mask'), ARRAY(
        SELECT ltrim(number, '0')
        FROM unnest(bemi.table_rules(relation, 'numbers')) rule,
          unnest(string_to_array(split_part(rule, ':', 2), ',')) number
        WHERE ltrim(split_part(rule, ':', 1), '0') = relation::oid::text)
    ) AS r (names, numbers)
    WHERE a.attrelid = relation
      AND a.attnum > 0
      AND NOT a.attisdropped
      AND (r.names <> '{}' OR r.numbers <> '{}')
  ) AS c (name, number, by_name, by_number)
  WHERE c.by_name OR c.by_number
$$;

COMMENT ON FUNCTION bemi.masked_attributes(regclass) IS
'returns the columns of a table that its rules mask, and whether they do by name or by number';

-- A name that no column has waits for such a column, unless it is the former name of a renamed column. Nobody knows
-- which name that is, so if there are more such names than renamed columns, all of them wait.
CREATE FUNCTION bemi.masks(relation regclass) RETURNS text[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  names text[] := bemi.table_rules(relation, 'mask');
  live text[];
  renamed text[];
BEGIN
  IF names = '{}' AND bemi.table_rules(relation, 'numbers') = '{}' THEN
    RETURN names;
  END IF;
  SELECT
    COALESCE(array_agg(m.name::text) FILTER (WHERE m.by_name), '{}'),
    COALESCE(array_agg(m.name::text ORDER BY m.number) FILTER (WHERE NOT m.by_name), '{}')
  INTO live, renamed
  FROM bemi.masked_attributes(relation) m;
  IF cardinality(names) - cardinality(live) <= cardinality(renamed) THEN
    names := ARRAY(
      SELECT n
      FROM unnest(names) WITH ORDINALITY AS o (n, place)
      WHERE n = ANY (live)
      ORDER BY place);
  END IF;
  RETURN names || renamed;
END
$$;

COMMENT ON FUNCTION bemi.masks(regclass) IS
'returns the columns that a table masks, by their present names, and the names that wait for a column';

-- All the way up. A partition has the rules of its tree.
CREATE FUNCTION bemi.parents(relation regclass) RETURNS SETOF regclass
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  WITH RECURSIVE above AS (
    SELECT i.inhparent
    FROM pg_inherits i
      JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhrelid = relation
      AND NOT c.relispartition
    UNION
    SELECT i.inhparent
    FROM above a
      JOIN pg_inherits i ON i.inhrelid = a.inhparent
  )
  SELECT inhparent::regclass FROM above
$$;

COMMENT ON FUNCTION bemi.parents(regclass) IS
'returns the tables from which a table inherits';

CREATE FUNCTION bemi.inherited_masks(relation regclass) RETURNS text[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  -- Most tables have no parent.
  IF NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = relation) THEN
    RETURN '{}';
  END IF;
  RETURN ARRAY(
    SELECT DISTINCT mask
    FROM bemi.parents(relation) p,
      unnest(bemi.masks(p)) mask
    ORDER BY mask);
END
$$;

COMMENT ON FUNCTION bemi.inherited_masks(regclass) IS
'returns the columns that are masked in the tables from which a table inherits';

-- Leaves the other rules as they are, including masks that wait for a column.
CREATE FUNCTION bemi.renew_masks(relation regclass) RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  SELECT bemi.track_one(relation, 'keep', bemi.table_rules(relation, 'ignore'), bemi.masks(relation))
$$;

COMMENT ON FUNCTION bemi.renew_masks(regclass) IS
'updates the names and numbers of masked columns, and inherited masks, in the rules of a tracked table';

CREATE FUNCTION bemi.mask_heirs(relation regclass, author oid DEFAULT NULL) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  role oid := COALESCE(author, (SELECT oid FROM pg_roles WHERE rolname = current_user));
  heir record;
BEGIN
  FOR heir IN
    WITH RECURSIVE below AS (
      SELECT relation::oid AS heir
      UNION
      SELECT i.inhrelid
      FROM below b
        JOIN pg_inherits i ON i.inhparent = b.heir
        JOIN pg_class c ON c.oid = i.inhrelid AND NOT c.relispartition
    )
    SELECT b.heir::regclass AS relation, pg_has_role(role, c.relowner, 'USAGE') AS is_owned
    FROM below b
      JOIN pg_class c ON c.oid = b.heir
    WHERE EXISTS (SELECT FROM bemi.context_triggers t WHERE t.relation = b.heir)
      AND NOT bemi.inherited_masks(b.heir::regclass) <@ bemi.masks(b.heir::regclass)
  LOOP
    IF heir.is_owned THEN
      PERFORM bemi.renew_masks(heir.relation);
    ELSE
      RAISE WARNING 'columns of % are not masked as in the tables that it inherits from, because you do not own it',
          heir.relation
        USING HINT = format('As its owner or a superuser: SELECT bemi.track_again(%L);', heir.relation);
    END IF;
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.mask_heirs(regclass, oid) IS
'masks what a table masks in the tracked tables that inherit from it';

-- Tracks a table again by its present rules, except for those that ignore columns that do not exist.
CREATE FUNCTION bemi.track_again(relation regclass, replica_identity text DEFAULT 'keep') RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  SELECT bemi.track_one(relation, replica_identity,
    ARRAY(
      SELECT attname::text
      FROM pg_attribute
      WHERE attrelid = relation
        AND attnum > 0
        AND NOT attisdropped
        AND attname::text = ANY (bemi.table_rules(relation, 'ignore'))
        AND attname NOT IN (SELECT bemi.key_columns(relation))),
    bemi.masks(relation))
  WHERE EXISTS (SELECT FROM bemi.context_triggers t WHERE t.relation = track_again.relation)
$$;

COMMENT ON FUNCTION bemi.track_again(regclass, text) IS
'tracks a table by its present rules, with another replica identity or without rules for columns that do not exist';
