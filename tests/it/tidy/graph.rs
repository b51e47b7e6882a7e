//! Finds out which file uses which. Names are followed through imports and re-exports to the file that defines them.
//!
//! It knows modules and `use`, not types: a method call alone is no use of the file that defines the method.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::source::{CodePath, Source};

/// Re-exports of re-exports are followed this far.
const DEPTH: usize = 8;

/// A module that has a file of its own.
#[derive(Default)]
struct Module {
    file: String,
    children: BTreeSet<String>,
    /// Names that `use` brings in, and what they stand for, from the crate's root.
    imports: HashMap<String, CodePath>,
    /// Modules all of whose names are brought in.
    globs: Vec<CodePath>,
    items: BTreeSet<String>,
}

/// The modules of one crate.
pub(crate) struct Graph {
    modules: BTreeMap<CodePath, Module>,
    /// File -> file it uses -> names it uses of it.
    edges: BTreeMap<String, BTreeMap<String, BTreeSet<String>>>,
}

/// The module that a file below `folder` is, from the crate's root.
fn module_of(path: &str, folder: &str) -> CodePath {
    let inner = path.strip_prefix(folder).unwrap().trim_start_matches('/');
    let inner = inner.strip_suffix(".rs").unwrap();
    let inner = inner.strip_suffix("/mod").unwrap_or(inner);
    if ["main", "lib", "mod"].contains(&inner) {
        return Vec::new();
    }
    inner.split('/').map(str::to_owned).collect()
}

/// Whether the file is a test module beside the file that it tests.
fn is_test_file(path: &str) -> bool {
    let (folder, name) = path.rsplit_once('/').unwrap_or_default();
    !folder.starts_with("tests") && (name.ends_with("_tests.rs") || name == "tests.rs")
}

impl Graph {
    /// The graph of the crate whose files are these; `folder` has its root.
    pub(crate) fn new(sources: &[Source], folder: &str) -> Self {
        let sources: Vec<&Source> = sources
            .iter()
            .filter(|source| source.path.starts_with(&format!("{folder}/")) && !is_test_file(&source.path))
            // The program, a crate of its own beside the library.
            .filter(|source| source.path != "src/main.rs")
            .collect();
        let mut graph = Self {
            modules: BTreeMap::new(),
            edges: BTreeMap::new(),
        };
        for source in &sources {
            let path = module_of(&source.path, folder);
            graph.modules.entry(path).or_default().file.clone_from(&source.path);
        }
        let paths: Vec<CodePath> = graph.modules.keys().cloned().collect();
        for path in paths {
            if let Some((name, parent)) = path.split_last()
                && let Some(parent) = graph.modules.get_mut(parent)
            {
                parent.children.insert(name.clone());
            }
        }
        for source in &sources {
            graph.read_names(source, &module_of(&source.path, folder));
        }
        for source in &sources {
            graph.read_edges(source, &module_of(&source.path, folder));
        }
        graph
    }

    /// Notes what the file defines and imports.
    fn read_names(&mut self, source: &Source, path: &CodePath) {
        let children = self.modules[path].children.clone();
        let (mut imports, mut globs, mut items) = (HashMap::new(), Vec::new(), BTreeSet::new());
        for item in source.product_items() {
            if let syn::Item::Use(item) = item {
                for (name, target) in leaves(&item.tree) {
                    match (absolute(&target, path, &children), name) {
                        (Some(target), Some(name)) => {
                            imports.insert(name, target);
                        }
                        (Some(target), None) => globs.push(target),
                        (None, _) => {}
                    }
                }
            } else if let Some(name) = name_of(item) {
                items.insert(name);
            }
        }
        let module = self.modules.get_mut(path).unwrap();
        (module.imports, module.globs, module.items) = (imports, globs, items);
    }

    /// Notes which files the file uses.
    fn read_edges(&mut self, source: &Source, path: &CodePath) {
        let module = &self.modules[path];
        let mut used = Vec::new();
        for item in source.product_items() {
            match item {
                syn::Item::Use(item) if matches!(item.vis, syn::Visibility::Inherited) => {
                    let targets = leaves(&item.tree).into_iter().map(|(_, target)| target);
                    used.extend(targets.filter_map(|target| absolute(&target, path, &module.children)));
                }
                syn::Item::Use(_) | syn::Item::Mod(_) => {}
                item => {
                    let paths = super::source::paths(quote::ToTokens::to_token_stream(item));
                    used.extend(paths.into_iter().filter_map(|found| self.meaning(&found, path)));
                }
            }
        }
        let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (file, name) in used.iter().filter_map(|target| self.definition(target, DEPTH)) {
            if file != source.path {
                edges.entry(file).or_default().insert(name);
            }
        }
        self.edges.insert(source.path.clone(), edges);
    }

