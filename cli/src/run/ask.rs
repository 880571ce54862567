//! What a run asks people: what is shown of a question, and what an answer means.

use std::{collections::BTreeSet, time::Duration};

use anyhow::bail;
use model::{
    RunId, StageId, Timestamp,
    event::run::{Answer, Question, RunEvent, WaitKey},
    plan::{Plan, Stage, Wait},
};

use crate::command::text::{duration, printable};

/// A question that is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ask {
    pub(super) stage: StageId,
    /// The stage's path.
    pub(super) path: String,
    pub(super) wait: WaitKey,
    question: Question,
    due_at: Option<Timestamp>,
}

/// What a run waits for from people, the oldest first, and whether it is busy beside that. A call from outside can come as long as this
/// process is there to take it.
#[derive(Debug, Default)]
pub(super) struct Asks {
    open: Vec<Ask>,
    /// Stages with an agent, or that will have one by themselves.
    busy: BTreeSet<StageId>,
    /// What passes without a person here.
    passing: BTreeSet<(StageId, WaitKey)>,
}

impl Asks {
    /// Takes notice of what is asked, and of what needs no answer any more.
    pub(super) fn event(&mut self, event: &RunEvent, path: impl Fn(&StageId) -> String) {
        match event {
            RunEvent::WaitOpened { stage, wait, question, due_at } => {
                self.busy.remove(stage);
                if matches!(question, Question::Webhook { .. } | Question::Poll { .. } | Question::Time) {
                    self.passing.insert((stage.clone(), *wait));
                } else {
                    let (stage, question) = (stage.clone(), question.clone());
                    self.open.push(Ask { path: path(&stage), stage, wait: *wait, question, due_at: *due_at });
                }
            }
            RunEvent::WaitAnswered { stage, wait, .. } => {
                self.open.retain(|ask| ask.stage != *stage || ask.wait != *wait);
                self.passing.remove(&(stage.clone(), *wait));
            }
            RunEvent::StageReady { stage, .. } | RunEvent::StageRetried { stage, .. } | RunEvent::LockQueued { stage, .. } => {
                self.busy.insert(stage.clone());
            }
            RunEvent::StageFinished { stage, .. } | RunEvent::StageLost { stage, .. } => {
                self.busy.remove(stage);
            }
            RunEvent::StageEnded { stage, .. } | RunEvent::StageSkipped { stage, .. } => {
                self.busy.remove(stage);
                self.open.retain(|ask| ask.stage != *stage);
                self.passing.retain(|(passing, _)| passing != stage);
            }
            RunEvent::RunFinished { .. } => *self = Self::default(),
            RunEvent::RunAccepted { .. }
            | RunEvent::StageAwarded { .. }
            | RunEvent::StageDeclined { .. }
            | RunEvent::StageStarted { .. }
            | RunEvent::StageReused { .. }
            | RunEvent::LockAcquired { .. }
            | RunEvent::StageLogStored { .. }
            | RunEvent::StageCancelRequested { .. }
            | RunEvent::RunHeld { .. }
            | RunEvent::RunReleased
            | RunEvent::CancelRequested { .. } => {}
        }
    }

    /// What is waited for from people.
    pub(super) fn open(&self) -> &[Ask] {
        &self.open
    }

    /// Whether something goes on without anybody.
    pub(super) fn is_busy(&self) -> bool {
        !self.busy.is_empty() || !self.passing.is_empty()
    }
}

impl Ask {
    /// Which wait it is.
    pub(super) fn key(&self) -> (StageId, WaitKey) {
        (self.stage.clone(), self.wait)
    }

    /// What is asked, by whom, and until when.
    pub(super) fn words(&self, now: Timestamp) -> String {
        let message = match &self.question {
            Question::Confirm { message, .. } | Question::Prompt { message, .. } => printable(message, false),
            Question::Webhook { description, .. } => format!("a call from outside: {}", printable(description, false)),
            Question::Poll { .. } | Question::Time | Question::Pause => "the run is paused".to_owned(),
        };
        let by = match &self.question {
            Question::Confirm { by, .. } | Question::Prompt { by, .. } => by.join(", "),
            Question::Webhook { .. } | Question::Poll { .. } | Question::Time | Question::Pause => String::new(),
        };
        let by = if by.is_empty() { by } else { format!(", for {}", printable(&by, false)) };
        let until = self.due_at.map(|due| format!(", {} left", duration(left(due, now)))).unwrap_or_default();
        format!("{}: {message}{by}{until}", printable(&self.path, false))
    }

