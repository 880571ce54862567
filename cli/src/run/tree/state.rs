//! What is known of a run while it is shown: its stages as a tree, and where each stands.

use std::collections::BTreeMap;

use apispec::{ChunkView, EventView, GapView};
use model::{
    RunOutcome, StageId, StageOutcome, Timestamp,
    event::run::{Answer, Question, RunEvent, SkipReason, WaitKey},
    plan::{Plan, Stage, Value},
    protocol::log::Stream,
};

use super::tail::Tail;
use crate::command::text::{duration, printable};

/// Characters of a step's argument that its title has.
const TITLE_CHARACTERS_MAX: usize = 60;

/// A run as it is shown.
#[derive(Debug)]
pub(in crate::run) struct Tree {
    /// Groups and stages, each group before what is in it, in the order of the plan.
    pub(super) nodes: Vec<Node>,
    places: BTreeMap<StageId, usize>,
    pub(super) accepted_at: Option<Timestamp>,
    /// What happens to the whole run, if there is something to say.
    pub(super) notice: Option<String>,
    pub(super) ended: Option<(RunOutcome, Timestamp)>,
}

/// A line of the tree.
#[derive(Debug)]
pub(super) struct Node {
    /// The last part of its path.
    pub(super) name: String,
    /// The groups that it stands in.
    pub(super) depth: usize,
    pub(super) stage: Option<Box<Leaf>>,
}

/// A stage.
#[derive(Debug)]
pub(super) struct Leaf {
    pub(super) path: String,
    /// What its steps are called, in their order.
    titles: Vec<String>,
    step: usize,
    attempt: u32,
    pub(super) state: State,
    pub(super) tail: Tail,
    waits: BTreeMap<WaitKey, String>,
}

/// Where a stage stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// Others come first.
    Waiting,
    /// Something is waited for, and no agent is held.
    Held { what: String, since: Timestamp },
    /// It waits for an agent.
    Ready,
    /// An agent has it.
    Running { since: Timestamp },
    /// It is over.
    Ended { outcome: StageOutcome, took_ms: Option<u64>, why: Option<String> },
    /// It has ended in an earlier run.
    Reused { outcome: StageOutcome },
    /// Its agent was lost, and it does not start again.
    Lost { why: String },
    /// It does not run.
    Skipped { why: String },
}

impl State {
    pub(super) fn is_over(&self) -> bool {
        matches!(self, Self::Ended { .. } | Self::Reused { .. } | Self::Lost { .. } | Self::Skipped { .. })
    }

    /// Whether somebody should look at it when the run is over.
    pub(super) fn is_bad(&self) -> bool {
        match self {
            Self::Lost { .. } => true,
            Self::Ended { outcome, .. } | Self::Reused { outcome } => *outcome != StageOutcome::Success,
            Self::Waiting | Self::Held { .. } | Self::Ready | Self::Running { .. } | Self::Skipped { .. } => false,
        }
    }
}

impl Leaf {
    fn new(stage: &Stage) -> Self {
        let title = |step: &model::plan::Step| {
            let texts = step.parameters.values().filter_map(|value| if let Value::Text(text) = value { Some(text) } else { None });
            let text: String = texts
                .flat_map(|text| text.lines())
                .map(str::trim)
                .find(|line| !line.is_empty())
                .unwrap_or_default()
                .chars()
                .take(TITLE_CHARACTERS_MAX)
                .collect();
            printable(format!("{} {text}", step.symbol).trim_end(), false)
        };
        Self {
            path: stage.path.clone(),
            titles: stage.steps.iter().map(title).collect(),
            step: 0,
            attempt: 1,
            state: State::Waiting,
            tail: Tail::default(),
            waits: BTreeMap::new(),
        }
    }

    /// What its step is called that runs now.
    pub(super) fn title(&self) -> &str {
        self.titles.get(self.step).map_or("", String::as_str)
    }

    /// The attempt, where it is not the first.
    pub(super) fn again(&self) -> Option<u32> {
        (self.attempt > 1).then_some(self.attempt)
    }

    fn attempt(&mut self, attempt: u32) {
        if self.attempt != attempt {
            self.attempt = attempt;
            self.step = 0;
            self.tail.clear();
        }
    }
}

