//! Settings files, with a password in them.
#![no_main]
#![allow(dead_code)]

#[path = "../../tests/it/models.rs"]
mod models;

libfuzzer_sys::fuzz_target!(|input: (&str, &str, &str)| models::check_file(input.0, input.1, input.2));
