//! What stands in one group, or in the whole: in columns from left to right, so that every line leads to the right, and in rows where the
//! columns would be too wide together.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    order,
    path::Path,
    rows::{self, Pull, Slot},
    tree::Rect,
};

/// Room between two columns, and how much more for each line between them, up to a limit.
const COLUMN_GAP: i64 = 30;
const COLUMN_GAP_LINE: i64 = 1;
const COLUMN_GAP_LINES_MAX: i64 = 24;
/// Room beside the first and the last column of a group, for the lines that come in and go out.
const SIDE: i64 = 16;
/// Room between two things in a column, and around a line that passes.
const ITEM_GAP: i64 = 14;
const LINE_GAP: i64 = 8;
/// Room between two lines that go on in the next row, and beside all of them.
const LANE: i64 = 6;
const LANES_SIDE: i64 = 12;
/// Lanes between two rows; more lines share them.
const LANES_MAX: usize = 8;
/// How much more a line that passes columns wants to be straight than others.
const LONG_WEIGHT: i64 = 8;
/// Places where lines pass a column, in all. Above, long lines are drawn across what is between.
const PASSES_MAX: usize = 20_000;

/// Something with a size.
#[derive(Debug, Default)]
pub(super) struct Item {
    pub(super) width: i64,
    pub(super) height: i64,
    /// Whether it is made as wide as others in its column.
    pub(super) stretches: bool,
    /// Whether it stands below what has the same neighbours.
    pub(super) sinks: bool,
    /// Where lines enter it and leave it, from its upper edge, by the lines' key; without an entry, in the middle.
    pub(super) entries: BTreeMap<usize, i64>,
    pub(super) exits: BTreeMap<usize, i64>,
}

/// A line from one item to another, or from or to the border. Lines with the same key begin at the same place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Link {
    pub(super) from: Option<usize>,
    pub(super) to: Option<usize>,
    pub(super) key: usize,
}

/// What is to be laid out.
pub(super) struct Level {
    pub(super) items: Vec<Item>,
    pub(super) links: Vec<Link>,
    /// The width that it shall not be over.
    pub(super) width: i64,
    /// The width that it shall have at least.
    pub(super) title: i64,
}

/// Where everything is.
pub(super) struct Arranged {
    pub(super) places: Vec<Rect>,
    pub(super) paths: Vec<(usize, Path)>,
    pub(super) width: i64,
    pub(super) height: i64,
    /// The ports in the left and in the right border, by the lines' key.
    pub(super) entries: BTreeMap<usize, i64>,
    pub(super) exits: BTreeMap<usize, i64>,
}

/// A part of a line between two columns next to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Part {
    left: usize,
    right: usize,
    key: usize,
}

/// Columns, with what stands in them and what passes. The first and the last column are the borders.
struct Table<'a> {
    level: &'a Level,
    /// The column of each slot. The first slots are the items.
    of: Vec<usize>,
    columns: Vec<Vec<usize>>,
    /// Between each column and the next.
    parts: Vec<BTreeSet<Part>>,
    /// Lines that are drawn across what is between.
    across: Vec<Link>,
    /// Slots in which lines pass a column, or the border, by key and column.
    passes: BTreeMap<(usize, usize), usize>,
}

impl Level {
    pub(super) fn arranged(&self) -> Arranged {
        let mut columns = Table::of(self);
        let lines: Vec<order::Lines> =
            columns.parts.iter().map(|parts| parts.iter().map(|part| (part.left, part.right)).collect()).collect();
        order::sort(&mut columns.columns, &lines, columns.of.len());
        let grid = Grid::of(&columns);
        let slots = columns.heights(&grid);
        columns.drawn(&grid, &slots)
    }

