//! Through the client that every role uses, and past it.

use std::{
    collections::BTreeSet,
    fs,
    io::{Seek as _, SeekFrom, Write as _},
    net::SocketAddr,
    path::Path,
    time::Duration,
};

use blob::{
    BlobError, Blobs, DepotClient, Removed,
    token::{Claims, Read, Signer},
};
use bytes::Bytes;
use depot::{DepotOptions, Problem};
use model::{Digest, Timestamp};
use reqwest::{StatusCode, header};
use service::{Supervisor, supervisor::Ended};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// How long a condition may take to come true.
const DEADLINE: Duration = Duration::from_secs(20);

struct Running {
    folder: tempfile::TempDir,
    signer: Signer,
    address: SocketAddr,
    supervisor: Supervisor,
}

impl Running {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let signer = Signer::generate().unwrap();
        let supervisor = Supervisor::new();
        let listen = "127.0.0.1:0".parse().unwrap();
        let options =
            DepotOptions { listen, data: folder.path().join("data"), verifier: signer.verifier(), host: Some("depot.test".to_owned()) };
        let address = depot::run(options, &supervisor).await.unwrap();
        Self { folder, signer, address, supervisor }
    }

    fn token(&self, read: Read, write: bool) -> String {
        let expires_at = Timestamp(service::clock::unix_ms()) + Duration::from_mins(1);
        self.signer.mint(&Claims { holder: "tests".to_owned(), read, write, expires_at })
    }

    fn client(&self, token: &str) -> DepotClient {
        DepotClient::new(&format!("http://{}", self.address), token).unwrap()
    }

    fn everything(&self) -> DepotClient {
        self.client(&self.token(Read::All, true))
    }

    fn url(&self, digest: &Digest) -> String {
        format!("http://{}/v1/blobs/{digest}", self.address)
    }

    /// How many files the store has, whole or not.
    fn files(&self) -> usize {
        fn count(folder: &Path) -> usize {
            let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
            entries.map(|path| if path.is_dir() { count(&path) } else { usize::from(path.file_name().unwrap() != "lock") }).sum()
        }
        count(&self.folder.path().join("data"))
    }

    async fn end(self) {
        assert_eq!(self.supervisor.shut_down().await, Ended::InOrder);
    }
}

async fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    testkit::wait_for(DEADLINE, what, async || condition().then_some(())).await;
}

async fn problem(response: reqwest::Response) -> Problem {
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
    let status = response.status();
    let problem: Problem = response.json().await.unwrap();
    assert_eq!(problem.status, status.as_u16());
    problem
}

#[tokio::test]
async fn what_is_put_is_got_again() {
    let depot = Running::start().await;
    let client = depot.everything();
    for bytes in [Bytes::new(), Bytes::from_static(b"abc"), Bytes::from(vec![7; 1_000_000])] {
        let digest = client.put(bytes.clone()).await.unwrap();
        assert_eq!(digest, Digest::of(&bytes));
        assert_eq!(client.get(&digest).await.unwrap(), bytes);
        assert!(client.has(&digest).await.unwrap());
    }
    assert_eq!(depot.files(), 3);
    depot.end().await;
}

#[tokio::test]
async fn what_nobody_uses_is_removed_for_services_alone() {
    let depot = Running::start().await;
    let client = depot.everything();
    let (unused, asked) = (client.put("unused".into()).await.unwrap(), client.put("asked for".into()).await.unwrap());
    for digest in [&unused, &asked] {
        let hex = digest.hex();
        let (folder, name) = hex.split_at(2);
        let file = fs::File::open(depot.folder.path().join("data/sha256").join(folder).join(name)).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
    }
    for token in [depot.token(Read::Only(BTreeSet::from([unused])), true), depot.token(Read::All, false)] {
        let refused = depot.client(&token).remove_unused().await.unwrap_err();
        assert!(refused.to_string().contains("does not allow it to remove bytes"), "{refused}");
    }
    assert!(client.has(&asked).await.unwrap());
    assert_eq!(client.remove_unused().await.unwrap(), Removed { blobs: 1, bytes: 6 });
    assert!(client.has(&asked).await.unwrap() && !client.has(&unused).await.unwrap());
    depot.end().await;
}

#[tokio::test]
async fn what_is_missing_is_said() {
    let depot = Running::start().await;
    let (client, digest) = (depot.everything(), Digest::of(b"abc"));
    let copy = depot.folder.path().join("copy");
    assert!(!client.has(&digest).await.unwrap());
    assert!(matches!(client.get(&digest).await, Err(BlobError::Missing(missing)) if missing == digest));
    assert!(matches!(client.get_file(&digest, &copy).await, Err(BlobError::Missing(_))));
    assert!(!copy.exists());
    depot.end().await;
}

