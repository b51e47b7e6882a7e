//! What a use of a database sets and demands on `MySQL` and `MariaDB`, as data: claims demand more than records.
//!
//! Nothing here asks a server or judges one.

/// What a server or a session is judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aspect {
    /// The product and its version.
    Version,
    /// The settings of the session: a proxy in between may drop them.
    Session,
    /// The format of the binary log.
    BinaryLog,
    /// Whether the server accepts writes.
    Writable,
}

/// What one use of a database sets and demands.
#[derive(Debug)]
pub(crate) struct Demands {
    /// Settings that every session gets and must keep, besides the transaction isolation. Other settings are the
    /// server's, with what the driver adds.
    pub settings: &'static [(&'static str, &'static str)],
    /// Whether a session must keep `innodb_lock_wait_timeout` as well.
    pub keeps_lock_wait: bool,
    /// What messages say when a session has kept all of this.
    pub in_force: &'static str,
    /// What `podlog check` reports.
    pub reported: &'static [Aspect],
    /// What must be correct before the tables are used.
    pub to_open: &'static [Aspect],
    /// What must be correct before the tables are created.
    pub to_migrate: &'static [Aspect],
    /// Whether an unknown host and a failed TLS handshake are errors that only a person can correct. Otherwise
    /// connecting is tried again.
    pub final_connect_errors: bool,
}
