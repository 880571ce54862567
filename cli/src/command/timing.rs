//! `otto show --timing`: where the time of a run went, stage by stage.
//!
//! ```text
//! accepted ─ needs ─▶ ─ gates, lock, pause ─▶ ready ─ queue ─▶ ─ auction ─▶ awarded ─ handover ─▶ ─ preparation ─▶ ─ steps ─▶ end
//! ```
//!
//! All of it stands in the run's events, but for when an auction was held in vain, which the orchestrator remembers for a while. Times on an agent
//! are by its clock: they are compared with each other only.

use std::{collections::BTreeMap, time::Duration};

use apispec::{EventView, RunDetail, StageView, WhyView};
use model::{AgentName, RunId, StageId, Timestamp, event::run::RunEvent};
use serde::Serialize;

use super::text::{self, printable};

/// Where the time of a run went. All times are in milliseconds.
#[derive(Debug, Serialize)]
pub(super) struct Timing {
    run: RunId,
    /// From the run's acceptance to its end, or until now.
    wall_ms: u64,
    /// All steps and preparations together.
    busy_ms: u64,
    /// `busy_ms` over `wall_ms`: how many stages were worked on at once, on average.
    parallelism: f64,
    /// The stages by which the run took as long as it did, first to last.
    critical_path: Vec<String>,
    stages: Vec<StageTiming>,
}

/// Where the time of a stage went; of its last try, and of the tries before it all that they took.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct StageTiming {
    path: String,
    agent: Option<AgentName>,
    /// Tries before the last.
    earlier_tries: u32,
    /// Until all that it needs had ended well.
    needs_ms: u64,
    /// For people, outside systems, time, its lock, and the pause before another try.
    gates_ms: u64,
    /// Until an auction found an agent.
    queue_ms: u64,
    /// The auction that did.
    auction_ms: u64,
    /// Until the agent took it up.
    handover_ms: u64,
    /// Files, caches and whatever else stood before the first step, by the agent's clock.
    preparation_ms: u64,
    /// Its steps, by the agent's clock.
    steps_ms: u64,
    /// All that went by while it was tried before.
    earlier_tries_ms: u64,
    /// Whether the run took as long as it did by this stage.
    critical: bool,
    /// What of the stages that it needs ended last.
    #[serde(skip)]
    last_need: Option<StageId>,
    #[serde(skip)]
    ended_at: Option<Timestamp>,
}

/// What the events say of a stage's last try.
#[derive(Default)]
struct Marks {
    tries: u32,
    first_ready: Option<Timestamp>,
    /// When it was first held up, by a gate or its lock.
    held_up: Option<Timestamp>,
    ready: Option<Timestamp>,
    awarded: Option<Timestamp>,
    agent: Option<AgentName>,
    /// By the orchestrator's clock, and by the agent's.
    taken_up: Option<(Timestamp, Timestamp)>,
    /// By the agent's clock: the first step's begin, and the end.
    worked: Option<(Option<Timestamp>, Timestamp)>,
    ended: Option<Timestamp>,
}

impl Timing {
    /// Of these events of the run; `why` has its auctions, as far as they are remembered.
    pub(super) fn of(detail: &RunDetail, events: &[EventView], why: Option<&WhyView>, now: Timestamp) -> Self {
        let mut marks: BTreeMap<StageId, Marks> = BTreeMap::new();
        let mut end = now;
        for event in events {
            if let Some(stage) = event.event.stage() {
                marks.entry(stage.clone()).or_default().take(event);
            } else if matches!(event.event, RunEvent::RunFinished { .. }) {
                end = event.at;
            }
        }
        let accepted = detail.run.accepted_at;
        let ends: BTreeMap<&StageId, Timestamp> = marks.iter().filter_map(|(stage, marks)| Some((stage, marks.ended?))).collect();
        let mut stages: BTreeMap<StageId, StageTiming> = BTreeMap::new();
        for stage in &detail.stages {
            let Some(marks) = marks.get(&stage.id) else { continue };
            let in_vain = why.and_then(|why| last_in_vain(why, stage, marks.tries));
            stages.insert(stage.id.clone(), timing(stage, marks, accepted, &ends, in_vain));
        }
        let critical_path = critical_path(&mut stages);
        let (wall_ms, busy_ms) = (ms(end.since(accepted)), stages.values().map(|one| one.preparation_ms + one.steps_ms).sum());
        #[expect(clippy::cast_precision_loss, reason = "a run takes far less than 2^52 ms")]
        let parallelism = if wall_ms == 0 { 0.0 } else { busy_ms as f64 / wall_ms as f64 };
        let in_order = detail.stages.iter().filter_map(|stage| stages.remove(&stage.id)).collect();
        Self { run: detail.run.id.clone(), wall_ms, busy_ms, parallelism, critical_path, stages: in_order }
    }

