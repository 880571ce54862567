//! Steps that fight what holds them, at each level that this machine offers: they get an answer, and nothing of them is left.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::Write as _,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use agent::Level;
use model::{
    StageOutcome,
    plan::{CacheDefinition, Stage, Step, Value},
    protocol::agent::Assignment,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, geteuid},
};
use tokio::runtime::Builder;

use crate::{
    isolation::with_mark,
    life::{award_on, killed},
    office::{Office, assignment, is_alive, sh, stage, until},
};

/// Longer than any test: what sleeps so long was ended.
const LONG: &str = "sleep 100000";

/// A stage whose processes are found by what this returns beside it.
fn marked(path: &str, level: Level, script: &str) -> (Stage, String) {
    let mark = format!("{path}-at-{level}-{}", std::process::id());
    let environment = BTreeMap::from([("MARK".to_owned(), Value::Text(mark.clone()))]);
    (Stage { environment, ..stage(path, vec![sh(script)]) }, mark)
}

/// Where a stage of the office has put something, once it has.
fn found(office: &Office, name: &str) -> Option<PathBuf> {
    let work = fs::read_dir(office.path("agent/work")).ok()?.flatten();
    work.map(|attempt| attempt.path().join("source").join(name)).find(|path| path.exists())
}

async fn find(office: &Office, name: &str) -> PathBuf {
    until(&format!("`{name}` in a work directory"), || found(office, name).is_some()).await;
    found(office, name).unwrap()
}

fn parent(pid: &str) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap().to_owned()
}

fn signal(pid: &str, signal: Signal) {
    kill(Pid::from_raw(pid.parse().unwrap()), signal).unwrap();
}

/// The shell of the only running stage with this mark, and the init above it.
async fn shell_and_init(mark: &str) -> (String, String) {
    let mut shell = None;
    until("the stage's processes", || {
        let marked = with_mark(mark);
        // What stands above it does not have the mark.
        shell = marked.iter().find(|pid| !marked.contains(&parent(pid))).cloned();
        shell.is_some()
    })
    .await;
    let shell = shell.unwrap();
    let init = parent(&shell);
    (shell, init)
}

