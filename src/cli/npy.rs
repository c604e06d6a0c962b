//! A `.npy` file of float32 rows, written row by row.
//!
//! Format 1.0 as in numpy.lib.format (NEP 1): magic, version, length of the header, a Python dictionary padded
//! with spaces so that the data begins at a multiple of 64 bytes. The number of rows is known last, so the
//! header has a fixed length and is written again at the end.

use std::io::{self, Seek, SeekFrom, Write};

/// Enough for the largest shape; a multiple of 64.
const HEADER: usize = 128;

/// Magic, version 1.0, and the length of what follows in two bytes.
const PREFIX: usize = 10;

pub(super) struct NpyWriter<W> {
    file: W,
    columns: usize,
    rows: u64,
}

impl<W: Write + Seek> NpyWriter<W> {
    pub(super) fn new(mut file: W, columns: usize) -> io::Result<NpyWriter<W>> {
        file.write_all(&header(0, columns)?)?;
        Ok(NpyWriter { file, columns, rows: 0 })
    }

    pub(super) fn push(&mut self, row: &[f32]) -> io::Result<()> {
        if row.len() != self.columns {
            let message = format!("a row of {} floats among rows of {}", row.len(), self.columns);
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        for value in row {
            self.file.write_all(&value.to_le_bytes())?;
        }
        self.rows += 1;
        Ok(())
    }

    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// Completes the header.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&header(self.rows, self.columns)?)?;
        self.file.flush()?;
        Ok(self.file)
    }
}

fn header(rows: u64, columns: usize) -> io::Result<Vec<u8>> {
    let dictionary = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {columns}), }}");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend(((HEADER - PREFIX) as u16).to_le_bytes());
    writeln!(bytes, "{dictionary:<width$}", width = HEADER - PREFIX - 1)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numpy_would_read_it() {
        let mut npy = NpyWriter::new(io::Cursor::new(Vec::new()), 2).unwrap();
        npy.push(&[1.0, -2.5]).unwrap();
        npy.push(&[0.0, 1e-9]).unwrap();
        assert!(npy.push(&[1.0]).is_err());
        let bytes = npy.finish().unwrap().into_inner();
        assert_eq!(&bytes[..10], b"\x93NUMPY\x01\x00\x76\x00");
        let text = std::str::from_utf8(&bytes[10..128]).unwrap();
        assert_eq!(text.trim_end(), "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }");
        assert!(text.ends_with(" \n"));
        assert_eq!(bytes.len(), 128 + 16);
        assert_eq!(bytes[132..136], (-2.5_f32).to_le_bytes());
    }

    #[test]
    fn the_largest_shape_fits() {
        assert_eq!(header(u64::MAX, usize::MAX).unwrap().len(), HEADER);
    }
}
