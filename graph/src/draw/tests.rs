//! What a picture has in it.

use super::*;

fn look(label: &str) -> Look {
    Look { label: label.to_owned(), title: label.to_owned(), ..Look::default() }
}

fn graph() -> Graph<&'static str, &'static str> {
    let mut graph = Graph::new();
    graph.add_node("<a> \"&\"");
    graph.add_node("b\n\u{1b}");
    graph.add_edge(&"<a> \"&\"", &"b\n\u{1b}", "or\"der").unwrap();
    graph
}

fn svg(graph: &Graph<usize, &'static str>) -> String {
    graph.svg(|id| look(&format!("stage {id}")), |reason| Line { implied: *reason == "order", dashed: false })
}

#[test]
fn dot_escapes_what_people_wrote() {
    let dot = graph().dot(|id| look(id), |_| Line::default());
    assert!(dot.contains("n0 [label=\"<a> \\\"&\\\"\", tooltip=") && dot.contains("n1 [label=\"b\\n \""), "{dot}");
    assert!(dot.ends_with("  n0 -> n1 [tooltip=\"or\\\"der\"];\n}\n"), "{dot}");
}

#[test]
fn dot_puts_a_group_into_one_cluster() {
    let mut graph: Graph<usize, &str> = Graph::new();
    for node in 0..4 {
        graph.add_node(node);
    }
    let grouped = |id: &usize| Look { groups: if id.is_multiple_of(2) { vec!["even".to_owned()] } else { vec![] }, ..look("x") };
    let dot = graph.dot(grouped, |_| Line::default());
    assert_eq!((dot.matches("subgraph").count(), dot.matches('{').count()), (1, dot.matches('}').count()), "{dot}");
}

#[test]
fn svg_escapes_what_people_wrote() {
    let svg = graph().svg(|id| look(id), |_| Line::default());
    assert!(svg.contains("&lt;a&gt; &quot;&amp;&quot;") && !svg.contains('\u{1b}'), "{svg}");
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
}

#[test]
fn an_empty_graph_and_a_cycle_have_pictures() {
    assert!(svg(&Graph::new()).contains("viewBox"));
    let mut cycle = Graph::new();
    for node in 0..3 {
        cycle.add_node(node);
    }
    for node in 0..3 {
        cycle.add_edge(&node, &((node + 1) % 3), "self").unwrap();
    }
    cycle.add_edge(&1, &1, "self").unwrap();
    assert!(svg(&cycle).contains("<path"));
}

#[test]
fn an_edge_that_another_way_implies_is_left_out() {
    let mut graph = Graph::new();
    for node in 0..3 {
        graph.add_node(node);
    }
    for (first, second, reason) in [(0, 1, "order"), (1, 2, "order"), (0, 2, "order")] {
        graph.add_edge(&first, &second, reason).unwrap();
    }
    assert!(!svg(&graph).contains("stage 2 ← stage 0"));
    graph.add_edge(&0, &2, "needs").unwrap();
    assert!(svg(&graph).contains("stage 2 ← stage 0: order, needs"));
}

#[test]
fn crowds_meet_in_a_joint() {
    let mut graph = Graph::new();
    for node in 0..40 {
        graph.add_node(node);
    }
    for first in 0..20 {
        for second in 20..40 {
            graph.add_edge(&first, &second, "order").unwrap();
        }
    }
    let svg = svg(&graph);
    assert_eq!((svg.matches("<circle").count(), svg.matches("class=\"l\"").count()), (1, 21), "{svg}");
}
