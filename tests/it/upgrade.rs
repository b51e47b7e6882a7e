//! Updates while replicas run: what this program says about tables of every earlier version, and that it keeps working
//! beside a newer program that has extended them.

use std::path::Path;
use std::process::Command;

use podlog::domain::{AfterRelease, BackendError, Fence, RenewalOutcome};
use podlog::locks::{self, LockUrl};
use podlog::sinks;
use sqlx::migrate::Migrator;
use sqlx::{Connection, MySqlConnection, SqliteConnection};

use crate::chunks::{TestLine, chunk, origin};
use crate::locks::fixture::{acquire, holder, pod, release, renew};
use crate::sinks::fixture::{SinkFixture, each_exact, unchanged};

const LINES: [TestLine<'static>; 3] = [(5, 0, b"a"), (6, 0, b"b"), (7, 0, b"c")];

/// What the two families of migrations are called, where they are noted, and what they make.
const LOCKS: (&str, &str) = ("locks", "podlog_locks_migrations");
const RECORDS: (&str, &str) = ("records", "podlog_records_migrations");
const TABLES: [&str; 5] = [
    "distributed_lock",
    "distributed_lock_fence",
    "log_stream",
    "log_record",
    "log_gap",
];

/// The tables of a database, as programs of several versions make and change them.
struct VersionedTables<'a>(&'a SinkFixture);

impl VersionedTables<'_> {
    fn lock(&self) -> LockUrl {
        self.0.url.parse().unwrap()
    }

    fn is_sqlite(&self) -> bool {
        self.0.name == "sqlite"
    }

    async fn empty(&self) {
        for view in ["log_line", "log_gaps"] {
            self.0.sql(&format!("DROP VIEW IF EXISTS {view}")).await;
        }
        for table in TABLES.iter().chain([&LOCKS.1, &RECORDS.1]) {
            self.0.sql(&format!("DROP TABLE IF EXISTS {table}")).await;
        }
    }

    /// The migrations of a family as the files have them.
    async fn migrator(&self, (folder, notes): (&str, &'static str)) -> Migrator {
        let database = if self.is_sqlite() { "sqlite" } else { "mysql" };
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("migrations")
            .join(database)
            .join(folder);
        let mut migrator = Migrator::new(path).await.unwrap();
        migrator.dangerous_set_table_name(notes);
        migrator.set_locking(false);
        migrator
    }

    /// Applies the migrations up to a version, as a program that had no later ones did.
    async fn apply(&self, family: (&str, &'static str), version: i64) {
        let migrator = self.migrator(family).await;
        if self.is_sqlite() {
            let mut conn = SqliteConnection::connect(&self.0.url).await.unwrap();
            migrator.run_direct(Some(version), &mut conn, false).await.unwrap();
        } else {
            let mut conn = MySqlConnection::connect(&self.0.url).await.unwrap();
            migrator.run_direct(Some(version), &mut conn, false).await.unwrap();
        }
    }

    /// Notes a migration that this program does not know.
    async fn note(&self, description: &str) {
        for (_, notes) in [LOCKS, RECORDS] {
            let row = format!(
                "INSERT INTO {notes} (version, description, success, checksum, execution_time) \
                 SELECT MAX(version) + 50, '{description}', TRUE, 'x', 1 FROM {notes}"
            );
            self.0.sql(&row).await;
        }
    }

    /// What a later version adds: a column in each table that earlier programs do not write.
    async fn extend(&self) {
        for table in TABLES {
            if self.is_sqlite() || table != "distributed_lock_fence" {
                self.0
                    .sql(&format!("ALTER TABLE {table} ADD COLUMN later TEXT NULL"))
                    .await;
            }
        }
        self.note("additive later").await;
    }

    /// `podlog run --no-migrate`, which must not get as far as the cluster.
    fn run(&self) -> (Option<i32>, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_podlog"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PODLOG_") || name == "RUST_LOG") {
            command.env_remove(name);
        }
        command.args(["run", "--no-migrate", "--http=off", "--kubeconfig=/nowhere"]);
        let output = command
            .env("PODLOG_LOCK", &self.0.url)
            .env("PODLOG_SINK", &self.0.url)
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    }

    async fn open_lock(&self, replica: &str) -> Result<(), String> {
        let opened = locks::open(&self.lock(), holder("here", replica)).await;
        opened.map(drop).map_err(|error| error.to_string())
    }

    async fn open_sink(&self) -> Result<(), String> {
        let (clock, metrics) = (podlog::clock::Clock::boottime(), podlog::metrics::Metrics::default());
        let opened = sinks::open(&self.0.parsed(), clock, &metrics, std::time::Duration::from_secs(5)).await;
        opened.map(drop).map_err(|error| error.to_string())
    }
}

