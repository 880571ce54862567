//! What the settings of stages, groups and the pipeline mean, in the plan's own words.

use std::path::Path;

use model::diagnostic::Diagnostic;
use parser::Planning;
use serde_json::{Value, json};

use crate::{codes, fixture::Fixture, planned, refused};

/// The plan's JSON.
fn plan(source: &str) -> Value {
    serde_json::from_slice(planned(source).bytes()).unwrap()
}

/// The stage with this path.
fn stage(source: &str, path: &str) -> Value {
    let plan = plan(source);
    plan["stages"].as_array().unwrap().iter().find(|stage| stage["path"] == path).unwrap().clone()
}

/// The only stage of a pipeline, made with these settings.
fn with(settings: &str) -> Value {
    stage(&format!("pipeline {{ stage 'A' {{ {settings} }} }}"), "A")
}

fn wrong(settings: &str) -> Vec<Diagnostic> {
    refused(format!("pipeline {{ stage 'A' {{ {settings} }} }}").as_bytes())
}

fn check_wrong(cases: &[(&str, &[&str])]) {
    for (settings, expected) in cases {
        let diagnostics = wrong(settings);
        assert_eq!(codes(&diagnostics), *expected, "{settings}\n{diagnostics:#?}");
        assert!(diagnostics.iter().all(|diagnostic| !diagnostic.help.is_empty()), "{settings}\n{diagnostics:#?}");
    }
}

#[test]
fn retry_says_how_often_when_and_after_what() {
    let all = json!({"attempts": 4, "backoff_ms": 10_000, "on": ["failed", "lost"]});
    for settings in
        ["retry { attempts = 4 backoff = 10s on = ['failed', 'lost'] }", "retry { on = ['lost', 'failed'] backoff 10s attempts 4 }"]
    {
        assert_eq!(with(settings)["retry"], all, "{settings}");
    }
    assert_eq!(with("retry = 3")["retry"], json!({"attempts": 3, "on": ["failed", "lost"]}));
    assert_eq!(with("retry 3")["retry"]["attempts"], 3);
    assert_eq!(with("retry { on = 'lost' }")["retry"], json!({"attempts": 3, "on": ["lost"]}));
    assert_eq!(with("retry { }")["retry"], with("retry = 3")["retry"]);
    assert_eq!(with("retry = 1").get("retry"), None);
}

#[test]
fn a_stage_that_is_once_is_not_retried() {
    let declared = "environments { preprod { } }";
    let source = |settings: &str, inner: &str| format!("{declared} pipeline {{ {settings} stage 'A' {{ {inner} }} }}");
    let stage_of = |settings: &str, inner: &str| stage(&source(settings, inner), "A");
    assert_eq!(stage_of("retry = 3", "environment -> preprod").get("retry"), None);
    assert_eq!(stage_of("", "environment -> preprod effect = safe retry = 3")["retry"]["attempts"], 3);
    assert_eq!(stage_of("", "environment -> preprod")["effect"], "once");
    assert_eq!(stage_of("effect = safe", "environment -> preprod")["effect"], "once");
    for inner in ["environment -> preprod retry = 2", "effect = once retry = 2"] {
        assert_eq!(codes(&refused(source("", inner).as_bytes())), ["E0315"], "{inner}");
    }
    let group = format!("{declared} pipeline {{ stage 'G' {{ environment -> preprod stage 'A' {{ retry = 2 }} }} }}");
    assert_eq!(codes(&refused(group.as_bytes())), ["E0315"]);
    let group = format!("{declared} pipeline {{ stage 'G' {{ environment -> preprod stage 'A' {{ effect = safe retry = 2 }} }} }}");
    assert_eq!(stage(&group, "G/A")["effect"], "safe");
}

#[test]
fn small_settings_stand_in_the_plan_where_they_say_something() {
    let stage = with("lock = 'production' allow_failure = true checkout = false timeout = 2d");
    assert_eq!(stage["lock"], "production");
    assert_eq!(stage["allow_failure"], true);
    assert_eq!(stage["bare"], true);
    assert_eq!(stage["timeout_ms"], 172_800_000);
    let stage = with("allow_failure = false checkout = true");
    assert_eq!((stage.get("allow_failure"), stage.get("bare"), stage.get("lock")), (None, None, None));
}

