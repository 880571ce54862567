//! `gates { enter { … } exit { … } }` and `when { … }`: a false condition skips the stage, and what is waited for is waited for without an
//! agent.

use model::plan::{self, Wait};

use super::{Gates, Lowering, Settings, copy::Layer};
use crate::{
    diagnostic::{Code, Finding, quoted},
    lower::condition::Decision,
    suggest::did_you_mean,
    syntax::{Call, Entry, Item, ItemKind, Tail},
};

/// What is waited for in `enter` and `exit`.
pub(in crate::lower) const WAITS: [&str; 3] = ["input", "webhook", "poll"];
/// Words of a pipeline that wait, too, but stand for themselves.
const OTHER_WAITS: [&str; 5] = ["confirm", "prompt", "wait", "pause", "time"];
const FORM: &str = "write `gates { enter { branch == 'main' } exit { webhook { description = '…' } } }`";

/// Where conditions of a stage are written, in the order in which they are told: copied ones first, then as the blocks stand. It is that in
/// which `otto fmt` puts `when` and `enter` into one block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ConditionPlace {
    is_own: bool,
    /// Where the stage's own block begins.
    start: usize,
}

impl Lowering<'_, '_> {
    /// `gates { … }`, with what is copied into it.
    pub(super) fn gates(&mut self, entry: &Entry, settings: &mut Settings) {
        let Some(block) = self.block(entry) else { return };
        let Settings { gates, from, .. } = settings;
        self.with_copies("gates", block, from, |lowering, layer| {
            let place = ConditionPlace { is_own: !layer.is_copied, start: block.span.start };
            lowering.gate_layer(layer, place, gates);
        });
        self.decide_gates(gates);
    }

    /// `when { … }`, the older spelling of the conditions of `enter`.
    pub(super) fn when(&mut self, entry: &Entry, settings: &mut Settings) {
        let Some(block) = self.block(entry) else { return };
        let Settings { gates, from, .. } = settings;
        self.with_copies("when", block, from, |lowering, layer| {
            let place = ConditionPlace { is_own: !layer.is_copied, start: block.span.start };
            lowering.gate_layer(layer, place, gates);
        });
        self.decide_gates(gates);
    }

    /// Decides all conditions of a stage as if they stood in one block, so that it makes no difference in how many they are written.
    fn decide_gates(&mut self, gates: &mut Gates) {
        gates.skip = None;
        gates.left_out = None;
        gates.conditions.clear();
        match self.decide_all(gates.written.values().flatten()) {
            Some(Decision::Fails { skip, about_it: true }) => gates.left_out = Some(skip),
            Some(Decision::Fails { skip, about_it: false }) => gates.skip = Some(skip),
            Some(Decision::InRun(plan::Condition::All(conditions))) => gates.conditions = conditions,
            Some(Decision::InRun(condition)) => gates.conditions = vec![condition],
            Some(Decision::Holds) | None => {}
        }
    }

    fn gate_layer(&mut self, layer: &Layer<'_>, place: ConditionPlace, gates: &mut Gates) {
        if layer.block == "when" {
            let conditions = layer.items.iter().filter(|item| !is_from(item)).collect();
            let sound = self.conditions(conditions, "`when`", layer);
            return gates.written.entry(place).or_default().extend(sound);
        }
        let entries: Vec<Item> = layer.items.iter().filter(|item| self.is_of_gates(item)).cloned().collect();
        for entry in self.entries(&entries, "in `gates`") {
            let Some(block) = self.block(entry) else { continue };
            let (waits, conditions): (Vec<&Item>, Vec<&Item>) = block.kind.iter().partition(|item| wait_word(item).is_some());
            match entry.name.kind.as_str() {
                "enter" => {
                    let sound = self.conditions(conditions, "`enter`", layer);
                    gates.written.entry(place).or_default().extend(sound);
                    if !layer.conditions_only {
                        let waits = self.waits(&waits);
                        gates.enter.extend(waits);
                    }
                }
                _ if layer.conditions_only => {}
                _ => {
                    for condition in conditions {
                        let finding = Finding::new(Code::MisplacedCondition, condition.span, "a condition cannot stand in `exit`");
                        self.error(finding.help("when the stage has ended, nothing can skip it: write the condition into `enter { … }`"));
                    }
                    let waits = self.waits(&waits);
                    gates.exit.extend(waits);
                }
            }
        }
    }

