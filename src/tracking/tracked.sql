-- The view bemi.tracked: the tracked tables, their rules, and what is missing.

-- The untracked tables above a tracked one that statements may name: of partitions up to the root, and those from
-- which a table inherits. Foreign tables cannot be tracked.
CREATE FUNCTION bemi.untracked_above(relation regclass) RETURNS SETOF regclass
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  above regclass;
BEGIN
  FOR above IN
    SELECT a.relid
    FROM pg_class c,
      pg_partition_ancestors(relation) a (relid)
    WHERE c.oid = relation
      AND c.relispartition
    UNION
    SELECT p FROM bemi.parents(relation) p
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
'returns the untracked tables above a partition or above a table that inherits';

-- Directly or through others, except for partitions and tables that cannot be tracked.
CREATE FUNCTION bemi.untracked_heirs(relation regclass) RETURNS SETOF regclass
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  -- Nearly always.
  IF NOT EXISTS (SELECT FROM pg_inherits WHERE inhparent = relation)
    OR (SELECT relkind = 'p'::"char" FROM pg_class WHERE oid = relation)
  THEN
    RETURN;
  END IF;
  RETURN QUERY
    WITH RECURSIVE below AS (
      SELECT relation::oid AS heir
      UNION
      SELECT i.inhrelid
      FROM below b
        JOIN pg_inherits i ON i.inhparent = b.heir
    )
    SELECT c.oid::regclass
    FROM below b
      JOIN pg_class c ON c.oid = b.heir
    WHERE b.heir <> relation::oid
      AND c.relkind = 'r'::"char"
      AND c.relpersistence = 'p'::"char"
      AND NOT EXISTS (SELECT FROM bemi.context_triggers t WHERE t.relation = b.heir)
    ORDER BY c.oid;
END
$$;

COMMENT ON FUNCTION bemi.untracked_heirs(regclass) IS
'returns the untracked tables that inherit from a table';

-- Such rows are not in WAL as changes of the table.
CREATE FUNCTION bemi.was_made_with_rows(relation regclass) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN has_table_privilege('bemi.table_versions', 'SELECT')
    AND EXISTS (
      SELECT FROM bemi.table_versions v WHERE v.relation = was_made_with_rows.relation AND v.is_made_with_rows);
END
$$;

COMMENT ON FUNCTION bemi.was_made_with_rows(regclass) IS
'returns whether CREATE TABLE AS or SELECT INTO created a tracked table with rows';

