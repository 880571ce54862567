//! Removing what nobody has used for long, while everybody has the store open.
//!
//! A use is that a blob is stored, read, or asked for. Its time is that of its file, which is set at most once a day. So whoever asks for all that is
//! still named, and then has what is unused removed, keeps all of that.
//!
//! **Invariant:** who was told that bytes are there finds them there for [`KEPT`], also where that was in the very moment of their removal.

use std::{
    fs::{self, File, Metadata},
    io,
    path::Path,
    sync::Mutex,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{BlobError, disk::failed, sweep::each};

/// How long what nobody uses is kept. A trigger waits for its run for 30 days at most, and names what it needs without asking for it.
pub const KEPT: Duration = Duration::from_hours(31 * 24);
/// How exact the time of the last use is: to write it each time would cost more than reading.
const EXACT: Duration = Duration::from_hours(24);

/// What was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// How many blobs.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// How long ago the file was used.
fn unused_for(metadata: &Metadata) -> Duration {
    // A time that is to come, after the clock was put back, is now.
    metadata.modified().ok().and_then(|modified| modified.elapsed().ok()).unwrap_or_default()
}

/// Notes a use, if it is time to. Whether the file is still there. Where the time cannot be set, it is as if it were not used.
pub(crate) fn note_use(file: &File, metadata: &Metadata, path: &Path, removal: &Mutex<()>) -> bool {
    if unused_for(metadata) < EXACT {
        return true;
    }
    let _nobody_removes = removal.lock().expect("no holder of this lock panics");
    let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
    let _noted = rustix::fs::futimens(file, &rustix::fs::Timestamps { last_access: now, last_modification: now });
    path.exists()
}

/// Removes blobs that were not used for so long.
pub(crate) fn remove(blobs: &Path, kept: Duration, removal: &Mutex<()>) -> Result<Removed, BlobError> {
    let mut removed = Removed::default();
    each(blobs, |_, entry| {
        let path = entry.path();
        let _nobody_uses = removal.lock().expect("no holder of this lock panics");
        let metadata = match fs::symlink_metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed("look at", &path)(error)),
        };
        if metadata.is_file() && unused_for(&metadata) >= kept {
            fs::remove_file(&path).map_err(failed("remove", &path))?;
            removed.blobs += 1;
            removed.bytes += metadata.len();
        }
        Ok(())
    })?;
    Ok(removed)
}

/// Makes a blob as old as that, for tests.
#[cfg(test)]
fn age(store: &Path, digest: &model::Digest, by: Duration) {
    let hex = digest.hex();
    let (folder, name) = hex.split_at(2);
    let path = store.join(crate::disk::BLOBS).join(folder).join(name);
    let file = File::options().write(true).open(path).expect("it is stored");
    let then = file.metadata().and_then(|metadata| metadata.modified()).expect("it has a time") - by;
    file.set_modified(then).expect("it is ours");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{DiskStore, Durability};

    #[tokio::test]
    async fn what_nobody_has_used_for_a_month_goes_and_what_was_asked_for_stays() {
        let folder = tempfile::tempdir().unwrap();
        let store = DiskStore::open(folder.path(), Durability::None).unwrap();
        let put = async |text: &'static str| store.put(text.into()).await.unwrap();
        let [new, unused, asked, read, again] =
            [put("new").await, put("unused").await, put("asked").await, put("read").await, put("again").await];
        for digest in [&unused, &asked, &read, &again] {
            age(folder.path(), digest, KEPT);
        }
        assert!(store.has(&asked).await.unwrap());
        store.get(&read).await.unwrap();
        put("again").await;
        assert_eq!(store.remove_unused().await.unwrap(), Removed { blobs: 1, bytes: 6 });
        for digest in [&new, &asked, &read, &again] {
            assert!(store.has(digest).await.unwrap());
        }
        assert!(!store.has(&unused).await.unwrap());
        assert_eq!(store.remove_unused().await.unwrap(), Removed::default());
        // It is stored anew as anything else.
        put("unused").await;
        assert_eq!(store.get(&unused).await.unwrap(), "unused");
    }

    #[tokio::test]
    async fn who_was_told_that_bytes_are_there_finds_them_whoever_removes_them_meanwhile() {
        let folder = tempfile::tempdir().unwrap();
        let store = DiskStore::open(folder.path(), Durability::None).unwrap();
        for _ in 0..200 {
            let digest = store.put("wanted".into()).await.unwrap();
            age(folder.path(), &digest, KEPT);
            let (there, removed) = tokio::join!(store.has(&digest), store.remove_unused());
            removed.unwrap();
            if there.unwrap() {
                assert_eq!(store.get(&digest).await.unwrap(), "wanted");
            }
        }
    }
}
