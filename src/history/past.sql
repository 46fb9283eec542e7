-- What is known of the past of a table, and what is not.

-- Everything is recorded from then on.
CREATE FUNCTION bemi.recorded_since() RETURNS timestamptz
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO' SET timezone = 'UTC' AS $$
BEGIN
  IF to_regclass('bemi.recorder') IS NULL OR to_regclass('bemi.changes') IS NULL THEN
    RETURN NULL;
  END IF;
  PERFORM bemi.require_readable();
  -- The retention drops the oldest partitions.
  RETURN greatest(
    (SELECT r.since FROM bemi.recorder r),
    (SELECT min(substring(pg_get_expr(c.relpartbound, c.oid) FROM 'FROM [(]''([^'']+)''[)]')::timestamptz)
     FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'bemi.changes'::regclass));
END
$$;

COMMENT ON FUNCTION bemi.recorded_since() IS
'since when changes are in bemi.changes, or NULL if they never were';

CREATE FUNCTION bemi.recorded_position() RETURNS pg_lsn
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM bemi.require_readable();
  RETURN CASE WHEN to_regclass('bemi.recorder') IS NOT NULL THEN (SELECT '0/0'::pg_lsn + bemi.place(COALESCE(r.source, 1), r.commit_position)::numeric FROM bemi.recorder r) END;
END
$$;

COMMENT ON FUNCTION bemi.recorded_position() IS
'where the last change committed that this snapshot sees in bemi.changes, as bemi.place() counts';

CREATE FUNCTION bemi.require_select(relation regclass) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF pg_is_in_recovery() THEN
    RAISE EXCEPTION 'the past of % cannot be read on a standby, which does not know how much of it is recorded', relation USING
      ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Ask on the primary. bemi.changes, with what is recorded, can be read here too.';
  ELSIF NOT has_table_privilege(relation, 'SELECT') THEN
    RAISE EXCEPTION 'permission denied for table %', relation USING ERRCODE = 'insufficient_privilege';
  ELSIF to_regclass('bemi.changes') IS NULL THEN
    RAISE EXCEPTION 'the changes of this database are not recorded' USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'SELECT bemi.start();';
  ELSIF NOT has_table_privilege('bemi.changes', 'SELECT') THEN
    RAISE EXCEPTION 'permission denied for table bemi.changes' USING
      ERRCODE = 'insufficient_privilege', HINT = format('As its owner: GRANT SELECT ON bemi.changes TO %I;', current_user);
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.require_select(regclass) IS
'raises an error if the caller may not read a table and bemi.changes';

-- The table of a row type.
CREATE FUNCTION bemi.table_of_type(type regtype) RETURNS regclass
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  relation regclass := (SELECT c.oid FROM pg_type t JOIN pg_class c ON c.oid = t.typrelid AND c.relkind IN ('r', 'p') WHERE t.oid = type);
BEGIN
  IF relation IS NULL THEN
    RAISE EXCEPTION 'the type % is no row type of a table', type USING
      ERRCODE = 'wrong_object_type', HINT = 'Name the table by a row of it, as in bemi.as_of(NULL::public.todo, now()).';
  END IF;
  RETURN relation;
END
$$;

COMMENT ON FUNCTION bemi.table_of_type(regtype) IS
'the table whose rows have a type';

