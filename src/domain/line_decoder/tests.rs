//! Reads of small logs: which lines are taken, which are skipped, and how they are numbered.

use super::*;

const CAP: usize = 8192;

/// A log of lines `(seconds, text)`.
fn log(lines: &[(i64, &str)]) -> Vec<u8> {
    lines
        .iter()
        .flat_map(|(t, text)| format!("{} {text}\n", Time(t * 1_000_000_000)).into_bytes())
        .collect()
}

fn read(decoder: &mut LineDecoder, mode: ResumeMode, bytes: &[u8], step: usize) -> Batch {
    let mut batch = Batch::default();
    decoder.begin(mode);
    for piece in bytes.chunks(step) {
        decoder.feed(piece, &mut batch);
    }
    batch
}

fn messages(batch: &Batch) -> Vec<String> {
    let message = |l: &Line| &batch.text[l.start as usize..(l.start + l.len) as usize];
    batch
        .lines
        .iter()
        .map(|l| String::from_utf8_lossy(message(l)).into_owned())
        .collect()
}

#[test]
fn lines_are_the_same_however_the_bytes_arrive() {
    let log = log(&[(1, "a"), (1, ""), (2, "long enough to be split"), (1, "a"), (2, "b")]);
    for step in 1..log.len() {
        let batch = read(&mut LineDecoder::new(CAP), ResumeMode::All, &log, step);
        assert_eq!(messages(&batch), ["a", "", "long enough to be split", "a", "b"]);
        let ordinals: Vec<u32> = batch.lines.iter().map(|l| l.ordinal).collect();
        assert_eq!(ordinals, [0, 1, 0, 2, 1]);
    }
}

#[test]
fn a_read_continues_after_any_line_of_a_log_with_equal_and_backward_timestamps() {
    let log = log(&[
        (5, "x"),
        (5, "x"),
        (5, "y"),
        (4, "x"),
        (5, "x"),
        (9, ""),
        (9, ""),
        (3, "z"),
    ]);
    let mut decoder = LineDecoder::new(CAP);
    let all = read(&mut decoder, ResumeMode::All, &log, 7);
    for stored in 1..=all.lines.len() {
        let head = Batch {
            lines: all.lines[..stored].to_vec(),
            text: all.text.clone(),
        };
        let last = head.lines[stored - 1];
        let head = Batch {
            text: head.text[..(last.start + last.len) as usize].to_vec(),
            ..head
        };
        let rest = read(&mut decoder, ResumeMode::After(head.end().unwrap()), &log, 7);
        assert!(decoder.stats().taking);
        assert_eq!(messages(&rest), messages(&all)[stored..], "after {stored} lines");
        let ordinals = |lines: &[Line]| lines.iter().map(|l| (l.time, l.ordinal)).collect::<Vec<_>>();
        assert_eq!(ordinals(&rest.lines), ordinals(&all.lines[stored..]));
    }
}

#[test]
fn nothing_is_taken_when_the_stored_line_was_rotated_away() {
    let position = Position {
        time: Time(1_000_000_000),
        ordinal: 0,
        hash: Position::hash(b"gone"),
    };
    let mut decoder = LineDecoder::new(CAP);
    let batch = read(
        &mut decoder,
        ResumeMode::After(position),
        &log(&[(1, "other"), (2, "x")]),
        99,
    );
    assert!(batch.lines.is_empty() && !decoder.stats().taking);
    assert_eq!(
        messages(&read(
            &mut decoder,
            ResumeMode::NewFile(position),
            &log(&[(2, "x"), (3, "y")]),
            99
        )),
        ["x", "y"]
    );
}

#[test]
fn a_file_that_reaches_back_to_the_stored_line_does_not_count_as_new() {
    let position = Position {
        time: Time(5_000_000_000),
        ordinal: 0,
        hash: 1,
    };
    let mut decoder = LineDecoder::new(CAP);
    let older = log(&[(4, "known"), (6, "new")]);
    assert!(
        read(&mut decoder, ResumeMode::NewFile(position), &older, 99)
            .lines
            .is_empty()
    );
    assert_eq!(
        messages(&read(&mut decoder, ResumeMode::LaterStamps(position), &older, 99)),
        ["new"]
    );
}

