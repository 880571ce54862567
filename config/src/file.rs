//! `otto.yml`: the settings of all roles in one file.
//!
//! ```yaml
//! log: info                          # of every role that has the setting
//! public_url: https://otto.example.org
//! orchestrator:                      # of this role only; it goes before what stands at the top
//!   runs_kept: 5000
//! agent:
//!   slots: 4
//!   container_client: [podman, --runtime, runc]
//! ```
//!
//! Every key is the name of a variable of [`service::env`], in lower case and without `OTTO_`; in a section, also without the section's name.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use service::{
    env::{ALL, EVERY, Kind, Setting},
    settings::{Given, Origin, Place, Wrong},
};

use crate::yaml::{self, At, Entry, Malformed, Node};

/// What the file is called, unless told otherwise.
pub const CONFIG_FILE: &str = "otto.yml";
/// The folder of projects beside it.
pub const PROJECTS_FOLDER: &str = "projects.d";
/// The most bytes of the file.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// The settings of a file, and what is wrong with it.
#[derive(Debug, Clone)]
pub struct ConfigFile {
    path: Arc<PathBuf>,
    /// By role, and in it by variable; the empty role is the top.
    values: BTreeMap<&'static str, BTreeMap<&'static str, Given>>,
    wrong: Vec<Wrong>,
}

/// The role of what stands at the top.
const TOP: &str = "";

impl ConfigFile {
    /// Reads the file. What cannot be read of it is among what is wrong.
    pub fn read(path: &Path) -> Self {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let mut file = Self { path: Arc::new(path), values: BTreeMap::new(), wrong: Vec::new() };
        let text = fs::metadata(&*file.path).and_then(|metadata| match metadata.len() {
            bytes @ FILE_BYTES_MAX.. => Ok(Err(format!("it has {bytes} bytes, over the limit of {FILE_BYTES_MAX}"))),
            _ => fs::read_to_string(&*file.path).map(Ok),
        });
        match text.map_err(|error| error.to_string()).and_then(|text| text) {
            Err(what) => file.refuse(None, &what),
            Ok(text) => match yaml::parse(&text) {
                Err(Malformed { at, what }) => file.refuse(at, &what),
                Ok(entries) => file.take(entries),
            },
        }
        file
    }

    /// Which file it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is wrong with the file itself.
    pub fn wrong(&self) -> &[Wrong] {
        &self.wrong
    }

    /// The settings of a role, by variable.
    pub fn of(&self, role: &str) -> BTreeMap<String, Given> {
        let has = |variable: &str| Setting::of(variable).is_some_and(|setting| setting.roles.contains(&role));
        let mut values = BTreeMap::new();
        for section in [TOP, role] {
            let given = self.values.get(section).into_iter().flatten();
            values.extend(given.filter(|(variable, _)| has(variable)).map(|(variable, given)| ((*variable).to_owned(), given.clone())));
        }
        if has(service::env::PROJECTS) && !values.contains_key(service::env::PROJECTS) {
            values.extend(self.projects_beside().map(|given| (service::env::PROJECTS.to_owned(), given)));
        }
        values
    }

    /// The folder of projects beside the file, if there is one and no other is named.
    fn projects_beside(&self) -> Option<Given> {
        let folder = self.folder().join(PROJECTS_FOLDER);
        let origin = Origin::File { place: Place { file: Arc::new(folder.clone()), line: None }, key: PROJECTS_FOLDER.to_owned() };
        folder.is_dir().then(|| Some(Given { text: folder.to_str()?.to_owned(), origin }))?
    }

    /// What the file sets that nobody may set but `otto up`, where that starts the processes.
    pub fn wired(&self) -> Vec<Wrong> {
        let all = self.values.values().flatten();
        let wired = all.filter(|(variable, _)| Setting::of(variable).is_some_and(|setting| setting.wired));
        let what = |given: &Given| match &given.origin {
            Origin::File { place, key } => {
                format!("{place}: {key}: `otto up` sets it itself; leave it out, or start the roles by `otto serve`")
            }
            Origin::Variable => String::new(),
        };
        wired.map(|(_, given)| Wrong { is_missing: false, what: what(given) }).collect()
    }

    fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    fn refuse(&mut self, at: Option<At>, what: &str) {
        let place = self.place(at);
        self.wrong.push(Wrong { is_missing: false, what: format!("{place}: {what}") });
    }

