//! What there is to say of one stage, as lines with a label. The tree prints them, and two plans are compared by them.

use std::collections::{BTreeMap, HashMap};

use model::{
    StageId,
    plan::{
        ATTEMPTS_DEFAULT, CacheDefinition, Deployment, Effect, Need, NeedReason, Notify, Retry, RetryReason, Service, Skip, Stage,
        StageKind, TIMEOUT_DEFAULT_MS, Value,
    },
};

use super::{
    step,
    summary::short,
    text::{Ink, condition, duration, joined, printable, push, shortened, size, text, value, wait},
};

/// One thing about a stage.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Fact {
    /// What it is about; at most [`LABEL_WIDTH`] characters.
    pub(super) label: &'static str,
    /// In words, never empty.
    pub(super) lines: Vec<String>,
}

/// Characters of a SHA-256 in hexadecimal.
const DIGEST_LENGTH: usize = 64;
/// Columns of the widest label.
pub(super) const LABEL_WIDTH: usize = 11;

impl Fact {
    /// Its colour.
    pub(super) fn ink(&self) -> Option<Ink> {
        match self.label {
            "skipped" | "if" => Some(Ink::Skip),
            "enter" | "exit" | "waits" => Some(Ink::Wait),
            "credentials" => Some(Ink::Secret),
            _ => None,
        }
    }

    /// Whether it is told once for all stages if it is the same for all of them.
    pub(super) fn is_setting(&self) -> bool {
        ["agent", "image", "services", "env", "source", "timeout", "effect", "retry"].contains(&self.label)
    }
}

/// Names of stages by their ids.
pub(super) type Paths<'a> = HashMap<&'a StageId, &'a str>;

/// How much is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Detail {
    /// What is not a default, without the edges, which have a section of their own.
    Short,
    /// Everything.
    All,
}

/// Everything about a stage but its name.
pub(super) fn facts(stage: &Stage, paths: &Paths<'_>, detail: Detail) -> Vec<Fact> {
    // Every field is named, so that a new one cannot be forgotten.
    let Stage { id: _, path: _, needs, kind, skipped, conditions, enter, exit, requires: _, container, services, .. } = stage;
    let Stage { environment, deployment, credentials, lock, caches, uses, bare, steps, notify, timeout_ms: _, effect: _, retry: _, .. } =
        stage;
    let Stage { allow_failure, fanouts, .. } = stage;
    let mut list = List(Vec::new());
    if detail == Detail::All {
        list.add("after", edges(needs, paths));
    }
    match kind {
        StageKind::Work => {}
        StageKind::Wait(what) => list.add("waits", format!("until {}", wait(what))),
        StageKind::Rollback => list.add("runs", "only if a later stage fails, and what it undoes has succeeded".to_owned()),
    }
    list.all("skipped", skipped.iter().map(skip));
    list.all("if", conditions.iter().map(|one| format!("{}, decided in the run: else it is skipped", condition(one))));
    list.all("enter", enter.iter().map(|one| format!("waits until {}", wait(one))));
    // What its image and its services need is demanded of the agent, too.
    let demands = stage.demands();
    if !demands.is_empty() {
        list.add("agent", joined(demands.iter().map(|(fact, demanded)| requirement(fact, demanded))));
    }
    list.all("image", container.iter().map(|container| value(&container.image)));
    list.all("services", services.iter().flat_map(service));
    list.all("deploys to", deployment.iter().flat_map(deployed));
    list.all("env", environment.iter().flat_map(|(name, known)| named(&format!("{} =", printable(name)), known)));
    list.all("credentials", (!credentials.is_empty()).then(|| joined(credentials.iter().map(|name| printable(name)))).into_iter());
    list.all("lock", lock.iter().map(|lock| text(lock)));
    list.all("source", bare.then(|| "none: its work directory begins empty".to_owned()).into_iter());
    list.all("makes cache", caches.iter().map(|(name, cache)| made(name, cache, detail)));
    let used = uses.iter().map(|used| format!("{}, made by {}", printable(&used.cache), path_of(&used.from, paths)));
    list.all("uses cache", used);
    list.all("steps", steps.iter().flat_map(step::lines));
    outcomes(&mut list, notify);
    limits(&mut list, stage, detail);
    list.all("failure", allow_failure.then(|| "allowed: the run goes on, and is unstable".to_owned()).into_iter());
    list.all("fanout", fanouts.iter().map(|block| format!("its failure cancels the others of {}, and theirs it", printable(block))));
    list.all("exit", exit.iter().map(|one| format!("waits until {}", wait(one))));
    list.0
}

