//! `from 'Build'` in `runtime`, `cache`, `gates`, `when` and `env`: what stands there in that stage of the same file stands here, too.
//!
//! The blocks are found in the syntax tree, by the path of their stage as the file has it, and read where they are copied to: `it` is that of
//! the stage that copies. Copying follows `from` in what is copied, at most [`INCLUDE_DEPTH_MAX`] stages far.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use model::diagnostic::Span;

use super::{From, Lowering};
use crate::{
    diagnostic::{Code, Finding, excerpt, quoted},
    limits::{INCLUDE_DEPTH_MAX, STAGES_MAX},
    suggest::did_you_mean,
    syntax::{Block, Call, Entry, Item, ItemKind, Name, Tail, Value, ValueKind},
};

/// The blocks that can be copied.
const COPIED: [&str; 5] = ["runtime", "cache", "gates", "when", "env"];
/// Blocks without a name of their own around stages.
const TRANSPARENT: [&str; 8] = ["pipeline", "blueprint", "plan", "stages", "parallel", "fanout", "each", "rollback"];
const FORM: &str = "write `from 'Build'`: the name of a stage of this file, or its path";

/// Whether it is `from '…'`. (`from = '…'` is a setting of that name.)
pub(super) fn is_from(entry: &Entry) -> bool {
    entry.name.kind == "from" && matches!(entry.tail, Tail::Call(_))
}

/// The `Build` of `from Build`, which reads as two entries.
pub(super) fn unquoted<'t>(from: &Entry, next: Option<&'t Item>) -> Option<&'t Name> {
    match (&from.tail, next.map(|item| &item.kind)) {
        (
            Tail::Call(Call { arguments, block: None }),
            Some(ItemKind::Entry(Entry { name, tail: Tail::Call(Call { arguments: none, block: None }) })),
        ) if arguments.is_empty() && none.is_empty() => Some(name),
        _ => None,
    }
}

/// The stages of a file that have a name in it, with those of their blocks that can be copied.
#[derive(Debug, Default)]
pub(in crate::lower) struct Stages {
    all: Vec<Stage>,
    by_path: BTreeMap<u64, Vec<usize>>,
    by_name: BTreeMap<String, Vec<usize>>,
}

#[derive(Debug)]
struct Stage {
    name: String,
    /// Where its word stands.
    declared: Span,
    outer: Option<usize>,
    hash: u64,
    blocks: BTreeMap<&'static str, Rc<Block>>,
}

/// Items that stand in a block: its own, or copied ones.
pub(super) struct Layer<'t> {
    pub(super) items: &'t [Item],
    /// The name of the block: what `when` copies can stand in `gates`.
    pub(super) block: &'static str,
    /// Whether only conditions are copied.
    pub(super) conditions_only: bool,
    /// Whether they stand in another stage.
    pub(super) is_copied: bool,
}

/// A block that is copied.
struct Copied {
    name: &'static str,
    block: Rc<Block>,
    conditions_only: bool,
    from: Span,
    stage: usize,
}

/// On the way from block to block.
struct Walk<'s> {
    stages: &'s Stages,
    /// The blocks on the way here, each with its stage, if it is not the one that begins.
    way: Vec<(Span, Option<usize>)>,
    seen: BTreeSet<(Span, bool)>,
    copied: Vec<Copied>,
    /// What the block that begins copies itself.
    direct: Vec<From>,
}

