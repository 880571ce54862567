//! `otto lsp`: the language server, for editors.

use std::process::ExitCode;

use anyhow::Context as _;

/// Serves an editor over standard input and output, until it says goodbye or goes.
pub fn run() -> anyhow::Result<ExitCode> {
    lsp::stdio().context("cannot go on serving the editor")?;
    Ok(ExitCode::SUCCESS)
}
