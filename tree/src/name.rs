//! Names of entries: bytes, read with suspicion, and shown so that they steer no terminal.

use std::{
    ffi::OsStr,
    fmt,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use crate::limits::{DEPTH_MAX, PATH_BYTES_MAX};

/// Characters of a name that an error shows.
const SHOWN_CHARACTERS_MAX: usize = 200;

/// A path below the root, as bytes. It displays without control characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryName(Vec<u8>);

impl EntryName {
    /// The name with these bytes, right or wrong.
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    /// As a path.
    pub fn to_path(&self) -> PathBuf {
        Path::new(OsStr::from_bytes(&self.0)).to_owned()
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = String::from_utf8_lossy(&self.0);
        for (at, character) in text.chars().enumerate() {
            match character {
                _ if at >= SHOWN_CHARACTERS_MAX => return f.write_str("…"),
                character if character.is_control() => write!(f, "{}", character.escape_default())?,
                character => write!(f, "{character}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{self}`")
    }
}

/// The path with each of its parts once and no `.`: empty for the root itself. What is wrong with a path that leaves the root is an error.
pub(crate) fn inside(path: &[u8]) -> Result<Vec<u8>, &'static str> {
    if path.first() == Some(&b'/') {
        return Err("is an absolute path");
    }
    if path.contains(&0) {
        return Err("has a zero byte in its name");
    }
    let mut clean = Vec::with_capacity(path.len());
    let mut depth = 0;
    for part in path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".") {
        if part == b".." {
            return Err("leads upwards");
        }
        if !clean.is_empty() {
            clean.push(b'/');
        }
        clean.extend_from_slice(part);
        depth += 1;
    }
    if clean.len() > PATH_BYTES_MAX || depth > DEPTH_MAX {
        return Err("is too long a path");
    }
    Ok(clean)
}

/// Whether a symbolic link at `path` with this target stays in the root, whatever other links there are that stay in it.
///
/// Only leading `..` are believed: they walk up from where the link really stands. After a name, `..` would walk up from wherever that name
/// leads to.
pub(crate) fn link_stays(path: &[u8], target: &[u8]) -> bool {
    let mut above = path.split(|byte| *byte == b'/').count() - 1;
    let mut named = false;
    for part in target.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".") {
        match (part == b"..", named) {
            (false, _) => named = true,
            (true, true) => return false,
            (true, false) if above == 0 => return false,
            (true, false) => above -= 1,
        }
    }
    target.first() != Some(&b'/')
}

/// The folder and the last part of a path that [`inside`] gave.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    path.iter().rposition(|byte| *byte == b'/').map_or((&[], path), |at| (&path[..at], &path[at + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_inside_or_says_why_not() {
        for (path, expected) in [("a/b", "a/b"), ("./a//b/.", "a/b"), ("./", ""), ("\u{1b}/ü", "\u{1b}/ü"), ("..a/b..", "..a/b..")] {
            assert_eq!(inside(path.as_bytes()), Ok(expected.as_bytes().to_vec()));
        }
        for (path, expected) in
            [("/a", "is an absolute path"), ("a/../b", "leads upwards"), ("..", "leads upwards"), ("a\0b", "has a zero byte in its name")]
        {
            assert_eq!(inside(path.as_bytes()), Err(expected), "{path}");
        }
        assert_eq!(inside(&b"a/".repeat(DEPTH_MAX + 1)), Err("is too long a path"));
        assert_eq!(inside(&b"a".repeat(PATH_BYTES_MAX + 1)), Err("is too long a path"));
    }

    #[test]
    fn a_link_stays_inside_or_does_not() {
        for (path, target) in [("a", "b"), ("a/b", "../c"), ("a/b/c", "../../d/e"), ("a/b", "."), ("a", "b/c/./d"), ("a/b", "..")] {
            assert!(link_stays(path.as_bytes(), target.as_bytes()), "{path} -> {target}");
        }
        // The last: `x` may be a link to `.`'s parent, or to anything else inside.
        for (path, target) in [("a", ".."), ("a", "/etc"), ("a/b", "../../c"), ("a", "./../c"), ("a/b/c", "x/../y"), ("a", "//x")] {
            assert!(!link_stays(path.as_bytes(), target.as_bytes()), "{path} -> {target}");
        }
    }

    #[test]
    fn a_name_is_shown_without_what_steers_a_terminal() {
        assert_eq!(EntryName::new("ü\x1b[2Jx\n".as_bytes()).to_string(), "ü\\u{1b}[2Jx\\n");
        assert_eq!(EntryName::new(b"\xff").to_string(), "\u{fffd}");
        assert_eq!(EntryName::new("x".repeat(300).as_bytes()).to_string().chars().count(), SHOWN_CHARACTERS_MAX + 1);
    }
}
