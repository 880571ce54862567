//! The head: the file, what happened, what starts a run, and the parameters.

use model::{
    context::{EventKind, PullRequest, TriggerContext},
    planning::{ParameterNote, TriggerRule},
};

use super::{
    Explained,
    text::{Ink, Paper, joined, printable, push, text, value},
};

/// Characters of a commit's id that are shown.
const COMMIT_CHARACTERS: usize = 10;
/// Columns of the labels of the head.
const LABEL_WIDTH: usize = 10;

pub(super) fn write(paper: &mut Paper, explained: &Explained<'_>) {
    let path = paper.ink(Ink::Name, &printable(explained.path));
    let context = explained.context.map_or_else(String::new, |context| format!(": {}", happened(context)));
    paper.line(0, &format!("{path}{context}"));
    let Some(notes) = explained.notes else { return };
    if let Some(why) = &notes.not_triggered {
        paper.labelled(1, ("no run", LABEL_WIDTH), &[printable(why)], Some(Ink::Skip));
    }
    if !notes.triggers.is_empty() {
        let rules: Vec<String> = notes.triggers.iter().map(rule).collect();
        paper.labelled(1, ("starts on", LABEL_WIDTH), &[rules.join("; ")], None);
    }
    let parameters: Vec<String> = notes.parameters.iter().map(|(name, note)| parameter(name, note)).collect();
    paper.labelled(1, ("parameters", LABEL_WIDTH), &parameters, None);
}

fn happened(context: &TriggerContext) -> String {
    let TriggerContext { event, branch, tag, pull_request, commit, cron, .. } = context;
    let mut words = vec![event.as_str().replace('_', " ")];
    if let Some(PullRequest { number, target, source, fork }) = pull_request {
        let number = if *number == 0 { String::new() } else { format!("{number} ") };
        let fork = if *fork { " of a fork" } else { "" };
        push(&mut words[0], format_args!(" {number}from {}{fork} into {}", printable(source), printable(target)));
    }
    if !branch.is_empty() {
        words.push(format!("branch {}", printable(branch)));
    }
    if !tag.is_empty() {
        words.push(format!("tag {}", printable(tag)));
    }
    if !cron.is_empty() {
        words.push(text(cron));
    }
    if !commit.is_empty() {
        words.push(format!("commit {}", printable(&commit.chars().take(COMMIT_CHARACTERS).collect::<String>())));
    }
    words.join(", ")
}

fn rule(rule: &TriggerRule) -> String {
    let TriggerRule { event, branches, tags, paths, cron } = rule;
    let mut words = event.as_str().replace('_', " ");
    let mut patterns = |what: &str, patterns: &[String]| {
        if !patterns.is_empty() {
            push(&mut words, format_args!("{what}{}", joined(patterns.iter().map(|pattern| printable(pattern)))));
        }
    };
    patterns(if *event == EventKind::PullRequest { " into " } else { " of " }, branches);
    patterns(" ", tags);
    patterns(" with changes of ", paths);
    if !cron.is_empty() {
        push(&mut words, format_args!(" {} UTC", text(cron)));
    }
    words
}

fn parameter(name: &str, note: &ParameterNote) -> String {
    let ParameterNote { description, kind, value: known, given, options } = note;
    let whence = if *given { "given" } else { "default" };
    let kind = if options.is_empty() { printable(kind) } else { format!("one of {}", joined(options.iter().map(|one| printable(one)))) };
    let description = if description.is_empty() { String::new() } else { format!(": {}", printable(description)) };
    format!("{} = {} ({whence}; {kind}){description}", printable(name), value(known))
}
