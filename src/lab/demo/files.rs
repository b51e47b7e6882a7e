//! Reads the JSON lines that one replica stores in a directory, while the files grow.
//!
//! A line is read once, when it is complete. Rotated files are not read: a demo writes too little for the sink to
//! rotate a file. Nothing is written.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::domain::StreamId;
use crate::exit::Failure;
use kube_sim::audit::{LineDigest, StoredStream};

/// The stored lines and gaps of each stream.
pub(super) type StoredStreams = BTreeMap<StreamId, StoredStream>;

/// The files of one directory, and what has been read from them.
#[derive(Debug)]
pub(super) struct Files {
    dir: PathBuf,
    /// For each file, how many bytes have been read.
    read: BTreeMap<PathBuf, u64>,
    streams: StoredStreams,
    count: u64,
}

/// A record in a file. A gap record has no message.
#[derive(Deserialize)]
struct StoredRecord {
    time: Option<String>,
    message: Option<String>,
    kubernetes: StreamFields,
}

#[derive(Deserialize)]
struct StreamFields {
    uid: String,
    container: String,
    container_id: String,
}

impl Files {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            read: BTreeMap::new(),
            streams: StoredStreams::new(),
            count: 0,
        }
    }

    /// How many lines have been read.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The lines and gaps that have been read.
    pub(super) fn streams(&self) -> &StoredStreams {
        &self.streams
    }

    /// Reads what was added to the files.
    pub(super) fn read_new(&mut self) -> Result<(), Failure> {
        let failed = |path: &Path, error: &dyn std::fmt::Display| {
            Failure::failed(format!("{} cannot be read: {error}", path.display()))
        };
        let mut paths = Vec::new();
        find_files(&self.dir, &mut paths).map_err(|e| failed(&self.dir, &e))?;
        for path in paths {
            let offset = self.read.get(&path).copied().unwrap_or(0);
            let bytes = read_from(&path, offset).map_err(|e| failed(&path, &e))?;
            let whole = memchr::memrchr(b'\n', &bytes).map_or(0, |end| end + 1);
            for line in bytes[..whole]
                .split(|byte| *byte == b'\n')
                .filter(|line| !line.is_empty())
            {
                let record = serde_json::from_slice(line).map_err(|e| failed(&path, &e))?;
                self.add(record);
            }
            self.read.insert(path, offset + whole as u64);
        }
        Ok(())
    }

    fn add(&mut self, record: StoredRecord) {
        let stream = StreamId {
            uid: record.kubernetes.uid.into(),
            container: record.kubernetes.container.into(),
            container_id: record.kubernetes.container_id.into(),
        };
        let stored = self.streams.entry(stream).or_default();
        let Some(message) = record.message else {
            stored.gaps.push(stored.lines.len());
            return;
        };
        // No line has the time 0, so the audit finds a line whose time cannot be parsed.
        let time = record.time.and_then(|time| time.parse::<jiff::Timestamp>().ok());
        let time = time.map_or(0, |time| time.as_nanosecond() as i64);
        stored.lines.push(LineDigest::new(time, message.as_bytes()));
        self.count += 1;
    }
}

/// Adds all record files below a directory. Adds none if it does not exist yet.
fn find_files(dir: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    let entries = match dir.read_dir() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            find_files(&entry.path(), found)?;
        } else if entry.path().extension().is_some_and(|extension| extension == "jsonl") {
            found.push(entry.path());
        }
    }
    Ok(())
}

fn read_from(path: &Path, offset: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let mut bytes = Vec::new();
    if file.metadata()?.len() > offset {
        file.seek(SeekFrom::Start(offset))?;
        file.read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn each_record_is_read_once_when_it_is_complete() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = Files::new(dir.path().join("records"));
        files.read_new().unwrap();
        assert_eq!(files.count(), 0);
        let path = dir.path().join("records/ns/pod/app");
        std::fs::create_dir_all(&path).unwrap();
        let mut file = File::create(path.join("0-abc.jsonl")).unwrap();
        let tail = r#""kubernetes":{"uid":"u","container":"c","container_id":"id","labels":{}}}"#;
        let line = format!(r#"{{"time":"1970-01-01T00:00:00.000000007Z","message":"é",{tail}"#);
        write!(
            file,
            "{line}\n{{\"time\":null,\"gap\":{{}},{tail}\n{}",
            line.split_at(9).0
        )
        .unwrap();
        files.read_new().unwrap();
        assert_eq!(files.count(), 1);
        writeln!(file, "{}", line.split_at(9).1).unwrap();
        files.read_new().unwrap();
        assert_eq!(files.count(), 2);
        let stored = StoredStream {
            lines: vec![LineDigest::new(7, "é".as_bytes()); 2],
            gaps: vec![1],
        };
        let all: Vec<_> = files.streams().values().collect();
        assert_eq!(all, [&stored]);
    }
}
