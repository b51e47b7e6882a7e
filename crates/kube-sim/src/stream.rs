//! The bodies of streaming responses. A source produces the bytes; this file cuts or mutes the stream when a fault or a
//! test says so. It never changes the bytes.

use std::io;

use bytes::Bytes;
use futures::stream;
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};

use super::faults::{Cut, Fault, Flow, StreamHandle};

/// The body of every response, complete or streaming.
pub type SimBody = UnsyncBoxBody<Bytes, io::Error>;

/// Produces the bytes of a stream.
pub(super) trait Source: Send + 'static {
    /// The next bytes, or `None` at the end. Dropping the future must lose no bytes.
    fn frame(&mut self) -> impl Future<Output = Option<Bytes>> + Send;
}

/// What happens when the limit of bytes is reached.
#[derive(Debug, Clone, Copy)]
enum LimitAction {
    Cut(Cut),
    Mute,
}

struct ControlledStream<S> {
    source: S,
    handle: StreamHandle,
    /// How many bytes are sent before the action.
    limit: Option<(u64, LimitAction)>,
    /// Bytes from the source that are not sent yet.
    unsent: Bytes,
}

/// A body with the bytes of `source`. `faults` may cut or mute it after a number of bytes.
pub(super) fn body<S: Source>(source: S, handle: StreamHandle, faults: &[Fault]) -> SimBody {
    let limit = faults.iter().find_map(|fault| match fault {
        Fault::Cut { after, how } => Some((*after, LimitAction::Cut(*how))),
        Fault::Mute { after } => Some((*after, LimitAction::Mute)),
        _ => None,
    });
    let stream = ControlledStream {
        source,
        handle,
        limit,
        unsent: Bytes::new(),
    };
    let frames = stream::unfold(Some(stream), |stream| async move {
        let mut stream = stream?;
        match stream.next().await? {
            Ok(bytes) => Some((Ok(Frame::data(bytes)), Some(stream))),
            Err(error) => Some((Err(error), None)),
        }
    });
    BodyExt::boxed_unsync(StreamBody::new(frames))
}

impl<S: Source> ControlledStream<S> {
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
                Some((0, LimitAction::Cut(how))) => return end(how),
                Some((0, LimitAction::Mute)) => {
                    self.handle.flow_changed().await;
                    self.limit = None;
                    continue;
                }
                _ => {}
            }
            if self.unsent.is_empty() {
                let Self { source, handle, .. } = self;
                tokio::select! {
                    biased;
                    () = handle.flow_changed() => continue,
                    frame = source.frame() => self.unsent = frame?,
                }
            }
            return Some(Ok(self.take_up_to_limit()));
        }
    }

    fn take_up_to_limit(&mut self) -> Bytes {
        let Some((left, _)) = &mut self.limit else {
            return std::mem::take(&mut self.unsent);
        };
        let size = (self.unsent.len() as u64).min(*left);
        *left -= size;
        self.unsent.split_to(size as usize)
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
