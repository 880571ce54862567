//! What a stage finds in its work directory, and what it leaves of it.

use std::{collections::BTreeMap, fs, path::PathBuf};

use blob::{Blobs, DepotClient};
use bytes::Bytes;
use eventbus::memory;
use model::{
    Digest, StageOutcome,
    event::run::StoredTree,
    plan::{CacheDefinition, Stage, Step},
    protocol::agent::{AgentCommand, Assignment, CacheRestore},
};

use crate::{
    office::{Office, assignment, sh, stage},
    stages::tree,
};

fn caching(path: &str, caches: &[(&str, &[&str])], steps: Vec<Step>) -> Assignment {
    let definition = |paths: &[&str]| CacheDefinition { paths: paths.iter().map(|path| (*path).into()).collect(), key: None };
    let caches = caches.iter().map(|(name, paths)| ((*name).to_owned(), definition(paths))).collect();
    assignment(Stage { caches, ..stage(path, steps) }, 1)
}

fn finding(assignment: Assignment, tree: &StoredTree, required: bool) -> Assignment {
    let caches = BTreeMap::from([("gems".to_owned(), CacheRestore { tree: tree.clone(), required })]);
    Assignment { caches, ..assignment }
}

/// An archive that nothing is known of but its name.
fn named(archive: Digest) -> StoredTree {
    StoredTree { archive, bytes: 0, entries: 1 }
}

/// What lies in a folder of the store, by its digest.
fn stored_at(office: &Office, digest: &Digest) -> PathBuf {
    let hex = digest.hex();
    office.path("depot/sha256").join(hex.get(..2).unwrap()).join(hex.get(2..).unwrap())
}

#[tokio::test]
async fn a_cache_goes_from_stage_to_stage_with_modes_and_links() {
    let mut office = Office::open().await;
    let script = "mkdir -p vendor/bin vendor/empty; echo run >vendor/bin/run; chmod 750 vendor/bin/run; ln -s bin/run vendor/link
        touch -d @1000000000 vendor/bin/run; echo a >a.lock; echo b >b.txt";
    let first = office.run_assignment(&caching("first", &[("gems", &["vendor/", "*.lock"])], vec![sh(script)])).await;
    assert_eq!(first.end(), (StageOutcome::Success, None));
    let kept = &first.outputs.caches["gems"];
    assert_eq!(kept.entries, 6);
    let look = sh("set +x; find . -mindepth 1 -printf '%P %y%m %l\\n' | LC_ALL=C sort; cat vendor/link; stat -c %Y vendor/bin/run");
    let assignment = finding(caching("second", &[("again", &["vendor/", "*.lock"])], vec![look]), kept, true);
    let second = office.run_assignment(&assignment).await;
    assert_eq!(second.end(), (StageOutcome::Success, None));
    let expected = "a.lock f644 \nvendor d755 \nvendor/bin d755 \nvendor/bin/run f750 \nvendor/empty d755 \nvendor/link l777 bin/run\n\
        run\n1000000000\n";
    assert_eq!(second.out, expected);
    // What did not change is the same bytes.
    assert_eq!(second.outputs.caches["again"], *kept);
}

#[tokio::test]
async fn a_cache_is_put_over_the_source() {
    let mut office = Office::open().await;
    let source = office.blobs.put(tree(&[("vendor/kept", 0o644, "source\n"), ("vendor/file", 0o644, "source\n")])).await.unwrap();
    let cache = office.blobs.put(tree(&[("vendor/file", 0o644, "cache\n")])).await.unwrap();
    let assignment = finding(caching("a", &[], vec![sh("cat vendor/file vendor/kept")]), &named(cache), true);
    let ran = office.run_assignment(&Assignment { source: Some(source), ..assignment }).await;
    assert_eq!((ran.end(), ran.out.as_str()), ((StageOutcome::Success, None), "cache\nsource\n"));
}

