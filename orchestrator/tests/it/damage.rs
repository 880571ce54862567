//! Logs that must not be run upon, plans that are gone, and runs that have left memory: what is said of them, and that nothing waits for them.

use model::{
    Digest, RunOutcome, StageId,
    event::{
        archive::ARCHIVE_SCHEMA,
        run::{Answer, Planned, WaitKey},
    },
    plan::{Newer, Plan, Stage, Wait},
    planning::{PlanReply, Text},
    trigger::Trigger,
};
use orchestrator::{CommandError, Orchestrator, runs::Damage};
use serde_json::json;
use tokio::time::timeout;

use crate::{
    house::{DEADLINE, House, Inbox, chain, ended, is_asked, on_branch, outcome, refusal, trigger, until, waiting},
    odd::{Fails, Odd},
};

fn hold() -> Plan {
    Plan::new(vec![waiting("Hold", Wait::Pause)])
}

/// What is wrong with the run, as soon as that is known.
async fn damage(orchestrator: &Orchestrator, trigger: &Trigger) -> Damage {
    let mut appended = orchestrator.runs.follow();
    let found = async {
        loop {
            if let Some(damage) = orchestrator.runs.damage(&trigger.run()) {
                return damage;
            }
            appended.recv().await.unwrap();
        }
    };
    timeout(DEADLINE, found).await.expect("the damage is noticed")
}

async fn resume(orchestrator: &Orchestrator, trigger: &Trigger) -> Result<(), CommandError> {
    let answer = orchestrator.answer(&trigger.run(), &StageId::of("Hold"), WaitKey::Itself, Answer::Resumed, None).await;
    answer.map(|_snapshot| ())
}

/// Another process writes to the run's log what it must not.
async fn break_log(house: &House, trigger: &Trigger) {
    let last = house.bus.run_log(&trigger.run()).await.unwrap().pop().unwrap();
    house.bus.append(&trigger.run(), last.sequence, last.bytes).await.unwrap();
}

#[tokio::test]
async fn a_live_run_whose_log_is_damaged_is_shown_so_and_takes_nothing() {
    let house = House::new(hold()).await;
    let (orchestrator, supervisor) = house.start().await;
    let api = house.serve(&orchestrator);
    let trigger = trigger("1");
    orchestrator.create(&trigger).await.unwrap();
    until(&orchestrator, &trigger, "the question", |run| is_asked(run, "Hold")).await;
    break_log(&house, &trigger).await;
    let error = resume(&orchestrator, &trigger).await.unwrap_err();
    assert!(matches!(error, CommandError::Damaged { .. }), "{error:?}");

    let run = format!("/v1/runs/{}", trigger.run());
    let (status, shown) = api.get(&run).await;
    assert_eq!((status, shown["status"]["kind"].as_str()), (200, Some("damaged")), "{shown}");
    assert!(shown["status"]["why"].as_str().unwrap().contains("damaged before sequence"), "{shown}");
    assert!(shown["status"]["help"].as_str().unwrap().contains("run the pipeline anew"), "{shown}");
    assert_eq!(shown["stages"][0]["path"], "Hold", "as far as it is known");
    let (_, list) = api.get("/v1/runs").await;
    assert_eq!(list["runs"][0]["status"]["kind"], "damaged");
    let (_, waits) = api.get("/v1/waits").await;
    assert_eq!(waits["waits"], json!([]), "nobody is asked in vain");
    let damaged = (409, "run_damaged".to_owned());
    assert_eq!(refusal(api.post(&format!("{run}/cancel"), &json!({})).await), damaged);
    assert_eq!(refusal(api.post(&format!("{run}/rerun"), &json!({})).await), damaged);
    assert_eq!(refusal(api.get(&format!("{run}/events/follow")).await), damaged);
    assert_eq!(refusal(api.get(&format!("{run}/log/follow")).await), damaged);
    assert_eq!(api.get(&format!("{run}/events")).await.0, 200);
    supervisor.shut_down().await;
    // The next life finds the same.
    let (second, supervisor) = house.start().await;
    let api = house.serve(&second);
    let (_, shown) = api.get(&run).await;
    assert_eq!((shown["status"]["kind"].as_str(), shown["stages"][0]["path"].as_str()), (Some("damaged"), Some("Hold")), "{shown}");
    supervisor.shut_down().await;
}

