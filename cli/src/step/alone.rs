//! `otto step run`: one step by itself, as a pipeline of one stage would run it.

use std::{
    env::current_exe,
    fmt::Write as _,
    io::Write as _,
    path::Path,
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context as _, bail};
use clap::Args;
use model::manifest::ParameterKind;

use super::{
    doc::quoted,
    found::{Found, MANIFEST, manifest_of, named},
};

/// Run one step by itself, in a copy of this folder
#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// The step's name, or the folder of its library, such as `./steps/greet`
    step: String,
    /// An argument of it; can be given several times
    #[arg(long = "param", value_name = "NAME=VALUE")]
    parameters: Vec<String>,
}

pub(super) fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let found = find(&args.step)?;
    let pipeline = pipeline(&found, &args.parameters)?;
    let program = current_exe().context("cannot find this program")?;
    let mut child = Command::new(program).args(["run", "-"]).stdin(Stdio::piped()).spawn().context("cannot start `otto run`")?;
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(pipeline.as_bytes()).context("`otto run` does not read its pipeline")?;
    drop(stdin);
    let code = child.wait().context("`otto run` has no end")?.code();
    Ok(code.and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

fn find(step: &str) -> anyhow::Result<Found> {
    let folder = Path::new(step);
    if !step.contains('/') {
        return named(step);
    }
    let bytes = std::fs::read(folder.join(MANIFEST)).with_context(|| format!("{step} is no library of a step"))?;
    let digest = model::Digest::of(&bytes);
    let library = if step.starts_with('.') { step.to_owned() } else { format!("./{step}") };
    Ok(Found { manifest: manifest_of(&bytes)?, library: library.trim_end_matches('/').to_owned(), digest })
}

/// A pipeline with the one call.
fn pipeline(found: &Found, parameters: &[String]) -> anyhow::Result<String> {
    let mut arguments = Vec::new();
    for given in parameters {
        let (name, value) = given.split_once('=').with_context(|| format!("`{given}` is no NAME=VALUE"))?;
        let parameter = found.manifest.parameters.iter().find(|parameter| parameter.name == name);
        let Some(parameter) = parameter else {
            bail!("`{}` has no parameter `{name}`: `otto step doc {0}` shows those that it has", found.manifest.symbol)
        };
        let value = match parameter.kind {
            ParameterKind::String | ParameterKind::Code => quoted(value),
            ParameterKind::Boolean | ParameterKind::Number => value.to_owned(),
            ParameterKind::List => format!("[{}]", value.split(',').map(quoted).collect::<Vec<_>>().join(", ")),
            ParameterKind::Block => bail!("`{name}` takes steps, which cannot be given here: write a pipeline"),
        };
        arguments.push(format!("{name}: {value}"));
    }
    let mut text = String::new();
    if found.library != stdlib::library().name {
        writeln!(text, "use {}", quoted(&found.library))?;
    }
    writeln!(
        text,
        "pipeline {{\n  stage {} {{ steps [ {} {} ] }}\n}}",
        quoted(&found.manifest.symbol),
        found.manifest.symbol,
        arguments.join(", ")
    )?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_written_as_their_types_are() {
        let manifest = manifest_of(
            b"symbol: greet\ndescription: x\nparameters:\n  - { name: who, type: string }\n  - { name: times, type: number }\n  - { name: also, type: list }\n",
        );
        let found = Found { manifest: manifest.unwrap(), library: "./steps/greet".to_owned(), digest: model::Digest::of(b"") };
        let given = ["who=it's me", "times=2", "also=a,b"].map(str::to_owned);
        let text = pipeline(&found, &given).unwrap();
        assert_eq!(
            text,
            "use './steps/greet'\npipeline {\n  stage 'greet' { steps [ greet who: 'it''s me', times: 2, also: ['a', 'b'] ] }\n}\n"
        );
        assert!(pipeline(&found, &["x=1".to_owned()]).is_err() && pipeline(&found, &["x".to_owned()]).is_err());
    }
}
