//! The protocol of `git cat-file --batch`, and a tree read by it.
//!
//! A repository's content is its pushers': sizes, names and depths are checked here before anything is done with them.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::File,
    io::{self, BufRead as _, BufReader, Read, Write as _},
    os::unix::ffi::OsStrExt as _,
    path::Path,
};

use data_encoding::HEXLOWER;
use model::planning::LOCK_FILE;
use tracing::info;

use super::{Checkout, GitError, ObjectId, PIPELINE_BYTES_MAX, Wanted, shown};
use crate::source::{Archive, SOURCE_FILES_MAX, SourceError};

/// The most bytes of one folder's listing: about a million files.
const TREE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// The most bytes of a path or of a link's target, as Linux has it (`PATH_MAX`). It bounds the depth, too.
const PATH_BYTES_MAX: usize = 4096;
/// The most bytes of the line before an object's content.
const HEADER_BYTES_MAX: u64 = 512;
/// Bytes that are read from git at once.
const READ_BYTES: usize = 64 * 1024;

/// Why a tree is not read.
#[derive(Debug)]
pub(super) enum ReadError {
    /// Git does not answer as it should.
    Git(io::Error),
    /// Everything else.
    Final(GitError),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Git(error)
    }
}

impl From<GitError> for ReadError {
    fn from(error: GitError) -> Self {
        Self::Final(error)
    }
}

impl From<SourceError> for ReadError {
    fn from(error: SourceError) -> Self {
        Self::Final(error.into())
    }
}

/// A running `git cat-file --batch`.
#[derive(Debug)]
pub(super) struct Objects {
    questions: File,
    answers: BufReader<File>,
}

impl Objects {
    pub(super) fn new(questions: File, answers: File) -> Self {
        Self { questions, answers: BufReader::with_capacity(READ_BYTES, answers) }
    }

    /// Asks for an object of a kind, and gives the length of its content, which must be read next; `None` if there is no such object.
    fn ask(&mut self, name: &str, kind: &str) -> Result<Option<u64>, io::Error> {
        writeln!(self.questions, "{name}")?;
        let mut line = Vec::new();
        self.answers.by_ref().take(HEADER_BYTES_MAX).read_until(b'\n', &mut line)?;
        let line = String::from_utf8_lossy(&line);
        let Some(line) = line.strip_suffix('\n') else { return Err(io::ErrorKind::UnexpectedEof.into()) };
        if line.ends_with(" missing") {
            return Ok(None);
        }
        let mut words = line.split(' ').skip(1);
        match (words.next(), words.next().and_then(|length| length.parse().ok())) {
            (Some(actual), Some(length)) if actual == kind => Ok(Some(length)),
            _ => Err(io::Error::other(format!("asked for a {kind}, git answered `{line}`"))),
        }
    }

    /// Asks for an object that a tree names, so that it must be there.
    fn expect(&mut self, name: &str, kind: &str) -> Result<u64, io::Error> {
        self.ask(name, kind)?.ok_or_else(|| io::Error::other(format!("the repository lacks the {kind} {name}")))
    }

    /// The content of the object that was asked for.
    fn content(&mut self, length: u64) -> Result<Vec<u8>, io::Error> {
        let mut bytes = Vec::new();
        if self.answers.by_ref().take(length).read_to_end(&mut bytes)? as u64 != length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.end()?;
        Ok(bytes)
    }

    /// The line feed after an object's content.
    fn end(&mut self) -> Result<(), io::Error> {
        self.answers.read_exact(&mut [0])
    }
}

/// What is no folder.
#[derive(PartialEq, Eq)]
struct Leaf {
    kind: LeafKind,
    object: String,
}

#[derive(PartialEq, Eq)]
enum LeafKind {
    File {
        executable: bool,
    },
    Link,
    /// A commit of another repository, which is not fetched: an empty folder, as git itself leaves it.
    Submodule,
}

