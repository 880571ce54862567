//! Where nothing but the attempt's own may be written: a net for machines without namespaces.

use std::{
    io,
    path::{Path, PathBuf},
};

use landlock::{
    ABI, Access as _, AccessFs, CompatLevel, Compatible as _, PathBeneath, PathFd, RestrictionStatus, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetStatus, Scope,
};
use serde::{Deserialize, Serialize};

/// The newest interface that is used; an older kernel does less of it.
const NEWEST: ABI = ABI::V6;
/// What every program may write to, though it is no folder of the attempt.
const DEVICES: [&str; 8] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/ptmx", "/dev/pts"];
/// Shared memory is how parts of one program speak to each other.
const SHARED_MEMORY: &str = "/dev/shm";

/// What may be written.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Rules {
    /// These, and what is below them. What is not there is left out.
    pub(super) writable: Vec<PathBuf>,
}

impl Rules {
    /// Holds this process and all that it starts to the rules, for ever.
    pub(super) fn enforce(&self) -> io::Result<()> {
        let status = self.restrict().map_err(io::Error::other)?;
        match status.ruleset {
            RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Ok(()),
            RulesetStatus::NotEnforced => Err(io::Error::other("the kernel does not enforce landlock's rules")),
        }
    }

    fn restrict(&self) -> Result<RestrictionStatus, landlock::RulesetError> {
        let writes = AccessFs::from_write(NEWEST);
        let to_files = writes & AccessFs::from_file(NEWEST);
        let mut ruleset = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(writes)?
            .scope(Scope::from_all(NEWEST))?
            .create()?;
        let devices = DEVICES.iter().map(|device| (Path::new(device), device.ends_with("pts")));
        let shared = [(Path::new(SHARED_MEMORY), true)];
        let own = self.writable.iter().map(|path| (path.as_path(), path.is_dir()));
        for (path, is_folder) in devices.chain(shared).chain(own) {
            let Ok(descriptor) = PathFd::new(path) else { continue };
            ruleset = ruleset.add_rule(PathBeneath::new(descriptor, if is_folder { writes } else { to_files }))?;
        }
        ruleset.restrict_self()
    }
}

/// Whether the kernel has landlock. Asks by making a set of rules that nobody is held to.
pub(super) fn is_there() -> bool {
    let first = AccessFs::from_write(ABI::V1);
    let ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement).handle_access(first);
    ruleset.and_then(Ruleset::create).is_ok()
}
