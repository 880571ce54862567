//! The init of one attempt: a small process above all that the attempt starts. It starts it, says how it ended, and ends what it leaves.
//!
//! It has one thread, and lives as long as its socket: when the agent is gone, however that came, so is everything below it. With
//! namespaces it is their first process, and the kernel itself ends the others with it.

use std::{
    collections::BTreeMap,
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::{net::UnixStream, process::CommandExt as _},
    },
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        prctl,
        resource::{Resource, setrlimit},
        signal::{SigSet, Signal, killpg},
        signalfd::{SfdFlags, SignalFd},
        stat::{Mode, umask},
    },
    unistd::{Pid, Uid, setpgid},
};

use super::{
    BUSY_PAUSE, BUSY_TRIES_MAX, Launch, direct,
    isolation::Level,
    kin::{self, Kin},
    names, overlay, sys,
    view::{Made, SHARED_MEMORY},
    wire::{self, Beginning, Birth, Order, Word},
};
use crate::clock;

/// What it keeps.
struct Init {
    socket: UnixStream,
    kin: Kin,
    /// The processes that it was told to start and that run.
    running: BTreeMap<Pid, u32>,
    /// Whose those are, if not its own user's.
    user: Option<u32>,
    /// Why nothing can be started.
    broken: Option<String>,
    /// When everything ends, if nothing else is said.
    lives_until: Option<u64>,
}

/// Between two looks at the clock of an init that has a time: the machine may have slept meanwhile.
const LOOK_MS: u16 = 250;

/// Is the init until the agent closes the socket. What was born in namespaces is in them already.
pub(super) fn serve(socket: UnixStream, birth: &Birth) -> io::Result<()> {
    // The leader of a group of its own, by which a later life of the agent finds it.
    setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
    let mask = SigSet::from(Signal::SIGCHLD);
    mask.thread_block()?;
    let children = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let kin = if birth.level == Level::Namespaces { Kin::All } else { Kin::Descendants };
    prctl::set_child_subreaper(true)?;
    let mut ready = Some(prepare(birth));
    let mut init = Init { socket, kin, running: BTreeMap::new(), user: birth.user, broken: None, lives_until: None };
    loop {
        let timeout = if init.lives_until.is_some() { PollTimeout::from(LOOK_MS) } else { PollTimeout::NONE };
        let [said, ended] = wait(&init.socket, &children, timeout)?;
        if !said && init.lives_until.is_some_and(|until| clock::now_ms() >= until) {
            return init.kin.end(|_, _| {});
        }
        if ended {
            while children.read_signal()?.is_some() {}
            init.note_ends()?;
        }
        if said {
            match wire::receive(&init.socket) {
                Ok(Some((order, descriptors))) => init.obey(order, descriptors, &mut ready, birth)?,
                // The agent is gone, or speaks in a way that nobody understands.
                Ok(None) | Err(_) => return init.kin.end(|_, _| {}),
            }
        }
    }
}

fn wait(socket: &UnixStream, children: &SignalFd, timeout: PollTimeout) -> io::Result<[bool; 2]> {
    let mut waiting = [PollFd::new(socket.as_fd(), PollFlags::POLLIN), PollFd::new(children.as_fd(), PollFlags::POLLIN)];
    match poll(&mut waiting, timeout) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(waiting.map(|descriptor| descriptor.any().unwrap_or(false))),
        Err(error) => Err(error.into()),
    }
}

/// What is made before it is known for whom.
#[derive(Default)]
struct Ready {
    view: Option<Made>,
    /// The namespace in which the agent's files are the attempt's user's.
    users: Option<OwnedFd>,
}

fn prepare(birth: &Birth) -> io::Result<Ready> {
    let step = |what: &'static str| move |error: io::Error| io::Error::new(error.kind(), format!("{what}: {error}"));
    let is_another = birth.user.is_some();
    let view = match birth.level {
        Level::Group | Level::Landlock if !is_another => return Ok(Ready::default()),
        Level::Group | Level::Landlock => overlay::leave_mounts().map(|()| None)?,
        Level::Namespaces => {
            // Other users than this one go through the places that it makes.
            let before = umask(Mode::S_IWGRP | Mode::S_IWOTH);
            let made = birth.view.make(Uid::current().is_root() && !is_another);
            umask(before);
            Some(made?)
        }
    };
    // Only now does `/proc` have the names that processes have here.
    let users = birth.user.map(|user| sys::map_user(Uid::current().as_raw(), user)).transpose();
    let users = users.map_err(step("no files can be another user's"))?;
    if let Some(users) = &users {
        for path in birth.view.writable.iter().filter(|path| path.is_dir()) {
            sys::mount_mapped(path, path, users).map_err(step("a folder cannot be another user's"))?;
        }
    }
    if let Some(user) = birth.user {
        // In a view, the shared memory is the attempt's own, and costs no file on a disk.
        let folder = if view.is_some() { Path::new(SHARED_MEMORY) } else { &birth.view.workspace };
        names::give(user, folder, &birth.view.home).map_err(step("a user cannot be given a name"))?;
    }
    Ok(Ready { view, users })
}

