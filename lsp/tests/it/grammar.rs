//! The files for editors: they read, and know every word of the language.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::Value;

fn file(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../editors").join(path)).unwrap()
}

fn json(path: &str) -> Value {
    serde_json::from_str(&file(path)).unwrap()
}

/// Every word between brackets, bars and the like in the patterns of a grammar.
fn words(grammar: &Value, found: &mut BTreeSet<String>) {
    match grammar {
        Value::Object(entries) => {
            for (key, value) in entries {
                if let (Value::String(pattern), "match" | "begin") = (value, key.as_str()) {
                    let pattern = pattern.replace("\\w", " ").replace("\\s", " ");
                    let parts = pattern.split(|character: char| !character.is_ascii_alphanumeric() && character != '_');
                    found.extend(parts.filter(|part| !part.is_empty()).map(str::to_owned));
                }
                words(value, found);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| words(value, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn the_grammar_knows_every_word() {
    let mut known = BTreeSet::new();
    words(&json("otto.tmLanguage.json"), &mut known);
    let missing: Vec<&str> = lsp::words().filter(|word| !word.split('.').any(|part| known.contains(part))).collect();
    assert!(missing.is_empty(), "add to editors/otto.tmLanguage.json: {missing:?}");
}

#[test]
fn the_table_of_words_has_those_of_the_parser() {
    let table: BTreeSet<&str> = lsp::words().collect();
    let missing: Vec<&str> = parser::words().filter(|word| !table.contains(word)).collect();
    assert!(missing.is_empty(), "add to lsp/src/words.rs: {missing:?}");
}

#[test]
fn the_extension_reads_and_has_this_grammar() {
    let package = json("vscode/package.json");
    let contributes = &package["contributes"];
    for path in [&package["main"], &contributes["languages"][0]["configuration"], &contributes["grammars"][0]["path"]] {
        assert!(!file(&format!("vscode/{}", path.as_str().unwrap())).is_empty());
    }
    json("vscode/language-configuration.json");
    assert_eq!(file("otto.tmLanguage.json"), file("vscode/otto.tmLanguage.json"), "copy the one over the other");
    assert_eq!(json("otto.tmLanguage.json")["scopeName"], contributes["grammars"][0]["scopeName"]);
}
