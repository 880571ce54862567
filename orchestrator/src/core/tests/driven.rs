//! A run with its log, driven as the engine drives it.

use std::{collections::BTreeMap, sync::Arc};

use model::{
    AgentName, AttemptId, AuctionId, Digest, ProjectName, RunOutcome, StageId, StageOutcome, Timestamp, TriggerId,
    event::run::{Answer, CancelReason, Outputs, Planned, Question, RunEvent, WaitKey},
    plan::{Need, NeedReason, Plan, Stage, Step, Value},
    planning::Text,
    protocol::{
        agent::{AgentReport, Lease, Report},
        auction::{Offer, Proposal, RankedOffer, Reservation},
    },
    trigger::Trigger,
};

use crate::core::{
    Beginning, Context, Decision, Input, Position, Run, Shape, Status,
    decide::{Proposals, accept, before, decide},
    effects::{effects_of, touched},
    shape::Index,
};

pub(crate) fn trigger() -> Trigger {
    let project = "demo".parse::<ProjectName>().unwrap();
    Trigger::new(TriggerId::of("test", "1"), project, "Ottofile", Text::Inline(String::new()))
}

pub(super) fn agent(name: &str) -> AgentName {
    name.parse().unwrap()
}

/// A stage of one step that needs those with the given names.
pub(super) fn stage(path: &str, needs: &[&str]) -> Stage {
    Stage { steps: vec![sh(Value::from("make"))], ..waiting(path, needs) }
}

/// A stage without steps.
pub(super) fn waiting(path: &str, needs: &[&str]) -> Stage {
    Stage {
        needs: needs.iter().map(|path| Need { stage: StageId::of(path), reason: NeedReason::Order }).collect(),
        timeout_ms: 1_000,
        ..Stage::new(path)
    }
}

pub(super) fn sh(script: Value) -> Step {
    Step::new("stdlib", "sh", BTreeMap::from([("script".to_owned(), script)]))
}

pub(super) fn variable(name: &str) -> Value {
    Value::Variable { variable: name.to_owned() }
}

pub(super) fn cancel(by: &str) -> Input {
    Input::Cancel { by: by.to_owned(), reason: CancelReason::Person, force: false }
}

pub(super) fn finished(outcome: StageOutcome) -> Report {
    Report::Finished { outcome, reason: None, started_at: Some(Timestamp(1)), finished_at: Timestamp(2), outputs: Outputs::default() }
}

pub(super) fn kinds(events: &[RunEvent]) -> Vec<&'static str> {
    events.iter().map(RunEvent::kind).collect()
}

/// What a decision may know: these proposals, and for each wait a secret of its own.
pub(super) fn context(proposals: &Proposals) -> Context<'_> {
    Context {
        proposals,
        may_have: &|_, _, _| true,
        callback_secrets: &|run, stage, wait| Digest::of(format!("{run} {stage} {wait:?}").as_bytes()),
    }
}

/// The answer that lets a question's stage go on; `None` where only time does.
pub(super) fn good_answer(question: &Question) -> Option<Answer> {
    match question {
        Question::Confirm { delivery, .. } => Some(Answer::Approved { delivery: *delivery }),
        Question::Prompt { options, .. } => Some(Answer::Text { text: options.first().cloned().unwrap_or_else(|| "anything".to_owned()) }),
        Question::Webhook { .. } => Some(Answer::CalledBack),
        Question::Poll { .. } => Some(Answer::Polled),
        Question::Time => None,
        Question::Pause => Some(Answer::Resumed),
    }
}

/// A run with its log.
pub(super) struct Driven {
    pub(super) run: Run,
    pub(super) shape: Arc<Shape>,
    /// Place and events of each record.
    pub(super) log: Vec<(Position, Vec<RunEvent>)>,
    pub(super) proposals: Proposals,
    pub(super) now: u64,
}

impl Driven {
    pub(super) fn new(stages: Vec<Stage>) -> Self {
        Self::of(Plan::new(stages), &trigger(), &Beginning::default())
    }

