//! A work directory that is a snapshot of the source: what a stage does in it stays there, whatever it does.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use agent::{Level, SandboxOptions};
use bytes::Bytes;
use model::{
    Digest, StageOutcome,
    event::run::StoredTree,
    plan::{CacheDefinition, Notify, Stage},
    protocol::agent::{Assignment, CacheRestore},
};

use crate::{
    office::{Office, assignment, sh, stage, step, until},
    stages::tree,
};

/// Files of a source that is not worth a copy.
const FILES: usize = 5_000;

/// A source with a small file `first`, and many others.
fn many_files() -> Bytes {
    let paths: Vec<String> = (0..FILES).map(|number| format!("folder-{}/file-{number}", number % 50)).collect();
    let others = paths.iter().map(|path| (path.as_str(), 0o644, "as it was\n"));
    tree(&[("first", 0o755, "as it was\n"), ("old/file", 0o644, "as it was\n")].into_iter().chain(others).collect::<Vec<_>>())
}

async fn put(office: &Office) -> Digest {
    office.blobs.put(many_files()).await.unwrap()
}

/// The sources that the agent keeps unpacked.
fn kept(office: &Office) -> Vec<PathBuf> {
    fs::read_dir(office.path("agent/sources")).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// Every path below a folder with its content.
fn content(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            }
            found.insert(entry.path(), fs::read(entry.path()).unwrap_or_default());
        }
    }
    found
}

