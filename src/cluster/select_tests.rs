//! Tests of the rules that select pods and containers, and of the checks of a scope.

use super::*;

fn map(pairs: &[(&str, &str)]) -> Map {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn wants(selection: &Selection, labels: &[(&str, &str)], annotations: &[(&str, &str)]) -> bool {
    selection.wants(Some(&map(labels)), Some(&map(annotations)))
}

#[test]
fn a_pod_is_collected_unless_it_opts_out() {
    let all = Selection::default();
    assert!(all.wants(None, None));
    assert!(wants(&all, &[], &[(COLLECT, "true")]));
    assert!(!wants(&all, &[], &[(COLLECT, " false ")]));
    assert!(wants(&all, &[], &[(COLLECT, "maybe")]));
}

#[test]
fn with_opt_in_only_pods_annotated_true_are_collected() {
    let opt_in = Selection {
        opt_in: true,
        ..Selection::default()
    };
    assert!(!opt_in.wants(None, None));
    assert!(wants(&opt_in, &[], &[(COLLECT, "true")]));
    assert!(!wants(&opt_in, &[], &[(COLLECT, "false")]));
    assert!(!wants(&opt_in, &[], &[(COLLECT, "yes")]));
}

#[test]
fn podlog_does_not_collect_itself_even_when_annotated() {
    let own = [(APP, "podlog")];
    assert!(!wants(&Selection::default(), &own, &[(COLLECT, "true")]));
    assert!(wants(&Selection::default(), &[(APP, "cart")], &[]));
    let everything = Selection {
        opt_in: false,
        exclude_app: None,
    };
    assert!(wants(&everything, &own, &[]) && everything.wants(None, None));
}

#[test]
fn an_annotation_selects_containers() {
    let picks = |list: &str, name| wants_container(Some(&map(&[(CONTAINERS, list)])), name);
    assert!(wants_container(None, "app"));
    assert!(picks("app, log", "log") && picks("app, log", "app"));
    assert!(!picks("app, log", "proxy") && !picks("unknown", "app"));
    assert!(picks(" , ", "app"));
}

fn check(labels: Option<&str>, fields: Option<&str>) -> Result<(), ScopeError> {
    let scope = Scope {
        labels: labels.map(str::to_owned),
        fields: fields.map(str::to_owned),
        ..Scope::default()
    };
    scope.check()
}

#[test]
fn label_selectors_have_the_syntax_of_kubectl() {
    for good in [
        "app=web",
        "app==web,tier!=cache",
        "env in (a, b),x notin (c)",
        "!debug",
        "app.kubernetes.io/name",
        "a=",
        "app = web",
    ] {
        assert_eq!(check(Some(good), None), Ok(()), "{good}");
    }
    for bad in [
        "",
        "app=web,",
        "=x",
        "app in a,b",
        "app in (a",
        "a b",
        "-x=1",
        "x=a b",
        "!",
        "a/b/c=1",
        "env in(a)(b)",
    ] {
        assert!(matches!(check(Some(bad), None), Err(ScopeError::Labels(..))), "{bad:?}");
    }
}

#[test]
fn a_selector_on_a_field_that_changes_is_refused() {
    assert_eq!(check(None, Some("spec.nodeName=n1,metadata.name!=a")), Ok(()));
    for bad in ["status.phase=Running", "spec.foo=1", "spec.nodeName", ""] {
        assert!(matches!(check(None, Some(bad)), Err(ScopeError::Fields(..))), "{bad:?}");
    }
    let text = check(None, Some("status.phase=Running")).unwrap_err().to_string();
    assert!(text.contains("status.phase changes"), "{text}");
}

#[test]
fn invalid_namespace_names_are_refused() {
    for (name, good) in [
        ("shop", true),
        ("a-1", true),
        ("Shop", false),
        ("", false),
        ("a/b", false),
        ("a.b", false),
    ] {
        let scope = Scope {
            namespaces: vec![name.to_owned()],
            ..Scope::default()
        };
        assert_eq!(scope.check().is_ok(), good, "{name:?}");
    }
}