#[tokio::test]
async fn a_log_that_a_newer_otto_went_on_with_is_shown_and_not_run_upon() {
    let house = House::new(hold()).await;
    let (orchestrator, supervisor) = house.start().await;
    let trigger = trigger("1");
    orchestrator.create(&trigger).await.unwrap();
    until(&orchestrator, &trigger, "the question", |run| is_asked(run, "Hold")).await;
    supervisor.shut_down().await;
    let last = house.bus.run_log(&trigger.run()).await.unwrap().pop().unwrap();
    let newer = json!({ "schema": ARCHIVE_SCHEMA + 1, "previous": Digest::of(&last.bytes), "news": [] });
    house.bus.append(&trigger.run(), last.sequence, newer.to_string().into()).await.unwrap();

    let (orchestrator, supervisor) = house.start().await;
    let api = house.serve(&orchestrator);
    let (_, shown) = api.get(&format!("/v1/runs/{}", trigger.run())).await;
    assert_eq!((shown["status"]["kind"].as_str(), shown["stages"][0]["path"].as_str()), (Some("damaged"), Some("Hold")), "{shown}");
    let why = shown["status"]["why"].as_str().unwrap();
    assert!(why.contains(&format!("has schema {}, and this Otto reads up to {ARCHIVE_SCHEMA}", ARCHIVE_SCHEMA + 1)), "{why}");
    assert!(shown["status"]["help"].as_str().unwrap().contains("update this Otto"), "{shown}");
    assert!(matches!(resume(&orchestrator, &trigger).await, Err(CommandError::Damaged { .. })));
    assert_eq!(house.bus.run_log(&trigger.run()).await.unwrap().last().unwrap().bytes, newer.to_string(), "nothing was appended");
    supervisor.shut_down().await;
}

#[tokio::test]
async fn who_follows_a_run_that_turns_out_to_be_damaged_is_let_go() {
    let house = House::new(hold()).await;
    let (orchestrator, supervisor) = house.start().await;
    let api = house.serve(&orchestrator);
    let trigger = trigger("1");
    orchestrator.create(&trigger).await.unwrap();
    until(&orchestrator, &trigger, "the question", |run| is_asked(run, "Hold")).await;
    let paths = ["events", "log"].map(|what| format!("/v1/runs/{}/{what}/follow", trigger.run()));
    let (events, log, _) = tokio::join!(api.get(&paths[0]), api.get(&paths[1]), async {
        break_log(&house, &trigger).await;
        resume(&orchestrator, &trigger).await.unwrap_err()
    });
    // Whoever came late was refused; the others' streams have ended without an end of the run.
    for (status, text) in [events, log] {
        assert!(status == 409 || !text.to_string().contains("event: end"), "{status} {text}");
    }
    supervisor.shut_down().await;
}

#[tokio::test]
async fn nobody_waits_for_the_end_of_a_damaged_run() {
    let house = House::new(Plan { newer: Some(Newer::Wait), ..hold() }).await;
    let (orchestrator, supervisor) = house.start().await;
    let (older, newer) = (on_branch("1", "main"), on_branch("2", "main"));
    orchestrator.create(&older).await.unwrap();
    until(&orchestrator, &older, "the question", |run| is_asked(run, "Hold")).await;
    orchestrator.create(&newer).await.unwrap();
    until(&orchestrator, &newer, "its place", |run| run.held.is_some()).await;
    break_log(&house, &older).await;
    resume(&orchestrator, &older).await.unwrap_err();
    until(&orchestrator, &newer, "its turn", |run| is_asked(run, "Hold")).await;
    supervisor.shut_down().await;
}

#[tokio::test]
async fn a_store_that_has_lost_a_record_is_named_and_not_run_upon() {
    let (bus, _) = Odd::bus(Some((Fails::RolledBack, 3)));
    let house = House::on(bus, Plan::new(vec![waiting("Hold", Wait::Pause), waiting("Other", Wait::Pause)])).await;
    let (orchestrator, supervisor) = house.start().await;
    let trigger = trigger("1");
    orchestrator.create(&trigger).await.unwrap();
    until(&orchestrator, &trigger, "the question", |run| is_asked(run, "Hold")).await;
    resume(&orchestrator, &trigger).await.unwrap();
    let other = orchestrator.answer(&trigger.run(), &StageId::of("Other"), WaitKey::Itself, Answer::Resumed, None).await;
    assert!(matches!(other, Err(CommandError::Damaged { .. })), "{other:?}");
    let damage = damage(&orchestrator, &trigger).await;
    assert!(damage.why.contains("has lost records"), "{damage:?}");
    supervisor.shut_down().await;
}

/// A run that has begun, after whose orchestrator's end the depot has lost the plan.
async fn without_plan(house: &House) -> (Trigger, Digest) {
    let (orchestrator, supervisor) = house.start().await;
    let trigger = trigger("1");
    orchestrator.create(&trigger).await.unwrap();
    let snapshot = until(&orchestrator, &trigger, "the question", |run| is_asked(run, "Hold")).await;
    supervisor.shut_down().await;
    let Planned::Plan { digest, .. } = snapshot.run.planned else { panic!("{:?}", snapshot.run.planned) };
    house.lose(&digest);
    (trigger, digest)
}

