//! A database in use by one part of podlog.

use super::schema::Schema;

/// A database, and what it is used for.
#[derive(Clone, Debug)]
pub(crate) struct Database {
    /// What messages call it: its use and its URL without the password, such as
    /// `the lock store mysql://podlog:***@db/podlog`.
    pub name: String,
    /// The tables that must be there.
    pub schema: &'static Schema,
}
