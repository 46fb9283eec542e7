#![no_main]
#[allow(dead_code)]
#[path = "../../recording.rs"]
mod recording;
#[allow(dead_code)]
#[path = "../../targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|input: &[u8]| recording::documents(input));
