-- Who can put something into the schema bemi, or hang something on its tables, has it run by a superuser: by whoever creates
-- the extension or starts the recorder, and by the recorder. So nobody else can, and this finds where somebody could, and
-- gives the statement that ends it. It comes before all else of the script, since the schema may have been made by others.

SET LOCAL search_path = pg_catalog, pg_temp;
-- Event triggers of others are for statements of people, and one that fails would fail this one.
SET LOCAL session_replication_role = replica;

-- The text is run first, and is made a function then: no name is looked up in the schema before that is known to be safe.
DO $do$
DECLARE
  query text := $query$
WITH bemi AS (
  SELECT n.oid, n.nspowner, n.nspacl FROM pg_namespace n WHERE n.nspname = 'bemi'::name
), superuser AS (
  SELECT r.rolname FROM pg_roles r WHERE r.rolsuper ORDER BY r.rolname = current_user DESC, r.oid LIMIT 1
), members AS (
  SELECT d.classid, d.objid FROM pg_extension e
  JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e'::"char"
  WHERE e.extname = 'bemi'::name
), objects AS (
  SELECT m.classid, m.objid, true AS is_member FROM members m
  UNION
  SELECT d.classid, d.objid, false FROM bemi b
  JOIN pg_depend d ON d.refclassid = 'pg_namespace'::regclass AND d.refobjid = b.oid AND d.deptype = 'n'::"char"
  WHERE d.classid <> 'pg_default_acl'::regclass AND NOT EXISTS (SELECT FROM members m WHERE m.classid = d.classid AND m.objid = d.objid)
), owned AS (
  SELECT o.classid, o.objid, o.is_member, i.type, i.name, i.identity, r.rolname FROM objects o
  JOIN pg_database b ON b.datname = current_database()
  JOIN pg_shdepend s ON s.dbid = b.oid AND s.classid = o.classid AND s.objid = o.objid AND s.objsubid = 0 AND s.deptype = 'o'::"char"
  LEFT JOIN pg_roles r ON r.oid = s.refobjid, LATERAL pg_identify_object(o.classid, o.objid, 0) i
  WHERE r.rolsuper IS NOT TRUE
), found AS (
  SELECT 1 AS place, 'the schema bemi'::text AS what, format('the schema bemi belongs to the role %I, who is no superuser', r.rolname) AS detail,
    format('ALTER SCHEMA bemi OWNER TO %I;', s.rolname) AS fix
  FROM bemi b CROSS JOIN superuser s LEFT JOIN pg_roles r ON r.oid = b.nspowner WHERE r.rolsuper IS NOT TRUE
  UNION ALL
  -- What was granted by those to whom it was granted ends with their own right.
  SELECT 2, a.grantor::text, format('the role %s may create objects in the schema bemi', COALESCE(quote_ident(r.rolname), 'PUBLIC')),
    format('REVOKE CREATE ON SCHEMA bemi FROM %s CASCADE;',
      CASE WHEN a.grantor <> b.nspowner THEN quote_ident(pg_get_userbyid(a.grantor)) ELSE COALESCE(quote_ident(r.rolname), 'PUBLIC') END)
  FROM bemi b CROSS JOIN LATERAL aclexplode(b.nspacl) a LEFT JOIN pg_roles r ON r.oid = a.grantee
  WHERE a.privilege_type = 'CREATE' AND a.grantee <> b.nspowner AND r.rolsuper IS NOT TRUE
  UNION ALL
  -- What others made is not taken over, whatever it is called: but for the tables that outlive the extension.
  SELECT CASE o.type WHEN 'extension' THEN 2 WHEN 'type' THEN 5 ELSE 3 END, o.identity, format('the %s %s belongs to the role %I, who is no superuser', o.type, o.identity, o.rolname),
    CASE WHEN o.type = 'extension' AND o.name = 'bemi' THEN format('REASSIGN OWNED BY %I TO %I;', o.rolname, s.rolname)
      WHEN o.is_member OR o.classid = 'pg_class'::regclass AND o.name ~ '^(changes|changes_default|changes_diff|changes_[0-9]+_[0-9]+|recorder|recorded_versions|sources|seals)$'
      THEN format('ALTER %s %s OWNER TO %I;', upper(o.type), o.identity, s.rolname)
      ELSE format('DROP %s %s; -- it is no part of bemi',
        CASE o.type WHEN 'aggregate' THEN 'ROUTINE' WHEN 'statistics object' THEN 'STATISTICS' ELSE upper(o.type) END, o.identity) END
  FROM owned o CROSS JOIN superuser s
  UNION ALL
  -- They may have belonged to somebody else before.
  SELECT 4, i.identity, format('the %s %s is no part of the extension, but has the name of a function of it', i.type, i.identity),
    format('DROP ROUTINE %s;', i.identity)
  FROM objects o JOIN pg_proc p ON p.oid = o.objid, LATERAL pg_identify_object(o.classid, o.objid, 0) i
  WHERE o.classid = 'pg_proc'::regclass AND NOT o.is_member AND EXISTS (
    SELECT FROM members m JOIN pg_proc q ON q.oid = m.objid WHERE m.classid = 'pg_proc'::regclass AND q.proname = p.proname)
)
SELECT f.detail, f.fix FROM found f ORDER BY f.place, f.what
$query$;
  made bigint;
  top bigint := pg_current_xact_id()::text::bigint;
  other record;
  wrong record;
