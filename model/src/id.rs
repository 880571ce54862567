//! Ids. On the wire each has a prefix that says what it names; none is random: each is derived from what it names, so that
//! the same cause, however often it is told, has the same id.

use std::{fmt, str::FromStr};

use data_encoding::BASE32_DNSSEC;
use serde::{Deserialize, Serialize};

use crate::Digest;

/// Characters of an id after its prefix: 24 of base32hex (RFC 4648, lower case), 120 bits of a SHA-256.
const ID_CHARACTERS: usize = 24;

/// Why a text is no id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no {what}: expected `{prefix}` and {ID_CHARACTERS} characters of 0-9 and a-v")]
pub struct InvalidId {
    what: &'static str,
    prefix: &'static str,
    text: String,
}

/// The characters of an id that is made from `parts`. Each part is preceded by its length, so that no two lists of parts
/// are read alike.
fn derive(parts: &[&[u8]]) -> String {
    let mut builder = Digest::builder();
    for part in parts {
        builder.update(&(part.len() as u64).to_be_bytes());
        builder.update(part);
    }
    let mut text = BASE32_DNSSEC.encode(builder.finish().bytes());
    text.truncate(ID_CHARACTERS);
    text
}

macro_rules! id {
    ($(#[$doc:meta])* $type:ident, $what:literal, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(extend("pattern" = format!("^{}[0-9a-v]{{{ID_CHARACTERS}}}$", $prefix))))]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// What stands before the characters.
            pub const PREFIX: &'static str = $prefix;

            /// The id as text, with its prefix.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            fn from_parts(parts: &[&[u8]]) -> Self {
                Self(format!("{}{}", $prefix, derive(parts)))
            }
        }

        impl FromStr for $type {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::try_from(text.to_owned())
            }
        }

        impl TryFrom<String> for $type {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                let valid = text.strip_prefix($prefix).is_some_and(|rest| {
                    rest.len() == ID_CHARACTERS && rest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'v'))
                });
                if valid { Ok(Self(text)) } else { Err(InvalidId { what: $what, prefix: $prefix, text }) }
            }
        }

        impl From<$type> for String {
            fn from(id: $type) -> Self {
                id.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id!(
    /// What made a run start: one delivery of a forge, one call of the API.
    TriggerId,
    "trigger id",
    "trg_"
);
id!(
    /// One run of a pipeline.
    RunId,
    "run id",
    "run_"
);
id!(
    /// One stage of a plan: made from its path in the source, so the same in every run until it is renamed or moved.
    StageId,
    "stage id",
    "stg_"
);
id!(
    /// One auction of one attempt.
    AuctionId,
    "auction id",
    "auc_"
);

impl TriggerId {
    /// The trigger that `source` (a forge's name, `api`, …) knows as `delivery`.
    pub fn of(source: &str, delivery: &str) -> Self {
        Self::from_parts(&[source.as_bytes(), delivery.as_bytes()])
    }
}

impl RunId {
    /// The run of a trigger: the same trigger, told twice, is one run.
    pub fn of(trigger: &TriggerId) -> Self {
        Self::from_parts(&[trigger.as_str().as_bytes()])
    }
}

impl StageId {
    /// The stage at `path`, as [`crate::plan::Stage::path`] has it.
    pub fn of(path: &str) -> Self {
        Self::from_parts(&[path.as_bytes()])
    }
}

/// One try of one stage of one run. Attempts are counted from 1.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AttemptId {
    /// The run.
    pub run: RunId,
    /// The stage of the run's plan.
    pub stage: StageId,
    /// Which try, from 1.
    pub attempt: u32,
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.run, self.stage, self.attempt)
    }
}

impl AuctionId {
    /// The auction of `attempt`; `round` counts its repetitions.
    pub fn of(attempt: &AttemptId, round: u32) -> Self {
        Self::from_parts(&[attempt.to_string().as_bytes(), &round.to_be_bytes()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_delivery_is_the_same_run() {
        let first = RunId::of(&TriggerId::of("git", "d1"));
        assert_eq!(first, RunId::of(&TriggerId::of("git", "d1")));
        assert_ne!(first, RunId::of(&TriggerId::of("git", "d2")));
        assert_ne!(TriggerId::of("gi", "td1"), TriggerId::of("git", "d1"));
    }

    #[test]
    fn an_id_reads_back_and_others_are_refused() {
        let stage = StageId::of("Build");
        assert_eq!(stage.as_str().parse(), Ok(stage.clone()));
        assert!(stage.as_str().parse::<RunId>().is_err());
        for text in ["", "run_", "run_../../etc/passwd000000", "run_zzzzzzzzzzzzzzzzzzzzzzzz"] {
            assert!(text.parse::<RunId>().is_err(), "{text}");
        }
    }
}
