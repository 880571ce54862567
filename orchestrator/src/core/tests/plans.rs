//! Random plans, with everything that a plan can say about the run.

use model::{
    StageId,
    plan::{Condition, Effect, Notify, Plan, Retry, RetryReason, Skip, Stage, StageKind, Value, Wait},
    trigger::Trigger,
};
use proptest::prelude::*;

use super::driven::{sh, stage, trigger, variable, waiting};
use crate::core::Beginning;

pub(super) const NAMES: [&str; 7] = ["a", "b", "c", "d", "e", "f", "g"];

/// A plan, what started it, and how.
#[derive(Debug, Clone)]
pub(super) struct Scene {
    pub(super) plan: Plan,
    pub(super) trigger: Trigger,
    pub(super) beginning: Beginning,
}

fn waits() -> impl Strategy<Value = Wait> {
    let timeout_ms = prop_oneof![Just(None), Just(Some(20))];
    let by = Vec::new;
    prop_oneof![
        timeout_ms.clone().prop_map(move |timeout_ms| Wait::Confirm { message: "Ship it?".into(), by: by(), timeout_ms }),
        timeout_ms.clone().prop_map(move |timeout_ms| {
            let options = vec!["a".to_owned(), "b".to_owned()];
            Wait::Prompt { message: "Which?".into(), into: "x".to_owned(), options, by: by(), timeout_ms }
        }),
        timeout_ms.prop_map(|timeout_ms| Wait::Webhook { description: variable("y"), timeout_ms }),
        Just(Wait::Webhook { description: "the scan".into(), timeout_ms: None }),
        Just(Wait::Poll { url: "http://localhost/".into(), status: 200, every_ms: 10, timeout_ms: 30 }),
        Just(Wait::Time { ms: 15 }),
        Just(Wait::Pause),
    ]
}

fn retries() -> impl Strategy<Value = Option<Retry>> {
    let on =
        prop_oneof![Just(vec![RetryReason::Lost]), Just(vec![RetryReason::Failed]), Just(vec![RetryReason::Failed, RetryReason::Lost])];
    let retry = (1..4_u32, prop_oneof![Just(0), Just(25)], on).prop_map(|(attempts, backoff_ms, on)| Retry { attempts, backoff_ms, on });
    prop_oneof![1 => Just(None), 3 => retry.prop_map(Some)]
}

/// How a stage differs from one that has a step and nothing else.
fn stages() -> impl Strategy<Value = (u8, Stage)> {
    let gates = || prop_oneof![4 => Just(Vec::new()), 1 => prop::collection::vec(waits(), 1..3)];
    let kind = prop_oneof![
        5 => Just(Some(StageKind::Work)),
        1 => Just(None),
        2 => waits().prop_map(|wait| Some(StageKind::Wait(wait))),
        2 => Just(Some(StageKind::Rollback)),
    ];
    let equal = Condition::Equal(variable("x"), Value::from("a"));
    let skip = Skip { condition: "branch == 'main'".to_owned(), because: "branch is ''".to_owned() };
    let conditions = prop_oneof![5 => Just((None, vec![])), 1 => Just((None, vec![equal])), 1 => Just((Some(skip), vec![]))];
    let lock = prop_oneof![4 => Just(None), 1 => Just(Some("l".to_owned())), 1 => Just(Some("m".to_owned()))];
    let block = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let fanouts = prop_oneof![4 => Just(vec![]), 1 => Just(block(&["f"])), 1 => Just(block(&["f", "f/g"]))];
    let flags = (prop::bool::weighted(0.2), prop::bool::weighted(0.2), prop::bool::weighted(0.1));
    (any::<u8>(), kind, gates(), gates(), conditions, lock, retries(), (fanouts, flags)).prop_map(
        |(needs, kind, enter, exit, (skipped, conditions), lock, retry, (fanouts, (once, allow_failure, asks)))| {
            let mut one = if matches!(kind, Some(StageKind::Work | StageKind::Rollback)) { stage("", &[]) } else { waiting("", &[]) };
            one.kind = kind.unwrap_or_default();
            if once {
                one.effect = Effect::Once;
            }
            if asks {
                one.environment.insert("Y".to_owned(), variable("y"));
            }
            (needs, Stage { enter, exit, skipped, conditions, lock, retry, fanouts, allow_failure, ..one })
        },
    )
}

pub(super) fn scenes() -> impl Strategy<Value = Scene> {
    let triggers =
        (prop_oneof![4 => Just(None), 1 => Just(Some(60))], prop::bool::weighted(0.15), prop::option::weighted(0.15, 0..NAMES.len()));
    let stages = prop::collection::vec(stages(), 1..=NAMES.len());
    (stages, triggers, prop::bool::weighted(0.3), prop::bool::weighted(0.15)).prop_map(
        |(stages, (timeout_ms, stop_at_failure, only), tells, is_held)| {
            let mut all: Vec<Stage> = Vec::new();
            for (at, (needs, one)) in stages.into_iter().enumerate() {
                let earlier = |need: &usize| needs & (1 << *need) != 0 && all[*need].kind != StageKind::Rollback;
                let names: Vec<&str> = (0..at).filter(earlier).map(|need| NAMES[need]).collect();
                let named = waiting(NAMES[at], &names);
                all.push(Stage { id: named.id, path: named.path, needs: named.needs, ..one });
            }
            let mut plan = Plan::new(all);
            if tells {
                let step = || vec![sh("tell".into())];
                plan.notify = Notify { success: Vec::new(), failure: step(), complete: step() };
            }
            let only = only.map(|at| StageId::of(NAMES[at]));
            let trigger = Trigger { timeout_ms, stop_at_failure, only, ..trigger() };
            let held = is_held.then(|| model::RunId::of(&model::TriggerId::of("test", "older")));
            Scene { plan, trigger, beginning: Beginning { held, ..Beginning::default() } }
        },
    )
}
