//! Any plan, and any order of inputs, with doubles, lies and losses.

use model::{
    Digest, StageOutcome, Timestamp,
    event::run::{Answer, CancelReason, Outputs, RunEvent, StoredLog, WaitKey},
    protocol::{
        agent::{Lease, Report},
        auction::Reservation,
    },
};
use proptest::prelude::*;

use super::{
    consistency::consistent,
    driven::{Driven, agent, finished, good_answer},
    model_of_a_run::{promises, table, table_of},
    plans::{NAMES, Scene, scenes},
};
use crate::core::{Input, Position, Run, Status, rerun};

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
const AGENTS: [&str; 3] = ["one", "two", "three"];
/// Rounds in which an honest world brings every run of some stages to its end.
const ROUNDS_MAX: usize = 200;

/// What may be thrown at a run; numbers pick a stage, an agent, and an old or new lease.
#[derive(Debug, Clone)]
enum Throw {
    Propose {
        stage: usize,
        agent: usize,
        handover: bool,
    },
    Started {
        lease: usize,
        agent: usize,
    },
    Finished {
        lease: usize,
        agent: usize,
        outcome: StageOutcome,
        x: Option<&'static str>,
    },
    Declined {
        lease: usize,
        agent: usize,
    },
    Lost {
        lease: usize,
        agent: usize,
    },
    LogStored {
        lease: usize,
        agent: usize,
    },
    Lapsed {
        lease: usize,
    },
    NotTakenUp {
        lease: usize,
    },
    /// The good answer to an open question, or any answer to anything.
    Answer {
        stage: usize,
        wait: WaitKey,
        other: Option<Answer>,
    },
    Grant {
        stage: usize,
    },
    Release,
    Pass {
        ms: u64,
    },
    /// The clock is set anew, by a day.
    Jump {
        back: bool,
    },
    Cancel {
        reason: CancelReason,
        force: bool,
    },
}

fn answers() -> impl Strategy<Value = Option<Answer>> {
    let any = prop_oneof![
        Just(Answer::Refused { reason: None }),
        Just(Answer::Approved { delivery: Digest::of(b"another") }),
        Just(Answer::Text { text: "b".to_owned() }),
        Just(Answer::CalledBack),
        Just(Answer::Polled),
        Just(Answer::Elapsed),
        Just(Answer::Resumed),
        Just(Answer::TimedOut),
    ];
    prop_oneof![3 => Just(None), 2 => any.prop_map(Some)]
}

fn throws() -> impl Strategy<Value = Throw> {
    let (stage, agent, lease) = (|| 0..NAMES.len(), || 0..AGENTS.len(), || 0..100_usize);
    let outcome = prop_oneof![
        4 => Just(StageOutcome::Success),
        2 => Just(StageOutcome::Failure),
        1 => Just(StageOutcome::Unstable),
        1 => Just(StageOutcome::Aborted)
    ];
    let x = prop_oneof![Just(None), Just(Some("a")), Just(Some("b"))];
    let wait = prop_oneof![Just(WaitKey::Itself), (0..2_u32).prop_map(WaitKey::Enter), (0..2_u32).prop_map(WaitKey::Exit)];
    let newer = CancelReason::Newer { run: model::RunId::of(&model::TriggerId::of("test", "newer")) };
    let reason = prop_oneof![2 => Just(CancelReason::Person), 2 => Just(newer), 1 => Just(CancelReason::TimedOut)];
    prop_oneof![
        12 => (stage(), agent(), any::<bool>()).prop_map(|(stage, agent, handover)| Throw::Propose { stage, agent, handover }),
        4 => (lease(), agent()).prop_map(|(lease, agent)| Throw::Started { lease, agent }),
        12 => (lease(), agent(), outcome, x).prop_map(|(lease, agent, outcome, x)| Throw::Finished { lease, agent, outcome, x }),
        2 => (lease(), agent()).prop_map(|(lease, agent)| Throw::Declined { lease, agent }),
        2 => (lease(), agent()).prop_map(|(lease, agent)| Throw::Lost { lease, agent }),
        2 => (lease(), agent()).prop_map(|(lease, agent)| Throw::LogStored { lease, agent }),
        2 => lease().prop_map(|lease| Throw::Lapsed { lease }),
        1 => lease().prop_map(|lease| Throw::NotTakenUp { lease }),
        10 => (stage(), wait, answers()).prop_map(|(stage, wait, other)| Throw::Answer { stage, wait, other }),
        6 => stage().prop_map(|stage| Throw::Grant { stage }),
        2 => Just(Throw::Release),
        4 => (1..40_u64).prop_map(|ms| Throw::Pass { ms }),
        1 => any::<bool>().prop_map(|back| Throw::Jump { back }),
        1 => (reason, prop::bool::weighted(0.2)).prop_map(|(reason, force)| Throw::Cancel { reason, force }),
    ]
}

