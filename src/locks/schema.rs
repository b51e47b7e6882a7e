//! The tables of the lock stores: how they come about, and whether they are there.
//!
//! Versions are recorded in a table of podlog's own, so that neither podlog's other tables nor
//! another program's migrations in the same database are ever taken for these. Nothing here runs
//! unless somebody asks for it. Which later tables suit is the rule in `domain::schema`.

use sqlx::SqlSafeStr;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};

use super::LockError;
use crate::domain::schema::{Applied, Standing};

/// Where the versions of the lock tables are recorded. sqlx's own default name would be shared with
/// every other user of sqlx in the database.
pub(super) const VERSIONS: &str = "podlog_lock_migrations";

/// The version that this program works with: the last of the migrations below.
pub(super) const VERSION: i64 = 101;

/// Asks for the migrations that were applied. The same text on every store.
pub(super) const LOOK: &str =
    "SELECT version, description, success, checksum FROM podlog_lock_migrations ORDER BY version";

/// A row of [`LOOK`].
pub(super) type Noted = (i64, String, bool, Vec<u8>);

/// How the tables stand, by what `LOOK` answered.
pub(super) fn standing(noted: Vec<Noted>) -> Standing {
    // The text of each migration is the same on every store or differs in all; MySQL's and SQLite's are both ours.
    let known = [mysql(), sqlite()];
    let same = |version: i64, checksum: &[u8]| {
        let mut ours = known
            .iter()
            .flat_map(|migrator| migrator.iter())
            .filter(|one| one.version == version);
        version > VERSION || ours.any(|one| *one.checksum == *checksum)
    };
    let applied: Vec<Applied> = noted
        .into_iter()
        .map(|(version, description, success, checksum)| Applied {
            same: same(version, &checksum),
            version,
            description,
            success,
        })
        .collect();
    Standing::of(&applied, VERSION)
}

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

/// Refuses tables that this program cannot work with, in the store called `name`.
pub(super) fn judge(name: &str, standing: Standing) -> Result<(), LockError> {
    let what = match standing {
        Standing::Current | Standing::Extended(_) | Standing::Differs(_) => return Ok(()),
        Standing::Missing => return Err(missing(name)),
        Standing::Broken => return Err(interrupted(name)),
        Standing::Newer(newer) => format!(
            "the lock tables in {name} have version {newer}, which this podlog (it knows {VERSION}) cannot work with: run a newer podlog"
        ),
        Standing::Older(older) => format!(
            "the lock tables in {name} have version {older} and this podlog needs {VERSION}: run `podlog migrate`"
        ),
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
        MigrateError::VersionMissing(newer) => judge(name, Standing::Newer(newer))
            .err()
            .unwrap_or_else(|| missing(name)),
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
        let says = |standing| judge("db", standing).unwrap_err().to_string();
        assert!(judge("db", Standing::Current).is_ok());
        assert!(judge("db", Standing::Extended(VERSION + 1)).is_ok());
        assert!(says(Standing::Older(VERSION - 1)).contains("podlog migrate"));
        assert!(says(Standing::Newer(VERSION + 1)).contains("newer podlog"));
        assert!(says(Standing::Missing).contains("podlog migrate"));
        assert!(says(Standing::Broken).contains("broken off"));
    }

    #[test]
    fn what_was_made_by_our_own_text_is_current() {
        for migrator in [mysql(), sqlite()] {
            let noted = migrator
                .iter()
                .map(|m| (m.version, m.description.to_string(), true, m.checksum.to_vec()));
            assert_eq!(standing(noted.collect()), Standing::Current);
        }
        assert_eq!(
            standing(vec![(VERSION, "x".into(), true, vec![1])]),
            Standing::Differs(VERSION)
        );
    }
}