impl Lowering<'_, '_> {
    /// Reads a block: first what is copied into it, the farthest first, then its own items.
    pub(super) fn with_copies(
        &mut self,
        name: &'static str,
        block: &Block,
        from: &mut Vec<From>,
        mut read: impl FnMut(&mut Self, &Layer<'_>),
    ) {
        let copies = block.kind.iter().any(|item| matches!(&item.kind, ItemKind::Entry(entry) if is_from(entry)));
        if copies && self.expanded(0, block.span) {
            let stages = self.stages_of_file();
            let mut walk =
                Walk { stages: &stages, way: vec![(block.span, None)], seen: BTreeSet::new(), copied: Vec::new(), direct: Vec::new() };
            self.walk(name, block, false, &mut walk);
            let Walk { copied, direct, .. } = walk;
            from.extend(direct);
            for Copied { name, block, conditions_only, from, stage } in copied {
                if !self.expanded(block.span.end - block.span.start, from) {
                    return;
                }
                let before = self.findings.errors();
                read(self, &Layer { items: &block.kind, block: name, conditions_only, is_copied: true });
                if self.findings.errors() > before {
                    let message = format!("what is copied from {} is wrong here", quoted(&stages.path(stage)));
                    let help = format!("it stands in line {}", self.line(block.span.start));
                    self.error(Finding::new(Code::CopiedWrong, from, message).help(help));
                }
            }
        }
        read(self, &Layer { items: &block.kind, block: name, conditions_only: false, is_copied: false });
    }

    /// The stages of the file that is being read; found once.
    fn stages_of_file(&mut self) -> Rc<Stages> {
        if let Some(stages) = self.stage_blocks.get(&self.source.id) {
            return Rc::clone(stages);
        }
        let mut stages = Stages::default();
        stages.collect(&self.source.tree.items, None);
        let stages = Rc::new(stages);
        self.stage_blocks.insert(self.source.id, Rc::clone(&stages));
        stages
    }

    /// Follows what a block copies. It recurses as far as [`INCLUDE_DEPTH_MAX`].
    fn walk(&mut self, name: &'static str, block: &Block, conditions_only: bool, walk: &mut Walk<'_>) {
        let mut first: Option<Span> = None;
        for (place, item) in block.kind.iter().enumerate() {
            let ItemKind::Entry(entry) = &item.kind else { continue };
            if !is_from(entry) {
                continue;
            }
            let span = entry.name.span;
            if let Some(first) = first.replace(span) {
                self.doubled("`from`", span, first);
                continue;
            }
            if let Some(name) = unquoted(entry, block.kind.get(place + 1)) {
                let finding = Finding::new(Code::Shape, name.span, "the name of a stage stands in quotes");
                self.error(finding.help(format!("write `from '{}'`", excerpt(&name.kind))));
                continue;
            }
            let Some((stage, written)) = self.copied_stage(entry, walk.stages) else { continue };
            let names: &[&'static str] = match name {
                // `when` is an older spelling of the conditions of `gates`: what one has, the other copies.
                "when" | "gates" => &["when", "gates"],
                _ => &[name],
            };
            let Stage { blocks, declared, .. } = &walk.stages.all[stage];
            let mut found: Vec<(&'static str, Rc<Block>)> =
                names.iter().filter_map(|name| blocks.get(name).map(|block| (*name, Rc::clone(block)))).collect();
            found.sort_by_key(|(_, block)| block.span);
            if found.is_empty() {
                let message = format!("the stage {} has no `{name}` that could be copied", quoted(&written.kind));
                let help = "only a block that stands in the stage itself is copied, not what it inherits from its group";
                self.error(Finding::new(Code::NothingToCopy, written.span, message).help(help));
                continue;
            }
            if walk.way.len() == 1 {
                walk.direct.push(From {
                    block: name,
                    stage: Name { kind: walk.stages.path(stage), span: written.span },
                    declared: *declared,
                });
            }
            // What they copy comes first, and then both together, as if they were one: so it makes no difference in which the conditions are.
            let conditions_only = conditions_only || name == "when";
            let copied: Vec<Option<Copied>> = found
                .into_iter()
                .map(|(name, block)| self.follow(Copied { name, block, conditions_only, from: written.span, stage }, walk))
                .collect();
            walk.copied.extend(copied.into_iter().flatten());
        }
    }

    /// Follows what a block copies that is copied itself; `None` if it is copied already, or cannot be, which is told.
    fn follow(&mut self, copied: Copied, walk: &mut Walk<'_>) -> Option<Copied> {
        let Copied { name, block, conditions_only, from, stage } = &copied;
        if let Some(place) = walk.way.iter().position(|(span, _)| *span == block.span) {
            let way = walk.way[place..].iter().skip(1).filter_map(|(_, stage)| *stage);
            let circle: Vec<String> =
                [*stage].into_iter().chain(way).chain([*stage]).map(|stage| quoted(&walk.stages.path(stage))).collect();
            let finding = Finding::new(Code::CopyCircle, *from, "this copies itself").label("closes the circle");
            self.error(finding.help(format!("the circle: {}", circle.join(" → "))));
            return None;
        }
        if walk.way.len() > INCLUDE_DEPTH_MAX {
            let message = format!("`from` goes on for more than {INCLUDE_DEPTH_MAX} stages");
            self.error(Finding::new(Code::IncludeTooDeep, *from, message).help("copy from the stage that has it"));
            return None;
        }
        if !walk.seen.insert((block.span, *conditions_only)) {
            return None;
        }
        walk.way.push((block.span, Some(*stage)));
        self.walk(name, block, *conditions_only, walk);
        walk.way.pop();
        Some(copied)
    }

    /// The stage that `from '…'` names.
    fn copied_stage(&mut self, entry: &Entry, stages: &Stages) -> Option<(usize, Name)> {
        let Tail::Call(Call { arguments, block: None }) = &entry.tail else {
            return self.no_from(entry.name.span);
        };
        let [argument] = arguments.as_slice() else { return self.no_from(entry.name.span) };
        let (None, ValueKind::Text(path)) = (&argument.keyword, &argument.value.kind) else { return self.no_from(argument.value.span) };
        let name = Name { kind: path.clone(), span: argument.value.span };
        match stages.find(path).as_slice() {
            [stage] => Some((*stage, name)),
            [] => {
                let message = format!("this file has no stage {}", quoted(path));
                let is_full = self.findings.is_full();
                let near = if is_full { String::new() } else { did_you_mean(path, stages.by_name.keys().map(String::as_str)) };
                let help = if near.is_empty() { FORM.to_owned() } else { near };
                self.error(Finding::new(Code::UnknownStage, name.span, message).help(help));
                None
            }
            [first, second, ..] => {
                let message = format!("more than one stage of this file is named {}", quoted(path));
                let (first, second) = (stages.path(*first), stages.path(*second));
                let help = format!("write the path of the one that is meant, such as '{}' or '{}'", excerpt(&first), excerpt(&second));
                self.error(Finding::new(Code::UnknownStage, name.span, message).help(help));
                None
            }
        }
    }

    fn no_from<T>(&mut self, span: Span) -> Option<T> {
        self.error(Finding::new(Code::Shape, span, "`from` takes the name of a stage in quotes").help(FORM));
        None
    }
}

impl Stages {
    /// Goes through what stands in a file, a block or a list. It recurses as deep as brackets are nested.
    fn collect(&mut self, items: &[Item], outer: Option<usize>) {
        for item in items {
            let ItemKind::Entry(Entry { name, tail: Tail::Call(Call { arguments, block: Some(block) }) }) = &item.kind else { continue };
            if TRANSPARENT.contains(&name.kind.as_str()) {
                self.collect(&block.kind, outer);
            } else if name.kind == "stage" && self.all.len() < STAGES_MAX {
                let written = match arguments.first() {
                    Some(argument) => text(&argument.value),
                    None => block.kind.iter().find_map(name_of),
                };
                let inside = written.map(|written| self.add(written, name.span, block, outer));
                self.collect(&block.kind, inside.or(outer));
            }
        }
    }

    fn add(&mut self, name: &str, declared: Span, block: &Block, outer: Option<usize>) -> usize {
        let mut blocks = BTreeMap::new();
        for item in &block.kind {
            let ItemKind::Entry(Entry { name, tail: Tail::Call(Call { arguments, block: Some(block) }) }) = &item.kind else { continue };
            if let (Some(copied), []) = (COPIED.iter().find(|copied| **copied == name.kind), arguments.as_slice()) {
                blocks.entry(*copied).or_insert_with(|| Rc::new(block.clone()));
            }
        }
        let hash = match outer {
            Some(outer) => hashed(hashed(self.all[outer].hash, "/"), name),
            None => hashed(HASH_START, name),
        };
        let place = self.all.len();
        self.by_path.entry(hash).or_default().push(place);
        self.by_name.entry(name.to_owned()).or_default().push(place);
        self.all.push(Stage { name: name.to_owned(), declared, outer, hash, blocks });
        place
    }

    /// The stages with this path, else those with this name.
    fn find(&self, path: &str) -> Vec<usize> {
        let places = self.by_path.get(&hashed(HASH_START, path)).map(Vec::as_slice).unwrap_or_default();
        let found: Vec<usize> = places.iter().copied().filter(|place| self.path(*place) == path).take(2).collect();
        if found.is_empty() {
            self.by_name.get(path).map(|places| places.iter().copied().take(2).collect()).unwrap_or_default()
        } else {
            found
        }
    }

    fn path(&self, stage: usize) -> String {
        let mut names = vec![self.all[stage].name.as_str()];
        let mut next = self.all[stage].outer;
        while let Some(outer) = next {
            names.push(&self.all[outer].name);
            next = self.all[outer].outer;
        }
        names.reverse();
        names.join("/")
    }
}

/// FNV-1a, which can be taken on: a path's hash is made from that of its group. What has the same hash is compared.
fn hashed(start: u64, text: &str) -> u64 {
    text.bytes().fold(start, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

const HASH_START: u64 = 0xcbf2_9ce4_8422_2325;

fn text(value: &Value) -> Option<&str> {
    if let ValueKind::Text(text) = &value.kind { Some(text) } else { None }
}

/// The text of `name = '…'` or `name '…'`.
fn name_of(item: &Item) -> Option<&str> {
    match &item.kind {
        ItemKind::Entry(Entry { name, tail: Tail::Assign(value) }) if name.kind == "name" => text(value),
        ItemKind::Entry(Entry { name, tail: Tail::Call(call) }) if name.kind == "name" => text(&call.arguments.first()?.value),
        ItemKind::Entry(_) | ItemKind::Value(_) | ItemKind::Condition(_) => None,
    }
}
