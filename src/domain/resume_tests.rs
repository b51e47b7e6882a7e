//! Tables of reads: what they show, how the next one seeks, and whether a gap is due.

use super::*;

const NOW: Duration = Duration::from_secs(100);

fn position() -> Position {
    Position {
        time: Time(5_000_000_000),
        ordinal: 0,
        hash: 1,
    }
}

/// A read in which so many lines were seen and so many taken.
fn seen(lines: u64, taken: u64) -> ReadStats {
    ReadStats {
        lines,
        taken,
        first_taken: (taken > 0).then_some(Time(9_000_000_000)),
        taking: taken > 0,
        ..ReadStats::default()
    }
}

/// Plays one plain read after another.
fn play(state: &mut ResumeState, reads: &[ReadStats]) -> Vec<ReadVerdict> {
    let judge = |stats: &ReadStats| {
        let (mode, _) = state.mode(Some(position()), false);
        state.opened(NOW, NOW);
        state.judge(mode, *stats)
    };
    reads.iter().map(judge).collect()
}

/// Whether a read that was opened now has a gap before what it takes.
fn gap(state: &ResumeState, stats: ReadStats) -> bool {
    let mut state = state.clone();
    state.opened(NOW, NOW);
    state.gap(Some(position()), stats).is_some()
}

#[test]
fn a_read_is_judged_by_what_it_shows() {
    let found = ReadStats {
        taking: true,
        ..seen(3, 0)
    };
    let equal_stamps = ReadStats {
        equal_stamps: 2,
        ..seen(3, 0)
    };
    let refused = ReadStats {
        ends_in_control: true,
        ..found
    };
    let (p, none) = (position(), seen(3, 0));
    let cases: [(&[ReadStats], &[ReadVerdict], ResumeMode); 6] = [
        (&[found], &[ReadVerdict::Whole], ResumeMode::After(p)),
        (&[refused], &[ReadVerdict::Refused], ResumeMode::After(p)),
        (&[none], &[ReadVerdict::Misplaced], ResumeMode::NewFile(p)),
        (
            &[equal_stamps],
            &[ReadVerdict::Misplaced],
            ResumeMode::AfterEqualStamp { position: p, nth: 2 },
        ),
        (
            &[none, none],
            &[ReadVerdict::Misplaced, ReadVerdict::CutShort],
            ResumeMode::After(p),
        ),
        (
            &[none, seen(2, 2)],
            &[ReadVerdict::Misplaced, ReadVerdict::Whole],
            ResumeMode::After(p),
        ),
    ];
    for (reads, shown, next) in cases {
        let mut state = ResumeState::default();
        assert_eq!(play(&mut state, reads), shown);
        assert_eq!(state.mode(Some(p), false).0, next, "{reads:?}");
    }
    assert_eq!(ResumeState::default().mode(None, false), (ResumeMode::All, None));
}

#[test]
fn after_so_many_searches_in_vain_later_stamps_decide_and_make_a_gap() {
    let mut state = ResumeState::default();
    let vain = [seen(3, 0); 2 * SEARCHES as usize];
    assert_eq!(play(&mut state, &vain).last(), Some(&ReadVerdict::CutShort));
    assert_eq!(
        state.mode(Some(position()), false).0,
        ResumeMode::LaterStamps(position())
    );
    assert_eq!(play(&mut state, &[seen(3, 0)]), [ReadVerdict::Refused]);
    state.note_caught_up(Some(NOW));
    assert!(gap(&state, seen(3, 1)));
    assert_eq!(play(&mut state, &[seen(3, 1)]), [ReadVerdict::Whole]);
    assert!(!gap(&state, seen(3, 1)));
}

#[test]
fn a_new_file_is_a_gap_unless_all_had_been_read_a_moment_before() {
    let long_ago = NOW.checked_sub(SAME_BREATH).unwrap();
    let just_now = long_ago + Duration::from_millis(1);
    for (caught_up, due) in [(None, true), (Some(long_ago), true), (Some(just_now), false)] {
        let mut state = ResumeState::default();
        state.note_caught_up(caught_up);
        assert!(!gap(&state, seen(2, 2)), "the stored line is still sought");
        play(&mut state, &[seen(3, 0)]);
        assert_eq!(gap(&state, seen(2, 2)), due, "{caught_up:?}");
        assert!(!gap(&state, seen(2, 0)), "nothing was taken");
        state.took();
        assert!(!gap(&state, seen(9, 9)), "some are written");
    }
}

#[test]
fn an_empty_log_is_believed_the_second_time_and_remembered_until_lines_come() {
    let mut state = ResumeState::default();
    let empty = seen(0, 0);
    assert_eq!(
        play(&mut state, &[empty, empty]),
        [ReadVerdict::Misplaced, ReadVerdict::Empty]
    );
    assert_eq!(
        state.mode(Some(position()), false),
        (ResumeMode::NewFile(position()), None)
    );
    // A stream that is silent from then on shows nothing of the time before.
    state.note_caught_up(Some(NOW));
    assert!(!state.was_caught_up(NOW) && gap(&state, seen(1, 1)));
    state.took();
    assert!(state.was_caught_up(NOW));
    let mut watched = ResumeState::default();
    watched.note_caught_up(Some(NOW));
    play(&mut watched, &[empty, empty]);
    assert!(watched.was_caught_up(NOW) && !gap(&watched, seen(1, 1)));
}

#[test]
fn empty_answers_that_follow_each_other_in_the_same_breath_leave_no_doubt() {
    let breaths = |times: &[u64]| {
        let mut state = ResumeState::default();
        state.note_caught_up(Some(NOW));
        for time in times {
            let at = NOW + Duration::from_millis(*time);
            state.opened(at, at);
            let (mode, _) = state.mode(Some(position()), true);
            state.judge(mode, seen(0, 0));
        }
        !state.is_unsure()
    };
    assert!(breaths(&[1_900, 3_800, 5_700]));
    assert!(!breaths(&[1_900, 4_000]) && !breaths(&[2_000, 2_100]));
}

#[test]
fn all_of_a_log_is_asked_for_when_in_doubt_and_of_an_ended_instance() {
    let since = |state: &ResumeState, ended| state.mode(Some(position()), ended).1;
    let mut state = ResumeState::default();
    assert_eq!(since(&state, false), Some(Time(3_000_000_000)));
    assert_eq!(since(&state, true), None);
    state.doubt();
    assert_eq!(since(&state, false), None);
    state.trust();
    assert!(since(&state, false).is_some());
}

#[test]
fn a_rest_without_line_end_counts_when_two_reads_agree_on_it() {
    let mut state = ResumeState::default();
    let reads = [
        (false, Some(1)),
        (true, Some(2)),
        (true, Some(2)),
        (true, None),
        (true, None),
    ];
    let complete = reads.map(|(ended, rest)| state.is_complete(ended, 1, rest));
    assert_eq!(complete, [true, false, true, false, true]);
}

#[test]
fn a_log_of_an_ended_instance_is_empty_when_two_reads_agree_on_it() {
    let mut state = ResumeState::default();
    let reads = [(false, 0), (true, 0), (true, 0), (true, 1)];
    let complete = reads.map(|(ended, lines)| state.is_complete(ended, lines, None));
    assert_eq!(complete, [true, false, true, true]);
}
