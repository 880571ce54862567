//! What is published about the bus, `apispec/asyncapi` and `apispec/schema`: it is fresh, and says what is read and nothing else.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
};

use eventbus::subject::CHANNELS;
use jsonschema::Validator;
use model::event::run::{RECORD_SCHEMA, RunEvent, RunRecord};
use serde_json::{Value, json};

use crate::{
    asyncapi::{document, file_of, payloads, schema_of},
    messages,
};

/// Set, the test writes the documents instead of comparing them.
const UPDATE: &str = "UPDATE_SPEC";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn schemas() -> BTreeMap<&'static str, Value> {
    model::schema::all()
        .into_iter()
        .map(|(path, mut schema)| {
            (path, {
                schema.sort_all_objects();
                schema
            })
        })
        .collect()
}

/// The documents, by their path from `apispec`.
fn documents() -> BTreeMap<PathBuf, String> {
    let schemas = schemas();
    let mut bus = document(&schemas);
    // Another crate of the build may have asked serde_json to keep the order in which fields come.
    bus.sort_all_objects();
    let text = |value: &Value| serde_json::to_string_pretty(value).unwrap() + "\n";
    let schemas = schemas.iter().map(|(path, schema)| (Path::new("schema").join(file_of(path)), text(schema)));
    schemas.chain([(PathBuf::from("asyncapi/bus.json"), text(&bus))]).collect()
}

fn committed(folder: &Path) -> BTreeSet<PathBuf> {
    let files = |name: &str| fs::read_dir(folder.join(name)).into_iter().flatten().map(|entry| entry.unwrap().path());
    let files = files("asyncapi").chain(files("schema"));
    files.map(|path| path.strip_prefix(folder).unwrap().to_owned()).collect()
}

#[test]
fn the_committed_documents_of_the_bus_are_fresh() {
    let folder = root().join("apispec");
    let documents = documents();
    if env::var_os(UPDATE).is_some() {
        for path in committed(&folder) {
            fs::remove_file(folder.join(path)).unwrap();
        }
        for (path, text) in &documents {
            fs::create_dir_all(folder.join(path).parent().unwrap()).unwrap();
            fs::write(folder.join(path), text).unwrap();
        }
        return;
    }
    let hint = "run `cargo xtask generate`";
    assert_eq!(committed(&folder), documents.keys().cloned().collect(), "{hint}");
    for (path, text) in &documents {
        assert!(
            fs::read_to_string(folder.join(path)).unwrap() == *text,
            "{} is not what the table and the model have: {hint}",
            path.display()
        );
    }
}

fn validators() -> BTreeMap<&'static str, Validator> {
    schemas().into_iter().map(|(path, schema)| (path, jsonschema::draft202012::new(&schema).unwrap())).collect()
}

fn check(validator: &Validator, json: &Value, what: &str) {
    let errors: Vec<String> = validator.iter_errors(json).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{what}: {errors:#?}\n{json:#}");
}

#[test]
fn every_schema_is_one_of_its_draft() {
    for (path, schema) in schemas() {
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        jsonschema::draft202012::meta::validate(&schema).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert!(schema["description"].is_string(), "{path} says what it is");
    }
}

#[test]
fn every_reference_of_the_document_leads_somewhere() {
    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let bus = document(&schemas());
    let mut found = Vec::new();
    references(&bus, &mut found);
    assert!(found.len() > CHANNELS.len());
    for target in found {
        let leads = match target.strip_prefix('#') {
            Some(pointer) => bus.pointer(pointer).is_some(),
            None => root().join("apispec/asyncapi").join(target).is_file(),
        };
        assert!(leads, "{target} leads nowhere");
    }
}

#[test]
fn every_message_is_valid_and_every_kind_has_one() {
    let validators = validators();
    let messages = messages::all();
    for message in &messages {
        check(&validators[schema_of(message.payload)], &message.json, message.payload);
        assert!((message.reads)(&message.json), "{}", message.payload);
    }
    for channel in &CHANNELS {
        let mut of_kind = messages.iter().filter(|message| message.kind == Some(channel.kind)).peekable();
        assert!(of_kind.peek().is_some(), "there is no message of the kind {}", channel.kind);
        assert!(of_kind.all(|message| message.payload == channel.payload), "{}", channel.kind);
    }
    let said: BTreeSet<&str> = messages.iter().map(|message| message.payload).collect();
    assert_eq!(said, payloads().collect());
}

/// The golden events, with the version of their record and their file's name.
fn golden_events() -> Vec<(u32, String, Value)> {
    let mut events = Vec::new();
    for schema in 1..=RECORD_SCHEMA {
        let folder = root().join(format!("model/test_data/run_events/schema-{schema}"));
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            events.push((schema, path.display().to_string(), serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()));
        }
    }
    events.sort_by(|one, other| one.1.cmp(&other.1));
    events
}

