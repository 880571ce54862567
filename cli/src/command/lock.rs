//! `otto lock`: writes down what the pipelines bring in.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Args;
use model::planning::LOCK_FILE;
use parser::lock::Lock;

use super::{Terminal, check::pipelines};
use crate::{
    exit,
    pipeline::{Locked, Pipeline},
    up::colours_on_stderr,
};

/// Write the digests of everything that the pipelines bring in to otto.lock
///
/// Libraries from addresses are fetched. Look at what has changed, and commit it.
#[derive(Debug, Args)]
pub struct LockArgs {
    /// The pipeline files [default: Ottofile and .otto/*.otto]
    files: Vec<PathBuf>,
    /// Write nothing; end with 1 if otto.lock is not what it would be
    #[arg(long)]
    check: bool,
}

/// Locks what the files bring in.
pub fn run(args: &LockArgs) -> anyhow::Result<ExitCode> {
    let files = if args.files.is_empty() { pipelines(Path::new("."))? } else { args.files.clone() };
    let mut lock = Lock::default();
    let mut place = None;
    for file in &files {
        let pipeline = Pipeline::open(file)?;
        match pipeline.lock()? {
            Locked::Lock(more) => lock.extend(more),
            Locked::Refused(refused) => {
                pipeline.complain(&refused, &mut io::stderr(), colours_on_stderr())?;
                return Ok(exit::bad_input());
            }
        }
        place.get_or_insert_with(|| pipeline.root().join(LOCK_FILE));
    }
    let place = place.context("there is at least one file")?;
    let before = fs::read(&place).ok();
    let text = lock.text();
    if before.as_deref() == Some(text.as_bytes()) {
        return Ok(ExitCode::SUCCESS);
    }
    if args.check {
        writeln!(io::stderr(), "{LOCK_FILE} is not what the pipelines bring in: run `otto lock`")?;
        return Ok(ExitCode::FAILURE);
    }
    let before = before.and_then(|bytes| Lock::read(&bytes).ok()).unwrap_or_default();
    fs::write(&place, &text).with_context(|| format!("cannot write {}", place.display()))?;
    Terminal::stdout().print(&differences(&before, &lock))?;
    Ok(ExitCode::SUCCESS)
}

/// One line for each entry that is new, has changed, or is gone.
fn differences(before: &Lock, after: &Lock) -> String {
    let entries = |lock: &Lock| -> std::collections::BTreeMap<String, model::Digest> {
        lock.libraries.iter().chain(&lock.blueprints).map(|(name, digest)| (name.clone(), *digest)).collect()
    };
    let (before, after) = (entries(before), entries(after));
    let new = after.iter().filter(|(name, digest)| before.get(*name) != Some(*digest)).map(|(name, digest)| {
        let sign = if before.contains_key(name) { '~' } else { '+' };
        format!("{sign} {name} {digest}\n")
    });
    let gone = before.keys().filter(|name| !after.contains_key(*name)).map(|name| format!("- {name}\n"));
    new.chain(gone).collect()
}
