//! What an archive may try, and the answer to it.

use std::{
    fs,
    io::{self, Read, Write as _},
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _},
    path::Path,
};

use flate2::{Compression, write::GzEncoder};
use model::Digest;
use tree::{Archive, ENTRIES_MAX, Limits, Rules, UnpackError, unpack_into, unpack_new};

use crate::crafted::{Crafted, archive, file, folder, link, names, size, special, unpacked};

/// What is said of an archive that is refused.
fn refusal(entries: &[Crafted<'_>], rules: &Rules) -> String {
    let (_folder, result) = unpacked(&archive(entries), rules);
    result.unwrap_err().to_string()
}

#[test]
fn what_would_leave_the_root_is_refused_by_name() {
    let out = link("out", "..");
    let cases: &[(&[Crafted<'_>], &str)] = &[
        (&[file("/tmp/evil", b"x")], "`/tmp/evil` is an absolute path"),
        (&[file("../evil", b"x")], "`../evil` leads upwards"),
        (&[file("a/../../evil", b"x")], "`a/../../evil` leads upwards"),
        (&[folder("..")], "`..` leads upwards"),
        (&[file("a", b"x"), file("..", b"x")], "`..` leads upwards"),
        (&[file(".", b"x")], "`.` is no name of a file"),
        (&[out], "`out` is a symbolic link that may lead out of the directory"),
        (&[link("a/out", "../../x")], "`a/out` is a symbolic link that may lead out of the directory"),
        (&[link("out", "/etc/passwd")], "`out` is a symbolic link that may lead out of the directory"),
        // One alone is harmless: together they would lead out.
        (&[link("a/up", ".."), link("b", "a/up/..")], "`b` is a symbolic link that may lead out of the directory"),
        (&[link("nowhere", "")], "`nowhere` is a symbolic link to nowhere"),
        (&[special(b'1', "hard")], "`hard` is a hard link"),
        (&[Crafted { link: b"/etc/passwd", ..special(b'1', "hard") }], "`hard` is a hard link"),
        (&[special(b'3', "char")], "`char` is a device"),
        (&[special(b'4', "block")], "`block` is a device"),
        (&[special(b'6', "pipe")], "`pipe` is a pipe"),
        (&[special(b'S', "holes")], "`holes` is a file with holes, which is not read"),
        (&[special(b'V', "volume")], "`volume` is neither a file, a folder, nor a symbolic link"),
        (&[Crafted { content: b"x", ..folder("d") }], "`d` has content although it is no file"),
        (&[file("\x1b[2J", b"x"), file("\x1b[2J", b"x")], "`\\u{1b}[2J` stands in it twice"),
    ];
    for (entries, expected) in cases {
        assert_eq!(refusal(entries, &Rules::TREE), format!("the archive is refused: {expected}"));
    }
}

#[test]
fn nothing_is_made_through_what_the_archive_made_before() {
    let out = link("out", "..");
    for (entries, expected) in [
        ([out, file("out/evil", b"x")], "`out` leads through something that is no folder"),
        ([out, folder("out/evil")], "`out` leads through something that is no folder"),
        ([out, link("out/evil", "x")], "`out` leads through something that is no folder"),
        ([out, folder("out")], "`out` leads through something that is no folder"),
        ([out, file("out", b"x")], "`out` stands in it twice"),
        ([out, out], "`out` stands in it twice"),
        ([link("in", "a"), file("in/b", b"x")], "`in` leads through something that is no folder"),
        ([file("a", b"x"), file("a/b", b"x")], "`a` stands in it twice"),
        ([file("a", b"x"), file("a", b"y")], "`a` stands in it twice"),
        ([folder("a"), file("a", b"x")], "`a` stands in it twice"),
        ([file("a/b", b"x"), link("a", "..")], "`a` stands in it twice"),
    ] {
        assert_eq!(refusal(&entries, &Rules::SOURCE), format!("the archive is refused: {expected}"));
    }
}

#[test]
fn a_link_of_a_source_may_point_anywhere_and_is_only_a_text() {
    let (folder, result) = unpacked(&archive(&[link("out", "/etc/passwd"), link("a/up", "../../..")]), &Rules::SOURCE);
    result.unwrap();
    assert_eq!(fs::read_link(folder.path().join("root/out")).unwrap(), Path::new("/etc/passwd"));
    assert_eq!(fs::read_link(folder.path().join("root/a/up")).unwrap(), Path::new("../../.."));
}

#[test]
fn sizes_that_lie_are_found_out() {
    let binary = |size: u64| -> [u8; 12] {
        let mut field = [0; 12];
        field[0] = 0x80;
        field[4..].copy_from_slice(&size.to_be_bytes());
        field
    };
    let said = |size: &[u8; 12]| refusal(&[Crafted { size: Some(size), ..file("a", b"xy") }], &Rules::TREE);
    assert_eq!(said(&size(1_000_000)), "the archive is refused: it ends early (1 entries were read)");
    // What was announced as shorter goes on with what is no header.
    assert_eq!(said(&size(0)), "the archive is refused: the checksum of a header is wrong (1 entries were read)");
    assert_eq!(said(&binary(u64::MAX)), "the archive is refused: a size is no size (0 entries were read)");
    assert_eq!(said(b"9999999999\0 "), "the archive is refused: a number of a header is wrong (0 entries were read)");
    assert_eq!(said(b"-1\0         "), "the archive is refused: a number of a header is wrong (0 entries were read)");
    let limit = Limits::TREE.bytes;
    assert_eq!(said(&binary(limit + 1)), format!("the archive is refused: with `a` its files have more than {limit} bytes"));
    let long = Crafted { size: Some(&size(1 << 30)), ..special(b'L', "././@LongLink") };
    assert_eq!(refusal(&[long], &Rules::TREE), "the archive is refused: what is noted about an entry is too long (0 entries were read)");
}

#[test]
fn every_cut_is_noticed() {
    let whole = archive(&[folder("a"), file("a/b", &[b'x'; 700]), link("c", "a/b")]);
    for length in (0..whole.len() - 1024).step_by(100) {
        let (_folder, result) = unpacked(&whole[..length], &Rules::TREE);
        assert!(matches!(result, Err(UnpackError::Malformed { .. })), "{length}: {result:?}");
    }
}

#[test]
fn what_follows_the_end_is_refused() {
    let mut bytes = archive(&[file("a", b"x")]);
    bytes.extend(archive(&[file("b", b"x")]));
    let (_folder, result) = unpacked(&bytes, &Rules::TREE);
    assert_eq!(result.unwrap_err().to_string(), "the archive is refused: something follows its end (1 entries were read)");
    let mut filled = archive(&[file("a", b"x")]);
    filled.resize(filled.len() + 20 * 512, 0);
    unpacked(&filled, &Rules::TREE).1.unwrap();
}

#[test]
fn an_archive_that_is_not_the_one_asked_for_leaves_nothing() {
    let (good, mut bad) = (archive(&[file("a", b"good")]), archive(&[file("a", b"good")]));
    bad[512] = b'f';
    let folder = tempfile::tempdir().unwrap();
    let expected = Digest::of(&good);
    let result = unpack_new(Archive::tar(bad.as_slice()).expect(expected), &folder.path().join("new"), &Rules::TREE, &|| false);
    assert!(matches!(&result, Err(UnpackError::Damaged { actual, .. }) if *actual == Digest::of(&bad)), "{result:?}");
    fs::write(folder.path().join("a"), "mine").unwrap();
    let into = (folder.path(), Path::new(""));
    let result = unpack_into(Archive::tar(bad.as_slice()).expect(expected), into, &Rules::TREE, &|| false);
    assert!(matches!(result, Err(UnpackError::Damaged { .. })), "{result:?}");
    assert_eq!(names(folder.path()), ["a"]);
    assert_eq!(fs::read(folder.path().join("a")).unwrap(), b"mine");
}

/// Gives the same entry again and again, and never ends.
struct Endless {
    next: u64,
    bytes: Vec<u8>,
}

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.bytes.is_empty() {
            self.bytes = file(&format!("{}/{}", self.next / 1000, self.next), b"").bytes();
            self.next += 1;
        }
        let length = buffer.len().min(self.bytes.len());
        buffer[..length].copy_from_slice(&self.bytes[..length]);
        self.bytes.drain(..length);
        Ok(length)
    }
}

#[test]
fn an_archive_with_too_many_entries_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    let limits = Limits { entries: 2_000, ..Limits::TREE };
    let endless = Endless { next: 0, bytes: Vec::new() };
    let error = unpack_new(Archive::tar(endless), &root, &Rules { limits, ..Rules::TREE }, &|| false).unwrap_err();
    assert_eq!(error.to_string(), "the archive is refused: it has more than 2000 entries");
    assert!(!root.exists());
    assert!([Limits::TREE, Limits::SOURCE, Limits::LIBRARY].iter().all(|limits| limits.entries <= ENTRIES_MAX));
}

