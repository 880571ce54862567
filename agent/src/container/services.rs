//! A service: started in the network of the steps' container or of its first neighbour, and ready by its command, or by its open port.

use std::{fs, process::Stdio, time::Duration};

use model::plan::Service;
use service::supervisor::chain;
use tokio::time::{Instant, sleep};

use super::{
    CLIENT_DEADLINE, Runtime, SAID_BYTES_MAX,
    place::{PlaceError, common},
};

/// How long a service may take until it is ready: a database that makes its files first takes some ten seconds.
const READY_DEADLINE: Duration = Duration::from_mins(2);
/// Between two looks whether it is.
const READY_PAUSE: Duration = Duration::from_millis(200);
/// How long its own command may take to say so.
const READY_ANSWER: Duration = Duration::from_secs(10);
/// A socket that listens, in the kernel's table (`man 5 proc_pid_net`).
const LISTENS: &str = "0A";

/// Where a service runs.
#[derive(Debug, Clone, Copy)]
pub(super) enum Network<'a> {
    /// In that of this container.
    Of(&'a str),
    /// In one of its own, in which these will be as well.
    Own(&'a [Service]),
}

/// Starts a service, and waits until it is ready.
pub(super) async fn start(runtime: &Runtime, service: &Service, name: &str, network: Network<'_>, mark: &str) -> Result<(), PlaceError> {
    let mut arguments = common(runtime, name, mark);
    arguments.push("--detach".to_owned());
    match network {
        Network::Of(container) => {
            // What an operator says of networks is said for the first one.
            arguments.retain(|argument| !argument.starts_with("--network") && !argument.starts_with("--add-host"));
            arguments.push(format!("--network=container:{container}"));
        }
        Network::Own(services) => arguments.extend(services.iter().map(|service| format!("--add-host={}:127.0.0.1", service.name))),
    }
    for (key, value) in &service.environment {
        arguments.extend(value.as_text().map(|text| format!("--env={key}={text}")));
    }
    arguments.push(service.image.as_text().unwrap_or_default().to_owned());
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let failed = |what: String| (service.name.clone(), what);
    let problem = match runtime.ask("run", &arguments, CLIENT_DEADLINE).await {
        Err(error) => Some(failed(format!("does not start: {}", chain(&error)))),
        Ok(_) => ready(runtime, service, name).await.err().map(failed),
    };
    match problem {
        None => Ok(()),
        Some((named, what)) => Err(PlaceError::Service { name: named, what, log: log(runtime, name).await }),
    }
}

/// Returns when it is ready; an error says why it will not be.
async fn ready(runtime: &Runtime, service: &Service, name: &str) -> Result<(), String> {
    let deadline = Instant::now() + READY_DEADLINE;
    loop {
        let state =
            runtime.ask("inspect", &["--format={{.State.Running}} {{.State.Pid}} {{.State.ExitCode}}", name], CLIENT_DEADLINE).await;
        let state = state.map_err(|error| chain(&error))?;
        let mut words = state.split_whitespace();
        let (runs, process, code) = (words.next(), words.next().unwrap_or_default(), words.next().unwrap_or_default());
        if runs != Some("true") {
            return Err(format!("has ended with {code} before it was ready"));
        }
        let is_ready = match (&service.ready, service.port) {
            (Some(command), _) => runtime.ask("exec", &[name, "/bin/sh", "-c", command], READY_ANSWER).await.is_ok(),
            (None, Some(port)) => listens(process, port),
            (None, None) => true,
        };
        if is_ready {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let what =
                service.ready.as_ref().map_or_else(|| "port is not open".to_owned(), |command| format!("`{command}` does not succeed"));
            return Err(format!("is not ready after {} s: its {what}", READY_DEADLINE.as_secs()));
        }
        sleep(READY_PAUSE).await;
    }
}

/// Whether something listens on a port of the network of a process: asked of the kernel, as an image need not have a tool for it.
fn listens(process: &str, port: u16) -> bool {
    let port = format!(":{port:04X}");
    ["tcp", "tcp6"].iter().any(|kind| {
        let table = fs::read_to_string(format!("/proc/{process}/net/{kind}")).unwrap_or_default();
        table.lines().skip(1).any(|line| {
            let mut words = line.split_whitespace().skip(1);
            words.next().is_some_and(|local| local.ends_with(&port)) && words.nth(1) == Some(LISTENS)
        })
    })
}

/// The end of what it has said, on both streams.
async fn log(runtime: &Runtime, name: &str) -> Vec<u8> {
    let mut client = runtime.command("logs");
    client.args(["--tail=100", name]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(Ok(output)) = tokio::time::timeout(CLIENT_DEADLINE, client.output()).await else { return Vec::new() };
    let said = if output.status.success() { [output.stdout, output.stderr].concat() } else { Vec::new() };
    let from = said.len().saturating_sub(SAID_BYTES_MAX);
    said.get(from..).unwrap_or_default().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_open_when_somebody_listens() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(listens("self", port));
        drop(listener);
        assert!(!listens("self", port));
    }
}
