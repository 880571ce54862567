//! The bounds of the store: the oldest runs go first, never a live one, and with them what only they refer to.
//!
//! Which bytes a run refers to is not told by types, but by the text of its journal and of the plans in it: every digest in there counts. So a
//! new kind of event cannot be forgotten here.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use blob::{DiskStore, Sweep};
use model::Digest;

use super::{AGENT, HINTS, Kept, Store};

/// Runs that are kept, about: they are counted when every so many have begun.
const RUNS_MAX: usize = 48;
/// Between two looks, in runs: looking costs some milliseconds.
const RUNS_BETWEEN: usize = 8;
/// Bytes in the depot that are kept, unless a single run needs more: what a laptop's disk can spare.
const BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;
/// What a digest's text begins with, and how long it is with that.
const DIGEST_PREFIX: &[u8] = b"sha256:";
const DIGEST_LENGTH: usize = 71;
/// A document in which digests are looked for, such as a plan, has no more bytes; archives have no digests.
const DOCUMENT_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Removes what is over the bounds, if it is time to look. The depot must not be open in this process; while another process has it open,
/// nothing is done: the next one will.
pub fn sweep(store: &Store) -> anyhow::Result<()> {
    let kept = store.kept();
    if kept.len() < RUNS_MAX + RUNS_BETWEEN && !kept.len().is_multiple_of(RUNS_BETWEEN) {
        return Ok(());
    }
    Bounds { runs: RUNS_MAX, bytes: BYTES_MAX }.keep(store, kept)
}

struct Bounds {
    runs: usize,
    bytes: u64,
}

impl Bounds {
    fn keep(&self, store: &Store, mut kept: Vec<Kept>) -> anyhow::Result<()> {
        // While this is held, nobody else can begin to use the depot.
        let Some(sweep) = DiskStore::sweep(&store.depot_folder())? else { return Ok(()) };
        let sizes = sweep.sizes()?;
        let mut hinted: BTreeSet<Digest> = digests(&fs::read(store.folder.join(HINTS)).unwrap_or_default()).into_iter().collect();
        let mut named: BTreeMap<PathBuf, BTreeSet<Digest>> = BTreeMap::new();
        for run in &kept {
            named.insert(run.folder.clone(), references(run, &sweep));
        }
        let needed = |named: &BTreeMap<PathBuf, BTreeSet<Digest>>, hinted: &BTreeSet<Digest>| -> (BTreeSet<Digest>, u64) {
            let all: BTreeSet<Digest> = named.values().flatten().chain(hinted).copied().collect();
            let bytes = all.iter().filter_map(|digest| sizes.get(digest)).sum();
            (all, bytes)
        };
        // The caches of runs that are gone only make later ones faster, so they go first.
        if needed(&named, &hinted).1 > self.bytes {
            hinted.clear();
        }
        let mut at = 0;
        while at < kept.len() && kept.len() > 1 && (kept.len() > self.runs || needed(&named, &hinted).1 > self.bytes) {
            // Its lock is held until its folder is gone.
            let Some(held) = kept[at].hold()? else {
                at += 1;
                continue;
            };
            if let Some(workplace) = held.kept.workplace() {
                agent::end_attempts(&workplace.join(AGENT))?;
                agent::remove_tree(&workplace)?;
            }
            fs::remove_dir_all(&held.kept.folder)?;
            named.remove(&held.kept.folder);
            kept.remove(at);
        }
        Ok(sweep.keep(&needed(&named, &hinted).0)?)
    }
}

/// The digests that a run names, and those that its documents name.
fn references(run: &Kept, sweep: &Sweep) -> BTreeSet<Digest> {
    let mut found = BTreeSet::new();
    let mut unread: Vec<Digest> = digests(&fs::read(run.journal()).unwrap_or_default());
    while let Some(digest) = unread.pop() {
        if found.insert(digest)
            && let Some(document) = sweep.document(&digest, DOCUMENT_BYTES_MAX)
        {
            unread.extend(digests(&document));
        }
    }
    found
}

fn digests(text: &[u8]) -> Vec<Digest> {
    let starts = text.windows(DIGEST_PREFIX.len()).enumerate().filter(|(_, window)| *window == DIGEST_PREFIX);
    starts.filter_map(|(at, _)| str::from_utf8(text.get(at..at + DIGEST_LENGTH)?).ok()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use blob::Blobs;
    use model::{RunId, TriggerId};

    use std::fmt::Write as _;

    use super::*;

    async fn begin(store: &Store, number: u32, named: &[&str]) -> super::super::Held {
        let blobs = Blobs::Disk(store.depot().unwrap());
        let held = store.begin(&RunId::of(&TriggerId::of("test", &number.to_string()))).unwrap();
        let mut journal = String::new();
        for bytes in named {
            let digest = blobs.put((*bytes).to_owned().into()).await.unwrap();
            let document = blobs.put(format!("{{\"a\":\"{digest}\"}}").into()).await.unwrap();
            writeln!(journal, "runs.x {{\"plan\":\"{document}\"}}").unwrap();
        }
        fs::write(held.kept.journal(), journal).unwrap();
        // Names sort by milliseconds.
        std::thread::sleep(std::time::Duration::from_millis(2));
        held
    }

    async fn has(store: &Store, bytes: &str) -> bool {
        Blobs::Disk(store.depot().unwrap()).has(&Digest::of(bytes.as_bytes())).await.unwrap()
    }

    #[tokio::test]
    async fn the_oldest_run_goes_with_what_only_it_names_and_a_live_one_stays() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::of(folder.path());
        let live = begin(&store, 1, &["live"]).await;
        for (number, named) in [(2, ["old", "shared"]), (3, ["middle", "shared"]), (4, ["new", "shared"])] {
            drop(begin(&store, number, &named).await);
        }
        Bounds { runs: 3, bytes: u64::MAX }.keep(&store, store.kept()).unwrap();
        assert_eq!(store.kept().len(), 3);
        assert!(store.kept()[0] == live.kept && has(&store, "live").await);
        assert!(!has(&store, "old").await && has(&store, "shared").await && has(&store, "middle").await);
        Bounds { runs: 3, bytes: 1 }.keep(&store, store.kept()).unwrap();
        assert_eq!(store.kept().len(), 1, "only the live one");
        assert!(has(&store, "live").await && !has(&store, "shared").await);
    }

    #[tokio::test]
    async fn nothing_goes_while_somebody_has_the_depot_open() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::of(folder.path());
        drop(begin(&store, 1, &["a"]).await);
        drop(begin(&store, 2, &["b"]).await);
        let open = store.depot().unwrap();
        Bounds { runs: 1, bytes: 1 }.keep(&store, store.kept()).unwrap();
        assert_eq!(store.kept().len(), 2);
        drop(open);
        Bounds { runs: 1, bytes: 1 }.keep(&store, store.kept()).unwrap();
        assert_eq!(store.kept().len(), 1);
    }
}