    /// As people read it.
    pub(super) fn shown(&self) -> String {
        let title =
            ["", "STAGE", "NEEDS", "GATES", "QUEUE", "AUCTION", "HANDOVER", "PREPARE", "STEPS", "AGENT"].map(str::to_owned).to_vec();
        let row = |one: &StageTiming| {
            let agent = one.agent.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
            let tries = match one.earlier_tries {
                0 => String::new(),
                tries => format!(", earlier tries: {tries}, in {}", text::duration(Duration::from_millis(one.earlier_tries_ms))),
            };
            let times =
                [one.needs_ms, one.gates_ms, one.queue_ms, one.auction_ms, one.handover_ms, one.preparation_ms, one.steps_ms].map(short);
            let mark = if one.critical { "*" } else { "" };
            [vec![mark.to_owned(), printable(&one.path, false)], times.to_vec(), vec![format!("{agent}{tries}")]].concat()
        };
        let rows: Vec<Vec<String>> = std::iter::once(title).chain(self.stages.iter().map(row)).collect();
        let told = |ms| text::duration(Duration::from_millis(ms));
        let path: Vec<String> = self.critical_path.iter().map(|path| printable(path, false)).collect();
        let path = if path.is_empty() { String::new() } else { format!("* the critical path: {}\n", path.join(" → ")) };
        format!(
            "{}\n  {} from begin to end; {} of work, {:.1} stages at once\n\n{}{path}",
            self.run,
            told(self.wall_ms),
            told(self.busy_ms),
            self.parallelism,
            text::table(&rows)
        )
    }
}

impl Marks {
    fn take(&mut self, event: &EventView) {
        let at = event.at;
        match &event.event {
            RunEvent::StageReady { attempt, .. } => {
                self.first_ready.get_or_insert(at);
                *self = Self { tries: *attempt, ready: Some(at), held_up: self.held_up, first_ready: self.first_ready, ..Self::default() };
            }
            RunEvent::StageAwarded { agent, .. } => {
                (self.awarded, self.agent, self.taken_up) = (Some(at), Some(agent.clone()), None);
            }
            RunEvent::StageStarted { at: by_agent, .. } => self.taken_up = Some((at, *by_agent)),
            RunEvent::StageFinished { started_at, finished_at, .. } => {
                (self.worked, self.ended) = (Some((*started_at, *finished_at)), Some(at));
            }
            RunEvent::StageEnded { .. } | RunEvent::StageSkipped { .. } | RunEvent::StageReused { .. } | RunEvent::StageLost { .. } => {
                self.ended = Some(at);
            }
            RunEvent::WaitOpened { .. } | RunEvent::LockQueued { .. } => {
                self.held_up.get_or_insert(at);
            }
            RunEvent::StageDeclined { .. }
            | RunEvent::StageRetried { .. }
            | RunEvent::WaitAnswered { .. }
            | RunEvent::LockAcquired { .. }
            | RunEvent::StageLogStored { .. }
            | RunEvent::StageCancelRequested { .. }
            | RunEvent::RunAccepted { .. }
            | RunEvent::RunHeld { .. }
            | RunEvent::RunReleased
            | RunEvent::CancelRequested { .. }
            | RunEvent::RunFinished { .. } => {}
        }
    }
}