    /// For each item one more than the greatest column of those with a line to it. In a circle, the first item comes first.
    fn columns(&self) -> Vec<usize> {
        let mut waits = vec![0usize; self.items.len()];
        let mut after: Vec<Vec<usize>> = vec![Vec::new(); self.items.len()];
        for (from, to) in self.links.iter().filter_map(|link| link.from.zip(link.to)) {
            waits[to] += 1;
            after[from].push(to);
        }
        let mut columns = vec![1usize; self.items.len()];
        let mut placed = vec![false; self.items.len()];
        let mut ready: BTreeSet<usize> = (0..self.items.len()).filter(|item| waits[*item] == 0).collect();
        let mut first = 0;
        loop {
            while first < placed.len() && placed[first] {
                first += 1;
            }
            let Some(item) = ready.pop_first().or((first < placed.len()).then_some(first)) else { return columns };
            placed[item] = true;
            for next in &after[item] {
                waits[*next] = waits[*next].saturating_sub(1);
                if !placed[*next] {
                    columns[*next] = columns[*next].max(columns[item] + 1);
                    if waits[*next] == 0 {
                        ready.insert(*next);
                    }
                }
            }
        }
    }
}

impl<'a> Table<'a> {
    fn of(level: &'a Level) -> Self {
        let of = level.columns();
        let last = of.iter().max().map_or(1, |last| last + 1);
        let mut columns = vec![Vec::new(); last + 1];
        for (item, column) in of.iter().enumerate() {
            columns[*column].push(item);
        }
        for column in &mut columns {
            column.sort_by_key(|item| level.items[*item].sinks);
        }
        let mut columns = Self { level, of, columns, parts: vec![BTreeSet::new(); last], across: Vec::new(), passes: BTreeMap::new() };
        let span = |link: &Link| (link.from.map_or(0, |from| columns.of[from]), link.to.map_or(last, |to| columns.of[to]));
        let mut ends: BTreeMap<usize, usize> = BTreeMap::new();
        for link in &level.links {
            let (start, end) = span(link);
            let length = ends.entry(link.key).or_default();
            *length = (*length).max(end.saturating_sub(start));
        }
        let passes: usize = ends.values().map(|length| length.saturating_sub(1)).sum();
        let mut links: Vec<(usize, usize, Link)> =
            level.links.iter().map(span).zip(&level.links).map(|((start, end), link)| (start, end, *link)).collect();
        // The shortest first: those of the same key are continued.
        links.sort_by_key(|(start, end, link)| (link.key, *end, *start));
        for (start, end, link) in links {
            if end <= start || (end - start > 1 && passes > PASSES_MAX) {
                columns.across.push(link);
            } else {
                columns.link(start, end, link);
            }
        }
        columns
    }

    /// Leads a line through the columns between its ends.
    fn link(&mut self, start: usize, end: usize, Link { from, to, key }: Link) {
        // As far as another line of the key leads already, this one is the same. Lines of a key begin in one column.
        let mut column = (start + 1..end).rev().find(|column| self.passes.contains_key(&(key, *column)));
        let mut left = match (column, from) {
            (Some(column), _) => self.passes[&(key, column)],
            (None, Some(from)) => from,
            (None, None) => self.pass(key, 0),
        };
        while column.unwrap_or(start) + 1 < end {
            let next = column.unwrap_or(start) + 1;
            let right = self.pass(key, next);
            self.parts[next - 1].insert(Part { left, right, key });
            (left, column) = (right, Some(next));
        }
        let right = to.unwrap_or_else(|| self.pass(key, end));
        self.parts[end - 1].insert(Part { left, right, key });
    }

    /// The slot in which lines of the key pass the column, or end in the border.
    fn pass(&mut self, key: usize, column: usize) -> usize {
        if let Some(slot) = self.passes.get(&(key, column)) {
            return *slot;
        }
        let slot = self.of.len();
        self.of.push(column);
        self.columns[column].push(slot);
        self.passes.insert((key, column), slot);
        slot
    }

    fn exit(&self, slot: usize, key: usize) -> i64 {
        self.level.items.get(slot).map_or(0, |item| item.exits.get(&key).copied().unwrap_or(item.height / 2))
    }

    fn entry(&self, slot: usize, key: usize) -> i64 {
        self.level.items.get(slot).map_or(0, |item| item.entries.get(&key).copied().unwrap_or(item.height / 2))
    }