fn record_of(schema: u32, event: &Value) -> Value {
    json!({ "schema": schema, "previous": null, "actor": "otto", "at": 1, "events": [event] })
}

#[test]
fn every_golden_record_of_each_version_is_valid() {
    let validators = validators();
    let (event_validator, record_validator) = (&validators["event::run::RunEvent"], &validators["event::run::RunRecord"]);
    for (schema, name, event) in golden_events() {
        check(event_validator, &event, &name);
        check(record_validator, &record_of(schema, &event), &name);
    }
    let whole = (1..=RECORD_SCHEMA).map(|schema| format!("model/test_data/run_records/schema-{schema}.json"));
    for name in whole.chain(["orchestrator/test_data/schema-1/log.jsonl".to_owned()]) {
        let text = fs::read_to_string(root().join(&name)).unwrap();
        for line in text.lines() {
            check(record_validator, &serde_json::from_str(line).unwrap(), &name);
        }
    }
    for schema in [0, RECORD_SCHEMA + 1] {
        assert!(!record_validator.is_valid(&record_of(schema, &json!({ "kind": "run_released" }))), "schema {schema}");
    }
    assert!(!record_validator.is_valid(&json!({ "schema": 1, "previous": null, "actor": "otto", "at": 1, "events": [] })));
}

/// Where it stands which variant an enum is.
const TAGS: [&str; 2] = ["/kind", "/gate"];

/// A message with one thing changed: a value, a field that is gone, or one that is too many.
fn changed(json: &Value) -> Vec<Value> {
    fn pointers(value: &Value, at: &str, all: &mut Vec<String>) {
        all.push(at.to_owned());
        let escaped = |key: &str| key.replace('~', "~0").replace('/', "~1");
        match value {
            Value::Object(fields) => fields.iter().for_each(|(key, value)| pointers(value, &format!("{at}/{}", escaped(key)), all)),
            Value::Array(items) => items.iter().enumerate().for_each(|(at_item, item)| pointers(item, &format!("{at}/{at_item}"), all)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let mut places = Vec::new();
    pointers(json, "", &mut places);
    let mut all = Vec::new();
    for place in places {
        let mut change = |change: &dyn Fn(&mut Value)| {
            let mut copy = json.clone();
            change(copy.pointer_mut(&place).unwrap());
            all.push(copy);
        };
        for other in [Value::Null, json!(-1), json!(1), json!(true), json!("other"), json!({})] {
            // Of a tag, serde takes the number of the variant, too: nobody writes it.
            if !(other == 1 && TAGS.iter().any(|tag| place.ends_with(tag))) {
                change(&|value| *value = other.clone());
            }
        }
        if let Some(Value::Object(fields)) = json.pointer(&place) {
            change(&|value| value["a field of a newer version"] = Value::Null);
            for key in fields.keys() {
                change(&|value| drop(value.as_object_mut().unwrap().remove(key)));
            }
        }
    }
    all
}

/// Whether all changed messages are valid that read, and no others; how many are not.
fn refused(validator: &Validator, json: &Value, reads: impl Fn(&Value) -> bool) -> usize {
    let (valid, invalid): (Vec<Value>, Vec<Value>) = changed(json).into_iter().partition(|changed| validator.is_valid(changed));
    let shown = |wrong: Vec<&Value>| wrong.iter().map(ToString::to_string).collect::<Vec<_>>();
    let (unread, read) = (valid.iter().filter(|json| !reads(json)).collect(), invalid.iter().filter(|json| reads(json)).collect());
    let (unread, read) = (shown(unread), shown(read));
    assert!(unread.is_empty() && read.is_empty(), "valid, but not read: {unread:#?}\nread, but not valid: {read:#?}");
    invalid.len()
}

#[test]
fn a_changed_message_is_valid_if_it_reads() {
    let validators = validators();
    for message in messages::all() {
        let validator = &validators[schema_of(message.payload)];
        assert!(refused(validator, &message.json, message.reads) > 0, "{}", message.payload);
    }
}

#[test]
fn a_changed_record_is_valid_if_it_reads() {
    let validators = validators();
    let record_validator = &validators["event::run::RunRecord"];
    for (_, name, event) in golden_events() {
        let reads = |event: &Value| serde_json::from_value::<RunEvent>(event.clone()).is_ok();
        assert!(refused(&validators["event::run::RunEvent"], &event, reads) > 0, "{name}");
    }
    for schema in 1..=RECORD_SCHEMA {
        let name = format!("model/test_data/run_records/schema-{schema}.json");
        let record: Value = serde_json::from_str(&fs::read_to_string(root().join(name)).unwrap()).unwrap();
        // A record of no known version reads as JSON, and is refused by whoever reads it.
        let reads = |record: &Value| {
            let read = serde_json::from_value::<RunRecord>(record.clone());
            read.is_ok_and(|record| (1..=RECORD_SCHEMA).contains(&record.schema) && !record.events.is_empty())
        };
        assert!(refused(record_validator, &record, reads) > 0);
    }
}
