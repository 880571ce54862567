//! The process of nats-server: this process becomes it, so that whoever kills this process kills the server, and the other way round.
//!
//! ```text
//! otto up ─ starts ─▶ otto serve nats ═ exec ═▶ nats-server
//!    │                       └ starts ─▶ guard: says when the server is ready; ends it when `otto up` is gone
//!    └──── pipe ────────────────────────▶ (standard input)
//! ```
//!
//! Only the guard looks at the pipe to `otto up`; without such a pipe there is no guard, and the server is whoever started it's.

use std::{
    io::{self, Write as _},
    net::SocketAddr,
    os::unix::process::{CommandExt as _, parent_id},
    path::PathBuf,
    process::Command,
    time::Duration,
};

use anyhow::Context as _;
use eventbus::nats::server::find_or_install;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use service::{env, supervisor::GRACE};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::{
    READY,
    parent::{Parent, ParentPipe},
    reader::Reader,
};
use crate::home;

/// Between two looks whether the server is ready, or gone: a few milliseconds after its start, mostly.
const LOOK_PAUSE: Duration = Duration::from_millis(10);
/// How long one look may take.
const LOOK_DEADLINE: Duration = Duration::from_secs(2);

/// What the server needs.
#[derive(Debug)]
pub(super) struct Nats {
    program: Option<PathBuf>,
    config: PathBuf,
    monitor: SocketAddr,
}

impl Nats {
    pub(super) fn read(reader: &mut Reader) -> Option<Self> {
        let program = reader.optional(env::NATS_SERVER);
        let (config, monitor) = (reader.required(env::NATS_CONFIG), reader.required(env::NATS_MONITOR));
        Some(Self { program, config: config?, monitor: monitor? })
    }

    /// Becomes nats-server; returns only if that is not possible.
    pub(super) async fn serve(self, guarded: bool) -> anyhow::Result<()> {
        let program = match self.program {
            Some(program) => program,
            None => find_or_install(&home::folder()?, &|line| info!("{line}")).await?,
        };
        if guarded {
            let guard = Command::new(std::env::current_exe().context("cannot find this program")?)
                .args(["serve", "nats", "--guard", &std::process::id().to_string()])
                .spawn();
            // It ends with the server: as its child by `otto up`, which ends the whole group.
            let _guard = guard.context("cannot start the guard of nats-server")?;
        }
        let failure = Command::new(&program).arg("-c").arg(&self.config).exec();
        Err(failure).with_context(|| format!("cannot run {}", program.display()))
    }

    /// Guards the server, which is the process `server` and this one's parent.
    pub(super) async fn guard(self, server: u32, pipe: ParentPipe) -> anyhow::Result<()> {
        let mut parent = Parent::open(pipe).context("cannot look at the pipe to otto up")?;
        let monitor = self.monitor;
        let ready = async {
            until_healthy(monitor).await;
            let _nobody_hears = writeln!(io::stdout(), "{READY} nats-server, monitored on http://{monitor}");
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = ready => {}
            () = parent.gone() => {}
        }
        end(server).await;
        Ok(())
    }
}

async fn until_healthy(monitor: SocketAddr) {
    let client = reqwest::Client::builder().timeout(LOOK_DEADLINE).no_proxy().build().expect("a client of these options can be built");
    let url = format!("http://{monitor}/healthz");
    // Bounded by whoever waits for this: `otto up` gives up, and ends the server with its guard.
    while !client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success()) {
        sleep(LOOK_PAUSE).await;
    }
}

/// Ends the server while it is this process's parent: later its number may be another process's.
async fn end(server: u32) {
    let Some(pid) = i32::try_from(server).ok().map(Pid::from_raw) else { return };
    let deadline = Instant::now() + GRACE;
    let mut signal = Some(Signal::SIGTERM);
    while parent_id() == server {
        if let Some(signal) = signal.take() {
            let _already_gone = kill(pid, signal);
        }
        if Instant::now() >= deadline {
            warn!("nats-server did not end in time and is killed");
            let _already_gone = kill(pid, Signal::SIGKILL);
            return;
        }
        sleep(LOOK_PAUSE).await;
    }
}
