//! Processes as the agent's own children: what every system has, and no more than the process group holds them together.

use std::{
    io,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use rustix::process::{getpriority_process, setpriority_pgrp};
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep},
};
use tracing::warn;

use super::{BUSY_PAUSE, BUSY_TRIES_MAX, Launch, Outlets};

/// How long is waited for the killed processes of a group to be gone. A process that nobody waits for stays a zombie in a container
/// without an init; it holds nothing any more.
const GONE_WAIT: Duration = Duration::from_millis(200);
/// Between two looks whether they are gone.
const GONE_PAUSE: Duration = Duration::from_millis(1);
/// How far what has run for a while comes after what begins (`man 7 sched`): where both want the processor, it has about a tenth.
const YIELDING_NICE: i32 = 10;
/// The last place there is.
const NICE_MAX: i32 = 19;

/// A child, and the group that it leads.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    group: Pid,
}

/// Starts a child.
pub(super) async fn spawn(launch: &Launch, outlets: Outlets) -> io::Result<Running> {
    let mut command = Command::new(&launch.program);
    command.args(&launch.arguments).env_clear().envs(&launch.environment).current_dir(&launch.folder);
    command.stdin(Stdio::null()).stdout(outlets.out).stderr(outlets.err).process_group(0).kill_on_drop(true);
    let mut tries = 1;
    // When this returns, the agent's own copies of the outlets are gone with the command.
    let child = loop {
        match command.spawn() {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && tries < BUSY_TRIES_MAX => {
                tries += 1;
                sleep(BUSY_PAUSE).await;
            }
            result => break result?,
        }
    };
    let id = child.id().expect("it was not waited for yet");
    let group = Pid::from_raw(i32::try_from(id).expect("process ids fit into pid_t"));
    Ok(Running { child, group })
}

/// Lets a group, with all that it starts from now on, come after what begins.
pub(super) fn yield_to_others(leader: Pid) {
    let nice = getpriority_process(None).map_or(YIELDING_NICE, |own| (own + YIELDING_NICE).min(NICE_MAX));
    // It may have ended just now; and what may not be changed goes on as it is.
    let _gone = rustix::process::Pid::from_raw(leader.as_raw()).map(|group| setpriority_pgrp(Some(group), nice));
}

impl Running {
    pub(super) fn group(&self) -> Pid {
        self.group
    }

    pub(super) async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    pub(super) fn signal(&self, signal: Signal) {
        match killpg(self.group, signal) {
            // ESRCH: nobody is left; EPERM: on some systems the answer for a group of zombies.
            Ok(()) | Err(Errno::ESRCH | Errno::EPERM) => {}
            Err(error) => warn!(group = %self.group, %signal, %error, "a process group cannot be ended"),
        }
    }

    /// Ends what is left of the group whose leader has ended. The leader's id cannot be given to another process while the group has
    /// members, and where it has none, ids would have to wrap around in the instant since the leader was waited for.
    pub(super) async fn clear(&mut self) {
        if killpg(self.group, Signal::SIGKILL).is_err() {
            return;
        }
        let deadline = Instant::now() + GONE_WAIT;
        while killpg(self.group, None).is_ok() && Instant::now() < deadline {
            sleep(GONE_PAUSE).await;
        }
    }
}
