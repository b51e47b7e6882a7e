//! What sinks promise that store the position together with the records: exactly once, and one writer per stream.

use std::time::Duration;

use podlog::domain::{BackendError, Fence, Gap, GapReason, Time};
use podlog::sinks::{SinkError, SinkUrl, migrate, open};

use crate::chunks::{TestLine, chunk, origin, position, with_gap};
use crate::sinks::fixture::{each_exact, unchanged};

const LINES: [TestLine<'static>; 4] = [(5, 0, b"a"), (5, 1, b"a"), (3, 0, b"b"), (9, 0, b"c")];

#[tokio::test]
async fn a_repeated_chunk_is_stored_once_and_so_is_its_gap() {
    each_exact(async |fixture| {
        let running = fixture.open().await;
        let stream = origin("again");
        running.sink.open(&stream, Fence(1)).await.unwrap();
        let gap = Gap {
            from: None,
            to: Some(Time(5)),
            reason: GapReason::Rotated,
        };
        let first = with_gap(chunk(&stream, 1, None, &LINES[..2]), gap);
        let second = chunk(&stream, 1, first.end, &LINES[2..]);
        let end = Gap {
            from: Some(Time(9)),
            to: None,
            reason: GapReason::Deleted,
        };
        let last = with_gap(chunk(&stream, 1, second.end, &[]), end);
        for each in [&first, &first, &second, &second, &last, &last] {
            assert!(running.sink.write(std::slice::from_ref(each)).await[0].is_ok());
        }
        assert_eq!(fixture.read(&stream).await, unchanged(&LINES));
        assert_eq!(fixture.gaps(&stream).await, ["rotated", "deleted"]);
    })
    .await;
}

#[tokio::test]
async fn the_unknown_rest_of_a_partly_stored_chunk_is_stored() {
    each_exact(async |fixture| {
        let running = fixture.open().await;
        for known in 1..LINES.len() {
            let stream = origin(&format!("half-{known}"));
            running.sink.open(&stream, Fence(1)).await.unwrap();
            for lines in [&LINES[..known], &LINES[..]] {
                assert!(running.sink.write(&[chunk(&stream, 1, None, lines)]).await[0].is_ok());
            }
            assert_eq!(fixture.read(&stream).await, unchanged(&LINES));
        }
    })
    .await;
}

#[tokio::test]
async fn a_new_sink_continues_after_the_checkpoint() {
    each_exact(async |fixture| {
        let running = fixture.open().await;
        let stream = origin("moved");
        assert_eq!(running.sink.open(&stream, Fence(7)).await.unwrap(), None);
        let begin = Some(position(&(1, 0, b"stored elsewhere")));
        assert!(running.sink.write(&[chunk(&stream, 7, begin, &LINES)]).await[0].is_ok());
        assert_eq!(fixture.read(&stream).await, unchanged(&LINES));
    })
    .await;
}

#[tokio::test]
async fn opening_a_stream_returns_its_position_and_refuses_smaller_fences_afterwards() {
    each_exact(async |fixture| {
        let (old, new) = (fixture.open().await, fixture.open().await);
        let stream = origin("fence");
        assert_eq!(old.sink.open(&stream, Fence(3)).await.unwrap(), None);
        let first = chunk(&stream, 3, None, &LINES[..2]);
        assert!(old.sink.write(std::slice::from_ref(&first)).await[0].is_ok());
        assert_eq!(new.sink.open(&stream, Fence(8)).await.unwrap(), first.end);

        let more = chunk(&stream, 3, first.end, &LINES[2..]);
        let other = origin("fence-other");
        old.sink.open(&other, Fence(3)).await.unwrap();
        let group = [more.clone(), chunk(&other, 3, None, &LINES)];
        let answers = old.sink.write(&group).await;
        assert!(matches!(answers[..], [Err(SinkError::Fenced), Ok(())]), "{answers:?}");
        assert!(matches!(old.sink.open(&stream, Fence(7)).await, Err(SinkError::Fenced)));
        assert_eq!(new.sink.open(&stream, Fence(8)).await.unwrap(), first.end);

        let rest = chunk(&stream, 8, first.end, &LINES[2..]);
        assert!(new.sink.write(&[rest]).await[0].is_ok());
        assert_eq!(fixture.read(&stream).await, unchanged(&LINES));
        assert_eq!(fixture.read(&other).await, unchanged(&LINES));
    })
    .await;
}

#[tokio::test]
async fn a_write_during_an_opening_is_either_seen_by_it_or_refused() {
    each_exact(async |fixture| {
        let (old, new) = (fixture.open().await, fixture.open().await);
        let mut outcomes = [0, 0];
        for round in 0..40_u64 {
            let stream = origin(&format!("race-{round}"));
            old.sink.open(&stream, Fence(1)).await.unwrap();
            let chunks = [chunk(&stream, 1, None, &LINES)];
            // The order of the two is likely but not certain; the result must be consistent in either case.
            let pause = |mine: bool| tokio::time::sleep(Duration::from_micros(if mine { round * 100 } else { 0 }));
            let open = async {
                pause(round % 2 == 0).await;
                new.sink.open(&stream, Fence(2)).await.unwrap()
            };
            let write = async {
                pause(round % 2 == 1).await;
                old.sink.write(&chunks).await
            };
            let (answers, position) = tokio::join!(write, open);
            let stored = fixture.read(&stream).await;
            if answers[0].is_ok() {
                assert_eq!((position, stored), (chunks[0].end, unchanged(&LINES)));
                outcomes[0] += 1;
            } else {
                assert!(matches!(answers[0], Err(SinkError::Fenced)), "{answers:?}");
                assert_eq!((position, stored), (None, Vec::new()));
                outcomes[1] += 1;
            }
        }
        println!("seen and refused: {outcomes:?}");
    })
    .await;
}

#[tokio::test]
async fn a_stream_at_another_position_must_be_opened_again() {
    each_exact(async |fixture| {
        let running = fixture.open().await;
        let stream = origin("elsewhere");
        running.sink.open(&stream, Fence(1)).await.unwrap();
        let first = chunk(&stream, 1, None, &LINES[..1]);
        assert!(running.sink.write(std::slice::from_ref(&first)).await[0].is_ok());
        // The database has lost the chunk in between.
        let ahead = chunk(&stream, 1, Some(position(&LINES[2])), &LINES[3..]);
        let answers = running.sink.write(&[ahead]).await;
        assert!(matches!(answers[..], [Err(SinkError::Fenced)]), "{answers:?}");
        let stands = running.sink.open(&stream, Fence(2)).await.unwrap();
        assert_eq!(stands, first.end);
        assert!(running.sink.write(&[chunk(&stream, 2, stands, &LINES[1..])]).await[0].is_ok());
        assert_eq!(fixture.read(&stream).await, unchanged(&LINES));
    })
    .await;
}

#[tokio::test]
async fn a_sink_without_its_tables_says_how_to_create_them() {
    each_exact(async |fixture| {
        migrate(&fixture.parsed())
            .await
            .expect("migrating twice changes nothing");
        let note = "UPDATE podlog_records_migrations SET version = 999 WHERE version = 205";
        fixture.sql(note).await;
        let attempt = Duration::from_secs(5);
        let url: SinkUrl = fixture.parsed();
        let metrics = podlog::metrics::Metrics::default();
        let newer = open(&url, podlog::clock::Clock::boottime(), &metrics, attempt)
            .await
            .unwrap_err()
            .to_string();
        assert!(newer.contains("run a newer podlog"), "{newer}");
        fixture.sql("DROP TABLE podlog_records_migrations").await;
        let absent = open(&url, podlog::clock::Clock::boottime(), &metrics, attempt)
            .await
            .unwrap_err()
            .to_string();
        assert!(absent.contains("run `podlog migrate`"), "{absent}");
    })
    .await;
}

#[tokio::test]
async fn an_unknown_host_is_tried_again_and_a_missing_table_is_refused_by_name() {
    each_exact(async |fixture| {
        if fixture.name == "sqlite" {
            return;
        }
        let (clock, metrics) = (podlog::clock::Clock::boottime(), podlog::metrics::Metrics::default());
        let open = async |url: &str| {
            let opened = open(&url.parse().unwrap(), clock, &metrics, Duration::from_secs(5)).await;
            opened.map(drop).unwrap_err()
        };
        let unknown = open("mysql://u@no-such-host.invalid/logs").await;
        assert!(matches!(unknown, BackendError::Unavailable(_)), "{unknown:?}");
        assert!(unknown.to_string().contains("correct the host"), "{unknown}");
        fixture.sql("DROP TABLE log_gap").await;
        let missing = open(&fixture.url).await;
        assert!(matches!(missing, BackendError::Refused(_)), "{missing:?}");
        assert!(missing.to_string().contains("log_gap"), "{missing}");
    })
    .await;
}

#[tokio::test]
async fn the_views_show_lines_and_gaps() {
    each_exact(async |fixture| {
        let running = fixture.open().await;
        let stream = origin("people");
        running.sink.open(&stream, Fence(1)).await.unwrap();
        let time = 1_795_171_621_312_773_573;
        let lines: [TestLine; 2] = [(time, 0, "grüß Gott".as_bytes()), (time, 1, b"\xff")];
        let gap = Gap {
            from: Some(Time(1_000)),
            to: Some(Time(time)),
            reason: GapReason::Unavailable,
        };
        assert!(
            running
                .sink
                .write(&[with_gap(chunk(&stream, 1, None, &lines), gap)])
                .await[0]
                .is_ok()
        );
        let columns = [
            "namespace",
            "pod",
            "container",
            "uid",
            "restart",
            "time",
            "seq",
            "message",
        ];
        let rows = fixture.rows(columns, "FROM log_line WHERE seq = 0").await;
        let text: Vec<&str> = rows[0].iter().map(|cell| cell.as_deref().unwrap()).collect();
        let shown = text[5].replace('T', " ");
        assert!(shown.starts_with("2026-11-20 10:47:01.312773"), "{shown}");
        assert_eq!(text[..5], ["shop", "cart-0", "app", "people", "0"]);
        assert_eq!(text[6..], ["0", "grüß Gott"]);
        let bytes = fixture.rows(["LENGTH(message)"], "FROM log_line WHERE seq = 1").await;
        assert_eq!(bytes.len(), 1, "bytes that are not text do not hide the line");
        let gaps = fixture
            .rows(["reason", "time_from", "before_seq"], "FROM log_gaps")
            .await;
        assert_eq!(gaps[0][0].as_deref(), Some("unavailable"));
        assert!(gaps[0][1].as_deref().unwrap().contains("00:00:00.000001"), "{gaps:?}");
    })
    .await;
}
