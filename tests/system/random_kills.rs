//! Kill a service at any point: the run ends, and what its stages did agrees with the log.
//!
//! Each test makes some runs, one for each seed, and kills its victim once in each. `OTTO_KILL_SEEDS` says how many (CONTRIBUTING.md); the
//! seed of a run that went wrong is in the message.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use serde_json::Value;
use testkit::{Random, wait_for};

use crate::{
    house::{DEADLINE, House, OTTO, Plan},
    witness::Witness,
};

/// Stages of a run; the one in the middle has the effect `once`.
const STAGES: usize = 8;
const ONCE: usize = 4;
/// How long a stage sleeps in its script.
const STAGE_SLEEP_MS: u64 = 30;
/// Seeds where the environment says nothing: a few, as each costs the victim's restart.
const SEEDS_DEFAULT: u64 = 3;

/// The seeds of a test.
pub(crate) fn seeds() -> std::ops::Range<u64> {
    0..asked().unwrap_or(SEEDS_DEFAULT)
}

/// Whether there is time to test at length.
pub(crate) fn is_thorough() -> bool {
    asked().is_some()
}

fn asked() -> Option<u64> {
    std::env::var_os("OTTO_KILL_SEEDS").map(|count| count.to_str().unwrap().parse().expect("OTTO_KILL_SEEDS is a number of seeds"))
}

#[tokio::test]
async fn an_orchestrator_that_is_killed_at_any_point_goes_on_with_the_run() {
    kill_once_in_each_run("orchestrator", "group").await;
}

#[tokio::test]
async fn an_agent_that_is_killed_at_any_point_starts_nothing_twice_that_must_not() {
    kill_once_in_each_run("agent-1", "group").await;
}

#[tokio::test]
async fn a_killed_orchestrator_goes_on_also_where_stages_have_namespaces_or_landlock() {
    for level in offered() {
        kill_once_in_each_run("orchestrator", level).await;
    }
}

#[tokio::test]
async fn a_killed_agent_starts_nothing_twice_also_where_stages_have_namespaces_or_landlock() {
    for level in offered() {
        kill_once_in_each_run("agent-1", level).await;
    }
}

/// The levels above `group` that this machine offers; said aloud where one is left out.
fn offered() -> impl Iterator<Item = &'static str> {
    let found = Command::new(OTTO).args(["agent", "doctor", "--json"]).output().unwrap();
    let found: Value = serde_json::from_slice(&found.stdout).unwrap();
    ["namespaces", "landlock"].into_iter().filter(move |level| {
        let finding = found.as_array().unwrap().iter().find(|finding| finding["subject"] == *level).unwrap();
        if finding["there"] != true {
            println!("SKIPPED at the level `{level}`: {}", finding["found"]);
        }
        finding["there"] == true
    })
}

async fn kill_once_in_each_run(victim: &str, isolation: &str) {
    let since = Instant::now();
    let house = House::planned(tempfile::tempdir().unwrap(), Plan { isolation, ..Plan::default() }).await;
    for seed in seeds() {
        let mut random = Random::new(seed);
        let folder = house.shared().join(format!("seed-{seed}"));
        std::fs::create_dir(&folder).unwrap();
        let witness = Witness::new(&folder);
        let run = house.create(&witness.quick_pipeline(STAGES, ONCE, STAGE_SLEEP_MS)).await;
        // Somewhere in the run, and there at any instant.
        let lines = usize::try_from(random.below(2 * STAGES as u64)).unwrap();
        wait_for(DEADLINE, "the run to come so far", async || (witness.lines().len() >= lines).then_some(())).await;
        tokio::time::sleep(Duration::from_micros(random.below(STAGE_SLEEP_MS * 1_000))).await;
        house.kill(victim).await;
        let ended = house.ended(&run).await;
        agrees(&witness, &ended, &format!("{victim}, {isolation}, seed {seed}, killed after {lines} lines"));
    }
    house.end().await;
    println!("{victim}, {isolation}: {} kills in {:.1} s", seeds().count(), since.elapsed().as_secs_f64());
}

/// What the stages wrote and what the log says of them.
pub(crate) fn agrees(witness: &Witness, run: &Value, what: &str) {
    let lines = witness.lines();
    let context = || format!("{what}: {lines:?}\n{run:#}");
    assert!(witness.starts(ONCE) <= 1, "a `once` stage starts once: {}", context());
    let mut lost_once = false;
    for stage in 1..=STAGES {
        let shown = run["stages"].as_array().unwrap().iter().find(|shown| shown["path"] == format!("S{stage}")).unwrap();
        let (starts, awards) = (witness.starts(stage), shown["attempts"].as_array().unwrap().len());
        assert!(starts <= awards, "stage {stage} started {starts} times for {awards} awards: {}", context());
        let last_start = lines.iter().rposition(|line| *line == format!("{stage} start"));
        let ends: Vec<usize> = (0..lines.len()).filter(|at| lines[*at] == format!("{stage} end")).collect();
        match shown["status"]["kind"].as_str().unwrap() {
            "ended" => {
                assert_eq!(shown["status"]["outcome"], "success", "stage {stage}: {}", context());
                assert!(!ends.is_empty() && last_start < ends.last().copied(), "stage {stage} ended last: {}", context());
            }
            "lost" => {
                assert_eq!(stage, ONCE, "only what must not start twice stays lost: {}", context());
                lost_once = true;
            }
            "skipped" => assert!(lost_once && starts == 0, "stage {stage} was skipped: {}", context()),
            other => panic!("stage {stage} is {other}: {}", context()),
        }
    }
    assert_eq!(run["status"]["outcome"], if lost_once { "unknown" } else { "success" }, "{}", context());
}
