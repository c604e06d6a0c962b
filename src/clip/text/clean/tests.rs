use super::*;

#[track_caller]
fn check(text: &str, expected: &str) {
    assert_eq!(clean(text), expected, "{text:?}");
}

#[test]
fn cleaning_is_open_clips() {
    for (text, expected) in [
        ("  A\tphoto\r\nof   a DOG ", "a photo of a dog"),
        ("a\u{A0}b\u{3000}c\u{2028}d\u{85}e", "a b c d…e"),
        ("file\u{1C}group", "filegroup"),
        ("\u{FEFF}bom\u{7F} \u{FFFC}", "bom"),
        ("“it’s” ʼn", "\"it's\" 'n"),
        ("ﬁne ﬆ Ǆ ŉ", "fine st dž 'n"),
        ("ＦＵＬＬ ﾊﾟ", "full パ"),
        ("e\u{301} \u{212B}", "é å"),
        ("\u{1B}[1;31mred\u{1B}[0m \u{1B}[12", "red [12"),
        ("\u{93}c1\u{94} \u{80} \u{81}", "\"c1\" € \u{81}"),
        ("&lt;b&gt; &EACUTE; &amp;amp;lt;", "<b> é <"),
        // A `<` keeps ftfy's hands off, and leaves two rounds of `html.unescape`.
        ("<i>&EACUTE;&amp;amp;amp;</i>", "<i>&eacute;&amp;</i>"),
        ("&EACUTE;\n<i>\n&EACUTE;", "é <i> &eacute;"),
        ("ΟΔΟΣ İ ẞ", "οδος i\u{307} ß"),
        ("schÃ¶n", "schön"),
        ("\u{0}\u{200B}", "\u{200B}"),
        (" \u{7}\n", ""),
    ] {
        check(text, expected);
    }
}

/// One round of ftfy's fixes resolves one level.
#[test]
fn nested_references_stop_at_the_bound() {
    let nested = |levels: usize| format!("&{}lt;", "amp;".repeat(levels));
    check(&nested(MAX_ROUNDS - 1), "<");
    check(&nested(MAX_ROUNDS + 1), "<");
    check(&nested(MAX_ROUNDS + 2), "&lt;");
}
