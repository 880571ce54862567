//! Directed graphs whose edges have reasons: order, cycles with their path, readiness, and pictures.
//!
//! A graph is built first and checked after: it may hold a cycle until [`Graph::order`] finds it. Nodes are kept in the order in which they
//! were added, and every answer follows that order, so the same graph gives the same answer.
//!
//! **Invariant:** pure; no function recurses (a pipeline has up to 5,000 stages, which may stand one behind the other); time is near-linear
//! in nodes and edges.

mod draw;
mod order;

use std::{collections::BTreeMap, fmt};

pub use draw::{Line, Look, Mark, Shape};
pub use order::Cycle;

/// A directed graph of `Id`s. An edge leads from what comes first to what waits for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Graph<Id, Reason> {
    ids: Vec<Id>,
    index: BTreeMap<Id, usize>,
    /// For each node, what it waits for and why.
    needs: Vec<Vec<(usize, Reason)>>,
    /// For each node, what waits for it.
    dependents: Vec<Vec<usize>>,
}

/// An edge was to be added to a node that the graph does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the graph has no node {0}")]
pub struct UnknownNode<Id: fmt::Debug + fmt::Display>(pub Id);

impl<Id, Reason> Default for Graph<Id, Reason> {
    fn default() -> Self {
        Self { ids: Vec::new(), index: BTreeMap::new(), needs: Vec::new(), dependents: Vec::new() }
    }
}

impl<Id: Ord + Clone, Reason> Graph<Id, Reason> {
    /// Without a node.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a node; `false` if it is there already.
    pub fn add_node(&mut self, id: Id) -> bool {
        if self.index.contains_key(&id) {
            return false;
        }
        self.index.insert(id.clone(), self.ids.len());
        self.ids.push(id);
        self.needs.push(Vec::new());
        self.dependents.push(Vec::new());
        true
    }

    /// Adds the edge "`second` waits for `first`, because of `reason`". Two nodes may have several edges, each with a reason of its own.
    pub fn add_edge(&mut self, first: &Id, second: &Id, reason: Reason) -> Result<(), UnknownNode<Id>>
    where
        Id: fmt::Debug + fmt::Display,
    {
        let known = |id: &Id| self.index.get(id).copied().ok_or_else(|| UnknownNode(id.clone()));
        let (first, second) = (known(first)?, known(second)?);
        self.needs[second].push((first, reason));
        self.dependents[first].push(second);
        Ok(())
    }

    /// The nodes, as they were added.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = &Id> {
        self.ids.iter()
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is no node.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Whether the node is there.
    pub fn contains(&self, id: &Id) -> bool {
        self.index.contains_key(id)
    }

    /// What `id` waits for directly, and why; nothing for an unknown node.
    pub fn needs(&self, id: &Id) -> impl Iterator<Item = (&Id, &Reason)> {
        self.index.get(id).into_iter().flat_map(|node| &self.needs[*node]).map(|(first, reason)| (&self.ids[*first], reason))
    }

    /// What waits for `id` directly; nothing for an unknown node.
    pub fn dependents(&self, id: &Id) -> impl Iterator<Item = &Id> {
        self.index.get(id).into_iter().flat_map(|node| &self.dependents[*node]).map(|second| &self.ids[*second])
    }

    /// Whether everything that `id` waits for is done.
    pub fn is_ready(&self, id: &Id, done: impl Fn(&Id) -> bool) -> bool {
        self.needs(id).all(|(first, _)| done(first))
    }

    /// What is not done and waits for nothing that is not done.
    pub fn ready(&self, done: impl Fn(&Id) -> bool) -> Vec<&Id> {
        let done: Vec<bool> = self.ids.iter().map(done).collect();
        let ready = |node: &usize| !done[*node] && self.needs[*node].iter().all(|(first, _)| done[*first]);
        (0..self.ids.len()).filter(ready).map(|node| &self.ids[node]).collect()
    }

