//! The project's Rust files, parsed. It reads files and checks no rule.

use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens as _;
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};

/// A text file: its path from the root, with `/`, and its text.
pub(crate) struct Text {
    pub(crate) path: String,
    pub(crate) text: String,
}

/// A Rust file.
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) text: String,
    pub(crate) syntax: syn::File,
}

/// A function with a body.
pub(crate) struct Function {
    pub(crate) name: String,
    /// Lines from `fn` to the closing brace.
    pub(crate) lines: usize,
}

/// A path as the code has it, such as `crate::locks::open` or `Instant`.
pub(crate) type CodePath = Vec<String>;

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files with this ending below some folders of the project, sorted.
pub(crate) fn files(folders: &[&str], ending: &str) -> Vec<Text> {
    let mut folders: Vec<PathBuf> = folders.iter().map(|folder| root().join(folder)).collect();
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == ending) {
                let text = std::fs::read_to_string(&path).unwrap();
                let path = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                found.push(Text { path, text });
            }
        }
    }
    assert!(!found.is_empty(), "no {ending} files");
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// All Rust files below some folders.
pub(crate) fn sources(folders: &[&str]) -> Vec<Source> {
    let parse = |Text { path, text }| {
        let syntax = syn::parse_file(&text).unwrap_or_else(|error| panic!("{path}: {error}"));
        Source { path, text, syntax }
    };
    files(folders, "rs").into_iter().map(parse).collect()
}

impl Source {
    /// Every function with a body, outside of macros.
    pub(crate) fn functions(&self) -> Vec<Function> {
        let mut functions = Functions(Vec::new());
        functions.visit_file(&self.syntax);
        functions.0
    }

    /// The name of every function, also of those that macros make from what stands in the file.
    pub(crate) fn function_names(&self) -> Vec<String> {
        let mut idents = Vec::new();
        collect_idents(self.syntax.to_token_stream(), &mut idents);
        let pairs = idents.windows(2).filter(|pair| pair[0] == "fn");
        pairs.map(|pair| pair[1].clone()).collect()
    }

    /// The items that are not only there for tests.
    pub(crate) fn product_items(&self) -> impl Iterator<Item = &syn::Item> {
        self.syntax.items.iter().filter(|item| !is_test(item))
    }

    /// Every path in the code, tests and macros included.
    pub(crate) fn paths(&self) -> Vec<CodePath> {
        paths(self.syntax.to_token_stream())
    }

    /// Every path in the code that is not only there for tests.
    pub(crate) fn product_paths(&self) -> Vec<CodePath> {
        self.product_items()
            .flat_map(|item| paths(item.to_token_stream()))
            .collect()
    }
}

/// Whether the code names `name`, such as `tokio` or `Instant::now`.
pub(crate) fn names(paths: &[CodePath], name: &str) -> bool {
    let name: Vec<&str> = name.split("::").collect();
    paths
        .iter()
        .any(|path| path.windows(name.len()).any(|part| part == name.as_slice()))
}

/// Whether an item has the attribute `#[cfg(test)]`.
fn is_test(item: &syn::Item) -> bool {
    let attributes = match item {
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        _ => return false,
    };
    attributes
        .iter()
        .any(|attribute| attribute.path().is_ident("cfg") && names(&paths(attribute.to_token_stream()), "test"))
}

/// The paths in these tokens. What follows a dot is a field or a method and begins none.
pub(crate) fn paths(tokens: TokenStream) -> Vec<CodePath> {
    let mut found = Vec::new();
    collect_paths(tokens, &mut found);
    found
}

fn collect_paths(tokens: TokenStream, found: &mut Vec<CodePath>) {
    let mut path: CodePath = Vec::new();
    // How many of the two colons of `::` have been seen since the last name.
    let mut colons = 0;
    let mut after_dot = false;
    let mut after_pub = false;
    for token in tokens {
        let visibility = std::mem::replace(
            &mut after_pub,
            matches!(&token, TokenTree::Ident(ident) if ident == "pub"),
        );
        match token {
            // `pub(in crate::a)` uses nothing of `a`.
            TokenTree::Group(_) if visibility => {}
            TokenTree::Ident(ident) => {
                if colons != 2 {
                    found.push(std::mem::take(&mut path));
                }
                if !after_dot {
                    path.push(ident.to_string());
                }
                (colons, after_dot) = (0, false);
            }
            TokenTree::Punct(punct) if punct.as_char() == ':' && !path.is_empty() => colons += 1,
            TokenTree::Punct(punct) => {
                found.push(std::mem::take(&mut path));
                (colons, after_dot) = (0, punct.as_char() == '.');
            }
            TokenTree::Group(group) => {
                found.push(std::mem::take(&mut path));
                (colons, after_dot) = (0, false);
                collect_paths(group.stream(), found);
            }
            TokenTree::Literal(_) => {
                found.push(std::mem::take(&mut path));
                (colons, after_dot) = (0, false);
            }
        }
    }
    found.push(path);
    found.retain(|path| !path.is_empty());
}

fn collect_idents(tokens: TokenStream, found: &mut Vec<String>) {
    for token in tokens {
        match token {
            TokenTree::Ident(ident) => found.push(ident.to_string()),
            TokenTree::Group(group) => collect_idents(group.stream(), found),
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
}

struct Functions(Vec<Function>);

impl Functions {
    fn add(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let lines = block.span().end().line + 1 - signature.fn_token.span().start().line;
        let name = signature.ident.to_string();
        self.0.push(Function { name, lines });
    }
}

impl<'ast> Visit<'ast> for Functions {
    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.add(&function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.add(&function.sig, &function.block);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        if let Some(block) = &function.default {
            self.add(&function.sig, block);
        }
        visit::visit_trait_item_fn(self, function);
    }
}

#[test]
fn paths_are_found_in_macros_and_not_after_dots() {
    let tokens: TokenStream = "select! { x = crate::a::b(c) => self.clone() } super::d::<e>() pub(in crate::f) fn"
        .parse()
        .unwrap();
    let found: Vec<String> = paths(tokens).iter().map(|path| path.join("::")).collect();
    assert_eq!(
        found,
        ["select", "x", "crate::a::b", "c", "self", "super::d", "e", "pub", "fn"]
    );
    assert!(names(&[vec!["tokio".into(), "time".into()]], "tokio"));
    assert!(!names(&[vec!["my_tokio".into()]], "tokio"));
}

#[test]
fn a_function_is_measured_from_fn_to_its_closing_brace() {
    let text = "/// a\nfn a() {\n    1;\n}\nm! { fn b() {} }\n";
    let source = Source {
        path: String::new(),
        text: text.to_owned(),
        syntax: syn::parse_file(text).unwrap(),
    };
    assert_eq!(source.functions().iter().map(|f| f.lines).collect::<Vec<_>>(), [3]);
    assert_eq!(source.function_names(), ["a", "b"]);
}
