use super::*;

#[track_caller]
fn check(resolve: fn(&str) -> Cow<'_, str>, text: &str, expected: &str) {
    assert_eq!(resolve(text), expected, "{text:?}");
}

#[test]
fn unescape_is_pythons() {
    for (text, expected) in [
        ("", ""),
        ("no reference", "no reference"),
        ("5 &lt; 6 &amp; 7", "5 < 6 & 7"),
        ("&notit; &notin; &nope; &", "¬it; ∉ &nope; &"),
        ("&copyx &ampamp", "©x &amp"),
        ("&&amp;&;", "&&&;"),
        ("&eacute&EACUTE;", "é&EACUTE;"),
        ("&CounterClockwiseContourIntegral;", "∳"),
        ("&nGg;", "⋙\u{338}"),
        ("&#233;&#xE9;&#XE9 &#233x", "éé\u{E9} éx"),
        ("&#150;&#x81;", "–\u{81}"),
        ("&#0;&#xD800;&#x110000;&#99999999999999999999;", "\u{FFFD}\u{FFFD}\u{FFFD}\u{FFFD}"),
        ("a&#1;b&#11;c&#127;d&#xFDD0;e&#x1FFFF;f", "abcdef"),
        ("&#1;all that is left", "all that is left"),
        ("&#;&#x;&#xg;", "&#;&#x;&#xg;"),
        ("é&é&eacuté;", "é&é&eacuté;"),
    ] {
        check(unescape, text, expected);
    }
}

#[test]
fn unescape_closed_is_ftfys() {
    for (text, expected) in [
        ("&amp &amp;", "&amp &"),
        ("&EACUTE;&eACUTE;&SZLIG;", "É&eACUTE;SS"),
        ("&GTCC; &GT;", "&GTCC; >"),
        ("&#59;&#38;&#x41;", "&#59;&A"),
        ("&#x;&#12a;", "&#x;&#12a;"),
        ("&#1;x", "x"),
        ("&CounterClockwiseContourIntegral;", "&CounterClockwiseContourIntegral;"),
        ("&notit;&notin;", "&notit;∉"),
    ] {
        check(unescape_closed, text, expected);
    }
}
