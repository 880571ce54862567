//! Archives by hand: every byte of a header as a test wants it.

use std::{fs, path::Path};

use model::Digest;
use tempfile::TempDir;
use tree::{Archive, Rules, UnpackError, Unpacked, unpack_new};

/// One entry.
#[derive(Clone, Copy)]
pub(crate) struct Crafted<'a> {
    pub(crate) kind: u8,
    pub(crate) name: &'a [u8],
    pub(crate) link: &'a [u8],
    pub(crate) mode: u32,
    /// What the header says; `None` for the truth.
    pub(crate) size: Option<&'a [u8; 12]>,
    pub(crate) content: &'a [u8],
}

pub(crate) fn file<'a>(name: &'a str, content: &'a [u8]) -> Crafted<'a> {
    Crafted { kind: b'0', name: name.as_bytes(), link: b"", mode: 0o644, size: None, content }
}

pub(crate) fn folder(name: &str) -> Crafted<'_> {
    Crafted { kind: b'5', mode: 0o755, ..file(name, b"") }
}

pub(crate) fn link<'a>(name: &'a str, target: &'a str) -> Crafted<'a> {
    Crafted { kind: b'2', link: target.as_bytes(), ..file(name, b"") }
}

pub(crate) fn special(kind: u8, name: &str) -> Crafted<'_> {
    Crafted { kind, ..file(name, b"") }
}

impl Crafted<'_> {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut header = [0_u8; 512];
        header[..self.name.len()].copy_from_slice(self.name);
        header[100..108].copy_from_slice(format!("{:07o}\0", self.mode).as_bytes());
        header[124..136].copy_from_slice(self.size.unwrap_or(&size(self.content.len())));
        header[136..148].copy_from_slice(&size(1_000_000_000));
        header[148..156].fill(b' ');
        header[156] = self.kind;
        header[157..157 + self.link.len()].copy_from_slice(self.link);
        header[257..265].copy_from_slice(b"ustar  \0");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let mut bytes = header.to_vec();
        bytes.extend_from_slice(self.content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }
}

pub(crate) fn size(size: usize) -> [u8; 12] {
    format!("{size:011o}\0").into_bytes().try_into().unwrap()
}

/// An archive with its end.
pub(crate) fn archive(entries: &[Crafted<'_>]) -> Vec<u8> {
    let mut bytes: Vec<u8> = entries.iter().flat_map(Crafted::bytes).collect();
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

/// Unpacks into `root` in a folder of its own, which must hold nothing else afterwards, and nothing at all after a failure.
pub(crate) fn unpacked(bytes: &[u8], rules: &Rules) -> (TempDir, Result<Unpacked, UnpackError>) {
    let folder = tempfile::tempdir().unwrap();
    let result = unpack_new(Archive::tar(bytes).expect(Digest::of(bytes)), &folder.path().join("root"), rules, &|| false);
    let expected: &[&str] = if result.is_ok() { &["root"] } else { &[] };
    assert_eq!(names(folder.path()), expected, "{result:?}");
    (folder, result)
}

pub(crate) fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
