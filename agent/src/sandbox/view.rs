//! The files that a stage sees in namespaces of its own, made by its init before anything of the stage runs.
//!
//! The machine's own files, read-only, but:
//!
//! - `/tmp` and `/var/tmp` are the attempt's own folder for such;
//! - `/dev` has a terminal multiplexer of its own and the devices that every program may use, no disk;
//! - `/proc` shows the attempt's processes only;
//! - `/run`, people's homes, and what belongs to the agent are empty; what the stage needs of them is put back.
//!
//! **Invariant:** what may be written lies in the attempt's own folders, or was declared by the operator.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::{OpenOptionsExt as _, symlink},
    },
    path::{Path, PathBuf},
};

use nix::{
    fcntl::OFlag,
    mount::{MsFlags, mount},
};
use serde::{Deserialize, Serialize};

use super::{
    overlay::Overlay,
    sys::{Reach, set_read_only},
    wire::Beginning,
};

/// Folders of everybody, which are each attempt's own.
const OWN_FOLDERS: [&str; 2] = ["/tmp", "/var/tmp"];
/// Devices that every program may use; those that the machine does not have are left out.
const DEVICES: [&str; 8] = ["null", "zero", "full", "random", "urandom", "tty", "fuse", "net/tun"];
/// Links of `/dev`.
const LINKS: [(&str, &str); 5] = [("ptmx", "pts/ptmx"), ("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")];
/// The places of `/proc` by which the superuser changes the machine, whatever its rights: only a mount that is read-only stops it.
const MACHINE: [&str; 4] = ["/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus"];
/// What of `/run` is no door to a service, but names: how hosts are found, and where some systems keep their programs.
const RUN_KEPT: [&str; 5] = ["/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager", "/run/current-system", "/run/wrappers"];
/// A folder that is there instead of another holds no more than mount points.
const EMPTY_OPTIONS: &str = "mode=755,size=1m";
/// Where programs share memory (`man 7 shm_overview`).
pub(super) const SHARED_MEMORY: &str = "/dev/shm";
/// The most shared memory of a stage: it counts as the stage's memory where that is limited.
const SHARED_MEMORY_OPTIONS: &str = "mode=1777,size=50%";

/// What a stage's files are made from.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct View {
    /// The attempt's own folder, to be written.
    pub(super) workspace: PathBuf,
    /// What is there instead of `/tmp`; it lies in the workspace.
    pub(super) temporary: PathBuf,
    /// The home of its processes; it lies in the workspace.
    pub(super) home: PathBuf,
    /// Folders that are empty for the stage, if they are there.
    pub(super) hidden: Vec<PathBuf>,
    /// Files that cannot be read.
    pub(super) secret: Vec<PathBuf>,
    /// What is seen, also in hidden folders.
    pub(super) shown: Vec<PathBuf>,
    /// What may be written besides the workspace.
    pub(super) writable: Vec<PathBuf>,
}

/// The files of a stage, made; until it begins, what is hidden can still be reached by whoever has this.
#[derive(Debug)]
pub(super) struct Made(Hidden);

/// What is hidden.
#[derive(Debug)]
struct Hidden {
    /// As it was, the outer before the inner.
    before: Vec<(PathBuf, File)>,
    /// What is there instead.
    covers: Vec<PathBuf>,
}

/// A place that is to be seen in the end, held while others are put over it.
struct Held {
    path: PathBuf,
    file: File,
    writable: bool,
}

impl View {
    /// Makes it of what this process sees, which must be in a mount namespace of its own.
    pub(super) fn make(&self, is_superuser: bool) -> io::Result<Made> {
        let step = |what: &'static str| move |error: io::Error| io::Error::new(error.kind(), format!("{what}: {error}"));
        mount_plain(None, Path::new("/"), None, MsFlags::MS_REC | MsFlags::MS_SLAVE, None).map_err(step("the mounts stay shared"))?;
        let temporary = look(&self.temporary)?;
        let mut held = Vec::new();
        for (path, writable) in self.kept() {
            // What is not there need not be seen.
            if let Ok(file) = look(&path) {
                held.push(Held { path, file, writable });
            }
        }
        let hidden = self.hide().map_err(step("a folder cannot be hidden"))?;
        for folder in OWN_FOLDERS.map(Path::new).into_iter().filter(|folder| folder.is_dir()) {
            bind(&from(&temporary), folder).map_err(step("no /tmp of its own"))?;
        }
        devices().map_err(step("no /dev of its own"))?;
        set_read_only(Path::new("/"), Reach::Deep, true).map_err(step("the machine's files cannot be read-only"))?;
        for folder in OWN_FOLDERS.iter().chain(&["/dev/pts", SHARED_MEMORY]).map(Path::new).filter(|folder| folder.is_dir()) {
            set_read_only(folder, Reach::One, false).map_err(step("a folder of its own cannot be written"))?;
        }
        processes(is_superuser).map_err(step("no /proc of its own"))?;
        for held in &held {
            held.put_back(&hidden.covers).map_err(step("a place cannot be seen"))?;
        }
        for secret in self.secret.iter().filter(|secret| secret.is_file()) {
            bind(Path::new("/dev/null"), secret).map_err(step("a file cannot be hidden"))?;
        }
        std::env::set_current_dir("/")?;
        Ok(Made(hidden))
    }

    /// What is put back, the outer before the inner.
    fn kept(&self) -> Vec<(PathBuf, bool)> {
        let shown = self.shown.iter().cloned().chain(RUN_KEPT.map(PathBuf::from)).map(|path| (path, false));
        let writable = self.writable.iter().cloned().chain([self.workspace.clone()]).map(|path| (path, true));
        let mut kept: Vec<_> = shown.chain(writable).collect();
        kept.sort();
        kept
    }

