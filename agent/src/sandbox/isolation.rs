//! How far the processes of an attempt are kept apart from the rest of the machine.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// How far, from the least to the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Nothing of it outlives it: a process above it adopts and ends whatever it leaves.
    Group,
    /// And it writes only below its own folders and the tools' homes.
    Landlock,
    /// And it has processes, mounts and files of its own: it sees no other attempt, and writes nothing but what is its own.
    Namespaces,
}

impl Level {
    /// All, from the least to the most.
    pub const ALL: [Self; 3] = [Self::Group, Self::Landlock, Self::Namespaces];

    /// What a stage says to demand it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Group => "group",
            Self::Landlock => "landlock",
            Self::Namespaces => "namespaces",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// How an operator wants stages isolated that demand nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Isolation {
    /// As far as the machine can.
    #[default]
    Auto,
    /// As far as this; an agent whose machine cannot does not start.
    Level(Level),
}

/// Why a text names no isolation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is none of auto, namespaces, landlock, group")]
pub struct UnknownIsolation(String);

impl FromStr for Isolation {
    type Err = UnknownIsolation;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let level = Level::ALL.into_iter().find(|level| level.name() == text);
        level.map(Self::Level).ok_or_else(|| UnknownIsolation(text.to_owned()))
    }
}

impl fmt::Display for Isolation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => formatter.write_str("auto"),
            Self::Level(level) => level.fmt(formatter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_isolation_is_read_as_it_is_shown() {
        let all = Level::ALL.into_iter().map(Isolation::Level).chain([Isolation::Auto]);
        for isolation in all {
            assert_eq!(isolation.to_string().parse(), Ok(isolation));
        }
        let unknown = "jail".parse::<Isolation>().unwrap_err();
        assert_eq!(unknown.to_string(), "`jail` is none of auto, namespaces, landlock, group");
    }
}
