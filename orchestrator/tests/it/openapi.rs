//! The committed document of the API is the one that the handlers have.

use std::{env, fs, path::Path};

use serde_json::Value;

/// Set, the test writes the document instead of comparing it.
const UPDATE: &str = "UPDATE_SPEC";

fn generated() -> String {
    let mut text = orchestrator::http::openapi().to_pretty_json().expect("a document has text keys only");
    text.push('\n');
    text
}

#[test]
fn the_committed_document_is_fresh() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../apispec/openapi/orchestrator.json");
    if env::var_os(UPDATE).is_some() {
        fs::write(&path, generated()).unwrap();
        return;
    }
    let hint = "run `cargo xtask generate`";
    assert!(fs::read_to_string(&path).unwrap() == generated(), "{} is not what the handlers have: {hint}", path.display());
}

#[test]
fn every_operation_is_described_and_every_reference_leads_somewhere() {
    let document: Value = serde_json::from_str(&generated()).unwrap();
    assert_eq!(document["info"]["title"], "Otto orchestrator");
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let described = operation["summary"].as_str().is_some_and(|summary| !summary.is_empty());
            assert!(described && operation["operationId"].is_string(), "{method} {path}");
            for (status, response) in operation["responses"].as_object().unwrap() {
                let described = response["description"].as_str().is_some_and(|description| !description.is_empty());
                assert!(described, "{method} {path} {status}");
            }
        }
    }
    check_references(&document, &document);
}

fn check_references(document: &Value, value: &Value) {
    match value {
        Value::Object(fields) => {
            if let Some(target) = fields.get("$ref").and_then(Value::as_str) {
                let found = target.strip_prefix('#').and_then(|pointer| document.pointer(pointer));
                assert!(found.is_some(), "{target} leads nowhere");
            }
            fields.values().for_each(|field| check_references(document, field));
        }
        Value::Array(items) => items.iter().for_each(|item| check_references(document, item)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
