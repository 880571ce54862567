//! An agent on a machine that has nothing but Otto: it is let in by the administrator's token, works, and is cut off.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use eventbus::nats::jwt::{self, Life};
use serde_json::Value;
use testkit::ReservedProxy;

use crate::house::{House, OTTO, Plan, until};

/// The agent's process on the other machine.
struct Elsewhere {
    folder: PathBuf,
    /// What it is told beside what it finds there.
    environment: BTreeMap<&'static str, PathBuf>,
    process: Option<Child>,
}

impl Elsewhere {
    fn new(house: &House) -> Self {
        let folder = house.scratch().join("elsewhere");
        fs::create_dir(&folder).unwrap();
        Self { folder, environment: BTreeMap::new(), process: None }
    }

    /// A command of Otto that finds nothing of the house.
    fn otto(&self) -> Command {
        let mut command = Command::new(OTTO);
        command.env("OTTO_HOME", self.folder.join("home")).envs(&self.environment).current_dir(&self.folder).stdin(Stdio::null());
        command
    }

    fn join(&self, url: &str, token: &str) -> Output {
        self.otto().args(["agent", "join", url]).env("OTTO_AGENT_ENROL_TOKEN", token).output().unwrap()
    }

    /// The agent's own folder, as `join` makes it.
    fn own(&self) -> PathBuf {
        self.folder.join("home/agent")
    }

    /// Starts the agent as `join` says, and returns when it is ready.
    fn start(&mut self, house: &House) {
        let mut command = self.otto();
        command.args(["serve", "agent", "--settings"]).arg(self.own().join("agent.env"));
        // The stage writes to a folder of the test.
        command.env("OTTO_AGENT_ISOLATION", "group").env("CARGO_HOME", house.shared());
        let log = fs::File::create(self.folder.join("agent.log")).unwrap();
        let mut process = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        self.process = Some(process);
        assert!(line.starts_with("ready: agent far"), "{line}{}", fs::read_to_string(self.folder.join("agent.log")).unwrap());
    }
}

impl Elsewhere {
    fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _gone = process.kill();
            let _reaped = process.wait();
        }
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A token of the administrator for the agent `far`.
fn invite(house: &House, trust: &str) -> String {
    let invited = administer(house, &["enrol", "far", "--trust", trust]);
    String::from_utf8(invited.stdout).unwrap().trim().to_owned()
}

