//! What waits between stages: `confirm`, `prompt`, `wait`, `pause`; and what undoes: `rollback`.

use std::collections::BTreeMap;

use model::{diagnostic::Span, plan::Wait};

use super::{
    Lowering,
    declare::{Content, Spelled, Stage},
    mention::Mentioned,
    word::Place,
};
use crate::{
    diagnostic::{Code, Finding, quoted},
    limits::WAIT_MS_MIN,
    suggest::did_you_mean,
    syntax::{Block, Call, Entry, ItemKind, Name, Tail, Value},
};

const CONFIRM: &str = "write `confirm 'Ship it?' { by = ['ops'] timeout = 2d }`";
const PROMPT: &str = "write `prompt msg: 'Which colour?', into: 'colour'`";
const WAIT: &str = "write `wait { time = 10m }`, `wait { webhook { description = '…' } }` or `wait { poll { url = '…' } }`";
/// What a `prompt` takes.
const PROMPT_KEYS: [&str; 5] = ["msg", "into", "options", "by", "timeout"];
/// What a `wait` waits for.
const WAIT_WORDS: [&str; 3] = ["webhook", "poll", "time"];

/// The entry without the `name` in its block, and that name.
fn apart(entry: &Entry) -> (Entry, Vec<Entry>) {
    let mut entry = entry.clone();
    let mut names = Vec::new();
    if let Tail::Call(Call { block: Some(block), .. }) = &mut entry.tail {
        block.kind.retain(|item| match &item.kind {
            ItemKind::Entry(inner) if inner.name.kind == "name" => {
                names.push(inner.clone());
                false
            }
            ItemKind::Entry(_) | ItemKind::Value(_) | ItemKind::Condition(_) => true,
        });
    }
    (entry, names)
}

impl Lowering<'_, '_> {
    /// A stage that waits.
    pub(super) fn waiting(&mut self, verb: &'static str, entry: &Entry) -> Option<Stage> {
        let outer = std::mem::take(&mut self.mentions);
        let (bare, names) = apart(entry);
        let wait = match verb {
            "confirm" => self.confirm(&bare),
            "prompt" => self.prompt(&bare),
            "wait" => self.wait(&bare),
            _ => self.pause(&bare),
        };
        let mentions = std::mem::replace(&mut self.mentions, outer);
        let spelled = self.name_among(&names);
        let span = spelled.as_ref().map_or(entry.name.span, |spelled| spelled.name.span);
        let label = self.label(spelled, verb);
        let stage = self.unnamed(verb, span, Content::Wait(wait?));
        self.counted(entry.name.span).then_some(Stage { label, mentions, ..stage })
    }

    fn name_among(&mut self, names: &[Entry]) -> Option<Spelled> {
        let first = names.first()?;
        if let Some(second) = names.get(1) {
            self.doubled("`name`", second.name.span, first.name.span);
        }
        let value = self.value_of(first)?;
        self.name_given(value)
    }

    fn confirm(&mut self, entry: &Entry) -> Option<Wait> {
        if matches!(&entry.tail, Tail::Call(Call { arguments, .. }) if !arguments.is_empty()) {
            return self.input(entry);
        }
        self.error(Finding::new(Code::Shape, entry.name.span, "`confirm` takes a question in quotes").help(CONFIRM));
        None
    }

