//! What the administrator said of each agent at its enrolment, as the eventbus role tells it to those who place work: the roll.
//!
//! ```text
//! auctioneer ───┬── RollRequest ──▶ eventbus
//! orchestrator ─┘ ◀── RollPage ───┘
//! ```
//!
//! An agent says nothing of this itself: what it would say is not listened to.

use std::{collections::BTreeMap, fmt, ops::Bound};

use serde::{Deserialize, Serialize};

use crate::{
    AgentClass, AgentName,
    plan::{Requirements, Value},
    trigger::Trust,
};

/// The agents of one page, at most: each has some 60 bytes, with the longest names 200, and a message has less than 1 MiB.
pub const PAGE_AGENTS_MAX: usize = 2_000;
/// The demand of a stage for agents of a class, in `runtime`; what demands none is for the class `default`.
pub const CLASS: &str = "class";

/// Whose code an agent runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum AgentTrust {
    /// That of trusted runs only: what anybody may have written does not come near it.
    Trusted,
    /// That of untrusted runs only.
    Untrusted,
    /// That of every run. Whatever an untrusted one leaves behind there, trusted ones may meet.
    Any,
}

impl AgentTrust {
    /// Whether it runs the code of such a run.
    pub fn takes(self, trust: Trust) -> bool {
        match (self, trust) {
            (Self::Any, Trust::Trusted | Trust::Untrusted) | (Self::Trusted, Trust::Trusted) | (Self::Untrusted, Trust::Untrusted) => true,
            (Self::Trusted, Trust::Untrusted) | (Self::Untrusted, Trust::Trusted) => false,
        }
    }

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trusted => "trusted",
            Self::Untrusted => "untrusted",
            Self::Any => "any",
        }
    }
}

impl fmt::Display for AgentTrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What an agent was enrolled as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Enrolled {
    /// The class whose stages it is offered.
    pub class: AgentClass,
    /// Whose code it runs.
    pub trust: AgentTrust,
    /// It takes no new work; what it has, it ends.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub draining: bool,
}

/// Whether an agent may be given something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked<'a> {
    /// The run's trust.
    pub trust: Trust,
    /// The class of the stage; `None` where what it demands is the name of none.
    pub class: Option<&'a str>,
}

impl<'a> Asked<'a> {
    /// By a stage with these demands.
    pub fn by(trust: Trust, requires: &'a Requirements) -> Self {
        let class = requires.get(CLASS).map_or(Some(AgentClass::DEFAULT), Value::as_text);
        Self { trust, class }
    }
}

impl Enrolled {
    /// Why it must not be given what is asked, for people; `None` if it may.
    pub fn refuses(&self, asked: Asked<'_>) -> Option<String> {
        if self.draining {
            return Some("it is draining: it takes no new work (`otto agent drain NAME --undo` undoes it)".to_owned());
        }
        if !self.trust.takes(asked.trust) {
            let (run, takes) = match asked.trust {
                Trust::Trusted => ("trusted", "untrusted"),
                Trust::Untrusted => ("untrusted", "trusted"),
            };
            return Some(format!("this run is {run}, and it was enrolled for {takes} runs only"));
        }
        if asked.class != Some(self.class.as_str()) {
            let class = asked.class.unwrap_or("no name of a class");
            return Some(format!("the stage is for class `{class}`, and it was enrolled in class `{}`", self.class));
        }
        None
    }
}

/// Asks who is enrolled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RollRequest {
    /// The agents behind this name; without it, from the first on.
    pub after: Option<AgentName>,
}

/// Who is enrolled, of the names from one to another: who is not here is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RollPage {
    /// Of the names behind this one; without it, from the first on.
    pub after: Option<AgentName>,
    /// Up to this one; without it, to the last.
    pub through: Option<AgentName>,
    /// Each with what it was enrolled as; at most [`PAGE_AGENTS_MAX`].
    pub agents: BTreeMap<AgentName, Enrolled>,
}

/// Asks that an agent takes no new work, or that it does again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DrainRequest {
    /// Which agent.
    pub agent: AgentName,
    /// Whether it takes none.
    pub draining: bool,
}

/// What becomes of a [`DrainRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum DrainReply {
    /// It is written down.
    Done {
        /// What the agent is from now on.
        enrolled: Enrolled,
    },
    /// No such agent is enrolled.
    Unknown,
    /// It could not be written down now.
    Unavailable {
        /// Why, for people.
        message: String,
    },
}

