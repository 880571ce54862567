//! A bare repository with a hook, a clone to push from, and a forge.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use blob::{Blobs, DiskStore, Durability};
use eventbus::{Bus, Subject};
use forge::{
    Clock, ForgeOptions, StartError,
    delivery::{Answer, Delivery, Update},
    hook,
};
use model::{
    TriggerId,
    context::EventKind,
    planning::{Text, TriggerRule, TriggersReply, TriggersRequest},
    trigger::Trigger,
};
use service::{OnError, Supervisor, supervisor::Ended};
use tokio::sync::watch;

/// How long a condition may take to come true.
const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) struct World {
    folder: tempfile::TempDir,
    pub(crate) bus: Bus,
    pub(crate) blobs: Blobs,
    supervisor: Supervisor,
    /// Of what stands for other services, and outlives a forge.
    others: Supervisor,
    pub(crate) address: SocketAddr,
    /// Milliseconds since 1970 that the forge is shown; it stands still.
    pub(crate) clock: watch::Sender<u64>,
    /// How often [`World::triggers`] was called.
    calls: AtomicU32,
}

impl World {
    /// A repository `shop.git` that is the project `shop`, and an empty clone. No forge runs yet, but its address is known.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::Disk(DiskStore::open(&folder.path().join("blobs"), Durability::None).unwrap());
        let address = free_address();
        let (bus, clock) = (eventbus::memory::bus(), watch::Sender::new(0));
        let world =
            Self { bus, blobs, supervisor: Supervisor::new(), others: Supervisor::new(), address, folder, clock, calls: AtomicU32::new(0) };
        world.git(Path::new("/"), &["init", "--quiet", "--bare", world.repository().to_str().unwrap()]);
        world.git(Path::new("/"), &["init", "--quiet", "--initial-branch=main", world.clone().to_str().unwrap()]);
        // Stands for `otto hook post-receive`, which reads the same standard input in the same folder.
        let otto = world.path("otto's");
        fs::write(&otto, "#!/bin/sh\n[ \"$1 $2\" = 'hook post-receive' ] && cat > pushed\n").unwrap();
        fs::set_permissions(&otto, fs::Permissions::from_mode(0o755)).unwrap();
        hook::install(&world.repository(), &format!("http://{address}"), &otto).unwrap();
        fs::create_dir(world.path("projects")).unwrap();
        world.add_project("shop", "");
        world
    }

    /// The same with a forge that runs.
    pub(crate) async fn with_forge() -> Self {
        let world = Self::new();
        world.start().await;
        world
    }

    pub(crate) async fn start(&self) {
        assert_eq!(self.try_start().await.unwrap(), self.address);
    }

    pub(crate) async fn try_start(&self) -> Result<SocketAddr, StartError> {
        self.start_at(self.address, "data").await
    }

    /// Starts a forge, maybe one more, with this folder for its data.
    pub(crate) async fn start_at(&self, listen: SocketAddr, data: &str) -> Result<SocketAddr, StartError> {
        let clock = Clock::shown(&self.clock);
        let public = Some("https://otto.example.org/".to_owned());
        let options = ForgeOptions {
            listen,
            projects: self.path("projects"),
            data: self.path(data),
            clock,
            public,
            tokens: Some(self.path("tokens.yml")),
        };
        forge::run(options, self.bus.clone(), self.blobs.clone(), &self.supervisor).await
    }

    /// Stands for the parser: every line of a pipeline that begins with `cron` is one.
    pub(crate) async fn play_parser(&self) {
        let mut requests = self.bus.subscribe(Subject::triggers()).await.unwrap();
        let token = self.others.token().clone();
        self.others.spawn("the parser", OnError::Shutdown, async move {
            while let Some(Some(message)) = token.run_until_cancelled(requests.next()).await {
                let request: TriggersRequest = message.read()?;
                let Text::Inline(source) = request.source else { panic!("it is small") };
                let rule = |line: &str| TriggerRule {
                    event: EventKind::Cron,
                    branches: vec![],
                    tags: vec![],
                    paths: vec![],
                    cron: line.to_owned(),
                };
                let rules = source.lines().filter_map(|line| line.strip_prefix("cron ")).map(rule).collect();
                message.reply(&TriggersReply::Read { rules }).await?;
            }
            Ok(())
        });
    }

    pub(crate) async fn end(self) {
        assert_eq!(self.supervisor.shut_down().await, Ended::InOrder);
        assert_eq!(self.others.shut_down().await, Ended::InOrder);
        let mut entries = fs::read_dir(self.path("data")).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(entries.all(|name| ["mirrors", "cron", "statuses"].iter().any(|known| name == *known)), "no archive is left over");
    }

    /// Ends the forge and starts another one on the same folders.
    pub(crate) async fn restart(&mut self) {
        assert_eq!(self.supervisor.shut_down().await, Ended::InOrder);
        self.supervisor = Supervisor::new();
        self.start().await;
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join(name)
    }

    pub(crate) fn repository(&self) -> PathBuf {
        self.path("shop.git")
    }

    pub(crate) fn clone(&self) -> PathBuf {
        self.path("clone")
    }

    pub(crate) fn add_project(&self, name: &str, more: &str) {
        let text = format!("source: {{ url: {} }}\n{more}", self.repository().display());
        fs::write(self.path("projects").join(format!("{name}.yml")), text).unwrap();
    }

    /// Runs git with an identity of its own and nobody's configuration, and gives what it prints.
    pub(crate) fn git(&self, folder: &Path, arguments: &[&str]) -> String {
        let output = self.try_git(folder, arguments, b"");
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    pub(crate) fn try_git(&self, folder: &Path, arguments: &[&str], input: &[u8]) -> Output {
        let stdin = self.path("stdin");
        fs::write(&stdin, input).unwrap();
        Command::new("git")
            .args(arguments)
            .current_dir(folder)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.folder.path())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .envs(["AUTHOR", "COMMITTER"].map(|who| (format!("GIT_{who}_NAME"), "Otto")))
            .envs(["AUTHOR", "COMMITTER"].map(|who| (format!("GIT_{who}_EMAIL"), "otto@example.org")))
            .stdin(fs::File::open(&stdin).unwrap())
            .output()
            .unwrap()
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.clone().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Commits all of the clone's files, and gives the commit.
    pub(crate) fn commit(&self) -> String {
        self.git(&self.clone(), &["add", "--all"]);
        self.git(&self.clone(), &["commit", "--quiet", "--allow-empty", "--message=a change"]);
        self.git(&self.clone(), &["rev-parse", "HEAD"])
    }

    /// Pushes, has the hook do its work, and gives its lines.
    pub(crate) async fn push(&self, refs: &[&str]) -> Vec<String> {
        let repository = self.repository();
        let mut arguments = vec!["push", "--quiet", repository.to_str().unwrap()];
        arguments.extend(refs);
        self.git(&self.clone(), &arguments);
        let pushed = fs::File::open(repository.join("pushed")).expect("the hook was run by git");
        hook::post_receive(&repository, pushed).await.unwrap()
    }

    /// A delivery of one update.
    pub(crate) fn delivery(&self, id: &str, name: &str, new: &str) -> Delivery {
        let update = Update { old: "0".repeat(40), new: new.to_owned(), name: name.to_owned() };
        Delivery { repository: self.repository().to_str().unwrap().to_owned(), delivery: id.parse().unwrap(), updates: vec![update] }
    }

    pub(crate) fn secret(&self) -> String {
        let config = fs::read(self.repository().join("otto/hook.json")).unwrap();
        serde_json::from_slice::<serde_json::Value>(&config).unwrap()["secret"].as_str().unwrap().to_owned()
    }

    pub(crate) fn request(&self, body: String) -> reqwest::RequestBuilder {
        let url = format!("http://{}{}", self.address, forge::HOOK_PATH);
        testkit::http_client().post(url).header("content-type", "application/json").bearer_auth(self.secret()).body(body)
    }

    /// A webhook for a project, with these headers besides the content type.
    pub(crate) async fn webhook(&self, project: &str, headers: &[(&str, &str)], body: impl Into<reqwest::Body>) -> reqwest::Response {
        let url = format!("http://{}{}/{project}", self.address, forge::WEBHOOK_PATH);
        let request = testkit::http_client().post(url).header("content-type", "application/json").header("host", "otto.example.org");
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).body(body).send().await.unwrap()
    }

    pub(crate) async fn deliver(&self, delivery: &Delivery) -> Answer {
        let response = self.request(serde_json::to_string(delivery).unwrap()).send().await.unwrap();
        assert_eq!(response.status(), 202);
        response.json().await.unwrap()
    }

    /// The triggers that came onto the bus since the last call.
    pub(crate) async fn triggers(&self) -> Vec<Trigger> {
        let id = TriggerId::of("tests", &self.calls.fetch_add(1, Ordering::Relaxed).to_string());
        let last = Trigger::new(id, "last".parse().unwrap(), "", Text::Inline(String::new()));
        self.bus.store_trigger(&last).await.unwrap();
        let mut stored = self.bus.triggers().await.unwrap();
        let mut triggers = Vec::new();
        loop {
            let delivery = stored.next().await.unwrap();
            let trigger = delivery.trigger.as_ref().unwrap().clone();
            delivery.done().await.unwrap();
            if trigger == last {
                return triggers;
            }
            triggers.push(trigger);
        }
    }

    /// The names of the files in one of the folders beside the repository.
    pub(crate) fn deliveries(&self, folder: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.repository().join("otto").join(folder)) else { return Vec::new() };
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

/// An address that stays free while no forge has it: below the ports that the system gives to connections (32768 and up on Linux).
fn free_address() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let ports = 12_000;
    let first = std::process::id().wrapping_mul(97);
    let addresses = (0..ports).map(|_| {
        let port = 20_000 + first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % ports;
        SocketAddr::from(([127, 0, 0, 1], u16::try_from(port).unwrap()))
    });
    addresses.into_iter().find(|address| std::net::TcpListener::bind(address).is_ok()).expect("some port is free")
}

pub(crate) async fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    testkit::wait_for(DEADLINE, what, async || condition().then_some(())).await;
}
