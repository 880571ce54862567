//! The nursery: the process that every init of an agent's attempts is forked from, so that a stage pays for a fork and not for a program's
//! start. It is the hidden command [`STAGE_INIT`] of `otto`.
//!
//! ```text
//! agent ──▶ nursery ──fork, into namespaces──▶ init of an attempt ──▶ its processes
//!    └───────────── a socket of its own ──────────┘
//! ```
//!
//! It adopts what loses its parent. A child that it has not made is therefore what an init left that was killed, and is killed, too.
//!
//! When the agent is gone, inits have [`INIT_GRACE`] to end what they hold: a step that runs as the same user can have made one stand still.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::CloneFlags,
    sys::{
        prctl,
        signal::{SigSet, Signal, kill},
        signalfd::{SfdFlags, SignalFd},
    },
    unistd::{Gid, Pid, Uid, dup2_stdin, dup2_stdout, setpgid},
};

use super::{
    init,
    isolation::Level,
    kin::{self, Kin},
    sys::{close_inherited, fork_alone, fork_into, leave_terminal},
    wire::{self, Birth, Born},
};

/// How long inits may take to end when the agent is gone: they kill, and wait for the killed to go.
const INIT_GRACE: Duration = Duration::from_secs(5);

/// The hidden command of `otto` that is the nursery.
pub const STAGE_INIT: &str = "stage-init";

/// Is the nursery until the agent closes the socket, which is the standard input. To be called before the process has a second thread.
pub fn stage_init() -> ExitCode {
    match io::stdin().as_fd().try_clone_to_owned() {
        Ok(socket) => live(&socket.into()),
        Err(_) => ExitCode::FAILURE,
    }
}

/// Is the nursery until the agent closes the socket, in a process of one thread.
pub(super) fn live(socket: &UnixStream) -> ExitCode {
    let served = match serve(socket) {
        Ok(After::Done) => Ok(()),
        Ok(After::Forked(child)) => child.live(),
        Err(error) => Err(error),
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // It has no log; its standard error is the agent's.
            let _nobody_reads = writeln!(io::stderr(), "otto {STAGE_INIT}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The inits that are alive, and the folders of their control groups.
type Inits = BTreeMap<Pid, Vec<PathBuf>>;

/// What a process of the nursery does next.
enum After {
    /// The agent is gone, and so is all that was started for it.
    Done,
    /// This is not the nursery any more, but its child.
    Forked(Child),
}

/// A process on its way to be an init.
struct Child {
    birth: Box<Birth>,
    /// The user and the group that it was made by.
    owner: [u32; 2],
    line: UnixStream,
    /// Why there is no init; closed without a word where this process is it.
    teller: io::PipeWriter,
}

fn serve(socket: &UnixStream) -> io::Result<After> {
    // What the agent's own parent has given it, such as the other end of a terminal, is not for stages.
    close_inherited(socket.as_fd());
    let nowhere = fs::File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&nowhere)?;
    dup2_stdout(&nowhere)?;
    // What the terminal sends to the agent's group is not for stages, which the agent ends in order; nor is the terminal. The session stays: the
    // kernel shares the processor out among sessions first (`man 7 sched`, the autogroup feature), and what stages run would have as much of it as
    // everything else of Otto, whatever its `nice`.
    setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
    leave_terminal()?;
    prctl::set_child_subreaper(true)?;
    let mask = SigSet::from(Signal::SIGCHLD);
    mask.thread_block()?;
    let children = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let mut inits = BTreeMap::new();
    loop {
        let mut waiting = [PollFd::new(socket.as_fd(), PollFlags::POLLIN), PollFd::new(children.as_fd(), PollFlags::POLLIN)];
        wait(&mut waiting, PollTimeout::NONE)?;
        let [said, ended] = waiting.map(|descriptor| descriptor.any().unwrap_or(false));
        if ended {
            look_after(&mut inits, &children)?;
        }
        if said {
            let Some((birth, descriptors)) = wire::receive::<Birth>(socket)? else { break };
            let groups = birth.groups.clone();
            let born = match bear(birth, descriptors) {
                Ok(Fork::Child(child)) => return Ok(After::Forked(child)),
                Ok(Fork::Init(pid)) => {
                    inits.insert(pid, groups);
                    Born::Init { pid: pid.as_raw() }
                }
                Err(error) => Born::Failed { reason: error.to_string() },
            };
            if wire::send(socket, &born, &[]).is_err() {
                // The agent has ended, or has given this nursery up.
                break;
            }
        }
    }
    let groups: Vec<PathBuf> = inits.values().flatten().cloned().collect();
    // Each init ends by itself, with its own socket; what is left after that is nobody's.
    let deadline = Instant::now() + INIT_GRACE;
    while !inits.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            for init in inits.keys() {
                let _gone = kill(*init, Signal::SIGKILL);
            }
        }
        // The killed are waited for: what waits for a disk that is gone ends later.
        let patience = PollTimeout::try_from(left).ok().filter(|_| !left.is_zero()).unwrap_or(PollTimeout::NONE);
        wait(&mut [PollFd::new(children.as_fd(), PollFlags::POLLIN)], patience)?;
        look_after(&mut inits, &children)?;
    }
    Kin::Descendants.end(|_, _| {})?;
    for group in groups {
        // The agent may have removed it before it ended.
        let _gone = fs::remove_dir(group);
    }
    Ok(After::Done)
}

