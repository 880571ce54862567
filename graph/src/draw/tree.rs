//! Groups in groups, each laid out by itself, and where everything stands in the end.

use std::collections::BTreeMap;

use super::{
    Look, Shape,
    level::{Arranged, Item, Level, Link},
    path::Path,
    sketch::{Node, Sketch},
};

/// Width of the picture that is kept to by beginning new rows, in SVG user units: what a README shows without shrinking it much.
const WIDTH_WANTED: i64 = 1_080;
/// Width that a group is given at least, however deep it is.
const WIDTH_LEAST: i64 = 320;
/// Advance of one character of the 13 px monospace font, rounded up; of the small one of the notes, 11 px.
const CHARACTER_WIDTH: i64 = 8;
const NOTE_CHARACTER_WIDTH: i64 = 7;
/// Room beside a label, and for a mark before it.
const PADDING: i64 = 10;
const MARK_WIDTH: i64 = 18;
/// Heights of a node without and with a note, and of a joint.
const HEIGHT: i64 = 30;
const HEIGHT_WITH_NOTE: i64 = 44;
const JOINT: i64 = 6;
/// Above what is in a group: its name.
const TITLE_HEIGHT: i64 = 24;
/// Inside a group's border, but on its upper side.
const GROUP_PADDING: i64 = 12;
/// Around the picture.
const MARGIN: i64 = 12;
/// Characters of a label, and of a note, that are shown.
const LABEL_CHARACTERS_MAX: usize = 34;

/// A box in the picture.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rect {
    pub(super) x: i64,
    pub(super) y: i64,
    pub(super) width: i64,
    pub(super) height: i64,
}

/// Where everything stands.
pub(super) struct Tree {
    /// The box of each node.
    pub(super) nodes: Vec<Rect>,
    /// The boxes of the groups, each after the one around it.
    pub(super) groups: Vec<(String, Rect)>,
    /// Parts of lines, with the place of their source in the sketch.
    pub(super) paths: Vec<(usize, Path)>,
    pub(super) width: i64,
    pub(super) height: i64,
}

/// What stands in a group.
#[derive(Debug, Clone, Copy)]
enum Child {
    Node(usize),
    Group(usize),
}

/// A group, or the whole.
#[derive(Default)]
struct Group {
    name: String,
    /// The place of the group around it; 0 for the whole, too.
    parent: usize,
    depth: usize,
    /// Its place among the children of the group around it.
    place: usize,
    children: Vec<Child>,
    links: Vec<Link>,
}

impl Tree {
    pub(super) fn of(sketch: &Sketch) -> Self {
        let (mut groups, homes) = groups(&sketch.nodes);
        for link in &sketch.links {
            project(&mut groups, &homes, link);
        }
        let mut arranged: Vec<Option<Arranged>> = groups.iter().map(|_| None).collect();
        // A group comes after the one around it, so that going backwards the innermost are first.
        for place in (0..groups.len()).rev() {
            let items = groups[place].children.iter().map(|child| match child {
                Child::Node(node) => item(&sketch.nodes[*node]),
                Child::Group(group) => boxed(arranged[*group].as_ref()),
            });
            let depth = i64::try_from(groups[place].depth).unwrap_or(0);
            let width = (WIDTH_WANTED - depth * 4 * GROUP_PADDING).max(WIDTH_LEAST);
            let items = items.collect();
            let title = columns(&shown(&groups[place].name)) * CHARACTER_WIDTH + 2 * PADDING;
            arranged[place] = Some(Level { items, links: std::mem::take(&mut groups[place].links), width, title }.arranged());
        }
        finished(sketch, &groups, arranged)
    }
}

/// The groups of the nodes, the whole first, and for each node its group and its place in it.
fn groups(nodes: &[Node]) -> (Vec<Group>, Vec<(usize, usize)>) {
    let mut groups = vec![Group::default()];
    let mut index: BTreeMap<(usize, &str), usize> = BTreeMap::new();
    let mut homes = Vec::with_capacity(nodes.len());
    for (node, Node { groups: names, .. }) in nodes.iter().enumerate() {
        let mut home = 0;
        for name in names {
            home = *index.entry((home, name)).or_insert_with(|| {
                let (group, place, depth) = (groups.len(), groups[home].children.len(), groups[home].depth + 1);
                groups[home].children.push(Child::Group(group));
                groups.push(Group { name: name.clone(), parent: home, depth, place, ..Group::default() });
                group
            });
        }
        homes.push((home, groups[home].children.len()));
        groups[home].children.push(Child::Node(node));
    }
    (groups, homes)
}

