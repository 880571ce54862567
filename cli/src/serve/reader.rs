//! Reads the settings of a role, and remembers what each was and where it came from.

use std::{fmt, str::FromStr};

use service::settings::{Given, Origin, Settings, Wrong, WrongSettings};

/// A reader of settings. What it shows is what was given: of a secret, the file that holds it.
#[derive(Debug)]
pub(crate) struct Reader {
    settings: Settings,
    effective: Vec<Effective>,
}

/// A setting as a role has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Effective {
    /// Its variable.
    pub(crate) name: &'static str,
    /// Its value as it may be shown; empty where there is none.
    pub(crate) value: String,
    /// Where that comes from; `None` of a default, and of what is not set.
    pub(crate) origin: Option<Origin>,
}

impl Reader {
    pub(super) fn new(settings: Settings) -> Self {
        Self { settings, effective: Vec::new() }
    }

    /// See [`Settings::required`].
    pub(super) fn required<T: FromStr<Err: fmt::Display>>(&mut self, name: &'static str) -> Option<T> {
        self.note(name, None);
        self.settings.required(name)
    }

    /// See [`Settings::optional`].
    pub(super) fn optional<T: FromStr<Err: fmt::Display>>(&mut self, name: &'static str) -> Option<T> {
        self.note(name, None);
        self.settings.optional(name)
    }

    /// See [`Settings::or`].
    pub(super) fn or<T: FromStr<Err: fmt::Display> + fmt::Display>(&mut self, name: &'static str, default: T) -> T {
        self.note(name, Some(&default));
        self.settings.or(name, default)
    }

    /// See [`Settings::required_file`].
    pub(super) fn required_file(&mut self, name: &'static str) -> Option<String> {
        self.note(name, None);
        self.settings.required_file(name)
    }

    /// See [`Settings::optional_file`].
    pub(super) fn optional_file(&mut self, name: &'static str) -> Option<String> {
        self.note(name, None);
        self.settings.optional_file(name)
    }

    /// See [`Settings::text`]; for a setting that is read otherwise, too.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.settings.text(name)
    }

    /// The value of a variable that is another program's, and none of Otto's settings.
    pub(super) fn quietly<T: FromStr<Err: fmt::Display>>(&mut self, name: &str) -> Option<T> {
        self.settings.optional(name)
    }

    /// What `read` makes of a setting; an error is one of the setting.
    pub(super) fn required_with<T, E: fmt::Display>(
        &mut self,
        name: &'static str,
        text: Option<String>,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        match read(&text?) {
            Ok(value) => Some(value),
            Err(error) => {
                self.settings.reject(name, &error);
                None
            }
        }
    }

    /// Everything that was wrong; else the settings, in the order in which they were read.
    pub(super) fn finish(self) -> Result<Vec<Effective>, WrongSettings> {
        self.settings.check()?;
        Ok(self.effective)
    }

    /// The settings, and everything that is wrong with them.
    pub(super) fn into_parts(self) -> (Vec<Effective>, Vec<Wrong>) {
        let wrong = self.settings.check().err().map_or_else(Vec::new, |WrongSettings(wrong)| wrong);
        (self.effective, wrong)
    }

    fn note(&mut self, name: &'static str, default: Option<&dyn fmt::Display>) {
        if self.effective.iter().any(|effective| effective.name == name) {
            return;
        }
        let given = self.settings.given(name);
        let value = given.map(Given::shown).or_else(|| default.map(ToString::to_string)).unwrap_or_default();
        self.effective.push(Effective { name, value, origin: given.map(|given| given.origin.clone()) });
    }
}
