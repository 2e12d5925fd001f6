#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| acmegate_fuzz::history(bytes));
