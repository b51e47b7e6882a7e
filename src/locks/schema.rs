//! What a lock store needs of its database, as data: the table of claims, and the rights on it.

use super::{mysql, sqlite};
use crate::db::schema::{Dialect, Schema};

/// The table of claims.
pub(super) static SCHEMA: Schema = Schema {
    tables: "lock tables",
    versions: "podlog_locks_migrations",
    grant: "SELECT, INSERT, UPDATE and DELETE on distributed_lock",
    create_grant: "CREATE, ALTER and INDEX",
    leftovers: "distributed_lock",
    has_views: false,
    probed: "a row was written, changed and removed",
    mysql: Dialect {
        migrations: sqlx::migrate!("migrations/mysql/locks"),
        rights: &mysql::RIGHTS,
        probe: &mysql::PROBE,
    },
    sqlite: Dialect {
        migrations: sqlx::migrate!("migrations/sqlite/locks"),
        rights: &sqlite::RIGHTS,
        probe: &sqlite::PROBE,
    },
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_dialects_have_the_same_versions() {
        let versions = |dialect: &Dialect| dialect.migrations.iter().map(|one| one.version).collect::<Vec<_>>();
        assert_eq!(versions(&SCHEMA.mysql), versions(&SCHEMA.sqlite));
    }
}
