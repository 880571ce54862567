//! What the processes print: shown with the name of the process before each line, and kept in a file.
//!
//! A terminal that stands still (Ctrl-S, a slow connection) stops nothing: a thread of its own writes to it, and what it cannot take is
//! counted and left out. The files have every line.

use std::{
    collections::VecDeque,
    fmt::Write as _,
    fs::{File, OpenOptions},
    io::{self, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Receiver, SyncSender},
    },
    thread::{self, JoinHandle},
};

use anstyle::{AnsiColor, Style};
use service::settings::Settings;

/// Lines that wait for the terminal: a busy second of all processes.
const SHOWN_LINES_MAX: usize = 4_096;
/// Bytes of a process's file. Then it becomes `NAME.log.1`, in place of the one before.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Lines that an error shows.
const TAIL_LINES: usize = 12;
/// The names' colours, in turn.
const COLOURS: [AnsiColor; 6] =
    [AnsiColor::Cyan, AnsiColor::Yellow, AnsiColor::Green, AnsiColor::Magenta, AnsiColor::Blue, AnsiColor::BrightCyan];

/// Whether standard error shows colours: on a terminal, unless `NO_COLOR` is set (<https://no-color.org>).
pub fn colours_on_stderr() -> bool {
    io::stderr().is_terminal() && Settings::from_environment().optional::<String>("NO_COLOR").is_none()
}

/// Writes lines to standard error.
#[derive(Debug)]
pub(super) struct Screen {
    lines: SyncSender<String>,
    left_out: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Screen {
    pub(super) fn start() -> io::Result<Self> {
        let (lines, received) = mpsc::sync_channel(SHOWN_LINES_MAX);
        let left_out = Arc::<AtomicU64>::default();
        let counted = Arc::clone(&left_out);
        let thread = thread::Builder::new().name("screen".to_owned()).spawn(move || show(&received, &counted))?;
        Ok(Self { lines, left_out, thread })
    }

    /// Waits until all lines are written. No [`Voice`] of this screen may be left.
    pub(super) fn finish(self) {
        let Self { lines, thread, .. } = self;
        drop(lines);
        let _writer_panicked = thread.join();
    }
}

fn show(lines: &Receiver<String>, left_out: &AtomicU64) {
    let mut stderr = io::stderr();
    for line in lines {
        // Nobody is left to be told when the terminal is gone.
        let _closed = stderr.write_all(line.as_bytes());
        let missing = left_out.swap(0, Ordering::Relaxed);
        if missing > 0 {
            let _closed = writeln!(stderr, "({missing} lines are not shown; the files have them)");
        }
    }
}

/// What one process prints, and what is said about it. Clones are the same one.
#[derive(Debug, Clone)]
pub(super) struct Voice(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    /// The name, as wide as all names, with its colour.
    prefix: String,
    screen: Option<(SyncSender<String>, Arc<AtomicU64>)>,
    path: PathBuf,
    file: File,
    file_bytes: u64,
    tail: VecDeque<String>,
}

impl Voice {
    /// The voice of the `index`th process, whose lines also go to `logs/NAME.log`.
    pub(super) fn new(name: &str, index: usize, width: usize, logs: &Path, screen: Option<&Screen>) -> io::Result<Self> {
        let style = if colours_on_stderr() { Style::new().fg_color(Some(COLOURS[index % COLOURS.len()].into())) } else { Style::new() };
        let path = logs.join(format!("{name}.log"));
        let (file, file_bytes) = open(&path)?;
        Ok(Self(Arc::new(Mutex::new(Inner {
            prefix: format!("{style}{name:width$} |{style:#} "),
            screen: screen.map(|screen| (screen.lines.clone(), Arc::clone(&screen.left_out))),
            path,
            file,
            file_bytes,
            tail: VecDeque::with_capacity(TAIL_LINES),
        }))))
    }

    /// A line of the process, or about it.
    pub(super) fn line(&self, line: &str) {
        self.0.lock().expect("no holder of this lock panics").line(line);
    }

    /// The last lines, for an error.
    pub(super) fn tail(&self) -> String {
        let inner = self.0.lock().expect("no holder of this lock panics");
        inner.tail.iter().fold(String::new(), |mut text, line| {
            let _infallible = write!(text, "\n    {line}");
            text
        })
    }
}

impl Inner {
    fn line(&mut self, line: &str) {
        if self.tail.len() == TAIL_LINES {
            self.tail.pop_front();
        }
        self.tail.push_back(line.to_owned());
        self.keep(line);
        if let Some((screen, left_out)) = &self.screen
            && screen.try_send(format!("{}{line}\n", self.prefix)).is_err()
        {
            left_out.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A disk that takes no line must not stop the process that says it.
    fn keep(&mut self, line: &str) {
        if self.file_bytes >= FILE_BYTES_MAX
            && let Ok((file, file_bytes)) = std::fs::rename(&self.path, self.path.with_extension("log.1")).and_then(|()| open(&self.path))
        {
            (self.file, self.file_bytes) = (file, file_bytes);
        }
        let line = format!("{line}\n");
        if self.file.write_all(line.as_bytes()).is_ok() {
            self.file_bytes += line.len() as u64;
        }
    }
}

fn open(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    let bytes = file.metadata()?.len();
    Ok((file, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_has_every_line_and_the_tail_the_last() {
        let folder = tempfile::tempdir().unwrap();
        let voice = Voice::new("web", 0, 5, folder.path(), None).unwrap();
        (0..TAIL_LINES + 3).for_each(|number| voice.line(&format!("line {number}")));
        let file = std::fs::read_to_string(folder.path().join("web.log")).unwrap();
        assert_eq!(file.lines().count(), TAIL_LINES + 3);
        assert!(voice.tail().starts_with("\n    line 3\n") && voice.tail().ends_with("line 14"), "{}", voice.tail());
    }

    #[test]
    fn a_file_that_is_full_makes_room() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.log");
        File::create(&path).unwrap().set_len(FILE_BYTES_MAX).unwrap();
        Voice::new("web", 0, 5, folder.path(), None).unwrap().line("anew");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "anew\n");
        assert_eq!(std::fs::metadata(folder.path().join("web.log.1")).unwrap().len(), FILE_BYTES_MAX);
    }
}
