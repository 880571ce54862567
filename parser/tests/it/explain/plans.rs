//! Plans that are explained, by hand: every part of the model is in one of them.

use std::collections::BTreeMap;

use model::{
    Digest, StageId,
    plan::{
        CacheDefinition, CacheUse, Condition, Container, Credential, Deployment, Effect, Function, Need, NeedReason, Newer, Notify, Plan,
        Retry, RetryReason, Service, Skip, Stage, StageKind, Step, Value, Wait,
    },
};

pub(crate) fn call(symbol: &str, parameters: &[(&str, Value)]) -> Step {
    let parameters = parameters.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    Step::new("stdlib", symbol, parameters)
}

pub(crate) fn sh(script: &str) -> Step {
    call("sh", &[("script", script.into())])
}

fn need(path: &str, reason: NeedReason) -> Need {
    Need { stage: StageId::of(path), reason }
}

/// A stage that is written after others.
pub(crate) fn with(path: &str, needs: &[&str], steps: Vec<Step>) -> Stage {
    let needs = needs.iter().map(|path| need(path, NeedReason::Order)).collect();
    Stage { needs, steps, ..Stage::new(path) }
}

fn waiting(path: &str, needs: &[&str], wait: Wait) -> Stage {
    Stage { kind: StageKind::Wait(wait), ..with(path, needs, vec![]) }
}

fn named<T: Clone>(entries: &[(&str, T)]) -> BTreeMap<String, T> {
    entries.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
}

/// Three stages, one after the other.
pub(crate) fn small() -> Plan {
    let build = with(
        "Build",
        &[],
        vec![sh("cargo build --release"), call("archive", &[("files", Value::List(vec!["target/release/app".into()]))])],
    );
    let mut test = with("Test", &["Build"], vec![sh("cargo test\ncargo clippy")]);
    test.timeout_ms = 600_000;
    let ship =
        with("Ship", &["Test"], vec![call("dir", &[("path", "deploy".into()), ("body", Value::Steps { steps: vec![sh("./ship.sh")] })])]);
    let mut plan = Plan::new(vec![build, test, ship]);
    plan.libraries = BTreeMap::from([("stdlib".to_owned(), Digest::of(b"stdlib"))]);
    plan
}

/// Gates, credentials, an environment, services, a rollback.
pub(crate) fn deploy() -> Plan {
    let confirm = |message: &str, by: &[&str]| Wait::Confirm {
        message: message.into(),
        by: by.iter().map(|who| (*who).to_owned()).collect(),
        timeout_ms: Some(172_800_000),
    };
    let prompt = Wait::Prompt {
        message: "Which one?".into(),
        into: "color".to_owned(),
        options: vec!["blue".to_owned(), "green".to_owned()],
        by: vec![],
        timeout_ms: None,
    };
    let undo = Stage {
        kind: StageKind::Rollback,
        needs: vec![need("Deploy/Production", NeedReason::Rollback)],
        steps: vec![sh("./undo.sh")],
        ..Stage::new("Deploy/Production/rollback")
    };
    let stages = vec![
        with("Build", &[], vec![sh("make")]),
        test(),
        Stage {
            skipped: Some(Skip { condition: "branch == 'docs'".to_owned(), because: "branch is 'main'".to_owned() }),
            ..with("Docs", &["Build"], vec![sh("make docs")])
        },
        waiting("confirm", &["Test", "Docs"], confirm("Ship it?", &["ops", "alice"])),
        waiting("prompt", &["confirm"], prompt),
        production(),
        undo,
        Stage {
            conditions: vec![Condition::Equal(Value::Variable { variable: "color".to_owned() }, "green".into())],
            allow_failure: true,
            ..with("Deploy/Smoke", &["Deploy/Production"], vec![sh("./smoke.sh")])
        },
    ];
    let mut plan = Plan::new(stages);
    plan.libraries = BTreeMap::from([("slack".to_owned(), Digest::of(b"slack")), ("stdlib".to_owned(), Digest::of(b"stdlib"))]);
    plan.newer = Some(Newer::Cancel);
    let key = |expose: bool, hosts: &[&str]| Credential {
        vault: "secret/data/team/deploy".to_owned(),
        key: "key".to_owned(),
        hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
        expose,
    };
    plan.credentials = BTreeMap::from([("deploy-key".to_owned(), key(false, &["git.example.org"])), ("token".to_owned(), key(true, &[]))]);
    plan.configuration = named(&[("send", named(&[("channel", Value::from("#otto"))]))]);
    let send = Step { library: "slack".to_owned(), ..call("send", &[("text", "done".into())]) };
    plan.notify = Notify { failure: vec![send], ..Notify::default() };
    plan
}

