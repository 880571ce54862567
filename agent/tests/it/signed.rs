//! Whoever else can write to an agent's inbox gives it no work and takes none from it. Each attack succeeds where the agent has no key to check with.

use bytes::Bytes;
use eventbus::{
    Subject,
    signed::{self, CommandSigner},
};
use model::protocol::agent::{AgentCommand, Assignment, ReportKind};

use crate::office::{Office, assignment, name, sh, stage};

/// Makes a payload that the orchestrator did not.
type Forger<'a> = dyn Fn(&AgentCommand) -> Bytes + 'a;

fn assign(assignment: &Assignment) -> AgentCommand {
    AgentCommand::Assign(Box::new(assignment.clone()))
}

async fn say(office: &Office, payload: Bytes) {
    office.bus.publish_bytes(&Subject::inbox(&name()), payload).await.unwrap();
}

/// Gives an agent forged work and then its own; whether it takes the forged one up.
async fn first_started(guard: Option<&CommandSigner>, forged: &Forger<'_>) -> String {
    let mut office = Office::without_agent().await;
    let signer = CommandSigner::generate();
    office.commands = guard.map(CommandSigner::verifier);
    office.start_agent().await;
    let (evil, own) = (assignment(stage("Evil", vec![sh("true")]), 1), assignment(stage("Own", vec![sh("true")]), 2));
    for wanted in [&evil, &own] {
        office.ask(&wanted.stage, 0, &[]).await;
    }
    say(&office, forged(&assign(&evil))).await;
    say(&office, guard.unwrap_or(&signer).seal(&name(), &assign(&own))).await;
    loop {
        let started = office.report(ReportKind::Started).await.lease;
        if started == evil.lease {
            return evil.stage.path;
        }
        // Both start at once where nothing is checked. The inbox is read in order, so with the guard the forged one was refused by now.
        if guard.is_some() {
            return own.stage.path;
        }
    }
}

#[tokio::test]
async fn work_that_the_orchestrator_did_not_sign_is_not_taken_up() {
    let (orchestrator, stranger) = (CommandSigner::generate(), CommandSigner::generate());
    let other = "a2".parse().unwrap();
    let attacks: [(&str, &Forger<'_>); 3] = [
        ("not signed", &|command| signed::bare(command)),
        ("signed by somebody else", &|command| stranger.seal(&name(), command)),
        ("signed for another agent", &|command| orchestrator.seal(&other, command)),
    ];
    for (attack, forged) in attacks {
        assert_eq!(first_started(None, forged).await, "Evil", "{attack}, without the guard");
        assert_eq!(first_started(Some(&orchestrator), forged).await, "Own", "{attack}");
    }
}

#[tokio::test]
async fn a_cancel_that_the_orchestrator_did_not_sign_ends_nothing() {
    for guarded in [false, true] {
        let mut office = Office::without_agent().await;
        let signer = CommandSigner::generate();
        office.commands = guarded.then(|| signer.verifier());
        office.start_agent().await;
        let go = office.path("go");
        let work = assignment(stage("Work", vec![sh(&format!("until [ -e '{}' ]; do sleep 0.01; done", go.display()))]), 1);
        office.ask(&work.stage, 0, &[]).await;
        say(&office, signer.seal(&name(), &assign(&work))).await;
        office.report(ReportKind::Started).await;
        say(&office, signed::bare(&AgentCommand::Cancel { lease: work.lease.clone(), force: true })).await;
        if guarded {
            // The inbox is read in order: this is answered after the forged cancel was looked at.
            let asked = stage("Next", vec![sh("true")]);
            office.ask(&asked, 0, &[]).await;
            std::fs::write(&go, "").unwrap();
        }
        let (outcome, reason) = office.result(&work.lease).await;
        assert_eq!(outcome == model::StageOutcome::Success, guarded, "{reason:?}");
    }
}
