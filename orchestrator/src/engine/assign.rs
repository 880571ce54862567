//! What an agent is given with a stage: everything that it needs, with nothing left to look up, and the right to read just that.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use blob::token::{Claims, Read};
use model::{
    Digest, StageId, Timestamp,
    event::run::WaitKey,
    plan::{Stage, StageKind, Step, Value, Wait},
    protocol::agent::{Assignment, CacheRestore, Callback, Lease},
    trigger::Trigger,
};
use service::clock;
use tracing::warn;

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
            description: resolve::text(description, &found.variables).unwrap_or_default(),
            url: format!("{base}{}{}", callbacks::PATH, self.callback_key.secret(&run.id, &stage, wait)),
        };
        own.chain(next).map(callback).collect()
    }
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

/// The bytes that the attempt may read. Artifacts beyond what a token can name are left out of the assignment.
fn readable(assignment: &mut Assignment) -> BTreeSet<Digest> {
    let mut readable: BTreeSet<Digest> = assignment.source.into_iter().collect();
    readable.extend(assignment.libraries.values());
    readable.extend(assignment.caches.values().map(|cache| cache.tree.archive));
    let mut left_out = 0;
    assignment.artifacts.retain(|_, tree| {
        let fits = readable.len() < READABLE_MAX || readable.contains(&tree.archive);
        if fits {
            readable.insert(tree.archive);
        } else {
            left_out += 1;
        }
        fits
    });
    if left_out > 0 {
        warn!(attempt = %assignment.lease.attempt, left_out, "a stage finds more artifacts than it can be given");
    }
    readable
}

/// The steps that a stage calls.
fn symbols_of(stage: &Stage) -> BTreeSet<String> {
    let notify = [&stage.notify.success, &stage.notify.failure, &stage.notify.complete];
    let mut open: Vec<&Step> = notify.into_iter().flatten().chain(&stage.steps).collect();
    let mut symbols = BTreeSet::new();
    while let Some(step) = open.pop() {
        symbols.insert(step.symbol.clone());
        let mut values: Vec<&Value> = step.parameters.values().collect();
        while let Some(value) = values.pop() {
            match value {
                Value::Steps { steps } => open.extend(steps),
                Value::List(items) => values.extend(items),
                Value::Boolean(_)
                | Value::Integer(_)
                | Value::Text(_)
                | Value::Decimal { .. }
                | Value::Variable { .. }
                | Value::Call { .. } => {}
            }
        }
    }
    symbols
}
