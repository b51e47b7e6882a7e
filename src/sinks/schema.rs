//! What a SQL sink needs of its database, as data: the tables of records, and the privileges on them.

use sqlx::{MySql, Sqlite};

use super::sql::{mysql, sqlite};
use crate::db::database::Schema;
use crate::db::diagnose;
use crate::db::mysql::server::{Property, Requirements};
use crate::db::schema::Tables;

static TABLES: Tables = Tables {
    name: "record tables",
    versions: "podlog_records_migrations",
    lock: "podlog records",
    grant: "SELECT, INSERT, UPDATE and DELETE on the log_ tables",
    create_grant: "CREATE, CREATE VIEW, ALTER, INDEX and DROP",
    leftovers: "the log_ tables and views",
    has_views: true,
    has_times: false,
    probed: "a stream, a line and a gap were written",
    new_file: None,
};

/// The tables of records in `MySQL` and `MariaDB`.
pub(crate) static MYSQL: Schema<MySql> = Schema {
    tables: &TABLES,
    migrations: sqlx::migrate!("migrations/mysql/records"),
    privileges: &mysql::PRIVILEGES,
    probe: &mysql::PROBE,
    diagnose_limits: mysql::session_limits(diagnose::DEADLINE),
    requirements: Requirements {
        settings: &[],
        keeps_lock_wait: false,
        in_force: "isolation READ-COMMITTED is in force",
        reported: &[Property::Version, Property::Session, Property::Writable],
        // A sink opens while its server is failing over: records wait until it is writable again.
        to_open: &[Property::Version, Property::Session],
        to_migrate: &[],
        views: &mysql::VIEWS,
        packet_overhead: Some(mysql::PACKET_OVERHEAD),
    },
};

/// The tables of records in `SQLite`.
pub(crate) static SQLITE: Schema<Sqlite> = Schema {
    tables: &TABLES,
    migrations: sqlx::migrate!("migrations/sqlite/records"),
    // Opening a file only reads it.
    privileges: &[],
    probe: &sqlite::PROBE,
    diagnose_limits: sqlite::BUSY,
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
