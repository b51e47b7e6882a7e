//! Containers that write unusual output: lines that look like podlog's own input, endless lines, bytes that are not
//! text.

use std::cell::Cell;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use kube_sim::{PodSpec, RestartPolicy, SimSettings, Text};
use podlog::domain::Time;
use podlog::domain::line_decoder::{Batch, LineDecoder, ResumeMode};
use podlog::follow::TaskEnd;

use super::fixture::HostileFixture;
use super::proxy::{OPEN_END, RawAnswer};
use crate::follow_fixture::{FollowFixture, MINUTE};

/// Lines that could be taken for something else.
const PRETENDERS: [&[u8]; 14] = [
    b"2026-11-20T10:47:01.312773573Z a stamp of its own",
    b"1970-01-01T00:00:00.000000000Z ",
    b"9999-99-99T99:99:99.999999999Z x",
    b"unable to retrieve container logs for containerd://1",
    b"failed to create fsnotify watcher: too many open files",
    b"unexpected EOF",
    b"{\"kind\":\"Status\",\"status\":\"Failure\",\"code\":500}",
    b"HTTP/1.1 200 OK\r",
    b"\x1b[2J\x1b]0;title\x07\x1b[31mred\x1b[0m",
    b"\0\0\0nul\0",
    b"\xff\xfe not UTF-8 \xc3\x28 \xed\xa0\x80",
    b" ",
    b"\r",
    b"2026-11-20T10:47:01.312773573Z stdout F nested",
];

#[tokio::test(start_paused = true)]
async fn lines_that_look_like_timestamps_or_messages_of_the_kubelet_are_lines() {
    let mut fixture = FollowFixture::new(SimSettings::default(), RestartPolicy::Never).await;
    fixture.follow();
    let beside = fixture.sim.create(PodSpec::new("shop", "good").node("n1").app("app"));
    beside.unwrap().start("app").unwrap();
    for text in PRETENDERS {
        fixture.pod.write("app", &Text::out(text)).unwrap();
    }
    let expected: Vec<String> = PRETENDERS
        .iter()
        .map(|text| String::from_utf8_lossy(text).into_owned())
        .collect();
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    fixture.stored(&expected).await;
    // However often the stream is opened anew.
    tokio::time::sleep(90 * MINUTE).await;
    fixture.pod.write("app", &Text::out(PRETENDERS[3]).partial()).unwrap();
    fixture.pod.exit("app", 0).unwrap();
    fixture.refresh().await;
    assert_eq!(fixture.ended().await, TaskEnd::Finished);
    fixture.stored(&[&expected[..], &[expected[3]]].concat()).await;
    assert_eq!(fixture.metrics.kubelet_messages.get(), 0);
    assert!(fixture.sink.gaps().is_empty(), "{:?}", fixture.sink.gaps());
}

#[tokio::test(start_paused = true)]
async fn lines_with_any_timestamp_are_stored_in_the_order_they_were_written() {
    let mut fixture = FollowFixture::running().await;
    fixture.follow();
    let stamps = [
        0,
        -1,
        -62_000_000_000_000_000,
        i64::MAX,
        i64::MAX,
        5,
        i64::MIN + 1_000_000_000,
        5,
    ];
    for (n, stamp) in stamps.into_iter().enumerate() {
        fixture
            .pod
            .write("app", &Text::out(format!("line {n}")).at(stamp))
            .unwrap();
        tokio::time::sleep(MINUTE).await;
    }
    let expected: Vec<String> = (0..stamps.len()).map(|n| format!("line {n}")).collect();
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    fixture.stored(&expected).await;
    fixture.stop().await;
}

/// How many empty lines are stored at least.
const LINES: usize = 1_000_000;

/// Lines of one answer: less than is read in a second, so that a stopped flood ends soon.
const ANSWER_LINES: usize = 100_000;

/// The flood's timestamps last for this many seconds, of 1000 lines each: many times more than [`LINES`].
const SECONDS: usize = 20_000;

/// A log of empty lines, a millisecond apart, that grows for as long as it is read.
struct EmptyLines {
    /// The beginning of each second's timestamps, up to the seconds.
    seconds: Vec<String>,
    /// The rest of the lines of a second.
    rests: Vec<String>,
    /// Lines that were sent so far.
    written: usize,
    stopped: bool,
}

