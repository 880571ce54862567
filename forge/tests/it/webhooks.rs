//! What webhooks of forges come to.

use std::{
    fs,
    io::{self, Write as _},
    process::Command,
};

use forge::{
    Problem,
    delivery::{Answer, REF_BYTES_MAX},
};
use futures_util::future::join_all;
use model::{
    context::{EventKind, PullRequest},
    planning::{Listing, Text},
    trigger::{Claims, Trust},
};
use serde_json::{Value, json};

use crate::{
    signed::{self, NULL, SECRET, SIGNING_TOKEN, Webhook},
    world::World,
};

/// A way to make a webhook of an event and a body.
type Sign = fn(&str, &Value) -> Webhook;

/// A world whose project `shop` takes webhooks of a forge, with a commit on `main`. No forge runs yet.
fn world(forge: &str, secret: &str, more: &str) -> (World, String) {
    let world = World::new();
    configure(&world, forge, secret, more);
    world.write("Ottofile", "stage base\n");
    let commit = world.commit();
    publish(&world, "main:refs/heads/main");
    (world, commit)
}

fn configure(world: &World, forge: &str, secret: &str, more: &str) {
    let file = world.path("secret");
    fs::write(&file, format!("{secret}\n")).unwrap();
    let webhook = format!("webhook: {{ forge: {forge}, secret_file: {}, repository: octo/shop }}\n{more}", file.display());
    world.add_project("shop", &webhook);
}

/// Puts a commit into the repository; no hook tells of it.
fn publish(world: &World, refs: &str) {
    world.git(&world.clone(), &["push", "--quiet", "--force", world.repository().to_str().unwrap(), refs]);
}

async fn answer(world: &World, webhook: &Webhook) -> (u16, Answer) {
    let response = world.webhook("shop", &webhook.headers(), webhook.body.clone()).await;
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{status} {error}: {text}")))
}

async fn problem(world: &World, headers: &[(&str, &str)], body: impl Into<reqwest::Body>) -> (u16, String) {
    let response = world.webhook("shop", headers, body).await;
    (response.status().as_u16(), response.json::<Problem>().await.unwrap().code)
}

