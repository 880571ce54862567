//! Who makes what a stage uses: caches, artifacts and variables of the run. Without an order, each use is an edge; in order, the maker
//! must be waited for already.

use std::{collections::BTreeMap, rc::Rc};

use model::{
    diagnostic::Span,
    plan::{CacheUse, NeedReason, StageKind},
};

use super::{Edge, Laid, Wiring};
use crate::{
    diagnostic::{Code, FileId, Finding, quoted},
    lower::mention::{Mention, Mentioned},
    suggest::did_you_mean,
};

/// How often the source is searched at most; after that, there are errors enough.
const SEARCHES_MAX: usize = 64;
/// What stands before the name of a thing where it is used.
const USED_AFTER: [&str; 3] = ["use", "vars.", "unarchive"];

/// What is made by one stage and used by another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Thing {
    Cache,
    Artifact,
    Variable,
}

impl Thing {
    /// The thing in a message.
    fn named(self, name: &str) -> String {
        match self {
            Self::Cache => format!("the cache {}", quoted(name)),
            Self::Artifact => format!("the artifact {}", quoted(name)),
            Self::Variable => format!("the variable {}", quoted(&format!("vars.{name}"))),
        }
    }

    fn reason(self, name: &str) -> NeedReason {
        match self {
            Self::Cache => NeedReason::Cache(name.to_owned()),
            Self::Artifact => NeedReason::Artifact(name.to_owned()),
            Self::Variable => NeedReason::Variable(name.to_owned()),
        }
    }

    /// How it is made.
    fn made(self, name: &str) -> String {
        match self {
            Self::Cache => format!("a stage makes it with `cache {{ {name} = ['…'] }}`"),
            Self::Artifact => format!("a stage makes it with `archive '{name}'`"),
            Self::Variable => format!("a step captures it with `into: '{name}'`, or a `prompt` asks for it"),
        }
    }
}

/// The stages that make each thing, in the order in which they are written.
#[derive(Debug, Default)]
pub(super) struct Makers {
    made: BTreeMap<Thing, BTreeMap<String, Vec<usize>>>,
    /// The stages that end the life of each variable.
    dropped: BTreeMap<String, Vec<usize>>,
    /// What is dropped and nowhere made, with the first place.
    unknown: BTreeMap<String, (FileId, Span)>,
}

/// One use of one thing.
struct Use {
    thing: Thing,
    name: String,
    file: FileId,
    span: Span,
}

impl Makers {
    pub(super) fn of(laid: &[Laid]) -> Self {
        let mut makers = Self::default();
        // No stage waits for a rollback, so it makes nothing for others.
        for (place, laid) in laid.iter().enumerate().filter(|(_, laid)| laid.stage.kind != StageKind::Rollback) {
            for name in laid.stage.caches.keys() {
                makers.add(Thing::Cache, name, place);
            }
            // Of a variable, what the stage does last: what it drops itself, no other stage has.
            let mut dropped: BTreeMap<&str, bool> = BTreeMap::new();
            for mention in laid.mentions.iter().flat_map(|mentions| mentions.iter()) {
                match mention.kind {
                    Mentioned::VariableMade => drop(dropped.insert(&mention.name, false)),
                    Mentioned::VariableDropped => {
                        if dropped.insert(&mention.name, true).is_none() {
                            makers.unknown.entry(mention.name.clone()).or_insert((mention.file, mention.span));
                        }
                    }
                    Mentioned::ArtifactMade => makers.add(Thing::Artifact, &mention.name, place),
                    Mentioned::VariableUsed | Mentioned::ArtifactUsed | Mentioned::CredentialUsed => {}
                }
            }
            for (name, dropped) in dropped {
                if dropped {
                    makers.dropped.entry(name.to_owned()).or_default().push(place);
                } else {
                    makers.add(Thing::Variable, name, place);
                }
            }
        }
        let made = makers.made.get(&Thing::Variable);
        makers.unknown.retain(|name, _| made.is_none_or(|made| !made.contains_key(name)));
        makers
    }

    /// The stages that drop what is used.
    fn droppers(&self, used: &Use) -> &[usize] {
        let dropped = if used.thing == Thing::Variable { self.dropped.get(&used.name) } else { None };
        dropped.map(Vec::as_slice).unwrap_or_default()
    }

    fn add(&mut self, thing: Thing, name: &str, stage: usize) {
        let makers = self.made.entry(thing).or_default().entry(name.to_owned()).or_default();
        if makers.last() != Some(&stage) {
            makers.push(stage);
        }
    }

    fn get(&self, thing: Thing, name: &str) -> &[usize] {
        self.made.get(&thing).and_then(|makers| makers.get(name)).map(Vec::as_slice).unwrap_or_default()
    }

