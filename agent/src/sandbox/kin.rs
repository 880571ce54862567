//! Ends what a process that adopts orphans has below it.

use std::{collections::BTreeMap, fs, io, thread, time::Duration};

use nix::{
    errno::Errno,
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, getpid},
};

/// Between two rounds, for the killed to go.
const ROUND_PAUSE: Duration = Duration::from_millis(1);
/// Rounds of killing what can fork between two of them, before it is first made to stand still.
const ROUNDS_LENIENT: u32 = 3;

/// What is below this process.
pub(super) enum Kin {
    /// Everything that it can see: it is the first process of a namespace.
    All,
    /// What descends from it; orphans become its children.
    Descendants,
}

impl Kin {
    /// Ends all of it. When this returns none is left; `ended` hears of each child.
    pub(super) fn end(&self, mut ended: impl FnMut(Pid, i32)) -> io::Result<()> {
        let mut round = 0;
        loop {
            if !reap(&mut ended)? {
                return Ok(());
            }
            match self {
                // One call for all: what forks meanwhile is killed, too.
                Self::All => ignore_gone(kill(Pid::from_raw(-1), Signal::SIGKILL))?,
                Self::Descendants => {
                    let found = descendants();
                    if round >= ROUNDS_LENIENT {
                        found.iter().try_for_each(|pid| ignore_gone(kill(*pid, Signal::SIGSTOP)))?;
                    }
                    found.iter().try_for_each(|pid| ignore_gone(kill(*pid, Signal::SIGKILL)))?;
                }
            }
            round += 1;
            if !reap(&mut ended)? {
                return Ok(());
            }
            thread::sleep(ROUND_PAUSE);
        }
    }
}

fn ignore_gone(result: nix::Result<()>) -> io::Result<()> {
    match result {
        // EPERM: it has become another user's, by a program that may do so; whoever started it is ended.
        Ok(()) | Err(Errno::ESRCH | Errno::EPERM) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Takes note of every child that has ended; whether others are left.
pub(super) fn reap(ended: &mut impl FnMut(Pid, i32)) -> io::Result<bool> {
    loop {
        match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => ended(pid, code << 8),
            Ok(WaitStatus::Signaled(pid, signal, dumped)) => ended(pid, signal as i32 | if dumped { 0x80 } else { 0 }),
            Ok(WaitStatus::StillAlive) => return Ok(true),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(Errno::ECHILD) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
}

/// The children of this process.
pub(super) fn children() -> Vec<Pid> {
    let own = getpid();
    // One thread, one list; a kernel without it has the parents of all processes.
    match fs::read_to_string(format!("/proc/self/task/{own}/children")) {
        Ok(list) => list.split_whitespace().filter_map(|pid| pid.parse().ok().map(Pid::from_raw)).collect(),
        Err(_) => parents().into_iter().filter(|(_, parent)| *parent == own).map(|(pid, _)| pid).collect(),
    }
}

/// All processes that descend from this one.
pub(super) fn descendants() -> Vec<Pid> {
    let parents = parents();
    let mut below: BTreeMap<Pid, Vec<Pid>> = BTreeMap::new();
    for (pid, parent) in &parents {
        below.entry(*parent).or_default().push(*pid);
    }
    let (mut found, mut next) = (Vec::new(), vec![getpid()]);
    while let Some(pid) = next.pop() {
        let children = below.remove(&pid).unwrap_or_default();
        found.extend(&children);
        next.extend(children);
    }
    found
}

fn parents() -> Vec<(Pid, Pid)> {
    let names = fs::read_dir("/proc").into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let pids = names.filter_map(|name| name.parse().ok());
    pids.filter_map(|pid: i32| Some((Pid::from_raw(pid), parent(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?))).collect()
}

/// The fourth field of `/proc/<pid>/stat`; the second, the name, may have blanks and parentheses of its own.
fn parent(stat: &str) -> Option<Pid> {
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(1)?.parse().ok().map(Pid::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_is_read_whatever_its_childs_name() {
        assert_eq!(parent("7 (a) b (c) S 12 6 6 0 -1\n"), Some(Pid::from_raw(12)));
        assert_eq!(parent("7 (x"), None);
    }
}
