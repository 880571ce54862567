//! Names that people choose. Each is checked once, when it is read, and fits into a bus subject, a file name and a URL.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The most bytes that a name has.
pub const NAME_BYTES_MAX: usize = 64;

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no {what} name: use 1 to {NAME_BYTES_MAX} of a-z, 0-9, `-` and `_`, beginning with a letter or digit")]
pub struct InvalidName {
    what: &'static str,
    text: String,
}

fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.len() <= NAME_BYTES_MAX
        && text.bytes().next().is_some_and(plain)
        && text.bytes().all(|byte| plain(byte) || byte == b'-' || byte == b'_')
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(extend("pattern" = "^[a-z0-9][a-z0-9_-]*$", "maxLength" = NAME_BYTES_MAX)))]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::try_from(text.to_owned())
            }
        }

        impl TryFrom<String> for $type {
            type Error = InvalidName;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                if is_name(&text) { Ok(Self(text)) } else { Err(InvalidName { what: $what, text }) }
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> Self {
                name.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// The name of a project: a repository that Otto delivers.
    ProjectName,
    "project"
);
name!(
    /// The name of an API token: who it was made for.
    TokenName,
    "token"
);
name!(
    /// The name of an agent, unique among the agents of a bus; its subjects carry it.
    AgentName,
    "agent"
);
name!(
    /// A class of agents: a stage is offered to the agents of one class.
    AgentClass,
    "class"
);

impl AgentClass {
    /// The class of every agent of which nothing else is said.
    pub const DEFAULT: &str = "default";
}

impl Default for AgentClass {
    fn default() -> Self {
        Self(Self::DEFAULT.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_safe_token() {
        for text in ["a", "laptop-1", "0ps_team", &"x".repeat(NAME_BYTES_MAX)] {
            assert!(text.parse::<AgentName>().is_ok(), "{text}");
        }
        for text in ["", "-a", "a.b", "a b", "A", "a/..", "*", ">", "ü", &"x".repeat(NAME_BYTES_MAX + 1)] {
            assert!(text.parse::<AgentName>().is_err(), "{text}");
        }
    }

    #[test]
    fn reading_a_name_validates_it() {
        assert!(serde_json::from_str::<ProjectName>("\"web\"").is_ok());
        let error = serde_json::from_str::<ProjectName>("\"a.b\"").unwrap_err();
        assert!(error.to_string().contains("no project name"), "{error}");
    }
}
