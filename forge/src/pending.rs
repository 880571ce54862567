//! Deliveries that lie in the repositories because the forge was away when they were pushed, or could not accept them then.
//!
//! The folders are looked at when the forge starts and every few seconds from then on: the files are the truth, and nothing needs to tell
//! of them.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use service::supervisor::{TaskError, chain};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    accept::{AcceptError, Acceptor},
    delivery::{DELIVERY_BYTES_MAX, Delivery},
    hook,
};

/// Between two looks at the folders. A file is taken up at the second look that sees it, as at first its hook speaks for itself.
const SCAN_PAUSE: Duration = Duration::from_secs(2);
/// The longest pause before a delivery that failed is tried again; it doubles from [`SCAN_PAUSE`].
const RETRY_PAUSE_MAX: Duration = Duration::from_mins(1);
/// The most deliveries of one repository that one look takes up; the next takes up the others.
const DELIVERIES_MAX: usize = 1000;

/// When a delivery is tried (again).
struct Retry {
    at: Instant,
    pause: Duration,
}

/// Accepts what is pending, until it is cancelled.
pub(crate) async fn watch(acceptor: Arc<Acceptor>, cancelled: CancellationToken) -> Result<(), TaskError> {
    let mut retries = BTreeMap::new();
    let mut first = true;
    loop {
        // What is cut short here is found again by the next forge.
        tokio::select! {
            () = cancelled.cancelled() => return Ok(()),
            () = scan(&acceptor, &mut retries, first) => {}
        }
        first = false;
        tokio::select! {
            () = cancelled.cancelled() => return Ok(()),
            () = tokio::time::sleep(SCAN_PAUSE) => {}
        }
    }
}

async fn scan(acceptor: &Acceptor, retries: &mut BTreeMap<PathBuf, Retry>, first: bool) {
    let mut found = Vec::new();
    for repository in acceptor.repositories() {
        match list(&hook::pending(repository)) {
            Ok(paths) => found.extend(paths.into_iter().map(|path| (repository, path))),
            Err(error) => warn!(repository = %repository.display(), error = chain(&error), "cannot look for pending deliveries"),
        }
    }
    retries.retain(|path, _| found.iter().any(|(_, found)| found == path));
    for (repository, path) in found {
        let now = Instant::now();
        let due = if first { now } else { now + SCAN_PAUSE / 2 };
        let retry = retries.entry(path.clone()).or_insert(Retry { at: due, pause: SCAN_PAUSE });
        if retry.at > now {
            continue;
        }
        match take_up(acceptor, repository, &path).await {
            Ok(()) => {
                retries.remove(&path);
            }
            Err(error) => {
                warn!(path = %path.display(), retry_seconds = retry.pause.as_secs(), error = chain(&*error), "pending delivery not accepted yet");
                retry.at = Instant::now() + retry.pause;
                retry.pause = RETRY_PAUSE_MAX.min(retry.pause * 2);
            }
        }
    }
}

/// The deliveries of one folder, in the order of their names.
fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut paths = Vec::new();
    for entry in entries.take(DELIVERIES_MAX) {
        let path = entry?.path();
        // What begins with a dot is being written.
        let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|extension| extension == "json") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Accepts one delivery and removes its file, or moves it aside if it never will be accepted. An error means: later.
async fn take_up(acceptor: &Acceptor, repository: &Path, path: &Path) -> Result<(), TaskError> {
    let delivery = match read(repository, path)? {
        None => return Ok(()),
        Some(Err(why)) => return Ok(reject(repository, path, &why)?),
        Some(Ok(delivery)) => delivery,
    };
    match acceptor.accept(&delivery).await {
        Ok(answer) => {
            info!(delivery = %delivery.delivery, runs = answer.runs.len(), ignored = answer.ignored.len(), "pending delivery accepted");
            Ok(remove(path)?)
        }
        Err(error) if AcceptError::is_final(&error) => Ok(reject(repository, path, &chain(&error))?),
        Err(error) => Err(error.into()),
    }
}

/// The delivery of a file, or why it is none. Its hook may have removed it meanwhile.
fn read(repository: &Path, path: &Path) -> io::Result<Option<Result<Delivery, String>>> {
    let bytes = match fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => return Ok(Some(Err("it is no file".to_owned()))),
        Ok(metadata) if metadata.len() > DELIVERY_BYTES_MAX as u64 => return Ok(Some(Err("it is too large".to_owned()))),
        Ok(_) => fs::read(path),
        Err(error) => Err(error),
    };
    let bytes = match bytes {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let delivery: Delivery = match serde_json::from_slice(&bytes) {
        Ok(delivery) => delivery,
        Err(error) => return Ok(Some(Err(error.to_string()))),
    };
    if Path::new(&delivery.repository) != repository {
        return Ok(Some(Err(format!("it is of the repository {}", delivery.repository))));
    }
    if path.file_stem().is_none_or(|stem| stem != delivery.delivery.as_str()) {
        return Ok(Some(Err(format!("it holds the delivery {}", delivery.delivery))));
    }
    Ok(Some(Ok(delivery)))
}

fn reject(repository: &Path, path: &Path, why: &str) -> io::Result<()> {
    let folder = hook::rejected(repository);
    hook::create_folder(&folder)?;
    let to = folder.join(path.file_name().ok_or(io::ErrorKind::InvalidInput)?);
    warn!(path = %path.display(), to = %to.display(), why, "pending delivery rejected");
    match fs::rename(path, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
