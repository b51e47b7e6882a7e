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
use kube::client::{AuthError, Body, ConfigExt};
use kube::config::{Config, KubeConfigOptions, Kubeconfig, KubeconfigError};
use rustls::pki_types::ServerName;
use tower::{BoxError, Service, ServiceBuilder};

use super::dial::{Dialer, PING, Windows, chain};
use super::failure::{ClusterError, one_line};
use super::transport::Pool;

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
    /// Speak HTTP/2 to an API server without TLS, which cannot agree on it; otherwise HTTP/1.1.
    pub plain_http2: bool,
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
    pub(super) async fn build(config: Config, plain_http2: bool) -> Result<Self, ClusterError> {
        let building = tokio::task::spawn_blocking(move || build(&config, plain_http2));
        match tokio::time::timeout(PLUGIN_DEADLINE, building).await {
            Ok(Ok(built)) => built,
            Ok(Err(error)) => Err(ClusterError::Credentials(error.to_string())),
            Err(_) => Err(ClusterError::Credentials(
                "the exec plugin did not answer within 30 s".into(),
            )),
        }
    }
}

fn build(config: &Config, plain_http2: bool) -> Result<Clients, ClusterError> {
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
        prior_knowledge: plain_http2,
        windows,
        ping: PING,
    };
    let client = |pool: Pool| -> Result<Client, kube::Error> {
        let service = ServiceBuilder::new()
            .layer(config.base_uri_layer())
            .option_layer(config.auth_layer()?)
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

/// Why credentials cannot be used. What a failed plugin printed may hold a token: its error output
/// is repeated, its output is not.
fn unusable(error: &kube::Error) -> String {
    match error {
        kube::Error::Auth(AuthError::AuthExecRun { cmd, out }) => {
            let said = one_line(&String::from_utf8_lossy(&out.stderr));
            format!("the exec plugin {cmd} failed ({}): {said}", out.status)
        }
        other => chain(other),
    }
}

impl Access {
    /// Reads the configuration.
    pub(super) async fn config(&self) -> Result<Config, ClusterError> {
        let config = match &self.kubeconfig {
            Some(path) => {
                let file = path.display().to_string();
                let read = Kubeconfig::read_from(path).map_err(|error| ClusterError::Kubeconfig {
                    file: file.clone(),
                    cause: chain(&error),
                })?;
                self.of(read, &file).await?
            }
            None => self.inferred().await?,
        };
        match &config.proxy_url {
            // Without the user and password that a proxy's address may carry.
            Some(proxy) => Err(ClusterError::Proxy(proxy.host().unwrap_or("?").to_owned())),
            None => Ok(config),
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
                cause: chain(&error),
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
        let config = Config::from_custom_kubeconfig(read, &options).await;
        config.map_err(|error| ClusterError::Kubeconfig {
            file: file.to_owned(),
            cause: chain(&error),
        })
    }
}
