use std::io::Cursor;

use super::*;

/// A header as ustar writes it, and the member's bytes, padded.
fn member(name: &str, kind: u8, size: &str, content: &[u8]) -> Vec<u8> {
    let mut header = [0; BLOCK as usize];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[124..124 + size.len()].copy_from_slice(size.as_bytes());
    header[156] = kind;
    header[257..263].copy_from_slice(b"ustar\0");
    let sum = format!("{:06o}\0 ", checksum(&header));
    header[148..156].copy_from_slice(sum.as_bytes());
    let mut bytes = header.to_vec();
    bytes.extend(content);
    bytes.resize(bytes.len().next_multiple_of(BLOCK as usize), 0);
    bytes
}

fn file(name: &str, content: &[u8]) -> Vec<u8> {
    member(name, b'0', &format!("{:011o}", content.len()), content)
}

fn end() -> Vec<u8> {
    vec![0; 2 * BLOCK as usize]
}

fn read(archive: Vec<u8>) -> (Vec<String>, Option<TarError>) {
    let mut members = Members::new(Cursor::new(archive)).unwrap();
    let mut names = Vec::new();
    loop {
        match members.next() {
            Ok(Some(member)) => names.push(member.name),
            Ok(None) => return (names, None),
            Err(error) => return (names, Some(error)),
        }
    }
}

fn refused(archive: Vec<u8>) -> String {
    read(archive).1.expect("it is refused").to_string()
}

#[test]
fn members_are_where_they_are() {
    let archive =
        [file("a.txt", b"one"), member("d/", b'5', "0", b""), file("d/b.png", &[7; 600]), end()].concat();
    let mut members = Members::new(Cursor::new(archive.clone())).unwrap();
    let first = members.next().unwrap().unwrap();
    assert_eq!(first, Member { name: "a.txt".into(), offset: 512, bytes: 3 });
    assert_eq!(members.small(&first, 3), Ok(b"one".to_vec()));
    assert!(members.small(&first, 2).is_err());
    let second = members.next().unwrap().unwrap();
    assert_eq!((second.name.as_str(), second.bytes), ("d/b.png", 600));
    let there = second.offset as usize;
    assert_eq!(archive[there..there + 600], [7; 600]);
    assert_eq!(members.next(), Ok(None));
}

#[test]
fn long_names_come_before_their_members() {
    let long = "x".repeat(150);
    let record = format!("{} path={long}\n", 4 + 5 + 150 + 1);
    let pax = member("pax", b'x', &format!("{:o}", record.len()), record.as_bytes());
    let gnu = member("././@LongLink", b'L', &format!("{:o}", long.len() + 1), format!("{long}\0").as_bytes());
    let archive = [pax, file("short", b"1"), gnu, file("short", b"2"), file("own", b"3"), end()].concat();
    assert_eq!(read(archive), (vec![long.clone(), long, "own".to_owned()], None));
}

#[test]
fn what_hopes_to_be_unpacked_is_refused() {
    for name in ["../evil.png", "/etc/passwd", "a/../../b.png", "a\\..\\b", "a\nb.png"] {
        assert!(refused([file(name, b"1"), end()].concat()).contains("leads elsewhere"), "{name}");
    }
    for kind in [b'1', b'2'] {
        assert!(refused([member("a.png", kind, "0", b""), end()].concat()).contains("a link"));
    }
    for kind in [b'3', b'6', b'S', b'?'] {
        assert!(refused([member("a.png", kind, "0", b""), end()].concat()).contains("of kind"));
    }
}

#[test]
fn sizes_that_lie_are_refused() {
    let says = |size: &str| refused([member("a.png", b'0', size, b"123"), end()].concat());
    assert!(says("77777777777").contains("a member of 8589934591 bytes"));
    assert!(says("12x").contains("no number") && says("-1").contains("no number"));
    // Base 256, more than all bytes there are.
    let mut huge = member("a.png", b'0', "0", b"");
    huge[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    let sum = checksum(huge[..512].try_into().unwrap());
    huge[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    assert!(refused([huge, end()].concat()).contains("a member of 18446744073709551615 bytes"));
    let record = "20 size=9999999999\n\n";
    let pax = member("pax", b'x', "24", record.as_bytes());
    assert!(refused([pax, file("a.png", b"1"), end()].concat()).contains("damaged"));
    // A name of gigabytes is not read.
    let name = member("long", b'L', "20000", &[b'x'; 8192]);
    assert!(refused([name, end()].concat()).contains("at most 4096"));
}

#[test]
fn an_archive_without_an_end_is_cut() {
    let whole = [file("a.png", &[1; 700]), file("b.png", b"2"), end()].concat();
    let names =
        |count: usize| ["a.png", "b.png"][..count].iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    assert_eq!(read(whole.clone()), (names(2), None));
    // After a member, and inside a header.
    let cut = |at: u64| Some(TarError::Cut { at, what: "it has no end".to_owned() });
    assert_eq!(read(whole[..2560].to_vec()), (names(2), cut(2560)));
    assert_eq!(read(whole[..1700].to_vec()), (names(1), cut(1536)));
    assert!(refused(whole[..800].to_vec()).contains("a member of 700 bytes"));
    assert!(refused(b"not an archive at all".repeat(40)).contains("checksum"));
}