#[test]
fn wrong_small_settings_are_refused() {
    check_wrong(&[
        ("timeout = 0s", &["E0206"]),
        ("timeout = 10", &["E0206"]),
        ("timeout = 367d", &["E0206"]),
        ("retry = 0", &["E0206"]),
        ("retry = 101", &["E0206"]),
        ("retry { attempts = 3 often = true }", &["E0203"]),
        ("retry { on = ['tired'] }", &["E0206"]),
        ("retry { on = [] }", &["E0206"]),
        ("retry { backoff = 3 }", &["E0206"]),
        ("lock = ''", &["E0206"]),
        ("lock = 'a' lock = 'b'", &["E0202"]),
        ("environment -> prod", &["E0806"]),
        ("credentials { a = vault('a/b#c') }", &["E0205"]),
    ]);
}

#[test]
fn a_runtime_is_an_image_a_computer_or_what_an_agent_must_have() {
    assert_eq!(with("runtime { docker { image = 'ruby:2.6' } }")["container"], json!({"image": "ruby:2.6"}));
    assert_eq!(with("runtime { computer { label = 'office' } }")["requires"], json!({"label": "office"}));
    assert_eq!(with("runtime { computer { label = ['office', 'fast'] } }")["requires"], json!({"label": ["office", "fast"]}));
    let stage = with(
        "runtime { arch = 'amd64' cores = 2 memory = 1G docker_run = true python { version = '~> 3.8' } linux { pkgconfig = ['openssl'] } }",
    );
    let expected = json!({
        "arch": "amd64", "cores": 2, "memory": 1_073_741_824, "docker_run": true,
        "python.version": "~> 3.8", "linux.pkgconfig": ["openssl"],
    });
    assert_eq!(stage["requires"], expected);
    assert_eq!(with("runtime { }")["requires"], json!({}));
}

#[test]
fn wrong_runtimes_are_refused() {
    check_wrong(&[
        ("runtime { docker { } }", &["E0318"]),
        ("runtime { docker { image = '' } }", &["E0206"]),
        ("runtime { docker { image = 'a b' } }", &["E0206"]),
        ("runtime { docker { img = 'a' } }", &["E0203"]),
        ("runtime { docker = 'ruby' }", &["E0205"]),
        ("runtime { cores = 0 }", &["E0206"]),
        ("runtime { cores = 2 cores = 3 }", &["E0202"]),
        ("runtime { python { version = '3' } python.version = '3' }", &["E0202"]),
        ("runtime { memory = 1024 }", &["E0206"]),
        ("runtime { memory = 0G }", &["E0206"]),
        ("runtime { arch = 'x86_64' }", &["E0206"]),
        ("runtime { docker_run = 'yes' }", &["E0206"]),
        ("runtime { linux { } }", &["E0206"]),
        ("runtime { linux { lib { a = 1 } } }", &["E0205"]),
        ("runtime { linux { lib = [] } }", &["E0206"]),
        ("runtime { 'ruby' }", &["E0205"]),
        ("runtime = 'ruby'", &["E0205"]),
    ]);
}

#[test]
fn services_stand_beside_a_stage() {
    let stage = with(
        "services { db { image = 'postgres:16' env { PASSWORD = 'x' } port = 5432 ready = 'pg_isready' } cache { image = 'redis:7' } }",
    );
    let expected = json!([
        {"name": "db", "image": "postgres:16", "environment": {"PASSWORD": "x"}, "port": 5432, "ready": "pg_isready"},
        {"name": "cache", "image": "redis:7"},
    ]);
    assert_eq!(stage["services"], expected);
    check_wrong(&[
        ("services { db { } }", &["E0318"]),
        ("services { my_db { image = 'a' } }", &["E0319"]),
        ("services { localhost { image = 'a' } }", &["E0319"]),
        ("services { db { image = 'a' } DB { image = 'b' } }", &["E0202"]),
        ("services { db { image = 'a' } db { image = 'b' } }", &["E0202"]),
        ("services { db { image = 'a' port = 0 } }", &["E0206"]),
        ("services { db { image = 'a' port = 65536 } }", &["E0206"]),
        ("services { db { image = 'a' prt = 1 } }", &["E0203"]),
        ("services { db = 'postgres' }", &["E0205"]),
    ]);
    let long = "a".repeat(64);
    check_wrong(&[(&format!("services {{ {long} {{ image = 'a' }} }}"), &["E0319"])]);
}

