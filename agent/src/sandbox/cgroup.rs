//! Control groups: how much of the machine the processes of an attempt may have together. Both versions, also beside each other: a controller
//! is in one hierarchy at a time, and which one the machine's administrator has decided.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::Serialize;
use tracing::{debug, warn};

use super::{
    Limits,
    subtree::{self, Obstacle},
};

/// The period over which processor time is shared out, in microseconds: the kernel's own default.
const CPU_PERIOD_US: u64 = 100_000;
/// How long the processes of a group may take to be gone before its folder stays.
const GONE_DEADLINE: Duration = Duration::from_secs(5);
/// Between the first two looks whether they are; a process that was killed is gone almost at once. The pause doubles each time.
const GONE_PAUSE: Duration = Duration::from_micros(100);
/// The longest pause.
const GONE_PAUSE_MAX: Duration = Duration::from_millis(5);

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Controller {
    Memory,
    Pids,
    Cpu,
}

impl Controller {
    pub(super) const ALL: [Self; 3] = [Self::Memory, Self::Pids, Self::Cpu];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Cpu => "cpu",
        }
    }
}

/// Where a controller is found, and how it is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    One,
    Two,
}

/// The groups of this process, below which it may make others.
#[derive(Debug, Clone, Default)]
pub(super) struct Base {
    /// The name of each group that is made begins with this.
    prefix: String,
    controllers: BTreeMap<Controller, (Version, PathBuf)>,
    /// Why the others are not used.
    obstacles: BTreeMap<Controller, Obstacle>,
}

/// The group of one attempt, in each hierarchy in which something of the attempt is limited.
///
/// Not in the others: the kernel lets nobody fork while a process is moved into a group, and the first move after a pause takes it a grace
/// period of RCU, ten milliseconds and more.
#[derive(Debug)]
pub(super) struct Group {
    number: u64,
    controllers: BTreeMap<Controller, (Version, PathBuf)>,
}

/// Which limits have been reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Reached {
    pub(super) memory: bool,
    pub(super) processes: bool,
}

impl Base {
    /// Finds the groups of this process, and ends what an earlier life has left in groups of this prefix.
    pub(super) fn find(prefix: String) -> Self {
        let (groups, mounts) = (read("/proc/self/cgroup"), read("/proc/self/mountinfo"));
        let mut base = Self { prefix, ..Self::default() };
        for Hierarchy { controllers, own, top } in hierarchies(&groups, &mounts) {
            // A hierarchy without a controller that is wanted has no group of ours; making one costs what a step does.
            let here: Vec<_> = Controller::ALL.into_iter().filter(|controller| controllers.contains(controller.name())).collect();
            if controllers.is_empty() {
                base.find_unified(&own, &top);
            } else if !here.is_empty() {
                base.clear(&own);
                if is_ours(&own, &base.prefix) {
                    base.controllers.extend(here.into_iter().map(|controller| (controller, (Version::One, own.clone()))));
                } else {
                    base.obstacles.extend(here.into_iter().map(|controller| (controller, Obstacle::NotWritable(own.clone()))));
                }
            }
        }
        base
    }

    fn find_unified(&mut self, own: &Path, top: &Path) {
        let folder = subtree::of(own, top);
        self.clear(&folder);
        // What version 1 has, this one cannot have.
        let wanted: Vec<_> = Controller::ALL.into_iter().filter(|controller| !self.controllers.contains_key(controller)).collect();
        if !is_ours(&folder, &self.prefix) {
            for controller in wanted {
                self.obstacles.entry(controller).or_insert_with(|| Obstacle::NotWritable(folder.clone()));
            }
            return;
        }
        for (controller, divided) in subtree::divide(&folder, top, &wanted) {
            match divided {
                Ok(()) => drop(self.controllers.insert(controller, (Version::Two, folder.clone()))),
                Err(obstacle) => {
                    debug!(?controller, %obstacle, "not limited by version 2");
                    self.obstacles.entry(controller).or_insert(obstacle);
                }
            }
        }
    }

    /// Which version limits this, if one does.
    pub(super) fn limits(&self, controller: Controller) -> Option<Version> {
        self.controllers.get(&controller).map(|(version, _)| *version)
    }

    /// Why nothing limits this.
    pub(super) fn obstacle(&self, controller: Controller) -> Option<Obstacle> {
        let is_limited = self.controllers.contains_key(&controller);
        (!is_limited).then(|| self.obstacles.get(&controller).cloned().unwrap_or(Obstacle::NotMounted))
    }

    /// Every folder that the group of this number may have.
    pub(super) fn folders(&self, number: u64) -> Vec<PathBuf> {
        let folders: BTreeSet<_> = self.controllers.values().map(|(_, folder)| folder).collect();
        folders.into_iter().map(|folder| self.below(folder, number)).collect()
    }

