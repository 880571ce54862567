//! Goes along with a run until it ends, or until nothing can go on without a person: shows it, asks, and takes signals.

use std::{collections::BTreeSet, io, pin::pin};

use anyhow::{Context as _, bail};
use apispec::{EndView, EventView};
use futures_util::{
    StreamExt as _,
    future::BoxFuture,
    stream::{self, FuturesUnordered},
};
use model::{
    RunId, StageId,
    event::run::{Answer, Question, RunEvent, WaitKey},
};
use orchestrator::{
    CommandError, Orchestrator,
    core::Run,
    output::{Output, Piece},
    runs::{Appended, Snapshot},
};
use service::signals::Signals;
use tokio::sync::broadcast::error::RecvError;

use super::{
    ask::{Ask, Given},
    house::House,
    seat::{Seat, Told},
    talk::Talk,
    view::{Callback, View},
};

/// Who answers and cancels here.
const BY: &str = "otto run";

/// How it came to an end here.
#[derive(Debug)]
pub(super) enum Followed {
    /// The run has ended.
    Ended(EndView),
    /// Nothing goes on before somebody answers, and there is nobody here to ask.
    Waits(Vec<Ask>),
    /// A second signal: at once.
    Forced,
}

/// A run that is gone along with.
pub(super) struct Follower<'a> {
    orchestrator: &'a Orchestrator,
    /// The beginning of the addresses at which webhooks are called.
    callbacks: Option<&'a str>,
    run: RunId,
    seat: Seat<'a>,
    told: FuturesUnordered<BoxFuture<'a, (Told, Result<(), CommandError>)>>,
    /// How much of the run's log was shown.
    sequence: u64,
    /// The run's end, which is shown after the last of its output.
    held: Option<EventView>,
    /// Attempts whose output was shown by an earlier process.
    old: BTreeSet<(StageId, u64)>,
}

impl<'a> Follower<'a> {
    /// `given` answers what the command line can; who sits at the terminal is asked the rest.
    pub(super) fn new(house: &'a House, run: &RunId, view: View, given: &'a Given) -> Self {
        let talk = Talk::new(given, view.is_drawn());
        Self {
            orchestrator: &house.orchestrator,
            callbacks: house.callbacks.as_deref(),
            run: run.clone(),
            seat: Seat { view, talk },
            told: FuturesUnordered::new(),
            sequence: 0,
            held: None,
            old: BTreeSet::new(),
        }
    }

    /// Takes the output of attempts that have ended for known.
    pub(super) fn skip_old_output(&mut self, snapshot: &Snapshot) {
        for (at, stage) in snapshot.run.stages.iter().enumerate() {
            let ended = stage.attempts.iter().filter(|attempt| attempt.end.is_some());
            self.old.extend(ended.map(|attempt| (snapshot.run.shape.stage(at).id.clone(), attempt.fence)));
        }
    }

    /// Goes along with the run.
    pub(super) async fn follow(mut self, snapshot: Snapshot, signals: &mut Signals) -> anyhow::Result<Followed> {
        let followed = self.go_along(snapshot, signals).await;
        let end = if let Ok(Followed::Ended(end)) = &followed { Some(*end) } else { None };
        self.seat.leave(end)?;
        followed
    }

    async fn go_along(&mut self, snapshot: Snapshot, signals: &mut Signals) -> anyhow::Result<Followed> {
        let orchestrator = self.orchestrator;
        let mut appended = orchestrator.runs.follow();
        let output = Output::follow(orchestrator.clone(), snapshot.run, None);
        let mut pieces = pin!(stream::unfold(output, |mut output| async move { output.next().await.map(|piece| (piece, output)) }));
        self.catch_up()?;
        let mut ticker = self.seat.ticker();
        let (mut signalled, mut waited) = (false, false);
        loop {
            tokio::select! {
                biased;
                _ = signals.next() => {
                    if signalled {
                        return Ok(Followed::Forced);
                    }
                    signalled = true;
                    self.seat.view.say("cancelling: what runs has some seconds to end; a second time ends all at once")?;
                    self.cancel();
                }
                _ = ticker.tick() => {
                    self.seat.draw()?;
                    let waits = !signalled && self.told.is_empty() && self.seat.talk.waits_for_nobody_here();
                    if waits && std::mem::replace(&mut waited, waits) {
                        return Ok(Followed::Waits(self.seat.talk.open().to_vec()));
                    }
                    waited = waits;
                }
                Some((what, outcome)) = self.told.next() => self.was_told(what, outcome)?,
                line = self.seat.talk.typed(), if self.seat.talk.asked().is_some() => self.take_line(line)?,
                // Output first: what a stage wrote was sent before its end was reported.
                piece = pieces.next() => match piece {
                    Some(Piece::Chunk(chunk)) if self.old.contains(&(chunk.stage.clone(), chunk.fence)) => {}
                    Some(Piece::Chunk(chunk)) => self.seat.view.output(&chunk)?,
                    Some(Piece::Gap(gap)) => self.seat.view.gap(&gap)?,
                    Some(Piece::End(end)) => {
                        self.catch_up()?;
                        self.held.take().map_or(Ok(()), |event| self.seat.view.event(&event))?;
                        return Ok(Followed::Ended(end));
                    }
                    None => match orchestrator.runs.damage(&self.run) {
                        Some(damage) => bail!("the run {} is damaged: {}; {}", self.run, damage.why, damage.help),
                        None => bail!("the run {} was followed to no end", self.run),
                    },
                },
                record = appended.recv() => match record {
                    Ok(record) if record.run == self.run => {
                        self.record(&record)?;
                        self.answer_given()?;
                    }
                    Ok(_) => {}
                    // Output and events are in the log as well; what was missed is read there.
                    Err(RecvError::Lagged(_)) => self.catch_up()?,
                    Err(RecvError::Closed) => bail!("the orchestrator is gone"),
                },
            }
        }
    }

