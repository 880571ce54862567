//! Sources that say in their first comment lines what else there is: the trigger's facts, the commit's files, what changed.
//!
//! ```text
//! // context: event=pull_request pr.target=main pr.number=7 changed=docs/a.md,src/b.rs param.target=preprod
//! // param: message=a text with blanks
//! // path: ci/deploy.otto
//! // file: matrix.json ["a", "b"]
//! // listing: Cargo.lock src/main.rs@3b18e512dba79e4c8300dd08aeb37f8e728b8dad
//! // show: plan
//! ```
//!
//! A file that is asked for and not named here is looked up in the folder that is named like the fixture; there are no others. `listing:`
//! adds to the files that are there; without `@`, a path's object id is made from its name. Without `changed=`, it is not known what
//! changed; with `changed=` alone, nothing has. In `cron=`, `_` is a blank. `show: plan` compares the whole plan and its notes instead of
//! the explanation.

use std::{collections::BTreeMap, fs, path::Path};

use model::{
    Digest,
    context::{EventKind, PullRequest, TriggerContext},
    planning::{Listing, PLAN_ROUNDS_MAX},
};
use parser::{Changed, Needs, PlanInput, Planning};

/// What stands around a source.
#[derive(Debug, Default)]
pub(crate) struct Fixture {
    /// The path of the source, if the fixture names one.
    pub(crate) path: Option<String>,
    pub(crate) context: TriggerContext,
    pub(crate) files: BTreeMap<String, Option<Vec<u8>>>,
    pub(crate) listing: Listing,
    pub(crate) changed: Option<Changed>,
    /// Whether the whole plan is looked at.
    pub(crate) whole: bool,
}

impl Fixture {
    /// The fixture of a source; `folder` is where the files of its commit lie.
    pub(crate) fn of(source: &[u8], folder: &Path) -> Self {
        let mut fixture = Self::default();
        fixture.add_folder(folder, folder);
        let text = String::from_utf8_lossy(source);
        for line in text.lines().map_while(|line| line.strip_prefix("// ")) {
            let Some((key, rest)) = line.split_once(": ") else { continue };
            match key {
                "context" => rest.split_whitespace().for_each(|fact| fixture.fact(fact)),
                "param" => fixture.fact(&format!("param.{rest}")),
                "path" => fixture.path = Some(rest.to_owned()),
                "file" => {
                    let (path, text) = rest.split_once(' ').unwrap_or((rest, ""));
                    fixture.add_file(path, text.as_bytes());
                }
                "listing" => rest.split_whitespace().for_each(|path| fixture.list(path)),
                "show" => fixture.whole = rest == "plan",
                _ => {}
            }
        }
        fixture
    }

    fn add_folder(&mut self, root: &Path, folder: &Path) {
        let Ok(entries) = fs::read_dir(folder) else { return };
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                self.add_folder(root, &path);
            } else {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                self.add_file(&name, &fs::read(&path).unwrap());
            }
        }
    }

    /// Adds a file to the commit.
    pub(crate) fn add_file(&mut self, path: &str, bytes: &[u8]) {
        self.files.insert(path.to_owned(), Some(bytes.to_vec()));
        self.list(path);
    }

    fn list(&mut self, path: &str) {
        let made = || Digest::of(path.as_bytes()).to_string().chars().rev().take(40).collect();
        let (path, id) = path.split_once('@').map_or_else(|| (path, made()), |(path, id)| (path, id.to_owned()));
        self.listing.insert(path.to_owned(), id);
    }

    fn fact(&mut self, fact: &str) {
        let (key, value) = fact.split_once('=').unwrap_or_else(|| panic!("{fact} has no `=`"));
        let value = value.to_owned();
        let context = &mut self.context;
        match key.split_once('.') {
            Some(("param", name)) => drop(context.parameters.insert(name.to_owned(), value)),
            Some(("pr", key)) => {
                let request = context.pull_request.get_or_insert_with(PullRequest::default);
                match key {
                    "number" => request.number = value.parse().unwrap(),
                    "target" => request.target = value,
                    "source" => request.source = value,
                    "fork" => request.fork = value.parse().unwrap(),
                    _ => panic!("{fact}"),
                }
            }
            _ => match key {
                "event" => context.event = EventKind::ALL.into_iter().find(|kind| kind.as_str() == value).unwrap(),
                "branch" => context.branch = value,
                "tag" => context.tag = value,
                "commit" => context.commit = value,
                "base" => context.base = value,
                "cron" => context.cron = value.replace('_', " "),
                "changed" => {
                    let paths = value.split(',').filter(|path| !path.is_empty()).map(str::to_owned).collect();
                    self.changed = Some(Changed::Paths(paths));
                }
                _ => panic!("{fact}"),
            },
        }
    }

    /// The plan of the source at `path`, with everything that is asked for.
    pub(crate) fn plan(&self, path: &str, source: &[u8]) -> Planning {
        let path = self.path.as_deref().unwrap_or(path);
        let changed = self.changed.clone().unwrap_or(Changed::Unknown);
        let libraries = [stdlib::library()];
        let mut files: BTreeMap<String, Option<Vec<u8>>> = BTreeMap::new();
        let mut needed = Needs::default();
        for _ in 0..PLAN_ROUNDS_MAX {
            let input = PlanInput {
                path,
                source,
                context: &self.context,
                files: &files,
                listing: needed.listing.then_some(&self.listing),
                changed: needed.changed.then_some(&changed),
                libraries: &libraries,
            };
            let Planning::Needs(more) = parser::plan(&input) else { return parser::plan(&input) };
            let news = more.files.iter().any(|file| !files.contains_key(file));
            assert!(news || more.listing && !needed.listing || more.changed && !needed.changed, "{path} asks for nothing new: {more:?}");
            for file in more.files {
                let bytes = self.files.get(&file).cloned().flatten();
                files.insert(file, bytes);
            }
            needed.listing |= more.listing;
            needed.changed |= more.changed;
        }
        panic!("{path} still asks after {PLAN_ROUNDS_MAX} rounds: {needed:?}");
    }

    /// The bytes of the file that a diagnostic of the source at `path` points into.
    pub(crate) fn source<'a>(&'a self, file: &str, path: &str, source: &'a [u8]) -> &'a [u8] {
        if file == self.path.as_deref().unwrap_or(path) {
            return source;
        }
        self.files.get(file).and_then(Option::as_deref).unwrap_or_default()
    }
}
