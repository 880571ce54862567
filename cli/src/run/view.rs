//! How a run is shown: as a tree on a terminal, as plain lines in a pipe, or as one JSON object a line.

use std::io::{self, Write};

use apispec::{ChunkView, EndView, EventView, GapView};
use model::{RunId, StageId, event::run::WaitKey, plan::Plan};
use serde::Serialize;

use super::tree::{Prompt, TreeView};
use crate::command::{Terminal, follow::Follow, text::printable};

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A tree that is drawn again and again.
    Tree,
    /// A line for each line of output.
    Plain,
    /// A JSON object a line.
    Json,
}

/// A line of `--json`. The form is that of the HTTP API's streams, whose names stand before each message.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Message<'a> {
    /// The first line: which run this is.
    Run(&'a RunId),
    /// An event of its log.
    Event(&'a EventView),
    /// Output of a stage.
    Chunk(&'a ChunkView),
    /// Output that is missing.
    Gap(&'a GapView),
    /// Where a webhook that the run waits for is called.
    Callback(&'a Callback<'a>),
    /// The last line of a run that has ended.
    End(EndView),
}

/// The address at which a webhook is called, while this process is there.
#[derive(Debug, Serialize)]
pub(super) struct Callback<'a> {
    pub(super) stage: &'a StageId,
    /// The stage's path.
    pub(super) path: &'a str,
    /// Which of its waits.
    pub(super) wait: WaitKey,
    /// To be called with POST, once.
    pub(super) url: &'a str,
}

/// Shows a run.
pub(super) enum View {
    Tree(TreeView<io::BufWriter<io::StdoutLock<'static>>>),
    Plain(Follow<io::BufWriter<io::StdoutLock<'static>>>),
    Json(io::BufWriter<io::StdoutLock<'static>>),
}

impl View {
    pub(super) fn new(form: Form, terminal: Terminal, run: &RunId, plan: &Plan) -> io::Result<Self> {
        let Terminal { out, colour, .. } = terminal;
        Ok(match form {
            Form::Tree => Self::Tree(TreeView::new(out, colour, run, plan)),
            Form::Plain => {
                let mut follow = Follow::new(out, colour).knowing_warnings();
                follow.know(plan.stages.iter().map(|stage| (stage.id.clone(), stage.path.clone())));
                follow.say(run.as_str())?;
                Self::Plain(follow)
            }
            Form::Json => {
                let mut out = out;
                message(&mut out, &Message::Run(run))?;
                Self::Json(out)
            }
        })
    }

    pub(super) fn event(&mut self, event: &EventView) -> io::Result<()> {
        match self {
            Self::Tree(tree) => {
                tree.event(event);
                Ok(())
            }
            Self::Plain(follow) => follow.event_view(event),
            Self::Json(out) => message(out, &Message::Event(event)),
        }
    }

    pub(super) fn output(&mut self, chunk: &ChunkView) -> io::Result<()> {
        match self {
            Self::Tree(tree) => {
                tree.output(chunk);
                Ok(())
            }
            Self::Plain(follow) => follow.output(chunk),
            Self::Json(out) => message(out, &Message::Chunk(chunk)),
        }
    }

    pub(super) fn gap(&mut self, gap: &GapView) -> io::Result<()> {
        match self {
            Self::Tree(tree) => {
                tree.gap(gap);
                Ok(())
            }
            Self::Plain(follow) => follow.gap(gap),
            Self::Json(out) => message(out, &Message::Gap(gap)),
        }
    }

    /// Says where a webhook is called.
    pub(super) fn callback(&mut self, callback: &Callback<'_>) -> io::Result<()> {
        let Callback { stage, path, url, .. } = callback;
        match self {
            Self::Tree(tree) => {
                tree.say(&format!("{} waits for a call: POST {url}", printable(path, false)));
                Ok(())
            }
            Self::Plain(follow) => follow.called_at(stage, url),
            Self::Json(out) => message(out, &Message::Callback(callback)),
        }
    }

    /// Says something of this process's own: it is no data.
    pub(super) fn say(&mut self, what: &str) -> io::Result<()> {
        match self {
            Self::Tree(tree) => {
                tree.say(what);
                Ok(())
            }
            Self::Plain(_) | Self::Json(_) => writeln!(io::stderr(), "{what}"),
        }
    }

    /// Whether it is to be drawn again and again.
    pub(super) fn is_drawn(&self) -> bool {
        matches!(self, Self::Tree(_))
    }

    pub(super) fn draw(&mut self, prompt: Option<&Prompt>) -> io::Result<()> {
        match self {
            Self::Tree(tree) => tree.draw(prompt),
            Self::Plain(_) | Self::Json(_) => Ok(()),
        }
    }

    /// Ends it; without an end, the run has not ended.
    pub(super) fn finish(&mut self, end: Option<EndView>) -> io::Result<()> {
        match self {
            Self::Tree(tree) if end.is_some() => tree.finish(),
            Self::Tree(tree) => tree.leave(),
            Self::Plain(follow) => follow.finish(),
            Self::Json(out) => match end {
                Some(end) => message(out, &Message::End(end)),
                None => out.flush(),
            },
        }
    }
}

fn message(out: &mut impl Write, message: &Message<'_>) -> io::Result<()> {
    serde_json::to_writer(&mut *out, message)?;
    out.write_all(b"\n")?;
    out.flush()
}
