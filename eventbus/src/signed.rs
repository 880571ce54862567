//! Commands that could do harm, signed by the orchestrator (Ed25519): an agent obeys the key that it was told at its enrolment, whoever else may
//! write to its inbox.
//!
//! The payload is the command's JSON; a signature follows it after a line feed, which compact JSON has none of. What is signed is
//!
//! ```text
//! otto command 1 LF agent LF attempt LF fence LF body
//! ```
//!
//! so that a command for one agent, attempt or award is none for another. An older one is told by its fence: the agent keeps the greatest.

use std::{fmt, str::FromStr};

use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use model::{
    AgentName,
    protocol::agent::{AgentCommand, Lease, ReportKind},
};
use nkeys::{KeyPair, KeyPairType};

/// Stands before everything else, so that a signature of the same key for another purpose is none of a command.
const DOMAIN: &str = "otto command 1";
/// Between the JSON and its signature.
const SEPARATOR: u8 = b'\n';

/// Why a command is not obeyed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It does not read as one.
    #[error("this is no command")]
    Malformed(#[from] serde_json::Error),
    /// It could do harm, and nobody signed it.
    #[error("the command about {attempt} is not signed")]
    Unsigned {
        /// Which attempt.
        attempt: String,
    },
    /// The signature is not that of the orchestrator over this command for this agent.
    #[error("the signature of the command about {attempt} is wrong")]
    Forged {
        /// Which attempt.
        attempt: String,
    },
}

/// The text of a key is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is no key that signs commands")]
pub struct InvalidKey;

/// Signs commands.
#[derive(Debug, Clone)]
pub struct CommandSigner(KeyPair);

/// Knows what was signed.
#[derive(Debug, Clone)]
pub struct CommandVerifier(KeyPair);

impl CommandSigner {
    /// A new key.
    pub fn generate() -> Self {
        Self(KeyPair::new_service())
    }

    /// The seed as text: a secret.
    pub fn seed_text(&self) -> String {
        self.0.seed().expect("a key that signs has its seed")
    }

    /// What agents are told.
    pub fn verifier(&self) -> CommandVerifier {
        CommandVerifier(KeyPair::from_public_key(&self.0.public_key()).expect("a key's public half is one"))
    }

    /// The payload of a command for this agent.
    pub fn seal(&self, agent: &AgentName, command: &AgentCommand) -> Bytes {
        let mut payload = body(command);
        if let Some(lease) = guarded(command) {
            let signature = self.0.sign(&signed(agent, lease, &payload)).expect("a key that signs has its seed");
            payload.push(SEPARATOR);
            payload.extend_from_slice(BASE64URL_NOPAD.encode(&signature).as_bytes());
        }
        payload.into()
    }
}

impl FromStr for CommandSigner {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let pair = KeyPair::from_seed(text.trim()).map_err(|_| InvalidKey)?;
        if pair.key_pair_type() == KeyPairType::Service { Ok(Self(pair)) } else { Err(InvalidKey) }
    }
}

impl FromStr for CommandVerifier {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let pair = KeyPair::from_public_key(text.trim()).map_err(|_| InvalidKey)?;
        if pair.key_pair_type() == KeyPairType::Service { Ok(Self(pair)) } else { Err(InvalidKey) }
    }
}

impl fmt::Display for CommandVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.public_key())
    }
}

/// The payload of a command that nobody signs: where orchestrator and agent are one process.
pub fn bare(command: &AgentCommand) -> Bytes {
    body(command).into()
}

/// Reads a payload from the inbox of this agent. With a verifier, what could do harm is obeyed only if it was signed.
pub fn open(agent: &AgentName, payload: &[u8], verifier: Option<&CommandVerifier>) -> Result<AgentCommand, CommandError> {
    let mut parts = payload.splitn(2, |byte| *byte == SEPARATOR);
    let (body, signature) = (parts.next().unwrap_or_default(), parts.next());
    let command: AgentCommand = serde_json::from_slice(body)?;
    if let (Some(verifier), Some(lease)) = (verifier, guarded(&command)) {
        let attempt = || lease.attempt.to_string();
        let signature = signature.ok_or_else(|| CommandError::Unsigned { attempt: attempt() })?;
        let signature = BASE64URL_NOPAD.decode(signature).map_err(|_| CommandError::Forged { attempt: attempt() })?;
        verifier.0.verify(&signed(agent, lease, body), &signature).map_err(|_| CommandError::Forged { attempt: attempt() })?;
    }
    Ok(command)
}

fn body(command: &AgentCommand) -> Vec<u8> {
    serde_json::to_vec(command).expect("commands have text keys only")
}

