-- The partitions of bemi.changes, one for each month, and a default one for changes of other months.

-- A role that may read the whole may read a part, as pg_dump does. If the whole has policies, a part has row security
-- without policies, and shows nothing by itself.
CREATE FUNCTION bemi.grant_as_changes(relation regclass) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  granted record;
BEGIN
  PERFORM bemi.own_alone(relation);
  IF (SELECT c.relrowsecurity FROM pg_class c WHERE c.oid = 'bemi.changes'::regclass) THEN
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', relation);
  END IF;
  FOR granted IN
    SELECT
      a."column",
      CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS grantee,
      bool_or(a.is_grantable) AS is_grantable
    FROM pg_class c,
      LATERAL (
        SELECT NULL::name AS "column", e.*
        FROM aclexplode(c.relacl) e
        UNION ALL
        SELECT t.attname, e.*
        FROM pg_attribute t,
          aclexplode(t.attacl) e
        WHERE t.attrelid = c.oid
          AND t.attacl IS NOT NULL
      ) a
    WHERE c.oid = 'bemi.changes'::regclass
      AND a.privilege_type = 'SELECT'
      AND a.grantee <> c.relowner
    GROUP BY 1, 2
  LOOP
    EXECUTE format('GRANT SELECT%s ON %s TO %s%s', COALESCE(' (' || quote_ident(granted."column") || ')', ''), relation,
      granted.grantee, CASE WHEN granted.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END);
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.grant_as_changes(regclass) IS
'grants SELECT on a partition of bemi.changes to those who have it on bemi.changes, and revokes all other rights';

-- With what the default partition contains of that month. Here, and where the other tables are created,
-- session_replication_role keeps event triggers of others, which may fail, from firing.
CREATE FUNCTION bemi.add_partition(month timestamptz) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
SET session_replication_role = replica SET timezone = 'UTC' AS $$
DECLARE
  first timestamptz := date_trunc('month', month);
  next timestamptz := first + interval '1 month';
  name text := format('changes_%s', to_char(first, 'YYYY_MM'));
  owner name;
  is_moved boolean := false;
