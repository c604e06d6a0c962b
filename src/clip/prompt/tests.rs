use super::*;

/// `expected` is `None` where the template is refused.
#[track_caller]
fn check(template: &str, label: &str, expected: Option<&str>) {
    let rendered = PromptTemplate::parse(template).map(|template| template.render(label));
    assert_eq!(rendered.ok().as_deref(), expected, "{template:?}");
    let bytes = PromptTemplate::parse(template).map(|template| template.rendered_bytes(label.len()));
    assert_eq!(bytes.ok(), expected.map(str::len), "{template:?}");
}

#[test]
fn every_placeholder_becomes_the_label() {
    check("a photo of a {}.", "cat", Some("a photo of a cat."));
    check("{}", "cat", Some("cat"));
    check("a {} is a {}", "rose", Some("a rose is a rose"));
    check("a {}", "set {}", Some("a set {}"));
    check("a photo", "cat", None);
    check("{ }", "cat", None);
    check("", "cat", None);
}

#[test]
fn the_default_is_the_paper_s() {
    assert_eq!(PromptTemplate::default().to_string(), "a photo of a {}.");
    assert_eq!(PromptTemplate::parse("no label").unwrap_err().to_string(), "has no {} for the label");
}