#[test]
fn caches_are_defined_and_used() {
    let stage = with("cache { gems = ['vendor/'] node { paths = ['node_modules'] key = 'v1' } deps = { paths = 'target/' } }");
    let expected = json!({
        "gems": {"paths": ["vendor/"]}, "node": {"paths": ["node_modules"], "key": "v1"}, "deps": {"paths": ["target/"]},
    });
    assert_eq!(stage["caches"], expected);
    check_wrong(&[
        ("cache { gems = ['../vendor'] }", &["E0206"]),
        ("cache { gems = ['/vendor'] }", &["E0206"]),
        ("cache { gems = ['a/../b', ''] }", &["E0206", "E0206"]),
        ("cache { gems = [] }", &["E0206"]),
        ("cache { gems = ['a'] gems = ['b'] }", &["E0202"]),
        ("cache { gems = ['a'] use gems }", &["E0316"]),
        ("cache { use }", &["E0205"]),
        ("cache { gems = { key = 'a' } }", &["E0318"]),
        ("cache { gems = { paths = ['a'] keys = 'a' } }", &["E0203"]),
    ]);
}

#[test]
fn a_cache_is_used_once() {
    let source = b"pipeline { stage 'M' { cache { gems = ['a'] } } stage 'A' { cache { use gems use gems } } }";
    assert_eq!(codes(&refused(source)), ["E0202"]);
}

#[test]
fn gates_wait_before_and_after() {
    let stage = with(
        "gates {
           enter { input 'Ship it?' { by = ['ops'] timeout = 2d } webhook { description = 'scanned' timeout = 1h } }
           exit { poll { url = 'https://example.org/health' } input 'Well?' }
         }",
    );
    let enter = json!([
        {"confirm": {"message": "Ship it?", "by": ["ops"], "timeout_ms": 172_800_000}},
        {"webhook": {"description": "scanned", "timeout_ms": 3_600_000}},
    ]);
    let exit = json!([
        {"poll": {"url": "https://example.org/health", "status": 200, "every_ms": 10_000, "timeout_ms": 3_600_000}},
        {"confirm": {"message": "Well?"}},
    ]);
    assert_eq!((&stage["enter"], &stage["exit"]), (&enter, &exit));
    let poll = with("gates { exit { poll { url 'http://a/b' status 204 every 1s timeout 1m } } }")["exit"][0]["poll"].clone();
    assert_eq!(poll, json!({"url": "http://a/b", "status": 204, "every_ms": 1000, "timeout_ms": 60_000}));
}

#[test]
fn wrong_gates_are_refused() {
    check_wrong(&[
        ("gates { input 'a' }", &["E0205"]),
        ("gates { entry { } }", &["E0203"]),
        ("gates { enter { } enter { } }", &["E0202"]),
        ("gates { enter { input } }", &["E0205"]),
        ("gates { enter { input 'a', 'b' } }", &["E0205"]),
        ("gates { enter { input 'a' { from = ['b'] } } }", &["E0203"]),
        ("gates { enter { input 'a' { by = [] } } }", &["E0206"]),
        ("gates { enter { webhook { } } }", &["E0318"]),
        ("gates { enter { poll { status = 200 } } }", &["E0318"]),
        ("gates { enter { poll { url = 'ftp://a' } } }", &["E0206"]),
        ("gates { enter { poll { url = 'https://u:p@a' } } }", &["E0206"]),
        ("gates { enter { poll { url = 'https:///a' } } }", &["E0206"]),
        ("gates { enter { poll { url = 'https://a' status = 99 } } }", &["E0206"]),
        ("gates { enter { poll { url = 'https://a' status = 600 } } }", &["E0206"]),
        ("gates { enter { poll { url = 'https://a' every = 0.5s } } }", &["E0206"]),
        ("gates { enter { poll { url = 'https://a' every = 2m timeout = 1m } } }", &["E0206"]),
        ("gates { enter { confirm 'a' } }", &["E0317"]),
        ("when { input 'a' }", &["E0317"]),
        ("gates { exit { branch == 'main' } }", &["E0317"]),
        ("gates { branch == 'main' }", &["E0317"]),
    ]);
}

