//! Every file under `test_data` against its snapshot: what is accepted with its explanation, what is refused with its diagnostics.

use std::{
    fs,
    path::{Path, PathBuf},
};

use parser::{Planning, render};

use crate::planning_of;

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

fn compare(kind: &str, text: impl Fn(&str, &[u8]) -> String) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(folder(kind));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| {
        for (name, source) in files(kind) {
            insta::assert_snapshot!(name.as_str(), text(&format!("{name}.otto"), &source));
        }
    });
}

#[test]
fn what_is_accepted_is_explained_as_it_was() {
    compare("ok", |path, source| match planning_of(path, source) {
        Planning::Plan { document, warnings, .. } => {
            let warnings: Vec<String> = warnings.iter().map(|warning| render(warning, source, false) + "\n").collect();
            warnings.concat() + &parser::explain(document.plan())
        }
        Planning::Refused(diagnostics) => {
            panic!(
                "{path} is refused:\n{}",
                diagnostics.iter().map(|diagnostic| render(diagnostic, source, false) + "\n").collect::<String>()
            )
        }
        Planning::Needs(files) => panic!("{path} needs {files:?}"),
    });
}

#[test]
fn what_is_refused_is_refused_as_it_was() {
    compare("err", |path, source| match planning_of(path, source) {
        Planning::Refused(diagnostics) => diagnostics.iter().map(|diagnostic| render(diagnostic, source, false) + "\n").collect(),
        Planning::Plan { document, .. } => panic!("{path} is not refused:\n{}", parser::explain(document.plan())),
        Planning::Needs(files) => panic!("{path} needs {files:?}"),
    });
}