BEGIN
  -- A schema that this very statement made has what the default privileges give to others.
  SELECT (n.xmin::text::bigint - top) & 4294967295 INTO made FROM pg_namespace n WHERE n.nspname = 'bemi'::name;
  IF made < 1000000 AND pg_xact_status((top + made)::text::xid8) = 'in progress' THEN
    FOR other IN
      SELECT DISTINCT COALESCE(quote_ident(r.rolname), 'PUBLIC') AS grantee FROM pg_namespace n, LATERAL aclexplode(n.nspacl) a
      LEFT JOIN pg_roles r ON r.oid = a.grantee WHERE n.nspname = 'bemi'::name AND a.grantee <> n.nspowner
    LOOP
      EXECUTE format('REVOKE ALL ON SCHEMA bemi FROM %s', other.grantee);
    END LOOP;
  END IF;
  FOR wrong IN EXECUTE query LOOP
    RAISE EXCEPTION '%', wrong.detail USING ERRCODE = 'insufficient_privilege', HINT = wrong.fix;
  END LOOP;
  EXECUTE format('CREATE FUNCTION bemi.unsafe_objects() RETURNS TABLE (detail text, fix text) LANGUAGE plpgsql STABLE '
    'SET search_path = pg_catalog, pg_temp AS %L', '#variable_conflict use_column' || chr(10) || 'BEGIN RETURN QUERY' || query || ';' || chr(10) || 'END');
END
$do$;

COMMENT ON FUNCTION bemi.unsafe_objects() IS
'what in the schema bemi belongs to others than superusers, or may, and the statements that end that';

