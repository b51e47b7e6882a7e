//! The list of all scenarios, and the test that plays each of them. The order matters: the longest come first, and
//! those with many processes last, so that they delay no other.

use crate::parallel::{Scenario, play};

/// A scenario takes one of the places in [`crate::parallel`].
const ONE: usize = 1;

/// A scenario with hundreds of pods and six processes on a server takes as many places as two others.
const CROWD: usize = 2;

macro_rules! scenarios {
    ($($module:ident takes $places:ident { $($name:ident),* $(,)? })*) => {
        const ALL: &[Scenario] = &[$($(
            Scenario {
                name: concat!(module_path!(), "::", stringify!($module), "::", stringify!($name)),
                places: $places,
                body: crate::$module::$name,
            }
        ),*),*];

        $(mod $module {
            $(#[test] fn $name() {
                super::play(super::ALL, concat!(module_path!(), "::", stringify!($name)));
            })*
        })*
    };
}

scenarios! {
    crashes takes ONE {
        a_killed_database_comes_back_with_every_claim_and_every_line_once,
        a_database_that_becomes_read_only_is_abandoned_and_used_again_when_writable,
        claims_on_a_read_only_server_end_although_the_sink_accepts_records,
        expiry_times_of_a_replaced_server_are_not_trusted_for_one_ttl,
        renewals_continue_when_the_server_has_no_free_connection,
        a_clock_jump_moves_no_pod_for_one_ttl_and_a_jump_back_or_a_time_zone_none_at_all,
    }
    rotation takes ONE {
        a_password_that_is_changed_costs_no_claim_and_no_line,
        a_ca_that_is_replaced_with_the_certificate_of_the_server_costs_no_claim_and_no_line,
        a_client_certificate_that_is_replaced_costs_no_claim_and_no_line,
        credentials_of_the_api_server_that_are_replaced_cost_no_claim_and_no_line,
    }
    signals takes ONE {
        the_pods_of_a_killed_process_are_taken_over_within_a_ttl,
        a_process_that_gets_sigterm_hands_over_within_two_seconds,
        a_second_signal_ends_a_process_at_once_and_its_claims_expire,
        a_holder_suspended_beyond_its_ttl_writes_nothing_when_it_continues,
        lines_read_before_a_suspension_are_not_delivered_after_it,
        a_holder_suspended_during_a_write_blocks_no_stream_and_its_late_packets_are_refused,
        wall_clocks_of_replicas_have_no_effect,
        two_processes_with_one_name_are_two_replicas,
    }
    outages takes ONE {
        a_replica_cut_off_from_its_claims_stops_writing_before_others_may_take_them,
        while_the_database_is_unavailable_nobody_writes_and_nothing_is_lost,
        a_sink_unavailable_for_longer_than_a_ttl_costs_no_claim_and_no_line,
        a_slow_lock_store_costs_no_claim_and_one_beyond_the_deadline_counts_as_unavailable,
        a_deadline_counts_from_when_a_renewal_was_sent_not_from_its_answer,
        an_open_transaction_of_a_person_affects_only_the_pod_whose_row_it_locks,
        a_database_restored_to_an_earlier_state_loses_nothing_and_stores_nothing_twice,
        a_killed_or_frozen_api_server_only_delays_collection,
    }
    single takes ONE {
        threads_blocked_for_longer_than_a_ttl_cost_no_claim,
        without_a_transactional_sink_a_lost_checkpoint_causes_duplicates_with_equal_ids,
        a_database_file_locked_for_longer_than_a_ttl_only_delays_collection,
        a_full_disk_under_a_database_file_only_delays_collection,
        a_database_file_that_cannot_grow_only_delays_collection,
    }
    network takes ONE {
        an_acquisition_interrupted_at_any_point_succeeds_once_or_not_at_all,
        a_renewal_interrupted_at_any_point_keeps_the_claim_and_the_confirmed_checkpoint,
        a_release_interrupted_at_any_point_frees_the_row_once_with_its_last_checkpoint,
        a_write_interrupted_at_any_point_is_stored_once,
        calls_to_a_refusing_or_silent_store_fail_in_time_and_work_again_later,
        many_replicas_can_create_the_tables_at_once,
        many_deadlocks_delay_renewals_but_cost_no_claim,
        a_killed_statement_is_sent_again,
        rows_restored_to_an_earlier_state_are_acquired_under_larger_fences,
    }
    scaling takes CROWD {
        five_hundred_pods_change_holders_and_mysql_has_each_line_once,
        five_hundred_pods_change_holders_and_sqlite_has_each_line_once,
        five_hundred_pods_change_holders_and_the_files_have_each_line_once,
        five_hundred_pods_change_holders_and_each_line_is_printed_once,
    }
}