BEGIN
  PERFORM bemi.require_owner(), bemi.require_safe();
  IF EXISTS (
    SELECT FROM pg_inherits
    WHERE inhparent = 'bemi.changes'::regclass
      AND inhrelid = to_regclass(format('bemi.%I', name)))
  THEN
    RETURN;
  ELSIF to_regclass(format('bemi.%I', name)) IS NOT NULL THEN
    RAISE EXCEPTION 'the table bemi.% is not a partition of bemi.changes', name
      USING ERRCODE = 'duplicate_table', HINT = 'Attach it again, or rename it.';
  END IF;
  IF first IS NULL OR NOT isfinite(first) OR first NOT BETWEEN '1000-01-01' AND '9999-12-31' THEN
    RAISE EXCEPTION 'the month of % cannot have a partition', month
      USING ERRCODE = 'invalid_parameter_value',
        DETAIL = 'Changes before the year 1000 and after 9999 stay in bemi.changes_default.';
  END IF;
  SELECT rolname
  INTO owner
  FROM pg_class c
    JOIN pg_roles r ON r.oid = c.relowner
  WHERE c.oid = 'bemi.changes'::regclass;
  IF to_regclass('bemi.changes_default') IS NOT NULL THEN
    EXECUTE 'SELECT EXISTS (
        SELECT FROM bemi.changes_default c WHERE c.committed_at >= $1 AND c.committed_at < $2)'
      INTO is_moved USING first, next;
  END IF;
  IF is_moved THEN
    LOCK TABLE bemi.changes IN SHARE ROW EXCLUSIVE MODE;
    EXECUTE format('CREATE TABLE bemi.%I (LIKE bemi.changes INCLUDING ALL)', name);
    EXECUTE format('
        WITH moved AS (
          DELETE FROM bemi.changes_default WHERE committed_at >= $1 AND committed_at < $2 RETURNING *)
        INSERT INTO bemi.%I SELECT * FROM moved', name)
      USING first, next;
    EXECUTE format('ALTER TABLE bemi.changes ATTACH PARTITION bemi.%I FOR VALUES FROM (%L) TO (%L)', name, first, next);
  ELSE
    EXECUTE format('CREATE TABLE bemi.%I PARTITION OF bemi.changes FOR VALUES FROM (%L) TO (%L)', name, first, next);
  END IF;
  EXECUTE format('ALTER TABLE bemi.%I OWNER TO %I', name, owner);
  PERFORM bemi.grant_as_changes(to_regclass(format('bemi.%I', name))),
    bemi.keep_table(to_regclass(format('bemi.%I', name)));
END
$$;

COMMENT ON FUNCTION bemi.add_partition(timestamptz) IS
'creates the partition of bemi.changes for the month of a time, if it does not exist, and moves its changes there';

-- The recorder calls it once a minute. NULL keeps all partitions.
CREATE FUNCTION bemi.keep_partitions(retention interval) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC' SET lock_timeout = '1s' SET bemi.allow_drop = on AS $$
DECLARE
  month timestamptz;
  partition regclass;
BEGIN
  FOREACH month IN ARRAY ARRAY[now(), now() + interval '1 month'] LOOP
    -- Changes that the default partition contains already would have to be moved: people choose when.
    IF to_regclass(format('bemi.%I', to_char(month, '"changes_"YYYY_MM'))) IS NULL
      AND NOT bemi.has_strays(date_trunc('month', month), date_trunc('month', month) + interval '1 month')
    THEN
      PERFORM bemi.add_partition(month);
    END IF;
  END LOOP;
  -- Policies on the whole apply to its parts too, on which rights may have been granted with it.
  FOR partition IN
    SELECT t.relid
    FROM pg_partition_tree('bemi.changes'::regclass) t
      JOIN pg_class c ON c.oid = t.relid
    WHERE NOT c.relrowsecurity
      AND c.relkind IN ('r', 'p')
      AND (SELECT p.relrowsecurity FROM pg_class p WHERE p.oid = 'bemi.changes'::regclass)
  LOOP
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', partition);
  END LOOP;
  FOR partition IN
    SELECT i.inhrelid
    FROM pg_inherits i
      JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'bemi.changes'::regclass
      -- Its upper bound; the default partition has none.
      AND substring(pg_get_expr(c.relpartbound, c.oid) FROM ' TO [(]''([^'']+)''[)]')::timestamptz <= now() - retention
  LOOP
    BEGIN
      EXECUTE format('DROP TABLE %s', partition);
      RAISE LOG 'the recorder of bemi dropped a partition that is older than bemi.retention';
    EXCEPTION WHEN OTHERS THEN
      -- Somebody reads it, or something depends on it: the next call tries again in a minute.
      RAISE LOG 'the recorder of bemi could not drop a partition that is older than bemi.retention: %', SQLERRM;
    END;
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.keep_partitions(interval) IS
'creates the partitions of this month and the next one, and drops those that are older than the retention';

CREATE FUNCTION bemi.has_strays(since timestamptz DEFAULT '-infinity', until timestamptz DEFAULT 'infinity')
RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms' AS $$
DECLARE
  result boolean := false;
BEGIN
  IF to_regclass('bemi.changes_default') IS NOT NULL THEN
    EXECUTE 'SELECT EXISTS (SELECT FROM bemi.changes_default WHERE committed_at >= $1 AND committed_at < $2)'
      INTO result USING since, until;
  END IF;
  RETURN result;
EXCEPTION WHEN lock_not_available THEN
  -- Asking for the status of the recorder does not wait for others.
  RETURN false;
END
$$;

COMMENT ON FUNCTION bemi.has_strays(timestamptz, timestamptz) IS
'returns whether the default partition of bemi.changes contains changes';
