-- A role that can create objects in the schema bemi, or attach something to its tables, can run code as a superuser:
-- as the one who creates the extension or starts the recorder, or as the recorder. So no other role may do that. The
-- functions here find where one could, and return the statement that ends it. This file comes first in the script,
-- since the schema may have been created by somebody else.

SET LOCAL search_path = pg_catalog, pg_temp;
-- Event triggers of others are meant for users' statements, and one that fails would fail this one.
SET LOCAL session_replication_role = replica;

-- Default privileges may have granted rights on a schema that this very statement created.
DO $do$
DECLARE
  made bigint;
  top bigint := pg_current_xact_id()::text::bigint;
  other record;
BEGIN
  SELECT (n.xmin::text::bigint - top) & 4294967295
  INTO made
  FROM pg_namespace n
  WHERE n.nspname = 'bemi'::name;
  IF made < 1000000 AND pg_xact_status((top + made)::text::xid8) = 'in progress' THEN
    FOR other IN
      SELECT DISTINCT COALESCE(quote_ident(r.rolname), 'PUBLIC') AS grantee
      FROM pg_namespace n,
        LATERAL aclexplode(n.nspacl) a
        LEFT JOIN pg_roles r ON r.oid = a.grantee
      WHERE n.nspname = 'bemi'::name
        AND a.grantee <> n.nspowner
    LOOP
      EXECUTE format('REVOKE ALL ON SCHEMA bemi FROM %s', other.grantee);
    END LOOP;
  END IF;
END
$do$;

-- The query is run first, and becomes a function afterwards: no name is looked up in the schema before the schema is
-- known to be safe. <kept> stands for the pattern of the names of the tables that outlive the extension.
DO $do$
DECLARE
  kept text :=
    '^(changes|changes_default|changes_diff|changes_[0-9]+_[0-9]+|recorder|recorded_versions|sources|seals)$';
  query text := $query$
