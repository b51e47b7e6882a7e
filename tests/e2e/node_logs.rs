//! Records what containers write, from the log files of the node.
//!
//! A thread makes a hard link to every log file of the namespace as soon as it appears, so that the bytes survive
//! rotation and deletion. The files are read afterwards according to the CRI log format. Nothing here asks the API
//! server or podlog.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::Timestamp;

use crate::audit::{InstanceKey, LogLine};
use crate::fixture::keeps_everything;
use crate::servers;

/// Where the kubelet keeps the logs of pods.
const LOGS: &str = "/var/log/pods";

/// The interval between two searches for new files. A file lives for several times that, even in a crash loop.
const INTERVAL: Duration = Duration::from_millis(50);

/// Records the node's log files until it is dropped.
pub(crate) struct NodeLogRecorder {
    links: PathBuf,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<LinkedLog>>>,
}

/// One log file: its container instance, and the hard link that keeps its bytes.
#[derive(Debug)]
struct LinkedLog {
    key: InstanceKey,
    link: PathBuf,
}

impl NodeLogRecorder {
    /// Starts recording. Prints a message and returns `None` if the node is not this machine.
    pub(crate) fn watch(namespace: &str) -> Option<Self> {
        let logs = Path::new(LOGS);
        if fs::read_dir(logs).is_err() {
            servers::skip("the node's log files are not on this machine, so at most numbers of lines are compared");
            return None;
        }
        // Hard links must be on the same file system.
        let links = logs.parent()?.join(format!("{namespace}.links"));
        fs::create_dir(&links).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let watch = LogLinker {
            prefix: format!("{namespace}_"),
            links: links.clone(),
            known: HashMap::new(),
        };
        let ended = stop.clone();
        let thread = std::thread::spawn(move || watch.run(&ended));
        Some(Self {
            links,
            stop,
            thread: Some(thread),
        })
    }

    /// The lines of every container instance, in the order in which they were written.
    pub(crate) fn lines(mut self) -> BTreeMap<InstanceKey, Vec<LogLine>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut files = self.thread.take().unwrap().join().unwrap();
        let mut streams: BTreeMap<InstanceKey, Vec<(Timestamp, Vec<u8>)>> = BTreeMap::new();
        for file in files.drain(..) {
            let bytes = fs::read(&file.link).unwrap();
            if let Some(first) = bytes.split(|b| *b == b'\n').find_map(parse) {
                streams.entry(file.key).or_default().push((first.time, bytes));
            }
        }
        let read = |(key, mut files): (InstanceKey, Vec<(Timestamp, Vec<u8>)>)| {
            files.sort_by_key(|(first, _)| *first);
            let bytes: Vec<u8> = files.into_iter().flat_map(|(_, bytes)| bytes).collect();
            (key, join(&bytes))
        };
        streams.into_iter().map(read).collect()
    }
}

impl Drop for NodeLogRecorder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
        if !keeps_everything() {
            fs::remove_dir_all(&self.links).ok();
        }
    }
}

struct LogLinker {
    prefix: String,
    links: PathBuf,
    known: HashMap<u64, LinkedLog>,
}

impl LogLinker {
    fn run(mut self, stop: &AtomicBool) -> Vec<LinkedLog> {
        while !stop.load(Ordering::Relaxed) {
            self.search();
            std::thread::sleep(INTERVAL);
        }
        self.search();
        self.known.into_values().collect()
    }

    fn search(&mut self) {
        // NAMESPACE_POD_UID/CONTAINER/RESTART.log, and RESTART.log.TIME once it has been rotated.
        for pod in entries(Path::new(LOGS)) {
            let name = pod.file_name().unwrap().to_string_lossy().into_owned();
            let Some((_, uid)) = name.strip_prefix(&self.prefix).and_then(|rest| rest.split_once('_')) else {
                continue;
            };
            for container in entries(&pod) {
                for file in entries(&container) {
                    self.keep(uid, &container, &file);
                }
            }
        }
    }

    fn keep(&mut self, uid: &str, container: &Path, file: &Path) {
        let name = file.file_name().unwrap().to_string_lossy();
        // Compressed files contain only what has been linked before.
        let Some((restart_count, _)) = name.split_once(".log").filter(|(_, end)| !end.contains(['g', 't'])) else {
            return;
        };
        let Ok(meta) = fs::metadata(file) else { return };
        if self.known.contains_key(&meta.ino()) {
            return;
        }
        let link = self.links.join(meta.ino().to_string());
        // It was renamed or removed just now; if it still exists, the next search finds it.
        if fs::hard_link(file, &link).is_err() {
            return;
        }
        let Ok(linked) = fs::metadata(&link) else { return };
        let key = InstanceKey {
            uid: uid.into(),
            container: container.file_name().unwrap().to_string_lossy().into_owned(),
            restart_count: restart_count.parse().unwrap(),
        };
        if linked.ino() == meta.ino() {
            self.known.insert(meta.ino(), LinkedLog { key, link });
        } else {
            fs::remove_file(link).ok();
        }
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let found = fs::read_dir(folder).into_iter().flatten().flatten();
    found.map(|entry| entry.path()).collect()
}

/// One record of the runtime's format: `TIME STREAM TAG TEXT`, where tag `P` means that the line continues.
struct Record<'a> {
    time: Timestamp,
    assert_continues: bool,
    text: &'a [u8],
}

fn parse(raw: &[u8]) -> Option<Record<'_>> {
    let mut parts = raw.splitn(4, |b| *b == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
    let _stream = parts.next()?;
    let assert_continues = parts.next()? == b"P";
    Some(Record {
        time,
        assert_continues,
        text: parts.next()?,
    })
}

/// Joins records to lines as the API does: parts are joined whatever stream they are of, and a line has the time of
/// its first part.
fn join(bytes: &[u8]) -> Vec<LogLine> {
    let mut lines = Vec::new();
    let mut open: Option<LogLine> = None;
    for record in bytes.split(|b| *b == b'\n').filter_map(parse) {
        let line = open.get_or_insert_with(|| LogLine {
            time: i64::try_from(record.time.as_nanosecond()).unwrap(),
            message: Vec::new(),
            cut: 0,
            ends: Vec::new(),
        });
        if !line.message.is_empty() {
            let time = i64::try_from(record.time.as_nanosecond()).unwrap();
            line.ends.push((time, line.message.len()));
        }
        line.message.extend_from_slice(record.text);
        if !record.assert_continues {
            lines.extend(open.take());
        }
    }
    // The last line of a container may have no line end.
    lines.extend(open);
    lines
}

#[test]
fn partial_records_are_joined_as_the_api_joins_them() {
    let at = |second: u32| format!("2026-11-20T10:47:0{second}.000000001Z");
    let text = format!(
        "{} stdout P ab\n{} stdout F cd\n{} stderr F \n{} stdout P end\n",
        at(1),
        at(2),
        at(3),
        at(4)
    );
    let lines = join(text.as_bytes());
    let messages: Vec<&[u8]> = lines.iter().map(|line| line.message.as_slice()).collect();
    assert_eq!(messages, [b"abcd".as_slice(), b"", b"end"]);
    let ends: Vec<_> = lines.iter().map(|line| line.ends.as_slice()).collect();
    assert_eq!(ends, [[(lines[0].time + 1_000_000_000, 2)].as_slice(), &[], &[]]);
    assert_eq!(lines[1].time - lines[0].time, 2_000_000_000);
}
