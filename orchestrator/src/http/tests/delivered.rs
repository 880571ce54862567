//! Projects, environments, auctions, and the filters of the list of runs.

use apispec::{AuctionList, EnvironmentDetail, EnvironmentList, ProjectList, ProjectView, SourceView, WhyView};
use model::{
    plan::Deployment,
    protocol::auction::{Declined, Offer, Proposal, RankedOffer, Reservation},
};

use super::*;
use crate::auctions::Auction;

fn project() -> model::ProjectName {
    crate::core::tests::trigger().project
}

/// A run whose one stage delivers to the environment, and holds the lock of the same name.
fn delivering(served: &Served, delivery: &str, environment: &str, sequence: u64) -> Run {
    let mut plan = plan(&["Ship"]);
    let deployment = Deployment { environment: environment.to_owned(), protected: false, settings: std::collections::BTreeMap::new() };
    plan.stages[0].deployment = Some(deployment);
    plan.stages[0].lock = Some(environment.to_owned());
    served.begin_plan(delivery, plan, sequence, &[])
}

#[tokio::test]
async fn a_project_is_shown_with_what_protects_it_to_those_whose_it_is() {
    let served = super::rights::with_tokens();
    let list: ProjectList = served.read("/v1/projects").await;
    assert_eq!(list.projects.len(), 2);
    let shop: ProjectView = served.read(&format!("/v1/projects/{}", project())).await;
    assert_eq!((shop.title.as_deref(), shop.description.as_deref()), (Some("The shop"), Some("What is sold.")));
    assert_eq!(shop.source, SourceView::Remote { url: format!("https://git.example/{}", project()) });
    assert_eq!(shop.protection.protected.branches, ["main", "master"]);
    assert!(shop.protection.trusted && shop.inline.is_none() && shop.pipeline == "Ottofile", "{shop:?}");
    let production = &shop.protection.environments["production"];
    assert_eq!((&production.from.as_ref().unwrap().tags, &production.approvers), (&vec!["v*".to_owned()], &vec!["ann".to_owned()]));
    check_problem(served.get("/v1/projects/nothing").await, Code::UnknownProject).await;

    let get = |path: String| served.client.get(format!("{}{path}", served.base)).bearer_auth(super::rights::STRANGER).send();
    let list: ProjectList = get("/v1/projects".to_owned()).await.unwrap().json().await.unwrap();
    assert_eq!(list.projects.iter().map(|project| project.name.as_str()).collect::<Vec<_>>(), ["other"]);
    check_problem(get(format!("/v1/projects/{}", project())).await.unwrap(), Code::UnknownProject).await;
    check_problem(get("/v1/environments/staging".to_owned()).await.unwrap(), Code::UnknownEnvironment).await;
}

#[tokio::test]
async fn an_environment_has_its_deliveries_the_newest_first_and_its_locks() {
    let served = Served::start();
    let queued = |run: &mut Run, sequence| {
        let queued = RunEvent::LockQueued { stage: StageId::of("Ship"), lock: "staging".to_owned() };
        served.append(run, sequence, vec![queued]);
    };
    let acquired = || RunEvent::LockAcquired { stage: StageId::of("Ship"), lock: "staging".to_owned() };
    let ready = || RunEvent::StageReady { stage: StageId::of("Ship"), attempt: 1 };
    let mut first = delivering(&served, "1", "staging", 1);
    queued(&mut first, 2);
    served.append(&mut first, 3, vec![acquired(), ready()]);
    served.append(&mut first, 4, vec![awarded("Ship")]);
    served.append(&mut first, 5, vec![finished("Ship"), END]);
    let mut second = delivering(&served, "2", "staging", 6);
    queued(&mut second, 7);
    served.append(&mut second, 8, vec![acquired(), ready()]);
    let mut third = delivering(&served, "3", "staging", 9);
    queued(&mut third, 10);
    delivering(&served, "4", "production", 11);

    let list: EnvironmentList = served.read(&format!("/v1/environments?project={}", project())).await;
    let names: Vec<&str> = list.environments.iter().map(|environment| environment.name.as_str()).collect();
    assert_eq!(names, ["production", "staging"]);
    assert!(list.environments[0].rule.is_some() && list.environments[0].last.is_none(), "its delivery has not begun");
    assert_eq!(list.environments[1].last.as_ref().unwrap().run, third.id);

    let staging: EnvironmentDetail = served.read("/v1/environments/staging").await;
    assert_eq!(staging.deliveries.iter().map(|delivery| &delivery.run).collect::<Vec<_>>(), [&third.id, &second.id, &first.id]);
    let [lock] = staging.locks.as_slice() else { panic!("{:?}", staging.locks) };
    assert_eq!((&lock.holder.as_ref().unwrap().run, lock.waiting), (&second.id, 1));
    let of_nobody: EnvironmentDetail = served.read("/v1/environments/production?project=other").await;
    assert_eq!((of_nobody.rules.len(), of_nobody.deliveries.len()), (1, 0));
    check_problem(served.get("/v1/environments/nothing").await, Code::UnknownEnvironment).await;
    check_problem(served.get("/v1/environments/staging?project=other").await, Code::UnknownEnvironment).await;
}