CREATE VIEW bemi.tracked AS
SELECT
  c.oid::regclass AS relation,
  CASE c.relreplident
    WHEN 'f' THEN 'full'
    WHEN 'n' THEN 'nothing'
    WHEN 'i' THEN 'index'
    ELSE 'default'
  END AS replica_identity,
  bemi.table_rules(c.oid::regclass, 'ignore')::name[] AS ignore_columns,
  bemi.masks(c.oid::regclass)::name[] AS mask_columns,
  ARRAY(
    SELECT CASE
        WHEN t.enabled = 'D' THEN 'the trigger is disabled'
        WHEN t.enabled = 'R' THEN 'the trigger fires only for replicated changes'
        WHEN t.name <> 'bemi_context' THEN pg_catalog.format('another trigger, %I, writes the context', t.name)
        WHEN NOT t.is_whole THEN 'a trigger that does not fire before every statement writes the context'
      END AS problem
    FROM bemi.context_triggers t
    WHERE t.relation = c.oid
      AND NOT (t.is_whole AND t.name = 'bemi_context' AND t.enabled IN ('O', 'A'))
    UNION ALL
    SELECT pg_catalog.format('there is no column %I to %s', value, kind)
    FROM pg_catalog.unnest('{ignore,mask}'::text[]) kind,
      pg_catalog.unnest(CASE kind
        WHEN 'mask' THEN bemi.masks(c.oid::regclass)
        ELSE bemi.table_rules(c.oid::regclass, kind) END) value
    WHERE NOT EXISTS (
      SELECT FROM pg_catalog.pg_attribute a
      WHERE a.attrelid = c.oid
        AND a.attname = value
        AND a.attnum > 0
        AND NOT a.attisdropped)
    UNION ALL
    SELECT pg_catalog.format('the rule %L is unknown', value)
    FROM pg_catalog.unnest(bemi.table_rules(c.oid::regclass, 'unknown')) value
    UNION ALL
    SELECT pg_catalog.format('the column %I to %s belongs to the key', value, kind)
    FROM pg_catalog.unnest('{ignore,mask}'::text[]) kind,
      pg_catalog.unnest(CASE kind
        WHEN 'mask' THEN bemi.masks(c.oid::regclass)
        ELSE bemi.table_rules(c.oid::regclass, kind) END) value
    WHERE value IN (SELECT bemi.key_columns(c.oid::regclass))
    UNION ALL
    SELECT CASE WHEN bemi.identity_index(c.oid::regclass) IS NULL
      THEN 'WAL does not identify the rows that are updated or deleted'
      ELSE 'WAL contains only the key of a row before its change' END
    WHERE c.relreplident <> 'f'
      AND c.relkind = 'r'
    UNION ALL
    SELECT 'ignored columns are not ignored, because WAL does not contain the whole row before a change'
    WHERE c.relreplident <> 'f'
      AND c.relkind = 'r'
      AND pg_catalog.cardinality(bemi.table_rules(c.oid::regclass, 'ignore')) > 0
    UNION ALL
    SELECT pg_catalog.format('the partition %s is not tracked', p)
    FROM bemi.tree(c.oid::regclass) p
    WHERE c.relkind = 'p'
      AND NOT EXISTS (SELECT FROM bemi.context_triggers o WHERE o.relation = p)
    UNION ALL
    SELECT pg_catalog.format(CASE WHEN m.by_number
      THEN 'the rules do not name the column %I, which is masked by its number'
      ELSE 'the column %I is masked only by its name' END, m.name)
    FROM bemi.masked_attributes(c.oid::regclass) m
    WHERE NOT (m.by_name AND m.by_number)
    UNION ALL
    SELECT pg_catalog.format('%I is masked in a table that it inherits from', mask)
    FROM pg_catalog.unnest(bemi.inherited_masks(c.oid::regclass)) mask
    WHERE mask <> ALL (bemi.masks(c.oid::regclass))
    UNION ALL
    SELECT pg_catalog.format('statements that name %s carry no context, because it is not tracked', a)
    FROM bemi.untracked_above(c.oid::regclass) a
    UNION ALL
    SELECT pg_catalog.format('the table %s, which inherits from it, is not tracked', h)
    FROM bemi.untracked_heirs(c.oid::regclass) h
    UNION ALL
    SELECT 'WAL contains no changes that created its first rows'
    WHERE bemi.was_made_with_rows(c.oid::regclass)
    UNION ALL
    SELECT pg_catalog.format('the publication %I makes UPDATE and DELETE fail: %s', p.publication, p.reason)
    FROM bemi.identity_conflict(c.oid::regclass, bemi.identity(c.oid::regclass)) p
    ORDER BY problem
  ) AS missing,
  (
    SELECT pg_catalog.format('the trigger was dropped by %I at %s%s', d.dropped_by, d.dropped_at,
      CASE WHEN d.is_back THEN ', and created again at once' ELSE '' END)
    FROM bemi.dropped_triggers d
    WHERE d.relation = c.oid
  ) AS dropped
FROM pg_catalog.pg_class c
WHERE c.oid IN (SELECT t.relation FROM bemi.context_triggers t);

GRANT SELECT ON bemi.tracked TO PUBLIC;

COMMENT ON VIEW bemi.tracked IS
'the tables whose changes carry the context, their rules, and what is missing';
