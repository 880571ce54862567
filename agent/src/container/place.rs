//! One attempt's containers: that of its steps, and those of its services, in one network of their own.
//!
//! The container of the steps runs a shell that reads commands from the agent. When the agent goes, in whichever way, the shell's input ends,
//! and with it the container and every process in it. Signals go through it: what a client was told to `exec` is no child of the client.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use model::plan::{Requirements, Service, Value};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::{Pid, getegid, geteuid},
};
use service::supervisor::chain;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    process::Child,
    time::{Instant, sleep_until, timeout},
};
use tracing::warn;

use super::{ClientError, Runtime, last_of, leftovers, services};
use crate::{
    executor::environment::{LEASE_MARK, Variables},
    sandbox::{Launch, Outlets},
};

/// How long a container may take to start; podman takes a tenth of a second, and some seconds on a busy machine.
const START_DEADLINE: Duration = Duration::from_mins(1);
/// How long an image may take to be pulled.
const PULL_DEADLINE: Duration = Duration::from_mins(15);
/// How long a killed process may take to be gone. Then its container is killed as a whole.
const KILL_DEADLINE: Duration = Duration::from_secs(3);
/// Processes and threads of a container at once, where nothing else is said.
const PROCESSES_MAX: u32 = 4096;
/// What the shell of a container says first.
const READY: &str = "ready";
/// Writes its own process id, which is that of its group, and becomes the step's program.
const LEADER: &str = r#"echo $$ > "$1"; shift; exec "$@""#;
/// The shell that an image must have.
const SHELL: &str = "/bin/sh";

/// What an attempt's containers are made of.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    /// The steps' image.
    pub(crate) image: &'a str,
    /// What runs beside them.
    pub(crate) services: &'a [Service],
    /// `memory` and `cores` are limits, too.
    pub(crate) requires: &'a Requirements,
    /// The mark of the attempt's processes.
    pub(crate) mark: &'a str,
    /// The attempt's folder, which is at the same path in the container.
    pub(crate) root: &'a Path,
    /// What else is there, read-only.
    pub(crate) shown: Vec<PathBuf>,
    /// What else is there, to be written to.
    pub(crate) writable: Vec<PathBuf>,
    /// What steps on this machine see of the agent's environment, and steps in an image do not: the image has its own.
    pub(crate) passthrough: Variables,
}

/// Why there is no container to run the steps in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlaceError {
    #[error("`{0}` is no reference to an image")]
    Image(String),
    #[error("cannot pull the image {image}")]
    Pull {
        image: String,
        #[source]
        source: ClientError,
    },
    #[error("the container of the image {image} does not start: {said}")]
    Start { image: String, said: String },
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("cannot prepare the folders of the container")]
    Disk(#[source] io::Error),
    #[error(
        "the network of the services is not reached from this machine: let podman run as root, or use docker, or give the steps an image \
         (`runtime {{ docker {{ image = … }} }}`)"
    )]
    Unreachable,
    #[error("the service `{name}` {what}")]
    Service {
        name: String,
        what: String,
        /// The end of what it has said.
        log: Vec<u8>,
    },
}

/// The containers of an attempt.
#[derive(Debug)]
pub(crate) struct Place {
    runtime: Arc<Runtime>,
    names: Vec<String>,
    user: String,
    shell: Shell,
    main: Child,
    passthrough: Variables,
    folder: PathBuf,
    processes: AtomicU32,
}

/// The commands to a container's shell.
#[derive(Debug, Clone)]
struct Shell(Arc<Mutex<io::PipeWriter>>);

impl Shell {
    fn tell(&self, command: &str) {
        let mut input = self.0.lock().expect("no holder of this lock panics");
        // A container that has ended needs no command.
        let _ended = input.write_all(command.as_bytes());
    }
}

/// The names of an attempt's containers: that of the steps, then those of its services.
pub(super) fn names(mark: &str, services: usize) -> Vec<String> {
    let of_services = (1..=services).map(|number| format!("otto-{mark}-{number}"));
    [format!("otto-{mark}")].into_iter().chain(of_services).collect()
}

/// Removes what an attempt may have started whose start was given up.
pub(crate) async fn give_up(runtime: &Runtime, mark: &str, services: usize) {
    let names = names(mark, services);
    let names: Vec<&str> = names.iter().rev().map(String::as_str).collect();
    leftovers::remove_all(runtime, &names).await;
}

