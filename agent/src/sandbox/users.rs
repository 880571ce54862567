//! Users of a machine that are stages': each attempt of a superuser's agent runs as one that nobody else is.
//!
//! **Invariants:** no two attempts on the machine have the same user, whichever agents they are of; a user is free again when nothing of the
//! attempt runs and its files are gone.

use std::{
    collections::BTreeSet,
    fmt,
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    str::FromStr,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU32, Ordering},
    },
    thread::sleep,
    time::Duration,
};

use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use service::file::LockFile;
use tokio::task::spawn_blocking;

use crate::{process_file, spool::leftovers};

/// The range where an operator names none. systemd's table of users (`UIDS-GIDS`) leaves 1,879,048,192 to 2,147,352,575 to nobody: above the
/// ranges of containers and of network directories, below what a signed number takes.
const DEFAULT: UserRange = UserRange { first: 1_900_000_000, last: 1_900_004_095 };
/// No user below is a stage's: they are the system's and people's (`man 5 login.defs`, `UID_MAX`).
const FIRST_MIN: u32 = 65_536;
/// The kernel's "nobody said which".
const LAST_MAX: u32 = u32::MAX - 1;
/// Where agents on one machine see which users are taken: one file for each, locked as long as that.
const LOCKS: &str = "/run/otto/users";
/// Users that are claimed at a time, at most: one look at the processes of a busy machine takes some milliseconds.
const AHEAD_MAX: u32 = 16;
/// And no more than one of so many of the range, as other agents want some, too.
const SHARE_AHEAD: u32 = 64;
/// Between two looks for what still runs as users whose attempts have ended.
const CLEARING_PAUSE: Duration = Duration::from_millis(200);

/// Users and groups of the same numbers, from the first to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserRange {
    first: u32,
    last: u32,
}

/// Whose processes stages are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StageUsers {
    /// Each attempt a user of its own, where the agent can do that and the tools that it knows can be read by such.
    #[default]
    Auto,
    /// The agent's own.
    Same,
    /// Each attempt one of these; an agent that cannot do that does not start.
    Range(UserRange),
}

impl StageUsers {
    /// The range, where there is one.
    pub(super) fn range(self) -> Option<UserRange> {
        match self {
            Self::Auto => Some(DEFAULT),
            Self::Same => None,
            Self::Range(range) => Some(range),
        }
    }
}

/// Why a text names no users.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is none of auto, same, FIRST-LAST: a range of user ids from {FIRST_MIN}, such as {DEFAULT}")]
pub struct UnknownUsers(String);

impl FromStr for StageUsers {
    type Err = UnknownUsers;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let range = || {
            let (first, last) = text.split_once('-')?;
            let range = UserRange { first: first.parse().ok()?, last: last.parse().ok()? };
            (range.first >= FIRST_MIN && range.first <= range.last && range.last <= LAST_MAX).then_some(range)
        };
        match text {
            "auto" => Ok(Self::Auto),
            "same" => Ok(Self::Same),
            _ => range().map(Self::Range).ok_or_else(|| UnknownUsers(text.to_owned())),
        }
    }
}

impl fmt::Display for UserRange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}", self.first, self.last)
    }
}

impl fmt::Display for StageUsers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => formatter.write_str("auto"),
            Self::Same => formatter.write_str("same"),
            Self::Range(range) => range.fmt(formatter),
        }
    }
}

/// Those that an agent may take.
#[derive(Debug)]
pub(crate) struct Users {
    range: UserRange,
    locks: PathBuf,
    /// Who is tried next, counted from the first: who was let go just now comes last.
    next: AtomicU32,
    /// Claimed ahead: who runs as whom is found out for some at a time, since it is asked of every process of the machine.
    ahead: Mutex<Vec<User>>,
    /// Held by whoever claims more of them.
    claiming: Mutex<()>,
    clearing: Arc<Clearing>,
}

/// A user, and the group of the same number, for as long as this is there.
#[derive(Debug)]
pub(crate) struct User {
    id: u32,
    clearing: Arc<Clearing>,
    /// It ends with the process, too.
    _lock: LockFile,
}

