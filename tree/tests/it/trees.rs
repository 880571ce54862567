//! Trees that are packed and come back as they were.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{MetadataExt as _, PermissionsExt as _, symlink},
        net::UnixListener,
    },
    path::{Path, PathBuf},
};

use model::Digest;
use proptest::{collection::vec, prelude::*};
use tree::{
    Archive, Content, CopyError, Limits, PackError, Packed, Rules, Selection, Times, copy_into, pack, shares_content, unpack_into,
    unpack_new,
};

/// What is known of an entry: a file with mode, time and content, a folder with its mode, a link with its target.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
    File(u32, i64, Vec<u8>),
    Folder(u32),
    Link(PathBuf),
}

fn look(root: &Path) -> BTreeMap<PathBuf, Found> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            let mode = metadata.mode() & 0o777;
            let one = if metadata.is_symlink() {
                Found::Link(fs::read_link(&path).unwrap())
            } else if metadata.is_dir() {
                folders.push(path.clone());
                Found::Folder(mode)
            } else {
                Found::File(mode, metadata.mtime(), fs::read(&path).unwrap())
            };
            found.insert(path.strip_prefix(root).unwrap().to_owned(), one);
        }
    }
    found
}

fn packed(root: &Path, paths: &[&str], times: Times) -> (Vec<u8>, Result<Packed, PackError>) {
    let mut bytes = Vec::new();
    let selection = Selection::new(paths.iter().copied()).unwrap();
    let packed = pack(root, &selection, (times, Limits::TREE), &mut bytes, &|| false);
    (bytes, packed)
}

fn write(root: &Path, path: &str, content: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// A part of a path: letters, and bytes that are no text.
fn part() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![5 => 0x61..0x67_u8, 1 => prop::sample::select(vec![b' ', b'\n', 0x1b, 0xff, b'*', b'-', b'\\'])];
    prop_oneof![20 => vec(byte, 1..4), 1 => Just(vec![b'l'; 120])]
}

#[derive(Debug, Clone)]
enum Make {
    File(Vec<Vec<u8>>, u32, Vec<u8>),
    Folder(Vec<Vec<u8>>, u32),
    Link(Vec<Vec<u8>>, Vec<Vec<u8>>),
}

fn makes() -> impl Strategy<Value = Vec<Make>> {
    let path = || vec(part(), 1..5);
    let content = prop_oneof![4 => vec(any::<u8>(), 0..600), 1 => (0..300_000_usize).prop_map(|length| vec![7; length])];
    let make = prop_oneof![
        4 => (path(), 0..0o777_u32, content).prop_map(|(path, mode, content)| Make::File(path, mode | 0o400, content)),
        1 => (path(), 0..0o777_u32).prop_map(|(path, mode)| Make::Folder(path, mode | 0o700)),
        1 => (path(), path()).prop_map(|(path, target)| Make::Link(path, target)),
    ];
    vec(make, 0..40)
}

fn join(parts: &[Vec<u8>]) -> PathBuf {
    parts.iter().map(|part| OsStr::from_bytes(part)).collect()
}

