//! What `podlog check` finds out about a database server, whichever kind it is: the server and the session, the clock, the
//! tables, each privilege by a statement that needs it and has no effect, and whether tables could be created.
//!
//! What is begun is rolled back. A check that fails does not hide the next one; what depends on it is skipped.

use std::time::Duration;

use sqlx::Error;
use tokio::time::timeout;

use super::database::{Database, DatabaseKind, DiagnoseOptions};
use super::diagnose::{Diagnosis, MIGRATE, PRIVILEGES, TABLES, WRITING, skipped, within};
use super::version::SchemaState;
use crate::domain::{Cause, Finding};

/// How long all questions together may take: a server that leaves three unanswered hangs.
const ALL: Duration = Duration::from_secs(30);

/// Two clocks that differ by more are not set by NTP, seconds.
const LARGEST_DIFFERENCE: f64 = 5.0;

/// A kind of database with servers, users and privileges.
pub(crate) trait ServerKind: DatabaseKind {
    /// How a person sees what a server is doing.
    const PROCESS_LIST: &'static str;

    /// What is reported of the server and the session.
    fn report(db: &Database<Self>, server: &Self::Server) -> Vec<Finding>;

    /// The subject of [`check_limits`](Self::check_limits), if it checks something.
    fn limits_subject(db: &Database<Self>) -> Option<&'static str>;

    /// Checks the limits of the server that statements meet, and what else is not needed to store something.
    fn check_limits(diagnosis: &mut Diagnosis<'_, Self>) -> impl Future<Output = ()> + Send;

    /// The server's clock in microseconds since 1970.
    fn now(conn: &mut Self::Connection) -> impl Future<Output = Result<i64, Error>> + Send;

    /// The account that the server chose for the user, `user@host`. Privileges are granted to it.
    fn account(conn: &mut Self::Connection) -> impl Future<Output = Result<String, Error>> + Send;

    /// The statement that grants a privilege on a table to this account.
    fn grant(privilege: &str, table: &str, account: &str) -> String;

    /// Whether the user lacks a privilege.
    fn is_denied(error: &Error) -> bool;

    /// Whether the user may create a table, or a view. It creates nothing.
    fn may_create(conn: &mut Self::Connection, object: Object) -> impl Future<Output = bool> + Send;
}

/// What may be created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Object {
    Table,
    View,
}

/// Checks everything.
pub(super) async fn diagnose<K: ServerKind>(db: &Database<K>, options: DiagnoseOptions) -> Vec<Finding> {
    let clock = if db.schema.tables.has_times {
        &["clock"][..]
    } else {
        &[]
    };
    let limits = Vec::from_iter(K::limits_subject(db));
    let dependent = [
        &["server", "session"][..],
        clock,
        &[TABLES, PRIVILEGES, WRITING],
        &limits,
        &[MIGRATE],
    ]
    .concat();
    let begun = Diagnosis::begin(db, options, "was reached", (&dependent, "there is no connection")).await;
    let (mut diagnosis, server) = match begun {
        Ok(begun) => begun,
        Err(findings) => return findings,
    };
    diagnosis.findings.extend(K::report(db, &server));
    if timeout(ALL, ask_all(&mut diagnosis)).await.is_err() {
        let text = format!("{} left questions unanswered for {} s", db.name, ALL.as_secs());
        let remedy = format!("look at what the server is doing ({})", K::PROCESS_LIST);
        let finding = Finding::failed(Cause::Unreachable, "answering", text, remedy);
        diagnosis.findings.push(finding);
    }
    diagnosis.end().await
}

async fn ask_all<K: ServerKind>(diagnosis: &mut Diagnosis<'_, K>) {
    let schema = diagnosis.db.schema;
    if schema.tables.has_times {
        check_clock(diagnosis).await;
    }
    // Empty if it could not be asked.
    let account = within(K::account(&mut diagnosis.conn)).await.unwrap_or_default();
    let may_create = K::may_create(&mut diagnosis.conn, Object::Table).await;
    let may_view = !schema.tables.has_views || K::may_create(&mut diagnosis.conn, Object::View).await;
    let found = match diagnosis.tables(may_create && may_view).await {
        Ok(found) => found,
        Err(error) => {
            if K::is_denied(&error)
                && let Some(finding) = diagnosis.findings.last_mut()
            {
                finding.message.remedy = K::grant("SELECT", schema.tables.versions, &account);
            }
            // Trying the privileges shows whether the tables are there.
            SchemaState::Current
        }
    };
    if found == SchemaState::Missing {
        let skipped = skipped(&[PRIVILEGES, WRITING], "there are no tables yet");
        diagnosis.findings.extend(skipped);
    } else if check_privileges(diagnosis, &account).await {
        diagnosis.writing().await;
    } else {
        let skipped = Finding::skipped(WRITING, "a right is missing");
        diagnosis.findings.push(skipped);
    }
    K::check_limits(diagnosis).await;
    let finding = migrating(diagnosis.db, may_create, may_view, &account, found.is_done());
    diagnosis.findings.push(finding);
}

