//! Five hundred pods write while the number of replicas changes from three to six and down to two, and these two are
//! then restarted one after the other. Pods are drained before they are handed over, so no sink gets a line twice and
//! none is lost. How many pods move is tested in virtual time in `tests/it/scaling.rs`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::audit::{audit, written};
use crate::database::{Database, on_both, runtime, until, within};
use crate::fixture::{Fixture, PATIENCE};
use crate::replica::{PATIENT, Replica, ReplicaSettings};
use crate::servers;
use crate::stored_files::{records, records_of, stored};

const PODS: usize = 500;

/// Two lines a second and pod would keep two processors busy with nothing but the test.
const EVERY: Duration = Duration::from_secs(2);

/// Waits until these replicas hold all pods, each its share within a tenth.
async fn even(database: &Database, names: &[&str]) {
    let fair = PODS as f64 / names.len() as f64;
    until(&format!("{names:?} have their shares"), PATIENCE, async || {
        let shares = database.shares().await;
        let near = |share: &usize| (*share as f64 - fair).abs() <= fair / 10.0;
        let all = shares.values().sum::<usize>() == PODS && shares.keys().eq(names.iter().copied());
        (all && shares.values().all(near))
            .then_some(())
            .ok_or_else(|| format!("{shares:?}"))
    })
    .await;
}

/// Asks replicas to end, all at the same time, and waits until they have.
async fn end(replicas: &mut [Replica]) {
    replicas.iter().for_each(|replica| replica.signal(Signal::TERM));
    for replica in replicas {
        let status = replica.ended().await;
        assert!(
            status.success(),
            "{} ended with {status}: {}",
            replica.name,
            replica.log_text()
        );
    }
}

/// Three replicas, six, two, and two others. Afterwards the pods write nothing, and the last two replicas still run.
async fn change_hands(fixture: &mut Fixture<'_>, sink: Option<&str>) -> Vec<Replica> {
    let database = fixture.database;
    fixture.every = EVERY;
    let start = async |fixture: &Fixture<'_>, name: &str| {
        let place = |settings: &mut ReplicaSettings| {
            settings.times = &PATIENT;
            if let Some(sink) = sink {
                sink.clone_into(&mut settings.sink);
            }
        };
        fixture.replica_with(name, place).await
    };
    let mut all = Vec::new();
    for name in ["a", "b", "c"] {
        all.push(start(fixture, name).await);
    }
    fixture.begin(3).await;
    even(database, &["a", "b", "c"]).await;
    let three = database.claims().await;
    let begun = Instant::now();
    for name in ["d", "e", "f"] {
        all.push(start(fixture, name).await);
    }
    even(database, &["a", "b", "c", "d", "e", "f"]).await;
    let took = begun.elapsed();
    let six = database.claims().await;
    let moved = six
        .iter()
        .filter(|(uid, claim)| claim.fence != three[*uid].fence)
        .count();
    // A replica that gets no CPU for a ttl loses its claims, and those are claimed again whatever the plan says.
    let expired = [
        "the claim was not renewed in time",
        "the claim has expired, was released by hand",
    ];
    let lost = |replica: &Replica| expired.iter().map(|message| replica.said(message)).sum::<usize>();
    let lost: usize = all.iter().map(lost).sum();
    println!("to six after {took:?}: {moved} pods moved where 250 must, {lost} claims expired");
    assert!(
        moved <= PODS / 2 * 12 / 10 + lost,
        "{moved} moved, {lost} claims expired"
    );
    let mut stay = all.split_off(4);
    end(&mut all).await;
    even(database, &["e", "f"]).await;
    for name in ["g", "h"] {
        stay.push(start(fixture, name).await);
        until("it works", PATIENCE, async || {
            let alive = database.replicas().await;
            (alive == 3).then_some(()).ok_or_else(|| format!("{alive} are"))
        })
        .await;
        end(&mut stay[..1]).await;
        stay.remove(0);
    }
    fixture.all_held_by(&["g", "h"]).await;
    fixture.quiet().await;
    stay
}

