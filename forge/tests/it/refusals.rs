//! What the forge does not take.

use std::{fs, os::unix::fs::symlink, path::Path};

use data_encoding::HEXLOWER;
use forge::{Problem, hook};
use testkit::TEST_DEADLINE;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::world::World;

#[tokio::test]
async fn a_commit_without_a_pipeline_file_starts_no_run_and_says_so() {
    let world = World::with_forge().await;
    let push = async |expected: &str| {
        world.commit();
        let lines = world.push(&["main"]).await;
        assert!(lines.len() == 1 && lines[0].contains("starts no run") && lines[0].contains(expected), "{lines:?}");
    };
    world.write("README", "");
    push("there is no `Ottofile`").await;
    symlink("README", world.clone().join("Ottofile")).unwrap();
    push("`Ottofile` is no file").await;
    fs::remove_file(world.clone().join("Ottofile")).unwrap();
    fs::write(world.clone().join("Ottofile"), b"\xff").unwrap();
    push("`Ottofile` is no UTF-8 text").await;
    world.write("Ottofile", &" ".repeat(1024 * 1024 + 1));
    push("`Ottofile` has over 1 MiB").await;
    fs::remove_file(world.clone().join("Ottofile")).unwrap();
    world.write("Ottofile/x", "");
    push("there is no `Ottofile`").await;
    assert!(world.triggers().await.is_empty());
    assert!(world.deliveries("pending").is_empty(), "they are answered for good");
    world.end().await;
}

