//! URLs of stores and sinks, with a password in them, and other values of settings.
#![no_main]
#![allow(dead_code)]

#[path = "../../tests/it/models.rs"]
mod models;

libfuzzer_sys::fuzz_target!(|input: (u8, &str, &str, &str)| {
    let (scheme, before, after, rest) = input;
    let schemes = ["mysql", "mariadb", "sqlite", "file", "stdout", "https", "x", ""];
    models::check_url(schemes[usize::from(scheme) % schemes.len()], before, after, rest);
    models::check_selectors(rest);
    models::check_value(rest);
});
