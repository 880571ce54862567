//! Plans that are right and not run: what is too large to be sent, and what the run cannot do yet.
//!
//! **Invariant:** what a plan says is done or refused by name; nothing of it is passed over.

use model::{
    diagnostic::{Diagnostic, Severity, Span},
    plan::{Notify, Plan, Retry, RetryReason, Stage, StageKind, Step, Value},
};

/// A file that the pipeline names could not be supplied.
pub(super) const NO_SUPPLY: &str = "E0900";
/// A stage is too large to be sent.
pub(super) const STAGE_TOO_LARGE: &str = "E0901";
/// The request is too large for the bus.
pub(super) const REQUEST_TOO_LARGE: &str = "E0902";
/// The run cannot do this yet.
pub(super) const NOT_RUN_YET: &str = "E0903";
/// Every code with which the orchestrator refuses a plan; each has a page in `docs/errors`.
pub const CODES: &[&str] = &[NO_SUPPLY, STAGE_TOO_LARGE, REQUEST_TOO_LARGE, NOT_RUN_YET];

/// The most bytes of one stage's JSON: its assignment must fit into one message of the bus.
const STAGE_BYTES_MAX: usize = 512 * 1024;
/// Diagnostics of one plan: who mends the first ones hears of the others.
const REFUSALS_MAX: usize = 20;
/// The library that has no archive: the agent knows its steps. Those of others are programs in their archives.
const LIBRARY: &str = "stdlib";
/// Its steps that are run.
const STEPS: [&str; 2] = ["sh", "echo"];

/// Why the plan of the file at `path` is not run; empty if it is.
pub(super) fn refusals(path: &str, plan: &Plan) -> Vec<Diagnostic> {
    let whole = of_plan(plan).into_iter().map(|what| not_yet(path, &format!("the pipeline has {what}")));
    let stages = plan.stages.iter().filter_map(|stage| {
        if serde_json::to_vec(stage).map_or(usize::MAX, |bytes| bytes.len()) > STAGE_BYTES_MAX {
            let message = format!("the stage `{}` is over the limit of {STAGE_BYTES_MAX} bytes for one stage", stage.path);
            return Some(diagnostic(STAGE_TOO_LARGE, path, message, "move its scripts into files of the repository"));
        }
        let what = of_stage(stage)?;
        Some(not_yet(path, &format!("the stage `{}` has {what}", stage.path)))
    });
    whole.chain(stages).take(REFUSALS_MAX).collect()
}

/// A diagnostic of the file as a whole.
pub(super) fn diagnostic(code: &str, path: &str, message: String, help: &str) -> Diagnostic {
    Diagnostic {
        code: code.to_owned(),
        severity: Severity::Error,
        message,
        file: path.to_owned(),
        line: 1,
        column: 1,
        span: Span::default(),
        label: String::new(),
        help: help.to_owned(),
    }
}

fn not_yet(path: &str, what: &str) -> Diagnostic {
    let help = "it is planned and explained, but not run by this version: leave it out, or run it with a later one";
    diagnostic(NOT_RUN_YET, path, format!("{what}, which is not run yet"), help)
}

/// What of the plan as a whole is not done yet. The configuration is that of steps, which are refused themselves; credentials that no
/// stage has are used by none.
fn of_plan(plan: &Plan) -> Option<&'static str> {
    let Plan { schema: _, stages: _, libraries: _, newer, credentials: _, configuration: _, notify } = plan;
    if newer.is_some() {
        return Some("`newer`");
    }
    (!notify.is_empty()).then_some("`notify`")
}

/// The first thing of a stage that is not done yet. A new field of a stage stops here, until somebody decides about it.
fn of_stage(stage: &Stage) -> Option<String> {
    let Stage {
        id: _,
        path: _,
        needs: _,
        timeout_ms: _,
        effect: _,
        kind,
        skipped,
        conditions,
        enter,
        exit,
        requires,
        container,
        services,
        environment,
        deployment,
        credentials,
        lock,
        caches,
        uses,
        bare,
        steps,
        notify,
        retry,
        allow_failure,
        fanouts,
    } = stage;
    let simple = [
        (!matches!(kind, StageKind::Work), kind_named(kind)),
        (skipped.is_some(), "a condition that is false"),
        (!conditions.is_empty(), "a condition that is decided in the run"),
        (!enter.is_empty() || !exit.is_empty(), "a gate that waits"),
        (!requires.values().all(Value::is_known), "a requirement that is known in the run only"),
        (container.is_none() && !services.is_empty(), "services, and no image for its steps (`runtime { docker { image = … } }`)"),
        (container.as_ref().is_some_and(|container| !container.image.is_known()), "an image that is known in the run only"),
        (!environment.values().all(|value| value.as_text().is_some()), "a variable of the environment that is known in the run only"),
        (deployment.is_some(), "an environment that it delivers to"),
        (!credentials.is_empty(), "credentials"),
        (lock.is_some(), "a lock"),
        (!caches.is_empty() || !uses.is_empty(), "a cache"),
        (*bare, "`checkout = false`"),
        (!Notify::is_empty(notify), "`notify`"),
        (retry.as_ref().is_some_and(is_new), "a `retry` with a pause, or after a failure"),
        (*allow_failure, "`allow_failure`"),
        (!fanouts.is_empty(), "its place in a `fanout`"),
    ];
    let simple = simple.into_iter().find_map(|(there, what)| there.then(|| what.to_owned()));
    simple.or_else(|| steps.iter().find_map(of_step))
}

