//! Git, without what the user or the machine has configured: the demo is the same everywhere.

use std::{io, path::Path, process::Output};

use tokio::process::Command;

/// Variables of git that point elsewhere when the demo itself is started by git, as by a hook or an alias.
const FOREIGN: [&str; 7] = [
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_COMMON_DIR",
    "GIT_QUARANTINE_PATH",
    "GIT_CONFIG_PARAMETERS",
];
/// What git is told instead. Who commits is nobody in particular; nothing runs on in the background.
const SETTINGS: [&str; 6] = [
    "user.name=Otto's demo",
    "user.email=demo@otto.invalid",
    "init.defaultBranch=main",
    "commit.gpgSign=false",
    "gc.auto=0",
    "maintenance.auto=false",
];

/// Runs git in `folder`, and gives what it printed: standard output, then standard error.
pub(super) async fn git(folder: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let output = command(folder, arguments).output().await.map_err(explain_missing)?;
    let text = printed(&output);
    anyhow::ensure!(output.status.success(), "`git {}` failed ({}):\n{text}", arguments.join(" "), output.status);
    Ok(text)
}

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("git");
    for name in FOREIGN {
        command.env_remove(name);
    }
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_TERMINAL_PROMPT", "0").env("LC_ALL", "C");
    for setting in SETTINGS {
        command.args(["-c", setting]);
    }
    command.args(arguments).current_dir(folder).stdin(std::process::Stdio::null()).kill_on_drop(true);
    command
}

fn printed(output: &Output) -> String {
    [String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)].concat()
}

fn explain_missing(error: io::Error) -> anyhow::Error {
    let missing = error.kind() == io::ErrorKind::NotFound;
    anyhow::Error::new(error).context(if missing { "git is not on PATH, and the demo needs it" } else { "cannot run git" })
}

/// The commit that is checked out in `folder`.
pub(super) async fn head(folder: &Path) -> anyhow::Result<String> {
    Ok(git(folder, &["rev-parse", "HEAD"]).await?.trim().to_owned())
}