WITH bemi AS (
  SELECT n.oid, n.nspowner, n.nspacl
  FROM pg_namespace n
  WHERE n.nspname = 'bemi'::name
), superuser AS (
  SELECT r.rolname
  FROM pg_roles r
  WHERE r.rolsuper
  ORDER BY r.rolname = current_user DESC, r.oid
  LIMIT 1
), members AS (
  SELECT d.classid, d.objid
  FROM pg_extension e
    JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e'::"char"
  WHERE e.extname = 'bemi'::name
), objects AS (
  SELECT m.classid, m.objid, true AS is_member
  FROM members m
  UNION
  SELECT d.classid, d.objid, false
  FROM bemi b
    JOIN pg_depend d ON d.refclassid = 'pg_namespace'::regclass AND d.refobjid = b.oid AND d.deptype = 'n'::"char"
  WHERE d.classid <> 'pg_default_acl'::regclass
    AND NOT EXISTS (SELECT FROM members m WHERE m.classid = d.classid AND m.objid = d.objid)
), owned AS (
  SELECT o.classid, o.objid, o.is_member, i.type, i.name, i.identity, r.rolname
  FROM objects o
    JOIN pg_database b ON b.datname = current_database()
    JOIN pg_shdepend s ON s.dbid = b.oid AND s.classid = o.classid AND s.objid = o.objid AND s.objsubid = 0
      AND s.deptype = 'o'::"char"
    LEFT JOIN pg_roles r ON r.oid = s.refobjid,
    LATERAL pg_identify_object(o.classid, o.objid, 0) i
  WHERE r.rolsuper IS NOT TRUE
), found AS (
  SELECT
    1 AS place,
    'the schema bemi'::text AS what,
    format('the schema bemi belongs to the role %I, which is not a superuser', r.rolname) AS detail,
    format('ALTER SCHEMA bemi OWNER TO %I;', s.rolname) AS fix
  FROM bemi b
    CROSS JOIN superuser s
    LEFT JOIN pg_roles r ON r.oid = b.nspowner
  WHERE r.rolsuper IS NOT TRUE
  UNION ALL
  -- Revoking a right that was granted by its grantee ends with revoking it from that grantee.
  SELECT
    2,
    a.grantor::text,
    format('the role %s may create objects in the schema bemi', COALESCE(quote_ident(r.rolname), 'PUBLIC')),
    format('REVOKE CREATE ON SCHEMA bemi FROM %s CASCADE;',
      CASE WHEN a.grantor <> b.nspowner THEN quote_ident(pg_get_userbyid(a.grantor))
        ELSE COALESCE(quote_ident(r.rolname), 'PUBLIC') END)
  FROM bemi b
    CROSS JOIN LATERAL aclexplode(b.nspacl) a
    LEFT JOIN pg_roles r ON r.oid = a.grantee
  WHERE a.privilege_type = 'CREATE'
    AND a.grantee <> b.nspowner
    AND r.rolsuper IS NOT TRUE
  UNION ALL
  -- Objects of others are not taken over, whatever their names, except for the tables that outlive the extension.
  SELECT
    CASE o.type WHEN 'extension' THEN 2 WHEN 'type' THEN 5 ELSE 3 END,
    o.identity,
    format('the %s %s belongs to the role %I, which is not a superuser', o.type, o.identity, o.rolname),
    CASE
      WHEN o.type = 'extension' AND o.name = 'bemi' THEN
        format('REASSIGN OWNED BY %I TO %I;', o.rolname, s.rolname)
      WHEN o.is_member OR o.classid = 'pg_class'::regclass AND o.name ~ <kept> THEN
        format('ALTER %s %s OWNER TO %I;', upper(o.type), o.identity, s.rolname)
      ELSE
        format('DROP %s %s; -- it does not belong to bemi',
          CASE o.type
            WHEN 'aggregate' THEN 'ROUTINE'
            WHEN 'statistics object' THEN 'STATISTICS'
            ELSE upper(o.type)
          END, o.identity)
    END
  FROM owned o
    CROSS JOIN superuser s
  UNION ALL
  -- These may have belonged to somebody else before.
  SELECT
    4,
    i.identity,
    format('the %s %s does not belong to the extension, but has the name of one of its functions', i.type, i.identity),
    format('DROP ROUTINE %s;', i.identity)
  FROM objects o
    JOIN pg_proc p ON p.oid = o.objid,
    LATERAL pg_identify_object(o.classid, o.objid, 0) i
  WHERE o.classid = 'pg_proc'::regclass
    AND NOT o.is_member
    AND EXISTS (
      SELECT FROM members m
        JOIN pg_proc q ON q.oid = m.objid
      WHERE m.classid = 'pg_proc'::regclass
        AND q.proname = p.proname)
)
SELECT f.detail, f.fix
FROM found f
ORDER BY f.place, f.what
$query$;
  wrong record;
BEGIN
  query := replace(query, '<kept>', quote_literal(kept));
  FOR wrong IN EXECUTE query LOOP
    RAISE EXCEPTION '%', wrong.detail USING ERRCODE = 'insufficient_privilege', HINT = wrong.fix;
  END LOOP;
  EXECUTE format('CREATE FUNCTION bemi.unsafe_objects() RETURNS TABLE (detail text, fix text) LANGUAGE plpgsql STABLE '
    'SET search_path = pg_catalog, pg_temp AS %L',
    '#variable_conflict use_column' || chr(10) || 'BEGIN RETURN QUERY' || query || ';' || chr(10) || 'END');
  EXECUTE format('CREATE FUNCTION bemi.kept_names() RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE '
    'SET search_path = pg_catalog, pg_temp AS %L', format('SELECT %L::text', kept));
END
$do$;

COMMENT ON FUNCTION bemi.unsafe_objects() IS
'returns what in the schema bemi belongs to roles other than superusers, or may, and the statements that end that';
COMMENT ON FUNCTION bemi.kept_names() IS
'returns the pattern of the names of the tables and views in the schema bemi that outlive the extension';

