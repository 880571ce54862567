//! Writes blocks: what stands in them, in which order, and the comments between.

use std::collections::BTreeSet;

use model::diagnostic::Span;

use super::{
    comments::Comments,
    pieces::{Piece, inside, older_parameters, steps_of},
    place::{Place, name_setting, only_argument, only_block, only_entry},
    value::{begins_with_word, ends_with_name},
    writer::Writer,
};
use crate::{
    grammar::Tree,
    syntax::{Block, Call, Entry, Item, ItemKind, Tail, Value, ValueKind},
};

/// The canonical spelling of a syntax tree. It recurses as deep as the brackets are nested, which the scanner has limited.
pub(super) fn print(source: &str, tree: &Tree) -> String {
    let mut printer = Printer { source, comments: Comments::of(source), out: Writer::default(), declared: older_parameters(&tree.items) };
    let mut pieces = Vec::new();
    printer.collect(&tree.items, Span { start: 0, end: source.len() }, Place::File, &mut pieces);
    printer.sequence(&pieces, Place::File, Separator::None, false);
    let mut text = printer.out.finish();
    if !text.is_empty() {
        text.push('\n');
    }
    text
}

/// What stands between the items of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Separator {
    None,
    Comma,
}

pub(super) struct Printer<'a> {
    pub(super) source: &'a str,
    pub(super) comments: Comments,
    pub(super) out: Writer,
    /// What the file's or blueprint's `vars` declares: in it, `vars.x` is the older spelling of `params.x`.
    declared: BTreeSet<String>,
}

