//! What an operator says of the isolation of stages.

use std::path::{Component, Path, PathBuf};

use super::{Isolation, Nursery, StageUsers};
use crate::executor::environment::{Variables, tool_homes};

/// Processes and threads of a stage, unless the operator says otherwise: more than a build on a large machine has, fewer than a machine has
/// ids for.
pub const PROCESSES_MAX: u64 = 4_096;
/// Where `cargo login` keeps its tokens, below cargo's home.
const CARGO_CREDENTIALS: [&str; 2] = ["credentials.toml", "credentials"];

/// How an agent's stages are to be isolated.
#[derive(Debug, Clone)]
pub struct SandboxOptions {
    /// How far.
    pub isolation: Isolation,
    /// Whose processes they are.
    pub users: StageUsers,
    /// The program `otto`, whose hidden commands run in stages. Without it processes of stages are the agent's own children, and are held
    /// together by their group only.
    pub otto: Option<PathBuf>,
    /// The most memory of a stage that demands none.
    pub memory_bytes: Option<u64>,
    /// The most processes and threads of a stage, if there is to be a limit; see [`PROCESSES_MAX`].
    pub processes: Option<u64>,
    /// Whether stages may demand limits. Where none does and nothing else is limited, control groups are not looked for: that takes as long as
    /// a short stage. A demand is met nevertheless, but the empty group of a stage is then not removed if its agent is killed.
    pub limits_stages: bool,
    /// What holds stages from the beginning on, if it was [forked](super::fork_nursery) already.
    pub nursery: Option<Nursery>,
    /// What stages see though it lies in a hidden folder, read-only.
    pub shown: Vec<PathBuf>,
    /// What stages may write besides their own folders.
    pub writable: Vec<PathBuf>,
    /// What stages do not see: folders, and files that hold secrets.
    pub hidden: Vec<PathBuf>,
}

impl SandboxOptions {
    /// Nothing but the process group.
    pub fn none() -> Self {
        Self {
            isolation: Isolation::Auto,
            users: StageUsers::Same,
            otto: None,
            memory_bytes: None,
            processes: Some(PROCESSES_MAX),
            limits_stages: true,
            nursery: None,
            shown: Vec::new(),
            writable: Vec::new(),
            hidden: Vec::new(),
        }
    }

    /// Stages as the agent's own user, for an agent that was started with this environment: its home is hidden, but for the tools that stages find by `PATH`, and the homes of
    /// tools may be written.
    pub fn of(isolation: Isolation, otto: PathBuf, environment: &Variables) -> Self {
        let home = environment.get("HOME").map(PathBuf::from).filter(|home| home.is_absolute() && home.parent().is_some());
        let passed = tool_homes(environment);
        let writable: Vec<PathBuf> = ["RUSTUP_HOME", "CARGO_HOME"].iter().filter_map(|name| passed.get(*name).map(PathBuf::from)).collect();
        let credentials = passed.get("CARGO_HOME").into_iter().flat_map(|home| CARGO_CREDENTIALS.map(|name| Path::new(home).join(name)));
        let hidden = credentials.chain(home.clone()).collect();
        let path = passed.get("PATH").into_iter().flat_map(|path| path.split(':')).map(PathBuf::from).filter(|entry| entry.is_absolute());
        let own = |entry: &Path| home.clone().filter(|home| entry.starts_with(home));
        let tool = |entry: &Path| tool_below(&own(entry).or_else(|| home_of(entry))?, entry);
        let shown = path.map(|entry| tool(&entry).unwrap_or(entry)).collect();
        let users = StageUsers::Same;
        let processes = Some(PROCESSES_MAX);
        Self {
            isolation,
            users,
            otto: Some(otto),
            memory_bytes: None,
            processes,
            limits_stages: true,
            nursery: None,
            shown,
            writable,
            hidden,
        }
    }
}

/// The home that a folder lies in, by where homes are (FHS 3.0, `/home` and `/root`): whose it is, an agent in a stage does not know.
fn home_of(folder: &Path) -> Option<PathBuf> {
    let mut components = folder.components();
    let mut home: PathBuf = components.by_ref().take(2).collect();
    if home == Path::new("/home") {
        home.push(components.next()?);
    } else if home != Path::new("/root") {
        return None;
    }
    components.next().map(|_| home)
}

/// The folder of the tool that has this folder of programs in a home: `~/.nvm` of `~/.nvm/versions/node/v22/bin`, `~/go` of `~/go/bin`.
fn tool_below(home: &Path, programs: &Path) -> Option<PathBuf> {
    let below = programs.strip_prefix(home).ok()?;
    let Some(Component::Normal(first)) = below.components().next() else { return None };
    let is_shared = first == ".local" || first == ".config";
    if first.as_encoded_bytes().starts_with(b".") && !is_shared {
        return Some(home.join(first));
    }
    // `bin` beside what belongs to it, unless that is the home itself.
    programs.parent().filter(|parent| *parent != home && !is_shared).map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_in_a_home_is_found_by_its_programs() {
        let home = Path::new("/home/ann");
        for (programs, tool) in [
            ("/home/ann/.nvm/versions/node/v22/bin", Some("/home/ann/.nvm")),
            ("/home/ann/go/bin", Some("/home/ann/go")),
            ("/home/ann/bin", None),
            ("/home/ann/.local/bin", None),
            ("/usr/bin", None),
        ] {
            assert_eq!(tool_below(home, Path::new(programs)), tool.map(PathBuf::from), "{programs}");
        }
    }

    #[test]
    fn a_tool_in_the_home_of_somebody_else_is_seen_whole() {
        let path = ["/root", ".pyenv/shims:/home/bob/go/bin:/home/bob/bin:/rooted/bin"].join("/");
        let variables = [("HOME", "/tmp/stage/home"), ("PATH", &*path)].map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let options = SandboxOptions::of(Isolation::Auto, "/usr/bin/otto".into(), &variables);
        let pyenv = Path::new("/root").join(".pyenv");
        assert_eq!(options.shown, [pyenv.as_path(), Path::new("/home/bob/go"), Path::new("/home/bob/bin"), Path::new("/rooted/bin")]);
    }

    #[test]
    fn an_agents_home_is_hidden_and_its_tools_are_not() {
        let variables = [("HOME", "/home/ann"), ("PATH", "/usr/bin:/home/ann/.local/bin:relative"), ("CARGO_HOME", "/home/ann/.cargo")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let options = SandboxOptions::of(Isolation::Auto, "/usr/bin/otto".into(), &variables);
        let paths = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(options.shown, paths(&["/usr/bin", "/home/ann/.local/bin"]));
        assert_eq!(options.writable, paths(&["/home/ann/.cargo"]));
        let hidden = ["/home/ann/.cargo/credentials.toml", "/home/ann/.cargo/credentials", "/home/ann"];
        assert_eq!(options.hidden, paths(&hidden));
    }
}