fn wait(waiting: &mut [PollFd<'_>], patience: PollTimeout) -> io::Result<()> {
    match poll(waiting, patience) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Forgets inits that have ended, and kills what they left.
fn look_after(inits: &mut Inits, children: &SignalFd) -> io::Result<()> {
    while children.read_signal()?.is_some() {}
    kin::reap(&mut |pid, _| {
        for group in inits.remove(&pid).into_iter().flatten() {
            // The agent does the same, unless it ends meanwhile; what is still in use is the agent's to end.
            let _gone_or_in_use = fs::remove_dir(group);
        }
    })?;
    for orphan in kin::children().into_iter().filter(|child| !inits.contains_key(child)) {
        let _gone = kill(orphan, Signal::SIGKILL);
    }
    Ok(())
}

/// Where a fork has led.
enum Fork {
    Init(Pid),
    Child(Child),
}

fn bear(birth: Birth, descriptors: Vec<OwnedFd>) -> io::Result<Fork> {
    let Ok([line]) = <[OwnedFd; 1]>::try_from(descriptors) else { return Err(io::Error::other("an init needs a socket")) };
    let (mut told, teller) = io::pipe()?;
    // In a namespace of users of its own it is nobody until it is mapped.
    let owner = [Uid::current().as_raw(), Gid::current().as_raw()];
    let Some(pid) = fork(&birth)? else {
        return Ok(Fork::Child(Child { birth: Box::new(birth), owner, line: line.into(), teller }));
    };
    drop(teller);
    let mut trouble = String::new();
    told.read_to_string(&mut trouble)?;
    if trouble.is_empty() { Ok(Fork::Init(pid)) } else { Err(io::Error::other(trouble)) }
}

/// The process that is to be the init; with namespaces, the first of its own.
fn fork(birth: &Birth) -> io::Result<Option<Pid>> {
    if birth.level < Level::Namespaces {
        return fork_alone();
    }
    let own = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
    fork_into(if needs_users(birth) { own | CloneFlags::CLONE_NEWUSER } else { own }).map_err(of("the system makes no namespaces"))
}

/// Who is to start processes of another user is a superuser, and needs no namespace of users for the others.
fn needs_users(birth: &Birth) -> bool {
    birth.level == Level::Namespaces && birth.user.is_none()
}

/// Says of an error what it is of.
fn of(what: &'static str) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{what}: {error}"))
}

impl Child {
    /// Becomes the init.
    fn live(mut self) -> io::Result<()> {
        if needs_users(&self.birth)
            && let Err(error) = self.map_own_user()
        {
            return write!(self.teller, "{error}");
        }
        drop(self.teller);
        init::serve(self.line, &self.birth)
    }

    /// Makes its user who it was before, in its own namespace of users.
    fn map_own_user(&self) -> io::Result<()> {
        let [user, group] = self.owner;
        fs::write("/proc/self/setgroups", "deny").map_err(of("groups cannot be given up"))?;
        fs::write("/proc/self/uid_map", format!("{user} {user} 1")).map_err(of("the user cannot be mapped"))?;
        fs::write("/proc/self/gid_map", format!("{group} {group} 1")).map_err(of("the group cannot be mapped"))
    }
}
