//! Bytes that are almost UTF-8, as they become UTF-8.

use super::codec::LOST;

const NO_BREAK_SPACE: u8 = 0xA0;

/// Puts A0 where it was changed to a plain space in the middle of a character.
pub(super) fn restore_spaces(bytes: &[u8]) -> Vec<u8> {
    let mut restored = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while !rest.is_empty() {
        let (sequence, after) = rest.split_at(spaced_sequence(rest).unwrap_or(1));
        match sequence {
            [_] => restored.extend(sequence),
            [0xC3, b' '] if ends_word(after) => restored.extend(b"\xC3\xA0 "),
            _ => restored.extend(sequence.iter().map(|&b| if b == b' ' { NO_BREAK_SPACE } else { b })),
        }
        rest = after;
    }
    restored
}

/// Length of a character at the beginning that would be UTF-8 with A0 instead of a space. Of the
/// possible ones these are those that are likely in a text.
fn spaced_sequence(bytes: &[u8]) -> Option<usize> {
    match bytes {
        [0xC2 | 0xC3 | 0xC5 | 0xCE | 0xD0 | 0xD9, b' ', ..] => Some(2),
        [0xE2 | 0xE3, b' ', 0x80..=0x84 | 0x86..=0x9F | 0xA1..=0xBF, ..]
        | [0xE0..=0xE3, 0x80..=0x84 | 0x86..=0x9F | 0xA1..=0xBF, b' ', ..] => Some(3),
        [0xF0, b' ', 0x80..=0xBF, 0x80..=0xBF, ..]
        | [0xF0, 0x80..=0xBF, b' ', 0x80..=0xBF, ..]
        | [0xF0, 0x80..=0xBF, 0x80..=0xBF, b' ', ..] => Some(4),
        _ => None,
    }
}

/// Whether `à` ends a word here, in front of `after`, so that the one space was two: A0 and what
/// parts the words. It does not in Portuguese `àquele`, `àquela`, `àquilo` and `às`.
fn ends_word(after: &[u8]) -> bool {
    ![" ", "quele", "quela", "quilo", "s "].iter().any(|more| after.starts_with(more.as_bytes()))
}

/// Puts U+FFFD where a character lacks some of its bytes.
pub(super) fn replace_incomplete(bytes: &[u8]) -> Vec<u8> {
    let mut replaced = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&first, others)) = rest.split_first() {
        rest = match incomplete_sequence(rest) {
            Some(len) => {
                replaced.extend("\u{FFFD}".as_bytes());
                &rest[len..]
            }
            None => {
                replaced.push(first);
                others
            }
        };
    }
    replaced
}

/// Length of a character at the beginning that lost some of its bytes: they are marked as such, or
/// became a question mark, but no more than one of them.
fn incomplete_sequence(bytes: &[u8]) -> Option<usize> {
    let lost = |b: u8| b == LOST || b == b'?';
    let incomplete = |tail: &[u8]| {
        tail.iter().all(|&b| lost(b) || is_continuation(b))
            && tail.iter().any(|&b| lost(b))
            && tail.iter().filter(|b| **b == b'?').count() < 2
    };
    match *bytes {
        [LOST, ..] => Some(1),
        [0xC2..=0xDF, LOST, ..] | [0xC2 | 0xC3, b'?', ..] => Some(2),
        // Two surrogates, each of which may have its own question mark.
        [0xED, 0xA0..=0xAF, low, 0xED, 0xB0..=0xBF, last, ..]
            if incomplete(&[low]) && (lost(last) || is_continuation(last))
                || incomplete(&[last]) && is_continuation(low) =>
        {
            Some(6)
        }
        [0xE0..=0xEF, a, b, ..] if incomplete(&[a, b]) => Some(3),
        [0xF0..=0xF4, a, b, c, ..] if incomplete(&[a, b, c]) => Some(4),
        _ => None,
    }
}

fn is_continuation(byte: u8) -> bool {
    matches!(byte, 0x80..=0xBF)
}

/// UTF-8, also with two of its variants mixed in: CESU-8, which encodes surrogates, and Java's,
/// which encodes NUL as C0 80.
pub(super) fn decode(bytes: Vec<u8>) -> Option<String> {
    let variants = bytes.contains(&0xC0) || bytes.contains(&0xED);
    String::from_utf8(if variants { without_variants(&bytes) } else { bytes }).ok()
}

/// A line feed that ends the text passes for the last byte of a variant: Python's `$` matches
/// before it, and ftfy looks for variants with that.
fn without_variants(bytes: &[u8]) -> Vec<u8> {
    let mut standard = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&first, others)) = rest.split_first() {
        rest = match *rest {
            [0xC0, 0x80, ref after @ ..] => {
                standard.push(0);
                after
            }
            [0xC0, b'\n'] => {
                standard.push(0);
                &[]
            }
            [0xED, a @ 0xA0..=0xAF, b @ 0x80..=0xBF, 0xED, c @ 0xB0..=0xBF, d, ref after @ ..]
                if is_continuation(d) || d == b'\n' && after.is_empty() =>
            {
                let bits = |byte: u8, mask: u8, shift: u32| u32::from(byte & mask) << shift;
                let offset = bits(a, 0x0F, 16) | bits(b, 0x3F, 10) | bits(c, 0x0F, 6) | bits(d, 0x3F, 0);
                let character = char::from_u32(0x1_0000 + offset);
                standard.extend(character.into_iter().collect::<String>().into_bytes());
                after
            }
            _ => {
                standard.push(first);
                others
            }
        };
    }
    standard
}
