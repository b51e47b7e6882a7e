//! Which server a session is connected to, and whether podlog's statements do there what they say.
//!
//! Session settings are made when a connection is opened, and read back: a proxy in between may drop them.

use std::time::Duration;

use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Error, Executor, Row as _};

use crate::domain::BackendError;

/// Strict, so that no value is cut silently. Without the server's other modes, which could change what statements mean.
const SQL_MODE: &str = "STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION";

/// Under `REPEATABLE READ` a statement would lock rows that it only passes by, and gaps between rows.
const ISOLATION: &str = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE";

/// How long a session waits. The server counts whole seconds.
#[derive(Clone, Copy, Debug)]
pub struct SessionLimits {
    /// How long connecting may take, log-in and session settings included.
    pub connect: Duration,
    /// How long a statement waits for a row lock; for a table that is being altered it waits one second more.
    pub lock_wait: Duration,
    /// How long the server keeps a connection on which no statement comes.
    pub idle: Duration,
    /// How long the server keeps a connection on which the rest of a statement does not come.
    pub read: Duration,
}

impl SessionLimits {
    fn lock_wait_seconds(&self) -> u64 {
        self.lock_wait.as_secs().max(1)
    }
}

/// Makes the settings that the statements rely on.
pub async fn prepare(conn: &mut MySqlConnection, limits: &SessionLimits) -> Result<(), Error> {
    let (wait, idle, read) = (limits.lock_wait_seconds(), limits.idle.as_secs(), limits.read.as_secs());
    // As text, which takes one exchange. A prepared statement takes two.
    let settings = format!(
        "SET SESSION sql_mode = '{SQL_MODE}', time_zone = '+00:00', autocommit = 1, \
         innodb_lock_wait_timeout = {}, lock_wait_timeout = {}, wait_timeout = {}, net_read_timeout = {}",
        wait,
        wait + 1,
        idle.max(1),
        read.max(1)
    );
    conn.execute(AssertSqlSafe(settings)).await?;
    conn.execute(ISOLATION).await.map(drop)
}

/// The server and the settings of the session, as the server reports them.
#[derive(Clone, Debug, Default)]
pub struct Server {
    version: String,
    isolation: String,
    time_zone: String,
    autocommit: String,
    sql_mode: String,
    /// `innodb_lock_wait_timeout`, as it was set and as the server reports it.
    lock_wait: [String; 2],
    binlog: String,
    log_bin: String,
    read_only: bool,
}

impl Server {
    /// Asks the server, in a session that was prepared with these limits.
    pub async fn ask(conn: &mut MySqlConnection, limits: &SessionLimits) -> Result<Self, Error> {
        let rows = conn
            .fetch_all(
                "SHOW SESSION VARIABLES WHERE Variable_name IN ('version', 'transaction_isolation', 'tx_isolation', \
                 'time_zone', 'autocommit', 'sql_mode', 'innodb_lock_wait_timeout', \
                 'binlog_format', 'log_bin', 'read_only', 'innodb_read_only')",
            )
            .await?;
        let mut server = Self {
            lock_wait: [limits.lock_wait_seconds().to_string(), String::new()],
            ..Self::default()
        };
        for row in rows {
            let value: String = row.try_get(1)?;
            match row.try_get::<String, _>(0)?.as_str() {
                "version" => server.version = value,
                "transaction_isolation" | "tx_isolation" => server.isolation = value,
                "time_zone" => server.time_zone = value,
                "autocommit" => server.autocommit = value,
                "sql_mode" => server.sql_mode = value,
                "innodb_lock_wait_timeout" => server.lock_wait[1] = value,
                "binlog_format" => server.binlog = value,
                "log_bin" => server.log_bin = value,
                _ => server.read_only |= value == "ON",
            }
        }
        Ok(server)
    }

    /// Whether this is `MariaDB`.
    #[must_use]
    pub fn is_mariadb(&self) -> bool {
        self.version.contains("MariaDB")
    }

    /// Refuses a server or a session on which the statements would not do what they say. `name` is the database's.
    pub fn check(&self, name: &str) -> Result<(), BackendError> {
        self.judge(name)
            .into_iter()
            .try_for_each(|(_, judged)| judged.map(drop))
    }

