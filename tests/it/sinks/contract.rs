//! What every sink promises.

use podlog::domain::{Fence, Gap, GapReason, Time};
use podlog::sinks::SinkError;

use crate::chunks::{TestLine, chunk, origin, with_gap};
use crate::sinks::fixture::{each, unchanged};

#[tokio::test]
async fn lines_are_stored_in_the_order_they_were_written_whatever_their_timestamps() {
    each(async |fixture| {
        let running = fixture.open().await;
        let stream = origin("order");
        running.sink.open(&stream, Fence(1)).await.unwrap();
        let first: [TestLine; 5] = [
            (50, 0, b"a"),
            (50, 1, b"b"),
            (40, 0, b"back"),
            (50, 2, b"c"),
            (-7, 0, b"before 1970"),
        ];
        let second: [TestLine; 2] = [(50, 3, b"d"), (60, 0, b"e")];
        let one = chunk(&stream, 1, None, &first);
        let two = chunk(&stream, 1, one.end, &second);
        assert!(running.sink.write(&[one]).await[0].is_ok());
        assert!(running.sink.write(&[two]).await[0].is_ok());
        assert_eq!(fixture.read(&stream).await, unchanged(&[&first[..], &second].concat()));
    })
    .await;
}

#[tokio::test]
async fn blank_identical_and_very_long_lines_are_stored_unchanged() {
    each(async |fixture| {
        let running = fixture.open().await;
        let stream = origin("odd");
        running.sink.open(&stream, Fence(1)).await.unwrap();
        let long = vec![b'x'; 1 << 20];
        let quotes = "\"\\\u{7f}\t\u{1}é𝄞'; DROP TABLE log_record".as_bytes();
        let lines: [TestLine; 7] = [
            (1, 0, b""),
            (1, 1, b""),
            (1, 2, b"same"),
            (1, 3, b"same"),
            (2, 0, &long),
            (3, 0, quotes),
            (4, 0, b" "),
        ];
        assert!(running.sink.write(&[chunk(&stream, 1, None, &lines)]).await[0].is_ok());
        assert!(fixture.read(&stream).await == unchanged(&lines));
    })
    .await;
}

#[tokio::test]
async fn bytes_that_are_not_utf8_are_kept_in_databases_and_marked_in_json() {
    each(async |fixture| {
        let running = fixture.open().await;
        let stream = origin("bytes");
        running.sink.open(&stream, Fence(1)).await.unwrap();
        let lines: [TestLine; 2] = [(1, 0, b"\x00\xff\xfe\r ok"), (2, 0, b"\xc3\x28")];
        assert!(running.sink.write(&[chunk(&stream, 1, None, &lines)]).await[0].is_ok());
        if fixture.name == "file" {
            let records = fixture.records(&stream);
            assert_eq!(records[0]["message"], "\0\u{FFFD}\u{FFFD}\r ok");
            assert_eq!((&records[0]["lossy"], records.len()), (&true.into(), 2));
        } else {
            assert_eq!(fixture.read(&stream).await, unchanged(&lines));
        }
    })
    .await;
}

#[tokio::test]
async fn a_gap_is_stored_before_the_lines_that_follow_it_or_at_the_end() {
    each(async |fixture| {
        let running = fixture.open().await;
        let stream = origin("gap");
        running.sink.open(&stream, Fence(1)).await.unwrap();
        let gap = |from, to, reason| Gap { from, to, reason };
        let lines: [TestLine; 1] = [(9, 0, b"after")];
        let begin = with_gap(
            chunk(&stream, 1, None, &lines),
            gap(None, Some(Time(9)), GapReason::Rotated),
        );
        let end = with_gap(
            chunk(&stream, 1, begin.end, &[]),
            gap(Some(Time(9)), None, GapReason::Deleted),
        );
        assert!(running.sink.write(&[begin]).await[0].is_ok());
        assert!(running.sink.write(&[end]).await[0].is_ok());
        assert_eq!(fixture.gaps(&stream).await, ["rotated", "deleted"]);
        assert_eq!(fixture.read(&stream).await, unchanged(&lines));
    })
    .await;
}

#[tokio::test]
async fn many_streams_written_at_once_are_all_stored_in_order() {
    each(async |fixture| {
        let running = fixture.open().await;
        let texts: Vec<Vec<u8>> = (0..600).map(|n| format!("line {n}").into_bytes()).collect();
        let lines: Vec<TestLine> = texts
            .iter()
            .zip(0..)
            .map(|(text, n)| (n / 3, (n % 3) as u32, &text[..]))
            .collect();
        let streams: Vec<_> = (0..30).map(|n| origin(&format!("many-{n}"))).collect();
        let one = async |stream: &std::sync::Arc<podlog::domain::Origin>| {
            running.sink.open(stream, Fence(1)).await.unwrap();
            let mut at = None;
            for part in lines.chunks(97) {
                let chunk = chunk(stream, 1, at, part);
                at = chunk.end;
                assert!(running.sink.write(&[chunk]).await[0].is_ok());
            }
        };
        futures::future::join_all(streams.iter().map(one)).await;
        for stream in &streams {
            assert_eq!(fixture.read(stream).await, unchanged(&lines));
        }
    })
    .await;
}

#[tokio::test]
async fn a_chunk_whose_claim_has_ended_is_not_written_but_its_neighbours_are() {
    each(async |fixture| {
        let running = fixture.open().await;
        let (late, good) = (origin("late"), origin("good"));
        let mut chunks = Vec::new();
        for stream in [&late, &good] {
            running.sink.open(stream, Fence(1)).await.unwrap();
            chunks.push(chunk(stream, 1, None, &[(1, 0, b"x")]));
        }
        chunks[0].deadline.revoke();
        let answers = running.sink.write(&chunks).await;
        assert!(matches!(answers[..], [Err(SinkError::Fenced), Ok(())]), "{answers:?}");
        assert_eq!(fixture.read(&late).await, []);
        assert_eq!(fixture.read(&good).await.len(), 1);
    })
    .await;
}
