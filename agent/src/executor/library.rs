//! Step libraries: unpacked once for each digest, and shared by all attempts, which only read them.
//!
//! An archive is a tar, or a tar.gz, with the content of the library's folder at its root: `manifest.yml`, and the programs it names.

use std::{
    collections::VecDeque,
    env::consts::{ARCH, OS},
    fs::{self, DirBuilder, File, Permissions},
    io::{self, Read as _, Seek as _},
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use blob::{BlobError, Blobs};
use model::{Digest, manifest::StepManifest};
use tokio::task::spawn_blocking;
use tracing::warn;
use tree::{Archive, Rules, UnpackError};

use super::workspace::remove_tree;

/// Libraries that are kept unpacked. Those in use are never removed.
const LIBRARIES_MAX: usize = 64;
/// The longest manifest.
const MANIFEST_BYTES_MAX: u64 = 1024 * 1024;
/// How an archive begins that is compressed (RFC 1952, section 2.3.1).
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const MANIFEST: &str = "manifest.yml";

/// Why a step of a library cannot be run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LibraryError {
    /// The depot does not give it.
    #[error("cannot fetch the step library")]
    Fetch(#[source] BlobError),
    /// It is no archive of one.
    #[error("cannot unpack the step library")]
    Unpack(#[source] UnpackError),
    /// The agent's disk does not take it.
    #[error("cannot keep the step library on the agent's disk")]
    Disk(#[source] io::Error),
    /// Its manifest is missing or wrong.
    #[error("the step library's {MANIFEST} {0}")]
    Manifest(String),
    /// It has no program.
    #[error("the step library's {MANIFEST} names no `entrypoint`")]
    NoEntrypoint,
    /// It has no program for this machine.
    #[error("the step library has no program `{0}`")]
    NoProgram(String),
}

/// A library that is unpacked.
#[derive(Debug)]
pub(crate) struct Library {
    /// What it says of its step.
    pub(crate) manifest: StepManifest,
    /// The path of its program.
    pub(crate) program: PathBuf,
    folder: PathBuf,
}

/// Those that are there.
#[derive(Debug)]
pub(crate) struct Libraries {
    folder: PathBuf,
    /// The least lately used first. Whoever holds a slot's lock unpacks; the others wait for it.
    slots: Mutex<VecDeque<(Digest, Slot)>>,
}

type Slot = Arc<tokio::sync::Mutex<Option<Arc<Library>>>>;

impl Libraries {
    /// None yet, in `folder`. What an earlier life left there was never made durable, so it is not trusted.
    pub(crate) fn create(folder: PathBuf) -> io::Result<Self> {
        remove_tree(&folder)?;
        // Stages read in it, also those that are another user's.
        DirBuilder::new().mode(0o755).create(&folder)?;
        fs::set_permissions(&folder, Permissions::from_mode(0o755))?;
        Ok(Self { folder, slots: Mutex::default() })
    }

    /// The library with this digest. It stays as long as somebody has it.
    pub(crate) async fn get(&self, digest: &Digest, blobs: &Blobs) -> Result<Arc<Library>, LibraryError> {
        let slot = self.slot(digest);
        let mut present = slot.lock().await;
        if let Some(library) = &*present {
            return Ok(library.clone());
        }
        let folder = self.folder.join(digest.hex());
        let archive = folder.with_extension("part");
        let fetched = blobs.get_file(digest, &archive).await.map_err(LibraryError::Fetch);
        let unpacked = match fetched {
            Ok(()) => {
                let (archive, folder) = (archive.clone(), folder.clone());
                spawn_blocking(move || unpack(&archive, folder)).await.map_err(|error| LibraryError::Disk(io::Error::other(error)))?
            }
            Err(error) => Err(error),
        };
        clear(&archive);
        match unpacked {
            Ok(library) => Ok(present.insert(Arc::new(library)).clone()),
            Err(error) => {
                clear(&folder);
                Err(error)
            }
        }
    }

    /// Whether it is here, unpacked.
    pub(crate) fn has(&self, digest: &Digest) -> bool {
        let slots = self.slots.lock().expect("no holder of this lock panics");
        slots.iter().any(|(known, slot)| known == digest && slot.try_lock().is_ok_and(|library| library.is_some()))
    }

    fn slot(&self, digest: &Digest) -> Slot {
        let mut slots = self.slots.lock().expect("no holder of this lock panics");
        let known = slots.iter().position(|(known, _)| known == digest).and_then(|at| slots.remove(at));
        let (_, slot) = known.unwrap_or_else(|| (*digest, Slot::default()));
        slots.push_back((*digest, slot.clone()));
        if slots.len() > LIBRARIES_MAX
            && let Some(unused) = slots.iter().position(|(_, slot)| is_unused(slot))
        {
            slots.remove(unused);
        }
        slot
    }
}

impl Library {
    /// Where it is unpacked.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

fn is_unused(slot: &Slot) -> bool {
    Arc::strong_count(slot) == 1
        && slot.try_lock().is_ok_and(|library| library.as_ref().is_none_or(|library| Arc::strong_count(library) == 1))
}

impl Drop for Library {
    fn drop(&mut self) {
        clear(&self.folder);
    }
}

fn clear(path: &Path) {
    let removed = if path.is_dir() { remove_tree(path) } else { fs::remove_file(path) };
    if let Err(error) = removed
        && error.kind() != io::ErrorKind::NotFound
    {
        warn!(path = %path.display(), %error, "a step library was not removed");
    }
}

fn unpack(archive: &Path, folder: PathBuf) -> Result<Library, LibraryError> {
    let mut file = File::open(archive).map_err(LibraryError::Disk)?;
    let mut magic = Vec::new();
    (&mut file).take(GZIP_MAGIC.len() as u64).read_to_end(&mut magic).map_err(LibraryError::Disk)?;
    file.rewind().map_err(LibraryError::Disk)?;
    let archive = if magic == GZIP_MAGIC { Archive::tar_gz(file) } else { Archive::tar(file) };
    tree::unpack_new(archive, &folder, &Rules::LIBRARY, &|| false).map_err(LibraryError::Unpack)?;
    let manifest = read_manifest(&folder.join(MANIFEST))?;
    let entrypoint = manifest.entrypoint.as_ref().ok_or(LibraryError::NoEntrypoint)?;
    let path = if entrypoint.multiarch { format!("{}-{ARCH}-{OS}", entrypoint.path) } else { entrypoint.path.clone() };
    let program = folder.join(&path);
    // A link could lead out of the library, to a program that nobody has seen.
    let real = program.canonicalize().and_then(|real| Ok(real.starts_with(folder.canonicalize()?)));
    if !real.unwrap_or(false) {
        return Err(LibraryError::NoProgram(path));
    }
    make_read_only(&folder).map_err(LibraryError::Disk)?;
    Ok(Library { manifest, program, folder })
}

fn read_manifest(path: &Path) -> Result<StepManifest, LibraryError> {
    let wrong = |what: String| LibraryError::Manifest(what);
    let metadata = fs::symlink_metadata(path).map_err(|error| wrong(format!("is missing: {error}")))?;
    if !metadata.is_file() || metadata.len() > MANIFEST_BYTES_MAX {
        return Err(wrong("is no file of a manifest".to_owned()));
    }
    let text = fs::read_to_string(path).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    let manifest: StepManifest = serde_saphyr::from_str_with_options(&text, serde_saphyr::options! { strict_booleans: true })
        .map_err(|error| wrong(format!("is none: {error}")))?;
    match manifest.problems().first() {
        Some(problem) => Err(wrong(format!("is wrong: `{}`: {}", problem.name, problem.message))),
        None => Ok(manifest),
    }
}

fn make_read_only(root: &Path) -> io::Result<()> {
    let mut paths = vec![root.to_owned()];
    while let Some(path) = paths.pop() {
        let metadata = fs::symlink_metadata(&path)?;
        if metadata.is_symlink() {
            continue;
        }
        if metadata.is_dir() {
            for entry in fs::read_dir(&path)? {
                paths.push(entry?.path());
            }
        }
        let is_run = metadata.is_dir() || metadata.permissions().mode() & 0o111 != 0;
        let mode = if is_run { 0o555 } else { 0o444 };
        fs::set_permissions(&path, Permissions::from_mode(mode))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use blob::{DiskStore, Durability};
    use bytes::Bytes;
    use flate2::{Compression, write::GzEncoder};

    use super::*;

    const GREET: &str = "symbol: greet\ndescription: Greets.\nentrypoint:\n  path: bin/greet\n";

    fn tar(files: &[(&str, u32, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, mode, text) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(*mode);
            builder.append_data(&mut header, path, text.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    async fn got(archive: Vec<u8>) -> (tempfile::TempDir, Libraries, Result<Arc<Library>, LibraryError>) {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::Disk(DiskStore::open(&folder.path().join("depot"), Durability::None).unwrap());
        let libraries = Libraries::create(folder.path().join("libraries")).unwrap();
        let digest = blobs.put(Bytes::from(archive)).await.unwrap();
        let library = libraries.get(&digest, &blobs).await;
        if let Ok(library) = &library {
            assert!(Arc::ptr_eq(library, &libraries.get(&digest, &blobs).await.unwrap()), "it is unpacked once");
        }
        (folder, libraries, library)
    }

    #[tokio::test]
    async fn a_library_is_unpacked_once_and_read_only() {
        let archive = tar(&[("manifest.yml", 0o644, GREET), ("./bin/greet", 0o755, "#!/bin/sh\n")]);
        let mut compressed = GzEncoder::new(Vec::new(), Compression::fast());
        io::Write::write_all(&mut compressed, &archive).unwrap();
        for archive in [archive, compressed.finish().unwrap()] {
            let (_folder, libraries, library) = got(archive).await;
            let library = library.unwrap();
            assert_eq!(library.manifest.symbol, "greet");
            assert_eq!(fs::metadata(&library.program).unwrap().permissions().mode() & 0o777, 0o555);
            drop(libraries);
            let folder = library.folder.clone();
            assert!(folder.exists());
            drop(library);
            assert!(!folder.exists(), "the last who has it removes it");
        }
    }

    #[tokio::test]
    async fn what_is_no_library_is_refused() {
        let multiarch = "symbol: a\ndescription: A.\nentrypoint: { path: a, multiarch: true }\n";
        let cases = [
            (tar(&[("bin/greet", 0o755, "")]), "manifest.yml is missing"),
            (tar(&[("manifest.yml", 0o644, "symbol: [")]), "manifest.yml is none"),
            (tar(&[("manifest.yml", 0o644, "symbol: a\ndescription: A.\n")]), "names no `entrypoint`"),
            (tar(&[("manifest.yml", 0o644, GREET)]), "has no program `bin/greet`"),
            (tar(&[("manifest.yml", 0o644, multiarch), ("a", 0o755, "")]), "has no program `a-"),
            (b"no archive at all".to_vec(), "cannot unpack"),
        ];
        for (archive, expected) in cases {
            let (folder, _libraries, library) = got(archive).await;
            let error = library.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert_eq!(fs::read_dir(folder.path().join("libraries")).unwrap().count(), 0);
        }
    }
}
