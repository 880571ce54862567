//! The directories of one attempt: fresh when it begins, gone when it is over, or fresh again.
//!
//! ```text
//! <n>/source     where steps run
//!    /home, /tmp, …
//! <n>.layers/    what is written to a source that is mounted: out of the reach of steps
//! ```
//!
//! Making and removing directories is half of what a small stage costs on some disks, and most stages leave some of theirs as they were. The
//! next attempt has those; see [`Workspace::renew`].
//!
//! **Invariant:** what an attempt finds does not tell it whether one before had it.

use std::{
    fs::DirBuilder,
    io,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::{DirBuilderExt as _, lchown},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use nix::{
    fcntl::{OFlag, open},
    mount::{MntFlags, umount2},
    sys::stat::Mode,
    unistd::{getegid, geteuid},
};

use super::stamp::Stamp;
use crate::sandbox::{LOWER, UPPER, User, WORK};

/// `<root>/source`, where steps run, and beside it what is not part of the source.
#[derive(Debug, Clone)]
pub(crate) struct Workspace {
    root: PathBuf,
    /// Where steps run instead: a person's own directory, which is neither filled nor removed.
    foreign: Option<PathBuf>,
    /// Whose the directories are, if not the agent's own user's.
    user: Option<Arc<User>>,
    /// As what the directories were made; `None` if it could not be told whether they were touched.
    untouched: Option<Arc<[Stamp; 4]>>,
}

/// A folder of an attempt, as the agent itself reaches it.
#[derive(Debug, Clone)]
pub(crate) struct Reach {
    path: PathBuf,
    user: Option<Arc<User>>,
    /// What the path goes through.
    held: Option<Arc<OwnedFd>>,
}

impl Reach {
    /// A folder of this user that others see, too.
    pub(crate) fn at(path: PathBuf, user: Option<Arc<User>>) -> Self {
        Self { path, user, held: None }
    }

    /// A folder of this user that only the attempt's processes see at its path.
    pub(crate) fn through(folder: Arc<OwnedFd>, user: Option<Arc<User>>) -> Self {
        Self { path: path_of(&folder), user, held: Some(folder) }
    }

    /// Holds the folder. Where the path is one that steps see, one of them may have put a link there: that is not followed.
    pub(crate) fn hold(&self) -> nix::Result<OwnedFd> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let is_plain = self.held.is_none();
        open(&self.path, if is_plain { flags | OFlag::O_NOFOLLOW } else { flags }, Mode::empty())
    }

    /// Does something with the rights of the attempt's user.
    pub(crate) fn act<T>(&self, work: impl FnOnce() -> T) -> T {
        match &self.user {
            None => work(),
            Some(user) => user.act(work),
        }
    }

    /// Does something in the folder, by the path that it is given, with the rights of the attempt's user.
    pub(crate) fn within<T>(&self, work: impl FnOnce(&Path) -> T) -> io::Result<T> {
        let Some(user) = &self.user else { return Ok(work(&self.path)) };
        // What lies above is not for the user to go through.
        let held = self.hold()?;
        Ok(user.act(|| work(&path_of(&held))))
    }

    /// Does something in the folder with the agent's own rights: what is there was made by nobody but the agent. What is made is to be
    /// this user's.
    pub(crate) fn untouched<T>(&self, work: impl FnOnce(&Path, Option<u32>) -> T) -> T {
        work(&self.path, self.user.as_deref().map(User::id))
    }
}

/// The path of what is held.
pub(super) fn path_of(held: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", held.as_raw_fd()))
}

impl Workspace {
    /// The one at `root`, which need not exist.
    pub(crate) fn at(root: PathBuf) -> Self {
        Self { root, foreign: None, user: None, untouched: None }
    }

    /// The same, whose directories and processes are this user's.
    pub(crate) fn of(self, user: Option<Arc<User>>) -> Self {
        Self { user, ..self }
    }

    /// Whose the directories are, if not the agent's own user's.
    pub(crate) fn user(&self) -> Option<&User> {
        self.user.as_deref()
    }

    /// The same, to keep.
    pub(crate) fn shared_user(&self) -> Option<Arc<User>> {
        self.user.clone()
    }

    /// The same, for processes of the agent's own user. Nobody has used it yet.
    pub(crate) fn taken_back(self) -> io::Result<Self> {
        if self.user.is_some() {
            let (user, group) = (geteuid().as_raw(), getegid().as_raw());
            self.folders().iter().try_for_each(|path| lchown(path, Some(user), Some(group)))?;
        }
        Ok(Self { user: None, ..self })
    }

    /// The same, whose steps run in a person's own directory.
    pub(crate) fn in_place(self, directory: PathBuf) -> Self {
        Self { foreign: Some(directory), ..self }
    }

