//! Which pods are collected: by the settings, and by the annotations of a pod.
//!
//! Pure functions. The API server applies namespaces and selectors. It cannot select by annotation, so that is done here.
//! The rules in order of precedence:
//!
//! 1. podlog's own pods are excluded, whatever their annotations say: a collector that collects its own log lines never
//!    ends. With [`Selection::exclude_app`] set to `None` this rule does not apply.
//! 2. `podlog.io/collect: "false"` excludes a pod.
//! 3. With [`Selection::opt_in`], only pods with `podlog.io/collect: "true"` are collected.
//! 4. `podlog.io/containers: "a,b"` selects containers of a collected pod. Names that the pod does not have are ignored,
//!    and a blank list selects all containers.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::domain::Message;

/// The annotation that includes a pod (`"true"`) or excludes it (`"false"`).
pub(super) const COLLECT: &str = "podlog.io/collect";
/// The annotation that names the containers to collect, separated by commas.
pub(super) const CONTAINERS: &str = "podlog.io/containers";
/// The recommended label for the name of an application.
const APP: &str = "app.kubernetes.io/name";

type Map = BTreeMap<String, String>;

/// The rules that look at the pod itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Collect only pods annotated `podlog.io/collect: "true"`.
    pub opt_in: bool,
    /// Exclude pods with this label `app.kubernetes.io/name`: podlog itself.
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
        match annotations.and_then(|all| all.get(COLLECT)).map(|value| value.trim()) {
            Some("false") => false,
            Some("true") => true,
            _ => !self.opt_in,
        }
    }
}

/// Whether the annotations of a pod select this container.
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
    /// The namespaces; empty for all.
    pub namespaces: Vec<String>,
    /// A label selector in the syntax of kubectl.
    pub labels: Option<String>,
    /// A field selector in the syntax of kubectl, on fields that do not change during a pod's life.
    pub fields: Option<String>,
    /// The rules that look at the pod itself.
    pub selection: Selection,
    /// The time between two lists while watching does not work.
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

/// Why a scope cannot be valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScopeError {
    /// The label selector, and the part of it that does not parse.
    Labels(String, String),
    /// The field selector, and why it is wrong: it does not parse, or selects on the wrong field.
    Fields(String, String),
    /// This is not a valid name of a namespace.
    Namespace(String),
}

impl ScopeError {
    /// What is wrong, and what to write instead.
    #[must_use]
    pub fn message(&self) -> Message {
        match self {
            Self::Labels(selector, part) => Message::new(
                format!("label selector {selector:?}: {part:?} is not a requirement"),
                "write for example app=web,tier!=cache,env in (a,b),!debug",
            ),
            Self::Fields(selector, cause) => Message::new(
                format!("field selector {selector:?}: {cause}"),
                "write for example spec.nodeName=node1,metadata.name!=web-0",
            ),
            Self::Namespace(name) => Message::new(
                format!("namespace {name:?}: the name is not valid"),
                "use lower-case letters, digits and '-', at most 63",
            ),
        }
    }
}

impl fmt::Display for ScopeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.message().fmt(f)
    }
}

impl std::error::Error for ScopeError {}

impl Scope {
    /// The namespaces to list, sorted; `None` is all of them at once.
    #[must_use]
    pub fn list_namespaces(&self) -> Vec<Option<&str>> {
        let mut names: Vec<_> = self.namespaces.iter().map(|name| Some(name.as_str())).collect();
        names.sort_unstable();
        names.dedup();
        if names.is_empty() {
            names.push(None);
        }
        names
    }

    /// Checks what can be checked without the cluster.
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
            && let Some(cause) = fields.split(',').find_map(|term| wrong_field(term.trim()))
        {
            return Err(ScopeError::Fields(fields.clone(), cause));
        }
        Ok(())
    }
}

/// The requirements of a label selector: split at the commas outside parentheses.
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

/// The fields that do not change from the scheduling of a pod to its end.
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
        // A pod that leaves the selection looks deleted, before its last lines are read.
        return Some(format!(
            "{field} changes during a pod's life, and its last lines would be lost"
        ));
    }
    (!FIELDS.contains(&field)).then(|| format!("pods cannot be selected by {field:?}"))
}

#[cfg(test)]
#[path = "select_tests.rs"]
mod tests;