    fn place(&self, at: Option<At>) -> Place {
        Place { file: self.path.clone(), line: at.map(|(line, column)| (line, Some(column))) }
    }

    fn take(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            let Some(role) = EVERY.iter().find(|role| **role == entry.key) else {
                self.take_one(TOP, entry);
                continue;
            };
            match entry.value {
                Node::Null => {}
                Node::Map(inside) => inside.into_iter().for_each(|entry| self.take_one(role, entry)),
                Node::Scalar(_) | Node::List(_) => {
                    self.refuse(Some(entry.at), &format!("`{role}` is a section: expected keys with values"));
                }
            }
        }
    }

    fn take_one(&mut self, role: &'static str, entry: Entry) {
        let Entry { key, key_at, at, value } = entry;
        let known: Vec<(&Setting, String)> = known(role).collect();
        let Some((setting, _)) = known.iter().find(|(_, known)| *known == key) else {
            let where_to = unknown(role, &key, known.iter().map(|(_, key)| key.as_str()));
            return self.refuse(Some(key_at), &where_to);
        };
        let named = if role == TOP { key.clone() } else { format!("{role}.{key}") };
        match self.text(setting, value) {
            Err(what) => self.refuse(Some(at), &format!("{named}: {what}")),
            Ok(None) => {}
            Ok(Some(text)) => {
                let given = Given { text, origin: Origin::File { place: self.place(Some(at)), key: named } };
                self.values.entry(role).or_default().insert(setting.variable, given);
            }
        }
    }

    /// The value as it would stand in the variable; `None` of nothing.
    fn text(&self, setting: &Setting, value: Node) -> Result<Option<String>, String> {
        Ok(Some(match (value, setting.kind) {
            (Node::Null, _) => return Ok(None),
            (Node::Map(_), _) => return Err("expected a value, and found keys".to_owned()),
            (Node::Scalar(text), Kind::Path) => {
                let path = self.folder().join(text);
                path.to_str().ok_or("the path is not UTF-8")?.to_owned()
            }
            (Node::Scalar(text), _) => text,
            (Node::List(items), Kind::List(separator)) => {
                let mut texts = Vec::new();
                for (_, item) in items {
                    match item {
                        Node::Scalar(text) if text.contains(separator) => {
                            return Err(format!("`{text}`: an item must not have a `{separator}`"));
                        }
                        Node::Scalar(text) => texts.push(text),
                        Node::Null | Node::List(_) | Node::Map(_) => return Err("expected a list of texts".to_owned()),
                    }
                }
                texts.join(&separator.to_string())
            }
            (Node::List(_), Kind::Text | Kind::Path | Kind::Secret) => return Err("expected one value, and found a list".to_owned()),
        }))
    }
}

/// The settings that may stand in a section, by their keys there.
fn known(role: &'static str) -> impl Iterator<Item = (&'static Setting, String)> {
    let may = move |setting: &&Setting| if role == TOP { !setting.roles.is_empty() } else { setting.roles.contains(&role) };
    ALL.iter().filter(may).map(move |setting| (setting, if role == TOP { setting.key() } else { setting.key_of(role) }))
}

/// What is said of a key that is none.
fn unknown<'a>(role: &str, key: &str, known: impl Iterator<Item = &'a str>) -> String {
    let place = if role == TOP { "at the top".to_owned() } else { format!("of `{role}`") };
    let sections = EVERY.iter().copied().filter(|_| role == TOP);
    if let Some(meant) = yaml::suggestion(key, known.chain(sections)) {
        return format!("there is no setting `{key}` {place}: did you mean `{meant}`?");
    }
    let elsewhere = ALL.iter().flat_map(|setting| setting.roles.iter().map(move |other| (setting.key_of(other), *other)));
    match elsewhere.into_iter().find(|(other, _)| other == key) {
        Some((_, other)) => format!("there is no setting `{key}` {place}: `{other}` has one"),
        None => format!("there is no setting `{key}` {place}: docs/settings.md has them all"),
    }
}

#[cfg(test)]
mod tests {
    use service::{env, settings::Settings};

    use super::*;

