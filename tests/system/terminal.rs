//! `otto run` on a terminal: a pseudo-terminal with an emulator behind it, so that what a person sees is what is compared.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read as _, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};
use testkit::{TEST_DEADLINE, wait_for};

use crate::house::{House, OTTO};

/// What Ctrl-C is on a terminal.
const CTRL_C: &str = "\x03";
/// A stage that will not end has [some seconds](agent) before it is ended; less than this is at once.
const AT_ONCE: Duration = Duration::from_secs(3);

/// A terminal with a program in it.
struct Terminal {
    master: File,
    screen: Arc<Mutex<vt100::Parser>>,
    /// Every byte that came.
    raw: Arc<Mutex<Vec<u8>>>,
    child: Child,
}

impl Terminal {
    fn run(folder: &Path, columns: u16, rows: u16, arguments: &[&str]) -> Self {
        Self::run_with(folder, (columns, rows), arguments, &[])
    }

    fn run_with(folder: &Path, (columns, rows): (u16, u16), arguments: &[&str], environment: &[(&str, String)]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let slave = ptsname(&master, Vec::new()).unwrap();
        let slave = OpenOptions::new().read(true).write(true).open(slave.to_str().unwrap()).unwrap();
        tcsetwinsize(&master, size(columns, rows)).unwrap();
        let stdio = || Stdio::from(slave.try_clone().unwrap());
        // It becomes the leader of a session whose terminal this is, so that Ctrl-C means it. When the test is killed, so is it; by itself it
        // would live on where the test was started to survive the end of its own terminal, which is inherited.
        let child = Command::new("env")
            .args(["--default-signal=HUP", "setpriv", "--pdeathsig", "KILL", "setsid", "--ctty", "--wait", OTTO])
            .args(arguments)
            .current_dir(folder)
            .env("TERM", "xterm")
            .env("NO_COLOR", "1")
            .envs(environment.iter().map(|(name, value)| (*name, value)))
            .stdin(stdio())
            .stdout(stdio())
            .stderr(stdio())
            .spawn()
            .unwrap();
        drop(slave);
        let screen = Arc::new(Mutex::new(vt100::Parser::new(rows, columns, 0)));
        let (mut output, shown) = (File::from(master.try_clone().unwrap()), screen.clone());
        let raw = Arc::new(Mutex::new(Vec::new()));
        let came = raw.clone();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            // The end of the last process is an error here.
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                came.lock().unwrap().extend_from_slice(&bytes[..count]);
                shown.lock().unwrap().process(&bytes[..count]);
            }
        });
        Self { master: File::from(master), screen, raw, child }
    }

    fn shown(&self) -> String {
        let screen = self.screen.lock().unwrap();
        let rows: Vec<String> = screen.screen().rows(0, u16::MAX).map(|row| row.trim_end().to_owned()).collect();
        rows.join("\n").trim_end().to_owned()
    }

    async fn shows(&self, what: &str) -> String {
        let begun = Instant::now();
        let shown = async || {
            let shown = self.shown();
            assert!(shown.contains(what) || begun.elapsed() < TEST_DEADLINE, "the terminal does not show `{what}`:\n{shown}");
            Some(shown).filter(|shown| shown.contains(what))
        };
        wait_for(2 * TEST_DEADLINE, "the terminal", shown).await
    }

    fn type_in(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    fn resize(&self, columns: u16, rows: u16) {
        tcsetwinsize(&self.master, size(columns, rows)).unwrap();
        self.screen.lock().unwrap().screen_mut().set_size(rows, columns);
    }

    async fn ends(&mut self) -> i32 {
        let status = wait_for(TEST_DEADLINE, "the program to end", async || self.child.try_wait().unwrap()).await;
        status.code().unwrap()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn size(columns: u16, rows: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

/// A folder with a pipeline file, and scripts that it may run; `HERE` in them is the folder.
fn folder(pipeline: &str, scripts: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [("Ottofile", pipeline)].iter().chain(scripts) {
        let path = folder.path().join(name);
        fs::write(&path, text.replace("HERE", folder.path().to_str().unwrap())).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    folder
}

/// Times and ids, which differ each time, as they are compared.
fn masked(shown: &str) -> String {
    let mut masked = String::new();
    for line in shown.lines() {
        let words = line.split(' ').map(|word| {
            let is_time = word.contains('.') && word.chars().all(|character| character.is_ascii_digit() || character == '.');
            if is_time {
                "0.00"
            } else if word.starts_with("run_") {
                "run_x"
            } else {
                word
            }
        });
        masked += &words.collect::<Vec<_>>().join(" ");
        masked.push('\n');
    }
    masked
}

/// Processes whose arguments have this text.
fn processes(text: &str) -> usize {
    let entries = fs::read_dir("/proc").unwrap().filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok());
    entries.filter(|line| line.windows(text.len()).any(|window| window == text.as_bytes())).count()
}

#[tokio::test]
async fn a_run_is_a_tree_while_it_goes_on_and_a_summary_at_its_end() {
    let lint = "#!/bin/sh\nwhile [ ! -e HERE/go ]; do printf 'linting \\033[31mred\\033[2J\\n'; sleep 0.05; done\nexit 1\n";
    let unit = "#!/bin/sh\nwhile [ ! -e HERE/go ]; do echo testing; sleep 0.05; done\n";
    let pipeline = "pipeline {\n  stage 'Build' { steps [ sh 'echo building' ] }\n  stage 'Checks' {\n    parallel {\n      stage 'Lint' { steps [ sh './lint' ] }\n      stage 'Unit' { steps [ sh './unit' ] }\n    }\n  }\n  stage 'Ship' { steps [ echo 'shipped' ] }\n}\n";
    let folder = folder(pipeline, &[("lint", lint), ("unit", unit)]);
    let mut terminal = Terminal::run(folder.path(), 80, 30, &["run", "--jobs", "2"]);
    terminal.shows("│ testing").await;
    let shown = terminal.shows("│ linting red").await;
    assert!(shown.contains("✔ Build") && shown.contains("▾ Checks") && shown.contains("· Ship"), "{shown}");
    terminal.resize(40, 12);
    terminal.shows("1 of 4 stages").await;
    terminal.resize(80, 30);
    fs::write(folder.path().join("go"), "").unwrap();
    let shown = terminal.shows("run: failure").await;
    assert_eq!(terminal.ends().await, 1);
    for part in ["✔ Build", "✘ Lint", "✔ Unit", "– Ship", "Checks/Lint, the end of its output:", "linting red", "all of it: otto log run_"]
    {
        assert!(shown.contains(part), "{part} is missing:\n{shown}");
    }
    assert_eq!(shown.matches("Build").count(), 1, "nothing of the earlier drawings is left:\n{shown}");
}

#[tokio::test]
async fn the_summary_stays_as_it_is() {
    let pipeline =
        "pipeline { stage 'Build' { steps [ sh 'echo one' ] } stage 'Test' { steps [ sh 'exit 7' ] } stage 'Ship' { steps [ echo 'x' ] } }";
    let folder = folder(pipeline, &[]);
    let mut terminal = Terminal::run(folder.path(), 90, 24, &["run"]);
    let shown = terminal.shows("run: failure").await;
    assert_eq!(terminal.ends().await, 1);
    insta::assert_snapshot!(masked(&shown));
}

#[tokio::test]
async fn what_asks_at_the_terminal_is_refused_at_once_as_on_an_agent() {
    let folder = folder("pipeline { stage 'Ask' { steps [ sh 'set +x; read answer </dev/tty' ] } }", &[]);
    let mut terminal = Terminal::run(folder.path(), 90, 24, &["run"]);
    let shown = terminal.shows("run: failure").await;
    assert!(shown.contains("No such device or address"), "{shown}");
    assert_eq!(terminal.ends().await, 1);
}

#[tokio::test]
async fn a_small_terminal_shows_what_runs() {
    let stages: String =
        ["One", "Two", "Three", "Four", "Five"].map(|name| format!("stage '{name}' {{ steps [ sh 'sleep 0.2' ] }} ")).concat();
    let folder = folder(&format!("pipeline {{ parallel {{ {stages} }} }}"), &[]);
    let mut terminal = Terminal::run(folder.path(), 20, 4, &["run", "--jobs", "1"]);
    let shown = terminal.shows("of 5 stages").await;
    assert!(shown.lines().count() <= 4, "{shown}");
    terminal.shows("run: success").await;
    assert_eq!(terminal.ends().await, 0);
}

#[tokio::test]
async fn ctrl_c_ends_the_run_in_order() {
    let long = "#!/bin/sh\ntrap 'echo tidied > HERE/mark; exit 1' TERM\necho began\nwhile :; do sleep 0.05; done\n";
    let folder = folder("pipeline { stage 'Long' { steps [ sh 'exec ./long' ] } }", &[("long", long)]);
    let mut terminal = Terminal::run(folder.path(), 80, 24, &["run"]);
    terminal.shows("│ began").await;
    terminal.type_in(CTRL_C);
    let shown = terminal.shows("run: aborted").await;
    assert!(shown.contains("cancelling:"), "{shown}");
    assert_eq!(terminal.ends().await, 4);
    assert_eq!(fs::read_to_string(folder.path().join("mark")).unwrap(), "tidied\n");
}

#[tokio::test]
async fn a_second_ctrl_c_ends_all_at_once_and_leaves_nothing() {
    let own = format!("otto-test-{}", std::process::id());
    let deaf = "#!/bin/sh\ntrap '' TERM INT\necho began\nwhile :; do sleep 0.05; done\n";
    let folder = folder(&format!("pipeline {{ stage 'Deaf' {{ steps [ sh 'exec ./deaf {own}' ] }} }}"), &[("deaf", deaf)]);
    let mut terminal = Terminal::run(folder.path(), 100, 24, &["run"]);
    terminal.shows("│ began").await;
    assert!(processes(&own) > 0);
    terminal.type_in(CTRL_C);
    terminal.shows("cancelling:").await;
    let asked = Instant::now();
    terminal.type_in(CTRL_C);
    assert_eq!(terminal.ends().await, 4);
    assert!(asked.elapsed() < AT_ONCE, "it took {:?}", asked.elapsed());
    assert_eq!(processes(&own), 0);
}

#[tokio::test]
async fn a_question_is_asked_on_the_terminal_and_its_answer_counts() {
    let folder = folder("pipeline { stage 'Ship' { gates { enter { input 'Ship it?' } } steps [ sh 'echo shipped' ] } }", &[]);
    let mut terminal = Terminal::run(folder.path(), 80, 24, &["run"]);
    let shown = terminal.shows("(yes or no)").await;
    assert!(shown.contains("? Ship: Ship it?"), "{shown}");
    terminal.type_in("perhaps\r");
    terminal.shows("`yes` or `no`?").await;
    terminal.type_in("yes\r");
    terminal.shows("run: success").await;
    assert_eq!(terminal.ends().await, 0);
}

#[tokio::test]
async fn a_run_on_the_services_is_the_same_tree_and_asks_at_the_same_terminal() {
    let house = House::start(1).await;
    let folder = folder("pipeline { stage 'Ship' { gates { enter { input 'Ship it?' } } steps [ sh 'echo shipped' ] } }", &[]);
    let mut terminal = Terminal::run_with(folder.path(), (80, 24), &["run", "--remote"], &house.client_env());
    let shown = terminal.shows("(yes or no)").await;
    assert!(shown.contains("? Ship: Ship it?"), "{shown}");
    terminal.type_in("yes\r");
    terminal.shows("run: success").await;
    assert_eq!(terminal.ends().await, 0);
    house.end().await;
}

/// What the tree itself writes to a terminal without colours, but for movements upwards.
const OWN_ESCAPES: [&str; 6] = ["\x1b[?2026h", "\x1b[?2026l", "\x1b[?25l", "\x1b[?25h", "\x1b[J", "\x1b[K"];

#[tokio::test]
async fn nothing_that_a_stage_says_or_is_called_steers_the_terminal() {
    // A title, a clipboard, a cleared screen, C1 in UTF-8 and bare, a bell, backspaces, what turns the direction of text, half a sequence.
    let hostile = r"\033]0;title\007\033]52;c;Zm9v\007\033[2J\033[1;1Hx\302\2332J\233\200\007\b\b\342\200\256rtl\033[38;5";
    let says = format!(
        "#!/bin/sh\nprintf 'begun {hostile}\\n'; printf 'no line feed {hostile}' >&2\nwhile [ ! -e HERE/go ]; do sleep 0.02; done\nprintf '{hostile}'\nexit 1\n"
    );
    let pipeline = "pipeline { stage 'A \u{202e}evil' { steps [ sh './says' ] notify { failure { error 'told \u{202e}\u{2066}' } } } }";
    let folder = folder(pipeline, &[("says", &says)]);
    let mut terminal = Terminal::run(folder.path(), 80, 24, &["run"]);
    terminal.shows("begun").await;
    terminal.shows("no line feed").await;
    fs::write(folder.path().join("go"), "").unwrap();
    terminal.shows("run: failure").await;
    assert_eq!(terminal.ends().await, 1);
    let mut text = String::from_utf8(terminal.raw.lock().unwrap().clone()).expect("what is written is UTF-8");
    text = OWN_ESCAPES.iter().fold(text, |text, own| text.replace(own, ""));
    for lines in 1..100 {
        text = text.replace(&format!("\x1b[{lines}A"), "");
    }
    let steers = |character: char| character.is_control() && !"\r\n".contains(character) || "\u{202e}\u{2066}".contains(character);
    assert!(!text.contains(steers), "{text:?}");
}

#[tokio::test]
async fn a_run_whose_terminal_is_closed_ends_with_its_stages_which_have_no_other_end_of_it() {
    let own = format!("otto-closed-{}", std::process::id());
    let long = "#!/bin/sh\ntrap '' HUP\nls -l /proc/self/fd /proc/$PPID/fd > HERE/files\necho began\nwhile :; do sleep 0.05; done\n";
    let folder = folder(&format!("pipeline {{ stage 'Long' {{ steps [ sh 'exec ./long {own}' ] }} }}"), &[("long", long)]);
    let mut terminal = Terminal::run(folder.path(), 80, 24, &["run"]);
    terminal.shows("│ began").await;
    let files = fs::read_to_string(folder.path().join("files")).unwrap();
    assert!(files.contains("pipe:") && !files.contains("ptmx"), "{files}");
    // What the system sends when a terminal is gone.
    let otto = Pid::from_raw(terminal.child.id().cast_signed());
    kill(otto, Signal::SIGHUP).unwrap();
    wait_for(TEST_DEADLINE, "the program to end", async || terminal.child.try_wait().unwrap()).await;
    wait_for(TEST_DEADLINE, "the end of its stages", async || (processes(&own) == 0).then_some(())).await;
}
