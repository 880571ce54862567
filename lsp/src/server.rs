//! The server: one thread that answers one message after the other, and looks at changed files when the editor is quiet.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use lsp_server::{Connection, ErrorCode, Message, Notification, Request, Response};
use lsp_types::{
    CodeDescription, CompletionOptions, CompletionResponse, Diagnostic, DiagnosticSeverity, DidChangeTextDocumentParams,
    DidCloseTextDocumentParams, DidOpenTextDocumentParams, DocumentFormattingParams, DocumentSymbolParams, DocumentSymbolResponse,
    GotoDefinitionParams, GotoDefinitionResponse, HoverParams, HoverProviderCapability, InitializeParams, NumberOrString, OneOf,
    PublishDiagnosticsParams, Range, SaveOptions, ServerCapabilities, ServerInfo, TextDocumentSyncCapability, TextDocumentSyncKind,
    TextDocumentSyncOptions, TextDocumentSyncSaveOptions, TextEdit, Uri,
    notification::{
        DidChangeTextDocument, DidCloseTextDocument, DidOpenTextDocument, DidSaveTextDocument, Exit, Notification as _, PublishDiagnostics,
    },
    request::{Completion, DocumentSymbolRequest, Formatting, GotoDefinition, HoverRequest, Request as _, Shutdown},
};
use model::diagnostic::{Diagnostic as Found, Severity};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{
    answer,
    index::Index,
    reference::Facts,
    text::Text,
    workspace::{Open, Workspace},
};

/// How long the editor is quiet before changed files are looked at: a person who types pauses longer, and sees no delay.
const QUIET: Duration = Duration::from_millis(120);
/// How long they wait at most, where it never is.
const PATIENCE: Duration = Duration::from_secs(1);

