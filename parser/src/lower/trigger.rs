//! `triggers { push { branches = ['main'] paths = ['src/**'] } tag 'v*' cron '0 3 * * *' manual }`: what starts a run, and whether what
//! happened does.
//!
//! What stands there is literal: whoever asks for the triggers knows no parameters. `tag 'v*'` is `tag { tags = ['v*'] }`, and `push 'main'`
//! is `push { branches = ['main'] }`. Every event stands at most once, but `cron`.

use std::collections::BTreeMap;

use model::{context::EventKind, cron::Schedule, diagnostic::Span, planning::TriggerRule};

use super::Lowering;
use crate::{
    Changed,
    diagnostic::{Code, Finding, excerpt, quoted},
    syntax::{Argument, Block, Call, Entry, ItemKind, Name, Tail, Value, ValueKind},
};

/// What starts a run where nothing is said.
const DEFAULT: [EventKind; 3] = [EventKind::Push, EventKind::PullRequest, EventKind::Manual];
const FORM: &str = "write `triggers { push { branches = ['main'] } tag 'v*' pull_request { } cron '0 3 * * *' manual }`";

/// The keys of an event's block.
fn keys(event: EventKind) -> &'static [&'static str] {
    match event {
        EventKind::Push | EventKind::PullRequest | EventKind::MergeQueue => &["branches", "paths"],
        EventKind::Tag => &["tags"],
        EventKind::Cron | EventKind::Manual => &[],
    }
}

impl Lowering<'_, '_> {
    /// Reads the triggers, and whether the event of the context is one, into the notes.
    pub(super) fn triggers(&mut self, entry: Option<&Entry>) {
        let rules = match entry {
            Some(entry) => match self.block(entry) {
                Some(block) => self.trigger_rules(block),
                None => return,
            },
            None => DEFAULT.map(rule).to_vec(),
        };
        self.notes.not_triggered = self.not_triggered(&rules, entry.is_some());
        self.notes.triggers = rules;
    }

    fn trigger_rules(&mut self, block: &Block) -> Vec<TriggerRule> {
        let mut rules: Vec<TriggerRule> = Vec::new();
        let mut seen: BTreeMap<EventKind, Span> = BTreeMap::new();
        for item in &block.kind {
            let ItemKind::Entry(entry) = &item.kind else {
                self.error(Finding::new(Code::Trigger, item.span, "this is no trigger").help(FORM));
                continue;
            };
            let name = &entry.name;
            let Some(event) = EventKind::ALL.into_iter().find(|event| event.as_str() == name.kind) else {
                let finding = Finding::new(Code::Trigger, name.span, format!("there is no trigger {}", quoted(&name.kind)));
                self.error(finding.help(self.did_you_mean(&name.kind, EventKind::ALL.map(EventKind::as_str))));
                continue;
            };
            if event == EventKind::Cron {
                self.cron(entry, &mut rules);
                continue;
            }
            if let Some(first) = seen.get(&event).copied() {
                let line = self.line(first.start);
                let finding = Finding::new(Code::Doubled, name.span, format!("{} stands twice", quoted(&name.kind))).label("again here");
                self.error(finding.help(format!("it stands in line {line} already: write the patterns of both into one list")));
                continue;
            }
            seen.insert(event, name.span);
            if let Some(rule) = self.trigger_rule(entry, event) {
                rules.push(rule);
            }
        }
        rules
    }