fn driven(scene: &Scene) -> Driven {
    Driven::of(scene.plan.clone(), &scene.trigger, &scene.beginning)
}

/// Every lease there ever was, the newest last.
fn leases(run: &Driven) -> Vec<Lease> {
    let attempts = run.run.stages.iter().enumerate().flat_map(|(at, stage)| stage.attempts.iter().map(move |attempt| (at, attempt)));
    let mut leases: Vec<Lease> = attempts.map(|(at, attempt)| run.run.lease(at, attempt)).collect();
    leases.sort_by_key(|lease| lease.fence);
    leases
}

fn path(run: &Driven, at: usize) -> String {
    run.shape.stage(at).path.clone()
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
        Throw::Propose { stage, agent, handover } if *stage < run.shape.len() => {
            let reservation = if *handover { Reservation::Handover } else { Reservation::Slot };
            let number = if let Status::Ready { attempt, .. } = run.run.stages[*stage].status { attempt } else { 1 };
            run.propose(&path(run, *stage), number, &[AGENTS[*agent]], &reservation);
        }
        Throw::Started { lease, agent } => report(run, *lease, *agent, Report::Started { at: Timestamp(1) }),
        Throw::Finished { lease, agent, outcome, x } => {
            let variables = [("x".to_owned(), x.map(str::to_owned))].into();
            let mut result = finished(*outcome);
            if let Report::Finished { outputs, .. } = &mut result {
                *outputs = Outputs { variables, ..Outputs::default() };
            }
            report(run, *lease, *agent, result);
        }
        Throw::Declined { lease, agent } => report(run, *lease, *agent, Report::Declined { reason: "busy".to_owned() }),
        Throw::Lost { lease, agent } => report(run, *lease, *agent, Report::Lost { reason: "restarted".to_owned() }),
        Throw::LogStored { lease, agent } => {
            let digest = Digest::of(b"");
            report(run, *lease, *agent, Report::LogStored { log: StoredLog::whole(digest, 0, digest) });
        }
        Throw::Lapsed { lease } => drop(pick(*lease).map(|lease| run.input(Input::LeaseLapsed(lease)))),
        Throw::NotTakenUp { lease } => drop(pick(*lease).map(|lease| run.input(Input::NotTakenUp(lease)))),
        Throw::Answer { stage, wait, other } => {
            let open = run.run.stages.iter().flat_map(|stage| stage.open_waits().collect::<Vec<_>>());
            let places = run.run.stages.iter().enumerate().flat_map(|(at, stage)| stage.open_waits().map(move |(key, _)| (at, key)));
            let (mut at, mut wait) = (*stage, *wait);
            let mut answer = other.clone();
            let open: Vec<_> = places.zip(open).collect();
            if !open.is_empty() {
                // Mostly a question that is open.
                let ((place, key), (_, opened)) = open[*stage % open.len()];
                (at, wait) = (place, key);
                answer = answer.or_else(|| good_answer(&opened.question));
            }
            if let Some(answer) = answer {
                run.input(Input::Answered { at, wait, answer, by: None });
            }
        }
        Throw::Grant { stage } => {
            let queued = (0..run.shape.len()).filter(|at| matches!(run.run.stages[*at].status, Status::Queued { .. }));
            let at = queued.cycle().nth(*stage).unwrap_or(*stage);
            run.input(Input::LockGranted(at));
        }
        Throw::Release => drop(run.input(Input::Released)),
        Throw::Pass { ms } => {
            run.now += ms;
            run.input(Input::TimePassed);
            assert!(run.run.next_due().is_none_or(|due| due.0 > run.now), "what was due has happened");
        }
        Throw::Jump { back } => {
            run.now = if *back { run.now.saturating_sub(DAY_MS) } else { run.now + DAY_MS };
            run.input(Input::TimePassed);
        }
        Throw::Cancel { reason, force } => {
            run.input(Input::Cancel { by: "somebody".to_owned(), reason: reason.clone(), force: *force });
        }
        Throw::Propose { .. } => {}
    }
}

