//! The makers of plans: processes that are kept warm, of which each makes one plan at a time, or this process itself.
//!
//! ```text
//! make ─ permit ─ an idle maker, or a new one ─▶ question ─▶ answer ─▶ idle again
//!                                                   └─ over a limit: ended, and the file is refused, naming the limit
//! ```

use std::{
    io,
    os::unix::process::ExitStatusExt as _,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use model::{
    diagnostic::{Diagnostic, Severity, Span},
    manifest::StepLibrary,
};
use nix::sys::signal::Signal;
use service::supervisor::chain;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::Semaphore,
    time::{Instant, timeout, timeout_at},
};
use tracing::{error, warn};

use crate::{
    material::{Answer, Made, Material, Outcome, bounded},
    worker::{CPU_SECONDS_MAX, MEMORY_BYTES_MAX},
};

/// Plans that are made at once. Each takes a core for some milliseconds; the worst file of 1 MiB (half a million names) takes
/// 300 MiB of memory for its tree, so all together stay below what a small machine has.
pub(crate) const PLANS_MAX: usize = 4;
/// How long one plan may take, also where the machine has no time for it. Less than who asks waits.
const PLAN_DEADLINE: Duration = Duration::from_secs(9);
/// How long a maker may take to end after its last question.
const END_DEADLINE: Duration = Duration::from_secs(1);
/// The most bytes of what a process said at its end that are told.
const LAST_WORDS_BYTES_MAX: u64 = 4 * 1024;
/// Plans of one maker. Then a fresh one takes its place, so that what it may have kept is given back.
const PLANS_OF_ONE_MAX: u32 = 10_000;
/// The code of a file whose plan is over a limit of the process; its page is `docs/errors/E0904.md`.
pub const OVER_LIMIT: &str = "E0904";
/// The code of a file that the parser fell over; its page is `docs/errors/E0905.md`.
pub const FELL_OVER: &str = "E0905";
/// With which a program of Rust ends after a panic.
const PANIC: i32 = 101;

/// Where plans are made.
#[derive(Debug, Clone)]
pub enum Isolation {
    /// In this process: for a file of one's own.
    None,
    /// In processes of this program, each under limits of time and memory.
    Processes {
        /// The program.
        program: PathBuf,
        /// Its arguments, with which it does [`work`](crate::worker::work).
        arguments: Vec<String>,
    },
}

/// The makers. Clones share them.
#[derive(Debug, Clone)]
pub struct Makers(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    isolation: Isolation,
    libraries: Arc<[StepLibrary]>,
    permits: Semaphore,
    idle: Mutex<Vec<Maker>>,
}

#[derive(Debug)]
struct Maker {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
    made: u32,
}

/// What became of a question.
enum Asked {
    /// This is the answer.
    Done(Outcome),
    /// The maker has ended over it, or before it.
    Ended(Option<ExitStatus>),
}

impl Makers {
    /// Makers that know these libraries; processes are started when they are needed.
    pub fn new(isolation: Isolation, libraries: Vec<StepLibrary>) -> Self {
        Self(Arc::new(Shared { isolation, libraries: libraries.into(), permits: Semaphore::new(PLANS_MAX), idle: Mutex::default() }))
    }

    /// Starts a first maker, so that the first request need not wait for it.
    pub fn warm(&self) -> io::Result<()> {
        if let Isolation::Processes { .. } = self.0.isolation {
            let maker = self.start()?;
            self.put_back(maker);
        }
        Ok(())
    }

    /// Makes a plan.
    pub(crate) async fn make(&self, material: &Material) -> Outcome {
        let _permit = self.0.permits.acquire().await.expect("it is never closed");
        match self.0.isolation {
            Isolation::None => {
                let (work, libraries) = (material.clone(), self.0.libraries.clone());
                tokio::task::spawn_blocking(move || work.make(&libraries)).await.unwrap_or_else(|fault| {
                    error!(path = material.path, error = chain(&fault), "the parser fell over a file");
                    fell_over(&material.path)
                })
            }
            Isolation::Processes { .. } => self.make_elsewhere(material).await,
        }
    }

