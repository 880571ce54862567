//! The table of subjects: what is said, where, by whom, to whom, and whether it is kept.

mod table;

use std::fmt;

use model::{AgentName, AuctionId, RunId, StageId, TriggerId, protocol::agent::ReportKind};

pub use self::table::{AGENT, CHANNELS, CLASS, Channel, Party, Role, Stream};

/// A concrete subject, made only by the functions of this module.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject(String);

/// A subject, or a pattern of subjects in NATS's syntax: `*` is one token, `>` all that follow.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern(String);

impl Subject {
    /// [`model::trigger::Trigger`], durable in `TRIGGERS`. Each trigger has a subject of its own, so the stream takes it once.
    pub fn trigger(trigger: &TriggerId) -> Self {
        Self(format!("triggers.{trigger}"))
    }

    /// [`model::event::run::RunRecord`], durable in `RUNS`.
    pub fn run(run: &RunId) -> Self {
        Self(format!("runs.{run}"))
    }

    /// [`model::planning::PlanRequest`], answered by [`model::planning::PlanReply`].
    pub fn plan() -> Self {
        Self("parser.plan".to_owned())
    }

    /// [`model::planning::TriggersRequest`], answered by [`model::planning::TriggersReply`].
    pub fn triggers() -> Self {
        Self("parser.triggers".to_owned())
    }

    /// [`model::protocol::forge::ProjectRunRequest`], answered by [`model::protocol::forge::ProjectRunReply`].
    pub fn project_run() -> Self {
        Self("forge.run".to_owned())
    }

    /// [`model::protocol::auction::AuctionRequest`], orchestrator to auctioneer.
    pub fn for_auction() -> Self {
        Self("tasks.for_auction".to_owned())
    }

    /// [`model::protocol::auction::Announcement`], auctioneer to the agents of a class.
    pub fn auction(class: &str) -> Self {
        Self(format!("tasks.auction.{class}"))
    }

    /// [`model::protocol::auction::Announcement`], auctioneer to one agent of a fleet that is too large to be asked as a whole.
    pub fn call(agent: &AgentName) -> Self {
        Self(format!("tasks.calls.{agent}"))
    }

    /// [`model::protocol::auction::Experience`], orchestrator to every auctioneer.
    pub fn ran() -> Self {
        Self("tasks.ran".to_owned())
    }

    /// [`model::protocol::agent::Revoked`], eventbus to every orchestrator.
    pub fn revoked() -> Self {
        Self("tasks.revoked".to_owned())
    }

    /// [`model::protocol::orchestrator::Told`], orchestrator to every orchestrator.
    pub fn orchestrators_told() -> Self {
        Self("orchestrators.told".to_owned())
    }

    /// [`model::protocol::orchestrator::Asked`], orchestrator to the one that works on a run.
    pub fn orchestrators_asked() -> Self {
        Self("orchestrators.asked".to_owned())
    }

    /// [`model::protocol::enrolment::RollRequest`], answered by [`model::protocol::enrolment::RollPage`].
    pub fn roll() -> Self {
        Self("enrolment.roll".to_owned())
    }

    /// [`model::protocol::enrolment::RollPage`], eventbus to every auctioneer and orchestrator, when the roll has changed.
    pub fn enrolled() -> Self {
        Self("enrolment.changed".to_owned())
    }

    /// [`model::protocol::enrolment::DrainRequest`], answered by [`model::protocol::enrolment::DrainReply`].
    pub fn drain() -> Self {
        Self("enrolment.drain".to_owned())
    }

    /// [`model::protocol::enrolment::RenewalRequest`], agent to eventbus.
    pub fn renew(agent: &AgentName) -> Self {
        Self(format!("enrolment.renew.{agent}"))
    }

    /// [`model::protocol::enrolment::RenewalReply`], eventbus to agent.
    pub fn renewed(agent: &AgentName) -> Self {
        Self(format!("enrolment.renewed.{agent}"))
    }

    /// [`model::protocol::auction::Bid`], agent to auctioneer.
    pub fn bid(agent: &AgentName, auction: &AuctionId) -> Self {
        Self(format!("tasks.bids.{agent}.{auction}"))
    }

