//! `otto check`: whether pipeline files are right.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::ensure;
use clap::{Args, ValueEnum};
use model::{
    context::EventKind,
    diagnostic::{Diagnostic, Severity},
};

use super::{Terminal, complain};
use crate::pipeline::{ContextArgs, PIPELINE_FILE, Pipeline, Planned, above};

/// The folder of a repository's further pipelines.
const PIPELINES_FOLDER: &str = ".otto";
/// What the names of pipeline files in it end with.
const PIPELINE_ENDING: &str = "otto";

/// Check pipeline files
///
/// Prints what is wrong with each, where, and how to mend it. Parameters that only a run is given are no mistake. Ends with 0 if all are
/// right, and with 1 if one is not.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The files [default: Ottofile and .otto/*.otto]; `-` is standard input
    files: Vec<PathBuf>,
    /// How
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    #[command(flatten)]
    context: ContextArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// An array of objects: code, message, file, line, column, span, help
    Json,
    /// Annotations of GitHub Actions
    Github,
}

/// Checks the files.
pub fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let mut terminal = Terminal::stdout();
    let files = if args.files.is_empty() { pipelines(Path::new("."))? } else { args.files.clone() };
    let mut all_right = true;
    let mut found = Vec::new();
    for file in &files {
        let opened = Pipeline::open(file).and_then(|pipeline| Ok((planned(&pipeline, &args.context)?, pipeline)));
        let ((planned, missing), pipeline) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                // The others are looked at all the same.
                complain(&error);
                all_right = false;
                continue;
            }
        };
        all_right &= planned.plan.is_some();
        match args.format {
            Format::Text => terminal.print(&text(&pipeline, &planned, &missing, terminal.colour)?)?,
            Format::Json => found.extend(planned.diagnostics),
            Format::Github => terminal.print(&annotations(&pipeline, &planned))?,
        }
    }
    if args.format == Format::Json {
        terminal.print(&format!("{}\n", serde_json::to_string_pretty(&found)?))?;
    }
    Ok(if all_right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The plan of a file. That a run has to be given parameters makes no file wrong: values stand in for them, the plan is none of a run, and
/// their names are told.
fn planned(pipeline: &Pipeline, context: &ContextArgs) -> anyhow::Result<(Planned, Vec<String>)> {
    let planned = pipeline.plan(context, EventKind::Push)?;
    if !planned.diagnostics.iter().any(|diagnostic| diagnostic.code == parser::Code::MissingParameter.as_str()) {
        return Ok((planned, Vec::new()));
    }
    let missing = lsp::stand_ins(&String::from_utf8_lossy(&pipeline.source));
    let again = pipeline.plan(&context.with_missing(missing), EventKind::Push)?;
    let stand_ins = again.context.parameters.keys().filter(|name| !planned.context.parameters.contains_key(*name)).cloned().collect();
    Ok((again, stand_ins))
}

/// The pipeline files of a folder.
pub(crate) fn pipelines(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found: Vec<PathBuf> = match fs::read_dir(folder.join(PIPELINES_FOLDER)) {
        Ok(entries) => entries
            .map(|entry| entry.map(|entry| entry.path()))
            .filter(|path| path.as_ref().map_or(true, |path| path.extension().is_some_and(|ending| ending == PIPELINE_ENDING)))
            .collect::<Result<_, _>>()?,
        Err(_) => Vec::new(),
    };
    found.sort();
    let main = folder.join(PIPELINE_FILE);
    if main.exists() {
        found.insert(0, main);
    }
    let above = above(Path::new(PIPELINE_FILE)).map_or_else(String::new, |above| format!(", such as {}", above.display()));
    ensure!(!found.is_empty(), "there is no {PIPELINE_FILE} here, and no pipeline in {PIPELINES_FOLDER}: name a file{above}");
    Ok(found)
}

fn text(pipeline: &Pipeline, planned: &Planned, missing: &[String], colour: bool) -> anyhow::Result<String> {
    let mut paragraphs = Vec::new();
    pipeline.complain(planned, &mut paragraphs, colour)?;
    let mut text = String::from_utf8(paragraphs)?;
    let file = parser::explain::printable(&pipeline.shown(&pipeline.path));
    match &planned.plan {
        Some((document, _)) => {
            let stages = document.plan().stages.len();
            let plural = if stages == 1 { "" } else { "s" };
            if missing.is_empty() {
                writeln!(text, "{file}: {stages} stage{plural}, plan {}", document.digest())?;
            } else {
                let named: Vec<String> = missing.iter().map(|name| format!("--param {}=…", parser::explain::printable(name))).collect();
                writeln!(text, "{file}: {stages} stage{plural}; its plan needs {}", named.join(" "))?;
            }
        }
        None => writeln!(text, "{file}: refused")?,
    }
    Ok(text)
}

/// Workflow commands, one a line, with paths from the repository's root
/// (<https://docs.github.com/actions/reference/workflow-commands-for-github-actions>).
fn annotations(pipeline: &Pipeline, planned: &Planned) -> String {
    planned.diagnostics.iter().map(|diagnostic| annotation(diagnostic, pipeline.source_of(planned, &diagnostic.file))).collect()
}

fn annotation(diagnostic: &Diagnostic, source: &[u8]) -> String {
    let command = match diagnostic.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let Diagnostic { code, message, file, line, column, span, label, help, .. } = diagnostic;
    let marked = String::from_utf8_lossy(source.get(span.start..span.end).unwrap_or_default());
    // GitHub marks columns only within one line.
    let end = match marked.matches('\n').count() {
        0 => format!("col={column},endColumn={}", column + marked.chars().count()),
        lines => format!("endLine={}", line + lines),
    };
    let pieces = [message.as_str(), label, help].into_iter().filter(|piece| !piece.is_empty());
    let told = escaped(&pieces.collect::<Vec<_>>().join("\n"));
    format!("::{command} file={},line={line},{end},title={code}::{told}\n", property(file))
}

fn escaped(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    escaped(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, source: &str, show: impl Fn(&Pipeline, &Planned) -> String) -> (String, bool) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        fs::write(&path, source).unwrap();
        let pipeline = Pipeline::open(&path).unwrap();
        let planned = pipeline.plan(&ContextArgs::default(), EventKind::Push).unwrap();
        let root = folder.path().canonicalize().unwrap();
        (show(&pipeline, &planned).replace(root.to_str().unwrap(), "[folder]"), planned.plan.is_some())
    }

    fn for_people(pipeline: &Pipeline, planned: &Planned) -> String {
        text(pipeline, planned, &[], false).unwrap()
    }

    #[test]
    fn a_right_file_has_a_plan() {
        let (text, right) = check("Ottofile", "pipeline { stage 'Build' { steps { sh 'make' } } }\n", for_people);
        assert!(right && text.contains("Ottofile: 1 stage, plan sha256:"), "{text}");
    }

    #[test]
    fn a_wrong_file_is_refused_with_its_errors() {
        let (text, right) = check("Ottofile", "pipeline { stage 'Build' { steps { shh 'make' } } }\n", for_people);
        assert!(!right && text.contains("Ottofile:1:") && text.ends_with("Ottofile: refused\n"), "{text}");
    }

    #[test]
    fn annotations_mark_the_place_and_escape_what_means_something() {
        let source = "pipeline {\n  stage 'Build' { steps { shh '100%' } }\n}\n";
        let (text, right) = check("a,b:c.otto", source, annotations);
        assert!(!right && text.starts_with("::error file=a%2Cb%3Ac.otto,line=2,col=27,endColumn=30,title=E0401::"), "{text}");
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        assert_eq!(escaped("50%\r\n::error::x"), "50%25%0D%0A::error::x");
    }

    #[test]
    fn a_file_is_right_without_the_values_that_a_run_gives() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gem.blueprint");
        let check = |source: &str| {
            fs::write(&path, source).unwrap();
            let pipeline = Pipeline::open(&path).unwrap();
            let (planned, missing) = planned(&pipeline, &ContextArgs::default()).unwrap();
            let told = text(&pipeline, &planned, &missing, false).unwrap();
            assert!(planned.plan.is_none() || told.ends_with("1 stage; its plan needs --param c=… --param n=… --param v=…\n"), "{told}");
            planned.diagnostics.into_iter().map(|found| found.code).collect::<Vec<_>>()
        };
        let parameters = "parameters { v { type = string } n { type = number } c { type = choice options = ['a', 'b'] } }";
        let right = "{ plan { stage 'x' { env { V = params.v } steps [ sh 'a' ] } } }".replacen('{', &format!("{{ {parameters} "), 1);
        assert_eq!(check(&format!("blueprint {right}")), [""; 0]);
        assert_eq!(check(&format!("blueprint {}", right.replace("sh 'a'", "shh 'a'"))), ["E0401"]);
    }

    #[test]
    fn a_file_that_cannot_be_read_hides_no_other() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("Ottofile"), "pipeline {}").unwrap();
        let files = ["missing", "Ottofile"].map(|name| folder.path().join(name)).to_vec();
        let args = CheckArgs { files, format: Format::Json, context: ContextArgs::default() };
        assert_eq!(run(&args).unwrap(), ExitCode::FAILURE);
    }

    #[test]
    fn a_folders_pipelines_are_found_in_order() {
        let folder = tempfile::tempdir().unwrap();
        assert!(pipelines(folder.path()).unwrap_err().to_string().contains("no pipeline"));
        fs::create_dir(folder.path().join(".otto")).unwrap();
        for name in ["Ottofile", ".otto/b.otto", ".otto/a.otto", ".otto/c.blueprint"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let names: Vec<_> = pipelines(folder.path()).unwrap();
        let names: Vec<_> = names.iter().map(|path| path.strip_prefix(folder.path()).unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["Ottofile", ".otto/a.otto", ".otto/b.otto"]);
    }
}
