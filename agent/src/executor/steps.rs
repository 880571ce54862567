//! The steps: what a call of one comes to on this machine. [`action`] is the table of all of them.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::{fs::OpenOptionsExt as _, process::ExitStatusExt as _},
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use encoding_rs::Encoding;
use model::{
    plan::{Step, Value},
    protocol::step::StepEnd,
};
use nix::sys::signal::Signal;

/// The longest script that is passed as an argument. Linux takes 128 KiB for one (`MAX_ARG_STRLEN`, `man 2 execve`).
const ARGUMENT_BYTES_MAX: usize = 64 * 1024;
/// Characters of a script that the log shows.
const TITLE_CHARACTERS_MAX: usize = 80;
const SHELL: &str = "/bin/sh";
/// The library whose steps the agent knows itself.
const STANDARD_LIBRARY: &str = "stdlib";

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action<'a> {
    /// Write this to the log.
    Say(&'a str),
    /// Fail for this reason.
    Fail(&'a str),
    /// Wait.
    Sleep(Duration),
    /// End the life of this variable.
    Drop(&'a str),
    /// Run these steps in this folder of the work directory.
    Folder(&'a str, &'a [Step]),
    /// Run this script: one process, whose end is the step's.
    Script(Script<'a>),
    /// Run a program that speaks the step protocol.
    Program(Origin<'a>),
}

/// Where the program of a step comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin<'a> {
    /// The agent's own binary has it.
    Standard,
    /// The step library of this name.
    Library(&'a str),
}

/// What the step does; an error says, for people, why it cannot be done.
pub(crate) fn action(step: &Step) -> Result<Action<'_>, String> {
    if step.library != STANDARD_LIBRARY {
        return Ok(Action::Program(Origin::Library(&step.library)));
    }
    Ok(match step.symbol.as_str() {
        "echo" => Action::Say(text(step, "message")?),
        "error" => Action::Fail(text(step, "message")?),
        "sleep" => Action::Sleep(Duration::from_millis(time(step, "time")?)),
        "drop" => Action::Drop(text(step, "variable")?),
        "dir" => Action::Folder(text(step, "path")?, block(step, "steps")?),
        "sh" => Action::Script(Script::of(step)?),
        "archive" | "checkout" | "git" | "http" | "junit" | "trigger" | "unarchive" => Action::Program(Origin::Standard),
        _ => return Err("this agent does not know the step".to_owned()),
    })
}

/// A script of `sh`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Script<'a> {
    text: &'a str,
    /// Of its output, if that is not UTF-8.
    pub(crate) encoding: Option<&'static Encoding>,
}

impl<'a> Script<'a> {
    fn of(step: &'a Step) -> Result<Self, String> {
        let mut encoding = None;
        if step.parameters.contains_key("encoding") {
            let name = text(step, "encoding")?;
            let known = Encoding::for_label(name.as_bytes()).ok_or_else(|| format!("`{name}` is no encoding that this agent knows"))?;
            encoding = Some(known);
        }
        let encoding = encoding.filter(|encoding| *encoding != encoding_rs::UTF_8);
        Ok(Self { text: text(step, "script")?, encoding })
    }

    /// The program and its arguments; a script that cannot be an argument is written to `file`, which the agent reaches as `reached`.
    pub(crate) fn program(&self, file: &Path, reached: &Path) -> io::Result<(PathBuf, Vec<String>)> {
        let shell = |arguments: &[&str]| (SHELL.into(), arguments.iter().map(|&argument| argument.to_owned()).collect());
        // The kernel reads `#!` at the very beginning only; a script in quotes may begin on the line after them.
        let trimmed = self.text.trim_start();
        Ok(if trimmed.starts_with("#!") {
            write_script(reached, trimmed)?;
            (file.to_owned(), Vec::new())
        } else if self.text.len() > ARGUMENT_BYTES_MAX {
            write_script(reached, self.text)?;
            shell(&["-xe", &file.to_string_lossy()])
        } else {
            shell(&["-xe", "-c", self.text])
        })
    }
}

fn write_script(path: &Path, script: &str) -> io::Result<()> {
    match fs::remove_file(path) {
        // A step that is tried again has left it.
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o700).open(path)?.write_all(script.as_bytes())
}

fn text<'a>(step: &'a Step, parameter: &str) -> Result<&'a str, String> {
    let value = step.parameters.get(parameter).ok_or_else(|| format!("`{parameter}` is missing"))?;
    value.as_text().ok_or_else(|| format!("`{parameter}` is no text"))
}

