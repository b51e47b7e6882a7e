//! Faults of one replica alone: blocked threads, a checkpoint that was never stored, a file that is locked or full. The
//! stores are files or one of the databases.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use clap::Parser;
use kube_sim::SimCluster;
use podlog::cli::{Cli, Command};
use podlog::config::{Config, Passwords, checked};
use podlog::domain::Checkpoint;
use rustix::process::{Resource, Rlimit, prlimit};
use sqlx::{Connection, Executor, Row, SqliteConnection};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::audit::{audit, written};
use crate::database::{Claim, Database, on_both, until};
use crate::fixture::{Fixture, PATIENCE};
use crate::proxy::ProxyMode;
use crate::replica::TTL;
use crate::servers;
use crate::stored_files::{records, stored};

/// The settings that this command line means.
fn config(args: &[String]) -> Config {
    let cli = Cli::try_parse_from(args).unwrap();
    let Command::Run(run) = cli.command else {
        panic!("{args:?}")
    };
    checked(&run, &Passwords::default()).unwrap()
}

pub(crate) fn threads_blocked_for_longer_than_a_ttl_cost_no_claim() {
    on_both(async |database| {
        let mut fixture = Fixture::new(database, 8).await;
        // A replica in this process, on a runtime of its own with two threads.
        let inside = crate::database::runtime();
        let (stop, mut replica) = (CancellationToken::new(), JoinSet::new());
        let config = config(&fixture.args("a", database.url.as_str(), database.url.as_str()));
        replica.spawn_on(podlog::run(config, stop.clone()), inside.handle());
        fixture.begin(1).await;
        fixture.all_held_by(&["a"]).await;
        fixture.progress(2).await;
        let before = database.claims().await;
        let (mut stuck, (told, free)) = (JoinSet::new(), mpsc::channel());
        for _ in 0..2 {
            let told = told.clone();
            let sleep = async move {
                std::thread::sleep(TTL + Duration::from_secs(1));
                told.send(()).ok();
            };
            stuck.spawn_on(sleep, inside.handle());
        }
        // Everything sent to the server before is stored by then.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let stored = fixture.stored().await;
        tokio::time::sleep(TTL.saturating_sub(Duration::from_secs(1))).await;
        assert_eq!(database.claims().await, before, "claims were not renewed");
        let now = fixture.stored().await;
        assert!(free.try_recv().is_err(), "the threads are not blocked any more");
        assert_eq!(now, stored, "blocked threads have written");
        while stuck.join_next().await.is_some() {}
        fixture.progress(2).await;
        assert_eq!(database.claims().await, before, "claims have moved");
        fixture.finish_exactly("threads blocked for a ttl").await;
        stop.cancel();
        replica.join_next().await.unwrap().unwrap().unwrap();
        inside.shutdown_background();
    });
}

pub(crate) fn without_a_transactional_sink_a_lost_checkpoint_causes_duplicates_with_equal_ids() {
    on_both(async |database| {
        let mut fixture = Fixture::new(database, 8).await;
        let folder = fixture.dir.path().join("records");
        let sink = format!("file://{}?fsync=never", folder.display());
        let mut a = fixture
            .replica_with("a", |settings| settings.sink.clone_from(&sink))
            .await;
        let b = fixture
            .replica_with("b", |settings| settings.sink.clone_from(&sink))
            .await;
        fixture.begin(2).await;
        fixture.all_held_by(&["a", "b"]).await;
        let lines = || records(&folder).values().map(Vec::len).min().unwrap_or(0) * records(&folder).len();
        until("all pods are written", PATIENCE, async || {
            (lines() >= 8 * 10).then_some(()).ok_or(String::new())
        })
        .await;
        let held = database.claims().await;
        // It writes until its deadline and cannot store a checkpoint; then it dies.
        a.lock.set(ProxyMode::Frozen);
        tokio::time::sleep(Duration::from_secs(2)).await;
        a.kill().await;
        let unknown = beyond_checkpoints(database, &folder, &held).await;
        fixture.all_held_by(&["b"]).await;
        fixture.quiet().await;
        let wrote = written(&fixture.sim);
        let total: usize = wrote.values().map(Vec::len).sum();
        until("everything is written", PATIENCE, async || {
            let ids: BTreeSet<String> = records(&folder).into_values().flatten().map(|(id, _)| id).collect();
            (ids.len() >= total)
                .then_some(())
                .ok_or_else(|| format!("{} of {total}", ids.len()))
        })
        .await;
        let twice = repeated_records(&fixture.sim, &folder);
        println!(
            "lost checkpoint: duplicates per pod {:?}",
            twice.values().collect::<Vec<_>>()
        );
        assert!(!twice.is_empty());
        assert_eq!(
            twice, unknown,
            "what was delivered twice, and what was delivered after the checkpoint"
        );
        drop(b);
    });
}

