//! Pictures of a graph: Graphviz's dot, and SVG.
//!
//! ```text
//! graph ─ sketch (edges that say nothing new are left out, crowds meet in a joint) ─ tree of groups ─ for each group, the innermost
//! first: level (columns, rows, order, heights) ─ svg
//! ```
//!
//! A group is laid out by itself, and is one box for the group around it; an edge that leaves it goes through a port in its border. So
//! no edge crosses a box that it has nothing to do with.

mod dot;
mod level;
mod order;
mod path;
mod rows;
mod sketch;
mod svg;
mod tree;

use std::fmt::Display;

use crate::Graph;

/// How a node is drawn.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Look {
    /// What stands in it, shortened if it is long.
    pub label: String,
    /// A second, smaller line; may be empty.
    pub note: String,
    /// What is told where the pointer rests on it.
    pub title: String,
    /// The groups around it, the outermost first.
    pub groups: Vec<String>,
    /// What it is.
    pub shape: Shape,
    /// A sign before the label.
    pub mark: Option<Mark>,
    /// Whether it stays in the background: nothing happens there.
    pub faded: bool,
}

/// What a node is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Shape {
    /// Something is done.
    #[default]
    Work,
    /// Something is done to the world outside.
    Delivery,
    /// Something is waited for.
    Wait,
    /// Something is undone if things go wrong.
    Undo,
}

/// A sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// A person decides.
    Person,
    /// Time passes, or the outside answers.
    Hourglass,
    /// Backwards.
    Back,
}

/// How an edge is drawn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Line {
    /// It need not be drawn where another way leads from its beginning to its end.
    pub implied: bool,
    /// It is drawn with gaps.
    pub dashed: bool,
}

impl<Id: Ord + Clone, Reason: Display> Graph<Id, Reason> {
    /// The graph for Graphviz, with every edge.
    pub fn dot(&self, look: impl Fn(&Id) -> Look, line: impl Fn(&Reason) -> Line) -> String {
        let looks: Vec<Look> = self.ids.iter().map(look).collect();
        dot::write(&looks, &self.edges(line))
    }

    /// The graph as an SVG document, from left to right and, where that is too wide, in rows. It needs nothing from outside, and its
    /// colours are for light and dark pages.
    pub fn svg(&self, look: impl Fn(&Id) -> Look, line: impl Fn(&Reason) -> Line) -> String {
        let looks: Vec<Look> = self.ids.iter().map(look).collect();
        let sketch = sketch::Sketch::of(looks, self.edges(line));
        let tree = tree::Tree::of(&sketch);
        svg::write(&sketch, &tree)
    }

    fn edges(&self, line: impl Fn(&Reason) -> Line) -> Vec<Edge> {
        let needs = self.needs.iter().enumerate();
        let edge = |to, (from, reason): &(usize, Reason)| {
            let Line { implied, dashed } = line(reason);
            Edge { from: *from, to, implied, dashed, reason: reason.to_string() }
        };
        needs.flat_map(|(to, needs)| needs.iter().map(move |need| (to, need))).map(|(to, need)| edge(to, need)).collect()
    }
}

/// An edge between two nodes, by their places.
#[derive(Debug, Clone)]
struct Edge {
    from: usize,
    to: usize,
    implied: bool,
    dashed: bool,
    reason: String,
}

fn push(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    use std::fmt::Write as _;
    text.write_fmt(arguments).expect("writing to a string cannot fail");
}

#[cfg(test)]
mod tests;
