//! All processes of a Procfile: started at once, awaited until each is ready, ended in the reverse order.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    env::{join_paths, split_paths},
    ffi::OsString,
    future::pending,
    io,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    time::Duration,
};

use config::ConfigFile;
use eventbus::nats::is_websocket;
use futures_util::future::join_all;
use model::protocol::enrolment::AgentTrust;
use service::{OnError, Supervisor, env, settings::Settings, tool::ToolError};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    keeper::{Keeper, State},
    output::{Screen, Voice},
    procfile::{Entry, Procfile},
    registry::Registry,
};
use crate::provision::{BusServers, Options, PortChoice, Provision, ProvisionError, agent_name};

/// How long all processes have to become ready. They take a second, and tens of them where a machine is busy with much else.
const READY_DEADLINE: Duration = Duration::from_secs(100);
/// After this time, whoever waits is told for what.
const READY_PATIENCE: Duration = Duration::from_secs(15);
/// The process that runs once for each agent.
const AGENT: &str = "agent";
/// The process of nats-server.
const NATS: &str = "nats";

/// What is started, and where.
#[derive(Debug, Clone)]
pub struct FleetOptions {
    /// The folder that is provisioned.
    pub data: PathBuf,
    /// The processes.
    pub procfile: Procfile,
    /// How often the process `agent` runs.
    pub agents: NonZeroUsize,
    /// Whose code these agents run.
    pub trust: AgentTrust,
    /// Which ports are used.
    pub ports: PortChoice,
    /// The program that `otto` stands for in the Procfile.
    pub otto: PathBuf,
    /// Where missing programs are installed.
    pub home: PathBuf,
    /// The servers of the bus, where they run elsewhere: no process `nats` is started then.
    pub bus: Option<BusServers>,
    /// The file of settings.
    pub config: Option<ConfigFile>,
    /// Whether the processes' lines are shown on standard error; they are in `logs/` either way.
    pub shown: bool,
}

/// Running processes. When this is dropped without [`Fleet::stop`], they notice it and end by themselves.
#[derive(Debug)]
pub struct Fleet {
    provision: Provision,
    supervisor: Supervisor,
    registry: Registry,
    members: Vec<Member>,
    screen: Option<Screen>,
}

#[derive(Debug)]
struct Member {
    name: String,
    voice: Voice,
    state: watch::Receiver<State>,
    stop: CancellationToken,
}

/// Why the processes do not run.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// The folder.
    #[error(transparent)]
    Provision(#[from] ProvisionError),
    /// nats-server.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// A file in the folder, or the thread that shows lines.
    #[error("cannot {doing}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// Some did not become ready.
    #[error("not ready within {} s: {}{report}", READY_DEADLINE.as_secs(), .names.join(", "))]
    NotReady {
        /// Which.
        names: Vec<String>,
        /// Their last lines.
        report: String,
    },
    /// One says that its settings are wrong.
    #[error("{name} refuses its settings:{tail}")]
    Misconfigured {
        /// Which.
        name: String,
        /// Its last lines.
        tail: String,
    },
}

impl Fleet {
    /// Provisions the folder and starts the processes. `say` is told what takes time, one line each. Cancel safe: as long as this has not
    /// returned, no process was started.
    pub async fn launch(options: FleetOptions, say: &(dyn Fn(&str) + Send + Sync)) -> Result<Self, FleetError> {
        let FleetOptions { data, procfile, agents, trust, ports, otto, home, bus, config, shown } = options;
        let nats_server = eventbus::nats::server::find_or_install(&home, say).await?;
        let websocket = is_reached_by_websocket(config.as_ref());
        let provision = Provision::open(Options { data, ports, agents, trust, nats_server, bus: bus.clone(), websocket }).await?;
        let io = |doing| move |source| FleetError::Io { doing, source };
        let registry = Registry::create(provision.data()).map_err(io("write processes.json"))?;
        let screen = if shown { Some(Screen::start().map_err(io("start a thread"))?) } else { None };
        let path = path_with(&otto).map_err(io("put the folder of otto on PATH"))?;
        let supervisor = Supervisor::new();
        let mut entries = instances(procfile, agents);
        entries.retain(|(name, _)| bus.is_none() || name != NATS);
        let width = entries.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
        let mut members = Vec::with_capacity(entries.len());
        for (index, (name, entry)) in entries.into_iter().enumerate() {
            let voice = Voice::new(&name, index, width, &provision.logs(), screen.as_ref()).map_err(io("open a log file"))?;
            let (state, watched) = watch::channel(State::Starting);
            let stop = supervisor.token().child_token();
            members.push(Member { name: name.clone(), voice: voice.clone(), state: watched, stop: stop.clone() });
            provision.make_folder_of(&name)?;
            let environment = beside(provision.environment(&name), role_of(&name), config.as_ref());
            let (otto, path, registry) = (otto.clone(), path.clone(), registry.clone());
            let keeper = Keeper { name, entry, otto, environment, path, voice, registry, state, stop };
            supervisor.spawn(format!("keeper of {}", keeper.name), OnError::Shutdown, async move {
                keeper.keep().await;
                Ok(())
            });
        }
        Ok(Self { provision, supervisor, registry, members, screen })
    }

    /// What the processes were given.
    pub fn provision(&self) -> &Provision {
        &self.provision
    }

