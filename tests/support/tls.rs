//! Certificates, and TLS in front of a server that speaks plain TCP. Both can be replaced while clients are connected.

use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// A certificate authority.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // OpenSSL tells authorities apart by their names.
        let name = format!("authority {:x}", fastrand::u64(..));
        params.distinguished_name.push(DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate for this machine, and its key.
    pub(crate) fn issue(&self) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        (params.signed_by(&key, &self.0).unwrap(), key)
    }

    /// As a file of PEM.
    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        roots
    }

    /// A server with a certificate of this authority, which demands one of `clients` if there is such.
    pub(crate) fn server(&self, clients: Option<&Self>, protocol: &str) -> Arc<ServerConfig> {
        let (certificate, key) = self.issue();
        let builder = match clients {
            Some(clients) => {
                let verifier = WebPkiClientVerifier::builder(clients.roots().into()).build().unwrap();
                ServerConfig::builder().with_client_cert_verifier(verifier)
            }
            None => ServerConfig::builder().with_no_client_auth(),
        };
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let mut config = builder.with_single_cert(vec![certificate.der().clone()], key).unwrap();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        Arc::new(config)
    }
}

/// Accepts TLS connections and passes their content on; ends when dropped.
pub(crate) struct TlsFront {
    pub(crate) port: u16,
    config: Arc<Mutex<Arc<ServerConfig>>>,
    connections: Arc<Mutex<JoinSet<()>>>,
    accepting: Mutex<JoinSet<()>>,
}

impl TlsFront {
    /// TLS in front of the server at this address.
    pub(crate) async fn to(server: String, config: Arc<ServerConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let config = Arc::new(Mutex::new(config));
        let connections = Arc::new(Mutex::new(JoinSet::new()));
        let (current, open) = (config.clone(), connections.clone());
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let acceptor = TlsAcceptor::from(current.lock().unwrap().clone());
                let server = server.clone();
                open.lock().unwrap().spawn(async move {
                    let Ok(mut client) = acceptor.accept(client).await else {
                        return;
                    };
                    let mut server = TcpStream::connect(server).await.unwrap();
                    tokio::io::copy_bidirectional(&mut client, &mut server).await.ok();
                });
            }
        });
        Self {
            port,
            config,
            connections,
            accepting: accepting.into(),
        }
    }

    /// Serves with other certificates from now on, and ends all connections.
    pub(crate) fn replace(&self, config: Arc<ServerConfig>) {
        *self.config.lock().unwrap() = config;
        self.cut();
    }

    /// Ends all connections.
    pub(crate) fn cut(&self) {
        *self.connections.lock().unwrap() = JoinSet::new();
    }

    /// Accepts no connection any more, and ends all.
    pub(crate) fn close(&self) {
        *self.accepting.lock().unwrap() = JoinSet::new();
        self.cut();
    }
}
