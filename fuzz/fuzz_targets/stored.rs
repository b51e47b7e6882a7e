//! Checkpoints, keys and positions as a database returns them.
#![no_main]
#![allow(dead_code)]

#[path = "../../tests/it/models.rs"]
mod models;

use podlog::domain::{Pod, Position, Time};

libfuzzer_sys::fuzz_target!(|input: (i64, u32, u64, &[u8])| {
    thread_local!(static POD: Pod = models::running());
    let (time, ordinal, hash, bytes) = input;
    let time = Time(time);
    models::check_begin(Position { time, ordinal, hash });
    POD.with(|pod| models::check_stored(bytes, pod));
});