    /// `prompt msg: '…', into: 'colour'`.
    fn prompt(&mut self, entry: &Entry) -> Option<Wait> {
        let Tail::Call(Call { arguments, block }) = &entry.tail else {
            self.error(Finding::new(Code::Shape, entry.name.span, "`prompt` takes a question and a variable").help(PROMPT));
            return None;
        };
        let mut given: BTreeMap<&'static str, &Value> = BTreeMap::new();
        let mut sound = true;
        for (place, argument) in arguments.iter().enumerate() {
            let name = argument.keyword.clone();
            let name = name.unwrap_or_else(|| Name { kind: PROMPT_KEYS.get(place).unwrap_or(&"").to_string(), span: argument.value.span });
            sound &= self.prompt_key(&name, &argument.value, &mut given);
        }
        for item in block.iter().flat_map(|block| &block.kind) {
            let ItemKind::Entry(inner) = &item.kind else {
                self.error(Finding::new(Code::Shape, item.span, "a value alone means nothing in `prompt`").help(PROMPT));
                sound = false;
                continue;
            };
            sound &= self.value_of(inner).is_some_and(|value| self.prompt_key(&inner.name, value, &mut given));
        }
        for key in ["msg", "into"].into_iter().filter(|key| sound && !given.contains_key(key)) {
            self.error(Finding::new(Code::MissingArgument, entry.name.span, format!("`prompt` needs `{key}`")).help(PROMPT));
        }
        let message = given.get("msg").map(|value| self.line_or_variable(value, "the question"));
        let into = given.get("into").map(|value| self.answer_variable(value));
        let options = given.get("options").map_or_else(|| Some(Vec::new()), |value| self.answers(value))?;
        let by = given.get("by").map_or_else(|| Some(Vec::new()), |value| self.answerers(value))?;
        let timeout_ms = match given.get("timeout") {
            Some(value) => Some(self.duration_within(value, "a timeout", WAIT_MS_MIN)?),
            None => None,
        };
        sound.then_some(())?;
        Some(Wait::Prompt { message: message??, into: into??, options, by, timeout_ms })
    }

