//! The parser of timestamps, beside a library.
#![no_main]
#![allow(dead_code)]

#[path = "../../tests/it/models.rs"]
mod models;

libfuzzer_sys::fuzz_target!(|line: &[u8]| models::check_stamp(line));