struct List(Vec<Fact>);

impl List {
    fn add(&mut self, label: &'static str, line: String) {
        self.0.push(Fact { label, lines: vec![line] });
    }

    fn all(&mut self, label: &'static str, lines: impl Iterator<Item = String>) {
        let lines: Vec<String> = lines.collect();
        if !lines.is_empty() {
            self.0.push(Fact { label, lines });
        }
    }
}

/// How long, and how often. What waits without an agent has limits of its own.
fn limits(list: &mut List, stage: &Stage, detail: Detail) {
    let Stage { kind, timeout_ms, effect, retry, .. } = stage;
    let all = detail == Detail::All;
    if !all && matches!(kind, StageKind::Wait(_)) {
        return;
    }
    if all || *timeout_ms != TIMEOUT_DEFAULT_MS {
        list.add("timeout", duration(*timeout_ms));
    }
    if all || *effect == Effect::Once {
        list.add("effect", effect_of(*effect));
    }
    if all || (*effect == Effect::Safe && !is_default(retry.as_ref())) || (*effect == Effect::Once && retry.is_some()) {
        list.add("retry", retried(retry.as_ref()));
    }
}

/// The steps on the outcome of a stage, or of the whole.
pub(super) fn notified(notify: &Notify) -> [(&'static str, Vec<String>); 3] {
    let lines = |steps: &[model::plan::Step]| steps.iter().flat_map(step::lines).collect();
    [("on success", lines(&notify.success)), ("on failure", lines(&notify.failure)), ("at the end", lines(&notify.complete))]
}

fn outcomes(list: &mut List, notify: &Notify) {
    for (label, lines) in notified(notify) {
        list.all(label, lines.into_iter());
    }
}

/// Why a stage is skipped.
pub(super) fn skip(skip: &Skip) -> String {
    format!("because {} is false: {}", printable(&skip.condition), printable(&skip.because))
}

/// What comes first, with the reasons: `Build [order]; Lint [needs]`.
pub(super) fn edges(needs: &[Need], paths: &Paths<'_>) -> String {
    if needs.is_empty() {
        return "at once".to_owned();
    }
    // One stage with several reasons stands once, with all of them; stages with the same reasons stand together.
    let mut reasons: BTreeMap<&StageId, Vec<&NeedReason>> = BTreeMap::new();
    for need in needs {
        reasons.entry(&need.stage).or_default().push(&need.reason);
    }
    let mut groups: Vec<(Vec<&NeedReason>, Vec<String>)> = Vec::new();
    let mut places: BTreeMap<Vec<&NeedReason>, usize> = BTreeMap::new();
    for need in needs {
        let Some(mut why) = reasons.remove(&need.stage) else { continue };
        why.sort();
        let place = *places.entry(why.clone()).or_insert(groups.len());
        if place == groups.len() {
            groups.push((why, Vec::new()));
        }
        groups[place].1.push(path_of(&need.stage, paths));
    }
    let told = |(why, names): &(Vec<&NeedReason>, Vec<String>)| {
        format!("{} [{}]", shortened(names), joined(why.iter().map(|reason| reason_of(reason))))
    };
    groups.iter().map(told).collect::<Vec<_>>().join("; ")
}

/// An edge's reason in a word or two; [`super::legend`] says what they mean.
pub(super) fn reason_of(reason: &NeedReason) -> String {
    match reason {
        NeedReason::Order => "order".to_owned(),
        NeedReason::Needs => "needs".to_owned(),
        NeedReason::Cache(name) => format!("cache {}", printable(name)),
        NeedReason::Artifact(name) => format!("artifact {}", printable(name)),
        NeedReason::From(block) => format!("{} from it", printable(block)),
        NeedReason::Environment(name) => format!("environment {}", printable(name)),
        NeedReason::Variable(name) => format!("vars.{}", printable(name)),
        NeedReason::Barrier => "wait".to_owned(),
        NeedReason::Rollback => "undoes it".to_owned(),
    }
}

/// The stage's path, fit for a line.
pub(super) fn path_of(id: &StageId, paths: &Paths<'_>) -> String {
    paths.get(id).map_or_else(|| id.to_string(), |path| printable(path))
}

fn requirement(fact: &str, demanded: &Value) -> String {
    let fact = printable(fact);
    match demanded {
        Value::Boolean(true) => fact,
        Value::Integer(bytes) if fact == "memory" || fact.ends_with(".memory") => format!("{fact} >= {}", size(*bytes)),
        Value::Integer(_) | Value::Decimal { .. } => format!("{fact} >= {}", value(demanded)),
        Value::Boolean(false) | Value::Text(_) | Value::Variable { .. } | Value::Call { .. } | Value::Steps { .. } | Value::List(_) => {
            format!("{fact} = {}", value(demanded))
        }
    }
}

fn service(service: &Service) -> Vec<String> {
    let Service { name, image, environment, port, ready } = service;
    let mut line = format!("{}: image {}", printable(name), value(image));
    if let Some(port) = port {
        push(&mut line, format_args!(", port {port}"));
    }
    if let Some(ready) = ready {
        push(&mut line, format_args!(", ready when {} succeeds", text(ready)));
    }
    let environment = environment.iter().flat_map(|(name, known)| named(&format!("  {} =", printable(name)), known));
    std::iter::once(line).chain(environment).collect()
}

fn deployed(deployment: &Deployment) -> Vec<String> {
    let Deployment { environment, protected, settings } = deployment;
    let protected = if *protected { ", which is protected" } else { "" };
    let settings = settings.iter().flat_map(|(name, known)| named(&format!("  {} =", printable(name)), known));
    std::iter::once(format!("{}{protected}", printable(environment))).chain(settings).collect()
}

/// A name with its value: a text of several lines stands below it.
pub(super) fn named(name: &str, known: &Value) -> Vec<String> {
    match known {
        Value::Text(long) if long.contains('\n') => std::iter::once(name.to_owned()).chain(step::block(long)).collect(),
        Value::Boolean(_)
        | Value::Integer(_)
        | Value::Text(_)
        | Value::Decimal { .. }
        | Value::Variable { .. }
        | Value::Call { .. }
        | Value::Steps { .. }
        | Value::List(_) => vec![format!("{name} {}", value(known))],
    }
}

fn made(name: &str, cache: &CacheDefinition, detail: Detail) -> String {
    let CacheDefinition { paths, key } = cache;
    let key = key.as_ref().map_or_else(String::new, |key| match key.as_text() {
        Some(digest) if detail == Detail::Short && is_digest(digest) => format!(", for later runs with the key {}…", short(digest)),
        _ => format!(", for later runs with the key {}", value(key)),
    });
    format!("{}: {}{key}", printable(name), joined(paths.iter().map(value)))
}

/// Whether a text is what `files(…)` gives: a digest that says nothing to people.
fn is_digest(text: &str) -> bool {
    text.len() == DIGEST_LENGTH && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn effect_of(effect: Effect) -> String {
    match effect {
        Effect::Safe => "safe: starting it again does no harm".to_owned(),
        Effect::Once => "once: no second start without a person".to_owned(),
    }
}

fn is_default(retry: Option<&Retry>) -> bool {
    retry.is_some_and(|retry| retry.attempts == ATTEMPTS_DEFAULT && retry.backoff_ms == 0 && retry.on == [RetryReason::Lost])
}

fn retried(retry: Option<&Retry>) -> String {
    let Some(Retry { attempts, backoff_ms, on }) = retry else { return "never".to_owned() };
    let on = on.iter().map(|reason| match reason {
        RetryReason::Failed => "it failed",
        RetryReason::Lost => "its agent was lost",
    });
    let pause = if *backoff_ms == 0 { String::new() } else { format!(", {} later", duration(*backoff_ms)) };
    format!("up to {attempts} starts in all, if {}{pause}", on.collect::<Vec<_>>().join(" or "))
}
