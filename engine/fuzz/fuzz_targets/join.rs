#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vpnd_engine_fuzz::join(data));
