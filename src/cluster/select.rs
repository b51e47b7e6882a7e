//! Which pods are wanted: what the operator says, and what a pod says about itself.
//!
//! Pure functions. Namespaces and selectors are applied by the API server; annotations are not
//! selectable there, so they are looked at here. In order of precedence:
//!
//! 1. podlog's own pods are left out, whatever their annotations say: a collector that collects
//!    itself never ends. Setting [`Selection::exclude_app`] to nothing takes this rule away.
//! 2. `podlog.io/collect: "false"` leaves a pod out.
//! 3. With [`Selection::opt_in`] only `podlog.io/collect: "true"` lets a pod in.
//! 4. `podlog.io/containers: "a,b"` picks containers of a pod that is in; names it does not have
//!    are passed over, and a blank list is as none.

use std::collections::BTreeMap;
use std::time::Duration;

/// Says `"true"` or `"false"` about a pod.
pub(super) const COLLECT: &str = "podlog.io/collect";
/// Names containers, separated by commas.
pub(super) const CONTAINERS: &str = "podlog.io/containers";
/// The recommended label for the name of an application.
const APP: &str = "app.kubernetes.io/name";

type Map = BTreeMap<String, String>;

/// What is decided by looking at a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Collect only pods annotated `podlog.io/collect: "true"`.
    pub opt_in: bool,
    /// Leave out pods whose label `app.kubernetes.io/name` is this: podlog itself.
    pub exclude_app: Option<String>,
}

impl Default for Selection {
    fn default() -> Self {
        Self {
            opt_in: false,
            exclude_app: Some("podlog".into()),
        }
    }
}

impl Selection {
    /// Whether a pod with these labels and annotations is collected.
    pub(super) fn wants(&self, labels: Option<&Map>, annotations: Option<&Map>) -> bool {
        let app = labels.and_then(|labels| labels.get(APP));
        if app.is_some() && app == self.exclude_app.as_ref() {
            return false;
        }
        match annotations.and_then(|all| all.get(COLLECT)).map(|said| said.trim()) {
            Some("false") => false,
            Some("true") => true,
            _ => !self.opt_in,
        }
    }
}

/// Whether the annotations of a pod let this container in.
pub(super) fn wants_container(annotations: Option<&Map>, name: &str) -> bool {
    let Some(list) = annotations.and_then(|all| all.get(CONTAINERS)) else {
        return true;
    };
    let mut named = list.split(',').map(str::trim).filter(|one| !one.is_empty()).peekable();
    named.peek().is_none() || named.any(|one| one == name)
}

/// Which pods to discover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// The namespaces; none is all of them.
    pub namespaces: Vec<String>,
    /// A label selector, as kubectl takes it.
    pub labels: Option<String>,
    /// A field selector, as kubectl takes it, on what does not change during a pod's life.
    pub fields: Option<String>,
    /// What is decided by looking at a pod.
    pub selection: Selection,
    /// How often to list while watching does not work, at most.
    pub poll_interval: Duration,
}

impl Default for Scope {
    fn default() -> Self {
        Self {
            namespaces: Vec::new(),
            labels: None,
            fields: None,
            selection: Selection::default(),
            poll_interval: Duration::from_secs(10),
        }
    }
}

/// A scope that cannot be meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScopeError {
    /// The label selector does not parse.
    #[error("label selector {0:?}: {1:?} is no requirement; write for example app=web,tier!=cache,env in (a,b),!debug")]
    Labels(String, String),
    /// The field selector does not parse or selects on the wrong field.
    #[error("field selector {0:?}: {1}; write for example spec.nodeName=node1,metadata.name!=web-0")]
    Fields(String, String),
    /// Not the name of a namespace.
    #[error("namespace {0:?}: no such name is possible; use lower-case letters, digits and '-', at most 63")]
    Namespace(String),
}

impl Scope {
    /// The namespaces to ask for, sorted; `None` is all of them at once.
    #[must_use]
    pub fn places(&self) -> Vec<Option<&str>> {
        let mut places: Vec<_> = self.namespaces.iter().map(|name| Some(name.as_str())).collect();
        places.sort_unstable();
        places.dedup();
        if places.is_empty() {
            places.push(None);
        }
        places
    }

    /// Says what is wrong, without asking the cluster.
    pub fn check(&self) -> Result<(), ScopeError> {
        if let Some(bad) = self.namespaces.iter().find(|name| !is_label(name)) {
            return Err(ScopeError::Namespace(bad.clone()));
        }
        if let Some(labels) = &self.labels
            && let Some(bad) = requirements(labels).into_iter().find(|one| !is_requirement(one))
        {
            return Err(ScopeError::Labels(labels.clone(), bad.to_owned()));
        }
        if let Some(fields) = &self.fields
            && let Some(why) = fields.split(',').find_map(|term| wrong_field(term.trim()))
        {
            return Err(ScopeError::Fields(fields.clone(), why));
        }
        Ok(())
    }
}

/// Cuts at the commas that are not inside parentheses.
fn requirements(selector: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0_i32);
    for (at, byte) in selector.bytes().enumerate() {
        match byte {
            b'(' => depth += 1,
            b')' => depth -= 1,
            b',' if depth == 0 => {
                parts.push(selector[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(selector[start..].trim());
    parts
}

fn is_requirement(text: &str) -> bool {
    if let Some(key) = text.strip_prefix('!') {
        return is_key(key.trim());
    }
    for operator in ["!=", "==", "="] {
        if let Some((key, value)) = text.split_once(operator) {
            return is_key(key.trim()) && is_value(value.trim());
        }
    }
    let Some((key, rest)) = text.split_once(char::is_whitespace) else {
        return is_key(text);
    };
    let rest = rest.trim();
    let set = rest.strip_prefix("notin").or_else(|| rest.strip_prefix("in"));
    let set = set.and_then(|set| set.trim().strip_prefix('(')?.strip_suffix(')'));
    is_key(key) && set.is_some_and(|set| set.split(',').all(|value| is_value(value.trim())))
}

/// `name` or `domain/name`.
fn is_key(text: &str) -> bool {
    let (prefix, name) = text
        .split_once('/')
        .map_or((None, text), |(prefix, name)| (Some(prefix), name));
    prefix.is_none_or(|prefix| prefix.len() <= 253 && prefix.split('.').all(is_label))
        && !name.is_empty()
        && is_value(name)
}

/// At most 63 of letters, digits, `-`, `_` and `.`, beginning and ending with a letter or digit; or nothing.
fn is_value(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let ends = |b: Option<u8>| b.is_none_or(|b| b.is_ascii_alphanumeric());
    text.len() <= 63 && text.bytes().all(inner) && ends(text.bytes().next()) && ends(text.bytes().last())
}

fn is_label(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !text.is_empty() && is_value(text) && text.bytes().all(plain)
}

/// The fields that a pod keeps from its scheduling to its end.
const FIELDS: [&str; 7] = [
    "metadata.name",
    "metadata.namespace",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "spec.hostNetwork",
];

fn wrong_field(term: &str) -> Option<String> {
    let Some((field, _)) = ["!=", "==", "="].iter().find_map(|operator| term.split_once(operator)) else {
        return Some(format!("{term:?} has no '='"));
    };
    let field = field.trim();
    if field.starts_with("status.") {
        // A pod that leaves the selection looks as if it were deleted, before its last lines are read.
        return Some(format!(
            "{field} changes during a pod's life, and its last lines would be lost"
        ));
    }
    (!FIELDS.contains(&field)).then(|| format!("pods cannot be selected by {field:?}"))
}

#[cfg(test)]
#[path = "select_tests.rs"]
mod tests;
