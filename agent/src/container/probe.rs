//! What works here: each client is told to run the smallest program there is, in an image made of it, with the arguments that are known to
//! help where containers are nested in others.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use model::plan::Value;
use tokio::{io::AsyncWriteExt as _, process::Command, time::timeout};

use super::{CLIENT_DEADLINE, CLIENTS, ClientError, Runtime, image, last_of};

/// Arguments that are tried, the plainest first: where the agent itself is in a container, crun may fail, and the usual limits of files and
/// processes cannot be raised.
const ARGUMENTS: [(&[&str], &[&str]); 3] = [
    (&[], &[]),
    (&[], &["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"]),
    (&["--runtime=runc"], &["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"]),
];

/// How long one client may take for all that it is tried with. An agent begins without containers rather than later.
const PROBE_DEADLINE: Duration = Duration::from_secs(15);

/// What an operator says of containers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerOptions {
    /// The client, with arguments that go before its command: `podman --runtime runc`. Empty: podman, then docker, as they are found.
    pub client: Vec<String>,
    /// Arguments for each container: `--ulimit=nofile=1024:1024`.
    pub run: Vec<String>,
}

/// What runs the containers of an agent's stages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Containers {
    /// Nothing.
    #[default]
    None,
    /// This, which was tried.
    Found(Runtime),
    /// What the agent finds when it works already: that takes seconds on a busy machine.
    Search(ContainerOptions),
}

/// Why no containers run here: each thing that was tried, and why it does not work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct Unusable(pub Vec<String>);

impl Runtime {
    /// What an agent with it says of itself.
    pub fn facts(&self) -> BTreeMap<String, Value> {
        BTreeMap::from([
            (model::plan::CONTAINERS.to_owned(), Value::Boolean(true)),
            ("container".to_owned(), Value::Text(self.name.clone())),
        ])
    }
}

/// The first runtime that runs a container.
pub async fn probe(options: &ContainerOptions) -> Result<Runtime, Unusable> {
    let clients: Vec<Vec<String>> = if options.client.is_empty() {
        CLIENTS.iter().map(|client| vec![(*client).to_owned()]).collect()
    } else {
        vec![options.client.clone()]
    };
    let mut reasons = Vec::new();
    for client in clients {
        let Some((program, global)) = client.split_first() else { continue };
        match timeout(PROBE_DEADLINE, of_client(program, global, options)).await {
            Ok(Ok(runtime)) => return Ok(runtime),
            Ok(Err(reason)) => reasons.push(format!("{program}: {reason}")),
            Err(_) => reasons.push(format!("{program}: it has not answered after {} s", PROBE_DEADLINE.as_secs())),
        }
    }
    Err(Unusable(reasons))
}

async fn of_client(program: &str, global: &[String], options: &ContainerOptions) -> Result<Runtime, String> {
    let mut runtime = Runtime { program: PathBuf::from(program), global: global.to_vec(), run: options.run.clone(), name: String::new() };
    let version = runtime.ask("version", &["--format", "{{.Client.Version}}"], CLIENT_DEADLINE).await;
    runtime.name = match version {
        Ok(version) => format!("{program} {version}"),
        Err(ClientError::Start { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            return Err("it is not installed".to_owned());
        }
        Err(error) => return Err(service::supervisor::chain(&error)),
    };
    let image = import(&runtime).await?;
    let tried: &[_] = if options.client.len() > 1 || !options.run.is_empty() { &ARGUMENTS[..1] } else { &ARGUMENTS };
    let mut reason = String::new();
    for (before, each) in tried {
        let tried = Runtime {
            global: runtime.global.iter().cloned().chain(before.iter().map(ToString::to_string)).collect(),
            run: runtime.run.iter().cloned().chain(each.iter().map(ToString::to_string)).collect(),
            ..runtime.clone()
        };
        let arguments: Vec<&str> = ["--rm", "--network=none"].into_iter().chain(tried.run.iter().map(String::as_str)).collect();
        match tried.ask("run", &[arguments.as_slice(), &[&image, image::PROGRAM]].concat(), CLIENT_DEADLINE).await {
            Ok(_) => return Ok(tried),
            Err(error) => reason = service::supervisor::chain(&error),
        }
    }
    Err(reason)
}

/// Makes the image, and gives its reference.
async fn import(runtime: &Runtime) -> Result<String, String> {
    let archive = image::archive().ok_or("this architecture has no program to try it with")?;
    let mut client: Command = runtime.command("import");
    client
        .args(["-", image::NAME])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped());
    let mut child = client.spawn().map_err(|error| error.to_string())?;
    let mut stdin = child.stdin.take().expect("it is piped");
    let work = async move {
        // A client that does not read says why it ended.
        let _ended = stdin.write_all(&archive).await;
        drop(stdin);
        child.wait_with_output().await
    };
    let output =
        timeout(CLIENT_DEADLINE, work).await.map_err(|_| "it does not come to an end".to_owned())?.map_err(|error| error.to_string())?;
    if output.status.success() { Ok(image::NAME.to_owned()) } else { Err(last_of(&output.stderr)) }
}
