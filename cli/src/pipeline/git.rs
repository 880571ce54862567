//! Git, asked about the working tree: read only, without a pager, a prompt or a lock, and without any hook.

use std::{
    io::{self, Write as _},
    path::Path,
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, ensure};

/// What git prints, or why it failed.
pub(super) fn git(root: &Path, arguments: &[&str]) -> anyhow::Result<Vec<u8>> {
    let output = command(root, arguments).stdin(Stdio::null()).output();
    printed(output, arguments)
}

/// What git prints on one line; `None` if it says that there is no such thing, or if there is no git.
pub(super) fn asked(root: &Path, arguments: &[&str]) -> Option<String> {
    let text = String::from_utf8(git(root, arguments).ok()?).ok()?;
    let line = text.trim();
    (!line.is_empty()).then(|| line.to_owned())
}

/// What git prints when it reads `input`. A thread writes it: git begins to answer before it has read everything.
pub(super) fn git_with(root: &Path, arguments: &[&str], input: Vec<u8>) -> anyhow::Result<Vec<u8>> {
    let mut child = command(root, arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start git, which is needed to know the contents of files")?;
    let mut stdin = child.stdin.take().expect("it is piped");
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output();
    let written = writer.join().expect("writing does not panic");
    let printed = printed(output, arguments)?;
    written.context("git did not read what it was told")?;
    Ok(printed)
}

/// The pieces of what git prints with `-z`; what is not UTF-8 cannot be named in a pipeline, and is left out.
pub(super) fn paths(printed: &[u8]) -> impl Iterator<Item = &str> {
    printed.split(|byte| *byte == 0).filter_map(|path| std::str::from_utf8(path).ok()).filter(|path| !path.is_empty())
}

fn command(root: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("git");
    command
        .current_dir(root)
        .env("LC_ALL", "C")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_OPTIONAL_LOCKS", "0")
        .args(["--no-pager", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "core.quotePath=false"])
        .args(arguments);
    // A hook or an alias of git sets them for its own repository, which need not be this one.
    for foreign in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX"] {
        command.env_remove(foreign);
    }
    command
}

fn printed(output: io::Result<Output>, arguments: &[&str]) -> anyhow::Result<Vec<u8>> {
    let output = output.context("cannot run git")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`git {}` failed ({}): {}", arguments.join(" "), output.status, said.trim());
    Ok(output.stdout)
}
