//! Repositories that Otto serves, with real git on the other side, and with what is no git.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Output,
};

use data_encoding::BASE64;
use model::{Digest, context::EventKind};

use crate::world::{World, wait_for};

/// Files of the repository that is pushed and cloned.
const FILES: usize = 1000;

/// A forge that serves the project `shop` to the tokens `push` (run), `look` (view) and `other` (run, of another project).
async fn serving(more: &str) -> World {
    let world = World::new();
    world.git(&world.repository(), &["symbolic-ref", "HEAD", "refs/heads/main"]);
    configure(&world, more);
    let entry = |name: &str, role: &str, more: &str| {
        format!("  - {{ name: {name}, sha256: '{}', role: {role}{more} }}\n", Digest::of(format!("otto_{name}").as_bytes()).hex())
    };
    let tokens = [entry("push", "run", ", projects: [shop]"), entry("look", "view", ""), entry("other", "run", ", projects: [docs]")];
    fs::write(world.path("tokens.yml"), format!("tokens:\n{}", tokens.concat())).unwrap();
    world.start().await;
    world
}

fn configure(world: &World, more: &str) {
    let text = format!("source: {{ url: {}, serve: true{more} }}\n", world.repository().display());
    fs::write(world.path("projects/shop.yml"), text).unwrap();
}

fn url(world: &World, token: &str) -> String {
    format!("http://ann:otto_{token}@{}/git/shop.git", world.address)
}

/// Git with the address of the repository as the last but `more` of its arguments.
fn try_git(world: &World, folder: &Path, token: &str, arguments: &[&str], more: &[&str]) -> Output {
    let url = url(world, token);
    let arguments: Vec<&str> = arguments.iter().copied().chain([url.as_str()]).chain(more.iter().copied()).collect();
    world.try_git(folder, &arguments, b"")
}