#[tokio::test]
async fn tables_of_every_earlier_version_are_reported_and_then_migrated() {
    each_exact(async |database| {
        let tables = VersionedTables(database);
        for family in [LOCKS, RECORDS] {
            let versions: Vec<i64> = tables.migrator(family).await.iter().map(|one| one.version).collect();
            // Before the first, and each but the last.
            for version in [0].into_iter().chain(versions[..versions.len() - 1].iter().copied()) {
                tables.empty().await;
                locks::migrate(&tables.lock()).await.unwrap();
                if family == LOCKS {
                    tables.empty().await;
                    sinks::migrate(&database.parsed()).await.unwrap();
                }
                tables.apply(family, version).await;
                let (status, words) = tables.run();
                assert_eq!(status, Some(4), "{family:?} {version}: {words}");
                assert!(
                    words.contains("podlog migrate") && !words.contains("kubeconfig"),
                    "{words}"
                );
                locks::migrate(&tables.lock()).await.unwrap();
                sinks::migrate(&database.parsed()).await.unwrap();
                tables.open_lock("a").await.unwrap();
                tables.open_sink().await.unwrap();
                assert!(
                    tables.run().1.contains("kubeconfig"),
                    "the tables are no longer what stops it"
                );
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_migration_that_fails_is_refused_with_its_cause_and_is_then_reported_as_interrupted() {
    each_exact(async |database| {
        let tables = VersionedTables(database);
        if tables.is_sqlite() {
            return; // All of a migration is in a transaction.
        }
        tables.empty().await;
        for table in ["distributed_lock", "log_stream"] {
            database.sql(&format!("CREATE TABLE {table} (another INT)")).await;
        }
        for says in ["already exists", "interrupted"] {
            let locks = locks::migrate(&tables.lock()).await.unwrap_err();
            let records = sinks::migrate(&database.parsed()).await.unwrap_err();
            for error in [locks, records] {
                let refused = matches!(error, BackendError::Refused(_));
                let text = error.to_string();
                assert!(
                    refused && text.contains(says) && text.contains("podlog migrate"),
                    "{error:?}"
                );
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_replica_keeps_working_beside_a_newer_one_that_extended_the_tables() {
    each_exact(async |database| {
        let tables = VersionedTables(database);
        locks::migrate(&tables.lock()).await.unwrap();
        let (old, sink) = (
            locks::open(&tables.lock(), holder("here", "old")).await.unwrap(),
            database.open().await,
        );
        let stream = origin("side-by-side");
        let claim = acquire(&old, &pod("x")).await.unwrap();
        sink.sink.open(&stream, Fence(1)).await.unwrap();
        let first = chunk(&stream, 1, None, &LINES[..1]);
        let second = chunk(&stream, 1, first.end, &LINES[1..2]);
        let third = chunk(&stream, 1, second.end, &LINES[2..]);
        assert!(sink.sink.write(std::slice::from_ref(&first)).await[0].is_ok());

        tables.extend().await;
        database.sql("UPDATE distributed_lock SET later = 'kept'").await;
        // The old one continues with its connections: it renews, claims, writes and reads.
        assert_eq!(renew(&old, &claim, Some(b"one")).await, RenewalOutcome::Held);
        let other = acquire(&old, &pod("y")).await.unwrap();
        assert!(sink.sink.write(std::slice::from_ref(&second)).await[0].is_ok());
        assert_eq!(old.table().await.unwrap().rows.len(), 2);

        // It may also be restarted, and its migration changes nothing.
        locks::migrate(&tables.lock()).await.unwrap();
        sinks::migrate(&database.parsed()).await.unwrap();
        let again = locks::open(&tables.lock(), holder("here", "again")).await.unwrap();
        let reopened = database.open().await;
        assert_eq!(acquire(&again, &pod("x")).await, None, "the pod is held by the first");
        release(&old, claim, Some(b"two"), AfterRelease::Free).await;
        release(&old, other, None, AfterRelease::Deleted).await;
        let taken = acquire(&again, &pod("x")).await.unwrap();
        assert_eq!(taken.checkpoint, b"two");
        assert_eq!(reopened.sink.open(&stream, Fence(2)).await.unwrap(), second.end);
        let third = std::sync::Arc::new(podlog::domain::Chunk {
            fence: Fence(2),
            ..(*third).clone()
        });
        assert!(reopened.sink.write(&[third]).await[0].is_ok());
        assert_eq!(database.read(&stream).await, unchanged(&LINES));
        let kept = database
            .rows(["later"], "FROM distributed_lock WHERE later IS NOT NULL")
            .await;
        assert_eq!(kept, [[Some("kept".to_owned())]], "what the newer one wrote stays");
    })
    .await;
}

#[tokio::test]
async fn tables_changed_by_a_newer_version_prevent_a_start_but_stop_no_running_replica() {
    each_exact(async |database| {
        let tables = VersionedTables(database);
        locks::migrate(&tables.lock()).await.unwrap();
        let old = locks::open(&tables.lock(), holder("here", "old")).await.unwrap();
        let claim = acquire(&old, &pod("x")).await.unwrap();
        tables.note("split table").await;
        let refusals = [
            tables.open_lock("b").await,
            tables.open_sink().await,
            locks::migrate(&tables.lock()).await.map_err(|error| error.to_string()),
            sinks::migrate(&database.parsed())
                .await
                .map_err(|error| error.to_string()),
        ];
        for refusal in refusals {
            let words = refusal.unwrap_err();
            assert!(words.contains("newer podlog") && words.lines().count() == 1, "{words}");
        }
        assert_eq!(renew(&old, &claim, None).await, RenewalOutcome::Held);
    })
    .await;
}
