//! Which `otto.yml` is meant, and what it says to commands.

use std::path::{Path, PathBuf};

use config::{CONFIG_FILE, ConfigFile};
use service::{env, settings::Settings};

/// The file that is named; else that of `OTTO_CONFIG`; else `otto.yml` of the first of these folders that has one.
pub(crate) fn find(named: Option<&Path>, folders: &[&Path]) -> Option<ConfigFile> {
    let named = named.map(Path::to_owned).or_else(|| Settings::from_environment().optional(env::CONFIG));
    let beside = || folders.iter().map(|folder| folder.join(CONFIG_FILE)).find(|path| path.exists());
    named.or_else(beside).map(|path| ConfigFile::read(&path))
}

/// A path that the services of the `otto up` of this folder were told: the variable's, else the file's.
pub(crate) fn path_of_up(data: &Path, variable: &'static str) -> Option<PathBuf> {
    path_of(find(None, &[data]).as_ref(), variable)
}

/// The same, of this file.
pub(crate) fn path_of(file: Option<&ConfigFile>, variable: &'static str) -> Option<PathBuf> {
    let below = file.map(|file| file.of(env::ORCHESTRATOR)).unwrap_or_default();
    Settings::from_environment().below(below, []).optional(variable)
}