#[tokio::test]
async fn what_an_earlier_run_left_is_not_newer_than_the_source() {
    let mut office = Office::open().await;
    let source = office.blobs.put(tree(&[("main.c", 0o644, "int main;")])).await.unwrap();
    let look = || vec![sh("if [ main.o -nt main.c ]; then echo done; else echo to do; fi")];
    let first = Assignment { source: Some(source), ..caching("first", &[("gems", &["main.o"])], vec![sh("touch -d 2100-01-01 main.o")]) };
    let kept = office.run_assignment(&first).await.outputs.caches["gems"].clone();
    for (required, expected) in [(true, "done\n"), (false, "to do\n")] {
        let stage = format!("required {required}");
        let ran =
            office.run_assignment(&Assignment { source: Some(source), ..finding(caching(&stage, &[], look()), &kept, required) }).await;
        assert_eq!((ran.end(), ran.out.as_str()), ((StageOutcome::Success, None), expected));
    }
}

#[tokio::test]
async fn a_cache_of_this_run_must_be_there_and_one_of_an_earlier_run_need_not() {
    let mut office = Office::open().await;
    let missing = Digest::of(b"missing");
    let evil = office.blobs.put(tree(&[("good", 0o644, "x"), ("../evil", 0o644, "x")])).await.unwrap();
    let damaged = office.blobs.put(tree(&[("good", 0o644, "x")])).await.unwrap();
    let path = stored_at(&office, &damaged);
    let mut bytes = fs::read(&path).unwrap();
    bytes[512] = b'y';
    fs::write(&path, &bytes).unwrap();
    for (name, digest, problem) in [
        ("missing", missing, format!("cannot fetch it: the depot has no {missing}")),
        ("evil", evil, "the archive is refused: `../evil` leads upwards".to_owned()),
        ("damaged", damaged, format!("the archive is damaged: its bytes are {}, not {damaged}", Digest::of(&bytes))),
    ] {
        let required = finding(caching(&format!("{name} must"), &[], vec![sh("echo never")]), &named(digest), true);
        let ran = office.run_assignment(&required).await;
        let reason = format!("cannot restore the cache `gems`: {problem}");
        assert_eq!((ran.end(), ran.out.as_str()), ((StageOutcome::Failure, Some(reason.as_str())), ""));
        let hint = finding(caching(&format!("{name} may"), &[], vec![sh("ls -A")]), &named(digest), false);
        let ran = office.run_assignment(&hint).await;
        assert_eq!((ran.end(), ran.out.as_str()), ((StageOutcome::Success, None), ""), "nothing of it is left");
        assert!(ran.otto.contains(&format!("going on without the cache `gems` of an earlier run: {problem}")), "{}", ran.otto);
    }
}

