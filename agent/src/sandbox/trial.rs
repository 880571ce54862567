//! Finds out what a machine offers by doing it once, as an attempt would: a level of isolation, and a work directory that is mounted.

use std::{
    collections::BTreeMap,
    fs::{self, Permissions},
    io::{self, Read as _},
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::{fs::PermissionsExt as _, net::UnixStream},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use nix::unistd::geteuid;

use super::{
    Launch, Level, Overlay, Places, SandboxOptions, StageUsers, Users, landlock,
    machine::{Holder, Prepared, begin},
    users::UserRange,
    wire::{self, Order, Word},
};
use crate::executor::workspace::Workspace;

/// How long a trial may take; it takes some milliseconds.
const DEADLINE: Duration = Duration::from_secs(10);
/// What it starts.
const PROGRAM: &str = "/bin/sh";
/// What shows that a stage can work.
const WORK: &str = "exec 2>&1; : >written && test -d /proc/self";
/// What shows that a mounted work directory can be changed as any other: what is removed is gone, what is made anew has nothing of the old.
const CHANGE: &str = "exec 2>&1; rm -r folder && mkdir folder && : >folder/new && mv moves moved && echo more >>kept";

/// What shows that a stage's user reaches what stages need: each argument.
const READ: &str = r#"exec 2>&1; : >written && test -d /proc/self && for path; do
    test -r "$path" && test -x "$path" || { echo "its user cannot read $path"; exit 1; }
done"#;

/// Tries the holder's level in `data`; the error says what is missing.
pub(super) fn of_level(holder: &Holder, data: &Path) -> Result<(), String> {
    if holder.level == Level::Landlock && !landlock::is_there() {
        return Err("the kernel has no landlock, or it is switched off".to_owned());
    }
    within(data, None, |workspace| work(holder, workspace, None, WORK, &[]))
}

/// Tries to mount a work directory.
pub(super) fn of_overlay(holder: &Holder, data: &Path, users: Option<&Users>) -> Result<(), String> {
    within(data, users, |workspace| {
        let layers = workspace.layers()?;
        let lower = layers.join("source");
        fs::create_dir_all(lower.join("folder"))?;
        for file in ["folder/old", "moves", "kept"] {
            fs::write(lower.join(file), "as it was\n")?;
        }
        let overlay = Overlay { lower: lower.clone(), layers, at: workspace.source() };
        work(holder, workspace, Some(overlay), CHANGE, &[])?;
        let kept = fs::read_to_string(lower.join("kept"))? == "as it was\n" && lower.join("folder/old").exists();
        if kept { Ok(()) } else { Err(io::Error::other("what is written in it changes the source")) }
    })
}

/// Tries to run something as a user of this range, who reaches what stages need if nobody has said that the range is it.
pub(super) fn of_users(holder: &Holder, range: UserRange, data: &Path, options: &SandboxOptions) -> Result<Arc<Users>, String> {
    if !geteuid().is_root() {
        return Err("only an agent of the superuser can start processes of others".to_owned());
    }
    let users = Users::of(range).map_err(|error| format!("it is not known which are taken: {error}"))?;
    // Users go through the folder, and read nothing in it that is not theirs.
    let passed = fs::set_permissions(data, Permissions::from_mode(0o711));
    passed.map_err(|error| format!("the agent's data folder cannot be passed through: {error}"))?;
    let needed = if options.users == StageUsers::Auto { [&options.shown[..], &options.writable[..]].concat() } else { Vec::new() };
    let needed: Vec<String> =
        needed.iter().filter(|path| fs::metadata(path).is_ok()).filter_map(|path| path.to_str().map(str::to_owned)).collect();
    within(data, Some(&users), |workspace| work(holder, workspace, None, READ, &needed))?;
    Ok(Arc::new(users))
}

fn within(data: &Path, users: Option<&Users>, tried: impl FnOnce(&Workspace) -> io::Result<()>) -> Result<(), String> {
    let said = |error: io::Error| error.to_string();
    let user = users.map(Users::claim).transpose().map_err(said)?.map(Arc::new);
    let workspace = Workspace::at(data.join("trial")).of(user);
    let result = workspace.remove().and_then(|()| workspace.create()).and_then(|()| tried(&workspace));
    let removed = workspace.remove();
    result.and(removed).map_err(said)
}

/// Has an init run a script in the work directory.
fn work(holder: &Holder, workspace: &Workspace, overlay: Option<Overlay>, script: &str, arguments: &[String]) -> io::Result<()> {
    let Prepared { socket, group, .. } = holder.prepare(workspace)?;
    let result = begin(&socket, holder.beginning(workspace, &holder.limits, Places { overlay, ..Places::default() })).and_then(|mounted| {
        run(&socket, script, arguments, &workspace.source())?;
        let Some(mounted) = mounted else { return Ok(()) };
        // So the agent reaches what only the stage sees.
        let seen = PathBuf::from(format!("/proc/self/fd/{}", mounted.as_raw_fd())).join("folder");
        let names = fs::read_dir(seen)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
        if names == ["new"] { Ok(()) } else { Err(io::Error::other("the agent does not see what the stage does")) }
    });
    drop(socket);
    group.end();
    result
}

/// Has an init run a script in `folder`, and waits for that to end well.
fn run(socket: &UnixStream, script: &str, arguments: &[String], folder: &Path) -> io::Result<()> {
    socket.set_read_timeout(Some(DEADLINE))?;
    let launch = Launch {
        program: PROGRAM.into(),
        arguments: ["-c", script, "trial"].map(str::to_owned).into_iter().chain(arguments.iter().cloned()).collect(),
        environment: BTreeMap::new(),
        folder: folder.to_owned(),
    };
    let (mut said, out) = io::pipe()?;
    wire::send(socket, &Order::Start { number: 0, launch }, &[out.as_fd(), out.as_fd()])?;
    drop(out);
    loop {
        match wire::receive::<Word>(socket)?.map(|(word, _)| word) {
            Some(Word::Started { .. } | Word::Cleared | Word::Mounted) => {}
            Some(Word::Ended { status: 0, .. }) => return Ok(()),
            Some(Word::Ended { .. }) => {
                let mut complaint = String::new();
                said.read_to_string(&mut complaint)?;
                return Err(io::Error::other(format!("a shell does not work in it: {}", complaint.trim())));
            }
            Some(Word::NotStarted { reason, .. } | Word::Failed { reason }) => return Err(io::Error::other(reason)),
            None => return Err(io::Error::other("the process that was to hold it has ended")),
        }
    }
}
