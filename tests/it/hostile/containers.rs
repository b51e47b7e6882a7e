//! Containers that write what they should not: what looks like podlog's own input, lines without end, no text at all.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use podlog::domain::Time;
use podlog::domain::intake::{Batch, Intake, Stance};
use podlog::follow::Ended;
use podlog::sim::{PodSpec, RestartPolicy, Settings, Text};

use super::front::{Answer, OPEN_END};
use super::stand::{LIMIT, Stand};
use crate::scene::{MINUTE, Scene};

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
async fn lines_that_look_like_stamps_or_words_of_the_kubelet_are_lines() {
    let mut scene = Scene::new(Settings::default(), RestartPolicy::Never).await;
    scene.follow();
    let beside = scene.sim.create(PodSpec::new("shop", "good").node("n1").app("app"));
    beside.unwrap().start("app").unwrap();
    for text in PRETENDERS {
        scene.pod.write("app", &Text::out(text)).unwrap();
    }
    let expected: Vec<String> = PRETENDERS
        .iter()
        .map(|text| String::from_utf8_lossy(text).into_owned())
        .collect();
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    scene.stored(&expected).await;
    // However often the stream is opened anew.
    tokio::time::sleep(90 * MINUTE).await;
    scene.pod.write("app", &Text::out(PRETENDERS[3]).partial()).unwrap();
    scene.pod.exit("app", 0).unwrap();
    scene.refresh().await;
    assert_eq!(scene.ended().await, Ended::Finished);
    scene.stored(&[&expected[..], &[expected[3]]].concat()).await;
    assert_eq!(scene.metrics.control_lines.get(), 0);
    assert!(scene.sink.gaps().is_empty(), "{:?}", scene.sink.gaps());
}

#[tokio::test(start_paused = true)]
async fn stamps_of_any_age_are_lines_in_the_order_they_were_written() {
    let mut scene = Scene::running().await;
    scene.follow();
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
        scene
            .pod
            .write("app", &Text::out(format!("line {n}")).at(stamp))
            .unwrap();
        tokio::time::sleep(MINUTE).await;
    }
    let expected: Vec<String> = (0..stamps.len()).map(|n| format!("line {n}")).collect();
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    scene.stored(&expected).await;
    scene.stop().await;
}

const LINES: usize = 1_000_000;

/// Serves a log of empty lines: to the first request all of them, to later ones what a log has from its last lines on.
fn serve_empty_lines(stand: &Stand) {
    let stamped = |n: usize| format!("{} \n", Time(1_795_171_621_000_000_000 + n as i64 * 1000));
    let all: String = (0..LINES).map(stamped).collect();
    let first = AtomicBool::new(true);
    stand.front.rule(move |head| {
        let is_log = head.contains("/pods/bad/log");
        let from = if is_log && first.swap(false, Ordering::Relaxed) {
            0
        } else {
            // 30 bytes of stamp, a blank and a line end.
            all.len() - 32 * 100
        };
        is_log.then(|| Answer::Bytes(format!("{OPEN_END}{}", &all[from..]).into_bytes()))
    });
}

/// The folder of the bad pod's records.
fn folder(stand: &Stand) -> Option<PathBuf> {
    let pods = std::fs::read_dir(stand.dir.path().join("records/shop")).ok()?.flatten();
    let mut pods = pods.map(|entry| entry.path());
    pods.find(|path| path.display().to_string().contains("/bad_"))
}

