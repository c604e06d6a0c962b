//! A row of labels in a `.npy` file: one number for each class, zero where the picture is not of it.
//!
//! Format 1.0 to 3.0 as in numpy.lib.format (NEP 1); one dimension, integers, floats or booleans.

/// Why it cannot be read.
type Refusal = &'static str;

/// Which classes the picture is of.
pub(super) fn labels(bytes: &[u8]) -> Result<Vec<bool>, Refusal> {
    let version = bytes.strip_prefix(b"\x93NUMPY").ok_or("it is no .npy file")?;
    let (length, rest) = match version {
        [1, _, a, b, rest @ ..] => (usize::from(u16::from_le_bytes([*a, *b])), rest),
        [2 | 3, _, a, b, c, d, rest @ ..] => (u32::from_le_bytes([*a, *b, *c, *d]) as usize, rest),
        _ => return Err("it is of a version that is not known"),
    };
    let (header, data) = rest.split_at_checked(length).ok_or("its header is cut")?;
    let header = std::str::from_utf8(header).map_err(|_| "its header is no text")?;
    let kind = quoted(header, "'descr':").ok_or("its header has no descr")?;
    let shape = header.split_once("'shape':").and_then(|(_, rest)| rest.trim_start().strip_prefix('('));
    let shape = shape.and_then(|rest| rest.split_once(')')).ok_or("its header has no shape")?.0;
    let sizes: Vec<&str> = shape.split(',').map(str::trim).filter(|size| !size.is_empty()).collect();
    let [classes] = sizes.as_slice() else { return Err("it must have one dimension") };
    let classes: usize = classes.parse().map_err(|_| "its shape is no number")?;
    let (order, kind) = kind.split_at_checked(1).ok_or("its descr is empty")?;
    let width = match kind {
        "b1" | "i1" | "u1" => 1,
        "i2" | "u2" if order == "<" => 2,
        "i4" | "u4" | "f4" if order == "<" => 4,
        "i8" | "u8" | "f8" if order == "<" => 8,
        _ => return Err("its numbers are neither integers nor floats in little-endian order"),
    };
    if Some(data.len()) != classes.checked_mul(width) {
        return Err("it has another length than its shape says");
    }
    let sign = usize::from(kind.starts_with('f'));
    let is_set = |number: &[u8]| {
        // Minus zero is zero.
        let (last, others) = number.split_last().unwrap_or((&0, &[]));
        others.iter().any(|byte| *byte != 0) || last & (0xff >> sign) != 0
    };
    Ok(data.chunks_exact(width).map(is_set).collect())
}

/// The text in quotation marks behind `key`.
fn quoted<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = header.split_once(key)?;
    rest.trim_start().strip_prefix('\'')?.split('\'').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn npy(kind: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({shape}), }}\n");
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        bytes
    }

    #[test]
    fn numbers_of_all_kinds() {
        let check = |kind: &str, data: &[u8]| {
            assert_eq!(labels(&npy(kind, "3,", data)), Ok(vec![false, true, false]), "{kind}");
        };
        check("|b1", &[0, 1, 0]);
        check("|u1", &[0, 9, 0]);
        check("<i8", &[[0; 8], 1_i64.to_le_bytes(), [0; 8]].concat());
        check("<f4", &[0.0_f32, 1.0, -0.0].map(f32::to_le_bytes).concat());
        check("<f8", &[0.0_f64, 0.5, -0.0].map(f64::to_le_bytes).concat());
    }

    #[test]
    fn what_is_none_is_refused() {
        assert!(labels(b"PNG").is_err());
        for (kind, shape, data) in [
            ("|u1", "3,", &[0, 1][..]),
            ("|u1", "1, 3", &[0, 1, 0]),
            (">i4", "1,", &[0, 0, 0, 1]),
            ("|O", "1,", &[0]),
            ("<i8", "99999999999999999999,", &[]),
            ("<i8", "4611686018427387904,", &[]),
        ] {
            assert!(labels(&npy(kind, shape, data)).is_err(), "{kind} {shape}");
        }
    }
}