#[test]
fn lines_with_the_timestamp_of_the_stored_line_at_the_start_of_a_file_are_not_taken_again() {
    let position = Position {
        time: Time(2_000_000_000),
        ordinal: 2,
        hash: Position::hash(b"c"),
    };
    let whole = log(&[(2, "a"), (2, "b"), (2, "c"), (3, "d")]);
    let mut decoder = LineDecoder::new(1024);
    let taken = read(&mut decoder, ResumeMode::NewFile(position), &whole, 99);
    assert_eq!(messages(&taken), [""; 0]);
}

#[test]
fn a_rotation_between_lines_with_one_timestamp_hides_no_line() {
    let stored = Position {
        time: Time(1_000_000_000),
        ordinal: 2,
        hash: Position::hash(b"tick"),
    };
    let newest = log(&[(1, "tick"), (1, "tick"), (1, "tock")]);
    let mut decoder = LineDecoder::new(CAP);
    assert!(
        read(&mut decoder, ResumeMode::After(stored), &newest, 99)
            .lines
            .is_empty()
    );
    assert_eq!(decoder.stats().equal_stamps, 2);
    let batch = read(
        &mut decoder,
        ResumeMode::AfterEqualStamp {
            position: stored,
            nth: 2,
        },
        &newest,
        99,
    );
    assert_eq!(messages(&batch), ["tock"]);
    assert_eq!(batch.lines[0].ordinal, 3);
}

#[test]
fn messages_of_the_kubelet_are_counted_and_never_taken() {
    let mut bytes = b"unable to retrieve container logs for containerd://1\n".to_vec();
    bytes.extend(log(&[(1, "a")]));
    let mut decoder = LineDecoder::new(CAP);
    assert_eq!(messages(&read(&mut decoder, ResumeMode::All, &bytes, 5)), ["a"]);
    assert_eq!(decoder.stats().kubelet_messages, 1);
    let mut batch = read(&mut decoder, ResumeMode::All, b"context canceled", 5);
    decoder.finish(true, &mut batch);
    assert!(batch.lines.is_empty() && decoder.stats().kubelet_messages == 1);
}

#[test]
fn a_line_over_the_limit_is_cut_and_the_cut_bytes_are_counted() {
    let long = "x".repeat(CAP + 1000);
    for step in [100, 1 << 20] {
        let mut decoder = LineDecoder::new(CAP);
        let batch = read(&mut decoder, ResumeMode::All, &log(&[(1, &long), (2, "next")]), step);
        assert_eq!(
            (batch.lines[0].len as usize, batch.lines[0].cut),
            (CAP, 1000),
            "step {step}"
        );
        assert_eq!(messages(&batch)[1], "next");
    }
}

#[test]
fn a_last_line_without_line_end_is_taken_only_when_the_instance_has_ended() {
    let mut bytes = log(&[(1, "a"), (2, "half")]);
    bytes.pop();
    let mut decoder = LineDecoder::new(CAP);
    let mut batch = read(&mut decoder, ResumeMode::All, &bytes, 3);
    decoder.finish(false, &mut batch);
    assert_eq!(messages(&batch), ["a"]);
    decoder.finish(true, &mut batch);
    assert_eq!(messages(&batch), ["a", "half"]);
}

#[test]
fn numbering_continues_for_a_timestamp_that_returns_after_two_others_alternated() {
    let mut lines = vec![(3, "x")];
    for _ in 0..10 {
        lines.extend([(5, "a"), (6, "b")]);
    }
    lines.push((3, "x"));
    let batch = read(&mut LineDecoder::new(CAP), ResumeMode::All, &log(&lines), 99);
    assert_eq!(batch.lines.last().map(|line| line.ordinal), Some(1));
    assert_eq!(batch.lines[20].ordinal, 9);
}
