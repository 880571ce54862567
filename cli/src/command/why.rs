//! `otto why`: why a stage runs where it does, or waits.

use std::{fmt::Write as _, process::ExitCode};

use apispec::{AttemptView, AuctionView, OfferView, ReservationView, StageWhy, WhyView};
use clap::Args;
use model::Timestamp;
use service::clock;

use super::{
    Terminal, show,
    text::{self, printable},
};
use crate::store::{Source, reach};

/// Say why the stages of a run run where they do, or what they wait for
#[derive(Debug, Args)]
pub struct WhyArgs {
    /// The run: its id, the beginning of it, or `latest`
    run: String,
    /// Only this stage: its path, the last part of it, or its id; without one, those that are not over
    stage: Option<String>,
    /// Print what the API answers
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    source: Source,
}

/// Says it.
pub async fn run(args: WhyArgs) -> anyhow::Result<ExitCode> {
    let reader = reach(args.source, Some(&args.run)).await?;
    let why = reader.client.why(&reader.client.pick(&args.run).await?, args.stage.as_deref()).await?;
    reader.end().await;
    let text = if args.json { format!("{}\n", serde_json::to_string_pretty(&why)?) } else { shown(&why, Timestamp(clock::unix_ms())) };
    Terminal::stdout().print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn shown(why: &WhyView, now: Timestamp) -> String {
    let mut lines: Vec<String> = vec![why.run.to_string()];
    for stage in &why.stages {
        tell(stage, now, &mut lines);
    }
    if why.more {
        lines.push("… and more stages: name one".to_owned());
    }
    lines.iter().fold(String::new(), |mut text, line| {
        writeln!(text, "{}", printable(line, false)).expect("a string takes any text");
        text
    })
}

fn tell(why: &StageWhy, now: Timestamp, lines: &mut Vec<String>) {
    let (word, what) = show::words(&why.stage, now);
    lines.push(String::new());
    lines.push(format!("{}  {word} {what}", why.stage.path));
    for attempt in &why.stage.attempts {
        lines.push(placed(attempt, now));
        lines.extend(attempt.offers.iter().map(|offer| offered(offer, offer.agent == attempt.agent)));
    }
    // What led to an award is told with it.
    for auction in why.auctions.iter().filter(|auction| auction.awarded.is_none()) {
        in_vain(auction, now, lines);
    }
}

fn placed(attempt: &AttemptView, now: Timestamp) -> String {
    format!("  try {} went to {}, {}", attempt.attempt, attempt.agent, text::ago(attempt.awarded_at, now))
}

fn offered(offer: &OfferView, won: bool) -> String {
    let mark = if won { "*" } else { " " };
    let kept = match offer.reservation {
        ReservationView::Slot => "a free slot",
        ReservationView::Handover => "the slot of the stage before",
        ReservationView::Quote => "nothing kept",
    };
    format!("   {mark} {}: {} µ/s, begins in {} ms, {kept}", offer.agent, offer.price_micros_per_s, offer.start_ms)
}

fn in_vain(auction: &AuctionView, now: Timestamp, lines: &mut Vec<String>) {
    let offers = match auction.offers.len() {
        0 => "nobody could".to_owned(),
        1 => "one offer".to_owned(),
        offers => format!("{offers} offers"),
    };
    lines.push(format!("  asked for try {}, {}: {offers}", auction.attempt, text::ago(auction.closed_at, now)));
    lines.extend(auction.offers.iter().map(|offer| offered(offer, false)));
    lines.extend(auction.declined.iter().map(|declined| format!("     {}: {}", declined.agent, declined.reason)));
    lines.extend(auction.unmet.iter().map(|unmet| format!("     {unmet}")));
}

#[cfg(test)]
mod tests {
    use apispec::{AttemptStatus, DeclineView, OutputsView, StageRef, StageStatus, StageView};
    use model::{AttemptId, AuctionId, RunId, StageId, TriggerId, plan::Effect};

    use super::*;

    #[test]
    fn it_tells_who_was_asked_who_won_and_why_the_others_did_not() {
        let (run, id) = (RunId::of(&TriggerId::of("t", "1")), StageId::of("Build"));
        let auction = |round| AuctionId::of(&AttemptId { run: run.clone(), stage: id.clone(), attempt: 1 }, round);
        let offer = |agent: &str, start_ms| OfferView {
            agent: agent.parse().unwrap(),
            price_micros_per_s: 7,
            start_ms,
            reservation: ReservationView::Slot,
        };
        let attempt = AttemptView {
            attempt: 1,
            fence: 3,
            agent: "quick".parse().unwrap(),
            auction: auction(2),
            offers: vec![offer("quick", 10), offer("slow", 900)],
            awarded_at: Timestamp(2_000),
            status: AttemptStatus::Running { since: Timestamp(2_000) },
            output: None,
        };
        let earlier = AuctionView {
            id: auction(1),
            project: "demo".parse().unwrap(),
            run: run.clone(),
            stage: StageRef { id: id.clone(), path: "Build".to_owned() },
            attempt: 1,
            closed_at: Timestamp(1_000),
            awarded: None,
            offers: vec![],
            declined: vec![DeclineView { agent: "small".parse().unwrap(), reason: "has 2 cores of 8".to_owned() }],
            unmet: vec!["no agent has `gpu`".to_owned()],
        };
        let stage = StageView {
            id,
            path: "Build".to_owned(),
            needs: vec![],
            effect: Effect::Safe,
            status: StageStatus::Running { agent: "quick".parse().unwrap(), since: Timestamp(2_000) },
            attempts: vec![attempt],
            waits: vec![],
            lock: None,
            reused_from: None,
            may_fail: false,
            outputs: OutputsView::default(),
        };
        let why = WhyView { run, stages: vec![StageWhy { stage, auctions: vec![earlier] }], more: false };
        let text = shown(&why, Timestamp(63_000));
        for line in [
            "  try 1 went to quick, ",
            "   * quick: 7 µ/s, begins in 10 ms, a free slot",
            "     slow: 7 µ/s",
            "     small: has 2 cores of 8",
            "     no agent has `gpu`",
        ] {
            assert!(text.contains(line), "{line}:\n{text}");
        }
    }
}