#[test]
fn folders_that_only_paths_name_are_counted() {
    let limits = Limits { entries: 50, ..Limits::TREE };
    let deep: Vec<String> = (0..10).map(|at| format!("{at}/{}/f", ["d"; 10].join("/"))).collect();
    let entries: Vec<_> = deep.iter().map(|path| file(path, b"")).collect();
    let said = refusal(&entries, &Rules { limits, ..Rules::TREE });
    assert_eq!(said, "the archive is refused: it has more than 50 entries");
}

#[test]
fn what_grows_when_it_is_decompressed_is_stopped() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let size = size(1 << 30);
    encoder.write_all(&Crafted { size: Some(&size), ..file("bomb", b"") }.bytes()).unwrap();
    for _ in 0..1024 {
        encoder.write_all(&vec![0; 64 * 1024]).unwrap();
    }
    let bytes = encoder.finish().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let rules = Rules { limits: Limits { bytes: 1 << 20, ..Limits::TREE }, ..Rules::TREE };
    let error = unpack_new(Archive::tar_gz(bytes.as_slice()), &folder.path().join("root"), &rules, &|| false).unwrap_err();
    assert_eq!(error.to_string(), "the archive is refused: with `bomb` its files have more than 1048576 bytes");
    assert_eq!(names(folder.path()), [""; 0]);
}

