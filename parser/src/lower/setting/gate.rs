//! `gates { enter { … } exit { … } }` and `when { … }`: a false condition skips the stage, and what is waited for is waited for without an
//! agent.

use model::plan::{Skip, Wait};

use super::{Gates, Lowering, Settings, copy::Layer};
use crate::{
    diagnostic::{Code, Finding, quoted},
    lower::condition::Decision,
    suggest::did_you_mean,
    syntax::{Call, Entry, Item, ItemKind, Tail},
};

/// What is waited for in `enter` and `exit`.
const WAITS: [&str; 3] = ["input", "webhook", "poll"];
/// Words of a pipeline that wait, too, but stand for themselves.
const OTHER_WAITS: [&str; 5] = ["confirm", "prompt", "wait", "pause", "time"];
const FORM: &str = "write `gates { enter { branch == 'main' } exit { webhook { description = '…' } } }`";

impl Lowering<'_, '_> {
    /// `gates { … }`, with what is copied into it.
    pub(super) fn gates(&mut self, entry: &Entry, settings: &mut Settings) {
        let Some(block) = self.block(entry) else { return };
        let Settings { gates, from, .. } = settings;
        self.with_copies("gates", block, from, |lowering, layer| lowering.gate_layer(layer, gates));
    }

    /// `when { … }`, the older spelling of the conditions of `enter`.
    pub(super) fn when(&mut self, entry: &Entry, settings: &mut Settings) {
        let Some(block) = self.block(entry) else { return };
        let Settings { gates, from, .. } = settings;
        self.with_copies("when", block, from, |lowering, layer| lowering.gate_layer(layer, gates));
    }

    fn gate_layer(&mut self, layer: &Layer<'_>, gates: &mut Gates) {
        if layer.block == "when" {
            let conditions = layer.items.iter().filter(|item| !is_from(item)).collect();
            return self.conditions(conditions, "`when`", gates);
        }
        let entries: Vec<Item> = layer.items.iter().filter(|item| self.is_of_gates(item)).cloned().collect();
        for entry in self.entries(&entries, "in `gates`") {
            let Some(block) = self.block(entry) else { continue };
            let (waits, conditions): (Vec<&Item>, Vec<&Item>) = block.kind.iter().partition(|item| wait_word(item).is_some());
            match entry.name.kind.as_str() {
                "enter" => {
                    self.conditions(conditions, "`enter`", gates);
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

    /// Decides conditions of which all must hold.
    fn conditions(&mut self, items: Vec<&Item>, within: &str, gates: &mut Gates) {
        let mut skips: Vec<Skip> = Vec::new();
        for item in items {
            if let Some(word) = misplaced_wait(item) {
                let message = format!("{} is no condition, so it cannot stand in {within}", quoted(word));
                let help = match word {
                    word if WAITS.contains(&word) => format!("write `gates {{ enter {{ {word} … }} }}`"),
                    _ => "what is waited for before or after a stage is `input '…'`, `webhook { … }` or `poll { … }`".to_owned(),
                };
                self.error(Finding::new(Code::MisplacedCondition, item.span, message).help(help));
                continue;
            }
            match self.decide_item(item) {
                Some(Decision::Fails { skip, about_it: true }) => gates.left_out = gates.left_out.take().or(Some(skip)),
                Some(Decision::Fails { skip, about_it: false }) => skips.push(skip),
                Some(Decision::InRun(condition)) => gates.conditions.push(condition),
                Some(Decision::Holds) | None => {}
            }
        }
        skips.splice(0..0, gates.skip.take());
        gates.skip = joined(skips);
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

/// One reason for all that is false.
fn joined(skips: Vec<Skip>) -> Option<Skip> {
    let all = skips.len();
    skips.into_iter().reduce(|first, next| {
        let alone = |condition: String| if condition.contains(" || ") { format!("({condition})") } else { condition };
        debug_assert!(all > 1, "two are joined");
        Skip {
            condition: format!("{} && {}", alone(first.condition), alone(next.condition)),
            because: format!("{}, {}", first.because, next.because),
        }
    })
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