/// Reads the tree and the pipeline file of a commit, and what differs from `base`.
pub(super) fn read(mut objects: Objects, wanted: &Wanted, folder: &Path) -> Result<Checkout, ReadError> {
    let Wanted { commit, base, pipeline, pipeline_of } = wanted;
    let leaves = leaves_of(&mut objects, commit)?;
    let (pipeline, lock) = {
        let other = pipeline_of.as_ref().map(|other| leaves_of(&mut objects, other)).transpose()?;
        let leaves = other.as_ref().unwrap_or(&leaves);
        let pipeline = pipeline.as_ref().map(|path| read_pipeline(&mut objects, leaves, path)).transpose()?;
        (pipeline, read_lock(&mut objects, leaves)?)
    };
    let mut archive = Archive::new(folder);
    for (path, leaf) in &leaves {
        let path = Path::new(OsStr::from_bytes(path));
        match leaf.kind {
            LeafKind::Submodule => archive.folder(path)?,
            LeafKind::Link => archive.link(path, &link_target(&mut objects, path, leaf)?)?,
            LeafKind::File { executable } => {
                let length = objects.expect(&leaf.object, "blob")?;
                archive.file(path, executable, length, &mut objects.answers)?;
                objects.end()?;
            }
        }
    }
    // At the end: what is wrong with the commit before may leave git in the middle of an answer, and is not held against this one.
    let changed = base.as_ref().and_then(|base| match changed(&mut objects, &leaves, base) {
        Ok(changed) => changed,
        Err(error) => {
            info!(%commit, %base, ?error, "it is not known what changed");
            None
        }
    });
    let listing = leaves.into_iter().filter_map(|(path, leaf)| Some((String::from_utf8(path).ok()?, leaf.object))).collect();
    Ok(Checkout { pipeline, source: archive.finish()?, listing, changed, lock })
}

/// Reads the pipeline file of a commit.
pub(super) fn pipeline(mut objects: Objects, commit: &ObjectId, path: &str) -> Result<String, ReadError> {
    let leaves = leaves_of(&mut objects, commit)?;
    read_pipeline(&mut objects, &leaves, path)
}

/// All leaves of a commit that must be there.
fn leaves_of(objects: &mut Objects, commit: &ObjectId) -> Result<BTreeMap<Vec<u8>, Leaf>, ReadError> {
    let Some(length) = objects.ask(&format!("{commit}^{{tree}}"), "tree")? else {
        return Err(GitError::NoCommit(commit.clone()).into());
    };
    let root = tree_content(objects, length)?;
    list(objects, root, commit)
}

fn read_pipeline(objects: &mut Objects, leaves: &BTreeMap<Vec<u8>, Leaf>, path: &str) -> Result<String, ReadError> {
    let bad = |why| GitError::BadPipeline { path: path.to_owned(), why };
    let leaf = leaves.get(path.as_bytes()).ok_or_else(|| GitError::NoPipeline(path.to_owned()))?;
    match leaf.kind {
        LeafKind::File { .. } => {}
        LeafKind::Link | LeafKind::Submodule => return Err(bad("is no file").into()),
    }
    let length = objects.expect(&leaf.object, "blob")?;
    if length > PIPELINE_BYTES_MAX {
        return Err(bad("has over 1 MiB").into());
    }
    let bytes = objects.content(length)?;
    Ok(String::from_utf8(bytes).map_err(|_| bad("is no UTF-8 text"))?)
}

/// The lock file, if there is one that can be one.
fn read_lock(objects: &mut Objects, leaves: &BTreeMap<Vec<u8>, Leaf>) -> Result<Option<Vec<u8>>, ReadError> {
    let Some(leaf) = leaves.get(LOCK_FILE.as_bytes()).filter(|leaf| matches!(leaf.kind, LeafKind::File { .. })) else { return Ok(None) };
    let length = objects.expect(&leaf.object, "blob")?;
    if length > PIPELINE_BYTES_MAX {
        return Err(GitError::BadPipeline { path: LOCK_FILE.to_owned(), why: "has over 1 MiB" }.into());
    }
    Ok(Some(objects.content(length)?))
}

/// The paths that are not the same in the commit `base`; `None` if the repository does not have it any more.
fn changed(objects: &mut Objects, leaves: &BTreeMap<Vec<u8>, Leaf>, base: &ObjectId) -> Result<Option<Vec<String>>, ReadError> {
    let Some(length) = objects.ask(&format!("{base}^{{tree}}"), "tree")? else { return Ok(None) };
    let root = tree_content(objects, length)?;
    let before = list(objects, root, base)?;
    let differs = |(path, leaf): &(&Vec<u8>, &Leaf)| before.get(*path) != Some(*leaf);
    let new = leaves.iter().filter(differs).map(|(path, _)| path);
    let gone = before.keys().filter(|path| !leaves.contains_key(*path));
    let mut paths: Vec<String> = new.chain(gone).filter_map(|path| String::from_utf8(path.clone()).ok()).collect();
    paths.sort();
    Ok(Some(paths))
}