    /// What a path in the code of a module stands for, from the crate's root.
    fn meaning(&self, found: &[String], module: &CodePath) -> Option<CodePath> {
        let here = &self.modules[module];
        if let Some(target) = absolute(found, module, &here.children) {
            return Some(target);
        }
        let (first, rest) = found.split_first()?;
        if let Some(target) = here.imports.get(first) {
            return Some([target.as_slice(), rest].concat());
        }
        let glob = here.globs.iter().find(|glob| self.has(glob, first))?;
        Some([glob.as_slice(), found].concat())
    }

    fn has(&self, module: &CodePath, name: &str) -> bool {
        let module = self.modules.get(module);
        module.is_some_and(|module| module.items.contains(name) || module.imports.contains_key(name))
    }

    /// The file that defines what the path stands for, and its name; `None` for a module and for other crates.
    fn definition(&self, target: &[String], depth: usize) -> Option<(String, String)> {
        let mut path = CodePath::new();
        for (at, name) in target.iter().enumerate() {
            let module = self.modules.get(&path)?;
            // A function may have the name of the module that it is in, and be re-exported beside it.
            let reexported = at + 1 == target.len() && module.imports.contains_key(name);
            if module.children.contains(name) && !reexported {
                path.push(name.clone());
                continue;
            }
            if let Some(import) = module.imports.get(name)
                && depth > 0
            {
                return self.definition(&[import.as_slice(), &target[at + 1..]].concat(), depth - 1);
            }
            let glob = module.globs.iter().find(|glob| depth > 0 && self.has(glob, name));
            return match glob {
                Some(glob) => self.definition(&[glob.as_slice(), &target[at..]].concat(), depth - 1),
                None => Some((module.file.clone(), name.clone())),
            };
        }
        None
    }

    /// Each use of one file by another: the file, what it uses, and the names.
    pub(crate) fn uses(&self) -> impl Iterator<Item = (&str, &str, &BTreeSet<String>)> {
        self.edges
            .iter()
            .flat_map(|(from, to)| to.iter().map(move |(to, names)| (from.as_str(), to.as_str(), names)))
    }

    /// The file that defines the type which an `impl` in `file` is of.
    pub(crate) fn type_of(&self, file: &str, path: &[String]) -> Option<(String, String)> {
        let (module, here) = self.modules.iter().find(|(_, module)| module.file == file)?;
        match self.meaning(path, module) {
            Some(target) => self.definition(&target, DEPTH),
            None => Some((here.file.clone(), path.last()?.clone())),
        }
    }

    /// Files that use one another, directly or by way of others.
    pub(crate) fn circles(&self) -> Vec<BTreeSet<&str>> {
        let reach = |from: &str| -> BTreeSet<&str> {
            let mut reached = BTreeSet::new();
            let mut next: Vec<&str> = self
                .edges
                .get(from)
                .into_iter()
                .flat_map(|to| to.keys().map(String::as_str))
                .collect();
            while let Some(file) = next.pop() {
                if reached.insert(file) {
                    next.extend(
                        self.edges
                            .get(file)
                            .into_iter()
                            .flat_map(|to| to.keys().map(String::as_str)),
                    );
                }
            }
            reached
        };
        let reached: BTreeMap<&str, BTreeSet<&str>> =
            self.edges.keys().map(|file| (file.as_str(), reach(file))).collect();
        let mut circles: Vec<BTreeSet<&str>> = Vec::new();
        for (file, others) in &reached {
            if !others.contains(file) || circles.iter().any(|circle| circle.contains(file)) {
                continue;
            }
            let back = others
                .iter()
                .filter(|other| reached.get(*other).is_some_and(|back| back.contains(file)));
            circles.push(back.copied().collect());
        }
        circles
    }
}

