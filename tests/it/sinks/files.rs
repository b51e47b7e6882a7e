//! What only file sinks do: rotate files, repair them, survive a full disk.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use podlog::domain::{Chunk, Fence, Origin};

use crate::chunks::{TestLine, chunk, origin};
use crate::sinks::fixture::{OpenSink, SinkFixture, find, unchanged};

async fn file_fixture(parameters: &str) -> SinkFixture {
    let mut fixture = SinkFixture::new("file").await.unwrap();
    fixture.url = format!("file://{}?{parameters}", fixture.dir().display());
    fixture
}

/// Chunks of one line each, one after another.
fn chunks(stream: &Arc<Origin>, texts: &[Vec<u8>]) -> Vec<Arc<Chunk>> {
    let mut at = None;
    let mut all = Vec::new();
    for (text, time) in texts.iter().zip(0..) {
        let next = chunk(stream, 1, at, &[(time, 0, text)]);
        at = next.end;
        all.push(next);
    }
    all
}

fn texts(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|n| format!("line {n}").into_bytes()).collect()
}

fn test_lines(texts: &[Vec<u8>]) -> Vec<TestLine<'_>> {
    texts.iter().zip(0..).map(|(text, time)| (time, 0, &text[..])).collect()
}

async fn write(running: &OpenSink, chunks: &[Arc<Chunk>]) {
    for chunk in chunks {
        assert!(running.sink.write(std::slice::from_ref(chunk)).await[0].is_ok());
    }
}

#[tokio::test]
async fn rotating_files_loses_nothing() {
    let fixture = file_fixture("max_size=2000&keep=99&fsync=never").await;
    let (stream, texts) = (origin("rotate"), texts(100));
    write(&fixture.open().await, &chunks(&stream, &texts)).await;
    let files = find(&fixture.dir());
    assert!(files.len() > 10, "{files:?}");
    assert!(files.iter().all(|file| file.metadata().unwrap().len() <= 2000));
    assert_eq!(fixture.read(&stream).await, unchanged(&test_lines(&texts)));
}

