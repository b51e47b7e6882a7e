//! Streaming answers: bodies fed by a source, with a control in between that faults and callers can set. A source
//! says what comes next; this file decides whether the client gets to see it.

use std::io;

use bytes::Bytes;
use futures::stream;
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};

use super::faults::{Cut, Fault, Flow, StreamHandle};

/// The body of every answer: whole or streaming.
pub type SimBody = UnsyncBoxBody<Bytes, io::Error>;

/// Something that yields bytes until it ends.
pub(super) trait Source: Send + 'static {
    /// The next bytes, or nothing at the end. Giving up the wait must lose nothing.
    fn frame(&mut self) -> impl Future<Output = Option<Bytes>> + Send;
}

/// What happens after so many bytes.
#[derive(Debug, Clone, Copy)]
enum End {
    Cut(Cut),
    Mute,
}

struct Pipe<S> {
    source: S,
    handle: StreamHandle,
    limit: Option<(u64, End)>,
    held: Bytes,
}

/// A body that carries `source`, subject to the byte-counting faults among `faults`.
pub(super) fn body<S: Source>(source: S, handle: StreamHandle, faults: &[Fault]) -> SimBody {
    let limit = faults.iter().find_map(|fault| match fault {
        Fault::Cut { after, how } => Some((*after, End::Cut(*how))),
        Fault::Mute { after } => Some((*after, End::Mute)),
        _ => None,
    });
    let pipe = Pipe {
        source,
        handle,
        limit,
        held: Bytes::new(),
    };
    let frames = stream::unfold(Some(pipe), |pipe| async move {
        let mut pipe = pipe?;
        match pipe.next().await? {
            Ok(bytes) => Some((Ok(Frame::data(bytes)), Some(pipe))),
            Err(error) => Some((Err(error), None)),
        }
    });
    BodyExt::boxed_unsync(StreamBody::new(frames))
}

impl<S: Source> Pipe<S> {
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            match self.handle.flow() {
                Flow::Open => {}
                Flow::Cut(how) => return end(how),
                Flow::Muted => {
                    self.handle.flow_changed().await;
                    continue;
                }
            }
            match self.limit {
                Some((0, End::Cut(how))) => return end(how),
                Some((0, End::Mute)) => {
                    self.handle.flow_changed().await;
                    self.limit = None;
                    continue;
                }
                _ => {}
            }
            if self.held.is_empty() {
                let Self { source, handle, .. } = self;
                tokio::select! {
                    biased;
                    () = handle.flow_changed() => continue,
                    frame = source.frame() => self.held = frame?,
                }
            }
            return Some(Ok(self.cut_to_limit()));
        }
    }

    fn cut_to_limit(&mut self) -> Bytes {
        let Some((left, _)) = &mut self.limit else {
            return std::mem::take(&mut self.held);
        };
        let size = (self.held.len() as u64).min(*left);
        *left -= size;
        self.held.split_to(size as usize)
    }
}

fn end(how: Cut) -> Option<io::Result<Bytes>> {
    match how {
        Cut::Clean => None,
        Cut::Reset => Some(Err(reset())),
    }
}

/// The error of a broken connection.
pub(super) fn reset() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "the simulated connection broke")
}
