//! Stages of a superuser's agent, each as a user of its own; and tools at work in stages, whoever they are.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    process::{Command, Stdio},
};

use agent::{Isolation, Level, SandboxOptions, StageUsers, Variables, tool_homes};
use model::{
    StageOutcome,
    event::run::StoredTree,
    plan::{CacheDefinition, Stage, Step, Value},
    protocol::agent::{Assignment, CacheRestore},
};
use nix::unistd::geteuid;

use crate::{
    office::{Office, assignment, lease, sh, stage, until},
    protocol::{call, library, run},
    stages::tree,
};

/// Not the default: others test on this machine, too.
const RANGE: &str = "1900200000-1900200063";
const FIRST: u32 = 1_900_200_000;
const LAST: u32 = 1_900_200_063;

/// With users of their own at this level; `None`, said aloud, where that cannot be.
async fn office(level: Level) -> Option<Office> {
    if !geteuid().is_root() {
        println!("SKIPPED: only the superuser starts processes of others");
        return None;
    }
    let mut office = Office::without_agent().await;
    // Outside of namespaces users go through it.
    fs::set_permissions(office.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    let users = RANGE.parse().unwrap();
    office.sandbox = SandboxOptions { users, processes: Some(100), ..crate::office::isolated(level) };
    office.start_if_offered(level).await.then_some(office)
}

fn is_of_the_range(id: &str) -> bool {
    (FIRST..=LAST).contains(&id.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_attempt_is_another_user_without_any_right_of_the_agents() {
    for level in Level::ALL {
        let Some(mut office) = office(level).await else { continue };
        let secret = office.path("agent/lock");
        let script = format!(
            "set +x; id -u >/dev/stdout; id -g; id -G; stat -c %u . \"$HOME\" \"$TMPDIR\"; touch mine; stat -c %u mine
            cat {0} 2>/dev/null || echo 'no file of the agent'
            ls {1}/spool 2>/dev/null || echo 'no folder of the agent'
            kill -0 {2} 2>/dev/null || echo 'no signal to the agent'
            grep -c 'CapEff:.0000000000000000' /proc/self/status; id -un; id -gn; test ~stage = \"$HOME\"; echo said >/dev/stderr",
            secret.display(),
            office.path("agent").display(),
            std::process::id(),
        );
        let mut users = Vec::new();
        for path in ["first", "second"] {
            let (outcome, reason, said) = office.run(path, vec![sh(&script)]).await;
            assert_eq!((outcome, reason), (StageOutcome::Success, None), "{level}: {said}");
            let lines: Vec<&str> = said.lines().collect();
            assert!(is_of_the_range(lines[0]) && lines[..7].iter().all(|line| *line == lines[0]), "{level}: {said}");
            assert_eq!(
                lines[7..],
                ["no file of the agent", "no folder of the agent", "no signal to the agent", "1", "stage", "stage"],
                "{level}"
            );
            users.push(lines[0].to_owned());
        }
        assert_ne!(users[0], users[1], "{level}");
        until("an empty spool", || office.leftovers().is_empty()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sources_caches_scripts_and_programs_are_the_users_own() {
    for level in Level::ALL {
        let Some(mut office) = office(level).await else { continue };
        let large = "x".repeat(100_000);
        for (name, source) in [
            ("small", tree(&[("src/file", 0o644, "as it was\n")])),
            ("large", tree(&[("src/file", 0o644, "as it was\n"), ("big", 0o600, &large)])),
        ] {
            let source = office.blobs.put(source).await.unwrap();
            let cache = office.blobs.put(tree(&[("vendor/gem", 0o600, "gem\n")])).await.unwrap();
            let definition = CacheDefinition { paths: vec!["vendor".into(), "src".into()], key: None };
            let change = "#!/bin/sh\nset -e; echo more >>src/file; chmod 700 src; mv src/file src/moved; cat vendor/gem; echo more >>vendor/gem; touch made";
            let inner = Value::Steps { steps: vec![sh("set +x; echo x >inside; stat -c %U . >/dev/null")] };
            let folder =
                Step::new("stdlib", "dir", [("path".to_owned(), Value::Text("new/folder".to_owned())), ("steps".to_owned(), inner)].into());
            let long = sh(&format!("set +x; cat src/moved\n# {}", "x".repeat(70_000)));
            let look =
                sh("set +x; test -z \"$(find . ! -uid $(id -u))\" && rm -r src/moved vendor/gem && mkdir vendor/other && echo removed");
            let stage = Stage { caches: [("mine".to_owned(), definition)].into(), ..stage(name, vec![sh(change), folder, long, look]) };
            let restored = CacheRestore { tree: StoredTree { archive: cache, bytes: 0, entries: 1 }, required: true };
            let assignment = Assignment { source: Some(source), caches: [("gems".to_owned(), restored)].into(), ..assignment(stage, 1) };
            let ran = office.run_assignment(&assignment).await;
            assert_eq!(ran.end(), (StageOutcome::Success, None), "{level} {name}: {}{}", ran.err, ran.otto);
            assert_eq!(ran.out, "gem\nas it was\nmore\nremoved\n", "{level} {name}");
            assert_eq!(ran.outputs.caches["mine"].entries, 3, "{level} {name}: vendor, vendor/other, src");
        }
        let program = "
path = configuration['cache'] + '/count'
count = int(open(path).read()) + 1 if os.path.exists(path) else 1
open(path, 'w').write(str(count))
check(ask('POST', '/v1/status', json.dumps({'status': 'counting'})), 204)
print(count, os.stat(path).st_uid == os.getuid())
";
        let library = library(&office, program, "cache: true\n").await;
        for (path, expected) in [("a", "1 True\n2 True\n"), ("b", "3 True\n4 True\n")] {
            let ran = run(&mut office, path, vec![call(), call()], library).await;
            assert_eq!((ran.end(), ran.out.as_str()), ((StageOutcome::Success, None), expected), "{level}: {}{}", ran.err, ran.otto);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_runs_as_the_user_of_a_lost_attempt_is_ended_when_the_agent_comes_back() {
    let Some(mut office) = office(Level::Group).await else { return };
    office.stop_agent().await;
    // As a kill leaves it, with a process that has neither the mark of the attempt nor a parent of it.
    let (spool, work) = (office.path("agent/spool/77"), office.path("agent/work/77"));
    fs::create_dir(&spool).unwrap();
    fs::create_dir(&work).unwrap();
    std::os::unix::fs::lchown(&work, Some(LAST), Some(LAST)).unwrap();
    let lost = stage("lost", vec![]);
    let begun = serde_json::json!({ "kind": "begun", "lease": lease(&lost, 1), "depot_token": "" });
    fs::write(spool.join("journal"), format!("{begun}\n")).unwrap();
    let mut left = Command::new("sleep").arg("1000").env_clear().stdin(Stdio::null()).uid(LAST).gid(LAST).spawn().unwrap();
    office.start_agent().await;
    let status = left.wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    assert!(!work.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_that_is_somebodys_is_not_taken_and_an_agent_without_users_says_so() {
    let Some(mut office) = office(Level::Group).await else { return };
    office.stop_agent().await;
    let mut somebody = Command::new("sleep").arg("1000").stdin(Stdio::null()).uid(FIRST).gid(FIRST).spawn().unwrap();
    office.sandbox.users = format!("{FIRST}-{FIRST}").parse().unwrap();
    let refused = office.try_start().await.unwrap_err().to_string();
    let expected = format!("this agent cannot run stages as the users {FIRST}-{FIRST}: no user of {FIRST}-{FIRST} is free for the stage");
    assert!(refused.starts_with(&expected), "{refused}");
    assert!(somebody.try_wait().unwrap().is_none(), "nobody has ended it");
    somebody.kill().unwrap();
    somebody.wait().unwrap();
}

/// The tools of whoever runs the tests.
fn environment() -> Variables {
    let all = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    all.filter(|(name, _)| ["HOME", "PATH", "CARGO_HOME", "RUSTUP_HOME"].contains(&name.as_str())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tools_work_in_stages_at_each_level() {
    let files = [
        ("Cargo.toml", 0o644, "[package]\nname = \"tiny\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n"),
        ("src/main.rs", 0o644, "fn main() { println!(\"built\"); }\n"),
    ];
    let tools = [
        ("cargo", "set +x; cargo build --offline --quiet && target/debug/tiny", "built\n"),
        ("git", "set +x; git init --quiet . && git add . && git status --short", "A  Cargo.toml\nA  src/main.rs\n"),
        ("python3", "set +x; python3 -c 'import tempfile; print(len(tempfile.mkdtemp()) > 0)'", "True\n"),
    ];
    for (level, users) in Level::ALL.into_iter().flat_map(|level| [(level, StageUsers::Same), (level, StageUsers::Auto)]) {
        let mut office = Office::without_agent().await;
        fs::set_permissions(office.path(""), fs::Permissions::from_mode(0o755)).unwrap();
        let otto = crate::office::isolated(level).otto.unwrap();
        office.passthrough = tool_homes(&environment());
        office.sandbox = SandboxOptions { users, ..SandboxOptions::of(Isolation::Level(level), otto, &environment()) };
        if !office.start_if_offered(level).await {
            continue;
        }
        let source = office.blobs.put(tree(&files)).await.unwrap();
        for (tool, script, expected) in tools {
            if Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
                println!("SKIPPED: there is no {tool} here");
                continue;
            }
            let assignment = Assignment { source: Some(source), ..assignment(stage(tool, vec![sh(script), sh("id -u")]), 1) };
            let ran = office.run_assignment(&assignment).await;
            assert_eq!(ran.end(), (StageOutcome::Success, None), "{level} {users} {tool}: {}", ran.err);
            let (said, user) = ran.out.split_at(expected.len());
            println!("{level} {users} {tool}: user {}", user.trim());
            assert_eq!(said, expected, "{level} {users} {tool}");
        }
    }
}
