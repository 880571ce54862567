//! `otto explain`: everything that a pipeline file will do; and what two plans do differently.

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use model::{
    context::EventKind,
    plan::{Plan, PlanDocument},
};
use parser::explain::{self, Explained, Here};

use super::Terminal;
use crate::{
    exit,
    machine::Machine,
    pipeline::{ContextArgs, PIPELINE_FILE, Pipeline, read},
    up::colours_on_stderr,
};

/// Explain what a pipeline file will do, before anything is done
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The file; `-` is standard input
    #[arg(default_value = PIPELINE_FILE)]
    file: PathBuf,
    /// How
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Compare two plans: pipeline files, files of a revision (`main:Ottofile`), or plans as `--format plan` prints them
    #[arg(long, num_args = 2, value_names = ["A", "B"], conflicts_with_all = ["file", "format"])]
    diff: Option<Vec<String>>,
    /// Try what this machine offers, and say which stages could not run on it, and why; takes about a second where a container is tried
    #[arg(long, conflicts_with = "diff")]
    here: bool,
    #[command(flatten)]
    context: ContextArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A tree, for people
    Text,
    /// The plan, what was found out beside it, and warnings, for programs
    Json,
    /// The plan itself: canonical JSON, whose SHA-256 is the plan's digest
    Plan,
    /// The graph, in Graphviz's language
    Dot,
    /// The graph, as a picture
    Svg,
}

/// Explains the file.
pub async fn run(args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    let mut terminal = Terminal::stdout();
    if let Some([first, second]) = args.diff.as_deref() {
        let (first, second) = (side(first, &args.context)?, side(second, &args.context)?);
        let (Some(first), Some(second)) = (first, second) else { return Ok(exit::bad_input()) };
        terminal.print(&explain::diff(&first, &second, terminal.colour))?;
        return Ok(ExitCode::SUCCESS);
    }
    let pipeline = Pipeline::open(&args.file)?;
    let planned = pipeline.plan(&args.context, EventKind::Push)?;
    pipeline.complain(&planned, &mut io::stderr(), colours_on_stderr())?;
    let Some((document, notes)) = &planned.plan else { return Ok(exit::bad_input()) };
    let plan = document.plan();
    let here = if args.here { Some(here(plan).await?) } else { None };
    let explained = Explained {
        here: here.as_ref(),
        notes: Some(notes),
        context: Some(&planned.context),
        colour: terminal.colour,
        ..Explained::new(&pipeline.path, document)
    };
    terminal.print(&match args.format {
        Format::Text => explain::explain(&explained),
        Format::Json => explain::json(&explained, &planned.diagnostics),
        Format::Plan => String::from_utf8_lossy(document.bytes()).into_owned(),
        Format::Dot => explain::dot(plan, here.as_ref()),
        Format::Svg => explain::svg(plan, here.as_ref()),
    })?;
    Ok(ExitCode::SUCCESS)
}

/// What this machine offers, and what stages of the plan lack on it.
async fn here(plan: &Plan) -> anyhow::Result<Here> {
    let machine = Machine::look_at_all().await?;
    let lacks = plan.stages.iter().filter(|stage| stage.skipped.is_none());
    let lacks = lacks.filter_map(|stage| Some((stage.id.clone(), machine.lacks(stage)?))).collect();
    Ok(Here { offers: machine.facts, lacks })
}

/// One of two plans that are compared; `None` after the errors of a file that is refused.
fn side(named: &str, context: &ContextArgs) -> anyhow::Result<Option<PlanDocument>> {
    let file = Path::new(named);
    let pipeline = match named.split_once(':') {
        Some((revision, path)) if !file.exists() => Pipeline::of_revision(revision, path)?,
        Some(_) | None => {
            let bytes = read(file)?;
            // No pipeline file begins with a brace, and every plan does.
            if bytes.first() == Some(&b'{') {
                return PlanDocument::read(&bytes).map(Some).with_context(|| format!("{named} is no plan"));
            }
            Pipeline::of(file, bytes)?
        }
    };
    let planned = pipeline.plan(context, EventKind::Push)?;
    pipeline.complain(&planned, &mut io::stderr(), colours_on_stderr())?;
    Ok(planned.plan.map(|(document, _)| document))
}