async fn check_clock<K: ServerKind>(diagnosis: &mut Diagnosis<'_, K>) {
    let before = local_time();
    match within(K::now(&mut diagnosis.conn)).await {
        Ok(server) => diagnosis.findings.push(clock(server, before, local_time())),
        Err(error) => diagnosis.failed("clock", &error),
    }
}

/// The time on this machine since 1970, microseconds.
fn local_time() -> i64 {
    crate::clock::wall().0 / 1000
}

/// The server's clock compared with this machine's, which was read before and after. All in microseconds.
fn clock(server: i64, before: i64, after: i64) -> Finding {
    let ahead = (server - i64::midpoint(before, after)) as f64 / 1e6;
    let text = if ahead < 0.0 {
        format!("the server's is {:.3} s behind this machine's", -ahead)
    } else {
        format!("the server's is {ahead:.3} s ahead of this machine's")
    };
    if ahead.abs() <= LARGEST_DIFFERENCE {
        return Finding::ok("clock", text);
    }
    let harm = "claims do not suffer, but ages and times of different machines cannot be compared";
    Finding::warning("clock", format!("{text}; {harm}"), "have both set by NTP")
}

/// Tries each privilege by a statement without effect. Returns whether the user has all that are needed.
async fn check_privileges<K: ServerKind>(diagnosis: &mut Diagnosis<'_, K>, account: &str) -> bool {
    let mut all = true;
    for privilege in diagnosis.db.schema.privileges {
        let subject = format!("{} on {}", privilege.verb, privilege.table);
        let needed = diagnosis.options.retains || !privilege.retention_only;
        let tried = within(K::execute_text(&mut diagnosis.conn, privilege.statement)).await;
        let grant = || K::grant(privilege.verb, privilege.table, account);
        let finding = match tried {
            Ok(()) => Finding::ok(subject, "granted"),
            Err(error) if K::is_denied(&error) && !needed => {
                Finding::warning(subject, "not granted; needed with --retain only", grant())
            }
            Err(error) if K::is_denied(&error) => {
                let text = format!("the user {account} does not have this right");
                Finding::failed(Cause::Refused, subject, text, grant())
            }
            Err(error) => Finding::from_error(subject, &K::explain(diagnosis.db, &error)),
        };
        all &= !finding.has_failed();
        diagnosis.findings.push(finding);
    }
    all
}

fn migrating<K: DatabaseKind>(
    db: &Database<K>,
    may_create: bool,
    may_view: bool,
    account: &str,
    done: bool,
) -> Finding {
    let tables = db.schema.tables;
    let missing = if may_create { "views" } else { "tables" };
    if may_create && may_view {
        let what = if tables.has_views { "tables and views" } else { "tables" };
        Finding::ok(MIGRATE, format!("could create {what} as {account}"))
    } else if done {
        let text = format!("has nothing to do; {account} could not create {missing}");
        Finding::ok(MIGRATE, text)
    } else {
        let remedy = format!("run it as a user with {} on the database", tables.create_grant);
        let text = format!("could not create {missing} as {account}");
        Finding::failed(Cause::Refused, MIGRATE, text, remedy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Outcome;

    #[test]
    fn clocks_that_differ_by_seconds_are_warned_about() {
        assert_eq!(
            clock(1_500_000, 1_000_000, 2_000_000),
            Finding::ok("clock", "the server's is 0.000 s ahead of this machine's")
        );
        let behind = clock(0, 9_000_000, 11_000_000);
        assert!(
            behind.outcome == Outcome::Warning && behind.message.text.contains("10.000 s behind"),
            "{behind:?}"
        );
    }
}
