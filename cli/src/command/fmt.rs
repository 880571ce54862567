//! `otto fmt`: pipeline files in their canonical spelling.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, anyhow, ensure};
use clap::Args;
use parser::explain::printable;

use super::{Terminal, complain};
use crate::{
    exit,
    pipeline::{PIPELINE_FILE, STDIN, read},
    up::colours_on_stderr,
};

/// Write pipeline files in their canonical spelling
///
/// Old spellings become the one of today, comments stay, and the plan stays the same.
#[derive(Debug, Args)]
pub struct FmtArgs {
    /// The files; `-` reads standard input and prints what becomes of it
    #[arg(default_value = PIPELINE_FILE)]
    files: Vec<PathBuf>,
    /// Change nothing; print the names of files that would be changed, and end with 1 if there is one
    #[arg(long)]
    check: bool,
}

/// Formats the files.
pub fn run(args: &FmtArgs) -> anyhow::Result<ExitCode> {
    let mut terminal = Terminal::stdout();
    let (mut refused, mut failed, mut differing) = (false, false, false);
    for file in &args.files {
        let piped = file == Path::new(STDIN);
        let source = match read(file) {
            Ok(source) => source,
            Err(error) => {
                // The others are formatted all the same.
                complain(&error);
                failed = true;
                continue;
            }
        };
        let Some(formatted) = formatted(file, &source)? else {
            refused = true;
            continue;
        };
        let differs = formatted.as_bytes() != source;
        differing |= differs;
        match (piped, args.check) {
            (true, false) => terminal.print(&formatted)?,
            (_, true) if differs => terminal.print(&format!("{}\n", printable(&file.display().to_string())))?,
            (false, false) if differs => {
                if let Err(error) = replace(file, &formatted) {
                    complain(&error);
                    failed = true;
                }
            }
            (_, true) | (false, false) => {}
        }
    }
    Ok(match (refused, failed || args.check && differing) {
        (true, _) => exit::bad_input(),
        (false, true) => ExitCode::FAILURE,
        (false, false) => ExitCode::SUCCESS,
    })
}

/// The canonical spelling; `None` after the errors of a file that is none.
fn formatted(file: &Path, source: &[u8]) -> anyhow::Result<Option<String>> {
    let text = match std::str::from_utf8(source) {
        Ok(text) => text,
        Err(error) => {
            complain(&anyhow!("{} is not UTF-8: byte {} (from 0); save the file as UTF-8", file.display(), error.valid_up_to()));
            return Ok(None);
        }
    };
    match parser::format(text) {
        Ok(formatted) => Ok(Some(formatted)),
        Err(mut diagnostics) => {
            for diagnostic in &mut diagnostics {
                diagnostic.file = file.display().to_string();
                writeln!(io::stderr(), "{}\n", parser::render(diagnostic, source, colours_on_stderr()))?;
            }
            Ok(None)
        }
    }
}

/// Replaces the file at once: who looks at it sees the one or the other. A link stays one, and so do the file's permissions: what is not to
/// be written is not replaced, either.
fn replace(file: &Path, text: &str) -> anyhow::Result<()> {
    let doing = || format!("cannot write {}", file.display());
    let file = file.canonicalize().with_context(doing)?;
    let permissions = fs::metadata(&file).with_context(doing)?.permissions();
    ensure!(!permissions.readonly(), "cannot write {}: it is read-only", file.display());
    let folder = file.parent().with_context(doing)?;
    let mut new = tempfile::NamedTempFile::new_in(folder).with_context(doing)?;
    new.write_all(text.as_bytes()).with_context(doing)?;
    fs::set_permissions(new.path(), permissions).with_context(doing)?;
    new.persist(&file).with_context(doing)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const OLD: &str = "pipeline { stages { stage { name = 'A' // first\n steps { sh 'a' } } } }";

    fn fmt(file: &Path, check: bool) -> ExitCode {
        run(&FmtArgs { files: vec![file.to_owned()], check }).unwrap()
    }

    #[test]
    fn an_old_spelling_is_told_and_then_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("Ottofile");
        fs::write(&file, OLD).unwrap();
        assert_eq!(fmt(&file, true), ExitCode::FAILURE);
        assert_eq!(fs::read_to_string(&file).unwrap(), OLD);
        assert_eq!(fmt(&file, false), ExitCode::SUCCESS);
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains("stage 'A' {") && text.contains("// first"), "{text}");
        assert_eq!(fmt(&file, true), ExitCode::SUCCESS);
    }

    #[test]
    fn each_file_is_looked_at_whatever_the_others_are() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        fs::write(file("latin"), b"pipeline { stage 'K\xe4se' { } }").unwrap();
        for name in ["read-only", "last"] {
            fs::write(file(name), OLD).unwrap();
        }
        fs::set_permissions(file("read-only"), fs::Permissions::from_mode(0o444)).unwrap();
        let files = ["missing", "read-only", "last"].map(file).to_vec();
        assert_eq!(run(&FmtArgs { files, check: false }).unwrap(), ExitCode::FAILURE);
        assert_eq!(fs::read_to_string(file("read-only")).unwrap(), OLD);
        assert!(fs::read_to_string(file("last")).unwrap().contains("stage 'A' {"));
        assert_eq!(run(&FmtArgs { files: ["latin", "last"].map(file).to_vec(), check: true }).unwrap(), exit::bad_input());
    }

    #[test]
    fn what_is_no_pipeline_file_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("Ottofile");
        fs::write(&file, "pipeline {").unwrap();
        assert_eq!(fmt(&file, false), exit::bad_input());
        assert_eq!(fs::read_to_string(&file).unwrap(), "pipeline {");
    }
}