    /// What may be typed.
    pub(super) fn choices(&self) -> String {
        match &self.question {
            Question::Confirm { .. } => "yes or no".to_owned(),
            Question::Prompt { options, .. } if !options.is_empty() => {
                let numbered = (1..).zip(options).map(|(number, option)| format!("{number} {}", printable(option, false)));
                numbered.collect::<Vec<_>>().join(", ")
            }
            Question::Prompt { .. } => "a text".to_owned(),
            Question::Webhook { .. } | Question::Poll { .. } | Question::Time | Question::Pause => "Enter goes on".to_owned(),
        }
    }

    /// What a typed line answers, or why it does not.
    pub(super) fn read(&self, typed: &str) -> Result<Answer, String> {
        let typed = typed.trim();
        match &self.question {
            Question::Confirm { delivery, .. } => match typed.to_lowercase().as_str() {
                "y" | "yes" => Ok(Answer::Approved { delivery: *delivery }),
                "n" | "no" => Ok(Answer::Refused { reason: None }),
                _ => Err("`yes` or `no`?".to_owned()),
            },
            Question::Prompt { options, .. } if options.is_empty() => Ok(Answer::Text { text: typed.to_owned() }),
            Question::Prompt { options, .. } => {
                let by_number = typed.parse::<usize>().ok().and_then(|number| options.get(number.checked_sub(1)?));
                let chosen = options.iter().find(|option| *option == typed).or(by_number);
                chosen.map(|text| Answer::Text { text: text.clone() }).ok_or_else(|| "none of these".to_owned())
            }
            Question::Webhook { .. } | Question::Poll { .. } | Question::Time | Question::Pause => Ok(Answer::Resumed),
        }
    }

    /// How to answer on the command line.
    pub(super) fn how(&self) -> String {
        match &self.question {
            Question::Prompt { into, .. } => format!("answer with `--answer {}=…`", printable(into, false)),
            Question::Confirm { .. } | Question::Webhook { .. } | Question::Poll { .. } | Question::Time | Question::Pause => {
                "answer with `--yes`".to_owned()
            }
        }
    }

    /// How to answer on the services.
    pub(super) fn how_there(&self, run: &RunId) -> String {
        let stage = printable(&self.path, false);
        match &self.question {
            Question::Prompt { .. } => format!("answer with `otto answer {run} '{stage}' TEXT`"),
            Question::Confirm { .. } => format!("answer with `otto approve {run} '{stage}'`, or with `--refuse`"),
            Question::Webhook { .. } | Question::Poll { .. } | Question::Time | Question::Pause => {
                format!("go on with `otto resume {run} '{stage}'`")
            }
        }
    }

    fn is_named(&self, name: &str) -> bool {
        let variable = matches!(&self.question, Question::Prompt { into, .. } if into == name);
        variable || is_called(&self.path, name)
    }
}

/// What answers to the stage's questions may be called.
fn asked_by(stage: &Stage) -> Vec<String> {
    let name = |wait: &Wait| match wait {
        Wait::Prompt { into, .. } => Some(into.clone()),
        Wait::Confirm { .. } | Wait::Pause => Some(stage.path.clone()),
        Wait::Webhook { .. } | Wait::Poll { .. } | Wait::Time { .. } => None,
    };
    stage.waits().filter_map(name).collect()
}

/// Whether this is the path of a stage, or the last part of it.
fn is_called(path: &str, name: &str) -> bool {
    path == name || path.rsplit('/').next() == Some(name)
}

fn left(due: Timestamp, now: Timestamp) -> Duration {
    due.since(now)
}

/// The answers that the command line gives.
#[derive(Debug, Clone, Default)]
pub(super) struct Given {
    /// Approves confirmations, and resumes what is paused.
    pub(super) yes: bool,
    /// Answers by the name of a variable, or the path of a stage.
    pub(super) answers: Vec<(String, String)>,
}

impl Given {
    /// Whether there is something in the plan for each answer to be meant for; a name that was mistyped would leave the run waiting.
    pub(super) fn fits(&self, plan: &Plan) -> anyhow::Result<()> {
        let asked: BTreeSet<String> = plan.stages.iter().flat_map(asked_by).collect();
        for (name, _) in &self.answers {
            let is_stage = plan.stages.iter().any(|stage| is_called(&stage.path, name));
            if !is_stage && !asked.contains(name) {
                let all = asked.into_iter().collect::<Vec<_>>().join(", ");
                let all = if all.is_empty() { "the pipeline asks nobody".to_owned() } else { format!("the pipeline asks for {all}") };
                bail!("`--answer {name}=…` answers nothing: {all}");
            }
        }
        Ok(())
    }