fn kind_named(kind: &StageKind) -> &'static str {
    match kind {
        StageKind::Work => "steps",
        StageKind::Wait(_) => "something to wait for",
        StageKind::Rollback => "steps that undo (`rollback`)",
    }
}

/// Only what was lost is started again so far, and at once.
fn is_new(retry: &Retry) -> bool {
    let Retry { attempts: _, backoff_ms, on } = retry;
    *backoff_ms > 0 || on.iter().any(|reason| !matches!(reason, RetryReason::Lost))
}

fn of_step(step: &Step) -> Option<String> {
    let Step { symbol, library, parameters, timeout_ms, attempts, into, credentials } = step;
    if library == LIBRARY && !STEPS.contains(&symbol.as_str()) {
        return Some(format!("the step `{symbol}`"));
    }
    let of_every_step = [
        (timeout_ms.is_some(), "timeout"),
        (attempts.is_some(), "retry"),
        (into.is_some(), "into"),
        (!credentials.is_empty(), "credentials"),
        (!parameters.values().all(Value::is_known), "an argument that is known in the run only"),
    ];
    of_every_step.into_iter().find_map(|(there, what)| there.then(|| format!("a step `{symbol}` with {what}")))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use model::plan::{Skip, Wait};

    use super::*;

    fn stage(step: Step) -> Stage {
        Stage { steps: vec![step], ..Stage::new("Build") }
    }

    fn sh() -> Step {
        Step::new("stdlib", "sh", BTreeMap::from([("script".to_owned(), Value::from("make"))]))
    }

    fn told(stage: Stage) -> String {
        let refusals = refusals("Ottofile", &Plan::new(vec![stage]));
        refusals.first().map(|refusal| format!("{}: {}", refusal.code, refusal.message)).unwrap_or_default()
    }

    #[test]
    fn what_the_agents_do_is_not_refused() {
        let retry = Some(Retry { attempts: 3, backoff_ms: 0, on: vec![RetryReason::Lost] });
        let environment = BTreeMap::from([("A".to_owned(), Value::from("b"))]);
        assert_eq!(told(Stage { retry, environment, ..stage(sh()) }), "");
        assert_eq!(told(stage(Step::new("./x", "deploy", BTreeMap::new()))), "");
    }

    #[test]
    fn each_new_thing_is_refused_by_its_name_and_its_stage() {
        let skipped = Some(Skip { condition: "branch == 'a'".to_owned(), because: "branch is 'b'".to_owned() });
        let cases = [
            (Stage { skipped, ..stage(sh()) }, "a condition that is false"),
            (Stage { kind: StageKind::Wait(Wait::Pause), ..Stage::new("Build") }, "something to wait for"),
            (Stage { bare: true, ..stage(sh()) }, "`checkout = false`"),
            (Stage { lock: Some("l".to_owned()), ..stage(sh()) }, "a lock"),
            (stage(Step { into: Some("x".to_owned()), ..sh() }), "a step `sh` with into"),
            (stage(Step::new("stdlib", "git", BTreeMap::new())), "the step `git`"),
        ];
        for (stage, what) in cases {
            assert_eq!(told(stage), format!("E0903: the stage `Build` has {what}, which is not run yet"));
        }
    }

    #[test]
    fn a_stage_that_fits_into_no_message_is_refused() {
        let script = Value::Text("x".repeat(STAGE_BYTES_MAX));
        let step = Step::new("stdlib", "sh", BTreeMap::from([("script".to_owned(), script)]));
        assert!(told(stage(step)).starts_with("E0901: the stage `Build`"));
    }

    #[test]
    fn no_more_refusals_than_a_person_reads() {
        let stages = (0..100).map(|at| Stage { bare: true, ..Stage::new(&at.to_string()) }).collect();
        assert_eq!(refusals("Ottofile", &Plan::new(stages)).len(), REFUSALS_MAX);
    }
}
