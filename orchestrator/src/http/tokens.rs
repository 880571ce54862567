//! The tokens that the administrator hands out, as their file has them now.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, RwLock},
    time::{Duration, SystemTime},
};

use config::{Token, load_tokens, token::WrongTokens};
use model::Digest;
use service::supervisor::chain;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

/// Between two looks at the file: a token is made, and taken away, without a restart. A look costs one `stat`.
const TOKENS_PAUSE: Duration = Duration::from_secs(1);

/// Tokens besides the orchestrator's own. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Tokens {
    file: Option<PathBuf>,
    known: Arc<RwLock<BTreeMap<Digest, Arc<Known>>>>,
}

/// A token that is known.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) token: Token,
    /// Cancelled when it is not any more, or is for something else: what is still being told to whoever showed it ends.
    pub(super) ended: CancellationToken,
}

impl Known {
    pub(super) fn new(token: Token) -> Arc<Self> {
        Arc::new(Self { token, ended: CancellationToken::new() })
    }
}

/// What tells one state of the file from another.
type Mark = Option<(SystemTime, u64)>;

impl Tokens {
    /// Those of a file. It need not be there yet.
    pub fn open(file: PathBuf) -> Result<Self, WrongTokens> {
        let tokens = load_tokens(&file)?;
        let known = tokens.into_iter().map(|token| (token.digest, Known::new(token))).collect();
        Ok(Self { file: Some(file), known: Arc::new(RwLock::new(known)) })
    }

    /// The token with this text's digest.
    pub(super) fn find(&self, digest: &Digest) -> Option<Arc<Known>> {
        self.known.read().expect("no holder of this lock panics").get(digest).cloned()
    }

    /// Reads the file again whenever it changes. One that is wrong changes nothing, and is told once.
    pub(super) async fn watch(self) {
        let Some(file) = &self.file else { return };
        // What changed since it was opened is not known: it is read once more.
        let mut seen: Option<Mark> = None;
        loop {
            let mark = mark(file).ok();
            if mark.is_some() && mark != seen {
                match load_tokens(file) {
                    Ok(tokens) => self.replace(tokens),
                    Err(wrong) => error!(error = chain(&wrong), "the tokens stay as they were"),
                }
                seen = mark;
            }
            sleep(TOKENS_PAUSE).await;
        }
    }

    fn replace(&self, tokens: Vec<Token>) {
        let mut known = self.known.write().expect("no holder of this lock panics");
        let as_it_was = |token: &Token| known.get(&token.digest).filter(|known| known.token == *token).cloned();
        let now: BTreeMap<_, _> =
            tokens.into_iter().map(|token| (token.digest, as_it_was(&token).unwrap_or_else(|| Known::new(token)))).collect();
        let is_known_now = |old: &Arc<Known>| now.get(&old.token.digest).is_some_and(|new| Arc::ptr_eq(new, old));
        let gone: Vec<_> = known.values().filter(|old| !is_known_now(old)).cloned().collect();
        if !gone.is_empty() || now.len() != known.len() {
            info!(tokens = now.len(), "the tokens have changed");
            *known = now;
        }
        drop(known);
        for old in gone {
            old.ended.cancel();
        }
    }
}

fn mark(file: &Path) -> io::Result<Mark> {
    match fs::metadata(file) {
        Ok(metadata) => Ok(Some((metadata.modified()?, metadata.len()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
