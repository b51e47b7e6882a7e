//! What differs between the kinds of databases: how podlog connects to one, what its errors mean, and how a migration
//! keeps others out. Everything else in this folder is written once, over [`DatabaseKind`].
//!
//! Nothing here knows which kinds there are, and nothing knows a table of claims or records.

use std::fmt;
use std::time::Duration;

use sqlx::migrate::{Migrate, Migrator};
use sqlx::{Connection, Error};
use tokio::time::timeout;

use super::schema::{Privilege, Tables};
use super::version::{AppliedMigration, SchemaState};
use crate::domain::{BackendError, Finding};

/// How long closing a connection may take. It is optional: without it a server counts an aborted connection, and the
/// thread of an `SQLite` file ends a moment later.
const CLOSING: Duration = Duration::from_secs(3);

/// A kind of database.
pub(crate) trait DatabaseKind: sqlx::Database<Connection: Migrate> {
    /// Where a database of this kind is. It may contain a password.
    type Location: Send + Sync;
    /// How long connecting and statements may wait.
    type Limits: Copy + fmt::Debug + Send + Sync;
    /// What a use needs of a database of this kind, beyond its tables.
    type Requirements: fmt::Debug + Send + Sync;
    /// What is known of the server when it was connected to.
    type Server: Send + Sync;

    /// Begins a transaction that writes.
    const BEGIN: &'static str;
    /// The pause after the first failed attempt of a session to connect again, and the longest one.
    const RECONNECT_PAUSES: (Duration, Duration);
    /// The same after an attempt that was refused: a person must change something, and a server may lock the account.
    const REFUSED_PAUSES: (Duration, Duration);
    /// The limits of a connection that migrates.
    const MIGRATION_LIMITS: Self::Limits;
    /// How long a migration may take after connecting, the wait for those of other processes included.
    const MIGRATION: Duration;
    /// Whether a migration that fails leaves nothing behind.
    const ATOMIC_MIGRATIONS: bool;

    /// Makes a connection within a deadline, and checks what its purpose needs of the server.
    fn connect(
        db: &Database<Self>,
        limits: &Self::Limits,
        purpose: Purpose,
    ) -> impl Future<Output = Result<(Self::Connection, Self::Server), BackendError>> + Send;

    /// A number that changes when connections would be made with another password.
    fn secrets(_db: &Database<Self>) -> u64 {
        0
    }

    /// Classifies an error.
    fn classify(error: &Error) -> ErrorClass;

    /// Whether a table does not exist.
    fn is_no_table(error: &Error) -> bool;

    /// Explains an error in one line.
    fn explain(db: &Database<Self>, error: &Error) -> BackendError;

    /// Explains that something was not done within `limit`.
    fn timed_out(db: &Database<Self>, work: Work, limit: Duration) -> BackendError;

    /// Executes a statement without parameters.
    fn execute_text(
        conn: &mut Self::Connection,
        statement: &'static str,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// Reads the applied migrations.
    fn applied(
        conn: &mut Self::Connection,
        statement: String,
    ) -> impl Future<Output = Result<Vec<AppliedMigration>, Error>> + Send;

    /// Calls [`apply`](super::migrate::apply) while no other process does.
    fn migrate_alone(
        conn: &mut Self::Connection,
        db: &Database<Self>,
    ) -> impl Future<Output = Result<(), BackendError>> + Send;

    /// What is done when all migrations are applied, as far as the user may. It must not be needed by any replica.
    fn after_migrations(_conn: &mut Self::Connection, _db: &Database<Self>) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// Checks everything that `podlog check` reports of the database. It changes nothing.
    fn diagnose(db: &Database<Self>, options: DiagnoseOptions) -> impl Future<Output = Vec<Finding>> + Send;
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To use the tables.
    Use,
    /// To create the tables.
    Migrate,
    /// To find out what is wrong. The server need not be one that can be used.
    Diagnose,
}

/// What was not done in time.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Work {
    /// Connecting to the database and checking it.
    Open,
    Migrate,
    /// A job of a session, at this step.
    Job(&'static str),
}

/// What to do after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ErrorClass {
    /// Another transaction was in the way. The statement had no effect and may be sent again.
    Contended,
    /// The connection cannot be used any more. The statement may be sent again on another.
    Broken,
    /// The statement fails; the next one needs a new connection. A server that accepts no writes is failing over.
    Reconnect,
    /// A person must change something.
    Refused,
    /// The database cannot do it now.
    Busy,
}

/// What `podlog check` takes into account.
#[derive(Clone, Copy, Debug)]
pub struct DiagnoseOptions {
    /// Whether `podlog run` creates the tables itself.
    pub migrates: bool,
    /// Whether old records are deleted, so that the privileges for that are needed.
    pub retains: bool,
    /// The longest line, bytes.
    pub max_line: usize,
}

