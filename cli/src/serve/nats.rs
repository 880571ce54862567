//! The process of nats-server: this process becomes it, so that whoever kills this process kills the server, and the other way round.
//!
//! ```text
//! otto up ─ starts ─▶ otto serve nats ═ exec ═▶ nats-server
//!    │                       └ starts ─▶ guard: says when the server is ready; ends it when `otto up` is gone
//!    └──── pipe ────────────────────────▶ (standard input)
//! ```
//!
//! The guard also ends a server that says that it cannot write a stream any more: after a disk was full it takes nothing for that stream until
//! it is started again, however much room there is, and `otto up` starts it again.
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
use service::{env, supervisor::GRACE, web};
use tokio::time::{Instant, sleep};
use tracing::{error, info, warn};

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
/// Between two looks whether a server that was ready still is: each makes it read its folders, and is much of what an idle one does.
const HEALTH_PAUSE: Duration = Duration::from_secs(5);
/// The same after one that found it ill.
const ILL_PAUSE: Duration = Duration::from_secs(2);
/// How many looks in a row must find the server ill before it is ended: what passes by itself has passed by then, and a disk that stays full
/// has it started again every few seconds only.
const ILL_LOOKS_MAX: u32 = 3;

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
            until_ill(monitor).await
        };
        tokio::select! {
            why = ready => error!(why, "nats-server takes nothing more, so it is ended"),
            () = parent.gone() => {}
        }
        end(server).await;
        Ok(())
    }
}

/// What the server answers when it is asked for its health.
enum Health {
    Good,
    /// It says that it is not well, and why.
    Ill(String),
    /// It stands still or is gone, which ending it would not mend.
    Unknown,
}

/// Asks for the health of the server.
struct Doctor {
    client: reqwest::Client,
    url: String,
}

impl Doctor {
    fn new(monitor: SocketAddr) -> Self {
        let url = format!("http://{monitor}/healthz");
        let client = web::client(&url).timeout(LOOK_DEADLINE).build().expect("a client of these options can be built");
        Self { client, url }
    }

    async fn look(&self) -> Health {
        match self.client.get(&self.url).send().await {
            Ok(answer) if answer.status().is_success() => Health::Good,
            Ok(answer) => Health::Ill(answer.text().await.unwrap_or_default()),
            Err(_) => Health::Unknown,
        }
    }
}

/// Looks in a row that found the server ill.
#[derive(Default)]
struct Illness(u32);

impl Illness {
    /// Until the next look.
    fn pause(&self) -> Duration {
        if self.0 == 0 { HEALTH_PAUSE } else { ILL_PAUSE }
    }

    /// Why the server is to be ended, if it is.
    fn after(&mut self, health: Health) -> Option<String> {
        let Health::Ill(why) = health else {
            self.0 = 0;
            return None;
        };
        self.0 += 1;
        (self.0 >= ILL_LOOKS_MAX).then_some(why)
    }
}

async fn until_healthy(monitor: SocketAddr) {
    let doctor = Doctor::new(monitor);
    // Bounded by whoever waits for this: `otto up` gives up, and ends the server with its guard.
    while !matches!(doctor.look().await, Health::Good) {
        sleep(LOOK_PAUSE).await;
    }
}

/// Returns when the server has been ill for some time, with what it says.
async fn until_ill(monitor: SocketAddr) -> String {
    let (doctor, mut illness) = (Doctor::new(monitor), Illness::default());
    loop {
        sleep(illness.pause()).await;
        if let Some(why) = illness.after(doctor.look().await) {
            return why;
        }
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

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn a_server_is_ended_only_after_it_said_again_and_again_that_it_is_ill() {
        let ill = || Health::Ill("full".to_owned());
        let mut illness = Illness::default();
        for cure in [Health::Good, Health::Unknown] {
            assert!((1..ILL_LOOKS_MAX).all(|_| illness.after(ill()).is_none()));
            assert_eq!(illness.after(cure), None);
        }
        assert!((1..ILL_LOOKS_MAX).all(|_| illness.after(ill()).is_none()));
        assert_eq!(illness.after(ill()).as_deref(), Some("full"));
    }

    #[tokio::test]
    async fn a_server_that_cannot_write_says_so_and_one_that_is_gone_says_nothing() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let doctor = Doctor::new(listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (mut connection, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            assert!(connection.read(&mut request).unwrap() > 0);
            let answer = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 5\r\nconnection: close\r\n\r\nfull!";
            connection.write_all(answer.as_bytes()).unwrap();
        });
        assert!(matches!(doctor.look().await, Health::Ill(why) if why == "full!"));
        server.join().unwrap();
        assert!(matches!(doctor.look().await, Health::Unknown));
    }
}