/// What processes of git there are of the world's repository.
fn processes(world: &World) -> BTreeSet<String> {
    let path = world.repository().display().to_string();
    let named = |id: &String| {
        let of = |file: &str| fs::read(format!("/proc/{id}/{file}")).unwrap_or_default();
        let text = String::from_utf8_lossy(&[of("cmdline"), of("environ")].concat()).into_owned();
        text.contains(&path) && text.starts_with("git")
    };
    fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().into_string().ok()).filter(named).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_pushed_is_there_and_is_one_run_and_is_cloned_as_it_was() {
    let world = serving("").await;
    for at in 0..FILES {
        world.write(&format!("folder-{}/file-{at}", at % 17), &format!("{at}\n").repeat(at % 50));
    }
    world.write("Ottofile", "stage one\n");
    let commit = world.commit();
    let hook = world.repository().join("hooks");
    fs::create_dir_all(&hook).unwrap();
    for name in ["pre-receive", "update", "post-receive", "post-update", "reference-transaction"] {
        fs::write(hook.join(name), format!("#!/bin/sh\ntouch {}\nexit 1\n", world.path("hooked").display())).unwrap();
        fs::set_permissions(hook.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let pushed = try_git(&world, &world.clone(), "push", &["push", "--quiet"], &["main"]);
    assert!(pushed.status.success(), "{pushed:?}");
    assert!(!world.path("hooked").exists(), "no hook is run");
    let seen = world.path("data/mirrors/shop.seen.json");
    wait_for("the push is seen", || fs::read_to_string(&seen).is_ok_and(|text| text.contains(&commit))).await;
    let triggers = world.triggers().await;
    let [trigger] = triggers.as_slice() else { panic!("{triggers:?}") };
    assert_eq!((trigger.context.event, trigger.context.branch.as_str(), &trigger.context.commit), (EventKind::Push, "main", &commit));

    let cloned = try_git(&world, &world.path(""), "look", &["clone", "--quiet"], &["again"]);
    assert!(cloned.status.success(), "{cloned:?}");
    assert_eq!(world.git(&world.path("again"), &["rev-parse", "HEAD"]), commit);
    let difference =
        world.git(Path::new("/"), &["--git-dir", world.path("again/.git").to_str().unwrap(), "diff", "--stat", &commit, "main"]);
    assert!(difference.is_empty() && fs::read_dir(world.path("again")).unwrap().count() == 17 + 2);

    world.write("folder-1/file-1", "changed\n");
    let second = world.commit();
    assert!(try_git(&world, &world.clone(), "push", &["push", "--quiet"], &["main", "main:refs/tags/v1"]).status.success());
    wait_for("the second push is seen", || fs::read_to_string(&seen).is_ok_and(|text| text.matches(&second).count() == 2)).await;
    let mut events: Vec<_> = world.triggers().await.into_iter().map(|trigger| (trigger.context.event, trigger.context.base)).collect();
    events.sort();
    assert_eq!(events, [(EventKind::Push, commit), (EventKind::Tag, String::new())]);
    wait_for("git has ended", || processes(&world).is_empty()).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_that_was_taken_while_the_forge_fell_is_found_at_its_start() {
    let mut world = serving("").await;
    world.write("Ottofile", "stage one\n");
    let commit = world.commit();
    assert!(try_git(&world, &world.clone(), "push", &["push", "--quiet"], &["main"]).status.success());
    wait_for("it is seen", || fs::read_to_string(world.path("data/mirrors/shop.seen.json")).is_ok_and(|text| text.contains(&commit))).await;
    assert_eq!(world.triggers().await.len(), 1);
    let second = world.commit();
    // A hook tells of it; and as if the forge had fallen right after git had taken it, it is found as well.
    world.push(&["main"]).await;
    world.restart().await;
    wait_for("it is found", || fs::read_to_string(world.path("data/mirrors/shop.seen.json")).is_ok_and(|text| text.contains(&second)))
        .await;
    let triggers = world.triggers().await;
    assert_eq!(triggers.iter().map(|trigger| &trigger.context.commit).collect::<Vec<_>>(), [&second], "it is one run");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_for_its_role_and_its_projects() {
    let world = serving("").await;
    world.write("Ottofile", "");
    world.commit();
    let said = |output: Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let push = |token: &str| try_git(&world, &world.clone(), token, &["push", "--quiet"], &["main"]);
    assert!(said(push("look")).contains("403"));
    for token in ["nobody", ""] {
        assert!(said(push(token)).contains("uthentication failed"), "{token}");
    }
    assert!(said(push("other")).contains("not found"));
    assert!(push("push").status.success());
    for (token, good) in [("look", true), ("push", true), ("other", false), ("nobody", false)] {
        assert_eq!(try_git(&world, &world.path(""), token, &["ls-remote"], &[]).status.success(), good, "{token}");
    }
    // A token that is taken away is worth nothing at once; without a file, nobody is served.
    fs::remove_file(world.path("tokens.yml")).unwrap();
    assert!(!try_git(&world, &world.path(""), "look", &["ls-remote"], &[]).status.success());
    wait_for("the push is seen", || fs::read_to_string(world.path("data/mirrors/shop.seen.json")).is_ok_and(|text| text.contains("main")))
        .await;
    world.end().await;
}

/// Status line and body of a request that is written as it stands here.
fn raw(world: &World, head: &str, body: &[u8]) -> String {
    let mut stream = TcpStream::connect(world.address).unwrap();
    let basic = BASE64.encode(b"ann:otto_push");
    let head = format!(
        "{head}\r\nHost: git.example.org\r\nAuthorization: Basic {basic}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_path_and_no_header_leads_anywhere_else() {
    let world = serving("").await;
    fs::create_dir(world.path("docs.git")).unwrap();
    world.git(&world.path("docs.git"), &["init", "--quiet", "--bare"]);
    for path in [
        "/git/shop.git/HEAD",
        "/git/shop.git/config",
        "/git/shop.git/otto/hook.json",
        "/git/shop.git/objects/info/packs",
        "/git/shop.git/../docs.git/info/refs?service=git-upload-pack",
        "/git/../docs.git/info/refs?service=git-upload-pack",
        "/git/docs.git/info/refs?service=git-upload-pack",
        "/git/shop/info/refs?service=git-upload-pack",
        "/git/shop.git/%2e%2e/docs.git/info/refs?service=git-upload-pack",
        "/git/shop.git%2f..%2fdocs.git/info/refs?service=git-upload-pack",
        "/git/shop.git//info/refs?service=git-upload-pack",
        "/git/shop.git/info/refs?service=git-upload-archive",
        "/git/shop.git/info/refs?service=--upload-pack=touch",
        "/git/shop.git/info/refs",
        "/git//shop.git/info/refs?service=git-upload-pack",
        "/git/",
        "/git",
    ] {
        let answer = raw(&world, &format!("GET {path} HTTP/1.1"), b"");
        let status = answer.get(9..12).unwrap_or_default();
        // Below `/git` a name is no reason to refuse; a path that is none of it is asked for under the forge's own.
        assert!(["404", "421", "400"].contains(&status), "{path}: {answer}");
    }
    let hooked = world.path("hooked");
    let headers = format!(
        "GIT-DIR: /etc\r\nGIT_DIR: /etc\r\nGit-Exec-Path: /tmp\r\nHTTP_GIT_PROTOCOL: version=2\r\nGit-Protocol: version=2:x;touch {}\r\nX-GIT-CONFIG-COUNT: 9",
        hooked.display()
    );
    let answer = raw(&world, &format!("GET /git/shop.git/info/refs?service=git-upload-pack HTTP/1.1\r\n{headers}"), b"");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("# service=git-upload-pack"), "{answer}");
    assert!(!answer.contains("version 2") && !hooked.exists(), "what is no version of the protocol is not passed on: {answer}");
    let packed = raw(&world, "POST /git/shop.git/git-upload-pack HTTP/1.1\r\nContent-Encoding: br", b"x");
    assert!(packed.starts_with("HTTP/1.1 415"), "{packed}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_has_a_bound_and_a_connection_that_is_lost_ends_git() {
    let world = serving(", fetch_mib: 1").await;
    // Digits that no compression makes small enough.
    let large: Vec<String> = (0_u64..400_000).map(|number| format!("{:x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
    world.write("large", &large.concat());
    world.commit();
    let pushed = try_git(&world, &world.clone(), "push", &["push", "--quiet"], &["main"]);
    assert!(!pushed.status.success());
    assert_eq!(world.git(&world.repository(), &["for-each-ref"]), "", "nothing of it is there");
    wait_for("git has ended", || processes(&world).is_empty()).await;

    let mut stream = TcpStream::connect(world.address).unwrap();
    let basic = BASE64.encode(b"ann:otto_push");
    let head = format!(
        "POST /git/shop.git/git-receive-pack HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {basic}\r\nContent-Length: 100000\r\n\r\n00a0"
    );
    stream.write_all(head.as_bytes()).unwrap();
    wait_for("git runs", || !processes(&world).is_empty()).await;
    drop(stream);
    wait_for("git has ended", || processes(&world).is_empty()).await;
    assert!(try_git(&world, &world.path(""), "look", &["ls-remote"], &[]).status.success(), "others are served");
    world.end().await;
}
