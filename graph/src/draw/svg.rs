//! The picture as SVG 1.1, in colours that light and dark pages both let see.

use super::{
    Look, Mark, Shape, push,
    sketch::Sketch,
    tree::{Rect, Tree, shown},
};

/// Of the style of the picture. What lies on the page itself has a middle tone; what has a ground of its own is dark on light.
const STYLE: &str = "\
text{font:13px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;fill:#1f2328}\
.n{font-size:11px;fill:#57606a}\
.t{font-weight:600;font-size:12px;fill:#768390}\
.g{fill:#8c959f;fill-opacity:.1;stroke:#8c959f;stroke-opacity:.5}\
.l{fill:none;stroke:#8c959f;stroke-width:1.4}\
.a,.j{fill:#8c959f}\
.work{fill:#fff;stroke:#57606a}\
.delivery{fill:#ddf4ff;stroke:#0969da}\
.wait{fill:#fff8c5;stroke:#9a6700}\
.undo{fill:#ffebe9;stroke:#cf222e;stroke-dasharray:5 3}\
.faded{fill:#eaeef2;stroke:#8c959f;stroke-dasharray:3 3}\
.faded~text{fill:#6e7781}\
.m{fill:none;stroke:#57606a;stroke-width:1.5;stroke-linejoin:round;stroke-linecap:round}";

/// Sizes of an arrow's head.
const ARROW: (i64, i64) = (7, 4);

pub(super) fn write(sketch: &Sketch, tree: &Tree) -> String {
    let Tree { nodes, groups, paths, width, height } = tree;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" role=\"img\">\n\
         <style>{STYLE}</style>\n"
    );
    for (name, Rect { x, y, width, height }) in groups {
        let (text_x, text_y) = (x + 10, y + 16);
        push(
            &mut svg,
            format_args!(
                "<g><title>{}</title><rect class=\"g\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"8\"/>\
                 <text class=\"t\" x=\"{text_x}\" y=\"{text_y}\">{}</text></g>\n",
                xml(name),
                xml(&shown(name))
            ),
        );
    }
    let mut lines: Vec<String> = vec![String::new(); sketch.sources.len()];
    for (source, path) in paths {
        path.write(&mut lines[*source]);
    }
    for (data, source) in lines.iter().zip(&sketch.sources) {
        let dashed = if source.dashed { " stroke-dasharray=\"5 3\"" } else { "" };
        let title = if source.title.is_empty() { String::new() } else { format!("<title>{}</title>", xml(&source.title)) };
        push(&mut svg, format_args!("<path class=\"l\"{dashed} d=\"{data}\">{title}</path>\n"));
    }
    arrows(&mut svg, sketch, nodes);
    for (node, rect) in sketch.nodes.iter().zip(nodes) {
        if let Some(look) = &node.look {
            draw(&mut svg, look, rect);
        } else {
            let radius = rect.width / 2;
            push(&mut svg, format_args!("<circle class=\"j\" cx=\"{}\" cy=\"{}\" r=\"{radius}\"/>\n", rect.x + radius, rect.y + radius));
        }
    }
    svg.push_str("</svg>\n");
    svg
}

/// A head where lines enter a node.
fn arrows(svg: &mut String, sketch: &Sketch, nodes: &[Rect]) {
    let mut entered: Vec<bool> = vec![false; nodes.len()];
    for link in &sketch.links {
        entered[link.to] = sketch.nodes[link.to].look.is_some();
    }
    let (length, half) = ARROW;
    let mut data = String::new();
    for Rect { x, y, height, .. } in nodes.iter().zip(entered).filter(|(_, entered)| *entered).map(|(rect, _)| rect) {
        push(&mut data, format_args!("M{} {}l{length} {half} -{length} {half}z", x - length, y + height / 2 - half));
    }
    push(svg, format_args!("<path class=\"a\" d=\"{data}\"/>\n"));
}

fn draw(svg: &mut String, look: &Look, rect: &Rect) {
    let Rect { x, y, width, height } = rect;
    let Look { label, note, title, shape, mark, faded, groups: _ } = look;
    let class = match (faded, shape) {
        (true, _) => "faded",
        (false, Shape::Work) => "work",
        (false, Shape::Delivery) => "delivery",
        (false, Shape::Wait) => "wait",
        (false, Shape::Undo) => "undo",
    };
    let radius = if *shape == Shape::Wait { height / 2 } else { 5 };
    push(
        svg,
        format_args!(
            "<g><title>{}</title><rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"{radius}\"/>",
            xml(title)
        ),
    );
    let mut text_x = x + 10;
    if let Some(mark) = mark {
        draw_mark(svg, *mark, text_x, y + height / 2 - 7);
        text_x += 18;
    }
    let text_y = if note.is_empty() { y + height / 2 + 5 } else { y + 19 };
    push(svg, format_args!("<text x=\"{text_x}\" y=\"{text_y}\">{}</text>", xml(&shown(label))));
    if !note.is_empty() {
        push(svg, format_args!("<text class=\"n\" x=\"{text_x}\" y=\"{}\">{}</text>", y + 35, xml(&shown(note))));
    }
    svg.push_str("</g>\n");
}

/// A sign of 12 by 14 units, without any font.
fn draw_mark(svg: &mut String, mark: Mark, x: i64, y: i64) {
    let data = match mark {
        // A head, and shoulders below it.
        Mark::Person => "m3 4a3 3 0 1 0 6 0a3 3 0 1 0 -6 0m-3 10a6 6 0 0 1 12 0z",
        Mark::Hourglass => "m1 1h10l-10 12h10z",
        // An arrow that turns back.
        Mark::Back => "m1 4h7a4 4 0 0 1 0 8h-4m1 -12l-4 4l4 4",
    };
    push(svg, format_args!("<path class=\"m\" d=\"M{x} {y}{data}\"/>"));
}

/// Character data of XML. Control characters become blanks: XML 1.0 forbids most of them. Line breaks stay.
fn xml(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' => escaped.push('\n'),
            control if control.is_control() || matches!(control, '\u{fffe}' | '\u{ffff}') => escaped.push(' '),
            other => escaped.push(other),
        }
    }
    escaped
}