-- The extension's tables and views, and those of bemi.start() with all partitions of bemi.changes, and those that were.
CREATE FUNCTION bemi.own_tables() RETURNS oid[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN ARRAY(
    WITH RECURSIVE own AS (
      SELECT c.oid FROM pg_namespace n
      JOIN pg_depend d ON d.refclassid = 'pg_namespace'::regclass AND d.refobjid = n.oid AND d.classid = 'pg_class'::regclass
      JOIN pg_class c ON c.oid = d.objid
      WHERE n.nspname = 'bemi'::name AND c.relkind = ANY ('{r,p,v,m,f,S}'::"char"[]) AND (
        c.relname ~ '^(changes|changes_default|changes_diff|changes_[0-9]+_[0-9]+|recorder|recorded_versions|sources|seals)$' OR EXISTS (
          SELECT FROM pg_depend e JOIN pg_extension x ON x.oid = e.refobjid WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid
            AND e.refclassid = 'pg_extension'::regclass AND e.deptype = 'e'::"char" AND x.extname = 'bemi'::name))
      UNION
      SELECT i.inhrelid FROM own o JOIN pg_inherits i ON i.inhparent = o.oid
    ) SELECT o.oid FROM own o);
END
$$;

COMMENT ON FUNCTION bemi.own_tables() IS
'the tables and views of the extension and of bemi.start(), partitions included';

-- Cheap, since the recorder asks before each write.
CREATE FUNCTION bemi.unsafe_tables(relations oid[]) RETURNS TABLE (detail text, fix text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
    SELECT format('the %s %s belongs to the role %I, who is no superuser', i.type, c.oid::regclass, o.rolname),
      format('ALTER %s %s OWNER TO %I;', upper(i.type), c.oid::regclass,
        (SELECT r.rolname FROM pg_roles r WHERE r.rolsuper ORDER BY r.rolname = current_user DESC, r.oid LIMIT 1))
    FROM unnest(relations) u (oid) JOIN pg_class c ON c.oid = u.oid LEFT JOIN pg_roles o ON o.oid = c.relowner,
      LATERAL pg_identify_object('pg_class'::regclass, c.oid, 0) i
    WHERE o.rolsuper IS NOT TRUE;
  RETURN QUERY
    SELECT format('the role %s has %s on %s', g.grantee, string_agg(DISTINCT g.privilege_type, ', '), g.relation),
      -- What was granted by those to whom it was granted ends with their own right.
      format('REVOKE %s ON %s FROM %s CASCADE;', string_agg(DISTINCT g.privilege_type, ', '), g.relation, g.revoked)
    FROM (
      SELECT c.oid::regclass AS relation, a.privilege_type, COALESCE(quote_ident(r.rolname), 'PUBLIC') AS grantee,
        CASE WHEN a.grantor <> c.relowner THEN quote_ident(pg_get_userbyid(a.grantor)) ELSE COALESCE(quote_ident(r.rolname), 'PUBLIC') END AS revoked
      FROM unnest(relations) u (oid) JOIN pg_class c ON c.oid = u.oid, LATERAL (
        SELECT e.* FROM aclexplode(c.relacl) e
        UNION ALL SELECT e.* FROM pg_attribute t, aclexplode(t.attacl) e WHERE t.attrelid = c.oid AND t.attacl IS NOT NULL
      ) a LEFT JOIN pg_roles r ON r.oid = a.grantee
      WHERE a.privilege_type <> 'SELECT' AND a.grantee <> c.relowner AND r.rolsuper IS NOT TRUE
    ) g GROUP BY g.relation, g.grantee, g.revoked;
  RETURN QUERY
    SELECT format('the trigger %I on %s calls %s, which belongs to the role %I, who is no superuser', t.tgname, t.tgrelid::regclass, p.oid::regprocedure, r.rolname),
      format('DROP TRIGGER %I ON %s;', t.tgname, t.tgrelid::regclass)
    FROM unnest(relations) u (oid) JOIN pg_trigger t ON t.tgrelid = u.oid JOIN pg_proc p ON p.oid = t.tgfoid LEFT JOIN pg_roles r ON r.oid = p.proowner
    WHERE NOT t.tgisinternal AND t.tgparentid = 0 AND r.rolsuper IS NOT TRUE;
END
$$;

COMMENT ON FUNCTION bemi.unsafe_tables(oid[]) IS
'which of some tables belong to others than superusers, have triggers of others, or may be written by others';

-- Expressions, operators and types that run when such a table is written or read: all that is reached from what hangs on it.
CREATE FUNCTION bemi.unsafe_code(relations oid[]) RETURNS TABLE (detail text, fix text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  -- And relations that have expressions, or columns with types, of their own.
  classes oid[] := ARRAY['pg_proc', 'pg_type', 'pg_operator', 'pg_opclass', 'pg_opfamily', 'pg_collation', 'pg_ts_config', 'pg_ts_dict']::regclass[];
BEGIN
  RETURN QUERY
    SELECT format('the table %s has a rule: %I', c.oid::regclass, w.rulename), format('DROP RULE %I ON %s;', w.rulename, c.oid::regclass)
    FROM unnest(relations) u (oid) JOIN pg_class c ON c.oid = u.oid JOIN pg_rewrite w ON w.ev_class = c.oid
    WHERE NOT (c.relkind = ANY ('{v,m}'::"char"[]) AND w.rulename = '_RETURN'::name);
  RETURN QUERY
    SELECT format('the view %s is not as it was made', c.oid::regclass),
      'DROP EXTENSION bemi CASCADE; CREATE EXTENSION bemi; -- then the tables have to be tracked again'::text
    FROM unnest(relations) u (oid) JOIN pg_class c ON c.oid = u.oid JOIN pg_rewrite w ON w.ev_class = c.oid JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = 1
    WHERE c.relkind = 'v'::"char" AND w.xmin::text <> a.xmin::text AND c.relname <> 'changes_diff'::name;
  RETURN QUERY
    SELECT format('the table %s inherits from %s', i.inhrelid::regclass, i.inhparent::regclass), format('ALTER TABLE %s NO INHERIT %s;', i.inhrelid::regclass, i.inhparent::regclass)
    FROM unnest(relations) u (oid) JOIN pg_inherits i ON i.inhrelid = u.oid JOIN pg_class p ON p.oid = i.inhparent
    WHERE p.relkind = ANY ('{r,f}'::"char"[]) AND i.inhparent <> ALL (relations);
  -- The server's queries for them run as the owner of the other table, and triggers of that one with them.
  RETURN QUERY
    SELECT format('the foreign key %I of %s refers to %s, one of which belongs to a role that is no superuser', k.conname, k.conrelid::regclass, k.confrelid::regclass),
      format('ALTER TABLE %s DROP CONSTRAINT %I;', k.conrelid::regclass, k.conname)
    FROM pg_constraint k JOIN pg_class r ON r.oid = k.conrelid JOIN pg_class f ON f.oid = k.confrelid
    WHERE k.contype = 'f'::"char" AND k.conparentid = 0 AND (k.conrelid = ANY (relations) OR k.confrelid = ANY (relations))
      AND EXISTS (SELECT FROM pg_roles o WHERE o.oid IN (r.relowner, f.relowner) AND NOT o.rolsuper);
  -- Functions of the server's own may run SQL that they are given as text; those are not immutable. On those no object depends.
  RETURN QUERY
    SELECT DISTINCT format('the %s %s uses the function %s, which is not immutable', i.type, i.identity, p.oid::regprocedure), bemi.removal(e.classid, e.objid, e.number)
    FROM (
      SELECT 'pg_constraint'::regclass::oid AS classid, k.oid AS objid, 0 AS number, k.conbin::text AS tree FROM unnest(relations) u (oid) JOIN pg_constraint k ON k.conrelid = u.oid
      UNION ALL SELECT 'pg_attrdef'::regclass, d.oid, 0, d.adbin::text FROM unnest(relations) u (oid) JOIN pg_attrdef d ON d.adrelid = u.oid
      UNION ALL SELECT 'pg_class'::regclass, x.indexrelid, 0, concat_ws(' ', x.indexprs, x.indpred) FROM unnest(relations) u (oid) JOIN pg_index x ON x.indrelid = u.oid
      UNION ALL SELECT 'pg_trigger'::regclass, t.oid, 0, t.tgqual::text FROM unnest(relations) u (oid) JOIN pg_trigger t ON t.tgrelid = u.oid
      UNION ALL SELECT 'pg_statistic_ext'::regclass, s.oid, 0, s.stxexprs::text FROM unnest(relations) u (oid) JOIN pg_statistic_ext s ON s.stxrelid = u.oid
    ) e CROSS JOIN LATERAL regexp_matches(e.tree, ':(?:funcid|opfuncid) ([0-9]+)', 'g') m JOIN pg_proc p ON p.oid = m[1]::oid,
      LATERAL pg_identify_object(e.classid, e.objid, 0) i
    WHERE p.provolatile <> 'i'::"char" AND (p.oid >= 16384::oid OR p.proname ~ 'to_xml'
      OR p.provolatile = 'v'::"char" AND p.proname <> ALL ('{clock_timestamp,gen_random_uuid,uuidv4,uuidv7,nextval,random,timeofday}'::name[]));
  RETURN QUERY
    -- What partitions have of the table above them is looked at there.
    WITH RECURSIVE parts AS (
      SELECT 'pg_class'::regclass::oid AS classid, c.oid AS objid FROM unnest(relations) u (oid) JOIN pg_class c ON c.oid = u.oid WHERE NOT c.relispartition
      UNION ALL SELECT 'pg_class'::regclass, c.oid FROM unnest(relations) u (oid) JOIN pg_index i ON i.indrelid = u.oid JOIN pg_class c ON c.oid = i.indexrelid
        WHERE NOT c.relispartition
      UNION ALL SELECT 'pg_trigger'::regclass, t.oid FROM unnest(relations) u (oid) JOIN pg_trigger t ON t.tgrelid = u.oid
        WHERE NOT t.tgisinternal AND t.tgparentid = 0
      -- Foreign keys of others that refer to it have triggers of the server's own on it.
      UNION SELECT 'pg_constraint'::regclass, t.tgconstraint FROM unnest(relations) u (oid) JOIN pg_trigger t ON t.tgrelid = u.oid WHERE t.tgisinternal
      UNION SELECT 'pg_constraint'::regclass, c.oid FROM unnest(relations) u (oid) JOIN pg_constraint c ON c.conrelid = u.oid
        WHERE (c.coninhcount = 0 OR NOT EXISTS (SELECT FROM pg_class r WHERE r.oid = u.oid AND r.relispartition)) AND c.contype <> 'n'::"char"
      UNION ALL SELECT 'pg_rewrite'::regclass, w.oid FROM unnest(relations) u (oid) JOIN pg_rewrite w ON w.ev_class = u.oid
        WHERE w.rulename = '_RETURN'::name
      UNION ALL SELECT 'pg_policy'::regclass, p.oid FROM unnest(relations) u (oid) JOIN pg_policy p ON p.polrelid = u.oid
      UNION ALL SELECT 'pg_attrdef'::regclass, a.oid FROM unnest(relations) u (oid) JOIN pg_attrdef a ON a.adrelid = u.oid
      UNION ALL SELECT 'pg_statistic_ext'::regclass, s.oid FROM unnest(relations) u (oid) JOIN pg_statistic_ext s ON s.stxrelid = u.oid
    ), code AS (
      SELECT p.classid AS part_class, p.objid AS part, d.objsubid AS number, d.refclassid AS classid, d.refobjid AS objid
      FROM parts p JOIN pg_depend d ON d.classid = p.classid AND d.objid = p.objid WHERE (d.refclassid = ANY (classes) OR d.refclassid = 'pg_class'::regclass AND EXISTS (
          SELECT FROM pg_class r WHERE r.oid = d.refobjid AND r.relkind = ANY ('{v,m,c}'::"char"[])))
      UNION
      SELECT c.part_class, c.part, c.number, n.classid, n.objid FROM code c, LATERAL (
        SELECT d.refclassid AS classid, d.refobjid AS objid FROM pg_depend d
        WHERE d.classid = c.classid AND d.objid = c.objid AND (d.refclassid = ANY (classes) OR d.refclassid = 'pg_class'::regclass AND EXISTS (
          SELECT FROM pg_class r WHERE r.oid = d.refobjid AND r.relkind = ANY ('{v,m,c}'::"char"[])))
        UNION ALL SELECT 'pg_constraint'::regclass, k.oid FROM pg_constraint k WHERE c.classid = 'pg_type'::regclass AND k.contypid = c.objid
        UNION ALL SELECT 'pg_rewrite'::regclass, w.oid FROM pg_rewrite w WHERE c.classid = 'pg_class'::regclass AND w.ev_class = c.objid
      ) n
    )
    SELECT DISTINCT format('the %s %s uses the %s %s, which belongs to the role %I, who is no superuser', part.type, part.identity, i.type, i.identity, r.rolname),
      bemi.removal(c.part_class, c.part, c.number)
    FROM code c JOIN pg_database b ON b.datname = current_database()
    JOIN pg_shdepend s ON s.dbid = b.oid AND s.classid = c.classid AND s.objid = c.objid AND s.objsubid = 0 AND s.deptype = 'o'::"char"
    LEFT JOIN pg_roles r ON r.oid = s.refobjid, LATERAL pg_identify_object(c.classid, c.objid, 0) i,
      LATERAL pg_identify_object(c.part_class, c.part, CASE c.part_class WHEN 'pg_class'::regclass THEN c.number ELSE 0 END) part
    -- The functions of triggers are with the tables.
    WHERE r.rolsuper IS NOT TRUE AND NOT EXISTS (
      SELECT FROM pg_trigger t WHERE c.part_class = 'pg_trigger'::regclass AND t.oid = c.part AND c.classid = 'pg_proc'::regclass AND t.tgfoid = c.objid);
END
$$;

COMMENT ON FUNCTION bemi.unsafe_code(oid[]) IS
'which rules, expressions, operators and types of others some tables have';

CREATE FUNCTION bemi.removal(class oid, object oid, number int) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE class
    WHEN 'pg_trigger'::regclass THEN (SELECT format('DROP TRIGGER %I ON %s;', t.tgname, t.tgrelid::regclass) FROM pg_trigger t WHERE t.oid = object)
    WHEN 'pg_constraint'::regclass THEN (SELECT format('ALTER TABLE %s DROP CONSTRAINT %I;', c.conrelid::regclass, c.conname) FROM pg_constraint c WHERE c.oid = object)
    WHEN 'pg_policy'::regclass THEN (SELECT format('DROP POLICY %I ON %s;', p.polname, p.polrelid::regclass) FROM pg_policy p WHERE p.oid = object)
    WHEN 'pg_attrdef'::regclass THEN (
      SELECT format('ALTER TABLE %s %s;', d.adrelid::regclass, format(CASE a.attgenerated WHEN '' THEN 'ALTER COLUMN %I DROP DEFAULT' ELSE 'DROP COLUMN %I' END, a.attname))
      FROM pg_attrdef d JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum WHERE d.oid = object)
    WHEN 'pg_statistic_ext'::regclass THEN (SELECT format('DROP STATISTICS %s;', i.identity) FROM pg_identify_object(class, object, 0) i)
    WHEN 'pg_rewrite'::regclass THEN (
      SELECT format('DROP VIEW %s;', w.ev_class::regclass) FROM pg_rewrite w WHERE w.oid = object)
    ELSE (SELECT CASE WHEN c.relkind = ANY ('{i,I}'::"char"[]) THEN format('DROP INDEX %s;', c.oid::regclass)
        -- A domain's values are those of its base type.
        WHEN t.typtype = 'd'::"char" THEN format('ALTER TABLE %s ALTER COLUMN %I TYPE %s;', c.oid::regclass, a.attname, format_type(t.typbasetype, t.typtypmod))
        WHEN a.attname IS NOT NULL THEN format('ALTER TABLE %s DROP COLUMN %I;', c.oid::regclass, a.attname)
        ELSE format('DROP TABLE %s;', c.oid::regclass) END
      FROM pg_class c LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = number AND number > 0 LEFT JOIN pg_type t ON t.oid = a.atttypid WHERE c.oid = object)
  END
$$;

COMMENT ON FUNCTION bemi.removal(oid, oid, int) IS
'the statement that removes something from a table';

CREATE FUNCTION bemi.unsafe() RETURNS TABLE (detail text, fix text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  tables oid[] := bemi.own_tables();
BEGIN
  -- An object that is found in two ways is shown once.
  RETURN QUERY SELECT o.detail, o.fix FROM bemi.unsafe_objects() o;
  RETURN QUERY SELECT t.detail, t.fix FROM bemi.unsafe_tables(tables) t
    WHERE NOT EXISTS (SELECT FROM bemi.unsafe_objects() o WHERE o.fix = t.fix);
  RETURN QUERY SELECT c.detail, c.fix FROM bemi.unsafe_code(tables) c;
END
$$;

COMMENT ON FUNCTION bemi.unsafe() IS
'where a role that is no superuser could have something run by one, or write what the recorder writes, and the statement that ends it; no row if nowhere';

CREATE FUNCTION bemi.require_safe() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  wrong record;
BEGIN
  FOR wrong IN SELECT u.detail, u.fix FROM bemi.unsafe() u LOOP
    RAISE EXCEPTION '%', wrong.detail USING ERRCODE = 'insufficient_privilege', HINT = wrong.fix;
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.require_safe() IS
'raises an error if a role that is no superuser could have something run by one, or write what the recorder writes';

CREATE FUNCTION bemi.is_plain(relation oid, is_written boolean) RETURNS boolean
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'bemi_is_plain';

COMMENT ON FUNCTION bemi.is_plain(oid, boolean) IS
'locks a table or view; true if it is a superuser''s, nobody else may write it, and nothing of others runs when it is read or written';

-- Raises an error for what is not plain, and not safe on a closer look either. Queries do not see what came after the snapshot of
-- their transaction, which whoever runs a statement has chosen.
CREATE FUNCTION bemi.refuse_unsafe(relations oid[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  wrong record;
BEGIN
  -- An update of a table is one of its children too.
  WITH RECURSIVE heirs AS (
    SELECT i.inhrelid FROM pg_inherits i WHERE i.inhparent = ANY (relations)
    UNION SELECT i.inhrelid FROM heirs h JOIN pg_inherits i ON i.inhparent = h.inhrelid
  ) SELECT relations || COALESCE(array_agg(h.inhrelid), '{}') INTO relations FROM heirs h;
  FOR wrong IN
    SELECT t.detail, t.fix FROM bemi.unsafe_tables(relations) t UNION ALL SELECT c.detail, c.fix FROM bemi.unsafe_code(relations) c
  LOOP
    RAISE EXCEPTION '%', wrong.detail USING ERRCODE = 'insufficient_privilege', HINT = wrong.fix;
  END LOOP;
  IF current_setting('transaction_isolation') IN ('repeatable read', 'serializable') THEN
    RAISE EXCEPTION 'a transaction with the isolation level % does not see all of what hangs on the table %', current_setting('transaction_isolation'), relations[1]::regclass
      USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'SET TRANSACTION ISOLATION LEVEL READ COMMITTED; -- at the beginning of the transaction';
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.refuse_unsafe(oid[]) IS
'raises an error if something of others runs when some tables or views are read or written';

-- Before something reads or writes them as a superuser. Whoever waits to put a trigger on one that is written has to wait on.
CREATE FUNCTION bemi.require_safe_tables(relations oid[], is_written boolean DEFAULT true) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  relation oid;
  others oid[] := '{}';
BEGIN
  FOREACH relation IN ARRAY relations LOOP
    IF NOT bemi.is_plain(relation, is_written) THEN
      others := others || relation;
    END IF;
  END LOOP;
  IF others <> '{}' THEN
    PERFORM bemi.refuse_unsafe(others);
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.require_safe_tables(oid[], boolean) IS
'raises an error if some tables belong to a role that is no superuser, or such a role can write them or has something run by those who read or write them';

-- What the planner computes of a table's checks and statistics, and what stands in a view, runs when it is read. What has the name
-- of a table of bemi.start() may be another thing.
CREATE FUNCTION bemi.require_readable() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM bemi.require_safe_tables(array_remove(ARRAY[
    to_regclass('bemi.recorder'), to_regclass('bemi.sources'), to_regclass('bemi.recorded_versions'), to_regclass('bemi.table_versions'),
    to_regclass('bemi.tracked_schemas'), to_regclass('bemi.dropped_triggers'), to_regclass('bemi.context_triggers')]::oid[], NULL::oid), false);
END
$$;

COMMENT ON FUNCTION bemi.require_readable() IS
'raises an error if something of others runs when a table or view is read that the functions of the extension read as a superuser';

-- Default privileges may give a new table to others.
CREATE FUNCTION bemi.own_alone(relation regclass) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  other record;
BEGIN
  FOR other IN
    SELECT DISTINCT COALESCE(quote_ident(r.rolname), 'PUBLIC') AS grantee FROM pg_class c, LATERAL (
      SELECT e.grantee FROM aclexplode(c.relacl) e
      UNION ALL SELECT e.grantee FROM pg_attribute t, aclexplode(t.attacl) e WHERE t.attrelid = c.oid AND t.attacl IS NOT NULL
    ) a LEFT JOIN pg_roles r ON r.oid = a.grantee WHERE c.oid = relation AND a.grantee <> c.relowner
  LOOP
    EXECUTE format('REVOKE ALL ON %s FROM %s CASCADE', relation, other.grantee);
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.own_alone(regclass) IS
'takes all rights to a table from everyone but its owner';

-- As far as the tables of an earlier installation, and what is in the schema, can be judged already.
SELECT bemi.require_safe();
