//! Stages in images, with services. They need podman or docker: where there is none, the tests say that they were skipped. In CI it is
//! installed.

use std::{collections::BTreeMap, path::Path, process::Command};

use agent::container::{ContainerOptions, Containers, Runtime, probe};
use model::{
    StageOutcome,
    plan::{Container, Service, Stage, Step, Value},
    protocol::agent::AgentCommand,
};
use tokio::sync::OnceCell;

use crate::office::{Office, assignment, is_alive, sh, stage, until};

/// An image of one static program, made without a registry.
const IMAGE: &str = "localhost/otto-test-busybox:1";
/// The same, with a command that answers on a port.
const ANSWERING: &str = "localhost/otto-test-answering:1";
/// The same, with a command that fails.
const FAILING: &str = "localhost/otto-test-failing:1";
/// The same, with a command that does nothing for longer than a test.
const WAITING: &str = "localhost/otto-test-waiting:1";
/// The commands of the images.
const IMAGES: [(&str, &str); 4] = [
    (IMAGE, "CMD [\"/bin/true\"]"),
    (ANSWERING, "CMD [\"/bin/nc\", \"-ll\", \"-p\", \"5432\", \"-e\", \"/bin/cat\", \"/etc/image\"]"),
    (WAITING, "CMD [\"/bin/sleep\", \"600\"]"),
    (FAILING, "CMD [\"/bin/sh\", \"-c\", \"echo the disk is full >&2; exit 4\"]"),
];
/// The packages that CI installs.
const PACKAGES: [&str; 3] = ["podman", "runc", "busybox-static"];
/// Where Debian's static busybox is.
const BUSYBOX: [&str; 2] = ["/usr/bin/busybox", "/bin/busybox"];

/// What runs containers here, with the image; `None` after it was said loudly.
async fn runtime() -> Option<Runtime> {
    static FOUND: OnceCell<Option<Runtime>> = OnceCell::const_new();
    FOUND.get_or_init(find).await.clone()
}

async fn find() -> Option<Runtime> {
    let mut found = probe(&ContainerOptions::default()).await;
    if found.is_err() && std::env::vars_os().any(|(name, _)| name == "CI") && Path::new("/usr/bin/apt-get").exists() {
        let mut install = Command::new("apt-get");
        install.args(["install", "-y", "--no-install-recommends"]).args(PACKAGES);
        let _told_by_the_next_probe = install.output();
        found = probe(&ContainerOptions::default()).await;
    }
    let busybox = BUSYBOX.iter().find(|path| Path::new(path).exists());
    match (found, busybox) {
        (Ok(runtime), Some(busybox)) => {
            import(runtime.name(), busybox);
            Some(runtime)
        }
        (Err(why), _) => skipped(&why.to_string()),
        (Ok(_), None) => skipped("there is no static busybox to make an image of"),
    }
}

#[expect(clippy::print_stderr, reason = "who runs the tests is to know that these have tested nothing")]
fn skipped(why: &str) -> Option<Runtime> {
    eprintln!("SKIPPED: no containers are tested: {why}");
    None
}

fn import(name: &str, busybox: &str) {
    let client = name.split(' ').next().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for path in ["bin", "etc", "proc", "dev", "sys", "tmp"] {
        std::fs::create_dir(root.join(path)).unwrap();
    }
    std::fs::copy(busybox, root.join("bin/busybox")).unwrap();
    for tool in ["sh", "cat", "ls", "nc", "sleep", "env", "echo", "id", "pwd", "touch", "true", "mkdir", "test"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(tool)).unwrap();
    }
    std::fs::write(root.join("etc/image"), "busybox\n").unwrap();
    let archive = tempfile::NamedTempFile::new().unwrap();
    let archive = archive.path().to_str().unwrap();
    assert!(Command::new("tar").args(["-C", root.to_str().unwrap(), "-cf", archive, "."]).status().unwrap().success());
    for (image, command) in IMAGES {
        let imported = Command::new(client).args(["import", "--change", command, archive, image]).output().unwrap();
        assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
    }
}

fn in_image(path: &str, steps: Vec<Step>) -> Stage {
    Stage { container: Some(Container { image: Value::from(IMAGE) }), ..stage(path, steps) }
}

fn service(name: &str, port: Option<u16>, ready: Option<&str>) -> Service {
    Service { name: name.to_owned(), image: Value::from(IMAGE), environment: BTreeMap::new(), port, ready: ready.map(str::to_owned) }
}

/// An agent that runs containers.
async fn office(runtime: Runtime) -> Office {
    let mut office = Office::without_agent().await;
    office.containers = Containers::Found(runtime);
    office.start_agent().await;
    office
}