/// The attempt of a command that must be the orchestrator's: one that gives work or takes it, lets an attempt go on that holds a lock, answers a
/// step, or has a result forgotten. The rest does no harm: an agent tells once more where output lies, or once less that an attempt has started.
fn guarded(command: &AgentCommand) -> Option<&Lease> {
    match command {
        AgentCommand::Assign(assignment) => Some(&assignment.lease),
        AgentCommand::Cancel { lease, .. }
        | AgentCommand::RunAnswer { lease, .. }
        | AgentCommand::Acknowledge { lease, report: ReportKind::Finished | ReportKind::Lost } => Some(lease),
        // All of them are in the body; where there is none, nothing is renewed.
        AgentCommand::Renewed { leases, .. } => leases.first(),
        AgentCommand::TellOutput { .. }
        | AgentCommand::Acknowledge {
            report: ReportKind::Declined | ReportKind::Started | ReportKind::LogStored | ReportKind::RunRequested,
            ..
        } => None,
    }
}

fn signed(agent: &AgentName, lease: &Lease, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{DOMAIN}\n{agent}\n{}\n{}\n", lease.attempt, lease.fence).into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

#[cfg(test)]
mod tests {
    use model::{AttemptId, RunId, StageId, TriggerId, plan::Stage, protocol::agent::Assignment};

    use super::*;

    /// Public: made of the bytes 0 to 31, for this test only.
    fn signer() -> CommandSigner {
        CommandSigner(KeyPair::new_from_raw(KeyPairType::Service, std::array::from_fn(|at| u8::try_from(at).unwrap())).unwrap())
    }

    fn agent(name: &str) -> AgentName {
        name.parse().unwrap()
    }

    fn lease() -> Lease {
        let attempt = AttemptId { run: RunId::of(&TriggerId::of("test", "1")), stage: StageId::of("Build"), attempt: 1 };
        Lease { attempt, fence: 7 }
    }

    fn cancel() -> AgentCommand {
        AgentCommand::Cancel { lease: lease(), force: false }
    }

    /// One of each that must be signed.
    fn harmful() -> [AgentCommand; 5] {
        [
            assign(),
            cancel(),
            AgentCommand::Renewed { status: 1, leases: vec![lease()] },
            AgentCommand::RunAnswer { lease: lease(), number: 1, answer: Err("no".to_owned()) },
            AgentCommand::Acknowledge { lease: lease(), report: ReportKind::Finished },
        ]
    }

    fn assign() -> AgentCommand {
        AgentCommand::Assign(Box::new(Assignment::new(lease(), Stage::new("Build"), "demo".to_owned())))
    }

    #[test]
    fn the_signed_bytes_stay_the_same() {
        let body = body(&cancel());
        let signed = String::from_utf8(signed(&agent("a1"), &lease(), &body)).unwrap();
        assert_eq!(signed, include_str!("../tests/golden/signed-cancel.txt").trim_end());
        let payload = signer().seal(&agent("a1"), &cancel());
        assert_eq!(String::from_utf8(payload.to_vec()).unwrap(), include_str!("../tests/golden/sealed-cancel.txt").trim_end());
    }

    #[test]
    fn what_was_signed_for_one_agent_is_obeyed_by_it_and_by_no_other() {
        let verifier = signer().verifier();
        for command in harmful() {
            let payload = signer().seal(&agent("a1"), &command);
            assert_eq!(open(&agent("a1"), &payload, Some(&verifier)).unwrap(), command);
            assert!(matches!(open(&agent("a2"), &payload, Some(&verifier)), Err(CommandError::Forged { .. })));
            let stranger = CommandSigner::generate().verifier();
            assert!(matches!(open(&agent("a1"), &payload, Some(&stranger)), Err(CommandError::Forged { .. })));
        }
    }

    #[test]
    fn a_command_that_is_not_signed_or_was_changed_is_obeyed_only_without_a_verifier() {
        let (verifier, name) = (signer().verifier(), agent("a1"));
        for command in harmful() {
            assert!(matches!(open(&name, &bare(&command), Some(&verifier)), Err(CommandError::Unsigned { .. })));
            assert_eq!(open(&name, &bare(&command), None).unwrap(), command);
            let text = String::from_utf8(signer().seal(&name, &command).to_vec()).unwrap();
            let newer = text.replace("\"fence\":7", "\"fence\":8");
            assert_ne!(newer, text);
            assert!(matches!(open(&name, newer.as_bytes(), Some(&verifier)), Err(CommandError::Forged { .. })));
            assert!(open(&name, newer.as_bytes(), None).is_ok(), "the guard is the signature");
            let cut = text.as_bytes().split_last().unwrap().1;
            assert!(matches!(open(&name, cut, Some(&verifier)), Err(CommandError::Forged { .. })));
        }
    }

    #[test]
    fn a_key_is_read_as_it_was_written_and_another_kind_is_none() {
        let signer = CommandSigner::generate();
        let again: CommandSigner = signer.seed_text().parse().unwrap();
        assert_eq!(again.verifier().to_string(), signer.verifier().to_string());
        assert!(signer.verifier().to_string().parse::<CommandVerifier>().is_ok());
        assert!(KeyPair::new_user().seed().unwrap().parse::<CommandSigner>().is_err());
        assert!(KeyPair::new_user().public_key().parse::<CommandVerifier>().is_err());
    }
}
