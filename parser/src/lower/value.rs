//! Values: literals, names and functions, evaluated as far as they are known while planning, each with what of it came from outside.

use std::{collections::BTreeMap, rc::Rc};

use model::plan;

use super::Lowering;
use crate::syntax::Value;

/// A value, and whether something of it came from outside: then it is no code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) value: plan::Value,
    /// What came from outside, as the file names it: `params.target`, `branch`, `vars.colour`.
    pub(super) outside: Option<String>,
}

/// What `it` and `params` mean in the place that is being read.
#[derive(Debug, Clone, Default)]
pub(super) struct Scope {
    /// In an `each`: its value, or its values by name.
    pub(super) it: Option<It>,
    /// The parameters of the pipeline, of the blueprint, or of the step made of steps.
    pub(super) parameters: Rc<BTreeMap<String, Known>>,
}

/// The value of an `each` for one branch.
#[derive(Debug, Clone)]
pub(super) enum It {
    /// `each('a', 'b')`: `it`.
    One(Known),
    /// `each(os: […])`: `it.os`.
    Named(Rc<BTreeMap<String, Known>>),
}

impl Lowering<'_, '_> {
    /// Evaluates a value in [`Lowering::scope`]; `None` if something in it is wrong, which is told, or has to be asked for.
    #[expect(dead_code, reason = "variables and functions are lowered next")]
    pub(super) fn known(&mut self, value: &Value) -> Option<Known> {
        self.resolved(value).map(|value| Known { value, outside: None })
    }

    /// Goes on with another meaning of `it` and `params`.
    #[expect(dead_code, reason = "variables and functions are lowered next")]
    pub(super) fn with_scope<T>(&mut self, scope: Scope, work: impl FnOnce(&mut Self) -> T) -> T {
        let outer = std::mem::replace(&mut self.scope, scope);
        let result = work(self);
        self.scope = outer;
        result
    }
}
