//! Any order of inputs, with doubles, lies and losses.

use std::collections::{BTreeMap, BTreeSet};

use model::{
    Digest, StageId, StageOutcome, Timestamp,
    event::run::{RunEvent, StoredLog},
    plan::Effect as StageEffect,
    protocol::{
        agent::{Lease, Report},
        auction::Reservation,
    },
};
use proptest::prelude::*;

use super::{
    Driven, Input, cancel, finished,
    model_of_a_run::{table, table_of},
    stage,
};
use crate::core::Status;

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
const AGENTS: [&str; 3] = ["one", "two", "three"];

/// What may be thrown at a run; numbers pick a stage, an agent, and an old or new lease.
#[derive(Debug, Clone)]
enum Throw {
    Propose { stage: usize, agent: usize, handover: bool },
    Started { lease: usize, agent: usize },
    Finished { lease: usize, agent: usize, outcome: StageOutcome },
    Declined { lease: usize, agent: usize },
    Lost { lease: usize, agent: usize },
    LogStored { lease: usize, agent: usize },
    Lapsed { lease: usize },
    NotTakenUp { lease: usize },
    Cancel,
}

fn throws() -> impl Strategy<Value = Throw> {
    let (stage, agent, lease) = (0..NAMES.len(), 0..AGENTS.len(), 0..100_usize);
    let outcome = prop_oneof![4 => Just(StageOutcome::Success), 1 => Just(StageOutcome::Failure), 1 => Just(StageOutcome::Aborted)];
    prop_oneof![
        6 => (stage, agent.clone(), any::<bool>()).prop_map(|(stage, agent, handover)| Throw::Propose { stage, agent, handover }),
        3 => (lease.clone(), agent.clone()).prop_map(|(lease, agent)| Throw::Started { lease, agent }),
        6 => (lease.clone(), agent.clone(), outcome).prop_map(|(lease, agent, outcome)| Throw::Finished { lease, agent, outcome }),
        1 => (lease.clone(), agent.clone()).prop_map(|(lease, agent)| Throw::Declined { lease, agent }),
        1 => (lease.clone(), agent.clone()).prop_map(|(lease, agent)| Throw::Lost { lease, agent }),
        2 => (lease.clone(), agent).prop_map(|(lease, agent)| Throw::LogStored { lease, agent }),
        1 => lease.clone().prop_map(|lease| Throw::Lapsed { lease }),
        1 => lease.prop_map(|lease| Throw::NotTakenUp { lease }),
        1 => Just(Throw::Cancel),
    ]
}

/// A plan of six stages: which earlier stages each needs, and whether it may start twice.
fn plans() -> impl Strategy<Value = Vec<(u8, bool)>> {
    prop::collection::vec((any::<u8>(), prop::bool::weighted(0.2)), NAMES.len())
}

fn driven(plan: &[(u8, bool)]) -> Driven {
    let stages = plan.iter().enumerate().map(|(at, (needs, once))| {
        let needs: Vec<&str> = (0..at).filter(|need| needs & (1 << need) != 0).map(|need| NAMES[need]).collect();
        let mut stage = stage(NAMES[at], &needs);
        if *once {
            stage.effect = StageEffect::Once;
            stage.retry = None;
        }
        stage
    });
    Driven::new(stages.collect())
}

/// Every lease there ever was, the newest last.
fn leases(run: &Driven) -> Vec<Lease> {
    let mut leases: Vec<Lease> = run
        .run
        .stages
        .iter()
        .enumerate()
        .flat_map(|(at, stage)| stage.attempts.iter().map(move |attempt| (at, attempt)))
        .map(|(at, attempt)| run.run.lease(at, attempt))
        .collect();
    leases.sort_by_key(|lease| lease.fence);
    leases
}

