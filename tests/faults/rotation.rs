//! Passwords and certificates of the lock store and the sink that are replaced under running replicas: first on the
//! server, which ends all connections, and seconds later in the files of the replicas, as in life.

use std::path::Path;
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use sqlx::Row as _;
use url::Url;

use crate::database::Database;
use crate::fixture::Fixture;
use crate::replica::{Replica, ReplicaSettings};
use crate::server::{Server, on_each, on_own};

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

/// Writes a new authority, and a certificate of it for the server.
fn certificates(folder: &Path) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // MySQL takes no certificate whose issuer has the same name.
    params.distinguished_name.push(DnType::CommonName, "authority");
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    for (name, text) in [
        ("ca.pem", authority.pem()),
        ("server.pem", certificate.pem()),
        ("server.key", key.serialize_pem()),
    ] {
        std::fs::write(folder.join(name), text).unwrap();
    }
}

pub(crate) fn a_ca_that_is_replaced_with_the_certificate_of_the_server_costs_no_claim_and_no_line() {
    let [mariadb, mysql] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let folder = |name: &str| {
        if name == "mariadb" {
            mariadb.path()
        } else {
            mysql.path()
        }
    };
    certificates(mariadb.path());
    certificates(mysql.path());
    let files = [("ca", "ca.pem"), ("cert", "server.pem"), ("key", "server.key")];
    let options = |name: &str| {
        let option = |(option, file)| format!("--ssl-{option}={}", folder(name).join(file).display());
        files.map(option).to_vec()
    };
    let test = async |server: &mut Server| {
        let name = server.name();
        let database = Database::new(&server.url()).await;
        create_user(server, &database).await;
        let mut fixture = Fixture::new(&database, 8).await;
        let (current, trusted) = (folder(name).join("ca.pem"), fixture.dir.path().join("trusted.pem"));
        std::fs::copy(&current, &trusted).unwrap();
        let query = format!("ssl-mode=VERIFY_IDENTITY&ssl-ca={}", trusted.display());
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
            certificates(folder(name));
            server.execute(reload).await;
        };
        let in_files = || assert!(std::fs::copy(&current, &trusted).unwrap() > 0);
        let what = "CA replaced";
        rotate(
            server,
            &mut fixture,
            what,
            "did not agree on TLS",
            change,
            on_server,
            in_files,
        )
        .await;
    };
    on_each(options, |_| Vec::new(), test);
}