-- The tables that hold the rows of a table.
CREATE FUNCTION bemi.leaves(relation regclass) RETURNS oid[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE relkind WHEN 'p' THEN ARRAY(SELECT relid::oid FROM pg_partition_tree(relation) WHERE isleaf ORDER BY relid::oid) ELSE ARRAY[oid] END
  FROM pg_class WHERE oid = relation
$$;

COMMENT ON FUNCTION bemi.leaves(regclass) IS
'a table itself, or the partitions of a partitioned one that have no partitions';

-- The columns that name a row, in the order of `primary_key`, with how to read and compare them; an error if there are none.
-- `opening` and `closing` stand around a text to make a value of it, and `free` instead of `closing` to make it as it is written,
-- not rounded or cut as the column would have it; `comparison` is the condition that a column and such a value are equal, as a format.
-- `type` is the base type; `has_one_text` says whether equal values of it have the same text.
CREATE FUNCTION bemi.key_of(relation regclass) RETURNS TABLE (
  place int, name name, number smallint, opening text, closing text, comparison text, type oid, free text, has_one_text boolean
)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  leaf oid;
  keys text[];
  index oid;
  count int;
  implicit record;
BEGIN
  -- Without partitions, the table's own.
  FOREACH leaf IN ARRAY COALESCE(NULLIF(bemi.leaves(relation), '{}'), ARRAY[relation::oid]) LOOP
    index := (SELECT i.indexrelid FROM pg_index i WHERE i.indrelid = leaf AND (i.indisprimary AND i.indisvalid OR i.indexrelid = bemi.identity_index(leaf::regclass)) ORDER BY i.indisprimary DESC LIMIT 1);
    IF index IS NULL THEN
      RAISE EXCEPTION 'the table % has no primary key: nothing tells which of its rows a change is about', leaf::regclass USING
        ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Give it a primary key; its past can be read from then on.';
    END IF;
    keys := keys || (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY k.place) FROM pg_index i, unnest((i.indkey::int2[])[0:i.indnkeyatts - 1]) WITH ORDINALITY AS k (number, place)
      JOIN pg_attribute a ON a.attnum = k.number WHERE i.indexrelid = index AND a.attrelid = leaf);
  END LOOP;
  IF EXISTS (SELECT FROM pg_index i, unnest(i.indkey::int2[]) k (number) JOIN pg_attribute a ON a.attnum = k.number JOIN pg_type t ON t.oid = a.atttypid
    WHERE i.indexrelid = index AND a.attrelid = leaf AND (t.typcategory IN ('A', 'C') OR t.typname IN ('json', 'jsonb')))
  THEN
    RAISE EXCEPTION 'the key of % has a column of an array, a composite type or jsonb', relation USING
      ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Its past cannot be read by such a key; bemi.changes has what is recorded.';
  END IF;
  -- An implicit cast can lead the comparison of two ranges to another operator, by way of the cast's function.
  SELECT format_type(k.castsource, NULL::int4) AS source, format_type(k.casttarget, NULL::int4) AS target INTO implicit
  FROM pg_index i, unnest(i.indkey::int2[]) u (number) JOIN pg_attribute a ON a.attnum = u.number CROSS JOIN LATERAL bemi.base_type(a.atttypid) AS b (type)
  JOIN pg_type t ON t.oid = b.type JOIN pg_cast k ON k.castsource = t.oid
  WHERE i.indexrelid = index AND a.attrelid = leaf AND t.typtype = ANY ('{r,m}'::"char"[]) AND t.oid >= 16384::oid AND k.castcontext = 'i'::"char" LIMIT 1;
  IF implicit.source IS NOT NULL THEN
    RAISE EXCEPTION 'the key of % has a column of the type %, which has an implicit cast', relation, implicit.source USING
      ERRCODE = 'object_not_in_prerequisite_state', HINT = format('DROP CAST (%s AS %s);', implicit.source, implicit.target);
  END IF;
  IF (SELECT count(DISTINCT k) FROM unnest(keys) k) > 1 THEN
    RAISE EXCEPTION 'the partitions of % have different keys', relation USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Read the past of each partition by itself.';
  END IF;
  RETURN QUERY
    SELECT k.place::int, own.attname, own.attnum,
      -- What is PostgreSQL's own has no casts of others.
      CASE WHEN t.is_own THEN 'CAST('::text ELSE 'bemi.key_value('::text END,
      CASE WHEN t.is_own THEN ' AS '::text ELSE ', NULL::'::text END || format_type(t.type, CASE WHEN t.type = own.atttypid THEN own.atttypmod ELSE -1 END) || ')'::text || t.collation,
      o.comparison, t.type, CASE WHEN t.is_own THEN ' AS '::text ELSE ', NULL::'::text END || format_type(t.type, -1) || ')'::text || t.collation,
      t.has_one_text
    FROM pg_index i, unnest((i.indkey::int2[])[0:i.indnkeyatts - 1], i.indclass::oid[]) WITH ORDINALITY AS k (number, class, place)
    JOIN pg_attribute a ON a.attnum = k.number JOIN pg_attribute own ON own.attname = a.attname AND own.attrelid = relation
    CROSS JOIN LATERAL (SELECT b.type, b.type < 16384::oid AS is_own, CASE WHEN co.oid IS NULL THEN ''::text ELSE format(' COLLATE %I.%I', n.nspname, co.collname) END AS collation,
        y.typname = ANY ('{int2,int4,int8,oid,bool,uuid,bytea,date,time,timestamp,timestamptz,inet,cidr,macaddr,macaddr8,bit,varbit,pg_lsn,xid8,money,char,name,text,varchar}'::name[])
          AND b.type < 16384::oid AND COALESCE(co.collisdeterministic, true) OR y.typtype = 'e'::"char" AS has_one_text
      FROM bemi.base_type(own.atttypid) AS b (type) JOIN pg_type y ON y.oid = b.type
      LEFT JOIN pg_collation co ON co.oid = own.attcollation LEFT JOIN pg_namespace n ON n.oid = co.collnamespace) t
    CROSS JOIN LATERAL (SELECT CASE c.opcintype WHEN 'anyenum'::regtype::oid THEN 'bemi.enum_number(%1$s) OPERATOR(pg_catalog.=) bemi.enum_number(%2$s'::text || x.exactly || ')'::text
        -- Beside an operator of an extension others may have put one that fits the types of the columns better.
        ELSE '%1$s'::text || x.exactly || format(' OPERATOR(%I.%s) ', n.nspname, o.oprname) || '%2$s'::text || x.exactly END AS comparison
      FROM pg_opclass c JOIN pg_amop m ON m.amopfamily = c.opcfamily AND m.amopstrategy = 3
        AND m.amoplefttype = c.opcintype AND m.amoprighttype = c.opcintype JOIN pg_operator o ON o.oid = m.amopopr JOIN pg_namespace n ON n.oid = o.oprnamespace
      CROSS JOIN LATERAL (SELECT CASE WHEN n.nspname <> 'pg_catalog'::name THEN '::'::text || replace(format_type(c.opcintype, -1), '%'::text, '%%'::text)
        WHEN t.is_own OR t.type = own.atttypid THEN ''::text ELSE '::'::text || replace(format_type(t.type, -1), '%'::text, '%%'::text) END AS exactly) x
        WHERE c.oid = k.class) o
    WHERE i.indexrelid = index AND a.attrelid = leaf AND k.number IS NOT NULL ORDER BY k.place;
