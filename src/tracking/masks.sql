-- Masks hold by the name of a column and by its number, so that one whose new name could not be written into the rules
-- stays masked; and below a table from which others inherit.

-- The rule that says the numbers; with the table's OID, since what a dump makes of it has other numbers. NULL if none.
CREATE FUNCTION bemi.numbers_rule(relation regclass, masks text[]) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF masks = '{}' THEN
    RETURN NULL;
  END IF;
  RETURN (SELECT 'numbers=' || relation::oid || ':' || string_agg(a.attnum::text, ',' ORDER BY a.attnum)
    FROM pg_attribute a WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped AND a.attname::text = ANY (masks));
END
$$;

COMMENT ON FUNCTION bemi.numbers_rule(regclass, text[]) IS
'the rule that masks columns of a table by their numbers';

-- The columns that are masked, and whether by name or number. What anyone writes into a rule may be no number that we have.
CREATE FUNCTION bemi.masked_attributes(relation regclass) RETURNS TABLE (name name, number smallint, by_name boolean, by_number boolean)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT * FROM (
    SELECT a.attname, a.attnum, a.attname::text = ANY (r.names), a.attnum::text = ANY (r.numbers) FROM pg_attribute a, (
      SELECT bemi.table_rules(relation, 'mask'), ARRAY(
        SELECT ltrim(number, '0') FROM unnest(bemi.table_rules(relation, 'numbers')) rule, unnest(string_to_array(split_part(rule, ':', 2), ',')) number
        WHERE ltrim(split_part(rule, ':', 1), '0') = relation::oid::text)
    ) AS r (names, numbers)
    WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped AND (r.names <> '{}' OR r.numbers <> '{}')
  ) AS c (name, number, by_name, by_number) WHERE c.by_name OR c.by_number
$$;

COMMENT ON FUNCTION bemi.masked_attributes(regclass) IS
'the columns of a table that its rules mask, by name or by number';

-- The masks by today's names. A name that no column has waits for one, unless it is that of a column which has another name
-- now: which one that is nobody knows, so if there are more of such names, all of them wait.
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
  SELECT COALESCE(array_agg(m.name::text) FILTER (WHERE m.by_name), '{}'), COALESCE(array_agg(m.name::text ORDER BY m.number) FILTER (WHERE NOT m.by_name), '{}')
  INTO live, renamed FROM bemi.masked_attributes(relation) m;
  IF cardinality(names) - cardinality(live) <= cardinality(renamed) THEN
    names := ARRAY(SELECT n FROM unnest(names) WITH ORDINALITY AS o (n, place) WHERE n = ANY (live) ORDER BY place);
  END IF;
  RETURN names || renamed;
END
$$;

COMMENT ON FUNCTION bemi.masks(regclass) IS
'the columns that a table masks, by the names that they have now, and the names that wait for a column';

-- The tables that a table inherits from, all the way up. A partition has the rules of its tree.
CREATE FUNCTION bemi.parents(relation regclass) RETURNS SETOF regclass
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  WITH RECURSIVE above AS (
    SELECT i.inhparent FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhrelid = relation AND NOT c.relispartition
    UNION SELECT i.inhparent FROM above a JOIN pg_inherits i ON i.inhrelid = a.inhparent
  ) SELECT inhparent::regclass FROM above
$$;

COMMENT ON FUNCTION bemi.parents(regclass) IS
'the tables that a table inherits from';

CREATE FUNCTION bemi.inherited_masks(relation regclass) RETURNS text[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  -- Most tables inherit from none.
  IF NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = relation) THEN
    RETURN '{}';
  END IF;
  RETURN ARRAY(SELECT DISTINCT mask FROM bemi.parents(relation) p, unnest(bemi.masks(p)) mask ORDER BY mask);
END
$$;

COMMENT ON FUNCTION bemi.inherited_masks(regclass) IS
'the columns that the tables mask from which a table inherits';

-- Brings the rules that mask up to date, and leaves the others, those that wait for a column too.
CREATE FUNCTION bemi.renew_masks(relation regclass) RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  SELECT bemi.track_one(relation, 'keep', bemi.table_rules(relation, 'ignore'), bemi.masks(relation))
$$;

COMMENT ON FUNCTION bemi.renew_masks(regclass) IS
'writes the names, the numbers and the inherited ones of the columns that a tracked table masks into its rules';

-- Has the tracked tables that inherit from a table, and itself, mask what those above them mask.
CREATE FUNCTION bemi.mask_heirs(relation regclass, author oid DEFAULT NULL) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  role oid := COALESCE(author, (SELECT oid FROM pg_roles WHERE rolname = current_user));
  heir record;
