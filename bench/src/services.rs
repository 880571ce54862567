//! The services as separate processes, and a client that follows the API.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, mem,
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
use service::web;
use tempfile::TempDir;

use crate::{
    baseline, installation,
    stats::{Row, Samples},
    webhook,
};

/// Stages of the long run: the differences between their first bytes are the samples.
const STAGES: usize = 400;
/// Agents of which one is stopped, and which.
const AGENTS: usize = 10;
const STOPPED: &str = "agent-10";
/// How often it is stopped.
const TURNS: usize = 4;
/// Runs of one stage.
const RUNS: usize = 100;
/// Until the services must be ready.
const READY: Duration = Duration::from_mins(1);
/// Between two looks whether something has happened that nobody tells.
const LOOK: Duration = Duration::from_millis(5);
/// The longest that a run may take.
const RUN: Duration = Duration::from_mins(5);

pub(crate) async fn measure(otto: &Path, floor: &Samples) -> anyhow::Result<Vec<Row>> {
    let services = Services::start(otto, 1, &[]).await?;
    services.chain(20).await?;
    let stages = services.chain(STAGES).await?;
    let mut first_bytes = Samples::default();
    let mut ends = Samples::default();
    for _ in 0..RUNS {
        let (first_byte, end) = services.single(1).await?;
        first_bytes.push(first_byte);
        ends.push(end);
    }
    services.end().await?;
    let mut rows = vec![
        stages.row("services: one more stage, first byte to first byte", Some(floor.p50())),
        first_bytes.row("services: one run of one stage, request to first byte", None),
        ends.row("services: one run of one stage, request to the run's end", Some(floor.p50())),
        webhook::measure(otto).await?.row("services: a forge's webhook to the first byte of its run, without a fetch", None),
    ];
    rows.extend(beside_a_stopped_agent(otto, floor).await?);
    Ok(rows)
}

/// Each with its share of the stages, in turns, so that a machine that drifts slows both.
async fn beside_a_stopped_agent(otto: &Path, floor: &Samples) -> anyhow::Result<[Row; 2]> {
    let services = Services::start(otto, AGENTS, &[]).await?;
    services.chain(20).await?;
    let [mut all, mut without] = <[Samples; 2]>::default();
    for _ in 0..TURNS {
        all.extend(services.chain(STAGES / TURNS).await?);
        services.signal(STOPPED, Signal::SIGSTOP)?;
        without.extend(services.chain(STAGES / TURNS).await?);
        services.signal(STOPPED, Signal::SIGCONT)?;
    }
    services.end().await?;
    Ok([("services: one more stage with ten agents", all), ("services: the same while one of the ten is stopped", without)]
        .map(|(name, samples)| samples.row(name, Some(floor.p50()))))
}

/// How services are started.
pub(crate) struct Plan<'a> {
    /// How many agents have a key from the start.
    pub(crate) agents: usize,
    /// Whether the bench plays the agents: none is a process of `otto up`.
    pub(crate) are_played: bool,
    /// Settings of all processes.
    pub(crate) environment: &'a [(&'a str, &'a str)],
}

/// Running services.
pub(crate) struct Services {
    folder: TempDir,
    up: Child,
    api: String,
    http: reqwest::Client,
}

impl Services {
    /// As they are a while after their start.
    pub(crate) async fn start(otto: &Path, agents: usize, environment: &[(&str, &str)]) -> anyhow::Result<Self> {
        let services = Self::start_in(installation()?, otto, &Plan { agents, are_played: false, environment }).await?;
        services.settled(agents).await?;
        Ok(services)
    }

