//! open_clip's text cleaning: `ftfy.fix_text`, `html.unescape` twice, white space to single
//! spaces, lower case; and what of it, or instead, the tokenizers of other models want.
//!
//! ftfy's line breaks need no step of their own, since they become spaces.

use std::iter;

use unicode_normalization::UnicodeNormalization;

use super::html;
use super::mojibake::Repair;
use crate::clip::spec::Cleaning;

/// ftfy repeats its fixes until nothing changes, which takes time quadratic in the length for
/// `&amp;amp;amp;...`. Real text needs two or three rounds.
const MAX_ROUNDS: usize = 16;

/// As CLIP's own tokenizer does it.
pub(super) fn clean(text: &str) -> String {
    // Python's `lower` and Rust's are the same Unicode mapping, final sigma included.
    single_spaces(&basic(text)).to_lowercase()
}

/// As the tokenizer of another model wants it.
pub(super) fn cleaned(text: &str, cleaning: Cleaning) -> String {
    match cleaning {
        Cleaning::None => text.to_owned(),
        Cleaning::Lower => text.to_lowercase(),
        Cleaning::Siglip => single_spaces(&without_punctuation(&text.to_lowercase())),
        Cleaning::OpenClipSpaces => single_spaces(&basic(text)),
        Cleaning::OpenClipLower => clean(text),
        Cleaning::OpenClipCanonical => {
            single_spaces(&without_punctuation(&basic(text).replace('_', " ")).to_lowercase())
        }
    }
}

/// open_clip's `basic_clean`.
fn basic(text: &str) -> String {
    html::unescape(&html::unescape(&fix_text(text))).into_owned()
}

/// As Python splits, which knows four more separators than Unicode.
fn single_spaces(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || matches!(c, '\u{1C}'..='\u{1F}'));
    words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Of Python's `string.punctuation`, which is ASCII's.
fn without_punctuation(text: &str) -> String {
    text.chars().filter(|c| !c.is_ascii_punctuation()).collect()
}

/// `ftfy.fix_text`, line by line.
fn fix_text(text: &str) -> String {
    let mut entities = true;
    text.split_inclusive('\n')
        .map(|line| {
            // A `<` says that this is HTML, whose entities ftfy leaves alone from there on.
            entities &= !line.contains('<');
            fix_line(line, entities)
        })
        .collect()
}

fn fix_line(line: &str, entities: bool) -> String {
    let mut repair = Repair::of(line);
    let mut line = line.to_owned();
    for _ in 0..MAX_ROUNDS {
        let fixed = fix_once(&line, entities, &mut repair);
        if fixed == line {
            break;
        }
        line = fixed;
    }
    line
}

fn fix_once(line: &str, entities: bool, repair: &mut Repair) -> String {
    let unescaped = if entities { html::unescape_closed(line) } else { line.into() };
    let shown: String = repair
        .repair(&unescaped)
        .chars()
        .map(html::windows_1252)
        .flat_map(split_ligature)
        .flat_map(standard_width)
        .map(uncurl_quote)
        .collect();
    without_terminal_escapes(&shown).chars().filter(|c| !is_control(*c)).nfc().collect()
}

/// Ligatures and digraphs of Latin letters that stand for typography or legacy encodings.
fn split_ligature(c: char) -> impl Iterator<Item = char> {
    let letters = match c {
        'Ĳ' => "IJ",
        'ĳ' => "ij",
        'ŉ' => "ʼn",
        'Ǳ' => "DZ",
        'ǲ' => "Dz",
        'ǳ' => "dz",
        'Ǆ' => "DŽ",
        'ǅ' => "Dž",
        'ǆ' => "dž",
        'Ǉ' => "LJ",
        'ǈ' => "Lj",
        'ǉ' => "lj",
        'Ǌ' => "NJ",
        'ǋ' => "Nj",
        'ǌ' => "nj",
        'ﬀ' => "ff",
        'ﬁ' => "fi",
        'ﬂ' => "fl",
        'ﬃ' => "ffi",
        'ﬄ' => "ffl",
        'ﬅ' => "ſt",
        'ﬆ' => "st",
        _ => "",
    };
    let unchanged = letters.is_empty().then_some(c);
    letters.chars().chain(unchanged)
}

/// Full-width Latin, half-width katakana and hangul in their usual width.
fn standard_width(c: char) -> impl Iterator<Item = char> {
    let (usual, unchanged) = match c {
        '\u{3000}' => (None, Some(' ')),
        '\u{FF01}'..='\u{FFEF}' => (Some(iter::once(c).nfkc()), None),
        _ => (None, Some(c)),
    };
    usual.into_iter().flatten().chain(unchanged)
}

fn uncurl_quote(c: char) -> char {
    match c {
        '\u{02BC}' | '\u{2018}'..='\u{201B}' => '\'',
        '\u{201C}'..='\u{201F}' => '"',
        _ => c,
    }
}

/// Removes ANSI colour codes and the like: `ESC [`, digits and semicolons, a letter.
fn without_terminal_escapes(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut pieces = text.split("\u{1B}[");
    kept.extend(pieces.next());
    for piece in pieces {
        let code = piece.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';');
        match code.strip_prefix(|c: char| c.is_ascii_alphabetic()) {
            Some(rest) => kept.push_str(rest),
            // The escape character goes as a control character.
            None => kept.extend(["[", piece]),
        }
    }
    kept
}

/// Characters without effect on the text: ASCII and Arabic controls, byte order mark, annotation
/// and object replacement characters. Tab, line feed, form feed and carriage return are space.
fn is_control(c: char) -> bool {
    matches!(c,
        '\0'..='\u{08}' | '\u{0B}' | '\u{0E}'..='\u{1F}' | '\u{7F}'
        | '\u{206A}'..='\u{206F}' | '\u{FEFF}' | '\u{FFF9}'..='\u{FFFC}')
}

#[cfg(test)]
mod tests;
