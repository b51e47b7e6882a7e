//! Replicas whose lock store, sink or API server is unavailable, silent, slow or restored to an earlier state. They are
//! observed from outside: in the tables, at the proxies, and by the audit.

use std::time::{Duration, Instant};

use sqlx::MySqlConnection;

use crate::database::{execute, on_both};
use crate::fixture::{Fixture, PATIENCE};
use crate::proxy::ProxyMode;
use crate::replica::{DEADLINE, Replica, ReplicaSettings, SELDOM, TAKEOVER, TTL};
use crate::silence::{BUSY, SILENCE, assert_silent, falls_silent, sent, writes_last};

pub(crate) fn a_replica_cut_off_from_its_claims_stops_writing_before_others_may_take_them() {
    on_both(async |database| {
        let mut fixture = Fixture::new(database, 8).await;
        let [mut a, mut b, _c] = fixture.replicas(["a", "b", "c"]).await;
        fixture.progress(2).await;
        let claims = database.claims().await;
        a.lock.set(ProxyMode::Refused);
        b.lock.set(ProxyMode::Frozen);
        let (refused, frozen, took) = tokio::join!(
            falls_silent(&fixture, &claims, &a),
            falls_silent(&fixture, &claims, &b),
            fixture.all_held_by(&["c"])
        );
        println!("cut off: silent after {refused:?} and {frozen:?}, taken over after {took:?}");
        assert!(refused.max(frozen) < DEADLINE + BUSY, "{refused:?}, {frozen:?}");
        assert!(refused.max(frozen) < took && took < TAKEOVER, "{took:?}");
        fixture.progress(2).await;
        // It is the lock store that is away, not the sink: they could have written and did not.
        assert_silent(&sent(&[&a, &b], SILENCE).await);
        a.lock.set(ProxyMode::Open);
        b.lock.set(ProxyMode::Open);
        fixture.all_held_by(&["a", "b", "c"]).await;
        fixture.progress(2).await;
        assert!(a.is_running() && b.is_running());
        fixture.finish_exactly("cut off from the lock store").await;
    });
}

pub(crate) fn while_the_database_is_unavailable_nobody_writes_and_nothing_is_lost() {
    on_both(async |database| {
        let mut fixture = Fixture::new(database, 9).await;
        let all = fixture.replicas(["a", "b", "c"]).await;
        fixture.progress(2).await;
        let claims = database.claims().await;
        let ways = [ProxyMode::Frozen, ProxyMode::Refused, ProxyMode::Frozen];
        // The claims first: a replica that wrote on would do so because its sink is still reachable.
        let away = Instant::now();
        all.iter().zip(ways).for_each(|(replica, way)| replica.lock.set(way));
        let silent =
            futures::future::join_all(all.iter().map(|replica| falls_silent(&fixture, &claims, replica))).await;
        println!("lock store unavailable for all: silent after {silent:?}");
        assert!(silent.iter().all(|silent| *silent < DEADLINE + BUSY), "{silent:?}");
        let stored = fixture.stored().await;
        let rest = (TTL + Duration::from_secs(1)).saturating_sub(away.elapsed());
        assert_silent(&sent(&all.each_ref(), rest).await);
        assert!(database.shares().await.is_empty(), "claims last longer than a ttl");
        assert_eq!(fixture.stored().await, stored, "somebody writes");
        // Then all of it, for as long again.
        all.iter().zip(ways).for_each(|(replica, way)| replica.sink.set(way));
        tokio::time::sleep((2 * TTL).saturating_sub(away.elapsed())).await;
        let back = Instant::now();
        for replica in &all {
            replica.lock.set(ProxyMode::Open);
            replica.sink.set(ProxyMode::Open);
        }
        fixture.progress(2).await;
        println!(
            "unavailable for two ttls: all streams continued {:?} after its return",
            back.elapsed()
        );
        fixture.finish_exactly("database unavailable for two ttls").await;
    });
}

pub(crate) fn a_sink_unavailable_for_longer_than_a_ttl_costs_no_claim_and_no_line() {
    on_both(async |database| {
        let mut fixture = Fixture::new(database, 8).await;
        let all = fixture.replicas(["a", "b"]).await;
        fixture.progress(2).await;
        let before = database.claims().await;
        all[0].sink.set(ProxyMode::Frozen);
        all[1].sink.set(ProxyMode::Refused);
        tokio::time::sleep(TTL + Duration::from_secs(1)).await;
        all.iter().for_each(|replica| replica.sink.set(ProxyMode::Open));
        assert_eq!(database.claims().await, before, "claims have moved");
        fixture.progress(2).await;
        assert_eq!(database.claims().await, before, "claims have moved");
        fixture.finish_exactly("sink away").await;
    });
}

