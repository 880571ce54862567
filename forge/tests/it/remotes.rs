//! Projects whose repository lies elsewhere, and is fetched over HTTP when something has happened.

use std::{fs, net::TcpListener};

use forge::{Problem, delivery::Answer};
use model::{context::EventKind, planning::Text};
use serde_json::Value;

use crate::{
    served::Served,
    signed::{self, NULL, SECRET},
    world::{World, wait_for},
};

/// `eve:pw`, which the server wants to see.
const AUTHORIZATION: &str = "Basic ZXZlOnB3";

fn configure(world: &World, url: &str, source: &str, more: &str) {
    let file = world.path("secret");
    fs::write(&file, SECRET).unwrap();
    let webhook = format!("webhook: {{ forge: github, secret_file: {} }}", file.display());
    fs::write(world.path("projects/shop.yml"), format!("source: {{ url: '{url}'{source} }}\n{webhook}\n{more}")).unwrap();
}

fn publish(world: &World, refs: &[&str]) {
    let repository = world.repository();
    let mut arguments = vec!["push", "--quiet", "--force", repository.to_str().unwrap()];
    arguments.extend(refs);
    world.git(&world.clone(), &arguments);
}

async fn tell(world: &World, event: &str, body: &Value) -> (u16, String) {
    let webhook = signed::github(event, body);
    let response = world.webhook("shop", &webhook.headers(), webhook.body.clone()).await;
    (response.status().as_u16(), response.text().await.unwrap())
}

/// The reason of an answer that starts nothing.
fn reason((status, text): (u16, String)) -> String {
    match status {
        200 => serde_json::from_str::<Answer>(&text).unwrap().ignored.remove(0).reason,
        503 => serde_json::from_str::<Problem>(&text).unwrap().detail,
        other => panic!("{other}: {text}"),
    }
}

#[tokio::test]
async fn what_is_pushed_elsewhere_is_fetched() {
    let world = World::new();
    let served = Served::start(world.path(""), None);
    configure(&world, &served.url(), ", private_network: true", "protection: { forks: run }\n");
    world.write("Ottofile", "stage one\n");
    let first = world.commit();
    publish(&world, &["main"]);
    world.start().await;
    let (status, text) = tell(&world, "push", &signed::push("refs/heads/main", NULL, &first)).await;
    assert_eq!(status, 202, "{text}");
    let trigger = world.triggers().await.remove(0);
    assert_eq!((&trigger.context.commit, &trigger.pipeline), (&first, &Text::Inline("stage one\n".to_owned())));
    let fetches = served.fetches();
    tell(&world, "push", &signed::push("refs/heads/other", NULL, &first)).await;
    assert_eq!((fetches > 0, served.fetches()), (true, fetches), "what is here already is not fetched again");
    world.triggers().await;

    world.write("Ottofile", "stage two\n");
    let second = world.commit();
    publish(&world, &["main", "main:refs/heads/--upload-pack=touch${IFS}x", "main:refs/pull/7/head", "main:refs/tags/v1"]);
    for (event, body, kind) in [
        ("push", signed::push("refs/heads/main", &first, &second), EventKind::Push),
        ("push", signed::push("refs/heads/--upload-pack=touch${IFS}x", NULL, &second), EventKind::Push),
        ("push", signed::push("refs/tags/v1", NULL, &second), EventKind::Tag),
        ("pull_request", signed::pull_request("opened", Some("eve/shop"), &second), EventKind::PullRequest),
    ] {
        let (status, text) = tell(&world, event, &body).await;
        let trigger = world.triggers().await.remove(0);
        assert_eq!((status, trigger.context.event, &trigger.context.commit), (202, kind, &second), "{text}");
    }
    let mirror = world.path("data/mirrors/shop.git");
    assert!(!mirror.join("hooks").exists() && !mirror.join("FETCH_HEAD").exists());
    world.end().await;
}

#[tokio::test]
async fn a_commit_whose_branch_has_moved_on_is_run_if_it_is_still_there() {
    let world = World::new();
    let served = Served::start(world.path(""), None);
    configure(&world, &served.url(), ", private_network: true", "");
    world.write("Ottofile", "stage one\n");
    let first = world.commit();
    publish(&world, &["main"]);
    world.git(&world.clone(), &["commit", "--quiet", "--amend", "--message=another one"]);
    publish(&world, &["main"]);
    world.start().await;
    assert_eq!(tell(&world, "push", &signed::push("refs/heads/main", NULL, &first)).await.0, 202);
    assert_eq!(world.triggers().await.remove(0).context.commit, first);
    let nowhere = tell(&world, "push", &signed::push("refs/heads/main", NULL, &"1".repeat(40))).await;
    assert!(reason(nowhere).contains("there is no commit 1111"));
    let gone = tell(&world, "push", &signed::push("refs/heads/gone", NULL, &"1".repeat(40))).await;
    assert!(reason(gone).contains("not there any more"));
    world.end().await;
}