    fn below(&self, folder: &Path, number: u64) -> PathBuf {
        folder.join(format!("{}{number}", self.prefix))
    }

    /// The group of an attempt, which is in no hierarchy yet.
    pub(super) fn group(number: u64) -> Group {
        Group { number, controllers: BTreeMap::new() }
    }

    /// Has these limited in the group, as far as they can be, and puts a process into it, with all that it starts from then on.
    pub(super) fn limit(&self, group: &mut Group, wanted: &[Controller], pid: i32) -> io::Result<()> {
        for controller in wanted {
            let Some((version, folder)) = self.controllers.get(controller) else { continue };
            let folder = self.below(folder, group.number);
            let is_in_it = group.controllers.values().any(|(_, there)| *there == folder);
            if group.controllers.insert(*controller, (*version, folder.clone())).is_some() || is_in_it {
                continue;
            }
            match fs::create_dir(&folder) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                result => result?,
            }
            fs::write(folder.join("cgroup.procs"), pid.to_string())?;
        }
        Ok(())
    }

    fn clear(&self, folder: &Path) {
        let names = fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
        for left in names.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&self.prefix))) {
            debug!(group = %left.display(), "ending a group that an earlier life left");
            end(&left);
        }
    }
}

impl Group {
    /// Each once, and first those of the second version, which ends all of a group at once.
    fn folders(&self) -> Vec<&PathBuf> {
        let of = |wanted| self.controllers.values().filter(move |(version, _)| *version == wanted).map(|(_, folder)| folder);
        let two: BTreeSet<_> = of(Version::Two).collect();
        let one: BTreeSet<_> = of(Version::One).collect();
        two.into_iter().chain(one).collect()
    }

    pub(super) fn set(&self, limits: &Limits) -> io::Result<()> {
        if let (Some((version, folder)), Some(bytes)) = (self.controllers.get(&Controller::Memory), limits.memory_bytes) {
            let file = match version {
                Version::One => "memory.limit_in_bytes",
                Version::Two => "memory.max",
            };
            fs::write(folder.join(file), bytes.to_string())?;
            // Only the process that asks for too much is killed, and not the whole group (`memory.oom.group`): the init is in it, which has
            // to tell, and to run what notifies people of the failure.
            // Without it, what does not fit is swapped out, for as long as the disk has room.
            let _machine_without_swap = match version {
                Version::One => fs::write(folder.join("memory.memsw.limit_in_bytes"), bytes.to_string()),
                Version::Two => fs::write(folder.join("memory.swap.max"), "0"),
            };
        }
        if let (Some((_, folder)), Some(processes)) = (self.controllers.get(&Controller::Pids), limits.processes) {
            // The init is one of them.
            fs::write(folder.join("pids.max"), (processes + 1).to_string())?;
        }
        if let (Some((version, folder)), Some(cores)) = (self.controllers.get(&Controller::Cpu), limits.cores) {
            let quota = (CPU_PERIOD_US.saturating_mul(cores)).to_string();
            match version {
                Version::One => fs::write(folder.join("cpu.cfs_quota_us"), quota)?,
                Version::Two => fs::write(folder.join("cpu.max"), format!("{quota} {CPU_PERIOD_US}"))?,
            }
        }
        Ok(())
    }

    /// Which limits somebody has met with so far.
    pub(super) fn reached(&self) -> Reached {
        let count = |controller, one: &str, two: &str, key: &str| {
            let Some((version, folder)) = self.controllers.get(&controller) else { return false };
            let file = if *version == Version::One { one } else { two };
            counter(&fs::read_to_string(folder.join(file)).unwrap_or_default(), key) > 0
        };
        Reached {
            memory: count(Controller::Memory, "memory.oom_control", "memory.events", "oom_kill"),
            processes: count(Controller::Pids, "pids.events", "pids.events", "max"),
        }
    }

    /// Ends everything in it, and removes it. Takes time.
    pub(super) fn end(self) {
        for folder in self.folders() {
            end(folder);
        }
    }
}

/// Ends what is in a group and removes it, with the groups that somebody has made in it; one that is not there is no error.
fn end(group: &Path) {
    let deadline = Instant::now() + GONE_DEADLINE;
    let mut pause = GONE_PAUSE;
    loop {
        match fs::remove_dir(group) {
            Ok(()) => return,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) if Instant::now() > deadline => return warn!(group = %group.display(), %error, "a control group is left behind"),
            Err(_) => {}
        }
        let inner = below(group);
        if fs::write(group.join("cgroup.kill"), "1").is_err() {
            for group in inner.iter().map(PathBuf::as_path).chain([group]) {
                // What cannot fork any more cannot outrun this.
                let _no_such_controller = fs::write(group.join("pids.max"), "0");
                for pid in members(group) {
                    let _gone = kill(pid, Signal::SIGKILL);
                }
            }
        }
        for group in inner {
            // In the next round, if it is still in use.
            let _in_use = fs::remove_dir(group);
        }
        sleep(pause);
        pause = (2 * pause).min(GONE_PAUSE_MAX);
    }
}