    /// Whether steps run in a person's own directory.
    pub(crate) fn is_foreign(&self) -> bool {
        self.foreign.is_some()
    }

    /// Makes the directories. Only its user can enter them.
    pub(crate) fn create(&self) -> io::Result<()> {
        self.folders().iter().try_for_each(|path| make(path))?;
        self.give_away()
    }

    /// Makes the directories, but those that are there from [`Workspace::renew`]. What becomes of them is noticed, if stamps tell.
    pub(crate) fn furnish(self, stamps_tell: bool) -> io::Result<Self> {
        match self.untouched {
            None => self.create()?,
            Some(_) => self.give_away()?,
        }
        let untouched = stamps_tell.then(|| self.stamps().map(Arc::new)).transpose()?;
        Ok(Self { untouched, ..self })
    }

    /// Makes the directories as they were before the attempt, for [`Workspace::furnish`]: those that somebody has touched are made anew. Where
    /// that cannot be told, everything is removed. Nothing of the attempt may be running.
    pub(crate) fn renew(self) -> io::Result<Self> {
        let Some(before) = self.untouched.as_deref().filter(|_| self.foreign.is_none()) else { return self.vanish() };
        let folders = self.folders();
        let is_touched = |place: usize| Ok::<_, io::Error>(Stamp::of(&folders[place])? != before[place]);
        if is_touched(0)? {
            // Whatever lies beside the others.
            return self.vanish();
        }
        for (place, folder) in folders.iter().enumerate().skip(1) {
            if is_touched(place)? {
                remove_tree(folder)?;
                make(folder)?;
            }
        }
        remove_tree(&self.layers_folder())?;
        // Its user is somebody else's soon, who must not find them.
        self.taken_back()
    }

    fn vanish(&self) -> io::Result<Self> {
        self.remove()?;
        Ok(Self::at(self.root.clone()))
    }

    /// The outer before the inner.
    fn folders(&self) -> [PathBuf; 4] {
        [self.root.clone(), self.source(), self.home(), self.temporary()]
    }

    fn stamps(&self) -> io::Result<[Stamp; 4]> {
        let [root, source, home, temporary] = self.folders();
        Ok([Stamp::of(&root)?, Stamp::of(&source)?, Stamp::of(&home)?, Stamp::of(&temporary)?])
    }

    fn give_away(&self) -> io::Result<()> {
        let Some(user) = &self.user else { return Ok(()) };
        self.folders().iter().rev().try_for_each(|path| lchown(path, Some(user.id()), Some(user.id())))
    }

    /// Where steps run, as the agent reaches it.
    pub(crate) fn reach_source(&self) -> Reach {
        Reach::at(self.source(), self.user.clone())
    }

    /// The directory that holds the others, as the agent reaches it.
    pub(crate) fn reach_root(&self) -> Reach {
        Reach::at(self.root.clone(), self.user.clone())
    }

    /// The directory that holds the others.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where steps run: the source tree.
    pub(crate) fn source(&self) -> PathBuf {
        self.foreign.clone().unwrap_or_else(|| self.root.join("source"))
    }

    /// The steps' `HOME`.
    pub(crate) fn home(&self) -> PathBuf {
        self.root.join("home")
    }

