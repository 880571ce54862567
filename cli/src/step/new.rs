//! `otto step new`: a library with a step that works, to be changed.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context as _, ensure};
use clap::{Args, ValueEnum};
use model::manifest::is_name;

use crate::command::Terminal;

/// What is replaced by the step's name.
const NAME: &str = "STEP_NAME";

/// Begin a step library: a manifest, a program that works, and its test
#[derive(Debug, Args)]
pub(super) struct NewArgs {
    /// The step's name
    name: String,
    /// What its program is written in
    #[arg(long, value_enum, default_value_t = Language::Bash)]
    lang: Language,
    /// The library's folder [default: steps/NAME]
    #[arg(long)]
    folder: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Language {
    /// A shell script; it calls the agent with curl
    Bash,
    /// A Python script; it needs no package
    Python,
}

impl Language {
    fn program(self) -> &'static str {
        match self {
            Self::Bash => include_str!("templates/run.bash"),
            Self::Python => include_str!("templates/run.py"),
        }
    }
}

pub(super) fn run(args: &NewArgs) -> anyhow::Result<ExitCode> {
    let NewArgs { name, lang, folder } = args;
    ensure!(
        is_name(name) && name != "when",
        "`{name}` cannot be the name of a step: a name begins with a letter and has letters, digits, `_` and `-`"
    );
    let folder = folder.clone().unwrap_or_else(|| PathBuf::from("steps").join(name));
    ensure!(!folder.exists(), "{} is there already", folder.display());
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for (file, text, mode) in [
        ("manifest.yml", include_str!("templates/manifest.yml"), 0o644),
        ("run", lang.program(), 0o755),
        ("test", include_str!("templates/test.bash"), 0o755),
    ] {
        let path = folder.join(file);
        let mut created = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&path)
            .with_context(|| format!("cannot write {}", path.display()))?;
        created.write_all(text.replace(NAME, name).as_bytes())?;
    }
    let shown = folder.display();
    let next = format!(
        "{shown} has a step `{name}`\ntry it:   otto step run ./{shown} --param who=you\ntest it:  {shown}/test\nuse it:   use './{shown}'\n"
    );
    Terminal::stdout().print(&next)?;
    Ok(ExitCode::SUCCESS)
}