fn make(root: &Path, makes: &[Make]) {
    for make in makes {
        // What stands where something stands already is not made.
        let (Make::File(path, ..) | Make::Folder(path, _) | Make::Link(path, _)) = make;
        let path = join(path);
        let at = root.join(&path);
        if path.ancestors().any(|above| root.join(above).is_symlink()) || fs::create_dir_all(at.parent().unwrap()).is_err() {
            continue;
        }
        if at.exists() {
            continue;
        }
        match make {
            Make::File(_, mode, content) => {
                fs::write(&at, content).unwrap();
                fs::set_permissions(&at, fs::Permissions::from_mode(*mode)).unwrap();
            }
            Make::Folder(_, mode) => {
                fs::create_dir(&at).unwrap();
                fs::set_permissions(&at, fs::Permissions::from_mode(*mode)).unwrap();
            }
            Make::Link(_, target) => symlink(join(target), &at).unwrap(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn what_is_packed_comes_back(makes in makes()) {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (folder.path().join("one"), folder.path().join("other"));
        fs::create_dir(&one).unwrap();
        make(&one, &makes);
        let (bytes, first) = packed(&one, &["."], Times::Kept);
        let first = first.unwrap();
        let before = look(&one);
        prop_assert_eq!((first.entries, first.bytes), (before.len() as u64, bytes.len() as u64));
        let archive = Archive::tar(bytes.as_slice()).expect(Digest::of(&bytes));
        let unpacked = unpack_new(archive, &other, &Rules::TREE, &|| false).unwrap();
        prop_assert_eq!(unpacked.entries, first.entries);
        prop_assert_eq!(look(&other), before);
        // The same tree is the same bytes, and can be put over itself.
        prop_assert_eq!(&packed(&other, &["."], Times::Kept).0, &bytes);
        unpack_into(Archive::tar(bytes.as_slice()), (&other, Path::new("")), &Rules::TREE, &|| false).unwrap();
        prop_assert_eq!(&packed(&other, &["."], Times::Kept).0, &bytes);
    }

    #[test]
    fn no_bytes_do_more_than_to_be_refused(mut bytes in vec(any::<u8>(), 0..3000), valid in any::<bool>(), flips in vec((0..4000_usize, any::<u8>()), 0..6)) {
        let folder = tempfile::tempdir().unwrap();
        if valid {
            let one = folder.path().join("one");
            write(&one, "a/b", "content");
            symlink("b", one.join("a/c")).unwrap();
            bytes = packed(&one, &["."], Times::Kept).0;
            fs::remove_dir_all(one).unwrap();
        }
        for (at, byte) in flips {
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
        }
        let root = folder.path().join("root");
        if unpack_new(Archive::tar(bytes.as_slice()), &root, &Rules::TREE, &|| false).is_ok() {
            fs::remove_dir_all(root).unwrap();
        }
        prop_assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

#[test]
fn what_is_selected_is_packed_and_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    for path in ["target/debug/app", "target/x.o", "src/main.rs", "reports/a/one.xml", "reports/two.xml", "reports/two.txt", "top.xml"] {
        write(root, path, path);
    }
    fs::create_dir(root.join("target/empty")).unwrap();
    let entries = |paths: &[&str]| {
        let (bytes, packed) = packed(root, paths, Times::Left);
        let mut archive = tar::Archive::new(bytes.as_slice());
        let paths: Vec<String> = archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect();
        (paths.join(" "), packed.unwrap().missing.join(" "))
    };
    let all = |text: &str| (text.to_owned(), String::new());
    assert_eq!(entries(&["target/"]), all("target/ target/debug/ target/debug/app target/empty/ target/x.o"));
    assert_eq!(entries(&["./target/debug", "src/main.rs"]), all("src/main.rs target/debug/ target/debug/app"));
    assert_eq!(entries(&["reports/**/*.xml"]), all("reports/a/one.xml reports/two.xml"));
    assert_eq!(entries(&["**/*.xml", "top.xml"]), all("reports/a/one.xml reports/two.xml top.xml"));
    assert_eq!(entries(&["rep*"]), all("reports/ reports/a/ reports/a/one.xml reports/two.txt reports/two.xml"));
    assert_eq!(entries(&["nowhere", "*.none", "top.xml"]), ("top.xml".to_owned(), "nowhere *.none".to_owned()));
}

#[test]
fn a_link_out_of_the_tree_is_not_packed() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    write(root, "a/b", "x");
    symlink("/etc/passwd", root.join("a/out")).unwrap();
    let (_, result) = packed(root, &["a"], Times::Left);
    assert_eq!(result.unwrap_err().to_string(), "`a/out` is a symbolic link that may lead out of the directory: leave it out");
    // A link that is asked for by a path through it is not followed either.
    symlink("a", root.join("through")).unwrap();
    assert_eq!(packed(root, &["through/b"], Times::Left).1.unwrap().missing, ["through/b"]);
}

#[test]
fn what_is_no_file_is_left_out_and_told() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "a/b", "x");
    let _socket = UnixListener::bind(root.path().join("a/socket")).unwrap();
    let (_, packed) = packed(root.path(), &["a"], Times::Left);
    let packed = packed.unwrap();
    assert_eq!((packed.entries, packed.left_out_count, packed.left_out[0].to_string()), (2, 1, "a/socket".to_owned()));
}

#[test]
fn without_times_only_content_counts() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let earlier = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    for root in [&one, &other] {
        write(root.path(), "a", "x");
    }
    fs::File::options().write(true).open(other.path().join("a")).unwrap().set_modified(earlier).unwrap();
    assert_eq!(packed(one.path(), &["."], Times::Left).0, packed(other.path(), &["."], Times::Left).0);
    assert_ne!(packed(one.path(), &["."], Times::Kept).0, packed(other.path(), &["."], Times::Kept).0);
    // No time in the archive is no time of the file; a time that is too late is the latest.
    let (left, _) = packed(other.path(), &["."], Times::Left);
    let (kept, _) = packed(one.path(), &["."], Times::Kept);
    for (bytes, latest, undated, expected) in [
        (&left, None, None, None),
        (&left, None, Some(800_000_000), Some(800_000_000)),
        (&kept, Some(900_000_000), Some(800_000_000), Some(900_000_000)),
    ] {
        let root = one.path().join("new");
        unpack_new(Archive::tar(bytes.as_slice()), &root, &Rules { latest, undated, ..Rules::TREE }, &|| false).unwrap();
        let mtime = fs::metadata(root.join("a")).unwrap().mtime();
        assert!(expected.map_or(mtime > 1_700_000_000, |expected: i64| mtime == expected), "{mtime}");
        fs::remove_dir_all(root).unwrap();
    }
}

