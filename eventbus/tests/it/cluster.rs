//! A bus of three servers: streams are on as many of them as is demanded, and one that is away is told and hinders nothing.

use std::{fs, num::NonZeroUsize, path::Path, sync::Arc};

use async_nats::{ConnectOptions, jetstream};
use eventbus::{
    nats::{
        Enrolment, Identity, Keys, NatsOptions, connect,
        setup::{Progress, Servers, Setup, SetupError},
    },
    subject::Role,
};
use testkit::{NatsCluster, TEST_DEADLINE, wait_for};

use crate::buses::{bytes, run};

fn options(cluster: &NatsCluster, keys: &Path, role: Role) -> NatsOptions {
    let file = Keys::open(keys).unwrap().service_credentials_file(role);
    NatsOptions { urls: cluster.urls(), credentials: fs::read_to_string(file).unwrap(), identity: Identity::Service(role) }
}

async fn setup(cluster: &NatsCluster, keys: &Path, replicas: usize) -> Setup {
    let servers = Servers { monitors: cluster.monitors(), replicas: NonZeroUsize::new(replicas) };
    let enrolment = Arc::new(Enrolment::open(&keys.join("enrolment")).unwrap());
    Setup::connect(&options(cluster, keys, Role::Eventbus), servers, enrolment).await.unwrap()
}

/// On how many servers the streams are.
async fn replicas(cluster: &NatsCluster, keys: &Path) -> Vec<usize> {
    infos(cluster, keys).await.iter().map(|info| info.config.num_replicas).collect()
}

/// Whether all servers have all of the streams.
async fn are_whole(cluster: &NatsCluster, keys: &Path) -> bool {
    let infos = infos(cluster, keys).await;
    infos.iter().all(|info| {
        info.cluster.as_ref().is_some_and(|cluster| cluster.replicas.len() == 2 && cluster.replicas.iter().all(|copy| copy.current))
    })
}

async fn infos(cluster: &NatsCluster, keys: &Path) -> Vec<jetstream::stream::Info> {
    let options = options(cluster, keys, Role::Eventbus);
    let connect = ConnectOptions::with_credentials(&options.credentials)
        .unwrap()
        .custom_inbox_prefix(options.identity.inbox_prefix())
        .connect(options.urls);
    let jetstream = jetstream::new(connect.await.unwrap());
    let mut found = Vec::new();
    for stream in ["RUNS", "TRIGGERS"] {
        found.push(jetstream.get_stream(stream).await.unwrap().cached_info().clone());
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_are_kept_on_as_many_servers_as_is_demanded_also_while_one_is_away() {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path();
    let mut cluster = NatsCluster::start(keys, 3).await;
    setup(&cluster, keys, 0).await.begin().await.unwrap();
    assert_eq!(replicas(&cluster, keys).await, [1, 1], "nobody demands more");
    let demanding = setup(&cluster, keys, 3).await;
    demanding.begin().await.unwrap();
    assert_eq!(replicas(&cluster, keys).await, [3, 3]);
    setup(&cluster, keys, 0).await.begin().await.unwrap();
    assert_eq!(replicas(&cluster, keys).await, [3, 3], "they stay as they are");

    let orchestrator = connect(&options(&cluster, keys, Role::Orchestrator)).await.unwrap();
    let first = orchestrator.append(&run("1"), 0, bytes("a")).await.unwrap();
    // Copies that were asked for a moment ago are being made: until they are whole, only the leader has everything.
    wait_for(2 * TEST_DEADLINE, "the copies to be whole", async || are_whole(&cluster, keys).await.then_some(())).await;
    let leader = cluster.leader_of("RUNS").await;
    cluster.kill(&leader);
    // Its connection may be gone with it, and another server leads. One whose answer was lost may be stored: then the log says so.
    let stored = async || orchestrator.run_log(&run("1")).await.ok()?.last().map(|record| record.sequence).filter(|last| *last > first);
    let appended = async || match orchestrator.append(&run("1"), first, bytes("b")).await {
        Ok(sequence) => Some(sequence),
        Err(_) => stored().await,
    };
    let second = wait_for(2 * TEST_DEADLINE, "an append", appended).await;
    assert_eq!(orchestrator.run_log(&run("1")).await.unwrap().last().unwrap().sequence, second);
    let away = wait_for(TEST_DEADLINE, "only the server that is away to be told", async || match demanding.check().await {
        Err(error @ SetupError::Monitor { .. }) => Some(error),
        Ok(()) | Err(_) => None,
    });
    assert!(away.await.is_passing());
    demanding.symptoms(&mut Progress::default()).await.unwrap();
    cluster.start_again(&leader).await;
    wait_for(2 * TEST_DEADLINE, "all to be well", async || demanding.check().await.ok()).await;
}
