//! Diagnostics for people: the code, the place, the source with the mark, and how to mend it.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use model::diagnostic::{Diagnostic, Severity};

use crate::{Code, explain::printable};

/// Columns of a line that is shown; longer ones are cut around the mark.
const WIDTH: usize = 140;
/// Lines of one mark that are shown.
const LINES_MAX: usize = 12;
/// Bytes of source on each side of the mark's beginning that are looked at: far more than a line that is shown, and a bound for files
/// that are one line.
const CONTEXT_BYTES_MAX: usize = 4096;

/// The diagnostic as it is printed, without a line break at its end. `source` is the file's bytes; with other bytes the marks are wrong,
/// and nothing else. `colour` adds ANSI escapes.
pub fn render(diagnostic: &Diagnostic, source: &[u8], colour: bool) -> String {
    let file = printable(&diagnostic.file);
    let masked = masked(diagnostic, source);
    let source = masked.as_deref().unwrap_or(source);
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let mut group = Group::with_title(level.primary_title(&diagnostic.message).id(&diagnostic.code));
    let excerpt = Excerpt::of(diagnostic, source);
    if let Some(excerpt) = &excerpt {
        let mark = AnnotationKind::Primary.span(excerpt.start..excerpt.end);
        let mark = if diagnostic.label.is_empty() { mark } else { mark.label(&diagnostic.label) };
        group = group.element(Snippet::source(excerpt.text).line_start(excerpt.line).path(&file).annotation(mark));
    } else {
        let origin = annotate_snippets::Origin::path(&file).line(diagnostic.line).char_column(diagnostic.column);
        group = group.element(origin);
    }
    if !diagnostic.help.is_empty() {
        group = group.element(Level::HELP.message(&diagnostic.help));
    }
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    renderer.term_width(WIDTH).render(&[group])
}

/// The source without what a mark of [`Code::CredentialValue`] stands at: it may be a secret, and what is printed is kept in logs.
fn masked(diagnostic: &Diagnostic, source: &[u8]) -> Option<Vec<u8>> {
    if ![Code::CredentialValue, Code::CredentialReference].iter().any(|code| code.as_str() == diagnostic.code) {
        return None;
    }
    let mut masked = source.to_vec();
    let inside = masked.get_mut(diagnostic.span.start..diagnostic.span.end)?;
    inside.iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b'*');
    Some(masked)
}

/// The lines of the source that the mark touches.
struct Excerpt<'a> {
    text: &'a str,
    line: usize,
    start: usize,
    end: usize,
}

impl<'a> Excerpt<'a> {
    /// `None` if there is nothing to show.
    fn of(diagnostic: &Diagnostic, source: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(source).ok()?;
        let span_start = floor(text, diagnostic.span.start);
        let span_end = ceiling(text, diagnostic.span.end.max(span_start));
        let earliest = floor(text, span_start.saturating_sub(CONTEXT_BYTES_MAX));
        let latest = ceiling(text, span_start.saturating_add(CONTEXT_BYTES_MAX));
        let first = text.get(earliest..span_start)?.rfind('\n').map_or(earliest, |place| earliest + place + 1);
        // To the end of the line in which the mark ends, or of the last line that is shown.
        let last = span_end.saturating_sub(1).clamp(span_start, latest);
        let breaks = text.get(span_start..latest)?.match_indices('\n').map(|(place, _)| span_start + place);
        let end = breaks.enumerate().find(|(line, place)| *place >= last || line + 1 == LINES_MAX).map_or(latest, |(_, place)| place);
        let text = text.get(first..end)?;
        if text.trim().is_empty() {
            return None;
        }
        let clamp = |offset: usize| offset.clamp(first, end) - first;
        Some(Self { text, line: diagnostic.line, start: clamp(span_start), end: clamp(span_end) })
    }
}

fn floor(text: &str, offset: usize) -> usize {
    let offset = offset.min(text.len());
    (0..=offset).rev().find(|offset| text.is_char_boundary(*offset)).unwrap_or(0)
}

fn ceiling(text: &str, offset: usize) -> usize {
    (offset.min(text.len())..=text.len()).find(|offset| text.is_char_boundary(*offset)).unwrap_or(text.len())
}