    /// The steps' `TMPDIR`.
    pub(crate) fn temporary(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// Where the script of a step is written that cannot be an argument.
    pub(crate) fn script(&self, step: u32) -> PathBuf {
        self.root.join(format!("step-{step}"))
    }

    /// Where a call of a step's program lies: what it is given, and its socket.
    pub(crate) fn call(&self, step: u32, number: u32) -> PathBuf {
        self.root.join(format!("call-{step}-{number}"))
    }

    /// Makes the folder for what is written to a source that is mounted, with those that this needs.
    pub(crate) fn layers(&self) -> io::Result<PathBuf> {
        let folder = self.layers_folder();
        let upper = folder.join(UPPER);
        for path in [&folder, &upper, &folder.join(WORK), &folder.join(LOWER)] {
            DirBuilder::new().mode(0o700).create(path)?;
        }
        if let Some(user) = &self.user {
            lchown(upper, Some(user.id()), Some(user.id()))?;
        }
        Ok(folder)
    }

    fn layers_folder(&self) -> PathBuf {
        self.root.with_extension("layers")
    }

    /// Where what its stage writes takes room on the disk.
    pub(crate) fn trees(&self) -> [PathBuf; 2] {
        [self.root.clone(), self.layers_folder()]
    }

    /// Removes everything. It is no error if nothing is there.
    pub(crate) fn remove(&self) -> io::Result<()> {
        let [root, layers] = self.trees().map(|tree| remove_tree(&tree));
        root.and(layers)
    }
}

fn make(folder: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(folder)
}

/// Removes a tree that stages have made, with whatever they have done to keep it; see [`tree::remove`]. What they have mounted in it is
/// unmounted, and not looked into: behind it may be the machine's own files.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    tree::remove(path, &|mounted| Ok(umount2(mounted, MntFlags::MNT_DETACH)?))
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, Permissions},
        os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    };

    use super::*;
    use crate::executor::stamp::stamps_tell;

    #[test]
    fn a_tree_that_cannot_be_written_to_is_removed_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let workspace = Workspace::at(folder.path().join("w"));
        workspace.create().unwrap();
        let locked = workspace.source().join("locked");
        fs::create_dir(&locked).unwrap();
        fs::write(locked.join("file"), "x").unwrap();
        fs::set_permissions(&locked, Permissions::from_mode(0o555)).unwrap();
        workspace.remove().unwrap();
        assert!(!folder.path().join("w").exists());
        workspace.remove().unwrap();
    }

    #[test]
    fn a_persons_own_directory_is_neither_removed_nor_renewed() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("own");
        fs::create_dir(&own).unwrap();
        fs::write(own.join("file"), "x").unwrap();
        let workspace = Workspace::at(folder.path().join("w")).furnish(stamps_tell(folder.path())).unwrap();
        let workspace = workspace.in_place(own.clone());
        assert_eq!(workspace.source(), own);
        workspace.renew().unwrap();
        assert!(own.join("file").is_file() && !folder.path().join("w").exists());
    }

    /// What an attempt can see of its directories, but their times.
    fn seen(workspace: &Workspace) -> Vec<(PathBuf, u32, u32, Vec<PathBuf>)> {
        let look = |path: PathBuf| {
            let about = fs::symlink_metadata(&path).unwrap();
            let mut entries: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).collect();
            entries.sort();
            (path, about.mode(), about.uid(), entries)
        };
        workspace.folders().map(look).to_vec()
    }

    fn inodes(workspace: &Workspace) -> [u64; 4] {
        workspace.folders().map(|path| fs::symlink_metadata(path).unwrap().ino())
    }

    /// What is done, how many of the directories stay then, and how it is done.
    type Touch = (&'static str, usize, fn(&Workspace));

    #[test]
    fn what_nobody_touched_is_the_next_ones_and_what_somebody_did_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let tells = stamps_tell(folder.path());
        let mut workspace = Workspace::at(folder.path().join("w")).furnish(tells).unwrap();
        let fresh = seen(&workspace);
        let touches: [Touch; 8] = [
            ("nothing", 4, |_| {}),
            ("a file in the source", 3, |workspace| fs::write(workspace.source().join("file"), "x").unwrap()),
            ("one that is gone again", 3, |workspace| {
                fs::write(workspace.home().join("file"), "x").unwrap();
                fs::remove_file(workspace.home().join("file")).unwrap();
            }),
            ("a mode", 3, |workspace| fs::set_permissions(workspace.temporary(), Permissions::from_mode(0o777)).unwrap()),
            ("a mode that is the same again", 3, |workspace| {
                for mode in [0o777, 0o700] {
                    fs::set_permissions(workspace.home(), Permissions::from_mode(mode)).unwrap();
                }
            }),
            ("a link in place of a directory", 0, |workspace| {
                fs::remove_dir(workspace.home()).unwrap();
                symlink("/", workspace.home()).unwrap();
            }),
            ("a script beside them", 0, |workspace| fs::write(workspace.script(0), "x").unwrap()),
            ("all of them", 1, |workspace| {
                for path in [workspace.source(), workspace.home(), workspace.temporary()] {
                    fs::create_dir(path.join("folder")).unwrap();
                }
            }),
        ];
        for (what, kept, touch) in touches {
            let before = workspace.untouched.clone();
            touch(&workspace);
            let renewed = workspace.renew().unwrap();
            assert_eq!(renewed.untouched.is_some(), tells && kept > 0, "{what}");
            if let (Some(before), true) = (before, renewed.untouched.is_some()) {
                let same = renewed.stamps().unwrap().iter().zip(before.iter()).skip(1).filter(|(now, then)| now == then).count();
                assert_eq!(same + 1, kept, "{what}");
            }
            workspace = renewed.furnish(tells).unwrap();
            assert_eq!(seen(&workspace), fresh, "{what}");
        }
        let before = inodes(&workspace);
        let workspace = workspace.renew().unwrap().furnish(tells).unwrap();
        assert_eq!(inodes(&workspace) == before, tells, "nothing was touched");
    }
}
