//! What this machine offers to isolate and limit stages, found by trying it: `otto agent doctor`.

use std::{collections::BTreeMap, path::Path};

use model::plan::Value;
use serde::Serialize;

use super::{
    Level, SandboxError, SandboxOptions,
    cgroup::{Controller, Version},
    machine::Holder,
    subtree::Obstacle,
};

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was tried.
    pub subject: &'static str,
    /// Whether it is there.
    pub there: bool,
    /// What was found.
    pub found: String,
    /// What that means for stages.
    pub meaning: &'static str,
    /// How to get it, where it is missing.
    pub remedy: Option<&'static str>,
}

/// Tries everything, in `data`, a folder of its own.
pub fn examine(options: &SandboxOptions, data: &Path) -> Result<Vec<Finding>, SandboxError> {
    let Some(otto) = &options.otto else { return Ok(Vec::new()) };
    let mut holder = Holder::start(options, otto, data)?;
    let mut findings: Vec<_> = Level::ALL.into_iter().rev().map(|level| of_level(level, holder.try_level(level))).collect();
    let best = findings.iter().zip(Level::ALL.into_iter().rev()).find(|(finding, _)| finding.there);
    if let Some((_, level)) = best {
        holder.level = level;
    }
    findings.push(of_users(holder.take_users(options)));
    findings.push(of_snapshots(holder.overlays(), data));
    findings.extend(
        Controller::ALL.into_iter().map(|controller| of_controller(controller, holder.limits(controller), holder.obstacle(controller))),
    );
    Ok(findings)
}

/// What an agent would offer to stages here besides [`machine_facts`](crate::machine_facts): the best level that works, and those below it.
pub fn offers(findings: &[Finding]) -> BTreeMap<String, Value> {
    let works = |level: &Level| findings.iter().any(|finding| finding.subject == level.name() && finding.there);
    Level::ALL.into_iter().rev().find(works).map(offers_of).unwrap_or_default()
}

/// What an agent offers that isolates stages at this level: what is less is had with it.
pub fn offers_of(level: Level) -> BTreeMap<String, Value> {
    let levels = Level::ALL.into_iter().filter(|less| *less <= level).map(|level| Value::Text(level.name().to_owned()));
    BTreeMap::from([("isolation".to_owned(), Value::List(levels.collect()))])
}

fn of_level(level: Level, tried: Result<(), String>) -> Finding {
    let (meaning, missing, remedy) = match level {
        Level::Namespaces => (
            "a stage has processes, mounts, /proc, /tmp and /dev of its own, and writes nothing but what is its own",
            "stages see the machine's processes and files",
            "Linux 5.12 or newer; allow user namespaces (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, \
             kernel.apparmor_restrict_unprivileged_userns), and in a container an unmasked /proc",
        ),
        Level::Landlock => (
            "a stage writes only below its own folders and the tools' homes",
            "without namespaces, stages write wherever the agent's user may",
            "Linux 5.13 or newer with landlock among the kernel's `lsm=`",
        ),
        Level::Group => (
            "whatever a stage leaves, also by setsid, is adopted and ended",
            "what leaves its process group is found only by its environment",
            "/proc must be mounted, and `otto` be able to start itself",
        ),
    };
    match tried {
        Ok(()) => Finding { subject: level.name(), there: true, found: "a shell works in it".to_owned(), meaning, remedy: None },
        Err(reason) => Finding { subject: level.name(), there: false, found: reason, meaning: missing, remedy: Some(remedy) },
    }
}

fn of_users(tried: Result<(), String>) -> Finding {
    let (there, found, meaning) = match tried {
        Ok(()) => (true, "each attempt is another user".to_owned(), "what a stage does, it does without any right of the agent's user"),
        Err(reason) => (false, reason, "stages are the agent's own user"),
    };
    let remedy = "an agent of the superuser, Linux 5.19 or newer, and tools where every user can read them, such as /usr/local or /opt";
    Finding { subject: "own users", there, found, meaning, remedy: (!there).then_some(remedy) }
}

fn of_snapshots(overlays: &Result<(), String>, data: &Path) -> Finding {
    let (there, found, meaning) = match overlays {
        Ok(()) => (true, "overlay", "a stage's work directory is mounted over the source, and takes what the stage writes to it"),
        Err(_) if tree::shares_content(data) => (true, "reflink", "a stage's work directory shares the content of the source's files"),
        Err(_) => (false, "copy", "each stage's work directory is a copy of the source"),
    };
    let found = match overlays {
        Ok(()) => found.to_owned(),
        Err(reason) => format!("{found}: no overlay, {reason}"),
    };
    let remedy =
        "Linux 5.11 or newer with overlay, and stages in namespaces or an agent of the superuser; or the agent's data on btrfs or xfs";
    Finding { subject: "snapshot", there, found, meaning, remedy: (!there).then_some(remedy) }
}

fn of_controller(controller: Controller, version: Option<Version>, obstacle: Option<Obstacle>) -> Finding {
    let (subject, meaning, missing) = match controller {
        Controller::Memory => (
            "memory limit",
            "`memory` of a stage limits all its processes together",
            "`memory` of a stage limits the data of each process alone",
        ),
        Controller::Pids => (
            "process limit",
            "a stage has at most 4,096 processes",
            "only in namespaces, and not for the superuser, the number of a stage's processes is limited",
        ),
        Controller::Cpu => ("processor limit", "`cores` of a stage limits its processor time", "`cores` of a stage does not limit it"),
    };
    let found = match (version, &obstacle) {
        (Some(Version::One), _) => "control groups of version 1".to_owned(),
        (Some(Version::Two), _) => "control groups of version 2".to_owned(),
        (None, obstacle) => obstacle.as_ref().map(ToString::to_string).unwrap_or_default(),
    };
    let remedy = obstacle.map(|obstacle| obstacle.remedy());
    Finding { subject, there: version.is_some(), found, meaning: if version.is_some() { meaning } else { missing }, remedy }
}