#[test]
fn what_groups_say_is_what_their_stages_begin_with() {
    let source = "
      environments { preprod { settings { HOST = 'a' } protected = true } }
      credentials { key = vault('secret/a#b') }
      pipeline {
        env { A = 1 B = 1 }
        runtime { docker { image = 'outer' } }
        stage 'G' {
          environment -> preprod
          credentials = ['key']
          lock = 'l'
          allow_failure = true
          checkout = false
          env { B = 2 C = 2 }
          services { db { image = 'postgres' } }
          gates { enter { input 'once' } }
          stage 'A' { }
          stage 'B' { runtime { cores = 2 } env { C = 3 } lock = 'm' allow_failure = false checkout = true services { } credentials = [] }
        }
      }";
    let first = stage(source, "G/A");
    assert_eq!(first["environment"], json!({"A": "1", "B": "2", "C": "2"}));
    assert_eq!(first["container"], json!({"image": "outer"}));
    assert_eq!(first["deployment"], json!({"environment": "preprod", "protected": true, "settings": {"HOST": "a"}}));
    assert_eq!((&first["lock"], &first["allow_failure"], &first["bare"]), (&json!("l"), &json!(true), &json!(true)));
    assert_eq!(first["credentials"], json!(["key"]));
    assert_eq!(first["services"][0]["name"], "db");
    let second = stage(source, "G/B");
    assert_eq!(second["environment"], json!({"A": "1", "B": "2", "C": "3"}));
    assert_eq!((second.get("container"), &second["requires"]), (None, &json!({"cores": 2})));
    assert_eq!((&second["lock"], second.get("allow_failure"), second.get("bare")), (&json!("m"), None, None));
    assert_eq!((second.get("credentials"), second.get("services"), second.get("enter")), (None, None, None));
    assert_eq!(plan(source)["credentials"], json!({"key": {"vault": "secret/a", "key": "b"}}));
}

#[test]
fn a_block_of_another_stage_is_copied() {
    let source = "pipeline {
      stage 'Base' {
        runtime { docker { image = 'ruby' } cores = 2 arch = 'amd64' }
        env { A = 1 B = 1 }
        cache { gems = ['vendor'] node = ['node'] }
        gates { enter { input 'first' } exit { input 'last' } }
      }
      stage 'G' { env { A = 9 } runtime { cores = 64 } stage 'Deep' { runtime { from 'Base' memory = 1G } env { from 'Base' B = 2 } } }
      stage 'Copy' {
        runtime { from 'G/Deep' cores = 4 }
        env { from 'Deep' C = 3 }
        cache { from 'Base' gems = ['other'] }
        gates { from 'Base' enter { input 'second' } }
      }
    }";
    let copy = stage(source, "Copy");
    assert_eq!(copy["container"], json!({"image": "ruby"}));
    assert_eq!(copy["requires"], json!({"cores": 4, "arch": "amd64", "memory": 1_073_741_824}));
    assert_eq!(copy["environment"], json!({"A": "1", "B": "2", "C": "3"}));
    assert_eq!(copy["caches"], json!({"gems": {"paths": ["other"]}, "node": {"paths": ["node"]}}));
    assert_eq!(copy["enter"], json!([{"confirm": {"message": "first"}}, {"confirm": {"message": "second"}}]));
    assert_eq!(copy["exit"], json!([{"confirm": {"message": "last"}}]));
}

