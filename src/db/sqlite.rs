//! `SQLite` files: opening one, what its errors mean, and what `podlog check` finds out about it.
//!
//! Errors are told apart by their result code. Only code 1, which stands for any error in a statement, is told apart by its
//! text. No file is created but by a migration.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::error::BoxDynError;
use sqlx::sqlite::{SqliteArguments, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{
    Arguments as _, AssertSqlSafe, ConnectOptions, Connection, Error, Executor, Sqlite, query_scalar_with, query_with,
};
use tokio::time::{Instant, sleep, timeout};

use super::database::{Database, DatabaseKind, DiagnoseOptions, ErrorClass, Purpose, Work};
use super::diagnose::{CONNECTION, Diagnosis, MIGRATE, TABLES, WRITING, skipped};
use super::migrate::apply;
use super::statement::{Execute, Value};
use super::version::AppliedMigration;
use crate::domain::{BackendError, Finding, Outcome};

/// Takes the write lock when the transaction begins. Taking it later fails at once if another process wrote in between.
pub(crate) const BEGIN: &str = "BEGIN IMMEDIATE";

/// The pause before a busy file is opened again: shorter than creating the tables takes (some 50 ms).
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// How long opening the file may take.
const OPENING: Duration = Duration::from_secs(10);
const MIGRATION: Duration = Duration::from_secs(30);

/// `SQLITE_BUSY`.
const BUSY: u32 = 5;

impl DatabaseKind for Sqlite {
    type Location = PathBuf;
    /// How long a statement waits for another process's transaction: less than the deadline of the statement, so that the
    /// answer is "busy" and the connection can be used again.
    type Limits = Duration;
    type Requirements = ();
    type Server = ();

    const BEGIN: &'static str = BEGIN;
    const RECONNECT_PAUSES: (Duration, Duration) = (Duration::ZERO, Duration::ZERO);
    const REFUSED_PAUSES: (Duration, Duration) = Self::RECONNECT_PAUSES;
    const MIGRATION_LIMITS: Duration = Duration::from_secs(20);
    const MIGRATION: Duration = MIGRATION;
    const ATOMIC_MIGRATIONS: bool = true;

    /// Opens the file. A migration creates it if it does not exist.
    async fn connect(
        db: &Database<Self>,
        busy: &Duration,
        purpose: Purpose,
    ) -> Result<(SqliteConnection, ()), BackendError> {
        let create = purpose == Purpose::Migrate;
        check_path(db, create)?;
        let options = options(db, *busy).create_if_missing(create);
        // The last attempt may wait for `busy` itself, and callers wait for 1.5 times `busy`.
        let give_up = Instant::now() + *busy / 4;
        let opening = async {
            loop {
                match options.connect().await {
                    Ok(conn) => return Ok((conn, ())),
                    // While another process writes a file that is not in WAL mode yet, `SQLite` refuses the change to WAL
                    // mode at once instead of waiting for `busy`. Processes that create the file together meet there.
                    Err(error) if is_busy(&error) && Instant::now() < give_up => sleep(BUSY_PAUSE).await,
                    Err(error) => return Err(Self::explain(db, &error)),
                }
            }
        };
        let (work, limit) = if create {
            (Work::Migrate, MIGRATION)
        } else {
            (Work::Open, OPENING)
        };
        // A file system that hangs blocks the opening too.
        timeout(limit, opening)
            .await
            .unwrap_or_else(|_| Err(Self::timed_out(db, work, limit)))
    }

    /// When another process wrote for longer than the connection waits, the connection can be used again. After any other
    /// error a new one is safer.
    fn classify(error: &Error) -> ErrorClass {
        if is_busy(error) {
            ErrorClass::Busy
        } else {
            ErrorClass::Reconnect
        }
    }

    fn is_no_table(error: &Error) -> bool {
        let error = error.as_database_error();
        error.is_some_and(|error| error.message().starts_with("no such table"))
    }

    fn explain(db: &Database<Self>, error: &Error) -> BackendError {
        const DISK: &str = "look at the system log for failures of the disk";
        let name = &db.name;
        let Some(database) = error.as_database_error() else {
            return BackendError::unavailable(format!("{name} failed: {error}"), DISK);
        };
        let message = database.message();
        match code(error).unwrap_or(1) {
            1 if Self::is_no_table(error) => db.schema.tables.missing_table(name, message),
            1 => BackendError::refused(
                format!("{name} refused a statement: {message}"),
                "its tables may have been changed by hand: undo that, or restore the file from a backup",
            ),
            3 | 23 => BackendError::refused(
                format!("{name} may not be used: {message}"),
                "change the permissions of the file and its directory",
            ),
            BUSY | 6 => BackendError::unavailable(
                format!("{name} is busy: another process has been writing for long"),
                "find it (`fuser FILE`), and end it if it hangs",
            ),
            8 => BackendError::refused(
                format!("{name} is read-only"),
                "give this user the right to write the file and its directory",
            ),
            11 => BackendError::refused(
                format!("{name} is damaged: {message}"),
                "restore it, or delete it and run `podlog migrate`",
            ),
            13 => BackendError::unavailable(
                format!("{name} cannot grow: the disk or a quota is full"),
                "free some space",
            ),
            14 => BackendError::refused(
                format!("{name} cannot be opened: {message}"),
                "check that it exists, and the permissions of the file and its directory",
            ),
            26 => BackendError::refused(
                format!("{name} is not an SQLite database"),
                "correct the URL, or move the file away",
            ),
            // 10 is a failed read or write.
            _ => BackendError::unavailable(format!("{name} failed: {message}"), DISK),
        }
    }

    fn timed_out(db: &Database<Self>, work: Work, limit: Duration) -> BackendError {
        let (name, limit) = (&db.name, limit.as_secs());
        let (text, remedy) = match work {
            Work::Open => (
                format!("opening {name} took more than {limit} s"),
                "check whether the disk is overloaded or another process holds the file",
            ),
            Work::Migrate => (
                format!("migrating {name} took longer than {limit} s"),
                "check whether another `podlog migrate` hangs or the disk is overloaded",
            ),
            Work::Job(_) => (
                format!("{name} did not answer within {limit} s"),
                "check whether the disk is overloaded",
            ),
        };
        BackendError::unavailable(text, remedy)
    }

    async fn execute_text(conn: &mut SqliteConnection, statement: &'static str) -> Result<(), Error> {
        conn.execute(statement).await.map(drop)
    }

    async fn applied(conn: &mut SqliteConnection, statement: String) -> Result<Vec<AppliedMigration>, Error> {
        sqlx::query_as(AssertSqlSafe(statement)).fetch_all(conn).await
    }

    async fn migrate_alone(conn: &mut SqliteConnection, db: &Database<Self>) -> Result<(), BackendError> {
        let explain = |error: Error| Self::explain(db, &error);
        let mut transaction = conn.begin_with(BEGIN).await.map_err(explain)?;
        apply::<Self>(&mut transaction, db).await?;
        transaction.commit().await.map_err(explain)
    }

    async fn diagnose(db: &Database<Self>, options: DiagnoseOptions) -> Vec<Finding> {
        if !db.location.exists() && options.migrates {
            return absent(db);
        }
        let dependent: (&[&str], _) = (&[TABLES, WRITING], "the file was not opened");
        let reached = "was opened; SQLite is for replicas on one machine, on a local disk";
        let mut diagnosis = match Diagnosis::begin(db, options, reached, dependent).await {
            Ok((diagnosis, ())) => diagnosis,
            Err(findings) => return findings,
        };
        // The finding says what is wrong with them.
        diagnosis.tables(true).await.ok();
        let are_fine = diagnosis.findings.iter().all(|finding| finding.outcome == Outcome::Ok);
        if are_fine {
            diagnosis.writing().await;
        } else {
            let skipped = Finding::skipped(WRITING, "the tables are not as they must be");
            diagnosis.findings.push(skipped);
        }
        diagnosis.end().await
    }
}

fn options(db: &Database<Sqlite>, busy: Duration) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(&db.location)
        .create_if_missing(false)
        .busy_timeout(busy)
        // Readers do not wait for the writer, and a commit is on disk when it returns.
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .disable_statement_logging()
}

