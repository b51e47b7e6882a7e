//! The events of a watch: from the bytes of an answer to lines, and from lines to events. By hand, because kube reads
//! a line of any length into memory. Nothing here knows what an event means or opens a watch again.

use std::io;

use bytes::BytesMut;
use futures::{Stream, stream};
use http::Request;
use http_body_util::BodyExt as _;
use k8s_openapi::api::core::v1::Pod as ApiPod;
use kube::api::WatchEvent;
use kube::client::Body;
use kube::core::Status;

use super::{Cluster, refusal};

/// The longest event in bytes. The API server's database takes objects of 1.5 MB.
const LONGEST: usize = 16 << 20;

/// The lines of a body.
struct Lines {
    body: Body,
    held: BytesMut,
    /// Bytes of `held` that are known to have no line end.
    searched: usize,
}

impl Lines {
    /// The next line that is not empty; `None` at the end. A line without an end is half an event.
    async fn next(&mut self) -> Result<Option<BytesMut>, kube::Error> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.held[self.searched..]) {
                let line = self.held.split_to(self.searched + end + 1);
                self.searched = 0;
                if !line.trim_ascii().is_empty() {
                    return Ok(Some(line));
                }
                continue;
            }
            self.searched = self.held.len();
            if self.searched > LONGEST {
                let text = format!("an event of the watch is longer than {LONGEST} bytes");
                return Err(kube::Error::ReadEvents(io::Error::other(text)));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(frame) => {
                    if let Ok(data) = frame?.into_data() {
                        self.held.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}

impl Cluster {
    /// Sends a request for a watch and answers with its events, the last of which may be a failure.
    pub(super) async fn events(
        &self,
        request: Request<Vec<u8>>,
    ) -> Result<impl Stream<Item = Result<WatchEvent<ApiPod>, kube::Error>> + use<>, kube::Error> {
        let client = self.clients().api;
        let response = client.send(request.map(Body::from)).await?;
        if !response.status().is_success() {
            return Err(refusal(response).await);
        }
        let lines = Lines {
            body: response.into_body(),
            held: BytesMut::new(),
            searched: 0,
        };
        Ok(stream::unfold(Some(lines), |lines| async {
            let mut lines = lines?;
            match lines.next().await {
                Ok(None) => None,
                Ok(Some(line)) => Some((event(&line), Some(lines))),
                Err(error) => Some((Err(error), None)),
            }
        }))
    }
}

fn event(line: &[u8]) -> Result<WatchEvent<ApiPod>, kube::Error> {
    serde_json::from_slice(line).map_err(|error| match serde_json::from_slice::<Status>(line) {
        Ok(status) => kube::Error::Api(Box::new(status)),
        Err(_) => kube::Error::SerdeError(error),
    })
}
