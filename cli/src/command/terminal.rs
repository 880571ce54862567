//! Where a command prints.

use std::io::{self, BufWriter, IsTerminal as _, StdoutLock, Write};

use parser::explain::printable;
use service::settings::Settings;

/// Standard output, locked, and whether it shows colours.
#[derive(Debug)]
pub struct Terminal {
    /// Where data goes. It goes there when it is flushed: a write for each line of a stage that says much would take longer than the stage.
    pub out: BufWriter<StdoutLock<'static>>,
    /// Whether ANSI escapes are wanted: on a terminal, unless `NO_COLOR` (<https://no-color.org>) is set or `TERM` is `dumb`.
    pub colour: bool,
    /// Whether it is a terminal, which what is printed must not steer.
    pub is_terminal: bool,
}

impl Terminal {
    /// The standard output of this process.
    pub fn stdout() -> Self {
        let mut settings = Settings::from_environment();
        let plain =
            settings.optional::<String>("NO_COLOR").is_some() || settings.optional::<String>("TERM").is_some_and(|term| term == "dumb");
        let out = io::stdout().lock();
        Self { colour: out.is_terminal() && !plain, is_terminal: out.is_terminal(), out: BufWriter::new(out) }
    }

    /// Prints text as it is. Whoever reads may stop reading (`otto runs | head`): that is no error of ours, and nothing more is printed.
    pub fn print(&mut self, text: &str) -> io::Result<()> {
        or_closed(self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush()))
    }
}

/// Output that goes on when nobody reads it any more: for what has to be brought to its end all the same.
#[derive(Debug)]
pub struct Unheard<W>(pub W);

impl<W: Write> Write for Unheard<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(bytes.len()),
            other => other,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        or_closed(self.0.flush())
    }
}

/// Takes the end of a reader for success.
pub(super) fn or_closed(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Tells what went wrong on standard error. Names of files and what git says of them may have been written by anybody.
pub fn complain(error: &anyhow::Error) {
    let _closed = writeln!(io::stderr(), "{}", complaint(error));
}

fn complaint(error: &anyhow::Error) -> String {
    let told: Vec<String> = format!("{error:#}").lines().map(printable).collect();
    format!("otto: {}", told.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_a_file_does_not_steer_the_terminal() {
        let error = anyhow::anyhow!("two\nlines").context("cannot read a\u{1b}]0;b\u{7}");
        assert_eq!(complaint(&error), "otto: cannot read a\\u{1b}]0;b\\u{7}: two\nlines");
    }

    #[test]
    fn what_nobody_reads_any_more_is_no_error() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let mut out = Unheard(writer);
        out.write_all(b"more than one\nline\n").and_then(|()| out.flush()).unwrap();
        assert_eq!(out.0.write(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
