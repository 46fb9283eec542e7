-- Code of other roles that runs when a table of bemi is written or read: whatever is reached from what is attached to
-- it. Each function takes the tables, and returns what it found with the statement that ends it.

CREATE FUNCTION bemi.unsafe_rules(relations oid[]) RETURNS TABLE (detail text, fix text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
    SELECT
      format('the table %s has a rule: %I', c.oid::regclass, w.rulename),
      format('DROP RULE %I ON %s;', w.rulename, c.oid::regclass)
    FROM unnest(relations) u (oid)
      JOIN pg_class c ON c.oid = u.oid
      JOIN pg_rewrite w ON w.ev_class = c.oid
    WHERE NOT (c.relkind = ANY ('{v,m}'::"char"[]) AND w.rulename = '_RETURN'::name);
  RETURN QUERY
    SELECT
      format('the view %s was replaced', c.oid::regclass),
      'DROP EXTENSION bemi CASCADE; CREATE EXTENSION bemi; -- then track the tables again'::text
    FROM unnest(relations) u (oid)
      JOIN pg_class c ON c.oid = u.oid
      JOIN pg_rewrite w ON w.ev_class = c.oid
      JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = 1
    WHERE c.relkind = 'v'::"char"
      AND w.xmin::text <> a.xmin::text
      AND c.relname <> 'changes_diff'::name;
END
$$;

COMMENT ON FUNCTION bemi.unsafe_rules(oid[]) IS
'returns the rules of some tables, and which of some views were replaced';

CREATE FUNCTION bemi.unsafe_links(relations oid[]) RETURNS TABLE (detail text, fix text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
    SELECT
      format('the table %s inherits from %s', i.inhrelid::regclass, i.inhparent::regclass),
      format('ALTER TABLE %s NO INHERIT %s;', i.inhrelid::regclass, i.inhparent::regclass)
    FROM unnest(relations) u (oid)
      JOIN pg_inherits i ON i.inhrelid = u.oid
      JOIN pg_class p ON p.oid = i.inhparent
    WHERE p.relkind = ANY ('{r,f}'::"char"[])
      AND i.inhparent <> ALL (relations);
  -- The server's queries for foreign keys run as the owner of the other table, and so do the triggers of that table.
  RETURN QUERY
    SELECT
      format('the foreign key %I of %s references %s, and the owner of one of them is not a superuser',
        k.conname, k.conrelid::regclass, k.confrelid::regclass),
      format('ALTER TABLE %s DROP CONSTRAINT %I;', k.conrelid::regclass, k.conname)
    FROM pg_constraint k
      JOIN pg_class r ON r.oid = k.conrelid
      JOIN pg_class f ON f.oid = k.confrelid
    WHERE k.contype = 'f'::"char"
      AND k.conparentid = 0
      AND (k.conrelid = ANY (relations) OR k.confrelid = ANY (relations))
      AND EXISTS (SELECT FROM pg_roles o WHERE o.oid IN (r.relowner, f.relowner) AND NOT o.rolsuper);
END
$$;

COMMENT ON FUNCTION bemi.unsafe_links(oid[]) IS
'returns the tables from which some tables inherit, and the foreign keys of others from or to them';

-- Functions of the server may run SQL that they are given as text; those are not immutable. No object depends on these.
CREATE FUNCTION bemi.unsafe_expressions(relations oid[]) RETURNS TABLE (detail text, fix text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
    SELECT DISTINCT
      format('the %s %s uses the function %s, which is not immutable', i.type, i.identity, p.oid::regprocedure),
      bemi.removal(e.classid, e.objid, e.number)
    FROM (
      SELECT 'pg_constraint'::regclass::oid AS classid, k.oid AS objid, 0 AS number, k.conbin::text AS tree
      FROM unnest(relations) u (oid)
        JOIN pg_constraint k ON k.conrelid = u.oid
      UNION ALL
      SELECT 'pg_attrdef'::regclass, d.oid, 0, d.adbin::text
      FROM unnest(relations) u (oid)
        JOIN pg_attrdef d ON d.adrelid = u.oid
      UNION ALL
      SELECT 'pg_class'::regclass, x.indexrelid, 0, concat_ws(' ', x.indexprs, x.indpred)
      FROM unnest(relations) u (oid)
        JOIN pg_index x ON x.indrelid = u.oid
      UNION ALL
      SELECT 'pg_trigger'::regclass, t.oid, 0, t.tgqual::text
      FROM unnest(relations) u (oid)
        JOIN pg_trigger t ON t.tgrelid = u.oid
      UNION ALL
      SELECT 'pg_statistic_ext'::regclass, s.oid, 0, s.stxexprs::text
      FROM unnest(relations) u (oid)
        JOIN pg_statistic_ext s ON s.stxrelid = u.oid
    ) e
      CROSS JOIN LATERAL regexp_matches(e.tree, ':(?:funcid|opfuncid) ([0-9]+)', 'g') m
      JOIN pg_proc p ON p.oid = m[1]::oid,
      LATERAL pg_identify_object(e.classid, e.objid, 0) i
    WHERE p.provolatile <> 'i'::"char"
      AND (p.oid >= 16384::oid
        OR p.proname ~ 'to_xml'
        OR p.provolatile = 'v'::"char" AND p.proname <> ALL (
          '{clock_timestamp,gen_random_uuid,uuidv4,uuidv7,nextval,random,timeofday}'::name[]));
END
$$;

COMMENT ON FUNCTION bemi.unsafe_expressions(oid[]) IS
'returns the expressions of some tables whose functions are not immutable';

-- What partitions inherit from the table above them is looked at there.
CREATE FUNCTION bemi.parts(relations oid[]) RETURNS TABLE (classid oid, objid oid)
LANGUAGE plpgsql STABLE ROWS 100 SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
    SELECT 'pg_class'::regclass::oid AS classid, c.oid AS objid
    FROM unnest(relations) u (oid)
      JOIN pg_class c ON c.oid = u.oid
    WHERE NOT c.relispartition
    UNION ALL
    SELECT 'pg_class'::regclass, c.oid
    FROM unnest(relations) u (oid)
      JOIN pg_index i ON i.indrelid = u.oid
      JOIN pg_class c ON c.oid = i.indexrelid
    WHERE NOT c.relispartition
    UNION ALL
    SELECT 'pg_trigger'::regclass, t.oid
    FROM unnest(relations) u (oid)
      JOIN pg_trigger t ON t.tgrelid = u.oid
    WHERE NOT t.tgisinternal
      AND t.tgparentid = 0
    -- Foreign keys of others that reference the table have internal triggers on it.
    UNION
    SELECT 'pg_constraint'::regclass, t.tgconstraint
    FROM unnest(relations) u (oid)
      JOIN pg_trigger t ON t.tgrelid = u.oid
    WHERE t.tgisinternal
    UNION
    SELECT 'pg_constraint'::regclass, c.oid
    FROM unnest(relations) u (oid)
      JOIN pg_constraint c ON c.conrelid = u.oid
    WHERE (c.coninhcount = 0 OR NOT EXISTS (SELECT FROM pg_class r WHERE r.oid = u.oid AND r.relispartition))
      AND c.contype <> 'n'::"char"
    UNION ALL
    SELECT 'pg_rewrite'::regclass, w.oid
    FROM unnest(relations) u (oid)
      JOIN pg_rewrite w ON w.ev_class = u.oid
    WHERE w.rulename = '_RETURN'::name
    UNION ALL
    SELECT 'pg_policy'::regclass, p.oid
    FROM unnest(relations) u (oid)
      JOIN pg_policy p ON p.polrelid = u.oid
    UNION ALL
    SELECT 'pg_attrdef'::regclass, a.oid
    FROM unnest(relations) u (oid)
      JOIN pg_attrdef a ON a.adrelid = u.oid
    UNION ALL
    SELECT 'pg_statistic_ext'::regclass, s.oid
    FROM unnest(relations) u (oid)
      JOIN pg_statistic_ext s ON s.stxrelid = u.oid;
END
$$;

COMMENT ON FUNCTION bemi.parts(oid[]) IS
'returns some tables, and their indexes, triggers, constraints, rules, policies, defaults and statistics';

CREATE FUNCTION bemi.foreign_code(relations oid[]) RETURNS TABLE (detail text, fix text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  -- In addition to these: relations that have expressions, or columns with types, of their own.
  classes oid[] := ARRAY['pg_proc', 'pg_type', 'pg_operator', 'pg_opclass', 'pg_opfamily', 'pg_collation',
    'pg_ts_config', 'pg_ts_dict']::regclass[];
BEGIN
  RETURN QUERY
    WITH RECURSIVE code AS (
      SELECT p.classid AS part_class, p.objid AS part, d.objsubid AS number,
        d.refclassid AS classid, d.refobjid AS objid
      FROM bemi.parts(relations) p
        JOIN pg_depend d ON d.classid = p.classid AND d.objid = p.objid
      WHERE (d.refclassid = ANY (classes) OR d.refclassid = 'pg_class'::regclass AND EXISTS (
        SELECT FROM pg_class r WHERE r.oid = d.refobjid AND r.relkind = ANY ('{v,m,c}'::"char"[])))
      UNION
      SELECT c.part_class, c.part, c.number, n.classid, n.objid
      FROM code c,
        LATERAL (
          SELECT d.refclassid AS classid, d.refobjid AS objid
          FROM pg_depend d
          WHERE d.classid = c.classid
            AND d.objid = c.objid
            AND (d.refclassid = ANY (classes) OR d.refclassid = 'pg_class'::regclass AND EXISTS (
              SELECT FROM pg_class r WHERE r.oid = d.refobjid AND r.relkind = ANY ('{v,m,c}'::"char"[])))
          UNION ALL
          SELECT 'pg_constraint'::regclass, k.oid
          FROM pg_constraint k
          WHERE c.classid = 'pg_type'::regclass
            AND k.contypid = c.objid
          UNION ALL
          SELECT 'pg_rewrite'::regclass, w.oid
          FROM pg_rewrite w
          WHERE c.classid = 'pg_class'::regclass
            AND w.ev_class = c.objid
        ) n
    )
    SELECT DISTINCT
      format('the %s %s uses the %s %s, which belongs to the role %I, which is not a superuser',
        part.type, part.identity, i.type, i.identity, r.rolname),
      bemi.removal(c.part_class, c.part, c.number)
    FROM code c
      JOIN pg_database b ON b.datname = current_database()
      JOIN pg_shdepend s ON s.dbid = b.oid AND s.classid = c.classid AND s.objid = c.objid AND s.objsubid = 0
        AND s.deptype = 'o'::"char"
      LEFT JOIN pg_roles r ON r.oid = s.refobjid,
      LATERAL pg_identify_object(c.classid, c.objid, 0) i,
      LATERAL pg_identify_object(c.part_class, c.part,
        CASE c.part_class WHEN 'pg_class'::regclass THEN c.number ELSE 0 END) part
    WHERE r.rolsuper IS NOT TRUE
      -- bemi.unsafe_tables() returns the functions of triggers.
      AND NOT EXISTS (
        SELECT FROM pg_trigger t
        WHERE c.part_class = 'pg_trigger'::regclass
          AND t.oid = c.part
          AND c.classid = 'pg_proc'::regclass
          AND t.tgfoid = c.objid);
END
$$;

COMMENT ON FUNCTION bemi.foreign_code(oid[]) IS
'returns the functions, operators and types of roles other than superusers that some tables use';

CREATE FUNCTION bemi.unsafe_code(relations oid[]) RETURNS TABLE (detail text, fix text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY SELECT r.detail, r.fix FROM bemi.unsafe_rules(relations) r;
  RETURN QUERY SELECT l.detail, l.fix FROM bemi.unsafe_links(relations) l;
  RETURN QUERY SELECT e.detail, e.fix FROM bemi.unsafe_expressions(relations) e;
  RETURN QUERY SELECT c.detail, c.fix FROM bemi.foreign_code(relations) c;
END
$$;

COMMENT ON FUNCTION bemi.unsafe_code(oid[]) IS
'returns the rules, expressions, operators and types of other roles that some tables have';

-- How to remove a column, or an index, whose type or expression is unsafe, or the table itself.
CREATE FUNCTION bemi.removal_of_relation(relation oid, number int) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE
    WHEN c.relkind = ANY ('{i,I}'::"char"[]) THEN
      format('DROP INDEX %s;', c.oid::regclass)
    -- A domain's values are those of its base type.
    WHEN t.typtype = 'd'::"char" THEN
      format('ALTER TABLE %s ALTER COLUMN %I TYPE %s;',
        c.oid::regclass, a.attname, format_type(t.typbasetype, t.typtypmod))
    WHEN a.attname IS NOT NULL THEN
      format('ALTER TABLE %s DROP COLUMN %I;', c.oid::regclass, a.attname)
    ELSE
      format('DROP TABLE %s;', c.oid::regclass)
    END
  FROM pg_class c
    LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = number AND number > 0
    LEFT JOIN pg_type t ON t.oid = a.atttypid
  WHERE c.oid = relation
$$;

COMMENT ON FUNCTION bemi.removal_of_relation(oid, int) IS
'returns the statement that removes a column of a table, an index, or the table itself if the number is 0';

CREATE FUNCTION bemi.removal(class oid, object oid, number int) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE class
    WHEN 'pg_trigger'::regclass THEN (
      SELECT format('DROP TRIGGER %I ON %s;', t.tgname, t.tgrelid::regclass)
      FROM pg_trigger t
      WHERE t.oid = object)
    WHEN 'pg_constraint'::regclass THEN (
      SELECT format('ALTER TABLE %s DROP CONSTRAINT %I;', c.conrelid::regclass, c.conname)
      FROM pg_constraint c
      WHERE c.oid = object)
    WHEN 'pg_policy'::regclass THEN (
      SELECT format('DROP POLICY %I ON %s;', p.polname, p.polrelid::regclass)
      FROM pg_policy p
      WHERE p.oid = object)
    WHEN 'pg_attrdef'::regclass THEN (
      SELECT format('ALTER TABLE %s %s;', d.adrelid::regclass, format(
        CASE a.attgenerated WHEN '' THEN 'ALTER COLUMN %I DROP DEFAULT' ELSE 'DROP COLUMN %I' END, a.attname))
      FROM pg_attrdef d
        JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
      WHERE d.oid = object)
    WHEN 'pg_statistic_ext'::regclass THEN (
      SELECT format('DROP STATISTICS %s;', i.identity)
      FROM pg_identify_object(class, object, 0) i)
    WHEN 'pg_rewrite'::regclass THEN (
      SELECT format('DROP VIEW %s;', w.ev_class::regclass)
      FROM pg_rewrite w
      WHERE w.oid = object)
    ELSE
      bemi.removal_of_relation(object, number)
  END
$$;

COMMENT ON FUNCTION bemi.removal(oid, oid, int) IS
'returns the statement that removes something from a table';
