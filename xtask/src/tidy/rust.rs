//! As much of Rust as tidy must know: which lines are tests, and which words are code.

use std::collections::BTreeSet;

use crate::repository::File;

const OF_TESTS: &str = "#[cfg(test)]";

/// The lines of a file that are not its test module, which stands at the end: numbered from 1.
pub(super) fn lines_without_tests(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut previous = "";
    (1..).zip(text.lines()).take_while(move |(_, line)| {
        let tests_begin = previous == OF_TESTS && line.starts_with("mod ") && line.ends_with('{');
        previous = line;
        !tests_begin
    })
}

/// The words of a line that are no comment: identifiers, with what joins them to a path.
pub(super) fn code_words(line: &str) -> impl Iterator<Item = &str> {
    let code = line.split("//").next().unwrap_or_default();
    code.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':')).filter(|word| !word.is_empty())
}

/// Modules that are tests only: those under a folder `tests`, and those whose `mod` line says so.
pub(super) fn test_modules<'a>(files: impl Iterator<Item = &'a File>) -> BTreeSet<String> {
    let mut modules = BTreeSet::new();
    for file in files {
        let lines: Vec<&str> = file.text.lines().collect();
        for pair in lines.windows(2) {
            let name = pair[1].strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';'));
            if let (OF_TESTS, Some(name)) = (pair[0], name) {
                modules.insert(format!("{}{name}", folder_of_modules(&file.path)));
            }
        }
    }
    modules
}

/// The folder in which the modules of a file lie.
fn folder_of_modules(path: &str) -> String {
    let stem = path.strip_suffix(".rs").unwrap_or(path);
    match stem.rsplit_once('/') {
        Some((folder, "mod" | "lib" | "main")) => format!("{folder}/"),
        _ => format!("{stem}/"),
    }
}

/// Whether a file is of such a module.
pub(super) fn is_test(path: &str, modules: &BTreeSet<String>) -> bool {
    let of = |module: &String| path.strip_prefix(module.as_str()).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'));
    path.split('/').any(|part| part == "tests") || modules.iter().any(of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_module_is_no_code_of_its_file() {
        let text = "//! A.\nfn a() {}\n\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\n";
        assert_eq!(lines_without_tests(text).count(), 4);
        assert_eq!(lines_without_tests("//! A.\n#[cfg(test)]\nmod tests;\nfn a() {}\n").count(), 4);
    }

    #[test]
    fn comments_are_no_code() {
        let words: Vec<&str> = code_words("let now = Instant::now(); // async").collect();
        assert_eq!(words, ["let", "now", "=", "Instant::now"].into_iter().filter(|word| *word != "=").collect::<Vec<_>>());
        assert_eq!(code_words("/// no async").count(), 0);
    }

    #[test]
    fn modules_of_tests_are_known_by_their_declaration() {
        let file = |path: &str, text: &str| File { path: path.to_owned(), text: text.to_owned() };
        let files = [file("a/src/core/mod.rs", "mod b;\n#[cfg(test)]\nmod model;\n"), file("a/src/book.rs", "#[cfg(test)]\nmod cases;\n")];
        let modules = test_modules(files.iter());
        for path in ["a/src/core/model.rs", "a/src/core/model/deep.rs", "a/src/book/cases.rs", "a/tests/it/main.rs"] {
            assert!(is_test(path, &modules), "{path}");
        }
        for path in ["a/src/core/b.rs", "a/src/model.rs", "a/src/core/models.rs"] {
            assert!(!is_test(path, &modules), "{path}");
        }
    }
}