    /// In a folder that may have been prepared, or used before: that of `otto up` is `up` in it.
    pub(crate) async fn start_in(folder: TempDir, otto: &Path, plan: &Plan<'_>) -> anyhow::Result<Self> {
        let log = fs::File::create(folder.path().join("up.log"))?;
        let mut command = Command::new(otto);
        command.args(["up", "--ports", "auto", "--agents", &plan.agents.to_string(), "--data"]).arg(data_in(&folder));
        if plan.are_played {
            let processes = include_str!("../../Procfile").lines().filter(|line| !line.starts_with("agent:"));
            let procfile = folder.path().join("Procfile");
            fs::write(&procfile, processes.collect::<Vec<_>>().join("\n"))?;
            command.arg("--procfile").arg(procfile);
        }
        command.envs(plan.environment.iter().copied()).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut services = Self { folder, up: command.spawn()?, api: String::new(), http: web::client("").build()? };
        let deadline = Instant::now() + READY;
        while !fs::read_to_string(services.folder.path().join("up.log"))?.contains("Otto is ready") {
            ensure!(Instant::now() < deadline, "the services are not ready");
            tokio::time::sleep(LOOK).await;
        }
        let client = fs::read_to_string(services.data().join("client.env"))?;
        let value =
            |name: &str| client.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).context("client.env is not whole");
        value("OTTO_API_URL")?.clone_into(&mut services.api);
        let token = fs::read_to_string(value("OTTO_API_TOKEN_FILE")?)?;
        let mut headers = reqwest::header::HeaderMap::new();
        headers.insert(reqwest::header::AUTHORIZATION, format!("Bearer {}", token.trim()).parse()?);
        services.http = web::client(&services.api).default_headers(headers).build()?;
        Ok(services)
    }

    pub(crate) fn data(&self) -> PathBuf {
        data_in(&self.folder)
    }

    /// Waits until so many agents have looked for the tools of this machine, which takes a core for some seconds after their start.
    pub(crate) async fn settled(&self, agents: usize) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY;
        while self.get("/v1/agents").await?.text().await?.matches("git.version").count() < agents {
            ensure!(Instant::now() < deadline, "not all agents say that this machine has git");
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Creates a run of `stages` stages, one after the other.
    pub(crate) async fn create(&self, stages: usize) -> anyhow::Result<String> {
        self.create_of(&baseline::pipeline(stages)).await
    }

    pub(crate) async fn create_of(&self, pipeline: &str) -> anyhow::Result<String> {
        let response = self.http.post(format!("{}/v1/runs", self.api)).json(&json!({"pipeline": pipeline})).send().await?;
        let created: Value = response.error_for_status()?.json().await?;
        Ok(created["run"].as_str().context("a created run has an id")?.to_owned())
    }

    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<reqwest::Response> {
        Ok(self.http.get(format!("{}{path}", self.api)).send().await?.error_for_status()?)
    }

    /// Waits until a run has succeeded, looking at it now and then.
    pub(crate) async fn succeeded(&self, run: &str, pause: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + RUN;
        loop {
            let detail: Value = self.get(&format!("/v1/runs/{run}")).await?.json().await?;
            if detail["status"]["kind"] == "ended" {
                ensure!(detail["status"]["outcome"] == "success", "{run} did not succeed: {}", detail["status"]);
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{run} does not end: {}", detail["status"]);
            tokio::time::sleep(pause).await;
        }
    }

    /// Follows a run; `each` gets every message with the time at which it came, until it says that it has seen enough.
    pub(crate) async fn follow(
        &self,
        run: &str,
        what: &str,
        mut each: impl FnMut(Instant, &Event) -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let response = self.get(&format!("/v1/runs/{run}/{what}/follow")).await?;
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
            if let Some(stage) = said_by(event)?
                && seen.insert(stage)
            {
                first_bytes.push(at);
            }
            Ok(event.event == "end")
        })
        .await?;
        ensure!(first_bytes.len() == stages, "{} of {stages} stages were seen", first_bytes.len());
        Ok(first_bytes.windows(2).map(|pair| pair[1] - pair[0]).collect())
    }

    /// When the first byte of a step of the run came.
    pub(crate) async fn first_byte(&self, run: &str) -> anyhow::Result<Instant> {
        let mut came = None;
        self.follow(run, "log", |at, event| {
            came = said_by(event)?.map(|_| at);
            Ok(came.is_some())
        })
        .await?;
        came.context("the stream ends with the first byte")
    }

    /// A run of `stages` stages: the times from the request to its first byte and to its end.
    pub(crate) async fn single(&self, stages: usize) -> anyhow::Result<(Duration, Duration)> {
        let begun = Instant::now();
        let run = self.create(stages).await?;
        let (mut first_byte, mut end) = (Duration::ZERO, Duration::ZERO);
        let output = async {
            first_byte = self.first_byte(&run).await? - begun;
            anyhow::Ok(())
        };
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
        let pid = *self.processes()?.get(process).with_context(|| format!("{process} runs"))?;
        Ok(kill(Pid::from_raw(pid), signal)?)
    }

    /// The processes of `otto up`, and itself, by name.
    pub(crate) fn processes(&self) -> anyhow::Result<BTreeMap<String, i32>> {
        Ok(serde_json::from_str(&fs::read_to_string(self.data().join("processes.json"))?)?)
    }

    /// Ends the services in order, and gives their folder back.
    pub(crate) async fn end(mut self) -> anyhow::Result<TempDir> {
        kill(Pid::from_raw(self.up.id().cast_signed()), Signal::SIGINT)?;
        let deadline = Instant::now() + READY;
        while self.up.try_wait()?.is_none() {
            ensure!(Instant::now() < deadline, "the services do not end");
            tokio::time::sleep(LOOK).await;
        }
        Ok(mem::replace(&mut self.folder, installation()?))
    }
}

/// The folder of the `otto up` of this one.
pub(crate) fn data_in(folder: &TempDir) -> PathBuf {
    folder.path().join("up")
}

/// The path of the stage a step of which speaks. What Otto itself says of a step is no byte of the step.
fn said_by(event: &Event) -> anyhow::Result<Option<String>> {
    if event.event != "chunk" {
        return Ok(None);
    }
    let chunk: Value = serde_json::from_str(&event.data)?;
    Ok((chunk["stream"] != "otto").then(|| chunk["path"].to_string()))
}

impl Drop for Services {
    fn drop(&mut self) {
        let _gone = self.up.kill();
        let _reaped = self.up.wait();
    }
}