#[tokio::test]
async fn a_run_whose_plan_is_gone_is_named_and_goes_on_when_it_is_brought_back() {
    let house = House::new(hold()).await;
    let (trigger, digest) = without_plan(&house).await;
    let (second, supervisor) = house.start().await;
    let damage = damage(&second, &trigger).await;
    assert!(damage.why.contains(&digest.to_string()) && damage.help.contains("depot"), "{damage:?}");
    let api = house.serve(&second);
    let (_, shown) = api.get(&format!("/v1/runs/{}", trigger.run())).await;
    assert_eq!((shown["status"]["kind"].as_str(), shown["plan"]["digest"].as_str()), (Some("damaged"), Some(digest.to_string().as_str())));
    assert_eq!(refusal(api.post(&format!("/v1/runs/{}/cancel", trigger.run()), &json!({})).await), (409, "run_damaged".to_owned()));
    supervisor.shut_down().await;
    // As its help says.
    let document = model::plan::PlanDocument::new(hold());
    house.blobs.put(document.bytes().to_vec().into()).await.unwrap();
    let (third, supervisor) = house.start().await;
    resume(&third, &trigger).await.unwrap();
    assert_eq!(outcome(&*ended(&third, &trigger).await), Some(RunOutcome::Success));
    supervisor.shut_down().await;
}

#[tokio::test]
async fn no_lock_is_given_away_before_it_is_known_who_holds_it() {
    let house = House::without_parser(eventbus::memory::bus()).await;
    let locked = |path: &str| {
        let mut plan = chain(&[path]);
        plan.stages[0].lock = Some("production".to_owned());
        crate::house::planned(plan, None)
    };
    house.play_parser_with(move |request| locked(&request.path)).await;
    let mut inbox: Inbox = house.inbox().await;
    let (first, supervisor) = house.start().await;
    let (holder, waiter) = (trigger("1"), Trigger { pipeline_path: "Other".to_owned(), ..trigger("2") });
    first.create(&holder).await.unwrap();
    let held = inbox.assignment(None).await.lease;
    first.create(&waiter).await.unwrap();
    let snapshot = until(&first, &waiter, "its place", |run| !run.held_up.is_empty()).await;
    let holding = first.runs.get(&holder.run()).unwrap().run;
    supervisor.shut_down().await;
    let Planned::Plan { digest, .. } = &holding.planned else { panic!("{:?}", holding.planned) };
    let plan = house.blobs.get(digest).await.unwrap();
    house.lose(digest);
    let (second, supervisor) = house.start().await;
    assert!(second.runs.get(&holder.run()).is_none(), "its plan cannot be read yet");
    // It is read a moment later, and is the holder still.
    house.blobs.put(plan).await.unwrap();
    until(&second, &holder, "its plan", |run| run.holder_of("production").is_some()).await;
    let waits = second.runs.get(&waiter.run()).unwrap().run;
    assert_eq!((waits.holder_of("production"), waits.held_up.len()), (None, snapshot.run.held_up.len()));
    inbox.succeed(&held).await;
    ended(&second, &holder).await;
    until(&second, &waiter, "the lock", |run| run.holder_of("production").is_some()).await;
    supervisor.shut_down().await;
}

#[tokio::test]
async fn a_run_whose_pipeline_the_depot_does_not_have_ends_with_the_reason() {
    let house = House::without_parser(eventbus::memory::bus()).await;
    let gone = Digest::of(b"nobody stored this");
    house.play_parser(PlanReply::Unavailable { message: format!("Ottofile cannot be read: the depot has no {gone}") }).await;
    let (orchestrator, supervisor) = house.start().await;
    let trigger = Trigger { pipeline: Text::Depot(gone), ..trigger("1") };
    orchestrator.create(&trigger).await.unwrap();
    let run = ended(&orchestrator, &trigger).await;
    let Planned::Refused { diagnostics } = &run.planned else { panic!("{:?}", run.planned) };
    assert_eq!((outcome(&run), diagnostics[0].code.as_str()), (Some(RunOutcome::Failure), "E0900"));
    assert!(diagnostics[0].message.contains(&gone.to_string()), "{}", diagnostics[0].message);
    supervisor.shut_down().await;
}

#[tokio::test]
async fn a_stage_that_would_be_given_more_than_a_message_takes_fails_with_the_reason() {
    const EACH: usize = 80 * 1024;
    let names = ["a", "b", "c", "d", "last"];
    let house = House::new(Plan { stages: chain(&names).stages, ..Plan::new(Vec::<Stage>::new()) }).await;
    let mut inbox = house.inbox().await;
    let (orchestrator, supervisor) = house.start().await;
    let trigger = trigger("1");
    orchestrator.create(&trigger).await.unwrap();
    let mut last = None;
    for name in &names[..4] {
        let next = inbox.assignment(last.as_ref()).await;
        let variables = [((*name).to_owned(), Some("x".repeat(EACH)))].into();
        let outputs = model::event::run::Outputs { variables, ..Default::default() };
        inbox.finish(&next.lease, model::StageOutcome::Success, outputs).await;
        last = Some(next.lease);
    }
    let run = ended(&orchestrator, &trigger).await;
    let reason = run.stages[4].reason.as_deref().unwrap_or_default();
    assert!(outcome(&run) == Some(RunOutcome::Failure) && reason.contains("over the limit") && reason.contains("`drop`"), "{reason}");
    supervisor.shut_down().await;
}
