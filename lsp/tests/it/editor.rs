//! A small editor: it says what happens to files, asks, and waits for the answer.

use std::{fs, thread::JoinHandle, time::Duration};

use lsp_server::{Connection, Message, Notification, Request, RequestId};
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long an answer is waited for: far more than it takes on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) struct Editor {
    folder: TempDir,
    connection: Connection,
    server: Option<JoinHandle<()>>,
    asked: i32,
    /// What the server said while an answer was waited for.
    heard: Vec<Notification>,
}

impl Editor {
    /// An editor with a folder of these files, and its server.
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        fs::write(folder.path().join("Ottofile"), "").unwrap();
        let (connection, other) = Connection::memory();
        let server = std::thread::spawn(move || lsp::serve(&other).unwrap());
        let mut editor = Self { folder, connection, server: Some(server), asked: 0, heard: Vec::new() };
        let root = format!("file://{}", editor.folder.path().display());
        let capabilities = editor.ask("initialize", json!({ "capabilities": {}, "rootUri": root }));
        assert_eq!(capabilities["capabilities"]["hoverProvider"], json!(true));
        editor.say("initialized", json!({}));
        editor
    }

    pub(crate) fn uri(&self, file: &str) -> String {
        format!("file://{}/{file}", self.folder.path().display())
    }

    pub(crate) fn open(&mut self, file: &str, text: &str) {
        let uri = self.uri(file);
        self.say("textDocument/didOpen", json!({ "textDocument": { "uri": uri, "languageId": "otto", "version": 1, "text": text } }));
    }

    pub(crate) fn change(&mut self, file: &str, version: i32, text: &str) {
        let uri = self.uri(file);
        self.say(
            "textDocument/didChange",
            json!({ "textDocument": { "uri": uri, "version": version }, "contentChanges": [{ "text": text }] }),
        );
    }

    /// The next diagnostics of a file.
    pub(crate) fn published(&mut self, file: &str) -> Value {
        let uri = self.uri(file);
        loop {
            let notification = if self.heard.is_empty() {
                match self.connection.receiver.recv_timeout(PATIENCE).unwrap() {
                    Message::Notification(notification) => notification,
                    other @ (Message::Request(_) | Message::Response(_)) => panic!("{other:?}"),
                }
            } else {
                self.heard.remove(0)
            };
            if notification.method == "textDocument/publishDiagnostics" && notification.params["uri"] == json!(uri) {
                return notification.params;
            }
        }
    }

    /// Code and range of the next diagnostics of a file.
    pub(crate) fn diagnostics(&mut self, file: &str) -> Vec<(String, String)> {
        let published = self.published(file);
        let of = |found: &Value| {
            let place = |end: &str| format!("{}:{}", found["range"][end]["line"], found["range"][end]["character"]);
            (found["code"].as_str().unwrap().to_owned(), format!("{}-{}", place("start"), place("end")))
        };
        published["diagnostics"].as_array().unwrap().iter().map(of).collect()
    }

    /// Asks about the first place of a word in a line.
    pub(crate) fn at(&mut self, method: &str, file: &str, source: &str, line: usize, word: &str) -> Value {
        let column = source.lines().nth(line).unwrap().find(word).unwrap();
        let uri = self.uri(file);
        self.ask(method, json!({ "textDocument": { "uri": uri }, "position": { "line": line, "character": column } }))
    }

    /// What could stand at `|`.
    pub(crate) fn complete(&mut self, file: &str, source: &str) -> Vec<String> {
        let (before, _) = source.split_once('|').unwrap();
        let (line, character) = (before.matches('\n').count(), before.rsplit('\n').next().unwrap().len());
        let uri = self.uri(file);
        let items = self.ask(
            "textDocument/completion",
            json!({ "textDocument": { "uri": uri }, "position": { "line": line, "character": character } }),
        );
        items.as_array().unwrap().iter().map(|item| item["label"].as_str().unwrap().to_owned()).collect()
    }

    pub(crate) fn ask(&mut self, method: &str, params: Value) -> Value {
        self.answer(method, params).unwrap_or_else(|code| panic!("{method}: {code}"))
    }

    /// The code with which a question is refused.
    pub(crate) fn fails(&mut self, method: &str, params: Value) -> i32 {
        self.answer(method, params).unwrap_err()
    }

    fn answer(&mut self, method: &str, params: Value) -> Result<Value, i32> {
        self.asked += 1;
        let id = RequestId::from(self.asked);
        self.connection.sender.send(Message::Request(Request { id: id.clone(), method: method.to_owned(), params })).unwrap();
        loop {
            match self.connection.receiver.recv_timeout(PATIENCE).unwrap() {
                Message::Response(response) if response.id == id => return response.response_result.map_err(|error| error.code),
                Message::Notification(notification) => self.heard.push(notification),
                other @ (Message::Request(_) | Message::Response(_)) => panic!("{other:?}"),
            }
        }
    }

    fn say(&mut self, method: &str, params: Value) {
        self.connection.sender.send(Message::Notification(Notification { method: method.to_owned(), params })).unwrap();
    }
}

impl Drop for Editor {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _null = self.ask("shutdown", Value::Null);
            self.say("exit", Value::Null);
            self.server.take().unwrap().join().unwrap();
        }
    }
}