BEGIN
  FOR heir IN
    WITH RECURSIVE below AS (
      SELECT relation::oid AS heir UNION SELECT i.inhrelid FROM below b JOIN pg_inherits i ON i.inhparent = b.heir JOIN pg_class c ON c.oid = i.inhrelid AND NOT c.relispartition
    ) SELECT b.heir::regclass AS relation, pg_has_role(role, c.relowner, 'USAGE') AS is_owned FROM below b JOIN pg_class c ON c.oid = b.heir
    WHERE EXISTS (SELECT FROM bemi.context_triggers t WHERE t.relation = b.heir)
      AND NOT bemi.inherited_masks(b.heir::regclass) <@ bemi.masks(b.heir::regclass)
  LOOP
    IF heir.is_owned THEN
      PERFORM bemi.renew_masks(heir.relation);
    ELSE
      RAISE WARNING 'columns of %, which you do not own, are not masked as in the tables that it inherits from', heir.relation USING
        HINT = format('As its owner or a superuser: SELECT bemi.track_again(%L);', heir.relation);
    END IF;
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.mask_heirs(regclass, oid) IS
'has the tracked tables that inherit from a table mask what it masks';

-- The tables above a tracked one that statements may name, and that are not tracked: of partitions up to the root, and those
-- that a table inherits from. Foreign tables cannot be tracked.
CREATE FUNCTION bemi.untracked_above(relation regclass) RETURNS SETOF regclass
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  above regclass;
BEGIN
  FOR above IN SELECT a.relid FROM pg_class c, pg_partition_ancestors(relation) a (relid) WHERE c.oid = relation AND c.relispartition
    UNION SELECT p FROM bemi.parents(relation) p
  LOOP
    IF NOT EXISTS (SELECT FROM bemi.context_triggers t WHERE t.relation = above)
      AND EXISTS (SELECT FROM pg_class c WHERE c.oid = above AND c.relkind IN ('r', 'p'))
    THEN
      RETURN NEXT above;
    END IF;
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.untracked_above(regclass) IS
'the tables above a partition or a table that inherits which are not tracked';

-- The tables that inherit from a table, by itself or through others, and are not tracked; those aside that cannot be, and partitions.
CREATE FUNCTION bemi.untracked_heirs(relation regclass) RETURNS SETOF regclass
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  -- Nearly always.
  IF NOT EXISTS (SELECT FROM pg_inherits WHERE inhparent = relation) OR (SELECT relkind = 'p'::"char" FROM pg_class WHERE oid = relation) THEN
    RETURN;
  END IF;
  RETURN QUERY
    WITH RECURSIVE below AS (
      SELECT relation::oid AS heir UNION SELECT i.inhrelid FROM below b JOIN pg_inherits i ON i.inhparent = b.heir
    ) SELECT c.oid::regclass FROM below b JOIN pg_class c ON c.oid = b.heir
    WHERE b.heir <> relation::oid AND c.relkind = 'r'::"char" AND c.relpersistence = 'p'::"char"
      AND NOT EXISTS (SELECT FROM bemi.context_triggers t WHERE t.relation = b.heir) ORDER BY c.oid;
END
$$;

COMMENT ON FUNCTION bemi.untracked_heirs(regclass) IS
'the tables that inherit from a table which are not tracked';

-- Whether a table was made with rows, which are not in the log as changes of it.
CREATE FUNCTION bemi.was_made_with_rows(relation regclass) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN has_table_privilege('bemi.table_versions', 'SELECT')
    AND EXISTS (SELECT FROM bemi.table_versions v WHERE v.relation = was_made_with_rows.relation AND v.is_made_with_rows);
END
$$;

COMMENT ON FUNCTION bemi.was_made_with_rows(regclass) IS
'whether CREATE TABLE AS or SELECT INTO made a tracked table';

-- Tracks a table again by the rules that it has, but for those that ignore columns that are not there.
CREATE FUNCTION bemi.track_again(relation regclass, replica_identity text DEFAULT 'keep') RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  SELECT bemi.track_one(relation, replica_identity,
    ARRAY(SELECT attname::text FROM pg_attribute WHERE attrelid = relation AND attnum > 0 AND NOT attisdropped
      AND attname::text = ANY (bemi.table_rules(relation, 'ignore')) AND attname NOT IN (SELECT bemi.key_columns(relation))),
    bemi.masks(relation))
  WHERE EXISTS (SELECT FROM bemi.context_triggers t WHERE t.relation = track_again.relation)
$$;

COMMENT ON FUNCTION bemi.track_again(regclass, text) IS
'tracks a table by the rules that it has, with another replica identity or without rules that ignore nothing';

