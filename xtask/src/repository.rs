//! The files that belong to the project, and its crates.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use cargo_metadata::{DependencyKind, MetadataCommand};
use ignore::WalkBuilder;

/// A file that is larger is data, and not looked at.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// A text file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct File {
    /// From the root, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// That one crate of the workspace depends on another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Arrow {
    pub(crate) from: String,
    pub(crate) to: String,
    /// Only its tests do.
    pub(crate) dev: bool,
}

/// The project, as it lies in the work tree.
#[derive(Debug, Clone, Default)]
pub(crate) struct Repository {
    pub(crate) root: PathBuf,
    /// What git tracks, and what it would if it were added; sorted.
    pub(crate) files: Vec<File>,
    /// The folder of each crate of the workspace, from the root.
    pub(crate) crates: BTreeMap<String, String>,
    pub(crate) arrows: Vec<Arrow>,
}

impl Repository {
    /// Reads the work tree that this program was built from.
    pub(crate) fn load() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in a folder of the repository")?;
        let (crates, arrows) = workspace(root)?;
        Ok(Self { root: root.to_owned(), files: files(root)?, crates, arrows })
    }

    /// The file at `path`, if it is there.
    pub(crate) fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    /// The Rust files of the workspace's crates. Programs under `examples/` are no part of it, and test data is no code.
    pub(crate) fn sources(&self) -> impl Iterator<Item = &File> {
        let of_a_crate =
            |path: &str| self.crates.values().any(|folder| path.strip_prefix(folder.as_str()).is_some_and(|rest| rest.starts_with('/')));
        let rust = |path: &str| Path::new(path).extension().is_some_and(|extension| extension == "rs");
        self.files.iter().filter(move |file| rust(&file.path) && !file.path.contains("/test_data/") && of_a_crate(&file.path))
    }
}

fn files(root: &Path) -> Result<Vec<File>> {
    // What git would list, without asking it: a stage that checks the project has its tree and no repository.
    let walk = WalkBuilder::new(root).hidden(false).require_git(false).filter_entry(|entry| entry.file_name() != ".git").build();
    let mut paths = Vec::new();
    for entry in walk {
        let entry = entry.context("cannot list the files of the project")?;
        if let Ok(path) = entry.path().strip_prefix(root)
            && let Some(path) = path.to_str().filter(|path| !path.is_empty())
        {
            paths.push(path.to_owned());
        }
    }
    paths.sort_unstable();
    let mut files = Vec::new();
    for path in &paths {
        let full = root.join(path);
        match fs::symlink_metadata(&full) {
            Ok(meta) if meta.is_file() && meta.len() <= FILE_BYTES_MAX => {}
            Ok(_) => continue,
            // Removed, and git not told yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error).with_context(|| format!("cannot read {path}")),
        }
        let bytes = fs::read(&full).with_context(|| format!("cannot read {path}"))?;
        if let Ok(text) = String::from_utf8(bytes) {
            files.push(File { path: path.to_owned(), text });
        }
    }
    Ok(files)
}

fn workspace(root: &Path) -> Result<(BTreeMap<String, String>, Vec<Arrow>)> {
    let metadata = MetadataCommand::new().manifest_path(root.join("Cargo.toml")).no_deps().exec().context("cargo metadata")?;
    let mut crates = BTreeMap::new();
    let mut arrows = Vec::new();
    for package in metadata.workspace_packages() {
        let folder = package.manifest_path.parent().and_then(|folder| folder.strip_prefix(&metadata.workspace_root).ok());
        let folder = folder.with_context(|| format!("{} lies outside of the repository", package.name))?;
        crates.insert(package.name.to_string(), folder.as_str().replace('\\', "/"));
        for dependency in package.dependencies.iter().filter(|dependency| dependency.path.is_some()) {
            let dev = dependency.kind == DependencyKind::Development;
            arrows.push(Arrow { from: package.name.to_string(), to: dependency.name.clone(), dev });
        }
    }
    Ok((crates, arrows))
}
