//! `otto check`: whether pipeline files are right.

use std::{path::Path, process::ExitCode};

use clap::Args;
use model::context::TriggerContext;
use parser::Planning;

use super::{PIPELINE_FILE, Terminal, plan_file};

/// Check pipeline files
///
/// Prints what is wrong with each, where, and how to mend it. Ends with 0 if all are right, and with 1 if one is not.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The files
    #[arg(default_value = PIPELINE_FILE)]
    files: Vec<String>,
}

/// Checks the files.
pub fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let mut terminal = Terminal::stdout();
    let mut all_right = true;
    for file in &args.files {
        let (text, right) = checked(file, terminal.colour)?;
        all_right &= right;
        terminal.print(&text)?;
    }
    Ok(if all_right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn checked(file: &str, colour: bool) -> anyhow::Result<(String, bool)> {
    let (planning, source) = plan_file(Path::new("."), file, &TriggerContext::default())?;
    let (diagnostics, summary, right) = match planning {
        Planning::Plan { document, warnings, .. } => {
            let stages = document.plan().stages.len();
            (warnings, format!("{file}: {stages} stage{}, plan {}\n", if stages == 1 { "" } else { "s" }, document.digest()), true)
        }
        Planning::Refused(diagnostics) => {
            let summary = format!("{file}: refused\n");
            (diagnostics, summary, false)
        }
        Planning::Needs(_) => unreachable!("a planned file needs no more files"),
    };
    let rendered = diagnostics.iter().map(|diagnostic| parser::render(diagnostic, &source, colour));
    let paragraphs: Vec<String> = rendered.chain([summary]).collect();
    Ok((paragraphs.join("\n\n"), right))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn check(source: &str) -> (String, bool) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("Ottofile");
        fs::write(&path, source).unwrap();
        let (text, right) = checked(path.to_str().unwrap(), false).unwrap();
        (text.replace(folder.path().to_str().unwrap(), "[folder]"), right)
    }

    #[test]
    fn a_right_file_has_a_plan() {
        let (text, right) = check("pipeline { stage 'Build' { steps { sh 'make' } } }\n");
        assert!(right && text.starts_with("[folder]/Ottofile: 1 stage, plan sha256:"), "{text}");
    }

    #[test]
    fn a_wrong_file_is_refused_with_its_errors() {
        let (text, right) = check("pipeline { stage 'Build' { steps { shh 'make' } } }\n");
        assert!(!right && text.contains("[folder]/Ottofile:1:") && text.ends_with("Ottofile: refused\n"), "{text}");
    }

    #[test]
    fn a_missing_file_is_named() {
        assert_eq!(checked("/nowhere/Ottofile", false).unwrap_err().to_string(), "cannot read /nowhere/Ottofile");
    }
}
