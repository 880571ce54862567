//! Steps: from what is written to calls with keywords and values, as the manifests of the steps in scope have them.

mod call;
mod composite;
mod every;
mod kind;

use std::rc::Rc;

use model::{
    diagnostic::Span,
    plan::{self, Step},
};

use super::{Lowering, condition::Decision, fact::FACTS, library::Origin};
use crate::{
    diagnostic::{Code, Finding, quoted},
    limits::{STEP_DEPTH_MAX, STEPS_MAX},
    syntax::{Block, Call, Condition, ConditionKind, Entry, Item, ItemKind, Name, Tail, Value, ValueKind},
};

/// The word before a condition around steps.
const WHEN: &str = "when";

/// What stands in `steps { … }` or `steps [ … ]`.
fn steps_in(entry: &Entry) -> Option<&[Item]> {
    let Tail::Call(call) = &entry.tail else { return None };
    if let (true, Some(block)) = (call.arguments.is_empty(), &call.block) {
        return Some(&block.kind);
    }
    let [argument] = call.arguments.as_slice() else { return None };
    if call.block.is_none() && argument.keyword.is_none() { list_of(&argument.value) } else { None }
}

/// What stands between the brackets of a list.
fn list_of(value: &Value) -> Option<&[Item]> {
    let ValueKind::List(items) = &value.kind else { return None };
    Some(items)
}

/// A value as a condition.
fn condition_of(value: &Value) -> Condition {
    if let ValueKind::Condition(condition) = &value.kind {
        return (**condition).clone();
    }
    Condition { kind: ConditionKind::Value(value.kind.clone()), span: value.span }
}

impl Lowering<'_, '_> {
    /// The steps of `steps { … }` or `steps [ … ]`, and of `success { … }` and the like.
    pub(super) fn steps_of(&mut self, entry: &Entry) -> Vec<Step> {
        let name = &entry.name.kind;
        let Some(items) = steps_in(entry) else {
            return self.no_steps(entry, Code::Shape, &format!("{} takes a block of steps and nothing else", quoted(name)));
        };
        if let Tail::Call(Call { block: Some(block), .. }) = &entry.tail
            && self.is_left_out(block)
        {
            return Vec::new();
        }
        if items.is_empty() {
            return self.no_steps(entry, Code::NoSteps, &format!("there is no step in {}", quoted(name)));
        }
        self.steps_among(items)
    }

    fn no_steps(&mut self, entry: &Entry, code: Code, message: &str) -> Vec<Step> {
        let help = format!("write `{} {{ sh 'make' }}`", entry.name.kind);
        self.error(Finding::new(code, entry.name.span, message).help(help));
        Vec::new()
    }

    /// The steps of these items, in order; what is wrong in one is told, and the others are read.
    fn steps_among(&mut self, items: &[Item]) -> Vec<Step> {
        let mut steps = Vec::new();
        for item in items {
            if !self.step_counted(item.span) {
                break;
            }
            self.step(item, &mut steps);
        }
        steps
    }

    /// Counts one more step of the plan. `false` if there are too many; the first of those too many is told.
    fn step_counted(&mut self, span: Span) -> bool {
        self.steps += 1;
        if self.steps == STEPS_MAX + 1 {
            self.error(Finding::new(Code::TooManySteps, span, format!("a plan has at most {STEPS_MAX} steps")).label("one too many"));
        }
        self.steps <= STEPS_MAX
    }

    /// One thing in a block of steps: a call, which can be many steps, or steps under a condition.
    fn step(&mut self, item: &Item, steps: &mut Vec<Step>) {
        let ItemKind::Entry(entry) = &item.kind else {
            let finding = Finding::new(Code::NotAStep, item.span, "this is no step").label("expected a step");
            return self.error(finding.help("a step begins with its name: `sh 'make'`"));
        };
        let name = &entry.name;
        let Tail::Call(call) = &entry.tail else {
            let finding = Finding::new(Code::NotAStep, item.span, "this is a setting, not a step").label("expected a step");
            return self.error(finding.help("settings stand beside `steps`; an argument of a step is written `name: value`"));
        };
        if name.kind == WHEN {
            return self.steps_when(name, call, steps);
        }
        let scope = self.scope_of_steps();
        let Some(callable) = scope.get(&name.kind) else {
            return self.unknown_step(name);
        };
        match &callable.origin {
            Origin::Library(library) => {
                let Some(step) = self.call(name, call, &callable.manifest) else { return };
                if !self.expanded(library.name.len() + step.symbol.len(), name.span) {
                    return;
                }
                self.used(library, &callable.manifest, name.span);
                steps.push(Step { library: library.name.to_string(), ..step });
            }
            Origin::Made(made) => self.made_of_steps(name, call, &Rc::clone(&callable), made, steps),
        }
    }

