//! What is different between two plans, in words: stages, then what stands beside them.
//!
//! Stages are compared by their paths; one that has gone while another with the same content has come has moved. Everything of a stage is
//! compared by the lines that the tree would show of it, so that whatever can be told can be compared.

use std::collections::{BTreeMap, BTreeSet};

use model::{
    StageId,
    plan::{Plan, PlanDocument, Stage},
};

use super::{
    Paths, credentials,
    facts::{Detail, Fact, LABEL_WIDTH, facts, notified},
    paths, summary,
    text::{Ink, Paper, counted, printable},
};

/// Tells what is different in `second`, as text that ends with a line break. `colour` adds ANSI escapes.
pub fn diff(first: &PlanDocument, second: &PlanDocument, colour: bool) -> String {
    let mut paper = Paper::new(colour);
    if first.digest() == second.digest() {
        paper.line(0, "no difference in meaning");
        paper.line(0, &format!("plan {}", first.digest()));
        return paper.into_text();
    }
    let stages = Stages::of(first.plan(), second.plan());
    stages.write(&mut paper);
    let count = stages.count();
    let beside = beside(&mut paper, first.plan(), second.plan());
    if count == 0 && !beside {
        // Digests are over all the bytes, and a line cannot show, say, blanks at the end of a text.
        paper.line(0, "a difference that has no words; compare the plans themselves");
    }
    paper.line(0, &format!("plan {} → {}", first.digest(), second.digest()));
    paper.into_text()
}

/// The stages of two plans, held against each other.
struct Stages<'a> {
    paths: [Paths<'a>; 2],
    /// What happened to those of the second plan, in its order.
    kept: Vec<(&'a Stage, Fate<'a>)>,
    removed: Vec<&'a Stage>,
}

