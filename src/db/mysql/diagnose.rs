//! What `podlog check` asks of a `MySQL` or `MariaDB` server beside what it asks of every server.

use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Error, Executor, MySql};

use super::errors::{is_denied, is_duplicate_column};
use super::server::Server;
use super::views;
use crate::db::database::Database;
use crate::db::diagnose::{Diagnosis, within};
use crate::db::server::{Object, ServerKind};
use crate::domain::Finding;

const NOW: &str = "SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01 00:00:00.000000', UTC_TIMESTAMP(6))";
const LARGEST_PACKET: &str = "SELECT CAST(@@max_allowed_packet AS SIGNED)";

impl ServerKind for MySql {
    const PROCESS_LIST: &'static str = "SHOW PROCESSLIST";

    fn report(db: &Database<Self>, server: &Server) -> Vec<Finding> {
        let requirements = &db.schema.requirements;
        let properties = requirements.reported.iter().map(|property| {
            let (subject, checked) = server.check_property(db, *property);
            checked.map_or_else(
                |error| Finding::from_error(subject, &error),
                |text| Finding::ok(subject, text),
            )
        });
        let mut findings: Vec<Finding> = properties.collect();
        if let Some(warning) = db.location.tls_warning() {
            findings.push(Finding::warning("TLS", warning.text, warning.remedy));
        }
        // Where podlog does not set the mode, the server's counts.
        if requirements.settings.is_empty() && !server.is_strict() {
            findings.push(Finding::warning(
                "sql_mode",
                "not strict: names that are too long for their columns are cut",
                "SET GLOBAL sql_mode = CONCAT(@@sql_mode, ',STRICT_TRANS_TABLES')",
            ));
        }
        findings
    }

    fn limits_subject(db: &Database<Self>) -> Option<&'static str> {
        db.schema.requirements.packet_overhead.map(|_| "packets")
    }

    /// Whether a statement with the longest line fits into a packet, and whose rights views have.
    async fn check_limits(diagnosis: &mut Diagnosis<'_, Self>) {
        views::check(diagnosis).await;
        let Some(overhead) = diagnosis.db.schema.requirements.packet_overhead else {
            return;
        };
        let bytes = diagnosis.options.max_line + overhead;
        match within(sqlx::query_scalar::<_, i64>(LARGEST_PACKET).fetch_one(&mut diagnosis.conn)).await {
            Ok(largest) => {
                let text = format!("max_allowed_packet is {} KiB", largest >> 10);
                let is_too_small = usize::try_from(largest).is_ok_and(|largest| largest < bytes);
                diagnosis.findings.push(if is_too_small {
                    let harm = "lines of --max-line do not fit and would be refused";
                    Finding::warning("packets", format!("{text}: {harm}"), "raise it, or lower --max-line")
                } else {
                    Finding::ok("packets", text)
                });
            }
            Err(error) => diagnosis.failed("packets", &error),
        }
    }

    async fn now(conn: &mut MySqlConnection) -> Result<i64, Error> {
        sqlx::query_scalar(NOW).fetch_one(conn).await
    }

    async fn account(conn: &mut MySqlConnection) -> Result<String, Error> {
        sqlx::query_scalar("SELECT CURRENT_USER()").fetch_one(conn).await
    }

    fn grant(privilege: &str, table: &str, account: &str) -> String {
        let (user, host) = account.rsplit_once('@').unwrap_or((account, "%"));
        format!("GRANT {privilege} ON {table} TO '{user}'@'{host}'")
    }

    fn is_denied(error: &Error) -> bool {
        is_denied(error)
    }

    /// Tried with what cannot be created, which the server finds out after it has checked the privilege.
    async fn may_create(conn: &mut MySqlConnection, object: Object) -> bool {
        let (what, body) = match object {
            Object::Table => ("TABLE", "(a INT, a INT)"),
            Object::View => ("VIEW", "AS SELECT 1 AS a, 1 AS a"),
        };
        let statement = format!("CREATE {what} podlog_probe_{:08x} {body}", fastrand::u32(..));
        let answer = within(conn.execute(AssertSqlSafe(statement))).await;
        answer.is_err_and(|error| is_duplicate_column(&error))
    }
}
