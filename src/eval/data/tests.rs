use super::*;

#[test]
fn lines_are_those_of_python() {
    let check = |text: &str, expected: &[&str]| {
        assert_eq!(split_lines(text).collect::<Vec<_>>(), expected, "{text:?}")
    };
    check("", &[]);
    check("a", &["a"]);
    check("a\n", &["a"]);
    check("a\r\n\nb\rc\u{2028}d\n\n", &["a", "", "b", "c", "d", ""]);
    check("\u{b}x\u{85}", &["", "x"]);
}

fn sample(label: Label) -> Sample {
    Sample { picture: Input::Text("picture".into()), label }
}

#[test]
fn labels_become_positions() {
    let positions = HashMap::from([("cat", 0), ("7", 1)]);
    let one = |label| match resolve(label, &positions, 3, false) {
        Ok(Resolved::One(class)) => Ok(class),
        Ok(Resolved::Several(_)) => panic!("one label"),
        Err(reason) => Err(reason),
    };
    assert_eq!((one(Label::Name("cat".into())), one(Label::Index(2))), (Ok(0), Ok(2)));
    // A name goes before a number.
    assert_eq!((one(Label::Name("7".into())), one(Label::Name("2".into()))), (Ok(1), Ok(2)));
    for label in [Label::Name("dog".into()), Label::Name("3".into()), Label::Index(3), Label::Index(u64::MAX)]
    {
        assert!(one(label).is_err());
    }
    assert!(resolve(Label::Set(vec![true; 2]), &positions, 3, true).is_err());
    assert!(resolve(Label::Index(0), &positions, 3, true).is_err());
}

#[test]
fn names_are_known_if_all_have_one() {
    let names = [Label::Name("b".into()), Label::Name("a".into()), Label::Name("b".into())].map(sample);
    assert_eq!(distinct_names(&names), Some(vec!["a".to_owned(), "b".to_owned()]));
    assert_eq!(distinct_names(&[sample(Label::Index(0))]), None);
}

#[test]
fn problems_are_counted_and_the_first_are_named() {
    let mut problems = Problems::default();
    (0..1_000_000).for_each(|index: u32| problems.add(index.to_string(), "bad"));
    assert_eq!((problems.count, problems.first.len()), (1_000_000, NAMED));
}