    async fn make_elsewhere(&self, material: &Material) -> Outcome {
        let deadline = Instant::now() + PLAN_DEADLINE;
        let idle = self.0.idle.lock().expect("no holder of this lock panics").pop();
        if let Some(maker) = idle {
            match self.make_with(maker, material, deadline).await {
                Asked::Ended(Some(status)) if status.signal() == Some(Signal::SIGXCPU as i32) => {
                    return ended(&material.path, Some(status));
                }
                // It may have ended before it was asked, or of what it made before: a fresh one tells.
                Asked::Ended(_) => {}
                Asked::Done(outcome) => return outcome,
            }
        }
        match self.start() {
            Ok(maker) => match self.make_with(maker, material, deadline).await {
                Asked::Done(outcome) => outcome,
                Asked::Ended(status) => ended(&material.path, status),
            },
            Err(error) => Outcome::Broken(format!("no process can be started for the plan: {error}")),
        }
    }

    async fn make_with(&self, mut maker: Maker, material: &Material, deadline: Instant) -> Asked {
        match timeout_at(deadline, maker.ask(material)).await {
            Ok(Ok(outcome)) => {
                if maker.made < PLANS_OF_ONE_MAX {
                    self.put_back(maker);
                } else {
                    maker.end().await;
                }
                Asked::Done(outcome)
            }
            Ok(Err(error)) => {
                let (status, said) = maker.end().await;
                warn!(path = material.path, %error, ?status, said, "the process of a plan has ended");
                Asked::Ended(status)
            }
            Err(_) => {
                maker.kill().await;
                warn!(path = material.path, "the plan took too long");
                Asked::Done(Outcome::Broken(format!("the plan was not made within {} s", PLAN_DEADLINE.as_secs())))
            }
        }
    }

    fn start(&self) -> io::Result<Maker> {
        let Isolation::Processes { program, arguments } = &self.0.isolation else { unreachable!("only processes are started") };
        let mut command = Command::new(program);
        command.args(arguments).env_clear().current_dir("/").kill_on_drop(true);
        // It may write no file, and the role's own standard error may be one: its last words would end it in another way than they tell.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let questions = child.stdin.take().expect("it is piped");
        let answers = BufReader::new(child.stdout.take().expect("it is piped"));
        Ok(Maker { child, questions, answers, made: 0 })
    }

    fn put_back(&self, maker: Maker) {
        self.0.idle.lock().expect("no holder of this lock panics").push(maker);
    }

    /// Ends the idle makers.
    pub(crate) async fn end(&self) {
        let idle = std::mem::take(&mut *self.0.idle.lock().expect("no holder of this lock panics"));
        for maker in idle {
            maker.end().await;
        }
    }
}

impl Maker {
    async fn ask(&mut self, material: &Material) -> io::Result<Outcome> {
        self.made += 1;
        for piece in material.frame() {
            self.questions.write_all(&piece).await?;
        }
        self.questions.flush().await?;
        let length = bounded(self.answers.read_u32_le().await?)?;
        let mut header = vec![0; length];
        self.answers.read_exact(&mut header).await?;
        Ok(match serde_json::from_slice(&header)? {
            Answer::Made { digest, plan: length, notes, warnings } => {
                let mut plan = vec![0; bounded(u32::try_from(length).unwrap_or(u32::MAX))?];
                self.answers.read_exact(&mut plan).await?;
                Outcome::Made(Box::new(Made { digest, plan, notes, warnings }))
            }
            Answer::Triggers(rules) => Outcome::Triggers(rules),
            Answer::Refused(diagnostics) => Outcome::Refused(diagnostics),
            Answer::Needs(wants) => Outcome::Needs(wants),
            Answer::Broken(message) => Outcome::Broken(message),
        })
    }

    /// Ends the process: by itself, as its input ends, or not. Gives how it ended, and its last words.
    async fn end(self) -> (Option<ExitStatus>, String) {
        let Self { mut child, questions, answers, .. } = self;
        let errors = child.stderr.take();
        drop((questions, answers));
        let status = match timeout(END_DEADLINE, child.wait()).await {
            Ok(status) => status.ok(),
            Err(_) => match child.kill().await {
                Ok(()) => child.wait().await.ok(),
                Err(_) => None,
            },
        };
        let mut said = Vec::new();
        if let Some(errors) = errors {
            // What it has said is in the pipe; it is only told.
            let _no_matter = timeout(END_DEADLINE, errors.take(LAST_WORDS_BYTES_MAX).read_to_end(&mut said)).await;
        }
        (status, String::from_utf8_lossy(&said).into_owned())
    }

