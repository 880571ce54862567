//! Which crate may depend on which. A crate exists to forbid something, and this table is where it does.

use std::collections::BTreeMap;

use super::Finding;
use crate::repository::Arrow;

/// What a crate may depend on.
enum May {
    Only(&'static [&'static str]),
    /// A composition root.
    AllBut(&'static [&'static str]),
}

use May::{AllBut, Only};

/// What every role may depend on.
const ROLE: &[&str] = &["model", "graph", "eventbus", "service", "blob"];

/// The arrows. Whatever is not here is forbidden.
const TABLE: [(&str, May); 22] = [
    ("model", Only(&[])),
    ("service", Only(&[])),
    ("graph", Only(&["model"])),
    ("blob", Only(&["model", "service"])),
    ("tree", Only(&["model"])),
    ("apispec", Only(&["model"])),
    ("config", Only(&["model", "service"])),
    ("stdlib", Only(&["model", "tree"])),
    ("eventbus", Only(&["model", "service"])),
    ("parser", Only(&["model", "graph"])),
    ("lsp", Only(&["model", "parser", "stdlib"])),
    ("parser_service", Only(&["model", "graph", "eventbus", "service", "blob", "parser"])),
    ("auctioneer", Only(ROLE)),
    ("agent", Only(&["model", "graph", "eventbus", "service", "blob", "tree"])),
    ("depot", Only(ROLE)),
    ("forge", Only(&["model", "graph", "eventbus", "service", "blob", "tree", "config"])),
    ("orchestrator", Only(&["model", "graph", "eventbus", "service", "blob", "apispec", "config", "parser"])),
    ("testkit", Only(&["model", "eventbus", "service"])),
    ("cli", AllBut(&["testkit", "tests", "bench", "xtask"])),
    ("tests", AllBut(&["testkit", "bench", "xtask"])),
    ("bench", AllBut(&["testkit", "tests", "xtask"])),
    ("xtask", Only(&[])),
];

/// They never depend on each other, not even in their tests: what they have to say to each other goes over the bus. Nor do they on `cli`,
/// which has them all.
const ROLES: [&str; 6] = ["parser_service", "auctioneer", "agent", "depot", "forge", "orchestrator"];
/// Nobody depends on them, not even in tests.
const ENDS: [&str; 3] = ["tests", "bench", "xtask"];

/// Holds the workspace's crates (with their folders) and arrows against the table.
pub(super) fn check(crates: &BTreeMap<String, String>, arrows: &[Arrow]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, folder) in crates {
        if row(name).is_none() {
            findings.push(Finding::new(
                format!("{folder}/Cargo.toml"),
                format!("the crate `{name}` is not in the table of arrows"),
                "add a row to xtask/src/tidy/arrows.rs and to ARCHITECTURE.md, and write down in an RFC what the crate forbids",
            ));
        }
        if *name != folder.replace('/', "_") && *name != "tests" {
            findings.push(Finding::new(
                format!("{folder}/Cargo.toml"),
                format!("the crate `{name}` has another name than its folder"),
                "name both alike: folder, crate and `use` name are the same, `a/b` is `a_b`",
            ));
        }
    }
    for arrow in arrows.iter().filter(|arrow| !is_allowed(arrow)) {
        let Arrow { from, to, dev } = arrow;
        let folder = crates.get(from).map_or("?", String::as_str);
        let kind = if *dev { "an allowed arrow, even in tests" } else { "an allowed arrow" };
        findings.push(Finding::new(
            format!("{folder}/Cargo.toml"),
            format!("`{from}` → `{to}` is not {kind}"),
            format!(
                "remove the dependency: move what `{from}` needs to a crate that both may use (`model` for values), or say it over the bus"
            ),
        ));
    }
    findings
}

fn row(name: &str) -> Option<&'static May> {
    TABLE.iter().find(|(crate_name, _)| *crate_name == name).map(|(_, may)| may)
}

fn is_allowed(Arrow { from, to, dev }: &Arrow) -> bool {
    let (from, to) = (from.as_str(), to.as_str());
    if *dev {
        let between_roles = ROLES.contains(&from) && (ROLES.contains(&to) || to == "cli");
        return !(between_roles || ENDS.contains(&to));
    }
    match row(from) {
        Some(Only(allowed)) => allowed.contains(&to),
        Some(AllBut(forbidden)) => !forbidden.contains(&to),
        // The missing row is said already.
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The whole table as a made-up workspace in which every allowed arrow is there.
    fn everything() -> (BTreeMap<String, String>, Vec<Arrow>) {
        let crates = TABLE.iter().map(|(name, _)| ((*name).to_owned(), name.replace("parser_service", "parser/service"))).collect();
        let all = TABLE.iter().flat_map(|(from, _)| TABLE.iter().map(move |(to, _)| arrow(from, to, false)));
        (crates, all.filter(|arrow| arrow.from != arrow.to && is_allowed(arrow)).collect())
    }

    fn arrow(from: &str, to: &str, dev: bool) -> Arrow {
        Arrow { from: from.to_owned(), to: to.to_owned(), dev }
    }

    /// What one more arrow comes to.
    fn check_with(from: &str, to: &str, dev: bool) -> Vec<String> {
        let (crates, mut arrows) = everything();
        arrows.push(arrow(from, to, dev));
        check(&crates, &arrows).into_iter().map(|finding| finding.what).collect()
    }

    #[test]
    fn allowed_arrows_pass() {
        let (crates, arrows) = everything();
        assert_eq!(check(&crates, &arrows), []);
        for (from, to, dev) in [("cli", "agent", false), ("tests", "cli", false), ("tests", "testkit", true), ("agent", "testkit", true)] {
            assert_eq!(check_with(from, to, dev), [""; 0], "{from} → {to}");
        }
    }

    #[test]
    fn a_forbidden_arrow_fails() {
        for (from, to) in [
            ("model", "service"),
            ("graph", "eventbus"),
            ("parser", "service"),
            ("agent", "depot"),
            ("auctioneer", "orchestrator"),
            ("agent", "apispec"),
            ("cli", "testkit"),
            ("tests", "testkit"),
            ("eventbus", "testkit"),
            ("xtask", "model"),
            ("bench", "tests"),
        ] {
            assert_eq!(check_with(from, to, false), [format!("`{from}` → `{to}` is not an allowed arrow")]);
        }
    }

    #[test]
    fn tests_of_a_role_know_no_other_role() {
        for (from, to) in [("agent", "depot"), ("forge", "cli"), ("orchestrator", "auctioneer"), ("model", "xtask")] {
            assert_eq!(check_with(from, to, true), [format!("`{from}` → `{to}` is not an allowed arrow, even in tests")]);
        }
    }

    #[test]
    fn nothing_in_the_table_goes_round_in_a_circle() {
        let (crates, mut arrows) = everything();
        let mut left: Vec<&String> = crates.keys().collect();
        while let Some(at) = left.iter().position(|name| arrows.iter().all(|arrow| arrow.from != **name)) {
            let leaf = left.remove(at);
            arrows.retain(|arrow| arrow.to != *leaf);
        }
        assert!(left.is_empty(), "{left:?} depend on each other");
    }

    #[test]
    fn a_crate_has_a_row_and_the_name_of_its_folder() {
        let (mut crates, arrows) = everything();
        crates.insert("common".to_owned(), "common".to_owned());
        crates.insert("agent".to_owned(), "runner".to_owned());
        let findings: Vec<String> = check(&crates, &arrows).into_iter().map(|finding| finding.what).collect();
        assert_eq!(findings, ["the crate `agent` has another name than its folder", "the crate `common` is not in the table of arrows"]);
    }
}
