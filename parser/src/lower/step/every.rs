//! What every step takes, unless its manifest has a parameter of that name: `timeout:`, `retry:` and `into:`.

use model::{diagnostic::Span, manifest::StepManifest};

use super::Lowering;
use crate::{
    diagnostic::{Code, Finding, quoted},
    limits::STEP_ATTEMPTS_MAX,
    lower::mention::Mentioned,
    syntax::{Name, Value, ValueKind},
};

const TIMEOUT: &str = "timeout";
const RETRY: &str = "retry";
const INTO: &str = "into";

/// The arguments that every step takes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Every {
    pub(super) timeout_ms: Option<u64>,
    pub(super) attempts: Option<u32>,
    pub(super) into: Option<String>,
}

/// Whether a keyword is one that every step takes, and no parameter of this one.
pub(super) fn is_for_every_step(keyword: &str, manifest: &StepManifest) -> bool {
    [TIMEOUT, RETRY, INTO].contains(&keyword) && manifest.parameters.iter().all(|parameter| parameter.name != keyword)
}

/// Whether a captured variable can have this name: `VAR_` is put before it.
pub(in crate::lower) fn is_variable_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.chars().all(|character| character.is_ascii_alphanumeric() || character == '_')
}

impl Lowering<'_, '_> {
    /// `None` if one of them is wrong, which is told.
    pub(super) fn every(&mut self, arguments: &[(&Name, &Value)]) -> Option<Every> {
        let mut every = Every::default();
        let mut sound = true;
        for (keyword, value) in arguments {
            sound &= match keyword.kind.as_str() {
                TIMEOUT => self.step_timeout(value).map(|ms| every.timeout_ms = Some(ms)),
                RETRY => self.step_attempts(value).map(|attempts| every.attempts = (attempts > 1).then_some(attempts)),
                _ => self.captured(value).map(|name| every.into = Some(name)),
            }
            .is_some();
        }
        sound.then_some(every)
    }

    fn step_timeout(&mut self, value: &Value) -> Option<u64> {
        if let ValueKind::Integer(number @ 1..) = value.kind {
            let help = format!("write `timeout: {number}s`, `{number}m` or `{number}h`");
            return self.wrong_argument(value, "a timeout needs a unit", &help);
        }
        match self.duration(value, "the `timeout` of a step")? {
            0 => self.wrong_argument(value, "the `timeout` of a step is longer than nothing", "write `timeout: 10m`"),
            ms => Some(ms),
        }
    }

    fn step_attempts(&mut self, value: &Value) -> Option<u32> {
        let attempts = u32::try_from(self.number(value, "the `retry` of a step")?).ok();
        attempts.filter(|attempts| (1..=STEP_ATTEMPTS_MAX).contains(attempts)).or_else(|| {
            let message = format!("`retry` says how often a step is tried at most: a number from 1 to {STEP_ATTEMPTS_MAX}");
            self.wrong_argument(value, &message, "write `retry: 3`")
        })
    }

    /// `into: 'x'`: the name of the variable that captures the output.
    fn captured(&mut self, value: &Value) -> Option<String> {
        let known = self.known(value)?;
        let name = known.value.as_text().filter(|_| known.outside.is_none());
        let Some(name) = name else {
            return self.wrong_argument(value, "`into` names a variable: a text in quotes", "write `into: 'version'`");
        };
        if !is_variable_name(name) {
            return self.no_variable_name(name, value.span);
        }
        self.mention(Mentioned::VariableMade, name, value.span);
        Some(name.to_owned())
    }

    pub(super) fn no_variable_name<T>(&mut self, name: &str, span: Span) -> Option<T> {
        let message = format!("{} cannot be the name of a variable", quoted(name));
        let help = "use letters, digits and `_`, and no digit first: later steps find it in `VAR_…`";
        self.error(Finding::new(Code::CaptureName, span, message).help(help));
        None
    }

    fn wrong_argument<T>(&mut self, value: &Value, message: &str, help: &str) -> Option<T> {
        if value.kind != ValueKind::Wrong {
            self.error(Finding::new(Code::ArgumentType, value.span, message).help(help));
        }
        None
    }
}
