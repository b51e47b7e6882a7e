//! The certificates and the configuration of the API server are replaced under a running replica.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube_sim::SimCluster;
use podlog::cluster::{Access, Cluster};
use podlog::metrics::Metrics;
use rustls::ServerConfig;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::tls::{Authority, TlsFront};

/// A simulated API server behind TLS.
struct TlsServer {
    front: TlsFront,
    folder: tempfile::TempDir,
    stop: CancellationToken,
    _serving: JoinSet<()>,
}

impl TlsServer {
    async fn start(config: Arc<ServerConfig>) -> Self {
        let (mut serving, stop) = (JoinSet::new(), CancellationToken::new());
        let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = plain.local_addr().unwrap().to_string();
        let (sim, stopping) = (SimCluster::default(), stop.clone());
        serving.spawn(async move { sim.serve(plain, stopping).await });
        Self {
            front: TlsFront::to(server, config).await,
            folder: tempfile::tempdir().unwrap(),
            stop,
            _serving: serving,
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file as the kubelet does: as a whole.
    fn write(&self, name: &str, text: &str) -> PathBuf {
        std::fs::write(self.file("new"), text).unwrap();
        std::fs::rename(self.file("new"), self.file(name)).unwrap();
        self.file(name)
    }

    fn kubeconfig(&self, ca: &Path, user: &serde_json::Value) -> PathBuf {
        let server = format!("https://localhost:{}", self.front.port);
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": server, "certificate-authority": ca}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "users": [{"name": "u", "user": user}],
        });
        self.write("kubeconfig", &config.to_string())
    }

    async fn cluster(&self, kubeconfig: PathBuf) -> Cluster {
        let access = Access {
            kubeconfig: Some(kubeconfig),
            ..Access::default()
        };
        let cluster = Cluster::connect(&access, Metrics::default()).await.unwrap();
        cluster.version().await.unwrap();
        cluster
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Asks until the API server answers, and returns how often it did not.
async fn failures(cluster: &Cluster, within: Duration) -> Vec<String> {
    let (begun, mut failures) = (Instant::now(), Vec::new());
    loop {
        match cluster.version().await {
            Ok(_) => return failures,
            Err(error) => failures.push(error.to_string()),
        }
        assert!(begun.elapsed() < within, "not within {within:?}: {failures:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// API servers speak HTTP/2; some proxies before them do not.
const PROTOCOLS: [&str; 2] = ["h2", "http/1.1"];

#[tokio::test]
async fn a_ca_that_is_replaced_with_the_certificate_of_the_server_is_read_again() {
    for protocol in PROTOCOLS {
        let (old, new) = (Authority::new(), Authority::new());
        let server = TlsServer::start(old.server(None, protocol)).await;
        let ca = server.write("ca.crt", &old.pem());
        let cluster = server.cluster(server.kubeconfig(&ca, &json!({"token": "t"}))).await;
        // The file first.
        server.write("ca.crt", &new.pem());
        server.front.replace(new.server(None, protocol));
        let failed = failures(&cluster, Duration::from_secs(5)).await;
        assert!((1..=2).contains(&failed.len()), "{protocol}: {failed:?}");
        assert!(failed.last().unwrap().contains("not trusted"), "{protocol}: {failed:?}");
        // The server first: podlog goes on reading the file.
        server.front.replace(old.server(None, protocol));
        assert!(cluster.version().await.is_err());
        server.write("ca.crt", &old.pem());
        failures(&cluster, Duration::from_secs(20)).await;
    }
}

#[tokio::test]
async fn a_client_certificate_that_the_server_does_not_trust_any_more_is_read_again() {
    for protocol in PROTOCOLS {
        let (ca, old, new) = (Authority::new(), Authority::new(), Authority::new());
        let server = TlsServer::start(ca.server(Some(&old), protocol)).await;
        let file = server.write("ca.crt", &ca.pem());
        let write_client = |authority: &Authority| {
            let (certificate, key) = authority.issue();
            server.write("client.crt", &certificate.pem());
            server.write("client.key", &key.serialize_pem());
        };
        write_client(&old);
        let user = json!({"client-certificate": server.file("client.crt"), "client-key": server.file("client.key")});
        let cluster = server.cluster(server.kubeconfig(&file, &user)).await;
        write_client(&new);
        server.front.replace(ca.server(Some(&new), protocol));
        let failed = failures(&cluster, Duration::from_secs(5)).await;
        assert!((1..=2).contains(&failed.len()), "{protocol}: {failed:?}");
        assert!(
            failed[0].contains("client certificate is valid"),
            "{protocol}: {failed:?}"
        );
    }
}

#[tokio::test]
async fn a_kubeconfig_that_is_replaced_is_read_again() {
    let (old, new) = (Authority::new(), Authority::new());
    let server = TlsServer::start(old.server(None, "h2")).await;
    let (first, second) = (server.write("a.crt", &old.pem()), server.write("b.crt", &new.pem()));
    let cluster = server.cluster(server.kubeconfig(&first, &json!({"token": "t"}))).await;
    server.front.replace(new.server(None, "h2"));
    server.kubeconfig(&second, &json!({"token": "t"}));
    let failed = failures(&cluster, Duration::from_secs(5)).await;
    assert!((1..=2).contains(&failed.len()), "{failed:?}");
}

#[tokio::test]
async fn a_server_that_moves_is_found_by_its_new_address_in_the_kubeconfig() {
    let authority = Authority::new();
    let old = TlsServer::start(authority.server(None, "h2")).await;
    let new = TlsServer::start(authority.server(None, "h2")).await;
    let ca = old.write("ca.crt", &authority.pem());
    let user = json!({"token": "t"});
    let path = old.kubeconfig(&ca, &user);
    let cluster = old.cluster(path.clone()).await;
    std::fs::copy(new.kubeconfig(&ca, &user), &path).unwrap();
    old.front.close();
    failures(&cluster, Duration::from_secs(15)).await;
}