#[tokio::test]
async fn runs_are_found_by_what_is_known_of_them() {
    let served = Served::start();
    let mut ended = served.begin("1", &["Build"], 1);
    served.append(&mut ended, 2, vec![awarded("Build")]);
    served.append(&mut ended, 3, vec![finished("Build"), END]);
    let open = served.begin("2", &["Build"], 4);
    let found = async |query: &str| {
        let list: RunList = served.read(&format!("/v1/runs?{query}")).await;
        list.runs.into_iter().map(|run| run.id).collect::<Vec<_>>()
    };
    let both = vec![open.id.clone(), ended.id.clone()];
    assert_eq!(found("status=ended").await, [ended.id.clone()]);
    assert_eq!(found("status=running").await, both[..1]);
    assert_eq!(found("outcome=success&status=ended").await, [ended.id.clone()]);
    assert_eq!(found("outcome=failure").await, []);
    assert_eq!(found(&format!("project={}", project())).await, both);
    assert_eq!(found("project=other").await, []);
    assert_eq!(found("branch=main").await, both);
    assert_eq!(found("branch=mai").await, []);
    assert_eq!(found("since=0").await, both);
    assert_eq!(found(&format!("since={}", clock::unix_ms() + 60_000)).await, []);
    assert_eq!(found("event=cron").await, []);
    for query in ["status=done", "outcome=well", "event=x", "since=-1", "since=9223372036854775808", "project=NO"] {
        check_problem(served.get(&format!("/v1/runs?{query}")).await, Code::InvalidQuery).await;
    }
}

#[tokio::test]
async fn why_a_stage_waits_or_runs_there_is_told_with_all_offers() {
    let served = super::rights::with_tokens();
    let mut run = served.begin("1", &["Build", "Test"], 1);
    let attempt = AttemptId { run: run.id.clone(), stage: StageId::of("Build"), attempt: 1 };
    let auction = |round| AuctionId::of(&attempt, round);
    let offer = |name: &str| RankedOffer { agent: name.parse().unwrap(), offer: Offer::new(7, 10, Reservation::Slot) };
    let remember = |round, offers: Vec<RankedOffer>| {
        let declined = vec![Declined { agent: "small".parse().unwrap(), reason: "has 2 cores of 8".to_owned() }];
        let unmet = if offers.is_empty() { vec!["no agent has `gpu`".to_owned()] } else { Vec::new() };
        let proposal =
            Proposal { auction: auction(round), attempt: attempt.clone(), offers, declined, unmet, closed_at: Timestamp(round.into()) };
        served.orchestrator.runs.auctions().remember(Auction { project: project(), proposal });
    };
    remember(1, vec![]);
    remember(2, vec![offer("a1"), offer("slow")]);
    let by_auction = RunEvent::StageAwarded {
        stage: StageId::of("Build"),
        attempt: 1,
        agent: agent(),
        auction: auction(2),
        offers: vec![offer("a1"), offer("slow")],
    };
    served.append(&mut run, 2, vec![by_auction]);

    let list: AuctionList = served.read(&format!("/v1/auctions?run={}", run.id)).await;
    let told: Vec<_> =
        list.auctions.iter().map(|auction| (auction.offers.len(), auction.awarded.as_ref().map(AgentName::as_str))).collect();
    assert_eq!(told, [(2, Some("a1")), (0, None)]);
    assert_eq!(list.auctions[1].unmet, ["no agent has `gpu`"]);
    assert_eq!(served.read::<AuctionList>("/v1/auctions?limit=1").await.auctions.len(), 1);
    check_problem(served.get("/v1/auctions?limit=501").await, Code::InvalidQuery).await;
    let strangers = served.client.get(format!("{}/v1/auctions", served.base)).bearer_auth(super::rights::STRANGER);
    assert_eq!(strangers.send().await.unwrap().json::<AuctionList>().await.unwrap().auctions, []);

    let why: WhyView = served.read(&format!("/v1/runs/{}/why?stage=Build", run.id)).await;
    let [build] = why.stages.as_slice() else { panic!("{why:?}") };
    assert_eq!((build.stage.attempts[0].offers.len(), build.auctions.len()), (2, 2));
    assert_eq!(build.auctions[1].declined[0].reason, "has 2 cores of 8");
    let all: WhyView = served.read(&format!("/v1/runs/{}/why", run.id)).await;
    assert_eq!(all.stages.iter().map(|stage| stage.stage.path.as_str()).collect::<Vec<_>>(), ["Build", "Test"]);
    check_problem(served.get(&format!("/v1/runs/{}/why?stage=Nothing", run.id)).await, Code::UnknownStage).await;
}
