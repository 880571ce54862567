//! The order of a graph's nodes, or the cycle that forbids one.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    fmt::{self, Display},
};

use crate::Graph;

/// Nodes that wait for each other in a circle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cycle<Id, Reason> {
    /// Each node with the reason why the next one waits for it; the first node waits for the last. Never empty.
    pub path: Vec<(Id, Reason)>,
}

impl<Id: Display, Reason: Display> Display for Cycle<Id, Reason> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (id, reason) in &self.path {
            write!(f, "{id} -> ({reason}) -> ")?;
        }
        match self.path.first() {
            Some((id, _)) => write!(f, "{id}"),
            None => Ok(()),
        }
    }
}

impl<Id: Display + fmt::Debug, Reason: Display + fmt::Debug> std::error::Error for Cycle<Id, Reason> {}

impl<Id: Ord + Clone, Reason: Clone> Graph<Id, Reason> {
    /// All nodes, each after those it waits for; among those that could come next, the one that was added first.
    pub fn order(&self) -> Result<Vec<&Id>, Cycle<Id, Reason>> {
        let order = self.order_of_indices();
        if order.len() == self.ids.len() {
            return Ok(order.into_iter().map(|node| &self.ids[node]).collect());
        }
        let mut ordered = vec![false; self.ids.len()];
        for node in order {
            ordered[node] = true;
        }
        Err(self.cycle_among(&ordered))
    }

    /// The cycle that keeps the graph from having an order, if there is one.
    pub fn cycle(&self) -> Option<Cycle<Id, Reason>> {
        self.order().err()
    }

    /// A cycle among the nodes that have no place in the order. Each of them waits for another of them, so walking from need to need
    /// comes back to a node it has seen.
    fn cycle_among(&self, ordered: &[bool]) -> Cycle<Id, Reason> {
        let start = ordered.iter().position(|ordered| !ordered).expect("a graph without an order has a node without a place");
        let mut seen = vec![None; self.ids.len()];
        let mut walk: Vec<(usize, &Reason)> = Vec::new();
        let mut node = start;
        while seen[node].is_none() {
            seen[node] = Some(walk.len());
            let waits = self.needs[node].iter().find(|(first, _)| !ordered[*first]);
            let (first, reason) = waits.expect("a node without a place waits for another without one");
            walk.push((*first, reason));
            node = *first;
        }
        let from = seen[node].expect("the walk ends at a node that it has seen");
        let mut path: Vec<(Id, Reason)> =
            walk[from..].iter().rev().map(|(first, reason)| (self.ids[*first].clone(), (*reason).clone())).collect();
        // The same circle is told from its first node, whichever way it was found.
        let first = (0..path.len()).min_by_key(|place| self.index[&path[*place].0]).unwrap_or(0);
        path.rotate_left(first);
        Cycle { path }
    }
}

impl<Id, Reason> Graph<Id, Reason> {
    /// Kahn's algorithm (Communications of the ACM 5, 1962). Shorter than the graph if there is a cycle.
    pub(crate) fn order_of_indices(&self) -> Vec<usize> {
        let mut waits: Vec<usize> = self.needs.iter().map(Vec::len).collect();
        let mut open: BinaryHeap<Reverse<usize>> =
            waits.iter().enumerate().filter(|(_, needs)| **needs == 0).map(|(node, _)| Reverse(node)).collect();
        let mut order = Vec::with_capacity(self.ids.len());
        while let Some(Reverse(node)) = open.pop() {
            order.push(node);
            for &second in &self.dependents[node] {
                waits[second] -= 1;
                if waits[second] == 0 {
                    open.push(Reverse(second));
                }
            }
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(edges: &[(&'static str, &'static str)]) -> Graph<&'static str, &'static str> {
        let mut graph = Graph::new();
        for node in ["c", "b", "a", "d"] {
            graph.add_node(node);
        }
        for (first, second) in edges {
            graph.add_edge(first, second, "order").unwrap();
        }
        graph
    }

    #[test]
    fn the_order_is_that_of_insertion_where_nothing_else_decides() {
        assert_eq!(graph(&[]).order().unwrap(), [&"c", &"b", &"a", &"d"]);
        assert_eq!(graph(&[("a", "c")]).order().unwrap(), [&"b", &"a", &"c", &"d"]);
    }

    #[test]
    fn a_cycle_is_told_with_its_path() {
        let cycle = graph(&[("c", "b"), ("b", "a"), ("a", "c"), ("a", "d")]).cycle().unwrap();
        assert_eq!(cycle.to_string(), "c -> (order) -> b -> (order) -> a -> (order) -> c");
        assert_eq!(graph(&[("d", "d")]).cycle().unwrap().to_string(), "d -> (order) -> d");
        assert_eq!(graph(&[("c", "b")]).cycle(), None);
    }
}
