//! More tests of `MySQL` and `MariaDB`: other clients and the network must not harm a claim.

use std::sync::Arc;
use std::time::{Duration, Instant};

use podlog::domain::{BackendError, LockKey, RenewalOutcome};
use podlog::locks::LockStore;
use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Executor, Row};

use crate::locks::fixture::{GRACE, LockFixture, TTL, acquire, pod, renew, renewal, requests};

pub(crate) async fn execute(conn: &mut MySqlConnection, sql: &str) {
    conn.execute(AssertSqlSafe(sql.to_owned())).await.unwrap();
}

/// Claims `n` rows, and renewals for them in the order of their keys.
async fn hold(store: &Arc<dyn LockStore>, n: usize) -> Vec<podlog::domain::Renewal> {
    let mut claims = store.acquire(&requests(n)).await.unwrap();
    claims.sort_by(|a, b| a.key.cmp(&b.key));
    claims
        .iter()
        .map(|claim| renewal(&claim.key, claim.fence, None))
        .collect()
}

/// Waits until another client runs a statement in this database that begins with `begin`, and returns its connection.
async fn running(fixture: &LockFixture, begin: &str) -> u64 {
    let mut conn = fixture.sql().await;
    let sql = format!(
        "SELECT CAST(id AS UNSIGNED) FROM information_schema.processlist \
         WHERE db = '{}' AND id <> CONNECTION_ID() AND info LIKE '{begin}%'",
        fixture.database()
    );
    for _ in 0..500 {
        if let Some(row) = conn.fetch_optional(AssertSqlSafe(sql.clone())).await.unwrap() {
            return row.get(0);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("no statement {begin} within five seconds");
}

/// Waits until a transaction of another client has locked this row.
async fn locked(fixture: &LockFixture, key: &str) {
    let mut conn = fixture.sql().await;
    let sql = format!("SELECT id FROM distributed_lock WHERE id = '{key}' AND cluster = 'here' FOR UPDATE NOWAIT");
    for _ in 0..500 {
        if conn.fetch_one(AssertSqlSafe(sql.clone())).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("no transaction locked {key}");
}

async fn default_isolation(conn: &mut MySqlConnection) -> String {
    let sql = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('transaction_isolation', 'tx_isolation')";
    conn.fetch_one(sql).await.unwrap().get(1)
}

pub(crate) async fn an_open_transaction_blocks_only_the_row_it_locks(fixture: &LockFixture) {
    let (a, b) = (fixture.holder("a").await, fixture.holder("b").await);
    let mut renewals = hold(&a, 10).await;
    for renewal in &mut renewals[..5] {
        renewal.checkpoint = Some(b"moved".to_vec());
    }
    let mut rogue = fixture.sql().await;
    assert_eq!(
        default_isolation(&mut rogue).await,
        "REPEATABLE-READ",
        "ours must be set"
    );
    let lock = "SELECT * FROM distributed_lock WHERE id = 'pod/uid-00003' FOR UPDATE";
    execute(&mut rogue, "START TRANSACTION").await;
    execute(&mut rogue, lock).await;
    let isolation = async {
        let id = running(fixture, "UPDATE JSON_TABLE").await;
        locked(fixture, "pod/uid-00000").await;
        let mut conn = fixture.sql().await;
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
    let (outcomes, isolation) = tokio::join!(a.renew(&renewals), isolation);
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    assert_eq!(isolation, "READ COMMITTED");
    let mut expected = [RenewalOutcome::Held; 10];
    expected[3] = RenewalOutcome::Busy;
    assert_eq!(outcomes.unwrap(), expected);
    let table = a.table().await.unwrap();
    assert_eq!(table.rows[&renewals[4].key].checkpoint_len, 5);
    assert_eq!(table.rows[&renewals[3].key].checkpoint_len, 0);
    execute(&mut rogue, "ROLLBACK").await;
    assert_eq!(a.renew(&renewals).await.unwrap(), [RenewalOutcome::Held; 10]);

    fixture.pass(TTL + GRACE).await;
    execute(&mut rogue, "START TRANSACTION").await;
    execute(&mut rogue, lock).await;
    let claims = b.acquire(&requests(12)).await.unwrap();
    assert_eq!(claims.len(), 11);
    assert!(claims.iter().all(|claim| claim.key != pod("uid-00003")));
    execute(&mut rogue, "ROLLBACK").await;
    assert_eq!(
        b.acquire(&requests(12)).await.unwrap().len(),
        12,
        "its own are acquired again"
    );
}

async fn deadlocks(conn: &mut MySqlConnection) -> i64 {
    let mysql = "SELECT count FROM information_schema.innodb_metrics WHERE name = 'lock_deadlocks'";
    let row = conn.fetch_one(mysql).await.unwrap();
    row.get(0)
}

pub(crate) async fn a_deadlock_with_a_client_that_locks_in_another_order_is_survived(fixture: &LockFixture) {
    let a = fixture.holder("a").await;
    let renewals = hold(&a, 200).await;
    let mut rogue = fixture.sql().await;
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
        locked(fixture, "pod/uid-00000").await;
        execute(
            &mut rogue,
            "UPDATE distributed_lock SET node = 'r' WHERE id = 'pod/uid-00000'",
        )
        .await;
        execute(&mut rogue, "COMMIT").await;
    };
    let (outcomes, ()) = tokio::join!(a.renew(&renewals), meddle);
    assert!(outcomes.unwrap().iter().all(|outcome| *outcome == RenewalOutcome::Held));
    assert!(deadlocks(&mut rogue).await > before, "there was no deadlock to survive");
}

pub(crate) async fn a_connection_killed_during_a_call_is_replaced(fixture: &LockFixture) {
    let a = fixture.holder("a").await;
    let renewals = hold(&a, 3).await;
    let mut rogue = fixture.sql().await;
    execute(&mut rogue, "START TRANSACTION").await;
    execute(&mut rogue, "UPDATE distributed_lock SET node = 'r'").await;
    let kill = async {
        let id = running(fixture, "UPDATE JSON_TABLE").await;
        execute(&mut fixture.sql().await, &format!("KILL {id}")).await;
        execute(&mut rogue, "ROLLBACK").await;
    };
    let (outcomes, ()) = tokio::join!(a.renew(&renewals), kill);
    assert_eq!(outcomes.unwrap(), [RenewalOutcome::Held; 3]);
    // And one killed while idle.
    let sql = format!(
        "SELECT CAST(id AS UNSIGNED) FROM information_schema.processlist WHERE db = '{}' AND id <> CONNECTION_ID() AND command = 'Sleep'",
        fixture.database()
    );
    drop(rogue);
    let mut conn = fixture.sql().await;
    for row in conn.fetch_all(AssertSqlSafe(sql)).await.unwrap() {
        conn.execute(AssertSqlSafe(format!("KILL {}", row.get::<u64, _>(0))))
            .await
            .ok();
    }
    assert_eq!(a.renew(&renewals).await.unwrap(), [RenewalOutcome::Held; 3]);
}

pub(crate) async fn a_statement_without_an_answer_times_out_and_the_next_one_works(fixture: &LockFixture) {
    let a = fixture.holder("a").await;
    let claim = acquire(&a, &pod("x")).await.unwrap();
    let mut rogue = fixture.sql().await;
    execute(&mut rogue, "LOCK TABLES distributed_lock WRITE").await;
    let started = Instant::now();
    let error = a.renew(&[renewal(&claim.key, claim.fence, None)]).await.unwrap_err();
    assert!(matches!(error, BackendError::Unavailable(_)), "{error}");
    assert!(
        started.elapsed() < Duration::from_millis(3500),
        "{:?}",
        started.elapsed()
    );
    execute(&mut rogue, "UNLOCK TABLES").await;
    assert_eq!(renew(&a, &claim, None).await, RenewalOutcome::Held);
}

pub(crate) async fn a_cancelled_call_does_not_delay_the_next_one(fixture: &LockFixture) {
    let a = fixture.holder("a").await;
    let (x, y) = (
        acquire(&a, &pod("x")).await.unwrap(),
        acquire(&a, &pod("y")).await.unwrap(),
    );
    let mut rogue = fixture.sql().await;
    execute(&mut rogue, "START TRANSACTION").await;
    execute(&mut rogue, "UPDATE distributed_lock SET node = 'r' WHERE id = 'pod/x'").await;
    tokio::select! {
        _ = renew(&a, &x, None) => panic!("the row is locked"),
        _ = running(fixture, "UPDATE JSON_TABLE") => {}
    }
    let started = Instant::now();
    assert_eq!(renew(&a, &y, None).await, RenewalOutcome::Held);
    assert!(
        started.elapsed() < Duration::from_millis(900),
        "{:?}",
        started.elapsed()
    );
    execute(&mut rogue, "ROLLBACK").await;
}

pub(crate) async fn a_statement_locks_only_the_rows_it_names(fixture: &LockFixture) {
    let (a, b) = (fixture.holder("a").await, fixture.holder("b").await);
    let renewals = hold(&a, 300).await;
    // Somebody works on every other row and on the gaps between them; a's statements name the rest.
    let mut rogue = fixture.sql().await;
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
            .all(|outcome| *outcome == RenewalOutcome::Held)
    );
    let rows: Vec<_> = named
        .iter()
        .map(|renewal| (renewal.key.clone(), renewal.fence))
        .collect();
    b.request_handover(&rows).await.unwrap();
    a.decline_handover(&rows).await.unwrap();
    let keys: Vec<LockKey> = rows.into_iter().map(|(key, _)| key).collect();
    assert_eq!(b.delete_rows(&keys).await.unwrap(), 0);
    assert!(
        started.elapsed() < Duration::from_millis(900),
        "something waited: {:?}",
        started.elapsed()
    );
    execute(&mut rogue, "ROLLBACK").await;
}

pub(crate) async fn a_renewal_that_arrives_after_a_newer_one_stores_no_checkpoint(fixture: &LockFixture) {
    let a = fixture.holder("a").await;
    let claim = acquire(&a, &pod("x")).await.unwrap();
    assert_eq!(renew(&a, &claim, Some(b"second")).await, RenewalOutcome::Held);
    // As if the stored renewal had been sent after the next one.
    execute(
        &mut fixture.sql().await,
        "UPDATE distributed_lock SET sent = sent + 3600000000",
    )
    .await;
    assert_eq!(
        renew(&a, &claim, Some(b"1st")).await,
        RenewalOutcome::Held,
        "the claim itself is good"
    );
    assert_eq!(a.table().await.unwrap().rows[&claim.key].checkpoint_len, 6);
}
