//! Which combinations of characters give mojibake away.
//!
//! Classes and combinations are those of ftfy 6.3.1 (`badness.py`): hardly anybody writes them, and
//! UTF-8 that is taken for another encoding is full of them. Two of ftfy's combinations are covered
//! by others and left out.

use std::sync::LazyLock;

use regex::Regex;

/// Whether `text` contains one of the combinations.
pub(super) fn is_bad(text: &str) -> bool {
    static COMBINATIONS: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(&combinations().join("|")).expect("the expression is a constant"));
    COMBINATIONS.is_match(text)
}

// Contents of character classes. Only what is in the expressions below takes part, so that
// punctuation like ' and letters like e are nowhere.
const COMMON: &str = r"\xA0\xAD´·–—―’…";
const C1: &str = r"\x80-\x9F";
/// Hardly used but in mojibake.
const BAD: &str = r"¤¦¨ª¬¯¸ºƒˆˇ˘˛˜†‡‰⌐◊\u{FFFD}";
const LAW: &str = "¶§";
const CURRENCY: &str = "¢£¥₧€";
const START: &str = r"¡©«¿΄΅‘‚“„•‹\u{F8FF}";
const END: &str = "®»˝”›™";
const NUMERIC: &str = "±²³µ¹¼½¾×÷⁄№∂∆∏∑√∞∩∫≈≠≡≤≥";
/// Of which faces are made.
const FACE: &str = "°Ò-ÖÙ-Üò-öø-üŌŐŪŲ";
const UPPER: &str = "À-ÑØÜÝĀĂĄĆČĎĐĒĖĘĚĞĢĪİĶĹĻĽŁŃŅŇŒŘŚŞŠŢŤŮŰŸŹŻŽҐ";
const LOWER: &str = "ß-ñüāăąćčďđēėęěğģīįķĺļľłœŕśşšťźżžґﬁﬂ";
/// Of alphabets in which a single capital may stand anywhere.
const UPPER_COMMON: &str = "ÞΆΈΉΊΌΎΏΑ-ΫЁ-Я";
const LOWER_COMMON: &str = "ά-ωа-џ";
const BOX: &str = "│┌┐┘├┤┬┼═-╬▀▄█▌▐-▓";

/// Python's `\w` and `\s`; those of the crate know marks as well, and not four control characters.
const WORD: &str = r"\p{L}\p{N}_";
const SPACE: &str = r"\s\x1C-\x1F";

fn combinations() -> Vec<String> {
    vec![
        format!("[{C1}]"),
        format!("[{BAD}{LOWER}{UPPER}{BOX}{START}{END}{CURRENCY}{NUMERIC}{LAW}][{BAD}]"),
        format!("[{BAD}][{LOWER}{UPPER}{BOX}{START}{END}{CURRENCY}{NUMERIC}{LAW}]"),
        format!("[a-zA-Z][{LOWER_COMMON}{UPPER_COMMON}][{BAD}]"),
        // Capitals and small letters where none belong.
        format!("[{LOWER}{LOWER_COMMON}{BOX}{END}{CURRENCY}{NUMERIC}][{UPPER}]"),
        format!("[{BOX}{END}{CURRENCY}{NUMERIC}][{LOWER}]"),
        // Signs behind letters.
        format!("[{LOWER}{BOX}{END}][{CURRENCY}]"),
        format!("[{SPACE}][{UPPER}][{CURRENCY}]"),
        format!("[{UPPER}{BOX}][{NUMERIC}{LAW}]"),
        format!("[{UPPER}]°"),
        // Punctuation on the wrong side.
        format!("[{LOWER}{UPPER}{BOX}{CURRENCY}{END}][{START}][{NUMERIC}]"),
        format!("[{LOWER}{UPPER}{CURRENCY}{NUMERIC}{BOX}{LAW}][{END}][{START}]"),
        format!("[{CURRENCY}{NUMERIC}{BOX}][{START}]"),
        format!("[a-z][{UPPER}][{START}{CURRENCY}]"),
        format!("[{LOWER}{UPPER}][{START}{END}][{WORD}]"),
        // Boxes with anything but boxes.
        format!("[{BOX}][{FACE}{END}]"),
        format!("[{LOWER}{UPPER}{CURRENCY}{NUMERIC}{START}{END}{LAW}][{BOX}]"),
        // The ligature without a Latin letter behind it.
        "[Œœ][^A-Za-z]".to_owned(),
        // Windows-1252: Latin letters.
        format!(r"[ÂÃÎÐ][€œŠš¢£Ÿž\xA0\xAD®©°·»{START}{END}–—´]"),
        format!("[a-z][{SPACE}]?[ÃÂ] |^[ÃÂ] "),
        format!("[a-z.,?!{END}]Â[ {START}{END}]"),
        "×[²³]".to_owned(),
        // Windows-1252: Arabic, of which two letters are needed, and South Asian alphabets.
        format!("(?:[ØÙ][{COMMON}{CURRENCY}{BAD}{NUMERIC}{START}ŸŠ®°µ»]){{2}}"),
        "à[²µ¹¼½¾]".to_owned(),
        // Mac Roman.
        "√[±∂†≠®™´≤≥¥µø]|≈[°¢]|‚Ä[ìîïòôúùû†°¢π]|‚[âó][àä°ê]".to_owned(),
        // Windows-1251: punctuation; letters, of which two are needed; once more on top of
        // Windows-1252.
        format!("вЂ|[ВГРС][{C1}{BAD}{START}{END}{CURRENCY}°µ][ВГРС]|ГўВЂВ.[A-Za-z ]"),
        // Windows-1253: punctuation, and letters.
        format!(r"β€[™\xA0Ά\xAD®°]|[ΒΓΞΟ][{C1}{BAD}{START}{END}{CURRENCY}°][ΒΓΞΟ]"),
    ]
}