fn throw(run: &mut Driven, throw: &Throw) {
    let leases = leases(run);
    // Mostly the newest lease, whose agent is the holder; sometimes another's.
    let pick = |lease: usize| leases.iter().rev().nth(lease % 7 % leases.len().max(1)).cloned();
    let report = |run: &mut Driven, lease: usize, agent: usize, report: Report| {
        let Some(lease) = pick(lease) else { return };
        let holder = run.run.attempt_of(&lease).map(|(_, attempt)| attempt.agent.to_string());
        let by = if agent == 0 { AGENTS[0].to_owned() } else { holder.unwrap_or_default() };
        run.report(&by, &lease, report);
    };
    match throw {
        Throw::Propose { stage, agent, handover } => {
            let attempt =
                run.run.stages[*stage].attempts.iter().filter(|a| matches!(a.end, Some(crate::core::AttemptEnd::Lost { .. }))).count();
            let reservation = if *handover { Reservation::Handover } else { Reservation::Slot };
            let number = u32::try_from(attempt).unwrap() + 1;
            run.propose(NAMES[*stage], number, &[AGENTS[*agent]], &reservation);
        }
        Throw::Started { lease, agent } => report(run, *lease, *agent, Report::Started { at: Timestamp(1) }),
        Throw::Finished { lease, agent, outcome } => report(run, *lease, *agent, finished(*outcome)),
        Throw::Declined { lease, agent } => report(run, *lease, *agent, Report::Declined { reason: "busy".to_owned() }),
        Throw::Lost { lease, agent } => report(run, *lease, *agent, Report::Lost { reason: "restarted".to_owned() }),
        Throw::LogStored { lease, agent } => {
            let digest = Digest::of(b"");
            report(run, *lease, *agent, Report::LogStored { log: StoredLog::whole(digest, 0, digest) });
        }
        Throw::Lapsed { lease } => {
            if let Some(lease) = pick(*lease) {
                run.input(Input::LeaseLapsed(lease));
            }
        }
        Throw::NotTakenUp { lease } => {
            if let Some(lease) = pick(*lease) {
                run.input(Input::NotTakenUp(lease));
            }
        }
        Throw::Cancel => {
            run.input(cancel("somebody"));
        }
    }
}

/// The promises that hold after every record, whatever came before.
fn promises(run: &Driven) {
    let events: Vec<&RunEvent> = run.log.iter().flat_map(|(_, events)| events).collect();
    let mut results = BTreeSet::new();
    let mut starts: BTreeMap<&StageId, u32> = BTreeMap::new();
    for event in &events {
        match event {
            RunEvent::StageFinished { stage, .. } => assert!(results.insert(stage), "a stage has one result"),
            RunEvent::StageAwarded { stage, .. } => {
                assert!(!results.contains(stage), "no stage with a result runs again");
                *starts.entry(stage).or_default() += 1;
            }
            RunEvent::StageDeclined { stage, .. } => *starts.entry(stage).or_default() -= 1,
            _ => {}
        }
    }
    for (at, stage) in run.run.stages.iter().enumerate() {
        let planned = run.shape.stage(at);
        if planned.effect == StageEffect::Once {
            assert!(starts.get(&planned.id).is_none_or(|starts| *starts <= 1), "a `once` stage starts once");
        }
        if stage.status != Status::Waiting && !matches!(stage.status, Status::Skipped(_)) {
            let met = run.shape.needs(at).all(|need| run.run.stages[need].status == Status::Ended(StageOutcome::Success));
            assert!(met, "what a stage needs has succeeded before it is ready");
        }
    }
    assert_eq!(run.run.ended.is_some(), run.run.stages.iter().all(|stage| stage.is_over()), "a run ends with its last stage");
}

proptest! {
    #[test]
    fn a_replay_gives_the_live_state_after_every_prefix(plan in plans(), inputs in prop::collection::vec(throws(), 0..80)) {
        let mut run = driven(&plan);
        let mut live = vec![(run.log.len(), run.run.clone())];
        for input in &inputs {
            throw(&mut run, input);
            promises(&run);
            live.push((run.log.len(), run.run.clone()));
        }
        for (records, state) in live {
            let replayed = run.replayed(records);
            let events = run.log.iter().take(records).flat_map(|(_, events)| events);
            prop_assert_eq!(table_of(&replayed), table(events));
            prop_assert_eq!(replayed, state);
        }
    }

    #[test]
    fn every_run_reaches_an_end(plan in plans(), inputs in prop::collection::vec(throws(), 0..40)) {
        let mut run = driven(&plan);
        for input in &inputs {
            throw(&mut run, input);
        }
        // From here on an honest agent is there and takes everything.
        for _ in 0..100 {
            if run.run.ended.is_some() {
                break;
            }
            let active: Vec<usize> = run.run.active.iter().copied().collect();
            prop_assert!(!active.is_empty(), "an open run always has something to do");
            for at in active {
                match run.run.stages[at].status.clone() {
                    Status::Ready { attempt, declined, .. } => {
                        let willing: Vec<&str> = AGENTS.into_iter().chain(["four"]).filter(|name| !declined.contains(&super::agent(name))).collect();
                        run.propose(NAMES[at], attempt, &willing, &Reservation::Slot);
                    }
                    Status::Awarded | Status::Running => {
                        let holder = run.run.stages[at].holder().unwrap().agent.to_string();
                        run.finish(&holder, NAMES[at], StageOutcome::Success);
                    }
                    _ => {}
                }
            }
        }
        prop_assert!(run.run.ended.is_some());
    }
}
