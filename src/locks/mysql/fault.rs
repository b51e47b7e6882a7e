//! What an error of `MySQL` or `MariaDB` means for the connection and for the caller.
//!
//! Decides by error number, never by text. It does not log and does not retry.

use sqlx::mysql::MySqlDatabaseError;

use super::super::{LockError, schema};

/// What to do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Another transaction was in the way; the statement had no effect and may be sent again.
    Contended,
    /// The connection is of no use any more.
    Broken,
    /// The server takes no writes: it is failing over.
    ReadOnly,
    /// A person must change something.
    Refused,
    /// The server cannot just now.
    Busy,
}

/// `ER_LOCK_WAIT_TIMEOUT`: somebody holds a row lock longer than we wait.
pub(super) const LOCK_WAIT: u16 = 1205;

/// `ER_NO_SUCH_TABLE`.
pub(super) const NO_TABLE: u16 = 1146;

/// The server's number of an error, when it is the server's.
pub(super) fn number(error: &sqlx::Error) -> Option<u16> {
    let error = error.as_database_error()?;
    error
        .try_downcast_ref::<MySqlDatabaseError>()
        .map(MySqlDatabaseError::number)
}

/// Judges an error.
pub(super) fn judge(error: &sqlx::Error) -> Fault {
    let Some(number) = number(error) else {
        return match error {
            sqlx::Error::Configuration(_)
            | sqlx::Error::ColumnNotFound(_)
            | sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::Decode(_) => Fault::Refused,
            _ => Fault::Broken,
        };
    };
    match number {
        // Deadlock; lock wait timeout.
        1213 | LOCK_WAIT => Fault::Contended,
        // read_only or super_read_only; read-only transaction; server in read-only mode.
        1290 | 1792 | 1836 => Fault::ReadOnly,
        // Shutting down; interrupted; killed (both spellings); disconnected for idling; Galera node not in the cluster.
        1053 | 1317 | 1927 | 3169 | 4031 | 1047 => Fault::Broken,
        // Rights, user and password, unknown database, missing table or column, values that do not fit,
        // packet too large, schema-level access (MySQL's and MariaDB's number for roles alike).
        1044 | 1045 | 1049 | 1054 | 1142 | 1143 | 1146 | 1153 | 1227 | 1264 | 1366 | 1406 | 1698 | 3118 | 3159 => {
            Fault::Refused
        }
        _ => Fault::Busy,
    }
}

/// Explains an error of the store called `name` in one line.
pub(super) fn explain(name: &str, error: &sqlx::Error) -> LockError {
    let cause = match error.as_database_error() {
        Some(error) => error.message().to_owned(),
        None => error.to_string(),
    };
    let (known, remedy) = match number(error) {
        Some(1045 | 1698) => (
            true,
            "check user and password, and from which hosts the user may connect",
        ),
        Some(1044) => (true, "check the database's name and grant the user its rights on it"),
        Some(1049) => (true, "create the database, or correct its name in the URL"),
        Some(1146) => return schema::missing(name),
        Some(1142 | 1143 | 1227) => (
            true,
            "grant SELECT, INSERT, UPDATE and DELETE (for `podlog migrate` also CREATE, ALTER and INDEX)",
        ),
        Some(3118) => (true, "unlock the account"),
        Some(3159) => (true, "add ssl-mode=REQUIRED to the URL"),
        Some(1153) => (true, "raise max_allowed_packet to 16M or more"),
        Some(1290 | 1792 | 1836) => (
            false,
            "it is probably failing over, and a connection to the new primary is sought; if it stays so, point the URL at the primary",
        ),
        Some(1040 | 1203 | 1226) => (false, "raise max_connections or the user's limit"),
        _ => (judge(error) == Fault::Refused, "look at the server's error log"),
    };
    let found = format!("the lock store {name} failed: {cause}");
    if known {
        LockError::refused(found, remedy)
    } else {
        LockError::unavailable(found, remedy)
    }
}
