//! Which namespaces have been listed. A pod that is missing from the set says something only if its namespace is listed.
//!
//! Values only. It never asks the API server, and knows no pods.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::finding::Message;
use super::time::Time;

/// The listing of each namespace in the scope. If all namespaces are listed together, there is one listing for all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listings(BTreeMap<Option<Arc<str>>, Listing>);

/// What is known of one listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Listing {
    /// Whether it has ever succeeded. Since then its pods are known, although they may be old while it fails.
    listed: bool,
    /// Why it fails now.
    failure: Option<ListFailure>,
}

/// Why the pods of a namespace cannot be listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListFailure {
    /// Whether podlog lacks the right. If not, the API server fails or is not reached.
    pub forbidden: bool,
    /// What was said, and what to do about it.
    pub message: Message,
    /// Since when it fails.
    pub since: Time,
}

impl ListFailure {
    /// All values of [`reason`](Self::reason).
    pub const REASONS: [&str; 2] = ["forbidden", "unavailable"];

    /// The `reason` of the metric `podlog_namespaces_unlisted` and of `/status`.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        if self.forbidden { "forbidden" } else { "unavailable" }
    }
}

impl Listings {
    /// The listings of these namespaces, of which none has been made. `None` is the listing of all namespaces.
    pub fn new<'a>(namespaces: impl IntoIterator<Item = Option<&'a str>>) -> Self {
        let keys = namespaces.into_iter().map(|name| name.map(Arc::from));
        Self(keys.map(|key| (key, Listing::default())).collect())
    }

    /// A listing has succeeded.
    pub fn on_listed(&mut self, namespace: Option<&str>) {
        if let Some(listing) = self.0.get_mut(&namespace.map(Arc::from)) {
            *listing = Listing {
                listed: true,
                failure: None,
            };
        }
    }

    /// A listing has failed. It counts as failing since its first failure.
    pub fn on_failed(&mut self, namespace: Option<&str>, failure: ListFailure) {
        if let Some(listing) = self.0.get_mut(&namespace.map(Arc::from)) {
            let since = listing.failure.as_ref().map_or(failure.since, |before| before.since);
            listing.failure = Some(ListFailure { since, ..failure });
        }
    }

    /// Whether the namespace is in the scope.
    #[must_use]
    pub fn includes(&self, namespace: &str) -> bool {
        self.of(namespace).is_some()
    }

    /// Whether all pods of the namespace are known. Only then is a missing pod deleted or not selected.
    #[must_use]
    pub fn is_listed(&self, namespace: &str) -> bool {
        self.of(namespace).is_some_and(|listing| listing.listed)
    }

    /// Whether every listing has succeeded or is refused. A refusal lasts until a person grants the right, so the other
    /// namespaces do not wait for it.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let is_refused = |listing: &Listing| listing.failure.as_ref().is_some_and(|failure| failure.forbidden);
        !self.0.is_empty() && self.0.values().all(|listing| listing.listed || is_refused(listing))
    }

    /// The listings that fail now, and the namespace of each; `None` is all namespaces.
    pub fn failures(&self) -> impl Iterator<Item = (Option<&Arc<str>>, &ListFailure)> {
        let failing = self.0.iter();
        failing.filter_map(|(namespace, listing)| Some((namespace.as_ref(), listing.failure.as_ref()?)))
    }

    fn of(&self, namespace: &str) -> Option<&Listing> {
        let own = self.0.get(&Some(Arc::from(namespace)));
        own.or_else(|| self.0.get(&None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(forbidden: bool, second: i64) -> ListFailure {
        ListFailure {
            forbidden,
            message: Message::new("no", ""),
            since: Time(second),
        }
    }

    #[test]
    fn a_namespace_is_listed_by_its_own_listing_or_by_that_of_all() {
        let mut two = Listings::new([Some("a"), Some("b")]);
        two.on_listed(Some("a"));
        assert_eq!(["a", "b", "c"].map(|name| two.includes(name)), [true, true, false]);
        assert_eq!(["a", "b", "c"].map(|name| two.is_listed(name)), [true, false, false]);
        let mut all = Listings::new([None]);
        assert_eq!((all.includes("c"), all.is_listed("c")), (true, false));
        all.on_listed(None);
        assert!(all.is_listed("c"));
    }

    #[test]
    fn a_refused_namespace_keeps_no_other_waiting_and_one_that_does_not_answer_does() {
        assert!(!Listings::default().is_settled(), "nothing is known");
        for (forbidden, settled) in [(true, true), (false, false)] {
            let mut listings = Listings::new([Some("a"), Some("b")]);
            listings.on_failed(Some("b"), failure(forbidden, 1));
            assert!(!listings.is_settled(), "a is not listed yet");
            listings.on_listed(Some("a"));
            assert_eq!(listings.is_settled(), settled, "forbidden: {forbidden}");
            listings.on_listed(Some("b"));
            assert!(listings.is_settled());
        }
    }

    #[test]
    fn a_listing_that_fails_later_stays_listed_and_shows_since_when_it_fails() {
        let mut listings = Listings::new([Some("a")]);
        listings.on_listed(Some("a"));
        listings.on_failed(Some("a"), failure(false, 5));
        listings.on_failed(Some("a"), failure(true, 9));
        assert!(listings.is_listed("a") && listings.is_settled());
        let failures: Vec<_> = listings.failures().map(|(_, failure)| failure.clone()).collect();
        assert_eq!(failures, [failure(true, 5)]);
        listings.on_listed(Some("a"));
        assert_eq!(listings.failures().count(), 0);
    }
}