/// The names of the containers with this label.
fn containers(runtime: &Runtime, label: &str) -> String {
    let client = runtime.name().split(' ').next().unwrap();
    let listed =
        Command::new(client).args(["ps", "--all", "--filter", &format!("label={label}"), "--format", "{{.Names}}"]).output().unwrap();
    String::from_utf8(listed.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn steps_run_in_the_image_with_the_work_directory_at_the_same_path() {
    let Some(runtime) = runtime().await else { return };
    let mut office = office(runtime.clone()).await;
    let mut stage = in_image(
        "Build",
        vec![
            sh("set +x; cat /etc/image; pwd > where; echo $GREETING; echo no >&2; touch made"),
            sh("set +x; test -f made; test \"$(pwd)\" = \"$(cat where)\"; test -d \"$HOME\"; echo $OTTO_LEASE > lease"),
            sh("#!/bin/sh\necho $OTTO_STAGE; exit 3"),
        ],
    );
    stage.environment = [("GREETING".to_owned(), Value::from("hello there"))].into();
    let assignment = assignment(stage, 1);
    let ran = office.run_assignment(&assignment).await;
    assert_eq!(ran.end(), (StageOutcome::Failure, Some("step 3 `sh`: exit code 3")), "{}", ran.otto);
    assert_eq!(ran.out, "busybox\nhello there\nBuild\n", "standard error is apart");
    assert!(ran.otto.contains(&format!("the steps run in the image {IMAGE}, by {}", runtime.name())), "{}", ran.otto);
    office.stop_agent().await;
}

#[tokio::test]
async fn a_cancel_reaches_the_process_in_the_container_and_nothing_is_left() {
    let Some(runtime) = runtime().await else { return };
    let mut office = office(runtime.clone()).await;
    let script = "set +x; trap 'echo ended in order; exit 1' TERM; echo $OTTO_LEASE; while true; do sleep 0.1; done";
    let assignment = assignment(in_image("Long", vec![sh(script)]), 1);
    office.award(&assignment).await;
    let lease = String::from_utf8(office.chunk().await.bytes).unwrap();
    let label = format!("otto.lease={}", lease.trim());
    assert_eq!(containers(&runtime, &label), format!("otto-{}", lease.trim()));
    office.send(AgentCommand::Cancel { lease: assignment.lease.clone(), force: false }).await;
    assert_eq!(String::from_utf8(office.chunk().await.bytes).unwrap(), "ended in order\n");
    assert_eq!(office.result(&assignment.lease).await, (StageOutcome::Aborted, Some("cancelled".to_owned())));
    assert_eq!(containers(&runtime, &label), "");
    office.stop_agent().await;
}

#[tokio::test]
async fn a_step_that_does_not_listen_is_ended_by_force() {
    let Some(runtime) = runtime().await else { return };
    let mut office = office(runtime.clone()).await;
    let script = "set +x; trap '' TERM; echo $OTTO_LEASE; while true; do sleep 1; done";
    let assignment = assignment(in_image("Deaf", vec![sh(script)]), 1);
    office.award(&assignment).await;
    let lease = String::from_utf8(office.chunk().await.bytes).unwrap();
    office.send(AgentCommand::Cancel { lease: assignment.lease.clone(), force: true }).await;
    assert_eq!(office.result(&assignment.lease).await.0, StageOutcome::Aborted);
    assert_eq!(containers(&runtime, &format!("otto.lease={}", lease.trim())), "");
    office.stop_agent().await;
}

#[tokio::test]
async fn a_service_is_ready_before_the_first_step_and_reached_by_its_name() {
    let Some(runtime) = runtime().await else { return };
    let mut office = office(runtime).await;
    for (service, path) in
        [(service("db", Some(5432), None), "Port"), (service("db", None, Some("nc 127.0.0.1 5432 < /dev/null")), "Command")]
    {
        let stage = Stage {
            services: vec![Service { image: Value::from(ANSWERING), ..service }],
            ..in_image(path, vec![sh("set +x; nc db 5432 < /dev/null")])
        };
        let ran = office.run_assignment(&assignment(stage, 1)).await;
        assert_eq!((ran.end(), ran.out.as_str()), ((StageOutcome::Success, None), "busybox\n"), "{}", ran.otto);
    }
    office.stop_agent().await;
}

#[tokio::test]
async fn services_of_steps_without_an_image_are_reached_by_their_names_and_end_with_the_stage() {
    let Some(runtime) = runtime().await else { return };
    let mut office = Office::without_agent().await;
    (office.containers, office.sandbox) = (Containers::Found(runtime.clone()), crate::office::isolated(agent::Level::Namespaces));
    office.start_agent().await;
    let answering = |name: &str, port| Service { image: Value::from(ANSWERING), ..service(name, port, None) };
    let second = Service { ready: Some("nc db 5432 < /dev/null".to_owned()), ..service("second", None, None) };
    let second = Service { image: Value::from(WAITING), ..second };
    let script = "set +x; python3 -c 'import socket; print(socket.create_connection((\"db\", 5432), 9).recv(99).decode(), end=\"\")'; \
                  echo $OTTO_LEASE; ! echo mine >> /etc/hosts";
    let stage = Stage { services: vec![answering("db", Some(5432)), second], ..stage("Beside", vec![sh(script)]) };
    let assignment = assignment(stage, 1);
    let ran = office.run_assignment(&assignment).await;
    assert_eq!(ran.end(), (StageOutcome::Success, None), "{} {}", ran.out, ran.otto);
    assert!(ran.out.starts_with("busybox\n"), "{}", ran.out);
    assert!(!std::fs::read_to_string("/etc/hosts").unwrap().contains("mine"));
    let lease = ran.out.lines().nth(1).unwrap_or_default();
    assert_eq!(containers(&runtime, &format!("otto.lease={lease}")), "", "{lease}");
    assert_ne!(lease, "");
    office.stop_agent().await;
}

#[tokio::test]
async fn a_service_that_ends_early_fails_the_stage_with_what_it_said() {
    let Some(runtime) = runtime().await else { return };
    let mut office = office(runtime).await;
    let mut dead = service("db", Some(5432), None);
    dead.image = Value::from("--privileged");
    let refused = Stage { services: vec![dead], ..in_image("Option", vec![sh("echo never")]) };
    let ran = office.run_assignment(&assignment(refused, 1)).await;
    assert_eq!(ran.end(), (StageOutcome::Failure, Some("`--privileged` is no reference to an image")));
    let missing =
        Stage { container: Some(Container { image: Value::from("localhost/otto-no-such-image:1") }), ..stage("Missing", vec![sh("true")]) };
    let ran = office.run_assignment(&assignment(missing, 1)).await;
    assert!(
        ran.reason.as_deref().is_some_and(|reason| reason.starts_with("cannot pull the image localhost/otto-no-such-image:1: ")),
        "{ran:?}"
    );
    let failing = Service { image: Value::from(FAILING), ..service("db", Some(5432), None) };
    let ending = Stage { services: vec![failing], ..in_image("Ending", vec![sh("echo never")]) };
    let ran = office.run_assignment(&assignment(ending, 1)).await;
    assert_eq!(ran.end(), (StageOutcome::Failure, Some("the service `db` has ended with 4 before it was ready")));
    assert!(ran.otto.contains("[otto] service db: the disk is full\n"), "{}", ran.otto);
    office.stop_agent().await;
}

#[tokio::test]
async fn an_agent_works_before_it_knows_what_runs_containers_and_says_when_it_does() {
    let Some(runtime) = runtime().await else { return };
    let mut office = Office::without_agent().await;
    let name = runtime.name().split(' ').next().unwrap();
    let (client, gate) = (office.path(name), office.path("gate"));
    std::fs::write(&client, format!("#!/bin/sh\nuntil [ -e {} ]; do sleep 0.01; done\nexec {name} \"$@\"\n", gate.display())).unwrap();
    std::fs::set_permissions(&client, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let client = vec![client.to_str().unwrap().to_owned()];
    office.containers = Containers::Search(ContainerOptions { client, run: Vec::new() });
    office.start_agent().await;
    let ran = office.run_assignment(&assignment(stage("Plain", vec![sh("echo plain")]), 1)).await;
    assert_eq!(ran.end(), (StageOutcome::Success, None), "{}", ran.otto);
    std::fs::write(gate, "").unwrap();
    while !office.status().await.facts.contains_key(model::plan::CONTAINERS) {}
    let ran = office.run_assignment(&assignment(in_image("Image", vec![sh("cat /etc/image")]), 2)).await;
    assert_eq!(ran.end(), (StageOutcome::Success, None), "{}", ran.otto);
    office.stop_agent().await;
}

#[tokio::test]
async fn a_stage_without_containers_on_its_agent_is_told_so() {
    let mut office = Office::open().await;
    let mut wanting = in_image("Image", vec![sh("true")]);
    wanting.requires = wanting.demands();
    let bid = office.ask(&wanting, 0, &[]).await;
    assert!(format!("{bid:?}").contains("wants docker_run, this agent has none"), "{bid:?}");
}

#[tokio::test]
async fn what_a_killed_agent_has_left_is_removed_by_the_next() {
    let Some(runtime) = runtime().await else { return };
    let client = runtime.name().split(' ').next().unwrap().to_owned();
    // A process that is gone: this one has ended and was waited for.
    let mut gone = Command::new("true").spawn().unwrap();
    let pid = gone.id();
    gone.wait().unwrap();
    until("the process to be gone", || !is_alive(&pid.to_string())).await;
    let name = format!("otto-test-left-{pid}");
    let label = format!("otto.owner={pid}-7");
    let made = Command::new(&client).args(["create", "--name", &name, "--label", &label, IMAGE, "/bin/sleep", "1000"]).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    assert_eq!(containers(&runtime, &label), name);
    let mut office = office(runtime.clone()).await;
    assert_eq!(containers(&runtime, &label), "");
    office.stop_agent().await;
}