fn timing(
    stage: &StageView,
    marks: &Marks,
    accepted: Timestamp,
    ends: &BTreeMap<&StageId, Timestamp>,
    in_vain: Option<Timestamp>,
) -> StageTiming {
    let last_need = stage.needs.iter().filter_map(|need| Some((*ends.get(&need.id)?, need.id.clone()))).max();
    let needed = last_need.as_ref().map_or(accepted, |(at, _)| *at);
    let between = |from: Option<Timestamp>, to: Option<Timestamp>| from.zip(to).map_or(0, |(from, to)| ms(to.since(from)));
    // Gates and its lock stand before the first try; it was ready at once where there were none.
    let first = marks.first_ready.or(marks.ended);
    let searched = in_vain.filter(|at| Some(*at) > marks.ready).or(marks.ready);
    let prepared = marks.taken_up.map(|(_, by_agent)| by_agent).zip(marks.worked.and_then(|(begun, _)| begun));
    let steps = marks.worked.and_then(|(begun, ended)| Some((begun?, ended)));
    StageTiming {
        path: stage.path.clone(),
        agent: marks.agent.clone(),
        earlier_tries: marks.tries.saturating_sub(1),
        needs_ms: ms(needed.since(accepted)),
        gates_ms: between(Some(needed), first),
        queue_ms: between(marks.ready, searched.filter(|_| in_vain.is_some())),
        auction_ms: between(searched, marks.awarded),
        handover_ms: between(marks.awarded, marks.taken_up.map(|(at, _)| at)),
        preparation_ms: prepared.map_or(0, |(from, to)| ms(to.since(from))),
        steps_ms: steps.map_or(0, |(from, to)| ms(to.since(from))),
        earlier_tries_ms: between(marks.first_ready, marks.ready),
        critical: false,
        last_need: last_need.map(|(_, id)| id),
        ended_at: marks.ended,
    }
}

/// When the last auction of this try was held that found nobody.
fn last_in_vain(why: &WhyView, stage: &StageView, attempt: u32) -> Option<Timestamp> {
    let why = why.stages.iter().find(|why| why.stage.id == stage.id)?;
    why.auctions.iter().filter(|auction| auction.attempt == attempt && auction.awarded.is_none()).map(|auction| auction.closed_at).max()
}

