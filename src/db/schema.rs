//! The tables of one part of podlog, as data: its migrations, the privileges it needs, and what messages call it.
//!
//! Applied migrations are recorded in a table of podlog's own, one for claims and one for records. So neither podlog's
//! other tables nor another program's migrations in the same database are taken for these. Nothing here asks a database.

use sqlx::migrate::{MigrateError, Migrator};

use super::demands::Demands;
use super::version::{Applied, SchemaState};
use crate::domain::BackendError;

/// The tables of one part of podlog.
#[derive(Debug)]
pub(crate) struct Schema {
    /// What messages call the tables: `lock tables`.
    pub tables: &'static str,
    /// The table in which applied migrations are recorded. sqlx's default name would be shared with every other user of
    /// sqlx in the database.
    pub versions: &'static str,
    /// With which words the name of the lock begins that keeps other migrations of these tables out, in `MySQL` and
    /// `MariaDB`. Programs of other versions use the same.
    pub lock: &'static str,
    /// Which privileges the user needs on which tables.
    pub grant: &'static str,
    /// Which further privileges `podlog migrate` needs.
    pub create_grant: &'static str,
    /// What a person drops after an interrupted migration, besides the table of applied migrations.
    pub leftovers: &'static str,
    /// Whether there are views among the tables; they need a privilege of their own.
    pub has_views: bool,
    /// What the statements of [`Dialect::probe`] do.
    pub probed: &'static str,
    /// What `podlog check` says about creating an `SQLite` file, if anything.
    pub new_file: Option<&'static str>,
    /// What sessions of `MySQL` and `MariaDB` get, and what is demanded of the server.
    pub demands: Demands,
    /// How it is in `MySQL` and `MariaDB`.
    pub mysql: Dialect,
    /// How it is in `SQLite`.
    pub sqlite: Dialect,
}

/// What differs between the databases.
#[derive(Debug)]
pub(crate) struct Dialect {
    /// The migrations. They have the same numbers in every dialect.
    pub migrations: Migrator,
    /// The privileges that are tried before the tables are used.
    pub privileges: &'static [Privilege],
    /// Statements that write, in a transaction that is rolled back.
    pub probe: &'static [&'static str],
}

/// A privilege on a table.
#[derive(Debug)]
pub(crate) struct Privilege {
    /// `SELECT`, `INSERT`, `UPDATE` or `DELETE`.
    pub verb: &'static str,
    /// The table.
    pub table: &'static str,
    /// Whether it is needed only where old records are deleted.
    pub retention_only: bool,
    /// A statement that needs this privilege, no other, and has no effect.
    pub statement: &'static str,
}

impl Privilege {
    /// A privilege that every replica needs.
    #[must_use]
    pub(crate) const fn needed(verb: &'static str, table: &'static str, statement: &'static str) -> Self {
        Self {
            verb,
            table,
            retention_only: false,
            statement,
        }
    }

    /// A privilege that only replicas need that delete old records.
    #[must_use]
    pub(crate) const fn for_retention(verb: &'static str, table: &'static str, statement: &'static str) -> Self {
        Self {
            verb,
            table,
            retention_only: true,
            statement,
        }
    }
}

/// A row of [`Schema::applied`]: version, description, success, checksum.
pub(crate) type AppliedRow = (i64, String, bool, Vec<u8>);

impl Schema {
    /// The last migration this program knows.
    #[must_use]
    pub(crate) fn known(&self) -> i64 {
        self.mysql.migrations.iter().map(|one| one.version).max().unwrap_or(0)
    }

    /// The statement that reads the applied migrations, the same in every dialect.
    #[must_use]
    pub(crate) fn applied(&self) -> String {
        let versions = self.versions;
        format!("SELECT version, description, success, checksum FROM {versions} ORDER BY version")
    }

    /// The state of the tables, given the rows that [`applied`](Self::applied) read.
    #[must_use]
    pub(crate) fn state(&self, rows: Vec<AppliedRow>, migrations: &Migrator) -> SchemaState {
        let known = self.known();
        let same = |version: i64, checksum: &[u8]| {
            let ours = migrations.iter().find(|one| one.version == version);
            version > known || ours.is_some_and(|one| *one.checksum == *checksum)
        };
        let applied: Vec<Applied> = rows
            .into_iter()
            .map(|(version, description, success, checksum)| Applied {
                same: same(version, &checksum),
                version,
                description,
                success,
            })
            .collect();
        SchemaState::of(&applied, known)
    }

    /// The migrations of a dialect, to be recorded in podlog's own table.
    #[must_use]
    pub(crate) fn migrator(&self, dialect: &Dialect) -> Migrator {
        let mut migrator = Migrator::with_migrations(dialect.migrations.iter().cloned().collect());
        migrator.dangerous_set_table_name(self.versions);
        // Each dialect locks in its own way, with a limit on the wait. sqlx would wait without end, and on MariaDB its
        // lock keeps nobody out.
        migrator.set_locking(false);
        migrator
    }

