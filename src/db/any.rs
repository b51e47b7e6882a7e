//! What is done in the same way with a database of any kind, for callers that know the kind from a URL only.

use async_trait::async_trait;

use super::database::{Database, DatabaseKind, DiagnoseOptions};
use super::migrate::migrate;
use crate::domain::{BackendError, Finding};

/// A database of any kind.
#[async_trait]
pub(crate) trait AnyDatabase: Send + Sync {
    /// Creates the tables, or brings them up to date. Any number of replicas may do so at once: one does, the others wait.
    async fn migrate(&self) -> Result<(), BackendError>;

    /// Checks everything that `podlog check` reports of the database. It changes nothing.
    async fn diagnose(&self, options: DiagnoseOptions) -> Vec<Finding>;
}

#[async_trait]
impl<K: DatabaseKind> AnyDatabase for Database<K> {
    async fn migrate(&self) -> Result<(), BackendError> {
        migrate(self).await
    }

    async fn diagnose(&self, options: DiagnoseOptions) -> Vec<Finding> {
        K::diagnose(self, options).await
    }
}