enum Fate<'a> {
    /// It has come.
    Added,
    /// It has come where another with the same content has gone.
    Moved(&'a Stage),
    /// It was there; whether it stands after other stages than before, though no edge says so.
    Kept { before: &'a Stage, displaced: bool },
}

impl<'a> Stages<'a> {
    fn of(first: &'a Plan, second: &'a Plan) -> Self {
        let paths = [paths(first), paths(second)];
        let before: BTreeMap<&StageId, &Stage> = first.stages.iter().map(|stage| (&stage.id, stage)).collect();
        let after: BTreeSet<&StageId> = second.stages.iter().map(|stage| &stage.id).collect();
        let displaced = displaced(first, second);
        let mut gone: BTreeMap<Vec<Fact>, Vec<&Stage>> = BTreeMap::new();
        for stage in first.stages.iter().rev().filter(|stage| !after.contains(&stage.id)) {
            gone.entry(content(stage, &paths[0])).or_default().push(stage);
        }
        let fate = |stage: &'a Stage| match before.get(&stage.id) {
            Some(before) => Fate::Kept { before, displaced: displaced.contains(&stage.id) },
            None => gone.get_mut(&content(stage, &paths[1])).and_then(Vec::pop).map_or(Fate::Added, Fate::Moved),
        };
        let kept: Vec<_> = second.stages.iter().map(fate).zip(&second.stages).map(|(fate, stage)| (stage, fate)).collect();
        let remaining: BTreeSet<&StageId> = gone.values().flatten().map(|stage| &stage.id).collect();
        let removed = first.stages.iter().filter(|stage| remaining.contains(&stage.id)).collect();
        Self { paths, kept, removed }
    }

    /// How many of them are not as they were.
    fn count(&self) -> usize {
        let differs = |(stage, fate): &&(&Stage, Fate<'_>)| match fate {
            Fate::Added | Fate::Moved(_) => true,
            Fate::Kept { before, displaced } => *displaced || stage != before,
        };
        self.removed.len() + self.kept.iter().filter(differs).count()
    }

    fn write(&self, paper: &mut Paper) {
        for stage in &self.removed {
            let line = paper.ink(Ink::Removed, &format!("- {} is gone", printable(&stage.path)));
            paper.line(0, &line);
            self.credentials(paper, stage, Ink::Removed);
        }
        for (stage, fate) in &self.kept {
            match fate {
                Fate::Added => self.added(paper, stage),
                Fate::Moved(before) => {
                    let line = format!("~ {} was {}, and does the same", printable(&stage.path), printable(&before.path));
                    paper.line(0, &line);
                    self.changed(paper, before, stage);
                }
                Fate::Kept { before, displaced } => {
                    if stage == before && !displaced {
                        continue;
                    }
                    let name = paper.ink(Ink::Name, &printable(&stage.path));
                    let displaced = if *displaced { "  stands elsewhere in the plan" } else { "" };
                    paper.line(0, &format!("~ {name}{displaced}"));
                    if stage != before && !self.changed(paper, before, stage) {
                        paper.line(1, "differs in what a line cannot show, such as blanks at the end of a text");
                    }
                }
            }
        }
        if self.count() > 0 {
            let count = |of: fn(&Fate<'_>) -> bool| self.kept.iter().filter(|(_, fate)| of(fate)).count();
            let (added, moved) = (count(|fate| matches!(fate, Fate::Added)), count(|fate| matches!(fate, Fate::Moved(_))));
            let changed = self.count() - self.removed.len() - added - moved;
            let line = format!(
                "{}: {added} added, {} removed, {moved} moved, {changed} changed",
                counted(self.count(), "stage"),
                self.removed.len()
            );
            paper.line(0, &line);
        }
    }

    /// A new stage is told as a whole: nobody has read it before.
    fn added(&self, paper: &mut Paper, stage: &Stage) {
        let line = paper.ink(Ink::Added, &format!("+ {} is new", printable(&stage.path)));
        paper.line(0, &line);
        for fact in facts(stage, &self.paths[1], Detail::All) {
            lines(paper, &fact, '+', Ink::Added);
        }
    }

    /// What a stage that has gone could take is worth a line.
    fn credentials(&self, paper: &mut Paper, stage: &Stage, ink: Ink) {
        for fact in facts(stage, &self.paths[0], Detail::Short).iter().filter(|fact| fact.label == "credentials") {
            lines(paper, fact, '-', ink);
        }
    }

    /// Writes the facts that are not the same; whether there are any.
    fn changed(&self, paper: &mut Paper, before: &Stage, after: &Stage) -> bool {
        let before = facts(before, &self.paths[0], Detail::All);
        let after = facts(after, &self.paths[1], Detail::All);
        let find = |facts: &[Fact], label: &str| facts.iter().find(|fact| fact.label == label).cloned();
        let mut labels: Vec<&str> = before.iter().map(|fact| fact.label).collect();
        labels.extend(after.iter().map(|fact| fact.label).filter(|label| find(&before, label).is_none()));
        let mut any = false;
        for label in labels {
            any |= changed_fact(paper, find(&before, label), find(&after, label));
        }
        any
    }
}

/// Writes the lines of two facts that are not in both, in their order; whether there are any.
fn changed_fact(paper: &mut Paper, before: Option<Fact>, after: Option<Fact>) -> bool {
    let (Some(label), false) = (before.as_ref().or(after.as_ref()).map(|fact| fact.label), before == after) else { return false };
    let (before, after) = (before.map_or_else(Vec::new, |fact| fact.lines), after.map_or_else(Vec::new, |fact| fact.lines));
    // What both begin and end with is the same; what is between is told as a whole, which keeps scripts readable.
    let start = before.iter().zip(&after).take_while(|(left, right)| left == right).count();
    let end = before[start..].iter().rev().zip(after[start..].iter().rev()).take_while(|(left, right)| left == right).count();
    let between = |lines: &[String]| Fact { label, lines: lines[start..lines.len() - end].to_vec() };
    lines(paper, &between(&before), '-', Ink::Removed);
    lines(paper, &between(&after), '+', Ink::Added);
    true
}

fn lines(paper: &mut Paper, fact: &Fact, sign: char, ink: Ink) {
    for (place, line) in fact.lines.iter().enumerate() {
        let label = if place == 0 { fact.label } else { "" };
        let line = paper.ink(ink, &format!("{sign} {label:<LABEL_WIDTH$} {line}"));
        paper.line(1, &line);
    }
}

/// What a stage is, apart from its name and its place.
fn content(stage: &Stage, paths: &Paths<'_>) -> Vec<Fact> {
    facts(stage, paths, Detail::All).into_iter().filter(|fact| fact.label != "after").collect()
}

/// The stages that both plans have, and that stand in the second in another order: all but a longest chain of those that do not.
fn displaced<'a>(first: &Plan, second: &'a Plan) -> BTreeSet<&'a StageId> {
    let places: BTreeMap<&StageId, usize> = first.stages.iter().enumerate().map(|(place, stage)| (&stage.id, place)).collect();
    let common: Vec<(&StageId, usize)> =
        second.stages.iter().filter_map(|stage| places.get(&stage.id).map(|place| (&stage.id, *place))).collect();
    // Longest increasing subsequence by patience sorting: the last card of each pile, and the card below each card.
    let mut piles: Vec<usize> = Vec::new();
    let mut below: Vec<Option<usize>> = Vec::with_capacity(common.len());
    for (card, (_, place)) in common.iter().enumerate() {
        let pile = piles.partition_point(|top| common[*top].1 < *place);
        below.push(pile.checked_sub(1).map(|left| piles[left]));
        if pile == piles.len() {
            piles.push(card);
        } else {
            piles[pile] = card;
        }
    }
    let stays: BTreeSet<usize> = std::iter::successors(piles.last().copied(), |card| below[*card]).collect();
    common.iter().enumerate().filter(|(card, _)| !stays.contains(card)).map(|(_, (id, _))| *id).collect()
}

/// Writes what stands beside the stages and is not the same; whether there is anything.
fn beside(paper: &mut Paper, first: &Plan, second: &Plan) -> bool {
    let mut any = false;
    for (before, after) in facts_beside(first).into_iter().zip(facts_beside(second)) {
        if before != after {
            if !any {
                paper.line(0, "~ of the whole");
            }
            any |= changed_fact(paper, Some(before), Some(after));
        }
    }
    any
}

/// Credentials first: what they are changes more than any other line.
fn facts_beside(plan: &Plan) -> Vec<Fact> {
    let Plan { schema, stages: _, libraries, newer, credentials, configuration: _, notify } = plan;
    let credentials = credentials.iter().map(|(name, one)| format!("{}: {}", printable(name), credentials::place(one)));
    let libraries = libraries.iter().map(|(name, digest)| format!("{} {digest}", printable(name)));
    let mut facts = vec![
        Fact { label: "credentials", lines: credentials.collect() },
        Fact { label: "libraries", lines: libraries.collect() },
        Fact { label: "configure", lines: summary::configuration(plan) },
        Fact { label: "newer run", lines: newer.iter().copied().map(summary::newer).collect() },
    ];
    facts.extend(notified(notify).map(|(label, lines)| Fact { label, lines }));
    facts.push(Fact { label: "schema", lines: vec![schema.to_string()] });
    facts
}
