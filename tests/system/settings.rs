//! `otto.yml` as an administrator meets it: what is wrong is said at once, and what is right is what the services have.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use crate::house::OTTO;

fn otto(home: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let path = std::env::var_os("PATH").expect("a test has a PATH");
    let variables = variables.iter().copied();
    Command::new(OTTO).args(arguments).env_clear().env("PATH", path).env("OTTO_HOME", home).envs(variables).output().expect("otto starts")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

#[test]
fn what_is_wrong_is_said_at_once_with_its_place_and_nothing_is_started() {
    let home = tempfile::tempdir().unwrap();
    let up = home.path().join("up");
    fs::create_dir_all(up.join("projects.d")).unwrap();
    fs::write(up.join("otto.yml"), "agnt: {}\norchestrator:\n  runs_kept: all\n").unwrap();
    fs::write(up.join("projects.d/shop.yml"), "source:\n  url: shop.git\n  srve: true\n").unwrap();
    let expected = [
        "up/otto.yml:1:1: there is no setting `agnt` at the top: did you mean `agent`?",
        "up/otto.yml:3:14: orchestrator.runs_kept=all: invalid digit",
        "up/projects.d/shop.yml:3:3: there is no key `srve` of `source`: did you mean `serve`?",
        "OTTO_AGENT_SLOTS=none: invalid digit",
    ];
    let variables = [("OTTO_AGENT_SLOTS", "none")];
    for arguments in [["config", "check"].as_slice(), ["up", "--ports", "auto"].as_slice()] {
        let output = otto(home.path(), arguments, &variables);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {}", said(&output));
        for expected in expected {
            assert!(said(&output).contains(expected), "{arguments:?}: {expected} is missing in {}", said(&output));
        }
    }
    assert!(!up.join("keys").exists(), "nothing was provisioned");
    // A role by itself is told by the file that is named, and misses what nobody gave it.
    let file = up.join("otto.yml");
    let output = otto(home.path(), &["serve", "agent", "--config", file.to_str().unwrap()], &variables);
    assert_eq!(output.status.code(), Some(64));
    for expected in [expected[0], expected[3], "OTTO_BUS_URLS is not set"] {
        assert!(said(&output).contains(expected), "{expected} is missing in {}", said(&output));
    }
}

#[test]
fn a_value_is_the_default_below_the_file_below_the_variable() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("settings.yml");
    fs::write(&file, "agent: { slots: 3, price_micros_per_s: 7 }\n").unwrap();
    let variables = [("OTTO_CONFIG", file.to_str().unwrap()), ("OTTO_AGENT_SLOTS", "5"), ("OTTO_API_TOKEN", "s3cret")];
    let output = otto(home.path(), &["config", "show"], &variables);
    let shown = said(&output);
    let of = |key: &str| {
        let agent = shown.lines().skip_while(|line| !line.starts_with("agent:"));
        agent.skip(1).find_map(|line| line.trim().strip_prefix(key)).unwrap_or_else(|| panic!("{key}: {shown}")).trim().to_owned()
    };
    assert!(of("slots").starts_with('5') && of("slots").ends_with("OTTO_AGENT_SLOTS"), "{shown}");
    assert!(of("price_micros_per_s").starts_with('7') && of("price_micros_per_s").ends_with("settings.yml:1:40"), "{shown}");
    assert!(of("isolation").starts_with("auto") && of("isolation").ends_with("default"), "{shown}");
    assert!(of("bus_urls").ends_with("set by otto up") && !shown.contains("s3cret"), "{shown}");
    let check = otto(home.path(), &["config", "check"], &variables);
    assert_eq!(check.status.code(), Some(0), "{}", said(&check));
}