#[test]
fn a_block_is_copied_from_what_is_written_later_too() {
    let source = "pipeline { stage 'A' { env { from 'B' } } stages { parallel { stage { name = 'B' env { X = 1 } } } } }";
    assert_eq!(stage(source, "A")["environment"], json!({"X": "1"}));
    assert_eq!(with("env { from = 'me' }")["environment"], json!({"from": "me"}));
}

#[test]
fn what_cannot_be_copied_is_refused() {
    let cases: [(&str, &[&str], &str); 10] = [
        ("stage 'A' { runtime { from 'Bild' } } stage 'Build' { runtime { } }", &["E0311"], "did you mean `Build`?"),
        ("stage 'A' { runtime { from 'B' } } stage 'B' { }", &["E0312"], "in the stage itself"),
        ("stage 'G' { runtime { cores = 1 } stage 'B' { } } stage 'A' { runtime { from 'B' } }", &["E0312"], "inherits"),
        ("stage 'A' { env { from 'A' } }", &["E0313"], "`A` → `A`"),
        ("stage 'A' { env { from 'B' } } stage 'B' { env { from 'A' } }", &["E0313", "E0313"], "`B` → `A` → `B`"),
        ("stage 'X' { env { from 'A' } } stage 'A' { env { from 'B' } } stage 'B' { env { from 'A' } }", &["E0313", "E0313"], "→"),
        ("stage 'G' { stage 'T' { env { } } } stage 'H' { stage 'T' { env { } } } stage 'A' { env { from 'T' } }", &["E0311"], "G/T"),
        ("stage 'A' { env { from } }", &["E0205"], "from 'Build'"),
        ("stage 'B' { env { } } stage 'A' { env { from 'B' from 'B' } }", &["E0202"], "leave one out"),
        ("stage 'B' { env { } } stage 'A' { env { from B } }", &["E0205"], "from 'B'"),
    ];
    for (stages, expected, help) in cases {
        let diagnostics = refused(format!("pipeline {{ {stages} }}").as_bytes());
        assert_eq!(codes(&diagnostics), expected, "{stages}\n{diagnostics:#?}");
        assert!(diagnostics[0].help.contains(help), "{stages}\n{diagnostics:#?}");
    }
}

#[test]
fn copying_has_an_end() {
    use std::fmt::Write as _;
    let mut source = "pipeline { stage 'S0' { env { A = 1 } } ".to_owned();
    for number in 1..=20 {
        write!(source, "stage 'S{number}' {{ env {{ from 'S{}' }} }} ", number - 1).unwrap();
    }
    source.push('}');
    let diagnostics = refused(source.as_bytes());
    assert!(codes(&diagnostics).iter().all(|code| *code == "E0607"), "{diagnostics:#?}");
    assert!(!diagnostics.is_empty());
}

#[test]
fn environments_and_credentials_are_declared() {
    let source = "
      environments { preprod { } production { settings { HOST = 'www' N = 3 } credentials = ['deploy-key'] protected = true } }
      credentials {
        deploy-key = { ref = vault('secret/data/team/deploy#key') hosts = ['Example.org', '*.example.org'] expose = true }
        other = vault('secret/data/x#y')
        never = vault('secret/data/x#z')
      }
      pipeline {
        stage 'A' { environment -> production credentials = ['deploy-key', 'other'] }
        stage 'B' { environment = 'preprod' credentials = 'other' }
      }";
    let expected = json!({
        "deploy-key": {"vault": "secret/data/team/deploy", "key": "key", "hosts": ["example.org", "*.example.org"], "expose": true},
        "other": {"vault": "secret/data/x", "key": "y"},
    });
    assert_eq!(plan(source)["credentials"], expected);
    let deployment = json!({"environment": "production", "protected": true, "settings": {"HOST": "www", "N": "3"}});
    assert_eq!(stage(source, "A")["deployment"], deployment);
    assert_eq!(stage(source, "B")["deployment"], json!({"environment": "preprod"}));
    let source = "parameters { target { type = choice default = 'a' options = ['a', 'b'] } }
      environments { a { } b { } } pipeline { stage 'S' { environment -> params.target } }";
    assert_eq!(stage(source, "S")["deployment"], json!({"environment": "a"}));
}

