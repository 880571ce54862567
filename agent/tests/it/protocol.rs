//! Steps of libraries: what their programs are given, and what they may ask the agent for. The programs are written in Python.

use std::collections::BTreeMap;

use agent::Level;
use bytes::Bytes;
use model::{
    Digest, RunId, RunOutcome, StageOutcome, TriggerId,
    context::CacheScope,
    event::run::{TestFailure, TestReport},
    plan::{Step, Value},
    protocol::agent::{AgentCommand, Assignment, Report, ReportKind, StartedRun},
};

use crate::office::{Office, Ran, assignment, sh, stage, until};

const SUCCESS: (StageOutcome, Option<&str>) = (StageOutcome::Success, None);

/// What stands before each program: `ask` gives the status of an answer and its body.
const PRELUDE: &str = r#"#!/usr/bin/env python3
import http.client, json, os, socket, stat, sys
invocation = json.load(open(sys.argv[1]))
configuration, parameters = invocation["configuration"], invocation["parameters"]

class Connection(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(configuration["ipc"])

def ask(method, path, body=None, secret=None, headers={}):
    connection = Connection("agent")
    secret = configuration["endpoints"]["secret"] if secret is None else secret
    connection.request(method, path, body, {"authorization": "Bearer " + secret, **headers})
    answer = connection.getresponse()
    return answer.status, answer.read()

def check(answer, status):
    assert answer[0] == status, answer
    return answer[1]
"#;

fn archive(files: &[(&str, u32, &str)]) -> Bytes {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, mode, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(*mode);
        builder.append_data(&mut header, path, text.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap().into()
}

/// A library `lib` whose step runs this program, in the depot.
pub(crate) async fn library(office: &Office, program: &str, more: &str) -> Digest {
    let manifest = format!("symbol: call\ndescription: Calls.\nentrypoint:\n  path: bin/call\n{more}");
    let files = [("manifest.yml", 0o644, manifest.as_str()), ("bin/call", 0o755, &format!("{PRELUDE}{program}"))];
    office.blobs.put(archive(&files)).await.unwrap()
}

pub(crate) fn call() -> Step {
    Step::new("lib", "call", BTreeMap::new())
}

/// Runs a stage of these steps with the library.
pub(crate) async fn run(office: &mut Office, path: &str, steps: Vec<Step>, library: Digest) -> Ran {
    let libraries = [("lib".to_owned(), library)];
    office.run_assignment(&Assignment { libraries: libraries.into(), ..assignment(stage(path, steps), 1) }).await
}

/// Runs a stage of one call of this program.
async fn run_program(office: &mut Office, path: &str, program: &str) -> Ran {
    let library = library(office, program, "").await;
    run(office, path, vec![call()], library).await
}

#[tokio::test]
async fn a_program_is_given_one_file_that_says_all() {
    let mut office = Office::open().await;
    let program = r#"
assert len(sys.argv) == 2
assert stat.S_IMODE(os.stat(sys.argv[1]).st_mode) == 0o600
assert not os.path.realpath(sys.argv[1]).startswith(os.getcwd()), "it lies outside of the source"
assert len(configuration["ipc"]) < 108
endpoints = configuration.pop("endpoints")
assert endpoints.pop("secret") and configuration.pop("ipc") and len(configuration.pop("uuid")) == 36
print(json.dumps([configuration, parameters, sorted(endpoints.values())], sort_keys=True))
print(os.environ["OTTO_STEP"], os.environ["VAR_GIVEN"])
assert not os.access(__file__, os.W_OK) or os.getuid() == 0
assert stat.S_IMODE(os.stat(__file__).st_mode) == 0o555
"#;
    let more = "parameters: [{name: name, type: string, required: true}, {name: times, type: number, default: 2}]\n\
                configuration: {language: {default: en}, channel: {}, uuid: {default: forged}}\n";
    let library = library(&office, program, more).await;
    let arguments = [
        ("name".to_owned(), Value::from("Ada")),
        ("exact".to_owned(), Value::Decimal { decimal: "3.10".to_owned() }),
        ("list".to_owned(), Value::List(vec![Value::Integer(1), Value::Boolean(true)])),
    ];
    let steps = vec![sh("true"), Step::new("lib", "call", arguments.into())];
    let configuration = [("call".to_owned(), [("channel".to_owned(), Value::from("#otto"))].into())];
    let assignment = Assignment {
        libraries: [("lib".to_owned(), library)].into(),
        configuration: configuration.into(),
        variables: [("given".to_owned(), "x".to_owned())].into(),
        ..assignment(stage("a", steps), 1)
    };
    let ran = office.run_assignment(&assignment).await;
    assert_eq!(ran.end(), SUCCESS, "{}", ran.err);
    let run = assignment.lease.attempt.run.to_string();
    let paths =
        ["artifacts", "runs", "source", "status", "terminate", "tests", "variables"].map(|name| format!("\"/v1/{name}\"")).join(", ");
    let expected = format!(
        "[{{\"cache\": null, \"channel\": \"#otto\", \"language\": \"en\", \"pipeline\": \"{run}\"}}, \
         {{\"exact\": \"3.10\", \"list\": [1, true], \"name\": \"Ada\", \"times\": 2}}, [{paths}]]\n2 x\n"
    );
    assert_eq!(ran.out, expected);
}

#[tokio::test]
async fn exit_codes_say_how_a_step_ended() {
    let mut office = Office::open().await;
    for (code, outcome, reason) in [
        (0, StageOutcome::Success, None),
        (1, StageOutcome::Failure, Some("step 1 `call`: exit code 1")),
        (2, StageOutcome::Aborted, Some("step 1 `call`: it aborted the stage")),
        (3, StageOutcome::Unstable, Some("step 1 `call`: it ended as unstable")),
        (7, StageOutcome::Failure, Some("step 1 `call`: exit code 7")),
    ] {
        let library = library(&office, &format!("sys.exit({code})"), "").await;
        let ran = run(&mut office, &format!("c{code}"), vec![call(), sh("set +x; echo went on")], library).await;
        assert_eq!(ran.end(), (outcome, reason));
        assert_eq!(ran.out.as_str(), if matches!(code, 0 | 3) { "went on\n" } else { "" });
    }
}

#[tokio::test]
async fn a_step_keeps_a_folder_between_its_calls() {
    let mut office = Office::open().await;
    let program = r#"
path = configuration["cache"] + "/count"
count = int(open(path).read()) + 1 if os.path.exists(path) else 1
open(path, "w").write(str(count))
print(count)
"#;
    let library = library(&office, program, "cache: true\n").await;
    assert_eq!(run(&mut office, "a", vec![call(), call()], library).await.out, "1\n2\n");
    assert_eq!(run(&mut office, "b", vec![call()], library).await.out, "3\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_pull_request_leaves_is_found_by_no_branch_and_by_no_other_pull_request() {
    // It writes over whatever else it can reach.
    let program = r#"
own = configuration["cache"]
count = int(open(own + "/count").read()) + 1 if os.path.exists(own + "/count") else 1
open(own + "/count", "w").write(str(count))
print(count)
for other in os.listdir(os.path.dirname(own)):
    try:
        if parameters.get("evil") and other != os.path.basename(own):
            open(os.path.dirname(own) + "/" + other + "/count", "w").write("99")
    except OSError:
        pass
"#;
    for level in Level::ALL {
        let Some(mut office) = Office::isolated(level).await else { continue };
        let library = library(&office, program, "cache: true\nparameters: [{name: evil, type: boolean}]\n").await;
        let mut counted = async |path: &str, scope: CacheScope, evil: bool| {
            let step = Step::new("lib", "call", [("evil".to_owned(), Value::Boolean(evil))].into());
            let libraries = [("lib".to_owned(), library)].into();
            let assignment = Assignment { libraries, scope, ..assignment(stage(path, vec![step]), 1) };
            let ran = office.run_assignment(&assignment).await;
            assert_eq!(ran.end(), SUCCESS, "{level}: {ran:?}");
            ran.out
        };
        let main = || CacheScope::Branch("main".to_owned());
        assert_eq!(counted("a", main(), false).await, "1\n", "{level}");
        // What holds stages together only keeps no folder from the same user.
        let evil = level > Level::Group;
        assert_eq!(counted("b", CacheScope::PullRequest(7), evil).await, "1\n", "{level}");
        assert_eq!(counted("c", CacheScope::PullRequest(8), evil).await, "1\n", "{level}");
        assert_eq!(counted("d", CacheScope::Manual("main".to_owned()), evil).await, "1\n", "{level}");
        assert_eq!(counted("e", CacheScope::PullRequest(7), false).await, "2\n", "{level}");
        assert_eq!(counted("f", main(), false).await, "2\n", "{level}");
    }
}

#[tokio::test]
async fn variables_are_set_and_dropped() {
    let mut office = Office::open().await;
    let program = r#"
check(ask("PUT", "/v1/variables/my-colour", "gr\u00fcn".encode()), 204)
check(ask("PUT", "/v1/variables/gone", "x"), 204)
check(ask("DELETE", "/v1/variables/gone"), 204)
check(ask("PUT", "/v1/variables/long", "x" * 65536), 204)
check(ask("PUT", "/v1/variables/longer", "x" * 65537), 413)
check(ask("PUT", "/v1/variables/a%20b", "x"), 422)
check(ask("PUT", "/v1/variables/bytes", b"\xff"), 400)
"#;
    let library = library(&office, program, "").await;
    let ran = run(&mut office, "a", vec![call(), sh("set +x; echo $VAR_MY_COLOUR ${VAR_GONE-gone} ${#VAR_LONG}")], library).await;
    assert_eq!((ran.end(), ran.out.as_str()), (SUCCESS, "grün gone 65536\n"), "{ran:?}");
    let names: Vec<_> = ran.outputs.variables.iter().map(|(name, text)| (name.as_str(), text.is_some())).collect();
    assert_eq!(names, [("gone", false), ("long", true), ("my-colour", true)]);
}

#[tokio::test]
async fn artifacts_go_from_stage_to_stage() {
    let mut office = Office::open().await;
    let make = r#"
import io, tarfile
bytes = io.BytesIO()
with tarfile.open(fileobj=bytes, mode="w") as tar:
    for name in ["a", "b/c"]:
        info = tarfile.TarInfo(name)
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))
check(ask("PUT", "/v1/artifacts/dist%2Fapp", bytes.getvalue()), 204)
check(ask("PUT", "/v1/artifacts/none", b"no archive at all" * 100), 400)
assert check(ask("GET", "/v1/artifacts/dist%2Fapp"), 200) == bytes.getvalue()
"#;
    let made = run_program(&mut office, "make", make).await;
    assert_eq!(made.end(), SUCCESS, "{made:?}");
    let tree = &made.outputs.artifacts["dist/app"];
    assert_eq!((made.outputs.artifacts.len(), tree.entries, tree.bytes % 512), (1, 2, 0));
    let read = r#"
import io, tarfile
archive = check(ask("GET", "/v1/artifacts/dist%2Fapp"), 200)
print(tarfile.open(fileobj=io.BytesIO(archive)).getnames())
print(check(ask("GET", "/v1/artifacts/other"), 404).decode())
print(tarfile.open(fileobj=io.BytesIO(check(ask("GET", "/v1/source"), 200))).getnames())
"#;
    let library = library(&office, read, "").await;
    let source = office.blobs.put(archive(&[("file", 0o644, "x")])).await.unwrap();
    let libraries = [("lib".to_owned(), library)];
    let assignment = Assignment {
        libraries: libraries.into(),
        artifacts: made.outputs.artifacts,
        source: Some(source),
        ..assignment(stage("read", vec![call()]), 1)
    };
    let ran = office.run_assignment(&assignment).await;
    assert_eq!(ran.end(), SUCCESS, "{}", ran.err);
    assert!(ran.out.starts_with("['a', 'b/c']\n{") && ran.out.ends_with("}\n['file']\n"), "{}", ran.out);
    assert!(ran.out.contains("\"detail\":\"no stage before this one has archived `other`\""), "{}", ran.out);
}

#[tokio::test]
async fn reports_of_tests_are_added_up() {
    let mut office = Office::open().await;
    let program = r#"
failure = {"suite": "shop", "name": "refunds", "message": "1 != 2"}
report = {"passed": 2, "failed": 1, "skipped": 0, "duration_ms": 10, "failures": [failure]}
check(ask("POST", "/v1/tests", json.dumps(report)), 204)
check(ask("POST", "/v1/tests", json.dumps({**report, "failures": []})), 204)
check(ask("POST", "/v1/tests", "[]"), 400)
"#;
    let ran = run_program(&mut office, "a", program).await;
    assert_eq!(ran.end(), SUCCESS, "{}", ran.err);
    let failure = TestFailure { suite: "shop".to_owned(), name: "refunds".to_owned(), message: "1 != 2".to_owned() };
    let expected = TestReport { passed: 4, failed: 2, skipped: 0, duration_ms: 20, failures: vec![failure] };
    assert_eq!(ran.outputs.tests, Some(expected));
}

#[tokio::test]
async fn a_step_says_what_it_does_and_ends_its_stage() {
    let mut office = Office::open().await;
    let program = r#"
check(ask("POST", "/v1/status", json.dumps({"status": "half\nway"})), 204)
print("between", flush=True)
check(ask("POST", "/v1/terminate", json.dumps({"outcome": "unstable", "reason": "enough"})), 204)
check(ask("POST", "/v1/terminate", json.dumps({"outcome": "splendid"})), 400)
"#;
    let library = library(&office, program, "").await;
    let ran = run(&mut office, "a", vec![call(), sh("echo never")], library).await;
    assert_eq!((ran.end(), ran.out.as_str()), ((StageOutcome::Unstable, Some("enough")), "between\n"), "{}", ran.err);
    assert!(ran.otto.contains("[otto] half way\n"), "{}", ran.otto);
}

#[tokio::test]
async fn a_step_asks_for_a_run_and_how_it_is() {
    let mut office = Office::open().await;
    let program = r#"
request = {"pipeline": ".otto/deploy.otto", "parameters": {"target": "preprod"}}
run = json.loads(check(ask("POST", "/v1/runs", json.dumps(request)), 200))["run"]
print(json.loads(check(ask("GET", "/v1/runs/" + run), 200)))
print(json.loads(check(ask("GET", "/v1/runs/" + run), 200)))
check(ask("GET", "/v1/runs/run_0000000000000000000000000000"), 404)
print(json.loads(check(ask("POST", "/v1/runs", json.dumps(request)), 502))["detail"])
"#;
    let library = library(&office, program, "").await;
    let assignment = Assignment { libraries: [("lib".to_owned(), library)].into(), ..assignment(stage("a", vec![call()]), 1) };
    office.award(&assignment).await;
    let run = RunId::of(&TriggerId::of("test", "other"));
    let started = |outcome| Ok(StartedRun { run: run.clone(), outcome });
    let answers =
        [(1, started(None)), (1, started(None)), (1, started(Some(RunOutcome::Success))), (2, Err("there is no such file".to_owned()))];
    let mut last = 0;
    for (expected, answer) in answers {
        let report = office.report(ReportKind::RunRequested).await;
        let Report::RunRequested { number, request } = report.report else { unreachable!() };
        assert_eq!((number, request.pipeline.as_str(), request.parameters["target"].as_str()), (expected, ".otto/deploy.otto", "preprod"));
        assert!(number >= last);
        last = number;
        office.send(AgentCommand::RunAnswer { lease: assignment.lease.clone(), number, answer }).await;
    }
    let (outcome, reason) = office.result(&assignment.lease).await;
    let (bytes, index) = office.stored(&assignment.lease).await;
    let said = String::from_utf8(crate::office::said(&bytes, &index, model::protocol::log::Stream::Out)).unwrap();
    assert_eq!((outcome, reason), (StageOutcome::Success, None));
    assert_eq!(said, "{'outcome': None}\n{'outcome': 'success'}\nthere is no such file\n");
}

#[tokio::test]
async fn nobody_is_answered_without_the_calls_own_secret() {
    let mut office = Office::open().await;
    let program = r#"
kept = os.environ["HOME"] + "/kept"
if os.path.exists(kept):
    socket_before, secret_before = open(kept).read().split()
    assert not os.path.exists(socket_before), "the socket of the step before is gone"
    assert secret_before != configuration["endpoints"]["secret"]
    check(ask("PUT", "/v1/variables/a", "x", secret_before), 401)
    for wrong in ["", "x", configuration["endpoints"]["secret"] + "0", configuration["endpoints"]["secret"][:-1]]:
        check(ask("PUT", "/v1/variables/a", "x", wrong), 401)
    check(ask("PUT", "/v1/variables/a", "x", headers={"authorization": "Basic " + configuration["endpoints"]["secret"]}), 401)
    detail = json.loads(check(ask("GET", "/v1/nothing", secret="x"), 401))
    assert detail["status"] == 401 and "secret" in detail["detail"], detail
else:
    open(kept, "w").write(configuration["ipc"] + " " + configuration["endpoints"]["secret"])
"#;
    let library = library(&office, program, "").await;
    let ran = run(&mut office, "a", vec![call(), call()], library).await;
    assert_eq!(ran.end(), SUCCESS, "{}", ran.err);
    assert!(ran.left_nothing(), "{:?}", ran.outputs);
}

#[tokio::test]
async fn a_step_that_misbehaves_is_refused_and_leaves_nothing() {
    let mut office = Office::open().await;
    let program = r#"
check(ask("GET", "/"), 404)
check(ask("GET", "/v1/../../etc/passwd"), 404)
check(ask("GET", "/v1/status"), 405)
check(ask("POST", "/v1/variables"), 405)
check(ask("POST", "/v1/status", "{"), 400)
for name in ["..%2F..%2Fevil", "%2Fetc%2Fpasswd", "a%00b", "a%0Ab", "x" * 300, "..", "a%5Cb"]:
    check(ask("PUT", "/v1/artifacts/" + name, b"\0" * 1024), 422)

def flood(path, head):
    """Sends a gigabyte, until the agent has enough; the status of its answer, if it could still be read."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(configuration["ipc"])
    secret = configuration["endpoints"]["secret"]
    connection.sendall(f"PUT {path} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {secret}\r\n{head}\r\n\r\n".encode())
    sent = 0
    try:
        while sent < 1 << 30:
            connection.sendall(b"100000\r\n" + b"x" * (1 << 20) + b"\r\n")
            sent += 1 << 20
    except OSError:
        pass
    return sent

assert flood("/v1/variables/a", "transfer-encoding: chunked") < 1 << 27
assert flood("/v1/variables/a", "content-length: 1073741824") < 1 << 27
long = socket.socket(socket.AF_UNIX)
long.connect(configuration["ipc"])
try:
    long.sendall(b"GET /" + b"x" * (1 << 20) + b" HTTP/1.1\r\n\r\n")
except OSError:
    pass
# Connections that say nothing take no more than their share, and end with the step.
silent = [socket.socket(socket.AF_UNIX) for _ in range(8)]
for one in silent:
    one.connect(configuration["ipc"])
half = socket.socket(socket.AF_UNIX)
half.connect(configuration["ipc"])
secret = configuration["endpoints"]["secret"]
half.sendall(f"PUT /v1/artifacts/half HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {secret}\r\ncontent-length: 5000\r\n\r\nxx".encode())
check(ask("PUT", "/v1/variables/fine", "x"), 204)
"#;
    let ran = run_program(&mut office, "a", program).await;
    assert_eq!(ran.end(), SUCCESS, "{}", ran.err);
    assert!(ran.outputs.artifacts.is_empty() && ran.outputs.variables.len() == 1, "{:?}", ran.outputs);
    until("an empty spool", || office.leftovers().is_empty()).await;
    assert!(!office.path("evil").exists());
}

#[tokio::test]
async fn a_library_that_is_not_one_fails_the_step() {
    let mut office = Office::open().await;
    let no_library = office.blobs.put(archive(&[("readme", 0o644, "x")])).await.unwrap();
    let ran = run(&mut office, "none", vec![call()], no_library).await;
    assert!(ran.reason.as_deref().unwrap().starts_with("step 1 `call`: the step library's manifest.yml is missing"), "{ran:?}");
    let ran = office.run_assignment(&assignment(stage("unsent", vec![call()]), 1)).await;
    assert_eq!(ran.end(), (StageOutcome::Failure, Some("step 1 `call`: the archive of the step library `lib` was not sent along")));
    let evil = office
        .blobs
        .put(archive(&[("manifest.yml", 0o644, "symbol: call\ndescription: C.\nentrypoint: {path: ../../x}\n")]))
        .await
        .unwrap();
    let ran = run(&mut office, "evil", vec![call()], evil).await;
    assert!(ran.reason.as_deref().unwrap().contains("this is no path inside the library's folder"), "{ran:?}");
}
