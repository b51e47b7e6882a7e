//! Pods as the API server shows them.
#![no_main]
#![allow(dead_code)]

#[path = "../../tests/it/models.rs"]
mod models;

libfuzzer_sys::fuzz_target!(|json: &[u8]| models::check_pod(json));