fn time(step: &Step, parameter: &str) -> Result<u64, String> {
    let wrong = || format!("`{parameter}` is no time");
    let Some(Value::Integer(ms)) = step.parameters.get(parameter) else { return Err(wrong()) };
    u64::try_from(*ms).map_err(|_| wrong())
}

fn block<'a>(step: &'a Step, parameter: &str) -> Result<&'a [Step], String> {
    let Some(Value::Steps { steps }) = step.parameters.get(parameter) else { return Err(format!("`{parameter}` is no block of steps")) };
    Ok(steps)
}

/// How many steps these are, with those that stand in them. Their numbers are given in the order in which they are written, a step's own before
/// those in it.
pub(crate) fn count(steps: &[Step]) -> u32 {
    let inside = |step: &Step| match step.parameters.get("steps") {
        Some(Value::Steps { steps }) => count(steps),
        Some(_) | None => 0,
    };
    steps.iter().fold(0, |sum, step| sum.saturating_add(1).saturating_add(inside(step)))
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

/// What the end of a step's program means.
pub(crate) fn end(status: ExitStatus) -> StepEnd {
    status.code().map_or(StepEnd::Failure, StepEnd::of_code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(symbol: &str, parameters: &[(&str, &str)]) -> Step {
        let parameters = parameters.iter().map(|(name, value)| ((*name).to_owned(), Value::Text((*value).to_owned()))).collect();
        Step::new("stdlib", symbol, parameters)
    }

    fn program(script: &str) -> (String, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        let step = step("sh", &[("script", script)]);
        let Ok(Action::Script(script)) = action(&step) else { unreachable!() };
        let file = folder.path().join("script");
        let (program, arguments) = script.program(&file, &file).unwrap();
        (program.file_name().unwrap().to_str().unwrap().to_owned(), arguments)
    }

    #[test]
    fn each_script_goes_its_way() {
        assert_eq!(program("make"), ("sh".to_owned(), ["-xe", "-c", "make"].map(str::to_owned).to_vec()));
        assert_eq!(program("\n  #!/bin/cat\nx"), ("script".to_owned(), vec![]));
        let (shell, arguments) = program(&"x".repeat(ARGUMENT_BYTES_MAX + 1));
        assert!(shell == "sh" && arguments.len() == 2 && arguments[1].ends_with("/script"));
    }

    #[test]
    fn what_cannot_be_done_is_said() {
        let cases = [
            (step("echo", &[]), "`message` is missing"),
            (step("deploy", &[]), "this agent does not know the step"),
            (step("sleep", &[("time", "long")]), "`time` is no time"),
            (step("dir", &[("path", "a"), ("steps", "b")]), "`steps` is no block of steps"),
            (step("sh", &[("script", "make"), ("encoding", "morse")]), "`morse` is no encoding that this agent knows"),
        ];
        for (step, expected) in cases {
            assert_eq!(action(&step), Err(expected.to_owned()));
        }
        assert_eq!(action(&Step::new("greet", "sh", [].into())), Ok(Action::Program(Origin::Library("greet"))));
    }

    #[test]
    fn steps_in_steps_are_counted() {
        let inner = Value::Steps { steps: vec![step("echo", &[]), step("echo", &[])] };
        let outer = Step::new("stdlib", "dir", [("steps".to_owned(), inner)].into());
        assert_eq!(count(&[step("echo", &[]), outer]), 4);
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
        assert_eq!(end(ExitStatus::from_raw(3 << 8)), StepEnd::Unstable);
        assert_eq!(end(ExitStatus::from_raw(9)), StepEnd::Failure);
    }
}
