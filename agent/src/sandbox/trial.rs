//! Finds out what a machine offers by doing it once, as an attempt would: a level of isolation, and a work directory that is mounted.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read as _},
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    Launch, Level, Overlay, Places, landlock,
    machine::{Holder, Prepared, begin},
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

/// Tries the holder's level in `data`; the error says what is missing.
pub(super) fn of_level(holder: &Holder, data: &Path) -> Result<(), String> {
    if holder.level == Level::Landlock && !landlock::is_there() {
        return Err("the kernel has no landlock, or it is switched off".to_owned());
    }
    within(data, |workspace| work(holder, workspace, None, WORK))
}

/// Tries to mount a work directory.
pub(super) fn of_overlay(holder: &Holder, data: &Path) -> Result<(), String> {
    within(data, |workspace| {
        let layers = workspace.layers()?;
        let lower = layers.join("lower");
        fs::create_dir_all(lower.join("folder"))?;
        for file in ["folder/old", "moves", "kept"] {
            fs::write(lower.join(file), "as it was\n")?;
        }
        let overlay = Overlay { lower: lower.clone(), layers, at: workspace.source() };
        work(holder, workspace, Some(overlay), CHANGE)?;
        let kept = fs::read_to_string(lower.join("kept"))? == "as it was\n" && lower.join("folder/old").exists();
        if kept { Ok(()) } else { Err(io::Error::other("what is written in it changes the source")) }
    })
}

fn within(data: &Path, tried: impl FnOnce(&Workspace) -> io::Result<()>) -> Result<(), String> {
    let workspace = Workspace::at(data.join("trial"));
    let result = workspace.remove().and_then(|()| workspace.create()).and_then(|()| tried(&workspace));
    let removed = workspace.remove();
    result.and(removed).map_err(|error| error.to_string())
}

/// Has an init run a script in the work directory.
fn work(holder: &Holder, workspace: &Workspace, overlay: Option<Overlay>, script: &str) -> io::Result<()> {
    let Prepared { socket, group, .. } = holder.prepare(workspace)?;
    let result = begin(&socket, holder.beginning(workspace, &holder.limits, Places { overlay, kept: Vec::new() })).and_then(|mounted| {
        run(&socket, script, &workspace.source())?;
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
fn run(socket: &UnixStream, script: &str, folder: &Path) -> io::Result<()> {
    socket.set_read_timeout(Some(DEADLINE))?;
    let launch = Launch {
        program: PROGRAM.into(),
        arguments: vec!["-c".to_owned(), script.to_owned()],
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
