//! Keeps one process of the Procfile running until it is told to end it.
//!
//! Each process leads a process group of its own, so that Ctrl-C at the terminal reaches only `otto up`, which ends all in order; and it
//! holds the reading end of a pipe as its standard input, which closes when `otto up` is gone, however it went.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use service::{env, settings::EXIT_SETTINGS};
use tokio::{
    process::{Child, ChildStderr, ChildStdout, Command},
    sync::watch,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{backoff::Backoff, lines::Lines, output::Voice, procfile::Entry, registry::Registry};
use crate::serve::READY;

/// How long a process has to end after SIGTERM: its supervisor's grace, and some.
pub(super) const END_GRACE: Duration = Duration::from_secs(8);
/// How long the rest of a dead process's output is read. What it started elsewhere may hold the pipe open for ever.
const DRAIN_DEADLINE: Duration = Duration::from_millis(500);
/// How a process is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// Not ready yet, or crashed and to be started again.
    Starting,
    /// At work.
    Ready,
    /// Its settings are wrong: starting it again would not help.
    Misconfigured,
    /// Ended, because it was told to.
    Ended,
}

/// What one process needs.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) name: String,
    pub(super) entry: Entry,
    /// The program that `otto` stands for.
    pub(super) otto: PathBuf,
    pub(super) environment: BTreeMap<&'static str, String>,
    /// PATH with the folder of `otto` in front.
    pub(super) path: OsString,
    pub(super) voice: Voice,
    pub(super) registry: Registry,
    pub(super) state: watch::Sender<State>,
    /// Cancelled when the process is to end.
    pub(super) stop: CancellationToken,
}

/// How a process came to its end.
enum End {
    Stopped,
    Crashed(String),
    Misconfigured,
}

struct Running {
    child: Child,
    group: Option<Pid>,
    stdout: Lines<ChildStdout>,
    stderr: Lines<ChildStderr>,
}

impl Keeper {
    /// Keeps the process running until [`Keeper::stop`] is cancelled; then ends it.
    pub(super) async fn keep(self) {
        let mut backoff = Backoff::default();
        loop {
            let started = Instant::now();
            let pause = match self.run().await {
                End::Stopped => break,
                End::Misconfigured => {
                    self.voice.line("[otto up] its settings are wrong, so it is not started again");
                    self.state.send_replace(State::Misconfigured);
                    self.stop.cancelled().await;
                    break;
                }
                End::Crashed(how) => {
                    let pause = backoff.pause_after(started.elapsed());
                    self.voice.line(&format!("[otto up] {how}; it starts again in {} ms", pause.as_millis()));
                    pause
                }
            };
            self.state.send_replace(State::Starting);
            if timeout(pause, self.stop.cancelled()).await.is_ok() {
                break;
            }
        }
        self.state.send_replace(State::Ended);
    }

    async fn run(&self) -> End {
        let mut running = match self.spawn() {
            Ok(running) => running,
            Err(error) => return End::Crashed(format!("`{}` does not start: {error}", self.entry.command)),
        };
        self.note(running.child.id());
        if !self.entry.is_role() {
            self.state.send_replace(State::Ready);
        }
        let status = self.watch(&mut running).await;
        // What it left behind in its group would hold ports and folders that the next one needs.
        if let Some(group) = running.group {
            let _already_empty = killpg(group, Signal::SIGKILL);
        }
        let _given_up = timeout(DRAIN_DEADLINE, self.drain(&mut running)).await;
        self.note(None);
        match status {
            _ if self.stop.is_cancelled() => End::Stopped,
            Ok(status) if self.entry.is_role() && status.code() == Some(EXIT_SETTINGS.into()) => End::Misconfigured,
            Ok(status) => End::Crashed(format!("it ended: {status}")),
            Err(error) => End::Crashed(format!("it is lost: {error}")),
        }
    }

    fn spawn(&self) -> io::Result<Running> {
        let mut command = self.entry.to_command(&self.otto);
        self.prepare(&mut command);
        let mut child = command.spawn()?;
        let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        let stdout = Lines::new(child.stdout.take().expect("it is piped"));
        let stderr = Lines::new(child.stderr.take().expect("it is piped"));
        Ok(Running { child, group, stdout, stderr })
    }

