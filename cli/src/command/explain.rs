//! `otto explain`: everything that a pipeline file will do.

use std::{io, path::Path, process::ExitCode};

use clap::{Args, ValueEnum};
use model::context::TriggerContext;
use parser::{
    Planning,
    explain::{self, Explained},
};

use super::{PIPELINE_FILE, Terminal, complain, plan_file};
use crate::{exit, up::colours_on_stderr};

/// Explain what a pipeline file will do, before anything is done
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The file
    #[arg(default_value = PIPELINE_FILE)]
    file: String,
    /// How
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// The branch, for the conditions of the file
    #[arg(long, default_value = "")]
    branch: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A tree, for people
    Text,
    /// The plan itself: canonical JSON, whose SHA-256 is the plan's digest
    Json,
    /// The graph, in Graphviz's language
    Dot,
    /// The graph, as a picture
    Svg,
}

/// Explains the file.
pub fn run(args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    let mut terminal = Terminal::stdout();
    let context = TriggerContext { branch: args.branch.clone(), ..TriggerContext::default() };
    let (planning, source) = plan_file(Path::new("."), &args.file, &context)?;
    let (document, diagnostics) = match planning {
        Planning::Plan { document, warnings, .. } => (Some(document), warnings),
        Planning::Refused(diagnostics) => (None, diagnostics),
        Planning::Needs(_) => unreachable!("a planned file needs no more files"),
    };
    complain(&diagnostics, &source, &mut io::stderr(), colours_on_stderr())?;
    let Some(document) = document else { return Ok(exit::bad_input()) };
    let plan = document.plan();
    terminal.print(&match args.format {
        Format::Text => explain::explain(&Explained::new(&args.file, &document)),
        Format::Json => String::from_utf8_lossy(document.bytes()).into_owned(),
        Format::Dot => explain::dot(plan),
        Format::Svg => explain::svg(plan),
    })?;
    Ok(ExitCode::SUCCESS)
}
