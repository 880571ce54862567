//! `otto fmt`: pipeline files in their canonical spelling.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Args;
use parser::limits::SOURCE_BYTES_MAX;

use super::Terminal;
use crate::{
    exit,
    pipeline::{PIPELINE_FILE, read},
    up::colours_on_stderr,
};

/// The name of standard input.
const STDIN: &str = "-";

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
    let (mut refused, mut differing) = (false, false);
    for file in &args.files {
        let piped = file == Path::new(STDIN);
        let source = if piped { read_stdin()? } else { read(file)? };
        let Some(formatted) = formatted(file, &source)? else {
            refused = true;
            continue;
        };
        let differs = formatted.as_bytes() != source;
        differing |= differs;
        match (piped, args.check) {
            (true, false) => terminal.print(&formatted)?,
            (_, true) if differs => terminal.print(&format!("{}\n", file.display()))?,
            (false, false) if differs => replace(file, &formatted)?,
            (_, true) | (false, false) => {}
        }
    }
    Ok(match (refused, args.check && differing) {
        (true, _) => exit::bad_input(),
        (false, true) => ExitCode::FAILURE,
        (false, false) => ExitCode::SUCCESS,
    })
}

/// The canonical spelling; `None` after the errors of a file that is none.
fn formatted(file: &Path, source: &[u8]) -> anyhow::Result<Option<String>> {
    let text = std::str::from_utf8(source).with_context(|| format!("{} is not UTF-8", file.display()))?;
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

fn read_stdin() -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One byte more than is allowed is enough for the parser to say that it is too much.
    io::stdin().take(SOURCE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).context("cannot read standard input")?;
    Ok(bytes)
}

/// Replaces the file at once: who looks at it sees the one or the other. A link stays one, and so do the file's permissions.
fn replace(file: &Path, text: &str) -> anyhow::Result<()> {
    let doing = || format!("cannot write {}", file.display());
    let file = file.canonicalize().with_context(doing)?;
    let folder = file.parent().with_context(doing)?;
    let mut new = tempfile::NamedTempFile::new_in(folder).with_context(doing)?;
    new.write_all(text.as_bytes()).with_context(doing)?;
    fs::set_permissions(new.path(), fs::metadata(&file).with_context(doing)?.permissions()).with_context(doing)?;
    new.persist(&file).with_context(doing)?;
    Ok(())
}

#[cfg(test)]
mod tests {
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
    fn what_is_no_pipeline_file_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("Ottofile");
        fs::write(&file, "pipeline {").unwrap();
        assert_eq!(fmt(&file, false), exit::bad_input());
        assert_eq!(fs::read_to_string(&file).unwrap(), "pipeline {");
    }
}
