//! The files around a pipeline file: those of the working tree, or those of a commit.

use std::{
    collections::{BTreeMap, BTreeSet},
    env::current_dir,
    fs::{self, File},
    io::{self, Read as _},
    os::unix::ffi::OsStrExt as _,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use forge::source::{SOURCE_FILES_MAX, walk_working_tree};
use model::planning::Listing;

use super::git::{git, git_set, git_with, paths, quoted, without_own_filters};

/// The name of standard input.
pub const STDIN: &str = "-";
/// Bytes of one file that are read; the parser's own limits are far below.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Where files are read.
#[derive(Debug, Clone)]
pub(super) enum Tree {
    /// A folder as it lies there; of a repository if `git`.
    Working {
        /// The repository's root; the pipeline file's folder where there is none.
        root: PathBuf,
        /// Whether it is git's.
        git: bool,
    },
    /// A commit of the repository at `root`.
    Commit {
        /// The repository's root.
        root: PathBuf,
        /// The commit's full id.
        commit: String,
    },
}

impl Tree {
    /// The tree around a file of the working tree.
    pub(super) fn around(folder: &Path) -> Self {
        let root = folder.ancestors().find(|folder| folder.join(".git").exists());
        Self::Working { root: root.unwrap_or(folder).to_owned(), git: root.is_some() }
    }

    pub(super) fn root(&self) -> &Path {
        match self {
            Self::Working { root, .. } | Self::Commit { root, .. } => root,
        }
    }

    /// A regular file of the tree; `None` if there is none at this path, or if it is outside.
    pub(super) fn file(&self, path: &str) -> anyhow::Result<Option<Vec<u8>>> {
        if !Path::new(path).components().all(|component| matches!(component, Component::Normal(_) | Component::CurDir)) {
            return Ok(None);
        }
        match self {
            Self::Working { root, .. } => {
                let full = root.join(path);
                // A link in the way may lead out of the tree; a link at the end is none of its files.
                let inside = full
                    .parent()
                    .and_then(|folder| folder.canonicalize().ok())
                    .is_some_and(|folder| root.canonicalize().is_ok_and(|root| folder.starts_with(root)));
                let regular = fs::symlink_metadata(&full).is_ok_and(|metadata| metadata.is_file());
                if inside && regular { read(&full).map(Some) } else { Ok(None) }
            }
            Self::Commit { root, commit } => {
                let entry = git(root, &["ls-tree", "-z", "-l", commit, "--", path])?;
                let Some(blob) = paths(&entry).find_map(|line| regular_blob(line, path)) else { return Ok(None) };
                git(root, &["cat-file", "blob", blob]).map(Some)
            }
        }
    }

    /// All files, each with git's id of its contents.
    pub(super) fn listing(&self) -> anyhow::Result<Listing> {
        let listing = match self {
            Self::Working { root, git: true } => of_repository(root)?,
            Self::Working { root, git: false } => of_folder(root)?,
            Self::Commit { root, commit } => {
                let printed = git(root, &["ls-tree", "-r", "-z", "--full-tree", commit])?;
                paths(&printed).filter_map(|line| Some((line.split_once('\t')?.1.to_owned(), third(line)?.to_owned()))).collect()
            }
        };
        ensure!(listing.len() <= SOURCE_FILES_MAX, "the tree has over {SOURCE_FILES_MAX} files");
        Ok(listing)
    }

    /// The paths that differ from the commit `base`.
    pub(super) fn changed(&self, base: &str) -> anyhow::Result<Vec<String>> {
        // A submodule's own files are another repository's, with another configuration.
        let mut difference =
            vec!["diff", "--name-only", "-z", "--no-renames", "--no-ext-diff", "--no-textconv", "--ignore-submodules=dirty", base];
        let mut changed = BTreeSet::new();
        match self {
            Self::Working { root, .. } => {
                let untracked = git(root, &["ls-files", "-o", "--exclude-standard", "-z"])?;
                changed.extend(paths(&untracked).map(ToOwned::to_owned));
            }
            Self::Commit { commit, .. } => difference.push(commit),
        }
        difference.push("--");
        changed.extend(paths(&git_set(self.root(), &difference, &without_own_filters(self.root())?)?).map(ToOwned::to_owned));
        Ok(changed.into_iter().collect())
    }
}

/// The bytes of a file that may be no pipeline file at all: a device never ends, and says that it is empty.
///
/// `-` is standard input.
pub fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let doing = || match above(path) {
        Some(above) => format!("cannot read {} (there is {})", path.display(), above.display()),
        None => format!("cannot read {}", path.display()),
    };
    let mut bytes = Vec::new();
    let reading = if path == Path::new(STDIN) {
        io::stdin().take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
    };
    reading.with_context(doing)?;
    ensure!(bytes.len() as u64 <= FILE_BYTES_MAX, "{} has over {FILE_BYTES_MAX} bytes: is it a pipeline file?", path.display());
    Ok(bytes)
}