/// The path from the crate's root, of one that begins with `crate`, `self`, `super` or a child of the module.
fn absolute(path: &[String], module: &CodePath, children: &BTreeSet<String>) -> Option<CodePath> {
    let (first, rest) = path.split_first()?;
    match first.as_str() {
        "crate" => Some(rest.to_vec()),
        "self" if !rest.is_empty() => Some([module.as_slice(), rest].concat()),
        "super" => {
            let mut base = module.clone();
            let mut rest = path;
            while let Some(("super", after)) = rest.split_first().map(|(first, after)| (first.as_str(), after)) {
                base.pop();
                rest = after;
            }
            Some([base.as_slice(), rest].concat())
        }
        child if children.contains(child) => Some([module.as_slice(), path].concat()),
        _ => None,
    }
}

/// Each name that a `use` brings in, with its path; no name for `*`.
fn leaves(tree: &syn::UseTree) -> Vec<(Option<String>, CodePath)> {
    match tree {
        syn::UseTree::Path(path) => {
            let inner = leaves(&path.tree).into_iter();
            let head = path.ident.to_string();
            inner
                .map(|(name, rest)| {
                    let path: CodePath = std::iter::once(head.clone()).chain(rest).collect();
                    // `use a::{self}` brings in `a`.
                    let name = name.map(|name| if name == "self" { head.clone() } else { name });
                    (name, path)
                })
                .collect()
        }
        syn::UseTree::Name(name) if name.ident == "self" => vec![(Some("self".into()), Vec::new())],
        syn::UseTree::Name(name) => vec![(Some(name.ident.to_string()), vec![name.ident.to_string()])],
        syn::UseTree::Rename(rename) if rename.ident == "self" => vec![(Some(rename.rename.to_string()), Vec::new())],
        syn::UseTree::Rename(rename) => vec![(Some(rename.rename.to_string()), vec![rename.ident.to_string()])],
        syn::UseTree::Glob(_) => vec![(None, Vec::new())],
        syn::UseTree::Group(group) => group.items.iter().flat_map(leaves).collect(),
    }
}

fn name_of(item: &syn::Item) -> Option<String> {
    let ident = match item {
        syn::Item::Const(item) => &item.ident,
        syn::Item::Enum(item) => &item.ident,
        syn::Item::Fn(item) => &item.sig.ident,
        syn::Item::Macro(item) => item.ident.as_ref()?,
        syn::Item::Static(item) => &item.ident,
        syn::Item::Struct(item) => &item.ident,
        syn::Item::Trait(item) => &item.ident,
        syn::Item::Type(item) => &item.ident,
        _ => return None,
    };
    Some(ident.to_string())
}

fn parsed(path: &str, text: &str) -> Source {
    Source {
        path: path.to_owned(),
        text: text.to_owned(),
        syntax: syn::parse_file(text).unwrap(),
    }
}

#[test]
fn names_are_followed_through_reexports_to_the_file_that_defines_them() {
    let sources = [
        parsed("src/lib.rs", "mod a; mod b;"),
        parsed(
            "src/a/mod.rs",
            "mod inner; pub use inner::Thing; fn f() { crate::b::g(); }",
        ),
        parsed("src/a/inner.rs", "pub struct Thing;"),
        parsed(
            "src/b.rs",
            "use crate::a::{self, Thing}; pub fn g() { a::inner::Thing; }",
        ),
    ];
    let graph = Graph::new(&sources, "src");
    let uses: Vec<(&str, &str)> = graph.uses().map(|(from, to, _)| (from, to)).collect();
    assert_eq!(uses, [("src/a/mod.rs", "src/b.rs"), ("src/b.rs", "src/a/inner.rs")]);
    assert!(graph.circles().is_empty());
}

#[test]
fn a_child_and_a_parent_that_use_each_other_are_a_circle() {
    let sources = [
        parsed("src/lib.rs", "mod a;"),
        parsed("src/a/mod.rs", "mod inner; struct Shared; fn f() { inner::g(); }"),
        parsed("src/a/inner.rs", "use super::Shared; fn g() {} fn h(_: Shared) {}"),
    ];
    let graph = Graph::new(&sources, "src");
    let circles: Vec<Vec<&str>> = graph
        .circles()
        .into_iter()
        .map(|files| files.into_iter().collect())
        .collect();
    assert_eq!(circles, [["src/a/inner.rs", "src/a/mod.rs"]]);
}