    fn prepare(&self, command: &mut Command) {
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with(env::PREFIX) && !env::is_passed_on(name)) {
                command.env_remove(name);
            }
        }
        command.env("PATH", &self.path).env(env::PARENT_PIPE, "stdin").envs(&self.environment);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
    }

    /// Hears the process until it has ended, and ends it when it is to.
    async fn watch(&self, running: &mut Running) -> io::Result<ExitStatus> {
        let (mut stdout_open, mut stderr_open) = (true, true);
        let mut kill_at = None;
        // `Child::wait` closes the pipe that it holds: it is kept apart, or the process would think that `otto up` is gone.
        let _pipe = running.child.stdin.take();
        loop {
            tokio::select! {
                () = self.stop.cancelled(), if kill_at.is_none() => {
                    if let Some(group) = running.group {
                        let _already_gone = kill(group, Signal::SIGTERM);
                    }
                    kill_at = Some(Instant::now() + END_GRACE);
                }
                () = sleep_until(kill_at.unwrap_or_else(Instant::now)), if kill_at.is_some() => {
                    self.voice.line(&format!("[otto up] it did not end within {} s and is killed", END_GRACE.as_secs()));
                    running.child.start_kill()?;
                    return running.child.wait().await;
                }
                line = running.stdout.next(), if stdout_open => match line {
                    Some(line) => self.hear(&line),
                    None => stdout_open = false,
                },
                line = running.stderr.next(), if stderr_open => match line {
                    Some(line) => self.voice.line(&line),
                    None => stderr_open = false,
                },
                status = running.child.wait() => return status,
            }
        }
    }

    async fn drain(&self, running: &mut Running) {
        while let Some(line) = running.stdout.next().await {
            self.voice.line(&line);
        }
        while let Some(line) = running.stderr.next().await {
            self.voice.line(&line);
        }
    }

    fn hear(&self, line: &str) {
        if self.entry.is_role() && line.starts_with(READY) {
            self.state.send_replace(State::Ready);
            if self.environment.get(env::LISTEN).is_some_and(|listen| listen.ends_with(":0")) {
                // Nothing else says where it listens.
                self.voice.line(line);
            }
        } else {
            self.voice.line(line);
        }
    }

    fn note(&self, pid: Option<u32>) {
        if let Err(error) = self.registry.set(&self.name, pid) {
            self.voice.line(&format!("[otto up] processes.json cannot be written: {error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use testkit::wait_for;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);

    fn keeper(folder: &Path, command: &str) -> (Keeper, watch::Receiver<State>) {
        let (state, watched) = watch::channel(State::Starting);
        let keeper = Keeper {
            name: "web".to_owned(),
            entry: Entry { name: "web".to_owned(), command: command.to_owned() },
            otto: "/nowhere/otto".into(),
            environment: BTreeMap::from([(env::DATA, folder.to_str().unwrap().to_owned())]),
            path: std::env::var_os("PATH").unwrap(),
            voice: Voice::new("web", 0, 3, folder, None).unwrap(),
            registry: Registry::create(folder).unwrap(),
            state,
            stop: CancellationToken::new(),
        };
        (keeper, watched)
    }

    #[tokio::test]
    async fn a_crashed_process_starts_again_and_what_it_left_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        // Each life leaves a process behind, and notes its id.
        let command = "sleep 600 & echo $! >> \"$OTTO_DATA/left\"; exit 7";
        let (keeper, mut state) = keeper(folder.path(), command);
        let (stop, voice) = (keeper.stop.clone(), keeper.voice.clone());
        let left = || fs::read_to_string(folder.path().join("left")).unwrap_or_default();
        let three = wait_for(DEADLINE, "three lives", async || (left().lines().count() >= 3).then_some(()));
        let kept = keeper.keep();
        tokio::pin!(kept);
        tokio::select! {
            () = &mut kept => panic!("it ended by itself"),
            () = three => stop.cancel(),
        }
        kept.await;
        assert_eq!(*state.borrow_and_update(), State::Ended);
        for pid in left().lines() {
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            assert!(command.is_empty(), "{pid} is alive: {}", String::from_utf8_lossy(&command));
        }
        assert!(voice.tail().contains("exit status: 7; it starts again in 200 ms"), "{}", voice.tail());
        let pids = fs::read_to_string(folder.path().join("processes.json")).unwrap();
        assert!(!pids.contains("web") && pids.contains("up"), "{pids}");
    }

    #[tokio::test]
    async fn a_process_ends_when_it_is_told_to_and_its_last_words_are_heard() {
        let folder = tempfile::tempdir().unwrap();
        let (keeper, _state) = keeper(folder.path(), "trap 'echo bye; exit 0' TERM; echo hello; while :; do sleep 0.05; done");
        let (stop, voice) = (keeper.stop.clone(), keeper.voice.clone());
        let kept = keeper.keep();
        tokio::pin!(kept);
        tokio::select! {
            () = &mut kept => panic!("it ended by itself"),
            () = wait_for(DEADLINE, "its first word", async || voice.tail().contains("hello").then_some(())) => stop.cancel(),
        }
        kept.await;
        assert!(voice.tail().ends_with("bye"), "{}", voice.tail());
    }
}
