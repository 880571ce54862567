//! The work directory as a snapshot of the source, by overlayfs: the source is read where the agent keeps it unpacked, and what the stage
//! writes goes to a folder of the attempt, out of its reach.
//!
//! Only who may mount makes one: the init in namespaces of its own, and elsewhere that of a superuser. Nobody of the stage reaches the layers
//! but through the mount, which takes no whiteouts and no attributes of its own kind from them; and the agent never reads the layers, but what
//! is mounted. The sources do not change.

use std::{
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use nix::{
    mount::MsFlags,
    sched::{CloneFlags, unshare},
};
use serde::{Deserialize, Serialize};

use super::{
    sys::{Reach, mount_mapped, set_read_only},
    view::{bind, from, look, mount_plain},
};

/// The users of the machine itself, as `/proc/self/uid_map` says it: all of them, as themselves (`man 7 user_namespaces`).
const EVERY_USER: [&str; 3] = ["0", "0", "4294967295"];

/// In the layers: what is written.
pub(crate) const UPPER: &str = "upper";
/// In the layers: what the file system itself needs.
pub(crate) const WORK: &str = "work";

/// In the layers: where the source is mounted as the attempt's user's.
pub(crate) const LOWER: &str = "lower";

/// What is mounted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Overlay {
    /// The source, which stays as it is.
    pub(crate) lower: PathBuf,
    /// The folder with [`LOWER`], [`UPPER`] and [`WORK`], all empty.
    pub(crate) layers: PathBuf,
    /// Where it is seen.
    pub(crate) at: PathBuf,
}

impl Overlay {
    /// Mounts it for this process and what it starts, and gives the folder, by which others reach it. In a view of its own, where all is
    /// read-only and `reach` says how a path is reached.
    pub(super) fn mount_in_view(&self, users: Option<&OwnedFd>, reach: impl Fn(&Path) -> PathBuf) -> io::Result<OwnedFd> {
        // Where the layers can be written to, and in the end nobody comes.
        bind(&reach(&self.layers), &self.at)?;
        set_read_only(&self.at, Reach::One, false)?;
        let layers = look(&self.at)?;
        self.mount(&reach(&self.lower), &from(&layers), users)
    }

    fn mount(&self, lower: &Path, layers: &Path, users: Option<&OwnedFd>) -> io::Result<OwnedFd> {
        let mapped = layers.join(LOWER);
        if let Some(users) = users {
            mount_mapped(lower, &mapped, users)?;
        }
        let lower = users.map_or(lower, |_| &mapped);
        let [lower, upper, work] = [lower, &layers.join(UPPER), &layers.join(WORK)].map(escape);
        // Nobody needs it after a power loss; without `volatile`, its end would wait for the whole disk to be written.
        let mut options = format!("lowerdir={lower},upperdir={upper},workdir={work},volatile");
        // A superuser's can move folders of the source; what it notes for that nobody else may write, and no other can.
        options += if is_of_the_machine() { ",redirect_dir=on" } else { ",userxattr" };
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        let mounted = mount_plain(Some("overlay"), &self.at, Some("overlay"), flags, Some(&options));
        mounted.map_err(|error| io::Error::new(error.kind(), format!("the work directory cannot be mounted: {error}")))?;
        Ok(look(&self.at)?.into())
    }

    /// The same, where files are seen as the machine has them.
    pub(super) fn mount_plainly(&self, users: Option<&OwnedFd>) -> io::Result<OwnedFd> {
        self.mount(&self.lower, &self.layers, users)
    }
}

/// From now on this process mounts for itself and what it starts. Only a superuser can do just so.
pub(super) fn leave_mounts() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount_plain(None, Path::new("/"), None, MsFlags::MS_REC | MsFlags::MS_SLAVE, None)
}

/// Whether this process is in no user namespace but the first.
fn is_of_the_machine() -> bool {
    fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| map.split_whitespace().eq(EVERY_USER))
}

/// A path within overlay's options, where commas and colons have a meaning.
fn escape(path: &Path) -> String {
    path.to_string_lossy().replace('\\', r"\\").replace(':', r"\:").replace(',', r"\,")
}
