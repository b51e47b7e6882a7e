//! Whether tables of some version suit this program: the one rule for claims and for records.
//!
//! Migrations only go forward. One whose description begins with [`ADDITIVE`] leaves everything that earlier
//! programs read and write as it was, so that they go on beside newer ones; any other newer one stops them
//! from starting.

/// How the description of a migration begins that earlier programs need not know. It may add tables, views,
/// indexes, and columns that are nullable or have a default; it changes and removes nothing.
pub const ADDITIVE: &str = "additive";

/// A migration as the database has noted it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Its number.
    pub version: i64,
    /// What it is called.
    pub description: String,
    /// Whether it ended.
    pub success: bool,
    /// Whether its text is the one this program has; true for migrations that this program does not know.
    pub same: bool,
}

/// How the tables stand to this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// There are none.
    Missing,
    /// A migration was broken off.
    Broken,
    /// They are of this earlier version.
    Older(i64),
    /// They are as this program makes them.
    Current,
    /// They have the right version, but were made by another text: by a development version.
    Differs(i64),
    /// They are of this later version, which this program can work with.
    Extended(i64),
    /// They are of this later version, which this program cannot work with.
    Newer(i64),
}

impl Standing {
    /// Judges the migrations that were applied; `known` is the last one this program has.
    #[must_use]
    pub fn of(applied: &[Applied], known: i64) -> Self {
        let Some(last) = applied.iter().map(|one| one.version).max() else {
            return Self::Missing;
        };
        let later = |one: &&Applied| one.version > known;
        let breaks = |one: &Applied| !one.description.starts_with(ADDITIVE);
        if applied.iter().any(|one| !one.success) {
            Self::Broken
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
    pub fn is_done(self) -> bool {
        matches!(self, Self::Current | Self::Extended(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(applied: &[(i64, &str)]) -> Standing {
        let applied: Vec<Applied> = applied
            .iter()
            .map(|(version, description)| Applied {
                version: *version,
                description: (*description).to_owned(),
                success: true,
                same: true,
            })
            .collect();
        Standing::of(&applied, 102)
    }

    #[test]
    fn later_tables_suit_as_long_as_every_later_migration_only_adds() {
        assert_eq!(standing(&[]), Standing::Missing);
        assert_eq!(standing(&[(101, "a")]), Standing::Older(101));
        assert_eq!(standing(&[(101, "a"), (102, "b")]), Standing::Current);
        let extended = [(102, "b"), (103, "additive note"), (105, "additive index")];
        assert_eq!(standing(&extended), Standing::Extended(105));
        assert!(standing(&extended).is_done());
        let breaking = [(102, "b"), (103, "split table"), (104, "additive note")];
        assert_eq!(standing(&breaking), Standing::Newer(104));
    }

    #[test]
    fn a_migration_that_was_broken_off_or_is_another_is_told() {
        let mut one = Applied {
            version: 102,
            description: String::new(),
            success: true,
            same: false,
        };
        assert_eq!(Standing::of(&[one.clone()], 102), Standing::Differs(102));
        one.success = false;
        assert_eq!(Standing::of(&[one], 102), Standing::Broken);
    }
}
