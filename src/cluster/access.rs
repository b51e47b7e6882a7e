//! Where the cluster is and who we are there: a kubeconfig, or the service account of a pod.
//!
//! Reading it never talks to the API server. Exec plugins named in a kubeconfig are run by kube
//! when the clients are built.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use kube::Client;
use kube::client::{Body, ConfigExt};
use kube::config::{Config, KubeConfigOptions, Kubeconfig, KubeconfigError};
use rustls::pki_types::ServerName;
use tower::{BoxError, Service, ServiceBuilder};

use super::connect::{Dialer, PING, Windows, chain};
use super::failure::{ClusterError, no_credentials};
use super::pool::Pool;

/// How long an exec plugin may take to hand over credentials.
const PLUGIN_DEADLINE: Duration = Duration::from_secs(30);

/// Log streams: many and slow. One frame of credit more than HTTP/2's default keeps the memory of a
/// stream that is not read at 64 KB; a connection's credit is 100 streams' worth (65 535 x 100), so
/// that those 99 that are read never wait for one that is not.
const LOG_WINDOWS: Windows = Windows {
    stream: 65_535,
    connection: 65_535 * 100,
    http1: Some(16_384),
};

/// Lists and watches: few and read at once. A page of 500 pods is about 5 MB, which a window of
/// 1 MB brings over a link with 50 ms delay in 0.25 s.
const LIST_WINDOWS: Windows = Windows {
    stream: 1 << 20,
    connection: 4 << 20,
    http1: None,
};

/// How to find the cluster.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// The kubeconfig; otherwise `KUBECONFIG`, then `~/.kube/config`, then the pod's service account.
    pub kubeconfig: Option<PathBuf>,
    /// The context in it; otherwise its current one.
    pub context: Option<String>,
}

/// The two kube clients: same credentials, separate connections.
#[derive(Clone)]
pub(super) struct Clients {
    /// For lists, watches and single pods.
    pub(super) api: Client,
    /// For log streams.
    pub(super) logs: Client,
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clients")
    }
}

impl Clients {
    /// Both over one service.
    pub(super) fn over<S, B>(service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<B>> + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let api = Client::new(service, "default");
        Self { logs: api.clone(), api }
    }

    /// Runs exec plugins, which block, on a thread for such things.
    pub(super) async fn build(config: Config) -> Result<Self, ClusterError> {
        let building = tokio::task::spawn_blocking(move || build(&config));
        match tokio::time::timeout(PLUGIN_DEADLINE, building).await {
            Ok(Ok(built)) => built,
            Ok(Err(error)) => Err(ClusterError::Credentials(error.to_string())),
            Err(_) => Err(ClusterError::Credentials(
                "the exec plugin did not answer within 30 s".into(),
            )),
        }
    }
}

/// Whether the token of the kubeconfig can be sent: kube panics about one that cannot.
fn has_sendable_token(config: &Config) -> bool {
    // By way of JSON, because only that exposes it without another dependency.
    let user = serde_json::to_value(&config.auth_info).unwrap_or_default();
    let token = user.get("token").and_then(serde_json::Value::as_str);
    token.is_none_or(|token| http::HeaderValue::from_str(token).is_ok())
}

fn build(config: &Config) -> Result<Clients, ClusterError> {
    if !has_sendable_token(config) {
        let text = "the token has line breaks or other characters that no header can have";
        return Err(ClusterError::Credentials(text.into()));
    }
    let credentials = |error: kube::Error| ClusterError::Credentials(unusable(&error));
    let url = &config.cluster_url;
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let https = url.scheme() == Some(&http::uri::Scheme::HTTPS);
    let mut tls = None;
    if https {
        let name = config.tls_server_name.clone().unwrap_or_else(|| host.clone());
        let name = ServerName::try_from(name).map_err(|error| ClusterError::Credentials(error.to_string()))?;
        let mut rustls = config.rustls_client_config().map_err(credentials)?;
        rustls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        tls = Some((Arc::new(rustls), name));
    }
    let dialer = |windows| Dialer {
        host: host.clone(),
        port: url.port_u16().unwrap_or(if https { 443 } else { 80 }),
        tls: tls.clone(),
        windows,
        ping: PING,
    };
    let auth = config.auth_layer().map_err(credentials)?;
    let client = |pool: Pool| -> Result<Client, kube::Error> {
        let service = ServiceBuilder::new()
            .layer(config.base_uri_layer())
            .option_layer(auth.as_ref())
            .layer(config.extra_headers_layer()?)
            .map_err(BoxError::from)
            .service(pool);
        Ok(Client::new(service, config.default_namespace.clone()))
    };
    Ok(Clients {
        api: client(Pool::new(dialer(LIST_WINDOWS))).map_err(credentials)?,
        logs: client(Pool::new(dialer(LOG_WINDOWS))).map_err(credentials)?,
    })
}

/// Refuses a proxy that the kubeconfig asks for. One from `HTTPS_PROXY` is passed over, as it is in
/// a pod: kube does not look at `NO_PROXY` here, and API servers are seldom reached through a proxy.
fn direct(mut config: Config, own: &[String]) -> Result<Config, ClusterError> {
    let Some(proxy) = config.proxy_url.take() else {
        return Ok(config);
    };
    let asked = own
        .iter()
        .any(|url| url.parse().is_ok_and(|url: http::Uri| url == proxy));
    if asked {
        // Without the user and password that a proxy's address may carry.
        return Err(ClusterError::Proxy(proxy.host().unwrap_or("?").to_owned()));
    }
    tracing::warn!("HTTPS_PROXY is set, but the API server is connected to directly");
    Ok(config)
}