    /// Waits until all are ready, at most [`READY_DEADLINE`]; `say` is told which take long. On an error the processes still run:
    /// [`Fleet::stop`] ends them.
    pub async fn ready(&self, say: &(dyn Fn(&str) + Send + Sync)) -> Result<(), FleetError> {
        let begun = Instant::now();
        let deadline = begun + READY_DEADLINE;
        let wrong = CancellationToken::new();
        let waits = self.members.iter().map(|member| {
            let (mut state, wrong) = (member.state.clone(), wrong.clone());
            async move {
                let reached = state.wait_for(|state| matches!(state, State::Ready | State::Misconfigured));
                tokio::select! {
                    reached = timeout_at(deadline, reached) => {
                        if reached.is_ok_and(|state| state.is_ok_and(|state| *state == State::Misconfigured)) {
                            wrong.cancel();
                        }
                    }
                    () = wrong.cancelled() => {}
                }
            }
        });
        let patience = async {
            sleep_until(begun + READY_PATIENCE).await;
            let (names, report) = self.late();
            say(&format!("not ready after {} s, and waited for: {}{report}", READY_PATIENCE.as_secs(), names.join(", ")));
            pending::<Infallible>().await
        };
        tokio::select! {
            _ = join_all(waits) => {}
            never = patience => match never {},
        }
        let state = |member: &&Member| member.state.borrow().clone();
        if let Some(member) = self.members.iter().find(|member| state(member) == State::Misconfigured) {
            return Err(FleetError::Misconfigured { name: member.name.clone(), tail: member.voice.tail() });
        }
        match self.late() {
            (names, _) if names.is_empty() => Ok(()),
            (names, report) => Err(FleetError::NotReady { names, report }),
        }
    }

    /// Those that are not ready, and what they said last.
    fn late(&self) -> (Vec<String>, String) {
        let late = self.members.iter().filter(|member| *member.state.borrow() != State::Ready);
        late.map(|member| (member.name.clone(), format!("\n  {} said last:{}", member.name, member.voice.tail()))).unzip()
    }

    /// Waits until something failed that cannot be mended by starting a process again. Cancel safe.
    pub async fn failed(&self) {
        self.supervisor.token().cancelled().await;
    }

    /// Ends all processes, the last of the Procfile first, and gives back the folder.
    pub async fn stop(self) {
        let Self { provision, supervisor, registry, members, screen } = self;
        for member in members.into_iter().rev() {
            let Member { mut state, stop, .. } = member;
            stop.cancel();
            // A keeper that panicked takes its sender with it; its process was killed with it, too.
            let _ended = state.wait_for(|state| *state == State::Ended).await.is_ok();
        }
        supervisor.shut_down().await;
        let _was_not_written = registry.remove();
        drop(provision);
        if let Some(screen) = screen {
            screen.finish();
        }
    }
}

/// The processes with their names: `agent` becomes as many as are wanted.
fn instances(procfile: Procfile, agents: NonZeroUsize) -> Vec<(String, Entry)> {
    let mut instances = Vec::new();
    for entry in procfile.entries {
        if entry.name == AGENT {
            instances.extend((1..=agents.get()).map(|number| (agent_name(number).to_string(), entry.clone())));
        } else {
            instances.push((entry.name.clone(), entry));
        }
    }
    instances
}

/// The section of the file that a process has.
fn role_of(name: &str) -> &str {
    let role = name.rsplit_once('-').map_or(name, |(role, _number)| role);
    if env::EVERY.contains(&role) { role } else { env::AGENT }
}

/// Whether agents elsewhere are told to come to the bus by WebSocket.
fn is_reached_by_websocket(file: Option<&ConfigFile>) -> bool {
    let said = file.map(|file| file.of(env::EVENTBUS)).unwrap_or_default();
    let settings = Settings::from_environment().below(said, []);
    settings.text(env::BUS_PUBLIC_URLS).is_some_and(|urls| is_websocket(urls.trim_start()))
}

/// What a process is given, where the file and the environment have their say: what only they may say, or may say better, is left to them.
fn beside(mut given: BTreeMap<&'static str, String>, role: &str, file: Option<&ConfigFile>) -> BTreeMap<&'static str, String> {
    let said = file.map(|file| file.of(role)).unwrap_or_default();
    let settings = Settings::from_environment().below(said, []);
    given.retain(|variable, _| !env::is_passed_on(variable) || settings.given(variable).is_none());
    if let Some(path) = file.and_then(|file| file.path().to_str()) {
        given.insert(env::CONFIG, path.to_owned());
    }
    given
}

fn path_with(otto: &Path) -> io::Result<OsString> {
    let folders = otto.parent().map(Path::to_owned).into_iter();
    let path = std::env::var_os("PATH").unwrap_or_default();
    join_paths(folders.chain(split_paths(&path))).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_runs_as_often_as_is_wanted() {
        let procfile = "a: x\nagent: otto serve agent\nb: y".parse().unwrap();
        let names: Vec<String> = instances(procfile, NonZeroUsize::new(2).unwrap()).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["a", "agent-1", "agent-2", "b"]);
    }
    #[test]
    fn a_file_says_what_is_not_wired() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("otto.yml");
        std::fs::write(&path, "public_url: https://otto.test\nforge: { listen: '0.0.0.0:1' }\n").unwrap();
        let file = ConfigFile::read(&path);
        let given = || BTreeMap::from([(env::PUBLIC_URL, "http://127.0.0.1:1".to_owned()), (env::LISTEN, "127.0.0.1:2".to_owned())]);
        let environment = beside(given(), role_of("forge"), Some(&file));
        let wired = (env::LISTEN, "127.0.0.1:2".to_owned());
        assert_eq!(environment, BTreeMap::from([wired, (env::CONFIG, path.to_str().unwrap().to_owned())]));
        assert_eq!(beside(given(), role_of("forge"), None), given());
        assert_eq!((role_of("agent-3"), role_of("depot")), (env::AGENT, env::DEPOT));
        assert_eq!(role_of("forge-2"), env::FORGE);
    }
}
