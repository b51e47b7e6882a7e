//! What a failure of MySQL or MariaDB means, and what a person can do about it.

use sqlx::Error;
use sqlx::mysql::MySqlDatabaseError;

use crate::domain::Message;
use crate::sinks::SinkOpenError;

pub(super) fn number(error: &Error) -> Option<u16> {
    let error = error.as_database_error()?;
    Some(error.try_downcast_ref::<MySqlDatabaseError>()?.number())
}

/// A value is longer than its column: no later try can help.
pub(in crate::sinks) fn too_long(error: &Error) -> bool {
    number(error) == Some(1406)
}

/// The cause and the remedy, on one line.
pub(in crate::sinks) fn cause(error: &Error) -> String {
    message(error).to_string()
}

fn message(error: &Error) -> Message {
    let remedy = match number(error) {
        Some(1213) => "two transactions met; trying again is enough",
        Some(1205) => "another transaction holds a row of log_stream; end it if this goes on",
        Some(1062) => "another replica opened the same stream at the same moment; trying again is enough",
        Some(1290 | 1792 | 1836 | 3032) => "the server is read-only; it is failing over, or the address is a replica's",
        Some(1021 | 1026 | 1030 | 1114) => "the server cannot write; its disk is probably full, so free some space",
        Some(1040 | 1203 | 1226) => "the server has no connection left; raise max_connections or end others",
        Some(1153) => "a statement was larger than max_allowed_packet",
        Some(1044 | 1045 | 1142 | 1143 | 1227 | 1370) => {
            "the user needs SELECT, INSERT, UPDATE and DELETE on the log_ tables"
        }
        Some(1049 | 1054 | 1146) => "run `podlog migrate`",
        Some(_) => "",
        None => "the server is unreachable or has closed the connection",
    };
    Message {
        text: error.to_string(),
        remedy: remedy.into(),
    }
}

/// The failure as an answer to opening the sink: whether a person must change something.
pub(in crate::sinks) fn refusal(name: &str, error: &Error) -> SinkOpenError {
    let named = |text: &dyn std::fmt::Display| format!("mysql {name}: {text}");
    let unavailable = || {
        let Message { text, remedy } = message(error);
        SinkOpenError::unavailable(named(&text), remedy)
    };
    let remedy = match number(error) {
        Some(1044) => "grant the user rights on the database",
        Some(1045 | 1698) => "check the user and the password",
        Some(1049) => "create the database, or correct its name in the URL",
        Some(1142 | 1143 | 1227 | 1370) => "grant the user rights on the log_ tables",
        Some(_) => return unavailable(),
        None => match error {
            Error::Configuration(_) => "correct the URL",
            Error::Tls(_) => "check ssl-mode and ssl-ca in the URL",
            _ => return unavailable(),
        },
    };
    SinkOpenError::refused(named(error), remedy)
}
