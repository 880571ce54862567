//! Otto builds and tests itself, by its own `Ottofile`: `otto run` here, or a push to services of its own.
//!
//! It is no part of the tests: they would run themselves for ever.

use std::{
    env::temp_dir,
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::{sleep, spawn},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{command, repository::Repository, say};

/// What the services say when all of them are there.
const READY: &str = "Otto is ready";
/// The project that is pushed, and its branch.
const PROJECT: &str = "otto";
const BRANCH: &str = "main";
/// How long a push may take to become a run.
const BEGIN_DEADLINE: Duration = Duration::from_secs(30);
/// Between two looks for it.
const BEGIN_PAUSE: Duration = Duration::from_millis(100);

/// `otto run`: the working tree.
pub(crate) fn run() -> Result<()> {
    let (root, otto) = built()?;
    let since = Instant::now();
    let status = Command::new(&otto).arg("run").current_dir(&root).status().context("cannot start otto run")?;
    ensure!(status.success(), "otto run failed ({status}): `{} log latest` shows more", otto.display());
    done(since);
    Ok(())
}

/// The commit that is checked out, pushed to services that are there for nothing else.
pub(crate) fn run_through_services() -> Result<()> {
    let (root, otto) = built()?;
    // Not below this repository: tools that look for their root upwards would find it.
    let folder = temp_dir().join(format!("otto-dogfood-{}", std::process::id()));
    let (data, bare) = (folder.join("up"), folder.join("otto.git"));
    fs::create_dir_all(data.join("projects")).with_context(|| format!("cannot make {}", data.display()))?;
    let url = serde_json::to_string(&bare)?;
    fs::write(data.join(format!("projects/{PROJECT}.yml")), format!("source:\n  url: {url}\n"))?;
    let text = |path: &Path| path.to_str().map(str::to_owned).context("the temporary folder's name is not UTF-8");
    let (data_text, bare_text) = (text(&data)?, text(&bare)?);
    command::run(&root, &["git", "init", "--quiet", "--bare", &bare_text])?;
    let mut services = Services::start(&otto, &data)?;
    let otto_text = text(&otto)?;
    command::run(&root, &[&otto_text, "hook", "install", &bare_text, "--data", &data_text])?;
    let since = Instant::now();
    command::run(&root, &["git", "push", "--quiet", &bare_text, &format!("HEAD:refs/heads/{BRANCH}")])?;
    let client = Services::client(&data)?;
    follow(&otto, &client)?;
    let shown = Command::new(&otto).args(["show", "latest", "--json"]).envs(client).output().context("cannot start otto show")?;
    let run: serde_json::Value = serde_json::from_slice(&shown.stdout).context("otto show says no JSON")?;
    services.end()?;
    let outcome = &run["status"]["outcome"];
    ensure!(outcome == "success", "the run is {outcome}; everything is left in {}", folder.display());
    fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    done(since);
    Ok(())
}

/// The repository, and the program built of it.
fn built() -> Result<(PathBuf, PathBuf)> {
    let root = Repository::load()?.root;
    command::run(&root, &["cargo", "build", "--package", "cli"])?;
    // Beside the target folder of this very program, wherever that is.
    let this = std::env::current_exe().context("cannot find this program")?;
    let otto = this.with_file_name("otto");
    ensure!(otto.is_file(), "{} was not built", otto.display());
    Ok((root, otto))
}

/// Shows the run from its begin to its end.
fn follow(otto: &Path, client: &[(String, String)]) -> Result<()> {
    let latest = |arguments: &[&str]| {
        let mut command = Command::new(otto);
        command.args(arguments).arg("latest").envs(client.iter().cloned());
        command
    };
    let since = Instant::now();
    // The push was accepted; the run is there as soon as it is planned.
    while !latest(&["show"]).output().context("cannot start otto show")?.status.success() {
        ensure!(since.elapsed() < BEGIN_DEADLINE, "the push has not become a run");
        sleep(BEGIN_PAUSE);
    }
    let status = latest(&["log", "-f"]).status().context("cannot start otto log")?;
    ensure!(status.success(), "otto log failed ({status})");
    Ok(())
}

fn done(since: Instant) {
    say(&format!("dogfood: Otto has built and tested itself in {} minutes", since.elapsed().as_secs().div_ceil(60)));
}

/// A running `otto up`.
struct Services(Child);

impl Services {
    /// Starts it and waits until it is ready.
    fn start(otto: &Path, data: &Path) -> Result<Self> {
        let mut command = Command::new(otto);
        command.args(["up", "--ports", "auto", "--data"]).arg(data).stdin(Stdio::null()).stderr(Stdio::piped());
        let mut up = command.spawn().context("cannot start otto up")?;
        let mut lines = BufReader::new(up.stderr.take().context("its standard error is piped")?).lines();
        let mut said = Vec::new();
        for line in lines.by_ref() {
            let line = line?;
            if line.contains(READY) {
                // What it says from now on is in its logs; somebody must read it.
                spawn(move || lines.for_each(drop));
                return Ok(Self(up));
            }
            said.push(line);
        }
        up.wait()?;
        bail!("the services did not start:\n{}", said.join("\n"))
    }

    /// The environment by which commands find them.
    fn client(data: &Path) -> Result<Vec<(String, String)>> {
        let text = fs::read_to_string(data.join("client.env")).context("the services did not say where they are")?;
        Ok(text.lines().filter_map(|line| line.split_once('=')).map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// Ends them in order.
    fn end(&mut self) -> Result<()> {
        let id = self.0.id().to_string();
        let status = Command::new("kill").args(["-INT", &id]).status().context("cannot start kill")?;
        ensure!(status.success(), "otto up ({id}) cannot be ended");
        let status = self.0.wait()?;
        ensure!(status.success(), "otto up ended with {status}");
        Ok(())
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        // Its processes notice that it is gone, and end.
        let (_ended, _reaped) = (self.0.kill(), self.0.wait());
    }
}
