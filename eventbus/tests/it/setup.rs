//! The server is refused, or set up and kept as it must be.

use async_nats::{ConnectOptions, jetstream};
use eventbus::{
    AppendError, BusError,
    nats::{Identity, Keys, setup::SetupError},
    role,
    subject::Role,
};
use model::{AgentClass, protocol::enrolment::AgentTrust};
use service::{Supervisor, supervisor::Ended};
use testkit::{NatsServer, TEST_DEADLINE};
use tokio::time::timeout;

use crate::{
    buses::{agent, bytes, run, trigger},
    office::options,
};

/// What the eventbus service could do without its own code.
async fn bare_hands(server: &NatsServer) -> jetstream::Context {
    let options = server.options(Identity::Service(Role::Eventbus));
    let connect = ConnectOptions::with_credentials(&options.credentials)
        .unwrap()
        .custom_inbox_prefix(options.identity.inbox_prefix())
        .connect(options.urls);
    jetstream::new(connect.await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_role_sets_a_fresh_server_up_and_ends_in_order() {
    let server = NatsServer::start_bare(|config| config).await;
    let orchestrator = server.bus(Role::Orchestrator).await;
    let supervisor = Supervisor::new();
    let (run, record) = (run("1"), bytes("a"));
    // Who comes before the streams are there waits for them.
    let (set_up, appended) = tokio::join!(role::run(options(&server), &supervisor), orchestrator.append(&run, 0, record));
    set_up.unwrap();
    assert_eq!(appended.unwrap(), 1);
    assert_eq!(supervisor.shut_down().await, Ended::InOrder);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_was_deleted_is_made_again_and_found_again() {
    let server = NatsServer::start().await;
    let (orchestrator, forge) = (server.bus(Role::Orchestrator).await, server.bus(Role::Forge).await);
    let mut triggers = orchestrator.triggers().await.unwrap();
    forge.store_trigger(&trigger("1")).await.unwrap();
    timeout(TEST_DEADLINE, triggers.next()).await.unwrap().unwrap().done().await.unwrap();

    // None of Otto's keys may delete it; an operator can make one that may.
    let operator = ConnectOptions::with_credentials(&server.unguarded()).unwrap().connect(server.url()).await.unwrap();
    jetstream::new(operator).delete_consumer_from_stream("orchestrator", "TRIGGERS").await.unwrap();
    server.setup().await.check().await.unwrap();
    forge.store_trigger(&trigger("2")).await.unwrap();
    // The new consumer begins with the oldest trigger that is remembered.
    for delivery in ["1", "2"] {
        let next = timeout(TEST_DEADLINE, triggers.next()).await.unwrap().unwrap();
        assert_eq!(next.trigger.as_ref().unwrap().id, trigger(delivery).id);
        next.done().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_acknowledges_before_the_disk_is_refused() {
    let server = NatsServer::start_bare(|config| config.replace("\"always\"", "\"2m\"")).await;
    let refused = server.setup().await.begin().await;
    assert!(matches!(refused, Err(SetupError::NotSynced)), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_monitor_of_another_server_is_refused() {
    let (one, other) = (NatsServer::start_bare(|config| config).await, NatsServer::start_bare(|config| config).await);
    let options = one.options(Identity::Service(Role::Eventbus));
    let setup = eventbus::nats::setup::Setup::connect(&options, other.monitor(), one.enrolment().into()).await.unwrap();
    assert!(matches!(setup.begin().await, Err(SetupError::OtherServer { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_was_changed_is_mended() {
    let server = NatsServer::start().await;
    let jetstream = bare_hands(&server).await;
    let as_it_was = jetstream.get_stream("RUNS").await.unwrap().cached_info().config.clone();
    assert!(as_it_was.deny_delete && as_it_was.allow_rollup && as_it_was.discard == jetstream::stream::DiscardPolicy::New);

    let changed = jetstream::stream::Config { max_bytes: 1024, max_messages: 5, ..as_it_was.clone() };
    jetstream.update_stream(&changed).await.unwrap();
    server.setup().await.check().await.unwrap();
    assert_eq!(jetstream.get_stream("RUNS").await.unwrap().cached_info().config, as_it_was);
    server.setup().await.check().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_let_no_log_be_rolled_up_does_after_it_was_looked_at() {
    let server = NatsServer::start().await;
    let jetstream = bare_hands(&server).await;
    let as_it_was = jetstream.get_stream("RUNS").await.unwrap().cached_info().config.clone();
    let older = jetstream::stream::Config { allow_rollup: false, ..as_it_was.clone() };
    jetstream.update_stream(&older).await.unwrap();
    let orchestrator = server.bus(Role::Orchestrator).await;
    let first = orchestrator.append(&run("1"), 0, bytes("a")).await.unwrap();
    let refused = orchestrator.append_instead(&run("1"), first, bytes("b")).await;
    assert!(matches!(refused, Err(AppendError::Bus(BusError::Refused { .. }))), "{refused:?}");
    server.setup().await.check().await.unwrap();
    assert_eq!(jetstream.get_stream("RUNS").await.unwrap().cached_info().config, as_it_was);
    orchestrator.append_instead(&run("1"), first, bytes("b")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_denies_purges_for_ever_is_left_so_and_keeps_every_record() {
    let server = NatsServer::start().await;
    let jetstream = bare_hands(&server).await;
    let as_it_was = jetstream.get_stream("RUNS").await.unwrap().cached_info().config.clone();
    // As an older Otto made it. The server does not let it be taken back.
    let older = jetstream::stream::Config { allow_rollup: false, deny_purge: true, ..as_it_was };
    jetstream.update_stream(&older).await.unwrap();
    server.setup().await.check().await.unwrap();
    let orchestrator = server.bus(Role::Orchestrator).await;
    let first = orchestrator.append(&run("1"), 0, bytes("a")).await.unwrap();
    let refused = orchestrator.append_instead(&run("1"), first, bytes("b")).await;
    assert!(matches!(refused, Err(AppendError::Bus(BusError::Refused { .. }))), "{refused:?}");
    orchestrator.append(&run("1"), first, bytes("b")).await.unwrap();
    assert_eq!(orchestrator.run_log(&run("1")).await.unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_key_is_refused_at_once() {
    let server = NatsServer::start().await;
    let mut options = server.options(Identity::Service(Role::Forge));
    let elsewhere = tempfile::tempdir().unwrap();
    let strangers = Keys::open(elsewhere.path()).unwrap();
    options.credentials = std::fs::read_to_string(strangers.service_credentials_file(Role::Forge)).unwrap();
    let refused = eventbus::nats::connect(&options).await;
    assert!(matches!(refused, Err(eventbus::BusError::Refused { .. })), "{refused:?}");
}

#[test]
fn keys_are_for_their_owners_eyes_and_stay_the_same() {
    use std::{collections::BTreeMap, os::unix::fs::PermissionsExt as _, path::Path};
    fn files(folder: &Path, found: &mut BTreeMap<String, String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
            if path.is_dir() {
                assert_eq!(mode, 0o700, "{}", path.display());
                files(&path, found);
            } else if !path.ends_with("lock") {
                assert_eq!(mode, 0o600, "{}", path.display());
                found.insert(path.display().to_string(), std::fs::read_to_string(&path).unwrap());
            }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("keys");
    let look = || {
        let keys = Keys::open(&inner).unwrap();
        keys.enrol(&agent("a1"), &AgentClass::default(), AgentTrust::Trusted).unwrap();
        let mut found = BTreeMap::new();
        files(&inner, &mut found);
        found
    };
    let first = look();
    assert!(first.len() > 15, "{:?}", first.keys());
    assert_eq!(look(), first);
}

#[test]
fn another_table_of_subjects_changes_what_is_said_of_a_key_and_not_the_key() {
    let folder = tempfile::tempdir().unwrap();
    let keys = Keys::open(folder.path()).unwrap();
    let file = keys.service_credentials_file(Role::Forge);
    let (before, system) = (std::fs::read_to_string(&file).unwrap(), keys.enrolment().system_credentials_file());
    let seed = |text: &str| text.split_once("USER NKEY SEED").unwrap().1.to_owned();
    // The JWT of another user says something else.
    let jwt = |text: &str| text.split_once("USER NKEY SEED").unwrap().0.to_owned();
    let outdated = jwt(&std::fs::read_to_string(system).unwrap()) + "USER NKEY SEED" + &seed(&before);
    std::fs::write(&file, &outdated).unwrap();
    Keys::open(folder.path()).unwrap();
    let after = std::fs::read_to_string(&file).unwrap();
    assert_eq!(seed(&after), seed(&before));
    assert_ne!(jwt(&after), jwt(&outdated));
}
