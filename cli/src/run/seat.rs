//! Whoever goes along with a run, wherever it runs: what is shown there, what is asked, and what is said to the run.

use std::{fmt::Display, io, time::Duration};

use apispec::EndView;
use model::event::run::Answer;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::{
    ask::Ask,
    talk::{Key, Said, Talk},
    tree::DRAW_PAUSE,
    view::View,
};

/// Between two looks whether a run that is not drawn waits for somebody; what else can go on has begun by the second look.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// Something that was said to the run.
pub(super) enum Told {
    Cancel,
    Answer(Key),
}

/// The place from which a run is looked at.
pub(super) struct Seat<'a> {
    pub(super) view: View,
    pub(super) talk: Talk<'a>,
}

impl Seat<'_> {
    /// When it is drawn, or looked after.
    pub(super) fn ticker(&self) -> Interval {
        let mut ticker = interval(if self.view.is_drawn() { DRAW_PAUSE } else { LOOK_PAUSE });
        ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticker
    }

    pub(super) fn draw(&mut self) -> io::Result<()> {
        let prompt = self.talk.prompt();
        self.view.draw(prompt.as_ref())
    }

    /// Takes what was typed: the answer, if it is one.
    pub(super) fn take_line(&mut self, line: Option<String>) -> io::Result<Option<(Ask, Answer)>> {
        let answer = line.and_then(|line| self.talk.take_line(&line));
        self.draw()?;
        Ok(answer)
    }

    /// What the command line answers to what is asked now.
    pub(super) fn given(&mut self) -> io::Result<Vec<(Ask, Answer)>> {
        let mut answers = Vec::new();
        for said in self.talk.given() {
            match said {
                Said::Answer(ask, answer) => answers.push((ask, answer)),
                Said::Wrong(why) => self.view.say(&why)?,
            }
        }
        Ok(answers)
    }

    /// Says that the run did not take what it was told.
    pub(super) fn not_taken(&mut self, told: Told, error: impl Display) -> io::Result<()> {
        match told {
            Told::Cancel => self.view.say(&format!("the run is not cancelled: {error}")),
            Told::Answer(key) => {
                self.talk.refused(key);
                self.view.say(&format!("the answer was not taken: {error}"))
            }
        }
    }

    /// Gives the terminal back; without an end, the run has not ended.
    pub(super) fn leave(mut self, end: Option<EndView>) -> io::Result<()> {
        self.talk.rest();
        self.view.finish(end)
    }
}