fn link_target(objects: &mut Objects, path: &Path, leaf: &Leaf) -> Result<std::path::PathBuf, ReadError> {
    let length = objects.expect(&leaf.object, "blob")?;
    let bad = |why| SourceError::Path { path: path.display().to_string(), why };
    if length == 0 || length > PATH_BYTES_MAX as u64 {
        return Err(bad("is a link whose target is empty or too long").into());
    }
    let target = objects.content(length)?;
    if target.contains(&0) {
        return Err(bad("is a link whose target is no path").into());
    }
    Ok(OsStr::from_bytes(&target).into())
}

fn tree_content(objects: &mut Objects, length: u64) -> Result<Vec<u8>, ReadError> {
    if length > TREE_BYTES_MAX {
        return Err(SourceError::TooManyFiles.into());
    }
    Ok(objects.content(length)?)
}

/// All leaves of the commit's tree by their paths; `content` is that of its root.
fn list(objects: &mut Objects, mut content: Vec<u8>, commit: &ObjectId) -> Result<BTreeMap<Vec<u8>, Leaf>, ReadError> {
    // A repository has ids of one length.
    let id_bytes = commit.as_str().len() / 2;
    let mut leaves = BTreeMap::new();
    let mut folder = Vec::new();
    let mut folders = Vec::new();
    // Folders count as well: a few that contain each other many times over would else be read for ever.
    let mut entries = 0;
    loop {
        let mut rest = content.as_slice();
        while let Some(entry) = next_entry(&mut rest, id_bytes)? {
            entries += 1;
            if entries > SOURCE_FILES_MAX {
                return Err(SourceError::TooManyFiles.into());
            }
            let path = join(&folder, entry.name)?;
            let object = HEXLOWER.encode(entry.id);
            let kind = match entry.mode {
                b"40000" => {
                    folders.push((path, object));
                    continue;
                }
                b"120000" => LeafKind::Link,
                b"160000" => LeafKind::Submodule,
                mode => LeafKind::File { executable: mode == b"100755" },
            };
            if leaves.insert(path.clone(), Leaf { kind, object }).is_some() {
                return Err(bad_path(&path, "is there twice").into());
            }
        }
        let Some((path, object)) = folders.pop() else { break };
        let length = objects.expect(&object, "tree")?;
        content = tree_content(objects, length)?;
        folder = path;
    }
    for path in leaves.keys() {
        let mut above = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(end, _)| &path[..end]);
        if above.any(|folder| leaves.contains_key(folder)) {
            return Err(bad_path(path, "lies below what is no folder").into());
        }
    }
    Ok(leaves)
}

struct TreeEntry<'a> {
    mode: &'a [u8],
    name: &'a [u8],
    id: &'a [u8],
}

/// The next entry of a tree object: `<mode> <name>`, a zero byte, and the raw object id.
fn next_entry<'a>(rest: &mut &'a [u8], id_bytes: usize) -> Result<Option<TreeEntry<'a>>, io::Error> {
    if rest.is_empty() {
        return Ok(None);
    }
    let entry = (|| {
        let space = rest.iter().position(|byte| *byte == b' ')?;
        let (mode, after) = (rest.get(..space)?, rest.get(space + 1..)?);
        let zero = after.iter().position(|byte| *byte == 0)?;
        let (name, after) = (after.get(..zero)?, after.get(zero + 1..)?);
        let (id, after) = after.split_at_checked(id_bytes)?;
        Some((TreeEntry { mode, name, id }, after))
    })();
    let (entry, after) = entry.ok_or_else(|| io::Error::other("a tree object does not read as one"))?;
    *rest = after;
    Ok(Some(entry))
}

/// The path of `name` in `folder`, if it may be unpacked: git itself stores any name.
fn join(folder: &[u8], name: &[u8]) -> Result<Vec<u8>, SourceError> {
    let mut path = folder.to_vec();
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') {
        return Err(bad_path(&path, "may lead out of it"));
    }
    if name.eq_ignore_ascii_case(b".git") {
        return Err(bad_path(&path, "is git's own"));
    }
    if path.len() > PATH_BYTES_MAX {
        return Err(bad_path(&path, "is too long"));
    }
    Ok(path)
}

fn bad_path(path: &[u8], why: &'static str) -> SourceError {
    let mut path = shown(path);
    path.truncate(path.floor_char_boundary(200));
    SourceError::Path { path, why }
}
