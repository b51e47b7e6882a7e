//! Opening a lock store by its URL, and making its tables.
//!
//! Opening connects once, without retrying, so that the true cause of a failure is shown; what it
//! finds wrong with the settings, rights or tables is [`LockError::Refused`]. It never changes the schema.

use std::sync::Arc;

use super::batch::check_name;
use super::mysql::{self, MySqlLocks};
use super::sqlite::{self, SqliteLocks};
use super::url::{LockUrl, Place};
use super::{Holder, LockError, LockStore};

/// Opens the store that `url` names, on behalf of `holder`. The store keeps one connection of its
/// own; callers that must not wait for each other open a store each.
pub async fn open(url: &LockUrl, holder: Holder) -> Result<Arc<dyn LockStore>, LockError> {
    // The row of a replica is called `replica/<id>` and must fit as well.
    check_name("replica's row", &format!("replica/{}", holder.replica))?;
    check_name("replica id", holder.replica.as_str())?;
    check_name("cluster name", &holder.cluster)?;
    Ok(match &url.0 {
        Place::MySql(inner) => Arc::new(MySqlLocks::open(inner, url.to_string(), holder).await?),
        Place::Sqlite(path) => Arc::new(SqliteLocks::open(path, holder).await?),
    })
}

/// Makes the tables of the store that `url` names, or brings them up to date. Any number of
/// replicas may do so at once; each waits for the others, up to half a minute.
pub async fn migrate(url: &LockUrl) -> Result<(), LockError> {
    match &url.0 {
        Place::MySql(inner) => mysql::migrate(inner, url.to_string()).await,
        Place::Sqlite(path) => sqlite::migrate(path).await,
    }
}
