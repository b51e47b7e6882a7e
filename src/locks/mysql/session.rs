//! The one connection of a store: how it is made, kept, judged and replaced.
//!
//! A job either gives the connection back in order or the socket is closed: a cancelled or timed-out
//! statement would keep it busy, and what became of it is found out by looking, never assumed.
//! There is no pool, because a pool pings before and after every statement.

use std::time::Duration;

use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sqlx::{ConnectOptions, Executor, Row};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use url::Url;

use super::super::{LockError, STATEMENT_DEADLINE};
use super::fault::{self, Fault};
use crate::db::mysql::product;

/// How long connecting may take, log-in and settings included.
const CONNECT: Duration = Duration::from_secs(2);

/// Pauses between attempts to connect: doubled after each failure, reset by success. The longest
/// leaves time for an attempt within one statement deadline.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How long a row lock of somebody else is waited for: the fall-back and the reading back must fit
/// into the same 3 s. The server counts whole seconds.
const LOCK_WAIT_SECONDS: &str = "1";

/// Strict, so that nothing is cut silently; the rest of the server's modes could change what the statements mean.
const SQL_MODE: &str = "STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION";

/// Work on a connection that may be done again from the start when it failed in the middle.
pub(super) trait Job: Sync {
    /// What it answers.
    type Answer: Send;
    /// Does it once.
    fn run(&self, conn: &mut MySqlConnection) -> impl Future<Output = Result<Self::Answer, sqlx::Error>> + Send;
}

/// A connection that is replaced when it breaks.
#[derive(Debug)]
pub(super) struct Session {
    options: MySqlConnectOptions,
    /// The URL without its password, for errors.
    name: String,
    slot: Mutex<Slot>,
}

#[derive(Debug)]
struct Slot {
    conn: Option<MySqlConnection>,
    not_before: Instant,
    pause: Duration,
}

/// Options from a URL. What the statements rely on is not left to it.
pub(super) fn options(url: &Url, name: &str) -> Result<MySqlConnectOptions, LockError> {
    let options = MySqlConnectOptions::from_url(url)
        .map_err(|error| LockError::refused(format!("the lock URL {name} cannot be used: {error}"), "correct it"))?;
    Ok(options
        .charset("utf8mb4")
        .pipes_as_concat(false)
        .no_engine_substitution(false)
        .disable_statement_logging())
}

impl Session {
    /// Begins with a connection that was just made.
    pub(super) fn new(options: MySqlConnectOptions, name: String, conn: MySqlConnection) -> Self {
        let slot = Slot {
            conn: Some(conn),
            not_before: Instant::now(),
            pause: PAUSE,
        };
        Self {
            options,
            name,
            slot: Mutex::new(slot),
        }
    }

    /// The URL without its password.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Does a job within [`STATEMENT_DEADLINE`], again after a contention or on a new connection if
    /// need be. Waiting for the job before it is not counted.
    pub(super) async fn run<J: Job>(&self, job: &J) -> Result<J::Answer, LockError> {
        let mut slot = self.slot.lock().await;
        let deadline = Instant::now() + STATEMENT_DEADLINE;
        loop {
            // Taken out while in use: when this future is dropped half-way, so is the connection.
            let mut conn = match slot.conn.take() {
                Some(conn) => conn,
                None => self.reconnect(&mut slot, deadline).await?,
            };
            let Ok(done) = timeout_at(deadline, job.run(&mut conn)).await else {
                return Err(self.late("the statement was not answered"));
            };
            let error = match done {
                Ok(answer) => {
                    slot.conn = Some(conn);
                    return Ok(answer);
                }
                Err(error) => error,
            };
            match fault::judge(&error) {
                Fault::Contended => {
                    slot.conn = Some(conn);
                    let pause = Duration::from_millis(fastrand::u64(10..100));
                    if Instant::now() + pause >= deadline {
                        return Err(fault::explain(&self.name, &error));
                    }
                    sleep(pause).await;
                }
                Fault::Broken => tracing::debug!(store = self.name, %error, "the connection broke; making another"),
                Fault::ReadOnly => {
                    slot.not_before = Instant::now() + PAUSE;
                    return Err(fault::explain(&self.name, &error));
                }
                Fault::Refused | Fault::Busy => {
                    slot.conn = Some(conn);
                    return Err(fault::explain(&self.name, &error));
                }
            }
        }
    }