/// What is wrong with a kubeconfig. The words of the YAML library show the lines in question, which may be a token's.
fn cause(error: &KubeconfigError) -> String {
    let text = chain(error);
    if !matches!(error, KubeconfigError::Parse(_)) {
        return text;
    }
    let number = |after: &str| {
        let (_, rest) = text.split_once(after)?;
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest[..end].parse::<u32>().ok()
    };
    let place = number("line ").zip(number("column "));
    let place = place.map_or_else(String::new, |(line, column)| {
        format!(", at line {line} column {column}")
    });
    format!("it is not YAML, or not of the form of a kubeconfig{place}")
}

/// Why credentials cannot be used.
fn unusable(error: &kube::Error) -> String {
    match error {
        kube::Error::Auth(error) => no_credentials(error),
        other => chain(other),
    }
}

impl Access {
    /// Reads the configuration.
    pub(super) async fn config(&self) -> Result<Config, ClusterError> {
        match &self.kubeconfig {
            Some(path) => {
                let file = path.display().to_string();
                let read = Kubeconfig::read_from(path).map_err(|error| ClusterError::Kubeconfig {
                    file: file.clone(),
                    cause: cause(&error),
                })?;
                self.of(read, &file).await
            }
            None => self.inferred().await,
        }
    }

    async fn inferred(&self) -> Result<Config, ClusterError> {
        let found = "from KUBECONFIG or ~/.kube/config";
        match Kubeconfig::read() {
            Ok(read) => self.of(read, found).await,
            Err(KubeconfigError::ReadConfig(error, path))
                if error.kind() != std::io::ErrorKind::NotFound || std::env::var_os("KUBECONFIG").is_some() =>
            {
                Err(ClusterError::Kubeconfig {
                    file: path.display().to_string(),
                    cause: error.to_string(),
                })
            }
            Err(KubeconfigError::ReadConfig(..) | KubeconfigError::FindPath) => {
                if let Some(context) = &self.context {
                    return Err(ClusterError::Nowhere(format!(
                        "no kubeconfig to find context {context:?} in"
                    )));
                }
                Config::incluster().map_err(|_| {
                    ClusterError::Nowhere("no kubeconfig (KUBECONFIG, ~/.kube/config) and not in a pod".into())
                })
            }
            Err(error) => Err(ClusterError::Kubeconfig {
                file: found.into(),
                cause: cause(&error),
            }),
        }
    }

    async fn of(&self, read: Kubeconfig, file: &str) -> Result<Config, ClusterError> {
        if let Some(context) = &self.context
            && !read.contexts.iter().any(|known| known.name == *context)
        {
            let known: Vec<&str> = read.contexts.iter().map(|known| known.name.as_str()).collect();
            return Err(ClusterError::Context {
                file: file.to_owned(),
                context: context.clone(),
                known: known.join(", "),
            });
        }
        let options = KubeConfigOptions {
            context: self.context.clone(),
            ..KubeConfigOptions::default()
        };
        let clusters = read.clusters.iter().filter_map(|named| named.cluster.as_ref());
        let own: Vec<String> = clusters.filter_map(|cluster| cluster.proxy_url.clone()).collect();
        let config = Config::from_custom_kubeconfig(read, &options).await;
        let config = config.map_err(|error| ClusterError::Kubeconfig {
            file: file.to_owned(),
            cause: cause(&error),
        })?;
        direct(config, &own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(text: &str, context: Option<&str>) -> Result<Config, ClusterError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        std::fs::write(&path, text).unwrap();
        let access = Access {
            kubeconfig: Some(path),
            context: context.map(str::to_owned),
        };
        access.config().await
    }

    const GOOD: &str = r#"{"current-context": "a",
        "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}, {"name": "p", "context": {"cluster": "p", "user": "a"}}],
        "clusters": [{"name": "a", "cluster": {"server": "https://k8s:6443"}},
            {"name": "p", "cluster": {"server": "https://k8s:6443", "proxy-url": "http://me:secret@proxy:3128"}}],
        "users": [{"name": "a", "user": {"token": "t"}}]}"#;

    #[tokio::test]
    async fn a_kubeconfig_is_read_and_its_contexts_are_known() {
        assert_eq!(read(GOOD, None).await.unwrap().cluster_url, "https://k8s:6443/");
        let text = read(GOOD, Some("b")).await.unwrap_err().to_string();
        assert!(text.contains(r#"has no context "b" (it has: a, p)"#), "{text}");
    }

    #[tokio::test]
    async fn a_proxy_in_the_kubeconfig_is_refused_without_its_password() {
        let text = read(GOOD, Some("p")).await.unwrap_err().to_string();
        assert!(
            text.contains("through the proxy proxy") && !text.contains("secret"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn a_file_that_is_missing_or_broken_is_named() {
        let text = read("clusters: 7", None).await.unwrap_err().to_string();
        assert!(text.starts_with("kubeconfig /") && !text.contains('\n'), "{text}");
        let access = Access {
            kubeconfig: Some("/nowhere/config".into()),
            ..Access::default()
        };
        let text = access.config().await.unwrap_err().to_string();
        assert!(
            text.contains("/nowhere/config") && text.contains("No such file"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn what_a_failed_plugin_printed_is_not_repeated() {
        let exec = GOOD.replace(
            r#"{"token": "t"}"#,
            r#"{"exec": {"apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never", "command": "sh", "args": ["-c", "echo hidden; echo sorry >&2; exit 3"]}}"#,
        );
        let config = read(&exec, None).await.unwrap();
        let text = Clients::build(config).await.unwrap_err().to_string();
        assert!(text.contains("exit status: 3): sorry; check"), "{text}");
        assert!(!text.contains("hidden"), "{text}");
    }
}