pub(crate) fn five_hundred_pods_change_holders_and_mysql_has_each_line_once() {
    on_both(async |database| {
        let mut fixture = Fixture::new(database, PODS).await;
        let _replicas = change_hands(&mut fixture, None).await;
        fixture.finish_exactly("3, 6, 2 and 2 other replicas").await;
    });
}

/// Runs a test in a database of its own for the claims alone.
fn on_mysql(test: impl AsyncFnOnce(&Database)) {
    if let Some(server) = servers::named("PODLOG_TEST_MYSQL") {
        let outcome = runtime().block_on(within(&server, test));
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }
}

pub(crate) fn five_hundred_pods_change_holders_and_sqlite_has_each_line_once() {
    on_mysql(async |database| {
        let mut fixture = Fixture::new(database, PODS).await;
        let url = format!("sqlite://{}", fixture.dir.path().join("records.db").display());
        let _replicas = change_hands(&mut fixture, Some(&url)).await;
        let wrote = written(&fixture.sim);
        let (sum, findings) = until("everything is stored", PATIENCE, async || {
            let (sum, findings) = audit(&wrote, &stored(&url).await);
            (sum.lost == 0)
                .then_some((sum, findings))
                .ok_or_else(|| sum.to_string())
        })
        .await;
        println!("3, 6, 2 and 2 other replicas, SQLite: {sum}");
        assert!(sum.is_clean(), "{sum}: {findings:#?}");
    });
}

/// Compares with what was written: by pod, the messages in the order in which they were delivered.
async fn each_once(fixture: &Fixture<'_>, what: &str, delivered: impl Fn() -> BTreeMap<String, Vec<(String, String)>>) {
    let mut wrote = BTreeMap::new();
    for truth in fixture.sim.written() {
        let lines = truth.lines.iter();
        let lines = lines.map(|line| String::from_utf8_lossy(&line.message).into_owned());
        wrote.insert(truth.instance.uid.clone(), lines.collect::<Vec<_>>());
    }
    let total: usize = wrote.values().map(Vec::len).sum();
    let found = until("everything is delivered", PATIENCE, async || {
        let found = delivered();
        let lines: usize = found.values().map(Vec::len).sum();
        (lines >= total)
            .then_some(found)
            .ok_or_else(|| format!("{lines} of {total}"))
    })
    .await;
    println!("3, 6, 2 and 2 other replicas, {what}: {total} lines");
    for (uid, lines) in wrote {
        let messages: Vec<&String> = found[&uid].iter().map(|(_, message)| message).collect();
        assert!(messages.iter().copied().eq(&lines), "{uid}: {messages:?} of {lines:?}");
    }
}

pub(crate) fn five_hundred_pods_change_holders_and_the_files_have_each_line_once() {
    on_mysql(async |database| {
        let mut fixture = Fixture::new(database, PODS).await;
        let folder = fixture.dir.path().join("records");
        let sink = format!("file://{}?fsync=never", folder.display());
        let _replicas = change_hands(&mut fixture, Some(&sink)).await;
        each_once(&fixture, "files", || records(&folder)).await;
    });
}

pub(crate) fn five_hundred_pods_change_holders_and_each_line_is_printed_once() {
    on_mysql(async |database| {
        let mut fixture = Fixture::new(database, PODS).await;
        let replicas = change_hands(&mut fixture, Some("stdout://")).await;
        // In this order each pod went from one to the next, if it did.
        let printed = || {
            let mut all: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
            for name in ["a", "b", "c", "d", "e", "f", "g", "h"] {
                let text = std::fs::read_to_string(fixture.dir.path().join(format!("{name}.out"))).unwrap();
                for (pod, record) in records_of(&text) {
                    all.entry(pod).or_default().push(record);
                }
            }
            // The same line twice would stay twice.
            let number = |message: &str| message.rsplit(' ').next().unwrap().parse::<u64>().unwrap();
            all.values_mut()
                .for_each(|records| records.sort_by_key(|(_, message)| number(message)));
            all
        };
        each_once(&fixture, "standard output", printed).await;
        drop(replicas);
    });
}
