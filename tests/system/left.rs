//! What is left of a stage when its agent, and whatever held the stage, is killed: nothing.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::house::{House, OTTO, Plan, until};

/// Seconds of `sleep` by which processes of one test are told from all others.
fn seconds(test: u32) -> [String; 4] {
    [0, 1, 2, 3].map(|number| (1_000_000_000 + u64::from(test) * 100_000_000 + u64::from(std::process::id()) * 10 + number).to_string())
}

/// The processes that sleep so long.
fn sleepers(seconds: &[String]) -> Vec<String> {
    let names = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let sleeps = |pid: &String| {
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        seconds.iter().any(|seconds| line == format!("sleep\0{seconds}\0"))
    };
    names.filter(|name| name.parse::<u32>().is_ok()).filter(sleeps).collect()
}

fn parent(pid: &str) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap().to_owned()
}

/// The control groups of stages that a process is in, each by what tells it from a later one of its name.
fn groups(pid: &str) -> BTreeSet<(PathBuf, u64)> {
    let folders = testkit::stage_groups(pid).into_iter();
    folders.filter_map(|folder| Some((folder.clone(), fs::metadata(&folder).ok()?.ino()))).collect()
}

fn is_there((folder, number): &(PathBuf, u64)) -> bool {
    fs::metadata(folder).is_ok_and(|found| found.ino() == *number)
}

/// The folders of attempts in an agent's data, without those that are made ahead; and every socket.
fn left(data: &Path) -> Vec<PathBuf> {
    let (mut folders, mut found) = (vec![data.to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let (path, Ok(kind)) = (entry.path(), entry.file_type()) else { continue };
            // A stage's own folder for /tmp may have places of these names, on which its files are mounted.
            let is_attempt = ["spool", "work"].iter().any(|name| folder == data.join("agents/agent-1").join(name));
            let journal = folder.with_file_name("spool").join(entry.file_name()).join("journal");
            if kind.is_socket() || is_attempt && fs::metadata(journal).map_or(true, |journal| journal.len() > 0) {
                found.push(path.clone());
            }
            if kind.is_dir() {
                folders.push(path);
            }
        }
    }
    found
}

/// A stage that forks twice, leaves its session and its environment, and has a socket.
fn pipeline(seconds: &[String; 4]) -> String {
    let [first, second, third, last] = seconds;
    let listen = "import socket, time\ns = socket.socket(socket.AF_UNIX)\ns.bind('socket')\ntime.sleep(100000)";
    let script = format!(
        "(setsid sh -c \"sleep {first} & exec sleep {second}\" &); (env -i setsid sleep {third} &); mkdir -p a/b; chmod 0 a; \
         python3 -c \"$LISTEN\" & sleep {last}"
    );
    format!(
        "pipeline {{ stage 'Left' {{ effect = once env {{ LISTEN = \"{}\" }} steps [ sh '{script}' ] }} }}",
        listen.replace('\n', "\\n")
    )
}

async fn begun(house: &House, seconds: &[String; 4]) -> (String, BTreeSet<(PathBuf, u64)>) {
    let run = house.create(&pipeline(seconds)).await;
    until("all processes of the stage", async || sleepers(seconds).len() == 4).await;
    until("its socket", async || left(&house.data()).iter().any(|path| path.ends_with("socket"))).await;
    let groups = sleepers(seconds).iter().flat_map(|pid| groups(pid)).collect();
    (run, groups)
}

async fn nothing_is_left(house: House, run: &str, seconds: &[String; 4], groups: &BTreeSet<(PathBuf, u64)>) {
    until("the end of all processes", async || sleepers(seconds).is_empty()).await;
    assert_eq!(house.ended(run).await["status"]["outcome"], "unknown");
    until("the end of its files", async || left(&house.data()).is_empty()).await;
    until("the end of its control groups", async || !groups.iter().any(is_there)).await;
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(house.data().to_str().unwrap()), "{mounts}");
    house.end().await;
}

#[tokio::test]
async fn nothing_of_a_stage_is_left_when_its_agent_is_killed() {
    for (test, isolation) in [(0, "group"), (1, "auto")] {
        let house = House::planned(tempfile::tempdir().unwrap(), Plan { isolation, ..Plan::default() }).await;
        let seconds = seconds(test);
        let (run, groups) = begun(&house, &seconds).await;
        house.kill("agent-1").await;
        nothing_is_left(house, &run, &seconds, &groups).await;
    }
}

