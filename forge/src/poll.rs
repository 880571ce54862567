//! Looking for pushes of which nobody tells.
//!
//! **Invariant:** what was seen is written down after what it starts is stored. What is found twice for that, or is told by a webhook as well,
//! is the same run.

use std::{collections::BTreeMap, fs, io, path::Path, sync::Arc, time::Duration};

use model::ProjectName;
use service::supervisor::{TaskError, chain};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    accept::Acceptor,
    happened::{BRANCHES, Happened, QUEUE, RefName, TAGS, What},
    webhook::Told,
};

/// The names of branches and tags, each with its commit.
type Refs = BTreeMap<String, String>;

/// Between two looks at a repository that is served here, where a push rings: what was pushed before a forge fell is found at its start.
pub(crate) const SERVED_PAUSE: Duration = Duration::from_mins(1);

/// Looks every so often, and when it is rung for, until it is cancelled.
pub(crate) async fn watch(
    acceptor: Arc<Acceptor>,
    project: ProjectName,
    pause: Duration,
    bell: Arc<Notify>,
    cancelled: CancellationToken,
) -> Result<(), TaskError> {
    loop {
        tokio::select! {
            () = cancelled.cancelled() => return Ok(()),
            looked = look(&acceptor, &project) => {
                if let Err(error) = looked {
                    warn!(%project, error = chain(&*error), "cannot look for pushes");
                }
            }
        }
        tokio::select! {
            () = cancelled.cancelled() => return Ok(()),
            () = bell.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Writes down what there is in a project that nobody has looked at yet, so that all that comes starts runs.
pub(crate) async fn begin(acceptor: &Acceptor, project: &ProjectName) -> Result<(), TaskError> {
    let (now, path) = acceptor.refs(project).await?;
    if read(&path)?.is_none() {
        write(&path, &now)?;
    }
    Ok(())
}

async fn look(acceptor: &Acceptor, project: &ProjectName) -> Result<(), TaskError> {
    let (mut now, path) = acceptor.refs(project).await?;
    let Some(before) = read(&path)? else {
        info!(%project, refs = now.len(), "looked at for the first time: what is pushed from now on starts runs");
        return Ok(write(&path, &now)?);
    };
    if now == before {
        return Ok(());
    }
    let changed: Vec<_> = now.iter().filter(|(name, id)| before.get(*name) != Some(*id)).map(|(name, _)| name.clone()).collect();
    for name in changed {
        let Some(happened) = happened(&name, &now, &before) else { continue };
        if let Err(error) = acceptor.accept_told(project, Told::Happened(happened)).await {
            warn!(%project, name, error = chain(&error), "what was pushed is not accepted yet");
            // So it is found again.
            match before.get(&name) {
                Some(old) => drop(now.insert(name, old.clone())),
                None => drop(now.remove(&name)),
            }
        }
    }
    Ok(write(&path, &now)?)
}

fn happened(name: &str, now: &Refs, before: &Refs) -> Option<Happened> {
    let commit = now.get(name)?.parse().ok()?;
    let previous = before.get(name).and_then(|id| id.parse().ok());
    let what = match (name.strip_prefix(BRANCHES), name.strip_prefix(TAGS)) {
        (Some(branch), _) if branch.starts_with(QUEUE) => return None,
        (Some(branch), _) => What::Push { branch: branch.to_owned(), previous },
        (None, Some(tag)) => What::Tag { tag: tag.to_owned() },
        (None, None) => return None,
    };
    Some(Happened { what, name: RefName::new(name)?, commit, actor: None })
}

fn read(path: &Path) -> io::Result<Option<Refs>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn write(path: &Path, refs: &Refs) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let partial = path.with_extension("partial");
    fs::write(&partial, serde_json::to_vec(refs)?)?;
    fs::rename(partial, path)
}
