//! Step libraries in archives: those of the tree, and those from addresses, which are kept by their digest in Otto's home.

use std::{fs, io::Write as _, path::PathBuf, time::Duration};

use anyhow::Context as _;
use forge::library::{Reach, fetch};
use model::{Digest, planning::ARCHIVE_ENDING};

/// How long fetching one may take.
const FETCH_DEADLINE: Duration = Duration::from_mins(2);
/// What a library's description is called.
pub(super) const MANIFEST: &str = "manifest.yml";

/// Libraries from addresses that were fetched, by their digest.
#[derive(Debug, Clone)]
pub(super) struct Kept(PathBuf);

impl Kept {
    /// In Otto's home.
    pub(super) fn at_home() -> anyhow::Result<Self> {
        Ok(Self(crate::home::folder()?.join("libraries")))
    }

    #[cfg(test)]
    pub(super) fn at(folder: PathBuf) -> Self {
        Self(folder)
    }

    /// The archive with this digest, if it was fetched and is what it was.
    pub(super) fn get(&self, digest: &Digest) -> Option<Vec<u8>> {
        let bytes = fs::read(self.path(digest)).ok()?;
        (Digest::of(&bytes) == *digest).then_some(bytes)
    }

    /// The archive that lies at an address, fetched and kept.
    pub(super) fn fetch(&self, address: &str) -> anyhow::Result<Vec<u8>> {
        let bytes = fetch(address, &Reach::Everywhere, FETCH_DEADLINE).with_context(|| format!("cannot fetch the library {address}"))?;
        let path = self.path(&Digest::of(&bytes));
        let keep = || {
            fs::create_dir_all(&self.0)?;
            let mut new = tempfile::NamedTempFile::new_in(&self.0)?;
            new.write_all(&bytes)?;
            new.persist(&path).map_err(|error| error.error)
        };
        keep().with_context(|| format!("cannot keep the library {address} as {}", path.display()))?;
        Ok(bytes)
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.0.join(format!("{}{ARCHIVE_ENDING}", digest.hex()))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An archive with this manifest.
    pub(in crate::pipeline) fn archive(manifest: &str) -> Vec<u8> {
        let mut builder = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
        let mut header = tar::Header::new_gnu();
        header.set_size(manifest.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, "./manifest.yml", manifest.as_bytes()).unwrap();
        builder.into_inner().unwrap().finish().unwrap()
    }

    #[test]
    fn what_is_kept_is_what_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::at(folder.path().to_owned());
        let digest = Digest::of(b"abc");
        assert_eq!(kept.get(&digest), None);
        fs::write(kept.path(&digest), "abc").unwrap();
        assert_eq!(kept.get(&digest).unwrap(), b"abc");
        fs::write(kept.path(&digest), "abd").unwrap();
        assert_eq!(kept.get(&digest), None);
    }
}