fn test() -> Stage {
    Stage {
        requires: named(&[
            ("arch", Value::from("amd64")),
            ("cores", Value::Integer(2)),
            ("memory", Value::Integer(1 << 30)),
            ("docker_run", Value::Boolean(true)),
        ]),
        container: Some(Container { image: "ruby:2.6".into() }),
        services: vec![Service {
            name: "db".to_owned(),
            image: "postgres:16".into(),
            environment: named(&[("POSTGRES_PASSWORD", Value::from("x"))]),
            port: Some(5432),
            ready: Some("pg_isready".to_owned()),
        }],
        environment: named(&[("RAILS_ENV", Value::from("test"))]),
        uses: vec![CacheUse { cache: "gems".to_owned(), from: StageId::of("Build") }],
        caches: named(&[("assets", CacheDefinition { paths: vec!["public/".into()], key: Some("abc".into()) })]),
        lock: Some("database".to_owned()),
        retry: Some(Retry { attempts: 2, backoff_ms: 10_000, on: vec![RetryReason::Failed, RetryReason::Lost] }),
        notify: Notify { complete: vec![call("junit", &[("files", Value::from("reports/*.xml"))])], ..Notify::default() },
        timeout_ms: 1_800_000,
        ..with(
            "Test",
            &["Build"],
            vec![Step { timeout_ms: Some(60_000), attempts: Some(3), into: Some("version".to_owned()), ..sh("rake version") }],
        )
    }
}

fn production() -> Stage {
    let version = || Value::Variable { variable: "version".to_owned() };
    let tag = Value::Call { function: Function::Concat, arguments: vec!["v".into(), version()] };
    let git = call("git", &[("url", "ssh://git.example.org/app".into()), ("key", "deploy-key".into()), ("tag", tag)]);
    Stage {
        needs: vec![
            need("prompt", NeedReason::Order),
            need("prompt", NeedReason::Variable("color".to_owned())),
            need("Test", NeedReason::Variable("version".to_owned())),
        ],
        enter: vec![
            Wait::Webhook { description: "the change is approved".into(), timeout_ms: Some(3_600_000) },
            Wait::Poll { url: "https://example.org/ready".into(), status: 200, every_ms: 10_000, timeout_ms: 600_000 },
        ],
        exit: vec![Wait::Time { ms: 600_000 }, Wait::Pause],
        deployment: Some(Deployment {
            environment: "production".to_owned(),
            protected: true,
            settings: named(&[("HOSTNAME", Value::from("app.example.org"))]),
        }),
        credentials: vec!["deploy-key".to_owned(), "token".to_owned()],
        bare: true,
        effect: Effect::Once,
        retry: None,
        fanouts: vec!["Deploy/fanout".to_owned()],
        ..with("Deploy/Production", &[], vec![Step { credentials: vec!["deploy-key".to_owned()], ..git }, sh("make\nmake ship")])
    }
}

/// Twelve combinations between two stages.
pub(crate) fn matrix() -> Plan {
    let mut stages = vec![with("Build", &[], vec![sh("make")])];
    let mut names = Vec::new();
    for os in ["linux", "mac", "windows"] {
        for jdk in ["8", "11", "17", "21"].into_iter().filter(|jdk| (os, *jdk) != ("mac", "8")) {
            let name = format!("Test ({os}, {jdk})");
            stages.push(Stage { requires: named(&[("label", Value::from(os))]), ..with(&name, &["Build"], vec![sh("make test")]) });
            names.push(name);
        }
    }
    stages.push(with("Publish", &names.iter().map(String::as_str).collect::<Vec<_>>(), vec![sh("make publish")]));
    Plan::new(stages)
}

