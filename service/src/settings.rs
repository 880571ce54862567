//! Settings are read once, when a process starts, and every wrong one is reported in the same go.

use std::{collections::BTreeMap, fmt, path::PathBuf, str::FromStr};

/// The exit code of a process whose settings are wrong (`EX_USAGE` of BSD's sysexits.h).
pub const EXIT_SETTINGS: u8 = 64;

/// Reads settings from the environment and remembers what is wrong with them.
#[derive(Debug)]
pub struct Settings {
    values: BTreeMap<String, String>,
    wrong: Vec<String>,
}

/// Every setting that is missing or wrong.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub struct WrongSettings(Vec<String>);

impl fmt::Display for WrongSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} wrong setting(s):", self.0.len())?;
        self.0.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

impl Settings {
    /// The settings of this process.
    pub fn from_environment() -> Self {
        Self::new(std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))))
    }

    /// Settings that are given, for tests and for roles that share a process.
    pub fn new(values: impl IntoIterator<Item = (String, String)>) -> Self {
        Self { values: values.into_iter().collect(), wrong: Vec::new() }
    }

    /// The value of `name`, or `None` if it is not set or empty. A value that does not parse is reported by [`Settings::check`].
    pub fn optional<T: FromStr<Err: fmt::Display>>(&mut self, name: &str) -> Option<T> {
        let text = self.values.get(name).filter(|text| !text.is_empty())?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.wrong.push(format!("{name}={text}: {error}"));
                None
            }
        }
    }

    /// The value of `name`, which must be set. What is missing is reported by [`Settings::check`], and `None` stands for it until then.
    pub fn required<T: FromStr<Err: fmt::Display>>(&mut self, name: &str) -> Option<T> {
        if self.values.get(name).is_none_or(String::is_empty) {
            self.wrong.push(format!("{name} is not set"));
            return None;
        }
        self.optional(name)
    }

    /// The value of `name`, else `default`.
    pub fn or<T: FromStr<Err: fmt::Display>>(&mut self, name: &str, default: T) -> T {
        self.optional(name).unwrap_or(default)
    }

    /// The trimmed text of the file that `name` names.
    pub fn required_file(&mut self, name: &str) -> Option<String> {
        let path: PathBuf = self.required(name)?;
        match std::fs::read_to_string(&path) {
            Ok(text) => Some(text.trim().to_owned()),
            Err(error) => {
                self.wrong.push(format!("{name}={}: {error}", path.display()));
                None
            }
        }
    }

    /// The text of `name` as it stands in the environment.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// Reports a value that reads well by itself and is wrong for another reason. The value is not shown: it may come from a secret's file.
    pub fn reject(&mut self, name: &str, why: &dyn fmt::Display) {
        self.wrong.push(format!("{name}: {why}"));
    }

    /// Everything that was wrong so far. Call it when all settings are read; afterwards every `required` value is there.
    pub fn check(self) -> Result<(), WrongSettings> {
        if self.wrong.is_empty() { Ok(()) } else { Err(WrongSettings(self.wrong)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wrong_setting_is_reported_at_once() {
        let mut settings = Settings::new([("A".into(), "x".into()), ("B".into(), "2".into()), ("D".into(), String::new())]);
        assert_eq!(settings.required::<u32>("A"), None);
        assert_eq!(settings.required::<u32>("B"), Some(2));
        assert_eq!(settings.required::<u32>("C"), None);
        assert_eq!(settings.or("D", 4), 4);
        let error = settings.check().unwrap_err().to_string();
        assert!(error.contains("A=x: invalid digit") && error.contains("C is not set") && !error.contains('B'), "{error}");
    }
}
