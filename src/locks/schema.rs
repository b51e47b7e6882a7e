//! What a lock store needs of its database, as data: the table of claims, and the privileges on it.

use super::{mysql, sqlite};
use crate::db::demands::{Aspect, Demands};
use crate::db::schema::{Dialect, Schema};

/// A claim is worth nothing on a server that fails any of these.
const ALL: [Aspect; 4] = [Aspect::Version, Aspect::Session, Aspect::BinaryLog, Aspect::Writable];

/// The table of claims.
pub(super) static SCHEMA: Schema = Schema {
    tables: "lock tables",
    versions: "podlog_locks_migrations",
    lock: "podlog locks",
    grant: "SELECT, INSERT, UPDATE and DELETE on distributed_lock",
    create_grant: "CREATE, ALTER and INDEX",
    leftovers: "distributed_lock",
    has_views: false,
    probed: "a row was written, changed and removed",
    new_file: Some("needs the right to write the directory, nothing else"),
    demands: Demands {
        settings: &[
            // Strict, so that no value is cut silently. Without the server's other modes, which could change what
            // statements mean.
            ("sql_mode", "STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION"),
            ("time_zone", "+00:00"),
            ("autocommit", "ON"),
        ],
        keeps_lock_wait: true,
        in_force: "isolation READ-COMMITTED, strict sql_mode and UTC are in force",
        reported: &ALL,
        to_open: &ALL,
        to_migrate: &ALL,
        final_connect_errors: true,
    },
    mysql: Dialect {
        migrations: sqlx::migrate!("migrations/mysql/locks"),
        privileges: &mysql::PRIVILEGES,
        probe: &mysql::PROBE,
    },
    sqlite: Dialect {
        migrations: sqlx::migrate!("migrations/sqlite/locks"),
        privileges: &sqlite::PRIVILEGES,
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
