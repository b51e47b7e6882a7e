//! The tables of the lock stores: how they come about, and whether they are there.
//!
//! Versions are recorded in a table of podlog's own, so that neither podlog's other tables nor
//! another program's migrations in the same database are ever taken for these. Nothing here runs
//! unless somebody asks for it.

use sqlx::SqlSafeStr;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};

use super::LockError;

/// Where the versions of the lock tables are recorded. sqlx's own default name would be shared with
/// every other user of sqlx in the database.
pub(super) const VERSIONS: &str = "podlog_lock_migrations";

/// The version that this program works with: the last of the migrations below.
pub(super) const VERSION: i64 = 101;

/// Asks for the version of the tables, and whether a migration was broken off. The same text on every store.
pub(super) const LOOK: &str = "SELECT MAX(version) AS version, SUM(CASE WHEN success THEN 0 ELSE 1 END) > 0 AS broken FROM podlog_lock_migrations";

/// The migrations of `MySQL` and `MariaDB`.
pub(super) fn mysql() -> Migrator {
    migrator(include_str!("../../migrations/mysql/locks/0101_distributed_lock.sql"))
}

/// The migrations of `SQLite`.
pub(super) fn sqlite() -> Migrator {
    migrator(include_str!("../../migrations/sqlite/locks/0101_distributed_lock.sql"))
}

fn migrator(distributed_lock: &'static str) -> Migrator {
    let sql = distributed_lock.into_sql_str();
    let mut migrator = Migrator::with_migrations(vec![Migration::new(
        VERSION,
        "distributed lock".into(),
        MigrationType::Simple,
        sql,
        false,
    )]);
    migrator.dangerous_set_table_name(VERSIONS);
    // Each store locks in its own way, with a limit on the wait; sqlx would wait for ever.
    migrator.set_locking(false);
    migrator
}

/// Judges the version found in the store called `name`; `None` when nothing is recorded.
pub(super) fn judge(name: &str, version: Option<i64>, broken: bool) -> Result<(), LockError> {
    let what = match version {
        _ if broken => return Err(interrupted(name)),
        Some(VERSION) => return Ok(()),
        Some(newer) if newer > VERSION => format!(
            "the lock tables in {name} have version {newer} and this podlog knows {VERSION}: run a newer podlog"
        ),
        Some(older) => format!(
            "the lock tables in {name} have version {older} and this podlog needs {VERSION}: run `podlog migrate`"
        ),
        None => return Err(missing(name)),
    };
    Err(LockError::Refused(what))
}

/// The error for a store without tables.
pub(super) fn missing(name: &str) -> LockError {
    LockError::Refused(format!("{name} has no lock tables: run `podlog migrate`"))
}

fn interrupted(name: &str) -> LockError {
    LockError::Refused(format!(
        "a migration of the lock tables in {name} was broken off: drop the tables it left half made (distributed_lock), \
         delete its row from {VERSIONS}, and run `podlog migrate` again"
    ))
}

/// What a failed migration means; `driver` explains an error of the database itself.
pub(super) fn failed(name: &str, error: MigrateError, driver: impl Fn(&sqlx::Error) -> LockError) -> LockError {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => driver(&error),
        MigrateError::Dirty(_) => interrupted(name),
        MigrateError::VersionMissing(newer) => judge(name, Some(newer), false).err().unwrap_or_else(|| missing(name)),
        MigrateError::VersionMismatch(version) => LockError::Refused(format!(
            "migration {version} of the lock tables in {name} is not the one this podlog would run: \
             the tables were made by a development version; drop distributed_lock and {VERSIONS} and run `podlog migrate`"
        )),
        other => LockError::Refused(format!("the lock tables in {name} could not be made: {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_this_program_needs_is_the_last_migration() {
        for migrator in [mysql(), sqlite()] {
            assert_eq!(migrator.iter().map(|m| m.version).max(), Some(VERSION));
        }
    }

    #[test]
    fn each_wrong_version_has_its_own_remedy() {
        let says = |version, broken| judge("db", version, broken).unwrap_err().to_string();
        assert!(judge("db", Some(VERSION), false).is_ok());
        assert!(says(Some(VERSION - 1), false).contains("podlog migrate"));
        assert!(says(Some(VERSION + 1), false).contains("newer podlog"));
        assert!(says(None, false).contains("podlog migrate"));
        assert!(says(Some(VERSION), true).contains("broken off"));
    }
}
