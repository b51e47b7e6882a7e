//! Deletion of old records.

use podlog::domain::{Fence, Time};

use crate::chunks::{TestLine, chunk, origin};
use crate::sinks::fixture::{each_exact, unchanged};

#[tokio::test]
async fn old_records_are_deleted_oldest_first_in_batches_without_holes() {
    each_exact(async |fixture| {
        let running = fixture.open().await;
        let purge = running.retention.as_ref().unwrap();
        // The second 10 is old, but comes after a young one.
        let lines: [TestLine; 6] = [
            (10, 0, b"a"),
            (11, 0, b"b"),
            (12, 0, b"c"),
            (90, 0, b"d"),
            (10, 0, b"e"),
            (95, 0, b"f"),
        ];
        let streams: Vec<_> = (0..5).map(|n| origin(&format!("old-{n}"))).collect();
        for stream in &streams {
            running.sink.open(stream, Fence(1)).await.unwrap();
            assert!(running.sink.write(&[chunk(stream, 1, None, &lines)]).await[0].is_ok());
        }
        assert_eq!(purge.purge(Time(50), 4).await.unwrap(), 4);
        assert_eq!(purge.purge(Time(50), 1000).await.unwrap(), 11);
        assert_eq!(purge.purge(Time(50), 1000).await.unwrap(), 0);
        for stream in &streams {
            assert_eq!(fixture.read(stream).await, unchanged(&lines[3..]));
        }
        let more: [TestLine; 1] = [(99, 0, b"g")];
        let end = chunk(&streams[0], 1, None, &lines).end;
        assert!(running.sink.write(&[chunk(&streams[0], 1, end, &more)]).await[0].is_ok());
        assert_eq!(
            fixture.read(&streams[0]).await,
            unchanged(&[&lines[3..], &more].concat())
        );
    })
    .await;
}

#[tokio::test]
async fn the_row_of_an_empty_stream_is_deleted_only_after_a_quiet_day_and_can_be_created_again() {
    each_exact(async |fixture| {
        let running = fixture.open().await;
        let purge = running.retention.as_ref().unwrap();
        let stream = origin("quiet");
        running.sink.open(&stream, Fence(4)).await.unwrap();
        let first = chunk(&stream, 4, None, &[(1, 0, b"a")]);
        assert!(running.sink.write(std::slice::from_ref(&first)).await[0].is_ok());
        let now = Time(i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap());
        assert_eq!(purge.purge(now, 10).await.unwrap(), 1);
        let count = async || {
            fixture.rows(["COUNT(*)"], "FROM log_stream").await[0][0]
                .clone()
                .unwrap()
        };
        assert_eq!(count().await, "1", "a row that was written a moment ago stays");
        let day = if fixture.name == "sqlite" {
            "updated_at - 90000"
        } else {
            "updated_at - INTERVAL 25 HOUR"
        };
        fixture.sql(&format!("UPDATE log_stream SET updated_at = {day}")).await;
        assert_eq!(purge.purge(now, 10).await.unwrap(), 0);
        assert_eq!(count().await, "0");
        // The container writes again: lines after its checkpoint are stored.
        let lines = [(2, 0, &b"b"[..])];
        assert!(running.sink.write(&[chunk(&stream, 4, first.end, &lines)]).await[0].is_ok());
        assert_eq!(fixture.read(&stream).await, unchanged(&lines));
    })
    .await;
}
