//! What each key may say and hear, from the table of subjects. Allow-lists only: what is not named here is refused by the server.

use super::connection::Identity;
use crate::subject::{CHANNELS, Channel, Party, Role, Stream};

/// The durable consumer of the stream of triggers; all orchestrators share it.
pub(super) const TRIGGER_CONSUMER: &str = "orchestrator";

/// Where nats-server puts in the name of a user's JWT, and the value of its tag `class:…`.
const NAME_TEMPLATE: &str = "{{name()}}";
const CLASS_TEMPLATE: &str = "{{tag(class)}}";

/// What one key may do.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Permissions {
    pub(super) publish: Vec<String>,
    pub(super) subscribe: Vec<String>,
}

fn inbox(identity: &Identity) -> String {
    format!("{}.>", identity.inbox_prefix())
}

/// What a service may do.
pub(super) fn of_service(role: Role) -> Permissions {
    let party = Party::Service(role);
    let own_inbox = inbox(&Identity::Service(role));
    let mut publish = vec![own_inbox.clone()];
    let mut subscribe = vec![own_inbox];
    for channel in &CHANNELS {
        if channel.publishers.contains(&party) {
            publish.push(channel.pattern_of_all());
        }
        match (channel.subscribers.contains(&party), channel.stream) {
            (true, None) => {
                subscribe.push(heard(channel));
                publish.extend(answers(channel));
            }
            (true, Some(stream)) => publish.extend(read_api(stream)),
            (false, _) => {}
        }
    }
    if role == Role::Eventbus {
        publish.extend(setup_api());
    }
    publish.sort();
    subscribe.sort();
    Permissions { publish, subscribe }
}

/// Where the server is told what an account may be from now on, by the account's public key.
pub(super) fn account_update(account: &str) -> String {
    format!("$SYS.REQ.ACCOUNT.{account}.CLAIMS.UPDATE")
}

/// What the user of the server's own account may do: say what an account may be from now on, ask whether that was heard, hear when somebody else
/// says so, and ask itself whether the server has seen what it said.
pub(super) fn of_system() -> Permissions {
    let (updates, inbox) = (account_update("*"), inbox(&Identity::System));
    Permissions { publish: vec![updates.clone(), inbox.clone()], subscribe: vec![updates, inbox] }
}

/// What an agent may do: speak under its own name, and hear what is said to it and to its class. The server puts in the name and the class of the
/// agent's JWT, so what all agents may is said once, in the account's, and is changed there.
pub(super) fn of_agents() -> Permissions {
    let own_inbox = format!("_INBOX_agent_{NAME_TEMPLATE}.>");
    let of = |chosen: fn(&Channel) -> &'static [Party]| {
        let channels = CHANNELS.iter().filter(move |channel| chosen(channel).contains(&Party::Agents));
        channels.map(|channel| channel.pattern_of(NAME_TEMPLATE, CLASS_TEMPLATE)).chain([own_inbox.clone()]).collect()
    };
    Permissions { publish: of(|channel| channel.publishers), subscribe: of(|channel| channel.subscribers) }
}

/// What agents say, in the account of services.
pub(super) fn from_agents() -> Vec<String> {
    crossing(|channel| channel.publishers)
}

/// What agents hear, in the account of services.
pub(super) fn to_agents() -> Vec<String> {
    crossing(|channel| channel.subscribers)
}

fn crossing(chosen: fn(&Channel) -> &'static [Party]) -> Vec<String> {
    CHANNELS.iter().filter(|channel| chosen(channel).contains(&Party::Agents)).map(Channel::pattern_of_all).collect()
}

/// The subjects of a channel as they are listened to: in its group alone, where it has one, so that nobody listens beside it.
fn heard(channel: &Channel) -> String {
    let pattern = channel.pattern_of_all();
    channel.group.map_or(pattern.clone(), |group| format!("{pattern} {group}"))
}

