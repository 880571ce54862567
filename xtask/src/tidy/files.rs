//! What must not be in any file of the repository, whatever its kind.

use super::Finding;
use crate::repository::File;

/// The one shell script: what a continuous integration calls. It only calls `cargo xtask ci`.
const SCRIPT: &str = ".ci/run";
/// Programs of steps as users write them, in any language: they automate nothing of this project.
const PROGRAMS_OF_STEPS: [&str; 2] = ["examples/", "cli/src/step/templates/"];
/// Folders that are there on one machine only. They are put together here, so that this file does not have them.
const MACHINE_FOLDERS: [&str; 2] = ["root", "work"];
/// What stands before the first `/` of an absolute path.
const BEFORE_A_PATH: &str = " \t\"'`([=:,<|";

pub(super) fn check(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files {
        let of_step = PROGRAMS_OF_STEPS.iter().any(|folder| file.path.starts_with(folder));
        if is_shell(file) && file.path != SCRIPT && !of_step {
            findings.push(Finding::new(
                &file.path,
                "a shell script",
                "make it a command of xtask: automations are Rust, so that they are checked, tested, and run anywhere",
            ));
        }
        for (number, line) in (1..).zip(file.text.lines()) {
            if let Some(folder) = machine_folder(line) {
                findings.push(Finding::new(
                    format!("{}:{number}", file.path),
                    format!("an absolute path of one machine: /{folder}/"),
                    "write it from the repository's root, or take it from a setting",
                ));
            }
        }
    }
    findings
}

fn is_shell(file: &File) -> bool {
    let extension = file.path.rsplit_once('.').map(|(_, extension)| extension);
    let first = file.text.lines().next().unwrap_or_default();
    matches!(extension, Some("sh" | "bash" | "zsh")) || (first.starts_with("#!") && first.ends_with("sh"))
}

fn machine_folder(line: &str) -> Option<&'static str> {
    MACHINE_FOLDERS.into_iter().find(|folder| {
        let path = format!("/{folder}/");
        line.match_indices(&path)
            .any(|(at, _)| line.get(..at).and_then(|before| before.chars().last()).is_none_or(|c| BEFORE_A_PATH.contains(c)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_one(path: &str, text: &str) -> Vec<(String, String)> {
        let file = File { path: path.to_owned(), text: text.to_owned() };
        check(&[file]).into_iter().map(|finding| (finding.place, finding.what)).collect()
    }

    #[test]
    fn a_script_fails_and_the_one_of_the_ci_does_not() {
        let script = "#!/usr/bin/env bash\n";
        assert_eq!(check_one("tools/build", script), [("tools/build".to_owned(), "a shell script".to_owned())]);
        assert_eq!(check_one("tools/build.sh", "true\n"), [("tools/build.sh".to_owned(), "a shell script".to_owned())]);
        assert_eq!(check_one(SCRIPT, script), []);
        assert_eq!(check_one("examples/own-step/steps/x/run", script), []);
        assert_eq!(check_one("src/lib.rs", "#![expect(x)]\n"), []);
    }

    #[test]
    fn a_path_of_one_machine_fails_and_one_within_a_folder_does_not() {
        let [root, work] = MACHINE_FOLDERS.map(|folder| format!("/{folder}/x"));
        for line in [format!("let path = \"{root}\";"), work.clone(), format!("see {work}"), format!("[x]({root})")] {
            assert_eq!(check_one("docs/a.md", &format!("fine\n{line}\n")).len(), 1, "{line}");
        }
        for line in [format!("agents/a{work}"), format!("{{data}}{work}"), format!("http://host{root}"), "/workers/".to_owned()] {
            assert_eq!(check_one("docs/a.md", &line), [], "{line}");
        }
    }
}
