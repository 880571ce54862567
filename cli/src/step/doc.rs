//! `otto step list` and `otto step doc`: the steps that there are, and how each is called.

use std::{fmt::Write as _, process::ExitCode};

use clap::Args;
use model::{
    manifest::{ConfigurationManifest, ParameterKind, ParameterManifest},
    plan::Value,
};

use super::found::{Found, all, named};
use crate::command::Terminal;

/// Characters of a digest in a list.
const DIGEST_CHARACTERS: usize = 19;

/// Show how a step is called: its parameters, its configuration, and an example
#[derive(Debug, Args)]
pub(super) struct DocArgs {
    /// The step's name
    step: String,
}

pub(super) fn list() -> anyhow::Result<ExitCode> {
    let found = all()?;
    let width = |of: fn(&Found) -> &str| found.iter().map(|found| of(found).chars().count()).max().unwrap_or_default();
    let (names, libraries) = (width(|found| &found.manifest.symbol), width(|found| &found.library));
    let mut text = String::new();
    for Found { manifest, library, digest } in &found {
        let digest: String = digest.to_string().chars().take(DIGEST_CHARACTERS).collect();
        writeln!(text, "{:names$}  {library:libraries$}  {digest}  {}", manifest.symbol, sentence(&manifest.description))?;
    }
    Terminal::stdout().print(&by_line(&text))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn run(args: &DocArgs) -> anyhow::Result<ExitCode> {
    Terminal::stdout().print(&by_line(&page(&named(&args.step)?)?))?;
    Ok(ExitCode::SUCCESS)
}

/// Lines that do not steer the terminal.
fn by_line(text: &str) -> String {
    text.lines().map(|line| parser::explain::printable(line) + "\n").collect()
}

/// The first sentence of a text.
fn sentence(text: &str) -> &str {
    let text = text.trim();
    let end = text
        .match_indices('.')
        .map(|(at, _)| at + 1)
        .find(|at| text.get(*at..).is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace)));
    end.and_then(|end| text.get(..end)).unwrap_or_else(|| text.lines().next().unwrap_or_default())
}

fn page(found: &Found) -> anyhow::Result<String> {
    let Found { manifest, library, digest } = found;
    let mut text = String::new();
    writeln!(text, "{}\n\n{}\n\nlibrary: {library} ({digest})", manifest.symbol, manifest.description.trim())?;
    if !manifest.parameters.is_empty() {
        writeln!(text, "\nparameters, in the order of arguments without a name:")?;
    }
    for parameter in &manifest.parameters {
        let credential = if manifest.credentials.contains(&parameter.name) { ", the name of a credential" } else { "" };
        writeln!(
            text,
            "  {}: {}{credential}{}",
            parameter.name,
            kind(parameter.kind),
            presence(parameter.required, parameter.default.as_ref())
        )?;
        described(&mut text, &parameter.description)?;
    }
    if !manifest.configuration.is_empty() {
        writeln!(text, "\nconfiguration, in `configure {{ {} {{ … }} }}`:", manifest.symbol)?;
    }
    for (name, ConfigurationManifest { required, default, description }) in &manifest.configuration {
        writeln!(text, "  {name}{}", presence(*required, default.as_ref()))?;
        described(&mut text, description)?;
    }
    writeln!(text, "\nexample:\n  {}", example(&manifest.symbol, &manifest.parameters))?;
    Ok(text)
}

fn described(text: &mut String, description: &str) -> std::fmt::Result {
    description.trim().lines().try_for_each(|line| writeln!(text, "      {}", line.trim()))
}

fn presence(required: bool, default: Option<&Value>) -> String {
    match (required, default) {
        (true, _) => ", required".to_owned(),
        (false, Some(default)) => format!(", default {}", literal(default)),
        (false, None) => String::new(),
    }
}

fn kind(kind: ParameterKind) -> &'static str {
    match kind {
        ParameterKind::String => "string",
        ParameterKind::Code => "code",
        ParameterKind::Boolean => "boolean",
        ParameterKind::Number => "number",
        ParameterKind::List => "list",
        ParameterKind::Block => "block of steps",
    }
}

/// A value as a pipeline writes it.
fn literal(value: &Value) -> String {
    match value {
        Value::Text(text) => quoted(text),
        Value::Boolean(truth) => truth.to_string(),
        Value::Integer(number) => number.to_string(),
        Value::Decimal { decimal } => decimal.clone(),
        Value::List(items) => format!("[{}]", items.iter().map(literal).collect::<Vec<_>>().join(", ")),
        Value::Variable { .. } | Value::Call { .. } | Value::Steps { .. } => "…".to_owned(),
    }
}

/// A text in quotes that take it as it is.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A call with everything that it needs.
fn example(symbol: &str, parameters: &[ParameterManifest]) -> String {
    let mut shown: Vec<&ParameterManifest> = parameters.iter().filter(|parameter| parameter.required).collect();
    if shown.is_empty() {
        shown.extend(parameters.first());
    }
    let arguments: Vec<String> = shown.iter().map(|parameter| format!("{}: {}", parameter.name, sample(parameter))).collect();
    format!("{symbol} {}", arguments.join(", ")).trim_end().to_owned()
}

fn sample(parameter: &ParameterManifest) -> String {
    match (&parameter.default, parameter.kind) {
        (Some(default), _) => literal(default),
        (None, ParameterKind::String) => "'…'".to_owned(),
        (None, ParameterKind::Code) => "'make'".to_owned(),
        (None, ParameterKind::Boolean) => "true".to_owned(),
        (None, ParameterKind::Number) => "1".to_owned(),
        (None, ParameterKind::List) => "['…']".to_owned(),
        (None, ParameterKind::Block) => "[ sh 'make' ]".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_sentence_is_shown() {
        assert_eq!(sentence(" Runs v1.2 of it. And more."), "Runs v1.2 of it.");
        assert_eq!(sentence("No end\nmore"), "No end");
    }

    #[test]
    fn a_page_has_what_a_caller_needs() {
        let sh = stdlib::library().steps.into_iter().find(|step| step.symbol == "sh").unwrap();
        let page = page(&Found { manifest: sh, library: "stdlib".to_owned(), digest: stdlib::library().digest }).unwrap();
        assert!(page.contains("script: code, required") && page.contains("example:\n  sh script: 'make'"), "{page}");
    }
}
