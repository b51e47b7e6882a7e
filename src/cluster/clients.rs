//! The two kube clients, which have the same configuration and separate connections.
//!
//! Building them sends nothing to the API server, but runs the exec plugin that the kubeconfig names, if any.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use kube::Client;
use kube::client::{Body, ConfigExt};
use kube::config::Config;
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

/// Why the credentials cannot be used.
fn credentials_cause(error: &kube::Error) -> String {
    match error {
        kube::Error::Auth(error) => no_credentials(error),
        other => error_chain(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_standard_output_of_a_failed_plugin_is_not_repeated() {
        let mut config = Config::new("https://k8s:6443".parse().unwrap());
        config.auth_info.exec = serde_json::from_str(
            r#"{"apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never", "command": "sh",
                "args": ["-c", "echo hidden; echo sorry >&2; exit 3"]}"#,
        )
        .unwrap();
        let text = Clients::build(config).await.unwrap_err().to_string();
        assert!(text.contains("exit status: 3): sorry; check"), "{text}");
        assert!(!text.contains("hidden"), "{text}");
    }
}
