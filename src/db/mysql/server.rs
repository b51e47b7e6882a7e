//! Which server a session is connected to, and whether podlog's statements do there what they say.
//!
//! Session settings are made when a connection is opened, and read back: a proxy in between may drop them.

use std::collections::BTreeMap;
use std::time::Duration;

use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Error, Executor, MySql, Row as _};

use super::views::View;
use crate::db::database::Database;
use crate::domain::BackendError;

/// Under `REPEATABLE READ` a statement would lock rows that it only passes by, and gaps between rows.
const ISOLATION: &str = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE";

/// What a server or a session is checked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Property {
    /// The product and its version.
    Version,
    /// The settings of the session: a proxy in between may drop them.
    Session,
    /// The format of the binary log.
    BinaryLog,
    /// Whether the server accepts writes.
    Writable,
}

/// What one use of a database needs of server and sessions, as data: claims need more than records.
#[derive(Debug)]
pub(crate) struct Requirements {
    /// Settings that every session gets and must keep, besides the transaction isolation. Other settings are the
    /// server's, with what the driver adds.
    pub settings: &'static [(&'static str, &'static str)],
    /// Whether a session must keep `innodb_lock_wait_timeout` as well.
    pub keeps_lock_wait: bool,
    /// What messages say when a session has kept all of this.
    pub in_force: &'static str,
    /// What `podlog check` reports.
    pub reported: &'static [Property],
    /// What must be correct before the tables are used.
    pub to_open: &'static [Property],
    /// What must be correct before the tables are created.
    pub to_migrate: &'static [Property],
    /// The views that should have the rights of their readers.
    pub views: &'static [View],
    /// Bytes of a packet that a statement needs beside the longest line, if `podlog check` reports the limit of packets.
    pub packet_overhead: Option<usize>,
}

/// How long a session waits. The server counts whole seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SessionLimits {
    /// How long the way to the server may take, and then log-in and session settings.
    pub connect: Duration,
    /// How long a statement waits for a row lock.
    pub lock_wait: Duration,
    /// How long a statement waits for a table that is being altered; as long as the server says if none.
    pub table_wait: Option<Duration>,
    /// How long the server keeps a connection on which no statement comes.
    pub idle: Duration,
    /// How long the server keeps a connection on which the rest of a statement does not come; as long as the server says
    /// if none.
    pub read: Option<Duration>,
}

/// Makes the settings that the statements rely on.
pub(crate) async fn prepare(
    conn: &mut MySqlConnection,
    limits: &SessionLimits,
    requirements: &Requirements,
) -> Result<(), Error> {
    // As text, which takes one exchange. A prepared statement takes two.
    let settings = format!("SET SESSION {}", settings(limits, requirements));
    conn.execute(AssertSqlSafe(settings)).await?;
    conn.execute(ISOLATION).await.map(drop)
}

/// Name and value of each setting, as `SET SESSION` takes them.
fn settings(limits: &SessionLimits, requirements: &Requirements) -> String {
    let texts = requirements
        .settings
        .iter()
        .map(|(name, value)| format!("{name} = '{value}'"));
    let waits = [
        ("innodb_lock_wait_timeout", Some(limits.lock_wait)),
        ("lock_wait_timeout", limits.table_wait),
        ("wait_timeout", Some(limits.idle)),
        ("net_read_timeout", limits.read),
    ];
    let waits = waits
        .into_iter()
        .filter_map(|(name, wait)| Some(format!("{name} = {}", seconds(wait?))));
    texts.chain(waits).collect::<Vec<_>>().join(", ")
}

fn seconds(time: Duration) -> u64 {
    time.as_secs().max(1)
}

/// The server and the settings of the session, as the server reports them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Server {
    /// Variables by name.
    variables: BTreeMap<String, String>,
    /// `innodb_lock_wait_timeout` as podlog has set it.
    lock_wait: String,
}

impl Server {
    /// Asks the server, in a session that was prepared with these limits.
    pub(crate) async fn ask(conn: &mut MySqlConnection, limits: &SessionLimits) -> Result<Self, Error> {
        let rows = conn
            .fetch_all(
                "SHOW SESSION VARIABLES WHERE Variable_name IN ('version', 'transaction_isolation', 'tx_isolation', \
                 'time_zone', 'autocommit', 'sql_mode', 'innodb_lock_wait_timeout', \
                 'binlog_format', 'log_bin', 'read_only', 'innodb_read_only')",
            )
            .await?;
        let variables = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
        Ok(Self {
            variables: variables.collect::<Result<_, Error>>()?,
            lock_wait: seconds(limits.lock_wait).to_string(),
        })
    }

