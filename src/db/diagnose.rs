//! What `podlog check` finds out about every database, whichever kind it is: that it can be reached, the version of its
//! tables, and that it can be written.
//!
//! What is begun is rolled back. A check that fails does not hide the next one; what depends on it is skipped.

use std::io;
use std::time::Duration;

use sqlx::{Connection, Error, SqlSafeStr};
use tokio::time::timeout;

use super::database::{Database, DatabaseKind, DiagnoseOptions, Purpose, close};
use super::migrate::state;
use super::version::SchemaState;
use crate::domain::Finding;

/// How long one question may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// The subject of connecting.
pub(crate) const CONNECTION: &str = "connection";
/// The subject of the tables' version.
pub(crate) const TABLES: &str = "tables";
/// The subject of each privilege.
pub(super) const PRIVILEGES: &str = "rights";
/// The subject of storing something.
pub(crate) const WRITING: &str = "writing";
/// The subject of whether tables could be created.
pub(super) const MIGRATE: &str = "podlog migrate";

/// Findings for what depends on something that failed.
pub(super) fn skipped(subjects: &[&str], reason: &str) -> Vec<Finding> {
    subjects
        .iter()
        .map(|subject| Finding::skipped(*subject, reason))
        .collect()
}

/// Asks a question under its deadline.
pub(super) async fn within<T>(question: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let timed_out = || {
        let text = format!("no answer within {} s", DEADLINE.as_secs());
        Error::Io(io::Error::new(io::ErrorKind::TimedOut, text))
    };
    timeout(DEADLINE, question).await.unwrap_or_else(|_| Err(timed_out()))
}

/// A connection, and what was found out over it.
pub(super) struct Diagnosis<'a, K: DatabaseKind> {
    pub(super) conn: K::Connection,
    pub(super) db: &'a Database<K>,
    pub(super) options: DiagnoseOptions,
    pub(super) findings: Vec<Finding>,
}

impl<'a, K: DatabaseKind> Diagnosis<'a, K> {
    /// Connects. The first finding says `reached` after the database's name. Without a connection there are only
    /// findings: `dependent` subjects are skipped for this reason.
    pub(super) async fn begin(
        db: &'a Database<K>,
        options: DiagnoseOptions,
        reached: &str,
        (dependent, reason): (&[&str], &str),
    ) -> Result<(Self, K::Server), Vec<Finding>> {
        match K::connect(db, &db.schema.diagnose_limits, Purpose::Diagnose).await {
            Ok((conn, server)) => {
                let findings = vec![Finding::ok(CONNECTION, format!("{} {reached}", db.name))];
                let diagnosis = Self {
                    conn,
                    db,
                    options,
                    findings,
                };
                Ok((diagnosis, server))
            }
            Err(error) => Err([
                vec![Finding::from_error(CONNECTION, &error)],
                skipped(dependent, reason),
            ]
            .concat()),
        }
    }

    /// Closes the connection.
    pub(super) async fn end(self) -> Vec<Finding> {
        close(self.conn).await;
        self.findings
    }

    /// Adds the finding of a question that was not answered.
    pub(super) fn failed(&mut self, subject: &str, error: &Error) {
        self.findings
            .push(Finding::from_error(subject, &K::explain(self.db, error)));
    }

    /// Finds out the version of the tables; `may_create` says whether the user may create some.
    pub(super) async fn tables(&mut self, may_create: bool) -> Result<SchemaState, Error> {
        let found = within(state(&mut self.conn, self.db.schema)).await;
        match &found {
            Ok(state) => {
                let finding = tables(self.db, *state, self.options.migrates, may_create);
                self.findings.push(finding);
            }
            Err(error) => self.failed(TABLES, error),
        }
        found
    }

    /// Writes as the statements of podlog do, and takes it all back.
    pub(super) async fn writing(&mut self) {
        let (conn, schema) = (&mut self.conn, self.db.schema);
        let work = async {
            let mut transaction = conn.begin_with(K::BEGIN.into_sql_str()).await?;
            for statement in schema.probe {
                K::execute_text(&mut transaction, statement).await?;
            }
            transaction.rollback().await
        };
        match within(work).await {
            Ok(()) => {
                let text = format!("{}, and all of it rolled back", schema.tables.probed);
                self.findings.push(Finding::ok(WRITING, text));
            }
            Err(error) => self.failed(WRITING, &error),
        }
    }
}

/// The version of the tables. Missing and older tables are no failure where `podlog run` creates them itself and may.
fn tables<K: DatabaseKind>(db: &Database<K>, state: SchemaState, migrates: bool, may_create: bool) -> Finding {
    let known = db.schema.known();
    match (state, db.check(state)) {
        (SchemaState::Differs(version), _) => Finding::warning(
            TABLES,
            format!("migration {version} is not the one this podlog has: a development version created the tables"),
            "drop them and run `podlog migrate` when no replica runs",
        ),
        (SchemaState::Extended(version), _) => Finding::ok(
            TABLES,
            format!("version {version}; newer than {known}, and compatible with it"),
        ),
        (_, Ok(())) => Finding::ok(TABLES, format!("version {known}, the one this podlog needs")),
        (SchemaState::Missing | SchemaState::Older(_), Err(error)) if migrates && may_create => {
            let text = &error.message().text;
            Finding::warning(
                TABLES,
                format!("{text}; `podlog run` creates them when it starts"),
                "run `podlog migrate` to create them before",
            )
        }
        (_, Err(error)) => Finding::from_error(TABLES, &error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Cause, Outcome};

    #[test]
    fn missing_tables_are_a_failure_only_where_run_would_not_create_them() {
        let db = Database::new("db", "podlog.db".into(), &crate::locks::schema::SQLITE);
        let tables = |state, migrates, may_create| tables(&db, state, migrates, may_create);
        assert_eq!(tables(SchemaState::Missing, true, true).outcome, Outcome::Warning);
        for (migrates, may_create) in [(false, true), (true, false)] {
            let finding = tables(SchemaState::Older(100), migrates, may_create);
            assert_eq!(finding.outcome, Outcome::Failed(Cause::Refused));
            assert_eq!(finding.message.remedy, "run `podlog migrate`");
        }
        let newer = tables(SchemaState::Newer(900), true, true);
        assert_eq!(
            (newer.outcome, &*newer.message.remedy),
            (Outcome::Failed(Cause::Refused), "run a newer podlog")
        );
    }
}