/// What an honest world does for the run next; `false` if nothing is left that it could do.
fn help(run: &mut Driven) -> bool {
    if run.run.held.is_some() {
        run.input(Input::Released);
        return true;
    }
    let all = || 0..run.shape.len();
    if let Some(at) = all().find(|at| matches!(run.run.stages[*at].status, Status::Ready { .. } | Status::Awarded | Status::Running)) {
        let path = path(run, at);
        if let Status::Ready { attempt, declined, .. } = run.run.stages[at].status.clone() {
            let willing: Vec<&str> = AGENTS.into_iter().chain(["four"]).filter(|name| !declined.contains(&agent(name))).collect();
            run.propose(&path, attempt, &willing, &Reservation::Slot);
        } else {
            let holder = run.run.stages[at].holder().unwrap().agent.to_string();
            run.finish(&holder, &path, StageOutcome::Success);
        }
        return true;
    }
    let free = |at: &usize| matches!(&run.run.stages[*at].status, Status::Queued { lock, .. } if run.run.holder_of(lock).is_none());
    if let Some(at) = all().find(free) {
        run.input(Input::LockGranted(at));
        return true;
    }
    let answerable = |at: usize| run.run.stages[at].open_waits().find_map(|(key, opened)| Some((at, key, good_answer(&opened.question)?)));
    if let Some((at, wait, answer)) = all().find_map(answerable) {
        run.input(Input::Answered { at, wait, answer, by: None });
        return true;
    }
    let due = run.run.next_due().is_some();
    if due {
        run.pass_time();
    }
    due
}

fn to_its_end(run: &mut Driven) {
    for _ in 0..ROUNDS_MAX {
        if run.run.ended.is_some() {
            return;
        }
        assert!(help(run), "an open run always has something to do: {:?}", run.run.stages);
    }
    panic!("the run does not end: {:?}", run.run.stages);
}

fn records(run: &Driven) -> impl Iterator<Item = &[RunEvent]> {
    run.log.iter().map(|(_, events)| events.as_slice())
}

proptest! {
    #[test]
    fn a_replay_gives_the_live_state_after_every_prefix(scene in scenes(), inputs in prop::collection::vec(throws(), 0..100)) {
        let mut run = driven(&scene);
        let mut live = vec![(run.log.len(), run.run.clone())];
        for input in &inputs {
            throw(&mut run, input);
            consistent(&run.run);
            live.push((run.log.len(), run.run.clone()));
        }
        promises(run.shape.plan(), records(&run));
        for (records, state) in live {
            let replayed = run.replayed(records);
            let events = run.log.iter().take(records).flat_map(|(_, events)| events);
            prop_assert_eq!(table_of(&replayed), table(events));
            let kept = serde_json::to_vec(&replayed.kept()).unwrap();
            let position = Position { sequence: 0, at: replayed.accepted_at };
            let read = Run::of_kept(
                serde_json::from_slice(&kept).unwrap(),
                &replayed.trigger,
                replayed.planned.clone(),
                replayed.shape.clone(),
                position,
            );
            prop_assert_eq!(read.as_ref(), Some(&replayed), "what is written down is read as it was");
            prop_assert_eq!(replayed, state);
        }
    }

    #[test]
    fn every_run_reaches_an_end(scene in scenes(), inputs in prop::collection::vec(throws(), 0..60)) {
        let mut run = driven(&scene);
        for input in &inputs {
            throw(&mut run, input);
        }
        to_its_end(&mut run);
        consistent(&run.run);
        let found = promises(run.shape.plan(), records(&run));
        for (at, found) in found.into_iter().enumerate() {
            // Besides, a stage finds what a person answered at its own gates, and `notify` everything.
            let stage = &run.run.stages[at];
            if !stage.attempts.is_empty() && stage.waits.is_empty() && run.shape.notify() != Some(at) {
                prop_assert_eq!(run.run.found(at).variables, found);
            }
        }
    }

    #[test]
    fn a_run_that_is_run_again_reaches_an_end(scene in scenes(), inputs in prop::collection::vec(throws(), 0..60), which in 0..NAMES.len()) {
        let mut old = driven(&scene);
        for input in &inputs {
            throw(&mut old, input);
        }
        to_its_end(&mut old);
        let stages = match old.shape.len() {
            _ if which == 0 => model::trigger::RerunStages::Failed,
            stages => model::trigger::RerunStages::Stage(old.shape.stage(which % stages).id.clone()),
        };
        let reused = rerun::reused(&old.run, &stages);
        let beginning = crate::core::Beginning { reused, ..scene.beginning.clone() };
        let mut run = Driven::of(scene.plan.clone(), &model::trigger::Trigger { only: None, ..scene.trigger.clone() }, &beginning);
        to_its_end(&mut run);
        consistent(&run.run);
        for at in beginning.reused.keys() {
            prop_assert!(run.run.stages[*at].attempts.is_empty(), "what is reused does not run");
        }
        prop_assert_eq!(&run.replayed(run.log.len()), &run.run);
    }
}
