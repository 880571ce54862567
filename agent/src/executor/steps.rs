//! The built-in steps: what a call of one comes to on this machine.

use std::{
    fs::OpenOptions,
    io::{self, Write as _},
    os::unix::{fs::OpenOptionsExt as _, process::ExitStatusExt as _},
    path::{Path, PathBuf},
    process::ExitStatus,
};

use model::plan::{Step, Value};
use nix::sys::signal::Signal;

/// The longest script that is passed as an argument. Linux takes 128 KiB for one (`MAX_ARG_STRLEN`, `man 2 execve`).
const ARGUMENT_BYTES_MAX: usize = 64 * 1024;
/// Characters of a script that the log shows.
const TITLE_CHARACTERS_MAX: usize = 80;
const SHELL: &str = "/bin/sh";

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action<'a> {
    /// Write this to the log.
    Say(&'a str),
    /// `/bin/sh -xe -c` this.
    Shell(&'a str),
    /// `/bin/sh -xe` a file of this.
    ShellFile(&'a str),
    /// Run a file of this, which names its interpreter.
    Program(&'a str),
}

/// What the step does; an error says, for people, why it cannot be done.
pub(crate) fn action(step: &Step) -> Result<Action<'_>, String> {
    match step.symbol.as_str() {
        "echo" => text(step, "message").map(Action::Say),
        "sh" => Ok(match text(step, "script")? {
            // The kernel reads `#!` at the very beginning only; a script in quotes may begin on the line after them.
            script if script.trim_start().starts_with("#!") => Action::Program(script.trim_start()),
            script if script.len() > ARGUMENT_BYTES_MAX => Action::ShellFile(script),
            script => Action::Shell(script),
        }),
        _ => Err("this agent does not know the step".to_owned()),
    }
}

impl Action<'_> {
    /// The program and its arguments; a script that cannot be an argument is written to `file`. `None` if no process is needed.
    pub(crate) fn program(&self, file: &Path) -> io::Result<Option<(PathBuf, Vec<String>)>> {
        let shell = |arguments: &[&str]| Some((SHELL.into(), arguments.iter().map(|&argument| argument.to_owned()).collect()));
        Ok(match self {
            Self::Say(_) => None,
            Self::Shell(script) => shell(&["-xe", "-c", script]),
            Self::ShellFile(script) => {
                write_script(file, script)?;
                shell(&["-xe", &file.to_string_lossy()])
            }
            Self::Program(script) => {
                write_script(file, script)?;
                Some((file.to_owned(), Vec::new()))
            }
        })
    }
}

fn write_script(path: &Path, script: &str) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).mode(0o700).open(path)?.write_all(script.as_bytes())
}

fn text<'a>(step: &'a Step, parameter: &str) -> Result<&'a str, String> {
    match step.parameters.get(parameter) {
        Some(Value::Text(text)) => Ok(text),
        Some(
            Value::Boolean(_)
            | Value::Integer(_)
            | Value::Decimal { .. }
            | Value::Variable { .. }
            | Value::Call { .. }
            | Value::Steps { .. }
            | Value::List(_),
        ) => Err(format!("`{parameter}` is no text")),
        None => Err(format!("`{parameter}` is missing")),
    }
}

/// How the log announces the step.
pub(crate) fn title(step: &Step) -> String {
    let Some(text) = ["label", "script"].iter().find_map(|parameter| text(step, parameter).ok()) else { return step.symbol.clone() };
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let first = lines.first().copied().unwrap_or_default();
    let mut short: String = first.chars().take(TITLE_CHARACTERS_MAX).collect();
    if lines.len() > 1 || short.len() < first.len() {
        short.push_str(" …");
    }
    format!("{} '{short}'", step.symbol)
}

/// Why a process that ended this way was no success; `None` if it was one.
pub(crate) fn complaint(status: ExitStatus) -> Option<String> {
    match (status.code(), status.signal()) {
        (Some(0), _) => None,
        (Some(code), _) => Some(format!("exit code {code}")),
        (None, Some(number)) => Some(match Signal::try_from(number) {
            Ok(signal) => format!("ended by {signal}"),
            Err(_) => format!("ended by signal {number}"),
        }),
        (None, None) => Some(status.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(symbol: &str, parameters: &[(&str, &str)]) -> Step {
        let parameters = parameters.iter().map(|(name, value)| ((*name).to_owned(), Value::Text((*value).to_owned()))).collect();
        Step::new("stdlib", symbol, parameters)
    }

    #[test]
    fn each_script_goes_its_way() {
        assert_eq!(action(&step("sh", &[("script", "make")])), Ok(Action::Shell("make")));
        assert_eq!(action(&step("sh", &[("script", "\n  #!/bin/cat\nx")])), Ok(Action::Program("#!/bin/cat\nx")));
        let long = "x".repeat(ARGUMENT_BYTES_MAX + 1);
        assert_eq!(action(&step("sh", &[("script", &long)])), Ok(Action::ShellFile(&long)));
        assert_eq!(action(&step("echo", &[("message", "hi")])), Ok(Action::Say("hi")));
        assert_eq!(action(&step("echo", &[])), Err("`message` is missing".to_owned()));
        assert_eq!(action(&step("deploy", &[])), Err("this agent does not know the step".to_owned()));
    }

    #[test]
    fn a_step_is_announced_in_one_short_line() {
        let cases = [
            (step("sh", &[("script", "make")]), "sh 'make'"),
            (step("sh", &[("script", "\n  make\n  make test\n")]), "sh 'make …'"),
            (step("sh", &[("script", "make"), ("label", "Build it")]), "sh 'Build it'"),
            (step("sh", &[("script", &"ü".repeat(90))]), &format!("sh '{} …'", "ü".repeat(80))),
            (step("echo", &[("message", "hi")]), "echo"),
        ];
        for (step, expected) in cases {
            assert_eq!(title(&step), expected);
        }
    }

    #[test]
    fn an_end_that_is_no_success_is_named() {
        assert_eq!(complaint(ExitStatus::from_raw(0)), None);
        assert_eq!(complaint(ExitStatus::from_raw(3 << 8)), Some("exit code 3".to_owned()));
        assert_eq!(complaint(ExitStatus::from_raw(9)), Some("ended by SIGKILL".to_owned()));
    }
}