/// An agent asks for a user that ends later than its own. Who asks is said by the subject, and which key it has by its record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RenewalRequest {}

/// What becomes of a [`RenewalRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum RenewalReply {
    /// The same user, until later.
    Signed {
        /// Its JWT. It is of no use to anybody who has not the key of which it speaks.
        jwt: String,
    },
    /// No such agent is enrolled any more.
    Refused {
        /// Why, for people.
        message: String,
    },
}

/// Everybody who is enrolled, as far as it was heard.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roll {
    agents: BTreeMap<AgentName, Enrolled>,
    heard: bool,
}

impl Roll {
    /// Takes a page in. Gives the agents of which something else is said than before.
    pub fn take(&mut self, page: RollPage) -> Vec<AgentName> {
        self.heard = true;
        let from = page.after.map_or(Bound::Unbounded, Bound::Excluded);
        let to = page.through.map_or(Bound::Unbounded, Bound::Included);
        let is_in = |agent: &AgentName| {
            let after = match &from {
                Bound::Excluded(after) => agent > after,
                Bound::Included(_) | Bound::Unbounded => true,
            };
            let through = match &to {
                Bound::Included(through) => agent <= through,
                Bound::Excluded(_) | Bound::Unbounded => true,
            };
            after && through
        };
        let mut changed: Vec<AgentName> =
            self.agents.keys().filter(|agent| is_in(agent) && !page.agents.contains_key(*agent)).cloned().collect();
        for agent in &changed {
            self.agents.remove(agent);
        }
        for (agent, enrolled) in page.agents.into_iter().filter(|(agent, _)| is_in(agent)) {
            if self.agents.get(&agent) != Some(&enrolled) {
                changed.push(agent.clone());
                self.agents.insert(agent, enrolled);
            }
        }
        changed
    }

    /// Takes in what was said of one agent.
    pub fn set(&mut self, agent: AgentName, enrolled: Enrolled) {
        self.agents.insert(agent, enrolled);
    }

    /// What the agent was enrolled as.
    pub fn get(&self, agent: &AgentName) -> Option<&Enrolled> {
        self.agents.get(agent)
    }

    /// Those who may be given what is asked, by name.
    pub fn fitting(&self, asked: Asked<'_>) -> impl Iterator<Item = &AgentName> {
        self.agents.iter().filter(move |(_, enrolled)| enrolled.refuses(asked).is_none()).map(|(agent, _)| agent)
    }

    /// Why the agent must not be given what is asked, for people; `None` if it may. Of whom nothing is known, gets nothing.
    pub fn refuses(&self, agent: &AgentName, asked: Asked<'_>) -> Option<String> {
        match self.agents.get(agent) {
            Some(enrolled) => enrolled.refuses(asked),
            None if self.heard => Some("it is not enrolled".to_owned()),
            None => Some("it is not known yet who is enrolled: the eventbus role has not answered".to_owned()),
        }
    }

