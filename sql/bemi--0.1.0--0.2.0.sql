-- From 0.1.0 to 0.2.0. Written by `make upgrade-script`, of tests/upgrade/*.sql and src/**/*.sql.

DROP EVENT TRIGGER IF EXISTS bemi_versions_dropped;
DROP EVENT TRIGGER IF EXISTS bemi_versions;
DROP EVENT TRIGGER IF EXISTS bemi_before_drop;
DROP EVENT TRIGGER IF EXISTS bemi_before_ddl;
DROP EVENT TRIGGER IF EXISTS bemi_on_ddl;

-- The event triggers are dropped above, since they would run half of the old functions and half of the new ones.
SET LOCAL search_path = pg_catalog, pg_temp;
SET LOCAL session_replication_role = replica;

-- The recorder ends, and waits for the end of this transaction when the server starts it again.
SELECT bemi.lock_recorder();
SELECT bemi.end_recorder();

-- Rights that somebody granted since the extension was made stay: those that are not in pg_init_privs. An object
-- without a line there had its default rights, with which everybody could use it.
SELECT set_config('bemi_update.granted', COALESCE((
  SELECT jsonb_agg(DISTINCT jsonb_build_array(i.classoid, i.objoid, a.grantee))
  FROM pg_extension e
  JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e'::"char"
  JOIN pg_init_privs i ON i.classoid = d.classid AND i.objoid = d.objid AND i.objsubid = 0
  LEFT JOIN pg_proc p ON d.classid = 'pg_proc'::regclass AND p.oid = d.objid
  LEFT JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid,
    LATERAL aclexplode(COALESCE(p.proacl, c.relacl)) a
  WHERE e.extname = 'bemi'::name AND NOT EXISTS (
    SELECT FROM aclexplode(i.initprivs) o WHERE o.grantee = a.grantee AND o.privilege_type = a.privilege_type)
), '[]'::jsonb)::text, true);

-- Tables whose columns have another order now; their rows are copied below. The new ones take the names of
-- constraints and indexes.
DO $do$
DECLARE
  named record;
BEGIN
  ALTER TABLE bemi.table_versions RENAME TO former_table_versions;
  ALTER INDEX bemi.table_versions_by_root RENAME TO former_table_versions_by_root;
  IF to_regclass('bemi.recorder') IS NOT NULL THEN
    ALTER TABLE bemi.recorder RENAME TO former_recorder;
  END IF;
  FOR named IN
    SELECT c.conrelid::regclass AS relation, c.conname FROM pg_constraint c
    WHERE c.conrelid IN (to_regclass('bemi.former_table_versions'), to_regclass('bemi.former_recorder'))
  LOOP
    EXECUTE format('ALTER TABLE %s RENAME CONSTRAINT %I TO %I',
      named.relation, named.conname, 'former_' || named.conname);
  END LOOP;
END
$do$;

DROP FUNCTION
  bemi.undo_statement(t jsonb, u bemi.undo, now jsonb),
  bemi.truncates(relation oid),
  bemi.present_versions(relations oid[]),
  bemi.revert_selection(transaction_id bigint, context jsonb, relation regclass, primary_key text, since timestamptz, until timestamptz, on_conflict text, path text),
  bemi.bucket("row" text),
  bemi.attempt(u bemi.undo, t jsonb, ours jsonb, path text, waiting bemi.undo[], is_deferred boolean),
  bemi.run_undo(statement text, path text),
  bemi.undos(transaction_id bigint, context jsonb, relation regclass, primary_key text, since timestamptz, until timestamptz),
  bemi.plan_undo(t jsonb, u bemi.undo, omitted jsonb),
  bemi.made_text(type text, kind text, schema text, value jsonb),
  bemi.truncated_rows(relation regclass, commit_position pg_lsn, sequence int),
  bemi.life_after(relation regclass, last bemi.key_change),
  bemi.life_before(relation regclass, next bemi.key_change, asked text),
  bemi.changes_of_key(relation regclass, key text),
  bemi.latest_query(base oid),
  bemi.as_of_query(base oid, moment text, with_dropped boolean, wanted text),
  bemi.late_changes(base oid, moment timestamptz, snapshot pg_snapshot, command int, recorded pg_lsn),
  bemi.key_of(relation regclass),
  bemi.image_expression(relation oid, image text, "position" text),
  bemi.table_at(schema text, "table" text, "position" bigint, OUT relation regclass, OUT since bigint, OUT until bigint),
  bemi.position_number("position" pg_lsn),
  bemi.note_versions(relations oid[], is_late boolean),
  bemi.read_new_versions(relations oid[]),
  bemi.latest_versions(relations oid[]),
  bemi.new_versions(relations oid[]),
  bemi.require_owner(),
  bemi.change_id(committed_at timestamptz, commit_position pg_lsn, sequence int),
  bemi.follow_ddl(done text, old_name text, new_name text),
  bemi.follow_table(relation regclass, in_tracked_schema boolean, is_attached boolean);
DROP TYPE
  bemi.undo,
  bemi.key_change;

SET LOCAL search_path = pg_catalog, pg_temp;

SET LOCAL session_replication_role = replica;

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

CREATE FUNCTION bemi.unsafe() RETURNS TABLE (detail text, fix text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  tables oid[] := bemi.own_tables();
BEGIN
  -- An object that is found in two ways is returned once.
  RETURN QUERY SELECT o.detail, o.fix FROM bemi.unsafe_objects() o;
  RETURN QUERY
    SELECT t.detail, t.fix
    FROM bemi.unsafe_tables(tables) t
    WHERE NOT EXISTS (SELECT FROM bemi.unsafe_objects() o WHERE o.fix = t.fix);
  RETURN QUERY SELECT c.detail, c.fix FROM bemi.unsafe_code(tables) c;
END
$$;

COMMENT ON FUNCTION bemi.unsafe() IS
'returns where a role that is not a superuser could run code as one, or write what the recorder writes, and the fixes';

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
'raises an error if a role that is not a superuser could run code as one, or write what the recorder writes';

CREATE FUNCTION bemi.is_plain(relation oid, is_written boolean) RETURNS boolean
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'bemi_is_plain';

COMMENT ON FUNCTION bemi.is_plain(oid, boolean) IS
'locks a table or view; returns whether only superusers may write it, and reading or writing it runs no code of others';

CREATE FUNCTION bemi.refuse_unsafe(relations oid[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  wrong record;
BEGIN
  -- An UPDATE of a table updates its children too.
  WITH RECURSIVE heirs AS (
    SELECT i.inhrelid
    FROM pg_inherits i
    WHERE i.inhparent = ANY (relations)
    UNION
    SELECT i.inhrelid
    FROM heirs h
      JOIN pg_inherits i ON i.inhparent = h.inhrelid
  )
  SELECT relations || COALESCE(array_agg(h.inhrelid), '{}') INTO relations FROM heirs h;
  FOR wrong IN
    SELECT t.detail, t.fix FROM bemi.unsafe_tables(relations) t
    UNION ALL
    SELECT c.detail, c.fix FROM bemi.unsafe_code(relations) c
  LOOP
    RAISE EXCEPTION '%', wrong.detail USING ERRCODE = 'insufficient_privilege', HINT = wrong.fix;
  END LOOP;
  IF current_setting('transaction_isolation') IN ('repeatable read', 'serializable') THEN
    RAISE EXCEPTION 'a transaction with isolation level % does not see everything that is attached to the table %',
        current_setting('transaction_isolation'), relations[1]::regclass
      USING ERRCODE = 'object_not_in_prerequisite_state',
        HINT = 'SET TRANSACTION ISOLATION LEVEL READ COMMITTED; -- at the beginning of the transaction';
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.refuse_unsafe(oid[]) IS
'raises an error if reading or writing some tables or views runs code of others';

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
'locks some tables; raises an error if a role that is not a superuser can write them, or run code when they are used';

CREATE FUNCTION bemi.require_readable() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM bemi.require_safe_tables(array_remove(ARRAY[
    to_regclass('bemi.recorder'), to_regclass('bemi.sources'), to_regclass('bemi.recorded_versions'),
    to_regclass('bemi.table_versions'), to_regclass('bemi.tracked_schemas'), to_regclass('bemi.dropped_triggers'),
    to_regclass('bemi.context_triggers')]::oid[], NULL::oid), false);
END
$$;

COMMENT ON FUNCTION bemi.require_readable() IS
'raises an error if reading a table or view that functions of the extension read as a superuser runs code of others';

CREATE FUNCTION bemi.own_alone(relation regclass) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  other record;
BEGIN
  FOR other IN
    SELECT DISTINCT COALESCE(quote_ident(r.rolname), 'PUBLIC') AS grantee
    FROM pg_class c,
      LATERAL (
        SELECT e.grantee FROM aclexplode(c.relacl) e
        UNION ALL
        SELECT e.grantee FROM pg_attribute t, aclexplode(t.attacl) e WHERE t.attrelid = c.oid AND t.attacl IS NOT NULL
      ) a
      LEFT JOIN pg_roles r ON r.oid = a.grantee
    WHERE c.oid = relation
      AND a.grantee <> c.relowner
  LOOP
    EXECUTE format('REVOKE ALL ON %s FROM %s CASCADE', relation, other.grantee);
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.own_alone(regclass) IS
'revokes all rights on a table from everyone but its owner';

SELECT bemi.require_safe();

CREATE OR REPLACE FUNCTION bemi.set_context(context jsonb, is_local boolean DEFAULT false) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'bemi_set_context_jsonb';

CREATE OR REPLACE FUNCTION bemi.set_context(context text, is_local boolean DEFAULT false) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'bemi_set_context_text';

COMMENT ON FUNCTION bemi.set_context(jsonb, boolean) IS
'sets the context of later changes in this session or, with is_local, in this transaction; NULL clears it';

COMMENT ON FUNCTION bemi.set_context(text, boolean) IS
'sets the context of later changes in this session or, with is_local, in this transaction; NULL clears it';

CREATE OR REPLACE FUNCTION bemi.merge_context(context jsonb, is_local boolean DEFAULT false) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'bemi_merge_context_jsonb';

CREATE OR REPLACE FUNCTION bemi.merge_context(context text, is_local boolean DEFAULT false) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'bemi_merge_context_text';

COMMENT ON FUNCTION bemi.merge_context(jsonb, boolean) IS
'adds keys to the context of later changes';

COMMENT ON FUNCTION bemi.merge_context(text, boolean) IS
'adds keys to the context of later changes';

CREATE OR REPLACE FUNCTION bemi.clear_context() RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'bemi_clear_context';

COMMENT ON FUNCTION bemi.clear_context() IS
'removes the context: later changes carry none';

CREATE OR REPLACE FUNCTION bemi.context() RETURNS jsonb
LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'bemi_context';

COMMENT ON FUNCTION bemi.context() IS
'returns the context that changes of the next statement will carry, unless it contains one in a comment';

CREATE OR REPLACE FUNCTION bemi.emit_context() RETURNS trigger
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'bemi_emit_context';

COMMENT ON FUNCTION bemi.emit_context() IS
'writes the context of a statement to WAL, as a BEFORE trigger FOR EACH STATEMENT';

CREATE FUNCTION bemi.publications_of(relation regclass)
RETURNS TABLE (
  publication name, via_root boolean, published_as oid, column_list smallint[], filter_columns smallint[],
  has_generated boolean
)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  lineage oid[];
BEGIN
  IF NOT EXISTS (SELECT FROM pg_publication) THEN
    RETURN;
  END IF;
  -- The table first, the root last.
  lineage := CASE WHEN (SELECT relispartition FROM pg_class WHERE oid = relation)
    THEN ARRAY(
      SELECT a.relid::oid
      FROM pg_partition_ancestors(relation) WITH ORDINALITY AS a (relid, place)
      ORDER BY a.place)
    ELSE ARRAY[relation::oid] END;
  RETURN QUERY
    WITH members AS (
      SELECT r.prpubid AS id, l.place, l.relid
      FROM pg_publication_rel r
        JOIN unnest(lineage) WITH ORDINALITY AS l (relid, place) ON l.relid = r.prrelid
      UNION ALL
      SELECT m.id, m.place, m.relid
      FROM bemi.published_schemas_of(lineage) m
    ), published AS (
      SELECT p.*,
        CASE WHEN p.pubviaroot THEN (
          SELECT m.relid FROM members m WHERE m.id = p.oid ORDER BY m.place DESC LIMIT 1) END AS topmost
      FROM pg_publication p
      WHERE (p.pubupdate OR p.pubdelete)
        AND (p.puballtables OR p.oid IN (SELECT m.id FROM members m))
    )
    SELECT p.pubname, p.pubviaroot, COALESCE(p.topmost, relation::oid),
      CASE WHEN NOT p.puballtables AND jsonb_typeof(r.row -> 'prattrs') = 'array' THEN ARRAY(
        SELECT number::smallint FROM jsonb_array_elements_text(r.row -> 'prattrs') number) END,
      CASE WHEN NOT p.puballtables AND jsonb_typeof(r.row -> 'prqual') = 'string' THEN ARRAY(
        SELECT DISTINCT var[1]::smallint
        FROM regexp_matches(r.row ->> 'prqual', ':varattno (-?[0-9]+) ', 'g') var) END,
      COALESCE(to_jsonb(p) ->> 'pubgencols' = 's', false)
    FROM published p
      LEFT JOIN LATERAL (
        SELECT to_jsonb(e) AS "row"
        FROM pg_publication_rel e
        WHERE e.prpubid = p.oid
          AND e.prrelid = COALESCE(p.topmost, relation::oid)
      ) r ON true
    ORDER BY p.pubname;
END
$$;

COMMENT ON FUNCTION bemi.publications_of(regclass) IS
'returns the publications of updates or deletes of a table, the table that they publish it as, column list and filter';

CREATE FUNCTION bemi.published_schemas_of(relations oid[]) RETURNS TABLE (id oid, place bigint, relid oid)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF to_regclass('pg_catalog.pg_publication_namespace') IS NOT NULL THEN
    RETURN QUERY
      SELECT n.pnpubid, l.place, l.relid
      FROM unnest(relations) WITH ORDINALITY AS l (relid, place)
        JOIN pg_class c ON c.oid = l.relid
        JOIN pg_publication_namespace n ON n.pnnspid = c.relnamespace;
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.published_schemas_of(oid[]) IS
'returns the publications of the schemas of tables';

CREATE FUNCTION bemi.identity_columns(relation regclass, identity text) RETURNS smallint[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  index name := substring(identity FROM '^index:(.*)$');
  numbers smallint[];
BEGIN
  IF identity = 'full' THEN
    RETURN ARRAY(
      SELECT a.attnum FROM pg_attribute a WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped);
  ELSIF identity = 'nothing' THEN
    RETURN NULL;
  END IF;
  SELECT (i.indkey::int2[])[0:i.indnkeyatts - 1]
  INTO numbers
  FROM pg_index i
    JOIN pg_class c ON c.oid = i.indexrelid
  WHERE i.indrelid = relation
    AND i.indisvalid
    AND i.indimmediate
    AND c.relname = index;
  -- If the index was dropped, the default applies.
  IF NOT FOUND THEN
    SELECT (i.indkey::int2[])[0:i.indnkeyatts - 1]
    INTO numbers
    FROM pg_index i
    WHERE i.indrelid = relation
      AND i.indisprimary
      AND i.indisvalid
      AND i.indimmediate;
  END IF;
  RETURN numbers;
END
$$;

COMMENT ON FUNCTION bemi.identity_columns(regclass, text) IS
'returns the columns of a replica identity of a table (default, nothing, full or index:name), or NULL if it has none';

CREATE FUNCTION bemi.names_of_columns(relation regclass, numbers smallint[]) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum)
  FROM pg_attribute a
  WHERE a.attrelid = relation
    AND a.attnum = ANY (numbers)
$$;

COMMENT ON FUNCTION bemi.names_of_columns(regclass, smallint[]) IS
'returns the names of columns of a table, given their numbers';

CREATE FUNCTION bemi.unfiltered_columns(
  relation regclass, columns smallint[], published_as oid, filter_columns smallint[]
) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN (
    SELECT string_agg(quote_ident(f.attname), ', ' ORDER BY f.attnum)
    FROM pg_attribute f
    WHERE f.attrelid = published_as
      AND f.attnum = ANY (filter_columns)
      AND NOT EXISTS (
        SELECT FROM pg_attribute a
        WHERE a.attrelid = relation
          AND a.attnum = ANY (columns)
          AND a.attname = f.attname
          AND NOT a.attisdropped));
END
$$;

COMMENT ON FUNCTION bemi.unfiltered_columns(regclass, smallint[], oid, smallint[]) IS
'returns the columns of a row filter that a replica identity of a table lacks';

CREATE FUNCTION bemi.unlisted_columns(
  relation regclass, columns smallint[], published_as oid, column_list smallint[]
) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN (
    SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum)
    FROM pg_attribute a
    WHERE a.attrelid = relation
      AND a.attnum = ANY (columns)
      AND NOT EXISTS (
        SELECT FROM pg_attribute l
        WHERE l.attrelid = published_as
          AND l.attnum = ANY (column_list)
          AND l.attname = a.attname));
END
$$;

COMMENT ON FUNCTION bemi.unlisted_columns(regclass, smallint[], oid, smallint[]) IS
'returns the columns of a replica identity of a table that a column list lacks';

CREATE FUNCTION bemi.ungenerated_columns(relation regclass, columns smallint[], has_generated boolean) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN (
    SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum)
    FROM pg_attribute a
    WHERE a.attrelid = relation
      AND a.attnum = ANY (columns)
      AND (a.attgenerated = 'v' OR a.attgenerated = 's' AND NOT has_generated));
END
$$;

COMMENT ON FUNCTION bemi.ungenerated_columns(regclass, smallint[], boolean) IS
'returns the generated columns of a replica identity of a table that a publication does not publish';

CREATE FUNCTION bemi.identity_conflict(relation regclass, identity text)
RETURNS TABLE (publication name, reason text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  published record;
  columns smallint[];
  lacking text;
BEGIN
  -- Of partitioned tables, only the partitions count; what is not in WAL is not published.
  IF NOT EXISTS (SELECT FROM pg_publication)
    OR NOT EXISTS (SELECT FROM pg_class WHERE oid = relation AND relkind = 'r' AND relpersistence = 'p')
  THEN
    RETURN;
  END IF;
  columns := bemi.identity_columns(relation, identity);
  FOR published IN SELECT * FROM bemi.publications_of(relation) LOOP
    publication := published.publication;
    IF columns IS NULL THEN
      reason := 'the table has no replica identity';
      RETURN NEXT;
    END IF;
    -- A filter is evaluated on the row before a change.
    IF identity <> 'full' THEN
      lacking := bemi.unfiltered_columns(relation, columns, published.published_as, published.filter_columns);
      IF lacking IS NOT NULL THEN
        reason := format('its row filter uses columns that the replica identity lacks (%s)', lacking);
        RETURN NEXT;
      END IF;
    END IF;
    IF published.column_list IS NOT NULL AND identity = 'full' THEN
      reason := format('its column list (%s) does not allow REPLICA IDENTITY FULL',
        bemi.names_of_columns(published.published_as, published.column_list));
      RETURN NEXT;
    ELSIF published.column_list IS NOT NULL THEN
      lacking := bemi.unlisted_columns(relation, columns, published.published_as, published.column_list);
      IF lacking IS NOT NULL THEN
        reason := format('its column list lacks columns of the replica identity (%s)', lacking);
        RETURN NEXT;
      END IF;
    END IF;
    IF current_setting('server_version_num')::int >= 180000
      AND (published.column_list IS NULL OR identity = 'full')
    THEN
      lacking := bemi.ungenerated_columns(relation, columns, published.has_generated);
      IF lacking IS NOT NULL THEN
        reason := format('it does not publish generated columns of the replica identity (%s)', lacking);
        RETURN NEXT;
      END IF;
    END IF;
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.identity_conflict(regclass, text) IS
'returns the publications with which UPDATE or DELETE of a table would fail if it had a replica identity, and why';

CREATE FUNCTION bemi.identity_problem(relation regclass, identity text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT string_agg(format('the publication %I: %s', c.publication, c.reason), '; ')
  FROM bemi.identity_conflict(relation, identity) c
$$;

COMMENT ON FUNCTION bemi.identity_problem(regclass, text) IS
'returns the conflicts of a replica identity of a table with publications as one text, or NULL if none';

CREATE FUNCTION bemi.identity_remedy(relation regclass) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  was text := bemi.identity_before(relation);
BEGIN
  RETURN CASE
    WHEN was IS NOT NULL AND bemi.identity_problem(relation, was) IS NULL THEN
      format('SELECT bemi.track_again(%L);', relation)
    WHEN bemi.identity_problem(relation, 'default') IS NULL THEN
      format('ALTER TABLE ONLY %s REPLICA IDENTITY DEFAULT;', relation)
    WHEN bemi.identity_problem(relation, 'full') IS NULL THEN
      format('ALTER TABLE ONLY %s REPLICA IDENTITY FULL;', relation)
    -- Where a person has to choose.
    ELSE
      format('SELECT * FROM bemi.identity_conflict(%L, bemi.identity(%L));', relation, relation)
    END;
END
$$;

COMMENT ON FUNCTION bemi.identity_remedy(regclass) IS
'returns the statement that allows UPDATE and DELETE of a table again, or one that shows why publications refuse them';

CREATE FUNCTION bemi.warn_of_conflicts(relations oid[] DEFAULT NULL) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  conflict record;
BEGIN
  IF NOT EXISTS (SELECT FROM pg_publication) THEN
    RETURN;
  END IF;
  FOR conflict IN
    SELECT t.relation::regclass AS relation,
      bemi.identity_problem(t.relation::regclass, bemi.identity(t.relation::regclass)) AS problem
    FROM (
      SELECT DISTINCT c.relation
      FROM bemi.context_triggers c
      WHERE relations IS NULL OR c.relation = ANY (relations)
    ) t
    ORDER BY 1
  LOOP
    IF conflict.problem IS NOT NULL THEN
      RAISE WARNING 'UPDATE and DELETE of % will fail now: %', conflict.relation, conflict.problem
        USING HINT = bemi.identity_remedy(conflict.relation);
    END IF;
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.warn_of_conflicts(oid[]) IS
'warns of tracked tables, among some or all, whose replica identity a publication does not allow';

CREATE FUNCTION bemi.publications_of_bemi() RETURNS TABLE (publication name, detail text, fix text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  form record;
  other name;
  ours oid[] := ARRAY(
    SELECT c.oid FROM pg_class c WHERE c.relnamespace = 'bemi'::regnamespace AND c.relkind = 'r' LIMIT 1);
BEGIN
  FOR form IN SELECT p.*, to_jsonb(p) AS "row" FROM pg_publication p ORDER BY p.pubname LOOP
    publication := form.pubname;
    IF form.puballtables THEN
      other := bemi.name_without_bemi(form.pubname);
      detail := format('the publication %I is FOR ALL TABLES', form.pubname);
      fix := CASE WHEN EXISTS (SELECT FROM pg_publication o WHERE o.pubname = other)
        THEN format('DROP PUBLICATION %I;', form.pubname)
        ELSE bemi.publication_without_bemi(form.oid, other) END;
      RETURN NEXT;
      CONTINUE;
    END IF;
    IF form.oid IN (SELECT s.id FROM bemi.published_schemas_of(ours) s) THEN
      detail := format('the publication %I is FOR TABLES IN SCHEMA bemi', form.pubname);
      fix := format('ALTER PUBLICATION %I DROP TABLES IN SCHEMA bemi;', form.pubname);
      RETURN NEXT;
    ELSIF NOT form.pubviaroot AND EXISTS (
      SELECT FROM pg_publication_rel r WHERE r.prpubid = form.oid AND r.prrelid = to_regclass('bemi.changes'))
    THEN
      detail := format('the publication %I publishes each partition of bemi.changes separately, future ones too',
        form.pubname);
      fix := format('ALTER PUBLICATION %I SET (publish_via_partition_root = true);', form.pubname);
      RETURN NEXT;
    END IF;
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.publications_of_bemi() IS
'returns the publications that send tables of bemi to subscribers that may not have them, and the fixes';

CREATE FUNCTION bemi.name_without_bemi(publication name) RETURNS name
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT (left(publication, 50) || '_without_bemi')::name
$$;

COMMENT ON FUNCTION bemi.name_without_bemi(name) IS
'returns the name of the publication that replaces one FOR ALL TABLES';

CREATE FUNCTION bemi.publication_without_bemi(publication oid, name name) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  tables text;
  options text;
BEGIN
  IF to_regclass('pg_catalog.pg_publication_namespace') IS NOT NULL THEN
    SELECT ' FOR TABLES IN SCHEMA ' || COALESCE(string_agg(DISTINCT quote_ident(n.nspname), ', '), 'public')
    INTO tables
    FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p')
      AND c.relpersistence = 'p'
      AND c.oid >= 16384
      AND n.nspname NOT IN ('bemi', 'pg_catalog', 'information_schema', 'pg_toast');
  ELSE
    SELECT ' FOR TABLE ' || string_agg(format('%I.%I', n.nspname, c.relname), ', ' ORDER BY n.nspname, c.relname)
    INTO tables
    FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p')
      AND NOT c.relispartition
      AND c.relpersistence = 'p'
      AND c.oid >= 16384
      AND n.nspname NOT IN ('bemi', 'pg_catalog', 'information_schema', 'pg_toast');
  END IF;
  SELECT format('publish = %L, publish_via_partition_root = %s', concat_ws(', ',
      CASE WHEN p.pubinsert THEN 'insert' END,
      CASE WHEN p.pubupdate THEN 'update' END,
      CASE WHEN p.pubdelete THEN 'delete' END,
      CASE WHEN p.pubtruncate THEN 'truncate' END), CASE WHEN p.pubviaroot THEN 'true' ELSE 'false' END)
    || CASE to_jsonb(p) ->> 'pubgencols' WHEN 's' THEN ', publish_generated_columns = stored' ELSE '' END
  INTO options
  FROM pg_publication p
  WHERE p.oid = publication;
  RETURN format('CREATE PUBLICATION %I%s WITH (%s);', name, COALESCE(tables, ''), options);
END
$$;

COMMENT ON FUNCTION bemi.publication_without_bemi(oid, name) IS
'returns the statement that creates a publication like one FOR ALL TABLES, but without the tables of bemi';

CREATE FUNCTION bemi.warn_of_publications() RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  case_of record;
BEGIN
  FOR case_of IN SELECT * FROM bemi.publications_of_bemi() LOOP
    RAISE WARNING 'a subscriber without the tables of bemi will stop: %', case_of.detail
      USING HINT = case_of.fix || CASE
        WHEN case_of.fix LIKE 'CREATE %' THEN
          format(' Then, at each subscriber that has received all changes so far: '
            'ALTER SUBSCRIPTION ... SET PUBLICATION %I; '
            'One that has already stopped needs the tables: SELECT bemi.tables_for_subscribers();',
            bemi.name_without_bemi(case_of.publication))
        WHEN case_of.fix LIKE 'DROP %' THEN ' -- when no subscription uses it any more'
        ELSE ''
        END;
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.warn_of_publications() IS
'warns of publications that send tables of bemi to subscribers';

CREATE FUNCTION bemi.tables_for_subscribers() RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT 'CREATE SCHEMA IF NOT EXISTS bemi;'
    || COALESCE(string_agg(format(E'\nCREATE TABLE IF NOT EXISTS bemi.%I (%s);', c.relname, (
      SELECT string_agg(format('%I %s', a.attname, format_type(a.atttypid, a.atttypmod)), ', ' ORDER BY a.attnum)
      FROM pg_attribute a
      WHERE a.attrelid = c.oid
        AND a.attnum > 0
        AND NOT a.attisdropped)), '' ORDER BY c.relname), '')
  FROM pg_class c
  WHERE c.relnamespace = 'bemi'::regnamespace
    AND c.relkind IN ('r', 'p')
    AND c.relpersistence = 'p'
$$;

COMMENT ON FUNCTION bemi.tables_for_subscribers() IS
'returns the statements that create the tables of bemi at a subscriber that lacks them';

CREATE OR REPLACE FUNCTION bemi.rules(arguments bytea, kind text) RETURNS text[]
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'bemi_rules';

COMMENT ON FUNCTION bemi.rules(bytea, text) IS
'returns the arguments of a trigger (pg_trigger.tgargs) of a kind: ignore, mask, numbers, identity, unknown, or every';

CREATE OR REPLACE VIEW bemi.context_triggers AS
SELECT
  t.oid,
  t.tgrelid AS relation,
  t.tgname AS name,
  t.tgenabled AS enabled,
  t.tgargs AS arguments,
  t.tgtype = 62 AND t.tgqual IS NULL AND t.tgattr = '' AS is_whole
FROM pg_catalog.pg_trigger t
WHERE t.tgfoid = 'bemi.emit_context()'::regprocedure
  AND NOT t.tgisinternal
  AND t.tgparentid = 0;
DO $do$
DECLARE
  first name := (SELECT a.attname FROM pg_attribute a WHERE a.attrelid = 'bemi.context_triggers'::regclass AND a.attnum = 1);
BEGIN
  EXECUTE format('ALTER VIEW bemi.context_triggers RENAME COLUMN %I TO renewed', first);
  EXECUTE format('ALTER VIEW bemi.context_triggers RENAME COLUMN renewed TO %I', first);
END
$do$;

COMMENT ON VIEW bemi.context_triggers IS
'the triggers that write the context to WAL';

CREATE OR REPLACE FUNCTION bemi.table_rules(relation regclass, kind text) RETURNS text[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
  SELECT ARRAY(
    SELECT value
    FROM bemi.context_triggers t,
      unnest(bemi.rules(t.arguments, kind)) WITH ORDINALITY AS r (value, place)
    WHERE t.relation = table_rules.relation
      AND (kind <> 'ignore' OR t.name = 'bemi_context')
    GROUP BY value
    ORDER BY min(t.oid), min(place))
$$;

COMMENT ON FUNCTION bemi.table_rules(regclass, text) IS
'returns the rules of a table of a kind: ignore, mask, numbers, identity or unknown';

CREATE OR REPLACE FUNCTION bemi.obstacle(relation regclass, OUT message text, OUT hint text) RETURNS SETOF record
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT format('bemi cannot track %s%s', relation, reason), remedy
  FROM pg_class c,
    LATERAL (VALUES
      (c.relnamespace IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
          OR c.oid < 16384 OR c.relkind = 't',
        ', which is part of the system catalogs', 'Changes of system catalogs cannot be tracked.'),
      (c.relnamespace = 'bemi'::regnamespace,
        ', which is part of bemi', NULL),
      (c.relkind = 'v',
        ', which is a view and has no rows of its own', 'Track the tables whose rows it shows.'),
      (c.relkind = 'm',
        ', which is a materialized view: REFRESH creates its rows', 'Track the tables whose rows it shows.'),
      (c.relkind = 'f',
        ', which is a foreign table: its changes are in WAL of another server',
        'Install bemi there and track the table there.'),
      (c.relkind NOT IN ('r', 'p'),
        ', which is not a table', 'Name a table.'),
      (c.relpersistence = 't',
        ', which is a temporary table: its changes are not in WAL', 'Only permanent tables can be tracked.'),
      -- The children of an unlogged table may be logged.
      (c.relpersistence = 'u' AND c.relkind = 'r' AND NOT EXISTS (SELECT FROM pg_inherits WHERE inhparent = c.oid),
        ', which is an unlogged table: its changes are not in WAL',
        format('To log its changes: ALTER TABLE %s SET LOGGED;', relation))
    ) AS obstacles (is_one, reason, remedy)
  WHERE c.oid = relation
    AND is_one
  LIMIT 1
$$;

COMMENT ON FUNCTION bemi.obstacle(regclass) IS
'returns why a relation cannot be tracked, and what to do instead; no row if it can be';

CREATE OR REPLACE FUNCTION bemi.tree(relation regclass) RETURNS SETOF regclass
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF (SELECT relkind FROM pg_class WHERE oid = relation) IS DISTINCT FROM 'p' THEN
    RETURN NEXT relation;
  ELSE
    -- Looked up one by one, because the planner does not know how few they are.
    RETURN QUERY
      SELECT relid
      FROM pg_partition_tree(relation)
      WHERE (SELECT relkind = 'p' OR relkind = 'r' AND relpersistence = 'p' FROM pg_class WHERE oid = relid)
      ORDER BY level, relid::oid;
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.tree(regclass) IS
'returns the tables that are tracked with a table: itself and its partitions';

CREATE OR REPLACE FUNCTION bemi.identity_index(relation regclass) RETURNS oid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT i.indexrelid
  FROM pg_index i
    JOIN pg_class c ON c.oid = i.indrelid
  WHERE c.oid = relation
    AND CASE c.relreplident
      WHEN 'd' THEN i.indisprimary AND i.indisvalid AND i.indimmediate
      WHEN 'i' THEN i.indisreplident
      ELSE false
    END
  LIMIT 1
$$;

COMMENT ON FUNCTION bemi.identity_index(regclass) IS
'returns the index whose columns identify a row in WAL before its change, if any';

CREATE OR REPLACE FUNCTION bemi.key_columns(relation regclass) RETURNS SETOF name
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT DISTINCT a.attname
  FROM pg_index i
    JOIN pg_attribute a ON a.attrelid = i.indrelid
  WHERE i.indrelid = relation
    AND (i.indisprimary OR i.indisreplident)
    AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])
$$;

COMMENT ON FUNCTION bemi.key_columns(regclass) IS
'returns the columns of the primary key and of the index that is the replica identity';

CREATE OR REPLACE FUNCTION bemi.identity(relation regclass) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE c.relreplident
    WHEN 'd' THEN 'default'
    WHEN 'n' THEN 'nothing'
    WHEN 'f' THEN 'full'
    ELSE COALESCE(
      'index:' || (SELECT i.relname FROM pg_class i WHERE i.oid = bemi.identity_index(relation)), 'nothing')
    END
  FROM pg_class c
  WHERE c.oid = relation
$$;

COMMENT ON FUNCTION bemi.identity(regclass) IS
'returns the replica identity of a table as a rule writes it: default, nothing, full or index:name';

CREATE OR REPLACE FUNCTION bemi.identity_before(relation regclass) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
  SELECT (bemi.rules(t.arguments, 'identity'))[1]
  FROM bemi.context_triggers t
  WHERE t.relation = identity_before.relation
    AND t.name = 'bemi_context'
$$;

COMMENT ON FUNCTION bemi.identity_before(regclass) IS
'returns the replica identity that untrack() restores, if tracking changed it';

CREATE OR REPLACE FUNCTION bemi.set_identity(relation regclass, identity text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  index name := substring(identity FROM '^index:(.*)$');
BEGIN
  IF identity IS NOT DISTINCT FROM bemi.identity(relation) THEN
    RETURN;
  ELSIF index IS NOT NULL THEN
    EXECUTE format('ALTER TABLE ONLY %s REPLICA IDENTITY USING INDEX %I', relation, index);
  ELSE
    -- Anyone may have written anything into the argument of a trigger.
    EXECUTE format('ALTER TABLE ONLY %s REPLICA IDENTITY %s', relation,
      CASE identity WHEN 'full' THEN 'FULL' WHEN 'nothing' THEN 'NOTHING' ELSE 'DEFAULT' END);
  END IF;
  -- Another table may have the name by now.
  IF identity IN ('full', 'nothing', 'default') AND identity <> bemi.identity(relation) THEN
    RAISE EXCEPTION 'the schema of % was renamed concurrently', relation;
  END IF;
EXCEPTION WHEN undefined_object OR object_not_in_prerequisite_state OR wrong_object_type THEN
  RAISE WARNING 'the replica identity of % is now DEFAULT, because it can no longer be the index %: %',
    relation, quote_ident(index), SQLERRM;
  EXECUTE format('ALTER TABLE ONLY %s REPLICA IDENTITY DEFAULT', relation);
END
$$;

COMMENT ON FUNCTION bemi.set_identity(regclass, text) IS
'sets the replica identity of a table to default, nothing, full or index:name';

CREATE FUNCTION bemi.fitting_identity(relation regclass, wanted text, present text, former text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  -- The one that is asked for, unless UPDATE and DELETE would fail with it because of a publication.
  IF wanted NOT IN ('keep', present) AND bemi.identity_problem(relation, wanted) IS NULL THEN
    RETURN wanted;
  -- The former one, if they fail now because of tracking.
  ELSIF former <> present AND bemi.identity_problem(relation, present) IS NOT NULL
    AND bemi.identity_problem(relation, former) IS NULL
  THEN
    RETURN former;
  END IF;
  RETURN present;
END
$$;

COMMENT ON FUNCTION bemi.fitting_identity(regclass, text, text, text) IS
'returns the replica identity that tracking gives a table: the requested one, unless a publication does not allow it';

CREATE OR REPLACE FUNCTION bemi.lock(relation regclass, exclusive boolean) RETURNS void
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'bemi_lock';

COMMENT ON FUNCTION bemi.lock(regclass, boolean) IS
'locks a table of the caller: ACCESS EXCLUSIVE, or SHARE ROW EXCLUSIVE';

CREATE OR REPLACE FUNCTION bemi.has_trigger(relation regclass, arguments text[]) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
  SELECT EXISTS (
    SELECT FROM bemi.context_triggers t
    WHERE t.relation = has_trigger.relation
      AND t.name = 'bemi_context'
      AND t.is_whole
      AND t.enabled IN ('O', 'A')
      AND bemi.rules(t.arguments, 'every') = has_trigger.arguments
  ) AND (SELECT count(*) FROM bemi.context_triggers t WHERE t.relation = has_trigger.relation) = 1
$$;

COMMENT ON FUNCTION bemi.has_trigger(regclass, text[]) IS
'returns whether a table has the trigger, with these arguments and not disabled';

CREATE OR REPLACE FUNCTION bemi.put_trigger(relation regclass, arguments text[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET bemi.allow_drop = on AS $$
DECLARE
  there record;
  other name;
BEGIN
  SELECT tgfoid::regprocedure AS function, tgenabled
  INTO there
  FROM pg_trigger
  WHERE tgrelid = relation
    AND tgname = 'bemi_context';
  IF there.function <> 'bemi.emit_context()'::regprocedure THEN
    RAISE EXCEPTION 'the table % has a trigger bemi_context that calls %', relation, there.function
      USING ERRCODE = 'duplicate_object', HINT = format('DROP TRIGGER bemi_context ON %s;', relation);
  END IF;
  FOR other IN
    SELECT t.name
    FROM bemi.context_triggers t
    WHERE t.relation = put_trigger.relation
      AND t.name <> 'bemi_context'
  LOOP
    EXECUTE format('DROP TRIGGER %I ON %s', other, relation);
  END LOOP;
  EXECUTE format(
    'CREATE OR REPLACE TRIGGER bemi_context BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON %s '
    'FOR EACH STATEMENT EXECUTE FUNCTION bemi.emit_context(%s)', relation, (
      SELECT string_agg(quote_literal(argument), ', ' ORDER BY place)
      FROM unnest(arguments) WITH ORDINALITY AS a (argument, place)));
  -- The statement names the table, whose schema may have been renamed in between.
  IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = relation AND tgname = 'bemi_context') THEN
    RAISE EXCEPTION 'the schema of % was renamed concurrently', relation;
  END IF;
  -- Replacing a trigger enables it as a new one.
  IF there.tgenabled = 'A' THEN
    EXECUTE format('ALTER TABLE ONLY %s ENABLE ALWAYS TRIGGER bemi_context', relation);
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.put_trigger(regclass, text[]) IS
'creates the trigger of one table with these arguments, or replaces it and others of its kind';

CREATE FUNCTION bemi.rule_arguments(relation regclass, ignored text[], masked text[]) RETURNS text[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN ARRAY(SELECT DISTINCT 'ignore=' || c FROM unnest(ignored) c ORDER BY 1)
    || ARRAY(SELECT DISTINCT 'mask=' || c FROM unnest(masked) c ORDER BY 1)
    || array_remove(ARRAY[bemi.numbers_rule(relation, masked)], NULL);
END
$$;

COMMENT ON FUNCTION bemi.rule_arguments(regclass, text[], text[]) IS
'returns the arguments of the trigger of a table that ignores and masks columns';

CREATE OR REPLACE FUNCTION bemi.track_one(
  relation regclass, replica_identity text, ignore_columns text[], mask_columns text[]
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
  masks text[] := mask_columns || bemi.inherited_masks(relation);
  arguments text[];
  identity_now text;
  fitting text;
  was text;
  is_done boolean := false;
BEGIN
  -- The second time with the lock held, because other sessions may do the same.
  FOR attempt IN 1..2 LOOP
    arguments := bemi.rule_arguments(relation, ignore_columns, masks);
    identity_now := bemi.identity(relation);
    was := bemi.identity_before(relation);
    fitting := bemi.fitting_identity(relation, replica_identity, identity_now, was);
    IF fitting <> identity_now THEN
      was := COALESCE(was, identity_now);
    END IF;
    is_done := fitting = identity_now
      AND bemi.has_trigger(relation, arguments || array_remove(ARRAY['identity=' || was], NULL));
    EXIT WHEN is_done;
    IF attempt = 1 THEN
      -- The stronger lock at once: a session that has read the table and waits to write it would wait for a weaker
      -- one, and this session would wait for it.
      PERFORM bemi.lock(relation, replica_identity <> 'keep' OR fitting <> identity_now);
    END IF;
  END LOOP;
  IF replica_identity NOT IN ('keep', fitting) THEN
    RAISE WARNING 'the replica identity of % is %, not %, with which UPDATE and DELETE would fail: %',
        relation, fitting, replica_identity, bemi.identity_problem(relation, replica_identity)
      USING HINT = format('Change the publication, and call SELECT bemi.track_again(%L, %L); '
        'or keep this replica identity: SELECT bemi.track_again(%L);', relation, replica_identity, relation);
  ELSIF fitting <> identity_now AND replica_identity = 'keep' THEN
    RAISE NOTICE 'the replica identity of % is % again, as before tracking: with %, UPDATE and DELETE fail (%)',
      relation, fitting, identity_now, bemi.identity_problem(relation, identity_now);
  END IF;
  IF NOT is_done THEN
    PERFORM bemi.set_identity(relation, fitting);
    PERFORM bemi.put_trigger(relation, arguments || array_remove(ARRAY['identity=' || was], NULL));
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.track_one(regclass, text, text[], text[]) IS
'tracks one table, without its partitions';

CREATE FUNCTION bemi.require_columns(relation regclass, columns name[]) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  unknown text;
BEGIN
  SELECT quote_ident(c)
  INTO unknown
  FROM unnest(columns) c
  WHERE NOT EXISTS (
    SELECT FROM pg_attribute
    WHERE attrelid = relation
      AND attname = c
      AND attnum > 0
      AND NOT attisdropped)
  LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'the table % has no column %', relation, unknown
      USING ERRCODE = 'undefined_column', HINT = (
        SELECT 'Its columns are ' || string_agg(quote_ident(attname), ', ' ORDER BY attnum) || '.'
        FROM pg_attribute
        WHERE attrelid = relation
          AND attnum > 0
          AND NOT attisdropped);
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.require_columns(regclass, name[]) IS
'raises an error if a table lacks one of these columns';

CREATE FUNCTION bemi.require_trackable(
  relation regclass, replica_identity text, ignore_columns name[], mask_columns name[]
) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  problem record;
BEGIN
  IF relation IS NULL THEN
    RAISE EXCEPTION 'bemi cannot track NULL'
      USING ERRCODE = 'null_value_not_allowed', HINT = 'Name a table, as in SELECT bemi.track(''public.todo'').';
  ELSIF NOT EXISTS (SELECT FROM pg_class WHERE oid = relation) THEN
    RAISE EXCEPTION 'table with OID % does not exist', relation::oid USING ERRCODE = 'undefined_table';
  ELSIF replica_identity IS NULL OR replica_identity NOT IN ('full', 'default', 'keep') THEN
    RAISE EXCEPTION 'replica_identity cannot be %', COALESCE(quote_literal(replica_identity), 'NULL')
      USING ERRCODE = 'invalid_parameter_value',
        HINT = 'It is one of ''full'' (WAL contains the whole row before each change), ''default'' (only the key) '
          'and ''keep'' (what the table has).';
  ELSIF ignore_columns IS NULL OR mask_columns IS NULL
    OR array_position(ignore_columns || mask_columns, NULL) > 0
  THEN
    RAISE EXCEPTION 'ignore_columns and mask_columns cannot be or contain NULL'
      USING ERRCODE = 'null_value_not_allowed', HINT = 'To name no columns, use ''{}''.';
  END IF;
  SELECT * INTO problem FROM bemi.obstacle(relation);
  IF FOUND THEN
    RAISE EXCEPTION '%', problem.message USING ERRCODE = 'wrong_object_type', HINT = COALESCE(problem.hint, '');
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.require_trackable(regclass, text, name[], name[]) IS
'raises an error if bemi.track() was called with arguments by which nothing can be tracked';

CREATE FUNCTION bemi.require_member(member regclass, columns name[]) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  unknown text;
BEGIN
  IF NOT (SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = member) THEN
    RAISE EXCEPTION 'must be owner of table %', member
      USING ERRCODE = 'insufficient_privilege', HINT = 'The owner of the table, or a superuser, can track it.';
  END IF;
  PERFORM bemi.require_columns(member, columns);
  SELECT quote_ident(c)
  INTO unknown
  FROM unnest(columns) c
  WHERE c IN (SELECT bemi.key_columns(member))
  LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'cannot ignore or mask the column % of %, because it belongs to the key', unknown, member
      USING ERRCODE = 'feature_not_supported',
        HINT = 'Without the key, rows cannot be identified. Choose other columns, or give the table another key.';
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.require_member(regclass, name[]) IS
'raises an error if the caller does not own a table, or if it lacks columns or has them in its key';

CREATE FUNCTION bemi.notice_tracked(relation regclass, mask_columns name[]) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  children text;
  inherited text[];
BEGIN
  inherited := ARRAY(
    SELECT quote_ident(mask)
    FROM unnest(bemi.inherited_masks(relation)) mask
    WHERE mask <> ALL (mask_columns::text[]));
  IF inherited <> '{}' THEN
    RAISE NOTICE 'columns of % are masked as in the tables that it inherits from: %',
      relation, array_to_string(inherited, ', ');
  END IF;
  IF EXISTS (SELECT FROM pg_class WHERE oid = relation AND relreplident <> 'f')
    AND bemi.identity_index(relation) IS NULL
  THEN
    RAISE NOTICE 'WAL will not identify updated or deleted rows of %: it has neither a key nor REPLICA IDENTITY FULL',
        relation
      USING HINT = format('SELECT bemi.track(%L);', relation);
  END IF;
  SELECT string_agg(inhrelid::regclass::text, ', ' ORDER BY inhrelid)
  INTO children
  FROM pg_inherits
    JOIN pg_class c ON c.oid = inhrelid
  WHERE inhparent = relation
    AND NOT c.relispartition
    AND NOT EXISTS (SELECT FROM bemi.context_triggers t WHERE t.relation = inhrelid);
  IF children IS NOT NULL THEN
    RAISE NOTICE 'tables that inherit from % have to be tracked separately: %', relation, children;
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.notice_tracked(regclass, name[]) IS
'reports inherited masks, a missing key, and untracked children of a table that was tracked';

CREATE OR REPLACE FUNCTION bemi.track(
  relation regclass,
  replica_identity text DEFAULT 'full',
  ignore_columns name[] DEFAULT '{}',
  mask_columns name[] DEFAULT '{}'
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  members regclass[];
  member regclass;
BEGIN
  PERFORM bemi.require_trackable(relation, replica_identity, ignore_columns, mask_columns);
  members := ARRAY(SELECT * FROM bemi.tree(relation));
  FOREACH member IN ARRAY members LOOP
    PERFORM bemi.require_member(member, ignore_columns || mask_columns);
  END LOOP;
  FOREACH member IN ARRAY members LOOP
    PERFORM bemi.track_one(member, replica_identity, ignore_columns::text[], mask_columns::text[]);
    -- A column that was renamed before the table was locked would not be masked.
    PERFORM bemi.require_columns(member, ignore_columns || mask_columns);
  END LOOP;
  PERFORM bemi.mask_heirs(relation);
  PERFORM bemi.notice_tracked(relation, mask_columns);
END
$$;

COMMENT ON FUNCTION bemi.track(regclass, text, name[], name[]) IS
'starts tracking a table and its partitions: changes carry the context; called again, it replaces the rules';

CREATE OR REPLACE FUNCTION bemi.untrack_one(relation regclass) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET bemi.allow_drop = on AS $$
DECLARE
  trigger record;
BEGIN
  IF NOT EXISTS (SELECT FROM bemi.context_triggers t WHERE t.relation = untrack_one.relation) THEN
    RETURN;
  END IF;
  PERFORM bemi.lock(relation, true);
  FOR trigger IN
    SELECT t.name, (bemi.rules(t.arguments, 'identity'))[1] AS identity
    FROM bemi.context_triggers t
    WHERE t.relation = untrack_one.relation
  LOOP
    EXECUTE format('DROP TRIGGER %I ON %s', trigger.name, relation);
    IF trigger.identity IS NOT NULL
      AND bemi.identity_problem(relation, trigger.identity) IS NOT NULL
      AND bemi.identity_problem(relation, bemi.identity(relation)) IS NULL
    THEN
      RAISE WARNING 'the replica identity of % stays %: with the former one (%), UPDATE and DELETE would fail: %',
          relation, bemi.identity(relation), trigger.identity, bemi.identity_problem(relation, trigger.identity)
        USING HINT = format('SELECT * FROM bemi.identity_conflict(%L, %L);', relation, trigger.identity);
    ELSIF trigger.identity IS NOT NULL THEN
      PERFORM bemi.set_identity(relation, trigger.identity);
    END IF;
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.untrack_one(regclass) IS
'stops tracking one table, without its partitions';

CREATE OR REPLACE FUNCTION bemi.untrack(relation regclass) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM bemi.untrack_one(member) FROM bemi.tree(relation) member;
END
$$;

COMMENT ON FUNCTION bemi.untrack(regclass) IS
'stops tracking a table and its partitions, and restores their former replica identities';

CREATE FUNCTION bemi.may_drop() RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT COALESCE(NULLIF(current_setting('bemi.allow_drop', true), '')::boolean, false)
    OR current_setting('check_function_bodies') = 'off' AND current_setting('row_security') = 'off'
$$;

COMMENT ON FUNCTION bemi.may_drop() IS
'returns whether this session may drop recorded changes, and triggers of tracked tables';

CREATE FUNCTION bemi.refuse_truncate() RETURNS trigger
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT bemi.may_drop() THEN
    RAISE EXCEPTION 'cannot truncate table %.% because it contains what bemi recorded',
        quote_ident(TG_TABLE_SCHEMA), quote_ident(TG_TABLE_NAME)
      USING ERRCODE = 'object_in_use', HINT = 'To truncate it anyway: SET bemi.allow_drop = on;';
  END IF;
  RETURN NULL;
END
$$;

COMMENT ON FUNCTION bemi.refuse_truncate() IS
'refuses TRUNCATE, as a trigger of the tables that contain recorded changes';

CREATE FUNCTION bemi.keep_table(relation regclass) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT EXISTS (
    SELECT FROM pg_trigger t WHERE t.tgrelid = relation AND t.tgname = 'bemi_keep' AND t.tgenabled = 'A')
  THEN
    EXECUTE format('CREATE OR REPLACE TRIGGER bemi_keep BEFORE TRUNCATE ON %s '
      'FOR EACH STATEMENT EXECUTE FUNCTION bemi.refuse_truncate()', relation);
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER bemi_keep', relation);
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.keep_table(regclass) IS
'protects a table from TRUNCATE';

CREATE FUNCTION bemi.kept_tables() RETURNS SETOF regclass
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT t.relid
  FROM pg_partition_tree(to_regclass('bemi.changes')) t
  UNION ALL
  SELECT t.oid::regclass
  FROM unnest(ARRAY[to_regclass('bemi.recorder')::oid, to_regclass('bemi.sources')::oid]) AS t (oid)
  WHERE t.oid IS NOT NULL
$$;

COMMENT ON FUNCTION bemi.kept_tables() IS
'returns the tables that are protected from TRUNCATE';

CREATE FUNCTION bemi.release_tables() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  relation regclass;
BEGIN
  FOR relation IN
    SELECT t.tgrelid FROM pg_trigger t WHERE t.tgfoid = 'bemi.refuse_truncate()'::regprocedure
  LOOP
    EXECUTE format('DROP TRIGGER bemi_keep ON %s', relation);
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.release_tables() IS
'removes the triggers that protect tables from TRUNCATE, before the extension is dropped';

CREATE TABLE bemi.dropped_triggers (
  relation oid PRIMARY KEY,
  dropped_at timestamptz NOT NULL,
  dropped_by name NOT NULL,
  is_back boolean NOT NULL
);

COMMENT ON TABLE bemi.dropped_triggers IS
'the tables whose triggers were not dropped by bemi.untrack(), with the time and the role';

CREATE FUNCTION bemi.before_drop_trigger(relation oid) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM set_config('bemi_drop.trigger', jsonb_build_object(
    'relation', t.relation,
    'enabled', t.enabled,
    'arguments', bemi.rules(t.arguments, 'every'))::text, true)
  FROM bemi.context_triggers t
  WHERE t.relation = before_drop_trigger.relation
    AND t.name = 'bemi_context';
END
$$;

COMMENT ON FUNCTION bemi.before_drop_trigger(oid) IS
'remembers the rules of a table whose trigger is about to be dropped';

CREATE FUNCTION bemi.put_back(relation regclass) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  dropping jsonb;
BEGIN
  dropping := NULLIF(current_setting('bemi_drop.trigger', true), '');
  -- Without its rules it would reveal what they mask.
  IF (dropping ->> 'relation')::oid IS DISTINCT FROM relation THEN
    RETURN false;
  ELSIF NOT EXISTS (
    SELECT FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN bemi.tracked_schemas s ON s.schema = n.nspname
    WHERE c.oid = relation
  ) AND NOT EXISTS (
    SELECT FROM pg_class c,
      pg_partition_ancestors(c.oid) a
      JOIN bemi.context_triggers t ON t.relation = a.relid
    WHERE c.oid = put_back.relation
      AND c.relispartition)
  THEN
    RETURN false;
  END IF;
  PERFORM bemi.put_trigger(relation, ARRAY(SELECT jsonb_array_elements_text(dropping -> 'arguments')));
  IF dropping ->> 'enabled' = 'A' THEN
    EXECUTE format('ALTER TABLE ONLY %s ENABLE ALWAYS TRIGGER bemi_context', relation);
  END IF;
  RETURN true;
EXCEPTION WHEN OTHERS THEN
  RAISE WARNING 'could not create the trigger bemi_context of % again: %', relation, SQLERRM;
  RETURN false;
END
$$;

COMMENT ON FUNCTION bemi.put_back(regclass) IS
'creates the dropped trigger of a table again where all tables are tracked; returns false elsewhere';

CREATE FUNCTION bemi.guard_owned(role oid) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT bemi.may_drop()
    AND EXISTS (SELECT FROM bemi.kept_tables() k JOIN pg_class c ON c.oid = k WHERE c.relowner = role)
  THEN
    RAISE EXCEPTION 'cannot drop objects owned by role % because they contain what bemi recorded',
        quote_ident(pg_get_userbyid(role))
      USING ERRCODE = 'object_in_use',
        HINT = format(
          'To keep it: REASSIGN OWNED BY %s TO another superuser. To drop it anyway: SET bemi.allow_drop = on;',
          quote_ident(pg_get_userbyid(role)));
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.guard_owned(oid) IS
'refuses DROP OWNED BY a role that owns recorded changes';

CREATE FUNCTION bemi.note_dropped_trigger(relation regclass) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  is_back boolean := bemi.put_back(relation);
BEGIN
  DELETE FROM bemi.dropped_triggers d
  WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = d.relation);
  INSERT INTO bemi.dropped_triggers
  VALUES (relation, clock_timestamp(), session_user, is_back)
  ON CONFLICT ON CONSTRAINT dropped_triggers_pkey
  DO UPDATE SET dropped_at = EXCLUDED.dropped_at, dropped_by = EXCLUDED.dropped_by, is_back = EXCLUDED.is_back;
  IF is_back THEN
    RAISE WARNING 'the trigger bemi_context of % was created again, because tables of its schema are tracked', relation
      USING HINT = format('To stop tracking the table: SELECT bemi.untrack(%L);', relation);
  ELSE
    RAISE WARNING 'the table % is no longer tracked, because its trigger bemi_context was dropped', relation
      USING HINT = format('To track it again: SELECT bemi.track(%L);', relation);
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.note_dropped_trigger(regclass) IS
'creates the dropped trigger of a table again where all tables are tracked, and notes who dropped it';

CREATE FUNCTION bemi.guard_drops() RETURNS event_trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  gone record;
  its_table regclass;
BEGIN
  FOR gone IN
    SELECT d.object_type, d.object_identity, d.address_names
    FROM pg_event_trigger_dropped_objects() d
    WHERE NOT d.is_temporary
      AND (d.object_type = 'table' AND d.schema_name = 'bemi' AND d.object_name ~ bemi.kept_names()
        OR d.object_type = 'trigger' AND d.address_names[3] = 'bemi_context' AND d.original)
  LOOP
    IF bemi.may_drop() THEN
      RETURN;
    ELSIF gone.object_type = 'table' THEN
      RAISE EXCEPTION 'cannot drop table % because it contains what bemi recorded', gone.object_identity
        USING ERRCODE = 'object_in_use', HINT = 'To drop it anyway: SET bemi.allow_drop = on;';
    END IF;
    PERFORM bemi.require_readable(), bemi.require_safe_tables(ARRAY['bemi.dropped_triggers'::regclass::oid]);
    its_table := to_regclass(format('%I.%I', gone.address_names[1], gone.address_names[2]));
    CONTINUE WHEN its_table IS NULL
      OR EXISTS (SELECT FROM bemi.context_triggers t WHERE t.relation = its_table);
    PERFORM bemi.note_dropped_trigger(its_table);
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.guard_drops() IS
'refuses to drop recorded changes, and creates dropped triggers of tracked tables again, as an event trigger';

CREATE EVENT TRIGGER bemi_guard_drops ON sql_drop
EXECUTE FUNCTION bemi.guard_drops();

ALTER EVENT TRIGGER bemi_guard_drops ENABLE ALWAYS;

COMMENT ON EVENT TRIGGER bemi_guard_drops IS
'keeps recorded changes, and the triggers of tracked tables, from being dropped unnoticed';

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

CREATE OR REPLACE FUNCTION bemi.track_again(relation regclass, replica_identity text DEFAULT 'keep') RETURNS void
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

CREATE OR REPLACE VIEW bemi.tracked AS
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
DO $do$
DECLARE
  first name := (SELECT a.attname FROM pg_attribute a WHERE a.attrelid = 'bemi.tracked'::regclass AND a.attnum = 1);
BEGIN
  EXECUTE format('ALTER VIEW bemi.tracked RENAME COLUMN %I TO renewed', first);
  EXECUTE format('ALTER VIEW bemi.tracked RENAME COLUMN renewed TO %I', first);
END
$do$;

COMMENT ON VIEW bemi.tracked IS
'the tables whose changes carry the context, their rules, and what is missing';

CREATE OR REPLACE FUNCTION bemi.pass_over_known_schema() RETURNS trigger
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN CASE WHEN NOT EXISTS (SELECT FROM bemi.tracked_schemas s WHERE s.schema = NEW.schema) THEN NEW END;
END
$$;

COMMENT ON FUNCTION bemi.pass_over_known_schema() IS
'skips rows of the table tracked_schemas that are there already';

CREATE OR REPLACE TRIGGER pass_over_known_schema BEFORE INSERT ON bemi.tracked_schemas
FOR EACH ROW EXECUTE FUNCTION bemi.pass_over_known_schema();

SELECT pg_catalog.pg_extension_config_dump('bemi.tracked_schemas', '');

COMMENT ON TABLE bemi.tracked_schemas IS
'the schemas whose future tables are tracked, by bemi.track_all()';

CREATE OR REPLACE FUNCTION bemi.trackable(schemas name[]) RETURNS SETOF regclass
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT c.oid::regclass
  FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname = ANY (schemas)
    AND c.relkind IN ('r', 'p')
    AND c.relpersistence = 'p'
    AND NOT EXISTS (
      SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
  -- Partitions after what is above them; otherwise a table before those that it references, in the order in which
  -- writers lock them: it is usually younger.
  ORDER BY c.relispartition, c.oid DESC
$$;

COMMENT ON FUNCTION bemi.trackable(name[]) IS
'returns the permanent tables of schemas that do not belong to an extension';

CREATE FUNCTION bemi.try_lock_tracking() RETURNS boolean
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'bemi_try_lock_tracking';

COMMENT ON FUNCTION bemi.try_lock_tracking() IS
'makes sessions that create tables wait for this transaction, if no transaction in progress has created one';

CREATE FUNCTION bemi.await_makers(patience interval DEFAULT '3 s') RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  end_of_patience timestamptz := clock_timestamp() + patience;
BEGIN
  WHILE NOT bemi.try_lock_tracking() LOOP
    IF clock_timestamp() > end_of_patience THEN
      RETURN false;
    END IF;
    PERFORM pg_sleep(0.02);
  END LOOP;
  RETURN true;
END
$$;

COMMENT ON FUNCTION bemi.await_makers(interval) IS
'waits for transactions that have created tables, and makes others wait; returns false if that takes too long';

CREATE FUNCTION bemi.require_schemas(schemas name[]) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  unknown text;
BEGIN
  IF schemas IS NULL THEN
    RAISE EXCEPTION 'bemi cannot track the tables of NULL'
      USING ERRCODE = 'null_value_not_allowed', HINT = 'Name schemas, as in SELECT bemi.track_all(''{public}'').';
  END IF;
  SELECT COALESCE(quote_ident(s), 'NULL')
  INTO unknown
  FROM unnest(schemas) s
  WHERE NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = s)
  LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'schema % does not exist', unknown USING ERRCODE = 'invalid_schema_name';
  END IF;
  SELECT quote_ident(s)
  INTO unknown
  FROM unnest(schemas) s
  WHERE s IN ('bemi', 'information_schema') OR starts_with(s::text, 'pg_')
  LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'the tables of the schema % cannot be tracked', unknown
      USING ERRCODE = 'invalid_parameter_value', HINT = 'Name schemas of your own.';
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.require_schemas(name[]) IS
'raises an error if schemas do not exist or cannot be tracked';

CREATE FUNCTION bemi.track_future(schemas name[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
    -- A session that creates a table now waits for this one, or has created it before the tables are looked up.
    IF NOT bemi.await_makers() THEN
      RAISE WARNING 'transactions in progress have created tables, which may not be tracked'
        USING HINT = format('When they have ended: SELECT bemi.track_all(%L);', schemas);
    END IF;
    PERFORM bemi.require_safe_tables(ARRAY['bemi.tracked_schemas'::regclass::oid]);
    INSERT INTO bemi.tracked_schemas
    SELECT DISTINCT s FROM unnest(schemas) s
    ON CONFLICT DO NOTHING;
  ELSIF EXISTS (SELECT unnest(schemas) EXCEPT SELECT schema FROM bemi.tracked_schemas) THEN
    RAISE WARNING 'tables that are created later will not be tracked: this requires a superuser'
      USING HINT = format('As a superuser: SELECT bemi.track_all(%L);', schemas);
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.track_future(name[]) IS
'tracks tables that will be created in schemas, if the caller is a superuser';

CREATE OR REPLACE FUNCTION bemi.track_all(schemas name[] DEFAULT '{public}') RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  relations regclass[];
  relation regclass;
  done int := 0;
  others text;
BEGIN
  PERFORM bemi.require_schemas(schemas);
  PERFORM bemi.track_future(schemas);
  relations := ARRAY(
    SELECT t
    FROM bemi.trackable(schemas) t
      JOIN pg_class c ON c.oid = t
    WHERE pg_has_role(c.relowner, 'USAGE')
      AND NOT EXISTS (SELECT FROM bemi.context_triggers o WHERE o.relation = t));
  FOREACH relation IN ARRAY relations LOOP
    BEGIN
      PERFORM bemi.follow_table(relation, true);
    EXCEPTION WHEN insufficient_resources THEN
      RAISE;
    WHEN OTHERS THEN
      RAISE WARNING 'bemi could not track %: %', relation, SQLERRM
        USING HINT = format('SELECT bemi.track(%L);', relation);
    END;
    done := done + 1;
    IF done % 500 = 0 THEN
      RAISE NOTICE 'tracked % of % tables', done, cardinality(relations);
    END IF;
  END LOOP;
  RAISE NOTICE 'tracked % tables that were not tracked before', (
    SELECT count(*)
    FROM unnest(relations) r
    WHERE EXISTS (SELECT FROM bemi.context_triggers t WHERE t.relation = r));
  SELECT string_agg(t::text, ', ')
  INTO others
  FROM (
    SELECT t
    FROM bemi.trackable(schemas) t
      JOIN pg_class c ON c.oid = t
    WHERE NOT pg_has_role(c.relowner, 'USAGE')
      AND NOT EXISTS (SELECT FROM bemi.context_triggers o WHERE o.relation = t)
    LIMIT 10
  ) AS some_others (t);
  IF others IS NOT NULL THEN
    RAISE WARNING 'some tables are not tracked because you do not own them (at most ten are listed): %', others
      USING HINT = 'Their owners or a superuser can call bemi.track_all().';
  END IF;
  PERFORM bemi.warn_of_publications();
END
$$;

COMMENT ON FUNCTION bemi.track_all(name[]) IS
'tracks all tables of schemas, and those that will be created there';

CREATE OR REPLACE FUNCTION bemi.untrack_all() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  relations regclass[];
  relation regclass;
  done int := 0;
  others text;
BEGIN
  IF EXISTS (SELECT FROM bemi.tracked_schemas) THEN
    IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
      PERFORM bemi.require_safe_tables(ARRAY['bemi.tracked_schemas'::regclass::oid]);
      DELETE FROM bemi.tracked_schemas;
    ELSE
      RAISE WARNING 'tables that are created later in the tracked schemas will still be tracked: '
          'ending that requires a superuser'
        USING HINT = 'As a superuser: SELECT bemi.untrack_all();';
    END IF;
  END IF;
  relations := ARRAY(
    SELECT oid
    FROM pg_class c
    WHERE pg_has_role(c.relowner, 'USAGE')
      AND EXISTS (SELECT FROM bemi.context_triggers t WHERE t.relation = c.oid)
    ORDER BY c.relispartition, c.relkind = 'p' DESC, c.oid DESC);
  FOREACH relation IN ARRAY relations LOOP
    BEGIN
      PERFORM bemi.untrack_one(relation);
    EXCEPTION WHEN insufficient_resources THEN
      RAISE;
    WHEN OTHERS THEN
      RAISE WARNING 'bemi could not stop tracking %: %', relation, SQLERRM
        USING HINT = format('SELECT bemi.untrack(%L);', relation);
    END;
    done := done + 1;
    IF done % 500 = 0 THEN
      RAISE NOTICE 'stopped tracking % of % tables', done, cardinality(relations);
    END IF;
  END LOOP;
  SELECT string_agg(t::regclass::text, ', ')
  INTO others
  FROM (SELECT DISTINCT t.relation FROM bemi.context_triggers t LIMIT 10) AS some_others (t);
  IF others IS NOT NULL THEN
    RAISE WARNING 'some tables are still tracked (at most ten are listed): %', others
      USING HINT = 'For tables that you do not own, their owners or a superuser can call bemi.untrack_all().';
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.untrack_all() IS
'stops all tracking, and restores the former replica identities';

CREATE FUNCTION bemi.tracked_above(
  relation regclass, OUT trigger_oid oid, OUT ignored text[], OUT masked text[], OUT replica_identity "char"
)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
BEGIN
  SELECT t.oid, bemi.rules(t.arguments, 'ignore'), bemi.masks(a.relid), c.relreplident
  INTO trigger_oid, ignored, masked, replica_identity
  FROM pg_partition_ancestors(relation) WITH ORDINALITY AS a (relid, distance)
    JOIN bemi.context_triggers t ON t.relation = a.relid AND t.relation <> tracked_above.relation
      AND t.name = 'bemi_context'
    JOIN pg_class c ON c.oid = a.relid
  ORDER BY a.distance
  LIMIT 1;
END
$$;

COMMENT ON FUNCTION bemi.tracked_above(regclass) IS
'returns the trigger, the rules and the replica identity of the nearest tracked table above a partition';

CREATE FUNCTION bemi.follow_table(
  relation regclass, in_tracked_schema boolean DEFAULT false, is_attached boolean DEFAULT false, author oid DEFAULT NULL
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
  -- The role that ran the statement.
  role oid := COALESCE(author, (SELECT oid FROM pg_roles WHERE rolname = current_user));
  member regclass;
  form record;
  own record;
  above record;
BEGIN
  FOREACH member IN ARRAY ARRAY(SELECT bemi.tree(relation)) LOOP
    SELECT c.*, pg_has_role(role, c.relowner, 'USAGE') AS is_owned
    INTO form
    FROM pg_class c
    WHERE c.oid = member
      AND c.relpersistence = 'p'
      AND NOT EXISTS (
        SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e');
    CONTINUE WHEN NOT FOUND;
    SELECT t.oid, bemi.rules(t.arguments, 'ignore') AS ignored, bemi.masks(member) AS masked
    INTO own
    FROM bemi.context_triggers t
    WHERE t.relation = member
      AND t.name = 'bemi_context';
    CONTINUE WHEN own.oid IS NOT NULL AND NOT is_attached;
    above := bemi.tracked_above(CASE WHEN form.relispartition THEN member END);
    CONTINUE WHEN above.trigger_oid IS NULL AND (own.oid IS NOT NULL OR NOT (in_tracked_schema OR EXISTS (
      SELECT FROM bemi.tracked_schemas
      WHERE schema = (SELECT nspname FROM pg_namespace WHERE oid = form.relnamespace))));
    IF NOT form.is_owned THEN
      RAISE WARNING 'bemi does not track %, because you do not own it', member
        USING HINT = format('As its owner or a superuser: SELECT bemi.follow_table(%L, true);', member);
    ELSIF above.trigger_oid IS NULL THEN
      PERFORM bemi.track_one(member, 'full', '{}'::text[], '{}'::text[]);
    ELSIF own.oid IS NULL OR own.ignored = '{}' AND own.masked = '{}' THEN
      PERFORM bemi.track_one(member,
        CASE above.replica_identity WHEN 'f' THEN 'full' ELSE 'keep' END, above.ignored, above.masked);
    ELSE
      PERFORM bemi.track_one(member, 'keep', own.ignored, own.masked || above.masked);
    END IF;
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.follow_table(regclass, boolean, boolean, oid) IS
'tracks a table where it should be and is not';

CREATE OR REPLACE FUNCTION bemi.follow_rename(relation regclass, kinds text[], old_value text, new_value text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  trigger record;
BEGIN
  IF NOT EXISTS (SELECT FROM unnest(kinds) kind WHERE old_value = ANY (bemi.table_rules(relation, kind))) THEN
    RETURN;
  END IF;
  FOR trigger IN
    SELECT t.*, ARRAY(
      SELECT COALESCE((
        SELECT kind || '=' || new_value
        FROM unnest(kinds) kind
        WHERE argument = kind || '=' || old_value), argument)
      FROM unnest(bemi.rules(t.arguments, 'every')) WITH ORDINALITY AS a (argument, place)
      ORDER BY place
    ) AS renamed
    FROM bemi.context_triggers t
    WHERE t.relation = follow_rename.relation
  LOOP
    IF trigger.name <> 'bemi_context' OR NOT trigger.is_whole THEN
      RAISE EXCEPTION 'the trigger % was not created by bemi.track()', quote_ident(trigger.name);
    END IF;
    PERFORM bemi.put_trigger(relation, trigger.renamed);
    -- The new trigger is enabled as any new one is.
    IF trigger.enabled <> 'O' THEN
      EXECUTE format('ALTER TABLE ONLY %s %s TRIGGER bemi_context', relation,
        CASE trigger.enabled WHEN 'D' THEN 'DISABLE' WHEN 'A' THEN 'ENABLE ALWAYS' ELSE 'ENABLE REPLICA' END);
    END IF;
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.follow_rename(regclass, text[], text, text) IS
'writes the new name of a column or an index into the rules of a table';

CREATE FUNCTION bemi.follow_schema(old_name text, new_name text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM bemi.tracked_schemas WHERE schema = old_name) THEN
    RETURN;
  END IF;
  PERFORM bemi.require_safe_tables(ARRAY['bemi.tracked_schemas'::regclass::oid]);
  WITH renamed AS (DELETE FROM bemi.tracked_schemas WHERE schema = old_name RETURNING 1)
  INSERT INTO bemi.tracked_schemas SELECT new_name FROM renamed;
EXCEPTION WHEN OTHERS THEN
  IF EXISTS (SELECT FROM bemi.tracked_schemas WHERE schema = old_name) THEN
    RAISE WARNING 'tables that are created in the schema % later will not be tracked: %', quote_ident(new_name), SQLERRM
      USING HINT = format('As a superuser: SELECT bemi.track_all(%L);', ARRAY[new_name]);
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.follow_schema(text, text) IS
'writes the new name of a schema into bemi.tracked_schemas';

CREATE FUNCTION bemi.followed(done text, old_name text) RETURNS SETOF regclass
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  relations oid[] := '{}';
  relation oid;
  place int := 1;
BEGIN
  -- Planned again after each statement, so it is as small as it can be; and a join might read all tables.
  FOR relation IN
    SELECT DISTINCT CASE
      WHEN done = 'partition' THEN old_name::oid
      WHEN done = 'constraint' THEN (
        SELECT conrelid FROM pg_constraint WHERE oid = objid AND contype IN ('p', 'u', 'x'))
      WHEN done = 'relation' THEN (SELECT indrelid FROM pg_index WHERE indexrelid = objid)
      WHEN classid = 'pg_class'::regclass THEN objid
      END
    FROM pg_event_trigger_ddl_commands()
  LOOP
    relations := relations || relation;
  END LOOP;
  WHILE place <= cardinality(relations) LOOP
    relation := relations[place];
    IF (SELECT relkind IN ('r', 'p') FROM pg_class WHERE oid = relation) THEN
      RETURN NEXT relation;
    END IF;
    IF done IN ('column', 'column added') THEN
      FOR relation IN
        SELECT inhrelid FROM pg_inherits WHERE inhparent = relation
        UNION ALL
        SELECT c.oid FROM pg_type t JOIN pg_class c ON c.reloftype = t.oid WHERE t.typrelid = relation
      LOOP
        IF relation <> ALL (relations) THEN
          relations := relations || relation;
        END IF;
      END LOOP;
    END IF;
    place := place + 1;
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.followed(text, text) IS
'returns the tables that the statement affects for which an event trigger is called';

CREATE FUNCTION bemi.follow(relation regclass, done text, old_name text, new_name text, author oid) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
  is_tracked boolean := EXISTS (SELECT FROM bemi.context_triggers t WHERE t.relation = follow.relation);
BEGIN
  IF done IN ('table', 'partition') THEN
    PERFORM bemi.follow_table(relation, is_attached => done = 'partition', author => author);
    PERFORM bemi.warn_of_conflicts(ARRAY(SELECT t::oid FROM bemi.tree(relation) t));
  ELSIF done = 'parent' THEN
    PERFORM bemi.mask_heirs(relation, author);
  ELSIF done = 'column' THEN
    PERFORM bemi.follow_rename(relation, '{ignore,mask}'::text[], old_name, new_name);
  ELSIF done <> 'column added' THEN
    PERFORM bemi.follow_rename(relation, '{identity}'::text[], 'index:' || old_name, 'index:' || new_name);
  ELSIF is_tracked THEN
    -- A mask that waited for the column holds by its number too.
    IF EXISTS (SELECT FROM bemi.masked_attributes(relation) m WHERE NOT m.by_number) THEN
      PERFORM bemi.renew_masks(relation);
    END IF;
    PERFORM bemi.warn_of_conflicts(ARRAY[relation::oid]);
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.follow(regclass, text, text, text, oid) IS
'keeps the tracking of a table complete after a statement that created, moved or renamed something';

CREATE FUNCTION bemi.follow_remedy(relation regclass, done text, new_name text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN CASE
    WHEN done IN ('table', 'partition') THEN
      format('SELECT bemi.follow_table(%L, true%s);', relation, CASE done WHEN 'partition' THEN ', true' ELSE '' END)
    WHEN done IN ('parent', 'column added') THEN
      format('SELECT bemi.track_again(%L);', relation)
    ELSE
      format('Its rules name what is called %I now: see bemi.tracked, and call bemi.track(%L) with its rules.',
        new_name, relation)
    END;
END
$$;

COMMENT ON FUNCTION bemi.follow_remedy(regclass, text, text) IS
'returns what to do about a table for which bemi.follow() failed';

CREATE FUNCTION bemi.follow_ddl(done text, old_name text, new_name text, author oid) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  relation regclass;
BEGIN
  PERFORM bemi.require_readable();
  IF done = 'schema' THEN
    PERFORM bemi.follow_schema(old_name, new_name);
    RETURN;
  ELSIF done = 'publication' THEN
    PERFORM bemi.warn_of_publications(), bemi.warn_of_conflicts();
    RETURN;
  END IF;
  FOR relation IN SELECT f FROM bemi.followed(done, old_name) f LOOP
    BEGIN
      PERFORM bemi.follow(relation, done, old_name, new_name, author);
    EXCEPTION WHEN OTHERS THEN
      RAISE WARNING 'bemi could not follow the change of %: %', relation, SQLERRM
        USING HINT = bemi.follow_remedy(relation, done, new_name);
    END;
  END LOOP;
EXCEPTION WHEN OTHERS THEN
  RAISE WARNING 'bemi could not follow this statement: %', SQLERRM
    USING HINT = 'SELECT * FROM bemi.doctor(); shows what is not tracked.';
END
$$;

COMMENT ON FUNCTION bemi.follow_ddl(text, text, text, oid) IS
'keeps tracking complete after a statement that created, moved, renamed or published something';

CREATE OR REPLACE FUNCTION bemi.on_ddl() RETURNS event_trigger
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'bemi_on_ddl';

COMMENT ON FUNCTION bemi.on_ddl() IS
'calls bemi.follow_ddl() after statements that matter, as an event trigger';

CREATE EVENT TRIGGER bemi_on_ddl ON ddl_command_end
WHEN TAG IN (
  'CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'CREATE SCHEMA', 'ALTER TABLE', 'ALTER TYPE', 'ALTER INDEX',
  'ALTER SCHEMA', 'CREATE PUBLICATION', 'ALTER PUBLICATION',
  -- These rename the columns of tables too.
  'ALTER VIEW', 'ALTER MATERIALIZED VIEW', 'ALTER FOREIGN TABLE')
EXECUTE FUNCTION bemi.on_ddl();

ALTER EVENT TRIGGER bemi_on_ddl ENABLE ALWAYS;

COMMENT ON EVENT TRIGGER bemi_on_ddl IS
'keeps the tracking of schemas, partitions and renamed columns complete';

CREATE FUNCTION bemi.make_way_for_view(relation oid) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET bemi.allow_drop = on AS $$
DECLARE
  trigger name;
BEGIN
  PERFORM bemi.require_readable();
  IF current_setting('server_version_num')::int >= 160000
    OR NOT EXISTS (SELECT FROM bemi.context_triggers t WHERE t.relation = make_way_for_view.relation)
    OR NOT EXISTS (
      SELECT FROM pg_class c WHERE c.oid = relation AND c.relkind = 'r'::"char" AND pg_relation_size(c.oid) = 0)
  THEN
    RETURN;
  END IF;
  FOR trigger IN SELECT t.name FROM bemi.context_triggers t WHERE t.relation = make_way_for_view.relation LOOP
    EXECUTE format('DROP TRIGGER %I ON %s', trigger, relation::regclass);
  END LOOP;
  -- As VACUUM does it, some time after the last trigger was dropped.
  UPDATE pg_class c SET relhastriggers = false
  WHERE c.oid = relation
    AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid);
END
$$;

COMMENT ON FUNCTION bemi.make_way_for_view(oid) IS
'stops tracking an empty table that a rule is about to turn into a view';

CREATE OR REPLACE FUNCTION bemi.before_ddl() RETURNS event_trigger
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'bemi_before_ddl';

COMMENT ON FUNCTION bemi.before_ddl() IS
'lets dumps create the trigger again and turn tables into views, and remembers dropped rules, as an event trigger';

CREATE EVENT TRIGGER bemi_before_ddl ON ddl_command_start
WHEN TAG IN ('CREATE TRIGGER', 'CREATE RULE', 'DROP TRIGGER')
EXECUTE FUNCTION bemi.before_ddl();

ALTER EVENT TRIGGER bemi_before_ddl ENABLE ALWAYS;

COMMENT ON EVENT TRIGGER bemi_before_ddl IS
'lets a dump be restored into tracked schemas, and lets dropped triggers be created again';

CREATE FUNCTION bemi.bemihq_objects() RETURNS TABLE (kind text, identity text, removal text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT o.kind, o.identity, o.removal
  FROM (
    SELECT 1, 'event trigger', format('%I', e.evtname), format('DROP EVENT TRIGGER %I', e.evtname)
    FROM pg_event_trigger e
      JOIN pg_proc p ON p.oid = e.evtfoid
    WHERE p.proname = '_bemi_create_table_trigger_func'
    UNION ALL
    SELECT 2, 'trigger', format('%I on %s', t.tgname, t.tgrelid::regclass),
      format('DROP TRIGGER %I ON %s', t.tgname, t.tgrelid::regclass)
    FROM pg_trigger t
      JOIN pg_proc p ON p.oid = t.tgfoid
    WHERE p.proname = '_bemi_row_trigger_func'
      AND NOT t.tgisinternal
      AND t.tgparentid = 0
    UNION ALL
    SELECT 3, CASE p.prokind WHEN 'p' THEN 'procedure' ELSE 'function' END, p.oid::regprocedure::text,
      format('DROP ROUTINE %s', p.oid::regprocedure)
    FROM pg_proc p
    WHERE p.proname IN ('_bemi_create_table_trigger_func', '_bemi_create_triggers', '_bemi_row_trigger_func')
  ) AS o (place, kind, identity, removal)
  ORDER BY o.place, o.identity
$$;

COMMENT ON FUNCTION bemi.bemihq_objects() IS
'returns the objects that a migration of BemiHQ''s packages created here, and the statements that drop them';

CREATE FUNCTION bemi.replace_bemihq() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  schemas name[] := ARRAY(
    SELECT DISTINCT n.nspname
    FROM pg_trigger t
      JOIN pg_proc p ON p.oid = t.tgfoid
      JOIN pg_class c ON c.oid = t.tgrelid
      JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE p.proname = '_bemi_row_trigger_func'
      AND NOT t.tgisinternal
      AND n.nspname NOT IN ('bemi', 'information_schema')
      AND NOT starts_with(n.nspname::text, 'pg_'));
  theirs record;
  done int := 0;
BEGIN
  -- The triggers of this extension come first, so that no change goes without one.
  IF schemas <> '{}' THEN
    PERFORM bemi.track_all(schemas);
  END IF;
  FOR theirs IN SELECT * FROM bemi.bemihq_objects() LOOP
    EXECUTE theirs.removal;
    done := done + 1;
  END LOOP;
  RAISE NOTICE 'dropped % objects of BemiHQ', done;
END
$$;

COMMENT ON FUNCTION bemi.replace_bemihq() IS
'tracks the schemas whose tables have BemiHQ''s triggers, and drops these and all other objects of BemiHQ''s migration';

CREATE OR REPLACE FUNCTION bemi.some_of(names text[]) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT array_to_string(names[1:5], ', ')
    || CASE WHEN cardinality(names) > 5 THEN format(' and %s more', cardinality(names) - 5) ELSE '' END
$$;

COMMENT ON FUNCTION bemi.some_of(text[]) IS
'returns the first five names of a list, and how many more there are';

CREATE FUNCTION bemi.doctor_of_tables() RETURNS TABLE ("check" text, ok boolean, detail text, fix text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  names text[];
  was_tracked boolean;
  used int;
BEGIN
  "check" := 'tracked tables';
  SELECT count(*) INTO used FROM bemi.tracked;
  ok := used > 0;
  detail := format('%s tables are tracked', used) || (
    SELECT COALESCE('; so are future tables in ' || string_agg(quote_ident(schema), ', ' ORDER BY schema), '')
    FROM bemi.tracked_schemas);
  fix := CASE WHEN NOT ok THEN 'SELECT bemi.track_all();' END;
  RETURN NEXT;

  "check" := 'untracked tables';
  names := ARRAY(
    SELECT t::text
    FROM bemi.trackable(ARRAY(SELECT schema FROM bemi.tracked_schemas)) t
    WHERE NOT EXISTS (SELECT FROM bemi.context_triggers o WHERE o.relation = t)
    ORDER BY 1);
  ok := cardinality(names) = 0;
  detail := CASE WHEN ok THEN 'none in the tracked schemas' ELSE 'in the tracked schemas: ' || bemi.some_of(names) END;
  fix := CASE WHEN NOT ok THEN format('SELECT bemi.track_all(%L);', ARRAY(
    SELECT schema FROM bemi.tracked_schemas JOIN pg_namespace ON nspname = schema ORDER BY schema)) END;
  RETURN NEXT;

  -- Tables of extensions are left out on purpose; but the owner of an extension can add any table to it.
  "check" := 'tables of extensions';
  SELECT COALESCE(array_agg(format('%s (%s)', c.oid::regclass, e.extname) ORDER BY c.oid), '{}'),
    bool_or(bemi.was_tracked(c.oid::regclass))
  INTO names, was_tracked
  FROM pg_class c
    JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
    JOIN pg_extension e ON e.oid = d.refobjid
  WHERE c.relkind IN ('r', 'p')
    AND c.relpersistence = 'p'
    AND c.relnamespace IN (SELECT n.oid FROM pg_namespace n JOIN bemi.tracked_schemas s ON s.schema = n.nspname)
    AND NOT EXISTS (SELECT FROM bemi.context_triggers t WHERE t.relation = c.oid);
  ok := was_tracked IS NOT TRUE;
  detail := CASE WHEN names = '{}' THEN 'none in the tracked schemas is untracked'
    ELSE 'not tracked, because they belong to extensions: ' || bemi.some_of(names)
      || CASE WHEN ok THEN '' ELSE '; some were tracked before' END
    END;
  fix := CASE WHEN NOT ok THEN (
    SELECT string_agg(format('SELECT bemi.track(%L);', d.objid::regclass), ' ')
    FROM pg_depend d
      JOIN pg_class c ON c.oid = d.objid
    WHERE d.classid = 'pg_class'::regclass
      AND d.deptype = 'e'
      AND c.relkind IN ('r', 'p')
      AND bemi.was_tracked(d.objid::regclass)
      AND NOT EXISTS (SELECT FROM bemi.context_triggers t WHERE t.relation = d.objid)) END;
  RETURN NEXT;
END
$$;

COMMENT ON FUNCTION bemi.doctor_of_tables() IS
'returns the rows of bemi.doctor() about which tables are tracked';

CREATE FUNCTION bemi.doctor_of_identities() RETURNS TABLE ("check" text, ok boolean, detail text, fix text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  names text[];
  refused text[];
BEGIN
  "check" := 'images before';
  SELECT
    COALESCE(array_agg(t.relation::text ORDER BY t.relation::text) FILTER (WHERE p.problem IS NULL), '{}'),
    COALESCE(array_agg(t.relation::text ORDER BY t.relation::text) FILTER (WHERE p.problem IS NOT NULL), '{}')
  INTO names, refused
  FROM bemi.tracked t
    JOIN pg_class c ON c.oid = t.relation,
    LATERAL (SELECT bemi.identity_problem(t.relation, 'full')) AS p (problem)
  WHERE t.replica_identity <> 'full'
    AND c.relkind = 'r';
  ok := names = '{}' AND refused = '{}';
  detail := CASE WHEN ok THEN 'WAL contains the whole row before each change'
    ELSE 'WAL does not contain the whole row before a change of ' || bemi.some_of(names || refused)
    END || CASE WHEN refused = '{}' THEN ''
      ELSE '; publications do not allow REPLICA IDENTITY FULL for ' || bemi.some_of(refused) END;
  -- What a publication publishes to its subscribers is for people to decide.
  fix := CASE WHEN NOT ok THEN concat_ws(' ', (
    SELECT string_agg(format('SELECT bemi.track_again(%L, ''full'');', name), ' ')
    FROM unnest(names) name
  ), (
    SELECT string_agg(format('SELECT * FROM bemi.identity_conflict(%L, ''full'');', name), ' ')
    FROM unnest(refused) name
  )) END;
  RETURN NEXT;

  "check" := 'triggers';
  names := ARRAY(
    SELECT t.relation::regclass::text
    FROM bemi.context_triggers t
    WHERE t.enabled NOT IN ('O', 'A')
    ORDER BY 1);
  ok := cardinality(names) = 0;
  detail := CASE WHEN ok THEN 'none is disabled' ELSE 'disabled on ' || bemi.some_of(names) END;
  fix := CASE WHEN NOT ok THEN (
    SELECT string_agg(format('ALTER TABLE %s ENABLE TRIGGER %I;', t.relation::regclass, t.name), ' ')
    FROM bemi.context_triggers t
    WHERE t.enabled NOT IN ('O', 'A')) END;
  RETURN NEXT;
END
$$;

COMMENT ON FUNCTION bemi.doctor_of_identities() IS
'returns the rows of bemi.doctor() about the replica identities and triggers of tracked tables';

CREATE FUNCTION bemi.doctor_of_drops() RETURNS TABLE ("check" text, ok boolean, detail text, fix text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  names text[];
BEGIN
  "check" := 'BemiHQ';
  names := ARRAY(SELECT format('the %s %s', b.kind, b.identity) FROM bemi.bemihq_objects() b);
  ok := names = '{}';
  detail := CASE WHEN ok THEN 'no objects of its migrations exist'
    ELSE 'its migration created ' || bemi.some_of(names) END;
  fix := CASE WHEN NOT ok THEN 'SELECT bemi.replace_bemihq();' END;
  RETURN NEXT;

  "check" := 'dropped triggers';
  SELECT
    COALESCE(array_agg(format('%s (by %I, %s)', c.oid::regclass, d.dropped_by, d.dropped_at)
      ORDER BY d.dropped_at DESC), '{}'),
    string_agg(format('SELECT bemi.track(%L);', c.oid::regclass), ' ' ORDER BY d.dropped_at DESC)
  INTO names, fix
  FROM bemi.dropped_triggers d
    JOIN pg_class c ON c.oid = d.relation
  WHERE NOT EXISTS (SELECT FROM bemi.context_triggers t WHERE t.relation = c.oid);
  ok := names = '{}';
  detail := CASE WHEN ok THEN 'no trigger of a tracked table was dropped manually'
    ELSE 'not tracked since their triggers were dropped: ' || bemi.some_of(names) END;
  RETURN NEXT;

  "check" := 'recorded changes';
  SELECT
    COALESCE(array_agg(k::text ORDER BY k::text), '{}'),
    string_agg(format('SELECT bemi.keep_table(%L);', k), ' ' ORDER BY k::text)
  INTO names, fix
  FROM bemi.kept_tables() k
  WHERE NOT EXISTS (
    SELECT FROM pg_trigger t
    WHERE t.tgrelid = k
      AND t.tgname = 'bemi_keep'
      AND t.tgenabled = 'A'
      AND t.tgfoid = 'bemi.refuse_truncate()'::regprocedure);
  ok := names = '{}';
  detail := CASE WHEN ok THEN 'TRUNCATE is refused' ELSE 'TRUNCATE is not refused: ' || bemi.some_of(names) END;
  RETURN NEXT;
END
$$;

COMMENT ON FUNCTION bemi.doctor_of_drops() IS
'returns the rows of bemi.doctor() about objects of BemiHQ, dropped triggers, and recorded changes';

CREATE FUNCTION bemi.was_tracked(relation regclass) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN has_table_privilege('bemi.table_versions', 'SELECT')
    AND EXISTS (SELECT FROM bemi.table_versions v WHERE v.relation = was_tracked.relation AND v.is_tracked);
END
$$;

COMMENT ON FUNCTION bemi.was_tracked(regclass) IS
'returns whether a table was tracked at any time, as far as that is known';

CREATE FUNCTION bemi.rules_by_others()
RETURNS TABLE (relation regclass, noted_by text, ignored name[], masked name[])
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT has_table_privilege('bemi.table_versions', 'SELECT') THEN
    RETURN;
  END IF;
  RETURN QUERY
    WITH versions AS (
      SELECT v.relation AS id, v.source, v.position, v.is_tracked, to_jsonb(v) ->> 'noted_by' AS noted_by,
        COALESCE(v.ignored, '{}') AS ignored, COALESCE(v.masked, '{}') AS masked,
        ARRAY(
          SELECT key::smallint FROM jsonb_each_text(v.columns) WHERE value = ANY (v.ignored) ORDER BY 1
        ) AS ignored_numbers,
        ARRAY(
          SELECT key::smallint FROM jsonb_each_text(v.columns) WHERE value = ANY (v.masked) ORDER BY 1
        ) AS masked_numbers
      FROM bemi.table_versions v
      WHERE EXISTS (SELECT FROM bemi.context_triggers t WHERE t.relation = v.relation)
    ), steps AS (
      SELECT v.*,
        COALESCE(lag(v.ignored) OVER w, '{}') AS old_ignored,
        COALESCE(lag(v.masked) OVER w, '{}') AS old_masked,
        COALESCE(lag(v.ignored_numbers) OVER w, '{}') AS old_ignored_numbers,
        COALESCE(lag(v.masked_numbers) OVER w, '{}') AS old_masked_numbers
      FROM versions v
      WINDOW w AS (PARTITION BY v.id ORDER BY v.source, v.position)
    ), latest AS (
      SELECT DISTINCT ON (s.id) s.*
      FROM steps s
      WHERE s.ignored <> s.old_ignored AND s.ignored_numbers <> s.old_ignored_numbers
        OR s.masked <> s.old_masked AND s.masked_numbers <> s.old_masked_numbers
      ORDER BY s.id, s.source DESC, s.position DESC
    )
    SELECT c.oid::regclass, l.noted_by, bemi.live_columns(c.oid, l.old_ignored_numbers),
      bemi.live_columns(c.oid, l.old_masked_numbers)
    FROM latest l
      JOIN pg_class c ON c.oid = l.id
      LEFT JOIN pg_roles r ON r.rolname = l.noted_by
    WHERE l.noted_by IS NOT NULL
      AND COALESCE(NOT r.rolsuper AND NOT pg_has_role(r.oid, c.relowner, 'USAGE'), true)
    ORDER BY c.oid;
END
$$;

COMMENT ON FUNCTION bemi.rules_by_others() IS
'returns tables whose rules were last changed by a role without the rights of the owner, and their rules before that';

CREATE FUNCTION bemi.live_columns(relation oid, numbers smallint[]) RETURNS name[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT ARRAY(
    SELECT a.attname
    FROM pg_attribute a
    WHERE a.attrelid = relation
      AND a.attnum = ANY (numbers)
      AND NOT a.attisdropped
    ORDER BY a.attnum)
$$;

COMMENT ON FUNCTION bemi.live_columns(oid, smallint[]) IS
'returns the names of those of some columns, given by their numbers, that were not dropped';

CREATE FUNCTION bemi.rules_remedy() RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT string_agg(DISTINCT CASE
    WHEN problem ~ '^the partition ' THEN
      format('SELECT bemi.follow_table(%L);', t.relation)
    WHEN problem ~ '^the table .* inherits from it' THEN (
      SELECT string_agg(format('SELECT bemi.follow_table(%L, true);', h), ' ')
      FROM bemi.untracked_heirs(t.relation) h)
    WHEN problem ~ '^statements that name ' THEN (
      SELECT string_agg(format('SELECT bemi.follow_table(%L, true);', a), ' ')
      FROM bemi.untracked_above(t.relation) a)
    WHEN problem ~ '^ignored columns ' THEN
      format('SELECT bemi.track_again(%L, ''full'');', t.relation)
    WHEN problem ~ ' to mask' THEN
      format('SELECT * FROM bemi.tracked WHERE relation = %L::regclass;', t.relation)
    ELSE
      format('SELECT bemi.track_again(%L);', t.relation)
    END, ' ')
  FROM bemi.tracked t,
    unnest(t.missing) problem
  WHERE problem !~ '^(the trigger|WAL|the publication) '
$$;

COMMENT ON FUNCTION bemi.rules_remedy() IS
'returns the statements that fix, or show, the rules of tracked tables that are not in force';

CREATE FUNCTION bemi.doctor_of_rules() RETURNS TABLE ("check" text, ok boolean, detail text, fix text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  names text[];
BEGIN
  "check" := 'rules';
  -- Other checks report the problems that are left out here.
  names := ARRAY(
    SELECT format('%s (%s)', t.relation, problem)
    FROM bemi.tracked t,
      unnest(t.missing) problem
    WHERE problem !~ '^(the trigger|WAL|the publication) '
    ORDER BY 1);
  ok := cardinality(names) = 0;
  detail := CASE WHEN ok THEN 'all are in force' ELSE bemi.some_of(names) END;
  fix := CASE WHEN NOT ok THEN bemi.rules_remedy() END;
  RETURN NEXT;

  "check" := 'rules by others';
  names := ARRAY(
    SELECT format('%s (%s)', o.relation, quote_ident(o.noted_by))
    FROM bemi.rules_by_others() o
    ORDER BY 1);
  ok := names = '{}';
  detail := CASE WHEN ok THEN 'no role without the rights of the owner changed rules'
    ELSE 'last changed by a role without the rights of the owner: ' || bemi.some_of(names) END;
  -- The rules from before that change.
  fix := CASE WHEN NOT ok THEN (
    SELECT string_agg(format('SELECT bemi.track(%L, ''keep'', %L, %L);', o.relation, o.ignored, o.masked), ' ')
    FROM bemi.rules_by_others() o) END;
  RETURN NEXT;
END
$$;

COMMENT ON FUNCTION bemi.doctor_of_rules() IS
'returns the rows of bemi.doctor() about the rules of tracked tables';

CREATE FUNCTION bemi.doctor_of_publications() RETURNS TABLE ("check" text, ok boolean, detail text, fix text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  names text[] := '{}';
  relations regclass[] := '{}';
BEGIN
  "check" := 'publications';
  IF EXISTS (SELECT FROM pg_publication) THEN
    SELECT COALESCE(array_agg(format('%s (%s)', p.relation, p.problem) ORDER BY p.relation), '{}'),
      COALESCE(array_agg(p.relation ORDER BY p.relation), '{}')
    INTO names, relations
    FROM (
      SELECT DISTINCT t.relation::regclass AS relation,
        bemi.identity_problem(t.relation::regclass, bemi.identity(t.relation::regclass)) AS problem
      FROM bemi.context_triggers t
    ) p
    WHERE p.problem IS NOT NULL;
  END IF;
  ok := names = '{}';
  detail := CASE WHEN ok THEN 'they allow the replica identities of tracked tables'
    ELSE 'UPDATE and DELETE fail: ' || bemi.some_of(names) END;
  fix := CASE WHEN NOT ok THEN (SELECT string_agg(bemi.identity_remedy(r), ' ') FROM unnest(relations) r) END;
  RETURN NEXT;

  "check" := 'subscribers';
  names := ARRAY(SELECT p.detail FROM bemi.publications_of_bemi() p);
  ok := names = '{}';
  detail := CASE WHEN ok THEN 'no publication includes tables of bemi that nobody added by name'
    ELSE 'a subscriber without the tables of bemi stops: ' || bemi.some_of(names)
      || '; see "Publications and subscribers" in docs/tracking.md' END;
  fix := CASE WHEN NOT ok THEN (SELECT string_agg(p.fix, ' ') FROM bemi.publications_of_bemi() p) END;
  RETURN NEXT;
END
$$;

COMMENT ON FUNCTION bemi.doctor_of_publications() IS
'returns the rows of bemi.doctor() about publications';

CREATE FUNCTION bemi.doctor_of_ownership() RETURNS TABLE ("check" text, ok boolean, detail text, fix text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  "check" := 'ownership';
  SELECT count(*) = 0, COALESCE(string_agg(u.detail, '; '), 'only a superuser owns what the recorder writes'),
    string_agg(u.fix, ' ')
  INTO ok, detail, fix
  FROM bemi.unsafe() u;
  -- A right that is not granted on any table, and that does not keep the recorder from recording.
  IF ok AND EXISTS (SELECT FROM pg_auth_members m WHERE m.roleid = 'pg_write_all_data'::regrole) THEN
    SELECT false,
      'members of pg_write_all_data may write recorded changes: ' || string_agg(DISTINCT quote_ident(r.rolname), ', '),
      string_agg(DISTINCT format('REVOKE pg_write_all_data FROM %I;', r.rolname), ' ')
    INTO ok, detail, fix
    FROM pg_auth_members m
      JOIN pg_roles r ON r.oid = m.member
    WHERE m.roleid = 'pg_write_all_data'::regrole;
  END IF;
  RETURN NEXT;
END
$$;

COMMENT ON FUNCTION bemi.doctor_of_ownership() IS
'returns the row of bemi.doctor() about who owns what the recorder writes';

CREATE OR REPLACE FUNCTION bemi.library_version() RETURNS text
LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'bemi_library_version';

COMMENT ON FUNCTION bemi.library_version() IS
'returns the version of the library that this session has loaded';

CREATE FUNCTION bemi.library_checksum() RETURNS text
LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'bemi_library_checksum';

COMMENT ON FUNCTION bemi.library_checksum() IS
'returns the checksum of the SQL that the library was built with';

CREATE FUNCTION bemi.sql_checksum() RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT '718fb73643a001df'::text
$$;

COMMENT ON FUNCTION bemi.sql_checksum() IS
'returns the checksum of the SQL that this database has';

CREATE FUNCTION bemi.doctor_of_library() RETURNS TABLE ("check" text, ok boolean, detail text, fix text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  library text := bemi.library_version();
  extension text := (SELECT e.extversion FROM pg_extension e WHERE e.extname = 'bemi'::name);
  -- A version without numbers is no array of them.
  is_newer boolean := CASE WHEN library ~ '^[0-9.]+$'::text AND extension ~ '^[0-9.]+$'::text
    THEN string_to_array(library, '.'::text)::int[] > string_to_array(extension, '.'::text)::int[] END;
BEGIN
  "check" := 'library';
  ok := library = extension AND bemi.library_checksum() = bemi.sql_checksum();
  detail := format('the library has version %s, the extension %s', library, extension);
  IF library <> extension THEN
    detail := concat(detail, CASE is_newer WHEN true THEN ': the library is newer'
      WHEN false THEN ': the extension is newer' END);
    fix := CASE WHEN is_newer IS NOT FALSE THEN 'ALTER EXTENSION bemi UPDATE;'
      ELSE format('-- install the library of version %s, and restart the server', extension) END;
  ELSIF NOT ok THEN
    detail := format('%s, but the library was built with other SQL (%s, not %s)',
      detail, bemi.library_checksum(), bemi.sql_checksum());
    fix := '-- install the library and the SQL of the same build, and restart the server';
  END IF;
  RETURN NEXT;
END
$$;

COMMENT ON FUNCTION bemi.doctor_of_library() IS
'returns the row of bemi.doctor() about the library: whether it fits the SQL of this database';

CREATE OR REPLACE FUNCTION bemi.setting(name text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT s.setting FROM pg_settings s WHERE s.name = setting.name
$$;

COMMENT ON FUNCTION bemi.setting(text) IS
'returns a setting of the server, or NULL if the server does not have it or the caller may not see it';

CREATE FUNCTION bemi.doctor_of_libraries() RETURNS TABLE ("check" text, ok boolean, detail text, fix text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  value text;
BEGIN
  "check" := 'output_plugin_libraries';
  value := bemi.setting('output_plugin_libraries');
  -- A list of names: '"a, b"' is one name.
  ok := value IS NULL
    OR regexp_split_to_array(value, '[[:space:]]*,[[:space:]]*') && ARRAY['bemi_decoder', '"bemi_decoder"'];
  detail := CASE
      WHEN value IS NULL THEN 'this server does not have the setting'
      WHEN value IN ('', '""') THEN 'it is empty'
      ELSE format('it is %s', value)
    END || CASE WHEN ok THEN '' ELSE ': the server does not load bemi_decoder' END;
  -- Each name is quoted separately, which also fixes a list that was stored as one name.
  fix := CASE WHEN NOT ok THEN
    format('ALTER SYSTEM SET output_plugin_libraries = %s; SELECT pg_reload_conf();', (
      SELECT string_agg(DISTINCT quote_ident(n), ', ')
      FROM regexp_split_to_table(replace(value, '"', '') || ',bemi_decoder', '[[:space:]]*,[[:space:]]*') n
      WHERE n <> '')) END;
  RETURN NEXT;

  RETURN QUERY SELECT * FROM bemi.doctor_of_library();

  "check" := 'preload';
  fix := NULL;
  IF pg_has_role('pg_read_all_settings', 'USAGE') THEN
    value := concat_ws(', ', nullif(bemi.setting('shared_preload_libraries'), ''),
      nullif(bemi.setting('session_preload_libraries'), ''));
    -- Not needed: the trigger loads the library when it fires for the first time.
    ok := true;
    detail := CASE WHEN regexp_split_to_array(value, '[[:space:]]*,[[:space:]]*') && '{bemi,"$libdir/bemi"}'
      THEN 'bemi is preloaded: contexts of roles and PGOPTIONS are checked at login'
      ELSE 'bemi is loaded at its first use; preloaded, it checks contexts of roles and PGOPTIONS at login' END;
  ELSE
    ok := NULL;
    detail := format('the role %s may not see it; a member of pg_read_all_settings may', quote_ident(current_user));
  END IF;
  RETURN NEXT;
END
$$;

COMMENT ON FUNCTION bemi.doctor_of_libraries() IS
'returns the rows of bemi.doctor() about the library and its loading';

CREATE FUNCTION bemi.doctor_of_capacity() RETURNS TABLE ("check" text, ok boolean, detail text, fix text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  value text;
  used int;
BEGIN
  "check" := 'max_replication_slots';
  SELECT count(*) INTO used FROM pg_replication_slots;
  ok := used < bemi.setting('max_replication_slots')::int
    OR EXISTS (SELECT FROM pg_replication_slots WHERE plugin = 'bemi_decoder' AND database = current_database());
  detail := format('%s of %s slots are in use', used, bemi.setting('max_replication_slots'));
  fix := CASE WHEN NOT ok THEN
    format('ALTER SYSTEM SET max_replication_slots = %s; -- and restart the server', used + 10) END;
  RETURN NEXT;

  "check" := 'max_wal_senders';
  SELECT count(*) INTO used FROM pg_stat_replication;
  ok := used < bemi.setting('max_wal_senders')::int;
  detail := format('%s of %s WAL senders are in use', used, bemi.setting('max_wal_senders'));
  fix := CASE WHEN NOT ok THEN
    format('ALTER SYSTEM SET max_wal_senders = %s; -- and restart the server', used + 10) END;
  RETURN NEXT;

  "check" := 'max_slot_wal_keep_size';
  value := bemi.setting('max_slot_wal_keep_size');
  ok := value::int >= 0;
  detail := CASE WHEN ok
    THEN format('a slot that is not read keeps at most %s of WAL, and is lost after that',
      pg_size_pretty(value::bigint * 1024 * 1024))
    ELSE 'there is no limit: a slot that is not read keeps WAL until the disk is full' END;
  fix := CASE WHEN NOT ok THEN
    'ALTER SYSTEM SET max_slot_wal_keep_size = ''50GB''; SELECT pg_reload_conf(); -- what your disk can spare' END;
  RETURN NEXT;
END
$$;

COMMENT ON FUNCTION bemi.doctor_of_capacity() IS
'returns the rows of bemi.doctor() about the limits on slots, WAL senders and WAL';

CREATE FUNCTION bemi.doctor_of_slots() RETURNS TABLE ("check" text, ok boolean, detail text, fix text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  value text := bemi.setting('max_slot_wal_keep_size');
  -- A gigabyte, or most of what the limit allows.
  enough numeric := least(1024 ^ 3, CASE WHEN value::int >= 0 THEN value::numeric * 1024 * 1024 * 0.8 END);
  slot record;
BEGIN
  FOR slot IN
    SELECT s.*,
      CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn) END AS kept
    FROM pg_replication_slots s
    WHERE s.plugin = 'bemi_decoder'
      AND s.database = current_database()
      AND s.slot_name IS DISTINCT FROM bemi.recorder_slot()
    ORDER BY s.slot_name
  LOOP
    "check" := format('slot %s', slot.slot_name);
    ok := slot.wal_status IS DISTINCT FROM 'lost'
      AND slot.wal_status IS DISTINCT FROM 'unreserved'
      AND COALESCE(slot.kept, 0) < enough;
    detail := CASE slot.wal_status
      WHEN 'lost' THEN 'the WAL that it needs was removed: changes are missing'
      ELSE format('it is %s and keeps %s of WAL',
          CASE WHEN slot.active THEN 'active' ELSE 'not active' END, COALESCE(pg_size_pretty(slot.kept), 'some'))
        || CASE slot.wal_status WHEN 'unreserved' THEN ', which is about to be removed' ELSE '' END
      END;
    fix := CASE WHEN NOT ok THEN format('SELECT pg_drop_replication_slot(%L); -- or read it', slot.slot_name) END;
    RETURN NEXT;
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.doctor_of_slots() IS
'returns the rows of bemi.doctor() about replication slots for bemi_decoder, except for that of the recorder';

CREATE FUNCTION bemi.doctor_of_recorder() RETURNS TABLE ("check" text, ok boolean, detail text, fix text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  recorder record;
BEGIN
  "check" := 'recorder';
  IF has_function_privilege(current_user, 'bemi.recorder_status()', 'EXECUTE') THEN
    SELECT * INTO recorder FROM bemi.recorder_status();
    ok := recorder.state IN ('never started', 'standby')
      OR recorder.state IN ('starting', 'catching up', 'recording') AND recorder.lag_seconds < 60
        AND recorder.fix IS NULL;
    detail := CASE recorder.state
      WHEN 'standby' THEN recorder.detail
      WHEN 'never started' THEN 'it was never started: changes are left to other readers of WAL'
      ELSE format('it is %s, %s and %s seconds behind', recorder.state, pg_size_pretty(recorder.lag_bytes),
          COALESCE(recorder.lag_seconds::text, 'unknown'))
        || COALESCE(': ' || CASE recorder.state
          WHEN 'waiting' THEN recorder.last_error
          ELSE recorder.detail END, '')
      END;
    ok := COALESCE(ok, false);
    fix := CASE WHEN NOT ok THEN
      COALESCE(recorder.fix, 'SELECT * FROM bemi.status; -- and fix what last_error says, or wait') END;
  ELSE
    ok := NULL;
    detail := format('the role %s may not see it; a member of pg_monitor may', quote_ident(current_user));
    fix := NULL;
  END IF;
  RETURN NEXT;
END
$$;

COMMENT ON FUNCTION bemi.doctor_of_recorder() IS
'returns the row of bemi.doctor() about the recorder';

CREATE FUNCTION bemi.own_event_triggers()
RETURNS TABLE (place int, name text, event text, function text, consequence text)
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  VALUES
    (1, 'bemi_on_ddl', 'ddl_command_end', 'on_ddl',
      'new tables, partitions and renamed columns are not followed'),
    (2, 'bemi_versions', 'ddl_command_end', 'note_ddl',
      'the past of altered tables cannot be read'),
    (3, 'bemi_versions_dropped', 'sql_drop', 'note_ddl',
      'the past of altered tables cannot be read'),
    (4, 'bemi_guard_drops', 'sql_drop', 'guard_drops',
      'recorded changes, and the triggers of tracked tables, can be dropped unnoticed'),
    (5, 'bemi_before_ddl',
      $t$ddl_command_start WHEN TAG IN ('CREATE TRIGGER', 'CREATE RULE', 'DROP TRIGGER')$t$, 'before_ddl',
      'rules can turn tables of bemi into views, and dropped triggers cannot be created again'),
    (6, 'bemi_before_drop',
      $t$ddl_command_start WHEN TAG IN ('DROP EXTENSION', 'DROP SCHEMA', 'DROP OWNED')$t$, 'before_drop',
      'the extension can be dropped while the server keeps WAL for its recorder')
$$;

COMMENT ON FUNCTION bemi.own_event_triggers() IS
'returns the event triggers of the extension, their functions, and what happens without them';

CREATE FUNCTION bemi.doctor_of_triggers() RETURNS TABLE ("check" text, ok boolean, detail text, fix text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  value text := bemi.setting('session_replication_role');
  lacking record;
BEGIN
  "check" := 'session_replication_role';
  ok := value <> 'replica';
  detail := format('it is %s', value)
    || CASE WHEN ok THEN '' ELSE ': triggers do not fire in this session, so its changes carry no context' END;
  fix := CASE WHEN NOT ok THEN 'SET session_replication_role = origin;' END;
  RETURN NEXT;

  "check" := 'event trigger';
  SELECT t.name, t.consequence, e.evtenabled::text AS enabled,
    format('CREATE EVENT TRIGGER %1$s ON %2$s EXECUTE FUNCTION bemi.%3$s(); '
      'ALTER EVENT TRIGGER %1$s ENABLE ALWAYS; ALTER EXTENSION bemi ADD EVENT TRIGGER %1$s;',
      t.name, t.event, t.function) AS again
  INTO lacking
  FROM bemi.own_event_triggers() t
    LEFT JOIN pg_event_trigger e ON e.evtname = t.name
  WHERE e.evtenabled IS DISTINCT FROM 'A'
  ORDER BY t.place
  LIMIT 1;
  -- PostgreSQL 17 and later can disable all of them.
  ok := lacking.name IS NULL AND COALESCE(bemi.setting('event_triggers'), 'on') = 'on';
  detail := CASE
    WHEN ok THEN 'new tables, partitions and renamed columns are followed'
    WHEN lacking.name IS NULL THEN
      'event_triggers is off: new tables, partitions and renamed columns are not followed'
    ELSE format('%s %s: %s', lacking.name,
      CASE WHEN lacking.enabled IS NULL THEN 'does not exist' ELSE 'does not fire in every session' END,
      lacking.consequence)
    END;
  fix := CASE
    WHEN ok THEN NULL
    WHEN lacking.name IS NULL THEN 'SET event_triggers = on;'
    WHEN lacking.enabled IS NULL THEN lacking.again
    ELSE format('ALTER EVENT TRIGGER %s ENABLE ALWAYS;', lacking.name)
    END;
  RETURN NEXT;
END
$$;

COMMENT ON FUNCTION bemi.doctor_of_triggers() IS
'returns the rows of bemi.doctor() about whether triggers fire in this session, and about event triggers';

CREATE OR REPLACE FUNCTION bemi.doctor() RETURNS TABLE ("check" text, ok boolean, detail text, fix text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  value text := bemi.setting('wal_level');
BEGIN
  "check" := 'wal_level';
  ok := value = 'logical';
  detail := format('it is %s', value) || CASE WHEN ok THEN '' ELSE ': WAL does not contain changes to decode' END;
  fix := CASE WHEN NOT ok THEN 'ALTER SYSTEM SET wal_level = logical; -- and restart the server' END;
  RETURN NEXT;

  RETURN QUERY SELECT * FROM bemi.doctor_of_libraries();
  RETURN QUERY SELECT * FROM bemi.doctor_of_capacity();
  RETURN QUERY SELECT * FROM bemi.doctor_of_slots();
  RETURN QUERY SELECT * FROM bemi.doctor_of_recorder();
  RETURN QUERY SELECT * FROM bemi.doctor_of_triggers();
  RETURN QUERY SELECT * FROM bemi.doctor_of_tables();
  RETURN QUERY SELECT * FROM bemi.doctor_of_identities();
  RETURN QUERY SELECT * FROM bemi.doctor_of_drops();
  RETURN QUERY SELECT * FROM bemi.doctor_of_rules();
  RETURN QUERY SELECT * FROM bemi.doctor_of_publications();
  RETURN QUERY SELECT * FROM bemi.doctor_of_ownership();
END
$$;

COMMENT ON FUNCTION bemi.doctor() IS
'returns what has to hold for the recorded changes to be complete, whether it does, and the statement that fixes it';

SELECT bemi.warn_of_publications();

CREATE FUNCTION bemi.change_id(committed_at timestamptz, commit_position pg_lsn, sequence int, source int DEFAULT 1)
RETURNS uuid
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'bemi_change_id';

COMMENT ON FUNCTION bemi.change_id(timestamptz, pg_lsn, int, int) IS
'returns the id of a change, which is derived from what identifies it';

CREATE FUNCTION bemi.place(source int, "position" bigint) RETURNS bigint
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'bemi_place';

COMMENT ON FUNCTION bemi.place(int, bigint) IS
'returns a position in WAL of a source as a number with the order of changes';

CREATE FUNCTION bemi.place(source int, "position" pg_lsn) RETURNS bigint
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'bemi_place';

COMMENT ON FUNCTION bemi.place(int, pg_lsn) IS
'returns a position in WAL of a source as a number with the order of changes';

CREATE FUNCTION bemi.place_source(place bigint) RETURNS int
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'bemi_place_source';

COMMENT ON FUNCTION bemi.place_source(bigint) IS
'returns the source of a place';

CREATE FUNCTION bemi.place_position(place bigint) RETURNS bigint
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'bemi_place_position';

COMMENT ON FUNCTION bemi.place_position(bigint) IS
'returns the position of a place in WAL of its source';

CREATE FUNCTION bemi.require_owner() RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  tables oid[];
  wrong record;
BEGIN
  PERFORM bemi.require_readable();
  -- With all partitions: nobody adds anything from here on.
  LOCK TABLE bemi.changes IN ROW EXCLUSIVE MODE;
  IF to_regclass('bemi.recorder') IS NOT NULL THEN
    LOCK TABLE bemi.recorder IN ROW EXCLUSIVE MODE;
  END IF;
  tables := bemi.own_tables();
  FOR wrong IN SELECT t.detail, t.fix FROM bemi.unsafe_tables(tables) t LOOP
    RAISE EXCEPTION '%', wrong.detail USING ERRCODE = 'insufficient_privilege', HINT = wrong.fix;
  END LOOP;
  -- A new owner, or new rights of others, are new rows of the catalogs.
  RETURN (
    SELECT string_agg(concat_ws(' ', c.oid, c.xmin, c.ctid, a.xmin, a.ctid), ', ' ORDER BY c.oid)
    FROM unnest(tables) t (oid)
      JOIN pg_class c ON c.oid = t.oid
      JOIN pg_authid a ON a.oid = c.relowner);
END
$$;

COMMENT ON FUNCTION bemi.require_owner() IS
'raises an error if a role that is not a superuser can write tables of bemi; its result changes with the owners';

CREATE OR REPLACE FUNCTION bemi.make_changes() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
SET session_replication_role = replica SET default_tablespace = '' AS $$
BEGIN
  IF to_regclass('bemi.changes') IS NULL THEN
    CREATE TABLE bemi.changes (
      id uuid NOT NULL,
      database text NOT NULL,
      schema text NOT NULL,
      "table" text NOT NULL,
      operation text NOT NULL,
      primary_key text,
      before jsonb NOT NULL,
      after jsonb NOT NULL,
      context jsonb NOT NULL,
      committed_at timestamptz NOT NULL,
      queued_at timestamptz NOT NULL,
      created_at timestamptz NOT NULL,
      transaction_id bigint NOT NULL,
      position bigint NOT NULL,
      commit_position pg_lsn NOT NULL,
      sequence int NOT NULL,
      omitted jsonb,
      old_primary_key text,
      -- The OID of the table at the time of the change.
      relation oid,
      -- Whose WAL it is from: see bemi.sources. What people insert themselves belongs to the first one.
      source int NOT NULL DEFAULT 1,
      PRIMARY KEY (id, committed_at)
    ) PARTITION BY RANGE (committed_at);
    -- What happened to a row, what happened at a time, what somebody did.
    CREATE INDEX changes_of_row ON bemi.changes (schema, "table", primary_key, committed_at);
    CREATE INDEX changes_by_time ON bemi.changes (committed_at);
    CREATE INDEX changes_by_context ON bemi.changes USING gin (context jsonb_path_ops);
    -- The key of a row before it was changed.
    CREATE INDEX changes_of_old_key ON bemi.changes (schema, "table", old_primary_key, committed_at)
      WHERE old_primary_key IS NOT NULL;
    -- The order of changes, for reading on from a position. The id, which is derived from it, makes each change unique.
    CREATE INDEX changes_by_position ON bemi.changes (source, commit_position, sequence);
    CREATE TABLE bemi.changes_default PARTITION OF bemi.changes DEFAULT;
    PERFORM bemi.own_alone('bemi.changes'::regclass), bemi.own_alone('bemi.changes_default'::regclass);
    COMMENT ON TABLE bemi.changes IS 'the changes that the recorder of bemi has recorded, each once';
  END IF;
  PERFORM bemi.make_recorder();
  PERFORM bemi.make_sources();
  PERFORM bemi.keep_table(t) FROM bemi.kept_tables() t;
  -- It stays locked: before that, somebody might have added something.
  PERFORM bemi.require_safe_tables(ARRAY['bemi.recorder'::regclass::oid]);
  INSERT INTO bemi.recorder (is_wanted, state, state_since)
  VALUES (false, 'stopped', now())
  ON CONFLICT DO NOTHING;
END
$$;

COMMENT ON FUNCTION bemi.make_changes() IS
'creates the tables bemi.changes, bemi.recorder, bemi.sources and bemi.recorded_versions, if they do not exist';

CREATE FUNCTION bemi.make_recorder() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
SET session_replication_role = replica SET default_tablespace = '' AS $$
BEGIN
  IF to_regclass('bemi.recorder') IS NULL THEN
    CREATE TABLE bemi.recorder (
      is_one boolean PRIMARY KEY DEFAULT true CHECK (is_one),
      slot name,
      is_wanted boolean NOT NULL,
      state text NOT NULL,
      state_since timestamptz NOT NULL,
      last_error text,
      last_error_at timestamptz,
      -- The statements that fix it, if they are known.
      last_fix text,
      -- How often it failed since it last succeeded.
      failures int NOT NULL DEFAULT 0,
      -- The last change that was recorded from this slot.
      commit_position pg_lsn NOT NULL DEFAULT '0/0',
      sequence int NOT NULL DEFAULT 0,
      committed_at timestamptz,
      -- Everything before it is recorded, and the slot is confirmed up to it at most.
      read_position pg_lsn,
      transactions bigint NOT NULL DEFAULT 0,
      changes bigint NOT NULL DEFAULT 0,
      spilled_bytes bigint NOT NULL DEFAULT 0,
      -- A gap that is to be recorded.
      gap_reason text CHECK (gap_reason IN ('slot lost', 'stopped', 'replaced')),
      gap_source int,
      gap_from pg_lsn,
      gap_to pg_lsn,
      gap_at timestamptz,
      gap_transaction bigint,
      gap_accepted_by name,
      -- What was committed after it is recorded, except for gaps.
      since timestamptz,
      -- The source of these positions. It is the last one, unless a dump was restored.
      source int
    );
    PERFORM bemi.own_alone('bemi.recorder'::regclass);
    COMMENT ON TABLE bemi.recorder IS 'the progress of the recorder of bemi; see bemi.status';
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.make_recorder() IS
'creates the table bemi.recorder, if it does not exist';

CREATE FUNCTION bemi.make_sources() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET session_replication_role = replica AS $$
BEGIN
  IF to_regclass('bemi.sources') IS NULL THEN
    CREATE TABLE bemi.sources (
      source int PRIMARY KEY,
      -- For people, who may change it.
      name text NOT NULL,
      system_identifier bigint NOT NULL,
      database text NOT NULL,
      first_position pg_lsn NOT NULL,
      since timestamptz NOT NULL,
      until timestamptz,
      -- The database, and bemi.changes, bemi.recorder, this table and bemi.recorded_versions: tables that were
      -- restored from a dump have other OIDs.
      database_oid oid NOT NULL,
      tables oid[] NOT NULL
    );
    PERFORM bemi.own_alone('bemi.sources'::regclass);
    GRANT SELECT ON bemi.sources TO PUBLIC;
    COMMENT ON TABLE bemi.sources IS
      'the servers and databases of the changes in bemi.changes, by their column source';
  END IF;
  IF to_regclass('bemi.recorded_versions') IS NULL THEN
    CREATE TABLE bemi.recorded_versions (LIKE bemi.table_versions, PRIMARY KEY (relation, source, position));
    PERFORM bemi.own_alone('bemi.recorded_versions'::regclass);
    COMMENT ON TABLE bemi.recorded_versions IS
      'a copy of bemi.table_versions of recorded times, for dumps; it outlives the extension';
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.make_sources() IS
'creates the tables bemi.sources and bemi.recorded_versions, if they do not exist';

CREATE OR REPLACE FUNCTION bemi.make_changes_diff() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET session_replication_role = replica AS $$
DECLARE
  -- PostgreSQL 14 reads the tables of a view with the rights of its owner.
  is_invoker boolean := current_setting('server_version_num')::int >= 150000;
BEGIN
  IF to_regclass('bemi.changes_diff') IS NULL THEN
    EXECUTE format($query$
      CREATE VIEW bemi.changes_diff %s AS
      SELECT c.id, c.schema, c."table", c.operation, c.primary_key, (
          SELECT COALESCE(jsonb_object_agg(key, jsonb_build_array(b.value, a.value)), '{}')
          FROM jsonb_each(c.before) b FULL JOIN jsonb_each(c.after) a USING (key)
          WHERE COALESCE(b.value, 'null') <> COALESCE(a.value, 'null')
        ) AS diff, c.context, c.committed_at, c.transaction_id, c.commit_position, c.sequence, c.source
      FROM bemi.changes c %s$query$,
      CASE WHEN is_invoker THEN 'WITH (security_invoker = true)' ELSE '' END,
      CASE WHEN is_invoker THEN ''
        ELSE 'WHERE has_table_privilege(''bemi.changes''::regclass, ''SELECT'') '
          'AND NOT row_security_active(''bemi.changes''::regclass)' END);
    PERFORM bemi.own_alone('bemi.changes_diff'::regclass);
    GRANT SELECT ON bemi.changes_diff TO PUBLIC;
    COMMENT ON VIEW bemi.changes_diff IS
      'the changes that the recorder of bemi has recorded, with what each changed: {"column": [before, after]}';
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.make_changes_diff() IS
'creates the view bemi.changes_diff, if it does not exist';

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

CREATE OR REPLACE FUNCTION bemi.add_partition(month timestamptz) RETURNS void
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

CREATE OR REPLACE FUNCTION bemi.keep_partitions(retention interval) RETURNS void
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

CREATE OR REPLACE FUNCTION bemi.has_strays(since timestamptz DEFAULT '-infinity', until timestamptz DEFAULT 'infinity')
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

CREATE OR REPLACE FUNCTION bemi.launch() RETURNS integer
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'bemi_launch';

COMMENT ON FUNCTION bemi.launch() IS
'starts the worker of this database; bemi.start() calls it';

CREATE OR REPLACE FUNCTION bemi.wake(pid integer) RETURNS void
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'bemi_wake';

COMMENT ON FUNCTION bemi.wake(integer) IS
'makes the worker check at once whether there is something to record';

CREATE OR REPLACE FUNCTION bemi.create_slot(slot name) RETURNS void
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'bemi_create_slot';

COMMENT ON FUNCTION bemi.create_slot(name) IS
'creates a replication slot for bemi_decoder, as pg_create_logical_replication_slot does';

CREATE OR REPLACE FUNCTION bemi.lock_recorder() RETURNS void
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'bemi_lock_recorder';

COMMENT ON FUNCTION bemi.lock_recorder() IS
'allows only one transaction at a time to start or stop the recorder';

CREATE OR REPLACE FUNCTION bemi.flush_log(until pg_lsn) RETURNS void
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'bemi_flush_log';

COMMENT ON FUNCTION bemi.flush_log(pg_lsn) IS
'flushes WAL to disk up to a position';

CREATE FUNCTION bemi.recorder_slot_prefix() RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN (SELECT format('bemi_recorder_%s_', oid) FROM pg_database WHERE datname = current_database());
END
$$;

COMMENT ON FUNCTION bemi.recorder_slot_prefix() IS
'returns what the names of the slots of recorders begin with in this database';

CREATE OR REPLACE FUNCTION bemi.recorder_slots() RETURNS SETOF pg_catalog.pg_replication_slots
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN QUERY
    SELECT s.*
    FROM pg_replication_slots s
    WHERE s.database = current_database()
      AND s.plugin = 'bemi_decoder'
      AND starts_with(s.slot_name::text, (SELECT bemi.recorder_slot_prefix()));
END
$$;

COMMENT ON FUNCTION bemi.recorder_slots() IS
'returns the replication slots that recorders created in this database';

CREATE OR REPLACE FUNCTION bemi.new_recorder_slot() RETURNS name
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  SELECT format('%s%s', bemi.recorder_slot_prefix(), (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)::name
$$;

COMMENT ON FUNCTION bemi.new_recorder_slot() IS
'returns a name for a new slot of the recorder';

CREATE OR REPLACE FUNCTION bemi.recorder_slot() RETURNS name
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF to_regclass('bemi.recorder') IS NULL THEN
    RETURN NULL;
  END IF;
  PERFORM bemi.require_readable();
  RETURN (SELECT slot FROM bemi.recorder);
EXCEPTION WHEN insufficient_privilege THEN
  -- The doctor reports why.
  RETURN NULL;
END
$$;

COMMENT ON FUNCTION bemi.recorder_slot() IS
'returns the name of the slot of the recorder of this database, if it has one';

CREATE OR REPLACE FUNCTION bemi.recorder_pid() RETURNS integer
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  SELECT pid
  FROM pg_stat_activity
  WHERE backend_type = 'bemi recorder'
    AND datname = current_database()
  ORDER BY backend_start
  LIMIT 1
$$;

COMMENT ON FUNCTION bemi.recorder_pid() IS
'returns the process ID of the recorder of this database, or NULL if it does not run';

CREATE OR REPLACE FUNCTION bemi.end_recorder() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  until timestamptz := clock_timestamp() + interval '30 s';
  pid int;
BEGIN
  LOOP
    PERFORM pg_stat_clear_snapshot();
    pid := bemi.recorder_pid();
    EXIT WHEN pid IS NULL;
    PERFORM pg_terminate_backend(pid);
    PERFORM pg_sleep(0.02);
    IF clock_timestamp() > until THEN
      RAISE EXCEPTION 'the recorder, process %, does not end', pid
        USING ERRCODE = 'object_in_use', HINT = 'Try again.';
    END IF;
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.end_recorder() IS
'ends the worker of this database, and waits until it has ended';

CREATE FUNCTION bemi.is_forged(known record) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN greatest(known.commit_position, known.read_position, known.gap_to) > pg_current_wal_flush_lsn()
    OR known.gap_reason IS NOT NULL AND NOT COALESCE(
      known.gap_reason IN ('slot lost', 'stopped', 'replaced')
      AND known.gap_to IS NOT NULL
      AND known.gap_at BETWEEN '2000-01-01' AND clock_timestamp() + interval '1 day'
      AND known.gap_transaction >= 0, false);
END
$$;

COMMENT ON FUNCTION bemi.is_forged(record) IS
'returns whether the row of bemi.recorder contains values that neither the recorder nor bemi.start() wrote';

CREATE FUNCTION bemi.slot_problem() RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms' AS $$
DECLARE
  slots pg_replication_slots[];
  slot pg_replication_slots;
  known record;
  is_forged boolean;
BEGIN
  SELECT array_agg(s) INTO slots FROM bemi.recorder_slots() s;
  SELECT * INTO known FROM bemi.recorder;
  IF known.slot IS NULL THEN
    RETURN NULL;
  END IF;
  SELECT s.* INTO slot FROM unnest(slots) s WHERE s.slot_name = known.slot;
  IF slot.slot_name IS NULL AND bemi.is_of_another(known.source) THEN
    RETURN 'the recorded changes are of another server or database';
  ELSIF slot.slot_name IS NULL THEN
    RETURN 'the slot of the recorder was dropped';
  ELSIF slot.wal_status = 'lost' OR slot.restart_lsn IS NULL OR slot.restart_lsn = '0/0' THEN
    RETURN 'the server has removed WAL that the slot of the recorder needs';
  ELSIF bemi.is_replaced() THEN
    RETURN 'bemi.changes was replaced, as by restoring a dump over it';
  ELSIF bemi.is_forged(known) THEN
    is_forged := true;
  ELSIF known.commit_position > slot.confirmed_flush_lsn AND to_regclass('bemi.changes') IS NOT NULL THEN
    -- Recorded, but not confirmed yet: then its rows are there.
    BEGIN
      EXECUTE 'SELECT NOT EXISTS (
          SELECT FROM bemi.sources s
            JOIN bemi.changes c ON c.source = s.source AND c.commit_position = $1 AND c.sequence <= $2)'
        INTO is_forged USING known.commit_position, known.sequence;
    EXCEPTION WHEN lock_not_available THEN
      -- Asking for the status of the recorder does not wait for others.
      IF slot.active_pid = pg_backend_pid() THEN
        RAISE;
      END IF;
    END;
  END IF;
  IF is_forged THEN
    RETURN 'the progress in bemi.recorder is not what was recorded';
  ELSIF slot.confirmed_flush_lsn > known.read_position AND NOT COALESCE(slot.active_pid <> pg_backend_pid()
    AND slot.active_pid IN (SELECT a.pid FROM pg_stat_activity a WHERE a.backend_type = 'bemi recorder'), false)
  THEN
    RETURN format('another reader has read the slot of the recorder up to %s', slot.confirmed_flush_lsn);
  END IF;
  RETURN NULL;
END
$$;

COMMENT ON FUNCTION bemi.slot_problem() IS
'returns why the recorder cannot continue from where it was, or NULL if it can';

CREATE FUNCTION bemi.is_progress_problem(problem text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT COALESCE(problem LIKE 'the progress %', false)
$$;

COMMENT ON FUNCTION bemi.is_progress_problem(text) IS
'returns whether a result of bemi.slot_problem() means that the progress in bemi.recorder cannot be trusted';

CREATE FUNCTION bemi.problem_kind(problem text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE WHEN problem LIKE '%was replaced%' THEN 'replaced' WHEN problem IS NOT NULL THEN 'slot lost' END
$$;

COMMENT ON FUNCTION bemi.problem_kind(text) IS
'returns the state of the recorder, and the reason of the gap, for a result of bemi.slot_problem(); NULL if NULL';

CREATE FUNCTION bemi.recorded_until(problem text) RETURNS pg_lsn
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  known record;
  result pg_lsn;
BEGIN
  SELECT * INTO known FROM bemi.recorder;
  IF bemi.is_progress_problem(problem) THEN
    SELECT least(s.confirmed_flush_lsn, known.read_position, pg_current_wal_flush_lsn())
    INTO result
    FROM bemi.recorder_slots() s
    WHERE s.slot_name = known.slot;
    RETURN result;
  END IF;
  RETURN greatest(known.read_position, known.commit_position);
END
$$;

COMMENT ON FUNCTION bemi.recorded_until(text) IS
'returns the position up to which everything is recorded, given the result of bemi.slot_problem()';

CREATE OR REPLACE FUNCTION bemi.before_drop() RETURNS event_trigger
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'bemi_before_drop';

COMMENT ON FUNCTION bemi.before_drop() IS
'refuses to drop the extension while its recorder has a slot, and releases the recorded changes, as an event trigger';

CREATE EVENT TRIGGER bemi_before_drop ON ddl_command_start
WHEN TAG IN ('DROP EXTENSION', 'DROP SCHEMA', 'DROP OWNED')
EXECUTE FUNCTION bemi.before_drop();

ALTER EVENT TRIGGER bemi_before_drop ENABLE ALWAYS;

COMMENT ON EVENT TRIGGER bemi_before_drop IS
'keeps the extension from being dropped while its recorder has a slot';

CREATE FUNCTION bemi.require_startable() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  problem record;
BEGIN
  FOR problem IN
    SELECT d."check", d.detail, d.fix
    FROM bemi.doctor() d
    WHERE d."check" IN ('wal_level', 'output_plugin_libraries', 'library', 'max_replication_slots')
      AND NOT d.ok
  LOOP
    RAISE EXCEPTION 'the recorder cannot be started: %: %', problem."check", problem.detail
      USING ERRCODE = 'object_not_in_prerequisite_state', HINT = problem.fix;
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.require_startable() IS
'raises an error if a setting or the version of the library keeps the recorder from starting';

CREATE FUNCTION bemi.state_before_start(
  OUT is_wanted boolean, OUT slot name, OUT wanted_slot name, OUT problem text, OUT reason text, OUT ended pg_lsn
)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  known record;
BEGIN
  is_wanted := false;
  IF to_regclass('bemi.recorder') IS NOT NULL THEN
    problem := bemi.slot_problem();
    SELECT * INTO known FROM bemi.recorder;
    wanted_slot := known.slot;
    SELECT s.slot_name INTO slot FROM bemi.recorder_slots() s WHERE s.slot_name = known.slot;
    reason := CASE WHEN known.slot IS NULL THEN 'stopped' ELSE bemi.problem_kind(problem) END;
    is_wanted := known.is_wanted AND reason IS NULL;
    ended := bemi.recorded_until(problem);
  ELSIF to_regclass('bemi.changes') IS NOT NULL THEN
    reason := 'slot lost';
    EXECUTE 'SELECT c.commit_position FROM bemi.changes c ORDER BY c.source DESC, c.commit_position DESC LIMIT 1'
      INTO ended;
  ELSE
    reason := 'new';
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.state_before_start() IS
'returns whether the recorder should run, its slot, and where and why recording ended, if it cannot continue';

CREATE FUNCTION bemi.require_no_gap(reason text, problem text, ended pg_lsn) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF reason IN ('slot lost', 'replaced') THEN
    RAISE EXCEPTION '%: changes after % are missing',
        CASE reason WHEN 'replaced' THEN 'bemi.changes was replaced' ELSE 'the slot of the recorder is lost' END, ended
      USING ERRCODE = 'object_not_in_prerequisite_state',
        DETAIL = COALESCE(problem, 'nothing is known of the slot of the recorder') || '.',
        HINT = bemi.accept_gap_fix();
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.require_no_gap(text, text, pg_lsn) IS
'raises an error if the recorder cannot continue from where it was, and changes are missing';

CREATE FUNCTION bemi.note_gap(reason text, problem text, ended pg_lsn, confirmed pg_lsn) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  UPDATE bemi.recorder r SET
    gap_reason = CASE WHEN r.gap_reason = 'slot lost' THEN r.gap_reason ELSE reason END,
    gap_from = CASE
      WHEN bemi.is_progress_problem(problem) THEN ended
      WHEN r.gap_source < r.source THEN r.gap_from
      ELSE least(r.gap_from, ended)
    END,
    gap_source = COALESCE(r.gap_source, r.source),
    -- After what is recorded, if that is not confirmed yet.
    gap_to = CASE
      WHEN reason = 'replaced' AND r.commit_position >= confirmed THEN r.commit_position + 1::numeric
      ELSE confirmed
    END,
    gap_at = clock_timestamp(),
    gap_transaction = pg_current_xact_id()::text::bigint & 4294967295,
    gap_accepted_by = session_user;
END
$$;

COMMENT ON FUNCTION bemi.note_gap(text, text, pg_lsn, pg_lsn) IS
'notes in bemi.recorder that changes up to the confirmed position of the slot are missing';

CREATE FUNCTION bemi.begin_recording(reason text, new_slot name, confirmed pg_lsn) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF reason IS NOT NULL THEN
    UPDATE bemi.recorder r SET source = bemi.current_source(true, confirmed);
  END IF;
  IF reason = 'replaced' THEN
    UPDATE bemi.recorder r SET read_position = confirmed;
  ELSIF reason IS NOT NULL THEN
    -- Former positions are those of another slot or, in a dump that was restored, of another cluster.
    UPDATE bemi.recorder r SET
      slot = new_slot,
      commit_position = '0/0',
      sequence = 0,
      read_position = confirmed,
      since = CASE WHEN reason = 'new' THEN clock_timestamp() ELSE r.since END;
  END IF;
  UPDATE bemi.recorder r SET
    is_wanted = true,
    state = 'starting',
    state_since = now(),
    failures = 0;
END
$$;

COMMENT ON FUNCTION bemi.begin_recording(text, name, pg_lsn) IS
'writes to bemi.recorder that recording begins, and from which slot if it does not continue';

CREATE OR REPLACE FUNCTION bemi.start(accept_gap boolean DEFAULT false) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  before record;
  slot pg_replication_slots;
  old name;
  made name;
BEGIN
  IF pg_is_in_recovery() THEN
    RAISE EXCEPTION 'the recorder cannot be started on a standby'
      USING ERRCODE = 'object_not_in_prerequisite_state',
        HINT = 'Start it on the primary; bemi.changes is replicated like any table.';
  END IF;
  -- The worker also waits for the end of this transaction.
  PERFORM bemi.lock_recorder();
  PERFORM bemi.require_readable(), bemi.require_safe();
  before := bemi.state_before_start();
  IF before.is_wanted AND bemi.recorder_pid() IS NOT NULL THEN
    RAISE NOTICE 'the recorder of this database is already running';
    RETURN;
  END IF;
  PERFORM bemi.require_startable(), bemi.warn_of_publications();
  IF NOT accept_gap THEN
    PERFORM bemi.require_no_gap(before.reason, before.problem, before.ended);
  END IF;
  -- A worker that is about to end, or to find that its slot is lost.
  PERFORM bemi.end_recorder();
  -- What a transaction that was rolled back, or such a worker, left.
  FOR old IN
    SELECT s.slot_name
    FROM bemi.recorder_slots() s
    WHERE NOT s.active
      AND (before.reason <> 'replaced' OR s.slot_name <> before.slot)
  LOOP
    PERFORM pg_drop_replication_slot(old);
  END LOOP;
  IF before.reason = 'replaced' THEN
    -- WAL is there from where the other tables ended.
    SELECT * INTO slot FROM bemi.recorder_slots() s WHERE s.slot_name = before.wanted_slot;
  ELSIF before.reason IS NOT NULL THEN
    made := bemi.new_recorder_slot();
    PERFORM bemi.create_slot(made);
    SELECT * INTO slot FROM bemi.recorder_slots() s WHERE s.slot_name = made;
  END IF;

  BEGIN
    PERFORM bemi.make_changes(), bemi.make_changes_diff();
    BEGIN
      PERFORM bemi.keep_partitions(NULL::interval);
    EXCEPTION WHEN lock_not_available THEN
      -- Somebody reads the table: the worker creates them.
    END;
    IF before.reason IN ('slot lost', 'stopped', 'replaced') THEN
      PERFORM bemi.note_gap(before.reason, before.problem, before.ended, slot.confirmed_flush_lsn);
    END IF;
    PERFORM bemi.begin_recording(before.reason, slot.slot_name, slot.confirmed_flush_lsn);
    PERFORM bemi.launch();
  EXCEPTION WHEN OTHERS OR query_canceled THEN
    IF made IS NOT NULL THEN
      PERFORM pg_drop_replication_slot(made);
    END IF;
    RAISE;
  END;
END
$$;

COMMENT ON FUNCTION bemi.start(boolean) IS
'records changes of tracked tables in bemi.changes from now on; with accept_gap, although earlier changes are missing';

CREATE FUNCTION bemi.accept_gap_fix() RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT 'SELECT bemi.start(accept_gap => true); -- records that there is a gap, and continues from here'::text
$$;

COMMENT ON FUNCTION bemi.accept_gap_fix() IS
'returns the statement that starts the recorder although changes are missing';

CREATE OR REPLACE FUNCTION bemi.stop(drop_slot boolean DEFAULT false) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  slot pg_replication_slots;
BEGIN
  PERFORM bemi.lock_recorder();
  -- The next start records what is not recorded yet. A worker that the server starts again waits for this transaction.
  PERFORM bemi.end_recorder();
  IF to_regclass('bemi.recorder') IS NOT NULL THEN
    PERFORM bemi.require_readable(), bemi.require_safe_tables(ARRAY['bemi.recorder'::regclass::oid]);
    UPDATE bemi.recorder r SET
      is_wanted = false,
      state = 'stopped',
      state_since = now();
  END IF;
  IF drop_slot THEN
    FOR slot IN SELECT * FROM bemi.recorder_slots() LOOP
      IF to_regclass('bemi.recorder') IS NOT NULL THEN
        UPDATE bemi.recorder r SET slot = NULL WHERE r.slot = slot.slot_name;
      END IF;
      PERFORM pg_drop_replication_slot(slot.slot_name);
    END LOOP;
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.stop(boolean) IS
'stops recording; with drop_slot, the server removes WAL that is not recorded yet, and those changes are lost';

CREATE OR REPLACE FUNCTION bemi.sync(timeout interval DEFAULT '30 s') RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  target pg_lsn;
  until timestamptz := clock_timestamp() + COALESCE(timeout, '30 s');
  slot name;
  reached pg_lsn;
  is_flushed boolean := false;
  woken timestamptz := '-infinity';
BEGIN
  IF pg_is_in_recovery() THEN
    RAISE EXCEPTION 'the recorder does not run on a standby'
      USING ERRCODE = 'object_not_in_prerequisite_state',
        HINT = 'Call bemi.sync() on the primary. bemi.changes can be read on the standby too.';
  END IF;
  target := pg_current_wal_insert_lsn();
  -- A page of WAL begins with a header, which belongs to no record yet.
  IF (target - '0/0') % current_setting('wal_block_size')::int <= 40 THEN
    target := target - (target - '0/0') % current_setting('wal_block_size')::int;
  END IF;
  IF to_regclass('bemi.recorder') IS NOT NULL THEN
    PERFORM bemi.require_readable();
    SELECT r.slot INTO slot FROM bemi.recorder r WHERE r.is_wanted;
  END IF;
  LOOP
    -- An idle worker shows how far it has recorded everything, which it confirms later.
    SELECT greatest(s.confirmed_flush_lsn,
      substring(a.query FROM '^bemi recorder: recording up to ([0-9A-F]+/[0-9A-F]+)$')::pg_lsn)
    INTO reached
    FROM pg_replication_slots s
      LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid AND a.backend_type = 'bemi recorder' AND a.state = 'idle'
    WHERE s.slot_name = slot
      AND s.database = current_database()
      AND s.wal_status <> 'lost';
    -- Another reader of the slot records nothing.
    IF NOT FOUND OR (reached >= target OR NOT is_flushed) AND bemi.slot_problem() IS NOT NULL THEN
      RAISE EXCEPTION 'the changes of this database are not recorded: %', (SELECT state FROM bemi.recorder_status())
        USING ERRCODE = 'object_not_in_prerequisite_state',
          HINT = COALESCE((SELECT fix FROM bemi.recorder_status()), 'SELECT bemi.start();');
    ELSIF reached >= target THEN
      RETURN;
    ELSIF NOT is_flushed THEN
      -- Otherwise uncommitted changes of others might keep the end of WAL in memory.
      PERFORM bemi.flush_log(target);
      is_flushed := true;
    ELSIF clock_timestamp() > until THEN
      RAISE EXCEPTION 'not everything was recorded within %', timeout
        USING ERRCODE = 'query_canceled',
          DETAIL = format('%s of WAL are left.', pg_size_pretty(target - reached)),
          HINT = 'SELECT * FROM bemi.status; shows why.';
    END IF;
    PERFORM pg_stat_clear_snapshot();
    -- It confirms when it is woken. Once is enough, except for a worker that was started in between.
    IF clock_timestamp() > woken + interval '100 ms' THEN
      PERFORM bemi.wake(bemi.recorder_pid());
      woken := clock_timestamp();
    END IF;
    PERFORM pg_sleep(0.002);
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.sync(interval) IS
'waits until everything that was committed before the call is recorded';

CREATE FUNCTION bemi.explained_state(
  pid int, problem text, recorded_position pg_lsn, INOUT state text, OUT detail text, OUT fix text
)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  known record;
BEGIN
  SELECT * INTO known FROM bemi.recorder;
  IF pg_is_in_recovery() THEN
    state := 'standby';
    detail := 'the primary records, and bemi.changes is replicated';
  ELSIF problem IS NOT NULL THEN
    state := bemi.problem_kind(problem);
    detail := format('%s: changes after %s are missing', problem, recorded_position);
    fix := bemi.accept_gap_fix();
  ELSIF pid IS NULL AND state <> 'stopped' THEN
    state := 'not running';
    detail := 'the server restarts a worker that ended within seconds';
    -- What made it end still has to be fixed.
    fix := CASE WHEN known.state = 'waiting' THEN COALESCE(known.last_fix || E'\n', '') ELSE '' END
      || 'SELECT bemi.start();';
  ELSIF state = 'stopped' THEN
    detail := CASE WHEN known.slot IS NULL THEN 'changes made now are not recorded later'
      ELSE 'the server keeps WAL for it' END;
    fix := 'SELECT bemi.start();' || CASE WHEN known.slot IS NULL THEN ''
      ELSE ' -- or, to give up what is not recorded: SELECT bemi.stop(drop_slot => true);' END;
  ELSIF state = 'waiting' THEN
    detail := known.last_error;
    fix := known.last_fix;
  ELSIF bemi.has_strays('1000-01-01 00:00:00+00'::timestamptz, '9999-12-01 00:00:00+00'::timestamptz) THEN
    -- Changes of other times stay in the default partition.
    detail := 'bemi.changes_default contains changes of months that have no partition';
    fix := format('SELECT bemi.add_partition(%L);', (
      SELECT min(committed_at)
      FROM bemi.changes_default
      WHERE committed_at >= '1000-01-01 00:00:00+00'::timestamptz));
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.explained_state(int, text, pg_lsn, text) IS
'returns the state of the recorder, given its own account of it, what that means, and what to do';

CREATE FUNCTION bemi.recorder_lag(
  state text, is_idle boolean, busy_since timestamptz, recorded_position pg_lsn, committed_at timestamptz,
  OUT lag_bytes numeric, OUT lag_seconds numeric
)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT pg_is_in_recovery() THEN
    lag_bytes := greatest(pg_wal_lsn_diff(pg_current_wal_flush_lsn(), recorded_position), 0);
    -- An idle worker has recorded everything, but confirms WAL without changes only by CONFIRM
    -- (src/recorder/state.rs). A worker that is further behind is not idle, whatever it shows.
    IF state = 'recording' AND is_idle AND lag_bytes < 2 * 1048576 THEN
      lag_bytes := 0;
    END IF;
  END IF;
  lag_seconds := CASE
    WHEN lag_bytes = 0 OR state = 'recording' AND is_idle THEN 0
    -- A worker that is not idle is behind by no more than this.
    WHEN state = 'recording' THEN round(extract(epoch FROM clock_timestamp() - busy_since), 3)
    -- Replication tools set the time of commits, which may be any.
    WHEN isfinite(committed_at) THEN
      greatest(round(extract(epoch FROM clock_timestamp()) - extract(epoch FROM committed_at), 3), 0)
    END;
END
$$;

COMMENT ON FUNCTION bemi.recorder_lag(text, boolean, timestamptz, pg_lsn, timestamptz) IS
'returns how far the recorder is behind, in bytes of WAL and in seconds';

CREATE FUNCTION bemi.first_unsafe() RETURNS TABLE (detail text, fix text)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
    SELECT f.detail, f.fix
    FROM (
      SELECT t.* FROM bemi.unsafe_tables(bemi.own_tables()) t
      UNION ALL
      SELECT c.* FROM bemi.unsafe_code(bemi.own_tables()) c
    ) f
    LIMIT 1;
END
$$;

COMMENT ON FUNCTION bemi.first_unsafe() IS
'returns a reason for which the recorder writes nothing, and the statement that ends it, if there is one';

CREATE OR REPLACE FUNCTION bemi.recorder_status(
  OUT state text, OUT since timestamptz, OUT detail text, OUT fix text, OUT last_error text,
  OUT last_error_at timestamptz, OUT pid int, OUT slot name, OUT recorded_position pg_lsn, OUT lag_bytes numeric,
  OUT lag_seconds numeric, OUT transactions bigint, OUT changes bigint, OUT spilled_bytes bigint
) RETURNS record
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  known record;
  worker record;
  unsafe record;
  lost text;
BEGIN
  IF to_regclass('bemi.recorder') IS NULL THEN
    state := 'never started';
    fix := 'SELECT bemi.start();';
    RETURN;
  END IF;
  BEGIN
    PERFORM bemi.require_readable();
  EXCEPTION WHEN insufficient_privilege THEN
    -- Then the worker does not read it either.
    GET STACKED DIAGNOSTICS detail = MESSAGE_TEXT, fix = PG_EXCEPTION_HINT;
    state := 'waiting';
    last_error := detail;
    pid := bemi.recorder_pid();
    RETURN;
  END;
  lost := CASE WHEN NOT pg_is_in_recovery() THEN bemi.slot_problem() END;
  SELECT * INTO known FROM bemi.recorder;
  SELECT a.pid, a.state = 'idle' AS is_idle, a.state_change
  INTO worker
  FROM pg_stat_activity a
  WHERE a.pid = bemi.recorder_pid();
  SELECT s.confirmed_flush_lsn INTO recorded_position FROM bemi.recorder_slots() s WHERE s.slot_name = known.slot;
  IF lost IS NOT NULL THEN
    recorded_position := bemi.recorded_until(lost);
  END IF;
  pid := worker.pid;
  slot := known.slot;
  since := known.state_since;
  last_error := known.last_error;
  last_error_at := known.last_error_at;
  transactions := known.transactions;
  changes := known.changes;
  spilled_bytes := known.spilled_bytes;
  SELECT e.state, e.detail, e.fix
  INTO state, detail, fix
  FROM bemi.explained_state(pid, lost, recorded_position, known.state) e;
  -- Then the worker writes nothing, not even that.
  IF state IN ('starting', 'catching up', 'recording', 'waiting') THEN
    SELECT u.detail, u.fix INTO unsafe FROM bemi.first_unsafe() u;
    IF FOUND THEN
      state := 'waiting';
      detail := unsafe.detail;
      fix := unsafe.fix;
      last_error := unsafe.detail;
    END IF;
  END IF;
  recorded_position := COALESCE(recorded_position, known.read_position);
  SELECT l.lag_bytes, l.lag_seconds
  INTO lag_bytes, lag_seconds
  FROM bemi.recorder_lag(state, worker.is_idle, worker.state_change, recorded_position, known.committed_at) l;
END
$$;

COMMENT ON FUNCTION bemi.recorder_status() IS
'returns what the recorder of this database does';

CREATE OR REPLACE VIEW bemi.status AS
SELECT * FROM bemi.recorder_status();
DO $do$
DECLARE
  first name := (SELECT a.attname FROM pg_attribute a WHERE a.attrelid = 'bemi.status'::regclass AND a.attnum = 1);
BEGIN
  EXECUTE format('ALTER VIEW bemi.status RENAME COLUMN %I TO renewed', first);
  EXECUTE format('ALTER VIEW bemi.status RENAME COLUMN renewed TO %I', first);
END
$do$;

COMMENT ON VIEW bemi.status IS
'what the recorder of this database does, how far it is, and its last error';

CREATE FUNCTION bemi.defined_types(types oid[]) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  known oid[] := ARRAY(SELECT DISTINCT t FROM unnest(types) t WHERE t >= 16384::oid);
  place int := 1;
  found record;
  parts oid[];
  definition jsonb;
  result jsonb := '{}'::jsonb;
BEGIN
  WHILE place <= cardinality(known) LOOP
    SELECT t.*, t.typelem <> 0::oid AND t.typlen = -1 AND t.typcategory = 'A'::"char" AS is_array
    INTO found
    FROM pg_type t
    WHERE t.oid = known[place];
    parts := '{}'::oid[];
    IF found.typtype = 'e'::"char" THEN
      definition := jsonb_build_object('labels', COALESCE((
        SELECT jsonb_object_agg(e.oid, e.enumlabel) FROM pg_enum e WHERE e.enumtypid = found.oid), '{}'::jsonb));
    ELSIF found.typtype = 'c'::"char" THEN
      SELECT
        jsonb_build_object('attributes', COALESCE(
          jsonb_object_agg(a.attnum, jsonb_build_array(a.attname, a.atttypid::bigint, a.atttypmod)), '{}'::jsonb)),
        array_agg(a.atttypid)
      INTO definition, parts
      FROM pg_attribute a
      WHERE a.attrelid = found.typrelid
        AND a.attnum > 0
        AND NOT a.attisdropped;
    ELSIF found.typtype = 'd'::"char" THEN
      definition := jsonb_build_object('base', jsonb_build_array(found.typbasetype::bigint, found.typtypmod));
      parts := ARRAY[found.typbasetype];
    ELSIF found.typtype = 'r'::"char" THEN
      parts := ARRAY(SELECT r.rngsubtype FROM pg_range r WHERE r.rngtypid = found.oid);
      definition := jsonb_build_object('subtype', parts[1]::bigint);
    ELSIF found.typtype = 'm'::"char" THEN
      parts := ARRAY(SELECT r.rngtypid FROM pg_range r WHERE r.rngmultitypid = found.oid);
      definition := jsonb_build_object('range', parts[1]::bigint);
    ELSIF found.is_array THEN
      parts := ARRAY[found.typelem];
      definition := jsonb_build_object('element', found.typelem::bigint);
    ELSE
      definition := '{}'::jsonb;
    END IF;
    IF found.oid IS NOT NULL THEN
      result := result || jsonb_build_object(found.oid::text, definition);
      known := known || ARRAY(SELECT DISTINCT p FROM unnest(parts) p WHERE p >= 16384::oid AND p <> ALL (known));
    END IF;
    place := place + 1;
  END LOOP;
  RETURN result;
END
$$;

COMMENT ON FUNCTION bemi.defined_types(oid[]) IS
'returns the definitions of types and of the types that they consist of, except for types of the server';

CREATE FUNCTION bemi.types_of(relation oid) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  columns jsonb;
  types oid[];
  defined jsonb := '{}'::jsonb;
BEGIN
  SELECT
    jsonb_object_agg(a.attnum, jsonb_build_array(a.atttypid::bigint, a.atttypmod)),
    array_agg(a.atttypid) FILTER (WHERE a.atttypid >= 16384::oid)
  INTO columns, types
  FROM pg_attribute a
  WHERE a.attrelid = types_of.relation
    AND a.attnum > 0
    AND NOT a.attisdropped;
  IF types IS NOT NULL THEN
    defined := bemi.defined_types(types);
  END IF;
  RETURN jsonb_build_object('columns', COALESCE(columns, '{}'::jsonb), 'defined', defined);
END
$$;

COMMENT ON FUNCTION bemi.types_of(oid) IS
'returns the types and modifiers of the columns of a table, and the definitions of the types';

CREATE FUNCTION bemi.tables_of_types(types oid[]) RETURNS oid[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  known oid[] := types;
  place int := 1;
  tables oid[] := '{}'::oid[];
  dependent record;
BEGIN
  WHILE place <= cardinality(known) LOOP
    FOR dependent IN
      SELECT d.objid AS type, NULL::oid AS relation
      FROM pg_depend d
      WHERE d.refclassid = 'pg_type'::regclass
        AND d.refobjid = known[place]
        AND d.classid = 'pg_type'::regclass
      UNION ALL
      SELECT c.reltype, CASE WHEN c.relkind = ANY ('{r,p}'::"char"[]) THEN c.oid END
      FROM pg_depend d
        JOIN pg_class c ON c.oid = d.objid
      WHERE d.refclassid = 'pg_type'::regclass
        AND d.refobjid = known[place]
        AND d.classid = 'pg_class'::regclass
        AND c.relkind = ANY ('{r,p,c,v,m,f}'::"char"[])
    LOOP
      IF dependent.relation IS NOT NULL AND dependent.relation <> ALL (tables) THEN
        tables := tables || dependent.relation;
      END IF;
      IF dependent.type <> 0::oid AND dependent.type <> ALL (known) THEN
        known := known || dependent.type;
      END IF;
    END LOOP;
    place := place + 1;
  END LOOP;
  RETURN tables;
END
$$;

COMMENT ON FUNCTION bemi.tables_of_types(oid[]) IS
'returns the tables with columns of some types, or of types that consist of them';

CREATE FUNCTION bemi.rewritten_columns(command pg_ddl_command) RETURNS jsonb
LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'bemi_rewritten_columns';

COMMENT ON FUNCTION bemi.rewritten_columns(pg_ddl_command) IS
'returns how a statement computed the new values of columns whose type it changed';

CREATE FUNCTION bemi.cast_settings() RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT jsonb_object_agg(s.name, current_setting(s.name))
  FROM unnest(
    '{TimeZone,DateStyle,IntervalStyle,extra_float_digits,bytea_output,lc_monetary,xmloption}'::text[]) s (name)
$$;

COMMENT ON FUNCTION bemi.cast_settings() IS
'returns the settings on which casts of the server depend';

CREATE FUNCTION bemi.rewrites() RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  altered record;
  tables oid[];
  place int;
  columns jsonb;
  result jsonb := '{}'::jsonb;
BEGIN
  FOR altered IN
    SELECT d.objid AS relation, r.columns, c.reltype
    FROM pg_event_trigger_ddl_commands() d
      JOIN pg_class c ON c.oid = d.objid,
      LATERAL (SELECT bemi.rewritten_columns(d.command) AS columns) r
    WHERE d.classid = 'pg_class'::regclass
      AND r.columns <> '{}'::jsonb
  LOOP
    -- Altering a composite type alters its tables.
    tables := altered.relation || ARRAY(SELECT c.oid FROM pg_class c WHERE c.reloftype = altered.reltype);
    place := 1;
    WHILE place <= cardinality(tables) LOOP
      columns := (
        SELECT jsonb_object_agg(a.attnum, e.value)
        FROM jsonb_each(altered.columns) e
          JOIN pg_attribute a ON a.attname = e.key::name
        WHERE a.attrelid = tables[place]
          AND a.attnum > 0);
      IF columns IS NOT NULL THEN
        result := result || jsonb_build_object(
          tables[place], jsonb_build_object('columns', columns, 'settings', bemi.cast_settings()));
      END IF;
      tables := tables || ARRAY(
        SELECT i.inhrelid
        FROM pg_inherits i
        WHERE i.inhparent = tables[place]
          AND i.inhrelid <> ALL (tables));
      place := place + 1;
    END LOOP;
  END LOOP;
  RETURN result;
END
$$;

COMMENT ON FUNCTION bemi.rewrites() IS
'returns the columns of tables that the statement rewrote for which an event trigger is called';

CREATE TABLE bemi.table_versions (
  -- An OID of this database: versions from a dump get those of the tables that have their names.
  relation oid NOT NULL,
  -- Whose WAL it is; 0 before anything was recorded. And the OID that the table had there.
  source int NOT NULL,
  recorded oid NOT NULL,
  -- Changes of the table from this position on belong to this version.
  position pg_lsn NOT NULL,
  noted_at timestamptz NOT NULL,
  is_tracked boolean NOT NULL,
  -- Whether it had no rows then.
  is_empty boolean NOT NULL,
  -- Whether WAL contains the whole row before each change.
  has_images boolean,
  schema name,
  "table" name,
  -- The topmost table above a partition; otherwise the table itself.
  root oid,
  -- The columns that identify a row, and the names of all columns by their numbers.
  key_columns smallint[],
  columns jsonb,
  -- The types and modifiers of the columns, and the definitions of the types: see types_of().
  types jsonb,
  ignored text[],
  masked text[],
  -- The columns, by their numbers, whose values the statement changed, or may have changed, in existing rows, how,
  -- and under which settings: see rewritten_columns().
  rewrites jsonb,
  -- Nobody noted it when it began: what was before, and until when, is not known.
  is_late boolean NOT NULL DEFAULT false,
  -- The role that ran the statement.
  noted_by name,
  -- Whether CREATE TABLE AS or SELECT INTO created it, whose rows are not changes.
  is_made_with_rows boolean NOT NULL DEFAULT false,
  PRIMARY KEY (relation, source, position)
);

CREATE INDEX table_versions_by_root ON bemi.table_versions (root);

ALTER TABLE bemi.table_versions ENABLE ROW LEVEL SECURITY;

CREATE POLICY readers ON bemi.table_versions FOR SELECT USING (
  (SELECT COALESCE(pg_catalog.has_table_privilege(
    pg_catalog.to_regclass('bemi.changes'::pg_catalog.text)::pg_catalog.oid, 'SELECT'::pg_catalog.text), false))
  OR pg_catalog.has_table_privilege(relation, 'SELECT'::pg_catalog.text)
  OR pg_catalog.has_table_privilege(root, 'SELECT'::pg_catalog.text));

COMMENT ON TABLE bemi.table_versions IS
'the names, columns, keys and rules of tracked tables, with the position in WAL and the time from which they hold';

CREATE FUNCTION bemi.present_versions(relations oid[]) RETURNS SETOF bemi.table_versions
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
  RETURN QUERY
    SELECT
      r.oid, 0, r.oid, pg_current_wal_insert_lsn(), clock_timestamp(),
      -- While a table is unlogged, WAL does not contain its changes.
      (c.relpersistence = 'p' OR c.relkind = 'p') AND EXISTS (
        SELECT
        FROM unnest(a.above) o,
          LATERAL (SELECT FROM bemi.context_triggers t WHERE t.relation = o OFFSET 0) t),
      COALESCE(pg_relation_size(c.oid) = 0, true),
      c.relreplident = 'f' OR c.relkind = 'p',
      n.nspname,
      c.relname,
      COALESCE(pg_partition_root(c.oid)::oid, c.oid),
      (
        SELECT (i.indkey::int2[])[0:i.indnkeyatts - 1]
        FROM pg_index i
        WHERE i.indrelid = c.oid
          AND (i.indisprimary AND i.indisvalid OR i.indisreplident AND c.relreplident = 'i')
        ORDER BY i.indisprimary DESC
        LIMIT 1
      ),
      (
        SELECT jsonb_object_agg(attnum, attname)
        FROM pg_attribute
        WHERE attrelid = c.oid
          AND attnum > 0
          AND NOT attisdropped
      ),
      CASE WHEN c.oid IS NOT NULL THEN bemi.types_of(c.oid) END,
      ARRAY(
        SELECT DISTINCT i
        FROM bemi.context_triggers t,
          unnest(bemi.rules(t.arguments, 'ignore')) i
        WHERE t.relation = c.oid
          AND t.name = 'bemi_context'
        ORDER BY i),
      ARRAY(
        SELECT DISTINCT m
        FROM unnest(a.above) o,
          LATERAL (SELECT t.arguments FROM bemi.context_triggers t WHERE t.relation = o OFFSET 0) t,
          unnest(bemi.rules(t.arguments, 'mask')) m
        ORDER BY m),
      NULL::jsonb, false, NULL::name, false
    FROM unnest(relations) AS r (oid)
      LEFT JOIN pg_class c ON c.oid = r.oid AND c.relkind IN ('r', 'p')
      LEFT JOIN pg_namespace n ON n.oid = c.relnamespace,
      LATERAL (
        SELECT CASE WHEN c.relispartition THEN ARRAY(SELECT relid::oid FROM pg_partition_ancestors(c.oid))
          ELSE ARRAY[c.oid] END
      ) AS a (above);
END
$$;

COMMENT ON FUNCTION bemi.present_versions(oid[]) IS
'returns what tables are like now, as versions of them';

CREATE FUNCTION bemi.new_versions(relations oid[], rewritten oid[] DEFAULT '{}') RETURNS SETOF bemi.table_versions
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
BEGIN
  RETURN QUERY
    SELECT p.*
    FROM bemi.present_versions(relations) p
      LEFT JOIN LATERAL (
        SELECT *
        FROM bemi.table_versions v
        WHERE v.relation = p.relation
        ORDER BY v.source DESC, v.position DESC
        LIMIT 1
      ) l ON true
    -- Of a partition that is no longer tracked, that it was detached.
    WHERE (p.is_tracked OR l.is_tracked OR l.root <> l.relation AND p.root IS DISTINCT FROM l.root)
      AND (p.relation = ANY (rewritten)
        OR (p.is_tracked, p.has_images, p.schema, p."table", p.root, p.key_columns, p.columns, p.types,
            p.ignored, p.masked)
          IS DISTINCT FROM (l.is_tracked, l.has_images, l.schema, l."table", l.root, l.key_columns, l.columns, l.types,
            l.ignored, l.masked));
END
$$;

COMMENT ON FUNCTION bemi.new_versions(oid[], oid[]) IS
'returns what tables are like now that differ from their last version, or were rewritten';

CREATE FUNCTION bemi.latest_versions(relations oid[], rewritten oid[]) RETURNS jsonb
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'bemi_latest_versions';

COMMENT ON FUNCTION bemi.latest_versions(oid[], oid[]) IS
'calls bemi.read_new_versions() with a snapshot that sees everything committed';

CREATE FUNCTION bemi.read_new_versions(relations oid[], rewritten oid[]) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
SET datestyle = 'ISO, YMD' SET plan_cache_mode = force_generic_plan AS $$
BEGIN
  -- Not by to_jsonb(), which keeps pointers to the names of a row type that another session's DDL, or its VACUUM, may
  -- have freed.
  RETURN (
    SELECT COALESCE(json_agg(to_json(v))::jsonb, '[]'::jsonb)
    FROM bemi.new_versions(relations, rewritten) v);
END
$$;

COMMENT ON FUNCTION bemi.read_new_versions(oid[], oid[]) IS
'returns bemi.new_versions() as JSON';

CREATE FUNCTION bemi.note_versions(relations oid[], is_late boolean DEFAULT true, rewrites jsonb DEFAULT '{}')
RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  noted jsonb;
  source int;
BEGIN
  -- Before the lock, because a source that begins adopts what is noted. The first one may begin while this waits.
  source := bemi.current_source();
  LOCK TABLE bemi.table_versions IN ROW EXCLUSIVE MODE;
  IF source = 0 THEN
    source := bemi.current_source();
  END IF;
  noted := bemi.latest_versions(relations, ARRAY(SELECT r::oid FROM jsonb_object_keys(rewrites) r));
  IF noted = '[]'::jsonb THEN
    RETURN;
  END IF;
  PERFORM bemi.require_safe_tables(ARRAY['bemi.table_versions'::regclass::oid]);
  INSERT INTO bemi.table_versions (
    relation, source, recorded, position, noted_at, is_tracked, is_empty, has_images, schema, "table", root,
    key_columns, columns, types, ignored, masked, rewrites, is_late, noted_by)
  SELECT
    v.relation, source, v.relation, v.position, v.noted_at, v.is_tracked, v.is_empty, v.has_images, v.schema, v."table",
    v.root, v.key_columns, v.columns, v.types, v.ignored, v.masked, note_versions.rewrites -> v.relation::text,
    note_versions.is_late,
    -- Callers run with the rights of the extension's owner.
    CASE WHEN current_setting('role'::text) = 'none'::text THEN session_user
      ELSE current_setting('role'::text)::name END
  FROM jsonb_to_recordset(noted) AS v (
    relation oid, position pg_lsn, noted_at timestamptz, is_tracked boolean, is_empty boolean, has_images boolean,
    schema name, "table" name, root oid, key_columns smallint[], columns jsonb, types jsonb, ignored text[],
    masked text[]);
  IF source > 0 THEN
    PERFORM bemi.keep_versions(relations);
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.note_versions(oid[], boolean, jsonb) IS
'notes what tracked tables are like now, if that is not noted; their past is known from then on';

CREATE FUNCTION bemi.note_table(relation oid, rewrites jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM bemi.note_versions(ARRAY[note_table.relation], is_late => false, rewrites => COALESCE((
    SELECT jsonb_build_object(r.key, r.value)
    FROM jsonb_each(note_table.rewrites) r
    WHERE r.key::oid = note_table.relation), '{}'::jsonb));
EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
  RAISE;
WHEN OTHERS THEN
  RAISE WARNING 'bemi could not note what this statement changed of the table with OID %: %',
      note_table.relation, SQLERRM
    USING HINT = 'The past of this table cannot be read.';
END
$$;

COMMENT ON FUNCTION bemi.note_table(oid, jsonb) IS
'notes what a table is like now, or warns that it cannot';

CREATE FUNCTION bemi.lock_writers(relation oid) RETURNS void
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'bemi_lock_writers';

COMMENT ON FUNCTION bemi.lock_writers(oid) IS
'waits for sessions that write a table, if it still exists, and blocks writes until the transaction ends';

CREATE FUNCTION bemi.noted_tables(relations oid[]) RETURNS oid[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  waiting oid[] := relations;
  noted oid[] := '{}';
  candidate oid;
  heir oid;
  is_partition boolean;
  place int := 1;
BEGIN
  -- One by one: a join might read all tables.
  WHILE place <= cardinality(waiting) LOOP
    candidate := waiting[place];
    -- Not those of the recorder either, which have partitions too.
    SELECT relispartition
    INTO is_partition
    FROM pg_class
    WHERE oid = candidate
      AND relkind IN ('r', 'p')
      AND relpersistence <> 't'
      AND relnamespace <> 'bemi'::regnamespace;
    IF FOUND THEN
      IF is_partition OR EXISTS (SELECT FROM bemi.context_triggers t WHERE t.relation = candidate)
        OR EXISTS (SELECT FROM bemi.table_versions v WHERE v.relation = candidate)
      THEN
        noted := noted || candidate;
      END IF;
      FOR heir IN
        SELECT inhrelid FROM pg_inherits WHERE inhparent = candidate
        UNION ALL
        SELECT v.relation FROM bemi.table_versions v WHERE v.root = candidate
      LOOP
        IF heir <> ALL (waiting) THEN
          waiting := waiting || heir;
        END IF;
      END LOOP;
    END IF;
    place := place + 1;
  END LOOP;
  RETURN noted;
END
$$;

COMMENT ON FUNCTION bemi.noted_tables(oid[]) IS
'returns tables with their partitions and heirs, as far as they are or were tracked';

CREATE FUNCTION bemi.altered_types(relations oid[], types oid[]) RETURNS oid[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
BEGIN
  RETURN ARRAY(
    SELECT c.reltype
    FROM unnest(relations) r
      JOIN pg_class c ON c.oid = r
    WHERE c.reltype <> 0::oid
  ) || ARRAY(
    SELECT y
    FROM unnest(types) y
      JOIN pg_type t ON t.oid = y
    WHERE t.typtype = 'e'::"char");
END
$$;

COMMENT ON FUNCTION bemi.altered_types(oid[], oid[]) IS
'returns the types whose values may look different after a statement that altered relations and types';

CREATE FUNCTION bemi.is_shown_otherwise(relation oid) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  noted jsonb := (
    SELECT v.types
    FROM bemi.table_versions v
    WHERE v.relation = is_shown_otherwise.relation
    ORDER BY v.source DESC, v.position DESC
    LIMIT 1);
  present jsonb := bemi.types_of(is_shown_otherwise.relation);
BEGIN
  RETURN noted IS DISTINCT FROM present AND EXISTS (
    SELECT
    FROM jsonb_each(noted -> 'defined') n
    WHERE NOT COALESCE(present -> 'defined' -> n.key @> n.value, false)
      OR n.value ? 'attributes' AND n.value <> present -> 'defined' -> n.key);
END
$$;

COMMENT ON FUNCTION bemi.is_shown_otherwise(oid) IS
'returns whether values of a table look different from when it was last noted, because a type was altered';

CREATE FUNCTION bemi.dropped_tables(OUT relations oid[], OUT is_relevant boolean)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
BEGIN
  relations := ARRAY(
    SELECT DISTINCT CASE WHEN classid = 'pg_class'::regclass THEN objid
      ELSE to_regclass(format('%I.%I', address_names[1], address_names[2]))::oid END
    FROM pg_event_trigger_dropped_objects()
    WHERE object_type IN ('table', 'table column', 'trigger')
      AND NOT is_temporary
      AND address_names[1] <> 'bemi');
  -- If the table of a trigger was dropped with it, the table is there separately.
  relations := array_remove(relations, NULL::oid);
  -- Dropping something of the tables of bemi reads no other tables of it: jobs of a parallel restore would block each
  -- other.
  is_relevant := relations <> '{}' OR EXISTS (
    SELECT
    FROM pg_event_trigger_dropped_objects()
    WHERE classid = 'pg_class'::regclass
      AND objsubid > 0
      AND NOT is_temporary
      AND address_names[1] <> 'bemi');
END
$$;

COMMENT ON FUNCTION bemi.dropped_tables() IS
'returns the tables that a statement dropped, or of which it dropped columns or triggers, and whether it matters';

CREATE FUNCTION bemi.altered_tables(tag text, OUT relations oid[], OUT is_relevant boolean)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
BEGIN
  relations := ARRAY(
    SELECT DISTINCT CASE classid
      WHEN 'pg_class'::regclass THEN objid
      WHEN 'pg_trigger'::regclass THEN (SELECT tgrelid FROM pg_trigger WHERE oid = objid)
      END
    FROM pg_event_trigger_ddl_commands()
    WHERE classid IN ('pg_class'::regclass, 'pg_trigger'::regclass)
      AND schema_name IS DISTINCT FROM 'bemi');
  relations := array_remove(relations, NULL::oid);
  is_relevant := relations <> '{}' OR tag IN ('ALTER SCHEMA', 'ALTER TYPE');
END
$$;

COMMENT ON FUNCTION bemi.altered_tables(text) IS
'returns the tables that a statement created or altered, and whether the statement matters';

CREATE FUNCTION bemi.users_of_types(tag text, is_drop boolean, relations oid[]) RETURNS oid[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
BEGIN
  IF is_drop THEN
    RETURN bemi.noted_tables(bemi.tables_of_types(bemi.altered_types(ARRAY(
      SELECT objid
      FROM pg_event_trigger_dropped_objects()
      WHERE classid = 'pg_class'::regclass
        AND objsubid > 0
        AND NOT is_temporary), '{}'::oid[])));
  ELSIF tag IN ('ALTER TYPE', 'ALTER TABLE') THEN
    RETURN bemi.noted_tables(bemi.tables_of_types(bemi.altered_types(relations, ARRAY(
      SELECT d.objid
      FROM pg_event_trigger_ddl_commands() d
      WHERE d.classid = 'pg_type'::regclass))));
  END IF;
  RETURN '{}'::oid[];
END
$$;

COMMENT ON FUNCTION bemi.users_of_types(text, boolean, oid[]) IS
'returns the tracked tables with columns of the types that a statement altered';

CREATE FUNCTION bemi.affected_tables(tag text, relations oid[]) RETURNS oid[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
BEGIN
  IF tag = 'ALTER SCHEMA' THEN
    relations := ARRAY(
      SELECT c.oid
      FROM pg_event_trigger_ddl_commands() d
        JOIN pg_class c ON c.relnamespace = d.objid
      WHERE d.classid = 'pg_namespace'::regclass);
  ELSIF tag = 'ALTER TYPE' THEN
    relations := relations || ARRAY(
      SELECT c.oid
      FROM pg_event_trigger_ddl_commands() d
        JOIN pg_type t ON t.typrelid = d.objid
        JOIN pg_class c ON c.reloftype = t.oid);
  END IF;
  RETURN bemi.noted_tables(relations);
END
$$;

COMMENT ON FUNCTION bemi.affected_tables(text, oid[]) IS
'returns the tracked tables that a statement affects, given those that it names';

CREATE FUNCTION bemi.lock_affected(tag text, relations oid[], users oid[]) RETURNS oid[]
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  relation oid;
BEGIN
  IF tag = 'ALTER SCHEMA' THEN
    -- ALTER SCHEMA locks no tables: sessions that write under the old name have to end first.
    -- By their OIDs: other sessions may rename, move or drop them.
    FOREACH relation IN ARRAY relations LOOP
      PERFORM bemi.lock_writers(relation);
    END LOOP;
  END IF;
  -- Tables that use a type are not locked either.
  FOREACH relation IN ARRAY users LOOP
    IF relation <> ALL (relations) THEN
      IF bemi.is_shown_otherwise(relation) THEN
        PERFORM bemi.lock_writers(relation);
      END IF;
      relations := relations || relation;
    END IF;
  END LOOP;
  RETURN relations;
END
$$;

COMMENT ON FUNCTION bemi.lock_affected(text, oid[], oid[]) IS
'blocks writes to tables that a statement affects without locking them, and returns all affected tables';

CREATE FUNCTION bemi.note_tables(tag text, relations oid[], rewritten jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  relation oid;
BEGIN
  BEGIN
    PERFORM bemi.note_versions(relations, is_late => false, rewrites => rewritten);
  EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
    RAISE;
  WHEN OTHERS THEN
    -- A failure for one table does not prevent the others from being noted.
    FOREACH relation IN ARRAY relations LOOP
      PERFORM bemi.note_table(relation, rewritten);
    END LOOP;
  END;
  IF tag IN ('CREATE TABLE AS', 'SELECT INTO') THEN
    -- A refusal above has been reported already.
    PERFORM bemi.require_safe_tables(ARRAY['bemi.table_versions'::regclass::oid]);
    UPDATE bemi.table_versions v SET is_made_with_rows = true
    WHERE v.relation = ANY (relations)
      AND NOT v.is_empty
      AND v.noted_at >= transaction_timestamp();
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.note_tables(text, oid[], jsonb) IS
'notes what tables are like after a statement, one by one if that fails for all of them';

CREATE OR REPLACE FUNCTION bemi.note_ddl() RETURNS event_trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan AS $$
<<note_ddl>>
DECLARE
  is_drop boolean := TG_EVENT = 'sql_drop';
  named record;
  relations oid[];
  users oid[];
  rewritten jsonb := '{}';
BEGIN
  IF is_drop THEN
    named := bemi.dropped_tables();
  ELSE
    named := bemi.altered_tables(TG_TAG);
  END IF;
  IF NOT named.is_relevant THEN
    RETURN;
  END IF;
  PERFORM bemi.require_readable();
  users := bemi.users_of_types(TG_TAG, is_drop, named.relations);
  relations := named.relations;
  IF NOT is_drop THEN
    IF TG_TAG IN ('ALTER TYPE', 'ALTER TABLE') THEN
      rewritten := bemi.rewrites();
    END IF;
    relations := bemi.affected_tables(TG_TAG, relations);
  END IF;
  relations := bemi.lock_affected(TG_TAG, relations, users);
  IF relations <> '{}' THEN
    PERFORM bemi.note_tables(TG_TAG, relations, rewritten);
  END IF;
-- A statement that does not get its locks fails, as it would without bemi.
EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
  RAISE;
WHEN OTHERS THEN
  RAISE WARNING 'bemi could not note what this statement changed: %', SQLERRM
    USING HINT = 'The past of the tables that it changed cannot be read.';
END
$$;

COMMENT ON FUNCTION bemi.note_ddl() IS
'notes the versions of tables that a statement created, changed or dropped, as an event trigger';

CREATE EVENT TRIGGER bemi_versions ON ddl_command_end
WHEN TAG IN (
  'CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'CREATE SCHEMA', 'CREATE TRIGGER', 'ALTER TRIGGER', 'ALTER TABLE',
  'ALTER TYPE', 'ALTER SCHEMA', 'ALTER VIEW', 'ALTER MATERIALIZED VIEW', 'ALTER FOREIGN TABLE', 'ALTER INDEX')
EXECUTE FUNCTION bemi.note_ddl();

ALTER EVENT TRIGGER bemi_versions ENABLE ALWAYS;

COMMENT ON EVENT TRIGGER bemi_versions IS
'notes what tracked tables are like, for those who read the past';

CREATE EVENT TRIGGER bemi_versions_dropped ON sql_drop
EXECUTE FUNCTION bemi.note_ddl();

ALTER EVENT TRIGGER bemi_versions_dropped ENABLE ALWAYS;

COMMENT ON EVENT TRIGGER bemi_versions_dropped IS
'notes which tracked tables, columns and triggers were dropped';

CREATE OR REPLACE FUNCTION bemi.recorded_names(relations oid[])
RETURNS TABLE (relation oid, schema text, "table" text, since bigint, until bigint)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
    WITH versions AS (
      SELECT v.relation, v.schema::text, v."table"::text, bemi.place(v.source, v.position) AS place,
        (v.schema, v."table") IS DISTINCT FROM (lag(v.schema) OVER w, lag(v."table") OVER w) AS is_renamed
      FROM bemi.table_versions v
      WHERE v.relation = ANY (relations)
        AND v."table" IS NOT NULL
      WINDOW w AS (PARTITION BY v.relation ORDER BY v.source, v.position)
    )
    SELECT v.relation, v.schema, v."table", v.place,
      COALESCE(lead(v.place) OVER (PARTITION BY v.relation ORDER BY v.place), 9223372036854775807)
    FROM versions v
    WHERE v.is_renamed;
END
$$;

COMMENT ON FUNCTION bemi.recorded_names(oid[]) IS
'returns the names under which bemi.changes contains the changes of tables, and between which places';

CREATE FUNCTION bemi.recorded_oid(relation oid, place bigint) RETURNS oid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT COALESCE((
    SELECT v.recorded
    FROM bemi.table_versions v
    WHERE v.relation = recorded_oid.relation
      AND bemi.place(v.source, v.position) <= recorded_oid.place
    ORDER BY v.source DESC, v.position DESC
    LIMIT 1), relation)
$$;

COMMENT ON FUNCTION bemi.recorded_oid(oid, bigint) IS
'returns the OID that a table had at a place';

CREATE FUNCTION bemi.table_at(
  schema text, "table" text, place bigint, recorded oid,
  OUT relation regclass, OUT since bigint, OUT until bigint, OUT is_another boolean
)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  SELECT n.relation, n.since, n.until
  INTO relation, since, until
  FROM (
      SELECT DISTINCT v.relation
      FROM bemi.table_versions v
      WHERE v.schema = table_at.schema
        AND v."table" = table_at."table"
    ) r,
    LATERAL bemi.recorded_names(ARRAY[r.relation]) n
  WHERE n.schema = table_at.schema
    AND n."table" = table_at."table"
    AND table_at.place >= n.since
    AND table_at.place < n.until
  ORDER BY n.since DESC
  LIMIT 1;
  IF relation IS NULL THEN
    -- It was recorded without being tracked.
    relation := to_regclass(format('%I.%I', table_at.schema, table_at."table"));
    since := table_at.place;
    until := table_at.place + 1;
  ELSIF NOT EXISTS (SELECT FROM pg_class WHERE oid = relation) THEN
    relation := NULL;
  END IF;
  -- A table that got the name later is not meant.
  is_another := COALESCE(bemi.recorded_oid(relation::oid, table_at.place) <> recorded, false);
  IF is_another THEN
    relation := NULL;
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.table_at(text, text, bigint, oid) IS
'returns the table that had a name at a place, between which places it did, and whether another table has the name now';

CREATE OR REPLACE FUNCTION bemi.table_names(relation regclass) RETURNS TABLE (schema text, "table" text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT n.schema, n."table"
  FROM bemi.recorded_names(ARRAY(SELECT t::oid FROM bemi.tree(relation) t)) n
  UNION
  SELECT n.nspname, c.relname
  FROM bemi.tree(relation) t
    JOIN pg_class c ON c.oid = t
    JOIN pg_namespace n ON n.oid = c.relnamespace
$$;

COMMENT ON FUNCTION bemi.table_names(regclass) IS
'returns all names under which bemi.changes may contain changes of a table and its partitions';

CREATE FUNCTION bemi.present_source(OUT system_identifier bigint, OUT database_oid oid, OUT tables oid[]) RETURNS record
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  system_identifier := (SELECT c.system_identifier FROM pg_control_system() c);
  database_oid := (SELECT d.oid FROM pg_database d WHERE d.datname = current_database());
  tables := ARRAY[to_regclass('bemi.changes'), to_regclass('bemi.recorder'), to_regclass('bemi.sources'),
    to_regclass('bemi.recorded_versions')]::oid[];
END
$$;

COMMENT ON FUNCTION bemi.present_source() IS
'returns what distinguishes the source that is recorded here from others';

CREATE FUNCTION bemi.current_source(may_be_first boolean DEFAULT false, first_position pg_lsn DEFAULT NULL) RETURNS int
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  here record;
  last record;
  result int;
BEGIN
  IF to_regclass('bemi.sources') IS NULL THEN
    RETURN 0;
  END IF;
  here := bemi.present_source();
  FOR attempt IN 1..2 LOOP
    SELECT s.* INTO last FROM bemi.sources s ORDER BY s.source DESC LIMIT 1;
    -- While a dump is restored, a table may not exist or contain its rows yet.
    IF (last.system_identifier, last.database_oid, last.tables)
        = (here.system_identifier, here.database_oid, here.tables)
      OR last.source IS NULL AND NOT may_be_first
      OR array_position(here.tables, NULL) IS NOT NULL
    THEN
      IF may_be_first THEN
        PERFORM bemi.adopt_versions();
      END IF;
      RETURN COALESCE(last.source, 0);
    END IF;
    -- Only one session begins it.
    LOCK TABLE bemi.sources IN SHARE ROW EXCLUSIVE MODE;
  END LOOP;
  PERFORM bemi.require_safe_tables(
    ARRAY['bemi.sources', 'bemi.table_versions', 'bemi.recorded_versions']::regclass[]::oid[]);
  result := 1 + greatest(last.source, (SELECT max(c.source) FROM bemi.changes c),
    (SELECT max(v.source) FROM bemi.table_versions v), 0);
  first_position := COALESCE(first_position, pg_current_wal_insert_lsn());
  UPDATE bemi.sources s SET until = clock_timestamp() WHERE s.until IS NULL;
  INSERT INTO bemi.sources (
    source, name, system_identifier, database, first_position, since, database_oid, tables)
  VALUES (
    result, COALESCE(NULLIF(current_setting('cluster_name'), ''), current_database()), here.system_identifier,
    current_database(), first_position, clock_timestamp(), here.database_oid, here.tables);
  -- Sessions that note a version ask for the source first.
  LOCK TABLE bemi.table_versions IN SHARE ROW EXCLUSIVE MODE;
  PERFORM bemi.adopt_versions();
  -- These come from no dump: they are of this source.
  UPDATE bemi.table_versions v SET source = result WHERE v.source = 0;
  PERFORM bemi.keep_versions();
  RETURN result;
END
$$;

COMMENT ON FUNCTION bemi.current_source(boolean, pg_lsn) IS
'returns the number of the source that is recorded here; begins it if the last one is different';

CREATE FUNCTION bemi.continue_source() RETURNS int
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  result int := bemi.current_source(true, (SELECT r.read_position FROM bemi.recorder r));
BEGIN
  UPDATE bemi.recorder r SET source = result WHERE r.source IS DISTINCT FROM result;
  RETURN result;
END
$$;

COMMENT ON FUNCTION bemi.continue_source() IS
'returns the number of the source with which the recorder continues';

CREATE FUNCTION bemi.is_of_another(source int) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  here record := bemi.present_source();
BEGIN
  RETURN to_regclass('bemi.sources') IS NOT NULL AND COALESCE((
    SELECT (s.system_identifier, s.database_oid) <> (here.system_identifier, here.database_oid)
    FROM bemi.sources s
    WHERE s.source = is_of_another.source), false);
END
$$;

COMMENT ON FUNCTION bemi.is_of_another(int) IS
'returns whether a source is another server or another database than this one';

CREATE FUNCTION bemi.is_replaced() RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  known oid[];
BEGIN
  IF to_regclass('bemi.sources') IS NULL OR to_regclass('bemi.recorder') IS NULL THEN
    RETURN true;
  END IF;
  SELECT s.tables
  INTO known
  FROM bemi.recorder r
    JOIN bemi.sources s ON s.source = r.source;
  RETURN known IS DISTINCT FROM (bemi.present_source()).tables;
END
$$;

COMMENT ON FUNCTION bemi.is_replaced() IS
'returns whether the tables of the recorder are others than those that it has written';

CREATE FUNCTION bemi.require_own_trail() RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF bemi.is_replaced() THEN
    RAISE EXCEPTION 'bemi.changes was replaced, as by restoring a dump over it'
      USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'SELECT bemi.start(accept_gap => true);';
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.require_own_trail() IS
'raises an error if the tables of the recorder are others than those that it has written';

CREATE FUNCTION bemi.keep_versions(relations oid[] DEFAULT NULL) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
BEGIN
  PERFORM bemi.require_safe_tables(ARRAY['bemi.recorded_versions'::regclass::oid]);
  IF relations IS NULL THEN
    DELETE FROM bemi.recorded_versions;
    INSERT INTO bemi.recorded_versions
    SELECT v.*
    FROM bemi.table_versions v
    WHERE v.source > 0;
  ELSE
    INSERT INTO bemi.recorded_versions
    SELECT v.*
    FROM bemi.table_versions v
    WHERE v.relation = ANY (relations)
      AND v.source > 0
      AND NOT EXISTS (
        SELECT FROM bemi.recorded_versions r
        WHERE r.relation = v.relation
          AND r.source = v.source
          AND r.position = v.position);
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.keep_versions(oid[]) IS
'copies versions of tables to bemi.recorded_versions, which dumps contain';

CREATE FUNCTION bemi.numbers_today(noted oid, latest jsonb, relation oid) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT jsonb_object_agg(n.number, COALESCE(a.attnum, 2000 + n.place))
  FROM (
      SELECT k.key AS number, row_number() OVER (ORDER BY k.key::int) AS place
      FROM (
        SELECT DISTINCT jsonb_object_keys(v.columns) AS key
        FROM bemi.table_versions v
        WHERE v.relation = noted
      ) k
    ) n
    LEFT JOIN pg_attribute a ON a.attrelid = numbers_today.relation AND a.attname = latest ->> n.number
      AND a.attnum > 0 AND NOT a.attisdropped
$$;

COMMENT ON FUNCTION bemi.numbers_today(oid, jsonb, oid) IS
'returns the numbers that the columns of a table have here, by those in its noted versions';

CREATE FUNCTION bemi.equal_parts(old jsonb, new jsonb) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT ARRAY(
    SELECT ARRAY[o.value ->> 1, n.value ->> 1]
    FROM jsonb_each(old -> 'attributes') o
      JOIN jsonb_each(new -> 'attributes') n ON n.value ->> 0 = o.value ->> 0
    UNION ALL
    SELECT ARRAY[old -> 'base' ->> 0, new -> 'base' ->> 0]
    WHERE old ? 'base'
      AND new ? 'base'
    UNION ALL
    SELECT ARRAY[old ->> part, new ->> part]
    FROM unnest('{element,subtype,range}'::text[]) part
    WHERE old ? part
      AND new ? part)
$$;

COMMENT ON FUNCTION bemi.equal_parts(jsonb, jsonb) IS
'returns the types that a noted type consists of, each with the one that corresponds to it here';

CREATE FUNCTION bemi.lost_types(noted oid) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT COALESCE(jsonb_object_agg(g.type, 4280000000 + g.place), '{}'::jsonb)
  FROM (
    SELECT k.type, row_number() OVER (ORDER BY k.type) AS place
    FROM (
      SELECT DISTINCT jsonb_object_keys(v.types -> 'defined') AS type
      FROM bemi.table_versions v
      WHERE v.relation = noted
    ) k
  ) g
$$;

COMMENT ON FUNCTION bemi.lost_types(oid) IS
'returns numbers for the types in noted versions of a table that no type has';

CREATE FUNCTION bemi.lost_labels(noted oid) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT COALESCE(jsonb_object_agg(g.label, (4280000000 + g.place)::text), '{}'::jsonb)
  FROM (
    SELECT k.label, row_number() OVER (ORDER BY k.label) AS place
    FROM (
      SELECT DISTINCT jsonb_object_keys(d.value -> 'labels') AS label
      FROM bemi.table_versions v,
        jsonb_each(v.types -> 'defined') d
      WHERE v.relation = noted
    ) k
  ) g
$$;

COMMENT ON FUNCTION bemi.lost_labels(oid) IS
'returns numbers for the labels in noted versions of a table that no label has';

CREATE FUNCTION bemi.types_today(noted oid, numbers jsonb, relation oid) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  last jsonb := (
    SELECT v.types
    FROM bemi.table_versions v
    WHERE v.relation = noted
      AND v.types IS NOT NULL
    ORDER BY v.source DESC, v.position DESC
    LIMIT 1);
  today jsonb := bemi.types_of(relation);
  types jsonb := '{}'::jsonb;
  labels jsonb := '{}'::jsonb;
  attributes jsonb := '{}'::jsonb;
  -- Noted types with the types of here that they correspond to.
  pairs text[] := ARRAY(
    SELECT ARRAY[o.value ->> 0, n.value ->> 0]
    FROM jsonb_each(last -> 'columns') o
      JOIN jsonb_each(today -> 'columns') n ON n.key = numbers ->> o.key);
  place int := 1;
  was text;
  old jsonb;
  new jsonb;
BEGIN
  WHILE place <= cardinality(pairs) / 2 LOOP
    was := pairs[place][1];
    old := last -> 'defined' -> was;
    new := today -> 'defined' -> pairs[place][2];
    IF old IS NOT NULL AND new IS NOT NULL AND NOT types ? was THEN
      types := types || jsonb_build_object(was, pairs[place][2]::bigint);
      labels := labels || COALESCE((
        SELECT jsonb_object_agg(o.key, n.key)
        FROM jsonb_each_text(old -> 'labels') o
          JOIN jsonb_each_text(new -> 'labels') n USING (value)), '{}'::jsonb);
      attributes := attributes || jsonb_build_object(was, COALESCE((
        SELECT jsonb_object_agg(o.key, n.key)
        FROM jsonb_each(old -> 'attributes') o
          JOIN jsonb_each(new -> 'attributes') n ON n.value ->> 0 = o.value ->> 0), '{}'::jsonb));
      pairs := pairs || bemi.equal_parts(old, new);
    END IF;
    place := place + 1;
  END LOOP;
  labels := bemi.lost_labels(noted) || labels;
  types := bemi.lost_types(noted) || types;
  RETURN jsonb_build_object('types', types, 'labels', labels, 'attributes', attributes);
END
$$;

COMMENT ON FUNCTION bemi.types_today(oid, jsonb, oid) IS
'returns the numbers that types, labels and attributes of a table have here, by those in its noted versions';

CREATE FUNCTION bemi.type_today(types jsonb, type jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE WHEN jsonb_typeof(type) = 'array' THEN jsonb_set(type, '{0}', bemi.type_today(types, type -> 0))
    ELSE COALESCE(types -> (type #>> '{}'), type) END
$$;

COMMENT ON FUNCTION bemi.type_today(jsonb, jsonb) IS
'returns a type of a noted version, with the number that it has here';

CREATE FUNCTION bemi.renumbered_types(noted jsonb, numbers jsonb, today jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT jsonb_build_object(
    'columns', COALESCE((
      SELECT jsonb_object_agg(numbers ->> c.key, bemi.type_today(today -> 'types', c.value))
      FROM jsonb_each(noted -> 'columns') c), '{}'::jsonb),
    'defined', COALESCE((
      SELECT jsonb_object_agg(today -> 'types' ->> d.key, COALESCE((
        SELECT jsonb_object_agg(p.key, CASE p.key
          WHEN 'labels' THEN COALESCE((
            SELECT jsonb_object_agg(today -> 'labels' ->> l.key, l.value)
            FROM jsonb_each(p.value) l), '{}'::jsonb)
          WHEN 'attributes' THEN COALESCE((
            SELECT jsonb_object_agg(
              COALESCE(today -> 'attributes' -> d.key ->> a.key, (2000 + a.key::int)::text),
              jsonb_set(a.value, '{1}', bemi.type_today(today -> 'types', a.value -> 1)))
            FROM jsonb_each(p.value) a), '{}'::jsonb)
          ELSE bemi.type_today(today -> 'types', p.value)
          END)
        FROM jsonb_each(d.value) p), '{}'::jsonb))
      FROM jsonb_each(noted -> 'defined') d), '{}'::jsonb))
  WHERE noted IS NOT NULL
$$;

COMMENT ON FUNCTION bemi.renumbered_types(jsonb, jsonb, jsonb) IS
'returns the types of a noted version, with the numbers that they have here';

CREATE FUNCTION bemi.renumbered_rewrites(noted jsonb, numbers jsonb, today jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT noted || jsonb_build_object('columns', (
    SELECT jsonb_object_agg(numbers ->> c.key, CASE jsonb_typeof(c.value)
      WHEN 'array' THEN (
        SELECT COALESCE(jsonb_agg(bemi.type_today(today -> 'types', k.step) ORDER BY k.place), '[]'::jsonb)
        FROM jsonb_array_elements(c.value) WITH ORDINALITY AS k (step, place))
      ELSE c.value
      END)
    FROM jsonb_each(noted -> 'columns') c))
$$;

COMMENT ON FUNCTION bemi.renumbered_rewrites(jsonb, jsonb, jsonb) IS
'returns the rewrites of a noted version, with the numbers that columns and types have here';

CREATE FUNCTION bemi.adopt_table(noted oid, latest jsonb, relation oid) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  numbers jsonb := bemi.numbers_today(noted, latest, relation);
  today jsonb := bemi.types_today(noted, numbers, relation);
BEGIN
  UPDATE bemi.table_versions v SET
    relation = adopt_table.relation,
    columns = (SELECT jsonb_object_agg(numbers ->> c.key, c.value) FROM jsonb_each(v.columns) c),
    types = bemi.renumbered_types(v.types, numbers, today),
    rewrites = bemi.renumbered_rewrites(v.rewrites, numbers, today),
    key_columns = CASE WHEN v.key_columns IS NOT NULL THEN ARRAY(
      SELECT (numbers ->> k.number::text)::smallint
      FROM unnest(v.key_columns) WITH ORDINALITY AS k (number, place)
      ORDER BY k.place) END
  WHERE v.relation = noted;
  UPDATE bemi.table_versions v SET root = adopt_table.relation WHERE v.root = noted;
END
$$;

COMMENT ON FUNCTION bemi.adopt_table(oid, jsonb, oid) IS
'gives the restored versions of a table the OID, and the numbers of columns and types, that it has here';

CREATE FUNCTION bemi.restored_table(schema name, "table" name, first_source int) RETURNS oid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT COALESCE((
    SELECT v.relation
    FROM bemi.table_versions v
    WHERE v.source >= first_source
      AND v.schema = restored_table.schema
      AND v."table" = restored_table."table"
      AND EXISTS (SELECT FROM pg_class c WHERE c.oid = v.relation)
    ORDER BY v.source, v.position
    LIMIT 1
  ), (
    SELECT c.oid
    FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = restored_table.schema
      AND c.relname = restored_table."table"
      AND c.relkind IN ('r', 'p')
  ))
$$;

COMMENT ON FUNCTION bemi.restored_table(name, name, int) IS
'returns the table that a dump restored under a name';

CREATE FUNCTION bemi.move_versions(first_source int) RETURNS oid[]
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  restored oid[];
  -- From here on downwards.
  free bigint := (
    SELECT COALESCE(min(v.relation::bigint), 4294967295)
    FROM bemi.table_versions v
    WHERE v.relation > 4290000000);
BEGIN
  WITH away AS (
    SELECT v.relation, (free - row_number() OVER (ORDER BY v.relation))::oid AS oid
    FROM bemi.table_versions v
    WHERE v.source > 0
      AND v.source < first_source
    GROUP BY v.relation
    HAVING bool_or(v.recorded = v.relation)
  ), moved AS (
    UPDATE bemi.table_versions v SET
      relation = COALESCE(a.oid, v.relation),
      root = COALESCE(r.oid, v.root)
    FROM bemi.table_versions o
      LEFT JOIN away a ON a.relation = o.relation
      LEFT JOIN away r ON r.relation = o.root
    WHERE o.ctid = v.ctid
      AND v.source > 0
      AND v.source < first_source
  )
  SELECT array_agg(a.oid) INTO restored FROM away a;
  RETURN restored;
END
$$;

COMMENT ON FUNCTION bemi.move_versions(int) IS
'gives versions of sources before the first one of this database OIDs that no table has, and returns these';

CREATE FUNCTION bemi.adopt_versions() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  first_source int := (SELECT min(s.source) FROM bemi.sources s WHERE s.tables = (bemi.present_source()).tables);
  version bemi.table_versions;
  today oid;
  restored oid[];
  adopted oid[] := '{}';
BEGIN
  PERFORM bemi.require_safe_tables(ARRAY['bemi.table_versions'::regclass::oid]);
  -- From a dump, or of an earlier installation of the extension.
  INSERT INTO bemi.table_versions SELECT r.* FROM bemi.recorded_versions r ON CONFLICT DO NOTHING;
  IF NOT EXISTS (
    SELECT FROM bemi.table_versions v
    WHERE v.source > 0 AND v.source < first_source AND v.recorded = v.relation)
  THEN
    RETURN;
  END IF;
  LOCK TABLE bemi.table_versions IN SHARE ROW EXCLUSIVE MODE;
  restored := bemi.move_versions(first_source);
  FOR version IN
    SELECT DISTINCT ON (l.schema, l."table") l.*
    FROM (
      SELECT DISTINCT ON (v.relation) v.*
      FROM bemi.table_versions v
      WHERE v.relation = ANY (restored)
      ORDER BY v.relation, v.source DESC, v.position DESC
    ) l
    WHERE l."table" IS NOT NULL
    ORDER BY l.schema, l."table", l.source DESC, l.position DESC
  LOOP
    today := bemi.restored_table(version.schema, version."table", first_source);
    IF today IS NOT NULL THEN
      PERFORM bemi.adopt_table(version.relation, version.columns, today);
      adopted := adopted || today;
    END IF;
  END LOOP;
  DELETE FROM bemi.table_versions v WHERE v.relation = ANY (adopted) AND v.source = 0;
  PERFORM bemi.copy_versions(adopted, first_source);
  PERFORM bemi.keep_versions();
END
$$;

COMMENT ON FUNCTION bemi.adopt_versions() IS
'turns versions that were restored from a dump into versions of the tables that have their names here';

CREATE FUNCTION bemi.copy_versions(adopted oid[], first_source int) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  version bemi.table_versions;
BEGIN
  FOR version IN
    SELECT DISTINCT ON (v.relation) v.*
    FROM bemi.table_versions v
    WHERE v.relation = ANY (adopted)
      AND v.source < first_source
    ORDER BY v.relation, v.source DESC, v.position DESC
  LOOP
    -- Before all changes of the table.
    version.source := first_source;
    version.position := '0/0';
    version.noted_at := clock_timestamp();
    version.recorded := version.relation;
    version.is_empty := false;
    version.types := bemi.types_of(version.relation);
    version.rewrites := NULL;
    INSERT INTO bemi.table_versions SELECT (version).* ON CONFLICT DO NOTHING;
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.copy_versions(oid[], int) IS
'begins the first source of this database with copies of the last versions of tables';

CREATE OR REPLACE FUNCTION bemi.column_names(relation oid, number smallint) RETURNS TABLE (since bigint, name text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
    SELECT v.place, v.name
    FROM (
      SELECT
        bemi.place(o.source, o.position) AS place,
        o.columns ->> column_names.number::text AS name,
        lag(o.columns ->> column_names.number::text) OVER w AS name_before,
        row_number() OVER w = 1 AS is_first
      FROM bemi.table_versions o
      WHERE o.relation = column_names.relation AND o.columns IS NOT NULL
      WINDOW w AS (ORDER BY o.source, o.position)
    ) v
    WHERE v.is_first OR v.name IS DISTINCT FROM v.name_before
    ORDER BY v.place;
END
$$;

COMMENT ON FUNCTION bemi.column_names(oid, smallint) IS
'returns the names that a column of a table had, and from which place on';

CREATE OR REPLACE FUNCTION bemi.masked_columns(relation oid) RETURNS SETOF text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN QUERY
    SELECT DISTINCT m
    FROM bemi.table_versions v, unnest(v.masked) m
    WHERE v.relation = masked_columns.relation OR v.root = masked_columns.relation;
END
$$;

COMMENT ON FUNCTION bemi.masked_columns(oid) IS
'returns the columns of a table and of its partitions that are masked, or once were';

CREATE OR REPLACE FUNCTION bemi.renamed_columns(relation oid, "position" bigint) RETURNS TABLE (name text, name_then text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
    SELECT a.attname::text, n.names[n.place]
    FROM pg_attribute a, LATERAL (
      SELECT
        array_agg(c.name ORDER BY c.since) AS names,
        count(*) FILTER (WHERE c.since <= renamed_columns."position") AS place
      FROM bemi.column_names(renamed_columns.relation, a.attnum) c
    ) n
    WHERE a.attrelid = renamed_columns.relation
      AND a.attnum > 0
      AND NOT a.attisdropped
      AND cardinality(n.names) > 1;
END
$$;

COMMENT ON FUNCTION bemi.renamed_columns(oid, bigint) IS
'returns the columns of a table that had more than one name, and the name of each at a place';

CREATE FUNCTION bemi.keys_today(relation regclass, image jsonb, "position" bigint) RETURNS jsonb
LANGUAGE plpgsql STABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  names text[];
  names_then text[];
BEGIN
  SELECT COALESCE(array_agg(r.name), '{}'), COALESCE(array_agg(r.name_then), '{}')
  INTO names, names_then
  FROM bemi.renamed_columns(relation::oid, keys_today."position") r;
  RETURN (image - names - array_remove(names_then, NULL)) || COALESCE((
    SELECT jsonb_object_agg(n.name, image -> n.name_then)
    FROM unnest(names, names_then) AS n (name, name_then)
    WHERE image ? n.name_then
  ), '{}');
END
$$;

COMMENT ON FUNCTION bemi.keys_today(regclass, jsonb, bigint) IS
'returns an object with the names that columns had at a place, with the names that they have today';

CREATE FUNCTION bemi.is_as_ever(relation oid) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  present jsonb := bemi.types_of(is_as_ever.relation);
BEGIN
  RETURN NOT EXISTS (
    SELECT FROM bemi.table_versions v
    WHERE v.relation = is_as_ever.relation
      AND v.columns IS NOT NULL
      AND (
        v.types IS DISTINCT FROM present
        OR v.rewrites IS NOT NULL
        OR v.columns <> (
          SELECT jsonb_object_agg(a.attnum, a.attname)
          FROM pg_attribute a
          WHERE a.attrelid = is_as_ever.relation AND a.attnum > 0 AND NOT a.attisdropped
        )
      )
  );
END
$$;

COMMENT ON FUNCTION bemi.is_as_ever(oid) IS
'returns whether the columns of a table always had the names and types of today';

CREATE FUNCTION bemi.report_rewrites(base regclass, since timestamptz) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  rewrite record;
BEGIN
  FOR rewrite IN
    SELECT a.attname, v.noted_at
    FROM (
        SELECT *, lag(o.types) OVER (ORDER BY o.source, o.position) AS before
        FROM bemi.table_versions o
        WHERE o.relation = base
      ) v,
      LATERAL jsonb_each(v.rewrites -> 'columns') r,
      pg_attribute a
    WHERE v.noted_at > since
      AND a.attrelid = base
      AND a.attnum = r.key::int2
      AND NOT a.attisdropped
      AND (
        r.value = 'null'::jsonb
        OR EXISTS (
          SELECT FROM pg_cast k
          WHERE k.castfunc >= 16384::oid
            AND k.castsource = (v.before -> 'columns' -> r.key ->> 0)::oid
            AND k.casttarget = (v.types -> 'columns' -> r.key ->> 0)::oid
        )
      )
    ORDER BY v.source, v.position, a.attnum
  LOOP
    RAISE NOTICE 'the column % of % was rewritten at %: rows that did not change since then show its new values',
      quote_ident(rewrite.attname), base, rewrite.noted_at;
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.report_rewrites(regclass, timestamptz) IS
'reports the columns of a table that were rewritten since a time in an unknown way';

CREATE FUNCTION bemi.versions_of(relation oid) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN jsonb_build_object(
    'name', versions_of.relation::regclass::text,
    'today', (
      SELECT COALESCE(jsonb_object_agg(a.attnum, a.attname), '{}'::jsonb)
      FROM pg_attribute a
      WHERE a.attrelid = versions_of.relation AND a.attnum > 0 AND NOT a.attisdropped
    ),
    'masked', to_jsonb(ARRAY(SELECT bemi.masked_columns(versions_of.relation))),
    'versions', (
      SELECT COALESCE(jsonb_agg(jsonb_build_object(
        'position', bemi.place(v.source, v.position)::text,
        'at', v.noted_at::text,
        'is_late', v.is_late,
        'rewrites', v.rewrites,
        'columns', CASE WHEN v.columns IS DISTINCT FROM v.columns_before THEN v.columns END,
        'types', CASE WHEN v.types IS DISTINCT FROM v.types_before THEN v.types END
      ) ORDER BY v.source, v.position), '[]'::jsonb)
      FROM (
        SELECT *, lag(o.columns) OVER w AS columns_before, lag(o.types) OVER w AS types_before
        FROM bemi.table_versions o
        WHERE o.relation = versions_of.relation AND o.columns IS NOT NULL
        WINDOW w AS (ORDER BY o.source, o.position)
      ) v
    )
  );
END
$$;

COMMENT ON FUNCTION bemi.versions_of(oid) IS
'returns what a table was like at all times, for bemi.image_row()';

CREATE FUNCTION bemi.time_at(place bigint) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN COALESCE((
    SELECT c.committed_at::text
    FROM bemi.changes c
    WHERE c.source = bemi.place_source(time_at.place)
      AND c.position = bemi.place_position(time_at.place)
      -- A transaction commits after its changes. This lets the index be used.
      AND c.commit_position >= '0/0'::pg_lsn + bemi.place_position(time_at.place)::numeric
    ORDER BY c.commit_position
    LIMIT 1
  ), 'an unknown time'::text);
EXCEPTION WHEN insufficient_privilege THEN
  RETURN 'an unknown time'::text;
END
$$;

COMMENT ON FUNCTION bemi.time_at(bigint) IS
'returns when the change at a place was committed';

CREATE FUNCTION bemi.type_parts(type oid) RETURNS SETOF oid
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN QUERY
    WITH RECURSIVE parts AS (
      SELECT type_parts.type AS part
      UNION
      SELECT n.part
      FROM parts p
      JOIN pg_type t ON t.oid = p.part,
      LATERAL (
        SELECT t.typbasetype AS part
        WHERE t.typtype = 'd'::"char"
        UNION ALL
        SELECT t.typelem
        WHERE t.typtype = 'b'::"char"
        UNION ALL
        SELECT a.atttypid
        FROM pg_attribute a
        WHERE t.typtype = 'c'::"char" AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
        UNION ALL
        SELECT r.rngsubtype
        FROM pg_range r
        WHERE r.rngtypid = t.oid
        UNION ALL
        SELECT r.rngtypid
        FROM pg_range r
        WHERE r.rngmultitypid = t.oid
      ) n
      WHERE n.part >= 16384::oid
    )
    SELECT p.part FROM parts p;
END
$$;

COMMENT ON FUNCTION bemi.type_parts(oid) IS
'returns a type, and the types defined by users of which it is made';

CREATE FUNCTION bemi.require_input(type oid) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  culprit record;
BEGIN
  SELECT t.oid, pg_get_userbyid(t.typowner) AS owner,
    CASE WHEN c.is_constrained THEN 'the domain has constraints'::text
      ELSE 'a function of the type is written in another language than C'::text END AS why
  INTO culprit
  FROM bemi.type_parts(require_input.type) AS p (part)
  JOIN pg_type t ON t.oid = p.part,
  LATERAL (
    SELECT
      t.typtype = 'd'::"char"
        AND (t.typnotnull OR EXISTS (SELECT FROM pg_constraint k WHERE k.contypid = t.oid)) AS is_constrained,
      EXISTS (
        SELECT FROM pg_proc f
        WHERE f.prolang NOT IN (SELECT l.oid FROM pg_language l WHERE l.lanname IN ('internal'::name, 'c'::name))
          AND (f.oid = t.typinput::oid
            OR f.oid IN (SELECT r.rngcanonical::oid FROM pg_range r WHERE r.rngtypid = t.oid))
      ) AS is_written
  ) c
  WHERE (c.is_constrained OR c.is_written)
    AND t.typowner <> (SELECT r.oid FROM pg_roles r WHERE r.rolname = current_user)
  ORDER BY t.oid
  LIMIT 1;
  IF culprit.oid IS NOT NULL THEN
    RAISE EXCEPTION 'a recorded value of the type % is not read: that would run code of another role',
      format_type(require_input.type, NULL::int4) USING
      ERRCODE = 'insufficient_privilege',
      DETAIL = format('%s: %s.', format_type(culprit.oid, NULL::int4), culprit.why),
      HINT = format('SET ROLE %I; -- then it is read with the privileges of this role', culprit.owner);
  END IF;
  RETURN true;
END
$$;

COMMENT ON FUNCTION bemi.require_input(oid) IS
'raises an error if the input function of a type would run code of another role';

CREATE FUNCTION bemi.image_row(base anyelement, "position" bigint, image jsonb) RETURNS anyelement
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'bemi_image_row';

COMMENT ON FUNCTION bemi.image_row(anyelement, bigint, jsonb) IS
'returns the row of a table whose image was recorded at a place';

CREATE OR REPLACE FUNCTION bemi.image_today(relation regclass, image jsonb, "position" bigint) RETURNS jsonb
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'bemi_image_today';

COMMENT ON FUNCTION bemi.image_today(regclass, jsonb, bigint) IS
'returns an image of a row, recorded at a place, as it would be recorded today';

CREATE FUNCTION bemi.image_problems(relation regclass, image jsonb, "position" bigint) RETURNS jsonb
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'bemi_image_problems';

COMMENT ON FUNCTION bemi.image_problems(regclass, jsonb, bigint) IS
'returns the columns of an image, recorded at a place, that cannot be read exactly, and why; NULL if there are none';

CREATE FUNCTION bemi.key_value(key text, base anyelement) RETURNS anyelement
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'bemi_key_value';

COMMENT ON FUNCTION bemi.key_value(text, anyelement) IS
'returns the value of a type that is recorded as a text';

CREATE FUNCTION bemi.value_text(type oid, value jsonb) RETURNS text
LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'bemi_value_text';

COMMENT ON FUNCTION bemi.value_text(oid, jsonb) IS
'returns the text of a recorded value of a type';

CREATE FUNCTION bemi.enum_number(label anyenum) RETURNS oid
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'bemi_enum_number';

COMMENT ON FUNCTION bemi.enum_number(anyenum) IS
'returns the OID of a label of an enum';

CREATE OR REPLACE FUNCTION bemi.whole(image jsonb, omitted jsonb, "table" text, primary_key text) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  missing text := (
    SELECT string_agg(quote_ident(o), ', ')
    FROM jsonb_object_keys(omitted) o
    WHERE o NOT IN ('context', 'after', 'primary_key', 'old_primary_key') AND image ->> o IS NULL
  );
BEGIN
  IF missing IS NOT NULL THEN
    RAISE EXCEPTION 'the row % of % is not known: % was omitted when its change was recorded',
      primary_key, "table", missing USING
      ERRCODE = 'object_not_in_prerequisite_state',
      DETAIL = omitted::text,
      HINT = 'Exclude the row by a condition on its key. bemi.changes has its other columns.';
  END IF;
  RETURN image;
END
$$;

COMMENT ON FUNCTION bemi.whole(jsonb, jsonb, text, text) IS
'returns an image of a row; an error if something of it was omitted';

CREATE OR REPLACE FUNCTION bemi.recorded_since() RETURNS timestamptz
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

CREATE OR REPLACE FUNCTION bemi.recorded_position() RETURNS pg_lsn
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

CREATE OR REPLACE FUNCTION bemi.require_select(relation regclass) RETURNS void
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

CREATE OR REPLACE FUNCTION bemi.table_of_type(type regtype) RETURNS regclass
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

CREATE OR REPLACE FUNCTION bemi.leaves(relation regclass) RETURNS oid[]
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

CREATE OR REPLACE FUNCTION bemi.recorded_tree(base regclass)
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

CREATE TYPE bemi.key_column AS (
  place int,
  name name,
  number smallint,
  opening text,
  closing text,
  comparison text,
  type oid,
  free text,
  has_one_text boolean
);

COMMENT ON TYPE bemi.key_column IS
'a column that names a row of a table, and in SQL how to read and compare it';

CREATE FUNCTION bemi.key_index(relation regclass, OUT leaf oid, OUT index oid, OUT is_one boolean)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  columns text;
  columns_before text;
BEGIN
  is_one := true;
  -- A partitioned table without partitions has an index of its own.
  FOREACH leaf IN ARRAY COALESCE(NULLIF(bemi.leaves(relation), '{}'), ARRAY[relation::oid]) LOOP
    index := COALESCE((
      SELECT i.indexrelid
      FROM pg_index i
      WHERE i.indrelid = leaf AND i.indisprimary AND i.indisvalid
    ), bemi.identity_index(leaf::regclass));
    IF index IS NULL THEN
      RAISE EXCEPTION 'the table % has no primary key, so its changes do not name their rows', leaf::regclass USING
        ERRCODE = 'object_not_in_prerequisite_state',
        HINT = 'Add a primary key. The past can be read from then on.';
    END IF;
    columns := (
      SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY k.place)
      FROM pg_index i,
      unnest((i.indkey::int2[])[0:i.indnkeyatts - 1]) WITH ORDINALITY AS k (number, place)
      JOIN pg_attribute a ON a.attnum = k.number
      WHERE i.indexrelid = index AND a.attrelid = leaf
    );
    is_one := is_one AND columns = COALESCE(columns_before, columns);
    columns_before := columns;
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.key_index(regclass) IS
'returns the index whose columns name the rows of a table';

CREATE FUNCTION bemi.require_comparable(relation regclass, leaf oid, index oid) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  implicit record;
BEGIN
  IF EXISTS (
    SELECT FROM pg_index i, unnest(i.indkey::int2[]) k (number)
    JOIN pg_attribute a ON a.attnum = k.number
    JOIN pg_type t ON t.oid = a.atttypid
    WHERE i.indexrelid = index
      AND a.attrelid = leaf
      AND (t.typcategory IN ('A', 'C') OR t.typname IN ('json', 'jsonb'))
  ) THEN
    RAISE EXCEPTION 'the key of % has a column of an array, a composite type or jsonb', relation USING
      ERRCODE = 'object_not_in_prerequisite_state',
      HINT = 'The past of the table cannot be read by such a key. bemi.changes has what is recorded.';
  END IF;
  -- An implicit cast can lead the comparison of two ranges to another operator, by way of the cast's function.
  SELECT format_type(k.castsource, NULL::int4) AS source, format_type(k.casttarget, NULL::int4) AS target
  INTO implicit
  FROM pg_index i, unnest(i.indkey::int2[]) u (number)
  JOIN pg_attribute a ON a.attnum = u.number
  JOIN pg_type own ON own.oid = a.atttypid AND own.typtype = ANY ('{d,r,m}'::"char"[])
  CROSS JOIN LATERAL (
    SELECT CASE own.typtype WHEN 'd'::"char" THEN bemi.base_type(own.oid) ELSE own.oid END AS type
  ) b
  JOIN pg_type t ON t.oid = b.type
  JOIN pg_cast k ON k.castsource = t.oid
  WHERE i.indexrelid = index
    AND a.attrelid = leaf
    AND t.typtype = ANY ('{r,m}'::"char"[])
    AND t.oid >= 16384::oid
    AND k.castcontext = 'i'::"char"
  LIMIT 1;
  IF implicit.source IS NOT NULL THEN
    RAISE EXCEPTION 'the key of % has a column of the type %, which has an implicit cast',
      relation, implicit.source USING
      ERRCODE = 'object_not_in_prerequisite_state',
      HINT = format('DROP CAST (%s AS %s);', implicit.source, implicit.target);
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.require_comparable(regclass, oid, oid) IS
'raises an error if the keys of a table cannot be compared safely';

CREATE FUNCTION bemi.key_type(
  type oid, "collation" oid, OUT base oid, OUT is_own boolean, OUT collated text, OUT has_one_text boolean
)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
BEGIN
  SELECT y.oid, y.oid < 16384::oid,
    CASE WHEN c.oid IS NULL THEN ''::text ELSE format(' COLLATE %I.%I', n.nspname, c.collname) END,
    y.typtype = 'e'::"char"
      OR y.oid < 16384::oid
        AND COALESCE(c.collisdeterministic, true)
        AND y.typname = ANY (ARRAY['int2', 'int4', 'int8', 'oid', 'bool', 'uuid', 'bytea', 'date', 'time', 'timestamp',
          'timestamptz', 'inet', 'cidr', 'macaddr', 'macaddr8', 'bit', 'varbit', 'pg_lsn', 'xid8', 'money', 'char',
          'name', 'text', 'varchar']::name[])
  INTO base, is_own, collated, has_one_text
  FROM pg_type o
  JOIN pg_type y ON y.oid = CASE o.typtype WHEN 'd'::"char" THEN bemi.base_type(o.oid) ELSE o.oid END
  LEFT JOIN pg_collation c ON c.oid = key_type."collation"
  LEFT JOIN pg_namespace n ON n.oid = c.collnamespace
  WHERE o.oid = key_type.type;
END
$$;

COMMENT ON FUNCTION bemi.key_type(oid, oid) IS
'returns the base type of a column of a key, and its collation in SQL';

CREATE FUNCTION bemi.key_comparison(class oid, column_type oid, base oid) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  operator record;
  exactly text;
BEGIN
  SELECT o.oprname AS name, n.nspname AS schema, c.opcintype AS type
  INTO operator
  FROM pg_opclass c
  JOIN pg_amop m ON m.amopfamily = c.opcfamily
    AND m.amopstrategy = 3
    AND m.amoplefttype = c.opcintype
    AND m.amoprighttype = c.opcintype
  JOIN pg_operator o ON o.oid = m.amopopr
  JOIN pg_namespace n ON n.oid = o.oprnamespace
  WHERE c.oid = class;
  exactly := CASE
    WHEN operator.schema <> 'pg_catalog'::name THEN '::'::text || format_type(operator.type, -1)
    WHEN base < 16384::oid OR base = column_type THEN ''::text
    ELSE '::'::text || format_type(base, -1) END;
  exactly := replace(exactly, '%'::text, '%%'::text);
  IF operator.type = 'anyenum'::regtype::oid THEN
    RETURN format('bemi.enum_number(%%1$s) OPERATOR(pg_catalog.=) bemi.enum_number(%%2$s%s)', exactly);
  END IF;
  RETURN '%1$s'::text || exactly
    || format(' OPERATOR(%I.%s) ', operator.schema, operator.name)
    || '%2$s'::text || exactly;
END
$$;

COMMENT ON FUNCTION bemi.key_comparison(oid, oid, oid) IS
'returns in SQL, as a format: the condition that two values of a column of a key are equal';

CREATE FUNCTION bemi.key_of(relation regclass) RETURNS SETOF bemi.key_column
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  key record := bemi.key_index(relation);
BEGIN
  PERFORM bemi.require_comparable(relation, key.leaf, key.index);
  IF NOT key.is_one THEN
    RAISE EXCEPTION 'the partitions of % have different keys', relation USING
      ERRCODE = 'object_not_in_prerequisite_state',
      HINT = 'Read the past of each partition by itself.';
  END IF;
  RETURN QUERY
    SELECT
      k.place::int,
      own.attname,
      own.attnum,
      CASE WHEN t.is_own THEN 'CAST('::text ELSE 'bemi.key_value('::text END,
      x.before_type
        || format_type(t.base, CASE WHEN t.base = own.atttypid THEN own.atttypmod ELSE -1 END)
        || x.after_type,
      bemi.key_comparison(k.class, own.atttypid, t.base),
      t.base,
      x.before_type || format_type(t.base, -1) || x.after_type,
      t.has_one_text
    FROM pg_index i,
    unnest((i.indkey::int2[])[0:i.indnkeyatts - 1], i.indclass::oid[]) WITH ORDINALITY AS k (number, class, place)
    JOIN pg_attribute a ON a.attnum = k.number
    JOIN pg_attribute own ON own.attname = a.attname AND own.attrelid = relation
    CROSS JOIN LATERAL bemi.key_type(own.atttypid, own.attcollation) t
    CROSS JOIN LATERAL (
      SELECT
        CASE WHEN t.is_own THEN ' AS '::text ELSE ', NULL::'::text END AS before_type,
        ')'::text || t.collated AS after_type
    ) x
    WHERE i.indexrelid = key.index AND a.attrelid = key.leaf AND k.number IS NOT NULL
    ORDER BY k.place;
END
$$;

COMMENT ON FUNCTION bemi.key_of(regclass) IS
'returns the columns that name a row of a table, and in SQL how to read and compare them';

CREATE FUNCTION bemi.former_versions(tables oid[]) RETURNS TABLE (
  relation oid,
  stay bigint,
  place bigint,
  noted_at timestamptz,
  next bigint,
  next_at timestamptz,
  next_is_late boolean,
  name text,
  root oid,
  is_empty boolean,
  is_flawed boolean,
  columns jsonb,
  key_columns smallint[]
)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
    WITH versions AS (
      SELECT
        v.*,
        bemi.place(v.source, v.position) AS place,
        lead(bemi.place(v.source, v.position)) OVER w AS next,
        lead(v.noted_at) OVER w AS next_at,
        lead(v.is_late) OVER w AS next_is_late,
        v.root IS DISTINCT FROM lag(v.root) OVER w AS is_another,
        first_value(v.key_columns) OVER back AS last_key
      FROM bemi.table_versions v
      WHERE v.relation = ANY (tables)
      WINDOW
        w AS (PARTITION BY v.relation ORDER BY v.source, v.position),
        back AS (PARTITION BY v.relation, v.root ORDER BY v.source DESC, v.position DESC)
    )
    SELECT
      v.relation,
      count(*) FILTER (WHERE v.is_another) OVER (PARTITION BY v.relation ORDER BY v.place),
      v.place,
      v.noted_at,
      v.next,
      v.next_at,
      v.next_is_late,
      CASE WHEN v."table" IS NOT NULL THEN format('%I.%I', v.schema, v."table") END,
      v.root,
      v.is_empty,
      NOT v.is_tracked OR NOT v.has_images OR v.is_late OR v.key_columns IS DISTINCT FROM v.last_key,
      v.columns,
      v.key_columns
    FROM versions v;
END
$$;

COMMENT ON FUNCTION bemi.former_versions(oid[]) IS
'returns the versions of tables that were partitions, by the times that they were';

CREATE FUNCTION bemi.key_names(columns jsonb, key smallint[]) RETURNS text[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN ARRAY(
    SELECT columns ->> k.number::text
    FROM unnest(key) WITH ORDINALITY AS k (number, place)
    ORDER BY k.place
  );
END
$$;

COMMENT ON FUNCTION bemi.key_names(jsonb, smallint[]) IS
'returns the names of the columns of a key';

CREATE FUNCTION bemi.columns_before(relation oid, place bigint) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN (
    SELECT v.columns
    FROM bemi.table_versions v
    WHERE v.relation = columns_before.relation AND bemi.place(v.source, v.position) < columns_before.place
    ORDER BY v.source DESC, v.position DESC
    LIMIT 1
  );
END
$$;

COMMENT ON FUNCTION bemi.columns_before(oid, bigint) IS
'returns the columns that a table had before a place';

CREATE FUNCTION bemi.former_partitions(base regclass) RETURNS TABLE (
  relation oid, name text, came_at timestamptz, gone bigint, gone_at timestamptz, empty bigint, empty_at timestamptz
)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
  top oid := (SELECT pg_partition_root(c.oid) FROM pg_class c WHERE c.oid = base AND c.relkind = 'p'::"char");
  members oid[];
  gone oid[];
  key smallint[];
BEGIN
  IF top IS NULL THEN
    RETURN;
  END IF;
  members := ARRAY(SELECT p.relid::oid FROM pg_partition_tree(top) p);
  gone := ARRAY(
    SELECT DISTINCT v.relation FROM bemi.table_versions v WHERE v.root = top AND v.relation <> ALL (members)
  );
  IF gone = '{}' THEN
    RETURN;
  END IF;
  key := ARRAY(SELECT k.number FROM bemi.key_of(base) k ORDER BY k.place);
  RETURN QUERY
    WITH stays AS MATERIALIZED (
      SELECT * FROM bemi.former_versions(gone) v WHERE v.root = top
    ), ends AS (
      SELECT s.relation, s.stay, min(s.noted_at) AS came_at, max(s.place) AS latest,
        max(s.place) FILTER (WHERE s.is_flawed) AS flaw
      FROM stays s
      GROUP BY s.relation, s.stay
    ), latest AS (
      SELECT e.*, l.next, l.next_at, l.name, max(e.stay) OVER (PARTITION BY e.relation) = e.stay AS is_latest,
        NOT COALESCE(l.next_is_late, true)
          AND top = base
          -- By the names that the columns of the key had then.
          AND (l.key_columns IS NULL OR bemi.key_names(l.columns, l.key_columns)
            = bemi.key_names(bemi.columns_before(top, l.next), key)) AS is_sound
      FROM ends e
      JOIN stays l ON l.relation = e.relation AND l.place = e.latest
    )
    SELECT l.relation, l.name, l.came_at, l.next, COALESCE(l.next_at, 'infinity'::timestamptz), f.place, f.noted_at
    FROM latest l
    LEFT JOIN LATERAL (
      SELECT s.place, s.noted_at
      FROM stays s
      WHERE l.is_latest
        AND l.is_sound
        AND s.relation = l.relation
        AND s.stay = l.stay
        AND s.is_empty
        AND (l.flaw IS NULL OR s.place > l.flaw)
      ORDER BY s.place
      LIMIT 1
    ) f ON true
    WHERE COALESCE(l.next_at > bemi.recorded_since(), true);
END
$$;

COMMENT ON FUNCTION bemi.former_partitions(regclass) IS
'returns the tables that were partitions of a table, from when, until when, and since when their rows are known';

CREATE FUNCTION bemi.recorded_past(base regclass)
RETURNS TABLE (relation oid, schema text, "table" text, since bigint, until bigint)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
    SELECT * FROM bemi.recorded_tree(base)
    UNION ALL
    SELECT n.relation, n.schema, n."table", greatest(n.since, f.empty), least(n.until, f.gone)
    FROM bemi.former_partitions(base) f, bemi.recorded_names(ARRAY[f.relation]) n
    WHERE f.empty IS NOT NULL AND n.until > f.empty AND n.since < f.gone;
END
$$;

COMMENT ON FUNCTION bemi.recorded_past(regclass) IS
'returns as bemi.recorded_tree(), with the partitions that are gone whose rows are known';

CREATE FUNCTION bemi.farewells(base regclass) RETURNS TABLE (leaf oid, committed_at timestamptz)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
    SELECT f.relation, greatest(f.gone_at, (
      SELECT max(c.committed_at)
      FROM bemi.recorded_names(ARRAY[f.relation]) n
      JOIN bemi.changes c ON c.schema = n.schema
        AND c."table" = n."table"
        AND bemi.place(c.source, c.position) >= n.since
        AND bemi.place(c.source, c.position) < least(n.until, f.gone)
      WHERE c.committed_at > f.gone_at
    ))
    FROM bemi.former_partitions(base) f
    WHERE f.empty IS NOT NULL;
END
$$;

COMMENT ON FUNCTION bemi.farewells(regclass) IS
'returns when the rows of partitions that are gone were removed, as far as they are known';

CREATE FUNCTION bemi.unknown_former(base regclass, moment timestamptz) RETURNS SETOF text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  former record;
BEGIN
  FOR former IN
    SELECT f.* FROM bemi.former_partitions(base) f
    WHERE f.came_at <= moment AND f.gone_at > moment
    ORDER BY f.came_at
  LOOP
    IF former.gone IS NULL THEN
      RETURN NEXT format('%s was a partition and is gone since an unknown time: an event trigger of bemi was disabled',
        former.name);
    ELSIF former.empty IS NULL OR former.empty_at > moment OR former.empty_at < bemi.recorded_since()
      OR EXISTS (
        SELECT FROM bemi.changes c
        WHERE c.schema = '' AND c."table" = '' AND c.operation = 'GAP' AND c.committed_at > former.empty_at
      )
      OR EXISTS (
        SELECT FROM bemi.recorded_names(ARRAY[former.relation]) n
        JOIN bemi.changes c ON c.schema = n.schema
          AND c."table" = n."table"
          AND bemi.place(c.source, c.position) >= greatest(n.since, former.empty)
          AND bemi.place(c.source, c.position) < least(n.until, former.gone)
        WHERE c.primary_key IS NULL AND c.operation <> 'TRUNCATE'
      )
    THEN
      RETURN NEXT format(
        '%s, a partition until %s, is gone, and not all of its changes are recorded since it was empty',
        former.name, former.gone_at);
    END IF;
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.unknown_former(regclass, timestamptz) IS
'returns what is not known of partitions that are gone and were there at a time';

CREATE FUNCTION bemi.versions_since(base regclass, moment timestamptz, leaves oid[], top oid) RETURNS TABLE (
  relation oid,
  place bigint,
  noted_at timestamptz,
  until timestamptz,
  root oid,
  came bigint,
  has_no_past boolean,
  is_tracked boolean,
  has_images boolean,
  is_late boolean,
  key_columns smallint[]
)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
    WITH versions AS MATERIALIZED (
      SELECT
        v.*,
        bemi.place(v.source, v.position) AS place,
        lead(v.noted_at, 1, 'infinity') OVER w AS until,
        -- A partition that was empty when it was attached has no rows of an earlier time.
        lag(v.root) OVER w IS DISTINCT FROM v.root
          AND v.root = top
          AND v.is_empty
          AND v.relation <> base AS has_no_past
      FROM bemi.table_versions v
      WHERE v.relation = ANY (leaves || base::oid)
      WINDOW w AS (PARTITION BY v.relation ORDER BY v.source, v.position)
    ), known AS MATERIALIZED (
      SELECT v.*, max(v.place) FILTER (WHERE v.has_no_past) OVER (PARTITION BY v.relation) AS came
      FROM versions v
    )
    SELECT k.relation, k.place, k.noted_at, k.until, k.root, k.came, k.has_no_past, k.is_tracked, k.has_images,
      k.is_late, k.key_columns
    FROM known k
    WHERE k.until > moment
      AND (k.came IS NULL OR k.place >= k.came OR k.root = top AND k.noted_at <= moment);
END
$$;

COMMENT ON FUNCTION bemi.versions_since(regclass, timestamptz, oid[], oid) IS
'returns the versions of a table and its partitions that count for its rows at a time';

CREATE OR REPLACE FUNCTION bemi.unknown_past(base regclass, moment timestamptz) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  leaves oid[] := bemi.leaves(base);
  top oid := COALESCE(pg_partition_root(base)::oid, base);
  result text;
BEGIN
  WITH members AS MATERIALIZED (
    SELECT c.oid, c.relkind FROM pg_class c WHERE c.oid = ANY (leaves || base::oid)
  ), since AS MATERIALIZED (
    SELECT v.*, v.relation::regclass AS name FROM bemi.versions_since(base, moment, leaves, top) v
  )
  SELECT p.problem INTO result FROM (
    SELECT 1, format('%s is a foreign table', m.oid::regclass)
    FROM members m WHERE m.relkind = 'f'
    UNION ALL
    SELECT 2, format('%s is not tracked', m.oid::regclass)
    FROM members m WHERE NOT EXISTS (SELECT FROM bemi.table_versions v WHERE v.relation = m.oid)
    UNION ALL
    SELECT 3, format('%s is tracked since %s', v.name, min(v.noted_at))
    FROM since v GROUP BY v.name HAVING min(v.noted_at) > moment AND NOT bool_or(v.has_no_past)
    UNION ALL
    SELECT 4, format('%s was not tracked from %s on', v.name, v.noted_at)
    FROM since v WHERE NOT v.is_tracked
    UNION ALL
    SELECT 5, format('%s had no REPLICA IDENTITY FULL from %s on, so WAL does not contain whole rows',
      v.name, v.noted_at)
    FROM since v WHERE NOT v.has_images
    UNION ALL
    SELECT 6, format('%s was attached or detached at %s', v.name, v.until)
    -- A table keeps its own rows when it is attached or detached.
    FROM since v WHERE (v.root <> top OR v.place < v.came) AND v.relation <> base
    UNION ALL
    SELECT 7, format('%s had another key until %s', v.name, v.until)
    FROM since v JOIN since l ON l.relation = v.relation AND l.until = 'infinity'
    WHERE v.key_columns IS DISTINCT FROM l.key_columns AND v.relation = ANY (leaves)
    UNION ALL
    SELECT 7, format('the key of %s is deferrable, so two rows may have had the same key', i.indrelid::regclass)
    FROM pg_index i WHERE i.indrelid = ANY (leaves) AND i.indisprimary AND NOT i.indimmediate
    UNION ALL
    SELECT 8, u FROM bemi.unknown_former(base, moment) u
    UNION ALL
    SELECT 9, format('%s was changed before %s while an event trigger of bemi was disabled', v.name, v.noted_at)
    FROM since v WHERE v.is_late AND v.noted_at > moment
  ) AS p (place, problem) ORDER BY p.place LIMIT 1;
  IF result IS NULL THEN
    SELECT format('%s was changed while an event trigger of bemi is disabled', v.relation::regclass)
    INTO result FROM bemi.new_versions(leaves || base::oid) v LIMIT 1;
  END IF;
  RETURN result;
END
$$;

COMMENT ON FUNCTION bemi.unknown_past(regclass, timestamptz) IS
'returns what keeps the rows that a table had at a time from being known, or NULL';

CREATE FUNCTION bemi.require_unchanged(base regclass, command int) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
BEGIN
  IF command > 0 AND pg_current_xact_id_if_assigned() IS NOT NULL AND EXISTS (
    SELECT FROM pg_locks l
    WHERE l.pid = pg_backend_pid()
      AND l.locktype = 'relation'
      AND l.relation = ANY (bemi.leaves(base))
      AND (
        l.mode IN ('ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
        -- The running statement may be the first that writes the table.
        OR l.mode = 'RowExclusiveLock' AND (
          current_setting('track_counts') = 'off'
          OR pg_stat_get_xact_tuples_inserted(l.relation)
            + pg_stat_get_xact_tuples_updated(l.relation)
            + pg_stat_get_xact_tuples_deleted(l.relation) > 0
        )
      )
  ) THEN
    RAISE EXCEPTION 'this transaction has changed % itself', base USING
      ERRCODE = 'object_not_in_prerequisite_state',
      HINT = 'Its changes are recorded after COMMIT. Read the past then.';
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.require_unchanged(regclass, int) IS
'raises an error if the running transaction has changed a table';

CREATE FUNCTION bemi.require_keys(base regclass, moment timestamptz) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  change record;
  was_truncated boolean := false;
BEGIN
  FOR change IN
    SELECT n.schema, n."table", c.operation, c.first
    FROM bemi.recorded_tree(base) n,
    LATERAL (
      SELECT c.operation, min(c.committed_at) AS first
      FROM bemi.changes c
      WHERE c.schema = n.schema
        AND c."table" = n."table"
        AND c.primary_key IS NULL
        AND c.committed_at > moment
        AND bemi.place(c.source, c.position) >= n.since
        AND bemi.place(c.source, c.position) < n.until
      GROUP BY 1
    ) c
    ORDER BY c.operation = 'TRUNCATE', c.first
  LOOP
    IF change.operation <> 'TRUNCATE' THEN
      RAISE EXCEPTION 'what % was like at % is not known: the key of a row that was changed at % is not recorded',
        base, moment, change.first USING
        ERRCODE = 'object_not_in_prerequisite_state',
        HINT = 'See the rows of bemi.changes whose primary_key is null.';
    END IF;
    RAISE WARNING '% was truncated at %: of its rows, only those that had been changed before are recorded',
      format('%I.%I', change.schema, change."table"), change.first;
    was_truncated := true;
  END LOOP;
  RETURN was_truncated;
END
$$;

COMMENT ON FUNCTION bemi.require_keys(regclass, timestamptz) IS
'raises an error if changes of a table since a time have no key; returns whether it was truncated since';

CREATE FUNCTION bemi.report_uncertain(base regclass, moment timestamptz, gone_from timestamptz) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  columns text;
BEGIN
  -- No change has what ADD COLUMN gave to a row that did not change after it.
  columns := (
    SELECT string_agg(format('%s (since %s)', quote_ident(a.attname), n.added_at), ', ' ORDER BY a.attnum)
    FROM pg_attribute a,
    LATERAL (
      SELECT min(v.noted_at) FILTER (WHERE v.columns ? a.attnum::text) AS added_at, min(v.noted_at) AS first
      FROM bemi.table_versions v
      WHERE v.relation = base
    ) n
    WHERE a.attrelid = base
      AND a.attnum > 0
      AND NOT a.attisdropped
      AND n.added_at > n.first
      AND n.added_at > gone_from
      AND n.added_at <= moment
  );
  IF columns IS NOT NULL THEN
    RAISE NOTICE 'columns of % that were added are null in rows removed by a TRUNCATE or with their partition: %',
      base, columns;
  END IF;
  columns := (
    SELECT string_agg(quote_ident(a.attname), ', ')
    FROM pg_attribute a
    WHERE a.attrelid = base
      AND a.attnum > 0
      AND NOT a.attisdropped
      AND a.attname IN (SELECT m FROM bemi.masked_columns(base::oid) m)
  );
  IF columns IS NOT NULL THEN
    RAISE NOTICE 'masked columns of % are null in rows that have changed since: %', base, columns;
  END IF;
  columns := (
    SELECT string_agg(DISTINCT quote_ident(i), ', ')
    FROM bemi.table_versions v, unnest(v.ignored) i WHERE v.relation = ANY (bemi.leaves(base))
  );
  IF columns IS NOT NULL THEN
    RAISE NOTICE 'ignored columns of % may be newer than %, since their changes alone are not recorded: %',
      base, moment, columns;
  END IF;
  columns := (
    SELECT string_agg(DISTINCT quote_ident(i), ', ')
    FROM bemi.former_partitions(base) f
    JOIN bemi.table_versions v ON v.relation = f.relation,
    unnest(v.ignored) i
    WHERE f.came_at <= moment AND f.gone_at > moment
  );
  IF columns IS NOT NULL THEN
    RAISE NOTICE
      'ignored columns of former partitions of % may be older than %, since their changes alone are not recorded: %',
      base, moment, columns;
  END IF;
  PERFORM bemi.report_rewrites(base, moment);
END
$$;

COMMENT ON FUNCTION bemi.report_uncertain(regclass, timestamptz, timestamptz) IS
'reports the columns of a table whose values at a time are not known for all rows';

CREATE OR REPLACE FUNCTION bemi.require_past(base regclass, moment timestamptz, command int) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  since timestamptz := bemi.recorded_since();
  problem text;
  gone_from timestamptz := (
    SELECT min(f.empty_at) FROM bemi.former_partitions(base) f WHERE f.came_at <= moment AND f.gone_at > moment
  );
BEGIN
  PERFORM bemi.require_unchanged(base, command);
  IF moment < since THEN
    problem := format('changes are recorded since %s', since);
  ELSE
    SELECT format('changes before %s are missing: %s', c.committed_at, c.context)
    INTO problem
    FROM bemi.changes c
    WHERE c.schema = '' AND c."table" = '' AND c.operation = 'GAP' AND c.committed_at > moment
    ORDER BY c.committed_at DESC
    LIMIT 1;
    problem := COALESCE(problem, bemi.unknown_past(base, moment));
  END IF;
  IF problem IS NOT NULL THEN
    RAISE EXCEPTION 'what % was like at % is not known: %', base, moment, problem USING
      ERRCODE = 'object_not_in_prerequisite_state',
      HINT = 'bemi.changes has what is recorded. SELECT * FROM bemi.tracked; shows what is recorded from now on.';
  END IF;
  IF bemi.require_keys(base, moment) THEN
    gone_from := '-infinity';
  END IF;
  PERFORM bemi.report_uncertain(base, moment, gone_from);
END
$$;

COMMENT ON FUNCTION bemi.require_past(regclass, timestamptz, int) IS
'raises an error if the rows of a table at a time cannot be known, and reports what of them is uncertain';

CREATE OR REPLACE FUNCTION bemi.current_command() RETURNS integer
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'bemi_current_command';

COMMENT ON FUNCTION bemi.current_command() IS
'returns how many commands of its own transaction that changed something the running statement sees';

CREATE OR REPLACE FUNCTION bemi.latest_changes(base oid, moment timestamptz, snapshot pg_snapshot, command int, recorded pg_lsn)
RETURNS jsonb
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'bemi_latest_changes';

COMMENT ON FUNCTION bemi.latest_changes(oid, timestamptz, pg_snapshot, int, pg_lsn) IS
'calls bemi.read_latest_changes() under a snapshot that sees all that was committed';

CREATE OR REPLACE FUNCTION bemi.read_latest_changes(
  base oid, moment timestamptz, snapshot pg_snapshot, command int, recorded pg_lsn
) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
DECLARE
  -- Transaction IDs have 64 bits here, and 32 in WAL.
  next numeric := pg_snapshot_xmax(snapshot)::text::numeric;
  epoch numeric := next - next % 4294967296;
  place bigint := (recorded - '0/0'::pg_lsn)::bigint;
  recorded_source int := bemi.place_source(place);
  recorded_here pg_lsn := '0/0'::pg_lsn + bemi.place_position(place)::numeric;
  last record;
BEGIN
  PERFORM bemi.require_past(base::regclass, moment, command);
  -- Mostly there is none, and this plan is made once in a session.
  SELECT c.source, c.commit_position
  INTO last
  FROM bemi.changes c
  ORDER BY c.source DESC, c.commit_position DESC, c.sequence DESC
  LIMIT 1;
  IF (last.source, last.commit_position) > (recorded_source, recorded_here) IS NOT TRUE THEN
    RETURN '[]'::jsonb;
  END IF;
  RETURN (
    SELECT COALESCE(jsonb_agg(to_jsonb(c) || jsonb_build_object('leaf', n.relation)), '[]')
    FROM bemi.recorded_past(base::regclass) n
    -- OFFSET 0: they are few, whatever the planner expects.
    JOIN (
      SELECT * FROM bemi.changes c WHERE (c.source, c.commit_position) > (recorded_source, recorded_here) OFFSET 0
    ) c ON c.schema = n.schema
      AND c."table" = n."table"
      AND bemi.place(c.source, c.position) >= n.since
      AND bemi.place(c.source, c.position) < n.until
    WHERE pg_visible_in_snapshot((
      CASE WHEN epoch + c.transaction_id >= next AND epoch > 0 THEN epoch - 4294967296 ELSE epoch END + c.transaction_id
    )::text::xid8, snapshot)
  );
END
$$;

COMMENT ON FUNCTION bemi.read_latest_changes(oid, timestamptz, pg_snapshot, int, pg_lsn) IS
'returns the changes of a table that a snapshot sees, recorded after it was taken; an error if its past is not known';

CREATE FUNCTION bemi.late_changes(base oid, moment timestamptz, snapshot pg_snapshot, command int, recorded pg_lsn)
RETURNS TABLE (
  leaf oid,
  operation text,
  primary_key text,
  old_primary_key text,
  before jsonb,
  after jsonb,
  omitted jsonb,
  committed_at timestamptz,
  "position" bigint,
  commit_position pg_lsn,
  sequence int,
  source int
)
LANGUAGE plpgsql VOLATILE ROWS 10 SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  found jsonb;
BEGIN
  IF moment IS NULL THEN
    RAISE EXCEPTION 'bemi.as_of() needs a time' USING ERRCODE = 'null_value_not_allowed';
  END IF;
  PERFORM bemi.sync();
  found := bemi.latest_changes(base, moment, snapshot, command, recorded);
  RETURN QUERY
    SELECT c.*
    FROM jsonb_to_recordset(found) AS c (
      leaf oid,
      operation text,
      primary_key text,
      old_primary_key text,
      before jsonb,
      after jsonb,
      omitted jsonb,
      committed_at timestamptz,
      "position" bigint,
      commit_position pg_lsn,
      sequence int,
      source int
    );
END
$$;

COMMENT ON FUNCTION bemi.late_changes(oid, timestamptz, pg_snapshot, int, pg_lsn) IS
'returns the changes of a table that a snapshot sees in the table, but not yet in bemi.changes';

CREATE FUNCTION bemi.virtual_column(base oid, number smallint) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN (
    -- The expression as text has neither the cast to the column's type nor its collation.
    SELECT format('(CAST(%s AS %s)', pg_get_expr(d.adbin, d.adrelid), format_type(a.atttypid, a.atttypmod))
      || CASE WHEN c.oid IS NULL THEN ')' ELSE format(' COLLATE %I.%I)', n.nspname, c.collname) END
    FROM pg_attribute a
    JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    LEFT JOIN pg_collation c ON c.oid = a.attcollation
    LEFT JOIN pg_namespace n ON n.oid = c.collnamespace
    WHERE a.attrelid = base AND a.attnum = number
  );
END
$$;

COMMENT ON FUNCTION bemi.virtual_column(oid, smallint) IS
'returns in SQL: the value of a virtual generated column, of the other columns of its row and tableoid';

CREATE FUNCTION bemi.columns_of_past(base oid, moment text) RETURNS TABLE (number smallint, now text, "then" text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO, YMD' SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  row_type text := bemi.qualified_name(base::oid);
BEGIN
  RETURN QUERY
    WITH versions AS MATERIALIZED (
      SELECT bemi.place(v.source, v.position) AS place, v.noted_at, v.columns
      FROM bemi.table_versions v
      WHERE v.relation = base AND v.columns IS NOT NULL
    ), columns AS (
      SELECT a.attnum, a.attname, a.attisdropped, a.attgenerated,
        CASE WHEN added.noted_at IS NULL THEN '%s'
          ELSE replace(format('CASE WHEN %s >= %L::timestamptz THEN ', moment, added.noted_at), '%', '%%')
            || '%s'
            || replace(format(' ELSE (NULL::%s).%I END', row_type, a.attname), '%', '%%') END AS form
      FROM pg_attribute a
      -- Null if the column was there from the beginning.
      LEFT JOIN LATERAL (
        SELECT v.noted_at
        FROM versions v
        WHERE v.columns ? a.attnum::text
          AND v.place > (SELECT min(f.place) FROM versions f)
          AND NOT (SELECT f.columns ? a.attnum::text FROM versions f ORDER BY f.place LIMIT 1)
        ORDER BY v.place
        LIMIT 1
      ) AS added ON true
      WHERE a.attrelid = base AND a.attnum > 0
    )
    SELECT
      c.attnum,
      CASE WHEN c.attisdropped THEN 'NULL::int4' ELSE format(c.form, format('t.%I', c.attname)) END,
      CASE
        WHEN c.attisdropped THEN 'NULL::int4'
        WHEN c.attgenerated = 'v' THEN format(c.form, bemi.virtual_column(base, c.attnum))
        ELSE format(c.form, format('r.%I', c.attname)) END
    FROM columns c;
END
$$;

COMMENT ON FUNCTION bemi.columns_of_past(oid, text) IS
'returns in SQL: the columns of a table at a time, of its row of today (t) and of one made of an image (r)';

CREATE FUNCTION bemi.virtual_query(base oid) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  row_type text;
BEGIN
  IF NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = base AND a.attgenerated = 'v') THEN
    RETURN NULL;
  END IF;
  row_type := bemi.qualified_name(base::oid);
  RETURN (
    SELECT format('SELECT %s FROM (SELECT ($1).*, $3 AS tableoid OFFSET 0) r', string_agg(
      CASE
        WHEN a.attgenerated <> 'v' THEN format('r.%I', a.attname)
        WHEN cardinality(n.names) > 1 AND n.names[1] IS NULL THEN
          format('CASE WHEN $2 >= %s THEN %s ELSE (NULL::%s).%I END',
            n.added, bemi.virtual_column(base, a.attnum), row_type, a.attname)
        ELSE bemi.virtual_column(base, a.attnum) END, ', ' ORDER BY a.attnum))
    FROM pg_attribute a
    CROSS JOIN LATERAL (
      SELECT
        array_agg(c.name ORDER BY c.since) AS names,
        min(c.since) FILTER (WHERE c.name IS NOT NULL) AS added
      FROM bemi.column_names(base, a.attnum) c
    ) AS n
    WHERE a.attrelid = base AND a.attnum > 0 AND NOT a.attisdropped
  );
END
$$;

COMMENT ON FUNCTION bemi.virtual_query(oid) IS
'returns in SQL: the columns of a row with its virtual generated columns computed; NULL if it has none';

CREATE FUNCTION bemi.as_of_source(base regclass) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  columns text := 'c.operation, c.primary_key, c.old_primary_key, c.before, c.after, c.omitted, c.committed_at, '
    'c.source, c.position, c.commit_position, c.sequence';
BEGIN
  RETURN (
    SELECT CASE WHEN count(*) = 1 THEN
      format($query$(
        SELECT %s::oid AS leaf, %s
        FROM bemi.changes c
        WHERE c.schema = %L
          AND c."table" = %L
          AND (c.source, c.position) >= (%s, %s)
      )$query$,
        min(n.relation), columns, min(n.schema), min(n."table"),
        bemi.place_source(min(n.since)), bemi.place_position(min(n.since)))
    ELSE
      format($query$(
        SELECT n.leaf, %s
        FROM (VALUES %s) AS n (leaf, schema, "table", since, until)
        JOIN bemi.changes c ON c.schema = n.schema
          AND c."table" = n."table"
          AND bemi.place(c.source, c.position) >= n.since
          AND bemi.place(c.source, c.position) < n.until
      )$query$,
        columns, string_agg(format('(%s::oid, %L, %L, %s::bigint, %s::bigint)',
          n.relation, n.schema, n."table", n.since, n.until), ', '))
    END
    FROM bemi.recorded_past(base) n
    HAVING count(*) > 0
  );
END
$$;

COMMENT ON FUNCTION bemi.as_of_source(regclass) IS
'returns in SQL: the recorded changes of a table; NULL if nothing of it is recorded';

CREATE FUNCTION bemi.later_events(source text, moment text, wanted text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN format($query$
      SELECT c.leaf, c.primary_key AS key,
        CASE WHEN c.operation = 'CREATE' OR c.old_primary_key IS NOT NULL THEN NULL ELSE c.before END AS image,
        c.omitted, c.source, c.position, c.commit_position, c.sequence
      FROM %1$s c
      WHERE c.committed_at > %2$s
        AND c.primary_key IS NOT NULL%3$s
      UNION ALL
      SELECT c.leaf, c.old_primary_key, c.before, c.omitted, c.source, c.position, c.commit_position, c.sequence
      FROM %1$s c
      WHERE c.committed_at > %2$s
        AND c.old_primary_key IS NOT NULL%4$s
    $query$, source, moment,
    CASE WHEN wanted <> '' THEN format(' AND c.primary_key = ANY (%s)', wanted) END,
    CASE WHEN wanted <> '' THEN format(' AND c.old_primary_key = ANY (%s)', wanted) END);
END
$$;

COMMENT ON FUNCTION bemi.later_events(text, text, text) IS
'returns in SQL: what changes after a time say of keys';

CREATE FUNCTION bemi.earlier_events(source text, moment text, wanted text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN format($query$
      SELECT c.leaf, c.primary_key AS key, CASE WHEN c.operation <> 'DELETE' THEN c.after END AS image,
        c.omitted, c.source, c.position, c.commit_position, c.sequence
      FROM %1$s c
      WHERE c.committed_at <= %2$s
        AND c.primary_key IS NOT NULL%3$s
      UNION ALL
      SELECT c.leaf, c.old_primary_key, NULL, c.omitted, c.source, c.position, c.commit_position, c.sequence
      FROM %1$s c
      WHERE c.committed_at <= %2$s
        AND c.old_primary_key IS NOT NULL%4$s
    $query$, source, moment,
    CASE WHEN wanted <> '' THEN format(' AND c.primary_key = ANY (%s)', wanted) END,
    CASE WHEN wanted <> '' THEN format(' AND c.old_primary_key = ANY (%s)', wanted) END);
END
$$;

COMMENT ON FUNCTION bemi.earlier_events(text, text, text) IS
'returns in SQL: what changes before a time say of keys';

CREATE FUNCTION bemi.as_of_with(
  base oid, moment text, wanted text, source text, farewells text, key bemi.key_column[]
) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO, YMD' AS $$
DECLARE
  casts text := (
    SELECT string_agg(format(', %s AS key_%s',
      k.opening
        || CASE WHEN cardinality(key) = 1 THEN 'f.key' ELSE format('(f.key::jsonb->>%s)', k.place - 1) END
        || k.closing,
      k.place), '' ORDER BY k.place)
    FROM unnest(key) k
  );
BEGIN
  RETURN format($query$
    WITH late AS MATERIALIZED (
      SELECT *
      FROM bemi.late_changes(%1$s::oid, %2$s, pg_current_snapshot(), bemi.current_command(), bemi.recorded_position())
    ), later AS MATERIALIZED (
      SELECT f.*%3$s
      FROM (
        SELECT DISTINCT ON (e.key COLLATE "C", e.leaf) e.*
        FROM (%4$s UNION ALL %5$s) e
        ORDER BY e.key COLLATE "C", e.leaf, e.source, e.commit_position, e.sequence
      ) f
    ), truncates AS NOT MATERIALIZED (
      SELECT c.leaf, c.committed_at, c.source, c.commit_position, c.sequence
      FROM %6$s c
      WHERE c.primary_key IS NULL AND c.operation = 'TRUNCATE'
      UNION ALL
      SELECT c.leaf, c.committed_at, c.source, c.commit_position, c.sequence
      FROM late c
      WHERE c.operation = 'TRUNCATE'%7$s
    ), emptied AS MATERIALIZED (
      SELECT DISTINCT ON (c.leaf) c.*
      FROM truncates c
      WHERE c.committed_at > %2$s
      ORDER BY c.leaf, c.source, c.commit_position, c.sequence
    )
    $query$,
    base, moment, casts, bemi.later_events(source, moment, wanted), bemi.later_events('late', moment, wanted), source,
    farewells);
END
$$;

COMMENT ON FUNCTION bemi.as_of_with(oid, text, text, text, text, bemi.key_column[]) IS
'returns in SQL: the WITH clause of bemi.as_of_query()';

CREATE FUNCTION bemi.as_of_select(
  base oid, moment text, wanted text, source text, has_leaves boolean, key bemi.key_column[]
) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO, YMD' AS $$
DECLARE
  name text := bemi.qualified_name(base::oid);
  today text := (SELECT CASE c.relkind WHEN 'r' THEN 'ONLY ' || name ELSE name END FROM pg_class c WHERE c.oid = base);
  key_equals text := (
    SELECT string_agg(format(k.comparison, 'l.key_' || k.place, format('t.%I', k.name)), ' AND ' ORDER BY k.place)
    FROM unnest(key) k
  );
  image text := format('bemi.place(l.source, l.position), '
    'CASE WHEN l.omitted IS NULL THEN l.image ELSE bemi.whole(l.image, l.omitted, %L, l.key) END', name);
  columns_now text;
  columns_then text;
BEGIN
  SELECT string_agg(p.now, ', ' ORDER BY p.number), string_agg(p."then", ', ' ORDER BY p.number)
  INTO columns_now, columns_then
  FROM bemi.columns_of_past(base, moment) p;
  RETURN format($query$
    SELECT * FROM (
      SELECT %1$s
      FROM %2$s t
      WHERE NOT EXISTS (SELECT FROM later l WHERE %3$s)
      UNION ALL
      SELECT %4$s
      FROM (
        SELECT (i.r).*, i.leaf AS tableoid
        FROM (
          SELECT l.leaf, bemi.image_row(NULL::%5$s, %6$s) AS r FROM later l WHERE l.image IS NOT NULL OFFSET 0
        ) i
      ) r
      UNION ALL
      SELECT %4$s
      FROM (
        SELECT r.*, l.leaf AS tableoid
        FROM (
          SELECT DISTINCT ON (e.key COLLATE "C", e.leaf) e.*
          FROM (%7$s UNION ALL %8$s) e
          WHERE EXISTS (SELECT FROM emptied)
          ORDER BY e.key COLLATE "C", e.leaf, e.source DESC, e.commit_position DESC, e.sequence DESC
        ) l
        JOIN emptied ON emptied.leaf = l.leaf
        CROSS JOIN LATERAL bemi.image_row(NULL::%5$s, %6$s) r
        WHERE l.image IS NOT NULL
          AND NOT EXISTS (
            SELECT FROM truncates c
            WHERE c.leaf = l.leaf AND c.committed_at <= %9$s
              AND (c.source, c.commit_position, c.sequence) > (l.source, l.commit_position, l.sequence)
          )
          AND NOT EXISTS (
            SELECT FROM later c
            WHERE c.leaf = l.leaf AND c.key = l.key
              AND (c.source, c.commit_position, c.sequence)
                < (emptied.source, emptied.commit_position, emptied.sequence)
          )
      ) r
    ) r$query$,
    columns_now, today, concat(CASE WHEN has_leaves THEN 'l.leaf = t.tableoid AND ' END, key_equals),
    columns_then, name, image,
    bemi.earlier_events(source, moment, wanted), bemi.earlier_events('late', moment, wanted), moment);
END
$$;

COMMENT ON FUNCTION bemi.as_of_select(oid, text, text, text, boolean, bemi.key_column[]) IS
'returns in SQL: the SELECT of bemi.as_of_query()';

CREATE FUNCTION bemi.as_of_query(base oid, moment text, wanted text, key bemi.key_column[]) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO, YMD' SET jit = off AS $$
DECLARE
  leaves oid[];
  source text;
  farewells text;
  former int;
BEGIN
  PERFORM bemi.require_select(base::regclass);
  leaves := bemi.leaves(base::regclass);
  source := bemi.as_of_source(base::regclass);
  IF source IS NULL AND leaves = '{}' THEN
    RAISE EXCEPTION 'the past of % is not known: it has no partitions', base::regclass USING
      ERRCODE = 'object_not_in_prerequisite_state';
  ELSIF source IS NULL THEN
    RAISE EXCEPTION 'the past of % is not known: it is not tracked', base::regclass USING
      ERRCODE = 'object_not_in_prerequisite_state',
      HINT = format('SELECT bemi.track(%L); -- its past can be read from then on', base::regclass);
  END IF;
  SELECT count(*), string_agg(format($query$
      UNION ALL
      SELECT %s::oid, %L::timestamptz, 2147483647, 'FFFFFFFF/FFFFFFFF'::pg_lsn, 0$query$, f.leaf, f.committed_at), '')
  INTO former, farewells
  FROM bemi.farewells(base::regclass) f;
  RETURN bemi.as_of_with(base, moment, wanted, source, farewells, key)
    || bemi.as_of_select(base, moment, wanted, source, cardinality(leaves) + former > 1, key);
END
$$;

COMMENT ON FUNCTION bemi.as_of_query(oid, text, text, bemi.key_column[]) IS
'returns in SQL: the rows of a table as they were at a time, of all keys or of those that are wanted';

CREATE OR REPLACE FUNCTION bemi.as_of_ready(base oid) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = base AND c.relkind IN ('r', 'p'))
    OR NOT has_function_privilege('bemi.as_of(anyelement, timestamptz)', 'EXECUTE')
  THEN
    RETURN false;
  END IF;
  PERFORM bemi.require_select(base::regclass), bemi.sync();
  RETURN true;
END
$$;

COMMENT ON FUNCTION bemi.as_of_ready(oid) IS
'waits for the recorder; returns whether bemi.as_of() can be planned as a query, or has to be called';

CREATE OR REPLACE FUNCTION bemi.as_of_plan(base oid, moment text, numbers text[], kinds text[], expressions text[]) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  key bemi.key_column[] := ARRAY(SELECT k FROM bemi.key_of(base::regclass) k);
  wanted text;
BEGIN
  -- The keys as bemi.changes has them.
  SELECT CASE
    WHEN count(*) = 1 THEN COALESCE(min('ARRAY[(' || n.one || ')::text]'), min('(' || n.any || ')::text[]'))
    WHEN count(*) = count(n.one) THEN
      format('ARRAY[%L || %s || %L]',
        '[', string_agg(format('to_json((%s)::text)::text', n.one), ' || '','' || ' ORDER BY k.place), ']') END
  INTO wanted
  FROM unnest(key) k,
  LATERAL (
    SELECT
      min(e.expression) FILTER (WHERE e.kind = 'one') AS one,
      min(e.expression) FILTER (WHERE e.kind = 'any') AS any
    FROM unnest(numbers, kinds, expressions) AS e (number, kind, expression)
    WHERE e.number = k.number::text
  ) n;
  RETURN bemi.as_of_query(base, moment, COALESCE(wanted, ''), key);
END
$$;

COMMENT ON FUNCTION bemi.as_of_plan(oid, text, text[], text[], text[]) IS
'returns in SQL: the query that bemi.as_of() stands for';

CREATE OR REPLACE FUNCTION bemi.as_of_support(internal) RETURNS internal
LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'bemi_as_of_support';

COMMENT ON FUNCTION bemi.as_of_support(internal) IS
'for the planner: plans a call of bemi.as_of() in FROM as the query that it stands for';

CREATE FUNCTION bemi.as_of_rows(base anyelement, at timestamptz) RETURNS SETOF anyelement
LANGUAGE plpgsql VOLATILE SUPPORT bemi.as_of_support SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RAISE EXCEPTION 'bemi.as_of_rows() is called by bemi.as_of() alone' USING
    ERRCODE = 'feature_not_supported',
    HINT = 'SELECT * FROM bemi.as_of(NULL::public.todo, now());';
END
$$;

COMMENT ON FUNCTION bemi.as_of_rows(anyelement, timestamptz) IS
'runs for bemi.as_of() where the planner does not replace it by its query';

CREATE OR REPLACE FUNCTION bemi.as_of(base anyelement, at timestamptz) RETURNS SETOF anyelement
LANGUAGE plpgsql VOLATILE SUPPORT bemi.as_of_support SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF at IS NULL THEN
    RAISE EXCEPTION 'bemi.as_of() needs a time' USING ERRCODE = 'null_value_not_allowed';
  END IF;
  RETURN QUERY EXECUTE format('SELECT * FROM bemi.as_of_rows(NULL::%s, $1)', bemi.table_of_type(pg_typeof(base)))
  USING at;
END
$$;

COMMENT ON FUNCTION bemi.as_of(anyelement, timestamptz) IS
'returns the rows that a table had at a time: SELECT * FROM bemi.as_of(NULL::public.todo, ''2026-11-20 11:00+00'')';

CREATE FUNCTION bemi.key_members(relation regclass, key text, columns bemi.key_column[]) RETURNS text[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  members text[];
BEGIN
  IF cardinality(columns) = 1 THEN
    RETURN ARRAY[key];
  END IF;
  BEGIN
    members := ARRAY(SELECT jsonb_array_elements_text(key::jsonb));
  EXCEPTION WHEN data_exception THEN
    members := NULL;
  END;
  IF cardinality(members) IS DISTINCT FROM cardinality(columns) OR array_position(members, NULL) IS NOT NULL THEN
    RAISE EXCEPTION '% cannot be a key of %', quote_literal(key), relation USING
      ERRCODE = 'invalid_text_representation',
      DETAIL = format('Its key has the columns %s.', (
        SELECT string_agg(quote_ident(c.name), ', ' ORDER BY c.place) FROM unnest(columns) c
      )),
      HINT = 'Write it as a JSON array of their values, as in ''["7", "a"]''.';
  END IF;
  RETURN members;
END
$$;

COMMENT ON FUNCTION bemi.key_members(regclass, text, bemi.key_column[]) IS
'returns the values of the columns of a key, as texts';

CREATE FUNCTION bemi.texts_of_member(relation regclass, k bemi.key_column, asked text) RETURNS text[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  free text := k.opening || quote_literal(asked) || k.free;
  fitted text := k.opening || quote_literal(asked) || k.closing;
  -- Neither form calls a cast: the output functions of users' types write their values.
  written text := CASE WHEN k.type < 16384::oid THEN 'to_jsonb(%s) #>> ''{}''' ELSE 'format(''%%s'', %s)' END;
  result text[];
BEGIN
  EXECUTE format('SELECT ARRAY[%s, CASE WHEN %s THEN %s END]',
    format(written, free), format(k.comparison, fitted, free), format(written, fitted)) INTO result;
  RETURN array_remove(result, NULL);
EXCEPTION WHEN data_exception THEN
  RAISE EXCEPTION '% cannot be a key of %', quote_literal(asked), relation USING
    ERRCODE = 'invalid_text_representation',
    DETAIL = format('The column %I is of the type %s: %s.', k.name, format_type(k.type, NULL), SQLERRM);
END
$$;

COMMENT ON FUNCTION bemi.texts_of_member(regclass, bemi.key_column, text) IS
'returns how WAL may have a value of a column of a key';

CREATE FUNCTION bemi.key_condition(columns bemi.key_column[], members text[], recorded text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN (
    SELECT string_agg(format(c.comparison,
      c.opening
        || CASE WHEN cardinality(members) = 1 THEN recorded ELSE format('(%s::jsonb->>%s)', recorded, c.place - 1) END
        || c.free,
      c.opening || quote_literal(members[c.place]) || c.free), ' AND ' ORDER BY c.place)
    FROM unnest(columns) c
  );
END
$$;

COMMENT ON FUNCTION bemi.key_condition(bemi.key_column[], text[], text) IS
'returns in SQL: the condition that a recorded key is a given one';

CREATE FUNCTION bemi.equal_keys(relation regclass, columns bemi.key_column[], members text[]) RETURNS text[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  recorded text := $query$
    SELECT r.key
    FROM (
      SELECT c.primary_key AS key
      FROM bemi.recorded_names($1) n
      JOIN bemi.changes c ON c.schema = n.schema AND c."table" = n."table"
      WHERE c.primary_key IS NOT NULL
      UNION
      SELECT c.old_primary_key
      FROM bemi.recorded_names($1) n
      JOIN bemi.changes c ON c.schema = n.schema AND c."table" = n."table"
      WHERE c.old_primary_key IS NOT NULL
    ) r
  $query$;
  condition text := bemi.key_condition(columns, members, 'r.key');
  one text := 'SELECT ' || bemi.key_condition(columns, members, '$1');
  key text;
  is_equal boolean;
  result text[];
BEGIN
  EXECUTE format('SELECT ARRAY(%s WHERE %s)', recorded, condition) INTO result USING bemi.leaves(relation);
  RETURN result;
EXCEPTION WHEN data_exception OR undefined_object THEN
  -- Some were recorded when the table had another key, and are not values of today's key.
  FOR key IN EXECUTE recorded USING bemi.leaves(relation) LOOP
    BEGIN
      EXECUTE one INTO is_equal USING key;
      result := result || CASE WHEN is_equal THEN ARRAY[key] END;
    EXCEPTION WHEN data_exception OR undefined_object THEN
      CONTINUE;
    END;
  END LOOP;
  RETURN result;
END
$$;

COMMENT ON FUNCTION bemi.equal_keys(regclass, bemi.key_column[], text[]) IS
'returns the recorded keys of a table that equal a given one';

CREATE FUNCTION bemi.recorded_keys(relation regclass, key text, columns bemi.key_column[]) RETURNS text[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  members text[];
  k bemi.key_column;
  texts text[];
  results text[] := ARRAY['['];
BEGIN
  IF key IS NULL OR cardinality(columns) = 0 THEN
    RETURN bemi.texts_of_key(key);
  END IF;
  members := bemi.key_members(relation, key, columns);
  FOREACH k IN ARRAY columns LOOP
    texts := bemi.texts_of_member(relation, k, members[k.place]);
    IF cardinality(columns) = 1 THEN
      results := texts;
    ELSE
      results := ARRAY(
        SELECT r || to_json(t)::text || CASE k.place WHEN cardinality(columns) THEN ']' ELSE ',' END
        FROM unnest(results) r, unnest(texts) t
      );
    END IF;
  END LOOP;
  IF false = ANY (ARRAY(SELECT c.has_one_text FROM unnest(columns) c)) THEN
    results := results || bemi.equal_keys(relation, columns, members);
  END IF;
  RETURN ARRAY(SELECT DISTINCT r COLLATE "C" FROM unnest(results) r);
END
$$;

COMMENT ON FUNCTION bemi.recorded_keys(regclass, text, bemi.key_column[]) IS
'returns the texts under which the changes of a key with given columns may be recorded';

CREATE FUNCTION bemi.recorded_keys(relation regclass, key text) RETURNS text[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  columns bemi.key_column[];
BEGIN
  IF key IS NULL OR relation IS NULL THEN
    RETURN bemi.texts_of_key(key);
  END IF;
  BEGIN
    columns := ARRAY(SELECT k FROM bemi.key_of(relation) k);
  EXCEPTION WHEN object_not_in_prerequisite_state THEN
    -- Such a key can only be compared as a text.
    RETURN bemi.texts_of_key(key);
  END;
  RETURN bemi.recorded_keys(relation, key, columns);
END
$$;

COMMENT ON FUNCTION bemi.recorded_keys(regclass, text) IS
'returns the texts under which the changes of a key of a table may be recorded';

CREATE FUNCTION bemi.texts_of_key(key text) RETURNS text[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF key LIKE '[%]' THEN
    RETURN ARRAY[key, '[' || (
      SELECT string_agg(to_json(m.value)::text, ',' ORDER BY m.place)
      FROM jsonb_array_elements_text(key::jsonb) WITH ORDINALITY AS m (value, place)
    ) || ']'];
  END IF;
  RETURN ARRAY[key];
EXCEPTION WHEN data_exception THEN
  RETURN ARRAY[key];
END
$$;

COMMENT ON FUNCTION bemi.texts_of_key(text) IS
'returns a key as it is written and, if it is a JSON array, as the recorder writes it';

CREATE OR REPLACE FUNCTION bemi.diff(before jsonb, after jsonb) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN (
    SELECT COALESCE(jsonb_object_agg(key, jsonb_build_array(b.value, a.value)), '{}')
    FROM jsonb_each(diff.before) b
    FULL JOIN jsonb_each(diff.after) a USING (key)
    WHERE COALESCE(b.value, 'null') <> COALESCE(a.value, 'null')
  );
END
$$;

COMMENT ON FUNCTION bemi.diff(jsonb, jsonb) IS
'returns what differs between two images of a row: {"column": [before, after]}';

CREATE TYPE bemi.key_change AS (
  relation oid,
  operation text,
  primary_key text,
  old_primary_key text,
  before jsonb,
  after jsonb,
  context jsonb,
  committed_at timestamptz,
  place bigint,
  source int,
  commit_position pg_lsn,
  sequence int
);

COMMENT ON TYPE bemi.key_change IS
'a change of a row, as bemi.changes has it';

CREATE FUNCTION bemi.changes_of_key(relations oid[], keys text[]) RETURNS SETOF bemi.key_change
LANGUAGE plpgsql STABLE ROWS 10 SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
BEGIN
  RETURN QUERY
    SELECT n.relation, c.operation, c.primary_key, c.old_primary_key, c.before, c.after, c.context, c.committed_at,
      c.place, c.source, c.commit_position, c.sequence
    FROM bemi.recorded_names(relations) n,
    LATERAL (
      SELECT *, bemi.place(o.source, o.position) AS place
      FROM bemi.changes o
      WHERE o.schema = n.schema AND o."table" = n."table" AND o.primary_key = ANY (keys)
      UNION ALL
      SELECT *, bemi.place(o.source, o.position) AS place
      FROM bemi.changes o
      WHERE o.schema = n.schema AND o."table" = n."table" AND o.old_primary_key = ANY (keys)
      OFFSET 0
    ) c
    WHERE c.place >= n.since AND c.place < n.until
    ORDER BY c.source, c.commit_position, c.sequence;
END
$$;

COMMENT ON FUNCTION bemi.changes_of_key(oid[], text[]) IS
'returns the recorded changes of a key of a table and its partitions, oldest first';

CREATE FUNCTION bemi.truncates(relation oid) RETURNS SETOF bemi.key_change
LANGUAGE plpgsql STABLE ROWS 10 SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
BEGIN
  RETURN QUERY
    SELECT n.relation, c.operation, c.primary_key, c.old_primary_key, c.before, c.after, c.context, c.committed_at,
      c.place, c.source, c.commit_position, c.sequence
    FROM bemi.recorded_names(ARRAY[truncates.relation]) n,
    LATERAL (
      SELECT *, bemi.place(o.source, o.position) AS place
      FROM bemi.changes o
      WHERE o.schema = n.schema AND o."table" = n."table" AND o.primary_key IS NULL AND o.operation = 'TRUNCATE'
      OFFSET 0
    ) c
    WHERE c.place >= n.since AND c.place < n.until;
END
$$;

COMMENT ON FUNCTION bemi.truncates(oid) IS
'returns the recorded TRUNCATEs of a table';

CREATE FUNCTION bemi.life_before(relations oid[], next bemi.key_change, asked text[]) RETURNS SETOF bemi.key_change
LANGUAGE plpgsql STABLE ROWS 10 SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  change bemi.key_change;
  moved bemi.key_change := next;
BEGIN
  -- Follows the row under the keys that it had, as far as they are not among those that are asked for.
  WHILE moved.old_primary_key <> ALL (asked) LOOP
    next := moved;
    moved := NULL;
    FOR change IN
      SELECT * FROM bemi.changes_of_key(relations, ARRAY[next.old_primary_key]) c
      WHERE (c.source, c.commit_position, c.sequence) < (next.source, next.commit_position, next.sequence)
      ORDER BY c.source DESC, c.commit_position DESC, c.sequence DESC
    LOOP
      -- An earlier row of the key ended there.
      EXIT WHEN change.operation = 'DELETE' OR change.old_primary_key = next.old_primary_key;
      RETURN NEXT change;
      IF change.old_primary_key IS NOT NULL THEN
        moved := change;
      END IF;
      EXIT WHEN change.operation = 'CREATE' OR change.old_primary_key IS NOT NULL;
    END LOOP;
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.life_before(oid[], bemi.key_change, text[]) IS
'returns the changes of a row before the one that changed its key';

CREATE FUNCTION bemi.life_after(relations oid[], last bemi.key_change) RETURNS SETOF bemi.key_change
LANGUAGE plpgsql STABLE ROWS 10 SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  change bemi.key_change;
  moved bemi.key_change := last;
BEGIN
  WHILE moved.primary_key IS NOT NULL LOOP
    last := moved;
    moved := NULL;
    FOR change IN
      SELECT * FROM bemi.changes_of_key(relations, ARRAY[last.primary_key]) c
      WHERE (c.source, c.commit_position, c.sequence) > (last.source, last.commit_position, last.sequence)
      ORDER BY c.source, c.commit_position, c.sequence
    LOOP
      EXIT WHEN change.operation = 'CREATE'
        OR change.primary_key = last.primary_key AND change.old_primary_key IS NOT NULL;
      RETURN NEXT change;
      IF change.old_primary_key = last.primary_key THEN
        moved := change;
      END IF;
      EXIT WHEN change.operation = 'DELETE' OR change.old_primary_key = last.primary_key;
    END LOOP;
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.life_after(oid[], bemi.key_change) IS
'returns the changes of a row after the one that changed its key';

CREATE FUNCTION bemi.changes_of_life(relations oid[], asked text[]) RETURNS SETOF bemi.key_change
LANGUAGE plpgsql STABLE ROWS 10 SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
BEGIN
  RETURN QUERY
    WITH own AS MATERIALIZED (
      SELECT c AS change FROM bemi.changes_of_key(relations, asked) c
    ), last AS (
      SELECT * FROM own o
      ORDER BY (o.change).source DESC, (o.change).commit_position DESC, (o.change).sequence DESC
      LIMIT 1
    )
    SELECT DISTINCT ON ((c.change).source, (c.change).commit_position, (c.change).sequence) (c.change).*
    FROM (
      SELECT o.change FROM own o
      UNION ALL
      SELECT l
      FROM own o, LATERAL bemi.life_before(relations, o.change, asked) l
      WHERE (o.change).primary_key = ANY (asked) AND (o.change).old_primary_key IS NOT NULL
      UNION ALL
      -- No row has the key now: the row that had it last continues under another.
      SELECT l
      FROM last o, LATERAL bemi.life_after(relations, o.change) l
      WHERE (o.change).old_primary_key = ANY (asked) AND (o.change).primary_key <> ALL (asked)
    ) c
    ORDER BY (c.change).source, (c.change).commit_position, (c.change).sequence;
END
$$;

COMMENT ON FUNCTION bemi.changes_of_life(oid[], text[]) IS
'returns the recorded changes of a row under all the keys that it had, oldest first';

CREATE FUNCTION bemi.life_of(relations oid[], asked text[]) RETURNS TABLE (
  version int,
  operation text,
  valid_from timestamptz,
  valid_to timestamptz,
  context jsonb,
  changed jsonb,
  after jsonb,
  place bigint,
  relation oid
)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
    WITH lives AS MATERIALIZED (
      SELECT * FROM bemi.changes_of_life(relations, asked)
    ), marked AS (
      SELECT
        l.*,
        lead(l.source) OVER w AS next_source,
        lead(l.commit_position) OVER w AS next,
        lead(l.sequence) OVER w AS next_sequence
      FROM lives l
      WINDOW w AS (ORDER BY l.source, l.commit_position, l.sequence)
    ), truncates AS MATERIALIZED (
      SELECT t.* FROM (SELECT DISTINCT l.relation FROM lives l) r, LATERAL bemi.truncates(r.relation) t
    ), all_of_it AS (
      SELECT * FROM lives
      UNION ALL
      -- A TRUNCATE ends the life of a row that was there.
      SELECT t.*
      FROM marked m,
      LATERAL (
        SELECT t.*
        FROM truncates t
        WHERE t.relation = m.relation
          AND (t.source, t.commit_position, t.sequence) > (m.source, m.commit_position, m.sequence)
          AND (m.next IS NULL
            OR (t.source, t.commit_position, t.sequence) < (m.next_source, m.next, m.next_sequence))
        ORDER BY t.source, t.commit_position, t.sequence
        LIMIT 1
      ) t
      WHERE m.operation <> 'DELETE'
    )
    SELECT row_number() OVER w::int, a.operation, a.committed_at, lead(a.committed_at) OVER w, a.context,
      bemi.diff(a.before, a.after), a.after, a.place, a.relation
    FROM all_of_it a
    WINDOW w AS (ORDER BY a.source, a.commit_position, a.sequence)
    ORDER BY 1 DESC;
END
$$;

COMMENT ON FUNCTION bemi.life_of(oid[], text[]) IS
'returns the recorded versions of a row under all the keys that it had, newest first';

CREATE FUNCTION bemi.before_history(relations oid[], called text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  gap record;
BEGIN
  PERFORM bemi.sync();
  IF NOT EXISTS (SELECT FROM bemi.table_versions v WHERE v.relation = ANY (relations)) THEN
    RAISE EXCEPTION 'the history of % is not known: it is not tracked', called USING
      ERRCODE = 'object_not_in_prerequisite_state',
      HINT = format('SELECT bemi.track(%L); -- records its changes from then on', called);
  END IF;
  SELECT min(c.committed_at) AS first, max(c.committed_at) AS last
  INTO gap
  FROM bemi.changes c
  WHERE c.schema = '' AND c."table" = '' AND c.operation = 'GAP';
  IF gap.first IS NOT NULL THEN
    RAISE NOTICE 'changes are missing: see the rows of bemi.changes with the operation GAP, from % to %',
      gap.first, gap.last;
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.before_history(oid[], text) IS
'waits for the recorder, and reports gaps; an error if nothing is known of the tables';

CREATE FUNCTION bemi.last_without_key(relations oid[]) RETURNS timestamptz
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
BEGIN
  RETURN (
    SELECT max(c.committed_at)
    FROM bemi.recorded_names(relations) n,
    LATERAL (
      SELECT c.committed_at
      FROM bemi.changes c
      WHERE c.schema = n.schema
        AND c."table" = n."table"
        AND c.primary_key IS NULL
        AND c.operation IN ('CREATE', 'UPDATE', 'DELETE')
        AND bemi.place(c.source, c.position) >= n.since
        AND bemi.place(c.source, c.position) < n.until
      ORDER BY c.committed_at DESC
      LIMIT 1
    ) c
  );
END
$$;

COMMENT ON FUNCTION bemi.last_without_key(oid[]) IS
'returns when a row of a table was last changed without a recorded key';

CREATE OR REPLACE FUNCTION bemi.history(base anyelement, primary_key text) RETURNS TABLE (
  version int,
  operation text,
  committed_at timestamptz,
  valid_from timestamptz,
  valid_to timestamptz,
  context jsonb,
  changed jsonb,
  "row" anyelement
)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  relation regclass := bemi.table_of_type(pg_typeof(base));
  leaves oid[] := bemi.leaves(relation);
  asked text := $2;
  columns bemi.key_column[];
  keyless timestamptz;
  found record;
  image jsonb;
  virtual_query text;
BEGIN
  PERFORM bemi.require_select(relation), bemi.before_history(leaves, relation::text);
  columns := ARRAY(SELECT k FROM bemi.key_of(relation) k);
  keyless := bemi.last_without_key(leaves);
  IF keyless IS NOT NULL THEN
    RAISE NOTICE 'changes of % until % were recorded without a key, as it had none then: they are not shown',
      relation, keyless USING
      HINT = 'See the rows of bemi.changes whose primary_key is null.';
  END IF;
  virtual_query := bemi.virtual_query(relation::oid);
  FOR found IN SELECT * FROM bemi.life_of(leaves, bemi.recorded_keys(relation, asked, columns)) LOOP
    version := found.version;
    operation := found.operation;
    committed_at := found.valid_from;
    valid_from := found.valid_from;
    valid_to := found.valid_to;
    context := found.context;
    changed := found.changed;
    -- Not in the query, so that errors do not show it.
    image := CASE WHEN found.operation IN ('CREATE', 'UPDATE') THEN found.after END;
    "row" := bemi.image_row(base, found.place, image);
    IF virtual_query IS NOT NULL AND image IS NOT NULL THEN
      BEGIN
        EXECUTE virtual_query INTO "row" USING "row", found.place, found.relation;
      EXCEPTION WHEN OTHERS THEN
        RAISE NOTICE 'virtual columns of % are null in its version of %: %', relation, committed_at, SQLERRM;
      END;
    END IF;
    RETURN NEXT;
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.history(anyelement, text) IS
'returns the recorded versions of a row under all the keys that it had, newest first';

CREATE FUNCTION bemi.named_table(name text, path name[]) RETURNS oid
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  parts text[] := parse_ident(name);
  last text := parts[cardinality(parts)];
  schemas text[] := CASE cardinality(parts) WHEN 1 THEN path::text[] ELSE parts[1:1] END;
  result oid;
BEGIN
  IF cardinality(parts) > 2 THEN
    RAISE EXCEPTION 'improper relation name: %', name USING
      ERRCODE = 'syntax_error',
      HINT = 'Write it as schema.table.';
  END IF;
  result := (
    SELECT f.oid
    FROM (
      SELECT c.oid, 1 AS kind, array_position(schemas, n.nspname::text) AS place, NULL::int AS source,
        NULL::pg_lsn AS "position"
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE c.relname = last
        AND n.nspname = ANY (schemas)
        AND c.relkind IN ('r', 'p')
        AND EXISTS (SELECT FROM bemi.table_versions v WHERE v.relation = c.oid OR v.root = c.oid)
      UNION ALL
      SELECT v.relation, 2, array_position(schemas, v.schema::text), v.source, v."position"
      FROM bemi.table_versions v
      WHERE v."table" = last AND v.schema = ANY (schemas)
    ) f
    ORDER BY f.kind, f.place, f.source DESC, f."position" DESC
    LIMIT 1
  );
  IF result IS NULL THEN
    RAISE EXCEPTION 'no history of a table % is known', name USING
      ERRCODE = 'undefined_table',
      HINT = 'Write its schema too. SELECT relation FROM bemi.tracked; shows the tables that are tracked.';
  END IF;
  RETURN result;
END
$$;

COMMENT ON FUNCTION bemi.named_table(text, name[]) IS
'returns the OID of the table that has a name, or had it last';

CREATE FUNCTION bemi.recorded_history(relation oid, called text, primary_key text) RETURNS TABLE (
  version int,
  operation text,
  committed_at timestamptz,
  valid_from timestamptz,
  valid_to timestamptz,
  context jsonb,
  changed jsonb,
  "row" jsonb
)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  asked oid := relation;
  is_there boolean := EXISTS (SELECT FROM pg_class c WHERE c.oid = asked AND c.relkind IN ('r', 'p'));
  relations oid[] := CASE WHEN is_there THEN bemi.leaves(asked::regclass) ELSE ARRAY(
    SELECT DISTINCT v.relation FROM bemi.table_versions v WHERE v.relation = asked OR v.root = asked
  ) END;
  keys text[];
BEGIN
  PERFORM bemi.require_changes(), bemi.before_history(relations, called);
  keys := CASE WHEN is_there THEN bemi.recorded_keys(asked::regclass, $3) ELSE bemi.texts_of_key($3) END;
  RETURN QUERY
    SELECT h.version, h.operation, h.valid_from, h.valid_from, h.valid_to, h.context, h.changed,
      CASE WHEN h.operation IN ('CREATE', 'UPDATE') THEN (
        SELECT jsonb_object_agg(e.key, NULLIF(e.value, '"[masked]"'))
        FROM jsonb_each(
          CASE WHEN is_there THEN bemi.image_today(asked::regclass, h.after, h.place) ELSE h.after END
        ) e
      ) END
    FROM bemi.life_of(relations, keys) h
    ORDER BY h.version DESC;
END
$$;

COMMENT ON FUNCTION bemi.recorded_history(oid, text, text) IS
'returns the recorded versions of a row of a table that may be gone, newest first';

CREATE FUNCTION bemi.named_history(name text, path name[], primary_key text) RETURNS TABLE (
  version int,
  operation text,
  committed_at timestamptz,
  valid_from timestamptz,
  valid_to timestamptz,
  context jsonb,
  changed jsonb,
  "row" jsonb
)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM bemi.require_changes();
  RETURN QUERY SELECT * FROM bemi.recorded_history(bemi.named_table(name, path), name, $3);
END
$$;

COMMENT ON FUNCTION bemi.named_history(text, name[], text) IS
'for bemi.history(): returns the versions of a row of a table whose name is looked up in the schemas of a path';

CREATE FUNCTION bemi.history(relation text, primary_key text) RETURNS TABLE (
  version int,
  operation text,
  committed_at timestamptz,
  valid_from timestamptz,
  valid_to timestamptz,
  context jsonb,
  changed jsonb,
  "row" jsonb
)
LANGUAGE sql VOLATILE AS $$
  SELECT * FROM bemi.named_history($1, pg_catalog.current_schemas(false), $2)
$$;

COMMENT ON FUNCTION bemi.history(text, text) IS
'returns the versions of a row of a table, even one that is gone: SELECT * FROM bemi.history(''todo'', ''26'')';

CREATE FUNCTION bemi.history(relation text, primary_key numeric) RETURNS TABLE (
  version int,
  operation text,
  committed_at timestamptz,
  valid_from timestamptz,
  valid_to timestamptz,
  context jsonb,
  changed jsonb,
  "row" jsonb
)
LANGUAGE sql VOLATILE AS $$
  SELECT *
  FROM bemi.named_history($1, pg_catalog.current_schemas(false), pg_catalog.trim_scale($2)::pg_catalog.text)
$$;

COMMENT ON FUNCTION bemi.history(text, numeric) IS
'returns the versions of a row of a table whose key is a number: SELECT * FROM bemi.history(''todo'', 26)';

CREATE FUNCTION bemi.history(relation regclass, primary_key text) RETURNS TABLE (
  version int,
  operation text,
  committed_at timestamptz,
  valid_from timestamptz,
  valid_to timestamptz,
  context jsonb,
  changed jsonb,
  "row" jsonb
)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN QUERY SELECT * FROM bemi.recorded_history($1::oid, $1::text, $2);
END
$$;

COMMENT ON FUNCTION bemi.history(regclass, text) IS
'returns the versions of a row of a table, which may be gone';

CREATE FUNCTION bemi.history(relation regclass, primary_key numeric) RETURNS TABLE (
  version int,
  operation text,
  committed_at timestamptz,
  valid_from timestamptz,
  valid_to timestamptz,
  context jsonb,
  changed jsonb,
  "row" jsonb
)
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  SELECT * FROM bemi.history($1, trim_scale($2)::text)
$$;

COMMENT ON FUNCTION bemi.history(regclass, numeric) IS
'returns the versions of a row of a table whose key is a number';

CREATE FUNCTION bemi.history(base anyelement, primary_key numeric) RETURNS TABLE (
  version int,
  operation text,
  committed_at timestamptz,
  valid_from timestamptz,
  valid_to timestamptz,
  context jsonb,
  changed jsonb,
  "row" anyelement
)
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  SELECT * FROM bemi.history($1, trim_scale($2)::text)
$$;

COMMENT ON FUNCTION bemi.history(anyelement, numeric) IS
'returns the versions of a row whose key is a number, newest first';

CREATE FUNCTION bemi.was_empty(relation oid, place bigint, OUT place_then bigint, OUT committed_at timestamptz)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  SELECT e.place, e.at
  INTO place_then, committed_at
  FROM (
    SELECT t.place, t.committed_at AS at
    FROM bemi.truncates(was_empty.relation) t
    WHERE t.place < was_empty.place
    UNION ALL
    SELECT bemi.place(v.source, v.position), v.noted_at
    FROM (
      SELECT *, lag(o.is_tracked) OVER (ORDER BY o.source, o.position) AS was_tracked
      FROM bemi.table_versions o
      WHERE o.relation = was_empty.relation
    ) v
    WHERE v.is_tracked
      AND v.was_tracked IS NOT TRUE
      AND v.is_empty
      AND v.noted_at >= bemi.recorded_since()
      AND bemi.place(v.source, v.position) < was_empty.place
  ) e
  ORDER BY e.place DESC
  LIMIT 1;
END
$$;

COMMENT ON FUNCTION bemi.was_empty(oid, bigint) IS
'returns where and when a table was last empty before a place';

CREATE FUNCTION bemi.truncated_problem(relation oid, emptied bemi.key_change) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  was_empty record := bemi.was_empty(relation, emptied.place);
BEGIN
  RETURN CASE
    WHEN was_empty.place_then IS NULL THEN 'it had rows when its changes began to be recorded'
    WHEN EXISTS (
      SELECT FROM bemi.table_versions v
      WHERE v.relation = truncated_problem.relation
        AND NOT v.is_tracked
        AND bemi.place(v.source, v.position) BETWEEN was_empty.place_then AND emptied.place
    ) THEN 'it was not tracked all the time before'
    WHEN EXISTS (
      SELECT FROM bemi.changes c
      WHERE c.schema = ''
        AND c."table" = ''
        AND c.operation = 'GAP'
        AND c.committed_at BETWEEN was_empty.committed_at AND emptied.committed_at
    ) THEN 'changes before it are missing'
    WHEN EXISTS (
      SELECT FROM bemi.recorded_names(ARRAY[truncated_problem.relation]) n,
      LATERAL (
        SELECT FROM bemi.changes c
        WHERE c.schema = n.schema
          AND c."table" = n."table"
          AND c.primary_key IS NULL
          AND c.operation <> 'TRUNCATE'
          AND bemi.place(c.source, c.position) >= greatest(n.since, was_empty.place_then)
          AND bemi.place(c.source, c.position) < least(n.until, emptied.place)
        OFFSET 0
      ) c
    ) THEN 'the keys of some of its rows are not recorded' END;
END
$$;

COMMENT ON FUNCTION bemi.truncated_problem(oid, bemi.key_change) IS
'returns why the rows that a table had before a TRUNCATE are not all known, or NULL';

CREATE FUNCTION bemi.truncated_rows(relation regclass, source int, commit_position pg_lsn, sequence int)
RETURNS TABLE (primary_key text, image jsonb, place bigint)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  own_name text := bemi.qualified_name(relation::oid);
  emptied bemi.key_change;
  empty_from bigint;
  problem text;
BEGIN
  SELECT t.* INTO emptied
  FROM bemi.truncates(relation::oid) t
  WHERE (t.source, t.commit_position, t.sequence)
    = (truncated_rows.source, truncated_rows.commit_position, truncated_rows.sequence);
  IF emptied.operation IS NULL THEN
    RAISE EXCEPTION 'no TRUNCATE of % is recorded as % of the transaction that committed at %',
      relation, sequence, commit_position USING ERRCODE = 'undefined_object';
  END IF;
  problem := bemi.truncated_problem(relation::oid, emptied);
  IF problem IS NOT NULL THEN
    RAISE EXCEPTION 'the rows that % had before its TRUNCATE at % are not all recorded: %',
      relation, emptied.committed_at, problem USING
      ERRCODE = 'object_not_in_prerequisite_state',
      HINT = 'SELECT * FROM bemi.as_of(...) shows those that are recorded.';
  END IF;
  empty_from := (bemi.was_empty(relation::oid, emptied.place)).place_then;
  RETURN QUERY
    SELECT e.key,
      CASE WHEN e.omitted IS NULL THEN e.image ELSE bemi.whole(e.image, e.omitted, own_name, e.key) END,
      bemi.place(e.source, e.position)
    FROM (
      SELECT DISTINCT ON (e.key COLLATE "C") e.*
      FROM (
        SELECT c.*, k.key, CASE WHEN k.is_there AND c.operation <> 'DELETE' THEN c.after END AS image
        FROM bemi.recorded_names(ARRAY[relation::oid]) n
        JOIN bemi.changes c ON c.schema = n.schema
          AND c."table" = n."table"
          AND bemi.place(c.source, c.position) >= greatest(n.since, empty_from)
          AND bemi.place(c.source, c.position) < least(n.until, emptied.place),
        LATERAL (VALUES (c.primary_key, true), (c.old_primary_key, false)) AS k (key, is_there)
        WHERE k.key IS NOT NULL
      ) e
      ORDER BY e.key COLLATE "C", e.source DESC, e.commit_position DESC, e.sequence DESC
    ) e
    WHERE e.image IS NOT NULL;
END
$$;

COMMENT ON FUNCTION bemi.truncated_rows(regclass, int, pg_lsn, int) IS
'returns the rows that a table had before a TRUNCATE; an error if they are not all recorded';

CREATE OR REPLACE FUNCTION bemi.silent_references(relation regclass) RETURNS jsonb
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

CREATE OR REPLACE FUNCTION bemi.links(relation regclass, is_child boolean) RETURNS jsonb
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

CREATE OR REPLACE FUNCTION bemi.linked(links jsonb, image jsonb) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT ARRAY(
    SELECT concat(l ->> 'name', (
      SELECT jsonb_agg(image ->> c ORDER BY place)
      FROM jsonb_array_elements_text(l -> 'columns') WITH ORDINALITY e (c, place)))
    FROM jsonb_array_elements(links) l)
$$;

COMMENT ON FUNCTION bemi.linked(jsonb, jsonb) IS
'names of the rows that a row refers to by these links';

CREATE OR REPLACE FUNCTION bemi.equality(type oid) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  t pg_type;
  operator text;
BEGIN
  SELECT * INTO t FROM pg_type WHERE oid = type;
  IF t.typtype = 'd' THEN
    operator := bemi.equality(t.typbasetype);
    RETURN CASE operator WHEN '=' THEN 'OPERATOR(pg_catalog.=)' ELSE operator END;
  ELSIF t.typtype IN ('e', 'r', 'm') THEN
    RETURN 'OPERATOR(pg_catalog.=)';
  ELSIF t.typtype = 'c' THEN
    RETURN CASE WHEN NOT EXISTS (
      SELECT
      FROM pg_attribute
      WHERE attrelid = t.typrelid AND attnum > 0 AND NOT attisdropped AND bemi.equality(atttypid) IS NULL
    ) THEN 'OPERATOR(pg_catalog.=)' END;
  ELSIF t.typcategory = 'A' AND t.typelem <> 0 AND t.typlen = -1 THEN
    RETURN CASE WHEN bemi.equality(t.typelem) IS NOT NULL THEN 'OPERATOR(pg_catalog.=)' END;
  END IF;
  SELECT CASE
      WHEN n.nspname = 'pg_catalog' AND c.opcintype = type THEN o.oprname
      ELSE format('OPERATOR(%I.%s)', n.nspname, o.oprname)
    END INTO operator
  FROM pg_opclass c
    JOIN pg_am m ON m.oid = c.opcmethod
    JOIN pg_amop a ON a.amopfamily = c.opcfamily
      AND a.amoplefttype = c.opcintype
      AND a.amoprighttype = c.opcintype
      AND a.amopstrategy = CASE m.amname WHEN 'btree' THEN 3 ELSE 1 END
    JOIN pg_operator o ON o.oid = a.amopopr
    JOIN pg_namespace n ON n.oid = o.oprnamespace
  WHERE m.amname IN ('btree', 'hash')
    AND c.opcdefault
    AND (c.opcintype = type
      OR EXISTS (
        SELECT
        FROM pg_cast k
        WHERE k.castsource = type AND k.casttarget = c.opcintype AND k.castmethod = 'b' AND k.castcontext = 'i'))
  ORDER BY c.opcintype = type DESC, m.amname
  LIMIT 1;
  RETURN operator;
END
$$;

COMMENT ON FUNCTION bemi.equality(oid) IS
'the operator by which values of a type are equal, or NULL if it has none';

CREATE OR REPLACE FUNCTION bemi.literal_kind(type oid) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE
    WHEN t.oid IN ('json'::regtype, 'jsonb'::regtype) THEN 'json'
    WHEN t.oid = 'money'::regtype THEN 'money'
    WHEN EXISTS (
      SELECT
      FROM pg_depend d
        JOIN pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass
      WHERE d.classid = 'pg_type'::regclass
        AND d.objid = t.oid
        AND d.deptype = 'e'
        AND e.extname = 'hstore'
        AND t.typname = 'hstore') THEN 'hstore'
    WHEN t.typtype = 'c' OR t.typcategory = 'A' THEN 'made'
    ELSE 'plain' END
  FROM pg_type t
  WHERE t.oid = type
$$;

COMMENT ON FUNCTION bemi.literal_kind(oid) IS
'how a literal of a type is made of the JSON of a value';

CREATE OR REPLACE FUNCTION bemi.base_type(type oid) RETURNS oid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  WITH RECURSIVE bases AS (
    SELECT t.oid, t.typtype, t.typbasetype
    FROM pg_type t
    WHERE t.oid = type
    UNION ALL
    SELECT t.oid, t.typtype, t.typbasetype
    FROM bases b
      JOIN pg_type t ON t.oid = b.typbasetype
    WHERE b.typtype = 'd'
  )
  SELECT oid FROM bases WHERE typtype <> 'd'
$$;

COMMENT ON FUNCTION bemi.base_type(oid) IS
'the type under a domain; of another type, itself';

CREATE FUNCTION bemi.undo_columns(relation regclass) RETURNS TABLE (
  attname name, attnum int2, atttypid oid, atttypmod int, attgenerated "char", attidentity "char", attnotnull boolean,
  type oid, kind text, is_looked_up boolean
)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT a.attname, a.attnum, a.atttypid, a.atttypmod, a.attgenerated, a.attidentity, a.attnotnull,
    b.type, bemi.literal_kind(b.type), y.typname ~ '^_?(reg|xml$|money$)'
  FROM pg_attribute a,
    LATERAL (SELECT bemi.base_type(a.atttypid) AS type) b
    LEFT JOIN pg_type y ON y.oid = b.type
  WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped
$$;

COMMENT ON FUNCTION bemi.undo_columns(regclass) IS
'the columns of a table, and how literals of their types are made';

CREATE FUNCTION bemi.undo_table_columns(relation regclass, ignored text[], masked text[]) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  WITH col AS (SELECT * FROM bemi.undo_columns(relation))
  SELECT jsonb_build_object(
    'columns', (
      SELECT jsonb_object_agg(attname, jsonb_build_object(
        'place', attnum,
        'type', CASE kind WHEN 'money' THEN 'numeric::money' ELSE format_type(type, -1) END,
        'kind', kind,
        'equality', bemi.equality(atttypid),
        'type_oid', type,
        'is_ignored', attname = ANY (ignored),
        'is_not_null', attnotnull))
      FROM col),
    'generated', ARRAY(SELECT attname FROM col WHERE attgenerated <> ''),
    'always', ARRAY(SELECT attname FROM col WHERE attidentity = 'a'),
    'compared', ARRAY(
      SELECT attname
      FROM col
      WHERE attname <> ALL (ignored) AND attname <> ALL (masked) AND attgenerated <> 'v'),
    -- A value that is put into these may come out otherwise: rounded, or read by an input function that knows other
    -- values today.
    'checked', ARRAY(
      SELECT attname
      FROM col
      WHERE attgenerated = '' AND (type <> atttypid OR atttypmod <> -1 OR type >= 16384 OR is_looked_up)),
    'looked_up', ARRAY(SELECT attname FROM col WHERE type >= 16384 OR is_looked_up),
    -- These may be computed otherwise today.
    'computed', ARRAY(SELECT attname FROM col WHERE attgenerated = 's'),
    -- WAL has these as text, whatever cast to json they have.
    'as_text', (
      SELECT string_agg(
        format(' || pg_catalog.jsonb_build_object(%L, t.%I::pg_catalog.text)', attname, attname), '')
      FROM col
      WHERE kind = 'plain'
        AND type >= 16384
        AND EXISTS (
          SELECT
          FROM pg_cast
          WHERE castsource = type AND casttarget = 'json'::regtype AND castmethod = 'f')),
    -- The row where jsonb cannot hold some of its values.
    'by_column', (
      SELECT format('(SELECT jsonb_object_agg(k, v) FROM (VALUES %s) e (k, v))', string_agg(format(
        CASE WHEN is_json THEN '(%L, bemi.jsonb_or_text(to_json(t.%I)))' ELSE '(%L, to_jsonb(t.%I))' END,
        attname, attname), ', '))
      FROM (SELECT attname, kind = 'made' OR type = 'json'::regtype AS is_json FROM col) c
      HAVING bool_or(is_json)))
$$;

COMMENT ON FUNCTION bemi.undo_table_columns(regclass, text[], text[]) IS
'what undoing changes needs to know of the columns of a table';

CREATE OR REPLACE FUNCTION bemi.undo_table(relation regclass) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  WITH rules AS (
    SELECT bemi.table_rules(relation, 'ignore') AS ignored,
      -- What a table above masks is masked in its partitions too.
      ARRAY(
        SELECT m
        FROM (SELECT relation AS member UNION SELECT relid FROM pg_partition_ancestors(relation)) a,
          unnest(bemi.table_rules(a.member, 'mask')) m) AS masked
  ), key AS (
    SELECT i.indexrelid, a.attname, k.place
    FROM pg_index i,
      unnest((i.indkey::int2[])[0:i.indnkeyatts - 1]) WITH ORDINALITY k (number, place)
      JOIN pg_attribute a ON a.attnum = k.number
    WHERE i.indrelid = relation
      AND a.attrelid = relation
      AND i.indexrelid = (
        SELECT x.indexrelid
        FROM pg_index x
        WHERE x.indrelid = relation AND (x.indisprimary AND x.indisvalid OR x.indisreplident)
        ORDER BY x.indisprimary DESC
        LIMIT 1)
  )
  SELECT bemi.undo_table_columns(relation, rules.ignored, rules.masked) || jsonb_build_object(
    'relation', relation,
    'oid', c.oid,
    'name', format('%I.%I', n.nspname, c.relname),
    'source', CASE WHEN c.relhassubclass THEN 'ONLY ' ELSE '' END || format('%I.%I', n.nspname, c.relname),
    'key', COALESCE((SELECT jsonb_agg(attname ORDER BY place) FROM key), '[]'),
    'masked', rules.masked,
    'needs', bemi.links(relation, true),
    'offers', bemi.links(relation, false),
    'references', bemi.silent_references(relation),
    -- Its columns had the names of today all the time.
    'is_as_ever', bemi.is_as_ever(relation::oid),
    'has_triggers', c.relhasrules OR EXISTS (
      SELECT
      FROM pg_trigger
      WHERE tgrelid = relation
        AND NOT tgisinternal
        AND tgenabled <> 'D'
        AND tgfoid <> 'bemi.emit_context()'::regprocedure)
  )
  FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace,
    rules
  WHERE c.oid = relation
$$;

COMMENT ON FUNCTION bemi.undo_table(regclass) IS
'what undoing changes needs to know of a table';

CREATE TYPE bemi.undo AS (
  -- Their order: 1 is the newest.
  number bigint,
  relation regclass,
  operation text,
  primary_key text,
  before jsonb,
  after jsonb,
  -- The columns that an UPDATE is to set.
  changed text[],
  -- What names the row, among all rows of all tables and in a WHERE clause, after the change and before it.
  row_after text,
  row_before text,
  where_after text,
  where_before text,
  -- Columns that were masked, and stay as they are.
  kept text[],
  detail text,
  -- Why it cannot be undone, if it cannot.
  problem text,
  transaction_id bigint,
  commit_position pg_lsn,
  sequence int
);

CREATE OR REPLACE FUNCTION bemi.key_text(key jsonb, image jsonb) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF jsonb_array_length(key) = 1 THEN
    RETURN image ->> (key ->> 0);
  END IF;
  RETURN (
    SELECT CASE WHEN bool_and(image ? k) THEN jsonb_agg(image ->> k ORDER BY place) END
    FROM jsonb_array_elements_text(key) WITH ORDINALITY e (k, place));
END
$$;

COMMENT ON FUNCTION bemi.key_text(jsonb, jsonb) IS
'the key of a row as text';

CREATE FUNCTION bemi.made_text(type oid, value jsonb) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF type = 'money'::regtype::oid THEN
    RETURN (value #>> '{}'::text[])::money::numeric;
  END IF;
  RETURN bemi.value_text(type, value);
END
$$;

COMMENT ON FUNCTION bemi.made_text(oid, jsonb) IS
'the text of a value, made of its JSON';

CREATE OR REPLACE FUNCTION bemi.literal(col jsonb, value jsonb) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF value IS NULL OR value = 'null' THEN
    -- JSON has a null of its own, which looks the same.
    RETURN CASE
      WHEN col ->> 'kind' = 'json' AND (col -> 'is_not_null')::boolean THEN format('''null''::%s', col ->> 'type')
      ELSE 'NULL' END;
  END IF;
  RETURN format('%L::%s',
    CASE col ->> 'kind'
      WHEN 'plain' THEN value #>> '{}'
      WHEN 'json' THEN value::text
      ELSE bemi.made_text((col ->> 'type_oid')::oid, value) END,
    col ->> 'type');
END
$$;

COMMENT ON FUNCTION bemi.literal(jsonb, jsonb) IS
'a value as SQL, made of its JSON';

CREATE OR REPLACE FUNCTION bemi.is_still(name text, col jsonb, value jsonb) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF value IS NULL OR value = 'null' THEN
    RETURN CASE col ->> 'kind'
      WHEN 'json' THEN
        format('COALESCE(pg_catalog.to_jsonb(%I), ''null'') OPERATOR(pg_catalog.=) ''null''::jsonb', name)
      -- Of a composite value, IS NULL would ask for its members.
      WHEN 'made' THEN format('%I IS NOT DISTINCT FROM NULL', name)
      ELSE format('%I IS NULL', name) END;
  ELSIF col ->> 'equality' IS NULL THEN
    RETURN format('pg_catalog.to_jsonb(%I) OPERATOR(pg_catalog.=) %L::jsonb', name, value);
  END IF;
  RETURN format('%I %s %s', name, col ->> 'equality', bemi.literal(col, value));
END
$$;

COMMENT ON FUNCTION bemi.is_still(text, jsonb, jsonb) IS
'the condition that a column has a value, as SQL';

CREATE OR REPLACE FUNCTION bemi.where_key(t jsonb, image jsonb) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  name text := t -> 'key' ->> 0;
BEGIN
  IF jsonb_array_length(t -> 'key') = 1 THEN
    RETURN bemi.is_still(name, t -> 'columns' -> name, image -> name);
  END IF;
  RETURN (
    SELECT string_agg(bemi.is_still(k, t -> 'columns' -> k, image -> k), ' AND ' ORDER BY place)
    FROM jsonb_array_elements_text(t -> 'key') WITH ORDINALITY e (k, place));
END
$$;

COMMENT ON FUNCTION bemi.where_key(jsonb, jsonb) IS
'the condition that a row has the key of an image, as SQL';

CREATE FUNCTION bemi.undo_statement(t jsonb, u bemi.undo, now jsonb) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  cols jsonb := t -> 'columns';
  sets text;
  guards text;
BEGIN
  IF u.operation = 'CREATE' THEN
    RETURN format('DELETE FROM %s WHERE %s;', t ->> 'source', u.where_after);
  ELSIF u.operation = 'UPDATE' THEN
    SELECT
      string_agg(format('%I = %s', c, CASE
        -- An ignored column may have changed since: then it stays as it is.
        WHEN (cols -> c -> 'is_ignored')::boolean THEN format('CASE WHEN %s THEN %s ELSE %I END',
          bemi.is_still(c, cols -> c, now -> c), bemi.literal(cols -> c, u.before -> c), c)
        ELSE bemi.literal(cols -> c, u.before -> c) END), ', ' ORDER BY place),
      string_agg(' AND ' || bemi.is_still(c, cols -> c, now -> c), '' ORDER BY place)
        FILTER (WHERE NOT (t -> 'key') ? c AND NOT (cols -> c -> 'is_ignored')::boolean)
    INTO sets, guards
    FROM (SELECT n AS c, (cols -> n -> 'place')::int AS place FROM unnest(u.changed) n) e;
    RETURN format('UPDATE %s SET %s WHERE %s%s;', t ->> 'source', sets, u.where_after, guards);
  END IF;
  SELECT
    string_agg(quote_ident(c), ', ' ORDER BY place),
    string_agg(bemi.literal(cols -> c, u.before -> c), ', ' ORDER BY place)
  INTO sets, guards
  FROM (SELECT key AS c, (value -> 'place')::int AS place FROM jsonb_each(cols)) e
  WHERE u.before ? c AND NOT (t -> 'generated') ? c;
  RETURN format('INSERT INTO %s (%s)%s VALUES (%s);', t ->> 'name', sets,
    CASE WHEN t -> 'always' <> '[]' THEN ' OVERRIDING SYSTEM VALUE' ELSE '' END, guards);
END
$$;

COMMENT ON FUNCTION bemi.undo_statement(jsonb, bemi.undo, jsonb) IS
'the statement that undoes a change';

CREATE FUNCTION bemi.undo_image(t jsonb, image jsonb, "position" bigint) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN CASE
    WHEN (t -> 'is_as_ever')::boolean THEN image
    ELSE bemi.image_today((t ->> 'oid')::oid::regclass, image, "position") END;
END
$$;

COMMENT ON FUNCTION bemi.undo_image(jsonb, jsonb, bigint) IS
'an image of a row, recorded at a position of the log, as the table of today would have it';

CREATE FUNCTION bemi.undo_problems(t jsonb, image jsonb, place bigint) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  col record;
  result jsonb := '{}';
BEGIN
  IF NOT (t -> 'is_as_ever')::boolean THEN
    BEGIN
      -- In a statement of its own, so that what is looked up for it is kept.
      result := COALESCE(bemi.image_problems((t ->> 'oid')::oid::regclass, image, place), '{}');
      IF result <> '{}' THEN
        -- Generated columns need not be read.
        result := result - ARRAY(SELECT jsonb_array_elements_text(t -> 'generated'));
      END IF;
      RETURN result;
    EXCEPTION WHEN insufficient_privilege THEN
      image := bemi.undo_image(t, image, place);
    END;
  END IF;
  FOR col IN
    SELECT r AS name, image -> r AS value, (t #>> ARRAY['columns', r, 'type_oid'])::oid AS type
    FROM jsonb_array_elements_text(t -> 'looked_up') r
    WHERE image -> r NOT IN ('null', '"[masked]"')
  LOOP
    BEGIN
      PERFORM bemi.value_text(col.type, col.value);
    EXCEPTION
      WHEN data_exception OR undefined_object OR undefined_table OR undefined_function OR ambiguous_function
        OR invalid_schema_name OR datatype_mismatch OR syntax_error
      THEN
        result := result || jsonb_build_object(col.name, SQLERRM);
      WHEN insufficient_privilege THEN
        NULL;
    END;
  END LOOP;
  RETURN result;
END
$$;

COMMENT ON FUNCTION bemi.undo_problems(jsonb, jsonb, bigint) IS
'the columns of an image whose values can no longer be read as they were, and why';

CREATE FUNCTION bemi.quoted(names text[]) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT string_agg(quote_ident(n), ', ') FROM unnest(names) n
$$;

COMMENT ON FUNCTION bemi.quoted(text[]) IS
'names as a list in SQL';

CREATE FUNCTION bemi.column_problem(
  t jsonb, u bemi.undo, omitted jsonb, OUT problem text, OUT code text, OUT more text, OUT hint text
)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  cols jsonb := t -> 'columns';
  names text[];
BEGIN
  code := 'object_not_in_prerequisite_state';
  hint := 'Narrow the selection, and fix this row by hand.';
  IF u.operation = 'UPDATE' THEN
    names := ARRAY(SELECT c FROM unnest(u.changed) c WHERE NOT cols ? c);
    IF names <> '{}' THEN
      problem := format('the table no longer has the column %s', bemi.quoted(names));
      code := 'undefined_column';
      hint := 'Add the column again, or narrow the selection, and fix this row by hand.';
      RETURN;
    END IF;
    names := ARRAY(SELECT c FROM unnest(u.changed) c WHERE (t -> 'always') ? c);
    IF names <> '{}' THEN
      problem := format('the column %s is GENERATED ALWAYS AS IDENTITY and cannot be set', quote_ident(names[1]));
      code := 'feature_not_supported';
      hint := format('ALTER TABLE %s ALTER %I SET GENERATED BY DEFAULT; makes it possible.', t ->> 'name', names[1]);
      RETURN;
    END IF;
  END IF;
  names := ARRAY(SELECT k FROM jsonb_object_keys(omitted) k WHERE cols ? k AND NOT (t -> 'generated') ? k);
  IF names <> '{}' THEN
    problem := format('the value of %s was omitted', bemi.quoted(names));
    more := omitted;
  ELSIF u.operation <> 'UPDATE' THEN
    names := bemi.masked_in(t, u);
    IF names <> '{}' THEN
      problem := format('the value of %s was masked', bemi.quoted(names));
      hint := 'No record has it. Narrow the selection, and insert this row by hand.';
    END IF;
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.column_problem(jsonb, bemi.undo, jsonb) IS
'why the columns of a table keep a change from being undone';

CREATE FUNCTION bemi.undo_problem(
  t jsonb, u bemi.undo, omitted jsonb, OUT problem text, OUT code text, OUT more text, OUT hint text
)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  key jsonb := t -> 'key';
  image jsonb := CASE WHEN u.operation IN ('CREATE', 'UPDATE') THEN u.after ELSE u.before END;
BEGIN
  code := 'object_not_in_prerequisite_state';
  hint := 'Narrow the selection, and fix this row by hand.';
  IF u.primary_key IS NULL OR omitted ? 'primary_key' THEN
    problem := 'nothing names the row';
    hint := 'The table had no key, or one that is too long to be recorded. ' || hint;
  ELSIF omitted ?| '{before,after}' THEN
    problem := 'bemi.changes could not hold its images';
  ELSIF u.operation = 'UPDATE' AND NOT u.before ?& ARRAY(SELECT jsonb_object_keys(u.after))
    OR u.operation <> 'CREATE'
      AND NOT EXISTS (SELECT FROM jsonb_object_keys(u.before) k WHERE NOT key ? k)
      AND (u.before = '{}' OR EXISTS (
        SELECT
        FROM jsonb_object_keys(t -> 'columns') k
        WHERE NOT key ? k AND NOT (t -> 'generated') ? k))
  THEN
    problem := 'the row before it was not recorded';
    hint := format('From now on it is with SELECT bemi.track(%L); which sets REPLICA IDENTITY FULL. %s',
      t ->> 'name', hint);
  ELSIF key = '[]'
    OR bemi.key_text(key, image) IS DISTINCT FROM u.primary_key
      AND (jsonb_array_length(key) = 1
        OR u.primary_key NOT LIKE '[%]'
        OR bemi.key_text(key, image)::jsonb IS DISTINCT FROM u.primary_key::jsonb)
  THEN
    problem := 'the table no longer has the key by which the row was recorded';
    hint := 'Give the table that primary key again, or narrow the selection, and fix this row by hand.';
  ELSIF u.operation <> 'CREATE' THEN
    SELECT c.* INTO problem, code, more, hint FROM bemi.column_problem(t, u, omitted) c;
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.undo_problem(jsonb, bemi.undo, jsonb) IS
'why a change cannot be undone, whatever the row is like now';

CREATE FUNCTION bemi.masked_in(t jsonb, u bemi.undo) RETURNS text[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT ARRAY(
    SELECT c
    FROM jsonb_array_elements_text(t -> 'masked') c
    WHERE '"[masked]"' IN (u.before -> c, u.after -> c) AND NOT (t -> 'generated') ? c)
$$;

COMMENT ON FUNCTION bemi.masked_in(jsonb, bemi.undo) IS
'the columns that are masked in an image of a change';

CREATE FUNCTION bemi.plan_undo(t jsonb, u bemi.undo, omitted jsonb, problems jsonb, is_skipping boolean)
RETURNS bemi.undo
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  key jsonb := t -> 'key';
  names text[];
  refused record;
BEGIN
  u.after := u.after - ARRAY(SELECT jsonb_object_keys(omitted));
  IF u.operation = 'UPDATE' THEN
    u.changed := ARRAY(
      SELECT b.key
      FROM jsonb_each(u.before) b
      WHERE b.value::text IS DISTINCT FROM (u.after -> b.key)::text AND NOT omitted ? b.key);
  END IF;
  SELECT * INTO refused FROM bemi.undo_problem(t, u, omitted);
  IF refused.problem IS NOT NULL AND NOT is_skipping THEN
    PERFORM bemi.refuse_undo(t ->> 'name', u, refused.problem, refused.code, refused.more, refused.hint);
  END IF;
  u.problem := COALESCE(refused.problem, (
    SELECT string_agg(format('what was recorded of %I cannot be read: %s', p.key, p.value), '. ')
    FROM jsonb_each_text(problems) p));
  IF u.operation = 'UPDATE' THEN
    IF t -> 'masked' <> '[]' THEN
      u.changed := ARRAY(
        SELECT c
        FROM unnest(u.changed) c
        WHERE NOT (t -> 'masked') ? c OR '"[masked]"' NOT IN (u.before -> c, u.after -> c));
      u.kept := nullif(bemi.masked_in(t, u), '{}');
    END IF;
    u.changed := ARRAY(SELECT c FROM unnest(u.changed) c WHERE NOT (t -> 'generated') ? c);
    u.detail := 'masked, and left as they are: ' || bemi.quoted(u.kept);
  ELSIF u.operation <> 'CREATE' THEN
    names := ARRAY(SELECT k FROM jsonb_object_keys(u.before) k WHERE NOT (t -> 'columns') ? k);
    u.detail := 'no longer columns, and left out: ' || bemi.quoted(names);
  END IF;
  IF u.operation IN ('CREATE', 'UPDATE') THEN
    u.row_after := concat(t ->> 'oid', ':', bemi.key_text(key, u.after));
  END IF;
  IF u.operation <> 'CREATE' THEN
    u.row_before := concat(t ->> 'oid', ':', bemi.key_text(key, u.before));
  END IF;
  IF u.problem IS NULL THEN
    BEGIN
      u.where_after := CASE WHEN u.row_after IS NOT NULL THEN bemi.where_key(t, u.after) END;
      u.where_before := CASE
        WHEN u.row_before = u.row_after THEN u.where_after
        WHEN u.row_before IS NOT NULL THEN bemi.where_key(t, u.before) END;
    EXCEPTION WHEN data_exception OR undefined_object OR undefined_table OR datatype_mismatch THEN
      u.problem := 'its key cannot be read: ' || SQLERRM;
    END;
  END IF;
  RETURN u;
END
$$;

COMMENT ON FUNCTION bemi.plan_undo(jsonb, bemi.undo, jsonb, jsonb, boolean) IS
'how a change is to be undone; an error if it cannot be';

CREATE FUNCTION bemi.refuse_undo("table" text, u bemi.undo, problem text, code text, more text, hint text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  problem := format('bemi cannot undo the %s of the row %s of %s, recorded at %s (sequence %s): %s',
    u.operation, COALESCE(u.primary_key, 'without a key'), "table", u.commit_position, u.sequence, problem);
  IF more IS NOT NULL THEN
    RAISE EXCEPTION USING MESSAGE = problem, ERRCODE = code, DETAIL = more, HINT = hint;
  END IF;
  RAISE EXCEPTION USING MESSAGE = problem, ERRCODE = code, HINT = hint;
END
$$;

COMMENT ON FUNCTION bemi.refuse_undo(text, bemi.undo, text, text, text, text) IS
'raises the error that a change cannot be undone';

CREATE OR REPLACE FUNCTION bemi.check_reading() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF current_setting('transaction_isolation') NOT LIKE 'read %' THEN
    RAISE EXCEPTION 'bemi cannot see what is recorded now in a transaction that is %',
      upper(current_setting('transaction_isolation'))
    USING
      ERRCODE = 'active_sql_transaction', HINT = 'BEGIN ISOLATION LEVEL READ COMMITTED;';
  ELSIF to_regclass('bemi.changes') IS NOT NULL AND NOT has_table_privilege('bemi.changes', 'SELECT') THEN
    RAISE EXCEPTION 'permission denied for table bemi.changes' USING
      ERRCODE = 'insufficient_privilege', HINT = format('GRANT SELECT ON bemi.changes TO %I;', current_user);
  END IF;
  PERFORM bemi.sync();
END
$$;

COMMENT ON FUNCTION bemi.check_reading() IS
'returns when everything that was committed before can be read in bemi.changes';

CREATE FUNCTION bemi.rows_to_undo(u bemi.undo, source int, is_skipping boolean)
RETURNS TABLE (primary_key text, image jsonb, place bigint, problem text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
    SELECT r.primary_key, r.image, r.place, NULL::text
    FROM bemi.truncated_rows(u.relation, rows_to_undo.source, u.commit_position, u.sequence) r;
EXCEPTION WHEN object_not_in_prerequisite_state THEN
  IF NOT is_skipping THEN
    RAISE;
  END IF;
  RETURN QUERY SELECT NULL::text, NULL::jsonb, NULL::bigint, SQLERRM;
END
$$;

COMMENT ON FUNCTION bemi.rows_to_undo(bemi.undo, int, boolean) IS
'the rows that a TRUNCATE took, or why they are not known';

CREATE FUNCTION bemi.selected_keys(
  conditions text, transaction_id bigint, context jsonb, relation regclass, primary_key text, since timestamptz,
  until timestamptz
) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
  result jsonb := '[]';
  named record;
BEGIN
  IF relation IS NOT NULL THEN
    RETURN (SELECT jsonb_agg(jsonb_build_object('key', k)) FROM unnest(bemi.recorded_keys(relation, primary_key)) k);
  END IF;
  -- Each table has its own way to write a key; in some it cannot be one.
  FOR named IN EXECUTE
    'SELECT DISTINCT c.schema, c."table"
    FROM bemi.changes c
    WHERE c.operation IN (''CREATE'', ''UPDATE'', ''DELETE'')' || conditions
    USING transaction_id, context, relation, NULL::jsonb, since, until
  LOOP
    BEGIN
      result := result || (
        SELECT jsonb_agg(jsonb_build_object('schema', named.schema, 'table', named."table", 'key', k))
        FROM unnest(bemi.recorded_keys(to_regclass(format('%I.%I', named.schema, named."table")), primary_key)) k);
    EXCEPTION WHEN data_exception THEN
      CONTINUE;
    END;
  END LOOP;
  RETURN result;
END
$$;

COMMENT ON FUNCTION bemi.selected_keys(text, bigint, jsonb, regclass, text, timestamptz, timestamptz) IS
'the spellings of a key in the changes of a selection';

CREATE FUNCTION bemi.undone_table(
  c record, OUT relation regclass, OUT since bigint, OUT until bigint, OUT problem text
)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  is_another boolean;
BEGIN
  SELECT t.relation, t.since, t.until, t.is_another INTO relation, since, until, is_another
  FROM bemi.table_at(c.schema, c."table", c.place, c.relation) t;
  problem := CASE
    WHEN is_another THEN 'they are of an earlier table of that name'
    WHEN relation IS NULL THEN 'it is no longer there' END;
END
$$;

COMMENT ON FUNCTION bemi.undone_table(record) IS
'the table that a recorded change is about, and between which places it has had that name';

CREATE FUNCTION bemi.selection_conditions(
  transaction_id bigint, context jsonb, relation regclass, since timestamptz, until timestamptz
) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT concat(
    CASE WHEN transaction_id IS NOT NULL THEN ' AND c.transaction_id = $1' END,
    CASE WHEN context IS NOT NULL THEN ' AND c.context @> $2' END,
    CASE WHEN relation IS NOT NULL THEN
      ' AND (c.schema, c."table") IN (SELECT n.schema, n."table" FROM bemi.table_names($3) n)
        AND (SELECT t.relation
          FROM bemi.table_at(c.schema, c."table", bemi.place(c.source, c."position"), c.relation) t)
          IN (SELECT member FROM bemi.tree($3) member)' END,
    CASE WHEN since IS NOT NULL THEN ' AND c.committed_at >= $5' END,
    CASE WHEN until IS NOT NULL THEN ' AND c.committed_at < $6' END)
$$;

COMMENT ON FUNCTION bemi.selection_conditions(bigint, jsonb, regclass, timestamptz, timestamptz) IS
'the conditions of a selection as SQL';

CREATE FUNCTION bemi.selected_key_condition(relation regclass) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE WHEN relation IS NOT NULL THEN
    ' AND (c.primary_key = ANY (ARRAY(SELECT k ->> ''key'' FROM jsonb_array_elements($4) k))
      OR c.old_primary_key = ANY (ARRAY(SELECT k ->> ''key'' FROM jsonb_array_elements($4) k)))'
  ELSE
    ' AND EXISTS (
      SELECT
      FROM jsonb_to_recordset($4) AS k (schema text, "table" text, key text)
      WHERE k.schema = c.schema AND k."table" = c."table" AND k.key IN (c.primary_key, c.old_primary_key))'
  END
$$;

COMMENT ON FUNCTION bemi.selected_key_condition(regclass) IS
'the condition that changes have one of the keys of a selection, as SQL';

CREATE FUNCTION bemi.refuse_ambiguous(
  conditions text, transaction_id bigint, context jsonb, relation regclass, keys jsonb, since timestamptz,
  until timestamptz
) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  times text;
BEGIN
  EXECUTE 'SELECT string_agg(DISTINCT c.committed_at::text, '', '') FROM bemi.changes c WHERE true' || conditions
    INTO times USING transaction_id, context, relation, keys, since, until;
  RAISE EXCEPTION 'several transactions had the id %', transaction_id USING
    ERRCODE = 'ambiguous_parameter',
    DETAIL = format('They committed at %s.', times),
    HINT = 'Give since and until too.';
END
$$;

COMMENT ON FUNCTION bemi.refuse_ambiguous(text, bigint, jsonb, regclass, jsonb, timestamptz, timestamptz) IS
'raises the error that several transactions had an id';

CREATE FUNCTION bemi.selection(
  transaction_id bigint, context jsonb, relation regclass, primary_key text, since timestamptz, until timestamptz,
  OUT conditions text, OUT keys jsonb
)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
BEGIN
  conditions := bemi.selection_conditions(transaction_id, context, relation, since, until);
  IF conditions = '' AND primary_key IS NULL THEN
    RAISE EXCEPTION 'nothing says which changes are to be undone' USING
      ERRCODE = 'invalid_parameter_value',
      HINT = 'Give one or more of transaction_id, context, relation, primary_key, since and until.';
  ELSIF primary_key IS NOT NULL THEN
    keys := bemi.selected_keys(conditions, transaction_id, context, relation, primary_key, since, until);
    conditions := conditions || bemi.selected_key_condition(relation);
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.selection(bigint, jsonb, regclass, text, timestamptz, timestamptz) IS
'the conditions of a selection as SQL, and its keys; an error if there are no conditions';

CREATE FUNCTION bemi.undo_of(c record, relation regclass) RETURNS bemi.undo
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  u bemi.undo;
BEGIN
  u.relation := relation;
  u.operation := c.operation;
  u.primary_key := c.primary_key;
  u.transaction_id := c.transaction_id;
  u.commit_position := c.commit_position;
  u.sequence := c.sequence;
  RETURN u;
END
$$;

COMMENT ON FUNCTION bemi.undo_of(record, regclass) IS
'the undo of a recorded change, without its plan';

CREATE FUNCTION bemi.undos_of_truncate(t jsonb, u bemi.undo, source int, is_skipping boolean) RETURNS SETOF bemi.undo
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  r record;
BEGIN
  u.after := '{}';
  FOR r IN SELECT * FROM bemi.rows_to_undo(u, source, is_skipping) LOOP
    u.primary_key := r.primary_key;
    u.problem := r.problem;
    u.before := bemi.undo_image(t, r.image, r.place);
    IF u.problem IS NULL THEN
      RETURN NEXT bemi.plan_undo(t, u, '{}'::jsonb, bemi.undo_problems(t, r.image, r.place), is_skipping);
    ELSE
      RETURN NEXT u;
    END IF;
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.undos_of_truncate(jsonb, bemi.undo, int, boolean) IS
'how the rows that a TRUNCATE took are put back';

CREATE FUNCTION bemi.refuse_table(problem text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RAISE EXCEPTION 'bemi cannot undo changes of the table %', problem USING
    ERRCODE = 'undefined_table',
    HINT = 'Name another table as relation, or narrow the selection.';
END
$$;

COMMENT ON FUNCTION bemi.refuse_table(text) IS
'raises the error that changes of a table cannot be undone';

CREATE FUNCTION bemi.undos(
  transaction_id bigint, context jsonb, relation regclass, primary_key text, since timestamptz, until timestamptz,
  is_skipping boolean
) RETURNS SETOF bemi.undo
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
  selection record := bemi.selection(transaction_id, context, relation, primary_key, since, until);
  c record;
  -- The table that the last change was about, between which places it has had that name, and the transaction.
  named record;
  u bemi.undo;
  tables jsonb := '{}';
  t jsonb;
  number bigint := 0;
BEGIN
  FOR c IN EXECUTE
    'SELECT c.*, bemi.place(c.source, c."position") AS place
    FROM bemi.changes c
    WHERE c.operation IN (''CREATE'', ''UPDATE'', ''DELETE'', ''TRUNCATE'')' || selection.conditions
    || ' ORDER BY c.source DESC, c.commit_position DESC, c.sequence DESC'
    USING transaction_id, context, relation, selection.keys, since, until
  LOOP
    IF number = 0 THEN
      SELECT c.source, c.commit_position, c.schema, c."table", c.relation AS recorded, n.* INTO named
      FROM bemi.undone_table(c) n;
    ELSIF transaction_id IS NOT NULL AND (c.source, c.commit_position) <> (named.source, named.commit_position) THEN
      PERFORM bemi.refuse_ambiguous(
        selection.conditions, transaction_id, context, relation, selection.keys, since, until);
    ELSIF (c.schema, c."table", c.relation) IS DISTINCT FROM (named.schema, named."table", named.recorded)
      OR c.place < named.since
      OR c.place >= named.until
    THEN
      SELECT c.source, c.commit_position, c.schema, c."table", c.relation AS recorded, n.* INTO named
      FROM bemi.undone_table(c) n;
    END IF;
    number := number + 1;
    u := bemi.undo_of(c, named.relation);
    u.number := number;
    IF named.problem IS NOT NULL THEN
      u.problem := format('%I.%I: %s', c.schema, c."table", named.problem);
      IF NOT is_skipping THEN
        PERFORM bemi.refuse_table(u.problem);
      END IF;
      RETURN NEXT u;
      CONTINUE;
    ELSIF t ->> 'oid' IS DISTINCT FROM u.relation::oid::text THEN
      t := COALESCE(tables -> u.relation::oid::text, bemi.undo_table(u.relation));
      tables := tables || jsonb_build_object(u.relation::oid::text, t);
    END IF;
    IF c.operation = 'TRUNCATE' THEN
      FOR u IN SELECT * FROM bemi.undos_of_truncate(t, u, c.source, is_skipping) LOOP
        u.number := number;
        number := number + 1;
        RETURN NEXT u;
      END LOOP;
      CONTINUE;
    END IF;
    u.before := bemi.undo_image(t, c.before, c.place);
    u.after := bemi.undo_image(t, c.after, c.place);
    RETURN NEXT bemi.plan_undo(t, u, COALESCE(bemi.keys_today(u.relation, c.omitted, c.place), '{}'),
      bemi.undo_problems(t, c.before, c.place) || bemi.undo_problems(t, c.after, c.place), is_skipping);
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.undos(bigint, jsonb, regclass, text, timestamptz, timestamptz, boolean) IS
'how the changes of a selection are to be undone, the newest first; an error if one cannot be';

CREATE FUNCTION bemi.shown_statement(t jsonb, u bemi.undo) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  statement text;
BEGIN
  IF u.problem IS NULL THEN
    BEGIN
      statement := bemi.undo_statement(t, u, u.after);
      RETURN statement;
    EXCEPTION WHEN OTHERS THEN
      IF NOT bemi.is_conflict(SQLSTATE, false) THEN
        RAISE;
      END IF;
      u.problem := SQLERRM;
    END;
  END IF;
  RETURN translate(format('-- the %s of the row %s of %s, recorded at %s (sequence %s), cannot be undone: %s',
    u.operation, u.primary_key, t ->> 'name', u.commit_position, u.sequence, u.problem), chr(10) || chr(13), '  ');
END
$$;

COMMENT ON FUNCTION bemi.shown_statement(jsonb, bemi.undo) IS
'the statement that undoes a change, or a comment in SQL why there is none';

CREATE OR REPLACE FUNCTION bemi.revert_sql(
  transaction_id bigint DEFAULT NULL, context jsonb DEFAULT NULL, relation regclass DEFAULT NULL,
  primary_key text DEFAULT NULL, since timestamptz DEFAULT NULL, until timestamptz DEFAULT NULL
) RETURNS SETOF text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  u bemi.undo;
  tables jsonb := '{}';
  t jsonb;
BEGIN
  PERFORM bemi.check_reading();
  FOR u IN SELECT * FROM bemi.undos(transaction_id, context, relation, primary_key, since, until, false) LOOP
    IF t ->> 'oid' IS DISTINCT FROM u.relation::oid::text THEN
      t := COALESCE(tables -> u.relation::oid::text, bemi.undo_table(u.relation));
      tables := tables || jsonb_build_object(u.relation::oid::text, t);
    END IF;
    -- Some updates leave nothing that could be set.
    IF u.problem IS NULL AND u.operation = 'UPDATE' AND u.changed = '{}' THEN
      CONTINUE;
    END IF;
    RETURN NEXT bemi.shown_statement(t, u);
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.revert_sql(bigint, jsonb, regclass, text, timestamptz, timestamptz) IS
'the statements that undo the changes that meet all conditions given, the newest first; none of them is run';

CREATE OR REPLACE FUNCTION bemi.differences(compared jsonb, image jsonb, now jsonb) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT ARRAY(
    SELECT c
    FROM jsonb_array_elements_text(compared) c
    WHERE image ? c AND image -> c IS DISTINCT FROM now -> c)
$$;

COMMENT ON FUNCTION bemi.differences(jsonb, jsonb, jsonb) IS
'the columns by which a row differs from an image';

CREATE OR REPLACE FUNCTION bemi.jsonb_or_text(value json) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN value::jsonb;
EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
  RETURN to_jsonb(value::text);
END
$$;

COMMENT ON FUNCTION bemi.jsonb_or_text(json) IS
'a value as jsonb, or its text if jsonb cannot hold it';

CREATE OR REPLACE FUNCTION bemi.row_now(
  t jsonb, condition text, image jsonb, is_locked boolean, OUT rows int, OUT now jsonb, OUT place tid
)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  r record;
  -- A column may have the name of the table here.
  row_as_json text := 'to_jsonb(t.*)';
BEGIN
  rows := 0;
  IF t ->> 'by_column' IS NOT NULL THEN
    BEGIN
      EXECUTE format('SELECT count(to_jsonb(t.*)) FROM %s t WHERE %s', t ->> 'source', condition);
    EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
      row_as_json := t ->> 'by_column';
    END;
  END IF;
  FOR r IN EXECUTE format('SELECT %s%s AS now, t.ctid AS place FROM %s t WHERE %s%s',
    row_as_json, t ->> 'as_text', t ->> 'source', condition, CASE WHEN is_locked THEN ' FOR UPDATE' ELSE '' END)
  LOOP
    rows := rows + 1;
    IF rows = 1 OR bemi.differences(t -> 'compared', image, r.now) = '{}' THEN
      now := r.now;
      place := r.place;
    END IF;
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.row_now(jsonb, text, jsonb, boolean) IS
'a row of a table as WAL would show it';

CREATE FUNCTION bemi.run_undo(statement text, caller jsonb) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO, YMD' AS $$
DECLARE
  rows bigint;
BEGIN
  PERFORM pg_catalog.set_config('timezone', caller ->> 'timezone', true),
    pg_catalog.set_config('datestyle', caller ->> 'datestyle', true),
    pg_catalog.set_config('search_path', caller ->> 'search_path', true);
  EXECUTE statement;
  GET DIAGNOSTICS rows = ROW_COUNT;
  RETURN rows;
END
$$;

COMMENT ON FUNCTION bemi.run_undo(text, jsonb) IS
'runs a statement under settings of the caller, and returns the number of rows that it changed';

CREATE FUNCTION bemi.is_conflict(state text, is_running boolean) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE
    WHEN is_running THEN left(state, 2) NOT IN ('08', '25', '26', '40', '53', '55', '57', '58', 'F0', 'XX')
    ELSE left(state, 2) IN ('22', '3F')
      OR state IN ('42P01', '42601', '42704', '42804', '42846', '42883', '54000') END
$$;

COMMENT ON FUNCTION bemi.is_conflict(text, boolean) IS
'whether an error is about the change that is to be undone';

CREATE FUNCTION bemi.row_conflict(t jsonb, u bemi.undo, rows int, now jsonb, expected jsonb) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF u.where_after IS NULL THEN
    RETURN CASE WHEN rows > 0 THEN 'a row with this key is there' END;
  ELSIF rows = 0 THEN
    RETURN 'the row is not there';
  ELSIF now IS DISTINCT FROM expected THEN
    -- Generated columns follow from the others, by their expressions of today.
    RETURN 'changed since: ' || bemi.quoted(bemi.differences(
      (t -> 'compared') - ARRAY(SELECT jsonb_array_elements_text(t -> 'computed')), expected, now));
  END IF;
  RETURN NULL;
END
$$;

COMMENT ON FUNCTION bemi.row_conflict(jsonb, bemi.undo, int, jsonb, jsonb) IS
'why a row is not as a change left it';

CREATE OR REPLACE FUNCTION bemi.referring_rows(reference jsonb, t jsonb, condition text, is_any_enough boolean)
RETURNS TABLE (child regclass, now jsonb)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET row_security = off AS $$
BEGIN
  RETURN QUERY EXECUTE format(
    'SELECT child.tableoid::regclass, %s
     FROM %s child,
       (SELECT t.*, t.tableoid AS "bemi tableoid", t.ctid AS "bemi ctid" FROM %s t WHERE %s) parent
     WHERE %s
       AND (child.tableoid, child.ctid) IS DISTINCT FROM (parent."bemi tableoid", parent."bemi ctid")%s',
    CASE WHEN is_any_enough THEN 'NULL::jsonb' ELSE 'to_jsonb(child.*)' END,
    reference ->> 'source', t ->> 'source', condition, reference ->> 'join',
    CASE WHEN is_any_enough THEN ' LIMIT 1' END);
END
$$;

COMMENT ON FUNCTION bemi.referring_rows(jsonb, jsonb, text, boolean) IS
'the rows that refer to a row by a foreign key, without itself';

CREATE FUNCTION bemi.acts_on_others(reference jsonb, u bemi.undo, is_deferred boolean) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE u.operation
    WHEN 'CREATE' THEN a.on_delete IN ('c', 'n', 'd') OR a.on_delete = 'a' AND a.is_late
    WHEN 'UPDATE' THEN (reference -> 'columns') ?| u.changed
      AND (a.on_update IN ('c', 'n', 'd') OR a.on_update = 'a' AND a.is_late)
    ELSE false
  END
  FROM (VALUES (
    reference ->> 'on_delete',
    reference ->> 'on_update',
    (reference -> 'is_deferred')::boolean AND NOT is_deferred
  )) a (on_delete, on_update, is_late)
$$;

COMMENT ON FUNCTION bemi.acts_on_others(jsonb, bemi.undo, boolean) IS
'whether a foreign key would change, or check later, rows that refer to the row of an undo';

CREATE FUNCTION bemi.cascading(t jsonb, u bemi.undo, waiting bemi.undo[], is_deferred boolean) RETURNS bemi.undo[]
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  reference jsonb;
  child record;
  row_now text;
  p bemi.undo;
  result bemi.undo[] := '{}';
BEGIN
  IF u.operation NOT IN ('CREATE', 'UPDATE') THEN
    RETURN result;
  END IF;
  FOR reference IN SELECT r FROM jsonb_array_elements(t -> 'references') r LOOP
    CONTINUE WHEN NOT bemi.acts_on_others(reference, u, is_deferred);
    FOR child IN SELECT * FROM bemi.referring_rows(reference, t, u.where_after, waiting IS NULL) LOOP
      p := NULL;
      IF u.operation = 'UPDATE' AND reference ->> 'on_update' = 'c' AND waiting IS NOT NULL THEN
        row_now := concat(child.child::oid, ':', bemi.key_text(bemi.undo_table(child.child) -> 'key', child.now));
        SELECT w.* INTO p FROM unnest(waiting) w WHERE w.row_after = row_now LIMIT 1;
      END IF;
      IF p.number IS NULL THEN
        RAISE foreign_key_violation USING
          MESSAGE = format('rows of %s refer to it by the foreign key %s, which would change them too',
            reference ->> 'child', reference ->> 'name');
      END IF;
      result := result || p;
    END LOOP;
  END LOOP;
  RETURN result;
END
$$;

COMMENT ON FUNCTION bemi.cascading(jsonb, bemi.undo, bemi.undo[], boolean) IS
'the undos that wait and that ON UPDATE CASCADE will do with this one';

CREATE FUNCTION bemi.cascaded(undos bemi.undo[]) RETURNS bigint[]
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  p bemi.undo;
  here record;
  result bigint[];
BEGIN
  FOREACH p IN ARRAY undos LOOP
    SELECT r.* INTO here
    FROM (SELECT bemi.undo_table(p.relation) AS t) x,
      LATERAL bemi.row_now(x.t, p.where_before, p.before, false) r;
    IF here.rows = 0
      OR bemi.differences(bemi.undo_table(p.relation) -> 'compared', p.before, here.now) <> '{}'
    THEN
      RAISE foreign_key_violation USING
        MESSAGE = format('a row of %s that refers to it would be changed too', p.relation);
    END IF;
    result := result || p.number;
  END LOOP;
  RETURN result;
END
$$;

COMMENT ON FUNCTION bemi.cascaded(bemi.undo[]) IS
'the numbers of undos that ON UPDATE CASCADE has done; an error if it did something else';

CREATE FUNCTION bemi.checked(result bemi.attempt, t jsonb, u bemi.undo, ours jsonb, rows_before int, row_before jsonb)
RETURNS bemi.attempt
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  here record;
  has_triggers boolean := t -> 'has_triggers';
  -- The columns that it should put back, and those that are otherwise now.
  wanted text[] := ARRAY(
    SELECT k
    FROM unnest(CASE u.operation WHEN 'UPDATE' THEN u.changed ELSE ARRAY(SELECT jsonb_object_keys(u.before)) END) k
    WHERE (t -> 'compared') ? k);
  names text[];
BEGIN
  result.outcome := CASE WHEN u.kept IS NULL THEN 'reverted' ELSE 'partly reverted' END;
  IF u.where_before IS NULL THEN
    IF has_triggers AND (SELECT r.rows FROM bemi.row_now(t, u.where_after, u.after, false) r) >= rows_before THEN
      RAISE triggered_data_change_violation USING MESSAGE = 'a trigger or a rule kept the row';
    END IF;
    RETURN result;
  ELSIF NOT has_triggers AND t -> 'computed' = '[]' AND NOT (t -> 'checked') ?| wanted THEN
    RETURN result;
  END IF;
  SELECT * INTO here FROM bemi.row_now(t, u.where_before, u.before, false);
  names := bemi.differences(t -> 'compared', u.before, here.now);
  IF here.rows = 0 THEN
    RAISE triggered_data_change_violation USING MESSAGE = 'a trigger, a rule or a policy left no row with this key';
  ELSIF NOT has_triggers AND EXISTS (SELECT FROM unnest(names) n WHERE NOT (t -> 'computed') ? n) THEN
    RAISE triggered_data_change_violation USING MESSAGE = 'the table cannot hold what was recorded: '
      || bemi.quoted(ARRAY(SELECT n FROM unnest(names) n WHERE NOT (t -> 'computed') ? n));
  ELSIF u.operation = 'UPDATE' THEN
    -- What our own undo of a newer change left otherwise may stay so.
    wanted := ARRAY(SELECT w FROM unnest(wanted) w WHERE ours IS NULL OR NOT ours ? w);
    IF wanted <> '{}' AND wanted <@ names AND bemi.differences(to_jsonb(wanted), row_before, here.now) = '{}' THEN
      RAISE triggered_data_change_violation USING
        MESSAGE = 'a trigger kept it from being undone: ' || bemi.quoted(wanted);
    END IF;
  END IF;
  IF names <> '{}' THEN
    result.outcome := 'partly reverted';
    result.left_columns := (SELECT jsonb_object_agg(n, here.now -> n) FROM unnest(names) n);
    result.detail := concat_ws('. ', result.detail,
      CASE WHEN has_triggers THEN 'a trigger changed: ' ELSE 'computed otherwise now: ' END || bemi.quoted(names));
  END IF;
  RETURN result;
END
$$;

COMMENT ON FUNCTION bemi.checked(bemi.attempt, jsonb, bemi.undo, jsonb, int, jsonb) IS
'returns the outcome of an undo that has run; raises an error if the row is not as it should be';

CREATE FUNCTION bemi.attempt(u bemi.undo, t jsonb, ours jsonb, caller jsonb, waiting bemi.undo[], is_deferred boolean)
RETURNS bemi.attempt
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  result bemi.attempt;
  here record;
  expected jsonb := CASE WHEN ours IS NULL THEN u.after ELSE u.after || ours END;
  cascading bemi.undo[];
  statement text;
  changes bigint;
  is_running boolean := false;
  message text;
  more text;
BEGIN
  SELECT * INTO here FROM bemi.row_now(t, COALESCE(u.where_after, u.where_before), expected, u.where_after IS NOT NULL);
  result.detail := bemi.row_conflict(t, u, here.rows, here.now, expected);
  IF result.detail IS NOT NULL THEN
    result.outcome := 'conflict';
    RETURN result;
  END IF;
  result.detail := u.detail;
  IF u.operation = 'UPDATE' AND u.changed = '{}' THEN
    result.outcome := CASE WHEN u.kept IS NULL THEN 'reverted' ELSE 'unchanged' END;
    result.detail := concat_ws('. ', u.detail, 'nothing to set');
    RETURN result;
  END IF;
  result.statement := bemi.undo_statement(t, u, expected);
  statement := result.statement;
  IF here.rows > 1 THEN
    statement := format('%s AND ctid OPERATOR(pg_catalog.=) %L::tid;', left(statement, -1), here.place);
  END IF;
  cascading := bemi.cascading(t, u, waiting, is_deferred);
  is_running := true;
  changes := bemi.run_undo(statement, caller);
  IF changes <> 1 THEN
    RAISE triggered_data_change_violation USING MESSAGE = CASE changes
      WHEN 0 THEN 'a trigger, a rule or a policy kept it from being undone'
      ELSE format('%s rows have this key', changes) END;
  END IF;
  result.also := bemi.cascaded(cascading);
  RETURN bemi.checked(result, t, u, ours, here.rows, here.now);
EXCEPTION
  WHEN integrity_constraint_violation THEN
    GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, more = PG_EXCEPTION_DETAIL;
    RETURN ROW('later', concat_ws('. ', message, nullif(more, '')), result.statement, NULL, NULL)::bemi.attempt;
  WHEN OTHERS THEN
    IF NOT bemi.is_conflict(SQLSTATE, is_running) THEN
      RAISE;
    END IF;
    message := CASE WHEN is_running THEN '' ELSE 'what was recorded cannot be read: ' END || SQLERRM;
    RETURN ROW('conflict', message, NULL, NULL, NULL)::bemi.attempt;
END
$$;

COMMENT ON FUNCTION bemi.attempt(bemi.undo, jsonb, jsonb, jsonb, bemi.undo[], boolean) IS
'undoes one change if the row is still as the change left it';

CREATE FUNCTION bemi.given_up(t jsonb, u bemi.undo) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE u.operation
    WHEN 'CREATE' THEN bemi.linked(t -> 'offers', u.after)
    WHEN 'UPDATE' THEN ARRAY(
      SELECT unnest(bemi.linked(t -> 'offers', u.after))
      EXCEPT
      SELECT unnest(bemi.linked(t -> 'offers', u.before)))
  END
$$;

COMMENT ON FUNCTION bemi.given_up(jsonb, bemi.undo) IS
'names of the rows that others may refer to and that an undo would give up';

CREATE FUNCTION bemi.wanted_row(u bemi.undo, left_columns jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT jsonb_build_object(
    'oid', u.relation::oid,
    'key', u.primary_key,
    'where', COALESCE(u.where_before, u.where_after),
    'image', CASE WHEN u.row_before IS NOT NULL THEN u.before END,
    'left', left_columns)
$$;

COMMENT ON FUNCTION bemi.wanted_row(bemi.undo, jsonb) IS
'what a row is to be like when all is undone';

CREATE FUNCTION bemi.settle(wanted jsonb[], tables jsonb, caller jsonb, is_last boolean) RETURNS text[]
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  w record;
  t jsonb;
  here record;
  names text[];
  sets text;
  problems text[] := '{}';
BEGIN
  FOR w IN
    SELECT x.*
    FROM unnest(wanted) e,
      jsonb_to_record(e) AS x (oid text, key text, "where" text, image jsonb, "left" jsonb)
  LOOP
    t := tables -> w.oid;
    SELECT * INTO here FROM bemi.row_now(t, w.where, w.image, false);
    names := ARRAY(
      SELECT n
      FROM unnest(bemi.differences(t -> 'compared', w.image, here.now)) n
      WHERE w.left IS NULL OR NOT w.left ? n);
    IF (here.rows > 0) <> (w.image IS NOT NULL) THEN
      problems := problems || format('%s %s: it is %s', t ->> 'name', w.key,
        CASE WHEN here.rows > 0 THEN 'there again' ELSE 'gone again' END);
    ELSIF names <> '{}' THEN
      problems := problems || format('%s %s: %s', t ->> 'name', w.key, bemi.quoted(names));
      SELECT string_agg(format('%I = %s', n, bemi.literal(t -> 'columns' -> n, w.image -> n)), ', ') INTO sets
      FROM unnest(names) n
      WHERE NOT (t -> 'generated') ? n;
      IF NOT is_last AND sets IS NOT NULL THEN
        PERFORM bemi.run_undo(format('UPDATE %s SET %s WHERE %s;', t ->> 'source', sets, w.where), caller);
      END IF;
    END IF;
  END LOOP;
  RETURN problems;
END
$$;

COMMENT ON FUNCTION bemi.settle(jsonb[], jsonb, jsonb, boolean) IS
'sets columns again that triggers changed after rows were undone, and returns which rows are not as they should be';

CREATE FUNCTION bemi.refuse_unsettled(problems text[]) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RAISE EXCEPTION 'bemi undid nothing: triggers changed rows again that were undone' USING
    ERRCODE = 'triggered_data_change_violation',
    DETAIL = array_to_string(problems, chr(10)),
    HINT = 'ALTER TABLE ... DISABLE TRIGGER ...; keeps them from that, and ENABLE TRIGGER puts them back.';
END
$$;

COMMENT ON FUNCTION bemi.refuse_unsettled(text[]) IS
'raises the error that triggers have the last word on rows';

CREATE FUNCTION bemi.refuse_conflicts(count bigint, described text[]) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  others bigint := count - cardinality(described);
BEGIN
  RAISE EXCEPTION 'bemi undid nothing: % of the changes cannot be undone', count USING
    ERRCODE = 'triggered_data_change_violation',
    DETAIL = array_to_string(described || CASE WHEN others > 0 THEN format('and %s more', others) END, chr(10)),
    HINT = 'With on_conflict => ''skip'' the others are undone, and these are left as they are.';
END
$$;

COMMENT ON FUNCTION bemi.refuse_conflicts(bigint, text[]) IS
'raises the error that changes cannot be undone';

CREATE OR REPLACE FUNCTION bemi.check_undoing(t jsonb, operation text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  wanted text;
  relation oid := t ->> 'oid';
BEGIN
  FOREACH wanted IN ARRAY CASE operation
    WHEN 'CREATE' THEN '{SELECT,UPDATE,DELETE}'::text[]
    WHEN 'UPDATE' THEN '{SELECT,UPDATE}'
    ELSE '{SELECT,INSERT}'
  END
  LOOP
    IF NOT has_table_privilege(relation, wanted)
      AND (wanted = 'DELETE' OR NOT has_any_column_privilege(relation, wanted))
    THEN
      RAISE EXCEPTION 'permission denied for table %', t ->> 'name' USING
        ERRCODE = 'insufficient_privilege',
        DETAIL = format('To undo a %s takes %s on it.', operation, wanted),
        HINT = format('GRANT %s ON %s TO %I;', wanted, t ->> 'name', current_user);
    END IF;
  END LOOP;
END
$$;

COMMENT ON FUNCTION bemi.check_undoing(jsonb, text) IS
'raises an error if the caller may not undo such changes of a table';

CREATE OR REPLACE FUNCTION bemi.declare_constraints() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  names text;
BEGIN
  SELECT string_agg(format('%I.%I', n.nspname, k.conname), ', ') INTO names
  FROM (
      SELECT connamespace, conname
      FROM pg_constraint
      GROUP BY 1, 2
      HAVING bool_or(condeferred) AND bool_and(condeferrable)
    ) k
    JOIN pg_namespace n ON n.oid = k.connamespace
  WHERE has_schema_privilege(n.oid, 'USAGE');
  IF names IS NOT NULL THEN
    EXECUTE format('SET CONSTRAINTS %s DEFERRED', names);
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.declare_constraints() IS
'defers the constraints that are INITIALLY DEFERRED again';

CREATE FUNCTION bemi.is_watched() RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT EXISTS (
    SELECT
    FROM pg_trigger g
    WHERE NOT g.tgisinternal
      AND g.tgenabled <> 'D'
      AND g.tgfoid <> 'bemi.emit_context()'::regprocedure
      AND EXISTS (SELECT FROM bemi.context_triggers c WHERE c.relation = g.tgrelid))
$$;

COMMENT ON FUNCTION bemi.is_watched() IS
'whether triggers of any tracked table could change rows that were undone';

CREATE FUNCTION bemi.run_undos(
  transaction_id bigint, context jsonb, relation regclass, primary_key text, since timestamptz, until timestamptz,
  is_skipping boolean, caller jsonb
) RETURNS SETOF bemi.reverted
LANGUAGE c VOLATILE SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'bemi_run_undos';

COMMENT ON FUNCTION bemi.run_undos(bigint, jsonb, regclass, text, timestamptz, timestamptz, boolean, jsonb) IS
'undoes the changes of a selection in an order that constraints allow, and returns what it did';

CREATE FUNCTION bemi.revert_selection(
  transaction_id bigint, context jsonb, relation regclass, primary_key text, since timestamptz, until timestamptz,
  on_conflict text, caller jsonb
) RETURNS SETOF bemi.reverted
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
  context_before text;
  role_before text := current_setting('session_replication_role');
  arguments jsonb := jsonb_build_object('transaction_id', transaction_id, 'context', context, 'relation', relation,
    'primary_key', primary_key, 'since', since, 'until', until);
BEGIN
  IF on_conflict IS NULL OR on_conflict NOT IN ('error', 'skip') THEN
    RAISE EXCEPTION 'on_conflict cannot be %', COALESCE(quote_literal(on_conflict), 'NULL') USING
      ERRCODE = 'invalid_parameter_value',
      HINT = 'It is ''error'' (nothing is undone if anything cannot be) '
        'or ''skip'' (what cannot be undone is left out).';
  END IF;
  PERFORM bemi.check_reading();
  -- Without foreign keys and triggers a revert would leave what nothing else leaves.
  IF role_before = 'replica' THEN
    PERFORM set_config('session_replication_role', 'origin', true);
  END IF;
  context_before := COALESCE(current_setting('bemi.context', true), '');
  PERFORM bemi.merge_context(jsonb_build_object('reverts', (
    SELECT COALESCE(jsonb_object_agg(key, value), '{}')
    FROM jsonb_each(arguments)
    WHERE value <> 'null')), true);
  RETURN QUERY
    SELECT *
    FROM bemi.run_undos(transaction_id, context, relation, primary_key, since, until, on_conflict = 'skip', caller);
  PERFORM set_config('bemi.context', context_before, true);
  IF role_before = 'replica' THEN
    PERFORM set_config('session_replication_role', role_before, true);
  END IF;
END
$$;

COMMENT ON FUNCTION bemi.revert_selection(bigint, jsonb, regclass, text, timestamptz, timestamptz, text, jsonb) IS
'for bemi.revert(): undoes a selection under settings of its own';

CREATE OR REPLACE FUNCTION bemi.revert(
  transaction_id bigint DEFAULT NULL, context jsonb DEFAULT NULL, relation regclass DEFAULT NULL,
  primary_key text DEFAULT NULL, since timestamptz DEFAULT NULL, until timestamptz DEFAULT NULL,
  on_conflict text DEFAULT 'error'
) RETURNS TABLE (
  relation regclass, primary_key text, operation text, status text, detail text, statement text, transaction_id bigint,
  commit_position pg_lsn, sequence int
)
LANGUAGE sql VOLATILE AS $$
  SELECT *
  FROM bemi.revert_selection($1, $2, $3, $4, $5, $6, $7, pg_catalog.jsonb_build_object(
    'search_path', pg_catalog.current_setting('search_path'),
    'timezone', pg_catalog.current_setting('timezone'),
    'datestyle', pg_catalog.current_setting('datestyle')))
$$;

COMMENT ON FUNCTION bemi.revert(bigint, jsonb, regclass, text, timestamptz, timestamptz, text) IS
'undoes the changes that meet all conditions given, the newest first, and returns what it did';

DO $do$
DECLARE
  pinned record;
  reader regprocedure;
BEGIN
  FOR pinned IN
    SELECT p.name, p.value FROM (VALUES
      ('timezone', 'UTC'),
      ('datestyle', 'ISO, YMD'),
      ('intervalstyle', 'postgres'),
      ('extra_float_digits', '1'),
      ('bytea_output', 'hex'),
      ('lc_monetary', 'C'),
      ('array_nulls', 'on'),
      ('xmloption', 'content'),
      ('xmlbinary', 'base64'),
      ('standard_conforming_strings', 'on'),
      ('backslash_quote', 'safe_encoding'),
      ('quote_all_identifiers', 'off'),
      ('transform_null_equals', 'off'),
      -- Other values would raise errors where a policy hides rows, or would leave out changes that an index finds.
      ('row_security', 'on'),
      ('gin_fuzzy_search_limit', '0'),
      -- Checks of PL/pgSQL at run time are for those who write functions.
      ('plpgsql.extra_errors', 'none'),
      ('plpgsql.extra_warnings', 'none'),
      -- To compile these many small queries, each run once, takes far longer than to run them.
      ('jit', 'off')
    ) AS p (name, value)
  LOOP
    FOREACH reader IN ARRAY ARRAY[
      'bemi.revert_selection(bigint, jsonb, regclass, text, timestamptz, timestamptz, text, jsonb)',
      'bemi.revert_sql(bigint, jsonb, regclass, text, timestamptz, timestamptz)',
      'bemi.history(anyelement, text)',
      'bemi.recorded_history(oid, text, text)'
    ]::regprocedure[] LOOP
      EXECUTE format('ALTER FUNCTION %s SET %s = %s', reader, pinned.name,
        CASE pinned.name WHEN 'datestyle' THEN pinned.value ELSE quote_literal(pinned.value) END);
    END LOOP;
  END LOOP;
END
$do$;

-- Version 0.1.0 recorded one source and no types: those of the last version of a table are the present ones.
INSERT INTO bemi.table_versions (relation, source, recorded, position, noted_at, is_tracked, is_empty, has_images,
  schema, "table", root, key_columns, columns, types, ignored, masked, is_late)
SELECT v.relation, CASE WHEN to_regclass('bemi.former_recorder') IS NULL THEN 0 ELSE 1 END, v.relation, v.position,
  v.noted_at, v.is_tracked, v.is_empty, v.has_images, v.schema, v."table", v.root, v.key_columns, v.columns,
  CASE WHEN row_number() OVER (PARTITION BY v.relation ORDER BY v.position DESC) = 1
    AND EXISTS (SELECT FROM pg_class c WHERE c.oid = v.relation) THEN bemi.types_of(v.relation) END,
  v.ignored, v.masked, v.is_late
FROM bemi.former_table_versions v;

DROP TABLE bemi.former_table_versions;

DO $do$
BEGIN
  IF to_regclass('bemi.changes') IS NOT NULL THEN
    ALTER TABLE bemi.changes ADD COLUMN relation oid, ADD COLUMN source int NOT NULL DEFAULT 1;
    DROP INDEX IF EXISTS bemi.changes_by_position;
    CREATE INDEX changes_by_position ON bemi.changes (source, commit_position, sequence);
    DROP VIEW IF EXISTS bemi.changes_diff;
    PERFORM bemi.make_changes_diff();
  END IF;
  IF to_regclass('bemi.former_recorder') IS NULL THEN
    RETURN;
  END IF;
  PERFORM bemi.make_changes();
  INSERT INTO bemi.sources (source, name, system_identifier, database, first_position, since, database_oid, tables)
  SELECT 1, COALESCE(NULLIF(current_setting('cluster_name'), ''), current_database()), p.system_identifier,
    current_database(), COALESCE((
        SELECT c.commit_position FROM bemi.changes c ORDER BY c.source, c.commit_position, c.sequence LIMIT 1),
      f.read_position, pg_current_wal_insert_lsn()),
    COALESCE(f.since, f.state_since), p.database_oid, p.tables
  FROM bemi.present_source() p, bemi.former_recorder f;
  UPDATE bemi.recorder r SET slot = f.slot, is_wanted = f.is_wanted, state = f.state, state_since = f.state_since,
    last_error = f.last_error, last_error_at = f.last_error_at, failures = f.failures,
    commit_position = f.commit_position, sequence = f.sequence, committed_at = f.committed_at,
    transactions = f.transactions, changes = f.changes,
    spilled_bytes = f.spilled_bytes, since = f.since, source = 1,
    -- A recorder that was not stopped confirmed more than it wrote there.
    read_position = CASE WHEN f.state <> 'stopped' THEN greatest(f.read_position, (
      SELECT s.confirmed_flush_lsn FROM bemi.recorder_slots() s WHERE s.slot_name = f.slot)) ELSE f.read_position END
  FROM bemi.former_recorder f;
  -- A gap that was not recorded yet was kept as its document; of several, from the first one to the last.
  UPDATE bemi.recorder r SET gap_reason = g.first -> 'context' ->> 'reason', gap_source = 1,
    gap_from = (g.first -> 'context' ->> 'from')::pg_lsn, gap_to = (g.last -> 'context' ->> 'to')::pg_lsn,
    gap_at = (g.last ->> 'committed_at')::timestamptz, gap_transaction = (g.last ->> 'transaction_id')::bigint,
    gap_accepted_by = g.last -> 'context' ->> 'accepted_by'
  FROM (
    SELECT split_part(f.gap, chr(10), 1)::jsonb AS first, substring(f.gap FROM '[^\n]*$')::jsonb AS last
    FROM bemi.former_recorder f WHERE f.gap IS NOT NULL
  ) g;
  PERFORM bemi.keep_versions();
  DROP TABLE bemi.former_recorder;
END
$do$;

-- What is recorded outlives the extension, so it is no part of it.
DO $do$
DECLARE
  made record;
BEGIN
  FOR made IN
    SELECT CASE c.relkind WHEN 'v'::"char" THEN 'VIEW' ELSE 'TABLE' END AS kind, c.relname
    FROM pg_extension e JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
      AND d.classid = 'pg_class'::regclass AND d.deptype = 'e'::"char"
    JOIN pg_class c ON c.oid = d.objid
    WHERE e.extname = 'bemi'::name
      AND c.relname ~ '^(changes|changes_default|changes_diff|recorder|recorded_versions|sources)$'
  LOOP
    EXECUTE format('ALTER EXTENSION bemi DROP %s bemi.%I', made.kind, made.relname);
  END LOOP;
END
$do$;

-- Masks hold by number too, and below tables that others inherit from.
DO $do$
DECLARE
  masking regclass;
BEGIN
  FOR masking IN
    SELECT DISTINCT t.relation::regclass FROM bemi.context_triggers t
    WHERE bemi.table_rules(t.relation::regclass, 'mask') <> '{}'
  LOOP
    PERFORM bemi.renew_masks(masking), bemi.mask_heirs(masking);
  END LOOP;
END
$do$;

GRANT USAGE ON SCHEMA bemi TO PUBLIC;

DO $do$
DECLARE
  made record;
  other record;
  is_given boolean;
  -- What the script of an update found: rights that somebody granted since the extension was made.
  granted jsonb := COALESCE(NULLIF(current_setting('bemi_update.granted', true), ''), '[]')::jsonb;
BEGIN
  FOR made IN
    WITH decisions (kind, name, who) AS (VALUES
      -- tracking/guard.sql
      ('function', 'kept_names', 'PUBLIC'),
      ('function', 'own_tables', 'PUBLIC'),
      ('function', 'unsafe_objects', 'PUBLIC'),
      ('function', 'unsafe_tables', 'PUBLIC'),
      -- tracking/unsafe_code.sql
      ('function', 'foreign_code', 'PUBLIC'),
      ('function', 'parts', 'PUBLIC'),
      ('function', 'removal', 'PUBLIC'),
      ('function', 'removal_of_relation', 'PUBLIC'),
      ('function', 'unsafe_code', 'PUBLIC'),
      ('function', 'unsafe_expressions', 'PUBLIC'),
      ('function', 'unsafe_links', 'PUBLIC'),
      ('function', 'unsafe_rules', 'PUBLIC'),
      -- tracking/require_safe.sql
      ('function', 'is_plain', 'nobody'),
      ('function', 'own_alone', 'nobody'),
      ('function', 'refuse_unsafe', 'nobody'),
      ('function', 'require_readable', 'nobody'),
      ('function', 'require_safe', 'nobody'),
      ('function', 'require_safe_tables', 'nobody'),
      ('function', 'unsafe', 'PUBLIC'),
      -- context/context.sql
      ('function', 'clear_context', 'PUBLIC'),
      ('function', 'context', 'PUBLIC'),
      ('function', 'merge_context', 'PUBLIC'),
      ('function', 'set_context', 'PUBLIC'),
      -- trigger/trigger.sql
      ('function', 'emit_context', 'PUBLIC'),
      -- tracking/publications.sql
      ('function', 'identity_columns', 'PUBLIC'),
      ('function', 'identity_conflict', 'PUBLIC'),
      ('function', 'identity_problem', 'PUBLIC'),
      ('function', 'identity_remedy', 'PUBLIC'),
      ('function', 'names_of_columns', 'PUBLIC'),
      ('function', 'publications_of', 'PUBLIC'),
      ('function', 'published_schemas_of', 'PUBLIC'),
      ('function', 'unfiltered_columns', 'PUBLIC'),
      ('function', 'ungenerated_columns', 'PUBLIC'),
      ('function', 'unlisted_columns', 'PUBLIC'),
      ('function', 'warn_of_conflicts', 'PUBLIC'),
      -- tracking/subscribers.sql
      ('function', 'name_without_bemi', 'PUBLIC'),
      ('function', 'publication_without_bemi', 'PUBLIC'),
      ('function', 'publications_of_bemi', 'PUBLIC'),
      ('function', 'tables_for_subscribers', 'PUBLIC'),
      ('function', 'warn_of_publications', 'PUBLIC'),
      -- tracking/rules.sql
      ('function', 'fitting_identity', 'PUBLIC'),
      ('function', 'identity', 'PUBLIC'),
      ('function', 'identity_before', 'PUBLIC'),
      ('function', 'identity_index', 'PUBLIC'),
      ('function', 'key_columns', 'PUBLIC'),
      ('function', 'obstacle', 'PUBLIC'),
      ('function', 'rules', 'PUBLIC'),
      ('function', 'set_identity', 'PUBLIC'),
      ('function', 'table_rules', 'PUBLIC'),
      ('function', 'tree', 'PUBLIC'),
      -- tracking/tracking.sql
      ('function', 'has_trigger', 'PUBLIC'),
      ('function', 'lock', 'PUBLIC'),
      ('function', 'notice_tracked', 'PUBLIC'),
      ('function', 'put_trigger', 'PUBLIC'),
      ('function', 'require_columns', 'PUBLIC'),
      ('function', 'require_member', 'PUBLIC'),
      ('function', 'require_trackable', 'PUBLIC'),
      ('function', 'rule_arguments', 'PUBLIC'),
      ('function', 'track', 'PUBLIC'),
      ('function', 'track_one', 'PUBLIC'),
      ('function', 'untrack', 'PUBLIC'),
      ('function', 'untrack_one', 'PUBLIC'),
      -- tracking/drops.sql
      ('function', 'before_drop_trigger', 'nobody'),
      ('function', 'guard_drops', 'nobody'),
      ('function', 'guard_owned', 'nobody'),
      ('function', 'keep_table', 'nobody'),
      ('function', 'kept_tables', 'PUBLIC'),
      ('function', 'may_drop', 'PUBLIC'),
      ('function', 'note_dropped_trigger', 'nobody'),
      ('function', 'put_back', 'nobody'),
      ('function', 'refuse_truncate', 'nobody'),
      ('function', 'release_tables', 'nobody'),
      -- tracking/masks.sql
      ('function', 'inherited_masks', 'PUBLIC'),
      ('function', 'mask_heirs', 'PUBLIC'),
      ('function', 'masked_attributes', 'PUBLIC'),
      ('function', 'masks', 'PUBLIC'),
      ('function', 'numbers_rule', 'PUBLIC'),
      ('function', 'parents', 'PUBLIC'),
      ('function', 'renew_masks', 'PUBLIC'),
      ('function', 'track_again', 'PUBLIC'),
      -- tracking/tracked.sql
      ('function', 'untracked_above', 'PUBLIC'),
      ('function', 'untracked_heirs', 'PUBLIC'),
      ('function', 'was_made_with_rows', 'PUBLIC'),
      -- tracking/track_all.sql
      ('function', 'await_makers', 'nobody'),
      ('function', 'pass_over_known_schema', 'nobody'),
      ('function', 'require_schemas', 'PUBLIC'),
      ('function', 'track_all', 'PUBLIC'),
      ('function', 'track_future', 'PUBLIC'),
      ('function', 'trackable', 'PUBLIC'),
      ('function', 'try_lock_tracking', 'nobody'),
      ('function', 'untrack_all', 'PUBLIC'),
      -- tracking/follow.sql
      ('function', 'before_ddl', 'nobody'),
      ('function', 'follow', 'nobody'),
      ('function', 'follow_ddl', 'nobody'),
      ('function', 'follow_remedy', 'nobody'),
      ('function', 'follow_rename', 'PUBLIC'),
      ('function', 'follow_schema', 'nobody'),
      ('function', 'follow_table', 'PUBLIC'),
      ('function', 'followed', 'nobody'),
      ('function', 'make_way_for_view', 'nobody'),
      ('function', 'on_ddl', 'nobody'),
      ('function', 'tracked_above', 'PUBLIC'),
      -- tracking/bemihq.sql
      ('function', 'bemihq_objects', 'PUBLIC'),
      ('function', 'replace_bemihq', 'PUBLIC'),
      -- tracking/doctor_tracking.sql
      ('function', 'doctor_of_drops', 'PUBLIC'),
      ('function', 'doctor_of_identities', 'PUBLIC'),
      ('function', 'doctor_of_tables', 'PUBLIC'),
      ('function', 'some_of', 'PUBLIC'),
      -- tracking/doctor_rules.sql
      ('function', 'doctor_of_ownership', 'PUBLIC'),
      ('function', 'doctor_of_publications', 'PUBLIC'),
      ('function', 'doctor_of_rules', 'PUBLIC'),
      ('function', 'live_columns', 'PUBLIC'),
      ('function', 'rules_by_others', 'PUBLIC'),
      ('function', 'rules_remedy', 'PUBLIC'),
      ('function', 'was_tracked', 'PUBLIC'),
      -- tracking/library.sql
      ('function', 'doctor_of_library', 'PUBLIC'),
      ('function', 'library_checksum', 'PUBLIC'),
      ('function', 'library_version', 'PUBLIC'),
      ('function', 'sql_checksum', 'PUBLIC'),
      -- tracking/doctor.sql
      ('function', 'doctor', 'PUBLIC'),
      ('function', 'doctor_of_capacity', 'PUBLIC'),
      ('function', 'doctor_of_libraries', 'PUBLIC'),
      ('function', 'doctor_of_recorder', 'PUBLIC'),
      ('function', 'doctor_of_slots', 'PUBLIC'),
      ('function', 'doctor_of_triggers', 'PUBLIC'),
      ('function', 'own_event_triggers', 'PUBLIC'),
      ('function', 'setting', 'PUBLIC'),
      -- recorder/changes.sql
      ('function', 'change_id', 'PUBLIC'),
      ('function', 'make_changes', 'nobody'),
      ('function', 'make_changes_diff', 'nobody'),
      ('function', 'make_recorder', 'nobody'),
      ('function', 'make_sources', 'nobody'),
      ('function', 'place', 'PUBLIC'),
      ('function', 'place_position', 'PUBLIC'),
      ('function', 'place_source', 'PUBLIC'),
      ('function', 'require_owner', 'nobody'),
      -- recorder/partitions.sql
      ('function', 'add_partition', 'nobody'),
      ('function', 'grant_as_changes', 'nobody'),
      ('function', 'has_strays', 'nobody'),
      ('function', 'keep_partitions', 'nobody'),
      -- recorder/recorder.sql
      ('function', 'before_drop', 'nobody'),
      ('function', 'create_slot', 'nobody'),
      ('function', 'end_recorder', 'nobody'),
      ('function', 'flush_log', 'nobody'),
      ('function', 'is_forged', 'nobody'),
      ('function', 'is_progress_problem', 'nobody'),
      ('function', 'launch', 'nobody'),
      ('function', 'lock_recorder', 'nobody'),
      ('function', 'new_recorder_slot', 'nobody'),
      ('function', 'problem_kind', 'nobody'),
      ('function', 'recorded_until', 'nobody'),
      ('function', 'recorder_pid', 'nobody'),
      ('function', 'recorder_slot', 'PUBLIC'),
      ('function', 'recorder_slot_prefix', 'nobody'),
      ('function', 'recorder_slots', 'nobody'),
      ('function', 'slot_problem', 'nobody'),
      ('function', 'wake', 'nobody'),
      -- recorder/start.sql
      ('function', 'accept_gap_fix', 'nobody'),
      ('function', 'begin_recording', 'nobody'),
      ('function', 'note_gap', 'nobody'),
      ('function', 'require_no_gap', 'nobody'),
      ('function', 'require_startable', 'nobody'),
      ('function', 'start', 'nobody'),
      ('function', 'state_before_start', 'nobody'),
      ('function', 'stop', 'nobody'),
      -- recorder/status.sql
      ('function', 'explained_state', 'nobody'),
      ('function', 'first_unsafe', 'nobody'),
      ('function', 'recorder_lag', 'nobody'),
      ('function', 'recorder_status', 'pg_monitor'),
      ('function', 'sync', 'PUBLIC'),
      -- tracking/types.sql
      ('function', 'cast_settings', 'PUBLIC'),
      ('function', 'defined_types', 'PUBLIC'),
      ('function', 'rewrites', 'nobody'),
      ('function', 'rewritten_columns', 'nobody'),
      ('function', 'tables_of_types', 'PUBLIC'),
      ('function', 'types_of', 'PUBLIC'),
      -- tracking/versions.sql
      ('function', 'latest_versions', 'nobody'),
      ('function', 'new_versions', 'PUBLIC'),
      ('function', 'note_table', 'nobody'),
      ('function', 'note_versions', 'nobody'),
      ('function', 'present_versions', 'PUBLIC'),
      ('function', 'read_new_versions', 'nobody'),
      -- tracking/note_ddl.sql
      ('function', 'affected_tables', 'nobody'),
      ('function', 'altered_tables', 'nobody'),
      ('function', 'altered_types', 'PUBLIC'),
      ('function', 'dropped_tables', 'nobody'),
      ('function', 'is_shown_otherwise', 'nobody'),
      ('function', 'lock_affected', 'nobody'),
      ('function', 'lock_writers', 'nobody'),
      ('function', 'note_ddl', 'nobody'),
      ('function', 'note_tables', 'nobody'),
      ('function', 'noted_tables', 'nobody'),
      ('function', 'users_of_types', 'nobody'),
      -- tracking/recorded_names.sql
      ('function', 'recorded_names', 'PUBLIC'),
      ('function', 'recorded_oid', 'PUBLIC'),
      ('function', 'table_at', 'PUBLIC'),
      ('function', 'table_names', 'PUBLIC'),
      -- recorder/sources.sql
      ('function', 'continue_source', 'nobody'),
      ('function', 'current_source', 'nobody'),
      ('function', 'is_of_another', 'nobody'),
      ('function', 'is_replaced', 'nobody'),
      ('function', 'keep_versions', 'nobody'),
      ('function', 'present_source', 'PUBLIC'),
      ('function', 'require_own_trail', 'nobody'),
      -- recorder/adopt.sql
      ('function', 'adopt_table', 'nobody'),
      ('function', 'adopt_versions', 'nobody'),
      ('function', 'copy_versions', 'nobody'),
      ('function', 'equal_parts', 'nobody'),
      ('function', 'lost_labels', 'nobody'),
      ('function', 'lost_types', 'nobody'),
      ('function', 'move_versions', 'nobody'),
      ('function', 'numbers_today', 'PUBLIC'),
      ('function', 'renumbered_rewrites', 'nobody'),
      ('function', 'renumbered_types', 'nobody'),
      ('function', 'restored_table', 'PUBLIC'),
      ('function', 'type_today', 'nobody'),
      ('function', 'types_today', 'nobody'),
      -- history/columns.sql
      ('function', 'column_names', 'PUBLIC'),
      ('function', 'is_as_ever', 'PUBLIC'),
      ('function', 'keys_today', 'PUBLIC'),
      ('function', 'masked_columns', 'PUBLIC'),
      ('function', 'renamed_columns', 'PUBLIC'),
      ('function', 'report_rewrites', 'PUBLIC'),
      -- history/image.sql
      ('function', 'enum_number', 'PUBLIC'),
      ('function', 'image_problems', 'PUBLIC'),
      ('function', 'image_row', 'PUBLIC'),
      ('function', 'image_today', 'PUBLIC'),
      ('function', 'key_value', 'PUBLIC'),
      ('function', 'require_input', 'PUBLIC'),
      ('function', 'time_at', 'PUBLIC'),
      ('function', 'type_parts', 'PUBLIC'),
      ('function', 'value_text', 'PUBLIC'),
      ('function', 'versions_of', 'PUBLIC'),
      ('function', 'whole', 'PUBLIC'),
      -- history/past.sql
      ('function', 'leaves', 'PUBLIC'),
      ('function', 'qualified_name', 'PUBLIC'),
      ('function', 'recorded_position', 'PUBLIC'),
      ('function', 'recorded_since', 'PUBLIC'),
      ('function', 'recorded_tree', 'PUBLIC'),
      ('function', 'require_changes', 'PUBLIC'),
      ('function', 'require_select', 'PUBLIC'),
      ('function', 'table_of_type', 'PUBLIC'),
      -- history/key.sql
      ('function', 'key_comparison', 'PUBLIC'),
      ('function', 'key_index', 'PUBLIC'),
      ('function', 'key_of', 'PUBLIC'),
      ('function', 'key_type', 'PUBLIC'),
      ('function', 'require_comparable', 'PUBLIC'),
      -- history/former.sql
      ('function', 'columns_before', 'PUBLIC'),
      ('function', 'farewells', 'PUBLIC'),
      ('function', 'former_partitions', 'PUBLIC'),
      ('function', 'former_versions', 'PUBLIC'),
      ('function', 'key_names', 'PUBLIC'),
      ('function', 'recorded_past', 'PUBLIC'),
      ('function', 'unknown_former', 'PUBLIC'),
      -- history/unknown.sql
      ('function', 'report_uncertain', 'PUBLIC'),
      ('function', 'require_keys', 'PUBLIC'),
      ('function', 'require_past', 'PUBLIC'),
      ('function', 'require_unchanged', 'PUBLIC'),
      ('function', 'unknown_past', 'PUBLIC'),
      ('function', 'versions_since', 'PUBLIC'),
      -- history/late.sql
      ('function', 'current_command', 'PUBLIC'),
      ('function', 'late_changes', 'PUBLIC'),
      ('function', 'latest_changes', 'PUBLIC'),
      ('function', 'read_latest_changes', 'nobody'),
      -- history/as_of_columns.sql
      ('function', 'columns_of_past', 'PUBLIC'),
      ('function', 'virtual_column', 'PUBLIC'),
      ('function', 'virtual_query', 'PUBLIC'),
      -- history/as_of.sql
      ('function', 'as_of', 'PUBLIC'),
      ('function', 'as_of_plan', 'nobody'),
      ('function', 'as_of_query', 'PUBLIC'),
      ('function', 'as_of_ready', 'nobody'),
      ('function', 'as_of_rows', 'PUBLIC'),
      ('function', 'as_of_select', 'PUBLIC'),
      ('function', 'as_of_source', 'PUBLIC'),
      ('function', 'as_of_support', 'nobody'),
      ('function', 'as_of_with', 'PUBLIC'),
      ('function', 'earlier_events', 'PUBLIC'),
      ('function', 'later_events', 'PUBLIC'),
      -- history/keys.sql
      ('function', 'equal_keys', 'PUBLIC'),
      ('function', 'key_condition', 'PUBLIC'),
      ('function', 'key_members', 'PUBLIC'),
      ('function', 'recorded_keys', 'PUBLIC'),
      ('function', 'texts_of_key', 'PUBLIC'),
      ('function', 'texts_of_member', 'PUBLIC'),
      -- history/life.sql
      ('function', 'changes_of_key', 'PUBLIC'),
      ('function', 'changes_of_life', 'PUBLIC'),
      ('function', 'diff', 'PUBLIC'),
      ('function', 'life_after', 'PUBLIC'),
      ('function', 'life_before', 'PUBLIC'),
      ('function', 'life_of', 'PUBLIC'),
      ('function', 'truncates', 'PUBLIC'),
      -- history/history.sql
      ('function', 'before_history', 'PUBLIC'),
      ('function', 'history', 'PUBLIC'),
      ('function', 'last_without_key', 'PUBLIC'),
      ('function', 'named_history', 'PUBLIC'),
      ('function', 'named_table', 'PUBLIC'),
      ('function', 'recorded_history', 'PUBLIC'),
      -- history/truncated.sql
      ('function', 'truncated_problem', 'PUBLIC'),
      ('function', 'truncated_rows', 'PUBLIC'),
      ('function', 'was_empty', 'PUBLIC'),
      -- history/revert
      ('function', 'base_type', 'PUBLIC'),
      ('function', 'equality', 'PUBLIC'),
      ('function', 'linked', 'PUBLIC'),
      ('function', 'links', 'PUBLIC'),
      ('function', 'literal_kind', 'PUBLIC'),
      ('function', 'silent_references', 'PUBLIC'),
      ('function', 'undo_columns', 'PUBLIC'),
      ('function', 'undo_table', 'PUBLIC'),
      ('function', 'undo_table_columns', 'PUBLIC'),
      ('function', 'check_reading', 'PUBLIC'),
      ('function', 'column_problem', 'PUBLIC'),
      ('function', 'is_still', 'PUBLIC'),
      ('function', 'key_text', 'PUBLIC'),
      ('function', 'literal', 'PUBLIC'),
      ('function', 'made_text', 'PUBLIC'),
      ('function', 'masked_in', 'PUBLIC'),
      ('function', 'plan_undo', 'PUBLIC'),
      ('function', 'refuse_ambiguous', 'PUBLIC'),
      ('function', 'refuse_table', 'PUBLIC'),
      ('function', 'quoted', 'PUBLIC'),
      ('function', 'refuse_undo', 'PUBLIC'),
      ('function', 'rows_to_undo', 'PUBLIC'),
      ('function', 'selection_conditions', 'PUBLIC'),
      ('function', 'selected_key_condition', 'PUBLIC'),
      ('function', 'selected_keys', 'PUBLIC'),
      ('function', 'selection', 'PUBLIC'),
      ('function', 'undo_image', 'PUBLIC'),
      ('function', 'undo_problem', 'PUBLIC'),
      ('function', 'undo_problems', 'PUBLIC'),
      ('function', 'undo_statement', 'PUBLIC'),
      ('function', 'undone_table', 'PUBLIC'),
      ('function', 'undos', 'PUBLIC'),
      ('function', 'undo_of', 'PUBLIC'),
      ('function', 'undos_of_truncate', 'PUBLIC'),
      ('function', 'where_key', 'PUBLIC'),
      ('function', 'acts_on_others', 'PUBLIC'),
      ('function', 'attempt', 'PUBLIC'),
      ('function', 'cascaded', 'PUBLIC'),
      ('function', 'cascading', 'PUBLIC'),
      ('function', 'checked', 'PUBLIC'),
      ('function', 'differences', 'PUBLIC'),
      ('function', 'is_conflict', 'PUBLIC'),
      ('function', 'jsonb_or_text', 'PUBLIC'),
      ('function', 'referring_rows', 'PUBLIC'),
      ('function', 'revert_sql', 'PUBLIC'),
      ('function', 'row_conflict', 'PUBLIC'),
      ('function', 'row_now', 'PUBLIC'),
      ('function', 'run_undo', 'PUBLIC'),
      ('function', 'shown_statement', 'PUBLIC'),
      ('function', 'check_undoing', 'PUBLIC'),
      ('function', 'declare_constraints', 'PUBLIC'),
      ('function', 'given_up', 'PUBLIC'),
      ('function', 'is_watched', 'PUBLIC'),
      ('function', 'refuse_conflicts', 'PUBLIC'),
      ('function', 'refuse_unsettled', 'PUBLIC'),
      ('function', 'revert', 'PUBLIC'),
      ('function', 'revert_selection', 'PUBLIC'),
      ('function', 'run_undos', 'PUBLIC'),
      ('function', 'settle', 'PUBLIC'),
      ('function', 'wanted_row', 'PUBLIC'),
      -- Who may read tables and views, and use types for columns.
      ('table', 'context_triggers', 'PUBLIC'),
      ('table', 'dropped_triggers', 'PUBLIC'),
      ('table', 'status', 'pg_monitor'),
      ('table', 'table_versions', 'PUBLIC'),
      ('table', 'tracked', 'PUBLIC'),
      ('table', 'tracked_schemas', 'PUBLIC'),
      ('type', 'attempt', 'nobody'),
      ('type', 'key_change', 'nobody'),
      ('type', 'key_column', 'nobody'),
      ('type', 'reverted', 'PUBLIC'),
      ('type', 'undo', 'nobody')
    ), made AS (
      SELECT d.classid, d.objid,
        CASE d.classid
          WHEN 'pg_proc'::regclass THEN 'function'
          WHEN 'pg_type'::regclass THEN 'type'
          ELSE 'table'
        END AS kind,
        i.identity,
        COALESCE(p.proname, t.typname, c.relname)::text AS name,
        COALESCE(p.proacl, t.typacl, c.relacl, acldefault((CASE d.classid
          WHEN 'pg_proc'::regclass THEN 'f'
          WHEN 'pg_type'::regclass THEN 'T'
          ELSE 'r' END)::"char", 10)) AS acl,
        COALESCE(p.proowner, t.typowner, c.relowner) AS owner
      FROM pg_extension e
        JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e'::"char"
        LEFT JOIN pg_proc p ON d.classid = 'pg_proc'::regclass AND p.oid = d.objid
        LEFT JOIN pg_type t ON d.classid = 'pg_type'::regclass AND t.oid = d.objid
        LEFT JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid,
        LATERAL pg_identify_object(d.classid, d.objid, 0) i
      WHERE e.extname = 'bemi'::name
        AND d.classid = ANY (ARRAY['pg_proc', 'pg_type', 'pg_class']::regclass[]::oid[])
        -- A build for tests inside the server has a schema tests.
        AND i.schema = 'bemi'::text
        -- An array has the rights of its elements; nobody uses the row types of tables.
        AND NOT EXISTS (SELECT FROM pg_type y WHERE d.classid = 'pg_type'::regclass AND y.typarray = d.objid)
        AND NOT EXISTS (SELECT FROM pg_class y WHERE y.oid = t.typrelid AND y.relkind <> 'c'::"char")
    )
    SELECT m.*, COALESCE(m.kind, d.kind) AS what, COALESCE(m.identity, d.name) AS called, d.who,
      CASE m.kind WHEN 'function' THEN 'EXECUTE' WHEN 'type' THEN 'USAGE' ELSE 'SELECT' END AS privilege
    FROM made m
      FULL JOIN decisions d ON d.kind = m.kind AND d.name = m.name
    ORDER BY m.identity
  LOOP
    IF made.who IS NULL OR made.objid IS NULL THEN
      RAISE EXCEPTION 'the % % %', made.what, made.called,
        CASE WHEN made.who IS NULL THEN 'has no line in grants.sql' ELSE 'in grants.sql does not exist' END;
    END IF;
    is_given := false;
    FOR other IN
      SELECT COALESCE(quote_ident(r.rolname), 'PUBLIC') AS grantee,
        bool_and(a.privilege_type = made.privilege AND NOT a.is_grantable) AS is_it
      FROM aclexplode(made.acl) a LEFT JOIN pg_roles r ON r.oid = a.grantee
      WHERE a.grantee <> made.owner
        AND NOT granted @> jsonb_build_array(jsonb_build_array(made.classid, made.objid, a.grantee)) GROUP BY r.rolname
    LOOP
      IF other.is_it AND other.grantee = made.who THEN
        is_given := true;
      ELSE
        EXECUTE format('REVOKE ALL ON %s %s FROM %s CASCADE', made.kind, made.identity, other.grantee);
      END IF;
    END LOOP;
    IF made.who <> 'nobody' AND NOT is_given THEN
      EXECUTE format('GRANT %s ON %s %s TO %s', made.privilege, made.kind, made.identity, made.who);
    END IF;
  END LOOP;
END
$do$;

SELECT bemi.require_safe();