/// How many records of each pod are a repetition: one with the id and the message of an earlier one. Without them each
/// pod has each of its lines once and in order.
fn repeated_records(sim: &SimCluster, folder: &Path) -> BTreeMap<String, usize> {
    let mut twice = BTreeMap::new();
    for (uid, records) in records(folder) {
        let mut seen = BTreeMap::new();
        let mut first = Vec::new();
        for (id, message) in records {
            match seen.insert(id.clone(), message.clone()) {
                None => first.push(message),
                Some(before) => {
                    assert_eq!(before, message, "two lines have the id {id}");
                    *twice.entry(uid.clone()).or_insert(0) += 1;
                }
            }
        }
        assert_eq!(first, messages(sim, &uid));
    }
    twice
}

/// How many of the records in this folder the checkpoints in the table do not know of; of the pods that `a` holds.
async fn beyond_checkpoints(
    database: &Database,
    folder: &Path,
    held: &BTreeMap<String, Claim>,
) -> BTreeMap<String, usize> {
    let query =
        "SELECT CONVERT(SUBSTRING(id, 5) USING utf8mb4), checkpoint FROM distributed_lock WHERE id LIKE 'pod/%'";
    let rows = database.rows(query).await;
    let known = rows.iter().map(|row| {
        let checkpoint = Checkpoint::decode(&row.get::<Vec<u8>, _>(1)).unwrap();
        let position = checkpoint.containers.get("app").and_then(|mark| mark.position);
        let position = position.map(|position| (position.time.0, position.ordinal));
        (row.get::<String, _>(0), position)
    });
    let known: BTreeMap<_, _> = known.collect();
    // The end of an id is the line's time and its number among those of that time.
    let place = |id: &str| {
        let mut parts = id.rsplit('/');
        let ordinal: u32 = parts.next().unwrap().parse().unwrap();
        (parts.next().unwrap().parse::<i64>().unwrap(), ordinal)
    };
    let of_a = records(folder)
        .into_iter()
        .filter(|(uid, _)| held[uid].holder.as_deref() == Some("a"));
    let beyond = of_a.map(|(uid, records)| {
        let beyond = records.iter().filter(|(id, _)| Some(place(id)) > known[&uid]).count();
        (uid, beyond)
    });
    beyond.filter(|(_, beyond)| *beyond > 0).collect()
}

/// What the only container of a pod has written.
fn messages(sim: &SimCluster, uid: &str) -> Vec<String> {
    let truth = sim.written().into_iter().find(|truth| truth.instance.uid == uid);
    let lines = truth.unwrap().lines.into_iter();
    lines
        .map(|line| String::from_utf8_lossy(&line.message).into_owned())
        .collect()
}

/// Waits until this many more lines are stored of each pod.
async fn progress(url: &str, pods: usize, lines: usize) {
    let counts = async || -> BTreeMap<_, _> {
        let all = stored(url).await;
        all.into_iter().map(|(key, stream)| (key, stream.lines.len())).collect()
    };
    let before = counts().await;
    until("every stream continues", PATIENCE, async || {
        let now = counts().await;
        let on = now
            .iter()
            .filter(|(key, count)| **count >= before.get(key).unwrap_or(&0) + lines)
            .count();
        (on == pods).then_some(()).ok_or_else(|| format!("{on} of {pods} do"))
    })
    .await;
}

