//! What a stage is to the roll of agents: of which trust its run is, and of which class it is itself.

use model::{
    AgentClass,
    plan::Value,
    protocol::enrolment::{Asked, CLASS},
};

use super::{resolve, shape::Index, state::Run};

/// Gives what is asked of whoever runs the stage at `at`.
pub fn with<T>(run: &Run, at: Index, use_it: impl FnOnce(Asked<'_>) -> T) -> T {
    let trust = run.trigger.claims.trust;
    match run.shape.stage(at).requires.get(CLASS) {
        None => use_it(Asked { trust, class: Some(AgentClass::DEFAULT) }),
        Some(Value::Text(class)) => use_it(Asked { trust, class: Some(class) }),
        Some(class @ (Value::Variable { .. } | Value::Call { .. })) => {
            let class = resolve::text(class, &run.found(at).variables).ok();
            use_it(Asked { trust, class: class.as_deref() })
        }
        Some(Value::Boolean(_) | Value::Integer(_) | Value::Decimal { .. } | Value::Steps { .. } | Value::List(_)) => {
            use_it(Asked { trust, class: None })
        }
    }
}