    /// The value of a variable; empty if the server does not have it.
    fn variable(&self, name: &str) -> &str {
        self.variables.get(name).map_or("", String::as_str)
    }

    fn version(&self) -> &str {
        self.variable("version")
    }

    /// Whether this is `MariaDB`.
    #[must_use]
    pub(crate) fn is_mariadb(&self) -> bool {
        self.version().contains("MariaDB")
    }

    /// Whether values that do not fit are refused instead of cut.
    pub(super) fn is_strict(&self) -> bool {
        self.variable("sql_mode").contains("STRICT_")
    }

    /// Refuses a server or a session on which the statements would not do what they say.
    pub(crate) fn check(&self, db: &Database<MySql>, properties: &[Property]) -> Result<(), BackendError> {
        properties
            .iter()
            .try_for_each(|property| self.check_property(db, *property).1.map(drop))
    }

    /// Checks one thing: its name, and what it is or why it cannot be used.
    pub(super) fn check_property(
        &self,
        db: &Database<MySql>,
        property: Property,
    ) -> (&'static str, Result<String, BackendError>) {
        match property {
            Property::Version => ("server", self.check_version(&db.name)),
            Property::Session => ("session", self.check_session(&db.name, &db.schema.requirements)),
            Property::BinaryLog => ("binary log", self.check_binlog(&db.name)),
            Property::Writable => ("read-only", self.check_writing(&db.name)),
        }
    }

    /// The product, and the oldest release that has what the statements need.
    fn product(&self) -> (&'static str, (u32, u32)) {
        if self.is_mariadb() {
            ("MariaDB", (10, 6))
        } else {
            ("MySQL", (8, 0))
        }
    }

    fn check_version(&self, name: &str) -> Result<String, BackendError> {
        let (product, oldest) = self.product();
        let found = format!("{product} {}", self.version());
        if release(self.version()) < oldest {
            let remedy = format!("podlog needs {product} {}.{} or newer", oldest.0, oldest.1);
            return Err(BackendError::refused(format!("{name} is {found}"), remedy));
        }
        Ok(found)
    }

    fn check_session(&self, name: &str, requirements: &Requirements) -> Result<String, BackendError> {
        let isolation = [self.variable("transaction_isolation"), self.variable("tx_isolation")];
        let isolation = isolation.into_iter().find(|is| !is.is_empty()).unwrap_or_default();
        let isolation = ("transaction isolation", isolation, "READ-COMMITTED");
        let settings = requirements
            .settings
            .iter()
            .map(|(what, must)| (*what, self.variable(what), *must));
        let lock_wait = (
            "innodb_lock_wait_timeout",
            self.variable("innodb_lock_wait_timeout"),
            self.lock_wait.as_str(),
        );
        let mut all = [isolation]
            .into_iter()
            .chain(settings)
            .chain(requirements.keeps_lock_wait.then_some(lock_wait));
        if let Some((what, is, must)) = all.find(|(_, is, must)| is != must) {
            return Err(BackendError::refused(
                format!("{name} keeps {what} at {is} although podlog set it to {must}"),
                "a proxy in between must pass session settings on",
            ));
        }
        Ok(requirements.in_force.into())
    }

    fn check_binlog(&self, name: &str) -> Result<String, BackendError> {
        let (format, is_off) = (self.variable("binlog_format"), self.variable("log_bin") == "OFF");
        if format == "STATEMENT" && !is_off {
            return Err(BackendError::refused(
                format!("{name} has binlog_format=STATEMENT, with which MySQL replicas would differ"),
                "set it to ROW",
            ));
        }
        Ok(if is_off {
            "off".into()
        } else {
            format!("format {format}")
        })
    }

    fn check_writing(&self, name: &str) -> Result<String, BackendError> {
        if [self.variable("read_only"), self.variable("innodb_read_only")].contains(&"ON") {
            return Err(BackendError::unavailable(
                format!("{name} is read-only: it is failing over, or the address is that of a read-only MySQL replica"),
                "if it stays so, point the URL at the primary",
            ));
        }
        Ok("no".into())
    }
}

