//! What `podlog check` finds out about a sink. It stores nothing: what a check begins it rolls back or removes.

use super::file;
use super::open::database;
use super::sql::mysql;
use super::url::{Destination, SinkUrl};
use crate::db::diagnose::Scope;
use crate::db::url::DatabaseUrl;
use crate::db::{mysql as mysql_db, sqlite as sqlite_db};
use crate::domain::Finding;

/// What the settings need of a sink.
#[derive(Clone, Copy, Debug)]
pub struct SinkNeeds {
    /// Whether `podlog run` creates the tables itself.
    pub migrates: bool,
    /// Whether old records are deleted.
    pub retains: bool,
    /// The longest line, bytes.
    pub max_line: usize,
}

/// Checks the sink that `url` names.
pub async fn diagnose(url: &SinkUrl, needs: SinkNeeds) -> Vec<Finding> {
    let db = database(url);
    let scope = Scope {
        migrates: needs.migrates,
        retains: needs.retains,
        clock: false,
        largest_statement: Some(needs.max_line + mysql::PACKET_REST),
    };
    match &url.destination {
        Destination::Stdout => vec![Finding::ok(
            "stdout",
            "records go to standard output; there is nothing to check",
        )],
        Destination::File(options) => file::diagnose(options).await,
        Destination::Database(DatabaseUrl::Sqlite(path)) => {
            sqlite_db::diagnose::diagnose(path, &db, needs.migrates).await
        }
        Destination::Database(DatabaseUrl::MySql(url)) => {
            let limits = mysql::session_limits(crate::db::diagnose::DEADLINE);
            mysql_db::diagnose::diagnose(url, &db, &limits, scope).await
        }
    }
}
