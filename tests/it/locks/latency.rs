//! How long the statements take. Prints measurements and asserts nothing. Run by hand:
//! `cargo test --test it locks::latency -- --ignored --nocapture --test-threads 1`

use std::time::{Duration, Instant};

use podlog::domain::{AfterRelease, Release, Renewal};

use crate::locks::fixture::{LockFixture, StoreKind, renewal, requests, run};

/// The median of eleven.
async fn median(mut work: impl AsyncFnMut()) -> Duration {
    let mut times = Vec::new();
    for _ in 0..11 {
        let started = Instant::now();
        work().await;
        times.push(started.elapsed());
    }
    times.sort();
    times[5]
}

async fn figures(fixture: &LockFixture) {
    let a = fixture.holder("a").await;
    let thousand = requests(1000);
    let mut fresh = Vec::new();
    for _ in 0..5 {
        let started = Instant::now();
        let claims = a.acquire(&thousand).await.unwrap();
        fresh.push(started.elapsed());
        let give = |claim| Release {
            claim,
            checkpoint: None,
            after: AfterRelease::Deleted,
        };
        a.release(&claims.into_iter().map(give).collect::<Vec<_>>())
            .await
            .unwrap();
    }
    fresh.sort();
    println!("acquire 1000 fresh rows: {:?}", fresh[2]);
    let mut claims = a.acquire(&thousand).await.unwrap();
    let again = median(async || claims = a.acquire(&thousand).await.unwrap()).await;
    println!("acquire 1000 existing rows: {again:?}");
    let plain: Vec<Renewal> = claims
        .iter()
        .map(|claim| renewal(&claim.key, claim.fence, None))
        .collect();
    println!(
        "renew 1000 without checkpoints: {:?}",
        median(async || drop(a.renew(&plain).await.unwrap())).await
    );
    for size in [300, 3000] {
        let checkpoint = vec![b'x'; size];
        let moved: Vec<Renewal> = claims
            .iter()
            .map(|claim| renewal(&claim.key, claim.fence, Some(&checkpoint)))
            .collect();
        let time = median(async || drop(a.renew(&moved).await.unwrap())).await;
        println!("renew 1000 with checkpoints of {size} bytes: {time:?}");
    }
    println!(
        "renew 1 without checkpoint: {:?}",
        median(async || drop(a.renew(&plain[..1]).await.unwrap())).await
    );
    let b = fixture.holder("b").await;
    println!(
        "look at 1000 held rows: {:?}",
        median(async || drop(b.acquire(&thousand).await.unwrap())).await
    );
    b.acquire(&requests(2000)).await.unwrap();
    println!(
        "table of 2000 rows: {:?}",
        median(async || drop(a.table().await.unwrap())).await
    );
}

#[test]
#[ignore = "measures"]
fn latency_in_memory() {
    run(StoreKind::Memory, "figures", figures);
}

#[test]
#[ignore = "measures"]
fn latency_on_sqlite() {
    run(StoreKind::Sqlite, "figures", figures);
}

#[test]
#[ignore = "measures"]
fn latency_on_mysql() {
    run(StoreKind::MySql, "figures", figures);
}

#[test]
#[ignore = "measures"]
fn latency_on_mariadb() {
    run(StoreKind::MariaDb, "figures", figures);
}
