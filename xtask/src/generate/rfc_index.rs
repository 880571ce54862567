//! The index of the decisions: `rfc/README.md` from the heads of `rfc/NNNN-slug.md`.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, ensure};

use crate::repository::{File, Repository};

/// What a decision goes through. The first three may still change.
const STATES: [&str; 5] = ["ideation", "discussion", "accepted", "implemented", "abandoned"];

const HEAD: &str = "\
<!-- Made by `cargo xtask generate` from the files of this folder: do not edit. -->

# Decisions

What the next engineer would ask about: one page each, the decision first, then why, and what is left open. A decision is in `ideation`, in
`discussion`, `accepted`, `implemented`, or `abandoned`. A new one begins with two lines, `# RFC NNNN: what is decided` and `State: …`, in `NNNN-slug.md`.

| RFC | Decision | State |
|---|---|---|
";

pub(super) fn produce(repository: &Repository) -> Result<String> {
    let mut text = HEAD.to_owned();
    let mut last = None;
    for file in &repository.files {
        let Some(name) = file.path.strip_prefix("rfc/").filter(|name| *name != "README.md") else { continue };
        let (number, title, state) = entry(file, name).with_context(|| file.path.clone())?;
        ensure!(last.is_none_or(|last| last < number), "{}: there is another RFC {number:04}", file.path);
        last = Some(number);
        writeln!(text, "| [{number:04}]({name}) | {title} | {state} |")?;
    }
    Ok(text)
}

fn entry<'a>(file: &'a File, name: &str) -> Result<(u32, &'a str, &'a str)> {
    let stem = name.strip_suffix(".md").and_then(|stem| stem.split_once('-'));
    let number = stem.map(|(number, _slug)| number).filter(|number| number.len() == 4);
    let number: u32 = number.and_then(|number| number.parse().ok()).context("a decision's file is named `NNNN-slug.md`")?;
    let mut lines = file.text.lines();
    let heading = lines.next().unwrap_or_default();
    let title = heading.strip_prefix(&format!("# RFC {number:04}: ")).map(str::trim).filter(|title| !title.is_empty());
    let title = title.with_context(|| format!("its first line is `# RFC {number:04}: what is decided`"))?;
    ensure!(!title.contains('|'), "its title has a `|`, which the index's table cannot show");
    let state = lines.find(|line| !line.trim().is_empty()).and_then(|line| line.strip_prefix("State: ")).map(str::trim);
    let state = state.filter(|state| STATES.contains(state));
    let state = state.with_context(|| format!("its second line is `State: ` and one of {}", STATES.join(", ")))?;
    Ok((number, title, state))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(files: &[(&str, &str)]) -> Repository {
        let files = files.iter().map(|(path, text)| File { path: (*path).to_owned(), text: (*text).to_owned() }).collect();
        Repository { files, ..Repository::default() }
    }

    #[test]
    fn each_decision_is_a_row() {
        let repository = with(&[
            ("README.md", "no decision"),
            ("rfc/0001-a.md", "# RFC 0001: The bus\n\nState: accepted\n\nrest"),
            ("rfc/0002-b.md", "# RFC 0002: The plan\nState: ideation\n"),
            ("rfc/README.md", "the index itself"),
        ]);
        let index = produce(&repository).unwrap();
        assert!(
            index.ends_with("|---|---|---|\n| [0001](0001-a.md) | The bus | accepted |\n| [0002](0002-b.md) | The plan | ideation |\n")
        );
    }

    #[test]
    fn a_head_that_cannot_be_read_is_named() {
        for (path, text, message) in [
            ("rfc/0001-a.md", "# The bus\n", "its first line is `# RFC 0001: "),
            ("rfc/0001-a.md", "# RFC 0001: The bus\n\nState: done\n", "its second line is `State: `"),
            ("rfc/bus.md", "# RFC 0001: The bus\n\nState: accepted\n", "named `NNNN-slug.md`"),
        ] {
            let error = format!("{:#}", produce(&with(&[(path, text)])).unwrap_err());
            assert!(error.starts_with(path) && error.contains(message), "{error}");
        }
        let doubled = [("rfc/0001-a.md", "# RFC 0001: A\nState: accepted"), ("rfc/0001-b.md", "# RFC 0001: B\nState: accepted")];
        assert!(produce(&with(&doubled)).unwrap_err().to_string().contains("another RFC 0001"));
    }
}
