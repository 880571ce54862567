//! The manifests of the crates: versions stand in the root's, and what holds for all is taken from there.

use anyhow::{Context as _, Result};

use super::Finding;
use crate::repository::Repository;

pub(super) fn check(repository: &Repository) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for folder in repository.crates.values() {
        let path = format!("{folder}/Cargo.toml");
        let file = repository.file(&path).with_context(|| format!("git does not know {path}"))?;
        findings.extend(check_manifest(&path, &file.text));
    }
    Ok(findings)
}

/// A key of a manifest with its value, which may go over several lines.
struct Entry {
    line: usize,
    section: String,
    text: String,
}

/// Reads as much of TOML as manifests are written in.
fn entries(manifest: &str) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut section = String::new();
    let mut depth = 0_usize;
    for (number, line) in (1..).zip(manifest.lines()) {
        let line = line.split(" #").next().unwrap_or_default().trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if depth == 0 && line.starts_with('[') {
            line.trim_matches(['[', ']']).clone_into(&mut section);
        } else if let Some(last) = entries.last_mut().filter(|_| depth > 0) {
            last.text.push_str(line);
        } else {
            entries.push(Entry { line: number, section: section.clone(), text: line.to_owned() });
        }
        if !line.starts_with('[') || depth > 0 {
            depth += line.matches(['[', '{']).count();
            depth = depth.saturating_sub(line.matches([']', '}']).count());
        }
    }
    entries
}

fn check_manifest(path: &str, manifest: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let entries = entries(manifest);
    let has = |section: &str, text: &str| entries.iter().any(|entry| entry.section == section && entry.text == text);
    for (section, text) in [("package", "publish.workspace = true"), ("lints", "workspace = true")] {
        if !has(section, text) {
            findings.push(Finding::new(
                path,
                format!("[{section}] lacks `{text}`"),
                format!("write it under [{section}]: it holds for all crates"),
            ));
        }
    }
    for entry in &entries {
        let of_dependencies = |section: &str| section.ends_with("dependencies");
        let place = || format!("{path}:{}", entry.line);
        if of_dependencies(&entry.section) {
            if !entry.text.contains("workspace = true") {
                findings.push(Finding::new(
                    place(),
                    format!("`{}` does not take its version from the workspace", entry.text),
                    "put the version under [workspace.dependencies] of the root's Cargo.toml, and `NAME.workspace = true` here",
                ));
            }
        } else if entry.section.rsplit_once('.').is_some_and(|(section, _)| of_dependencies(section)) {
            findings.push(Finding::new(
                place(),
                format!("[{}] is a section of its own", entry.section),
                "write the dependency as one line, `NAME = { workspace = true, … }`",
            ));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "[package]\nname = \"a\"\npublish.workspace = true\n\n[lints]\nworkspace = true\n";

    fn check(rest: &str) -> Vec<(String, String)> {
        check_manifest("a/Cargo.toml", &format!("{GOOD}{rest}")).into_iter().map(|finding| (finding.place, finding.what)).collect()
    }

    #[test]
    fn a_crate_of_the_house_passes() {
        let rest = "\n[dependencies]\nmodel.workspace = true # why\ntokio = { workspace = true, features = [\n    \"test-util\",\n] }\n\n\
                    [target.'cfg(unix)'.dependencies]\nnix.workspace = true\n\n[[bin]]\nname = \"otto\"\npath = \"src/main.rs\"\n";
        assert_eq!(check(rest), []);
    }

    #[test]
    fn a_version_of_its_own_fails() {
        for (rest, line, text) in [
            ("[dependencies]\nserde = \"1\"\n", 8, "serde = \"1\""),
            ("[dev-dependencies]\nx.workspace = true\nmodel = { path = \"../model\" }\n", 9, "model = { path = \"../model\" }"),
        ] {
            let what = format!("`{text}` does not take its version from the workspace");
            assert_eq!(check(rest), [(format!("a/Cargo.toml:{line}"), what)]);
        }
        let own_section = "[dependencies.serde]\nversion = \"1\"\n";
        assert_eq!(check(own_section), [("a/Cargo.toml:8".to_owned(), "[dependencies.serde] is a section of its own".to_owned())]);
    }

    #[test]
    fn what_holds_for_all_must_be_taken() {
        let findings = check_manifest("a/Cargo.toml", "[package]\nname = \"a\"\n");
        let what: Vec<String> = findings.into_iter().map(|finding| finding.what).collect();
        assert_eq!(what, ["[package] lacks `publish.workspace = true`", "[lints] lacks `workspace = true`"]);
    }
}
