//! Every file under `test_data` against its snapshot: what is accepted with its explanation, what is refused with its diagnostics. What else
//! a file may say in its first lines stands in `fixture.rs`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use model::diagnostic::Diagnostic;
use parser::{
    Planning,
    explain::{Explained, explain},
    render,
};

use crate::fixture::Fixture;

fn folder(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("test_data").join(kind)
}

/// Name and bytes of every file, in the order of the alphabet.
fn files(kind: &str) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<(String, Vec<u8>)> = fs::read_dir(folder(kind))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "otto"))
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap()))
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

fn compare(kind: &str, text: impl Fn(&Fixture, &str, &[u8]) -> String) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(folder(kind));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| {
        for (name, source) in files(kind) {
            let fixture = Fixture::of(&source, &folder(kind).join(&name));
            let text = text(&fixture, &format!("{name}.otto"), &source);
            insta::assert_snapshot!(name.as_str(), without_digests(&text));
        }
    });
}

/// Every digest made alike: a word in a manifest of the standard library would change all snapshots.
fn without_digests(text: &str) -> String {
    let mut parts = text.split("sha256:");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + "sha256:…" + part.trim_start_matches(|character: char| character.is_ascii_hexdigit()))
}

fn rendered(diagnostics: &[Diagnostic], fixture: &Fixture, path: &str, source: &[u8]) -> String {
    diagnostics.iter().map(|diagnostic| render(diagnostic, fixture.source(&diagnostic.file, path, source), false) + "\n").collect()
}

#[test]
fn what_is_accepted_is_explained_as_it_was() {
    compare("ok", |fixture, path, source| match fixture.plan(path, source) {
        Planning::Plan { document, notes, warnings } if fixture.whole => {
            let whole = serde_json::json!({ "plan": document.plan(), "notes": *notes });
            rendered(&warnings, fixture, path, source) + &serde_json::to_string_pretty(&whole).unwrap()
        }
        Planning::Plan { document, notes, warnings } => {
            let explained = Explained { notes: Some(&notes), ..Explained::new(path, &document) };
            rendered(&warnings, fixture, path, source) + &explain(&explained)
        }
        Planning::Refused(diagnostics) => panic!("{path} is refused:\n{}", rendered(&diagnostics, fixture, path, source)),
        Planning::Needs(files) => panic!("{path} needs {files:?}"),
    });
}

#[test]
fn what_is_refused_is_refused_as_it_was() {
    compare("err", |fixture, path, source| match fixture.plan(path, source) {
        Planning::Refused(diagnostics) => rendered(&diagnostics, fixture, path, source),
        Planning::Plan { document, .. } => panic!("{path} is not refused:\n{}", explain(&Explained::new(path, &document))),
        Planning::Needs(files) => panic!("{path} needs {files:?}"),
    });
}
