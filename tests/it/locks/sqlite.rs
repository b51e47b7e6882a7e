//! More tests of `SQLite`: it explains what is wrong with a file, and several processes share one.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use futures::future::join_all;
use podlog::domain::{BackendError, RenewalOutcome};
use podlog::locks::{self, LockUrl};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Executor};

use crate::locks::fixture::{LockFixture, acquire, holder, pod, renew, renewal};

fn url(path: &Path) -> LockUrl {
    format!("sqlite://{}", path.display()).parse().unwrap()
}

async fn error(path: &Path) -> BackendError {
    locks::open(&url(path), holder("here", "a"))
        .await
        .map(drop)
        .unwrap_err()
}

async fn somebody(fixture: &LockFixture) -> SqliteConnection {
    SqliteConnectOptions::new()
        .filename(fixture.file())
        .connect()
        .await
        .unwrap()
}

pub(crate) async fn the_error_for_an_unusable_file_says_why(fixture: &LockFixture) {
    let folder = fixture.file().parent().unwrap().to_owned();
    std::fs::write(
        folder.join("text"),
        "this is not a database, and long enough to be seen as none".repeat(20),
    )
    .unwrap();
    std::fs::write(folder.join("empty"), "").unwrap();
    std::fs::create_dir(folder.join("folder")).unwrap();
    let cases = [
        ("none/podlog.db", "no directory"),
        ("absent.db", "podlog migrate"),
        ("text", "not an SQLite database"),
        ("folder", "is a directory"),
        ("empty", "podlog migrate"),
    ];
    for (name, says) in cases {
        let error = error(&folder.join(name)).await;
        let text = error.to_string();
        assert!(
            matches!(error, BackendError::Refused(_)) && text.contains(says),
            "{name}: {text}"
        );
        assert_eq!(text.lines().count(), 1, "{text}");
    }
    let error = locks::migrate(&url(&folder.join("none/podlog.db"))).await.unwrap_err();
    assert!(error.to_string().contains("no directory"), "{error}");
}

pub(crate) async fn the_error_for_a_read_only_file_says_why(fixture: &LockFixture) {
    locks::migrate(fixture.url()).await.unwrap();
    std::fs::set_permissions(fixture.file(), std::fs::Permissions::from_mode(0o444)).unwrap();
    if std::fs::OpenOptions::new().write(true).open(fixture.file()).is_ok() {
        // Root may write any file; but not even root a file whose header (byte 18) asks for a newer writer.
        let mut bytes = std::fs::read(fixture.file()).unwrap();
        bytes[18] = 3;
        std::fs::write(fixture.file(), bytes).unwrap();
    }
    let error = error(&fixture.file()).await;
    assert!(
        matches!(error, BackendError::Refused(_)) && error.to_string().contains("read-only"),
        "{error:?}"
    );
}

pub(crate) async fn many_replicas_can_migrate_at_once(fixture: &LockFixture) {
    for outcome in join_all((0..6).map(|_| locks::migrate(fixture.url()))).await {
        outcome.unwrap();
    }
    acquire(&fixture.holder("a").await, &pod("x")).await.unwrap();
}

pub(crate) async fn a_writer_that_blocks_the_file_delays_a_renewal_but_costs_no_claim(fixture: &LockFixture) {
    locks::migrate(fixture.url()).await.unwrap();
    let a = fixture.holder("a").await;
    let claim = acquire(&a, &pod("x")).await.unwrap();
    let b = fixture.holder("b").await;
    let mut rogue = somebody(fixture).await;
    rogue.execute("BEGIN IMMEDIATE").await.unwrap();
    let started = Instant::now();
    let error = a.renew(&[renewal(&claim.key, claim.fence, None)]).await.unwrap_err();
    assert!(
        matches!(error, BackendError::Unavailable(_)) && error.to_string().contains("busy"),
        "{error:?}"
    );
    assert!(
        started.elapsed() < Duration::from_millis(3500),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(
        a.table().await.unwrap().rows.len(),
        1,
        "reading does not wait for a writer"
    );
    assert_eq!(acquire(&b, &pod("x")).await, None, "nor does looking for free rows");
    rogue.execute("ROLLBACK").await.unwrap();
    assert_eq!(renew(&a, &claim, None).await, RenewalOutcome::Held);
}

pub(crate) async fn tables_of_another_version_are_refused(fixture: &LockFixture) {
    locks::migrate(fixture.url()).await.unwrap();
    let mut conn = somebody(fixture).await;
    let cases = [
        ("UPDATE podlog_locks_migrations SET version = 102", "newer podlog"),
        ("UPDATE podlog_locks_migrations SET version = 100", "podlog migrate"),
        ("DELETE FROM podlog_locks_migrations", "podlog migrate"),
    ];
    for (change, says) in cases {
        conn.execute(change).await.unwrap();
        let error = error(&fixture.file()).await;
        assert!(
            matches!(error, BackendError::Refused(_)) && error.to_string().contains(says),
            "{change}: {error:?}"
        );
    }
}
