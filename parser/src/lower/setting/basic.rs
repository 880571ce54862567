//! Settings of one value: name, timeout, retry, effect, environment, credentials, lock.

use std::rc::Rc;

use model::{
    diagnostic::Span,
    plan::{ATTEMPTS_DEFAULT, Deployment, Effect, Retry, RetryReason},
};

use super::{Lowering, read::Keys};
use crate::{
    diagnostic::{Code, Finding, excerpt, quoted},
    limits::{RETRY_ATTEMPTS_MAX, STAGE_NAME_BYTES_MAX},
    suggest::did_you_mean,
    syntax::{Entry, Name, Spanned, Tail, Value, ValueKind},
};

const RETRY: Keys = Keys { within: "in `retry`", names: &["attempts", "backoff", "on"] };
/// What a stage can be started again after, in the words of the language.
const REASONS: [(&str, RetryReason); 2] = [("failed", RetryReason::Failed), ("lost", RetryReason::Lost)];

impl Lowering<'_, '_> {
    /// The name, if it can be one.
    pub(in crate::lower) fn stage_name(&mut self, name: Name) -> Option<Name> {
        let problem = if name.kind.trim().is_empty() {
            "the name of a stage is empty".to_owned()
        } else if name.kind.len() > STAGE_NAME_BYTES_MAX {
            format!("the name of a stage has {} bytes, over the limit of {STAGE_NAME_BYTES_MAX}", name.kind.len())
        } else if name.kind.chars().any(char::is_control) {
            "the name of a stage has a line break or another control character".to_owned()
        } else {
            return Some(name);
        };
        self.error(Finding::new(Code::StageName, name.span, problem).help("a name is a few words on one line"));
        None
    }

    /// `timeout = 10m`, in milliseconds.
    pub(super) fn timeout(&mut self, entry: &Entry) -> Option<u64> {
        let value = self.value_of(entry)?;
        self.duration_within(value, "a timeout", 1)
    }

    /// `retry = 3` or `retry { attempts = 3 backoff = 10s on = ['lost', 'failed'] }`.
    pub(super) fn retry(&mut self, entry: &Entry) -> Option<Spanned<Retry>> {
        let on = REASONS.iter().map(|(_, reason)| *reason).collect();
        let mut retry = Retry { attempts: ATTEMPTS_DEFAULT, backoff_ms: 0, on };
        let span = entry.name.span;
        let Some(block) = Self::block_of(entry) else {
            let value = self.value_of(entry)?;
            retry.attempts = self.attempts(value)?;
            return Some(Spanned { kind: retry, span });
        };
        let keys = self.keyed(&block.kind, &RETRY);
        if let Some(entry) = keys.get("attempts") {
            let value = self.value_of(entry)?;
            retry.attempts = self.attempts(value)?;
        }
        if let Some(entry) = keys.get("backoff") {
            let value = self.value_of(entry)?;
            retry.backoff_ms = self.duration_within(value, "`backoff`", 0)?;
        }
        if let Some(entry) = keys.get("on") {
            let value = self.value_of(entry)?;
            retry.on = self.reasons(value)?;
        }
        Some(Spanned { kind: retry, span })
    }

    fn attempts(&mut self, value: &Value) -> Option<u32> {
        self.number_within(value, "`attempts`", 1..=RETRY_ATTEMPTS_MAX).and_then(|attempts| u32::try_from(attempts).ok())
    }

    /// In one order, however they are written.
    fn reasons(&mut self, value: &Value) -> Option<Vec<RetryReason>> {
        let words = self.lines_of_text(value, "a reason to try again")?;
        let mut sound = !words.is_empty();
        if words.is_empty() {
            self.wrong_value::<()>(value, "a stage that is tried again needs a reason", "write `on = ['lost', 'failed']`");
        }
        for word in &words {
            if !REASONS.iter().any(|(known, _)| *known == word.kind) {
                sound = false;
                let message = format!("no stage is tried again because it is {}", quoted(&word.kind));
                let help = did_you_mean(&word.kind, REASONS.iter().map(|(known, _)| *known));
                self.error(Finding::new(Code::SettingValue, word.span, message).help(help));
            }
        }
        let wanted = REASONS.iter().filter(|(known, _)| words.iter().any(|word| word.kind == *known));
        sound.then(|| wanted.map(|(_, reason)| *reason).collect())
    }

    /// `effect = safe` or `effect = once`.
    pub(super) fn effect(&mut self, entry: &Entry) -> Option<Effect> {
        let value = self.value_of(entry)?;
        let word = if let ValueKind::Name(word) = &value.kind { word } else { "" };
        match word {
            "safe" => Some(Effect::Safe),
            "once" => Some(Effect::Once),
            _ => self.wrong_value(
                value,
                "an effect is `safe` or `once`, without quotes",
                "`safe`: starting the stage again does no harm; `once`: it never starts a second time without a person",
            ),
        }
    }

    /// `environment -> preprod`, `environment -> it.where`, or `environment = 'preprod'`.
    pub(super) fn deployment(&mut self, entry: &Entry) -> Option<Rc<Deployment>> {
        let (name, span): (String, Span) = if let Tail::Arrow(name) = &entry.tail {
            if name.kind == "it" || name.kind.contains('.') {
                let value = Value { kind: ValueKind::Name(name.kind.clone()), span: name.span };
                (self.line_of_text(&value, "the name of an environment")?, name.span)
            } else {
                (name.kind.clone(), name.span)
            }
        } else if let Tail::Assign(Value { kind: ValueKind::Name(name), span }) = &entry.tail
            && self.environments.contains_key(name)
        {
            let message = "the name of an environment stands after an arrow";
            let help = format!("write `environment -> {}`", excerpt(name));
            self.error(Finding::new(Code::Shape, *span, message).help(help));
            return None;
        } else {
            let value = self.value_of(entry)?;
            (self.line_of_text(value, "the name of an environment")?, value.span)
        };
        let Some(environment) = self.environments.get(&name) else {
            let near =
                if self.findings.is_full() { String::new() } else { did_you_mean(&name, self.environments.keys().map(String::as_str)) };
            let help = match near {
                near if near.is_empty() => format!("declare it at the top level: `environments {{ {} {{ }} }}`", excerpt(&name)),
                near => format!("{near}\nenvironments are declared at the top level, in `environments {{ … }}`"),
            };
            let message = format!("there is no environment {}", quoted(&name));
            self.error(Finding::new(Code::UnknownEnvironment, span, message).help(help));
            return None;
        };
        Some(Rc::clone(&environment.deployment))
    }

    /// `credentials = ['deploy-key']`: each declared at the top level.
    pub(super) fn stage_credentials(&mut self, entry: &Entry) -> Option<Vec<Name>> {
        if Self::block_of(entry).is_some() {
            let finding = Finding::new(Code::Shape, entry.name.span, "credentials are declared at the top level of the file");
            self.error(finding.help("a stage names those that its steps may use: `credentials = ['deploy-key']`"));
            return None;
        }
        let value = self.value_of(entry)?;
        self.credential_names(value)
    }

    /// `lock = 'name'`.
    pub(super) fn lock_setting(&mut self, entry: &Entry) -> Option<String> {
        let value = self.value_of(entry)?;
        self.line_of_text(value, "the name of a lock")
    }
}
