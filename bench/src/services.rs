//! The services as separate processes, and a client that follows the API.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use eventsource_stream::{Event, Eventsource as _};
use futures_util::StreamExt as _;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    baseline, scratch,
    stats::{Row, Samples},
};

/// Stages of the long run: the differences between their first bytes are the samples.
const STAGES: usize = 400;
/// Runs of one stage.
const RUNS: usize = 100;
/// Until the services must be ready.
const READY: Duration = Duration::from_mins(1);

pub(crate) async fn measure(otto: &Path, floor: &Samples) -> anyhow::Result<Vec<Row>> {
    let services = Services::start(otto, 1, &[]).await?;
    services.chain(20).await?;
    let stages = services.chain(STAGES).await?;
    let mut first_bytes = Samples::default();
    let mut ends = Samples::default();
    for _ in 0..RUNS {
        let (first_byte, end) = services.single().await?;
        first_bytes.push(first_byte);
        ends.push(end);
    }
    services.end().await?;
    Ok(vec![
        stages.row("services: one more stage, first byte to first byte", Some(floor.p50())),
        first_bytes.row("services: one run of one stage, request to first byte", None),
        ends.row("services: one run of one stage, request to the run's end", Some(floor.p50())),
        beside_a_stopped_agent(otto).await?.row("services: one more stage beside a stopped agent (one of three)", Some(floor.p50())),
    ])
}

async fn beside_a_stopped_agent(otto: &Path) -> anyhow::Result<Samples> {
    let services = Services::start(otto, 3, &[]).await?;
    services.chain(20).await?;
    services.signal("agent-3", Signal::SIGSTOP)?;
    let samples = services.chain(STAGES).await?;
    services.signal("agent-3", Signal::SIGCONT)?;
    services.end().await?;
    Ok(samples)
}

/// Running services.
pub(crate) struct Services {
    folder: TempDir,
    up: Child,
    api: String,
    http: reqwest::Client,
}

impl Services {
    pub(crate) async fn start(otto: &Path, agents: usize, environment: &[(&str, &str)]) -> anyhow::Result<Self> {
        let folder = scratch()?;
        let log = fs::File::create(folder.path().join("up.log"))?;
        let up = Command::new(otto)
            .args(["up", "--ports", "auto", "--agents", &agents.to_string(), "--data"])
            .arg(folder.path().join("up"))
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let mut services = Self { folder, up, api: String::new(), http: reqwest::Client::new() };
        let deadline = Instant::now() + READY;
        while !fs::read_to_string(services.folder.path().join("up.log"))?.contains("Otto is ready") {
            ensure!(Instant::now() < deadline, "the services are not ready");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let client = fs::read_to_string(services.data().join("client.env"))?;
        let value =
            |name: &str| client.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).context("client.env is not whole");
        value("OTTO_API_URL")?.clone_into(&mut services.api);
        let token = fs::read_to_string(value("OTTO_API_TOKEN_FILE")?)?;
        let mut headers = reqwest::header::HeaderMap::new();
        headers.insert(reqwest::header::AUTHORIZATION, format!("Bearer {}", token.trim()).parse()?);
        services.http = reqwest::Client::builder().default_headers(headers).build()?;
        Ok(services)
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("up")
    }

    pub(crate) async fn create(&self, stages: usize) -> anyhow::Result<String> {
        let response =
            self.http.post(format!("{}/v1/runs", self.api)).json(&json!({"pipeline": baseline::pipeline(stages)})).send().await?;
        let created: Value = response.error_for_status()?.json().await?;
        Ok(created["run"].as_str().context("a created run has an id")?.to_owned())
    }

    /// Follows a run; `each` gets every message with the time at which it came, until it says that it has seen enough.
    async fn follow(&self, run: &str, what: &str, mut each: impl FnMut(Instant, &Event) -> anyhow::Result<bool>) -> anyhow::Result<()> {
        let response = self.http.get(format!("{}/v1/runs/{run}/{what}/follow", self.api)).send().await?.error_for_status()?;
        let mut events = response.bytes_stream().eventsource();
        while let Some(event) = events.next().await {
            if each(Instant::now(), &event?)? {
                return Ok(());
            }
        }
        bail!("the stream of {what} ended early")
    }

    /// A run of `stages` stages: the time from each stage's first byte to the next one's.
    pub(crate) async fn chain(&self, stages: usize) -> anyhow::Result<Samples> {
        let run = self.create(stages).await?;
        let mut first_bytes = Vec::new();
        let mut seen = BTreeSet::new();
        self.follow(&run, "log", |at, event| {
            let chunk: Value = serde_json::from_str(&event.data)?;
            // What Otto itself says of a step is no byte of the step.
            if event.event == "chunk" && chunk["stream"] != "otto" && seen.insert(chunk["path"].to_string()) {
                first_bytes.push(at);
            }
            Ok(event.event == "end")
        })
        .await?;
        ensure!(first_bytes.len() == stages, "{} of {stages} stages were seen", first_bytes.len());
        Ok(first_bytes.windows(2).map(|pair| pair[1] - pair[0]).collect())
    }

    /// A run of one stage: the times from the request to its first byte and to its end.
    async fn single(&self) -> anyhow::Result<(Duration, Duration)> {
        let begun = Instant::now();
        let run = self.create(1).await?;
        let (mut first_byte, mut end) = (Duration::ZERO, Duration::ZERO);
        let output = self.follow(&run, "log", |at, event| {
            let chunk: Value = serde_json::from_str(&event.data)?;
            let byte = event.event == "chunk" && chunk["stream"] != "otto";
            if byte {
                first_byte = at - begun;
            }
            Ok(byte)
        });
        let events = self.follow(&run, "events", |at, event| {
            let finished = event.event == "event" && event.data.contains("run_finished");
            if finished {
                end = at - begun;
            }
            Ok(finished)
        });
        let (output, events) = futures_util::join!(output, events);
        output?;
        events?;
        Ok((first_byte, end))
    }

    fn signal(&self, process: &str, signal: Signal) -> anyhow::Result<()> {
        let processes: Value = serde_json::from_str(&fs::read_to_string(self.data().join("processes.json"))?)?;
        let pid = processes[process].as_i64().with_context(|| format!("{process} runs"))?;
        Ok(kill(Pid::from_raw(i32::try_from(pid)?), signal)?)
    }

    /// Ends the services in order.
    pub(crate) async fn end(mut self) -> anyhow::Result<()> {
        kill(Pid::from_raw(self.up.id().cast_signed()), Signal::SIGINT)?;
        let deadline = Instant::now() + READY;
        while self.up.try_wait()?.is_none() {
            ensure!(Instant::now() < deadline, "the services do not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        let _gone = self.up.kill();
        let _reaped = self.up.wait();
    }
}