    /// [`model::protocol::auction::Proposal`], auctioneer to orchestrator.
    pub fn proposed() -> Self {
        Self("tasks.proposed".to_owned())
    }

    /// [`model::protocol::agent::AgentCommand`], orchestrator to agent.
    pub fn inbox(agent: &AgentName) -> Self {
        Self(format!("inbox.{agent}"))
    }

    /// [`model::protocol::agent::AgentReport`], agent to orchestrator.
    pub fn report(agent: &AgentName, kind: ReportKind) -> Self {
        let channel = match kind {
            ReportKind::Declined => "declined",
            ReportKind::Started => "started",
            ReportKind::Finished | ReportKind::Lost => "finished",
            ReportKind::LogStored => "stored",
            ReportKind::RunRequested => "requested",
        };
        Self(format!("tasks.{channel}.{agent}"))
    }

    /// [`model::protocol::agent::AgentStatus`], agent to auctioneer and orchestrator.
    pub fn status(agent: &AgentName) -> Self {
        Self(format!("agents.{agent}"))
    }

    /// [`model::protocol::log::LogChunk`], agent to orchestrator.
    pub fn log(agent: &AgentName, run: &RunId, stage: &StageId) -> Self {
        Self(format!("logs.{agent}.{run}.{stage}"))
    }

    /// The subject as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The agent whose own subject this is (a bid, report, status, log, or a renewal that it asks for); that is who speaks, whatever the message says.
    pub fn agent(&self) -> Option<AgentName> {
        let mut tokens = self.0.split('.');
        let token = match (tokens.next()?, tokens.next()?) {
            ("tasks", "bids" | "declined" | "started" | "finished" | "stored" | "requested") | ("enrolment", "renew") => tokens.next()?,
            ("agents" | "logs", agent) => agent,
            _ => return None,
        };
        token.parse().ok()
    }

    /// The auction of a bid's subject.
    pub fn bid_auction(&self) -> Option<AuctionId> {
        self.0.strip_prefix("tasks.bids.")?.split('.').nth(1)?.parse().ok()
    }

    /// The run of a log record's subject.
    pub fn run_id(&self) -> Option<RunId> {
        self.0.strip_prefix("runs.")?.parse().ok()
    }

    /// What the table says of this subject.
    pub fn channel(&self) -> Option<&'static Channel> {
        CHANNELS.iter().find(|channel| Pattern(channel.pattern_of_all()).matches(self))
    }

    /// A subject that came from the bus.
    pub(crate) fn received(text: String) -> Self {
        Self(text)
    }
}

impl Pattern {
    /// Every trigger.
    pub fn triggers() -> Self {
        Self("triggers.*".to_owned())
    }

    /// Every bid.
    pub fn bids() -> Self {
        Self("tasks.bids.*.*".to_owned())
    }

    /// Every report of one channel; the five channels are those of [`Subject::report`].
    pub fn reports() -> [Self; 5] {
        ["declined", "started", "finished", "stored", "requested"].map(|channel| Self(format!("tasks.{channel}.*")))
    }

    /// Every agent that asks for a renewal.
    pub fn renewals() -> Self {
        Self("enrolment.renew.*".to_owned())
    }

    /// Every agent's status.
    pub fn statuses() -> Self {
        Self("agents.*".to_owned())
    }

    /// Every chunk of output.
    pub fn logs() -> Self {
        Self("logs.*.*.*".to_owned())
    }

    /// The pattern as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What the table says of this subject, or of all subjects of this pattern.
    pub(crate) fn channel(&self) -> Option<&'static Channel> {
        CHANNELS.iter().find(|channel| {
            let all = Self(channel.pattern_of_all());
            all == *self || all.matches(&Subject(self.0.clone()))
        })
    }

    /// Whether `subject` is one of those that this pattern stands for.
    pub fn matches(&self, subject: &Subject) -> bool {
        let mut tokens = subject.0.split('.');
        for pattern in self.0.split('.') {
            match (pattern, tokens.next()) {
                (">", Some(_)) => return true,
                ("*", Some(_)) => {}
                (pattern, Some(token)) if pattern == token => {}
                _ => return false,
            }
        }
        tokens.next().is_none()
    }
}