impl Place {
    /// Starts the containers.
    pub(crate) async fn start(runtime: &Arc<Runtime>, wanted: Wanted<'_>) -> Result<Self, PlaceError> {
        let folder = wanted.root.join("container");
        tokio::fs::create_dir(&folder).await.map_err(PlaceError::Disk)?;
        let names = names(wanted.mark, wanted.services.len());
        let images = wanted.services.iter().map(|service| service.image.as_text().unwrap_or_default());
        for image in [wanted.image].into_iter().chain(images) {
            fetch(runtime, image).await?;
        }
        let user = user(runtime);
        let (input, writer) = io::pipe().map_err(PlaceError::Disk)?;
        let mut client = runtime.command("run");
        client.args(arguments(runtime, &wanted, &names[0], &user, &folder));
        client.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let started = client.spawn().map_err(|source| ClientError::Start { program: runtime.program.display().to_string(), source });
        // With it goes the agent's own copy of the shell's input.
        drop(client);
        let mut main = started?;
        let shell = Shell(Arc::new(Mutex::new(writer)));
        shell.tell(&format!("echo {READY}\n"));
        let failed = |said: &[u8]| PlaceError::Start { image: wanted.image.to_owned(), said: last_of(said) };
        match timeout(START_DEADLINE, greeting(&mut main)).await {
            Ok(Ok(())) => {}
            Ok(Err(said)) => return Err(failed(&said)),
            Err(_) => return Err(failed(b"it takes too long")),
        }
        let place = Self {
            runtime: runtime.clone(),
            names,
            user,
            shell,
            main,
            passthrough: wanted.passthrough,
            folder,
            processes: AtomicU32::new(0),
        };
        for (service, name) in wanted.services.iter().zip(&place.names[1..]) {
            if let Err(error) = services::start(runtime, service, name, services::Network::Of(&place.names[0]), wanted.mark).await {
                place.end().await;
                return Err(error);
            }
        }
        Ok(place)
    }

    /// Starts a process in the steps' container.
    pub(crate) fn spawn(&self, launch: &Launch, outlets: Outlets) -> io::Result<Running> {
        let number = self.processes.fetch_add(1, Ordering::Relaxed);
        let mut client = self.runtime.command("exec");
        client.arg(format!("--user={}", self.user)).arg(format!("--workdir={}", launch.folder.display()));
        for (name, value) in launch.environment.iter().filter(|(name, value)| self.passthrough.get(*name) != Some(value)) {
            client.arg(format!("--env={name}={value}"));
        }
        client.arg(&self.names[0]).args([SHELL, "-c", LEADER, "otto"]).arg(self.folder.join(number.to_string()));
        client.arg(&launch.program).args(&launch.arguments);
        client.stdout(outlets.out).stderr(outlets.err).process_group(0);
        let child = client.spawn()?;
        drop(client);
        Ok(Running {
            child,
            number,
            shell: self.shell.clone(),
            runtime: self.runtime.clone(),
            container: self.names[0].clone(),
            kill_by: None,
        })
    }

    /// Ends every container of the attempt, and with them every process.
    pub(crate) async fn end(self) {
        let Self { runtime, names, shell, mut main, .. } = self;
        let names: Vec<&str> = names.iter().rev().map(String::as_str).collect();
        leftovers::remove_all(&runtime, &names).await;
        drop(shell);
        if timeout(START_DEADLINE, main.wait()).await.is_err() {
            warn!(container = names.last(), "the client of a container does not end");
        }
    }
}

/// Pulls an image that is not there.
pub(super) async fn fetch(runtime: &Runtime, image: &str) -> Result<(), PlaceError> {
    // It would be an option of the client.
    if image.is_empty() || image.starts_with('-') || image.contains(char::is_whitespace) {
        return Err(PlaceError::Image(image.to_owned()));
    }
    if runtime.ask("inspect", &["--type=image", "--format={{.Id}}", image], START_DEADLINE).await.is_ok() {
        return Ok(());
    }
    let pulled = runtime.ask("pull", &["--quiet", image], PULL_DEADLINE).await;
    pulled.map(|_| ()).map_err(|source| PlaceError::Pull { image: image.to_owned(), source })
}

/// Whoever may write the attempt's folder: for podman without root that is the container's root.
fn user(runtime: &Runtime) -> String {
    let is_podman = runtime.program.file_name().is_some_and(|name| name == "podman");
    if is_podman { "0:0".to_owned() } else { format!("{}:{}", geteuid(), getegid()) }
}

/// What the client is told for the steps' container.
fn arguments(runtime: &Runtime, wanted: &Wanted<'_>, name: &str, user: &str, folder: &Path) -> Vec<String> {
    let mut arguments =
        vec!["--rm".to_owned(), "--interactive".to_owned(), format!("--user={user}"), format!("--workdir={}", folder.display())];
    arguments.extend(common(runtime, name, wanted.mark));
    arguments.extend(wanted.services.iter().map(|service| format!("--add-host={}:127.0.0.1", service.name)));
    let bind = |path: &Path, mode: &str| format!("--mount=type=bind,source={0},target={0}{mode}", path.display());
    arguments.push(bind(wanted.root, ""));
    arguments.extend(wanted.writable.iter().map(|path| bind(path, "")));
    arguments.extend(wanted.shown.iter().map(|path| bind(path, ",readonly")));
    if let Some(Value::Integer(bytes)) = wanted.requires.get("memory") {
        arguments.push(format!("--memory={bytes}b"));
    }
    if let Some(Value::Integer(cores)) = wanted.requires.get("cores") {
        arguments.push(format!("--cpus={cores}"));
    }
    arguments.extend([format!("--entrypoint={SHELL}"), wanted.image.to_owned()]);
    arguments
}

