//! `otto approve`, `otto answer` and `otto resume`: what a run waits for, of people.

use std::process::ExitCode;

use anyhow::{bail, ensure};
use apispec::{AnswerCreate, AnswerGiven, QuestionView, RunDetail, WaitName};
use clap::Args;
use model::Digest;

use super::{Terminal, text::printable, words};
use crate::client::Client;

/// Approve a delivery that waits for it, or refuse it
///
/// What is approved is the delivery that `otto show` names: this plan and source, in this run, at this gate. If it is refused, the stage fails.
#[derive(Debug, Args)]
pub struct ApproveArgs {
    /// The run: its id, the beginning of it, or `latest`
    run: String,
    /// The stage, by its path; needed where several wait
    stage: Option<String>,
    /// The delivery that is meant; if another one waits, nothing is approved
    #[arg(long)]
    delivery: Option<Digest>,
    /// Refuse it
    #[arg(long)]
    refuse: bool,
    /// Why it is refused
    #[arg(long, requires = "refuse")]
    reason: Option<String>,
    /// Print what the API answers
    #[arg(long)]
    json: bool,
}

/// Answer a question of a run
#[derive(Debug, Args)]
pub struct AnswerArgs {
    /// The run: its id, the beginning of it, or `latest`
    run: String,
    /// The stage, by its path
    stage: String,
    /// The answer
    text: String,
    /// Print what the API answers
    #[arg(long)]
    json: bool,
}

/// Resume a run that pauses
#[derive(Debug, Args)]
pub struct ResumeArgs {
    /// The run: its id, the beginning of it, or `latest`
    run: String,
    /// The stage, by its path; needed where several pause
    stage: Option<String>,
    /// Print what the API answers
    #[arg(long)]
    json: bool,
}

/// Something that waits, and where.
struct Waiting {
    stage: String,
    wait: WaitName,
    question: QuestionView,
}

/// Approves or refuses.
pub async fn approve(args: ApproveArgs) -> anyhow::Result<ExitCode> {
    let client = Client::from_environment()?;
    let detail = client.show(&client.pick(&args.run).await?).await?;
    let waiting = pick(&detail, args.stage.as_deref(), "an approval", |question| matches!(question, QuestionView::Confirm { .. }))?;
    let QuestionView::Confirm { message, delivery, .. } = &waiting.question else { unreachable!("no other was picked") };
    if let Some(meant) = args.delivery {
        ensure!(meant == *delivery, "`{}` waits for the approval of {delivery}, which is not the one that is meant", waiting.stage);
    }
    let said = format!("delivery {}: {}", words::digest(delivery), printable(message, false));
    let (answer, what) = if args.refuse {
        (AnswerGiven::Refuse { reason: args.reason }, "refused")
    } else {
        (AnswerGiven::Approve { delivery: *delivery }, "approved")
    };
    give(&client, &detail, &waiting, answer, &Said { json: args.json, what: format!("{what} {said}") }).await
}

/// Answers with a text.
pub async fn answer(args: AnswerArgs) -> anyhow::Result<ExitCode> {
    let client = Client::from_environment()?;
    let detail = client.show(&client.pick(&args.run).await?).await?;
    let waiting = pick(&detail, Some(&args.stage), "an answer", |question| matches!(question, QuestionView::Prompt { .. }))?;
    give(&client, &detail, &waiting, AnswerGiven::Text { text: args.text }, &Said { json: args.json, what: "answered".to_owned() }).await
}

/// Resumes.
pub async fn resume(args: ResumeArgs) -> anyhow::Result<ExitCode> {
    let client = Client::from_environment()?;
    let detail = client.show(&client.pick(&args.run).await?).await?;
    let waiting = pick(&detail, args.stage.as_deref(), "a person to resume it", |question| matches!(question, QuestionView::Pause))?;
    give(&client, &detail, &waiting, AnswerGiven::Resume, &Said { json: args.json, what: "resumed".to_owned() }).await
}

/// What is printed when the answer was taken.
struct Said {
    json: bool,
    what: String,
}

async fn give(client: &Client, detail: &RunDetail, waiting: &Waiting, answer: AnswerGiven, said: &Said) -> anyhow::Result<ExitCode> {
    let create = AnswerCreate { stage: Some(waiting.stage.clone()), wait: Some(waiting.wait), answer };
    let run = client.answer(&detail.run.id, &create).await?;
    let text = if said.json {
        format!("{}\n", serde_json::to_string_pretty(&run)?)
    } else {
        format!("{} {} {}\n", run.id, printable(&waiting.stage, false), said.what)
    };
    Terminal::stdout().print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// The one thing of this kind that waits, in the stage that is named by its path, its last part or its id.
fn pick(detail: &RunDetail, named: Option<&str>, what: &str, fits: impl Fn(&QuestionView) -> bool) -> anyhow::Result<Waiting> {
    let is_named = |path: &str, id: &str| named.is_none_or(|name| path == name || id == name || path.rsplit('/').next() == Some(name));
    let stages = detail.stages.iter().filter(|stage| is_named(&stage.path, stage.id.as_str()));
    let mut waiting: Vec<Waiting> = stages
        .flat_map(|stage| {
            let open = stage.waits.iter().filter(|wait| wait.answer.is_none() && fits(&wait.question));
            open.map(|wait| Waiting { stage: stage.path.clone(), wait: wait.wait, question: wait.question.clone() })
        })
        .collect();
    let run = &detail.run.id;
    match (waiting.len(), named) {
        (1, _) => Ok(waiting.remove(0)),
        (0, None) => bail!("no stage of {run} waits for {what} now: `otto show {run}` says for what they wait"),
        (0, Some(name)) => bail!("`{name}` of {run} does not wait for {what} now: `otto show {run}` says for what its stages wait"),
        (_, None) => {
            let stages: Vec<&str> = waiting.iter().map(|waiting| waiting.stage.as_str()).collect();
            bail!("several stages of {run} wait for {what}: name one of {}", stages.join(", "))
        }
        // Several gates of one stage are answered one after the other.
        (_, Some(_)) => Ok(waiting.remove(0)),
    }
}
