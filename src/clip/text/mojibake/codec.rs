//! The encodings that UTF-8 is mistaken for, all of one byte a character.
//!
//! Bytes below 80 are ASCII in all of them. Bytes that an encoding of Windows leaves undefined are
//! the control characters of the same number, as WHATWG defines it.

use std::iter;
use std::ops::{Range, RangeInclusive};
use std::sync::LazyLock;

use super::html;

/// The byte of U+FFFD in encodings that have it (see [`Codec::marks_lost_bytes`]).
pub(super) const LOST: u8 = 0x1A;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Codec {
    Latin1,
    Windows1252,
    Windows1251,
    Windows1250,
    Windows1253,
    Windows1254,
    Windows1257,
    Latin2,
    MacRoman,
    Cp437,
}

/// In the order in which they are tried.
const CODECS: [Codec; 10] = [
    Codec::Latin1,
    Codec::Windows1252,
    Codec::Windows1251,
    Codec::Windows1250,
    Codec::Windows1253,
    Codec::Windows1254,
    Codec::Windows1257,
    Codec::Latin2,
    Codec::MacRoman,
    Codec::Cp437,
];

/// Latin-1 and the Windows encodings, which put the bytes of UTF-8 at alike characters.
const LATIN_1_LIKE: usize = 7;

impl Codec {
    /// Whether U+FFFD stands for a byte that somebody could not decode: the Windows encodings have
    /// undefined bytes. They have no U+001A then.
    pub(super) fn marks_lost_bytes(self) -> bool {
        !matches!(self, Self::Latin1 | Self::Latin2 | Self::MacRoman | Self::Cp437)
    }

    /// The characters from 80 to FF.
    fn high_half(self) -> Vec<char> {
        let latin_1 = '\u{80}'..='\u{FF}';
        // The last ones; those before are as in Latin-1.
        let table = match self {
            Self::Latin1 => "",
            Self::Windows1252 => return latin_1.map(html::windows_1252).collect(),
            Self::Windows1251 => {
                "ЂЃ‚ѓ„…†‡€‰Љ‹ЊЌЋЏђ‘’“”•–—\u{98}™љ›њќћџ\u{A0}ЎўЈ¤Ґ¦§Ё©Є«¬\u{AD}®Ї°±Ііґµ¶·ё№є»јЅѕї\
                 АБВГДЕЖЗИЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯабвгдежзийклмнопрстуфхцчшщъыьэюя"
            }
            Self::Windows1250 => {
                "€\u{81}‚\u{83}„…†‡\u{88}‰Š‹ŚŤŽŹ\u{90}‘’“”•–—\u{98}™š›śťžź\
                 \u{A0}ˇ˘Ł¤Ą¦§¨©Ş«¬\u{AD}®Ż°±˛ł´µ¶·¸ąş»Ľ˝ľż\
                 ŔÁÂĂÄĹĆÇČÉĘËĚÍÎĎĐŃŇÓÔŐÖ×ŘŮÚŰÜÝŢßŕáâăäĺćçčéęëěíîďđńňóôőö÷řůúűüýţ˙"
            }
            Self::Windows1253 => {
                "€\u{81}‚ƒ„…†‡\u{88}‰\u{8A}‹\u{8C}\u{8D}\u{8E}\u{8F}\
                 \u{90}‘’“”•–—\u{98}™\u{9A}›\u{9C}\u{9D}\u{9E}\u{9F}\
                 \u{A0}΅Ά£¤¥¦§¨©ª«¬\u{AD}®―°±²³΄µ¶·ΈΉΊ»Ό½ΎΏ\
                 ΐΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡÒΣΤΥΦΧΨΩΪΫάέήίΰαβγδεζηθικλμνξοπρςστυφχψωϊϋόύώÿ"
            }
            Self::Windows1254 => {
                "€\u{81}‚ƒ„…†‡ˆ‰Š‹Œ\u{8D}\u{8E}\u{8F}\u{90}‘’“”•–—˜™š›œ\u{9D}\u{9E}Ÿ\
                 \u{A0}¡¢£¤¥¦§¨©ª«¬\u{AD}®¯°±²³´µ¶·¸¹º»¼½¾¿\
                 ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏĞÑÒÓÔÕÖ×ØÙÚÛÜİŞßàáâãäåæçèéêëìíîïğñòóôõö÷øùúûüışÿ"
            }
            Self::Windows1257 => {
                "€\u{81}‚\u{83}„…†‡\u{88}‰\u{8A}‹\u{8C}¨ˇ¸\u{90}‘’“”•–—\u{98}™\u{9A}›\u{9C}¯˛\u{9F}\
                 \u{A0}¡¢£¤¥¦§Ø©Ŗ«¬\u{AD}®Æ°±²³´µ¶·ø¹ŗ»¼½¾æ\
                 ĄĮĀĆÄÅĘĒČÉŹĖĢĶĪĻŠŃŅÓŌÕÖ×ŲŁŚŪÜŻŽßąįāćäåęēčéźėģķīļšńņóōõö÷ųłśūüżž˙"
            }
            Self::Latin2 => {
                "\u{A0}Ą˘Ł¤ĽŚ§¨ŠŞŤŹ\u{AD}ŽŻ°ą˛ł´ľśˇ¸šşťź˝žż\
                 ŔÁÂĂÄĹĆÇČÉĘËĚÍÎĎĐŃŇÓÔŐÖ×ŘŮÚŰÜÝŢßŕáâăäĺćçčéęëěíîďđńňóôőö÷řůúűüýţ˙"
            }
            Self::MacRoman => {
                "ÄÅÇÉÑÖÜáàâäãåçéèêëíìîïñóòôöõúùûü†°¢£§•¶ß®©™´¨≠ÆØ∞±≤≥¥µ∂∑∏π∫ªºΩæø\
                 ¿¡¬√ƒ≈∆«»…\u{A0}ÀÃÕŒœ–—“”‘’÷◊ÿŸ⁄€‹›ﬁﬂ‡·‚„‰ÂÊÁËÈÍÎÏÌÓÔ\u{F8FF}ÒÚÛÙıˆ˜¯˘˙˚¸˝˛ˇ"
            }
            Self::Cp437 => {
                "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐\
                 └┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{A0}"
            }
        };
        let as_in_latin_1 = 128 - table.chars().count();
        latin_1.take(as_in_latin_1).chain(table.chars()).collect()
    }
}

