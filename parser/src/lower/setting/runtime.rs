//! `runtime { … }`: the image that the steps run in, and what an agent must be able to do.

use std::collections::BTreeMap;

use model::{
    diagnostic::Span,
    plan::{self, Container},
};

use super::{From, Lowering, Runtime, read::Keys};
use crate::{
    diagnostic::{Code, Finding, quoted},
    limits::CORES_MAX,
    suggest::nearest,
    syntax::{Block, Entry, Item, Name, Value, ValueKind},
};

const DOCKER: Keys = Keys { within: "in `docker`", names: &["image"] };
const COMPUTER: Keys = Keys { within: "in `computer`", names: &["label"] };
/// Words of `runtime` that have a meaning of their own; every other name is a fact of agents.
pub(in crate::lower) const KNOWN: [&str; 7] = ["docker", "computer", "arch", "cores", "memory", "docker_run", "from"];
/// Shorter names are near to too many others.
const SLIP_CHARACTERS_MIN: usize = 4;
const FORM: &str = "write `runtime { docker { image = 'ruby:2.6' } }`, or what an agent must have: `runtime { arch = 'amd64' cores = 2 }`";

impl Lowering<'_, '_> {
    /// `runtime { … }`, with what is copied into it.
    pub(super) fn runtime(&mut self, entry: &Entry, from: &mut Vec<From>) -> Option<Runtime> {
        let block = self.block(entry)?;
        let mut runtime = Runtime::default();
        self.with_copies("runtime", block, from, |lowering, layer| lowering.runtime_items(layer.items, &mut runtime));
        Some(runtime)
    }

    fn runtime_items(&mut self, items: &[Item], runtime: &mut Runtime) {
        // A capability that is given again replaces a copied one, whichever way it is written.
        let mut seen: BTreeMap<String, Span> = BTreeMap::new();
        for entry in self.entries(items, "in `runtime`") {
            match entry.name.kind.as_str() {
                "docker" => runtime.container = self.docker(entry).or(runtime.container.take()),
                "computer" => {
                    if let Some(label) = self.computer(entry) {
                        runtime.requires.insert("label".to_owned(), label);
                    }
                }
                name => {
                    self.may_be_a_slip(&entry.name);
                    if let Some(block) = Self::block_of(entry) {
                        self.capabilities_of(name, block, &mut seen, runtime);
                    } else if let Some(value) = self.value_of(entry) {
                        self.capability(name.to_owned(), entry.name.span, value, &mut seen, runtime);
                    }
                }
            }
        }
    }

    /// `python { version = '~> 3.8' }`: `python.version`.
    fn capabilities_of(&mut self, name: &str, block: &Block, seen: &mut BTreeMap<String, Span>, runtime: &mut Runtime) {
        if block.kind.is_empty() && !self.is_left_out(block) {
            let finding = Finding::new(Code::SettingValue, block.span, format!("{} says nothing of what an agent must have", quoted(name)));
            return self.error(finding.help(format!("write `{name} = true` if any will do")));
        }
        for entry in self.entries(&block.kind, "in `runtime`") {
            if Self::block_of(entry).is_some() {
                let finding = Finding::new(Code::Shape, entry.name.span, "what an agent has is named by two names at most");
                self.error(finding.help(format!("write `{name} {{ {} = … }}`", entry.name.kind)));
                continue;
            }
            if let Some(value) = self.value_of(entry) {
                self.capability(format!("{name}.{}", entry.name.kind), entry.name.span, value, seen, runtime);
            }
        }
    }

    fn capability(&mut self, name: String, span: Span, value: &Value, seen: &mut BTreeMap<String, Span>, runtime: &mut Runtime) {
        if let Some(first) = seen.get(&name).copied() {
            return self.doubled(&quoted(&name), span, first);
        }
        seen.insert(name.clone(), span);
        let wanted = match name.as_str() {
            "cores" => self.number_within(value, "`cores`", 1..=CORES_MAX).map(plan::Value::Integer),
            "memory" => self.memory(value),
            "arch" => self.arch(value),
            "docker_run" => self.boolean(value, "`docker_run`").map(plan::Value::Boolean),
            _ => self.wanted_fact(value),
        };
        if let Some(wanted) = wanted {
            runtime.requires.insert(name, wanted);
        }
    }

    /// `memory = 1G` or `'1G'`, in bytes.
    fn memory(&mut self, value: &Value) -> Option<plan::Value> {
        if let ValueKind::Integer(_) = value.kind {
            return self.wrong_value(value, "`memory` needs a unit", "write `memory = 1G` or `memory = '512M'`");
        }
        let bytes = self.size(value, "`memory`")?;
        if bytes == 0 {
            return self.wrong_value(value, "no stage runs in no memory", "write `memory = 1G`");
        }
        i64::try_from(bytes).ok().map(plan::Value::Integer)
    }