/// The nearest file of this name above the current folder, for who is in a folder of the repository, and not in its first one.
pub fn above(name: &Path) -> Option<PathBuf> {
    if name.exists() || name.components().count() != 1 {
        return None;
    }
    let folder = current_dir().ok()?;
    let root = folder.ancestors().position(|folder| folder.join(".git").exists())?;
    let mut ups = (1..=root).map(|ups| std::iter::repeat_n(Component::ParentDir, ups).collect::<PathBuf>().join(name));
    ups.find(|path| path.is_file())
}

/// The blob of `<mode> <type> <id> <size>\t<path>` if it is a regular file at `path` that is small enough.
fn regular_blob<'a>(line: &'a str, path: &str) -> Option<&'a str> {
    let (facts, found) = line.split_once('\t')?;
    let mut facts = facts.split_ascii_whitespace();
    let (mode, _, blob, size) = (facts.next()?, facts.next()?, facts.next()?, facts.next()?);
    (found == path && mode.starts_with("100") && size.parse::<u64>().is_ok_and(|size| size <= FILE_BYTES_MAX)).then_some(blob)
}

/// The third word of `<mode> <type> <id>\t<path>`.
fn third(line: &str) -> Option<&str> {
    line.split_once('\t')?.0.split_ascii_whitespace().nth(2)
}

/// What git knows of the index, and for what differs from it the ids of what lies there.
fn of_repository(root: &Path) -> anyhow::Result<Listing> {
    let staged = git(root, &["ls-files", "-s", "-z"])?;
    let mut listing: Listing = paths(&staged)
        .filter_map(|line| {
            let (facts, path) = line.split_once('\t')?;
            Some((path.to_owned(), facts.split(' ').nth(1)?.to_owned()))
        })
        .collect();
    let settings = without_own_filters(root)?;
    let differing = git_set(root, &["ls-files", "-m", "-d", "-o", "--exclude-standard", "-z"], &settings)?;
    let differing: BTreeSet<&str> = paths(&differing).filter(|path| !path.ends_with('/')).collect();
    for path in &differing {
        listing.remove(*path);
    }
    listing.extend(hashed(root, &differing, &[], &settings)?);
    Ok(listing)
}

/// Every file below a folder that is no repository, with what its `.gitignore` files name left out.
fn of_folder(root: &Path) -> anyhow::Result<Listing> {
    let mut found = BTreeSet::new();
    for entry in walk_working_tree(root) {
        let entry = entry.context("cannot list the files")?;
        let Ok(path) = entry.path().strip_prefix(root) else { continue };
        if let Ok(path) = std::str::from_utf8(path.as_os_str().as_bytes())
            && entry.file_type().is_some_and(|kind| kind.is_file() || kind.is_symlink())
        {
            found.insert(path.to_owned());
        }
        ensure!(found.len() <= SOURCE_FILES_MAX, "the folder has over {SOURCE_FILES_MAX} files");
    }
    hashed(root, &found.iter().map(String::as_str).collect(), &["--no-filters"], &[])
}

