//! A step's arguments, as its manifest has checked them.

use std::collections::BTreeMap;

use serde_json::Value as Json;

/// Why an argument does not do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ArgumentError {
    /// It is not there.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// It is of another type.
    #[error("`{name}` is no {what}")]
    Type {
        /// The parameter.
        name: &'static str,
        /// What it should be.
        what: &'static str,
    },
    /// It says what cannot be.
    #[error("`{name}`: `{text}` {what}")]
    Value {
        /// The parameter.
        name: &'static str,
        /// What it says.
        text: String,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// The arguments, by keyword.
#[derive(Debug)]
pub(super) struct Arguments(pub(super) BTreeMap<String, Json>);

impl Arguments {
    /// A text that must be there.
    pub(super) fn text(&self, name: &'static str) -> Result<&str, ArgumentError> {
        self.optional_text(name)?.ok_or(ArgumentError::Missing(name))
    }

    /// A text, if it is there.
    pub(super) fn optional_text(&self, name: &'static str) -> Result<Option<&str>, ArgumentError> {
        self.0.get(name).map(|value| value.as_str().ok_or(ArgumentError::Type { name, what: "text" })).transpose()
    }

    /// `false` if it is not there.
    pub(super) fn truth(&self, name: &'static str) -> Result<bool, ArgumentError> {
        self.0.get(name).map_or(Ok(false), |value| value.as_bool().ok_or(ArgumentError::Type { name, what: "truth value" }))
    }

    /// A whole number above zero, if it is there.
    pub(super) fn count(&self, name: &'static str) -> Result<Option<u64>, ArgumentError> {
        let wrong = ArgumentError::Type { name, what: "whole number above 0" };
        self.0.get(name).map(|value| value.as_u64().filter(|count| *count > 0).ok_or(wrong)).transpose()
    }

    /// A list's items as texts; empty if it is not there.
    pub(super) fn texts(&self, name: &'static str) -> Result<Vec<String>, ArgumentError> {
        let Some(value) = self.0.get(name) else { return Ok(Vec::new()) };
        let wrong = || ArgumentError::Type { name, what: "list" };
        let shown = |item: &Json| match item {
            Json::String(text) => Ok(text.clone()),
            Json::Number(number) => Ok(number.to_string()),
            Json::Bool(truth) => Ok(truth.to_string()),
            Json::Null | Json::Array(_) | Json::Object(_) => Err(wrong()),
        };
        value.as_array().ok_or_else(wrong)?.iter().map(shown).collect()
    }
}

/// A path below the folder that the step runs in, without `.` and what is doubled.
pub(super) fn path_below(name: &'static str, text: &str) -> Result<String, ArgumentError> {
    let wrong = |what| ArgumentError::Value { name, text: text.to_owned(), what };
    if text.starts_with('/') {
        return Err(wrong("is an absolute path: name one below the folder of the step"));
    }
    let mut parts = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => return Err(wrong("leads upwards: name a path below the folder of the step")),
            part if part.contains('\0') => return Err(wrong("has a zero byte")),
            part => parts.push(part),
        }
    }
    Ok(if parts.is_empty() { ".".to_owned() } else { parts.join("/") })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Arguments from JSON.
    pub(in super::super) fn arguments(json: &Json) -> Arguments {
        Arguments(serde_json::from_value(json.clone()).unwrap())
    }

    #[test]
    fn arguments_have_their_types() {
        let arguments = arguments(&serde_json::json!({"a": "x", "n": 3, "t": true, "l": ["x", 200, true], "z": 0}));
        assert_eq!((arguments.text("a"), arguments.optional_text("b")), (Ok("x"), Ok(None)));
        assert_eq!((arguments.count("n"), arguments.truth("t"), arguments.truth("b")), (Ok(Some(3)), Ok(true), Ok(false)));
        assert_eq!(arguments.texts("l").unwrap(), ["x", "200", "true"]);
        assert_eq!(arguments.text("b").unwrap_err().to_string(), "`b` is missing");
        assert_eq!(arguments.text("n").unwrap_err().to_string(), "`n` is no text");
        assert!(arguments.count("z").is_err() && arguments.truth("a").is_err() && arguments.texts("a").is_err());
    }

    #[test]
    fn a_path_stays_below() {
        assert_eq!(path_below("p", "a/./b//c/").unwrap(), "a/b/c");
        assert_eq!(path_below("p", ".").unwrap(), ".");
        for path in ["/a", "..", "a/../b", "a\0"] {
            assert!(path_below("p", path).is_err(), "{path}");
        }
    }
}
