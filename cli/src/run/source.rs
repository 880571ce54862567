//! What is delivered: the pipeline file, and the tree around it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use model::{ProjectName, TriggerId, name::NAME_BYTES_MAX};
use service::clock;

use crate::command::read;

/// The project of a folder whose name is none.
const PROJECT_DEFAULT: &str = "local";

/// A pipeline file and its tree.
pub(super) struct Source {
    /// The repository's root; the file's folder where it is in none.
    pub(super) root: PathBuf,
    /// The pipeline file's path from there.
    pub(super) pipeline_path: String,
    /// The pipeline file's bytes.
    pub(super) pipeline: Vec<u8>,
    /// The folder's name, made into a project's.
    pub(super) project: ProjectName,
    /// The branch that is checked out; empty if there is none.
    pub(super) branch: String,
    /// Of the one run of this process.
    pub(super) trigger: TriggerId,
}

impl Source {
    pub(super) fn find(file: &Path) -> anyhow::Result<Self> {
        let missing = || format!("{} is no pipeline file: name another, or begin with the examples of the README", file.display());
        let pipeline = read(file).with_context(missing)?;
        let path = file.canonicalize().with_context(missing)?;
        let folder = path.parent().context("a file is in a folder")?;
        let root = folder.ancestors().find(|folder| folder.join(".git").exists()).unwrap_or(folder).to_owned();
        let pipeline_path =
            path.strip_prefix(&root)?.to_str().with_context(|| format!("the path {} is not UTF-8", path.display()))?.to_owned();
        let delivery = format!("{}-{}", std::process::id(), clock::unix_ms());
        Ok(Self {
            project: project(&root),
            branch: branch(&root),
            pipeline,
            pipeline_path,
            root,
            trigger: TriggerId::of("otto run", &delivery),
        })
    }
}

/// The folder's name, in the characters of a project's.
fn project(root: &Path) -> ProjectName {
    let name = root.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let allowed: String = name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' }).take(NAME_BYTES_MAX).collect();
    let trimmed = allowed.trim_start_matches(['-', '_']);
    trimmed.parse().unwrap_or_else(|_| PROJECT_DEFAULT.parse().expect("the default is a name"))
}

/// The branch of a checkout, read as git writes it (gitrepository-layout(5), `HEAD`).
fn branch(root: &Path) -> String {
    let head = fs::read_to_string(root.join(".git/HEAD")).unwrap_or_default();
    head.trim().strip_prefix("ref: refs/heads/").unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_gives_its_project_a_name() {
        for (folder, name) in [("/x/web", "web"), ("/x/My App", "my-app"), ("/x/.hidden", "hidden"), ("/", "local"), ("/x/ü", "local")] {
            assert_eq!(project(Path::new(folder)).as_str(), name, "{folder}");
        }
    }

    #[test]
    fn the_source_is_the_repository_around_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        fs::create_dir_all(root.join(".git")).unwrap();
        fs::create_dir_all(root.join("sub")).unwrap();
        fs::write(root.join(".git/HEAD"), "ref: refs/heads/topic/a\n").unwrap();
        fs::write(root.join("sub/Ottofile"), "pipeline {}").unwrap();
        let source = Source::find(&root.join("sub/Ottofile")).unwrap();
        assert_eq!(
            (source.root.as_path(), source.pipeline_path.as_str(), source.branch.as_str()),
            (root.as_path(), "sub/Ottofile", "topic/a")
        );
        assert!(Source::find(&root.join("none")).is_err());
    }
}
