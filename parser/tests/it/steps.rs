//! Steps, step libraries and the lock file, as callers of the parser see them.

use std::collections::BTreeMap;

use model::{
    Digest,
    context::TriggerContext,
    diagnostic::Diagnostic,
    plan::PlanDocument,
    planning::{LOCK_FILE, Listing},
};
use parser::{Lock, Locking, Needs, PlanInput, Planning, limits};

use crate::{codes, planned, refused};

const REMOTE: &str = "https://example.org/steps/remote@1.0";

/// A commit: what lies in it, besides the pipeline.
#[derive(Default)]
struct Commit {
    files: BTreeMap<String, Option<Vec<u8>>>,
    listing: Listing,
}

impl Commit {
    fn with(mut self, path: &str, text: &str) -> Self {
        self.files.insert(path.to_owned(), Some(text.as_bytes().to_vec()));
        self.listing.insert(path.to_owned(), Digest::of(text.as_bytes()).hex().chars().take(40).collect());
        self
    }

    /// Everything that is asked for and is not there is not there.
    fn absent(&mut self, needs: Needs) {
        for file in needs.files {
            assert!(self.files.insert(file, None).is_none());
        }
    }

    fn plan(&mut self, source: &str) -> Result<PlanDocument, Vec<Diagnostic>> {
        loop {
            match self.input(source, parser::plan) {
                Planning::Plan { document, .. } => return Ok(document),
                Planning::Refused(diagnostics) => return Err(diagnostics),
                Planning::Needs(needs) => self.absent(needs),
            }
        }
    }

    fn lock(&mut self, source: &str, remote: &BTreeMap<String, Digest>) -> Lock {
        loop {
            match self.input(source, |input| parser::lock(input, remote)) {
                Locking::Locked(lock) => return lock,
                Locking::Refused(diagnostics) => panic!("{diagnostics:#?}"),
                Locking::Needs(needs) => self.absent(needs),
            }
        }
    }

