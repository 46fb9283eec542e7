-- Who may do what: the last word of the script. Default privileges may have given to others what it made, or kept it from
-- everyone; so all rights of others are taken away first, and those that are meant are given then.
--
-- PUBLIC may call what users call, and what that calls with the rights of the caller. Nobody but superusers, and those to whom
-- they grant it, may call the rest: what the recorder, event triggers and functions with SECURITY DEFINER call.

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
      -- guard.sql
      ('function', 'own_alone', 'nobody'),
      ('function', 'own_tables', 'PUBLIC'),
      ('function', 'removal', 'PUBLIC'),
      ('function', 'require_safe', 'nobody'),
      ('function', 'require_safe_tables', 'nobody'),
      ('function', 'is_plain', 'nobody'),
      ('function', 'refuse_unsafe', 'nobody'),
      ('function', 'require_readable', 'nobody'),
      ('function', 'unsafe', 'PUBLIC'),
      ('function', 'unsafe_code', 'PUBLIC'),
      ('function', 'unsafe_objects', 'PUBLIC'),
      ('function', 'unsafe_tables', 'PUBLIC'),
      -- context.sql
      ('function', 'clear_context', 'PUBLIC'),
      ('function', 'context', 'PUBLIC'),
      ('function', 'merge_context', 'PUBLIC'),
      ('function', 'set_context', 'PUBLIC'),
      -- trigger.sql
      ('function', 'emit_context', 'PUBLIC'),
      -- publications.sql
      ('function', 'identity_columns', 'PUBLIC'),
      ('function', 'identity_conflict', 'PUBLIC'),
      ('function', 'identity_problem', 'PUBLIC'),
      ('function', 'identity_remedy', 'PUBLIC'),
      ('function', 'names_of_columns', 'PUBLIC'),
      ('function', 'publication_without_bemi', 'PUBLIC'),
      ('function', 'publications_of', 'PUBLIC'),
      ('function', 'publications_of_bemi', 'PUBLIC'),
      ('function', 'published_schemas_of', 'PUBLIC'),
      ('function', 'tables_for_subscribers', 'PUBLIC'),
      ('function', 'warn_of_conflicts', 'PUBLIC'),
      ('function', 'warn_of_publications', 'PUBLIC'),
      -- tracking.sql
      ('function', 'fitting_identity', 'PUBLIC'),
      ('function', 'has_trigger', 'PUBLIC'),
      ('function', 'identity', 'PUBLIC'),
      ('function', 'identity_before', 'PUBLIC'),
      ('function', 'identity_index', 'PUBLIC'),
      ('function', 'key_columns', 'PUBLIC'),
      ('function', 'lock', 'PUBLIC'),
      ('function', 'obstacle', 'PUBLIC'),
      ('function', 'put_trigger', 'PUBLIC'),
      ('function', 'require_columns', 'PUBLIC'),
      ('function', 'rules', 'PUBLIC'),
      ('function', 'set_identity', 'PUBLIC'),
      ('function', 'table_rules', 'PUBLIC'),
      ('function', 'track', 'PUBLIC'),
      ('function', 'track_one', 'PUBLIC'),
      ('function', 'tree', 'PUBLIC'),
      ('function', 'untrack', 'PUBLIC'),
      ('function', 'untrack_one', 'PUBLIC'),
      -- drops.sql
      ('function', 'before_drop_trigger', 'nobody'),
      ('function', 'guard_drops', 'nobody'),
      ('function', 'guard_owned', 'nobody'),
      ('function', 'keep_table', 'nobody'),
      ('function', 'kept_tables', 'PUBLIC'),
      ('function', 'may_drop', 'PUBLIC'),
      ('function', 'put_back', 'nobody'),
      ('function', 'refuse_truncate', 'nobody'),
      ('function', 'release_tables', 'nobody'),
      -- masks.sql
      ('function', 'inherited_masks', 'PUBLIC'),
      ('function', 'mask_heirs', 'PUBLIC'),
      ('function', 'masked_attributes', 'PUBLIC'),
      ('function', 'masks', 'PUBLIC'),
      ('function', 'numbers_rule', 'PUBLIC'),
      ('function', 'parents', 'PUBLIC'),
      ('function', 'renew_masks', 'PUBLIC'),
      ('function', 'track_again', 'PUBLIC'),
      ('function', 'untracked_above', 'PUBLIC'),
      ('function', 'untracked_heirs', 'PUBLIC'),
      ('function', 'was_made_with_rows', 'PUBLIC'),
      -- future.sql
      ('function', 'await_makers', 'nobody'),
      ('function', 'before_ddl', 'nobody'),
      ('function', 'follow', 'nobody'),
      ('function', 'follow_ddl', 'nobody'),
      ('function', 'follow_rename', 'PUBLIC'),
      ('function', 'follow_schema', 'nobody'),
      ('function', 'follow_table', 'PUBLIC'),
      ('function', 'followed', 'nobody'),
      ('function', 'make_way_for_view', 'nobody'),
      ('function', 'on_ddl', 'nobody'),
      ('function', 'pass_over_known_schema', 'nobody'),
      ('function', 'track_all', 'PUBLIC'),
      ('function', 'trackable', 'PUBLIC'),
      ('function', 'try_lock_tracking', 'nobody'),
      ('function', 'untrack_all', 'PUBLIC'),
      -- bemihq.sql
      ('function', 'bemihq_objects', 'PUBLIC'),
      ('function', 'replace_bemihq', 'PUBLIC'),
      -- doctor_tracking.sql
      ('function', 'doctor_of_ownership', 'PUBLIC'),
      ('function', 'doctor_of_publications', 'PUBLIC'),
      ('function', 'doctor_of_rules', 'PUBLIC'),
      ('function', 'doctor_of_tables', 'PUBLIC'),
      ('function', 'rules_by_others', 'PUBLIC'),
      ('function', 'some_of', 'PUBLIC'),
      ('function', 'was_tracked', 'PUBLIC'),
      -- library.sql
      ('function', 'doctor_of_library', 'PUBLIC'),
      ('function', 'library_checksum', 'PUBLIC'),
      ('function', 'library_version', 'PUBLIC'),
      ('function', 'sql_checksum', 'PUBLIC'),
      -- doctor.sql
      ('function', 'doctor', 'PUBLIC'),
      ('function', 'setting', 'PUBLIC'),
      -- changes.sql
      ('function', 'add_partition', 'nobody'),
      ('function', 'change_id', 'PUBLIC'),
      ('function', 'place', 'PUBLIC'),
      ('function', 'place_position', 'PUBLIC'),
      ('function', 'place_source', 'PUBLIC'),
      ('function', 'grant_as_changes', 'nobody'),
      ('function', 'has_strays', 'nobody'),
      ('function', 'keep_partitions', 'nobody'),
      ('function', 'make_changes', 'nobody'),
      ('function', 'make_changes_diff', 'nobody'),
      ('function', 'make_sources', 'nobody'),
      ('function', 'require_owner', 'nobody'),
      -- recorder.sql
      ('function', 'before_drop', 'nobody'),
      ('function', 'create_slot', 'nobody'),
      ('function', 'end_recorder', 'nobody'),
      ('function', 'flush_log', 'nobody'),
      ('function', 'launch', 'nobody'),
      ('function', 'lock_recorder', 'nobody'),
      ('function', 'new_recorder_slot', 'nobody'),
      ('function', 'recorded_until', 'nobody'),
      ('function', 'recorder_pid', 'nobody'),
      ('function', 'recorder_slot', 'PUBLIC'),
      ('function', 'recorder_slots', 'nobody'),
      ('function', 'recorder_status', 'pg_monitor'),
      ('function', 'slot_problem', 'nobody'),
      ('function', 'start', 'nobody'),
      ('function', 'stop', 'nobody'),
      ('function', 'sync', 'PUBLIC'),
      ('function', 'wake', 'nobody'),
      -- types.sql
      ('function', 'cast_settings', 'PUBLIC'),
      ('function', 'defined_types', 'PUBLIC'),
      ('function', 'rewrites', 'nobody'),
      ('function', 'rewritten_columns', 'nobody'),
      ('function', 'tables_of_types', 'PUBLIC'),
      ('function', 'types_of', 'PUBLIC'),
      -- versions.sql
      ('function', 'altered_types', 'PUBLIC'),
      ('function', 'is_shown_otherwise', 'nobody'),
      ('function', 'noted_tables', 'nobody'),
      ('function', 'latest_versions', 'nobody'),
      ('function', 'lock_writers', 'nobody'),
      ('function', 'new_versions', 'PUBLIC'),
      ('function', 'note_ddl', 'nobody'),
      ('function', 'note_table', 'nobody'),
      ('function', 'note_versions', 'nobody'),
      ('function', 'present_versions', 'PUBLIC'),
      ('function', 'read_new_versions', 'nobody'),
      ('function', 'recorded_names', 'PUBLIC'),
      ('function', 'recorded_oid', 'PUBLIC'),
      ('function', 'table_at', 'PUBLIC'),
      ('function', 'table_names', 'PUBLIC'),
      -- sources.sql
      ('function', 'renumbered_types', 'nobody'),
      ('function', 'type_today', 'nobody'),
      ('function', 'types_today', 'nobody'),
      ('function', 'adopt_table', 'nobody'),
      ('function', 'adopt_versions', 'nobody'),
      ('function', 'continue_source', 'nobody'),
      ('function', 'current_source', 'nobody'),
      ('function', 'is_of_another', 'nobody'),
      ('function', 'is_replaced', 'nobody'),
      ('function', 'keep_versions', 'nobody'),
      ('function', 'numbers_today', 'PUBLIC'),
      ('function', 'present_source', 'PUBLIC'),
      ('function', 'require_own_trail', 'nobody'),
      ('function', 'restored_table', 'PUBLIC'),
      -- image.sql
      ('function', 'column_names', 'PUBLIC'),
      ('function', 'enum_number', 'PUBLIC'),
      ('function', 'image_expression', 'PUBLIC'),
      ('function', 'image_problems', 'PUBLIC'),
      ('function', 'image_row', 'PUBLIC'),
      ('function', 'image_today', 'PUBLIC'),
      ('function', 'is_as_ever', 'PUBLIC'),
      ('function', 'key_value', 'PUBLIC'),
      ('function', 'keys_today', 'PUBLIC'),
      ('function', 'masked_columns', 'PUBLIC'),
      ('function', 'renamed_columns', 'PUBLIC'),
      ('function', 'require_input', 'PUBLIC'),
      ('function', 'tell_rewrites', 'PUBLIC'),
      ('function', 'time_at', 'PUBLIC'),
      ('function', 'value_text', 'PUBLIC'),
      ('function', 'versions_of', 'PUBLIC'),
      ('function', 'whole', 'PUBLIC'),
      -- past.sql
      ('function', 'key_of', 'PUBLIC'),
      ('function', 'leaves', 'PUBLIC'),
      ('function', 'recorded_position', 'PUBLIC'),
      ('function', 'recorded_since', 'PUBLIC'),
      ('function', 'recorded_tree', 'PUBLIC'),
      ('function', 'require_past', 'PUBLIC'),
      ('function', 'require_select', 'PUBLIC'),
      ('function', 'table_of_type', 'PUBLIC'),
      ('function', 'unknown_past', 'PUBLIC'),
      -- former.sql
      ('function', 'farewells', 'PUBLIC'),
      ('function', 'former_partitions', 'PUBLIC'),
      ('function', 'recorded_past', 'PUBLIC'),
      ('function', 'unknown_former', 'PUBLIC'),
      -- as_of.sql
      ('function', 'as_of', 'PUBLIC'),
      ('function', 'as_of_plan', 'nobody'),
      ('function', 'as_of_query', 'PUBLIC'),
      ('function', 'as_of_ready', 'nobody'),
      ('function', 'as_of_rows', 'PUBLIC'),
      ('function', 'as_of_support', 'nobody'),
      ('function', 'columns_of_past', 'PUBLIC'),
      ('function', 'current_command', 'PUBLIC'),
      ('function', 'late_changes', 'PUBLIC'),
      ('function', 'latest_changes', 'PUBLIC'),
      ('function', 'read_latest_changes', 'nobody'),
      ('function', 'virtual_column', 'PUBLIC'),
      ('function', 'virtual_query', 'PUBLIC'),
      -- keys.sql
      ('function', 'equal_keys', 'PUBLIC'),
      ('function', 'key_condition', 'PUBLIC'),
      ('function', 'key_members', 'PUBLIC'),
      ('function', 'recorded_keys', 'PUBLIC'),
      ('function', 'texts_of_key', 'PUBLIC'),
      ('function', 'texts_of_member', 'PUBLIC'),
      -- history.sql
      ('function', 'before_history', 'PUBLIC'),
      ('function', 'changes_of_key', 'PUBLIC'),
      ('function', 'diff', 'PUBLIC'),
      ('function', 'history', 'PUBLIC'),
      ('function', 'last_without_key', 'PUBLIC'),
      ('function', 'life_after', 'PUBLIC'),
      ('function', 'life_before', 'PUBLIC'),
      ('function', 'life_of', 'PUBLIC'),
      ('function', 'named_history', 'PUBLIC'),
      ('function', 'named_table', 'PUBLIC'),
      ('function', 'recorded_history', 'PUBLIC'),
      ('function', 'require_changes', 'PUBLIC'),
      ('function', 'truncates', 'PUBLIC'),
      -- truncated.sql
      ('function', 'truncated_rows', 'PUBLIC'),
      -- revert_table.sql
      ('function', 'base_type', 'PUBLIC'),
      ('function', 'equality', 'PUBLIC'),
      ('function', 'linked', 'PUBLIC'),
      ('function', 'links', 'PUBLIC'),
      ('function', 'literal_kind', 'PUBLIC'),
      ('function', 'silent_references', 'PUBLIC'),
      ('function', 'undo_table', 'PUBLIC'),
      -- revert_plan.sql
      ('function', 'check_reading', 'PUBLIC'),
      ('function', 'is_still', 'PUBLIC'),
      ('function', 'key_text', 'PUBLIC'),
      ('function', 'literal', 'PUBLIC'),
      ('function', 'made_text', 'PUBLIC'),
      ('function', 'masked_in', 'PUBLIC'),
      ('function', 'plan_undo', 'PUBLIC'),
      ('function', 'quoted', 'PUBLIC'),
      ('function', 'refuse_undo', 'PUBLIC'),
      ('function', 'rows_to_undo', 'PUBLIC'),
      ('function', 'selected_keys', 'PUBLIC'),
      ('function', 'undo_image', 'PUBLIC'),
      ('function', 'undo_problem', 'PUBLIC'),
      ('function', 'undo_problems', 'PUBLIC'),
      ('function', 'undo_statement', 'PUBLIC'),
      ('function', 'undone_table', 'PUBLIC'),
      ('function', 'undos', 'PUBLIC'),
      ('function', 'where_key', 'PUBLIC'),
      -- revert.sql
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
      -- revert_run.sql
      ('function', 'bucket', 'PUBLIC'),
      ('function', 'check_undoing', 'PUBLIC'),
      ('function', 'declare_constraints', 'PUBLIC'),
      ('function', 'revert', 'PUBLIC'),
      ('function', 'revert_selection', 'PUBLIC'),
      ('function', 'is_settled', 'PUBLIC'),
      ('function', 'settle', 'PUBLIC'),
      ('function', 'wanted_row', 'PUBLIC'),
      -- Tables and views can be read by those, types used for columns.
      ('table', 'context_triggers', 'PUBLIC'),
      ('table', 'dropped_triggers', 'PUBLIC'),
      ('table', 'status', 'pg_monitor'),
      ('table', 'table_versions', 'PUBLIC'),
      ('table', 'tracked', 'PUBLIC'),
      ('table', 'tracked_schemas', 'PUBLIC'),
      ('type', 'attempt', 'nobody'),
      ('type', 'key_change', 'nobody'),
      ('type', 'reverted', 'PUBLIC'),
      ('type', 'undo', 'nobody')
    ), made AS (
      SELECT d.classid, d.objid, CASE d.classid WHEN 'pg_proc'::regclass THEN 'function' WHEN 'pg_type'::regclass THEN 'type' ELSE 'table' END AS kind, i.identity,
        COALESCE(p.proname, t.typname, c.relname)::text AS name,
        COALESCE(p.proacl, t.typacl, c.relacl, acldefault((CASE d.classid WHEN 'pg_proc'::regclass THEN 'f' WHEN 'pg_type'::regclass THEN 'T' ELSE 'r' END)::"char", 10)) AS acl,
        COALESCE(p.proowner, t.typowner, c.relowner) AS owner
      FROM pg_extension e JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e'::"char"
      LEFT JOIN pg_proc p ON d.classid = 'pg_proc'::regclass AND p.oid = d.objid
      LEFT JOIN pg_type t ON d.classid = 'pg_type'::regclass AND t.oid = d.objid
      LEFT JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid, LATERAL pg_identify_object(d.classid, d.objid, 0) i
      WHERE e.extname = 'bemi'::name AND d.classid = ANY (ARRAY['pg_proc', 'pg_type', 'pg_class']::regclass[]::oid[])
        -- A build for tests inside the server has a schema tests.
        AND i.schema = 'bemi'::text
        -- An array has the rights of its elements; nobody uses the row types of tables.
        AND NOT EXISTS (SELECT FROM pg_type y WHERE d.classid = 'pg_type'::regclass AND y.typarray = d.objid)
        AND NOT EXISTS (SELECT FROM pg_class y WHERE y.oid = t.typrelid AND y.relkind <> 'c'::"char")
    )
    SELECT m.*, COALESCE(m.kind, d.kind) AS what, COALESCE(m.identity, d.name) AS called, d.who,
      CASE m.kind WHEN 'function' THEN 'EXECUTE' WHEN 'type' THEN 'USAGE' ELSE 'SELECT' END AS privilege
    FROM made m FULL JOIN decisions d ON d.kind = m.kind AND d.name = m.name ORDER BY m.identity
  LOOP
    IF made.who IS NULL OR made.objid IS NULL THEN
      RAISE EXCEPTION 'the % % %', made.what, made.called, CASE WHEN made.who IS NULL THEN 'has no line in grants.sql' ELSE 'of grants.sql does not exist' END;
    END IF;
    is_given := false;
    FOR other IN
      SELECT COALESCE(quote_ident(r.rolname), 'PUBLIC') AS grantee,
        bool_and(a.privilege_type = made.privilege AND NOT a.is_grantable) AS is_it
      FROM aclexplode(made.acl) a LEFT JOIN pg_roles r ON r.oid = a.grantee
      WHERE a.grantee <> made.owner
        AND NOT granted @> jsonb_build_array(jsonb_build_array(made.classid, made.objid, a.grantee))
      GROUP BY r.rolname
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

-- Of what was made beforehand, now that all names are known.
SELECT bemi.require_safe();