impl Users {
    /// Those of a range.
    pub(super) fn of(range: UserRange) -> io::Result<Self> {
        Self::with_locks(range, Path::new(LOCKS))
    }

    fn with_locks(range: UserRange, locks: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(locks)?;
        // Agents do not begin at the same one, nor where an earlier life did.
        let next = AtomicU32::new(std::process::id());
        Ok(Self { range, locks: locks.to_owned(), next, ahead: Mutex::default(), claiming: Mutex::default(), clearing: Arc::default() })
    }

    /// One that nobody has, and as whom nothing runs.
    pub(crate) fn claim(&self) -> io::Result<User> {
        loop {
            if let Some(user) = self.ahead().pop() {
                return Ok(user);
            }
            let _alone = self.claiming.lock().expect("no holder of this lock panics");
            // Somebody else may have claimed more meanwhile.
            if self.ahead().is_empty() {
                let mut free = self.free()?;
                let own = free.pop().ok_or_else(|| io::Error::other(format!("no user of {} is free for the stage", self.range)))?;
                self.ahead().extend(free);
                return Ok(own);
            }
        }
    }

    /// Claims more ahead, if fewer than half of them are left, so that no attempt waits for that. What goes wrong is said to whoever needs one.
    pub(crate) fn top_up(&self) {
        let is_low = || self.ahead().len() < self.wanted() as usize / 2;
        if is_low()
            && let Ok(_alone) = self.claiming.try_lock()
            && is_low()
            && let Ok(free) = self.free()
        {
            self.ahead().extend(free);
        }
    }

    fn ahead(&self) -> MutexGuard<'_, Vec<User>> {
        self.ahead.lock().expect("no holder of this lock panics")
    }

    /// How many are claimed at a time.
    fn wanted(&self) -> u32 {
        (self.count() / SHARE_AHEAD).clamp(1, AHEAD_MAX)
    }

    fn count(&self) -> u32 {
        self.range.last - self.range.first + 1
    }

    /// Some of them, at least one if there is one. Nobody becomes them once they are locked.
    fn free(&self) -> io::Result<Vec<User>> {
        let (first, count, wanted) = (self.range.first, self.count(), self.wanted());
        let mut tried = 0;
        while tried < count {
            let mut locked = Vec::new();
            while tried < count && locked.len() < wanted as usize {
                tried += 1;
                let id = first + self.next.fetch_add(1, Ordering::Relaxed) % count;
                let lock = LockFile::open(&self.locks.join(id.to_string()))?;
                if lock.try_hold()? {
                    locked.push(User { id, clearing: self.clearing.clone(), _lock: lock });
                }
            }
            let running = running()?;
            locked.retain(|user| !running.contains(&user.id));
            if !locked.is_empty() {
                return Ok(locked);
            }
        }
        Ok(Vec::new())
    }
}

/// Ends what still runs as users whose attempts have ended, for all of them at a time. They are not free before that.
#[derive(Debug, Default)]
struct Clearing(Mutex<Ended>);

#[derive(Debug, Default)]
struct Ended {
    users: Vec<Arc<User>>,
    /// Whether somebody is at it.
    is_at_work: bool,
}

impl Clearing {
    fn take(self: Arc<Self>, user: Arc<User>) {
        let mut ended = self.ended();
        ended.users.push(user);
        if !std::mem::replace(&mut ended.is_at_work, true) {
            drop(ended);
            drop(spawn_blocking(move || self.clear()));
        }
    }

    fn clear(&self) {
        loop {
            let users = {
                let mut ended = self.ended();
                ended.is_at_work = !ended.users.is_empty();
                std::mem::take(&mut ended.users)
            };
            if users.is_empty() {
                return;
            }
            leftovers::end_users(&users.iter().map(|user| user.id).collect());
            drop(users);
            sleep(CLEARING_PAUSE);
        }
    }

