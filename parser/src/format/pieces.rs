//! Goes through blocks: which of their items are written where, and which gaps between them may have comments.

use std::collections::BTreeSet;

use model::diagnostic::Span;

use super::{
    place::{Place, has_entry, only_block, only_entry},
    print::Printer,
};
use crate::syntax::{Argument, Block, Call, Item, ItemKind, Value, ValueKind};

/// What a block is made of, in the order in which it is written.
#[derive(Debug, Clone, Copy)]
pub(super) enum Piece<'t> {
    /// Nothing but comments, and what is not written or is written elsewhere.
    Gap(Span),
    /// A line is left blank before what comes next.
    Blank,
    Item(&'t Item),
    /// `when` of a stage without gates, which becomes them.
    When {
        item: &'t Item,
        when: &'t Block,
    },
    /// The gates of a stage, which take in its `when`.
    Gates {
        item: &'t Item,
        gates: &'t Block,
        when: &'t Block,
    },
    /// `enter` of gates, which takes in the conditions of `when`; there may be none yet.
    Enter {
        enter: Option<(&'t Item, &'t Block)>,
        when: &'t Block,
    },
}

impl Printer<'_> {
    /// Whether white space before this place has a blank line.
    pub(super) fn is_after_blank(&self, place: usize) -> bool {
        let before = self.source.get(..place).unwrap_or_default();
        let blanks = before.bytes().rev().take_while(u8::is_ascii_whitespace);
        blanks.filter(|byte| *byte == b'\n').take(2).count() == 2
    }

    /// Goes through what stands within `span`: leaves out wrappers, and what is written elsewhere.
    pub(super) fn collect<'t>(&self, items: &'t [Item], span: Span, place: Place, pieces: &mut Vec<Piece<'t>>) {
        let has_gates = matches!(place, Place::Stage | Place::Undo | Place::Each);
        let moved = if has_gates { moved(items) } else { None };
        let mut at = span.start;
        for item in items {
            pieces.push(Piece::Gap(Span { start: at, end: item.span.start }));
            at = item.span.end;
            if let Some(block) = wrapper(item, place) {
                self.blank(item, pieces);
                let inner = Span { start: item.span.start, end: block.span.end - 1 };
                self.collect(&block.kind, inner, Place::Body, pieces);
                at = inner.end;
                continue;
            }
            match moved {
                Some(Moved { when: (from, block), gates: None }) if std::ptr::eq(from, item) => {
                    pieces.push(Piece::When { item, when: block });
                }
                Some(Moved { when: (from, block), gates: Some(_) }) if std::ptr::eq(from, item) => {
                    self.blank(item, pieces);
                    pieces.push(Piece::Gap(Span { start: item.span.start, end: block.span.start }));
                }
                Some(Moved { when: (_, when), gates: Some((to, gates)) }) if std::ptr::eq(to, item) => {
                    pieces.push(Piece::Gates { item, gates, when });
                }
                _ => pieces.push(Piece::Item(item)),
            }
        }
        pieces.push(Piece::Gap(Span { start: at, end: span.end }));
    }

    pub(super) fn blank(&self, item: &Item, pieces: &mut Vec<Piece<'_>>) {
        if self.is_after_blank(item.span.start) {
            pieces.push(Piece::Blank);
        }
    }
}

/// What of a stage is written at another place.
#[derive(Debug, Clone, Copy)]
struct Moved<'t> {
    when: (&'t Item, &'t Block),
    gates: Option<(&'t Item, &'t Block)>,
}

/// The `when` of a stage, and its gates. `None` where it stays: `from` copies another block for `when` than for `enter`.
fn moved(items: &[Item]) -> Option<Moved<'_>> {
    let (item, entry) = only_entry(items, "when")?;
    let when = only_block(entry).filter(|block| !has_entry(&block.kind, "from"))?;
    if !has_entry(items, "gates") {
        return Some(Moved { when: (item, when), gates: None });
    }
    let (to, entry) = only_entry(items, "gates")?;
    let gates = only_block(entry)?;
    let enters = match only_entry(&gates.kind, "enter") {
        Some((_, enter)) => only_block(enter).is_some(),
        None => !has_entry(&gates.kind, "enter"),
    };
    enters.then_some(Moved { when: (item, when), gates: Some((to, gates)) })
}

/// The block of a `stages` without a meaning of its own.
fn wrapper(item: &Item, place: Place) -> Option<&Block> {
    let ItemKind::Entry(entry) = &item.kind else { return None };
    let is_wrapper = matches!(place, Place::Body | Place::Stage | Place::Undo | Place::Each) && entry.name.kind == "stages";
    if is_wrapper { only_block(entry) } else { None }
}

pub(super) fn inside(block: &Block) -> Span {
    Span { start: block.span.start + 1, end: block.span.end - 1 }
}

/// The steps of `steps { … }` and `steps [ … ]`, if there are any.
pub(super) fn steps_of(call: &Call) -> Option<(&[Item], Span)> {
    let (items, span) = match (call.arguments.as_slice(), &call.block) {
        ([], Some(block)) => (&block.kind, block.span),
        ([Argument { keyword: None, value: Value { kind: ValueKind::List(items), span } }], None) => (items, *span),
        _ => return None,
    };
    (!items.is_empty()).then_some((items.as_slice(), span))
}

/// The names that `vars` declares, the older spelling of `parameters`.
pub(super) fn older_parameters(items: &[Item]) -> BTreeSet<String> {
    let declared = only_entry(items, "vars").and_then(|(_, entry)| only_block(entry));
    let entries = declared.into_iter().flat_map(|block| &block.kind).filter_map(|item| match &item.kind {
        ItemKind::Entry(entry) => Some(entry.name.kind.clone()),
        ItemKind::Value(_) | ItemKind::Condition(_) => None,
    });
    entries.collect()
}
