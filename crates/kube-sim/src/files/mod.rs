//! The log of one container instance: its files, every line that was written, and the readers that have the files open.
//! It knows nothing of HTTP, pods or clocks.
//!
//! A reader is a cursor, not a task. It moves when a line is written, the file is rotated, the container exits, or the
//! client takes a frame. So the same events always give the same bytes. Its queue is bounded: while a client does not
//! read, the cursor stops. That is how the real reader loses lines (see [`reader`]).

mod reader;
#[cfg(test)]
mod tests;
mod text;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;

use super::sync::lock;

pub(super) use self::reader::{Options, ReaderOutput};
pub use self::text::{ContainerInstance, Output, Text, WrittenLine, WrittenLog};

use self::reader::{Cursor, LogRecord};

/// How many bytes the runtime adds to each record:
/// timestamp 30, space, `stdout` 6, space, tag 1, space, newline.
const RECORD_OVERHEAD: u64 = 30 + 1 + 6 + 1 + 1 + 1 + 1;

/// The size at which the runtime splits a line into several records.
const RECORD_MAX: usize = 16 * 1024;

/// The log of one container instance.
#[derive(Debug)]
pub(super) struct Log {
    instance: ContainerInstance,
    rotate_bytes: u64,
    state: Mutex<LogState>,
}

#[derive(Debug)]
struct LogState {
    /// The files by their numbers. Only the newest can be opened. An older one stays while a reader has it open.
    files: BTreeMap<u64, Vec<LogRecord>>,
    newest: u64,
    size: u64,
    running: bool,
    last_timestamp: i64,
    written: Vec<WrittenLine>,
    /// Index in `written` of the first line that begins in the newest file.
    first_served: usize,
    /// The unfinished line of each output: its index in `written`, and its bytes so far.
    open_lines: [Option<(usize, BytesMut)>; 2],
    cursors: Vec<(Cursor, Arc<Notify>)>,
    next_cursor: u64,
}

impl Log {
    /// The empty log of a container instance that has just started.
    pub(super) fn new(instance: ContainerInstance, rotate_bytes: u64) -> Self {
        Self {
            instance,
            rotate_bytes,
            state: Mutex::new(LogState {
                files: BTreeMap::from([(0, Vec::new())]),
                newest: 0,
                size: 0,
                running: true,
                last_timestamp: i64::MIN,
                written: Vec::new(),
                first_served: 0,
                open_lines: [None, None],
                cursors: Vec::new(),
                next_cursor: 0,
            }),
        }
    }

    /// Writes a text of the container. Its timestamp is `now` unless the text has its own.
    pub(super) fn write(&self, text: &Text, now: i64) {
        let mut state = lock(&self.state);
        let mut rest = &text.bytes[..];
        loop {
            let (line, partial) = match memchr::memchr(b'\n', rest) {
                Some(end) => {
                    let line = &rest[..end];
                    rest = &rest[end + 1..];
                    (line, false)
                }
                None => (std::mem::take(&mut rest), text.partial),
            };
            state.write_line(&text.bytes.slice_ref(line), text, partial, now);
            if state.size >= self.rotate_bytes {
                state.rotate();
            }
            if rest.is_empty() {
                break;
            }
        }
        state.move_cursors();
    }

    /// Rotates the log of a running container. The old file can no longer be opened.
    pub(super) fn rotate(&self) {
        let mut state = lock(&self.state);
        if state.running {
            state.rotate();
            state.move_cursors();
        }
    }

    /// Ends the log because the container has exited. Readers that follow it end at the end of their file.
    pub(super) fn close(&self) {
        let mut state = lock(&self.state);
        state.running = false;
        for slot in 0..2 {
            state.finish_line(slot);
        }
        state.move_cursors();
    }

    /// Removes the files. Readers keep the file that they have open.
    pub(super) fn remove_files(&self) {
        let mut state = lock(&self.state);
        state.running = false;
        let newest = state.newest + 1;
        state.newest = newest;
        state.files.insert(newest, Vec::new());
        state.first_served = state.written.len();
        state.move_cursors();
        state.remove_unread_files();
    }

    /// Opens a reader on the newest file.
    pub(super) fn open(self: &Arc<Self>, options: Options) -> KubeletReader {
        let notify = Arc::new(Notify::new());
        let mut state = lock(&self.state);
        let id = state.next_cursor;
        state.next_cursor += 1;
        let newest = state.newest;
        let records = state.files.get(&newest).map_or(0, Vec::len);
        let cursor = Cursor::new(id, newest, records, options);
        state.cursors.push((cursor, Arc::clone(&notify)));
        state.move_cursors();
        drop(state);
        KubeletReader {
            log: Arc::clone(self),
            id,
            notify,
        }
    }

