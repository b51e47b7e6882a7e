//! Tests of when files are flushed, on a disk that flushes when the test lets it.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Condvar;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::sinks::fixtures::{chunk, origin};

/// A disk whose flushes wait until the gate is open.
#[derive(Clone, Default)]
struct GatedDisk(Arc<(std::sync::Mutex<Gate>, Condvar)>);

#[derive(Default)]
struct Gate {
    open: bool,
    /// Flushes that wait now, and the most that have waited together.
    waiting: usize,
    most: usize,
    /// The files that were flushed, by inode.
    flushed: Vec<u64>,
    /// Whether flushes fail.
    fails: bool,
}

impl GatedDisk {
    fn disk(&self) -> Disk {
        let this = self.clone();
        Disk::of(move |file: &File| {
            let (gate, changed) = &*this.0;
            let mut gate = gate.lock().unwrap();
            gate.waiting += 1;
            gate.most = gate.most.max(gate.waiting);
            changed.notify_all();
            gate = changed.wait_while(gate, |gate| !gate.open).unwrap();
            gate.waiting -= 1;
            gate.flushed.push(file.metadata().unwrap().ino());
            if gate.fails {
                Err(io::Error::other("the disk is broken"))
            } else {
                Ok(())
            }
        })
    }

    fn set(&self, change: impl FnOnce(&mut Gate)) {
        let (gate, changed) = &*self.0;
        change(&mut gate.lock().unwrap());
        changed.notify_all();
    }

    fn get<T>(&self, ask: impl FnOnce(&Gate) -> T) -> T {
        ask(&self.0.0.lock().unwrap())
    }

    /// Waits on a thread of its own until this holds.
    async fn until(&self, holds: fn(&Gate) -> bool) {
        let this = self.clone();
        let waiting = tokio::task::spawn_blocking(move || {
            let (gate, changed) = &*this.0;
            drop(changed.wait_while(gate.lock().unwrap(), |gate| !holds(gate)).unwrap());
        });
        tokio::time::timeout(Duration::from_mins(1), waiting)
            .await
            .unwrap()
            .unwrap();
    }
}

async fn sink(fsync: Fsync, disk: &GatedDisk) -> (FileSink, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let options = FileOptions {
        dir: dir.path().to_owned(),
        max_size: 1 << 20,
        keep: 3,
        fsync,
        gzip: false,
    };
    let sink = FileSink::open_on(options, Clock::boottime(), disk.disk())
        .await
        .unwrap();
    (sink, dir)
}

fn chunks(range: std::ops::Range<usize>, time: i64) -> Vec<Arc<Chunk>> {
    let one = |n| chunk(&origin(&format!("pod-{n}"), "app"), 1, &[(time, b"line")]);
    range.map(|n| Arc::new(one(n))).collect()
}

fn lines(dir: &Path) -> usize {
    let mut count = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        count += if path.is_dir() {
            lines(&path)
        } else {
            std::fs::read_to_string(path).unwrap().lines().count()
        };
    }
    count
}

#[tokio::test]
async fn records_are_written_while_files_are_flushed_and_many_are_flushed_together() {
    let disk = GatedDisk::default();
    let (sink, dir) = sink(Fsync::Interval, &disk).await;
    assert!(sink.write(&chunks(0..40, 1)).await.iter().all(Result::is_ok));
    let writes = async {
        disk.until(|gate| gate.waiting >= 13).await;
        // No file is flushed yet.
        assert!(sink.write(&chunks(0..40, 2)).await.iter().all(Result::is_ok));
        assert_eq!((lines(dir.path()), disk.get(|gate| gate.flushed.len())), (80, 0));
        disk.set(|gate| gate.open = true);
    };
    let (synced, ()) = tokio::join!(sink.sync(), writes);
    assert_eq!((synced, disk.get(|gate| gate.flushed.len())), (Ok(()), 40));
    // What was written meanwhile is flushed with the next.
    sink.sync().await.unwrap();
    assert_eq!(disk.get(|gate| gate.flushed.len()), 80);
    sink.sync().await.unwrap();
    assert_eq!(disk.get(|gate| gate.flushed.len()), 80, "nothing is left");
}

#[tokio::test]
async fn a_file_that_was_closed_because_too_many_were_open_is_flushed_once_an_interval() {
    let disk = GatedDisk::default();
    let (sink, dir) = sink(Fsync::Interval, &disk).await;
    let pods = OPEN_FILES + 50;
    for time in 0..3 {
        assert!(sink.write(&chunks(0..pods, time)).await.iter().all(Result::is_ok));
    }
    assert_eq!(
        (lines(dir.path()), disk.get(|gate| gate.most)),
        (3 * pods, 0),
        "no write flushes"
    );
    disk.set(|gate| gate.open = true);
    sink.sync().await.unwrap();
    let mut flushed = disk.get(|gate| gate.flushed.clone());
    flushed.sort_unstable();
    flushed.dedup();
    assert_eq!(flushed.len(), pods);
}

#[tokio::test]
async fn a_flush_that_fails_is_said_and_tried_again() {
    let disk = GatedDisk::default();
    let (sink, _dir) = sink(Fsync::Interval, &disk).await;
    sink.write(&chunks(0..2, 1)).await;
    disk.set(|gate| (gate.open, gate.fails) = (true, true));
    let why = sink.sync().await.unwrap_err();
    assert!(
        why.contains("the disk is broken") && why.contains("check the system log"),
        "{why}"
    );
    disk.set(|gate| gate.fails = false);
    assert_eq!(sink.sync().await, Ok(()));
    assert_eq!(disk.get(|gate| gate.flushed.len()), 4);
}

#[tokio::test]
async fn with_fsync_always_a_write_is_answered_after_its_files_are_flushed_together() {
    let disk = GatedDisk::default();
    let (sink, dir) = sink(Fsync::Always, &disk).await;
    let answered = AtomicUsize::new(0);
    let group = chunks(0..40, 1);
    let write = async {
        let results = sink.write(&group).await;
        answered.store(1, Ordering::SeqCst);
        results
    };
    let check = async {
        disk.until(|gate| gate.waiting >= 13).await;
        assert_eq!(answered.load(Ordering::SeqCst), 0);
        disk.set(|gate| gate.open = true);
    };
    let (results, ()) = tokio::join!(write, check);
    assert!(results.iter().all(Result::is_ok));
    assert_eq!((lines(dir.path()), disk.get(|gate| gate.flushed.len())), (40, 40));
}

#[tokio::test]
async fn with_fsync_always_what_cannot_be_flushed_is_taken_back_and_stored_once_later() {
    let disk = GatedDisk::default();
    let (sink, dir) = sink(Fsync::Always, &disk).await;
    disk.set(|gate| gate.open = true);
    assert!(sink.write(&chunks(0..3, 1)).await.iter().all(Result::is_ok));
    disk.set(|gate| gate.fails = true);
    let group = chunks(0..3, 2);
    assert!(
        sink.write(&group)
            .await
            .iter()
            .all(|result| matches!(result, Err(SinkError::Again { .. })))
    );
    assert_eq!(lines(dir.path()), 3);
    disk.set(|gate| gate.fails = false);
    assert!(sink.write(&group).await.iter().all(Result::is_ok));
    assert_eq!(lines(dir.path()), 6);
}