    fn ended(&self) -> MutexGuard<'_, Ended> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

impl User {
    /// Its attempt has ended: what somebody else started for it, such as a service that runs people's jobs, is ended soon.
    pub(super) fn end(self: Arc<Self>) {
        self.clearing.clone().take(self);
    }

    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// Does something with files as this user, whoever the agent is: with no right that the stage does not have itself, but the agent's groups.
    pub(crate) fn act<T>(&self, work: impl FnOnce() -> T) -> T {
        /// Only this thread is changed, and changed back however the work ends.
        struct Back(Uid, Gid);
        impl Drop for Back {
            fn drop(&mut self) {
                setfsuid(self.0);
                setfsgid(self.1);
            }
        }
        let (user, group) = (Uid::from_raw(self.id), Gid::from_raw(self.id));
        let group_before = setfsgid(group);
        let _back = Back(setfsuid(user), group_before);
        // A call says who it was before; this one changes nothing.
        assert!(setfsuid(user) == user && setfsgid(group) == group, "only a superuser's agent has users, and may be anybody");
        work()
    }
}

/// Every user as whom something runs, whichever of its four it is.
fn running() -> io::Result<BTreeSet<u32>> {
    let processes = fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    Ok(processes.flat_map(of_process).collect())
}

/// The users of a process: real, effective, saved, and that for files (`man 5 proc_pid_status`). None if it is gone.
pub(crate) fn of_process(pid: i32) -> Vec<u32> {
    let status = process_file::beginning(pid, "status");
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
    line.split_whitespace().filter_map(|id| id.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_read_as_they_are_shown() {
        let range = StageUsers::Range(UserRange { first: 100_000, last: 100_009 });
        for users in [StageUsers::Auto, StageUsers::Same, range, StageUsers::Range(DEFAULT)] {
            assert_eq!(users.to_string().parse(), Ok(users));
        }
        for wrong in ["", "0-10", "1000-2000", "100001-100000", "100000", "100000-4294967295", "a-b"] {
            assert_eq!(wrong.parse::<StageUsers>(), Err(UnknownUsers(wrong.to_owned())));
        }
        let said = UnknownUsers("x".to_owned()).to_string();
        assert_eq!(said, "`x` is none of auto, same, FIRST-LAST: a range of user ids from 65536, such as 1900000000-1900004095");
    }

    #[test]
    fn nobody_has_the_user_of_another() {
        let folder = tempfile::tempdir().unwrap();
        let range = UserRange { first: 1_900_100_000, last: 1_900_100_002 };
        // Two agents on one machine.
        let agents = [0, 1].map(|_| Users::with_locks(range, folder.path()).unwrap());
        let claimed: Vec<_> = (0..3).map(|number| agents[number % 2].claim().unwrap()).collect();
        assert_eq!(claimed.iter().map(User::id).collect::<BTreeSet<_>>(), (range.first..=range.last).collect());
        let full = agents[0].claim().unwrap_err().to_string();
        assert_eq!(full, "no user of 1900100000-1900100002 is free for the stage");
        let freed = claimed.into_iter().next().map(|user| user.id()).unwrap();
        assert!((range.first..=range.last).contains(&freed));
        assert!(agents[1].claim().is_ok());
    }

    #[test]
    fn more_are_claimed_before_the_last_of_those_ahead_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let users = |last| Users::with_locks(UserRange { first: 1_900_100_000, last }, folder.path()).unwrap();
        let (many, few) = (users(1_900_100_511), users(1_900_100_002));
        let mut claimed = Vec::new();
        let mut ahead = || {
            claimed.push(many.claim().unwrap());
            many.top_up();
            many.ahead().len()
        };
        // Eight at a time, of 512; more as soon as fewer than four are left.
        assert_eq!([(); 6].map(|()| ahead()), [7, 6, 5, 4, 11, 10]);
        let ids: BTreeSet<u32> = claimed.iter().map(User::id).chain(many.ahead().iter().map(User::id)).collect();
        assert_eq!(ids.len(), 16, "nobody has the user of another");
        // Of a few, none is kept from other agents.
        few.top_up();
        assert_eq!(few.ahead().len(), 0);
    }

    #[test]
    fn as_whom_something_runs_is_taken() {
        let own = Uid::current().as_raw();
        assert!(running().unwrap().contains(&own));
        assert_eq!(of_process(nix::unistd::getpid().as_raw())[0], own);
    }
}
