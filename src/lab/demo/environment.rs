//! The environment of a demo: a directory, a simulated cluster on a port, and a kubeconfig for it.
//!
//! Dropping it stops the server, and removes the directory unless it is kept. It starts no replica and reads no
//! records.

use std::path::{Path, PathBuf};

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::exit::Failure;
use kube_sim::workload::Workload;
use kube_sim::{SimCluster, SimSettings};

/// The size at which log files are rotated with `--rotate`. Of sixty pods, a busy one writes about 57 lines per second
/// of about 130 bytes each. Its file is full after 65 536 / (57 x 130) = 8.8 s, so it is rotated twice during a
/// takeover. The size must be more than a container writes at once, which is 40 kB with a long line. podlog cannot
/// report lines that are rotated away before it has opened the log.
const SMALL_FILE: u64 = 64 * 1024;

/// The file with the claims and the records of all replicas, in the directory of the demo.
pub(super) const STORE_FILE: &str = "podlog.db";

/// How the environment of a demo is set up.
#[derive(Clone, Debug)]
pub(super) struct EnvironmentSettings<'a> {
    pub(super) workload: Workload,
    pub(super) rotate: bool,
    pub(super) keep: Option<&'a Path>,
}

/// The directory, the simulated cluster and its API server.
#[derive(Debug)]
pub(super) struct Environment {
    pub(super) cluster: SimCluster,
    pub(super) dir: WorkDir,
    /// Whether logs are rotated all the time.
    pub(super) rotates: bool,
    workload: Workload,
    writing: JoinSet<Result<(), Failure>>,
    /// The API server.
    server: JoinSet<()>,
}

impl Environment {
    /// Creates the directory and starts the API server. The containers do not write yet.
    pub(super) async fn create(wanted: EnvironmentSettings<'_>) -> Result<Self, Failure> {
        let dir = WorkDir::make(wanted.keep)?;
        let mut settings = SimSettings {
            seed: wanted.workload.seed,
            ..SimSettings::default()
        };
        // Rotation causes gaps, which are expected only with `--rotate`.
        settings.rotate_bytes = if wanted.rotate { SMALL_FILE } else { u64::MAX };
        let cluster = SimCluster::new(settings);
        let port = |e: std::io::Error| {
            Failure::failed(format!("no port on 127.0.0.1 can be opened: {e}"))
                .with_remedy("check the limits of open files and of addresses")
        };
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(port)?;
        let address = listener.local_addr().map_err(port)?;
        dir.write("kubeconfig.yaml", &kube_sim::kubeconfig(address))?;
        let mut server = JoinSet::new();
        let answering = cluster.clone();
        server.spawn(async move { answering.serve(listener, CancellationToken::new()).await });
        Ok(Self {
            cluster,
            dir,
            rotates: wanted.rotate,
            workload: wanted.workload,
            writing: JoinSet::new(),
            server,
        })
    }

    /// The file with the claims and the records of all replicas.
    pub(super) fn store_file(&self) -> PathBuf {
        self.dir.path().join(STORE_FILE)
    }

    /// Lets the containers begin to write.
    pub(super) fn start_writing(&mut self) {
        let (workload, cluster) = (self.workload.clone(), self.cluster.clone());
        self.writing.spawn(async move {
            // Dropping the task stops the workload, so the token is never cancelled.
            let done = workload.run(&cluster, &CancellationToken::new()).await;
            done.map_err(|e| {
                Failure::failed(format!("the simulated pods cannot continue: {e}")).with_remedy("please report it")
            })
        });
    }

    /// Whether the containers still write. Fails when the simulation has failed.
    pub(super) fn is_writing(&mut self) -> Result<bool, Failure> {
        match self.writing.try_join_next() {
            None => {}
            Some(Ok(outcome)) => outcome?,
            Some(Err(e)) => {
                return Err(Failure::failed(format!("the simulation panicked, which is a bug: {e}"))
                    .with_remedy("please report it"));
            }
        }
        if self.server.try_join_next().is_some() {
            return Err(Failure::failed("the simulated API server has ended by itself").with_remedy("please report it"));
        }
        Ok(!self.writing.is_empty())
    }
}

/// The directory of a demo. Dropping it removes the directory, unless it is kept.
#[derive(Debug)]
pub(super) struct WorkDir {
    path: PathBuf,
    keep: bool,
}

impl WorkDir {
    fn make(keep: Option<&Path>) -> Result<Self, Failure> {
        let path = match keep {
            Some(path) => path.to_owned(),
            None => std::env::temp_dir().join(format!("podlog-demo-{:016x}", fastrand::u64(..))),
        };
        let failed = |what: &str| Failure::failed(format!("the directory {}: {what}", path.display()));
        std::fs::create_dir_all(&path)
            .map_err(|e| failed(&format!("cannot be made: {e}")).with_remedy("name another with --keep"))?;
        let dir = Self {
            path: path.canonicalize().map_err(|e| failed(&e.to_string()))?,
            keep: keep.is_some(),
        };
        let odd = |text: &str| text.contains(['?', '#', '%']);
        if dir.path.to_str().is_none_or(odd) {
            return Err(failed("cannot be part of a URL").with_remedy("use a name without ?, # and %"));
        }
        if keep.is_some() && dir.path.read_dir().is_ok_and(|mut files| files.next().is_some()) {
            return Err(
                Failure::usage(format!("--keep {}: the directory is not empty", path.display()))
                    .with_remedy("name a new one"),
            );
        }
        Ok(dir)
    }

    /// The absolute path of the directory.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a file in it, as text for a URL.
    pub(super) fn file(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }

    /// Whether the directory is kept.
    pub(super) fn is_kept(&self) -> bool {
        self.keep
    }

    pub(super) fn write(&self, name: &str, text: &str) -> Result<(), Failure> {
        let path = self.path.join(name);
        std::fs::write(&path, text).map_err(|e| {
            Failure::failed(format!("{} cannot be written: {e}", path.display())).with_remedy("is the disk full?")
        })
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = std::fs::remove_dir_all(&self.path)
        {
            tracing::warn!(directory = %self.path.display(), %error, "the demo's directory could not be removed");
        }
    }
}
