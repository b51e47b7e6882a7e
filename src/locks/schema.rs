//! What a lock store needs of its database, as data: the table of claims, and the privileges on it.

use std::time::Duration;

use sqlx::{MySql, Sqlite};

use super::{mysql, sqlite};
use crate::db::database::Schema;
use crate::db::mysql::server::{Property, Requirements};
use crate::db::schema::Tables;

/// A claim is worth nothing on a server that fails any of these.
const ALL: [Property; 4] = [
    Property::Version,
    Property::Session,
    Property::BinaryLog,
    Property::Writable,
];

static TABLES: Tables = Tables {
    name: "lock tables",
    versions: "podlog_locks_migrations",
    lock: "podlog locks",
    grant: "SELECT, INSERT, UPDATE and DELETE on distributed_lock",
    create_grant: "CREATE, ALTER and INDEX",
    leftovers: "distributed_lock",
    has_views: false,
    has_times: true,
    probed: "a row was written, changed and removed",
    new_file: Some("needs the right to write the directory, nothing else"),
};

/// The table of claims in `MySQL` and `MariaDB`.
pub(crate) static MYSQL: Schema<MySql> = Schema {
    tables: &TABLES,
    migrations: sqlx::migrate!("migrations/mysql/locks"),
    privileges: &mysql::PRIVILEGES,
    probe: &mysql::PROBE,
    diagnose_limits: mysql::LIMITS,
    requirements: Requirements {
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
        views: &[],
        packet_overhead: None,
    },
};

/// The table of claims in `SQLite`.
pub(crate) static SQLITE: Schema<Sqlite> = Schema {
    tables: &TABLES,
    migrations: sqlx::migrate!("migrations/sqlite/locks"),
    privileges: &sqlite::PRIVILEGES,
    probe: &sqlite::PROBE,
    // Less than the deadline of a question.
    diagnose_limits: Duration::from_secs(4),
    requirements: (),
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_databases_have_the_same_versions() {
        let mysql = MYSQL.migrations.iter().map(|one| one.version);
        assert!(mysql.eq(SQLITE.migrations.iter().map(|one| one.version)));
    }
}