#[tokio::test]
async fn a_push_that_a_forge_tells_of_is_a_run_of_its_project() {
    let of_gitlab = |token, sign: Sign| ("gitlab", token, sign, "Push Hook", "Tag Push Hook");
    let forges: [(&str, &str, Sign, &str, &str); 5] = [
        ("github", SECRET, signed::github, "push", "push"),
        ("gitea", SECRET, signed::gitea, "push", "push"),
        ("forgejo", SECRET, signed::forgejo, "push", "push"),
        of_gitlab(SECRET, signed::gitlab_token),
        of_gitlab(SIGNING_TOKEN, signed::gitlab_signed),
    ];
    for (forge, secret, sign, push, tag) in forges {
        let (world, first) = world(forge, secret, "protection: { protected: { branches: [main], tags: ['v*'] } }\n");
        world.write("added", "");
        let second = world.commit();
        publish(&world, "main:refs/heads/main");
        world.start().await;
        let body = if forge == "gitlab" { signed::gitlab_push } else { signed::push };

        let (status, told) = answer(&world, &sign(push, &body("refs/heads/main", &first, &second))).await;
        let triggers = world.triggers().await;
        let [trigger] = triggers.as_slice() else { panic!("{forge}: {told:?} {triggers:?}") };
        assert_eq!((status, told.runs.len(), told.runs[0].run.clone()), (202, 1, trigger.run()), "{forge}");
        assert_eq!((trigger.context.event, trigger.context.branch.as_str()), (EventKind::Push, "main"), "{forge}");
        assert_eq!((&trigger.context.commit, &trigger.context.base), (&second, &first), "{forge}");
        assert_eq!(trigger.claims, Claims { trust: Trust::Trusted, protected: true, actor: Some("ann".to_owned()) }, "{forge}");

        answer(&world, &sign(tag, &body("refs/tags/v1", NULL, &second))).await;
        let tagged = world.triggers().await.remove(0);
        assert_eq!((tagged.context.event, tagged.context.tag.as_str()), (EventKind::Tag, "v1"), "{forge}");
        assert!(tagged.claims.protected && tagged.context.branch.is_empty(), "{forge}");

        let (status, told) = answer(&world, &sign(push, &body("refs/heads/main", &second, NULL))).await;
        assert_eq!((status, told.runs.len(), told.ignored[0].reason.as_str()), (200, 0, "it was deleted"), "{forge}");
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_webhook_a_hundred_times_after_a_restart_and_with_another_id_is_one_run() {
    let (mut world, commit) = world("github", SECRET, "");
    world.start().await;
    let webhook = |id: &str| signed::github("push", &signed::push("refs/heads/main", NULL, &commit)).with_delivery(id);
    let ids: Vec<_> = (0..100).map(|number| webhook(if number % 2 == 0 { "one" } else { "another" })).collect();
    let answers = join_all(ids.iter().map(|webhook| answer(&world, webhook))).await;
    let (status, first) = &answers[0];
    assert_eq!((*status, first.runs.len()), (202, 1), "{first:?}");
    assert!(answers.iter().all(|told| told == &answers[0]));
    assert_eq!(world.triggers().await.len(), 1);
    world.restart().await;
    assert_eq!(answer(&world, &webhook("a third")).await, answers[0]);
    let mut other = signed::push("refs/heads/main", NULL, &commit);
    other["sender"]["login"] = json!("bob");
    assert_eq!(answer(&world, &signed::github("push", &other)).await, answers[0], "it has happened once, whoever tells of it");
    assert!(world.triggers().await.is_empty());
    world.end().await;
}

#[tokio::test]
async fn a_pull_request_of_the_projects_own_branch_is_untrusted_and_compared_with_where_it_parted() {
    for (forge, sign) in [("github", signed::github as Sign), ("gitlab", signed::gitlab_token)] {
        let (world, parted) = world(forge, SECRET, "");
        world.write("Ottofile", "stage changed\n");
        let head = world.commit();
        publish(&world, "main:refs/heads/fix");
        world.git(&world.clone(), &["reset", "--quiet", "--hard", &parted]);
        world.write("meanwhile", "");
        world.commit();
        publish(&world, "main:refs/heads/main");
        world.start().await;
        let (event, body) = match forge {
            "gitlab" => ("Merge Request Hook", signed::merge_request("open", 15, None, &head)),
            _ => ("pull_request", signed::pull_request("opened", Some("octo/shop"), &head)),
        };
        let (status, told) = answer(&world, &sign(event, &body)).await;
        assert_eq!((status, told.runs[0].name.as_str()), (202, "#7"), "{forge}: {told:?}");
        let trigger = world.triggers().await.remove(0);
        let expected = PullRequest { number: 7, target: "main".to_owned(), source: "fix".to_owned(), fork: false };
        assert_eq!((trigger.context.event, trigger.context.pull_request), (EventKind::PullRequest, Some(expected)), "{forge}");
        assert_eq!(trigger.claims, Claims { trust: Trust::Untrusted, protected: false, actor: Some("eve".to_owned()) });
        assert_eq!((trigger.context.branch.as_str(), &trigger.context.commit, &trigger.context.base), ("", &head, &parted));
        assert_eq!(trigger.pipeline, Text::Inline("stage changed\n".to_owned()));
        let changed: Vec<String> = serde_json::from_slice(&world.blobs.get(&trigger.changed.unwrap()).await.unwrap()).unwrap();
        assert_eq!(changed, ["Ottofile"], "what the target got meanwhile is no change of the pull request");

        let (event, body) = match forge {
            "gitlab" => ("Merge Request Hook", signed::merge_request("update", 15, None, &head)),
            _ => ("pull_request", signed::pull_request("labeled", Some("octo/shop"), &head)),
        };
        let (status, told) = answer(&world, &sign(event, &body)).await;
        assert_eq!((status, told.runs.len(), told.ignored.len()), (200, 0, 1), "{forge}: without new commits, nothing starts");
        world.end().await;
    }
}

#[tokio::test]
async fn a_pull_request_of_a_fork_takes_the_pipeline_of_its_target_if_it_is_run_at_all() {
    let forks = [
        ("github", signed::github as Sign, "pull_request", Some("eve/shop")),
        ("forgejo", signed::forgejo, "pull_request", None),
        ("gitlab", signed::gitlab_signed, "Merge Request Hook", None),
    ];
    for (forge, sign, event, from) in forks {
        let secret = if forge == "gitlab" { SIGNING_TOKEN } else { SECRET };
        let (mut world, _) = world(forge, secret, "");
        world.write("Ottofile", "stage evil\n");
        world.write("otto.lock", "{}\n");
        world.write("theirs", "");
        let head = world.commit();
        publish(&world, "main:refs/pull/7/head");
        world.start().await;
        let body = match forge {
            "gitlab" => signed::merge_request("open", 16, None, &head),
            _ => signed::pull_request("opened", from, &head),
        };
        let webhook = sign(event, &body);
        let (status, told) = answer(&world, &webhook).await;
        assert_eq!((status, told.runs.len()), (200, 0), "{forge}");
        assert!(told.ignored[0].reason.contains("ignores pull requests of forks"), "{told:?}");

        configure(&world, forge, secret, "protection: { forks: run }\n");
        world.restart().await;
        let (status, told) = answer(&world, &webhook).await;
        assert_eq!((status, told.runs.len()), (202, 1), "{forge}: {told:?}");
        let trigger = world.triggers().await.remove(0);
        assert_eq!((trigger.pipeline, trigger.lock), (Text::Inline("stage base\n".to_owned()), None), "{forge}: what is run is not theirs");
        assert_eq!((trigger.claims.trust, trigger.claims.protected), (Trust::Untrusted, false));
        let listing: Listing = serde_json::from_slice(&world.blobs.get(&trigger.listing.unwrap()).await.unwrap()).unwrap();
        assert!(listing.contains_key("theirs"), "{forge}: what it is run on is");
        world.end().await;
    }
}

#[tokio::test]
async fn a_merge_queue_is_told_how_its_next_state_is() {
    let (world, base) = world("github", SECRET, "");
    world.write("queued", "");
    let head = world.commit();
    let name = "refs/heads/gh-readonly-queue/main/pr-7-x";
    publish(&world, &format!("main:{name}"));
    world.start().await;
    let group = json!({
        "action": "checks_requested", "repository": { "full_name": "octo/shop" }, "sender": { "login": "ann" },
        "merge_group": { "head_sha": head, "head_ref": name, "base_sha": base, "base_ref": "refs/heads/main" },
    });
    assert_eq!(answer(&world, &signed::github("merge_group", &group)).await.0, 202);
    let (status, told) = answer(&world, &signed::github("push", &signed::push(name, NULL, &head))).await;
    assert_eq!((status, told.ignored.len()), (200, 1), "the queue's branch is told of twice: {told:?}");
    let triggers = world.triggers().await;
    let [trigger] = triggers.as_slice() else { panic!("{triggers:?}") };
    assert_eq!((trigger.context.event, trigger.context.branch.as_str()), (EventKind::MergeQueue, "main"));
    assert_eq!((&trigger.context.commit, &trigger.context.base), (&head, &base));
    world.end().await;
}

#[tokio::test]
async fn what_is_not_signed_is_not_read() {
    let (world, commit) = world("github", SECRET, "");
    world.start().await;
    let good = signed::github("push", &signed::push("refs/heads/main", NULL, &commit));
    let of_gitea = signed::gitea("push", &signed::push("refs/heads/main", NULL, &commit));
    for (headers, body, expected) in [
        (&good.headers()[..1], good.body.clone(), (401, "unsigned")),
        (&good.headers(), good.body.replace("main", "mine"), (401, "unsigned")),
        (&good.headers(), format!("{} ", good.body), (401, "unsigned")),
        (&good.headers(), "{".repeat(1000), (401, "unsigned")),
        (&of_gitea.headers(), of_gitea.body.clone(), (401, "unsigned")),
        (&good.headers(), " ".repeat(5 * 1024 * 1024 + 1), (413, "too_large")),
        (&good.headers()[1..], good.body.clone(), (400, "no_webhook_body")),
    ] {
        let (status, code) = problem(&world, headers, body).await;
        assert_eq!((status, code.as_str()), expected, "{headers:?}");
    }
    let elsewhere = world.webhook("shoq", &good.headers(), good.body.clone()).await;
    assert_eq!((elsewhere.status().as_u16(), elsewhere.json::<Problem>().await.unwrap().code.as_str()), (404, "no_webhook"));
    assert!(world.triggers().await.is_empty());
    assert_eq!(answer(&world, &good).await.0, 202, "and the good one is taken");
    world.end().await;
}

#[tokio::test]
async fn what_is_signed_and_makes_no_sense_starts_nothing_and_says_why() {
    let (world, commit) = world("github", SECRET, "");
    world.start().await;
    for body in [json!(1), json!({ "ref": "refs/heads/main" }), signed::push("refs/heads/main", NULL, "--output=x")] {
        let webhook = signed::github("push", &body);
        assert_eq!(problem(&world, &webhook.headers(), webhook.body.clone()).await, (400, "no_webhook_body".to_owned()), "{body}");
    }
    let mut foreign = signed::push("refs/heads/main", NULL, &commit);
    foreign["repository"]["full_name"] = json!("octo/shop2");
    let long = format!("refs/heads/{}", "x".repeat(REF_BYTES_MAX));
    for (event, body, reason) in [
        ("push", foreign, "it is of the repository `octo/shop2`"),
        ("push", signed::push("refs/heads/-u ^x:*", NULL, &commit), "none that git takes"),
        ("push", signed::push("refs/notes/commits", NULL, &commit), "neither a branch nor a tag"),
        ("push", signed::push(&long, NULL, &commit), "none that git takes"),
        ("push", signed::push("refs/heads/main", NULL, &"1".repeat(40)), "there is no commit 1111"),
        ("ping", json!({ "zen": "Design for failure." }), "events of this kind start no run"),
    ] {
        let (status, told) = answer(&world, &signed::github(event, &body)).await;
        assert_eq!((status, told.runs.len(), told.ignored.len()), (200, 0, 1), "{body}");
        assert!(told.ignored[0].reason.contains(reason), "{told:?}");
    }
    assert!(world.triggers().await.is_empty());
    world.end().await;
}

/// The examples of <https://github.com/octokit/webhooks>, from npm's registry; kept where the tests keep what they install.
fn octokit_examples() -> Result<Vec<Value>, String> {
    const PACKAGE: &str = "@octokit/webhooks-examples@7.6.1";
    let home = testkit::otto_home();
    let place = home.join("webhooks-examples-7.6.1");
    let examples = place.join("package/api.github.com/index.json");
    if !examples.is_file() {
        fs::create_dir_all(&home).unwrap();
        let partial = tempfile::tempdir_in(&home).unwrap();
        let run = |command: &mut Command| {
            let output = command.current_dir(partial.path()).output().map_err(|error| format!("{command:?}: {error}"))?;
            let said = || format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
            if output.status.success() { Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()) } else { Err(said()) }
        };
        // npm compares it with the registry's digest.
        let archive = run(Command::new("npm").args(["pack", "--silent", PACKAGE]))?;
        run(Command::new("tar").args(["-xzf", &archive]))?;
        // Another test process may have been faster; then its copy is as good.
        let renamed = fs::rename(partial.path(), &place);
        assert!(renamed.is_ok() || examples.is_file(), "{renamed:?}");
    }
    Ok(serde_json::from_slice(&fs::read(examples).unwrap()).unwrap())
}

#[tokio::test]
async fn real_payloads_of_github_are_understood() {
    let examples = match octokit_examples() {
        Ok(examples) => examples,
        Err(why) => {
            let line = format!("\nNOT TESTED: real payloads of GitHub, as npm's registry did not give them: {why}\n");
            return io::stderr().write_all(line.as_bytes()).unwrap();
        }
    };
    let world = World::new();
    let file = world.path("secret");
    fs::write(&file, SECRET).unwrap();
    world.add_project("shop", &format!("webhook: {{ forge: github, secret_file: {} }}\nprotection: {{ forks: run }}\n", file.display()));
    world.start().await;
    let (mut count, mut tried) = (0, Vec::new());
    for event in &examples {
        let name = event["name"].as_str().unwrap();
        for body in event["examples"].as_array().unwrap() {
            let (status, told) = answer(&world, &signed::github(name, body)).await;
            assert_eq!((status, told.runs.len(), told.ignored.len()), (200, 0, 1), "{name}: {told:?}");
            count += 1;
            let ignored = &told.ignored[0];
            if ignored.reason.contains("there is no") {
                tried.push(format!("{name} {} {}", ignored.name, ignored.reason));
            }
        }
    }
    assert!(count > 200, "{count}");
    tried.sort();
    tried.dedup();
    // What would start a run finds no such commit in this repository.
    let expected = [
        ("merge_group refs/heads/gh-readonly-queue/main/pr-104-", "there is no commit 2ffea6db159f6b6c47a24e778fb9ef40cf6b1c7d"),
        ("pull_request refs/pull/2/head", "there is no commit ec26c3e57ca3a959ca5aad62de7213c562f8c821"),
        ("push refs/heads/master", "there is no commit 6113728f27ae82c7b1a177c8d03f9e96e0adf246"),
        ("push refs/tags/simple-tag", "there is no commit 6113728f27ae82c7b1a177c8d03f9e96e0adf246"),
    ];
    assert_eq!(tried.len(), expected.len(), "{tried:#?}");
    for (line, (begin, end)) in tried.iter().zip(expected) {
        assert!(line.starts_with(begin) && line.ends_with(end), "{line}");
    }
    world.end().await;
}

#[tokio::test]
async fn a_forge_does_not_start_with_a_secret_that_it_cannot_read_or_that_can_be_guessed() {
    let world = World::new();
    configure(&world, "github", "hunter2", "");
    let webhook = "webhook: { forge: gitea, secret_file: /nonexistent/secret }\n";
    world.add_project("docs", webhook);
    let error = world.try_start().await.unwrap_err().to_string();
    for what in
        ["2 wrong webhook(s)", "docs: webhook.secret_file: cannot read /nonexistent/secret", "shop: webhook.secret_file:", "12 characters"]
    {
        assert!(error.contains(what), "{what}: {error}");
    }
    assert!(!error.contains("hunter2"), "{error}");
}
