//! `otto step pack`: a step library in one file, the same bytes for the same files on every machine.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, ensure};
use blob::library::ARCHIVE_BYTES_MAX;
use clap::Args;
use flate2::{Compression, GzBuilder};
use model::{Digest, planning::ARCHIVE_ENDING};

use super::verify::{problems, shown};
use crate::{command::Terminal, exit};

/// Pack a step library into a .tar.gz
///
/// What git ignores is left out. Prints the archive's digest: it stands in plans and in otto.lock.
#[derive(Debug, Args)]
pub(super) struct PackArgs {
    /// The library's folder
    folder: PathBuf,
    /// The archive [default: the folder's name with .tar.gz]
    #[arg(long, short)]
    output: Option<PathBuf>,
}

pub(super) fn run(args: &PackArgs) -> anyhow::Result<ExitCode> {
    ensure!(args.folder.is_dir(), "{} is no folder", args.folder.display());
    let problems = problems(&args.folder)?;
    if !problems.is_empty() {
        io::stderr().write_all(shown(&problems).as_bytes())?;
        return Ok(exit::bad_input());
    }
    let output = args.output.clone().map_or_else(|| beside(&args.folder), Ok)?;
    let bytes = packed(&args.folder)?;
    ensure!(bytes.len() as u64 <= ARCHIVE_BYTES_MAX, "the archive has {} bytes, over the limit of {ARCHIVE_BYTES_MAX}", bytes.len());
    let mut file = BufWriter::new(File::create(&output).with_context(|| format!("cannot write {}", output.display()))?);
    file.write_all(&bytes).and_then(|()| file.flush()).with_context(|| format!("cannot write {}", output.display()))?;
    Terminal::stdout().print(&format!("{} {}\n", Digest::of(&bytes), output.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// An archive of the folder's name, here.
fn beside(folder: &Path) -> anyhow::Result<PathBuf> {
    let full = folder.canonicalize()?;
    let name = full.file_name().context("the folder has no name: say where to with --output")?.to_string_lossy();
    Ok(PathBuf::from(format!("{name}{ARCHIVE_ENDING}")))
}

/// The archive: without times, owners, and the name of the machine's system.
fn packed(folder: &Path) -> anyhow::Result<Vec<u8>> {
    let mut tar = forge::source::pack_working_tree(folder)?;
    let mut encoder = GzBuilder::new().mtime(0).operating_system(255).write(Vec::new(), Compression::best());
    io::copy(&mut tar.read()?, &mut encoder).context("cannot pack the library")?;
    encoder.finish().context("cannot pack the library")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_same_files_are_the_same_archive_wherever_and_whenever() {
        let make = |order: [&str; 2]| {
            let folder = tempfile::tempdir().unwrap();
            for name in order {
                fs::write(folder.path().join(name), name).unwrap();
            }
            fs::create_dir(folder.path().join(".git")).unwrap();
            packed(folder.path()).unwrap()
        };
        assert_eq!(make(["a", "b"]), make(["b", "a"]));
        assert_eq!(blob::library::file_in(&make(["a", "b"]), "a").unwrap().unwrap(), b"a");
    }
}
