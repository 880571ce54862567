//! From a forge's webhook to the first byte of the run that it starts.
//!
//! The repository is a bare one on this machine, so nothing is fetched: that costs what the line to the forge does. All else is in it: the signature, the
//! pipeline and the source read from the pushed commit, the source stored in the depot, the run, and the source unpacked by the agent.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, ensure};
use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use service::web;
use sha2::Sha256;

use crate::{
    agents::port,
    baseline, installation,
    services::{Plan, Services, data_in},
    stats::Samples,
};

/// Pushes that are told of.
const PUSHES: usize = 100;
/// Files of the source beside the pipeline.
const FILES: usize = 20;
/// The webhook's secret, which nobody else needs to know here.
const SECRET: &str = "a secret of the benchmark";

pub(crate) async fn measure(otto: &Path) -> anyhow::Result<Samples> {
    let folder = installation()?;
    let (repository, clone, secret) = (folder.path().join("shop.git"), folder.path().join("clone"), folder.path().join("secret"));
    fs::write(&secret, SECRET)?;
    let projects = data_in(&folder).join("projects");
    fs::create_dir_all(&projects)?;
    let source = format!("source: {{ url: {} }}\n", repository.display());
    let webhook = format!("webhook: {{ forge: gitea, secret_file: {}, repository: octo/shop }}\n", secret.display());
    fs::write(projects.join("shop.yml"), source + &webhook)?;
    git(folder.path(), &["init", "--quiet", "--bare", "--initial-branch=main", "shop.git"])?;
    git(folder.path(), &["init", "--quiet", "--initial-branch=main", "clone"])?;
    fs::write(clone.join("Ottofile"), baseline::pipeline(1))?;
    for number in 0..FILES {
        fs::write(clone.join(format!("file-{number}")), "some text\n".repeat(100))?;
    }
    let services = Services::start_in(folder, otto, &Plan { agents: 1, are_played: false, environment: &[] }).await?;
    services.settled(1).await?;
    let address = format!("http://127.0.0.1:{}/v1/hooks/projects/shop", port(&services.data(), "forge")?);
    let client = web::client(&address).build()?;
    let (mut before, mut samples) = ("0".repeat(40), Samples::default());
    for number in 0..=PUSHES {
        fs::write(clone.join("changed"), number.to_string())?;
        git(&clone, &["add", "--all"])?;
        git(&clone, &["commit", "--quiet", "--message", "a change"])?;
        git(&clone, &["push", "--quiet", "../shop.git", "main:refs/heads/main"])?;
        let after = git(&clone, &["rev-parse", "HEAD"])?.trim().to_owned();
        let body = json!({
            "ref": "refs/heads/main", "before": before, "after": after, "head_commit": { "id": after, "message": "a change" },
            "repository": { "id": 1, "full_name": "octo/shop" }, "sender": { "login": "ann" },
        });
        let body = body.to_string();
        let mut code = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes())?;
        code.update(body.as_bytes());
        let request = client
            .post(&address)
            .header("content-type", "application/json")
            .header("x-gitea-event", "push")
            .header("x-gitea-signature", HEXLOWER.encode(&code.finalize().into_bytes()));
        let begun = Instant::now();
        let answer: Value = request.body(body).send().await?.error_for_status()?.json().await?;
        let run = answer["runs"][0]["run"].as_str().with_context(|| format!("no run starts: {answer}"))?;
        let first_byte = services.first_byte(run).await? - begun;
        // The first one has what the others find: connections, and the library of steps.
        if number > 0 {
            samples.push(first_byte);
        }
        before = after;
    }
    services.end().await?;
    Ok(samples)
}

/// What git says, whoever the person at this machine is.
fn git(folder: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new("git");
    command.args(["-c", "user.name=bench", "-c", "user.email=bench@localhost"]).args(arguments);
    let output = command.current_dir(folder).env("GIT_CONFIG_GLOBAL", "/dev/null").stdin(Stdio::null()).output()?;
    ensure!(output.status.success(), "git {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}
