//! Inside a room too, who uses whom has no circle: a file of a folder may use those beside it as long as none of them
//! uses it again, directly or by way of others. A folder counts as one of the files beside it. Everyone may use the
//! words of the module that it is part of; so what two files need goes there, or into a third.

use std::collections::{BTreeMap, BTreeSet};

use super::{Source, circles, paths, sources};

/// By folder, which of its modules uses which.
type Uses = BTreeMap<Vec<String>, BTreeSet<(String, String)>>;

fn uses(sources: &[Source]) -> Uses {
    let known: BTreeSet<&[String]> = sources.iter().map(|source| source.names.as_slice()).collect();
    let mut uses = Uses::new();
    for source in sources {
        // Tests may know more than what they test.
        let code = source.code.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        for path in paths(code) {
            let (user, used) = (&source.names, absolute(&source.names, &path));
            let common = user.iter().zip(&used).take_while(|(a, b)| a == b).count();
            // Modules of the root are rooms, which have a rule of their own.
            if common == 0 || common == user.len() || common == used.len() {
                continue;
            }
            if known.contains(&used[..=common]) {
                let edge = (user[common].clone(), used[common].clone());
                uses.entry(user[..common].to_vec()).or_default().insert(edge);
            }
        }
    }
    uses
}

/// Where a path leads that is written in `module`.
fn absolute(module: &[String], path: &[&str]) -> Vec<String> {
    let up = path.iter().take_while(|name| **name == "super").count();
    let base = if up == 0 { &[] } else { &module[..module.len().saturating_sub(up)] };
    base.iter().cloned().chain(path[up.max(1)..].iter().map(|name| (*name).to_owned())).collect()
}

fn circles_of(sources: &[Source]) -> Vec<String> {
    let found = uses(sources).into_iter().filter_map(|(folder, edges)| {
        let circle = circles(edges.iter().map(|(user, used)| (user.as_str(), used.as_str())).collect());
        let names: Vec<&str> = circle.into_iter().collect();
        (!names.is_empty()).then(|| format!("{}: {}", folder.join("::"), names.join(", ")))
    });
    found.collect()
}

#[test]
fn no_room_has_a_circle() {
    let sources = sources();
    assert_eq!(circles_of(&sources), [""; 0]);
    let rooms: BTreeSet<String> = uses(&sources).into_keys().map(|folder| folder[0].clone()).collect();
    assert!(rooms.len() > 8, "files that use each other were found in {rooms:?} only");
}

#[test]
fn a_circle_is_seen() {
    let check = |files: &[(&str, &str)], expected: &[&str]| {
        let sources: Vec<Source> =
            files.iter().map(|(path, code)| Source::new(path.into(), (*code).to_owned())).collect();
        assert_eq!(circles_of(&sources), expected, "{files:?}");
    };
    let leaf = ("room/leaf.rs", "");
    check(
        &[("room/a.rs", "use super::b::X;"), ("room/b.rs", "use crate::room::{a::Y, leaf};"), leaf],
        &["room: a, b"],
    );
    let folders = [("room/a/x.rs", "use super::super::b;"), ("room/b/mod.rs", "")];
    check(&[folders[0], folders[1], ("room/b/y.rs", "fn f() { crate::room::a::x::g() }")], &[]);
    let named = ("room/a/mod.rs", "");
    check(
        &[folders[0], folders[1], named, ("room/b/y.rs", "fn f() { crate::room::a::x::g() }")],
        &["room: a, b"],
    );
    let deep = [("room/hall/a.rs", "use super::{b as c, Word};"), ("room/hall/b.rs", "use super::a;")];
    check(&deep, &["room::hall: a, b"]);
    let three =
        [("room/a.rs", "use super::b;"), ("room/b.rs", "use super::c;"), ("room/c.rs", "use super::a;")];
    check(&three, &["room: a, b, c"]);
    // Words of the parent, a child of one's own, the tests of a file, and what only looks like a path.
    check(
        &[
            ("room/mod.rs", "mod a; mod b; use a::X;"),
            ("room/a.rs", "use super::Word; use super::b;\n#[cfg(test)]\nmod tests { use super::super::b; }"),
            ("room/b.rs", "use super::Word; mod c;\n#[cfg(test)]\nmod tests { use crate::room::a; }"),
            ("room/b/c.rs", "use super::Word; use mysuper::a; use crate::room::Word;"),
        ],
        &[],
    );
}