    /// What the command line answers to this, or why what it says is no answer.
    pub(super) fn to(&self, ask: &Ask) -> Option<Result<Answer, String>> {
        if let Some((name, text)) = self.answers.iter().find(|(name, _)| ask.is_named(name)) {
            return Some(ask.read(text).map_err(|why| format!("`--answer {name}={text}` is no answer: {why} ({})", ask.choices())));
        }
        match &ask.question {
            Question::Confirm { delivery, .. } => self.yes.then_some(Ok(Answer::Approved { delivery: *delivery })),
            Question::Pause => self.yes.then_some(Ok(Answer::Resumed)),
            Question::Prompt { .. } | Question::Webhook { .. } | Question::Poll { .. } | Question::Time => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use model::Digest;

    use super::*;

    fn ask(question: Question) -> Ask {
        Ask {
            stage: StageId::of("Ship/Ask"),
            path: "Ship/Ask".to_owned(),
            wait: WaitKey::Itself,
            question,
            due_at: Some(Timestamp(61_000)),
        }
    }

    fn prompt(options: &[&str]) -> Ask {
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        ask(Question::Prompt { message: "Which\x1b[2J?".to_owned(), into: "target".to_owned(), options, by: vec!["ops".to_owned()] })
    }

    fn confirm() -> Ask {
        ask(Question::Confirm { message: "Go?".to_owned(), by: Vec::new(), delivery: Digest::of(b"d") })
    }

    #[test]
    fn what_is_typed_is_an_answer_or_is_asked_again() {
        let text = |text: &str| Ok(Answer::Text { text: text.to_owned() });
        assert_eq!(confirm().read(" YES "), Ok(Answer::Approved { delivery: Digest::of(b"d") }));
        assert_eq!(confirm().read("n"), Ok(Answer::Refused { reason: None }));
        assert!(confirm().read("").is_err(), "Enter alone approves nothing");
        let choice = prompt(&["staging", "production"]);
        assert_eq!((choice.read("2"), choice.read("staging")), (text("production"), text("staging")));
        assert!(choice.read("0").is_err() && choice.read("prod").is_err() && choice.read("3").is_err());
        assert_eq!(prompt(&[]).read("anything"), text("anything"));
        assert_eq!(ask(Question::Pause).read(""), Ok(Answer::Resumed));
        assert_eq!(choice.words(Timestamp(1_000)), "Ship/Ask: Which?, for ops, 1 min 00 s left");
        assert_eq!(choice.choices(), "1 staging, 2 production");
    }

    #[test]
    fn yes_approves_and_resumes_and_answers_no_prompt() {
        let yes = Given { yes: true, answers: Vec::new() };
        assert_eq!(yes.to(&confirm()), Some(Ok(Answer::Approved { delivery: Digest::of(b"d") })));
        assert_eq!(yes.to(&ask(Question::Pause)), Some(Ok(Answer::Resumed)));
        assert_eq!(yes.to(&prompt(&[])), None);
        for name in ["target", "Ship/Ask", "Ask"] {
            let given = Given { yes: false, answers: vec![(name.to_owned(), "a".to_owned())] };
            assert_eq!(given.to(&prompt(&["a"])), Some(Ok(Answer::Text { text: "a".to_owned() })), "{name}");
            assert!(given.to(&prompt(&["b"])).unwrap().unwrap_err().contains("--answer"));
        }
        assert_eq!(Given::default().to(&confirm()), None);
    }

    #[test]
    fn an_answer_that_nothing_asks_for_is_named() {
        let given = |name: &str| Given { yes: false, answers: vec![(name.to_owned(), "x".to_owned())] };
        let prompt = Wait::Prompt {
            message: model::plan::Value::Text("Which?".to_owned()),
            into: "target".to_owned(),
            options: Vec::new(),
            by: Vec::new(),
            timeout_ms: None,
        };
        let ship = Stage { enter: vec![prompt, Wait::Pause], ..Stage::new("Group/Ship") };
        let plan = Plan::new(vec![ship]);
        for name in ["target", "Ship", "Group/Ship"] {
            given(name).fits(&plan).unwrap();
        }
        let why = given("tarqet").fits(&plan).unwrap_err().to_string();
        assert_eq!(why, "`--answer tarqet=…` answers nothing: the pipeline asks for Group/Ship, target");
        let why = given("x").fits(&Plan::new(Vec::new())).unwrap_err().to_string();
        assert_eq!(why, "`--answer x=…` answers nothing: the pipeline asks nobody");
    }
}
