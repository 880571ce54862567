//! Who follows a stage's output misses nothing of it when the orchestrator is killed.

use std::{
    fs,
    process::{Command, Stdio},
};

use crate::house::{House, OTTO, exited, until};

#[tokio::test]
async fn output_from_before_a_restart_of_the_orchestrator_is_shown_while_the_stage_still_runs() {
    let house = House::start(1).await;
    let [first, last] = ["first", "last"].map(|name| house.scratch().join(name));
    let wait = |gate: &std::path::Path| format!("while [ ! -e {} ]; do sleep 0.01; done", gate.display());
    let script = format!("set +x; echo before; {}; echo after; {}; echo end", wait(&first), wait(&last));
    let run = house.create(&format!("pipeline {{ stage 'Long' {{ steps [ sh '{script}' ] }} }}")).await;
    let log = async || {
        let response = house.request(reqwest::Method::GET, &format!("/v1/runs/{run}/log")).send().await.ok()?;
        response.text().await.ok()
    };
    let says = async |line: &str| log().await.is_some_and(|log| log.lines().any(|said| said == line));
    until("the first line", async || says("before").await).await;
    house.kill("orchestrator").await;
    fs::write(first, "").unwrap();
    until("the line of after the restart", async || says("after").await).await;
    let shown = fs::File::create(house.scratch().join("shown")).unwrap();
    let mut follow = Command::new(OTTO);
    follow.args(["log", "-f", &run]).envs(house.client_env()).stdin(Stdio::null()).stdout(shown);
    let mut follower = follow.spawn().unwrap();
    let shown = || fs::read_to_string(house.scratch().join("shown")).unwrap();
    until("both lines", async || shown().contains("before") && shown().contains("after")).await;
    let stage = house.get(&format!("/v1/runs/{run}")).await.unwrap()["stages"][0].clone();
    assert_eq!(stage["status"]["kind"], "running", "{stage}");
    fs::write(last, "").unwrap();
    assert!(exited(&mut follower).await.success());
    let shown = shown();
    assert!(shown.contains("end") && !shown.contains("missing"), "{shown}");
    house.ended(&run).await;
    house.end().await;
}
