//! The runs of a folder, read through the same API as those of the services: it is served by this very process, to itself, on loopback.
//!
//! Which runs are meant: those of the services where `--server` or `OTTO_API_URL` says so; else those of the folder, if `otto run` has kept
//! any there, and the one that is asked for is among them; else those of the services.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write as _},
    net::Ipv4Addr,
    time::Duration,
};

use anyhow::Context as _;
use blob::Blobs;
use clap::Args;
use data_encoding::HEXLOWER;
use eventbus::{
    StoredRecord,
    memory::{Journal, JournalError},
};
use model::RunId;
use orchestrator::{
    archive::Archive,
    http::{ApiToken, HttpOptions, Projects, Tokens, serve},
};
use service::{OnError, Supervisor, env, settings::Settings, supervisor::chain};
use tokio::time::sleep;
use tracing::warn;

use super::{Kept, Store};
use crate::client::{Client, Connection, LATEST};

/// How often it is looked for news of runs that another process goes on with. Nobody is told when a file grows.
const LOOK_PAUSE: Duration = Duration::from_millis(100);
/// More records than a journal has: each begins to count at 1, and what is shown together has one order.
const RECORDS_MAX: u64 = 1 << 32;

/// Where runs are read.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Source {
    /// Ask the services, also where `otto run` has kept runs of this folder
    #[arg(long)]
    server: bool,
}

/// A client, and what answers it.
#[derive(Debug)]
pub struct Reader {
    /// Asks for runs.
    pub client: Client,
    /// Runs of the folder that have not ended, and that no process goes on with.
    pub interrupted: BTreeSet<RunId>,
    /// The tasks of this process that answer; none where the services do.
    local: Option<Supervisor>,
}

/// Finds out who knows the run, or the runs where none is named.
pub async fn reach(source: Source, run: Option<&str>) -> anyhow::Result<Reader> {
    let named = source.server || Settings::from_environment().optional::<String>(env::API_URL).is_some();
    let store = if named { None } else { Store::here() };
    let kept = store.as_ref().map(Store::kept).unwrap_or_default();
    let is_known = |run: &str| run == LATEST || kept.iter().any(|kept| kept.is_named(run));
    if let Some(store) = store.filter(|_| !kept.is_empty()) {
        if run.is_none_or(is_known) {
            return Reader::open(&store).await;
        }
        if let Some(run) = run {
            writeln!(io::stderr(), "{} has no run `{}`; asking the services", store.folder().display(), run.escape_debug())?;
        }
    }
    let client = Client::from_environment();
    let client =
        if named || !kept.is_empty() { client } else { client.context("`otto run` has kept no run here, and no services are known") };
    Ok(Reader { client: client?, interrupted: BTreeSet::new(), local: None })
}

impl Reader {
    /// Reads the runs of the store, and goes on reading those that are live.
    async fn open(store: &Store) -> anyhow::Result<Self> {
        let kept = store.kept();
        let mut archive = Archive::new(Blobs::Disk(store.depot()?));
        for (place, kept) in (1..).zip(&kept) {
            if let Err(error) = take_in(&mut archive, place, kept).await {
                writeln!(io::stderr(), "otto: {}", chain(&error))?;
            }
        }
        for (run, why) in &archive.unreadable {
            writeln!(io::stderr(), "otto: {run} is not run upon: {}", chain(why))?;
        }
        // A process that was killed at its very end has not written down the outcome that stands in the log.
        let has_ended = |run: &RunId| archive.orchestrator.runs.get(run).is_some_and(|snapshot| snapshot.run.ended.is_some());
        let can_go_on = |run: &RunId| !has_ended(run) && !archive.unreadable.contains_key(run);
        let is_interrupted = |kept: &Kept| kept.outcome().is_none() && !kept.is_live() && can_go_on(&kept.run);
        if let Some(kept) = kept.last().filter(|last| is_interrupted(last)) {
            writeln!(io::stderr(), "{0} was interrupted: `otto run --resume {0}` goes on with it", kept.run)?;
        }
        let interrupted = kept.iter().filter(|kept| is_interrupted(kept)).map(|kept| kept.run.clone()).collect();
        let mut random = [0; 32];
        getrandom::fill(&mut random).context("the system gives no random bytes")?;
        let token = HEXLOWER.encode(&random);
        let (listen, tokens) = ((Ipv4Addr::LOCALHOST, 0).into(), Tokens::default());
        let projects = Projects::default();
        let options = HttpOptions {
            listen,
            token: ApiToken::new(&token),
            tokens,
            projects,
            requests_per_s: None,
            hosts: Vec::new(),
            origins: Vec::new(),
        };
        let supervisor = Supervisor::new();
        let address = serve(options, archive.orchestrator.clone(), &supervisor)?;
        let live: Vec<(u64, Kept)> = (1..).zip(kept).filter(|(_, kept)| kept.is_live()).collect();
        if !live.is_empty() {
            let token = supervisor.token().clone();
            supervisor.spawn("watch", OnError::Log, async move {
                tokio::select! {
                    () = token.cancelled() => {}
                    () = watch(archive, live) => {}
                }
                Ok(())
            });
        }
        let client = Client::new(Connection::new(&format!("http://{address}"), &token))?;
        Ok(Self { client, interrupted, local: Some(supervisor) })
    }

    /// Ends what this process does to answer.
    pub async fn end(self) {
        if let Some(supervisor) = self.local {
            supervisor.shut_down().await;
        }
    }
}

/// Takes in the logs of a journal. One that is copied from another journal is taken from that one.
async fn take_in(archive: &mut Archive, place: u64, kept: &Kept) -> Result<(), JournalError> {
    let mut logs: BTreeMap<RunId, Vec<StoredRecord>> = BTreeMap::new();
    for mut record in Journal::records(&kept.journal())? {
        record.sequence += place * RECORDS_MAX;
        logs.entry(record.run.clone()).or_default().push(record);
    }
    for (run, records) in &logs {
        archive.take(run, records).await;
    }
    Ok(())
}

/// Takes in what other processes append.
async fn watch(mut archive: Archive, live: Vec<(u64, Kept)>) {
    let mut lengths: BTreeMap<RunId, u64> = BTreeMap::new();
    loop {
        for (place, kept) in &live {
            let Ok(length) = std::fs::metadata(kept.journal()).map(|metadata| metadata.len()) else { continue };
            if lengths.insert(kept.run.clone(), length) != Some(length)
                && let Err(error) = take_in(&mut archive, *place, kept).await
            {
                warn!(run = %kept.run, error = chain(&error), "the run cannot be followed");
            }
        }
        sleep(LOOK_PAUSE).await;
    }
}
