//! Runs of a project's own code that the orchestrator asks for.

use std::{collections::BTreeMap, fs, time::Duration};

use eventbus::Subject;
use model::{
    TriggerId,
    context::EventKind,
    planning::Text,
    protocol::forge::{ProjectRunReply, ProjectRunRequest, Revision},
    trigger::Trust,
};

use crate::{served::Served, world::World};

/// More than anything here takes.
const DEADLINE: Duration = Duration::from_mins(1);

fn request(key: &str, revision: Revision) -> ProjectRunRequest {
    ProjectRunRequest {
        id: TriggerId::of("api", key),
        project: "shop".parse().unwrap(),
        revision,
        parameters: BTreeMap::from([("target".to_owned(), "staging".to_owned())]),
        timeout_ms: Some(7),
        actor: "ann".to_owned(),
    }
}

fn branch(name: &str) -> Revision {
    Revision::Branch { name: name.to_owned() }
}

fn tag(name: &str) -> Revision {
    Revision::Tag { name: name.to_owned() }
}

async fn ask(world: &World, request: &ProjectRunRequest) -> ProjectRunReply {
    world.bus.request(&Subject::project_run(), request, DEADLINE).await.unwrap()
}

/// Why nothing is run.
async fn refused(world: &World, revision: Revision) -> String {
    match ask(world, &request("refused", revision)).await {
        ProjectRunReply::Refused { message } => message,
        other @ (ProjectRunReply::Accepted { .. } | ProjectRunReply::Unavailable { .. }) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_branch_or_tag_is_run_as_it_is_now_and_as_trusted_as_a_push() {
    let world = World::with_forge().await;
    world.git(&world.repository(), &["symbolic-ref", "HEAD", "refs/heads/main"]);
    world.write("Ottofile", "stage one\n");
    let first = world.commit();
    world.push(&["main"]).await;
    world.git(&world.clone(), &["tag", "--annotate", "--message=one", "v1"]);
    world.write("Ottofile", "stage two\n");
    let second = world.commit();
    world.push(&["main", "main:refs/heads/feature", "v1"]).await;
    world.triggers().await;
    for (key, revision, commit, at, pipeline, protected) in [
        ("head", Revision::DefaultBranch, &second, ("main", ""), "stage two\n", true),
        ("branch", branch("feature"), &second, ("feature", ""), "stage two\n", false),
        ("tag", tag("v1"), &first, ("", "v1"), "stage one\n", false),
    ] {
        let request = request(key, revision);
        let reply = ask(&world, &request).await;
        let trigger = world.triggers().await.remove(0);
        assert_eq!(reply, ProjectRunReply::Accepted { run: trigger.run() });
        let context = &trigger.context;
        assert_eq!((context.event, (context.branch.as_str(), context.tag.as_str()), &context.commit), (EventKind::Manual, at, commit));
        assert_eq!((&context.parameters, trigger.timeout_ms, &trigger.id), (&request.parameters, Some(7), &request.id));
        assert_eq!((trigger.claims.trust, trigger.claims.protected), (Trust::Trusted, protected), "{key}");
        assert_eq!(trigger.claims.actor.as_deref(), Some("ann"));
        assert_eq!((&trigger.pipeline, trigger.source.is_some()), (&Text::Inline(pipeline.to_owned()), true));
        // Asked again, it is the same run.
        assert_eq!(ask(&world, &request).await, reply);
        assert_eq!(world.triggers().await, []);
    }
    world.end().await;
}

#[tokio::test]
async fn what_is_not_there_or_not_delivered_is_refused_with_the_reason() {
    let world = World::new();
    fs::write(
        world.path("projects/shop.yml"),
        format!(
            "source: {{ url: {}, refs: {{ branches: [main, bare] }} }}\nprotection: {{ trust: untrusted }}\n",
            world.repository().display()
        ),
    )
    .unwrap();
    world.start().await;
    world.commit();
    world.push(&["main:refs/heads/bare"]).await;
    world.write("Ottofile", "stage one\n");
    world.commit();
    world.push(&["main", "main:refs/heads/other"]).await;
    world.triggers().await;
    for (revision, why) in [
        (branch("gone"), "no branch `gone`"),
        (branch("main:x"), "no branch"),
        (branch("../../x"), "no branch"),
        (branch("--upload-pack=x"), "no branch"),
        (branch(""), "no branch"),
        (tag("v1"), "no tag `v1`"),
        (branch("other"), "delivers other branches"),
        (branch("bare"), "there is no `Ottofile`"),
    ] {
        let said = refused(&world, revision.clone()).await;
        assert!(said.contains(why), "{revision:?}: {said}");
    }
    assert_eq!(world.triggers().await, []);
    let unknown = ProjectRunRequest { project: "nobodys".parse().unwrap(), ..request("x", branch("main")) };
    assert!(matches!(ask(&world, &unknown).await, ProjectRunReply::Refused { .. }));
    // Nothing of the project is trusted.
    ask(&world, &request("untrusted", branch("main"))).await;
    assert_eq!(world.triggers().await.remove(0).claims.trust, Trust::Untrusted);
    world.end().await;
}

#[tokio::test]
async fn what_lies_elsewhere_is_fetched() {
    let world = World::new();
    let served = Served::start(world.path(""), None);
    fs::write(world.path("projects/shop.yml"), format!("source: {{ url: '{}', private_network: true }}\n", served.url())).unwrap();
    world.git(&world.repository(), &["symbolic-ref", "HEAD", "refs/heads/main"]);
    world.write("Ottofile", "stage one\n");
    let commit = world.commit();
    world.git(&world.clone(), &["tag", "--annotate", "--message=one", "v1"]);
    world.git(&world.clone(), &["push", "--quiet", world.repository().to_str().unwrap(), "main", "v1"]);
    world.start().await;
    for (key, revision) in [("head", Revision::DefaultBranch), ("branch", branch("main")), ("tag", tag("v1"))] {
        let reply = ask(&world, &request(key, revision)).await;
        let trigger = world.triggers().await.remove(0);
        assert_eq!((reply, &trigger.context.commit), (ProjectRunReply::Accepted { run: trigger.run() }, &commit), "{key}");
    }
    world.end().await;
}
