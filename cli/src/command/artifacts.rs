//! `otto artifacts`: what the stages of a run have left to people.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Args;
use futures_util::StreamExt as _;
use model::RunId;
use tempfile::NamedTempFile;

use super::{
    Terminal,
    text::{self, printable},
};
use crate::client::Client;

/// List the artifacts of a run on the services, or get one as a tar archive
#[derive(Debug, Args)]
pub struct ArtifactsArgs {
    /// The run: its id, the beginning of it, or `latest`
    run: String,
    /// Get the artifact of this name [default: list them]
    name: Option<String>,
    /// The one that this stage has left [default: the last one]
    #[arg(long, requires = "name")]
    stage: Option<String>,
    /// Where to write it; `-` is standard output [default: its name and `.tar`, here]
    #[arg(long, short, value_name = "FILE", requires = "name")]
    output: Option<PathBuf>,
    /// Print what the API answers
    #[arg(long, conflicts_with = "name")]
    json: bool,
}

/// Lists them, or brings one.
pub async fn run(args: ArtifactsArgs) -> anyhow::Result<ExitCode> {
    let client = Client::from_environment()?;
    let run = client.pick(&args.run).await?;
    match &args.name {
        Some(name) => get(&client, &run, name, args.stage.as_deref(), args.output.as_deref()).await?,
        None => list(&client, &run, args.json).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(client: &Client, run: &RunId, json: bool) -> anyhow::Result<()> {
    let list = client.artifacts(run).await?;
    let text = if json {
        format!("{}\n", serde_json::to_string_pretty(&list)?)
    } else if list.artifacts.is_empty() {
        format!("The stages of {run} have left no artifacts.\n")
    } else {
        let head = ["NAME", "STAGE", "FILES", "BYTES"].map(str::to_owned).to_vec();
        let row = |artifact: &apispec::ArtifactView| {
            let names = [&artifact.name, &artifact.stage.path].map(|name| printable(name, false));
            names.into_iter().chain([artifact.entries.to_string(), artifact.bytes.to_string()]).collect()
        };
        let rows: Vec<Vec<String>> = std::iter::once(head).chain(list.artifacts.iter().map(row)).collect();
        text::table(&rows)
    };
    Ok(Terminal::stdout().print(&text)?)
}

/// Writes it where it is wanted. A file is there whole, or not at all.
async fn get(client: &Client, run: &RunId, name: &str, stage: Option<&str>, output: Option<&Path>) -> anyhow::Result<()> {
    let mut pieces = client.artifact(run, name, stage).await?;
    if output.is_some_and(|output| output == Path::new("-")) {
        let mut out = io::stdout().lock();
        while let Some(piece) = pieces.next().await {
            out.write_all(&piece?)?;
        }
        return Ok(out.flush()?);
    }
    // A name is what a pipeline says, and no path.
    let own = || PathBuf::from(format!("{}.tar", name.trim_end_matches('/').replace(['/', '\0'], "_")));
    let path = output.map_or_else(own, Path::to_owned);
    let cannot = || format!("cannot write {}", path.display());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = NamedTempFile::new_in(folder).with_context(cannot)?;
    while let Some(piece) = pieces.next().await {
        file.write_all(&piece?).with_context(cannot)?;
    }
    let file = file.into_temp_path();
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o644)).with_context(cannot)?;
    file.persist(&path).with_context(cannot)?;
    writeln!(io::stderr(), "{}", path.display())?;
    Ok(())
}
