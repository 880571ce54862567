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
