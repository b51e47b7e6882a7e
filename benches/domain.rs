//! Measures the work for a line without I/O: splitting, parsing timestamps, finding the position to resume at,
//! encoding. It prints lines per second of one core.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use podlog::domain::line_decoder::{Batch, LineDecoder, ResumeMode};
use podlog::domain::{Chunk, Deadline, Fence, Origin, StreamId, Time};
use podlog::sinks::json::Encoder;

const LINES: usize = 10_000;
/// The length of a message in bytes. With its timestamp a line has 200 bytes.
const MESSAGE: usize = 168;

fn log() -> Vec<u8> {
    let mut log = Vec::new();
    for i in 0..LINES {
        let time = Time(1_790_000_000_000_000_000 + i as i64 * 1_000_000);
        let text = format!("{time} {i:0>MESSAGE$}\n");
        log.extend_from_slice(text.as_bytes());
    }
    log
}

fn read(decoder: &mut LineDecoder, mode: ResumeMode, log: &[u8]) -> Batch {
    let mut batch = Batch::default();
    decoder.begin(mode);
    for frame in log.chunks(16 * 1024) {
        decoder.feed(frame, &mut batch);
    }
    batch
}

fn chunk(batch: Batch) -> Chunk {
    let stream = StreamId {
        uid: "7f1c".into(),
        container: "app".into(),
        container_id: "0123456789abcdef".into(),
    };
    let origin = Origin {
        stream,
        namespace: "shop".into(),
        pod: "cart-0".into(),
        node: Some("n1".into()),
        restart_count: 0,
        labels: [("app".into(), "cart".into())].into(),
    };
    let end = batch.end();
    Chunk {
        origin: Arc::new(origin),
        fence: Fence(1),
        deadline: Deadline::new(std::time::Duration::MAX),
        gap: None,
        text: batch.text,
        lines: batch.lines,
        begin: None,
        end,
    }
}

fn lines(c: &mut Criterion) {
    let log = log();
    let mut group = c.benchmark_group("lines");
    group.throughput(Throughput::Elements(LINES as u64));
    let mut decoder = LineDecoder::new(256 * 1024);
    group.bench_function("split, stamp and take", |b| {
        b.iter(|| black_box(read(&mut decoder, ResumeMode::All, &log)));
    });
    let whole = read(&mut decoder, ResumeMode::All, &log);
    let last = whole.end().map_or(ResumeMode::All, ResumeMode::After);
    group.bench_function("seek past", |b| b.iter(|| black_box(read(&mut decoder, last, &log))));
    let chunk = chunk(whole);
    let mut out = Vec::new();
    group.bench_function("encode as JSON", |b| {
        b.iter(|| {
            out.clear();
            Encoder::new(&chunk.origin).chunk(&chunk, &mut out);
            black_box(out.len())
        });
    });
    group.finish();
}

criterion_group!(benches, lines);
criterion_main!(benches);
