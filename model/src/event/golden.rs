//! One JSON file for each kind of event and each version of its form, for ever: what was written once is read by every later version.

use std::{collections::BTreeSet, fs, path::PathBuf};

use super::run::{RECORD_SCHEMA, RunEvent, RunRecord};

/// The version of the record's form in which each kind was first written.
macro_rules! first_written {
    ($($kind:ident in $schema:literal),* $(,)?) => {
        /// Every kind, with that version.
        const KINDS: &[(&str, u32)] = &[$((stringify!($kind), $schema)),*];

        /// Is no program without a new kind in the list.
        fn schema_of(event: &RunEvent) -> u32 {
            match event {
                $(RunEvent::$kind { .. } => $schema,)*
            }
        }
    };
}

// A new kind stands here, and gets a file.
first_written! {
    RunAccepted in 1,
    StageReady in 1,
    StageAwarded in 1,
    StageDeclined in 1,
    StageStarted in 1,
    StageFinished in 1,
    StageLost in 1,
    StageSkipped in 1,
    StageLogStored in 1,
    CancelRequested in 1,
    RunFinished in 1,
    StageRetried in 2,
    StageEnded in 2,
    StageReused in 2,
    WaitOpened in 2,
    WaitAnswered in 2,
    LockQueued in 2,
    LockAcquired in 2,
    StageCancelRequested in 2,
    RunHeld in 2,
    RunReleased in 2,
}

/// A variant's name as it is written.
fn snake_case(variant: &str) -> String {
    let mut snake = String::new();
    for character in variant.chars() {
        if character.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(character.to_ascii_lowercase());
    }
    snake
}

/// Files of events as version `schema` of a record has them, by their name.
fn files(schema: u32) -> Vec<(String, String)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("test_data/run_events/schema-{schema}"));
    let mut files: Vec<(String, String)> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap()))
        .collect();
    files.sort();
    files
}

/// The kind that a file's name begins with; what follows `--` tells several of one kind apart.
fn kind_of(name: &str) -> &str {
    name.strip_suffix(".json").map(|name| name.split("--").next().unwrap_or(name)).expect("an event's file ends with .json")
}

#[test]
fn every_kind_has_a_file_of_each_version_that_has_it_and_all_of_them_read() {
    for schema in 1..=RECORD_SCHEMA {
        let mut kinds = BTreeSet::new();
        for (name, text) in files(schema) {
            let event: RunEvent = serde_json::from_str(&text).unwrap_or_else(|error| panic!("schema {schema}, {name}: {error}"));
            assert_eq!(event.kind(), kind_of(&name));
            assert!(schema_of(&event) <= schema, "schema {schema} has no {}", event.kind());
            kinds.insert(event.kind().to_owned());
        }
        let all: BTreeSet<String> = KINDS.iter().filter(|(_, first)| *first <= schema).map(|(kind, _)| snake_case(kind)).collect();
        assert_eq!(kinds, all, "schema {schema}");
    }
}

#[test]
fn every_event_is_written_as_its_file_has_it() {
    for (name, text) in files(RECORD_SCHEMA) {
        let event: RunEvent = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(serde_json::to_string(&event).unwrap(), text.trim_end(), "{name}");
    }
}

#[test]
fn a_record_of_each_version_reads_and_one_of_this_is_written_as_its_file_has_it() {
    for schema in 1..=RECORD_SCHEMA {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("test_data/run_records/schema-{schema}.json"));
        let text = fs::read_to_string(path).unwrap();
        let record: RunRecord = serde_json::from_str(&text).unwrap();
        assert_eq!(record.schema, schema);
        if schema == RECORD_SCHEMA {
            assert_eq!(serde_json::to_string(&record).unwrap(), text.trim_end());
        }
    }
}
