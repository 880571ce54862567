//! Pictures of a graph: Graphviz's dot, and SVG in columns from left to right.

use std::fmt::{Display, Write as _};

use crate::Graph;

/// Height of a node's box, in SVG user units.
const BOX_HEIGHT: usize = 32;
/// Between two boxes of a column.
const ROW_GAP: usize = 16;
/// Between two columns: room for the curves of the edges.
const COLUMN_GAP: usize = 64;
/// Around the picture.
const MARGIN: usize = 16;
/// Advance of one character of the 13 px monospace font, rounded up.
const CHARACTER_WIDTH: usize = 8;
/// Characters of a label that are shown; the whole label is the box's tooltip.
const LABEL_CHARACTERS_MAX: usize = 40;

/// Where a node's box stands.
struct Place {
    x: usize,
    y: usize,
    width: usize,
}

impl<Id: Ord + Clone, Reason: Display> Graph<Id, Reason> {
    /// The graph for Graphviz; `label` says what stands in a node.
    pub fn dot(&self, label: impl Fn(&Id) -> String) -> String {
        let mut dot = String::from("digraph plan {\n  rankdir=LR;\n  node [shape=box];\n");
        for (node, id) in self.ids.iter().enumerate() {
            push(&mut dot, format_args!("  n{node} [label={}];\n", dot_text(&label(id))));
        }
        for (second, needs) in self.needs.iter().enumerate() {
            for (first, reason) in needs {
                push(&mut dot, format_args!("  n{first} -> n{second} [tooltip={}];\n", dot_text(&reason.to_string())));
            }
        }
        dot.push_str("}\n");
        dot
    }

    /// The graph as an SVG document; `label` says what stands in a node. A node stands one column right of the last it waits for; nodes of
    /// a cycle stand in the first column.
    pub fn svg(&self, label: impl Fn(&Id) -> String) -> String {
        let labels: Vec<String> = self.ids.iter().map(label).collect();
        let (places, width, height) = self.places(&labels);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
             font-family=\"monospace\" font-size=\"13\">\n"
        );
        for (second, needs) in self.needs.iter().enumerate() {
            for (first, reason) in needs {
                push_edge(&mut svg, &places[*first], &places[second], &reason.to_string());
            }
        }
        for (label, place) in labels.iter().zip(&places) {
            push_box(&mut svg, place, label);
        }
        svg.push_str("</svg>\n");
        svg
    }

    /// Where each box stands, and the width and height of the picture.
    fn places(&self, labels: &[String]) -> (Vec<Place>, usize, usize) {
        let mut columns = vec![0usize; self.ids.len()];
        for node in self.order_of_indices() {
            columns[node] = self.needs[node].iter().map(|(first, _)| columns[*first] + 1).max().unwrap_or(0);
        }
        let count = columns.iter().max().map_or(0, |last| last + 1);
        let mut widths = vec![0usize; count];
        for (column, label) in columns.iter().zip(labels) {
            let characters = label.chars().count().min(LABEL_CHARACTERS_MAX);
            widths[*column] = widths[*column].max((characters + 2) * CHARACTER_WIDTH);
        }
        let mut lefts = Vec::with_capacity(count);
        let mut x = MARGIN;
        for width in &widths {
            lefts.push(x);
            x += width + COLUMN_GAP;
        }
        let mut rows = vec![0usize; count];
        let places = columns.iter().map(|column| {
            let row = rows[*column];
            rows[*column] += 1;
            Place { x: lefts[*column], y: MARGIN + row * (BOX_HEIGHT + ROW_GAP), width: widths[*column] }
        });
        let places: Vec<Place> = places.collect();
        let rows = rows.into_iter().max().unwrap_or(0);
        let width = if count == 0 { 2 * MARGIN } else { x - COLUMN_GAP + MARGIN };
        (places, width, 2 * MARGIN + (rows * (BOX_HEIGHT + ROW_GAP)).saturating_sub(ROW_GAP))
    }
}

fn push(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("writing to a string cannot fail");
}

fn push_edge(svg: &mut String, first: &Place, second: &Place, reason: &str) {
    let (x1, y1) = (first.x + first.width, first.y + BOX_HEIGHT / 2);
    let (x2, y2) = (second.x, second.y + BOX_HEIGHT / 2);
    let (c1, c2) = (x1 + COLUMN_GAP / 2, x2.saturating_sub(COLUMN_GAP / 2));
    let reason = xml_text(reason);
    push(
        svg,
        format_args!("<path d=\"M{x1} {y1}C{c1} {y1} {c2} {y2} {x2} {y2}\" fill=\"none\" stroke=\"#888\"><title>{reason}</title></path>\n"),
    );
}

fn push_box(svg: &mut String, place: &Place, label: &str) {
    let Place { x, y, width } = place;
    let whole = xml_text(label);
    let mut shown: String = label.chars().take(LABEL_CHARACTERS_MAX).collect();
    if shown.len() < label.len() {
        shown.pop();
        shown.push('…');
    }
    let shown = xml_text(&shown);
    let (text_x, text_y) = (x + CHARACTER_WIDTH, y + BOX_HEIGHT / 2 + 5);
    push(
        svg,
        format_args!(
            "<g><title>{whole}</title><rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{BOX_HEIGHT}\" rx=\"4\" fill=\"#fff\" \
             stroke=\"#333\"/><text x=\"{text_x}\" y=\"{text_y}\" fill=\"#111\">{shown}</text></g>\n"
        ),
    );
}

/// A quoted string of the dot language. Control characters become blanks: dot has no escape for them.
fn dot_text(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            control if control.is_control() => quoted.push(' '),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

/// Character data of XML. Control characters become blanks: XML 1.0 forbids most of them.
fn xml_text(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            control if control.is_control() || matches!(control, '\u{fffe}' | '\u{ffff}') => escaped.push(' '),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph() -> Graph<&'static str, &'static str> {
        let mut graph = Graph::new();
        graph.add_node("<a> \"&\"");
        graph.add_node("b\n\u{1b}");
        graph.add_edge(&"<a> \"&\"", &"b\n\u{1b}", "or\"der").unwrap();
        graph
    }

    #[test]
    fn dot_escapes_what_people_wrote() {
        let expected = "digraph plan {\n  rankdir=LR;\n  node [shape=box];\n  n0 [label=\"<a> \\\"&\\\"\"];\n  n1 [label=\"b  \"];\n  \
                        n0 -> n1 [tooltip=\"or\\\"der\"];\n}\n";
        assert_eq!(graph().dot(|id| (*id).to_owned()), expected);
    }

    #[test]
    fn svg_puts_what_waits_into_the_next_column() {
        let svg = graph().svg(|id| (*id).to_owned());
        assert!(svg.contains("&lt;a&gt; &quot;&amp;&quot;") && !svg.contains('\u{1b}'), "{svg}");
        assert!(svg.contains("<rect x=\"16\" y=\"16\" width=\"72\"") && svg.contains("<rect x=\"152\" y=\"16\" width=\"40\""), "{svg}");
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    }

    #[test]
    fn an_empty_graph_and_a_cycle_have_pictures() {
        assert!(Graph::<u8, &str>::new().svg(ToString::to_string).contains("viewBox=\"0 0 32 32\""));
        let mut cycle = Graph::new();
        cycle.add_node(1);
        cycle.add_edge(&1, &1, "self").unwrap();
        assert!(cycle.svg(ToString::to_string).contains("<path"));
    }
}
