//! Any bytes as a pipeline file: planned, explained and formatted, as `parser/tests/it/any_input.rs` says what holds of them.

#![no_main]

#[path = "../../parser/tests/it/any_input.rs"]
mod any_input;

libfuzzer_sys::fuzz_target!(|source: &[u8]| any_input::check(source));
