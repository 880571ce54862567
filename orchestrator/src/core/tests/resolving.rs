//! Values with variables put in, and what a stage finds.

use std::collections::BTreeMap;

use model::{
    Digest, StageOutcome, Timestamp,
    event::run::{Outputs, StoredTree},
    plan::{CacheDefinition, CacheUse, Condition, Container, Deployment, Function, Service, Stage, Step, Value},
    protocol::agent::Report,
};

use super::driven::{Driven, sh, stage, trigger, variable};
use crate::core::{
    Beginning, Status,
    resolve::{self, holds, text},
};

fn call(function: Function, arguments: Vec<Value>) -> Value {
    Value::Call { function, arguments }
}

fn variables() -> BTreeMap<String, String> {
    [("a", "1"), ("b", "two"), ("yes", "true")].map(|(name, text)| (name.to_owned(), text.to_owned())).into()
}

#[test]
fn each_value_has_its_text() {
    let decimal = || Value::Decimal { decimal: "3.10".to_owned() };
    let list = || Value::List(vec!["x".into(), variable("b"), decimal()]);
    let cases = [
        (Value::Boolean(true), "true"),
        (Value::Integer(-7), "-7"),
        (decimal(), "3.10"),
        (variable("b"), "two"),
        (call(Function::Concat, vec!["v".into(), variable("a"), Value::Integer(2)]), "v12"),
        (call(Function::Format, vec!["{}-{}!".into(), variable("b"), variable("a")]), "two-1!"),
        (call(Function::Join, vec![list(), ", ".into()]), "x, two, 3.10"),
        (list(), "x,two,3.10"),
    ];
    for (value, expected) in cases {
        assert_eq!(text(&value, &variables()).as_deref(), Ok(expected), "{value:?}");
    }
    let unset = text(&call(Function::Concat, vec![variable("none")]), &variables()).unwrap_err();
    assert!(unset.to_string().starts_with("the variable `none` has no value"), "{unset}");
}

#[test]
fn a_variable_is_not_looked_up_in_what_a_variable_holds() {
    let variables = [("a".to_owned(), "{}".to_owned()), ("b".to_owned(), "x".to_owned())].into();
    assert_eq!(text(&call(Function::Format, vec!["{}{}".into(), variable("a"), variable("b")]), &variables).as_deref(), Ok("{}x"));
}

#[test]
fn conditions_compare_texts() {
    let holds = |condition: &Condition| holds(condition, &variables());
    assert!(holds(&Condition::Is(variable("yes"))) && holds(&Condition::Is(Value::Boolean(true))));
    assert!(!holds(&Condition::Is(variable("a"))) && !holds(&Condition::Is(variable("none"))));
    assert!(holds(&Condition::Equal(variable("a"), Value::Integer(1))), "a text and a number by the text of both");
    assert!(holds(&Condition::Equal(variable("none"), "".into())));
    assert!(holds(&Condition::In(variable("b"), vec!["one".into(), "two".into()])));
    assert!(holds(&Condition::Matches(variable("b"), "t*".to_owned())) && !holds(&Condition::Matches(variable("b"), "[".to_owned())));
    let (yes, no) = (Condition::Is(variable("yes")), Condition::Is(variable("none")));
    assert!(holds(&Condition::Any(vec![no.clone(), yes.clone()])) && !holds(&Condition::All(vec![no.clone(), yes])));
    assert!(holds(&Condition::Not(Box::new(no))) && holds(&Condition::All(Vec::new())) && !holds(&Condition::Any(Vec::new())));
}

#[test]
fn an_agent_gets_a_stage_without_a_name_left_to_look_up() {
    let known = |name: &str| BTreeMap::from([(name.to_owned(), variable("v"))]);
    let block = Step::new("stdlib", "dir", BTreeMap::from([("steps".to_owned(), Value::Steps { steps: vec![sh(variable("v"))] })]));
    let own = BTreeMap::from([("BOTH".to_owned(), Value::Integer(1)), ("OWN".to_owned(), variable("v"))]);
    let settings = BTreeMap::from([("BOTH".to_owned(), Value::from("setting")), ("SETTING".to_owned(), variable("v"))]);
    let service = Service { name: "db".to_owned(), image: variable("v"), environment: known("E"), port: None, ready: None };
    let full = Stage {
        environment: own,
        deployment: Some(Deployment { environment: "production".to_owned(), protected: false, settings }),
        container: Some(Container { image: variable("v") }),
        services: vec![service],
        requires: known("label"),
        caches: BTreeMap::from([("c".to_owned(), CacheDefinition { paths: vec![variable("v")], key: Some(variable("v")) })]),
        conditions: vec![Condition::Equal(variable("v"), "1".into())],
        steps: vec![block],
        notify: model::plan::Notify { complete: vec![sh(variable("v"))], ..model::plan::Notify::default() },
        ..stage("b", &["a"])
    };
    let mut run = Driven::new(vec![stage("a", &[]), full]);
    run.leaving("a", &[("v", Some("1"))]);
    assert!(matches!(run.status("b"), Status::Ready { .. }));
    let resolved = resolve::stage(&run.run, 1).unwrap();
    assert!(!serde_json::to_string(&resolved).unwrap().contains("variable"), "{resolved:?}");
    let environment: Vec<_> = resolved.environment.iter().map(|(name, value)| (name.as_str(), value.as_text().unwrap())).collect();
    assert_eq!(environment, [("BOTH", "1"), ("OWN", "1"), ("SETTING", "1")], "the stage's own goes before the setting");
}

