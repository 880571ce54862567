//! All that must hold, one after the other, until something does not. The tests come last, so that their closing lines are the last output.

use anyhow::{Context as _, Result, bail, ensure};

use crate::{command, generate, repository::Repository, run_tidy, say};

/// What is run besides tidy, the generated files and the tests.
const COMMANDS: [&[&str]; 2] =
    [&["cargo", "fmt", "--all", "--check"], &["cargo", "clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]];

/// Runs everything.
pub(crate) fn run() -> Result<()> {
    let repository = Repository::load()?;
    let readme = repository.file("README.md").context("there is no README.md")?;
    let tests = test_command(&readme.text)?;
    say("ci: tidy");
    run_tidy()?;
    say("ci: generated files");
    generate::check(&repository)?;
    for words in COMMANDS.into_iter().chain([tests.as_slice()]) {
        say(&format!("ci: {}", words.join(" ")));
        command::run(&repository.root, words)?;
    }
    say("ci: all of it holds");
    Ok(())
}

/// The command of the README's first screen that runs the tests: what newcomers are told is what is run.
fn test_command(readme: &str) -> Result<Vec<&str>> {
    let mut found = Vec::new();
    let mut fenced = false;
    for line in readme.lines().take_while(|line| !line.starts_with("## ")) {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if fenced {
            let words: Vec<&str> = line.trim_start_matches("$ ").split_whitespace().take_while(|word| !word.starts_with('#')).collect();
            if words.starts_with(&["cargo", "test"]) {
                found.push(words);
            }
        }
    }
    ensure!(
        found.len() <= 1,
        "README.md: its first screen (what stands before the first `## `) has several commands that begin with `cargo test`"
    );
    let Some(command) = found.pop() else {
        bail!("README.md: no code block of its first screen (what stands before the first `## `) has a line that begins with `cargo test`");
    };
    let plain = |word: &&str| word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_=./,:".contains(&byte));
    ensure!(command.iter().all(plain), "README.md: `{}` needs a shell: write it with plain words", command.join(" "));
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_command_is_that_of_the_first_screen() {
        let readme = "# Otto\n\n`cargo test`\n```sh\ncargo run -- demo\n```\n```sh\n$ cargo test --workspace   # all\n```\n## More\n```\ncargo test -p x\n```\n";
        assert_eq!(test_command(readme).unwrap(), ["cargo", "test", "--workspace"]);
    }

    #[test]
    fn without_one_plain_command_it_is_said_what_is_wrong() {
        for (readme, message) in [
            ("# Otto\n", "no code block"),
            ("```\ncargo test\ncargo test --doc\n```\n", "several"),
            ("```\ncargo test && true\n```\n", "needs a shell"),
        ] {
            let error = test_command(readme).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }

    #[test]
    fn this_readme_has_one() {
        let repository = Repository::load().unwrap();
        test_command(&repository.file("README.md").unwrap().text).unwrap();
    }
}
