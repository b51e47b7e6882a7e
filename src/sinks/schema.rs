//! What a SQL sink needs of its database, as data: the tables of records, and the rights on them.

use super::sql::{mysql, sqlite};
use crate::db::schema::{Dialect, Schema};

/// The tables of records.
pub(super) static SCHEMA: Schema = Schema {
    tables: "record tables",
    versions: "podlog_records_migrations",
    grant: "SELECT, INSERT, UPDATE and DELETE on the log_ tables",
    create_grant: "CREATE, CREATE VIEW, ALTER and INDEX",
    leftovers: "the log_ tables and views",
    has_views: true,
    probed: "a stream, a line and a gap were written",
    mysql: Dialect {
        migrations: sqlx::migrate!("migrations/mysql/records"),
        rights: &mysql::RIGHTS,
        probe: &mysql::PROBE,
    },
    sqlite: Dialect {
        migrations: sqlx::migrate!("migrations/sqlite/records"),
        rights: &sqlite::RIGHTS,
        probe: &sqlite::PROBE,
    },
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::version::SchemaState;

    #[test]
    fn both_dialects_have_the_same_versions() {
        let versions = |dialect: &Dialect| dialect.migrations.iter().map(|one| one.version).collect::<Vec<_>>();
        assert_eq!(versions(&SCHEMA.mysql), versions(&SCHEMA.sqlite));
    }

    #[test]
    fn tables_that_lack_a_migration_are_older() {
        let migrations = &SCHEMA.mysql.migrations;
        let applied = migrations.iter().take(2);
        let applied = applied.map(|m| (m.version, m.description.to_string(), true, m.checksum.to_vec()));
        assert_eq!(SCHEMA.state(applied.collect(), migrations), SchemaState::Older(202));
    }
}