/// The groups below this one, the inner before the outer.
fn below(group: &Path) -> Vec<PathBuf> {
    let (mut found, mut next) = (Vec::new(), vec![group.to_owned()]);
    while let Some(outer) = next.pop() {
        let entries = fs::read_dir(outer).into_iter().flatten().flatten();
        let inner = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path());
        let before = found.len();
        found.extend(inner);
        next.extend_from_slice(&found[before..]);
    }
    found.reverse();
    found
}

/// Whether this process may make groups there, in which processes can be.
fn is_ours(folder: &Path, prefix: &str) -> bool {
    let trial = folder.join(format!("{prefix}trial"));
    let made = fs::create_dir(&trial);
    // Of version 2; below a group of threads no group can have processes.
    let is_of_processes = fs::read_to_string(trial.join("cgroup.type")).map_or(true, |kind| kind.trim() == "domain");
    made.is_ok() && fs::remove_dir(&trial).is_ok() && is_of_processes
}

pub(super) fn members(group: &Path) -> Vec<Pid> {
    let list = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    list.lines().filter_map(|pid| pid.parse().ok().map(Pid::from_raw)).filter(|pid| pid.as_raw() > 0).collect()
}

pub(super) fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The number after `key` in lines of a key and a number.
fn counter(text: &str, key: &str) -> u64 {
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.filter(|(name, _)| *name == key).find_map(|(_, number)| number.trim().parse().ok()).unwrap_or(0)
}

/// A hierarchy of groups.
#[derive(Debug, PartialEq, Eq)]
struct Hierarchy {
    /// Of the first version; the second has none here.
    controllers: BTreeSet<String>,
    /// The group of this process.
    own: PathBuf,
    /// The outermost group that can be seen.
    top: PathBuf,
}

/// The hierarchies that this process is in and can see, of `/proc/self/cgroup` and `/proc/self/mountinfo` (`man 7 cgroups`,
/// `man 5 proc_pid_mountinfo`).
fn hierarchies(groups: &str, mounts: &str) -> Vec<Hierarchy> {
    let mut found = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else { continue };
        let controllers: BTreeSet<String> = controllers.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        let seen = mounts.lines().find_map(|mount| {
            let (before, after) = mount.split_once(" - ")?;
            let before: Vec<&str> = before.split(' ').collect();
            let (root, top) = (before.get(3)?, PathBuf::from(before.get(4)?));
            let mut after = after.split(' ');
            let (kind, options) = (after.next()?, after.nth(1)?);
            let is_it = match kind {
                "cgroup2" => controllers.is_empty(),
                "cgroup" => !controllers.is_empty() && controllers.iter().all(|name| options.split(',').any(|option| option == name)),
                _ => false,
            };
            // What a container sees of a hierarchy may begin at its own group.
            let below = Path::new(group).strip_prefix(root).ok().or_else(|| group.starts_with("/..").then_some(Path::new("")));
            // Joining nothing would leave a slash at the end.
            let own = below.map(|below| if below.as_os_str().is_empty() { top.clone() } else { top.join(below) });
            own.filter(|_| is_it).map(|own| (own, top))
        });
        found.extend(seen.map(|(own, top)| Hierarchy { controllers, own, top }));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_group_is_found_in_each_hierarchy() {
        let groups = "4:memory:/a/b\n2:cpu,cpuacct:/\n1:name=systemd:/x\n0::/user.slice\n";
        let mounts = "30 20 0:26 / /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup2 rw\n\
                      31 20 0:27 /a /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      32 20 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                      33 20 0:29 / /sys rw - sysfs sysfs rw\n";
        let of = |names: &[&str], own: &str, top: &str| Hierarchy {
            controllers: names.iter().map(|name| (*name).to_owned()).collect(),
            own: Path::new("/sys/fs/cgroup").join(own),
            top: Path::new("/sys/fs/cgroup").join(top),
        };
        assert_eq!(
            hierarchies(groups, mounts),
            [
                of(&["memory"], "memory/b", "memory"),
                of(&["cpu", "cpuacct"], "cpu,cpuacct", "cpu,cpuacct"),
                of(&[], "unified/user.slice", "unified"),
            ]
        );
    }

    #[test]
    fn a_counter_is_read_by_its_name() {
        let text = "low 0\noom 3\noom_kill 2\noom_group_kill 0\n";
        assert_eq!((counter(text, "oom_kill"), counter(text, "max")), (2, 0));
    }
}
