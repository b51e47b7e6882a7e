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
fn seen(lines: u64, taken: u64) -> Seen {
    Seen {
        lines,
        taken,
        first_taken: (taken > 0).then_some(Time(9_000_000_000)),
        taking: taken > 0,
        ..Seen::default()
    }
}

/// Plays one plain read after another.
fn play(search: &mut Search, reads: &[Seen]) -> Vec<Shown> {
    let judge = |seen: &Seen| {
        let (stance, _) = search.stance(Some(position()), false);
        search.opened(NOW, NOW);
        search.judge(stance, *seen)
    };
    reads.iter().map(judge).collect()
}

/// Whether a read that was opened now has a gap before what it takes.
fn gap(search: &Search, seen: Seen) -> bool {
    let mut search = search.clone();
    search.opened(NOW, NOW);
    search.gap(Some(position()), seen).is_some()
}

#[test]
fn a_read_is_judged_by_what_it_shows() {
    let found = Seen {
        taking: true,
        ..seen(3, 0)
    };
    let twins = Seen { twins: 2, ..seen(3, 0) };
    let refused = Seen {
        ends_in_control: true,
        ..found
    };
    let (p, none) = (position(), seen(3, 0));
    let cases: [(&[Seen], &[Shown], Stance); 6] = [
        (&[found], &[Shown::Whole], Stance::After(p)),
        (&[refused], &[Shown::Refused], Stance::After(p)),
        (&[none], &[Shown::Misplaced], Stance::AllSince(p)),
        (&[twins], &[Shown::Misplaced], Stance::AfterTwin { position: p, nth: 2 }),
        (&[none, none], &[Shown::Misplaced, Shown::CutShort], Stance::After(p)),
        (&[none, seen(2, 2)], &[Shown::Misplaced, Shown::Whole], Stance::After(p)),
    ];
    for (reads, shown, next) in cases {
        let mut search = Search::default();
        assert_eq!(play(&mut search, reads), shown);
        assert_eq!(search.stance(Some(p), false).0, next, "{reads:?}");
    }
    assert_eq!(Search::default().stance(None, false), (Stance::All, None));
}

#[test]
fn after_so_many_searches_in_vain_later_stamps_decide_and_make_a_gap() {
    let mut search = Search::default();
    let vain = [seen(3, 0); 2 * SEARCHES as usize];
    assert_eq!(play(&mut search, &vain).last(), Some(&Shown::CutShort));
    assert_eq!(search.stance(Some(position()), false).0, Stance::Later(position()));
    assert_eq!(play(&mut search, &[seen(3, 0)]), [Shown::Refused]);
    search.note_caught_up(Some(NOW));
    assert!(gap(&search, seen(3, 1)));
    assert_eq!(play(&mut search, &[seen(3, 1)]), [Shown::Whole]);
    assert!(!gap(&search, seen(3, 1)));
}

#[test]
fn a_new_file_is_a_gap_unless_all_had_been_read_a_moment_before() {
    let long_ago = NOW.checked_sub(SAME_BREATH).unwrap();
    let just_now = long_ago + Duration::from_millis(1);
    for (caught_up, due) in [(None, true), (Some(long_ago), true), (Some(just_now), false)] {
        let mut search = Search::default();
        search.note_caught_up(caught_up);
        assert!(!gap(&search, seen(2, 2)), "the stored line is still sought");
        play(&mut search, &[seen(3, 0)]);
        assert_eq!(gap(&search, seen(2, 2)), due, "{caught_up:?}");
        assert!(!gap(&search, seen(2, 0)), "nothing was taken");
        search.took();
        assert!(!gap(&search, seen(9, 9)), "some are written");
    }
}

#[test]
fn an_empty_log_is_believed_the_second_time_and_remembered_until_lines_come() {
    let mut search = Search::default();
    let empty = seen(0, 0);
    assert_eq!(play(&mut search, &[empty, empty]), [Shown::Misplaced, Shown::Empty]);
    assert_eq!(
        search.stance(Some(position()), false),
        (Stance::AllSince(position()), None)
    );
    // A stream that is silent from then on shows nothing of the time before.
    search.note_caught_up(Some(NOW));
    assert!(!search.was_caught_up(NOW) && gap(&search, seen(1, 1)));
    search.took();
    assert!(search.was_caught_up(NOW));
    let mut watched = Search::default();
    watched.note_caught_up(Some(NOW));
    play(&mut watched, &[empty, empty]);
    assert!(watched.was_caught_up(NOW) && !gap(&watched, seen(1, 1)));
}

#[test]
fn empty_answers_that_follow_each_other_in_the_same_breath_leave_no_doubt() {
    let breaths = |times: &[u64]| {
        let mut search = Search::default();
        search.note_caught_up(Some(NOW));
        for time in times {
            let at = NOW + Duration::from_millis(*time);
            search.opened(at, at);
            let (stance, _) = search.stance(Some(position()), true);
            search.judge(stance, seen(0, 0));
        }
        !search.is_unsure()
    };
    assert!(breaths(&[1_900, 3_800, 5_700]));
    assert!(!breaths(&[1_900, 4_000]) && !breaths(&[2_000, 2_100]));
}

#[test]
fn all_of_a_log_is_asked_for_when_in_doubt_and_of_an_ended_instance() {
    let since = |search: &Search, ended| search.stance(Some(position()), ended).1;
    let mut search = Search::default();
    assert_eq!(since(&search, false), Some(Time(3_000_000_000)));
    assert_eq!(since(&search, true), None);
    search.doubt();
    assert_eq!(since(&search, false), None);
    search.trust();
    assert!(since(&search, false).is_some());
}

#[test]
fn a_rest_without_line_end_counts_when_two_reads_agree_on_it() {
    let mut search = Search::default();
    let reads = [
        (false, Some(1)),
        (true, Some(2)),
        (true, Some(2)),
        (true, None),
        (true, None),
    ];
    let complete = reads.map(|(ended, rest)| search.is_complete(ended, 1, rest));
    assert_eq!(complete, [true, false, true, false, true]);
}

#[test]
fn a_log_of_an_ended_instance_is_empty_when_two_reads_agree_on_it() {
    let mut search = Search::default();
    let reads = [(false, 0), (true, 0), (true, 0), (true, 1)];
    let complete = reads.map(|(ended, lines)| search.is_complete(ended, lines, None));
    assert_eq!(complete, [true, false, true, true]);
}