#[tokio::test]
async fn nothing_of_a_stage_is_left_when_all_that_held_it_is_killed_with_its_agent() {
    let house = House::start(1).await;
    let seconds = seconds(2);
    let (run, groups) = begun(&house, &seconds).await;
    // The one that the shell itself has started.
    let shell = sleepers(&seconds[3..]).iter().map(|pid| parent(pid)).next().unwrap();
    let init = parent(&shell);
    let nursery = parent(&init);
    // Nobody is to clear up before the next life.
    house.signal("agent-1", Signal::SIGSTOP);
    for holder in [nursery, init] {
        kill(Pid::from_raw(holder.parse().unwrap()), Signal::SIGKILL).unwrap();
    }
    assert_eq!(sleepers(&seconds).len(), 4, "they have outlived what held them");
    if groups.is_empty() {
        println!("SKIPPED: without a control group nothing tells whose a process without its environment is");
        for pid in sleepers(&seconds[2..3]) {
            kill(Pid::from_raw(pid.parse().unwrap()), Signal::SIGKILL).unwrap();
        }
    }
    house.kill("agent-1").await;
    nothing_is_left(house, &run, &seconds, &groups).await;
}

/// An image of one static program.
const IMAGE: &str = "localhost/otto-test-left:1";
const BUSYBOX: [&str; 2] = ["/usr/bin/busybox", "/bin/busybox"];

/// Makes the image; `None`, said aloud, where this machine runs no containers.
fn image() -> Option<()> {
    let skipped = |why: &str| println!("SKIPPED: {why}");
    let Some(busybox) = BUSYBOX.iter().find(|path| Path::new(path).exists()) else {
        skipped("there is no static busybox to make an image of");
        return None;
    };
    let folder = tempfile::tempdir().unwrap();
    for path in ["bin", "etc", "proc", "dev", "sys", "tmp"] {
        fs::create_dir(folder.path().join(path)).unwrap();
    }
    fs::copy(busybox, folder.path().join("bin/busybox")).unwrap();
    for tool in ["sh", "sleep", "touch", "nc", "cat"] {
        std::os::unix::fs::symlink("busybox", folder.path().join("bin").join(tool)).unwrap();
    }
    let archive = tempfile::NamedTempFile::new().unwrap();
    assert!(Command::new("tar").arg("-C").arg(folder.path()).arg("-cf").arg(archive.path()).arg(".").status().unwrap().success());
    let change = "CMD [\"/bin/nc\", \"-ll\", \"-p\", \"5433\", \"-e\", \"/bin/cat\"]";
    let imported = Command::new("podman").args(["import", "--change", change]).arg(archive.path()).arg(IMAGE).output();
    match imported {
        Ok(output) if output.status.success() => Some(()),
        problem => {
            skipped(&format!("podman makes no image: {problem:?}"));
            None
        }
    }
}

/// The containers that a process has started.
fn containers(owner: u32) -> Vec<String> {
    let format = "--format={{.Names}} {{.Labels}}";
    let listed = Command::new("podman").args(["ps", "--all", "--filter", "label=otto.owner", format]).output().unwrap();
    let text = String::from_utf8(listed.stdout).unwrap();
    text.lines().filter(|line| line.contains(&format!("otto.owner:{owner}-"))).map(str::to_owned).collect()
}

#[tokio::test]
async fn the_containers_of_a_killed_run_are_removed_by_the_next() {
    if image().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let stage = |script: &str| {
        format!(
            "pipeline {{ stage 'Db' {{ runtime {{ docker {{ image = '{IMAGE}' }} }} services {{ db {{ image = '{IMAGE}' port = 5433 }} }} \
             steps [ sh '{script}' ] }} }}"
        )
    };
    fs::write(folder.path().join("Ottofile"), stage("sleep 100000")).unwrap();
    let log = fs::File::create(folder.path().join("log")).unwrap();
    let mut otto = Command::new(OTTO);
    otto.arg("run").current_dir(folder.path()).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    let mut run = otto.spawn().unwrap();
    let owner = run.id();
    let said = || fs::read_to_string(folder.path().join("log")).unwrap();
    until("the containers of steps and service", async || {
        if let Some(status) = run.try_wait().unwrap() {
            assert!(said().contains("no agent") || said().contains("docker"), "{status}: {}", said());
            return true;
        }
        containers(owner).len() == 2 && said().contains("sleep 100000")
    })
    .await;
    if run.try_wait().unwrap().is_some() {
        return println!("SKIPPED: no containers run here: {}", said());
    }
    run.kill().unwrap();
    run.wait().unwrap();
    fs::write(folder.path().join("Ottofile"), stage("touch done")).unwrap();
    let next = Command::new(OTTO).arg("run").current_dir(folder.path()).output().unwrap();
    assert!(next.status.success(), "{}", String::from_utf8_lossy(&next.stdout));
    until("the end of the containers", async || containers(owner).is_empty()).await;
}
