//! Goes along with a run on the services until it ends, or until nothing can go on without a person: shows it, asks, and takes signals.

use std::{collections::BTreeMap, io, pin::pin};

use apispec::{AnswerCreate, AnswerGiven, Code, EndView, EventView, RunDetail, WaitName};
use futures_util::{
    StreamExt as _,
    future::BoxFuture,
    stream::{self, FuturesUnordered},
};
use model::{
    RunId, StageId,
    event::run::{Answer, RunEvent},
};
use service::signals::Signals;

use super::{
    ask::{Ask, Given},
    seat::{Seat, Told},
    talk::Talk,
    view::View,
};
use crate::client::{Client, ClientError, EventMessage, LogMessage};

/// How it came to an end here.
#[derive(Debug)]
pub(super) enum Followed {
    /// The run has ended.
    Ended(EndView),
    /// Nothing goes on before somebody answers, and there is nobody here to ask.
    Waits(Vec<Ask>),
    /// A third signal: whatever becomes of it.
    Left,
}

/// A run that is gone along with.
pub(super) struct Remote<'a> {
    client: Client,
    run: RunId,
    paths: BTreeMap<StageId, String>,
    seat: Seat<'a>,
    told: FuturesUnordered<BoxFuture<'a, (Told, Result<(), ClientError>)>>,
    /// The run's end, which is shown after the last of its output.
    held: Option<EventView>,
}

impl<'a> Remote<'a> {
    /// `given` answers what the command line can; who sits at the terminal is asked the rest if the token `may_answer`.
    pub(super) fn new(client: Client, detail: &RunDetail, view: View, given: &'a Given, may_answer: bool) -> Self {
        let talk = Talk::new(given, may_answer && view.is_drawn());
        let paths = detail.stages.iter().map(|stage| (stage.id.clone(), stage.path.clone())).collect();
        Self { client, run: detail.run.id.clone(), paths, seat: Seat { view, talk }, told: FuturesUnordered::new(), held: None }
    }

    /// Goes along with the run.
    pub(super) async fn follow(mut self, signals: &mut Signals) -> anyhow::Result<Followed> {
        let followed = self.go_along(signals).await;
        let end = if let Ok(Followed::Ended(end)) = &followed { Some(*end) } else { None };
        self.seat.leave(end)?;
        followed
    }

    async fn go_along(&mut self, signals: &mut Signals) -> anyhow::Result<Followed> {
        // Each future is kept until it is ready: dropped, it would lose a connection that is being made.
        let events = self.client.follow_events(&self.run);
        let events = stream::unfold(events, |mut events| async move { events.next().await.transpose().map(|message| (message, events)) });
        let output = self.client.follow_log(&self.run, None);
        let output = stream::unfold(output, |mut output| async move { output.next().await.transpose().map(|message| (message, output)) });
        let (mut events, mut output) = (pin!(events.fuse()), pin!(output.fuse()));
        let mut ticker = self.seat.ticker();
        let (mut signalled, mut waited, mut end) = (0, false, None);
        loop {
            if let (Some(end), Some(event)) = (end, self.held.take_if(|_| end.is_some())) {
                self.seat.view.event(&event)?;
                return Ok(Followed::Ended(end));
            }
            tokio::select! {
                biased;
                _ = signals.next() => {
                    signalled += 1;
                    if signalled > 2 {
                        return Ok(Followed::Left);
                    }
                    self.cancel(signalled == 2)?;
                }
                _ = ticker.tick() => {
                    self.seat.draw()?;
                    // Whoever looks on at a terminal sees that somebody elsewhere is waited for.
                    let waits = signalled == 0 && !self.seat.view.is_drawn() && self.told.is_empty() && self.seat.talk.waits_for_nobody_here();
                    if waits && std::mem::replace(&mut waited, waits) {
                        return Ok(Followed::Waits(self.seat.talk.open().to_vec()));
                    }
                    waited = waits;
                }
                Some((what, outcome)) = self.told.next() => self.was_told(what, outcome)?,
                line = self.seat.talk.typed(), if self.seat.talk.asked().is_some() => self.take_line(line)?,
                // Output first: what a stage wrote was sent before its end was reported.
                Some(message) = output.next() => match message? {
                    LogMessage::Chunk(chunk) => self.seat.view.output(&chunk)?,
                    LogMessage::Gap(gap) => self.seat.view.gap(&gap)?,
                    LogMessage::End(ended) => end = Some(ended),
                },
                Some(message) = events.next() => {
                    if let EventMessage::Event(event) = message? {
                        self.event(*event)?;
                    }
                }
            }
        }
    }

    fn event(&mut self, event: EventView) -> io::Result<()> {
        let paths = &self.paths;
        self.seat.talk.event(&event.event, |stage| paths.get(stage).cloned().unwrap_or_else(|| stage.to_string()));
        if matches!(event.event, RunEvent::RunFinished { .. }) {
            self.held = Some(event);
        } else {
            self.seat.view.event(&event)?;
        }
        for (ask, answer) in self.seat.given()? {
            self.send(&ask, answer);
        }
        Ok(())
    }

    fn cancel(&mut self, force: bool) -> io::Result<()> {
        self.seat.view.say(if force {
            "ending all at once; a third time leaves the run to itself"
        } else {
            "cancelling: what runs has some seconds to end; a second time ends all at once"
        })?;
        let (client, run) = (self.client.clone(), self.run.clone());
        self.told.push(Box::pin(async move { (Told::Cancel, client.cancel(&run, force).await.map(drop)) }));
        Ok(())
    }

    fn send(&mut self, ask: &Ask, answer: Answer) {
        let (client, run, (stage, wait)) = (self.client.clone(), self.run.clone(), ask.key());
        let answer = match answer {
            Answer::Approved { delivery } => AnswerGiven::Approve { delivery },
            Answer::Refused { reason } => AnswerGiven::Refuse { reason },
            Answer::Text { text } => AnswerGiven::Text { text },
            Answer::Resumed | Answer::CalledBack | Answer::Polled | Answer::Elapsed | Answer::TimedOut => AnswerGiven::Resume,
        };
        let create = AnswerCreate { stage: Some(stage.to_string()), wait: Some(WaitName(wait)), answer };
        self.told.push(Box::pin(async move { (Told::Answer((stage, wait)), client.answer(&run, &create).await.map(drop)) }));
    }

    fn was_told(&mut self, what: Told, outcome: Result<(), ClientError>) -> io::Result<()> {
        match outcome {
            Ok(()) => Ok(()),
            Err(error) if error.is(Code::RunEnded) => Ok(()),
            Err(error) => self.seat.not_taken(what, error),
        }
    }

    fn take_line(&mut self, line: Option<String>) -> io::Result<()> {
        if let Some((ask, answer)) = self.seat.take_line(line)? {
            self.send(&ask, answer);
        }
        Ok(())
    }
}