#[test]
fn other_programs_read_what_is_packed_and_are_read() {
    let root = tempfile::tempdir().unwrap();
    let (one, other) = (root.path().join("one"), root.path().join("other"));
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(200));
    write(&one, &long, "far");
    symlink(&long, one.join("link")).unwrap();
    let (bytes, result) = packed(&one, &["."], Times::Kept);
    result.unwrap();
    tar::Archive::new(bytes.as_slice()).unpack(&other).unwrap();
    assert_eq!(fs::read_to_string(other.join("link")).unwrap(), "far");
    let mut builder = tar::Builder::new(Vec::new());
    builder.follow_symlinks(false);
    builder.append_dir_all(".", &one).unwrap();
    let third = root.path().join("third");
    unpack_new(Archive::tar(builder.into_inner().unwrap().as_slice()), &third, &Rules::TREE, &|| false).unwrap();
    assert_eq!(look(&third), look(&one));
}

#[test]
fn a_copy_has_what_the_tree_has_and_shares_nothing_that_is_written_to() {
    let folder = tempfile::tempdir().unwrap();
    let [from, into] = ["from", "into"].map(|name| folder.path().join(name));
    fs::create_dir_all(from.join("closed/empty")).unwrap();
    fs::create_dir(&into).unwrap();
    for (path, mode, text) in [("program", 0o755, "run"), ("closed/secret", 0o600, "x"), ("nothing", 0o444, "")] {
        fs::write(from.join(path), text).unwrap();
        fs::set_permissions(from.join(path), fs::Permissions::from_mode(mode)).unwrap();
        fs::File::options().read(true).open(from.join(path)).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    }
    symlink("/nowhere", from.join("link")).unwrap();
    fs::set_permissions(from.join("closed"), fs::Permissions::from_mode(0o500)).unwrap();
    let stopped = copy_into(&from, &into, Content::Written, None, &|| true);
    assert!(matches!(stopped, Err(CopyError::Stopped)), "{stopped:?}");
    copy_into(&from, &into, Content::Written, None, &|| false).unwrap();
    let before = look(&from);
    assert_eq!(look(&into).into_values().collect::<Vec<_>>(), before.values().cloned().collect::<Vec<_>>());
    fs::write(into.join("program"), "changed").unwrap();
    assert_eq!(look(&from), before);
    let shared = folder.path().join("shared");
    fs::create_dir(&shared).unwrap();
    let result = copy_into(&from, &shared, Content::Shared, None, &|| false);
    if shares_content(folder.path()) {
        result.unwrap();
        fs::write(shared.join("program"), "changed").unwrap();
        assert_eq!(look(&from), before);
    } else {
        println!("SKIPPED in part: files cannot share their content here");
        assert!(matches!(result, Err(CopyError::Disk { .. })), "{result:?}");
    }
}
