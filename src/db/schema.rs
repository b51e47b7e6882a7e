//! The tables of one part of podlog, as data: what messages call them, which privileges they need, and what is wrong with
//! tables of another version. Nothing here asks a database.

use sqlx::migrate::MigrateError;

use super::version::SchemaState;
use crate::domain::BackendError;

/// The tables of one part of podlog, whatever database they are in.
#[derive(Debug)]
pub(crate) struct Tables {
    /// What messages call them: `lock tables`.
    pub name: &'static str,
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
    /// What the statements of the probe do.
    pub probed: &'static str,
    /// What `podlog check` says about creating an `SQLite` file, if anything.
    pub new_file: Option<&'static str>,
    /// Whether `podlog check` compares a server's clock with this machine's.
    pub has_times: bool,
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

impl Tables {
    /// Refuses tables that this program cannot work with, in the database called `name`.
    pub(crate) fn check(&self, name: &str, state: SchemaState, known: i64) -> Result<(), BackendError> {
        let tables = self.name;
        Err(match state {
            SchemaState::Current | SchemaState::Extended(_) | SchemaState::Differs(_) => return Ok(()),
            SchemaState::Missing => BackendError::refused(format!("{name} has no {tables}"), "run `podlog migrate`"),
            SchemaState::Interrupted => self.interrupted(name),
            SchemaState::Newer(newer) => self.newer(name, newer, known),
            SchemaState::Older(older) => BackendError::refused(
                format!("the {tables} in {name} have version {older}; this podlog needs {known}"),
                "run `podlog migrate`",
            ),
        })
    }

    /// The error for a statement that found one of these tables missing.
    #[must_use]
    pub(crate) fn missing_table(&self, name: &str, cause: &str) -> BackendError {
        let text = format!("{name} lacks some of its {}: {cause}", self.name);
        BackendError::refused(text, "run `podlog migrate`")
    }

    fn newer(&self, name: &str, newer: i64, known: i64) -> BackendError {
        let tables = self.name;
        BackendError::refused(
            format!("the {tables} in {name} have version {newer}; this podlog knows {known} and cannot use them"),
            "run a newer podlog",
        )
    }

    fn interrupted(&self, name: &str) -> BackendError {
        BackendError::refused(
            format!("a migration of the {} in {name} was interrupted", self.name),
            format!(
                "drop what it created ({}) and {}, and run `podlog migrate` again",
                self.leftovers, self.versions
            ),
        )
    }

    /// The error for a migration that failed, and that has left something behind.
    pub(super) fn migration_failed(&self, name: &str, cause: &str) -> BackendError {
        BackendError::refused(
            format!("the {} in {name} cannot be created: {cause}", self.name),
            format!(
                "the user needs {}, and the names must be free; correct that, drop what this migration has created of {}, \
                 drop {}, and run `podlog migrate` again",
                self.create_grant, self.leftovers, self.versions
            ),
        )
    }

    /// The error for a migration that sqlx refused to begin. This program knows migrations up to `known`.
    pub(super) fn migration_refused(&self, name: &str, error: &MigrateError, known: i64) -> BackendError {
        let tables = self.name;
        match error {
            MigrateError::Dirty(_) => self.interrupted(name),
            MigrateError::VersionMissing(newer) => self.newer(name, *newer, known),
            MigrateError::VersionMismatch(version) => BackendError::refused(
                format!(
                    "migration {version} of the {tables} in {name} is not the one this podlog would apply: \
                     a development version created the tables"
                ),
                format!(
                    "drop {} and {}, and run `podlog migrate`",
                    self.leftovers, self.versions
                ),
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
    use crate::locks::schema::MYSQL;

    #[test]
    fn each_wrong_version_has_its_own_remedy() {
        let (tables, known) = (MYSQL.tables, MYSQL.known());
        let says = |state| tables.check("db", state, known).unwrap_err().to_string();
        for fine in [
            SchemaState::Current,
            SchemaState::Extended(known + 1),
            SchemaState::Differs(known),
        ] {
            assert_eq!(tables.check("db", fine, known), Ok(()));
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
}
