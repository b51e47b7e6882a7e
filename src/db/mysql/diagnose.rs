//! What `podlog check` finds out about a `MySQL` or `MariaDB` server: the server and the session, the tables, and each
//! privilege by a statement that needs it and has no effect.
//!
//! What it begins it rolls back. A check that fails does not hide the next one; what depends on it is skipped.

use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Connection, Error, Executor};
use tokio::time::timeout;
use url::Url;

use super::connect::{connect_unchecked, options};
use super::errors::{self, is_denied, is_duplicate_column};
use super::migrate::state;
use super::server::SessionLimits;
use crate::db::database::Database;
use crate::db::diagnose::{
    ALL, CONNECTION, DEADLINE, MIGRATE, PRIVILEGES, Scope, TABLES, WRITING, clock, local_time, skipped, tables, within,
};
use crate::db::version::SchemaState;
use crate::domain::{Cause, Finding};

/// The server's clock in microseconds since 1970.
const NOW: &str = "SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01 00:00:00.000000', UTC_TIMESTAMP(6))";
/// The account that the server chose for the user. Rights are granted to it.
const ACCOUNT: &str = "SELECT CURRENT_USER()";
const LARGEST_PACKET: &str = "SELECT CAST(@@max_allowed_packet AS SIGNED)";

/// Checks everything.
pub(crate) async fn diagnose(url: &Url, db: &Database, limits: &SessionLimits, scope: Scope) -> Vec<Finding> {
    let made = match options(url, db) {
        Ok(options) => connect_unchecked(&options, db, limits).await,
        Err(error) => Err(error),
    };
    let (conn, server) = match made {
        Ok(made) => made,
        Err(error) => {
            let clock = if scope.clock { &["clock"][..] } else { &[] };
            let packets = scope.largest_statement.map_or(&[][..], |_| &["packets"]);
            let rest = [
                &["server", "session"][..],
                clock,
                &[TABLES, PRIVILEGES, WRITING],
                packets,
                &[MIGRATE],
            ];
            let skipped = skipped(&rest.concat(), "there is no connection");
            return [vec![Finding::of(CONNECTION, &error)], skipped].concat();
        }
    };
    let mut findings = vec![Finding::ok(CONNECTION, format!("{} was reached", db.name))];
    let demands = &db.schema.demands;
    for aspect in demands.reported {
        let (subject, judged) = server.judge(db, *aspect);
        findings.push(judged.map_or_else(|error| Finding::of(subject, &error), |text| Finding::ok(subject, text)));
    }
    // Where podlog does not set the mode, the server's counts.
    if demands.settings.is_empty() && !server.is_strict() {
        findings.push(Finding::warning(
            "sql_mode",
            "not strict: names that are too long for their columns are cut",
            "SET GLOBAL sql_mode = CONCAT(@@sql_mode, ',STRICT_TRANS_TABLES')",
        ));
    }
    let mut diagnosis = Diagnosis {
        conn,
        db,
        scope,
        findings,
        account: String::new(),
    };
    if timeout(ALL, diagnosis.all()).await.is_err() {
        let text = format!("{} left questions unanswered for {} s", db.name, ALL.as_secs());
        let remedy = "look at what the server is doing (SHOW PROCESSLIST)";
        let finding = Finding::failed(Cause::Unreachable, "answering", text, remedy);
        diagnosis.findings.push(finding);
    }
    let Diagnosis { conn, findings, .. } = diagnosis;
    // Optional: without it the server counts an aborted connection.
    timeout(DEADLINE, conn.close()).await.ok();
    findings
}

/// A connection, and what was found out over it.
struct Diagnosis<'a> {
    conn: MySqlConnection,
    db: &'a Database,
    scope: Scope,
    findings: Vec<Finding>,
    /// `user@host`; empty if it could not be asked.
    account: String,
}

