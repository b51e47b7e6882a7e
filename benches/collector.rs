//! Measures the built binary with a simulated cluster over TLS and HTTP/2: the CPU time per line, and the memory per
//! silent stream, of the `podlog run` process alone. The cluster runs in this process.
//!
//! Compare only figures of the same run. Nothing here passes or fails.

#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use kube_sim::{PodSpec, SimCluster, SimPod, SimSettings};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// The address at which the replica serves its metrics. The port is below the ephemeral ports.
const HTTP: &str = "127.0.0.1:19464";

fn main() -> Result<()> {
    rustls::crypto::ring::default_provider().install_default().ok();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        backlog().await?;
        trickle(1).await?;
        trickle(10).await?;
        quiet().await
    })
}

/// 200 streams with 5 000 lines each, which are written before the replica starts.
async fn backlog() -> Result<()> {
    let scene = Scene::new().await?;
    let message = vec![b'x'; 100];
    for pod in scene.pods(200)? {
        for _ in 0..5_000 {
            pod.line("app", message.clone())?;
        }
    }
    let lines = scene.sim.lines_written() as u64;
    let mut replica = Replica::start(&scene)?;
    replica.delivered(lines).await?;
    println!(
        "backlog: {lines} lines, 200 streams: {:.2} us of CPU a line",
        replica.cpu()?.as_secs_f64() * 1e6 / lines as f64
    );
    scene.end(replica).await
}

/// 2 000 lines per second from 200 streams for ten seconds, this many lines at a time.
///
/// Most of the cost of a line is waking up. So the worst case is lines that come one by one at equal intervals.
async fn trickle(at_a_time: usize) -> Result<()> {
    let scene = Scene::new().await?;
    let pods = scene.pods(200)?;
    let mut replica = Replica::start(&scene)?;
    write_round(&pods)?;
    replica.delivered(pods.len() as u64).await?;
    let before = replica.cpu()?;
    let mut tick = tokio::time::interval(Duration::from_micros(500) * u32::try_from(at_a_time)?);
    for pod in pods.iter().cycle().take(20_000 / at_a_time) {
        tick.tick().await;
        for _ in 0..at_a_time {
            pod.line("app", vec![b'x'; 100])?;
        }
    }
    let lines = scene.sim.lines_written() as u64;
    replica.delivered(lines).await?;
    let per_line = replica.cpu()?.saturating_sub(before).as_secs_f64() * 1e6 / (lines - pods.len() as u64) as f64;
    println!("trickle: 2 000 lines/s of 200 streams, {at_a_time} at a time: {per_line:.2} us of CPU a line");
    scene.end(replica).await
}

/// 2 000 streams that have delivered one line and stay silent.
async fn quiet() -> Result<()> {
    let scene = Scene::new().await?;
    let first = scene.pods(1)?;
    let mut replica = Replica::start(&scene)?;
    write_round(&first)?;
    replica.delivered(1).await?;
    let before = replica.memory()?;
    let pods = scene.pods(2_000)?;
    write_round(&pods)?;
    replica.delivered(2_001).await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let after = replica.memory()?;
    println!(
        "quiet: {:.2} KB of memory a stream (2 000 pods, claims and discovery included)",
        (after - before) / 2_000.0
    );
    scene.end(replica).await
}

fn write_round(pods: &[SimPod]) -> Result<()> {
    pods.iter().try_for_each(|pod| Ok(pod.line("app", vec![b'x'; 100])?))
}

/// A simulated cluster with TLS, and a directory.
struct Scene {
    sim: SimCluster,
    directory: tempfile::TempDir,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Scene {
    async fn new() -> Result<Self> {
        let sim = SimCluster::new(SimSettings {
            rotate_bytes: u64::MAX,
            ..SimSettings::default()
        });
        let (directory, stop, mut tasks) = (tempfile::tempdir()?, CancellationToken::new(), JoinSet::new());
        let plain = TcpListener::bind("127.0.0.1:0").await?;
        let inside = plain.local_addr()?;
        let (server, token) = (sim.clone(), stop.clone());
        tasks.spawn(async move { server.serve(plain, token).await });
        let outside = TcpListener::bind("127.0.0.1:0").await?;
        let port = outside.local_addr()?.port();
        let key = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
        std::fs::write(directory.path().join("ca.pem"), key.cert.pem())?;
        std::fs::write(directory.path().join("kubeconfig"), kubeconfig(directory.path(), port))?;
        let key_der = rustls::pki_types::PrivatePkcs8KeyDer::from(key.signing_key.serialize_der());
        let mut tls = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![key.cert.der().clone()], key_der.into())?;
        tls.alpn_protocols = vec![b"h2".to_vec()];
        tasks.spawn(terminate(outside, TlsAcceptor::from(Arc::new(tls)), inside));
        Ok(Self {
            sim,
            directory,
            stop,
            tasks,
        })
    }

