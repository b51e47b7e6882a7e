//! From a lock store's URL to a lock store: opening it, creating its tables, and what `podlog check` finds out about it.
//!
//! Opening connects once, without retrying, so that the true cause of a failure is shown. What it finds wrong with the
//! settings, privileges or tables is [`BackendError::Refused`]. It never changes a table.

use std::sync::Arc;

use super::batch::check_name;
use super::mysql::{self, MySqlLocks};
use super::schema::SCHEMA;
use super::sqlite::SqliteLocks;
use super::store::{Holder, LockStore};
use super::url::LockUrl;
use crate::db::database::Database;
use crate::db::diagnose::Scope;
use crate::db::url::DatabaseUrl;
use crate::db::{mysql as mysql_db, sqlite as sqlite_db};
use crate::domain::{BackendError, Finding};

/// Opens the store that `url` names, on behalf of `holder`. The store keeps one connection of its
/// own; callers that must not wait for each other open a store each.
pub async fn open(url: &LockUrl, holder: Holder) -> Result<Arc<dyn LockStore>, BackendError> {
    // The row of a replica is called `replica/<id>` and must fit as well.
    check_name("replica's row", &format!("replica/{}", holder.replica))?;
    check_name("replica id", holder.replica.as_str())?;
    check_name("cluster name", &holder.cluster)?;
    let db = database(url);
    Ok(match &url.0 {
        DatabaseUrl::MySql(url) => Arc::new(MySqlLocks::open(url, db, holder).await?),
        DatabaseUrl::Sqlite(path) => Arc::new(SqliteLocks::open(path, db, holder).await?),
    })
}

/// Creates the tables of the store that `url` names, or brings them up to date. Any number of
/// replicas may do so at once; each waits for the others, up to half a minute.
pub async fn migrate(url: &LockUrl) -> Result<(), BackendError> {
    let db = database(url);
    match &url.0 {
        DatabaseUrl::MySql(url) => mysql_db::migrate::migrate(url, &db).await,
        DatabaseUrl::Sqlite(path) => sqlite_db::migrate::migrate(path, &db).await,
    }
}

/// Checks the store that `url` names without changing it. `migrates` says whether `podlog run` would create the tables
/// itself.
pub async fn diagnose(url: &LockUrl, migrates: bool) -> Vec<Finding> {
    let db = database(url);
    let scope = Scope {
        migrates,
        retains: false,
        clock: true,
        largest_statement: None,
    };
    match &url.0 {
        DatabaseUrl::MySql(url) => mysql_db::diagnose::diagnose(url, &db, &mysql::LIMITS, scope).await,
        DatabaseUrl::Sqlite(path) => sqlite_db::diagnose::diagnose(path, &db, migrates).await,
    }
}

fn database(url: &LockUrl) -> Database {
    Database {
        name: format!("the lock store {url}"),
        schema: &SCHEMA,
    }
}