-- Includes all partitions of bemi.changes, and tables that used to be partitions of it.
CREATE FUNCTION bemi.own_tables() RETURNS oid[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN ARRAY(
    WITH RECURSIVE own AS (
      SELECT c.oid
      FROM pg_namespace n
        JOIN pg_depend d ON d.refclassid = 'pg_namespace'::regclass AND d.refobjid = n.oid
          AND d.classid = 'pg_class'::regclass
        JOIN pg_class c ON c.oid = d.objid
      WHERE n.nspname = 'bemi'::name
        AND c.relkind = ANY ('{r,p,v,m,f,S}'::"char"[])
        AND (c.relname ~ bemi.kept_names() OR EXISTS (
          SELECT FROM pg_depend e
            JOIN pg_extension x ON x.oid = e.refobjid
          WHERE e.classid = 'pg_class'::regclass
            AND e.objid = c.oid
            AND e.refclassid = 'pg_extension'::regclass
            AND e.deptype = 'e'::"char"
            AND x.extname = 'bemi'::name))
      UNION
      SELECT i.inhrelid
      FROM own o
        JOIN pg_inherits i ON i.inhparent = o.oid
    )
    SELECT o.oid FROM own o);
END
$$;

COMMENT ON FUNCTION bemi.own_tables() IS
'returns the tables and views of the extension and of bemi.start(), partitions included';

-- The recorder asks this before each write, so it is cheap.
CREATE FUNCTION bemi.unsafe_tables(relations oid[]) RETURNS TABLE (detail text, fix text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
    SELECT
      format('the %s %s belongs to the role %I, which is not a superuser', i.type, c.oid::regclass, o.rolname),
      format('ALTER %s %s OWNER TO %I;', upper(i.type), c.oid::regclass, (
        SELECT r.rolname
        FROM pg_roles r
        WHERE r.rolsuper
        ORDER BY r.rolname = current_user DESC, r.oid
        LIMIT 1))
    FROM unnest(relations) u (oid)
      JOIN pg_class c ON c.oid = u.oid
      LEFT JOIN pg_roles o ON o.oid = c.relowner,
      LATERAL pg_identify_object('pg_class'::regclass, c.oid, 0) i
    WHERE o.rolsuper IS NOT TRUE;
  RETURN QUERY
    SELECT
      format('the role %s has %s on %s', g.grantee, string_agg(DISTINCT g.privilege_type, ', '), g.relation),
      -- Revoking a right that was granted by its grantee ends with revoking it from that grantee.
      format('REVOKE %s ON %s FROM %s CASCADE;', string_agg(DISTINCT g.privilege_type, ', '), g.relation, g.revoked)
    FROM (
      SELECT
        c.oid::regclass AS relation,
        a.privilege_type,
        COALESCE(quote_ident(r.rolname), 'PUBLIC') AS grantee,
        CASE WHEN a.grantor <> c.relowner THEN quote_ident(pg_get_userbyid(a.grantor))
          ELSE COALESCE(quote_ident(r.rolname), 'PUBLIC') END AS revoked
      FROM unnest(relations) u (oid)
        JOIN pg_class c ON c.oid = u.oid,
        LATERAL (
          SELECT e.* FROM aclexplode(c.relacl) e
          UNION ALL
          SELECT e.* FROM pg_attribute t, aclexplode(t.attacl) e WHERE t.attrelid = c.oid AND t.attacl IS NOT NULL
        ) a
        LEFT JOIN pg_roles r ON r.oid = a.grantee
      WHERE a.privilege_type <> 'SELECT'
        AND a.grantee <> c.relowner
        AND r.rolsuper IS NOT TRUE
    ) g
    GROUP BY g.relation, g.grantee, g.revoked;
  RETURN QUERY
    SELECT
      format('the trigger %I on %s calls %s, which belongs to the role %I, which is not a superuser',
        t.tgname, t.tgrelid::regclass, p.oid::regprocedure, r.rolname),
      format('DROP TRIGGER %I ON %s;', t.tgname, t.tgrelid::regclass)
    FROM unnest(relations) u (oid)
      JOIN pg_trigger t ON t.tgrelid = u.oid
      JOIN pg_proc p ON p.oid = t.tgfoid
      LEFT JOIN pg_roles r ON r.oid = p.proowner
    WHERE NOT t.tgisinternal
      AND t.tgparentid = 0
      AND r.rolsuper IS NOT TRUE;
END
$$;

COMMENT ON FUNCTION bemi.unsafe_tables(oid[]) IS
'returns which of some tables belong to, have triggers of, or may be written by roles other than superusers';
