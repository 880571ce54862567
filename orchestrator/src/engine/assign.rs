//! What an agent is given with a stage: everything that it needs, with nothing left to look up, and the right to read just that.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use blob::token::{Claims, Read};
use model::{
    Digest, StageId, Timestamp,
    context::CacheScope,
    event::run::WaitKey,
    plan::{NeedReason, Stage, StageKind, Step, Value, Wait},
    protocol::{
        agent::{Assignment, CacheRestore, Callback, Lease},
        auction::{WANTED_MAX, Wanted},
    },
    trigger::Trigger,
};
use service::clock;

use super::Engine;
use crate::{
    callbacks,
    core::{
        Found, Run,
        resolve::{self, Unset},
        shape::Index,
    },
};

/// How long after a stage's time is up its agent may still store output: a bus or depot that was away comes back in that time.
const STORE_OUTPUT: Duration = Duration::from_hours(24);
/// Digests that a token names at most: it travels in a header, whose size is limited.
const READABLE_MAX: usize = 100;
/// Callbacks that a stage is told of, and characters of what each is for: they travel in its assignment.
const CALLBACKS_MAX: usize = 100;
const DESCRIPTION_CHARACTERS_MAX: usize = 200;

impl Engine {
    /// The stage as its agent gets it. That no variable is missing was seen before an agent was asked.
    pub(super) fn assignment(&self, run: &Run, at: Index, lease: Lease) -> Result<Assignment, Unset> {
        let found = run.found(at);
        let stage = resolve::stage_with(run, at, &found)?;
        let context = &run.trigger.context;
        let used = symbols_of(&stage);
        let libraries = run.planned.libraries_of(&stage);
        let mut configuration = resolve::configuration(run.shape.plan(), &found)?;
        configuration.retain(|symbol, _| used.contains(symbol.as_str()));
        let mut assignment = Assignment {
            branch: context.branch.clone(),
            commit: context.commit.clone(),
            scope: CacheScope::of(context),
            source: run.trigger.source,
            facts: facts(&run.trigger),
            caches: self.restored(run, &stage, &found),
            callbacks: self.callbacks(run, at, &found),
            libraries,
            configuration,
            variables: found.variables,
            artifacts: found.artifacts,
            ..Assignment::new(lease, stage, run.trigger.project.to_string())
        };
        let readable = readable(&mut assignment);
        assignment.depot_token = self.depot_token(&assignment, readable);
        Ok(assignment)
    }

    /// What the stage is given that an agent may have already. Artifacts are made in the run, so that only who made one has it.
    pub(super) fn wants(&self, run: &Run, stage: &Stage, found: &Found) -> Vec<Wanted> {
        let source = run.trigger.source.map(|digest| Wanted { digest, bytes: None });
        let caches = self.restored(run, stage, found).into_values();
        let caches = caches.map(|cache| Wanted { digest: cache.tree.archive, bytes: Some(cache.tree.bytes) });
        let libraries = run.planned.libraries_of(stage).into_values().map(|digest| Wanted { digest, bytes: None });
        source.into_iter().chain(caches).chain(libraries).take(WANTED_MAX).collect()
    }

    fn depot_token(&self, assignment: &Assignment, readable: BTreeSet<Digest>) -> String {
        let Some(signer) = &self.signer else { return String::new() };
        let lives = Duration::from_millis(assignment.stage.timeout_ms) + STORE_OUTPUT;
        signer.mint(&Claims {
            holder: assignment.lease.attempt.to_string(),
            read: Read::Only(readable),
            write: true,
            expires_at: Timestamp(clock::unix_ms()) + lives,
        })
    }

    /// The caches that the stage finds: those that it uses must be there, those that it makes are hints from earlier runs.
    fn restored(&self, run: &Run, stage: &Stage, found: &Found) -> BTreeMap<String, CacheRestore> {
        let hints = self.hints.read().expect("no holder of this lock panics");
        let hinted = stage.caches.iter().filter_map(|(name, definition)| {
            let key = definition.key.as_ref().and_then(Value::as_text);
            let tree = hints.find(&run.trigger.project, &run.trigger.context, &stage.path, name, key)?.clone();
            Some((name.clone(), CacheRestore { tree, required: false }))
        });
        let mut restored: BTreeMap<String, CacheRestore> = hinted.collect();
        let used = found.caches.iter().map(|(name, tree)| (name.clone(), CacheRestore { tree: tree.clone(), required: true }));
        restored.extend(used);
        restored
    }

    /// The addresses of the webhooks that the stage's steps may hand out: its own at its exit, and those of the stages right after it.
    fn callbacks(&self, run: &Run, at: Index, found: &Found) -> Vec<Callback> {
        let Some(base) = &self.callback_base else { return Vec::new() };
        let stage = run.shape.stage(at);
        let own = webhooks(&stage.id, &stage.exit, WaitKey::Exit);
        let next = run.shape.dependents(at).flat_map(|next| {
            let next = run.shape.stage(next);
            let itself = match &next.kind {
                StageKind::Wait(Wait::Webhook { description, .. }) => Some((next.id.clone(), WaitKey::Itself, description)),
                StageKind::Wait(_) | StageKind::Work | StageKind::Rollback => None,
            };
            webhooks(&next.id, &next.enter, WaitKey::Enter).chain(itself)
        });
        let callback = |(stage, wait, description): (StageId, WaitKey, &Value)| Callback {
            // What is not known yet is known when it is asked.
            description: cut(&resolve::text(description, &found.variables).unwrap_or_default()),
            url: format!("{base}{}{}", callbacks::PATH, self.callback_key.secret(&run.id, &stage, wait)),
        };
        own.chain(next).take(CALLBACKS_MAX).map(callback).collect()
    }
}

