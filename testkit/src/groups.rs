//! The control groups of stages.

use std::{fs, path::PathBuf};

/// The folders of the control groups of stages that a process is in, of either version. Those are not among them that this process is in, too: tests may be
/// a stage themselves.
pub fn stage_groups(pid: &str) -> Vec<PathBuf> {
    let read = |pid: &str| fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let (of_process, own) = (read(pid), read("self"));
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let tops: Vec<PathBuf> =
        mounts.lines().filter(|line| line.contains(" - cgroup")).filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from).collect();
    let others = of_process.lines().filter(|line| !own.lines().any(|own| own == *line));
    let groups = others.filter_map(|line| line.splitn(3, ':').nth(2)).filter(|group| group.contains("/otto-"));
    let folders = groups.flat_map(|group| tops.iter().map(move |top| top.join(group.trim_start_matches('/'))));
    folders.filter(|folder| folder.is_dir()).collect()
}
