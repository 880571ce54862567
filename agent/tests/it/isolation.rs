//! What the processes of a stage can reach, and what becomes of those that misbehave, at each level that this machine offers.
use agent::{Level, SandboxOptions};
use model::{StageOutcome, plan::Value, protocol::agent::AgentCommand};

use crate::office::{Office, assignment, is_alive, isolated, sh, stage, until};

/// The processes whose environment has this.
pub(crate) fn with_mark(mark: &str) -> Vec<String> {
    let names = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let has = |pid: &String| {
        std::fs::read(format!("/proc/{pid}/environ")).is_ok_and(|bytes| bytes.windows(mark.len()).any(|w| w == mark.as_bytes()))
    };
    names.filter(|name| name.parse::<u32>().is_ok()).filter(has).filter(|pid| is_alive(pid)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_forks_twice_and_calls_setsid_ends_with_its_step() {
    for level in Level::ALL {
        let Some(mut office) = Office::isolated(level).await else { continue };
        // The last one has no mark in its environment either.
        let script = "set +x; (setsid sh -c '(sleep 77001 & setsid sleep 77002 & env -i setsid sleep 77003 &) &' &) & wait; sleep 0.2";
        let mut stage = stage("escape", vec![sh(script), sh("set +x; ps -e -o args | grep '^[s]leep 7700' || echo none")]);
        stage.environment.insert("ESCAPE".to_owned(), Value::Text(format!("from-{level}-{}", std::process::id())));
        let (outcome, reason, said) = office.run_stage(stage, None).await;
        assert_eq!((outcome, reason), (StageOutcome::Success, None), "{level}");
        assert_eq!(said, "none\n", "{level}");
        assert_eq!(with_mark(&format!("from-{level}-{}", std::process::id())), Vec::<String>::new(), "{level}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_run_for_a_while_comes_after_what_begins() {
    for level in Level::ALL {
        let Some(mut office) = Office::isolated(level).await else { continue };
        let yields = "set +x; nice; first=$(nice); until [ $(nice) -gt $first ]; do sleep 0.05; done; echo yields";
        let (outcome, reason, said) = office.run("long", vec![sh(yields), sh("set +x; nice")]).await;
        assert_eq!((outcome, reason), (StageOutcome::Success, None), "{level}: {said}");
        let [first, "yields", next] = said.lines().collect::<Vec<_>>()[..] else { panic!("{level}: {said}") };
        assert_eq!(first, next, "{level}: a step that begins is as any other");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stages_run_shares_the_processor_with_the_agent_as_its_own_processes_do() {
    // Without the feature there is no such file, and nothing to divide by.
    let Ok(own) = std::fs::read_to_string("/proc/self/autogroup") else { return };
    for level in Level::ALL {
        let Some(mut office) = Office::isolated(level).await else { continue };
        let (outcome, reason, said) = office.run("look", vec![sh("set +x; cat /proc/self/autogroup")]).await;
        assert_eq!((outcome, reason, said.as_str()), (StageOutcome::Success, None, own.as_str()), "{level}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_in_namespaces_sees_and_writes_what_is_its_own() {
    let Some(mut office) = Office::isolated(Level::Namespaces).await else { return };
    let script = "set +x
        ps -e -o args= | grep -c -v -e ps -e grep -e sh || true
        ls /tmp | wc -l
        echo mine >/tmp/mine; cat $TMPDIR/mine
        touch /usr/not-mine 2>/dev/null || echo 'no /usr'
        touch /etc/not-mine 2>/dev/null || echo 'no /etc'
        (echo 1 >/proc/sys/kernel/sysrq) 2>/dev/null || echo 'no sysctl'
        ls -d /dev/[sv]d? 2>/dev/null || echo 'no disk'
        echo x >/dev/null && test -c /dev/urandom && test -d /dev/shm && touch /dev/shm/x && echo devices
        grep -h CapEff /proc/self/status | tr -d '\\t'
        touch source $HOME/home && echo written
        mount -t tmpfs x /mnt 2>/dev/null || echo 'no mount'";
    let (outcome, reason, said) = office.run("look", vec![sh(script)]).await;
    assert_eq!((outcome, reason), (StageOutcome::Success, None), "{said}");
    let lines: Vec<&str> = said.lines().skip(2).collect();
    let expected = ["mine", "no /usr", "no /etc", "no sysctl", "no disk", "devices", "CapEff:0000000000000000", "written", "no mount"];
    assert_eq!(lines, expected, "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn otto_itself_may_lie_among_the_tools_of_a_hidden_home() {
    if Office::isolated(Level::Namespaces).await.is_none() {
        return;
    }
    let mut office = Office::without_agent().await;
    let home = office.path("home");
    let tools = home.join(".tools");
    std::fs::create_dir_all(&tools).unwrap();
    let otto = tools.join("otto");
    std::fs::copy(office.sandbox.otto.as_ref().unwrap(), &otto).unwrap();
    office.sandbox = SandboxOptions { otto: Some(otto), shown: vec![tools], hidden: vec![home], ..isolated(Level::Namespaces) };
    office.start_agent().await;
    let (outcome, reason, said) = office.run("look", vec![sh("set +x; echo here")]).await;
    assert_eq!((outcome, reason, said.as_str()), (StageOutcome::Success, None, "here\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_that_eats_memory_ends_with_the_limit_named() {
    for level in Level::ALL {
        let Some(mut office) = Office::isolated(level).await else { continue };
        let mut stage = stage("eater", vec![sh("set +x; x=0123456789abcdef; while :; do x=$x$x; done")]);
        stage.requires.insert("memory".to_owned(), Value::Integer(64 << 20));
        let (outcome, reason, _) = office.run_stage(stage, None).await;
        assert_eq!(outcome, StageOutcome::Failure, "{level}");
        let reason = reason.unwrap();
        if limited("memory") {
            assert!(reason.ends_with("; ended by the memory limit of 64 MiB"), "{level}: {reason}");
        } else {
            println!("SKIPPED: no control group limits memory here; it ended with: {reason}");
        }
        until("an empty spool", || office.leftovers().is_empty()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_that_forks_without_end_meets_its_limit_and_leaves_nothing() {
    if !limited("pids") {
        return println!("SKIPPED: no control group limits processes here");
    }
    for level in Level::ALL {
        let Some(mut office) = Office::isolated(level).await else { continue };
        let mark = format!("bomb-{level}-{}", std::process::id());
        let mut stage = stage("bomb", vec![sh("set +x; bomb() { bomb | bomb & }; bomb 2>/dev/null; sleep 1000")]);
        stage.environment.insert("BOMB".to_owned(), Value::Text(mark.clone()));
        stage.timeout_ms = 2_000;
        let (outcome, reason, _) = office.run_stage(stage, None).await;
        assert_eq!(outcome, StageOutcome::Failure, "{level}");
        let reason = reason.unwrap();
        assert!(reason.contains("timed out after 2s") || reason.contains("stopped by the limit of 100 processes"), "{level}: {reason}");
        assert_eq!(with_mark(&mark), Vec::<String>::new(), "{level}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ignores_sigterm_is_killed_after_its_grace() {
    for level in Level::ALL {
        let Some(mut office) = Office::isolated(level).await else { continue };
        let mark = format!("deaf-{level}-{}", std::process::id());
        let mut stage = stage("deaf", vec![sh("set +x; trap '' TERM; (trap '' TERM; setsid sleep 1000) & while :; do sleep 1; done")]);
        stage.environment.insert("DEAF".to_owned(), Value::Text(mark.clone()));
        stage.timeout_ms = 300;
        let (outcome, reason, _) = office.run_stage(stage, None).await;
        assert_eq!((outcome, reason.as_deref()), (StageOutcome::Failure, Some("timed out after 300ms")), "{level}");
        assert_eq!(with_mark(&mark), Vec::<String>::new(), "{level}");
    }
}

/// Whether this machine has a control group of either version in which the agent may limit this.
fn limited(controller: &str) -> bool {
    let subject = match controller {
        "memory" => "memory limit",
        "pids" => "process limit",
        _ => "processor limit",
    };
    let folder = tempfile::tempdir().unwrap();
    let findings = agent::examine(&isolated(Level::Group), &folder.path().canonicalize().unwrap()).unwrap();
    findings.iter().any(|finding| finding.subject == subject && finding.there)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_stage_demands_stands_in_its_control_group() {
    if !["memory", "pids", "cpu"].into_iter().all(limited) {
        return println!("SKIPPED: control groups do not limit memory, processes and processors here");
    }
    let Some(mut office) = Office::isolated(Level::Group).await else { return };
    let mark = format!("limits-{}", std::process::id());
    let mut stage = stage("limits", vec![sh("set +x; sleep 1000")]);
    stage.environment.insert("LIMITS".to_owned(), Value::Text(mark.clone()));
    stage.requires = [("memory".to_owned(), Value::Integer(64 << 20)), ("cores".to_owned(), Value::Integer(1))].into();
    let assignment = assignment(stage, 1);
    office.award(&assignment).await;
    until("the stage's processes", || !with_mark(&mark).is_empty()).await;
    let groups: std::collections::BTreeSet<_> = with_mark(&mark).iter().flat_map(|pid| testkit::stage_groups(pid)).collect();
    let mut said: Vec<String> = Vec::new();
    for file in ["memory.limit_in_bytes", "memory.max", "cpu.cfs_quota_us", "cpu.max", "pids.max"] {
        let found = groups.iter().find_map(|group| std::fs::read_to_string(group.join(file)).ok());
        said.extend(found.map(|text| text.trim().to_owned()));
    }
    // The init is one more.
    let (first, second) = (["67108864", "100000", "101"], ["67108864", "100000 100000", "101"]);
    assert!(said == first || said == second, "{said:?} in {groups:?}");
    if said == second {
        let swap = groups.iter().find_map(|group| std::fs::read_to_string(group.join("memory.swap.max")).ok());
        assert!(swap.as_deref().is_none_or(|swap| swap == "0\n"), "{swap:?}");
    }
    office.send(AgentCommand::Cancel { lease: assignment.lease.clone(), force: true }).await;
    assert_eq!(office.result(&assignment.lease).await.0, StageOutcome::Aborted);
    until("the end of its groups", || with_mark(&mark).is_empty()).await;
}

#[test]
fn what_is_missing_on_this_machine_is_said_with_how_to_get_it() {
    let folder = tempfile::tempdir().unwrap();
    let findings = agent::examine(&isolated(Level::Group), &folder.path().canonicalize().unwrap()).unwrap();
    let subjects: Vec<&str> = findings.iter().map(|finding| finding.subject).collect();
    assert_eq!(subjects, ["namespaces", "landlock", "group", "own users", "snapshot", "memory limit", "process limit", "processor limit"]);
    for finding in &findings {
        println!("{finding:?}");
        assert_eq!(finding.there, finding.remedy.is_none(), "{finding:?}");
    }
    assert!(findings.iter().any(|finding| finding.subject == "group" && finding.there), "{findings:?}");
    let offered = agent::offers(&findings);
    let demand = [("isolation".to_owned(), Value::Text("group".to_owned()))].into();
    assert_eq!(agent::lacks(&demand, &offered), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_that_fills_the_disk_is_ended_and_the_disk_is_free_again() {
    let mut office = Office::without_agent().await;
    let system = nix::sys::statvfs::statvfs(&office.path("")).unwrap();
    let free = system.blocks_available() * system.fragment_size();
    // As if the disk had 64 MiB left.
    office.disk_reserve_bytes = free - (64 << 20);
    office.start_agent().await;
    let script = "set +x; i=0; while [ $i -lt 200 ]; do head -c 16777216 /dev/zero >>fills; i=$((i+1)); sleep 0.1; done";
    let (outcome, reason, _) = office.run("fills", vec![sh(script)]).await;
    let expected = "the agent's disk is nearly full, and this stage has written the most to it";
    assert_eq!((outcome, reason.as_deref()), (StageOutcome::Failure, Some(expected)));
    let work = office.path("agent/work");
    until("its tree to be gone", || {
        let attempts = std::fs::read_dir(&work).unwrap().flatten();
        attempts.flat_map(|attempt| std::fs::read_dir(attempt.path())).flatten().flatten().all(|entry| !entry.path().join("fills").exists())
    })
    .await;
}
