//! What is delivered: the pipeline file, and the tree around it.

use std::path::Path;

use anyhow::Context as _;
use model::{ProjectName, TriggerId, name::NAME_BYTES_MAX};
use service::clock;

use crate::pipeline::Pipeline;

/// The project of a folder whose name is none.
const PROJECT_DEFAULT: &str = "local";

/// A pipeline file and its tree.
pub(super) struct Source {
    /// The file, and the repository around it; the file's folder where it is in none.
    pub(super) pipeline: Pipeline,
    /// The folder's name, made into a project's.
    pub(super) project: ProjectName,
    /// Of the one run of this process.
    pub(super) trigger: TriggerId,
}

impl Source {
    pub(super) fn find(file: &Path) -> anyhow::Result<Self> {
        let missing = || format!("{} is no pipeline file: name another, or begin with the examples of the README", file.display());
        let pipeline = Pipeline::open(file).with_context(missing)?;
        let delivery = format!("{}-{}", std::process::id(), clock::unix_ms());
        Ok(Self { project: project(pipeline.root()), pipeline, trigger: TriggerId::of("otto run", &delivery) })
    }
}

/// The folder's name, in the characters of a project's.
fn project(root: &Path) -> ProjectName {
    let name = root.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let allowed: String = name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' }).take(NAME_BYTES_MAX).collect();
    let trimmed = allowed.trim_start_matches(['-', '_']);
    trimmed.parse().unwrap_or_else(|_| PROJECT_DEFAULT.parse().expect("the default is a name"))
}

#[cfg(test)]
mod tests {
    use std::fs;

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
        fs::write(root.join("sub/Ottofile"), "pipeline {}").unwrap();
        let source = Source::find(&root.join("sub/Ottofile")).unwrap();
        assert_eq!((source.pipeline.root(), source.pipeline.path.as_str()), (root.as_path(), "sub/Ottofile"));
        assert!(Source::find(&root.join("none")).is_err());
    }
}
