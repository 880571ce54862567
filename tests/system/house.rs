//! The services of one `otto up` on loopback, with a folder and ports of their own, and the API as any client sees it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::wait_for;

/// The binary under test.
pub(crate) const OTTO: &str = env!("CARGO_BIN_EXE_otto");
/// The longest that anything here may take. It is far longer than a lease, and a machine under load is slow.
pub(crate) const DEADLINE: Duration = Duration::from_mins(2);

/// The folder that stages share with the test, in the house's.
const SHARED: &str = "shared";

/// Waits until the condition holds.
pub(crate) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    wait_for(DEADLINE, what, async || condition().await.then_some(())).await;
}

/// Running services. What a test leaves behind is ended when it is dropped.
pub(crate) struct House {
    folder: TempDir,
    up: Child,
    api: String,
    token: String,
    http: reqwest::Client,
}

/// How a house is.
pub(crate) struct Plan<'a> {
    pub(crate) agents: usize,
    /// How its agents isolate stages.
    pub(crate) isolation: &'a str,
    /// Its processes, if not those of the program.
    pub(crate) procfile: Option<String>,
    /// Settings of all processes.
    pub(crate) settings: &'a [(&'a str, &'a str)],
    /// More of what `otto up` is told.
    pub(crate) arguments: Vec<String>,
}

impl Default for Plan<'_> {
    fn default() -> Self {
        // The stages of most stories write to a witness file that is not theirs.
        Self { agents: 1, isolation: "group", procfile: None, settings: &[], arguments: Vec::new() }
    }
}

impl House {
    /// Starts the services with this many agents, and waits until the API answers.
    pub(crate) async fn start(agents: usize) -> Self {
        Self::planned(tempfile::tempdir().unwrap(), Plan { agents, ..Plan::default() }).await
    }

    /// Starts the services in this folder, and waits until the API answers.
    pub(crate) async fn planned(folder: TempDir, plan: Plan<'_>) -> Self {
        let data = folder.path().join("up");
        fs::create_dir(folder.path().join(SHARED)).unwrap();
        let log = fs::File::create(folder.path().join("up.log")).unwrap();
        let mut command = Command::new(OTTO);
        if let Some(text) = plan.procfile {
            let file = folder.path().join("Procfile");
            fs::write(&file, text).unwrap();
            command.arg("up").arg("--procfile").arg(file);
        } else {
            command.arg("up");
        }
        let up = command
            .args(["--ports", "auto", "--agents", &plan.agents.to_string(), "--data"])
            .arg(&data)
            .args(&plan.arguments)
            .env("OTTO_HOME", testkit::otto_home())
            .env("OTTO_AGENT_ISOLATION", plan.isolation)
            .envs(plan.settings.iter().copied())
            // At every level, stages write to the homes of tools.
            .env("CARGO_HOME", folder.path().join(SHARED))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut house = Self { folder, up, api: String::new(), token: String::new(), http: testkit::http_client() };
        until("the services to be ready", async || house.is_ready()).await;
        house.read_client_env();
        house
    }

    fn is_ready(&self) -> bool {
        fs::read_to_string(self.folder.path().join("up.log")).is_ok_and(|log| log.contains("Otto is ready"))
    }

