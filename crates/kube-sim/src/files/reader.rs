//! The kubelet's log reader as a cursor over the files of a container instance. It does not choose the instance, and it
//! never waits.
//!
//! It reproduces three properties of the real reader that matter to a collector:
//!
//! - It notices new files only after it has reached an end of file. If the log is rotated before that, it stays on the
//!   old file and sends nothing more.
//! - It opens the newest file once for every rotation that it notices. If the log is rotated twice while the client
//!   does not read, the file in the middle is lost, and the last one is sent twice.
//! - It checks whether the container still runs before it checks for new files. If the container exits while new files
//!   are unread, the stream ends without an error, and lines are missing.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};

use super::super::clock::format_nanoseconds;

/// The size of the frames of a response that does not follow the log.
const COPY_BYTES: usize = 32 * 1024;

/// The parameters of a request for a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    /// Whether to stay open until the container ends.
    pub(crate) follow: bool,
    /// Whether to send a timestamp before each line.
    pub(crate) timestamps: bool,
    /// The timestamp of the first records that are sent.
    pub(crate) since: Option<i64>,
    /// How many records before the end to begin.
    pub(crate) tail: Option<u64>,
    /// The most bytes to send.
    pub(crate) limit: Option<u64>,
    /// The most bytes that wait for the client.
    pub(crate) buffer: usize,
}

/// One record of a log file: a timestamp and a line, or a part of a line.
#[derive(Debug, Clone)]
pub(crate) struct LogRecord {
    pub(crate) time: i64,
    /// Whether the line continues in the next record.
    pub(crate) partial: bool,
    pub(crate) bytes: Bytes,
}

/// What a reader returns to its client.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ReaderOutput {
    /// Bytes to send.
    Frame(Bytes),
    /// Nothing yet.
    Wait,
    /// The reader has ended.
    End,
}

/// The position of a reader, and what it has read for its client.
#[derive(Debug)]
pub(super) struct Cursor {
    pub(super) id: u64,
    options: Options,
    /// The number of the file that it has open.
    pub(super) file: u64,
    /// The index of the next record in that file.
    at: usize,
    /// Whether it has reached an end of file, and so notices new files.
    watching: bool,
    /// How many new files it has noticed but not opened.
    created: u32,
    /// Whether the next record begins a line. Both outputs share this flag, as in the real reader.
    line_start: bool,
    /// How many records of the requested tail are left.
    records_left: Option<u64>,
    bytes_left: u64,
    queue: VecDeque<BytesMut>,
    queued: usize,
    ended: bool,
}

impl Cursor {
    /// A reader that has just opened `file`, which contains this many `records`.
    pub(super) fn new(id: u64, file: u64, records: usize, options: Options) -> Self {
        let tail = options.tail.unwrap_or(u64::MAX);
        Self {
            id,
            file,
            at: records.saturating_sub(usize::try_from(tail).unwrap_or(usize::MAX)),
            watching: false,
            created: 0,
            line_start: true,
            records_left: options.tail.filter(|_| !options.follow),
            bytes_left: options.limit.unwrap_or(u64::MAX),
            queue: VecDeque::new(),
            queued: 0,
            ended: false,
            options,
        }
    }

    /// The log was rotated.
    pub(super) fn file_created(&mut self) {
        if self.watching {
            self.created += 1;
        }
    }

    /// Reads until the files end or the queue is full. Returns whether there is something new for the client.
    pub(super) fn advance(&mut self, files: &BTreeMap<u64, Vec<LogRecord>>, newest: u64, running: bool) -> bool {
        let before = (self.queued, self.ended);
        while !self.ended && self.queued < self.options.buffer && self.step(files, newest, running) {}
        before != (self.queued, self.ended)
    }

    /// Reads one record, or opens a file, or ends. Returns false if there is nothing to do.
    fn step(&mut self, files: &BTreeMap<u64, Vec<LogRecord>>, newest: u64, running: bool) -> bool {
        if self.records_left == Some(0) {
            self.ended = true;
            return true;
        }
        if let Some(record) = files.get(&self.file).and_then(|records| records.get(self.at)) {
            self.at += 1;
            self.read(record);
            return true;
        }
        if !self.options.follow {
            self.ended = true;
        } else if !self.watching {
            self.watching = true;
        } else if !running {
            self.ended = true;
        } else if self.created > 0 {
            self.created -= 1;
            self.file = newest;
            self.at = 0;
        } else {
            return false;
        }
        true
    }

    fn read(&mut self, record: &LogRecord) {
        if self.options.since.is_none_or(|since| record.time >= since) {
            self.send(record);
        }
        if let Some(left) = &mut self.records_left {
            *left -= 1;
        }
        self.line_start = !record.partial || record.bytes.is_empty();
    }

    fn send(&mut self, record: &LogRecord) {
        let mut line = BytesMut::with_capacity(record.bytes.len() + 32);
        if self.options.timestamps && self.line_start {
            line.extend_from_slice(format_nanoseconds(record.time).as_bytes());
            line.extend_from_slice(b" ");
        }
        line.extend_from_slice(&record.bytes);
        if !record.partial {
            line.extend_from_slice(b"\n");
        }
        line.truncate(usize::try_from(self.bytes_left).unwrap_or(usize::MAX));
        self.bytes_left -= line.len() as u64;
        self.ended = self.bytes_left == 0;
        if line.is_empty() {
            return;
        }
        self.queued += line.len();
        match self.queue.back_mut() {
            Some(last) if !self.options.follow && last.len() + line.len() <= COPY_BYTES => {
                last.unsplit(line);
            }
            _ => self.queue.push_back(line),
        }
    }

    /// Takes the oldest frame.
    pub(super) fn take(&mut self) -> ReaderOutput {
        match self.queue.pop_front() {
            Some(mut frame) => {
                let rest = frame.split_off(frame.len().min(COPY_BYTES));
                if !rest.is_empty() {
                    self.queue.push_front(rest);
                }
                self.queued -= frame.len();
                ReaderOutput::Frame(Bytes::from(frame))
            }
            None if self.ended => ReaderOutput::End,
            None => ReaderOutput::Wait,
        }
    }
}
