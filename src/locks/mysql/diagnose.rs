//! Looking at a `MySQL` or `MariaDB` store: the server, the session, the tables, and each right by a statement
//! that needs it and changes nothing.

use std::future::Future;
use std::io;

use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Connection, Executor};
use tokio::time::timeout;
use url::Url;

use super::super::diagnose::{ALL, DEADLINE, MIGRATE, REACHED, TABLES, WRITING, clock, here, skipped, tables};
use super::super::schema::NOTES;
use super::{fault, session, standing, statements as sql};
use crate::db::version::SchemaState;
use crate::domain::{Cause, Finding};

/// `ER_DUP_FIELDNAME`: the right to create was there, the table was not to be.
const TWICE: u16 = 1060;
/// No right to the statement, or to a column.
const DENIED: [u16; 3] = [1142, 1143, 1044];

/// Looks at everything.
pub(in crate::locks) async fn diagnose(url: &Url, name: String, migrates: bool) -> Vec<Finding> {
    let rest = ["server", "session", "clock", TABLES, "rights", WRITING, MIGRATE];
    let options = match session::options(url, &name) {
        Ok(options) => options,
        Err(error) => {
            return [
                vec![Finding::of(REACHED, &error)],
                skipped(&rest, "the URL cannot be used"),
            ]
            .concat();
        }
    };
    let (conn, settings) = match session::dial(&options, &name).await {
        Ok(made) => made,
        Err(error) => {
            return [
                vec![Finding::of(REACHED, &error)],
                skipped(&rest, "the lock store was not reached"),
            ]
            .concat();
        }
    };
    let mut findings = vec![Finding::ok(REACHED, format!("{name} was reached"))];
    for (subject, judged) in settings.judge(&name) {
        findings.push(judged.map_or_else(
            |error| Finding::of(subject, &error),
            |found| Finding::ok(subject, found),
        ));
    }
    let mut diagnosis = Diagnosis {
        conn,
        name,
        findings,
        user: String::new(),
    };
    if timeout(ALL, diagnosis.all(migrates)).await.is_err() {
        let found = format!("{} left questions unanswered for {ALL:?}", diagnosis.name);
        diagnosis.findings.push(Finding::failed(
            Cause::Unreachable,
            "answering",
            found,
            "look what the server is doing (SHOW PROCESSLIST)",
        ));
    }
    let Diagnosis { conn, findings, .. } = diagnosis;
    // Only politeness.
    timeout(DEADLINE, conn.close()).await.ok();
    findings
}

/// A connection and what was found over it.
struct Diagnosis {
    conn: MySqlConnection,
    name: String,
    findings: Vec<Finding>,
    user: String,
}

/// A question under its deadline.
async fn within<T>(question: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    let late = || {
        sqlx::Error::Io(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no answer within {DEADLINE:?}"),
        ))
    };
    timeout(DEADLINE, question).await.unwrap_or_else(|_| Err(late()))
}

impl Diagnosis {
    async fn all(&mut self, migrates: bool) {
        self.clock().await;
        self.user = within(sqlx::query_scalar(sql::USER).fetch_one(&mut self.conn))
            .await
            .unwrap_or_default();
        let may_create = self.may_create().await;
        let found = self.tables(migrates, may_create).await;
        if found == SchemaState::Missing {
            self.findings
                .extend(skipped(&["rights", WRITING], "there are no tables yet"));
        } else if self.rights().await {
            self.writing().await;
        } else {
            self.findings.push(Finding::skipped(WRITING, "a right is missing"));
        }
        self.findings.push(self.migrating(may_create, found.is_done()));
    }

    async fn tables(&mut self, migrates: bool, may_create: bool) -> SchemaState {
        match within(standing(&mut self.conn)).await {
            Ok(found) => {
                self.findings.push(tables(&self.name, found, migrates, may_create));
                found
            }
            Err(error) => {
                let mut finding = Finding::of(TABLES, &fault::explain(&self.name, &error));
                if fault::number(&error).is_some_and(|number| DENIED.contains(&number)) {
                    finding.message.remedy = self.grant("SELECT", NOTES);
                }
                self.findings.push(finding);
                // Whether the tables are there shows when their rights are tried.
                SchemaState::Current
            }
        }
    }

    async fn clock(&mut self) {
        let before = here();
        let asked = within(sqlx::query_scalar(sql::NOW).fetch_one(&mut self.conn)).await;
        let finding = match asked {
            Ok(server) => clock(server, before, here()),
            Err(error) => Finding::of("clock", &fault::explain(&self.name, &error)),
        };
        self.findings.push(finding);
    }

    /// Tries each right by a statement without effect. Answers whether all are there.
    async fn rights(&mut self) -> bool {
        let mut all = true;
        for (right, table, text) in sql::RIGHTS {
            let subject = format!("{right} on {table}");
            let finding = match within(self.conn.execute(text)).await {
                Ok(_) => Finding::ok(subject, "granted"),
                Err(error) if fault::number(&error).is_some_and(|number| DENIED.contains(&number)) => Finding::failed(
                    Cause::Refused,
                    subject,
                    format!("the user {} has not this right", self.user),
                    self.grant(right, table),
                ),
                Err(error) => Finding::of(&subject, &fault::explain(&self.name, &error)),
            };
            all &= !finding.has_failed();
            self.findings.push(finding);
        }
        all
    }

    fn grant(&self, right: &str, table: &str) -> String {
        let (user, host) = self.user.rsplit_once('@').unwrap_or((&self.user, "%"));
        format!("GRANT {right} ON {table} TO '{user}'@'{host}'")
    }

    /// Writes a row, changes it, removes it, and takes it all back.
    async fn writing(&mut self) {
        let conn = &mut self.conn;
        let id = format!("probe/{:016x}", fastrand::u64(..));
        let work = async {
            let mut tx = conn.begin().await?;
            for text in sql::PROBE {
                sqlx::query(text).bind(id.as_bytes()).execute(&mut *tx).await?;
            }
            tx.rollback().await
        };
        let finding = match within(work).await {
            Ok(()) => Finding::ok(
                WRITING,
                "a row was written, changed and removed, and all of it rolled back",
            ),
            Err(error) => Finding::of(WRITING, &fault::explain(&self.name, &error)),
        };
        self.findings.push(finding);
    }

    /// Whether tables could be made: tried with a table that cannot be, which is found out after the right is.
    async fn may_create(&mut self) -> bool {
        let name = format!("podlog_probe_{:08x}", fastrand::u32(..));
        let text = AssertSqlSafe(format!("CREATE TABLE {name} (a INT, a INT)"));
        let answer = within(self.conn.execute(text)).await;
        answer.is_err_and(|error| fault::number(&error) == Some(TWICE))
    }

    fn migrating(&self, may_create: bool, done: bool) -> Finding {
        let user = &self.user;
        match (may_create, done) {
            (true, _) => Finding::ok(MIGRATE, format!("could make tables as {user}")),
            (false, true) => Finding::ok(MIGRATE, format!("has nothing to do; {user} could not make tables")),
            (false, false) => Finding::failed(
                Cause::Refused,
                MIGRATE,
                format!("could not make tables as {user}"),
                "run it as a user with CREATE, ALTER and INDEX on the database",
            ),
        }
    }
}