    /// Everything that was written so far, including unfinished lines.
    pub(super) fn written(&self) -> WrittenLog {
        let state = lock(&self.state);
        let mut lines = state.written.clone();
        for (index, bytes) in state.open_lines.iter().flatten() {
            if let Some(line) = lines.get_mut(*index) {
                line.message = Bytes::copy_from_slice(bytes);
            }
        }
        WrittenLog {
            instance: self.instance.clone(),
            lines,
            first_served: state.first_served,
        }
    }

    /// The container instance that wrote the log.
    pub(super) fn instance(&self) -> &ContainerInstance {
        &self.instance
    }

    /// The number of lines so far, including unfinished ones.
    pub(super) fn count(&self) -> usize {
        lock(&self.state).written.len()
    }
}

impl LogState {
    fn write_line(&mut self, line: &Bytes, text: &Text, partial: bool, now: i64) {
        // The runtime takes the time of each record separately, so its clock never gives two records the same time.
        let time = text.time.unwrap_or(now.max(self.last_timestamp + 1));
        if text.time.is_none() {
            self.last_timestamp = time;
        }
        self.record_line(line, text.output, partial, time);
        let chunks = line.len().div_ceil(RECORD_MAX).max(1);
        for chunk in 0..chunks {
            let end = line.len().min((chunk + 1) * RECORD_MAX);
            let bytes = line.slice(chunk * RECORD_MAX..end);
            self.size += RECORD_OVERHEAD + bytes.len() as u64;
            let record = LogRecord {
                time,
                partial: partial || chunk + 1 < chunks,
                bytes,
            };
            self.files.entry(self.newest).or_default().push(record);
        }
    }

    /// Adds to `written`, and joins the parts of a line.
    fn record_line(&mut self, bytes: &Bytes, output: Output, partial: bool, time: i64) {
        let slot = output as usize;
        if let Some((_, open)) = &mut self.open_lines[slot] {
            open.extend_from_slice(bytes);
        } else {
            let message = if partial { Bytes::new() } else { bytes.clone() };
            let line = WrittenLine { time, output, message };
            self.written.push(line);
            if partial {
                self.open_lines[slot] = Some((self.written.len() - 1, BytesMut::from(&bytes[..])));
            }
        }
        if !partial {
            self.finish_line(slot);
        }
    }

    fn finish_line(&mut self, slot: usize) {
        if let Some((index, bytes)) = self.open_lines[slot].take()
            && let Some(line) = self.written.get_mut(index)
        {
            line.message = bytes.freeze();
        }
    }

    fn rotate(&mut self) {
        // Readers first read what they can, because the last write woke them before the rotation.
        self.move_cursors();
        self.newest += 1;
        self.size = 0;
        self.first_served = self.written.len();
        self.files.insert(self.newest, Vec::new());
        for (cursor, _) in &mut self.cursors {
            cursor.file_created();
        }
        self.move_cursors();
        self.remove_unread_files();
    }

    fn move_cursors(&mut self) {
        for (cursor, notify) in &mut self.cursors {
            if cursor.advance(&self.files, self.newest, self.running) {
                notify.notify_one();
            }
        }
    }

    fn remove_unread_files(&mut self) {
        let (newest, cursors) = (self.newest, &self.cursors);
        self.files
            .retain(|file, _| *file == newest || cursors.iter().any(|(c, _)| c.file == *file));
    }
}

/// An open reader. Dropping it closes it.
#[derive(Debug)]
pub(super) struct KubeletReader {
    log: Arc<Log>,
    id: u64,
    notify: Arc<Notify>,
}

impl KubeletReader {
    /// Takes the next frame. Then the reader has room to read more.
    pub(super) fn next(&self) -> ReaderOutput {
        let mut guard = lock(&self.log.state);
        let state = &mut *guard;
        let Some((cursor, _)) = state.cursors.iter_mut().find(|(c, _)| c.id == self.id) else {
            return ReaderOutput::End;
        };
        let next = cursor.take();
        cursor.advance(&state.files, state.newest, state.running);
        next
    }

    /// Waits until [`KubeletReader::next`] may return something new.
    pub(super) async fn changed(&self) {
        self.notify.notified().await;
    }
}

impl Drop for KubeletReader {
    fn drop(&mut self) {
        let mut state = lock(&self.log.state);
        state.cursors.retain(|(cursor, _)| cursor.id != self.id);
        state.remove_unread_files();
    }
}