    fn input<T>(&self, source: &str, work: impl FnOnce(&PlanInput<'_>) -> T) -> T {
        work(&PlanInput {
            path: "Ottofile",
            source: source.as_bytes(),
            context: &TriggerContext::default(),
            files: &self.files,
            listing: Some(&self.listing),
            changed: None,
            libraries: &[stdlib::library()],
        })
    }
}

fn commit() -> Commit {
    Commit::default()
        .with("ci/deploy.otto", "use './tell' step 'deploy' { steps { when(branch == 'main') { tell } echo 'deployed' } }")
        .with("ci/tell.otto", "step 'tell' { steps { echo 'x' } }")
        .with("slack/manifest.yml", "symbol: slack\ndescription: Tells.\nentrypoint: { path: slack.py }\n")
        .with("slack/slack.py", "print()")
        .with("ci/gem.blueprint", "blueprint { plan { stage 'Gem' { steps { slack } } } } use 'slack'")
        .with(REMOTE, "symbol: remote\ndescription: Far.\nentrypoint: { path: remote }\n")
}

const SOURCE: &str = "use { './ci/deploy' 'https://example.org/steps/remote@1.0' }
    pipeline { stage 'A' { steps { deploy remote } } from 'ci/gem' }";

#[test]
fn a_lock_has_everything_that_is_brought_in_also_by_what_is_left_out() {
    let remote = BTreeMap::from([(REMOTE.to_owned(), Digest::of(b"archive"))]);
    let lock = commit().lock(SOURCE, &remote);
    let names: Vec<&str> = lock.libraries.keys().map(String::as_str).collect();
    assert_eq!(names, ["./ci/deploy.otto", "./ci/tell.otto", "./slack", REMOTE, "stdlib"]);
    assert_eq!(lock.blueprints.keys().collect::<Vec<_>>(), ["ci/gem.blueprint"]);
    assert_eq!(lock.libraries[REMOTE], Digest::of(b"archive"));
    assert_eq!(lock.libraries["stdlib"], stdlib::library().digest);
}

#[test]
fn an_unknown_remote_library_is_asked_for_by_its_address() {
    let Locking::Needs(needs) = commit().input(SOURCE, |input| parser::lock(input, &BTreeMap::new())) else { panic!("not asked for") };
    assert!(needs.files.contains(REMOTE), "{needs:?}");
}

#[test]
fn what_is_locked_must_be_what_is_there() {
    let remote = BTreeMap::from([(REMOTE.to_owned(), Digest::of(b"archive"))]);
    let lock = commit().lock(SOURCE, &remote);
    let locked = || commit().with(LOCK_FILE, &lock.text());
    let document = locked().plan(SOURCE).unwrap();
    assert_eq!(document.plan().libraries[REMOTE], Digest::of(b"archive"));
    assert_eq!(document.plan().libraries["./slack"], lock.libraries["./slack"]);
    for (path, text) in [
        ("ci/deploy.otto", "step 'deploy' { steps { echo 'other' } }"),
        ("ci/tell.otto", "step 'tell' { steps { echo 'other' } }"),
        ("slack/slack.py", "print('other')"),
        ("slack/new.py", "print()"),
        ("slack/manifest.yml", "symbol: slack\ndescription: Other.\nentrypoint: { path: slack.py }\n"),
        ("ci/gem.blueprint", "blueprint { plan { stage 'Other' { } } }"),
    ] {
        let diagnostics = locked().with(path, text).plan(SOURCE).unwrap_err();
        assert_eq!(codes(&diagnostics), ["E0708"], "{path}: {diagnostics:#?}");
    }
    let mut other = Lock::default();
    other.libraries.insert("stdlib".to_owned(), Digest::of(b"older"));
    let diagnostics = Commit::default().with(LOCK_FILE, &other.text()).plan("pipeline { steps { echo 'x' } }").unwrap_err();
    assert_eq!((codes(&diagnostics), diagnostics[0].file.as_str()), (vec!["E0708"], LOCK_FILE));
    assert!(diagnostics[0].label.contains(&stdlib::library().digest.to_string()), "{diagnostics:#?}");
}

#[test]
fn what_is_not_locked_may_be_brought_in_from_the_commit() {
    let source = "use './ci/deploy' pipeline { steps { deploy } from 'ci/gem' }";
    let empty = Lock::default().text();
    assert!(commit().with(LOCK_FILE, &empty).plan(source).is_ok());
    assert!(commit().plan(source).is_ok());
}

#[test]
fn blocks_of_steps_are_nested_up_to_a_limit_that_readers_of_plans_can_read() {
    let source = |depth: usize| format!("pipeline {{ steps {{ {} sh 'x' {} }} }}", "dir('a') { ".repeat(depth), "} ".repeat(depth));
    let document = planned(&source(limits::STEP_DEPTH_MAX));
    assert_eq!(PlanDocument::read(document.bytes()).unwrap(), document);
    assert_eq!(codes(&refused(source(limits::STEP_DEPTH_MAX + 1).as_bytes())), ["E0609"]);
}

#[test]
fn steps_made_of_steps_are_called_up_to_a_depth() {
    let chain = |length: usize| {
        let steps = (1..length).map(|place| format!("step 's{place}' {{ steps {{ s{} }} }} ", place + 1));
        steps.collect::<String>() + &format!("step 's{length}' {{ steps {{ echo 'x' }} }}")
    };
    let source = "use './s' pipeline { steps { s1 } }";
    assert!(Commit::default().with("s.otto", &chain(limits::INCLUDE_DEPTH_MAX)).plan(source).is_ok());
    let diagnostics = Commit::default().with("s.otto", &chain(limits::INCLUDE_DEPTH_MAX + 1)).plan(source).unwrap_err();
    assert_eq!(codes(&diagnostics), ["E0607"]);
}

#[test]
fn what_steps_made_of_steps_make_is_counted() {
    let steps = (1..6).map(|place| format!("step 's{place}' {{ steps {{ {} }} }} ", format!("s{} ", place + 1).repeat(20)));
    let library = steps.collect::<String>() + "step 's6' { steps { echo 'x' } }";
    let diagnostics = Commit::default().with("s.otto", &library).plan("use './s' pipeline { steps { s1 } }").unwrap_err();
    assert_eq!(codes(&diagnostics), ["E0602"]);
}

#[test]
fn a_step_is_looked_up_in_what_its_own_file_uses() {
    let library =
        || Commit::default().with("a.otto", "use './b' step 'a' { steps { b } }").with("b.otto", "step 'b' { steps { echo 'x' } }");
    assert!(library().plan("use './a' pipeline { steps { a } }").is_ok());
    let diagnostics = library().plan("use './a' pipeline { steps { a b } }").unwrap_err();
    assert_eq!(codes(&diagnostics), ["E0401"]);
    assert_eq!(diagnostics[0].file, "Ottofile");
}

#[test]
fn a_folder_is_told_from_a_file_by_what_is_there() {
    let manifest = "symbol: a\ndescription: x\nentrypoint: { path: a }\n";
    for path in ["./x", "x", "./y/../x", "x/"] {
        let source = format!("use '{path}' pipeline {{ steps {{ a }} }}");
        let document = Commit::default().with("x/manifest.yml", manifest).plan(&source).unwrap();
        assert_eq!(document.plan().libraries.keys().collect::<Vec<_>>(), ["./x"], "{path}");
        let document = Commit::default().with("x.otto", "step 'a' { steps { echo 'x' } }").plan(&source).unwrap();
        assert_eq!(document.plan().libraries.keys().collect::<Vec<_>>(), ["stdlib"], "{path}");
    }
    let digest = Digest::of(b"the archive");
    let mut commit = Commit::default().with("x.tar.gz/manifest.yml", manifest).with("x.tar.gz/.sha256", &digest.to_string());
    let archive = commit.plan("use './x.tar.gz' pipeline { steps { a } }").unwrap();
    assert_eq!(archive.plan().libraries, BTreeMap::from([("./x.tar.gz".to_owned(), digest)]));
}

#[test]
fn a_changed_file_of_a_library_changes_the_plan() {
    let manifest = "symbol: a\ndescription: x\nentrypoint: { path: run }\n";
    let digest = |script: &str, other: &str| {
        let mut commit = Commit::default().with("x/manifest.yml", manifest).with("x/lib/run", script).with("y/other", other);
        commit.plan("use './x' pipeline { steps { a } }").unwrap().digest()
    };
    assert_eq!(digest("echo 1", "1"), digest("echo 1", "2"));
    assert_ne!(digest("echo 1", "1"), digest("echo 2", "1"));
}

#[test]
fn the_pages_of_the_errors_of_steps_have_examples_that_are_what_they_say() {
    for code in ["E0410", "E0411", "E0705", "E0706", "E0709", "E0804"] {
        let page = std::fs::read_to_string(format!("{}/../docs/errors/{code}.md", env!("CARGO_MANIFEST_DIR"))).unwrap();
        for block in page.split("```").skip(1).step_by(2) {
            match block.split_once('\n').unwrap() {
                ("refused", source) => assert_eq!(codes(&Commit::default().plan(source).unwrap_err()), [code], "{source}"),
                ("otto", source) => assert!(Commit::default().plan(source).is_ok(), "{code}: {source}"),
                _ => {}
            }
        }
    }
}

#[test]
fn a_plan_that_is_accepted_can_be_read_however_deep_its_source_is() {
    let concat = |depth: usize| format!("{}vars.x{}", "concat('a', ".repeat(depth), ")".repeat(depth));
    let not = |depth: usize| format!("{}vars.x == 'a'{}", "!(vars.x == 'x' || vars.x in ['b'] && ".repeat(depth), ")".repeat(depth));
    let begin = "pipeline { stage 'a' { steps { sh 'x', into: 'x' } }";
    let mut accepted = 0;
    for depth in 1..60 {
        for source in [
            format!("{begin} stage 'b' {{ steps {{ echo {} }} }} }}", concat(depth)),
            format!("{begin} stage 'b' {{ steps {{ {} echo {} {} }} }} }}", "dir('d') { ".repeat(16), concat(depth), "}".repeat(16)),
            format!("{begin} stage 'b' {{ when {{ {} }} steps {{ echo 'x' }} }} }}", not(depth)),
        ] {
            match Commit::default().plan(&source) {
                Ok(document) => {
                    accepted += 1;
                    assert!(PlanDocument::read(document.bytes()).is_ok_and(|read| read == document), "{source}");
                }
                Err(diagnostics) => assert!(["E0103", "E0610"].contains(&codes(&diagnostics)[0]), "{diagnostics:#?}"),
            }
        }
    }
    assert!(accepted > 30, "{accepted}");
}
