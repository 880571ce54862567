//! Which group of version 2 an agent may divide, and how it comes to have limits below it (`Documentation/admin-guide/cgroup-v2.rst`,
//! "Delegation" and "No Internal Process Constraint").
//!
//! ```text
//! /system.slice/otto-agent.service     given to the agent (systemd: Delegate=yes), divided: no process may stay in it
//!   ├─ otto-agent                      the agent and its nursery, which were started one above
//!   ├─ otto-3f2a90c1-0                 an attempt
//!   └─ otto-3f2a90c1-1
//! ```

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use nix::unistd::{Pid, getpid};
use tracing::debug;

use super::{
    cgroup::{Controller, members, read},
    kin,
};

/// The group into which an agent moves what is in the group that it divides.
const OWN_GROUP: &str = "otto-agent";
/// What systemd (251 and newer) writes on a group that it has given away, and on which it is readable for everybody; older ones only the other.
const DELEGATED: [&str; 2] = ["user.delegate", "trusted.delegate"];
/// Tries to empty a group whose processes start others meanwhile.
const MOVES_MAX: u32 = 5;

/// Why something is not limited here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// No hierarchy has the controller.
    NotMounted,
    /// The agent may make no group below this one.
    NotWritable(PathBuf),
    /// The groups above this one do not hand the controller on to it.
    NotOffered(PathBuf),
    /// This group has processes which are not the agent's to move, and a group that has some cannot be divided.
    Shared(PathBuf, Vec<Pid>),
    /// The kernel does not want to, for this reason.
    Refused(PathBuf, String),
}

impl Obstacle {
    /// How the machine's administrator mends it.
    pub(super) fn remedy(&self) -> &'static str {
        match self {
            Self::NotMounted => "mount control groups at /sys/fs/cgroup; in a container, give it them to write to",
            Self::NotWritable(_) => {
                "give the agent a group: in its systemd service `Delegate=yes`, by hand `systemd-run --user --scope -p Delegate=yes otto …`; \
                 in a container a writable /sys/fs/cgroup"
            }
            Self::NotOffered(_) => {
                "have the groups above hand it on: in the agent's systemd service `Delegate=yes`, else \
                 `echo +memory +pids +cpu > cgroup.subtree_control` in each of them; a controller that is bound to version 1 is used there"
            }
            Self::Shared(..) => "start the agent in a group of its own: a systemd service with `Delegate=yes`",
            Self::Refused(..) => "see `man 7 cgroups`; on version 2, `cpu` needs that no process with a real-time priority is in the group",
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotMounted => formatter.write_str("no control groups that have it are mounted"),
            Self::NotWritable(group) => write!(formatter, "the control group {} may not be written to", group.display()),
            Self::NotOffered(group) => write!(formatter, "the control group {} does not have it", group.display()),
            Self::Shared(group, others) => {
                let first: Vec<_> = others.iter().take(3).map(ToString::to_string).collect();
                let whose = if others.len() == 1 { "another process".to_owned() } else { format!("{} other processes", others.len()) };
                write!(formatter, "{whose} ({}) in the agent's control group {}", first.join(", "), group.display())
            }
            Self::Refused(group, reason) => write!(formatter, "the control group {} cannot be divided: {reason}", group.display()),
        }
    }
}

/// The group that a process of the group `own` may divide, in a hierarchy that is mounted at `top`.
pub(super) fn of(own: &Path, top: &Path) -> PathBuf {
    of_marked(own, top, is_delegated)
}

fn of_marked(own: &Path, top: &Path, is_delegated: impl Fn(&Path) -> bool) -> PathBuf {
    let above = || own.ancestors().take_while(|group| group.starts_with(top));
    if own.file_name().is_some_and(|name| name == OWN_GROUP) && own != top {
        // An earlier life, or another agent beside this one, has moved what was there.
        return own.parent().unwrap_or(own).to_owned();
    }
    // A service manager may have started it in a group below the one that it gave away (systemd: DelegateSubgroup=).
    above().find(|group| is_delegated(group)).unwrap_or(own).to_owned()
}

fn is_delegated(group: &Path) -> bool {
    let mut value = [0; 8];
    DELEGATED.iter().any(|name| rustix::fs::getxattr(group, *name, &mut value[..]).is_ok_and(|length| value.get(..length) == Some(b"1")))
}