    fn names(&self, thing: Thing) -> impl Iterator<Item = &str> + Clone {
        self.made.get(&thing).into_iter().flat_map(|makers| makers.keys()).map(String::as_str)
    }
}

/// What the stage uses, each thing once.
fn uses(laid: &Laid) -> Vec<Use> {
    let mut uses: BTreeMap<(Thing, &str), (FileId, Span)> = BTreeMap::new();
    if let Some((file, names)) = &laid.cache {
        for name in names {
            uses.entry((Thing::Cache, &name.kind)).or_insert((*file, name.span));
        }
    }
    for Mention { kind, name, file, span } in laid.mentions.iter().flat_map(|mentions| mentions.iter()) {
        let thing = match kind {
            Mentioned::VariableUsed => Thing::Variable,
            Mentioned::ArtifactUsed => Thing::Artifact,
            Mentioned::VariableMade | Mentioned::VariableDropped | Mentioned::ArtifactMade | Mentioned::CredentialUsed => continue,
        };
        uses.entry((thing, name)).or_insert((*file, *span));
    }
    uses.into_iter().map(|((thing, name), (file, span))| Use { thing, name: name.to_owned(), file, span }).collect()
}

impl Wiring<'_, '_, '_> {
    /// The edges to what stages name: in order, to what their `needs` name; without one, for every reason of their own.
    pub(super) fn named(&mut self, makers: &Makers) -> Option<()> {
        let mut environments: BTreeMap<String, usize> = BTreeMap::new();
        for stage in 0..self.laid.len() {
            self.needed(stage)?;
            if !self.auto {
                continue;
            }
            self.copied(stage)?;
            let laid = &self.laid[stage].stage;
            let deployment = laid.deployment.as_ref().filter(|_| laid.kind == StageKind::Work);
            if let Some(environment) = deployment.map(|deployment| deployment.environment.clone())
                && let Some(first) = environments.insert(environment.clone(), stage)
            {
                self.edge(stage, first, NeedReason::Environment(environment), None)?;
            }
            for used in uses(&self.laid[stage]) {
                for first in self.makers_of(stage, &used, makers) {
                    self.edge(stage, first, used.thing.reason(&used.name), Some((used.file, used.span)))?;
                }
            }
        }
        Some(())
    }

    pub(super) fn edge(&mut self, stage: usize, first: usize, reason: NeedReason, place: Option<(FileId, Span)>) -> Option<()> {
        let (file, span) = place.unwrap_or((self.laid[stage].file, self.laid[stage].span));
        self.counted_edges(1, file, span)?;
        self.laid[stage].edges.push(Edge { first, reason, place });
        Some(())
    }

    /// The stages that make what a stage uses, where nothing is in order: the nearest ones. What is wrong is told.
    fn makers_of(&mut self, stage: usize, used: &Use, makers: &Makers) -> Vec<usize> {
        let all = makers.get(used.thing, &used.name);
        if all.iter().all(|maker| *maker == stage) {
            self.nothing_makes(used, all, makers);
            return Vec::new();
        }
        if used.thing == Thing::Artifact {
            return all.iter().copied().filter(|maker| *maker != stage).collect();
        }
        let nearest = self.nearest_in_order(stage, all);
        if let [maker] = nearest.as_slice() {
            self.takes_cache(stage, *maker, used);
            return nearest;
        }
        self.several_make(used, &nearest);
        Vec::new()
    }

    fn takes_cache(&mut self, stage: usize, maker: usize, used: &Use) {
        if used.thing == Thing::Cache {
            let from = self.laid[maker].stage.id.clone();
            self.laid[stage].stage.uses.push(CacheUse { cache: used.name.clone(), from });
        }
    }

    /// In order: what each stage uses must be made by one that it waits for.
    pub(super) fn used(&mut self, makers: &Makers, order: &[usize]) {
        for (name, (file, span)) in &makers.unknown {
            let used = Use { thing: Thing::Variable, name: name.clone(), file: *file, span: *span };
            self.nothing_makes(&used, &[], makers);
        }
        if self.auto {
            return;
        }
        let users: Vec<(usize, Vec<Use>)> =
            order.iter().map(|stage| (*stage, uses(&self.laid[*stage]))).filter(|(_, uses)| !uses.is_empty()).collect();
        if users.is_empty() {
            return;
        }
        let mut before = Ancestors::of(&self.laid, order);
        for (stage, uses) in users {
            for used in uses {
                self.used_in_order(stage, &used, makers, &mut before);
            }
        }
    }

    fn used_in_order(&mut self, stage: usize, used: &Use, makers: &Makers, before: &mut Ancestors) {
        let all = makers.get(used.thing, &used.name);
        let Some(last) = before.last_of(stage, (used.thing, &used.name), all) else {
            let own = used.thing == Thing::Artifact && all.contains(&stage);
            match all.iter().find(|maker| **maker != stage) {
                _ if own => {}
                Some(maker) => self.not_waited_for(stage, used, *maker),
                None => self.nothing_makes(used, all, makers),
            }
            return;
        };
        let dropped = |dropper: &&usize| before.has(stage, **dropper) && before.has(**dropper, last);
        if let Some(dropper) = makers.droppers(used).iter().find(dropped) {
            return self.dropped_before(used, *dropper);
        }
        if used.thing != Thing::Artifact && before.has_beside(stage, last, (used.thing, &used.name), all) {
            let is_beside = |maker: &usize| *maker != last && before.has(stage, *maker) && !before.has(last, *maker);
            let at_once: Vec<usize> = all.iter().copied().filter(is_beside).collect();
            return self.several_make(used, &[&at_once[..], &[last]].concat());
        }
        self.takes_cache(stage, last, used);
    }

    fn not_waited_for(&mut self, stage: usize, used: &Use, maker: usize) {
        let maker = &self.laid[maker].stage.path;
        let what = used.thing.named(&used.name);
        let path = &self.laid[stage].stage.path;
        let message = format!("{} uses {what} of {}, but does not wait for it", quoted(path), quoted(maker));
        let help = format!("write this stage after {0}, or `needs = ['{1}']`", quoted(maker), crate::diagnostic::excerpt(maker));
        self.lowering.error_in(used.file, Finding::new(Code::NotWaitedFor, used.span, message).help(help));
    }

    fn dropped_before(&mut self, used: &Use, dropper: usize) {
        let message = format!("{} has ended: {} drops it", used.thing.named(&used.name), quoted(&self.laid[dropper].stage.path));
        let help = "leave out its `drop`, or drop it in the last stage that needs it";
        self.lowering.error_in(used.file, Finding::new(Code::NothingMakes, used.span, message).help(help));
    }

    fn nothing_makes(&mut self, used: &Use, makers: &[usize], known: &Makers) {
        let was_made = makers.is_empty() && !known.unknown.contains_key(&used.name);
        if let (true, Some(dropper)) = (was_made, known.droppers(used).first()) {
            return self.dropped_before(used, *dropper);
        }
        let finding = if makers.is_empty() {
            if !self.sound && self.may_be_made(used) {
                return;
            }
            let near = if self.lowering.findings.is_full() { String::new() } else { did_you_mean(&used.name, known.names(used.thing)) };
            let message = format!("no stage makes {}", used.thing.named(&used.name));
            let help = format!("{near}\n{}", used.thing.made(&crate::diagnostic::excerpt(&used.name)));
            Finding::new(Code::NothingMakes, used.span, message).help(help.trim_start())
        } else if used.thing == Thing::Artifact {
            return;
        } else {
            let message = format!("{} is made by this stage itself", used.thing.named(&used.name));
            let help = match used.thing {
                Thing::Variable => format!("later steps of the stage have it in their environment: `$VAR_{}`", used.name.to_uppercase()),
                Thing::Cache | Thing::Artifact => "what a stage makes, it has: leave the `use` out".to_owned(),
            };
            Finding::new(Code::NotWaitedFor, used.span, message).help(help)
        };
        self.lowering.error_in(used.file, finding);
    }

    /// Whether the source names the thing where it does not use it: then what makes it may be what is wrong.
    fn may_be_made(&mut self, used: &Use) -> bool {
        self.searches += 1;
        if self.searches > SEARCHES_MAX {
            return true;
        }
        let text = str::from_utf8(self.lowering.input.source).unwrap_or_default();
        let is_name = |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '-');
        text.match_indices(used.name.as_str()).any(|(place, name)| {
            let before = text.get(..place).unwrap_or_default();
            let after = text.get(place + name.len()..).unwrap_or_default();
            let whole = !before.ends_with(is_name) && !after.starts_with(is_name);
            let word = before.trim_end_matches(['\'', '"']).trim_end();
            whole && !USED_AFTER.iter().any(|used| word.ends_with(used))
        })
    }

    fn several_make(&mut self, used: &Use, makers: &[usize]) {
        let mut paths: Vec<String> = makers.iter().take(4).map(|maker| quoted(&self.laid[*maker].stage.path)).collect();
        if makers.len() > paths.len() {
            paths.push("…".to_owned());
        }
        let message = format!("{} stages make {}, and none of them last", makers.len(), used.thing.named(&used.name));
        let help = format!("it is made by {}: give each a name of its own, or let one wait for the other", paths.join(", "));
        self.lowering.error_in(used.file, Finding::new(Code::SeveralMake, used.span, message).help(help));
    }

    /// What the steps at the end of the whole use must be made by some stage.
    pub(super) fn notified(&mut self, makers: &Makers, mentions: &[Mention]) {
        for Mention { kind, name, file, span } in mentions {
            let thing = match kind {
                Mentioned::VariableUsed => Thing::Variable,
                Mentioned::ArtifactUsed => Thing::Artifact,
                Mentioned::VariableMade | Mentioned::VariableDropped | Mentioned::ArtifactMade | Mentioned::CredentialUsed => continue,
            };
            if makers.get(thing, name).is_empty() {
                let used = Use { thing, name: name.clone(), file: *file, span: *span };
                self.nothing_makes(&used, &[], makers);
            }
        }
    }
}