END
$$;

COMMENT ON FUNCTION bemi.key_of(regclass) IS
'the columns that name a row of a table, and in SQL how to read and compare them';

-- The names under which bemi.changes has the changes of a table and its partitions. What a partition was before it came into
-- the tree, empty, is not counted.
CREATE FUNCTION bemi.recorded_tree(base regclass) RETURNS TABLE (relation oid, schema text, "table" text, since bigint, until bigint)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  leaves oid[] := bemi.leaves(base);
  top oid := pg_partition_root(base);
BEGIN
  RETURN QUERY
    WITH came AS MATERIALIZED (
      SELECT v.relation, max(bemi.place(v.source, v.position)) AS place FROM (
        SELECT *, lag(v.root) OVER (PARTITION BY v.relation ORDER BY v.source, v.position) AS root_before FROM bemi.table_versions v
        WHERE v.relation = ANY (leaves) AND v.relation <> base
      ) v WHERE v.is_empty AND v.root_before <> v.root AND v.root = top GROUP BY 1
    )
    SELECT n.relation, n.schema, n."table", greatest(n.since, c.place), n.until
    FROM bemi.recorded_names(leaves) n LEFT JOIN came c ON c.relation = n.relation
    WHERE n.until > COALESCE(c.place, n.since);
END
$$;

COMMENT ON FUNCTION bemi.recorded_tree(regclass) IS
'the names under which bemi.changes has the changes of a table and its partitions, and from which place on until when';

-- What keeps the rows of a table at a time from being known, as a message; NULL if nothing does.
CREATE FUNCTION bemi.unknown_past(base regclass, moment timestamptz) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  leaves oid[] := bemi.leaves(base);
  top oid := COALESCE(pg_partition_root(base)::oid, base);
  result text;
