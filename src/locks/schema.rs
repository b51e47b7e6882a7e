//! The tables of the lock stores: how they come about, and whether they are there.
//!
//! Versions are recorded in a table of podlog's own, so that neither podlog's other tables nor
//! another program's migrations in the same database are ever taken for these. Nothing here runs
//! unless somebody asks for it. Which later tables suit is the rule in `db::version`.

use sqlx::migrate::{MigrateError, Migrator};

use super::LockError;
use crate::db::version::{Applied, SchemaState};

/// The migrations of `MySQL` and `MariaDB`, and those of `SQLite`.
pub(super) static MYSQL: Migrator = sqlx::migrate!("migrations/mysql/locks");
pub(super) static SQLITE: Migrator = sqlx::migrate!("migrations/sqlite/locks");

/// Where applied migrations are noted. sqlx's own default name would be shared with every other user of
/// sqlx in the database.
pub(super) const NOTES: &str = "podlog_locks_migrations";

/// Asks for the migrations that were applied. The same text on every store.
pub(super) const APPLIED: &str =
    "SELECT version, description, success, checksum FROM podlog_locks_migrations ORDER BY version";

/// A row of [`APPLIED`].
pub(super) type Noted = (i64, String, bool, Vec<u8>);

/// The last migration this program knows; the same number on every store.
pub(super) fn known() -> i64 {
    MYSQL.iter().map(|one| one.version).max().unwrap_or(0)
}

/// How the tables stand, by what `APPLIED` answered.
pub(super) fn standing(noted: Vec<Noted>, migrator: &Migrator) -> SchemaState {
    let same = |version: i64, checksum: &[u8]| {
        let ours = migrator.iter().find(|one| one.version == version);
        version > known() || ours.is_some_and(|one| *one.checksum == *checksum)
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
    SchemaState::of(&applied, known())
}

/// The same migrations, noted in our own table.
pub(super) fn ours(migrator: &Migrator) -> Migrator {
    let mut ours = Migrator::with_migrations(migrator.iter().cloned().collect());
    ours.dangerous_set_table_name(NOTES);
    // Each store locks in its own way, with a limit on the wait; sqlx would wait for ever.
    ours.set_locking(false);
    ours
}

/// Refuses tables that this program cannot work with, in the store called `name`.
pub(super) fn check(name: &str, standing: SchemaState) -> Result<(), LockError> {
    let known = known();
    Err(match standing {
        SchemaState::Current | SchemaState::Extended(_) | SchemaState::Differs(_) => return Ok(()),
        SchemaState::Missing => missing(name),
        SchemaState::Interrupted => interrupted(name),
        SchemaState::Newer(newer) => LockError::refused(
            format!(
                "the lock tables in {name} have version {newer}, which this podlog (it knows {known}) cannot work with"
            ),
            "run a newer podlog",
        ),
        SchemaState::Older(older) => LockError::refused(
            format!("the lock tables in {name} have version {older} and this podlog needs {known}"),
            "run `podlog migrate`",
        ),
    })
}

/// The error for a store without tables.
pub(super) fn missing(name: &str) -> LockError {
    LockError::refused(format!("{name} has no lock tables"), "run `podlog migrate`")
}

fn interrupted(name: &str) -> LockError {
    LockError::refused(
        format!("a migration of the lock tables in {name} was broken off"),
        format!(
            "drop the tables it left half made (distributed_lock), delete its row from {NOTES}, and run \
             `podlog migrate` again"
        ),
    )
}

/// What a failed migration means; `driver` explains an error of the database itself.
pub(super) fn failed(name: &str, error: MigrateError, driver: impl Fn(&sqlx::Error) -> LockError) -> LockError {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => driver(&error),
        MigrateError::Dirty(_) => interrupted(name),
        MigrateError::VersionMissing(newer) => check(name, SchemaState::Newer(newer))
            .err()
            .unwrap_or_else(|| missing(name)),
        MigrateError::VersionMismatch(version) => LockError::refused(
            format!(
                "migration {version} of the lock tables in {name} is not the one this podlog would run: \
                 the tables were made by a development version"
            ),
            format!("drop distributed_lock and {NOTES} and run `podlog migrate`"),
        ),
        other => LockError::refused(
            format!("the lock tables in {name} could not be made: {other}"),
            "grant the user CREATE, ALTER and INDEX",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_have_the_same_versions() {
        let versions = |migrator: &Migrator| migrator.iter().map(|one| one.version).collect::<Vec<_>>();
        assert_eq!(versions(&MYSQL), versions(&SQLITE));
    }

    #[test]
    fn each_wrong_version_has_its_own_remedy() {
        let says = |standing| check("db", standing).unwrap_err().to_string();
        assert!(check("db", SchemaState::Current).is_ok());
        assert!(check("db", SchemaState::Extended(known() + 1)).is_ok());
        assert!(says(SchemaState::Older(known() - 1)).contains("podlog migrate"));
        assert!(says(SchemaState::Newer(known() + 1)).contains("newer podlog"));
        assert!(says(SchemaState::Missing).contains("podlog migrate"));
        assert!(says(SchemaState::Interrupted).contains("broken off"));
    }

    #[test]
    fn what_was_made_by_our_own_text_is_current() {
        for migrator in [&MYSQL, &SQLITE] {
            let noted = migrator
                .iter()
                .map(|m| (m.version, m.description.to_string(), true, m.checksum.to_vec()));
            assert_eq!(standing(noted.collect(), migrator), SchemaState::Current);
            let other = vec![(known(), "x".into(), true, vec![1])];
            assert_eq!(standing(other, migrator), SchemaState::Differs(known()));
        }
    }
}
