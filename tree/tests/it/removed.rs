//! Trees that do not want to be removed.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _, fs::symlink, net::UnixListener},
    path::Path,
    thread,
};

use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};

use crate::crafted::names;

/// Deeper than the stack of a thread, the open files of a process, or a path could follow.
const DEEP: usize = 20_000;
/// Where so many folders cost no disk; some disks take a minute for them.
const MEMORY: &str = "/dev/shm";
/// The stack of a thread that must not need more.
const STACK_BYTES: usize = 256 * 1024;

fn remove(path: &Path) -> io::Result<()> {
    tree::remove(path, &|mounted| panic!("{} is no mount", mounted.display()))
}

#[test]
fn a_tree_is_removed_however_deep_it_is() {
    let outer = tempfile::tempdir_in(MEMORY).or_else(|_| tempfile::tempdir()).unwrap();
    let root = outer.path().join("root");
    fs::create_dir(&root).unwrap();
    let mut folder = openat(CWD, &root, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    for at in 0..DEEP {
        mkdirat(&folder, "d", Mode::RWXU).unwrap();
        if at % 1_000 == 0 {
            openat(&folder, "file", OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC, Mode::RUSR).unwrap();
        }
        folder = openat(&folder, "d", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    }
    drop(folder);
    // Names that the removal itself uses may be there.
    fs::create_dir_all(root.join(".otto-removed-0/x")).unwrap();
    fs::write(root.join(".otto-removed-1"), "x").unwrap();
    let removing = thread::Builder::new().stack_size(STACK_BYTES).spawn(move || remove(&root)).unwrap();
    removing.join().unwrap().unwrap();
    assert_eq!(names(outer.path()), [""; 0]);
}

#[test]
fn links_are_removed_and_what_they_lead_to_is_not() {
    let outer = tempfile::tempdir().unwrap();
    let (root, kept) = (outer.path().join("root"), outer.path().join("kept"));
    fs::create_dir_all(root.join("a/b")).unwrap();
    fs::create_dir(&kept).unwrap();
    fs::write(kept.join("file"), "x").unwrap();
    symlink(&kept, root.join("a/link")).unwrap();
    symlink("../../kept/file", root.join("a/b/link")).unwrap();
    symlink("nowhere", root.join("dangling")).unwrap();
    fs::write(root.join(std::ffi::OsStr::from_bytes(b"line\nfeed\xff")), "x").unwrap();
    let _socket = UnixListener::bind(root.join("socket")).unwrap();
    remove(&root).unwrap();
    assert_eq!(names(outer.path()), ["kept"]);
    assert_eq!(names(&kept), ["file"]);
    symlink(&kept, &root).unwrap();
    remove(&root).unwrap();
    assert_eq!((names(outer.path()), names(&kept)), (vec!["kept".to_owned()], vec!["file".to_owned()]));
    remove(&root).unwrap();
}

#[test]
fn what_may_not_be_changed_is_removed_all_the_same() {
    let outer = tempfile::tempdir().unwrap();
    let root = outer.path().join("root");
    for (folder, mode) in [("none", 0o0), ("read", 0o555), ("write", 0o222)] {
        fs::create_dir_all(root.join(folder).join("a/b")).unwrap();
        fs::write(root.join(folder).join("a/file"), "x").unwrap();
        fs::set_permissions(root.join(folder).join("a"), Permissions::from_mode(mode)).unwrap();
        fs::set_permissions(root.join(folder), Permissions::from_mode(mode)).unwrap();
    }
    fs::set_permissions(&root, Permissions::from_mode(0o0)).unwrap();
    remove(&root).unwrap();
    assert_eq!(names(outer.path()), [""; 0]);
}

#[test]
fn many_files_in_a_folder_are_removed() {
    let outer = tempfile::tempdir().unwrap();
    let root = outer.path().join("root");
    fs::create_dir(&root).unwrap();
    for number in 0..20_000 {
        fs::write(root.join(number.to_string()), "").unwrap();
    }
    remove(&root).unwrap();
    assert_eq!(names(outer.path()), [""; 0]);
}