    /// Puts an empty folder over each that is hidden, but where that is done by another; holds them as they were.
    fn hide(&self) -> io::Result<Hidden> {
        let mut hidden = Hidden { before: Vec::new(), covers: OWN_FOLDERS.map(PathBuf::from).to_vec() };
        for folder in self.hidden.iter().filter(|folder| folder.is_dir()) {
            hidden.before.push((folder.clone(), look(folder)?));
        }
        hidden.before.sort_by(|(left, _), (right, _)| left.cmp(right));
        for (folder, _) in &hidden.before {
            if !hidden.covers.iter().any(|cover| folder.starts_with(cover)) {
                mount_plain(Some("tmpfs"), folder, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some(EMPTY_OPTIONS))?;
                hidden.covers.push(folder.clone());
            }
        }
        Ok(hidden)
    }
}

impl Held {
    /// Makes it seen at its path again.
    fn put_back(&self, covers: &[PathBuf]) -> io::Result<()> {
        if is_covered(&self.path, covers) {
            make_place_in(covers, &self.path, self.file.metadata()?.is_dir())?;
        } else if !self.writable {
            return Ok(());
        }
        bind(&from(&self.file), &self.path)?;
        match set_read_only(&self.path, Reach::Deep, !self.writable) {
            // What the machine itself has mounted read-only stays so.
            Err(error) if self.writable && error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            result => result,
        }
    }
}

impl Made {
    /// Shows the folders that the stage's steps keep, mounts the work directory, if it is a snapshot, and closes what was hidden for good.
    pub(super) fn finish(self, overlay: Option<&Overlay>, users: Option<&OwnedFd>, beginning: &Beginning) -> io::Result<Option<OwnedFd>> {
        if let Some(hosts) = &beginning.hosts {
            let table = Path::new("/etc/hosts");
            bind(&self.reach(hosts), table)?;
            set_read_only(table, Reach::One, true)?;
        }
        for folder in &beginning.kept {
            let from = self.reach(folder);
            make_place_in(&self.0.covers, folder, true)?;
            bind(&from, folder)?;
            set_read_only(folder, Reach::Deep, false)?;
        }
        overlay.map(|overlay| overlay.mount_in_view(users, |path| self.reach(path))).transpose()
    }

    /// The path by which a place can be reached that is hidden by now.
    fn reach(&self, path: &Path) -> PathBuf {
        match self.0.before.iter().rev().find(|(folder, _)| path.starts_with(folder)) {
            Some((folder, file)) => from(file).join(path.strip_prefix(folder).unwrap_or(path)),
            None => path.to_owned(),
        }
    }
}

/// A `/dev` that has no disk.
fn devices() -> io::Result<()> {
    let folder = Path::new("/dev");
    let mut held = Vec::new();
    for name in DEVICES {
        if let Ok(device) = look(&folder.join(name)) {
            held.push((folder.join(name), device));
        }
    }
    mount_plain(Some("tmpfs"), folder, Some("tmpfs"), MsFlags::MS_NOSUID, Some(EMPTY_OPTIONS))?;
    for (path, device) in held {
        make_place(&path, false)?;
        bind(&from(&device), &path)?;
    }
    for (name, target) in LINKS {
        symlink(target, folder.join(name))?;
    }
    for name in ["pts", "shm"] {
        fs::create_dir(folder.join(name))?;
    }
    let options = "newinstance,ptmxmode=0666,mode=620";
    mount_plain(Some("devpts"), &folder.join("pts"), Some("devpts"), MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC, Some(options))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount_plain(Some("tmpfs"), Path::new(SHARED_MEMORY), Some("tmpfs"), flags, Some(SHARED_MEMORY_OPTIONS))
}

/// A `/proc` of the namespace's own processes.
fn processes(is_superuser: bool) -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount_plain(Some("proc"), Path::new("/proc"), Some("proc"), flags, None)?;
    if is_superuser {
        for path in MACHINE.map(Path::new).into_iter().filter(|path| path.exists()) {
            bind(path, path)?;
            set_read_only(path, Reach::Deep, true)?;
        }
    }
    Ok(())
}

/// Opens a place to hold it, not to read it.
pub(super) fn look(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags((OFlag::O_PATH | OFlag::O_CLOEXEC).bits()).open(path)
}

/// The path of what is held.
pub(super) fn from(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

fn is_covered(path: &Path, covers: &[PathBuf]) -> bool {
    covers.iter().any(|cover| path.starts_with(cover))
}

/// Makes the place in an empty folder that is over what is hidden; elsewhere it is there.
fn make_place_in(covers: &[PathBuf], path: &Path, is_folder: bool) -> io::Result<()> {
    let Some(cover) = covers.iter().find(|cover| path.starts_with(cover)) else { return Ok(()) };
    let is_own = OWN_FOLDERS.iter().any(|folder| Path::new(folder) == cover);
    set_read_only(cover, Reach::One, false)?;
    make_place(path, is_folder)?;
    set_read_only(cover, Reach::One, !is_own)
}

/// Makes an empty folder or file, on which something can be mounted.
fn make_place(path: &Path, is_folder: bool) -> io::Result<()> {
    if is_folder {
        return fs::create_dir_all(path);
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match OpenOptions::new().write(true).create_new(true).open(path) {
        // It lies in a folder that is seen again already, and may be a program that runs.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map(drop),
    }
}

pub(super) fn bind(from: &Path, at: &Path) -> io::Result<()> {
    Ok(mount(Some(from), at, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)?)
}

pub(super) fn mount_plain(from: Option<&str>, at: &Path, kind: Option<&str>, flags: MsFlags, options: Option<&str>) -> io::Result<()> {
    Ok(mount(from, at, kind, flags, options)?)
}
