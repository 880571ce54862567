//! What a hook tells the forge of one push, and what the forge answers.

use std::{fmt, str::FromStr};

use model::{ProjectName, RunId};
use serde::{Deserialize, Serialize};

/// The most updates of one delivery: a push of more refs becomes several.
pub const UPDATES_MAX: usize = 100;
/// The most bytes of a delivery.
pub const DELIVERY_BYTES_MAX: usize = 1024 * 1024;
/// The most bytes of a ref's name. Longer ones are passed over: they would not fit into the views of a run.
pub const REF_BYTES_MAX: usize = 1024;
/// The most characters of a delivery's id.
const ID_CHARACTERS_MAX: usize = 64;

/// One push to one repository, or a part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delivery {
    /// The path of the bare repository, without symbolic links.
    pub repository: String,
    /// Its id: the same delivery, told again, is the same runs.
    pub delivery: DeliveryId,
    /// The refs that changed, at most [`UPDATES_MAX`].
    pub updates: Vec<Update>,
}

/// One ref that was pushed to, as `githooks(5)` has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Update {
    /// The object that it named before; zeros if it is new.
    pub old: String,
    /// The object that it names now; zeros if it was deleted.
    pub new: String,
    /// Its full name, such as `refs/heads/main`.
    #[serde(rename = "ref")]
    pub name: String,
}

/// The id of a delivery: 1 to 64 of a-z, 0-9 and `-`, so that it is a file's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeliveryId(String);

/// Why a text is no [`DeliveryId`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no delivery id: use 1 to {ID_CHARACTERS_MAX} of a-z, 0-9 and `-`")]
pub struct InvalidDeliveryId(String);

/// What became of a delivery.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The runs that it starts; their triggers are stored.
    pub runs: Vec<StartedRun>,
    /// What starts none, and never will.
    pub ignored: Vec<Ignored>,
}

/// A run that a delivery starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartedRun {
    /// The run.
    pub run: RunId,
    /// Of which project.
    pub project: ProjectName,
    /// Of which branch or tag, or of which pull request (`#7`).
    pub name: String,
}

/// What starts no run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ignored {
    /// The ref's full name, or what else has happened, shortened if it is over [`REF_BYTES_MAX`].
    #[serde(rename = "ref")]
    pub name: String,
    /// Why, for the pusher.
    pub reason: String,
}

impl Ignored {
    pub(crate) fn new(name: impl Into<String>, reason: impl Into<String>) -> Self {
        let mut name = name.into();
        name.truncate(name.floor_char_boundary(REF_BYTES_MAX));
        Self { name, reason: reason.into() }
    }
}

impl DeliveryId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for DeliveryId {
    type Error = InvalidDeliveryId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let valid = text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        if valid && (1..=ID_CHARACTERS_MAX).contains(&text.len()) { Ok(Self(text)) } else { Err(InvalidDeliveryId(text)) }
    }
}

impl FromStr for DeliveryId {
    type Err = InvalidDeliveryId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::try_from(text.to_owned())
    }
}

impl From<DeliveryId> for String {
    fn from(id: DeliveryId) -> Self {
        id.0
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_id_is_a_safe_file_name() {
        assert!("0af-1".parse::<DeliveryId>().is_ok());
        let long = "a".repeat(ID_CHARACTERS_MAX + 1);
        for text in ["", ".", "..", "a/b", "A", "ü", &long] {
            assert!(text.parse::<DeliveryId>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_delivery_reads_as_documented() {
        let text = r#"{"repository":"/srv/a.git","delivery":"d1","updates":[{"old":"0","new":"1","ref":"refs/heads/main"}]}"#;
        let delivery: Delivery = serde_json::from_str(text).unwrap();
        assert_eq!(delivery.updates[0].name, "refs/heads/main");
        assert_eq!(serde_json::to_string(&delivery).unwrap(), text);
    }
}
