//! Ends processes that an agent which was killed could not end. They are told from all others by what Linux says of them under `/proc`:
//! a process id alone may have been given to somebody else meanwhile.

use std::{
    collections::BTreeSet,
    fs, thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tracing::{info, warn};

use crate::{executor::environment::LEASE_MARK, process_file, sandbox::of_process};

/// Rounds of looking for processes: each ends all it sees, and a process that forks fast enough to outlive the first round meets the next.
const ROUNDS_MAX: u32 = 20;
/// Between two rounds, for the killed to go.
const ROUND_PAUSE: Duration = Duration::from_millis(50);

/// How long nurseries of an earlier life may take to end what they hold.
const NURSERY_GRACE: Duration = Duration::from_secs(6);
/// In the environment of the processes that hold stages: whose they are.
pub(crate) const NURSERY_MARK: &str = "OTTO_NURSERY";

/// What tells a process from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Status {
    group: i32,
    session: i32,
    zombie: bool,
    start_ticks: u64,
}

/// When the process started, in ticks since boot; `None` if it is gone or the system has no `/proc`.
pub(crate) fn start_ticks(pid: i32) -> Option<u64> {
    status(pid).map(|status| status.start_ticks)
}

/// Ends every process with this mark in its environment.
pub(crate) fn end_marked(mark: &str) {
    end(mark, &[], None);
}

/// Ends every process of these users, however it came to be.
pub(crate) fn end_users(users: &BTreeSet<u32>) {
    end_all("users of stages", &[], |pid| of_process(pid).iter().any(|user| users.contains(user)));
}

/// Ends every process of a lease: those with its mark in their environment, wherever they have gone, and those of a group whose
/// leader is the one that was recorded; and those of its user, if it has one of its own.
pub(super) fn end(mark: &str, groups: &[(i32, Option<u64>)], user: Option<u32>) {
    let variable = format!("{LEASE_MARK}={mark}").into_bytes();
    end_all(mark, groups, |pid| has_mark(pid, &variable) || user.is_some_and(|user| of_process(pid).contains(&user)));
}

fn end_all(what: &str, groups: &[(i32, Option<u64>)], is_meant: impl Fn(i32) -> bool) {
    for _ in 0..ROUNDS_MAX {
        let alive: BTreeSet<i32> =
            groups.iter().filter(|(pid, ticks)| ticks.is_some() && start_ticks(*pid) == *ticks).map(|(pid, _)| *pid).collect();
        let found: Vec<i32> = pids()
            .filter(|pid| {
                // Most are nobody's, and looking at one is all that this costs.
                let is_meant = is_meant(*pid);
                (is_meant || !alive.is_empty())
                    && status(*pid).is_some_and(|status| !status.zombie && (is_meant || alive.contains(&status.group)))
            })
            .collect();
        if found.is_empty() {
            return;
        }
        info!(what, processes = ?found, "ending what an earlier life left running");
        for pid in found {
            // It may have ended by itself just now.
            let _gone = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        thread::sleep(ROUND_PAUSE);
    }
    warn!(what, "processes that an earlier life left running do not end");
}

/// Ends the nurseries with this mark, and all that they hold. Their agent is gone, so they do that by themselves, but where a step that ran
/// as the same user has made one of them stand still. Inits go first: a nursery that lives ends what they leave.
pub(crate) fn end_nurseries(mark: &str) {
    let variable = format!("{NURSERY_MARK}={mark}").into_bytes();
    let is_alive = |pid: i32| status(pid).filter(|status| !status.zombie);
    let find = || -> Vec<i32> { pids().filter(|pid| has_mark(*pid, &variable) && is_alive(*pid).is_some()).collect() };
    let deadline = Instant::now() + NURSERY_GRACE;
    loop {
        let found = find();
        if found.is_empty() {
            return;
        }
        let is_over = Instant::now() > deadline;
        for pid in found {
            let is_nursery = is_alive(pid).is_some_and(|status| status.session == pid);
            info!(pid, is_nursery, "what held the stages of an earlier life has not ended yet");
            let signal = if is_over || !is_nursery { Signal::SIGKILL } else { Signal::SIGCONT };
            // It may have ended by itself just now.
            let _gone = kill(Pid::from_raw(pid), signal);
        }
        thread::sleep(ROUND_PAUSE);
        if is_over {
            return;
        }
    }
}

fn pids() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc").into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

fn has_mark(pid: i32, mark: &[u8]) -> bool {
    fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environment| environment.split(|byte| *byte == 0).any(|variable| variable == mark))
}

fn status(pid: i32) -> Option<Status> {
    parse(&process_file::beginning(pid, "stat"))
}

/// Reads `/proc/<pid>/stat` (`man 5 proc_pid_stat`): the name in parentheses may have blanks and parentheses of its own.
fn parse(text: &str) -> Option<Status> {
    let (_, fields) = text.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    // Fields are counted from 1, and the first one here is the third.
    Some(Status {
        zombie: *fields.first()? == "Z",
        group: fields.get(5 - 3)?.parse().ok()?,
        session: fields.get(6 - 3)?.parse().ok()?,
        start_ticks: fields.get(22 - 3)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name() {
        let text = "7 (a) b (c) S 1 6 5 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 12345 1 1 1\n";
        assert_eq!(parse(text), Some(Status { group: 6, session: 5, zombie: false, start_ticks: 12345 }));
        assert_eq!(parse("7 (x"), None);
    }
}
