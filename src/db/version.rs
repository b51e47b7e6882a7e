//! The rule that says whether tables of some version suit this program.
//!
//! Migrations only go forward. A migration whose description begins with [`ADDITIVE`] leaves everything that earlier
//! programs read and write as it was, so that they continue to work beside newer ones. Any other newer migration stops them
//! from starting. Nothing here asks a database.

/// How the description of a migration begins that earlier programs need not know. It may add tables, views,
/// indexes, and columns that are nullable or have a default; it changes and removes nothing.
pub(crate) const ADDITIVE: &str = "additive";

/// A migration that the database says was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Applied {
    /// Its number.
    pub version: i64,
    /// What it is called.
    pub description: String,
    /// Whether it completed.
    pub success: bool,
    /// Whether its text is the one this program has. True for migrations that this program does not know.
    pub same: bool,
}

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
    /// Compares the migrations that were applied with `known`, the last one this program has.
    #[must_use]
    pub(crate) fn of(applied: &[Applied], known: i64) -> Self {
        let Some(last) = applied.iter().map(|one| one.version).max() else {
            return Self::Missing;
        };
        let later = |one: &&Applied| one.version > known;
        let breaks = |one: &Applied| !one.description.starts_with(ADDITIVE);
        if applied.iter().any(|one| !one.success) {
            Self::Interrupted
        } else if applied.iter().filter(later).any(breaks) {
            Self::Newer(last)
        } else if !applied.iter().any(|one| one.version >= known) {
            Self::Older(last)
        } else if let Some(other) = applied.iter().find(|one| !one.same) {
            Self::Differs(other.version)
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

    fn state(applied: &[(i64, &str)]) -> SchemaState {
        let applied: Vec<Applied> = applied
            .iter()
            .map(|(version, description)| Applied {
                version: *version,
                description: (*description).to_owned(),
                success: true,
                same: true,
            })
            .collect();
        SchemaState::of(&applied, 102)
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
        let mut one = Applied {
            version: 102,
            description: String::new(),
            success: true,
            same: false,
        };
        assert_eq!(SchemaState::of(&[one.clone()], 102), SchemaState::Differs(102));
        one.success = false;
        assert_eq!(SchemaState::of(&[one], 102), SchemaState::Interrupted);
    }
}