#[test]
fn a_compressed_archive_is_read_and_what_is_none_is_said() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&archive(&[file("a", b"x")])).unwrap();
    let bytes = encoder.finish().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    unpack_new(Archive::tar_gz(bytes.as_slice()).expect(Digest::of(&bytes)), &root, &Rules::LIBRARY, &|| false).unwrap();
    assert_eq!(fs::read(root.join("a")).unwrap(), b"x");
    fs::remove_dir_all(&root).unwrap();
    for (bytes, expected) in [
        (&b"not at all"[..], "the archive is refused: it is not compressed with gzip (0 entries were read)"),
        (&bytes[..bytes.len() - 10], "the archive is refused: it ends early"),
        (&b""[..], "the archive is refused: it ends early (0 entries were read)"),
    ] {
        let error = unpack_new(Archive::tar_gz(bytes), &root, &Rules::LIBRARY, &|| false).unwrap_err();
        assert!(error.to_string().starts_with(expected), "{error}");
        assert!(!root.exists());
    }
}

#[test]
fn names_that_are_no_text_and_odd_ones_are_kept() {
    let long = [b'n'; 255];
    let entries = [
        Crafted { name: b"\xff\xfe/\x1b[31m", ..file("", b"x") },
        Crafted { name: b"line\nfeed", ..file("", b"y") },
        Crafted { name: b"-rf", ..file("", b"z") },
        // GNU's long name stands before the entry.
        Crafted { content: &long, ..special(b'L', "././@LongLink") },
        file("short", b"long"),
    ];
    let (folder, result) = unpacked(&archive(&entries), &Rules::TREE);
    assert_eq!(result.unwrap().entries, 5);
    let at = |name: &[u8]| fs::read(folder.path().join("root").join(std::ffi::OsStr::from_bytes(name))).unwrap();
    assert_eq!((at(b"\xff\xfe/\x1b[31m"), at(b"line\nfeed"), at(b"-rf"), at(&long)), (vec![b'x'], vec![b'y'], vec![b'z'], b"long".into()));
}

