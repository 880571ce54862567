//! Git, asked about the working tree: read only, without a pager, a prompt, a lock or the network. A repository may be a stranger's: nothing
//! that its own configuration names is run, be it a hook, a filter, a watcher, a transport or a differ.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Write as _},
    path::Path,
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, ensure};
use service::settings::Settings;

/// What git prints, or why it failed.
pub(super) fn git(root: &Path, arguments: &[&str]) -> anyhow::Result<Vec<u8>> {
    let output = command(root, arguments).stdin(Stdio::null()).output();
    printed(output, arguments)
}

/// What is checked out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Head {
    /// The branch; empty where there is none.
    pub(super) branch: String,
    /// The commit's full id; empty before the first.
    pub(super) commit: String,
}

/// What is checked out at `root`. A process of git costs more than all else that is done before a run, so its files are read, as
/// gitrepository-layout(5) has them; where they are others, git is asked.
pub(super) fn head(root: &Path) -> Head {
    read_head(root).unwrap_or_else(|| {
        // Not `--short`: that is `heads/main` where there is a tag `main`, too.
        let branch = asked(root, &["symbolic-ref", "-q", "HEAD"]).unwrap_or_default();
        let commit = asked(root, &["rev-parse", "--verify", "-q", "HEAD"]).unwrap_or_default();
        Head { branch: branch.strip_prefix("refs/heads/").unwrap_or_default().to_owned(), commit }
    })
}

/// `None` where the files do not tell for certain.
fn read_head(root: &Path) -> Option<Head> {
    let own = root.join(".git");
    if !own.is_dir() {
        return None; // A worktree or a submodule has its files elsewhere.
    }
    let head = fs::read_to_string(own.join("HEAD")).ok()?;
    let Some(name) = head.trim_end().strip_prefix("ref: ") else {
        return is_commit(head.trim_end()).then(|| Head { branch: String::new(), commit: head.trim_end().to_owned() });
    };
    let branch = name.strip_prefix("refs/heads/")?;
    // Refs that are kept otherwise have this in place of every branch.
    if branch.is_empty() || branch == ".invalid" {
        return None;
    }
    let commit = fs::read_to_string(own.join(name)).ok()?;
    is_commit(commit.trim_end()).then(|| Head { branch: branch.to_owned(), commit: commit.trim_end().to_owned() })
}

fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What git prints with these settings, or why it failed.
pub(super) fn git_set(root: &Path, arguments: &[&str], settings: &[(String, String)]) -> anyhow::Result<Vec<u8>> {
    let output = set(command(root, arguments), settings).stdin(Stdio::null()).output();
    printed(output, arguments)
}

/// What git prints on one line; `None` if it says that there is no such thing, or if there is no git.
pub(super) fn asked(root: &Path, arguments: &[&str]) -> Option<String> {
    let text = String::from_utf8(git(root, arguments).ok()?).ok()?;
    let line = text.trim();
    (!line.is_empty()).then(|| line.to_owned())
}

/// What git prints when it reads `input`. A thread writes it: git begins to answer before it has read everything.
pub(super) fn git_with(root: &Path, arguments: &[&str], settings: &[(String, String)], input: Vec<u8>) -> anyhow::Result<Vec<u8>> {
    let mut child = set(command(root, arguments), settings)
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

/// Settings over those of the repository, so that its own configuration starts no filter where git reads working files (`ls-files -m`,
/// `hash-object`, `diff`). Filters of the person's configuration, such as LFS's, stay as they are.
pub(super) fn without_own_filters(root: &Path) -> anyhow::Result<Vec<(String, String)>> {
    const WHICH: &str = r"^filter\..*\.(clean|smudge|process|required)$";
    // It ends with 1 where there is none.
    let output =
        command(root, &["config", "--show-scope", "-z", "--get-regexp", WHICH]).stdin(Stdio::null()).output().context("cannot run git")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut pieces = text.split('\0');
    let (mut wanted, mut own) = (BTreeMap::new(), BTreeSet::new());
    while let (Some(scope), Some(setting)) = (pieces.next(), pieces.next()) {
        let (key, value) = setting.split_once('\n').unwrap_or((setting, "true"));
        if matches!(scope, "local" | "worktree") {
            own.insert(key);
        } else {
            wanted.insert(key, value);
        }
    }
    let nothing = |key: &str| if key.ends_with(".required") { "false" } else { "" };
    Ok(own.into_iter().map(|key| (key.to_owned(), wanted.get(key).copied().unwrap_or_else(|| nothing(key)).to_owned())).collect())
}

/// A path as git reads it from a list: in C's quotes, as a line break ends it else, and a quote begins them.
pub(super) fn quoted(path: &str) -> String {
    let mut quoted = "\"".to_owned();
    for character in path.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            control if control.is_ascii_control() => quoted.extend(format!("\\{:03o}", u32::from(control)).chars()),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
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
        // What a partial clone has not fetched is missing: how to fetch it is up to the repository's configuration.
        .env("GIT_NO_LAZY_FETCH", "1")
        .env("GIT_ALLOW_PROTOCOL", "")
        .env("GIT_LITERAL_PATHSPECS", "1")
        .args(["--no-pager", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "core.quotePath=false"])
        .args(arguments);
    // A hook or an alias of git sets them for its own repository, which need not be this one.
    for foreign in ["GIT_DIR", "GIT_COMMON_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_NAMESPACE", "GIT_EXTERNAL_DIFF"] {
        command.env_remove(foreign);
    }
    command
}

/// Git with settings, after those that this process was given for it. `-c` could not take a key with an equals sign.
fn set(mut command: Command, settings: &[(String, String)]) -> Command {
    let given = Settings::from_environment().optional("GIT_CONFIG_COUNT").unwrap_or(0_usize);
    for (place, (key, value)) in (given..).zip(settings) {
        command.env(format!("GIT_CONFIG_KEY_{place}"), key).env(format!("GIT_CONFIG_VALUE_{place}"), value);
    }
    command.env("GIT_CONFIG_COUNT", (given + settings.len()).to_string());
    command
}

fn printed(output: io::Result<Output>, arguments: &[&str]) -> anyhow::Result<Vec<u8>> {
    let output = output.context("cannot run git")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`git {}` failed ({}): {}", arguments.join(" "), output.status, said.trim());
    Ok(output.stdout)
}
