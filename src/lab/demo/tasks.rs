//! The number of tasks of a replica, from its own `/metrics`. It never waits long for a replica that does not answer,
//! because it is frozen or does not listen yet.

use std::fs::File;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::status::server::LISTENING;

/// How long a replica may take to answer.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The most bytes of a response that are read. Some hundred lines of metrics are 20 KB.
const MAX_RESPONSE: u64 = 1 << 20;

/// How many bytes of a replica's log are searched for its address, which is in one of the first lines.
const LOG_START: u64 = 4096;

/// The number of tasks of the replica with this log file.
pub(super) async fn count(log: &Path) -> Option<f64> {
    let answer = get_metrics(address(log)?);
    parse(&tokio::time::timeout(TIMEOUT, answer).await.ok()?.ok()?)
}

/// The address on which the replica listens, once it has logged it.
fn address(log: &Path) -> Option<SocketAddr> {
    let mut head = Vec::new();
    File::open(log).ok()?.take(LOG_START).read_to_end(&mut head).ok()?;
    let head = String::from_utf8_lossy(&head);
    let line = head.lines().find(|line| line.contains(LISTENING))?;
    line.rsplit_once("address=")?.1.trim().parse().ok()
}

async fn get_metrics(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    // The answer to HTTP/1.0 ends with the connection.
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await?;
    let mut answer = String::new();
    stream.take(MAX_RESPONSE).read_to_string(&mut answer).await?;
    Ok(answer)
}

fn parse(metrics: &str) -> Option<f64> {
    let line = metrics.lines().find_map(|line| line.strip_prefix("podlog_tasks "))?;
    line.parse().ok()
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn the_address_of_a_replica_is_taken_from_its_log() {
        let log = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(count(log.path()).await, None);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let text = format!("T INFO one address=here\nT INFO {LISTENING} address={address}\nT INFO collecting\n");
        std::fs::write(log.path(), text).unwrap();
        let answer = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 25];
            stream.read_exact(&mut request).await.unwrap();
            let said = "HTTP/1.0 200 OK\r\n\r\n# TYPE podlog_tasks gauge\npodlog_tasks 42\n";
            stream.write_all(said.as_bytes()).await.unwrap();
        };
        assert_eq!(tokio::join!(count(log.path()), answer).0, Some(42.0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_replica_that_does_not_answer_is_not_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let log = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(
            log.path(),
            format!("{LISTENING} address={}\n", listener.local_addr().unwrap()),
        )
        .unwrap();
        assert_eq!(count(log.path()).await, None);
    }
}
