//! What comes of a condition: whether it holds, and the facts that make it so.

use std::collections::BTreeSet;

use model::plan::{self, Skip};

use super::Decision;

/// Whether a condition holds.
#[derive(Debug, Clone)]
pub(super) enum Truth {
    Known(bool),
    InRun(plan::Condition),
}

impl Truth {
    pub(super) fn not(self) -> Self {
        match self {
            Self::Known(value) => Self::Known(!value),
            Self::InRun(condition) => Self::InRun(plan::Condition::Not(Box::new(condition))),
        }
    }

    fn is(&self, value: bool) -> bool {
        matches!(self, Self::Known(known) if *known == value)
    }
}

/// What comes of a condition or of a part of it.
pub(super) struct Verdict {
    pub(super) truth: Truth,
    /// The condition in the canonical spelling; of a false conjunction only the false parts.
    pub(super) spelled: String,
    /// How it is joined at the top: `||` needs parentheses within `&&`, and all but a single value after `!`.
    pub(super) joined: Joined,
    /// The facts that make it what it is.
    pub(super) facts: Vec<String>,
    /// Whether `it` was asked for, and nothing else that can differ.
    pub(super) about_it: bool,
    /// Whether anything that can differ was asked for besides `it`.
    pub(super) about_else: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Joined {
    No,
    Compared,
    And,
    Or,
}

impl Verdict {
    pub(super) fn decision(self) -> Decision {
        match self.truth {
            Truth::Known(true) => Decision::Holds,
            Truth::Known(false) => {
                let about_it = self.about_it && !self.about_else;
                let because = if self.facts.is_empty() { "it never holds".to_owned() } else { self.facts.join(", ") };
                Decision::Fails { skip: Skip { condition: self.spelled, because }, about_it }
            }
            Truth::InRun(condition) => Decision::InRun(condition),
        }
    }

    fn within_and(&self) -> String {
        if self.joined == Joined::Or { format!("({})", self.spelled) } else { self.spelled.clone() }
    }
}

/// Of something that is asked for and is not `it`.
pub(super) fn decided(held: bool, spelled: String, facts: Vec<String>) -> Verdict {
    Verdict { truth: Truth::Known(held), spelled, joined: Joined::No, facts, about_it: false, about_else: true }
}

/// Of a variable of the run.
pub(super) fn in_run(condition: plan::Condition, spelled: String) -> Verdict {
    Verdict { truth: Truth::InRun(condition), spelled, joined: Joined::No, facts: Vec::new(), about_it: false, about_else: true }
}

/// All must hold. What makes it false is told alone; where a part that is only about `it` does, nothing else matters.
pub(super) fn all(verdicts: Vec<Verdict>) -> Verdict {
    if verdicts.iter().any(|verdict| verdict.truth.is(false)) {
        let is_left_out = |verdict: &Verdict| verdict.truth.is(false) && verdict.about_it && !verdict.about_else;
        let left_out = verdicts.iter().any(is_left_out);
        let counts = |verdict: &Verdict| if left_out { is_left_out(verdict) } else { verdict.truth.is(false) };
        return merged(verdicts.into_iter().filter(counts).collect(), Truth::Known(false), Joined::And);
    }
    let open: Vec<plan::Condition> = verdicts.iter().filter_map(open_part).collect();
    merged(verdicts, joined(open, true, plan::Condition::All), Joined::And)
}

/// One must hold.
pub(super) fn any(verdicts: Vec<Verdict>) -> Verdict {
    if verdicts.iter().any(|verdict| verdict.truth.is(true)) {
        let facts = verdicts.iter().filter(|verdict| verdict.truth.is(true)).flat_map(|verdict| verdict.facts.clone()).collect();
        return Verdict { facts, ..merged(verdicts, Truth::Known(true), Joined::Or) };
    }
    let open: Vec<plan::Condition> = verdicts.iter().filter_map(open_part).collect();
    merged(verdicts, joined(open, false, plan::Condition::Any), Joined::Or)
}

fn open_part(verdict: &Verdict) -> Option<plan::Condition> {
    if let Truth::InRun(condition) = &verdict.truth { Some(condition.clone()) } else { None }
}

/// The parts that are left to the run; without any, the answer is known.
fn joined(mut open: Vec<plan::Condition>, without: bool, join: fn(Vec<plan::Condition>) -> plan::Condition) -> Truth {
    match open.len() {
        0 => Truth::Known(without),
        1 => Truth::InRun(open.remove(0)),
        _ => Truth::InRun(join(open)),
    }
}

fn merged(verdicts: Vec<Verdict>, truth: Truth, join: Joined) -> Verdict {
    let joined = match verdicts.as_slice() {
        [only] => only.joined,
        _ => join,
    };
    let spelled = match (verdicts.as_slice(), join) {
        ([only], _) => only.spelled.clone(),
        (verdicts, Joined::Or) => verdicts.iter().map(|verdict| verdict.spelled.clone()).collect::<Vec<_>>().join(" || "),
        (verdicts, _) => verdicts.iter().map(Verdict::within_and).collect::<Vec<_>>().join(" && "),
    };
    let about_it = verdicts.iter().any(|verdict| verdict.about_it);
    let about_else = verdicts.iter().any(|verdict| verdict.about_else);
    let facts = each_once(verdicts.into_iter().flat_map(|verdict| verdict.facts));
    Verdict { truth, spelled, joined, facts, about_it, about_else }
}

/// The facts in the order in which they are told, each once.
pub(super) fn each_once(facts: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut told = BTreeSet::new();
    facts.into_iter().filter(|fact| told.insert(fact.clone())).collect()
}