impl EmptyLines {
    fn new() -> Self {
        let stamp = |second: usize| Time((1_795_171_621 + second as i64) * 1_000_000_000).to_string();
        Self {
            seconds: (0..SECONDS).map(|second| stamp(second)[..19].to_owned()).collect(),
            rests: (0..1000).map(|ms| format!(".{ms:03}000000Z \n")).collect(),
            written: 0,
            stopped: false,
        }
    }

    /// The answer to a request: the last line to a probe, otherwise lines from the time that it names.
    fn answer(&mut self, head: &str) -> String {
        let since = head.split_once("&sinceTime=").map(|(_, more)| more.replace("%3A", ":"));
        let from = since.map_or(0, |since| {
            1000 * self.seconds.partition_point(|second| **second < since[..19])
        });
        if !self.stopped {
            self.written = self.written.max(from + ANSWER_LINES);
        }
        assert!(self.written < SECONDS * 1000, "the flood has no more timestamps");
        let lines = if head.contains("&tailLines=") {
            self.written - 1..self.written
        } else {
            from..self.written.min(from + ANSWER_LINES)
        };
        let mut text = String::from(OPEN_END);
        for n in lines {
            text.push_str(&self.seconds[n / 1000]);
            text.push_str(&self.rests[n % 1000]);
        }
        text
    }
}

/// Serves empty lines as the log of the bad pod, for as long as the flood is not stopped.
fn serve_empty_lines(fixture: &HostileFixture) -> Arc<Mutex<EmptyLines>> {
    let log = Arc::new(Mutex::new(EmptyLines::new()));
    let served = log.clone();
    fixture.proxy.rule(move |head| {
        let is_log = head.contains("/pods/bad/log");
        is_log.then(|| RawAnswer::Bytes(served.lock().unwrap().answer(head).into_bytes()))
    });
    log
}

/// What is stored of the empty lines. Only what is new is read each time: the file grows to some 300 MB.
#[derive(Clone, Copy, Default)]
struct LineFlood {
    read: u64,
    lines: usize,
    empty: usize,
}

impl LineFlood {
    /// Reads on; returns how many lines are stored.
    fn stored(&mut self, fixture: &HostileFixture) -> usize {
        let folder = fixture
            .folder_of("bad")
            .and_then(|pod| std::fs::read_dir(pod.join("app")).ok());
        let Some(Ok(entry)) = folder.and_then(|mut folder| folder.next()) else {
            return 0;
        };
        let mut file = File::open(entry.path()).unwrap();
        file.seek(SeekFrom::Start(self.read)).unwrap();
        let mut text = Vec::new();
        file.read_to_end(&mut text).unwrap();
        text.truncate(memchr::memrchr(b'\n', &text).map_or(0, |at| at + 1));
        self.read += text.len() as u64;
        self.lines += memchr::memchr_iter(b'\n', &text).count();
        self.empty += memchr::memmem::find_iter(&text, b"\"message\":\"\"").count();
        self.lines
    }
}

#[tokio::test]
async fn a_million_empty_lines_are_a_million_records_in_little_memory() {
    let mut fixture = HostileFixture::new().await;
    fixture.bad();
    let log = serve_empty_lines(&fixture);
    fixture.write(100);
    let path = fixture.dir.path().display().to_string();
    let sink = format!("file://{path}/records?fsync=never&max_size=4GiB");
    fixture.run_with(&format!("sqlite://{path}/locks.db"), &sink, &["--log-level", "info"]);
    let (flood, begun) = (Cell::new(LineFlood::default()), Instant::now());
    let stored = |fixture: &HostileFixture| {
        let mut now = flood.get();
        let lines = now.stored(fixture);
        flood.set(now);
        lines
    };
    // The flood goes on until it is stopped, so what the pod beside writes is stored meanwhile or never.
    for share in [5, 20, 40, 60, 100] {
        let lines = LINES / 100 * share;
        fixture
            .until("so many lines are stored", async |fixture| stored(fixture) >= lines)
            .await;
        fixture.write(100);
        let written = Instant::now();
        fixture.good_pod_is_stored().await;
        println!(
            "{} lines after {:?}, of those beside after {:?}",
            stored(&fixture),
            begun.elapsed(),
            written.elapsed()
        );
    }
    let all = {
        let mut log = log.lock().unwrap();
        log.stopped = true;
        log.written
    };
    fixture
        .until("all lines are stored", async |fixture| stored(fixture) >= all)
        .await;
    println!("{all} lines are stored in {:?}", begun.elapsed());
    assert_eq!((flood.get().lines, flood.get().empty), (all, all));
    let peak = fixture.peak();
    println!("{peak} MiB");
    assert!(peak < 256, "{peak} MiB");
    fixture.write(100);
    fixture.good_pod_is_stored().await;
    fixture.end().await;
}

