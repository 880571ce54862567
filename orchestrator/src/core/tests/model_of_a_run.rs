//! A second, much simpler account of a run: a table from stage to a word, made from nothing but the events and the plan. It shares no code
//! with the state machine, and knows no effect, no offer and no fence. Where an event may not come, it says so.

use std::collections::{BTreeMap, BTreeSet};

use model::{
    StageId, StageOutcome,
    event::run::{Answer, RunEvent, SkipReason, WaitKey},
    plan::{Condition, Effect, Plan, Stage, StageKind, Value},
};

use crate::core::{Run, Status};

/// The word for each stage, and the run's outcome.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) stages: BTreeMap<StageId, String>,
    pub(super) outcome: Option<String>,
    pub(super) cancelled: bool,
}

/// The table after these events. Stages that no event speaks of are not in it.
pub(super) fn table<'a>(events: impl Iterator<Item = &'a RunEvent>) -> Table {
    let mut table = Table::default();
    for event in events {
        let (stage, word) = match event {
            RunEvent::RunFinished { outcome } => {
                table.outcome = Some(outcome.to_string());
                continue;
            }
            RunEvent::CancelRequested { .. } => {
                table.cancelled = true;
                continue;
            }
            RunEvent::StageReady { stage, attempt } | RunEvent::StageDeclined { stage, attempt, .. } => (stage, format!("ready {attempt}")),
            RunEvent::StageAwarded { stage, attempt, agent, .. } => (stage, format!("awarded {attempt} {agent}")),
            RunEvent::StageStarted { stage, attempt, .. } => (stage, format!("running {attempt}")),
            RunEvent::StageFinished { stage, outcome, .. }
            | RunEvent::StageEnded { stage, outcome, .. }
            | RunEvent::StageReused { stage, outcome, .. } => (stage, outcome.to_string()),
            RunEvent::StageRetried { stage, attempt, .. } => (stage, format!("pausing {attempt}")),
            RunEvent::WaitOpened { stage, wait: WaitKey::Exit(_), .. } => (stage, "exiting".to_owned()),
            RunEvent::WaitOpened { stage, .. } => (stage, "gated".to_owned()),
            RunEvent::LockQueued { stage, .. } => (stage, "queued".to_owned()),
            RunEvent::StageLost { stage, .. } => (stage, "lost".to_owned()),
            RunEvent::StageSkipped { stage, .. } => (stage, "skipped".to_owned()),
            _ => continue,
        };
        table.stages.insert(stage.clone(), word);
    }
    table
}

/// The same table, read off the state machine.
pub(super) fn table_of(run: &Run) -> Table {
    let mut stages = BTreeMap::new();
    for (at, stage) in run.stages.iter().enumerate() {
        let last = stage.attempts.last();
        let word = match &stage.status {
            Status::Waiting => continue,
            Status::Gated { .. } => "gated".to_owned(),
            Status::Queued { .. } => "queued".to_owned(),
            Status::Ready { attempt, .. } => format!("ready {attempt}"),
            Status::Awarded => last.map(|last| format!("awarded {} {}", last.number, last.agent)).unwrap(),
            Status::Running => last.map(|last| format!("running {}", last.number)).unwrap(),
            Status::Pausing { attempt, .. } => format!("pausing {attempt}"),
            Status::Exiting { .. } => "exiting".to_owned(),
            Status::Ended(StageOutcome::Success) => "success".to_owned(),
            Status::Ended(StageOutcome::Unstable) => "unstable".to_owned(),
            Status::Ended(StageOutcome::Failure) => "failure".to_owned(),
            Status::Ended(StageOutcome::Aborted) => "aborted".to_owned(),
            Status::Lost => "lost".to_owned(),
            Status::Skipped(_) => "skipped".to_owned(),
        };
        stages.insert(run.shape.stage(at).id.clone(), word);
    }
    Table { stages, outcome: run.ended.map(|(outcome, _)| outcome.to_string()), cancelled: run.cancelled.is_some() }
}

/// What the events have said of one stage.
#[derive(Debug, Default)]
struct Told {
    /// Its last word, as in [`table`], and why it was skipped.
    word: String,
    skipped: Option<SkipReason>,
    starts: u32,
    results: BTreeSet<u32>,
    retries: u32,
    opened: BTreeSet<WaitKey>,
    answered: BTreeMap<WaitKey, Answer>,
    has_lock: bool,
    variables: BTreeMap<String, Option<String>>,
    /// It was over at the end of a record.
    over: bool,
}

/// The promises that hold for every log, whatever came before. `records` are those of one run of `plan`. Gives the variables that each stage finds.
pub(super) fn promises<'a>(plan: &Plan, records: impl Iterator<Item = &'a [RunEvent]>) -> Vec<BTreeMap<String, String>> {
    let mut log = Log { plan, told: BTreeMap::new(), held: false, cancelled: Cancel::Not, ended: false };
    for record in records {
        for event in record {
            log.take(event);
        }
        log.record_ends();
    }
    plan.stages.iter().map(|stage| log.found(&stage.id)).collect()
}