    /// Says that no step in scope has this name, unless one may have it that could not be read.
    pub(super) fn unknown_step(&mut self, name: &Name) {
        let scope = self.scope_of_steps();
        if scope.incomplete {
            return;
        }
        let help = match self.did_you_mean(&name.kind, scope.symbols()) {
            _ if FACTS.contains(&name.kind.as_str()) => {
                format!("a bare name begins the next step; as an argument it needs a keyword: `echo message: {}`", name.kind)
            }
            near if near.is_empty() => "`use './path'` brings the steps of a library into scope".to_owned(),
            near => near,
        };
        self.error(Finding::new(Code::UnknownStep, name.span, format!("no library has a step {}", quoted(&name.kind))).help(help));
    }

    /// `when(branch == 'main') { … }` around steps: decided while planning, and its steps are read in any case.
    fn steps_when(&mut self, name: &Name, call: &Call, steps: &mut Vec<Step>) {
        let help = "write `when(branch == 'main') { sh 'make' }`";
        let (conditions, items) = match (call.arguments.as_slice(), &call.block) {
            (conditions, Some(block)) => (conditions, Some(block.kind.as_slice())),
            ([conditions @ .., last], None) if list_of(&last.value).is_some() => (conditions, list_of(&last.value)),
            (conditions, None) => (conditions, None),
        };
        let Some(items) = items else {
            return self.error(Finding::new(Code::Shape, name.span, "`when` needs steps").help(help));
        };
        if conditions.is_empty() {
            return self.error(Finding::new(Code::Shape, name.span, "`when` around steps needs a condition").help(help));
        }
        let mut holds = true;
        for argument in conditions {
            if let Some(keyword) = &argument.keyword {
                self.error(Finding::new(Code::Shape, keyword.span, "a condition has no keyword").help(help));
                continue;
            }
            let condition = condition_of(&argument.value);
            match self.decide(&condition) {
                Some(Decision::Holds) | None => {}
                Some(Decision::Fails { .. }) => holds = false,
                Some(Decision::InRun(_)) => {
                    let message = "this condition is decided in the run, and steps are chosen while planning";
                    let finding = Finding::new(Code::WhenInRun, condition.span, message).label("a variable stands in it");
                    let help = "put these steps into a stage of their own, with `gates { enter { … } }` around the condition";
                    self.error(finding.help(help));
                }
            }
        }
        if items.is_empty() && !call.block.as_ref().is_some_and(|block| self.is_left_out(block)) {
            self.error(Finding::new(Code::NoSteps, name.span, "there is no step in `when`").help(help));
        }
        let mentioned = self.mentions.len();
        let inner = self.steps_among(items);
        if holds {
            steps.extend(inner);
        } else {
            self.mentions.truncate(mentioned);
        }
    }

    /// A block of steps as the value of a parameter.
    fn block_value(&mut self, items: &[Item], span: Span, block: Option<&Block>) -> Option<plan::Value> {
        if items.is_empty() {
            if !block.is_some_and(|block| self.is_left_out(block)) {
                self.error(Finding::new(Code::NoSteps, span, "there is no step in this block").help("write at least one step"));
            }
            return None;
        }
        if self.shelf.depth == STEP_DEPTH_MAX {
            let message = format!("blocks of steps are nested more than {STEP_DEPTH_MAX} deep, steps made of steps included");
            self.error(Finding::new(Code::StepsTooDeep, span, message).label("one too deep"));
            return None;
        }
        self.shelf.depth += 1;
        let steps = self.steps_among(items);
        self.shelf.depth -= 1;
        Some(plan::Value::Steps { steps })
    }
}
