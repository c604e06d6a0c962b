use super::*;

#[track_caller]
fn check(text: &str, expected: &str) {
    assert_eq!(Repair::of(text).repair(text), expected, "{text:?}");
}

/// `tests/fixtures/parity` has many more, with other steps of the cleaning on top.
#[test]
fn repairs_are_ftfys() {
    for (text, expected) in [
        // Nothing to repair.
        ("", ""),
        ("plain", "plain"),
        ("Größe, naïve, Ærø – “so” №5 ½ x²", "Größe, naïve, Ærø – “so” №5 ½ x²"),
        // One encoding of each kind.
        ("schÃ¶n", "schön"),
        ("РїСЂРёРІРµС‚", "привет"),
        ("sch√∂n", "schön"),
        ("d├⌐j├á vu", "déjà vu"),
        // Twice, and not all of it.
        ("schÃƒÂ¶n", "schön"),
        ("世 Ã©tÃ© 界", "世 été 界"),
        // A space that was A0, or A0 and a space.
        ("Ã quele", "àquele"),
        ("voilÃ le travail", "voilà le travail"),
        // Lost bytes.
        ("â€œlike thisâ€\u{FFFD}", "“like this\u{FFFD}"),
        ("Ã© â??", "é â??"),
        ("Ã© â?\u{FFFD}", "é \u{FFFD}"),
        // CESU-8 and Java's NUL.
        ("Ã© \u{ED}\u{A0}\u{BD}\u{ED}\u{B8}\u{8D}", "é 😍"),
        ("Ã© \u{C0}\u{80}.", "é \0."),
        ("Ã© \u{C0}\n", "é \0"),
        // Control characters of Latin-1.
        ("世\u{93}a\u{94}\u{81}", "世“a”\u{81}"),
    ] {
        check(text, expected);
    }
}

/// Each step resolves one `ƒ`, and looks at the whole text for it.
#[test]
fn work_is_bounded() {
    let layers = |count: usize| format!("Ã{}‚©", "ƒ".repeat(count));
    check(&layers(WORK_PER_BYTE - 2), "©");
    let long = layers(1000);
    let left = Repair::of(&long).repair(&long).len();
    assert!((long.len() - 4 * WORK_PER_BYTE..long.len()).contains(&left), "{left}");
}
