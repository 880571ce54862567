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
use tracing::{error, info};

/// Between two looks at the file: a token is made, and taken away, without a restart. A look costs one `stat`.
const TOKENS_PAUSE: Duration = Duration::from_secs(1);

/// Tokens besides the orchestrator's own. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Tokens {
    file: Option<PathBuf>,
    known: Arc<RwLock<BTreeMap<Digest, Arc<Token>>>>,
}

/// What tells one state of the file from another.
type Mark = Option<(SystemTime, u64)>;

impl Tokens {
    /// Those of a file. It need not be there yet.
    pub fn open(file: PathBuf) -> Result<Self, WrongTokens> {
        let known = by_digest(load_tokens(&file)?);
        Ok(Self { file: Some(file), known: Arc::new(RwLock::new(known)) })
    }

    /// The token with this text's digest.
    pub(super) fn find(&self, digest: &Digest) -> Option<Arc<Token>> {
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
        let tokens = by_digest(tokens);
        let mut known = self.known.write().expect("no holder of this lock panics");
        if *known != tokens {
            info!(tokens = tokens.len(), "the tokens have changed");
            *known = tokens;
        }
    }
}

fn by_digest(tokens: Vec<Token>) -> BTreeMap<Digest, Arc<Token>> {
    tokens.into_iter().map(|token| (token.digest, Arc::new(token))).collect()
}

fn mark(file: &Path) -> io::Result<Mark> {
    match fs::metadata(file) {
        Ok(metadata) => Ok(Some((metadata.modified()?, metadata.len()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
