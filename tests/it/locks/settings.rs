//! The messages of a `MySQL` or `MariaDB` store about wrong settings, privileges and tables, and how its tables are
//! created.

use futures::future::join_all;
use podlog::domain::{BackendError, Fence, RenewalOutcome};
use podlog::locks::{self, LockUrl};

use crate::locks::fixture::{LockFixture, StoreKind, acquire, holder, pod, renewal, run};
use crate::locks::mysql::execute;

/// Opens with a changed URL; the error.
async fn refused(url: &str) -> BackendError {
    let url: LockUrl = url.parse().unwrap();
    locks::open(&url, holder("here", "a")).await.map(drop).unwrap_err()
}

fn changed(fixture: &LockFixture, change: impl Fn(&mut url::Url)) -> String {
    let mut url = fixture.server();
    change(&mut url);
    url.to_string()
}

pub(crate) async fn unsuitable_server_settings_are_named(fixture: &LockFixture) {
    // On every address, since the server may be known by another than 127.0.0.1.
    let silent = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let silent_port = silent.local_addr().unwrap().port();
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let wrong = changed(fixture, |url| url.set_password(Some("wr0ng")).unwrap());
    let cases = [
        (wrong, true, "check the user and the password"),
        (
            changed(fixture, |url| url.set_path("no_such_database")),
            true,
            "create the database",
        ),
        (
            changed(fixture, |url| url.set_host(Some("no-such-host.invalid")).unwrap()),
            false,
            "correct the host",
        ),
        (
            changed(fixture, |url| url.set_port(Some(closed)).unwrap()),
            false,
            "that the server runs",
        ),
        (
            changed(fixture, |url| url.set_port(Some(silent_port)).unwrap()),
            false,
            "its log-in took longer than 10 s",
        ),
        (
            changed(fixture, |url| url.set_query(Some("ssl-mode=VERIFY_CA"))),
            false,
            "TLS",
        ),
    ];
    for (url, is_refused, says) in cases {
        let error = refused(&url).await;
        assert_eq!(matches!(error, BackendError::Refused(_)), is_refused, "{error:?}");
        let text = error.to_string();
        assert!(
            text.contains(says) && text.contains("mysql://") && !text.contains("wr0ng"),
            "{text}"
        );
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}

pub(crate) async fn an_error_of_a_user_without_privileges_says_what_to_grant(fixture: &LockFixture) {
    // It may log in and nothing else.
    let mut conn = fixture.sql().await;
    let user: String = fixture.database().chars().take(28).collect();
    execute(&mut conn, &format!("CREATE USER '{user}'@'%' IDENTIFIED BY 'x'")).await;
    let nobody = changed(fixture, |url| {
        url.set_username(&user).unwrap();
        url.set_password(Some("x")).unwrap();
    });
    let nobody = refused(&nobody).await;
    execute(&mut conn, &format!("DROP USER '{user}'@'%'")).await;
    assert!(
        matches!(&nobody, BackendError::Refused(words) if words.remedy.contains("grant the user")),
        "{nobody:?}"
    );
}

pub(crate) async fn tables_of_another_version_are_refused(fixture: &LockFixture) {
    let mut conn = fixture.sql().await;
    let url = changed(fixture, |_| ());
    let cases = [
        (
            "UPDATE podlog_locks_migrations SET version = version + 1",
            "newer podlog",
        ),
        ("UPDATE podlog_locks_migrations SET version = 100", "podlog migrate"),
        (
            "UPDATE podlog_locks_migrations SET version = 101, success = FALSE",
            "interrupted",
        ),
        ("DELETE FROM podlog_locks_migrations", "podlog migrate"),
        ("DROP TABLE podlog_locks_migrations", "podlog migrate"),
    ];
    for (change, says) in cases {
        execute(&mut conn, change).await;
        let error = refused(&url).await;
        assert!(
            matches!(error, BackendError::Refused(_)) && error.to_string().contains(says),
            "{change}: {error:?}"
        );
    }
}

/// Needs a user who may grant.
async fn a_missing_privilege_is_named(fixture: &LockFixture) {
    let mut conn = fixture.sql().await;
    // At most 32 characters on MySQL; the database's name ends in what makes it its own.
    let user: String = fixture.database().chars().take(28).collect();
    execute(&mut conn, &format!("CREATE USER '{user}'@'%' IDENTIFIED BY 'x'")).await;
    let url = changed(fixture, |url| {
        url.set_username(&user).unwrap();
        url.set_password(Some("x")).unwrap();
    });
    let on = format!("ON {}.* TO '{user}'@'%'", fixture.database());
    let mut answers = Vec::new();
    for rights in ["SELECT", "INSERT, UPDATE", "DELETE"] {
        answers.push(locks::open(&url.parse().unwrap(), holder("here", "a")).await.map(drop));
        execute(&mut conn, &format!("GRANT {rights} {on}")).await;
    }
    let all = locks::open(&url.parse().unwrap(), holder("here", "a")).await;
    let migrated = locks::migrate(&url.parse().unwrap()).await;
    execute(&mut conn, &format!("DROP USER '{user}'@'%'")).await;
    for answer in answers {
        let error = answer.unwrap_err();
        assert!(
            matches!(error, BackendError::Refused(_)) && error.to_string().contains("grant"),
            "{error:?}"
        );
    }
    all.unwrap();
    let error = migrated.unwrap_err();
    assert!(
        matches!(error, BackendError::Refused(_)) && error.to_string().contains("CREATE"),
        "{error:?}"
    );
}

pub(crate) async fn many_replicas_can_migrate_at_once(fixture: &LockFixture) {
    let error = locks::open(fixture.url(), holder("here", "a"))
        .await
        .map(drop)
        .unwrap_err();
    assert!(error.to_string().contains("podlog migrate"), "{error}");
    // Migrations of another program, one of them unfinished, are ignored.
    let mut conn = fixture.sql().await;
    execute(
        &mut conn,
        "CREATE TABLE _sqlx_migrations (version BIGINT PRIMARY KEY, description TEXT NOT NULL, \
         installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, success BOOLEAN NOT NULL, \
         checksum BLOB NOT NULL, execution_time BIGINT NOT NULL)",
    )
    .await;
    execute(
        &mut conn,
        "INSERT INTO _sqlx_migrations VALUES (101, 'x', NOW(), FALSE, 'x', 1)",
    )
    .await;
    for outcome in join_all((0..6).map(|_| locks::migrate(fixture.url()))).await {
        outcome.unwrap();
    }
    acquire(&fixture.holder("a").await, &pod("x")).await.unwrap();
}

#[test]
#[ignore = "needs a user who may grant: run with --ignored on servers of your own"]
fn a_missing_privilege_on_mysql_is_named() {
    run(StoreKind::MySql, "rights", a_missing_privilege_is_named);
}

#[test]
#[ignore = "needs a user who may grant: run with --ignored on servers of your own"]
fn a_missing_privilege_on_mariadb_is_named() {
    run(StoreKind::MariaDb, "rights", a_missing_privilege_is_named);
}

/// Switches the whole server read-only, so it runs alone.
async fn a_server_that_becomes_read_only_is_abandoned_and_used_again_when_writable(fixture: &LockFixture) {
    let mut admin = fixture.sql().await;
    let user: String = fixture.database().chars().take(28).collect();
    execute(&mut admin, &format!("CREATE USER '{user}'@'%' IDENTIFIED BY 'x'")).await;
    execute(
        &mut admin,
        &format!("GRANT ALL ON {}.* TO '{user}'@'%'", fixture.database()),
    )
    .await;
    let url = changed(fixture, |url| {
        url.set_username(&user).unwrap();
        url.set_password(Some("x")).unwrap();
    });
    let a = locks::open(&url.parse().unwrap(), holder("here", "a")).await.unwrap();
    let claim = acquire(&a, &pod("x")).await.unwrap();
    let one = [renewal(&claim.key, claim.fence, None)];
    execute(&mut admin, "SET GLOBAL read_only = 1").await;
    let (first, second) = (a.renew(&one).await, a.renew(&one).await);
    execute(&mut admin, "SET GLOBAL read_only = 0").await;
    let third = a.renew(&one).await;
    execute(&mut admin, &format!("DROP USER '{user}'@'%'")).await;
    for error in [first.unwrap_err(), second.unwrap_err()] {
        assert!(
            matches!(error, BackendError::Unavailable(_)) && error.to_string().contains("failing over"),
            "{error:?}"
        );
    }
    assert_eq!(third.unwrap(), [RenewalOutcome::Held]);
    assert!(claim.fence > Fence(0));
}

#[test]
#[ignore = "switches the whole server read-only: run with --ignored --test-threads 1 on servers of your own"]
fn mysql_becomes_read_only_and_is_used_again_when_writable() {
    run(
        StoreKind::MySql,
        "read_only",
        a_server_that_becomes_read_only_is_abandoned_and_used_again_when_writable,
    );
}

#[test]
#[ignore = "switches the whole server read-only: run with --ignored --test-threads 1 on servers of your own"]
fn mariadb_becomes_read_only_and_is_used_again_when_writable() {
    run(
        StoreKind::MariaDb,
        "read_only",
        a_server_that_becomes_read_only_is_abandoned_and_used_again_when_writable,
    );
}