/// Every reason for an edge.
pub(crate) fn fanned() -> Plan {
    let after = |path: &str, needs: Vec<Need>| Stage { needs, ..with(path, &[], vec![sh("make")]) };
    Plan::new(vec![
        after("Fetch", vec![]),
        after("Lint", vec![]),
        after("Backend/Build", vec![need("Fetch", NeedReason::Cache("gems".to_owned()))]),
        after("Frontend/Build", vec![need("Fetch", NeedReason::Needs)]),
        after(
            "Backend/Test",
            vec![need("Backend/Build", NeedReason::Artifact("app.tar".to_owned())), need("Fetch", NeedReason::Cache("gems".to_owned()))],
        ),
        after("Frontend/Test", vec![need("Frontend/Build", NeedReason::From("runtime".to_owned()))]),
        waiting("confirm", &[], Wait::Confirm { message: "Go?".into(), by: vec![], timeout_ms: None }),
        after("Preprod", vec![need("confirm", NeedReason::Barrier), need("Backend/Test", NeedReason::Variable("version".to_owned()))]),
        after("Production", vec![need("Preprod", NeedReason::Environment("cluster".to_owned())), need("confirm", NeedReason::Barrier)]),
    ])
}

/// A release of a large project: sixty stages in groups, most of them in the order of the source.
pub(crate) fn sixty() -> Plan {
    let mut stages = vec![with("Checkout", &[], vec![sh("make")]), with("Lint", &["Checkout"], vec![sh("make lint")])];
    let mut ends = Vec::new();
    for service in ["accounts", "billing", "catalogue", "delivery", "search", "web"] {
        let path = |name: &str| format!("Services/{service}/{name}");
        stages.push(with(&path("Build"), &["Lint"], vec![sh("make")]));
        for test in ["Unit", "Contract", "Browser tests"] {
            stages.push(with(&path(test), &[&path("Build")], vec![sh("make test")]));
        }
        let tests = ["Unit", "Contract", "Browser tests"].map(path);
        stages.push(with(&path("Package"), &tests.each_ref().map(String::as_str), vec![sh("make package")]));
        ends.push(path("Package"));
    }
    let names = |ends: &[String]| ends.to_vec();
    let mut matrix = Vec::new();
    for os in ["linux", "mac", "windows"] {
        for browser in ["firefox", "chromium", "webkit", "an old one with a very long name"] {
            let name = format!("End to end ({os}, {browser})");
            let before = names(&ends);
            let mut stage = with(&name, &before.iter().map(String::as_str).collect::<Vec<_>>(), vec![sh("make e2e")]);
            if (os, browser) == ("mac", "firefox") {
                stage.skipped =
                    Some(Skip { condition: "changed('web/**')".to_owned(), because: "nothing under web/** changed".to_owned() });
            }
            stages.push(stage);
            matrix.push(name);
        }
    }
    let confirm = Wait::Confirm { message: "Ship it?".into(), by: vec!["ops".to_owned()], timeout_ms: None };
    stages.push(waiting("confirm", &matrix.iter().map(String::as_str).collect::<Vec<_>>(), confirm));
    let mut before = "confirm".to_owned();
    for place in ["preprod", "canary", "production"] {
        let path = |name: &str| format!("Deploy {place}/{name}");
        stages.push(with(&path("Migrate"), &[&before], vec![sh("make migrate")]));
        let deployment = Deployment { environment: place.to_owned(), protected: place == "production", settings: BTreeMap::new() };
        stages.push(Stage { deployment: Some(deployment), ..with(&path("Ship"), &[&path("Migrate")], vec![sh("make ship")]) });
        let undo = Stage {
            kind: StageKind::Rollback,
            needs: vec![need(&path("Ship"), NeedReason::Rollback)],
            ..Stage::new(&path("Ship/rollback"))
        };
        stages.push(undo);
        stages.push(with(&path("Smoke"), &[&path("Ship")], vec![sh("make smoke")]));
        stages.push(waiting(&path("wait"), &[&path("Smoke")], Wait::Time { ms: 600_000 }));
        before = path("wait");
    }
    stages.push(with("Announce", &[&before], vec![sh("make announce")]));
    stages.push(with("Clean up", &["Announce"], vec![sh("make clean")]));
    let mut plan = Plan::new(stages);
    let extra = need("Lint", NeedReason::Cache("tools".to_owned()));
    plan.stages
        .iter_mut()
        .filter(|stage| stage.path == "Announce" || stage.path == "Deploy canary/Smoke")
        .for_each(|stage| stage.needs.push(extra.clone()));
    plan
}