    /// `arch = 'amd64'`: in the words that agents have for their own.
    fn arch(&mut self, value: &Value) -> Option<plan::Value> {
        let arch = self.line_or_variable(value, "an architecture")?;
        let word = match arch.as_text() {
            Some("x86_64" | "x64" | "x86-64") => "amd64",
            Some("aarch64" | "arm64v8") => "arm64",
            _ => return Some(arch),
        };
        self.wrong_value(value, "no agent has its architecture under this name", format!("write `arch = '{word}'`"))
    }

    /// A value that an agent's fact is compared with: a text, a number, a boolean, or several of which all must be met.
    fn wanted_fact(&mut self, value: &Value) -> Option<plan::Value> {
        const HELP: &str = "a number asks for at least as much, a text for the same, `true` for any; of a list, all";
        if let ValueKind::Duration(_) = value.kind {
            return self.wrong_value(value, "no agent has a duration", HELP);
        }
        let known = self.known(value)?.value;
        let sound = match &known {
            plan::Value::List(values) if values.is_empty() => return self.wrong_value(value, "an empty list asks for nothing", HELP),
            plan::Value::List(values) => !values.iter().any(|value| matches!(value, plan::Value::List(_) | plan::Value::Steps { .. })),
            plan::Value::Steps { .. } => false,
            plan::Value::Boolean(_)
            | plan::Value::Integer(_)
            | plan::Value::Text(_)
            | plan::Value::Decimal { .. }
            | plan::Value::Variable { .. }
            | plan::Value::Call { .. } => true,
        };
        if sound { Some(known) } else { self.wrong_value(value, "this can be no fact of an agent", HELP) }
    }

    /// `docker { image = 'ruby:2.6' }`.
    fn docker(&mut self, entry: &Entry) -> Option<Container> {
        let Some(block) = Self::block_of(entry) else {
            let finding = Finding::new(Code::Shape, entry.name.span, "`docker` takes a block");
            self.error(finding.help("write `docker { image = 'ruby:2.6' }`"));
            return None;
        };
        let keys = self.keyed(&block.kind, &DOCKER);
        let Some(image) = keys.get("image") else {
            self.missing_key(&entry.name, block, &DOCKER, "image", "write `docker { image = 'ruby:2.6' }`");
            return None;
        };
        self.image(image).map(|image| Container { image })
    }

    /// `image = 'ruby:2.6'`.
    pub(super) fn image(&mut self, entry: &Entry) -> Option<plan::Value> {
        let value = self.value_of(entry)?;
        let image = self.line_or_variable(value, "an image")?;
        if image.as_text().is_some_and(|image| image.contains(char::is_whitespace) || image.starts_with('-')) {
            return self.wrong_value(value, "this is no reference to an image", "write it as `docker pull` takes it: `image = 'ruby:2.6'`");
        }
        Some(image)
    }

    /// `computer { label = 'office' }`.
    fn computer(&mut self, entry: &Entry) -> Option<plan::Value> {
        let Some(block) = Self::block_of(entry) else {
            let finding = Finding::new(Code::Shape, entry.name.span, "`computer` takes a block");
            self.error(finding.help("write `computer { label = 'office' }`"));
            return None;
        };
        let keys = self.keyed(&block.kind, &COMPUTER);
        let Some(label) = keys.get("label") else {
            self.missing_key(&entry.name, block, &COMPUTER, "label", "write `computer { label = 'office' }`");
            return None;
        };
        let value = self.value_of(label)?;
        if !matches!(value.kind, ValueKind::List(_)) {
            return self.line_or_variable(value, "a label");
        }
        let labels = self.lines_of_text(value, "a label")?;
        if labels.is_empty() {
            return self.wrong_value(value, "an empty list asks for nothing", "write `label = 'office'`");
        }
        Some(plan::Value::List(labels.into_iter().map(|label| plan::Value::Text(label.kind)).collect()))
    }

    fn may_be_a_slip(&mut self, name: &Name) {
        if name.kind.len() < SLIP_CHARACTERS_MIN || KNOWN.contains(&name.kind.as_str()) {
            return;
        }
        if let Some(near) = nearest(&name.kind, KNOWN).first() {
            let message = format!("{} asks for an agent that has a fact of this name", quoted(&name.kind));
            let finding = Finding::new(Code::UnusualFact, name.span, message);
            self.error(finding.help(format!("did you mean `{near}`? {FORM}")));
        }
    }
}
