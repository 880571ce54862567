//! Settings of stages, groups and the pipeline.

mod basic;
mod cache;
mod check;
mod copy;
pub(super) mod gate;
mod inherited;
mod read;
pub(super) mod runtime;
mod service;
mod variable;
mod wait;

use std::{collections::BTreeMap, rc::Rc};

use model::{
    diagnostic::Span,
    plan::{self, CacheDefinition, Container, Deployment, Effect, Notify, Requirements, Retry, Service, Skip, Wait},
};

pub(super) use self::{check::CredentialPlaces, copy::Stages, inherited::Inherited, read::Keys};
use super::Lowering;
use crate::{
    diagnostic::FileId,
    syntax::{Entry, Item, Name, Spanned},
};

/// What is written at one stage, group or pipeline; what is not, is inherited.
#[derive(Debug, Default)]
pub(super) struct Settings {
    /// The file that the spans stand in.
    pub(super) file: FileId,
    pub(super) environment: BTreeMap<String, plan::Value>,
    pub(super) timeout_ms: Option<u64>,
    pub(super) retry: Option<Spanned<Retry>>,
    pub(super) effect: Option<Effect>,
    pub(super) deployment: Option<Rc<Deployment>>,
    pub(super) credentials: Option<Vec<Name>>,
    pub(super) lock: Option<String>,
    pub(super) allow_failure: Option<bool>,
    /// `checkout = false`.
    pub(super) bare: Option<bool>,
    pub(super) runtime: Option<Runtime>,
    pub(super) services: Option<Vec<Service>>,
    pub(super) cache: Option<Cache>,
    /// Of `gates` and `when`.
    pub(super) gates: Gates,
    pub(super) notify: Option<Notify>,
    /// Blocks that are copied from other stages.
    pub(super) from: Vec<From>,
}

/// `runtime { … }`.
#[derive(Debug, Clone, Default)]
pub(super) struct Runtime {
    pub(super) requires: Requirements,
    pub(super) container: Option<Container>,
}

/// `cache { … }`.
#[derive(Debug, Clone, Default)]
pub(super) struct Cache {
    pub(super) defined: BTreeMap<String, CacheDefinition>,
    pub(super) used: Vec<Name>,
}

/// `gates { … }` and `when { … }`. What it says of a leaf stage's waits, [`Inherited::apply`] puts into the stage; those of a group are
/// stages of their own.
#[derive(Debug, Clone, Default)]
pub(super) struct Gates {
    /// A condition is false: the stage is skipped.
    pub(super) skip: Option<Skip>,
    /// A condition that asks for nothing but `it` is false: the combination is left out of the plan.
    pub(super) left_out: Option<Skip>,
    /// Decided in the run.
    pub(super) conditions: Vec<plan::Condition>,
    pub(super) enter: Vec<Wait>,
    pub(super) exit: Vec<Wait>,
    /// The conditions as they are written.
    written: BTreeMap<gate::ConditionPlace, Vec<Item>>,
}

impl Gates {
    /// Drops what was needed only to read them.
    pub(super) fn read(&mut self) {
        self.written.clear();
    }
}

/// A block that is copied: `runtime { from 'Build' }`.
#[derive(Debug, Clone)]
pub(super) struct From {
    /// `runtime`, `cache`, `gates`, `when` or `env`.
    pub(super) block: &'static str,
    /// The path of the stage as the file has it, without what `each` or a blueprint's place adds; the span is that of the text after `from`.
    pub(super) stage: Name,
    /// Where that stage stands in the same file: the span of its word `stage`.
    pub(super) declared: Span,
}

impl Lowering<'_, '_> {
    /// A setting of a stage, a group or the pipeline; whether it may stand there and stands there once is checked already.
    pub(super) fn setting(&mut self, word: &'static str, entry: &Entry, settings: &mut Settings) {
        settings.file = self.source.id;
        match word {
            "timeout" => settings.timeout_ms = self.timeout(entry),
            "retry" => settings.retry = self.retry(entry),
            "effect" => settings.effect = self.effect(entry),
            "environment" => settings.deployment = self.deployment(entry),
            "env" => settings.environment = self.environment(entry, &mut settings.from),
            "credentials" => settings.credentials = self.stage_credentials(entry),
            "lock" => settings.lock = self.lock_setting(entry),
            "allow_failure" => settings.allow_failure = self.flag(entry),
            "checkout" => settings.bare = self.flag(entry).map(|checkout| !checkout),
            "runtime" => settings.runtime = self.runtime(entry, &mut settings.from),
            "services" => settings.services = self.services(entry),
            "cache" => settings.cache = self.cache(entry, &mut settings.from),
            "gates" => self.gates(entry, settings),
            "when" => self.when(entry, settings),
            _ => unreachable!("`{word}` is among the words of stages and no setting"),
        }
    }
}
