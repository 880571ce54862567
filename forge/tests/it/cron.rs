//! Lines of `cron`, by a clock that the tests show.

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, SocketAddr},
};

use model::{TriggerId, context::EventKind, trigger::Trust};
use serde_json::Value;

use crate::{
    served::Served,
    world::{World, wait_for},
};

/// 2026-11-21T00:00Z, in minutes.
const MIDNIGHT: u64 = 1_795_219_200 / 60;
const DAY: u64 = 24 * 60;
const HOUR: u64 = 60;
const LINE: &str = "0 3 * * *";

fn show(world: &World, minute: u64) {
    // In the middle of it.
    world.clock.send_replace(minute * 60_000 + 30_000);
}

/// What a forge has written down: each line, with the minute up to which it is done with.
fn known(world: &World, data: &str) -> BTreeMap<String, u64> {
    let Ok(bytes) = fs::read(world.path(data).join("cron/shop.json")) else { return BTreeMap::new() };
    let json: Value = serde_json::from_slice(&bytes).unwrap();
    serde_json::from_value(json["lines"].clone()).unwrap()
}

async fn wait_known(world: &World, data: &str, line: &str, minute: u64) {
    wait_for("the line is done with up to the minute", || known(world, data).get(line) == Some(&minute)).await;
}

/// A forge at two o'clock, and a repository with these lines on its default branch.
async fn at_two(lines: &[&str]) -> World {
    let world = World::new();
    world.git(&world.repository(), &["symbolic-ref", "HEAD", "refs/heads/main"]);
    world.play_parser().await;
    show(&world, MIDNIGHT + 2 * HOUR);
    world.start().await;
    push_lines(&world, lines).await;
    for line in lines {
        wait_known(&world, "data", line, MIDNIGHT + 2 * HOUR).await;
    }
    assert_eq!(world.triggers().await.len(), 1, "the push, and nothing that was due before");
    world
}

async fn push_lines(world: &World, lines: &[&str]) -> String {
    let lines: Vec<String> = lines.iter().map(|line| format!("cron {line}\n")).collect();
    world.write("Ottofile", &lines.concat());
    let commit = world.commit();
    world.push(&["main"]).await;
    commit
}

#[tokio::test]
async fn a_line_of_the_default_branch_is_one_run_in_its_minute() {
    let mut world = at_two(&[LINE]).await;
    show(&world, MIDNIGHT + 3 * HOUR);
    wait_known(&world, "data", LINE, MIDNIGHT + 3 * HOUR).await;
    let triggers = world.triggers().await;
    let [trigger] = triggers.as_slice() else { panic!("{triggers:?}") };
    let context = &trigger.context;
    assert_eq!((context.event, context.branch.as_str(), context.cron.as_str()), (EventKind::Cron, "main", LINE));
    assert_eq!(context.commit, world.git(&world.clone(), &["rev-parse", "HEAD"]));
    assert_eq!((trigger.claims.trust, trigger.claims.protected, &trigger.claims.actor), (Trust::Trusted, true, &None));
    assert!(trigger.source.is_some() && trigger.listing.is_some());
    assert_eq!(trigger.id, TriggerId::of("cron", &format!("shop {} {LINE}", MIDNIGHT + 3 * HOUR)));
    world.restart().await;
    show(&world, MIDNIGHT + 3 * HOUR + 1);
    show(&world, MIDNIGHT + DAY + 3 * HOUR);
    wait_known(&world, "data", LINE, MIDNIGHT + DAY + 3 * HOUR).await;
    let next = world.triggers().await;
    assert_eq!(next.len(), 1, "what was fired before the restart is not fired again: {next:?}");
    world.end().await;
}

#[tokio::test]
async fn of_what_was_missed_the_latest_minute_alone_is_one_run() {
    let mut world = at_two(&[LINE, "0 12 1 1 *"]).await;
    show(&world, MIDNIGHT + 5 * DAY + 12 * HOUR);
    world.restart().await;
    wait_known(&world, "data", LINE, MIDNIGHT + 5 * DAY + 3 * HOUR).await;
    let triggers = world.triggers().await;
    let [trigger] = triggers.as_slice() else { panic!("{triggers:?}") };
    assert_eq!(trigger.id, TriggerId::of("cron", &format!("shop {} {LINE}", MIDNIGHT + 5 * DAY + 3 * HOUR)));
    world.end().await;
}

#[tokio::test]
async fn several_forges_and_a_clock_that_is_put_back_make_one_run_of_a_minute() {
    let world = at_two(&[LINE]).await;
    world.start_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), "other").await.unwrap();
    wait_known(&world, "other", LINE, MIDNIGHT + 2 * HOUR).await;
    show(&world, MIDNIGHT + 3 * HOUR);
    wait_known(&world, "other", LINE, MIDNIGHT + 3 * HOUR).await;
    for _ in 0..3 {
        wait_known(&world, "data", LINE, MIDNIGHT + 3 * HOUR).await;
        show(&world, MIDNIGHT + 2 * HOUR + 30);
        // A push makes it look, as otherwise time does.
        push_lines(&world, &[LINE]).await;
        wait_known(&world, "data", LINE, MIDNIGHT + 2 * HOUR + 30).await;
        show(&world, MIDNIGHT + 3 * HOUR);
    }
    wait_known(&world, "data", LINE, MIDNIGHT + 3 * HOUR).await;
    let triggers = world.triggers().await;
    let fired: Vec<_> = triggers.iter().filter(|trigger| trigger.context.event == EventKind::Cron).collect();
    assert_eq!(fired.len(), 1, "{fired:?}");
    world.end().await;
}

