//! What a run asks while it is gone along with: what the command line answers, and whoever sits at the terminal the rest.

use std::{
    collections::BTreeSet,
    io::{self, IsTerminal as _},
};

use model::{
    StageId, Timestamp,
    event::run::{Answer, RunEvent, WaitKey},
};
use service::clock;

use super::{
    ask::{Ask, Asks, Given},
    keys::Keyboard,
    tree::Prompt,
};

/// A question, by its stage and its wait.
pub(super) type Key = (StageId, WaitKey);

/// The questions of one run, and what was answered here.
pub(super) struct Talk<'a> {
    given: &'a Given,
    /// Where a person can be asked.
    keyboard: Option<Keyboard>,
    asks: Asks,
    /// Questions whose answer was sent; the log says so soon.
    answered: BTreeSet<Key>,
    /// Questions to which the command line has no answer, or a wrong one.
    left_open: BTreeSet<Key>,
    problem: Option<String>,
}

/// What the command line says to a question.
pub(super) enum Said {
    /// Its answer.
    Answer(Ask, Answer),
    /// Why what it says is none.
    Wrong(String),
}

impl<'a> Talk<'a> {
    /// `given` answers what the command line can; the rest is asked at the terminal, if there is one that `may_ask`.
    pub(super) fn new(given: &'a Given, may_ask: bool) -> Self {
        let keyboard = (may_ask && io::stdin().is_terminal()).then(Keyboard::new);
        Self { given, keyboard, asks: Asks::default(), answered: BTreeSet::new(), left_open: BTreeSet::new(), problem: None }
    }

    /// Takes notice of what is asked, and of what needs no answer any more.
    pub(super) fn event(&mut self, event: &RunEvent, path: impl Fn(&StageId) -> String) {
        self.asks.event(event, path);
    }

    /// What the command line says to questions that it was not asked yet. Each answer counts as sent.
    pub(super) fn given(&mut self) -> Vec<Said> {
        let is_new = |ask: &&Ask| !self.answered.contains(&ask.key()) && !self.left_open.contains(&ask.key());
        let open: Vec<Ask> = self.asks.open().iter().filter(is_new).cloned().collect();
        let mut said = Vec::new();
        for ask in open {
            match self.given.to(&ask) {
                Some(Ok(answer)) => {
                    self.answered.insert(ask.key());
                    said.push(Said::Answer(ask, answer));
                }
                Some(Err(why)) => {
                    self.left_open.insert(ask.key());
                    said.push(Said::Wrong(why));
                }
                None => {
                    self.left_open.insert(ask.key());
                }
            }
        }
        said
    }

    /// The answer that was sent was not taken.
    pub(super) fn refused(&mut self, key: Key) {
        self.answered.remove(&key);
        self.left_open.insert(key);
    }

    /// The question that a person here is asked now.
    pub(super) fn asked(&self) -> Option<&Ask> {
        self.keyboard.as_ref()?;
        self.asks.open().iter().find(|ask| self.left_open.contains(&ask.key()) && !self.answered.contains(&ask.key()))
    }

    /// What stands below the tree.
    pub(super) fn prompt(&mut self) -> Option<Prompt> {
        let ask = self.asked().cloned();
        let keyboard = self.keyboard.as_mut()?;
        let Some(ask) = ask else {
            keyboard.rest();
            return None;
        };
        // A terminal that cannot be set still shows the question.
        let _not_set = keyboard.listen();
        let now = Timestamp(clock::unix_ms());
        Some(Prompt { question: ask.words(now), choices: ask.choices(), typed: keyboard.line(), problem: self.problem.clone() })
    }

    /// What a line that was typed answers; it counts as sent.
    pub(super) fn take_line(&mut self, line: &str) -> Option<(Ask, Answer)> {
        let ask = self.asked()?.clone();
        match ask.read(line) {
            Ok(answer) => {
                self.problem = None;
                self.answered.insert(ask.key());
                Some((ask, answer))
            }
            Err(problem) => {
                self.problem = Some(problem);
                None
            }
        }
    }

    /// A line that is typed, nothing at other keys; waits for ever where nobody can be asked. Cancel safe.
    pub(super) async fn typed(&mut self) -> Option<String> {
        match &mut self.keyboard {
            Some(keyboard) => keyboard.typed().await,
            None => std::future::pending().await,
        }
    }

    /// Gives the terminal back.
    pub(super) fn rest(&mut self) {
        if let Some(keyboard) = &mut self.keyboard {
            keyboard.rest();
        }
    }

    /// What is waited for from people.
    pub(super) fn open(&self) -> &[Ask] {
        self.asks.open()
    }

    /// Whether nothing goes on before somebody answers, and nobody is asked here.
    pub(super) fn waits_for_nobody_here(&self) -> bool {
        let open = self.asks.open();
        let is_stuck = !open.is_empty() && !self.asks.is_busy();
        is_stuck && self.asked().is_none() && open.iter().all(|ask| !self.answered.contains(&ask.key()))
    }
}