    fn read_client_env(&mut self) {
        let text = fs::read_to_string(self.data().join("client.env")).unwrap();
        let values: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once('=')).collect();
        self.api = values["OTTO_API_URL"].to_owned();
        self.token = fs::read_to_string(values["OTTO_API_TOKEN_FILE"]).unwrap().trim().to_owned();
    }

    /// The folder of `otto up`.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("up")
    }

    /// A folder for the test's own files.
    pub(crate) fn scratch(&self) -> &Path {
        self.folder.path()
    }

    /// A folder that stages of every level of isolation share with the test.
    pub(crate) fn shared(&self) -> PathBuf {
        self.folder.path().join(SHARED)
    }

    /// The API's token.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// Environment with which commands find this house.
    pub(crate) fn client_env(&self) -> [(&'static str, String); 2] {
        let token = self.data().join("keys/api-token");
        let text = fs::read_to_string(self.data().join("client.env")).unwrap();
        let file = text.lines().find_map(|line| line.strip_prefix("OTTO_API_TOKEN_FILE=")).map_or(token, PathBuf::from);
        [("OTTO_API_URL", self.api.clone()), ("OTTO_API_TOKEN_FILE", file.display().to_string())]
    }

    /// A request to the API, with the token.
    pub(crate) fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        self.request_at(&self.api, method, path)
    }

    /// The same, of another orchestrator.
    pub(crate) fn request_at(&self, api: &str, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{api}{path}")).bearer_auth(&self.token)
    }

    pub(crate) async fn get(&self, path: &str) -> Option<Value> {
        self.request(reqwest::Method::GET, path).send().await.ok()?.json().await.ok()
    }

    /// Creates a run from source text, asking again while the API is away, and gives its id.
    pub(crate) async fn create(&self, pipeline: &str) -> String {
        let body = json!({"pipeline": pipeline});
        let response = self.request(reqwest::Method::POST, "/v1/runs").json(&body).send().await.unwrap();
        assert_eq!(response.status(), 201, "{}", response.text().await.unwrap());
        let created: Value = response.json().await.unwrap();
        created["run"].as_str().unwrap().to_owned()
    }

    /// The run when it has ended. The API may be away in between.
    pub(crate) async fn ended(&self, run: &str) -> Value {
        let path = format!("/v1/runs/{run}");
        let ended = async || self.get(&path).await.is_some_and(|run| run["status"]["kind"] == "ended");
        until(&format!("{run} to end"), ended).await;
        self.get(&path).await.unwrap()
    }

    /// The run's events, oldest first.
    pub(crate) async fn events(&self, run: &str) -> Vec<Value> {
        let body = self.get(&format!("/v1/runs/{run}/events")).await.unwrap();
        body.as_array().unwrap_or_else(|| panic!("{body}")).clone()
    }

    /// The process of this name, as it is now.
    pub(crate) fn pid(&self, process: &str) -> Option<i32> {
        let text = fs::read_to_string(self.data().join("processes.json")).ok()?;
        let processes: Value = serde_json::from_str(&text).ok()?;
        i32::try_from(processes[process].as_i64()?).ok()
    }

    /// Sends a signal to the process of this name.
    pub(crate) fn signal(&self, process: &str, signal: Signal) {
        let pid = self.pid(process).unwrap_or_else(|| panic!("{process} runs"));
        kill(Pid::from_raw(pid), signal).unwrap();
    }

    /// Kills the process with SIGKILL and waits until `otto up` has started another.
    pub(crate) async fn kill(&self, process: &str) {
        let old = self.pid(process);
        self.signal(process, Signal::SIGKILL);
        until(&format!("{process} to be started again"), async || self.pid(process).is_some_and(|pid| Some(pid) != old)).await;
    }

    /// What `otto up` printed so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("up.log")).unwrap_or_default()
    }

    /// Ends the services as Ctrl-C does, checks that nothing is left, and forgets the folder.
    pub(crate) async fn end(mut self) {
        self.stop().await;
    }

    /// The same, and the folder stays.
    pub(crate) async fn stop(&mut self) {
        kill(Pid::from_raw(self.up.id().cast_signed()), Signal::SIGINT).unwrap();
        let status = exited(&mut self.up).await;
        assert!(status.success(), "{status}\n{}", self.log());
        assert_eq!(processes_that_name(&self.data()), Vec::<String>::new());
    }
}

impl Drop for House {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
        let _gone = self.up.kill();
        let _reaped = self.up.wait();
    }
}

/// Waits for the end of a child.
pub(crate) async fn exited(child: &mut Child) -> ExitStatus {
    let mut status = None;
    until("a process to end", async || {
        status = child.try_wait().unwrap();
        status.is_some()
    })
    .await;
    status.unwrap()
}

/// Command lines of live processes that name this folder.
pub(crate) fn processes_that_name(folder: &Path) -> Vec<String> {
    let needle = folder.display().to_string();
    let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let lines = processes.filter_map(|entry| {
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        let names = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains(&needle);
        (names(&line) || names(&environment)).then(|| String::from_utf8_lossy(&line).replace('\0', " "))
    });
    lines.filter(|line| !line.is_empty()).collect()
}