impl Diagnosis<'_> {
    async fn all(&mut self) {
        if self.scope.clock {
            self.clock().await;
        }
        self.account = within(sqlx::query_scalar(ACCOUNT).fetch_one(&mut self.conn))
            .await
            .unwrap_or_default();
        let may_create = self.may_create("TABLE", "(a INT, a INT)").await;
        let may_view = !self.db.schema.has_views || self.may_create("VIEW", "AS SELECT 1 AS a, 1 AS a").await;
        let found = self.tables(may_create && may_view).await;
        if found == SchemaState::Missing {
            self.findings
                .extend(skipped(&[PRIVILEGES, WRITING], "there are no tables yet"));
        } else if self.privileges().await {
            self.writing().await;
        } else {
            self.findings.push(Finding::skipped(WRITING, "a right is missing"));
        }
        if let Some(bytes) = self.scope.largest_statement {
            self.packets(bytes).await;
        }
        self.migrating(may_create, may_view, found.is_done());
    }

    fn failed(&mut self, subject: &str, error: &Error) {
        let finding = Finding::of(subject, &errors::explain(self.db, error));
        self.findings.push(finding);
    }

    async fn clock(&mut self) {
        let before = local_time();
        match within(sqlx::query_scalar(NOW).fetch_one(&mut self.conn)).await {
            Ok(server) => self.findings.push(clock(server, before, local_time())),
            Err(error) => self.failed("clock", &error),
        }
    }

    async fn tables(&mut self, may_create: bool) -> SchemaState {
        match within(state(&mut self.conn, self.db.schema)).await {
            Ok(found) => {
                self.findings
                    .push(tables(self.db, found, self.scope.migrates, may_create));
                found
            }
            Err(error) => {
                let mut finding = Finding::of(TABLES, &errors::explain(self.db, &error));
                if is_denied(&error) {
                    finding.message.remedy = self.grant("SELECT", self.db.schema.versions);
                }
                self.findings.push(finding);
                // Trying the privileges shows whether the tables are there.
                SchemaState::Current
            }
        }
    }

    /// Tries each privilege by a statement without effect. Returns whether the user has all that are needed.
    async fn privileges(&mut self) -> bool {
        let mut all = true;
        for privilege in self.db.schema.mysql.privileges {
            let subject = format!("{} on {}", privilege.verb, privilege.table);
            let needed = self.scope.retains || !privilege.retention_only;
            let tried = within(self.conn.execute(privilege.statement)).await;
            let grant = || self.grant(privilege.verb, privilege.table);
            let finding = match tried {
                Ok(_) => Finding::ok(subject, "granted"),
                Err(error) if is_denied(&error) && !needed => {
                    Finding::warning(subject, "not granted; needed with --retain only", grant())
                }
                Err(error) if is_denied(&error) => {
                    let text = format!("the user {} does not have this right", self.account);
                    Finding::failed(Cause::Refused, subject, text, grant())
                }
                Err(error) => Finding::of(subject, &errors::explain(self.db, &error)),
            };
            all &= !finding.has_failed();
            self.findings.push(finding);
        }
        all
    }

    fn grant(&self, privilege: &str, table: &str) -> String {
        let (user, host) = self.account.rsplit_once('@').unwrap_or((&self.account, "%"));
        format!("GRANT {privilege} ON {table} TO '{user}'@'{host}'")
    }

    /// Writes as the statements of podlog do, and takes it all back.
    async fn writing(&mut self) {
        let (conn, schema) = (&mut self.conn, self.db.schema);
        let work = async {
            let mut transaction = conn.begin().await?;
            for statement in schema.mysql.probe {
                transaction.execute(*statement).await?;
            }
            transaction.rollback().await
        };
        match within(work).await {
            Ok(()) => {
                let text = format!("{}, and all of it rolled back", schema.probed);
                self.findings.push(Finding::ok(WRITING, text));
            }
            Err(error) => self.failed(WRITING, &error),
        }
    }

    /// Whether a statement of so many bytes fits into a packet.
    async fn packets(&mut self, bytes: usize) {
        match within(sqlx::query_scalar::<_, i64>(LARGEST_PACKET).fetch_one(&mut self.conn)).await {
            Ok(largest) => {
                let text = format!("max_allowed_packet is {} KiB", largest >> 10);
                self.findings
                    .push(if usize::try_from(largest).is_ok_and(|largest| largest < bytes) {
                        let harm = "lines of --max-line do not fit and would be refused";
                        Finding::warning("packets", format!("{text}: {harm}"), "raise it, or lower --max-line")
                    } else {
                        Finding::ok("packets", text)
                    });
            }
            Err(error) => self.failed("packets", &error),
        }
    }

    /// Whether the user may create something: tried with what cannot be created, which the server finds out after it
    /// has checked the privilege.
    async fn may_create(&mut self, what: &str, body: &str) -> bool {
        let statement = format!("CREATE {what} podlog_probe_{:08x} {body}", fastrand::u32(..));
        let answer = within(self.conn.execute(AssertSqlSafe(statement))).await;
        answer.is_err_and(|error| is_duplicate_column(&error))
    }

    fn migrating(&mut self, may_create: bool, may_view: bool, done: bool) {
        let account = &self.account;
        let missing = if may_create { "views" } else { "tables" };
        self.findings.push(if may_create && may_view {
            let what = if self.db.schema.has_views {
                "tables and views"
            } else {
                "tables"
            };
            Finding::ok(MIGRATE, format!("could create {what} as {account}"))
        } else if done {
            Finding::ok(
                MIGRATE,
                format!("has nothing to do; {account} could not create {missing}"),
            )
        } else {
            Finding::failed(
                Cause::Refused,
                MIGRATE,
                format!("could not create {missing} as {account}"),
                format!("run it as a user with {} on the database", self.db.schema.create_grant),
            )
        });
    }
}
