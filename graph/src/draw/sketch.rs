//! What is drawn of a graph: its nodes, joints where crowds meet, and the edges that say something new.

use std::collections::{BTreeMap, BTreeSet};

use super::{Edge, Look};

/// Steps of the search for other ways, in all; where they are used up, edges are drawn that another way implies.
const SEARCH_STEPS_MAX: usize = 200_000;
/// Edges that a line's tooltip tells.
const TOLD_MAX: usize = 8;

/// Nodes and lines.
pub(super) struct Sketch {
    /// How each node looks; a joint has no look of its own.
    pub(super) nodes: Vec<Node>,
    /// All that leads from one node to others; no two are alike.
    pub(super) links: Vec<Link>,
    /// Where links begin: those of one source are drawn as one line that branches.
    pub(super) sources: Vec<Source>,
}

/// A node of the picture.
pub(super) struct Node {
    /// `None` for a joint.
    pub(super) look: Option<Look>,
    /// The groups around it, the outermost first.
    pub(super) groups: Vec<String>,
}

/// A part of a line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Link {
    pub(super) from: usize,
    pub(super) to: usize,
    /// Its place in [`Sketch::sources`].
    pub(super) source: usize,
}

/// The beginning of a line.
pub(super) struct Source {
    pub(super) dashed: bool,
    /// What the line says, for the pointer that rests on it.
    pub(super) title: String,
}

/// What leads into a node: where from, whether with gaps, and why.
type Needs = BTreeMap<(usize, bool), Vec<String>>;

/// What leads into several nodes alike.
type Crowd = Vec<(usize, bool)>;

impl Sketch {
    pub(super) fn of(looks: Vec<Look>, edges: Vec<Edge>) -> Self {
        let needs = drawn(looks.len(), edges);
        let labels: Vec<String> = looks.iter().map(|look| look.title.lines().next().unwrap_or(&look.label).to_owned()).collect();
        let nodes = looks.into_iter().map(|look| Node { groups: look.groups.clone(), look: Some(look) }).collect();
        let mut sketch = Self { nodes, links: Vec::new(), sources: Vec::new() };
        let mut told: BTreeMap<(usize, bool), Vec<String>> = BTreeMap::new();
        let mut crowds: BTreeMap<Crowd, Vec<usize>> = BTreeMap::new();
        for (to, needs) in needs.into_iter().enumerate() {
            for (source, reasons) in &needs {
                let titles = told.entry(*source).or_default();
                // One more than is told, to know that there are more.
                if titles.len() <= TOLD_MAX {
                    titles.push(format!("{} ← {}: {}", labels[to], labels[source.0], reasons.join(", ")));
                }
            }
            if !needs.is_empty() {
                crowds.entry(needs.into_keys().collect()).or_default().push(to);
            }
        }
        let mut crowds: Vec<(Crowd, Vec<usize>)> = crowds.into_iter().collect();
        crowds.sort_by_key(|(_, to)| to[0]);
        let mut index: BTreeMap<(usize, bool), usize> = BTreeMap::new();
        for (from, to) in crowds {
            sketch.crowd(&from, &to, &told, &mut index);
        }
        sketch
    }

    /// Draws lines from each of some to each of others. If both are several, or the first share a group that the others are not in, the
    /// lines meet in a joint.
    fn crowd(
        &mut self,
        from: &[(usize, bool)],
        to: &[usize],
        told: &BTreeMap<(usize, bool), Vec<String>>,
        index: &mut BTreeMap<(usize, bool), usize>,
    ) {
        let mut link = |sketch: &mut Self, from: (usize, bool), to: usize, titles: &[String]| {
            let source = *index.entry(from).or_insert_with(|| {
                sketch.sources.push(Source { dashed: from.1, title: shortened(titles) });
                sketch.sources.len() - 1
            });
            sketch.links.push(Link { from: from.0, to, source });
        };
        let common = self.common(from.iter().map(|(node, _)| *node));
        let leaves = common.len() > self.common(from.iter().map(|(node, _)| *node).chain(to.iter().copied())).len();
        let dashed = from.iter().any(|(_, dashed)| *dashed);
        let joined = !dashed && from.len() > 1 && (to.len() > 1 || (leaves && from.len() > 2));
        if !joined {
            for (from, to) in from.iter().flat_map(|from| to.iter().map(move |to| (*from, *to))) {
                link(self, from, to, &told[&from]);
            }
            return;
        }
        let joint = self.nodes.len();
        self.nodes.push(Node { look: None, groups: common });
        for from in from {
            link(self, *from, joint, &told[from]);
        }
        for to in to {
            link(self, (joint, false), *to, &[]);
        }
    }

    /// The groups that are around all of these.
    fn common(&self, mut nodes: impl Iterator<Item = usize>) -> Vec<String> {
        let first = nodes.next().map_or(&[][..], |node| &self.nodes[node].groups);
        let shared = |groups: &[String]| groups.iter().zip(first).take_while(|(left, right)| left == right).count();
        let depth = nodes.map(|node| shared(&self.nodes[node].groups)).min().unwrap_or(first.len());
        first[..depth.min(first.len())].to_vec()
    }
}

fn shortened(titles: &[String]) -> String {
    let more = if titles.len() > TOLD_MAX { "\n…" } else { "" };
    titles.iter().take(TOLD_MAX).map(String::as_str).collect::<Vec<_>>().join("\n") + more
}

/// For each node what leads into it, without implied edges that another way stands for.
fn drawn(nodes: usize, edges: Vec<Edge>) -> Vec<Needs> {
    let mut needs: Vec<Needs> = (0..nodes).map(|_| Needs::new()).collect();
    let mut implied: BTreeSet<(usize, usize)> = BTreeSet::new();
    let mut own: BTreeSet<(usize, usize)> = BTreeSet::new();
    for Edge { from, to, implied: is_implied, dashed, reason } in edges {
        needs[to].entry((from, dashed)).or_default().push(reason);
        if is_implied { &mut implied } else { &mut own }.insert((from, to));
    }
    let mut search = Search { steps: SEARCH_STEPS_MAX, count: 0, seen: vec![0; nodes] };
    let redundant: Vec<(usize, usize)> =
        implied.difference(&own).copied().filter(|(from, to)| search.finds_another_way(&needs, *from, *to)).collect();
    for (from, to) in redundant {
        needs[to].remove(&(from, false));
    }
    needs
}

/// Looks for ways between two nodes besides the edge between them.
struct Search {
    /// Steps that are left.
    steps: usize,
    /// How many searches there were.
    count: usize,
    /// For each node, the last search that came by.
    seen: Vec<usize>,
}

impl Search {
    fn finds_another_way(&mut self, needs: &[Needs], from: usize, to: usize) -> bool {
        if needs[to].len() < 2 || self.steps < needs[to].len() {
            return false;
        }
        self.steps -= needs[to].len();
        self.count += 1;
        let mut open: Vec<usize> = needs[to].keys().map(|(node, _)| *node).filter(|node| *node != from).collect();
        while let Some(node) = open.pop() {
            if node == from {
                return true;
            }
            if self.steps == 0 {
                return false;
            }
            // Nodes are mostly added after those that they wait for, so that no way leads from an earlier one back to `from`.
            if node > from && self.seen[node] != self.count {
                self.seen[node] = self.count;
                self.steps -= 1;
                open.extend(needs[node].keys().map(|(node, _)| *node));
            }
        }
        false
    }
}