/// Makers of one thing that are looked at one by one; of more, the bits are.
const FEW_MAKERS: usize = 64;

/// For each stage, all that it waits for, directly or through others: a bit for each, by its place in the order. At the limits of stages and
/// edges these are 3 MB and eight million words of work.
struct Ancestors {
    words: usize,
    bits: Vec<u64>,
    /// Where each stage stands in the order, and the stages in this order.
    position: Vec<usize>,
    order: Vec<usize>,
    /// The bits of those that make something, where they are many.
    makers: BTreeMap<(Thing, String), Rc<[u64]>>,
}

impl Ancestors {
    fn of(laid: &[Laid], order: &[usize]) -> Self {
        let words = laid.len().div_ceil(64);
        let mut position = vec![0; laid.len()];
        for (place, stage) in order.iter().enumerate() {
            position[*stage] = place;
        }
        let bits = vec![0; words * laid.len()];
        let mut ancestors = Self { words, bits, position, order: order.to_vec(), makers: BTreeMap::new() };
        for stage in order {
            for edge in &laid[*stage].edges {
                for word in 0..words {
                    let first = ancestors.bits[edge.first * words + word];
                    ancestors.bits[*stage * words + word] |= first;
                }
                let place = ancestors.position[edge.first];
                ancestors.bits[*stage * words + place / 64] |= 1 << (place % 64);
            }
        }
        ancestors
    }