    fn prompt_key<'t>(&mut self, name: &Name, value: &'t Value, given: &mut BTreeMap<&'static str, &'t Value>) -> bool {
        let written = if name.kind == "message" { "msg" } else { name.kind.as_str() };
        let Some(key) = PROMPT_KEYS.into_iter().find(|key| *key == written) else {
            let message = if written.is_empty() { "too many values".to_owned() } else { format!("`prompt` takes no {}", quoted(written)) };
            let help = format!("{}\n{PROMPT}", did_you_mean(written, PROMPT_KEYS));
            self.error(Finding::new(Code::UnknownKeyword, name.span, message).help(help.trim_start()));
            return false;
        };
        if let Some(first) = given.insert(key, value) {
            self.doubled(&quoted(key), name.span, first.span);
            return false;
        }
        true
    }

    /// The variable that holds the answer.
    fn answer_variable(&mut self, value: &Value) -> Option<String> {
        let name = self.literal_text(value, "the variable of an answer")?;
        let mut characters = name.kind.chars();
        let begins = characters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_');
        if !begins || !characters.all(|character| character.is_ascii_alphanumeric() || character == '_') {
            let message = format!("{} cannot be the name of a variable", quoted(&name.kind));
            self.error(Finding::new(Code::VariableName, name.span, message).help("use letters, digits and `_`, beginning with no digit"));
            return None;
        }
        self.mention(Mentioned::VariableMade, &name.kind, name.span);
        Some(name.kind)
    }

    fn answers(&mut self, value: &Value) -> Option<Vec<String>> {
        let options: Vec<String> = self.texts(value, "an answer to choose from")?.into_iter().map(|name| name.kind).collect();
        if options.is_empty() {
            return self.wrong_value(value, "there is nothing to choose from", "leave `options` out if any text may be the answer");
        }
        Some(options)
    }

    /// `wait { … }` for one thing.
    fn wait(&mut self, entry: &Entry) -> Option<Wait> {
        let block = match &entry.tail {
            Tail::Call(Call { arguments, block: Some(block) }) if arguments.is_empty() => block,
            Tail::Assign(_) | Tail::Arrow(_) | Tail::Call(_) => {
                self.error(Finding::new(Code::Shape, entry.name.span, "`wait` takes a block and nothing else").help(WAIT));
                return None;
            }
        };
        let inner = self.waited_for(block)?;
        if inner.is_none() && !self.is_left_out(block) {
            self.error(Finding::new(Code::Shape, entry.name.span, "nothing says what `wait` waits for").help(WAIT));
        }
        let inner = inner?;
        match inner.name.kind.as_str() {
            "webhook" => self.webhook(inner),
            "poll" => self.poll(inner),
            _ => {
                let value = self.value_of(inner)?;
                let ms = self.duration_within(value, "a time", 1)?;
                Some(Wait::Time { ms })
            }
        }
    }

    /// The one thing in the block of a `wait`; `None` if something is wrong, `Some(None)` if it is empty.
    #[expect(clippy::option_option, reason = "what is wrong is told, and what is missing is not")]
    fn waited_for<'t>(&mut self, block: &'t Block) -> Option<Option<&'t Entry>> {
        let mut found: Option<&Entry> = None;
        let mut sound = true;
        for item in &block.kind {
            match &item.kind {
                ItemKind::Entry(inner) if WAIT_WORDS.contains(&inner.name.kind.as_str()) => {
                    if found.is_some() {
                        let finding = Finding::new(Code::Doubled, inner.name.span, "one `wait` waits for one thing").label("a second one");
                        self.error(finding.help("write another `wait { … }` for it"));
                        sound = false;
                    }
                    found = found.or(Some(inner));
                }
                ItemKind::Entry(Entry { name, .. }) => {
                    let message = format!("{} means nothing in `wait`", quoted(&name.kind));
                    let help = did_you_mean(&name.kind, WAIT_WORDS.into_iter().chain(["name"]));
                    self.error(Finding::new(Code::UnknownName, name.span, message).help(help));
                    sound = false;
                }
                ItemKind::Value(_) | ItemKind::Condition(_) => {
                    self.error(Finding::new(Code::Shape, item.span, "a value alone means nothing in `wait`").help(WAIT));
                    sound = false;
                }
            }
        }
        sound.then_some(found)
    }

    fn pause(&mut self, entry: &Entry) -> Option<Wait> {
        match &entry.tail {
            Tail::Call(Call { arguments, block }) if arguments.is_empty() && block.as_ref().is_none_or(|block| block.kind.is_empty()) => {
                Some(Wait::Pause)
            }
            Tail::Assign(_) | Tail::Arrow(_) | Tail::Call(_) => {
                let finding = Finding::new(Code::Shape, entry.name.span, "`pause` takes nothing but a name");
                self.error(finding.help("write `pause`, or `pause { name = '…' }`; to wait for a time, write `wait { time = 10m }`"));
                None
            }
        }
    }

    /// `rollback { … }`: a stage that undoes what stands before it.
    pub(super) fn rollback(&mut self, entry: &Entry) -> Option<Stage> {
        let block = self.block(entry)?;
        let outer = std::mem::take(&mut self.mentions);
        let mut body = self.body(&block.kind, Place::Rollback);
        let stage = self.rollback_of(&mut body, entry.name.span, self.is_left_out(block));
        let mentions = std::mem::replace(&mut self.mentions, outer);
        let stage = stage?;
        let spelled = body.name.take();
        let span = spelled.as_ref().map_or(entry.name.span, |spelled| spelled.name.span);
        let label = self.label(spelled, "rollback");
        self.counted(span).then_some(Stage { label, span, mentions, settings: body.settings, ..stage })
    }

    fn rollback_of(&mut self, body: &mut super::declare::Body<'_>, span: Span, left_out: bool) -> Option<Stage> {
        let mut steps = body.children.iter().map(|child| child.entry);
        let Some(first) = steps.next() else {
            if !left_out {
                let finding = Finding::new(Code::NoSteps, span, "there is no step in `rollback`");
                self.error(finding.help("write `rollback { steps { sh './undo.sh' } }`"));
            }
            return None;
        };
        if let Some(second) = steps.next() {
            self.doubled("`steps`", second.name.span, first.name.span);
        }
        let steps = self.steps_of(first);
        Some(self.unnamed("rollback", span, Content::Rollback(steps)))
    }
}