    /// Judges one thing after another: what it is, or why it cannot be used.
    pub(super) fn judge(&self, name: &str) -> [(&'static str, Result<String, BackendError>); 4] {
        [
            ("server", self.judge_version(name)),
            ("session", self.judge_session(name)),
            ("binary log", self.judge_binlog(name)),
            ("read-only", self.judge_writing(name)),
        ]
    }

    /// The product, and the oldest release that has what the statements need.
    fn product(&self) -> (&'static str, (u32, u32)) {
        if self.is_mariadb() {
            ("MariaDB", (10, 6))
        } else {
            ("MySQL", (8, 0))
        }
    }

    fn judge_version(&self, name: &str) -> Result<String, BackendError> {
        let (product, oldest) = self.product();
        let found = format!("{product} {}", self.version);
        if release(&self.version) < oldest {
            let remedy = format!("podlog needs {product} {}.{} or newer", oldest.0, oldest.1);
            return Err(BackendError::refused(format!("{name} is {found}"), remedy));
        }
        Ok(found)
    }

    fn judge_session(&self, name: &str) -> Result<String, BackendError> {
        let [lock_wait_set, lock_wait] = &self.lock_wait;
        let wrong = [
            ("transaction isolation", &self.isolation, "READ-COMMITTED"),
            ("time_zone", &self.time_zone, "+00:00"),
            ("autocommit", &self.autocommit, "ON"),
            ("sql_mode", &self.sql_mode, SQL_MODE),
            ("innodb_lock_wait_timeout", lock_wait, lock_wait_set),
        ]
        .into_iter()
        .find(|(_, is, must)| is.as_str() != *must);
        if let Some((what, is, must)) = wrong {
            return Err(BackendError::refused(
                format!("{name} keeps {what} at {is} although podlog set it to {must}"),
                "a proxy in between must pass session settings on",
            ));
        }
        Ok("isolation READ-COMMITTED, strict sql_mode and UTC are in force".into())
    }

    fn judge_binlog(&self, name: &str) -> Result<String, BackendError> {
        if self.binlog == "STATEMENT" && self.log_bin != "OFF" {
            return Err(BackendError::refused(
                format!("{name} has binlog_format=STATEMENT, with which its copies would differ"),
                "set it to ROW",
            ));
        }
        Ok(if self.log_bin == "OFF" {
            "off".into()
        } else {
            format!("format {}", self.binlog)
        })
    }

    fn judge_writing(&self, name: &str) -> Result<String, BackendError> {
        if self.read_only {
            return Err(BackendError::unavailable(
                format!("{name} is read-only: it is failing over, or the address is a replica's"),
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

    #[test]
    fn the_release_is_read_from_every_form_of_version() {
        assert_eq!(release("8.4.3"), (8, 4));
        assert_eq!(release("10.11.19-MariaDB-0+deb12u1"), (10, 11));
        assert_eq!(release("5.5.5-10.6.1-MariaDB"), (10, 6));
    }

    #[test]
    fn a_server_or_session_that_cannot_be_used_is_refused_by_name() {
        type Change = fn(&mut Server);
        let good = Server {
            version: "9.7.4-2".into(),
            isolation: "READ-COMMITTED".into(),
            time_zone: "+00:00".into(),
            autocommit: "ON".into(),
            sql_mode: SQL_MODE.into(),
            lock_wait: ["3".into(), "3".into()],
            binlog: "ROW".into(),
            log_bin: "ON".into(),
            read_only: false,
        };
        good.check("db").unwrap();
        assert_eq!(good.judge("db")[0].1, Ok("MySQL 9.7.4-2".into()));
        let cases: [(Change, &str); 8] = [
            (
                |s| s.version = "5.7.44".into(),
                "db is MySQL 5.7.44; podlog needs MySQL 8.0 or newer",
            ),
            (
                |s| s.version = "5.5.5-10.5.1-MariaDB".into(),
                "podlog needs MariaDB 10.6 or newer",
            ),
            (|s| s.isolation = "REPEATABLE-READ".into(), "READ-COMMITTED"),
            (|s| s.time_zone = "SYSTEM".into(), "+00:00"),
            (|s| s.sql_mode = String::new(), "sql_mode"),
            (|s| s.lock_wait[1] = "50".into(), "innodb_lock_wait_timeout"),
            (|s| s.binlog = "STATEMENT".into(), "ROW"),
            (|s| s.read_only = true, "primary"),
        ];
        for (change, says) in cases {
            let mut server = good.clone();
            change(&mut server);
            let error = server.check("db").unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
