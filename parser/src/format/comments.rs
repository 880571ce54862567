//! Where the comments of a source stand, and which of them are not written yet.

use std::collections::BTreeMap;

use model::diagnostic::Span;

/// The comments of a source that have not been written yet, by where they begin.
#[derive(Debug, Default)]
pub(super) struct Comments(BTreeMap<usize, usize>);

impl Comments {
    /// All comments of a source that the scanner has let pass.
    pub(super) fn of(source: &str) -> Self {
        Self(spans(source).into_iter().map(|span| (span.start, span.end)).collect())
    }

    /// The first that begins within.
    pub(super) fn first(&self, within: Span) -> Option<Span> {
        if within.start >= within.end {
            return None;
        }
        self.0.range(within.start..within.end).next().map(|(start, end)| Span { start: *start, end: *end })
    }

    /// Takes the first that begins within, to be written.
    pub(super) fn take(&mut self, within: Span) -> Option<Span> {
        let first = self.first(within)?;
        self.0.remove(&first.start);
        Some(first)
    }
}

/// Every comment of a source. Strings are skipped, as what looks like a comment in them is none.
pub(super) fn spans(source: &str) -> Vec<Span> {
    let mut spans = Vec::new();
    let mut at = 0;
    while let Some(rest) = source.get(at..).filter(|rest| !rest.is_empty()) {
        let Some(start) = rest.find(['\'', '"', '/']) else { break };
        at += start;
        let rest = rest.get(start..).unwrap_or_default();
        let (length, is_comment) = token(rest);
        if is_comment {
            spans.push(Span { start: at, end: at + length });
        }
        at += length;
    }
    spans
}

/// How long the string or comment is that begins here, and whether it is a comment.
fn token(rest: &str) -> (usize, bool) {
    let to = |opening: usize, closing: &str| {
        let end = rest.get(opening..).and_then(|body| body.find(closing));
        end.map_or(rest.len(), |end| opening + end + closing.len())
    };
    if rest.starts_with("//") {
        (rest.find('\n').unwrap_or(rest.len()), true)
    } else if rest.starts_with("/*") {
        (to(2, "*/"), true)
    } else if rest.starts_with("\"\"\"") {
        (to(3, "\"\"\""), false)
    } else if rest.starts_with('"') {
        (escaped(rest), false)
    } else if rest.starts_with('\'') {
        // `''` in a string is two strings side by side here, which have the same end.
        (to(1, "'"), false)
    } else {
        (1, false)
    }
}

/// How long the `"…"` is that begins here.
fn escaped(rest: &str) -> usize {
    let mut bytes = rest.bytes().enumerate().skip(1);
    while let Some((place, byte)) = bytes.next() {
        match byte {
            b'"' => return place + 1,
            b'\\' => drop(bytes.next()),
            _ => {}
        }
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(source: &str) -> Vec<&str> {
        spans(source).into_iter().map(|span| source.get(span.start..span.end).unwrap()).collect()
    }

    #[test]
    fn comments_are_found_and_strings_are_not() {
        assert_eq!(of("a // b\n/* c\n */ d"), ["// b", "/* c\n */"]);
        assert_eq!(of("'// ''/*' \"/* \\\" // \" \"\"\" // \" \"\"\" // e"), ["// e"]);
        assert_eq!(of("/**/'x'/***///"), ["/**/", "/***/", "//"]);
    }

    #[test]
    fn a_comment_is_taken_once() {
        let mut comments = Comments::of("/*a*/ /*b*/");
        let all = Span { start: 0, end: 11 };
        assert_eq!(comments.take(all), Some(Span { start: 0, end: 5 }));
        assert_eq!(comments.first(Span { start: 0, end: 6 }), None);
        assert_eq!(comments.take(all), Some(Span { start: 6, end: 11 }));
        assert_eq!(comments.take(all), None);
    }
}