impl Tree {
    /// The stages of a plan, of which nothing is known yet.
    pub(in crate::run) fn new(plan: &Plan) -> Self {
        let mut tree = Self { nodes: Vec::new(), places: BTreeMap::new(), accepted_at: None, notice: None, ended: None };
        let mut groups: Vec<&str> = Vec::new();
        for stage in &plan.stages {
            let parts: Vec<&str> = stage.path.split('/').collect();
            let (name, within) = parts.split_last().map_or(("", &[][..]), |(name, within)| (*name, within));
            let shared = groups.iter().zip(within).take_while(|(one, other)| one == other).count();
            groups.truncate(shared);
            for group in within.iter().skip(shared) {
                tree.nodes.push(Node { name: printable(group, false), depth: groups.len(), stage: None });
                groups.push(group);
            }
            tree.places.insert(stage.id.clone(), tree.nodes.len());
            let leaf = Some(Box::new(Leaf::new(stage)));
            tree.nodes.push(Node { name: printable(name, false), depth: within.len(), stage: leaf });
        }
        tree
    }

    pub(super) fn leaves(&self) -> impl Iterator<Item = &Leaf> {
        self.nodes.iter().filter_map(|node| node.stage.as_deref())
    }

    /// Whether time is shown that passes.
    pub(super) fn is_moving(&self) -> bool {
        self.ended.is_none()
    }

    fn leaf(&mut self, stage: &StageId) -> Option<&mut Leaf> {
        // What the run adds to its plan, such as its notification, has its place behind the others.
        if !self.places.contains_key(stage) {
            let name = stage.as_str().to_owned();
            self.places.insert(stage.clone(), self.nodes.len());
            let mut leaf = Leaf::new(&Stage::new(&name));
            leaf.path.clone_from(&name);
            self.nodes.push(Node { name, depth: 0, stage: Some(Box::new(leaf)) });
        }
        let place = *self.places.get(stage)?;
        self.nodes.get_mut(place)?.stage.as_deref_mut()
    }

    fn path(&self, stage: &StageId) -> String {
        let node = self.places.get(stage).and_then(|place| self.nodes.get(*place)?.stage.as_deref());
        node.map_or_else(|| stage.to_string(), |leaf| printable(&leaf.path, false))
    }

    pub(in crate::run) fn output(&mut self, chunk: &ChunkView) {
        let Some(leaf) = self.leaf(&chunk.stage) else { return };
        leaf.attempt(chunk.attempt);
        leaf.step = chunk.step as usize;
        if chunk.stream != Stream::Otto {
            leaf.tail.push(chunk.stream, &chunk.bytes.0);
        }
    }

    pub(in crate::run) fn gap(&mut self, gap: &GapView) {
        if let Some(leaf) = self.leaf(&gap.stage) {
            leaf.tail.push(Stream::Otto, b"\n(output is missing here)\n");
        }
    }

    pub(in crate::run) fn event(&mut self, view: &EventView) {
        let at = view.at;
        match &view.event {
            RunEvent::RunAccepted { .. } => self.accepted_at = Some(at),
            RunEvent::RunHeld { older } => self.notice = Some(format!("waits for the end of {older}")),
            RunEvent::RunReleased => self.notice = None,
            RunEvent::CancelRequested { by, force, .. } => {
                let how = if *force { "ended at once" } else { "being cancelled" };
                self.notice = Some(format!("{how}, by {}", printable(by, false)));
            }
            RunEvent::RunFinished { outcome } => self.ended = Some((*outcome, at)),
            RunEvent::StageSkipped { stage, reason } => {
                let why = self.why_skipped(reason);
                self.set(stage, State::Skipped { why });
            }
            RunEvent::StageReady { stage, .. }
            | RunEvent::StageAwarded { stage, .. }
            | RunEvent::StageDeclined { stage, .. }
            | RunEvent::StageStarted { stage, .. }
            | RunEvent::StageFinished { stage, .. }
            | RunEvent::StageRetried { stage, .. }
            | RunEvent::StageEnded { stage, .. }
            | RunEvent::StageReused { stage, .. }
            | RunEvent::WaitOpened { stage, .. }
            | RunEvent::WaitAnswered { stage, .. }
            | RunEvent::LockQueued { stage, .. }
            | RunEvent::LockAcquired { stage, .. }
            | RunEvent::StageLost { stage, .. }
            | RunEvent::StageLogStored { stage, .. }
            | RunEvent::StageCancelRequested { stage, .. } => {
                if let Some(leaf) = self.leaf(stage) {
                    leaf.event(&view.event, at);
                }
            }
        }
    }

    fn set(&mut self, stage: &StageId, state: State) {
        if let Some(leaf) = self.leaf(stage) {
            leaf.state = state;
        }
    }