/// `otto agent …` of the administrator.
fn administer(house: &House, arguments: &[&str]) -> Output {
    let output = Command::new(OTTO).arg("agent").args(arguments).arg("--data").arg(house.data()).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Where the process of this name listens.
fn listen(house: &House, process: &str) -> SocketAddr {
    let ports: Value = serde_json::from_slice(&fs::read(house.data().join("ports.json")).unwrap()).unwrap();
    (Ipv4Addr::LOCALHOST, u16::try_from(ports[process].as_u64().unwrap()).unwrap()).into()
}

fn eventbus_url(house: &House) -> String {
    format!("http://{}", listen(house, "eventbus"))
}

/// What docs/operation.md says that a proxy is told, with the ports of this house.
fn documented_site(house: &House) -> String {
    let docs = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operation.md")).unwrap();
    let (_, site) = docs.split_once("otto.example.org {\n").unwrap();
    let mut site = site.split_once("\n}").unwrap().0.to_owned();
    let by_default = [("api", 7480), ("depot", 7481), ("forge", 7482), ("eventbus", 7486), ("nats_websocket", 7487)];
    for (process, port) in by_default {
        let usual = format!("127.0.0.1:{port}");
        assert!(site.contains(&usual), "{process}");
        site = site.replace(&usual, &listen(house, process).to_string());
    }
    site
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_from_elsewhere_joins_with_a_token_works_and_is_cut_off() {
    let house = House::start(1).await;
    let mut elsewhere = Elsewhere::new(&house);
    let url = eventbus_url(&house);

    let token = invite(&house, "trusted");
    assert!(token.starts_with("otto-enrol-1.far."), "the token alone is on standard output: {token}");
    let joined = elsewhere.join(&url, &token);
    assert!(joined.status.success(), "{}", String::from_utf8_lossy(&joined.stderr));
    let said = String::from_utf8(joined.stdout).unwrap();
    assert!(said.contains("otto serve agent --settings"), "{said}");
    // Its key was made there, and is nowhere else.
    let credentials = fs::read_to_string(elsewhere.own().join("agent.creds")).unwrap();
    let seed = credentials.lines().find(|line| line.starts_with("SU")).unwrap().to_owned();
    let told: Vec<_> = files(&house.data())
        .into_iter()
        .filter(|file| fs::read(file).is_ok_and(|text| String::from_utf8_lossy(&text).contains(&seed)))
        .collect();
    assert_eq!(told, Vec::<PathBuf>::new());
    let second = elsewhere.join(&url, &token);
    assert!(!second.status.success() && String::from_utf8_lossy(&second.stderr).contains("otto agent enrol"), "a token is good once");

    // The only agent that is left is the one from elsewhere. It is for trusted runs, and one of source text is none.
    elsewhere.start(&house);
    administer(&house, &["revoke", "agent-1"]);
    let run = house.create("pipeline { stage 'Build' { steps [ sh 'echo built' ] } }").await;
    let why = format!("/v1/runs/{run}/why");
    let reason = "no agent of class `default` takes untrusted runs: `otto agent enrol NAME --trust untrusted`";
    until("the reason why it waits", async || house.get(&why).await.is_some_and(|why| why.to_string().contains(reason))).await;
    assert!(!Value::from(house.events(&run).await).to_string().contains("stage_awarded"));

    // It comes back as one for such runs.
    administer(&house, &["revoke", "far"]);
    elsewhere.stop();
    let joined = elsewhere.join(&url, &invite(&house, "untrusted"));
    assert!(joined.status.success(), "{}", String::from_utf8_lossy(&joined.stderr));
    elsewhere.start(&house);
    let ended = house.ended(&run).await;
    assert_eq!(ended["status"]["outcome"], "success", "{ended}");
    let said = Value::from(house.events(&run).await).to_string();
    assert!(said.contains("\"far\""), "{said}");
    let list = String::from_utf8(administer(&house, &["list"]).stdout).unwrap();
    assert!(
        list.contains("agent-1  any        class default  revoked") && list.contains("far      untrusted  class default  enrolled"),
        "{list}"
    );

    // What it runs is fenced because it was revoked, and not because nothing is heard of it any more.
    let shared = house.shared().display().to_string();
    let run = house.create(&format!("pipeline {{ stage 'Long' {{ steps [ sh 'while [ -e {shared} ]; do sleep 0.05; done' ] }} }}")).await;
    let has = async |what: &str| Value::from(house.events(&run).await).to_string().contains(what);
    until("the stage to run", async || has("stage_started").await).await;
    administer(&house, &["revoke", "far"]);
    until("its loss", async || has("its agent was revoked").await).await;
    assert!(
        !elsewhere.otto().args(["serve", "agent", "--settings"]).arg(elsewhere.own().join("agent.env")).output().unwrap().status.success()
    );
    drop(elsewhere);
    house.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agents_user_is_renewed_while_a_stage_runs_and_the_stage_goes_on_and_counts() {
    let house = House::start(1).await;
    let mut elsewhere = Elsewhere::new(&house);
    administer(&house, &["revoke", "agent-1"]);
    let joined = elsewhere.join(&eventbus_url(&house), &invite(&house, "any"));
    assert!(joined.status.success(), "{}", String::from_utf8_lossy(&joined.stderr));
    // More than half of its life is over.
    let (keys, file) = (house.data().join("keys/bus"), elsewhere.own().join("agent.creds"));
    let now_s = service::clock::unix_ms() / 1_000;
    let life = Life { from_s: now_s - 1_000_000, until_s: Some(now_s + 10_000) };
    fs::write(&file, testkit::aged_user(&keys, &fs::read_to_string(&file).unwrap(), life)).unwrap();
    // Nobody signs while an administrator changes something.
    let held = fs::File::options().create(true).truncate(false).write(true).open(keys.join("enrolment/lock")).unwrap();
    held.lock().unwrap();
    elsewhere.start(&house);
    let (gate, renewed) = (house.shared().join("gate"), elsewhere.own().join("data/bus-user.jwt"));
    let script = format!("until [ -e {} ]; do sleep 0.05; done", gate.display());
    let run = house.create(&format!("pipeline {{ stage 'Long' {{ steps [ sh '{script}' ] }} }}")).await;
    let has = async |what: &str| Value::from(house.events(&run).await).to_string().contains(what);
    until("the stage to run", async || has("stage_started").await).await;
    assert!(!renewed.exists());

    held.unlock().unwrap();
    until("its renewal", async || renewed.exists()).await;
    let later = jwt::life(&fs::read_to_string(&renewed).unwrap()).unwrap();
    assert!(later.until_s > life.until_s, "{later:?}");
    fs::write(gate, "").unwrap();
    let ended = house.ended(&run).await;
    assert_eq!(ended["status"]["outcome"], "success", "{ended}");
    let said = Value::from(house.events(&run).await).to_string();
    assert_eq!(said.matches("stage_awarded").count(), 1, "{said}");
    house.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_and_agents_come_through_one_proxy_that_brings_tls() {
    let proxy = ReservedProxy::new();
    let (web, bus) = (format!("https://{}", proxy.authority()), format!("wss://{}/bus", proxy.authority()));
    let settings = [("OTTO_PUBLIC_URL", web.as_str()), ("OTTO_DEPOT_PUBLIC_URL", &web), ("OTTO_BUS_PUBLIC_URLS", &bus)];
    let house = House::planned(tempfile::tempdir().unwrap(), Plan { settings: &settings, ..Plan::default() }).await;
    let proxy = proxy.start(&documented_site(&house)).await;

    // A person, and nobody whose certificate the machine does not trust.
    let mut elsewhere = Elsewhere::new(&house);
    let login = |elsewhere: &Elsewhere| {
        let mut login =
            elsewhere.otto().args(["login", &web]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        login.stdin.take().unwrap().write_all(house.token().as_bytes()).unwrap();
        login.wait_with_output().unwrap()
    };
    let refused = login(&elsewhere);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        !refused.status.success() && said.contains("does not prove that it is that server") && said.contains("SSL_CERT_FILE"),
        "{said}"
    );
    elsewhere.environment.insert("SSL_CERT_FILE", proxy.certificate_file());
    let known = login(&elsewhere);
    assert!(known.status.success(), "{}", String::from_utf8_lossy(&known.stderr));

    // An agent, by that address alone.
    let joined = elsewhere.join(&web, &invite(&house, "any"));
    assert!(joined.status.success(), "{}", String::from_utf8_lossy(&joined.stderr));
    let told = fs::read_to_string(elsewhere.own().join("agent.env")).unwrap();
    assert!(told.contains(&format!("OTTO_BUS_URLS={bus}\n")) && told.contains(&format!("OTTO_DEPOT_URL={web}\n")), "{told}");
    elsewhere.start(&house);
    administer(&house, &["revoke", "agent-1"]);
    fs::write(elsewhere.folder.join("Ottofile"), "pipeline { stage 'Build' { steps [ sh 'cat source.txt; seq 20000' ] } }").unwrap();
    fs::write(elsewhere.folder.join("source.txt"), "brought by the proxy\n").unwrap();
    let ran = elsewhere.otto().args(["run", "--remote"]).output().unwrap();
    let printed = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{printed}{}", String::from_utf8_lossy(&ran.stderr));
    assert!(printed.contains("brought by the proxy") && printed.contains("20000"), "{printed}");
    let why = elsewhere.otto().args(["why", "latest"]).output().unwrap();
    assert!(String::from_utf8_lossy(&why.stdout).contains("far"), "{}", String::from_utf8_lossy(&why.stdout));
    house.end().await;
}