    pub(super) fn of(plan: Plan, trigger: &Trigger, beginning: &Beginning) -> Self {
        let shape = Arc::new(Shape::new(plan));
        let planned = Planned::plan(Digest::of(b"plan"));
        let position = Position { sequence: 1, at: Timestamp(0) };
        let mut run = before(trigger, planned, shape.clone(), position);
        let events = accept(&run, &context(&Proposals::new()), beginning, Timestamp(0));
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

    pub(super) fn at(&self, path: &str) -> Index {
        self.shape.find(&StageId::of(path)).unwrap()
    }

    pub(super) fn status(&self, path: &str) -> &Status {
        &self.run.stages[self.at(path)].status
    }

    pub(super) fn reason(&self, path: &str) -> &str {
        self.run.stages[self.at(path)].reason.as_deref().unwrap_or_default()
    }

    pub(super) fn outcome(&self) -> Option<RunOutcome> {
        self.run.ended.map(|(outcome, _)| outcome)
    }

    pub(super) fn attempt(&self, path: &str, attempt: u32) -> AttemptId {
        AttemptId { run: self.run.id.clone(), stage: StageId::of(path), attempt }
    }

    /// The lease of whoever has the stage now.
    pub(super) fn lease(&self, path: &str) -> Lease {
        let at = self.at(path);
        self.run.lease(at, self.run.stages[at].holder().expect("somebody has the stage"))
    }

    /// An agent offers to run the stage, and the auctioneer proposes it.
    pub(super) fn propose(&mut self, path: &str, attempt: u32, agents: &[&str], reservation: &Reservation) -> Decision {
        let at = self.at(path);
        let attempt = self.attempt(path, attempt);
        let offer = Offer::new(0, 0, reservation.clone());
        let offers = agents.iter().map(|name| RankedOffer { agent: agent(name), offer: offer.clone() }).collect();
        let auction = AuctionId::of(&attempt, 1);
        self.proposals.insert(at, Proposal { auction, attempt, offers, declined: Vec::new(), unmet: Vec::new(), closed_at: Timestamp(0) });
        self.input(Input::Proposed(at))
    }

    pub(super) fn report(&mut self, by: &str, lease: &Lease, report: Report) -> Decision {
        self.input(Input::Report { agent: agent(by), report: AgentReport { lease: lease.clone(), report } })
    }

    pub(super) fn finish(&mut self, by: &str, path: &str, outcome: StageOutcome) -> Decision {
        let lease = self.lease(path);
        self.report(by, &lease, finished(outcome))
    }

    /// Places the ready stage at the agent `one`.
    pub(super) fn start(&mut self, path: &str) -> Decision {
        let Status::Ready { attempt, .. } = *self.status(path) else { panic!("{path} is {:?}", self.status(path)) };
        self.propose(path, attempt, &["one"], &Reservation::Slot)
    }

    /// Places the ready stage, and ends it.
    pub(super) fn through(&mut self, path: &str, outcome: StageOutcome) -> Decision {
        self.start(path);
        self.finish("one", path, outcome)
    }

    /// The same, and it leaves these variables.
    pub(super) fn leaving(&mut self, path: &str, variables: &[(&str, Option<&str>)]) -> Decision {
        self.start(path);
        let variables = variables.iter().map(|(name, text)| ((*name).to_owned(), text.map(str::to_owned))).collect();
        let outputs = Outputs { variables, ..Outputs::default() };
        let lease = self.lease(path);
        let (outcome, reason) = (StageOutcome::Success, None);
        self.report("one", &lease, Report::Finished { outcome, reason, started_at: None, finished_at: Timestamp(2), outputs })
    }

    pub(super) fn answer(&mut self, path: &str, wait: WaitKey, answer: Answer) -> Decision {
        let at = self.at(path);
        self.input(Input::Answered { at, wait, answer, by: Some("ann".to_owned()) })
    }

    /// Lets time pass to the next thing that happens by itself.
    pub(super) fn pass_time(&mut self) -> Decision {
        let due = self.run.next_due().expect("something is due");
        self.now = self.now.max(due.0.saturating_sub(1));
        self.input(Input::TimePassed)
    }

    /// The question that is open.
    pub(super) fn question(&self, path: &str, wait: WaitKey) -> &Question {
        let stage = &self.run.stages[self.at(path)];
        let (_, opened) = stage.open_waits().find(|(key, _)| *key == wait).expect("the question is open");
        &opened.question
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

impl Drop for Driven {
    /// What happened, where a test fails.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let path = |event: &RunEvent| event.stage().and_then(|id| self.run.stage(id)).map(|(planned, _)| planned.path.clone());
            let events = self.log.iter().skip(1).flat_map(|(position, events)| events.iter().map(move |event| (position.at.0, event)));
            let told: Vec<String> = events.map(|(at, event)| format!("{at} {:?} {event:?}", path(event))).collect();
            eprintln!("the run's log:\n{}", told.join("\n"));
        }
    }
}