#[tokio::test]
async fn rotated_files_are_compressed_and_only_the_newest_are_kept() {
    let fixture = file_fixture("max_size=2000&keep=3&gzip=true&fsync=always").await;
    let (stream, texts) = (origin("gzip"), texts(100));
    write(&fixture.open().await, &chunks(&stream, &texts)).await;
    let mut files = find(&fixture.dir());
    files.sort();
    let names: Vec<String> = files
        .iter()
        .map(|f| f.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    let name = "0-0123456789ab.jsonl";
    assert_eq!(
        names,
        [
            name,
            &format!("{name}.1.gz"),
            &format!("{name}.2.gz"),
            &format!("{name}.3.gz")
        ]
    );
    let mut all = String::new();
    for file in files[1..].iter().rev() {
        flate2::read::GzDecoder::new(std::fs::File::open(file).unwrap())
            .read_to_string(&mut all)
            .unwrap();
    }
    all.push_str(&std::fs::read_to_string(&files[0]).unwrap());
    let kept = all.lines().count();
    assert!(kept > 20);
    for (line, text) in all.lines().zip(&texts[texts.len() - kept..]) {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(record["message"].as_str().unwrap().as_bytes(), text);
    }
}

#[tokio::test]
async fn an_incomplete_last_line_is_removed_before_anything_is_appended() {
    for policy in ["never", "interval", "always"] {
        let fixture = file_fixture(&format!("fsync={policy}")).await;
        let (stream, texts) = (origin("torn"), texts(3));
        let all = chunks(&stream, &texts);
        let first = fixture.open().await;
        write(&first, &all[..1]).await;
        let path = find(&fixture.dir()).remove(0);
        let tear = |text: &[u8]| {
            let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
            file.write_all(text).unwrap();
        };
        tear(b"{\"time\":\"2026-");
        // Another replica takes over; then the first one comes back with its open file.
        write(&fixture.open().await, &all[1..2]).await;
        tear(&b"x".repeat(200_000));
        write(&first, &all[2..]).await;
        assert_eq!(fixture.read(&stream).await, unchanged(&test_lines(&texts)));
    }
}

#[tokio::test]
async fn a_file_rotated_by_another_replica_is_closed() {
    let fixture = file_fixture("max_size=1000&keep=99&fsync=never").await;
    let (stream, texts) = (origin("turns"), texts(60));
    let all = chunks(&stream, &texts);
    let replicas = [fixture.open().await, fixture.open().await];
    for (chunk, turn) in all.iter().zip(0..) {
        write(&replicas[turn % 7 % 2], std::slice::from_ref(chunk)).await;
    }
    assert_eq!(fixture.read(&stream).await, unchanged(&test_lines(&texts)));
}

#[tokio::test]
async fn more_streams_than_open_files_are_all_written() {
    let fixture = file_fixture("fsync=interval").await;
    let running = fixture.open().await;
    let texts = texts(3);
    let streams: Vec<_> = (0..400).map(|n| origin(&format!("s{n}"))).collect();
    for turn in 0..3 {
        let group: Vec<Arc<Chunk>> = streams
            .iter()
            .map(|stream| chunks(stream, &texts)[turn].clone())
            .collect();
        assert!(running.sink.write(&group).await.iter().all(Result::is_ok));
    }
    for stream in &streams {
        assert_eq!(fixture.read(stream).await, unchanged(&test_lines(&texts)));
    }
}

#[tokio::test]
async fn a_write_succeeds_after_the_obstacle_is_removed() {
    let fixture = file_fixture("fsync=never").await;
    let running = fixture.open().await;
    let (stream, texts) = (origin("way"), texts(1));
    let all = chunks(&stream, &texts);
    std::fs::write(fixture.dir().join("shop"), b"a file, not a directory").unwrap();
    let mut write = Box::pin(running.sink.write(&all));
    assert!(
        tokio::time::timeout(Duration::from_millis(300), &mut write)
            .await
            .is_err()
    );
    std::fs::remove_file(fixture.dir().join("shop")).unwrap();
    assert!(write.await[0].is_ok());
    assert_eq!(fixture.read(&stream).await, unchanged(&test_lines(&texts)));
}

const CHILD: &str = "PODLOG_TEST_LIMITED_DIR";

/// The limit on file sizes stands for a full disk: a write stops after a part of the data and then fails. A process can
/// only give itself such a limit for good, so the test runs itself again under one.
#[tokio::test]
async fn a_full_disk_leaves_whole_records_and_the_chunk_is_stored_once_when_space_is_free() {
    let (stream, texts) = (origin("full"), vec![b"small".to_vec(), vec![b'x'; 100_000]]);
    let all = chunks(&stream, &texts);
    if let Ok(dir) = std::env::var(CHILD) {
        return write_under_the_limit(dir.into(), &all).await;
    }
    let fixture = file_fixture("fsync=never").await;
    let name = "sinks::files::a_full_disk_leaves_whole_records_and_the_chunk_is_stored_once_when_space_is_free";
    let run = format!("ulimit -f 64; trap '' XFSZ; exec \"$0\" --exact {name} --nocapture");
    let mut child = Command::new("sh");
    child
        .arg("-c")
        .arg(run)
        .arg(std::env::current_exe().unwrap())
        .env(CHILD, fixture.dir());
    let output = child.output().unwrap();
    let said_so = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said_so.contains("1 passed"), "{said_so}");
    assert!(
        said_so.contains(".jsonl cannot be written: File too large") && said_so.contains("raise the limit"),
        "{said_so}"
    );
    assert_eq!(fixture.read(&stream).await, unchanged(&test_lines(&texts[..1])));
    let running = fixture.open().await;
    running.sink.open(&stream, Fence(2)).await.unwrap();
    write(&running, &all[1..]).await;
    assert_eq!(fixture.read(&stream).await, unchanged(&test_lines(&texts)));
}

async fn write_under_the_limit(dir: PathBuf, all: &[Arc<Chunk>]) {
    tracing_subscriber::fmt().with_ansi(false).init();
    let mut fixture = SinkFixture::new("file").await.unwrap();
    fixture.url = format!("file://{}?fsync=never", dir.display());
    let running = fixture.open().await;
    write(&running, &all[..1]).await;
    let tries = tokio::time::timeout(Duration::from_secs(1), running.sink.write(&all[1..])).await;
    assert!(tries.is_err(), "the chunk does not fit: {tries:?}");
}
