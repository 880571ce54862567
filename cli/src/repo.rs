//! `otto repo`: repositories that Otto itself serves.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use model::ProjectName;
use service::env;

use crate::{config_file, home, provision::forge_url};

/// Where they lie in the folder of `otto up`.
const REPOSITORIES: &str = "repositories";

/// Have Otto serve git repositories, for a team that has no forge
#[derive(Debug, Args)]
pub struct RepoArgs {
    #[command(subcommand)]
    command: RepoCommand,
}

#[derive(Debug, Subcommand)]
enum RepoCommand {
    Create(CreateArgs),
}

/// Make an empty repository, and a project of its name
///
/// The forge serves it when it starts next. Who clones it or pushes to it shows a token of the API as the password, whatever the user: `otto token new
/// NAME --role run` makes one for pushes, `--role view` one for clones. A push starts the project's runs.
#[derive(Debug, Args)]
struct CreateArgs {
    /// Its name, and the project's
    name: ProjectName,
    /// The folder of `otto up` [default: `up` in Otto's home]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// Does what `otto repo` is told.
pub fn run(args: RepoArgs) -> anyhow::Result<ExitCode> {
    let RepoCommand::Create(CreateArgs { name, data }) = args.command;
    let data = std::path::absolute(data.map_or_else(home::up_folder, Ok)?).context("the folder is no path")?;
    let url = forge_url(&data)?;
    let projects = config_file::path_of_up(&data, env::PROJECTS).unwrap_or_else(|| data.join("projects"));
    create(&data, &projects, &name)?;
    writeln!(io::stderr(), "{url}/git/{name}.git is served when the forge starts next")?;
    Ok(ExitCode::SUCCESS)
}

fn create(data: &Path, projects: &Path, name: &ProjectName) -> anyhow::Result<()> {
    let repository = data.join(REPOSITORIES).join(format!("{name}.git"));
    let project = projects.join(format!("{name}.yml"));
    for path in [&repository, &project] {
        if path.exists() {
            bail!("{} is there already", path.display());
        }
    }
    fs::create_dir_all(data.join(REPOSITORIES)).with_context(|| format!("cannot make {}", data.join(REPOSITORIES).display()))?;
    let mut git = Command::new("git");
    git.args(["init", "--quiet", "--bare", "--template=", "--initial-branch=main", "--"]).arg(&repository).env_clear();
    git.envs(std::env::var_os("PATH").map(|path| ("PATH", path))).env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
    let made = git.output().context("cannot start git")?;
    if !made.status.success() {
        bail!("git cannot make {}: {}", repository.display(), String::from_utf8_lossy(&made.stderr).trim());
    }
    // JSON is YAML, and quotes what a path may have.
    let path = repository.to_str().with_context(|| format!("{} is not UTF-8", repository.display()))?;
    let text = format!("source:\n  url: {}\n  serve: true\n", serde_json::to_string(path)?);
    let written = fs::File::create_new(&project).and_then(|mut file| file.write_all(text.as_bytes()));
    written.with_context(|| format!("cannot write {}", project.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_a_project_that_is_served_and_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().canonicalize().unwrap();
        fs::create_dir(data.join("projects")).unwrap();
        let name: ProjectName = "shop".parse().unwrap();
        let folder = data.join("projects");
        create(&data, &folder, &name).unwrap();
        let projects = config::load(&folder).unwrap();
        let [project] = projects.as_slice() else { panic!("{projects:?}") };
        assert!(project.serve && project.name == name);
        assert_eq!(project.source.repository(), Some(data.join("repositories/shop.git").as_path()));
        assert!(create(&data, &folder, &name).unwrap_err().to_string().contains("there already"));
    }
}
