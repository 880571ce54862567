//! A forge's git over HTTP: `git http-backend` on loopback.

use std::{
    io::Write as _,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, http::header, web};
use service::{OnError, Supervisor};

/// The most bytes of a request; what git asks for is small.
const REQUEST_BYTES_MAX: usize = 1024 * 1024;

#[derive(Clone)]
struct State {
    root: PathBuf,
    requests: Arc<AtomicUsize>,
    fetches: Arc<AtomicUsize>,
    credentials: Option<&'static str>,
    redirect: Option<String>,
}

/// The server, until it is dropped.
pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    requests: Arc<AtomicUsize>,
    fetches: Arc<AtomicUsize>,
    supervisor: Supervisor,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.supervisor.token().cancel();
    }
}

impl Served {
    /// Serves the repositories in `root` below `/octo/`, to all, or to those with these credentials.
    pub(crate) fn start(root: PathBuf, credentials: Option<&'static str>) -> Self {
        Self::serve(root, credentials, None)
    }

    /// Sends everybody to another address.
    pub(crate) fn redirect(to: String) -> Self {
        Self::serve(PathBuf::new(), None, Some(to))
    }

    fn serve(root: PathBuf, credentials: Option<&'static str>, redirect: Option<String>) -> Self {
        let supervisor = Supervisor::new();
        let (requests, fetches) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let state = State { root, requests: requests.clone(), fetches: fetches.clone(), credentials, redirect };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = HttpServer::new(move || {
            let limit = web::PayloadConfig::new(REQUEST_BYTES_MAX);
            App::new().app_data(web::Data::new(state.clone())).app_data(limit).default_service(web::to(answer))
        });
        let server = server.workers(1).shutdown_signal(supervisor.token().clone().cancelled_owned()).listen(listener).unwrap().run();
        supervisor.spawn("git http-backend", OnError::Shutdown, async move { Ok(server.await?) });
        Self { address, requests, fetches, supervisor }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/octo/shop.git", self.address)
    }

    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    /// How often objects were asked for, and not only which refs there are.
    pub(crate) fn fetches(&self) -> usize {
        self.fetches.load(Ordering::Relaxed)
    }
}

async fn answer(state: web::Data<State>, request: HttpRequest, body: web::Bytes) -> HttpResponse {
    state.requests.fetch_add(1, Ordering::Relaxed);
    if body.windows(b"command=fetch".len()).any(|window| window == b"command=fetch") {
        state.fetches.fetch_add(1, Ordering::Relaxed);
    }
    if let Some(to) = &state.redirect {
        return HttpResponse::Found().insert_header((header::LOCATION, format!("{to}{}", request.uri()))).finish();
    }
    let header = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
    if state.credentials.is_some_and(|expected| header("authorization") != expected) {
        return HttpResponse::Unauthorized().insert_header((header::WWW_AUTHENTICATE, "Basic")).finish();
    }
    let mut command = Command::new("git");
    command.arg("http-backend").env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    command.env("GIT_PROJECT_ROOT", &state.root).env("GIT_HTTP_EXPORT_ALL", "1").env("REQUEST_METHOD", request.method().as_str());
    command.env("PATH_INFO", request.path().strip_prefix("/octo").unwrap_or("/")).env("QUERY_STRING", request.query_string());
    command.env("CONTENT_TYPE", header("content-type")).env("CONTENT_LENGTH", body.len().to_string());
    command.env("HTTP_GIT_PROTOCOL", header("git-protocol")).env("HTTP_CONTENT_ENCODING", header("content-encoding"));
    command.env("GIT_CONFIG_COUNT", "1").env("GIT_CONFIG_KEY_0", "safe.directory").env("GIT_CONFIG_VALUE_0", "*");
    let output = web::block(move || {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        // What git does not read to the end is no matter.
        let _read = child.stdin.take().unwrap().write_all(&body);
        child.wait_with_output().unwrap().stdout
    });
    let output = output.await.unwrap();
    let end = output.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let mut response = HttpResponse::Ok();
    for line in String::from_utf8_lossy(&output[..end]).lines() {
        let (name, value) = line.split_once(": ").unwrap();
        match name {
            "Status" => drop(response.status(value.get(..3).unwrap().parse().unwrap())),
            _ => drop(response.insert_header((name, value))),
        }
    }
    response.body(output[end + 4..].to_vec())
}
