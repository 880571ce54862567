//! The Procfile: one process a line, `name: command`.

use std::{ffi::OsStr, path::Path, str::FromStr};

use tokio::process::Command;

/// The Procfile of the repository this program was built from.
pub const DEFAULT: &str = include_str!("../../../Procfile");
/// The most processes of one file. A file of more is no Procfile.
const ENTRIES_MAX: usize = 100;
/// What a plain command is made of. Anything else means something to a shell, so a shell gets it.
const PLAIN: &str = "_-./:,+@";

/// The processes of a Procfile, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Procfile {
    /// At least one; the names are unique.
    pub entries: Vec<Entry>,
}

/// One process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Letters, digits, `-` and `_`.
    pub name: String,
    /// What is run.
    pub command: String,
}

/// Why a text is no Procfile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProcfileError {
    /// No `name: command`.
    #[error("line {line} of the Procfile is not `name: command` (a name has letters, digits, `-` and `_`): {text}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// The line.
        text: String,
    },
    /// A name stands there twice.
    #[error("the Procfile has two processes `{name}`")]
    Twice {
        /// The name.
        name: String,
    },
    /// None or too many processes.
    #[error("the Procfile has {count} processes; 1 to {ENTRIES_MAX} are possible")]
    Count {
        /// How many.
        count: usize,
    },
}

impl FromStr for Procfile {
    type Err = ProcfileError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut entries: Vec<Entry> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = || ProcfileError::Line { line: index + 1, text: line.to_owned() };
            let (name, command) = line.split_once(':').ok_or_else(wrong)?;
            let (name, command) = (name.trim_end(), command.trim());
            let valid = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
            if !valid || command.is_empty() {
                return Err(wrong());
            }
            if entries.iter().any(|entry| entry.name == name) {
                return Err(ProcfileError::Twice { name: name.to_owned() });
            }
            entries.push(Entry { name: name.to_owned(), command: command.to_owned() });
        }
        if entries.is_empty() || entries.len() > ENTRIES_MAX {
            return Err(ProcfileError::Count { count: entries.len() });
        }
        Ok(Self { entries })
    }
}

impl Entry {
    /// Whether it is a role of Otto, which says when it is ready.
    pub fn is_role(&self) -> bool {
        self.command.starts_with("otto serve ")
    }

    /// The command, with `otto` being the program at `otto`. What means something to a shell is run by one.
    pub fn to_command(&self, otto: &Path) -> Command {
        let plain = self.command.chars().all(|c| c.is_ascii_alphanumeric() || c == ' ' || PLAIN.contains(c));
        if !plain {
            let mut shell = Command::new("/bin/sh");
            shell.arg("-c").arg(&self.command);
            return shell;
        }
        let mut words = self.command.split_ascii_whitespace();
        let program = words.next().expect("a command is not empty");
        let mut command = Command::new(if program == "otto" { otto.as_os_str() } else { OsStr::new(program) });
        command.args(words);
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(command: &str) -> Vec<String> {
        let entry = Entry { name: "x".to_owned(), command: command.to_owned() };
        let command = entry.to_command(Path::new("/bin/otto"));
        let command = command.as_std();
        [command.get_program()].into_iter().chain(command.get_args()).map(|word| word.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn names_and_commands_are_read() {
        let procfile: Procfile = "# what runs\n\nweb : otto serve web \r\n  db-1: sh -c 'a: b'\n".parse().unwrap();
        let entry = |name: &str, command: &str| Entry { name: name.to_owned(), command: command.to_owned() };
        assert_eq!(procfile.entries, [entry("web", "otto serve web"), entry("db-1", "sh -c 'a: b'")]);
        assert!(procfile.entries[0].is_role() && !procfile.entries[1].is_role());
    }

    #[test]
    fn what_is_no_procfile_is_refused() {
        let line = |text: &str| text.parse::<Procfile>().unwrap_err();
        assert_eq!(line("a: b\nno command"), ProcfileError::Line { line: 2, text: "no command".to_owned() });
        assert!(matches!(line("a b: c"), ProcfileError::Line { .. }));
        assert!(matches!(line("a:"), ProcfileError::Line { .. }));
        assert!(matches!(line("../a: b"), ProcfileError::Line { .. }));
        assert_eq!(line("a: b\na: c"), ProcfileError::Twice { name: "a".to_owned() });
        assert_eq!(line("# nothing"), ProcfileError::Count { count: 0 });
    }

    #[test]
    fn the_repositorys_own_is_one() {
        let procfile: Procfile = DEFAULT.parse().unwrap();
        assert!(procfile.entries.iter().all(Entry::is_role));
    }

    #[test]
    fn only_what_needs_a_shell_gets_one() {
        assert_eq!(words("otto serve  depot"), ["/bin/otto", "serve", "depot"]);
        assert_eq!(words("nats-server -c /x/y.conf"), ["nats-server", "-c", "/x/y.conf"]);
        assert_eq!(words("x > y"), ["/bin/sh", "-c", "x > y"]);
        assert_eq!(words("A=1 x"), ["/bin/sh", "-c", "A=1 x"]);
    }
}
