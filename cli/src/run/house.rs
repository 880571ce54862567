//! All roles in this process: on the bus within it, with the store on disk, without a server.

use std::{num::NonZeroU32, path::Path};

use agent::AgentOptions;
use anyhow::Context as _;
use auctioneer::AuctioneerOptions;
use blob::{Blobs, DiskStore, disk::Durability};
use orchestrator::{
    Orchestrator,
    engine::{self, EngineOptions},
};
use parser_service::{Isolation, ParserOptions};
use service::Supervisor;
use tempfile::TempDir;

/// The name of the only agent.
const AGENT: &str = "local";
/// What the roles of this process are called in the log.
const NAME: &str = "otto-run";
/// The class of agents that everything is announced to.
const CLASS: &str = "default";

/// The roles, and the folder in which they work.
pub(super) struct House {
    pub(super) orchestrator: Orchestrator,
    pub(super) blobs: Blobs,
    supervisor: Supervisor,
    folder: TempDir,
}

impl House {
    /// Starts the roles; when this returns they listen to each other. `slots` stages run at once.
    pub(super) async fn start(slots: NonZeroU32) -> anyhow::Result<Self> {
        // Not under the project: tools that look for their root upwards must not find the project's.
        let folder = tempfile::Builder::new().prefix("otto-run-").tempdir().context("there is no folder for the run's work")?;
        let store = DiskStore::open(&folder.path().join("depot"), Durability::None)?;
        let (bus, blobs, supervisor) = (eventbus::memory::bus(), Blobs::Disk(store), Supervisor::new());
        // The file is the user's own: a mistake of it costs nobody else anything.
        let parser = ParserOptions { libraries: vec![stdlib::library()], isolation: Isolation::None, listen: None };
        parser_service::run(parser, bus.clone(), blobs.clone(), &supervisor).await?;
        auctioneer::run(AuctioneerOptions { name: NAME.to_owned() }, bus.clone(), &supervisor).await?;
        let options = EngineOptions { name: NAME.to_owned(), signer: None };
        let orchestrator = engine::start(options, bus.clone(), blobs.clone(), &supervisor).await?;
        agent::run(agent_options(slots, folder.path())?, bus, blobs.clone(), &supervisor).await?;
        Ok(Self { orchestrator, blobs, supervisor, folder })
    }

    /// Ends the roles and every process of a stage, and removes the folder.
    pub(super) async fn end(self) -> anyhow::Result<()> {
        self.supervisor.shut_down().await;
        let folder = self.folder.path().to_owned();
        self.folder.close().with_context(|| format!("{} is left behind", folder.display()))
    }
}

fn agent_options(slots: NonZeroU32, folder: &Path) -> anyhow::Result<AgentOptions> {
    let environment = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect();
    Ok(AgentOptions {
        name: AGENT.parse()?,
        slots: slots.get(),
        data: folder.join("agent"),
        price_micros_per_s: 0,
        class: CLASS.to_owned(),
        facts: agent::machine_facts(),
        passthrough: agent::tool_homes(&environment),
        program: agent::THIS_PROGRAM.into(),
    })
}
