//! The demo's repository: a bare one, which Otto knows as a project, and a clone of it with the program in it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use super::{content, git};

/// The project's name.
pub(super) const PROJECT: &str = "demo";
/// The branch that is pushed.
pub(super) const BRANCH: &str = "main";

/// Both repositories.
#[derive(Debug)]
pub(super) struct Repository {
    pub(super) bare: PathBuf,
    pub(super) clone: PathBuf,
    /// The commit that is pushed.
    pub(super) commit: String,
}

impl Repository {
    /// Makes both below `folder`.
    pub(super) async fn create(folder: &Path) -> anyhow::Result<Self> {
        let (bare, clone) = (folder.join("roman.git"), folder.join("roman"));
        let name = |path: &Path| path.to_str().map(str::to_owned).with_context(|| format!("the path {} is not UTF-8", path.display()));
        git::git(folder, &["init", "--quiet", "--bare", &name(&bare)?]).await?;
        git::git(folder, &["clone", "--quiet", &name(&bare)?, &name(&clone)?]).await?;
        // A clone of an empty repository takes the name of its branch from the repository, or not, by git's version.
        git::git(&clone, &["symbolic-ref", "HEAD", &format!("refs/heads/{BRANCH}")]).await?;
        content::write(&clone).with_context(|| format!("cannot write into {}", clone.display()))?;
        git::git(&clone, &["add", "--all"]).await?;
        git::git(&clone, &["commit", "--quiet", "--message", "Write and read Roman numerals"]).await?;
        let commit = git::head(&clone).await?;
        Ok(Self { bare, clone, commit })
    }

    /// Makes the repository known to the forge whose projects are in `projects`.
    pub(super) fn register(&self, projects: &Path) -> anyhow::Result<()> {
        let file = projects.join(format!("{PROJECT}.yml"));
        // JSON is YAML, and quotes what a path may have.
        let url = serde_json::to_string(&self.bare.to_str()).expect("a text has a JSON form");
        let write = fs::create_dir_all(projects).and_then(|()| fs::write(&file, format!("title: Roman numerals\nsource:\n  url: {url}\n")));
        write.with_context(|| format!("cannot write {}", file.display()))
    }

    /// Pushes, and gives what git and the hook say.
    pub(super) async fn push(&self) -> anyhow::Result<String> {
        git::git(&self.clone, &["push", "origin", BRANCH]).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_commit_holds_the_example() {
        let folder = tempfile::tempdir().unwrap();
        let repository = Repository::create(folder.path()).await.unwrap();
        let listed = git::git(&repository.clone, &["ls-tree", "-r", "--name-only", &repository.commit]).await.unwrap();
        assert_eq!(listed.lines().collect::<Vec<_>>(), content::FILES.map(|(path, _)| path));
        repository.push().await.unwrap();
        assert_eq!(git::git(&repository.bare, &["rev-parse", BRANCH]).await.unwrap().trim(), repository.commit);
    }
}
