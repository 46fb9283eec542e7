-- Who may do what. This file comes last in the script. Default privileges may have granted rights on what the script
-- created to others, or revoked them from everyone; so all rights of others are revoked first, and the intended ones
-- are granted then.
--
-- PUBLIC may call what users call, and what those functions call with the rights of the caller. Only superusers, and
-- those to whom they grant it, may call the rest: what the recorder, event triggers and functions with SECURITY
-- DEFINER call.

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
      -- revert_table.sql
      ('function', 'base_type', 'PUBLIC'),
      ('function', 'equality', 'PUBLIC'),
      ('function', 'linked', 'PUBLIC'),
      ('function', 'links', 'PUBLIC'),
      ('function', 'literal_kind', 'PUBLIC'),
      ('function', 'silent_references', 'PUBLIC'),
      ('function', 'undo_columns', 'PUBLIC'),
      ('function', 'undo_table', 'PUBLIC'),
      ('function', 'undo_table_columns', 'PUBLIC'),
      -- revert_plan.sql
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
      -- revert.sql
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
      -- revert_run.sql
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
      FROM aclexplode(made.acl) a
        LEFT JOIN pg_roles r ON r.oid = a.grantee
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

-- Checks what existed before, now that all names are known.
SELECT bemi.require_safe();
