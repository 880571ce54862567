//! Folders of the work directory that steps name. What lies there was made by anybody: no path leads out of it, not by a symbolic link either.

use std::{
    io,
    os::fd::OwnedFd,
    path::{Component, Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, openat2},
    sys::stat::{Mode, mkdirat},
};

use super::workspace::Reach;

/// Why there is no such folder.
#[derive(Debug, thiserror::Error)]
pub(super) enum FolderError {
    /// It is elsewhere.
    #[error("`{}` leads out of the work directory", .0.display())]
    Outside(PathBuf),
    /// The disk says no.
    #[error("cannot make the folder `{}`", path.display())]
    Disk {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// The folder `path`, seen from the folder `within` of the work directory `root`; it is made if it is not there. Gives its path in the work
/// directory.
pub(super) fn make(root: &Reach, within: &Path, path: &Path) -> Result<PathBuf, FolderError> {
    let failed = |errno: Errno| {
        if [Errno::EXDEV, Errno::ELOOP].contains(&errno) {
            return FolderError::Outside(path.to_owned());
        }
        FolderError::Disk { path: path.to_owned(), source: errno.into() }
    };
    let mut wanted = PathBuf::new();
    for component in within.components().chain(path.components()) {
        match component {
            Component::Normal(name) => wanted.push(name),
            Component::CurDir => {}
            Component::ParentDir if wanted.pop() => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return Err(FolderError::Outside(path.to_owned())),
        }
    }
    // Where there is no folder, a link stands.
    let held = root.hold().map_err(|errno| failed(if errno == Errno::ENOTDIR { Errno::ELOOP } else { errno }))?;
    root.act(|| descend(&held, &wanted)).map_err(failed)?;
    Ok(wanted)
}

/// Makes what is missing of the folder.
fn descend(root: &OwnedFd, wanted: &Path) -> nix::Result<()> {
    let mut known = PathBuf::new();
    let mut parent = open_beneath(root, Path::new("."))?;
    for name in wanted {
        known.push(name);
        parent = match open_beneath(root, &known) {
            Err(Errno::ENOENT) => {
                match mkdirat(&parent, name, Mode::from_bits_truncate(0o755)) {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(errno) => return Err(errno),
                }
                open_beneath(root, &known)
            }
            opened => opened,
        }?;
    }
    Ok(())
}

fn open_beneath(root: &OwnedFd, path: &Path) -> nix::Result<OwnedFd> {
    let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_BENEATH);
    openat2(root, path, how)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_folder_is_made_where_it_is_named() {
        let root = tempfile::tempdir().unwrap();
        let held = Reach::at(root.path().to_owned(), None);
        let made = make(&held, Path::new(""), Path::new("a/./b")).unwrap();
        assert_eq!(made, Path::new("a/b"));
        assert_eq!(make(&held, Path::new("a/b"), Path::new("../c")).unwrap(), Path::new("a/c"));
        assert_eq!(make(&held, Path::new("a"), Path::new(".")).unwrap(), Path::new("a"));
        assert!(root.path().join("a/c").is_dir());
        symlink("a", root.path().join("inside")).unwrap();
        make(&held, Path::new(""), Path::new("inside/d")).unwrap();
        assert!(root.path().join("a/d").is_dir());
    }

    #[test]
    fn nothing_is_made_outside() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        std::fs::create_dir(&root).unwrap();
        symlink("..", root.join("out")).unwrap();
        symlink(folder.path(), root.join("absolute")).unwrap();
        symlink("nowhere", root.join("dangling")).unwrap();
        let replaced = folder.path().join("replaced");
        symlink(&root, &replaced).unwrap();
        let refused = make(&Reach::at(replaced.clone(), None), Path::new(""), Path::new("a"));
        assert!(matches!(refused, Err(FolderError::Outside(_))), "{refused:?}");
        std::fs::remove_file(replaced).unwrap();
        let root = Reach::at(root, None);
        for path in ["..", "a/../../b", "/tmp/evil", "out/evil", "absolute/evil"] {
            let refused = make(&root, Path::new(""), Path::new(path));
            assert!(matches!(refused, Err(FolderError::Outside(_))), "{path}: {refused:?}");
        }
        assert!(make(&root, Path::new(""), Path::new("dangling")).is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
