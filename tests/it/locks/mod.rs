//! One contract for every lock store, and what each store must do besides.

mod contract;
mod figures;
mod handover;
pub(crate) mod lab;
mod mysql;
mod settings;
mod sqlite;

/// Runs each clause against each store; a store without a server is skipped loudly.
macro_rules! judge {
    ($store:ident, $kind:expr, $($module:ident::$clause:ident),* $(,)?) => {
        mod $store {
            $(
                #[test]
                fn $clause() {
                    crate::locks::lab::run($kind, stringify!($clause), crate::locks::$module::$clause);
                }
            )*
        }
    };
}

macro_rules! clauses {
    ($($store:ident = $kind:expr;)*) => {
        $(judge!(
            $store,
            $kind,
            contract::of_two_claimants_one_wins,
            contract::twelve_hundred_rows_go_in_one_call,
            contract::four_claimants_contend_without_a_double_winner_or_an_error,
            contract::a_claim_that_was_taken_over_is_not_renewed,
            contract::a_late_renewal_is_refused_even_if_nobody_took_the_row,
            contract::a_release_under_an_old_fence_passes_over,
            contract::a_row_is_taken_after_expiry_and_grace_and_not_before,
            contract::fences_only_grow_also_after_the_row_was_deleted,
            contract::previous_is_the_fence_before,
            contract::a_row_that_is_already_mine_is_won_again,
            contract::a_released_row_is_free_at_once_and_keeps_its_checkpoint,
            contract::a_checkpoint_survives_takeover_byte_for_byte,
            contract::a_checkpoint_that_is_too_large_is_a_clear_error,
            contract::clusters_do_not_see_each_other,
            contract::ids_that_differ_in_case_or_trailing_blanks_are_different_rows,
            contract::any_name_is_stored_as_it_is,
            contract::a_table_without_rows_still_tells_time_and_server,
            contract::verdicts_come_in_the_order_of_the_renewals,
            handover::a_row_is_asked_for_handed_and_taken_by_the_one_it_was_handed_to,
            handover::a_handed_row_that_nobody_takes_is_free_again_after_its_time,
            handover::a_request_can_be_refused,
            handover::a_request_for_another_fence_or_ones_own_row_is_ignored,
            handover::a_finished_row_is_not_claimable_and_can_be_forgotten,
            handover::a_row_that_is_not_finished_is_never_forgotten,
            handover::a_replica_is_alive_while_its_row_is_and_forgotten_a_minute_later,
            handover::an_evicted_row_is_free_when_its_holder_must_have_stopped,
            handover::an_evicted_row_that_nobody_held_stays_free,
        );)*
    };
}

clauses! {
    on_memory = crate::locks::lab::Kind::Memory;
    on_sqlite = crate::locks::lab::Kind::Sqlite;
    on_mysql = crate::locks::lab::Kind::MySql;
    on_mariadb = crate::locks::lab::Kind::MariaDb;
}

macro_rules! servers {
    ($($run:ident $module:ident::$clause:ident),* $(,)?) => {
        mod mysql_besides {
            $(#[test] fn $clause() { crate::locks::lab::$run(crate::locks::lab::Kind::MySql, stringify!($clause), crate::locks::$module::$clause); })*
        }
        mod mariadb_besides {
            $(#[test] fn $clause() { crate::locks::lab::$run(crate::locks::lab::Kind::MariaDb, stringify!($clause), crate::locks::$module::$clause); })*
        }
    };
}

servers! {
    run mysql::a_row_locked_by_an_open_transaction_costs_that_row_only,
    run mysql::a_deadlock_with_an_unsorted_client_is_survived,
    run mysql::a_connection_killed_in_mid_call_is_replaced,
    run mysql::a_statement_that_is_not_answered_fails_in_time_and_the_next_one_works,
    run mysql::a_call_given_up_half_way_does_not_hold_up_the_next,
    run mysql::a_statement_locks_no_row_it_does_not_name,
    run mysql::a_renewal_that_was_overtaken_stores_nothing,
    run settings::what_is_wrong_with_the_settings_is_named,
    run settings::a_user_without_rights_is_told_what_to_grant,
    run settings::tables_of_another_version_are_refused,
    run_empty settings::any_number_of_replicas_migrate_at_once,
}

mod sqlite_besides {
    use crate::locks::lab::{Kind, run_empty};

    macro_rules! files {
        ($($clause:ident),* $(,)?) => {
            $(#[test] fn $clause() { run_empty(Kind::Sqlite, stringify!($clause), crate::locks::sqlite::$clause); })*
        };
    }

    files! {
        a_file_that_cannot_be_used_is_explained,
        a_file_that_may_not_be_written_is_explained,
        any_number_of_replicas_migrate_at_once,
        a_writer_that_hangs_costs_time_and_not_the_claim,
        tables_of_another_version_are_refused,
    }
}
