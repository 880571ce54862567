//! Stages that are named: in `needs`, and where a block is copied `from` one.

use model::plan::NeedReason;

use super::{Edge, Reference, Wiring};
use crate::{
    diagnostic::{Code, Finding, quoted},
    suggest::did_you_mean,
};

/// Stages that a message names at most.
const CANDIDATES_MAX: usize = 6;

impl Wiring<'_, '_, '_> {
    /// The edges to what the stage's `needs` name.
    pub(super) fn needed(&mut self, stage: usize) -> Option<()> {
        for reference in std::mem::take(&mut self.laid[stage].needs) {
            let Some(targets) = self.target(&reference) else { continue };
            let place = Some((reference.file, reference.name.span));
            self.counted_edges(targets.len(), reference.file, reference.name.span)?;
            let edges = targets.into_iter().map(|first| Edge { first, reason: NeedReason::Needs, place });
            self.laid[stage].edges.extend(edges);
        }
        Some(())
    }

    /// The edges to the stages whose blocks this one copies, the nearest where `each` or blueprints make several of one.
    pub(super) fn copied(&mut self, stage: usize) -> Option<()> {
        for (file, from) in std::mem::take(&mut self.laid[stage].from) {
            let all = self.groups.declared(file, from.declared);
            let targets = self.nearest(stage, all.iter().copied().filter(|first| *first != stage).collect());
            let place = Some((file, from.stage.span));
            for first in targets {
                self.edge(stage, first, NeedReason::From(from.block.to_owned()), place)?;
            }
        }
        Some(())
    }

    /// Those that share most of the groups, branches and blueprints around a stage with it.
    pub(super) fn nearest(&self, stage: usize, others: Vec<usize>) -> Vec<usize> {
        let here = &self.laid[stage].within;
        let shared = |other: &usize| self.laid[*other].within.iter().zip(here.iter()).take_while(|(one, other)| one == other).count();
        let nearest = others.iter().map(shared).max().unwrap_or(0);
        others.into_iter().filter(|other| shared(other) == nearest).collect()
    }

    /// [`Wiring::nearest`] of stages that stand in the order in which they are written: then those that share something with this one stand
    /// side by side, and this one among them. Where no mistake is shown any more, two of them at most.
    pub(super) fn nearest_in_order(&self, stage: usize, others: &[usize]) -> Vec<usize> {
        let here = &self.laid[stage].within;
        let shared = |other: usize| self.laid[other].within.iter().zip(here.iter()).take_while(|(one, other)| one == other).count();
        let place = others.partition_point(|other| *other < stage);
        let (before, after) = others.split_at(place);
        let after = after.strip_prefix(&[stage]).unwrap_or(after);
        let nearest = before.last().into_iter().chain(after.first()).map(|other| shared(*other)).max().unwrap_or(0);
        let count = if self.lowering.findings.is_full() { 1 } else { usize::MAX };
        let is_near = |other: &&usize| shared(**other) == nearest;
        let mut all: Vec<usize> = before.iter().rev().take_while(is_near).take(count).copied().collect();
        all.reverse();
        all.extend(after.iter().take_while(is_near).take(count));
        all
    }

    /// What a name means, from the group in which it is written outwards; else a last name that only one path has.
    fn found(&self, reference: &Reference) -> Result<Vec<usize>, Vec<String>> {
        let name = &reference.name.kind;
        let mut prefix: &str = &reference.prefix;
        loop {
            if let Some(ends) = self.groups.at(&format!("{prefix}{name}")) {
                return Ok(ends.to_vec());
            }
            if prefix.is_empty() {
                break;
            }
            let outer = prefix.trim_end_matches('/').rsplit_once('/').map_or(0, |(outer, _)| outer.len() + 1);
            prefix = prefix.get(..outer).unwrap_or_default();
        }
        match self.groups.named(name) {
            [] => {}
            [path] => return Ok(self.groups.at(path).unwrap_or_default().to_vec()),
            several => return Err(several.to_vec()),
        }
        let branches = self.groups.combinations(name);
        let group = |path: &String| path.rsplit_once('/').map(|(group, _)| group.to_owned());
        if branches.iter().any(|path| group(path) != branches.first().and_then(group)) {
            return Err(branches.to_vec());
        }
        let ends: Vec<usize> = branches.iter().filter_map(|path| self.groups.at(path)).flatten().copied().collect();
        if branches.is_empty() { Err(Vec::new()) } else { Ok(ends) }
    }

    fn target(&mut self, reference: &Reference) -> Option<Vec<usize>> {
        let name = &reference.name.kind;
        let candidates = match self.found(reference) {
            Ok(targets) => return Some(targets),
            Err(candidates) => candidates,
        };
        let finding = if candidates.is_empty() {
            let message = format!("there is no stage {}", quoted(name));
            let help = if self.lowering.findings.is_full() { String::new() } else { did_you_mean(name, self.groups.all()) };
            Finding::new(Code::UnknownStage, reference.name.span, message).help(help)
        } else {
            let shown: Vec<String> = candidates.iter().take(CANDIDATES_MAX).map(|path| quoted(path)).collect();
            let more = candidates.len().saturating_sub(shown.len());
            let more = if more > 0 { format!(", and {more} more") } else { String::new() };
            let message = format!("{} stages are named {}", candidates.len(), quoted(name));
            let finding = Finding::new(Code::UnknownStage, reference.name.span, message);
            finding.help(format!("write the path of the one that is meant: {}{more}", shown.join(", ")))
        };
        self.refuse(reference.file, finding)
    }
}