    /// The heights of all slots, the rows of the grid below each other.
    fn heights(&self, grid: &Grid) -> Vec<Slot> {
        let slot = |slot: usize| {
            let item = self.level.items.get(slot);
            Slot { height: item.map_or(0, |item| item.height), gap: if item.is_some() { ITEM_GAP } else { LINE_GAP }, y: 0 }
        };
        let mut slots: Vec<Slot> = (0..self.of.len()).map(slot).collect();
        let is_pass = |slot: usize| slot >= self.level.items.len();
        let pull = |part: &Part| Pull {
            left: part.left,
            right: part.right,
            out: self.exit(part.left, part.key),
            into: self.entry(part.right, part.key),
            // Long lines are straight before anything else is; their ends follow what they end at.
            weight: if is_pass(part.left) && is_pass(part.right) { LONG_WEIGHT } else { 1 },
        };
        let level = self.parts.iter().enumerate().filter(|(column, _)| grid.rows[*column] == grid.rows[column + 1]);
        let pulls: Vec<Pull> = level.flat_map(|(_, parts)| parts.iter().map(pull)).collect();
        rows::place(&mut slots, &self.columns, &pulls);
        slots
    }

    fn drawn(&self, grid: &Grid, slots: &[Slot]) -> Arranged {
        let Tops { down: tops, bottoms, height } = grid.tops(&self.columns, slots, &self.parts);
        let y = |slot: usize| slots[slot].y + tops[grid.rows[self.of[slot]]];
        let place = |item: usize| {
            let (left, width) = grid.spans[self.of[item]];
            let own = if self.level.items[item].stretches { grid.stretched[self.of[item]] } else { self.level.items[item].width };
            Rect { x: left + (width - own) / 2, y: y(item), width: own, height: self.level.items[item].height }
        };
        let places: Vec<Rect> = (0..self.level.items.len()).map(place).collect();
        let leaves = |slot: usize| places.get(slot).map_or(grid.spans[self.of[slot]].0, |rect| rect.x + rect.width);
        let enters = |slot: usize| places.get(slot).map_or(grid.spans[self.of[slot]].0, |rect| rect.x);
        let mut paths = Vec::new();
        for (column, parts) in self.parts.iter().enumerate() {
            let lanes = lanes(parts);
            for part in parts {
                let start = (leaves(part.left), y(part.left) + self.exit(part.left, part.key));
                let end = (enters(part.right), y(part.right) + self.entry(part.right, part.key));
                let (left, width) = grid.spans[column];
                let path = if grid.rows[column] == grid.rows[column + 1] {
                    Path::Curve { start, bend: (left + width, grid.spans[column + 1].0), end }
                } else {
                    let lane = lanes.get(part).copied().unwrap_or(0);
                    let row = grid.rows[column];
                    let below = bottoms[row] + LANES_SIDE + LANE * lane;
                    let back = grid.left - LANES_SIDE - LANE * lane;
                    Path::Turn { start, corners: (left + width + LANES_SIDE + LANE * lane, below, back), end }
                };
                paths.push((part.key, path));
            }
        }
        paths.extend(self.across.iter().map(|link| {
            let start = link.from.map_or((0, 0), |from| (leaves(from), y(from) + self.exit(from, link.key)));
            let end = link.to.map_or((grid.width, 0), |to| (enters(to), y(to) + self.entry(to, link.key)));
            (link.key, Path::Curve { start, bend: (start.0 + COLUMN_GAP, end.0 - COLUMN_GAP), end })
        }));
        let border = |column: usize| {
            let ports = self.passes.iter().filter(move |((_, at), _)| *at == column);
            ports.map(|((key, _), slot)| (*key, y(*slot))).collect()
        };
        Arranged { places, paths, width: grid.width, height, entries: border(0), exits: border(self.columns.len() - 1) }
    }
}