/// The tables of one part of podlog in one kind of database.
#[derive(Debug)]
pub(crate) struct Schema<K: DatabaseKind> {
    /// What is the same in every kind.
    pub tables: &'static Tables,
    /// The migrations. They have the same numbers in every kind.
    pub migrations: Migrator,
    /// The privileges that are tried before the tables are used.
    pub privileges: &'static [Privilege],
    /// Statements that write, in a transaction that is rolled back.
    pub probe: &'static [&'static str],
    /// The limits of a connection of `podlog check`.
    pub diagnose_limits: K::Limits,
    /// What is needed beyond the tables.
    pub requirements: K::Requirements,
}

impl<K: DatabaseKind> Schema<K> {
    /// The last migration this program knows.
    #[must_use]
    pub(crate) fn known(&self) -> i64 {
        self.migrations.iter().map(|one| one.version).max().unwrap_or(0)
    }

    /// The state of the tables, given the applied migrations.
    #[must_use]
    pub(crate) fn state(&self, applied: &[AppliedMigration]) -> SchemaState {
        let ours = self.migrations.iter().map(|one| (one.version, &*one.checksum));
        SchemaState::compare(applied, &ours.collect())
    }
}

/// A database in use by one part of podlog.
pub(crate) struct Database<K: DatabaseKind> {
    /// What messages call it: its use and its URL without the password, such as
    /// `the lock store mysql://podlog:***@db/podlog`.
    pub name: String,
    /// Where it is.
    pub location: K::Location,
    /// The tables that must be there.
    pub schema: &'static Schema<K>,
}

/// Without the location, which may contain a password.
impl<K: DatabaseKind> fmt::Debug for Database<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Database").field(&self.name).finish()
    }
}

impl<K: DatabaseKind> Database<K> {
    pub(crate) fn new(name: impl Into<String>, location: K::Location, schema: &'static Schema<K>) -> Self {
        let name = name.into();
        Self { name, location, schema }
    }

    /// Refuses tables that this program cannot work with.
    pub(crate) fn check(&self, state: SchemaState) -> Result<(), BackendError> {
        self.schema.tables.check(&self.name, state, self.schema.known())
    }
}

/// Closes a connection, if that can be done soon.
pub(crate) async fn close<C: Connection>(conn: C) {
    timeout(CLOSING, conn.close()).await.ok();
}

/// What the database says of an error, or the driver.
#[must_use]
pub(crate) fn cause(error: &Error) -> String {
    match error.as_database_error() {
        Some(error) => error.message().to_owned(),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use sqlx::migrate::Migration;

    use super::*;
    use crate::{locks, sinks};

    fn check_versions<K: DatabaseKind>(schema: &Schema<K>) {
        let row = |one: &Migration| (one.version, one.description.to_string(), true, one.checksum.to_vec());
        let all: Vec<AppliedMigration> = schema.migrations.iter().map(row).collect();
        let older = all[..all.len() - 1].to_vec();
        let older_state = older
            .last()
            .map_or(SchemaState::Missing, |last| SchemaState::Older(last.0));
        assert_eq!(schema.state(&all), SchemaState::Current);
        assert_eq!(schema.state(&older), older_state);
        let other = vec![(schema.known(), "x".into(), true, vec![1])];
        assert_eq!(schema.state(&other), SchemaState::Differs(schema.known()));
    }

    fn check_first_two<K: DatabaseKind>(schema: &Schema<K>, expected: i64) {
        let row = |one: &Migration| (one.version, one.description.to_string(), true, one.checksum.to_vec());
        let first_two: Vec<AppliedMigration> = schema.migrations.iter().take(2).map(row).collect();
        assert_eq!(schema.state(&first_two), SchemaState::Older(expected));
    }

    #[test]
    fn tables_that_lack_several_migrations_are_as_old_as_the_last_one_they_have() {
        check_first_two(&sinks::schema::MYSQL, 202);
        check_first_two(&sinks::schema::SQLITE, 202);
    }

    #[test]
    fn tables_with_all_migrations_are_current_and_tables_that_lack_some_or_have_others_are_not() {
        check_versions(&locks::schema::MYSQL);
        check_versions(&locks::schema::SQLITE);
        check_versions(&sinks::schema::MYSQL);
        check_versions(&sinks::schema::SQLITE);
    }

    #[test]
    fn the_password_of_a_database_is_not_shown() {
        let url = crate::db::url::ServerUrl::from(url::Url::parse("mysql://u:s3cret@db/podlog").unwrap());
        let db = Database::new(
            "the lock store mysql://u:***@db/podlog",
            url.into(),
            &locks::schema::MYSQL,
        );
        let shown = format!("{db:?}");
        assert!(shown.contains("u:***@db") && !shown.contains("s3cret"), "{shown}");
    }
}
