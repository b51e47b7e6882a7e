//! The log of one container instance: its files as the runtime writes them, the truth about what was written, and
//! the readers the kubelet has open on them. Nothing here knows HTTP, time or pods.
//!
//! A reader is not a task: it is a cursor that moves whenever something happens (a write, a rotation, an exit, a
//! client taking a frame), so the same events always give the same bytes. Its output queue is bounded in bytes; a full
//! queue is a client that does not read, and then the cursor stands still, which is where the real reader's losses
//! come from (see [`reader`]).

mod reader;
mod record;
#[cfg(test)]
mod tests;
mod text;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;

use super::sync::lock;

pub(super) use self::reader::Options;
pub use self::text::{ContainerInstance, Output, Text, WrittenLine, WrittenLog};

use self::reader::Cursor;
pub(super) use self::record::ReaderOutput;
use self::record::Record;

/// Bytes the runtime puts around each record in the file:
/// stamp 30, space, `stdout` 6, space, tag 1, space, newline.
const RECORD_OVERHEAD: u64 = 30 + 1 + 6 + 1 + 1 + 1 + 1;

/// The runtime cuts longer lines into partial records of this size.
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
    /// Files by age. Only the newest can be opened; older ones live while a reader has them open.
    files: BTreeMap<u64, Vec<Record>>,
    newest: u64,
    size: u64,
    running: bool,
    last_stamp: i64,
    truth: Vec<WrittenLine>,
    /// The first line in `truth` that begins in the newest file.
    first_served: usize,
    /// Where in `truth` the unfinished line of each output stands, and its bytes so far.
    open_lines: [Option<(usize, BytesMut)>; 2],
    cursors: Vec<(Cursor, Arc<Notify>)>,
    next_cursor: u64,
}

impl Log {
    /// The empty log of an instance that has just started.
    pub(super) fn new(instance: ContainerInstance, rotate_bytes: u64) -> Self {
        Self {
            instance,
            rotate_bytes,
            state: Mutex::new(LogState {
                files: BTreeMap::from([(0, Vec::new())]),
                newest: 0,
                size: 0,
                running: true,
                last_stamp: i64::MIN,
                truth: Vec::new(),
                first_served: 0,
                open_lines: [None, None],
                cursors: Vec::new(),
                next_cursor: 0,
            }),
        }
    }

    /// The runtime writes what the container said. `now` stamps it unless the text brings its own time.
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

    /// The kubelet rotates: a new file takes the name, the old one can no longer be opened.
    pub(super) fn rotate(&self) {
        let mut state = lock(&self.state);
        if state.running {
            state.rotate();
            state.move_cursors();
        }
    }

    /// The container has exited: nothing more will be written, and followers end when they reach an end of file.
    pub(super) fn close(&self) {
        let mut state = lock(&self.state);
        state.running = false;
        for slot in 0..2 {
            state.finish_line(slot);
        }
        state.move_cursors();
    }

    /// The kubelet has removed the files. Readers keep what they have open; the truth stays.
    pub(super) fn remove_files(&self) {
        let mut state = lock(&self.state);
        state.running = false;
        let newest = state.newest + 1;
        state.newest = newest;
        state.files.insert(newest, Vec::new());
        state.first_served = state.truth.len();
        state.move_cursors();
        state.forget_unread();
    }

    /// Opens a reader on the newest file.
    pub(super) fn open(self: &Arc<Self>, options: Options) -> Reader {
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
        Reader {
            log: Arc::clone(self),
            id,
            notify,
        }
    }

    /// Everything written so far, unfinished lines included.
    pub(super) fn written(&self) -> WrittenLog {
        let state = lock(&self.state);
        let mut lines = state.truth.clone();
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

    /// The instance whose log it is.
    pub(super) fn instance(&self) -> &ContainerInstance {
        &self.instance
    }

    /// Number of lines begun so far.
    pub(super) fn count(&self) -> usize {
        lock(&self.state).truth.len()
    }
}

impl LogState {
    fn write_line(&mut self, line: &Bytes, text: &Text, partial: bool, now: i64) {
        // The runtime stamps each record when it writes it, so two records never get the same time from its clock.
        let time = text.time.unwrap_or(now.max(self.last_stamp + 1));
        if text.time.is_none() {
            self.last_stamp = time;
        }
        self.note(line, text.output, partial, time);
        let chunks = line.len().div_ceil(RECORD_MAX).max(1);
        for chunk in 0..chunks {
            let end = line.len().min((chunk + 1) * RECORD_MAX);
            let bytes = line.slice(chunk * RECORD_MAX..end);
            self.size += RECORD_OVERHEAD + bytes.len() as u64;
            let record = Record {
                time,
                partial: partial || chunk + 1 < chunks,
                bytes,
            };
            self.files.entry(self.newest).or_default().push(record);
        }
    }

    /// Records what was written, and joins the pieces of a line.
    fn note(&mut self, bytes: &Bytes, output: Output, partial: bool, time: i64) {
        let slot = output as usize;
        if let Some((_, open)) = &mut self.open_lines[slot] {
            open.extend_from_slice(bytes);
        } else {
            let message = if partial { Bytes::new() } else { bytes.clone() };
            let line = WrittenLine { time, output, message };
            self.truth.push(line);
            if partial {
                self.open_lines[slot] = Some((self.truth.len() - 1, BytesMut::from(&bytes[..])));
            }
        }
        if !partial {
            self.finish_line(slot);
        }
    }

    fn finish_line(&mut self, slot: usize) {
        if let Some((index, bytes)) = self.open_lines[slot].take()
            && let Some(line) = self.truth.get_mut(index)
        {
            line.message = bytes.freeze();
        }
    }

    fn rotate(&mut self) {
        // Readers first take what they can: the runtime's last write woke them before the rename did.
        self.move_cursors();
        self.newest += 1;
        self.size = 0;
        self.first_served = self.truth.len();
        self.files.insert(self.newest, Vec::new());
        for (cursor, _) in &mut self.cursors {
            cursor.file_created();
        }
        self.move_cursors();
        self.forget_unread();
    }

    fn move_cursors(&mut self) {
        for (cursor, notify) in &mut self.cursors {
            if cursor.advance(&self.files, self.newest, self.running) {
                notify.notify_one();
            }
        }
    }

    fn forget_unread(&mut self) {
        let (newest, cursors) = (self.newest, &self.cursors);
        self.files
            .retain(|file, _| *file == newest || cursors.iter().any(|(c, _)| c.file() == *file));
    }
}

/// An open reader; dropping it closes it.
#[derive(Debug)]
pub(super) struct Reader {
    log: Arc<Log>,
    id: u64,
    notify: Arc<Notify>,
}

impl Reader {
    /// Takes the next frame, which makes room for the reader to go on.
    pub(super) fn next(&self) -> ReaderOutput {
        let mut guard = lock(&self.log.state);
        let state = &mut *guard;
        let Some((cursor, _)) = state.cursors.iter_mut().find(|(c, _)| c.id() == self.id) else {
            return ReaderOutput::End;
        };
        let next = cursor.take();
        cursor.advance(&state.files, state.newest, state.running);
        next
    }

    /// Waits until [`Reader::next`] may have something new.
    pub(super) async fn changed(&self) {
        self.notify.notified().await;
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = lock(&self.log.state);
        state.cursors.retain(|(cursor, _)| cursor.id() != self.id);
        state.forget_unread();
    }
}