/// Marks, from the stage that ended last back to the first, those that each waited for last.
fn critical_path(stages: &mut BTreeMap<StageId, StageTiming>) -> Vec<String> {
    let last = stages.iter().filter_map(|(id, one)| Some((one.ended_at?, id.clone()))).max().map(|(_, id)| id);
    let (mut at, mut path) = (last, Vec::new());
    while let Some(one) = at.take().and_then(|id| stages.get_mut(&id)) {
        one.critical = true;
        path.push(one.path.clone());
        at.clone_from(&one.last_need);
    }
    path.reverse();
    path
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A time in a column.
fn short(ms: u64) -> String {
    match ms {
        0 => "-".to_owned(),
        1..1_000 => format!("{ms} ms"),
        _ => text::duration(Duration::from_millis(ms)),
    }
}

#[cfg(test)]
mod tests {
    use apispec::{OutputsView, PlanView, RunStatus, RunView, StageRef, StageStatus};
    use model::{
        AttemptId, AuctionId, Digest, RunOutcome, StageOutcome, TriggerId,
        context::EventKind,
        event::run::{Outputs, Question, WaitKey},
        plan::Effect,
    };

    use super::*;

    fn stage(path: &str, needs: &[&str]) -> StageView {
        let reference = |path: &&str| StageRef { id: StageId::of(path), path: (*path).to_owned() };
        StageView {
            id: StageId::of(path),
            path: path.to_owned(),
            needs: needs.iter().map(reference).collect(),
            effect: Effect::Safe,
            status: StageStatus::Waiting { on: vec![] },
            attempts: vec![],
            waits: vec![],
            lock: None,
            reused_from: None,
            may_fail: false,
            outputs: OutputsView::default(),
        }
    }

    fn run() -> RunId {
        RunId::of(&TriggerId::of("t", "1"))
    }

    fn detail(stages: Vec<StageView>) -> RunDetail {
        let run = RunView {
            id: run(),
            project: "demo".parse().unwrap(),
            event: EventKind::Push,
            branch: String::new(),
            commit: String::new(),
            pipeline_path: "Ottofile".to_owned(),
            accepted_at: Timestamp(1_000),
            plan: PlanView::Planned { digest: Digest::of(b"p"), stages: 1, warnings: vec![], warnings_left_out: 0 },
            rerun_of: None,
            status: RunStatus::Running,
        };
        RunDetail { run, stages }
    }

    fn at(ms: u64, event: RunEvent) -> EventView {
        EventView { sequence: ms, index: 0, at: Timestamp(ms), event }
    }

    fn ready(path: &str, ms: u64, attempt: u32) -> EventView {
        at(ms, RunEvent::StageReady { stage: StageId::of(path), attempt })
    }

    fn awarded(path: &str, ms: u64, attempt: u32) -> EventView {
        let stage = StageId::of(path);
        let auction = AuctionId::of(&AttemptId { run: run(), stage: stage.clone(), attempt }, 1);
        at(ms, RunEvent::StageAwarded { stage, attempt, agent: "a1".parse().unwrap(), auction, offers: vec![] })
    }

    /// An agent whose clock is far ahead takes it up, prepares for 20 ms, and ends it.
    fn worked(path: &str, taken_up: u64, ended: u64, steps_ms: u64) -> [EventView; 2] {
        let stage = StageId::of(path);
        let begun = Timestamp(900_000 + 20);
        let finished = RunEvent::StageFinished {
            stage: stage.clone(),
            attempt: 1,
            outcome: StageOutcome::Success,
            reason: None,
            started_at: Some(begun),
            finished_at: Timestamp(begun.0 + steps_ms),
            outputs: Outputs::default(),
        };
        [at(taken_up, RunEvent::StageStarted { stage, attempt: 1, at: Timestamp(900_000) }), at(ended, finished)]
    }

    #[test]
    fn the_time_of_each_stage_is_told_apart_and_the_critical_path_is_marked() {
        let detail = detail(vec![stage("Build", &[]), stage("Lint", &[]), stage("Ship", &["Build", "Lint"])]);
        let question = Question::Confirm { message: String::new(), by: vec![], delivery: Digest::of(b"d") };
        let opened = RunEvent::WaitOpened { stage: StageId::of("Ship"), wait: WaitKey::Enter(0), question, due_at: None };
        let events = [
            vec![ready("Build", 1_000, 1), ready("Lint", 1_000, 1), awarded("Build", 1_005, 1), awarded("Lint", 1_006, 1)],
            worked("Build", 1_007, 1_530, 500).to_vec(),
            worked("Lint", 1_008, 1_130, 100).to_vec(),
            vec![at(1_530, opened), ready("Ship", 3_530, 1), awarded("Ship", 3_540, 1)],
            worked("Ship", 3_541, 3_600, 30).to_vec(),
            vec![at(3_600, RunEvent::RunFinished { outcome: RunOutcome::Success })],
        ]
        .concat();
        let timing = Timing::of(&detail, &events, None, Timestamp(9_999));
        assert_eq!((timing.wall_ms, timing.busy_ms), (2_600, 690));
        assert_eq!(timing.critical_path, ["Build", "Ship"]);
        let ship = &timing.stages[2];
        assert_eq!((ship.needs_ms, ship.gates_ms, ship.queue_ms, ship.auction_ms), (530, 2_000, 0, 10));
        assert_eq!((ship.handover_ms, ship.preparation_ms, ship.steps_ms, ship.critical), (1, 20, 30, true));
        assert!(!timing.stages[1].critical);
        let shown = timing.shown();
        assert!(shown.contains("2.60 s from begin to end; 0.69 s of work, 0.3 stages at once"), "{shown}");
        assert!(shown.contains("* the critical path: Build → Ship"), "{shown}");
    }

    #[test]
    fn of_a_stage_that_was_tried_again_the_last_try_is_told_and_the_others_together() {
        let events = [
            vec![ready("Flaky", 1_000, 1), awarded("Flaky", 1_010, 1)],
            worked("Flaky", 1_011, 1_200, 100).to_vec(),
            vec![ready("Flaky", 2_200, 2), awarded("Flaky", 2_203, 2)],
            worked("Flaky", 2_204, 2_400, 150).to_vec(),
        ]
        .concat();
        let timing = Timing::of(&detail(vec![stage("Flaky", &[])]), &events, None, Timestamp(2_400));
        let flaky = &timing.stages[0];
        assert_eq!((flaky.earlier_tries, flaky.earlier_tries_ms, flaky.auction_ms, flaky.steps_ms), (1, 1_200, 3, 150));
        assert!(timing.shown().contains("earlier tries: 1, in 1.20 s"), "{}", timing.shown());
    }
}