    /// Refuses tables that this program cannot work with, in the database called `name`.
    pub(crate) fn check(&self, name: &str, state: SchemaState) -> Result<(), BackendError> {
        let (tables, known) = (self.tables, self.known());
        Err(match state {
            SchemaState::Current | SchemaState::Extended(_) | SchemaState::Differs(_) => return Ok(()),
            SchemaState::Missing => self.missing(name),
            SchemaState::Interrupted => self.interrupted(name),
            SchemaState::Newer(newer) => BackendError::refused(
                format!("the {tables} in {name} have version {newer}; this podlog knows {known} and cannot use them"),
                "run a newer podlog",
            ),
            SchemaState::Older(older) => BackendError::refused(
                format!("the {tables} in {name} have version {older}; this podlog needs {known}"),
                "run `podlog migrate`",
            ),
        })
    }

    /// The error for a database without these tables.
    #[must_use]
    pub(crate) fn missing(&self, name: &str) -> BackendError {
        BackendError::refused(format!("{name} has no {}", self.tables), "run `podlog migrate`")
    }

    /// The error for a statement that found one of these tables missing.
    #[must_use]
    pub(crate) fn missing_table(&self, name: &str, cause: &str) -> BackendError {
        let text = format!("{name} lacks some of its {}: {cause}", self.tables);
        BackendError::refused(text, "run `podlog migrate`")
    }

    fn interrupted(&self, name: &str) -> BackendError {
        let Self {
            tables,
            versions,
            leftovers,
            ..
        } = self;
        BackendError::refused(
            format!("a migration of the {tables} in {name} was interrupted"),
            format!("drop what it created ({leftovers}) and {versions}, and run `podlog migrate` again"),
        )
    }

    /// The error for a migration that failed, and that has left something behind.
    pub(super) fn migration_failed(&self, name: &str, cause: &str) -> BackendError {
        let Self {
            tables,
            versions,
            create_grant,
            leftovers,
            ..
        } = self;
        BackendError::refused(
            format!("the {tables} in {name} cannot be created: {cause}"),
            format!(
                "the user needs {create_grant}, and the names must be free; correct that, drop what this migration has \
                 created of {leftovers}, drop {versions}, and run `podlog migrate` again"
            ),
        )
    }

    /// What a failed migration means; `explain` turns an error of the database into ours.
    pub(super) fn failed(
        &self,
        name: &str,
        error: MigrateError,
        explain: impl Fn(&sqlx::Error) -> BackendError,
    ) -> BackendError {
        let Self {
            tables,
            versions,
            leftovers,
            ..
        } = self;
        match error {
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => explain(&error),
            MigrateError::Dirty(_) => self.interrupted(name),
            MigrateError::VersionMissing(newer) => match self.check(name, SchemaState::Newer(newer)) {
                Ok(()) => self.missing(name),
                Err(error) => error,
            },
            MigrateError::VersionMismatch(version) => BackendError::refused(
                format!(
                    "migration {version} of the {tables} in {name} is not the one this podlog would apply: \
                     a development version created the tables"
                ),
                format!("drop {leftovers} and {versions}, and run `podlog migrate`"),
            ),
            other => BackendError::refused(
                format!("the {tables} in {name} cannot be created: {other}"),
                format!("grant the user {}", self.create_grant),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::fixtures::CLAIMS;

    #[test]
    fn each_wrong_version_has_its_own_remedy() {
        let says = |state| CLAIMS.check("db", state).unwrap_err().to_string();
        let known = CLAIMS.known();
        for fine in [
            SchemaState::Current,
            SchemaState::Extended(known + 1),
            SchemaState::Differs(known),
        ] {
            assert_eq!(CLAIMS.check("db", fine), Ok(()));
        }
        assert!(says(SchemaState::Older(known - 1)).ends_with("run `podlog migrate`"));
        assert!(says(SchemaState::Newer(known + 1)).ends_with("run a newer podlog"));
        assert!(says(SchemaState::Missing).ends_with("run `podlog migrate`"));
        let interrupted = says(SchemaState::Interrupted);
        for what in [
            "interrupted",
            "distributed_lock",
            "podlog_locks_migrations",
            "podlog migrate",
        ] {
            assert!(interrupted.contains(what), "{interrupted}");
        }
    }

    #[test]
    fn a_migration_is_recognised_by_its_text() {
        for dialect in [&CLAIMS.mysql, &CLAIMS.sqlite] {
            let applied = dialect.migrations.iter();
            let applied = applied.map(|m| (m.version, m.description.to_string(), true, m.checksum.to_vec()));
            assert_eq!(
                CLAIMS.state(applied.collect(), &dialect.migrations),
                SchemaState::Current
            );
            let other = vec![(CLAIMS.known(), "x".into(), true, vec![1])];
            assert_eq!(
                CLAIMS.state(other, &dialect.migrations),
                SchemaState::Differs(CLAIMS.known())
            );
        }
    }
}
