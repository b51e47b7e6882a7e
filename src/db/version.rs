//! The rule that says whether tables of some version suit this program.
//!
//! Migrations only go forward. A migration whose description begins with [`ADDITIVE`] leaves everything that earlier
//! programs read and write as it was, so that they continue to work beside newer ones. Any other newer migration stops them
//! from starting. Nothing here asks a database.

use std::collections::BTreeMap;

/// How the description of a migration begins that earlier programs need not know. It may add tables, views,
/// indexes, and columns that are nullable or have a default; it changes and removes nothing.
pub(crate) const ADDITIVE: &str = "additive";

/// A migration that the database says was applied: its version, its description, whether it completed, its checksum.
pub(crate) type AppliedMigration = (i64, String, bool, Vec<u8>);

/// Which version the tables have, compared with the one this program needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SchemaState {
    /// There are no tables.
    Missing,
    /// A migration was interrupted.
    Interrupted,
    /// They have this earlier version.
    Older(i64),
    /// They are as this program creates them.
    Current,
    /// They have the right version, but this migration's text differs: a development version created them.
    Differs(i64),
    /// They have this later version, and this program can work with it.
    Extended(i64),
    /// They have this later version, and this program cannot work with it.
    Newer(i64),
}

impl SchemaState {
    /// Compares the migrations that were applied with those that this program has: their versions and checksums.
    #[must_use]
    pub(crate) fn compare(applied: &[AppliedMigration], ours: &BTreeMap<i64, &[u8]>) -> Self {
        let known = ours.last_key_value().map_or(0, |(version, _)| *version);
        let Some(last) = applied.iter().map(|(version, ..)| *version).max() else {
            return Self::Missing;
        };
        let breaks =
            |(version, description, ..): &AppliedMigration| *version > known && !description.starts_with(ADDITIVE);
        let differs = |(version, _, _, checksum): &&AppliedMigration| {
            *version <= known && ours.get(version) != Some(&&**checksum)
        };
        if applied.iter().any(|(_, _, completed, _)| !completed) {
            Self::Interrupted
        } else if applied.iter().any(breaks) {
            Self::Newer(last)
        } else if last < known {
            Self::Older(last)
        } else if let Some((version, ..)) = applied.iter().find(differs) {
            Self::Differs(*version)
        } else if last > known {
            Self::Extended(last)
        } else {
            Self::Current
        }
    }

    /// Whether migrating would change nothing.
    #[must_use]
    pub(crate) fn is_done(self) -> bool {
        matches!(self, Self::Current | Self::Extended(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn migration(version: i64, description: &str, completed: bool, checksum: u8) -> AppliedMigration {
        (version, description.to_owned(), completed, vec![checksum])
    }

    fn compare(applied: &[AppliedMigration]) -> SchemaState {
        SchemaState::compare(applied, &BTreeMap::from([(101, &[1][..]), (102, &[2])]))
    }

    fn state(applied: &[(i64, &str)]) -> SchemaState {
        let applied = applied.iter().map(|(version, description)| {
            let checksum = u8::try_from(version - 100).unwrap();
            migration(*version, description, true, checksum)
        });
        compare(&applied.collect::<Vec<_>>())
    }

    #[test]
    fn later_tables_suit_if_every_later_migration_only_adds() {
        assert_eq!(state(&[]), SchemaState::Missing);
        assert_eq!(state(&[(101, "a")]), SchemaState::Older(101));
        assert_eq!(state(&[(101, "a"), (102, "b")]), SchemaState::Current);
        let extended = [(102, "b"), (103, "additive note"), (105, "additive index")];
        assert_eq!(state(&extended), SchemaState::Extended(105));
        assert!(state(&extended).is_done());
        let breaking = [(102, "b"), (103, "split table"), (104, "additive note")];
        assert_eq!(state(&breaking), SchemaState::Newer(104));
    }

    #[test]
    fn an_interrupted_migration_and_one_with_another_text_are_recognised() {
        assert_eq!(compare(&[migration(102, "b", true, 7)]), SchemaState::Differs(102));
        assert_eq!(compare(&[migration(102, "b", false, 7)]), SchemaState::Interrupted);
    }
}