    /// What would have to be so for anybody to take what is asked, for people; nothing where somebody may.
    pub fn unmet(&self, asked: Asked<'_>) -> Option<String> {
        if self.fitting(asked).next().is_some() {
            return None;
        }
        if !self.heard {
            return Some(
                "it is not known yet who is enrolled: the eventbus role has not answered (GET /health there says how it is)".to_owned(),
            );
        }
        let Some(class) = asked.class else {
            return Some("`class` of the stage's `runtime` is the name of no class of agents".to_owned());
        };
        let of_class = || self.agents.values().filter(|enrolled| enrolled.class.as_str() == class);
        let takes = |enrolled: &Enrolled| enrolled.trust.takes(asked.trust);
        let (run, option) = match asked.trust {
            Trust::Trusted => ("trusted", "trusted"),
            Trust::Untrusted => ("untrusted", "untrusted"),
        };
        Some(if of_class().any(takes) {
            format!(
                "all agents of class `{class}` that take {run} runs are draining: `otto agent drain NAME --undo` has one take work again"
            )
        } else if of_class().next().is_some() {
            format!(
                "this run is {run}, and no agent of class `{class}` takes {run} runs: `otto agent enrol NAME --trust {option}` makes a token for one that \
                 does; `otto up --trust any` has its own agents take every run"
            )
        } else {
            format!(
                "no agent of class `{class}` is enrolled: `otto agent enrol NAME --class {class} --trust {option}` makes a token for one"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(name: &str) -> AgentName {
        name.parse().unwrap()
    }

    fn enrolled(class: &str, trust: AgentTrust, draining: bool) -> Enrolled {
        Enrolled { class: class.parse().unwrap(), trust, draining }
    }

    fn page(after: Option<&str>, through: Option<&str>, agents: &[(&str, AgentTrust)]) -> RollPage {
        let agents = agents.iter().map(|(name, trust)| (agent(name), enrolled("default", *trust, false))).collect();
        RollPage { after: after.map(agent), through: through.map(agent), agents }
    }

    #[test]
    fn an_agent_takes_what_it_was_enrolled_for() {
        use AgentTrust::{Any, Trusted, Untrusted};
        let classed = Requirements::from([(CLASS.to_owned(), Value::from("big"))]);
        let numbered = Requirements::from([(CLASS.to_owned(), Value::Integer(1))]);
        let none = Requirements::new();
        for (class, takes, draining, trust, requires, may) in [
            ("default", Trusted, false, Trust::Trusted, &none, true),
            ("default", Trusted, false, Trust::Untrusted, &none, false),
            ("default", Untrusted, false, Trust::Trusted, &none, false),
            ("default", Untrusted, false, Trust::Untrusted, &none, true),
            ("default", Any, false, Trust::Trusted, &none, true),
            ("default", Any, false, Trust::Untrusted, &none, true),
            ("default", Any, true, Trust::Trusted, &none, false),
            ("default", Any, false, Trust::Trusted, &classed, false),
            ("big", Any, false, Trust::Trusted, &classed, true),
            ("big", Any, false, Trust::Trusted, &none, false),
            ("big", Any, false, Trust::Trusted, &numbered, false),
        ] {
            let (enrolled, asked) = (enrolled(class, takes, draining), Asked::by(trust, requires));
            assert_eq!(enrolled.refuses(asked).is_none(), may, "{enrolled:?} {asked:?}");
        }
    }

    #[test]
    fn a_page_says_all_of_its_names_and_nothing_of_others() {
        use AgentTrust::{Trusted, Untrusted};
        let mut roll = Roll::default();
        assert_eq!(roll.take(page(None, Some("c"), &[("a", Trusted), ("c", Trusted), ("d", Trusted)])), [agent("a"), agent("c")]);
        assert_eq!(roll.take(page(Some("c"), None, &[("d", Trusted)])), [agent("d")]);
        assert_eq!(roll.take(page(None, Some("c"), &[("a", Trusted), ("b", Trusted)])), [agent("c"), agent("b")]);
        assert_eq!(roll.take(page(Some("b"), None, &[("d", Untrusted)])), [agent("d")]);
        assert_eq!(roll.take(page(None, None, &[("a", Trusted), ("b", Trusted), ("d", Untrusted)])), []);
        assert!(roll.get(&agent("c")).is_none() && roll.get(&agent("b")).is_some());
    }

    #[test]
    fn nobody_of_whom_nothing_is_known_gets_anything_and_what_would_mend_it_is_said() {
        let (none, mut roll) = (Requirements::new(), Roll::default());
        let asked = Asked::by(Trust::Untrusted, &none);
        assert!(roll.refuses(&agent("a"), asked).unwrap().contains("not known yet") && roll.unmet(asked).unwrap().contains("eventbus"));
        roll.take(page(None, None, &[]));
        assert_eq!(roll.refuses(&agent("a"), asked).unwrap(), "it is not enrolled");
        assert!(roll.unmet(asked).unwrap().starts_with("no agent of class `default` is enrolled"));
        roll.take(page(None, None, &[("a", AgentTrust::Trusted)]));
        assert_eq!(roll.refuses(&agent("a"), asked).unwrap(), "this run is untrusted, and it was enrolled for trusted runs only");
        let unmet = roll.unmet(asked).unwrap();
        assert!(unmet.starts_with("this run is untrusted, and no agent of class `default` takes untrusted runs"), "{unmet}");
        assert!(unmet.contains("`otto agent enrol NAME --trust untrusted`") && unmet.contains("`otto up --trust any`"), "{unmet}");
        let draining = RollPage { agents: [(agent("a"), enrolled("default", AgentTrust::Any, true))].into(), ..page(None, None, &[]) };
        roll.take(draining);
        assert!(roll.unmet(asked).unwrap().contains("--undo"));
        roll.take(page(None, None, &[("a", AgentTrust::Any)]));
        assert_eq!((roll.unmet(asked), roll.refuses(&agent("a"), asked)), (None, None));
    }
}
