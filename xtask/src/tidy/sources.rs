//! Every module: it says what it is for, it is not too long, and what is said to be pure is.

use super::{Finding, rust};
use crate::repository::{File, Repository};

/// Lines of a module, without its tests. One that has more does two things.
const LINES_MAX: usize = 800;
/// Crates that are pure as a whole, by their folder of sources.
const PURE: [&str; 3] = ["model/src/", "graph/src/", "parser/src/"];
/// What a pure module does not have: waiting, the clock, the machine.
const IMPURE: [&str; 9] =
    ["async", "tokio", "SystemTime", "Instant::now", "std::env", "std::fs", "std::net", "std::process", "std::thread"];

pub(super) fn check(repository: &Repository) -> Vec<Finding> {
    let tests = rust::test_modules(repository.sources());
    let mut findings = Vec::new();
    for file in repository.sources() {
        findings.extend(head(file));
        findings.extend(ignored(file));
        if rust::is_test(&file.path, &tests) {
            continue;
        }
        findings.extend(length(file));
        if is_pure(&file.path) {
            findings.extend(impurities(file));
        }
    }
    findings
}

fn head(file: &File) -> Option<Finding> {
    let first = file.text.lines().find(|line| !line.trim().is_empty() && !line.starts_with("#!["));
    let says = first.and_then(|line| line.strip_prefix("//!")).is_some_and(|text| !text.trim().is_empty());
    (!says).then(|| {
        Finding::new(
            &file.path,
            "the module does not say what it is for",
            "begin it with `//!` and a sentence: what it is for, what it must never do",
        )
    })
}

fn length(file: &File) -> Option<Finding> {
    let lines = rust::lines_without_tests(&file.text).count();
    (lines > LINES_MAX)
        .then(|| Finding::new(&file.path, format!("{lines} lines without tests, of at most {LINES_MAX}"), "split it by responsibility"))
}

fn ignored(file: &File) -> Vec<Finding> {
    let lines = (1..).zip(file.text.lines());
    let ignored = lines.filter(|(_, line)| line.trim_start().starts_with("#[ignore"));
    ignored
        .map(|(number, _)| {
            Finding::new(
                format!("{}:{number}", file.path),
                "an ignored test",
                "make it pass, or remove it: a test that does not run says nothing",
            )
        })
        .collect()
}

fn is_pure(path: &str) -> bool {
    path.contains("/src/core/") || path.ends_with("/src/core.rs") || PURE.iter().any(|folder| path.starts_with(folder))
}

fn impurities(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in rust::lines_without_tests(&file.text) {
        let is_impure = |word: &str| {
            IMPURE.into_iter().find(|impure| word.strip_prefix(impure).is_some_and(|rest| rest.is_empty() || rest.starts_with(':')))
        };
        if let Some(word) = rust::code_words(line).find_map(|word| is_impure(word).or_else(|| inner(word, is_impure))) {
            findings.push(Finding::new(
                format!("{}:{number}", file.path),
                format!("`{word}` in a pure module"),
                "let the service around the core do it, and hand in what came of it (the time, the bytes, the answer)",
            ));
        }
    }
    findings
}

/// The same for a path whose beginning does not matter, as `time::Instant::now`.
fn inner(word: &str, is_impure: impl Fn(&str) -> Option<&'static str>) -> Option<&'static str> {
    word.match_indices("::").find_map(|(at, separator)| word.get(at + separator.len()..).and_then(&is_impure))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn check_files(files: &[(&str, &str)]) -> Vec<(String, String)> {
        let files = files.iter().map(|(path, text)| File { path: (*path).to_owned(), text: (*text).to_owned() }).collect();
        let crates = ["model", "agent", "parser", "parser/service"].map(|name| (name.replace('/', "_"), name.to_owned()));
        let repository = Repository { files, crates: BTreeMap::from(crates), ..Repository::default() };
        check(&repository).into_iter().map(|finding| (finding.place, finding.what)).collect()
    }

    fn check_one(path: &str, text: &str) -> Vec<(String, String)> {
        check_files(&[(path, text)])
    }

    #[test]
    fn a_module_says_what_it_is_for() {
        for text in ["", "use x;\n", "//! \nfn a() {}\n", "// What it is.\n"] {
            let finding = ("agent/src/a.rs".to_owned(), "the module does not say what it is for".to_owned());
            assert_eq!(check_one("agent/src/a.rs", text), [finding], "{text}");
        }
        assert_eq!(check_one("agent/src/a.rs", "#![expect(x)]\n\n//! What it is.\n"), []);
        assert_eq!(check_one("examples/hello/src/main.rs", "fn main() {}\n"), [], "no part of the workspace");
        assert_eq!(check_one("agent/test_data/a.rs", "fn main() {}\n"), []);
    }

    #[test]
    fn a_long_module_fails_and_its_tests_do_not_count() {
        let code = format!("//! A.\n{}", "fn a() {}\n".repeat(LINES_MAX));
        let what = format!("{} lines without tests, of at most {LINES_MAX}", LINES_MAX + 1);
        assert_eq!(check_one("agent/src/a.rs", &code), [("agent/src/a.rs".to_owned(), what)]);
        assert_eq!(check_one("agent/tests/it/a.rs", &code), []);
        let tests = format!("//! A.\n#[cfg(test)]\nmod tests {{\n{}}}\n", "    fn a() {}\n".repeat(LINES_MAX));
        assert_eq!(check_one("agent/src/a.rs", &tests), []);
    }

    #[test]
    fn a_pure_module_neither_waits_nor_reads_the_clock() {
        for line in [
            "async fn a() {}",
            "use tokio::time::sleep;",
            "let now = std::time::SystemTime::now();",
            "let now = time::Instant::now();",
            "std::fs::read(path)",
        ] {
            let text = format!("//! Nothing async.\n// tokio is not used\n{line}\n");
            for path in ["agent/src/core/a.rs", "agent/src/core.rs", "model/src/a.rs", "parser/src/a.rs"] {
                assert_eq!(check_one(path, &text).len(), 1, "{path}: {line}");
            }
            for path in ["agent/src/a.rs", "parser/service/src/a.rs"] {
                assert_eq!(check_one(path, &text), [], "{path}: {line}");
            }
        }
        assert_eq!(check_one("agent/src/core/a.rs", "//! A.\nfn at(now: Instant, asynchronous: bool) {}\n"), []);
        let tests = "//! A.\nfn a() {}\n#[cfg(test)]\nmod tests {\n    use tokio;\n}\n";
        assert_eq!(check_one("agent/src/core/a.rs", tests), []);
        assert_eq!(
            check_files(&[
                ("agent/src/core/mod.rs", "//! A.\n#[cfg(test)]\nmod cases;\n"),
                ("agent/src/core/cases.rs", "//! A.\nuse tokio;\n")
            ]),
            []
        );
    }

    #[test]
    fn an_ignored_test_fails() {
        let text = format!("//! A.\n#[test]\n#[{}]\nfn a() {{}}\n", "ignore");
        assert_eq!(check_one("agent/src/a.rs", &text), [("agent/src/a.rs:3".to_owned(), "an ignored test".to_owned())]);
    }
}