    /// Ends the process at once: it has had its time.
    async fn kill(mut self) {
        if let Err(error) = self.child.kill().await {
            warn!(%error, "the process of a plan cannot be ended");
        }
    }
}

/// Why a maker has ended over a file.
fn ended(path: &str, status: Option<ExitStatus>) -> Outcome {
    let signal = status.and_then(|status| status.signal()).and_then(|signal| Signal::try_from(signal).ok());
    match (signal, status.and_then(|status| status.code())) {
        (Some(Signal::SIGXCPU), _) => Outcome::Refused(vec![over_limit(path, &format!("{CPU_SECONDS_MAX} s of processor time"))]),
        // The program is aborted where it gets no memory.
        (Some(Signal::SIGABRT), _) => {
            Outcome::Refused(vec![over_limit(path, &format!("{} MiB of memory", MEMORY_BYTES_MAX / 1024 / 1024))])
        }
        (Some(Signal::SIGSEGV | Signal::SIGBUS | Signal::SIGILL | Signal::SIGFPE | Signal::SIGTRAP), _) | (_, Some(PANIC)) => {
            fell_over(path)
        }
        // Not of the file's doing: somebody, or a system without memory, has ended it.
        _ => Outcome::Broken("the process that makes the plan was ended from outside".to_owned()),
    }
}

pub(crate) fn over_limit(path: &str, limit: &str) -> Diagnostic {
    let help = "make the file smaller, or what it reads; and report it: the limits of the language should come first";
    diagnostic(path, OVER_LIMIT, format!("the plan of the file takes more than {limit}"), help)
}

/// It would again: who asks must not ask for ever.
fn fell_over(path: &str) -> Outcome {
    let help = "write it differently, as a change usually helps; and report it with the file";
    Outcome::Refused(vec![diagnostic(path, FELL_OVER, "the parser fell over this file: a mistake of Otto's".to_owned(), help)])
}

fn diagnostic(path: &str, code: &str, message: String, help: &str) -> Diagnostic {
    Diagnostic {
        code: code.to_owned(),
        severity: Severity::Error,
        message,
        file: path.to_owned(),
        line: 1,
        column: 1,
        span: Span::default(),
        label: String::new(),
        help: help.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use bytes::Bytes;
    use model::context::TriggerContext;

    use super::*;

    /// What comes of a plan whose makers end like this, and how many of them there were.
    async fn ending(how: &str) -> (String, usize) {
        let folder = tempfile::tempdir().unwrap();
        let starts = folder.path().join("starts");
        let script = format!("echo start >> {}; {how}", starts.display());
        let isolation = Isolation::Processes { program: "/bin/sh".into(), arguments: vec!["-c".to_owned(), script] };
        let makers = Makers::new(isolation, Vec::new());
        makers.warm().unwrap();
        let outcome = makers.make(&Material::new("Ottofile", Bytes::new(), TriggerContext::default())).await;
        let told = match outcome {
            Outcome::Refused(diagnostics) => diagnostics[0].code.clone(),
            Outcome::Broken(message) => message,
            other @ (Outcome::Made(_) | Outcome::Triggers(_) | Outcome::Needs(_)) => panic!("{other:?}"),
        };
        assert!(makers.0.idle.lock().unwrap().is_empty());
        (told, fs::read_to_string(starts).unwrap().lines().count())
    }

    #[tokio::test]
    async fn a_maker_that_has_ended_is_replaced_once_and_the_file_is_blamed_only_for_its_own_doing() {
        let outside = "the process that makes the plan was ended from outside".to_owned();
        assert_eq!(ending("kill -KILL $$").await, (outside.clone(), 2));
        assert_eq!(ending("exit 0").await, (outside, 2));
        assert_eq!(ending("exit 101").await, (FELL_OVER.to_owned(), 2));
        assert_eq!(ending("kill -SEGV $$").await, (FELL_OVER.to_owned(), 2));
        assert_eq!(ending("kill -XCPU $$").await, (OVER_LIMIT.to_owned(), 1));
    }
}