/// What the machine makes of a work directory at this level, as its stages see it.
async fn is_mounted(office: &mut Office, source: Digest) -> bool {
    let (outcome, reason, said) = office.run_stage(stage("look", vec![sh("set +x; stat -f -c %T .")]), Some(source)).await;
    assert_eq!((outcome, reason), (StageOutcome::Success, None));
    let is_mounted = said == "overlayfs\n";
    if !is_mounted {
        println!("SKIPPED in part: work directories are no overlays here, but {said}");
    }
    is_mounted
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_of_many_files_is_unpacked_once_and_no_stage_changes_it() {
    for level in Level::ALL {
        let Some(mut office) = Office::isolated(level).await else { continue };
        let source = put(&office).await;
        let is_mounted = is_mounted(&mut office, source).await;
        let before = is_mounted.then(|| {
            let [kept] = kept(&office).try_into().unwrap();
            content(&kept)
        });
        let change = "set +x; test $(find . -type f | wc -l) = 5002; test -x first
            echo more >>first; chmod 600 folder-1/file-1; touch folder-2/file-2; rm -r folder-3; mkdir folder-3; echo new >folder-3/new
            mv old moved; ln -s first link; ln first second; cat second; ls folder-3 moved";
        let (outcome, reason, said) = office.run_stage(stage("change", vec![sh(change)]), Some(source)).await;
        assert_eq!((outcome, reason), (StageOutcome::Success, None), "{level}: {said}");
        assert_eq!(said, "as it was\nmore\nfolder-3:\nnew\n\nmoved:\nfile\n", "{level}");
        let look = "set +x; cat first; ls old; find . -type f | wc -l; stat -c %a folder-1/file-1";
        let (outcome, reason, said) = office.run_stage(stage("after", vec![sh(look)]), Some(source)).await;
        assert_eq!((outcome, reason), (StageOutcome::Success, None), "{level}: {said}");
        assert_eq!(said, "as it was\nfile\n5002\n644\n", "{level}");
        if let Some(before) = before {
            let [kept] = kept(&office).try_into().unwrap();
            assert_eq!(content(&kept), before, "{level}: the source is as it was");
        }
        until("an empty spool", || office.leftovers().is_empty()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn caches_folders_and_the_last_words_are_in_the_snapshot() {
    for level in Level::ALL {
        let Some(mut office) = Office::isolated(level).await else { continue };
        let source = put(&office).await;
        let cache = office.blobs.put(tree(&[("old/file", 0o644, "of the cache\n"), ("vendor/gem", 0o644, "gem\n")])).await.unwrap();
        let definition = CacheDefinition { paths: vec!["vendor".into(), "folder-7".into(), "made".into()], key: None };
        let made = step("dir", "path", "made/here");
        let inner = model::plan::Value::Steps { steps: vec![sh("set +x; pwd | sed 's,.*/source/,,'; echo x >../file")] };
        let made = model::plan::Step { parameters: made.parameters.into_iter().chain([("steps".to_owned(), inner)]).collect(), ..made };
        let script = sh("set +x; cat old/file vendor/gem; rm -r folder-7; mkdir folder-7; echo y >folder-7/y");
        let said_last = Notify { success: vec![sh("set +x; cat made/file; ls folder-7")], ..Notify::default() };
        let stage = Stage { caches: [("mine".to_owned(), definition)].into(), notify: said_last, ..stage("snapshot", vec![script, made]) };
        let restored = CacheRestore { tree: StoredTree { archive: cache, bytes: 0, entries: 2 }, required: true };
        let assignment = Assignment { source: Some(source), caches: [("gems".to_owned(), restored)].into(), ..assignment(stage, 1) };
        let ran = office.run_assignment(&assignment).await;
        assert_eq!(ran.end(), (StageOutcome::Success, None), "{level}: {}", ran.otto);
        assert_eq!(ran.out, "of the cache\ngem\nmade/here\nx\ny\n", "{level}");
        // vendor, vendor/gem, folder-7, folder-7/y, made, made/here, made/file: nothing of what the source had in folder-7.
        assert_eq!(ran.outputs.caches["mine"].entries, 7, "{level}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_stage_writes_in_the_tongue_of_overlays_is_not_understood() {
    for level in Level::ALL {
        let Some(mut office) = Office::isolated(level).await else { continue };
        let source = put(&office).await;
        // A whiteout, an opaque folder, a redirect: as a file and as what the file system itself would note.
        let script = "set +x; mkdir made evil
            python3 - <<'END'
import os, stat
def tried(what):
    try: what()
    except OSError: pass
tried(lambda: os.mknod('folder-1/file-1x', 0o600 | stat.S_IFCHR, os.makedev(0, 0)))
tried(lambda: os.mknod('disk', 0o600 | stat.S_IFBLK, os.makedev(7, 0)))
for space in ('user', 'trusted'):
    tried(lambda: os.setxattr('folder-2', space + '.overlay.opaque', b'y'))
    tried(lambda: os.setxattr('made', space + '.overlay.redirect', b'/../../../../etc'))
    tried(lambda: os.setxattr('first', space + '.overlay.metacopy', b''))
END
            chmod 0 evil made; ls folder-2 | wc -l; cat first; test ! -e made/passwd; chmod 700 evil made";
        let definition = CacheDefinition { paths: vec!["folder-2".into(), "made".into(), "disk".into(), "first".into()], key: None };
        let stage = Stage { caches: [("mine".to_owned(), definition)].into(), ..stage("tongue", vec![sh(script)]) };
        let ran = office.run_assignment(&Assignment { source: Some(source), ..assignment(stage, 1) }).await;
        assert_eq!(ran.end(), (StageOutcome::Success, None), "{level}: {}", ran.err);
        assert_eq!(ran.out, "100\nas it was\n", "{level}");
        // folder-2 and its hundred files, made, first.
        assert_eq!(ran.outputs.caches["mine"].entries, 103, "{level}");
        until("an empty spool", || office.leftovers().is_empty()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_overlays_leave_is_removed_when_the_agent_comes_back() {
    let options = |level| SandboxOptions { processes: Some(100), ..crate::office::isolated(level) };
    for level in Level::ALL {
        let Some(mut office) = Office::isolated(level).await else { continue };
        let source = put(&office).await;
        is_mounted(&mut office, source).await;
        office.stop_agent().await;
        // As a kill leaves it: what the mount notes is closed to everybody, and a tree is half there.
        let folder = office.path("agent/work/77.layers/work/work");
        fs::create_dir_all(&folder).unwrap();
        fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o0)).unwrap();
        fs::create_dir_all(office.path("agent/sources/part-77/half")).unwrap();
        office.sandbox = options(level);
        office.start_agent().await;
        assert!(!office.path("agent/work/77.layers").exists() && !office.path("agent/sources/part-77").exists(), "{level}");
        is_mounted(&mut office, source).await;
    }
}
