//! How fast sinks are. These are measurements, not tests. Run them by hand, in release mode:
//! `cargo test --release --test it sinks::throughput -- --ignored --nocapture --test-threads 1`

use std::sync::Arc;
use std::time::{Duration, Instant};

use podlog::domain::{Fence, Origin};
use podlog::sinks::json::Encoder;

use crate::chunks::{TestLine, chunk, origin};
use crate::sinks::fixture::each;

const CHUNK: usize = 500;

fn lines(text: &[u8], from: i64) -> Vec<TestLine<'_>> {
    (from..)
        .take(CHUNK)
        .map(|n| (1_795_171_621_312_773_573 + n * 1_000_000, 0, text))
        .collect()
}

/// CPU time of this process so far.
fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[test]
#[ignore = "a measurement"]
fn measure_json() {
    for (name, text) in [
        (
            "100 bytes",
            "GET /api/v1/carts/42 200 17ms ".repeat(4)[..100].to_owned(),
        ),
        (
            "200 bytes",
            "GET /api/v1/carts/42 200 17ms ".repeat(7)[..200].to_owned(),
        ),
        (
            "200 bytes of JSON",
            "{\"level\":\"info\",\"msg\":\"ok\",\"ms\":17},".repeat(6)[..200].to_owned(),
        ),
    ] {
        let one = chunk(
            &origin("0b1f6a52-7c11-4f5e-9d0a-3c2b1a0f9e8d"),
            1,
            None,
            &lines(text.as_bytes(), 0),
        );
        let mut out = Vec::new();
        let mut count = 0;
        let begun = cpu();
        while cpu() - begun < Duration::from_secs(2) {
            for _ in 0..100 {
                out.clear();
                Encoder::new(&one.origin).chunk(&one, &mut out);
                count += CHUNK;
            }
        }
        let took = (cpu() - begun).as_secs_f64();
        println!(
            "{name}: {:.2} M lines per CPU-second, {:.0} ns a line",
            count as f64 / took / 1e6,
            took * 1e9 / count as f64
        );
    }
}

#[tokio::test]
#[ignore = "a measurement"]
async fn measure_sinks() {
    let text = b"GET /api/v1/carts/42 200 17ms ".repeat(4)[..100].to_vec();
    each(async |fixture| {
        let running = fixture.open().await;
        let writer = async |stream: Arc<Origin>, chunks: i64| {
            running.sink.open(&stream, Fence(1)).await.unwrap();
            let mut at = None;
            for n in 0..chunks {
                let next = chunk(&stream, 1, at, &lines(&text, n * CHUNK as i64));
                at = next.end;
                assert!(running.sink.write(&[next]).await[0].is_ok());
            }
        };
        for (writers, chunks) in [(1_usize, 40_i64), (10, 40), (30, 20)] {
            let (begun, cpu_begun) = (Instant::now(), cpu());
            let streams = (0..writers).map(|n| origin(&format!("m-{writers}-{n}")));
            futures::future::join_all(streams.map(|stream| writer(stream, chunks))).await;
            let (took, used) = (begun.elapsed().as_secs_f64(), (cpu() - cpu_begun).as_secs_f64());
            let count = writers as f64 * chunks as f64 * CHUNK as f64;
            println!(
                "{}: {writers} writers: {:.0} lines/s, {:.2} us of own CPU a line",
                fixture.name,
                count / took,
                used * 1e6 / count
            );
        }
    })
    .await;
}