/// Has groups below this one limited, where that is allowed: for each of `wanted`, whether that is so.
///
/// A group that has processes is never divided, though for `pids` and `cpu` the kernel would do it: groups below it could then have no
/// processes (they are "domain invalid"), and no stage would start.
pub(super) fn divide(group: &Path, top: &Path, wanted: &[Controller]) -> Vec<(Controller, Result<(), Obstacle>)> {
    let offered = read(group.join("cgroup.controllers"));
    let has = |list: &str, controller: Controller| list.split_whitespace().any(|name| name == controller.name());
    let switch = group.join("cgroup.subtree_control");
    // The kernel's own root, which alone may have processes and groups, is of no type.
    let is_root = !group.join("cgroup.type").exists();
    let mut cleared = is_root.then_some(Ok(()));
    let mut turn_on = |controller: Controller| {
        if !has(&offered, controller) {
            return Err(Obstacle::NotOffered(group.to_owned()));
        }
        if has(&read(&switch), controller) {
            return Ok(());
        }
        cleared.get_or_insert_with(|| clear(group, top)).clone()?;
        fs::write(&switch, format!("+{}", controller.name())).map_err(|error| refused(group, &error))
    };
    wanted.iter().map(|controller| (*controller, turn_on(*controller))).collect()
}

fn refused(group: &Path, error: &io::Error) -> Obstacle {
    if error.kind() == io::ErrorKind::PermissionDenied {
        return Obstacle::NotWritable(group.to_owned());
    }
    Obstacle::Refused(group.to_owned(), error.to_string())
}

/// Moves the processes of a group one down, if they are the agent's to move: its own; all, where the whole group was given to whoever is in it.
fn clear(group: &Path, top: &Path) -> Result<(), Obstacle> {
    let own = group.join(OWN_GROUP);
    let is_given = group == top || is_delegated(group);
    for _ in 0..MOVES_MAX {
        let inside = members(group);
        if inside.is_empty() {
            return Ok(());
        }
        let agents = kin::descendants();
        let others: Vec<Pid> = inside.iter().copied().filter(|pid| *pid != getpid() && !agents.contains(pid)).collect();
        if !is_given && !others.is_empty() {
            return Err(Obstacle::Shared(group.to_owned(), others));
        }
        fs::create_dir_all(&own).map_err(|error| refused(group, &error))?;
        for pid in inside {
            if let Err(error) = fs::write(own.join("cgroup.procs"), pid.to_string()) {
                // It may have ended just now.
                debug!(%pid, group = %own.display(), %error, "a process stays where it is");
            }
        }
    }
    match members(group) {
        left if left.is_empty() => Ok(()),
        left => Err(Obstacle::Shared(group.to_owned(), left)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_to_divide_is_the_one_that_was_given_to_the_agent() {
        let top = Path::new("/sys/fs/cgroup");
        let given = |own: &str, delegated: &str| {
            let found = of_marked(&top.join(own), top, |group| group == top.join(delegated));
            found.strip_prefix(top).unwrap().to_str().unwrap().to_owned()
        };
        let service = "system.slice/otto-agent.service";
        for (own, delegated, expected) in [
            (service, service, service),
            ("system.slice/otto-agent.service/main", service, service),
            ("system.slice/otto-agent.service/otto-agent", service, service),
            // Nobody says what was given to whom.
            (service, "nowhere", service),
            ("system.slice/otto-agent.service/otto-agent", "nowhere", service),
            (
                "user.slice/user-7.slice/user@7.service/app.slice/a.scope",
                "user.slice/user-7.slice/user@7.service",
                "user.slice/user-7.slice/user@7.service",
            ),
            ("", "nowhere", ""),
            ("otto-agent", "nowhere", ""),
        ] {
            assert_eq!(given(own, delegated), expected, "{own}");
        }
    }

    #[test]
    fn what_is_in_the_way_is_said() {
        let group = PathBuf::from("/sys/fs/cgroup/a");
        let others = vec![Pid::from_raw(7), Pid::from_raw(8), Pid::from_raw(9), Pid::from_raw(10)];
        let said = Obstacle::Shared(group, others).to_string();
        assert_eq!(said, "4 other processes (7, 8, 9) in the agent's control group /sys/fs/cgroup/a");
    }
}