/// The byte of a character in each codec; a codec that lacks the character has 0, as NUL has.
type Bytes = [u8; CODECS.len()];

/// By character. It is sparse, and where it is empty the system gives it no memory.
static CHARACTERS: LazyLock<Vec<Bytes>> = LazyLock::new(|| {
    let mut characters = vec![Bytes::default(); 0x1_0000];
    for codec in CODECS {
        let ascii = (0..0x80).map(|byte| (char::from(byte), byte));
        let high = codec.high_half().into_iter().zip(0x80..=u8::MAX);
        for (character, byte) in ascii.chain(high) {
            characters[character as usize][codec as usize] = byte;
        }
        if codec.marks_lost_bytes() {
            characters[usize::from(LOST)][codec as usize] = 0;
            characters[char::REPLACEMENT_CHARACTER as usize][codec as usize] = LOST;
        }
    }
    characters
});

fn bytes(character: char) -> Bytes {
    CHARACTERS.get(character as usize).copied().unwrap_or_default()
}

/// The codecs that have all characters of `text`, in the order to be tried.
pub(super) fn candidates(text: &str) -> impl Iterator<Item = Codec> {
    let mut complete = [true; CODECS.len()];
    for character in text.chars().filter(|c| *c != '\0') {
        for (complete, byte) in complete.iter_mut().zip(bytes(character)) {
            *complete &= byte != 0;
        }
        if complete == [false; CODECS.len()] {
            break;
        }
    }
    iter::zip(CODECS, complete).filter_map(|(codec, complete)| complete.then_some(codec))
}

/// `codec` has all characters of `text`.
pub(super) fn encode(text: &str, codec: Codec) -> Vec<u8> {
    text.chars().map(|c| bytes(c)[codec as usize]).collect()
}

/// Where at or after `from`, with nothing in between, there are characters that a codec like
/// Latin-1 makes of UTF-8. They need not be of the same codec. What follows a character that could
/// end a sequence is left out: to repair a bit in the middle of a garble makes it worse.
pub(super) fn next_sequences(text: &str, from: usize) -> Option<Range<usize>> {
    let mut before = text[..from].chars().next_back();
    for (at, character) in text[from..].char_indices() {
        let start = from + at;
        if !before.is_some_and(ends_sequence) {
            let mut end = start;
            while let Some(len) = sequence(&text[end..]) {
                end += len;
            }
            if end > start {
                return Some(start..end);
            }
        }
        before = Some(character);
    }
    None
}

/// Length in bytes of the characters at the beginning of `text` that look like one in UTF-8.
fn sequence(text: &str) -> Option<usize> {
    let mut characters = text.char_indices();
    let (_, lead) = characters.next()?;
    let continuations = match lead {
        _ if means(lead, 0xC2..=0xDF) => 1,
        _ if means(lead, 0xE0..=0xEF) => 2,
        _ if means(lead, 0xF0..=0xF0) || means(lead, 0xF3..=0xF3) => 3,
        _ => return None,
    };
    for _ in 0..continuations {
        // The space may have been A0.
        characters.next().filter(|(_, c)| *c == ' ' || means(*c, 0x80..=0xBF))?;
    }
    Some(characters.offset())
}

/// Punctuation stands for itself often enough.
fn ends_sequence(character: char) -> bool {
    means(character, 0x80..=0xBF) && !"–—―‘’‚“”„•…".contains(character)
}

/// Whether `character` is one of these bytes in some codec like Latin-1.
fn means(character: char, range: RangeInclusive<u8>) -> bool {
    bytes(character)[..LATIN_1_LIKE].iter().any(|byte| range.contains(byte))
}
