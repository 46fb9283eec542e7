-- What is recorded of a table, from when on, and who may read it.

CREATE FUNCTION bemi.recorded_since() RETURNS timestamptz
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO' SET timezone = 'UTC' AS $$
BEGIN
  IF to_regclass('bemi.recorder') IS NULL OR to_regclass('bemi.changes') IS NULL THEN
    RETURN NULL;
  END IF;
  PERFORM bemi.require_readable();
  -- The retention drops the oldest partitions.
  RETURN greatest(
    (SELECT r.since FROM bemi.recorder r),
    (
      SELECT min(substring(pg_get_expr(c.relpartbound, c.oid) FROM 'FROM [(]''([^'']+)''[)]')::timestamptz)
      FROM pg_inherits i
      JOIN pg_class c ON c.oid = i.inhrelid
      WHERE i.inhparent = 'bemi.changes'::regclass
    )
  );
END
$$;

COMMENT ON FUNCTION bemi.recorded_since() IS
'returns since when all changes are in bemi.changes, or NULL if they never were';

CREATE FUNCTION bemi.recorded_position() RETURNS pg_lsn
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM bemi.require_readable();
  IF to_regclass('bemi.recorder') IS NULL THEN
    RETURN NULL;
  END IF;
  RETURN (
    SELECT '0/0'::pg_lsn + bemi.place(COALESCE(r.source, 1), r.commit_position)::numeric
    FROM bemi.recorder r
  );
END
$$;

COMMENT ON FUNCTION bemi.recorded_position() IS
'returns the place, as bemi.place() counts, at which the last change committed that this snapshot sees in bemi.changes';

CREATE FUNCTION bemi.require_changes() RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF to_regclass('bemi.changes') IS NULL THEN
    RAISE EXCEPTION 'the changes of this database are not recorded' USING
      ERRCODE = 'object_not_in_prerequisite_state',
      HINT = 'SELECT bemi.start();';
  ELSIF NOT has_table_privilege('bemi.changes', 'SELECT') THEN
    RAISE EXCEPTION 'permission denied for table bemi.changes' USING
      ERRCODE = 'insufficient_privilege',
      HINT = format('As its owner: GRANT SELECT ON bemi.changes TO %I;', current_user);
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.require_changes() IS
'raises an error if the caller may not read bemi.changes';

CREATE FUNCTION bemi.require_select(relation regclass) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF pg_is_in_recovery() THEN
    RAISE EXCEPTION 'the past of % cannot be read on a standby, which does not know how much of it is recorded',
      relation USING
      ERRCODE = 'object_not_in_prerequisite_state',
      HINT = 'Read it on the primary. bemi.changes can be read on the standby too.';
  ELSIF NOT has_table_privilege(relation, 'SELECT') THEN
    RAISE EXCEPTION 'permission denied for table %', relation USING ERRCODE = 'insufficient_privilege';
  END IF;
  PERFORM bemi.require_changes();
END
$$;

COMMENT ON FUNCTION bemi.require_select(regclass) IS
'raises an error if the caller may not read a table and bemi.changes';

CREATE FUNCTION bemi.table_of_type(type regtype) RETURNS regclass
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  relation regclass := (
    SELECT c.oid
    FROM pg_type t
    JOIN pg_class c ON c.oid = t.typrelid AND c.relkind IN ('r', 'p')
    WHERE t.oid = type
  );
BEGIN
  IF relation IS NULL THEN
    RAISE EXCEPTION 'the type % is not the row type of a table', type USING
      ERRCODE = 'wrong_object_type',
      HINT = 'Name the table by a row of it, as in bemi.as_of(NULL::public.todo, now()).';
  END IF;
  RETURN relation;
END
$$;

COMMENT ON FUNCTION bemi.table_of_type(regtype) IS
'returns the table whose rows have a type';

CREATE FUNCTION bemi.leaves(relation regclass) RETURNS oid[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN (
    SELECT CASE c.relkind
      WHEN 'p' THEN ARRAY(SELECT p.relid::oid FROM pg_partition_tree(relation) p WHERE p.isleaf ORDER BY p.relid::oid)
      ELSE ARRAY[c.oid] END
    FROM pg_class c
    WHERE c.oid = relation
  );
END
$$;

COMMENT ON FUNCTION bemi.leaves(regclass) IS
'returns a table itself, or the partitions of a partitioned one that have no partitions';

CREATE FUNCTION bemi.qualified_name(relation oid) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN (
    SELECT format('%I.%I', n.nspname, c.relname)
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = relation
  );
END
$$;

COMMENT ON FUNCTION bemi.qualified_name(oid) IS
'returns in SQL: the name of a table with its schema';

-- Does not count what a partition was before it was attached, if it was empty then.
CREATE FUNCTION bemi.recorded_tree(base regclass)
RETURNS TABLE (relation oid, schema text, "table" text, since bigint, until bigint)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
  leaves oid[] := bemi.leaves(base);
  top oid := pg_partition_root(base);
BEGIN
  IF leaves = ARRAY[base::oid] THEN
    RETURN QUERY SELECT * FROM bemi.recorded_names(leaves);
    RETURN;
  END IF;
  RETURN QUERY
    WITH came AS MATERIALIZED (
      SELECT v.relation, max(bemi.place(v.source, v.position)) AS place
      FROM (
        SELECT *, lag(o.root) OVER (PARTITION BY o.relation ORDER BY o.source, o.position) AS root_before
        FROM bemi.table_versions o
        WHERE o.relation = ANY (leaves) AND o.relation <> base
      ) v
      WHERE v.is_empty AND v.root_before <> v.root AND v.root = top
      GROUP BY 1
    )
    SELECT n.relation, n.schema, n."table", greatest(n.since, c.place), n.until
    FROM bemi.recorded_names(leaves) n
    LEFT JOIN came c ON c.relation = n.relation
    WHERE n.until > COALESCE(c.place, n.since);
END
$$;

COMMENT ON FUNCTION bemi.recorded_tree(regclass) IS
'returns the names under which bemi.changes has the changes of a table and its partitions, and between which places';
