//! Whole files.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|file: &[u8]| reader::read(file.to_vec()));