    /// Everything that waits for `id`, directly or through others, without `id` itself unless it waits for itself.
    pub fn transitive_dependents(&self, id: &Id) -> Vec<&Id> {
        let mut reached = vec![false; self.ids.len()];
        let mut open: Vec<usize> = self.index.get(id).into_iter().copied().collect();
        while let Some(node) = open.pop() {
            for &second in &self.dependents[node] {
                if !reached[second] {
                    reached[second] = true;
                    open.push(second);
                }
            }
        }
        (0..self.ids.len()).filter(|node| reached[*node]).map(|node| &self.ids[node]).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn graph(nodes: usize, edges: &[(usize, usize)]) -> Graph<usize, &'static str> {
        let mut graph = Graph::new();
        for node in 0..nodes {
            assert!(graph.add_node(node));
        }
        for (first, second) in edges {
            graph.add_edge(first, second, "because").unwrap();
        }
        graph
    }

    #[test]
    fn an_edge_to_nowhere_is_refused_and_a_doubled_node_is_one() {
        let mut graph = graph(1, &[]);
        assert!(!graph.add_node(0));
        assert_eq!(graph.add_edge(&0, &7, "because"), Err(UnknownNode(7)));
        assert_eq!(graph.len(), 1);
    }

    #[test]
    fn ready_is_what_waits_for_nothing_undone() {
        let diamond = graph(4, &[(0, 1), (0, 2), (1, 3), (2, 3)]);
        assert_eq!(diamond.ready(|_| false), [&0]);
        assert_eq!(diamond.ready(|id| *id == 0), [&1, &2]);
        assert_eq!(diamond.ready(|id| *id < 2), [&2]);
        assert_eq!(diamond.ready(|id| *id < 3), [&3]);
        assert!(diamond.ready(|_| true).is_empty());
        assert!(diamond.is_ready(&3, |id| *id < 3) && !diamond.is_ready(&3, |id| *id < 2));
    }

    #[test]
    fn transitive_dependents_are_all_that_come_after() {
        let graph = graph(5, &[(0, 1), (1, 3), (2, 3), (3, 4)]);
        assert_eq!(graph.transitive_dependents(&1), [&3, &4]);
        assert_eq!(graph.dependents(&1).collect::<Vec<_>>(), [&3]);
        assert_eq!(graph.needs(&3).collect::<Vec<_>>(), [(&1, &"because"), (&2, &"because")]);
        assert!(graph.transitive_dependents(&9).is_empty());
    }

    #[test]
    fn a_chain_of_100_000_does_not_recurse() {
        let nodes = 100_000;
        let edges: Vec<(usize, usize)> = (1..nodes).map(|node| (node - 1, node)).collect();
        let mut chain = graph(nodes, &edges);
        assert_eq!(chain.order().unwrap().len(), nodes);
        assert_eq!(chain.transitive_dependents(&0).len(), nodes - 1);
        chain.add_edge(&(nodes - 1), &0, "back").unwrap();
        assert_eq!(chain.order().unwrap_err().path.len(), nodes);
    }

    proptest! {
        #[test]
        fn an_order_puts_every_need_first_and_a_cycle_is_one(edges in prop::collection::vec((0usize..12, 0usize..12), 0..30)) {
            let graph = graph(12, &edges);
            match graph.order() {
                Ok(order) => {
                    let place = |id: &usize| order.iter().position(|other| *other == id).unwrap();
                    prop_assert_eq!(order.len(), 12);
                    for (first, second) in &edges {
                        prop_assert!(place(first) < place(second));
                    }
                }
                Err(Cycle { path }) => {
                    for (position, (first, _)) in path.iter().enumerate() {
                        let second = path[(position + 1) % path.len()].0;
                        prop_assert!(edges.contains(&(*first, second)), "{first} -> {second}");
                    }
                }
            }
        }
    }
}
