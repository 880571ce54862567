//! The state machine under any order of inputs, held against a small independent model.

mod model_of_a_run;
mod properties;
mod stories;

use std::{collections::BTreeMap, sync::Arc};

use model::{
    AgentName, AttemptId, AuctionId, Digest, ProjectName, StageId, StageOutcome, Timestamp, TriggerId,
    context::TriggerContext,
    event::run::{CancelReason, Outputs, Planned, RunEvent},
    plan::{Need, NeedReason, Plan, Stage, Step, Value},
    planning::Text,
    protocol::{
        agent::{AgentReport, Lease, Report},
        auction::{Offer, Proposal, RankedOffer, Reservation},
    },
    trigger::Trigger,
};

use super::{
    Beginning, Context, Decision, Input, Position, Run, Shape,
    decide::{Proposals, accept, before, decide},
    effects::{effects_of, touched},
};

pub(crate) fn trigger() -> Trigger {
    Trigger {
        id: TriggerId::of("test", "1"),
        project: "demo".parse::<ProjectName>().unwrap(),
        context: TriggerContext::default(),
        pipeline_path: "Ottofile".to_owned(),
        pipeline: Text::Inline(String::new()),
        source: None,
        listing: None,
        changed: None,
        lock: None,
        missing_libraries: BTreeMap::new(),
        rerun: None,
        timeout_ms: None,
        only: None,
        stop_at_failure: false,
    }
}

/// What a decision may know: these proposals, and for each wait a secret of its own.
fn context(proposals: &Proposals) -> Context<'_> {
    Context { proposals, callback_secrets: &|run, stage, wait| Digest::of(format!("{run} {stage} {wait:?}").as_bytes()) }
}

pub(super) fn agent(name: &str) -> AgentName {
    name.parse().unwrap()
}

/// A stage that needs those with the given names.
pub(super) fn stage(path: &str, needs: &[&str]) -> Stage {
    Stage {
        needs: needs.iter().map(|path| Need { stage: StageId::of(path), reason: NeedReason::Order }).collect(),
        timeout_ms: 1_000,
        steps: vec![Step::new("stdlib", "sh", BTreeMap::from([("script".to_owned(), Value::from("make"))]))],
        ..Stage::new(path)
    }
}

/// A run with its log, driven as the engine drives it.
pub(super) struct Driven {
    pub(super) run: Run,
    pub(super) shape: Arc<Shape>,
    /// Place and events of each record.
    pub(super) log: Vec<(Position, Vec<RunEvent>)>,
    pub(super) proposals: Proposals,
    now: u64,
}

impl Driven {
    pub(super) fn new(stages: Vec<Stage>) -> Self {
        let shape = Arc::new(Shape::new(Plan::new(stages)));
        let planned = Planned::Plan { digest: Digest::of(b"plan"), libraries: BTreeMap::new() };
        let position = Position { sequence: 1, at: Timestamp(0) };
        let mut run = before(&trigger(), planned, shape.clone(), position);
        let events = accept(&run, &context(&Proposals::new()), &Beginning::default(), Timestamp(0));
        for event in events.iter().skip(1) {
            run.apply(position, event).unwrap();
        }
        Self { run, shape, log: vec![(position, events)], proposals: Proposals::new(), now: 0 }
    }

    /// Decides one input, stores what follows, and gives the decision.
    pub(super) fn input(&mut self, input: Input) -> Decision {
        self.now += 1;
        let decision = decide(&self.run, &context(&self.proposals), &[input], Timestamp(self.now));
        if !decision.events.is_empty() {
            let before: Vec<_> = (0..self.shape.len()).map(|at| effects_of(&self.run, at)).collect();
            let sequence = self.log.last().map_or(0, |(last, _)| last.sequence) + 1;
            let position = Position { sequence, at: Timestamp(self.now) };
            for event in &decision.events {
                self.run.apply(position, event).unwrap();
            }
            self.log.push((position, decision.events.clone()));
            let touched = touched(&self.run, &decision.events);
            let same = |at| effects_of(&self.run, at) == before[at] || touched.as_ref().is_none_or(|touched| touched.contains(&at));
            assert!((0..self.shape.len()).all(same), "no effect changes unnoticed: {:?}", decision.events);
        }
        decision
    }

    pub(super) fn attempt(&self, path: &str, attempt: u32) -> AttemptId {
        AttemptId { run: self.run.id.clone(), stage: StageId::of(path), attempt }
    }

    /// The lease of whoever has the stage now.
    pub(super) fn lease(&self, path: &str) -> Lease {
        let at = self.shape.find(&StageId::of(path)).unwrap();
        self.run.lease(at, self.run.stages[at].holder().expect("somebody has the stage"))
    }

    /// An agent offers to run the stage, and the auctioneer proposes it.
    pub(super) fn propose(&mut self, path: &str, attempt: u32, agents: &[&str], reservation: &Reservation) -> Decision {
        let at = self.shape.find(&StageId::of(path)).unwrap();
        let attempt = self.attempt(path, attempt);
        let offer = Offer { price_micros_per_s: 0, start_ms: 0, reservation: reservation.clone() };
        let offers = agents.iter().map(|name| RankedOffer { agent: agent(name), offer: offer.clone() }).collect();
        let auction = AuctionId::of(&attempt, 1);
        self.proposals.insert(at, Proposal { auction, attempt, offers, declined: Vec::new(), closed_at: Timestamp(0) });
        self.input(Input::Proposed(at))
    }

    pub(super) fn report(&mut self, by: &str, lease: &Lease, report: Report) -> Decision {
        self.input(Input::Report { agent: agent(by), report: AgentReport { lease: lease.clone(), report } })
    }

    pub(super) fn finish(&mut self, by: &str, path: &str, outcome: StageOutcome) -> Decision {
        let lease = self.lease(path);
        self.report(by, &lease, finished(outcome))
    }

    /// The run as a reader of the first `records` records has it.
    pub(super) fn replayed(&self, records: usize) -> Run {
        let (first, events) = &self.log[0];
        let RunEvent::RunAccepted { trigger, planned } = &events[0] else { panic!("a log begins with its acceptance") };
        let mut run = before(trigger, planned.clone(), self.shape.clone(), *first);
        for (at, (position, events)) in self.log.iter().take(records).enumerate() {
            for event in events.iter().skip(usize::from(at == 0)) {
                run.apply(*position, event).unwrap();
            }
        }
        run
    }
}

pub(super) fn finished(outcome: StageOutcome) -> Report {
    Report::Finished { outcome, reason: None, started_at: Some(Timestamp(1)), finished_at: Timestamp(2), outputs: Outputs::default() }
}

pub(super) fn cancel(by: &str) -> Input {
    Input::Cancel { by: by.to_owned(), reason: CancelReason::Person, force: false }
}
