//! Which run a person means: its id, the beginning of one, or `latest`.

use model::RunId;

use super::{Client, ClientError};

/// What names the newest run.
pub const LATEST: &str = "latest";
/// Runs in one answer while the list is searched.
const PAGE: usize = 500;
/// Answers that are searched for the beginning of an id; older runs are named by their whole id.
const PAGES_MAX: usize = 10;

/// Why no run is meant.
#[derive(Debug, thiserror::Error)]
pub enum PickError {
    /// The API did not tell.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// There is none.
    #[error("there is no run yet: push a pipeline file, or start one with `otto run`")]
    NoRuns,
    /// Nothing begins so.
    #[error("no run begins with `{0}`: `otto runs` lists them")]
    Nothing(String),
    /// Several begin so.
    #[error("{count} runs begin with `{text}`, such as {first} and {second}: type more of it")]
    Several {
        /// What was asked for.
        text: String,
        /// How many.
        count: usize,
        /// One.
        first: RunId,
        /// Another.
        second: RunId,
    },
}

impl Client {
    /// The run that `text` means: an id, the beginning of one with or without `run_`, or `latest`.
    pub async fn pick(&self, text: &str) -> Result<RunId, PickError> {
        if text == LATEST {
            return self.list(1, None).await?.runs.into_iter().next().map(|run| run.id).ok_or(PickError::NoRuns);
        }
        if let Ok(run) = text.parse() {
            return Ok(run);
        }
        let mut runs = Vec::new();
        let mut cursor = None;
        for _ in 0..PAGES_MAX {
            let page = self.list(PAGE, cursor.as_deref()).await?;
            runs.extend(page.runs.into_iter().map(|run| run.id));
            cursor = page.cursor;
            if cursor.is_none() {
                break;
            }
        }
        matching(text, &runs)
    }
}

fn matching(text: &str, runs: &[RunId]) -> Result<RunId, PickError> {
    let wanted = text.strip_prefix(RunId::PREFIX).unwrap_or(text);
    let begins = |run: &&RunId| run.as_str().strip_prefix(RunId::PREFIX).is_some_and(|rest| !wanted.is_empty() && rest.starts_with(wanted));
    let found: Vec<&RunId> = runs.iter().filter(begins).collect();
    match found.as_slice() {
        [] => Err(PickError::Nothing(text.to_owned())),
        [one] => Ok((*one).clone()),
        [first, second, ..] => {
            let (first, second) = ((*first).clone(), (*second).clone());
            Err(PickError::Several { text: text.to_owned(), count: found.len(), first, second })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(begin: &str) -> RunId {
        format!("run_{begin:0<24}").parse().unwrap()
    }

    #[test]
    fn the_beginning_of_an_id_names_a_run_if_it_is_the_only_one() {
        let runs = [run("abc"), run("abd"), run("b")];
        assert_eq!(matching("abc", &runs).unwrap(), runs[0]);
        assert_eq!(matching("run_b", &runs).unwrap(), runs[2]);
        assert!(matches!(matching("ab", &runs), Err(PickError::Several { count: 2, .. })));
        for text in ["x", "", "run_"] {
            assert!(matches!(matching(text, &runs), Err(PickError::Nothing(_))), "{text}");
        }
    }
}
