//! `otto lsp` as an editor starts it: the binary, over pipes.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    process::{Child, ChildStdout, Command, Stdio},
};

use serde_json::{Value, json};

fn say(otto: &mut Child, message: &Value) {
    let text = message.to_string();
    write!(otto.stdin.as_mut().unwrap(), "Content-Length: {}\r\n\r\n{text}", text.len()).unwrap();
}

/// The next message of the server.
fn hear(out: &mut BufReader<ChildStdout>) -> Value {
    let mut length = 0;
    loop {
        let mut line = String::new();
        assert_ne!(out.read_line(&mut line).unwrap(), 0, "it ended");
        match line.trim_end().split_once(": ") {
            Some(("Content-Length", value)) => length = value.parse().unwrap(),
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    out.read_exact(&mut body).unwrap();
    serde_json::from_slice(&body).unwrap()
}

/// A server that has heard who the editor is.
fn start() -> (Child, BufReader<ChildStdout>) {
    let mut otto = Command::new(env!("CARGO_BIN_EXE_otto"));
    let mut otto = otto.arg("lsp").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut out = BufReader::new(otto.stdout.take().unwrap());
    say(&mut otto, &json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": { "capabilities": {} } }));
    hear(&mut out);
    say(&mut otto, &json!({ "jsonrpc": "2.0", "method": "initialized", "params": {} }));
    (otto, out)
}

#[test]
fn an_end_without_goodbye_is_told_by_the_exit_code() {
    let (mut otto, _out) = start();
    say(&mut otto, &json!({ "jsonrpc": "2.0", "method": "exit" }));
    assert_eq!(otto.wait().unwrap().code(), Some(1));
}

#[test]
fn what_is_asked_after_the_goodbye_is_refused_and_harms_nothing() {
    let (mut otto, mut out) = start();
    say(&mut otto, &json!({ "jsonrpc": "2.0", "id": 2, "method": "shutdown" }));
    assert_eq!(hear(&mut out)["result"], Value::Null);
    say(&mut otto, &json!({ "jsonrpc": "2.0", "method": "textDocument/didSave", "params": {} }));
    say(&mut otto, &json!({ "jsonrpc": "2.0", "id": 3, "method": "textDocument/hover", "params": {} }));
    assert_eq!(hear(&mut out)["error"]["code"], json!(-32600));
    say(&mut otto, &json!({ "jsonrpc": "2.0", "method": "exit" }));
    assert!(otto.wait().unwrap().success());
}

#[test]
fn an_editor_starts_it_hears_of_a_mistake_and_ends_it() {
    let folder = tempfile::tempdir().unwrap();
    let root = format!("file://{}", folder.path().display());
    let mut otto = Command::new(env!("CARGO_BIN_EXE_otto"));
    let mut otto = otto.arg("lsp").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(otto.stdout.take().unwrap());

    let params = json!({ "capabilities": {}, "rootUri": root });
    say(&mut otto, &json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params }));
    assert_eq!(hear(&mut out)["result"]["serverInfo"]["name"], json!("otto"));
    say(&mut otto, &json!({ "jsonrpc": "2.0", "method": "initialized", "params": {} }));
    let document =
        json!({ "uri": format!("{root}/Ottofile"), "languageId": "otto", "version": 1, "text": "pipeline { steps [ shh 'x' ] }" });
    say(&mut otto, &json!({ "jsonrpc": "2.0", "method": "textDocument/didOpen", "params": { "textDocument": document } }));
    let published = hear(&mut out);
    assert_eq!(published["method"], json!("textDocument/publishDiagnostics"));
    assert_eq!(published["params"]["diagnostics"][0]["code"], json!("E0401"));

    say(&mut otto, &json!({ "jsonrpc": "2.0", "id": 2, "method": "shutdown" }));
    assert_eq!(hear(&mut out)["id"], json!(2));
    say(&mut otto, &json!({ "jsonrpc": "2.0", "method": "exit" }));
    assert!(otto.wait().unwrap().success());
}