    fn pods(&self, count: usize) -> Result<Vec<SimPod>> {
        let begin = self.sim.pods().len();
        (begin..begin + count)
            .map(|i| {
                let pod = self.sim.create(
                    PodSpec::new("bench", format!("pod-{i}"))
                        .node(format!("n{}", i % 50))
                        .app("app"),
                )?;
                pod.start("app")?;
                Ok(pod)
            })
            .collect()
    }

    async fn end(mut self, replica: Replica) -> Result<()> {
        drop(replica);
        self.stop.cancel();
        self.tasks.shutdown().await;
        Ok(())
    }
}

/// Terminates TLS, which the simulated server does not support.
async fn terminate(listener: TcpListener, acceptor: TlsAcceptor, inside: std::net::SocketAddr) {
    let mut connections = JoinSet::new();
    while let Ok((outer, _)) = listener.accept().await {
        outer.set_nodelay(true).ok();
        let acceptor = acceptor.clone();
        connections.spawn(async move {
            let (Ok(mut outer), Ok(mut inner)) = tokio::join!(acceptor.accept(outer), TcpStream::connect(inside))
            else {
                return;
            };
            inner.set_nodelay(true).ok();
            tokio::io::copy_bidirectional(&mut outer, &mut inner).await.ok();
        });
    }
}

fn kubeconfig(directory: &Path, port: u16) -> String {
    let ca = directory.join("ca.pem");
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
         clusters: [{{name: c, cluster: {{server: 'https://localhost:{port}', certificate-authority: '{}'}}}}]\n\
         users: [{{name: u, user: {{token: t}}}}]\n\
         contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n",
        ca.display()
    )
}

/// A `podlog run` process; killed when dropped.
struct Replica {
    child: Child,
    log: PathBuf,
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Replica {
    fn start(scene: &Scene) -> Result<Self> {
        let directory = scene.directory.path();
        let log = directory.join("log");
        let child = Command::new(env!("CARGO_BIN_EXE_podlog"))
            .arg("run")
            .args(["--http", HTTP, "--open-rate", "1000", "--streams-per-node", "1000"])
            .arg("--lock")
            .arg(format!("sqlite://{}", directory.join("claims.db").display()))
            .arg("--sink")
            .arg(format!("file://{}?fsync=never", directory.join("out").display()))
            .arg("--kubeconfig")
            .arg(directory.join("kubeconfig"))
            .stderr(std::fs::File::create(&log)?)
            .stdout(Stdio::null())
            .spawn()?;
        Ok(Self { child, log })
    }

    /// Waits until this many lines have been stored.
    async fn delivered(&mut self, lines: u64) -> Result<()> {
        let limit = Instant::now() + Duration::from_mins(2);
        let mut seen = 0;
        while Instant::now() < limit {
            seen = self.count().await.unwrap_or(seen);
            if seen >= lines {
                return Ok(());
            }
            if self.child.try_wait()?.is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let log = std::fs::read_to_string(&self.log)?;
        anyhow::bail!("only {seen} of {lines} lines were stored; the replica says:\n{log}")
    }

    async fn count(&self) -> Option<u64> {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut connection = TcpStream::connect(HTTP).await.ok()?;
        connection
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .await
            .ok()?;
        let mut text = String::new();
        connection.read_to_string(&mut text).await.ok()?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("podlog_lines_delivered_total "))?;
        line.trim().parse().ok()
    }

    /// CPU time used so far: fields 14 and 15 of the process's `stat`, in hundredths of a second.
    fn cpu(&self) -> Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let (_, fields) = stat
            .rsplit_once(')')
            .context("stat of a process has a name in parentheses")?;
        let ticks: u64 = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|field| field.parse::<u64>().ok())
            .sum();
        Ok(Duration::from_millis(ticks * 10))
    }

    /// Anonymous resident memory in KB.
    fn memory(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"))
            .context("status names RssAnon")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }
}
