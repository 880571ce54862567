//! Removes containers of agents that are gone. Each container says whose it is: a process, and when that started, as its id alone may have
//! been given to another one meanwhile.

use std::process;

use service::supervisor::chain;
use tracing::{info, warn};

use super::{CLIENT_DEADLINE, Runtime};
use crate::spool::leftovers::start_ticks;

/// The label that says which process has started a container: `<id>-<ticks>`.
pub(super) const OWNER: &str = "otto.owner";
/// The label that says for which attempt.
pub(super) const LEASE: &str = "otto.lease";

/// This process, as the label says it.
pub(super) fn owner() -> String {
    let id = process::id();
    let ticks = i32::try_from(id).ok().and_then(start_ticks).unwrap_or_default();
    format!("{id}-{ticks}")
}

/// Whether the process that a label names is there no more.
fn is_gone(owner: &str) -> bool {
    let Some((id, ticks)) = owner.split_once('-') else { return false };
    let (Ok(id), Ok(ticks)) = (id.parse::<i32>(), ticks.parse::<u64>()) else { return false };
    start_ticks(id).unwrap_or_default() != ticks
}

/// Removes what agents that are gone have left.
pub(crate) async fn remove(runtime: &Runtime) {
    let filter = format!("label={OWNER}");
    let listed = match runtime.ask("ps", &["--all", "--quiet", "--no-trunc", "--filter", &filter], CLIENT_DEADLINE).await {
        Ok(listed) => listed,
        Err(error) => return warn!(error = chain(&error), "containers that were left running cannot be listed"),
    };
    let label = format!("--format={{{{index .Config.Labels \"{OWNER}\"}}}}");
    let mut gone = Vec::new();
    for container in listed.lines() {
        // One that is gone meanwhile is nobody's.
        if runtime.ask("inspect", &["--type=container", &label, container], CLIENT_DEADLINE).await.is_ok_and(|owner| is_gone(&owner)) {
            gone.push(container);
        }
    }
    if gone.is_empty() {
        return;
    }
    info!(containers = ?gone, "removing containers of an agent that is gone");
    remove_all(runtime, &gone).await;
}

/// Removes containers with all that runs in them. One whose network others share goes after those.
pub(super) async fn remove_all(runtime: &Runtime, containers: &[&str]) {
    let mut rest = containers.to_vec();
    for _ in 0..2 {
        let mut held = Vec::new();
        for container in rest {
            if let Err(error) = runtime.ask("rm", &["--force", "--volumes", container], CLIENT_DEADLINE).await {
                let said = chain(&error);
                // It has removed itself, or is about to.
                if !said.contains("no such container") && !said.contains("No such container") && !said.contains("already in progress") {
                    held.push((container, said));
                }
            }
        }
        if held.is_empty() {
            return;
        }
        rest = held.iter().map(|(container, _)| *container).collect();
        for (container, said) in held {
            warn!(container, said, "a container cannot be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_known_to_be_gone_is_gone() {
        assert!(!is_gone(&owner()));
        assert!(is_gone(&format!("{}-1", process::id())), "another process had this id");
        assert!(is_gone("2147483000-5"));
        assert!(!is_gone("nobody") && !is_gone("x-1"));
    }
}