#[test]
fn records_of_pax_are_obeyed_and_watched() {
    let record = |text: &str| Crafted { kind: b'x', ..file("pax", Box::leak(text.to_owned().into_bytes().into_boxed_slice())) };
    let (folder, result) = unpacked(
        &archive(&[special(b'g', "pax_global_header"), record("15 path=a/named\n20 mtime=1234567890.5\n"), file("x", b"1")]),
        &Rules::TREE,
    );
    // The second record is one byte too short.
    assert_eq!(result.unwrap_err().to_string(), "the archive is refused: a record is malformed (0 entries were read)");
    drop(folder);
    let (folder, result) = unpacked(&archive(&[record("16 path=a/named\n22 mtime=1234567890.5\n"), file("x", b"1")]), &Rules::TREE);
    result.unwrap();
    let found = fs::metadata(folder.path().join("root/a/named")).unwrap();
    assert_eq!(found.modified().unwrap(), std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_234_567_890));
    for (text, expected) in [
        ("16 path=../evil\n", "`../evil` leads upwards"),
        ("18 path=/tmp/evil\n", "`/tmp/evil` is an absolute path"),
        ("17 path=/tmp/evil\n", "a record is malformed (0 entries were read)"),
        ("99 path=a\n", "a record is malformed (0 entries were read)"),
        ("13 size=9999\n", "it ends early (1 entries were read)"),
        ("22 GNU.sparse.major=1\n", "a file has holes, which is not read (0 entries were read)"),
    ] {
        let said = refusal(&[record(text), file("x", b"1")], &Rules::TREE);
        assert_eq!(said, format!("the archive is refused: {expected}"), "{text}");
    }
    let global = Crafted { kind: b'g', ..file("pax", b"11 path=xy\n") };
    assert_eq!(
        refusal(&[global, file("x", b"1")], &Rules::TREE),
        "the archive is refused: a global header names files (0 entries were read)"
    );
}

#[test]
fn rights_beyond_reading_writing_and_running_are_not_given() {
    let entries = [Crafted { mode: 0o6755, ..file("run", b"x") }, Crafted { mode: 0o3777, ..folder("d") }];
    let (folder, result) = unpacked(&archive(&entries), &Rules::TREE);
    result.unwrap();
    let mode = |name: &str| fs::metadata(folder.path().join("root").join(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("run"), mode("d")), (0o755, 0o777));
}

#[test]
fn a_reader_that_fails_is_no_archive_that_is_refused() {
    struct Fails;
    impl Read for Fails {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::ConnectionReset.into())
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let result = unpack_new(Archive::tar(Fails).expect(Digest::of(b"")), &folder.path().join("root"), &Rules::TREE, &|| false);
    assert!(matches!(result, Err(UnpackError::Unreadable(_))), "{result:?}");
    assert_eq!(names(folder.path()), [""; 0]);
}

#[test]
fn who_wants_it_no_longer_is_not_kept_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let endless = Endless { next: 0, bytes: Vec::new() };
    let asked = std::sync::atomic::AtomicU32::new(0);
    let stop = || asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) >= 500;
    let result = unpack_new(Archive::tar(endless).expect(Digest::of(b"")), &folder.path().join("root"), &Rules::TREE, &stop);
    assert!(matches!(result, Err(UnpackError::Stopped)), "{result:?}");
    assert_eq!(names(folder.path()), [""; 0]);
}