/// Git's ids of the contents of files: of a link that is the text of its target. What is gone meanwhile is left out.
fn hashed(root: &Path, files: &BTreeSet<&str>, options: &[&str], settings: &[(String, String)]) -> anyhow::Result<Listing> {
    let mut hashed = BTreeMap::new();
    let mut plain = Vec::new();
    for path in files {
        let Ok(metadata) = fs::symlink_metadata(root.join(path)) else { continue };
        if metadata.is_symlink() {
            let contents = fs::read_link(root.join(path))?.as_os_str().as_bytes().to_vec();
            let id = git_with(root, &["hash-object", "--stdin"], settings, contents)?;
            hashed.insert((*path).to_owned(), String::from_utf8_lossy(&id).trim().to_owned());
        } else if metadata.is_file() {
            plain.push(*path);
        }
    }
    if !plain.is_empty() {
        let arguments: Vec<&str> = ["hash-object"].into_iter().chain(options.iter().copied()).chain(["--stdin-paths"]).collect();
        let list: String = plain.iter().map(|path| quoted(path) + "\n").collect();
        let ids = git_with(root, &arguments, settings, list.into_bytes())?;
        let ids = String::from_utf8_lossy(&ids);
        ensure!(ids.lines().count() == plain.len(), "git does not know the contents of every file: was one removed meanwhile?");
        hashed.extend(plain.into_iter().map(ToOwned::to_owned).zip(ids.lines().map(ToOwned::to_owned)));
    }
    Ok(hashed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELLO: &str = "ce013625030ba8dba906f756967f9e9ca394464a";

    fn repository() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        git(root, &["init", "-q", "-b", "main"]).unwrap();
        fs::write(root.join("a"), "hello\n").unwrap();
        fs::write(root.join("gone"), "x").unwrap();
        fs::write(root.join(".gitignore"), "ignored\n").unwrap();
        git(root, &["add", "."]).unwrap();
        git(root, &["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "one"]).unwrap();
        fs::remove_file(root.join("gone")).unwrap();
        fs::write(root.join("new"), "hello\n").unwrap();
        fs::write(root.join("ignored"), "hello\n").unwrap();
        folder
    }

    #[test]
    fn the_working_tree_is_listed_as_it_lies_there() {
        let folder = repository();
        let tree = Tree::around(folder.path());
        let listing = tree.listing().unwrap();
        assert_eq!(listing.keys().collect::<Vec<_>>(), [".gitignore", "a", "new"]);
        assert_eq!((listing["a"].as_str(), listing["new"].as_str()), (HELLO, HELLO));
        assert_eq!(tree.changed("HEAD").unwrap(), ["gone", "new"]);
    }

    #[test]
    fn a_commit_is_listed_as_it_was() {
        let folder = repository();
        let tree = Tree::Commit { root: folder.path().to_owned(), commit: "HEAD".to_owned() };
        assert_eq!(tree.listing().unwrap().keys().collect::<Vec<_>>(), [".gitignore", "a", "gone"]);
        assert_eq!(tree.file("gone").unwrap().unwrap(), b"x");
        assert_eq!((tree.file("new").unwrap(), tree.file("../a").unwrap()), (None, None));
    }

    #[test]
    fn a_folder_without_git_has_the_same_ids() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), "hello\n").unwrap();
        std::os::unix::fs::symlink("hello\n", folder.path().join("link")).unwrap();
        let tree = Tree::Working { root: folder.path().to_owned(), git: false };
        let listing = tree.listing().unwrap();
        assert_eq!((listing["a"].as_str(), listing["link"].as_str()), (HELLO, HELLO));
    }

    #[test]
    fn names_with_line_breaks_and_quotes_are_names() {
        let folder = repository();
        let names = ["\"q", "a\nb", "cr\r", "back\\slash", "sp ace", "tab\t"];
        for name in names {
            fs::write(folder.path().join(name), "hello\n").unwrap();
        }
        let of_git = Tree::around(folder.path()).listing().unwrap();
        let of_folder = Tree::Working { root: folder.path().to_owned(), git: false }.listing().unwrap();
        for name in names {
            assert_eq!((of_git[name].as_str(), of_folder[name].as_str()), (HELLO, HELLO), "{name:?}");
        }
    }

    #[test]
    fn nothing_that_a_strangers_repository_names_is_run() {
        let folder = repository();
        let root = folder.path();
        let mark = root.join("ignored");
        fs::remove_file(&mark).unwrap();
        let evil = format!("echo run >> '{}'; cat", mark.display());
        let keys = ["filter.evil.clean", "filter.e=v.clean", "core.fsmonitor", "diff.external", "diff.evil.command", "diff.evil.textconv"];
        for key in keys {
            git(root, &["config", key, &evil]).unwrap();
        }
        git(root, &["config", "filter.p.process", &evil]).unwrap();
        git(root, &["config", "filter.p.required", "true"]).unwrap();
        fs::write(root.join(".git/info/attributes"), "a filter=evil diff=evil\nnew filter=e=v\n.gitignore filter=p\n").unwrap();
        for (name, text) in [("a", "other\n"), (".gitignore", "ignored\n\n")] {
            fs::write(root.join(name), text).unwrap();
        }
        let tree = Tree::around(root);
        assert_eq!(tree.listing().unwrap()["new"], HELLO);
        assert_eq!(tree.changed("HEAD").unwrap(), [".gitignore", "a", "gone", "new"]);
        assert!(!mark.exists(), "{}", fs::read_to_string(&mark).unwrap());
    }

    #[test]
    fn only_regular_files_within_the_tree_are_read() {
        let (folder, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(outside.path().join("secret"), "x").unwrap();
        std::os::unix::fs::symlink(outside.path(), folder.path().join("out")).unwrap();
        std::os::unix::fs::symlink(outside.path().join("secret"), folder.path().join("link")).unwrap();
        fs::write(folder.path().join("own"), "y").unwrap();
        let tree = Tree::Working { root: folder.path().to_owned(), git: false };
        for path in ["out/secret", "link", "../secret", "/etc/passwd", "none", "."] {
            assert_eq!(tree.file(path).unwrap(), None, "{path}");
        }
        assert_eq!(tree.file("./own").unwrap().unwrap(), b"y");
    }

    #[test]
    fn what_never_ends_is_not_read_to_its_end() {
        let error = read(Path::new("/dev/zero")).unwrap_err().to_string();
        assert!(error.starts_with("/dev/zero has over 16777216 bytes"), "{error}");
    }
}
