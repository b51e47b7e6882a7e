//! Tables of reads: what each shows, how the next one searches, and whether a gap is reported.

use super::*;

const NOW: Duration = Duration::from_secs(100);

fn position() -> Position {
    Position {
        time: Time(5_000_000_000),
        ordinal: 0,
        hash: 1,
    }
}

/// A read that has shown this many lines and taken this many of them.
fn read(lines: u64, taken: u64) -> ReadStats {
    ReadStats {
        lines,
        taken,
        first_taken: (taken > 0).then_some(Time(9_000_000_000)),
        taking: taken > 0,
        ..ReadStats::default()
    }
}

/// Classifies one plain read after another.
fn play(state: &mut ResumeState, reads: &[ReadStats]) -> Vec<ReadOutcome> {
    let classify = |shown: &ReadStats| {
        let mode = state.next_read(Some(position()), false).mode;
        state.record_opened(NOW, NOW);
        state.classify_read(mode, *shown)
    };
    reads.iter().map(classify).collect()
}

/// Whether a read that is opened now has a gap before the lines it takes.
fn gap(state: &ResumeState, shown: ReadStats) -> bool {
    let mut state = state.clone();
    state.record_opened(NOW, NOW);
    state.gap(Some(position()), shown).is_some()
}

#[test]
fn the_outcome_and_the_next_search_follow_from_what_a_read_shows() {
    let found = ReadStats {
        taking: true,
        ..read(3, 0)
    };
    let equal_stamps = ReadStats {
        equal_stamps: 2,
        ..read(3, 0)
    };
    let refused = ReadStats {
        ends_in_kubelet_message: true,
        ..found
    };
    let (p, none) = (position(), read(3, 0));
    let cases: [(&[ReadStats], &[ReadOutcome], ResumeMode); 6] = [
        (&[found], &[ReadOutcome::Complete], ResumeMode::After(p)),
        (&[refused], &[ReadOutcome::Refused], ResumeMode::After(p)),
        (&[none], &[ReadOutcome::PositionNotFound], ResumeMode::NewFile(p)),
        (
            &[equal_stamps],
            &[ReadOutcome::PositionNotFound],
            ResumeMode::AfterEqualStamp { position: p, nth: 2 },
        ),
        (
            &[none, none],
            &[ReadOutcome::PositionNotFound, ReadOutcome::CutShort],
            ResumeMode::After(p),
        ),
        (
            &[none, read(2, 2)],
            &[ReadOutcome::PositionNotFound, ReadOutcome::Complete],
            ResumeMode::After(p),
        ),
    ];
    for (reads, outcomes, next) in cases {
        let mut state = ResumeState::default();
        assert_eq!(play(&mut state, reads), outcomes);
        assert_eq!(state.next_read(Some(p), false).mode, next, "{reads:?}");
    }
    let first = NextRead {
        mode: ResumeMode::All,
        since: None,
    };
    assert_eq!(ResumeState::default().next_read(None, false), first);
}

#[test]
fn after_too_many_failed_searches_later_timestamps_decide_and_a_gap_is_reported() {
    let mut state = ResumeState::default();
    let failed = [read(3, 0); 2 * MAX_FAILED_SEARCHES as usize];
    assert_eq!(play(&mut state, &failed).last(), Some(&ReadOutcome::CutShort));
    assert_eq!(
        state.next_read(Some(position()), false).mode,
        ResumeMode::LaterStamps(position())
    );
    assert_eq!(play(&mut state, &[read(3, 0)]), [ReadOutcome::Refused]);
    state.set_caught_up(Some(NOW));
    assert!(gap(&state, read(3, 1)));
    assert_eq!(play(&mut state, &[read(3, 1)]), [ReadOutcome::Complete]);
    assert!(!gap(&state, read(3, 1)));
}

#[test]
fn a_new_file_is_a_gap_unless_the_whole_log_was_read_just_before() {
    let long_ago = NOW.checked_sub(CAUGHT_UP_VALIDITY).unwrap();
    let just_now = long_ago + Duration::from_millis(1);
    for (caught_up, expected) in [(None, true), (Some(long_ago), true), (Some(just_now), false)] {
        let mut state = ResumeState::default();
        state.set_caught_up(caught_up);
        assert!(!gap(&state, read(2, 2)), "the stored line is still searched for");
        play(&mut state, &[read(3, 0)]);
        assert_eq!(gap(&state, read(2, 2)), expected, "{caught_up:?}");
        assert!(!gap(&state, read(2, 0)), "nothing was taken");
        state.record_lines_taken();
        assert!(!gap(&state, read(9, 9)), "lines of the new file are stored");
    }
}

#[test]
fn a_log_counts_as_empty_at_the_second_read_and_until_lines_are_taken() {
    let mut state = ResumeState::default();
    let empty = read(0, 0);
    assert_eq!(
        play(&mut state, &[empty, empty]),
        [ReadOutcome::PositionNotFound, ReadOutcome::EmptyLog]
    );
    let new_file = NextRead {
        mode: ResumeMode::NewFile(position()),
        since: None,
    };
    assert_eq!(state.next_read(Some(position()), false), new_file);
    // A stream that is silent afterwards does not show what was written before.
    state.set_caught_up(Some(NOW));
    assert!(!state.was_caught_up(NOW) && gap(&state, read(1, 1)));
    state.record_lines_taken();
    assert!(state.was_caught_up(NOW));
    let mut observed = ResumeState::default();
    observed.set_caught_up(Some(NOW));
    play(&mut observed, &[empty, empty]);
    assert!(observed.was_caught_up(NOW) && !gap(&observed, read(1, 1)));
}

#[test]
fn empty_reads_that_follow_each_other_within_the_limit_prove_that_nothing_is_missing() {
    let observed = |times: &[u64]| {
        let mut state = ResumeState::default();
        state.set_caught_up(Some(NOW));
        for time in times {
            let at = NOW + Duration::from_millis(*time);
            state.record_opened(at, at);
            let mode = state.next_read(Some(position()), true).mode;
            state.classify_read(mode, read(0, 0));
        }
        !state.was_emptied_unread()
    };
    assert!(observed(&[1_900, 3_800, 5_700]));
    assert!(!observed(&[1_900, 4_000]) && !observed(&[2_000, 2_100]));
}

#[test]
fn the_whole_log_is_asked_for_on_request_and_of_an_ended_instance() {
    let since = |state: &ResumeState, ended| state.next_read(Some(position()), ended).since;
    let mut state = ResumeState::default();
    assert_eq!(since(&state, false), Some(Time(3_000_000_000)));
    assert_eq!(since(&state, true), None);
    state.request_whole_log();
    assert_eq!(since(&state, false), None);
    state.clear_whole_log_request();
    assert!(since(&state, false).is_some());
}

#[test]
fn an_unfinished_line_of_an_ended_instance_counts_when_two_reads_agree_on_it() {
    let mut state = ResumeState::default();
    let reads = [
        (false, Some(1)),
        (true, Some(2)),
        (true, Some(2)),
        (true, None),
        (true, None),
    ];
    let confirmed = reads.map(|(ended, unfinished)| state.is_end_confirmed(ended, 1, unfinished));
    assert_eq!(confirmed, [true, false, true, false, true]);
}

#[test]
fn the_log_of_an_ended_instance_is_empty_when_two_reads_agree_on_it() {
    let mut state = ResumeState::default();
    let reads = [(false, 0), (true, 0), (true, 0), (true, 1)];
    let confirmed = reads.map(|(ended, lines)| state.is_end_confirmed(ended, lines, None));
    assert_eq!(confirmed, [true, false, true, true]);
}
