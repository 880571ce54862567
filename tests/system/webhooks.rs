//! Webhooks of a run without a server: they have an address on loopback as long as its process is there.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use reqwest::{Method, StatusCode};
use serde_json::Value;
use testkit::{TEST_DEADLINE, wait_for};

use crate::house::{OTTO, exited};

/// A scanner is told where to call; the run goes on to its end when `go` is there.
const PIPELINE: &str = "pipeline {
  stage 'Build' { steps [ sh 'echo \"$OTTO_CALLBACK_URL\" >HERE/handed' ] }
  wait { webhook { description = 'the scanner' } }
  stage 'Ship' { steps [ sh 'while [ ! -e HERE/go ]; do sleep 0.05; done' ] }
}";

/// An `otto run --json`, and the objects that it has printed.
struct Running {
    child: Child,
    lines: Arc<Mutex<Vec<Value>>>,
}

impl Running {
    fn start(folder: &Path, more: &[&str]) -> Self {
        let mut command = Command::new(OTTO);
        command.args(["run", "--json"]).args(more).current_dir(folder).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (output, lines) = (child.stdout.take().unwrap(), Arc::<Mutex<Vec<Value>>>::default());
        let printed = lines.clone();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                printed.lock().unwrap().push(serde_json::from_str(&line).unwrap());
            }
        });
        Self { child, lines }
    }

    /// The address that it says.
    async fn address(&self) -> String {
        let said = async || self.lines.lock().unwrap().iter().find_map(|line| Some(line["callback"]["url"].as_str()?.to_owned()));
        wait_for(TEST_DEADLINE, "the address of the webhook", said).await
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("Ottofile"), PIPELINE.replace("HERE", folder.path().to_str().unwrap())).unwrap();
    // What the stages write is no part of the source.
    fs::write(folder.path().join(".gitignore"), "go\nhanded\n").unwrap();
    folder
}

async fn asked(method: Method, address: &str) -> StatusCode {
    testkit::http_client().request(method, address).body("x".repeat(100_000)).send().await.unwrap().status()
}

#[tokio::test]
async fn a_webhook_of_a_local_run_is_called_once_with_post_at_the_address_that_its_steps_were_given() {
    let folder = folder();
    let mut run = Running::start(folder.path(), &[]);
    let address = run.address().await;
    assert!(address.starts_with("http://127.0.0.1:"), "{address}");
    assert_eq!(fs::read_to_string(folder.path().join("handed")).unwrap().trim(), address);
    let base = address.split("/v1/").next().unwrap();
    assert_eq!(asked(Method::GET, &address).await, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(asked(Method::POST, &format!("{address}0")).await, StatusCode::NOT_FOUND);
    assert_eq!(asked(Method::GET, &format!("{base}/v1/runs")).await, StatusCode::NOT_FOUND, "nothing else is served");
    assert_eq!(asked(Method::POST, &address).await, StatusCode::NO_CONTENT);
    assert_eq!(asked(Method::POST, &address).await, StatusCode::CONFLICT);
    fs::write(folder.path().join("go"), "").unwrap();
    assert!(exited(&mut run.child).await.success());
    let end = run.lines.lock().unwrap().last().cloned().unwrap();
    assert_eq!(end["end"]["outcome"], "success");
}

#[tokio::test]
async fn a_run_that_goes_on_says_where_its_webhook_is_called_now() {
    let folder = folder();
    let mut first = Running::start(folder.path(), &[]);
    let before = first.address().await;
    first.child.kill().unwrap();
    first.child.wait().unwrap();
    // Whoever took the port meanwhile keeps it.
    let port = before.strip_prefix("http://").unwrap().split('/').next().unwrap();
    let _taken = TcpListener::bind(port).unwrap();
    fs::write(folder.path().join("go"), "").unwrap();
    let mut second = Running::start(folder.path(), &["--resume"]);
    let after = second.address().await;
    let secret = |address: &str| address.rsplit('/').next().unwrap().to_owned();
    assert!(before != after && secret(&before) == secret(&after), "{before} {after}");
    assert_eq!(asked(Method::POST, &after).await, StatusCode::NO_CONTENT);
    assert!(exited(&mut second.child).await.success());
}

#[tokio::test]
async fn lines_for_people_tell_the_address_and_a_run_without_a_webhook_listens_to_nobody() {
    let folder = folder();
    let output = folder.path().join("output");
    let mut command = Command::new(OTTO);
    command.arg("run").current_dir(folder.path()).stdin(Stdio::null()).stdout(fs::File::create(&output).unwrap());
    let mut child = command.spawn().unwrap();
    let said = async || {
        let text = fs::read_to_string(&output).unwrap();
        text.split_once("call it with POST ").and_then(|(_, rest)| Some(rest.split_once('\n')?.0.to_owned()))
    };
    let address = wait_for(TEST_DEADLINE, "the address of the webhook", said).await;
    fs::write(folder.path().join("go"), "").unwrap();
    assert_eq!(asked(Method::POST, &address).await, StatusCode::NO_CONTENT);
    assert!(exited(&mut child).await.success());
    let key = folder.path().join(".otto/runs/callback.key");
    assert!(key.exists());
    fs::remove_file(&key).unwrap();
    fs::write(folder.path().join("Ottofile"), "pipeline { steps [ sh 'test -z \"$OTTO_CALLBACK_URL\"' ] }").unwrap();
    assert!(Command::new(OTTO).arg("run").current_dir(folder.path()).status().unwrap().success());
    assert!(!key.exists());
}
