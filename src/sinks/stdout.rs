//! Records as JSON lines on standard output. One write per group, always whole lines.
//!
//! When the reader goes away the sink is broken for good and says so through [`StdoutSink::broken`];
//! it cannot end the program itself.

use std::io::{self, Write};
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::{Mutex, Notify};

use super::json::Encoder;
use super::late::{Late, Part};
use super::{Sink, SinkError, SinkOpenError};
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
    late: Late,
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
        let why = "standard output was closed by its reader (broken pipe); records have nowhere to go";
        SinkOpenError::Refused(why.into())
    }
}

#[async_trait]
impl Sink for StdoutSink {
    async fn write(&self, chunks: &[Chunk]) -> Vec<Result<(), SinkError>> {
        let mut out = self.out.clone().lock_owned().await;
        let mut buffer = std::mem::take(&mut out.buffer);
        let mut parts = Vec::with_capacity(chunks.len());
        let now = self.clock.now();
        for chunk in chunks {
            let start = buffer.len();
            Encoder::new(&chunk.origin).chunk(chunk, &mut buffer);
            let part = Part::new(chunk, start, buffer.len());
            // Checked again here, because the wait for a blocked reader may have been long.
            if out.late.has(&part) || !part.good_until.allows(now, std::time::Duration::ZERO) {
                buffer.truncate(start);
            }
            parts.push(part);
        }
        let task = tokio::task::spawn_blocking(move || {
            let answers = out.put(buffer, &parts, &mut io::stdout().lock());
            (out, parts, answers)
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
        let answer = |part: &Part| match () {
            () if out.late.has(part) => Ok(()),
            () if !part.good_until.allows(now, std::time::Duration::ZERO) => Err(SinkError::Fenced),
            () if part.end <= written => Ok(()),
            () => Err(SinkError::Again {
                after: None,
                why: why.clone(),
            }),
        };
        let answers = parts.iter().map(answer).collect();
        out.late.answered(&parts);
        answers
    }
}

impl Out {
    /// Writes the buffer and keeps it for the next time. Answers how much was written, and what stopped it.
    fn put(&mut self, mut buffer: Vec<u8>, parts: &[Part], to: &mut impl Write) -> (usize, Option<io::Error>) {
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
        for part in parts.iter().filter(|part| part.end <= written && part.start < part.end) {
            self.late.put(part);
        }
        buffer.clear();
        if buffer.capacity() <= KEPT {
            self.buffer = buffer;
        }
        (written, stopped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