impl Execute for Sqlite {
    fn bind(arguments: &mut SqliteArguments, value: &Value<'_>) -> Result<(), BoxDynError> {
        match *value {
            Value::Number(number) => arguments.add(number),
            Value::Text(text) => arguments.add(text),
            Value::Name(name) => arguments.add(name),
            Value::Bytes(bytes) => arguments.add(bytes),
        }
    }

    async fn execute(
        conn: &mut SqliteConnection,
        text: &'static str,
        arguments: SqliteArguments,
    ) -> Result<u64, Error> {
        Ok(query_with(text, arguments).execute(conn).await?.rows_affected())
    }

    async fn numbers(
        conn: &mut SqliteConnection,
        text: &'static str,
        arguments: SqliteArguments,
    ) -> Result<Vec<i64>, Error> {
        query_scalar_with(text, arguments).fetch_all(conn).await
    }
}

/// There is no file, and `podlog run` would create it.
fn absent(db: &Database<Sqlite>) -> Vec<Finding> {
    let skipped = skipped(&[TABLES, WRITING], "there is no file yet");
    match check_path(db, true) {
        Ok(()) => {
            let first = Finding::warning(
                CONNECTION,
                format!("{} does not exist; `podlog run` creates it when it starts", db.name),
                "run `podlog migrate` to create it before, or correct the URL",
            );
            let migrate = db.schema.tables.new_file.map(|text| Finding::ok(MIGRATE, text));
            [vec![first], skipped, Vec::from_iter(migrate)].concat()
        }
        Err(error) => [vec![Finding::from_error(CONNECTION, &error)], skipped].concat(),
    }
}

