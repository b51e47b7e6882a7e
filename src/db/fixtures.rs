//! Schemas for tests of this module: they differ in what they demand, as claims and records do.

use super::database::Database;
use super::demands::{Aspect, Demands};
use super::schema::{Dialect, Schema};

/// Demands much, as claims do.
pub(super) static CLAIMS: Schema = Schema {
    tables: "lock tables",
    versions: "podlog_locks_migrations",
    lock: "podlog locks",
    grant: "SELECT on distributed_lock",
    create_grant: "CREATE",
    leftovers: "distributed_lock",
    has_views: false,
    probed: "a row was written",
    new_file: None,
    demands: Demands {
        settings: &[("sql_mode", "STRICT_ALL_TABLES"), ("time_zone", "+00:00")],
        keeps_lock_wait: true,
        in_force: "all settings are in force",
        reported: &[Aspect::Version, Aspect::Session, Aspect::BinaryLog, Aspect::Writable],
        to_open: &[Aspect::Version, Aspect::Session, Aspect::BinaryLog, Aspect::Writable],
        to_migrate: &[Aspect::Version],
        final_connect_errors: true,
    },
    mysql: Dialect {
        migrations: sqlx::migrate!("migrations/mysql/locks"),
        privileges: &[],
        probe: &[],
    },
    sqlite: Dialect {
        migrations: sqlx::migrate!("migrations/sqlite/locks"),
        privileges: &[],
        probe: &[],
    },
};

/// Demands little, as records do.
pub(super) static RECORDS: Schema = Schema {
    tables: "record tables",
    versions: "podlog_records_migrations",
    lock: "podlog records",
    grant: "SELECT on log_stream",
    create_grant: "CREATE",
    leftovers: "log_stream",
    has_views: true,
    probed: "a row was written",
    new_file: None,
    demands: Demands {
        settings: &[],
        keeps_lock_wait: false,
        in_force: "the isolation is in force",
        reported: &[Aspect::Version, Aspect::Session, Aspect::Writable],
        to_open: &[Aspect::Version, Aspect::Session],
        to_migrate: &[],
        final_connect_errors: false,
    },
    mysql: Dialect {
        migrations: sqlx::migrate!("migrations/mysql/records"),
        privileges: &[],
        probe: &[],
    },
    sqlite: Dialect {
        migrations: sqlx::migrate!("migrations/sqlite/records"),
        privileges: &[],
        probe: &[],
    },
};

/// A database with these tables, called `db`.
pub(super) fn database(schema: &'static Schema) -> Database {
    Database {
        name: "db".into(),
        schema,
    }
}