    fn read(text: &str) -> (tempfile::TempDir, ConfigFile) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(CONFIG_FILE);
        fs::write(&path, text).unwrap();
        let file = ConfigFile::read(&path);
        (folder, file)
    }

    fn text(values: &BTreeMap<String, Given>, variable: &str) -> Option<String> {
        values.get(variable).map(|given| given.text.clone())
    }

    #[test]
    fn a_section_goes_before_the_top_and_a_variable_before_both() {
        let (folder, file) =
            read("log: debug\nruns_kept: 5\napi_tokens: tokens.yml\nagent:\n  log: trace\n  slots: 3\n  container_client: [podman, --x]\n");
        assert_eq!(file.wrong(), []);
        let agent = file.of(env::AGENT);
        assert_eq!((text(&agent, env::LOG), text(&agent, env::AGENT_SLOTS)), (Some("trace".into()), Some("3".into())));
        assert_eq!((text(&agent, env::CONTAINER_CLIENT), text(&agent, env::RUNS_KEPT)), (Some("podman --x".into()), None));
        let forge = file.of(env::FORGE);
        assert_eq!(text(&forge, env::LOG), Some("debug".into()));
        assert_eq!(text(&forge, env::API_TOKENS), folder.path().join("tokens.yml").to_str().map(str::to_owned));
        let mut settings = Settings::new([(env::AGENT_SLOTS.to_owned(), "7".to_owned())]).below(agent, []);
        assert_eq!((settings.or(env::AGENT_SLOTS, 1), settings.or(env::LOG, String::new())), (7, "trace".to_owned()));
    }

    #[test]
    fn everything_that_is_wrong_is_said_with_its_place() {
        let (_folder, file) = read(
            "lgo: info\nagent:\n  slts: 3\n  slots: [1]\n  runs_kept: 3\n  container_client: ['a b']\n  users: { a: 1 }\n\
             api_token: secret\nforge: 7\nagents: {}\nxyzzy: 1\n",
        );
        let said: Vec<&str> = file.wrong().iter().map(|wrong| wrong.what.rsplit_once("otto.yml:").unwrap().1).collect();
        assert_eq!(
            said,
            [
                "1:1: there is no setting `lgo` at the top: did you mean `log`?",
                "3:3: there is no setting `slts` of `agent`: did you mean `slots`?",
                "4:10: agent.slots: expected one value, and found a list",
                "5:3: there is no setting `runs_kept` of `agent`: `orchestrator` has one",
                "6:21: agent.container_client: `a b`: an item must not have a ` `",
                "7:10: agent.users: expected a value, and found keys",
                "8:1: there is no setting `api_token` at the top: did you mean `api_tokens`?",
                "9:8: `forge` is a section: expected keys with values",
                "10:1: there is no setting `agents` at the top: did you mean `agent`?",
                "11:1: there is no setting `xyzzy` at the top: docs/settings.md has them all",
            ]
        );
    }

    #[test]
    fn what_otto_up_sets_itself_is_not_set_by_the_file() {
        let (_folder, file) = read("public_url: http://a\nforge: { listen: '127.0.0.1:1' }\n");
        let wired: Vec<String> = file.wired().into_iter().map(|wrong| wrong.what).collect();
        assert!(wired.len() == 1 && wired[0].contains("otto.yml:2:18: forge.listen: `otto up` sets it itself"), "{wired:?}");
    }

    #[test]
    fn the_projects_lie_beside_the_file_unless_it_says_otherwise() {
        let (folder, file) = read("log: info\n");
        assert_eq!(text(&file.of(env::FORGE), env::PROJECTS), None);
        fs::create_dir(folder.path().join(PROJECTS_FOLDER)).unwrap();
        let beside = folder.path().join(PROJECTS_FOLDER);
        assert_eq!(text(&file.of(env::FORGE), env::PROJECTS).as_deref(), beside.to_str());
        assert_eq!(text(&file.of(env::DEPOT), env::PROJECTS), None);
        fs::write(file.path(), "projects: /etc/otto\n").unwrap();
        assert_eq!(text(&ConfigFile::read(file.path()).of(env::FORGE), env::PROJECTS).as_deref(), Some("/etc/otto"));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_wrong_and_not_empty() {
        let (folder, file) = read("a: [\n");
        assert_eq!(file.wrong().len(), 1);
        assert!(ConfigFile::read(&folder.path().join("none.yml")).wrong()[0].what.contains("No such file"));
        let (_folder, empty) = read("");
        assert!(empty.wrong().is_empty() && empty.of(env::AGENT).is_empty());
    }
}
