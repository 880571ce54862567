//! Conditions: decided while planning, but for those in which a variable of the run stands.

use model::plan::{self, Skip};

use super::Lowering;
use crate::syntax::Condition;

/// What is known of a condition while planning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decision {
    /// It holds.
    Holds,
    /// It does not hold.
    Fails {
        /// The condition, and the facts that make it false.
        skip: Skip,
        /// Whether nothing but `it` was asked for: then it leaves a combination of `each` out of the plan.
        about_it: bool,
    },
    /// A variable stands in it: the run decides.
    InRun(plan::Condition),
}

impl Lowering<'_, '_> {
    /// Decides a condition; `None` if something in it is wrong, which is told, or has to be asked for.
    #[expect(dead_code, reason = "conditions are lowered next")]
    pub(super) fn decide(&mut self, condition: &Condition) -> Option<Decision> {
        self.not_yet("a condition", condition.span);
        None
    }
}
