//! Passwords, tokens and certificates of the lock store, the sink and the API server that are replaced under running
//! replicas: first on the server, which ends all connections, and seconds later in the files of the replicas, as in life.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ServerConfig;
use serde_json::json;
use sqlx::Row as _;
use url::Url;

use crate::database::{Database, on_both};
use crate::fixture::Fixture;
use crate::replica::{Replica, ReplicaSettings};
use crate::server::{Server, on_each, on_own};
use crate::tls::{Authority, TlsFront};

/// How long the files are behind the server. Claims last longer.
const BEHIND: Duration = Duration::from_secs(3);

const SILENT: &str = "the sink takes no records for now";
const SPEAKS: &str = "no write to the sink fails any more";

/// The user of the replicas.
const NAME: &str = "rotated";

async fn create_user(server: &Server, database: &Database) {
    let create = format!("CREATE USER '{NAME}'@'%' IDENTIFIED BY 'first'");
    let grant = format!("GRANT ALL ON {}.* TO '{NAME}'@'%'", database.name);
    server.execute(&create).await;
    server.execute(&grant).await;
}

/// Ends all connections of the replicas. Returns how many there were.
async fn kill(server: &Server, database: &Database) -> usize {
    let find = format!("SELECT CAST(id AS SIGNED) FROM information_schema.processlist WHERE user = '{NAME}'");
    let rows = database.rows(&find).await;
    for row in &rows {
        server.kill(row.get(0)).await;
    }
    rows.len()
}

/// The URL with another user.
fn as_user(url: &str, password: Option<&str>, query: &str) -> String {
    let mut url = Url::parse(url).unwrap();
    url.set_username(NAME).unwrap();
    url.set_password(password).unwrap();
    url.set_query(Some(query));
    url.into()
}

/// Rotates, and checks that nothing is lost, no pod changes hands, and each replica says so once.
async fn rotate(
    server: &Server,
    fixture: &mut Fixture<'_>,
    what: &str,
    says: &str,
    change: impl FnOnce(&mut ReplicaSettings) + Copy,
    on_server: impl AsyncFnOnce(),
    in_files: impl FnOnce(),
) {
    let names = ["a", "b"];
    let all: Vec<Replica> = futures::future::join_all(names.map(|name| fixture.replica_with(name, change))).await;
    fixture.begin(names.len()).await;
    fixture.all_held_by(&names).await;
    fixture.progress(2).await;
    let before = fixture.database.claims().await;
    on_server().await;
    assert!(
        kill(server, fixture.database).await >= names.len(),
        "there were no connections"
    );
    tokio::time::sleep(BEHIND).await;
    in_files();
    let changed = Instant::now();
    fixture.progress(2).await;
    println!("{what}: all streams continued {:?} after the change", changed.elapsed());
    assert_eq!(fixture.database.claims().await, before, "claims have moved");
    for replica in &all {
        assert!(replica.said(says) > 0, "{} does not say {says}", replica.name);
        let said = [SILENT, SPEAKS].map(|text| replica.said(text));
        assert_eq!(said, [1, 1], "{}", replica.name);
    }
    fixture.finish_exactly(what).await;
}

pub(crate) fn a_password_that_is_changed_costs_no_claim_and_no_line() {
    on_own(
        &[],
        |_| Vec::new(),
        async |server| {
            let database = Database::new(&server.url()).await;
            create_user(server, &database).await;
            let mut fixture = Fixture::new(&database, 8).await;
            let file = fixture.dir.path().join("password");
            std::fs::write(&file, "first\n").unwrap();
            let change = |settings: &mut ReplicaSettings| {
                for url in [&mut settings.lock, &mut settings.sink] {
                    *url = as_user(url, None, "ssl-mode=PREFERRED");
                }
                let path = file.display().to_string();
                for variable in ["PODLOG_LOCK_PASSWORD_FILE", "PODLOG_SINK_PASSWORD_FILE"] {
                    settings.env.push((variable.to_owned(), path.clone()));
                }
            };
            let alter = format!("ALTER USER '{NAME}'@'%' IDENTIFIED BY 'second'");
            let on_server = async || server.execute(&alter).await;
            let in_files = || std::fs::write(&file, "second\n").unwrap();
            let what = "password changed";
            rotate(
                server,
                &mut fixture,
                what,
                "refused the log-in",
                change,
                on_server,
                in_files,
            )
            .await;
        },
    );
}

/// Writes a new authority, and a certificate of it. A server trusts both authorities: MySQL must trust its own certificate.
fn write_certificates(folder: &Path, authority: &str, holder: &str) {
    let new = Authority::new();
    let (certificate, key) = new.issue();
    for (name, text) in [
        (format!("{authority}.pem"), new.pem()),
        (format!("{holder}.pem"), certificate.pem()),
        (format!("{holder}.key"), key.serialize_pem()),
    ] {
        std::fs::write(folder.join(name), text).unwrap();
    }
    let authorities =
        ["ca.pem", "clients.pem"].map(|name| std::fs::read_to_string(folder.join(name)).unwrap_or_default());
    std::fs::write(folder.join("trusted.pem"), authorities.concat()).unwrap();
}

/// The authority of the servers, and the certificate of each.
fn write_server_certificates(folder: &Path) {
    write_certificates(folder, "ca", "server");
}

/// The authority of the clients, and their certificate.
fn write_client_certificates(folder: &Path) {
    write_certificates(folder, "clients", "client");
}