    /// Whether `stage` waits for `first`.
    fn has(&self, stage: usize, first: usize) -> bool {
        let place = self.position[first];
        self.bits[stage * self.words + place / 64] >> (place % 64) & 1 == 1
    }

    /// The bits of the stages that `stage` waits for.
    fn row(&self, stage: usize) -> &[u64] {
        &self.bits[stage * self.words..(stage + 1) * self.words]
    }

    fn bits_of(&mut self, thing: (Thing, &str), makers: &[usize]) -> Rc<[u64]> {
        let key = (thing.0, thing.1.to_owned());
        if let Some(bits) = self.makers.get(&key) {
            return Rc::clone(bits);
        }
        let mut bits = vec![0; self.words];
        for place in makers.iter().map(|maker| self.position[*maker]) {
            bits[place / 64] |= 1_u64 << (place % 64);
        }
        let bits: Rc<[u64]> = bits.into();
        self.makers.insert(key, Rc::clone(&bits));
        bits
    }

    /// The last one in the order of those makers for which `stage` waits.
    fn last_of(&mut self, stage: usize, thing: (Thing, &str), makers: &[usize]) -> Option<usize> {
        if makers.len() <= FEW_MAKERS {
            return makers.iter().copied().filter(|maker| self.has(stage, *maker)).max_by_key(|maker| self.position[*maker]);
        }
        let bits = self.bits_of(thing, makers);
        let waited = self.row(stage).iter().zip(bits.iter()).map(|(waited, maker)| waited & maker);
        let (word, waited) = waited.enumerate().rfind(|(_, waited)| *waited != 0)?;
        self.order.get(word * 64 + 63 - waited.leading_zeros() as usize).copied()
    }

    /// Whether `stage` waits for a maker besides `last` for which that one does not wait.
    fn has_beside(&mut self, stage: usize, last: usize, thing: (Thing, &str), makers: &[usize]) -> bool {
        if makers.len() <= FEW_MAKERS {
            return makers.iter().any(|maker| *maker != last && self.has(stage, *maker) && !self.has(last, *maker));
        }
        let bits = self.bits_of(thing, makers);
        let place = self.position[last];
        let own = |word: usize| if word == place / 64 { 1_u64 << (place % 64) } else { 0 };
        let rows = self.row(stage).iter().zip(self.row(last)).zip(bits.iter()).enumerate();
        rows.into_iter().any(|(word, ((waited, before), maker))| waited & maker & !before & !own(word) != 0)
    }
}
