//! The tokens of the API: who may ask what of which projects.
//!
//! ```yaml
//! tokens:
//!   - name: ann                    # stands in the records as who did it
//!     sha256: 2cf24dba5fb0…        # of the token's text; the text itself is written nowhere
//!     role: approve                # view, run, approve or admin
//!     projects: [shop]             # without it, all
//! ```

use std::{
    collections::BTreeSet,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use model::{Digest, ProjectName, TokenName, access::Role};
use serde::{Deserialize, Deserializer};

/// The most bytes of the file. An entry has about 150, so this is some thousand people and programs.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// The name of the token that the orchestrator is started with, which no other one has.
pub const OWNER: &str = "admin";

/// A token of the API.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// Who it was made for.
    pub name: TokenName,
    /// The SHA-256 of its text.
    #[serde(rename = "sha256", deserialize_with = "hexadecimal")]
    pub digest: Digest,
    /// What it is for.
    pub role: Role,
    /// The projects that it is for; without them, all.
    #[serde(default)]
    pub projects: Option<BTreeSet<ProjectName>>,
}

fn hexadecimal<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
    let text = String::deserialize(deserializer)?;
    format!("sha256:{text}").parse().map_err(|_| serde::de::Error::custom("sha256: it is not 64 lower-case hexadecimal digits"))
}

/// All that is wrong with the file of tokens.
#[derive(Debug, thiserror::Error)]
pub struct WrongTokens {
    path: PathBuf,
    wrong: Vec<String>,
}

impl fmt::Display for WrongTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} wrong:", self.path.display(), self.wrong.len())?;
        self.wrong.iter().try_for_each(|wrong| write!(f, "\n  {wrong}"))
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokensFile {
    tokens: Vec<serde_json::Value>,
}

/// Reads the file of tokens; one that is not there has none.
pub fn load_tokens(path: &Path) -> Result<Vec<Token>, WrongTokens> {
    let wrong = |wrong: Vec<String>| WrongTokens { path: path.to_owned(), wrong };
    let text = read(path).map_err(|what| wrong(vec![what]))?;
    text.map_or_else(|| Ok(Vec::new()), |text| parse_tokens(&text).map_err(wrong))
}

fn read(path: &Path) -> Result<Option<String>, String> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.len() > FILE_BYTES_MAX => {
            Err(format!("it has {} bytes, over the limit of {FILE_BYTES_MAX}", metadata.len()))
        }
        Ok(_) => fs::read_to_string(path).map(Some).map_err(|error| error.to_string()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// The tokens that a text names, or all that is wrong with it.
pub fn parse_tokens(text: &str) -> Result<Vec<Token>, Vec<String>> {
    let file: TokensFile = serde_saphyr::from_str(text).map_err(|error| vec![error.to_string()])?;
    let (mut tokens, mut wrong) = (Vec::<Token>::new(), Vec::new());
    for (place, entry) in (1..).zip(file.tokens) {
        let named = entry.get("name").and_then(serde_json::Value::as_str).map_or_else(String::new, |name| format!(" (`{name}`)"));
        let mut refuse = |what: &str| wrong.push(format!("token {place}{named}: {what}"));
        match serde_json::from_value::<Token>(entry) {
            Err(error) => refuse(&error.to_string()),
            Ok(token) if token.name.as_str() == OWNER => refuse("the name is that of the orchestrator's own token: take another"),
            Ok(token) if tokens.iter().any(|other| other.name == token.name) => refuse("another token has this name"),
            Ok(token) if tokens.iter().any(|other| other.digest == token.digest) => refuse("another entry has this token"),
            Ok(token) if token.projects.as_ref().is_some_and(BTreeSet::is_empty) => {
                refuse("projects: it names none: leave it out for all projects, or the whole entry for none");
            }
            Ok(token) => tokens.push(token),
        }
    }
    if wrong.is_empty() { Ok(tokens) } else { Err(wrong) }
}

/// The text with one more token. Fails where the text is not that of a file of tokens, or would not be with it.
pub fn with_token(text: &str, token: &Token) -> Result<String, Vec<String>> {
    let mut text = if text.trim().is_empty() { "tokens:\n".to_owned() } else { text.to_owned() };
    if !text.ends_with('\n') {
        text.push('\n');
    }
    let Token { name, digest, role, projects } = token;
    text.extend([format!("  - name: '{name}'\n"), format!("    sha256: '{}'\n", digest.hex()), format!("    role: {role}\n")]);
    if let Some(projects) = projects {
        let names: Vec<String> = projects.iter().map(|project| format!("'{project}'")).collect();
        text.extend(["    projects: [", &names.join(", "), "]\n"]);
    }
    parse_tokens(&text).map(|_| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(name: &str, projects: Option<&[&str]>) -> Token {
        let projects = projects.map(|projects| projects.iter().map(|project| project.parse().unwrap()).collect());
        Token { name: name.parse().unwrap(), digest: Digest::of(name.as_bytes()), role: Role::Run, projects }
    }

    #[test]
    fn what_is_written_is_read() {
        let (ann, robot) = (token("ann", Some(&["shop", "1"])), token("2", None));
        let text = with_token(&with_token("", &ann).unwrap(), &robot).unwrap();
        assert_eq!(parse_tokens(&text), Ok(vec![ann.clone(), robot]));
        assert!(with_token(&text, &ann).is_err(), "a name is taken once");
        assert!(with_token("tokens: []\n", &ann).is_err(), "what cannot be gone on with is left alone");
    }

    #[test]
    fn every_wrong_entry_is_named() {
        let digits = "0".repeat(64);
        let entry = |name: &str, rest: &str| format!("  - {{ name: {name}, {rest} }}\n");
        let right = format!("sha256: '{digits}', role: view");
        let text = [
            "tokens:\n".to_owned(),
            entry("ann", &right),
            entry("ann", "sha256: abc, role: view"),
            entry("Bob", &right),
            entry("cid", &format!("sha256: '{digits}', role: owner")),
            entry("admin", &right),
            entry("dan", &right),
            entry("ann", &format!("sha256: '{}', role: view", "1".repeat(64))),
            entry("eve", &format!("sha256: '{}', role: view, projects: []", "2".repeat(64))),
            entry("fay", &format!("{right}, rolle: x")),
        ]
        .concat();
        let wrong = parse_tokens(&text).unwrap_err();
        let said = ["hexadecimal", "no token name", "owner", "own token", "this token", "this name", "names none", "rolle"];
        assert_eq!(wrong.len(), said.len(), "{wrong:#?}");
        for (at, (wrong, said)) in wrong.iter().zip(said).enumerate() {
            assert!(wrong.starts_with(&format!("token {} (", at + 2)) && wrong.contains(said), "{wrong}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_has_no_tokens() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.yml");
        assert_eq!(load_tokens(&path).unwrap(), []);
        fs::write(&path, "token: []").unwrap();
        let error = load_tokens(&path).unwrap_err().to_string();
        assert!(error.contains("tokens.yml: 1 wrong:"), "{error}");
    }
}