struct Log<'a> {
    plan: &'a Plan,
    told: BTreeMap<StageId, Told>,
    held: bool,
    cancelled: Cancel,
    ended: bool,
}

/// Who has ended the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cancel {
    Not,
    Time,
    Others,
}

impl Log<'_> {
    fn planned(&self, id: &StageId) -> (usize, &Stage) {
        self.plan.stages.iter().enumerate().find(|(_, stage)| stage.id == *id).unwrap()
    }

    fn is_notify(&self, at: usize) -> bool {
        !self.plan.notify.is_empty() && at + 1 == self.plan.stages.len()
    }

    fn is_work(&self, at: usize) -> bool {
        !self.is_notify(at) && self.plan.stages[at].kind != StageKind::Rollback
    }

    fn word(&self, id: &StageId) -> &str {
        self.told.get(id).map_or("", |told| told.word.as_str())
    }

    fn is_over(&self, id: &StageId) -> bool {
        matches!(self.word(id), "success" | "unstable" | "failure" | "aborted" | "lost" | "skipped")
    }

    fn ended_well(&self, id: &StageId) -> bool {
        let (_, planned) = self.planned(id);
        match self.word(id) {
            "success" | "unstable" => true,
            "failure" => planned.allow_failure,
            "lost" => planned.allow_failure && planned.effect == Effect::Safe,
            "skipped" => matches!(self.told[id].skipped, Some(SkipReason::Condition { .. })),
            _ => false,
        }
    }

    /// The variables that the stage finds: those of every stage before it that it waits for, in the plan's order.
    fn found(&self, id: &StageId) -> BTreeMap<String, String> {
        let mut before = BTreeSet::new();
        let mut open = vec![id.clone()];
        while let Some(stage) = open.pop() {
            for need in &self.planned(&stage).1.needs {
                if before.insert(need.stage.clone()) {
                    open.push(need.stage.clone());
                }
            }
        }
        let mut found = BTreeMap::new();
        for stage in self.plan.stages.iter().filter(|stage| before.contains(&stage.id)) {
            let Some(told) = self.told.get(&stage.id) else { continue };
            // A plan of these tests asks for one variable only.
            let texts = told.answered.values().filter_map(|answer| if let Answer::Text { text } = answer { Some(text) } else { None });
            found.extend(texts.map(|text| ("x".to_owned(), text.clone())));
            for (name, text) in &told.variables {
                match text {
                    Some(text) => found.insert(name.clone(), text.clone()),
                    None => found.remove(name),
                };
            }
        }
        found
    }

    /// Nothing of the stage may begin that has not the run's leave.
    fn begins(&self, id: &StageId) {
        let (at, planned) = self.planned(id);
        assert!(!self.held, "nothing begins in a run that is held");
        assert!(planned.needs.iter().all(|need| self.ended_well(&need.stage)), "what {} needs has ended well", planned.path);
        assert!(planned.skipped.is_none(), "{} is skipped by its plan", planned.path);
        for condition in &planned.conditions {
            let Condition::Equal(Value::Variable { variable }, Value::Text(text)) = condition else { panic!("{condition:?}") };
            assert_eq!(
                self.found(id).get(variable).map(String::as_str).unwrap_or_default(),
                text,
                "the condition of {} holds",
                planned.path
            );
        }
        self.may_start_after_a_cancel(id);
        let before_it = |other: usize| {
            let is_later = other > at && self.plan.stages[other].kind == StageKind::Rollback;
            !self.is_work(at) && (self.is_work(other) || self.is_notify(at) || is_later) && other != at && !self.is_notify(other)
        };
        let open = (0..self.plan.stages.len()).filter(|other| before_it(*other)).find(|other| !self.is_over(&self.plan.stages[*other].id));
        assert_eq!(open, None, "{} has its turn at the end", planned.path);
        for block in &planned.fanouts {
            let others = self.plan.stages.iter().filter(|other| other.id != *id && other.fanouts.contains(block));
            let failed = others
                .filter(|other| other.kind != StageKind::Rollback && !other.allow_failure)
                .find(|other| self.word(&other.id) == "failure");
            assert!(!self.is_work(at) || failed.is_none(), "{} does not begin after {failed:?} of its fanout", planned.path);
        }
    }

    fn may_start_after_a_cancel(&self, id: &StageId) {
        let (at, planned) = self.planned(id);
        let may = self.is_notify(at) || (planned.kind == StageKind::Rollback && self.cancelled == Cancel::Time);
        assert!(self.cancelled == Cancel::Not || may, "{} does not start after a cancel", planned.path);
    }

    fn has_passed(&self, id: &StageId, keys: impl Iterator<Item = WaitKey>) -> bool {
        let told = self.told.get(id);
        keys.into_iter().all(|key| {
            let answer = told.and_then(|told| told.answered.get(&key).filter(|_| told.opened.contains(&key)));
            answer.is_some_and(|answer| !matches!(answer, Answer::Refused { .. } | Answer::TimedOut))
        })
    }

    fn has_entered(&self, id: &StageId) -> bool {
        let (_, planned) = self.planned(id);
        self.has_passed(id, (0..).map(WaitKey::Enter).take(planned.enter.len()))
    }

    fn take(&mut self, event: &RunEvent) {
        assert!(!self.ended || matches!(event, RunEvent::StageLogStored { .. }), "nothing follows the end: {event:?}");
        match event {
            RunEvent::RunHeld { .. } => self.held = true,
            RunEvent::RunReleased => self.held = false,
            RunEvent::CancelRequested { reason, .. } => {
                let by_time = *reason == model::event::run::CancelReason::TimedOut && self.cancelled != Cancel::Others;
                self.cancelled = if by_time { Cancel::Time } else { Cancel::Others };
                self.held = false;
            }
            RunEvent::RunFinished { .. } => {
                assert!(self.plan.stages.iter().all(|stage| self.is_over(&stage.id)), "a run ends with its last stage");
                self.ended = true;
            }
            _ => {}
        }
        let Some(id) = event.stage().cloned() else { return };
        let over = self.told.get(&id).is_some_and(|told| told.over);
        assert!(!over || matches!(event, RunEvent::StageLogStored { .. }), "a stage is over once: {event:?}");
        self.check(&id, event);
        let word = table(std::iter::once(event)).stages.remove(&id);
        let told = self.told.entry(id).or_default();
        told.word = word.unwrap_or_else(|| std::mem::take(&mut told.word));
        match event {
            RunEvent::StageAwarded { .. } => told.starts += 1,
            RunEvent::StageDeclined { .. } => told.starts -= 1,
            RunEvent::StageFinished { attempt, outputs, .. } => {
                assert!(told.results.insert(*attempt), "an attempt has one result");
                told.variables.extend(outputs.variables.clone());
            }
            RunEvent::StageRetried { .. } => {
                told.variables.clear();
                told.retries += 1;
            }
            RunEvent::StageSkipped { reason, .. } => told.skipped = Some(reason.clone()),
            RunEvent::WaitOpened { wait, .. } => assert!(told.opened.insert(*wait), "a wait is opened once"),
            RunEvent::WaitAnswered { wait, answer, .. } => {
                assert!(told.answered.insert(*wait, answer.clone()).is_none(), "a wait is answered once");
            }
            RunEvent::LockAcquired { .. } => told.has_lock = true,
            _ => {}
        }
    }

    /// Whether the event may come now.
    fn check(&self, id: &StageId, event: &RunEvent) {
        let (_, planned) = self.planned(id);
        let told = self.told.get(id);
        let has_lock = planned.lock.is_none() || told.is_some_and(|told| told.has_lock);
        match event {
            RunEvent::StageReady { attempt: 1, .. } | RunEvent::WaitOpened { wait: WaitKey::Itself, .. } => {
                self.begins(id);
                assert!(self.has_entered(id) && has_lock, "{} is let through by gates and lock", planned.path);
            }
            RunEvent::LockQueued { .. } => {
                self.begins(id);
                assert!(self.has_entered(id));
            }
            RunEvent::WaitOpened { wait: WaitKey::Enter(_), .. } => self.begins(id),
            RunEvent::StageReady { .. } => self.may_start_after_a_cancel(id),
            RunEvent::StageRetried { attempt, .. } => {
                let most = planned.retry.as_ref().map_or(1, |retry| retry.attempts);
                assert!(planned.effect == Effect::Safe && *attempt <= most, "{} starts too often", planned.path);
            }
            RunEvent::StageEnded { outcome: StageOutcome::Success | StageOutcome::Unstable, .. } => {
                assert!(self.has_entered(id) && has_lock);
                assert!(self.has_passed(id, (0..).map(WaitKey::Exit).take(planned.exit.len())), "{} leaves by its gates", planned.path);
            }
            _ => {}
        }
    }

    fn record_ends(&mut self) {
        let mut holders = BTreeSet::new();
        for stage in &self.plan.stages {
            let over = self.is_over(&stage.id);
            let Some(told) = self.told.get_mut(&stage.id) else { continue };
            // What has exit gates goes on after its result, in the same record.
            told.over = over;
            assert!(stage.effect == Effect::Safe || told.starts <= 1, "a `once` stage starts once");
            if let (Some(lock), true, false) = (&stage.lock, told.has_lock, over) {
                assert!(holders.insert(lock), "one holds the lock {lock}");
            }
        }
        let open = self.plan.stages.iter().any(|stage| !self.is_over(&stage.id));
        assert_eq!(self.ended, !open && !self.held, "a run ends with its last stage");
    }
}
