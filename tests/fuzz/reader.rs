//! The reader of pickled weights by itself, out of clipd's sources.

#![allow(dead_code, reason = "what else the files have is for the rest of clipd")]

#[path = "../../src/model"]
mod model {
    pub mod checkpoint {
        mod pickled;
        mod tensors;

        use std::io::Cursor;

        /// Whether all was found, or the error said why not in a line.
        pub fn read(file: Vec<u8>) {
            let size = file.len() as u64;
            let mut source: Box<dyn tensors::Source> = Box::new(Cursor::new(file));
            match pickled::tensors(&mut source) {
                Ok(found) => {
                    for extent in found.values() {
                        assert!(extent.start <= size, "{extent:?} is not in a file of {size} bytes");
                    }
                }
                Err(error) => assert!(!error.contains('\n') && error.len() < 2000, "{error:?}"),
            }
        }
    }
}

pub use model::checkpoint::read;
