//! The table of subjects as a document of `AsyncAPI` 3.0.0 (<https://www.asyncapi.com/docs/reference/specification/v3.0.0>).

use std::collections::BTreeMap;

use eventbus::{
    bus::{MESSAGE_BYTES_MAX, TRIGGER_BYTES_MAX},
    subject::{CHANNELS, Channel, Party, Stream},
};
use serde_json::{Map, Value, json};

const LOG_CHUNK: &str = "protocol::log::LogChunk";

/// The path of the type whose schema says how a payload reads.
pub(crate) fn schema_of(payload: &str) -> &str {
    // Bytes follow its header.
    if payload == LOG_CHUNK { "protocol::log::LogHeader" } else { payload }
}

/// The file of a schema, from `apispec/schema`.
pub(crate) fn file_of(schema: &str) -> String {
    let mut snake = String::new();
    for character in name_of(schema).chars() {
        if character.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(character.to_ascii_lowercase());
    }
    snake + ".json"
}

/// What is said and answered on the bus, each once.
pub(crate) fn payloads() -> impl Iterator<Item = &'static str> {
    CHANNELS.iter().flat_map(|channel| [Some(channel.payload), channel.answer]).flatten()
}

/// The document; `schemas` are those of the model.
pub(crate) fn document(schemas: &BTreeMap<&str, Value>) -> Value {
    let messages: Map<String, Value> = payloads().map(|payload| (name_of(payload).to_owned(), message(payload, schemas))).collect();
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Otto's bus",
            "version": env!("CARGO_PKG_VERSION"),
            "description": format!(
                "What the services and agents of Otto say to each other over NATS; made from the table in eventbus/src/subject/table.rs, as the \
                 permissions of the server are: nobody else can say it, or hear it. Accepted triggers and the logs of runs are kept in streams; \
                 everything else is soft, may be lost, doubled or late, and is sent again from the logs. A message has at most \
                 {MESSAGE_BYTES_MAX} bytes."
            ),
            "license": { "name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0" },
        },
        "defaultContentType": "application/json",
        "channels": channels(),
        "operations": operations(),
        "components": { "messages": messages },
    })
}

/// The last part of a path.
fn name_of(path: &str) -> &str {
    path.rsplit("::").next().unwrap_or(path)
}

fn answer_of(channel: &Channel) -> String {
    format!("{}_answer", channel.kind)
}

fn channels() -> Map<String, Value> {
    let mut channels = Map::new();
    for channel in &CHANNELS {
        let mut item = json!({
            "address": channel.pattern,
            "description": description(channel),
            "messages": { name_of(channel.payload): { "$ref": format!("#/components/messages/{}", name_of(channel.payload)) } },
        });
        let parameters: Map<String, Value> = channel
            .pattern
            .split('.')
            .filter_map(|token| token.strip_prefix('{')?.strip_suffix('}'))
            .map(|name| (name.to_owned(), json!({ "description": parameter(name) })))
            .collect();
        if !parameters.is_empty() {
            item["parameters"] = parameters.into();
        }
        channels.insert(channel.kind.to_owned(), item);
        if let Some(answer) = channel.answer {
            let item = json!({
                "address": null,
                "description": format!("Answers to `{}`, each at the address that its question gives for the reply.", channel.kind),
                "messages": { name_of(answer): { "$ref": format!("#/components/messages/{}", name_of(answer)) } },
            });
            channels.insert(answer_of(channel), item);
        }
    }
    channels
}

fn parameter(name: &str) -> &'static str {
    match name {
        "agent" => "The agent's name. An agent has the subjects with its own, and no others.",
        "class" => "The class of the agent. An agent hears its own, and no other.",
        "trigger" => "The trigger's id.",
        "run" => "The run's id.",
        "stage" => "The stage's id.",
        "auction" => "The auction's id.",
        other => panic!("nobody has said what {other} is"),
    }
}

fn description(channel: &Channel) -> String {
    let names = |parties: &[Party]| parties.iter().map(|party| name(*party)).collect::<Vec<_>>().join(", ");
    let who = format!("Said by: {}. Heard by: {}.", names(channel.publishers), names(channel.subscribers));
    let kept = match channel.stream {
        None => "Soft: not kept.".to_owned(),
        Some(stream) => {
            let age = stream.age_max().map_or("for ever".to_owned(), |age| format!("for {} days", age.as_secs() / (24 * 60 * 60)));
            let (name, bytes) = (stream.name(), stream.bytes_max());
            format!("Kept in the stream {name}, {age}; it takes nothing more when it has {bytes} bytes.")
        }
    };
    let group = channel.group.map(|group| format!(" Each goes to one member of the group `{group}`.")).unwrap_or_default();
    let bytes = match channel.stream {
        Some(Stream::Triggers) => format!(" A trigger has at most {TRIGGER_BYTES_MAX} bytes."),
        Some(Stream::Runs) | None => String::new(),
    };
    format!("{who}{group} {kept}{bytes}")
}

fn name(party: Party) -> &'static str {
    match party {
        Party::Service(role) => role.name(),
        Party::Agents => "agent",
    }
}

fn operations() -> Map<String, Value> {
    let mut operations = Map::new();
    for channel in &CHANNELS {
        let speakers = channel.publishers.iter().map(|party| ("send", "sends", *party));
        let listeners = channel.subscribers.iter().map(|party| ("receive", "receives", *party));
        for (action, verb, party) in speakers.chain(listeners) {
            let messages = |channel: &str, payload| json!([{ "$ref": format!("#/channels/{channel}/messages/{}", name_of(payload)) }]);
            let mut operation = json!({
                "action": action,
                "channel": { "$ref": format!("#/channels/{}", channel.kind) },
                "messages": messages(channel.kind, channel.payload),
                "tags": [{ "name": name(party) }],
            });
            if let Some(answer) = channel.answer {
                let of = answer_of(channel);
                operation["reply"] = json!({ "channel": { "$ref": format!("#/channels/{of}") }, "messages": messages(&of, answer) });
            }
            if let Some(group) = channel.group.filter(|_| action == "receive") {
                operation["bindings"] = json!({ "nats": { "queue": group, "bindingVersion": "0.1.0" } });
            }
            operations.insert(format!("{}_{verb}_{}", name(party), channel.kind), operation);
        }
    }
    operations
}

fn message(payload: &str, schemas: &BTreeMap<&str, Value>) -> Value {
    let path = schema_of(payload);
    let schema = schemas.get(path).unwrap_or_else(|| panic!("{path} has no schema: add it to model/src/schema.rs"));
    let mut message = json!({
        "name": name_of(payload),
        "summary": schema["description"],
        "payload": { "$ref": format!("../schema/{}", file_of(path)) },
    });
    match payload {
        LOG_CHUNK => {
            message["contentType"] = "application/octet-stream".into();
            message["description"] = "The schema is that of the first line. After its line feed come the bytes of the output.".into();
        }
        "protocol::agent::AgentCommand" => {
            message["description"] =
                "A command that could do harm has a line feed after its JSON, and the orchestrator's signature (Ed25519, \
                                      base64url without padding), as eventbus/src/signed.rs says."
                    .into();
        }
        _ => {}
    }
    message
}
