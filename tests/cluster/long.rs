//! Which tests take long (8 s and more, of 630 s for all): `make test` runs each of them on PostgreSQL 18 and on one other
//! version, so that it ends within the hour. `make test-cluster` runs all of them on any version.

/// The versions that share them, each with its tests.
const SHARES: &[(u32, &[&str])] = &[
    (
        14,
        &[
            "a_million_changes_leave_the_walsender_as_small_as_it_was",
            "a_subscriber_that_stopped_goes_on_with_the_tables_that_it_is_given",
            "contexts_of_many_savepoints_come_back_from_a_file",
            "copy_gives_a_document_for_each_row_and_stays_a_bulk_load",
            "databases_in_other_encodings_give_ascii_documents",
            "history_of_one_key_reads_no_other_changes",
            "inherited_masks_do_not_make_a_table_tracked",
            "no_overload_fits_better_than_a_function_of_the_extension",
            "random_changes_of_random_tables_are_as_to_jsonb_saw_them",
            "random_transactions_can_be_reverted_and_so_can_the_reverts",
            "settings_of_the_database_do_not_stop_it",
            "streamed_and_unstreamed_histories_agree_with_the_model",
            "the_page_of_the_quickstart_takes_a_server_without_settings_and_one_restart",
            "the_past_behind_random_migrations_and_a_restore_is_exact_or_refused",
            "the_past_is_refused_on_a_standby_with_what_can_be_done_there",
            "the_past_of_one_key_reads_no_other_changes",
            "the_past_of_random_partitioned_tables_is_as_it_was_seen",
            "the_sql_of_each_page_runs_as_it_stands_and_prints_what_the_page_shows",
            "values_that_cannot_be_written_are_omitted_and_named",
            "what_others_hang_on_the_tables_of_an_earlier_installation_is_refused",
        ],
    ),
    (
        15,
        &[
            "a_generic_plan_reads_the_past_of_its_parameters",
            "a_lock_on_the_table_is_told_and_waited_for",
            "a_member_that_is_too_long_is_left_out_alone",
            "a_silent_transaction_does_not_time_out_its_client",
            "a_snapshot_taken_before_changes_were_recorded_sees_its_own_past",
            "a_table_that_belongs_to_no_superuser_is_not_written",
            "a_transaction_beyond_temp_file_limit_waits_until_there_is_room",
            "after_a_restore_into_a_server_that_is_further_on_the_past_is_in_order",
            "columns_changed_in_one_transaction_are_told_as_of_the_change",
            "everything_committed_before_sync_is_recorded",
            "generated_columns_of_any_type_and_modifier_are_computed",
            "reading_the_past_runs_no_constraint_of_a_domain",
            "rewritten_tables_give_no_documents_of_their_own",
            "the_past_may_stand_wherever_sql_has_a_table",
            "two_million_streamed_rows_leave_the_walsender_small",
            "types_changed_in_one_transaction_are_told_as_of_the_change",
            "what_a_transaction_has_changed_itself_gives_no_wrong_past",
            "what_others_put_into_the_schema_beforehand_is_refused_and_never_run",
        ],
    ),
    (
        16,
        &[
            "a_cast_to_json_of_a_user_is_never_called",
            "a_key_is_found_however_its_type_lets_it_be_written",
            "a_killed_recorder_records_each_change_once",
            "a_large_transaction_is_recorded_in_bounded_memory",
            "a_sum_that_no_transaction_changes_is_the_same_at_every_instant",
            "functions_views_and_cursors_read_the_past",
            "json_that_jsonb_cannot_hold_is_omitted",
            "names_changed_in_one_transaction_are_told_as_of_the_change",
            "nobody_reads_the_slot_while_the_recorder_waits",
            "nothing_is_left_out_for_what_others_added_to_the_table",
            "settings_of_the_reader_do_not_change_the_past",
            "small_transactions_do_not_fail_together",
            "tables_altered_beside_the_recorder_are_recorded_row_by_row",
            "the_past_behind_random_migrations_is_exact_or_the_column_that_is_not_is_told",
            "the_past_of_altered_tables_has_the_columns_of_today",
            "the_past_of_random_tables_is_as_it_was_seen",
            "thousands_of_tables_are_tracked_in_one_call",
            "values_that_are_left_out_need_no_memory",
        ],
    ),
    (
        17,
        &[
            "a_reader_without_memory_fails_alone_and_loses_nothing",
            "a_row_that_had_thousands_of_keys_has_its_history",
            "a_slot_whose_log_is_gone_leaves_a_gap_that_is_recorded",
            "a_statement_that_cannot_wait_for_writers_fails_and_is_not_left_without_a_note",
            "an_image_that_is_too_long_keeps_its_small_members",
            "beside_ddl_of_all_kinds_each_change_is_recorded_once_under_its_context_and_masked",
            "columns_of_any_type_and_modifier_may_be_added",
            "extension_types_are_as_to_jsonb_gives_them",
            "keys_and_replica_identities_changed_in_one_transaction_hold_from_there_on",
            "messages_too_long_for_an_encoding_do_not_stop_decoding",
            "preloaded_the_recorders_of_all_databases_come_back",
            "several_restores_in_a_row_keep_all_versions_in_order",
            "tables_altered_beside_cold_readers_stay_masked",
            "the_hooks_go_with_those_of_other_libraries",
            "the_past_is_explained",
            "the_past_is_read_in_read_only_and_failed_transactions_as_in_others",
            "types_that_nest_deep_or_wide_do_not_stop_decoding",
            "what_others_write_does_not_pile_up",
        ],
    ),
];

/// Whether a version runs a test, if `BEMI_TEST_SHARE` is set.
pub fn is_run(name: &str, major: u32) -> bool {
    let share = SHARES.iter().find(|(_, names)| names.contains(&name));
    major > 17 || std::env::var_os("BEMI_TEST_SHARE").is_none() || share.is_none_or(|(version, _)| *version == major)
}

/// The names, each of which has to be a test.
pub fn names() -> impl Iterator<Item = &'static str> {
    SHARES.iter().flat_map(|(_, names)| names.iter().copied())
}
