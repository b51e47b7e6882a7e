//! What a SQL sink needs of its database, as data: the tables of records, and the privileges on them.

use super::sql::{mysql, sqlite};
use crate::db::demands::{Aspect, Demands};
use crate::db::schema::{Dialect, Schema};

/// The tables of records.
pub(super) static SCHEMA: Schema = Schema {
    tables: "record tables",
    versions: "podlog_records_migrations",
    lock: "podlog records",
    grant: "SELECT, INSERT, UPDATE and DELETE on the log_ tables",
    create_grant: "CREATE, CREATE VIEW, ALTER and INDEX",
    leftovers: "the log_ tables and views",
    has_views: true,
    probed: "a stream, a line and a gap were written",
    new_file: None,
    demands: Demands {
        settings: &[],
        keeps_lock_wait: false,
        in_force: "isolation READ-COMMITTED is in force",
        reported: &[Aspect::Version, Aspect::Session, Aspect::Writable],
        // A sink opens while its server is failing over: records wait until it is writable again.
        to_open: &[Aspect::Version, Aspect::Session],
        to_migrate: &[],
        final_connect_errors: false,
    },
    mysql: Dialect {
        migrations: sqlx::migrate!("migrations/mysql/records"),
        privileges: &mysql::PRIVILEGES,
        probe: &mysql::PROBE,
    },
    sqlite: Dialect {
        migrations: sqlx::migrate!("migrations/sqlite/records"),
        // Opening a file only reads it.
        privileges: &[],
        probe: &sqlite::PROBE,
    },
};

#[cfg(test)]
mod tests {
    use sqlx::migrate::Migration;

    use super::*;
    use crate::db::version::SchemaState;

    #[test]
    fn both_dialects_have_the_same_versions() {
        let versions = |dialect: &Dialect| dialect.migrations.iter().map(|one| one.version).collect::<Vec<_>>();
        assert_eq!(versions(&SCHEMA.mysql), versions(&SCHEMA.sqlite));
    }

    #[test]
    fn tables_with_all_migrations_are_current_and_tables_that_lack_some_are_older() {
        for dialect in [&SCHEMA.mysql, &SCHEMA.sqlite] {
            let migrations = &dialect.migrations;
            let row = |m: &Migration| (m.version, m.description.to_string(), true, m.checksum.to_vec());
            let all = migrations.iter().map(row).collect();
            assert_eq!(SCHEMA.state(all, migrations), SchemaState::Current);
            let first_two = migrations.iter().take(2).map(row).collect();
            assert_eq!(SCHEMA.state(first_two, migrations), SchemaState::Older(202));
        }
    }
}
