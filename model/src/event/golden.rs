//! One JSON file for each kind of event and each version of its form, for ever: what was written once is read by every later version.

use std::{collections::BTreeSet, fs, path::PathBuf};

use super::run::RunEvent;

/// Files of events as version `schema` of a record has them, by their name.
fn files(schema: &str) -> Vec<(String, String)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("test_data/run_events").join(schema);
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
fn every_event_of_the_first_form_reads() {
    for (name, text) in files("schema-1") {
        let event: RunEvent = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(event.kind(), kind_of(&name));
    }
}

#[test]
fn every_event_is_written_as_its_file_has_it_and_reads_back() {
    let mut kinds = BTreeSet::new();
    for (name, text) in files("schema-2") {
        let event: RunEvent = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(event.kind(), kind_of(&name));
        assert_eq!(serde_json::to_string(&event).unwrap(), text.trim_end(), "{name}");
        kinds.insert(event.kind());
    }
    // A new kind gets a file, and stands here.
    let all = [
        "cancel_requested",
        "lock_acquired",
        "lock_queued",
        "run_accepted",
        "run_finished",
        "run_held",
        "run_released",
        "stage_awarded",
        "stage_cancel_requested",
        "stage_declined",
        "stage_ended",
        "stage_finished",
        "stage_log_stored",
        "stage_lost",
        "stage_ready",
        "stage_retried",
        "stage_reused",
        "stage_skipped",
        "stage_started",
        "wait_answered",
        "wait_opened",
    ];
    assert_eq!(kinds, BTreeSet::from(all));
}