BEGIN
  WITH members AS MATERIALIZED (
    SELECT m.oid, m.oid = base AS is_base, c.relkind FROM (SELECT unnest(leaves) UNION SELECT base) AS m (oid) JOIN pg_class c ON c.oid = m.oid
  ), versions AS MATERIALIZED (
    SELECT v.*, bemi.place(v.source, v.position) AS place, lead(v.noted_at, 1, 'infinity') OVER w AS until,
      -- A partition that was empty when it came into the tree has no rows of before.
      lag(v.root) OVER w IS DISTINCT FROM v.root AND v.root = top AND v.is_empty AND NOT m.is_base AS has_no_past
    FROM bemi.table_versions v JOIN members m ON m.oid = v.relation WINDOW w AS (PARTITION BY v.relation ORDER BY v.source, v.position)
  ), known AS MATERIALIZED (
    SELECT v.*, max(v.place) FILTER (WHERE v.has_no_past) OVER (PARTITION BY v.relation) AS came FROM versions v
  ), since AS MATERIALIZED (
    SELECT v.* FROM known v WHERE v.until > moment AND (v.came IS NULL OR v.place >= v.came OR v.root = top AND v.noted_at <= moment)
  )
  SELECT problem INTO result FROM (
    SELECT 1, format('%s is a foreign table', m.oid::regclass) FROM members m WHERE m.relkind = 'f'
    UNION ALL SELECT 2, format('%s is not tracked', m.oid::regclass) FROM members m WHERE NOT EXISTS (SELECT FROM known v WHERE v.relation = m.oid)
    UNION ALL SELECT 3, format('%s is tracked since %s', v.relation::regclass, min(v.noted_at)) FROM since v
      GROUP BY v.relation HAVING min(v.noted_at) > moment AND NOT bool_or(v.has_no_past)
    UNION ALL SELECT 4, format('%s was not tracked from %s on', v.relation::regclass, v.noted_at) FROM since v WHERE NOT v.is_tracked
    UNION ALL SELECT 5, format('%s had no REPLICA IDENTITY FULL from %s on, so the log has not the whole row before each change', v.relation::regclass, v.noted_at)
      FROM since v WHERE NOT v.has_images
    UNION ALL SELECT 6, format('%s was attached or detached at %s', v.relation::regclass, v.until) FROM since v
      -- A table keeps its own rows when it is attached or detached.
      WHERE (v.root <> top OR v.place < v.came) AND v.relation <> base
    UNION ALL SELECT 7, format('the key of %s was another one until %s', v.relation::regclass, v.until) FROM since v JOIN since l ON l.relation = v.relation AND l.until = 'infinity'
      WHERE v.key_columns IS DISTINCT FROM l.key_columns AND v.relation = ANY (leaves)
    UNION ALL SELECT 7, format('the key of %s is deferrable, so that for a moment two rows may have had the same', i.indrelid::regclass)
      FROM pg_index i WHERE i.indrelid = ANY (leaves) AND i.indisprimary AND NOT i.indimmediate
    UNION ALL SELECT 8, u FROM bemi.unknown_former(base, moment) u
    UNION ALL SELECT 9, format('%s was changed before %s while an event trigger of bemi was disabled', v.relation::regclass, v.noted_at)
      FROM since v WHERE v.is_late AND v.noted_at > moment
  ) AS problems (place, problem) ORDER BY place LIMIT 1;
  IF result IS NULL THEN
    SELECT format('%s is not as it was noted when it was changed last: an event trigger of bemi is disabled', v.relation::regclass) INTO result
    FROM bemi.new_versions(leaves || base::oid) v LIMIT 1;
  END IF;
  RETURN result;
END
$$;

COMMENT ON FUNCTION bemi.unknown_past(regclass, timestamptz) IS
'what keeps the rows that a table had at a time from being known, or NULL';

-- Raises an error if what a table was like at a time cannot be known, and tells what else there is to tell.
CREATE FUNCTION bemi.require_past(base regclass, moment timestamptz, command int) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  since timestamptz := bemi.recorded_since();
  problem text;
  change record;
  columns text;
  -- From when on changes count of rows that went with their table or partition.
  gone_from timestamptz := (SELECT min(f.empty_at) FROM bemi.former_partitions(base) f WHERE f.came_at <= moment AND f.gone_at > moment);
