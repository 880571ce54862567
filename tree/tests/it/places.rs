//! Unpacking to where something stands already.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
};

use tree::{Archive, Rules, UnpackError, Unpacked, unpack_first, unpack_into, unpack_new};

use crate::crafted::{Crafted, archive, file, folder, link, names};

fn into(root: &Path, below: &str, entries: &[Crafted<'_>]) -> Result<Unpacked, UnpackError> {
    unpack_into(Archive::tar(archive(entries).as_slice()), (root, Path::new(below)), &Rules::TREE, &|| false)
}

#[test]
fn folders_are_filled_and_files_replaced() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    fs::create_dir_all(root.join("a/old")).unwrap();
    fs::write(root.join("a/old/kept"), "kept").unwrap();
    fs::write(root.join("a/file"), "old").unwrap();
    symlink("/nowhere", root.join("a/link")).unwrap();
    let entries =
        [folder("a"), file("a/file", b"new"), file("a/old/more", b"m"), link("a/link", "file"), file("b/c/d", b"d"), folder("empty")];
    let unpacked = into(root, "", &entries).unwrap();
    assert_eq!(unpacked, Unpacked { entries: 9, bytes: 5 });
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap();
    assert_eq!([read("a/old/kept"), read("a/file"), read("a/old/more"), read("a/link"), read("b/c/d")], ["kept", "new", "m", "new", "d"]);
    assert_eq!(names(root), ["a", "b", "empty"]);
}

#[test]
fn what_has_no_place_changes_nothing() {
    let root = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    let root = root.path();
    fs::create_dir(root.join("folder")).unwrap();
    fs::write(root.join("file"), "file").unwrap();
    symlink(outside.path(), root.join("link")).unwrap();
    for (entry, expected) in [
        (file("folder", b"x"), "cannot put `folder` there: a directory stands there"),
        (link("folder", "x"), "cannot put `folder` there: a directory stands there"),
        (folder("file"), "cannot put `file` there: something stands there that is no directory"),
        (file("file/x", b"x"), "cannot put `file` there: something stands there that is no directory"),
        (file("link/x", b"x"), "cannot put `link` there: something stands there that is no directory"),
    ] {
        let error = into(root, "", &[file("another", b"x"), entry]).unwrap_err();
        assert_eq!(error.to_string(), expected);
        assert_eq!(names(root), ["file", "folder", "link"]);
    }
    assert_eq!(names(outside.path()), [""; 0]);
}

#[test]
fn a_folder_below_the_root_is_made_and_never_reached_through_a_link() {
    let root = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    let root = root.path();
    into(root, "deep/er", &[file("a", b"x")]).unwrap();
    assert_eq!(fs::read(root.join("deep/er/a")).unwrap(), b"x");
    symlink(outside.path(), root.join("out")).unwrap();
    for (below, expected) in [
        ("out", "cannot put `out` there: something stands there that is no directory"),
        ("out/x", "cannot put `out/x` there: something stands there that is no directory"),
        ("../x", "the archive is refused: `../x` leads upwards"),
        ("/tmp", "the archive is refused: `/tmp` is an absolute path"),
    ] {
        assert_eq!(into(root, below, &[file("a", b"x")]).unwrap_err().to_string(), expected);
    }
    assert_eq!((names(root), names(outside.path())), (vec!["deep".to_owned(), "out".to_owned()], vec![]));
}

#[test]
fn folders_that_may_not_be_written_are_filled_first() {
    let root = tempfile::tempdir().unwrap();
    let locked = |name| Crafted { mode: 0o555, ..folder(name) };
    into(root.path(), "", &[locked("a"), locked("a/b"), file("a/b/c", b"x"), Crafted { mode: 0o444, ..file("a/d", b"y") }]).unwrap();
    let mode = |name: &str| fs::metadata(root.path().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("a"), mode("a/b"), mode("a/d")), (0o555, 0o555, 0o444));
    fs::set_permissions(root.path().join("a"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(root.path().join("a/b"), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn an_empty_folder_is_filled_as_a_new_one_is_and_is_empty_again_after_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let [new, first] = ["new", "first"].map(|name| folder.path().join(name));
    fs::create_dir(&first).unwrap();
    let bytes = archive(&[folder_of_nobody_else(), file("a/b/c", b"x"), link("l", "a"), Crafted { mode: 0o755, ..file("run", b"y") }]);
    let damaged = &bytes[..bytes.len() - 1_200];
    assert!(unpack_first(Archive::tar(damaged), &first, &Rules::TREE, &|| false).is_err());
    assert_eq!(names(&first), [""; 0]);
    let made = unpack_new(Archive::tar(bytes.as_slice()), &new, &Rules::TREE, &|| false).unwrap();
    assert_eq!(unpack_first(Archive::tar(bytes.as_slice()), &first, &Rules::TREE, &|| false).unwrap(), made);
    for path in ["a", "a/b", "a/b/c", "run"] {
        let mode = |root: &Path| fs::metadata(root.join(path)).unwrap().permissions().mode();
        assert_eq!(mode(&first), mode(&new), "{path}");
    }
    assert_eq!((names(&first), fs::read_link(first.join("l")).unwrap()), (names(&new), "a".into()));
}

fn folder_of_nobody_else() -> Crafted<'static> {
    Crafted { mode: 0o700, ..folder("a") }
}