    /// Whether it is `enter` or `exit`; all else but `from` is refused.
    fn is_of_gates(&mut self, item: &Item) -> bool {
        let finding = match &item.kind {
            ItemKind::Entry(Entry { name, .. }) if matches!(name.kind.as_str(), "enter" | "exit") => return true,
            _ if is_from(item) => return false,
            ItemKind::Entry(Entry { name, .. }) if wait_word(item).is_some() => {
                let message = format!("nothing says whether {} comes before the stage or after it", quoted(&name.kind));
                let help = format!("write `gates {{ enter {{ {0} … }} }}` or `gates {{ exit {{ {0} … }} }}`", name.kind);
                Finding::new(Code::Shape, name.span, message).help(help)
            }
            ItemKind::Entry(Entry { name, tail: Tail::Call(Call { block: Some(_), .. }) }) => {
                let message = format!("{} means nothing in `gates`", quoted(&name.kind));
                Finding::new(Code::UnknownName, name.span, message).help(did_you_mean(&name.kind, ["enter", "exit"]))
            }
            ItemKind::Entry(_) | ItemKind::Value(_) | ItemKind::Condition(_) => {
                Finding::new(Code::MisplacedCondition, item.span, "a condition stands in `enter`").help(FORM)
            }
        };
        self.error(finding);
        false
    }

    /// The conditions among what stands where conditions stand. Copied ones are tried alone, so that a mistake in them is told of the copy.
    fn conditions(&mut self, items: Vec<&Item>, within: &str, layer: &Layer<'_>) -> Vec<Item> {
        let mut sound = Vec::new();
        for item in items {
            let Some(word) = misplaced_wait(item) else {
                sound.push(item);
                continue;
            };
            let message = format!("{} is no condition, so it cannot stand in {within}", quoted(word));
            let help = match word {
                word if WAITS.contains(&word) => format!("write `gates {{ enter {{ {word} … }} }}`"),
                _ => "what is waited for before or after a stage is `input '…'`, `webhook { … }` or `poll { … }`".to_owned(),
            };
            self.error(Finding::new(Code::MisplacedCondition, item.span, message).help(help));
        }
        if layer.is_copied {
            self.decide_all(sound.iter().copied());
        }
        sound.into_iter().cloned().collect()
    }

    fn waits(&mut self, items: &[&Item]) -> Vec<Wait> {
        let mut waits = Vec::new();
        for item in items {
            let ItemKind::Entry(entry) = &item.kind else { continue };
            waits.extend(match entry.name.kind.as_str() {
                "input" => self.input(entry),
                "webhook" => self.webhook(entry),
                _ => self.poll(entry),
            });
        }
        waits
    }
}

fn is_from(item: &Item) -> bool {
    matches!(&item.kind, ItemKind::Entry(entry) if super::copy::is_from(entry))
}

/// The word of something that is waited for.
fn wait_word(item: &Item) -> Option<&str> {
    match &item.kind {
        ItemKind::Entry(Entry { name, tail: Tail::Call(_) }) if WAITS.contains(&name.kind.as_str()) => Some(&name.kind),
        ItemKind::Entry(_) | ItemKind::Value(_) | ItemKind::Condition(_) => None,
    }
}

/// The word of something that waits, where only conditions may stand.
fn misplaced_wait(item: &Item) -> Option<&str> {
    let ItemKind::Entry(Entry { name, .. }) = &item.kind else { return None };
    WAITS.iter().chain(&OTHER_WAITS).find(|word| **word == name.kind).copied()
}
