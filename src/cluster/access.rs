//! How to reach the cluster and with which credentials: a kubeconfig, or the service account of a pod.
//!
//! Reading it sends nothing to the API server. kube runs the exec plugins of a kubeconfig when the clients are built.

use std::ffi::OsStr;
use std::fmt;
use std::io::ErrorKind;
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

use super::connect::{Connector, KEEP_ALIVE, Windows};
use super::error::AccessError;
use super::operation::no_credentials;
use super::pool::Pool;
use super::text::error_chain;

/// The longest time for an exec plugin to print credentials.
const PLUGIN_DEADLINE: Duration = Duration::from_secs(30);

/// Log streams: many and slow. The window of a stream is HTTP/2's default, so a stream that is not read holds at most
/// 64 KB. The window of a connection is that of its 100 streams together (65 535 x 100), so that streams that are read
/// never wait for one that is not.
const LOG_WINDOWS: Windows = Windows {
    stream: 65_535,
    connection: 65_535 * 100,
    http1: Some(16_384),
};

/// Lists and watches: few, and read at once. A page of 500 pods is about 5 MB; with a window of 1 MB and a round trip of
/// 50 ms it takes 5 x 50 ms = 0.25 s.
const LIST_WINDOWS: Windows = Windows {
    stream: 1 << 20,
    connection: 4 << 20,
    http1: None,
};

/// How to reach the cluster.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// The kubeconfig. Without it: `KUBECONFIG`, then `~/.kube/config`, then the service account of the pod.
    pub kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig. Without it: its current context.
    pub context: Option<String>,
}

/// The two kube clients. They have the same credentials and separate connections.
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
    /// Both clients over one service.
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

    /// Builds the clients on a blocking thread, because exec plugins block.
    pub(super) async fn build(config: Config) -> Result<Self, AccessError> {
        let building = tokio::task::spawn_blocking(move || build(&config));
        match tokio::time::timeout(PLUGIN_DEADLINE, building).await {
            Ok(Ok(built)) => built,
            Ok(Err(error)) => Err(AccessError::Credentials(error.to_string())),
            Err(_) => Err(AccessError::Credentials(
                "the exec plugin did not answer within 30 s".into(),
            )),
        }
    }
}

/// Whether the token can be sent in a header. kube panics if it cannot.
fn has_sendable_token(config: &Config) -> bool {
    // Only its JSON exposes the token without another dependency.
    let user = serde_json::to_value(&config.auth_info).unwrap_or_default();
    let token = user.get("token").and_then(serde_json::Value::as_str);
    token.is_none_or(|token| http::HeaderValue::from_str(token).is_ok())
}

fn build(config: &Config) -> Result<Clients, AccessError> {
    if !has_sendable_token(config) {
        let text = "the token contains line breaks or other characters that no header may have";
        return Err(AccessError::Credentials(text.into()));
    }
    let credentials = |error: kube::Error| AccessError::Credentials(credentials_cause(&error));
    let url = &config.cluster_url;
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let https = url.scheme() == Some(&http::uri::Scheme::HTTPS);
    let mut tls = None;
    if https {
        let name = config.tls_server_name.clone().unwrap_or_else(|| host.clone());
        let name = ServerName::try_from(name).map_err(|error| AccessError::Credentials(error.to_string()))?;
        let mut rustls = config.rustls_client_config().map_err(credentials)?;
        rustls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        tls = Some((Arc::new(rustls), name));
    }
    let connector = |windows| Connector {
        host: host.clone(),
        port: url.port_u16().unwrap_or(if https { 443 } else { 80 }),
        tls: tls.clone(),
        windows,
        keep_alive: KEEP_ALIVE,
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
        api: client(Pool::new(connector(LIST_WINDOWS))).map_err(credentials)?,
        logs: client(Pool::new(connector(LOG_WINDOWS))).map_err(credentials)?,
    })
}

/// Refuses a proxy that the kubeconfig sets. A proxy from `HTTPS_PROXY` is ignored with a warning: kube does not read
/// `NO_PROXY` here, and API servers are seldom reached through a proxy.
fn without_proxy(mut config: Config, own: &[String]) -> Result<Config, AccessError> {
    let Some(proxy) = config.proxy_url.take() else {
        return Ok(config);
    };
    let asked = own
        .iter()
        .any(|url| url.parse().is_ok_and(|url: http::Uri| url == proxy));
    if asked {
        // Without the user and password that a proxy's address may carry.
        return Err(AccessError::Proxy(proxy.host().unwrap_or("?").to_owned()));
    }
    tracing::warn!("HTTPS_PROXY is set; podlog ignores it and connects to the API server directly");
    Ok(config)
}

/// What is wrong with a kubeconfig. The text of the YAML library quotes lines, which may hold a token; it is not repeated.
fn cause(error: &KubeconfigError) -> String {
    // Its own text names the file again.
    if let KubeconfigError::ReadConfig(error, _) = error {
        return error.to_string();
    }
    let text = error_chain(error);
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
    format!("it is not valid YAML, or not a kubeconfig{place}")
}

/// Why the credentials cannot be used.
fn credentials_cause(error: &kube::Error) -> String {
    match error {
        kube::Error::Auth(error) => no_credentials(error),
        other => error_chain(other),
    }
}

/// The paths of a list such as `KUBECONFIG`.
fn paths(list: &OsStr) -> Vec<PathBuf> {
    let paths = std::env::split_paths(list);
    paths.filter(|path| !path.as_os_str().is_empty()).collect()
}

