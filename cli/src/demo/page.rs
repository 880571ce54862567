//! What the demo prints around what others print. Where nobody reads it any more the demo goes on to its end, and cleans up.

use std::io::{self, IsTerminal as _, Write as _};

use anstyle::Style;
use service::settings::Settings;

/// Numbers the headings.
#[derive(Debug)]
pub(super) struct Page {
    step: u32,
    bold: Style,
}

impl Page {
    pub(super) fn new() -> Self {
        let plain = Settings::from_environment().optional::<String>("NO_COLOR").is_some() || !io::stdout().is_terminal();
        Self { step: 0, bold: if plain { Style::new() } else { Style::new().bold() } }
    }

    /// What happens now.
    pub(super) fn heading(&mut self, what: &str) {
        self.step += 1;
        let bold = self.bold;
        let _nobody_reads = writeln!(io::stdout(), "\n{bold}{}. {what}{bold:#}", self.step);
    }
}

/// Text below a heading, a little to the right.
pub(super) fn text(text: &str) {
    each_line("  ", text);
}

/// What stands in a file, or what a program says.
pub(super) fn quote(text: &str) {
    each_line("  | ", text);
}

fn each_line(before: &str, text: &str) {
    let mut stdout = io::stdout();
    for line in text.lines() {
        let line = format!("{before}{line}");
        let _nobody_reads = writeln!(stdout, "{}", line.trim_end());
    }
}
