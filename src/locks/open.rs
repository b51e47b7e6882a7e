//! From a lock store's URL to a lock store: opening it, creating its tables, and what `podlog check` finds out about it.
//!
//! Opening connects once, without retrying, so that the true cause of a failure is shown. What it finds wrong with the
//! settings, privileges or tables is [`BackendError::Refused`]. It never changes a table.

use std::sync::Arc;

use async_trait::async_trait;
use sqlx::{MySql, Sqlite};

use super::batch::check_name;
use super::mysql::MySqlLocks;
use super::schema;
use super::sqlite::SqliteLocks;
use super::store::{Holder, LockStore};
use super::url::LockUrl;
use crate::db::any::AnyDatabase;
use crate::db::database::{Database, DiagnoseOptions};
use crate::db::url::DatabaseUrl;
use crate::domain::{BackendError, Finding};

/// Opens the store that `url` names, on behalf of `holder`. The store keeps one connection of its
/// own; callers that must not wait for each other open a store each.
pub async fn open(url: &LockUrl, holder: Holder) -> Result<Arc<dyn LockStore>, BackendError> {
    // The row of a replica is called `replica/<id>` and must fit as well.
    check_name("replica's row", &format!("replica/{}", holder.replica))?;
    check_name("replica id", holder.replica.as_str())?;
    check_name("cluster name", &holder.cluster)?;
    database(url).open(holder).await
}

/// Creates the tables of the store that `url` names, or brings them up to date. Any number of
/// replicas may do so at once; each waits for the others, up to half a minute.
pub async fn migrate(url: &LockUrl) -> Result<(), BackendError> {
    database(url).migrate().await
}

/// Checks the store that `url` names without changing it. `migrates` says whether `podlog run` would create the tables
/// itself.
pub async fn diagnose(url: &LockUrl, migrates: bool) -> Vec<Finding> {
    let options = DiagnoseOptions {
        migrates,
        retains: false,
        max_line: 0,
    };
    database(url).diagnose(options).await
}

/// A database in which claims can be stored.
#[async_trait]
trait LockDatabase: AnyDatabase {
    async fn open(self: Box<Self>, holder: Holder) -> Result<Arc<dyn LockStore>, BackendError>;
}

#[async_trait]
impl LockDatabase for Database<MySql> {
    async fn open(self: Box<Self>, holder: Holder) -> Result<Arc<dyn LockStore>, BackendError> {
        Ok(Arc::new(MySqlLocks::open(*self, holder).await?))
    }
}

#[async_trait]
impl LockDatabase for Database<Sqlite> {
    async fn open(self: Box<Self>, holder: Holder) -> Result<Arc<dyn LockStore>, BackendError> {
        Ok(Arc::new(SqliteLocks::open(*self, holder).await?))
    }
}

fn database(url: &LockUrl) -> Box<dyn LockDatabase> {
    let name = format!("the lock store {url}");
    match &url.0 {
        DatabaseUrl::MySql(url) => Box::new(Database::new(name, url.clone().into(), &schema::MYSQL)),
        DatabaseUrl::Sqlite(path) => Box::new(Database::new(name, path.clone(), &schema::SQLITE)),
    }
}
