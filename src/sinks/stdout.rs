//! Records as JSON lines on standard output: one write per group, always whole lines.
//!
//! When the reader of standard output goes away, the sink stays broken and reports it through
//! [`StdoutSink::broken`]. It does not end the program itself.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Mutex, Notify};

use super::json::{Encoder, LARGEST_KEPT_BUFFER};
use super::sink::{Sink, SinkError, WriteResults};
use super::unacked::{EncodedChunk, Unacked};
use crate::clock::Clock;
use crate::domain::{BackendError, Chunk};

/// The sink.
#[derive(Debug)]
pub(super) struct StdoutSink {
    /// Locked by a write until it is over, also when its caller no longer waits.
    writer: Arc<Mutex<LineWriter>>,
    broken: Notify,
    clock: Clock,
}

/// Writes records, and remembers how the last write ended.
#[derive(Debug, Default)]
struct LineWriter {
    /// Kept for the next group.
    buffer: Vec<u8>,
    unacked: Unacked,
    /// Whether the last write ended in the middle of a line.
    torn: bool,
}

impl StdoutSink {
    pub(super) fn new(clock: Clock) -> Self {
        let (writer, broken) = Default::default();
        Self { writer, broken, clock }
    }

    /// Resolves when the reader of standard output has closed it.
    pub(super) async fn broken(&self) -> BackendError {
        self.broken.notified().await;
        let text = "standard output was closed by its reader (broken pipe), so records cannot be written";
        BackendError::refused(text, "check the program that reads it, and start podlog again")
    }
}

#[async_trait]
impl Sink for StdoutSink {
    async fn write(&self, chunks: &[Arc<Chunk>]) -> WriteResults {
        let mut writer = self.writer.clone().lock_owned().await;
        // Deadlines are checked after the lock, because a blocked reader may have delayed it for long.
        let (buffer, chunks) = writer.encode(chunks, self.clock.now());
        let count = chunks.len();
        let task = tokio::task::spawn_blocking(move || {
            let done = match stdout() {
                Ok(mut out) => writer.write(buffer, &chunks, &mut out),
                Err(error) => (0, Some(error)),
            };
            (writer, chunks, done)
        });
        let Ok((mut writer, chunks, (written, error))) = task.await else {
            let why = "the write to standard output was interrupted".into();
            return vec![Err(SinkError::Again { after: None, why }); count];
        };
        if error
            .as_ref()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
        {
            self.broken.notify_one();
        }
        let why: Arc<str> = error
            .map(|e| format!("standard output cannot be written: {e}"))
            .unwrap_or_default()
            .into();
        writer.unacked.acknowledge(chunks.iter().map(|(chunk, _)| chunk));
        results(&chunks, written, &why)
    }
}

/// The file descriptor of standard output. The writer of the standard library buffers: after a partial write it may
/// still hold bytes that it reported as written.
fn stdout() -> io::Result<File> {
    io::stdout().as_fd().try_clone_to_owned().map(File::from)
}

/// What is done with a chunk. Decided once, before the write: a deadline may be extended before the results are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    /// Its records are in the buffer.
    Write,
    /// An earlier attempt has written it.
    AlreadyWritten,
    /// Its claim is no longer good.
    ClaimEnded,
}