#[test]
fn a_secret_that_is_written_into_the_file_is_not_repeated() {
    for credential in [
        "k = 'hunter2'",
        "k = hunter2",
        "k = 42",
        "k = concat('hunter2', '')",
        "k = { ref = 'hunter2' }",
        "k 'hunter2'",
        "k = { ref 'hunter2' }",
        "k = vault('hunter2')",
        "k = ['hunter2']",
    ] {
        let source = format!("credentials {{ {credential} }} pipeline {{ }}");
        let diagnostics = refused(source.as_bytes());
        assert!(matches!(codes(&diagnostics).as_slice(), ["E0802" | "E0807"]), "{credential}\n{diagnostics:#?}");
        for diagnostic in &diagnostics {
            assert!(!format!("{} {} {}", diagnostic.message, diagnostic.label, diagnostic.help).contains("hunter2"), "{diagnostic:#?}");
            assert!(!parser::render(diagnostic, source.as_bytes(), false).contains("hunter2"), "{credential}");
        }
    }
}

#[test]
fn wrong_declarations_are_refused() {
    let cases: [(&str, &[&str]); 17] = [
        ("credentials { k = vault('secret#') }", &["E0807"]),
        ("credentials { k = vault('secret/a') }", &["E0807"]),
        ("credentials { k = vault('a#b') }", &["E0807"]),
        ("credentials { k = vault('a/../b#c') }", &["E0807"]),
        ("credentials { k = vault('/a/b#c') }", &["E0807"]),
        ("credentials { k = vault('a/b#c#d') }", &["E0807"]),
        ("credentials { k = { hosts = ['a'] } }", &["E0318"]),
        ("credentials { k = { ref = vault('a/b#c') hosts = ['https://a'] } }", &["E0319"]),
        ("credentials { k = { ref = vault('a/b#c') hosts = ['*'] } }", &["E0319"]),
        ("credentials { k = { ref = vault('a/b#c') hosts = ['a_b'] } }", &["E0319"]),
        ("credentials { k = { ref = vault('a/b#c') hosts = [] } }", &["E0206"]),
        ("credentials { k = { ref = vault('a/b#c') host = ['a'] } }", &["E0203"]),
        ("credentials { k = vault('a/b#c') k = vault('a/b#d') }", &["E0202"]),
        ("environments { a { credentials = ['x'] } }", &["E0803"]),
        ("environments { a { setings { } } }", &["E0203"]),
        ("environments { a = 'b' }", &["E0205"]),
        ("environments { a { settings { A-B = 1 } } }", &["E0305"]),
    ];
    for (declared, expected) in cases {
        let diagnostics = refused(format!("{declared} pipeline {{ }}").as_bytes());
        assert_eq!(codes(&diagnostics), expected, "{declared}\n{diagnostics:#?}");
        assert!(diagnostics.iter().all(|diagnostic| !diagnostic.help.is_empty()), "{diagnostics:#?}");
    }
}

#[test]
fn a_credential_of_an_environment_is_used_there_only() {
    let declared = "environments { a { credentials = ['k'] } b { } c { credentials = ['k'] } } credentials { k = vault('x/y#z') }";
    let with = |settings: &str| format!("{declared} pipeline {{ stage 'S' {{ credentials = ['k'] {settings} }} }}");
    planned(&with("environment -> a"));
    planned(&with("environment -> c"));
    for settings in ["", "environment -> b"] {
        let diagnostics = refused(with(settings).as_bytes());
        assert_eq!(codes(&diagnostics), ["E0805"], "{settings}");
        assert!(diagnostics[0].help.contains("`a`, `c`"), "{diagnostics:#?}");
    }
}