/// The kubeconfigs of a list in one. A missing file is passed over, as kubectl does, unless all are missing.
fn merged(paths: &[PathBuf]) -> Result<Kubeconfig, KubeconfigError> {
    let (mut merged, mut missing) = (None::<Kubeconfig>, Vec::new());
    for path in paths {
        match Kubeconfig::read_from(path) {
            Ok(read) => {
                merged = Some(match merged {
                    Some(before) => before.merge(read)?,
                    None => read,
                });
            }
            Err(KubeconfigError::ReadConfig(error, path)) if error.kind() == ErrorKind::NotFound => {
                missing.push((error, path));
            }
            Err(error) => return Err(error),
        }
    }
    match (merged, missing.pop()) {
        (Some(merged), _) => Ok(merged),
        (None, Some((error, _))) => {
            let all = std::env::join_paths(paths).unwrap_or_default();
            Err(KubeconfigError::ReadConfig(error, all.into()))
        }
        (None, None) => Err(KubeconfigError::FindPath),
    }
}

impl Access {
    /// Reads the configuration.
    pub(super) async fn config(&self) -> Result<Config, AccessError> {
        match &self.kubeconfig {
            Some(path) => {
                let file = path.display().to_string();
                let read = Kubeconfig::read_from(path).map_err(|error| AccessError::Kubeconfig {
                    file: file.clone(),
                    cause: cause(&error),
                })?;
                self.config_from(read, &file).await
            }
            None => self.inferred().await,
        }
    }

    async fn inferred(&self) -> Result<Config, AccessError> {
        let found = "from KUBECONFIG or ~/.kube/config";
        let listed: Vec<PathBuf> = std::env::var_os("KUBECONFIG").map_or_else(Vec::new, |list| paths(&list));
        let read = if listed.is_empty() {
            Kubeconfig::read()
        } else {
            merged(&listed)
        };
        match read {
            Ok(read) => self.config_from(read, found).await,
            Err(KubeconfigError::ReadConfig(error, path))
                if error.kind() != ErrorKind::NotFound || !listed.is_empty() =>
            {
                Err(AccessError::Kubeconfig {
                    file: path.display().to_string(),
                    cause: error.to_string(),
                })
            }
            Err(KubeconfigError::ReadConfig(..) | KubeconfigError::FindPath) => {
                if let Some(context) = &self.context {
                    return Err(AccessError::NoCluster(format!(
                        "no kubeconfig to find context {context:?} in"
                    )));
                }
                Config::incluster().map_err(|_| {
                    AccessError::NoCluster("no kubeconfig (KUBECONFIG, ~/.kube/config) and not in a pod".into())
                })
            }
            Err(error) => Err(AccessError::Kubeconfig {
                file: found.into(),
                cause: cause(&error),
            }),
        }
    }

    async fn config_from(&self, read: Kubeconfig, file: &str) -> Result<Config, AccessError> {
        if let Some(context) = &self.context
            && !read.contexts.iter().any(|known| known.name == *context)
        {
            let known: Vec<&str> = read.contexts.iter().map(|known| known.name.as_str()).collect();
            return Err(AccessError::NoContext {
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
        let config = config.map_err(|error| AccessError::Kubeconfig {
            file: file.to_owned(),
            cause: cause(&error),
        })?;
        without_proxy(config, &own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(text: &str, context: Option<&str>) -> Result<Config, AccessError> {
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
    async fn a_kubeconfig_is_read_and_a_missing_context_is_refused_with_those_it_has() {
        assert_eq!(read(GOOD, None).await.unwrap().cluster_url, "https://k8s:6443/");
        let text = read(GOOD, Some("b")).await.unwrap_err().to_string();
        assert!(text.contains(r#"has no context "b" (it has: a, p)"#), "{text}");
    }

    #[tokio::test]
    async fn a_proxy_in_the_kubeconfig_is_refused_without_its_password() {
        let text = read(GOOD, Some("p")).await.unwrap_err().to_string();
        assert!(
            text.contains("sets the proxy proxy (") && !text.contains("secret"),
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
            text.starts_with("kubeconfig /nowhere/config: No such file") && text.matches("/nowhere").count() == 1,
            "{text}"
        );
        // A directory in place of the file.
        let folder = tempfile::tempdir().unwrap();
        let access = Access {
            kubeconfig: Some(folder.path().to_owned()),
            ..Access::default()
        };
        let text = access.config().await.unwrap_err().to_string();
        let name = folder.path().display().to_string();
        assert_eq!(text.matches(&name).count(), 1, "{text}");
    }

    #[test]
    fn a_missing_file_of_a_list_is_passed_over_unless_all_are_missing() {
        let folder = tempfile::tempdir().unwrap();
        let there = folder.path().join("config");
        std::fs::write(&there, GOOD).unwrap();
        let list = |text: &str| paths(OsStr::new(text));
        for text in [
            format!("/nowhere:{}", there.display()),
            format!("{}::/nowhere:", there.display()),
        ] {
            let read = merged(&list(&text)).unwrap();
            assert_eq!(read.current_context.as_deref(), Some("a"), "{text}");
        }
        let Err(KubeconfigError::ReadConfig(_, path)) = merged(&list("/nowhere:/no/where")) else {
            panic!("all are missing")
        };
        assert_eq!(path, PathBuf::from("/nowhere:/no/where"));
        std::fs::write(&there, "clusters: 7").unwrap();
        assert!(
            merged(&list(&format!("/nowhere:{}", there.display()))).is_err(),
            "a broken file is not passed over"
        );
    }

    #[tokio::test]
    async fn the_standard_output_of_a_failed_plugin_is_not_repeated() {
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