    fn trigger_rule(&mut self, entry: &Entry, event: EventKind) -> Option<TriggerRule> {
        let mut rule = rule(event);
        let keys = keys(event);
        let (arguments, block) = self.trigger_parts(entry)?;
        let mut lists: BTreeMap<&str, (Span, Vec<Name>)> = BTreeMap::new();
        if let (Some(first), Some(last)) = (arguments.first(), arguments.last()) {
            let span = Span { start: first.span.start, end: last.span.end };
            let Some(key) = keys.first() else {
                let finding = Finding::new(Code::Trigger, span, format!("{} takes nothing", quoted(event.as_str())));
                self.error(finding.help(format!("write `{}`", event.as_str())));
                return None;
            };
            let texts: Vec<Option<Vec<Name>>> = arguments.into_iter().map(|value| self.literal_texts(value, "a pattern")).collect();
            let texts = texts.into_iter().collect::<Option<Vec<_>>>()?;
            lists.insert(key, (span, texts.concat()));
        }
        for item in block.iter().flat_map(|block| &block.kind) {
            let ItemKind::Entry(entry) = &item.kind else {
                let finding = Finding::new(Code::Shape, item.span, "a value alone means nothing here");
                self.error(finding.help(format!("write `{} = ['…']`", keys.first().unwrap_or(&"paths"))));
                return None;
            };
            let name = &entry.name;
            let Some(key) = keys.iter().find(|key| **key == name.kind) else {
                let message = format!("{} means nothing in {}", quoted(&name.kind), quoted(event.as_str()));
                let near = self.did_you_mean(&name.kind, keys.iter().copied());
                let help = if near.is_empty() { format!("write `{}`", event.as_str()) } else { near };
                self.error(Finding::new(Code::UnknownName, name.span, message).help(help));
                return None;
            };
            let value = self.value_of(entry)?;
            let texts = self.literal_texts(value, "a pattern")?;
            if let Some((first, _)) = lists.insert(key, (name.span, texts)) {
                self.doubled(&quoted(key), name.span, first);
                return None;
            }
        }
        for (key, (_, names)) in lists {
            let mut patterns = Vec::new();
            for name in &names {
                patterns.push(if key == "paths" { self.path_pattern(name)?.text } else { self.glob(name).map(|_| name.kind.clone())? });
            }
            match key {
                "branches" => rule.branches = patterns,
                "tags" => rule.tags = patterns,
                _ => rule.paths = patterns,
            }
        }
        Some(rule)
    }

