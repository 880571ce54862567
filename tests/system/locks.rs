//! A lock is held by one stage, whatever becomes of its holder: the witness has the lines of all who held it, in the order in which they were
//! written, and none writes again after another has begun.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    house::{House, Plan, until},
    wire::Wire,
};

/// Two agents, each with a line of its own to the bus.
struct Scene {
    house: House,
    wires: [Wire; 2],
}

impl Scene {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let wires = [(); 2].map(|()| Wire::to_bus(&folder.path().join("up")));
        let [first, second] = [&wires[0], &wires[1]].map(Wire::url);
        let agent = format!(
            "agent: if [ $OTTO_AGENT_NAME = agent-1 ]; then OTTO_BUS_URLS={first}; else OTTO_BUS_URLS={second}; fi; exec otto serve agent"
        );
        let procfile = include_str!("../../Procfile").replace("agent: otto serve agent", &agent);
        let house = House::planned(folder, Plan { agents: 2, procfile: Some(procfile), ..Plan::default() }).await;
        Self { house, wires }
    }

    /// With a first run that holds the lock, and a second one that waits for it.
    async fn contended() -> (Self, String, String) {
        let scene = Self::start().await;
        let first = scene.create("first", "once").await;
        scene.holds("first1").await;
        let second = scene.create("second", "once").await;
        scene.queues(&second).await;
        (scene, first, second)
    }

    /// The second run ends well, and the services with it.
    async fn goes_on_with(self, second: &str) {
        self.end("second");
        assert_eq!(self.house.ended(second).await["status"]["outcome"], "success");
        self.nobody_held_it_beside_another();
        self.house.end().await;
    }

    fn witness(&self) -> PathBuf {
        self.house.scratch().join("witness")
    }

    /// The lines so far: who held the lock then.
    fn lines(&self) -> Vec<String> {
        fs::read_to_string(self.witness()).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    async fn holds(&self, who: &str) {
        until(&format!("{who} to hold the lock"), async || self.lines().iter().any(|line| line == who)).await;
    }

    /// A run of a stage that holds the lock, says so all the time, and ends when there is a file of its name.
    async fn create(&self, name: &str, effect: &str) -> String {
        self.house.create(&pipeline(name, effect, &self.witness())).await
    }

    fn end(&self, name: &str) {
        fs::write(self.witness().with_extension(name), "").unwrap();
    }

    async fn stage(&self, run: &str) -> Value {
        self.house.get(&format!("/v1/runs/{run}")).await.unwrap_or_default()["stages"][0].clone()
    }

    async fn queues(&self, run: &str) {
        until("the second run to wait for the lock", async || self.stage(run).await["status"]["kind"] == "queued").await;
    }

    /// The line of the agent that has the stage.
    async fn wire_of(&self, run: &str) -> &Wire {
        let agent = self.stage(run).await["attempts"][0]["agent"].clone();
        if agent == "agent-1" { &self.wires[0] } else { &self.wires[1] }
    }

    /// Nobody wrote after somebody else had begun.
    fn nobody_held_it_beside_another(&self) {
        let mut holders = self.lines();
        holders.dedup();
        let mut unique = holders.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(holders.len(), unique.len(), "each holds it once: {holders:?}");
    }
}

fn pipeline(name: &str, effect: &str, witness: &Path) -> String {
    let (witness, end) = (witness.display(), witness.with_extension(name));
    let script = format!("while [ ! -e {} ]; do echo {name}$OTTO_ATTEMPT >> {witness}; sleep 0.01; done", end.display());
    format!("pipeline {{ stage 'Deploy' {{ lock = 'production' effect = {effect} steps [ sh '{script}' ] }} }}")
}

#[tokio::test]
async fn the_next_run_gets_a_lock_only_after_a_holder_that_is_cut_off_has_stopped() {
    let (scene, first, second) = Scene::contended().await;
    let cut_off = scene.wire_of(&first).await;
    cut_off.silence();
    scene.holds("second1").await;
    cut_off.speak();
    assert_eq!(scene.house.ended(&first).await["status"]["outcome"], "unknown");
    scene.goes_on_with(&second).await;
}

#[tokio::test]
async fn the_next_run_gets_a_lock_only_after_a_holder_whose_agent_stands_still_has_stopped() {
    let (scene, first, second) = Scene::contended().await;
    let agent = scene.stage(&first).await["attempts"][0]["agent"].as_str().unwrap().to_owned();
    scene.house.signal(&agent, Signal::SIGSTOP);
    scene.holds("second1").await;
    scene.house.signal(&agent, Signal::SIGCONT);
    assert_eq!(scene.house.ended(&first).await["status"]["outcome"], "unknown");
    scene.goes_on_with(&second).await;
}

#[tokio::test]
async fn a_stage_with_a_lock_starts_again_only_after_its_agent_that_is_cut_off_has_stopped_it() {
    let scene = Scene::start().await;
    let run = scene.create("first", "safe").await;
    scene.holds("first1").await;
    let cut_off = scene.wire_of(&run).await;
    cut_off.silence();
    scene.holds("first2").await;
    cut_off.speak();
    scene.end("first");
    assert_eq!(scene.house.ended(&run).await["status"]["outcome"], "success");
    scene.nobody_held_it_beside_another();
    scene.house.end().await;
}

#[tokio::test]
async fn no_lock_is_held_by_two_while_the_bus_stands_still_and_afterwards() {
    let (scene, first, second) = Scene::contended().await;
    scene.house.signal("nats", Signal::SIGSTOP);
    // Its agent ends it by itself: nobody confirms its lease.
    until("the holder to be ended", async || scene.house.log().contains("end=Unrenewed")).await;
    let stopped = scene.lines().len();
    scene.house.signal("nats", Signal::SIGCONT);
    scene.holds("second1").await;
    assert_eq!(scene.lines()[stopped], "second1", "the first wrote nothing more");
    scene.end("second");
    assert_eq!(scene.house.ended(&second).await["status"]["outcome"], "success");
    assert_eq!(scene.house.ended(&first).await["status"]["outcome"], "unknown");
    scene.nobody_held_it_beside_another();
    scene.house.end().await;
}