#[tokio::test]
async fn a_million_empty_lines_are_a_million_records_in_little_memory() {
    let mut stand = Stand::new().await;
    stand.bad();
    serve_empty_lines(&stand);
    stand.write(100);
    let path = stand.dir.path().display().to_string();
    let sink = format!("file://{path}/records?fsync=never&max_size=4GiB");
    stand.run_with(&format!("sqlite://{path}/locks.db"), &sink, &["--log-level", "info"]);
    stand.write(100);
    let file = |stand: &Stand| {
        Some(
            std::fs::read_dir(folder(stand)?.join("app"))
                .ok()?
                .flatten()
                .next()?
                .path(),
        )
    };
    // Only what is new is read each time: the file grows to some 300 MB.
    let (mut read, mut lines, mut empty) = (0, 0, 0);
    let begun = Instant::now();
    while lines < LINES {
        assert!(begun.elapsed() < 2 * LIMIT, "{lines} lines are stored\n{}", stand.log());
        tokio::time::sleep(Duration::from_millis(200)).await;
        let Some(mut file) = file(&stand).and_then(|path| File::open(path).ok()) else {
            continue;
        };
        file.seek(SeekFrom::Start(read)).unwrap();
        let mut text = Vec::new();
        file.read_to_end(&mut text).unwrap();
        text.truncate(memchr::memrchr(b'\n', &text).map_or(0, |at| at + 1));
        read += text.len() as u64;
        lines += memchr::memchr_iter(b'\n', &text).count();
        empty += memchr::memmem::find_iter(&text, b"\"message\":\"\"").count();
    }
    println!("stored in {:?}", begun.elapsed());
    assert_eq!((lines, empty), (LINES, LINES));
    let peak = stand.peak();
    println!("{peak} MiB");
    assert!(peak < 256, "{peak} MiB");
    // The files that are left are those of the pod beside.
    std::fs::rename(folder(&stand).unwrap(), stand.dir.path().join("aside")).unwrap();
    stand.good_is_whole().await;
    stand.end().await;
}

#[test]
fn a_line_of_a_gigabyte_is_never_held_beyond_the_cap() {
    const CAP: usize = 256 * 1024;
    let mut intake = Intake::new(CAP);
    let mut batch = Batch::default();
    intake.begin(Stance::All);
    intake.feed(b"2026-11-20T10:47:01.312773573Z ", &mut batch);
    let piece = vec![b'x'; 64 * 1024];
    let pieces = (1 << 30) / piece.len();
    for _ in 0..pieces {
        intake.feed(&piece, &mut batch);
        assert_eq!(batch.text.len(), 0, "nothing is taken of a line that goes on");
        // 128 bytes and the carry, which grows by doubling.
        assert!(intake.held() <= 2 * CAP + 128, "{} bytes are held", intake.held());
    }
    intake.feed(b"\n2026-11-20T10:47:01.312773573Z next\n", &mut batch);
    assert_eq!(batch.lines.len(), 2);
    assert_eq!(batch.lines[0].len as usize, CAP);
    assert_eq!(batch.lines[0].cut, (1 << 30) - CAP as u64);
    assert_eq!((batch.lines[1].ordinal, batch.lines[1].cut), (1, 0));
    assert!(intake.held() <= 4096, "the memory of the long line is given back");
}

#[tokio::test]
async fn a_line_of_a_gigabyte_is_cut_and_what_follows_and_a_pod_beside_are_stored_whole() {
    let mut stand = Stand::new().await;
    stand.bad();
    stand.write(100);
    let first = AtomicBool::new(true);
    let after = "2026-11-20T10:47:02.000000000Z after\n";
    stand.front.rule(move |head| {
        if !head.contains("/pods/bad/log") {
            return None;
        }
        if first.swap(false, Ordering::Relaxed) {
            return Some(Answer::Long {
                head: format!("{OPEN_END}2026-11-20T10:47:01.000000000Z ").into_bytes(),
                piece: vec![b'x'; 1 << 20],
                times: 1 << 10,
                tail: format!("\n{after}").into_bytes(),
            });
        }
        Some(Answer::Bytes(format!("{OPEN_END}{after}").into_bytes()))
    });
    stand.run();
    stand
        .until("the line is on its way", async |stand| stand.front.sent() > 0)
        .await;
    stand.write(100);
    stand
        .until("the end of it is stored", async |stand| {
            stand.messages().get("bad").is_some_and(|lines| lines.len() >= 2)
        })
        .await;
    let peak = stand.peak();
    println!("{peak} MiB");
    assert!(peak < 256, "{peak} MiB");
    let records = stand.records();
    let long = records.iter().find(|record| record["cut"].is_u64()).unwrap();
    let kept = long["message"].as_str().unwrap().len() as u64;
    assert_eq!(kept + long["cut"].as_u64().unwrap(), 1 << 30);
    assert_eq!(stand.messages()["bad"][1..], ["after"]);
    stand.good_is_whole().await;
    stand.front.peace();
    stand.end().await;
}