#[tokio::test]
async fn this_network_is_not_asked_unless_the_configuration_says_so_and_no_redirect_is_followed() {
    let mut world = World::new();
    let served = Served::start(world.path(""), None);
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    elsewhere.set_nonblocking(true).unwrap();
    configure(&world, &served.url(), "", "");
    world.start().await;
    let push = signed::push("refs/heads/main", NULL, &"1".repeat(40));
    let refused = reason(tell(&world, "push", &push).await);
    assert!(refused.contains("not of the public internet") && served.requests() == 0, "{refused}");
    let redirecting = Served::redirect(format!("http://{}", elsewhere.local_addr().unwrap()));
    configure(&world, &redirecting.url(), ", private_network: true", "");
    world.restart().await;
    let refused = reason(tell(&world, "push", &push).await);
    assert!(refused.contains("cannot fetch") && redirecting.requests() > 0, "{refused}");
    assert!(elsewhere.accept().is_err(), "nobody was sent there");
    world.end().await;
}

#[tokio::test]
async fn a_fetch_has_a_bound_and_leaves_nothing_behind() {
    let mut world = World::new();
    let served = Served::start(world.path(""), None);
    configure(&world, &served.url(), ", private_network: true, fetch_mib: 1", "");
    world.write("Ottofile", "");
    // Digits that no compression makes small enough.
    let large: Vec<String> = (0_u64..400_000).map(|number| format!("{:x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
    world.write("large", &large.concat());
    let commit = world.commit();
    publish(&world, &["main"]);
    world.start().await;
    let push = signed::push("refs/heads/main", NULL, &commit);
    let refused = reason(tell(&world, "push", &push).await);
    assert!(refused.contains("over 1048576 bytes") && refused.contains("fetch_mib"), "{refused}");
    assert!(!world.path("data/mirrors/shop.git").exists());
    configure(&world, &served.url(), ", private_network: true, fetch_mib: 64", "");
    world.restart().await;
    assert_eq!(tell(&world, "push", &push).await.0, 202, "and the same is taken later");
    world.end().await;
}

#[tokio::test]
async fn credentials_are_read_for_each_fetch_and_stand_nowhere_else() {
    let world = World::new();
    let served = Served::start(world.path(""), Some(AUTHORIZATION));
    let credentials = world.path("credentials");
    fs::write(&credentials, "eve:wrong\n").unwrap();
    configure(&world, &served.url(), &format!(", private_network: true, credentials_file: {}", credentials.display()), "");
    world.write("Ottofile", "");
    let commit = world.commit();
    publish(&world, &["main"]);
    world.start().await;
    let push = signed::push("refs/heads/main", NULL, &commit);
    let refused = reason(tell(&world, "push", &push).await);
    assert!(refused.contains("cannot fetch") && !refused.contains("wrong"), "{refused}");
    fs::write(&credentials, "eve:pw\n").unwrap();
    assert_eq!(tell(&world, "push", &push).await.0, 202);
    let config = fs::read_to_string(world.path("data/mirrors/shop.git/config")).unwrap();
    assert!(!config.contains("ZXZlOnB3"), "{config}");
    world.end().await;
}

#[tokio::test]
async fn a_push_of_which_nobody_tells_is_found_and_is_one_run() {
    let mut world = World::new();
    let served = Served::start(world.path(""), None);
    configure(&world, &served.url(), ", private_network: true, poll: 1s", "");
    world.write("Ottofile", "");
    let first = world.commit();
    publish(&world, &["main"]);
    world.start().await;
    let seen = world.path("data/mirrors/shop.seen.json");
    let is_seen = |commit: &str| fs::read_to_string(&seen).is_ok_and(|text| text.contains(commit));
    wait_for("the first look", || is_seen(&first)).await;
    assert!(world.triggers().await.is_empty(), "what was there before starts nothing");
    let second = world.commit();
    publish(&world, &["main"]);
    wait_for("the push is found", || is_seen(&second)).await;
    let triggers = world.triggers().await;
    let [trigger] = triggers.as_slice() else { panic!("{triggers:?}") };
    assert_eq!((&trigger.context.commit, &trigger.context.base), (&second, &first));
    assert_eq!(tell(&world, "push", &signed::push("refs/heads/main", &first, &second)).await.0, 202);
    assert!(world.triggers().await.is_empty(), "told as well, it is the same run");

    world.git(&world.clone(), &["tag", "--annotate", "--message=one", "v1"]);
    publish(&world, &["v1"]);
    world.restart().await;
    wait_for("the tag is found", || fs::read_to_string(&seen).unwrap().contains("refs/tags/v1")).await;
    let tagged = world.triggers().await.remove(0);
    assert_eq!((tagged.context.event, tagged.context.tag.as_str(), &tagged.context.commit), (EventKind::Tag, "v1", &second));
    world.end().await;
}
