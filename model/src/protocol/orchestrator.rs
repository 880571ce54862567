//! What orchestrators that work side by side say to each other.
//!
//! Each tells that it is there, and which others it counts; what reaches one that does not work on the run is passed on to the one that does.

use std::{collections::BTreeSet, fmt};

use serde::{Deserialize, Serialize};

use crate::{
    RunId, StageId,
    event::run::{Answer, CancelReason, WaitKey},
    trigger::Trigger,
};

/// One start of an orchestrator. The same one is another after its restart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Member(String);

impl Member {
    /// The start of the orchestrator `name` with this number, which no other start has.
    pub fn new(name: &str, start: u64) -> Self {
        Self(format!("{name}.{start:016x}"))
    }

    /// The member as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What an orchestrator tells all the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Told {
    /// It is there.
    Here(Here),
    /// It ends, and works on nothing any more.
    Leaving {
        /// Who.
        member: Member,
    },
    /// It has appended a record.
    Appended {
        /// The record's sequence.
        sequence: u64,
    },
}

/// An orchestrator is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Here {
    /// Who.
    pub member: Member,
    /// Counts what it says of itself: it hears that, too, and so knows that the others can.
    pub number: u64,
    /// Those that it counts, itself among them. What is not its own among these, it has ceased to work on.
    pub view: BTreeSet<Member>,
    /// Whether it has listened long enough to count everybody.
    pub settled: bool,
}

/// What an orchestrator passes on to whichever works on the run. It says it again until the log has what comes of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Asked {
    /// Is any other orchestrator there? Nobody answers; the bus knows whether somebody listens.
    WhoIsThere,
    /// A stored trigger that was delivered here.
    Trigger {
        /// The trigger.
        trigger: Box<Trigger>,
    },
    /// The run is to end.
    Cancel {
        /// The run.
        run: RunId,
        /// Who wants it.
        by: String,
        /// Why.
        reason: CancelReason,
        /// Whether at once.
        force: bool,
    },
    /// Something that a stage waits for has happened. Whether this person may answer was checked.
    Answered {
        /// The run.
        run: RunId,
        /// The stage.
        stage: StageId,
        /// Which of its waits.
        wait: WaitKey,
        /// What happened.
        answer: Answer,
        /// Who answered, if somebody did.
        by: Option<String>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_starts_of_one_orchestrator_are_two_members() {
        assert_ne!(Member::new("orchestrator", 1), Member::new("orchestrator", 2));
        assert_eq!(Member::new("orchestrator", 255).as_str(), "orchestrator.00000000000000ff");
    }
}
