//! HTML character references, as Python's `html.unescape` and ftfy's stricter `unescape_html`
//! resolve them. Only the table of names comes from a crate: HTML and Python disagree on
//! references to control characters.

use std::borrow::Cow;

use htmlize::ENTITIES;

/// `CounterClockwiseContourIntegral`.
const LONGEST_NAME: usize = 31;

/// ftfy's bound on a reference's name or digits.
const LONGEST_CLOSED: usize = 24;

/// Python's `html.unescape`: every reference, also without a semicolon where HTML allows that.
pub(super) fn unescape(text: &str) -> Cow<'_, str> {
    replace(text, reference)
}

/// ftfy's `unescape_html`: only references with a semicolon, and names in all capitals that mean
/// nothing else (`&EACUTE;`).
pub(super) fn unescape_closed(text: &str) -> Cow<'_, str> {
    replace(text, closed_reference)
}

/// What C1 control characters mean where they are meant at all (WHATWG's encoding standard,
/// index windows-1252). Five have no meaning and stay.
pub(super) fn windows_1252(c: char) -> char {
    const MEANT: [char; 32] = [
        '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8D}', 'Ž', '\u{8F}',
        '\u{90}', '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9D}', 'ž', 'Ÿ',
    ];
    match c {
        '\u{80}'..='\u{9F}' => MEANT[c as usize - 0x80],
        _ => c,
    }
}

/// What the reference at the beginning of the text means, and how many bytes it is long.
type Resolved<'a> = Option<(Cow<'a, str>, usize)>;

/// Replaces what `resolve` understands at each `&`.
fn replace(text: &str, resolve: fn(&str) -> Resolved<'_>) -> Cow<'_, str> {
    let mut rest = text;
    let mut replaced = String::new();
    while let Some(at) = rest.find('&') {
        let (before, reference) = rest.split_at(at);
        replaced.push_str(before);
        rest = match resolve(reference) {
            Some((meaning, len)) => {
                replaced.push_str(&meaning);
                &reference[len..]
            }
            None => {
                replaced.push('&');
                &reference[1..]
            }
        };
    }
    if replaced.is_empty() {
        return rest.into();
    }
    replaced.push_str(rest);
    replaced.into()
}

fn reference(text: &str) -> Resolved<'_> {
    if text.starts_with("&#") {
        return numeric(text);
    }
    // The longest name wins: "&notit;" is "¬it;", "&notin;" is "∉".
    let name = 1 + count(&text[1..], |b| b.is_ascii_alphanumeric()).min(LONGEST_NAME);
    let closed = name + usize::from(text[name..].starts_with(';'));
    (2..=closed).rev().find_map(|len| Some((named(&text[..len])?.into(), len)))
}

fn numeric(text: &str) -> Resolved<'_> {
    let (radix, digits_at) = match text.as_bytes().get(2) {
        Some(b'x' | b'X') => (16, 3),
        _ => (10, 2),
    };
    let is_digit = |b: u8| char::from(b).is_digit(radix);
    let end = digits_at + count(&text[digits_at..], is_digit);
    if end == digits_at {
        return None;
    }
    // Digits alone can only fail by being too many.
    let code = u32::from_str_radix(&text[digits_at..end], radix).unwrap_or(u32::MAX);
    let meaning = match code {
        0 => Some(char::REPLACEMENT_CHARACTER),
        // No characters of their own; Python drops them.
        0x01..=0x08 | 0x0B | 0x0E..=0x1F | 0x7F | 0xFDD0..=0xFDEF => None,
        code if code <= 0x10_FFFF && code & 0xFFFE == 0xFFFE => None,
        code => char::from_u32(code).map(windows_1252).or(Some(char::REPLACEMENT_CHARACTER)),
    };
    let closed = end + usize::from(text[end..].starts_with(';'));
    Some((meaning.map(String::from).unwrap_or_default().into(), closed))
}

fn closed_reference(text: &str) -> Resolved<'_> {
    let body = 1 + usize::from(text.starts_with("&#"));
    let name = count(&text[body..], |b| b.is_ascii_alphanumeric());
    let end = body + name + 1;
    if name == 0 || name > LONGEST_CLOSED || !text[body + name..].starts_with(';') {
        return None;
    }
    let text = &text[..end];
    let meaning = if body == 2 {
        // Not "&#59;", a semicolon, nor what is no number.
        numeric(text).filter(|(meaning, len)| *len == end && meaning != ";")?.0
    } else {
        named(text).map(Cow::from).or_else(|| capitals(text))?
    };
    Some((meaning, end))
}

/// `&EACUTE;` as the capital of `&eacute;`, unless it begins with a name of its own (`&GTCC;`).
fn capitals(text: &str) -> Option<Cow<'_, str>> {
    let has_lower = text.bytes().any(|b| b.is_ascii_lowercase());
    if has_lower || reference(text).is_some() {
        return None;
    }
    Some(named(&text.to_ascii_lowercase())?.to_uppercase().into())
}

fn named(reference: &str) -> Option<&'static str> {
    let meaning = ENTITIES.get(reference.as_bytes())?;
    str::from_utf8(meaning).ok()
}

fn count(text: &str, belongs: impl Fn(u8) -> bool) -> usize {
    text.bytes().take_while(|b| belongs(*b)).count()
}

#[cfg(test)]
mod tests;
