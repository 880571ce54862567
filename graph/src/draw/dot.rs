//! Graphviz's language.

use super::{Edge, Look, Mark, Shape, push};

/// A group that is being written.
struct Open<'a> {
    name: &'a str,
}

/// Nodes that stand one after the other in a group are in one cluster.
pub(super) fn write(looks: &[Look], edges: &[Edge]) -> String {
    let mut dot = String::from("digraph plan {\n  rankdir=LR;\n  node [shape=box, style=rounded];\n");
    let mut clusters = 0;
    let mut open: Vec<Open<'_>> = Vec::new();
    let mut order: Vec<usize> = (0..looks.len()).collect();
    // All that is in one group stands together, wherever it stands in the graph.
    order.sort_by(|left, right| looks[*left].groups.cmp(&looks[*right].groups));
    for node in order {
        let look = &looks[node];
        let shared = open.iter().zip(&look.groups).take_while(|(group, name)| group.name == name.as_str()).count();
        while open.len() > shared {
            open.pop();
            push(&mut dot, format_args!("{:indent$}}}\n", "", indent = 2 + 2 * open.len()));
        }
        for name in look.groups.iter().skip(shared) {
            let indent = 2 + 2 * open.len();
            push(&mut dot, format_args!("{:indent$}subgraph cluster_{clusters} {{\n{:indent$}  label={};\n", "", "", text(name)));
            clusters += 1;
            open.push(Open { name });
        }
        push(&mut dot, format_args!("{:indent$}n{node} [{}];\n", "", attributes(look), indent = 2 + 2 * open.len()));
    }
    while open.pop().is_some() {
        push(&mut dot, format_args!("{:indent$}}}\n", "", indent = 2 + 2 * open.len()));
    }
    for Edge { from, to, dashed, reason, implied: _ } in edges {
        let dashed = if *dashed { ", style=dashed" } else { "" };
        push(&mut dot, format_args!("  n{from} -> n{to} [tooltip={}{dashed}];\n", text(reason)));
    }
    dot.push_str("}\n");
    dot
}

fn attributes(look: &Look) -> String {
    let label = if look.note.is_empty() { look.label.clone() } else { format!("{}\n{}", look.label, look.note) };
    let mut attributes = format!("label={}, tooltip={}", text(&label), text(&look.title));
    attributes.push_str(match (look.faded, look.shape) {
        (true, _) => ", style=\"rounded,dashed\", color=gray, fontcolor=gray",
        (false, Shape::Work) => "",
        (false, Shape::Delivery) => ", color=blue",
        (false, Shape::Wait) => ", color=orange",
        (false, Shape::Undo) => ", style=\"rounded,dashed\", color=red",
    });
    attributes.push_str(match (look.shape, look.mark) {
        (Shape::Wait, Some(Mark::Person)) => ", shape=house",
        (Shape::Wait, Some(Mark::Hourglass | Mark::Back) | None) => ", shape=hexagon",
        (Shape::Work | Shape::Delivery | Shape::Undo, _) => "",
    });
    attributes
}

/// A quoted string of the dot language. A line break is one, other control characters become blanks: dot has no escape for them.
fn text(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '\n' => quoted.push_str("\\n"),
            control if control.is_control() => quoted.push(' '),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}