#[test]
fn a_line_of_a_gigabyte_is_never_buffered_beyond_the_limit() {
    const CAP: usize = 256 * 1024;
    let mut decoder = LineDecoder::new(CAP);
    let mut batch = Batch::default();
    decoder.begin(ResumeMode::All);
    decoder.feed(b"2026-11-20T10:47:01.312773573Z ", &mut batch);
    let piece = vec![b'x'; 64 * 1024];
    let pieces = (1 << 30) / piece.len();
    for _ in 0..pieces {
        decoder.feed(&piece, &mut batch);
        assert_eq!(batch.text.len(), 0, "nothing is taken of a line that goes on");
        // 128 bytes and the carry, which grows by doubling.
        assert!(
            decoder.buffer_capacity() <= 2 * CAP + 128,
            "{} bytes are held",
            decoder.buffer_capacity()
        );
    }
    decoder.feed(b"\n2026-11-20T10:47:01.312773573Z next\n", &mut batch);
    assert_eq!(batch.lines.len(), 2);
    assert_eq!(batch.lines[0].len as usize, CAP);
    assert_eq!(batch.lines[0].cut, (1 << 30) - CAP as u64);
    assert_eq!((batch.lines[1].ordinal, batch.lines[1].cut), (1, 0));
    assert!(
        decoder.buffer_capacity() <= 4096,
        "the memory of the long line is given back"
    );
}

#[tokio::test]
async fn a_line_of_a_gigabyte_is_truncated_and_the_next_lines_and_other_pods_are_stored_whole() {
    let mut fixture = HostileFixture::new().await;
    fixture.bad();
    fixture.write(100);
    let first = AtomicBool::new(true);
    let after = "2026-11-20T10:47:02.000000000Z after\n";
    fixture.proxy.rule(move |head| {
        if !head.contains("/pods/bad/log") {
            return None;
        }
        if first.swap(false, Ordering::Relaxed) {
            return Some(RawAnswer::Long {
                head: format!("{OPEN_END}2026-11-20T10:47:01.000000000Z ").into_bytes(),
                piece: vec![b'x'; 1 << 20],
                times: 1 << 10,
                tail: format!("\n{after}").into_bytes(),
            });
        }
        Some(RawAnswer::Bytes(format!("{OPEN_END}{after}").into_bytes()))
    });
    fixture.proxy.go_on(true);
    fixture.run();
    // The line goes on until it may end, so what the pod beside writes is stored meanwhile or never.
    for least in [1, 1 << 28, 1 << 29] {
        fixture
            .until("that much of the line was sent", async |fixture| {
                fixture.proxy.sent() >= least
            })
            .await;
        let begun = Instant::now();
        fixture.write(100);
        fixture.good_pod_is_stored().await;
        println!(
            "{} MiB were sent, of those beside after {:?}",
            fixture.proxy.sent() >> 20,
            begun.elapsed()
        );
    }
    fixture.proxy.go_on(false);
    fixture
        .until("the end of it is stored", async |fixture| {
            fixture.messages().get("bad").is_some_and(|lines| lines.len() >= 2)
        })
        .await;
    let peak = fixture.peak();
    println!("{peak} MiB");
    assert!(peak < 256, "{peak} MiB");
    let records = fixture.records();
    let long = records.iter().find(|record| record["cut"].is_u64()).unwrap();
    let kept = long["message"].as_str().unwrap().len() as u64;
    assert_eq!(kept + long["cut"].as_u64().unwrap(), fixture.proxy.sent());
    assert_eq!(fixture.messages()["bad"][1..], ["after"]);
    fixture.good_pod_is_stored().await;
    fixture.proxy.pass_everything_on();
    fixture.end().await;
}
