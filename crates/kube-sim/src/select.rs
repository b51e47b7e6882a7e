//! Label and field selectors: they are parsed once and then compared with every pod. A selector that a real API server
//! refuses is refused here too.

use super::published::PublishedPod;

/// Which pods a request selects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Selector {
    /// The namespace; `None` for all.
    pub(super) namespace: Option<String>,
    labels: Vec<LabelRequirement>,
    fields: Vec<FieldRequirement>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum LabelRequirement {
    Present(String),
    Absent(String),
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct FieldRequirement {
    key: FieldKey,
    value: String,
    equal: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FieldKey {
    Name,
    Namespace,
    Node,
    Phase,
}

impl Selector {
    /// Parses the two query parameters.
    pub(super) fn parse(namespace: Option<&str>, labels: &str, fields: &str) -> Result<Self, String> {
        let mut selector = Self {
            namespace: namespace.map(str::to_owned),
            ..Self::default()
        };
        for term in split(labels) {
            selector.labels.push(label(term)?);
        }
        for term in fields.split(',').map(str::trim).filter(|term| !term.is_empty()) {
            selector.fields.push(field(term)?);
        }
        Ok(selector)
    }

    /// Whether it selects by labels or fields.
    pub(super) fn is_filter(&self) -> bool {
        !(self.labels.is_empty() && self.fields.is_empty())
    }

    /// Whether it selects the pod.
    pub(super) fn selects(&self, pod: &PublishedPod) -> bool {
        let inside = self
            .namespace
            .as_ref()
            .is_none_or(|namespace| *namespace == pod.namespace);
        inside
            && self.labels.iter().all(|label| match label {
                LabelRequirement::Present(key) => pod.labels.contains_key(key),
                LabelRequirement::Absent(key) => !pod.labels.contains_key(key),
                LabelRequirement::In(key, values) => pod.labels.get(key).is_some_and(|value| values.contains(value)),
                // As in Kubernetes, a pod without the label is not in any set.
                LabelRequirement::NotIn(key, values) => pod.labels.get(key).is_none_or(|value| !values.contains(value)),
            })
            && self.fields.iter().all(|field| {
                let value = match field.key {
                    FieldKey::Name => &pod.name,
                    FieldKey::Namespace => &pod.namespace,
                    FieldKey::Node => &pod.node,
                    FieldKey::Phase => &pod.phase,
                };
                (*value == field.value) == field.equal
            })
    }
}

/// Splits at commas that are not in parentheses.
fn split(labels: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_i32;
    labels
        .split(move |c| {
            depth += i32::from(c == '(') - i32::from(c == ')');
            c == ',' && depth == 0
        })
        .map(str::trim)
        .filter(|term| !term.is_empty())
}

fn label(term: &str) -> Result<LabelRequirement, String> {
    let refuse = || format!("unable to parse requirement: {term:?}");
    if let Some(list) = term.strip_suffix(')') {
        let (head, values) = list.split_once('(').ok_or_else(refuse)?;
        let values = values.split(',').map(|value| value.trim().to_owned()).collect();
        let mut words = head.split_whitespace();
        return match (words.next(), words.next(), words.next()) {
            (Some(key), Some("in"), None) => Ok(LabelRequirement::In(key.to_owned(), values)),
            (Some(key), Some("notin"), None) => Ok(LabelRequirement::NotIn(key.to_owned(), values)),
            _ => Err(refuse()),
        };
    }
    let one = |key: &str, value: &str| (key.trim().to_owned(), vec![value.trim().to_owned()]);
    if let Some((key, value)) = term.split_once("!=") {
        let (key, values) = one(key, value);
        return Ok(LabelRequirement::NotIn(key, values));
    }
    if let Some((key, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        let (key, values) = one(key, value);
        return Ok(LabelRequirement::In(key, values));
    }
    match term.strip_prefix('!') {
        _ if term.contains(char::is_whitespace) => Err(refuse()),
        Some(key) => Ok(LabelRequirement::Absent(key.to_owned())),
        None => Ok(LabelRequirement::Present(term.to_owned())),
    }
}

fn field(term: &str) -> Result<FieldRequirement, String> {
    let (key, value, equal) = if let Some((key, value)) = term.split_once("!=") {
        (key, value, false)
    } else if let Some((key, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        (key, value, true)
    } else {
        return Err(format!("invalid selector: '{term}'; can't understand '{term}'"));
    };
    let key = match key.trim() {
        "metadata.name" => FieldKey::Name,
        "metadata.namespace" => FieldKey::Namespace,
        "spec.nodeName" => FieldKey::Node,
        "status.phase" => FieldKey::Phase,
        other => return Err(format!("field label not supported: {other}")),
    };
    Ok(FieldRequirement {
        key,
        value: value.trim().to_owned(),
        equal,
    })
}

#[cfg(test)]
mod tests {
    use super::super::pod::{LivePod, PodSpec};
    use super::*;

    fn check(labels: &str, fields: &str, expected: Result<bool, ()>) {
        let spec = PodSpec::new("shop", "cart-0")
            .node("n1")
            .label("app", "cart")
            .label("tier", "web");
        let published = PublishedPod::new(&LivePod::new(spec, "u".into(), 0), 1);
        let found = Selector::parse(None, labels, fields).map(|selector| selector.selects(&published));
        assert_eq!(found.map_err(drop), expected, "{labels:?} {fields:?}");
    }

    #[test]
    fn label_selectors_have_equality_and_set_forms() {
        check("", "", Ok(true));
        check("app=cart,tier==web", "", Ok(true));
        check("app!=cart", "", Ok(false));
        check("other!=x", "", Ok(true));
        check("app in (cart, shop),tier notin (db)", "", Ok(true));
        check("app notin (cart)", "", Ok(false));
        check("app,!other", "", Ok(true));
        check("!app", "", Ok(false));
        check("app within (x)", "", Err(()));
        check("app cart", "", Err(()));
    }

    #[test]
    fn field_selectors_know_four_fields() {
        check("", "metadata.name=cart-0,spec.nodeName=n1", Ok(true));
        check("", "spec.nodeName!=n1", Ok(false));
        check("", "metadata.namespace=shop,status.phase=Pending", Ok(true));
        check("", "status.podIP=1", Err(()));
        check("", "nonsense", Err(()));
    }
}