/// What the client is told for every container of an attempt.
pub(super) fn common(runtime: &Runtime, name: &str, mark: &str) -> Vec<String> {
    let mut arguments = vec![
        format!("--name={name}"),
        format!("--label={}={}", leftovers::OWNER, leftovers::owner()),
        format!("--label={}={mark}", leftovers::LEASE),
        format!("--env={LEASE_MARK}={mark}"),
        "--pull=never".to_owned(),
        // Nobody in it is waited for: what a step had to put in order, it has.
        "--stop-signal=SIGKILL".to_owned(),
        "--security-opt=no-new-privileges".to_owned(),
        "--security-opt=label=disable".to_owned(),
        format!("--pids-limit={PROCESSES_MAX}"),
    ];
    arguments.extend(runtime.run.iter().cloned());
    arguments
}

/// Waits for the shell's first word. If it does not come, gives what the client says.
async fn greeting(main: &mut Child) -> Result<(), Vec<u8>> {
    let mut line = String::new();
    let out = main.stdout.take().expect("it is piped");
    let greeted = BufReader::new(out).read_line(&mut line).await;
    if greeted.is_ok() && line.trim() == READY {
        return Ok(());
    }
    let mut said = Vec::new();
    if let Some(err) = &mut main.stderr {
        let _what_came = err.read_to_end(&mut said).await;
    }
    Err(said)
}

/// A process in a container.
#[derive(Debug)]
pub(crate) struct Running {
    /// The client, which ends with the process, and as it does.
    child: Child,
    number: u32,
    shell: Shell,
    runtime: Arc<Runtime>,
    container: String,
    kill_by: Option<Instant>,
}

impl Running {
    /// The client.
    pub(crate) fn leader(&self) -> i32 {
        self.child.id().and_then(|id| i32::try_from(id).ok()).unwrap_or_default()
    }

    /// How it ended. Cancel safe.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        let Some(by) = self.kill_by else { return self.child.wait().await };
        tokio::select! {
            status = self.child.wait() => return status,
            () = sleep_until(by) => self.kill_by = None,
        }
        // The shell is not obeyed: all of it goes.
        if let Err(error) = self.runtime.ask("kill", &["--signal=KILL", &self.container], KILL_DEADLINE).await {
            warn!(container = self.container, error = chain(&error), "a container cannot be killed");
        }
        if let Ok(status) = timeout(KILL_DEADLINE, self.child.wait()).await {
            return status;
        }
        self.child.kill().await?;
        self.child.wait().await
    }

    /// To it and its group.
    pub(crate) fn signal(&mut self, signal: Signal) {
        if signal == Signal::SIGKILL {
            self.kill_by = Some(Instant::now() + KILL_DEADLINE);
        }
        self.tell(signal);
    }

    /// Ends what it has left behind in its group.
    pub(crate) fn clear(&mut self) {
        self.tell(Signal::SIGKILL);
        if let Some(client) = self.child.id().and_then(|id| i32::try_from(id).ok()) {
            let _gone = killpg(Pid::from_raw(client), Signal::SIGKILL);
        }
    }

    fn tell(&self, signal: Signal) {
        let mut command = String::new();
        let name = signal.as_str().trim_start_matches("SIG");
        writeln!(command, "read group < {} && kill -{name} -- \"-$group\"", self.number).expect("a text takes everything");
        self.shell.tell(&command);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_is_told_limits_mounts_and_hosts_and_the_image_last() {
        let runtime =
            Runtime { program: "podman".into(), global: vec![], run: vec!["--ulimit=nofile=9:9".to_owned()], name: String::new() };
        let requires = Requirements::from([("memory".to_owned(), Value::Integer(1 << 20)), ("cores".to_owned(), Value::Integer(2))]);
        let service = Service {
            name: "db".to_owned(),
            image: Value::from("pg"),
            environment: std::collections::BTreeMap::new(),
            port: None,
            ready: None,
        };
        let wanted = Wanted {
            image: "ruby:2.6",
            services: &[service],
            requires: &requires,
            mark: "m",
            root: Path::new("/data/work/1"),
            shown: vec!["/data/lib".into()],
            writable: vec![],
            passthrough: Variables::new(),
        };
        let told = arguments(&runtime, &wanted, "otto-m", "0:0", Path::new("/data/work/1/container"));
        for expected in [
            "--memory=1048576b",
            "--cpus=2",
            "--pids-limit=4096",
            "--ulimit=nofile=9:9",
            "--add-host=db:127.0.0.1",
            "--mount=type=bind,source=/data/work/1,target=/data/work/1",
            "--mount=type=bind,source=/data/lib,target=/data/lib,readonly",
        ] {
            assert!(told.iter().any(|argument| argument == expected), "{expected}: {told:?}");
        }
        assert_eq!(told.last().unwrap(), "ruby:2.6");
    }

    #[tokio::test]
    async fn no_image_is_an_option_of_the_client() {
        let runtime = Runtime { program: "/nowhere".into(), global: vec![], run: vec![], name: String::new() };
        for image in ["", "--privileged", "a b"] {
            assert!(matches!(fetch(&runtime, image).await, Err(PlaceError::Image(_))), "{image}");
        }
    }
}
