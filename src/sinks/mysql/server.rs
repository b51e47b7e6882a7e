//! What kind of server a MySQL sink is connected to, and whether its statements mean there what they say.

use sqlx::mysql::MySqlConnection;
use sqlx::{Error, Executor, Row as _};

use crate::db::mysql::product;
use crate::sinks::SinkOpenError;

/// The server and the session, as the server reports them.
#[derive(Clone, Debug, Default)]
pub(super) struct Server {
    version: String,
    isolation: String,
    sql_mode: String,
    read_only: bool,
}

impl Server {
    pub(super) async fn ask(conn: &mut MySqlConnection) -> Result<Self, Error> {
        let rows = conn
            .fetch_all(
                "SHOW SESSION VARIABLES WHERE Variable_name IN \
                 ('version', 'transaction_isolation', 'tx_isolation', 'sql_mode', 'read_only', 'innodb_read_only')",
            )
            .await?;
        let mut server = Self::default();
        for row in rows {
            let value: String = row.try_get(1)?;
            match row.try_get::<String, _>(0)?.as_str() {
                "version" => server.version = value,
                "transaction_isolation" | "tx_isolation" => server.isolation = value,
                "sql_mode" => server.sql_mode = value,
                _ => server.read_only |= value == "ON",
            }
        }
        Ok(server)
    }

    /// Whether values that do not fit are refused instead of cut.
    pub(super) fn is_strict(&self) -> bool {
        self.sql_mode.contains("STRICT_")
    }

    /// Refuses a server on which no later try can help.
    pub(super) fn check(&self, name: &str) -> Result<(), SinkOpenError> {
        let judged = self.judge(name).into_iter().filter_map(|(_, judged)| judged.err());
        let refused = judged
            .into_iter()
            .find(|error| matches!(error, SinkOpenError::Refused(_)));
        refused.map_or(Ok(()), Err)
    }

    /// Judges one thing after another: what it is, or why it cannot be used.
    pub(super) fn judge(&self, name: &str) -> [(&'static str, Result<String, SinkOpenError>); 3] {
        let refused = |why: String, remedy: String| Err(SinkOpenError::refused(format!("mysql {name}: {why}"), remedy));
        let name_and_version = product::product(&self.version);
        let server = match product::too_old(&self.version) {
            Some(remedy) => refused(format!("the server is {name_and_version}"), remedy),
            None => Ok(name_and_version),
        };
        let session = if self.isolation == "READ-COMMITTED" {
            Ok("isolation READ-COMMITTED is in force".into())
        } else {
            refused(
                format!("the isolation level stays {} although podlog set it", self.isolation),
                "a proxy in between must pass session settings on".into(),
            )
        };
        let writable = if self.read_only {
            Err(SinkOpenError::unavailable(
                format!("mysql {name}: the server is read-only; it is failing over, or the address is a replica's"),
                "if it stays so, point the URL at the primary",
            ))
        } else {
            Ok("no".into())
        };
        [("server", server), ("session", session), ("read-only", writable)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_too_old_or_not_as_set_is_refused() {
        let good = Server {
            version: "9.7.4-2".into(),
            isolation: "READ-COMMITTED".into(),
            sql_mode: "STRICT_TRANS_TABLES".into(),
            read_only: false,
        };
        good.check("db").unwrap();
        assert!(good.is_strict());
        let says = |server: Server| server.check("db").unwrap_err().to_string();
        let old = |version: &str| Server {
            version: version.into(),
            ..good.clone()
        };
        assert!(says(old("5.7.44")).contains("MySQL 8.0"));
        assert!(says(old("5.5.5-10.5.1-MariaDB")).contains("MariaDB 10.6"));
        let loose = Server {
            isolation: "REPEATABLE-READ".into(),
            ..good.clone()
        };
        assert!(says(loose).contains("proxy"));
        // A server that is read-only now may be writable soon.
        let failing_over = Server {
            read_only: true,
            ..good.clone()
        };
        failing_over.check("db").unwrap();
        assert!(failing_over.judge("db")[2].1.is_err());
    }
}