impl Printer<'_> {
    pub(super) fn text_of(&self, span: Span) -> &str {
        super::source_of(self.source, span)
    }

    /// Whether a comment that is not written yet begins within.
    pub(super) fn has_comment(&self, span: Span) -> bool {
        self.comments.first(span).is_some()
    }

    /// Writes pieces, each beginning a line. `hugs`: a comment on the line of the opening bracket stays there.
    fn sequence(&mut self, pieces: &[Piece<'_>], place: Place, separator: Separator, hugs: bool) {
        let mut cursor = Cursor { hugs, is_first: true, blank: false };
        for (index, piece) in pieces.iter().enumerate() {
            let start = match piece {
                Piece::Gap(span) => {
                    self.gap(*span, &mut cursor);
                    continue;
                }
                Piece::Blank => {
                    cursor.blank = true;
                    continue;
                }
                Piece::Item(item) | Piece::Gates { item, .. } | Piece::When { item, .. } => Some(item.span),
                Piece::Enter { enter, .. } => enter.map(|(item, _)| item.span),
            };
            self.begin_line(start.map(|span| span.start), &mut cursor);
            let written_at = self.out.place();
            let next = pieces.get(index + 1..).and_then(|rest| rest.iter().find(|piece| !matches!(piece, Piece::Gap(_) | Piece::Blank)));
            self.piece(*piece, next, place);
            self.hoist(start, written_at);
            if separator == Separator::Comma {
                self.out.push(",");
            }
            cursor.hugs = true;
        }
    }

    /// Comments within an item that have no place of their own go before it.
    pub(super) fn hoist(&mut self, within: Option<Span>, written_at: usize) {
        let Some(within) = within.filter(|within| self.has_comment(*within)) else { return };
        let mut lines = Vec::new();
        while let Some(comment) = self.comments.take(within) {
            lines.push(self.comment(comment));
        }
        self.out.insert_lines(written_at, &lines);
    }

    fn begin_line(&mut self, start: Option<usize>, cursor: &mut Cursor) {
        let blank = cursor.blank || start.is_some_and(|start| self.is_after_blank(start));
        if blank && !cursor.is_first {
            self.out.blank();
        }
        self.out.line();
        *cursor = Cursor { hugs: false, is_first: false, blank: false };
    }

    /// The comments of a gap: beside what stands before, or on lines of their own.
    fn gap(&mut self, span: Span, cursor: &mut Cursor) {
        let mut at = span.start;
        while let Some(comment) = self.comments.take(span) {
            let stays = cursor.hugs && !self.text_of(Span { start: at, end: comment.start }).contains('\n');
            if stays {
                self.out.push(" ");
            } else {
                self.begin_line(Some(comment.start), cursor);
            }
            let text = self.comment(comment);
            self.out.push(&text);
            at = comment.end;
        }
        cursor.hugs = cursor.hugs && !self.text_of(Span { start: at, end: span.end }).contains('\n');
    }

    /// A comment as it is written. The stars of `/* … */` are put below each other.
    fn comment(&self, span: Span) -> String {
        let text = self.text_of(span).trim_end();
        let has_stars = text.starts_with("/*") && text.lines().skip(1).all(|line| line.trim_start().starts_with('*'));
        if !has_stars {
            return text.to_owned();
        }
        let (indentation, _) = self.out.indentation();
        text.lines().map(str::trim).collect::<Vec<_>>().join(&format!("\n{indentation} "))
    }

    /// Comments between two places where nothing else is written, each on the line of what stands before if it stands there now.
    /// Gives whether a line was begun after the last of them.
    pub(super) fn between(&mut self, span: Span) {
        let mut cursor = Cursor { hugs: true, is_first: true, blank: false };
        self.gap(span, &mut cursor);
    }

    fn piece(&mut self, piece: Piece<'_>, next: Option<&Piece<'_>>, place: Place) {
        match piece {
            Piece::Gap(_) | Piece::Blank => {}
            Piece::Item(item) => {
                let next = if let Some(Piece::Item(next)) = next { Some(*next) } else { None };
                // A name would take what follows as its argument.
                let splits = place == Place::Conditions && ends_with_name(item) && next.is_some_and(|next| !begins_with_word(next));
                self.out.push(if splits { "(" } else { "" });
                self.item(item, place);
                self.out.push(if splits { ")" } else { "" });
            }
            Piece::When { when, .. } => {
                self.out.push("gates ");
                self.brackets(&[Piece::Enter { enter: None, when }], &[when.span], Place::Gates);
            }
            Piece::Gates { gates, when, .. } => {
                self.out.push("gates ");
                let mut pieces = Vec::new();
                let entered = only_entry(&gates.kind, "enter").and_then(|(item, entry)| Some((item, only_block(entry)?)));
                if entered.is_none() {
                    pieces.push(Piece::Enter { enter: None, when });
                }
                self.collect(&gates.kind, inside(gates), Place::Gates, &mut pieces);
                for piece in &mut pieces {
                    match (*piece, entered) {
                        (Piece::Item(item), Some((from, _))) if std::ptr::eq(item, from) => *piece = Piece::Enter { enter: entered, when },
                        _ => {}
                    }
                }
                self.brackets(&pieces, &[gates.span, when.span], Place::Gates);
            }
            Piece::Enter { enter, when } => {
                self.out.push("enter ");
                let mut pieces = Vec::new();
                // In the order of the source, in which what they say adds up.
                let mut blocks = vec![when];
                blocks.extend(enter.map(|(_, block)| block));
                blocks.sort_unstable_by_key(|block| block.span);
                for block in &blocks {
                    self.collect(&block.kind, inside(block), Place::Conditions, &mut pieces);
                }
                let spans: Vec<Span> = blocks.iter().map(|block| block.span).collect();
                self.brackets(&pieces, &spans, Place::Conditions);
            }
        }
    }

    /// A block with what was collected of the source's blocks.
    fn brackets(&mut self, pieces: &[Piece<'_>], spans: &[Span], place: Place) {
        self.enclose(pieces, spans, place, ("{", "}"));
    }

    /// What is short and stood on one line stays there; anything else has a line for each.
    fn enclose(&mut self, pieces: &[Piece<'_>], spans: &[Span], place: Place, (open, close): (&str, &str)) {
        let mut shown = pieces.iter().filter(|piece| !matches!(piece, Piece::Gap(_) | Piece::Blank));
        let first = shown.next();
        let has_room = place.is_short(1 + shown.count());
        let has_comment = spans.iter().any(|span| self.has_comment(*span));
        self.out.push(open);
        if first.is_none() && !has_comment {
            return self.out.push(close);
        }
        let is_short = has_room && !has_comment && !spans.iter().any(|span| self.text_of(*span).contains('\n'));
        if is_short {
            let mark = self.out.begin(0);
            self.in_a_row(pieces, place);
            self.out.push(close);
            if self.out.end(mark) {
                return;
            }
        }
        if self.out.is_attempt() {
            return self.out.fail();
        }
        self.out.indent();
        self.sequence(pieces, place, Separator::None, true);
        self.out.outdent();
        self.out.line();
        self.out.push(close);
    }

    /// Pieces on one line, as an attempt.
    fn in_a_row(&mut self, pieces: &[Piece<'_>], place: Place) {
        self.out.push(" ");
        for piece in pieces.iter().filter(|piece| !matches!(piece, Piece::Gap(_) | Piece::Blank)) {
            if self.out.has_failed() {
                return;
            }
            self.piece(*piece, None, place);
            self.out.push(" ");
        }
    }

    /// What stands between braces.
    pub(super) fn block(&mut self, block: &Block, place: Place) {
        self.enclosed(&block.kind, block.span, place, ("{", "}"));
    }

    /// Steps between brackets.
    pub(super) fn steps(&mut self, items: &[Item], span: Span) {
        self.enclosed(items, span, Place::Steps, ("[", "]"));
    }

    fn enclosed(&mut self, items: &[Item], span: Span, place: Place, brackets: (&str, &str)) {
        let mut pieces = Vec::new();
        self.collect(items, Span { start: span.start + 1, end: span.end - 1 }, place, &mut pieces);
        self.enclose(&pieces, &[span], place, brackets);
    }

    /// The values of a list, one a line.
    pub(super) fn values(&mut self, items: &[Item], span: Span, separator: Separator) {
        let mut pieces = Vec::new();
        self.collect(items, Span { start: span.start + 1, end: span.end - 1 }, Place::Values, &mut pieces);
        self.out.indent();
        self.sequence(&pieces, Place::Values, separator, true);
        self.out.outdent();
        self.out.line();
    }

    /// One thing of a block.
    pub(super) fn item(&mut self, item: &Item, place: Place) {
        match &item.kind {
            ItemKind::Value(kind) => self.value_kind(kind, item.span, place),
            ItemKind::Condition(condition) => self.whole_condition(condition),
            ItemKind::Entry(entry) => self.entry(entry, place),
        }
    }

    pub(super) fn entry(&mut self, entry: &Entry, place: Place) {
        let name = match (place, entry.name.kind.as_str()) {
            (Place::File | Place::Blueprint, "vars") => "parameters",
            (Place::Blueprint, "stages") => "plan",
            (_, name) => name,
        };
        match &entry.tail {
            Tail::Assign(value) => self.setting(name, value, place),
            Tail::Arrow(target) => {
                self.out.push(name);
                self.out.push(" -> ");
                self.out.push(&target.kind);
            }
            Tail::Call(call) => match only_argument(entry) {
                Some(Value { kind: ValueKind::Name(word), .. }) if name == "use" || name == "type" && !place.is_setting(name) => {
                    self.out.push(name);
                    self.out.push(" ");
                    self.out.push(word);
                }
                Some(value) if place.is_setting(name) && !matches!(&value.kind, ValueKind::Condition(_)) => {
                    self.setting(name, value, place);
                }
                _ => self.call(name, call, place),
            },
        }
    }

    fn setting(&mut self, name: &str, value: &Value, place: Place) {
        self.out.push(name);
        self.out.push(" = ");
        if let ValueKind::Block(block) = &value.kind {
            self.block(block, place.inside(name));
        } else {
            self.value(value, Place::Settings);
        }
    }

    fn call(&mut self, name: &str, call: &Call, place: Place) {
        if call.arguments.is_empty() && call.block.is_none() {
            let word = self.word(name);
            return self.out.push(&word);
        }
        self.out.push(name);
        let inner = place.inside(name);
        if let Some((items, span)) = steps_of(call).filter(|_| inner == Place::Steps && place != Place::Steps) {
            self.out.push(" ");
            return self.steps(items, span);
        }
        let named = if inner == Place::Stage { name_setting(call) } else { None };
        if let Some((_, value)) = named {
            self.out.push(" ");
            self.value(value, Place::Values);
        }
        let as_list = place == Place::Steps && name != "when" && call.arguments.iter().all(|argument| argument.keyword.is_none());
        let as_list = as_list && !call.arguments.iter().any(|argument| matches!(&argument.value.kind, ValueKind::List(_)));
        self.arguments(name, call, place, as_list);
        let Some(block) = &call.block else { return };
        self.out.push(" ");
        if name == "blueprint" && place == Place::File {
            self.declared = older_parameters(&block.kind);
        }
        if as_list && !block.kind.is_empty() {
            self.steps(&block.kind, block.span);
        } else if let Some((item, _)) = named {
            self.stage_without_name(block, item);
        } else {
            self.block(block, inner);
        }
        if name == "blueprint" && place == Place::File {
            self.declared.clear();
        }
    }

    /// The block of a stage whose name stands before it already.
    fn stage_without_name(&mut self, block: &Block, name: &Item) {
        let mut pieces = Vec::new();
        self.collect(&block.kind, inside(block), Place::Stage, &mut pieces);
        let mut kept = Vec::with_capacity(pieces.len());
        for piece in pieces {
            if matches!(piece, Piece::Item(item) if std::ptr::eq(item, name)) {
                self.blank(name, &mut kept);
                kept.push(Piece::Gap(name.span));
            } else {
                kept.push(piece);
            }
        }
        self.brackets(&kept, &[block.span], Place::Stage);
    }

    /// A variable or a word.
    pub(super) fn word(&self, name: &str) -> String {
        match name.strip_prefix("vars.") {
            Some(rest) if self.declared.contains(rest.split('.').next().unwrap_or(rest)) => format!("params.{rest}"),
            _ => name.to_owned(),
        }
    }
}

/// Where the next comment or item goes.
#[derive(Debug)]
struct Cursor {
    /// A comment on the line of what was written last stays beside it.
    hugs: bool,
    /// Nothing has a line of its own yet, so no line is left blank.
    is_first: bool,
    /// A blank line stood before something that is not written here.
    blank: bool,
}