BEGIN
  IF command > 0 AND pg_current_xact_id_if_assigned() IS NOT NULL AND EXISTS (
    SELECT FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'relation' AND relation = ANY (bemi.leaves(base)) AND (
      mode IN ('ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
      -- The running statement may be the first that writes the table.
      OR mode = 'RowExclusiveLock' AND (current_setting('track_counts') = 'off'
        OR pg_stat_get_xact_tuples_inserted(relation) + pg_stat_get_xact_tuples_updated(relation) + pg_stat_get_xact_tuples_deleted(relation) > 0)))
  THEN
    RAISE EXCEPTION 'this transaction has changed % itself', base USING
      ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Its changes are recorded when it has committed: ask then.';
  END IF;
  SELECT format('changes before %s are missing: %s', c.committed_at, c.context) INTO problem FROM bemi.changes c
  WHERE c.schema = '' AND c."table" = '' AND c.operation = 'GAP' AND c.committed_at > moment ORDER BY c.committed_at DESC LIMIT 1;
  problem := COALESCE(CASE WHEN moment < since THEN format('changes are recorded since %s', since) END, problem, bemi.unknown_past(base, moment));
  IF problem IS NOT NULL THEN
    RAISE EXCEPTION 'what % was like at % is not known: %', base, moment, problem USING
      ERRCODE = 'object_not_in_prerequisite_state', HINT = 'bemi.changes has what is recorded; SELECT * FROM bemi.tracked; shows what is recorded from now on.';
  END IF;
  FOR change IN
    SELECT n.schema, n."table", c.operation, c.first FROM bemi.recorded_tree(base) n, LATERAL (
      SELECT c.operation, min(c.committed_at) AS first FROM bemi.changes c
      WHERE c.schema = n.schema AND c."table" = n."table" AND c.primary_key IS NULL AND c.committed_at > moment
        AND bemi.place(c.source, c.position) >= n.since AND bemi.place(c.source, c.position) < n.until GROUP BY 1
    ) c ORDER BY c.operation = 'TRUNCATE', c.first
  LOOP
    IF change.operation <> 'TRUNCATE' THEN
      RAISE EXCEPTION 'what % was like at % is not known: the key of a row that was changed at % is not recorded', base, moment, change.first USING
        ERRCODE = 'object_not_in_prerequisite_state', HINT = 'See the rows of bemi.changes whose primary_key is null.';
    END IF;
    RAISE WARNING '% was truncated at %: of the rows that it had before, only those that were changed before are recorded', format('%I.%I', change.schema, change."table"), change.first;
    gone_from := '-infinity';
  END LOOP;
  -- What ADD COLUMN gave to a row that did not change after it is in no change.
  columns := (SELECT string_agg(format('%s (since %s)', quote_ident(a.attname), n.added_at), ', ' ORDER BY a.attnum) FROM pg_attribute a, LATERAL (
      SELECT min(v.noted_at) FILTER (WHERE v.columns ? a.attnum::text) AS added_at, min(v.noted_at) AS first FROM bemi.table_versions v WHERE v.relation = base) n
    WHERE a.attrelid = base AND a.attnum > 0 AND NOT a.attisdropped AND n.added_at > n.first AND n.added_at > gone_from AND n.added_at <= moment);
  IF columns IS NOT NULL THEN
    RAISE NOTICE 'columns of % that were added are null in rows that did not change between then and when they were truncated, or their partition went: %', base, columns;
  END IF;
  columns := (SELECT string_agg(quote_ident(attname), ', ') FROM pg_attribute
    WHERE attrelid = base AND attnum > 0 AND NOT attisdropped AND attname IN (SELECT bemi.masked_columns(base::oid)));
  IF columns IS NOT NULL THEN
    RAISE NOTICE 'masked columns of % are null in rows that were changed since: %', base, columns;
  END IF;
  columns := (SELECT string_agg(DISTINCT quote_ident(i), ', ') FROM bemi.table_versions v, unnest(v.ignored) i
    WHERE v.relation = ANY (bemi.leaves(base)));
  IF columns IS NOT NULL THEN
    RAISE NOTICE 'ignored columns of % may be newer than %, since their changes alone are not recorded: %', base, moment, columns;
  END IF;
  columns := (SELECT string_agg(DISTINCT quote_ident(i), ', ') FROM bemi.former_partitions(base) f
    JOIN bemi.table_versions v ON v.relation = f.relation, unnest(v.ignored) i WHERE f.came_at <= moment AND f.gone_at > moment);
  IF columns IS NOT NULL THEN
    RAISE NOTICE 'ignored columns of partitions of % that are gone may be older than %, since their changes alone are not recorded: %', base, moment, columns;
  END IF;
  PERFORM bemi.tell_rewrites(base, moment);
END
$$;

COMMENT ON FUNCTION bemi.require_past(regclass, timestamptz, int) IS
'raises an error if what a table was like at a time cannot be known';
