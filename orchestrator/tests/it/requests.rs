//! Runs that steps ask for.

use std::collections::BTreeMap;

use model::{
    AgentName, RunOutcome,
    context::EventKind,
    planning::PlanReply,
    protocol::{
        agent::{AgentCommand, AgentReport, Assignment, Lease, Report, ReportKind, StartedRun},
        step::RunRequest,
    },
    trigger::Trigger,
};

use crate::house::{House, Inbox, chain, ended, outcome, planned, trigger};

const CHILD: &str = "child.otto";
/// More than may follow one another.
const GENERATIONS: u32 = 8;

fn asks(pipeline: &str) -> RunRequest {
    RunRequest { pipeline: pipeline.to_owned(), project: None, parameters: BTreeMap::new() }
}

/// A house whose pipelines are `Ottofile`, of the stage `parent`, and `child.otto`, of the stage `child`; and a run of the first.
async fn house() -> (House, Trigger) {
    let house = House::without_parser(eventbus::memory::bus()).await;
    let plan = |path: &str| planned(chain(&[if path == CHILD { "child" } else { "parent" }]), None);
    house.play_parser_with(move |request| -> PlanReply { plan(&request.path) }).await;
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(11);
    header.set_mode(0o644);
    builder.append_data(&mut header, CHILD, &b"pipeline {}"[..]).unwrap();
    let source = house.blobs.put(builder.into_inner().unwrap().into()).await.unwrap();
    (house, Trigger { source: Some(source), ..trigger("1") })
}

impl Inbox {
    /// Asks until it is answered, as an agent does.
    async fn request(&mut self, lease: &Lease, number: u32, request: &RunRequest) -> Result<StartedRun, String> {
        loop {
            self.report(lease, Report::RunRequested { number, request: request.clone() }).await;
            loop {
                let said = self.next().await;
                // Said again every half second: the report may have come before its award was stored.
                if matches!(&said, AgentCommand::Assign(assignment) if assignment.lease == *lease) {
                    break;
                }
                if let AgentCommand::RunAnswer { lease: of, number: answered, answer } = said
                    && (of, answered) == (lease.clone(), number)
                {
                    return answer;
                }
            }
        }
    }

    /// The assignment of a stage of this run.
    async fn assignment_of(&mut self, run: &model::RunId) -> Assignment {
        loop {
            let assignment = self.assignment(None).await;
            if assignment.lease.attempt.run == *run {
                return assignment;
            }
        }
    }
}

#[tokio::test]
async fn a_step_starts_one_run_of_its_project_and_learns_how_it_ends() {
    let (house, trigger) = house().await;
    let mut inbox = house.inbox().await;
    let (orchestrator, supervisor) = house.start().await;
    orchestrator.create(&trigger).await.unwrap();
    let parent = inbox.assignment(None).await.lease;
    let wanted = RunRequest { parameters: BTreeMap::from([("target".to_owned(), "preprod".to_owned())]), ..asks(CHILD) };
    let started = inbox.request(&parent, 1, &wanted).await.unwrap();
    assert_eq!(started.outcome, None);
    let child = inbox.assignment_of(&started.run).await;
    let run = orchestrator.runs.get(&started.run).unwrap().run;
    let Trigger { context, pipeline_path, source, generation, .. } = &*run.trigger;
    assert_eq!((context.event, context.parameters.clone()), (EventKind::Manual, wanted.parameters.clone()));
    assert_eq!((pipeline_path.as_str(), *source, *generation), (CHILD, trigger.source, 1));
    assert_eq!(inbox.request(&parent, 1, &wanted).await.unwrap(), started, "the same number is the same run");
    inbox.succeed(&child.lease).await;
    ended(&orchestrator, &run.trigger).await;
    let after = inbox.request(&parent, 1, &wanted).await.unwrap();
    assert_eq!(after, StartedRun { run: started.run.clone(), outcome: Some(RunOutcome::Success) });
    assert_ne!(inbox.request(&parent, 2, &wanted).await.unwrap().run, started.run, "another number is another one");
    inbox.succeed(&parent).await;
    assert_eq!(outcome(&*ended(&orchestrator, &trigger).await), Some(RunOutcome::Success));
    supervisor.shut_down().await;
}

