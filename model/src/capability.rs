//! Whether an agent has what a stage demands: its agent says so of itself, and the auctioneer asks only those that may say yes.

use std::collections::BTreeMap;

use crate::{
    plan::{Requirements, Value},
    version,
};

/// What the name of a fact ends with that is a tool's version.
const VERSION: &str = ".version";
/// A fact in bytes.
const MEMORY: &str = "memory";

/// What an agent is and has.
pub type Facts = BTreeMap<String, Value>;

/// Whether nothing is missing.
pub fn has_all(requires: &Requirements, facts: &Facts) -> bool {
    requires.iter().all(|(name, wanted)| has(name, wanted, facts))
}

/// What none of these agents has, for people; empty if one of them has all.
pub fn missing_everywhere<'a>(requires: &Requirements, agents: &(impl Iterator<Item = &'a Facts> + Clone)) -> Vec<String> {
    if agents.clone().any(|facts| has_all(requires, facts)) {
        return Vec::new();
    }
    let nobody = |(name, wanted): &(&String, &Value)| !agents.clone().any(|facts| has(name, wanted, facts));
    let lacks: Vec<String> =
        requires.iter().filter(nobody).map(|(name, wanted)| format!("no agent has {}", demand(name, wanted))).collect();
    if !lacks.is_empty() || requires.is_empty() {
        return lacks;
    }
    let all: Vec<String> = requires.iter().map(|(name, wanted)| demand(name, wanted)).collect();
    vec![format!("no one agent has all of {}", all.join(", "))]
}

/// What is missing, for people; `None` if nothing is.
pub fn missing(requires: &Requirements, facts: &Facts) -> Option<String> {
    let lacks: Vec<String> = requires
        .iter()
        .filter(|(name, wanted)| !has(name, wanted, facts))
        .map(|(name, wanted)| lack(name, wanted, facts.get(name)))
        .collect();
    (!lacks.is_empty()).then(|| lacks.join("; "))
}

/// A demand for a version is met by the versions that it names, not by the same text alone.
fn has(name: &str, wanted: &Value, facts: &Facts) -> bool {
    let fact = facts.get(name);
    if let (true, Value::Text(wanted), Some(Value::Text(fact))) = (name.ends_with(VERSION), wanted, fact) {
        return version::meets(wanted, fact);
    }
    meets(wanted, fact)
}

fn meets(wanted: &Value, fact: Option<&Value>) -> bool {
    match (wanted, fact) {
        (Value::Boolean(true), fact) => !matches!(fact, None | Some(Value::Boolean(false))),
        (Value::Boolean(false), fact) => matches!(fact, None | Some(Value::Boolean(false))),
        (Value::List(all), fact) => all.iter().all(|one| meets(one, fact)),
        // What is known in the run only has been put in before an agent is asked.
        (Value::Variable { .. } | Value::Call { .. } | Value::Steps { .. }, _) | (_, None) => false,
        // A fact that is a list has several values, such as an agent's labels: one that meets the demand is enough.
        (wanted, Some(Value::List(facts))) => facts.iter().any(|fact| meets(wanted, Some(fact))),
        (Value::Text(wanted), Some(fact)) => matches!(fact, Value::Text(text) if text == wanted),
        (Value::Integer(wanted), Some(Value::Integer(fact))) => fact >= wanted,
        (Value::Integer(_) | Value::Decimal { .. }, Some(fact)) => match (number(wanted), number(fact)) {
            (Some(wanted), Some(fact)) => fact >= wanted,
            _ => false,
        },
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Integer(number) => number.to_string().parse().ok(),
        Value::Decimal { decimal } => decimal.parse().ok(),
        Value::Boolean(_) | Value::Text(_) | Value::Variable { .. } | Value::Call { .. } | Value::Steps { .. } | Value::List(_) => None,
    }
}

fn lack(name: &str, wanted: &Value, fact: Option<&Value>) -> String {
    let has = fact.map_or("this agent has none".to_owned(), |fact| format!("this agent has {}", show(name, fact)));
    format!("wants {}, {has}", demand(name, wanted))
}

/// A demand, for people.
fn demand(name: &str, wanted: &Value) -> String {
    match wanted {
        Value::Boolean(true) => name.to_owned(),
        Value::Integer(_) | Value::Decimal { .. } => format!("{name} of at least {}", show(name, wanted)),
        Value::Text(wanted) if name.ends_with(VERSION) => format!("{name} {wanted}"),
        Value::Boolean(false) | Value::Text(_) | Value::Variable { .. } | Value::Call { .. } | Value::Steps { .. } | Value::List(_) => {
            format!("{name} = {}", show(name, wanted))
        }
    }
}