CREATE VIEW bemi.tracked AS
SELECT
  c.oid::regclass AS relation,
  CASE c.relreplident WHEN 'f' THEN 'full' WHEN 'n' THEN 'nothing' WHEN 'i' THEN 'index' ELSE 'default' END AS replica_identity,
  bemi.table_rules(c.oid::regclass, 'ignore')::name[] AS ignore_columns,
  bemi.masks(c.oid::regclass)::name[] AS mask_columns,
  ARRAY(
    SELECT CASE WHEN t.enabled = 'D' THEN 'the trigger is disabled'
        WHEN t.enabled = 'R' THEN 'the trigger fires only for replicated changes'
        WHEN t.name <> 'bemi_context' THEN pg_catalog.format('another trigger, %I, writes the context', t.name)
        WHEN NOT t.is_whole THEN 'a trigger that does not fire before every statement writes the context' END AS problem
      FROM bemi.context_triggers t WHERE t.relation = c.oid AND NOT (t.is_whole AND t.name = 'bemi_context' AND t.enabled IN ('O', 'A'))
    UNION ALL SELECT pg_catalog.format('there is no column %I to %s', value, kind)
      FROM pg_catalog.unnest('{ignore,mask}'::text[]) kind,
        pg_catalog.unnest(CASE kind WHEN 'mask' THEN bemi.masks(c.oid::regclass) ELSE bemi.table_rules(c.oid::regclass, kind) END) value
      WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attname = value AND a.attnum > 0 AND NOT a.attisdropped)
    UNION ALL SELECT pg_catalog.format('the rule %L has no meaning', value)
      FROM pg_catalog.unnest(bemi.table_rules(c.oid::regclass, 'unknown')) value
    UNION ALL SELECT pg_catalog.format('the column %I to %s belongs to the key', value, kind)
      FROM pg_catalog.unnest('{ignore,mask}'::text[]) kind,
        pg_catalog.unnest(CASE kind WHEN 'mask' THEN bemi.masks(c.oid::regclass) ELSE bemi.table_rules(c.oid::regclass, kind) END) value
      WHERE value IN (SELECT bemi.key_columns(c.oid::regclass))
    UNION ALL SELECT CASE WHEN bemi.identity_index(c.oid::regclass) IS NULL THEN 'the log does not say which rows are updated or deleted'
        ELSE 'the log has only the key of a row before its change' END
      WHERE c.relreplident <> 'f' AND c.relkind = 'r'
    UNION ALL SELECT 'ignored columns are not ignored, since the log has not the whole row before a change'
      WHERE c.relreplident <> 'f' AND c.relkind = 'r' AND pg_catalog.cardinality(bemi.table_rules(c.oid::regclass, 'ignore')) > 0
    UNION ALL SELECT pg_catalog.format('the partition %s is not tracked', p)
      FROM bemi.tree(c.oid::regclass) p
      WHERE c.relkind = 'p' AND NOT EXISTS (SELECT FROM bemi.context_triggers o WHERE o.relation = p)
    UNION ALL SELECT pg_catalog.format(CASE WHEN m.by_number THEN 'the rules do not name the column %I, which is masked by its number'
        ELSE 'the column %I is masked by its name alone' END, m.name)
      FROM bemi.masked_attributes(c.oid::regclass) m WHERE NOT (m.by_name AND m.by_number)
    UNION ALL SELECT pg_catalog.format('%I is masked in a table that it inherits from', mask)
      FROM pg_catalog.unnest(bemi.inherited_masks(c.oid::regclass)) mask WHERE mask <> ALL (bemi.masks(c.oid::regclass))
    UNION ALL SELECT pg_catalog.format('statements that name %s bring no context, since it is not tracked', a)
      FROM bemi.untracked_above(c.oid::regclass) a
    UNION ALL SELECT pg_catalog.format('the table %s, which inherits from it, is not tracked', h)
      FROM bemi.untracked_heirs(c.oid::regclass) h
    UNION ALL SELECT 'the log shows no changes that made the rows that it was made with'
      WHERE bemi.was_made_with_rows(c.oid::regclass)
    UNION ALL SELECT pg_catalog.format('the publication %I has UPDATE and DELETE fail: %s', p.publication, p.reason)
      FROM bemi.identity_conflict(c.oid::regclass, bemi.identity(c.oid::regclass)) p
    ORDER BY problem
  ) AS missing,
  (SELECT pg_catalog.format('the trigger was dropped by %I at %s%s', d.dropped_by, d.dropped_at, CASE WHEN d.is_back THEN ', and put back at once' ELSE '' END)
    FROM bemi.dropped_triggers d WHERE d.relation = c.oid) AS dropped
FROM pg_catalog.pg_class c WHERE c.oid IN (SELECT t.relation FROM bemi.context_triggers t);

GRANT SELECT ON bemi.tracked TO PUBLIC;

COMMENT ON VIEW bemi.tracked IS
'the tables whose changes carry the context, their rules, and what is missing';