#[tokio::test]
async fn what_no_run_can_be_made_of_is_refused_at_once_and_by_name() {
    let (house, trigger) = house().await;
    let mut inbox = house.inbox().await;
    let (orchestrator, supervisor) = house.start().await;
    orchestrator.create(&trigger).await.unwrap();
    let lease = inbox.assignment(None).await.lease;
    let other = RunRequest { project: Some("another".to_owned()), ..asks(CHILD) };
    let large = RunRequest { parameters: BTreeMap::from([("x".to_owned(), "x".repeat(900 * 1024))]), ..asks(CHILD) };
    let cases = [
        (1, other, "another project"),
        (2, asks("nothing.otto"), "no file `nothing.otto`"),
        (3, asks("../../etc/passwd"), "no file"),
        (4, asks("a\nb"), "the path of the pipeline file is none"),
        (5, asks(&"x".repeat(5_000)), "the path of the pipeline file is none"),
        (6, large, "over the bus's"),
        (0, asks(CHILD), "100 runs"),
        (101, asks(CHILD), "100 runs"),
        (u32::MAX, asks(CHILD), "100 runs"),
    ];
    for (number, request, why) in cases {
        let refused = inbox.request(&lease, number, &request).await.unwrap_err();
        assert!(refused.contains(why), "{number}: {refused}");
    }
    assert_eq!(orchestrator.runs.list(None, 10, |_| true).len(), 1, "none has begun");
    supervisor.shut_down().await;
}

#[tokio::test]
async fn who_does_not_hold_the_attempt_starts_nothing_and_learns_nothing() {
    let (house, trigger) = house().await;
    let mut inbox = house.inbox().await;
    let (orchestrator, supervisor) = house.start().await;
    orchestrator.create(&trigger).await.unwrap();
    let lease = inbox.assignment(None).await.lease;
    let started = inbox.request(&lease, 1, &asks(CHILD)).await.unwrap();
    let stranger: AgentName = "stranger".parse().unwrap();
    let mut theirs = house.bus.subscribe(eventbus::Subject::inbox(&stranger)).await.unwrap();
    for number in [1, 2] {
        let report = Report::RunRequested { number, request: asks(CHILD) };
        let subject = eventbus::Subject::report(&stranger, report.kind());
        house.bus.publish(&subject, &AgentReport { lease: lease.clone(), report }).await.unwrap();
    }
    let old = Lease { fence: lease.fence + 1, ..lease.clone() };
    inbox.report(&old, Report::RunRequested { number: 3, request: asks(CHILD) }).await;
    // What is heard behind them is answered.
    assert_eq!(inbox.request(&lease, 1, &asks(CHILD)).await.unwrap().run, started.run);
    assert!(theirs.try_next().is_none());
    assert_eq!(orchestrator.runs.list(None, 10, |_| true).len(), 2);
    supervisor.shut_down().await;
}

#[tokio::test]
async fn a_pipeline_that_starts_itself_comes_to_an_end() {
    let (house, trigger) = house().await;
    let mut inbox = house.inbox().await;
    let (orchestrator, supervisor) = house.start().await;
    orchestrator.create(&trigger).await.unwrap();
    let mut lease = inbox.assignment(None).await.lease;
    for generation in 1..=GENERATIONS {
        let started = inbox.request(&lease, 1, &asks("Ottofile")).await.unwrap();
        lease = inbox.assignment_of(&started.run).await.lease;
        assert_eq!(orchestrator.runs.get(&started.run).unwrap().run.trigger.generation, generation);
    }
    let refused = inbox.request(&lease, 1, &asks("Ottofile")).await.unwrap_err();
    assert!(refused.contains("loop"), "{refused}");
    inbox.succeed(&lease).await;
    inbox.acknowledged(ReportKind::Finished).await;
    supervisor.shut_down().await;
}
