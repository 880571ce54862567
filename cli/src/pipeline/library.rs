//! Step libraries in archives: those of the tree, and those from addresses, which are kept by their digest in Otto's home.

use std::{
    fs,
    io::{Read, Write as _},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use flate2::read::MultiGzDecoder;
use model::Digest;
use ureq::{
    Agent,
    tls::{RootCerts, TlsConfig},
};

/// The most bytes of an archive: a library has a manifest and scripts, or a program.
pub(super) const ARCHIVE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// The most bytes of an archive that are unpacked while a file is looked for.
const UNPACKED_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// The most bytes of a file that is looked for.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// The most entries that are looked at.
const ENTRIES_MAX: usize = 100_000;
/// How long fetching one may take.
const FETCH_DEADLINE: Duration = Duration::from_mins(2);
/// How often an address may point to another one.
const REDIRECTS_MAX: u32 = 5;
/// What a library's description is called.
pub(super) const MANIFEST: &str = "manifest.yml";
/// How an archive's name ends.
const ENDING: &str = ".tar.gz";

/// Whether the parser means an address, and no path.
pub(super) fn is_address(name: &str) -> bool {
    name.contains("://")
}

/// The archive and the path in it, of a path through an archive.
pub(super) fn through_archive(path: &str) -> Option<(&str, &str)> {
    let end = path.find(&format!("{ENDING}/"))? + ENDING.len();
    Some((path.get(..end)?, path.get(end + 1..)?))
}

/// A regular file of an archive; `None` if it has none at this path.
pub(super) fn file_in(archive: &[u8], path: &str) -> anyhow::Result<Option<Vec<u8>>> {
    let mut archive = tar::Archive::new(MultiGzDecoder::new(archive).take(UNPACKED_BYTES_MAX));
    for entry in archive.entries().context("it is no archive")?.take(ENTRIES_MAX) {
        let mut entry = entry.context("it is no .tar.gz archive, or too large a one")?;
        let found = entry.path().context("it has a path that is none")?;
        if found.strip_prefix(".").unwrap_or(&found) != path || !entry.header().entry_type().is_file() {
            continue;
        }
        ensure!(entry.size() <= FILE_BYTES_MAX, "its `{path}` has over {FILE_BYTES_MAX} bytes");
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).with_context(|| format!("its `{path}` cannot be read"))?;
        return Ok(Some(bytes));
    }
    Ok(None)
}

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
        let bytes = fetch(address).with_context(|| format!("cannot fetch the library {address}"))?;
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
        self.0.join(format!("{}{ENDING}", digest.hex()))
    }
}

fn fetch(address: &str) -> anyhow::Result<Vec<u8>> {
    // The parser lets no other address without TLS pass; where one begins with it, it stays with it.
    let secure = address.starts_with("https://");
    let loopback = ["http://127.0.0.1:", "http://[::1]:", "http://localhost:"].iter().any(|start| address.starts_with(start));
    if !secure && !loopback {
        bail!("it is no https:// address");
    }
    let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
    let config = Agent::config_builder().https_only(secure).max_redirects(if secure { REDIRECTS_MAX } else { 0 });
    let config = config.timeout_global(Some(FETCH_DEADLINE)).tls_config(tls).build();
    let mut response = Agent::new_with_config(config).get(address).call()?;
    ensure!(response.status().is_success(), "it answers {}", response.status());
    Ok(response.body_mut().with_config().limit(ARCHIVE_BYTES_MAX).read_to_vec()?)
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
    fn a_file_is_found_in_an_archive() {
        assert_eq!(through_archive("common/slack.tar.gz/manifest.yml"), Some(("common/slack.tar.gz", "manifest.yml")));
        assert_eq!(through_archive("common/slack/manifest.yml"), None);
        assert_eq!(file_in(&archive("symbol: x\n"), MANIFEST).unwrap().unwrap(), b"symbol: x\n");
        assert_eq!(file_in(&archive("symbol: x\n"), "none").unwrap(), None);
        assert!(file_in(b"no archive", MANIFEST).is_err());
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

    #[test]
    fn only_loopback_is_asked_without_tls() {
        assert!(fetch("http://example.org/x@1").unwrap_err().to_string().contains("no https://"));
    }
}
