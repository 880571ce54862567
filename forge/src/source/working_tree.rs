//! A working tree as it lies there, with what is not committed, and without what git ignores.

use std::{
    collections::BTreeMap,
    fs::{self, File, FileType},
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _},
    path::Path,
};

use ignore::{DirEntry, Walk, WalkBuilder};

use super::{Archive, Packed, SOURCE_FILES_MAX, SourceError, failed};

/// Packs the folder `root`. What `.gitignore` files, `.git/info/exclude` and the user's own excludes file name is left out, also where the
/// folder is no repository yet; a file that is committed although it is ignored is left out, too. So are sockets, pipes and devices.
pub fn pack_working_tree(root: &Path) -> Result<Packed, SourceError> {
    let mut archive = Archive::new(&std::env::temp_dir());
    for (path, kind) in list(root)?.values() {
        let full = root.join(path);
        if kind.is_symlink() {
            let target = fs::read_link(&full).map_err(|source| failed(path, source))?;
            archive.link(path, &target)?;
        } else {
            let file = File::open(&full).map_err(|source| failed(path, source))?;
            let metadata = file.metadata().map_err(|source| failed(path, source))?;
            archive.file(path, metadata.permissions().mode() & 0o100 != 0, metadata.len(), file)?;
        }
    }
    archive.finish()
}

/// Walks the folder `root`, without what git ignores and without what Otto keeps of its runs there: each of them is a folder that would be opened.
pub fn walk_working_tree(root: &Path) -> Walk {
    let is_kept_run =
        |entry: &DirEntry| entry.file_name() == "runs" && entry.path().parent().is_some_and(|folder| folder.ends_with(".otto"));
    let is_walked = move |entry: &DirEntry| entry.file_name() != ".git" && !is_kept_run(entry);
    WalkBuilder::new(root).hidden(false).ignore(false).require_git(false).filter_entry(is_walked).build()
}

/// The files and links below `root`, by the bytes of their paths, as git sorts them.
fn list(root: &Path) -> Result<BTreeMap<Vec<u8>, (std::path::PathBuf, FileType)>, SourceError> {
    let mut found = BTreeMap::new();
    for entry in walk_working_tree(root) {
        let entry = entry.map_err(SourceError::List)?;
        let Some(kind) = entry.file_type().filter(|kind| kind.is_file() || kind.is_symlink()) else { continue };
        // The root itself is no entry: it is a folder, or what the walk calls an error.
        let Ok(path) = entry.path().strip_prefix(root) else { continue };
        found.insert(path.as_os_str().as_bytes().to_vec(), (path.to_owned(), kind));
        if found.len() > SOURCE_FILES_MAX {
            return Err(SourceError::TooManyFiles);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn entries(root: &Path) -> Vec<(String, u32, String)> {
        let mut packed = pack_working_tree(root).unwrap();
        let mut archive = tar::Archive::new(packed.read().unwrap());
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            assert_eq!((entry.header().mtime().unwrap(), entry.header().uid().unwrap()), (0, 0));
            let mut text = String::new();
            std::io::Read::read_to_string(&mut entry, &mut text).unwrap();
            if let Some(target) = entry.link_name().unwrap() {
                text = format!("-> {}", target.display());
            }
            (entry.path().unwrap().display().to_string(), entry.header().mode().unwrap(), text)
        });
        entries.collect()
    }

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn entry(path: &str, mode: u32, text: &str) -> (String, u32, String) {
        (path.to_owned(), mode, text.to_owned())
    }

    #[test]
    fn a_working_tree_is_packed_without_what_git_ignores() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        for path in [".git/HEAD", "target/debug/huge", "sub/.git/HEAD", "sub/x.o", ".otto/runs/1/journal", "sub/.otto/runs/depot/x"] {
            write(root, path, "not this");
        }
        write(root, ".gitignore", "/target\n*.o\n");
        write(root, "run.sh", "#!/bin/sh");
        fs::set_permissions(root.join("run.sh"), fs::Permissions::from_mode(0o700)).unwrap();
        write(root, "sub/b", "b");
        write(root, "sub/runs/c", "c");
        write(root, "sub.txt", "");
        let long = format!("{}/{}", "d".repeat(120), "f".repeat(120));
        write(root, &long, "far");
        symlink("../nowhere", root.join("sub/link")).unwrap();
        fs::create_dir(root.join("empty")).unwrap();
        let expected = [
            entry(".gitignore", 0o644, "/target\n*.o\n"),
            entry(&long, 0o644, "far"),
            entry("run.sh", 0o755, "#!/bin/sh"),
            entry("sub.txt", 0o644, ""),
            entry("sub/b", 0o644, "b"),
            entry("sub/link", 0o777, "-> ../nowhere"),
            entry("sub/runs/c", 0o644, "c"),
        ];
        assert_eq!(entries(root), expected);
    }

    #[test]
    fn a_large_tree_lies_in_a_file_and_reads_the_same() {
        let root = tempfile::tempdir().unwrap();
        let text = "x".repeat(3 * 1024 * 1024);
        write(root.path(), "a", &text);
        write(root.path(), "b", &text);
        assert_eq!(entries(root.path()), [entry("a", 0o644, &text), entry("b", 0o644, &text)]);
    }

    #[test]
    fn what_is_no_folder_is_an_error() {
        assert!(matches!(pack_working_tree(Path::new("/nonexistent/otto")), Err(SourceError::List(_))));
    }
}