#[tokio::test]
async fn what_is_due_is_what_the_branch_says_then() {
    let world = at_two(&[LINE]).await;
    world.write("Ottofile", "cron 30 3 * * *\n");
    world.commit();
    // Nobody tells of it.
    world.git(&world.clone(), &["push", "--quiet", world.repository().to_str().unwrap(), "main"]);
    show(&world, MIDNIGHT + 3 * HOUR);
    wait_for("the new line is known", || known(&world, "data").contains_key("30 3 * * *")).await;
    assert!(world.triggers().await.is_empty(), "the line is not there any more");
    show(&world, MIDNIGHT + 3 * HOUR + 30);
    wait_known(&world, "data", "30 3 * * *", MIDNIGHT + 3 * HOUR + 30).await;
    assert_eq!(world.triggers().await.len(), 1);
    world.end().await;
}

#[tokio::test]
async fn only_a_protected_default_branch_has_lines() {
    let mut world = at_two(&[LINE]).await;
    world.write("Ottofile", "cron 30 2 * * *\n");
    world.commit();
    world.push(&["main:refs/heads/feature"]).await;
    world.add_project("shop", "protection: { protected: { branches: [release] } }\n");
    world.restart().await;
    wait_for("nothing is known", || known(&world, "data").is_empty()).await;
    world.triggers().await;
    // The other project is known to have had its turn by its own trigger.
    world.add_project("docs", "");
    world.restart().await;
    wait_for("the other one is known", || world.path("data/cron/docs.json").exists()).await;
    show(&world, MIDNIGHT + 3 * HOUR);
    wait_for("the other one is fired", || {
        fs::read_to_string(world.path("data/cron/docs.json")).unwrap().contains(&format!("{}", MIDNIGHT + 3 * HOUR))
    })
    .await;
    let triggers = world.triggers().await;
    let fired: Vec<_> = triggers.iter().map(|trigger| (trigger.project.as_str(), trigger.context.cron.as_str())).collect();
    assert_eq!(fired, [("docs", LINE)]);
    world.end().await;
}

#[tokio::test]
async fn a_project_has_at_most_64_lines_and_a_parser_that_is_away_is_asked_again() {
    let world = World::new();
    world.git(&world.repository(), &["symbolic-ref", "HEAD", "refs/heads/main"]);
    show(&world, MIDNIGHT);
    world.start().await;
    let lines: Vec<String> = (0..70).map(|at| format!("{} {} * * *", at % 60, at / 60)).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    push_lines(&world, &lines).await;
    assert!(known(&world, "data").is_empty(), "nobody has said what the file says");
    world.play_parser().await;
    push_lines(&world, &lines).await;
    wait_for("the lines are known", || !known(&world, "data").is_empty()).await;
    assert_eq!(known(&world, "data").len(), 64);
    world.end().await;
}

#[tokio::test]
async fn the_default_branch_of_a_repository_elsewhere_is_fetched() {
    let world = World::new();
    world.git(&world.repository(), &["symbolic-ref", "HEAD", "refs/heads/main"]);
    let served = Served::start(world.path(""), None);
    fs::write(world.path("projects/shop.yml"), format!("source: {{ url: '{}', private_network: true }}\n", served.url())).unwrap();
    world.write("Ottofile", &format!("cron {LINE}\n"));
    let commit = world.commit();
    world.git(&world.clone(), &["push", "--quiet", world.repository().to_str().unwrap(), "main"]);
    world.play_parser().await;
    show(&world, MIDNIGHT);
    world.start().await;
    wait_known(&world, "data", LINE, MIDNIGHT).await;
    show(&world, MIDNIGHT + 3 * HOUR);
    wait_known(&world, "data", LINE, MIDNIGHT + 3 * HOUR).await;
    let trigger = world.triggers().await.remove(0);
    assert_eq!((trigger.context.event, &trigger.context.commit), (EventKind::Cron, &commit));
    world.end().await;
}

#[tokio::test]
async fn lines_of_a_pipeline_of_the_configuration_are_fired_and_another_text_has_its_own() {
    let mut world = World::new();
    world.git(&world.repository(), &["symbolic-ref", "HEAD", "refs/heads/main"]);
    world.play_parser().await;
    show(&world, MIDNIGHT + 2 * HOUR);
    world.add_project("shop", &format!("pipeline: {{ inline: 'cron {LINE}' }}\n"));
    world.start().await;
    world.write("a", "");
    world.commit();
    world.push(&["main"]).await;
    wait_known(&world, "data", LINE, MIDNIGHT + 2 * HOUR).await;
    assert_eq!(world.triggers().await.len(), 1, "the push");
    show(&world, MIDNIGHT + 3 * HOUR);
    wait_known(&world, "data", LINE, MIDNIGHT + 3 * HOUR).await;
    assert_eq!(world.triggers().await[0].context.cron, LINE);
    let other = "30 4 * * *";
    world.add_project("shop", &format!("pipeline: {{ inline: 'cron {other}' }}\n"));
    world.restart().await;
    wait_for("the other line is known", || known(&world, "data").keys().eq([other])).await;
    world.end().await;
}
