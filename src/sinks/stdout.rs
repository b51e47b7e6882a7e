//! Records as JSON lines on standard output. One write per group, always whole lines.
//!
//! When the reader goes away the sink is broken for good and says so through [`StdoutSink::broken`];
//! it cannot end the program itself.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Mutex, Notify};

use super::SinkOpenError;
use super::json::Encoder;
use super::sink::{Sink, SinkError};
use super::unacked::{Part, Unacked};
use crate::clock::Clock;
use crate::domain::Chunk;

/// A buffer that has grown beyond this is not kept: one large group should not cost memory for ever.
pub(super) const KEPT: usize = 4 << 20;

/// The sink.
#[derive(Debug)]
pub(super) struct StdoutSink {
    /// Held by a write until it is over, also when nobody waits for it any more.
    out: Arc<Mutex<Out>>,
    broken: Notify,
    clock: Clock,
}

#[derive(Debug, Default)]
struct Out {
    buffer: Vec<u8>,
    unacked: Unacked,
    /// Whether the last write ended within a line.
    torn: bool,
}

impl StdoutSink {
    pub(super) fn new(clock: Clock) -> Self {
        let (out, broken) = Default::default();
        Self { out, broken, clock }
    }

    /// Resolves when nobody reads standard output any more.
    pub(super) async fn broken(&self) -> SinkOpenError {
        self.broken.notified().await;
        let found = "standard output was closed by its reader (broken pipe), so records have nowhere to go";
        SinkOpenError::refused(found, "see to what reads it, and start podlog again")
    }
}

#[async_trait]
impl Sink for StdoutSink {
    async fn write(&self, chunks: &[Arc<Chunk>]) -> Vec<Result<(), SinkError>> {
        let mut out = self.out.clone().lock_owned().await;
        // Judged here, because the wait for a blocked reader may have been long.
        let (buffer, parts) = out.encode(chunks, self.clock.now());
        let task = tokio::task::spawn_blocking(move || {
            let done = match descriptor() {
                Ok(mut to) => out.put(buffer, &parts, &mut to),
                Err(error) => (0, Some(error)),
            };
            (out, parts, done)
        });
        let Ok((mut out, parts, (written, error))) = task.await else {
            let why = "the write to standard output was stopped".into();
            return vec![Err(SinkError::Again { after: None, why }); chunks.len()];
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
        out.unacked.answered(parts.iter().map(|(part, _)| part));
        answers(&parts, written, &why)
    }
}

/// Standard output itself: the standard library's writer may keep back what it says it has written, after a write that
/// took only a part.
fn descriptor() -> io::Result<File> {
    io::stdout().as_fd().try_clone_to_owned().map(File::from)
}

/// What was decided of a chunk before the write, once: a deadline may move until the answer is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Its records are in the buffer.
    Goes,
    /// It was written in an earlier try.
    Known,
    /// Its claim had ended.
    Ended,
}

impl Out {
    /// The records of the chunks that are to be written, and what becomes of each chunk.
    fn encode(&mut self, chunks: &[Arc<Chunk>], now: Duration) -> (Vec<u8>, Vec<(Part, Fate)>) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut parts = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            let mut part = Part::new(chunk, buffer.len(), buffer.len());
            let fate = if self.unacked.has(&part) {
                Fate::Known
            } else if part.deadline.allows(now, Duration::ZERO) {
                Encoder::new(&chunk.origin).chunk(chunk, &mut buffer);
                part.end = buffer.len();
                Fate::Goes
            } else {
                Fate::Ended
            };
            parts.push((part, fate));
        }
        (buffer, parts)
    }

    /// Writes the buffer and keeps it for the next time. Answers how much was written, and what stopped it.
    fn put(&mut self, mut buffer: Vec<u8>, parts: &[(Part, Fate)], to: &mut impl Write) -> (usize, Option<io::Error>) {
        if self.torn {
            // The torn record comes once more; its first half must not swallow it.
            if let Err(error) = to.write_all(b"\n") {
                return (0, Some(error));
            }
            self.torn = false;
        }
        let mut written = 0;
        let mut stopped = None;
        while written < buffer.len() && stopped.is_none() {
            match to.write(&buffer[written..]) {
                Ok(0) => stopped = Some(io::ErrorKind::WriteZero.into()),
                Ok(more) => written += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => stopped = Some(error),
            }
        }
        let stopped = stopped.or_else(|| to.flush().err());
        self.torn = stopped.is_some() && written > 0 && buffer[written - 1] != b'\n';
        for (part, fate) in parts {
            if *fate == Fate::Goes && part.end <= written {
                self.unacked.put(part);
            }
        }
        buffer.clear();
        if buffer.capacity() <= KEPT {
            self.buffer = buffer;
        }
        (written, stopped)
    }
}

/// What to answer for each chunk when so much of the buffer was written.
fn answers(parts: &[(Part, Fate)], written: usize, why: &Arc<str>) -> Vec<Result<(), SinkError>> {
    let answer = |(part, fate): &(Part, Fate)| match fate {
        Fate::Known => Ok(()),
        Fate::Goes if part.end <= written => Ok(()),
        Fate::Goes => Err(SinkError::Again {
            after: None,
            why: why.clone(),
        }),
        Fate::Ended => Err(SinkError::Fenced),
    };
    parts.iter().map(answer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Deadline;
    use crate::sinks::probe::{chunk, origin};

    /// Takes this many bytes, then fails.
    struct Full(usize, Vec<u8>);

    impl Write for Full {
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
    fn what_was_passed_over_is_not_called_written_whatever_stands_behind_it() {
        let mut out = Out::default();
        let now = Duration::from_secs(100);
        let mut ended = chunk(&origin("u1", "app"), 1, &[(1, b"ended")]);
        ended.deadline = Deadline::new(Duration::from_secs(99));
        let ended = Arc::new(ended);
        let good = Arc::new(chunk(
            &origin("u2", "app"),
            1,
            &[(1, b"good and longer"), (2, b"and more of it")],
        ));
        let (buffer, parts) = out.encode(&[ended.clone(), good.clone()], now);
        // A renewal that was under way is answered now.
        ended.deadline.extend(Duration::from_secs(110));
        let mut all = Full(usize::MAX, Vec::new());
        let (written, error) = out.put(buffer, &parts, &mut all);
        assert!(error.is_none());
        let said = answers(&parts, written, &"".into());
        assert!(matches!(said[..], [Err(SinkError::Fenced), Ok(())]), "{said:?}");
        // Nobody took the answers: what was written is known next time, and only that.
        let (buffer, parts) = out.encode(&[good, ended], now);
        let mut again = Full(usize::MAX, Vec::new());
        let (written, _) = out.put(buffer, &parts, &mut again);
        let said = answers(&parts, written, &"".into());
        assert!(matches!(said[..], [Ok(()), Ok(())]), "{said:?}");
        let text = String::from_utf8(again.1).unwrap();
        assert!(text.contains("ended") && !text.contains("good"), "{text}");
    }

    #[test]
    fn a_torn_line_is_ended_before_the_next_one() {
        let mut out = Out::default();
        let mut full = Full(6, Vec::new());
        let (written, error) = out.put(b"one\ntwo\n".to_vec(), &[], &mut full);
        assert_eq!((written, error.is_some()), (6, true));
        full.0 = 100;
        let (written, error) = out.put(b"two\n".to_vec(), &[], &mut full);
        assert_eq!((written, error.is_none()), (4, true));
        assert_eq!(full.1, b"one\ntw\ntwo\n");
    }
}