fn show(name: &str, value: &Value) -> String {
    match value {
        Value::Boolean(value) => value.to_string(),
        Value::Integer(bytes) if name == MEMORY => size(*bytes),
        Value::Integer(number) => number.to_string(),
        Value::Text(text) => format!("'{text}'"),
        Value::Decimal { decimal } => decimal.clone(),
        Value::Variable { .. } | Value::Call { .. } | Value::Steps { .. } => "what is not known yet".to_owned(),
        Value::List(values) => format!("[{}]", values.iter().map(|value| show(name, value)).collect::<Vec<_>>().join(", ")),
    }
}

/// Bytes in the largest unit of which there is one, to a tenth of it, as they are written in a pipeline.
fn size(bytes: i64) -> String {
    let units = [("T", 1_i64 << 40), ("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)];
    let Some((unit, length)) = units.into_iter().find(|(_, length)| bytes >= *length) else { return bytes.to_string() };
    match bytes % length * 10 / length {
        0 => format!("{}{unit}", bytes / length),
        tenths => format!("{}.{tenths}{unit}", bytes / length),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    #[test]
    fn each_kind_of_demand_is_met_in_its_own_way() {
        let facts = Facts::from([
            ("arch".to_owned(), text("amd64")),
            ("cores".to_owned(), Value::Integer(4)),
            ("load".to_owned(), Value::Decimal { decimal: "1.5".to_owned() }),
            ("docker".to_owned(), Value::Boolean(true)),
            ("gpu".to_owned(), Value::Boolean(false)),
            ("python.version".to_owned(), text("3.11.2")),
            ("label".to_owned(), Value::List(vec![text("fast"), text("office")])),
        ]);
        let cases = [
            ("arch", text("amd64"), true),
            ("arch", text("arm64"), false),
            ("arch", Value::Boolean(true), true),
            ("cores", Value::Integer(4), true),
            ("cores", Value::Integer(5), false),
            ("cores", Value::Decimal { decimal: "3.5".to_owned() }, true),
            ("cores", text("4"), false),
            ("load", Value::Integer(2), false),
            ("docker", Value::Boolean(true), true),
            ("gpu", Value::Boolean(true), false),
            ("gpu", Value::Boolean(false), true),
            ("none", Value::Boolean(true), false),
            ("none", text("x"), false),
            ("python.version", text("~> 3.8"), true),
            ("python.version", text("3.11"), true),
            ("python.version", text(">= 3.12"), false),
            ("python.version", Value::Boolean(true), true),
            ("go.version", text(">= 1"), false),
            ("label", text("office"), true),
            ("label", Value::List(vec![text("fast"), text("office")]), true),
            ("label", Value::List(vec![text("fast"), text("slow")]), false),
        ];
        for (name, wanted, met) in cases {
            let requires = Requirements::from([(name.to_owned(), wanted.clone())]);
            assert_eq!(missing(&requires, &facts).is_none(), met, "{name} {wanted:?}");
        }
    }

    #[test]
    fn what_is_missing_is_said() {
        let facts = Facts::from([("cores".to_owned(), Value::Integer(4))]);
        let requires = Requirements::from([("arch".to_owned(), text("arm64")), ("cores".to_owned(), Value::Integer(8))]);
        let said = missing(&requires, &facts).unwrap();
        assert_eq!(said, "wants arch = 'arm64', this agent has none; wants cores of at least 8, this agent has 4");
        let memory = |bytes: i64| [("memory".to_owned(), Value::Integer(bytes))];
        let said = missing(&memory(900 << 30).into(), &memory(25_276_502_016).into()).unwrap();
        assert_eq!(said, "wants memory of at least 900G, this agent has 23.5G");
        let said = missing(&memory(i64::MAX).into(), &memory(1023).into()).unwrap();
        assert_eq!(said, "wants memory of at least 8388607.9T, this agent has 1023");
    }

    #[test]
    fn what_nobody_has_is_said_of_the_whole_fleet() {
        let fleet = [
            Facts::from([("cores".to_owned(), Value::Integer(4)), ("arch".to_owned(), text("amd64"))]),
            Facts::from([("cores".to_owned(), Value::Integer(64)), ("arch".to_owned(), text("arm64"))]),
        ];
        let check = |requires: &[(&str, Value)], expect: &[&str]| {
            let requires = requires.iter().map(|(name, wanted)| ((*name).to_owned(), wanted.clone())).collect();
            assert_eq!(missing_everywhere(&requires, &fleet.iter()), expect);
        };
        check(&[("cores", Value::Integer(64))], &[]);
        check(
            &[("docker_run", Value::Boolean(true)), ("cores", Value::Integer(65))],
            &["no agent has cores of at least 65", "no agent has docker_run"],
        );
        check(&[("arch", text("amd64")), ("cores", Value::Integer(64))], &["no one agent has all of arch = 'amd64', cores of at least 64"]);
        assert_eq!(missing_everywhere(&Requirements::new(), &[].iter()), [""; 0]);
    }
}
