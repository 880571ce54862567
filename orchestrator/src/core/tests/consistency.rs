//! What a run keeps beside its stages, counted anew.

use std::collections::{BTreeMap, BTreeSet};

use crate::core::{Run, Status, effects, effects::effects_of, shape::Phase};

/// Holds everything that is kept up to date against the stages that it is drawn from.
pub(super) fn consistent(run: &Run) {
    let stages = || run.stages.iter().enumerate();
    let of =
        |is: &dyn Fn(&Status) -> bool| -> BTreeSet<usize> { stages().filter(|(_, stage)| is(&stage.status)).map(|(at, _)| at).collect() };
    assert_eq!(run.active, of(&|status| matches!(status, Status::Ready { .. } | Status::Awarded | Status::Running)));
    assert_eq!(run.open, stages().filter(|(_, stage)| !stage.is_over()).count());
    let works = |at: usize| run.shape.phase(at) == Phase::Work;
    assert_eq!(run.open_work, stages().filter(|(at, stage)| works(*at) && !stage.is_over()).count());
    // What was aborted before the run's time was over did not fail by that.
    let failed: BTreeSet<usize> = (0..run.stages.len()).filter(|at| run.has_failed(*at)).collect();
    assert!(run.failed == failed || (run.failed.is_subset(&failed) && run.cancelled.is_some()));
    for at in 0..run.stages.len() {
        let unmet = run.shape.needs(at).filter(|need| !run.ended_well(*need)).count();
        let failed = run.shape.needs(at).filter(|need| run.stages[*need].is_over() && !run.ended_well(*need)).count();
        assert_eq!((run.needs[at].unmet, run.needs[at].failed), (unmet, failed));
        let waits = works(at) && run.stages[at].status == Status::Waiting;
        assert_eq!(run.turn.contains(&at), waits && (unmet == 0 || failed > 0), "{:?}", run.stages[at]);
    }
    let locks = stages().filter(|(_, stage)| !stage.is_over()).filter_map(|(at, stage)| Some((stage.lock.clone()?, at)));
    assert_eq!(run.locks, locks.collect::<BTreeMap<_, _>>());
    let mut due = stages().flat_map(|(_, stage)| {
        let pause = if let Status::Pausing { due_at, .. } = stage.status { Some(due_at) } else { None };
        stage.open_waits().filter_map(|(_, opened)| opened.due_at).chain(pause).collect::<Vec<_>>()
    });
    if let (None, None, None, true, None) = (run.ended, run.times_out_at(), run.force_ends_at(), run.turn.is_empty(), &run.held) {
        assert_eq!(run.next_due(), due.by_ref().min(), "the next timer is the earliest of all");
    }
    let mut keys = BTreeSet::new();
    for effect in effects(run) {
        assert!(keys.insert(effect.key()), "of each thing one is said at a time");
        assert!(effects_of(run, effect.at()).contains(&effect));
    }
}
