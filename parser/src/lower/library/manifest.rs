//! Reads the `manifest.yml` of a library.

use model::{diagnostic::Span, manifest::StepManifest};

use crate::{
    diagnostic::{Code, Finding, excerpt},
    limits::{DIAGNOSTICS_MAX, MANIFEST_BYTES_MAX},
    lower::Lowering,
};

impl<'a> Lowering<'_, 'a> {
    /// The manifest, if it is one; what is wrong with it is told with its own lines.
    pub(super) fn manifest(&mut self, path: &'a str, bytes: &'a [u8]) -> Option<StepManifest> {
        let file = self.files.add(path, bytes);
        let outer = self.findings.enter(file);
        let manifest = self.read_manifest(bytes);
        self.findings.enter(outer);
        manifest
    }

    fn read_manifest(&mut self, bytes: &[u8]) -> Option<StepManifest> {
        let help = "a manifest has `symbol`, `description`, `parameters` and `entrypoint`";
        let mut refuse = |span: Span, message: String| {
            self.error(Finding::new(Code::Manifest, span, message).help(help));
            None
        };
        if bytes.len() > MANIFEST_BYTES_MAX {
            let message = format!("the manifest has {} bytes, over the limit of {MANIFEST_BYTES_MAX}", bytes.len());
            return refuse(Span::default(), message);
        }
        let text = match str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let start = error.valid_up_to();
                return refuse(Span { start, end: start + 1 }, format!("the manifest is not UTF-8: byte {start} (from 0)"));
            }
        };
        let manifest: StepManifest =
            match serde_saphyr::from_str_with_options(text, serde_saphyr::options! { strict_booleans: true, with_snippet: false }) {
                Ok(manifest) => manifest,
                Err(error) => {
                    let place = error.location().map_or((1, 1), |location| (location.line(), location.column()));
                    let told = error.without_snippet().to_string();
                    let told = told.lines().next().unwrap_or_default();
                    return refuse(token_at(text, place), format!("this is no step manifest: {}", without_place(told)));
                }
            };
        let mut problems = manifest.problems();
        if manifest.entrypoint.is_none() {
            let message = "a step of a library needs an `entrypoint` with the `path` of its program".into();
            problems.insert(0, model::manifest::ManifestProblem { name: "symbol".to_owned(), message });
        }
        let sound = problems.is_empty();
        for problem in problems.into_iter().take(DIAGNOSTICS_MAX) {
            refuse(place_of(text, &problem.name), format!("`{}`: {}", excerpt(&problem.name), problem.message));
        }
        sound.then_some(manifest)
    }
}

/// A message without the place that the reader puts at its end: it is told apart.
fn without_place(message: &str) -> &str {
    let end = message.find(" at line ").unwrap_or(message.len());
    message.get(..end).unwrap_or(message).trim_end_matches([' ', ':'])
}

/// The rest of the line from a place, both from 1 and in characters.
fn token_at(text: &str, (line, column): (u64, u64)) -> Span {
    let lines = usize::try_from(line.saturating_sub(1)).unwrap_or(usize::MAX);
    let before: usize = text.split_inclusive('\n').take(lines).map(str::len).sum();
    let rest = text.get(before..).unwrap_or_default().lines().next().unwrap_or_default();
    let skipped = usize::try_from(column.saturating_sub(1)).unwrap_or(usize::MAX);
    let start = before + rest.char_indices().nth(skipped).map_or(rest.len(), |(place, _)| place);
    Span { start, end: before + rest.trim_end().len().max(start - before) }
}

/// Where a name is given to something, else where it stands first.
fn place_of(text: &str, name: &str) -> Span {
    let given = format!("name: {name}");
    match word_in(text, &given) {
        Span { end: 0, .. } => word_in(text, name),
        Span { start, end } => Span { start: start + "name: ".len(), end },
    }
}

/// The first place where a word stands as a whole.
fn word_in(text: &str, word: &str) -> Span {
    let is_part = |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '-');
    let mut places = text.match_indices(word).map(|(place, _)| place);
    let start = places.find(|place| {
        let before = text.get(..*place).and_then(|before| before.chars().next_back());
        let after = text.get(place + word.len()..).and_then(|after| after.chars().next());
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    });
    start.map_or_else(Span::default, |start| Span { start, end: start + word.len() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_found_in_the_text() {
        let text = "symbol: ä\nname: x\n";
        assert_eq!(token_at(text, (2, 7)), Span { start: 17, end: 18 });
        assert_eq!(token_at(text, (1, 9)), Span { start: 8, end: 10 });
        assert_eq!(token_at(text, (9, 9)), Span { start: 19, end: 19 });
        assert_eq!(word_in("paths: path", "path"), Span { start: 7, end: 11 });
        assert_eq!(place_of("x: name\n- name: x", "x"), Span { start: 16, end: 17 });
        assert_eq!(word_in("a", "b"), Span::default());
    }
}