#[tokio::test]
async fn whoever_watches_the_forge_is_answered() {
    let world = World::with_forge().await;
    let get = async |path: &str| {
        let answer = testkit::http_get(format!("http://{}{path}", world.address)).await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    assert_eq!(get("/health").await, (200, r#"{"status":"ok"}"#.to_owned()));
    let (status, metrics) = get("/metrics").await;
    assert!(status == 200 && metrics.contains("otto_build_info{role=\"forge\"") && metrics.contains("otto_bus_connected 1"), "{metrics}");
    world.end().await;
}

#[tokio::test]
async fn a_delivery_that_is_none_is_refused() {
    let world = World::with_forge().await;
    let good = serde_json::to_string(&world.delivery("d1", "refs/heads/main", &"1".repeat(40))).unwrap();
    let cases = [
        ("{".to_owned(), "no_delivery"),
        (good.replace("d1", "../d1"), "no_delivery"),
        (good.replace("\"updates\"", "\"more\":1,\"updates\""), "no_delivery"),
        (good.replace(&"1".repeat(40), "--output=x"), "no_delivery"),
        (good.replace("shop.git", "else.git"), "unknown_repository"),
        (good.replace("shop.git", "shop.git/../shop.git"), "unknown_repository"),
        (" ".repeat(2 * 1024 * 1024), "no_delivery"),
    ];
    for (body, code) in cases {
        let shown = body.chars().take(200).collect::<String>();
        let response = world.request(body).send().await.unwrap();
        let problem: Problem = response.json().await.unwrap();
        assert_eq!(problem.code, code, "{shown}: {problem:?}");
    }
    assert!(world.triggers().await.is_empty());
    world.end().await;
}

#[tokio::test]
async fn only_the_repositorys_hook_is_believed() {
    let world = World::with_forge().await;
    let body = || serde_json::to_string(&world.delivery("d1", "refs/heads/main", &"1".repeat(40))).unwrap();
    let problem = async |request: reqwest::RequestBuilder| request.send().await.unwrap().json::<Problem>().await.unwrap();
    let mut without = world.request(body()).build().unwrap();
    without.headers_mut().remove("authorization");
    let without: Problem = testkit::http_client().execute(without).await.unwrap().json().await.unwrap();
    assert_eq!(without.code, "unauthorized");
    let mut wrong = world.request(body()).build().unwrap();
    wrong.headers_mut().insert("authorization", "Bearer 00".parse().unwrap());
    let wrong: Problem = testkit::http_client().execute(wrong).await.unwrap().json().await.unwrap();
    assert_eq!(wrong.code, "unauthorized");
    assert_eq!(problem(world.request(body()).header("host", "rebound.example.org")).await.code, "foreign_host");
    let secret = world.request(body());
    fs::remove_file(world.repository().join("otto/hook.json")).unwrap();
    assert_eq!(problem(secret).await.code, "no_hook");
    world.end().await;
}

#[tokio::test]
async fn a_commit_that_is_not_there_starts_no_run() {
    let world = World::with_forge().await;
    for id in ["1".repeat(40), "1".repeat(64)] {
        let answer = world.deliver(&world.delivery("d1", "refs/heads/main", &id)).await;
        assert!(answer.runs.is_empty() && answer.ignored[0].reason.contains(&format!("no commit {id}")), "{answer:?}");
    }
    world.end().await;
}

/// Mode, name and id.
type Entry<'a> = (&'a str, &'a str, &'a [u8]);

#[tokio::test]
async fn a_tree_that_leads_out_of_its_folder_starts_no_run() {
    let world = World::with_forge().await;
    let repository = world.repository();
    let blob = world.try_git(&repository, &["hash-object", "-w", "--stdin"], b"x").stdout;
    let blob = HEXLOWER.decode(String::from_utf8(blob).unwrap().trim().as_bytes()).unwrap();
    let tree = |entries: &[Entry]| {
        let content = entries.iter().flat_map(|(mode, name, id)| [format!("{mode} {name}\0").as_bytes(), id].concat());
        let written =
            world.try_git(&repository, &["hash-object", "-w", "--literally", "-t", "tree", "--stdin"], &content.collect::<Vec<_>>());
        assert!(written.status.success(), "{written:?}");
        HEXLOWER.decode(String::from_utf8(written.stdout).unwrap().trim().as_bytes()).unwrap()
    };
    let ottofile = ("100644", "Ottofile", blob.as_slice());
    let inner = tree(&[("100644", "passwd", &blob)]);
    let good = tree(&[ottofile]);
    // Ten levels of ten folders that are the same: ten thousand million folders.
    let bomb = (0..10).fold(tree(&[]), |below, _| {
        let names: Vec<_> = (0..10).map(|name| name.to_string()).collect();
        tree(&names.iter().map(|name| ("40000", name.as_str(), below.as_slice())).collect::<Vec<_>>())
    });
    let cases: [(&[Entry], &str); 6] = [
        (&[ottofile, ("40000", "..", &inner)], "lead out"),
        (&[ottofile, ("100644", "a/../../b", &blob)], "lead out"),
        (&[ottofile, ("40000", ".GIT", &inner)], "git's own"),
        (&[ottofile, ottofile], "twice"),
        (&[ottofile, ("120000", "etc", &blob), ("40000", "etc", &inner)], "no folder"),
        (&[ottofile, ("40000", "bomb", &bomb)], "over 250000 files"),
    ];
    for (entries, expected) in cases {
        let tree = HEXLOWER.encode(&tree(entries));
        let commit = world.git(&repository, &["commit-tree", "-m", "hostile", &tree]);
        let answer = world.deliver(&world.delivery("d1", "refs/heads/main", &commit)).await;
        assert!(answer.runs.is_empty() && answer.ignored[0].reason.contains(expected), "{expected}: {answer:?}");
        // Who mends it is not held up by what was.
        let mended = world.git(&repository, &["commit-tree", "-m", expected, &HEXLOWER.encode(&good)]);
        let mut delivery = world.delivery("d2", "refs/heads/main", &mended);
        delivery.updates[0].old = commit;
        let answer = world.deliver(&delivery).await;
        assert!(answer.runs.len() == 1 && answer.ignored.is_empty(), "{expected}: {answer:?}");
    }
    assert!(world.triggers().await.iter().all(|trigger| trigger.changed.is_none() && trigger.context.base.is_empty()));
    world.end().await;
}

#[tokio::test]
async fn a_replacement_that_was_pushed_does_not_stand_in_for_the_commit() {
    let world = World::with_forge().await;
    world.write("Ottofile", "good");
    let good = world.commit();
    world.push(&["main"]).await;
    assert_eq!(world.triggers().await.len(), 1);
    world.write("Ottofile", "evil");
    let evil = world.commit();
    let replacement = format!("{evil}:refs/replace/{good}");
    world.push(&[replacement.as_str()]).await;
    world.deliver(&world.delivery("again", "refs/heads/main", &good)).await;
    let trigger = world.triggers().await.remove(0);
    assert_eq!(trigger.pipeline, model::planning::Text::Inline("good".to_owned()));
    world.end().await;
}

#[test]
fn somebody_elses_hook_is_kept() {
    let world = World::new();
    let (repository, otto) = (world.repository(), Path::new("/opt/otto"));
    hook::install(&repository, "http://127.0.0.1:1", otto).expect("Otto's own hook is written again");
    let hook_path = repository.join("hooks/post-receive");
    fs::write(&hook_path, "#!/bin/sh\nmail team\n").unwrap();
    let error = hook::install(&repository, "http://127.0.0.1:1", otto).unwrap_err();
    assert!(error.to_string().contains("somebody else's hook") && error.to_string().contains("/opt/otto hook post-receive"), "{error}");
    assert_eq!(fs::read_to_string(&hook_path).unwrap(), "#!/bin/sh\nmail team\n");
    assert!(matches!(hook::install(&world.clone(), "http://x", otto), Err(hook::InstallError::Repository { .. })));
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(repository.join("otto/hook.json")).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600, "the secret is its owner's");
}

#[tokio::test]
async fn a_delivery_that_does_not_come_is_not_waited_for_for_ever() {
    let world = World::with_forge().await;
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    let head =
        format!("POST /v1/hooks/git HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{{", world.address);
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    timeout(TEST_DEADLINE, stream.read_exact(&mut answer)).await.expect("it is answered").unwrap();
    assert_eq!(str::from_utf8(&answer), Ok("HTTP/1.1 408"));
    world.end().await;
}