/// Two replicas on one file, to which something happens for longer than a ttl.
fn on_a_file(what: &str, folder: Option<&Path>, happen: impl AsyncFnOnce(&str, [&crate::replica::Replica; 2])) {
    crate::database::runtime().block_on(async {
        let nowhere = Database::nowhere();
        let mut fixture = Fixture::new(&nowhere, 6).await;
        let folder = folder.unwrap_or_else(|| fixture.dir.path());
        let url = format!("sqlite://{}", folder.join("podlog.db").display());
        let start = async |name| {
            let change = |settings: &mut crate::replica::ReplicaSettings| {
                (settings.lock, settings.sink) = (url.clone(), url.clone());
            };
            fixture.replica_with(name, change).await
        };
        let (a, b) = (start("a").await, start("b").await);
        until("both work", PATIENCE, async || {
            (a.said("collecting") + b.said("collecting") == 2)
                .then_some(())
                .ok_or_else(|| a.log_text() + &b.log_text())
        })
        .await;
        fixture.write();
        progress(&url, 6, 3).await;
        happen(&url, [&a, &b]).await;
        progress(&url, 6, 3).await;
        fixture.quiet().await;
        let wrote = written(&fixture.sim);
        let sum = until("everything is stored", PATIENCE, async || {
            let (sum, findings) = audit(&wrote, &stored(&url).await);
            (sum.lost == 0)
                .then_some((sum, findings))
                .ok_or_else(|| sum.to_string())
        });
        let (sum, findings) = sum.await;
        println!("{what}: {sum}");
        assert!(sum.is_clean(), "{sum}: {findings:#?}");
    });
}

pub(crate) fn a_database_file_locked_for_longer_than_a_ttl_only_delays_collection() {
    on_a_file("SQLite locked", None, async |url, [a, b]| {
        let mut person = SqliteConnection::connect(url).await.unwrap();
        person.execute("BEGIN IMMEDIATE").await.unwrap();
        tokio::time::sleep(TTL + Duration::from_secs(1)).await;
        person.execute("ROLLBACK").await.unwrap();
        for replica in [a, b] {
            assert_eq!(replica.said("claims cannot be renewed"), 1, "{}", replica.log_text());
        }
    });
}

/// A file system of a few megabytes in memory; goes when dropped.
struct Disk(tempfile::TempDir);

impl Disk {
    /// None where nothing may be mounted.
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = std::process::Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", "size=64m", "podlog-disk"])
            .arg(folder.path());
        mount
            .status()
            .is_ok_and(|status| status.success())
            .then_some(Self(folder))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A replica that is being killed may still have its files open; they go with it.
        std::process::Command::new("umount")
            .arg("--lazy")
            .arg(self.0.path())
            .status()
            .ok();
    }
}

pub(crate) fn a_full_disk_under_a_database_file_only_delays_collection() {
    let Some(disk) = Disk::mount() else {
        return servers::skip("no file system may be mounted here");
    };
    let folder = disk.0.path();
    on_a_file("SQLite on a full disk", Some(folder), async |_, replicas| {
        let filler = folder.join("filler");
        let full = std::io::copy(&mut std::io::repeat(0), &mut std::fs::File::create(&filler).unwrap());
        assert_eq!(full.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
        tokio::time::sleep(TTL + Duration::from_secs(1)).await;
        std::fs::remove_file(filler).unwrap();
        for replica in replicas {
            let log = replica.log_text();
            let said = |what: &[&str]| {
                let is_said = |line: &str| what.iter().all(|part| line.contains(part));
                assert!(log.lines().any(is_said), "{what:?}: {log}");
            };
            said(&["claims cannot be renewed"]);
            said(&["the lock store ", "cannot grow: the disk or a quota is full"]);
            said(&["the sink takes no records for now"]);
            said(&["the sink ", "cannot grow: the disk or a quota is full"]);
        }
    });
}

pub(crate) fn a_database_file_that_cannot_grow_only_delays_collection() {
    on_a_file("SQLite in a file that may not grow", None, async |_, replicas| {
        // Not what a full disk answers, but an error of the disk.
        let limit = |bytes: Option<u64>| {
            for replica in replicas {
                let limit = Rlimit {
                    current: bytes,
                    maximum: None,
                };
                prlimit(Some(replica.pid()), Resource::Fsize, limit).unwrap();
            }
        };
        limit(Some(16 << 10));
        tokio::time::sleep(TTL + Duration::from_secs(1)).await;
        limit(None);
        let said = |what: &str| replicas.iter().map(|replica| replica.said(what)).sum::<usize>();
        assert!(
            said("the sink takes no records for now") > 0,
            "{}",
            replicas[0].log_text()
        );
        assert!(said("claims cannot be renewed") > 0, "{}", replicas[0].log_text());
    });
}
