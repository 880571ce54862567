//! The nkeys of services and agents: each has a seed in a file that only its owner reads; the server knows the public keys.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use model::AgentName;
use nkeys::KeyPair;

use crate::subject::Role;

/// What a seed's file name ends with.
const SUFFIX: &str = ".seed";

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A file or folder cannot be read or written.
    #[error("cannot keep a key in {}", .path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file is there, and holds no seed.
    #[error("{} holds no seed of a user's nkey: move it away, and a new one is made", .path.display())]
    Malformed {
        /// Which.
        path: PathBuf,
        /// What nkeys says.
        source: nkeys::error::Error,
    },
}

/// The public keys of everybody who may use the bus, and where their seeds lie: `NAME.seed` for services, `agents/NAME.seed` for agents.
#[derive(Debug)]
pub struct Keys {
    folder: PathBuf,
    services: BTreeMap<Role, String>,
    agents: BTreeMap<AgentName, String>,
}

impl Keys {
    /// Reads the keys in `folder`, and makes those of services that are missing.
    pub fn open(folder: &Path) -> Result<Self, KeyError> {
        let mut keys = Self { folder: folder.to_owned(), services: BTreeMap::new(), agents: BTreeMap::new() };
        let agents = keys.agents_folder();
        let io = |source| KeyError::Io { path: agents.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(&agents).map_err(io)?;
        for role in Role::ALL {
            let public = load_or_create(&keys.service_seed_file(role))?;
            keys.services.insert(role, public);
        }
        for entry in fs::read_dir(&agents).map_err(io)? {
            let name = entry.map_err(io)?.file_name();
            if let Some(agent) = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)).and_then(|name| name.parse().ok()) {
                keys.enrol(&agent)?;
            }
        }
        Ok(keys)
    }

    /// Makes a key for an agent that has none yet. The server knows of it once its configuration is written anew and read again.
    pub fn enrol(&mut self, agent: &AgentName) -> Result<(), KeyError> {
        let public = load_or_create(&self.agent_seed_file(agent))?;
        self.agents.insert(agent.clone(), public);
        Ok(())
    }

    /// The public keys of services.
    pub fn services(&self) -> &BTreeMap<Role, String> {
        &self.services
    }

    /// The public keys of agents.
    pub fn agents(&self) -> &BTreeMap<AgentName, String> {
        &self.agents
    }

    /// Where a service's seed lies.
    pub fn service_seed_file(&self, role: Role) -> PathBuf {
        self.folder.join(format!("{role}{SUFFIX}"))
    }

    /// Where an agent's seed lies.
    pub fn agent_seed_file(&self, agent: &AgentName) -> PathBuf {
        self.agents_folder().join(format!("{agent}{SUFFIX}"))
    }

    fn agents_folder(&self) -> PathBuf {
        self.folder.join("agents")
    }
}

/// The public key of the seed in this file, which is made if it is missing.
fn load_or_create(path: &Path) -> Result<String, KeyError> {
    let malformed = |source| KeyError::Malformed { path: path.to_owned(), source };
    match fs::read_to_string(path) {
        Ok(seed) => Ok(KeyPair::from_seed(seed.trim()).map_err(malformed)?.public_key()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let pair = KeyPair::new_user();
            let seed = pair.seed().map_err(malformed)?;
            write_secret(path, &seed).map_err(|source| KeyError::Io { path: path.to_owned(), source })?;
            Ok(pair.public_key())
        }
        Err(source) => Err(KeyError::Io { path: path.to_owned(), source }),
    }
}

/// Writes a file for its owner's eyes, whole or not at all.
fn write_secret(path: &Path, text: &str) -> io::Result<()> {
    let aside = path.with_extension("new");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&aside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&aside, path)?;
    File::open(path.parent().expect("a seed lies in a folder"))?.sync_all()
}
