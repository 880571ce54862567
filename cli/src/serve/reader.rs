//! Reads the settings of a role, and remembers them for `--dump-config`.

use std::{fmt, str::FromStr};

use service::settings::{Settings, WrongSettings};

/// A reader of settings. What it shows is what stands in the environment: of a secret, the file that holds it.
#[derive(Debug)]
pub(super) struct Reader {
    settings: Settings,
    effective: Vec<(&'static str, String)>,
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

    /// See [`Settings::text`]; for a setting that is read otherwise, too.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.settings.text(name)
    }

    /// What `read` makes of a required setting; an error is one of the setting.
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

    /// Everything that was wrong; else the settings as `NAME=value`, in the order in which they were read.
    pub(super) fn finish(self) -> Result<Vec<(&'static str, String)>, WrongSettings> {
        self.settings.check()?;
        Ok(self.effective)
    }

    fn note(&mut self, name: &'static str, default: Option<&dyn fmt::Display>) {
        let value = self.settings.text(name).map(str::to_owned).or_else(|| default.map(ToString::to_string));
        self.effective.push((name, value.unwrap_or_default()));
    }
}
