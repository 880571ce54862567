//! `notify`: steps on the outcome of a stage, or of the whole.

use std::collections::BTreeMap;

use model::{diagnostic::Span, plan::Notify};

use super::Lowering;
use crate::{
    diagnostic::{Code, Finding, quoted},
    syntax::{Entry, ItemKind},
};

/// The outcomes.
const OUTCOMES: [&str; 3] = ["success", "failure", "complete"];

impl Lowering<'_, '_> {
    /// `notify { success { … } failure { … } complete { … } }`.
    pub(super) fn notify(&mut self, entry: &Entry) -> Option<Notify> {
        let block = self.block(entry)?;
        let mut notify = Notify::default();
        let mut seen: BTreeMap<&str, Span> = BTreeMap::new();
        for item in &block.kind {
            let ItemKind::Entry(outcome) = &item.kind else {
                let finding = Finding::new(Code::Shape, item.span, "a value alone means nothing in `notify`");
                self.error(finding.help("write `notify { failure { sh './tell.sh' } }`"));
                continue;
            };
            let name = &outcome.name;
            if let Some(first) = seen.insert(&name.kind, name.span) {
                seen.insert(&name.kind, first);
                self.doubled(&quoted(&name.kind), name.span, first);
                continue;
            }
            let steps = match name.kind.as_str() {
                "success" => &mut notify.success,
                "failure" => &mut notify.failure,
                "complete" => &mut notify.complete,
                other => {
                    let help = if self.scope_of_steps().get(other).is_some() {
                        format!("say on which outcome: `complete {{ {other} … }}`")
                    } else if matches!(other, "always" | "cleanup" | "finally") {
                        "write `complete { … }`, which runs on every outcome".to_owned()
                    } else {
                        self.did_you_mean(other, OUTCOMES)
                    };
                    let message = format!("{} means nothing in `notify`", quoted(other));
                    self.error(Finding::new(Code::UnknownName, name.span, message).help(help));
                    continue;
                }
            };
            *steps = self.steps_of(outcome);
        }
        Some(notify)
    }
}