#[tokio::test]
async fn what_cannot_be_kept_fails_the_stage_and_what_is_missing_is_told() {
    let mut office = Office::open().await;
    let script = "mkdir vendor; ln -s /etc/passwd vendor/out";
    let ran = office.run_assignment(&caching("out", &[("gems", &["vendor"])], vec![sh(script)])).await;
    let reason = "cannot keep the cache `gems`: `vendor/out` is a symbolic link that may lead out of the directory: leave it out";
    assert_eq!(ran.end(), (StageOutcome::Failure, Some(reason)));
    let ran = office.run_assignment(&caching("above", &[("gems", &["../.."])], vec![sh("true")])).await;
    let reason = "cannot keep the cache `gems`: `../..` leads upwards: name files and directories below the work directory";
    assert_eq!(ran.end(), (StageOutcome::Failure, Some(reason)));
    let caches: [(&str, &[&str]); 2] = [("gems", &["vendor", "here"]), ("none", &["nowhere"])];
    let ran = office.run_assignment(&caching("missing", &caches, vec![sh("touch here; mkfifo pipe")])).await;
    assert_eq!(ran.end(), (StageOutcome::Success, None));
    assert_eq!(ran.outputs.caches.keys().collect::<Vec<_>>(), ["gems"]);
    assert!(ran.otto.contains("the cache `gems` is kept without `vendor`, which is not there"), "{}", ran.otto);
    let ran = office.run_assignment(&caching("failed", &[("gems", &["."])], vec![sh("touch x"), sh("false")])).await;
    assert!(ran.outcome == StageOutcome::Failure && ran.outputs.caches.is_empty());
    assert_eq!(fs::read_dir(office.path("agent/archives")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_stage_without_checkout_begins_empty() {
    let mut office = Office::open().await;
    let source = office.blobs.put(tree(&[("file", 0o644, "x")])).await.unwrap();
    let bare = Stage { bare: true, ..stage("bare", vec![sh("ls -A")]) };
    assert_eq!(office.run_stage(bare, Some(source)).await, (StageOutcome::Success, None, String::new()));
}

#[tokio::test]
async fn stages_in_place_run_in_the_directory_itself_one_at_a_time() {
    let mut office = Office::without_agent().await;
    let own = office.path("own");
    fs::create_dir(&own).unwrap();
    fs::write(own.join("mine"), "mine\n").unwrap();
    office.start_agent_in_place(&own).await;
    let source = office.blobs.put(tree(&[("source", 0o644, "x")])).await.unwrap();
    let (outcome, reason, said) = office.run_stage(stage("first", vec![sh("ls; cat mine; echo made >made; pwd")]), Some(source)).await;
    let expected = format!("mine\nmine\n{}\n", own.canonicalize().unwrap().display());
    assert_eq!((outcome, reason, said), (StageOutcome::Success, None, expected));
    let bare = Stage { bare: true, ..stage("bare", vec![sh("ls -A")]) };
    assert_eq!(office.run_stage(bare, Some(source)).await.2, "");
    let kept = office.run_assignment(&caching("cache", &[("gems", &["made"])], vec![sh("true")])).await;
    assert_eq!(kept.outputs.caches["gems"].entries, 1);
    assert_eq!(fs::read_to_string(own.join("made")).unwrap(), "made\n");
    let long = assignment(stage("long", vec![sh("echo started; sleep 1000")]), 1);
    office.award(&long).await;
    office.chunk().await;
    let other = office.ask(&stage("other", vec![]), 0, &[]).await;
    assert!(!matches!(other, model::protocol::auction::Bid::Offer(_)), "{other:?}");
    office.send(AgentCommand::Cancel { lease: long.lease.clone(), force: false }).await;
    assert_eq!(office.result(&long.lease).await.0, StageOutcome::Aborted);
    assert!(own.join("mine").exists());
}

#[tokio::test]
async fn a_cut_off_depot_costs_a_hint_and_holds_what_must_be_kept() {
    let bus = memory::bus();
    let mut office = Office::on(bus.clone(), bus.clone(), bus).await;
    // Nobody answers there.
    office.blobs = Blobs::Depot(DepotClient::new("http://127.0.0.1:1", "token").unwrap());
    office.start_agent().await;
    let assignment = finding(caching("a", &[("gems", &["x"])], vec![sh("echo went on >x; cat x")]), &named(Digest::of(b"x")), false);
    office.award(&assignment).await;
    assert_eq!(office.chunk().await.bytes, b"went on\n");
    // Its work is done, and it waits for the depot, until somebody ends it.
    office.chunk_of_otto("the cache `gems` is not stored yet, trying again").await;
    office.send(AgentCommand::Cancel { lease: assignment.lease.clone(), force: false }).await;
    assert_eq!(office.result(&assignment.lease).await, (StageOutcome::Aborted, Some("cancelled".to_owned())));
    assert_eq!(fs::read_dir(office.path("agent/archives")).unwrap().count(), 0);
}

#[tokio::test]
async fn an_archive_is_bytes_and_not_a_tree() {
    let mut office = Office::open().await;
    let nonsense = office.blobs.put(Bytes::from_static(b"no archive")).await.unwrap();
    let ran = office.run_assignment(&finding(caching("a", &[], vec![sh("echo never")]), &named(nonsense), true)).await;
    let reason = "cannot restore the cache `gems`: the archive is refused: it ends early (0 entries were read)";
    assert_eq!(ran.end(), (StageOutcome::Failure, Some(reason)));
}
