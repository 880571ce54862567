//! Settings are read once, when a process starts, and every wrong one is reported in the same go, with the place where it stands.
//!
//! A value is the default of the code, else that of a file, else that of the process's environment: what is laid below ([`Settings::below`]) gives way.

use std::{collections::BTreeMap, fmt, path::PathBuf, str::FromStr, sync::Arc};

/// The exit code of a process whose settings are wrong (`EX_USAGE` of BSD's sysexits.h).
pub const EXIT_SETTINGS: u8 = 64;

/// Reads settings and remembers what is wrong with them.
#[derive(Debug)]
pub struct Settings {
    values: BTreeMap<String, Given>,
    wrong: Vec<Wrong>,
}

/// A value, and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// The value as it is written.
    pub text: String,
    /// Where.
    pub origin: Origin,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The environment's variable of the setting's name.
    Variable,
    /// A file.
    File {
        /// Which, and where in it.
        place: Place,
        /// What the setting is called there.
        key: String,
    },
}

/// A place in a file, as editors understand it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file.
    pub file: Arc<PathBuf>,
    /// The line from 1, and the column where that is known.
    pub line: Option<(u64, Option<u64>)>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        match self.line {
            None => Ok(()),
            Some((line, None)) => write!(f, ":{line}"),
            Some((line, Some(column))) => write!(f, ":{line}:{column}"),
        }
    }
}

/// Something that is wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// Whether it is only that something is not set.
    pub is_missing: bool,
    /// Where, and what.
    pub what: String,
}

/// Every setting that is missing or wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct WrongSettings(pub Vec<Wrong>);

impl fmt::Display for WrongSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} wrong setting(s):", self.0.len())?;
        self.0.iter().try_for_each(|wrong| write!(f, "\n  {}", wrong.what))
    }
}

impl Given {
    /// The value as it may be shown: without the user and the password of an address.
    pub fn shown(&self) -> String {
        without_credentials(&self.text)
    }

    /// `NAME=value` or `file:1:2: key=value`, for whoever is to find it.
    fn named(&self, name: &str) -> String {
        format!("{}={}", self.origin.named(name), self.shown())
    }
}

impl Origin {
    fn named(&self, name: &str) -> String {
        match self {
            Self::Variable => name.to_owned(),
            Self::File { place, key } => format!("{place}: {key}"),
        }
    }
}

/// A text without what stands between `://` and `@` of the addresses in it.
fn without_credentials(text: &str) -> String {
    let mut shown = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        shown.extend([before, "://"]);
        let end = after.find(|c: char| "/?#,".contains(c) || c.is_whitespace()).unwrap_or(after.len());
        let (authority, behind) = after.split_at(end);
        shown.push_str(&authority.rsplit_once('@').map_or_else(|| authority.to_owned(), |(_, host)| format!("***@{host}")));
        rest = behind;
    }
    shown + rest
}

impl Settings {
    /// The settings of this process.
    pub fn from_environment() -> Self {
        Self::new(std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))))
    }

    /// Settings that are given, for tests and for roles that share a process.
    pub fn new(values: impl IntoIterator<Item = (String, String)>) -> Self {
        let given = |(name, text)| (name, Given { text, origin: Origin::Variable });
        Self { values: values.into_iter().map(given).collect(), wrong: Vec::new() }
    }

    /// The same with these values below, and what is wrong with those: they hold where nothing is set.
    #[must_use]
    pub fn below(mut self, values: impl IntoIterator<Item = (String, Given)>, wrong: impl IntoIterator<Item = Wrong>) -> Self {
        for (name, given) in values {
            if self.given(&name).is_none() {
                self.values.insert(name, given);
            }
        }
        self.wrong.extend(wrong);
        self
    }

    /// The value of `name` with its origin; `None` if it is not set or empty.
    pub fn given(&self, name: &str) -> Option<&Given> {
        self.values.get(name).filter(|given| !given.text.is_empty())
    }

    /// The value of `name`, or `None` if it is not set or empty. A value that does not parse is reported by [`Settings::check`].
    pub fn optional<T: FromStr<Err: fmt::Display>>(&mut self, name: &str) -> Option<T> {
        let given = self.given(name)?;
        match given.text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                let what = format!("{}: {error}", given.named(name));
                self.refuse(what);
                None
            }
        }
    }

    /// The value of `name`, which must be set. What is missing is reported by [`Settings::check`], and `None` stands for it until then.
    pub fn required<T: FromStr<Err: fmt::Display>>(&mut self, name: &str) -> Option<T> {
        if self.given(name).is_none() {
            self.wrong.push(Wrong { is_missing: true, what: format!("{name} is not set") });
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
        self.file(name, &path)
    }

    /// The trimmed text of the file that `name` names, if it names one.
    pub fn optional_file(&mut self, name: &str) -> Option<String> {
        let path: PathBuf = self.optional(name)?;
        self.file(name, &path)
    }

    fn file(&mut self, name: &str, path: &PathBuf) -> Option<String> {
        match std::fs::read_to_string(path) {
            Ok(text) => Some(text.trim().to_owned()),
            Err(error) => {
                let named = self.given(name).map_or_else(|| name.to_owned(), |given| given.named(name));
                self.refuse(format!("{named}: {error}"));
                None
            }
        }
    }

    /// The text of `name` as it is written.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(|given| given.text.as_str())
    }

    /// Reports a value that reads well by itself and is wrong for another reason. The value is not shown: it may come from a secret's file.
    pub fn reject(&mut self, name: &str, why: &dyn fmt::Display) {
        let named = self.given(name).map_or_else(|| name.to_owned(), |given| given.origin.named(name));
        self.refuse(format!("{named}: {why}"));
    }

    fn refuse(&mut self, what: String) {
        self.wrong.push(Wrong { is_missing: false, what });
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

    #[test]
    fn what_is_below_gives_way_and_is_named_by_its_place() {
        let place = Place { file: Arc::new("otto.yml".into()), line: Some((3, Some(7))) };
        let below = |name: &str, text: &str| {
            let origin = Origin::File { place: place.clone(), key: format!("agent.{}", name.to_lowercase()) };
            (name.to_owned(), Given { text: text.to_owned(), origin })
        };
        let settings = Settings::new([("A".into(), "1".into()), ("B".into(), String::new())]);
        let mut settings = settings.below([below("A", "x"), below("B", "2"), below("C", "y"), below("D", "z")], []);
        assert_eq!((settings.required("A"), settings.required("B")), (Some(1), Some(2)));
        assert_eq!((settings.required::<u32>("C"), settings.required_file("D")), (None, None));
        settings.reject("D", &"not so");
        let WrongSettings(wrong) = settings.check().unwrap_err();
        let said: Vec<&str> = wrong.iter().map(|wrong| wrong.what.as_str()).collect();
        assert!(said[0].starts_with("otto.yml:3:7: agent.c=y: invalid digit"), "{said:?}");
        assert!(said[1].starts_with("otto.yml:3:7: agent.d=z: No such file"), "{said:?}");
        assert_eq!(said[2], "otto.yml:3:7: agent.d: not so");
    }

    #[test]
    fn an_address_is_shown_without_its_password() {
        for (text, shown) in [
            ("nats://ann:pw@a:4222,nats://b:1", "nats://***@a:4222,nats://b:1"),
            ("https://tok@en@h/p@q", "https://***@h/p@q"),
            ("plain@text", "plain@text"),
        ] {
            assert_eq!(without_credentials(text), shown);
        }
    }
}
