//! `otto agent join`: an agent makes its key, trades the administrator's token for a user on the bus, and writes down what it needs to start.

use std::{fmt::Write as _, path::Path, time::Duration};

use anyhow::Context as _;
use eventbus::{
    nats::UserKey,
    role::{EnrolmentAnswer, EnrolmentRequest},
};
use service::{env, web};

use crate::provision::write_secret;

/// How long the answer may take.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// The settings of the agent, in its folder: lines of `NAME=value`, as systemd's `EnvironmentFile` reads them.
const SETTINGS: &str = "agent.env";
/// Its user on the bus.
const CREDENTIALS: &str = "agent.creds";
/// Whose commands it obeys.
const COMMANDS_KEY: &str = "commands.key";

/// Enrols the agent of this folder; what is printed says how it is started.
pub(super) async fn join(url: &str, token: &str, folder: &Path) -> anyhow::Result<String> {
    let folder = std::path::absolute(folder).with_context(|| format!("{} is no path", folder.display()))?;
    let key = UserKey::open(&folder)?;
    let client = web::client(url).timeout(ANSWER_DEADLINE).build()?;
    let request = EnrolmentRequest { token: token.to_owned(), public_key: key.public_key() };
    let sent = client.post(format!("{}/v1/enrolments", url.trim_end_matches('/'))).json(&request).send().await;
    let answer = sent.with_context(|| format!("{url} does not answer"))?;
    if !answer.status().is_success() {
        let (status, problem) = (answer.status(), answer.json::<serde_json::Value>().await.unwrap_or_default());
        anyhow::bail!("{url} refuses ({status}): {}", problem["detail"].as_str().unwrap_or("it does not say why"));
    }
    let answer: EnrolmentAnswer = answer.json().await.with_context(|| format!("{url} is no eventbus of Otto"))?;
    write_secret(&folder.join(COMMANDS_KEY), &answer.commands_key)?;
    let settings = folder.join(SETTINGS);
    write_secret(&settings, &settings_of(&answer, &folder))?;
    // The last: until then it can be asked again.
    key.become_credentials(&answer.jwt, &folder.join(CREDENTIALS))?;
    let (agent, class) = (&answer.agent, &answer.class);
    Ok(format!("Agent {agent} of class {class} is enrolled. Start it: `otto serve agent --settings {}`\n", settings.display()))
}

fn settings_of(answer: &EnrolmentAnswer, folder: &Path) -> String {
    let mut text = String::new();
    let path = |name: &str| folder.join(name).display().to_string();
    for (name, value) in [
        (env::AGENT_NAME, answer.agent.to_string()),
        (env::AGENT_CLASS, answer.class.to_string()),
        (env::BUS_URLS, answer.bus_urls.join(",")),
        (env::BUS_CREDENTIALS_FILE, path(CREDENTIALS)),
        (env::COMMANDS_KEY_FILE, path(COMMANDS_KEY)),
        (env::DEPOT_URL, answer.depot_url.clone()),
        (env::DATA, path("data")),
    ] {
        // A string takes everything.
        let _taken = writeln!(text, "{name}={value}");
    }
    text
}
