//! Steps made of steps: the steps of their file stand where they are called, with their parameters bound.

use std::{collections::BTreeMap, rc::Rc};

use model::plan::{self, Step};

use super::{Lowering, every::Every};
use crate::{
    diagnostic::{Code, Finding, quoted},
    lower::{
        STANDARD_LIBRARY,
        library::{Callable, Made, entry_in},
        parameter::Given,
        value::Known,
    },
    syntax::{Call, Entry, ItemKind, Name, Tail},
};

/// The step of the standard library that runs a block of steps, and its parameters.
const BLOCK_STEP: &str = "dir";
const BLOCK_STEP_PATH: &str = "path";
const BLOCK_STEP_STEPS: &str = "steps";

impl<'a> Lowering<'_, 'a> {
    /// Expands a call. What every step takes holds for all of it: then it stands in one `dir` of the work directory itself.
    pub(super) fn made_of_steps(&mut self, name: &Name, call: &Call, callable: &Callable<'_>, made: &Made<'a>, steps: &mut Vec<Step>) {
        let Some(matched) = self.matched(name, call, &callable.manifest) else { return };
        let every = self.every(&matched.every);
        let mut given = Vec::new();
        let mut sound = matched.sound && every.is_some();
        for (parameter, argument) in &matched.own {
            match self.known(&argument.value) {
                Some(known) => {
                    let span = argument.keyword.as_ref().map_or(argument.value.span, |keyword| keyword.span);
                    given.push((Name { kind: parameter.name.clone(), span }, known));
                }
                None => sound = false,
            }
        }
        let (true, Some(every)) = (sound, every) else { return };
        let Some(inner) = self.expand(name, callable, made, given) else { return };
        if every == Every::default() {
            steps.extend(inner);
        } else if let Some(step) = self.in_one(name, inner, every) {
            steps.push(step);
        }
    }

    /// The steps that stand in the place of a call.
    fn expand(&mut self, name: &Name, callable: &Callable<'_>, made: &Made<'a>, given: Vec<(Name, Known)>) -> Option<Vec<Step>> {
        let source = &made.source;
        let tree = Rc::clone(&source.tree);
        let block = match &tree.items.get(made.item)?.kind {
            ItemKind::Entry(Entry { tail: Tail::Call(Call { block: Some(block), .. }), .. }) => block,
            ItemKind::Entry(_) | ItemKind::Value(_) | ItemKind::Condition(_) => return None,
        };
        let steps = entry_in(block, "steps")?;
        if !self.expanded(block.span.end - block.span.start, name.span) {
            return None;
        }
        let id = format!("{}: {}", made.path, callable.manifest.symbol);
        self.included(&id, name.span, |lowering| {
            let taker = format!("the step {}", quoted(&callable.manifest.symbol));
            let given = Given { values: given, file: lowering.source.id, call: name.span, taker };
            lowering.within(source.clone(), |lowering| {
                let scope = lowering.bind_parameters(entry_in(block, "parameters"), given)?;
                Some(lowering.with_scope(scope, |lowering| lowering.steps_of(steps)))
            })
        })
    }

    /// All steps in one, for what every step takes.
    fn in_one(&mut self, name: &Name, steps: Vec<Step>, every: Every) -> Option<Step> {
        let libraries = self.input.libraries;
        let standard = libraries.iter().find(|library| library.name == STANDARD_LIBRARY);
        let Some(_) = standard.and_then(|library| library.steps.iter().find(|step| step.symbol == BLOCK_STEP)) else {
            let message = "a step made of steps takes no `timeout`, `retry` or `into` here";
            let finding = Finding::new(Code::UnknownKeyword, name.span, message);
            self.error(finding.help("write them at the steps in it"));
            return None;
        };
        let path = plan::Value::from(".");
        let steps = plan::Value::Steps { steps };
        let parameters = BTreeMap::from([(BLOCK_STEP_PATH.to_owned(), path), (BLOCK_STEP_STEPS.to_owned(), steps)]);
        let Every { timeout_ms, attempts, into } = every;
        Some(Step { timeout_ms, attempts, into, ..Step::new(STANDARD_LIBRARY, BLOCK_STEP, parameters) })
    }
}