/// Replaces certificates on servers that demand one of their clients, and then in the files of the replicas.
fn rotate_certificates(what: &str, says: &str, write: fn(&Path)) {
    let [mariadb, mysql] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let folder = |name: &str| {
        if name == "mariadb" {
            mariadb.path()
        } else {
            mysql.path()
        }
    };
    for folder in [mariadb.path(), mysql.path()] {
        write_server_certificates(folder);
        write_client_certificates(folder);
    }
    let files = [("ca", "trusted.pem"), ("cert", "server.pem"), ("key", "server.key")];
    let options = |name: &str| {
        let option = |(option, file)| format!("--ssl-{option}={}", folder(name).join(file).display());
        files.map(option).to_vec()
    };
    let test = async |server: &mut Server| {
        let name = server.name();
        let database = Database::new(&server.url()).await;
        create_user(server, &database).await;
        server.execute(&format!("ALTER USER '{NAME}'@'%' REQUIRE X509")).await;
        let mut fixture = Fixture::new(&database, 8).await;
        let own = fixture.dir.path().to_owned();
        let in_files = || {
            for file in ["ca.pem", "client.pem", "client.key"] {
                std::fs::copy(folder(name).join(file), own.join(file)).unwrap();
            }
        };
        in_files();
        let file = |name: &str| own.join(name).display().to_string();
        let query = format!(
            "ssl-mode=VERIFY_IDENTITY&ssl-ca={}&ssl-cert={}&ssl-key={}",
            file("ca.pem"),
            file("client.pem"),
            file("client.key")
        );
        let change = |settings: &mut ReplicaSettings| {
            for url in [&mut settings.lock, &mut settings.sink] {
                *url = as_user(url, Some("first"), &query);
            }
        };
        let reload = if name == "mariadb" {
            "FLUSH SSL"
        } else {
            "ALTER INSTANCE RELOAD TLS"
        };
        let on_server = async || {
            write(folder(name));
            server.execute(reload).await;
        };
        rotate(server, &mut fixture, what, says, change, on_server, in_files).await;
    };
    on_each(options, |_| Vec::new(), test);
}

pub(crate) fn a_ca_that_is_replaced_with_the_certificate_of_the_server_costs_no_claim_and_no_line() {
    rotate_certificates("CA replaced", "did not agree on TLS", write_server_certificates);
}

pub(crate) fn a_client_certificate_that_is_replaced_costs_no_claim_and_no_line() {
    rotate_certificates("client certificate replaced", "TLS", write_client_certificates);
}

/// How the API server authenticates itself and its clients.
struct ApiCredentials<'a> {
    server: Authority,
    clients: Authority,
    token: &'static str,
    files: &'a Path,
}

impl ApiCredentials<'_> {
    fn server_config(&self) -> Arc<ServerConfig> {
        self.server.server(Some(&self.clients), "h2")
    }

    /// Writes what the replicas know.
    fn write(&self) {
        let (certificate, key) = self.clients.issue();
        for (name, text) in [
            ("api-ca.pem", self.server.pem()),
            ("api-client.pem", certificate.pem()),
            ("api-client.key", key.serialize_pem()),
            ("api-token", self.token.to_owned()),
        ] {
            std::fs::write(self.files.join("new"), text).unwrap();
            std::fs::rename(self.files.join("new"), self.files.join(name)).unwrap();
        }
    }
}

/// A kubeconfig for the API server at this port, with all credentials in files.
fn kubeconfig(folder: &Path, port: u16) -> PathBuf {
    let file = |name: &str| folder.join(name);
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "t",
        "clusters": [{"name": "t", "cluster": {
            "server": format!("https://127.0.0.1:{port}"), "certificate-authority": file("api-ca.pem")}}],
        "contexts": [{"name": "t", "context": {"cluster": "t", "user": "t"}}],
        "users": [{"name": "t", "user": {
            "client-certificate": file("api-client.pem"), "client-key": file("api-client.key"),
            "tokenFile": file("api-token")}}],
    });
    std::fs::write(file("kubeconfig-tls"), config.to_string()).unwrap();
    file("kubeconfig-tls")
}

pub(crate) fn credentials_of_the_api_server_that_are_replaced_cost_no_claim_and_no_line() {
    on_both(async |database| {
        let mut fixture = Fixture::new(database, 8).await;
        let files = fixture.dir.path().to_owned();
        let mut credentials = ApiCredentials {
            server: Authority::new(),
            clients: Authority::new(),
            token: "first",
            files: &files,
        };
        credentials.write();
        fixture.sim.require_token(credentials.token);
        let front = TlsFront::to(format!("127.0.0.1:{}", fixture.api.port), credentials.server_config()).await;
        let path = kubeconfig(&files, front.port);
        let start = |name| {
            let path = path.clone();
            fixture.replica_with(name, |settings| settings.kubeconfig = path)
        };
        let names = ["a", "b"];
        let all = futures::future::join_all(names.map(start)).await;
        fixture.begin(names.len()).await;
        fixture.all_held_by(&names).await;
        fixture.progress(2).await;
        let before = database.claims().await;
        for what in ["CA", "client certificate", "token"] {
            match what {
                "CA" => credentials.server = Authority::new(),
                "client certificate" => credentials.clients = Authority::new(),
                _ => credentials.token = "second",
            }
            fixture.sim.require_token(credentials.token);
            front.replace(credentials.server_config());
            tokio::time::sleep(BEHIND).await;
            credentials.write();
            let changed = Instant::now();
            fixture.progress(2).await;
            println!(
                "{what} of the API server replaced: all streams continued {:?} after the change",
                changed.elapsed()
            );
            assert_eq!(database.claims().await, before, "claims have moved");
        }
        for replica in &all {
            let said = replica.said("podlog reads the configuration of the cluster again");
            assert!(said > 0, "{} does not say why", replica.name);
        }
        fixture.finish_exactly("credentials of the API server replaced").await;
    });
}