impl From<Subject> for Pattern {
    fn from(subject: Subject) -> Self {
        Self(subject.0)
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use model::{AttemptId, TriggerId};

    use super::*;

    fn every_subject() -> Vec<(Subject, &'static str)> {
        let (agent, trigger, stage): (AgentName, _, _) = ("a1".parse().unwrap(), TriggerId::of("git", "1"), StageId::of("Build"));
        let run = RunId::of(&trigger);
        let auction = AuctionId::of(&AttemptId { run: run.clone(), stage: stage.clone(), attempt: 1 }, 0);
        vec![
            (Subject::trigger(&trigger), "trigger"),
            (Subject::run(&run), "run"),
            (Subject::plan(), "plan"),
            (Subject::triggers(), "triggers"),
            (Subject::project_run(), "project_run"),
            (Subject::for_auction(), "for_auction"),
            (Subject::auction("default"), "auction"),
            (Subject::call(&agent), "call"),
            (Subject::ran(), "ran"),
            (Subject::revoked(), "revoked"),
            (Subject::orchestrators_told(), "orchestrators_told"),
            (Subject::orchestrators_asked(), "orchestrators_asked"),
            (Subject::roll(), "roll"),
            (Subject::enrolled(), "enrolled"),
            (Subject::drain(), "drain"),
            (Subject::renew(&agent), "renew"),
            (Subject::renewed(&agent), "renewed"),
            (Subject::bid(&agent, &auction), "bid"),
            (Subject::proposed(), "proposed"),
            (Subject::inbox(&agent), "inbox"),
            (Subject::report(&agent, ReportKind::Declined), "declined"),
            (Subject::report(&agent, ReportKind::Started), "started"),
            (Subject::report(&agent, ReportKind::Finished), "finished"),
            (Subject::report(&agent, ReportKind::LogStored), "stored"),
            (Subject::report(&agent, ReportKind::RunRequested), "requested"),
            (Subject::status(&agent), "status"),
            (Subject::log(&agent, &run, &stage), "log"),
        ]
    }

    #[test]
    fn every_subject_stands_in_the_table_once() {
        let subjects = every_subject();
        assert_eq!(subjects.len(), CHANNELS.len());
        for (subject, kind) in subjects {
            let fitting: Vec<_> = CHANNELS.iter().filter(|channel| Pattern(channel.pattern_of_all()).matches(&subject)).collect();
            assert_eq!(fitting.iter().map(|channel| channel.kind).collect::<Vec<_>>(), [kind], "{subject}");
            assert_eq!(subject.channel().map(|channel| channel.kind), Some(kind));
        }
    }

    #[test]
    fn every_pattern_that_is_listened_to_stands_in_the_table() {
        let patterns = [Pattern::triggers(), Pattern::bids(), Pattern::renewals(), Pattern::statuses(), Pattern::logs()];
        let patterns = patterns.into_iter().chain(Pattern::reports());
        for pattern in patterns {
            assert!(CHANNELS.iter().any(|channel| channel.pattern_of_all() == pattern.as_str()), "{pattern}");
        }
    }

    #[test]
    fn what_an_agent_says_names_it_in_the_subject() {
        for (subject, kind) in every_subject() {
            let from_agents = subject.channel().unwrap().publishers.contains(&Party::Agents);
            assert_eq!(subject.agent().is_some(), from_agents, "{kind}");
        }
    }

    #[test]
    fn a_pattern_stands_for_whole_tokens() {
        let matches = |pattern: &str, subject: &str| Pattern(pattern.to_owned()).matches(&Subject(subject.to_owned()));
        assert!(matches("a.*", "a.b") && matches("a.>", "a.b.c") && matches("a.b", "a.b"));
        assert!(!matches("a.*", "a") && !matches("a.*", "a.b.c") && !matches("a.>", "a") && !matches("a.b", "a.bc"));
    }
}