    /// The values beside a trigger's name, and its block.
    fn trigger_parts<'t>(&mut self, entry: &'t Entry) -> Option<(Vec<&'t Value>, Option<&'t Block>)> {
        match &entry.tail {
            Tail::Assign(Value { kind: ValueKind::Block(block), .. }) => Some((Vec::new(), Some(block))),
            Tail::Assign(value) => Some((vec![value], None)),
            Tail::Call(Call { arguments, block }) if arguments.iter().all(|argument| argument.keyword.is_none()) => {
                Some((arguments.iter().map(|argument: &Argument| &argument.value).collect(), block.as_ref()))
            }
            Tail::Call(_) | Tail::Arrow(_) => {
                let finding = Finding::new(Code::Trigger, entry.name.span, format!("{} is written otherwise", quoted(&entry.name.kind)));
                self.error(finding.help(FORM));
                None
            }
        }
    }

    /// Texts that stand in the file as they are: a list, or one.
    fn literal_texts(&mut self, value: &Value, what: &str) -> Option<Vec<Name>> {
        let ValueKind::List(items) = &value.kind else { return self.literal_text(value, what).map(|text| vec![text]) };
        if items.is_empty() {
            let finding = Finding::new(Code::Trigger, value.span, "an empty list matches nothing");
            self.error(finding.help("leave it out, and everything matches"));
            return None;
        }
        let texts: Vec<Option<Name>> = items.iter().map(|item| self.literal_text(&item.clone().into_value(), what)).collect();
        texts.into_iter().collect()
    }

    /// `cron '0 3 * * *'`, several lines or several times.
    fn cron(&mut self, entry: &Entry, rules: &mut Vec<TriggerRule>) {
        let Some((values, block)) = self.trigger_parts(entry) else { return };
        if values.is_empty() || block.is_some() {
            let finding = Finding::new(Code::CronLine, entry.name.span, "`cron` takes a line");
            return self.error(finding.help("write `cron '0 3 * * *'`: minute, hour, day, month, day of the week, in UTC"));
        }
        for value in values {
            for line in self.literal_texts(value, "a line of `cron`").unwrap_or_default() {
                let canonical = line.kind.split_whitespace().collect::<Vec<_>>().join(" ");
                if let Err(problem) = canonical.parse::<Schedule>() {
                    let finding =
                        Finding::new(Code::CronLine, line.span, format!("{} is no line of `cron`: {problem}", quoted(&line.kind)));
                    self.error(
                        finding.help("five fields: minute, hour, day of the month, month, day of the week, in UTC: `'0 3 * * 1-5'`"),
                    );
                } else if rules.iter().any(|rule| rule.cron == canonical) {
                    let finding = Finding::new(Code::Doubled, line.span, "this line of `cron` stands twice").label("again here");
                    self.error(finding.help("leave one out"));
                } else {
                    rules.push(TriggerRule { cron: canonical, ..rule(EventKind::Cron) });
                }
            }
        }
    }

    /// Why the event of the context starts no run; `None` if it does, or if what changed has to be asked for.
    fn not_triggered(&mut self, rules: &[TriggerRule], written: bool) -> Option<String> {
        let context = self.input.context;
        let event = context.event.as_str();
        let mut why = None;
        for rule in rules.iter().filter(|rule| rule.event == context.event) {
            why = self.rule_fails(rule);
            why.as_ref()?;
        }
        if why.is_some() {
            return why;
        }
        let mut named: Vec<&str> = rules.iter().map(|rule| rule.event.as_str()).collect();
        named.dedup();
        let named = named.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        Some(match (written, named.as_str()) {
            (true, "") => format!("the event is `{event}`, and `triggers` names none"),
            (true, named) => format!("the event is `{event}`, and `triggers` names {named}"),
            (false, named) => format!("the event is `{event}`, and without `triggers` a run is started by {named}"),
        })
    }

    /// Why a rule of the context's event does not hold.
    fn rule_fails(&mut self, rule: &TriggerRule) -> Option<String> {
        let context = self.input.context;
        if !rule.cron.is_empty() && !context.cron.is_empty() {
            let line = context.cron.split_whitespace().collect::<Vec<_>>().join(" ");
            return (line != rule.cron).then(|| format!("`triggers` has no line '{}' of `cron`", excerpt(&line)));
        }
        let target = context.pull_request.as_ref().map_or("", |request| request.target.as_str());
        let branch = if rule.event == EventKind::PullRequest { target } else { &context.branch };
        for (patterns, what, text) in [(&rule.branches, "branch", branch), (&rule.tags, "tag", &context.tag)] {
            let matches = |pattern: &String| model::glob::Glob::new(pattern).is_ok_and(|glob| glob.matches(text));
            if !patterns.is_empty() && !patterns.iter().any(matches) {
                let patterns = patterns.iter().map(|pattern| excerpt(pattern)).collect::<Vec<_>>().join(", ");
                return Some(format!("the {what} is '{}', and `{}` asks for {patterns}", excerpt(text), rule.event.as_str()));
            }
        }
        if rule.paths.is_empty() {
            return None;
        }
        match self.input.changed {
            None => {
                self.needs.changed = true;
                None
            }
            Some(Changed::Unknown) => None,
            Some(Changed::Paths(paths)) => {
                let patterns: Vec<_> = rule.paths.iter().filter_map(|text| super::glob::PathPattern::new(text.clone()).ok()).collect();
                let any = paths.iter().any(|path| patterns.iter().any(|pattern| pattern.matches(path)));
                (!any).then(|| format!("nothing under {} changed", super::glob::listed(&patterns)))
            }
        }
    }
}

fn rule(event: EventKind) -> TriggerRule {
    TriggerRule { event, branches: Vec::new(), tags: Vec::new(), paths: Vec::new(), cron: String::new() }
}