    async fn reconnect(&self, slot: &mut Slot, deadline: Instant) -> Result<MySqlConnection, LockError> {
        if slot.not_before >= deadline {
            return Err(self.late("the pause before the next attempt to connect"));
        }
        sleep_until(slot.not_before).await;
        let made = timeout_at(deadline, connect(&self.options, &self.name)).await;
        // ±25 %, so that replicas do not come back in step after an outage.
        slot.not_before = Instant::now() + slot.pause.mul_f64(0.75 + fastrand::f64() / 2.0);
        let error = match made {
            Ok(Ok((conn, _))) => {
                slot.pause = PAUSE;
                return Ok(conn);
            }
            Ok(Err(error)) => error,
            Err(_) => self.late("connecting took too long"),
        };
        slot.pause = (slot.pause * 2).min(LONGEST_PAUSE);
        Err(error)
    }

    fn late(&self, what: &str) -> LockError {
        let limit = STATEMENT_DEADLINE.as_secs();
        LockError::unavailable(
            format!("the lock store {} did not answer within {limit} s ({what})", self.name),
            "look whether it is overloaded, or the network down",
        )
    }
}

/// Makes a connection, sets what the statements rely on and checks that it took effect.
pub(super) async fn connect(
    options: &MySqlConnectOptions,
    name: &str,
) -> Result<(MySqlConnection, Settings), LockError> {
    let (conn, settings) = dial(options, name).await?;
    settings.check(name)?;
    Ok((conn, settings))
}

/// The same without judging what took effect.
pub(super) async fn dial(options: &MySqlConnectOptions, name: &str) -> Result<(MySqlConnection, Settings), LockError> {
    let attempt = async {
        let mut conn = match options.connect().await {
            Ok(conn) => conn,
            Err(error) => return Err(unreachable(options, name, &error).await),
        };
        let settings = settle(&mut conn).await.map_err(|error| fault::explain(name, &error))?;
        Ok((conn, settings))
    };
    match timeout(CONNECT, attempt).await {
        Ok(made) => made,
        Err(_) => Err(LockError::unavailable(
            format!("the lock store {name} did not answer within {} s", CONNECT.as_secs()),
            "check that the address is right and the port open",
        )),
    }
}

/// Tells an unknown host, which somebody must correct, from a server that is down.
async fn unreachable(options: &MySqlConnectOptions, name: &str, error: &sqlx::Error) -> LockError {
    let tls = |cause: &dyn std::fmt::Display| {
        LockError::refused(
            format!("the lock store {name} did not agree on TLS: {cause}"),
            "check ssl-mode and ssl-ca in the URL",
        )
    };
    match error {
        // The handshake's own error comes wrapped.
        sqlx::Error::Io(cause) if matches!(cause.get_ref(), Some(inner) if inner.is::<rustls::Error>()) => tls(cause),
        sqlx::Error::Io(cause) if options.get_socket().is_none() => {
            let host = options.get_host();
            match tokio::net::lookup_host((host, options.get_port())).await {
                // A name server that does not answer may answer soon; one that says no means it.
                Err(lookup) if !lookup.to_string().contains("Temporary failure") => LockError::refused(
                    format!("the lock store {name} cannot be found: {host} has no address ({lookup})"),
                    "correct the host in the URL",
                ),
                _ => LockError::unavailable(
                    format!("the lock store {name} cannot be reached: {cause}"),
                    "check that it runs, and that firewalls and network policies let podlog through",
                ),
            }
        }
        sqlx::Error::Tls(cause) => tls(cause),
        other => fault::explain(name, other),
    }
}

/// The settings of a session that the statements rely on, as the server reports them.
#[derive(Debug, Default)]
pub(super) struct Settings {
    version: String,
    isolation: String,
    time_zone: String,
    lock_wait: String,
    autocommit: String,
    sql_mode: String,
    binlog: String,
    log_bin: String,
    read_only: bool,
}

async fn settle(conn: &mut MySqlConnection) -> Result<Settings, sqlx::Error> {
    // The mode as in `SQL_MODE`.
    conn.execute(
        "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', time_zone = '+00:00', \
         innodb_lock_wait_timeout = 1, lock_wait_timeout = 2, \
         autocommit = 1, wait_timeout = 600",
    )
    .await?;
    // Under REPEATABLE READ a statement would lock rows that it only passes by.
    conn.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE")
        .await?;
    let rows = conn
        .fetch_all(
            "SHOW SESSION VARIABLES WHERE Variable_name IN ('version', 'transaction_isolation', 'tx_isolation', \
             'time_zone', 'innodb_lock_wait_timeout', 'autocommit', 'sql_mode', 'binlog_format', 'log_bin', 'read_only', 'innodb_read_only')",
        )
        .await?;
    let mut settings = Settings::default();
    for row in rows {
        let value: String = row.try_get(1)?;
        match row.try_get::<String, _>(0)?.as_str() {
            "version" => settings.version = value,
            "transaction_isolation" | "tx_isolation" => settings.isolation = value,
            "time_zone" => settings.time_zone = value,
            "innodb_lock_wait_timeout" => settings.lock_wait = value,
            "autocommit" => settings.autocommit = value,
            "sql_mode" => settings.sql_mode = value,
            "binlog_format" => settings.binlog = value,
            "log_bin" => settings.log_bin = value,
            _ => settings.read_only |= value == "ON",
        }
    }
    Ok(settings)
}