    fn catch_up(&mut self) -> anyhow::Result<()> {
        let snapshot = self.orchestrator.runs.get(&self.run).context("the run is gone")?;
        snapshot.records.iter().try_for_each(|record| self.record(record))?;
        self.answer_given()
    }

    fn record(&mut self, appended: &Appended) -> anyhow::Result<()> {
        if appended.sequence <= self.sequence {
            return Ok(());
        }
        self.sequence = appended.sequence;
        let snapshot = self.orchestrator.runs.get(&self.run).context("the run is gone")?;
        let path = |stage: &StageId| {
            snapshot.run.shape.find(stage).map_or_else(|| stage.to_string(), |at| snapshot.run.shape.stage(at).path.clone())
        };
        for (index, event) in (0..).zip(&appended.record.events) {
            self.seat.talk.event(event, path);
            let view = EventView { sequence: appended.sequence, index, at: appended.record.at, event: event.clone() };
            if matches!(event, RunEvent::RunFinished { .. }) {
                self.held = Some(view);
            } else {
                self.seat.view.event(&view)?;
            }
            if let RunEvent::WaitOpened { stage, wait, question: Question::Webhook { .. }, .. } = event {
                self.callback(&snapshot.run, stage, *wait)?;
            }
        }
        Ok(())
    }

    /// Says where a webhook is called that is still waited for.
    fn callback(&mut self, run: &Run, stage: &StageId, wait: WaitKey) -> io::Result<()> {
        let Some((planned, state)) = run.stage(stage) else { return Ok(()) };
        let is_open = !state.is_over() && state.waits.get(&wait).is_some_and(|wait| wait.answer.is_none());
        let path = is_open.then(|| self.orchestrator.callback_path(&self.run, stage, wait)).flatten();
        let (Some(base), Some(path)) = (self.callbacks, path) else { return Ok(()) };
        self.seat.view.callback(&Callback { stage, path: &planned.path, wait, url: &format!("{base}{path}") })
    }

    fn cancel(&mut self) {
        let (orchestrator, run) = (self.orchestrator, self.run.clone());
        self.told.push(Box::pin(async move { (Told::Cancel, orchestrator.cancel(&run, BY, false).await.map(|_snapshot| ())) }));
    }

    fn send(&mut self, ask: &Ask, answer: Answer) {
        let (orchestrator, run, (stage, wait)) = (self.orchestrator, self.run.clone(), ask.key());
        self.told.push(Box::pin(async move {
            let outcome = orchestrator.answer(&run, &stage, wait, answer, Some(BY)).await.map(|_snapshot| ());
            (Told::Answer((stage, wait)), outcome)
        }));
    }

    fn was_told(&mut self, what: Told, outcome: Result<(), CommandError>) -> io::Result<()> {
        match outcome {
            Ok(()) | Err(CommandError::Ended(_)) => Ok(()),
            Err(error) => self.seat.not_taken(what, error),
        }
    }

    /// Answers what the command line answers.
    fn answer_given(&mut self) -> anyhow::Result<()> {
        for (ask, answer) in self.seat.given()? {
            self.send(&ask, answer);
        }
        Ok(())
    }

    fn take_line(&mut self, line: Option<String>) -> io::Result<()> {
        if let Some((ask, answer)) = self.seat.take_line(line)? {
            self.send(&ask, answer);
        }
        Ok(())
    }
}