/// A lane for each of the lines that go on in the next row: those from one place share it, or those to one place if these are fewer.
fn lanes(parts: &BTreeSet<Part>) -> BTreeMap<Part, i64> {
    let starts: BTreeSet<(usize, usize)> = parts.iter().map(|part| (part.left, part.key)).collect();
    let ends: BTreeSet<usize> = parts.iter().map(|part| part.right).collect();
    let mut taken: BTreeMap<(usize, usize), usize> = BTreeMap::new();
    let lane = |part: &Part| {
        let by = if ends.len() < starts.len() { (part.right, 0) } else { (part.left, part.key) };
        let next = taken.len();
        let lane = *taken.entry(by).or_insert(next) % LANES_MAX;
        (*part, i64::try_from(lane).unwrap_or(0))
    };
    parts.iter().map(lane).collect()
}

/// Where the columns are.
struct Grid {
    /// The row of each column.
    rows: Vec<usize>,
    /// Left edge and width of each column.
    spans: Vec<(i64, i64)>,
    /// For each column the width of those that stretch.
    stretched: Vec<i64>,
    /// Left edge of the first column of each row.
    left: i64,
    width: i64,
}

impl Grid {
    fn of(columns: &Table<'_>) -> Self {
        let items = &columns.level.items;
        let last = columns.columns.len() - 1;
        let width = |column: &Vec<usize>, all: bool| {
            let own = column.iter().filter_map(|slot| items.get(*slot)).filter(|item| all || item.stretches);
            own.map(|item| item.width).max().unwrap_or(0)
        };
        let widths: Vec<i64> = columns.columns.iter().map(|column| width(column, true)).collect();
        let gap = |column: usize| {
            let lines = i64::try_from(columns.parts[column].len()).unwrap_or(i64::MAX).min(COLUMN_GAP_LINES_MAX);
            COLUMN_GAP + lines * COLUMN_GAP_LINE
        };
        let has_ports = |column: usize| !columns.columns[column].is_empty();
        let side = if has_ports(0) || has_ports(last) || columns.level.title > 0 { SIDE } else { 0 };
        let total: i64 = widths.iter().sum::<i64>() + (1..last.max(1) - 1).map(gap).sum::<i64>() + 2 * side;
        let turns = total > columns.level.width;
        let lanes = i64::try_from(LANES_MAX).unwrap_or(0) * LANE;
        let left = if turns { side + LANES_SIDE + lanes } else { side };
        let mut grid = Self { rows: vec![0], spans: vec![(0, 0)], stretched: vec![0], left, width: 0 };
        let (mut x, mut row) = (left, 0);
        for (column, own) in widths.iter().copied().enumerate().take(last).skip(1) {
            if x > left && turns && x + own > columns.level.width - left {
                (x, row) = (left, row + 1);
            }
            grid.rows.push(row);
            grid.spans.push((x, own));
            grid.stretched.push(width(&columns.columns[column], false));
            grid.width = grid.width.max(x + own);
            x += own + gap(column);
        }
        grid.width = (grid.width + left).max(columns.level.title);
        grid.rows.push(row);
        grid.spans.push((grid.width, 0));
        grid.stretched.push(0);
        grid
    }

    /// Puts the rows below each other.
    fn tops(&self, columns: &[Vec<usize>], slots: &[Slot], parts: &[BTreeSet<Part>]) -> Tops {
        let mut tops = Tops { down: Vec::new(), bottoms: Vec::new(), height: 0 };
        let mut column = 0;
        while column < columns.len() {
            let row = self.rows[column];
            let end = (column..columns.len()).find(|end| self.rows[*end] != row).unwrap_or(columns.len());
            let own = || columns[column..end].iter().flatten();
            let top = own().map(|slot| slots[*slot].y).min().unwrap_or(0);
            let bottom = own().map(|slot| slots[*slot].y + slots[*slot].height).max().unwrap_or(0);
            tops.down.push(tops.height - top);
            tops.height += bottom - top;
            tops.bottoms.push(tops.height);
            if end < columns.len() {
                let last = parts.get(end - 1).and_then(|parts| lanes(parts).into_values().max());
                tops.height += 2 * LANES_SIDE + last.map_or(0, |last| LANE * (last + 1));
            }
            column = end;
        }
        tops
    }
}

/// Where the rows are.
struct Tops {
    /// How far each is moved down.
    down: Vec<i64>,
    /// The lowest edge of each, moved.
    bottoms: Vec<i64>,
    /// The height of all.
    height: i64,
}