impl LineWriter {
    /// Encodes the chunks that are to be written into one buffer, and says what is done with each chunk.
    fn encode(&mut self, chunks: &[Arc<Chunk>], now: Duration) -> (Vec<u8>, Vec<(EncodedChunk, Decision)>) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut encoded = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            let mut one = EncodedChunk::new(chunk, buffer.len(), buffer.len());
            let decision = if self.unacked.contains(&one) {
                Decision::AlreadyWritten
            } else if one.deadline.allows(now, Duration::ZERO) {
                Encoder::new(&chunk.origin).chunk(chunk, &mut buffer);
                one.end = buffer.len();
                Decision::Write
            } else {
                Decision::ClaimEnded
            };
            encoded.push((one, decision));
        }
        (buffer, encoded)
    }

    /// Writes the buffer and keeps it for the next group. Returns the number of bytes written, and the error that
    /// stopped the write.
    fn write(
        &mut self,
        mut buffer: Vec<u8>,
        chunks: &[(EncodedChunk, Decision)],
        out: &mut impl Write,
    ) -> (usize, Option<io::Error>) {
        if self.torn {
            // The torn record is written again; it must not continue the line of its first half.
            if let Err(error) = out.write_all(b"\n") {
                return (0, Some(error));
            }
            self.torn = false;
        }
        let mut written = 0;
        let mut stopped = None;
        while written < buffer.len() && stopped.is_none() {
            match out.write(&buffer[written..]) {
                Ok(0) => stopped = Some(io::ErrorKind::WriteZero.into()),
                Ok(more) => written += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => stopped = Some(error),
            }
        }
        let stopped = stopped.or_else(|| out.flush().err());
        self.torn = stopped.is_some() && written > 0 && buffer[written - 1] != b'\n';
        for (chunk, decision) in chunks {
            if *decision == Decision::Write && chunk.end <= written {
                self.unacked.insert(chunk);
            }
        }
        buffer.clear();
        if buffer.capacity() <= LARGEST_KEPT_BUFFER {
            self.buffer = buffer;
        }
        (written, stopped)
    }
}

/// The result for each chunk when so many bytes of the buffer were written.
fn results(chunks: &[(EncodedChunk, Decision)], written: usize, why: &Arc<str>) -> WriteResults {
    let result = |(chunk, decision): &(EncodedChunk, Decision)| match decision {
        Decision::AlreadyWritten => Ok(()),
        Decision::Write if chunk.end <= written => Ok(()),
        Decision::Write => Err(SinkError::Again {
            after: None,
            why: why.clone(),
        }),
        Decision::ClaimEnded => Err(SinkError::Fenced),
    };
    chunks.iter().map(result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Deadline;
    use crate::sinks::fixtures::{chunk, origin};

    /// A disk with room for this many bytes.
    struct LimitedDisk(usize, Vec<u8>);

    impl Write for LimitedDisk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0 == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let some = bytes.len().min(self.0);
            self.0 -= some;
            self.1.extend_from_slice(&bytes[..some]);
            Ok(some)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_chunk_that_was_not_written_is_not_reported_as_written() {
        let mut writer = LineWriter::default();
        let now = Duration::from_secs(100);
        let mut ended = chunk(&origin("u1", "app"), 1, &[(1, b"ended")]);
        ended.deadline = Deadline::new(Duration::from_secs(99));
        let ended = Arc::new(ended);
        let good = Arc::new(chunk(
            &origin("u2", "app"),
            1,
            &[(1, b"good and longer"), (2, b"and more of it")],
        ));
        let (buffer, chunks) = writer.encode(&[ended.clone(), good.clone()], now);
        // A renewal that was in flight succeeds now.
        ended.deadline.extend(Duration::from_secs(110));
        let mut all = LimitedDisk(usize::MAX, Vec::new());
        let (written, error) = writer.write(buffer, &chunks, &mut all);
        assert!(error.is_none());
        let results = super::results(&chunks, written, &"".into());
        assert!(matches!(results[..], [Err(SinkError::Fenced), Ok(())]), "{results:?}");
        // The results were not received: the next attempt knows what was written, and only that.
        let (buffer, chunks) = writer.encode(&[good, ended], now);
        let mut again = LimitedDisk(usize::MAX, Vec::new());
        let (written, _) = writer.write(buffer, &chunks, &mut again);
        let results = super::results(&chunks, written, &"".into());
        assert!(matches!(results[..], [Ok(()), Ok(())]), "{results:?}");
        let text = String::from_utf8(again.1).unwrap();
        assert!(text.contains("ended") && !text.contains("good"), "{text}");
    }

    #[test]
    fn a_torn_line_is_ended_before_the_next_write() {
        let mut writer = LineWriter::default();
        let mut full = LimitedDisk(6, Vec::new());
        let (written, error) = writer.write(b"one\ntwo\n".to_vec(), &[], &mut full);
        assert_eq!((written, error.is_some()), (6, true));
        full.0 = 100;
        let (written, error) = writer.write(b"two\n".to_vec(), &[], &mut full);
        assert_eq!((written, error.is_none()), (4, true));
        assert_eq!(full.1, b"one\ntw\ntwo\n");
    }
}