/// What can only be done once it is known, and after which nothing can be changed. Gives the work directory, where it was mounted.
fn begin(ready: io::Result<Ready>, beginning: &Beginning, birth: &Birth) -> io::Result<Option<OwnedFd>> {
    let (level, ready) = (birth.level, ready?);
    if beginning.hosts.is_some() && ready.view.is_none() {
        return Err(io::Error::other("names of its own need namespaces"));
    }
    let mounted = match (ready.view, &beginning.overlay) {
        (Some(made), overlay) => {
            let before = umask(Mode::S_IWGRP | Mode::S_IWOTH);
            let mounted = made.finish(overlay.as_ref(), ready.users.as_ref(), beginning);
            umask(before);
            mounted?
        }
        (None, None) => None,
        (None, Some(overlay)) => {
            if ready.users.is_none() {
                overlay::leave_mounts()?;
            }
            Some(overlay.mount_plainly(ready.users.as_ref())?)
        }
    };
    if let Some(users) = &ready.users {
        for folder in &beginning.kept {
            sys::mount_mapped(folder, folder, users)?;
        }
    }
    if let Some(bytes) = beginning.data_bytes_max {
        setrlimit(Resource::RLIMIT_DATA, bytes, bytes)?;
    }
    if let Some(processes) = beginning.processes_max {
        setrlimit(Resource::RLIMIT_NPROC, processes, processes)?;
    }
    if level > Level::Group {
        prctl::set_no_new_privs()?;
        // With them, the superuser would look into every process, whatever landlock says. Who starts processes of another user needs its
        // rights for that; they do not have them.
        if birth.user.is_none() {
            sys::drop_capabilities()?;
        }
        // Nobody of the stage, who is the same user, may look into this process or change it.
        prctl::set_dumpable(false)?;
    }
    beginning.rules.as_ref().map_or(Ok(()), super::landlock::Rules::enforce)?;
    Ok(mounted)
}

fn spawn(command: &mut Command) -> io::Result<Child> {
    for _ in 1..BUSY_TRIES_MAX {
        match command.spawn() {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => sleep(BUSY_PAUSE),
            result => return result,
        }
    }
    command.spawn()
}

impl Init {
    fn obey(&mut self, order: Order, descriptors: Vec<OwnedFd>, ready: &mut Option<io::Result<Ready>>, birth: &Birth) -> io::Result<()> {
        match order {
            Order::Begin(beginning) => {
                let Some(ready) = ready.take() else { return Ok(()) };
                match begin(ready, &beginning, birth) {
                    Ok(None) => Ok(()),
                    Ok(Some(mounted)) => wire::send(&self.socket, &Word::Mounted, &[mounted.as_fd()]),
                    Err(error) => {
                        let reason = format!("the stage cannot be isolated: {error}");
                        self.broken = Some(reason.clone());
                        self.say(&Word::Failed { reason })
                    }
                }
            }
            Order::Start { number, launch } => {
                let word = match self.start(number, &launch, descriptors) {
                    Ok(()) => Word::Started { number },
                    Err(error) => Word::NotStarted { number, code: error.raw_os_error(), reason: error.to_string() },
                };
                self.say(&word)?;
                // It may have ended while this process did not listen for that.
                self.note_ends()
            }
            Order::Signal { number, signal } => {
                if let (Some(leader), Ok(signal)) = (self.leader(number), Signal::try_from(signal)) {
                    // It may have ended just now.
                    let _gone = killpg(leader, signal);
                }
                Ok(())
            }
            Order::Yield { number } => {
                if let Some(leader) = self.leader(number) {
                    direct::yield_to_others(leader);
                }
                Ok(())
            }
            Order::LiveUntil { ms } => {
                self.lives_until = Some(ms);
                Ok(())
            }
            Order::Kill => self.clear(),
            Order::Clear => {
                self.clear()?;
                self.say(&Word::Cleared)
            }
        }
    }

    /// The process of this number, while it runs.
    fn leader(&self, number: u32) -> Option<Pid> {
        self.running.iter().find(|(_, running)| **running == number).map(|(pid, _)| *pid)
    }

    fn start(&mut self, number: u32, launch: &Launch, descriptors: Vec<OwnedFd>) -> io::Result<()> {
        if let Some(reason) = &self.broken {
            return Err(io::Error::other(reason.clone()));
        }
        let Ok([out, err]) = <[OwnedFd; 2]>::try_from(descriptors) else { return Err(io::Error::other("its output has no place to go")) };
        let mut command = Command::new(&launch.program);
        command.args(&launch.arguments).env_clear().envs(&launch.environment).current_dir(&launch.folder);
        command.stdin(Stdio::null()).stdout(out).stderr(err).process_group(0);
        if let Some(user) = self.user {
            // And no further groups.
            command.uid(user).gid(user);
        }
        // A process inherits what its parent does not listen to.
        let mask = SigSet::from(Signal::SIGCHLD);
        mask.thread_unblock()?;
        let child = spawn(&mut command);
        mask.thread_block()?;
        self.running.insert(Pid::from_raw(i32::try_from(child?.id()).map_err(io::Error::other)?), number);
        Ok(())
    }

    /// Says of each process that has ended how. What it leaves is ended first: that of its group, or everything if no other runs.
    fn note_ends(&mut self) -> io::Result<()> {
        let mut ended = Vec::new();
        let more = kin::reap(&mut |pid, status| ended.push((pid, status)))?;
        let known: Vec<_> = ended.into_iter().filter_map(|(pid, status)| Some((pid, self.running.remove(&pid)?, status))).collect();
        if known.is_empty() {
            return Ok(());
        }
        if more && self.running.is_empty() {
            self.kin.end(|_, _| {})?;
        } else if more {
            for (pid, ..) in &known {
                let _nobody_left = killpg(*pid, Signal::SIGKILL);
            }
        }
        known.into_iter().try_for_each(|(_, number, status)| self.say(&Word::Ended { number, status }))
    }

    fn clear(&mut self) -> io::Result<()> {
        let mut ended = Vec::new();
        self.kin.end(|pid, status| ended.push((pid, status)))?;
        for (pid, status) in ended {
            if let Some(number) = self.running.remove(&pid) {
                self.say(&Word::Ended { number, status })?;
            }
        }
        Ok(())
    }

    fn say(&self, word: &Word) -> io::Result<()> {
        wire::send(&self.socket, word, &[])
    }
}
