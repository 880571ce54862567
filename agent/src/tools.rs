//! Tools that stages ask for, found on the agent's `PATH` with their versions: facts for `runtime { python { version = '~> 3.8' } }` and
//! `runtime { cargo = true }`.
//!
//! Each is asked once in an agent's life, behind its start and one after the other: all together take every core of a machine for a second, from
//! the first stages. One that does not answer in time is not there.

use std::{collections::BTreeMap, process::Stdio, time::Duration};

use futures_util::future::join_all;
use model::{plan::Value, version};
use rustix::process::{Pid, setpriority_process};
use tokio::{process::Command, time::timeout};

/// How long a tool may take to say its version: a Java machine on a busy laptop, after everything else.
const DEADLINE: Duration = Duration::from_secs(10);
/// The tools come after everything else on the machine (`man 7 sched`): some of them compute for half a second until they know their version.
const NICE: i32 = 19;
/// The most bytes of what a tool says that are looked at.
const SAID_BYTES_MAX: usize = 4 * 1024;

/// What is asked: the name in `runtime`, the program, and how it is asked.
const TOOLS: [(&str, &str, &str); 17] = [
    ("git", "git", "--version"),
    ("python", "python3", "--version"),
    ("cargo", "cargo", "--version"),
    ("rustc", "rustc", "--version"),
    ("go", "go", "version"),
    ("node", "node", "--version"),
    ("npm", "npm", "--version"),
    ("java", "java", "-version"),
    ("maven", "mvn", "--version"),
    ("gradle", "gradle", "--version"),
    ("ruby", "ruby", "--version"),
    ("gcc", "gcc", "--version"),
    ("clang", "clang", "--version"),
    ("make", "make", "--version"),
    ("cmake", "cmake", "--version"),
    ("docker", "docker", "--version"),
    ("podman", "podman", "--version"),
];

/// All tools, asked at once: where somebody waits for the answer.
pub const ALL_TOOLS: usize = TOOLS.len();

/// The tools that are there, with their versions, by name. So many are asked `at_once`.
pub async fn find_tools(at_once: usize) -> BTreeMap<&'static str, String> {
    let mut found = BTreeMap::new();
    for some in TOOLS.chunks(at_once) {
        found.extend(join_all(some.iter().copied().map(ask)).await.into_iter().flatten());
    }
    found
}

async fn ask((name, program, argument): (&'static str, &'static str, &'static str)) -> Option<(&'static str, String)> {
    Some((name, version_of(program, argument).await?))
}

/// As an agent says it of itself: `git = true` and `git.version = '2.39.5'`.
pub fn tool_facts(tools: &BTreeMap<&'static str, String>) -> BTreeMap<String, Value> {
    let facts = tools.iter().flat_map(|(name, version)| {
        [((*name).to_owned(), Value::Boolean(true)), (format!("{name}.version"), Value::Text(version.clone()))]
    });
    facts.collect()
}

async fn version_of(program: &str, argument: &str) -> Option<String> {
    let mut command = Command::new(program);
    command.arg(argument).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let child = command.spawn().ok()?;
    if let Some(asked) = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)) {
        // It may have answered already.
        let _gone = setpriority_process(Some(asked), NICE);
    }
    let output = timeout(DEADLINE, child.wait_with_output()).await.ok()?.ok()?;
    if !output.status.success() {
        return None;
    }
    // Java says it where others complain.
    [&output.stdout, &output.stderr].into_iter().find_map(|said| {
        let said = said.get(..said.len().min(SAID_BYTES_MAX))?;
        version::find(&String::from_utf8_lossy(said))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_not_there_and_what_says_nothing_is_no_tool() {
        assert_eq!(version_of("otto-has-no-such-program", "--version").await, None);
        assert_eq!(version_of("false", "--version").await, None);
        assert_eq!(version_of("echo", "a tool 1.2.3").await.as_deref(), Some("1.2.3"));
    }

    #[test]
    fn a_tool_is_a_fact_and_so_is_its_version() {
        let facts = tool_facts(&[("git", "2.39.5".to_owned())].into());
        let expected = [("git".to_owned(), Value::Boolean(true)), ("git.version".to_owned(), Value::Text("2.39.5".to_owned()))];
        assert_eq!(facts, expected.into());
    }
}
