//! Whether the stages that run in images can run here: found out before anything starts, and only where a plan has such stages.

use agent::container::{ContainerOptions, Runtime, probe};
use anyhow::bail;
use model::plan::{CONTAINERS, Plan, Stage};
use service::{env, settings::Settings};

/// What the person has set for containers.
fn options() -> ContainerOptions {
    let words = |name: &str| {
        let text: Option<String> = Settings::from_environment().optional(name);
        text.unwrap_or_default().split_whitespace().map(str::to_owned).collect()
    };
    ContainerOptions { client: words(env::CONTAINER_CLIENT), run: words(env::CONTAINER_ARGUMENTS) }
}

/// What runs the containers of the plan's stages; `None` if there are none. An error says which stage cannot run, why, and what to do.
pub(super) async fn of_plan(plan: &Plan) -> anyhow::Result<Option<Runtime>> {
    let wants = |stage: &&Stage| stage.skipped.is_none() && stage.demands().contains_key(CONTAINERS);
    let Some(stage) = plan.stages.iter().find(wants) else { return Ok(None) };
    match probe(&options()).await {
        Ok(runtime) => Ok(Some(runtime)),
        Err(why) => bail!(
            "the stage `{}` runs in a container, and no containers run here: {why}\n\
             install podman or start docker, or say with {} how it is called; or leave out `docker`, `services` and `docker_run`",
            stage.path,
            env::CONTAINER_CLIENT
        ),
    }
}

/// The same for a run that goes on, whose plan is not looked at here: its stages fail if nothing runs containers any more.
pub(super) async fn of_machine() -> Option<Runtime> {
    probe(&options()).await.ok()
}