/// The plan's JSON, with the context that the first lines of the source give.
fn plan_in(source: &str) -> Value {
    let fixture = Fixture::of(source.as_bytes(), Path::new("none"));
    match fixture.plan("Ottofile", source.as_bytes()) {
        Planning::Plan { document, .. } => serde_json::from_slice(document.bytes()).unwrap(),
        other @ (Planning::Refused(_) | Planning::Needs(_)) => panic!("{source}\n{other:#?}"),
    }
}

#[test]
fn conditions_are_the_same_wherever_they_are_written() {
    let source = |stage: &str| {
        format!(
            "// context: branch=topic event=push
             pipeline {{
               stage 'X' {{ gates {{ from 'Z' enter {{ branch == 'x' || tag input 'x?' }} }} when {{ branch == 'w' }} }}
               stage 'Z' {{ when {{ event == 'tag' }} }}
               stage 'A' {{ {stage} }}
             }}"
        )
    };
    let skips = |stage: &str| plan_in(&source(stage))["stages"][2].clone();
    let both = json!({"condition": "branch == 'main' && tag", "because": "branch is 'topic', there is no tag"});
    let expected = skips("gates { enter { branch == 'main' tag } }");
    assert_eq!(expected["skipped"], both);
    for stage in ["when { branch == 'main' tag }", "when { branch == 'main' } gates { enter { tag } }"] {
        assert_eq!(skips(stage), expected, "{stage}");
    }
    let turned = skips("gates { enter { tag } } when { branch == 'main' }");
    assert_eq!(turned["skipped"]["condition"], "tag && branch == 'main'");
    let copied = skips("gates { from 'X' exit { input 'y?' } } when { branch == 'main' }");
    assert_eq!(copied["skipped"]["condition"], "event == 'tag' && (branch == 'x' || tag) && branch == 'w' && branch == 'main'");
    assert_eq!((&copied["enter"][0]["confirm"]["message"], &copied["exit"][0]["confirm"]["message"]), (&json!("x?"), &json!("y?")));
    let copied = skips("when { from 'X' branch == 'main' }");
    assert_eq!(copied["skipped"]["condition"], "event == 'tag' && (branch == 'x' || tag) && branch == 'w' && branch == 'main'");
    assert_eq!((copied.get("enter"), copied.get("exit")), (None, None));
    for stage in [
        "gates { enter { tag } } when { branch == 'main' }",
        "gates { from 'X' exit { input 'y?' } } when { branch == 'main' }",
        "when { from 'X' }",
        "gates { from 'X' }",
    ] {
        let formatted = parser::format(&source(stage)).unwrap();
        assert_eq!(plan_in(&formatted), plan_in(&source(stage)), "{formatted}");
    }
}

#[test]
fn a_value_from_outside_is_no_code_and_chooses_no_credential() {
    let check = |source: &str, expected: &str| {
        let Planning::Refused(diagnostics) = Fixture::of(source.as_bytes(), Path::new("none")).plan("Ottofile", source.as_bytes()) else {
            panic!("{source}")
        };
        assert_eq!(codes(&diagnostics), [expected], "{source}\n{diagnostics:#?}");
    };
    check("pipeline { stage 'A' { services { db { image = 'a' ready = concat('x ', branch) } } } }", "E0801");
    check("credentials { a = vault('x/y#z') } pipeline { stage 'A' { credentials = [branch] } }", "E0206");
    let source = "// context: branch=topic\npipeline { stage 'A' { lock = branch env { B = branch } runtime { docker { image = concat('a:', branch) } } } }";
    let stage = plan_in(source)["stages"][0].clone();
    assert_eq!(
        (&stage["lock"], &stage["environment"], &stage["container"]["image"]),
        (&json!("topic"), &json!({"B": "topic"}), &json!("a:topic"))
    );
}

