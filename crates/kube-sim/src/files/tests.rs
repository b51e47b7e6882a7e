//! The properties of the reader, event by event, as observed on a real kubelet.

use std::sync::Arc;

use super::{ContainerInstance, KubeletReader, Log, Options, ReaderOutput, Text};

const FOLLOW: Options = Options {
    follow: true,
    timestamps: false,
    since: None,
    tail: None,
    limit: None,
    buffer: usize::MAX,
};
const PLAIN: Options = Options {
    follow: false,
    ..FOLLOW
};
/// A queue that is full after the first line.
const BLOCKED: Options = Options { buffer: 1, ..FOLLOW };

fn log() -> Arc<Log> {
    let instance = ContainerInstance {
        uid: "u".into(),
        namespace: "n".into(),
        pod: "p".into(),
        container: "c".into(),
        container_id: "containerd://1".into(),
        restart_count: 0,
    };
    Arc::new(Log::new(instance, u64::MAX))
}

fn write(log: &Log, lines: std::ops::Range<i64>) {
    for line in lines {
        log.write(&Text::out(line.to_string()), line);
    }
}

fn drain(reader: &KubeletReader) -> (String, bool) {
    let mut seen = Vec::new();
    loop {
        match reader.next() {
            ReaderOutput::Frame(bytes) => seen.extend_from_slice(&bytes),
            ReaderOutput::Wait => return (String::from_utf8(seen).unwrap(), false),
            ReaderOutput::End => return (String::from_utf8(seen).unwrap(), true),
        }
    }
}

fn numbers(text: &str) -> Vec<i64> {
    text.lines().map(|line| line.parse().unwrap()).collect()
}

fn check(options: Options, expected: &str) {
    let log = log();
    for (line, time) in [("a", 10), ("b", 30), ("", 20), ("c", 30)] {
        log.write(&Text::out(line).at(time), 0);
    }
    log.close();
    let (text, ended) = drain(&log.open(options));
    assert_eq!(text, expected);
    assert!(ended);
}

#[test]
fn the_parameters_select_single_records() {
    check(PLAIN, "a\nb\n\nc\n");
    check(FOLLOW, "a\nb\n\nc\n");
    check(
        Options {
            since: Some(21),
            ..PLAIN
        },
        "b\nc\n",
    );
    check(Options { tail: Some(2), ..PLAIN }, "\nc\n");
    check(Options { tail: Some(0), ..PLAIN }, "");
    check(Options { tail: Some(9), ..PLAIN }, "a\nb\n\nc\n");
    check(
        Options {
            limit: Some(3),
            ..PLAIN
        },
        "a\nb",
    );
    let stamped = Options {
        timestamps: true,
        tail: Some(1),
        ..PLAIN
    };
    check(stamped, "1970-01-01T00:00:00.000000030Z c\n");
}

#[test]
fn a_reader_that_is_blocked_before_its_first_end_of_file_stops_sending_and_skips_a_file() {
    let log = log();
    write(&log, 0..100);
    let reader = log.open(BLOCKED);
    log.rotate();
    write(&log, 100..200);
    let (text, ended) = drain(&reader);
    assert_eq!(numbers(&text), (0..100).collect::<Vec<_>>());
    write(&log, 200..300);
    assert_eq!(drain(&reader), (String::new(), false));
    assert!(!ended);
    log.rotate();
    write(&log, 300..400);
    let (text, _) = drain(&reader);
    assert_eq!(numbers(&text), (300..400).collect::<Vec<_>>());
}

#[test]
fn a_reader_that_has_reached_an_end_of_file_continues_after_one_rotation() {
    let log = log();
    let reader = log.open(BLOCKED);
    write(&log, 0..100);
    log.rotate();
    write(&log, 100..200);
    assert_eq!(numbers(&drain(&reader).0), (0..200).collect::<Vec<_>>());
}

#[test]
fn a_reader_that_is_blocked_during_two_rotations_skips_the_middle_file_and_repeats_the_last() {
    let log = log();
    let reader = log.open(BLOCKED);
    write(&log, 0..100);
    log.rotate();
    write(&log, 100..200);
    log.rotate();
    write(&log, 200..300);
    let expected: Vec<_> = (0..100).chain(200..300).chain(200..300).collect();
    assert_eq!(numbers(&drain(&reader).0), expected);
}

#[test]
fn a_stream_ends_without_an_error_when_the_log_rotates_and_the_container_exits_while_the_reader_is_blocked() {
    let log = log();
    let reader = log.open(BLOCKED);
    write(&log, 0..100);
    log.rotate();
    write(&log, 100..200);
    log.close();
    let (text, ended) = drain(&reader);
    assert_eq!(numbers(&text), (0..100).collect::<Vec<_>>());
    assert!(ended);
    assert_eq!(numbers(&drain(&log.open(PLAIN)).0), (100..200).collect::<Vec<_>>());
}

#[test]
fn a_reader_that_keeps_up_misses_nothing() {
    let log = log();
    let reader = log.open(FOLLOW);
    for round in 0..5 {
        write(&log, round * 100..round * 100 + 100);
        log.rotate();
    }
    log.close();
    let (text, ended) = drain(&reader);
    assert_eq!(numbers(&text), (0..500).collect::<Vec<_>>());
    assert!(ended);
}

#[test]
fn only_the_first_part_of_a_line_has_a_timestamp_so_a_read_that_begins_later_has_none() {
    let log = log();
    log.write(&Text::out("AAAA").partial().at(1), 0);
    log.write(&Text::out("BBBB").at(2), 0);
    let stamped = Options {
        timestamps: true,
        ..PLAIN
    };
    let (text, _) = drain(&log.open(stamped.clone()));
    assert_eq!(text, "1970-01-01T00:00:00.000000001Z AAAABBBB\n");
    let (text, _) = drain(&log.open(Options {
        since: Some(2),
        ..stamped
    }));
    assert_eq!(text, "BBBB\n");
    assert_eq!(log.written().lines[0].message, "AAAABBBB");
}

#[test]
fn partial_lines_of_two_outputs_are_joined() {
    let log = log();
    log.write(&Text::out("OUT1-").partial().at(1), 0);
    log.write(&Text::err("ERR").at(2), 0);
    log.write(&Text::out("OUT2").at(3), 0);
    let (text, _) = drain(&log.open(PLAIN));
    assert_eq!(text, "OUT1-ERR\nOUT2\n");
    let written: Vec<_> = log.written().lines.into_iter().map(|l| l.message).collect();
    assert_eq!(written, ["OUT1-OUT2", "ERR"]);
}

#[test]
fn a_last_line_without_a_newline_is_sent_without_one() {
    let log = log();
    log.write(&Text::out("half").partial(), 5);
    log.close();
    assert_eq!(drain(&log.open(FOLLOW)), ("half".to_owned(), true));
    assert_eq!(log.written().lines[0].message, "half");
}

#[test]
fn long_lines_are_split_into_records_and_joined_again() {
    let log = log();
    let line = "x".repeat(40_000);
    log.write(&Text::out(line.clone()), 5);
    let (text, _) = drain(&log.open(PLAIN));
    assert_eq!(text, format!("{line}\n"));
    let (tail, _) = drain(&log.open(Options { tail: Some(1), ..PLAIN }));
    assert_eq!(tail.len(), 40_000 - 2 * 16 * 1024 + 1);
    assert_eq!(log.count(), 1);
}