#[test]
fn a_stage_whose_variable_nobody_set_fails_before_an_agent_is_asked() {
    let mut run = Driven::new(vec![stage("a", &[]), Stage { steps: vec![sh(variable("v"))], ..stage("b", &["a"]) }]);
    run.leaving("a", &[("v", None)]);
    assert_eq!(run.status("b"), &Status::Ended(StageOutcome::Failure));
    assert!(run.reason("b").contains("`v` has no value") && run.run.stages[1].attempts.is_empty());
}

#[test]
fn a_stage_that_finds_more_than_can_be_sent_fails_before_an_agent_is_asked() {
    let long = "x".repeat(60 * 1024);
    let paths = ["a", "b", "c", "d", "e"];
    let writes = |names: usize| Stage { steps: vec![sh(Value::List(vec![variable("a"); names]))], ..stage("large", &["a"]) };
    let mut run = Driven::new(paths.map(|path| stage(path, &[])).into_iter().chain([stage("all", &paths), writes(9)]).collect());
    for path in paths {
        run.leaving(path, &[(path, Some(&long))]);
    }
    // 300 KiB in five variables; one of 60 KiB, nine times.
    for (path, what) in
        [("all", "the variables that the stage finds have 307236 bytes"), ("large", "with its variables put in, the stage has")]
    {
        assert_eq!(run.status(path), &Status::Ended(StageOutcome::Failure));
        assert!(run.reason(path).starts_with(what), "{}", run.reason(path));
        assert!(run.run.stages[run.at(path)].attempts.is_empty());
    }
    let mut few = Driven::new(vec![stage("a", &[]), writes(8)]);
    few.leaving("a", &[("a", Some(&long))]);
    assert!(matches!(few.status("large"), Status::Ready { .. }));
}

#[test]
fn a_stage_whose_configuration_nobody_set_fails_before_an_agent_is_asked() {
    let mut plan = model::plan::Plan::new(vec![stage("a", &[])]);
    plan.configuration = BTreeMap::from([("slack".to_owned(), BTreeMap::from([("channel".to_owned(), variable("v"))]))]);
    let run = Driven::of(plan, &trigger(), &Beginning::default());
    assert_eq!(run.status("a"), &Status::Ended(StageOutcome::Failure));
    assert!(run.reason("a").contains("`v` has no value"));
}

#[test]
fn a_stage_finds_what_those_before_it_left_and_the_latest_of_the_plan_wins() {
    let tree = |name: &str| StoredTree { archive: Digest::of(name.as_bytes()), bytes: 1, entries: 1 };
    let uses = vec![CacheUse { cache: "c".to_owned(), from: model::StageId::of("b") }];
    let last = Stage { uses, ..stage("e", &["c", "d"]) };
    let mut run = Driven::new(vec![stage("a", &[]), stage("b", &["a"]), stage("c", &["a"]), stage("d", &["b"]), last, stage("alone", &[])]);
    run.leaving("a", &[("x", Some("a")), ("y", Some("a")), ("z", Some("a"))]);
    run.start("b");
    let lease = run.lease("b");
    let outputs = Outputs {
        variables: BTreeMap::from([("x".to_owned(), Some("b".to_owned())), ("z".to_owned(), None)]),
        artifacts: BTreeMap::from([("bin".to_owned(), tree("bin"))]),
        caches: BTreeMap::from([("c".to_owned(), tree("cache"))]),
        tests: None,
        steps: Vec::new(),
    };
    let (outcome, reason, finished_at) = (StageOutcome::Success, None, Timestamp(2));
    run.report("one", &lease, Report::Finished { outcome, reason, started_at: None, finished_at, outputs });
    run.leaving("d", &[]);
    run.leaving("c", &[("x", Some("c"))]);
    let found = run.run.found(run.at("e"));
    let variables: Vec<_> = found.variables.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    assert_eq!(variables, [("x", "c"), ("y", "a")], "c stands after b, and b has dropped z");
    assert_eq!((&found.artifacts["bin"], &found.caches["c"]), (&tree("bin"), &tree("cache")));
    assert_eq!(run.run.found(run.at("alone")), crate::core::Found::default());
}

#[test]
fn what_a_failed_attempt_captured_is_forgotten_when_it_starts_again() {
    let retry = Some(model::plan::Retry { attempts: 2, backoff_ms: 0, on: vec![model::plan::RetryReason::Failed] });
    let mut run = Driven::new(vec![Stage { retry, allow_failure: true, ..stage("a", &[]) }, stage("b", &["a"])]);
    run.start("a");
    let lease = run.lease("a");
    let outputs = Outputs { variables: BTreeMap::from([("x".to_owned(), Some("1".to_owned()))]), ..Outputs::default() };
    let (outcome, reason, finished_at) = (StageOutcome::Failure, None, Timestamp(2));
    run.report("one", &lease, Report::Finished { outcome, reason, started_at: None, finished_at, outputs });
    run.start("a");
    let lease = run.lease("a");
    run.input(crate::core::Input::LeaseLapsed(lease));
    assert!(matches!(run.status("b"), Status::Ready { .. }) && run.run.found(1).variables.is_empty());
}
