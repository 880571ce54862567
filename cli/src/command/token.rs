//! `otto token`: the tokens of the API.

use std::{fs, io, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use config::{
    Token,
    token::{OWNER, with_token},
};
use data_encoding::HEXLOWER;
use model::{Digest, ProjectName, TokenName, access::Role};
use service::env;

use super::Terminal;
use crate::{
    config_file, home,
    provision::{TOKENS_FILE, files::write_secret},
};

/// Random bytes of a token.
const TOKEN_BYTES: usize = 32;

/// Hand out tokens of the API
#[derive(Debug, Args)]
pub struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    New(NewArgs),
}

/// Make a token, and print it: this once, for only its digest is kept
///
/// The orchestrator knows it a second later. To take it away, take its entry out of the file.
#[derive(Debug, Args)]
struct NewArgs {
    /// Who it is for: the name stands in the records of what is done with it
    name: TokenName,
    /// What it is for; each role may do all that those before it may
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(Role::ALL.map(Role::as_str)))]
    role: String,
    /// A project that it is for; without one, all
    #[arg(long = "project", value_name = "PROJECT")]
    projects: Vec<ProjectName>,
    /// The file of the tokens; without it, the one of `OTTO_API_TOKENS`, else that of `otto up`
    #[arg(long)]
    file: Option<PathBuf>,
}

/// Does what `otto token` is told.
pub fn run(args: TokenArgs) -> anyhow::Result<ExitCode> {
    let TokenCommand::New(args) = args.command;
    let token = make(args)?;
    Terminal::stdout().print(&format!("{token}\n"))?;
    Ok(ExitCode::SUCCESS)
}

fn make(args: NewArgs) -> anyhow::Result<String> {
    let NewArgs { name, role, projects, file } = args;
    if name.as_str() == OWNER {
        bail!("`{OWNER}` is the name of the orchestrator's own token: take another");
    }
    let role = Role::ALL.into_iter().find(|known| known.as_str() == role).context("there is no such role")?;
    let file = file.map_or_else(file_of_this_machine, Ok)?;
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
    };
    let mut random = [0; TOKEN_BYTES];
    getrandom::fill(&mut random).context("the system gives no random bytes")?;
    let secret = format!("otto_{}", HEXLOWER.encode(&random));
    let projects = (!projects.is_empty()).then(|| projects.into_iter().collect());
    let token = Token { name, digest: Digest::of(secret.as_bytes()), role, projects };
    let text = with_token(&text, &token).map_err(|wrong| anyhow::anyhow!("{} cannot take it: {}", file.display(), wrong.join("; ")))?;
    write_secret(&file, &text)?;
    Ok(secret)
}

fn file_of_this_machine() -> anyhow::Result<PathBuf> {
    let data = home::up_folder()?;
    Ok(config_file::path_of_up(&data, env::API_TOKENS).unwrap_or_else(|| data.join(TOKENS_FILE)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn args(name: &str, file: &std::path::Path) -> NewArgs {
        NewArgs {
            name: name.parse().unwrap(),
            role: "run".to_owned(),
            projects: vec!["shop".parse().unwrap()],
            file: Some(file.to_owned()),
        }
    }

    #[test]
    fn a_new_token_is_known_by_its_digest_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tokens.yml");
        let (ann, bob) = (make(args("ann", &file)).unwrap(), make(args("bob", &file)).unwrap());
        let known = config::load_tokens(&file).unwrap();
        let digests: Vec<Digest> = known.iter().map(|token| token.digest).collect();
        assert_eq!(digests, [Digest::of(ann.as_bytes()), Digest::of(bob.as_bytes())]);
        assert_eq!(
            (known[0].name.as_str(), known[0].role, known[0].projects.as_ref().map(std::collections::BTreeSet::len)),
            ("ann", Role::Run, Some(1))
        );
        assert!(!fs::read_to_string(&file).unwrap().contains(&ann));
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_name_is_given_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tokens.yml");
        make(args("ann", &file)).unwrap();
        let before = fs::read_to_string(&file).unwrap();
        assert!(make(args("ann", &file)).unwrap_err().to_string().contains("has this name"));
        assert!(make(args(OWNER, &file)).is_err());
        assert_eq!(fs::read_to_string(&file).unwrap(), before);
    }
}
