//! The lock file, `otto.lock`: the digests of everything that `use` and `from` bring in.
//!
//! It is JSON with one entry a line, sorted, so that a change of it can be read as a difference of lines. `otto lock` writes it with
//! the parser, which asks for it while it plans and holds what is brought in against it; the forge fetches what lies elsewhere by it.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error as _, MapAccess, Visitor},
};

use crate::Digest;

/// The most bytes of a lock file: some thousand libraries.
pub const LOCK_BYTES_MAX: usize = 1024 * 1024;

/// The version of the lock file's form that is written.
const VERSION: u32 = 1;

/// What a lock file says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    version: Version,
    /// Blueprints, by path from the repository's root: SHA-256 of the file.
    #[serde(default, deserialize_with = "each_once")]
    pub blueprints: BTreeMap<String, Digest>,
    /// Step libraries. `stdlib` and others by name: the digest that the program says. `./x.otto` and `./x.tar.gz`: SHA-256 of the file.
    /// `./x`, a folder: see [`Lock::of_folder`]. An address: SHA-256 of the `.tar.gz` that lies there.
    #[serde(default, deserialize_with = "each_once")]
    pub libraries: BTreeMap<String, Digest>,
}

/// Always [`VERSION`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Version;

impl Serialize for Version {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(VERSION)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u32::deserialize(deserializer)? {
            VERSION => Ok(Self),
            other => Err(D::Error::custom(format!("version {other} is not read by this Otto, which reads version {VERSION}"))),
        }
    }
}

/// A map in which no key stands twice: after a merge, both would be there, and the last would silently win.
fn each_once<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Digest>, D::Error> {
    struct Entries;

    impl<'de> Visitor<'de> for Entries {
        type Value = BTreeMap<String, Digest>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("names with their digests")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut entries = BTreeMap::new();
            while let Some((name, digest)) = map.next_entry::<String, Digest>()? {
                if entries.contains_key(&name) {
                    return Err(A::Error::custom(format!("`{name}` stands twice")));
                }
                entries.insert(name, digest);
            }
            Ok(entries)
        }
    }

    deserializer.deserialize_map(Entries)
}

/// Why bytes are no lock file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidLock {
    /// What is wrong.
    pub message: String,
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1, in bytes.
    pub column: usize,
}

impl fmt::Display for InvalidLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.message)
    }
}

impl std::error::Error for InvalidLock {}

impl Lock {
    /// A lock file of these libraries and nothing else.
    pub fn of_libraries(libraries: BTreeMap<String, Digest>) -> Self {
        Self { libraries, ..Self::default() }
    }

    /// Reads a lock file.
    pub fn read(bytes: &[u8]) -> Result<Self, InvalidLock> {
        if bytes.len() > LOCK_BYTES_MAX {
            return Err(InvalidLock {
                message: format!("it has {} bytes, over the limit of {LOCK_BYTES_MAX}", bytes.len()),
                line: 1,
                column: 1,
            });
        }
        serde_json::from_slice(bytes).map_err(|error| {
            let told = error.to_string();
            let end = told.rfind(" at line ").unwrap_or(told.len());
            InvalidLock {
                message: told.get(..end).unwrap_or_default().to_owned(),
                line: error.line().max(1),
                column: error.column().max(1),
            }
        })
    }

    /// As it is written: the same entries give the same bytes.
    pub fn text(&self) -> String {
        serde_json::to_string_pretty(self).expect("texts and digests have a JSON form") + "\n"
    }

    /// Whether nothing is locked.
    pub fn is_empty(&self) -> bool {
        self.blueprints.is_empty() && self.libraries.is_empty()
    }

    /// Adds what another pipeline of the same commit brings in: the same names have the same digests there.
    pub fn extend(&mut self, other: Self) {
        self.blueprints.extend(other.blueprints);
        self.libraries.extend(other.libraries);
    }

    /// What names the contents of a library's folder: its manifest's bytes, and for each file in it, in the order of their paths, the path
    /// from the folder and git's object id; each of these is preceded by its length in eight bytes, the first the most significant.
    pub fn of_folder<'a>(manifest: &[u8], files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Digest {
        let mut builder = Digest::builder();
        let mut part = |bytes: &[u8]| {
            builder.update(&(bytes.len() as u64).to_be_bytes());
            builder.update(bytes);
        };
        part(manifest);
        for (path, id) in files {
            part(path.as_bytes());
            part(id.as_bytes());
        }
        builder.finish()
    }
}