pub(crate) fn a_slow_lock_store_costs_no_claim_and_one_beyond_the_deadline_counts_as_unavailable() {
    on_both(async |database| {
        let mut fixture = Fixture::new(database, 8).await;
        let [a, _b] = fixture.replicas(["a", "b"]).await;
        fixture.progress(2).await;
        let before = database.claims().await;
        // Two statements of two exchanges each, one for rows whose checkpoint has moved and one for the rest: 1.2 s.
        a.lock.delay(Duration::from_millis(150));
        tokio::time::sleep(TTL + Duration::from_secs(2)).await;
        assert_eq!(database.claims().await, before, "claims have moved");
        // Answers come after 3 s, which is too late for a statement, and the next comes over a new connection.
        a.lock.delay(Duration::from_millis(1600));
        let (silent, took) = tokio::join!(falls_silent(&fixture, &before, &a), fixture.all_held_by(&["b"]));
        println!("too slow: silent after {silent:?}, taken over after {took:?}");
        assert!(silent < DEADLINE + BUSY && silent < took, "{silent:?}, {took:?}");
        a.lock.delay(Duration::ZERO);
        fixture.all_held_by(&["a", "b"]).await;
        fixture.progress(2).await;
        fixture.finish_exactly("slow lock store").await;
    });
}

/// When this replica's own claims were renewed last, on the server's clock.
async fn renewed(sql: &mut MySqlConnection, replica: &Replica) -> String {
    let last = format!(
        "SELECT CAST(MAX(expires_at) AS CHAR) FROM distributed_lock WHERE id LIKE 'pod/%' AND owner LIKE '{}#%'",
        replica.name
    );
    let last = sqlx::query_scalar(sqlx::AssertSqlSafe(last));
    last.fetch_one(sql).await.unwrap()
}

