//! What an error of `MySQL` or `MariaDB` means for the connection and for the caller.
//!
//! Errors are told apart by their number, never by their text. Nothing here logs or retries.

use sqlx::mysql::MySqlDatabaseError;
use sqlx::{Error, MySql};

use crate::db::database::{Database, ErrorClass, cause};
use crate::domain::BackendError;

/// `ER_LOCK_WAIT_TIMEOUT`: another transaction holds a row lock longer than the session waits.
const LOCK_WAIT: u16 = 1205;

/// `ER_NO_SUCH_TABLE`.
const NO_TABLE: u16 = 1146;

/// The server's number of an error; none if the error is not the server's.
fn number(error: &Error) -> Option<u16> {
    let error = error.as_database_error()?;
    Some(error.try_downcast_ref::<MySqlDatabaseError>()?.number())
}

/// Whether another transaction holds a row that the statement needed.
#[must_use]
pub(crate) fn is_lock_wait(error: &Error) -> bool {
    number(error) == Some(LOCK_WAIT)
}

/// Whether a table does not exist.
#[must_use]
pub(super) fn is_no_table(error: &Error) -> bool {
    number(error) == Some(NO_TABLE)
}

/// Whether a value is longer than its column. Then no later try can help.
#[must_use]
pub(crate) fn is_too_long(error: &Error) -> bool {
    number(error) == Some(1406)
}

/// Whether the user lacks a privilege for the statement, a column or the database.
pub(super) fn is_denied(error: &Error) -> bool {
    matches!(number(error), Some(1142 | 1143 | 1044))
}

/// Whether a `CREATE` failed only because it names a column twice. The server checks that after the user's privilege.
pub(super) fn is_duplicate_column(error: &Error) -> bool {
    number(error) == Some(1060)
}

/// Classifies an error.
#[must_use]
pub(super) fn classify(error: &Error) -> ErrorClass {
    let Some(number) = number(error) else {
        return match error {
            Error::Configuration(_)
            | Error::Tls(_)
            | Error::ColumnNotFound(_)
            | Error::ColumnDecode { .. }
            | Error::Decode(_) => ErrorClass::Refused,
            _ => ErrorClass::Broken,
        };
    };
    match number {
        // Deadlock; lock wait timeout.
        1213 | LOCK_WAIT => ErrorClass::Contended,
        // read_only or super_read_only; read-only transaction; server in read-only mode; server in offline mode, in which
        // it is set while it is being replaced: a new connection may reach the new primary.
        1290 | 1792 | 1836 | 3032 => ErrorClass::Reconnect,
        // Shutting down; interrupted; killed (both spellings); disconnected because idle; Galera node not in the cluster.
        1053 | 1317 | 1927 | 3169 | 4031 | 1047 => ErrorClass::Broken,
        // Privileges; user and password; database; table or column; values that do not fit; packet too large; log-in without a
        // password; expired password (twice); account that is locked, or blocked after too many refused log-ins (both of
        // both products); server that demands TLS. 1370 is a missing privilege on a procedure.
        1044 | 1045 | 1049 | 1054 | 1142 | 1143 | NO_TABLE | 1153 | 1227 | 1264 | 1366 | 1370 | 1406 | 1698 | 1820
        | 1862 | 3118 | 3955 | 4150 | 4151 | 3159 => ErrorClass::Refused,
        _ => ErrorClass::Busy,
    }
}

const CHANGED: &str = "the tables were changed by hand or have another version; run `podlog migrate`";

/// Explains an error in one line.
#[must_use]
pub(super) fn explain(db: &Database<MySql>, error: &Error) -> BackendError {
    let name = &db.name;
    let cause = cause(error);
    let remedy = match number(error) {
        Some(1045 | 1698) => return wrong_password(db, &cause),
        Some(1129) => {
            "the server counts attempts to log in that were not ended; find out what breaks them, then run FLUSH HOSTS (or TRUNCATE performance_schema.host_cache) and raise max_connect_errors"
        }
        Some(1044) => "check the database's name, and grant the user its rights on it",
        Some(1049) => "create the database, or correct its name in the URL",
        Some(NO_TABLE) => return db.schema.tables.missing_table(name, &cause),
        Some(1054) => CHANGED,
        Some(1142 | 1143 | 1227 | 1370) => return denied(db, &cause),
        Some(3118 | 4151) => "unlock the account (ALTER USER … ACCOUNT UNLOCK)",
        Some(3955 | 4150) => {
            "too many log-ins with a wrong password have blocked the account; correct the password, then run ALTER USER … ACCOUNT UNLOCK (MySQL) or FLUSH PRIVILEGES (MariaDB)"
        }
        Some(1820 | 1862) => {
            "the password has expired; set another (ALTER USER), or let it not expire (PASSWORD EXPIRE NEVER)"
        }
        Some(3159) => "add ssl-mode=REQUIRED to the URL",
        Some(1153) => "raise max_allowed_packet to 16M or more",
        Some(1290 | 1792 | 1836 | 3032) => {
            "it is probably failing over, and podlog looks for the new primary; if it stays so, point the URL at the primary"
        }
        Some(1213) => "two transactions waited for each other; the next try is enough",
        Some(LOCK_WAIT) => "another transaction holds a row for long; end it if this continues",
        Some(1062) => "another replica wrote the same row at the same moment; the next try is enough",
        Some(1021 | 1026 | 1030 | 1114) => "the server's disk is probably full; free some space",
        Some(1040 | 1203 | 1226) => "raise max_connections or the user's limit, or end other connections",
        Some(_) => "look at the server's error log",
        None => match error {
            Error::Configuration(_) => "correct the URL",
            Error::Tls(_) => "check ssl-mode and ssl-ca in the URL",
            Error::ColumnNotFound(_) | Error::ColumnDecode { .. } | Error::Decode(_) => CHANGED,
            _ => "the server cannot be reached or has closed the connection; check that it runs",
        },
    };
    let text = format!("{name} failed: {cause}");
    if classify(error) == ErrorClass::Refused {
        BackendError::refused(text, remedy)
    } else {
        BackendError::unavailable(text, remedy)
    }
}

fn wrong_password(db: &Database<MySql>, cause: &str) -> BackendError {
    BackendError::refused(
        format!("{} refused the log-in: {cause}", db.name),
        format!(
            "check the user and the password (from {}), and from which hosts the user may connect",
            db.location.password_source()
        ),
    )
}

/// Explains that migrations of other processes could not be kept out.
#[must_use]
pub(super) fn no_lock(db: &Database<MySql>, error: &Error) -> BackendError {
    if classify(error) == ErrorClass::Broken {
        return explain(db, error);
    }
    BackendError::refused(
        format!(
            "{} refuses GET_LOCK, by which only one process migrates: {}",
            db.name,
            cause(error)
        ),
        "on Percona XtraDB Cluster, set pxc_strict_mode=PERMISSIVE while `podlog migrate` runs; otherwise let a proxy pass it on",
    )
}

fn denied(db: &Database<MySql>, cause: &str) -> BackendError {
    let (grant, create) = (db.schema.tables.grant, db.schema.tables.create_grant);
    BackendError::refused(
        format!("{} failed: {cause}", db.name),
        format!("grant the user {grant} (for `podlog migrate` also {create})"),
    )
}
