//! Programs, in a file that is right otherwise.

#![no_main]

use std::io::{Cursor, Write};

use libfuzzer_sys::fuzz_target;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

fuzz_target!(|program: &[u8]| {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (name, bytes) in [("a/data.pkl", program), ("a/byteorder", b"little"), ("a/data/0", &[0; 64])] {
        archive.start_file(name, stored).expect("names are right");
        archive.write_all(bytes).expect("it is written to memory");
    }
    reader::read(archive.finish().expect("it is written to memory").into_inner());
});