    fn why_skipped(&self, reason: &SkipReason) -> String {
        match reason {
            SkipReason::NeedFailed { stage } => format!("{} did not succeed", self.path(stage)),
            SkipReason::Cancelled => "the run was cancelled".to_owned(),
            SkipReason::Condition { because, .. } => printable(because, false),
            SkipReason::Fanout { failed } | SkipReason::Stopped { failed } => format!("{} failed", self.path(failed)),
            SkipReason::NothingToUndo => "nothing to undo".to_owned(),
            SkipReason::NotWanted => "not asked for".to_owned(),
        }
    }
}

impl Leaf {
    fn event(&mut self, event: &RunEvent, at: Timestamp) {
        match event {
            RunEvent::StageReady { attempt, .. } => {
                self.attempt(*attempt);
                self.state = State::Ready;
            }
            RunEvent::StageStarted { at: started, .. } => self.state = State::Running { since: *started },
            RunEvent::StageDeclined { .. } | RunEvent::LockAcquired { .. } => self.state = State::Ready,
            RunEvent::StageFinished { outcome, reason, started_at, finished_at, .. } => {
                let took_ms = started_at.map(|started| milliseconds(finished_at.since(started)));
                self.state = State::Ended { outcome: *outcome, took_ms, why: reason.as_deref().map(|why| printable(why, false)) };
            }
            RunEvent::StageRetried { attempt, due_at, .. } => {
                let what = format!("starts again, the attempt {attempt}, in {}", duration(due_at.since(at)));
                self.state = State::Held { what, since: at };
            }
            RunEvent::StageEnded { outcome, reason, .. } => {
                let took_ms = match &self.state {
                    State::Ended { took_ms, .. } => *took_ms,
                    State::Held { since, .. } => Some(milliseconds(at.since(*since))),
                    State::Waiting
                    | State::Ready
                    | State::Running { .. }
                    | State::Reused { .. }
                    | State::Lost { .. }
                    | State::Skipped { .. } => None,
                };
                self.state = State::Ended { outcome: *outcome, took_ms, why: reason.as_deref().map(|why| printable(why, false)) };
            }
            RunEvent::StageReused { outcome, .. } => self.state = State::Reused { outcome: *outcome },
            RunEvent::StageLost { reason, .. } => self.state = State::Lost { why: printable(reason, false) },
            RunEvent::LockQueued { lock, .. } => {
                self.state = State::Held { what: format!("waits for the lock {}", printable(lock, false)), since: at };
            }
            RunEvent::WaitOpened { wait, question, due_at, .. } => {
                self.waits.insert(*wait, waits_for(question, *due_at, at));
                self.held(at);
            }
            RunEvent::WaitAnswered { wait, answer, .. } => {
                self.waits.remove(wait);
                if !matches!(answer, Answer::Refused { .. } | Answer::TimedOut) {
                    self.held(at);
                }
            }
            RunEvent::RunAccepted { .. }
            | RunEvent::StageAwarded { .. }
            | RunEvent::StageLogStored { .. }
            | RunEvent::StageCancelRequested { .. }
            | RunEvent::StageSkipped { .. }
            | RunEvent::RunHeld { .. }
            | RunEvent::RunReleased
            | RunEvent::CancelRequested { .. }
            | RunEvent::RunFinished { .. } => {}
        }
    }

    /// Shows what is still waited for, if anything is.
    fn held(&mut self, at: Timestamp) {
        if let Some(what) = self.waits.values().next() {
            let since = if let State::Held { since, .. } = &self.state { *since } else { at };
            self.state = State::Held { what: what.clone(), since };
        }
    }
}

/// What is waited for, in a few words.
fn waits_for(question: &Question, due_at: Option<Timestamp>, at: Timestamp) -> String {
    let within = due_at.map(|due| format!(", at most {}", duration(due.since(at)))).unwrap_or_default();
    match question {
        Question::Confirm { message, .. } | Question::Prompt { message, .. } => format!("asks: {}{within}", printable(message, false)),
        Question::Webhook { description, .. } => format!("waits for a call: {}{within}", printable(description, false)),
        Question::Poll { url, status, .. } => format!("waits for {status} from {}{within}", printable(url, false)),
        Question::Time => format!("waits {}", due_at.map(|due| duration(due.since(at))).unwrap_or_default()),
        Question::Pause => "paused".to_owned(),
    }
}

fn milliseconds(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
