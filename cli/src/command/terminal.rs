//! Where a command prints.

use std::io::{self, IsTerminal as _, StdoutLock, Write};

use service::settings::Settings;

/// Standard output, locked, and whether it shows colours.
#[derive(Debug)]
pub struct Terminal {
    /// Where data goes.
    pub out: StdoutLock<'static>,
    /// Whether ANSI escapes are wanted: on a terminal, unless `NO_COLOR` (<https://no-color.org>) is set or `TERM` is `dumb`.
    pub colour: bool,
}

impl Terminal {
    /// The standard output of this process.
    pub fn stdout() -> Self {
        let mut settings = Settings::from_environment();
        let plain =
            settings.optional::<String>("NO_COLOR").is_some() || settings.optional::<String>("TERM").is_some_and(|term| term == "dumb");
        let out = io::stdout().lock();
        Self { colour: out.is_terminal() && !plain, out }
    }

    /// Prints text as it is. Whoever reads may stop reading (`otto runs | head`): that is no error of ours, and nothing more is printed.
    pub fn print(&mut self, text: &str) -> io::Result<()> {
        or_closed(self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush()))
    }
}

/// Takes the end of a reader for success.
pub(super) fn or_closed(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