/// Gives each group that a link touches its part of it: inside the groups that it leaves, a way to their right border; inside those that
/// it enters, one from their left border; in the group around both, the way between them.
fn project(groups: &mut [Group], homes: &[(usize, usize)], link: &super::sketch::Link) {
    let key = link.source;
    let ((mut left, mut from), (mut right, mut to)) = (homes[link.from], homes[link.to]);
    while left != right {
        if groups[left].depth >= groups[right].depth {
            groups[left].links.push(Link { from: Some(from), to: None, key });
            (from, left) = (groups[left].place, groups[left].parent);
        } else {
            groups[right].links.push(Link { from: None, to: Some(to), key });
            (to, right) = (groups[right].place, groups[right].parent);
        }
    }
    groups[left].links.push(Link { from: Some(from), to: Some(to), key });
}

/// The size of a node.
fn item(node: &Node) -> Item {
    let Some(Look { label, note, mark, shape, .. }) = &node.look else {
        return Item { width: JOINT, height: JOINT, ..Item::default() };
    };
    let mark = if mark.is_some() { MARK_WIDTH } else { 0 };
    let width = (columns(&shown(label)) * CHARACTER_WIDTH).max(columns(&shown(note)) * NOTE_CHARACTER_WIDTH) + mark + 2 * PADDING;
    Item {
        width,
        height: if note.is_empty() { HEIGHT } else { HEIGHT_WITH_NOTE },
        stretches: true,
        sinks: *shape == Shape::Undo,
        ..Item::default()
    }
}

/// The size of a group, with the places of its ports.
fn boxed(arranged: Option<&Arranged>) -> Item {
    let arranged = arranged.expect("what stands in a group was laid out before the group");
    let down = |ports: &BTreeMap<usize, i64>| ports.iter().map(|(key, y)| (*key, y + TITLE_HEIGHT)).collect();
    Item {
        width: arranged.width,
        height: arranged.height + TITLE_HEIGHT + GROUP_PADDING,
        entries: down(&arranged.entries),
        exits: down(&arranged.exits),
        ..Item::default()
    }
}

/// Adds up where everything stands.
fn finished(sketch: &Sketch, groups: &[Group], mut arranged: Vec<Option<Arranged>>) -> Tree {
    let mut tree = Tree { nodes: vec![Rect::default(); sketch.nodes.len()], groups: Vec::new(), paths: Vec::new(), width: 0, height: 0 };
    let mut corners = vec![(0, 0); groups.len()];
    for (place, group) in groups.iter().enumerate() {
        let Arranged { places, paths, width, height, .. } = arranged[place].take().expect("every group was laid out");
        let (x, y) = if place == 0 {
            (tree.width, tree.height) = (width + 2 * MARGIN, height + 2 * MARGIN);
            (MARGIN, MARGIN)
        } else {
            let (x, y) = corners[place];
            tree.groups.push((group.name.clone(), Rect { x, y, width, height: height + TITLE_HEIGHT + GROUP_PADDING }));
            (x, y + TITLE_HEIGHT)
        };
        for (child, rect) in group.children.iter().zip(places) {
            match child {
                Child::Node(node) => tree.nodes[*node] = Rect { x: rect.x + x, y: rect.y + y, ..rect },
                Child::Group(group) => corners[*group] = (rect.x + x, rect.y + y),
            }
        }
        tree.paths.extend(paths.into_iter().map(|(key, path)| (key, path.moved(x, y))));
    }
    tree
}

/// The beginning of a label.
pub(super) fn shown(label: &str) -> String {
    let mut shown: String = label.chars().take(LABEL_CHARACTERS_MAX).collect();
    if shown.len() < label.len() {
        shown.pop();
        shown.push('…');
    }
    shown
}

/// Columns of a monospace font that a text takes: characters of East Asia take two.
fn columns(text: &str) -> i64 {
    text.chars().map(|character| if u32::from(character) >= 0x1100 { 2 } else { 1 }).sum()
}
