//! The order of the plan: each stage after those that it needs, and wherever possible as written. And the circle that forbids one.

use graph::{Cycle, Graph};
use model::plan::{Need, NeedReason, Stage};

use super::Wiring;
use crate::diagnostic::{Code, Finding, quoted};

/// Edges of a circle that are told; of a longer one, its beginning and its end.
const CIRCLE_MAX: usize = 8;

impl Wiring<'_, '_, '_> {
    /// The stages in the order of the plan; `None` if they wait for each other, which is told.
    pub(super) fn order(&mut self) -> Option<Vec<usize>> {
        let forwards = |(stage, laid): (usize, &super::Laid)| laid.edges.iter().any(|edge| edge.first >= stage);
        if !self.laid.iter().enumerate().any(forwards) {
            return Some((0..self.laid.len()).collect());
        }
        let mut graph: Graph<usize, usize> = Graph::new();
        for stage in 0..self.laid.len() {
            graph.add_node(stage);
        }
        for (stage, laid) in self.laid.iter().enumerate() {
            for (place, edge) in laid.edges.iter().enumerate() {
                graph.add_edge(&edge.first, &stage, place).expect("an edge is between stages");
            }
        }
        match graph.order() {
            Ok(order) => Some(order.into_iter().copied().collect()),
            Err(cycle) => self.circle(&cycle),
        }
    }

    fn circle<T>(&mut self, cycle: &Cycle<usize, usize>) -> Option<T> {
        let path: Vec<(usize, usize)> = cycle.path.clone();
        let mut told = Vec::new();
        let mut place = None;
        for (position, (first, edge)) in path.iter().enumerate() {
            let second = path[(position + 1) % path.len()].0;
            let laid = &self.laid[second];
            let Some(edge) = laid.edges.get(*edge) else { continue };
            place = place.or(edge.place);
            told.push(format!("{} waits for {}: {}", quoted(&laid.stage.path), quoted(&self.laid[*first].stage.path), why(&edge.reason)));
        }
        if told.len() > CIRCLE_MAX {
            let left_out = told.len() - CIRCLE_MAX;
            told.splice(CIRCLE_MAX / 2..told.len() - CIRCLE_MAX / 2, [format!("… and {left_out} more …")]);
        }
        let laid = &self.laid[path.first()?.0];
        let (file, span) = place.unwrap_or((laid.file, laid.span));
        let message = if path.len() == 1 {
            format!("the stage {} waits for itself", quoted(&laid.stage.path))
        } else {
            format!("{} stages wait for each other in a circle", path.len())
        };
        self.refuse(file, Finding::new(Code::StageCircle, span, message).label("closes the circle").help(told.join("\n")))
    }

    /// The stages of the plan.
    pub(super) fn finished(self, order: &[usize]) -> Vec<Stage> {
        let ids: Vec<_> = self.laid.iter().map(|laid| laid.stage.id.clone()).collect();
        let mut laid: Vec<Option<super::Laid>> = self.laid.into_iter().map(Some).collect();
        let mut stages = Vec::with_capacity(laid.len());
        for stage in order {
            let Some(super::Laid { stage, mut edges, .. }) = laid.get_mut(*stage).and_then(Option::take) else { continue };
            edges.sort_by(|one, other| (one.first, &one.reason).cmp(&(other.first, &other.reason)));
            edges.dedup_by(|one, other| (one.first, &one.reason) == (other.first, &other.reason));
            let needs = edges.into_iter().map(|edge| Need { stage: ids[edge.first].clone(), reason: edge.reason }).collect();
            stages.push(Stage { needs, ..stage });
        }
        stages
    }
}

/// Why one stage waits for another, for a message.
fn why(reason: &NeedReason) -> String {
    match reason {
        NeedReason::Order => "it is written after it".to_owned(),
        NeedReason::Needs => "`needs`".to_owned(),
        NeedReason::Cache(name) => format!("the cache {}", quoted(name)),
        NeedReason::Artifact(name) => format!("the artifact {}", quoted(name)),
        NeedReason::From(block) => format!("{} is copied from it", quoted(block)),
        NeedReason::Environment(name) => format!("the environment {}", quoted(name)),
        NeedReason::Variable(name) => format!("the variable {}", quoted(&format!("vars.{name}"))),
        NeedReason::Barrier => "one of both waits for people or for the outside, and keeps its place".to_owned(),
        NeedReason::Rollback => "it undoes it".to_owned(),
    }
}
