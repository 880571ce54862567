//! A maker: the process in which plans are made, one after the other, under limits that it cannot lift.
//!
//! What a pipeline file costs is bounded by the parser's own limits; these hold where the parser is wrong about that. The process has no
//! files, no network of its own making, no children: it reads questions from its standard input, and ends with it.

use std::{
    io::{self, BufReader, Write},
    thread,
    time::Duration,
};

use model::manifest::StepLibrary;
use nix::sys::{
    resource::{Resource, UsageWho, getrusage, setrlimit},
    time::TimeVal,
};

use crate::material::{Material, Outcome};

/// Processor time for one plan, in seconds. The largest files take less than a tenth of it.
pub const CPU_SECONDS_MAX: u64 = 3;
/// The most memory of a maker in bytes, its program included: the worst file of 1 MiB takes 300 MiB.
pub const MEMORY_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// What a maker does instead of its work, so that tests see what its limits do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misbehaviour {
    /// It computes for ever.
    Compute,
    /// It takes all memory.
    Swell,
    /// It does nothing.
    Sleep,
    /// It meets a mistake of Otto's.
    Panic,
}

/// Answers questions from standard input until there are no more.
pub fn work(libraries: &[StepLibrary], misbehaviour: Option<Misbehaviour>) -> io::Result<()> {
    setrlimit(Resource::RLIMIT_AS, MEMORY_BYTES_MAX, MEMORY_BYTES_MAX)?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    setrlimit(Resource::RLIMIT_FSIZE, 0, 0)?;
    // Neither threads nor processes.
    setrlimit(Resource::RLIMIT_NPROC, 0, 0)?;
    let mut questions = BufReader::new(io::stdin().lock());
    let mut answers = io::stdout().lock();
    while let Some(material) = Material::read(&mut questions)? {
        limit_cpu()?;
        if let Some(misbehaviour) = misbehaviour {
            misbehave(misbehaviour);
        }
        let outcome: Outcome = material.make(libraries);
        outcome.frame().iter().try_for_each(|piece| answers.write_all(piece))?;
        answers.flush()?;
    }
    Ok(())
}

/// From here on, [`CPU_SECONDS_MAX`] of processor time; then the system ends the process (`SIGXCPU`).
fn limit_cpu() -> io::Result<()> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let used: TimeVal = usage.user_time() + usage.system_time();
    // The part of a second that was used is given again.
    let used = u64::try_from(used.tv_sec()).unwrap_or(0) + 1;
    setrlimit(Resource::RLIMIT_CPU, used + CPU_SECONDS_MAX, nix::libc::RLIM_INFINITY)?;
    Ok(())
}

fn misbehave(misbehaviour: Misbehaviour) {
    match misbehaviour {
        Misbehaviour::Compute => loop {
            std::hint::spin_loop();
        },
        Misbehaviour::Swell => {
            let mut taken: Vec<Vec<u8>> = Vec::new();
            loop {
                taken.push(vec![1; 16 * 1024 * 1024]);
            }
        }
        Misbehaviour::Sleep => loop {
            thread::sleep(Duration::from_mins(1));
        },
        Misbehaviour::Panic => panic!("this is what was asked for"),
    }
}
