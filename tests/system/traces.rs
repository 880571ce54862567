//! One trace a run: what the endpoint hears and what the steps find are the same.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpListener,
    process::Command,
    thread,
};

use serde_json::Value;

use crate::house::OTTO;

const PIPELINE: &str =
    "pipeline {\n  stage 'Build' { steps [ sh 'echo \"context $TRACEPARENT\"' ] }\n  stage 'Fail' { steps [ echo 'x' error 'no' ] }\n}\n";

/// Answers the posts of one process, which are few, and gives their spans when it has heard of the whole run.
fn listen() -> (String, thread::JoinHandle<Vec<Value>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let heard = thread::spawn(move || {
        let mut spans = Vec::<Value>::new();
        while spans.iter().all(|span| span.get("parentSpanId").is_some()) {
            let mut connection = BufReader::new(listener.accept().unwrap().0);
            while let Some(body) = request(&mut connection) {
                let document: Value = serde_json::from_slice(&body).unwrap();
                spans.extend(document["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().iter().cloned());
                connection.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").unwrap();
            }
        }
        spans
    });
    (endpoint, heard)
}

/// The body of the next request; `None` when the connection is closed.
fn request(connection: &mut BufReader<std::net::TcpStream>) -> Option<Vec<u8>> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if connection.read_line(&mut line).unwrap_or(0) == 0 {
            return None;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            let mut body = vec![0; length];
            connection.read_exact(&mut body).unwrap();
            return Some(body);
        }
    }
}

#[test]
fn a_step_finds_the_trace_of_its_run_and_the_endpoint_hears_of_both() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("Ottofile"), PIPELINE).unwrap();
    let (endpoint, heard) = listen();
    let mut otto = Command::new(OTTO);
    otto.args(["run"]).current_dir(folder.path()).env("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint);
    let output = otto.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let spans = heard.join().unwrap();
    let context = text.lines().find_map(|line| line.split_once("context 00-")).unwrap_or_else(|| panic!("{text}")).1;
    let (trace, rest) = context.split_once('-').unwrap();
    assert!(spans.iter().all(|span| span["traceId"] == trace), "{trace}: {spans:#?}");
    let step = spans.iter().find(|span| span["spanId"] == rest.split('-').next().unwrap()).expect("the step's own span is the parent");
    let stage = spans.iter().find(|span| span["name"] == "stage Build").unwrap();
    assert_eq!((&step["name"], &step["parentSpanId"]), (&"step sh".into(), &stage["spanId"]));
    let failed: Vec<&str> = spans.iter().filter(|span| span["status"]["code"] == 2).map(|span| span["name"].as_str().unwrap()).collect();
    assert!(["step error", "stage Fail"].iter().all(|name| failed.contains(name)) && failed.len() == 3, "{failed:?}");
}

#[test]
fn an_endpoint_that_is_down_changes_nothing_for_a_run() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("Ottofile"), "pipeline { stage 'A' { steps [ echo 'done' ] } }\n").unwrap();
    // Nobody listens there any more.
    let endpoint = format!("http://{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let run = |endpoint: &str| {
        let mut otto = Command::new(OTTO);
        otto.args(["run"]).current_dir(folder.path()).env("OTTO_OTLP_ENDPOINT", endpoint);
        otto.output().unwrap()
    };
    let output = run(&endpoint);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let wrong = run("nowhere");
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("OTTO_OTLP_ENDPOINT=nowhere: it is no http:// or https:// address"));
}