impl Settings {
    /// Whether this is `MariaDB`.
    pub(super) fn is_mariadb(&self) -> bool {
        product::is_mariadb(&self.version)
    }

    /// Refuses a session in which the statements would not do what they say.
    fn check(&self, name: &str) -> Result<(), LockError> {
        let wrong = self.judge(name).into_iter().find_map(|(_, judged)| judged.err());
        wrong.map_or(Ok(()), Err)
    }

    /// Judges the server and the session: what each thing is, or why it cannot be used.
    pub(super) fn judge(&self, name: &str) -> [(&'static str, Result<String, LockError>); 4] {
        [
            ("server", self.judge_version(name)),
            ("session", self.judge_session(name)),
            ("binary log", self.judge_binlog(name)),
            ("read-only", self.judge_writing(name)),
        ]
    }

    fn judge_version(&self, name: &str) -> Result<String, LockError> {
        let name_and_version = product::product(&self.version);
        match product::too_old(&self.version) {
            Some(remedy) => Err(LockError::refused(
                format!("the lock store {name} is {name_and_version}"),
                remedy,
            )),
            None => Ok(name_and_version),
        }
    }

    fn judge_session(&self, name: &str) -> Result<String, LockError> {
        let wrong = [
            ("transaction isolation", &self.isolation, "READ-COMMITTED"),
            ("time_zone", &self.time_zone, "+00:00"),
            ("innodb_lock_wait_timeout", &self.lock_wait, LOCK_WAIT_SECONDS),
            ("autocommit", &self.autocommit, "ON"),
            ("sql_mode", &self.sql_mode, SQL_MODE),
        ]
        .into_iter()
        .find(|(_, is, must)| is.as_str() != *must);
        if let Some((what, is, must)) = wrong {
            return Err(LockError::refused(
                format!("the lock store {name} keeps {what} at {is} although podlog set it to {must}"),
                "a proxy in between must pass session settings on",
            ));
        }
        Ok("isolation READ-COMMITTED, strict sql_mode and UTC are in force".into())
    }

    fn judge_binlog(&self, name: &str) -> Result<String, LockError> {
        if self.binlog == "STATEMENT" && self.log_bin != "OFF" {
            return Err(LockError::refused(
                format!("the lock store {name} has binlog_format=STATEMENT, with which its copies would differ"),
                "set it to ROW",
            ));
        }
        Ok(if self.log_bin == "OFF" {
            "off".into()
        } else {
            format!("format {}", self.binlog)
        })
    }

    fn judge_writing(&self, name: &str) -> Result<String, LockError> {
        if self.read_only {
            return Err(LockError::unavailable(
                format!("the lock store {name} is read-only, probably failing over"),
                "if it stays so, point the URL at the primary",
            ));
        }
        Ok("no".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Settings {
        Settings {
            version: "9.7.4-2".into(),
            isolation: "READ-COMMITTED".into(),
            time_zone: "+00:00".into(),
            lock_wait: "1".into(),
            autocommit: "ON".into(),
            sql_mode: SQL_MODE.into(),
            binlog: "ROW".into(),
            log_bin: "ON".into(),
            read_only: false,
        }
    }

    #[test]
    fn a_session_that_is_not_as_set_is_refused_by_name() {
        type Change = fn(&mut Settings);
        good().check("db").unwrap();
        let cases: [(Change, &str); 7] = [
            (|s| s.version = "5.7.44".into(), "MySQL 8.0"),
            (|s| s.version = "5.5.5-10.5.1-MariaDB".into(), "MariaDB 10.6"),
            (|s| s.isolation = "REPEATABLE-READ".into(), "READ-COMMITTED"),
            (|s| s.time_zone = "SYSTEM".into(), "+00:00"),
            (|s| s.sql_mode = String::new(), "sql_mode"),
            (|s| s.binlog = "STATEMENT".into(), "ROW"),
            (|s| s.read_only = true, "primary"),
        ];
        for (change, says) in cases {
            let mut settings = good();
            change(&mut settings);
            let error = settings.check("db").unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
