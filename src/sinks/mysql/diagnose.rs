//! Looking at a MySQL or MariaDB sink: the server, the session, the tables, and each right by a statement that
//! needs it and changes nothing.

use std::future::Future;
use std::io;

use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sqlx::{AssertSqlSafe, Connection, Executor};
use tokio::time::timeout;

use super::rights::{PROBE, RIGHTS, denied, twice};
use super::server::Server;
use super::{prepare, refusal};
use crate::db::version::SchemaState;
use crate::domain::{Cause, Finding};
use crate::sinks::diagnose::{ALL, DEADLINE, MIGRATE, REACHED, SinkNeeds, TABLES, WRITING, skipped, tables};
use crate::sinks::schema::{NOTES, mysql_state};
use crate::sinks::sql::{PACKET_REST, max_packet};

/// Looks at everything.
pub(in crate::sinks) async fn diagnose(options: MySqlConnectOptions, name: &str, needs: SinkNeeds) -> Vec<Finding> {
    let made = within(async {
        let mut conn = MySqlConnection::connect_with(&options).await?;
        prepare(&mut conn, DEADLINE).await?;
        Ok(conn)
    });
    let conn = match made.await {
        Ok(conn) => conn,
        Err(error) => {
            let rest = ["server", "session", TABLES, "rights", WRITING, "packets", MIGRATE];
            let first = vec![Finding::of(REACHED, &refusal(name, &error))];
            return [first, skipped(&rest, "the sink was not reached")].concat();
        }
    };
    let mut diagnosis = Diagnosis {
        conn,
        name,
        findings: vec![Finding::ok(REACHED, format!("{name} was reached"))],
        user: String::new(),
    };
    if timeout(ALL, diagnosis.all(needs)).await.is_err() {
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
struct Diagnosis<'a> {
    conn: MySqlConnection,
    name: &'a str,
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

impl Diagnosis<'_> {
    async fn all(&mut self, needs: SinkNeeds) {
        match within(Server::ask(&mut self.conn)).await {
            Ok(server) => self.server(&server),
            Err(error) => self.findings.push(Finding::of("server", &refusal(self.name, &error))),
        }
        let user = sqlx::query_scalar("SELECT CURRENT_USER()");
        self.user = within(user.fetch_one(&mut self.conn)).await.unwrap_or_default();
        let may_create = self.may_create("TABLE", "(a INT, a INT)").await;
        let may_view = self.may_create("VIEW", "AS SELECT 1 AS a, 1 AS a").await;
        let found = self.tables(needs, may_create && may_view).await;
        if found == SchemaState::Missing {
            self.findings
                .extend(skipped(&["rights", WRITING], "there are no tables yet"));
        } else if self.rights(needs).await {
            self.writing().await;
        } else {
            self.findings.push(Finding::skipped(WRITING, "a right is missing"));
        }
        self.packets(needs).await;
        self.migrating(may_create, may_view, found.is_done());
    }

    fn server(&mut self, server: &Server) {
        for (subject, judged) in server.judge(self.name) {
            self.findings.push(judged.map_or_else(
                |error| Finding::of(subject, &error),
                |found| Finding::ok(subject, found),
            ));
        }
        if !server.is_strict() {
            self.findings.push(Finding::warning(
                "sql_mode",
                "not strict: names that are too long for their columns are cut",
                "SET GLOBAL sql_mode = CONCAT(@@sql_mode, ',STRICT_TRANS_TABLES')",
            ));
        }
    }

    async fn tables(&mut self, needs: SinkNeeds, may_create: bool) -> SchemaState {
        match within(mysql_state(&mut self.conn)).await {
            Ok(found) => {
                self.findings.push(tables(self.name, found, needs.migrates, may_create));
                found
            }
            Err(error) => {
                let mut finding = Finding::of(TABLES, &refusal(self.name, &error));
                if denied(&error) {
                    finding.message.remedy = self.grant("SELECT", NOTES);
                }
                self.findings.push(finding);
                // Whether the tables are there shows when their rights are tried.
                SchemaState::Current
            }
        }
    }

    /// Tries each right by a statement without effect. Answers whether all that are needed are there.
    async fn rights(&mut self, needs: SinkNeeds) -> bool {
        let mut all = true;
        for right in &RIGHTS {
            let subject = format!("{} on {}", right.verb, right.table);
            let needed = needs.retains || !right.retains;
            let finding = match within(self.conn.execute(right.text)).await {
                Ok(_) => Finding::ok(subject, "granted"),
                Err(error) if denied(&error) && !needed => Finding::warning(
                    subject,
                    "not granted; needed with --retain only",
                    self.grant(right.verb, right.table),
                ),
                Err(error) if denied(&error) => Finding::failed(
                    Cause::Refused,
                    subject,
                    format!("the user {} has not this right", self.user),
                    self.grant(right.verb, right.table),
                ),
                Err(error) => Finding::of(&subject, &refusal(self.name, &error)),
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

    /// Writes a stream, a line and a gap, and takes it all back.
    async fn writing(&mut self) {
        let conn = &mut self.conn;
        // Below zero, so that the table's own numbering is not moved.
        let id = -1 - i64::from(fastrand::u32(..));
        let work = async {
            let mut tx = conn.begin().await?;
            for text in PROBE {
                sqlx::query(text).bind(id).execute(&mut *tx).await?;
            }
            tx.rollback().await
        };
        let finding = match within(work).await {
            Ok(()) => Finding::ok(
                WRITING,
                "a stream, a line and a gap were written, and all of it rolled back",
            ),
            Err(error) => Finding::of(WRITING, &refusal(self.name, &error)),
        };
        self.findings.push(finding);
    }

    /// Whether a line of the greatest length fits into a statement.
    async fn packets(&mut self, needs: SinkNeeds) {
        let finding = match within(max_packet(&mut self.conn)).await {
            Ok(packet) => {
                let found = format!("max_allowed_packet is {} KiB", packet >> 10);
                if packet < needs.max_line + PACKET_REST {
                    let harm = "lines of --max-line do not fit and would be refused";
                    Finding::warning("packets", format!("{found}: {harm}"), "raise it, or lower --max-line")
                } else {
                    Finding::ok("packets", found)
                }
            }
            Err(error) => Finding::of("packets", &refusal(self.name, &error)),
        };
        self.findings.push(finding);
    }

    /// Whether something could be made: tried with what cannot be, which is found out after the right is.
    async fn may_create(&mut self, what: &str, body: &str) -> bool {
        let text = format!("CREATE {what} podlog_probe_{:08x} {body}", fastrand::u32(..));
        let answer = within(self.conn.execute(AssertSqlSafe(text))).await;
        answer.is_err_and(|error| twice(&error))
    }

    fn migrating(&mut self, may_create: bool, may_view: bool, done: bool) {
        let user = &self.user;
        let what = if may_create { "views" } else { "tables" };
        self.findings.push(if may_create && may_view {
            Finding::ok(MIGRATE, format!("could make tables and views as {user}"))
        } else if done {
            Finding::ok(MIGRATE, format!("has nothing to do; {user} could not make {what}"))
        } else {
            let remedy = "run it as a user with CREATE, CREATE VIEW, ALTER and INDEX on the database";
            Finding::failed(
                Cause::Refused,
                MIGRATE,
                format!("could not make {what} as {user}"),
                remedy,
            )
        });
    }
}
