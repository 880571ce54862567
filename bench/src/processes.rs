//! What the processes of an `otto up` use: the processor's time and memory, with all that they have started.

use std::{collections::BTreeMap, fs, time::Duration};

use anyhow::Context as _;
use nix::{
    time::{ClockId, clock_gettime},
    unistd::Pid,
};

use crate::services::Services;

/// What each process has had of a processor so far, with those that it has started and that are still there.
pub(crate) fn processor_times(services: &Services) -> anyhow::Result<BTreeMap<String, Duration>> {
    let mut times = BTreeMap::new();
    for (pid, name) in tree(services)? {
        // One that has ended meanwhile is left out.
        if let Ok(time) = ClockId::pid_cpu_clock_id(Pid::from_raw(pid)).and_then(clock_gettime) {
            *times.entry(name).or_default() += Duration::from(time);
        }
    }
    Ok(times)
}

/// What memory each process has, in bytes: its own, and its part of what it shares with others (`Pss`, `man 5 proc_pid_smaps`).
pub(crate) fn memory(services: &Services) -> anyhow::Result<BTreeMap<String, u64>> {
    let mut memory = BTreeMap::new();
    for (pid, name) in tree(services)? {
        let Ok(text) = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) else { continue };
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).context("smaps_rollup has a line `Pss`")?;
        let kibibytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        *memory.entry(name).or_default() += kibibytes * 1024;
    }
    Ok(memory)
}

/// Every process of the `otto up`, by id, with the name of its process there.
fn tree(services: &Services) -> anyhow::Result<BTreeMap<i32, String>> {
    let named: BTreeMap<i32, String> = services.processes()?.into_iter().map(|(name, pid)| (pid, name)).collect();
    let parents: BTreeMap<i32, i32> = fs::read_dir("/proc")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, parent(pid)?)))
        .collect();
    let owner = |pid: i32| {
        let mut at = pid;
        loop {
            if let Some(name) = named.get(&at) {
                return Some(name.clone());
            }
            at = *parents.get(&at)?;
        }
    };
    Ok(parents.keys().filter_map(|pid| Some((*pid, owner(*pid)?))).collect())
}

/// The fourth field of `/proc/<pid>/stat`; the second has a name in brackets, with anything in it.
fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_the_parent_that_the_system_says() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(parent(own), Some(nix::unistd::getppid().as_raw()));
    }
}