/// Major and minor version. `MariaDB` may put `5.5.5-` before its own.
fn release(version: &str) -> (u32, u32) {
    let version = version.strip_prefix("5.5.5-").unwrap_or(version);
    let mut parts = version
        .split(|c: char| !c.is_ascii_digit())
        .map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::database::Schema;
    use crate::locks::schema::MYSQL as CLAIMS;
    use crate::sinks::schema::MYSQL as RECORDS;

    fn database(schema: &'static Schema<MySql>) -> Database<MySql> {
        Database::new(
            "db",
            crate::db::url::ServerUrl::from(url::Url::parse("mysql://h/d").unwrap()).into(),
            schema,
        )
    }

    #[test]
    fn the_release_is_read_from_every_form_of_version() {
        assert_eq!(release("8.4.3"), (8, 4));
        assert_eq!(release("10.11.19-MariaDB-0+deb12u1"), (10, 11));
        assert_eq!(release("5.5.5-10.6.1-MariaDB"), (10, 6));
    }

    /// A good server after some variables were changed.
    fn server(changes: &[(&str, &str)]) -> Server {
        let good = [
            ("version", "9.7.4-2"),
            ("transaction_isolation", "READ-COMMITTED"),
            ("time_zone", "+00:00"),
            ("autocommit", "ON"),
            ("sql_mode", "STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION"),
            ("innodb_lock_wait_timeout", "3"),
            ("binlog_format", "ROW"),
            ("log_bin", "ON"),
            ("read_only", "OFF"),
        ];
        let variables = good.iter().chain(changes);
        Server {
            variables: variables
                .map(|(name, value)| ((*name).into(), (*value).into()))
                .collect(),
            lock_wait: "3".into(),
        }
    }

    fn check(server: &Server, schema: &'static Schema<MySql>) -> Result<(), String> {
        let checked = server.check(&database(schema), schema.requirements.to_open);
        checked.map_err(|error| error.to_string())
    }

    #[test]
    fn a_server_or_session_that_cannot_be_used_is_refused_by_name() {
        let good = server(&[]);
        assert!(good.is_strict());
        assert_eq!(
            good.check_property(&database(&CLAIMS), Property::Version).1,
            Ok("MySQL 9.7.4-2".into())
        );
        for good in [good, server(&[("version", "11.4.2-MariaDB")])] {
            assert_eq!(check(&good, &CLAIMS), Ok(()));
            assert_eq!(check(&good, &RECORDS), Ok(()));
        }
        for (name, value, says) in [
            (
                "version",
                "5.7.44",
                "db is MySQL 5.7.44; podlog needs MySQL 8.0 or newer",
            ),
            ("version", "5.5.5-10.5.1-MariaDB", "podlog needs MariaDB 10.6 or newer"),
            ("transaction_isolation", "REPEATABLE-READ", "proxy"),
        ] {
            for schema in [&CLAIMS, &RECORDS] {
                let error = check(&server(&[(name, value)]), schema).unwrap_err();
                assert!(error.contains(says), "{error}");
            }
        }
    }

    #[test]
    fn what_only_claims_require_is_not_required_for_records() {
        for (name, value, says) in [
            ("time_zone", "SYSTEM", "+00:00"),
            ("sql_mode", "", "sql_mode"),
            ("innodb_lock_wait_timeout", "50", "innodb_lock_wait_timeout"),
            ("binlog_format", "STATEMENT", "ROW"),
            // A server that is read-only now may be writable soon.
            ("read_only", "ON", "primary"),
            ("innodb_read_only", "ON", "primary"),
        ] {
            let server = server(&[(name, value)]);
            let error = check(&server, &CLAIMS).unwrap_err();
            assert!(error.contains(says), "{error}");
            assert_eq!(check(&server, &RECORDS), Ok(()));
        }
        let read_only = server(&[("read_only", "ON")]);
        assert!(
            read_only
                .check_property(&database(&RECORDS), Property::Writable)
                .1
                .is_err()
        );
        assert!(!server(&[("sql_mode", "")]).is_strict());
    }

    #[test]
    fn sessions_get_the_settings_of_their_use_only() {
        let second = Duration::from_secs(1);
        let limits = SessionLimits {
            connect: second,
            lock_wait: second * 3,
            table_wait: None,
            idle: second * 15,
            read: Some(second * 15),
        };
        assert_eq!(
            settings(&limits, &RECORDS.requirements),
            "innodb_lock_wait_timeout = 3, wait_timeout = 15, net_read_timeout = 15"
        );
        let limits = SessionLimits {
            lock_wait: second,
            table_wait: Some(second * 2),
            idle: second * 600,
            read: None,
            ..limits
        };
        assert_eq!(
            settings(&limits, &CLAIMS.requirements),
            "sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', time_zone = '+00:00', autocommit = 'ON', innodb_lock_wait_timeout = 1, lock_wait_timeout = 2, \
             wait_timeout = 600"
        );
    }
}