/// Refuses what `SQLite` would only call "unable to open database file".
fn check_path(db: &Database<Sqlite>, create: bool) -> Result<(), BackendError> {
    let refused = |what: &str, remedy: &str| Err(BackendError::refused(format!("{} {what}", db.name), remedy));
    let path = &db.location;
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    if !folder.is_dir() {
        let what = format!("cannot be opened: there is no directory {}", folder.display());
        return refused(&what, "create it, or correct the URL");
    }
    if path.is_dir() {
        return refused("is a directory", "name a file in it");
    }
    if !create && !path.exists() {
        return refused("does not exist", "run `podlog migrate`, or correct the URL");
    }
    Ok(())
}

/// The primary result code of an error: the low byte. The bits above are details.
fn code(error: &Error) -> Option<u32> {
    Some(error.as_database_error()?.code()?.parse::<u32>().ok()? & 0xff)
}

/// Whether another process wrote for longer than the connection waits.
fn is_busy(error: &Error) -> bool {
    code(error) == Some(BUSY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(location: PathBuf) -> Database<Sqlite> {
        let name = "the lock store sqlite:///claims.db";
        Database::new(name, location, &crate::locks::schema::SQLITE)
    }

    #[tokio::test]
    async fn a_file_that_another_process_is_creating_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("podlog.db");
        let other = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
        let mut other = other.connect().await.unwrap();
        other.execute("CREATE TABLE t (x)").await.unwrap();
        let transaction = other.begin_with(BEGIN).await.unwrap();
        let db = database(path);
        let opened = Sqlite::connect(&db, &Sqlite::MIGRATION_LIMITS, Purpose::Migrate);
        let finished = async {
            // Long enough for several attempts to open the file.
            sleep(Duration::from_millis(200)).await;
            transaction.commit().await
        };
        let (opened, finished) = tokio::join!(opened, finished);
        finished.unwrap();
        opened.unwrap();
    }

    #[tokio::test]
    async fn a_file_that_cannot_grow_is_a_full_disk_and_may_be_tried_again() {
        let mut conn = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        sqlx::query("CREATE TABLE t (x)").execute(&mut conn).await.unwrap();
        // No more pages than it has: what a full disk answers, without one.
        sqlx::query("PRAGMA max_page_count = 1")
            .execute(&mut conn)
            .await
            .unwrap();
        let insert = sqlx::query("INSERT INTO t VALUES (zeroblob(100000))");
        let error = insert.execute(&mut conn).await.unwrap_err();
        let error = Sqlite::explain(&database("claims.db".into()), &error);
        assert!(matches!(error, BackendError::Unavailable(_)), "{error:?}");
        assert_eq!(
            error.to_string(),
            "the lock store sqlite:///claims.db cannot grow: the disk or a quota is full; free some space"
        );
    }
}
