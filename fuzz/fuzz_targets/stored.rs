//! Checkpoints and keys as a database returns them.
#![no_main]
#![allow(dead_code)]

#[path = "../../tests/it/models.rs"]
mod models;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    thread_local!(static POD: podlog::domain::Pod = models::running());
    POD.with(|pod| models::check_stored(bytes, pod));
});