/// Where the answers to a question go: into the inboxes of the services that may ask it.
fn answers(channel: &Channel) -> Vec<String> {
    let asking = channel.publishers.iter().filter_map(|party| match party {
        Party::Service(role) => Some(inbox(&Identity::Service(*role))),
        Party::Agents => None,
    });
    if channel.answer.is_some() { asking.collect() } else { Vec::new() }
}

/// JetStream's calls by which a stream is read.
fn read_api(stream: Stream) -> Vec<String> {
    let name = stream.name();
    match stream {
        Stream::Runs => ["STREAM.INFO", "STREAM.MSG.GET", "DIRECT.GET"].map(|call| format!("$JS.API.{call}.{name}")).to_vec(),
        Stream::Triggers => vec![
            format!("$JS.API.CONSUMER.INFO.{name}.{TRIGGER_CONSUMER}"),
            format!("$JS.API.CONSUMER.MSG.NEXT.{name}.{TRIGGER_CONSUMER}"),
            format!("$JS.ACK.{name}.{TRIGGER_CONSUMER}.>"),
        ],
    }
}

/// JetStream's calls by which streams and the consumer are made, changed and looked at. None deletes anything.
fn setup_api() -> Vec<String> {
    let streams = Stream::ALL.iter().flat_map(|stream| {
        let name = stream.name();
        ["CREATE", "UPDATE", "INFO"].map(|call| format!("$JS.API.STREAM.{call}.{name}"))
    });
    let triggers = Stream::Triggers.name();
    let consumer = [
        format!("$JS.API.CONSUMER.INFO.{triggers}.{TRIGGER_CONSUMER}"),
        format!("$JS.API.CONSUMER.CREATE.{triggers}.{TRIGGER_CONSUMER}"),
        format!("$JS.API.CONSUMER.CREATE.{triggers}.{TRIGGER_CONSUMER}.>"),
    ];
    streams.chain(consumer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_speaks_only_under_its_own_name() {
        let permissions = of_agents();
        assert_eq!(
            permissions.publish,
            [
                "enrolment.renew.{{name()}}",
                "tasks.bids.{{name()}}.*",
                "tasks.declined.{{name()}}",
                "tasks.started.{{name()}}",
                "tasks.finished.{{name()}}",
                "tasks.stored.{{name()}}",
                "tasks.requested.{{name()}}",
                "agents.{{name()}}",
                "logs.{{name()}}.*.*",
                "_INBOX_agent_{{name()}}.>"
            ]
        );
        let expected = [
            "tasks.auction.{{tag(class)}}",
            "tasks.calls.{{name()}}",
            "inbox.{{name()}}",
            "enrolment.renewed.{{name()}}",
            "_INBOX_agent_{{name()}}.>",
        ];
        assert_eq!(permissions.subscribe, expected);
    }

    #[test]
    fn nobody_may_use_a_wildcard_over_anothers_subjects() {
        for role in Role::ALL {
            let Permissions { publish, subscribe } = of_service(role);
            for subject in publish.iter().chain(&subscribe) {
                assert!(
                    !subject.starts_with(['*', '>']) && !subject.starts_with("$JS.API.>") && !subject.starts_with("_INBOX."),
                    "{subject}"
                );
            }
            let writes_runs = publish.contains(&"runs.*".to_owned());
            assert_eq!(writes_runs, role == Role::Orchestrator, "{role}");
            assert!(!publish.iter().any(|subject| subject.contains("DELETE") || subject.contains("PURGE")), "{role}");
        }
    }

    #[test]
    fn the_parser_answers_only_those_who_may_ask_it() {
        let permissions = of_service(Role::Parser);
        assert_eq!(permissions.publish, ["_INBOX_forge.>", "_INBOX_orchestrator.>", "_INBOX_parser.>"]);
        assert_eq!(permissions.subscribe, ["_INBOX_parser.>", "parser.plan parser", "parser.triggers parser"]);
    }
}
