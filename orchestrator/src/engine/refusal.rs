//! Plans that are right and not run: what is too large to be sent, and what the run cannot do yet.
//!
//! **Invariant:** what a plan says is done or refused by name; nothing of it is passed over.

use crate::core::resolve::STAGE_BYTES_MAX;
use model::{
    diagnostic::{Diagnostic, Severity, Span},
    plan::{Notify, Plan, Stage, Step},
};

/// A file that the pipeline names could not be supplied.
pub(super) const NO_SUPPLY: &str = "E0900";
/// A stage is too large to be sent.
pub(super) const STAGE_TOO_LARGE: &str = "E0901";
/// The request is too large for the bus.
pub(super) const REQUEST_TOO_LARGE: &str = "E0902";
/// The run cannot do this yet.
pub(super) const NOT_RUN_YET: &str = "E0903";
/// The run that is to be run again cannot be.
pub(super) const NO_RERUN: &str = "E0906";
/// A stage may not deliver where it wants to.
pub(super) const NO_DELIVERY: &str = "E0907";
/// Every code with which the orchestrator refuses a plan; each has a page in `docs/errors`.
pub const CODES: &[&str] = &[NO_SUPPLY, STAGE_TOO_LARGE, REQUEST_TOO_LARGE, NOT_RUN_YET, NO_RERUN, NO_DELIVERY];

/// Diagnostics of one plan: who mends the first ones hears of the others.
const REFUSALS_MAX: usize = 20;

/// Why the plan of the file at `path` is not run; empty if it is.
pub(super) fn refusals(path: &str, plan: &Plan) -> Vec<Diagnostic> {
    let whole = of_steps([&plan.notify.success, &plan.notify.failure, &plan.notify.complete].into_iter().flatten());
    let whole = whole.into_iter().map(|what| not_yet(path, &format!("the pipeline's `notify` has {what}")));
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

/// The first thing of a stage that is not done yet. A new field of a stage stops here, until somebody decides about it.
fn of_stage(stage: &Stage) -> Option<String> {
    let Stage {
        id: _,
        path: _,
        needs: _,
        timeout_ms: _,
        effect: _,
        kind: _,
        skipped: _,
        conditions: _,
        enter: _,
        exit: _,
        requires: _,
        container: _,
        services: _,
        environment: _,
        deployment: _,
        credentials,
        lock: _,
        caches: _,
        uses: _,
        bare: _,
        steps,
        notify,
        retry: _,
        allow_failure: _,
        fanouts: _,
    } = stage;
    let simple = (!credentials.is_empty()).then(|| "credentials".to_owned());
    let Notify { success, failure, complete } = notify;
    simple.or_else(|| of_steps([steps, success, failure, complete].into_iter().flatten()))
}

/// Steps that get credentials, also within others.
fn of_steps<'a>(steps: impl IntoIterator<Item = &'a Step>) -> Option<String> {
    let step = Step::with_nested(steps).find(|step| !step.credentials.is_empty())?;
    Some(format!("a step `{}` with credentials", step.symbol))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use model::plan::{StageKind, Value, Wait};

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
    fn what_runs_is_not_refused() {
        let lock = Some("production".to_owned());
        let kind = StageKind::Wait(Wait::Pause);
        for stage in
            [stage(sh()), Stage { lock, ..stage(sh()) }, Stage { kind, ..Stage::new("Build") }, Stage { bare: true, ..stage(sh()) }]
        {
            assert_eq!(told(stage), "");
        }
        assert_eq!(told(stage(Step { into: Some("x".to_owned()), ..sh() })), "");
        assert_eq!(told(stage(Step::new("./x", "deploy", BTreeMap::new()))), "");
    }

    #[test]
    fn what_is_not_done_yet_is_refused_by_its_name_and_its_stage() {
        let secret = || Step { credentials: vec!["deploy-key".to_owned()], ..sh() };
        let within = Step::new("stdlib", "dir", BTreeMap::from([("steps".to_owned(), Value::Steps { steps: vec![secret()] })]));
        let complete = Notify { complete: vec![secret()], ..Notify::default() };
        let cases = [
            (Stage { credentials: vec!["deploy-key".to_owned()], ..stage(sh()) }, "credentials"),
            (stage(within), "a step `sh` with credentials"),
            (Stage { notify: complete, ..stage(sh()) }, "a step `sh` with credentials"),
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
        let stages = (0..100).map(|at| Stage { credentials: vec!["x".to_owned()], ..Stage::new(&at.to_string()) }).collect();
        assert_eq!(refusals("Ottofile", &Plan::new(stages)).len(), REFUSALS_MAX);
    }
}
