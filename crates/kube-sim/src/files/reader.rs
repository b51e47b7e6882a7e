//! The kubelet's log reader as a cursor over an instance's files: what it skips, where it puts stamps, when it ends,
//! and what it misses. It decides nothing about which instance is read, and never waits by itself.
//!
//! Three habits of the real reader matter to a collector and are reproduced. It watches for new files only after its
//! first end of file, so a rotation before that leaves it on the old file for ever, mute. It opens the newest file once
//! for every rotation it hears of, so two rotations while it is held up lose the middle file and repeat the last. And
//! it asks whether the container still runs before it looks at rotations, so an exit while it is behind ends it cleanly
//! with lines unread.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};

use super::super::clock::nine_digits;
use super::record::{ReaderOutput, Record};

/// Without follow the answer is copied in pieces of this size.
const COPY_BYTES: usize = 32 * 1024;

/// What was asked of the reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    /// Stay open until the container stops.
    pub(crate) follow: bool,
    /// Put a stamp before each line.
    pub(crate) timestamps: bool,
    /// Leave out records stamped before this.
    pub(crate) since: Option<i64>,
    /// Begin this many records before the end.
    pub(crate) tail: Option<u64>,
    /// End after this many bytes.
    pub(crate) limit: Option<u64>,
    /// Bytes that fit between reader and client.
    pub(crate) buffer: usize,
}

/// Where a reader stands.
#[derive(Debug)]
pub(super) struct Cursor {
    id: u64,
    options: Options,
    file: u64,
    at: usize,
    /// It has seen an end of file and therefore hears of new files.
    watching: bool,
    /// New files it has heard of and not yet opened.
    created: u32,
    /// The next record begins a line, as far as the reader knows: one flag for both outputs.
    line_start: bool,
    /// Records still to look at when only the tail is wanted.
    records_left: Option<u64>,
    bytes_left: u64,
    queue: VecDeque<BytesMut>,
    queued: usize,
    ended: bool,
}

impl Cursor {
    /// A reader that has just opened `file`, which holds `records`.
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

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// The file it has open.
    pub(super) fn file(&self) -> u64 {
        self.file
    }

    /// A new file has taken the name of the old one.
    pub(super) fn file_created(&mut self) {
        if self.watching {
            self.created += 1;
        }
    }

    /// Goes on as far as files and queue allow. True if there is something new for the client.
    pub(super) fn advance(&mut self, files: &BTreeMap<u64, Vec<Record>>, newest: u64, running: bool) -> bool {
        let before = (self.queued, self.ended);
        while !self.ended && self.queued < self.options.buffer && self.step(files, newest, running) {}
        before != (self.queued, self.ended)
    }

    /// One read. False if there is nothing to do until something happens.
    fn step(&mut self, files: &BTreeMap<u64, Vec<Record>>, newest: u64, running: bool) -> bool {
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

    fn read(&mut self, record: &Record) {
        if self.options.since.is_none_or(|since| record.time >= since) {
            self.send(record);
        }
        if let Some(left) = &mut self.records_left {
            *left -= 1;
        }
        self.line_start = !record.partial || record.bytes.is_empty();
    }

    fn send(&mut self, record: &Record) {
        let mut line = BytesMut::with_capacity(record.bytes.len() + 32);
        if self.options.timestamps && self.line_start {
            line.extend_from_slice(nine_digits(record.time).as_bytes());
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