#[test]
fn what_is_copied_and_wrong_here_is_told_at_both_places() {
    let diagnostics = refused(
        b"pipeline { stage 'B' { env { from 'A' } } stage 'A' { env { X = it } when { it == 'x' } } stage 'C' { when { from 'A' } } }",
    );
    let found = codes(&diagnostics);
    assert!(found.contains(&"E0314") && found.contains(&"E0409"), "{diagnostics:#?}");
}

#[test]
fn what_is_copied_means_what_it_would_mean_here() {
    let source = "pipeline {
      stage 'Base' { env { MODE = 'fast' } }
      each('8', '12') {
        stage concat('Test ', it) { runtime { docker { image = concat('jdk:', it) } } env { from 'Base' JDK = it } }
        stage concat('Ship ', it) { runtime { from 'Image' } }
      }
      each('a') { stage 'Image' { runtime { docker { image = concat('ship:', it) } } } }
    }";
    assert_eq!(stage(source, "Test 12")["environment"], json!({"JDK": "12", "MODE": "fast"}));
    assert_eq!(stage(source, "Ship 8")["container"], json!({"image": "ship:8"}));
}

#[test]
fn a_false_condition_about_it_alone_leaves_out_and_another_skips() {
    let source = "// context: branch=topic
      pipeline { each('a', 'b') { stage 'S' { when { it == 'a' branch == 'main' } } } }";
    let stages = plan_in(source)["stages"].clone();
    assert_eq!(stages.as_array().unwrap().len(), 1);
    assert_eq!((&stages[0]["path"], &stages[0]["skipped"]["condition"]), (&json!("S (a)"), &json!("branch == 'main'")));
}

#[test]
fn a_setting_that_stands_in_the_wrong_place_is_told_where_it_belongs() {
    for (source, help) in [
        ("pipeline { environment -> preprod }", "in a stage"),
        ("pipeline { lock = 'a' }", "in a stage"),
        ("pipeline { credentials = ['a'] }", "a stage lists"),
        ("pipeline { gates { } }", "in a stage"),
        ("pipeline { parallel { timeout = 1m stage 'A' { } } }", "in a stage or in the pipeline"),
        ("pipeline { stages { env { A = 1 } } }", "in a stage or in the pipeline"),
        ("pipeline { stage 'A' { environments { } } }", "top level"),
        ("pipeline { stage 'A' { alow_failure = true } }", "did you mean `allow_failure`?"),
        ("timeout = 1m pipeline { }", ""),
    ] {
        let diagnostics = refused(source.as_bytes());
        assert_eq!(codes(&diagnostics), ["E0203"], "{source}\n{diagnostics:#?}");
        assert!(diagnostics[0].help.contains(help), "{source}\n{diagnostics:#?}");
    }
}

#[test]
fn many_settings_take_no_longer_than_they_are_many() {
    use std::fmt::Write as _;
    let uses: String = (0..60_000).fold(String::new(), |mut text, number| {
        let _ = write!(text, "use c{number} ");
        text
    });
    refused(format!("pipeline {{ stage 'A' {{ cache {{ {uses} }} }} }}").as_bytes());
    let names: String = (0..4_000).fold(String::new(), |mut text, number| {
        let _ = write!(
            text,
            "stage 'Stage{number}' {{ env {{ from 'Stag{number}x' }} environment -> nowhere{number} credentials = ['k{number}'] }} "
        );
        text
    });
    let environments: String = (0..4_000).fold(String::new(), |mut text, number| {
        let _ = write!(text, "nowhere{number}x {{ }} ");
        text
    });
    refused(format!("environments {{ {environments} }} pipeline {{ {names} }}").as_bytes());
    let settings: String = (0..2_000).fold(String::new(), |mut text, number| {
        let _ = write!(text, "VARIABLE_{number} = 'a value of some length' ");
        text
    });
    let stages: String = (0..4_000).fold(String::new(), |mut text, number| {
        let _ = write!(text, "stage 'S{number}' {{ environment -> a }} ");
        text
    });
    let source = format!("environments {{ a {{ settings {{ {settings} }} }} }} pipeline {{ {stages} }}");
    assert_eq!(codes(&refused(source.as_bytes())), ["E0604"]);
}
