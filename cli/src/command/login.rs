//! `otto login`: which server commands speak with, and as whom.

use std::{
    io::{self, IsTerminal as _, Read as _},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use clap::Args;

use super::Terminal;
use crate::client::{Client, Connection, Login};

/// The longest token that is read, in bytes.
const TOKEN_BYTES_MAX: u64 = 4096;

/// Remember a server and a token, so that commands speak with it
///
/// The token is read from standard input, in the first line. It is tried before it is kept, in a file that only you can read. `OTTO_API_URL` and
/// `OTTO_API_TOKEN` count before what is kept.
#[derive(Debug, Args)]
pub struct LoginArgs {
    /// Where the server's API is, such as `https://otto.example.org`
    #[arg(required_unless_present = "forget")]
    url: Option<String>,
    /// Forget the server and the token that are kept
    #[arg(long, conflicts_with = "url")]
    forget: bool,
}

/// Does it.
pub async fn run(args: LoginArgs) -> anyhow::Result<ExitCode> {
    let mut terminal = Terminal::stdout();
    let Some(url) = args.url else {
        let forgotten = Login::forget()?;
        terminal.print(if forgotten { "Forgotten.\n" } else { "Nothing was kept.\n" })?;
        return Ok(ExitCode::SUCCESS);
    };
    if io::stdin().is_terminal() {
        bail!("the token is read from standard input, so that it stands in no history: otto login {url} < FILE");
    }
    let mut text = String::new();
    io::stdin().take(TOKEN_BYTES_MAX).read_to_string(&mut text).context("the token cannot be read from standard input")?;
    let token = text.lines().next().unwrap_or_default().trim();
    if token.is_empty() {
        bail!("standard input has no token");
    }
    let shown = Client::new(Connection::new(&url, token))?.token().await?;
    let file = Login::new(&url, token).keep()?;
    let projects = shown
        .projects
        .map_or_else(|| "all projects".to_owned(), |projects| projects.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
    terminal.print(&format!("You are {} at {url}: {}, of {projects}. Kept in {}.\n", shown.name, shown.role, file.display()))?;
    Ok(ExitCode::SUCCESS)
}
