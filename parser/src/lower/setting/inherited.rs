//! What a group gives to what stands in it: variables of the environment add up by name and conditions add up; of everything else the
//! innermost wins. Waits of a group's gates are not inherited: they happen once, so they are stages of their own.

use model::plan::{Effect, Service, Stage};

use super::{Cache, From, Runtime, Settings};
use crate::{diagnostic::FileId, syntax::Name};

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

    /// Whether it is here that `notify` is written.
    pub(in crate::lower) fn notifies(&self) -> bool {
        self.settings.notify.is_some()
    }

    /// The environment that the stage delivers to.
    pub(in crate::lower) fn environment(&self) -> Option<&'a str> {
        self.nearest(|settings| settings.deployment.as_deref()).map(|deployment| deployment.environment.as_str())
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
        stage.deployment = self.nearest(|settings| settings.deployment.as_deref()).cloned();
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
    /// Bytes that they take in the plan at most. (The pipeline's own `notify` is taken out before: it belongs to no stage.)
    fn bytes(&self) -> usize {
        let Self { environment, lock, deployment, runtime, services, cache, gates, credentials, notify, .. } = self;
        let deployment = deployment.as_deref();
        let runtime = runtime.as_ref().map(|Runtime { requires, container }| (requires, container));
        let cache = cache.as_ref().map(|cache| {
            let used: Vec<&str> = cache.used.iter().map(|name| name.kind.as_str()).collect();
            let id_bytes = used.len() * CACHE_USE_BYTES;
            json_bytes(&(&cache.defined, used)) + id_bytes
        });
        let credentials: Option<Vec<&str>> = credentials.as_ref().map(|names| names.iter().map(|name| name.kind.as_str()).collect());
        let gates = (&gates.skip, &gates.conditions, &gates.enter, &gates.exit);
        json_bytes(&(environment, lock, deployment, runtime, services, gates, credentials, notify)) + cache.unwrap_or_default()
    }
}

/// Bytes of a used cache in the plan besides its name: the id of the stage that makes it.
const CACHE_USE_BYTES: usize = 64;

/// Bytes of the JSON of a part of the plan.
fn json_bytes(part: &impl serde::Serialize) -> usize {
    let mut counted = Counted(0);
    // Nothing that can stand in a plan fails to be written.
    let _written: Result<(), serde_json::Error> = serde_json::to_writer(&mut counted, part);
    counted.0
}

/// Counts what is written to it.
struct Counted(usize);

impl std::io::Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