async fn goes_on(office: &mut Office, level: Level) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let path = format!("after-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let (outcome, reason, said) = office.run(&path, vec![sh("set +x; echo fine")]).await;
    assert_eq!((outcome, reason, said.as_str()), (StageOutcome::Success, None, "fine\n"), "{level}");
    until("an empty spool", || office.leftovers().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_outlives_its_nursery_and_the_next_one_has_another() {
    for level in Level::ALL {
        let Some(mut office) = Office::isolated(level).await else { continue };
        let (held, mark) =
            marked("held", level, &format!("set +x; setsid {LONG} & touch up; until [ -e gate ]; do sleep 0.05; done; echo through"));
        let assignment = assignment(held, 1);
        office.award(&assignment).await;
        let up = find(&office, "up").await;
        let (_, init) = shell_and_init(&mark).await;
        let nursery = parent(&init);
        signal(&nursery, Signal::SIGKILL);
        until("the nursery's end", || !is_alive(&nursery)).await;
        fs::write(up.with_file_name("gate"), "").unwrap();
        assert_eq!(office.result(&assignment.lease).await, (StageOutcome::Success, None), "{level}");
        assert_eq!(with_mark(&mark), Vec::<String>::new(), "{level}");
        office.stored(&assignment.lease).await;
        goes_on(&mut office, level).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_init_held_is_ended_and_the_stage_fails() {
    for (level, with_nursery) in Level::ALL.into_iter().flat_map(|level| [(level, false), (level, true)]) {
        let Some(mut office) = Office::isolated(level).await else { continue };
        let script = format!("set +x; (setsid {LONG} &) ; touch up; {LONG}");
        let (stage, mark) = marked(&format!("orphans-{with_nursery}"), level, &script);
        let assignment = assignment(stage, 1);
        office.award(&assignment).await;
        find(&office, "up").await;
        let (_, init) = shell_and_init(&mark).await;
        if with_nursery {
            signal(&parent(&init), Signal::SIGKILL);
        }
        signal(&init, Signal::SIGKILL);
        let (outcome, reason) = office.result(&assignment.lease).await;
        assert_eq!(outcome, StageOutcome::Failure, "{level}");
        assert!(reason.as_deref().is_some_and(|reason| reason.contains("what held its processes was killed")), "{level}: {reason:?}");
        // By the time it is told, nothing is left, but where whoever adopts them is still at it.
        until("the end of all processes", || with_mark(&mark).is_empty()).await;
        office.stored(&assignment.lease).await;
        goes_on(&mut office, level).await;
    }
}

/// In namespaces the init has no other id for the stage than 1, and takes no signal from it.
const WITHOUT_NAMESPACES: [Level; 2] = [Level::Group, Level::Landlock];

async fn ends_although_its_init_stands_still(level: Level) {
    let Some(mut office) = Office::isolated(level).await else { return };
    let script = "set +x; trap '' TERM; setsid sleep 100000 & kill -STOP $PPID; while :; do echo still here; sleep 0.02; done";
    let (mut stage, mark) = marked("frozen", level, script);
    stage.timeout_ms = 300;
    let assignment = assignment(stage, 1);
    office.award(&assignment).await;
    let result = office.result(&assignment.lease).await;
    assert_eq!(result, (StageOutcome::Failure, Some("timed out after 300ms".to_owned())), "{level}");
    until("the end of all processes", || with_mark(&mark).is_empty()).await;
    office.stored(&assignment.lease).await;
    goes_on(&mut office, level).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_makes_its_init_stand_still_is_ended_all_the_same() {
    let [group, landlock] = WITHOUT_NAMESPACES.map(ends_although_its_init_stands_still);
    tokio::join!(group, landlock);
}

#[test]
fn an_init_that_stands_still_does_not_outlive_its_agent() {
    let outer = Builder::new_current_thread().enable_all().build().unwrap();
    let office = outer.block_on(Office::without_agent());
    let pids = office.path("pids");
    let script = format!("set +x; setsid {LONG} & echo $! $PPID >{0}.part; mv {0}.part {0}; kill -STOP $PPID; {LONG}", pids.display());
    let assignment = assignment(stage("frozen", vec![sh(&script)]), 1);
    let bus = office.bus.clone();
    killed(&office, async {
        award_on(&bus, &assignment).await;
        until("its processes", || pids.exists()).await;
    });
    let pids = fs::read_to_string(pids).unwrap();
    outer.block_on(until("the end of all processes", || !pids.split_whitespace().any(is_alive)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nursery_that_a_step_makes_stand_still_delays_others_and_ends() {
    let Some(mut office) = Office::isolated(Level::Group).await else { return };
    let script = "set +x; nursery=$(sed 's/.*) . //' /proc/$PPID/stat | cut -d' ' -f1); kill -STOP $nursery; echo $nursery";
    let (outcome, reason, nursery) = office.run("freezer", vec![sh(script)]).await;
    assert_eq!((outcome, reason), (StageOutcome::Success, None));
    // Some were made ahead.
    for _ in 0..4 {
        goes_on(&mut office, Level::Group).await;
    }
    until("the end of the nursery", || !is_alive(&nursery)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_deeper_than_any_path_is_removed() {
    for level in Level::ALL {
        let Some(mut office) = Office::isolated(level).await else { continue };
        let script = "#!/usr/bin/env python3\nimport os\nfor _ in range(600):\n    os.mkdir('as-deep-as-this'); os.chdir('as-deep-as-this')\nopen('file', 'w').close()\nos.chmod('.', 0o500)\n";
        let (outcome, reason, _) = office.run("deep", vec![sh(script)]).await;
        assert_eq!((outcome, reason), (StageOutcome::Success, None), "{level}");
        until("an empty spool", || office.leftovers().is_empty()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_files_with_odd_names_are_removed() {
    let Some(mut office) = Office::isolated(Level::Group).await else { return };
    let script = "#!/usr/bin/env python3\nimport os\nfor n in range(100000):\n    os.close(os.open(b'line\\nfeed \\xff %d' % n, os.O_CREAT))\nos.mkfifo('pipe')\n";
    let (outcome, reason, _) = office.run("many", vec![sh(script)]).await;
    assert_eq!((outcome, reason), (StageOutcome::Success, None));
    until("an empty spool", || office.leftovers().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_step_mounts_is_unmounted_and_what_lies_behind_it_stays() {
    if !geteuid().is_root() {
        return println!("SKIPPED: only the superuser can mount something that its agent sees");
    }
    let Some(mut office) = Office::isolated(Level::Group).await else { return };
    let outside = office.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("precious"), "x").unwrap();
    let script = format!(
        "set +x; mkdir -p in/tree memory; touch file
        mount --bind {0} in/tree || exit 9; mount --bind {0}/precious file; mount -t tmpfs none memory; touch memory/x; ls in/tree",
        outside.display()
    );
    let (outcome, reason, said) = office.run("mounts", vec![sh(&script)]).await;
    if reason.as_deref() == Some("step 1 `sh`: exit code 9") {
        return println!("SKIPPED: this superuser may not mount anything");
    }
    assert_eq!((outcome, reason, said.as_str()), (StageOutcome::Success, None, "precious\n"));
    until("an empty spool", || office.leftovers().is_empty()).await;
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let work = office.path("agent/work");
    assert!(!mounts.contains(work.to_str().unwrap()), "{mounts}");
    assert_eq!(fs::read_to_string(outside.join("precious")).unwrap(), "x");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_in_the_place_of_the_work_directory_leads_the_agent_nowhere() {
    for level in Level::ALL {
        let Some(mut office) = Office::isolated(level).await else { continue };
        let outside = office.path("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("secret"), "x").unwrap();
        let replace = sh(&format!("set +x; cd ..; mv source away; ln -s {} source", outside.display()));
        let caches = BTreeMap::from([("kept".to_owned(), CacheDefinition { paths: vec!["secret".into()], key: None })]);
        let keeping = Assignment { ..assignment(Stage { caches, ..stage("keeping", vec![replace.clone()]) }, 1) };
        let ran = office.run_assignment(&keeping).await;
        assert_eq!(ran.outcome, StageOutcome::Failure, "{level}: {ran:?}");
        let reason = ran.reason.unwrap();
        assert!(reason.starts_with("cannot keep the cache `kept`: the work directory is no folder any more"), "{level}: {reason}");
        assert!(ran.outputs.caches.is_empty());
        let parameters =
            BTreeMap::from([("path".to_owned(), "made".into()), ("steps".to_owned(), Value::Steps { steps: vec![sh("true")] })]);
        let entering = stage("entering", vec![replace, Step::new("stdlib", "dir", parameters)]);
        let ran = office.run_assignment(&assignment(entering, 1)).await;
        assert_eq!(ran.end(), (StageOutcome::Failure, Some("step 2 `dir`: `made` leads out of the work directory")), "{level}");
        let left: Vec<_> = fs::read_dir(&outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["secret"], "{level}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_is_kept_without_pipes_and_refuses_links_that_lead_out() {
    let mut office = Office::open().await;
    let caching = |path: &str, script: &str| {
        let caches = BTreeMap::from([("kept".to_owned(), CacheDefinition { paths: vec!["c".into()], key: None })]);
        assignment(Stage { caches, ..stage(path, vec![sh(script)]) }, 1)
    };
    let ran = office.run_assignment(&caching("pipe", "mkdir c; mkfifo c/pipe; touch \"c/line\nfeed\"")).await;
    assert_eq!(ran.end(), (StageOutcome::Success, None), "{}", ran.otto);
    assert!(ran.otto.contains("the cache `kept` is kept without 1 sockets and pipes: "), "{}", ran.otto);
    assert_eq!(ran.outputs.caches["kept"].entries, 2);
    let ran = office.run_assignment(&caching("link", "mkdir c; ln -s /etc/passwd c/out")).await;
    assert_eq!(ran.outcome, StageOutcome::Failure);
    assert!(ran.reason.as_deref().is_some_and(|reason| reason.contains("is a symbolic link that may lead out")), "{:?}", ran.reason);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_keeps_a_steps_output_open_from_outside_holds_up_nobody() {
    let Some(mut office) = Office::isolated(Level::Group).await else { return };
    let assignment =
        assignment(stage("open", vec![sh("set +x; echo $$ >up.part; mv up.part up; until [ -e gate ]; do sleep 0.02; done")]), 1);
    office.award(&assignment).await;
    let up = find(&office, "up").await;
    let pid = fs::read_to_string(&up).unwrap();
    let mut output = OpenOptions::new().write(true).open(format!("/proc/{}/fd/1", pid.trim())).unwrap();
    let writing = std::thread::spawn(move || while output.write_all(&[b'x'; 4096]).is_ok() {});
    fs::write(up.with_file_name("gate"), "").unwrap();
    assert_eq!(office.result(&assignment.lease).await, (StageOutcome::Success, None));
    writing.join().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_reaches_neither_other_processes_nor_another_stage() {
    for level in [Level::Landlock, Level::Namespaces] {
        let Some(mut office) = Office::isolated(level).await else { continue };
        let mut victim = Command::new("sleep").arg("100000").env("SECRET", "x").spawn().unwrap();
        let other = office.path("agent/spool");
        let script = format!(
            "set +x
            kill -9 {0} 2>/dev/null || echo 'no kill'
            cat /proc/{0}/environ >/dev/null 2>&1 || echo 'no environment'
            cat /proc/{0}/mem >/dev/null 2>&1 || echo 'no memory'
            readlink /proc/{0}/fd/0 /proc/{0}/cwd /proc/{0}/exe 2>/dev/null || echo 'no files'
            (echo x >{1}/x) 2>/dev/null || echo 'no journal'
            (echo x >{2}/x) 2>/dev/null || echo 'no archives'",
            victim.id(),
            other.display(),
            office.path("agent/archives").display(),
        );
        let (outcome, reason, said) = office.run("reach", vec![sh(&script)]).await;
        let alive = victim.try_wait().unwrap().is_none();
        victim.kill().unwrap();
        victim.wait().unwrap();
        assert_eq!((outcome, reason), (StageOutcome::Success, None), "{level}");
        assert_eq!(said, "no kill\nno environment\nno memory\nno files\nno journal\nno archives\n", "{level}");
        assert!(alive, "{level}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_in_namespaces_kills_everything_that_it_sees_and_nobody_else() {
    let Some(mut office) = Office::isolated(Level::Namespaces).await else { return };
    let outside = fs::read_link("/proc/self/ns/pid").unwrap();
    // Not a step further where it is not shut in after all: this would end the machine's processes.
    let script = format!(
        "set +x; test \"$(readlink /proc/self/ns/pid)\" != '{}' || exit 9; (setsid {LONG} &); kill -STOP 1; kill -9 1; kill -9 -1; echo survived",
        outside.display()
    );
    let (stage, mark) = marked("killer", Level::Namespaces, &script);
    let (outcome, reason, said) = office.run_stage(stage, None).await;
    assert_eq!((outcome, reason, said.as_str()), (StageOutcome::Success, None, "survived\n"));
    assert_eq!(with_mark(&mark), Vec::<String>::new());
    goes_on(&mut office, Level::Namespaces).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_groups_that_a_step_makes_in_its_own_go_with_it() {
    let Some(mut office) = Office::isolated(Level::Group).await else { return };
    let (held, mark) = marked("groups", Level::Group, &format!("set +x; touch up; until [ -e gate ]; do sleep 0.02; done; {LONG}"));
    let assignment = assignment(Stage { timeout_ms: 5_000, ..held }, 1);
    office.award(&assignment).await;
    let up = find(&office, "up").await;
    let (shell, _) = shell_and_init(&mark).await;
    let groups = testkit::stage_groups(&shell);
    if groups.is_empty() {
        return println!("SKIPPED: there is no control group here that the agent may write to");
    }
    for group in &groups {
        let inner = group.join("a/b");
        fs::create_dir_all(&inner).unwrap();
        // Its root may still have no memory or processors there; only where it lies is of interest.
        let moved = fs::write(inner.join("cgroup.procs"), &shell);
        assert!(moved.is_ok(), "{moved:?} {}", inner.display());
    }
    fs::write(up.with_file_name("gate"), "").unwrap();
    assert_eq!(office.result(&assignment.lease).await.0, StageOutcome::Failure);
    assert_eq!(with_mark(&mark), Vec::<String>::new());
    until("the end of its groups", || !groups.iter().any(|group| group.join("a").exists())).await;
    office.stored(&assignment.lease).await;
    goes_on(&mut office, Level::Group).await;
}