/// Why the server cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The editor does not speak the protocol, or has gone.
    #[error("the editor broke the protocol")]
    Protocol(#[from] lsp_server::ProtocolError),
    /// The editor's first message does not read.
    #[error("reading what the editor said of itself")]
    Initialize(#[source] serde_json::Error),
    /// The protocol wants that this is told apart from an end in order.
    #[error("the editor ended the server without shutting it down")]
    NoGoodbye,
    /// The pipes broke.
    #[error("speaking with the editor")]
    Pipes(#[source] std::io::Error),
}

/// Serves an editor over standard input and output, until it says goodbye or goes.
pub fn stdio() -> Result<(), Error> {
    let (connection, threads) = Connection::stdio();
    let served = serve(&connection);
    // The writer ends when nobody can write any more.
    drop(connection);
    served?;
    threads.join().map_err(Error::Pipes)
}

/// Serves an editor until it says goodbye or goes.
pub fn serve(connection: &Connection) -> Result<(), Error> {
    let (id, params) = connection.initialize_start()?;
    let params: InitializeParams = serde_json::from_value(params).map_err(Error::Initialize)?;
    let info = ServerInfo { name: "otto".to_owned(), version: None };
    connection.initialize_finish(id, json!({ "capabilities": capabilities(), "serverInfo": info }))?;
    let workspace = Workspace::new(folder(&params).as_ref());
    let mut server = Server { connection, workspace, changed: BTreeSet::new(), since: Instant::now() };
    server.run()
}

fn capabilities() -> ServerCapabilities {
    ServerCapabilities {
        text_document_sync: Some(TextDocumentSyncCapability::Options(TextDocumentSyncOptions {
            open_close: Some(true),
            change: Some(TextDocumentSyncKind::FULL),
            save: Some(TextDocumentSyncSaveOptions::SaveOptions(SaveOptions { include_text: Some(false) })),
            ..TextDocumentSyncOptions::default()
        })),
        hover_provider: Some(HoverProviderCapability::Simple(true)),
        completion_provider: Some(CompletionOptions {
            trigger_characters: Some(vec![".".to_owned(), "'".to_owned(), ">".to_owned()]),
            ..CompletionOptions::default()
        }),
        definition_provider: Some(OneOf::Left(true)),
        document_symbol_provider: Some(OneOf::Left(true)),
        document_formatting_provider: Some(OneOf::Left(true)),
        ..ServerCapabilities::default()
    }
}

#[expect(deprecated, reason = "older editors have no folders, but a root")]
fn folder(params: &InitializeParams) -> Option<Uri> {
    let folders = params.workspace_folders.iter().flatten();
    folders.map(|folder| folder.uri.clone()).next().or_else(|| params.root_uri.clone())
}

struct Server<'c> {
    connection: &'c Connection,
    workspace: Workspace,
    /// Files that were not looked at since they changed.
    changed: BTreeSet<Uri>,
    /// When the first of them did.
    since: Instant,
}

impl Server<'_> {
    fn run(&mut self) -> Result<(), Error> {
        let mut goodbye = false;
        loop {
            let message = if self.changed.is_empty() {
                self.connection.receiver.recv().ok()
            } else {
                let left = PATIENCE.saturating_sub(self.since.elapsed());
                match self.connection.receiver.recv_timeout(QUIET.min(left)) {
                    Ok(message) => Some(message),
                    Err(error) if error.is_timeout() => {
                        self.look();
                        continue;
                    }
                    Err(_) => None,
                }
            };
            match message {
                // The editor has gone without goodbye.
                None => return Ok(()),
                Some(Message::Request(request)) => {
                    let response = if goodbye {
                        Response::new_err(request.id, ErrorCode::InvalidRequest as i32, "the server is shut down".to_owned())
                    } else if request.method == Shutdown::METHOD {
                        goodbye = true;
                        self.changed.clear();
                        Response::new_ok(request.id, ())
                    } else {
                        self.answer(request)
                    };
                    self.send(Message::Response(response));
                }
                Some(Message::Notification(notification)) if notification.method == Exit::METHOD => {
                    return if goodbye { Ok(()) } else { Err(Error::NoGoodbye) };
                }
                Some(Message::Notification(_)) if goodbye => {}
                Some(Message::Notification(notification)) => self.note(notification),
                Some(Message::Response(_)) => {}
            }
        }
    }

    /// Sends what the editor may no longer want to hear: if it has gone, the next message is its end.
    fn send(&self, message: Message) {
        let _gone = self.connection.sender.send(message);
    }

    fn note(&mut self, notification: Notification) {
        match notification.method.as_str() {
            DidOpenTextDocument::METHOD => {
                if let Some(params) = read::<DidOpenTextDocumentParams>(notification.params) {
                    let document = params.text_document;
                    self.changed(document.uri, document.version, document.text);
                }
            }
            DidChangeTextDocument::METHOD => {
                if let Some(mut params) = read::<DidChangeTextDocumentParams>(notification.params) {
                    // Each change is the whole text; the last one counts.
                    if let Some(change) = params.content_changes.pop() {
                        self.changed(params.text_document.uri, params.text_document.version, change.text);
                    }
                }
            }
            // Any open file may name the one that was saved.
            DidSaveTextDocument::METHOD => {
                let open: Vec<Uri> = self.workspace.open.keys().cloned().collect();
                for uri in open {
                    self.mark(uri);
                }
            }
            DidCloseTextDocument::METHOD => {
                if let Some(params) = read::<DidCloseTextDocumentParams>(notification.params) {
                    let uri = params.text_document.uri;
                    self.workspace.open.remove(&uri);
                    self.changed.remove(&uri);
                    self.publish(uri, None, Vec::new());
                }
            }
            _ => {}
        }
    }

    fn changed(&mut self, uri: Uri, version: i32, text: String) {
        self.workspace.open.insert(uri.clone(), Open { version, text: Text::new(text) });
        self.mark(uri);
    }

    fn mark(&mut self, uri: Uri) {
        if self.changed.is_empty() {
            self.since = Instant::now();
        }
        self.changed.insert(uri);
    }

    /// Looks at every file that changed, in the version that it has now.
    fn look(&mut self) {
        for uri in std::mem::take(&mut self.changed) {
            let Some(open) = self.workspace.open.get(&uri) else { continue };
            let found = self.workspace.diagnostics(&uri);
            let diagnostics = found.iter().map(|found| self.diagnostic(&uri, open, found)).collect();
            self.publish(uri.clone(), Some(open.version), diagnostics);
        }
    }

    fn diagnostic(&self, uri: &Uri, open: &Open, found: &Found) -> Diagnostic {
        let is_here = found.file.is_empty() || self.workspace.relative(uri).as_deref() == Some(found.file.as_str());
        let mut message = found.message.clone();
        if !is_here {
            message = format!("{}:{}:{}: {message}", found.file, found.line, found.column);
        }
        for part in [&found.label, &found.help].into_iter().filter(|part| !part.is_empty()) {
            message = format!("{message}\n{part}");
        }
        Diagnostic {
            range: if is_here { open.text.range(found.span) } else { Range::default() },
            severity: Some(match found.severity {
                Severity::Error => DiagnosticSeverity::ERROR,
                Severity::Warning => DiagnosticSeverity::WARNING,
            }),
            code: Some(NumberOrString::String(found.code.clone())),
            code_description: None::<CodeDescription>,
            source: Some("otto".to_owned()),
            message,
            ..Diagnostic::default()
        }
    }

    fn publish(&self, uri: Uri, version: Option<i32>, diagnostics: Vec<Diagnostic>) {
        let params = PublishDiagnosticsParams { uri, diagnostics, version };
        self.send(Message::Notification(Notification::new(PublishDiagnostics::METHOD.to_owned(), params)));
    }

    fn answer(&self, request: Request) -> Response {
        let Request { id, method, params } = request;
        let answered = match method.as_str() {
            HoverRequest::METHOD => self.asked(params, |params: HoverParams, server| {
                let at = params.text_document_position_params;
                let (facts, open) = server.facts(&at.text_document.uri)?;
                answer::hover(&facts, &open.text, at.position)
            }),
            GotoDefinition::METHOD => self.asked(params, |params: GotoDefinitionParams, server| {
                let at = params.text_document_position_params;
                let (facts, open) = server.facts(&at.text_document.uri)?;
                answer::definition(&facts, &open.text, at.position).map(GotoDefinitionResponse::Scalar)
            }),
            Completion::METHOD => self.asked(params, |params: lsp_types::CompletionParams, server| {
                let at = params.text_document_position;
                let (facts, open) = server.facts(&at.text_document.uri)?;
                Some(CompletionResponse::Array(answer::completion(&facts, &open.text, at.position)))
            }),
            DocumentSymbolRequest::METHOD => self.asked(params, |params: DocumentSymbolParams, server| {
                let (facts, open) = server.facts(&params.text_document.uri)?;
                Some(DocumentSymbolResponse::Nested(answer::outline(&facts, &open.text)))
            }),
            Formatting::METHOD => self.asked(params, |params: DocumentFormattingParams, server| {
                let open = server.workspace.open.get(&params.text_document.uri)?;
                let formatted = parser::format(open.text.source()).ok().filter(|formatted| formatted != open.text.source());
                Some(formatted.map(|new_text| TextEdit { range: open.text.whole(), new_text }).into_iter().collect::<Vec<_>>())
            }),
            _ => return Response::new_err(id, ErrorCode::MethodNotFound as i32, format!("there is no {method} here")),
        };
        match answered {
            Ok(value) => Response::new_ok(id, value),
            Err(error) => Response::new_err(id, ErrorCode::InvalidParams as i32, error.to_string()),
        }
    }

    fn asked<P: DeserializeOwned, A: serde::Serialize>(
        &self,
        params: Value,
        answer: impl FnOnce(P, &Self) -> Option<A>,
    ) -> Result<Value, serde_json::Error> {
        serde_json::to_value(answer(serde_json::from_value(params)?, self))
    }

    fn facts(&self, uri: &Uri) -> Option<(Facts<'_>, &Open)> {
        let (uri, open) = self.workspace.open.get_key_value(uri)?;
        let index = Index::of(open.text.source());
        let steps = self.workspace.steps(uri, &index);
        Some((Facts { workspace: &self.workspace, uri, index, steps }, open))
    }
}

/// What an editor said; nothing if it does not read, as there is nobody who could be told.
fn read<P: DeserializeOwned>(params: Value) -> Option<P> {
    serde_json::from_value(params).ok()
}