#[tokio::test]
async fn a_body_under_a_wrong_digest_is_refused_and_not_stored() {
    let depot = Running::start().await;
    let digest = Digest::of(b"abc");
    let request = testkit::http_client().put(depot.url(&digest)).bearer_auth(depot.token(Read::All, true)).body("abd");
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let problem = problem(response).await;
    assert_eq!((problem.code.as_str(), problem.actual), ("blob_differs", Some(Digest::of(b"abd"))));
    assert_eq!(depot.files(), 0);
    depot.end().await;
}

#[tokio::test]
async fn a_token_allows_what_it_says_and_nothing_else() {
    let depot = Running::start().await;
    let everything = depot.everything();
    let ours = everything.put(Bytes::from_static(b"ours")).await.unwrap();
    let theirs = everything.put(Bytes::from_static(b"theirs")).await.unwrap();
    let blobs = Blobs::Depot(everything).with_token(&depot.token(Read::Only(BTreeSet::from([ours])), false));
    assert_eq!(blobs.get(&ours).await.unwrap(), "ours");
    for denied in [theirs, Digest::of(b"nobody's")] {
        assert!(matches!(blobs.get(&denied).await, Err(BlobError::Refused { digest, .. }) if digest == denied));
        assert!(matches!(blobs.has(&denied).await, Err(BlobError::Refused { .. })), "it does not learn whether it is there");
    }
    let error = blobs.put(Bytes::from_static(b"new")).await.unwrap_err();
    assert!(matches!(&error, BlobError::Refused { reason, .. } if reason.contains("tests")), "{error}");
    assert_eq!(depot.files(), 2);
    depot.end().await;
}

