//! Resuming after a stored line, beside a naive model.
#![no_main]
#![allow(dead_code)]

#[path = "../../tests/it/models.rs"]
mod models;

libfuzzer_sys::fuzz_target!(|input: (usize, usize, [u8; 3], &[u8])| {
    let (stored, skipped, cuts, seed) = input;
    models::check_resume(&seed[..seed.len().min(100)], stored, &cuts, skipped);
});
