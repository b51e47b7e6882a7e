//! What MySQL and `MariaDB` must do besides: survive what other clients and the network do to them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use podlog::domain::{Fence, LockKey, Verdict};
use podlog::locks::{self, LockError, LockStore, LockUrl};
use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Executor, Row};

use crate::lab::{GRACE, Kind, Lab, TTL, acquire, holder, pod, renew, renewal, run, wants};

async fn execute(conn: &mut MySqlConnection, sql: &str) {
    conn.execute(AssertSqlSafe(sql.to_owned())).await.unwrap();
}

/// Claims `n` rows, and renewals for them in the order of their keys.
async fn hold(store: &Arc<dyn LockStore>, n: usize) -> Vec<podlog::domain::Renewal> {
    let mut claims = store.acquire(&wants(n)).await.unwrap();
    claims.sort_by(|a, b| a.key.cmp(&b.key));
    claims
        .iter()
        .map(|claim| renewal(&claim.key, claim.fence, None))
        .collect()
}

/// Waits until a statement of somebody else in this database has begun with `begin`; its connection.
async fn running(lab: &Lab, begin: &str) -> u64 {
    let mut conn = lab.sql().await;
    let sql = format!(
        "SELECT CAST(id AS UNSIGNED) FROM information_schema.processlist \
         WHERE db = '{}' AND id <> CONNECTION_ID() AND info LIKE '{begin}%'",
        lab.database()
    );
    for _ in 0..500 {
        if let Some(row) = conn.fetch_optional(AssertSqlSafe(sql.clone())).await.unwrap() {
            return row.get(0);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("no statement {begin} within five seconds");
}

/// Waits until somebody's transaction has locked this row.
async fn locked(lab: &Lab, key: &str) {
    let mut conn = lab.sql().await;
    let sql = format!("SELECT id FROM distributed_lock WHERE id = '{key}' AND cluster = 'here' FOR UPDATE NOWAIT");
    for _ in 0..500 {
        if conn.fetch_one(AssertSqlSafe(sql.clone())).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("nobody locked {key}");
}

async fn default_isolation(conn: &mut MySqlConnection) -> String {
    let sql = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('transaction_isolation', 'tx_isolation')";
    conn.fetch_one(sql).await.unwrap().get(1)
}

pub(crate) async fn a_row_locked_by_an_open_transaction_costs_that_row_only(lab: &Lab) {
    let (a, b) = (lab.holder("a").await, lab.holder("b").await);
    let mut renewals = hold(&a, 10).await;
    for renewal in &mut renewals[..5] {
        renewal.checkpoint = Some(b"moved".to_vec());
    }
    let mut rogue = lab.sql().await;
    assert_eq!(
        default_isolation(&mut rogue).await,
        "REPEATABLE-READ",
        "ours must be set"
    );
    let lock = "SELECT * FROM distributed_lock WHERE id = 'pod/uid-00003' FOR UPDATE";
    execute(&mut rogue, "START TRANSACTION").await;
    execute(&mut rogue, lock).await;
    let isolation = async {
        let id = running(lab, "UPDATE JSON_TABLE").await;
        locked(lab, "pod/uid-00000").await;
        let mut conn = lab.sql().await;
        for _ in 0..6 {
            let sql = format!(
                "SELECT trx_isolation_level FROM information_schema.innodb_trx WHERE trx_mysql_thread_id = {id}"
            );
            if let Some(row) = conn.fetch_optional(AssertSqlSafe(sql)).await.unwrap() {
                return row.get::<String, _>(0);
            }
            // The server renews this view only when nobody has read it for a tenth of a second.
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
        panic!("the transaction was not seen");
    };
    let started = Instant::now();
    let (verdicts, isolation) = tokio::join!(a.renew(&renewals), isolation);
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    assert_eq!(isolation, "READ COMMITTED");
    for (i, verdict) in verdicts.unwrap().into_iter().enumerate() {
        assert_eq!(
            verdict,
            if i == 3 { Verdict::Busy } else { Verdict::Held },
            "number {i}"
        );
    }
    let table = a.table().await.unwrap();
    assert_eq!(table.rows[&renewals[4].key].checkpoint_len, 5);
    assert_eq!(table.rows[&renewals[3].key].checkpoint_len, 0);
    execute(&mut rogue, "ROLLBACK").await;
    assert_eq!(a.renew(&renewals).await.unwrap(), [Verdict::Held; 10]);

    lab.pass(TTL + GRACE).await;
    execute(&mut rogue, "START TRANSACTION").await;
    execute(&mut rogue, lock).await;
    let won = b.acquire(&wants(12)).await.unwrap();
    assert_eq!(won.len(), 11);
    assert!(won.iter().all(|claim| claim.key != pod("uid-00003")));
    execute(&mut rogue, "ROLLBACK").await;
    assert_eq!(b.acquire(&wants(12)).await.unwrap().len(), 12, "its own are won again");
}

async fn deadlocks(conn: &mut MySqlConnection) -> i64 {
    let mysql = "SELECT count FROM information_schema.innodb_metrics WHERE name = 'lock_deadlocks'";
    let row = conn.fetch_one(mysql).await.unwrap();
    row.get(0)
}

pub(crate) async fn a_deadlock_with_an_unsorted_client_is_survived(lab: &Lab) {
    let a = lab.holder("a").await;
    let renewals = hold(&a, 200).await;
    let mut rogue = lab.sql().await;
    // Many changed rows make the rogue the one that the server spares.
    execute(&mut rogue, "CREATE TABLE weight (n INT)").await;
    execute(&mut rogue, "START TRANSACTION").await;
    execute(
        &mut rogue,
        "INSERT INTO weight SELECT 1 FROM information_schema.columns LIMIT 1000",
    )
    .await;
    execute(
        &mut rogue,
        "UPDATE distributed_lock SET node = 'r' WHERE id = 'pod/uid-00199'",
    )
    .await;
    let before = deadlocks(&mut rogue).await;
    let meddle = async {
        // It locks in the order of the keys, so it is on its way to the row that the rogue has.
        locked(lab, "pod/uid-00000").await;
        execute(
            &mut rogue,
            "UPDATE distributed_lock SET node = 'r' WHERE id = 'pod/uid-00000'",
        )
        .await;
        execute(&mut rogue, "COMMIT").await;
    };
    let (verdicts, ()) = tokio::join!(a.renew(&renewals), meddle);
    assert!(verdicts.unwrap().iter().all(|verdict| *verdict == Verdict::Held));
    assert!(deadlocks(&mut rogue).await > before, "there was no deadlock to survive");
}

pub(crate) async fn a_connection_killed_in_mid_call_is_replaced(lab: &Lab) {
    let a = lab.holder("a").await;
    let renewals = hold(&a, 3).await;
    let mut rogue = lab.sql().await;
    execute(&mut rogue, "START TRANSACTION").await;
    execute(&mut rogue, "UPDATE distributed_lock SET node = 'r'").await;
    let kill = async {
        let id = running(lab, "UPDATE JSON_TABLE").await;
        execute(&mut lab.sql().await, &format!("KILL {id}")).await;
        execute(&mut rogue, "ROLLBACK").await;
    };
    let (verdicts, ()) = tokio::join!(a.renew(&renewals), kill);
    assert_eq!(verdicts.unwrap(), [Verdict::Held; 3]);
    // And one killed while idle.
    let sql = format!(
        "SELECT CAST(id AS UNSIGNED) FROM information_schema.processlist WHERE db = '{}' AND id <> CONNECTION_ID() AND command = 'Sleep'",
        lab.database()
    );
    drop(rogue);
    let mut conn = lab.sql().await;
    for row in conn.fetch_all(AssertSqlSafe(sql)).await.unwrap() {
        conn.execute(AssertSqlSafe(format!("KILL {}", row.get::<u64, _>(0))))
            .await
            .ok();
    }
    assert_eq!(a.renew(&renewals).await.unwrap(), [Verdict::Held; 3]);
}

pub(crate) async fn a_statement_that_is_not_answered_fails_in_time_and_the_next_one_works(lab: &Lab) {
    let a = lab.holder("a").await;
    let claim = acquire(&a, &pod("x")).await.unwrap();
    let mut rogue = lab.sql().await;
    execute(&mut rogue, "LOCK TABLES distributed_lock WRITE").await;
    let started = Instant::now();
    let error = a.renew(&[renewal(&claim.key, claim.fence, None)]).await.unwrap_err();
    assert!(matches!(error, LockError::Unavailable(_)), "{error}");
    assert!(
        started.elapsed() < Duration::from_millis(3500),
        "{:?}",
        started.elapsed()
    );
    execute(&mut rogue, "UNLOCK TABLES").await;
    assert_eq!(renew(&a, &claim, None).await, Verdict::Held);
}

pub(crate) async fn a_call_given_up_half_way_does_not_hold_up_the_next(lab: &Lab) {
    let a = lab.holder("a").await;
    let (x, y) = (
        acquire(&a, &pod("x")).await.unwrap(),
        acquire(&a, &pod("y")).await.unwrap(),
    );
    let mut rogue = lab.sql().await;
    execute(&mut rogue, "START TRANSACTION").await;
    execute(&mut rogue, "UPDATE distributed_lock SET node = 'r' WHERE id = 'pod/x'").await;
    tokio::select! {
        _ = renew(&a, &x, None) => panic!("the row is locked"),
        _ = running(lab, "UPDATE JSON_TABLE") => {}
    }
    let started = Instant::now();
    assert_eq!(renew(&a, &y, None).await, Verdict::Held);
    assert!(
        started.elapsed() < Duration::from_millis(900),
        "{:?}",
        started.elapsed()
    );
    execute(&mut rogue, "ROLLBACK").await;
}

pub(crate) async fn a_statement_locks_no_row_it_does_not_name(lab: &Lab) {
    let (a, b) = (lab.holder("a").await, lab.holder("b").await);
    let renewals = hold(&a, 300).await;
    // Somebody works on every other row and on the gaps between them; a's statements name the rest.
    let mut rogue = lab.sql().await;
    execute(&mut rogue, "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED").await;
    execute(&mut rogue, "START TRANSACTION").await;
    execute(
        &mut rogue,
        "UPDATE distributed_lock SET node = 'r' WHERE id LIKE '%1' OR id LIKE '%3'",
    )
    .await;
    let mine = |text: &str| !text.ends_with('1') && !text.ends_with('3');
    let (named, _): (Vec<_>, Vec<_>) = renewals.into_iter().partition(|renewal| mine(&renewal.key.to_string()));
    assert_eq!(named.len(), 240);
    let started = Instant::now();
    assert!(
        a.renew(&named)
            .await
            .unwrap()
            .iter()
            .all(|verdict| *verdict == Verdict::Held)
    );
    let rows: Vec<_> = named
        .iter()
        .map(|renewal| (renewal.key.clone(), renewal.fence))
        .collect();
    b.ask(&rows).await.unwrap();
    a.refuse(&rows).await.unwrap();
    let keys: Vec<LockKey> = rows.into_iter().map(|(key, _)| key).collect();
    assert_eq!(b.forget(&keys).await.unwrap(), 0);
    assert!(
        started.elapsed() < Duration::from_millis(900),
        "something waited: {:?}",
        started.elapsed()
    );
    execute(&mut rogue, "ROLLBACK").await;
}

/// Opens with a changed URL; the error.
async fn refused(url: &str) -> LockError {
    let url: LockUrl = url.parse().unwrap();
    locks::open(&url, holder("here", "a")).await.map(drop).unwrap_err()
}

fn changed(lab: &Lab, change: impl Fn(&mut url::Url)) -> String {
    let mut url = lab.server();
    change(&mut url);
    url.to_string()
}

pub(crate) async fn what_is_wrong_with_the_settings_is_named(lab: &Lab) {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_port = silent.local_addr().unwrap().port();
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let wrong = changed(lab, |url| url.set_password(Some("wr0ng")).unwrap());
    // A user that may log in and nothing else.
    let mut conn = lab.sql().await;
    let user: String = lab.database().chars().take(28).collect();
    execute(&mut conn, &format!("CREATE USER '{user}'@'%' IDENTIFIED BY 'x'")).await;
    let nobody = changed(lab, |url| {
        url.set_username(&user).unwrap();
        url.set_password(Some("x")).unwrap();
    });
    let nobody = refused(&nobody).await;
    execute(&mut conn, &format!("DROP USER '{user}'@'%'")).await;
    assert!(
        matches!(&nobody, LockError::Refused(text) if text.contains("grant the user")),
        "{nobody:?}"
    );
    let cases = [
        (wrong, true, "check user and password"),
        (
            changed(lab, |url| url.set_path("no_such_database")),
            true,
            "create the database",
        ),
        (
            changed(lab, |url| url.set_host(Some("no-such-host.invalid")).unwrap()),
            true,
            "correct the host",
        ),
        (
            changed(lab, |url| url.set_port(Some(closed)).unwrap()),
            false,
            "is it running",
        ),
        (
            changed(lab, |url| url.set_port(Some(silent_port)).unwrap()),
            false,
            "within 2 s",
        ),
        (
            changed(lab, |url| url.set_query(Some("ssl-mode=VERIFY_CA"))),
            true,
            "TLS",
        ),
    ];
    for (url, is_refused, says) in cases {
        let error = refused(&url).await;
        assert_eq!(matches!(error, LockError::Refused(_)), is_refused, "{error:?}");
        let text = error.to_string();
        assert!(
            text.contains(says) && text.contains("mysql://") && !text.contains("wr0ng"),
            "{text}"
        );
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}

pub(crate) async fn tables_of_another_version_are_refused(lab: &Lab) {
    let mut conn = lab.sql().await;
    let url = changed(lab, |_| ());
    let cases = [
        (
            "UPDATE podlog_lock_migrations SET version = version + 1",
            "newer podlog",
        ),
        ("UPDATE podlog_lock_migrations SET version = 100", "podlog migrate"),
        (
            "UPDATE podlog_lock_migrations SET version = 101, success = FALSE",
            "broken off",
        ),
        ("DELETE FROM podlog_lock_migrations", "podlog migrate"),
        ("DROP TABLE podlog_lock_migrations", "podlog migrate"),
    ];
    for (change, says) in cases {
        execute(&mut conn, change).await;
        let error = refused(&url).await;
        assert!(
            matches!(error, LockError::Refused(_)) && error.to_string().contains(says),
            "{change}: {error:?}"
        );
    }
}

/// Needs a user who may grant.
async fn a_missing_right_is_named(lab: &Lab) {
    let mut conn = lab.sql().await;
    // At most 32 characters on MySQL; the database's name ends in what makes it its own.
    let user: String = lab.database().chars().take(28).collect();
    execute(&mut conn, &format!("CREATE USER '{user}'@'%' IDENTIFIED BY 'x'")).await;
    let url = changed(lab, |url| {
        url.set_username(&user).unwrap();
        url.set_password(Some("x")).unwrap();
    });
    let on = format!("ON {}.* TO '{user}'@'%'", lab.database());
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
            matches!(error, LockError::Refused(_)) && error.to_string().contains("grant"),
            "{error:?}"
        );
    }
    all.unwrap();
    let error = migrated.unwrap_err();
    assert!(
        matches!(error, LockError::Refused(_)) && error.to_string().contains("CREATE"),
        "{error:?}"
    );
}

pub(crate) async fn any_number_of_replicas_migrate_at_once(lab: &Lab) {
    let error = locks::open(&lab.url, holder("here", "a")).await.map(drop).unwrap_err();
    assert!(error.to_string().contains("podlog migrate"), "{error}");
    // Somebody else's migrations, one of them broken off, are no business of ours.
    let mut conn = lab.sql().await;
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
    for outcome in join_all((0..6).map(|_| locks::migrate(&lab.url))).await {
        outcome.unwrap();
    }
    acquire(&lab.holder("a").await, &pod("x")).await.unwrap();
}

#[test]
#[ignore = "needs a user who may grant: run with --ignored on servers of your own"]
fn mysql_names_a_missing_right() {
    run(Kind::MySql, "rights", a_missing_right_is_named);
}

#[test]
#[ignore = "needs a user who may grant: run with --ignored on servers of your own"]
fn mariadb_names_a_missing_right() {
    run(Kind::MariaDb, "rights", a_missing_right_is_named);
}

/// Switches the whole server read-only, so it runs alone.
async fn a_server_that_turns_read_only_is_left_and_found_again(lab: &Lab) {
    let mut admin = lab.sql().await;
    let user: String = lab.database().chars().take(28).collect();
    execute(&mut admin, &format!("CREATE USER '{user}'@'%' IDENTIFIED BY 'x'")).await;
    execute(
        &mut admin,
        &format!("GRANT ALL ON {}.* TO '{user}'@'%'", lab.database()),
    )
    .await;
    let url = changed(lab, |url| {
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
            matches!(error, LockError::Unavailable(_)) && error.to_string().contains("failing over"),
            "{error:?}"
        );
    }
    assert_eq!(third.unwrap(), [Verdict::Held]);
    assert!(claim.fence > Fence(0));
}

#[test]
#[ignore = "switches the whole server read-only: run with --ignored --test-threads 1 on servers of your own"]
fn mysql_turns_read_only() {
    run(
        Kind::MySql,
        "read_only",
        a_server_that_turns_read_only_is_left_and_found_again,
    );
}

#[test]
#[ignore = "switches the whole server read-only: run with --ignored --test-threads 1 on servers of your own"]
fn mariadb_turns_read_only() {
    run(
        Kind::MariaDb,
        "read_only",
        a_server_that_turns_read_only_is_left_and_found_again,
    );
}
