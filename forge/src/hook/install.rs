//! Writes the hook into a bare repository.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{HookConfig, config_path, create_folder, pending, write_durably};
use config::project::bare_repository;

/// Stands in every hook that Otto writes: such a one may be written again.
const MARK: &str = "# Written by `otto hook install`, which overwrites it.";
/// Bytes of a hook's secret: more than can be guessed.
const SECRET_BYTES: usize = 32;

/// Why the hook is not installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// It is no bare repository.
    #[error("cannot install a hook into `{}`", path.display())]
    Repository {
        /// The path.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The repository has another post-receive hook.
    #[error("`{}` is somebody else's hook; have it run `{command}` with its standard input, or remove it", path.display())]
    ForeignHook {
        /// The hook.
        path: PathBuf,
        /// What it can run.
        command: String,
    },
    /// The path of Otto itself is not one for a script.
    #[error("`{}` is no absolute path that a script can name", .0.display())]
    Command(PathBuf),
    /// The system gives no random bytes.
    #[error("the system gives no random bytes for the hook's secret")]
    NoRandomness,
    /// A file cannot be read or written.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// Has `repository`, a bare one, tell the forge at `forge_url` of every push, by running the program `otto`. It may be called again.
pub fn install(repository: &Path, forge_url: &str, otto: &Path) -> Result<(), InstallError> {
    let repository = bare_repository(repository).map_err(|source| InstallError::Repository { path: repository.to_owned(), source })?;
    let hook = repository.join("hooks").join("post-receive");
    if is_foreign(&hook).map_err(failed(&hook))? {
        return Err(InstallError::ForeignHook { path: hook, command: format!("{} hook post-receive", otto.display()) });
    }
    let command = otto.to_str().filter(|path| path.starts_with('/') && !path.contains(['\n', '\0']));
    let command = command.ok_or_else(|| InstallError::Command(otto.to_owned()))?;
    let mut secret = [0; SECRET_BYTES];
    getrandom::fill(&mut secret).map_err(|_| InstallError::NoRandomness)?;
    let config = HookConfig { url: forge_url.to_owned(), secret: data_encoding::HEXLOWER.encode(&secret) };
    let config = serde_json::to_vec_pretty(&config).expect("a configuration has text keys only");
    let pending = pending(&repository);
    create_folder(&pending).map_err(failed(&pending))?;
    let path = config_path(&repository);
    write_durably(&path, &config, 0o600).map_err(failed(&path))?;
    fs::create_dir_all(repository.join("hooks")).map_err(failed(&hook))?;
    write_durably(&hook, script(command).as_bytes(), 0o755).map_err(failed(&hook))
}

fn is_foreign(hook: &Path) -> io::Result<bool> {
    match fs::read(hook) {
        Ok(bytes) => Ok(!String::from_utf8_lossy(&bytes).lines().any(|line| line == MARK)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The hook. Git runs it in the repository.
fn script(command: &str) -> String {
    format!("#!/bin/sh\n{MARK}\nexec '{}' hook post-receive\n", command.replace('\'', r"'\''"))
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> InstallError {
    let path = path.to_owned();
    move |source| InstallError::Write { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_quotes_is_one_word_of_the_script() {
        let script = script("/opt/it's here/otto");
        assert!(script.ends_with("\nexec '/opt/it'\\''s here/otto' hook post-receive\n"), "{script}");
    }
}