#[tokio::test]
async fn a_forged_or_expired_token_is_refused_even_with_a_large_body() {
    let depot = Running::start().await;
    let claims = Claims { holder: "tests".to_owned(), read: Read::All, write: true, expires_at: Timestamp(1) };
    let expired = depot.signer.mint(&claims);
    let forged = Signer::generate().unwrap().mint(&Claims { expires_at: Timestamp(u64::MAX), ..claims });
    let body = Bytes::from(vec![1; 5 * 1024 * 1024]);
    for (token, why) in [(expired, "expired"), (forged, "signature"), ("x".to_owned(), "no token")] {
        let error = depot.client(&token).put(body.clone()).await.unwrap_err();
        assert!(matches!(&error, BlobError::Refused { reason, .. } if reason.contains(why)), "{error}");
    }
    let response = testkit::http_get(depot.url(&Digest::of(b"abc"))).await.unwrap();
    assert_eq!(response.headers()[header::WWW_AUTHENTICATE], "Bearer");
    assert_eq!(problem(response).await.code, "unauthorized");
    let health = testkit::http_get(format!("http://{}/health", depot.address)).await.unwrap();
    assert_eq!(health.status(), StatusCode::OK);
    assert_eq!(depot.files(), 0);
    depot.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_bytes_may_be_put_at_once() {
    let depot = Running::start().await;
    let client = depot.everything();
    let bytes = Bytes::from(vec![3; 300_000]);
    let digests = futures_util::future::join_all((0..20).map(|_| client.put(bytes.clone()))).await;
    assert!(digests.into_iter().all(|digest| digest.unwrap() == Digest::of(&bytes)));
    assert_eq!(depot.files(), 1);
    depot.end().await;
}

#[tokio::test]
async fn a_large_file_goes_and_comes_without_lying_in_memory() {
    const LENGTH: u64 = 50 * 1024 * 1024;
    let depot = Running::start().await;
    let client = depot.everything();
    let (file, copy) = (depot.folder.path().join("large"), depot.folder.path().join("copy"));
    // Zeros that take no room on disk, and then some other bytes.
    let mut large = fs::File::create(&file).unwrap();
    large.set_len(LENGTH).unwrap();
    large.seek(SeekFrom::End(0)).unwrap();
    large.write_all(b"end").unwrap();
    let before = peak_memory();
    let digest = client.put_file(&file).await.unwrap();
    client.get_file(&digest, &copy).await.unwrap();
    let grown = peak_memory().saturating_sub(before);
    assert!(grown < LENGTH * 2 / 3, "memory grew by {grown} bytes");
    assert_eq!(fs::metadata(&copy).unwrap().len(), LENGTH + 3);
    let error = client.get_file(&digest, &copy).await.unwrap_err();
    assert!(matches!(error, BlobError::Disk { doing: "create", .. }), "an old file is kept");
    depot.end().await;
}

/// The most memory that this process had so far, in bytes. The other tests of this process have some megabytes, too.
fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[tokio::test]
async fn an_upload_that_is_cut_off_leaves_nothing() {
    let depot = Running::start().await;
    let mut connection = TcpStream::connect(depot.address).await.unwrap();
    let token = depot.token(Read::All, true);
    let head = format!(
        "PUT /v1/blobs/{} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {token}\r\nContent-Length: 1000000\r\n\r\n",
        Digest::of(b"x"),
        depot.address
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    // More than it holds in memory.
    connection.write_all(&vec![0; 500_000]).await.unwrap();
    wait_for("the upload begins", || depot.files() == 1).await;
    drop(connection);
    wait_for("the half upload is removed", || depot.files() == 0).await;
    depot.end().await;
}

#[tokio::test]
async fn one_range_of_the_bytes_can_be_got() {
    let depot = Running::start().await;
    let digest = depot.everything().put(Bytes::from_static(b"0123456789")).await.unwrap();
    let token = depot.token(Read::All, false);
    let client = testkit::http_client();
    let get = async |range: &str| client.get(depot.url(&digest)).bearer_auth(&token).header(header::RANGE, range).send().await.unwrap();
    for (range, bytes, said) in [
        ("bytes=2-4", "234", "bytes 2-4/10"),
        ("bytes=7-", "789", "bytes 7-9/10"),
        ("bytes=-2", "89", "bytes 8-9/10"),
        ("bytes=8-99", "89", "bytes 8-9/10"),
    ] {
        let response = get(range).await;
        assert_eq!(response.status(), StatusCode::PARTIAL_CONTENT, "{range}");
        assert_eq!(response.headers()[header::CONTENT_RANGE], said, "{range}");
        assert_eq!(response.text().await.unwrap(), bytes, "{range}");
    }
    for range in ["bytes=0-1,3-4", "lines=1-2", "bytes=x"] {
        let response = get(range).await;
        assert_eq!((response.status(), response.text().await.unwrap().as_str()), (StatusCode::OK, "0123456789"), "{range}");
    }
    let response = get("bytes=10-").await;
    assert_eq!(response.headers()[header::CONTENT_RANGE], "bytes */10");
    assert_eq!(problem(response).await.code, "out_of_range");
    let head = client.head(depot.url(&digest)).bearer_auth(&token).send().await.unwrap();
    assert_eq!(head.headers()[header::CONTENT_LENGTH], "10");
    depot.end().await;
}

#[tokio::test]
async fn what_is_no_request_of_a_blob_is_refused() {
    let depot = Running::start().await;
    let (client, token) = (testkit::http_client(), depot.token(Read::All, true));
    let digest = Digest::of(b"abc");
    for (url, host, code) in [
        (format!("http://{}/v1/blobs/sha256:00", depot.address), "localhost", "no_digest"),
        (format!("http://{}/v1/blobs/..%2f..%2fetc%2fpasswd", depot.address), "localhost", "no_digest"),
        (format!("http://{}/v2", depot.address), "localhost", "no_such_path"),
        (format!("http://{}/v2", depot.address), "Depot.Test:443", "no_such_path"),
        (depot.url(&digest), "rebound.example.org", "foreign_host"),
    ] {
        let response = client.get(url).bearer_auth(&token).header(header::HOST, host).send().await.unwrap();
        assert_eq!(problem(response).await.code, code);
    }
    let mut connection = TcpStream::connect(depot.address).await.unwrap();
    let head = format!(
        "PUT /v1/blobs/{digest} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nContent-Length: {}\r\n\r\n",
        depot::BLOB_BYTES_MAX + 1
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    connection.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
    depot.end().await;
}

#[tokio::test]
async fn a_restart_is_bridged_by_the_client_and_loses_nothing() {
    let depot = Running::start().await;
    let client = depot.everything();
    let digest = client.put(Bytes::from_static(b"abc")).await.unwrap();
    let Running { folder, signer, address, supervisor } = depot;
    assert_eq!(supervisor.shut_down().await, Ended::InOrder);
    let supervisor = Supervisor::new();
    // Somebody is there, and breaks the client's first connection.
    let broken = TcpListener::bind(address).await.unwrap();
    let restart = async {
        drop(broken.accept().await.unwrap());
        drop(broken);
        let options = DepotOptions {
            listen: address,
            data: folder.path().join("data"),
            verifier: signer.verifier(),
            host: Some("depot.test".to_owned()),
        };
        depot::run(options, &supervisor).await.unwrap()
    };
    let (bytes, _) = tokio::join!(client.get(&digest), restart);
    assert_eq!(bytes.unwrap(), "abc");
    assert_eq!(supervisor.shut_down().await, Ended::InOrder);
}
