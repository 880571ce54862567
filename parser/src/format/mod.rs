//! `otto fmt`: the canonical spelling of a source, from its syntax tree and its comments.
//!
//! ```text
//! source ─ syntax tree ─ print ─┬─ writer ─ text
//!          comments ────────────┘
//! ```
//!
//! The rules are listed in `GRAMMAR.md`. What is written says what the source says: the digest of the plan is the same, every comment is
//! kept, and what is written is written the same again. The last is looked at before anything is given back; a source that cannot be
//! spelled canonically without changing what it says stays as it is.

mod comments;
mod pieces;
mod place;
mod print;
mod value;
mod writer;

use model::diagnostic::Diagnostic;

use crate::{
    diagnostic::{Files, Findings},
    grammar::Tree,
};

/// The path that diagnostics of a source have: the caller knows where it stands.
const PATH: &str = "";

/// The canonical spelling of a source. The errors are those of its syntax; they name no file.
pub fn format(source: &str) -> Result<String, Vec<Diagnostic>> {
    let text = normal(source);
    let Some(tree) = tree(&text) else { return Err(diagnostics(source)) };
    Ok(spelled(&text, &tree).unwrap_or(text))
}

/// The canonical spelling; `None` if it would not say the same.
fn spelled(text: &str, tree: &Tree) -> Option<String> {
    let formatted = print::print(text, tree);
    // It is read again: had a change of spelling changed what is said, it would be written otherwise now.
    let again = self::tree(&formatted).map(|tree| print::print(&formatted, &tree))?;
    (again == formatted && has_same_comments(text, &formatted)).then_some(formatted)
}

/// Without a byte order mark, and with `\n` at the end of lines. Of several `\r` before a `\n` none is taken away: what is left would be the
/// end of a line, and mean something else.
fn normal(source: &str) -> String {
    let mut normal = String::with_capacity(source.len());
    let mut lines = source.strip_prefix('\u{feff}').unwrap_or(source).split("\r\n").peekable();
    while let Some(line) = lines.next() {
        normal.push_str(line);
        if lines.peek().is_some() {
            normal.push_str(if line.ends_with('\r') { "\r\n" } else { "\n" });
        }
    }
    normal
}

/// The syntax tree of a source without errors.
fn tree(source: &str) -> Option<Tree> {
    let mut files = Files::default();
    let mut findings = Findings::default();
    files.add(PATH, source.as_bytes());
    crate::tree(source.as_bytes(), &files, &mut findings).filter(|_| !findings.has_errors())
}

/// What is wrong with the syntax of a source.
fn diagnostics(source: &str) -> Vec<Diagnostic> {
    let mut files = Files::default();
    let mut findings = Findings::default();
    files.add(PATH, source.as_bytes());
    drop(crate::tree(source.as_bytes(), &files, &mut findings));
    findings.finish(&files)
}

/// Whether both have the same comments, but for the white space in them and their order.
fn has_same_comments(left: &str, right: &str) -> bool {
    let of = |source| {
        let spans = comments::spans(source);
        let words = |span: model::diagnostic::Span| source_of(source, span).split_ascii_whitespace().collect::<Vec<_>>().join(" ");
        let mut comments: Vec<String> = spans.into_iter().map(words).collect();
        comments.sort_unstable();
        comments
    };
    of(left) == of(right)
}

fn source_of(source: &str, span: model::diagnostic::Span) -> &str {
    source.get(span.start..span.end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    #[test]
    fn every_source_that_means_something_can_be_spelled() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        for folder in ["test_data/ok", "test_data/syntax", "../examples"] {
            for entry in walk(&root.join(folder)) {
                let text = normal(&entry);
                let tree = tree(&text).unwrap();
                assert!(spelled(&text, &tree).is_some(), "{text}\nbecomes\n{}", print::print(&text, &tree));
            }
        }
    }

    #[test]
    fn several_carriage_returns_are_not_worn_down_to_a_line_end() {
        for (source, expected) in [("a\r\nb", "a\nb"), ("a\r\r\nb", "a\r\r\nb"), ("\r\n\r\n", "\n\n"), ("'\r\r\r\n'\r", "'\r\r\r\n'\r")] {
            assert_eq!(normal(source), expected, "{source:?}");
            assert_eq!(normal(expected), expected, "{source:?}");
        }
        for source in ["pipeline { env { A = 'x\r\r\ny' } }", "pipeline { /* a\r\r\n */ }", "// a\r\r\npipeline { }", "x /* \r\r\n"] {
            let Ok(formatted) = format(source) else { continue };
            assert_eq!(format(&formatted).as_ref(), Ok(&formatted), "{source:?}");
        }
    }

    /// The pipeline and blueprint files of a folder and of those in it.
    fn walk(folder: &Path) -> Vec<String> {
        let mut found = Vec::new();
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                found.extend(walk(&path));
            } else if path.extension().is_some_and(|ending| ending == "otto" || ending == "blueprint") || path.ends_with("Ottofile") {
                found.push(fs::read_to_string(&path).unwrap());
            }
        }
        found
    }
}
