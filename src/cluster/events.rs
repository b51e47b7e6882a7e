//! The events of a watch: splits the bytes of an answer into lines, and parses each line as an event.
//!
//! kube would read a line of any length into memory; here its length is limited. Nothing here interprets an event or
//! opens a watch again.

use std::io;

use bytes::BytesMut;
use futures::{Stream, stream};
use http::Request;
use http_body_util::BodyExt as _;
use k8s_openapi::api::core::v1::Pod as ApiPod;
use kube::api::WatchEvent;
use kube::client::Body;
use kube::core::Status;

use super::client::{Cluster, refusal};

/// The longest event in bytes. etcd stores objects of at most 1.5 MB.
const LONGEST: usize = 16 << 20;

/// The lines of a body.
struct Lines {
    body: Body,
    /// Bytes that are read and not yet returned.
    buffer: BytesMut,
    /// Bytes of `buffer` that are known to have no line end.
    searched: usize,
}

impl Lines {
    /// The next line that is not empty; `None` at the end. A last line without a line end is dropped: it is incomplete.
    async fn next(&mut self) -> Result<Option<BytesMut>, kube::Error> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.buffer[self.searched..]) {
                let line = self.buffer.split_to(self.searched + end + 1);
                self.searched = 0;
                if !line.trim_ascii().is_empty() {
                    return Ok(Some(line));
                }
                continue;
            }
            self.searched = self.buffer.len();
            if self.searched > LONGEST {
                let text = format!("an event of the watch is longer than {LONGEST} bytes");
                return Err(kube::Error::ReadEvents(io::Error::other(text)));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(frame) => {
                    if let Ok(data) = frame?.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}

/// Sends a request for a watch and returns its events. The last one may be an error.
pub(super) async fn watch_events(
    cluster: &Cluster,
    request: Request<Vec<u8>>,
) -> Result<impl Stream<Item = Result<WatchEvent<ApiPod>, kube::Error>> + use<>, kube::Error> {
    let client = cluster.clients().api;
    let response = client.send(request.map(Body::from)).await?;
    if !response.status().is_success() {
        return Err(refusal(response).await);
    }
    let lines = Lines {
        body: response.into_body(),
        buffer: BytesMut::new(),
        searched: 0,
    };
    Ok(stream::unfold(Some(lines), |lines| async {
        let mut lines = lines?;
        match lines.next().await {
            Ok(None) => None,
            Ok(Some(line)) => Some((parse(&line), Some(lines))),
            Err(error) => Some((Err(error), None)),
        }
    }))
}

fn parse(line: &[u8]) -> Result<WatchEvent<ApiPod>, kube::Error> {
    serde_json::from_slice(line).map_err(|error| match serde_json::from_slice::<Status>(line) {
        Ok(status) => kube::Error::Api(Box::new(status)),
        Err(_) => kube::Error::SerdeError(error),
    })
}
