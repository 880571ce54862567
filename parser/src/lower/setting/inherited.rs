//! What a group gives to what stands in it: variables of the environment add up by name and conditions add up; of everything else the
//! innermost wins. Waits of a group's gates are not inherited: they happen once, so they are stages of their own.

use model::plan::{Effect, Service, Stage, Value};

use super::{Cache, From, Runtime, Settings};
use crate::{diagnostic::FileId, limits::json_bytes, syntax::Name};

/// The settings of a stage with those of the groups around it, and of the pipeline.
#[derive(Debug, Clone, Copy)]
pub(in crate::lower) struct Inherited<'a> {
    outer: Option<&'a Inherited<'a>>,
    settings: &'a Settings,
    bytes: usize,
}

impl<'a> Inherited<'a> {
    /// The pipeline's own.
    pub(in crate::lower) fn pipeline(settings: &'a Settings) -> Self {
        Self { outer: None, settings, bytes: settings.bytes() }
    }

    /// Those of a stage or group in this one.
    pub(in crate::lower) fn inside(&'a self, settings: &'a Settings) -> Inherited<'a> {
        Inherited { outer: Some(self), settings, bytes: self.bytes + settings.bytes() }
    }

    /// Bytes that these settings take in the plan at most, for each stage that has them.
    pub(in crate::lower) fn bytes(&self) -> usize {
        self.bytes
    }

    /// From the innermost to the pipeline.
    pub(super) fn chain(&self) -> impl Iterator<Item = &'a Settings> + use<'a> {
        let mut next = Some(*self);
        std::iter::from_fn(move || {
            let current = next?;
            next = current.outer.copied();
            Some(current.settings)
        })
    }

    /// What the innermost says that says something.
    fn nearest<T>(&self, pick: impl Fn(&'a Settings) -> Option<T>) -> Option<T> {
        self.chain().find_map(pick)
    }

    /// A stage that delivers to an environment is `once` unless it says otherwise, or something does between it and where the environment
    /// is named.
    pub(in crate::lower) fn effect(&self) -> Effect {
        self.nearest(|settings| settings.effect.or_else(|| settings.deployment.as_ref().map(|_| Effect::Once))).unwrap_or_default()
    }

    /// The environment that the stage delivers to.
    pub(in crate::lower) fn environment(&self) -> Option<&'a str> {
        self.nearest(|settings| settings.deployment.as_ref()).map(|deployment| deployment.environment.as_str())
    }

    /// The credentials that the stage's steps may name, with the file in which they are listed.
    pub(in crate::lower) fn credentials(&self) -> Option<(FileId, &'a [Name])> {
        self.nearest(|settings| settings.credentials.as_deref().map(|names| (settings.file, names)))
    }

    /// The caches that the stage makes and uses, with the file in which they are named.
    pub(in crate::lower) fn cache(&self) -> Option<(FileId, &'a Cache)> {
        self.nearest(|settings| settings.cache.as_ref().map(|cache| (settings.file, cache)))
    }

    /// The blocks that are copied from other stages, the stage's own first.
    pub(in crate::lower) fn from(&self) -> impl Iterator<Item = (FileId, &'a From)> + use<'a> {
        self.chain().flat_map(|settings| settings.from.iter().map(|from| (settings.file, from)))
    }

    /// Gives a stage all that is said of it, but what its caches are made by ([`Inherited::cache`]) and what it needs.
    pub(in crate::lower) fn apply(&self, stage: &mut Stage) {
        for settings in self.chain() {
            for (name, value) in &settings.environment {
                stage.environment.entry(name.clone()).or_insert_with(|| value.clone());
            }
        }
        let outermost_first: Vec<&Settings> = self.chain().collect::<Vec<_>>().into_iter().rev().collect();
        stage.skipped = outermost_first.iter().find_map(|settings| settings.gates.skip.clone());
        stage.conditions = outermost_first.iter().flat_map(|settings| settings.gates.conditions.iter().cloned()).collect();
        stage.enter.clone_from(&self.settings.gates.enter);
        stage.exit.clone_from(&self.settings.gates.exit);
        if let Some(Runtime { requires, container }) = self.nearest(|settings| settings.runtime.as_ref()) {
            stage.requires.clone_from(requires);
            stage.container.clone_from(container);
        }
        stage.services = self.nearest(|settings| settings.services.as_deref()).map(<[Service]>::to_vec).unwrap_or_default();
        stage.deployment = self.nearest(|settings| settings.deployment.clone());
        stage.credentials = self.credentials().map(|(_, names)| names.iter().map(|name| name.kind.clone()).collect()).unwrap_or_default();
        stage.lock = self.nearest(|settings| settings.lock.clone());
        stage.caches = self.cache().map(|(_, cache)| cache.defined.clone()).unwrap_or_default();
        stage.bare = self.nearest(|settings| settings.bare).unwrap_or_default();
        stage.notify = self.nearest(|settings| settings.notify.clone()).unwrap_or_default();
        stage.timeout_ms = self.nearest(|settings| settings.timeout_ms).unwrap_or(stage.timeout_ms);
        stage.allow_failure = self.nearest(|settings| settings.allow_failure).unwrap_or_default();
        stage.effect = self.effect();
        let retry = self.nearest(|settings| settings.retry.as_ref()).map(|retry| retry.kind.clone());
        stage.retry = retry.or_else(|| stage.retry.take()).filter(|retry| stage.effect == Effect::Safe && retry.attempts > 1);
    }
}

impl Settings {
    /// Bytes that they take in the plan at most.
    fn bytes(&self) -> usize {
        let text = |text: &Option<String>| text.as_deref().map_or(0, json_bytes);
        self.environment.iter().map(|(name, value)| json_bytes(name) + value_bytes(value)).sum::<usize>() + text(&self.lock)
    }
}

/// Bytes of a value in JSON at most, steps left out.
fn value_bytes(value: &Value) -> usize {
    match value {
        Value::Boolean(_) | Value::Integer(_) => 20,
        Value::Text(text) => json_bytes(text),
        Value::Decimal { decimal } => json_bytes(decimal) + 12,
        Value::Variable { variable } => json_bytes(variable) + 13,
        Value::Call { arguments, .. } => 64 + arguments.iter().map(value_bytes).sum::<usize>(),
        Value::Steps { .. } => 64,
        Value::List(values) => 2 + values.iter().map(value_bytes).sum::<usize>(),
    }
}
