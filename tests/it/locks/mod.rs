//! One contract for every lock store, and further tests of each kind of store.

mod connect;
mod contract;
pub(crate) mod fixture;
mod handover;
mod latency;
mod mysql;
mod settings;
mod sqlite;

/// Makes a test of each clause for one store. Without its server, the test is skipped with a message.
macro_rules! test_store {
    ($store:ident, $kind:expr, $($module:ident::$clause:ident),* $(,)?) => {
        mod $store {
            $(
                #[test]
                fn $clause() {
                    crate::locks::fixture::run($kind, stringify!($clause), crate::locks::$module::$clause);
                }
            )*
        }
    };
}

macro_rules! clauses {
    ($($store:ident = $kind:expr;)*) => {
        $(test_store!(
            $store,
            $kind,
            contract::only_one_of_two_replicas_acquires_a_row,
            contract::twelve_hundred_rows_fit_in_one_call,
            contract::four_replicas_contend_without_errors_and_each_row_gets_one_holder,
            contract::a_claim_that_was_taken_over_is_not_renewed,
            contract::a_late_renewal_is_refused_even_if_nobody_acquired_the_row,
            contract::a_release_under_an_old_fence_is_ignored,
            contract::a_row_is_acquired_after_expiry_and_grace_but_not_before,
            contract::fences_grow_even_after_the_row_was_deleted,
            contract::a_claim_carries_the_previous_fence,
            contract::a_holder_can_acquire_its_own_row_again,
            contract::a_released_row_is_free_at_once_and_keeps_its_checkpoint,
            contract::a_checkpoint_survives_takeover_byte_for_byte,
            contract::a_checkpoint_that_is_too_large_is_refused_with_a_clear_error,
            contract::clusters_do_not_see_each_other,
            contract::ids_that_differ_in_case_or_trailing_spaces_are_different_rows,
            contract::any_name_is_stored_unchanged,
            contract::an_empty_table_still_reports_time_and_server,
            contract::renewal_outcomes_are_in_the_order_of_the_renewals,
            handover::a_requested_row_is_handed_over_and_acquired_by_the_requester,
            handover::a_row_handed_over_that_nobody_acquires_is_free_again_after_a_timeout,
            handover::a_request_can_be_declined,
            handover::a_request_for_an_old_fence_or_for_an_own_row_is_ignored,
            handover::a_finished_row_cannot_be_acquired_and_can_be_deleted,
            handover::an_unfinished_row_is_never_deleted,
            handover::a_replica_is_alive_while_its_row_is_and_is_deleted_a_minute_later,
            handover::a_force_released_row_is_free_once_its_holder_must_have_stopped,
            handover::a_force_released_row_that_nobody_held_stays_free,
        );)*
    };
}

clauses! {
    on_memory = crate::locks::fixture::StoreKind::Memory;
    on_sqlite = crate::locks::fixture::StoreKind::Sqlite;
    on_mysql = crate::locks::fixture::StoreKind::MySql;
    on_mariadb = crate::locks::fixture::StoreKind::MariaDb;
}

macro_rules! servers {
    ($($run:ident $module:ident::$clause:ident),* $(,)?) => {
        mod mysql_besides {
            $(#[test] fn $clause() { crate::locks::fixture::$run(crate::locks::fixture::StoreKind::MySql, stringify!($clause), crate::locks::$module::$clause); })*
        }
        mod mariadb_besides {
            $(#[test] fn $clause() { crate::locks::fixture::$run(crate::locks::fixture::StoreKind::MariaDb, stringify!($clause), crate::locks::$module::$clause); })*
        }
    };
}

servers! {
    run mysql::an_open_transaction_blocks_only_the_row_it_locks,
    run mysql::a_deadlock_with_a_client_that_locks_in_another_order_is_survived,
    run mysql::a_connection_killed_during_a_call_is_replaced,
    run mysql::a_statement_without_an_answer_times_out_and_the_next_one_works,
    run mysql::a_cancelled_call_does_not_delay_the_next_one,
    run mysql::a_statement_locks_only_the_rows_it_names,
    run mysql::a_renewal_that_arrives_after_a_newer_one_stores_no_checkpoint,
    run connect::a_password_that_is_changed_is_read_from_its_file_again,
    run connect::a_refused_log_in_is_repeated_rarely_and_at_once_when_its_file_changes,
    run connect::a_log_in_that_takes_longer_than_a_call_succeeds,
    run connect::a_log_in_that_works_without_tls_only_for_a_while_is_refused,
    run settings::unsuitable_server_settings_are_named,
    run settings::an_error_of_a_user_without_privileges_says_what_to_grant,
    run settings::tables_of_another_version_are_refused,
    run_empty connect::a_server_without_get_lock_matters_only_where_there_is_something_to_migrate,
    run_empty settings::many_replicas_can_migrate_at_once,
}

mod sqlite_besides {
    use crate::locks::fixture::{StoreKind, run_empty};

    macro_rules! files {
        ($($clause:ident),* $(,)?) => {
            $(#[test] fn $clause() { run_empty(StoreKind::Sqlite, stringify!($clause), crate::locks::sqlite::$clause); })*
        };
    }

    files! {
        the_error_for_an_unusable_file_says_why,
        the_error_for_a_read_only_file_says_why,
        many_replicas_can_migrate_at_once,
        a_writer_that_blocks_the_file_delays_a_renewal_but_costs_no_claim,
        tables_of_another_version_are_refused,
    }
}