/// Why an address names no library.
pub fn address_problem(address: &str) -> Option<&'static str> {
    let loopback = ["http://127.0.0.1:", "http://[::1]:", "http://localhost:"].iter().any(|start| address.starts_with(start));
    let rest = address.split_once("://").map_or("", |(_, rest)| rest);
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let version = path.rsplit_once('@').map(|(_, version)| version);
    let is_version = |version: &str| {
        !version.is_empty()
            && version.chars().all(|character| character.is_ascii_alphanumeric() || matches!(character, '.' | '-' | '_' | '+'))
    };
    if !address.starts_with("https://") && !loopback {
        Some("is no address of a library: it begins with `https://`")
    } else if host.contains('@') {
        Some("has a user or a password in it")
    } else if host.is_empty() || address.chars().any(|character| character.is_whitespace() || character.is_control()) {
        Some("is no address")
    } else if !version.is_some_and(is_version) {
        Some("has no version")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock() -> Lock {
        let digest = Digest::of(b"x");
        Lock {
            libraries: BTreeMap::from([("stdlib".to_owned(), digest), ("./common/slack".to_owned(), digest)]),
            blueprints: BTreeMap::from([("a.blueprint".to_owned(), digest)]),
            ..Lock::default()
        }
    }

    #[test]
    fn a_lock_is_one_entry_a_line_and_reads_back() {
        let text = lock().text();
        assert_eq!(Lock::read(text.as_bytes()), Ok(lock()));
        let lines: Vec<&str> = text.lines().map(|line| line.split(": ").next().unwrap_or_default().trim()).collect();
        assert_eq!(
            lines,
            ["{", "\"version\"", "\"blueprints\"", "\"a.blueprint\"", "},", "\"libraries\"", "\"./common/slack\"", "\"stdlib\"", "}", "}"]
        );
    }

    #[test]
    fn what_is_no_lock_is_refused_with_its_place() {
        for (text, line, part) in [
            ("", 1, "EOF"),
            ("{\n  \"version\": 2\n}", 3, "version 2"),
            ("{\"version\": 1, \"more\": 1}", 1, "more"),
            ("{\"version\": 1,\n\"libraries\": {\"a\": \"b\"}}", 2, "no digest"),
            ("{\n<<<<<<< HEAD", 2, "key must be"),
        ] {
            let error = Lock::read(text.as_bytes()).unwrap_err();
            assert!(error.line == line && error.message.contains(part), "{text}: {error}");
        }
        let digest = Digest::of(b"");
        let twice = format!("{{\"version\": 1, \"libraries\": {{\"a\": \"{digest}\", \"a\": \"{digest}\"}}}}");
        assert_eq!(Lock::read(twice.as_bytes()).unwrap_err().message, "`a` stands twice");
    }

    #[test]
    fn folders_with_other_contents_have_other_digests() {
        let one = Lock::of_folder(b"m", [("a", "1"), ("b", "2")]);
        for other in [
            Lock::of_folder(b"n", [("a", "1"), ("b", "2")]),
            Lock::of_folder(b"m", [("a", "1"), ("b", "3")]),
            Lock::of_folder(b"m", [("a", "1")]),
            Lock::of_folder(b"m", [("a1", ""), ("b", "2")]),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn an_address_is_https_with_a_version() {
        for (address, sound) in [
            ("https://example.org/steps/deploy@1.4.0", true),
            ("http://127.0.0.1:8080/deploy@1", true),
            ("http://example.org/deploy@1", false),
            ("http://127.0.0.1.example.org/deploy@1", false),
            ("https://user:secret@example.org/deploy@1", false),
            ("https://example.org/deploy", false),
            ("https://example.org/deploy@", false),
            ("https://example.org@1.0", false),
            ("https:///deploy@1", false),
            ("git://example.org/deploy@1", false),
            ("https://example.org/de ploy@1", false),
        ] {
            assert_eq!(address_problem(address).is_none(), sound, "{address}");
        }
    }
}
