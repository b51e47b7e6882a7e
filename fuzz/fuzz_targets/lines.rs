//! The decoder of log streams: arbitrary bytes, arbitrary pieces.
#![no_main]
#![allow(dead_code)]

#[path = "../../tests/it/models.rs"]
mod models;

libfuzzer_sys::fuzz_target!(|input: (u16, bool, Vec<u8>, &[u8])| {
    let (cap, ended, cuts, bytes) = input;
    models::check_lines(bytes, &cuts, 64 + usize::from(cap % 512), ended);
});