fn cut(description: &str) -> String {
    description.chars().take(DESCRIPTION_CHARACTERS_MAX).collect()
}

fn webhooks<'a>(stage: &StageId, gates: &'a [Wait], key: fn(u32) -> WaitKey) -> impl Iterator<Item = (StageId, WaitKey, &'a Value)> {
    (0..).zip(gates).filter_map(move |(place, gate)| match gate {
        Wait::Webhook { description, .. } => Some((stage.clone(), key(place), description)),
        Wait::Confirm { .. } | Wait::Prompt { .. } | Wait::Poll { .. } | Wait::Time { .. } | Wait::Pause => None,
    })
}

/// What the stage's environment says of the trigger, besides branch and commit.
fn facts(trigger: &Trigger) -> BTreeMap<String, String> {
    let context = &trigger.context;
    let mut facts = BTreeMap::from([("OTTO_EVENT".to_owned(), context.event.as_str().to_owned())]);
    let mut set = |name: &str, value: String| {
        if !value.is_empty() {
            facts.insert(name.to_owned(), value);
        }
    };
    set("OTTO_TAG", context.tag.clone());
    set("OTTO_BASE", context.base.clone());
    set("OTTO_CRON", context.cron.clone());
    if let Some(pull_request) = &context.pull_request {
        set("OTTO_PULL_REQUEST", pull_request.number.to_string());
        set("OTTO_PULL_REQUEST_SOURCE", pull_request.source.clone());
        set("OTTO_PULL_REQUEST_TARGET", pull_request.target.clone());
        set("OTTO_PULL_REQUEST_FORK", pull_request.fork.to_string());
    }
    if let Some(rerun) = &trigger.rerun {
        set("OTTO_RERUN_OF", rerun.of.to_string());
    }
    facts
}

/// The bytes that the attempt may read. Of more artifacts than a token can name, those come first that the stage names in its plan; the
/// others are left out of the assignment, and a step that asks for one is told so.
fn readable(assignment: &mut Assignment) -> BTreeSet<Digest> {
    let mut readable: BTreeSet<Digest> = assignment.source.into_iter().collect();
    readable.extend(assignment.libraries.values());
    readable.extend(assignment.caches.values().map(|cache| cache.tree.archive));
    let named: BTreeSet<&str> = assignment.stage.needs.iter().filter_map(|need| artifact_of(&need.reason)).collect();
    let (first, then): (Vec<_>, Vec<_>) =
        std::mem::take(&mut assignment.artifacts).into_iter().partition(|(name, _)| named.contains(name.as_str()));
    for (name, tree) in first.into_iter().chain(then) {
        if readable.len() < READABLE_MAX || readable.contains(&tree.archive) {
            readable.insert(tree.archive);
            assignment.artifacts.insert(name, tree);
        } else {
            assignment.artifacts_left_out += 1;
        }
    }
    readable
}

fn artifact_of(reason: &NeedReason) -> Option<&str> {
    match reason {
        NeedReason::Artifact(name) => Some(name),
        NeedReason::Order
        | NeedReason::Needs
        | NeedReason::Cache(_)
        | NeedReason::From(_)
        | NeedReason::Environment(_)
        | NeedReason::Variable(_)
        | NeedReason::Barrier
        | NeedReason::Rollback => None,
    }
}

/// The steps that a stage calls.
fn symbols_of(stage: &Stage) -> BTreeSet<String> {
    let notify = [&stage.notify.success, &stage.notify.failure, &stage.notify.complete];
    Step::with_nested(notify.into_iter().flatten().chain(&stage.steps)).map(|step| step.symbol.clone()).collect()
}

#[cfg(test)]
mod tests {
    use model::{AttemptId, RunId, TriggerId, event::run::StoredTree, plan::Need};

    use super::*;

    #[test]
    fn artifacts_that_a_stage_names_come_before_those_that_it_only_finds() {
        let reason = NeedReason::Artifact("z-named".to_owned());
        let stage = Stage { needs: vec![Need { stage: StageId::of("Before"), reason }], ..Stage::new("After") };
        let attempt = AttemptId { run: RunId::of(&TriggerId::of("t", "1")), stage: stage.id.clone(), attempt: 1 };
        let mut assignment = Assignment::new(Lease { attempt, fence: 1 }, stage, "demo".to_owned());
        let tree = |name: &str| StoredTree { archive: Digest::of(name.as_bytes()), bytes: 1, entries: 1 };
        let names = (0..READABLE_MAX + 20).map(|at| format!("a-{at:03}")).chain(["z-named".to_owned()]);
        assignment.artifacts = names.map(|name| (name.clone(), tree(&name))).collect();
        // The same bytes cost nothing.
        assignment.artifacts.insert("z-alike".to_owned(), tree("a-000"));
        let readable = readable(&mut assignment);
        assert_eq!((readable.len(), assignment.artifacts.len(), assignment.artifacts_left_out), (READABLE_MAX, READABLE_MAX + 1, 21));
        assert!(assignment.artifacts.contains_key("z-named") && assignment.artifacts.contains_key("z-alike"));
        assert!(assignment.artifacts.values().all(|tree| readable.contains(&tree.archive)));
    }
}
