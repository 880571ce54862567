//! The orchestrator's `clippy.toml`: that of the root, and what the orchestrator must never do. A crate's own file replaces the root's
//! and does not add to it, so it is made from it.

use anyhow::{Context as _, Result};

use crate::repository::Repository;

const MADE: &str = "# Made by `cargo xtask generate` from the clippy.toml of the root: do not edit.\n";
const LIST: &str = "disallowed-methods = [\n";
const BANS: &str = r#"    { path = "std::process::Command::new", reason = "the orchestrator executes nothing; that is an agent's work" },
    { path = "tokio::process::Command::new", reason = "the orchestrator executes nothing; that is an agent's work" },
"#;

pub(super) fn produce(repository: &Repository) -> Result<String> {
    let root = repository.file("clippy.toml").context("there is no clippy.toml in the root")?;
    add_bans(&root.text)
}

fn add_bans(root: &str) -> Result<String> {
    let (before, after) = root.split_once(LIST).context("clippy.toml has no list `disallowed-methods = [` over several lines")?;
    Ok(format!("{MADE}{before}{LIST}{BANS}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bans_stand_beside_those_of_the_root() {
        let made = add_bans("a = 1\ndisallowed-methods = [\n    { path = \"x\" },\n]\n").unwrap();
        assert_eq!(made, format!("{MADE}a = 1\n{LIST}{BANS}    {{ path = \"x\" }},\n]\n"));
        assert!(add_bans("a = 1\n").is_err());
    }
}