/// Waits for the next renewal of this replica to take effect.
async fn is_renewed(sql: &mut MySqlConnection, replica: &Replica) {
    let before = renewed(sql, replica).await;
    let asked = Instant::now();
    while renewed(sql, replica).await == before {
        assert!(asked.elapsed() < PATIENCE, "{} renews nothing", replica.name);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) fn a_deadline_counts_from_when_a_renewal_was_sent_not_from_its_answer() {
    /// Between two renewals of one replica; as long as one may take.
    const RENEW: Duration = Duration::from_secs(3);
    on_both(async |database| {
        let mut fixture = Fixture::new(database, 8).await;
        let seldom = |settings: &mut ReplicaSettings| settings.times = &SELDOM;
        let (a, _b) = (fixture.replica_with("a", seldom).await, fixture.replica("b").await);
        fixture.begin(2).await;
        fixture.all_held_by(&["a", "b"]).await;
        fixture.progress(2).await;
        let claims = database.claims().await;
        let mut sql = database.sql().await;
        let at = loop {
            is_renewed(&mut sql, &a).await;
            let at = Instant::now();
            let until = async |time: Duration| tokio::time::sleep(time.saturating_sub(at.elapsed())).await;
            // The next one is sent 3 s later and answered 2 s after that, and none after it.
            until(RENEW.saturating_sub(Duration::from_millis(400))).await;
            a.lock.set(ProxyMode::Frozen);
            until(RENEW + Duration::from_secs(2)).await;
            a.lock.set(ProxyMode::Open);
            is_renewed(&mut sql, &a).await;
            until(RENEW + Duration::from_millis(2_600)).await;
            a.lock.set(ProxyMode::Frozen);
            // On a busy machine that may be too late to hold up the one after it.
            if at.elapsed() < RENEW + Duration::from_millis(2_800) {
                break at;
            }
            a.lock.set(ProxyMode::Open);
        };
        // The claims expire, and others write under larger ones, not before that answer came and a ttl has passed.
        let watch = RENEW + DEADLINE + Duration::from_secs(2);
        let frozen = at.elapsed();
        let silent = writes_last(&fixture, &claims, &a, watch.saturating_sub(frozen)).await;
        let silent = (frozen + silent).saturating_sub(RENEW);
        println!("silent {silent:?} after a renewal was sent whose answer took 2 s");
        assert!(silent < DEADLINE + BUSY, "{silent:?}");
        // Nor does it fall silent as if that renewal had failed.
        assert!(silent + RENEW > DEADLINE + BUSY, "{silent:?}");
        fixture.all_held_by(&["b"]).await;
        a.lock.set(ProxyMode::Open);
        fixture.all_held_by(&["a", "b"]).await;
        fixture.progress(2).await;
        fixture.finish_exactly("an answer that was late").await;
    });
}

pub(crate) fn an_open_transaction_of_a_person_affects_only_the_pod_whose_row_it_locks() {
    on_both(async |database| {
        let mut fixture = Fixture::new(database, 8).await;
        let _both = fixture.replicas(["a", "b"]).await;
        fixture.progress(2).await;
        let before = database.claims().await;
        let locked = before.keys().next().unwrap().clone();
        let mut person = database.sql().await;
        execute(&mut person, "START TRANSACTION").await;
        let lock = format!("SELECT * FROM distributed_lock WHERE id = 'pod/{locked}' FOR UPDATE");
        execute(&mut person, &lock).await;
        tokio::time::sleep(TTL + Duration::from_secs(3)).await;
        let mut now = database.claims().await;
        let lost = now.remove(&locked).unwrap();
        assert_eq!(lost.holder, None, "it could not be renewed");
        let mut others = before.clone();
        others.remove(&locked);
        assert_eq!(now, others, "other claims have moved");
        execute(&mut person, "ROLLBACK").await;
        fixture.all_held_by(&["a", "b"]).await;
        fixture.progress(2).await;
        fixture.finish_exactly("a person's transaction on a claim").await;
    });
}

pub(crate) fn a_database_restored_to_an_earlier_state_loses_nothing_and_stores_nothing_twice() {
    const TABLES: [&str; 4] = ["distributed_lock", "log_stream", "log_record", "log_gap"];
    on_both(async |database| {
        let mut fixture = Fixture::new(database, 8).await;
        let [mut a, b] = fixture.replicas(["a", "b"]).await;
        fixture.progress(3).await;
        let mut person = database.sql().await;
        execute(&mut person, "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ").await;
        execute(&mut person, "START TRANSACTION WITH CONSISTENT SNAPSHOT").await;
        // Copies of one moment: the tables are made by another connection, since making one ends a transaction.
        for table in TABLES {
            database
                .execute(&format!("CREATE TABLE old_{table} LIKE {table}"))
                .await;
        }
        execute(&mut person, "ROLLBACK").await;
        execute(&mut person, "START TRANSACTION").await;
        for table in TABLES {
            execute(
                &mut person,
                &format!("INSERT INTO old_{table} SELECT * FROM {table} LOCK IN SHARE MODE"),
            )
            .await;
        }
        execute(&mut person, "COMMIT").await;
        // Afterwards pods change hands under larger fences, and more is stored.
        a.kill().await;
        fixture.all_held_by(&["b"]).await;
        fixture.progress(3).await;
        let before = database.claims().await;
        // As a standby that takes over has nothing of what was written last, and no connection survives.
        b.lock.set(ProxyMode::Refused);
        b.sink.set(ProxyMode::Refused);
        execute(&mut person, "SET FOREIGN_KEY_CHECKS = 0").await;
        execute(&mut person, "START TRANSACTION").await;
        for table in TABLES {
            execute(&mut person, &format!("DELETE FROM {table}")).await;
            execute(&mut person, &format!("INSERT INTO {table} SELECT * FROM old_{table}")).await;
        }
        execute(&mut person, "COMMIT").await;
        b.lock.set(ProxyMode::Open);
        b.sink.set(ProxyMode::Open);
        fixture.all_held_by(&["b"]).await;
        fixture.progress(3).await;
        let restored = database.claims().await;
        // What b held then it still holds under its old fence; what a held then must have a new one.
        let taken = restored
            .iter()
            .filter(|(uid, claim)| claim.fence > before[*uid].fence)
            .count();
        println!("{taken} of {} pods were claimed anew", restored.len());
        assert!(taken > 0);
        fixture.finish_exactly("database restored to an earlier state").await;
    });
}

pub(crate) fn a_killed_or_frozen_api_server_only_delays_collection() {
    on_both(async |database| {
        let mut fixture = Fixture::new(database, 8).await;
        let _both = fixture.replicas(["a", "b"]).await;
        fixture.progress(2).await;
        let before = database.claims().await;
        for way in [ProxyMode::Refused, ProxyMode::Frozen] {
            fixture.api.set(way);
            tokio::time::sleep(Duration::from_secs(4)).await;
            fixture.api.set(ProxyMode::Open);
            let back = Instant::now();
            fixture.progress(2).await;
            println!(
                "API server {way:?} for 4 s: all streams continued {:?} after it was back",
                back.elapsed()
            );
        }
        fixture.api.cut();
        fixture.progress(2).await;
        assert_eq!(database.claims().await, before, "claims have moved");
        fixture.finish_exactly("API server away").await;
    });
}
