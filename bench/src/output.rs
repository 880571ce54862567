//! A step that says much: how fast `otto run` passes it on, whether all of it arrives, and how much memory that takes.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};

use crate::scratch;

/// Lines that the step says.
const LINES: usize = 1_000_000;
/// What says the lines.
const COMMAND: &str = "yes ";
/// Bytes of a line, with its end.
const LINE_BYTES: usize = 100;
/// Between two looks at the memory of the process, whose highest mark the kernel keeps.
const LOOK: Duration = Duration::from_millis(5);

/// The table of `docs/benchmarks.md`.
pub(crate) fn measure(otto: &Path) -> anyhow::Result<String> {
    let line = "x".repeat(LINE_BYTES - 1);
    let script = format!("{COMMAND}{line} | head -n {LINES}");
    let folder = scratch()?;
    fs::write(folder.path().join("Ottofile"), format!("pipeline {{ stage 'Much' {{ steps [ sh '{script}' ] }} }}\n"))?;
    let bare = read(Command::new("/bin/sh").args(["-c", &script]), &line)?;
    let run = read(Command::new(otto).arg("run").current_dir(folder.path()), &line)?;
    // Bytes for each microsecond are megabytes for each second.
    let megabytes = |took: Duration| (LINES * LINE_BYTES) as u128 / took.as_micros();
    Ok(format!(
        "| {LINES} lines of {LINE_BYTES} bytes | goal | measured | most memory |\n|---|---:|---:|---:|\n\
         | the bare shell, into a pipe | | {} MB/s | |\n| `otto run`, into a pipe, the whole process | 100 MB/s, 100 MB | {} MB/s | {} MB |\n",
        megabytes(bare.took),
        megabytes(run.took),
        run.memory_bytes / 1_000_000
    ))
}

struct Reading {
    took: Duration,
    memory_bytes: u64,
}

/// Reads what the command says to its end, and sees that no line is missing.
fn read(command: &mut Command, line: &str) -> anyhow::Result<Reading> {
    let begun = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn()?;
    let status = format!("/proc/{}/status", child.id());
    let (over, most) = (AtomicBool::new(false), AtomicU64::new(0));
    let lines = thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                most.fetch_max(high_mark(&status).unwrap_or(0), Ordering::Relaxed);
                thread::sleep(LOOK);
            }
        });
        let mut said = BufReader::with_capacity(1 << 20, child.stdout.take().context("its output is a pipe")?);
        let (mut buffer, mut lines) = (Vec::new(), 0);
        while said.read_until(b'\n', &mut buffer)? > 0 {
            // Not what is said of the script, which has the line in it, too.
            let is_of_the_script = buffer.windows(COMMAND.len()).any(|window| window == COMMAND.as_bytes());
            lines += usize::from(buffer.trim_ascii_end().ends_with(line.as_bytes()) && !is_of_the_script);
            buffer.clear();
        }
        over.store(true, Ordering::Relaxed);
        anyhow::Ok(lines)
    })?;
    ensure!(child.wait()?.success(), "it failed");
    ensure!(lines == LINES, "{lines} of {LINES} lines arrived");
    Ok(Reading { took: begun.elapsed(), memory_bytes: most.into_inner() })
}

/// The most memory that the process ever had (`VmHWM`, `man 5 proc_pid_status`), in bytes.
fn high_mark(status: &str) -> Option<u64> {
    let text = fs::read_to_string(status).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}
